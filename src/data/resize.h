/* cv2.resize(..., INTER_LINEAR) for 8-bit images, bit for bit. */
#ifndef BND_DATA_RESIZE_H
#define BND_DATA_RESIZE_H

#include "formats/image/image.h"

/* Resizes to width x height (at least 1 x 1, at most BND_IMAGE_MAX_PIXELS). *resized is a new image; zeroed on failure. */
bnd_status bnd_image_resize(const bnd_image *image, int width, int height, bnd_image *resized, bnd_error *error);

#endif
