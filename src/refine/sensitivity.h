/* Which tensors cost how much when they are quantized: each alone in the float network, and the quantized network without it. */
#ifndef BND_REFINE_SENSITIVITY_H
#define BND_REFINE_SENSITIVITY_H

#include "refine/refine.h"

typedef enum bnd_tensor_kind { BND_TENSOR_ACTIVATION, BND_TENSOR_WEIGHT, BND_TENSOR_BIAS } bnd_tensor_kind;
const char *bnd_tensor_kind_name(bnd_tensor_kind kind); /* "activation" */

typedef struct bnd_sensitivity_row {
  const char *node;      /* the quantizer's node; of weights and biases the layer's */
  const char *place;     /* module that made the tensor, "backbone.stem.conv"; "" = unknown */
  bnd_tensor_kind kind;
  int node_id, position; /* position: with the target's rules enforced */
  double alone;          /* distance of the float network with this tensor quantized as in the graph, and nothing else */
  double without;        /* distance of the network with everything quantized but this; NaN = not measured, the bound was reached */
  const char *remedy;    /* one line for a person; static */
} bnd_sensitivity_row;

typedef struct bnd_sensitivity {
  bnd_sensitivity_row *rows; /* most harmful first: by `alone`, then in the order of the graph */
  size_t count;
  double everything;         /* distance of the quantized network */
  size_t images;             /* it was measured with */
  bnd_arena *names;
} bnd_sensitivity;

typedef struct bnd_sensitivity_options {
  size_t images;   /* 0 = 4; fewer when the bound asks for it, at least one */
  size_t runs;     /* bound: the network runs over so many images in all, and a few for the comparison itself; 0 = 2400 */
  bool only_alone; /* leave out the second measurement */
  bool no_biases;
} bnd_sensitivity_options;

/* Uses work->held_out. The bound counts runs, not seconds, so the result is the same on every machine and for any number of threads: images are given up first,
   then `without` for the least harmful tensors. work->graph is not changed. options NULL: defaults. Free with bnd_sensitivity_free. */
bnd_status bnd_sensitivity_measure(const bnd_refinement *work, const bnd_sensitivity_options *options, bnd_sensitivity *table, bnd_error *error);
void bnd_sensitivity_free(bnd_sensitivity *table);

/* The first `limit` rows as text (0 = all), or all of them as JSON: {"images", "everything", "tensors": [{"node", "place", "kind", "position", "alone",
   "without", "remedy"}]}; `without` null when not measured. */
void bnd_sensitivity_print(const bnd_sensitivity *table, size_t limit, bnd_string *text);
void bnd_sensitivity_json(const bnd_sensitivity *table, bnd_string *text);

#endif
