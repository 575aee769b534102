/* Conformance cases around convolutions, linear layers and batch norm: modules made of functions, one for each call, batch norm taken in. */
#include "conformance.h"

static const conformance_row ROWS[] = {
    {"convolution", 4, .prepared = {{BND_OP_CONV2D_MODULE, 1}}},
    {"batch_norm_to_convolution", 7, .prepared = {{BND_OP_CONV2D_MODULE, 2}}},
    {"shared_modules", 53,
     .prepared = {{BND_OP_CONV2D_BN_MODULE, 3}, {BND_OP_CONV2D_MODULE, 3}, {BND_OP_CONV_TRANSPOSE2D_MODULE, 3}, {BND_OP_LINEAR_MODULE, 5},
                  {BND_OP_CONV_TRANSPOSE2D_BN_MODULE, 3}}},
    {"shared_modules_mse", .quantizers = 53},
    {"shared_convolution_bn", 8, .prepared = {{BND_OP_CONV2D_BN_MODULE, 2}}},
    {"shared_convolution", 8, .prepared = {{BND_OP_CONV2D_MODULE, 2}}},
    {"shared_transposed", 8, .prepared = {{BND_OP_CONV_TRANSPOSE2D_MODULE, 2}}},
    {"shared_transposed_bn", 8, .prepared = {{BND_OP_CONV_TRANSPOSE2D_BN_MODULE, 2}}},
    {"shared_linear", 10, .prepared = {{BND_OP_LINEAR_MODULE, 2}}},
    {"batch_norm_behind_concat", 48, .prepared = {{BND_OP_CONV2D_BN_MODULE, 4}, {BND_OP_CONV_TRANSPOSE2D_BN_MODULE, 6}, {BND_OP_CONV2D_MODULE, 1}}},
    {"batch_norm_behind_concat_grouped", 32, .prepared = {{BND_OP_CONV_TRANSPOSE2D_MODULE, 5}, {BND_OP_CONV2D_MODULE, 3}}},
};

int main(void) { return run_cases(ROWS, sizeof ROWS / sizeof *ROWS); }
