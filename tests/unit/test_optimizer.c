#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/average.h"
#include "train/optimizer.h"

static double next_uniform(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return (*state >> 8) / 16777216.0;
}

static bnd_optimizer *make(const bnd_optimizer_options *options, const bnd_optimizer_parameter *parameters, size_t count) {
  bnd_optimizer *optimizer;
  assert_int_equal(bnd_optimizer_create(options, parameters, count, &optimizer, NULL), BND_OK);
  return optimizer;
}

/* Figures of data-training-metrics.md, 8.4. */
static void reference_steps(void **state) {
  (void)state;
  float value[2] = {1, -0.5f}, gradient[2];
  const bnd_optimizer_parameter parameter = {value, gradient, 2, 1e-2, 0};
  bnd_optimizer *optimizer = make(&(bnd_optimizer_options){.kind = BND_ADAMW}, &parameter, 1);
  const float gradients[3][2] = {{0.1f, -2}, {0.3f, 0.5f}, {-0.2f, 1e-4f}};
  const double expected[3][2] = {{0.99899000, -0.49899501}, {0.99806219, -0.49852052}, {0.99779427, -0.49815264}};
  for (int step = 0; step < 3; step++) {
    memcpy(gradient, gradients[step], sizeof gradient);
    bnd_optimizer_step(optimizer, 1e-3, 1, 1);
    for (int i = 0; i < 2; i++) assert_true(fabs((double)value[i] - expected[step][i]) < 4e-8);
  }
  assert_int_equal(bnd_optimizer_steps(optimizer), 3);
  bnd_optimizer_destroy(optimizer);
}

/* Twenty steps against PyTorch's result. SGD is equal to the last bit; so is all but a few elements of AdamW, where torch's square root (Intel's
   vector library) is not rounded correctly, and clipping, where its norm is summed in float. */
static void as_pytorch(void **state) {
  (void)state;
  enum { A = 301, B = 37 };
  FILE *file = fopen(TEST_DATA "/optimizer.txt", "r");
  assert_non_null(file);
  int kind, nesterov, cases = 0;
  double momentum, most;
  while (fscanf(file, "%d %lf %d %lf", &kind, &momentum, &nesterov, &most) == 4) {
    float value[A + B], gradient[A + B];
    uint32_t seed = 9;
    for (int i = 0; i < A + B; i++) value[i] = (float)(2 * next_uniform(&seed) - 1);
    const bnd_optimizer_parameter parameters[2] = {{value, gradient, A, 0.01, 0}, {value + A, gradient + A, B, 0, 0}};
    bnd_optimizer *optimizer =
        make(&(bnd_optimizer_options){.kind = kind ? BND_SGD : BND_ADAMW, .momentum = momentum, .nesterov = nesterov != 0}, parameters, 2);
    for (int step = 0; step < 20; step++) {
      for (int i = 0; i < A + B; i++) {
        const double u = 8 * next_uniform(&seed) - 4;
        gradient[i] = (float)(u * u * u);
      }
      bnd_optimizer_step(optimizer, (kind ? 1e-2 : 1e-3) * (1 - 0.03 * step), bnd_clip_scale(bnd_gradient_norm(optimizer, 1), most), 1);
    }
    int equal = 0;
    double difference = 0, size = 0;
    for (int i = 0; i < A + B; i++) {
      uint32_t bits;
      float expected;
      assert_int_equal(fscanf(file, "%x", &bits), 1);
      memcpy(&expected, &bits, sizeof expected);
      equal += expected == value[i];
      difference += ((double)expected - (double)value[i]) * ((double)expected - (double)value[i]);
      size += (double)expected * (double)expected;
    }
    if (kind == 1 && most == 0) assert_int_equal(equal, A + B);
    if (kind == 0 && most == 0) assert_true(equal >= 0.97 * (A + B));
    assert_true(sqrt(difference / size) < 2e-7);
    bnd_optimizer_destroy(optimizer);
    cases++;
  }
  assert_int_equal(cases, 6);
  fclose(file);
}

