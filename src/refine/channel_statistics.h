/* What calibration images show of every channel of every quantized activation of the float network. */
#ifndef BND_REFINE_CHANNEL_STATISTICS_H
#define BND_REFINE_CHANNEL_STATISTICS_H

#include "exec/stream.h"

typedef struct bnd_channel_statistics {
  int *first;     /* by node id of the fake quantizer: index of its channel 0 in the arrays below; -1 = none (not an activation [1,C,...]) */
  int ids, channels;
  double *mean, *square;    /* [channels] of x and of x^2 over all images and places */
  double *shift;            /* [channels] mean of Q(x) - x under the position in force: what rounding and clipping here add to the mean */
  float *minimum, *maximum; /* [channels] */
} bnd_channel_statistics;

/* Runs `graph` in BND_EXEC_FLOAT over the first `limit` images of the source (0 = all). Same numbers for any number of threads. Shapes must have been
   inferred. On failure nothing is owned. */
bnd_status bnd_channel_statistics_gather(const bnd_graph *graph, const bnd_image_source *images, size_t limit, bnd_exec_backend backend,
                                         const bnd_context *context, bnd_channel_statistics *statistics, bnd_error *error);
void bnd_channel_statistics_free(bnd_channel_statistics *statistics);

#endif
