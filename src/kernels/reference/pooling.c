#include <math.h>

#include "kernels/reference/reference.h"
#include "kernels/reference/walk.h"

static int64_t lesser(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t greater(int64_t a, int64_t b) {
  return a > b ? a : b;
}

int64_t bnd_max_pool_index(const bnd_kernel *kernel, const bnd_shape *from, const bnd_real *x, int64_t i, int64_t j) {
  int64_t best = -1;
  for (int64_t a = 0; a < kernel->window[0]; a++)
    for (int64_t b = 0; b < kernel->window[1]; b++) {
      const int64_t row = i * kernel->stride[0] - kernel->padding[0] + a * kernel->dilation[0];
      const int64_t column = j * kernel->stride[1] - kernel->padding[1] + b * kernel->dilation[1];
      if (row < 0 || row >= from->size[2] || column < 0 || column >= from->size[3]) continue;
      const int64_t at = row * from->size[3] + column;
      if (best < 0 || x[at] > x[best] || x[at] != x[at]) best = at;
    }
  return best;
}

/* Padding counts as minus infinity; NaN wins, as in PyTorch. */
void bnd_reference_max_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2);
  bnd_real *y = outputs[0].data;
  for (size_t p = 0; p < planes; p++) {
    const bnd_real *x = inputs[0].data + p * bnd_span(from, 2, 4);
    for (int64_t i = 0; i < to->size[2]; i++)
      for (int64_t j = 0; j < to->size[3]; j++) {
        const int64_t best = bnd_max_pool_index(kernel, from, x, i, j);
        *y++ = best < 0 ? -INFINITY : x[best];
      }
  }
}

bnd_pool_cell bnd_avg_pool_cell(const bnd_kernel *kernel, const bnd_shape *from, int64_t i, int64_t j) {
  const int64_t top = i * kernel->stride[0] - kernel->padding[0], left = j * kernel->stride[1] - kernel->padding[1];
  const int64_t bottom = lesser(top + kernel->window[0], from->size[2] + kernel->padding[0]);
  const int64_t right = lesser(left + kernel->window[1], from->size[3] + kernel->padding[1]);
  bnd_pool_cell cell = {greater(top, 0), lesser(bottom, from->size[2]), greater(left, 0), lesser(right, from->size[3]), kernel->divisor};
  if (kernel->divisor == 0)
    cell.divisor = kernel->count_include_pad ? (bottom - top) * (right - left) : (cell.bottom - cell.top) * (cell.right - cell.left);
  return cell;
}

/* Float sums in reading order, as PyTorch's CPU loop. */
void bnd_reference_avg_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2);
  bnd_real *y = outputs[0].data;
  for (size_t p = 0; p < planes; p++) {
    const bnd_real *x = inputs[0].data + p * bnd_span(from, 2, 4);
    for (int64_t i = 0; i < to->size[2]; i++)
      for (int64_t j = 0; j < to->size[3]; j++) {
        const bnd_pool_cell cell = bnd_avg_pool_cell(kernel, from, i, j);
        const bool empty = cell.bottom <= cell.top || cell.right <= cell.left;
        bnd_real sum = 0.f;
        for (int64_t row = cell.top; row < cell.bottom; row++)
          for (int64_t column = cell.left; column < cell.right; column++) sum += x[row * from->size[3] + column];
        *y++ = (empty ? 0.f : sum / (bnd_real)cell.divisor) * (bnd_real)kernel->number;
      }
  }
}

bnd_pool_cell bnd_adaptive_pool_cell(const bnd_shape *from, const bnd_shape *to, int64_t i, int64_t j) {
  const int64_t h = from->size[2], w = from->size[3], rows = to->size[2], columns = to->size[3];
  bnd_pool_cell cell = {i * h / rows, ((i + 1) * h + rows - 1) / rows, j * w / columns, ((j + 1) * w + columns - 1) / columns, 0};
  cell.divisor = (cell.bottom - cell.top) * (cell.right - cell.left);
  return cell;
}

void bnd_reference_adaptive_avg_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2);
  bnd_real *y = outputs[0].data;
  for (size_t p = 0; p < planes; p++) {
    const bnd_real *x = inputs[0].data + p * bnd_span(from, 2, 4);
    for (int64_t i = 0; i < to->size[2]; i++)
      for (int64_t j = 0; j < to->size[3]; j++) {
        const bnd_pool_cell cell = bnd_adaptive_pool_cell(from, to, i, j);
        double sum = 0;
        for (int64_t row = cell.top; row < cell.bottom; row++)
          for (int64_t column = cell.left; column < cell.right; column++) sum += (double)x[row * from->size[3] + column];
        *y++ = (bnd_real)(sum / (double)cell.divisor) * (bnd_real)kernel->number;
      }
  }
}

/* Sums in double, in memory order. */
void bnd_reference_mean(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *shape = &inputs[0].shape;
  bnd_walk kept = {0}, reduced = {0};
  size_t share = 1;
  for (int d = 0; d < shape->rank; d++) {
    bnd_walk_add(kernel->reduced[d] ? &reduced : &kept, shape->size[d], (size_t[BND_WALKED]){bnd_span(shape, d + 1, shape->rank)});
    if (kernel->reduced[d]) share *= (size_t)shape->size[d];
  }
  const size_t results = bnd_array_count(&outputs[0]);
  for (size_t r = 0; r < results; r++) {
    double sum = 0;
    if (share) do
        sum += (double)inputs[0].data[kept.at[0] + reduced.at[0]];
      while (bnd_walk_advance(&reduced));
    outputs[0].data[r] = (bnd_real)(sum / (double)share);
    bnd_walk_advance(&kept);
  }
}

void bnd_reference_sum(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)kernel, (void)input_count, (void)output_count;
  double sum = 0;
  const size_t count = bnd_array_count(&inputs[0]);
  for (size_t i = 0; i < count; i++) sum += (double)inputs[0].data[i];
  outputs[0].data[0] = (bnd_real)sum;
}
