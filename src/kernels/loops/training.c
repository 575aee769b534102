#include "kernels/loops/training.h"

#include <math.h>
#include <string.h>

#include "base/simd.h"

/* Loops over channels are written once for `lanes` neighbouring channels and specialised: a constant number of lanes is what makes them vectors.
   Plain data has one lane. */
#define FOR_LANES(lanes, call)  \
  do {                          \
    if ((lanes) == 8) {         \
      enum { LANES = 8 };       \
      call;                     \
    } else if ((lanes) == 16) { \
      enum { LANES = 16 };      \
      call;                     \
    } else {                    \
      enum { LANES = 1 };       \
      call;                     \
    }                           \
  } while (0)
#define INLINE static inline __attribute__((always_inline))

static size_t lanes_of(const bnd_layout *layout) {
  return layout->block ? layout->block : 1;
}
static size_t groups_of(const bnd_layout *layout) {
  return layout->block ? bnd_layout_blocks(layout) : layout->channels;
}
static size_t pixels_of(const bnd_layout *layout) {
  return layout->height * layout->width;
}

/* --- sums over the pixels of each channel --- */

INLINE void moments(const float *x, size_t pixels, size_t lanes, double *sum, double *square) {
  double s[16] = {0}, q[16] = {0};
  for (size_t p = 0; p < pixels; p++)
    for (size_t l = 0; l < lanes; l++) {
      const double v = (double)x[p * lanes + l];
      s[l] += v;
      q[l] += v * v;
    }
  memcpy(sum, s, lanes * sizeof *s);
  memcpy(square, q, lanes * sizeof *q);
}

BND_VECTORIZED
static void moments_of_group(const float *x, size_t pixels, size_t lanes, double *sum, double *square) {
  FOR_LANES(lanes, moments(x, pixels, LANES, sum, square));
}

void bnd_loop_channel_moments(const float *x, const bnd_layout *layout, double *sum, double *square) {
  const size_t lanes = lanes_of(layout), pixels = pixels_of(layout);
  for (size_t g = 0; g < groups_of(layout); g++) moments_of_group(x + g * pixels * lanes, pixels, lanes, sum + g * lanes, square + g * lanes);
}

/* --- affine --- */

INLINE void affine(const float *x, size_t pixels, size_t lanes, const float *scale, const float *shift, bool relu, const float *first, float a,
                   const float *second, float b, float *y) {
  float s[16], t[16];
  memcpy(s, scale, lanes * sizeof *s);
  memcpy(t, shift, lanes * sizeof *t);
  for (size_t p = 0; p < pixels; p++)
    for (size_t l = 0; l < lanes; l++) {
      const size_t i = p * lanes + l;
      float v = x[i] * s[l] + t[l];
      if (relu) v = v < 0.f ? 0.f : v;
      if (first) v += a * first[i];
      if (second) v += b * second[i];
      y[i] = v;
    }
}

BND_VECTORIZED
static void affine_of_group(const float *x, size_t pixels, size_t lanes, const float *scale, const float *shift, bool relu, const float *first,
                            float a, const float *second, float b, float *y) {
  if (relu && first)
    FOR_LANES(lanes, affine(x, pixels, LANES, scale, shift, true, first, a, NULL, b, y));
  else if (relu)
    FOR_LANES(lanes, affine(x, pixels, LANES, scale, shift, true, NULL, a, NULL, b, y));
  else if (second)
    FOR_LANES(lanes, affine(x, pixels, LANES, scale, shift, false, first, a, second, b, y));
  else if (first)
    FOR_LANES(lanes, affine(x, pixels, LANES, scale, shift, false, first, a, NULL, b, y));
  else
    FOR_LANES(lanes, affine(x, pixels, LANES, scale, shift, false, NULL, a, NULL, b, y));
}