static void clipping(void **state) {
  (void)state;
  float value[3] = {0}, gradient[3] = {3, 4, 12};
  const bnd_optimizer_parameter parameters[2] = {{value, gradient, 2, 0, 0}, {value + 2, gradient + 2, 1, 0, 0}};
  bnd_optimizer *optimizer = make(&(bnd_optimizer_options){.kind = BND_SGD}, parameters, 2);
  assert_true(bnd_gradient_norm(optimizer, 2) == 13);
  assert_true(bnd_clip_scale(13, 0) == 1 && bnd_clip_scale(13, 26) == 1 && bnd_clip_scale(0, 1) == 1);
  assert_true(fabs((double)bnd_clip_scale(13, 6.5) - 0.5) < 1e-7);
  bnd_optimizer_step(optimizer, 1, 0.5f, 1);
  assert_true(value[0] == -1.5f && value[1] == -2 && value[2] == -6);
  gradient[1] = NAN;
  assert_true(isnan(bnd_gradient_norm(optimizer, 2)));
  bnd_optimizer_destroy(optimizer);
}

enum { MANY = 100003 };

static void draw_gradient(float *gradient, uint32_t *seed) {
  for (int i = 0; i < MANY; i++) gradient[i] = (float)(next_uniform(seed) - 0.5);
}

/* Threads, and going on from a saved state, leave no trace. */
static void same_for_any_threads_and_resumed(void **state) {
  (void)state;
  float *value[2], *gradient = malloc(MANY * sizeof *gradient);
  for (int i = 0; i < 2; i++) value[i] = malloc(MANY * sizeof **value);
  for (int kind = 0; kind < 2; kind++) {
    const bnd_optimizer_options options = {.kind = kind ? BND_SGD : BND_ADAMW, .momentum = 0.9};
    uint32_t seed = 4;
    for (int i = 0; i < MANY; i++) value[0][i] = value[1][i] = (float)(next_uniform(&seed) - 0.5);
    const bnd_optimizer_parameter parameters[2] = {{value[0], gradient, MANY, 0.1, 0}, {value[1], gradient, MANY, 0.1, 0}};
    bnd_optimizer *one = make(&options, &parameters[0], 1), *many = make(&options, &parameters[1], 1);
    for (int step = 0; step < 6; step++) {
      draw_gradient(gradient, &seed);
      const double norm = bnd_gradient_norm(one, 1);
      assert_true(norm == bnd_gradient_norm(many, 5));
      bnd_optimizer_step(one, 1e-2, bnd_clip_scale(norm, 10), 1);
      bnd_optimizer_step(many, 1e-2, bnd_clip_scale(norm, 10), step % 2 ? 5 : 2);
      if (step != 2) continue;
      bnd_optimizer *next = make(&options, &parameters[1], 1);
      const bnd_optimizer_state from = bnd_optimizer_get_state(many, 0), to = bnd_optimizer_get_state(next, 0);
      assert_true(from.count == MANY && to.count == MANY);
      memcpy(to.first, from.first, MANY * sizeof(float));
      assert_int_equal(from.second != NULL, kind == 0);
      if (from.second) memcpy(to.second, from.second, MANY * sizeof(float));
      bnd_optimizer_set_steps(next, bnd_optimizer_steps(many));
      bnd_optimizer_destroy(many);
      many = next;
    }
    assert_memory_equal(value[0], value[1], MANY * sizeof(float));
    bnd_optimizer_destroy(one);
    bnd_optimizer_destroy(many);
  }
  free(value[0]);
  free(value[1]);
  free(gradient);
}

static void without_parameters(void **state) {
  (void)state;
  bnd_optimizer *optimizer = make(&(bnd_optimizer_options){.kind = BND_SGD}, NULL, 0);
  bnd_optimizer_step(optimizer, 1, 1, 2);
  assert_true(bnd_gradient_norm(optimizer, 2) == 0);
  bnd_optimizer_destroy(optimizer);
  bnd_optimizer_destroy(NULL);
  const bnd_optimizer_parameter huge[2] = {{NULL, NULL, SIZE_MAX, 0, 0}, {NULL, NULL, 1, 0, 0}};
  bnd_error error = {0};
  assert_int_equal(bnd_optimizer_create(&(bnd_optimizer_options){.kind = BND_ADAMW}, huge, 2, &optimizer, &error), BND_ERROR_MEMORY);
  assert_null(optimizer);
}

/* ---- averages ---- */

