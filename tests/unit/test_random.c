#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"

/* The known-answer vectors published with the paper's library, Random123 (kat_vectors: philox4x32 10). */
static void philox_equals_the_published_vectors(void **state) {
  (void)state;
  static const struct {
    uint32_t counter[4], key[2], output[4];
  } vectors[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    uint32_t output[4];
    bnd_philox(vectors[i].counter, vectors[i].key, output);
    assert_memory_equal(output, vectors[i].output, sizeof output);
  }
}

static void a_stream_is_the_blocks_of_its_counter(void **state) {
  (void)state;
  const uint64_t seed = 0x299f31d0a4093822u;
  bnd_random random = bnd_random_stream(seed, 0x13198a2e, 0x03707344, 0x85a308d3);
  for (uint32_t block = 0; block < 3; block++) {
    uint32_t words[4];
    bnd_philox((const uint32_t[4]){block, 0x85a308d3, 0x13198a2e, 0x03707344}, (const uint32_t[2]){0xa4093822, 0x299f31d0}, words);
    for (int i = 0; i < 4; i++) assert_int_equal(bnd_random_u32(&random), words[i]);
  }
}

static void names_of_streams_matter_one_by_one(void **state) {
  (void)state;
  bnd_random streams[5] = {bnd_random_stream(1, 2, 3, 4), bnd_random_stream(1ull << 32 | 1, 2, 3, 4), bnd_random_stream(1, 3, 3, 4),
                           bnd_random_stream(1, 2, 4, 4), bnd_random_stream(1, 2, 3, 5)};
  uint64_t first[5];
  for (int i = 0; i < 5; i++) {
    first[i] = bnd_random_u64(&streams[i]);
    for (int k = 0; k < i; k++) assert_true(first[i] != first[k]);
  }
  bnd_random again = bnd_random_stream(1, 2, 3, 4);
  assert_true(bnd_random_u64(&again) == first[0]);
}

/* Moments and borders. */
static void uniform_numbers_are_uniform(void **state) {
  (void)state;
  enum { DRAWS = 100000, BINS = 20 };
  bnd_random random = bnd_random_stream(7, 0, 0, 0);
  double sum = 0, squares = 0;
  int bins[BINS] = {0}, low_bit = 0;
  for (int i = 0; i < DRAWS; i++) {
    const double u = bnd_random_uniform(&random);
    assert_true(u >= 0 && u < 1);
    assert_true(u * 0x1p53 == (double)(uint64_t)(u * 0x1p53));
    low_bit += (uint64_t)(u * 0x1p53) & 1;
    sum += u;
    squares += u * u;
    bins[(int)(u * BINS)]++;
  }
  assert_true(sum / DRAWS > 0.497 && sum / DRAWS < 0.503);
  assert_true(squares / DRAWS > 0.330 && squares / DRAWS < 0.337);
  assert_true(low_bit > 0.49 * DRAWS && low_bit < 0.51 * DRAWS);
  double chi = 0;
  for (int i = 0; i < BINS; i++) chi += (bins[i] - (double)DRAWS / BINS) * (bins[i] - (double)DRAWS / BINS) * BINS / DRAWS;
  assert_true(chi < 43.8); /* one in a thousand, 19 degrees of freedom */
  for (int i = 0; i < 1000; i++) {
    assert_false(bnd_random_chance(&random, 0));
    assert_true(bnd_random_chance(&random, 1));
    const double x = bnd_random_between(&random, -3, 5);
    assert_true(x >= -3 && x < 5);
  }
  assert_true(bnd_random_between(&random, 0.25, 0.25) == 0.25);
}

/* 3 * 2^62 is where a plain remainder would take a third of the range half as often again: of 2^64 numbers the lowest 2^62 come twice. */
static void integers_have_no_bias(void **state) {
  (void)state;
  bnd_random random = bnd_random_stream(1, 1, 1, 1);
  const uint64_t count = 3ull << 62;
  int thirds[3] = {0};
  for (int i = 0; i < 30000; i++) {
    const uint64_t value = bnd_random_below(&random, count);
    assert_true(value < count);
    thirds[value >> 62]++;
  }
  for (int i = 0; i < 3; i++) assert_true(thirds[i] > 9700 && thirds[i] < 10300);
  bool seen[5] = {false};
  for (int i = 0; i < 200; i++) seen[bnd_random_below(&random, 5)] = true;
  for (int i = 0; i < 5; i++) assert_true(seen[i]);
  assert_true(bnd_random_below(&random, 1) == 0 && bnd_random_below(&random, 0) == 0);
}

/* All 24 orders of four things, by both ways; 23 degrees of freedom, one in a thousand. */
static double chi_of_orders(bool permuted) {
  enum { TRIALS = 24000 };
  int seen[256] = {0};
  for (uint32_t trial = 0; trial < TRIALS; trial++) {
    bnd_random random = bnd_random_stream(11, trial, 0, 0);
    size_t items[4] = {0, 1, 2, 3};
    if (permuted)
      for (size_t i = 0; i < 4; i++) items[i] = (size_t)bnd_random_permuted(&random, 4, i);
    else
      bnd_random_shuffle(&random, items, 4);
    seen[items[0] << 6 | items[1] << 4 | items[2] << 2 | items[3]]++;
  }
  double chi = 0;
  int orders = 0;
  for (int i = 0; i < 256; i++) {
    if (!seen[i]) continue;
    orders++;
    chi += (seen[i] - TRIALS / 24.) * (seen[i] - TRIALS / 24.) / (TRIALS / 24.);
  }
  assert_int_equal(orders, 24);
  return chi;
}

static void every_order_is_equally_likely(void **state) {
  (void)state;
  assert_true(chi_of_orders(false) < 49.8);
  assert_true(chi_of_orders(true) < 49.8);
}

static void permuted_is_a_bijection(void **state) {
  (void)state;
  static const size_t counts[] = {1, 2, 3, 17, 1000, 4096};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    const size_t count = counts[i];
    const bnd_random order = bnd_random_stream(3, (uint32_t)i, 0, 9), next = bnd_random_stream(3, (uint32_t)i + 1, 0, 9);
    char *seen = calloc(count, 1);
    size_t fixed = 0, same = 0;
    for (size_t k = 0; k < count; k++) {
      const uint64_t to = bnd_random_permuted(&order, count, k);
      assert_true(to < count && !seen[to]);
      seen[to] = 1;
      fixed += to == k;
      same += to == bnd_random_permuted(&next, count, k);
    }
    if (count >= 1000) assert_true(fixed < 10 && same < 10);
    free(seen);
  }
  const bnd_random order = bnd_random_stream(3, 0, 0, 0);
  assert_true(bnd_random_permuted(&order, UINT64_MAX, UINT64_MAX - 1) < UINT64_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_equals_the_published_vectors),
      cmocka_unit_test(a_stream_is_the_blocks_of_its_counter),
      cmocka_unit_test(names_of_streams_matter_one_by_one),
      cmocka_unit_test(uniform_numbers_are_uniform),
      cmocka_unit_test(integers_have_no_bias),
      cmocka_unit_test(every_order_is_equally_likely),
      cmocka_unit_test(permuted_is_a_bijection),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
