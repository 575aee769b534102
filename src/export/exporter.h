/* What the parts of the exporter share. Private to export. */
#ifndef BND_EXPORT_EXPORTER_H
#define BND_EXPORT_EXPORTER_H

#include "export/constants.h"
#include "export/onnx_export.h"
#include "formats/onnx/onnx_build.h"

typedef struct bnd_exporter {
  const bnd_graph *graph;
  bnd_onnx_builder *builder;
  bnd_constants constants;
  bool *live;          /* [id] contributes to an output of the file */
  const char **values; /* [id * BND_MAX_RESULTS + result] name of the value in the file; NULL = not written (yet) */
  const char **wanted; /* the same, for values that are outputs of the file: the name they must get */
  bnd_tensor *folded;  /* weights made for the file; must live until it is written */
  size_t folded_count, folded_capacity;
} bnd_exporter;

/* One result of a node. */
typedef struct bnd_result {
  const bnd_node *node;
  int index;
} bnd_result;

/* Looks through operators that hand on their input: stubs, contiguous, dropout, conversions to float32, getitem. */
bnd_result bnd_export_origin(const bnd_node *node);
/* Name of a result in the file; constants become initializers when first asked for. NULL when it has none: a defect of the graph or short memory. */
const char *bnd_export_value(bnd_exporter *exporter, bnd_result result);
/* For results made of several ONNX nodes: from now on users of the result read `name`. */
void bnd_export_set_value(bnd_exporter *exporter, bnd_result result, const char *name);
/* Takes over a tensor an initializer refers to: it lives until the file is written. */
bnd_status bnd_export_keep(bnd_exporter *exporter, const bnd_tensor *tensor, bnd_error *error);
/* Where a node stands: its module's path, else the attribute's or its own name. */
const char *bnd_export_path(const bnd_node *node);

/* Appends the ONNX node "<path>/<op_type>". The last node made for a graph node carries that node's name and is what its users read. */
typedef enum bnd_export_place { BND_EXPORT_PART, BND_EXPORT_LAST } bnd_export_place;
Onnx__NodeProto *bnd_export_node(bnd_exporter *exporter, const bnd_node *node, const char *op_type, bnd_export_place place, const char *const *inputs,
                                 size_t count);
#define BND_EXPORT_NODE(exporter, node, op_type, place, ...) \
  bnd_export_node(exporter, node, op_type, place, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))
/* What an ONNX node puts out; NULL in, NULL out. */
static inline const char *bnd_export_output(const Onnx__NodeProto *node) {
  return node ? node->output[0] : NULL;
}

/* QuantizeLinear + DequantizeLinear behind the value `input`; node names "<path>/QuantizeLinear". `node` as above, NULL for weights.
 *output = name of the result. */
bnd_status bnd_export_quantizer(bnd_exporter *exporter, const bnd_node *node, const bnd_quantizer *quantizer, const char *path, const char *input,
                                const char **output, bnd_error *error);

/* Writes one node of the graph (onnx_operators.c). */
bnd_status bnd_export_operator(bnd_exporter *exporter, const bnd_node *node, bnd_error *error);
/* Convolutions, linear and their modules (onnx_layers.c); false = the node is none of them. */
bool bnd_export_is_layer(const bnd_node *node);
bnd_status bnd_export_layer(bnd_exporter *exporter, const bnd_node *node, bnd_error *error);
/* Gives every consumer its own pair (dedicated_pairs.c). */
bnd_status bnd_export_dedicate_pairs(bnd_onnx_builder *builder, bnd_error *error);

/* The value read by argument `index`, a number becoming a scalar initializer; fails when there is none. */
bnd_status bnd_export_input(bnd_exporter *exporter, const bnd_node *node, int index, const char **value, bnd_error *error);
bnd_status bnd_export_unsupported(const bnd_node *node, const char *why, bnd_error *error);

#endif
