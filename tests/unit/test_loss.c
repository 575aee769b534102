#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/math.h"
#include "train/assign.h"
#include "train/loss.h"

enum { MAX_TARGETS = 64, MAX_IMAGES = 4 };

static double next_uniform(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return (*state >> 8) / 16777216.0;
}

/* A batch with its own arrays. */
typedef struct problem {
  bnd_loss_options options;
  size_t anchors, image_count, target_count;
  float *points, *strides, *x, *z, *gx, *gz;
  bnd_target targets[MAX_TARGETS]; /* by image */
  bnd_loss_image images[MAX_IMAGES];
} problem;

static void *take(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size);
  assert_non_null(memory);
  return memory;
}

static size_t box_size(const problem *p) { return 4 * ((size_t)p->options.reg_max + 1); }

/* Anchor points and logits as tests/golden/make_loss.py makes them. */
static void start(problem *p, size_t side, int classes, int reg_max, size_t images, int levels, double gain) {
  *p = (problem){.options = {.classes = classes, .reg_max = reg_max}, .image_count = images};
  for (size_t stride = 8; stride <= 32; stride *= 2) p->anchors += (side / stride) * (side / stride);
  p->points = take(p->anchors, 2 * sizeof(float));
  p->strides = take(p->anchors, sizeof(float));
  size_t a = 0;
  for (size_t stride = 8; stride <= 32; stride *= 2)
    for (size_t j = 0; j < side / stride; j++)
      for (size_t i = 0; i < side / stride; i++, a++) {
        p->points[2 * a] = ((float)i + 0.5f) * (float)stride;
        p->points[2 * a + 1] = ((float)j + 0.5f) * (float)stride;
        p->strides[a] = (float)stride;
      }
  const size_t xs = images * p->anchors * (size_t)classes, zs = images * p->anchors * box_size(p), bins = (size_t)reg_max + 1;
  p->x = take(xs, sizeof(float));
  p->gx = take(xs, sizeof(float));
  p->z = take(zs, sizeof(float));
  p->gz = take(zs, sizeof(float));
  uint32_t seed = 1;
  for (size_t i = 0; i < xs; i++) {
    const double v = 8 * next_uniform(&seed) - 7;
    p->x[i] = gain != 0 ? (float)((levels ? floor(v * levels) / levels : v) * gain) : -4.6f;
  }
  seed = 2;
  for (size_t i = 0; i < zs; i++) {
    const double v = 4 * next_uniform(&seed) - 2 - 0.5 * (double)(i % bins);
    p->z[i] = (float)((levels ? floor(v * levels) / levels : v) * gain);
  }
  for (size_t i = 0; i < images; i++)
    p->images[i] = (bnd_loss_image){p->x + i * p->anchors * (size_t)classes, p->z + i * p->anchors * box_size(p), NULL, 0,
                                    p->gx + i * p->anchors * (size_t)classes, p->gz + i * p->anchors * box_size(p)};
}

static void finish(problem *p) {
  free(p->points);
  free(p->strides);
  free(p->x);
  free(p->z);
  free(p->gx);
  free(p->gz);
}

/* rows: image, label, cx, cy, w, h; of an image in any place. */
static void set_targets(problem *p, const double (*rows)[6], size_t count) {
  assert_true(count <= MAX_TARGETS);
  p->target_count = 0;
  for (size_t image = 0; image < p->image_count; image++) {
    p->images[image].targets = p->targets + p->target_count;
    p->images[image].target_count = 0;
    for (size_t i = 0; i < count; i++) {
      if (rows[i][0] != (double)image) continue;
      p->targets[p->target_count++] = (bnd_target){(float)rows[i][1], (float)rows[i][2], (float)rows[i][3], (float)rows[i][4], (float)rows[i][5]};
      p->images[image].target_count++;
    }
  }
}

static bnd_loss_parts loss(const problem *p, int threads) {
  bnd_loss_parts parts;
  bnd_error error = {0};
  if (bnd_yolo_loss(&p->options, p->points, p->strides, p->anchors, p->images, p->image_count, threads, &parts, &error) != BND_OK)
    fail_msg("%s", error.message);
  return parts;
}

static void assert_close(double actual, double expected, double relative) {
  if (!(fabs(actual - expected) <= relative * fabs(expected))) fail_msg("%.9g instead of %.9g", actual, expected);
}

static double sum(const float *values, size_t count, int absolute) {
  double total = 0;
  for (size_t i = 0; i < count; i++) total += absolute ? fabs((double)values[i]) : (double)values[i];
  return total;
}

