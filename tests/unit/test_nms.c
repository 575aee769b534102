#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/postprocess.h"
#include "tensor/torch_order.h"

/* Inputs as tests/golden/nms.py draws them. */
static double next_uniform(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return (*state >> 8) / 16777216.0;
}

static uint64_t fnv(const void *data, size_t size) {
  const unsigned char *bytes = data;
  uint64_t value = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; i++) value = (value ^ bytes[i]) * 0x100000001b3u;
  return value;
}

static float *draw_scores(uint32_t seed, size_t count, int levels) {
  float *scores = calloc(count, sizeof *scores);
  assert_non_null(scores);
  for (size_t i = 0; i < count; i++) {
    const double u = next_uniform(&seed), score = (u * u) * (u * u);
    scores[i] = (float)(levels ? floor(score * levels + 0.5) / levels : score);
  }
  return scores;
}

static float *draw_boxes(uint32_t seed, size_t anchors, int grid) {
  float *boxes = calloc(anchors, 4 * sizeof *boxes);
  assert_non_null(boxes);
  for (size_t a = 0; a < anchors; a++) {
    const double v0 = next_uniform(&seed), v1 = next_uniform(&seed), v2 = next_uniform(&seed), v3 = next_uniform(&seed);
    const double cx = 60 + 100 * (double)(a % 6) + 12 * v0, cy = 60 + 100 * (double)(a / 6 % 6) + 12 * v1, w = 60 + 20 * v2, h = 60 + 20 * v3;
    const double box[4] = {cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2};
    for (int k = 0; k < 4; k++) boxes[a * 4 + k] = (float)(grid ? floor(box[k] / grid + 0.5) * grid : box[k]);
  }
  return boxes;
}

/* Musser's sequence, negated: partitioning by a median of three makes next to no progress on it. */
static float *draw_killer(size_t count) {
  float *scores = calloc(count, sizeof *scores);
  assert_non_null(scores);
  const size_t half = count / 2;
  for (size_t i = 1; i <= half; i++) {
    scores[i - 1] = -(float)(i % 2 ? i : half + i - 1);
    scores[half + i - 1] = -(float)(2 * i);
  }
  return scores;
}

/* McIlroy's adversary for selecting place 58 of 60, negated. */
static float *draw_adversary(void) {
  static const unsigned char ADVERSARY[60] = {56, 1,  46, 3,  52, 5,  44, 7,  58, 9,  42, 11, 50, 13, 40, 15, 54, 17, 38, 19,
                                              57, 55, 53, 51, 49, 47, 45, 43, 41, 48, 0,  2,  4,  6,  8,  10, 12, 14, 16, 18,
                                              39, 36, 37, 34, 35, 32, 33, 30, 31, 28, 29, 26, 27, 24, 25, 22, 23, 20, 21, 60};
  float *scores = calloc(60, sizeof *scores);
  assert_non_null(scores);
  for (int i = 0; i < 60; i++) scores[i] = -(float)ADVERSARY[i];
  return scores;
}

static uint64_t hash_of_order(const float *scores, size_t count, size_t k) {
  bnd_ranked *items = calloc(count, sizeof *items);
  uint32_t *indices = calloc(count, sizeof *indices);
  assert_true(items && indices);
  for (size_t i = 0; i < count; i++) items[i] = (bnd_ranked){scores[i], (uint32_t)i};
  if (k)
    bnd_torch_top_k(items, count, k);
  else
    bnd_torch_sort(items, count);
  const size_t used = k ? k : count;
  for (size_t i = 0; i < used; i++) indices[i] = items[i].index;
  const uint64_t hash = fnv(indices, used * sizeof *indices);
  free(items);
  free(indices);
  return hash;
}

static FILE *open_data(const char *name) {
  char path[512];
  snprintf(path, sizeof path, "%s/nms/%s", TEST_DATA, name);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  return file;
}

