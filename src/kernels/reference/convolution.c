/* Convolutions and matrix products. Sums run in double in the order channel, row, column of the kernel, are rounded once, and the bias is added in
   double before. Under fake quantization every product is a whole number of quanta, so the result is the integer one. */
#include <math.h>
#include <string.h>

#include "kernels/reference/reference.h"

/* A sum as it is stored, see bnd_kernel.sticky: cut off towards zero, the last bit set when something was. */
static bnd_real store(double sum, bool sticky) {
  const float nearest = (float)sum;
  if (!sticky || sizeof(bnd_real) != sizeof(float) || (double)nearest == sum || !isfinite(nearest)) return (bnd_real)sum;
  float kept = fabs((double)nearest) > fabs(sum) ? nextafterf(nearest, 0.f) : nearest;
  uint32_t bits;
  memcpy(&bits, &kept, sizeof bits);
  bits |= 1;
  memcpy(&kept, &bits, sizeof bits);
  return kept;
}

enum { STRIP = 64 }; /* output columns summed together: the inner loop runs over contiguous memory */

typedef struct image {
  int64_t channels, height, width;
} image;

static image image_of(const bnd_array *array) {
  return (image){array->shape.size[1], array->shape.size[2], array->shape.size[3]};
}

/* sums[j] += weight * row[(first + j) * stride + shift] where that column exists. */
static void add_row(double *sums, int64_t first, int64_t count, const bnd_real *row, int64_t width, int64_t stride, int64_t shift, double weight) {
  int64_t begin = 0, end = count;
  while (begin < end && (first + begin) * stride + shift < 0) begin++;
  while (end > begin && (first + end - 1) * stride + shift >= width) end--;
  for (int64_t j = begin; j < end; j++) sums[j] += weight * (double)row[(first + j) * stride + shift];
}

static void convolve_strip(const bnd_kernel *kernel, const bnd_real *in, const image *from, const bnd_real *weight, int64_t in_channels,
                           const int64_t *window, int64_t y, int64_t first, int64_t count, double *sums) {
  for (int64_t c = 0; c < in_channels; c++)
    for (int64_t i = 0; i < window[0]; i++) {
      const int64_t row = y * kernel->stride[0] - kernel->padding[0] + i * kernel->dilation[0];
      if (row < 0 || row >= from->height) continue;
      for (int64_t j = 0; j < window[1]; j++)
        add_row(sums, first, count, in + (c * from->height + row) * from->width, from->width, kernel->stride[1],
                j * kernel->dilation[1] - kernel->padding[1], (double)weight[(c * window[0] + i) * window[1] + j]);
    }
}

void bnd_reference_convolution(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)output_count;
  const bnd_array *x = &inputs[0], *w = &inputs[1], *y = &outputs[0];
  const bnd_real *bias = input_count > 2 ? inputs[2].data : NULL;
  const int64_t in_channels = w->shape.size[1], *window = w->shape.size + 2, group_outputs = y->shape.size[1] / kernel->groups;
  image from = image_of(x), to = image_of(y);
  if (window[0] * window[1] == 1 && kernel->padding[0] + kernel->padding[1] == 0 && kernel->stride[0] * kernel->stride[1] == 1 &&
      from.height == to.height && from.width == to.width) {
    from = (image){from.channels, 1, from.height * from.width}; /* single pixels: one long row */
    to = (image){to.channels, 1, to.height * to.width};
  }
  const int64_t strips = (to.width + STRIP - 1) / STRIP;