static void logarithms(void **state) {
  (void)state;
  double worst = 0, worst_small = 0;
  uint32_t seed = 5;
  for (int i = 0; i < 200000; i++) {
    const double u = next_uniform(&seed), x = exp(1400 * u - 700), e = i % 2 ? u : x < 1 ? x : 1 / x;
    worst = fmax(worst, fabs(bnd_log_double(x) - log(x)) / fmax(1, fabs(log(x))));
    worst_small = fmax(worst_small, fabs(bnd_log1p_double(e) - log1p(e)) / log1p(e));
  }
  assert_true(worst < 1e-13);
  assert_true(worst_small < 1e-13);
  assert_true(bnd_log1p_double(0) == 0 && bnd_log_double(1) == 0);
}

/* Reference figures of data-training-metrics.md, 8.3. */
static const double VECTOR[][6] = {{0, 3, 30, 36, 36, 48},  {0, 3, 42, 36, 44, 42},  {0, 17, 75, 75, 30, 32},
                                   {1, 0, 48, 48, 90, 90}, {1, 79, 18, 66, 16, 12}, {1, 5, 60, 60, 3, 3}};

static void reference_vector(void **state) {
  (void)state;
  problem p;
  start(&p, 96, 80, 16, 2, 0, 1);
  set_targets(&p, VECTOR, 6);
  const bnd_loss_parts parts = loss(&p, 2);
  assert_int_equal(parts.positives, 31 + 16);
  assert_close(parts.score_sum, 5.60435, 1e-6);
  assert_close(parts.classification, 246.43887, 3e-7);
  assert_close(parts.iou, 1.3701082, 1e-7);
  assert_close(parts.dfl, 1.0778768, 1e-7);
  assert_close(parts.total, 248.88686, 3e-7);
  const size_t xs = 2 * p.anchors * 80, zs = 2 * p.anchors * 68;
  assert_close(sum(p.gx, xs, 0), 354.67661, 1e-6);
  assert_close(sum(p.gx, xs, 1), 355.10965, 1e-6);
  assert_close(sum(p.gz, zs, 1), 2.660953, 1e-6);
  const double first[] = {-9.91702e-6, -6.72960e-5, 7.87644e-8, 2.96543e-6, 3.43897e-5};
  for (int i = 0; i < 5; i++) assert_close((double)p.gz[26 * 68 + i], first[i], 1e-5);
  bnd_box_sides sides;
  float box[4];
  bnd_box_decode(p.z + 26 * 68, 16, &sides);
  bnd_box_around(p.points[52] / 8, p.points[53] / 8, &sides, box);
  const double expected[] = {-1.754477, 3.216028, 33.168419, 38.190735};
  for (int i = 0; i < 4; i++) assert_close((double)box[i] * 8, expected[i], 1e-6);
  set_targets(&p, NULL, 0);
  const bnd_loss_parts none = loss(&p, 2);
  assert_close(none.total, 1377.0304, 1e-7);
  assert_true(none.classification == none.total && none.iou == 0 && none.dfl == 0 && none.score_sum == 0 && none.positives == 0);
  assert_true(sum(p.gz, zs, 1) == 0);
  finish(&p);
}

static void assert_l2(const float *actual, const float *expected, size_t count, double relative) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < count; i++) {
    difference += ((double)actual[i] - (double)expected[i]) * ((double)actual[i] - (double)expected[i]);
    size += (double)expected[i] * (double)expected[i];
  }
  if (!(sqrt(difference) <= relative * sqrt(size))) fail_msg("L2 of the difference %g of %g", sqrt(difference), sqrt(size));
}

