/* What does not depend on the network's input is computed once and becomes a constant: anchors, strides. */
#include <stdlib.h>
#include <string.h>

#include "refine/fold_constants.h"

typedef struct frontier {
  bool *depends; /* by id: on the network's input */
  bnd_node **nodes;
  int count;
  const bnd_node *node;
} frontier;

static void follow_input(void *user, bnd_node *input) {
  frontier *f = user;
  f->depends[f->node->id] |= f->depends[input->id];
}

/* Computed values that do not depend on the input, but are read by something that does. */
static void find(frontier *f, bnd_graph *graph) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    f->node = node;
    f->depends[node->id] = node->kind == BND_PLACEHOLDER;
    if (node->kind != BND_OUTPUT) bnd_node_visit_inputs(node, follow_input, f);
  }
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    bool needed = false;
    for (int i = 0; i < node->user_count; i++) needed |= f->depends[node->users[i]->id];
    if (needed && node->kind == BND_CALL_FUNCTION && !f->depends[node->id] && node->result_count == 1) f->nodes[f->count++] = node;
  }
}

/* A graph that gives the frontier's values. */
static bnd_status constants_only(const bnd_graph *graph, const frontier *f, bnd_graph **result, bnd_error *error) {
  bnd_node **outputs = bnd_calloc((size_t)f->count, sizeof *outputs);
  if (!outputs) return bnd_fail_memory(error, "constants");
  bnd_status status = bnd_graph_copy(graph, result, error);
  for (int i = 0; status == BND_OK && i < f->count; i++) outputs[i] = bnd_graph_find(*result, f->nodes[i]->name);
  if (status == BND_OK) {
    bnd_node_set_arg(bnd_graph_last(*result), 0, bnd_graph_node_list(*result, outputs, f->count));
    bnd_graph_eliminate_dead_code(*result);
    status = bnd_graph_status(*result, error);
    if (status != BND_OK) bnd_graph_destroy(*result);
  }
  free(outputs);
  return status;
}

static bnd_status replace(bnd_node *node, const float *values, bnd_error *error) {
  bnd_graph *graph = node->graph;
  char *name = bnd_arena_format(bnd_graph_arena(graph), "%s_folded", node->name);
  bnd_tensor tensor;
  if (!name) return bnd_fail_memory(error, "a constant");
  BND_TRY(bnd_tensor_create(BND_F32, &node->shape[0], &tensor, error));
  memcpy(tensor.data, values, tensor.count * sizeof(float));
  const bnd_status status = bnd_graph_set_attribute(graph, name, &tensor, false, error);
  bnd_tensor_release(&tensor);
  bnd_node *constant = status == BND_OK ? bnd_graph_get_attr(graph, name, name) : NULL;
  if (!constant) return status != BND_OK ? status : bnd_fail_memory(error, "a constant");
  bnd_node_move_before(constant, node);
  bnd_node_copy_meta(constant, node);
  constant->changed_by = "fold constants";
  bnd_node_replace_all_uses(node, constant, false);
  return BND_OK;
}

static bnd_status compute(bnd_graph *graph, const frontier *f, bnd_error *error) {
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .backend = BND_BACKEND_REFERENCE, .threads = 1};
  bnd_graph *constants;
  bnd_executor *executor = NULL;
  bnd_session *session = NULL;
  BND_TRY(constants_only(graph, f, &constants, error));
  bnd_status status = bnd_infer_shapes(constants, error);
  if (status == BND_OK) status = bnd_executor_create(constants, &options, &executor, error);
  if (status == BND_OK) status = bnd_session_create(executor, &session, error);
  size_t pixels = 0;
  for (const bnd_node *node = bnd_graph_first(graph); node && pixels == 0; node = node->next)
    if (node->kind == BND_PLACEHOLDER) bnd_shape_count(&node->shape[0], &pixels);
  float *input = bnd_calloc(pixels, sizeof *input);
  if (status == BND_OK && !input) status = bnd_fail_memory(error, "constants");
  if (status == BND_OK) status = bnd_session_run(session, (const float *const[]){input}, NULL, NULL, error);
  for (int i = 0; status == BND_OK && i < f->count; i++) status = replace(f->nodes[i], bnd_session_output(session, i), error);
  free(input);
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  bnd_graph_destroy(constants);
  return status;
}

bnd_status bnd_fold_constants(bnd_graph *graph, int *folded, bnd_error *error) {
  const size_t ids = (size_t)bnd_graph_id_limit(graph);
  frontier f = {.depends = bnd_calloc(ids, sizeof *f.depends), .nodes = bnd_calloc(ids, sizeof *f.nodes)};
  bnd_status status = f.depends && f.nodes ? BND_OK : bnd_fail_memory(error, "constants");
  if (status == BND_OK) find(&f, graph);
  if (status == BND_OK && f.count) status = compute(graph, &f, error);
  *folded = f.count;
  free(f.depends);
  free(f.nodes);
  if (status != BND_OK) return status;
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}
