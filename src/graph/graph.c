#include "graph/graph.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"

bnd_status bnd_graph_create(bnd_graph **graph, bnd_error *error) {
  bnd_graph *fresh = bnd_calloc(1, sizeof *fresh);
  if (!fresh || !(fresh->arena = bnd_arena_create())) {
    free(fresh);
    return bnd_fail_memory(error, "a graph");
  }
  *graph = fresh;
  return BND_OK;
}

static void module_release(bnd_module *module) {
  bnd_tensor *tensors[] = {&module->weight, &module->bias, &module->bn_weight, &module->bn_bias, &module->bn_running_mean, &module->bn_running_var};
  for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) bnd_tensor_release(tensors[i]);
  bnd_quantizer_destroy(module->weight_quantizer);
  bnd_quantizer_destroy(module->bias_quantizer);
  bnd_quantizer_destroy(module->quantizer);
}

void bnd_graph_destroy(bnd_graph *graph) {
  if (!graph) return;
  for (size_t i = 0; i < graph->module_count; i++) module_release(graph->modules[i]);
  for (size_t i = 0; i < graph->attribute_count; i++) bnd_tensor_release(&graph->attributes[i].tensor);
  for (bnd_node *node = graph->first; node; node = node->next) free(node->users);
  free(graph->modules);
  free(graph->attributes);
  bnd_map_free(&graph->used_names);
  bnd_map_free(&graph->name_counts);
  bnd_map_free(&graph->attribute_index);
  bnd_arena_destroy(graph->arena);
  free(graph);
}

bnd_node *bnd_graph_first(const bnd_graph *graph) { return graph->first; }
bnd_node *bnd_graph_last(const bnd_graph *graph) { return graph->last; }
int bnd_graph_node_count(const bnd_graph *graph) { return graph->node_count; }
int bnd_graph_id_limit(const bnd_graph *graph) { return graph->next_id; }
bnd_arena *bnd_graph_arena(bnd_graph *graph) { return graph->arena; }

bnd_node *bnd_graph_find(const bnd_graph *graph, const char *name) {
  for (bnd_node *node = graph->first; node; node = node->next)
    if (strcmp(node->name, name) == 0) return node;
  return NULL;
}

bnd_status bnd_graph_status(const bnd_graph *graph, bnd_error *error) {
  return graph->short_of_memory ? bnd_fail_memory(error, "the graph") : BND_OK;
}

void bnd_graph_out_of_memory(bnd_graph *graph) { graph->short_of_memory = true; }

/* --- names --- */

/* "conv2d_12" -> length of "conv2d" and 12; without such an ending the whole length and -1. Leading zeros count as torch.fx's regular
   expression does: any run of digits behind the last underscore. */
static size_t split_name(const char *name, long *number) {
  const size_t length = strlen(name);
  size_t digits = length;
  while (digits > 0 && isdigit((unsigned char)name[digits - 1])) digits--;
  *number = -1;
  if (digits == length || digits < 1 || name[digits - 1] != '_') return length;
  *number = strtol(name + digits, NULL, 10);
  return digits - 1;
}

const char *bnd_graph_unique_name(bnd_graph *graph, const char *wanted) {
  char *candidate = bnd_arena_format(graph->arena, "%s%s", isdigit((unsigned char)wanted[0]) ? "_" : "", *wanted ? wanted : "_unnamed");
  if (!candidate) goto failed;
  for (char *at = candidate; *at; at++)
    if (!isalnum((unsigned char)*at) && *at != '_') *at = '_';
  long number;
  const size_t base_length = split_name(candidate, &number);
  char *base = bnd_arena_copy(graph->arena, candidate);
  if (!base) goto failed;
  base[base_length] = '\0';
  if (number < 0 || bnd_map_get(&graph->used_names, candidate, NULL)) {
    size_t count = 0;
    bnd_map_get(&graph->name_counts, candidate, &count);
    number = (long)count;
  }
  while (bnd_map_get(&graph->used_names, candidate, NULL)) {
    number++;
    candidate = bnd_arena_format(graph->arena, "%s_%ld", base, number);
    if (!candidate) goto failed;
  }
  if (!bnd_map_put(&graph->used_names, candidate, 1) || !bnd_map_put(&graph->name_counts, base, (size_t)number)) goto failed;
  return candidate;
failed:
  graph->short_of_memory = true;
  return NULL;
}

