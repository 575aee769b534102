#include "kernels/reference/integer.h"

#include <string.h>

#include "base/simd.h"

enum {
  STRIP = 64,           /* output columns summed together: the inner loop runs over contiguous memory */
  SAFE_PRODUCTS = 32768 /* so many products of magnitude 255 * 255 fit 32 bits */
};

typedef struct image {
  int64_t channels, height, width;
} image;

static image image_of(const bnd_shape *shape) {
  return (image){shape->size[1], shape->size[2], shape->size[3]};
}

/* sums[j] += weight * row[(first + j) * stride + shift] where that column exists. */
static inline void add_row(int32_t *sums, int64_t first, int64_t count, const int16_t *row, int64_t width, int64_t stride, int64_t shift, int32_t weight) {
  int64_t begin = 0, end = count;
  while (begin < end && (first + begin) * stride + shift < 0) begin++;
  while (end > begin && (first + end - 1) * stride + shift >= width) end--;
  const int16_t *from = row + first * stride + shift;
  if (stride == 1)
    for (int64_t j = begin; j < end; j++) sums[j] += weight * from[j];
  else
    for (int64_t j = begin; j < end; j++) sums[j] += weight * from[j * stride];
}

static inline void flush(int32_t *part, int64_t *sums, int64_t count) {
  for (int64_t j = 0; j < count; j++) sums[j] += part[j];
  memset(part, 0, STRIP * sizeof *part);
}

BND_VECTORIZED
static void convolve_strip(const bnd_kernel *kernel, const int16_t *in, const image *from, const int16_t *weight, const image *filter, int64_t y,
                           int64_t first, int64_t count, int64_t *sums) {
  int32_t part[STRIP] = {0};
  int products = 0;
  memset(sums, 0, (size_t)count * sizeof *sums);
  for (int64_t c = 0; c < filter->channels; c++)
    for (int64_t i = 0; i < filter->height; i++) {
      const int64_t row = y * kernel->stride[0] - kernel->padding[0] + i * kernel->dilation[0];
      for (int64_t j = 0; j < filter->width && row >= 0 && row < from->height; j++) {
        add_row(part, first, count, in + (c * from->height + row) * from->width, from->width, kernel->stride[1],
                j * kernel->dilation[1] - kernel->padding[1], weight[(c * filter->height + i) * filter->width + j]);
        if (++products % SAFE_PRODUCTS == 0) flush(part, sums, count);
      }
    }
  flush(part, sums, count);
}

static void convolution(const bnd_kernel *kernel, const bnd_integers *x, const bnd_integers *w, const bnd_shape *to, int64_t *sums) {
  const image filter = image_of(&w->shape);
  image from = image_of(&x->shape), out = image_of(to);
  if (filter.height * filter.width == 1 && kernel->padding[0] + kernel->padding[1] == 0 && kernel->stride[0] * kernel->stride[1] == 1) {
    from = (image){from.channels, 1, from.height * from.width}; /* single pixels: one long row */
    out = (image){out.channels, 1, out.height * out.width};
  }
  const int64_t group_outputs = out.channels / kernel->groups, strips = (out.width + STRIP - 1) / STRIP, size = filter.channels * filter.height * filter.width;
#pragma omp parallel for collapse(3) num_threads(kernel->threads) if (kernel->threads > 1)
  for (int64_t i = 0; i < to->size[0] * out.channels; i++)
    for (int64_t row = 0; row < out.height; row++)
      for (int64_t s = 0; s < strips; s++) {
        const int64_t n = i / out.channels, o = i % out.channels, first = s * STRIP, count = out.width - first < STRIP ? out.width - first : STRIP;
        const int16_t *in = x->data + (n * from.channels + o / group_outputs * filter.channels) * from.height * from.width;
        convolve_strip(kernel, in, &from, w->data + o * size, &filter, row, first, count, sums + (i * out.height + row) * out.width + first);
      }
}

