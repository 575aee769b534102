/* Graph -> ONNX file, operator set 17, static shapes, readable names ("backbone.stem.conv/Conv").

   Float graphs become plain float networks (batch norms that were not folded by a pass stay BatchNormalization nodes; the batch norm of a
   convolution module is folded into its weights, as the module computes). A fake quantizer becomes QuantizeLinear + DequantizeLinear with a
   power-of-two scale and an int8 (uint8) zero point; quantized weights and biases stay float initializers, each followed by its own pair:
   fx-quantization 8.1, the structure of Quark's own export. Values that depend on no input (anchors, strides) are computed beforehand.
   Every node that stands for a node of the graph carries that node's name in its doc_string, so that reading the file back restores it. */
#ifndef BND_EXPORT_ONNX_EXPORT_H
#define BND_EXPORT_ONNX_EXPORT_H

#include "graph/graph.h"

typedef struct bnd_onnx_export_options {
  const char *const *input_names;  /* NULL: the placeholders' own names */
  int input_count;                 /* names given */
  const char *const *output_names; /* NULL: the names of the nodes that are put out */
  int output_count;                /* names given */
  int output_limit;                /* 0: all tensors of the output value (lists flattened, numbers left out); k: the first k; the rest is dead code */
  bool dedicated_qdq;              /* every consumer reads its own pair: shared pairs are repeated as "..._sp_<i>" (fx-quantization 8.3) */
  const char *graph_name;          /* NULL: "main_graph" */
  const char *const (*metadata)[2]; /* keys and values for the model's metadata */
  int metadata_count;
} bnd_onnx_export_options;

/* The graph's shapes must have been inferred (bnd_infer_shapes). options may be NULL. The same graph gives the same bytes.
   BND_ERROR_UNSUPPORTED names the node that has no ONNX form; nothing is written then. */
bnd_status bnd_export_onnx(const bnd_graph *graph, const bnd_onnx_export_options *options, const char *path, bnd_error *error);

#endif
