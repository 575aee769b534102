#include "data/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/resize.h"

bnd_preprocessing bnd_preprocessing_yolo_nas(int width, int height) {
  return (bnd_preprocessing){
      .width = width,
      .height = height,
      .rescale = BND_RESCALE_LONGEST_TRUNCATE,
      .rescale_width = width - 4,
      .rescale_height = height - 4,
      .padding = BND_PAD_CENTER,
      .pad_value = 114,
      .max_value = 255,
  };
}

bnd_status bnd_preprocessing_check(const bnd_preprocessing *preprocessing, const char *name, bnd_error *error) {
  enum { LARGEST_SIDE = 8192 };
  const bnd_preprocessing *p = preprocessing;
  if (p->width < 1 || p->height < 1 || p->width > LARGEST_SIDE || p->height > LARGEST_SIDE)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: an input of %d x %d pixels is outside 1..%d", name, p->width, p->height, LARGEST_SIDE);
  if (p->rescale != BND_RESCALE_NONE &&
      (p->rescale_width < 1 || p->rescale_height < 1 || p->rescale_width > p->width || p->rescale_height > p->height))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: images rescaled to %d x %d do not fit the input of %d x %d pixels", name, p->rescale_width,
                    p->rescale_height, p->width, p->height);
  if (!isfinite(p->max_value) || p->max_value < 0)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: pixels cannot be divided by %g", name, p->max_value);
  for (int c = 0; p->normalize && c < 3; c++)
    if (!isfinite(p->mean[c]) || !isfinite(p->std[c]) || p->std[c] == 0)
      return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: mean %g and standard deviation %g of channel %d cannot be used", name, (double)p->mean[c],
                      (double)p->std[c], c);
  return BND_OK;
}

bnd_status bnd_preprocessing_geometry(const bnd_preprocessing *preprocessing, int width, int height, bnd_geometry *geometry, bnd_error *error) {
  const bnd_preprocessing *p = preprocessing;
  if (width < 1 || height < 1) return bnd_fail(error, BND_ERROR_ARGUMENT, "an image of %d x %d pixels is empty", width, height);
  /* Double precision and this order of operations: the truncated sizes depend on it (149 * (636 / 149.) is below 636). */
  const double fit_y = (double)p->rescale_height / height, fit_x = (double)p->rescale_width / width, fit = fit_y < fit_x ? fit_y : fit_x;
  bnd_geometry g = {.scale_x = 1, .scale_y = 1, .width = width, .height = height};
  switch (p->rescale) {
    case BND_RESCALE_NONE: break;
    case BND_RESCALE_LONGEST_TRUNCATE:
      g = (bnd_geometry){.scale_x = fit, .scale_y = fit, .width = (int)(width * fit), .height = (int)(height * fit)};
      break;
    case BND_RESCALE_LONGEST_ROUND: /* Python's round: ties to even */
      g = (bnd_geometry){.scale_x = fit, .scale_y = fit, .width = (int)rint(width * fit), .height = (int)rint(height * fit)};
      break;
    case BND_RESCALE_STRETCH:
      g = (bnd_geometry){.scale_x = fit_x, .scale_y = fit_y, .width = p->rescale_width, .height = p->rescale_height};
      break;
  }
  if (g.width < 1 || g.height < 1)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "an image of %d x %d pixels is too thin: scaled into %d x %d nothing is left of one side", width,
                    height, p->rescale_width, p->rescale_height);
  if (g.width > p->width || g.height > p->height)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "an image of %d x %d pixels does not fit the network's input of %d x %d", g.width, g.height,
                    p->width, p->height);
  if (p->padding == BND_PAD_CENTER) {
    g.pad_left = (p->width - g.width) / 2;
    g.pad_top = (p->height - g.height) / 2;
  }
  *geometry = g;
  return BND_OK;
}

/* The image at its size on the canvas: resized into *own, or the image itself. */
static bnd_status place(const bnd_preprocessing *preprocessing, const bnd_image *image, bnd_image *own, const bnd_image **placed,
                        bnd_geometry *geometry, bnd_error *error) {
  *own = (bnd_image){0};
  BND_TRY(bnd_preprocessing_geometry(preprocessing, image->width, image->height, geometry, error));
  *placed = image;
  if (geometry->width == image->width && geometry->height == image->height) return BND_OK;
  BND_TRY(bnd_image_resize(image, geometry->width, geometry->height, own, error));
  *placed = own;
  return BND_OK;
}

