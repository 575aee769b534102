#include "data/draw_mask.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

bnd_status bnd_mask_create(int width, int height, bnd_mask *mask, bnd_error *error) {
  *mask = (bnd_mask){0};
  if (width < 1 || height < 1) return bnd_fail(error, BND_ERROR_ARGUMENT, "a drawing of %d x %d pixels is empty", width, height);
  uint8_t *cover = bnd_calloc((size_t)width, (size_t)height);
  if (!cover) return bnd_fail_memory(error, "a drawing");
  *mask = (bnd_mask){.width = width, .height = height, .cover = cover, .left = width, .top = height};
  return BND_OK;
}

void bnd_mask_free(bnd_mask *mask) {
  free(mask->cover);
  *mask = (bnd_mask){0};
}

void bnd_mask_clear(bnd_mask *mask) {
  for (int y = mask->top; y < mask->bottom && mask->left < mask->right; y++)
    memset(mask->cover + (size_t)y * (size_t)mask->width + mask->left, 0, (size_t)(mask->right - mask->left));
  mask->left = mask->width;
  mask->top = mask->height;
  mask->right = mask->bottom = 0;
}

static int smaller(int a, int b) { return a < b ? a : b; }
static int larger(int a, int b) { return a > b ? a : b; }

/* A box cut to the image. */
typedef struct box {
  int left, top, right, bottom; /* right, bottom exclusive */
} box;

/* The part of [left, right] x [top, bottom] in the image, which the mask's own bounds now include. */
static box open_box(bnd_mask *mask, int left, int top, int right, int bottom) {
  const box b = {larger(left, 0), larger(top, 0), smaller(right + 1, mask->width), smaller(bottom + 1, mask->height)};
  if (b.left >= b.right || b.top >= b.bottom) return (box){0};
  mask->left = smaller(mask->left, b.left);
  mask->top = smaller(mask->top, b.top);
  mask->right = larger(mask->right, b.right);
  mask->bottom = larger(mask->bottom, b.bottom);
  return b;
}

static uint8_t *row(bnd_mask *mask, int y) { return mask->cover + (size_t)y * (size_t)mask->width; }

/* What is covered of a pixel that lies `depth` inside an edge (negative: outside). */
static uint8_t soft(double depth) { return depth <= -0.5 ? 0 : depth >= 0.5 ? BND_MASK_ALL : (uint8_t)(int)((depth + 0.5) * BND_MASK_ALL + 0.5); }

static void raise_to(uint8_t *cover, uint8_t value) { *cover = *cover > value ? *cover : value; }

void bnd_mask_ring(bnd_mask *mask, bnd_point center, double inner, double outer) {
  const int reach = (int)outer + 1;
  const box b = open_box(mask, center.x - reach, center.y - reach, center.x + reach, center.y + reach);
  for (int y = b.top; y < b.bottom; y++) {
    for (int x = b.left; x < b.right; x++) {
      const double dx = x - center.x, dy = y - center.y, distance = sqrt(dx * dx + dy * dy), in = distance - inner, out = outer - distance;
      raise_to(&row(mask, y)[x], soft(in < out ? in : out));
    }
  }
}

/* Floor of a / b for b > 0. */
static int64_t divide_down(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* Columns in which the line comes within `reach` rows of row y, widened by `reach`: all that row may hold of it, and little more. */
static void columns_near(bnd_point from, bnd_point to, int y, int reach, int *left, int *right) {
  const int64_t rise = (int64_t)to.y - from.y, run = (int64_t)to.x - from.x;
  *left = smaller(from.x, to.x) - reach;
  *right = larger(from.x, to.x) + reach;
  if (rise == 0 || run == 0) return;
  /* Both ends of the piece between rows y - reach and y + reach, `from` being the upper end. */
  const int64_t x0 = from.x + divide_down(run * larger(0, y - reach - from.y), rise);
  const int64_t x1 = from.x + divide_down(run * smaller((int)rise, y + reach - from.y), rise);
  *left = larger(*left, (int)(x0 < x1 ? x0 : x1) - reach);
  *right = smaller(*right, (int)(x0 < x1 ? x1 : x0) + 1 + reach);
}

typedef enum edge_kind { EDGE_SOFT, EDGE_HARD } edge_kind;

/* Everything up to `distance` from the line. */
static void cover_near(bnd_mask *mask, bnd_point from, bnd_point to, double distance, edge_kind kind) {
  if (from.y > to.y) {
    const bnd_point upper = to;
    to = from;
    from = upper;
  }
  const int reach = (int)distance + 2;
  const double run = to.x - from.x, rise = to.y - from.y, length = run * run + rise * rise;
  const box b = open_box(mask, smaller(from.x, to.x) - reach, from.y - reach, larger(from.x, to.x) + reach, to.y + reach);
  for (int y = b.top; y < b.bottom; y++) {
    int left, right;
    columns_near(from, to, y, reach, &left, &right);
    left = larger(left, b.left);
    right = smaller(right, b.right - 1);
    for (int x = left; x <= right; x++) {
      double dx = x - from.x, dy = y - from.y, square;
      const double along = dx * run + dy * rise, across = dx * rise - dy * run;
      if (along > 0 && along < length) {
        square = across * across / length;
      } else {
        if (along > 0) dx = x - to.x, dy = y - to.y;
        square = dx * dx + dy * dy;
      }
      if (kind == EDGE_SOFT) raise_to(&row(mask, y)[x], soft(distance - sqrt(square)));
      else if (square <= distance * distance) row(mask, y)[x] = BND_MASK_ALL;
    }
  }
}

void bnd_mask_line(bnd_mask *mask, bnd_point from, bnd_point to, int thickness) { cover_near(mask, from, to, 0.5 * thickness, EDGE_HARD); }

static const double RIM = 0.6; /* from the outline to the edge */

/* Pixels strictly inside, row by row: between the first and second, third and fourth ... crossing of the edges with the row. */
static void fill_inside(bnd_mask *mask, const bnd_point *points, int count, box b) {
  for (int y = b.top; y < b.bottom; y++) {
    int crossings[BND_MASK_MAX_POINTS], found = 0;
    for (int i = 0; i < count; i++) {
      bnd_point from = points[i], to = points[i + 1 < count ? i + 1 : 0];
      if (from.y > to.y) {
        const bnd_point upper = to;
        to = from;
        from = upper;
      }
      if (y < from.y || y >= to.y) continue;
      const int x = from.x + (int)divide_down((int64_t)(to.x - from.x) * (y - from.y), to.y - from.y);
      int at = found++;
      for (; at > 0 && crossings[at - 1] > x; at--) crossings[at] = crossings[at - 1];
      crossings[at] = x;
    }
    for (int i = 0; i + 1 < found; i += 2) {
      const int left = larger(crossings[i] + 1, b.left), right = smaller(crossings[i + 1], b.right - 1);
      if (left <= right) memset(row(mask, y) + left, BND_MASK_ALL, (size_t)(right - left + 1));
    }
  }
}

void bnd_mask_polygon(bnd_mask *mask, const bnd_point *points, int count) {
  bnd_point least = points[0], most = points[0];
  for (int i = 1; i < count; i++) {
    least = (bnd_point){smaller(least.x, points[i].x), smaller(least.y, points[i].y)};
    most = (bnd_point){larger(most.x, points[i].x), larger(most.y, points[i].y)};
  }
  fill_inside(mask, points, count, open_box(mask, least.x, least.y, most.x, most.y));
  for (int i = 0; i < count; i++) cover_near(mask, points[i], points[i + 1 < count ? i + 1 : 0], RIM, EDGE_SOFT);
}
