/* Operators that move values or make them from nothing. */
#include <string.h>

#include "kernels/reference/reference.h"

void bnd_reference_copy(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)kernel, (void)input_count, (void)output_count;
  memcpy(outputs[0].data, inputs[0].data, bnd_array_count(&inputs[0]) * sizeof(bnd_real));
}

/* Also stack, whose inputs lack the dimension kernel->axis: in both each input fills an equal share of every outer index. */
void bnd_reference_cat(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)output_count;
  const size_t outer = bnd_span(&outputs[0].shape, 0, kernel->axis), row = bnd_span(&outputs[0].shape, kernel->axis, outputs[0].shape.rank);
  size_t at = 0;
  for (int k = 0; k < input_count && outer; k++) {
    const size_t part = bnd_array_count(&inputs[k]) / outer;
    for (size_t o = 0; o < outer; o++) memcpy(outputs[0].data + o * row + at, inputs[k].data + o * part, part * sizeof(bnd_real));
    at += part;
  }
}

/* Also select, a slice of one index whose dimension is gone in the output. */
void bnd_reference_slice(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t outer = bnd_span(shape, 0, kernel->axis), size = (size_t)shape->size[kernel->axis],
               inner = bnd_span(shape, kernel->axis + 1, shape->rank);
  if (outer * inner == 0) return;
  const size_t taken = bnd_array_count(&outputs[0]) / (outer * inner);
  bnd_real *y = outputs[0].data;
  for (size_t o = 0; o < outer; o++)
    for (size_t i = 0; i < taken; i++, y += inner)
      memcpy(y, inputs[0].data + (o * size + (size_t)kernel->start + i * (size_t)kernel->step) * inner, inner * sizeof(bnd_real));
}

void bnd_reference_split(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count;
  const size_t outer = bnd_span(&inputs[0].shape, 0, kernel->axis), row = bnd_span(&inputs[0].shape, kernel->axis, inputs[0].shape.rank);
  size_t at = 0;
  for (int k = 0; k < output_count && outer; k++) {
    const size_t part = bnd_array_count(&outputs[k]) / outer;
    for (size_t o = 0; o < outer; o++) memcpy(outputs[k].data + o * part, inputs[0].data + o * row + at, part * sizeof(bnd_real));
    at += part;
  }
}

enum { TILE = 16, STRIP = 256 };

/* y[r][c] = x[c * step + r], in tiles so that both sides stay in the cache. */
static void transpose_matrix(const bnd_real *x, size_t step, bnd_real *y, size_t rows, size_t columns) {
  for (size_t r = 0; r < rows; r += TILE)
    for (size_t c = 0; c < columns; c += TILE)
      for (size_t i = r; i < rows && i < r + TILE; i++)
        for (size_t j = c; j < columns && j < c + TILE; j++) y[i * columns + j] = x[j * step + i];
}

/* Dimensions that stay side by side count as one. The last two are then moved together: as rows, as a matrix transposition, or value by value. */
void bnd_reference_permute(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  int64_t sizes[BND_MAX_RANK + 2] = {1, 1};
  size_t steps[BND_MAX_RANK + 2] = {0};
  int rank = 2;
  for (int d = 0; d < to->rank; d++) {
    if (to->size[d] == 1) continue;
    const size_t step = bnd_span(from, kernel->order[d] + 1, from->rank);
    if (rank > 2 && steps[rank - 1] == step * (size_t)to->size[d]) {
      sizes[rank - 1] *= to->size[d];
      steps[rank - 1] = step;
    } else {
      sizes[rank] = to->size[d];
      steps[rank++] = step;
    }
  }
  const size_t count = bnd_array_count(&outputs[0]), rows = (size_t)sizes[rank - 2], columns = (size_t)sizes[rank - 1];
  const size_t row_step = steps[rank - 2], column_step = steps[rank - 1];
  const size_t matrices = rows && columns ? count / (rows * columns) : 0, strips = (rows + STRIP - 1) / STRIP;
#pragma omp parallel for collapse(2) num_threads(kernel->threads) if (kernel->threads > 1)
  for (size_t m = 0; m < matrices; m++)
    for (size_t s = 0; s < strips; s++) {
      const size_t first = s * STRIP, taken = rows - first < STRIP ? rows - first : STRIP;
      const bnd_real *x = inputs[0].data + first * row_step;
      bnd_real *y = outputs[0].data + (m * rows + first) * columns;
      size_t rest = m;
      for (int d = rank - 3; d >= 0; d--) {
        x += rest % (size_t)sizes[d] * steps[d];
        rest /= (size_t)sizes[d];
      }
      if (row_step == 1) {
        transpose_matrix(x, column_step, y, taken, columns);
        continue;
      }
      for (size_t i = 0; i < taken; i++)
        for (size_t j = 0; j < columns; j++) y[i * columns + j] = x[i * row_step + j * column_step];
    }
}

/* [.., C*r*r, H, W] -> [.., C, H*r, W*r] */
void bnd_reference_pixel_shuffle(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape;
  const size_t r = (size_t)kernel->factor, h = (size_t)from->size[from->rank - 2], w = (size_t)from->size[from->rank - 1];
  const size_t planes = bnd_span(from, 0, from->rank - 2) / (r * r);
  bnd_real *y = outputs[0].data;
  for (size_t p = 0; p < planes; p++)
    for (size_t i = 0; i < h * r; i++)
      for (size_t j = 0; j < w * r; j++) *y++ = inputs[0].data[((p * r * r + i % r * r + j % r) * h + i / r) * w + j / r];
}

/* Output k repeats input k along all other dimensions (indexing "ij"). */
void bnd_reference_meshgrid(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)kernel, (void)input_count;
  for (int k = 0; k < output_count; k++) {
    const bnd_shape *shape = &outputs[k].shape;
    const size_t outer = bnd_span(shape, 0, k), size = (size_t)shape->size[k], inner = bnd_span(shape, k + 1, shape->rank);
    bnd_real *y = outputs[k].data;
    for (size_t o = 0; o < outer; o++)
      for (size_t i = 0; i < size; i++)
        for (size_t j = 0; j < inner; j++) *y++ = inputs[k].data[i];
  }
}

void bnd_reference_arange(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)kernel, (void)inputs, (void)input_count, (void)output_count;
  const size_t count = bnd_array_count(&outputs[0]);
  for (size_t i = 0; i < count; i++) outputs[0].data[i] = (bnd_real)i;
}

void bnd_reference_full(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)inputs, (void)input_count, (void)output_count;
  const size_t count = bnd_array_count(&outputs[0]);
  for (size_t i = 0; i < count; i++) outputs[0].data[i] = (bnd_real)kernel->number;
}
