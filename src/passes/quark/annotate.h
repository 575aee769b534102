/* What each node wants quantized: result of the annotators, input of the insertion. */
#ifndef BND_PASSES_QUARK_ANNOTATE_H
#define BND_PASSES_QUARK_ANNOTATE_H

#include "passes/quark/rewrite.h"

typedef struct bnd_annotated_input {
  bnd_node *input;
  const bnd_quantizer_spec *spec;
} bnd_annotated_input;

typedef struct bnd_annotation {
  bool annotated;
  bnd_annotated_input *inputs; /* in the order they were listed, each input once */
  size_t input_count, input_capacity;
  const bnd_quantizer_spec *output; /* NULL = the output is not quantized */
  const bnd_quantizer_spec *weight, *bias; /* convolution modules */
} bnd_annotation;

/* One annotation for each node id; specs point into config. Free with bnd_annotations_free(annotations, count). */
bnd_status bnd_quark_annotate(bnd_graph *graph, const bnd_layer_config *config, bnd_annotation **annotations, bnd_error *error);
void bnd_annotations_free(bnd_annotation *annotations, size_t count);

#endif
