/* Squared quantization errors on several grids at once, for observers. Padding of blocked layouts is zero and zero lies on every grid, so all of the
   memory is summed. */
#include <math.h>

#include "base/simd.h"
#include "kernels/loops/loops.h"

/* A lane sums every LANES-th value: in float over STEPS of them, whose rounding errors are small against what tells two grids apart, then in double.
   With two vectors of 8 channels or one of 16 the same values meet in the same lane, so nothing depends on the width of the blocks. */
enum { CHUNK = 64, STEPS = 64, MOST_LANES = 128 };

/* The lanes of one piece of at most lanes * STEPS values, a multiple of CHUNK; lanes is CHUNK or twice that. Errors are counted in steps of the grid.
   Where nothing is clipped the clamp is left out. */
BND_VECTORIZED
static void add_unclipped(const float *restrict x, size_t count, size_t lanes, float multiplier, double *restrict totals) {
  float sums[MOST_LANES] = {0};
  for (size_t i = 0; i < count; i += CHUNK) {
    float *sum = sums + (i & (lanes - 1));
    for (size_t j = 0; j < CHUNK; j++) {
      const float u = x[i + j] * multiplier, error = ((u + 0x1.8p23f) - 0x1.8p23f) - u;
      sum[j] += error * error;
    }
  }
  for (size_t j = 0; j < lanes; j++) totals[j] += (double)sums[j];
}

BND_VECTORIZED
static void add_clipped(const float *restrict x, size_t count, size_t lanes, float multiplier, float low, float high, double *restrict totals) {
  float sums[MOST_LANES] = {0};
  for (size_t i = 0; i < count; i += CHUNK) {
    float *sum = sums + (i & (lanes - 1));
    for (size_t j = 0; j < CHUNK; j++) {
      const float u = x[i + j] * multiplier;
      float q = u > high ? high : u;
      q = q < low ? low : q;
      const float error = ((q + 0x1.8p23f) - 0x1.8p23f) - u;
      sum[j] += error * error;
    }
  }
  for (size_t j = 0; j < lanes; j++) totals[j] += (double)sums[j];
}

typedef double lane_sums[BND_MOST_GRIDS][MOST_LANES];

static void add_piece(const float *x, size_t count, size_t lanes, const bnd_error_grids *grids, int from, lane_sums totals) {
  for (int g = from; g < grids->count; g++) {
    const float multiplier = ldexpf(1.f, grids->first + g);
    if (grids->bound * multiplier <= grids->high && -grids->bound * multiplier >= grids->low) add_unclipped(x, count, lanes, multiplier, totals[g]);
    else add_clipped(x, count, lanes, multiplier, grids->low, grids->high, totals[g]);
  }
}

static void add_run(const float *x, size_t count, size_t lanes, const bnd_error_grids *grids, int from, lane_sums totals) {
  const size_t piece = lanes * STEPS, even = count - count % lanes;
  for (size_t at = 0; at < even; at += piece) add_piece(x + at, even - at < piece ? even - at : piece, lanes, grids, from, totals);
  float rest[MOST_LANES] = {0};
  for (size_t i = even; i < count; i++) rest[i - even] = x[i];
  if (count > even) add_piece(rest, lanes, lanes, grids, from, totals);
}

/* Whether some value is nearer to a number of the second grid than to any of the first. */
static bool first_is_worse(const float *x, size_t count, const bnd_error_grids *grids) {
  const float multiplier = ldexpf(1.f, grids->first);
  for (size_t i = 0; i < count; i++) {
    const float u = x[i] * multiplier, error = fabsf(((u + 0x1.8p23f) - 0x1.8p23f) - u);
    if (error > 0.25f) return true;
  }
  return false;
}

/* Channel by channel of a block. */
static double fold(const double *sums, size_t lanes, size_t block) {
  double total = 0;
  for (size_t c = 0; c < block; c++) {
    double channel = 0;
    for (size_t j = c; j < lanes; j += block) channel += sums[j];
    total += channel;
  }
  return total;
}

void bnd_loop_squared_errors(const float *x, const bnd_layout *layout, const bnd_error_grids *grids, double *errors) {
  const size_t count = bnd_layout_count(layout), lanes = layout->block > 8 ? MOST_LANES : CHUNK;
  const size_t block = layout->block && lanes % layout->block == 0 ? layout->block : 1;
  const size_t run = layout->block ? layout->height * layout->width * layout->block : count;
  const int from = grids->skip_first && first_is_worse(x, count, grids);
  for (int g = 0; g < grids->count; g++) errors[g] = g < from ? INFINITY : 0;
  for (size_t at = 0; at < count; at += run) {
    lane_sums totals = {0};
    add_run(x + at, run, lanes, grids, from, totals);
    for (int g = from; g < grids->count; g++) errors[g] += fold(totals[g], lanes, block);
  }
  for (int g = from; g < grids->count; g++) errors[g] = ldexp(errors[g], -2 * (grids->first + g));
}