/* What the original makes of drawn predictions: assignment, losses, gradients. */
static void compare_with_original(const char *name) {
  char path[512];
  snprintf(path, sizeof path, TEST_DATA "/loss/%s.txt", name);
  FILE *text = fopen(path, "r");
  snprintf(path, sizeof path, TEST_DATA "/loss/%s.f32", name);
  FILE *numbers = fopen(path, "rb");
  assert_non_null(text);
  assert_non_null(numbers);
  size_t side, images, targets, positives;
  int classes, reg_max, levels;
  double gain, rows[MAX_TARGETS][6], expected[5];
  problem p;
  assert_int_equal(fscanf(text, "%zu %d %d %zu %zu %d %lf", &side, &classes, &reg_max, &images, &targets, &levels, &gain), 7);
  start(&p, side, classes, reg_max, images, levels, gain);
  assert_true(targets <= MAX_TARGETS);
  for (size_t i = 0; i < targets; i++)
    for (size_t k = 0; k < 6; k++) assert_int_equal(fscanf(text, "%lf", &rows[i][k]), 1);
  for (int i = 0; i < 5; i++) assert_int_equal(fscanf(text, "%lf", &expected[i]), 1);
  assert_int_equal(fscanf(text, "%zu", &positives), 1);
  set_targets(&p, rows, targets);
  const bnd_loss_parts parts = loss(&p, 2);
  assert_int_equal(parts.positives, positives);
  assert_close(parts.classification, expected[0], 1e-6);
  assert_close(parts.iou, expected[1], 1e-6);
  assert_close(parts.dfl, expected[2], 1e-6);
  assert_close(parts.total, expected[3], 1e-6);
  assert_close(parts.score_sum, expected[4], 1e-6);

  const size_t xs = images * p.anchors * (size_t)classes, size = box_size(&p);
  float *gx = take(xs, sizeof(float)), *gz = take(images * p.anchors * size, sizeof(float));
  int *label = take(images * p.anchors, sizeof(int));
  float *score = take(images * p.anchors, sizeof(float)), *x = take(p.anchors, sizeof(float)), *y = take(p.anchors, sizeof(float));
  assert_int_equal(fread(gx, sizeof(float), xs, numbers), xs);
  for (size_t i = 0; i < p.anchors; i++) {
    x[i] = p.points[2 * i];
    y[i] = p.points[2 * i + 1];
  }
  for (size_t i = 0; i < images; i++) {
    const bnd_anchors anchors = {x, y, p.strides, p.anchors};
    bnd_assignment assignment;
    assert_int_equal(bnd_assign_targets(&p.options, &anchors, &p.images[i], i, &assignment, NULL), BND_OK);
    for (size_t k = 0; k < assignment.count; k++) {
      label[i * p.anchors + assignment.rows[k].anchor] = assignment.rows[k].label + 1;
      score[i * p.anchors + assignment.rows[k].anchor] = assignment.rows[k].score;
    }
    free(assignment.rows);
  }
  for (size_t i = 0; i < positives; i++) {
    size_t image, anchor;
    int wanted;
    double value;
    assert_int_equal(fscanf(text, "%zu %zu %d %lf", &image, &anchor, &wanted, &value), 4);
    assert_int_equal(label[image * p.anchors + anchor], wanted + 1);
    assert_true(fabs((double)score[image * p.anchors + anchor] - value) <= 1e-5 * value + 1e-7);
    assert_int_equal(fread(gz + (image * p.anchors + anchor) * size, sizeof(float), size, numbers), size);
  }
  assert_int_equal(fgetc(numbers), EOF);
  assert_l2(p.gx, gx, xs, 1e-5);
  assert_l2(p.gz, gz, images * p.anchors * size, 1e-5);
  free(gx);
  free(gz);
  free(label);
  free(score);
  free(x);
  free(y);
  finish(&p);
  fclose(text);
  fclose(numbers);
}

static void as_the_original(void **state) {
  (void)state;
  compare_with_original("drawn");
  compare_with_original("duplicates");
  compare_with_original("one_class");
  compare_with_original("heap");
  compare_with_original("hopeless");
  compare_with_original("nothing");
}

static void ties_as_the_original(void **state) {
  (void)state;
  compare_with_original("ties");
  compare_with_original("initial");
  compare_with_original("heap_ties");
}

/* ---- gradients against central differences of the formulas in double, the assignment held fixed ---- */

/* log(1 + e^x) */
static double softplus(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }

static double class_loss(double x, double q, int positive) {
  const double p = 1 / (1 + exp(-x));
  return positive ? q * (softplus(x) - x * q) : 0.75 * p * p * softplus(x);
}

