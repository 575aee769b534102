/* fx-quantization 8.3: compilers for the NPU want every consumer of a quantized tensor to read a pair of its own. */
#include <stdlib.h>
#include <string.h>

#include "export/exporter.h"

/* A DequantizeLinear and the QuantizeLinear it reads. */
typedef struct pair {
  const Onnx__NodeProto *quantize, *dequantize;
  int uses; /* consumers met so far; an output of the file counts as one */
} pair;

/* The node list as it grows anew, copies standing right before the consumer they are for. */
typedef struct node_list {
  Onnx__NodeProto **nodes;
  size_t count, capacity;
} node_list;

static bool append(node_list *list, Onnx__NodeProto *node) {
  if (!node || !BND_GROW(list->nodes, list->capacity, list->count + 1)) return false;
  list->nodes[list->count++] = node;
  return true;
}

/* A copy named "<name>_sp_<index>" that puts out "<output>_sp_<index>". */
static Onnx__NodeProto *copy_node(bnd_onnx_builder *builder, const Onnx__NodeProto *node, int index) {
  Onnx__NodeProto *copy = bnd_arena_alloc(builder->arena, 1, sizeof *copy);
  char **names = bnd_arena_alloc(builder->arena, node->n_input + 1, sizeof *names);
  const char *name = bnd_onnx_node_name(builder, bnd_onnx_format(builder, "%s_sp_%d", node->name, index));
  const char *output = bnd_onnx_value_name(builder, bnd_onnx_format(builder, "%s_sp_%d", node->output[0], index));
  if (!copy || !names || !name || !output) return NULL;
  *copy = *node;
  memcpy(names, node->input, node->n_input * sizeof *names);
  names[node->n_input] = (char *)output;
  copy->input = names;
  copy->output = &names[node->n_input];
  copy->name = (char *)name;
  copy->doc_string = NULL;
  return copy;
}

static bool redirect_inputs(bnd_onnx_builder *builder, const bnd_map *index, pair *pairs, Onnx__NodeProto *consumer, node_list *list) {
  for (size_t i = 0; i < consumer->n_input; i++) {
    size_t at;
    if (!bnd_map_get(index, consumer->input[i], &at)) continue;
    pair *shared = &pairs[at];
    if (shared->uses++ == 0) continue; /* the first one keeps the original */
    Onnx__NodeProto *quantize = copy_node(builder, shared->quantize, shared->uses - 1);
    Onnx__NodeProto *dequantize = quantize ? copy_node(builder, shared->dequantize, shared->uses - 1) : NULL;
    if (!dequantize || !append(list, quantize) || !append(list, dequantize)) return false;
    dequantize->input[0] = quantize->output[0];
    consumer->input[i] = dequantize->output[0];
  }
  return true;
}

bnd_status bnd_export_dedicate_pairs(bnd_onnx_builder *builder, bnd_error *error) {
  Onnx__GraphProto *graph = &builder->graph;
  pair *pairs = bnd_calloc(graph->n_node, sizeof *pairs);
  bnd_map producers = {0}, index = {0}; /* value -> QuantizeLinear that makes it; value -> pair */
  node_list list = {0};
  size_t pair_count = 0;
  bool fine = pairs != NULL;
  for (size_t i = 0; fine && i < graph->n_node; i++) {
    const Onnx__NodeProto *node = graph->node[i];
    size_t quantize;
    if (strcmp(node->op_type, "QuantizeLinear") == 0) fine = bnd_map_put(&producers, node->output[0], i);
    if (strcmp(node->op_type, "DequantizeLinear") != 0 || !bnd_map_get(&producers, node->input[0], &quantize)) continue;
    pairs[pair_count] = (pair){.quantize = graph->node[quantize], .dequantize = node};
    fine = bnd_map_put(&index, node->output[0], pair_count++);
  }
  size_t at;
  for (size_t i = 0; fine && i < graph->n_output; i++)
    if (bnd_map_get(&index, graph->output[i]->name, &at)) pairs[at].uses++;
  for (size_t i = 0; fine && i < graph->n_node; i++)
    fine = redirect_inputs(builder, &index, pairs, graph->node[i], &list) && append(&list, graph->node[i]);
  if (fine) {
    free(graph->node);
    graph->node = list.nodes;
    graph->n_node = list.count;
    builder->node_capacity = list.capacity;
  } else {
    free(list.nodes);
  }
  free(pairs);
  bnd_map_free(&producers);
  bnd_map_free(&index);
  return fine ? BND_OK : bnd_fail_memory(error, "the dedicated pairs");
}
