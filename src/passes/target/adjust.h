/* Hardware constraints on positions: enforcing them after calibration, and checking them. One description of each rule serves both. */
#ifndef BND_PASSES_TARGET_ADJUST_H
#define BND_PASSES_TARGET_ADJUST_H

#include "graph/graph.h"
#include "passes/target/target.h"

/* The rules, in Quark's order (fx-quantization 7.3). Bits of bnd_quantizer.adjustments. */
typedef enum bnd_rule {
  BND_RULE_ALIGN_CONCAT,
  BND_RULE_ALIGN_POOL,
  BND_RULE_ALIGN_SLICE,
  BND_RULE_SHIFT_READ,
  BND_RULE_SHIFT_WRITE,
  BND_RULE_SHIFT_CUT,
  BND_RULE_SHIFT_BIAS,
  BND_RULE_HARD_SIGMOID,
  BND_RULE_SHIFT_SWISH,
  BND_RULE_COUNT
} bnd_rule;

const char *bnd_rule_name(bnd_rule rule);    /* "shift_cut" */
const char *bnd_rule_meaning(bnd_rule rule); /* one line for a person */

/* Clips that start at 0 and are followed by a quantizer become relu: the quantizer's saturation does the rest. */
bnd_status bnd_clip_to_relu(bnd_graph *graph, bnd_error *error);
/* Enforces every rule once, in order, one sweep over the nodes each, as Quark does: a later rule may undo an earlier one. */
void bnd_adjust_positions(bnd_graph *graph, const bnd_target_profile *target);
/* Enforces them until every rule holds. *sweeps (may be NULL): how many that took; 0 = nothing was broken. BND_ERROR_MODEL when they cannot all hold. */
bnd_status bnd_adjust_to_fixed_point(bnd_graph *graph, const bnd_target_profile *target, int *sweeps, bnd_error *error);
/* A mul by the target's factor behind every quantized hard sigmoid: what the hardware computes instead of x/6 + 1/2. */
bnd_status bnd_hard_sigmoid_to_hardware(bnd_graph *graph, const bnd_target_profile *target, bnd_error *error);

typedef struct bnd_violation {
  bnd_rule rule;
  const char *node; /* name, owned by the graph */
  int value;        /* the shift or position found */
  bnd_limits limits;
  const char *detail; /* which position breaks it; static text */
} bnd_violation;

/* Calls report for every rule that a node breaks. Returns how many. report may be NULL. */
int bnd_check_positions(const bnd_graph *graph, const bnd_target_profile *target, void (*report)(void *user, const bnd_violation *violation), void *user);
/* How many nodes a rule applies to. */
int bnd_count_rule(const bnd_graph *graph, const bnd_target_profile *target, bnd_rule rule);

#endif
