/* The oneDNN backend's own loops: fused, vectorised, in parallel. Values do not depend on the number of threads or on the vector width.
   Activations are plain (row-major) or blocked: [images, channel blocks, height, width, block], the last block filled up with zeros ("padding").
   Loops that keep zeros (all here do) keep the padding; loops that read values for their own sake leave it out. */
#ifndef BND_KERNELS_LOOPS_LOOPS_H
#define BND_KERNELS_LOOPS_LOOPS_H

#include "quant/quantizer.h"

/* Rank 4 data, or data of any shape seen as {images 1, channels 1, pixels count}, block 0. */
typedef struct bnd_layout {
  size_t images, channels, height, width;
  size_t block; /* values of neighbouring channels side by side; 0 = plain */
} bnd_layout;

static inline size_t bnd_layout_blocks(const bnd_layout *layout) {
  return (layout->channels + layout->block - 1) / layout->block;
}
/* Channels including padding. */
static inline size_t bnd_layout_channels(const bnd_layout *layout) {
  return layout->block ? bnd_layout_blocks(layout) * layout->block : layout->channels;
}
static inline size_t bnd_layout_count(const bnd_layout *layout) {
  return layout->images * bnd_layout_channels(layout) * layout->height * layout->width;
}

/* Per-tensor fake quantization: y = rne(clamp(x * multiplier, low, high)) * step. low <= 0 <= high are whole numbers, multiplier and step powers of
 * two. */
typedef struct bnd_grid {
  float multiplier, step, low, high;
} bnd_grid;
bnd_grid bnd_grid_of(const bnd_quantizer *quantizer); /* of a quantizer with one channel */

/* y = grid(relu(factor * x)); relu and grid (NULL) are optional, a factor of 1 changes nothing. x == y is fine. */
void bnd_loop_pointwise(const float *x, float factor, float *y, size_t count, bool relu, const bnd_grid *grid, int threads);
/* out = outer(inner(factor * x) + y); either grid may be NULL. out may be x or y. */
void bnd_loop_scale_add(const float *x, float factor, const bnd_grid *inner, const float *y, const bnd_grid *outer, float *out, size_t count,
                        int threads);

/* Range of the values without padding; NaN, both of them, if one of the values is. +-inf for no values. */
void bnd_loop_min_max(const float *x, const bnd_layout *layout, float *minimum, float *maximum, int threads);

/* Grids 2^-first, 2^-(first + 1), ... of the whole numbers [low, high]. `bound` is the largest magnitude among the values. */
enum { BND_MOST_GRIDS = 8 };
typedef struct bnd_error_grids {
  int first, count; /* at most BND_MOST_GRIDS */
  float low, high, bound;
  bool skip_first; /* errors[0] is not needed when it is larger than errors[1]; it then is infinite. Neither of the two may clip */
} bnd_error_grids;
/* errors[g] = sum over the values of (value - nearest number of grid g)^2. The same for any block of up to 16 channels. */
void bnd_loop_squared_errors(const float *x, const bnd_layout *layout, const bnd_error_grids *grids, double *errors);

/* Changes of layout; `layout` is the blocked side. Padding is written as zeros. */
void bnd_loop_to_plain(const float *blocked, const bnd_layout *layout, float *plain, int threads);
void bnd_loop_to_blocked(const float *plain, const bnd_layout *layout, float *blocked, int threads);
/* Copies the channels of `from` (blocked, or plain with block 0) into channels [first, first + from->channels) of the blocked `to`. Where first is no
   multiple of the block the lanes before and behind stay as they are: clear padding beforehand with bnd_loop_clear_tail. */
void bnd_loop_insert_channels(const float *x, const bnd_layout *from, float *y, const bnd_layout *to, size_t first, int threads);
void bnd_loop_clear_tail(float *y, const bnd_layout *layout);

/* A stride 2 upsampling whose four output pixels for each input pixel stand in four groups of channels of x, [row parity][column parity][channel
   block]: `to` is the layout of y, x has four times its (padded) channels and half its sides. */
void bnd_loop_spread_pixels(const float *x, float *y, const bnd_layout *to, int threads);

/* Maximum over windows with stride 1 and padding that keeps the size (window odd, padding = window / 2), blocked; workspace: bnd_layout_count values.
 */
void bnd_loop_max_pool(const float *x, float *y, const bnd_layout *layout, int64_t window, float *workspace, int threads);

#endif
