/* Mean average precision as super-gradients defines it (DetectionMetrics_050 and DetectionMetrics_050_095 of version 3.7.1): float32, on the
 * network's input canvas, matches at IoU > threshold, precision sampled at 101 recall values, mean over the classes that have targets.
 *
 * An image's matching (bnd_sg_match_image) depends on that image alone, so several threads may compute records; appending them in image order
 * gives the same result for any number of threads.
 *
 * Equal scores: taken in the order torch.argsort gives them (tensor/torch_order.h), as in the original. */
#ifndef BND_EVAL_SG_METRICS_H
#define BND_EVAL_SG_METRICS_H

#include "data/transform.h"
#include "eval/postprocess.h"

typedef struct bnd_sg_options {
  size_t classes;        /* labels are 0 .. classes - 1 */
  float width, height;   /* of the canvas in pixels; detections are clipped to it */
  float score_threshold; /* precision, recall and F1 are read at this score; mAP does not depend on it */
  size_t top_k;          /* detections per image and class that take part; the others are ignored */
} bnd_sg_options;

/* 640 x 640 canvas, score threshold 0.1, top_k 300: the published settings. */
bnd_sg_options bnd_sg_default_options(size_t classes);

/* One image's detections with what each matched. Owned: bnd_sg_record_free. */
typedef struct bnd_sg_record bnd_sg_record;
bnd_status bnd_sg_match_image(const bnd_sg_options *options, const bnd_detection *detections, size_t detection_count, const bnd_target *targets,
                              size_t target_count, const bnd_target *crowd, size_t crowd_count, bnd_sg_record **record, bnd_error *error);
void bnd_sg_record_free(bnd_sg_record *record); /* NULL is fine */

typedef struct bnd_sg_metrics bnd_sg_metrics;
bnd_status bnd_sg_metrics_create(const bnd_sg_options *options, bnd_sg_metrics **metrics, bnd_error *error);
void bnd_sg_metrics_destroy(bnd_sg_metrics *metrics); /* NULL is fine */
/* Takes over the record (frees it, also on failure). */
bnd_status bnd_sg_metrics_append(bnd_sg_metrics *metrics, bnd_sg_record *record, bnd_error *error);
/* Match and append in one. */
bnd_status bnd_sg_metrics_add(bnd_sg_metrics *metrics, const bnd_detection *detections, size_t detection_count, const bnd_target *targets,
                              size_t target_count, const bnd_target *crowd, size_t crowd_count, bnd_error *error);

/* The numbers super-gradients prints. All are -1 before the first image and NaN (best_score_threshold: 0) when no image had a target, as there. */
typedef struct bnd_sg_scores {
  double precision, recall, f1; /* at options.score_threshold, mean over classes and IoU thresholds */
  double map;
  /* Of 0, 0.01, .. 1 the one with the best F1 (mean over classes and IoU thresholds); the lowest of equals, where the original's float32 rounding
   * may choose another. */
  double best_score_threshold;
} bnd_sg_scores;

typedef struct bnd_sg_result {
  bnd_sg_scores at_050;     /* IoU 0.5 */
  bnd_sg_scores at_050_095; /* IoU 0.5, 0.55, .. 0.95 */
} bnd_sg_result;

/* ap_050 and ap_050_095 (may be NULL) receive one average precision per class; 0 for classes without targets, as in the original. */
bnd_status bnd_sg_metrics_compute(const bnd_sg_metrics *metrics, bnd_sg_result *result, double *ap_050, double *ap_050_095, bnd_error *error);

#endif
