#include <tgmath.h>

#include "kernels/reference/reference.h"

/* Evaluation mode, in the order in which PyTorch computes it on a CPU: alpha = weight / sqrt(var + eps), beta = bias - mean * alpha, y = x * alpha +
   beta. Operands: input, weight, bias, mean, variance; weight and bias may be absent. */
void bnd_reference_batch_norm(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t images = (size_t)shape->size[0], channels = (size_t)shape->size[1], inner = bnd_span(shape, 2, shape->rank);
  const bnd_real epsilon = (bnd_real)kernel->number, *weight = inputs[1].data, *bias = inputs[2].data, *mean = inputs[3].data,
                 *variance = inputs[4].data;
  for (size_t n = 0; n < images; n++)
    for (size_t c = 0; c < channels; c++) {
      const bnd_real inverse = 1.f / sqrt(variance[c] + epsilon), alpha = weight ? inverse * weight[c] : inverse;
      const bnd_real beta = (bias ? bias[c] : 0.f) - mean[c] * alpha;
      const bnd_real *x = inputs[0].data + (n * channels + c) * inner;
      bnd_real *y = outputs[0].data + (n * channels + c) * inner;
      for (size_t i = 0; i < inner; i++) y[i] = x[i] * alpha + beta;
    }
}

/* Mean and biased variance over the dimensions from kernel->axis on, in double. */
void bnd_reference_layer_norm(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)output_count;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t rows = bnd_span(shape, 0, kernel->axis), count = bnd_span(shape, kernel->axis, shape->rank);
  const bnd_real *weight = input_count > 1 ? inputs[1].data : NULL, *bias = input_count > 2 ? inputs[2].data : NULL;
  for (size_t r = 0; r < rows; r++) {
    const bnd_real *x = inputs[0].data + r * count;
    bnd_real *y = outputs[0].data + r * count;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) sum += (double)x[i];
    const double mean = sum / (double)count;
    for (size_t i = 0; i < count; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double inverse = 1.0 / sqrt(squares / (double)count + kernel->number);
    for (size_t i = 0; i < count; i++)
      y[i] = (bnd_real)(((double)x[i] - mean) * inverse * (weight ? (double)weight[i] : 1.0) + (bias ? (double)bias[i] : 0.0));
  }
}
