/* Bias correction (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", sections 3.3 and 4.2): quantization
   shifts the mean of a layer's outputs; the bias takes the shift back. New biases get new positions from the observer of their quantizer, since a larger
   bias may need a larger scale. Layers without a bias stay as they are. */
#ifndef BND_REFINE_BIAS_CORRECTION_H
#define BND_REFINE_BIAS_CORRECTION_H

#include "refine/refine.h"

/* Analytic: b -= sum over inputs and window of Q(W) E[Q(x)] - W E[x], what rounded weights and rounded and clipped inputs add to the mean. E[x] of each
   input channel is that of the float network over the calibration images, E[Q(x)] adds what the quantizers since the layers before add to it; at borders
   padding makes both a little smaller than assumed. One pass over the images; all layers at once, each answers for its own inputs only. */
bnd_status bnd_refine_bias_analytic(bnd_refinement *work, bnd_string *report, bnd_error *error);

/* Empirical: mean of each output channel (in front of the activation) in the teacher and in the quantized network, whose earlier layers have been
   corrected by then; b += the difference. Takes whatever moves the mean into account: rounded weights, rounded biases, rounded and clipped inputs.
   Layers are corrected in the order of their depth; a round runs both networks up to its deepest layer. With fewer rounds than the network is deep, layers
   of several depths are corrected at once and answer for the same shift more than once: that was found to do harm. */
typedef struct bnd_bias_options {
  size_t images; /* the first so many calibration images; 0 = 16 */
  int rounds;    /* at most so many; 0 = as many as the network is deep, one layer after the other */
} bnd_bias_options;
bnd_status bnd_refine_bias_empirical(bnd_refinement *work, const bnd_bias_options *options, bnd_string *report, bnd_error *error); /* options NULL: defaults */

/* Replaces a layer's bias (values [count of it]) and gives its quantizer, if any, the position its observer finds. */
bnd_status bnd_replace_bias(bnd_module *module, const float *values, bnd_error *error);

#endif
