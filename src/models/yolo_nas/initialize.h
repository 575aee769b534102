/* Fresh YOLO-NAS networks: widths between the published ones, and initial values as super-gradients and PyTorch draw them
   (yolo-nas-model.md, section 5.5; data-training-metrics.md, section 4.6):
     weights and biases of convolutions  uniform in +-1/sqrt(fan_in)   (kaiming_uniform_ with a = sqrt(5); fan_in = shape[1] x kernel area)
     biases of the class predictions     -ln(99): a prior probability of 0.01
     batch norms                         weight 1, bias 0, mean 0, variance 1, no batches
     alpha of the bottlenecks            1
   The random numbers are a function of seed, tensor name and element: the same on every machine, whatever else is drawn. */
#ifndef BND_MODELS_YOLO_NAS_INITIALIZE_H
#define BND_MODELS_YOLO_NAS_INITIALIZE_H

#include "models/yolo_nas/state.h"

/* The published variant 'S', 'M' or 'L' with every channel count multiplied by `width` (1 = as published), reg_max 16, 3 input channels. A count
   is truncated, at least 4; neck outputs and heads are then rounded up to multiples of 8, as super-gradients' width_multiplier does.
   BND_ERROR_ARGUMENT: another letter, width outside of (0, 16], less than one class or more than 65536. */
bnd_status bnd_yolo_nas_scaled(char variant, double width, int classes, bnd_yolo_nas_architecture *architecture, bnd_error *error);

/* A network that has learned nothing, in training form. */
bnd_status bnd_yolo_nas_state_initialize(const bnd_yolo_nas_architecture *architecture, uint64_t seed, bnd_yolo_nas_state **state, bnd_error *error);

/* Gives a network another number of classes: heads.headK.cls_pred.* become fresh ones, all else stays. Nothing happens if it has that number.
   (super-gradients' replace_head draws them from a normal distribution with mean and deviation of the old ones; starting from the prior
   probability keeps the first losses small.) On errors the state is as before. */
bnd_status bnd_yolo_nas_state_replace_classes(bnd_yolo_nas_state *state, int classes, uint64_t seed, bnd_error *error);

#endif
