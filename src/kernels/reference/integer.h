/* Convolutions and requantization in whole numbers, as docs/numerics.md defines them (sections 2 and 3): what integer executors are compared with. */
#ifndef BND_KERNELS_REFERENCE_INTEGER_H
#define BND_KERNELS_REFERENCE_INTEGER_H

#include "kernels/kernel.h"

/* Dense, row-major codes less their zero point: -255..255. Borrowed. */
typedef struct bnd_integers {
  bnd_shape shape;
  const int16_t *data;
} bnd_integers;

/* sums = sum of input code * weight code, exact, without bias; `to` is their shape. kernel->id: conv2d, conv_transpose2d (weight: input channel, output
   channel of the group, row, column) or linear (over the last dimension, weight [out, in]). */
void bnd_integer_convolution(const bnd_kernel *kernel, const bnd_integers *input, const bnd_integers *weight, const bnd_shape *to, int64_t *sums);

/* clamp(rne(value * 2^-shift), low, high), any shift; rne rounds to the nearest, of two equally near to the even one. |low|, |high| <= 2^16. */
int bnd_requantize(int64_t value, int shift, int low, int high);

#endif
