#include "passes/target/adjust.h"

#include <limits.h>
#include <stdlib.h>

#include "ops/operators.h"

static const struct {
  const char *name, *meaning;
} RULES[BND_RULE_COUNT] = {
    [BND_RULE_ALIGN_CONCAT] = {"align_concat", "all inputs of a concat and its output share one scale"},
    [BND_RULE_ALIGN_POOL] = {"align_pool", "a pool's input and output share one scale"},
    [BND_RULE_ALIGN_SLICE] = {"align_slice", "a slice's input and output share one scale"},
    [BND_RULE_SHIFT_READ] = {"shift_read", "the inputs of an add or sub lie at most so many positions apart"},
    [BND_RULE_SHIFT_WRITE] = {"shift_write", "the shift behind an add or mul is within reach"},
    [BND_RULE_SHIFT_CUT] = {"shift_cut", "the shift from a convolution's accumulator to its output is within reach"},
    [BND_RULE_SHIFT_BIAS] = {"shift_bias", "the shift that aligns a convolution's bias with its accumulator is within reach"},
    [BND_RULE_HARD_SIGMOID] = {"hard_sigmoid", "positions around a hard sigmoid are what its unit supports"},
    [BND_RULE_SHIFT_SWISH] = {"shift_swish", "the shift behind x * hardsigmoid(x) is within reach"},
};

const char *bnd_rule_name(bnd_rule rule) { return RULES[rule].name; }
const char *bnd_rule_meaning(bnd_rule rule) { return RULES[rule].meaning; }

/* --- what the rules look at --- */

/* The quantizer of a quantizer node, if it has a single position; NULL otherwise. */
static bnd_quantizer *quantizer_of(const bnd_node *node) {
  return bnd_is_fake_quantize(node) && node->module->quantizer->channels == 1 ? node->module->quantizer : NULL;
}

static bnd_quantizer *only_user_quantizer(const bnd_node *node) { return node->user_count == 1 ? quantizer_of(node->users[0]) : NULL; }

/* Follows single users for at most two steps: node -> q, or node -> operator -> q. */
static bnd_quantizer *output_quantizer(const bnd_node *node) {
  for (int step = 0; step < 2; step++) {
    if (node->user_count != 1) return NULL;
    node = node->users[0];
    if (bnd_is_fake_quantize(node)) return quantizer_of(node);
  }
  return NULL;
}

/* --- one pass over the rules, either enforcing or reporting --- */

typedef struct sweep {
  const bnd_target_profile *target;
  bool enforce;
  int checked, broken;
  void (*report)(void *user, const bnd_violation *violation);
  void *user;
} sweep;

static void move(bnd_quantizer *quantizer, int position, bnd_rule rule) {
  if (quantizer->position[0] == position) return;
  quantizer->position[0] = position;
  quantizer->adjustments |= 1u << rule;
}

static void broken(sweep *s, bnd_rule rule, const bnd_node *node, int value, bnd_limits limits, const char *detail) {
  s->broken++;
  const bnd_violation violation = {rule, node->name, value, limits, detail};
  if (s->report) s->report(s->user, &violation);
}

static bool outside(int value, bnd_limits limits) { return value < limits.low || value > limits.high; }
static int clamped(int value, bnd_limits limits) { return value < limits.low ? limits.low : value > limits.high ? limits.high : value; }

/* Brings quantizers to one position, the smallest (= largest scale). */
static void align(sweep *s, bnd_rule rule, const bnd_node *node, bnd_quantizer *const *quantizers, int count) {
  int smallest = INT_MAX, largest = INT_MIN;
  s->checked++;
  for (int i = 0; i < count; i++) {
    smallest = quantizers[i]->position[0] < smallest ? quantizers[i]->position[0] : smallest;
    largest = quantizers[i]->position[0] > largest ? quantizers[i]->position[0] : largest;
  }
  if (smallest == largest) return;
  if (!s->enforce) {
    broken(s, rule, node, largest, (bnd_limits){smallest, smallest}, "input and output positions differ");
    return;
  }
  for (int i = 0; i < count; i++) move(quantizers[i], smallest, rule);
}

static void align_concat(sweep *s, const bnd_node *node) {
  enum { MOST_INPUTS = 256 };
  bnd_quantizer *quantizers[MOST_INPUTS + 1];
  if (!s->target->align_concat || !bnd_is_concat(node) || node->args[0].kind != BND_ARG_LIST) return;
  const bnd_arg *list = &node->args[0];
  if (list->list.count > MOST_INPUTS || !(quantizers[0] = only_user_quantizer(node))) return;
  for (int i = 0; i < list->list.count; i++) {
    const bnd_arg *item = &list->list.items[i];
    if (item->kind != BND_ARG_NODE || !(quantizers[i + 1] = quantizer_of(item->node))) return;
  }
  align(s, BND_RULE_ALIGN_CONCAT, node, quantizers, list->list.count + 1);
}

static void align_input_and_output(sweep *s, bnd_rule rule, const bnd_node *node) {
  bnd_quantizer *quantizers[] = {only_user_quantizer(node), quantizer_of(bnd_arg_node(node, 0))};
  if (quantizers[0] && quantizers[1]) align(s, rule, node, quantizers, 2);
}

