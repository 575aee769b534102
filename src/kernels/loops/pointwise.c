#include <math.h>

#include "base/simd.h"
#include "kernels/loops/loops.h"

/* Work is handed out in pieces of this many values: large enough to hide the cost of starting, small enough to stay in the first cache. */
enum { PIECE = 4096 };

bnd_grid bnd_grid_of(const bnd_quantizer *quantizer) {
  const float zero_point = (float)quantizer->zero_point[0];
  return (bnd_grid){.multiplier = ldexpf(1.f, quantizer->position[0]),
                    .step = bnd_scale_of(quantizer->position[0]),
                    .low = (float)bnd_quantizer_minimum(&quantizer->spec) - zero_point,
                    .high = (float)bnd_quantizer_maximum(&quantizer->spec) - zero_point};
}

/* Adding and subtracting 1.5 * 2^23 rounds to nearest-even; exact because the clamp comes first. NaN fails both comparisons and stays. */
static inline float on_grid(float x, float multiplier, float step, float low, float high) {
  float q = x * multiplier;
  q = q > high ? high : q;
  q = q < low ? low : q;
  q = (q + 0x1.8p23f) - 0x1.8p23f;
  return q * step;
}

BND_VECTORIZED
static void relu_piece(const float *x, float factor, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float scaled = factor * x[i];
    y[i] = scaled < 0.f ? 0.f : scaled;
  }
}

BND_VECTORIZED
static void scale_piece(const float *x, float factor, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = factor * x[i];
}

BND_VECTORIZED
static void grid_piece(const float *x, float factor, float *y, size_t count, const bnd_grid *grid) {
  const float multiplier = grid->multiplier, step = grid->step, low = grid->low, high = grid->high;
  for (size_t i = 0; i < count; i++) y[i] = on_grid(factor * x[i], multiplier, step, low, high);
}

static void pointwise_piece(const float *x, float factor, float *y, size_t count, bool relu, const bnd_grid *grid) {
  if (!grid && relu) {
    relu_piece(x, factor, y, count);
  } else if (!grid) {
    scale_piece(x, factor, y, count);
  } else {
    bnd_grid g = *grid;
    if (relu) g.low = 0.f; /* negative values would end at 0 all the same */
    grid_piece(x, factor, y, count, &g);
  }
}

void bnd_loop_pointwise(const float *x, float factor, float *y, size_t count, bool relu, const bnd_grid *grid, int threads) {
  const size_t pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(threads) if (threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    const size_t at = p * PIECE, size = count - at < PIECE ? count - at : PIECE;
    pointwise_piece(x + at, factor, y + at, size, relu, grid);
  }
}

BND_VECTORIZED
static void scale_add_piece(const float *x, float factor, const float *y, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = factor * x[i] + y[i];
}

BND_VECTORIZED
static void scale_add_outer_piece(const float *x, float factor, const float *y, const bnd_grid *outer, float *out, size_t count) {
  const bnd_grid o = *outer;
  for (size_t i = 0; i < count; i++) out[i] = on_grid(factor * x[i] + y[i], o.multiplier, o.step, o.low, o.high);
}

BND_VECTORIZED
static void scale_add_inner_piece(const float *x, float factor, const bnd_grid *inner, const float *y, float *out, size_t count) {
  const bnd_grid n = *inner;
  for (size_t i = 0; i < count; i++) out[i] = on_grid(factor * x[i], n.multiplier, n.step, n.low, n.high) + y[i];
}

BND_VECTORIZED
static void scale_add_both_piece(const float *x, float factor, const bnd_grid *inner, const float *y, const bnd_grid *outer, float *out, size_t count) {
  const bnd_grid n = *inner, o = *outer;
  for (size_t i = 0; i < count; i++) {
    const float scaled = on_grid(factor * x[i], n.multiplier, n.step, n.low, n.high);
    out[i] = on_grid(scaled + y[i], o.multiplier, o.step, o.low, o.high);
  }
}

