/* Drawn pictures: the same for the same seed, annotated as drawn. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "binade/binade.h"
#include "checksum.h"
#include "data/coco.h"
#include "data/draw_effects.h"
#include "data/draw_mask.h"
#include "data/shapes.h"

static const bnd_shapes_recipe usual = {.seed = 1, .stream = 5, .least_side = 400, .most_side = 640};

static const bnd_shapes_recipe smaller = {.seed = 1, .stream = 5, .least_side = 200, .most_side = 320};

static bnd_shapes_picture draw(const bnd_shapes_recipe *recipe, uint32_t index) {
  bnd_shapes_picture picture;
  bnd_error error = {0};
  if (bnd_shapes_draw(recipe, index, &picture, &error) != BND_OK) fail_msg("%s", error.message);
  return picture;
}

static bool same_image(const bnd_image *a, const bnd_image *b) {
  return a->width == b->width && a->height == b->height && memcmp(a->pixels, b->pixels, (size_t)a->width * (size_t)a->height * 3) == 0;
}

/* The pixels on the first machine that drew them; they change only together with RECIPE_VERSION in src/flow/shapes.c. */
static void test_same_picture_on_every_machine(void **state) {
  (void)state;
  static const uint32_t expected[] = {0xe0404662, 0xc5f5dfb5, 0x3bdff2a, 0xe4582cf4, 0x89c963af, 0xfc4a4f4c};
  for (uint32_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    bnd_shapes_picture p = draw(&smaller, i);
    assert_int_equal(checksum(p.image.pixels, (size_t)p.image.width * (size_t)p.image.height * 3), expected[i]);
    bnd_image_free(&p.image);
  }
}

static void test_same_seed_same_picture(void **state) {
  (void)state;
  bnd_shapes_picture a = draw(&usual, 3), b = draw(&usual, 3), other = draw(&usual, 4);
  bnd_shapes_recipe another_seed = usual, another_stream = usual;
  another_seed.seed++;
  another_stream.stream++;
  bnd_shapes_picture c = draw(&another_seed, 3), d = draw(&another_stream, 3);
  assert_true(same_image(&a.image, &b.image));
  assert_int_equal(a.object_count, b.object_count);
  assert_memory_equal(a.objects, b.objects, (size_t)a.object_count * sizeof *a.objects);
  assert_false(same_image(&a.image, &other.image) || same_image(&a.image, &c.image) || same_image(&a.image, &d.image));
  bnd_image_free(&a.image);
  bnd_image_free(&b.image);
  bnd_image_free(&c.image);
  bnd_image_free(&d.image);
  bnd_image_free(&other.image);
}

/* Boxes lie in their picture, areas fit in them, enough is visible; every class, small and cut figures, few and many of them occur. */
static void test_annotations_are_possible(void **state) {
  (void)state;
  enum { PICTURES = 60 };
  int classes[BND_SHAPES_CLASSES] = {0}, cut = 0, small = 0, large = 0, least = 99, most = 0, longest = 0;
  for (uint32_t i = 0; i < PICTURES; i++) {
    bnd_shapes_picture p = draw(&usual, i);
    assert_in_range(p.image.width, 400, 640);
    assert_in_range(p.image.height, 400, 640);
    longest += p.image.width == 640 || p.image.height == 640;
    least = p.object_count < least ? p.object_count : least;
    most = p.object_count > most ? p.object_count : most;
    for (int k = 0; k < p.object_count; k++) {
      const bnd_shapes_object *o = &p.objects[k];
      assert_in_range(o->label, 0, BND_SHAPES_CLASSES - 1);
      assert_true(o->left >= 0 && o->top >= 0 && o->width > 0 && o->height > 0);
      assert_true(o->left + o->width <= p.image.width && o->top + o->height <= p.image.height);
      assert_in_range(o->area, 1, o->width * o->height);
      assert_true(o->visible <= o->area && o->visible >= 0.4 * o->area);
      classes[o->label]++;
      cut += o->left == 0 || o->top == 0 || o->left + o->width == p.image.width || o->top + o->height == p.image.height;
      small += o->width < 32 && o->height < 32;
      large += o->width > 96 || o->height > 96;
    }
    bnd_image_free(&p.image);
  }
  for (int i = 0; i < BND_SHAPES_CLASSES; i++) assert_true(classes[i] >= 20);
  assert_true(least >= 1 && least <= 2 && most >= 11 && most <= BND_SHAPES_MOST_OBJECTS);
  assert_true(cut >= 60 && small >= 40 && large >= 60);
  assert_in_range(longest, 20, 40);
}

