/* Parts of a quantized graph that can be looked at on their own: which values go in, which come out, and the part as a graph. */
#ifndef BND_REFINE_BLOCKS_H
#define BND_REFINE_BLOCKS_H

#include "graph/graph.h"

/* A run of nodes between two cuts of the graph. Nodes are borrowed from the graph the blocks were found in. */
typedef struct bnd_block {
  bnd_node **inputs; /* computed before the block, in graph order; behind a fake quantizer, or the graph's own placeholder */
  int input_count;
  bnd_node **outputs; /* what other blocks read, and where convolutions that nothing quantized follows end: behind relu and fake quantizer */
  int output_count;
  int convolutions; /* modules with quantized weights */
} bnd_block;

typedef struct bnd_block_list {
  bnd_block *items;
  size_t count, capacity;
} bnd_block_list;

/* Splits the graph, from its nodes alone, into blocks that follow each other and together hold every convolution with quantized weights. A cut runs
   where everything computed so far and still needed by such convolutions is quantized. Of the cuts that leave at most `most_convolutions` in a block
   the one crossed by the fewest tensors is taken, of equal ones the last; where there is none the block is larger. The same graph gives the same
   blocks whatever its weights and positions. */
bnd_status bnd_blocks_find(const bnd_graph *graph, int most_convolutions, bnd_block_list *list, bnd_error *error);
void bnd_blocks_free(bnd_block_list *list);

/* A graph of its own that computes `outputs` from `inputs` (its placeholders, in this order). Nodes are looked up in `graph` by name, so they may come
   from a copy of it. Names and ids are those of `graph`, tensors shared, quantizers copied, shapes inferred. */
bnd_status bnd_block_graph(const bnd_graph *graph, bnd_node *const *inputs, int input_count, bnd_node *const *outputs, int output_count,
                           bnd_graph **result, bnd_error *error);

#endif
