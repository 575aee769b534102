/* Functions of single bytes, of pairs of bytes, and the maximum of neighbouring bytes. Multiplication by a power of two is exact and commutes with
   every rounding as long as nothing leaves the range of normal floats. Where the factors are far from its ends (`tame`), powers of two are therefore
   multiplied up once, ahead of the loop, instead of one after another for each value; where not, the loops do what the float loops do, step by step.
 */
#include <math.h>

#include "base/simd.h"
#include "kernels/loops/byte_of.h"
#include "kernels/loops/bytes.h"

enum { PIECE = 8192 }; /* bytes handed out together */

/* Products of three such factors and a byte, or sums of two such products, are normal floats, or 0. */
static bool tame(float factor) {
  const float size = fabsf(factor);
  return size == 0.f || (size >= 0x1p-38f && size <= 0x1p38f);
}

static bool tame_grid(const bnd_grid *grid) {
  return tame(grid->multiplier) && tame(grid->step);
}

/* y = clamp(rne(x * scale), low, high) */
BND_VECTORIZED
static void scale_run(const int8_t *x, float scale, float low, float high, int8_t *y, size_t count) {
#pragma omp simd
  for (size_t i = 0; i < count; i++) y[i] = bnd_byte_of((float)x[i] * scale, low, high);
}

void bnd_bytes_make_table(float step, float factor, bool relu, const bnd_grid *grid, bnd_byte_table *table) {
  const float low = relu ? 0.f : grid->low;
  for (int q = -128; q < 128; q++) {
    const float x = factor * ((float)q * step);
    table->result[q + 128] = bnd_byte_of(bnd_no_nan(x * grid->multiplier), low, grid->high);
  }
  table->is_scaling = tame(step) && tame(factor) && tame_grid(grid);
  table->scale = factor * step * grid->multiplier;
  table->low = low;
  table->high = grid->high;
}

static void table_run(const int8_t *x, const int8_t *result, int8_t *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = result[x[i] + 128];
}

void bnd_bytes_map(const int8_t *x, const bnd_byte_table *table, int8_t *y, size_t count, int threads) {
  const size_t pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(threads) if (threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    const size_t at = p * PIECE, size = count - at < PIECE ? count - at : PIECE;
    if (table->is_scaling)
      scale_run(x + at, table->scale, table->low, table->high, y + at, size);
    else
      table_run(x + at, table->result, y + at, size);
  }
}

/* A sum made ready: in units of the outer step, x is worth x_scale, what the inner grid makes of it inner_scale, y y_scale. */
typedef struct prepared {
  float x_scale, inner_low, inner_high, inner_scale, y_scale, low, high;
} prepared;

BND_VECTORIZED
static void add_run(const prepared *sum, const int8_t *x, const int8_t *y, int8_t *out, size_t count) {
  const prepared s = *sum;
#pragma omp simd
  for (size_t i = 0; i < count; i++) out[i] = bnd_byte_of((float)x[i] * s.x_scale + (float)y[i] * s.y_scale, s.low, s.high);
}

BND_VECTORIZED
static void add_on_grid_run(const prepared *sum, const int8_t *x, const int8_t *y, int8_t *out, size_t count) {
  const prepared s = *sum;
#pragma omp simd
  for (size_t i = 0; i < count; i++) {
    float q = (float)x[i] * s.x_scale;
    q = q > s.inner_high ? s.inner_high : q;
    q = q < s.inner_low ? s.inner_low : q;
    q = (q + 0x1.8p23f) - 0x1.8p23f;
    out[i] = bnd_byte_of(q * s.inner_scale + (float)y[i] * s.y_scale, s.low, s.high);
  }
}

/* What the float loops do; `inner` has 256 results. */
static void add_plainly_run(const bnd_byte_sum *sum, const float *inner, const int8_t *x, const int8_t *y, int8_t *out, size_t count) {
  const float low = sum->relu ? 0.f : sum->outer->low;
  for (size_t i = 0; i < count; i++) {
    const float z = inner[x[i] + 128] + (float)y[i] * sum->y_step;
    out[i] = bnd_byte_of(bnd_no_nan(z * sum->outer->multiplier), low, sum->outer->high);
  }
}

/* inner(factor * (x * x_step)) for every byte */
static void make_inner(const bnd_byte_sum *sum, float inner[256]) {
  for (int q = -128; q < 128; q++) inner[q + 128] = (float)q * sum->x_step;
  bnd_loop_pointwise(inner, sum->factor, inner, 256, false, sum->inner, 1);
}

static bool is_tame(const bnd_byte_sum *sum) {
  return tame(sum->factor) && tame(sum->x_step) && tame(sum->y_step) && tame_grid(sum->outer) && (!sum->inner || tame_grid(sum->inner));
}

static prepared prepare(const bnd_byte_sum *sum) {
  const bnd_grid *inner = sum->inner, *outer = sum->outer;
  prepared p = {.y_scale = sum->y_step * outer->multiplier, .low = sum->relu ? 0.f : outer->low, .high = outer->high};
  p.x_scale = sum->factor * sum->x_step * (inner ? inner->multiplier : outer->multiplier);
  if (inner) {
    p.inner_low = inner->low;
    p.inner_high = inner->high;
    p.inner_scale = inner->step * outer->multiplier;
  }
  return p;
}

void bnd_bytes_scale_add(const bnd_byte_sum *sum, const int8_t *x, const int8_t *y, int8_t *out, size_t count, int threads) {
  const size_t pieces = (count + PIECE - 1) / PIECE;
  const bool quick = is_tame(sum);
  const prepared ready = prepare(sum);
  float inner[256];
  if (!quick) make_inner(sum, inner);
#pragma omp parallel for num_threads(threads) if (threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    const size_t at = p * PIECE, size = count - at < PIECE ? count - at : PIECE;
    if (!quick)
      add_plainly_run(sum, inner, x + at, y + at, out + at, size);
    else if (sum->inner)
      add_on_grid_run(&ready, x + at, y + at, out + at, size);
    else
      add_run(&ready, x + at, y + at, out + at, size);
  }
}

/* y = max(y, x) */
BND_VECTORIZED
static void widen_run(const int8_t *restrict x, int8_t *restrict y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = y[i] > x[i] ? y[i] : x[i];
}

/* A row of the result: the maximum over the rows around it, then over the columns around each (pool.c). */
void bnd_bytes_max_pool(const int8_t *x, int8_t *y, const bnd_layout *layout, int64_t window, int8_t *workspace, int threads) {
  const size_t channels = layout->channels, width = layout->width, height = layout->height, row = width * channels;
  const size_t reach = (size_t)(window / 2);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (size_t r = 0; r < layout->images * height; r++) {
    const size_t i = r % height, above = i < reach ? i : reach, below = height - 1 - i < reach ? height - 1 - i : reach;
    int8_t *rows = workspace + r * row, *out = y + r * row;
    memcpy(rows, x + r * row, row);
    for (size_t k = 1; k <= above; k++) widen_run(x + (r - k) * row, rows, row);
    for (size_t k = 1; k <= below; k++) widen_run(x + (r + k) * row, rows, row);
    memcpy(out, rows, row);
    for (size_t k = 1; k <= reach && k < width; k++) {
      widen_run(rows + k * channels, out, row - k * channels);
      widen_run(rows, out + k * channels, row - k * channels);
    }
  }
}