static int median_of(uint8_t *values, int count) {
  int histogram[256] = {0}, at = 0, seen = 0;
  for (int i = 0; i < count; i++) histogram[values[i]]++;
  while ((seen += histogram[at]) <= count / 2) at++;
  return at;
}

static const uint8_t *pixel_at(const bnd_image *image, int x, int y) { return image->pixels + 3 * ((size_t)y * (size_t)image->width + (size_t)x); }

static void color_around(const bnd_image *image, int x, int y, int color[3]) {
  uint8_t patch[81];
  for (int c = 0; c < 3; c++) {
    for (int k = 0; k < 81; k++) patch[k] = pixel_at(image, x - 4 + k % 9, y - 4 + k / 9)[c];
    color[c] = median_of(patch, 81);
  }
}

/* The share of `count` pixels in a row or column whose colour is like `color`. */
static double like_share(const bnd_image *image, int x, int y, int dx, int dy, int count, const int color[3]) {
  int like = 0;
  for (int i = 0; i < count; i++) {
    int distance = 0;
    for (int c = 0; c < 3; c++) distance += abs(pixel_at(image, x + i * dx, y + i * dy)[c] - color[c]);
    like += distance <= 80;
  }
  return (double)like / count;
}

/* A circle that nothing covers is looked for by its colour: the row or column just inside a side of its box holds much of it where the one just
   outside holds none (where it holds some, the surroundings are too similar to tell). */
static void test_boxes_bound_their_pixels(void **state) {
  (void)state;
  int sides = 0;
  for (uint32_t i = 0; i < 250; i++) {
    bnd_shapes_picture p = draw(&smaller, i);
    const bnd_shapes_object *o = &p.objects[p.object_count - 1];
    const int right = o->left + o->width, bottom = o->top + o->height;
    const bool inside = o->left >= 8 && o->top >= 8 && right < p.image.width - 8 && bottom < p.image.height - 8;
    if (inside && o->label == 0 && o->width > 24 && o->visible == o->area) {
      int color[3];
      color_around(&p.image, o->left + o->width / 2, o->top + o->height / 2, color);
      for (int side = 0; side < 4; side++) {
        const int outside_at[] = {o->top - 3, bottom + 2, o->left - 3, right + 2}, inside_at[] = {o->top + 2, bottom - 3, o->left + 2, right - 3};
        const bool row = side < 2;
        const double out = row ? like_share(&p.image, o->left, outside_at[side], 1, 0, o->width, color)
                               : like_share(&p.image, outside_at[side], o->top, 0, 1, o->height, color);
        const double in = row ? like_share(&p.image, o->left, inside_at[side], 1, 0, o->width, color)
                              : like_share(&p.image, inside_at[side], o->top, 0, 1, o->height, color);
        if (out > 0) continue;
        sides++;
        assert_true(in > 0.2);
      }
    }
    bnd_image_free(&p.image);
  }
  assert_true(sides >= 20);
}

/* --- figures --- */

static int covered(const bnd_mask *mask, int least) {
  int count = 0;
  for (int i = 0; i < mask->width * mask->height; i++) count += mask->cover[i] >= least;
  return count;
}

static void test_masks(void **state) {
  (void)state;
  bnd_mask mask;
  bnd_error error = {0};
  assert_int_equal(bnd_mask_create(200, 100, &mask, &error), BND_OK);

  bnd_mask_ring(&mask, (bnd_point){50, 50}, -1, 20.5);
  assert_true(abs(covered(&mask, BND_MASK_HALF) - 1320) <= 12); /* pi 20.5^2 */
  assert_true(mask.cover[50 * 200 + 30] >= BND_MASK_HALF && mask.cover[50 * 200 + 29] < BND_MASK_HALF);
  bnd_mask_clear(&mask);
  assert_int_equal(covered(&mask, 1), 0);

  bnd_mask_ring(&mask, (bnd_point){0, 0}, 10, 20.5);           /* a quarter of it is in the picture */
  assert_true(abs(covered(&mask, BND_MASK_HALF) - 265) <= 25); /* pi / 4 (20.5^2 - 10^2), and half a pixel along both borders */
  bnd_mask_clear(&mask);

  const bnd_point rectangle[] = {{10, 20}, {59, 20}, {59, 49}, {10, 49}};
  bnd_mask_polygon(&mask, rectangle, 4);
  assert_int_equal(covered(&mask, BND_MASK_HALF), 50 * 30);
  assert_true(mask.left <= 10 && mask.top <= 20 && mask.right >= 60 && mask.bottom >= 50);
  bnd_mask_clear(&mask);

  const bnd_point triangle[] = {{20, 10}, {120, 10}, {20, 90}};
  bnd_mask_polygon(&mask, triangle, 3);
  assert_true(abs(covered(&mask, BND_MASK_HALF) - 4167) <= 10); /* the area, half of the legs, 0.6 of the long side */
  assert_int_equal(covered(&mask, 1) > covered(&mask, BND_MASK_ALL), 1);
  bnd_mask_clear(&mask);

  bnd_mask_line(&mask, (bnd_point){10, 30}, (bnd_point){109, 30}, 3);
  assert_true(abs(covered(&mask, 1) - 300) <= 6);
  bnd_mask_clear(&mask);
  bnd_mask_line(&mask, (bnd_point){150, -500}, (bnd_point){150, 500}, 1); /* cut at both ends */
  assert_int_equal(covered(&mask, 1), 100);
  bnd_mask_clear(&mask);
  bnd_mask_line(&mask, (bnd_point){7, 7}, (bnd_point){7, 7}, 1); /* no length */
  assert_int_equal(covered(&mask, 1), 1);
  bnd_mask_free(&mask);
}

