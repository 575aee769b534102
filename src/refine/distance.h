/* How far a network's detections are from its float twin's, without labels. Keeps what the twin says about some images, so that many variants can be
   compared. Takes outputs 0 and 1 of the graph for boxes [1,A,4] (corners) and scores [1,A,N]; networks with other outputs are compared by the mean
   squared difference of all outputs over their mean square.

   For anchors a with the twin's best score t_a: sum over a and classes of (s - t)^2, plus sum over a of t_a^2 (1 - IoU of both boxes), over the sum of
   t_a^2, all sums running over all images. 0 = equal; an anchor matters as much as the twin believes in it, false alarms count in full. */
#ifndef BND_REFINE_DISTANCE_H
#define BND_REFINE_DISTANCE_H

#include "refine/refine.h"

typedef struct bnd_distance bnd_distance;

/* Runs the teacher over the first `limit` images (0 = all) and keeps its outputs: A * (4 + N) floats for each image. */
bnd_status bnd_distance_create(const bnd_refinement *work, const bnd_image_source *images, size_t limit, bnd_distance **distance, bnd_error *error);
void bnd_distance_destroy(bnd_distance *distance); /* NULL is fine */
/* Of a graph with the teacher's outputs, run with its quantizers. Same number for any number of threads. */
bnd_status bnd_distance_measure(bnd_distance *distance, const bnd_graph *graph, double *value, bnd_error *error);

#endif
