#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "checksum.h"
#include "data/affine.h"
#include "data/augment.h"
#include "data/hsv.h"

/* I[y][x][c] = (7x + 13y + 31c + floor(x*y/17) + 3*(x xor y)) & 255; the second image: 255 - 3 I. */
static bnd_image synthetic(int width, int height, bool second) {
  bnd_image image;
  assert_int_equal(bnd_image_create(width, height, &image, NULL), BND_OK);
  for (int64_t y = 0, i = 0; y < height; y++)
    for (int64_t x = 0; x < width; x++)
      for (int64_t c = 0; c < 3; c++) {
        const int64_t value = 7 * x + 13 * y + 31 * c + x * y / 17 + 3 * (x ^ y);
        image.pixels[i++] = (uint8_t)(second ? 255 - 3 * value : value);
      }
  return image;
}

static uint32_t image_checksum(const bnd_image *image) {
  return checksum(image->pixels, (size_t)image->width * (size_t)image->height * 3);
}

/* The checksums of the specification (OpenCV 4.6; 4.10 gives the same). */
static void warp_equals_opencv(void **state) {
  (void)state;
  static const struct {
    int height, width;
    double matrix[6];
    uint32_t result;
  } cases[] = {{480, 640, {0.75, 0, 60.5, 0, 0.75, 20.25}, 0xc2d0cf40},
               {480, 640, {1.3125, 0, -70, 0, 1.3125, -54.5}, 0xbcaacb8d},
               {427, 640, {0.5, 0, 160, 0, 0.5, 106.5}, 0x74966e0a}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bnd_image image = synthetic(cases[i].width, cases[i].height, false), warped;
    assert_int_equal(bnd_image_warp_affine(&image, cases[i].matrix, 114, &warped, NULL), BND_OK);
    assert_int_equal(image_checksum(&warped), cases[i].result);
    bnd_image_free(&warped);
    /* a shear too small to move anything takes the general path */
    double sheared[6];
    memcpy(sheared, cases[i].matrix, sizeof sheared);
    sheared[1] = 1e-13;
    assert_int_equal(bnd_image_warp_affine(&image, sheared, 114, &warped, NULL), BND_OK);
    assert_int_equal(image_checksum(&warped), cases[i].result);
    bnd_image_free(&warped);
    bnd_image_free(&image);
  }
}

static void impossible_warps_are_errors(void **state) {
  (void)state;
  bnd_image image = synthetic(4, 4, false), wide = synthetic(32767, 1, false), warped;
  bnd_error error;
  assert_int_equal(bnd_image_warp_affine(&image, (double[6]){1, 1, 0, 1, 1, 0}, 0, &warped, &error), BND_ERROR_ARGUMENT);
  assert_int_equal(bnd_image_warp_affine(&image, (double[6]){1, 0, 0.0 / 0.0, 0, 1, 0}, 0, &warped, &error), BND_ERROR_ARGUMENT);
  assert_int_equal(bnd_image_warp_affine(&wide, (double[6]){1, 0, 0, 0, 1, 0}, 0, &warped, &error), BND_ERROR_UNSUPPORTED);
  assert_null(warped.pixels);
  /* far away in every sense: border everywhere, no overflow */
  static const double far[][6] = {{1, 0, 1e300, 0, 1, 0}, {1, 0, 0, 0, 1, -1e18}, {1e-12, 0, 5, 0, 1e-12, 5}, {1, 1e-9, 1e200, 0, 1, 3}};
  for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
    assert_int_equal(bnd_image_warp_affine(&image, far[i], 9, &warped, &error), BND_OK);
    for (int k = 0; k < 48; k++) assert_int_equal(warped.pixels[k], 9);
    bnd_image_free(&warped);
  }
  bnd_image_free(&image);
  bnd_image_free(&wide);
}

