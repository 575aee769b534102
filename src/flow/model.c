#include "flow/model.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "formats/onnx/onnx_file.h"
#include "import/onnx_import.h"
#include "ops/operators.h"

void bnd_free(void *memory) { free(memory); }

void bnd_model_close(bnd_model *model) {
  if (!model) return;
  bnd_yolo_nas_destroy(model->network);
  bnd_checkpoint_close(model->checkpoint);
  bnd_class_names_free(&model->classes);
  bnd_graph_destroy(model->graph);
  bnd_string_free(&model->findings);
  free(model->tensors);
  free(model->path);
  free(model);
}

static bnd_status load_tensor(void *user, size_t index, bnd_tensor *tensor, bnd_error *error) {
  const bnd_model *model = user;
  return bnd_checkpoint_entry_tensor(model->checkpoint, &model->state_dict.entries[index], tensor, error);
}

static bnd_status open_checkpoint(bnd_model *model, bnd_error *error) {
  BND_TRY(bnd_checkpoint_open(model->path, &model->checkpoint, error));
  BND_TRY(bnd_checkpoint_state_dict(model->checkpoint, NULL, &model->state_dict, error));
  model->tensors = bnd_calloc(model->state_dict.count, sizeof *model->tensors);
  if (!model->tensors) return bnd_fail_memory(error, model->path);
  for (size_t i = 0; i < model->state_dict.count; i++) {
    const bnd_state_dict_entry *entry = &model->state_dict.entries[i];
    model->tensors[i] = (bnd_named_shape){entry->name, entry->dtype, entry->shape};
  }
  const bnd_tensor_source source = {model->path, model->tensors, model->state_dict.count, model, load_tensor};
  BND_TRY(bnd_yolo_nas_read(&source, &model->network, error));
  const bnd_value *params = bnd_value_get(bnd_checkpoint_root(model->checkpoint), "processing_params");
  BND_TRY(bnd_processing_params_read(model->path, params, &model->classes, &model->preprocessing, &model->has_preprocessing, error));
  const int classes = bnd_model_class_count(model);
  if (model->classes.count && model->classes.count != (size_t)classes)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: processing_params names %zu classes, but the network has %d", model->path, model->classes.count, classes);
  return BND_OK;
}

static void read_metadata(void *user, const char *key, const char *value) {
  bnd_model *model = user;
  if (strcmp(key, BND_CLASS_NAMES_KEY) == 0) bnd_class_names_from_json(value, &model->classes);
}

static bnd_status open_onnx(bnd_model *model, bnd_error *error) {
  const bnd_onnx_import_options options = {.findings = &model->findings, .metadata = read_metadata, .user = model};
  BND_TRY(bnd_import_onnx(model->path, &options, &model->graph, error));
  if (model->classes.count != (size_t)bnd_model_class_count(model)) bnd_class_names_free(&model->classes); /* names of something else */
  return BND_OK;
}

bnd_status bnd_model_open(const char *path, bnd_model **model, bnd_error *error) {
  bnd_model *fresh = bnd_calloc(1, sizeof *fresh);
  if (!fresh || !(fresh->path = strdup(path))) {
    free(fresh);
    return bnd_fail_memory(error, path);
  }
  const bnd_status status = bnd_onnx_recognize(path) ? open_onnx(fresh, error) : open_checkpoint(fresh, error);
  if (status == BND_OK) *model = fresh;
  else bnd_model_close(fresh);
  return status;
}

bool bnd_model_is_onnx(const bnd_model *model) { return model->graph != NULL; }

/* The one image input of an ONNX file; NULL when it has another kind of input. */
static const bnd_node *image_input(const bnd_graph *graph) {
  const bnd_node *input = NULL;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (node->kind != BND_PLACEHOLDER) continue;
    if (input || node->shape[0].rank != 4 || node->shape[0].size[0] != 1 || node->shape[0].size[1] != 3) return NULL;
    input = node;
  }
  return input;
}

/* The scores [1,A,N] among the outputs of a detector's ONNX file; NULL when its first two outputs are not boxes and scores. */
static const bnd_node *scores_output(const bnd_graph *graph) {
  const bnd_node *last = bnd_graph_last(graph);
  if (!last || last->kind != BND_OUTPUT || last->args[0].kind != BND_ARG_LIST || last->args[0].list.count < 2) return NULL;
  const bnd_arg *items = last->args[0].list.items;
  if (items[0].kind != BND_ARG_NODE || items[1].kind != BND_ARG_NODE) return NULL;
  const bnd_shape *boxes = &items[0].node->shape[0], *scores = &items[1].node->shape[0];
  return boxes->rank == 3 && scores->rank == 3 && boxes->size[2] == 4 && boxes->size[1] == scores->size[1] ? items[1].node : NULL;
}

