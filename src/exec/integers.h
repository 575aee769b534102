/* Convolutions as integers: weights, biases and values that are whole numbers of powers of two, found from the numbers themselves, and the proof that
   sums of them are exact (docs/numerics.md). */
#ifndef BND_EXEC_INTEGERS_H
#define BND_EXEC_INTEGERS_H

#include "kernels/kernel.h"
#include "kernels/loops/loops.h"

/* A grid whose whole numbers are bytes: -128 to 127 or a part of it. */
bool bnd_grid_fits_bytes(const bnd_grid *grid);

/* What an int8 kernel takes of a convolution beside its input. */
typedef struct bnd_int8_weights {
  int8_t *weight;     /* as the float weight lies */
  float *scale;       /* [scale_count] a unit of an output channel's sum in units of the output; 1, or one for each output channel */
  size_t scale_count;
  float *bias;        /* [out] in units of the output; NULL = none */
  bool exact_in_float; /* every sum stays below 2^24 of its smallest units, so float32 and oneDNN's conversion to it round nothing */
} bnd_int8_weights;

/* weight: [out][in][window], bias->data NULL = none; x, y: grids of input and output that fit bytes; non_negative: of the input. *found false (and the
   status is fine) where weight or bias are no such integers. */
bnd_status bnd_int8_weights_find(const bnd_tensor *weight, const bnd_tensor *bias, const bnd_grid *x, bool non_negative, const bnd_grid *y,
                                 bnd_int8_weights *result, bool *found, bnd_error *error);
void bnd_int8_weights_free(bnd_int8_weights *weights); /* a zeroed one is fine */

#endif
