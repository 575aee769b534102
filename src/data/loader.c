#include "data/loader.h"

#include <stdlib.h>

#include "base/memory.h"

/* What the streams are for. */
enum { PURPOSE_SHARE = 1, PURPOSE_ORDER = 2, PURPOSE_AUGMENT = 3 };

bnd_loader_options bnd_loader_options_default(int side, uint64_t seed) {
  return (bnd_loader_options){.seed = seed,
                              .shuffle = true,
                              .share = 1,
                              .augment = true,
                              .augmentation = bnd_augment_options_recipe(side),
                              .preprocessing = bnd_preprocessing_yolo_nas(side, side)};
}

static bool can_be_trained_on(const bnd_coco *coco, size_t index) {
  const bnd_coco_image *image = &coco->images[index];
  for (size_t i = image->first; i < image->first + image->count; i++)
    if (!coco->annotations[i].crowd && bnd_coco_clipped_box(image, &coco->annotations[i], (float[4]){0})) return true;
  return false;
}

static int by_value(const void *a, const void *b) {
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return x < y ? -1 : x > y;
}

/* Keeps floor(share * count) images: a random choice of places, in the order of the list. */
static bnd_status take_share(bnd_loader *loader, bnd_error *error) {
  const size_t count = loader->count, kept = (size_t)(loader->options.share * (double)count);
  if (kept == count) return BND_OK;
  if (kept == 0)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: a share of %g of %zu images to train on is less than one image", loader->coco->file,
                    loader->options.share, count);
  size_t *places = bnd_calloc(count, sizeof *places);
  if (!places) return bnd_fail_memory(error, "the list of images");
  for (size_t i = 0; i < count; i++) places[i] = i;
  bnd_random random = bnd_random_stream(loader->options.seed, 0, 0, PURPOSE_SHARE);
  bnd_random_shuffle(&random, places, count);
  qsort(places, kept, sizeof *places, by_value);
  for (size_t i = 0; i < kept; i++) loader->images[i] = loader->images[places[i]];
  loader->count = kept;
  free(places);
  return BND_OK;
}

static bnd_status choose(bnd_loader *loader, const bnd_loader_options *options, bnd_error *error) {
  const bnd_coco *coco = loader->coco;
  const size_t listed = options->images ? options->image_count : coco->image_count, limit = options->limit ? options->limit : listed;
  loader->images = bnd_calloc(listed, sizeof *loader->images);
  if (!loader->images) return bnd_fail_memory(error, "the list of images");
  for (size_t i = 0; i < listed && loader->count < limit; i++) {
    const size_t image = options->images ? options->images[i] : i;
    if (image >= coco->image_count)
      return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: image number %zu was asked for, there are %zu", coco->file, image, coco->image_count);
    if (can_be_trained_on(coco, image)) loader->images[loader->count++] = image;
  }
  if (loader->count == 0)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: none of %zu images has a box to train on (crowd boxes do not count)", coco->file, listed);
  return take_share(loader, error);
}

bnd_status bnd_loader_create(const bnd_coco *coco, const bnd_loader_options *options, bnd_loader *loader, bnd_error *error) {
  *loader = (bnd_loader){0};
  if (!(options->share > 0 && options->share <= 1))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "a share of %g of the training images; allowed is more than 0, at most 1", options->share);
  if (options->augment)
    BND_TRY(bnd_augment_options_check(&options->augmentation, error));
  else
    BND_TRY(bnd_preprocessing_check(&options->preprocessing, "training images", error));
  *loader = (bnd_loader){.coco = coco, .options = *options};
  loader->options.images = NULL;
  const bnd_status status = choose(loader, options, error);
  if (status != BND_OK) bnd_loader_free(loader);
  return status;
}

void bnd_loader_free(bnd_loader *loader) {
  free(loader->images);
  *loader = (bnd_loader){0};
}

size_t bnd_loader_count(const bnd_loader *loader) {
  return loader->count;
}

bnd_status bnd_loader_batches(const bnd_loader *loader, size_t batch, size_t *batches, bnd_error *error) {
  *batches = batch ? loader->count / batch : 0;
  if (*batches) return BND_OK;
  return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: %zu images to train on do not fill one batch of %zu; take more images or a smaller batch",
                  loader->coco->file, loader->count, batch);
}

size_t bnd_loader_image(const bnd_loader *loader, uint32_t epoch, size_t position) {
  if (!loader->options.shuffle) return loader->images[position];
  const bnd_random order = bnd_random_stream(loader->options.seed, epoch, 0, PURPOSE_ORDER);
  return loader->images[bnd_random_permuted(&order, loader->count, position)];
}

void bnd_loader_size(const bnd_loader *loader, int *width, int *height) {
  const bnd_loader_options *options = &loader->options;
  *width = options->augment ? options->augmentation.side : options->preprocessing.width;
  *height = options->augment ? options->augmentation.side : options->preprocessing.height;
}

static bnd_status load_augmented(const bnd_loader *loader, size_t index, bnd_random *random, float *image, bnd_targets *targets, bnd_error *error) {
  const bnd_augment_options *options = &loader->options.augmentation;
  const bnd_augment_draws draws = bnd_augment_draw(options, loader->coco->image_count, random);
  bnd_sample sample = {0}, partner = {0};
  bnd_status status;
  BND_TRY_GOTO(bnd_sample_load(loader->coco, index, options->side, &sample, error), done);
  if (draws.mixup) BND_TRY_GOTO(bnd_sample_load(loader->coco, draws.partner, options->side, &partner, error), done);
  status = bnd_augment(&sample, draws.mixup ? &partner : NULL, options, &draws, image, targets, error);
done:
  bnd_sample_free(&sample);
  bnd_sample_free(&partner);
  return status;
}

static bnd_status load_plain(const bnd_loader *loader, size_t index, float *image, bnd_targets *targets, bnd_error *error) {
  char path[4096];
  bnd_image decoded = {0};
  BND_TRY(bnd_coco_image_path(loader->coco, index, path, sizeof path, error));
  BND_TRY(bnd_image_read(path, &decoded, error));
  bnd_status status = bnd_preprocess(&loader->options.preprocessing, &decoded, image, NULL, error);
  if (status == BND_OK)
    status = bnd_targets_create(loader->coco, index, &loader->options.preprocessing, decoded.width, decoded.height, targets, error);
  bnd_image_free(&decoded);
  targets->crowd_count = 0;
  return status == BND_OK ? BND_OK : bnd_fail_prefix(error, status, "%s", path);
}

bnd_status bnd_loader_load(const bnd_loader *loader, uint32_t epoch, size_t position, float *image, bnd_targets *targets, bnd_error *error) {
  *targets = (bnd_targets){0};
  if (position >= loader->count)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: training image %zu of %zu was asked for", loader->coco->file, position, loader->count);
  const size_t index = bnd_loader_image(loader, epoch, position);
  if (!loader->options.augment) return load_plain(loader, index, image, targets, error);
  bnd_random random = bnd_random_stream(loader->options.seed, epoch, (uint32_t)position, PURPOSE_AUGMENT);
  return load_augmented(loader, index, &random, image, targets, error);
}