static bnd_status onnx_size(const bnd_model *model, int size, int *width, int *height, bnd_error *error) {
  const bnd_node *input = image_input(model->graph);
  if (!input) return bnd_fail(error, BND_ERROR_MODEL, "%s: its input is not one image [1,3,H,W]", model->path);
  *height = (int)input->shape[0].size[2];
  *width = (int)input->shape[0].size[3];
  if (size && (size != *width || size != *height))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: was made for %dx%d; another size needs another file", model->path, *width, *height);
  return BND_OK;
}

bnd_status bnd_model_size(const bnd_model *model, int size, int *width, int *height, bnd_error *error) {
  enum { GRID = 32, LARGEST = 8192 };
  if (bnd_model_is_onnx(model)) return onnx_size(model, size, width, height, error);
  *width = size ? size : model->has_preprocessing ? model->preprocessing.width : 640;
  *height = size ? size : model->has_preprocessing ? model->preprocessing.height : 640;
  if (*width < GRID || *height < GRID || *width % GRID || *height % GRID || *width > LARGEST || *height > LARGEST)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s%sinput size %dx%d: sides must be multiples of %d between %d and %d%s", size ? "" : model->path,
                    size ? "" : ": processing_params: ", *width, *height, GRID, GRID, LARGEST, size ? "" : "; choose one with --size");
  return BND_OK;
}

bnd_status bnd_model_preprocessing(const bnd_model *model, int size, bool prediction, bnd_preprocessing *preprocessing, bnd_error *error) {
  int width, height;
  BND_TRY(bnd_model_size(model, size, &width, &height, error));
  if (model->has_preprocessing) {
    *preprocessing = model->preprocessing;
    preprocessing->rescale_width += width - preprocessing->width;
    preprocessing->rescale_height += height - preprocessing->height;
    preprocessing->width = width;
    preprocessing->height = height;
  } else {
    *preprocessing = bnd_preprocessing_yolo_nas(width, height);
  }
  if (preprocessing->rescale == BND_RESCALE_LONGEST_TRUNCATE && prediction) preprocessing->rescale = BND_RESCALE_LONGEST_ROUND;
  if (preprocessing->rescale == BND_RESCALE_LONGEST_ROUND && !prediction) preprocessing->rescale = BND_RESCALE_LONGEST_TRUNCATE;
  return bnd_preprocessing_check(preprocessing, model->path, error);
}

bnd_status bnd_model_graph(const bnd_model *model, const bnd_yolo_nas_options *options, bnd_graph **graph, bnd_error *error) {
  if (bnd_model_is_onnx(model)) return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: is an ONNX file; this needs the checkpoint it was made from", model->path);
  return bnd_yolo_nas_graph(model->network, options, graph, error);
}

bnd_status bnd_model_detector(const bnd_model *model, bnd_yolo_nas_form form, int width, int height, bnd_graph **graph, bnd_exec_mode *mode, bnd_error *error) {
  *mode = BND_EXEC_FLOAT;
  if (!bnd_model_is_onnx(model)) {
    const bnd_yolo_nas_options options = {.form = form, .height = height, .width = width};
    return bnd_yolo_nas_graph(model->network, &options, graph, error);
  }
  if (!scores_output(model->graph))
    return bnd_fail(error, BND_ERROR_MODEL, "%s: its first two outputs are not boxes [1,A,4] and scores [1,A,N], as files written by binade have", model->path);
  for (const bnd_node *node = bnd_graph_first(model->graph); node; node = node->next)
    if (bnd_is_fake_quantize(node)) *mode = BND_EXEC_FAKE_QUANTIZE;
  return bnd_graph_copy(model->graph, graph, error);
}

int bnd_model_class_count(const bnd_model *model) {
  if (model->network) return bnd_yolo_nas_architecture_of(model->network)->classes;
  const bnd_node *scores = model->graph ? scores_output(model->graph) : NULL;
  return scores ? (int)scores->shape[0].size[2] : 0;
}

static const char *const COCO_NAMES[80] = {
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop",
    "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
};

const char *bnd_model_class_name(const bnd_model *model, int label, char text[32]) {
  if (label >= 0 && (size_t)label < model->classes.count) return model->classes.names[label];
  if (model->classes.count == 0 && bnd_model_class_count(model) == 80 && label >= 0 && label < 80) return COCO_NAMES[label];
  snprintf(text, 32, "class %d", label);
  return text;
}

bnd_yolo_nas_form bnd_form_of(bnd_form form, bnd_yolo_nas_form otherwise) {
  switch (form) {
    case BND_FORM_TRAIN: return BND_YOLO_NAS_TRAIN;
    case BND_FORM_PARTIAL: return BND_YOLO_NAS_PARTIAL;
    case BND_FORM_FOLDED: return BND_YOLO_NAS_FOLDED;
    case BND_FORM_DEFAULT: break;
  }
  return otherwise;
}

bnd_exec_backend bnd_backend_of(bnd_executor_kind executor, bnd_exec_mode mode) {
  if (executor == BND_EXECUTOR_REFERENCE) return BND_BACKEND_REFERENCE;
  return executor == BND_EXECUTOR_FAKEQUANT || mode == BND_EXEC_FLOAT ? BND_BACKEND_ONEDNN : BND_BACKEND_INT8;
}
