#include "data/sample.h"

#include <stdlib.h>

#include "base/memory.h"
#include "data/clip.h"
#include "data/resize.h"

/* Fitted into side x side, long side = side. */
static bnd_preprocessing fit(int side, uint8_t border) {
  return (bnd_preprocessing){.width = side,
                             .height = side,
                             .rescale = BND_RESCALE_LONGEST_TRUNCATE,
                             .rescale_width = side,
                             .rescale_height = side,
                             .padding = BND_PAD_BOTTOM_RIGHT,
                             .pad_value = border,
                             .max_value = 255};
}

void bnd_sample_sanitize(bnd_sample *sample) {
  const float limit[2] = {(float)sample->image.width, (float)sample->image.height};
  size_t kept = 0;
  for (size_t i = 0; i < sample->count; i++) {
    bnd_sample_box box = sample->boxes[i];
    for (int k = 0; k < 4; k++) box.corner[k] = bnd_clip(box.corner[k], limit[k % 2]);
    if ((box.corner[2] - box.corner[0]) * (box.corner[3] - box.corner[1]) > 0) sample->boxes[kept++] = box;
  }
  sample->count = kept;
}

/* The scale comes from the size the JSON states, not from the decoded image, as in the original. */
static bnd_status load_boxes(const bnd_coco *coco, const bnd_coco_image *image, int side, bnd_sample *sample, bnd_error *error) {
  const bnd_preprocessing fitted = fit(side, 0);
  bnd_geometry geometry;
  BND_TRY(bnd_preprocessing_geometry(&fitted, image->width, image->height, &geometry, error));
  if (!BND_GROW(sample->boxes, sample->capacity, image->count)) return bnd_fail_memory(error, "the boxes of an image");
  for (size_t i = image->first; i < image->first + image->count; i++) {
    const bnd_coco_annotation *annotation = &coco->annotations[i];
    bnd_sample_box box = {.label = (float)annotation->label};
    if (annotation->crowd || !bnd_coco_clipped_box(image, annotation, box.corner)) continue;
    for (int k = 0; k < 4; k++) box.corner[k] *= (float)geometry.scale_x;
    sample->boxes[sample->count++] = box;
  }
  bnd_sample_sanitize(sample);
  return BND_OK;
}

static bnd_status fit_image(const bnd_image *image, int side, bnd_image *fitted_image, bnd_error *error) {
  const bnd_preprocessing fitted = fit(side, 0);
  bnd_geometry geometry;
  BND_TRY(bnd_preprocessing_geometry(&fitted, image->width, image->height, &geometry, error));
  return bnd_image_resize(image, geometry.width, geometry.height, fitted_image, error);
}

bnd_status bnd_sample_load(const bnd_coco *coco, size_t index, int side, bnd_sample *sample, bnd_error *error) {
  char path[4096];
  bnd_image decoded = {0};
  *sample = (bnd_sample){0};
  BND_TRY(bnd_coco_image_path(coco, index, path, sizeof path, error));
  BND_TRY(bnd_image_read(path, &decoded, error));
  bnd_status status = fit_image(&decoded, side, &sample->image, error);
  if (status == BND_OK) status = load_boxes(coco, &coco->images[index], side, sample, error);
  bnd_image_free(&decoded);
  if (status == BND_OK) return BND_OK;
  bnd_sample_free(sample);
  return bnd_fail_prefix(error, status, "%s", path);
}

void bnd_sample_free(bnd_sample *sample) {
  bnd_image_free(&sample->image);
  free(sample->boxes);
  *sample = (bnd_sample){0};
}

bnd_status bnd_sample_finish(const bnd_sample *sample, int side, uint8_t border, float *image, bnd_targets *targets, bnd_error *error) {
  const bnd_preprocessing padded = fit(side, border);
  bnd_geometry geometry;
  *targets = (bnd_targets){0};
  BND_TRY(bnd_preprocess(&padded, &sample->image, image, &geometry, error));
  targets->rows = bnd_calloc(sample->count, sizeof *targets->rows);
  if (!targets->rows) return bnd_fail_memory(error, "the targets of an image");
  const float scale = (float)geometry.scale_x;
  for (size_t i = 0; i < sample->count; i++) {
    const bnd_sample_box *box = &sample->boxes[i];
    const float x1 = box->corner[0] * scale, y1 = box->corner[1] * scale, w = box->corner[2] * scale - x1, h = box->corner[3] * scale - y1;
    if (!((w < h ? w : h) > 1)) continue; /* min_bbox_edge_size */
    targets->rows[targets->count++] = (bnd_target){.label = box->label, .cx = x1 + 0.5f * w, .cy = y1 + 0.5f * h, .w = w, .h = h};
  }
  return BND_OK;
}