void bnd_loop_affine(const float *x, const bnd_layout *layout, const bnd_affine *f, float *y) {
  const size_t lanes = lanes_of(layout), size = pixels_of(layout) * lanes;
  for (size_t g = 0; g < groups_of(layout); g++) {
    const size_t at = g * size;
    const bool two_behind_relu = f->relu && f->second; /* rare: the second one in a pass of its own */
    affine_of_group(x + at, pixels_of(layout), lanes, f->scale + g * lanes, f->shift + g * lanes, f->relu, f->first ? f->first + at : NULL,
                    f->first_factor, f->second && !two_behind_relu ? f->second + at : NULL, f->second_factor, y + at);
    if (two_behind_relu) bnd_loop_scale(f->second + at, f->second_factor, y + at, size, true);
  }
}

/* --- batch norm backward --- */

INLINE void norm_sums(const float *x, const float *dy, size_t pixels, size_t lanes, const float *scale, const float *shift, const float *mean,
                      bool relu, double *sum, double *product) {
  double s[16] = {0}, q[16] = {0};
  float a[16], b[16], m[16];
  memcpy(a, scale, lanes * sizeof *a);
  memcpy(b, shift, lanes * sizeof *b);
  memcpy(m, mean, lanes * sizeof *m);
  for (size_t p = 0; p < pixels; p++)
    for (size_t l = 0; l < lanes; l++) {
      const size_t i = p * lanes + l;
      float t = dy[i];
      if (relu) t = x[i] * a[l] + b[l] > 0.f ? t : 0.f;
      s[l] += (double)t;
      q[l] += (double)(t * (x[i] - m[l]));
    }
  memcpy(sum, s, lanes * sizeof *s);
  memcpy(product, q, lanes * sizeof *q);
}

BND_VECTORIZED
static void norm_sums_of_group(const float *x, const float *dy, size_t pixels, size_t lanes, const float *scale, const float *shift,
                               const float *mean, bool relu, double *sum, double *product) {
  if (relu)
    FOR_LANES(lanes, norm_sums(x, dy, pixels, LANES, scale, shift, mean, true, sum, product));
  else
    FOR_LANES(lanes, norm_sums(x, dy, pixels, LANES, scale, shift, mean, false, sum, product));
}

void bnd_loop_norm_sums(const float *x, const float *dy, const bnd_layout *layout, const float *scale, const float *shift, const float *mean,
                        bool relu, double *sum, double *product) {
  const size_t lanes = lanes_of(layout), pixels = pixels_of(layout);
  for (size_t g = 0; g < groups_of(layout); g++) {
    const size_t at = g * pixels * lanes, c = g * lanes;
    norm_sums_of_group(x + at, dy + at, pixels, lanes, scale + c, shift + c, mean + c, relu, sum + c, product + c);
  }
}

INLINE void norm_gradient(const float *x, const float *dy, size_t pixels, size_t lanes, const bnd_norm_gradient *g, size_t c, bool relu, bool add,
                          float *dx) {
  float a[16], b[16], m[16], f[16], s[16], o[16];
  memcpy(a, g->scale + c, lanes * sizeof *a);
  memcpy(b, g->shift + c, lanes * sizeof *b);
  memcpy(m, g->mean + c, lanes * sizeof *m);
  memcpy(f, g->factor + c, lanes * sizeof *f);
  memcpy(s, g->slope + c, lanes * sizeof *s);
  memcpy(o, g->offset + c, lanes * sizeof *o);
  for (size_t p = 0; p < pixels; p++)
    for (size_t l = 0; l < lanes; l++) {
      const size_t i = p * lanes + l;
      float t = dy[i];
      if (relu) t = x[i] * a[l] + b[l] > 0.f ? t : 0.f;
      const float v = t * f[l] + ((x[i] - m[l]) * s[l] + o[l]);
      dx[i] = add ? dx[i] + v : v;
    }
}

