/* The graph side of the recipe `best`: what is left in float behind the last learned layer, and what can be computed beforehand. Everything is found
   from the graph alone: no names, no network. */
#ifndef BND_PASSES_BEST_BEST_H
#define BND_PASSES_BEST_BEST_H

#include "graph/graph.h"

/* --- head awareness --- */

/* The tail: what depends on the network's input and stands behind its last learned layers, so that no weight can make up for an error in it. */
typedef enum bnd_tail_part {
  BND_TAIL_NONE,         /* not in the tail */
  BND_TAIL_DISTRIBUTION, /* on the way into a softmax or a projection with constant weights (distribution focal loss: Li et al. 2020), and these */
  BND_TAIL_SCORES,       /* on the way into a sigmoid, and it */
  BND_TAIL_DECODE,       /* what is left: the arithmetic that makes boxes of distances, its slices and concatenations */
  BND_TAIL_PARTS
} bnd_tail_part;
const char *bnd_tail_part_name(bnd_tail_part part);    /* "distribution" */
const char *bnd_tail_part_meaning(bnd_tail_part part); /* one line for a person: what it is and why int8 harms it */

/* The part each node belongs to, by node id (bnd_graph_id_limit of them; freed by the caller). Works on captured graphs and on those with modules and
   quantizers. */
bnd_status bnd_find_tail(const bnd_graph *graph, bnd_tail_part **part_of, bnd_error *error);
/* Captured graph: a QuantStub behind every placeholder and a DeQuantStub on every way into the tail. *cuts: how many of those; 0 = there is no tail and
   nothing was changed. */
bnd_status bnd_leave_tail_out(bnd_graph *graph, int *cuts, bnd_error *error);

/* --- constants --- */

/* x * a with a positive constant a: the factor goes into the layers that make x, its inverse into the layers that read x otherwise (through relu, add,
   concat, max pool: all of them commute with a positive factor), and the mul is gone. Only where every way ends in a layer. Exact but for rounding in
   float32. Graph with modules, batch norms merged, not yet quantized. *folded: muls removed; *kept: those that had to stay. */
bnd_status bnd_fold_scalars(bnd_graph *graph, int *folded, int *kept, bnd_error *error);
/* Removes what changes no value: conversions to float32, contiguous, dropout, reshapes to the same shape, permutations that do nothing or undo each
   other. *removed: nodes. Graph with shapes inferred, not yet quantized. */
bnd_status bnd_remove_identities(bnd_graph *graph, int *removed, bnd_error *error);
/* For a decode that stays quantized: box coordinates relative to the middle of the image, in pixels (decode.c). The middle is added outside the scope.
   Graph with constants folded, not yet quantized. *changed: decodes found. */
bnd_status bnd_centre_decode(bnd_graph *graph, int *changed, bnd_error *error);

#endif