void bnd_loop_scale_add(const float *x, float factor, const bnd_grid *inner, const float *y, const bnd_grid *outer, float *out, size_t count, int threads) {
  const size_t pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(threads) if (threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    const size_t at = p * PIECE, size = count - at < PIECE ? count - at : PIECE;
    if (inner && outer) scale_add_both_piece(x + at, factor, inner, y + at, outer, out + at, size);
    else if (inner) scale_add_inner_piece(x + at, factor, inner, y + at, out + at, size);
    else if (outer) scale_add_outer_piece(x + at, factor, y + at, outer, out + at, size);
    else scale_add_piece(x + at, factor, y + at, out + at, size);
  }
}

/* Wide enough for the compiler to see a loop over vectors and not single registers; a multiple of every block size. */
enum { LANES = 64 };

/* Widens low[j], high[j] by the values of lane j; count is a multiple of LANES. Comparisons pass NaN over, but 0 * x keeps it (and makes it of
   infinities): odd[j] stays 0 only while all values of the lane are finite. */
BND_VECTORIZED
static void range_piece(const float *restrict x, size_t count, float *restrict low, float *restrict high, float *restrict odd) {
  for (size_t i = 0; i < count; i += LANES)
    for (size_t j = 0; j < LANES; j++) {
      low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
      high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
      odd[j] += 0.f * x[i + j];
    }
}

typedef struct range {
  float low, high;
  bool has_nan;
} range;

/* Range of one piece, of which values in lanes (position modulo `block`) from `valid` on are padding; block 0 = none. */
static range range_of_piece(const float *x, size_t count, size_t block, size_t valid) {
  float low[LANES], high[LANES], odd[LANES];
  for (size_t j = 0; j < LANES; j++) {
    low[j] = INFINITY;
    high[j] = -INFINITY;
    odd[j] = 0.f;
  }
  const size_t even = count - count % LANES;
  range_piece(x, even, low, high, odd);
  for (size_t i = even; i < count; i++) {
    const size_t j = i % LANES;
    low[j] = x[i] < low[j] ? x[i] : low[j];
    high[j] = x[i] > high[j] ? x[i] : high[j];
    odd[j] += 0.f * x[i];
  }
  range all = {INFINITY, -INFINITY, false};
  bool odd_values = false;
  for (size_t j = 0; j < LANES; j++) {
    if (block && j % block >= valid) continue;
    all.low = low[j] < all.low ? low[j] : all.low;
    all.high = high[j] > all.high ? high[j] : all.high;
    odd_values = odd_values || odd[j] != 0.f;
  }
  for (size_t i = 0; odd_values && i < count; i++) all.has_nan = all.has_nan || (x[i] != x[i] && (!block || i % block < valid));
  return all;
}

static void widen(range *all, const float *x, size_t count, size_t block, size_t valid, int threads) {
  const size_t pieces = (count + PIECE - 1) / PIECE;
  float low = all->low, high = all->high;
  bool has_nan = all->has_nan;
#pragma omp parallel for num_threads(threads) if (threads > 1 && pieces > 1) reduction(min : low) reduction(max : high) reduction(|| : has_nan)
  for (size_t p = 0; p < pieces; p++) {
    const range part = range_of_piece(x + p * PIECE, count - p * PIECE < PIECE ? count - p * PIECE : PIECE, block, valid);
    low = part.low < low ? part.low : low;
    high = part.high > high ? part.high : high;
    has_nan = has_nan || part.has_nan;
  }
  *all = (range){low, high, has_nan};
}

void bnd_loop_min_max(const float *x, const bnd_layout *layout, float *minimum, float *maximum, int threads) {
  range all = {INFINITY, -INFINITY, false};
  const size_t tail = layout->block ? layout->channels % layout->block : 0;
  if (tail == 0) {
    widen(&all, x, bnd_layout_count(layout), 0, 0, threads);
  } else {
    const size_t plane = layout->height * layout->width * layout->block, blocks = bnd_layout_blocks(layout);
    for (size_t n = 0; n < layout->images; n++) {
      const float *image = x + n * blocks * plane;
      widen(&all, image, (blocks - 1) * plane, 0, 0, threads);
      widen(&all, image + (blocks - 1) * plane, plane, layout->block, tail, threads);
    }
  }
  *minimum = all.has_nan ? NAN : all.low;
  *maximum = all.has_nan ? NAN : all.high;
}
