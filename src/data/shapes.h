/* Drawn pictures to train on and to test with: flat figures of eight classes on soft colour clouds cluttered with lines, noisy and partly blurred.
   Picture `index` under a seed is the same on every machine, whatever else is drawn.

   A picture: 2 to 8 by 2 to 8 random colours enlarged to clouds; 0 to 25 lines; 1 to 12 figures, each of a random class, colour, rotation, centre
   (anywhere in the picture, so that borders cut figures) and radius (uniform in its logarithm); noise of a standard deviation between 0 and 14;
   one picture in three is blurred. Nothing keeps a figure's colour from being near that of what lies behind it, nor figures from covering each
   other; what is covered almost wholly is not annotated. */
#ifndef BND_DATA_SHAPES_H
#define BND_DATA_SHAPES_H

#include "base/random.h"
#include "formats/image/image.h"

enum { BND_SHAPES_CLASSES = 8, BND_SHAPES_MOST_OBJECTS = 12, BND_SHAPES_LEAST_SIDE = 64, BND_SHAPES_MOST_SIDE = 4096 };

/* "circle", "square", "triangle", "star", "cross", "ring", "hexagon", "arrow" for labels 0..BND_SHAPES_CLASSES - 1 */
const char *bnd_shapes_class_name(int label);

typedef struct bnd_shapes_recipe {
  uint64_t seed;
  uint32_t stream;           /* pictures under different numbers have nothing in common */
  int least_side, most_side; /* of the pictures, in pixels, within BND_SHAPES_LEAST_SIDE..BND_SHAPES_MOST_SIDE */
} bnd_shapes_recipe;

/* A figure in a picture. The box is the smallest that holds its pixels, covered ones included, those outside the picture not. */
typedef struct bnd_shapes_object {
  int label;                  /* 0..BND_SHAPES_CLASSES - 1 */
  int left, top, width, height;
  int area;                   /* its pixels in the picture, covered ones included */
  int visible;                /* those of them that nothing covers */
} bnd_shapes_object;

typedef struct bnd_shapes_picture {
  bnd_image image; /* owned: bnd_image_free */
  bnd_shapes_object objects[BND_SHAPES_MOST_OBJECTS]; /* in the order drawn: later ones lie over earlier ones */
  int object_count;
} bnd_shapes_picture;

/* On failure *picture is zeroed. Safe from several threads. */
bnd_status bnd_shapes_draw(const bnd_shapes_recipe *recipe, uint32_t index, bnd_shapes_picture *picture, bnd_error *error);

#endif
