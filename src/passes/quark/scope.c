/* Quantization scope from stubs: Quark's tag_quant_node.py. Order of its searches does not matter, only reachability, so plain worklists do. */
#include <stdlib.h>

#include "passes/quark/rewrite.h"

typedef enum reach { UNSEEN, FORWARD, BACKWARD } reach;

typedef struct worklist {
  bnd_node **nodes;
  size_t count, capacity;
  bool failed;
} worklist;

static void push(worklist *list, bnd_node *node) {
  if (BND_GROW(list->nodes, list->capacity, list->count + 1)) list->nodes[list->count++] = node;
  else list->failed = true;
}

static bool is_stub(const bnd_node *node) { return bnd_node_is(node, BND_OP_QUANT_STUB) || bnd_node_is(node, BND_OP_DEQUANT_STUB); }

/* From every QuantStub along users, up to DeQuantStubs. */
static void reach_forward(bnd_graph *graph, unsigned char *state, worklist *list) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (bnd_node_is(node, BND_OP_QUANT_STUB)) push(list, node);
  while (list->count) {
    bnd_node *node = list->nodes[--list->count];
    if (bnd_node_is(node, BND_OP_DEQUANT_STUB) || state[node->id] == FORWARD) continue;
    state[node->id] = FORWARD;
    for (int i = 0; i < node->user_count; i++) push(list, node->users[i]);
  }
}

/* From what nodes in scope read directly (not inside lists, as in the original), backwards up to DeQuantStubs. */
static void reach_backward(bnd_graph *graph, unsigned char *state, worklist *list) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (state[node->id] != FORWARD || is_stub(node)) continue;
    for (int i = 0; i < node->arg_count; i++) {
      bnd_node *input = bnd_arg_node(node, i);
      if (input && !is_stub(input) && state[input->id] != FORWARD) push(list, input);
    }
  }
  while (list->count) {
    bnd_node *node = list->nodes[--list->count];
    if (bnd_node_is(node, BND_OP_DEQUANT_STUB) || state[node->id] == BACKWARD) continue;
    state[node->id] = BACKWARD;
    for (int i = 0; i < node->arg_count; i++)
      if (bnd_arg_node(node, i)) push(list, bnd_arg_node(node, i));
  }
}

bnd_status bnd_quark_mark_scope(bnd_graph *graph, bnd_error *error) {
  bool quant_stub = false, dequant_stub = false;
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    quant_stub |= bnd_node_is(node, BND_OP_QUANT_STUB);
    dequant_stub |= bnd_node_is(node, BND_OP_DEQUANT_STUB);
    node->skip = false;
  }
  if (!quant_stub && !dequant_stub) return BND_OK;
  if (!quant_stub)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "quantization scope: a DeQuantStub ends it, but no QuantStub begins it; place one where quantization shall start");
  unsigned char *state = bnd_calloc((size_t)bnd_graph_id_limit(graph), 1);
  worklist list = {0};
  bnd_status status = state ? BND_OK : bnd_fail_memory(error, "the quantization scope");
  if (status == BND_OK) {
    reach_forward(graph, state, &list);
    reach_backward(graph, state, &list);
    for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
      node->skip = bnd_node_is(node, BND_OP_DEQUANT_STUB) || (state[node->id] == UNSEEN && node->kind != BND_PLACEHOLDER && node->kind != BND_OUTPUT);
    if (list.failed) status = bnd_fail_memory(error, "the quantization scope");
  }
  free(list.nodes);
  free(state);
  return status;
}
