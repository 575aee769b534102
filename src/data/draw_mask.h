/* Flat figures as the share of each pixel they cover. A pixel is a point with whole coordinates, its share falls from all to nothing over one
   pixel across the figure's edge (lines have hard edges). Doubles in a fixed order and square roots, nothing that rounds differently elsewhere:
   the same shares on every machine. */
#ifndef BND_DATA_DRAW_MASK_H
#define BND_DATA_DRAW_MASK_H

#include <stdint.h>

#include "base/status.h"

typedef struct bnd_point {
  int x, y;
} bnd_point;

/* A pixel covered at least so much counts as one of the figure's own. */
enum { BND_MASK_HALF = 128, BND_MASK_ALL = 255 };

/* What is covered so far in an image of width x height; pixels outside it are dropped. Covered ones lie in [left, right) x [top, bottom), which
   may be larger than it needs to be and is empty (left >= right) when there is none. */
typedef struct bnd_mask {
  int width, height;
  uint8_t *cover; /* [height][width], 0..BND_MASK_ALL */
  int left, top, right, bottom;
} bnd_mask;

/* Points may lie this far from the origin, so that products fit. */
enum { BND_MASK_MAX_COORDINATE = 1 << 20, BND_MASK_MAX_POINTS = 16 };

bnd_status bnd_mask_create(int width, int height, bnd_mask *mask, bnd_error *error);
void bnd_mask_free(bnd_mask *mask); /* and zeroes *mask */
void bnd_mask_clear(bnd_mask *mask);

/* Between two circles around the same centre; `inner` below 0: no hole. */
void bnd_mask_ring(bnd_mask *mask, bnd_point center, double inner, double outer);
/* All pixels at most thickness / 2 from the line: round ends, hard edges. */
void bnd_mask_line(bnd_mask *mask, bnd_point from, bnd_point to, int thickness);
/* Closed, not crossing itself; at most BND_MASK_MAX_POINTS. The edge lies 0.6 pixels outside the outline through the points, so that these are
   pixels of the figure. */
void bnd_mask_polygon(bnd_mask *mask, const bnd_point *points, int count);

#endif
