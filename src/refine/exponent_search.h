/* Search among positions by the error of the whole network: coordinate descent over the few integers that matter. */
#ifndef BND_REFINE_EXPONENT_SEARCH_H
#define BND_REFINE_EXPONENT_SEARCH_H

#include "refine/refine.h"

typedef struct bnd_exponent_search_options {
  size_t images;  /* the first so many calibration images judge; 0 = 16 */
  size_t choices; /* the most sensitive tensors are tried; 0 = 40 */
  int rounds;     /* over the choices, while a round finds something; 0 = 2 */
  double gain;    /* a move must lower the distance by more than this share of it; 0 = 0.002 */
} bnd_exponent_search_options;

/* Puts the target's rules in force, then moves one position at a time (all positions that rules tie together at once) up or down by one, enforces the rules
   again, and keeps what brings the network closer to the teacher (bnd_refine_measure over calibration images; held-out images stay unseen). Tensors come in
   the order of what each costs alone (sensitivity.h). Cost: (tensors + 2 * choices * rounds) networks over the images. With work->minutes it ends
   early; the result then depends on the machine's speed. options NULL: defaults. The graph satisfies the target's rules afterwards. */
bnd_status bnd_refine_exponent_search_with(bnd_refinement *work, const bnd_exponent_search_options *options, bnd_string *report, bnd_error *error);
bnd_status bnd_refine_exponent_search(bnd_refinement *work, bnd_string *report, bnd_error *error); /* a bnd_refine_step: with defaults */

#endif
