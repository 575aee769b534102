/* Inside the COCO reader: the annotation file as records, before ids are resolved. */
#ifndef BND_DATA_COCO_RECORDS_H
#define BND_DATA_COCO_RECORDS_H

#include "data/coco.h"

typedef struct coco_record { /* an annotation */
  bnd_coco_annotation annotation; /* image and label not set yet */
  int64_t image_id, category_id;
} coco_record;

typedef struct coco_records {
  bnd_coco_category *categories;
  bnd_coco_image *images; /* first, count not set yet */
  coco_record *annotations;
  size_t category_count, image_count, annotation_count;
  size_t category_capacity, image_capacity, annotation_capacity;
  bool has_categories, has_images, has_annotations;
} coco_records;

/* Texts go to `arena`; the arrays are the caller's (bnd_coco_records_free), also on failure. */
bnd_status bnd_coco_records_read(const char *path, bnd_arena *arena, coco_records *records, bnd_error *error);
void bnd_coco_records_free(coco_records *records);

#endif
