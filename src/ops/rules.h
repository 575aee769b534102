/* Shape rules, one function for each group of operators that shares one. Private to ops. */
#ifndef BND_OPS_RULES_H
#define BND_OPS_RULES_H

#include "ops/operators.h"

/* Sets the node's shape, dtype and result_count from its inputs, whose own meta data are set already. */
typedef bnd_status bnd_shape_rule(bnd_node *node, bnd_error *error);

/* convolution.c */
bnd_shape_rule bnd_shape_convolution, bnd_shape_transposed_convolution, bnd_shape_linear, bnd_shape_convolution_module;
/* elementwise.c: same shape as the input; broadcast of two; the rest */
bnd_shape_rule bnd_shape_same, bnd_shape_batch_norm, bnd_shape_arithmetic, bnd_shape_to;
/* pooling.c: windows, global and adaptive pools, reductions */
bnd_shape_rule bnd_shape_max_pool, bnd_shape_avg_pool, bnd_shape_avg_pool_module, bnd_shape_adaptive_pool, bnd_shape_global_pool_module,
    bnd_shape_mean, bnd_shape_sum;
/* shape.c */
bnd_shape_rule bnd_shape_cat, bnd_shape_stack, bnd_shape_slice, bnd_shape_select, bnd_shape_split, bnd_shape_split_with_sizes, bnd_shape_reshape,
    bnd_shape_flatten, bnd_shape_permute, bnd_shape_transpose, bnd_shape_squeeze, bnd_shape_unsqueeze, bnd_shape_pixel_shuffle, bnd_shape_getitem;
/* generate.c: values from nothing */
bnd_shape_rule bnd_shape_arange, bnd_shape_full, bnd_shape_meshgrid, bnd_shape_no_grad_region;

/* --- helpers --- */
/* BND_ERROR_MODEL with "name (target): message". */
bnd_status bnd_fail_node(const bnd_node *node, bnd_error *error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Sets a single result; fails when its number of elements does not fit. */
bnd_status bnd_set_result(bnd_node *node, const bnd_shape *shape, bnd_dtype dtype, bnd_error *error);
/* The node at argument `index`; fails when there is none or it has no single tensor as its result. */
bnd_status bnd_input(const bnd_node *node, int index, bnd_node **input, bnd_error *error);
/* The same, and its rank must be `rank`. */
bnd_status bnd_input_of_rank(const bnd_node *node, int index, int rank, bnd_node **input, bnd_error *error);
/* Makes a dimension counted from the end (-1 = last) count from the start; fails outside [-rank, rank). */
bnd_status bnd_dimension(const bnd_node *node, int64_t dimension, int rank, int *result, bnd_error *error);
/* Positions of a window along one side: floor or ceiling of (size + 2 * padding - dilation * (kernel - 1) - 1) / stride, plus 1, as PyTorch counts
   them (with ceil_mode a last window that would start in the padding behind the end is left out). */
bnd_status bnd_window_positions(const bnd_node *node, int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool ceil_mode,
                                int64_t *positions, bnd_error *error);
/* Data type in a text argument such as "torch.float32"; false when it names none. */
bool bnd_dtype_of_text(const char *text, bnd_dtype *dtype);

#endif