/* Sine and cosine against known values: a rotation about (0, 0) of the middle (0, 0). */
static void matrices_follow_their_definition(void **state) {
  (void)state;
  double m[6];
  bnd_affine_matrix(&(bnd_affine){.angle = 30, .scale = 2, .x = 5, .y = 6}, 1, 1, m);
  const double root = 1.7320508075688772;
  const double expected[6] = {root, 1, 5, -1, root, 6};
  for (int i = 0; i < 6; i++) assert_true(m[i] - expected[i] < 1e-15 && expected[i] - m[i] < 1e-15);
  for (int turn = -8; turn <= 8; turn++) { /* right angles are exact */
    static const double sines[4] = {0, 1, 0, -1};
    bnd_affine_matrix(&(bnd_affine){.angle = 90 * turn, .scale = 1}, 1, 1, m);
    assert_true(m[1] == sines[turn & 3] && m[0] == sines[(turn + 1) & 3] && m[3] == -m[1] && m[4] == m[0]);
  }
  bnd_affine_matrix(&(bnd_affine){.scale = 1, .shear_x = 45, .shear_y = -30, .x = 2, .y = 1}, 4, 2, m);
  const double sheared[6] = {1, 1, -1, -1 / root, 1, 1 / root * 2};
  for (int i = 0; i < 6; i++) assert_true(m[i] - sheared[i] < 1e-15 && sheared[i] - m[i] < 1e-15);
}

/* The checksum of the specification: the grid 0, 5, ..., 255 of all three channels. */
static void hsv_equals_opencv(void **state) {
  (void)state;
  enum { STEPS = 52, COUNT = STEPS * STEPS * STEPS };
  uint8_t *pixels = malloc(COUNT * 3);
  for (int i = 0; i < COUNT; i++) {
    pixels[3 * i] = (uint8_t)(i / (STEPS * STEPS) * 5);
    pixels[3 * i + 1] = (uint8_t)(i / STEPS % STEPS * 5);
    pixels[3 * i + 2] = (uint8_t)(i % STEPS * 5);
  }
  bnd_bgr_to_hsv(pixels, COUNT, pixels);
  assert_int_equal(checksum(pixels, COUNT * 3), 0x11d719ca);
  free(pixels);
}

static void assert_near(const uint8_t *a, const uint8_t *b) {
  for (int c = 0; c < 3; c++) assert_true(abs(a[c] - b[c]) <= 1);
}

/* The six sectors by hand, then turned by whole turns and by one sector; grey stays grey. All to 1: back from HSV is truncated. */
static void hsv_comes_back(void **state) {
  (void)state;
  static const uint8_t hues[6][4] = {{0, 0, 0, 255}, {30, 0, 255, 255}, {60, 0, 255, 0}, {90, 255, 255, 0}, {120, 255, 0, 0}, {150, 255, 0, 255}};
  for (int i = 0; i < 6; i++) {
    uint8_t bgr[3];
    bnd_hsv_to_bgr((const uint8_t[3]){hues[i][0], 255, 255}, 1, bgr);
    assert_near(bgr, hues[i] + 1);
    bnd_hsv_shift(bgr, 1, -180, 0, 0);
    assert_near(bgr, hues[i] + 1);
    bnd_hsv_shift(bgr, 1, -150, 0, 0); /* one sector on */
    assert_near(bgr, hues[(i + 1) % 6] + 1);
  }
  for (int v = 0; v < 256; v++) {
    uint8_t grey[3] = {(uint8_t)v, (uint8_t)v, (uint8_t)v};
    bnd_hsv_shift(grey, 1, 77, 0, 0);
    for (int c = 0; c < 3; c++) assert_in_range(grey[c], v ? v - 1 : 0, v);
  }
}

/* ---- the cases of tests/golden/make_augment.py ---- */

typedef struct golden_case {
  char kind[16];
  int width, height, side;
  bnd_augment_options options;
  bnd_augment_draws draws;
  bnd_sample sample, partner;
  bool has_partner;
  float (*expected)[5];
  size_t expected_count;
  int result_width, result_height;
  uint32_t result;
} golden_case;

