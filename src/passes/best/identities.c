/* What changes no value, removed before quantizers are put behind it. */
#include "ops/operators.h"
#include "passes/best/best.h"

/* The dimension of the input that result dimension `at` of a permute is; -1 when it cannot be told. */
static int64_t source_of(const bnd_node *permute, int at) {
  int64_t order[BND_MAX_RANK];
  const int rank = permute->shape[0].rank, given = bnd_arg_ints(permute, 1, order, rank);
  if (given != rank) return -1;
  return order[at] < 0 ? order[at] + rank : order[at];
}

static bool permutes_nothing(const bnd_node *node, const bnd_node *first) {
  for (int i = 0; i < node->shape[0].rank; i++) {
    const int64_t via = source_of(node, i), from = via < 0 || !first ? via : source_of(first, (int)via);
    if (from != i) return false;
  }
  return true;
}

/* What the node's value is equal to; NULL: it is its own. */
static bnd_node *equal_input(const bnd_node *node) {
  bnd_node *input = node->op ? bnd_arg_node(node, 0) : NULL;
  if (!input || node->result_count != 1) return NULL;
  switch (node->op->id) {
    case BND_OP_CONTIGUOUS:
    case BND_OP_DROPOUT: return input;
    case BND_OP_TO: return input->dtype == BND_F32 && node->dtype == BND_F32 ? input : NULL;
    case BND_OP_RESHAPE:
    case BND_OP_VIEW:
    case BND_OP_FLATTEN: return bnd_shape_equal(&node->shape[0], &input->shape[0]) ? input : NULL;
    case BND_OP_PERMUTE:
      if (permutes_nothing(node, NULL)) return input;
      return bnd_node_is(input, BND_OP_PERMUTE) && permutes_nothing(node, input) ? bnd_arg_node(input, 0) : NULL;
    default: return NULL;
  }
}

bnd_status bnd_remove_identities(bnd_graph *graph, int *removed, bnd_error *error) {
  *removed = 0;
  for (bnd_node *node = bnd_graph_first(graph), *next; node; node = next) {
    next = node->next;
    bnd_node *equal = equal_input(node);
    if (!equal) continue;
    bnd_node_replace_all_uses(node, equal, false);
    bnd_node_erase(node);
    *removed += 1;
  }
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}
