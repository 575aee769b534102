#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <yajl/yajl_parse.h>
#include <yajl/yajl_tree.h>

#include "base/file.h"
#include "base/memory.h"
#include "eval/coco_metrics.h"

/* Ground truth and detections with the memory that holds them. */
typedef struct dataset {
  bnd_coco_truth *truth;
  bnd_coco_detection *detections;
  int64_t *images, *categories;
  size_t truth_count, detection_count, image_count, category_count;
  size_t truth_capacity, detection_capacity, image_capacity, category_capacity;
} dataset;

static bnd_coco_input input_of(const dataset *data) {
  return (bnd_coco_input){data->truth,  data->truth_count, data->detections, data->detection_count,
                          data->images, data->image_count, data->categories, data->category_count};
}

static void free_dataset(dataset *data) {
  free(data->truth);
  free(data->detections);
  free(data->images);
  free(data->categories);
}

static void assert_numbers(const char *name, const double *actual, const double *expected, size_t count, double tolerance) {
  for (size_t i = 0; i < count; i++)
    if (!(fabs(actual[i] - expected[i]) <= tolerance)) fail_msg("%s, number %zu: %.17g instead of %.17g", name, i, actual[i], expected[i]);
}

static void evaluate(const dataset *data, double *numbers, double *ap, double *ap50) {
  const bnd_coco_input input = input_of(data);
  bnd_error error = {0};
  assert_int_equal(bnd_coco_evaluate(&input, numbers, ap, ap50, &error), BND_OK);
}

/* ---- Drawn cases, tests/golden/coco_metrics.py ---- */

static int64_t *read_ids(FILE *file, const char *heading, size_t *count) {
  char word[32];
  assert_int_equal(fscanf(file, "%31s %zu", word, count), 2);
  assert_string_equal(word, heading);
  int64_t *ids = calloc(*count + 1, sizeof *ids);
  assert_non_null(ids);
  for (size_t i = 0; i < *count; i++) assert_int_equal(fscanf(file, "%ld", &ids[i]), 1);
  return ids;
}

static double *read_numbers(FILE *file, const char *heading, size_t count) {
  char word[32];
  size_t written;
  assert_int_equal(fscanf(file, "%31s %zu", word, &written), 2);
  assert_string_equal(word, heading);
  assert_int_equal(written, count);
  double *numbers = calloc(count, sizeof *numbers);
  assert_non_null(numbers);
  for (size_t i = 0; i < count; i++) assert_int_equal(fscanf(file, "%lf", &numbers[i]), 1);
  return numbers;
}

static void check_file(const char *name) {
  char path[512];
  snprintf(path, sizeof path, "%s/coco_metrics/%s.txt", TEST_DATA, name);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  dataset data = {0};
  data.images = read_ids(file, "evaluate", &data.image_count);
  data.categories = read_ids(file, "categories", &data.category_count);
  assert_int_equal(fscanf(file, " truth %zu", &data.truth_count), 1);
  data.truth = calloc(data.truth_count + 1, sizeof *data.truth);
  for (size_t i = 0; i < data.truth_count; i++) {
    bnd_coco_truth *t = &data.truth[i];
    int crowd;
    assert_int_equal(fscanf(file, "%ld %ld %ld %lf %lf %lf %lf %lf %d", &t->id, &t->image_id, &t->category_id, &t->box[0], &t->box[1], &t->box[2],
                            &t->box[3], &t->area, &crowd),
                     9);
    t->crowd = crowd != 0;
  }
  assert_int_equal(fscanf(file, " detections %zu", &data.detection_count), 1);
  data.detections = calloc(data.detection_count + 1, sizeof *data.detections);
  for (size_t i = 0; i < data.detection_count; i++) {
    bnd_coco_detection *d = &data.detections[i];
    assert_int_equal(
        fscanf(file, "%ld %ld %lf %lf %lf %lf %lf", &d->image_id, &d->category_id, &d->box[0], &d->box[1], &d->box[2], &d->box[3], &d->score), 7);
  }
  double *expected = read_numbers(file, "numbers", BND_COCO_NUMBERS), *expected_ap = read_numbers(file, "ap", data.category_count);
  double *expected_ap50 = read_numbers(file, "ap50", data.category_count);
  double numbers[BND_COCO_NUMBERS], *ap = calloc(data.category_count, sizeof *ap), *ap50 = calloc(data.category_count, sizeof *ap50);
  assert_true(ap && ap50);
  evaluate(&data, numbers, ap, ap50);
  assert_numbers(name, numbers, expected, BND_COCO_NUMBERS, 1e-12);
  assert_numbers(name, ap, expected_ap, data.category_count, 1e-12);
  assert_numbers(name, ap50, expected_ap50, data.category_count, 1e-12);
  free(expected);
  free(expected_ap);
  free(expected_ap50);
  free(ap);
  free(ap50);
  free_dataset(&data);
  fclose(file);
}

