/* Conformance cases around pools, means, splits and slices. */
#include "conformance.h"

static const conformance_row ROWS[] = {
    {"means_and_pools", 20,
     .prepared = {{BND_OP_MEAN, 2}, {BND_OP_ADAPTIVE_AVG_POOL2D, 1}, {BND_OP_GLOBAL_AVG_POOL2D_MODULE, 4}, {BND_OP_AVG_POOL2D_MODULE, 1}}},
    {"split_to_slices", 27, .prepared = {{BND_OP_SLICE, 16}, {BND_OP_CAT, 4}, {BND_OP_CONV2D_MODULE, 2}}},
    {"large_global_pool", 12, .frozen = {{BND_OP_GLOBAL_AVG_POOL2D_MODULE, 2}, {BND_OP_AVG_POOL2D_MODULE, 2}}},
    {"idle_slices", 11, .prepared = {{BND_OP_SLICE, 3}}, .frozen = {{BND_OP_SLICE, 3}}},
    {"six_global_pools", 30, .frozen = {{BND_OP_GLOBAL_AVG_POOL2D_MODULE, 6}}},
    {"six_average_pools", 10, .frozen = {{BND_OP_AVG_POOL2D_MODULE, 6}}},
    {"pools_in_a_row", 7, .rules = 1, .frozen = {{BND_OP_GLOBAL_AVG_POOL2D_MODULE, 1}, {BND_OP_AVG_POOL2D_MODULE, 1}}},
};

int main(void) { return run_cases(ROWS, sizeof ROWS / sizeof *ROWS); }
