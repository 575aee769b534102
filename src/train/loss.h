/* PPYoloELoss of super-gradients 3.7.1 (training/losses/ppyolo_loss.py) as YOLO-NAS is trained with it: task-aligned assignment, varifocal
 * classification loss, generalised IoU, distribution focal loss; and its gradients with respect to the raw predictions.
 *
 * With x the class logits, p = sigmoid(x), q the assigned soft scores (0 except at the class of a positive anchor, where q = t), z the box logits,
 * sides left, top, right, bottom, each a distribution over the distances 0 ... reg_max in strides:
 *   classification = sum w BCE(x, q), w = q at a positive's class, else 0.75 p^2 (not detached)            (Zhang et al. 2021, VarifocalNet)
 *   iou            = sum over positives of t (1 - IoU + (C - U) / C), boxes in strides                     (Rezatofighi et al. 2019)
 *   dfl            = sum over positives of t / 4 sum over sides -((k + 1 - d) log p_k + (d - k) log p_k+1) (Li et al. 2020), d = the side's distance
 * Each times its weight, divided by N = max(sum of q over the batch, 1).
 *
 * Arithmetic: what decides the assignment (boxes, overlaps, metrics) is rounded to float step by step as in the original, ties included; sums and
 * gradients are computed in double, with the exponential and logarithm of kernels/math.h, in one fixed order. */
#ifndef BND_TRAIN_LOSS_H
#define BND_TRAIN_LOSS_H

#include "data/transform.h"

enum { BND_REG_MAX_LIMIT = 255 };

typedef struct bnd_loss_options {
  int classes, reg_max;                                 /* YOLO-NAS: 80, 16. At least 1; reg_max at most BND_REG_MAX_LIMIT */
  double classification_weight, iou_weight, dfl_weight; /* 0 = 1.0, 2.5, 0.5 */
} bnd_loss_options;

/* Weighted and divided by N, as the original logs them. */
typedef struct bnd_loss_parts {
  double classification, iou, dfl, total;
  int positives;    /* anchors assigned to a target */
  double score_sum; /* sum of q, before the maximum with 1 */
} bnd_loss_parts;

/* One image's raw predictions and ground truth (canvas pixels; crowd rows are not among them). All borrowed. */
typedef struct bnd_loss_image {
  const float *class_logits; /* [anchors][classes] */
  const float *box_logits;   /* [anchors][4][reg_max + 1] */
  const bnd_target *targets;
  size_t target_count;
  float *class_gradient, *box_gradient; /* like the logits; NULL = not wanted; overwritten */
} bnd_loss_image;

/* points: [anchors][2] anchor points x, y in pixels; strides: [anchors]. The work is shared among `threads` (at least 1); the result does not
   depend on their number. Errors: BND_ERROR_MODEL for logits that are not finite (which, where), BND_ERROR_ARGUMENT for targets with a label outside
   the classes or a box that is not finite, and for options out of range. The gradients are then undefined. */
bnd_status bnd_yolo_loss(const bnd_loss_options *options, const float *points, const float *strides, size_t anchors, const bnd_loss_image *images,
                         size_t image_count, int threads, bnd_loss_parts *parts, bnd_error *error);

#endif
