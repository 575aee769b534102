/* Bytes and floats in other layouts, and runs of bytes that move. A tile of pixels, small enough for the first caches, goes through all of its
   channels before the next; rows of bytes are transposed by interleaving neighbours, twice as wide each time. */
#include "base/simd.h"
#include "kernels/loops/byte_of.h"
#include "kernels/loops/bytes.h"

enum {
  TILE_BYTES = 16384, /* of all channels of a tile's pixels, about */
  TILE = 256,         /* pixels at most */
  LANES = 8           /* channels transposed together */
};

static size_t least(size_t a, size_t b) {
  return a < b ? a : b;
}

/* Pixels of a tile: a multiple of 32. */
static size_t tile_of(size_t channels) {
  const size_t pixels = channels ? TILE_BYTES / channels / 32 * 32 : TILE;
  return pixels < 32 ? 32 : least(pixels, TILE);
}

/* `size` bytes at a constant size become single instructions. */
#define COPY_RUNS(size) \
  for (size_t i = 0; i < count; i++) memcpy(y + i * y_step, x + i * x_step, (size))
/* Two copies of half the largest power of two that fits twice, which may overlap. */
#define COPY_RUNS_IN_TWO(part)                           \
  for (size_t i = 0; i < count; i++) {                   \
    int8_t ends[2][part];                                \
    memcpy(ends[0], x + i * x_step, part);               \
    memcpy(ends[1], x + i * x_step + size - part, part); \
    memcpy(y + i * y_step, ends[0], part);               \
    memcpy(y + i * y_step + size - part, ends[1], part); \
  }

/* y[i * y_step + k] = x[i * x_step + k], k < size */
BND_VECTORIZED
static void copy_runs(const int8_t *x, size_t x_step, int8_t *y, size_t y_step, size_t size, size_t count) {
  if (size == x_step && size == y_step) {
    memcpy(y, x, size * count);
  } else if (size == 8) {
    COPY_RUNS(8);
  } else if (size == 16) {
    COPY_RUNS(16);
  } else if (size == 1) {
    COPY_RUNS(1);
  } else if (size < 4) {
    COPY_RUNS_IN_TWO(2)
  } else if (size < 8) {
    COPY_RUNS_IN_TWO(4)
  } else if (size < 16) {
    COPY_RUNS_IN_TWO(8)
  } else if (size < 32) {
    COPY_RUNS_IN_TWO(16)
  } else {
    for (size_t i = 0; i < count; i++) {
      const int8_t *from = x + i * x_step;
      int8_t *to = y + i * y_step;
      for (size_t k = 0; k + 32 <= size; k += 32) memcpy(to + k, from + k, 32);
      memcpy(to + size - 32, from + size - 32, 32);
    }
  }
}

/* Two rows become one of pairs, and back; for each width of what is paired. */
#define INTERLEAVE(type)                                                                                              \
  BND_VECTORIZED                                                                                                      \
  static void interleave_##type(const type *restrict a, const type *restrict b, type *restrict pairs, size_t count) { \
    for (size_t i = 0; i < count; i++) {                                                                              \
      pairs[2 * i] = a[i];                                                                                            \
      pairs[2 * i + 1] = b[i];                                                                                        \
    }                                                                                                                 \
  }                                                                                                                   \
  BND_VECTORIZED                                                                                                      \
  static void separate_##type(const type *restrict pairs, type *restrict a, type *restrict b, size_t count) {         \
    for (size_t i = 0; i < count; i++) {                                                                              \
      a[i] = pairs[2 * i];                                                                                            \
      b[i] = pairs[2 * i + 1];                                                                                        \
    }                                                                                                                 \
  }
typedef uint8_t ones;
typedef uint16_t __attribute__((may_alias)) twos;
typedef uint32_t __attribute__((may_alias)) fours;
INTERLEAVE(ones)
INTERLEAVE(twos)
INTERLEAVE(fours)

/* A tile's bytes of LANES channels: a row for each channel, a run for each pixel, or steps between. */
typedef struct lanes {
  _Alignas(64) int8_t bytes[LANES * TILE];
} lanes;

static ones *ones_of(lanes *x, int row) {
  return (ones *)(x->bytes + row * TILE);
}
static twos *twos_of(lanes *x, int row) {
  return (twos *)(x->bytes + row * 2 * TILE);
}
static fours *fours_of(lanes *x, int row) {
  return (fours *)(x->bytes + row * 4 * TILE);
}

