#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/sg_metrics.h"

typedef struct image {
  bnd_detection *detections;
  bnd_target *targets, *crowd;
  size_t detection_count, target_count, crowd_count;
} image;

static float read_float(FILE *file) {
  float value = 0;
  assert_int_equal(fscanf(file, "%f", &value), 1);
  return value;
}

static double read_double(FILE *file) {
  double value = 0;
  assert_int_equal(fscanf(file, "%lf", &value), 1);
  return value;
}

static bnd_target *read_targets(FILE *file, size_t count) {
  bnd_target *targets = calloc(count + 1, sizeof *targets);
  assert_non_null(targets);
  for (size_t i = 0; i < count; i++) {
    targets[i].label = read_float(file);
    targets[i].cx = read_float(file), targets[i].cy = read_float(file), targets[i].w = read_float(file), targets[i].h = read_float(file);
  }
  return targets;
}

static image read_image(FILE *file) {
  image read = {0};
  assert_int_equal(fscanf(file, " image %zu %zu %zu", &read.detection_count, &read.target_count, &read.crowd_count), 3);
  read.detections = calloc(read.detection_count + 1, sizeof *read.detections);
  assert_non_null(read.detections);
  for (size_t i = 0; i < read.detection_count; i++) {
    bnd_detection *d = &read.detections[i];
    d->x1 = read_float(file), d->y1 = read_float(file), d->x2 = read_float(file), d->y2 = read_float(file), d->score = read_float(file);
    d->label = (int32_t)read_float(file);
  }
  read.targets = read_targets(file, read.target_count);
  read.crowd = read_targets(file, read.crowd_count);
  return read;
}

static void free_image(image *one) {
  free(one->detections);
  free(one->targets);
  free(one->crowd);
}

static bnd_sg_record *match(const bnd_sg_options *options, const image *one) {
  bnd_sg_record *record;
  bnd_error error = {0};
  assert_int_equal(bnd_sg_match_image(options, one->detections, one->detection_count, one->targets, one->target_count, one->crowd, one->crowd_count,
                                      &record, &error),
                   BND_OK);
  return record;
}

/* Records are computed last image first and appended first image first: the order of computing must not matter. */
static bnd_sg_result evaluate(const bnd_sg_options *options, const image *images, size_t count, double *ap_050, double *ap_050_095) {
  bnd_sg_metrics *metrics;
  bnd_sg_result result;
  bnd_error error = {0};
  bnd_sg_record **records = calloc(count + 1, sizeof *records);
  assert_non_null(records);
  for (size_t i = count; i-- > 0;) records[i] = match(options, &images[i]);
  assert_int_equal(bnd_sg_metrics_create(options, &metrics, &error), BND_OK);
  for (size_t i = 0; i < count; i++) assert_int_equal(bnd_sg_metrics_append(metrics, records[i], &error), BND_OK);
  assert_int_equal(bnd_sg_metrics_compute(metrics, &result, ap_050, ap_050_095, &error), BND_OK);
  bnd_sg_metrics_destroy(metrics);
  free(records);
  return result;
}

static void assert_close(double actual, double expected, double tolerance, const char *what) {
  if (isnan(expected) ? !isnan(actual) : !(fabs(actual - expected) <= tolerance)) fail_msg("%s: %.9g instead of %.9g", what, actual, expected);
}

static void assert_scores(FILE *file, const char *name, const bnd_sg_scores *scores, const double *ap, size_t classes) {
  const double actual[5] = {scores->precision, scores->recall, scores->f1, scores->map, scores->best_score_threshold};
  static const char *const WHAT[5] = {"precision", "recall", "F1", "mAP", "best score threshold"};
  char text[128];
  for (int i = 0; i < 5; i++) {
    snprintf(text, sizeof text, "%s: %s", name, WHAT[i]);
    assert_close(actual[i], read_double(file), 1e-6, text);
  }
  for (size_t c = 0; c < classes; c++) {
    snprintf(text, sizeof text, "%s: AP of class %zu", name, c);
    assert_close(ap[c], read_double(file), 1e-6, text);
  }
}

