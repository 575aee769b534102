/* The gradient of a convolution's input is a transposed convolution with the same weights, and the other way round: the layout of the weights,
   [channels of the small image, channels of the large image in the group, rows, columns], suits both. "Small" is the image with one value for each
   place of the window: the output of a convolution, the input of a transposed one. */
#include "kernels/reference/reference.h"

/* weight[s][l][i][j] = sum over images and places (row, column) of small[s][row][column] * large[l][row * stride - padding + i * dilation][..] */
static double weight_sum(const bnd_kernel *kernel, const bnd_shape *small_shape, const bnd_real *small, const bnd_shape *large_shape,
                         const bnd_real *large, int64_t i, int64_t j) {
  const int64_t h = large_shape->size[2], w = large_shape->size[3], rows = small_shape->size[2], columns = small_shape->size[3];
  const size_t small_image = bnd_span(small_shape, 1, 4), large_image = bnd_span(large_shape, 1, 4);
  const int64_t stride = kernel->stride[1], shift = j * kernel->dilation[1] - kernel->padding[1];
  int64_t begin = 0, end = columns;
  while (begin < end && begin * stride + shift < 0) begin++;
  while (end > begin && (end - 1) * stride + shift >= w) end--;
  double sum = 0;
  for (int64_t n = 0; n < small_shape->size[0]; n++, small += small_image, large += large_image)
    for (int64_t y = 0; y < rows; y++) {
      const int64_t row = y * kernel->stride[0] - kernel->padding[0] + i * kernel->dilation[0];
      if (row < 0 || row >= h) continue;
      for (int64_t x = begin; x < end; x++) sum += (double)small[y * columns + x] * (double)large[row * w + x * stride + shift];
    }
  return sum;
}

static void weight_gradient(const bnd_kernel *kernel, const bnd_shape *shape, const bnd_array *small, const bnd_array *large, bnd_real *gradient) {
  const int64_t group_smalls = small->shape.size[1] / kernel->groups, group_larges = shape->size[1], *window = shape->size + 2;
  const size_t small_plane = bnd_span(&small->shape, 2, 4), large_plane = bnd_span(&large->shape, 2, 4);
#pragma omp parallel for collapse(2) num_threads(kernel->threads) if (kernel->threads > 1)
  for (int64_t s = 0; s < shape->size[0]; s++)
    for (int64_t l = 0; l < group_larges; l++)
      for (int64_t i = 0; i < window[0]; i++)
        for (int64_t j = 0; j < window[1]; j++)
          gradient[((s * group_larges + l) * window[0] + i) * window[1] + j] =
              (bnd_real)weight_sum(kernel, &small->shape, small->data + (size_t)s * small_plane, &large->shape,
                                   large->data + (size_t)(s / group_smalls * group_larges + l) * large_plane, i, j);
}

/* Sums over images and pixels. */
static void bias_gradient(const bnd_array *output_gradient, bnd_real *gradient) {
  const bnd_shape *shape = &output_gradient->shape;
  const size_t images = (size_t)shape->size[0], channels = (size_t)shape->size[1], plane = bnd_span(shape, 2, shape->rank);
  for (size_t c = 0; c < channels; c++) {
    double sum = 0;
    for (size_t n = 0; n < images; n++)
      for (size_t i = 0; i < plane; i++) sum += (double)output_gradient->data[(n * channels + c) * plane + i];
    gradient[c] = (bnd_real)sum;
  }
}

void bnd_gradient_convolution(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                              const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_array *x = &inputs[0], *w = &inputs[1], dy = {outputs[0].shape, output_gradients[0].data};
  if (input_gradients[0].data)
    bnd_reference_transposed_convolution(kernel, (bnd_array[]){dy, *w}, 2, &(bnd_array){x->shape, input_gradients[0].data}, 1);
  if (input_gradients[1].data) weight_gradient(kernel, &w->shape, &dy, x, input_gradients[1].data);
  if (input_count > 2 && input_gradients[2].data) bias_gradient(&dy, input_gradients[2].data);
}

void bnd_gradient_transposed_convolution(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                                         const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_array *x = &inputs[0], *w = &inputs[1], dy = {outputs[0].shape, output_gradients[0].data};
  if (input_gradients[0].data) bnd_reference_convolution(kernel, (bnd_array[]){dy, *w}, 2, &(bnd_array){x->shape, input_gradients[0].data}, 1);
  if (input_gradients[1].data) weight_gradient(kernel, &w->shape, x, &dy, input_gradients[1].data);
  if (input_count > 2 && input_gradients[2].data) bias_gradient(&dy, input_gradients[2].data);
}

/* y = x W^T + b: dx = dy W, dW = dy^T x, db = column sums of dy */
void bnd_gradient_linear(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                         const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)kernel, (void)outputs, (void)output_count;
  if (bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_array *x = &inputs[0], *w = &inputs[1];
  const bnd_real *dy = output_gradients[0].data;
  bnd_real *dx = input_gradients[0].data, *dw = input_gradients[1].data, *db = input_count > 2 ? input_gradients[2].data : NULL;
  const size_t out_features = (size_t)w->shape.size[0], in_features = (size_t)w->shape.size[1], rows = bnd_span(&x->shape, 0, x->shape.rank - 1);
  for (size_t r = 0; dx && r < rows; r++)
    for (size_t i = 0; i < in_features; i++) {
      double sum = 0;
      for (size_t o = 0; o < out_features; o++) sum += (double)dy[r * out_features + o] * (double)w->data[o * in_features + i];
      dx[r * in_features + i] = (bnd_real)sum;
    }
  for (size_t o = 0; dw && o < out_features; o++)
    for (size_t i = 0; i < in_features; i++) {
      double sum = 0;
      for (size_t r = 0; r < rows; r++) sum += (double)dy[r * out_features + o] * (double)x->data[r * in_features + i];
      dw[o * in_features + i] = (bnd_real)sum;
    }
  for (size_t o = 0; db && o < out_features; o++) {
    double sum = 0;
    for (size_t r = 0; r < rows; r++) sum += (double)dy[r * out_features + o];
    db[o] = (bnd_real)sum;
  }
}
