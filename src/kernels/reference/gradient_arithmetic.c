#include "base/simd.h"
#include "kernels/reference/reference.h"
#include "kernels/reference/walk.h"

/* What one value of the result's gradient g adds to the gradient of an operand, whose value is own[i]; that of the other operand is other[j]. Sums
   read neither. */
static inline double term(const bnd_kernel *kernel, bool second, double g, const bnd_real *own, size_t i, const bnd_real *other, size_t j) {
  switch (kernel->id) {
    case BND_OP_ADD:
      return second ? g * kernel->number : g;
    case BND_OP_SUB:
      return second ? -g * kernel->number : g;
    case BND_OP_MUL:
      return g * (double)other[j];
    default:
      return second ? -g * ((double)other[j] / (double)own[i]) / (double)own[i] : g / (double)other[j];
  }
}

/* The operand has the result's shape; the other one advances by 0 or 1. */
BND_VECTORIZED
static void direct(const bnd_kernel *kernel, bool second, const bnd_real *g, const bnd_real *own, const bnd_real *other, size_t step,
                   bnd_real *gradient, size_t count) {
  for (size_t i = 0; i < count; i++) gradient[i] = (bnd_real)term(kernel, second, (double)g[i], own, i, other, i * step);
}

/* Sums over the dimensions in which the operand is repeated, in memory order. */
static void gradient_of(const bnd_kernel *kernel, bool second, const bnd_array *own, const bnd_array *other, const bnd_shape *result,
                        const bnd_real *g, bnd_real *gradient) {
  const size_t count = bnd_span(result, 0, result->rank), own_count = bnd_array_count(own), other_count = bnd_array_count(other);
  if (own_count == count && (other_count == count || other_count == 1)) {
    direct(kernel, second, g, own->data, other->data, other_count == count, gradient, count);
    return;
  }
  size_t own_steps[BND_MAX_RANK], other_steps[BND_MAX_RANK];
  bnd_broadcast_steps(&own->shape, result, own_steps);
  bnd_broadcast_steps(&other->shape, result, other_steps);
  bnd_walk kept = {0}, repeated = {0};
  for (int d = 0; d < result->rank; d++)
    bnd_walk_add(own_steps[d] ? &kept : &repeated, result->size[d], (size_t[BND_WALKED]){bnd_span(result, d + 1, result->rank), other_steps[d]});
  for (size_t i = 0; i < own_count; i++) {
    double sum = 0;
    if (count) do
        sum += term(kernel, second, (double)g[kept.at[0] + repeated.at[0]], own->data, i, other->data, kept.at[1] + repeated.at[1]);
      while (bnd_walk_advance(&repeated));
    gradient[i] = (bnd_real)sum;
    bnd_walk_advance(&kept);
  }
}

void bnd_gradient_arithmetic(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                             const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  for (int k = 0; k < 2; k++)
    if (input_gradients[k].data)
      gradient_of(kernel, k == 1, &inputs[k], &inputs[1 - k], &outputs[0].shape, output_gradients[0].data, input_gradients[k].data);
}
