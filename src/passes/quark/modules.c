/* A1-A6: functional layers become modules, with a batch norm behind them taken in. Calls that use the same parameters share one module (B1 parts them). */
#include <stdlib.h>
#include <string.h>

#include "passes/quark/rewrite.h"

/* The nodes that hold a layer's parameters. */
typedef struct layer_parameters {
  bnd_node *weight, *bias;                     /* bias may be NULL */
  bnd_node *bn_weight, *bn_bias, *mean, *variance; /* NULL without batch norm */
} layer_parameters;

/* Modules made so far, by what they were made of. */
typedef struct known_modules {
  struct {
    layer_parameters parameters;
    bnd_module *module;
  } *entries;
  size_t count, capacity;
} known_modules;

static bool same_target(const bnd_node *a, const bnd_node *b) { return (!a && !b) || (a && b && strcmp(a->target, b->target) == 0); }

static bnd_module *find_module(const known_modules *known, const layer_parameters *p) {
  for (size_t i = 0; i < known->count; i++) {
    const layer_parameters *q = &known->entries[i].parameters;
    if (same_target(p->weight, q->weight) && same_target(p->bias, q->bias) && same_target(p->bn_weight, q->bn_weight) &&
        same_target(p->bn_bias, q->bn_bias) && same_target(p->mean, q->mean) && same_target(p->variance, q->variance))
      return known->entries[i].module;
  }
  return NULL;
}

static bnd_tensor shared(const bnd_node *node) {
  const bnd_attribute *attribute = bnd_attribute_of(node, false);
  return attribute ? bnd_tensor_share(&attribute->tensor, NULL) : (bnd_tensor){0};
}

/* Weight and bias must be parameters, not buffers or computed values. */
static bool read_layer(const bnd_node *layer, layer_parameters *p) {
  *p = (layer_parameters){.weight = bnd_arg_node(layer, 1), .bias = bnd_arg_node(layer, 2)};
  return bnd_attribute_of(p->weight, true) && (!p->bias || bnd_attribute_of(p->bias, true));
}

static bool read_batch_norm(const bnd_node *norm, layer_parameters *p) {
  p->bn_weight = bnd_arg_node(norm, 1);
  p->bn_bias = bnd_arg_node(norm, 2);
  p->mean = bnd_arg_node(norm, 3);
  p->variance = bnd_arg_node(norm, 4);
  return bnd_attribute_of(p->bn_weight, true) && bnd_attribute_of(p->bn_bias, true) && bnd_attribute_of(p->mean, false) &&
         bnd_attribute_of(p->variance, false);
}

static void read_geometry(const bnd_node *layer, bnd_module *module) {
  const bool transposed = bnd_node_is(layer, BND_OP_CONV_TRANSPOSE2D);
  if (bnd_node_is(layer, BND_OP_LINEAR)) return;
  bnd_arg_pair(layer, 3, 1, module->stride);
  bnd_arg_pair(layer, 4, 0, module->padding);
  if (transposed) bnd_arg_pair(layer, 5, 0, module->output_padding);
  module->groups = bnd_arg_int(layer, 6, 1);
  bnd_arg_pair(layer, transposed ? 7 : 5, 1, module->dilation);
}

static bnd_module *make_module(bnd_graph *graph, known_modules *known, const bnd_node *layer, const bnd_node *norm, const layer_parameters *p,
                               const char *suffix) {
  char *name = bnd_arena_format(bnd_graph_arena(graph), "%s%s", layer->name, suffix);
  bnd_module *module = name ? bnd_graph_add_module(graph, name) : NULL;
  if (!module || !BND_GROW(known->entries, known->capacity, known->count + 1)) {
    bnd_graph_out_of_memory(graph);
    return NULL;
  }
  known->entries[known->count].parameters = *p;
  known->entries[known->count++].module = module;
  module->weight = shared(p->weight);
  if (p->bias) module->bias = shared(p->bias);
  read_geometry(layer, module);
  if (norm) {
    module->has_batch_norm = true;
    module->bn_weight = shared(p->bn_weight);
    module->bn_bias = shared(p->bn_bias);
    module->bn_running_mean = shared(p->mean);
    module->bn_running_var = shared(p->variance);
    module->bn_momentum = bnd_arg_float(norm, 6, 0.1);
    module->bn_epsilon = bnd_arg_float(norm, 7, 1e-5);
  }
  return module;
}

