/* A training sample on its way through the augmentation: an image and its boxes, as super-gradients' DetectionSample. */
#ifndef BND_DATA_SAMPLE_H
#define BND_DATA_SAMPLE_H

#include "data/coco.h"
#include "data/transform.h"
#include "formats/image/image.h"

typedef struct bnd_sample_box {
  float corner[4]; /* x1, y1, x2, y2 in pixels of the image */
  float label;
} bnd_sample_box;

/* Zero-initialised = empty. Owned: bnd_sample_free. */
typedef struct bnd_sample {
  bnd_image image;
  bnd_sample_box *boxes; /* in the order of the annotations; crowd boxes take no part in training */
  size_t count, capacity;
} bnd_sample;

/* Reads an image of the data set (an index into coco->images), fits it into side x side (longest side = side, sizes truncated, `_load_resized_img`)
   and scales its boxes alike. RGB as decoded. May have no box. On failure *sample is zeroed and the message names the file. */
bnd_status bnd_sample_load(const bnd_coco *coco, size_t image, int side, bnd_sample *sample, bnd_error *error);
void bnd_sample_free(bnd_sample *sample); /* and zeroes *sample */

/* Clips the boxes to the image and drops those without an area: what the original does whenever a transform makes a new sample. */
void bnd_sample_sanitize(bnd_sample *sample);

/* The end of the chain: DetectionPaddedRescale to side x side (fitted again, padding of `border` right and below), / 255, CHW into
   image[3 * side * side], boxes with an edge of at most 1 pixel dropped. *targets is new (bnd_targets_free); no crowd rows. */
bnd_status bnd_sample_finish(const bnd_sample *sample, int side, uint8_t border, float *image, bnd_targets *targets, bnd_error *error);

#endif
