#include "base/simd.h"
#include "kernels/math.h"
#include "kernels/reference/reference.h"

/* d/dx x * P(x), P the normal distribution function: P(x) + x e^(-x^2/2) / sqrt(2 pi) */
static inline double gelu_slope(double x) {
  const double exponent = -0.5 * x * x;
  const double density = 0.39894228040143267794 * bnd_exp_double(exponent < -700.0 ? -700.0 : exponent);
  return 0.5 * (1.0 + (double)bnd_erf((bnd_real)(x * 0.70710678118654752440))) + x * density;
}

static inline double gelu_tanh_slope(double x) {
  const double factor = 0.79788456080286535588, cubic = 0.044715;
  const double t = (double)bnd_tanh((bnd_real)(factor * (x + cubic * x * x * x)));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * factor * (1.0 + 3.0 * cubic * x * x);
}

/* dx = dy * slope at the input x; for sigmoid x is the output. NaN goes the ways it goes in PyTorch. */
BND_VECTORIZED
static void activation_gradient(const bnd_kernel *kernel, const bnd_real *x, const bnd_real *dy, bnd_real *dx, size_t count) {
  const bnd_real low = (bnd_real)kernel->low, high = (bnd_real)kernel->high, slope = (bnd_real)kernel->number;
  switch (kernel->id) {
    case BND_OP_RELU:
      for (size_t i = 0; i < count; i++) dx[i] = x[i] <= 0.f ? 0.f : dy[i];
      break;
    case BND_OP_CLAMP:
      if (kernel->open)
        for (size_t i = 0; i < count; i++) dx[i] = ((x[i] <= low) | (x[i] >= high)) ? 0.f : dy[i];
      else
        for (size_t i = 0; i < count; i++) dx[i] = ((x[i] >= low) & (x[i] <= high)) ? dy[i] : 0.f;
      break;
    case BND_OP_SIGMOID:
      for (size_t i = 0; i < count; i++) dx[i] = dy[i] * (1.f - x[i]) * x[i];
      break;
    case BND_OP_HARDSIGMOID:
      for (size_t i = 0; i < count; i++) dx[i] = ((x[i] > -3.f) & (x[i] < 3.f)) ? dy[i] / 6.f : 0.f;
      break;
    case BND_OP_SILU:
      for (size_t i = 0; i < count; i++) {
        const double s = 1.0 / (1.0 + bnd_exp_double(bnd_exp_argument(-x[i])));
        dx[i] = (bnd_real)((double)dy[i] * s * (1.0 + (double)x[i] * (1.0 - s)));
      }
      break;
    case BND_OP_HARDSWISH: /* 0, x / 3 + 1 / 2, 1; both bounds belong to the middle */
      for (size_t i = 0; i < count; i++) {
        const bnd_real inside = dy[i] * (x[i] / 3.f + 0.5f);
        dx[i] = x[i] < -3.f ? 0.f : x[i] <= 3.f ? inside : dy[i];
      }
      break;
    case BND_OP_LEAKY_RELU:
      for (size_t i = 0; i < count; i++) dx[i] = x[i] > 0.f ? dy[i] : dy[i] * slope;
      break;
    default:
      for (size_t i = 0; i < count; i++)
        dx[i] = (bnd_real)((double)dy[i] * (kernel->approximate ? gelu_tanh_slope((double)x[i]) : gelu_slope((double)x[i])));
      break;
  }
}

enum { PIECE = 4096 };

void bnd_gradient_activation(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                             const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_real *x = (kernel->id == BND_OP_SIGMOID ? outputs : inputs)[0].data, *dy = output_gradients[0].data;
  const size_t count = bnd_array_count(&inputs[0]), pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(kernel->threads) if (kernel->threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    const size_t at = p * PIECE;
    activation_gradient(kernel, x + at, dy + at, input_gradients[0].data + at, count - at < PIECE ? count - at : PIECE);
  }
}

enum { LANES = 64 };

/* dx = y * (dy - sum dy y), for `count` neighbouring softmaxes over `size` values that lie `stride` apart. */
BND_VECTORIZED
static void softmax_lanes(const bnd_real *y, const bnd_real *dy, bnd_real *dx, size_t size, size_t stride, size_t count) {
  double sum[LANES] = {0};
  for (size_t i = 0; i < size; i++)
    for (size_t j = 0; j < count; j++) sum[j] += (double)dy[i * stride + j] * (double)y[i * stride + j];
  for (size_t i = 0; i < size; i++)
    for (size_t j = 0; j < count; j++) dx[i * stride + j] = (bnd_real)((double)y[i * stride + j] * ((double)dy[i * stride + j] - sum[j]));
}

void bnd_gradient_softmax(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                          const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t outer = bnd_span(shape, 0, kernel->axis), size = (size_t)shape->size[kernel->axis],
               inner = bnd_span(shape, kernel->axis + 1, shape->rank);
  const size_t strips = (inner + LANES - 1) / LANES;
#pragma omp parallel for collapse(2) num_threads(kernel->threads) if (kernel->threads > 1)
  for (size_t o = 0; o < outer; o++)
    for (size_t s = 0; s < strips; s++) {
      const size_t first = s * LANES, at = o * size * inner + first;
      softmax_lanes(outputs[0].data + at, output_gradients[0].data + at, input_gradients[0].data + at, size, inner,
                    inner - first < LANES ? inner - first : LANES);
    }
}