/* 4.5: 0.1818 at step 1, 0.55 at 10, 0.9997 from 29 990 on. */
static void decays(void **state) {
  (void)state;
  const bnd_decay threshold = {BND_DECAY_THRESHOLD, 0.9997, 0}, exponential = {BND_DECAY_EXP, 0.9999, 15}, constant = {BND_DECAY_CONSTANT, 0.9, 0};
  assert_true(bnd_decay_at(&threshold, 1, 100) == 2.0 / 11);
  assert_true(bnd_decay_at(&threshold, 10, 100) == 0.55);
  assert_true(bnd_decay_at(&threshold, 29980, 0) < 0.9997);
  assert_true(bnd_decay_at(&threshold, 29990, 0) == 0.9997);
  assert_true(fabs(bnd_decay_at(&exponential, 20, 100) - 0.9999 * (1 - exp(-3))) < 1e-11);
  assert_true(fabs(bnd_decay_at(&exponential, 100000, 100) - 0.9999) < 1e-11);
  assert_true(bnd_decay_at(&constant, 3, 100) == 0.9);
}

static void moving_average(void **state) {
  (void)state;
  float a[3] = {1, 2, 3}, b[1] = {-1}, x[3] = {2, 4, 8}, y[1] = {0.3f};
  const bnd_floats averages[2] = {{a, 3}, {b, 1}}, values[2] = {{x, 3}, {y, 1}};
  bnd_average_update(averages, values, 2, 0.75, 2);
  assert_true(a[0] == 1.25f && a[1] == 2.5f && a[2] == 4.25f);
  assert_true(b[0] == -0.75f + 0.25f * 0.3f);
}

static void best_snapshots(void **state) {
  (void)state;
  float x[2], mean[2];
  const bnd_floats arrays[2] = {{x, 1}, {x + 1, 1}}, means[2] = {{mean, 1}, {mean + 1, 1}};
  for (int greater = 0; greater < 2; greater++) {
    const double metrics[] = {0.3, NAN, 0.5, 0.1, 0.4, INFINITY, 0.1, 0.45};
    const int kept_when_greater[] = {1, 0, 1, 1, 1, 0, 0, 1}, kept_when_smaller[] = {1, 0, 1, 1, 1, 0, 1, 0};
    bnd_snapshots *snapshots;
    assert_int_equal(bnd_snapshots_create(3, greater, arrays, 2, &snapshots, NULL), BND_OK);
    assert_false(bnd_snapshots_average(snapshots, means));
    for (int i = 0; i < 8; i++) {
      bool kept;
      x[0] = (float)i;
      x[1] = (float)(10 * i);
      assert_int_equal(bnd_snapshots_offer(snapshots, metrics[i], arrays, &kept, NULL), BND_OK);
      assert_int_equal(kept, greater ? kept_when_greater[i] : kept_when_smaller[i]);
    }
    /* greater: 0.45 (7), 0.5 (2), 0.4 (4); smaller: 0.3 (0), 0.1 (6), 0.1 (3): each new one takes the worst one's place */
    const int places[2][3] = {{0, 6, 3}, {7, 2, 4}};
    assert_int_equal(bnd_snapshots_count(snapshots), 3);
    for (size_t i = 0; i < 3; i++) {
      assert_true(bnd_snapshots_state(snapshots, i)[0].values[0] == (float)places[greater][i]);
      assert_true(bnd_snapshots_metric(snapshots, i) == metrics[places[greater][i]]);
    }
    assert_true(bnd_snapshots_average(snapshots, means));
    const float first = (float)places[greater][0], second = (float)places[greater][1], third = (float)places[greater][2];
    assert_true(mean[0] == ((first * 1 + second) / 2 * 2 + third) / 3);
    assert_true(mean[1] == ((10 * first * 1 + 10 * second) / 2 * 2 + 10 * third) / 3);
    bnd_snapshots_destroy(snapshots);
  }
  bnd_snapshots_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reference_steps),    cmocka_unit_test(as_pytorch), cmocka_unit_test(clipping),
      cmocka_unit_test(same_for_any_threads_and_resumed), cmocka_unit_test(without_parameters),
      cmocka_unit_test(decays),             cmocka_unit_test(moving_average), cmocka_unit_test(best_snapshots),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
