/* Inside the flow: an opened model and what can be made of it. */
#ifndef BND_FLOW_MODEL_H
#define BND_FLOW_MODEL_H

#include "binade/binade.h"
#include "data/transform.h"
#include "exec/exec.h"
#include "flow/class_names.h"
#include "formats/checkpoint/checkpoint.h"
#include "formats/checkpoint/writer.h"
#include "models/yolo_nas/yolo_nas.h"

struct bnd_model {
  char *path;
  /* a checkpoint */
  bnd_checkpoint *checkpoint;
  bnd_state_dict state_dict;
  bnd_named_shape *tensors;
  bnd_yolo_nas *network;
  bnd_class_names classes;        /* as the file names them; empty = it does not */
  bool has_preprocessing;         /* the checkpoint brings its own */
  bnd_preprocessing preprocessing;
  /* an ONNX file */
  bnd_graph *graph;
  bnd_string findings; /* a line for each scale that is no power of two */
};

bool bnd_model_is_onnx(const bnd_model *model);
/* Input side to use: `size` if not 0, else the checkpoint's own, else 640. */
bnd_status bnd_model_size(const bnd_model *model, int size, int *width, int *height, bnd_error *error);
/* For datasets sizes are truncated, for prediction rounded, as super-gradients does in either place. */
bnd_status bnd_model_preprocessing(const bnd_model *model, int size, bool prediction, bnd_preprocessing *preprocessing, bnd_error *error);
bnd_status bnd_model_graph(const bnd_model *model, const bnd_yolo_nas_options *options, bnd_graph **graph, bnd_error *error);
/* What evaluation and prediction run: the network in a form, decoded outputs only, or an ONNX file as it is; and how (quantized files: quantized). */
bnd_status bnd_model_detector(const bnd_model *model, bnd_yolo_nas_form form, int width, int height, bnd_graph **graph, bnd_exec_mode *mode, bnd_error *error);
/* The backend for a network that runs in this mode. */
bnd_exec_backend bnd_backend_of(bnd_executor_kind executor, bnd_exec_mode mode);
int bnd_model_class_count(const bnd_model *model);
/* The checkpoint's name of a class, COCO's when there are 80, else "class 7" (written into text). */
const char *bnd_model_class_name(const bnd_model *model, int label, char text[32]);
bnd_yolo_nas_form bnd_form_of(bnd_form form, bnd_yolo_nas_form otherwise);

/* Reads class names and the preprocessing chain of super-gradients' `processing_params`. *found false: there are none. */
bnd_status bnd_processing_params_read(const char *path, const bnd_value *params, bnd_class_names *classes, bnd_preprocessing *preprocessing, bool *found,
                                      bnd_error *error);
/* Adds the same to a checkpoint, as super-gradients' trainer does: it can then predict with the file, and bnd_processing_params_read gives back
   *preprocessing. The reader knows one way to keep an aspect ratio, BND_RESCALE_LONGEST_ROUND; bnd_model_preprocessing chooses. */
void bnd_processing_params_write(bnd_checkpoint_writer *writer, const bnd_class_names *classes, const bnd_preprocessing *preprocessing);

#endif
