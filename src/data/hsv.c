#include "data/hsv.h"

#include <string.h>

#include "base/simd.h"

/* Pixels are taken apart into three arrays of this length, so that the arithmetic between vectorises. */
enum { CHUNK_LENGTH = 256 };

typedef struct chunk {
  int first[CHUNK_LENGTH], second[CHUNK_LENGTH], third[CHUNK_LENGTH]; /* blue, green, red or hue, saturation, value */
} chunk;

static void take_apart(const uint8_t *pixels, size_t count, chunk *planes) {
  for (size_t i = 0; i < count; i++, pixels += 3) {
    planes->first[i] = pixels[0];
    planes->second[i] = pixels[1];
    planes->third[i] = pixels[2];
  }
}

static void put_together(const chunk *planes, size_t count, uint8_t *pixels) {
  for (size_t i = 0; i < count; i++, pixels += 3) {
    pixels[0] = (uint8_t)planes->first[i];
    pixels[1] = (uint8_t)planes->second[i];
    pixels[2] = (uint8_t)planes->third[i];
  }
}

/* OpenCV's tables sdiv[i] = round((255 << 12) / i) and hdiv[i] = round((180 << 12) / (6 i)), 0 for i = 0. No quotient is nearer to a half than float
   division is exact, and none is a half, so adding a half and truncating rounds them all. */
static inline int quotient(int numerator, int divisor) {
  return divisor ? (int)((float)numerator / (float)divisor + 0.5f) : 0;
}

BND_VECTORIZED static void to_hsv(chunk *planes) {
  for (int i = 0; i < CHUNK_LENGTH; i++) {
    const int b = planes->first[i], g = planes->second[i], r = planes->third[i];
    const int high = b > g ? (b > r ? b : r) : (g > r ? g : r), low = b < g ? (b < r ? b : r) : (g < r ? g : r), range = high - low;
    const int from_red = g - b, from_green = b - r + 2 * range, from_blue = r - g + 4 * range;
    const int position = high == r ? from_red : high == g ? from_green : from_blue;
    const int hue = (position * quotient(180 << 12, 6 * range) + 2048) >> 12;
    planes->first[i] = hue < 0 ? hue + 180 : hue;
    planes->second[i] = (range * quotient(255 << 12, high) + 2048) >> 12;
    planes->third[i] = high;
  }
}

/* f32 in the original's order of operations. */
BND_VECTORIZED static void to_bgr(chunk *planes) {
  for (int i = 0; i < CHUNK_LENGTH; i++) {
    const float h = (float)planes->first[i] * (6.f / 180), s = (float)planes->second[i] * (1 / 255.f), v = (float)planes->third[i] * (1 / 255.f);
    const int sector = (int)h;
    const float f = h - (float)sector;
    const int full = (int)(v * 255.f), none = (int)(v * (1 - s) * 255.f);
    const int falling = (int)(v * (1 - s * f) * 255.f), rising = (int)(v * (1 - s * (1 - f)) * 255.f);
    planes->first[i] = sector < 2 ? none : sector == 2 ? rising : sector == 5 ? falling : full;
    planes->second[i] = sector == 0 ? rising : sector < 3 ? full : sector == 3 ? falling : none;
    planes->third[i] = sector == 0 || sector == 5 ? full : sector == 1 ? falling : sector == 4 ? rising : none;
  }
}

BND_VECTORIZED static void shift(chunk *planes, int hue, int saturation, int value) {
  for (int i = 0; i < CHUNK_LENGTH; i++) {
    const int h = planes->first[i] + hue, s = planes->second[i] + saturation, v = planes->third[i] + value;
    planes->first[i] = h >= 180 ? h - 180 : h;
    planes->second[i] = s < 0 ? 0 : s > 255 ? 255 : s;
    planes->third[i] = v < 0 ? 0 : v > 255 ? 255 : v;
  }
}

void bnd_bgr_to_hsv(const uint8_t *bgr, size_t count, uint8_t *hsv) {
  chunk planes = {0};
  for (size_t at = 0; at < count; at += CHUNK_LENGTH) {
    const size_t pixels = count - at < CHUNK_LENGTH ? count - at : CHUNK_LENGTH;
    take_apart(bgr + at * 3, pixels, &planes);
    to_hsv(&planes);
    put_together(&planes, pixels, hsv + at * 3);
  }
}

void bnd_hsv_to_bgr(const uint8_t *hsv, size_t count, uint8_t *bgr) {
  chunk planes = {0};
  for (size_t at = 0; at < count; at += CHUNK_LENGTH) {
    const size_t pixels = count - at < CHUNK_LENGTH ? count - at : CHUNK_LENGTH;
    take_apart(hsv + at * 3, pixels, &planes);
    to_bgr(&planes);
    put_together(&planes, pixels, bgr + at * 3);
  }
}

void bnd_hsv_shift(uint8_t *bgr, size_t count, int hue, int saturation, int value) {
  chunk planes = {0};
  const int turned = (hue % 180 + 180) % 180;
  for (size_t at = 0; at < count; at += CHUNK_LENGTH) {
    const size_t pixels = count - at < CHUNK_LENGTH ? count - at : CHUNK_LENGTH;
    take_apart(bgr + at * 3, pixels, &planes);
    to_hsv(&planes);
    shift(&planes, turned, saturation, value);
    to_bgr(&planes);
    put_together(&planes, pixels, bgr + at * 3);
  }
}