static void check_file(const char *name) {
  char path[512];
  snprintf(path, sizeof path, "%s/sg_metrics/%s.txt", TEST_DATA, name);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  bnd_sg_options options = {0};
  size_t count;
  assert_int_equal(fscanf(file, " options %zu %f %f %f %zu images %zu", &options.classes, &options.width, &options.height, &options.score_threshold,
                          &options.top_k, &count),
                   6);
  image *images = calloc(count, sizeof *images);
  double *ap_050 = calloc(options.classes, sizeof *ap_050), *ap_050_095 = calloc(options.classes, sizeof *ap_050_095);
  assert_true(images && ap_050 && ap_050_095);
  for (size_t i = 0; i < count; i++) images[i] = read_image(file);
  const bnd_sg_result result = evaluate(&options, images, count, ap_050, ap_050_095);
  assert_scores(file, name, &result.at_050, ap_050, options.classes);
  assert_scores(file, name, &result.at_050_095, ap_050_095, options.classes);
  for (size_t i = 0; i < count; i++) free_image(&images[i]);
  free(images);
  free(ap_050);
  free(ap_050_095);
  fclose(file);
}

static void numbers_are_those_of_super_gradients(void **state) {
  (void)state;
  static const char *const NAMES[] = {"plain",      "ties",          "quantized",    "crowd",        "top_k",      "high_threshold",
                                      "no_targets", "no_detections", "many_classes", "small_canvas", "recall_grid"};
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) check_file(NAMES[i]);
}

/* Section 8.6 of the specification: x, y, w, h on a 640 x 640 canvas. */
typedef struct row {
  int image, category;
  float x, y, w, h, last; /* last: crowd, or score */
} row;

static const row TRUTH[] = {{1, 1, 100, 100, 80, 80, 0}, {1, 1, 300, 120, 20, 24, 0}, {1, 2, 400, 400, 150, 100, 0},
                            {1, 1, 0, 300, 200, 300, 1}, {2, 1, 50, 60, 40, 40, 0},   {2, 1, 52, 62, 40, 40, 0},
                            {2, 3, 200, 200, 10, 12, 0}, {3, 2, 10, 10, 500, 400, 0}, {3, 3, 330, 330, 64, 48, 0}};
static const row FOUND[] = {{1, 1, 102, 98, 80, 82, .9f},   {1, 1, 105, 104, 78, 80, .8f},  {1, 1, 301, 121, 20, 24, .8f},
                            {1, 1, 10, 320, 100, 150, .7f}, {1, 1, 20, 400, 60, 60, .6f},   {1, 2, 410, 405, 140, 100, .55f},
                            {1, 2, 100, 100, 80, 80, .5f},  {2, 1, 51, 61, 40, 40, .85f},   {2, 1, 50, 60, 40, 40, .75f},
                            {2, 3, 201, 201, 10, 12, .3f},  {2, 3, 400, 400, 20, 20, .3f},  {3, 2, 30, 20, 480, 380, .95f},
                            {3, 2, 12, 12, 250, 400, .65f}, {3, 3, 330, 330, 64, 24, .45f}, {4, 1, 10, 10, 20, 20, .9f}};

