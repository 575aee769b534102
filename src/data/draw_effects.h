/* What lies under and over drawn figures. Whole numbers, and floats in a fixed order without functions of the mathematics library: the same
   bytes on every machine. */
#ifndef BND_DATA_DRAW_EFFECTS_H
#define BND_DATA_DRAW_EFFECTS_H

#include "base/random.h"
#include "formats/image/image.h"

enum { BND_CLOUDS_MAX_CELLS = 8 };

/* Fills the image with rows x columns random colours, each channel uniform in 0..255, enlarged by bicubic interpolation (a = -0.75, pixels at
   their centres, the border repeated, clipped to 0..255): soft saturated clouds, or bands when one of the two numbers is small. */
void bnd_draw_clouds(bnd_image *image, int rows, int columns, bnd_random *random);

/* Adds to every channel of every pixel its own nearly normal noise with this standard deviation (of 0..255); clipped. */
void bnd_draw_noise(bnd_image *image, float deviation, const bnd_random *stream);

/* The binomial filter [1 2 1; 2 4 2; 1 2 1] / 16, reflected at the borders without the border pixel itself. */
bnd_status bnd_draw_blur(bnd_image *image, bnd_error *error);

#endif
