/* Tools the rewriting passes share. */
#ifndef BND_PASSES_QUARK_REWRITE_H
#define BND_PASSES_QUARK_REWRITE_H

#include "ops/operators.h"
#include "passes/quark/quark.h"

/* Nodes to erase once a sweep is over, as Quark's passes do: until then they still count as users. */
typedef struct bnd_doomed_nodes {
  bnd_node **nodes;
  size_t count, capacity;
} bnd_doomed_nodes;
void bnd_doom(bnd_doomed_nodes *doomed, bnd_node *node);
/* Erases them (users first), then eliminates dead code and reports what went wrong on the way. Frees the list. */
bnd_status bnd_finish_sweep(bnd_graph *graph, bnd_doomed_nodes *doomed, bnd_error *error);

/* A new call behind `place`, standing in for `replaced` (meta data and shape copied from it). NULL = memory short. */
bnd_node *bnd_insert_function(bnd_node *place, const bnd_node *replaced, bnd_operator_id op, const bnd_arg *args, int arg_count, const char *pass);
bnd_node *bnd_insert_module(bnd_node *place, const bnd_node *replaced, bnd_operator_id op, bnd_module *module, bnd_node *input, const char *pass);

/* The parameter tensor behind a get_attr node; NULL when the node is something else or a buffer (when parameter_only). */
const bnd_attribute *bnd_attribute_of(const bnd_node *node, bool parameter_only);

#endif
