#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "checksum.h"
#include "data/loader.h"

/* A folder with 12 small images; 3 has no annotation, 5 only a crowd box, 7 only a box of negative width, 9 a file that is no image. */
enum { IMAGES = 12, TRAINABLE = 9, SIDE = 64, VALUES = 3 * SIDE * SIDE };
static char folder[] = "/tmp/binade-test-XXXXXX";
static bnd_coco coco;

static char *path_of(int image) {
  static char path[64];
  snprintf(path, sizeof path, "%s/%d.png", folder, image);
  return path;
}

static int make_folder(void **state) {
  (void)state;
  bnd_string json = {0};
  if (!mkdtemp(folder)) return -1;
  bnd_string_format(&json, "{\"categories\":[{\"id\":1,\"name\":\"a\"},{\"id\":4,\"name\":\"b\"}],\"images\":[");
  for (int i = 0; i < IMAGES; i++) {
    bnd_image image;
    if (bnd_image_create(40 + 7 * i, 90 - 5 * i, &image, NULL) != BND_OK) return -1;
    for (size_t k = 0; k < (size_t)image.width * (size_t)image.height * 3; k++) image.pixels[k] = (uint8_t)(k * k / 97 + k * (size_t)i);
    bnd_string_format(&json, "%s{\"id\":%d,\"width\":%d,\"height\":%d,\"file_name\":\"%d.png\"}", i ? "," : "", i, image.width, image.height, i);
    if (bnd_image_write_png(path_of(i), &image, NULL) != BND_OK) return -1;
    bnd_image_free(&image);
  }
  if (bnd_file_write(path_of(9), "no image", 8, NULL) != BND_OK) return -1;
  bnd_string_format(&json, "],\"annotations\":[");
  for (int i = 0, id = 1; i < IMAGES; i++) {
    if (i == 3) continue;
    bnd_string_format(&json, "%s{\"id\":%d,\"image_id\":%d,\"category_id\":4,\"iscrowd\":%d,\"bbox\":[4,5,%d,20.5]}", id > 1 ? "," : "", id, i,
                      i == 5, i == 7 ? -1 : 30);
    id++;
    if (i == 5 || i == 7) continue;
    bnd_string_format(&json, ",{\"id\":%d,\"image_id\":%d,\"category_id\":1,\"iscrowd\":0,\"bbox\":[1,1,%d,30]}", id++, i, 10 + i);
    bnd_string_format(&json, ",{\"id\":%d,\"image_id\":%d,\"category_id\":1,\"iscrowd\":1,\"bbox\":[1,1,9,9]}", id++, i);
  }
  bnd_string_format(&json, "]}");
  char file[64];
  snprintf(file, sizeof file, "%s/a.json", folder);
  const bool written = !json.failed && bnd_file_write(file, json.text, json.length, NULL) == BND_OK;
  bnd_string_free(&json);
  return written && bnd_coco_open_files(file, folder, &coco, NULL) == BND_OK ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  char file[64];
  snprintf(file, sizeof file, "%s/a.json", folder);
  bnd_coco_close(&coco);
  unlink(file);
  for (int i = 0; i < IMAGES; i++) unlink(path_of(i));
  return rmdir(folder);
}

/* All images that decode. */
static const size_t sound[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11};

static bnd_loader_options small_options(void) {
  bnd_loader_options options = bnd_loader_options_default(SIDE, 17);
  options.images = sound;
  options.image_count = sizeof sound / sizeof *sound;
  options.augmentation.mixup_probability = 0; /* partners come from the whole set, in which 9 is broken */
  return options;
}

/* Pixels and targets of one position in one number. */
static uint32_t load_checksum(const bnd_loader *loader, uint32_t epoch, size_t position) {
  float *image = malloc(VALUES * sizeof *image);
  bnd_targets targets;
  bnd_error error;
  if (bnd_loader_load(loader, epoch, position, image, &targets, &error) != BND_OK) fail_msg("%s", error.message);
  assert_int_equal(targets.crowd_count, 0);
  const uint32_t sum = checksum(image, VALUES * sizeof *image) ^ checksum(targets.rows, targets.count * sizeof *targets.rows);
  bnd_targets_free(&targets);
  free(image);
  return sum;
}

