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
#include "data/resize.h"
#include "data/transform.h"

/* I[y][x][c] = (7x + 13y + 31c + floor(x*y/17) + 3*(x xor y)) & 255 */
static bnd_image synthetic(int width, int height) {
  bnd_image image;
  assert_int_equal(bnd_image_create(width, height, &image, NULL), BND_OK);
  for (int64_t y = 0, i = 0; y < height; y++)
    for (int64_t x = 0; x < width; x++)
      for (int64_t c = 0; c < 3; c++) image.pixels[i++] = (uint8_t)(7 * x + 13 * y + 31 * c + x * y / 17 + 3 * (x ^ y));
  return image;
}

static void resize_equals_opencv(void **state) {
  (void)state;
  static const struct {
    int height, width, to_height, to_width;
    uint32_t source, result;
  } cases[] = {
      /* cv2.resize, OpenCV 4.6, 4.10 and 5.0 alike */
      {480, 640, 477, 636, 0xceff2c58, 0x03a5a0f3}, {427, 640, 424, 636, 0x107f9cda, 0xff17f714}, {375, 500, 477, 636, 0xe5e4be7d, 0xa56a0413},
      {640, 427, 636, 424, 0x45dbb6c7, 0x8ee19a90}, {5, 7, 3, 4, 0x132f7248, 0xbc38f9e5},         {3, 3, 7, 5, 0xe1c67f5e, 0x4839fb15},
      {100, 80, 50, 40, 0xda557e89, 0xb925aeb1},    {33, 47, 640, 640, 0x7159c550, 0x4dcf7f7a},
      {1, 1, 636, 636, 0, 0x2cda2202},
      {1, 1, 1, 7, 0, 0x599ad618},
      {2, 300, 4, 636, 0, 0x7e3e22f9},
      {300, 2, 636, 4, 0, 0x550bcc14},
      {10, 4000, 1, 636, 0, 0x6c8575d5},
      {8000, 8000, 636, 636, 0, 0x4f57cf77},
      {20, 20, 10, 40, 0, 0x8f0f9603},
      {21, 20, 10, 10, 0, 0xb77aaadd},
      {7, 5, 7, 11, 0, 0x5d02229a},
      {600, 20, 31, 20, 0, 0xae1bc9ab},
      {1272, 1270, 636, 635, 0, 0x478f757c},
      {4, 3, 3, 4, 0, 0x4ab03b69},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bnd_image image = synthetic(cases[i].width, cases[i].height), resized;
    if (cases[i].source) assert_int_equal(checksum(image.pixels, (size_t)image.width * (size_t)image.height * 3), cases[i].source);
    assert_int_equal(bnd_image_resize(&image, cases[i].to_width, cases[i].to_height, &resized, NULL), BND_OK);
    assert_int_equal(checksum(resized.pixels, (size_t)resized.width * (size_t)resized.height * 3), cases[i].result);
    bnd_image_free(&image);
    bnd_image_free(&resized);
  }
}

static void resize_refuses_impossible_sizes(void **state) {
  (void)state;
  bnd_image image = synthetic(4, 4), resized;
  assert_int_equal(bnd_image_resize(&image, 0, 4, &resized, NULL), BND_ERROR_FORMAT);
  assert_int_equal(bnd_image_resize(&image, 1 << 20, 1 << 20, &resized, NULL), BND_ERROR_FORMAT);
  assert_null(resized.pixels);
  bnd_image_free(&image);
}

