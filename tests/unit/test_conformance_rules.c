/* Conformance cases for the hardware rules on positions: each rule alone, from positions that break it, then all of them. */
#include "conformance.h"

static const conformance_row ROWS[] = {
    {"concat_scales", 7, .rules = 1},
    {"relu_sigmoid", 5, .rules = 1, .frozen = {{BND_OP_MUL, 1}}},
    {"add_of_two", 7, .rules = 1},
    {"add_and_mul", 9, .rules = 2},
    {"add_and_mul_of_floats", .quantizers = 9},
    {"buffer_weight", 10, .rules = 1, .frozen = {{BND_OP_CONV2D, 1}, {BND_OP_CONV2D_MODULE, 2}}},
    {"buffer_weight_and_bias", 11, .rules = 1, .frozen = {{BND_OP_CONV2D, 1}, {BND_OP_CONV2D_MODULE, 2}}},
    {"pool_sigmoid", 6, .rules = 1},
    {"swish_and_almost", 14, .rules = 1},
};

int main(void) { return run_cases(ROWS, sizeof ROWS / sizeof *ROWS); }
