#include "data/resize.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/image/image_internal.h"

/* One destination row or column: two neighbouring sources and their weights in 1/2048. */
typedef struct linear_tap {
  int first, second;
  int16_t weight_first, weight_second;
} linear_tap;

/* `zero_at_borders` is what OpenCV does for columns; for rows only the indices are clamped. All in the original's precision. */
static void make_taps(int source, int target, double scale, bool zero_at_borders, linear_tap *taps) {
  for (int i = 0; i < target; i++) {
    float position = (float)((i + 0.5) * scale - 0.5);
    const float base = floorf(position);
    int first = (int)base;
    position -= base;
    if (zero_at_borders && first < 0) {
      first = 0;
      position = 0;
    }
    if (zero_at_borders && first >= source - 1) {
      first = source - 1;
      position = 0;
    }
    const int second = first + 1;
    taps[i] = (linear_tap){
        .first = first < 0 ? 0 : first >= source ? source - 1 : first,
        .second = second < 0 ? 0 : second >= source ? source - 1 : second,
        .weight_first = (int16_t)lrintf((1.f - position) * 2048.f),
        .weight_second = (int16_t)lrintf(position * 2048.f),
    };
  }
}

/* The horizontal pass, already shifted right by 4 as the vertical pass needs it: at most 255 * 2049 >> 4, which fits int16. */
static void resize_row(const uint8_t *source, const linear_tap *taps, int width, int16_t *row) {
  for (int x = 0; x < width; x++, row += 3) {
    const uint8_t *a = source + (size_t)taps[x].first * 3, *b = source + (size_t)taps[x].second * 3;
    const int wa = taps[x].weight_first, wb = taps[x].weight_second;
    row[0] = (int16_t)((a[0] * wa + b[0] * wb) >> 4);
    row[1] = (int16_t)((a[1] * wa + b[1] * wb) >> 4);
    row[2] = (int16_t)((a[2] * wa + b[2] * wb) >> 4);
  }
}

static void blend_rows(const int16_t *restrict a, const int16_t *restrict b, int16_t wa, int16_t wb, size_t count, uint8_t *restrict out) {
  for (size_t i = 0; i < count; i++) {
    const int16_t high_a = (int16_t)(((int)a[i] * wa) >> 16), high_b = (int16_t)(((int)b[i] * wb) >> 16);
    out[i] = (uint8_t)((int16_t)(high_a + high_b + 2) >> 2);
  }
}

static void halve(const bnd_image *image, bnd_image *half) {
  const size_t stride = (size_t)image->width * 3;
  uint8_t *to = half->pixels;
  for (int y = 0; y < half->height; y++) {
    const uint8_t *a = image->pixels + (size_t)y * 2 * stride, *b = a + stride;
    for (int x = 0; x < half->width; x++, a += 6, b += 6)
      for (int c = 0; c < 3; c++) *to++ = (uint8_t)((a[c] + a[c + 3] + b[c] + b[c + 3] + 2) >> 2);
  }
}

static bnd_status resize_linear(const bnd_image *image, double scale_x, double scale_y, bnd_image *resized, bnd_error *error) {
  const size_t stride = (size_t)image->width * 3, count = (size_t)resized->width * 3;
  linear_tap *columns = bnd_alloc_aligned((size_t)resized->width, sizeof *columns);
  linear_tap *rows = bnd_alloc_aligned((size_t)resized->height, sizeof *rows);
  int16_t *buffer = bnd_alloc_aligned(count * 2, sizeof *buffer);
  bnd_status status = BND_OK;
  if (!columns || !rows || !buffer) {
    status = bnd_fail_memory(error, "a resized image");
    goto done;
  }
  make_taps(image->width, resized->width, scale_x, true, columns);
  make_taps(image->height, resized->height, scale_y, false, rows);
  int16_t *line[2] = {buffer, buffer + count};
  int held[2] = {-1, -1}; /* which source rows line[] holds */
  for (int y = 0; y < resized->height; y++) {
    const int wanted[2] = {rows[y].first, rows[y].second};
    if (held[1] == wanted[0] || held[0] == wanted[1]) {
      int16_t *const swap = line[0];
      const int swap_held = held[0];
      line[0] = line[1];
      held[0] = held[1];
      line[1] = swap;
      held[1] = swap_held;
    }
    for (int i = 0; i < 2; i++) {
      if (held[i] == wanted[i]) continue;
      resize_row(image->pixels + (size_t)wanted[i] * stride, columns, resized->width, line[i]);
      held[i] = wanted[i];
    }
    blend_rows(line[0], line[1], rows[y].weight_first, rows[y].weight_second, count, resized->pixels + (size_t)y * count);
  }
done:
  free(columns);
  free(rows);
  free(buffer);
  return status;
}

bnd_status bnd_image_resize(const bnd_image *image, int width, int height, bnd_image *resized, bnd_error *error) {
  BND_TRY(bnd_image_allocate("resized image", width < 0 ? 0 : (uint64_t)width, height < 0 ? 0 : (uint64_t)height, resized, error));
  if (image->width == width && image->height == height) {
    memcpy(resized->pixels, image->pixels, (size_t)width * (size_t)height * 3);
    return BND_OK;
  }
  const double scale_x = 1.0 / ((double)width / image->width), scale_y = 1.0 / ((double)height / image->height);
  bnd_status status = BND_OK;
  if (fabs(scale_x - 2) < DBL_EPSILON && fabs(scale_y - 2) < DBL_EPSILON) halve(image, resized);
  else status = resize_linear(image, scale_x, scale_y, resized, error);
  if (status != BND_OK) bnd_image_free(resized);
  return status;
}