static void only_images_with_boxes_are_trained_on(void **state) {
  (void)state;
  bnd_loader loader;
  bnd_loader_options options = bnd_loader_options_default(SIDE, 1);
  options.shuffle = false;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
  static const size_t expected[TRAINABLE] = {0, 1, 2, 4, 6, 8, 9, 10, 11};
  assert_int_equal(bnd_loader_count(&loader), TRAINABLE);
  for (size_t i = 0; i < TRAINABLE; i++) assert_int_equal(bnd_loader_image(&loader, 3, i), expected[i]);
  bnd_loader_free(&loader);

  static const size_t list[] = {11, 3, 0, 5, 2};
  options.images = list;
  options.image_count = 5;
  options.limit = 2;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
  assert_int_equal(bnd_loader_count(&loader), 2);
  assert_true(bnd_loader_image(&loader, 0, 0) == 11 && bnd_loader_image(&loader, 0, 1) == 0);
  bnd_loader_free(&loader);
}

static void shares_are_chosen_by_the_seed(void **state) {
  (void)state;
  bnd_loader_options options = bnd_loader_options_default(SIDE, 1);
  options.shuffle = false;
  options.share = 0.5;
  int times[IMAGES] = {0};
  for (uint64_t seed = 0; seed < 900; seed++) {
    bnd_loader loader, again;
    options.seed = seed;
    assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
    assert_int_equal(bnd_loader_create(&coco, &options, &again, NULL), BND_OK);
    assert_int_equal(bnd_loader_count(&loader), 4); /* floor(9 / 2) */
    assert_memory_equal(loader.images, again.images, 4 * sizeof *loader.images);
    for (size_t i = 0; i < 4; i++) {
      times[loader.images[i]]++;
      if (i) assert_true(loader.images[i] > loader.images[i - 1]);
    }
    bnd_loader_free(&loader);
    bnd_loader_free(&again);
  }
  for (int i = 0; i < IMAGES; i++) {
    if (i == 3 || i == 5 || i == 7)
      assert_int_equal(times[i], 0);
    else
      assert_in_range(times[i], 350, 450);
  }
}

static void what_cannot_work_is_said_early(void **state) {
  (void)state;
  bnd_loader loader;
  bnd_error error;
  bnd_loader_options options = bnd_loader_options_default(SIDE, 1);
  options.share = 0.1;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "a.json: a share of 0.1 of 9 images"));
  options.share = 0;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, &error), BND_ERROR_ARGUMENT);
  options.share = 1;
  static const size_t empty[] = {3, 5, 7}, unknown[] = {12};
  options.images = empty;
  options.image_count = 3;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, &error), BND_ERROR_FORMAT);
  assert_non_null(strstr(error.message, "none of 3 images has a box"));
  assert_null(loader.images);
  options.images = unknown;
  options.image_count = 1;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, &error), BND_ERROR_ARGUMENT);
  options = bnd_loader_options_default(SIDE, 1);
  options.augmentation.translate = -1;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, &error), BND_ERROR_ARGUMENT);
  options = bnd_loader_options_default(SIDE, 1);
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, &error), BND_OK);
  size_t batches;
  assert_int_equal(bnd_loader_batches(&loader, 4, &batches, &error), BND_OK);
  assert_int_equal(batches, 2);
  assert_int_equal(bnd_loader_batches(&loader, 10, &batches, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "9 images to train on do not fill one batch of 10"));
  bnd_loader_free(&loader);
}

static void broken_images_are_named(void **state) {
  (void)state;
  bnd_loader loader;
  bnd_error error;
  bnd_loader_options options = bnd_loader_options_default(SIDE, 1);
  options.shuffle = false;
  float *image = malloc(VALUES * sizeof *image);
  for (int augment = 0; augment < 2; augment++) {
    bnd_targets targets;
    options.augment = augment;
    assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
    assert_true(bnd_loader_load(&loader, 0, 6, image, &targets, &error) != BND_OK);
    assert_non_null(strstr(error.message, path_of(9)));
    assert_null(targets.rows);
    assert_int_equal(bnd_loader_load(&loader, 0, TRAINABLE, image, &targets, &error), BND_ERROR_ARGUMENT);
    bnd_loader_free(&loader);
  }
  /* as a partner, too */
  options.augmentation.mixup_probability = 1;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
  int broken = 0;
  for (uint32_t epoch = 0; epoch < 40; epoch++) {
    bnd_targets targets;
    if (bnd_loader_load(&loader, epoch, 0, image, &targets, &error) != BND_OK) {
      assert_non_null(strstr(error.message, path_of(9)));
      broken++;
    }
    bnd_targets_free(&targets);
  }
  assert_in_range(broken, 1, 12);
  bnd_loader_free(&loader);
  free(image);
}

