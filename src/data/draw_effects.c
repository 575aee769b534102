#include "data/draw_effects.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"

static uint8_t to_byte(float value) { return value <= 0 ? 0 : value >= 255 ? 255 : (uint8_t)(int)(value + 0.5f); }

/* The four cells around `position` of `length` pixels over `cells` cells, and the cubic convolution kernel's weights for them (Keys 1981). */
static void cubic_taps(int position, int length, int cells, int index[4], float weight[4]) {
  const float a = -0.75f;
  const int scaled = (2 * position + 1) * cells - length, whole = (scaled + 2 * length) / (2 * length) - 1; /* floor: scaled > -2 length */
  const float t = (float)(scaled - 2 * length * whole) / (float)(2 * length), u = 1 - t;
  weight[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
  weight[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
  weight[2] = ((a + 2) * u - (a + 3)) * u * u + 1;
  weight[3] = 1 - weight[0] - weight[1] - weight[2];
  for (int i = 0; i < 4; i++) {
    const int cell = whole - 1 + i;
    index[i] = cell < 0 ? 0 : cell >= cells ? cells - 1 : cell;
  }
}

static float weighted(const float w[4], float a, float b, float c, float d) { return w[0] * a + w[1] * b + w[2] * c + w[3] * d; }

void bnd_draw_clouds(bnd_image *image, int rows, int columns, bnd_random *random) {
  float cell[BND_CLOUDS_MAX_CELLS][BND_CLOUDS_MAX_CELLS][3];
  for (int y = 0; y < rows; y++)
    for (int x = 0; x < columns; x++)
      for (int c = 0; c < 3; c++) cell[y][x][c] = (float)bnd_random_below(random, 256);
  for (int y = 0; y < image->height; y++) {
    float band[BND_CLOUDS_MAX_CELLS][3], weight[4];
    int index[4];
    cubic_taps(y, image->height, rows, index, weight);
    for (int x = 0; x < columns; x++)
      for (int c = 0; c < 3; c++)
        band[x][c] = weighted(weight, cell[index[0]][x][c], cell[index[1]][x][c], cell[index[2]][x][c], cell[index[3]][x][c]);
    uint8_t *pixel = image->pixels + (size_t)y * (size_t)image->width * 3;
    for (int x = 0; x < image->width; x++, pixel += 3) {
      cubic_taps(x, image->width, columns, index, weight);
      for (int c = 0; c < 3; c++)
        pixel[c] = to_byte(weighted(weight, band[index[0]][c], band[index[1]][c], band[index[2]][c], band[index[3]][c]));
    }
  }
}

/* The sum of four random bytes: mean 510, standard deviation sqrt(4 (256^2 - 1) / 12), and close enough to normal. */
static const float NOISE_MEAN = 510, NOISE_DEVIATION = 147.7994f;

static float byte_sum(uint32_t word) { return (float)((word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24)); }

void bnd_draw_noise(bnd_image *image, float deviation, const bnd_random *stream) {
  const float scale = deviation / NOISE_DEVIATION;
  const size_t count = (size_t)image->width * (size_t)image->height * 3;
  uint32_t counter[4], words[4];
  memcpy(counter, stream->counter, sizeof counter);
  for (size_t i = 0; i < count; i += 4, counter[0]++) {
    bnd_philox(counter, stream->key, words);
    for (size_t k = 0; k < 4 && i + k < count; k++)
      image->pixels[i + k] = to_byte((float)image->pixels[i + k] + (byte_sum(words[k]) - NOISE_MEAN) * scale);
  }
}

/* Three rows, weighted 1 2 1, then three columns; `sum` has a pixel more at each end. */
BND_VECTORIZED static void blur_row(const uint8_t *above, const uint8_t *here, const uint8_t *below, size_t width, uint16_t *sum, uint8_t *out) {
  for (size_t i = 0; i < 3 * width; i++) sum[i + 3] = (uint16_t)(above[i] + 2 * here[i] + below[i]);
  const size_t second = width > 1 ? 3 : 0;
  for (size_t c = 0; c < 3; c++) {
    sum[c] = sum[3 + second + c];
    sum[3 * width + 3 + c] = sum[3 * width - second + c];
  }
  for (size_t i = 0; i < 3 * width; i++) out[i] = (uint8_t)((sum[i] + 2 * sum[i + 3] + sum[i + 6] + 8) >> 4);
}

bnd_status bnd_draw_blur(bnd_image *image, bnd_error *error) {
  const size_t width = (size_t)image->width, height = (size_t)image->height, stride = 3 * width;
  uint16_t *sum = bnd_calloc(width + 2, 3 * sizeof *sum);
  uint8_t *blurred = bnd_calloc(height, stride);
  if (!sum || !blurred) {
    free(sum);
    free(blurred);
    return bnd_fail_memory(error, "a blurred image");
  }
  for (size_t y = 0; y < height; y++) {
    const size_t above = y > 0 ? y - 1 : height > 1 ? 1 : 0, below = y + 1 < height ? y + 1 : height > 1 ? height - 2 : 0;
    blur_row(image->pixels + above * stride, image->pixels + y * stride, image->pixels + below * stride, width, sum, blurred + y * stride);
  }
  memcpy(image->pixels, blurred, height * stride);
  free(blurred);
  free(sum);
  return BND_OK;
}
