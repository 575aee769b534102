/* ONNX file -> graph, in FX terms, shapes inferred.

   QuantizeLinear + DequantizeLinear becomes a fake quantizer; around weights and biases it becomes the quantizer of a convolution module.
   Files written by bnd_export_onnx come back with their node names and scopes; others get names made from the ONNX names.
   The file may be hostile: every reference, shape and attribute is checked, external data and operators unknown here are refused by name. */
#ifndef BND_IMPORT_ONNX_IMPORT_H
#define BND_IMPORT_ONNX_IMPORT_H

#include "graph/graph.h"

typedef struct bnd_onnx_import_options {
  /* Quantizers hold exponents, so a scale that is no power of two cannot be represented. NULL: such a file is refused. Otherwise the nearest
     power of two is taken and a line "NAME: scale 0.0123 is not a power of two" appended for each: what a checker reports. */
  bnd_string *findings;
  /* Called for every key and value of the model's metadata, in file order; the text is valid during the call. NULL: not wanted. */
  void (*metadata)(void *user, const char *key, const char *value);
  void *user;
} bnd_onnx_import_options;

/* options may be NULL. *graph is owned by the caller; its output value is the list of the file's outputs. */
bnd_status bnd_import_onnx(const char *path, const bnd_onnx_import_options *options, bnd_graph **graph, bnd_error *error);

#endif