BND_VECTORIZED
static void norm_gradient_of_group(const float *x, const float *dy, size_t pixels, size_t lanes, const bnd_norm_gradient *g, size_t c, float *dx) {
  if (g->relu && g->add)
    FOR_LANES(lanes, norm_gradient(x, dy, pixels, LANES, g, c, true, true, dx));
  else if (g->relu)
    FOR_LANES(lanes, norm_gradient(x, dy, pixels, LANES, g, c, true, false, dx));
  else if (g->add)
    FOR_LANES(lanes, norm_gradient(x, dy, pixels, LANES, g, c, false, true, dx));
  else
    FOR_LANES(lanes, norm_gradient(x, dy, pixels, LANES, g, c, false, false, dx));
}

void bnd_loop_norm_gradient(const float *x, const float *dy, const bnd_layout *layout, const bnd_norm_gradient *gradient, float *dx) {
  const size_t lanes = lanes_of(layout), pixels = pixels_of(layout);
  for (size_t g = 0; g < groups_of(layout); g++) {
    const size_t at = g * pixels * lanes;
    norm_gradient_of_group(x + at, dy + at, pixels, lanes, gradient, g * lanes, dx + at);
  }
}

/* --- behind and before a convolution --- */

INLINE void finish(float *y, size_t pixels, size_t lanes, const float *scale, const float *shift, bool relu) {
  float s[16], t[16];
  memcpy(s, scale, lanes * sizeof *s);
  memcpy(t, shift, lanes * sizeof *t);
  for (size_t p = 0; p < pixels; p++)
    for (size_t l = 0; l < lanes; l++) {
      float v = y[p * lanes + l] * s[l] + t[l];
      if (relu) v = v < 0.f ? 0.f : v;
      y[p * lanes + l] = v;
    }
}

BND_VECTORIZED
static void finish_group(float *y, size_t pixels, size_t lanes, const float *scale, const float *shift, bool relu) {
  if (relu)
    FOR_LANES(lanes, finish(y, pixels, LANES, scale, shift, true));
  else
    FOR_LANES(lanes, finish(y, pixels, LANES, scale, shift, false));
}

/* Eight comparisons make a byte. */
BND_VECTORIZED
static void signs(const float *y, uint8_t *mask, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    unsigned bits = 0;
    for (unsigned l = 0; l < 8; l++) bits |= (unsigned)(y[i * 8 + l] > 0.f) << l;
    mask[i] = (uint8_t)bits;
  }
}

void bnd_loop_finish_convolution(float *y, const bnd_layout *layout, const float *scale, const float *shift, bool relu, uint8_t *mask) {
  const size_t lanes = lanes_of(layout), size = pixels_of(layout) * lanes, count = groups_of(layout) * size;
  for (size_t g = 0; g < groups_of(layout); g++) finish_group(y + g * size, pixels_of(layout), lanes, scale + g * lanes, shift + g * lanes, relu);
  if (!mask) return;
  signs(y, mask, count / 8);
  for (size_t i = count / 8 * 8; i < count; i++) {
    if (i % 8 == 0) mask[i / 8] = 0;
    mask[i / 8] |= (uint8_t)((unsigned)(y[i] > 0.f) << i % 8);
  }
}

BND_VECTORIZED
static void apply_mask(float *dy, const uint8_t *mask, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    for (unsigned l = 0; l < 8; l++) dy[i * 8 + l] = mask[i] >> l & 1 ? dy[i * 8 + l] : 0.f;
}

INLINE void begin(float *dy, size_t pixels, size_t lanes, const float *scale, double *sum) {
  double s[16] = {0};
  float a[16];
  memcpy(a, scale, lanes * sizeof *a);
  for (size_t p = 0; p < pixels; p++)
    for (size_t l = 0; l < lanes; l++) {
      s[l] += (double)dy[p * lanes + l];
      dy[p * lanes + l] *= a[l];
    }
  memcpy(sum, s, lanes * sizeof *s);
}

BND_VECTORIZED
static void begin_group(float *dy, size_t pixels, size_t lanes, const float *scale, double *sum) {
  FOR_LANES(lanes, begin(dy, pixels, LANES, scale, sum));
}

