/* B7-B11, and the order of all rewrites. */
#include <stdlib.h>
#include <string.h>

#include "passes/quark/rewrite.h"

/* --- B7: split -> one slice for each used result, each placed right behind the split's input --- */

/* Start and end of result `index`; false when the split's arguments cannot be read. */
static bool split_range(const bnd_node *split, int64_t index, int64_t *start, int64_t *end) {
  const bnd_node *input = bnd_arg_node(split, 0);
  const bnd_shape *shape = &input->shape[0];
  int64_t dim = bnd_arg_int(split, 2, 0);
  if (dim < 0) dim += shape->rank;
  if (dim < 0 || dim >= shape->rank || index < 0) return false;
  if (bnd_node_is(split, BND_OP_SPLIT)) {
    const int64_t size = bnd_arg_int(split, 1, 0);
    if (size <= 0) return false;
    *start = index * size;
    *end = *start + size < shape->size[dim] ? *start + size : shape->size[dim];
    return *start < *end;
  }
  if (split->arg_count < 2 || split->args[1].kind != BND_ARG_LIST || index >= split->args[1].list.count) return false;
  *start = 0;
  for (int64_t i = 0; i < index; i++) *start += split->args[1].list.items[i].integer;
  *end = *start + split->args[1].list.items[index].integer;
  return true;
}

static bnd_status split_to_slices(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *split = bnd_graph_first(graph); split; split = split->next) {
    if (!bnd_node_is(split, BND_OP_SPLIT) && !bnd_node_is(split, BND_OP_SPLIT_WITH_SIZES)) continue;
    bnd_node *input = bnd_arg_node(split, 0);
    for (int i = 0; i < split->user_count; i++) {
      bnd_node *result = split->users[i];
      int64_t start, end;
      if (!bnd_node_is(result, BND_OP_GETITEM) || !split_range(split, bnd_arg_int(result, 1, -1), &start, &end)) {
        free(doomed.nodes);
        return bnd_fail(error, BND_ERROR_UNSUPPORTED, "node %s: this kind of split cannot be turned into slices", split->name);
      }
      const bnd_arg args[] = {bnd_arg_of_node(input), bnd_arg_of_int(bnd_arg_int(split, 2, 0)), bnd_arg_of_int(start), bnd_arg_of_int(end)};
      bnd_node *slice = bnd_insert_function(input, result, BND_OP_SLICE, args, 4, "split to slices");
      if (!slice) break;
      bnd_node_replace_all_uses(result, slice, false);
      bnd_doom(&doomed, result);
    }
    bnd_doom(&doomed, split);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

/* B8. */
static bnd_status drop_idle_slices(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *slice = bnd_graph_first(graph); slice; slice = slice->next) {
    bnd_node *input = bnd_node_is(slice, BND_OP_SLICE) ? bnd_arg_node(slice, 0) : NULL;
    if (!input) continue;
    const bool everything = bnd_arg_int(slice, 2, 0) == 0 && bnd_arg_int(slice, 3, INT64_MAX) == INT64_MAX && bnd_arg_int(slice, 4, 1) == 1;
    if (!everything && !bnd_shape_equal(&input->shape[0], &slice->shape[0])) continue;
    bnd_node_replace_all_uses(slice, input, false);
    bnd_doom(&doomed, slice);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

/* "sigmoid_1" -> "hardsigmoid_1_replaced". Like the original this does not ask whether the name is free: it always is. */
static void rename_replaced(bnd_node *node, const char *from, const char *to) {
  bnd_arena *arena = bnd_graph_arena(node->graph);
  bnd_string name = {0};
  for (const char *at = node->name, *hit;; at = hit + strlen(from)) {
    hit = strstr(at, from);
    if (!hit) {
      bnd_string_format(&name, "%s_replaced", at);
      break;
    }
    bnd_string_append(&name, at, (size_t)(hit - at));
    bnd_string_format(&name, "%s", to);
  }
  const char *copy = name.failed ? NULL : bnd_arena_copy(arena, name.text);
  if (copy) node->name = copy;
  else bnd_graph_out_of_memory(node->graph);
  bnd_string_free(&name);
}

/* B9, B10. Quark does this to every such node, in scope or not. */
static bnd_status piecewise_linear(bnd_graph *graph, bool only_in_scope, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (only_in_scope && node->skip) continue;
    if (bnd_node_is(node, BND_OP_SIGMOID) || bnd_node_is(node, BND_OP_SIGMOID_)) {
      node->op = bnd_operator_of(BND_OP_HARDSIGMOID);
      node->changed_by = "sigmoid to hard sigmoid";
      rename_replaced(node, "sigmoid", "hardsigmoid");
    } else if (bnd_node_is(node, BND_OP_SILU) || bnd_node_is(node, BND_OP_SILU_)) {
      node->op = bnd_operator_of(BND_OP_HARDSWISH);
      node->changed_by = "silu to hard swish";
      rename_replaced(node, "silu", "hardswish");
    }
  }
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}

/* B11: the DPU multiplies by 26/256, whatever the network's slope. */
static bnd_status leaky_relu_to_module(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *relu = bnd_graph_first(graph); relu; relu = relu->next) {
    bnd_node *input = bnd_node_is(relu, BND_OP_LEAKY_RELU) || bnd_node_is(relu, BND_OP_LEAKY_RELU_) ? bnd_arg_node(relu, 0) : NULL;
    if (!input) continue;
    char *name = bnd_arena_format(bnd_graph_arena(graph), "%s_quantized_module", relu->name);
    bnd_module *module = name ? bnd_graph_add_module(graph, name) : NULL;
    bnd_node *call = module ? bnd_insert_module(input, relu, BND_OP_LEAKY_RELU_MODULE, module, input, "leaky relu to module") : NULL;
    if (!call) break;
    module->slope = 26.0 / 256.0;
    bnd_node_replace_all_uses(relu, call, false);
    bnd_doom(&doomed, relu);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

static bnd_status hardware_operators(bnd_graph *graph, bool only_in_scope, bnd_error *error) {
  BND_TRY(split_to_slices(graph, error));
  BND_TRY(drop_idle_slices(graph, error));
  BND_TRY(piecewise_linear(graph, only_in_scope, error));
  return leaky_relu_to_module(graph, error);
}

bnd_status bnd_quark_hardware_operators(bnd_graph *graph, bnd_error *error) { return hardware_operators(graph, false, error); }

static bnd_status prepare(bnd_graph *graph, bool only_in_scope, bnd_error *error) {
  BND_TRY(bnd_quark_functions_to_modules(graph, error));
  BND_TRY(bnd_quark_normalize(graph, error));
  BND_TRY(bnd_quark_split_shared_modules(graph, error));
  BND_TRY(bnd_quark_batch_norm_to_convolution(graph, error));
  BND_TRY(bnd_quark_pools(graph, error));
  BND_TRY(hardware_operators(graph, only_in_scope, error));
  return bnd_graph_verify(graph, error);
}

bnd_status bnd_quark_prepare(bnd_graph *graph, bnd_error *error) { return prepare(graph, false, error); }
bnd_status bnd_quark_prepare_scope(bnd_graph *graph, bnd_error *error) { return prepare(graph, true, error); }
