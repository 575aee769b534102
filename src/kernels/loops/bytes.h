/* Loops over int8 activations: fused, vectorised, in parallel. Values do not depend on the number of threads or on the vector width.
   Rank 4 activations lie with all channels of a pixel side by side ([images, height, width, channels], "bytes"), without padding; other ranks
   row-major. A byte q stands for q * 2^-position. Every loop computes exactly what the float loop of the same name (loops.h) computes on the values
   the bytes stand for, followed by the conversion of the result, which is on its grid, to a byte: docs/numerics.md has the formulas. */
#ifndef BND_KERNELS_LOOPS_BYTES_H
#define BND_KERNELS_LOOPS_BYTES_H

#include "kernels/loops/loops.h"

/* bytes = clamp(rne(relu(factor * x) * grid->multiplier), grid->low, grid->high); low >= -128, high <= 127. `from` is the layout of x (plain or
   blocked, padding is left out); for other ranks images 1, channels 1. True if a stored byte is negative. NaN becomes 0. */
bool bnd_bytes_quantize(const float *x, const bnd_layout *from, float factor, bool relu, const bnd_grid *grid, int8_t *bytes, int threads);
/* y = bytes * step, in layout `to` (plain or blocked; blocked padding is written as zeros). */
void bnd_bytes_dequantize(const int8_t *bytes, float step, float *y, const bnd_layout *to, int threads);

/* A function of one byte: result[q + 128], made by bnd_bytes_make_table: y = grid(relu(factor * (q * step))). */
typedef struct bnd_byte_table {
  int8_t result[256];
  bool is_scaling; /* result[q + 128] = clamp(rne(q * scale), low, high), exactly: quicker than looking it up */
  float scale, low, high;
} bnd_byte_table;
void bnd_bytes_make_table(float step, float factor, bool relu, const bnd_grid *grid, bnd_byte_table *table);
void bnd_bytes_map(const int8_t *x, const bnd_byte_table *table, int8_t *y, size_t count, int threads); /* y may be x */

/* out = outer(relu(inner(factor * (x * x_step)) + y * y_step)) as a byte; inner may be NULL, outer may not. out may be x or y. */
typedef struct bnd_byte_sum {
  float factor, x_step, y_step;
  const bnd_grid *inner, *outer;
  bool relu;
} bnd_byte_sum;
void bnd_bytes_scale_add(const bnd_byte_sum *sum, const int8_t *x, const int8_t *y, int8_t *out, size_t count, int threads);

/* Copies `pixels` pixels of `channels` bytes into channels [first, first + channels) of pixels with `to_channels`, through the table (NULL = as they
 * are). */
void bnd_bytes_insert_channels(const int8_t *x, size_t pixels, size_t channels, const bnd_byte_table *table, int8_t *y, size_t to_channels,
                               size_t first, int threads);

/* As bnd_loop_spread_pixels: `to` is the layout of y (block unused); x has half its sides and four times its channels, [row parity][column
 * parity][c]. */
void bnd_bytes_spread_pixels(const int8_t *x, int8_t *y, const bnd_layout *to, int threads);

/* As bnd_loop_max_pool, on bytes; workspace: as many bytes as x. */
void bnd_bytes_max_pool(const int8_t *x, int8_t *y, const bnd_layout *layout, int64_t window, int8_t *workspace, int threads);

#endif
