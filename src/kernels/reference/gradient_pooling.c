#include <string.h>

#include "kernels/reference/reference.h"
#include "kernels/reference/walk.h"

/* All of it goes to the first of equal maxima. */
void bnd_gradient_max_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                           const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2), plane = bnd_span(from, 2, 4), cells = bnd_span(to, 2, 4);
#pragma omp parallel for num_threads(kernel->threads) if (kernel->threads > 1)
  for (size_t p = 0; p < planes; p++) {
    const bnd_real *x = inputs[0].data + p * plane, *dy = output_gradients[0].data + p * cells;
    bnd_real *dx = input_gradients[0].data + p * plane;
    memset(dx, 0, plane * sizeof *dx);
    for (int64_t i = 0; i < to->size[2]; i++)
      for (int64_t j = 0; j < to->size[3]; j++, dy++) {
        const int64_t best = bnd_max_pool_index(kernel, from, x, i, j);
        if (best >= 0) dx[best] += *dy;
      }
  }
}

/* Every value of a cell gets the same share. Also adaptive pools. */
void bnd_gradient_avg_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                           const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2), plane = bnd_span(from, 2, 4), cells = bnd_span(to, 2, 4);
#pragma omp parallel for num_threads(kernel->threads) if (kernel->threads > 1)
  for (size_t p = 0; p < planes; p++) {
    const bnd_real *dy = output_gradients[0].data + p * cells;
    bnd_real *dx = input_gradients[0].data + p * plane;
    memset(dx, 0, plane * sizeof *dx);
    for (int64_t i = 0; i < to->size[2]; i++)
      for (int64_t j = 0; j < to->size[3]; j++, dy++) {
        const bnd_pool_cell cell = kernel->id == BND_OP_AVG_POOL2D ? bnd_avg_pool_cell(kernel, from, i, j) : bnd_adaptive_pool_cell(from, to, i, j);
        const bnd_real share = (bnd_real)((double)*dy * kernel->number / (double)cell.divisor);
        for (int64_t row = cell.top; row < cell.bottom; row++)
          for (int64_t column = cell.left; column < cell.right; column++) dx[row * from->size[3] + column] += share;
      }
  }
}

/* Also sum, which reduces everything and divides by nothing. */
void bnd_gradient_mean(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                       const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)outputs, (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *shape = &inputs[0].shape;
  const bool sum = kernel->id == BND_OP_SUM;
  size_t share = 1, step = 1, steps[BND_MAX_RANK];
  for (int d = shape->rank - 1; d >= 0; d--) {
    const bool reduced = sum || kernel->reduced[d];
    steps[d] = reduced ? 0 : step;
    if (reduced)
      share *= (size_t)shape->size[d];
    else
      step *= (size_t)shape->size[d];
  }
  bnd_walk walk = {0};
  for (int d = 0; d < shape->rank; d++) bnd_walk_add(&walk, shape->size[d], (size_t[BND_WALKED]){steps[d], 0});
  const size_t count = bnd_array_count(&inputs[0]);
  for (size_t i = 0; i < count; i++) {
    input_gradients[0].data[i] = (bnd_real)((double)output_gradients[0].data[walk.at[0]] / (sum ? 1.0 : (double)share));
    bnd_walk_advance(&walk);
  }
}