static void order_of_equal_scores_is_torch_s(void **state) {
  (void)state;
  FILE *file = open_data("torch_order.txt");
  char line[256];
  int cases = 0;
  while (fgets(line, sizeof line, file)) {
    int seed, levels;
    size_t count, k;
    unsigned long long sorted, best;
    if (sscanf(line, "%d %zu %d %zu %llx %llx", &seed, &count, &levels, &k, &sorted, &best) != 6) continue;
    float *scores = seed == -1 ? draw_killer(count) : seed == -2 ? draw_adversary() : draw_scores((uint32_t)seed, count, levels);
    if (hash_of_order(scores, count, 0) != sorted) fail_msg("sort: %s", line);
    if (hash_of_order(scores, count, k) != best) fail_msg("top-k: %s", line);
    free(scores);
    cases++;
  }
  fclose(file);
  assert_int_equal(cases, 21);
}

static void not_a_number_sorts_first(void **state) {
  (void)state;
  bnd_ranked items[40];
  for (uint32_t i = 0; i < 40; i++) items[i] = (bnd_ranked){i % 8 == 5 ? NAN : (float)(i * 7 % 40), i};
  bnd_torch_sort(items, 40);
  for (int i = 0; i < 40; i++) assert_true(i < 5 ? isnan(items[i].score) : i == 5 || items[i].score < items[i - 1].score);
}

/* Runs one image and returns the detections; *count is set. */
static bnd_detection *run(const float *boxes, const float *scores, size_t anchors, size_t classes, const bnd_postprocess_options *options,
                          size_t *count) {
  bnd_detection *detections = calloc(options->max_detections + 1, sizeof *detections);
  assert_non_null(detections);
  detections[options->max_detections].score = -7.0f;
  bnd_error error = {0};
  assert_int_equal(bnd_postprocess(boxes, scores, anchors, classes, options, detections, count, &error), BND_OK);
  assert_true(*count <= options->max_detections && detections[options->max_detections].score == -7.0f);
  return detections;
}

static void detections_are_those_of_super_gradients(void **state) {
  (void)state;
  FILE *file = open_data("postprocess.txt");
  char line[256];
  int cases = 0;
  while (fgets(line, sizeof line, file)) {
    unsigned seed;
    int levels, grid, multi_label, agnostic;
    size_t anchors, classes, expected;
    unsigned long long hash;
    bnd_postprocess_options options = {0};
    if (sscanf(line, "%u %zu %zu %d %d %f %zu %lf %zu %d %d %zu %llx", &seed, &anchors, &classes, &levels, &grid, &options.score_threshold,
               &options.top_k, &options.iou_threshold, &options.max_detections, &multi_label, &agnostic, &expected, &hash) != 13)
      continue;
    options.multi_label = multi_label;
    options.class_agnostic = agnostic;
    float *scores = draw_scores(seed, anchors * classes, levels), *boxes = draw_boxes(seed + 1000, anchors, grid);
    size_t count;
    bnd_detection *found = run(boxes, scores, anchors, classes, &options, &count);
    float(*rows)[6] = calloc(count, sizeof *rows);
    assert_non_null(rows);
    for (size_t i = 0; i < count; i++) {
      const float row[6] = {found[i].x1, found[i].y1, found[i].x2, found[i].y2, found[i].score, (float)found[i].label};
      memcpy(rows[i], row, sizeof row);
    }
    if (count != expected || fnv(rows, count * sizeof *rows) != hash) fail_msg("%zu kept: %s", count, line);
    free(rows);
    free(found);
    free(scores);
    free(boxes);
    cases++;
  }
  fclose(file);
  assert_int_equal(cases, 13);
}

/* Section 8.5 of the specification. */
static void published_vector(void **state) {
  (void)state;
  float *scores = draw_scores(7, 600 * 4, 0), *boxes = draw_boxes(11, 600, 0);
  uint32_t lcg = 7;
  for (size_t i = 0; i < 2400; i++) {
    const double u = next_uniform(&lcg), c = (u * u) * u;
    scores[i] = (float)(c * c);
  }
  const struct {
    double iou, sum;
    size_t kept, per_class[4];
  } cases[] = {{0.7, 142.578310, 252, {66, 67, 59, 60}}, {0.3, 107.662263, 144, {36, 36, 36, 36}}};
  for (size_t c = 0; c < 2; c++) {
    bnd_postprocess_options options = bnd_postprocess_for_metrics();
    options.iou_threshold = cases[c].iou;
    size_t count, per_class[4] = {0};
    bnd_detection *found = run(boxes, scores, 600, 4, &options, &count);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
      sum += (double)found[i].score;
      per_class[found[i].label]++;
    }
    assert_int_equal(count, cases[c].kept);
    assert_true(fabs(sum - cases[c].sum) < 1e-5);
    assert_memory_equal(per_class, cases[c].per_class, sizeof per_class);
    if (c == 0) {
      assert_int_equal(found[0].label, 3);
      assert_true(fabs((double)found[0].score - 0.99854714) < 1e-7 && fabs((double)found[0].x1 - 333.42426) < 1e-4);
      assert_int_equal(found[251].label, 2);
      assert_true(fabs((double)found[251].score - 0.03597902) < 1e-7);
    }
    free(found);
  }
  free(scores);
  free(boxes);
}

