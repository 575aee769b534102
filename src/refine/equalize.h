/* Cross-layer equalization (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1), extended to
   activations: a channel may be made smaller by any positive factor where it is made and larger where it is read. The float network stays the same; what
   changes is how well each channel uses its tensor's one scale. */
#ifndef BND_REFINE_EQUALIZE_H
#define BND_REFINE_EQUALIZE_H

#include "refine/refine.h"

typedef struct bnd_equalize_options {
  size_t images;      /* whose statistics are used: the first so many; 0 = 32 */
  int iterations;     /* 0 = 100 */
  bool powers_of_two; /* factors: exact in float, but coarser */
  double weights;     /* how much noise of weights counts beside that of activations; 0 = 1 */
  double largest;     /* no factor is larger than this or smaller than its inverse; 0 = 16 */
} bnd_equalize_options;

/* Channels made alike; positions stay those of the ranges before. */
bnd_status bnd_equalize_channels(bnd_refinement *work, const bnd_equalize_options *options, bnd_string *report, bnd_error *error);
/* The same, and all quantizers calibrated anew. */
bnd_status bnd_refine_equalize_with(bnd_refinement *work, const bnd_equalize_options *options, bnd_string *report, bnd_error *error);
/* A bnd_refine_step: channels made alike, ranges fitted to powers of two (fit.h), all quantizers calibrated anew. What single layers compute has changed, what
   the network computes has not: whoever compares layers has to renew the float twin. */
bnd_status bnd_refine_equalize(bnd_refinement *work, bnd_string *report, bnd_error *error);

#endif
