/* Inside the image layer: one decoder per format. Each fills a fresh image and the EXIF orientation (1..8, 1 = as stored). */
#ifndef BND_FORMATS_IMAGE_IMAGE_INTERNAL_H
#define BND_FORMATS_IMAGE_IMAGE_INTERNAL_H

#include "formats/image/image.h"

bnd_status bnd_jpeg_decode(const char *name, const uint8_t *data, size_t size, bnd_image *image, int *orientation, bnd_error *error);
bnd_status bnd_png_decode(const char *name, const uint8_t *data, size_t size, bnd_image *image, int *orientation, bnd_error *error);

/* As bnd_image_create, the pixels not cleared, messages naming `name`. */
bnd_status bnd_image_allocate(const char *name, uint64_t width, uint64_t height, bnd_image *image, bnd_error *error);

/* Orientation in a TIFF header as EXIF embeds it, 1 when there is none or it makes no sense. */
int bnd_exif_orientation(const uint8_t *tiff, size_t size);
/* Turns the image upright in place (5..8 swap width and height). */
bnd_status bnd_image_orient(const char *name, bnd_image *image, int orientation, bnd_error *error);

#endif