static void published_vector(void **state) {
  (void)state;
  const struct {
    size_t images;
    double map_050, ap_050[3], map_050_095, ap_050_095[3], precision, recall, f1;
  } cases[] = {{4, .613311, {.752475, .834984, .252475}, .475743, {.615512, .685479, .126238}, .5, .833333, .622222},
               {3, .662816, {.900990, .834984, .252475}, .516183, {.736832, .685479, .126238}, .544444, .833333, .651852}};
  for (size_t c = 0; c < 2; c++) {
    bnd_detection detections[4][16];
    bnd_target targets[4][16], crowd[4][16];
    image images[4] = {0};
    for (size_t i = 0; i < 4; i++) images[i] = (image){detections[i], targets[i], crowd[i], 0, 0, 0};
    for (size_t i = 0; i < sizeof TRUTH / sizeof *TRUTH; i++) {
      const row *r = &TRUTH[i];
      image *on = &images[r->image - 1];
      *(r->last != 0 ? &on->crowd[on->crowd_count++] : &on->targets[on->target_count++]) =
          (bnd_target){(float)(r->category - 1), r->x + r->w * 0.5f, r->y + r->h * 0.5f, r->w, r->h};
    }
    for (size_t i = 0; i < sizeof FOUND / sizeof *FOUND; i++) {
      const row *r = &FOUND[i];
      image *on = &images[r->image - 1];
      on->detections[on->detection_count++] = (bnd_detection){r->x, r->y, r->x + r->w, r->y + r->h, r->last, r->category - 1};
    }
    const bnd_sg_options options = bnd_sg_default_options(3);
    double ap_050[3], ap_050_095[3];
    const bnd_sg_result result = evaluate(&options, images, cases[c].images, ap_050, ap_050_095);
    assert_close(result.at_050.map, cases[c].map_050, 1e-6, "mAP@0.50");
    assert_close(result.at_050_095.map, cases[c].map_050_095, 1e-6, "mAP@0.50:0.95");
    assert_close(result.at_050.precision, cases[c].precision, 1e-6, "precision");
    assert_close(result.at_050.recall, cases[c].recall, 1e-6, "recall");
    assert_close(result.at_050.f1, cases[c].f1, 1e-6, "F1");
    for (int k = 0; k < 3; k++) {
      assert_close(ap_050[k], cases[c].ap_050[k], 1e-6, "AP@0.50");
      assert_close(ap_050_095[k], cases[c].ap_050_095[k], 1e-6, "AP@0.50:0.95");
    }
  }
}

static void nothing_gives_minus_one(void **state) {
  (void)state;
  const bnd_sg_options options = bnd_sg_default_options(2);
  const bnd_sg_result result = evaluate(&options, NULL, 0, NULL, NULL);
  assert_true(result.at_050.map == -1.0 && result.at_050_095.best_score_threshold == -1.0);
}

static void labels_outside_the_classes_are_refused(void **state) {
  (void)state;
  const bnd_sg_options options = bnd_sg_default_options(2), none = bnd_sg_default_options(0);
  const float bad[] = {2.0f, -1.0f, 0.5f, NAN, INFINITY, 1e30f};
  bnd_sg_metrics *metrics;
  bnd_error error = {0};
  assert_int_equal(bnd_sg_metrics_create(&none, &metrics, &error), BND_ERROR_ARGUMENT);
  assert_int_equal(bnd_sg_metrics_create(&options, &metrics, &error), BND_OK);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const bnd_target target = {bad[i], 10, 10, 5, 5};
    assert_int_equal(bnd_sg_metrics_add(metrics, NULL, 0, &target, 1, NULL, 0, &error), BND_ERROR_ARGUMENT);
    assert_int_equal(bnd_sg_metrics_add(metrics, NULL, 0, NULL, 0, &target, 1, &error), BND_ERROR_ARGUMENT);
  }
  for (int label = -1; label <= 2; label += 3) {
    const bnd_detection detection = {0, 0, 5, 5, 0.5f, label};
    assert_int_equal(bnd_sg_metrics_add(metrics, &detection, 1, NULL, 0, NULL, 0, &error), BND_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "none of the 2 classes"));
  }
  bnd_sg_result result;
  assert_int_equal(bnd_sg_metrics_compute(metrics, &result, NULL, NULL, &error), BND_OK);
  assert_true(result.at_050.map == -1.0); /* what was refused left no trace */
  const bnd_target target = {1, 10, 10, 8, 8};
  const bnd_detection detection = {6, 6, 14, 14, 0.5f, 1};
  assert_int_equal(bnd_sg_metrics_add(metrics, &detection, 1, &target, 1, NULL, 0, &error), BND_OK);
  assert_int_equal(bnd_sg_metrics_compute(metrics, &result, NULL, NULL, &error), BND_OK);
  assert_close(result.at_050_095.map, 1.0, 1e-9, "mAP of a perfect detection");
  bnd_sg_metrics_destroy(metrics);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numbers_are_those_of_super_gradients),
      cmocka_unit_test(published_vector),
      cmocka_unit_test(nothing_gives_minus_one),
      cmocka_unit_test(labels_outside_the_classes_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
