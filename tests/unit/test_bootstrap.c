/* The paired bootstrap of mAP ratios against closed forms: what no draw can change, the quantiles of a binomial distribution, the metric itself, and how often
   the interval holds the true ratio. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/random.h"
#include "eval/bootstrap.h"
#include "eval/sg_record.h"

enum { ALL = (1 << BND_SG_THRESHOLDS) - 1, RESAMPLES = 1000 };

static bnd_sg_record *make_record(size_t detections, size_t targets) {
  bnd_sg_record *record = calloc(1, sizeof *record);
  assert_non_null(record);
  *record = (bnd_sg_record){detections, targets, calloc(detections + 1, sizeof *record->detections), calloc(targets + 1, sizeof *record->target_labels)};
  assert_true(record->detections && record->target_labels);
  return record;
}

/* One target of class 0, and a detection of it where `found`. */
static bnd_sg_record *one_target(bool found) {
  bnd_sg_record *record = make_record(found, 1);
  if (found) record->detections[0] = (bnd_sg_detection){0.5f, 0, ALL, 0};
  return record;
}

/* Up to six detections with scores and matches by chance, up to four targets of three classes. */
static bnd_sg_record *random_record(bnd_random *random) {
  bnd_sg_record *record = make_record(1 + (size_t)bnd_random_below(random, 6), 1 + (size_t)bnd_random_below(random, 4));
  for (size_t i = 0; i < record->target_count; i++) record->target_labels[i] = (uint32_t)bnd_random_below(random, 3);
  for (size_t i = 0; i < record->detection_count; i++) {
    const uint16_t matched = i < record->target_count ? (uint16_t)(ALL >> bnd_random_below(random, 11)) : 0; /* up to some overlap */
    const uint32_t label = i < record->target_count ? record->target_labels[i] : (uint32_t)bnd_random_below(random, 3);
    record->detections[i] = (bnd_sg_detection){(float)bnd_random_uniform(random), label, matched, matched || bnd_random_chance(random, 0.8) ? 0 : ALL};
  }
  return record;
}

static void free_records(bnd_sg_record **records, size_t count) {
  for (size_t i = 0; i < count; i++) bnd_sg_record_free(records[i]);
}

typedef struct interval {
  double low, high;
} interval;

static interval ratio(bnd_sg_record *const *base, bnd_sg_record *const *other, size_t images, size_t classes, int resamples, uint64_t seed) {
  interval i;
  bnd_error error = {0};
  assert_int_equal(bnd_sg_bootstrap_ratio((const bnd_sg_record *const *)base, (const bnd_sg_record *const *)other, images, classes, resamples, seed, &i.low, &i.high, &error),
                   BND_OK);
  return i;
}

static void equal_networks_have_ratio_one(void **state) {
  (void)state;
  enum { IMAGES = 40 };
  bnd_sg_record *records[IMAGES];
  bnd_random random = bnd_random_stream(1, 0, 0, 0);
  for (int i = 0; i < IMAGES; i++) records[i] = random_record(&random);
  const interval i = ratio(records, records, IMAGES, 3, RESAMPLES, 7);
  assert_true(i.low == 1 && i.high == 1);
  free_records(records, IMAGES);
}

