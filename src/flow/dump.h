/* Inside `binade dump`: what is dumped, from the run (dump.c) over the convolutions in whole numbers (dump_convolutions.c) to the index (dump_index.c). */
#ifndef BND_FLOW_DUMP_H
#define BND_FLOW_DUMP_H

#include "flow/model.h"
#include "passes/target/target.h"

typedef enum bnd_dump_kind { BND_DUMP_INPUT, BND_DUMP_ACTIVATION, BND_DUMP_CONSTANT, BND_DUMP_WEIGHT, BND_DUMP_BIAS, BND_DUMP_OUTPUT } bnd_dump_kind;

/* One array: float32 where the network begins and ends, else the codes of a quantizer, as QuantizeLinear puts them out. */
typedef struct bnd_dump_tensor {
  bnd_dump_kind kind;
  int order;                      /* of computation; weight and bias have that of their layer */
  const char *node;               /* node of the graph */
  const char *tensor;             /* its name in the ONNX file; NULL = it has none there */
  const char *value;              /* name in the ONNX file of the values that codes stand for; NULL = none */
  const char *file;               /* in the output folder */
  const bnd_quantizer *quantizer; /* NULL = float32 */
  bnd_tensor data;                /* int8, uint8 or float32; owned */
  int minimum, maximum;           /* of the codes */
} bnd_dump_tensor;

/* A convolution, transposed convolution or linear layer in whole numbers (docs/numerics.md, section 3). */
typedef struct bnd_dump_layer {
  const bnd_node *node;
  int order;
  const bnd_dump_tensor *input, *weight, *bias, *output; /* bias, output: NULL = none */
  bool relu;                /* between accumulator and output */
  const char *why_not;      /* what keeps it from having an integer form; NULL = it has one, and what follows is set */
  int channels;             /* of the output */
  int *position;            /* [channels] of the accumulator: max(weight + input position, bias position) */
  int64_t minimum, maximum; /* accumulators seen, with bias */
  double bound;             /* largest magnitude of any sum of some of its products and the bias, whatever the input */
  const char *file;         /* of the accumulators; NULL = not asked for */
} bnd_dump_layer;

typedef struct bnd_dump_state {
  const bnd_model *model;
  const bnd_dump_options *options;
  const bnd_context *context;
  bnd_target_profile target;
  bnd_arena *arena; /* everything but the data of tensors */
  bnd_dump_tensor **tensors;
  size_t tensor_count, tensor_capacity;
  bnd_dump_tensor **of_node; /* by node id: what a fake quantizer puts out; NULL elsewhere */
  bnd_dump_layer **layers;
  size_t layer_count, layer_capacity;
  const char **written; /* paths of the finished files */
  size_t written_count, written_capacity;
} bnd_dump_state;

/* Codes of the values in `x`. Fails for values that are no numbers. */
bnd_status bnd_dump_quantize(const bnd_quantizer *quantizer, const bnd_shape *shape, const float *x, bnd_dump_tensor *tensor, bnd_error *error);
/* A file name for what belongs to a node; `suffix`: ".weight". NULL = memory short. */
const char *bnd_dump_file_name(bnd_dump_state *dump, int order, const char *node, const char *suffix);
/* Writes output/file. */
bnd_status bnd_dump_write(bnd_dump_state *dump, const char *file, bnd_dtype dtype, const bnd_shape *shape, const void *data, bnd_error *error);

/* Computes the accumulators of every layer, compares them with the outputs (a difference is an error that names the node) and writes them where asked
   for. */
bnd_status bnd_dump_layers(bnd_dump_state *dump, bnd_error *error);

void bnd_dump_index(const bnd_dump_state *dump, bnd_string *json);
void bnd_dump_summary(const bnd_dump_state *dump, bnd_string *text);
/* Bits of two's complement that hold both. */
int bnd_dump_bits(int64_t minimum, int64_t maximum);

#endif