/* A row of TILE bytes for each lane becomes LANES bytes for each pixel. */
static void rows_to_pixels(lanes *rows, lanes *pixels, size_t count) {
  for (int i = 0; i < 4; i++) interleave_ones(ones_of(rows, 2 * i), ones_of(rows, 2 * i + 1), (ones *)twos_of(pixels, i), count);
  for (int i = 0; i < 2; i++) interleave_twos(twos_of(pixels, 2 * i), twos_of(pixels, 2 * i + 1), (twos *)fours_of(rows, i), count);
  interleave_fours(fours_of(rows, 0), fours_of(rows, 1), (fours *)pixels->bytes, count);
}

static void pixels_to_rows(lanes *pixels, lanes *rows, size_t count) {
  separate_fours((const fours *)pixels->bytes, fours_of(rows, 0), fours_of(rows, 1), count);
  for (int i = 0; i < 2; i++) separate_twos((const twos *)fours_of(rows, i), twos_of(pixels, 2 * i), twos_of(pixels, 2 * i + 1), count);
  for (int i = 0; i < 4; i++) separate_ones((const ones *)twos_of(pixels, i), ones_of(rows, 2 * i), ones_of(rows, 2 * i + 1), count);
}

/* What quantization does to a value, and what comes of it. */
typedef struct conversion {
  float factor, multiplier, low, high;
} conversion;

/* Returns a byte that is negative if one of `bytes` is. */
BND_VECTORIZED
static int8_t quantize_run(const float *restrict x, const conversion *to, int8_t *restrict bytes, size_t count) {
  const conversion t = *to;
  int8_t signs = 0;
  for (size_t i = 0; i < count; i++) {
    bytes[i] = bnd_byte_of(bnd_no_nan(t.factor * x[i] * t.multiplier), t.low, t.high);
    signs |= bytes[i];
  }
  return signs;
}

BND_VECTORIZED
static void dequantize_run(const int8_t *restrict bytes, float step, float *restrict y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = (float)bytes[i] * step;
}

/* Images have three channels; the compiler has shuffles for that. */
BND_VECTORIZED
static void interleave_three(const ones *restrict a, const ones *restrict b, const ones *restrict c, ones *restrict pixels, size_t count) {
  for (size_t i = 0; i < count; i++) {
    pixels[3 * i] = a[i];
    pixels[3 * i + 1] = b[i];
    pixels[3 * i + 2] = c[i];
  }
}

/* `count` pixels of planes that are `plane` apart. */
static int8_t quantize_planes(const float *x, size_t plane, size_t channels, const conversion *to, int8_t *bytes, size_t count) {
  lanes rows, pixels;
  int8_t signs = 0;
  for (size_t c = 0; c < channels; c += LANES) {
    const size_t some = least(channels - c, LANES);
    for (size_t l = 0; l < some; l++) signs |= quantize_run(x + (c + l) * plane, to, (int8_t *)ones_of(&rows, (int)l), count);
    for (size_t l = some; l < LANES; l++) memset(ones_of(&rows, (int)l), 0, count);
    if (channels == 3) {
      interleave_three(ones_of(&rows, 0), ones_of(&rows, 1), ones_of(&rows, 2), (ones *)bytes, count);
    } else {
      rows_to_pixels(&rows, &pixels, count);
      copy_runs(pixels.bytes, LANES, bytes + c, channels, some, count);
    }
  }
  return signs;
}

/* The same of blocks that are `plane` apart; their padding is 0 and its bytes are no negative ones. */
static int8_t quantize_blocks(const float *x, size_t plane, size_t block, size_t channels, const conversion *to, int8_t *bytes, size_t count) {
  int8_t runs[TILE_BYTES], signs = 0;
  for (size_t c = 0; c < channels; c += block) {
    signs |= quantize_run(x + c / block * plane, to, runs, count * block);
    copy_runs(runs, block, bytes + c, channels, least(channels - c, block), count);
  }
  return signs;
}

bool bnd_bytes_quantize(const float *x, const bnd_layout *from, float factor, bool relu, const bnd_grid *grid, int8_t *bytes, int threads) {
  const conversion to = {.factor = factor, .multiplier = grid->multiplier, .low = relu ? 0.f : grid->low, .high = grid->high};
  const size_t pixels = from->height * from->width, channels = from->channels, image = bnd_layout_channels(from) * pixels;
  const size_t tile = tile_of(bnd_layout_channels(from)), tiles = (pixels + tile - 1) / tile;
  int signs = 0;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1) reduction(| : signs)
  for (size_t n = 0; n < from->images; n++)
    for (size_t t = 0; t < tiles; t++) {
      const size_t first = t * tile, count = least(pixels - first, tile), block = from->block;
      const float *start = x + n * image + first * (block ? block : 1);
      int8_t *goal = bytes + (n * pixels + first) * channels;
      if (block)
        signs |= quantize_blocks(start, pixels * block, block, channels, &to, goal, count);
      else if (channels == 1)
        signs |= quantize_run(start, &to, goal, count);
      else
        signs |= quantize_planes(start, pixels, channels, &to, goal, count);
    }
  return signs < 0;
}

