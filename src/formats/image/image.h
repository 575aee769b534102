/* Images in memory and their files: JPEG (libjpeg-turbo) and PNG (libspng), decoded to the very bytes cv2.imread(path) gives (OpenCV's
   default flags; channels in RGB order here): grey and palette expanded, alpha dropped, 16 bits cut to 8, CMYK converted by OpenCV's
   formula, EXIF orientation applied. What OpenCV decodes partly (truncated data) is an error here. */
#ifndef BND_FORMATS_IMAGE_IMAGE_H
#define BND_FORMATS_IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* 8-bit RGB, rows top to bottom, pixels[(y * width + x) * 3 + channel], no gaps. Zero-initialised = no image. */
typedef struct bnd_image {
  int width, height;
  uint8_t *pixels; /* owned: bnd_image_free */
} bnd_image;

/* More pixels than this (about 134 million) are refused before anything is allocated. */
enum { BND_IMAGE_MAX_PIXELS = 1 << 27 };

/* Black. Refuses sizes below 1 and above BND_IMAGE_MAX_PIXELS. */
bnd_status bnd_image_create(int width, int height, bnd_image *image, bnd_error *error);
void bnd_image_free(bnd_image *image); /* and zeroes *image */

/* The format is told by the first bytes, not by the name. On failure *image is zeroed. */
bnd_status bnd_image_read(const char *path, bnd_image *image, bnd_error *error);
/* The same for a file in memory; `name` stands for it in messages. */
bnd_status bnd_image_decode(const char *name, const void *data, size_t size, bnd_image *image, bnd_error *error);
/* As above without the EXIF orientation, i.e. the pixels as stored. */
bnd_status bnd_image_decode_stored(const char *name, const void *data, size_t size, bnd_image *image, bnd_error *error);

/* Written whole or not at all. PNG: 8-bit RGB. JPEG: quality 1..100, 4:4:4 above 90, else 4:2:0. */
bnd_status bnd_image_write_png(const char *path, const bnd_image *image, bnd_error *error);
bnd_status bnd_image_write_jpeg(const char *path, const bnd_image *image, int quality, bnd_error *error);
/* In memory; *data is the caller's (free). */
bnd_status bnd_image_encode_png(const bnd_image *image, void **data, size_t *size, bnd_error *error);
bnd_status bnd_image_encode_jpeg(const bnd_image *image, int quality, void **data, size_t *size, bnd_error *error);

#endif
