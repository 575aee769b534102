/* Convolution, transposed convolution, linear: functions and modules. */
#include "ops/rules.h"

/* What the three kinds have in common, wherever the numbers stand. */
typedef struct window {
  int64_t stride[2], padding[2], dilation[2], output_padding[2], groups;
} window;

static window window_of_module(const bnd_module *m) {
  return (window){{m->stride[0], m->stride[1]},
                  {m->padding[0], m->padding[1]},
                  {m->dilation[0], m->dilation[1]},
                  {m->output_padding[0], m->output_padding[1]},
                  m->groups};
}

static bnd_status check_channels(const bnd_node *node, int64_t given, int64_t expected, int64_t groups, bnd_error *error) {
  if (groups < 1 || expected < 0) return bnd_fail_node(node, error, "%lld groups make no sense", (long long)groups);
  if (given != expected)
    return bnd_fail_node(node, error, "the input has %lld channels where the weight needs %lld", (long long)given, (long long)expected);
  return BND_OK;
}

/* `bias` may be NULL. */
static bnd_status check_bias(const bnd_node *node, const bnd_shape *bias, int64_t channels, bnd_error *error) {
  char text[BND_SHAPE_TEXT];
  if (bias && (bias->rank != 1 || bias->size[0] != channels))
    return bnd_fail_node(node, error, "the bias has shape %s where %lld values are needed", bnd_shape_text(bias, text), (long long)channels);
  return BND_OK;
}

static bnd_status multiply(const bnd_node *node, int64_t a, int64_t b, int64_t *product, bnd_error *error) {
  if (__builtin_mul_overflow(a, b, product)) return bnd_fail_node(node, error, "%lld times %lld channels do not fit", (long long)a, (long long)b);
  return BND_OK;
}

static bnd_status convolve(bnd_node *node, const bnd_node *x, const bnd_shape *weight, const bnd_shape *bias, const window *w, bnd_error *error) {
  const bnd_shape *in = &x->shape[0];
  if (in->rank != 4 || weight->rank != 4) return bnd_fail_node(node, error, "input and weight need four dimensions");
  int64_t channels;
  BND_TRY(multiply(node, weight->size[1], w->groups, &channels, error));
  BND_TRY(check_channels(node, in->size[1], channels, w->groups, error));
  if (weight->size[0] % w->groups)
    return bnd_fail_node(node, error, "%lld output channels do not divide into %lld groups", (long long)weight->size[0], (long long)w->groups);
  BND_TRY(check_bias(node, bias, weight->size[0], error));
  bnd_shape out = {4, {in->size[0], weight->size[0]}};
  for (int i = 0; i < 2; i++)
    BND_TRY(bnd_window_positions(node, in->size[2 + i], weight->size[2 + i], w->stride[i], w->padding[i], w->dilation[i], false, &out.size[2 + i],
                                 error));
  return bnd_set_result(node, &out, x->dtype, error);
}

static bnd_status convolve_transposed(bnd_node *node, const bnd_node *x, const bnd_shape *weight, const bnd_shape *bias, const window *w,
                                      bnd_error *error) {
  const bnd_shape *in = &x->shape[0];
  if (in->rank != 4 || weight->rank != 4) return bnd_fail_node(node, error, "input and weight need four dimensions");
  BND_TRY(check_channels(node, in->size[1], weight->size[0], w->groups, error));
  bnd_shape out = {4, {in->size[0], 0}};
  if (weight->size[0] % w->groups)
    return bnd_fail_node(node, error, "%lld input channels do not divide into %lld groups", (long long)weight->size[0], (long long)w->groups);
  BND_TRY(multiply(node, weight->size[1], w->groups, &out.size[1], error));
  BND_TRY(check_bias(node, bias, out.size[1], error));
  for (int i = 0; i < 2; i++) {
    /* The inverse of the window count; checking the window itself keeps every factor small. */
    int64_t unused;
    BND_TRY(bnd_window_positions(node, INT32_MAX, weight->size[2 + i], w->stride[i], w->padding[i], w->dilation[i], false, &unused, error));
    const int64_t reach = w->dilation[i] * (weight->size[2 + i] - 1) + 1;
    if (w->output_padding[i] < 0 || w->output_padding[i] >= (w->stride[i] > w->dilation[i] ? w->stride[i] : w->dilation[i]))
      return bnd_fail_node(node, error, "output padding %lld must be smaller than stride or dilation", (long long)w->output_padding[i]);
    if (in->size[2 + i] < 1 || in->size[2 + i] > INT32_MAX)
      return bnd_fail_node(node, error, "an input side of %lld is out of range", (long long)in->size[2 + i]);
    out.size[2 + i] = (in->size[2 + i] - 1) * w->stride[i] - 2 * w->padding[i] + reach + w->output_padding[i];
    if (out.size[2 + i] < 1) return bnd_fail_node(node, error, "the result would be empty");
  }
  return bnd_set_result(node, &out, x->dtype, error);
}

