/* Calibration: the float network runs over images, every quantizer sees its tensor, positions follow (fx-quantization section 5). */
#ifndef BND_CALIB_CALIBRATE_H
#define BND_CALIB_CALIBRATE_H

#include "exec/stream.h"

typedef struct bnd_calibration {
  size_t batch;              /* images whose ranges make one vote, as the batch size did in the original; at least 1 */
  bnd_exec_backend backend;
} bnd_calibration;

/* Puts calibrated positions in force in every quantizer of `graph` (activations, weights, biases). Results do not depend on the number of threads.
   BND_ERROR_MODEL with the node's name when a value is not finite. */
bnd_status bnd_calibrate(bnd_graph *graph, const bnd_image_source *source, const bnd_calibration *calibration, const bnd_context *context, bnd_error *error);

/* Fills bnd_quantizer.saturated of activations: the share of values (over the source's images, float network) that the positions in force clip;
   of weights and biases likewise. */
bnd_status bnd_measure_saturation(bnd_graph *graph, const bnd_image_source *source, const bnd_context *context, bnd_error *error);

#endif
