/* cv2.warpAffine(image, M, (width, height), flags=INTER_LINEAR, borderValue=(v, v, v)) for 8-bit images, with the arithmetic of OpenCV up to 4.x's
   fixed-point kernel, bit for bit: positions in 1/1024, weights in 1/32. */
#ifndef BND_DATA_AFFINE_H
#define BND_DATA_AFFINE_H

#include "formats/image/image.h"

/* `matrix` maps the image to the result, row by row: x' = m[0] x + m[1] y + m[2], y' = m[3] x + m[4] y + m[5]; it must be invertible and finite.
 *warped is a new image of the same size; zeroed on failure. Sides above 32766 are refused, as OpenCV does. */
bnd_status bnd_image_warp_affine(const bnd_image *image, const double matrix[6], uint8_t border, bnd_image *warped, bnd_error *error);

/* The matrix that scales and rotates (degrees, counter-clockwise on the screen) around the middle (width / 2, height / 2 in whole numbers), shears
   (degrees, along x and along y), and then puts the middle at (x, y): translation * shear * rotation * centre as in super-gradients'
   `get_affine_matrix`. Sine and cosine are computed here, so that every machine gets the same matrix. */
typedef struct bnd_affine {
  double angle, scale, shear_x, shear_y, x, y;
} bnd_affine;
void bnd_affine_matrix(const bnd_affine *affine, int width, int height, double matrix[6]);

#endif