static bnd_status multiply_matrix(bnd_node *node, const bnd_node *x, const bnd_shape *weight, const bnd_shape *bias, bnd_error *error) {
  bnd_shape out = x->shape[0];
  if (out.rank < 1 || weight->rank != 2) return bnd_fail_node(node, error, "the weight needs two dimensions, the input one at least");
  BND_TRY(check_channels(node, out.size[out.rank - 1], weight->size[1], 1, error));
  BND_TRY(check_bias(node, bias, weight->size[0], error));
  out.size[out.rank - 1] = weight->size[0];
  return bnd_set_result(node, &out, x->dtype, error);
}

/* --- functions: conv2d(x, weight, bias, stride, padding, dilation, groups), conv_transpose2d(x, weight, bias, stride, padding, output_padding,
 * groups, dilation) --- */

static bnd_status function_operands(const bnd_node *node, bnd_node **x, const bnd_shape **weight, const bnd_shape **bias, bnd_error *error) {
  bnd_node *operand;
  BND_TRY(bnd_input(node, 0, x, error));
  BND_TRY(bnd_input(node, 1, &operand, error));
  *weight = &operand->shape[0];
  *bias = NULL;
  if (bnd_arg_node(node, 2)) {
    BND_TRY(bnd_input(node, 2, &operand, error));
    *bias = &operand->shape[0];
  }
  return BND_OK;
}

static window window_of_arguments(const bnd_node *node, bool transposed) {
  window w;
  bnd_arg_pair(node, 3, 1, w.stride);
  bnd_arg_pair(node, 4, 0, w.padding);
  bnd_arg_pair(node, transposed ? 7 : 5, 1, w.dilation);
  w.output_padding[0] = w.output_padding[1] = 0;
  if (transposed) bnd_arg_pair(node, 5, 0, w.output_padding);
  w.groups = bnd_arg_int(node, 6, 1);
  return w;
}

bnd_status bnd_shape_convolution(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  const bnd_shape *weight, *bias;
  BND_TRY(function_operands(node, &x, &weight, &bias, error));
  const window w = window_of_arguments(node, false);
  return convolve(node, x, weight, bias, &w, error);
}

bnd_status bnd_shape_transposed_convolution(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  const bnd_shape *weight, *bias;
  BND_TRY(function_operands(node, &x, &weight, &bias, error));
  const window w = window_of_arguments(node, true);
  return convolve_transposed(node, x, weight, bias, &w, error);
}

bnd_status bnd_shape_linear(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  const bnd_shape *weight, *bias;
  BND_TRY(function_operands(node, &x, &weight, &bias, error));
  return multiply_matrix(node, x, weight, bias, error);
}

/* --- modules --- */

bnd_status bnd_shape_convolution_module(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  const bnd_module *module = node->module;
  if (!module) return bnd_fail_node(node, error, "the module is missing");
  const bnd_shape *bias = module->bias.data ? &module->bias.shape : NULL;
  const window w = window_of_module(module);
  switch (node->op->id) {
    case BND_OP_LINEAR_MODULE:
      return multiply_matrix(node, x, &module->weight.shape, bias, error);
    case BND_OP_CONV_TRANSPOSE2D_MODULE:
    case BND_OP_CONV_TRANSPOSE2D_BN_MODULE:
      return convolve_transposed(node, x, &module->weight.shape, bias, &w, error);
    default:
      return convolve(node, x, &module->weight.shape, bias, &w, error);
  }
}

/* --- cost --- */

/* Elements of `shape` times the sizes of `weight` behind its first; sizes no machine could run give the largest number. */
static int64_t product(const bnd_shape *shape, const bnd_shape *weight) {
  size_t count;
  if (!bnd_shape_count(shape, &count)) return INT64_MAX;
  for (int d = 1; d < weight->rank; d++)
    if (!bnd_size_multiply(count, (size_t)weight->size[d], &count)) return INT64_MAX;
  return count > INT64_MAX ? INT64_MAX : (int64_t)count;
}

int64_t bnd_node_macs(const bnd_node *node) {
  if (!bnd_is_conv_function(node) && !bnd_is_conv_module(node)) return 0;
  const bnd_node *x = bnd_arg_node(node, 0), *w = node->kind == BND_CALL_MODULE ? NULL : bnd_arg_node(node, 1);
  const bnd_shape *weight = w ? &w->shape[0] : node->module ? &node->module->weight.shape : NULL;
  if (!x || !weight) return 0;
  const bool transposed = bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D) || bnd_is_transposed_module(node);
  /* Transposed, every input value meets a whole kernel for every output channel of its group. */
  return product(transposed ? &x->shape[0] : &node->shape[0], weight);
}