/* Half of the thresholds are met, or half of the classes found, in whatever images are drawn. */
static void ratio_that_no_draw_changes(void **state) {
  (void)state;
  enum { IMAGES = 30 };
  bnd_sg_record *base[IMAGES], *thresholds[IMAGES], *classes[IMAGES];
  for (int i = 0; i < IMAGES; i++) {
    base[i] = make_record(2, 2), thresholds[i] = make_record(2, 2), classes[i] = make_record(1, 2);
    for (uint32_t k = 0; k < 2; k++) {
      base[i]->target_labels[k] = thresholds[i]->target_labels[k] = classes[i]->target_labels[k] = k;
      base[i]->detections[k] = (bnd_sg_detection){0.9f, k, ALL, 0};
      thresholds[i]->detections[k] = (bnd_sg_detection){0.9f, k, 0x1f, 0};
    }
    classes[i]->detections[0] = base[i]->detections[0];
  }
  const interval a = ratio(base, thresholds, IMAGES, 2, RESAMPLES, 1), b = ratio(base, classes, IMAGES, 2, RESAMPLES, 1);
  const interval c = ratio(classes, base, IMAGES, 2, RESAMPLES, 1), d = ratio(base, base, IMAGES, 5, RESAMPLES, 1); /* classes that never occur do not count */
  assert_true(fabs(a.low - 0.5) < 1e-12 && a.low == a.high);
  assert_true(fabs(b.low - 0.5) < 1e-12 && b.low == b.high);
  assert_true(fabs(c.low - 2) < 1e-12 && c.low == c.high);
  assert_true(d.low == 1 && d.high == 1);
  free_records(base, IMAGES);
  free_records(thresholds, IMAGES);
  free_records(classes, IMAGES);
}

/* --- against the metric --- */

static double metric(const bnd_sg_record *record, int copies) {
  const bnd_sg_options options = bnd_sg_default_options(3);
  bnd_sg_metrics *metrics;
  bnd_sg_result result;
  bnd_error error = {0};
  assert_int_equal(bnd_sg_metrics_create(&options, &metrics, &error), BND_OK);
  for (int i = 0; i < copies; i++) assert_int_equal(bnd_sg_metrics_append(metrics, bnd_sg_record_copy(record), &error), BND_OK);
  assert_int_equal(bnd_sg_metrics_compute(metrics, &result, NULL, NULL, &error), BND_OK);
  bnd_sg_metrics_destroy(metrics);
  return result.at_050_095.map;
}

/* Every draw from copies of one image is the same set of images, whatever their weights. */
static void draws_give_the_metric(void **state) {
  (void)state;
  enum { COPIES = 9, CASES = 200 };
  bnd_random random = bnd_random_stream(2, 0, 0, 0);
  int compared = 0;
  for (int c = 0; c < CASES; c++) {
    bnd_sg_record *base = random_record(&random), *other = make_record(base->detection_count, base->target_count);
    for (size_t i = 0; i < base->target_count; i++) other->target_labels[i] = base->target_labels[i];
    for (size_t i = 0; i < base->detection_count; i++) {
      other->detections[i] = base->detections[i];
      other->detections[i].score = (float)bnd_random_uniform(&random);
      if (bnd_random_chance(&random, 0.3)) other->detections[i].matched &= 0x7f;
    }
    bnd_sg_record *bases[COPIES], *others[COPIES];
    for (int i = 0; i < COPIES; i++) bases[i] = base, others[i] = other;
    const double expected = metric(base, COPIES) > 0 ? metric(other, COPIES) / metric(base, COPIES) : 0;
    const interval i = ratio(bases, others, COPIES, 3, 20, (uint64_t)c);
    assert_true(i.low == i.high || fabs(i.low - i.high) < 1e-12);
    assert_true(fabs(i.low - expected) < 1e-5); /* the metric counts in float32 */
    compared += expected > 0 && fabs(expected - 1) > 1e-3;
    bnd_sg_record_free(base);
    bnd_sg_record_free(other);
  }
  assert_true(compared > CASES / 4);
}

/* --- against a binomial distribution --- */

/* One target in each of 100 images: base finds all, other `found` of them. Of a draw other finds Binomial(100, found / 100), k of them make an average precision
   of (k + 1) / 101. The smallest k with P(X <= k) >= share. */
static int binomial_quantile(int count, double p, double share) {
  double probability = pow(1 - p, count), sum = probability;
  int k = 0;
  for (; sum < share && k < count; k++) {
    probability *= (count - k) / (double)(k + 1) * p / (1 - p);
    sum += probability;
  }
  return k;
}

