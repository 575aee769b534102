#include <string.h>

#include "base/simd.h"
#include "kernels/loops/loops.h"

enum { STRIP = 256 }; /* pixels moved together */

/* Channel planes `step` apart -> pixels of `block` lanes; lanes from `lanes` on are left alone. */
BND_VECTORIZED
static void interleave(const float *planes, size_t step, float *pixels, size_t block, size_t lanes, size_t count) {
  if (block == 8 && lanes == 8) {
    for (size_t p = 0; p < count; p++)
      for (size_t l = 0; l < 8; l++) pixels[p * 8 + l] = planes[l * step + p];
    return;
  }
  for (size_t l = 0; l < lanes; l++)
    for (size_t p = 0; p < count; p++) pixels[p * block + l] = planes[l * step + p];
}

BND_VECTORIZED
static void separate(const float *pixels, size_t block, float *planes, size_t step, size_t lanes, size_t count) {
  for (size_t l = 0; l < lanes; l++)
    for (size_t p = 0; p < count; p++) planes[l * step + p] = pixels[p * block + l];
}

static size_t lanes_of(const bnd_layout *layout, size_t block_index) {
  const size_t rest = layout->channels - block_index * layout->block;
  return rest < layout->block ? rest : layout->block;
}

void bnd_loop_to_plain(const float *blocked, const bnd_layout *layout, float *plain, int threads) {
  const size_t pixels = layout->height * layout->width, blocks = bnd_layout_blocks(layout), strips = (pixels + STRIP - 1) / STRIP;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
  for (size_t i = 0; i < layout->images * blocks; i++)
    for (size_t s = 0; s < strips; s++) {
      const size_t n = i / blocks, b = i % blocks, first = s * STRIP, count = pixels - first < STRIP ? pixels - first : STRIP;
      separate(blocked + (i * pixels + first) * layout->block, layout->block, plain + (n * layout->channels + b * layout->block) * pixels + first,
               pixels, lanes_of(layout, b), count);
    }
}

void bnd_loop_to_blocked(const float *plain, const bnd_layout *layout, float *blocked, int threads) {
  const size_t pixels = layout->height * layout->width, blocks = bnd_layout_blocks(layout), strips = (pixels + STRIP - 1) / STRIP;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
  for (size_t i = 0; i < layout->images * blocks; i++)
    for (size_t s = 0; s < strips; s++) {
      const size_t n = i / blocks, b = i % blocks, first = s * STRIP, count = pixels - first < STRIP ? pixels - first : STRIP,
                   lanes = lanes_of(layout, b);
      float *to = blocked + (i * pixels + first) * layout->block;
      if (lanes < layout->block) memset(to, 0, count * layout->block * sizeof *to);
      interleave(plain + (n * layout->channels + b * layout->block) * pixels + first, pixels, to, layout->block, lanes, count);
    }
}

/* One channel after another: from a plane or a lane into a lane. */
static void insert_channel(const float *x, size_t x_step, float *y, size_t y_step, size_t count) {
  for (size_t p = 0; p < count; p++) y[p * y_step] = x[p * x_step];
}

void bnd_loop_insert_channels(const float *x, const bnd_layout *from, float *y, const bnd_layout *to, size_t first, int threads) {
  const size_t pixels = from->height * from->width, to_blocks = bnd_layout_blocks(to), strips = (pixels + STRIP - 1) / STRIP;
  const size_t from_image = bnd_layout_channels(from) * pixels;
  if (from->block == to->block && first % to->block == 0) { /* whole blocks: one run for each image */
    for (size_t n = 0; n < from->images; n++) memcpy(y + (n * to_blocks * to->block + first) * pixels, x + n * from_image, from_image * sizeof *y);
    return;
  }
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
  for (size_t n = 0; n < from->images; n++)
    for (size_t s = 0; s < strips; s++) {
      const size_t start = s * STRIP, count = pixels - start < STRIP ? pixels - start : STRIP;
      for (size_t c = 0; c < from->channels; c++) {
        const size_t target = first + c, block = from->block;
        const float *source = x + n * from_image + (block ? (c / block * pixels + start) * block + c % block : c * pixels + start);
        float *goal = y + ((n * to_blocks + target / to->block) * pixels + start) * to->block + target % to->block;
        insert_channel(source, block ? block : 1, goal, to->block, count);
      }
    }
}

void bnd_loop_clear_tail(float *y, const bnd_layout *layout) {
  if (layout->channels % layout->block == 0) return;
  const size_t plane = layout->height * layout->width * layout->block, blocks = bnd_layout_blocks(layout);
  for (size_t n = 0; n < layout->images; n++) memset(y + ((n + 1) * blocks - 1) * plane, 0, plane * sizeof *y);
}

void bnd_loop_spread_pixels(const float *x, float *y, const bnd_layout *to, int threads) {
  const size_t block = to->block, blocks = bnd_layout_blocks(to), h = to->height / 2, w = to->width / 2;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
  for (size_t i = 0; i < to->images * blocks; i++)
    for (size_t row = 0; row < to->height; row++) {
      const size_t n = i / blocks, b = i % blocks;
      float *out = y + (i * to->height + row) * to->width * block;
      const float *even = x + (((n * 4 + row % 2 * 2) * blocks + b) * h + row / 2) * w * block, *odd = even + blocks * h * w * block;
      for (size_t column = 0; column < w; column++) {
        memcpy(out + 2 * column * block, even + column * block, block * sizeof *out);
        memcpy(out + (2 * column + 1) * block, odd + column * block, block * sizeof *out);
      }
    }
}
