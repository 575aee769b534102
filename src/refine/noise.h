/* What steps that scale channels share: how noise at a channel reaches the layers that read it, which tensors have one scale, and the scaling itself. */
#ifndef BND_REFINE_NOISE_H
#define BND_REFINE_NOISE_H

#include "refine/channel_statistics.h"
#include "refine/channels.h"
#include "refine/refine.h"

/* Variance of a layer's outputs behind its activation, summed over its channels; 0 = unknown, no quantizer looks at them. */
double bnd_output_variance(const bnd_node *layer, const bnd_channel_statistics *statistics);

/* sensitivity [channels->slots, zeroed]: by how much noise of variance 1 at every place of this channel of a node's result raises the sum over the layers
   behind it of (noise at their outputs) / (variance of their outputs). Noise passes sums, concatenations, pools and activations and ends in layers. */
void bnd_noise_sensitivities(const bnd_graph *graph, const bnd_channels *channels, const bnd_channel_statistics *statistics, double *sensitivity);

/* Inputs and output of concatenations and max pools have one scale in the end. term_of [by node id] holds a number >= 0 for each quantizer that is looked at
   and -1 elsewhere; those under one scale get the smallest of their numbers. */
void bnd_share_ranges(const bnd_graph *graph, int *term_of);
/* A quantizer whose input is on its grid already, because of that rule. */
bool bnd_is_exact_quantizer(const bnd_node *quantizer);

/* Divides each channel by its class's factor where it is made and multiplies it where it is read; only free classes are scaled. Weights are new tensors, ranges
   and positions stay as they were. *layers: how many have a channel that may be scaled. */
bnd_status bnd_scale_channels(bnd_graph *graph, const bnd_channels *channels, const double *factors, int *layers, bnd_error *error);
/* Calibrates all quantizers of work->graph from the beginning, all images in one batch. */
bnd_status bnd_calibrate_again(bnd_refinement *work, bnd_error *error);

#endif
