/* The steps of the recipe `best`. A step takes a calibrated graph and changes positions, weights or biases so that the quantized network comes closer
   to the float one, from unlabelled images alone. Steps know nothing of each other; who calls them in which order, and takes back what did not help, is
   the guard (guard.h). */
#ifndef BND_REFINE_REFINE_H
#define BND_REFINE_REFINE_H

#include "calib/calibrate.h"
#include "passes/target/adjust.h"

/* What the float network says about the held-out images, computed once (measure.c). */
typedef struct bnd_reference bnd_reference;

typedef struct bnd_refinement {
  bnd_graph *graph;                 /* calibrated, batch norms merged into the modules, shapes for batch size 1; changed in place */
  const bnd_graph *teacher;         /* a copy (bnd_graph_copy) made before any step: in BND_EXEC_FLOAT it is the float network; same names and ids */
  const bnd_image_source *images;   /* for calibration, no labels */
  const bnd_image_source *held_out; /* for measuring; none of them is among `images` */
  const bnd_target_profile *target;
  bnd_exec_backend backend;
  uint64_t seed;
  const bnd_context *context; /* threads, progress, cancellation; a step asks it at least once a second */
  const bnd_reference *reference; /* of `held_out`; NULL = bnd_refine_measure asks the teacher every time */
  void *user;                     /* the caller's own, for steps it makes itself */
  double minutes; /* what a step may take, 0 = as long as it wants; a step that honours it ends early with what it has */
} bnd_refinement;

/* A step. Returns the same bytes for any number of threads. On failure (also BND_ERROR_INTERRUPTED) the graph may be half changed: the caller holds a
   copy. Appends to `report` a line or a few for a person: what was done, where, what it changed. */
typedef bnd_status bnd_refine_step(bnd_refinement *work, bnd_string *report, bnd_error *error);

/* How far the graph, quantized, is from the teacher over `images`: 0 = equal. The measure is defined and explained in measure.c. */
bnd_status bnd_reference_create(const bnd_graph *float_network, const bnd_image_source *images, bnd_exec_backend backend, const bnd_context *context,
                                bnd_reference **reference, bnd_error *error);
void bnd_reference_destroy(bnd_reference *reference); /* NULL is fine */
/* work->reference serves when `images` is work->held_out. */
bnd_status bnd_refine_measure(const bnd_refinement *work, const bnd_graph *graph, const bnd_image_source *images, double *distance, bnd_error *error);

#endif
