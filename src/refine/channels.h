/* Which channels of a graph can be scaled: a channel and all it is tied to through operators that commute with a positive factor form a class. */
#ifndef BND_REFINE_CHANNELS_H
#define BND_REFINE_CHANNELS_H

#include "ops/operators.h"

typedef struct bnd_channels {
  int *first;     /* by node id: index of the node's channel 0 in class_of; -1 = its result is no image [1,C,H,W] */
  int *class_of;  /* [slots] class of a channel, 0 .. classes - 1 */
  int slots, ids;
  int classes;
  bool *free;     /* [classes] may be scaled: made by convolutions only, read by convolutions only */
} bnd_channels;

/* Works on graphs with modules, with or without fake quantizers, shapes inferred. Tied are input and output of fake quantizers, relu, max pools and
   products with one number, all terms of an add of equal shapes, and inputs and output of a concatenation of channels. Grouped convolutions tie nothing.
   Everything else holds its inputs and outputs fast. */
bnd_status bnd_channels_find(const bnd_graph *graph, bnd_channels *channels, bnd_error *error);
void bnd_channels_free(bnd_channels *channels);

/* Class of channel c of a node's result; -1 = none. */
static inline int bnd_channel_class(const bnd_channels *channels, const bnd_node *node, int64_t c) {
  return node && channels->first[node->id] >= 0 ? channels->class_of[channels->first[node->id] + (int)c] : -1;
}

/* The same, -1 also for a class that may not be scaled. */
static inline int bnd_free_class(const bnd_channels *channels, const bnd_node *node, int64_t c) {
  const int class = bnd_channel_class(channels, node, c);
  return class >= 0 && channels->free[class] ? class : -1;
}

/* The number a product multiplies with: a constant of one value, perhaps quantized; 1 for anything else. */
double bnd_number_of(const bnd_node *node);

/* A convolution's weight seen as [rows][columns][window]; for a row and a column the channel of its input and of its output. */
typedef struct bnd_weight_view {
  bool transposed;
  size_t rows, columns, window, rows_in_group;
} bnd_weight_view;
bnd_weight_view bnd_weight_view_of(const bnd_node *layer);
static inline size_t bnd_weight_input(const bnd_weight_view *v, size_t row, size_t column) {
  return v->transposed ? row : row / v->rows_in_group * v->columns + column;
}
static inline size_t bnd_weight_output(const bnd_weight_view *v, size_t row, size_t column) {
  return v->transposed ? row / v->rows_in_group * v->columns + column : row;
}
/* A convolution module whose weight and bias can be scaled. */
bool bnd_is_scalable_layer(const bnd_node *node);

#endif
