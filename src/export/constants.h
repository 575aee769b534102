/* Values of a graph that depend on no input: parameters, anchors, strides. What needs running is evaluated in float32 with plain loops, so
   that a file holds numbers instead of the operators that made them. Fake quantizers are never evaluated: their pair stays in the file. */
#ifndef BND_EXPORT_CONSTANTS_H
#define BND_EXPORT_CONSTANTS_H

#include "ops/operators.h"

typedef struct bnd_constants {
  bnd_tensor *tensors; /* [id * BND_MAX_RESULTS + result], float32; data NULL = not constant */
  size_t count;
} bnd_constants;

/* Evaluates every constant node with live[id]. Shapes must have been inferred. Freed with bnd_constants_free, also after a failure. */
bnd_status bnd_constants_evaluate(const bnd_graph *graph, const bool *live, bnd_constants *constants, bnd_error *error);
void bnd_constants_free(bnd_constants *constants);
/* NULL = the value is not constant. */
const bnd_tensor *bnd_constants_get(const bnd_constants *constants, const bnd_node *node, int result);

#endif