static float read_float(FILE *file) {
  uint32_t bits;
  float value;
  assert_int_equal(fscanf(file, "%x", &bits), 1);
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void read_boxes(FILE *file, const char *name, bnd_sample *sample) {
  char word[32];
  assert_int_equal(fscanf(file, "%31s %zu", word, &sample->count), 2);
  assert_string_equal(word, name);
  sample->boxes = calloc(sample->count + 1, sizeof *sample->boxes);
  sample->capacity = sample->count + 1;
  for (size_t i = 0; i < sample->count; i++) {
    for (int k = 0; k < 4; k++) sample->boxes[i].corner[k] = read_float(file);
    sample->boxes[i].label = read_float(file);
  }
  bnd_sample_sanitize(sample); /* as a DetectionSample is when it is made */
}

static bool read_case(FILE *file, golden_case *c) {
  bnd_augment_draws *d = &c->draws;
  int swapped, rgb, hsv, flip, mixup, partner_flip, partner_width, partner_height;
  char word[32];
  *c = (golden_case){0};
  if (fscanf(file, " case %15s %d %d %d %d", c->kind, &c->width, &c->height, &c->side, &swapped) != 5) return false;
  assert_int_equal(fscanf(file, "%la %la %la %la %la %la %d %d %d %d %d %d %d %d %la %la %la", &d->angle, &d->scale, &d->shear_x, &d->shear_y,
                          &d->middle_x, &d->middle_y, &rgb, &hsv, &d->hue, &d->saturation, &d->value, &flip, &mixup, &partner_flip, &d->partner_scale,
                          &d->partner_x, &d->partner_y),
                   17);
  d->rgb = rgb;
  d->hsv = hsv;
  d->flip = flip;
  d->mixup = mixup;
  d->partner_flip = partner_flip;
  c->options = bnd_augment_options_recipe(c->side);
  c->options.translate_swapped = swapped;
  c->sample.image = synthetic(c->width, c->height, false);
  read_boxes(file, "boxes", &c->sample);
  if (fscanf(file, " partner_size %d %d", &partner_width, &partner_height) == 2) {
    c->has_partner = true;
    c->partner.image = synthetic(partner_width, partner_height, true);
    read_boxes(file, "partner", &c->partner);
  }
  /* " partner_size" may have eaten nothing of "expect": they differ in the first letter */
  assert_int_equal(fscanf(file, "%31s %zu", word, &c->expected_count), 2);
  assert_string_equal(word, "expect");
  c->expected = calloc(c->expected_count + 1, sizeof *c->expected);
  for (size_t i = 0; i < c->expected_count; i++)
    for (int k = 0; k < 5; k++) c->expected[i][k] = read_float(file);
  assert_int_equal(fscanf(file, " pixels %d %d %x", &c->result_width, &c->result_height, &c->result), 3);
  return true;
}

static void free_case(golden_case *c) {
  bnd_sample_free(&c->sample);
  bnd_sample_free(&c->partner);
  free(c->expected);
}

typedef struct differences {
  size_t pixels, values;
  int largest;
} differences;

static void compare_bytes(FILE *binary, const uint8_t *pixels, size_t count, differences *total) {
  uint8_t *expected = malloc(count);
  assert_int_equal(fread(expected, 1, count, binary), count);
  for (size_t i = 0; i < count; i++) {
    const int difference = abs(expected[i] - pixels[i]);
    if (difference) total->values++;
    if (difference > total->largest) total->largest = difference;
  }
  total->pixels += count;
  free(expected);
}

/* A step that ends in a sample: pixels and boxes to the last bit, except HSV. */
static void run_step(golden_case *c, FILE *binary, differences *hsv) {
  bnd_sample *s = &c->sample;
  if (!strcmp(c->kind, "affine"))
    assert_int_equal(bnd_augment_affine(s, &c->options, &c->draws, NULL), BND_OK);
  else if (!strcmp(c->kind, "hsv"))
    bnd_augment_hsv(s, &c->draws);
  else if (!strcmp(c->kind, "flip"))
    bnd_augment_flip(s);
  else if (!strcmp(c->kind, "mixup"))
    assert_int_equal(bnd_augment_mixup(s, &c->partner, &c->options, &c->draws, NULL), BND_OK);
  else
    fail_msg("unknown kind %s", c->kind);
  assert_true(s->image.width == c->result_width && s->image.height == c->result_height);
  if (c->result)
    assert_int_equal(image_checksum(&s->image), c->result);
  else
    compare_bytes(binary, s->image.pixels, (size_t)s->image.width * (size_t)s->image.height * 3, hsv);
  assert_int_equal(s->count, c->expected_count);
  for (size_t i = 0; i < s->count; i++) {
    assert_memory_equal(s->boxes[i].corner, c->expected[i], 4 * sizeof(float));
    assert_true(s->boxes[i].label == c->expected[i][4]);
  }
}

/* The end alone, or the whole chain. */
static void run_chain(golden_case *c, FILE *binary, differences *hsv) {
  const size_t count = (size_t)c->side * (size_t)c->side * 3;
  float *image = malloc(count * sizeof *image);
  bnd_targets targets;
  if (!strcmp(c->kind, "finish"))
    assert_int_equal(bnd_sample_finish(&c->sample, c->side, 114, image, &targets, NULL), BND_OK);
  else
    assert_int_equal(bnd_augment(&c->sample, c->draws.mixup ? &c->partner : NULL, &c->options, &c->draws, image, &targets, NULL), BND_OK);
  if (c->result) {
    assert_int_equal(checksum(image, count * sizeof *image), c->result);
  } else {
    uint8_t *bytes = malloc(count);
    for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)(image[i] * 255 + 0.5f);
    compare_bytes(binary, bytes, count, hsv);
    free(bytes);
  }
  assert_true(targets.count == c->expected_count && targets.crowd_count == 0);
  if (targets.count) assert_memory_equal(targets.rows, c->expected, targets.count * sizeof *targets.rows);
  bnd_targets_free(&targets);
  free(image);
}

