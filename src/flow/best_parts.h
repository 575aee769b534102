/* Inside the recipe best: parts of it that stand in files of their own. */
#ifndef BND_FLOW_BEST_PARTS_H
#define BND_FLOW_BEST_PARTS_H

#include "flow/quantize.h"
#include "refine/refine.h"

/* Enforces the target's rules on work->graph and notes every exponent they move; explained: with what that move alone costs, a measurement each. */
bnd_status bnd_best_align(bnd_quantize_run *r, const bnd_refinement *work, bool explained);

#endif
