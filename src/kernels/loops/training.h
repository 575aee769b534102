/* Loops that only training needs. One image a call, one thread a call; sums over images are the caller's, in a fixed order. Data is plain or blocked
   as in loops.h; padding lanes of inputs hold zeros, those of outputs become zeros wherever the arithmetic keeps zero (all but the affine loops,
   which get zero coefficients there). Channel vectors have bnd_layout_channels(layout) places. */
#ifndef BND_KERNELS_LOOPS_TRAINING_H
#define BND_KERNELS_LOOPS_TRAINING_H

#include "kernels/loops/loops.h"

/* sum[c] = sum of x, square[c] = sum of x * x; in double, in the order of the pixels. */
void bnd_loop_channel_moments(const float *x, const bnd_layout *layout, double *sum, double *square);

/* y = relu(x * scale[c] + shift[c]) + first_factor * first + second_factor * second; relu and the two addends (NULL) are optional. y may be x. */
typedef struct bnd_affine {
  const float *scale, *shift;
  bool relu;
  const float *first, *second;
  float first_factor, second_factor;
} bnd_affine;
void bnd_loop_affine(const float *x, const bnd_layout *layout, const bnd_affine *affine, float *y);

/* Backward of batch norm with an optional relu behind it, first pass: over t = dy where relu(x * scale + shift) > 0 (everywhere without relu):
   sum[c] = sum of t, product[c] = sum of t * (x - mean[c]). */
void bnd_loop_norm_sums(const float *x, const float *dy, const bnd_layout *layout, const float *scale, const float *shift, const float *mean,
                        bool relu, double *sum, double *product);
/* Second pass: dx (+)= t * factor[c] + (x - mean[c]) * slope[c] + offset[c]. dx may be dy. */
typedef struct bnd_norm_gradient {
  const float *scale, *shift; /* of the forward pass, for the relu */
  bool relu, add;
  const float *mean, *factor, *slope, *offset;
} bnd_norm_gradient;
void bnd_loop_norm_gradient(const float *x, const float *dy, const bnd_layout *layout, const bnd_norm_gradient *gradient, float *dx);

/* y = relu(y * scale[c] + shift[c]) in place; mask (NULL = not wanted) gets a bit for each value, set where the relu let it pass. Only with relu. */
void bnd_loop_finish_convolution(float *y, const bnd_layout *layout, const float *scale, const float *shift, bool relu, uint8_t *mask);
/* dy = 0 where mask says so (NULL = nowhere), sum[c] = sum of the rest, dy *= scale[c]; in place. */
void bnd_loop_begin_convolution(float *dy, const bnd_layout *layout, const uint8_t *mask, const float *scale, double *sum);

/* y (+)= factor * x */
void bnd_loop_scale(const float *x, float factor, float *y, size_t count, bool add);
/* dx (+)= dy where y > 0 */
void bnd_loop_relu_gradient(const float *y, const float *dy, float *dx, size_t count, bool add);
/* Sum of x * y in double. */
double bnd_loop_dot(const float *x, const float *y, size_t count);
/* total[i] = parts[0][i] + parts[1][i] + ... in this order. */
void bnd_loop_sum_parts(const float *const *parts, size_t part_count, float *total, size_t count, int threads);

/* Values on a grid as bytes: q - (low + 128), q the whole number behind the value. */
void bnd_loop_quantize(const float *x, const bnd_grid *grid, float *y, int8_t *bytes, size_t count); /* bytes may be NULL */
void bnd_loop_dequantize(const int8_t *bytes, const bnd_grid *grid, float *y, size_t count);

/* The reverse of bnd_loop_insert_channels: channels [first, first + to->channels) of x (layout `from`) into y, (+)=. Padding lanes of y become zero
   unless added to. */
void bnd_loop_extract_channels(const float *x, const bnd_layout *from, float *y, const bnd_layout *to, size_t first, bool add);

/* Backward of bnd_loop_max_pool: the gradient goes to the first of the largest values of a window, row by row. dx += . */
void bnd_loop_max_pool_gradient(const float *x, const float *y, const float *dy, float *dx, const bnd_layout *layout, int64_t window,
                                float *workspace);
size_t bnd_loop_max_pool_gradient_workspace(const bnd_layout *layout); /* floats */

#endif
