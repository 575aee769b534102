/* Inside the flow: quantization-aware training, between calibration and freezing. The calibrated graph is trained in place; how far it has come, or
   the trained network, stands in a checkpoint of its own in the output folder. */
#ifndef BND_FLOW_QAT_H
#define BND_FLOW_QAT_H

#include "data/loader.h"
#include "flow/model.h"
#include "formats/json/json.h"
#include "train/trainer.h"

/* What a step reported; the parts are weighted and add up to the loss. Doubles only: saved as rows of one tensor. */
typedef struct bnd_qat_step {
  double loss, classification, iou, dfl, learning_rate;
} bnd_qat_step;
enum { BND_QAT_STEP_NUMBERS = 5 };

typedef struct bnd_qat {
  /* what was asked for, with the defaults put in */
  const char *split, *schedule;
  uint64_t limit, seed; /* limit: images, 0 = all */
  double share, learning_rate, final_ratio, weight_decay, save_seconds;
  int epochs, batch;
  uint64_t warmup_steps;
  bool augment, in_order, freeze_batch_norm, average;
  bool learn_thresholds;
  double threshold_rate; /* 0 = the trainer's default */
  bnd_exec_backend backend;

  const bnd_model *model; /* borrowed */
  bnd_coco coco;
  bnd_loader loader;
  uint64_t milestones[2]; /* of a step schedule: epochs */
  bnd_qat_step *steps;    /* [step_count] */
  size_t step_count, done;
} bnd_qat;

/* Reads the options and the annotations and chooses the images; everything that can be found wrong before the first step is. *qat borrows model and
   options. */
bnd_status bnd_qat_open(const bnd_quantize_options *options, const bnd_model *model, const bnd_preprocessing *preprocessing, bnd_exec_backend backend,
                        const bnd_context *context, bnd_qat *qat, bnd_error *error);
void bnd_qat_close(bnd_qat *qat); /* a zeroed one is fine */

/* Appends everything the trained network depends on beside the calibrated one. */
bnd_status bnd_qat_fingerprint(const bnd_qat *qat, const bnd_context *context, bnd_string *text, bnd_error *error);

/* Whether the quantized graph, calibrated or not, can be trained. */
bnd_status bnd_qat_check(bnd_graph *graph, bnd_error *error);

/* Where the state is kept, and what it must belong to. */
typedef struct bnd_qat_file {
  const char *path;
  const char *fingerprint;
  bool restart; /* whatever is there is not looked at */
} bnd_qat_file;

/* Trains the calibrated graph, or takes from the file what is done there: all of it, or the steps so far. Saves now and then and whenever it ends,
   for whatever reason. Afterwards the quantizers stand as they do in evaluation. */
bnd_status bnd_qat_train(bnd_qat *qat, bnd_graph *graph, const bnd_qat_file *file, const bnd_context *context, bnd_error *error);

/* The settings as members of the JSON object being written; with_steps: the loss and learning rate of every step, too. */
void bnd_qat_describe(const bnd_qat *qat, bool with_steps, bnd_json_writer *writer);

/* --- the file (qat_state.c) --- */

/* Training so far, to be continued. */
bnd_status bnd_qat_save_progress(const bnd_qat *qat, bnd_trainer *trainer, const bnd_qat_file *file, bnd_error *error);
/* The trained network: parameters and statistics of `network`, quantizers of `graph`. Nothing else is needed later, and it is a third as large. */
bnd_status bnd_qat_save_finished(const bnd_qat *qat, const bnd_network *network, const bnd_graph *graph, const bnd_qat_file *file, bnd_error *error);

/* Opens the file if it belongs to this training and reads the steps done; otherwise *saved is NULL. */
bnd_status bnd_qat_open_saved(bnd_qat *qat, const bnd_qat_file *file, const bnd_context *context, bnd_checkpoint **saved, bool *finished,
                              bnd_error *error);
/* Puts the finished network into the graph, all of it or nothing. */
bnd_status bnd_qat_restore_finished(const bnd_qat_file *file, bnd_checkpoint *saved, bnd_graph *graph, bnd_error *error);

/* The answer to a file that belongs to this training but cannot be used. */
bnd_status bnd_qat_fail_to_go_on(const bnd_qat_file *file, bnd_status status, const char *reason, bnd_error *error);

/* The network as it is trained. */
bnd_status bnd_qat_network(bnd_graph *graph, int batch, int threads, bnd_exec_backend backend, bool learn_thresholds, bnd_network **network,
                           bnd_error *error);

#endif
