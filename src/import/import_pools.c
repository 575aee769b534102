/* Pools, reductions, and the padding that windows share. */
#include <string.h>

#include "import/importer.h"

bnd_status bnd_import_padding(const Onnx__NodeProto *proto, const bnd_shape *input, const int64_t kernel[2], const int64_t stride[2],
                              const int64_t dilation[2], int64_t padding[2], bnd_error *error) {
  int64_t pads[4] = {0};
  if (bnd_import_text_is(proto, "auto_pad", "SAME_UPPER", false) || bnd_import_text_is(proto, "auto_pad", "SAME_LOWER", false)) {
    for (int i = 0; i < 2; i++) { /* as many windows as strides fit, rounded up */
      if (stride[i] < 1) return bnd_fail(error, BND_ERROR_FORMAT, "a stride of %lld makes no sense", (long long)stride[i]);
      const int64_t size = input->size[2 + i], windows = (size + stride[i] - 1) / stride[i];
      const int64_t total = (windows - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - size;
      pads[i] = total > 0 ? total / 2 : 0;
      pads[2 + i] = total > 0 ? total - pads[i] : 0;
    }
  } else if (bnd_import_text_is(proto, "auto_pad", "NOTSET", true)) {
    const int count = bnd_import_int_list(proto, "pads", pads, 4);
    if (count != 0 && count != 4) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "attribute pads must have four numbers: only images are supported");
  } else if (!bnd_import_text_is(proto, "auto_pad", "VALID", false)) {
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its auto_pad is not known");
  }
  for (int i = 0; i < 2; i++) {
    if (pads[i] < 0 || pads[i] > (1 << 20)) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "a padding of %lld is not supported", (long long)pads[i]);
    if (pads[i] != pads[2 + i])
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "pads %lld before and %lld behind; only the same padding on both sides is supported",
                      (long long)pads[i], (long long)pads[2 + i]);
    padding[i] = pads[i];
  }
  return BND_OK;
}

typedef struct pool_window {
  int64_t kernel[2], stride[2], dilation[2], padding[2];
} pool_window;

static bnd_status read_window(const Onnx__NodeProto *proto, const bnd_shape *input, pool_window *window, bnd_error *error) {
  const char *const names[] = {"kernel_shape", "strides", "dilations"};
  int64_t *const pairs[] = {window->kernel, window->stride, window->dilation};
  if (input->rank != 4) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "pools a tensor of %d dimensions; only images (4) are supported", input->rank);
  for (int i = 0; i < 3; i++) {
    pairs[i][0] = pairs[i][1] = 1;
    const int count = bnd_import_int_list(proto, names[i], pairs[i], 2);
    if (count != 2 && (count != 0 || i == 0)) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "attribute %s must have two numbers", names[i]);
    for (int k = 0; k < 2; k++)
      if (pairs[i][k] < 1 || pairs[i][k] > (1 << 20))
        return bnd_fail(error, BND_ERROR_FORMAT, "attribute %s: %lld makes no sense", names[i], (long long)pairs[i][k]);
  }
  return bnd_import_padding(proto, input, window->kernel, window->stride, window->dilation, window->padding, error);
}

bnd_status bnd_import_max_pool(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  pool_window window;
  bnd_graph *graph = importer->graph;
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  BND_TRY(read_window(proto, &x->shape[0], &window, error));
  if (proto->n_output > 1 && *proto->output[1]) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its indices are not supported");
  const bnd_arg args[] = {bnd_arg_of_node(x),
                          bnd_graph_int_list(graph, window.kernel, 2),
                          bnd_graph_int_list(graph, window.stride, 2),
                          bnd_graph_int_list(graph, window.padding, 2),
                          bnd_graph_int_list(graph, window.dilation, 2),
                          bnd_arg_of_bool(bnd_import_int(proto, "ceil_mode", 0) != 0)};
  return bnd_import_result(importer, proto, BND_OP_MAX_POOL2D, args, 6, error);
}

bnd_status bnd_import_average_pool(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  pool_window window;
  bnd_graph *graph = importer->graph;
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  BND_TRY(read_window(proto, &x->shape[0], &window, error));
  if (window.dilation[0] != 1 || window.dilation[1] != 1) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "dilated averages are not supported");
  const bnd_arg args[] = {bnd_arg_of_node(x),
                          bnd_graph_int_list(graph, window.kernel, 2),
                          bnd_graph_int_list(graph, window.stride, 2),
                          bnd_graph_int_list(graph, window.padding, 2),
                          bnd_arg_of_bool(bnd_import_int(proto, "ceil_mode", 0) != 0),
                          bnd_arg_of_bool(bnd_import_int(proto, "count_include_pad", 0) != 0)};
  return bnd_import_result(importer, proto, BND_OP_AVG_POOL2D, args, 6, error);
}

bnd_status bnd_import_global_pool(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  if (x->shape[0].rank != 4)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "pools a tensor of %d dimensions; only images (4) are supported", x->shape[0].rank);
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(importer->graph, (const int64_t[]){1, 1}, 2)};
  return bnd_import_result(importer, proto, BND_OP_ADAPTIVE_AVG_POOL2D, args, 2, error);
}

bnd_status bnd_import_scaled_pool(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_node *pool, double factor, bool *done, bnd_error *error) {
  const bool global = bnd_node_is(pool, BND_OP_ADAPTIVE_AVG_POOL2D);
  *done = pool->user_count == 0 && (global || bnd_node_is(pool, BND_OP_AVG_POOL2D));
  if (!*done) return BND_OK;
  const char *name = bnd_import_name(importer, proto);
  bnd_module *module = name ? bnd_graph_add_module(importer->graph, name) : NULL;
  if (!module) return bnd_fail_memory(error, "a pool");
  module->scale = factor;
  module->groups = 1;
  if (!global) {
    bnd_arg_pair(pool, 1, 1, module->kernel);
    bnd_arg_pair(pool, 2, 1, module->stride);
    bnd_arg_pair(pool, 3, 0, module->padding);
    module->ceil_mode = bnd_arg_bool(pool, 4, false);
    module->count_include_pad = bnd_arg_bool(pool, 5, true);
  }
  bnd_node *node = NULL;
  const bnd_arg input = bnd_arg_of_node(bnd_arg_node(pool, 0));
  BND_TRY(bnd_import_call(importer, proto, global ? BND_OP_GLOBAL_AVG_POOL2D_MODULE : BND_OP_AVG_POOL2D_MODULE, module, &input, 1, &node, error));
  bnd_node_erase(pool);
  return bnd_import_add_node(importer, proto->output[0], node, error);
}

bnd_status bnd_import_reduce(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  int64_t axes[BND_MAX_RANK];
  int count;
  const bool mean = strcmp(proto->op_type, "ReduceMean") == 0, keep = bnd_import_int(proto, "keepdims", 1) != 0;
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  BND_TRY(bnd_import_axes(importer, proto, "axes", 1, axes, &count, error));
  if (count == 0 && bnd_import_int(proto, "noop_with_empty_axes", 0)) return bnd_import_add_node(importer, proto->output[0], x, error);
  if (count == 0)
    for (; count < x->shape[0].rank; count++) axes[count] = count;
  if (mean) {
    const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(importer->graph, axes, count), bnd_arg_of_bool(keep)};
    return bnd_import_result(importer, proto, BND_OP_MEAN, args, 3, error);
  }
  if (keep || count != x->shape[0].rank) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "only sums over all elements are supported");
  return bnd_import_result(importer, proto, BND_OP_SUM, (const bnd_arg[]){bnd_arg_of_node(x)}, 1, error);
}