#pragma omp parallel for collapse(3) num_threads(kernel->threads) if (kernel->threads > 1)
  for (int64_t i = 0; i < y->shape.size[0] * to.channels; i++)
    for (int64_t row = 0; row < to.height; row++)
      for (int64_t s = 0; s < strips; s++) {
        const int64_t n = i / to.channels, o = i % to.channels, first = s * STRIP, count = to.width - first < STRIP ? to.width - first : STRIP;
        const bnd_real *in = x->data + (n * from.channels + o / group_outputs * in_channels) * from.height * from.width;
        double sums[STRIP] = {0};
        convolve_strip(kernel, in, &from, w->data + o * in_channels * window[0] * window[1], in_channels, window, row, first, count, sums);
        bnd_real *out = y->data + (i * to.height + row) * to.width + first;
        for (int64_t j = 0; j < count; j++) out[j] = store(sums[j] + (bias ? (double)bias[o] : 0.0), kernel->sticky);
      }
}

/* One output value: the inputs whose kernel window covers it. Weight layout: input channel, output channel of the group, row, column. */
static double transposed_sum(const bnd_kernel *kernel, const bnd_real *in, const image *from, const bnd_real *weight, int64_t group_inputs,
                             int64_t group_outputs, const int64_t *window, int64_t y, int64_t x) {
  double sum = 0;
  for (int64_t c = 0; c < group_inputs; c++)
    for (int64_t i = 0; i < window[0]; i++) {
      const int64_t row = y + kernel->padding[0] - i * kernel->dilation[0];
      if (row < 0 || row % kernel->stride[0] || row / kernel->stride[0] >= from->height) continue;
      for (int64_t j = 0; j < window[1]; j++) {
        const int64_t column = x + kernel->padding[1] - j * kernel->dilation[1];
        if (column < 0 || column % kernel->stride[1] || column / kernel->stride[1] >= from->width) continue;
        sum += (double)in[(c * from->height + row / kernel->stride[0]) * from->width + column / kernel->stride[1]] *
               (double)weight[(c * group_outputs * window[0] + i) * window[1] + j];
      }
    }
  return sum;
}

void bnd_reference_transposed_convolution(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                                          int output_count) {
  (void)output_count;
  const bnd_array *x = &inputs[0], *w = &inputs[1], *y = &outputs[0];
  const bnd_real *bias = input_count > 2 ? inputs[2].data : NULL;
  const image from = image_of(x), to = image_of(y);
  const int64_t group_inputs = from.channels / kernel->groups, group_outputs = w->shape.size[1], *window = w->shape.size + 2;
#pragma omp parallel for collapse(2) num_threads(kernel->threads) if (kernel->threads > 1)
  for (int64_t n = 0; n < y->shape.size[0]; n++)
    for (int64_t o = 0; o < to.channels; o++) {
      bnd_real *out = y->data + (n * to.channels + o) * to.height * to.width;
      const int64_t group = o / group_outputs;
      const bnd_real *in = x->data + (n * from.channels + group * group_inputs) * from.height * from.width;
      const bnd_real *weight = w->data + (group * group_inputs * group_outputs + o % group_outputs) * window[0] * window[1];
      for (int64_t row = 0; row < to.height; row++)
        for (int64_t column = 0; column < to.width; column++)
          *out++ = store(transposed_sum(kernel, in, &from, weight, group_inputs, group_outputs, window, row, column) +
                             (bias ? (double)bias[o] : 0.0), kernel->sticky);
    }
}

/* y = x W^T + b over the last dimension. */
void bnd_reference_linear(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)output_count;
  const bnd_array *x = &inputs[0], *w = &inputs[1], *y = &outputs[0];
  const bnd_real *bias = input_count > 2 ? inputs[2].data : NULL;
  const size_t out_features = (size_t)w->shape.size[0], in_features = (size_t)w->shape.size[1], rows = bnd_span(&x->shape, 0, x->shape.rank - 1);
  for (size_t r = 0; r < rows; r++)
    for (size_t o = 0; o < out_features; o++) {
      double sum = 0;
      for (size_t i = 0; i < in_features; i++) sum += (double)x->data[r * in_features + i] * (double)w->data[o * in_features + i];
      y->data[r * out_features + o] = store(sum + (bias ? (double)bias[o] : 0.0), kernel->sticky);
    }
}
