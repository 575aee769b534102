/* Inside the recipe best: where it stands between two steps, or two blocks of one, kept in the output folder. */
#ifndef BND_FLOW_BEST_STATE_H
#define BND_FLOW_BEST_STATE_H

#include "flow/quantize.h"

typedef struct bnd_best_state {
  size_t next_step; /* the step to begin, or to go on with */
  size_t blocks;    /* of that step that are done */
  double distance;  /* of the graph as it was when that step began */
} bnd_best_state;

/* Weights, biases and quantizers of the graph, and the outcomes so far (r->result). The file belongs to r->state.fingerprint. */
bnd_status bnd_best_save(bnd_quantize_run *r, const char *name, const bnd_graph *graph, const bnd_best_state *state);
/* Puts them into a graph built the same way. *found false: there is none, one of another run, or a damaged one; nothing was changed then. */
bnd_status bnd_best_load(bnd_quantize_run *r, const char *name, bnd_graph *graph, bnd_best_state *state, bool *found);

#endif
