/* The plain loops, one file for each family. Private to this folder but for the table in kernels/kernel.h. */
#ifndef BND_KERNELS_REFERENCE_REFERENCE_H
#define BND_KERNELS_REFERENCE_REFERENCE_H

#include "kernels/kernel.h"

/* convolution.c: sums in double, rounded once. Operands: input, weight, bias (may be absent) */
bnd_kernel_function bnd_reference_convolution, bnd_reference_transposed_convolution, bnd_reference_linear;
/* normalization.c */
bnd_kernel_function bnd_reference_batch_norm, bnd_reference_layer_norm;
/* activation.c */
bnd_kernel_function bnd_reference_activation, bnd_reference_softmax, bnd_reference_fake_quantize;
/* arithmetic.c: two operands, broadcast */
bnd_kernel_function bnd_reference_arithmetic;
/* pooling.c */
bnd_kernel_function bnd_reference_max_pool, bnd_reference_avg_pool, bnd_reference_adaptive_avg_pool, bnd_reference_mean, bnd_reference_sum;
/* movement.c */
bnd_kernel_function bnd_reference_copy, bnd_reference_cat, bnd_reference_slice, bnd_reference_split, bnd_reference_permute,
    bnd_reference_pixel_shuffle, bnd_reference_meshgrid, bnd_reference_arange, bnd_reference_full;

/* Elements of dimensions [from, to). */
static inline size_t bnd_span(const bnd_shape *shape, int from, int to) {
  size_t count = 1;
  for (int d = from; d < to; d++) count *= (size_t)shape->size[d];
  return count;
}
static inline size_t bnd_array_count(const bnd_array *array) {
  return bnd_span(&array->shape, 0, array->shape.rank);
}

#endif