static void numbers_are_those_of_pycocotools(void **state) {
  (void)state;
  static const char *const NAMES[] = {"plain",  "ties", "crowd", "empty_boxes", "many_detections", "annotation_zero", "no_truth", "sparse_categories",
                                      "subset", "edges"};
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) check_file(NAMES[i]);
}

/* Section 8.6 of the specification. */
static void published_vector(void **state) {
  (void)state;
  bnd_coco_truth truth[] = {{1, 1, 1, {100, 100, 80, 80}, 0, 0}, {2, 1, 1, {300, 120, 20, 24}, 0, 0}, {3, 1, 2, {400, 400, 150, 100}, 0, 0},
                            {4, 1, 1, {0, 300, 200, 300}, 0, 1}, {5, 2, 1, {50, 60, 40, 40}, 0, 0},   {6, 2, 1, {52, 62, 40, 40}, 0, 0},
                            {7, 2, 3, {200, 200, 10, 12}, 0, 0}, {8, 3, 2, {10, 10, 500, 400}, 0, 0}, {9, 3, 3, {330, 330, 64, 48}, 0, 0}};
  for (size_t i = 0; i < 9; i++) truth[i].area = truth[i].box[2] * truth[i].box[3];
  const bnd_coco_detection detections[] = {{1, 1, {102, 98, 80, 82}, .9},   {1, 1, {105, 104, 78, 80}, .8},  {1, 1, {301, 121, 20, 24}, .8},
                                           {1, 1, {10, 320, 100, 150}, .7}, {1, 1, {20, 400, 60, 60}, .6},   {1, 2, {410, 405, 140, 100}, .55},
                                           {1, 2, {100, 100, 80, 80}, .5},  {2, 1, {51, 61, 40, 40}, .85},   {2, 1, {50, 60, 40, 40}, .75},
                                           {2, 3, {201, 201, 10, 12}, .3},  {2, 3, {400, 400, 20, 20}, .3},  {3, 2, {30, 20, 480, 380}, .95},
                                           {3, 2, {12, 12, 250, 400}, .65}, {3, 3, {330, 330, 64, 24}, .45}, {4, 1, {10, 10, 20, 20}, .9}};
  const int64_t images[] = {1, 2, 3, 4}, categories[] = {1, 2, 3};
  const double expected[2][12] = {{.508911, .862486, .529153, .425, .466337, .685479, .516667, .658333, .658333, .6, .516667, .8},
                                  {.551001, .911991, .578658, .6, .466337, .685479, .516667, .658333, .658333, .6, .516667, .8}};
  const double expected_ap[2][3] = {{.640264, .685479, .200990}, {.766535, .685479, .200990}};
  const double expected_ap50[2][3] = {{.752475, .834983, 1.0}, {.900990, .834983, 1.0}};
  for (size_t c = 0; c < 2; c++) {
    const bnd_coco_input input = {truth, 9, detections, 15, images, 4 - c, categories, 3};
    double numbers[BND_COCO_NUMBERS], ap[3], ap50[3];
    bnd_error error = {0};
    assert_int_equal(bnd_coco_evaluate(&input, numbers, ap, ap50, &error), BND_OK);
    assert_numbers("published vector", numbers, expected[c], 12, 6e-7);
    assert_numbers("published vector, AP", ap, expected_ap[c], 3, 6e-7);
    assert_numbers("published vector, AP50", ap50, expected_ap50[c], 3, 6e-7);
  }
}

