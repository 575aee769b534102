#include "flow/dataset.h"

#include <stdio.h>
#include <string.h>

bnd_status bnd_dataset_open(const bnd_model *model, const char *folder, const char *split, int size, uint64_t limit, bool same_classes, bnd_dataset *dataset,
                            bnd_error *error) {
  *dataset = (bnd_dataset){0};
  BND_TRY(bnd_model_preprocessing(model, size, false, &dataset->preprocessing, error));
  BND_TRY(bnd_coco_open(folder, split, &dataset->coco, error));
  const bnd_coco *coco = &dataset->coco;
  bnd_status status = BND_OK;
  if (same_classes && coco->category_count != (size_t)bnd_model_class_count(model))
    status = bnd_fail(error, BND_ERROR_MODEL, "%s: has %zu categories, but the network in %s tells %d classes apart; use the data set it was trained for", coco->file,
                      coco->category_count, model->path, bnd_model_class_count(model));
  else if (coco->annotated_count == 0)
    status = bnd_fail(error, BND_ERROR_MODEL, "%s: no image has an annotation, so there is nothing to measure with", coco->file);
  if (status != BND_OK) {
    bnd_dataset_close(dataset);
    return status;
  }
  dataset->count = limit && limit < coco->annotated_count ? (size_t)limit : coco->annotated_count;
  return BND_OK;
}

void bnd_dataset_close(bnd_dataset *dataset) {
  bnd_coco_close(&dataset->coco);
  *dataset = (bnd_dataset){0};
}

bnd_status bnd_dataset_load(const bnd_dataset *dataset, size_t index, float *input, bnd_placement *placement, bnd_error *error) {
  char path[4096];
  bnd_image image;
  BND_TRY(bnd_coco_image_path(&dataset->coco, dataset->coco.annotated[index], path, sizeof path, error));
  bnd_status status = bnd_image_read(path, &image, error);
  if (status == BND_ERROR_IO && error) { /* a missing one, as a rule */
    const size_t length = strlen(error->message);
    snprintf(error->message + length, sizeof error->message - length, "; it is listed in %s", dataset->coco.file);
  }
  if (status != BND_OK) return status;
  bnd_geometry geometry;
  status = bnd_preprocess(&dataset->preprocessing, &image, input, &geometry, error);
  if (status != BND_OK) status = bnd_fail_prefix(error, status, "%s", path);
  if (placement) *placement = (bnd_placement){image.width, image.height, geometry};
  bnd_image_free(&image);
  return status;
}

static bnd_status load(void *user, size_t index, float *input, bnd_error *error) { return bnd_dataset_load(user, index, input, NULL, error); }

bnd_image_source bnd_dataset_source(bnd_dataset *dataset, size_t count) {
  const size_t pixels = (size_t)dataset->preprocessing.width * (size_t)dataset->preprocessing.height;
  return (bnd_image_source){.user = dataset, .count = count, .input_size = 3 * pixels, .load = load};
}

static bnd_status load_of_part(void *user, size_t index, float *input, bnd_error *error) {
  const bnd_dataset_part *part = user;
  return bnd_dataset_load(part->dataset, part->first + index, input, NULL, error);
}

bnd_image_source bnd_dataset_part_source(bnd_dataset_part *part) {
  const bnd_preprocessing *p = &part->dataset->preprocessing;
  return (bnd_image_source){.user = part, .count = part->count, .input_size = 3 * (size_t)p->width * (size_t)p->height, .load = load_of_part};
}
