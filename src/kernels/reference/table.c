#include "kernels/reference/reference.h"

static bnd_kernel_function *const KERNELS[BND_OPERATOR_COUNT] = {
    [BND_OP_CONV2D] = bnd_reference_convolution,
    [BND_OP_CONV_TRANSPOSE2D] = bnd_reference_transposed_convolution,
    [BND_OP_LINEAR] = bnd_reference_linear,
    [BND_OP_BATCH_NORM] = bnd_reference_batch_norm,
    [BND_OP_LAYER_NORM] = bnd_reference_layer_norm,
    [BND_OP_RELU] = bnd_reference_activation,
    [BND_OP_CLAMP] = bnd_reference_activation,
    [BND_OP_SIGMOID] = bnd_reference_activation,
    [BND_OP_HARDSIGMOID] = bnd_reference_activation,
    [BND_OP_SILU] = bnd_reference_activation,
    [BND_OP_HARDSWISH] = bnd_reference_activation,
    [BND_OP_LEAKY_RELU] = bnd_reference_activation,
    [BND_OP_GELU] = bnd_reference_activation,
    [BND_OP_SOFTMAX] = bnd_reference_softmax,
    [BND_OP_FAKE_QUANTIZE] = bnd_reference_fake_quantize,
    [BND_OP_ADD] = bnd_reference_arithmetic,
    [BND_OP_SUB] = bnd_reference_arithmetic,
    [BND_OP_MUL] = bnd_reference_arithmetic,
    [BND_OP_DIV] = bnd_reference_arithmetic,
    [BND_OP_MAX_POOL2D] = bnd_reference_max_pool,
    [BND_OP_AVG_POOL2D] = bnd_reference_avg_pool,
    [BND_OP_ADAPTIVE_AVG_POOL2D] = bnd_reference_adaptive_avg_pool,
    [BND_OP_MEAN] = bnd_reference_mean,
    [BND_OP_SUM] = bnd_reference_sum,
    [BND_OP_RESHAPE] = bnd_reference_copy,
    [BND_OP_CAT] = bnd_reference_cat,
    [BND_OP_SLICE] = bnd_reference_slice,
    [BND_OP_SPLIT] = bnd_reference_split,
    [BND_OP_PERMUTE] = bnd_reference_permute,
    [BND_OP_PIXEL_SHUFFLE] = bnd_reference_pixel_shuffle,
    [BND_OP_MESHGRID] = bnd_reference_meshgrid,
    [BND_OP_ARANGE] = bnd_reference_arange,
    [BND_OP_FULL] = bnd_reference_full,
};

bnd_kernel_function *bnd_reference_kernel(bnd_operator_id id) {
  return id < BND_OPERATOR_COUNT ? KERNELS[id] : NULL;
}
