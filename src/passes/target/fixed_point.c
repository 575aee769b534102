/* The rules enforced until all of them hold at once. Quark sweeps once, and a later rule may break what an earlier one mended. */
#include "passes/target/adjust.h"

bnd_status bnd_adjust_to_fixed_point(bnd_graph *graph, const bnd_target_profile *target, int *sweeps, bnd_error *error) {
  enum { MOST_SWEEPS = 100 };
  int done = 0;
  while (bnd_check_positions(graph, target, NULL, NULL) > 0) {
    if (done++ == MOST_SWEEPS)
      return bnd_fail(error, BND_ERROR_MODEL, "target %s: its rules contradict each other on this network: none of %d sweeps made all of them hold", target->name,
                      MOST_SWEEPS);
    bnd_adjust_positions(graph, target);
  }
  if (sweeps) *sweeps = done;
  return BND_OK;
}
