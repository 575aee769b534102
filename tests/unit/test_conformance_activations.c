/* Conformance cases around activations, layer norm and dropout. */
#include "conformance.h"

static const conformance_row ROWS[] = {
    {"clip_to_relu", 8,
     .prepared = {{BND_OP_RELU_, 1}, {BND_OP_CLIP, 1}, {BND_OP_CLIP_, 1}, {BND_OP_CLAMP, 1}, {BND_OP_CLAMP_, 1}},
     .frozen = {{BND_OP_RELU_, 2}, {BND_OP_CLIP_, 1}, {BND_OP_CLAMP, 1}, {BND_OP_CLAMP_, 1}}},
    {"layer_norm", 10, .frozen = {{BND_OP_LAYER_NORM, 1}}},
    {"gelu", 4, .frozen = {{BND_OP_GELU, 1}}},
    {"sigmoid_to_hard_sigmoid", 5, .prepared = {{BND_OP_HARDSIGMOID, 2}}, .frozen = {{BND_OP_HARDSIGMOID, 2}}},
    {"silu_and_hard_swish", 6, .frozen = {{BND_OP_HARDSIGMOID, 1}, {BND_OP_HARDSWISH, 1}}},
    {"relu_silu", 6, .prepared = {{BND_OP_HARDSIGMOID, 1}, {BND_OP_MUL, 1}}},
    {"leaky_relu", 4, .frozen = {{BND_OP_LEAKY_RELU_MODULE, 1}}},
    {"dropout", 9, .prepared = {{BND_OP_DROPOUT, 1}, {BND_OP_LINEAR_MODULE, 1}}},
};

int main(void) { return run_cases(ROWS, sizeof ROWS / sizeof *ROWS); }
