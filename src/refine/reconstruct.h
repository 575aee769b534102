/* Block-wise reconstruction: weights, biases and, if asked for, thresholds of one block of the quantized network after the other are trained until the
   block computes, from what the quantized network in front of it gives it, what the same block computes in the float network.

   Blocks and their order: Li et al. 2021 (BRECQ). Training weights against a layer's float output instead of rounding them to nearest: Nagel et al.
   2020 (AdaRound); here with the straight-through estimator and steps measured in steps of the grid. log2 thresholds: Jain et al. 2020 (TQT).
   Unlabelled images; no gradient leaves a block.

   Blocks are compared with those of work->teacher, value by value. Where channels have been equalized since the teacher was copied, values inside the
   network differ by factors: the teacher must then be a copy of the equalized graph, which in float computes the same. */
#ifndef BND_REFINE_RECONSTRUCT_H
#define BND_REFINE_RECONSTRUCT_H

#include "refine/refine.h"

enum { BND_BLOCK_CONVOLUTIONS = 8 };

/* Zero in a field means its default. */
typedef struct bnd_reconstruct_options {
  int most_convolutions; /* in a block, where the graph can be cut so. BND_BLOCK_CONVOLUTIONS */
  int steps;             /* for each block, at most. 300 */
  int batch;             /* images in a step. 4 */
  double learning_rate;  /* in steps of a parameter's grid; falls to 0 as a cosine. 0.05 */
  size_t memory;         /* bytes for images of a block and for training it; early blocks, which are large, see fewer images. 1 GiB */
  bool learn_thresholds; /* positions move, too, by threshold_rate * learning_rate in log2 */
  double threshold_rate; /* 0.2 */
  const double *harm;    /* of each block, as bnd_reconstruct_harm tells it: what is left of work->minutes is shared out in proportion. NULL = evenly */

  /* For going on later. finished is called after every block; the graph is then all there is to save, and a failure ends the work. A call with the
     saved graph and first_block = the number of blocks finished gives the same bytes as one that was never interrupted. */
  size_t first_block;
  bnd_status (*finished)(void *user, size_t blocks_done, size_t block_count, const bnd_graph *graph, bnd_error *error);
  void *user;
} bnd_reconstruct_options;

/* What each block costs alone: the distance of the float network with that block as it is in work->graph, over a few calibration images. The caller frees
   *harm. */
bnd_status bnd_reconstruct_harm(const bnd_refinement *work, const bnd_reconstruct_options *options, double **harm, bnd_error *error);

/* options NULL = all defaults. With work->minutes each block is trained for its share of them at most, and left as it is where that is too little; the
   result then depends on the machine's speed. Each block keeps the best of what it was and what training made of it, judged on images it was not trained on: the first
   ones of work->held_out, or the last eighth of work->images where there are none. */
bnd_status bnd_refine_reconstruct(bnd_refinement *work, const bnd_reconstruct_options *options, bnd_string *report, bnd_error *error);

#endif