void bnd_loop_begin_convolution(float *dy, const bnd_layout *layout, const uint8_t *mask, const float *scale, double *sum) {
  const size_t lanes = lanes_of(layout), size = pixels_of(layout) * lanes, count = groups_of(layout) * size;
  if (mask) {
    apply_mask(dy, mask, count / 8);
    for (size_t i = count / 8 * 8; i < count; i++)
      if (!(mask[i / 8] >> i % 8 & 1)) dy[i] = 0.f;
  }
  for (size_t g = 0; g < groups_of(layout); g++) begin_group(dy + g * size, pixels_of(layout), lanes, scale + g * lanes, sum + g * lanes);
}

/* --- single values --- */

BND_VECTORIZED
void bnd_loop_scale(const float *x, float factor, float *y, size_t count, bool add) {
  if (add)
    for (size_t i = 0; i < count; i++) y[i] += factor * x[i];
  else
    for (size_t i = 0; i < count; i++) y[i] = factor * x[i];
}

BND_VECTORIZED
void bnd_loop_relu_gradient(const float *y, const float *dy, float *dx, size_t count, bool add) {
  if (add)
    for (size_t i = 0; i < count; i++) dx[i] += y[i] > 0.f ? dy[i] : 0.f;
  else
    for (size_t i = 0; i < count; i++) dx[i] = y[i] > 0.f ? dy[i] : 0.f;
}

BND_VECTORIZED
double bnd_loop_dot(const float *x, const float *y, size_t count) {
  double sum[8] = {0}, total = 0;
  size_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (size_t l = 0; l < 8; l++) sum[l] += (double)x[i + l] * (double)y[i + l];
  for (size_t l = 0; i + l < count; l++) sum[l] += (double)x[i + l] * (double)y[i + l];
  for (size_t l = 0; l < 8; l++) total += sum[l];
  return total;
}

BND_VECTORIZED
static void add_run(const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] += x[i];
}

void bnd_loop_sum_parts(const float *const *parts, size_t part_count, float *total, size_t count, int threads) {
  enum { PIECE = 4096 };
  const size_t pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for num_threads(threads) if (threads > 1 && pieces > 1)
  for (size_t p = 0; p < pieces; p++) {
    const size_t at = p * PIECE, size = count - at < PIECE ? count - at : PIECE;
    memcpy(total + at, parts[0] + at, size * sizeof *total);
    for (size_t k = 1; k < part_count; k++) add_run(parts[k] + at, total + at, size);
  }
}

/* --- bytes --- */

/* As in bnd_loop_pointwise; NaN has no byte and becomes some value, the caller has looked for it before. */
BND_VECTORIZED
void bnd_loop_quantize(const float *x, const bnd_grid *grid, float *y, int8_t *bytes, size_t count) {
  const float multiplier = grid->multiplier, step = grid->step, low = grid->low, high = grid->high;
  const int offset = (int)low + 128;
  if (!bytes) {
    bnd_loop_pointwise(x, 1.f, y, count, false, grid, 1);
    return;
  }
  for (size_t i = 0; i < count; i++) {
    float q = x[i] * multiplier;
    q = q > high ? high : q;
    q = q < low ? low : q;
    q = (q + 0x1.8p23f) - 0x1.8p23f;
    y[i] = q * step;
    bytes[i] = (int8_t)((int)q - offset);
  }
}

BND_VECTORIZED
void bnd_loop_dequantize(const int8_t *bytes, const bnd_grid *grid, float *y, size_t count) {
  const float step = grid->step, offset = grid->low + 128.f;
  for (size_t i = 0; i < count; i++) y[i] = ((float)bytes[i] + offset) * step;
}

/* --- channels --- */

void bnd_loop_extract_channels(const float *x, const bnd_layout *from, float *y, const bnd_layout *to, size_t first, bool add) {
  const size_t pixels = pixels_of(to), block = from->block ? from->block : 1, own = to->block ? to->block : 1;
  if (block == own && first % block == 0 && to->channels % block == 0) {
    bnd_loop_scale(x + first * pixels, 1.f, y, to->channels * pixels, add);
    return;
  }
  if (!add && to->block) bnd_loop_clear_tail(y, to);
  for (size_t c = 0; c < to->channels; c++) {
    const size_t source = first + c;
    const float *s = x + source / block * pixels * block + source % block;
    float *t = y + c / own * pixels * own + c % own;
    if (add)
      for (size_t p = 0; p < pixels; p++) t[p * own] += s[p * block];
    else
      for (size_t p = 0; p < pixels; p++) t[p * own] = s[p * block];
  }
}

