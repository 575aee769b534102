/* Flat figures as sets of pixels, in whole numbers only: the same pixels on every machine. A pixel is a point with whole coordinates. Outlines
   belong to their figure: a polygon's set is its inside and every pixel at most 0.61 pixels (the root of 3/8) away from an edge. */
#ifndef BND_DATA_DRAW_MASK_H
#define BND_DATA_DRAW_MASK_H

#include <stdint.h>

#include "base/status.h"

typedef struct bnd_point {
  int x, y;
} bnd_point;

/* Pixels marked so far in an image of width x height; those outside it are dropped. Marked ones lie in [left, right) x [top, bottom), which may
   be larger than it needs to be and is empty (left >= right) when nothing is marked. */
typedef struct bnd_mask {
  int width, height;
  uint8_t *marked; /* [height][width], 0 or 1 */
  int left, top, right, bottom;
} bnd_mask;

/* Points may lie this far from the origin, so that products fit. */
enum { BND_MASK_MAX_COORDINATE = 1 << 20, BND_MASK_MAX_POINTS = 16 };

bnd_status bnd_mask_create(int width, int height, bnd_mask *mask, bnd_error *error);
void bnd_mask_free(bnd_mask *mask); /* and zeroes *mask */
void bnd_mask_clear(bnd_mask *mask);

/* Between two circles, given in half pixels: inner <= 2 * distance <= outer. */
void bnd_mask_ring(bnd_mask *mask, bnd_point center, int inner, int outer);
/* A line with round ends: 2 * distance <= thickness. */
void bnd_mask_line(bnd_mask *mask, bnd_point from, bnd_point to, int thickness);
/* Closed, not crossing itself; at most BND_MASK_MAX_POINTS. */
void bnd_mask_polygon(bnd_mask *mask, const bnd_point *points, int count);

#endif