static void align_pool(sweep *s, const bnd_node *node) {
  if (s->target->align_pool && bnd_is_pool(node)) align_input_and_output(s, BND_RULE_ALIGN_POOL, node);
}

static void align_slice(sweep *s, const bnd_node *node) {
  if (s->target->align_slice && bnd_node_is(node, BND_OP_SLICE)) align_input_and_output(s, BND_RULE_ALIGN_SLICE, node);
}

/* Both inputs of an elementwise node. */
static bool input_pair(const bnd_node *node, bnd_quantizer *inputs[2]) {
  for (int i = 0; i < 2; i++)
    if (!bnd_arg_node(node, i) || !(inputs[i] = quantizer_of(bnd_arg_node(node, i)))) return false;
  return true;
}

static void shift_read(sweep *s, const bnd_node *node) {
  const bnd_operator_id id = node->op ? bnd_functional_id(node) : BND_OPERATOR_COUNT;
  bnd_quantizer *inputs[2];
  if ((id != BND_OP_ADD && id != BND_OP_SUB) || !input_pair(node, inputs)) return;
  s->checked++;
  const int a = inputs[0]->position[0], b = inputs[1]->position[0], low = a < b ? a : b, shift = a > b ? a - b : b - a;
  if (!outside(shift, s->target->shift_read)) return;
  if (s->enforce) move(a >= b ? inputs[0] : inputs[1], low + clamped(shift, s->target->shift_read), BND_RULE_SHIFT_READ);
  else broken(s, BND_RULE_SHIFT_READ, node, shift, s->target->shift_read, "distance between the inputs' positions");
}

static void shift_write(sweep *s, const bnd_node *node) {
  const bnd_operator_id id = node->op ? bnd_functional_id(node) : BND_OPERATOR_COUNT;
  bnd_quantizer *inputs[2], *output;
  if ((id != BND_OP_ADD && id != BND_OP_MUL) || !input_pair(node, inputs) || !(output = output_quantizer(node))) return;
  s->checked++;
  const int a = inputs[0]->position[0], b = inputs[1]->position[0], base = id == BND_OP_MUL ? a + b : a < b ? a : b;
  const bnd_limits limits = id == BND_OP_MUL ? s->target->shift_write_mul : s->target->shift_write_add;
  const int shift = base - output->position[0];
  if (!outside(shift, limits)) return;
  if (s->enforce) move(output, base - clamped(shift, limits), BND_RULE_SHIFT_WRITE);
  else broken(s, BND_RULE_SHIFT_WRITE, node, shift, limits, id == BND_OP_MUL ? "sum of input positions - output position" : "smaller input position - output position");
}

typedef struct layer_quantizers {
  bnd_quantizer *input, *weight, *bias, *output; /* bias may be NULL */
} layer_quantizers;

/* Convolutions and linear layers; the original leaves transposed convolutions out. */
static bool read_layer(const bnd_node *node, layer_quantizers *q) {
  *q = (layer_quantizers){0};
  if (bnd_node_is(node, BND_OP_CONV2D) || bnd_node_is(node, BND_OP_LINEAR)) {
    q->weight = bnd_arg_node(node, 1) ? quantizer_of(bnd_arg_node(node, 1)) : NULL;
    q->bias = bnd_arg_node(node, 2) ? quantizer_of(bnd_arg_node(node, 2)) : NULL;
  } else if (bnd_node_is(node, BND_OP_CONV2D_MODULE) || bnd_node_is(node, BND_OP_CONV2D_BN_MODULE) || bnd_node_is(node, BND_OP_LINEAR_MODULE)) {
    q->weight = node->module->weight_quantizer;
    q->bias = node->module->bias_quantizer;
  } else {
    return false;
  }
  q->input = bnd_arg_node(node, 0) ? quantizer_of(bnd_arg_node(node, 0)) : NULL;
  q->output = output_quantizer(node);
  return q->input && q->output && q->weight && q->weight->channels == 1 && (!q->bias || q->bias->channels == 1);
}

static void shift_cut(sweep *s, const bnd_node *node) {
  layer_quantizers q;
  if (!read_layer(node, &q)) return;
  s->checked++;
  const int ipos = q.input->position[0], opos = q.output->position[0], shift = q.weight->position[0] + ipos - opos;
  if (!outside(shift, s->target->shift_cut)) return;
  if (s->enforce) move(q.weight, clamped(shift, s->target->shift_cut) + opos - ipos, BND_RULE_SHIFT_CUT);
  else broken(s, BND_RULE_SHIFT_CUT, node, shift, s->target->shift_cut, "weight + input - output position");
}

