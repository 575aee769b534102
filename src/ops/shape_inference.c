#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ops/rules.h"

static bnd_shape_rule *const RULES[BND_OPERATOR_COUNT] = {
    [BND_OP_CONV2D] = bnd_shape_convolution,
    [BND_OP_CONV_TRANSPOSE2D] = bnd_shape_transposed_convolution,
    [BND_OP_LINEAR] = bnd_shape_linear,
    [BND_OP_BATCH_NORM] = bnd_shape_batch_norm,
    [BND_OP_LAYER_NORM] = bnd_shape_same,
    [BND_OP_RELU] = bnd_shape_same,
    [BND_OP_RELU_] = bnd_shape_same,
    [BND_OP_RELU6] = bnd_shape_same,
    [BND_OP_HARDTANH] = bnd_shape_same,
    [BND_OP_HARDTANH_] = bnd_shape_same,
    [BND_OP_CLAMP] = bnd_shape_same,
    [BND_OP_CLAMP_] = bnd_shape_same,
    [BND_OP_CLIP] = bnd_shape_same,
    [BND_OP_CLIP_] = bnd_shape_same,
    [BND_OP_SIGMOID] = bnd_shape_same,
    [BND_OP_SIGMOID_] = bnd_shape_same,
    [BND_OP_HARDSIGMOID] = bnd_shape_same,
    [BND_OP_HARDSIGMOID_] = bnd_shape_same,
    [BND_OP_SILU] = bnd_shape_same,
    [BND_OP_SILU_] = bnd_shape_same,
    [BND_OP_HARDSWISH] = bnd_shape_same,
    [BND_OP_HARDSWISH_] = bnd_shape_same,
    [BND_OP_LEAKY_RELU] = bnd_shape_same,
    [BND_OP_LEAKY_RELU_] = bnd_shape_same,
    [BND_OP_GELU] = bnd_shape_same,
    [BND_OP_SOFTMAX] = bnd_shape_same,
    [BND_OP_ADD] = bnd_shape_arithmetic,
    [BND_OP_ADD_] = bnd_shape_arithmetic,
    [BND_OP_SUB] = bnd_shape_arithmetic,
    [BND_OP_SUB_] = bnd_shape_arithmetic,
    [BND_OP_MUL] = bnd_shape_arithmetic,
    [BND_OP_MUL_] = bnd_shape_arithmetic,
    [BND_OP_DIV] = bnd_shape_arithmetic,
    [BND_OP_DIV_] = bnd_shape_arithmetic,
    [BND_OP_MAX_POOL2D] = bnd_shape_max_pool,
    [BND_OP_AVG_POOL2D] = bnd_shape_avg_pool,
    [BND_OP_ADAPTIVE_AVG_POOL2D] = bnd_shape_adaptive_pool,
    [BND_OP_MEAN] = bnd_shape_mean,
    [BND_OP_SUM] = bnd_shape_sum,
    [BND_OP_CAT] = bnd_shape_cat,
    [BND_OP_CONCAT] = bnd_shape_cat,
    [BND_OP_CONCATENATE] = bnd_shape_cat,
    [BND_OP_SLICE] = bnd_shape_slice,
    [BND_OP_SELECT] = bnd_shape_select,
    [BND_OP_SPLIT] = bnd_shape_split,
    [BND_OP_SPLIT_WITH_SIZES] = bnd_shape_split_with_sizes,
    [BND_OP_RESHAPE] = bnd_shape_reshape,
    [BND_OP_VIEW] = bnd_shape_reshape,
    [BND_OP_FLATTEN] = bnd_shape_flatten,
    [BND_OP_PERMUTE] = bnd_shape_permute,
    [BND_OP_TRANSPOSE] = bnd_shape_transpose,
    [BND_OP_SQUEEZE] = bnd_shape_squeeze,
    [BND_OP_UNSQUEEZE] = bnd_shape_unsqueeze,
    [BND_OP_PIXEL_SHUFFLE] = bnd_shape_pixel_shuffle,
    [BND_OP_CONTIGUOUS] = bnd_shape_same,
    [BND_OP_DROPOUT] = bnd_shape_same,
    [BND_OP_TO] = bnd_shape_to,
    [BND_OP_ARANGE] = bnd_shape_arange,
    [BND_OP_FULL] = bnd_shape_full,
    [BND_OP_MESHGRID] = bnd_shape_meshgrid,
    [BND_OP_STACK] = bnd_shape_stack,
    [BND_OP_GETITEM] = bnd_shape_getitem,
    [BND_OP_QUANT_STUB] = bnd_shape_same,
    [BND_OP_DEQUANT_STUB] = bnd_shape_same,
    [BND_OP_NO_GRAD_REGION] = bnd_shape_no_grad_region,
    [BND_OP_CONV2D_MODULE] = bnd_shape_convolution_module,
    [BND_OP_CONV2D_BN_MODULE] = bnd_shape_convolution_module,
    [BND_OP_CONV_TRANSPOSE2D_MODULE] = bnd_shape_convolution_module,
    [BND_OP_CONV_TRANSPOSE2D_BN_MODULE] = bnd_shape_convolution_module,
    [BND_OP_LINEAR_MODULE] = bnd_shape_convolution_module,
    [BND_OP_AVG_POOL2D_MODULE] = bnd_shape_avg_pool_module,
    [BND_OP_GLOBAL_AVG_POOL2D_MODULE] = bnd_shape_global_pool_module,
    [BND_OP_LEAKY_RELU_MODULE] = bnd_shape_same,
    [BND_OP_FAKE_QUANTIZE] = bnd_shape_same,
};

