/* What the parts of the importer share. Private to import. */
#ifndef BND_IMPORT_IMPORTER_H
#define BND_IMPORT_IMPORTER_H

#include "import/onnx_import.h"
#include "onnx.pb-c.h"
#include "ops/operators.h"

/* A named value of the file. Constants become graph nodes only when a tensor is asked for, so that weights can move into modules. */
typedef enum bnd_import_kind {
  BND_IMPORT_NODE,     /* computed by a node of the graph */
  BND_IMPORT_CONSTANT, /* tensor, behind a fake quantizer if `quantizer` is set */
  BND_IMPORT_CODES     /* what QuantizeLinear puts out: only DequantizeLinear may read it */
} bnd_import_kind;

typedef struct bnd_import_value {
  bnd_import_kind kind;
  const char *name;                /* of the value */
  bnd_node *node;                  /* NODE; CONSTANT once it was asked for */
  bnd_tensor tensor;               /* CONSTANT; owned */
  bnd_quantizer *quantizer;        /* CONSTANT, CODES; owned */
  const Onnx__NodeProto *maker;    /* CODES: the QuantizeLinear; CONSTANT behind a quantizer: its DequantizeLinear, which names the quantizer */
  struct bnd_import_value *source; /* CODES: what was quantized; CONSTANT behind a quantizer: the constant before it, NULL = none in the file */
  struct bnd_import_value *turned; /* CONSTANT: the value with its two dimensions exchanged, once it exists */
} bnd_import_value;

typedef struct bnd_importer {
  const Onnx__GraphProto *proto;
  const bnd_onnx_import_options *options;
  int64_t opset;
  bnd_graph *graph;
  bnd_arena *arena; /* values and texts */
  bnd_import_value **values;
  size_t value_count, value_capacity;
  bnd_map names;        /* value name -> index in values */
  bnd_map readers;      /* value name -> number of inputs and graph outputs that read it */
  bnd_map first_reader; /* value name -> index of the first node that reads it */
  bool *done;           /* [node] read already, as part of a pattern */
} bnd_importer;

/* --- values (values.c) --- */
/* A copy of the text that lives as long as the graph; NULL when memory is short, which bnd_graph_status reports. */
const char *bnd_import_kept(bnd_importer *importer, const char *text);
/* Adds a value; a name that exists already is an error. */
bnd_status bnd_import_add(bnd_importer *importer, const char *name, bnd_import_kind kind, bnd_import_value **value, bnd_error *error);
bnd_status bnd_import_add_node(bnd_importer *importer, const char *name, bnd_node *node, bnd_error *error);
/* The value read by input `index`; *value = NULL when the input is absent, which is an error unless `optional`. */
bnd_status bnd_import_input(const bnd_importer *importer, const Onnx__NodeProto *proto, size_t index, bool optional, bnd_import_value **value,
                            bnd_error *error);
/* The graph node of a value or of an input, made when needed. */
bnd_status bnd_import_node_of(bnd_importer *importer, bnd_import_value *value, bnd_node **node, bnd_error *error);
bnd_status bnd_import_input_node(bnd_importer *importer, const Onnx__NodeProto *proto, size_t index, bnd_node **node, bnd_error *error);
/* How many inputs and outputs read a value. */
int bnd_import_readers(const bnd_importer *importer, const char *name);
/* A float constant of rank 0 without quantizer. */
bool bnd_import_is_scalar(const bnd_import_value *value, double *number);
/* Numbers of an int64 (or int32) constant; fails when it is none or has more than `limit`. */
bnd_status bnd_import_ints(const bnd_import_value *value, const char *what, int64_t *numbers, int limit, int *count, bnd_error *error);

/* Absent texts are NULL in the messages. */
static inline const char *bnd_import_text(const char *text) {
  return text ? text : "";
}

/* --- attributes --- */
const Onnx__AttributeProto *bnd_import_attribute(const Onnx__NodeProto *proto, const char *name); /* NULL = absent */
int64_t bnd_import_int(const Onnx__NodeProto *proto, const char *name, int64_t otherwise);
double bnd_import_float(const Onnx__NodeProto *proto, const char *name, double otherwise);
bool bnd_import_text_is(const Onnx__NodeProto *proto, const char *name, const char *value, bool otherwise);
/* Returns how many numbers the attribute has (0 = absent), -1 when more than `limit`. */
int bnd_import_int_list(const Onnx__NodeProto *proto, const char *name, int64_t *numbers, int limit);
/* Axes from the attribute (older operator sets) or from input `index` (newer ones); *count = 0 when neither is there. */
bnd_status bnd_import_axes(const bnd_importer *importer, const Onnx__NodeProto *proto, const char *name, size_t index, int64_t axes[BND_MAX_RANK],
                           int *count, bnd_error *error);

/* --- nodes --- */
/* Calls a function or (module != NULL) a module and infers its shape; name and scope come from the ONNX node. */
bnd_status bnd_import_call(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_operator_id id, bnd_module *module, const bnd_arg *args,
                           int count, bnd_node **node, bnd_error *error);
/* The same, its result being the ONNX node's first output. */
bnd_status bnd_import_result(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_operator_id id, const bnd_arg *args, int count,
                             bnd_error *error);
/* Names: what the exporter noted, else made from the ONNX name; scope NULL = unknown. NULL name = memory is short. */
const char *bnd_import_name(bnd_importer *importer, const Onnx__NodeProto *proto);
const char *bnd_import_scope(bnd_importer *importer, const Onnx__NodeProto *proto, const char *name);

/* --- parts --- */
bnd_status bnd_import_tensor(const Onnx__TensorProto *proto, bnd_tensor *tensor, bnd_error *error); /* onnx_tensor.c */
bnd_status bnd_import_merge_pairs(bnd_importer *importer, bnd_error *error); /* merge_pairs.c; before anything is counted or read */
typedef bnd_status bnd_import_rule(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error);
bnd_import_rule bnd_import_quantize, bnd_import_dequantize;                                                        /* import_quantizers.c */
bnd_import_rule bnd_import_conv, bnd_import_gemm, bnd_import_matmul, bnd_import_batch_norm, bnd_import_layer_norm; /* import_layers.c */
bnd_import_rule bnd_import_max_pool, bnd_import_average_pool, bnd_import_global_pool, bnd_import_reduce;           /* import_pools.c */
/* Padding that is the same on both sides, from `pads` or `auto_pad`. */
bnd_status bnd_import_padding(const Onnx__NodeProto *proto, const bnd_shape *input, const int64_t kernel[2], const int64_t stride[2],
                              const int64_t dilation[2], int64_t padding[2], bnd_error *error);
/* A pool times a number becomes one module; *done = false when that is not what the Mul is. */
bnd_status bnd_import_scaled_pool(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_node *pool, double factor, bool *done, bnd_error *error);
/* A constant matrix with its dimensions exchanged, quantizer and all, under `name`; the one it was made from when it was turned already. */
bnd_status bnd_import_turned(bnd_importer *importer, bnd_import_value *value, const char *name, bnd_import_value **turned, bnd_error *error);
/* NULL = this operator is not known (import_operators.c). *inputs: the most it takes. */
bnd_import_rule *bnd_import_rule_of(const char *op_type, size_t *inputs);

#endif
