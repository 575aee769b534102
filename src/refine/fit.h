/* Ranges brought to powers of two. A scale 2^-p serves a tensor best whose range nearly fills it; the range of a trained tensor lies anywhere between two
   powers. All channels of a layer (and what sums, pools and activations tie to them) are divided by one factor from 1 to 2 and multiplied by it where they are
   read, exact in the float network as in cross-layer equalization (equalize.h), so that rounding and clipping together do the least harm: errors of every
   activation and weight are tabulated for scales a quarter of an octave apart, and factors chosen by coordinate descent. */
#ifndef BND_REFINE_FIT_H
#define BND_REFINE_FIT_H

#include "refine/channel_statistics.h"
#include "refine/refine.h"

/* A bnd_refine_step; positions are calibrated anew. Like equalization it changes what single layers compute: the float twin has to be renewed. */
bnd_status bnd_refine_fit(bnd_refinement *work, bnd_string *report, bnd_error *error);
/* The same for a network whose statistics are known, but positions stay those of the ranges before. */
bnd_status bnd_fit_ranges(bnd_refinement *work, const bnd_channel_statistics *statistics, bnd_string *report, bnd_error *error);

#endif