static void transforms_equal_super_gradients(void **state) {
  (void)state;
  FILE *file = fopen(TEST_DATA "/augment/cases.txt", "r"), *binary = fopen(TEST_DATA "/augment/hsv.bin", "rb");
  assert_non_null(file);
  assert_non_null(binary);
  differences hsv = {0};
  golden_case c;
  int cases = 0;
  for (; read_case(file, &c); cases++) {
    if (c.side)
      run_chain(&c, binary, &hsv);
    else
      run_step(&c, binary, &hsv);
    free_case(&c);
  }
  assert_true(feof(file) && fgetc(binary) == EOF);
  fclose(file);
  fclose(binary);
  print_message("%d cases; HSV: %zu of %zu values differ, by at most %d\n", cases, hsv.values, hsv.pixels, hsv.largest);
  assert_int_equal(cases, 107);
  assert_true(hsv.largest <= 1 && hsv.values * 1000 <= hsv.pixels); /* builds of OpenCV differ as much among themselves */
}

/* A full mirror twice, and against the definition at every width. */
static void flip_mirrors(void **state) {
  (void)state;
  for (int width = 1; width < 9; width++) {
    bnd_sample sample = {.image = synthetic(width, 3, false)};
    bnd_image original = synthetic(width, 3, false);
    bnd_augment_flip(&sample);
    for (int y = 0; y < 3; y++)
      for (int x = 0; x < width; x++)
        assert_memory_equal(sample.image.pixels + (y * width + x) * 3, original.pixels + (y * width + width - 1 - x) * 3, 3);
    bnd_sample_free(&sample);
    bnd_image_free(&original);
  }
}

