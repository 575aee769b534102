/* Observers and fake quantization against closed forms and the definitions of fx-quantization sections 5 and 6. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/quantizer.h"

static const bnd_quantizer_spec MIN_MAX = {.dtype = BND_I8, .observer = BND_OBSERVER_POWER_OF_TWO_MIN_MAX};

static int position_for(float amplitude) {
  int position, zero_point;
  bnd_power_of_two_parameters(&MIN_MAX, -amplitude, amplitude / 2, &position, &zero_point);
  assert_int_equal(zero_point, 0);
  return position;
}

/* Position p holds for 127.5 * 2^(-p-0.5) < a < 127.5 * 2^(-p+0.5). */
static void position_is_nearest_in_the_log_domain(void **state) {
  (void)state;
  for (int p = -12; p <= 30; p++) {
    const double low = 127.5 * exp2(-p - 0.5), high = 127.5 * exp2(-p + 0.5);
    assert_int_equal(position_for((float)(low * 1.0001)), p);
    assert_int_equal(position_for((float)(high * 0.9999)), p);
  }
  assert_int_equal(position_for(1.f), 7);
  assert_int_equal(position_for(79.5f), 1);
  assert_int_equal(position_for(640.f), -2);
}

static void zero_range_keeps_the_originals_edge_case(void **state) {
  (void)state;
  int position, zero_point;
  bnd_power_of_two_parameters(&MIN_MAX, 0.f, 0.f, &position, &zero_point);
  assert_int_equal(position, 0);
  assert_int_equal(zero_point, -128);
  const bnd_quantizer_spec unsigned_spec = {.dtype = BND_U8};
  bnd_power_of_two_parameters(&unsigned_spec, 0.f, 1.f, &position, &zero_point);
  assert_int_equal(zero_point, 128);
}

static void vote(bnd_quantizer *q, float amplitude) {
  const float low = -amplitude;
  assert_int_equal(bnd_observer_widen(q, 1, &low, &amplitude, NULL), BND_OK);
  assert_int_equal(bnd_observer_commit(q, NULL, NULL), BND_OK);
}

/* The running range grows; the result is the most frequent vote, the earlier one on a tie. */
static void most_frequent_vote_wins(void **state) {
  (void)state;
  bnd_quantizer *q = bnd_quantizer_create(&MIN_MAX);
  vote(q, 1.f);  /* 7 */
  vote(q, 4.f);  /* 5 */
  vote(q, 0.1f); /* 5: the range never shrinks */
  vote(q, 20.f); /* 3 */
  assert_int_equal(bnd_quantizer_finish(q, NULL), BND_OK);
  assert_int_equal(q->position[0], 5);
  assert_float_equal(q->maximum[0], 20.f, 0);
  bnd_quantizer_destroy(q);
  q = bnd_quantizer_create(&MIN_MAX);
  vote(q, 1.f);
  vote(q, 4.f);
  assert_int_equal(bnd_quantizer_finish(q, NULL), BND_OK);
  assert_int_equal(q->position[0], 7);
  bnd_quantizer_destroy(q);
}

static void not_finite_values_are_refused(void **state) {
  (void)state;
  bnd_quantizer *q = bnd_quantizer_create(&MIN_MAX);
  const float low = 0.f, high = INFINITY;
  bnd_error error;
  assert_int_equal(bnd_observer_widen(q, 1, &low, &high, NULL), BND_OK);
  assert_int_equal(bnd_observer_commit(q, NULL, &error), BND_ERROR_MODEL);
  assert_non_null(strstr(error.message, "not finite"));
  bnd_quantizer_destroy(q);
}

/* y = clamp(rne(x * 2^p), -128, 127) * 2^-p, with nearbyint as the judge, over every tie and both ends. */
static void fake_quantization_rounds_half_to_even_and_saturates(void **state) {
  (void)state;
  bnd_quantizer *q = bnd_quantizer_create(&MIN_MAX);
  enum { COUNT = 4097 };
  float x[COUNT], y[COUNT];
  for (int p = -3; p <= 9; p += 3) {
    q->position[0] = p;
    for (int i = 0; i < COUNT; i++) x[i] = ldexpf((float)(i - 2048) / 8.f, -p);
    bnd_fake_quantize(q, x, y, 1, COUNT);
    for (int i = 0; i < COUNT; i++) {
      double expected = nearbyint(ldexp((double)x[i], p));
      expected = expected < -128 ? -128 : expected > 127 ? 127 : expected;
      assert_true((double)y[i] == ldexp(expected, -p));
    }
  }
  float special[] = {NAN, 1e30f, -1e30f};
  q->position[0] = 0;
  bnd_fake_quantize(q, special, special, 1, 3);
  assert_true(isnan(special[0]));
  assert_true(special[1] == 127.f && special[2] == -128.f);
  bnd_quantizer_destroy(q);
}

