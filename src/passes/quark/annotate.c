/* The annotators of Quark's processor_utils.py, in its order, and propagate_annotation. A pattern is taken only if none of its nodes is annotated
   already and none is outside the scope. */
#include "passes/quark/annotate.h"

#include <stdlib.h>

typedef struct annotator {
  bnd_graph *graph;
  bnd_annotation *of; /* by node id */
  const bnd_quantizer_spec *input, *output, *weight, *bias; /* NULL = the configuration leaves this role alone */
} annotator;

static bool is_free(const annotator *a, const bnd_node *node) { return !node || (!a->of[node->id].annotated && !node->skip); }

static void mark(annotator *a, const bnd_node *node) {
  if (node) a->of[node->id].annotated = true;
}

/* Lists an input edge; a second listing of the same input keeps the first's place. */
static void want_input(annotator *a, const bnd_node *node, bnd_node *input, const bnd_quantizer_spec *spec) {
  bnd_annotation *annotation = &a->of[node->id];
  if (!input || !spec) return;
  for (size_t i = 0; i < annotation->input_count; i++)
    if (annotation->inputs[i].input == input) {
      annotation->inputs[i].spec = spec;
      return;
    }
  if (!BND_GROW(annotation->inputs, annotation->input_capacity, annotation->input_count + 1)) {
    bnd_graph_out_of_memory(a->graph);
    return;
  }
  annotation->inputs[annotation->input_count++] = (bnd_annotated_input){input, spec};
}

static void want_all_inputs(annotator *a, const bnd_node *node) {
  for (int i = 0; i < node->arg_count; i++) want_input(a, node, bnd_arg_node(node, i), a->input);
}

static void want_output(annotator *a, const bnd_node *node) { a->of[node->id].output = a->output; }

/* The node an activation reads, if the two form a pattern: it has no other user. */
static bnd_node *fused_input(const bnd_node *activation) {
  bnd_node *input = bnd_is_activation(activation) ? bnd_arg_node(activation, 0) : NULL;
  return input && input->user_count == 1 ? input : NULL;
}

static void module_weights(annotator *a, const bnd_node *node) {
  a->of[node->id].weight = a->weight;
  a->of[node->id].bias = a->bias;
}

static void conv_module_and_activation(annotator *a, bnd_node *activation) {
  bnd_node *layer = fused_input(activation);
  if (!bnd_is_conv_module(layer) || !is_free(a, layer) || !is_free(a, activation)) return;
  want_input(a, layer, bnd_arg_node(layer, 0), a->input);
  module_weights(a, layer);
  want_output(a, activation);
  mark(a, layer);
  mark(a, activation);
}

static void function_inputs(annotator *a, const bnd_node *layer) {
  want_input(a, layer, bnd_arg_node(layer, 0), a->input);
  want_input(a, layer, bnd_arg_node(layer, 1), a->weight);
  want_input(a, layer, bnd_arg_node(layer, 2), a->bias);
  mark(a, layer);
  mark(a, bnd_arg_node(layer, 1)); /* so a second function with the same weight is left alone, as in the original */
  mark(a, bnd_arg_node(layer, 2));
}

static bool function_is_free(const annotator *a, const bnd_node *layer) {
  return is_free(a, layer) && is_free(a, bnd_arg_node(layer, 1)) && is_free(a, bnd_arg_node(layer, 2));
}

static void conv_function_and_activation(annotator *a, bnd_node *activation) {
  bnd_node *layer = fused_input(activation);
  if (!bnd_is_conv_function(layer) || !function_is_free(a, layer) || !is_free(a, activation)) return;
  function_inputs(a, layer);
  want_output(a, activation);
  mark(a, activation);
}

static void arithmetic_and_activation(annotator *a, bnd_node *activation) {
  bnd_node *arithmetic = fused_input(activation);
  if (!bnd_is_arithmetic(arithmetic) || !is_free(a, arithmetic) || !is_free(a, activation)) return;
  want_all_inputs(a, arithmetic);
  want_output(a, activation);
  mark(a, arithmetic);
  mark(a, activation);
}

static void conv_module(annotator *a, bnd_node *layer) {
  if (!bnd_is_conv_module(layer) || !is_free(a, layer)) return;
  want_input(a, layer, bnd_arg_node(layer, 0), a->input);
  module_weights(a, layer);
  want_output(a, layer);
  mark(a, layer);
}

static void conv_function(annotator *a, bnd_node *layer) {
  if (!bnd_is_conv_function(layer) || !function_is_free(a, layer)) return;
  function_inputs(a, layer);
  want_output(a, layer);
}

