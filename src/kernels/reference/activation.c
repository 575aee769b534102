#include "base/simd.h"
#include "kernels/math.h"
#include "kernels/reference/reference.h"

static inline bnd_real clamp(bnd_real x, bnd_real low, bnd_real high) {
  x = x < low ? low : x; /* NaN fails both comparisons and stays */
  return x > high ? high : x;
}

static inline bnd_real gelu(bnd_real x, bool approximate) {
  if (!approximate) return x * 0.5f * (1.f + bnd_erf(x * (bnd_real)0.70710678118654752440));
  return 0.5f * x * (1.f + bnd_tanh((bnd_real)0.79788456080286535588 * (x + (bnd_real)0.044715 * x * x * x)));
}

BND_VECTORIZED
static void activate(const bnd_kernel *kernel, const bnd_real *x, bnd_real *y, size_t count) {
  const bnd_real low = (bnd_real)kernel->low, high = (bnd_real)kernel->high, slope = (bnd_real)kernel->number;
  switch (kernel->id) {
    case BND_OP_RELU:
      for (size_t i = 0; i < count; i++) y[i] = x[i] < 0.f ? 0.f : x[i];
      break;
    case BND_OP_CLAMP:
      for (size_t i = 0; i < count; i++) y[i] = clamp(x[i], low, high);
      break;
    case BND_OP_SIGMOID:
      for (size_t i = 0; i < count; i++) y[i] = bnd_sigmoid(x[i]);
      break;
    case BND_OP_HARDSIGMOID:
      for (size_t i = 0; i < count; i++) y[i] = bnd_hardsigmoid(x[i]);
      break;
    case BND_OP_SILU:
      for (size_t i = 0; i < count; i++) y[i] = (bnd_real)((double)x[i] / (1.0 + bnd_exp_double(bnd_exp_argument(-x[i]))));
      break;
    case BND_OP_HARDSWISH:
      for (size_t i = 0; i < count; i++) y[i] = x[i] * clamp(x[i] + 3.f, 0.f, 6.f) / 6.f;
      break;
    case BND_OP_LEAKY_RELU:
      for (size_t i = 0; i < count; i++) y[i] = x[i] > 0.f ? x[i] : x[i] * slope;
      break;
    default:
      for (size_t i = 0; i < count; i++) y[i] = gelu(x[i], kernel->approximate);
      break;
  }
}

enum { PIECE = 4096 };

void bnd_reference_activation(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const size_t count = bnd_array_count(&inputs[0]), pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(kernel->threads) if (kernel->threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    const size_t at = p * PIECE;
    activate(kernel, inputs[0].data + at, outputs[0].data + at, count - at < PIECE ? count - at : PIECE);
  }
}

enum { LANES = 64 };

/* `count` neighbouring softmaxes over `size` values that lie `stride` apart: maximum, e^(x - maximum), sum from the first to the last, quotient. */
BND_VECTORIZED
static void softmax_lanes(const bnd_real *x, bnd_real *y, size_t size, size_t stride, size_t count) {
  bnd_real maximum[LANES], sum[LANES];
  for (size_t j = 0; j < count; j++) {
    maximum[j] = x[j];
    sum[j] = 0.f;
  }
  for (size_t i = 1; i < size; i++)
    for (size_t j = 0; j < count; j++) maximum[j] = x[i * stride + j] > maximum[j] ? x[i * stride + j] : maximum[j];
  for (size_t i = 0; i < size; i++)
    for (size_t j = 0; j < count; j++) {
      const bnd_real e = bnd_exp(x[i * stride + j] - maximum[j]);
      y[i * stride + j] = e;
      sum[j] += e;
    }
  for (size_t i = 0; i < size; i++)
    for (size_t j = 0; j < count; j++) y[i * stride + j] = y[i * stride + j] / sum[j];
}

void bnd_reference_softmax(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t outer = bnd_span(shape, 0, kernel->axis), size = (size_t)shape->size[kernel->axis],
               inner = bnd_span(shape, kernel->axis + 1, shape->rank);
  if (size == 0) return;
  const size_t strips = (inner + LANES - 1) / LANES;
#pragma omp parallel for collapse(2) num_threads(kernel->threads) if (kernel->threads > 1)
  for (size_t o = 0; o < outer; o++)
    for (size_t s = 0; s < strips; s++) {
      const size_t first = s * LANES, at = o * size * inner + first;
      softmax_lanes(inputs[0].data + at, outputs[0].data + at, size, inner, inner - first < LANES ? inner - first : LANES);
    }
}
