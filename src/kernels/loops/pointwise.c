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
static void scale_add_both_piece(const float *x, float factor, const bnd_grid *inner, const float *y, const bnd_grid *outer, float *out,
                                 size_t count) {
  const bnd_grid n = *inner, o = *outer;
  for (size_t i = 0; i < count; i++) {
    const float scaled = on_grid(factor * x[i], n.multiplier, n.step, n.low, n.high);
    out[i] = on_grid(scaled + y[i], o.multiplier, o.step, o.low, o.high);
  }
}

void bnd_loop_scale_add(const float *x, float factor, const bnd_grid *inner, const float *y, const bnd_grid *outer, float *out, size_t count,
                        int threads) {
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
