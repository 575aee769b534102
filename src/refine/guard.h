/* The guard: runs steps one after the other, measures each on held-out images, and takes back an optional one that made things worse. */
#ifndef BND_REFINE_GUARD_H
#define BND_REFINE_GUARD_H

#include <time.h>

#include "refine/refine.h"

typedef struct bnd_guarded_step {
  const char *name; /* "exponents" */
  bnd_refine_step *run;
  bool required;    /* kept whatever the measure says */
} bnd_guarded_step;

typedef struct bnd_step_outcome {
  const char *name;
  bool kept;
  double before, after; /* distance, both with the target's rules enforced as they will be at the end */
  double seconds;
} bnd_step_outcome;

/* One step on work->graph. *distance: in, that of work->graph; out, that of what is now in work->graph. `report` receives the step's own lines. The graph
   stands as it was when the step was taken back, and when it failed. work->graph may be another object than before (the old one is destroyed). */
bnd_status bnd_guard_step(bnd_refinement *work, const bnd_guarded_step *step, double *distance, bnd_step_outcome *outcome, bnd_string *report, bnd_error *error);
/* The distance of a graph as it would be exported: of a copy with the target's rules enforced. */
bnd_status bnd_guard_measure(const bnd_refinement *work, const bnd_graph *graph, double *distance, bnd_error *error);

#endif