static void quantiles_are_those_of_the_draws(void **state) {
  (void)state;
  enum { IMAGES = 100 };
  bnd_sg_record *base[IMAGES], *other[IMAGES];
  for (int found = 20; found <= 80; found += 30) {
    for (int i = 0; i < IMAGES; i++) base[i] = one_target(true), other[i] = one_target(i * 37 % IMAGES < found);
    const interval i = ratio(base, other, IMAGES, 1, 20000, 11);
    const double low = (binomial_quantile(IMAGES, found / 100.0, 0.025) + 1) / 101.0, high = (binomial_quantile(IMAGES, found / 100.0, 0.975) + 1) / 101.0;
    assert_true(fabs(i.low - low) < 1.01 / 101 && fabs(i.high - high) < 1.01 / 101); /* 20000 draws may miss by one image */
    free_records(base, IMAGES);
    free_records(other, IMAGES);
  }
}

/* Worlds of 100 images where other finds each target with probability 0.7: the ratio of a large world is (100 * 0.7 + 1) / 101, within a thousandth. */
static void interval_holds_the_true_ratio_as_often_as_it_says(void **state) {
  (void)state;
  enum { IMAGES = 100, WORLDS = 400 };
  const double truth = 71.0 / 101;
  bnd_random random = bnd_random_stream(5, 0, 0, 0);
  int held = 0;
  for (int w = 0; w < WORLDS; w++) {
    bnd_sg_record *base[IMAGES], *other[IMAGES];
    for (int i = 0; i < IMAGES; i++) base[i] = one_target(true), other[i] = one_target(bnd_random_chance(&random, 0.7));
    const interval i = ratio(base, other, IMAGES, 1, 400, (uint64_t)w);
    held += i.low <= truth && truth <= i.high;
    free_records(base, IMAGES);
    free_records(other, IMAGES);
  }
  /* 95 % of 400 is 380, its standard deviation 4.4; percentile intervals of proportions are known to hold a little less */
  assert_in_range(held, 364, 394);
}

/* --- the same every time --- */

static void seed_alone_decides(void **state) {
  (void)state;
  enum { IMAGES = 50 };
  bnd_sg_record *base[IMAGES], *other[IMAGES];
  bnd_random random = bnd_random_stream(3, 0, 0, 0);
  for (int i = 0; i < IMAGES; i++) {
    base[i] = random_record(&random);
    other[i] = bnd_sg_record_copy(base[i]);
    for (size_t k = 0; k < other[i]->detection_count; k++) other[i]->detections[k].score = (float)bnd_random_uniform(&random);
  }
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const interval first = ratio(base, other, IMAGES, 3, 300, 21);
  assert_true(0 < first.low && first.low < first.high);
  for (int t = 2; t <= 5; t += 3) {
    omp_set_num_threads(t);
    const interval again = ratio(base, other, IMAGES, 3, 300, 21);
    assert_true(again.low == first.low && again.high == first.high);
  }
  omp_set_num_threads(threads);
  const interval differs = ratio(base, other, IMAGES, 3, 300, 22);
  assert_true(differs.low != first.low || differs.high != first.high);
  free_records(base, IMAGES);
  free_records(other, IMAGES);
}

static void nothing_to_find_is_zero(void **state) {
  (void)state;
  bnd_sg_record *empty[2] = {make_record(0, 0), make_record(0, 0)}, *one[2] = {one_target(true), one_target(true)};
  interval i = ratio(empty, empty, 2, 1, 50, 1);
  assert_true(i.low == 0 && i.high == 0);
  i = ratio(one, one, 0, 1, 50, 1);
  assert_true(i.low == 0 && i.high == 0);
  free_records(empty, 2);
  free_records(one, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(equal_networks_have_ratio_one),
      cmocka_unit_test(ratio_that_no_draw_changes),
      cmocka_unit_test(draws_give_the_metric),
      cmocka_unit_test(quantiles_are_those_of_the_draws),
      cmocka_unit_test(interval_holds_the_true_ratio_as_often_as_it_says),
      cmocka_unit_test(seed_alone_decides),
      cmocka_unit_test(nothing_to_find_is_zero),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
