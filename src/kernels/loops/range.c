#include <math.h>

#include "base/simd.h"
#include "kernels/loops/loops.h"

enum { PIECE = 4096 }; /* values looked at together; a multiple of every block size */

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
