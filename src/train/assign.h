/* Which anchors an image's targets are assigned to: the task-aligned assigner (Feng et al. 2021, TOOD) of super-gradients 3.7.1, with top 13,
   alpha 1, beta 6. Internal to train. */
#ifndef BND_TRAIN_ASSIGN_H
#define BND_TRAIN_ASSIGN_H

#include "train/loss.h"

/* Where the predictions are made: arrays over the anchors. */
typedef struct bnd_anchors {
  const float *x, *y; /* in pixels */
  const float *stride;
  size_t count;
} bnd_anchors;

typedef struct bnd_positive {
  size_t anchor, target;
  int label;
  float score;         /* q at the label's class */
  float target_box[4]; /* x1, y1, x2, y2 in pixels */
} bnd_positive;

typedef struct bnd_assignment {
  bnd_positive *rows; /* each anchor at most once. Owned: free() */
  size_t count;
} bnd_assignment;

/* A box's sides as distributions: p = softmax(z) and the expected distance, in strides. */
typedef struct bnd_box_sides {
  double probability[4 * (BND_REG_MAX_LIMIT + 1)]; /* [4][reg_max + 1] */
  double log_sum[4];                               /* log sum exp z */
  double distance[4];
} bnd_box_sides;

/* z: [4][reg_max + 1]. */
void bnd_box_decode(const float *logits, int reg_max, bnd_box_sides *sides);
/* (x - left, y - top, x + right, y + bottom) around a point in strides, each rounded to float. */
void bnd_box_around(float x, float y, const bnd_box_sides *sides, float box[4]);

/* image_index stands in messages. The logits are finite. On failure *assignment is empty. */
bnd_status bnd_assign_targets(const bnd_loss_options *options, const bnd_anchors *anchors, const bnd_loss_image *image, size_t image_index,
                              bnd_assignment *assignment, bnd_error *error);

#endif