/* A line is the same pixels as all those near enough, found the slow way. */
static void test_lines_against_distance(void **state) {
  (void)state;
  bnd_random random = bnd_random_stream(1, 2, 3, 4);
  for (int k = 0; k < 60; k++) {
    bnd_mask mask;
    bnd_error error = {0};
    assert_int_equal(bnd_mask_create(70, 50, &mask, &error), BND_OK);
    const bnd_point a = {(int)bnd_random_below(&random, 90) - 10, (int)bnd_random_below(&random, 70) - 10};
    const bnd_point b = {(int)bnd_random_below(&random, 90) - 10, (int)bnd_random_below(&random, 70) - 10};
    const int thickness = 1 + (int)bnd_random_below(&random, 6);
    bnd_mask_line(&mask, a, b, thickness);
    for (int y = 0; y < 50; y++) {
      for (int x = 0; x < 70; x++) {
        const double run = b.x - a.x, rise = b.y - a.y, length = run * run + rise * rise;
        double t = length > 0 ? ((x - a.x) * run + (y - a.y) * rise) / length : 0;
        t = t < 0 ? 0 : t > 1 ? 1 : t;
        const double distance = hypot(x - a.x - t * run, y - a.y - t * rise);
        if (fabs(distance - thickness * 0.5) > 1e-9) assert_int_equal(mask.cover[y * 70 + x] != 0, distance < thickness * 0.5);
      }
    }
    bnd_mask_free(&mask);
  }
}

/* --- what lies under and over them --- */

static void test_effects(void **state) {
  (void)state;
  bnd_error error = {0};
  bnd_image image;
  assert_int_equal(bnd_image_create(300, 200, &image, &error), BND_OK);
  const size_t count = 300 * 200 * 3;
  memset(image.pixels, 128, count);
  const bnd_random stream = bnd_random_stream(9, 8, 7, 6);
  bnd_draw_noise(&image, 10, &stream);
  double sum = 0, squares = 0, neighbours = 0;
  for (size_t i = 0; i < count; i++) {
    const double d = image.pixels[i] - 128.0;
    sum += d;
    squares += d * d;
    if (i >= 3) neighbours += d * (image.pixels[i - 3] - 128.0);
  }
  const double variance = squares / (double)count;
  assert_true(fabs(sum / (double)count) < 0.1);
  assert_true(fabs(sqrt(variance) - 10) < 0.1);
  assert_true(fabs(neighbours / (double)count / variance) < 0.01);

  memset(image.pixels, 0, count);
  image.pixels[3 * (100 * 300 + 100) + 1] = 160;
  assert_int_equal(bnd_draw_blur(&image, &error), BND_OK);
  static const int expected[3][3] = {{10, 20, 10}, {20, 40, 20}, {10, 20, 10}};
  for (int y = 0; y < 200; y++)
    for (int x = 0; x < 300; x++)
      for (int c = 0; c < 3; c++) {
        const bool near = c == 1 && abs(x - 100) <= 1 && abs(y - 100) <= 1;
        assert_int_equal(image.pixels[3 * (y * 300 + x) + c], near ? expected[y - 99][x - 99] : 0);
      }
  memset(image.pixels, 77, count); /* borders are reflected: what is even stays so */
  assert_int_equal(bnd_draw_blur(&image, &error), BND_OK);
  for (size_t i = 0; i < count; i++) assert_int_equal(image.pixels[i], 77);

  /* With two columns the borders show the two colours (beyond their centres the kernel sees only repetitions and the other colour). */
  bnd_random random = bnd_random_stream(1, 1, 1, 1), again = random;
  bnd_draw_clouds(&image, 2, 2, &random);
  uint8_t corner[3];
  for (int c = 0; c < 3; c++) corner[c] = (uint8_t)bnd_random_below(&again, 256);
  const uint8_t *at_cell = image.pixels + 3 * (50 * 300 + 75); /* half a pixel beside the centre of the first cell: 150 x 100 pixels each */
  for (int c = 0; c < 3; c++) assert_true(abs(at_cell[c] - corner[c]) <= 4);
  bnd_image_free(&image);

  /* Thinnest images. */
  for (int side = 1; side <= 2; side++) {
    assert_int_equal(bnd_image_create(side, 1, &image, &error), BND_OK);
    memset(image.pixels, 9, (size_t)side * 3);
    assert_int_equal(bnd_draw_blur(&image, &error), BND_OK);
    assert_int_equal(image.pixels[0], 9);
    bnd_image_free(&image);
  }
}