static void epochs_are_permutations(void **state) {
  (void)state;
  bnd_loader loader;
  const bnd_loader_options options = bnd_loader_options_default(SIDE, 5);
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
  int first[IMAGES] = {0};
  for (uint32_t epoch = 0; epoch < 900; epoch++) {
    unsigned seen = 0;
    for (size_t i = 0; i < TRAINABLE; i++) seen |= 1u << bnd_loader_image(&loader, epoch, i);
    assert_int_equal(seen, 0xfff & ~(1u << 3 | 1u << 5 | 1u << 7));
    first[bnd_loader_image(&loader, epoch, 0)]++;
  }
  for (int i = 0; i < IMAGES; i++)
    if (i != 3 && i != 5 && i != 7) assert_in_range(first[i], 65, 135);
  bnd_loader_free(&loader);
}

/* Without augmentation: the validation transform, whatever the seed. */
static void plain_loading_is_the_validation_transform(void **state) {
  (void)state;
  bnd_loader loader;
  bnd_loader_options options = small_options();
  options.shuffle = options.augment = false;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
  const bnd_preprocessing p = bnd_preprocessing_yolo_nas(SIDE, SIDE);
  float *image = malloc(VALUES * sizeof *image), *expected = malloc(VALUES * sizeof *image);
  int width, height;
  bnd_loader_size(&loader, &width, &height);
  assert_true(width == SIDE && height == SIDE);
  for (size_t i = 0; i < bnd_loader_count(&loader); i++) {
    const size_t index = bnd_loader_image(&loader, 0, i);
    bnd_image decoded;
    bnd_targets targets, rows;
    assert_int_equal(bnd_image_read(path_of((int)index), &decoded, NULL), BND_OK);
    assert_int_equal(bnd_preprocess(&p, &decoded, expected, NULL, NULL), BND_OK);
    assert_int_equal(bnd_targets_create(&coco, index, &p, decoded.width, decoded.height, &rows, NULL), BND_OK);
    assert_int_equal(bnd_loader_load(&loader, (uint32_t)i, i, image, &targets, NULL), BND_OK);
    assert_memory_equal(image, expected, VALUES * sizeof *image);
    assert_true(targets.count == rows.count && targets.count == 2 && targets.crowd_count == 0 && rows.crowd_count == 1);
    assert_memory_equal(targets.rows, rows.rows, rows.count * sizeof *rows.rows);
    bnd_targets_free(&targets);
    bnd_targets_free(&rows);
    bnd_image_free(&decoded);
  }
  bnd_loader_free(&loader);
  free(image);
  free(expected);
}

enum { EPOCHS = 3, POSITIONS = 8 };
typedef struct worker {
  const bnd_loader *loader;
  uint32_t (*sums)[POSITIONS];
  int first, step;
} worker;

static void *work(void *argument) {
  const worker *w = argument;
  for (int k = EPOCHS * POSITIONS - 1 - w->first; k >= 0; k -= w->step)
    w->sums[k / POSITIONS][k % POSITIONS] = load_checksum(w->loader, (uint32_t)(k / POSITIONS), (size_t)(k % POSITIONS));
  return NULL;
}

static void order_and_threads_do_not_matter(void **state) {
  (void)state;
  bnd_loader loader;
  bnd_loader_options options = small_options();
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
  assert_int_equal(bnd_loader_count(&loader), POSITIONS);
  uint32_t alone[EPOCHS][POSITIONS], together[EPOCHS][POSITIONS];
  for (int e = 0; e < EPOCHS; e++)
    for (int i = 0; i < POSITIONS; i++) alone[e][i] = load_checksum(&loader, (uint32_t)e, (size_t)i);
  for (int threads = 2; threads <= 5; threads += 3) {
    pthread_t ids[5];
    worker workers[5];
    memset(together, 0, sizeof together);
    for (int t = 0; t < threads; t++) {
      workers[t] = (worker){&loader, together, t, threads};
      assert_int_equal(pthread_create(&ids[t], NULL, work, &workers[t]), 0);
    }
    for (int t = 0; t < threads; t++) pthread_join(ids[t], NULL);
    assert_memory_equal(alone, together, sizeof alone);
  }
  /* other epochs and seeds look different */
  for (int i = 0; i < POSITIONS; i++) assert_true(alone[0][i] != alone[1][i]);
  bnd_loader other;
  options.seed++;
  assert_int_equal(bnd_loader_create(&coco, &options, &other, NULL), BND_OK);
  assert_true(load_checksum(&other, 0, 0) != alone[0][0]);
  bnd_loader_free(&other);
  bnd_loader_free(&loader);
}

