/* From a detector's decoded output to detections: threshold, top-k, non-maximum suppression.
 * Follows super-gradients' PPYoloEPostPredictionCallback as it runs on a CPU (torch 2.7.1, torchvision 0.22.1), including the order torch
 * gives to equal scores (tensor/torch_order.h), so that quantized scores, which tie often, keep and drop the same boxes. */
#ifndef BND_EVAL_POSTPROCESS_H
#define BND_EVAL_POSTPROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Corners in the pixels of the network's input. */
typedef struct bnd_detection {
  float x1, y1, x2, y2;
  float score;
  int32_t label; /* 0-based class */
} bnd_detection;

typedef struct bnd_postprocess_options {
  float score_threshold; /* multi-label: score > threshold; otherwise score >= threshold */
  size_t top_k;          /* candidates that enter suppression; at least 1 */
  double iou_threshold;  /* a box is dropped when its IoU with a kept one is greater */
  size_t max_detections; /* per image, best scores first */
  bool multi_label;      /* every class of an anchor above the threshold is a candidate; otherwise its best class only */
  bool class_agnostic;   /* boxes suppress boxes of other classes too */
} bnd_postprocess_options;

/* What the published COCO metrics use (0.01, 1000, 0.7, 300, multi-label) and what prediction uses (0.25, 1024, 0.7, 300, multi-label). */
bnd_postprocess_options bnd_postprocess_for_metrics(void);
bnd_postprocess_options bnd_postprocess_for_prediction(void);

/* boxes: [anchors, 4] as x1, y1, x2, y2; scores: [anchors, classes]. detections has room for options->max_detections; *count are written, by
 * descending score. Several threads may call this at once. Fails only when memory is short or the sizes overflow. NaN scores are no candidates. */
bnd_status bnd_postprocess(const float *boxes, const float *scores, size_t anchors, size_t classes, const bnd_postprocess_options *options,
                           bnd_detection *detections, size_t *count, bnd_error *error);

#endif
