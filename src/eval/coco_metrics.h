/* COCO's twelve numbers for bounding boxes: pycocotools' COCOeval, evaluate + accumulate + summarize with default parameters, in float64 and in
 * the same order of operations. */
#ifndef BND_EVAL_COCO_METRICS_H
#define BND_EVAL_COCO_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct bnd_coco_truth {
  int64_t id; /* annotation id. 0 means "unmatched" in COCOeval, so a detection that matches annotation 0 counts as a false positive, as there */
  int64_t image_id, category_id;
  double box[4]; /* x, y, width, height in pixels of the original image */
  double area;   /* the annotation's own area (of its outline), which decides small, medium, large */
  bool crowd;
} bnd_coco_truth;

typedef struct bnd_coco_detection {
  int64_t image_id, category_id;
  double box[4]; /* x, y, width, height in pixels of the original image */
  double score;
} bnd_coco_detection;

typedef struct bnd_coco_input {
  const bnd_coco_truth *truth; /* in the order of the annotation file */
  size_t truth_count;
  const bnd_coco_detection *detections; /* in the order of the results file: equal scores are taken in this order */
  size_t detection_count;
  const int64_t *image_ids; /* the images to evaluate on, in any order, duplicates counted once; everything on other images is left out */
  size_t image_count;
  const int64_t *category_ids; /* the categories of the annotation file, in any order; everything of other categories is left out */
  size_t category_count;
} bnd_coco_input;

enum {
  BND_COCO_AP, /* mean over IoU 0.50, 0.55 .. 0.95 */
  BND_COCO_AP50,
  BND_COCO_AP75,
  BND_COCO_AP_SMALL,  /* area up to 32 * 32 */
  BND_COCO_AP_MEDIUM, /* up to 96 * 96 */
  BND_COCO_AP_LARGE,
  BND_COCO_AR_1, /* recall with at most 1, 10, 100 detections per image and category */
  BND_COCO_AR_10,
  BND_COCO_AR_100,
  BND_COCO_AR_SMALL,
  BND_COCO_AR_MEDIUM,
  BND_COCO_AR_LARGE,
  BND_COCO_NUMBERS
};

/* numbers: the twelve, each -1 where nothing was there to find. category_ap (may be NULL): AP and AP50 of each category in the order of
 * category_ids, -1 for categories without objects; category_ap50 likewise. Same results for any number of threads. */
bnd_status bnd_coco_evaluate(const bnd_coco_input *input, double numbers[BND_COCO_NUMBERS], double *category_ap, double *category_ap50,
                             bnd_error *error);

#endif
