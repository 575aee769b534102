/* What a block is fed in the quantized network and what it ought to compute, image by image. */
#ifndef BND_REFINE_RECONSTRUCT_SAMPLES_H
#define BND_REFINE_RECONSTRUCT_SAMPLES_H

#include "refine/blocks.h"
#include "refine/refine.h"

/* One value of the network over all images. */
typedef struct bnd_sample_series {
  size_t size;  /* elements of one image */
  float *values; /* [images][size]; NULL when kept as bytes */
  int8_t *bytes; /* values on an int8 grid with step `scale`: exact */
  float scale;
} bnd_sample_series;

typedef struct bnd_samples {
  size_t count; /* images */
  bnd_sample_series *inputs;
  int input_count;
  bnd_sample_series *targets;
  int target_count;
} bnd_samples;

/* Bytes an image takes. */
size_t bnd_samples_bytes(const bnd_block *block);
/* Runs the first `count` images of a source: through work->graph, quantized as it is now, up to the block's inputs, and through the teacher up to its
   outputs. */
bnd_status bnd_samples_collect(const bnd_refinement *work, const bnd_block *block, const bnd_image_source *source, size_t count, bnd_samples *samples,
                               bnd_error *error);
void bnd_samples_free(bnd_samples *samples);
void bnd_samples_input(const bnd_samples *samples, int input, size_t image, float *plain);
const float *bnd_samples_target(const bnd_samples *samples, int target, size_t image);

#endif
