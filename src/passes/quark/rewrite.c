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

/* torch.fx names a call after its target: "torch.ops.aten.slice.Tensor" -> "slice_tensor". */
static void name_of_target(const bnd_operator *op, char *name, size_t size) {
  const char *at = op->target;
  if (strncmp(at, "torch.ops.", 10) == 0 && strchr(at + 10, '.')) at = strchr(at + 10, '.') + 1;
  size_t length = 0;
  for (; *at && length + 1 < size; at++) name[length++] = *at == '.' ? '_' : (char)tolower((unsigned char)*at);
  name[length] = '\0';
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
  char name[64];
  name_of_target(op, name, sizeof name);
  bnd_node *node = bnd_graph_call(place->graph, op, name, args, arg_count);
  if (node) take_over(node, place, replaced, pass);
  return node;
}

bnd_node *bnd_insert_module(bnd_node *place, const bnd_node *replaced, bnd_operator_id id, bnd_module *module, bnd_node *input, const char *pass) {
  const bnd_arg arg = bnd_arg_of_node(input);
  bnd_node *node = bnd_graph_add(place->graph, BND_CALL_MODULE, bnd_operator_of(id), module->name, module->name, &arg, 1);
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