/* --- nodes --- */

static void append(bnd_graph *graph, bnd_node *node) {
  node->previous = graph->last;
  if (graph->last) graph->last->next = node;
  else graph->first = node;
  graph->last = node;
  graph->node_count++;
}

static bnd_arg *copy_args(bnd_graph *graph, const bnd_arg *args, int count) {
  bnd_arg *copy = bnd_arena_alloc(graph->arena, (size_t)count, sizeof *copy);
  if (!copy) graph->short_of_memory = true;
  else if (count) memcpy(copy, args, (size_t)count * sizeof *copy);
  return copy;
}

bnd_node *bnd_graph_add(bnd_graph *graph, bnd_node_kind kind, const bnd_operator *op, const char *name, const char *target, const bnd_arg *args,
                        int arg_count) {
  if (graph->short_of_memory) return NULL;
  bnd_node *node = bnd_arena_alloc(graph->arena, 1, sizeof *node);
  if (node) {
    node->name = bnd_graph_unique_name(graph, name);
    node->target = target ? bnd_arena_copy(graph->arena, target) : NULL;
    node->args = copy_args(graph, args, arg_count);
  }
  if (!node || !node->name || !node->args || (target && !node->target)) {
    graph->short_of_memory = true;
    return NULL;
  }
  node->id = graph->next_id++;
  node->kind = kind;
  node->op = op;
  node->arg_count = arg_count;
  node->graph = graph;
  node->result_count = 1;
  node->dtype = BND_F32;
  append(graph, node);
  bnd_node_link_inputs(node);
  return node;
}

bnd_node *bnd_graph_placeholder(bnd_graph *graph, const char *name, const bnd_shape *shape) {
  bnd_node *node = bnd_graph_add(graph, BND_PLACEHOLDER, NULL, name, name, NULL, 0);
  if (node) node->shape[0] = *shape;
  return node;
}

bnd_node *bnd_graph_get_attr(bnd_graph *graph, const char *name, const char *target) {
  bnd_node *node = bnd_graph_add(graph, BND_GET_ATTR, NULL, name, target, NULL, 0);
  const bnd_attribute *attribute = bnd_graph_attribute(graph, target);
  if (node && attribute) {
    node->shape[0] = attribute->tensor.shape;
    node->dtype = attribute->tensor.dtype;
  }
  return node;
}

bnd_node *bnd_graph_call(bnd_graph *graph, const bnd_operator *op, const char *name, const bnd_arg *args, int arg_count) {
  return bnd_graph_add(graph, BND_CALL_FUNCTION, op, name, NULL, args, arg_count);
}

bnd_node *bnd_graph_output(bnd_graph *graph, bnd_arg value) { return bnd_graph_add(graph, BND_OUTPUT, NULL, "output", "output", &value, 1); }

bnd_arg bnd_graph_list(bnd_graph *graph, const bnd_arg *items, int count) {
  bnd_arg list = {.kind = BND_ARG_LIST};
  list.list.items = copy_args(graph, items, count);
  list.list.count = list.list.items ? count : 0;
  return list;
}

static bnd_arg empty_list(bnd_graph *graph, int count) {
  bnd_arg list = {.kind = BND_ARG_LIST};
  list.list.items = bnd_arena_alloc(graph->arena, (size_t)count, sizeof(bnd_arg));
  if (list.list.items) list.list.count = count;
  else graph->short_of_memory = true;
  return list;
}

bnd_arg bnd_graph_int_list(bnd_graph *graph, const int64_t *values, int count) {
  const bnd_arg list = empty_list(graph, count);
  for (int i = 0; i < list.list.count; i++) list.list.items[i] = bnd_arg_of_int(values[i]);
  return list;
}

bnd_arg bnd_graph_node_list(bnd_graph *graph, bnd_node *const *nodes, int count) {
  const bnd_arg list = empty_list(graph, count);
  for (int i = 0; i < list.list.count; i++) list.list.items[i] = bnd_arg_of_node(nodes[i]);
  return list;
}

