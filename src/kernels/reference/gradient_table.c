#include <string.h>

#include "kernels/reference/reference.h"

bool bnd_gradient_vanishes(const bnd_array *output_gradients, const bnd_array *inputs, int input_count, const bnd_array *input_gradients) {
  if (output_gradients[0].data) return false;
  for (int i = 0; i < input_count; i++)
    if (input_gradients[i].data) memset(input_gradients[i].data, 0, bnd_array_count(&inputs[i]) * sizeof(bnd_real));
  return true;
}

static bnd_gradient_function *const GRADIENTS[BND_OPERATOR_COUNT] = {
    [BND_OP_CONV2D] = bnd_gradient_convolution,
    [BND_OP_CONV_TRANSPOSE2D] = bnd_gradient_transposed_convolution,
    [BND_OP_LINEAR] = bnd_gradient_linear,
    [BND_OP_BATCH_NORM] = bnd_gradient_batch_norm,
    [BND_OP_LAYER_NORM] = bnd_gradient_layer_norm,
    [BND_OP_RELU] = bnd_gradient_activation,
    [BND_OP_CLAMP] = bnd_gradient_activation,
    [BND_OP_SIGMOID] = bnd_gradient_activation,
    [BND_OP_HARDSIGMOID] = bnd_gradient_activation,
    [BND_OP_SILU] = bnd_gradient_activation,
    [BND_OP_HARDSWISH] = bnd_gradient_activation,
    [BND_OP_LEAKY_RELU] = bnd_gradient_activation,
    [BND_OP_GELU] = bnd_gradient_activation,
    [BND_OP_SOFTMAX] = bnd_gradient_softmax,
    [BND_OP_FAKE_QUANTIZE] = bnd_gradient_copy,
    [BND_OP_ADD] = bnd_gradient_arithmetic,
    [BND_OP_SUB] = bnd_gradient_arithmetic,
    [BND_OP_MUL] = bnd_gradient_arithmetic,
    [BND_OP_DIV] = bnd_gradient_arithmetic,
    [BND_OP_MAX_POOL2D] = bnd_gradient_max_pool,
    [BND_OP_AVG_POOL2D] = bnd_gradient_avg_pool,
    [BND_OP_ADAPTIVE_AVG_POOL2D] = bnd_gradient_avg_pool,
    [BND_OP_MEAN] = bnd_gradient_mean,
    [BND_OP_SUM] = bnd_gradient_mean,
    [BND_OP_RESHAPE] = bnd_gradient_copy,
    [BND_OP_CAT] = bnd_gradient_cat,
    [BND_OP_SLICE] = bnd_gradient_slice,
    [BND_OP_SPLIT] = bnd_gradient_split,
    [BND_OP_PERMUTE] = bnd_gradient_permute,
    [BND_OP_PIXEL_SHUFFLE] = bnd_gradient_pixel_shuffle,
    [BND_OP_MESHGRID] = bnd_gradient_meshgrid,
};

bnd_gradient_function *bnd_reference_gradient(bnd_operator_id id) {
  return id < BND_OPERATOR_COUNT ? GRADIENTS[id] : NULL;
}
