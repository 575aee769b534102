/* The graph side of Quark's FX flow, step by step (reference: AMD Quark 0.11.2, quark/torch/quantization/graph). Everything that belongs to that
   flow alone (where nodes are placed, what they are called, in which order passes run) is in this folder. */
#ifndef BND_PASSES_QUARK_QUARK_H
#define BND_PASSES_QUARK_QUARK_H

#include "graph/graph.h"
#include "passes/config.h"

/* Marks nodes outside the scope of QuantStub / DeQuantStub (tag_quant_node.py). Without stubs everything is inside. */
bnd_status bnd_quark_mark_scope(bnd_graph *graph, bnd_error *error);

/* A1-A6: functional convolutions, transposed convolutions and linear become modules, batch norm goes into them; also behind a concat. */
bnd_status bnd_quark_functions_to_modules(bnd_graph *graph, bnd_error *error);
bnd_status bnd_quark_batch_norm_after_concat(bnd_graph *graph, bnd_error *error); /* A3 */
/* A7-A9: reshapes free of the batch size, scalars as tensors, silu as sigmoid and mul. */
bnd_status bnd_quark_normalize(bnd_graph *graph, bnd_error *error);
/* B1, B2: a module record for each call; lone batch norm as depthwise convolution. */
bnd_status bnd_quark_split_shared_modules(bnd_graph *graph, bnd_error *error);
bnd_status bnd_quark_batch_norm_to_convolution(bnd_graph *graph, bnd_error *error);
/* B3-B6: mean as global pool, large global pools in two steps, pools as modules with the DPU's factor. */
bnd_status bnd_quark_pools(bnd_graph *graph, bnd_error *error);
/* B7-B11: split as slices, no-op slices away, sigmoid as hard sigmoid, silu as hard swish, leaky relu with the DPU's slope. */
bnd_status bnd_quark_hardware_operators(bnd_graph *graph, bnd_error *error);
/* All of the above but the scope, in Quark's order. */
bnd_status bnd_quark_prepare(bnd_graph *graph, bnd_error *error);
/* The same, but outside the scope activations stay what they are: it is computed in float, elsewhere. */
bnd_status bnd_quark_prepare_scope(bnd_graph *graph, bnd_error *error);

/* Annotates and inserts quantizers: a FAKE_QUANTIZE node behind every quantized tensor (`fake_quantizer_N`), weight and bias quantizers in modules. */
bnd_status bnd_quark_insert_quantizers(bnd_graph *graph, const bnd_quantization_config *config, bnd_error *error);
/* Per-layer overrides. A name that matches nothing is an error that lists near names. */
bnd_status bnd_quark_apply_layer_configs(bnd_graph *graph, const bnd_quantization_config *config, bnd_error *error);

/* Batch norm merged into module weights as Quark's freeze does it, dropout removed. */
bnd_status bnd_quark_merge_batch_norm(bnd_graph *graph, bnd_error *error);

#endif