static void shift_bias(sweep *s, const bnd_node *node) {
  layer_quantizers q;
  if (!read_layer(node, &q) || !q.bias) return;
  s->checked++;
  const int product = q.weight->position[0] + q.input->position[0], cut = product - q.output->position[0], shift = product - q.bias->position[0];
  const int low = -(s->target->accumulator_bits - (8 + cut));
  const bnd_limits limits = {low < 0 ? low : 0, s->target->shift_bias_high};
  if (!outside(shift, limits)) return;
  if (s->enforce) move(q.bias, product - clamped(shift, limits), BND_RULE_SHIFT_BIAS);
  else broken(s, BND_RULE_SHIFT_BIAS, node, shift, limits, "weight + input - bias position");
}

static bool is_hard_sigmoid(const bnd_node *node) { return node->op && bnd_functional_id(node) == BND_OP_HARDSIGMOID; }

static void hard_sigmoid(sweep *s, const bnd_node *node) {
  bnd_quantizer *input, *output;
  if (!is_hard_sigmoid(node) || !bnd_arg_node(node, 0) || !(input = quantizer_of(bnd_arg_node(node, 0))) || !(output = output_quantizer(node))) return;
  s->checked++;
  const bnd_target_profile *t = s->target;
  const int ipos = clamped(input->position[0], t->hard_sigmoid_input);
  int opos = output->position[0] > t->hard_sigmoid_output_low ? output->position[0] : t->hard_sigmoid_output_low;
  if (t->hard_sigmoid_shift + ipos - opos <= 0) opos = t->hard_sigmoid_shift + ipos;
  if (s->enforce) {
    move(input, ipos, BND_RULE_HARD_SIGMOID);
    move(output, opos, BND_RULE_HARD_SIGMOID);
    return;
  }
  if (ipos != input->position[0]) broken(s, BND_RULE_HARD_SIGMOID, node, input->position[0], t->hard_sigmoid_input, "input position");
  if (opos != output->position[0])
    broken(s, BND_RULE_HARD_SIGMOID, node, output->position[0], (bnd_limits){t->hard_sigmoid_output_low, t->hard_sigmoid_shift + ipos}, "output position");
}

static bool feeds_hard_sigmoid(const bnd_node *node) {
  if (node->user_count > 2) return false;
  for (int i = 0; i < node->user_count; i++)
    if (is_hard_sigmoid(node->users[i])) return true;
  return false;
}

/* x -> hard sigmoid -> quantizer is the other factor, and x has no third reader. */
static bool is_swish(const bnd_node *a, const bnd_node *b) {
  if (feeds_hard_sigmoid(a) == feeds_hard_sigmoid(b)) return false;
  const bnd_node *x = feeds_hard_sigmoid(a) ? a : b, *other = x == a ? b : a;
  if (x->user_count != 2) return false;
  const bnd_node *sigmoid = is_hard_sigmoid(x->users[0]) ? x->users[0] : x->users[1];
  return sigmoid->user_count == 1 && sigmoid->users[0] == other;
}

static void shift_swish(sweep *s, const bnd_node *node) {
  bnd_quantizer *inputs[2], *output;
  if (!node->op || bnd_functional_id(node) != BND_OP_MUL || !(output = only_user_quantizer(node)) || !input_pair(node, inputs)) return;
  if (!is_swish(bnd_arg_node(node, 0), bnd_arg_node(node, 1))) return;
  s->checked++;
  const int sum = inputs[0]->position[0] + inputs[1]->position[0], shift = sum - output->position[0];
  if (!outside(shift, s->target->shift_swish)) return;
  if (s->enforce) move(output, sum - clamped(shift, s->target->shift_swish), BND_RULE_SHIFT_SWISH);
  else broken(s, BND_RULE_SHIFT_SWISH, node, shift, s->target->shift_swish, "sum of input positions - output position");
}

static void (*const APPLY[BND_RULE_COUNT])(sweep *, const bnd_node *) = {
    align_concat, align_pool, align_slice, shift_read, shift_write, shift_cut, shift_bias, hard_sigmoid, shift_swish,
};

static void run_rule(sweep *s, const bnd_graph *graph, bnd_rule rule) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->op) APPLY[rule](s, node);
}

/* The original aligns function pools before module pools; so does this. */
static void enforce_pools(sweep *s, const bnd_graph *graph) {
  for (int modules = 0; modules < 2; modules++)
    for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
      if ((node->kind == BND_CALL_MODULE) == (modules == 1)) align_pool(s, node);
}

void bnd_adjust_positions(bnd_graph *graph, const bnd_target_profile *target) {
  sweep s = {.target = target, .enforce = true};
  for (int rule = 0; rule < BND_RULE_COUNT; rule++) {
    if (rule == BND_RULE_ALIGN_POOL) enforce_pools(&s, graph);
    else run_rule(&s, graph, (bnd_rule)rule);
  }
}

int bnd_check_positions(const bnd_graph *graph, const bnd_target_profile *target, void (*report)(void *user, const bnd_violation *violation), void *user) {
  sweep s = {.target = target, .report = report, .user = user};
  for (int rule = 0; rule < BND_RULE_COUNT; rule++) run_rule(&s, graph, (bnd_rule)rule);
  return s.broken;
}

int bnd_count_rule(const bnd_graph *graph, const bnd_target_profile *target, bnd_rule rule) {
  sweep s = {.target = target};
  run_rule(&s, graph, rule);
  return s.checked;
}
