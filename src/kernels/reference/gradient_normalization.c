#include <math.h>

#include "kernels/reference/reference.h"

/* Evaluation mode: y = (x - mean) * weight / sqrt(variance + eps) + bias with mean and variance as operands of their own. With the sums over a
   channel s = sum dy and t = sum dy * (x - mean): dx = dy * weight * inverse, dweight = t * inverse, dbias = s, dmean = -s * weight * inverse,
   dvariance = -t * weight * inverse^3 / 2. */
void bnd_gradient_batch_norm(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                             const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)outputs, (void)output_count;
  if (bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t images = (size_t)shape->size[0], channels = (size_t)shape->size[1], inner = bnd_span(shape, 2, shape->rank);
  const bnd_real *weight = inputs[1].data, *mean = inputs[3].data, *variance = inputs[4].data;
  const bool sums = input_gradients[1].data || input_gradients[2].data || input_gradients[3].data || input_gradients[4].data;
#pragma omp parallel for num_threads(kernel->threads) if (kernel->threads > 1)
  for (size_t c = 0; c < channels; c++) {
    const double inverse = 1.0 / sqrt((double)variance[c] + kernel->number), alpha = weight ? inverse * (double)weight[c] : inverse;
    double sum = 0, product = 0;
    for (size_t n = 0; n < images; n++) {
      const size_t at = (n * channels + c) * inner;
      const bnd_real *dy = output_gradients[0].data + at;
      for (size_t i = 0; input_gradients[0].data && i < inner; i++) input_gradients[0].data[at + i] = (bnd_real)((double)dy[i] * alpha);
      for (size_t i = 0; sums && i < inner; i++) {
        sum += (double)dy[i];
        product += (double)dy[i] * ((double)inputs[0].data[at + i] - (double)mean[c]);
      }
    }
    const double results[] = {product * inverse, sum, -sum * alpha, -0.5 * product * alpha * inverse * inverse};
    for (int k = 0; k < 4; k++)
      if (input_gradients[1 + k].data) input_gradients[1 + k].data[c] = (bnd_real)results[k];
  }
}

typedef struct row {
  double mean, inverse;
} row;

static row statistics(const bnd_real *x, size_t count, double epsilon) {
  double sum = 0, squares = 0;
  for (size_t i = 0; i < count; i++) sum += (double)x[i];
  const double mean = sum / (double)count;
  for (size_t i = 0; i < count; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
  return (row){mean, 1.0 / sqrt(squares / (double)count + epsilon)};
}

/* With g = dy * weight and z = (x - mean) * inverse: dx = inverse * (g - mean of g - z * mean of g z). */
static void layer_norm_input(const bnd_real *x, const bnd_real *weight, const bnd_real *dy, size_t count, double epsilon, bnd_real *dx) {
  const row r = statistics(x, count, epsilon);
  double sum = 0, product = 0;
  for (size_t i = 0; i < count; i++) {
    const double g = (double)dy[i] * (weight ? (double)weight[i] : 1.0);
    sum += g;
    product += g * ((double)x[i] - r.mean) * r.inverse;
  }
  for (size_t i = 0; i < count; i++) {
    const double g = (double)dy[i] * (weight ? (double)weight[i] : 1.0), z = ((double)x[i] - r.mean) * r.inverse;
    dx[i] = (bnd_real)(r.inverse * (g - sum / (double)count - z * product / (double)count));
  }
}

enum { STRIP = 256 }; /* columns summed together */

void bnd_gradient_layer_norm(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                             const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)outputs, (void)output_count;
  if (bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t rows = bnd_span(shape, 0, kernel->axis), count = bnd_span(shape, kernel->axis, shape->rank);
  const bnd_real *x = inputs[0].data, *weight = input_count > 1 ? inputs[1].data : NULL, *dy = output_gradients[0].data;
  bnd_real *dx = input_gradients[0].data, *dweight = input_count > 1 ? input_gradients[1].data : NULL,
           *dbias = input_count > 2 ? input_gradients[2].data : NULL;
  for (size_t r = 0; dx && r < rows; r++) layer_norm_input(x + r * count, weight, dy + r * count, count, kernel->number, dx + r * count);
  if (!dweight && !dbias) return;
  for (size_t first = 0; first < count; first += STRIP) {
    const size_t columns = count - first < STRIP ? count - first : STRIP;
    double sums[STRIP] = {0}, products[STRIP] = {0};
    for (size_t r = 0; r < rows; r++) {
      const row s = statistics(x + r * count, count, kernel->number);
      for (size_t i = 0; i < columns; i++) {
        const size_t at = r * count + first + i;
        sums[i] += (double)dy[at];
        products[i] += (double)dy[at] * ((double)x[at] - s.mean) * s.inverse;
      }
    }
    for (size_t i = 0; i < columns; i++) {
      if (dweight) dweight[first + i] = (bnd_real)products[i];
      if (dbias) dbias[first + i] = (bnd_real)sums[i];
    }
  }
}
