#include "passes/quark/rewrite.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void bnd_doom(bnd_doomed_nodes *doomed, bnd_node *node) {
  for (size_t i = 0; i < doomed->count; i++)
    if (doomed->nodes[i] == node) return;
  if (!BND_GROW(doomed->nodes, doomed->capacity, doomed->count + 1)) {
    bnd_graph_out_of_memory(node->graph);
    return;
  }
  doomed->nodes[doomed->count++] = node;
}

bnd_status bnd_finish_sweep(bnd_graph *graph, bnd_doomed_nodes *doomed, bnd_error *error) {
  bool again = true;
  while (again) {
    again = false;
    for (size_t i = 0; i < doomed->count; i++) {
      if (!doomed->nodes[i] || doomed->nodes[i]->user_count) continue;
      bnd_node_erase(doomed->nodes[i]);
      doomed->nodes[i] = NULL;
      again = true;
    }
  }
  free(doomed->nodes);
  *doomed = (bnd_doomed_nodes){0};
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}

/* torch.fx names a call after its target: "slice.Tensor" -> "slice.tensor", "QuantConv2d" -> "quant_conv2d". What a name may not contain is replaced
   when the name is made unique. NULL = memory short. */
static const char *snake_case(bnd_graph *graph, const char *target) {
  char *name = bnd_arena_alloc(bnd_graph_arena(graph), strlen(target) + 1, 2);
  size_t length = 0;
  for (const char *at = target; name && *at; at++) {
    if (isupper((unsigned char)*at) && at > target && islower((unsigned char)at[-1])) name[length++] = '_';
    name[length++] = (char)tolower((unsigned char)*at);
  }
  if (!name) bnd_graph_out_of_memory(graph);
  return name;
}

/* "torch.ops.aten.slice.Tensor" -> "slice.Tensor" */
static const char *without_namespace(const char *target) {
  const char *dot = strncmp(target, "torch.ops.", 10) == 0 ? strchr(target + 10, '.') : NULL;
  return dot ? dot + 1 : target;
}

static void take_over(bnd_node *node, bnd_node *place, const bnd_node *replaced, const char *pass) {
  bnd_node_move_after(node, place);
  bnd_node_copy_meta(node, replaced);
  node->shape[0] = replaced->shape[0];
  node->dtype = replaced->dtype;
  node->changed_by = pass;
}

bnd_node *bnd_insert_function(bnd_node *place, const bnd_node *replaced, bnd_operator_id id, const bnd_arg *args, int arg_count, const char *pass) {
  const bnd_operator *op = bnd_operator_of(id);
  const char *name = snake_case(place->graph, without_namespace(op->target));
  bnd_node *node = name ? bnd_graph_call(place->graph, op, name, args, arg_count) : NULL;
  if (node) take_over(node, place, replaced, pass);
  return node;
}

bnd_node *bnd_insert_module(bnd_node *place, const bnd_node *replaced, bnd_operator_id id, bnd_module *module, bnd_node *input, const char *pass) {
  const bnd_arg arg = bnd_arg_of_node(input);
  const char *name = snake_case(place->graph, module->name);
  bnd_node *node = name ? bnd_graph_add(place->graph, BND_CALL_MODULE, bnd_operator_of(id), name, module->name, &arg, 1) : NULL;
  if (!node) return NULL;
  node->module = module;
  take_over(node, place, replaced, pass);
  return node;
}

const bnd_attribute *bnd_attribute_of(const bnd_node *node, bool parameter_only) {
  if (!node || node->kind != BND_GET_ATTR) return NULL;
  const bnd_attribute *attribute = bnd_graph_attribute(node->graph, node->target);
  return attribute && (attribute->is_parameter || !parameter_only) ? attribute : NULL;
}
