#include "data/affine.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"

/* Sine and cosine of an angle in degrees: reduced to at most 45 degrees beside a right angle, then Taylor's series (the first terms left out are
   below 1e-18). Right angles come out exact. */
static void sine_cosine(double degrees, double *sine, double *cosine) {
  const double pi = 0x1.921fb54442d18p+1, quarter = rint(degrees / 90), x = (degrees - 90 * quarter) * (pi / 180), xx = x * x;
  double s = 0, c = 0;
  for (int n = 18; n >= 2; n -= 2) {
    c = (1 + c) * (-xx / (n * (n - 1)));
    s = (1 + s) * (-xx / (n * (n + 1)));
  }
  c = 1 + c;
  s = x * (1 + s);
  const double turned = quarter - 4 * floor(quarter / 4); /* 0, 1, 2 or 3 */
  *sine = turned == 0 ? s : turned == 1 ? c : turned == 2 ? -s : -c;
  *cosine = turned == 0 ? c : turned == 1 ? -s : turned == 2 ? -c : s;
}

static double tangent(double degrees) {
  double sine, cosine;
  sine_cosine(degrees, &sine, &cosine);
  return sine / cosine;
}

void bnd_affine_matrix(const bnd_affine *affine, int width, int height, double matrix[6]) {
  double sine, cosine;
  sine_cosine(affine->angle, &sine, &cosine);
  const double a = affine->scale * cosine, b = affine->scale * sine; /* cv2.getRotationMatrix2D: [a b; -b a] */
  const double shear_x = tangent(affine->shear_x), shear_y = tangent(affine->shear_y), centre_x = -(width / 2), centre_y = -(height / 2);
  matrix[0] = a - shear_x * b;
  matrix[1] = b + shear_x * a;
  matrix[2] = matrix[0] * centre_x + matrix[1] * centre_y + affine->x;
  matrix[3] = shear_y * a - b;
  matrix[4] = shear_y * b + a;
  matrix[5] = matrix[3] * centre_x + matrix[4] * centre_y + affine->y;
}

/* From the result back to the image, in the original's order of operations. */
static bool invert(const double m[6], double inverse[6]) {
  const double determinant = m[0] * m[4] - m[1] * m[3], d = 1 / determinant;
  const double a11 = m[4] * d, a22 = m[0] * d, a12 = m[1] * -d, a21 = m[3] * -d;
  const double back[6] = {a11, a12, -a11 * m[2] - a12 * m[5], a21, a22, -a21 * m[2] - a22 * m[5]};
  for (int i = 0; i < 6; i++) {
    if (!isfinite(back[i])) return false;
    inverse[i] = back[i];
  }
  return true;
}

/* Half a unit of the 1/32 grid that positions in 1/1024 are rounded to. */
enum { HALF = 16 };

static int64_t thousandths(double position) {
  const double far = 0x1p40; /* far outside any image, and sums stay inside int64 */
  const double scaled = position * 1024;
  return llrint(scaled > far ? far : scaled < -far ? -far : scaled);
}

/* A position in 1/32 pixel, kept within what a neighbour's index can be. */
static int grid(int64_t position) {
  const int64_t at = position >> 5, far = (int64_t)1 << 20;
  return (int)(at > far ? far : at < -far ? -far : at);
}

/* Any matrix: four neighbours for each pixel. */
static void warp_general(const bnd_image *image, const double inverse[6], uint8_t border, bnd_image *warped) {
  const int width = image->width, height = image->height;
  uint8_t *to = warped->pixels;
  for (int y = 0; y < height; y++) {
    const int64_t x0 = thousandths(inverse[1] * y + inverse[2]) + HALF, y0 = thousandths(inverse[4] * y + inverse[5]) + HALF;
    for (int x = 0; x < width; x++, to += 3) {
      const int px = grid(x0 + thousandths(inverse[0] * x)), py = grid(y0 + thousandths(inverse[3] * x));
      const int sx = px >> 5, sy = py >> 5, fx = px & 31, fy = py & 31;
      const int weight[4] = {(32 - fy) * (32 - fx), (32 - fy) * fx, fy * (32 - fx), fy * fx}; /* in 1/1024: the original's, divided by 32 */
      int sum[3] = {512, 512, 512};
      for (int k = 0; k < 4; k++) {
        const int nx = sx + k % 2, ny = sy + k / 2;
        const bool inside = nx >= 0 && ny >= 0 && nx < width && ny < height;
        const uint8_t *from = image->pixels + (inside ? ((size_t)ny * (size_t)width + (size_t)nx) * 3 : 0);
        for (int c = 0; c < 3; c++) sum[c] += weight[k] * (inside ? from[c] : border);
      }
      for (int c = 0; c < 3; c++) to[c] = (uint8_t)(sum[c] >> 10);
    }
  }
}