/* --- max pool --- */

/* The maximum of a window is the largest of its rows' maxima, and the first of the largest values in reading order lies in the first row whose
   maximum it is: two short searches instead of one over the whole window. Only lanes that have not found theirs yet take the gradient. */

INLINE void first_match(const float *candidates, size_t step, size_t count, size_t lanes, const float *wanted, const float *gradient, float *to) {
  float rest[16];
  for (size_t l = 0; l < lanes; l++) rest[l] = gradient[l];
  for (size_t k = 0; k < count; k++)
    for (size_t l = 0; l < lanes; l++) {
      const float taken = candidates[k * step + l] == wanted[l] ? rest[l] : 0.f;
      to[k * step + l] += taken;
      rest[l] = candidates[k * step + l] == wanted[l] ? 0.f : rest[l];
    }
}

INLINE void row_maxima(const float *x, float *maxima, size_t lanes, size_t width, size_t reach) {
  for (size_t j = 0; j < width; j++) {
    const size_t left = j > reach ? j - reach : 0, right = j + reach + 1 < width ? j + reach + 1 : width;
    float *m = maxima + j * lanes;
    memcpy(m, x + left * lanes, lanes * sizeof *m);
    for (size_t k = left + 1; k < right; k++)
      for (size_t l = 0; l < lanes; l++) m[l] = x[k * lanes + l] > m[l] ? x[k * lanes + l] : m[l];
  }
}

INLINE void pool_lanes(const float *x, const float *y, const float *dy, float *dx, size_t lanes, size_t height, size_t width, size_t reach,
                       float *maxima, float *gradients) {
  for (size_t i = 0; i < height; i++) row_maxima(x + i * width * lanes, maxima + i * width * lanes, lanes, width, reach);
  memset(gradients, 0, height * width * lanes * sizeof *gradients);
  for (size_t i = 0; i < height; i++) {
    const size_t top = i > reach ? i - reach : 0, bottom = i + reach + 1 < height ? i + reach + 1 : height;
    for (size_t j = 0; j < width; j++) {
      const size_t at = (i * width + j) * lanes, from = (top * width + j) * lanes;
      first_match(maxima + from, width * lanes, bottom - top, lanes, y + at, dy + at, gradients + from);
    }
  }
  for (size_t i = 0; i < height; i++)
    for (size_t j = 0; j < width; j++) {
      const size_t left = j > reach ? j - reach : 0, right = j + reach + 1 < width ? j + reach + 1 : width;
      const size_t at = (i * width + j) * lanes, from = (i * width + left) * lanes;
      first_match(x + from, lanes, right - left, lanes, maxima + at, gradients + at, dx + from);
    }
}

BND_VECTORIZED
static void pool_group(const float *x, const float *y, const float *dy, float *dx, size_t lanes, size_t height, size_t width, size_t reach,
                       float *maxima, float *gradients) {
  FOR_LANES(lanes, pool_lanes(x, y, dy, dx, LANES, height, width, reach, maxima, gradients));
}

size_t bnd_loop_max_pool_gradient_workspace(const bnd_layout *layout) {
  return 2 * pixels_of(layout) * lanes_of(layout);
}

void bnd_loop_max_pool_gradient(const float *x, const float *y, const float *dy, float *dx, const bnd_layout *layout, int64_t window,
                                float *workspace) {
  const size_t lanes = lanes_of(layout), size = pixels_of(layout) * lanes;
  for (size_t g = 0; g < groups_of(layout); g++)
    pool_group(x + g * size, y + g * size, dy + g * size, dx + g * size, lanes, layout->height, layout->width, (size_t)(window / 2), workspace,
               workspace + size);
}
