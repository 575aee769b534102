/* Distillation: losses against closed forms and differences, training that comes closer, bytes that do not depend on threads. */
#include "refine_work.h"

#include "refine/distill.h"
#include "refine/distill_loss.h"
#include "refine/trainable.h"

enum { ANCHORS = 5, CLASSES = 3, BINS = 4 };
static const double OVERLAP = 3;

typedef struct values {
  float t_class[ANCHORS * CLASSES], s_class[ANCHORS * CLASSES], t_box[ANCHORS * 4 * BINS], s_box[ANCHORS * 4 * BINS];
} values;

static values some_values(void) {
  values v;
  fill_uniform(v.t_class, ANCHORS * CLASSES, -4, 3, 1);
  fill_uniform(v.s_class, ANCHORS * CLASSES, -4, 3, 2);
  fill_uniform(v.t_box, ANCHORS * 4 * BINS, -2, 2, 3);
  fill_uniform(v.s_box, ANCHORS * 4 * BINS, -2, 2, 4);
  return v;
}

static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}

static double score(const values *v, int anchor) {
  double most = -INFINITY;
  for (int c = 0; c < CLASSES; c++) most = fmax(most, (double)v->t_class[anchor * CLASSES + c]);
  return sigmoid(most);
}

/* Of boxes around an anchor at 0, from distances to the left, top, right and bottom. */
static double intersection_over_union(const double a[4], const double b[4]) {
  const double left = fmax(-a[0], -b[0]), top = fmax(-a[1], -b[1]), right = fmin(a[2], b[2]), bottom = fmin(a[3], b[3]), both = (right - left) * (bottom - top);
  return both / ((a[0] + a[2]) * (a[1] + a[3]) + (b[0] + b[2]) * (b[1] + b[3]) - both);
}

static void losses_are_what_the_formulas_say(void **state) {
  (void)state;
  const values v = some_values();
  double classes = 0, boxes = 0, mass = 0;
  for (int i = 0; i < ANCHORS * CLASSES; i++) {
    const double t = sigmoid((double)v.t_class[i]), s = sigmoid((double)v.s_class[i]);
    classes += t * log(t / s) + (1 - t) * log((1 - t) / (1 - s));
  }
  for (int a = 0; a < ANCHORS; a++) {
    double t_box[4] = {0}, s_box[4] = {0};
    mass += score(&v, a);
    for (int side = 0; side < 4; side++) {
      const float *t = v.t_box + (a * 4 + side) * BINS, *s = v.s_box + (a * 4 + side) * BINS;
      double t_sum = 0, s_sum = 0;
      for (int b = 0; b < BINS; b++) t_sum += exp((double)t[b]), s_sum += exp((double)s[b]);
      for (int b = 0; b < BINS; b++) {
        const double p = exp((double)t[b]) / t_sum, q = exp((double)s[b]) / s_sum;
        boxes += score(&v, a) * p * log(p / q);
        t_box[side] += b * p, s_box[side] += b * q;
      }
    }
    boxes += score(&v, a) * OVERLAP * (1 - intersection_over_union(t_box, s_box));
  }
  assert_true(fabs(bnd_distill_mass(v.t_class, ANCHORS, CLASSES) - mass) < 1e-6 * mass);
  assert_true(fabs(bnd_distill_classes(v.t_class, v.s_class, ANCHORS, CLASSES, 0.5, NULL) - 0.5 * classes) < 1e-6 * classes);
  assert_true(fabs(bnd_distill_boxes(v.t_box, v.s_box, v.t_class, ANCHORS, CLASSES, BINS, 0.5, OVERLAP, NULL) - 0.5 * boxes) < 1e-6 * boxes);
}

static void equal_outputs_have_no_loss(void **state) {
  (void)state;
  const values v = some_values();
  float gradient[ANCHORS * 4 * BINS];
  assert_true(fabs(bnd_distill_classes(v.t_class, v.t_class, ANCHORS, CLASSES, 1, gradient)) < 1e-12);
  for (int i = 0; i < ANCHORS * CLASSES; i++) assert_true(gradient[i] == 0);
  assert_true(fabs(bnd_distill_boxes(v.t_box, v.t_box, v.t_class, ANCHORS, CLASSES, BINS, 1, OVERLAP, gradient)) < 1e-12);
  for (int i = 0; i < ANCHORS * 4 * BINS; i++) assert_true(gradient[i] == 0);
}

static void extreme_logits_stay_finite(void **state) {
  (void)state;
  const float t[] = {1000, -1000, 0, 500, -500, 90}, s[] = {-1000, 1000, 2000, -500, 500, -90};
  float gradient[64];
  assert_true(isfinite(bnd_distill_classes(t, s, 2, 3, 1, gradient)));
  for (int i = 0; i < 6; i++) assert_true(isfinite(gradient[i]) && fabsf(gradient[i]) <= 1);
  const float t_box[] = {1000, -1000, -1000, 1000, 0, 0, 500, 0}, s_box[] = {-1000, 1000, -1000, 1000, 2000, 0, 0, 500};
  assert_true(isfinite(bnd_distill_boxes(t_box, s_box, t, 1, 3, 2, 1, OVERLAP, gradient)));
  for (int i = 0; i < 8; i++) assert_true(isfinite(gradient[i]));
}