static void nothing_gives_minus_one(void **state) {
  (void)state;
  const bnd_coco_input input = {0};
  double numbers[BND_COCO_NUMBERS];
  bnd_error error = {0};
  assert_int_equal(bnd_coco_evaluate(&input, numbers, NULL, NULL, &error), BND_OK);
  for (int i = 0; i < BND_COCO_NUMBERS; i++) assert_true(numbers[i] == -1);
}

/* ---- Real files ---- */

/* A streaming reader of the two COCO layouts that keeps what the metric needs and skips the rest. */
typedef struct reader {
  dataset *data;
  int level, object_level; /* nesting; where the objects of an array are: 2 in a results file, 3 in an annotation file */
  char section[24], key[24];
  bnd_coco_truth object;
  double score;
  int box_count;
} reader;

static int on_key(void *context, const unsigned char *text, size_t length) {
  reader *r = context;
  if (r->level == r->object_level) snprintf(r->key, sizeof r->key, "%.*s", (int)length, (const char *)text);
  if (r->level == 1) snprintf(r->section, sizeof r->section, "%.*s", (int)length, (const char *)text);
  return 1;
}

static int on_number(void *context, const char *text, size_t length) {
  reader *r = context;
  char copy[64];
  snprintf(copy, sizeof copy, "%.*s", (int)length, text);
  const double value = strtod(copy, NULL);
  if (r->level == r->object_level + 1 && !strcmp(r->key, "bbox") && r->box_count < 4) r->object.box[r->box_count++] = value;
  if (r->level != r->object_level) return 1;
  if (!strcmp(r->key, "id")) r->object.id = (int64_t)value;
  if (!strcmp(r->key, "image_id")) r->object.image_id = (int64_t)value;
  if (!strcmp(r->key, "category_id")) r->object.category_id = (int64_t)value;
  if (!strcmp(r->key, "area")) r->object.area = value;
  if (!strcmp(r->key, "iscrowd")) r->object.crowd = value != 0;
  if (!strcmp(r->key, "score")) r->score = value;
  return 1;
}

static int on_open(void *context) {
  reader *r = context;
  if (++r->level == r->object_level) {
    r->object = (bnd_coco_truth){0};
    r->box_count = 0;
  }
  return 1;
}

static int on_close(void *context) {
  reader *r = context;
  dataset *data = r->data;
  if (r->level-- != r->object_level) return 1;
  if (r->object_level == 2) {
    if (!BND_GROW(data->detections, data->detection_capacity, data->detection_count + 1)) return 0;
    bnd_coco_detection *d = &data->detections[data->detection_count++];
    *d = (bnd_coco_detection){.image_id = r->object.image_id, .category_id = r->object.category_id, .score = r->score};
    memcpy(d->box, r->object.box, sizeof d->box);
  } else if (!strcmp(r->section, "annotations")) {
    if (!BND_GROW(data->truth, data->truth_capacity, data->truth_count + 1)) return 0;
    data->truth[data->truth_count++] = r->object;
  } else if (!strcmp(r->section, "images")) {
    if (!BND_GROW(data->images, data->image_capacity, data->image_count + 1)) return 0;
    data->images[data->image_count++] = r->object.id;
  } else if (!strcmp(r->section, "categories")) {
    if (!BND_GROW(data->categories, data->category_capacity, data->category_count + 1)) return 0;
    data->categories[data->category_count++] = r->object.id;
  }
  return 1;
}

