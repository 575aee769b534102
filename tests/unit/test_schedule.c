#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "train/schedule.h"

static void assert_rate(const bnd_schedule *schedule, uint64_t step, double expected, double relative) {
  const double rate = bnd_schedule_rate(schedule, step);
  if (!(fabs(rate - expected) <= relative * expected)) fail_msg("step %llu: %.15g instead of %.15g", (unsigned long long)step, rate, expected);
}

/* The tutorial's 14 steps (data-training-metrics.md, 4.3). */
static void tutorial(void **state) {
  (void)state;
  const bnd_schedule schedule = {.kind = BND_SCHEDULE_COSINE, .initial = 2e-7, .batches_per_epoch = 14, .epochs = 1, .warmup_steps = 2,
                                 .warmup_initial = 2e-7, .final_ratio = 0.01};
  const double expected[14] = {2e-7,         2e-7,         2e-7,         2e-7,         1.971232e-7,  1.886601e-7,  1.751026e-7,
                               1.572384e-7, 1.361059e-7, 1.129331e-7, 8.906687e-8, 6.589412e-8, 4.476159e-8, 2.689744e-8};
  double sum = 0;
  for (uint64_t step = 0; step < 14; step++) {
    assert_rate(&schedule, step, expected[step], 3e-7);
    sum += bnd_schedule_rate(&schedule, step);
  }
  assert_true(fabs(sum - 1.9938e-6) < 1e-10);
}

/* The recipe on COCO with eight processes (8.4): the warm-up is cut at the epoch's end while the cosine starts at step 1000. */
static void recipe(void **state) {
  (void)state;
  const bnd_schedule schedule = {.kind = BND_SCHEDULE_COSINE, .initial = 2e-4, .batches_per_epoch = 458, .epochs = 300, .warmup_steps = 1000,
                                 .warmup_initial = 1e-6, .final_ratio = 0.1};
  assert_rate(&schedule, 0, 1e-6, 0);
  assert_rate(&schedule, 1, 1.4354486e-6, 2e-8);
  for (uint64_t step = 457; step <= 1001; step++) assert_rate(&schedule, step, 2e-4, 0);
  assert_rate(&schedule, 1002, 1.9999999997613e-4, 1e-13);
  assert_rate(&schedule, 70000, 1.0834490e-4, 5e-8);
  assert_rate(&schedule, 458 * 300 - 1, 2.0000000215e-5, 1e-11);
}

/* The cosine against the C library's, over a whole run without warm-up: the rate set behind step s holds for s + 1. */
static void cosine(void **state) {
  (void)state;
  const bnd_schedule schedule = {.kind = BND_SCHEDULE_COSINE, .initial = 3e-3, .batches_per_epoch = 10, .epochs = 50, .final_ratio = 0.25};
  assert_rate(&schedule, 0, 3e-3, 0);
  for (uint64_t s = 0; s < 499; s++)
    assert_rate(&schedule, s + 1, 0.5 * 3e-3 * (1 + cos(3.14159265358979323846 * (double)s / 501)) * 0.75 + 3e-3 * 0.25, 1e-15);
}

/* StepLRScheduler acts behind an epoch: milestone 2 is felt from epoch 3 on. */
static void steps(void **state) {
  (void)state;
  const uint64_t milestones[] = {2, 4};
  const bnd_schedule schedule = {.kind = BND_SCHEDULE_STEP, .initial = 0.5, .batches_per_epoch = 4, .epochs = 7, .warmup_steps = 3,
                                 .warmup_initial = 0.25, .milestones = milestones, .milestone_count = 2, .step_factor = 0.5};
  const double by_epoch[] = {0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125};
  assert_rate(&schedule, 0, 0.25, 0);
  assert_rate(&schedule, 1, 0.375, 0);
  for (uint64_t step = 2; step < 28; step++) assert_rate(&schedule, step, by_epoch[step / 4], 0);
}

static void constant(void **state) {
  (void)state;
  bnd_schedule schedule = {.initial = 0.5, .batches_per_epoch = 10, .epochs = 3, .warmup_steps = 5, .warmup_initial = 0.1};
  const double warmup[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5};
  for (uint64_t step = 0; step < 7; step++) assert_rate(&schedule, step, warmup[step], 1e-15);
  /* one step of warm-up never reaches the initial rate, as numpy's linspace of one point has only its start */
  schedule.warmup_steps = 1;
  assert_rate(&schedule, 0, 0.1, 0);
  assert_rate(&schedule, 29, 0.1, 0);
  schedule.kind = BND_SCHEDULE_COSINE;
  schedule.final_ratio = 1;
  assert_rate(&schedule, 1, 0.1, 0);
  assert_rate(&schedule, 2, 0.5, 0);
}

static void errors(void **state) {
  (void)state;
  const bnd_schedule good = {.initial = 0.5, .batches_per_epoch = 10, .epochs = 3};
  bnd_error error = {0};
  assert_int_equal(bnd_schedule_check(&good, &error), BND_OK);
  bnd_schedule bad = good;
  bad.initial = NAN;
  assert_int_equal(bnd_schedule_check(&bad, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "learning rate is nan"));
  bad = good;
  bad.final_ratio = -1;
  assert_int_equal(bnd_schedule_check(&bad, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "final ratio is -1"));
  bad = good;
  bad.batches_per_epoch = 0;
  assert_int_equal(bnd_schedule_check(&bad, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "without a batch"));
  bad = good;
  bad.epochs = UINT64_MAX;
  assert_int_equal(bnd_schedule_check(&bad, &error), BND_ERROR_ARGUMENT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tutorial), cmocka_unit_test(recipe), cmocka_unit_test(cosine),
      cmocka_unit_test(steps),    cmocka_unit_test(constant), cmocka_unit_test(errors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
