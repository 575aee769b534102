/* What the files of the trainer share. */
#ifndef BND_TRAIN_INTERNAL_H
#define BND_TRAIN_INTERNAL_H

#include "train/trainer.h"

struct bnd_trainer {
  bnd_network *network;
  const bnd_loader *loader;
  bnd_trainer_options options;
  uint64_t steps_per_epoch, done;
  bnd_optimizer *optimizer;

  /* trained parameters, behind them running statistics */
  const char **names;
  bnd_shape *shapes;
  bnd_floats *values, *averages;
  size_t array_count, trained_count;

  size_t anchors;
  float *points, *strides;
  size_t input_count;
  float **inputs; /* by image */
  bnd_targets *targets;
  bnd_loss_image *loss_images;

  /* state before the step that runs */
  float **backup;                   /* by statistic */
  bnd_quantizer **quantizer_backup; /* by quantizer of the network */
};

/* backup.c: running statistics and quantizers change during a pass; a step that fails takes that back. */
bnd_status bnd_backup_create(bnd_trainer *trainer, bnd_error *error);
void bnd_backup_destroy(bnd_trainer *trainer);
bnd_status bnd_backup_take(bnd_trainer *trainer, bnd_error *error);
void bnd_backup_put_back(bnd_trainer *trainer);

#endif