static void gradients_are_those_of_the_losses(void **state) {
  (void)state;
  values v = some_values();
  float classes[ANCHORS * CLASSES], boxes[ANCHORS * 4 * BINS], squares[ANCHORS * CLASSES];
  bnd_distill_classes(v.t_class, v.s_class, ANCHORS, CLASSES, 0.7, classes);
  bnd_distill_boxes(v.t_box, v.s_box, v.t_class, ANCHORS, CLASSES, BINS, 0.7, OVERLAP, boxes);
  bnd_distill_squares(v.t_class, v.s_class, ANCHORS * CLASSES, 0.7, squares);
  const float h = 1.f / 256;
  for (int i = 0; i < ANCHORS * CLASSES; i++) {
    const float x = v.s_class[i];
    v.s_class[i] = x + h;
    const double high = bnd_distill_classes(v.t_class, v.s_class, ANCHORS, CLASSES, 0.7, NULL),
                 high_squares = bnd_distill_squares(v.t_class, v.s_class, ANCHORS * CLASSES, 0.7, NULL);
    v.s_class[i] = x - h;
    const double low = bnd_distill_classes(v.t_class, v.s_class, ANCHORS, CLASSES, 0.7, NULL),
                 low_squares = bnd_distill_squares(v.t_class, v.s_class, ANCHORS * CLASSES, 0.7, NULL);
    v.s_class[i] = x;
    assert_true(fabs((high - low) / (2 * (double)h) - (double)classes[i]) < 1e-4);
    assert_true(fabs((high_squares - low_squares) / (2 * (double)h) - (double)squares[i]) < 1e-3);
  }
  for (int i = 0; i < ANCHORS * 4 * BINS; i++) {
    const float x = v.s_box[i];
    v.s_box[i] = x + h;
    const double high = bnd_distill_boxes(v.t_box, v.s_box, v.t_class, ANCHORS, CLASSES, BINS, 0.7, OVERLAP, NULL);
    v.s_box[i] = x - h;
    const double low = bnd_distill_boxes(v.t_box, v.s_box, v.t_class, ANCHORS, CLASSES, BINS, 0.7, OVERLAP, NULL);
    v.s_box[i] = x;
    assert_true(fabs((high - low) / (2 * (double)h) - (double)boxes[i]) < 1e-4);
  }
}

static void the_learning_rate_falls_as_a_cosine(void **state) {
  (void)state;
  const double pi = acos(-1);
  for (int step = 0; step <= 50; step++) assert_true(fabs(bnd_cosine_share(step, 50) - (1 + cos(pi * step / 50)) / 2) < 1e-9);
}

/* --- training --- */

static const bnd_distill_options SHORT = {.steps = 60, .batch = 3, .learning_rate = 0.1};

static bnd_status distil_shortly(bnd_refinement *work, bnd_string *report, bnd_error *error) { return bnd_refine_distill(work, &SHORT, report, error); }

static void the_network_comes_closer_to_its_teacher(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 2);
  bnd_string report = {0};
  const double before = relative_error(w);
  ASSERT_OK(distil_shortly(&w->work, &report, error));
  const double after = relative_error(w);
  if (!(after < 0.9 * before)) fail_msg("relative error %g, before %g", after, before);
  bnd_string_free(&report);
  close_workshop(w);
}

static void any_number_of_threads_gives_the_same_bytes(void **state) {
  (void)state;
  check_threads(open_workshop, BND_BACKEND_ONEDNN, distil_shortly);
}

static bnd_status distill_with(bnd_distill_options options, size_t images, bnd_error *error) {
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 1);
  bnd_string report = {0};
  w->images.count = images;
  const bnd_status status = bnd_refine_distill(&w->work, &options, &report, error);
  bnd_string_free(&report);
  close_workshop(w);
  return status;
}

static void outputs_that_are_no_detectors_are_told(void **state) {
  (void)state;
  bnd_error error = {0};
  assert_int_equal(distill_with((bnd_distill_options){.class_output = 7, .box_output = 8}, 2, &error), BND_ERROR_ARGUMENT);
  assert_int_equal(distill_with((bnd_distill_options){.class_output = 0, .box_output = 1}, 2, &error), BND_ERROR_MODEL);
  assert_int_equal(distill_with((bnd_distill_options){0}, 0, &error), BND_ERROR_ARGUMENT);
}

static void cancelling_ends_soon_without_a_leak(void **state) {
  (void)state;
  check_cancelling(BND_BACKEND_ONEDNN, distil_shortly, 100, 23);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(losses_are_what_the_formulas_say),
      cmocka_unit_test(equal_outputs_have_no_loss),
      cmocka_unit_test(extreme_logits_stay_finite),
      cmocka_unit_test(gradients_are_those_of_the_losses),
      cmocka_unit_test(the_learning_rate_falls_as_a_cosine),
      cmocka_unit_test(the_network_comes_closer_to_its_teacher),
      cmocka_unit_test(any_number_of_threads_gives_the_same_bytes),
      cmocka_unit_test(outputs_that_are_no_detectors_are_told),
      cmocka_unit_test(cancelling_ends_soon_without_a_leak),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
