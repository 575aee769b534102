/* A7-A9, B1, B2. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/quark/rewrite.h"

/* A7: [25, 80, 6400] -> [-1, 80, 6400], so that the graph runs at other batch sizes. */
static bnd_status free_batch_size(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_node_is(node, BND_OP_RESHAPE) || node->arg_count < 2 || node->args[1].kind != BND_ARG_LIST || node->args[1].list.count == 0) continue;
    const bnd_arg shape = bnd_graph_list(graph, node->args[1].list.items, node->args[1].list.count);
    bool has_free = false;
    for (int i = 0; i < shape.list.count; i++) has_free |= shape.list.items[i].kind == BND_ARG_INT && shape.list.items[i].integer == -1;
    if (has_free || shape.list.count == 0) continue;
    shape.list.items[0] = bnd_arg_of_int(-1);
    bnd_node_set_arg(node, 1, shape);
  }
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}

static bnd_node *scalar_constant(bnd_node *consumer, double value) {
  bnd_graph *graph = consumer->graph;
  const char *name = NULL;
  for (int number = 0; !name || bnd_graph_attribute(graph, name); number++) {
    name = bnd_arena_format(bnd_graph_arena(graph), "_tensor_constant_%d", number);
    if (!name) return NULL;
  }
  bnd_tensor tensor;
  if (bnd_tensor_create(BND_F32, &(bnd_shape){.rank = 0}, &tensor, NULL) != BND_OK) return NULL;
  *bnd_f32(&tensor) = (float)value;
  if (bnd_graph_set_attribute(graph, name, &tensor, false, NULL) != BND_OK) return NULL;
  bnd_node *node = bnd_graph_get_attr(graph, name, name);
  if (!node) return NULL;
  bnd_node_move_before(node, consumer);
  bnd_node_copy_meta(node, consumer);
  node->changed_by = "scalar to tensor";
  return node;
}

/* A8. */
static bnd_status scalars_to_tensors(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_arithmetic(node)) continue;
    for (int i = 0; i < node->arg_count; i++) {
      if (node->args[i].kind != BND_ARG_INT && node->args[i].kind != BND_ARG_FLOAT) continue;
      bnd_node *constant = scalar_constant(node, bnd_arg_float(node, i, 0));
      if (!constant) return bnd_fail_memory(error, "a constant");
      bnd_node_set_arg(node, i, bnd_arg_of_node(constant));
    }
  }
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}

/* A9: silu(x) = sigmoid(x) * x. */
static bnd_status expand_silu(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *silu = bnd_graph_first(graph); silu; silu = silu->next) {
    if (!bnd_node_is(silu, BND_OP_SILU) && !bnd_node_is(silu, BND_OP_SILU_)) continue;
    bnd_node *input = bnd_arg_node(silu, 0);
    const bnd_arg x = bnd_arg_of_node(input);
    bnd_node *sigmoid = bnd_insert_function(input, silu, BND_OP_SIGMOID, &x, 1, "silu to sigmoid and mul");
    if (!sigmoid) break;
    const bnd_arg factors[] = {bnd_arg_of_node(sigmoid), x};
    bnd_node *mul = bnd_insert_function(silu, silu, BND_OP_MUL, factors, 2, "silu to sigmoid and mul");
    if (!mul) break;
    bnd_node_replace_all_uses(silu, mul, false);
    bnd_doom(&doomed, silu);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

bnd_status bnd_quark_normalize(bnd_graph *graph, bnd_error *error) {
  BND_TRY(free_batch_size(graph, error));
  BND_TRY(scalars_to_tensors(graph, error));
  return expand_silu(graph, error);
}

/* --- B1 --- */

static bnd_module *copied_module(bnd_graph *graph, const bnd_module *from) {
  const char *name = NULL;
  for (int number = 1; !name || bnd_graph_find_module(graph, name); number++) {
    name = bnd_arena_format(bnd_graph_arena(graph), "%s_sp_%d", from->name, number);
    if (!name) return NULL;
  }
  bnd_module *to = bnd_graph_add_module(graph, name);
  if (to) bnd_module_share(to, from); /* quantizers come later in the flow */
  return to;
}

static bool called_before(const bnd_node *node) {
  for (const bnd_node *other = node->previous; other; other = other->previous)
    if (other->kind == BND_CALL_MODULE && other->module == node->module) return true;
  return false;
}

bnd_status bnd_quark_split_shared_modules(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node) || !called_before(node)) continue;
    bnd_module *copy = copied_module(graph, node->module);
    if (!copy) return bnd_fail_memory(error, "a module");
    node->module = copy;
    node->target = copy->name;
  }
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}

/* --- B2 --- */

/* w = gamma * rsqrt(var + eps), b = -mean * rsqrt(var + eps) * gamma + beta, in float32 and this order. */
static bnd_status depthwise_weights(const bnd_node *norm, bnd_module *module, bnd_error *error) {
  const bnd_attribute *gamma = bnd_attribute_of(bnd_arg_node(norm, 1), true), *beta = bnd_attribute_of(bnd_arg_node(norm, 2), true);
  const bnd_attribute *mean = bnd_attribute_of(bnd_arg_node(norm, 3), false), *variance = bnd_attribute_of(bnd_arg_node(norm, 4), false);
  if (!gamma || !beta || !mean || !variance)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "node %s: a batch norm without learned scale and shift cannot become a convolution", norm->name);
  const int64_t channels = (int64_t)gamma->tensor.count;
  const float epsilon = (float)bnd_arg_float(norm, 7, 1e-5);
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE(channels, 1, 1, 1), &module->weight, error));
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE(channels), &module->bias, error));
  for (int64_t c = 0; c < channels; c++) {
    const float reciprocal = 1.f / sqrtf(bnd_f32(&variance->tensor)[c] + epsilon);
    bnd_f32(&module->weight)[c] = bnd_f32(&gamma->tensor)[c] * reciprocal;
    bnd_f32(&module->bias)[c] = -bnd_f32(&mean->tensor)[c] * reciprocal * bnd_f32(&gamma->tensor)[c] + bnd_f32(&beta->tensor)[c];
  }
  module->groups = channels;
  return BND_OK;
}

bnd_status bnd_quark_batch_norm_to_convolution(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  bnd_status status = BND_OK;
  for (bnd_node *norm = bnd_graph_first(graph); norm && status == BND_OK; norm = norm->next) {
    if (!bnd_node_is(norm, BND_OP_BATCH_NORM) || norm->shape[0].rank != 4) continue;
    char *name = bnd_arena_format(bnd_graph_arena(graph), "QuantConv2d_cvt_from_%s", norm->name);
    bnd_module *module = name ? bnd_graph_add_module(graph, name) : NULL;
    if (!module) {
      status = bnd_fail_memory(error, "a module");
      break;
    }
    status = depthwise_weights(norm, module, error);
    bnd_node *input = bnd_arg_node(norm, 0);
    bnd_node *call = status == BND_OK ? bnd_insert_module(input, norm, BND_OP_CONV2D_MODULE, module, input, "batch norm to convolution") : NULL;
    if (!call) break;
    bnd_node_replace_all_uses(norm, call, false);
    bnd_doom(&doomed, norm);
  }
  const bnd_status swept = bnd_finish_sweep(graph, &doomed, error);
  return status != BND_OK ? status : swept;
}
