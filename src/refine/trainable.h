/* Weights and biases of a graph as what an optimizer moves: in memory of their own (graphs that are copies share tensors), with rates in steps of
   their grids. */
#ifndef BND_REFINE_TRAINABLE_H
#define BND_REFINE_TRAINABLE_H

#include "autograd/network.h"
#include "train/optimizer.h"

/* Gives every convolution with quantized weights weights and biases of its own. Before a network is made. */
bnd_status bnd_trainable_detach(bnd_graph *graph, bnd_error *error);

typedef struct bnd_trainable {
  bnd_network *network; /* borrowed */
  bnd_optimizer *optimizer;
  bnd_parameter **parameters; /* those that are trained */
  size_t count;
  float **best; /* values at the last bnd_trainable_keep */
} bnd_trainable;

/* Weights and biases of quantized convolutions, and thresholds (rate: threshold_rate times the learning rate). */
bnd_status bnd_trainable_create(const bnd_graph *graph, bnd_network *network, double threshold_rate, bnd_trainable *trainable, bnd_error *error);
void bnd_trainable_destroy(bnd_trainable *trainable);
void bnd_trainable_keep(bnd_trainable *trainable);
void bnd_trainable_restore(bnd_trainable *trainable); /* what was kept; thresholds put in force */

/* The share of a learning rate at step `step` of `steps`: a cosine from 1 to 0, by arithmetic that is the same on every machine. */
double bnd_cosine_share(int step, int steps);

/* Makes weights, biases and positions of `to` those of `from`, a copy of it or of a part of it. Tensors are shared. */
void bnd_trainable_hand_back(const bnd_graph *from, bnd_graph *to);

#endif