/* A copy with another side: the same images under the same draws. */
static void other_sizes_show_the_same_things(void **state) {
  (void)state;
  bnd_loader loader;
  bnd_loader_options options = small_options();
  options.augmentation.filter_boxes = false;
  assert_int_equal(bnd_loader_create(&coco, &options, &loader, NULL), BND_OK);
  bnd_loader large = loader;
  large.options.augmentation.side = 4 * SIDE;
  float *image = malloc(16 * VALUES * sizeof *image);
  for (size_t i = 0; i < POSITIONS; i++) {
    bnd_targets a, b;
    assert_int_equal(bnd_loader_load(&loader, 0, i, image, &a, NULL), BND_OK);
    assert_int_equal(bnd_loader_load(&large, 0, i, image, &b, NULL), BND_OK);
    for (size_t k = 0; a.count == b.count && k < a.count; k++) { /* sizes are whole pixels: near, not equal */
      assert_true(a.rows[k].label == b.rows[k].label);
      assert_in_range(a.rows[k].cx * 4 - b.rows[k].cx + 8, 0, 16);
      assert_in_range(a.rows[k].h * 4 - b.rows[k].h + 8, 0, 16);
    }
    bnd_targets_free(&a);
    bnd_targets_free(&b);
  }
  bnd_loader_free(&loader);
  free(image);
}

/* Whole training samples of photographs against super-gradients' data set with the same draws (tests/golden/make_augment.py). */
static void photographs_equal_super_gradients(void **state) {
  (void)state;
  bnd_coco photographs;
  if (access(SHARED_DIR "/data/coco", F_OK) != 0) skip();
  FILE *table = fopen(TEST_DATA "/augment/photographs.txt", "r");
  assert_non_null(table);
  assert_int_equal(bnd_coco_open(SHARED_DIR "/data/coco", "train2017", &photographs, NULL), BND_OK);
  float *image = malloc(sizeof(float) * 3 * 640 * 640);
  long long id;
  int swapped, rgb, flip, mixup, partner_flip, compared = 0;
  uint32_t pixels, rows;
  size_t count;
  bnd_augment_draws d = {0};
  while (fscanf(table, "%lld %d %la %la %la %d %d %d %zu %d %la %la %x %zu %x", &id, &swapped, &d.scale, &d.middle_x, &d.middle_y, &rgb, &flip,
                &mixup, &d.partner, &partner_flip, &d.partner_scale, &d.partner_x, &pixels, &count, &rows) == 15) {
    size_t index = 0;
    while (index < photographs.image_count && photographs.images[index].id != id) index++;
    assert_true(index < photographs.image_count);
    d.rgb = rgb;
    d.flip = flip;
    d.mixup = mixup;
    d.partner_flip = partner_flip;
    d.partner_y = d.partner_x;
    bnd_augment_options options = bnd_augment_options_recipe(640);
    options.translate_swapped = swapped;
    bnd_sample sample, partner = {0};
    bnd_targets targets;
    assert_int_equal(bnd_sample_load(&photographs, index, 640, &sample, NULL), BND_OK);
    if (mixup) assert_int_equal(bnd_sample_load(&photographs, d.partner, 640, &partner, NULL), BND_OK);
    assert_int_equal(bnd_augment(&sample, mixup ? &partner : NULL, &options, &d, image, &targets, NULL), BND_OK);
    assert_int_equal(checksum(image, sizeof(float) * 3 * 640 * 640), pixels);
    assert_int_equal(targets.count, count);
    assert_int_equal(checksum(targets.rows, count * sizeof *targets.rows), rows);
    bnd_targets_free(&targets);
    bnd_sample_free(&sample);
    bnd_sample_free(&partner);
    compared++;
  }
  assert_true(feof(table));
  fclose(table);
  free(image);
  bnd_coco_close(&photographs);
  print_message("%d samples compared\n", compared);
  assert_true(compared >= 100);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(only_images_with_boxes_are_trained_on),
      cmocka_unit_test(shares_are_chosen_by_the_seed),
      cmocka_unit_test(what_cannot_work_is_said_early),
      cmocka_unit_test(broken_images_are_named),
      cmocka_unit_test(epochs_are_permutations),
      cmocka_unit_test(plain_loading_is_the_validation_transform),
      cmocka_unit_test(order_and_threads_do_not_matter),
      cmocka_unit_test(other_sizes_show_the_same_things),
      cmocka_unit_test(photographs_equal_super_gradients),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