static void read_json(const char *path, int object_level, dataset *data) {
  char command[600];
  snprintf(command, sizeof command, strstr(path, ".gz") ? "gzip -dc '%s'" : "cat '%s'", path);
  FILE *file = popen(command, "r");
  assert_non_null(file);
  reader r = {.data = data, .object_level = object_level};
  const yajl_callbacks callbacks = {.yajl_number = on_number,
                                    .yajl_start_map = on_open,
                                    .yajl_map_key = on_key,
                                    .yajl_end_map = on_close,
                                    .yajl_start_array = on_open,
                                    .yajl_end_array = on_close};
  yajl_handle parser = yajl_alloc(&callbacks, NULL, &r);
  static unsigned char buffer[65536];
  for (size_t got; (got = fread(buffer, 1, sizeof buffer, file)) > 0;) assert_int_equal(yajl_parse(parser, buffer, got), yajl_status_ok);
  assert_int_equal(yajl_complete_parse(parser), yajl_status_ok);
  yajl_free(parser);
  assert_int_equal(pclose(file), 0);
}

static void require_shared(const char *path) {
  if (access(path, R_OK) != 0) skip();
}

/* pycocotools' example results on 100 images; expected: pycocotools 2.0.11 on the same files, which prints the published digits. */
static void pycocotools_example(void **state) {
  (void)state;
  const char *const truth = SHARED_DIR "/data/coco-eval/instances_val2014_100.json";
  const double expected[12] = {0.5045806987249628, 0.6969727247299577, 0.5729816669904824,  0.5856257209410443,
                               0.5193996948036719, 0.5013978986347466, 0.38681277964578054, 0.5936795762842003,
                               0.595352982877607,  0.6398109626113442, 0.5664205978994309,  0.5642905982905982};
  const double published[12] = {0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564};
  require_shared(truth);
  dataset data = {0};
  read_json(truth, 3, &data);
  read_json(SHARED_DIR "/data/coco-eval/instances_val2014_fakebbox100_results.json", 2, &data);
  assert_int_equal(data.image_count, 100);
  assert_int_equal(data.detection_count, 734);
  double numbers[BND_COCO_NUMBERS];
  evaluate(&data, numbers, NULL, NULL);
  assert_numbers("example", numbers, expected, 12, 1e-12);
  assert_numbers("example, published", numbers, published, 12, 5e-4);
  free_dataset(&data);
}

static void stored_detections(const char *stage) {
  char path[512];
  dataset data = {0};
  require_shared(SHARED_DIR "/golden/pico/results.json");
  read_json(SHARED_DIR "/golden/shapes/annotations/instances_val2017.json", 3, &data);
  snprintf(path, sizeof path, "%s/golden/pico/detections_%s.json.gz", SHARED_DIR, stage);
  read_json(path, 2, &data);

  char *text, message[256];
  size_t size;
  bnd_error error = {0};
  assert_int_equal(bnd_file_read(SHARED_DIR "/golden/pico/results.json", 1 << 20, &text, &size, &error), BND_OK);
  yajl_val root = yajl_tree_parse(text, message, sizeof message);
  assert_non_null(root);
  const char *place[] = {stage, "coco", NULL};
  yajl_val coco = yajl_tree_get(root, place, yajl_t_array);
  assert_true(coco && coco->u.array.len == BND_COCO_NUMBERS);
  double numbers[BND_COCO_NUMBERS], expected[BND_COCO_NUMBERS];
  for (int i = 0; i < BND_COCO_NUMBERS; i++) expected[i] = YAJL_GET_DOUBLE(coco->u.array.values[i]);
  evaluate(&data, numbers, NULL, NULL);
  assert_numbers(stage, numbers, expected, BND_COCO_NUMBERS, 1e-12);
  yajl_tree_free(root);
  free(text);
  free_dataset(&data);
}

static void stored_detections_fp32(void **state) {
  (void)state;
  stored_detections("fp32");
}

static void stored_detections_frozen(void **state) {
  (void)state;
  stored_detections("frozen");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numbers_are_those_of_pycocotools), cmocka_unit_test(published_vector),
      cmocka_unit_test(nothing_gives_minus_one),          cmocka_unit_test(pycocotools_example),
      cmocka_unit_test(stored_detections_fp32),           cmocka_unit_test(stored_detections_frozen),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
