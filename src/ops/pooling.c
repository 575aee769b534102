/* Pools and reductions. */
#include "ops/rules.h"

static bnd_status pool(bnd_node *node, const int64_t kernel[2], const int64_t stride[2], const int64_t padding[2], const int64_t dilation[2],
                       bool ceil_mode, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input_of_rank(node, 0, 4, &x, error));
  bnd_shape out = x->shape[0];
  for (int i = 0; i < 2; i++) {
    if (padding[i] > kernel[i] / 2)
      return bnd_fail_node(node, error, "padding %lld is more than half of kernel %lld", (long long)padding[i], (long long)kernel[i]);
    BND_TRY(bnd_window_positions(node, out.size[2 + i], kernel[i], stride[i], padding[i], dilation[i], ceil_mode, &out.size[2 + i], error));
  }
  return bnd_set_result(node, &out, x->dtype, error);
}

/* An absent or empty stride means the kernel size. */
static void read_window(const bnd_node *node, int64_t kernel[2], int64_t stride[2], int64_t padding[2]) {
  bnd_arg_pair(node, 1, 0, kernel);
  stride[0] = kernel[0], stride[1] = kernel[1];
  bnd_arg_ints(node, 2, stride, 2);
  bnd_arg_pair(node, 3, 0, padding);
}

/* max_pool2d(x, kernel, stride=[], padding=0, dilation=1, ceil_mode=False) */
bnd_status bnd_shape_max_pool(bnd_node *node, bnd_error *error) {
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  read_window(node, kernel, stride, padding);
  bnd_arg_pair(node, 4, 1, dilation);
  return pool(node, kernel, stride, padding, dilation, bnd_arg_bool(node, 5, false), error);
}

/* avg_pool2d(x, kernel, stride=[], padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None) */
bnd_status bnd_shape_avg_pool(bnd_node *node, bnd_error *error) {
  int64_t kernel[2], stride[2], padding[2];
  read_window(node, kernel, stride, padding);
  return pool(node, kernel, stride, padding, (int64_t[2]){1, 1}, bnd_arg_bool(node, 4, false), error);
}

bnd_status bnd_shape_avg_pool_module(bnd_node *node, bnd_error *error) {
  const bnd_module *m = node->module;
  if (!m) return bnd_fail_node(node, error, "the module is missing");
  return pool(node, m->kernel, m->stride, m->padding, (int64_t[2]){1, 1}, m->ceil_mode, error);
}

/* adaptive_avg_pool2d(x, output_size); None in the size keeps that side. */
bnd_status bnd_shape_adaptive_pool(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input_of_rank(node, 0, 4, &x, error));
  bnd_shape out = x->shape[0];
  const bnd_arg *size = node->arg_count > 1 ? &node->args[1] : NULL;
  if (size && size->kind == BND_ARG_LIST && size->list.count == 2) {
    for (int i = 0; i < 2; i++)
      if (size->list.items[i].kind == BND_ARG_INT) out.size[2 + i] = size->list.items[i].integer;
  } else if (bnd_arg_ints(node, 1, out.size + 2, 2) == 0) {
    return bnd_fail_node(node, error, "argument 1 is no output size");
  }
  if (out.size[2] < 1 || out.size[3] < 1) return bnd_fail_node(node, error, "the output size must be positive");
  return bnd_set_result(node, &out, x->dtype, error);
}

bnd_status bnd_shape_global_pool_module(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input_of_rank(node, 0, 4, &x, error));
  bnd_shape out = x->shape[0];
  out.size[2] = out.size[3] = 1;
  return bnd_set_result(node, &out, x->dtype, error);
}

/* mean.dim(x, dims, keepdim=False); no dims = all of them. */
bnd_status bnd_shape_mean(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  const bnd_shape *in = &x->shape[0];
  int64_t dims[BND_MAX_RANK] = {0};
  /* One integer fills every place: that repeats one dimension, which is harmless here. */
  const int given = bnd_arg_ints(node, 1, dims, BND_MAX_RANK);
  bool reduced[BND_MAX_RANK] = {false};
  if (given > BND_MAX_RANK) return bnd_fail_node(node, error, "more dimensions to reduce than a tensor can have");
  for (int i = 0; i < given; i++) {
    int d;
    BND_TRY(bnd_dimension(node, dims[i], in->rank, &d, error));
    reduced[d] = true;
  }
  const bool keep = bnd_arg_bool(node, 2, false);
  bnd_shape out = {0};
  for (int d = 0; d < in->rank; d++) {
    if (given && !reduced[d])
      out.size[out.rank++] = in->size[d];
    else if (keep)
      out.size[out.rank++] = 1;
  }
  return bnd_set_result(node, &out, x->dtype, error);
}

/* sum.default(x): everything, a scalar. */
bnd_status bnd_shape_sum(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  return bnd_set_result(node, &(bnd_shape){0}, x->dtype, error);
}