/* A get_attr without a tensor is fine where it names the sub-graph of a region: the region's results are attributes of their own. */
static bool names_region(const bnd_node *node) {
  for (int i = 0; i < node->user_count; i++)
    if (!bnd_node_is(node->users[i], BND_OP_NO_GRAD_REGION)) return false;
  return node->user_count > 0;
}

bnd_status bnd_infer_node_shape(bnd_node *node, bnd_error *error) {
  switch (node->kind) {
    case BND_PLACEHOLDER: {
      const bnd_shape shape = node->shape[0];
      return bnd_set_result(node, &shape, node->dtype, error);
    }
    case BND_OUTPUT:
      node->result_count = 0;
      return BND_OK;
    case BND_GET_ATTR: {
      const bnd_attribute *attribute = bnd_graph_attribute(node->graph, node->target);
      if (attribute) return bnd_set_result(node, &attribute->tensor.shape, attribute->tensor.dtype, error);
      if (!names_region(node)) return bnd_fail_node(node, error, "the graph has no attribute of this name");
      node->result_count = 0;
      return BND_OK;
    }
    case BND_CALL_FUNCTION:
    case BND_CALL_MODULE:
      break;
  }
  if (!node->op || !RULES[node->op->id]) return bnd_fail_node(node, error, "no shape rule for this operator");
  return RULES[node->op->id](node, error);
}

bnd_status bnd_infer_shapes(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) BND_TRY(bnd_infer_node_shape(node, error));
  return BND_OK;
}

/* --- helpers --- */

bnd_status bnd_fail_node(const bnd_node *node, bnd_error *error, const char *format, ...) {
  char message[BND_ERROR_MESSAGE_SIZE / 2];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return bnd_fail(error, BND_ERROR_MODEL, "%s (%s): %s", node->name, node->op ? node->op->target : node->target ? node->target : "", message);
}

bnd_status bnd_set_result(bnd_node *node, const bnd_shape *shape, bnd_dtype dtype, bnd_error *error) {
  size_t count;
  if (!bnd_shape_count(shape, &count) || count > INT64_MAX / 8) {
    char text[BND_SHAPE_TEXT];
    return bnd_fail_node(node, error, "a result of shape %s is impossible", bnd_shape_text(shape, text));
  }
  node->result_count = 1;
  node->shape[0] = *shape;
  node->dtype = dtype;
  return BND_OK;
}

bnd_status bnd_input(const bnd_node *node, int index, bnd_node **input, bnd_error *error) {
  *input = bnd_arg_node(node, index);
  if (!*input) return bnd_fail_node(node, error, "argument %d is not a tensor", index);
  if ((*input)->result_count != 1) return bnd_fail_node(node, error, "argument %d, %s, is not a single tensor", index, (*input)->name);
  return BND_OK;
}

bnd_status bnd_input_of_rank(const bnd_node *node, int index, int rank, bnd_node **input, bnd_error *error) {
  BND_TRY(bnd_input(node, index, input, error));
  char text[BND_SHAPE_TEXT];
  if ((*input)->shape[0].rank != rank)
    return bnd_fail_node(node, error, "argument %d, %s, has shape %s where %d dimensions are needed", index, (*input)->name,
                         bnd_shape_text(&(*input)->shape[0], text), rank);
  return BND_OK;
}

bnd_status bnd_dimension(const bnd_node *node, int64_t dimension, int rank, int *result, bnd_error *error) {
  if (dimension < -rank || dimension >= rank) return bnd_fail_node(node, error, "there is no dimension %lld in %d", (long long)dimension, rank);
  *result = (int)(dimension < 0 ? dimension + rank : dimension);
  return BND_OK;
}

bnd_status bnd_window_positions(const bnd_node *node, int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool ceil_mode,
                                int64_t *positions, bnd_error *error) {
  const int64_t limit = INT32_MAX;
  if (size < 0 || size > limit || kernel < 1 || kernel > limit || stride < 1 || stride > limit || padding < 0 || padding > limit || dilation < 1 ||
      dilation > limit || (kernel - 1) > limit / dilation)
    return bnd_fail_node(node, error, "kernel %lld, stride %lld, padding %lld, dilation %lld on %lld values make no window", (long long)kernel,
                         (long long)stride, (long long)padding, (long long)dilation, (long long)size);
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1 + (ceil_mode ? stride - 1 : 0);
  if (room < 0)
    return bnd_fail_node(node, error, "the window of %lld does not fit into %lld values", (long long)(dilation * (kernel - 1) + 1),
                         (long long)(size + 2 * padding));
  *positions = room / stride + 1;
  if (ceil_mode && (*positions - 1) * stride >= size + padding) (*positions)--;
  return BND_OK;
}

bool bnd_dtype_of_text(const char *text, bnd_dtype *dtype) {
  if (strncmp(text, "torch.", 6) == 0) text += 6;
  for (bnd_dtype d = BND_F32; d <= BND_BOOL; d++)
    if (strcmp(text, bnd_dtype_name(d)) == 0) return *dtype = d, true;
  return false;
}
