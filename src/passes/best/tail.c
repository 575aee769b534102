/* Head awareness: the tail of a detector, read off the graph. */
#include <stdlib.h>

#include "ops/operators.h"
#include "passes/best/best.h"
#include "passes/stub.h"

static const struct {
  const char *name, *meaning;
} PARTS[BND_TAIL_PARTS] = {
    [BND_TAIL_NONE] = {"none", "not in the tail"},
    [BND_TAIL_DISTRIBUTION] = {"distribution", "softmax over the bins of a distance and their mean: an eighth of a cell is the finest step int8 leaves"},
    [BND_TAIL_SCORES] = {"scores", "the final sigmoid: int8 ties scores that decide the order of detections, and the hardware has a piecewise linear one only"},
    [BND_TAIL_DECODE] = {"decode", "distances to boxes in pixels: 0 to the image's side in 127 steps, so every corner moves by pixels"},
};

const char *bnd_tail_part_name(bnd_tail_part part) { return PARTS[part].name; }
const char *bnd_tail_part_meaning(bnd_tail_part part) { return PARTS[part].meaning; }

/* A weight that training made: a parameter, as opposed to a buffer (the bins' values of a projection). */
static bool has_learned_weight(const bnd_node *layer) {
  const bnd_node *weight = bnd_arg_node(layer, 1);
  const bnd_attribute *attribute = weight && weight->kind == BND_GET_ATTR ? bnd_graph_attribute(weight->graph, weight->target) : NULL;
  return attribute && attribute->is_parameter;
}

static bool is_learned(const bnd_node *node) { return bnd_is_conv_module(node) || (bnd_is_conv_function(node) && has_learned_weight(node)); }

/* What becomes one with the layer in front of it, or follows its output's quantizer. */
static bool belongs_to_layer(const bnd_node *node) {
  return bnd_node_is(node, BND_OP_BATCH_NORM) || bnd_is_relu(node) || bnd_is_fake_quantize(node) || bnd_node_is(node, BND_OP_DEQUANT_STUB);
}

static bool is_softmax_or_projection(const bnd_node *node) {
  return bnd_node_is(node, BND_OP_SOFTMAX) || (bnd_is_conv_function(node) && !has_learned_weight(node));
}

static bool is_sigmoid(const bnd_node *node) {
  const bnd_operator_id id = node->op ? bnd_functional_id(node) : BND_OPERATOR_COUNT;
  return id == BND_OP_SIGMOID || id == BND_OP_HARDSIGMOID;
}

typedef struct tail_search {
  bool *below;    /* by id: depends on the input */
  bool *above;    /* by id: a learned layer stands behind it */
  bool *softmax;  /* by id: is, or leads into, a softmax or projection */
  bool *sigmoid;  /* by id: is, or leads into, a sigmoid */
  const bnd_node *node;
} tail_search;

static void follow_input(void *user, bnd_node *input) {
  tail_search *s = user;
  s->below[s->node->id] |= s->below[input->id];
}

/* Inputs first, then users first: a graph's order is topological. */
static void mark(tail_search *s, const bnd_graph *graph) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    s->node = node;
    s->below[node->id] = node->kind == BND_PLACEHOLDER;
    bnd_node_visit_inputs(node, follow_input, s);
  }
  for (const bnd_node *node = bnd_graph_last(graph); node; node = node->previous) {
    s->softmax[node->id] = is_softmax_or_projection(node);
    s->sigmoid[node->id] = is_sigmoid(node);
    for (int i = 0; i < node->user_count; i++) {
      const bnd_node *user = node->users[i];
      s->above[node->id] |= s->above[user->id] || is_learned(user);
      s->softmax[node->id] |= s->softmax[user->id];
      s->sigmoid[node->id] |= s->sigmoid[user->id];
    }
  }
}

/* The last learned layer and what belongs to it, as far as only that reads it. */
static bool ends_learned_part(const bnd_node *node) {
  while (belongs_to_layer(node) && bnd_arg_node(node, 0)) node = bnd_arg_node(node, 0);
  return is_learned(node);
}

static bnd_tail_part part_of_node(const tail_search *s, const bnd_node *node) {
  const bool computed = node->kind == BND_CALL_FUNCTION || node->kind == BND_CALL_MODULE;
  if (!computed || !s->below[node->id] || s->above[node->id] || ends_learned_part(node)) return BND_TAIL_NONE;
  return s->softmax[node->id] ? BND_TAIL_DISTRIBUTION : s->sigmoid[node->id] ? BND_TAIL_SCORES : BND_TAIL_DECODE;
}

/* A quantizer belongs to the value it looks at; the last value of a part leads nowhere else. */
static bnd_tail_part part_of_quantizer(const bnd_tail_part *part_of, const bnd_node *node) {
  const bnd_node *input = bnd_arg_node(node, 0);
  return input ? part_of[input->id] : BND_TAIL_NONE;
}

bnd_status bnd_find_tail(const bnd_graph *graph, bnd_tail_part **part_of, bnd_error *error) {
  const size_t ids = (size_t)bnd_graph_id_limit(graph);
  bool *flags = bnd_calloc(ids * 4, sizeof *flags);
  *part_of = bnd_calloc(ids, sizeof **part_of);
  if (!flags || !*part_of) {
    free(flags);
    free(*part_of);
    return bnd_fail_memory(error, "the search for the head");
  }
  tail_search s = {.below = flags, .above = flags + ids, .softmax = flags + 2 * ids, .sigmoid = flags + 3 * ids};
  mark(&s, graph);
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    (*part_of)[node->id] = bnd_is_fake_quantize(node) ? part_of_quantizer(*part_of, node) : part_of_node(&s, node);
  free(flags);
  return BND_OK;
}

static const char PASS[] = "head awareness";

static bnd_status begin_scope(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (node->kind != BND_PLACEHOLDER) continue;
    bnd_node *stub = bnd_insert_stub(node, BND_OP_QUANT_STUB, PASS);
    if (!stub) return bnd_graph_status(graph, error);
    bnd_node_replace_all_uses(node, stub, true);
  }
  return bnd_graph_status(graph, error);
}

bnd_status bnd_leave_tail_out(bnd_graph *graph, int *cuts, bnd_error *error) {
  const int ids = bnd_graph_id_limit(graph);
  bnd_tail_part *part_of;
  *cuts = 0;
  BND_TRY(bnd_find_tail(graph, &part_of, error));
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (node->id >= ids || part_of[node->id] != BND_TAIL_NONE || !ends_learned_part(node)) continue;
    bnd_node *stub = NULL;
    for (int i = node->user_count - 1; i >= 0; i--) {
      bnd_node *user = node->users[i];
      if (user->id >= ids || part_of[user->id] == BND_TAIL_NONE) continue;
      if (!stub && !(stub = bnd_insert_stub(node, BND_OP_DEQUANT_STUB, PASS))) break;
      *cuts += 1;
      bnd_node_replace_input(user, node, stub);
    }
  }
  free(part_of);
  BND_TRY(bnd_graph_status(graph, error));
  return *cuts ? begin_scope(graph, error) : BND_OK;
}