bnd_status bnd_preprocess_canvas(const bnd_preprocessing *preprocessing, const bnd_image *image, uint8_t *canvas, bnd_geometry *geometry,
                                 bnd_error *error) {
  bnd_image own;
  const bnd_image *placed;
  bnd_geometry g;
  BND_TRY(place(preprocessing, image, &own, &placed, &g, error));
  const size_t stride = (size_t)preprocessing->width * 3;
  memset(canvas, preprocessing->pad_value, stride * (size_t)preprocessing->height);
  for (int y = 0; y < g.height; y++) {
    const uint8_t *from = placed->pixels + (size_t)y * (size_t)g.width * 3;
    uint8_t *to = canvas + (size_t)(y + g.pad_top) * stride + (size_t)g.pad_left * 3;
    if (!preprocessing->bgr) {
      memcpy(to, from, (size_t)g.width * 3);
      continue;
    }
    for (int x = 0; x < g.width; x++, from += 3, to += 3) {
      to[0] = from[2];
      to[1] = from[1];
      to[2] = from[0];
    }
  }
  bnd_image_free(&own);
  if (geometry) *geometry = g;
  return BND_OK;
}

/* What each byte becomes in each channel; one division in f64 rounded to f32, then f32, as numpy does it. */
static void make_table(const bnd_preprocessing *preprocessing, float table[3][256]) {
  for (int c = 0; c < 3; c++)
    for (int v = 0; v < 256; v++) {
      float value = preprocessing->max_value > 0 ? (float)(v / preprocessing->max_value) : (float)v;
      if (preprocessing->normalize) value = (value - preprocessing->mean[c]) / preprocessing->std[c];
      table[c][v] = value;
    }
}

static void fill(float *at, size_t count, float value) {
  for (size_t i = 0; i < count; i++) at[i] = value;
}

/* One channel: padding above, left, right and below written once each. */
static void write_plane(const bnd_preprocessing *preprocessing, const bnd_geometry *g, const uint8_t *from, const float table[256], float *plane) {
  const size_t width = (size_t)preprocessing->width, left = (size_t)g->pad_left, inner = (size_t)g->width, right = width - left - inner;
  const float pad = table[preprocessing->pad_value];
  fill(plane, (size_t)g->pad_top * width, pad);
  plane += (size_t)g->pad_top * width;
  for (int y = 0; y < g->height; y++, plane += width, from += inner * 3) {
    fill(plane, left, pad);
    for (size_t x = 0; x < inner; x++) plane[left + x] = table[from[x * 3]];
    fill(plane + left + inner, right, pad);
  }
  fill(plane, (size_t)(preprocessing->height - g->pad_top - g->height) * width, pad);
}

bnd_status bnd_preprocess(const bnd_preprocessing *preprocessing, const bnd_image *image, float *output, bnd_geometry *geometry, bnd_error *error) {
  bnd_image own;
  const bnd_image *placed;
  bnd_geometry g;
  float table[3][256];
  BND_TRY(place(preprocessing, image, &own, &placed, &g, error));
  make_table(preprocessing, table);
  const size_t plane = (size_t)preprocessing->width * (size_t)preprocessing->height;
  for (int c = 0; c < 3; c++) write_plane(preprocessing, &g, placed->pixels + (preprocessing->bgr ? 2 - c : c), table[c], output + (size_t)c * plane);
  bnd_image_free(&own);
  if (geometry) *geometry = g;
  return BND_OK;
}

void bnd_geometry_unmap(const bnd_geometry *geometry, const float box[4], float xywh[4]) {
  /* f32 throughout, the scale rounded to f32 first: numpy's arithmetic between a float32 scalar and a Python float. */
  const float scale_x = (float)geometry->scale_x, scale_y = (float)geometry->scale_y;
  xywh[0] = (box[0] - (float)geometry->pad_left) / scale_x;
  xywh[1] = (box[1] - (float)geometry->pad_top) / scale_y;
  xywh[2] = (box[2] - box[0]) / scale_x;
  xywh[3] = (box[3] - box[1]) / scale_y;
}
