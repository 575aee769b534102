#include "data/augment.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"
#include "data/affine.h"
#include "data/hsv.h"
#include "data/resize.h"

bnd_augment_options bnd_augment_options_recipe(int side) {
  return (bnd_augment_options){
      .side = side,
      .border = 114,
      .affine = true,
      .scale_min = 0.5,
      .scale_max = 1.5,
      .translate = 0.25,
      .filter_boxes = true,
      .min_edge = 2,
      .min_area = 0.1,
      .max_aspect = 20,
      .rgb_probability = 0.5,
      .hsv_probability = 0.5,
      .hue = 18,
      .saturation = 30,
      .value = 30,
      .flip_probability = 0.5,
      .mixup_probability = 0.5,
      .mixup_scale_min = 0.5,
      .mixup_scale_max = 1.5,
      .mixup_flip_probability = 0.5,
  };
}

bnd_augment_options bnd_augment_options_none(int side) {
  bnd_augment_options options = bnd_augment_options_recipe(side);
  options.affine = false;
  options.rgb_probability = 1;
  options.hsv_probability = options.flip_probability = options.mixup_probability = 0;
  return options;
}

static bnd_status check_range(const char *name, double value, double low, double high, bnd_error *error) {
  if (value >= low && value <= high) return BND_OK;
  return bnd_fail(error, BND_ERROR_ARGUMENT, "augmentation: %s is %g; allowed is %g to %g", name, value, low, high);
}

