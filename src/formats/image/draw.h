/* Drawing for pictures of detections: rectangle outlines and text in a 5x7 bitmap font. Everything is clipped to the image. */
#ifndef BND_FORMATS_IMAGE_DRAW_H
#define BND_FORMATS_IMAGE_DRAW_H

#include "formats/image/image.h"

typedef struct bnd_color {
  uint8_t red, green, blue;
} bnd_color;

/* A distinct, saturated colour for each class index; repeats after 20. */
bnd_color bnd_draw_palette(int index);

void bnd_draw_fill(bnd_image *image, int left, int top, int right, int bottom, bnd_color color); /* right, bottom exclusive */
/* Outline of `thickness` pixels inside [left, right) x [top, bottom). */
void bnd_draw_rectangle(bnd_image *image, int left, int top, int right, int bottom, int thickness, bnd_color color);

/* Each character is 6 x 8 cells of scale x scale pixels (5x7 and a gap). ASCII 32..126; any other character shows as a box. */
void bnd_draw_text(bnd_image *image, int left, int top, const char *text, int scale, bnd_color color);
int bnd_draw_text_width(const char *text, int scale);  /* pixels */
int bnd_draw_text_height(int scale);

/* A detection: outline and a filled label with readable text above it (inside when there is no room above). Sizes follow the image's. */
void bnd_draw_box(bnd_image *image, const float box[4] /* x1, y1, x2, y2 */, const char *label, bnd_color color);

#endif