static void per_channel_scales_are_independent(void **state) {
  (void)state;
  const bnd_quantizer_spec spec = {.dtype = BND_I8, .per_channel = true, .channel_axis = 0};
  bnd_tensor weight, rounded;
  assert_int_equal(bnd_tensor_create(BND_F32, &BND_SHAPE(3, 2), &weight, NULL), BND_OK);
  const float values[] = {1.f, -0.3f, 0.01f, 0.004f, 100.f, 3.f};
  memcpy(weight.data, values, sizeof values);
  bnd_quantizer *q = bnd_quantizer_create(&spec);
  assert_int_equal(bnd_observe_tensor(q, &weight, NULL), BND_OK);
  assert_int_equal(bnd_quantizer_finish(q, NULL), BND_OK);
  assert_int_equal(q->channels, 3);
  assert_int_equal(q->position[0], 7);
  assert_int_equal(q->position[1], (int)rint(-log2(0.01 / 127.5)));
  assert_int_equal(q->position[2], 0);
  assert_int_equal(bnd_fake_quantize_tensor(q, &weight, &rounded, NULL), BND_OK);
  assert_true(bnd_f32(&rounded)[0] == 127.f / 128.f); /* 128 saturates */
  assert_true(bnd_f32(&rounded)[4] == 100.f);
  bnd_tensor_release(&weight);
  bnd_tensor_release(&rounded);
  bnd_quantizer_destroy(q);
}

/* The position that minimizes the error, found by brute force in double, first of equals from coarse to fine. */
static void least_error_is_found(void **state) {
  (void)state;
  const bnd_quantizer_spec spec = {.dtype = BND_I8, .observer = BND_OBSERVER_POWER_OF_TWO_MIN_MSE};
  unsigned seed = 1;
  for (int round = 0; round < 50; round++) {
    bnd_tensor x;
    enum { COUNT = 333 };
    assert_int_equal(bnd_tensor_create(BND_F32, &BND_SHAPE(COUNT), &x, NULL), BND_OK);
    float largest = 0;
    for (int i = 0; i < COUNT; i++) {
      seed = seed * 1664525u + 1013904223u;
      const float u = (float)(seed >> 8) / 16777216.f - 0.5f;
      bnd_f32(&x)[i] = u * u * u * (round % 7 == 0 && i == 5 ? 400.f : 10.f); /* now and then an outlier */
      largest = fmaxf(largest, fabsf(bnd_f32(&x)[i]));
    }
    bnd_quantizer *q = bnd_quantizer_create(&spec);
    assert_int_equal(bnd_observe_tensor(q, &x, NULL), BND_OK);
    assert_int_equal(bnd_quantizer_finish(q, NULL), BND_OK);
    int best = 0;
    double least = INFINITY;
    for (int p = position_for(largest) - 2; p <= position_for(largest) + 2; p++) {
      double sum = 0;
      for (int i = 0; i < COUNT; i++) {
        const double v = (double)bnd_f32(&x)[i], n = fmin(fmax(nearbyint(ldexp(v, p)), -128), 127), d = ldexp(n, -p) - v;
        sum += d * d;
      }
      if (sum < least) {
        least = sum;
        best = p;
      }
    }
    assert_int_equal(q->position[0], best);
    bnd_quantizer_destroy(q);
    bnd_tensor_release(&x);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(position_is_nearest_in_the_log_domain), cmocka_unit_test(zero_range_keeps_the_originals_edge_case),
      cmocka_unit_test(most_frequent_vote_wins),               cmocka_unit_test(not_finite_values_are_refused),
      cmocka_unit_test(fake_quantization_rounds_half_to_even_and_saturates), cmocka_unit_test(per_channel_scales_are_independent),
      cmocka_unit_test(least_error_is_found),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
