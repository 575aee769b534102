/* Ground truth on the canvas, in the order and precision of super-gradients' DetectionSample and its transforms. */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "data/clip.h"
#include "data/transform.h"

/* `sanitize_sample`: clip to the image, then a box without area goes. */
static bool sanitize(float box[4], int width, int height) {
  for (int i = 0; i < 4; i++) box[i] = bnd_clip(box[i], (float)(i % 2 ? height : width));
  return (box[2] - box[0]) * (box[3] - box[1]) > 0;
}

/* One annotation's row, false when the chain drops it. */
static bool make_target(const bnd_coco_image *image, const bnd_coco_annotation *annotation, const bnd_preprocessing *preprocessing,
                        const bnd_geometry *by_json, const bnd_geometry *placed, bnd_target *target) {
  float box[4];
  if (!bnd_coco_clipped_box(image, annotation, box)) return false;
  const float scale[2] = {(float)by_json->scale_x, (float)by_json->scale_y};
  for (int i = 0; i < 4; i++) box[i] *= scale[i % 2];
  if (!sanitize(box, placed->width, placed->height)) return false;
  const float shift[2] = {(float)placed->pad_left, (float)placed->pad_top};
  for (int i = 0; i < 4; i++) box[i] += shift[i % 2];
  if (!sanitize(box, preprocessing->width, preprocessing->height)) return false;
  const float w = box[2] - box[0], h = box[3] - box[1];
  if (!((w < h ? w : h) > 1)) return false; /* min_bbox_edge_size */
  *target = (bnd_target){.label = (float)annotation->label, .cx = box[0] + 0.5f * w, .cy = box[1] + 0.5f * h, .w = w, .h = h};
  return true;
}

bnd_status bnd_targets_create(const bnd_coco *coco, size_t index, const bnd_preprocessing *preprocessing, int image_width, int image_height,
                              bnd_targets *targets, bnd_error *error) {
  const bnd_coco_image *image = &coco->images[index];
  bnd_geometry by_json, placed;
  *targets = (bnd_targets){0};
  BND_TRY(bnd_preprocessing_geometry(preprocessing, image->width, image->height, &by_json, error));
  BND_TRY(bnd_preprocessing_geometry(preprocessing, image_width, image_height, &placed, error));
  bnd_target *rows = bnd_calloc(image->count, sizeof *rows);
  if (!rows) return bnd_fail_memory(error, "the targets of an image");
  targets->rows = rows;
  for (int crowd = 0; crowd < 2; crowd++)
    for (size_t i = 0; i < image->count; i++) {
      const bnd_coco_annotation *annotation = &coco->annotations[image->first + i];
      if (annotation->crowd != (crowd == 1) || !make_target(image, annotation, preprocessing, &by_json, &placed, rows)) continue;
      rows++;
      *(crowd ? &targets->crowd_count : &targets->count) += 1;
    }
  return BND_OK;
}

void bnd_targets_free(bnd_targets *targets) {
  free(targets->rows);
  *targets = (bnd_targets){0};
}