static void layer_norm(annotator *a, bnd_node *node) {
  bnd_node *weight = bnd_arg_node(node, 2), *bias = bnd_arg_node(node, 3);
  if (!bnd_node_is(node, BND_OP_LAYER_NORM)) return;
  if (!is_free(a, node) || (a->weight && !is_free(a, weight)) || (a->bias && !is_free(a, bias))) return;
  want_input(a, node, bnd_arg_node(node, 0), a->input);
  want_input(a, node, weight, a->weight);
  want_input(a, node, bias, a->bias);
  want_output(a, node);
  mark(a, node);
  if (a->weight) mark(a, weight);
  if (a->bias) mark(a, bias);
}

/* Input 0 and output. Without an input scheme of its own the input takes over what its producer's output has. */
static void single(annotator *a, bnd_node *node) {
  bnd_node *input = bnd_arg_node(node, 0);
  if (!input || !is_free(a, node)) return;
  want_input(a, node, input, a->input ? a->input : a->of[input->id].output);
  want_output(a, node);
  mark(a, node);
}

static void pool(annotator *a, bnd_node *node) {
  if (bnd_is_pool(node)) single(a, node);
}

static void arithmetic(annotator *a, bnd_node *node) {
  if (!bnd_is_arithmetic(node) || !is_free(a, node)) return;
  want_all_inputs(a, node);
  want_output(a, node);
  mark(a, node);
}

static void mean(annotator *a, bnd_node *node) {
  if (bnd_node_is(node, BND_OP_MEAN)) single(a, node);
}

static void sum(annotator *a, bnd_node *node) {
  if (bnd_node_is(node, BND_OP_SUM)) single(a, node);
}

static void activation(annotator *a, bnd_node *node) {
  if (bnd_is_activation(node)) single(a, node);
}

static void concat(annotator *a, bnd_node *node) {
  if (!bnd_is_concat(node) || !is_free(a, node) || node->args[0].kind != BND_ARG_LIST) return;
  for (int i = 0; i < node->args[0].list.count; i++)
    if (node->args[0].list.items[i].kind == BND_ARG_NODE) want_input(a, node, node->args[0].list.items[i].node, a->input);
  want_output(a, node);
  mark(a, node);
}

static void slice(annotator *a, bnd_node *node) {
  if (bnd_node_is(node, BND_OP_SLICE)) single(a, node);
}

static void shape_change(annotator *a, bnd_node *node) {
  if (bnd_is_shape_change(node)) single(a, node);
}

/* Nodes that only move values take over their input's quantizer: it goes behind them instead. */
static void propagate(annotator *a, bnd_node *node) {
  bnd_node *input = bnd_is_sharing(node) ? bnd_arg_node(node, 0) : NULL;
  if (!input || !a->of[input->id].annotated || !is_free(a, node)) return;
  a->of[node->id].output = a->of[input->id].output;
  a->of[input->id].output = NULL;
  mark(a, node);
}

bnd_status bnd_quark_annotate(bnd_graph *graph, const bnd_layer_config *config, bnd_annotation **annotations, bnd_error *error) {
  static void (*const annotators[])(annotator *, bnd_node *) = {
      conv_module_and_activation, conv_function_and_activation, arithmetic_and_activation, conv_module, conv_function, layer_norm, pool,
      arithmetic, mean, sum, activation, concat, slice, shape_change, propagate,
  };
  annotator a = {
      .graph = graph,
      .of = bnd_calloc((size_t)bnd_graph_id_limit(graph), sizeof *a.of),
      .input = config->input.present ? &config->input.spec : NULL,
      .output = config->output.present ? &config->output.spec : NULL,
      .weight = config->weight.present ? &config->weight.spec : NULL,
      .bias = config->bias.present ? &config->bias.spec : NULL,
  };
  if (!a.of) return bnd_fail_memory(error, "annotations");
  for (size_t i = 0; i < sizeof annotators / sizeof *annotators; i++)
    for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
      if (node->op) annotators[i](&a, node);
  const bnd_status status = bnd_graph_status(graph, error);
  if (status == BND_OK) *annotations = a.of;
  else bnd_annotations_free(a.of, (size_t)bnd_graph_id_limit(graph));
  return status;
}

void bnd_annotations_free(bnd_annotation *annotations, size_t count) {
  for (size_t i = 0; annotations && i < count; i++) free(annotations[i].inputs);
  free(annotations);
}