/* A1, A2. The batch norm of a grouped transposed convolution is left for B2. */
static bnd_status convolution_and_batch_norm(bnd_graph *graph, bnd_operator_id layer_id, bnd_operator_id module_id, bnd_error *error) {
  known_modules known = {0};
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *norm = bnd_graph_first(graph); norm; norm = norm->next) {
    bnd_node *layer = bnd_node_is(norm, BND_OP_BATCH_NORM) ? bnd_arg_node(norm, 0) : NULL;
    layer_parameters p;
    if (!bnd_node_is(layer, layer_id) || layer->user_count > 1 || !read_layer(layer, &p) || !read_batch_norm(norm, &p)) continue;
    if (layer_id == BND_OP_CONV_TRANSPOSE2D && bnd_arg_int(layer, 6, 1) != 1) continue;
    bnd_module *module = find_module(&known, &p);
    if (!module) module = make_module(graph, &known, layer, norm, &p, "_bn_quantized_module");
    bnd_node *input = bnd_arg_node(layer, 0);
    bnd_node *call = module ? bnd_insert_module(input, layer, module_id, module, input, "batch norm into convolution") : NULL;
    if (!call) break;
    call->shape[0] = norm->shape[0];
    call->original_module = layer->scope && norm->scope && layer_id == BND_OP_CONV2D
                                ? bnd_arena_format(bnd_graph_arena(graph), "%s_%s", layer->scope, norm->scope)
                                : NULL;
    bnd_node_replace_all_uses(norm, call, false);
    bnd_doom(&doomed, norm);
    bnd_doom(&doomed, layer);
  }
  free(known.entries);
  return bnd_finish_sweep(graph, &doomed, error);
}

/* A4, A5, A6. */
static bnd_status lone_layers(bnd_graph *graph, bnd_operator_id layer_id, bnd_operator_id module_id, const char *suffix, bnd_error *error) {
  known_modules known = {0};
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *layer = bnd_graph_first(graph); layer; layer = layer->next) {
    layer_parameters p;
    if (!bnd_node_is(layer, layer_id) || !read_layer(layer, &p)) continue;
    bnd_module *module = find_module(&known, &p);
    if (!module) module = make_module(graph, &known, layer, NULL, &p, suffix);
    bnd_node *input = bnd_arg_node(layer, 0);
    bnd_node *call = module ? bnd_insert_module(input, layer, module_id, module, input, "function to module") : NULL;
    if (!call) break;
    call->original_module = layer_id == BND_OP_CONV_TRANSPOSE2D ? NULL : layer->scope;
    bnd_node_replace_all_uses(layer, call, false);
    bnd_doom(&doomed, layer);
  }
  free(known.entries);
  return bnd_finish_sweep(graph, &doomed, error);
}

bnd_status bnd_quark_functions_to_modules(bnd_graph *graph, bnd_error *error) {
  BND_TRY(convolution_and_batch_norm(graph, BND_OP_CONV2D, BND_OP_CONV2D_BN_MODULE, error));
  BND_TRY(convolution_and_batch_norm(graph, BND_OP_CONV_TRANSPOSE2D, BND_OP_CONV_TRANSPOSE2D_BN_MODULE, error));
  BND_TRY(bnd_quark_batch_norm_after_concat(graph, error));
  BND_TRY(lone_layers(graph, BND_OP_LINEAR, BND_OP_LINEAR_MODULE, "_quantized_module", error));
  BND_TRY(lone_layers(graph, BND_OP_CONV2D, BND_OP_CONV2D_MODULE, "_quantized_module", error));
  return lone_layers(graph, BND_OP_CONV_TRANSPOSE2D, BND_OP_CONV_TRANSPOSE2D_MODULE, "_quantized_model", error);
}

