/* The files that tell a person or a program what a run did. */
#ifndef BND_FLOW_REPORTS_H
#define BND_FLOW_REPORTS_H

#include "binade/binade.h"
#include "graph/graph.h"
#include "passes/target/adjust.h"

struct bnd_json_writer;
struct bnd_qat;
struct bnd_run_state;

/* results.json; qat: how the network was trained, NULL = it was not. */
bnd_status bnd_write_results(const char *path, const char *command, const bnd_quantize_result *result, const struct bnd_qat *qat, bnd_error *error);

typedef struct bnd_quantization_report {
  const bnd_graph *graph; /* frozen */
  const bnd_target_profile *target;
  const char *recipe, *source_file, *source_sha256;
  uint64_t images, batch;
  const struct bnd_qat *qat;         /* NULL = not trained; otherwise */
  const struct bnd_run_state *state; /* knows the positions before training */
} bnd_quantization_report;
/* quantization.json: every quantizer in graph order, and the constraints still broken. */
bnd_status bnd_write_quantization(const char *path, const bnd_quantization_report *report, bnd_error *error);

/* One broken constraint as a JSON object. */
void bnd_write_violation(struct bnd_json_writer *writer, const bnd_violation *violation);

/* Calls visit for every quantizer of the graph in Quark's order and naming: activations where their node stands, weight and bias behind their layer's node. */
typedef struct bnd_quantizer_place {
  const char *kind;     /* "activation", "weight", "bias" */
  const char *observed; /* the node whose value it quantizes, or the layer's node */
  char name[320];       /* "fake_quantizer_17", "conv2d_3_bn_quantized_module.weight" */
  bnd_quantizer *quantizer;
  const bnd_shape *shape; /* of the tensor; activations: known after shape inference */
} bnd_quantizer_place;
void bnd_visit_quantizers(const bnd_graph *graph, void (*visit)(void *user, const bnd_quantizer_place *place), void *user);

#endif
