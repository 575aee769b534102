/* Inside the flow: a COCO split seen through a model's preprocessing, as a source of network inputs. */
#ifndef BND_FLOW_DATASET_H
#define BND_FLOW_DATASET_H

#include "data/coco.h"
#include "exec/stream.h"
#include "flow/model.h"

typedef struct bnd_dataset {
  bnd_coco coco;
  bnd_preprocessing preprocessing;
  size_t count; /* images in use: the first of coco.annotated */
} bnd_dataset;

/* `limit` images at most (0 = all annotated ones). Fails when the split has no annotated image or, if same_classes, another number of classes than the
   model: calibration only looks at pixels, evaluation compares labels. */
bnd_status bnd_dataset_open(const bnd_model *model, const char *folder, const char *split, int size, uint64_t limit, bool same_classes, bnd_dataset *dataset,
                            bnd_error *error);
void bnd_dataset_close(bnd_dataset *dataset);

/* Where an image came to lie, needed to map boxes back. */
typedef struct bnd_placement {
  int image_width, image_height; /* decoded */
  bnd_geometry geometry;
} bnd_placement;

/* Decodes and transforms image `index` (of those in use) into input[3 * height * width]. placement may be NULL. Safe from several threads. */
bnd_status bnd_dataset_load(const bnd_dataset *dataset, size_t index, float *input, bnd_placement *placement, bnd_error *error);
/* The first `count` images as a source; the dataset must outlive it. */
bnd_image_source bnd_dataset_source(bnd_dataset *dataset, size_t count);

/* `count` images from `first` on, of all annotated ones. */
typedef struct bnd_dataset_part {
  const bnd_dataset *dataset;
  size_t first, count;
} bnd_dataset_part;
/* *part must outlive the source. */
bnd_image_source bnd_dataset_part_source(bnd_dataset_part *part);

#endif