/* The lengths at which the product of two doubles falls just below a whole number. */
static void geometry_truncates_as_python_does(void **state) {
  (void)state;
  const bnd_preprocessing standard = bnd_preprocessing_yolo_nas(640, 640);
  static const int short_636[] = {149, 291, 298, 582, 591, 596, 617, 1087}, short_640[] = {77, 154, 303, 308, 319, 581, 606, 616, 623, 638};
  bnd_geometry g;
  for (size_t i = 0; i < sizeof short_636 / sizeof *short_636; i++) {
    assert_int_equal(bnd_preprocessing_geometry(&standard, short_636[i], 100, &g, NULL), BND_OK);
    assert_int_equal(g.width, 635);
  }
  bnd_preprocessing full = standard;
  full.rescale_width = full.rescale_height = 640;
  for (size_t i = 0; i < sizeof short_640 / sizeof *short_640; i++) {
    assert_int_equal(bnd_preprocessing_geometry(&full, 50, short_640[i], &g, NULL), BND_OK);
    assert_int_equal(g.height, 639);
  }
  assert_int_equal(bnd_preprocessing_geometry(&standard, 640, 480, &g, NULL), BND_OK);
  assert_true(g.width == 636 && g.height == 477 && g.pad_left == 2 && g.pad_top == 81 && g.scale_x == 0.99375);
  /* predict() rounds where the data set truncates */
  bnd_preprocessing predict = standard;
  predict.rescale = BND_RESCALE_LONGEST_ROUND;
  assert_int_equal(bnd_preprocessing_geometry(&standard, 500, 333, &g, NULL), BND_OK);
  assert_int_equal(g.height, 423);
  assert_int_equal(bnd_preprocessing_geometry(&predict, 500, 333, &g, NULL), BND_OK);
  assert_int_equal(g.height, 424);
}

static void impossible_geometry_is_an_error(void **state) {
  (void)state;
  bnd_preprocessing p = bnd_preprocessing_yolo_nas(640, 640);
  bnd_geometry g;
  bnd_error error;
  assert_int_equal(bnd_preprocessing_geometry(&p, 1, 8000, &g, &error), BND_ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.message, "too thin"));
  p.rescale = BND_RESCALE_NONE;
  assert_int_equal(bnd_preprocessing_geometry(&p, 641, 10, &g, &error), BND_ERROR_UNSUPPORTED);
  p = bnd_preprocessing_yolo_nas(640, 640);
  p.rescale_width = 641;
  assert_int_equal(bnd_preprocessing_check(&p, "model", &error), BND_ERROR_ARGUMENT);
  p = bnd_preprocessing_yolo_nas(640, 640);
  p.normalize = true;
  assert_int_equal(bnd_preprocessing_check(&p, "model", &error), BND_ERROR_ARGUMENT);
  p = bnd_preprocessing_yolo_nas(320, 320);
  assert_int_equal(bnd_preprocessing_check(&p, "model", &error), BND_OK);
  assert_int_equal(p.rescale_width, 316);
}

static void chain_variants_follow_their_definition(void **state) {
  (void)state;
  bnd_image image = synthetic(50, 40);
  /* Roboflow fine-tuning: BGR, longest side 64, bottom-right padding; then mean and deviation without division */
  const bnd_preprocessing p = {.width = 64, .height = 96, .bgr = true, .rescale = BND_RESCALE_NONE, .padding = BND_PAD_BOTTOM_RIGHT, .pad_value = 7,
                               .normalize = true, .mean = {10, 20, 30.5f}, .std = {2, 3, 7}};
  float *output = malloc(sizeof(float) * 3 * 64 * 96);
  bnd_geometry g;
  assert_int_equal(bnd_preprocess(&p, &image, output, &g, NULL), BND_OK);
  assert_true(g.pad_left == 0 && g.pad_top == 0);
  for (int c = 0; c < 3; c++)
    for (int y = 0; y < 96; y++)
      for (int x = 0; x < 64; x++) {
        const float byte = y < 40 && x < 50 ? image.pixels[(y * 50 + x) * 3 + 2 - c] : 7;
        assert_true(output[(c * 96 + y) * 64 + x] == (byte - p.mean[c]) / p.std[c]);
      }
  bnd_preprocessing stretch = bnd_preprocessing_yolo_nas(64, 32);
  stretch.rescale = BND_RESCALE_STRETCH;
  stretch.rescale_width = 64;
  stretch.rescale_height = 32;
  assert_int_equal(bnd_preprocess(&stretch, &image, output, &g, NULL), BND_OK);
  bnd_image resized;
  assert_int_equal(bnd_image_resize(&image, 64, 32, &resized, NULL), BND_OK);
  for (int i = 0; i < 64 * 32; i++) assert_true(output[i] == resized.pixels[i * 3] / 255.f);
  float xywh[4];
  bnd_geometry_unmap(&g, (float[4]){32, 16, 64, 32}, xywh);
  assert_true(xywh[0] == 25 && xywh[1] == 20 && xywh[2] == 25 && xywh[3] == 20);
  free(output);
  bnd_image_free(&resized);
  bnd_image_free(&image);
}

