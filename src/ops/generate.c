/* Operators that make values: ranges, constants, grids, and regions whose results are known beforehand. */
#include "ops/rules.h"

/* The `dtype` keyword, or `otherwise`. */
static bnd_status keyword_dtype(const bnd_node *node, bnd_dtype otherwise, bnd_dtype *dtype, bnd_error *error) {
  const bnd_arg *value = bnd_node_keyword(node, "dtype");
  *dtype = otherwise;
  if (value && value->kind == BND_ARG_TEXT && !bnd_dtype_of_text(value->text, dtype))
    return bnd_fail_node(node, error, "%s is no data type known here", value->text);
  return BND_OK;
}

/* arange(end): 0, 1, .. below end. */
bnd_status bnd_shape_arange(bnd_node *node, bnd_error *error) {
  bnd_dtype dtype;
  BND_TRY(keyword_dtype(node, BND_I64, &dtype, error));
  const int64_t end = bnd_arg_int(node, 0, -1);
  if (end < 0) return bnd_fail_node(node, error, "argument 0 is no length");
  return bnd_set_result(node, &BND_SHAPE(end), dtype, error);
}

/* full(shape, value) */
bnd_status bnd_shape_full(bnd_node *node, bnd_error *error) {
  bnd_dtype dtype;
  BND_TRY(keyword_dtype(node, BND_F32, &dtype, error));
  bnd_shape out = {0};
  if (node->arg_count < 2 || node->args[0].kind != BND_ARG_LIST || node->args[0].list.count > BND_MAX_RANK)
    return bnd_fail_node(node, error, "argument 0 is no shape");
  out.rank = bnd_arg_ints(node, 0, out.size, BND_MAX_RANK);
  return bnd_set_result(node, &out, dtype, error);
}

/* meshgrid([a, b, ..], indexing="ij"): as many results as inputs, each of shape [len a, len b, ..]. */
bnd_status bnd_shape_meshgrid(bnd_node *node, bnd_error *error) {
  if (node->arg_count < 1 || node->args[0].kind != BND_ARG_LIST || node->args[0].list.count < 1 || node->args[0].list.count > BND_MAX_RESULTS)
    return bnd_fail_node(node, error, "argument 0 must be a list of 1 to %d tensors", BND_MAX_RESULTS);
  bnd_shape out = {.rank = node->args[0].list.count};
  for (int i = 0; i < out.rank; i++) {
    const bnd_arg *arg = &node->args[0].list.items[i];
    if (arg->kind != BND_ARG_NODE || arg->node->result_count != 1 || arg->node->shape[0].rank > 1)
      return bnd_fail_node(node, error, "element %d of the list is not a vector", i);
    out.size[i] = arg->node->shape[0].rank ? arg->node->shape[0].size[0] : 1;
    BND_TRY(bnd_set_result(node, &out, arg->node->dtype, error));
  }
  node->result_count = out.rank;
  for (int i = 0; i < out.rank; i++) node->shape[i] = out;
  return BND_OK;
}

/* wrap_with_set_grad_enabled(False, submodule): computed beforehand. Result i is the graph's attribute "<submodule>.<i>". */
bnd_status bnd_region_result(const bnd_node *region, int result, const bnd_attribute **attribute, bnd_error *error) {
  const bnd_node *submodule = bnd_arg_node(region, 1);
  *attribute = NULL;
  if (!submodule || submodule->kind != BND_GET_ATTR) return BND_OK;
  bnd_string name = {0};
  bnd_string_format(&name, "%s.%d", submodule->target, result);
  const bnd_status status = name.failed ? bnd_fail_memory(error, "a name") : BND_OK;
  if (status == BND_OK) *attribute = bnd_graph_attribute(region->graph, name.text);
  bnd_string_free(&name);
  return status;
}

bnd_status bnd_shape_no_grad_region(bnd_node *node, bnd_error *error) {
  const bnd_node *submodule = bnd_arg_node(node, 1);
  if (!submodule || submodule->kind != BND_GET_ATTR) return bnd_fail_node(node, error, "argument 1 names no sub-graph");
  node->result_count = 0;
  for (int i = 0; i < BND_MAX_RESULTS; i++) {
    const bnd_attribute *attribute;
    BND_TRY(bnd_region_result(node, i, &attribute, error));
    if (!attribute) break;
    node->shape[i] = attribute->tensor.shape;
    node->dtype = attribute->tensor.dtype;
    node->result_count = i + 1;
  }
  return node->result_count > 0 ? BND_OK : bnd_fail_node(node, error, "the results of %s are missing", submodule->target);
}
