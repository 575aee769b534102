/* A split of a folder in COCO's layout: DIR/annotations/instances_<split>.json and DIR/images/<split>/<file_name>.
   Rules as in super-gradients' COCOFormatDetectionDataset (ignore_empty_annotations, with_crowd) and pycocotools. */
#ifndef BND_DATA_COCO_H
#define BND_DATA_COCO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

typedef struct bnd_coco_category {
  int64_t id;
  const char *name;
} bnd_coco_category;

typedef struct bnd_coco_image {
  int64_t id;
  int width, height;       /* as the JSON says (the decoded file may differ) */
  const char *file_name;   /* as the JSON says; absent: the id with 12 digits and ".jpg" */
  size_t first, count;     /* its annotations: annotations[first .. first + count), in the order of the file */
} bnd_coco_image;

typedef struct bnd_coco_annotation {
  int64_t id;      /* absent: 1 + position in annotations[] */
  int32_t image;   /* index into images */
  int32_t label;   /* index into categories = class index of the network */
  bool crowd;      /* iscrowd; absent: false */
  double bbox[4];  /* x, y, width, height as written */
  double area;     /* as written; absent: width * height */
} bnd_coco_annotation;

typedef struct bnd_coco {
  bnd_coco_category *categories;    /* by ascending id; index = label */
  size_t category_count;
  bnd_coco_image *images;           /* in the order of images[] */
  size_t image_count;
  bnd_coco_annotation *annotations; /* grouped by image in the order of `images`, inside a group in the order of annotations[] */
  size_t annotation_count;
  size_t *annotated;                /* indices of the images with at least one box (crowd or not) after clipping to the image: the images
                                       super-gradients' validation set consists of, in the order of images[] */
  size_t annotated_count;
  const char *file;                 /* the annotation file, for messages */
  const char *images_folder;        /* DIR/images/<split> */
  bnd_arena *arena;                 /* owns all of the above */
} bnd_coco;

/* On failure *coco is zeroed. Image files are not touched. Errors: unknown image or category in an annotation, ids that occur twice, a bbox
   that is not four finite numbers, sizes below 1, a file_name that is absolute or climbs out of the folder. */
bnd_status bnd_coco_open(const char *folder, const char *split, bnd_coco *coco, bnd_error *error);
/* The same from an annotation file and an image folder named separately. */
bnd_status bnd_coco_open_files(const char *annotation_file, const char *images_folder, bnd_coco *coco, bnd_error *error);
void bnd_coco_close(bnd_coco *coco); /* and zeroes *coco */

/* The path of an image's file into path[size]; BND_ERROR_ARGUMENT when it does not fit. 4096 bytes always do for paths the system opens. */
bnd_status bnd_coco_image_path(const bnd_coco *coco, size_t image, char *path, size_t size, bnd_error *error);

/* A box as super-gradients keeps it: f32 corners clipped to the JSON size of the image. False: the box lies outside (x2 < x1 or y2 < y1)
   and is dropped. Boxes of zero size survive this step. */
bool bnd_coco_clipped_box(const bnd_coco_image *image, const bnd_coco_annotation *annotation, float box[4] /* x1, y1, x2, y2 */);

#endif