/* The draws of the recipe lie where it says and follow its probabilities; switching a transform off leaves the others' draws alone. */
static void draws_follow_the_options(void **state) {
  (void)state;
  enum { DRAWS = 4000 };
  bnd_augment_options options = bnd_augment_options_recipe(640), without = options;
  without.hsv_probability = without.mixup_probability = 0;
  int rgb = 0, hsv = 0, flip = 0, mixup = 0, partner_flip = 0, unshifted = 0, largest_hue = 0, largest_value = 0, partners[7] = {0};
  double scale = 0, middle = 0, partner_scale = 0;
  for (uint32_t i = 0; i < DRAWS; i++) {
    bnd_random random = bnd_random_stream(5, 0, i, 0), again = random;
    const bnd_augment_draws d = bnd_augment_draw(&options, 7, &random), e = bnd_augment_draw(&without, 7, &again);
    assert_true(d.angle == 0 && d.shear_x == 0 && d.shear_y == 0 && d.scale >= 0.5 && d.scale < 1.5);
    assert_true(d.middle_x >= 0.25 && d.middle_x < 0.75 && d.middle_y >= 0.25 && d.middle_y < 0.75);
    assert_true(abs(d.hue) <= 18 && abs(d.saturation) <= 30 && abs(d.value) <= 30 && !d.partner_rgb);
    assert_true(!e.hsv && !e.mixup && e.scale == d.scale && e.rgb == d.rgb && e.flip == d.flip && e.partner == d.partner && e.hue == d.hue);
    scale += d.scale / DRAWS;
    middle += (d.middle_x + d.middle_y) / 2 / DRAWS;
    partner_scale += d.partner_scale / DRAWS;
    rgb += d.rgb;
    hsv += d.hsv;
    flip += d.flip;
    mixup += d.mixup;
    partner_flip += d.partner_flip;
    unshifted += d.value == 0;
    if (d.hue > largest_hue) largest_hue = d.hue;
    if (d.value > largest_value) largest_value = d.value;
    partners[d.partner]++;
  }
  const int halves[] = {rgb, hsv, flip, mixup, partner_flip};
  for (int i = 0; i < 5; i++) assert_in_range(halves[i], DRAWS * 0.46, DRAWS * 0.54);
  assert_in_range(unshifted, DRAWS * 0.47, DRAWS * 0.57); /* half, and one draw in 30 truncated to 0 of the rest */
  assert_true(largest_hue == 17 && largest_value == 29);  /* truncation: the ends themselves have probability 0 */
  for (int i = 0; i < 7; i++) assert_in_range(partners[i], DRAWS / 7 * 0.85, DRAWS / 7 * 1.15);
  assert_true(scale > 0.98 && scale < 1.02 && middle > 0.49 && middle < 0.51 && partner_scale > 0.98 && partner_scale < 1.02);
}

static void impossible_options_are_errors(void **state) {
  (void)state;
  bnd_error error;
  bnd_augment_options options = bnd_augment_options_recipe(640);
  assert_int_equal(bnd_augment_options_check(&options, &error), BND_OK);
  options = bnd_augment_options_none(320);
  assert_int_equal(bnd_augment_options_check(&options, &error), BND_OK);
  options.scale_max = 0.4;
  assert_int_equal(bnd_augment_options_check(&options, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "largest scale is 0.4"));
  options = bnd_augment_options_recipe(16);
  assert_int_equal(bnd_augment_options_check(&options, &error), BND_ERROR_ARGUMENT);
  options = bnd_augment_options_recipe(640);
  options.flip_probability = 0.0 / 0.0;
  assert_int_equal(bnd_augment_options_check(&options, &error), BND_ERROR_ARGUMENT);
}

