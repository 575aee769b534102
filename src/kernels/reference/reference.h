/* The plain loops, one file for each family. Private to this folder but for the table in kernels/kernel.h. */
#ifndef BND_KERNELS_REFERENCE_REFERENCE_H
#define BND_KERNELS_REFERENCE_REFERENCE_H

#include "kernels/kernel.h"

/* convolution.c: sums in double, rounded once. Operands: input, weight, bias (may be absent) */
bnd_kernel_function bnd_reference_convolution, bnd_reference_transposed_convolution, bnd_reference_linear;
/* normalization.c */
bnd_kernel_function bnd_reference_batch_norm, bnd_reference_layer_norm;
/* activation.c */
bnd_kernel_function bnd_reference_activation, bnd_reference_softmax;
/* fake_quantize.c */
bnd_kernel_function bnd_reference_fake_quantize;
/* arithmetic.c: two operands, broadcast */
bnd_kernel_function bnd_reference_arithmetic;
/* pooling.c */
bnd_kernel_function bnd_reference_max_pool, bnd_reference_avg_pool, bnd_reference_adaptive_avg_pool, bnd_reference_mean, bnd_reference_sum;
/* movement.c */
bnd_kernel_function bnd_reference_copy, bnd_reference_cat, bnd_reference_slice, bnd_reference_split, bnd_reference_permute,
    bnd_reference_pixel_shuffle, bnd_reference_meshgrid, bnd_reference_arange, bnd_reference_full;

/* gradient_*.c: the backward rules. Sums run in double and are rounded once, but for pools, which scatter. */
bnd_gradient_function bnd_gradient_convolution, bnd_gradient_transposed_convolution, bnd_gradient_linear;
bnd_gradient_function bnd_gradient_batch_norm, bnd_gradient_layer_norm;
bnd_gradient_function bnd_gradient_activation, bnd_gradient_softmax;
bnd_gradient_function bnd_gradient_arithmetic;
bnd_gradient_function bnd_gradient_max_pool, bnd_gradient_avg_pool, bnd_gradient_mean;
bnd_gradient_function bnd_gradient_copy, bnd_gradient_cat, bnd_gradient_slice, bnd_gradient_split, bnd_gradient_permute, bnd_gradient_pixel_shuffle,
    bnd_gradient_meshgrid;
/* Whether the only output has no gradient; then the wanted gradients of the inputs have been set to zero. */
bool bnd_gradient_vanishes(const bnd_array *output_gradients, const bnd_array *inputs, int input_count, const bnd_array *input_gradients);

/* Steps of an operand in the result's dimensions: 0 where it is repeated. */
void bnd_broadcast_steps(const bnd_shape *operand, const bnd_shape *result, size_t steps[BND_MAX_RANK]);

/* Where in the plane x the maximum under output (i, j) stands: the first of equal ones, the last NaN if there are any; -1 for an empty window. */
int64_t bnd_max_pool_index(const bnd_kernel *kernel, const bnd_shape *from, const bnd_real *x, int64_t i, int64_t j);

/* What output (i, j) of an average pool is the mean of: rows [top, bottom), columns [left, right), their sum over divisor. */
typedef struct bnd_pool_cell {
  int64_t top, bottom, left, right, divisor;
} bnd_pool_cell;
bnd_pool_cell bnd_avg_pool_cell(const bnd_kernel *kernel, const bnd_shape *from, int64_t i, int64_t j);
/* floor(i * in / out) .. ceil((i + 1) * in / out) */
bnd_pool_cell bnd_adaptive_pool_cell(const bnd_shape *from, const bnd_shape *to, int64_t i, int64_t j);

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
