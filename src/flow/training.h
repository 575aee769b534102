/* Inside the flow: a training run between its files (train_files.c) and its loop (train.c). */
#ifndef BND_FLOW_TRAINING_H
#define BND_FLOW_TRAINING_H

#include "binade/binade.h"
#include "flow/model.h"
#include "models/yolo_nas/state.h"
#include "train/trainer.h"

/* Means over an epoch, and what validation found behind it. Kept as doubles in the state file, in this order. */
typedef struct bnd_epoch_row {
  double loss, classification, iou, dfl, learning_rate, seconds;
  double map50, map50_95; /* NaN: not validated */
} bnd_epoch_row;
enum { BND_EPOCH_NUMBERS = sizeof(bnd_epoch_row) / sizeof(double) };

typedef struct bnd_training {
  const bnd_train_options *options;
  bnd_train_options o; /* with the defaults filled in */
  const bnd_context *context;
  bnd_train_result *result;
  bnd_error *error;
  int threads;
  char *run; /* text of all options results depend on */

  bnd_yolo_nas_state *state, *average; /* what is written as "net" and "ema_net" */
  int64_t counted;                     /* batches the counters of `state` know of */
  bnd_yolo_nas *architecture;          /* of state */
  bnd_class_names classes;
  bnd_preprocessing preprocessing;
  bnd_coco coco, validation;
  bnd_loader loader;
  bnd_graph *graph;
  bnd_network *network;
  bnd_trainer *trainer;
  bnd_snapshots *snapshots;

  bnd_epoch_row *rows;
  size_t row_count, row_capacity;
  bnd_epoch_row sums; /* of the epoch that runs; seconds: spent in it */
  uint64_t summed;    /* its steps so far */
} bnd_training;

/* OUTPUT/NAME; allocated, NULL = memory short. */
char *bnd_training_path(const bnd_training *t, const char *name);
/* Everything needed to go on: OUTPUT/state.pth. */
bnd_status bnd_training_save(bnd_training *t);
/* Puts it back; fails when the run was another one. */
bnd_status bnd_training_resume(bnd_training *t);
/* last.pth with the network and its moving average. */
bnd_status bnd_training_write_last(bnd_training *t);
bnd_status bnd_training_write_best(bnd_training *t);
bnd_status bnd_training_write_average(bnd_training *t);
/* metrics.jsonl and training.svg */
bnd_status bnd_training_write_metrics(bnd_training *t);
/* The row with the best mAP@0.50:0.95; -1 = none. */
int64_t bnd_training_best(const bnd_training *t);
/* Parameters and statistics as the snapshots take them: the averages, or the values. */
bnd_status bnd_training_arrays(const bnd_training *t, bnd_floats **arrays, size_t *count);

#endif