static void dequantize_planes(const int8_t *bytes, size_t channels, float step, float *y, size_t plane, size_t count) {
  lanes rows, pixels;
  for (size_t c = 0; c < channels; c += LANES) {
    const size_t some = least(channels - c, LANES);
    if (some < LANES) memset(pixels.bytes, 0, count * LANES);
    copy_runs(bytes + c, channels, pixels.bytes, LANES, some, count);
    pixels_to_rows(&pixels, &rows, count);
    for (size_t l = 0; l < some; l++) dequantize_run((const int8_t *)ones_of(&rows, (int)l), step, y + (c + l) * plane, count);
  }
}

static void dequantize_blocks(const int8_t *bytes, size_t channels, float step, float *y, size_t plane, size_t block, size_t count) {
  int8_t runs[TILE_BYTES];
  for (size_t c = 0; c < channels; c += block) {
    const size_t some = least(channels - c, block);
    if (some < block) memset(runs, 0, count * block);
    copy_runs(bytes + c, channels, runs, block, some, count);
    dequantize_run(runs, step, y + c / block * plane, count * block);
  }
}

void bnd_bytes_dequantize(const int8_t *bytes, float step, float *y, const bnd_layout *to, int threads) {
  const size_t pixels = to->height * to->width, channels = to->channels, image = bnd_layout_channels(to) * pixels;
  const size_t tile = tile_of(bnd_layout_channels(to)), tiles = (pixels + tile - 1) / tile;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
  for (size_t n = 0; n < to->images; n++)
    for (size_t t = 0; t < tiles; t++) {
      const size_t first = t * tile, count = least(pixels - first, tile), block = to->block;
      float *goal = y + n * image + first * (block ? block : 1);
      const int8_t *start = bytes + (n * pixels + first) * channels;
      if (block)
        dequantize_blocks(start, channels, step, goal, pixels * block, block, count);
      else if (channels == 1)
        dequantize_run(start, step, goal, count);
      else
        dequantize_planes(start, channels, step, goal, pixels, count);
    }
}

/* Through the table a piece of a pixel, or some pixels, at a time. */
static void insert_through(const int8_t *x, size_t channels, const bnd_byte_table *table, int8_t *y, size_t to_channels, size_t count) {
  int8_t mapped[TILE_BYTES];
  const size_t part = least(channels, TILE_BYTES), together = TILE_BYTES / part;
  for (size_t p = 0; p < count; p += together)
    for (size_t c = 0; c < channels; c += part) {
      const size_t some = least(count - p, together), size = least(channels - c, part);
      bnd_bytes_map(x + p * channels + c, table, mapped, some * size, 1);
      copy_runs(mapped, size, y + p * to_channels + c, to_channels, size, some);
    }
}

void bnd_bytes_insert_channels(const int8_t *x, size_t pixels, size_t channels, const bnd_byte_table *table, int8_t *y, size_t to_channels,
                               size_t first, int threads) {
  const size_t tile = tile_of(channels), tiles = (pixels + tile - 1) / tile;
#pragma omp parallel for num_threads(threads) if (threads > 1 && tiles > 1)
  for (size_t t = 0; t < tiles; t++) {
    const size_t at = t * tile, count = least(pixels - at, tile);
    const int8_t *start = x + at * channels;
    int8_t *goal = y + at * to_channels + first;
    if (table)
      insert_through(start, channels, table, goal, to_channels, count);
    else
      copy_runs(start, channels, goal, to_channels, channels, count);
  }
}

/* Both columns of an output row's pair lie side by side in x too. */
void bnd_bytes_spread_pixels(const int8_t *x, int8_t *y, const bnd_layout *to, int threads) {
  const size_t pair = 2 * to->channels, half = to->width / 2;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (size_t r = 0; r < to->images * to->height; r++)
    copy_runs(x + (r / 2 * half * 2 + r % 2) * pair, 2 * pair, y + r * half * pair, pair, pair, half);
}
