/* Training images one at a time: which image stands where in an epoch, and that image with its targets. Everything is a function of
   (seed, epoch, position): any number of threads in any order get the same bytes. */
#ifndef BND_DATA_LOADER_H
#define BND_DATA_LOADER_H

#include "data/augment.h"

typedef struct bnd_loader_options {
  uint64_t seed;
  bool shuffle;         /* a new order for every epoch; else the order of the list */
  const size_t *images; /* indices into coco->images to choose from, borrowed until bnd_loader_create returns; NULL: all */
  size_t image_count;
  size_t limit; /* only the first so many that can be trained on; 0: no limit */
  double share; /* then this share of them, chosen by the seed, floor(share * count): the recipe's train_data_percent. 1: all */
  bool augment;
  bnd_augment_options augmentation; /* when augmenting */
  bnd_preprocessing preprocessing;  /* when not: exactly the validation transform */
} bnd_loader_options;

/* The whole set, shuffled, augmented as in the recipe, at side x side pixels. */
bnd_loader_options bnd_loader_options_default(int side, uint64_t seed);

/* Read-only once created. For training at several sizes copy the struct, change options.augmentation.side (or options.preprocessing) in the copy
   and load through it: draws and order stay the same. Only the original is closed. */
typedef struct bnd_loader {
  const bnd_coco *coco;       /* borrowed */
  bnd_loader_options options; /* without `images` */
  size_t *images;             /* the chosen images, in the order of the list; owned */
  size_t count;
} bnd_loader;

/* Of the images those can be trained on that have a box which is not crowd (super-gradients' ignore_empty_annotations, with_crowd False; as there,
   boxes that end before they begin do not count, while those left without an area by clipping do). Fails when none remains. On failure *loader is
   zeroed. */
bnd_status bnd_loader_create(const bnd_coco *coco, const bnd_loader_options *options, bnd_loader *loader, bnd_error *error);
void bnd_loader_free(bnd_loader *loader); /* and zeroes *loader */

/* Images of an epoch = positions 0 .. count - 1. */
size_t bnd_loader_count(const bnd_loader *loader);
/* Full batches of an epoch (what is left over is dropped). Fails, saying how many images there are, when there is none. */
bnd_status bnd_loader_batches(const bnd_loader *loader, size_t batch, size_t *batches, bnd_error *error);
/* Index into coco->images; position < bnd_loader_count. */
size_t bnd_loader_image(const bnd_loader *loader, uint32_t epoch, size_t position);

/* Width and height of what bnd_loader_load fills. */
void bnd_loader_size(const bnd_loader *loader, int *width, int *height);
/* image[3 * height * width] (CHW, 0..1 unless the preprocessing says otherwise) and targets (new; bnd_targets_free), which may have no row. No crowd
   rows. Errors name the file. Safe from several threads at once. */
bnd_status bnd_loader_load(const bnd_loader *loader, uint32_t epoch, size_t position, float *image, bnd_targets *targets, bnd_error *error);

#endif
