/* The end of the recipe best: the target's rules to a fixed point, and what each exponent they moved adds. */
#include "flow/best_parts.h"

#include <string.h>

static void forget_adjustments(void *user, const bnd_quantizer_place *place) {
  (void)user;
  place->quantizer->tensor_position = place->quantizer->position[0];
  place->quantizer->adjustments = 0;
}

typedef struct adjusted {
  bnd_quantize_run *run;
  const bnd_refinement *work;
  const bnd_graph *before;
  double distance;
  int moved;
  bool explained;
  bnd_status status;
} adjusted;

static void move_back(void *user, const bnd_quantizer_place *place) {
  const bnd_quantizer_place *wanted_place = user;
  if (strcmp(place->name, wanted_place->name) == 0) place->quantizer->position[0] = wanted_place->quantizer->position[0];
}

/* What one moved exponent costs: the network before the rules, with it alone moved. */
static void note_moved(void *user, const bnd_quantizer_place *place) {
  adjusted *a = user;
  const bnd_quantizer *q = place->quantizer;
  bnd_graph *copy;
  double distance = 0;
  if (!q->adjustments || q->channels != 1 || a->status != BND_OK) return;
  a->moved++;
  if (!a->explained) {
    bnd_run_note(a->run, BND_LOG_DEBUG, "align: %s of %s moved from %d to %d", place->name, place->observed, q->tensor_position, q->position[0]);
    return;
  }
  if ((a->status = bnd_graph_copy(a->before, &copy, a->run->error)) != BND_OK) return;
  bnd_visit_quantizers(copy, move_back, (void *)place);
  a->status = bnd_refine_measure(a->work, copy, a->work->held_out, &distance, a->run->error);
  bnd_graph_destroy(copy);
  if (a->status == BND_OK)
    bnd_run_note(a->run, BND_LOG_DEBUG, "align: %s of %s moved from %d to %d; alone that takes the distance from %.5f to %.5f", place->name, place->observed,
                 q->tensor_position, q->position[0], a->distance, distance);
}

bnd_status bnd_best_align(bnd_quantize_run *r, const bnd_refinement *work, bool explained) {
  adjusted a = {.run = r, .work = work, .explained = explained};
  bnd_graph *before;
  int sweeps = 0;
  bnd_visit_quantizers(work->graph, forget_adjustments, NULL);
  BND_TRY(bnd_graph_copy(work->graph, &before, r->error));
  a.before = before;
  a.status = bnd_adjust_to_fixed_point(work->graph, &r->target, &sweeps, r->error);
  if (a.status == BND_OK && explained) a.status = bnd_refine_measure(work, before, work->held_out, &a.distance, r->error);
  if (a.status == BND_OK) bnd_visit_quantizers(work->graph, note_moved, &a);
  if (a.status == BND_OK) bnd_run_note(r, BND_LOG_DEBUG, "align: every rule of %s holds after %d sweeps, which moved %d exponents", r->target.name, sweeps, a.moved);
  bnd_graph_destroy(before);
  return a.status;
}
