#include "refine/guard.h"

#include <string.h>

#include "base/clock.h"

bnd_status bnd_guard_measure(const bnd_refinement *work, const bnd_graph *graph, double *distance, bnd_error *error) {
  bnd_graph *copy;
  BND_TRY(bnd_graph_copy(graph, &copy, error));
  bnd_status status = bnd_adjust_to_fixed_point(copy, work->target, NULL, error);
  if (status == BND_OK) status = bnd_refine_measure(work, copy, work->held_out, distance, error);
  bnd_graph_destroy(copy);
  return status;
}

bnd_status bnd_guard_step(bnd_refinement *work, const bnd_guarded_step *step, double *distance, bnd_step_outcome *outcome, bnd_string *report, bnd_error *error) {
  struct timespec begin;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  *outcome = (bnd_step_outcome){.name = step->name, .before = *distance};
  bnd_graph *before;
  BND_TRY(bnd_graph_copy(work->graph, &before, error));
  bnd_status status = step->run(work, report, error);
  if (status == BND_OK) status = bnd_guard_measure(work, work->graph, &outcome->after, error);
  outcome->kept = status == BND_OK && (step->required || outcome->after <= outcome->before); /* a NaN is worse */
  bnd_graph *const unwanted = outcome->kept ? before : work->graph;
  if (!outcome->kept) work->graph = before;
  else *distance = outcome->after;
  bnd_graph_destroy(unwanted);
  outcome->seconds = bnd_seconds_since(&begin);
  return status;
}
