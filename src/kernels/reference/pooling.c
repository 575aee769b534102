#include <math.h>

#include "kernels/reference/reference.h"

static int64_t lesser(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t greater(int64_t a, int64_t b) {
  return a > b ? a : b;
}

/* Padding counts as minus infinity; NaN wins, as in PyTorch. */
void bnd_reference_max_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2);
  float *y = outputs[0].data;
  for (size_t p = 0; p < planes; p++) {
    const float *x = inputs[0].data + p * bnd_span(from, 2, 4);
    for (int64_t i = 0; i < to->size[2]; i++)
      for (int64_t j = 0; j < to->size[3]; j++) {
        float best = -INFINITY;
        for (int64_t a = 0; a < kernel->window[0]; a++)
          for (int64_t b = 0; b < kernel->window[1]; b++) {
            const int64_t row = i * kernel->stride[0] - kernel->padding[0] + a * kernel->dilation[0];
            const int64_t column = j * kernel->stride[1] - kernel->padding[1] + b * kernel->dilation[1];
            if (row < 0 || row >= from->size[2] || column < 0 || column >= from->size[3]) continue;
            const float value = x[row * from->size[3] + column];
            if (value > best || value != value) best = value;
          }
        *y++ = best;
      }
  }
}

/* Float sums in reading order, as PyTorch's CPU loop. */
void bnd_reference_avg_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2);
  float *y = outputs[0].data;
  for (size_t p = 0; p < planes; p++) {
    const float *x = inputs[0].data + p * bnd_span(from, 2, 4);
    for (int64_t i = 0; i < to->size[2]; i++)
      for (int64_t j = 0; j < to->size[3]; j++) {
        const int64_t top = i * kernel->stride[0] - kernel->padding[0], left = j * kernel->stride[1] - kernel->padding[1];
        const int64_t bottom = lesser(top + kernel->window[0], from->size[2] + kernel->padding[0]);
        const int64_t right = lesser(left + kernel->window[1], from->size[3] + kernel->padding[1]);
        const int64_t t = greater(top, 0), l = greater(left, 0), b = lesser(bottom, from->size[2]), r = lesser(right, from->size[3]);
        float sum = 0.f;
        for (int64_t row = t; row < b; row++)
          for (int64_t column = l; column < r; column++) sum += x[row * from->size[3] + column];
        const int64_t divisor = kernel->divisor ? kernel->divisor : kernel->count_include_pad ? (bottom - top) * (right - left) : (b - t) * (r - l);
        *y++ = (b > t && r > l ? sum / (float)divisor : 0.f) * (float)kernel->number;
      }
  }
}

/* Cell i covers floor(i * in / out) .. ceil((i + 1) * in / out). */
void bnd_reference_adaptive_avg_pool(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *from = &inputs[0].shape, *to = &outputs[0].shape;
  const size_t planes = bnd_span(from, 0, 2);
  const int64_t h = from->size[2], w = from->size[3], rows = to->size[2], columns = to->size[3];
  float *y = outputs[0].data;
  for (size_t p = 0; p < planes; p++) {
    const float *x = inputs[0].data + p * (size_t)(h * w);
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++) {
        const int64_t top = i * h / rows, bottom = ((i + 1) * h + rows - 1) / rows, left = j * w / columns,
                      right = ((j + 1) * w + columns - 1) / columns;
        double sum = 0;
        for (int64_t row = top; row < bottom; row++)
          for (int64_t column = left; column < right; column++) sum += (double)x[row * w + column];
        *y++ = (float)(sum / (double)((bottom - top) * (right - left))) * (float)kernel->number;
      }
  }
}

/* A walk over some dimensions of an array, the last one fastest. */
typedef struct walk {
  int rank;
  int64_t size[BND_MAX_RANK], index[BND_MAX_RANK];
  size_t step[BND_MAX_RANK], at;
} walk;

static void add_dimension(walk *w, int64_t size, size_t step) {
  w->size[w->rank] = size;
  w->step[w->rank++] = step;
}

/* false = the walk is through and stands at its start again. */
static bool advance(walk *w) {
  for (int d = w->rank - 1; d >= 0; d--) {
    w->at += w->step[d];
    if (++w->index[d] < w->size[d]) return true;
    w->at -= w->step[d] * (size_t)w->index[d];
    w->index[d] = 0;
  }
  return false;
}

/* Sums in double, in memory order. */
void bnd_reference_mean(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *shape = &inputs[0].shape;
  walk kept = {0}, reduced = {0};
  size_t share = 1;
  for (int d = 0; d < shape->rank; d++) {
    add_dimension(kernel->reduced[d] ? &reduced : &kept, shape->size[d], bnd_span(shape, d + 1, shape->rank));
    if (kernel->reduced[d]) share *= (size_t)shape->size[d];
  }
  const size_t results = bnd_array_count(&outputs[0]);
  for (size_t r = 0; r < results; r++) {
    double sum = 0;
    if (share) do
        sum += (double)inputs[0].data[kept.at + reduced.at];
      while (advance(&reduced));
    outputs[0].data[r] = (float)(sum / (double)share);
    advance(&kept);
  }
}

void bnd_reference_sum(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)kernel, (void)input_count, (void)output_count;
  double sum = 0;
  const size_t count = bnd_array_count(&inputs[0]);
  for (size_t i = 0; i < count; i++) sum += (double)inputs[0].data[i];
  outputs[0].data[0] = (float)sum;
}