/* --- A3 --- */

static bool foldable_concat(const bnd_node *cat) {
  if (!bnd_is_concat(cat) || cat->args[0].kind != BND_ARG_LIST) return false;
  for (int i = 0; i < cat->args[0].list.count; i++) {
    const bnd_arg *item = &cat->args[0].list.items[i];
    layer_parameters p;
    if (item->kind != BND_ARG_NODE || item->node->user_count > 1) return false;
    const bool transposed = bnd_node_is(item->node, BND_OP_CONV_TRANSPOSE2D);
    if (!transposed && !bnd_node_is(item->node, BND_OP_CONV2D)) return false;
    if (transposed && bnd_arg_int(item->node, 6, 1) != 1) return false;
    if (!read_layer(item->node, &p)) return false;
  }
  return true;
}

/* Elements [from, to) of a vector as a tensor of its own. */
static bool cut(const bnd_tensor *vector, int64_t from, int64_t to, bnd_tensor *part) {
  if (from < 0 || to > (int64_t)vector->count || bnd_tensor_create(BND_F32, &BND_SHAPE(to - from), part, NULL) != BND_OK) return false;
  memcpy(part->data, bnd_f32(vector) + from, (size_t)(to - from) * sizeof(float));
  return true;
}

static bool take_range(bnd_module *module, int64_t from, int64_t to) {
  bnd_tensor *vectors[] = {&module->bn_weight, &module->bn_bias, &module->bn_running_mean, &module->bn_running_var};
  for (size_t i = 0; i < 4; i++) {
    bnd_tensor part;
    if (!cut(vectors[i], from, to, &part)) return false;
    bnd_tensor_release(vectors[i]);
    *vectors[i] = part;
  }
  return true;
}

bnd_status bnd_quark_batch_norm_after_concat(bnd_graph *graph, bnd_error *error) {
  known_modules known = {0};
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *norm = bnd_graph_first(graph); norm; norm = norm->next) {
    bnd_node *cat = bnd_node_is(norm, BND_OP_BATCH_NORM) ? bnd_arg_node(norm, 0) : NULL;
    layer_parameters p;
    if (!cat || !foldable_concat(cat) || !read_batch_norm(norm, &p)) continue;
    int64_t from = 0;
    const bnd_arg inputs = cat->args[0];
    for (int i = 0; i < inputs.list.count; i++) {
      bnd_node *layer = inputs.list.items[i].node;
      const bool transposed = bnd_node_is(layer, BND_OP_CONV_TRANSPOSE2D);
      read_layer(layer, &p);
      read_batch_norm(norm, &p);
      bnd_module *module = find_module(&known, &p);
      if (!module) {
        module = make_module(graph, &known, layer, norm, &p, "_bn_quantized_module");
        const int64_t channels = module ? module->weight.shape.size[transposed ? 1 : 0] : 0;
        if (!module || !take_range(module, from, from + channels)) {
          bnd_graph_out_of_memory(graph);
          break;
        }
        from += channels;
      }
      bnd_node *input = bnd_arg_node(layer, 0);
      bnd_node *call = bnd_insert_module(input, layer, transposed ? BND_OP_CONV_TRANSPOSE2D_BN_MODULE : BND_OP_CONV2D_BN_MODULE, module, input,
                                         "batch norm behind concat into convolutions");
      if (!call) break;
      bnd_node_replace_all_uses(layer, call, false);
      bnd_doom(&doomed, layer);
    }
    bnd_node_replace_all_uses(norm, cat, false);
    bnd_doom(&doomed, norm);
  }
  free(known.entries);
  return bnd_finish_sweep(graph, &doomed, error);
}