/* One column of an upright warp: the two neighbours (bytes from the start of a row, the border value stands behind it) and the second's weight. */
typedef struct warp_tap {
  uint32_t first, second;
  int weight;
} warp_tap;

static void make_taps(int width, double step, double origin, warp_tap *taps) {
  const int64_t start = thousandths(origin) + HALF;
  for (int x = 0; x < width; x++) {
    const int at = grid(start + thousandths(step * x)), first = at >> 5, second = first + 1;
    taps[x] = (warp_tap){.first = (uint32_t)(first >= 0 && first < width ? first : width) * 3,
                         .second = (uint32_t)(second >= 0 && second < width ? second : width) * 3,
                         .weight = at & 31};
  }
}

static void warp_row(const uint8_t *padded_row, const warp_tap *taps, int width, int16_t *row) {
  for (int x = 0; x < width; x++, row += 3) {
    const uint8_t *a = padded_row + taps[x].first, *b = padded_row + taps[x].second;
    const int wb = taps[x].weight, wa = 32 - wb;
    row[0] = (int16_t)(a[0] * wa + b[0] * wb);
    row[1] = (int16_t)(a[1] * wa + b[1] * wb);
    row[2] = (int16_t)(a[2] * wa + b[2] * wb);
  }
}

BND_VECTORIZED static void blend_rows(const int16_t *restrict a, const int16_t *restrict b, int wb, size_t count, uint8_t *restrict out) {
  for (size_t i = 0; i < count; i++) out[i] = (uint8_t)((a[i] * (32 - wb) + b[i] * wb + 512) >> 10);
}

/* Neither rotation nor shear: columns and rows part, and the weights, being whole numbers, give the same sums in two passes. */
static bnd_status warp_upright(const bnd_image *image, const double inverse[6], uint8_t border, bnd_image *warped, bnd_error *error) {
  const int width = image->width, height = image->height;
  const size_t count = (size_t)width * 3;
  warp_tap *taps = bnd_alloc_aligned((size_t)width, sizeof *taps);
  uint8_t *padded_row = bnd_alloc_aligned(count + 3, 1);
  int16_t *buffer = bnd_alloc_aligned(count * 3, sizeof *buffer);
  bnd_status status = BND_OK;
  if (!taps || !padded_row || !buffer) {
    status = bnd_fail_memory(error, "a warped image");
    goto done;
  }
  make_taps(width, inverse[0], inverse[2], taps);
  memset(padded_row + count, border, 3);
  int16_t *line[2] = {buffer, buffer + count}, *const outside = buffer + 2 * count;
  for (size_t i = 0; i < count; i++) outside[i] = (int16_t)(border * 32);
  int held[2] = {-1, -1}; /* the source rows in line[] */
  for (int y = 0; y < height; y++) {
    const int at = grid(thousandths(inverse[4] * y + inverse[5]) + HALF), rows[2] = {at >> 5, (at >> 5) + 1};
    const int16_t *source[2];
    for (int i = 0; i < 2; i++) {
      const int row = rows[i], slot = row & 1; /* neighbouring rows never share a slot */
      source[i] = outside;
      if (row < 0 || row >= height) continue;
      source[i] = line[slot];
      if (held[slot] == row) continue;
      memcpy(padded_row, image->pixels + (size_t)row * count, count);
      warp_row(padded_row, taps, width, line[slot]);
      held[slot] = row;
    }
    blend_rows(source[0], source[1], at & 31, count, warped->pixels + (size_t)y * count);
  }
done:
  free(taps);
  free(padded_row);
  free(buffer);
  return status;
}

bnd_status bnd_image_warp_affine(const bnd_image *image, const double matrix[6], uint8_t border, bnd_image *warped, bnd_error *error) {
  enum { LARGEST_SIDE = 32766 };
  double inverse[6];
  *warped = (bnd_image){0};
  if (image->width > LARGEST_SIDE || image->height > LARGEST_SIDE)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "an image of %d x %d pixels cannot be warped; at most %d a side", image->width, image->height,
                    LARGEST_SIDE);
  if (!invert(matrix, inverse)) return bnd_fail(error, BND_ERROR_ARGUMENT, "the affine matrix has no inverse");
  BND_TRY(bnd_image_create(image->width, image->height, warped, error));
  bnd_status status = BND_OK;
  if (inverse[1] == 0 && inverse[3] == 0)
    status = warp_upright(image, inverse, border, warped, error);
  else
    warp_general(image, inverse, border, warped);
  if (status != BND_OK) bnd_image_free(warped);
  return status;
}
