/* From a decoded image to the network's input, and boxes in both directions: super-gradients' validation transforms and the chain a
   checkpoint's `processing_params` describes. */
#ifndef BND_DATA_TRANSFORM_H
#define BND_DATA_TRANSFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/coco.h"
#include "formats/image/image.h"

typedef enum bnd_rescale {
  BND_RESCALE_NONE,
  BND_RESCALE_LONGEST_TRUNCATE, /* keep the aspect ratio, sizes truncated: the dataset's loader (`_load_resized_img`) */
  BND_RESCALE_LONGEST_ROUND,    /* keep the aspect ratio, sizes rounded half to even: `DetectionLongestMaxSizeRescale` (predict) */
  BND_RESCALE_STRETCH           /* exactly rescale_width x rescale_height: `DetectionRescale` */
} bnd_rescale;

typedef enum bnd_padding { BND_PAD_CENTER, BND_PAD_BOTTOM_RIGHT } bnd_padding;

/* Steps in this order: channel order, rescale, pad to width x height, divide, normalize, HWC -> CHW. */
typedef struct bnd_preprocessing {
  int width, height;                 /* the network's input */
  bool bgr;                          /* feed blue, green, red (images are RGB) */
  bnd_rescale rescale;
  int rescale_width, rescale_height; /* the box the image is fitted into */
  bnd_padding padding;
  uint8_t pad_value;
  double max_value;                  /* value = (f32)((f64)byte / max_value); 0 = not divided */
  bool normalize;                    /* then (value - mean) / std per channel of the network's input, f32 */
  float mean[3], std[3];
} bnd_preprocessing;

/* `coco2017_val_yolo_nas` at any input size: RGB, longest side size - 4 (636 for 640), truncated, centre padding 114, / 255. */
bnd_preprocessing bnd_preprocessing_yolo_nas(int width, int height);
/* Sizes positive, rescale box inside the input, std not 0, ...; `name` stands for the source in messages. */
bnd_status bnd_preprocessing_check(const bnd_preprocessing *preprocessing, const char *name, bnd_error *error);

/* Where an image of a given size comes to lie on the canvas: canvas = image * scale + pad. */
typedef struct bnd_geometry {
  double scale_x, scale_y; /* the factor before the size became whole (equal unless stretched) */
  int width, height;       /* of the resized image */
  int pad_left, pad_top;
} bnd_geometry;

/* Fails for images so thin that a side vanishes, and for those that do not fit the canvas when nothing is rescaled. */
bnd_status bnd_preprocessing_geometry(const bnd_preprocessing *preprocessing, int width, int height, bnd_geometry *geometry, bnd_error *error);

/* Fills output[3 * height * width] (CHW). *geometry (may be NULL) gets the placement. */
bnd_status bnd_preprocess(const bnd_preprocessing *preprocessing, const bnd_image *image, float *output, bnd_geometry *geometry, bnd_error *error);
/* The bytes before division, HWC in the network's channel order, into canvas[height * width * 3]. */
bnd_status bnd_preprocess_canvas(const bnd_preprocessing *preprocessing, const bnd_image *image, uint8_t *canvas, bnd_geometry *geometry,
                                 bnd_error *error);

/* A box (x1, y1, x2, y2) on the canvas -> x, y, width, height in pixels of the original image, f32, not clipped: what COCOeval is fed. */
void bnd_geometry_unmap(const bnd_geometry *geometry, const float box[4], float xywh[4]);

/* Ground truth on the canvas for super-gradients' metrics: rows of label, cx, cy, w, h (f32). */
typedef struct bnd_target {
  float label, cx, cy, w, h;
} bnd_target;

typedef struct bnd_targets {
  bnd_target *rows;  /* first `count` rows: targets; behind them `crowd_count` crowd rows. Owned: bnd_targets_free */
  size_t count, crowd_count;
} bnd_targets;

/* Arithmetic and order of the original: f32 boxes clipped to the JSON size, scaled by (f32)scale of the JSON size, sanitized on the resized
   image, shifted by the padding, sanitized on the canvas, boxes with an edge <= 1 pixel dropped. `image` is an index into coco->images;
   image_width, image_height are the decoded image's. */
bnd_status bnd_targets_create(const bnd_coco *coco, size_t image, const bnd_preprocessing *preprocessing, int image_width, int image_height,
                              bnd_targets *targets, bnd_error *error);
void bnd_targets_free(bnd_targets *targets);

#endif