bool bnd_node_add_keyword(bnd_node *node, const char *name, bnd_arg value) {
  bnd_keyword *keywords = bnd_arena_alloc(node->graph->arena, (size_t)node->keyword_count + 1, sizeof *keywords);
  char *copy = bnd_arena_copy(node->graph->arena, name);
  if (!keywords || !copy) {
    node->graph->short_of_memory = true;
    return false;
  }
  bnd_node_unlink_inputs(node);
  if (node->keyword_count) memcpy(keywords, node->keywords, (size_t)node->keyword_count * sizeof *keywords);
  keywords[node->keyword_count++] = (bnd_keyword){copy, value};
  node->keywords = keywords;
  bnd_node_link_inputs(node);
  return true;
}

/* --- attributes and modules --- */

bnd_status bnd_graph_set_attribute(bnd_graph *graph, const char *name, bnd_tensor *tensor, bool is_parameter, bnd_error *error) {
  size_t index;
  if (bnd_map_get(&graph->attribute_index, name, &index)) {
    bnd_tensor_release(&graph->attributes[index].tensor);
  } else {
    index = graph->attribute_count;
    char *copy = bnd_arena_copy(graph->arena, name);
    if (!copy || !BND_GROW(graph->attributes, graph->attribute_capacity, index + 1) || !bnd_map_put(&graph->attribute_index, copy, index)) {
      bnd_tensor_release(tensor);
      return bnd_fail_memory(error, "the graph's attributes");
    }
    graph->attributes[index] = (bnd_attribute){.name = copy};
    graph->attribute_count++;
  }
  graph->attributes[index].tensor = *tensor;
  graph->attributes[index].is_parameter = is_parameter;
  *tensor = (bnd_tensor){0};
  return BND_OK;
}

const bnd_attribute *bnd_graph_attribute(const bnd_graph *graph, const char *name) {
  size_t index;
  return bnd_map_get(&graph->attribute_index, name, &index) ? &graph->attributes[index] : NULL;
}

bnd_module *bnd_graph_find_module(const bnd_graph *graph, const char *name) {
  for (size_t i = 0; i < graph->module_count; i++)
    if (strcmp(graph->modules[i]->name, name) == 0) return graph->modules[i];
  return NULL;
}

bnd_module *bnd_graph_add_module(bnd_graph *graph, const char *name) {
  const char *free_name = name;
  for (int number = 1; free_name && bnd_graph_find_module(graph, free_name); number++) free_name = bnd_arena_format(graph->arena, "%s_%d", name, number);
  bnd_module *module = bnd_arena_alloc(graph->arena, 1, sizeof *module);
  if (!free_name || !module || !(module->name = bnd_arena_copy(graph->arena, free_name)) ||
      !BND_GROW(graph->modules, graph->module_capacity, graph->module_count + 1)) {
    graph->short_of_memory = true;
    return NULL;
  }
  module->groups = 1;
  module->scale = 1;
  for (int i = 0; i < 2; i++) module->stride[i] = module->dilation[i] = 1;
  graph->modules[graph->module_count++] = module;
  return module;
}

void bnd_module_share(bnd_module *to, const bnd_module *from) {
  const char *name = to->name;
  *to = *from;
  to->name = name;
  to->observed = to->weight_integers = to->bias_integers = to->integers = NULL;
  to->weight_quantizer = to->bias_quantizer = to->quantizer = NULL;
  to->weight = bnd_tensor_share(&from->weight, NULL);
  to->bias = bnd_tensor_share(&from->bias, NULL);
  to->bn_weight = bnd_tensor_share(&from->bn_weight, NULL);
  to->bn_bias = bnd_tensor_share(&from->bn_bias, NULL);
  to->bn_running_mean = bnd_tensor_share(&from->bn_running_mean, NULL);
  to->bn_running_var = bnd_tensor_share(&from->bn_running_var, NULL);
}

static void share_instead(bnd_tensor *to, const bnd_tensor *from) {
  if (!from->data || from->data == to->data) return;
  bnd_tensor_release(to);
  *to = bnd_tensor_share(from, NULL);
}

void bnd_module_share_weights(bnd_module *to, const bnd_module *from) {
  share_instead(&to->weight, &from->weight);
  share_instead(&to->bias, &from->bias);
}