/* One output value: the inputs whose window covers it. */
static int64_t transposed_sum(const bnd_kernel *kernel, const int16_t *in, const image *from, const int16_t *weight, int64_t group_inputs, const image *filter,
                              int64_t y, int64_t x) {
  int64_t sum = 0;
  for (int64_t i = 0; i < filter->height; i++) {
    const int64_t row = y + kernel->padding[0] - i * kernel->dilation[0];
    if (row < 0 || row % kernel->stride[0] || row / kernel->stride[0] >= from->height) continue;
    for (int64_t j = 0; j < filter->width; j++) {
      const int64_t column = x + kernel->padding[1] - j * kernel->dilation[1];
      if (column < 0 || column % kernel->stride[1] || column / kernel->stride[1] >= from->width) continue;
      const int16_t *pixel = in + row / kernel->stride[0] * from->width + column / kernel->stride[1];
      for (int64_t c = 0; c < group_inputs; c++)
        sum += (int64_t)pixel[c * from->height * from->width] * weight[((c * filter->channels) * filter->height + i) * filter->width + j];
    }
  }
  return sum;
}

static void transposed_convolution(const bnd_kernel *kernel, const bnd_integers *x, const bnd_integers *w, const bnd_shape *to, int64_t *sums) {
  const image from = image_of(&x->shape), filter = image_of(&w->shape), out = image_of(to); /* filter.channels: outputs of a group */
  const int64_t group_inputs = from.channels / kernel->groups, plane = filter.height * filter.width;
#pragma omp parallel for collapse(2) num_threads(kernel->threads) if (kernel->threads > 1)
  for (int64_t i = 0; i < to->size[0] * out.channels; i++)
    for (int64_t row = 0; row < out.height; row++) {
      const int64_t n = i / out.channels, o = i % out.channels, group = o / filter.channels;
      const int16_t *in = x->data + (n * from.channels + group * group_inputs) * from.height * from.width;
      const int16_t *weight = w->data + (group * group_inputs * filter.channels + o % filter.channels) * plane;
      for (int64_t column = 0; column < out.width; column++)
        sums[(i * out.height + row) * out.width + column] = transposed_sum(kernel, in, &from, weight, group_inputs, &filter, row, column);
    }
}

static void linear(const bnd_kernel *kernel, const bnd_integers *x, const bnd_integers *w, int64_t *sums) {
  const int64_t inputs = w->shape.size[1], outputs = w->shape.size[0];
  int64_t rows = 1;
  for (int i = 0; i < x->shape.rank - 1; i++) rows *= x->shape.size[i];
#pragma omp parallel for num_threads(kernel->threads) if (kernel->threads > 1)
  for (int64_t r = 0; r < rows; r++)
    for (int64_t o = 0; o < outputs; o++) {
      int64_t sum = 0;
      for (int64_t i = 0; i < inputs; i++) sum += (int64_t)x->data[r * inputs + i] * w->data[o * inputs + i];
      sums[r * outputs + o] = sum;
    }
}

void bnd_integer_convolution(const bnd_kernel *kernel, const bnd_integers *input, const bnd_integers *weight, const bnd_shape *to, int64_t *sums) {
  if (kernel->id == BND_OP_LINEAR) linear(kernel, input, weight, sums);
  else if (kernel->id == BND_OP_CONV_TRANSPOSE2D) transposed_convolution(kernel, input, weight, to, sums);
  else convolution(kernel, input, weight, to, sums);
}

int bnd_requantize(int64_t value, int shift, int low, int high) {
  const int64_t beyond = (int64_t)1 << 17; /* where every result is a bound */
  if (shift <= 0) {
    if (value > beyond) value = beyond;
    if (value < -beyond) value = -beyond;
    value *= (int64_t)1 << (-shift < 18 ? -shift : 18);
  } else if (shift > 62) {
    value = 0; /* below one half */
  } else {
    const int64_t floor = value >> shift, rest = value - floor * ((int64_t)1 << shift), half = (int64_t)1 << (shift - 1);
    value = floor + (rest > half || (rest == half && (floor & 1)));
  }
  return value < low ? low : value > high ? high : (int)value;
}