/* "No augmentation" through the chain: the image itself in the corner. */
static void everything_off_changes_nothing(void **state) {
  (void)state;
  const bnd_augment_options options = bnd_augment_options_none(64);
  bnd_random random = bnd_random_stream(0, 0, 0, 0);
  const bnd_augment_draws draws = bnd_augment_draw(&options, 1, &random);
  bnd_sample sample = {.image = synthetic(64, 40, false), .boxes = calloc(1, sizeof *sample.boxes), .count = 1, .capacity = 1};
  sample.boxes[0] = (bnd_sample_box){.corner = {4, 5, 20, 30}, .label = 3};
  bnd_image original = synthetic(64, 40, false);
  float *image = malloc(sizeof *image * 3 * 64 * 64);
  bnd_targets targets;
  assert_true(draws.rgb && !draws.hsv && !draws.flip && !draws.mixup && draws.partner_rgb);
  assert_int_equal(bnd_augment(&sample, NULL, &options, &draws, image, &targets, NULL), BND_OK);
  for (int i = 0; i < 3 * 64 * 64; i++) {
    const int c = i / 4096, y = i / 64 % 64, x = i % 64;
    assert_true(image[i] == (float)(y < 40 ? original.pixels[(y * 64 + x) * 3 + c] : 114) / 255.f);
  }
  assert_true(targets.count == 1 && targets.rows[0].label == 3 && targets.rows[0].cx == 12 && targets.rows[0].cy == 17.5f && targets.rows[0].w == 16);
  bnd_targets_free(&targets);
  bnd_sample_free(&sample);
  bnd_image_free(&original);
  free(image);
}

/* The worked example of the specification on two photographs of super-gradients' tests/data/tinycoco, when that folder is there. */
static void the_worked_example_holds(void **state) {
  (void)state;
  const char *named = getenv("BND_TINYCOCO"), *folder = named ? named : SHARED_DIR "/data/tinycoco";
  if (access(folder, F_OK) != 0) skip();
  bnd_coco coco;
  assert_int_equal(bnd_coco_open(folder, "val2017", &coco, NULL), BND_OK);
  size_t first = 0, second = 0;
  for (size_t i = 0; i < coco.image_count; i++) {
    if (coco.images[i].id == 547503) first = i;
    if (coco.images[i].id == 475546) second = i;
  }
  const bnd_augment_draws draws = {.scale = 0.75,
                                   .middle_x = 0.4375,
                                   .middle_y = 0.625,
                                   .rgb = true,
                                   .flip = true,
                                   .mixup = true,
                                   .partner_flip = true,
                                   .partner_scale = 1.25,
                                   .partner_x = 0.5,
                                   .partner_y = 0.5};
  for (int corrected = 0; corrected < 2; corrected++) {
    bnd_augment_options options = bnd_augment_options_recipe(640);
    options.translate_swapped = !corrected;
    bnd_sample sample, partner;
    assert_int_equal(bnd_sample_load(&coco, first, 640, &sample, NULL), BND_OK);
    assert_int_equal(bnd_sample_load(&coco, second, 640, &partner, NULL), BND_OK);
    bnd_augment_reverse_channels(&sample); /* the checksums are of blue, green, red */
    assert_int_equal(bnd_augment_affine(&sample, &options, &draws, NULL), BND_OK);
    assert_int_equal(image_checksum(&sample.image), corrected ? 0x21af9047 : 0x8a17fe19);
    assert_int_equal(sample.count, corrected ? 13 : 11);
    bnd_augment_reverse_channels(&sample);
    bnd_augment_flip(&sample);
    assert_int_equal(bnd_augment_mixup(&sample, &partner, &options, &draws, NULL), BND_OK);
    assert_int_equal(image_checksum(&sample.image), corrected ? 0x7b3b14a3 : 0xd6853d6e);
    assert_int_equal(sample.count, corrected ? 24 : 22);
    bnd_sample_free(&sample);
    bnd_sample_free(&partner);
  }
  bnd_coco_close(&coco);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(warp_equals_opencv),
      cmocka_unit_test(impossible_warps_are_errors),
      cmocka_unit_test(matrices_follow_their_definition),
      cmocka_unit_test(hsv_equals_opencv),
      cmocka_unit_test(hsv_comes_back),
      cmocka_unit_test(transforms_equal_super_gradients),
      cmocka_unit_test(flip_mirrors),
      cmocka_unit_test(draws_follow_the_options),
      cmocka_unit_test(impossible_options_are_errors),
      cmocka_unit_test(everything_off_changes_nothing),
      cmocka_unit_test(the_worked_example_holds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