/* Every annotated image of the shared data sets: pixels, input, targets against super-gradients' own data set. */
static void whole_data_sets_equal_super_gradients(void **state) {
  (void)state;
  if (access(SHARED_DIR "/golden/shapes", F_OK) != 0) skip();
  FILE *table = fopen(TEST_DATA "/transforms.tsv", "r");
  assert_non_null(table);
  const bnd_preprocessing p = bnd_preprocessing_yolo_nas(640, 640);
  float *input = malloc(sizeof(float) * 3 * 640 * 640);
  bnd_coco coco = {0};
  char line[512], open[200] = "", folder[64], split[64], path[4096];
  int compared = 0;
  while (fgets(line, sizeof line, table)) {
    long long id;
    uint32_t pixels, x, targets, crowd;
    size_t count, crowd_count, position;
    assert_int_equal(sscanf(line, "%63s %63s %lld %x %x %x %x %zu %zu %zu", folder, split, &id, &pixels, &x, &targets, &crowd, &count, &crowd_count,
                            &position), 10);
    char name[200];
    snprintf(name, sizeof name, SHARED_DIR "/%s", folder);
    if (access(name, F_OK) != 0) continue;
    snprintf(path, sizeof path, "%s %s", folder, split);
    if (strcmp(path, open) != 0) {
      bnd_coco_close(&coco);
      assert_int_equal(bnd_coco_open(name, split, &coco, NULL), BND_OK);
      snprintf(open, sizeof open, "%s", path);
    }
    assert_true(position < coco.annotated_count);
    const size_t index = coco.annotated[position];
    assert_int_equal(coco.images[index].id, id);
    bnd_image image;
    bnd_targets rows;
    assert_int_equal(bnd_coco_image_path(&coco, index, path, sizeof path, NULL), BND_OK);
    assert_int_equal(bnd_image_read(path, &image, NULL), BND_OK);
    assert_int_equal(checksum(image.pixels, (size_t)image.width * (size_t)image.height * 3), pixels);
    assert_int_equal(bnd_preprocess(&p, &image, input, NULL, NULL), BND_OK);
    assert_int_equal(checksum(input, sizeof(float) * 3 * 640 * 640), x);
    assert_int_equal(bnd_targets_create(&coco, index, &p, image.width, image.height, &rows, NULL), BND_OK);
    assert_true(rows.count == count && rows.crowd_count == crowd_count);
    assert_int_equal(checksum(rows.rows, count * sizeof(bnd_target)), targets);
    assert_int_equal(checksum(rows.rows + count, crowd_count * sizeof(bnd_target)), crowd);
    bnd_targets_free(&rows);
    bnd_image_free(&image);
    compared++;
  }
  fclose(table);
  bnd_coco_close(&coco);
  free(input);
  print_message("%d images compared\n", compared);
  assert_true(compared >= 200);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(resize_equals_opencv),
      cmocka_unit_test(resize_refuses_impossible_sizes),
      cmocka_unit_test(geometry_truncates_as_python_does),
      cmocka_unit_test(impossible_geometry_is_an_error),
      cmocka_unit_test(chain_variants_follow_their_definition),
      cmocka_unit_test(whole_data_sets_equal_super_gradients),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