static double box_loss(const problem *p, const bnd_positive *row, const double *z, const bnd_loss_options *weights) {
  const size_t bins = (size_t)p->options.reg_max + 1;
  const double stride = (double)p->strides[row->anchor], x = (double)p->points[2 * row->anchor] / stride, y = (double)p->points[2 * row->anchor + 1] / stride;
  double g[4], side[4], dfl = 0;
  for (int i = 0; i < 4; i++) g[i] = (double)row->target_box[i] / stride;
  const double wanted[4] = {x - g[0], y - g[1], g[2] - x, g[3] - y};
  for (size_t s = 0; s < 4; s++) {
    double total = 0, weighted = 0;
    for (size_t k = 0; k < bins; k++) {
      total += exp(z[s * bins + k]);
      weighted += exp(z[s * bins + k]) * (double)k;
    }
    side[s] = weighted / total;
    const double d = fmin(fmax(wanted[s], 0), p->options.reg_max - 0.01), k = floor(d);
    dfl += ((k + 1 - d) * (log(total) - z[s * bins + (size_t)k]) + (d - k) * (log(total) - z[s * bins + (size_t)k + 1])) / 4;
  }
  const double b[4] = {x - side[0], y - side[1], x + side[2], y + side[3]};
  const double iw = fmax(fmin(b[2], g[2]) - fmax(b[0], g[0]), 0), ih = fmax(fmin(b[3], g[3]) - fmax(b[1], g[1]), 0);
  const double all = (b[2] - b[0]) * (b[3] - b[1]) + (g[2] - g[0]) * (g[3] - g[1]) - iw * ih;
  const double enclosing = (fmax(b[2], g[2]) - fmin(b[0], g[0])) * (fmax(b[3], g[3]) - fmin(b[1], g[1]));
  return (double)row->score * (weights->iou_weight * (1 - iw * ih / all + (enclosing - all) / enclosing) + weights->dfl_weight * dfl);
}

static void finite_differences(void **state) {
  (void)state;
  const double h = 1e-5;
  problem p;
  start(&p, 96, 5, 16, 1, 0, 1);
  p.options.classification_weight = 1.5;
  p.options.iou_weight = 2;
  p.options.dfl_weight = 0.75;
  set_targets(&p, (const double[][6]){{0, 3, 30.3, 36.1, 36.2, 48.3}, {0, 3, 42.7, 36.3, 44.9, 42.2}, {0, 4, 71.3, 72.1, 37.7, 41.3}}, 3);
  const bnd_loss_parts parts = loss(&p, 1);
  float *x = take(p.anchors, sizeof(float)), *y = take(p.anchors, sizeof(float));
  for (size_t i = 0; i < p.anchors; i++) {
    x[i] = p.points[2 * i];
    y[i] = p.points[2 * i + 1];
  }
  const bnd_anchors anchors = {x, y, p.strides, p.anchors};
  bnd_assignment assignment;
  assert_int_equal(bnd_assign_targets(&p.options, &anchors, &p.images[0], 0, &assignment, NULL), BND_OK);
  assert_true(assignment.count > 20);
  float *gx = take(p.anchors * 5, sizeof(float)), *gz = take(p.anchors * 68, sizeof(float));
  double total = 0;
  for (size_t i = 0; i < p.anchors * 5; i++) {
    double q = 0;
    int positive = 0;
    for (size_t k = 0; k < assignment.count; k++)
      if (assignment.rows[k].anchor * 5 + (size_t)assignment.rows[k].label == i) {
        q = (double)assignment.rows[k].score;
        positive = 1;
      }
    const double v = (double)p.x[i];
    total += p.options.classification_weight * class_loss(v, q, positive);
    gx[i] = (float)(p.options.classification_weight * (class_loss(v + h, q, positive) - class_loss(v - h, q, positive)) / (2 * h) / parts.score_sum);
  }
  for (size_t k = 0; k < assignment.count; k++) {
    double z[68];
    const size_t at = assignment.rows[k].anchor * 68;
    for (int i = 0; i < 68; i++) z[i] = (double)p.z[at + (size_t)i];
    total += box_loss(&p, &assignment.rows[k], z, &p.options);
    for (size_t i = 0; i < 68; i++) {
      const double kept = z[i];
      z[i] = kept + h;
      const double above = box_loss(&p, &assignment.rows[k], z, &p.options);
      z[i] = kept - h;
      gz[at + i] = (float)((above - box_loss(&p, &assignment.rows[k], z, &p.options)) / (2 * h) / parts.score_sum);
      z[i] = kept;
    }
  }
  assert_close(parts.total, total / parts.score_sum, 1e-6);
  assert_l2(p.gx, gx, p.anchors * 5, 1e-6);
  assert_l2(p.gz, gz, p.anchors * 68, 3e-6);
  free(assignment.rows);
  free(x);
  free(y);
  free(gx);
  free(gz);
  finish(&p);
}