bnd_status bnd_augment_options_check(const bnd_augment_options *options, bnd_error *error) {
  const bnd_augment_options *o = options;
  const struct {
    const char *name;
    double value, low, high;
  } ranges[] = {
      {"the input side", o->side, 32, 8192},
      {"degrees", o->degrees, 0, 180},
      {"shear", o->shear, 0, 80},
      {"the smallest scale", o->scale_min, 0.05, 20},
      {"the largest scale", o->scale_max, o->scale_min, 20},
      {"translate", o->translate, 0, 1},
      {"the smallest edge", o->min_edge, 0, 8192},
      {"the smallest share of the area", o->min_area, 0, 1},
      {"the largest aspect ratio", o->max_aspect, 1, 1e9},
      {"the probability of RGB", o->rgb_probability, 0, 1},
      {"the probability of HSV", o->hsv_probability, 0, 1},
      {"the hue shift", o->hue, 0, 255},
      {"the saturation shift", o->saturation, 0, 255},
      {"the value shift", o->value, 0, 255},
      {"the probability of a flip", o->flip_probability, 0, 1},
      {"the probability of mixup", o->mixup_probability, 0, 1},
      {"the smallest scale of mixup", o->mixup_scale_min, 0.05, 20},
      {"the largest scale of mixup", o->mixup_scale_max, o->mixup_scale_min, 20},
      {"the probability of a flip in mixup", o->mixup_flip_probability, 0, 1},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    BND_TRY(check_range(ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high, error));
  return BND_OK;
}

/* One of the three HSV shifts: drawn, then with even odds not applied; whole, toward zero. */
static int draw_shift(bnd_random *random, double largest) {
  const double shift = bnd_random_between(random, -1, 1) * largest;
  return bnd_random_chance(random, 0.5) ? (int)shift : 0;
}

bnd_augment_draws bnd_augment_draw(const bnd_augment_options *options, size_t image_count, bnd_random *random) {
  bnd_augment_draws draws;
  draws.angle = bnd_random_between(random, -options->degrees, options->degrees);
  draws.scale = bnd_random_between(random, options->scale_min, options->scale_max);
  draws.shear_x = bnd_random_between(random, -options->shear, options->shear);
  draws.shear_y = bnd_random_between(random, -options->shear, options->shear);
  draws.middle_x = bnd_random_between(random, 0.5 - options->translate, 0.5 + options->translate);
  draws.middle_y = bnd_random_between(random, 0.5 - options->translate, 0.5 + options->translate);
  draws.rgb = bnd_random_chance(random, options->rgb_probability);
  draws.hsv = bnd_random_chance(random, options->hsv_probability);
  draws.hue = draw_shift(random, options->hue);
  draws.saturation = draw_shift(random, options->saturation);
  draws.value = draw_shift(random, options->value);
  draws.flip = bnd_random_chance(random, options->flip_probability);
  draws.mixup = bnd_random_chance(random, options->mixup_probability);
  draws.partner_rgb = options->rgb_probability >= 1;
  draws.partner_flip = bnd_random_chance(random, options->mixup_flip_probability);
  draws.partner_scale = bnd_random_between(random, options->mixup_scale_min, options->mixup_scale_max);
  draws.partner_x = bnd_random_uniform(random);
  draws.partner_y = bnd_random_uniform(random);
  draws.partner = (size_t)bnd_random_below(random, image_count); /* last: it may take more than one draw */
  return draws;
}

/* The box around the four mapped corners: f64, rounded to f32, then clipped. */
static void map_box(const double m[6], const bnd_image *image, float corner[4]) {
  double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
  for (int k = 0; k < 4; k++) {
    const double x = corner[k & 1 ? 2 : 0], y = corner[k & 2 ? 3 : 1];
    for (int axis = 0; axis < 2; axis++) {
      const double at = x * m[3 * axis] + y * m[3 * axis + 1] + m[3 * axis + 2];
      low[axis] = fmin(low[axis], at);
      high[axis] = fmax(high[axis], at);
    }
  }
  for (int k = 0; k < 4; k++) {
    const float at = (float)(k < 2 ? low[k] : high[k - 2]), limit = (float)(k % 2 ? image->height : image->width);
    corner[k] = at < 0 ? 0 : at > limit ? limit : at;
  }
}

/* `_filter_box_candidates`, f32. */
static bool is_kept(const bnd_augment_options *options, const float before[4], const float after[4]) {
  const float w1 = before[2] - before[0], h1 = before[3] - before[1], w2 = after[2] - after[0], h2 = after[3] - after[1], tiny = 1e-16f;
  const float wide = w2 / (h2 + tiny), high = h2 / (w2 + tiny), edge = (float)options->min_edge;
  return w2 > edge && h2 > edge && w2 * h2 / (w1 * h1 + tiny) > (float)options->min_area && (wide > high ? wide : high) < (float)options->max_aspect;
}

bnd_status bnd_augment_affine(bnd_sample *sample, const bnd_augment_options *options, const bnd_augment_draws *draws, bnd_error *error) {
  const int width = sample->image.width, height = sample->image.height;
  const bnd_affine affine = {.angle = draws->angle,
                             .scale = draws->scale,
                             .shear_x = draws->shear_x,
                             .shear_y = draws->shear_y,
                             .x = draws->middle_x * (options->translate_swapped ? height : width),
                             .y = draws->middle_y * (options->translate_swapped ? width : height)};
  double matrix[6];
  bnd_image warped;
  bnd_affine_matrix(&affine, width, height, matrix);
  BND_TRY(bnd_image_warp_affine(&sample->image, matrix, options->border, &warped, error));
  bnd_image_free(&sample->image);
  sample->image = warped;
  size_t kept = 0;
  for (size_t i = 0; i < sample->count; i++) {
    bnd_sample_box box = sample->boxes[i];
    map_box(matrix, &sample->image, box.corner);
    if (!options->filter_boxes || is_kept(options, sample->boxes[i].corner, box.corner)) sample->boxes[kept++] = box;
  }
  sample->count = kept;
  bnd_sample_sanitize(sample);
  return BND_OK;
}

static size_t pixel_count(const bnd_image *image) {
  return (size_t)image->width * (size_t)image->height;
}

void bnd_augment_reverse_channels(bnd_sample *sample) {
  uint8_t *pixel = sample->image.pixels;
  for (size_t i = pixel_count(&sample->image); i > 0; i--, pixel += 3) {
    const uint8_t first = pixel[0];
    pixel[0] = pixel[2];
    pixel[2] = first;
  }
}

void bnd_augment_hsv(bnd_sample *sample, const bnd_augment_draws *draws) {
  bnd_hsv_shift(sample->image.pixels, pixel_count(&sample->image), draws->hue, draws->saturation, draws->value);
}

void bnd_augment_flip(bnd_sample *sample) {
  const size_t width = (size_t)sample->image.width;
  for (int y = 0; y < sample->image.height; y++) {
    uint8_t *left = sample->image.pixels + (size_t)y * width * 3, *right = left + (width - 1) * 3;
    for (; left < right; left += 3, right -= 3)
      for (int c = 0; c < 3; c++) {
        const uint8_t swap = left[c];
        left[c] = right[c];
        right[c] = swap;
      }
  }
  for (size_t i = 0; i < sample->count; i++) {
    float *corner = sample->boxes[i].corner;
    const float x1 = corner[0];
    corner[0] = (float)width - corner[2];
    corner[2] = (float)width - x1;
  }
  bnd_sample_sanitize(sample);
}

/* Copies `from` to the top left corner of `to`. */
static void paste(const bnd_image *from, bnd_image *to) {
  const size_t bytes = (size_t)from->width * 3, stride = (size_t)to->width * 3;
  for (int y = 0; y < from->height; y++) memcpy(to->pixels + (size_t)y * stride, from->pixels + (size_t)y * bytes, bytes);
}

/* The second image on a canvas of the first one's size, which is then scaled: *scaled, and in *scale the factor from the image to it. */
static bnd_status place_partner(const bnd_image *image, int width, int height, uint8_t border, double jitter, bnd_image *scaled, double *scale,
                                bnd_error *error) {
  const double fit_y = (double)height / image->height, fit_x = (double)width / image->width, fit = fit_y < fit_x ? fit_y : fit_x;
  const int fitted_width = (int)(image->width * fit), fitted_height = (int)(image->height * fit);
  const int scaled_width = (int)(width * jitter), scaled_height = (int)(height * jitter);
  bnd_image fitted = {0}, canvas = {0};
  bnd_status status;
  /* Where a side would vanish, and the original gives up, one pixel stays. */
  BND_TRY_GOTO(bnd_image_resize(image, fitted_width > 0 ? fitted_width : 1, fitted_height > 0 ? fitted_height : 1, &fitted, error), done);
  BND_TRY_GOTO(bnd_image_create(width, height, &canvas, error), done);
  memset(canvas.pixels, border, pixel_count(&canvas) * 3);
  paste(&fitted, &canvas);
  status = bnd_image_resize(&canvas, scaled_width > 0 ? scaled_width : 1, scaled_height > 0 ? scaled_height : 1, scaled, error);
  *scale = fit * jitter;
done:
  bnd_image_free(&fitted);
  bnd_image_free(&canvas);
  return status;
}

BND_VECTORIZED static void average(uint8_t *restrict a, const uint8_t *restrict b, size_t count) {
  for (size_t i = 0; i < count; i++) a[i] = (uint8_t)((a[i] + b[i]) >> 1);
}

BND_VECTORIZED static void halve(uint8_t *a, size_t count) {
  for (size_t i = 0; i < count; i++) a[i] >>= 1;
}

/* Half of each; outside the second image black, as in the original (not the border's value). */
static void blend(bnd_image *image, const bnd_image *second, int x_offset, int y_offset) {
  const int width = second->width - x_offset < image->width ? second->width - x_offset : image->width;
  for (int y = 0; y < image->height; y++) {
    uint8_t *row = image->pixels + (size_t)y * (size_t)image->width * 3;
    size_t covered = 0;
    if (y + y_offset < second->height) {
      covered = (size_t)width * 3;
      average(row, second->pixels + ((size_t)(y + y_offset) * (size_t)second->width + (size_t)x_offset) * 3, covered);
    }
    halve(row + covered, (size_t)image->width * 3 - covered);
  }
}

static double clip(double value, double limit) {
  return value < 0 ? 0 : value > limit ? limit : value;
}

/* The partner's boxes: scaled in f32, the rest in f64; those left without an area go. */
static void append_boxes(bnd_sample *sample, const bnd_sample *partner, double scale, const bnd_image *second, const int offset[2]) {
  const double outer[2] = {second->width, second->height}, inner[2] = {sample->image.width, sample->image.height};
  for (size_t i = 0; i < partner->count; i++) {
    double corner[4];
    bnd_sample_box box = partner->boxes[i];
    for (int k = 0; k < 4; k++) {
      corner[k] = clip(clip((double)(box.corner[k] * (float)scale), outer[k % 2]) - offset[k % 2], inner[k % 2]);
      box.corner[k] = (float)corner[k];
    }
    if ((corner[2] - corner[0]) * (corner[3] - corner[1]) > 0) sample->boxes[sample->count++] = box;
  }
}

bnd_status bnd_augment_mixup(bnd_sample *sample, bnd_sample *partner, const bnd_augment_options *options, const bnd_augment_draws *draws,
                             bnd_error *error) {
  const int width = sample->image.width, height = sample->image.height;
  bnd_image second = {0};
  double scale;
  if (!BND_GROW(sample->boxes, sample->capacity, sample->count + partner->count)) return bnd_fail_memory(error, "the boxes of an image");
  if (!draws->partner_rgb) bnd_augment_reverse_channels(partner);
  if (draws->partner_flip) bnd_augment_flip(partner);
  BND_TRY(place_partner(&partner->image, width, height, options->border, draws->partner_scale, &second, &scale, error));
  /* `randint(0, larger - smaller - 1)` */
  const int offset[2] = {second.width > width ? (int)(draws->partner_x * (second.width - width)) : 0,
                         second.height > height ? (int)(draws->partner_y * (second.height - height)) : 0};
  blend(&sample->image, &second, offset[0], offset[1]);
  append_boxes(sample, partner, scale, &second, offset);
  bnd_image_free(&second);
  return BND_OK;
}

bnd_status bnd_augment(bnd_sample *sample, bnd_sample *partner, const bnd_augment_options *options, const bnd_augment_draws *draws, float *image,
                       bnd_targets *targets, bnd_error *error) {
  *targets = (bnd_targets){0};
  if (options->affine) BND_TRY(bnd_augment_affine(sample, options, draws, error));
  if (!draws->rgb) bnd_augment_reverse_channels(sample);
  if (draws->hsv) bnd_augment_hsv(sample, draws);
  if (draws->flip) bnd_augment_flip(sample);
  if (partner) BND_TRY(bnd_augment_mixup(sample, partner, options, draws, error));
  return bnd_sample_finish(sample, options->side, options->border, image, targets, error);
}