static void unusual_input_is_handled(void **state) {
  (void)state;
  const bnd_postprocess_options options = bnd_postprocess_for_metrics();
  size_t count = 99;
  free(run(NULL, NULL, 0, 80, &options, &count));
  assert_int_equal(count, 0);
  const float boxes[3][4] = {{0, 0, 10, 10}, {5, 5, 5, 5}, {NAN, 0, 10, 10}}, scores[3] = {0.5f, NAN, 0.7f};
  bnd_detection *found = run(boxes[0], scores, 3, 1, &options, &count); /* a NaN score is no candidate, a NaN box suppresses nothing */
  assert_int_equal(count, 2);
  assert_true(found[0].score == 0.7f && found[1].score == 0.5f);
  free(found);
  bnd_error error = {0};
  bnd_detection one;
  assert_int_equal(bnd_postprocess(boxes[0], scores, SIZE_MAX / 2, 3, &options, &one, &count, &error), BND_ERROR_MEMORY);
  assert_non_null(strstr(error.message, "too many scores"));
}

/* A box on the threshold stays: the comparison is strict and the float ratio is held against the double 0.7. */
static void overlap_on_the_threshold_is_kept(void **state) {
  (void)state;
  const float boxes[2][4] = {{0, 0, 10, 10}, {0, 0, 10, 7}}, scores[2] = {0.9f, 0.8f};
  bnd_postprocess_options options = bnd_postprocess_for_metrics();
  size_t count;
  free(run(boxes[0], scores, 2, 1, &options, &count));
  assert_int_equal(count, 2); /* 0.7f = 0.699999988 is below 0.7 */
  options.iou_threshold = 0.69;
  free(run(boxes[0], scores, 2, 1, &options, &count));
  assert_int_equal(count, 1);
  options.iou_threshold = (double)(70.0f / 100.0f);
  free(run(boxes[0], scores, 2, 1, &options, &count));
  assert_int_equal(count, 2);
}

/* Pairs of class 79 whose IoU is 0.7 up to the rounding of the shifted coordinates. torchvision.ops.batched_nms keeps one of the first and two of the
 * second; without the shift, or with another one, it is the other way round. */
static void rounding_of_the_shift_is_torchvision_s(void **state) {
  (void)state;
  const float pairs[2][2][4] = {{{104.93000030517578f, 10, 151.02999877929688f, 40}, {104.93000030517578f, 10, 137.1999969482422f, 40}},
                                {{203.8000030517578f, 10, 269.0f, 40}, {203.8000030517578f, 10, 249.44000244140625f, 40}}};
  static float scores[2][80];
  scores[0][79] = 0.9f, scores[1][79] = 0.8f;
  const bnd_postprocess_options options = bnd_postprocess_for_metrics();
  for (size_t i = 0; i < 2; i++) {
    size_t count;
    free(run(pairs[i][0], scores[0], 2, 80, &options, &count));
    assert_int_equal(count, i + 1);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(order_of_equal_scores_is_torch_s),
      cmocka_unit_test(not_a_number_sorts_first),
      cmocka_unit_test(detections_are_those_of_super_gradients),
      cmocka_unit_test(published_vector),
      cmocka_unit_test(unusual_input_is_handled),
      cmocka_unit_test(overlap_on_the_threshold_is_kept),
      cmocka_unit_test(rounding_of_the_shift_is_torchvision_s),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