static void same_for_any_threads(void **state) {
  (void)state;
  problem p;
  start(&p, 256, 3, 16, 3, 0, 1);
  const double rows[][6] = {{0, 1, 100, 90, 120, 80}, {0, 2, 110, 95, 110, 90}, {2, 0, 30, 200, 40, 60}};
  set_targets(&p, rows, 3);
  const bnd_loss_parts one = loss(&p, 1);
  const size_t xs = 3 * p.anchors * 3, zs = 3 * p.anchors * 68;
  float *gx = take(xs, sizeof(float)), *gz = take(zs, sizeof(float));
  memcpy(gx, p.gx, xs * sizeof *gx);
  memcpy(gz, p.gz, zs * sizeof *gz);
  for (int threads = 2; threads <= 5; threads += 3) {
    memset(p.gx, 0xff, xs * sizeof *gx); /* all of it is written */
    memset(p.gz, 0xff, zs * sizeof *gz);
    const bnd_loss_parts many = loss(&p, threads);
    assert_true(one.classification == many.classification && one.iou == many.iou && one.dfl == many.dfl && one.score_sum == many.score_sum);
    assert_memory_equal(gx, p.gx, xs * sizeof *gx);
    assert_memory_equal(gz, p.gz, zs * sizeof *gz);
  }
  for (int i = 0; i < 3; i++) p.images[i].class_gradient = p.images[i].box_gradient = NULL;
  const bnd_loss_parts without = loss(&p, 2);
  assert_true(one.total == without.total);
  free(gx);
  free(gz);
  finish(&p);
}

static void expect_error(const problem *p, bnd_status expected, const char *part) {
  bnd_loss_parts parts;
  bnd_error error = {0};
  const bnd_status status = bnd_yolo_loss(&p->options, p->points, p->strides, p->anchors, p->images, p->image_count, 2, &parts, &error);
  assert_int_equal(status, expected);
  if (!strstr(error.message, part)) fail_msg("\"%s\" instead of \"%s\"", error.message, part);
}

static void errors(void **state) {
  (void)state;
  problem p;
  start(&p, 96, 5, 16, 2, 0, 1);
  set_targets(&p, (const double[][6]){{0, 3, 30, 36, 36, 48}, {1, 4, 30, 36, 36, 48}}, 2);
  p.z[(p.anchors + 7) * 68 + 3] = NAN;
  expect_error(&p, BND_ERROR_MODEL, "image 1: box logit 3 of anchor 7 is not a number");
  p.x[9 * 5 + 2] = -INFINITY;
  expect_error(&p, BND_ERROR_MODEL, "image 0: class logit 2 of anchor 9 is infinite"); /* the first of two, for any number of threads */
  p.x[9 * 5 + 2] = 0;
  p.z[(p.anchors + 7) * 68 + 3] = 0;
  p.targets[1].label = 5;
  expect_error(&p, BND_ERROR_ARGUMENT, "image 1: target 0: label 5 is none of the 5 classes");
  p.targets[1].label = -1;
  expect_error(&p, BND_ERROR_ARGUMENT, "label -1");
  p.targets[1].label = NAN;
  expect_error(&p, BND_ERROR_ARGUMENT, "label");
  p.targets[1].label = 0;
  p.targets[1].w = INFINITY;
  expect_error(&p, BND_ERROR_ARGUMENT, "image 1: target 0: the box is not finite");
  p.targets[1].w = 36;
  p.options.reg_max = BND_REG_MAX_LIMIT + 1;
  expect_error(&p, BND_ERROR_ARGUMENT, "reg_max");
  p.options.reg_max = 16;
  p.options.classes = 0;
  expect_error(&p, BND_ERROR_ARGUMENT, "0 classes");
  finish(&p);
}

/* Huge logits, no anchors, no images. */
static void edges(void **state) {
  (void)state;
  problem p;
  start(&p, 96, 5, 16, 2, 0, 1);
  set_targets(&p, (const double[][6]){{0, 3, 30, 36, 36, 48}, {1, 4, 1e30, 1e30, 1e30, 1e30}, {1, 4, 30, 30, -20, -20}}, 3);
  for (size_t i = 0; i < p.anchors * 5; i++) p.x[i] = i % 2 ? 3e38f : -3e38f;
  for (size_t i = 0; i < p.anchors * 68; i++) p.z[i] = i % 3 ? 3e38f : -3e38f;
  const bnd_loss_parts parts = loss(&p, 1);
  assert_true(isfinite(parts.classification) && isfinite(parts.iou) && parts.positives > 0);
  p.anchors = 0;
  assert_true(loss(&p, 2).total == 0);
  p.image_count = 0;
  assert_true(loss(&p, 2).total == 0);
  finish(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(logarithms),         cmocka_unit_test(reference_vector),   cmocka_unit_test(as_the_original),
      cmocka_unit_test(ties_as_the_original), cmocka_unit_test(finite_differences), cmocka_unit_test(same_for_any_threads),
      cmocka_unit_test(errors),             cmocka_unit_test(edges),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