/* --- the whole set --- */

static void test_options_are_checked(void **state) {
  (void)state;
  const bnd_dataset_shapes_options wrong[] = {
      {.output = NULL},
      {.output = "nowhere", .split = "a/b"},
      {.output = "nowhere", .split = ".."},
      {.output = "nowhere", .split = ""},
      {.output = "nowhere", .least_side = 700},
      {.output = "nowhere", .least_side = 10},
      {.output = "nowhere", .most_side = 100000},
      {.output = "nowhere", .quality = 101},
      {.output = "nowhere", .quality = -1},
      {.output = "nowhere", .images = UINT64_MAX},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    bnd_error error = {0};
    assert_int_equal(bnd_dataset_shapes(&wrong[i], NULL, NULL, &error), BND_ERROR_ARGUMENT);
    assert_int_not_equal(error.message[0], 0);
  }
  assert_int_not_equal(access("nowhere", F_OK), 0);
}

static bool cancelled(void *user) {
  return ++*(int *)user > 3;
}

static void test_written_set_reads_back(void **state) {
  (void)state;
  char folder[] = "shapes-XXXXXX", path[4096], command[64];
  bnd_error error = {0};
  assert_non_null(mkdtemp(folder));
  const bnd_dataset_shapes_options options = {.output = folder, .split = "val2017", .images = 12, .least_side = 64, .most_side = 128};
  int calls = 0;
  bnd_context context = {.threads = 1, .seed = 11, .user = &calls, .cancelled = cancelled};
  assert_int_equal(bnd_dataset_shapes(&options, &context, NULL, &error), BND_ERROR_INTERRUPTED);
  snprintf(path, sizeof path, "%s/images/val2017.partial", folder);
  assert_int_not_equal(access(path, F_OK), 0); /* nothing half-written */

  bnd_dataset_shapes_result result;
  context.cancelled = NULL;
  context.threads = 3;
  if (bnd_dataset_shapes(&options, &context, &result, &error) != BND_OK) fail_msg("%s", error.message);
  bnd_coco coco;
  if (bnd_coco_open(folder, "val2017", &coco, &error) != BND_OK) fail_msg("%s", error.message);
  assert_int_equal(coco.image_count, 12);
  assert_int_equal(coco.annotated_count, 12);
  assert_int_equal(coco.category_count, BND_SHAPES_CLASSES);
  assert_int_equal(coco.annotation_count, result.objects);
  for (int i = 0; i < BND_SHAPES_CLASSES; i++) {
    assert_string_equal(coco.categories[i].name, bnd_shapes_class_name(i));
    assert_int_equal(coco.categories[i].id, i + 1);
  }
  for (size_t i = 0; i < coco.image_count; i++) {
    bnd_image image;
    assert_int_equal(bnd_coco_image_path(&coco, i, path, sizeof path, &error), BND_OK);
    assert_int_equal(bnd_image_read(path, &image, &error), BND_OK);
    assert_int_equal(image.width, coco.images[i].width);
    assert_int_equal(image.height, coco.images[i].height);
    bnd_image_free(&image);
  }
  bnd_coco_close(&coco);
  assert_int_equal(bnd_dataset_shapes(&options, &context, NULL, &error), BND_OK); /* again */
  context.seed++;
  assert_int_equal(bnd_dataset_shapes(&options, &context, NULL, &error), BND_ERROR_ARGUMENT); /* another one would be in the way */
  snprintf(command, sizeof command, "rm -r %s", folder);
  assert_int_equal(system(command), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_seed_same_picture), cmocka_unit_test(test_same_picture_on_every_machine),
        cmocka_unit_test(test_annotations_are_possible),
      cmocka_unit_test(test_boxes_bound_their_pixels), cmocka_unit_test(test_masks),
      cmocka_unit_test(test_lines_against_distance),   cmocka_unit_test(test_effects),
      cmocka_unit_test(test_options_are_checked),      cmocka_unit_test(test_written_set_reads_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
