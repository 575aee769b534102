/* From annotations to quantizers: one for each producer and data type, numbered by first appearance, in front of all users of the tensor. */
#include <stdlib.h>
#include <string.h>

#include "passes/quark/annotate.h"

typedef struct quantizer_group {
  bnd_node *producer;
  const bnd_quantizer_spec *spec; /* of the entry that came first */
} quantizer_group;

typedef struct group_list {
  quantizer_group *groups;
  size_t count, capacity;
  size_t *first_of; /* by producer id: index + 1 of its first group, 0 = none */
} group_list;

static bool add_entry(group_list *list, bnd_node *producer, const bnd_quantizer_spec *spec) {
  size_t index = list->first_of[producer->id];
  if (index)
    for (size_t i = index - 1; i < list->count; i++)
      if (list->groups[i].producer == producer && list->groups[i].spec->dtype == spec->dtype) return true;
  if (!BND_GROW(list->groups, list->capacity, list->count + 1)) return false;
  list->groups[list->count++] = (quantizer_group){producer, spec};
  if (!index) list->first_of[producer->id] = list->count;
  return true;
}

static bool collect_groups(bnd_graph *graph, const bnd_annotation *annotations, group_list *list) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const bnd_annotation *annotation = &annotations[node->id];
    for (size_t i = 0; i < annotation->input_count; i++)
      if (!add_entry(list, annotation->inputs[i].input, annotation->inputs[i].spec)) return false;
    if (annotation->output && !add_entry(list, node, annotation->output)) return false;
  }
  return true;
}

static bool insert_behind(bnd_node *producer, const bnd_quantizer_spec *spec, size_t number) {
  bnd_graph *graph = producer->graph;
  char *name = bnd_arena_format(bnd_graph_arena(graph), "fake_quantizer_%zu", number);
  bnd_module *module = name ? bnd_graph_add_module(graph, name) : NULL;
  if (!module || !(module->quantizer = bnd_quantizer_create(spec))) return false;
  bnd_node *node = bnd_insert_module(producer, producer, BND_OP_FAKE_QUANTIZE, module, producer, "insert quantizers");
  if (!node) return false;
  node->original_module = NULL;
  module->observed = producer->name;
  bnd_node_replace_all_uses(producer, node, true);
  return true;
}

static bool insert_in_modules(bnd_graph *graph, const bnd_annotation *annotations, int id_limit) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node) || node->id >= id_limit) continue;
    const bnd_annotation *annotation = &annotations[node->id];
    bnd_module *module = node->module;
    const bool has_bias = module->bias.data || module->has_batch_norm;
    if (annotation->weight && !module->weight_quantizer && !(module->weight_quantizer = bnd_quantizer_create(annotation->weight))) return false;
    if (annotation->bias && has_bias && !module->bias_quantizer && !(module->bias_quantizer = bnd_quantizer_create(annotation->bias))) return false;
  }
  return true;
}

bnd_status bnd_quark_insert_quantizers(bnd_graph *graph, const bnd_quantization_config *config, bnd_error *error) {
  const int id_limit = bnd_graph_id_limit(graph); /* insertion makes larger ids */
  bnd_annotation *annotations;
  BND_TRY(bnd_quark_annotate(graph, &config->global, &annotations, error));
  group_list list = {.first_of = bnd_calloc((size_t)id_limit, sizeof *list.first_of)};
  bool fine = list.first_of && collect_groups(graph, annotations, &list);
  for (size_t i = 0; fine && i < list.count; i++) fine = insert_behind(list.groups[i].producer, list.groups[i].spec, i);
  if (fine) bnd_graph_eliminate_dead_code(graph);
  fine = fine && insert_in_modules(graph, annotations, id_limit);
  free(list.groups);
  free(list.first_of);
  bnd_annotations_free(annotations, (size_t)id_limit);
  if (!fine) return bnd_fail_memory(error, "quantizers");
  return bnd_graph_verify(graph, error);
}
