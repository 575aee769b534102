/* The augmentation of the YOLO-NAS recipe (super-gradients' `coco2017_train_yolo_nas`): random affine, channel order, HSV, horizontal flip, mixup,
   padded rescale. Every transform takes its random draws as arguments, so that the same draws give the same image as the original's. */
#ifndef BND_DATA_AUGMENT_H
#define BND_DATA_AUGMENT_H

#include <stdbool.h>

#include "base/random.h"
#include "data/sample.h"

/* The parameters of the recipe's YAML. A transform is switched off by `affine` false or a probability of 0. */
typedef struct bnd_augment_options {
  int side;       /* of the square input; the image is fitted into it before everything else. Smaller = cheaper */
  uint8_t border; /* value of pixels outside the image: 114 */
  bool affine;
  double degrees, shear;                   /* rotation and shears from -degrees .. degrees; 0 */
  double scale_min, scale_max;             /* 0.5 .. 1.5 */
  double translate;                        /* the middle goes to 0.5 -+ translate of width and height; 0.25 */
  bool translate_swapped;                  /* as 3.7.1 has it: by the height along x and by the width along y. Off: as it was corrected later */
  bool filter_boxes;                       /* after the affine keep boxes with edges > min_edge (2), area > min_area (0.1) of the area before, */
  double min_edge, min_area, max_aspect;   /* sides' ratio < max_aspect (20) */
  double rgb_probability;                  /* of red, green, blue (the order of validation) instead of blue, green, red; 0.5 */
  double hsv_probability;                  /* 0.5 */
  double hue, saturation, value;           /* largest shifts: 18, 30, 30 */
  double flip_probability;                 /* 0.5 */
  double mixup_probability;                /* 0.5 */
  double mixup_scale_min, mixup_scale_max; /* of the second image; 0.5 .. 1.5 */
  double mixup_flip_probability;           /* 0.5 */
} bnd_augment_options;

/* The recipe at a given side (its own: 640), with the affine's translation corrected. */
bnd_augment_options bnd_augment_options_recipe(int side);
/* Everything off: the image fitted, padded right and below, in RGB. */
bnd_augment_options bnd_augment_options_none(int side);
/* Probabilities in 0..1, ranges not empty and inside what images survive. */
bnd_status bnd_augment_options_check(const bnd_augment_options *options, bnd_error *error);

/* What chance decides about one sample. */
typedef struct bnd_augment_draws {
  double angle, scale, shear_x, shear_y; /* degrees, factor, degrees */
  double middle_x, middle_y;             /* where the image's middle goes, in parts of the sides */
  bool rgb;                              /* feed red, green, blue; else blue, green, red */
  bool hsv;
  int hue, saturation, value; /* shifts; hue in 2 degrees */
  bool flip;
  bool mixup;
  size_t partner;                 /* index into coco->images */
  bool partner_rgb, partner_flip; /* the original's second image is always blue, green, red; so here unless rgb_probability is 1 */
  double partner_scale;
  double partner_x, partner_y; /* in [0, 1): which part of a second image larger than the first is cut out */
} bnd_augment_draws;

/* Always takes the same number of draws in the same order: switching one transform off changes none of the others. image_count is the number of
   images the partner is drawn from (all of the data set's, as in the original). */
bnd_augment_draws bnd_augment_draw(const bnd_augment_options *options, size_t image_count, bnd_random *random);

/* The steps. Each leaves a valid sample behind, also when it fails. */
bnd_status bnd_augment_affine(bnd_sample *sample, const bnd_augment_options *options, const bnd_augment_draws *draws, bnd_error *error);
void bnd_augment_reverse_channels(bnd_sample *sample);
void bnd_augment_hsv(bnd_sample *sample, const bnd_augment_draws *draws);
void bnd_augment_flip(bnd_sample *sample);
/* Half of each image; the partner's boxes behind the sample's. Changes `partner` (which stays the caller's). */
bnd_status bnd_augment_mixup(bnd_sample *sample, bnd_sample *partner, const bnd_augment_options *options, const bnd_augment_draws *draws,
                             bnd_error *error);

/* The whole chain from loaded samples in RGB to image[3 * side * side] and targets (see bnd_sample_finish). `partner` is NULL unless draws->mixup. */
bnd_status bnd_augment(bnd_sample *sample, bnd_sample *partner, const bnd_augment_options *options, const bnd_augment_draws *draws, float *image,
                       bnd_targets *targets, bnd_error *error);

#endif
