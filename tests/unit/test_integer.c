/* Whole-number convolutions against the plain float loops (exact on small numbers), requantization against its definition: docs/numerics.md, 2 and 3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/random.h"
#include "kernels/reference/integer.h"

enum { LOW = -128, HIGH = 127 };

/* In the nearest-even rounding of long double, whose 64 bits hold every value here. */
static int defined(int64_t value, int shift) {
  const long double rounded = rintl(ldexpl((long double)value, -shift));
  return rounded < LOW ? LOW : rounded > HIGH ? HIGH : (int)rounded;
}

static void requantization_is_its_definition(void **state) {
  (void)state;
  for (int64_t value = -5000; value <= 5000; value++)
    for (int shift = -20; shift <= 20; shift++) assert_int_equal(bnd_requantize(value, shift, LOW, HIGH), defined(value, shift));
  bnd_random random = bnd_random_stream(1, 0, 0, 0);
  for (int i = 0; i < 200000; i++) {
    const int64_t value = (int64_t)(bnd_random_u64(&random) >> (2 + bnd_random_below(&random, 60))) * (bnd_random_chance(&random, 0.5) ? 1 : -1);
    const int shift = (int)bnd_random_below(&random, 70);
    assert_int_equal(bnd_requantize(value, shift, LOW, HIGH), defined(value, shift));
    const int64_t tie = ((int64_t)bnd_random_below(&random, 600) - 300) * 2 + 1; /* halves, at every shift */
    assert_int_equal(bnd_requantize(tie * ((int64_t)1 << (shift % 40)), shift % 40 + 1, LOW, HIGH), defined(tie, 1));
  }
  const int64_t ends[] = {INT64_MAX / 2, -(INT64_MAX / 2), ((int64_t)1 << 61) - 1, 1, -1, 0};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    for (int shift = -300; shift <= 300; shift++)
      assert_int_equal(bnd_requantize(ends[i], shift, LOW, HIGH), defined(ends[i], shift));
}

static int16_t *codes(bnd_random *random, const bnd_shape *shape, int low, int high, float **floats) {
  size_t count;
  assert_true(bnd_shape_count(shape, &count));
  int16_t *made = malloc(count * sizeof *made + 1);
  *floats = malloc(count * sizeof **floats + 1);
  assert_true(made && *floats);
  for (size_t i = 0; i < count; i++) (*floats)[i] = made[i] = (int16_t)(low + (int)bnd_random_below(random, (uint64_t)(high - low + 1)));
  return made;
}

static void compare(const bnd_kernel *kernel, bnd_random *random, const bnd_shape *x, const bnd_shape *w, const bnd_shape *to) {
  float *fx, *fw;
  size_t count;
  assert_true(bnd_shape_count(to, &count));
  int16_t *ix = codes(random, x, -128, 127, &fx), *iw = codes(random, w, -128, 127, &fw);
  int64_t *sums = malloc(count * sizeof *sums);
  float *expected = malloc(count * sizeof *expected);
  assert_true(sums && expected);
  bnd_integer_convolution(kernel, &(bnd_integers){*x, ix}, &(bnd_integers){*w, iw}, to, sums);
  const bnd_array inputs[] = {{*x, fx}, {*w, fw}}, output = {*to, expected};
  bnd_reference_kernel(kernel->id)(kernel, inputs, 2, &output, 1);
  for (size_t i = 0; i < count; i++) assert_true((float)sums[i] == expected[i]);
  free(ix);
  free(iw);
  free(fx);
  free(fw);
  free(sums);
  free(expected);
}

static int64_t between(bnd_random *random, int64_t low, int64_t high) {
  return low + (int64_t)bnd_random_below(random, (uint64_t)(high - low + 1));
}

static void convolutions_of_all_shapes(void **state) {
  (void)state;
  bnd_random random = bnd_random_stream(2, 0, 0, 0);
  for (int run = 0; run < 300; run++) {
    bnd_kernel kernel = {.id = BND_OP_CONV2D, .groups = between(&random, 1, 3), .threads = 1 + run % 2};
    bnd_shape x = {.rank = 4}, w = {.rank = 4}, to = {.rank = 4};
    to.size[0] = x.size[0] = between(&random, 1, 2);
    w.size[1] = between(&random, 1, 6);
    x.size[1] = w.size[1] * kernel.groups;
    w.size[0] = to.size[1] = kernel.groups * between(&random, 1, 4);
    for (int d = 0; d < 2; d++) {
      w.size[2 + d] = between(&random, 1, run % 3 ? 4 : 1);
      kernel.stride[d] = between(&random, 1, run % 4 ? 3 : 1);
      kernel.dilation[d] = between(&random, 1, 2);
      kernel.padding[d] = run % 5 ? between(&random, 0, 3) : 0;
      const int64_t reach = kernel.dilation[d] * (w.size[2 + d] - 1) + 1;
      x.size[2 + d] = between(&random, reach, reach + 90 / (1 + 8 * !d));
      to.size[2 + d] = (x.size[2 + d] + 2 * kernel.padding[d] - reach) / kernel.stride[d] + 1;
    }
    compare(&kernel, &random, &x, &w, &to);
  }
}

static void transposed_convolutions_of_all_shapes(void **state) {
  (void)state;
  bnd_random random = bnd_random_stream(3, 0, 0, 0);
  for (int run = 0; run < 200; run++) {
    bnd_kernel kernel = {.id = BND_OP_CONV_TRANSPOSE2D, .groups = between(&random, 1, 3), .threads = 1 + run % 2};
    bnd_shape x = {.rank = 4}, w = {.rank = 4}, to = {.rank = 4};
    to.size[0] = x.size[0] = between(&random, 1, 2);
    w.size[0] = x.size[1] = kernel.groups * between(&random, 1, 4);
    w.size[1] = between(&random, 1, 4);
    to.size[1] = w.size[1] * kernel.groups;
    for (int d = 0; d < 2; d++) {
      w.size[2 + d] = between(&random, 1, 4);
      kernel.stride[d] = between(&random, 1, 3);
      kernel.dilation[d] = between(&random, 1, 2);
      x.size[2 + d] = between(&random, 3, 12);
      const int64_t whole = (x.size[2 + d] - 1) * kernel.stride[d] + kernel.dilation[d] * (w.size[2 + d] - 1) + 1;
      kernel.padding[d] = between(&random, 0, 1);
      to.size[2 + d] = whole - 2 * kernel.padding[d];
    }
    compare(&kernel, &random, &x, &w, &to);
  }
}

static void linear_layers(void **state) {
  (void)state;
  bnd_random random = bnd_random_stream(4, 0, 0, 0);
  const bnd_kernel kernel = {.id = BND_OP_LINEAR, .threads = 2};
  compare(&kernel, &random, &BND_SHAPE(7, 19), &BND_SHAPE(5, 19), &BND_SHAPE(7, 5));
  compare(&kernel, &random, &BND_SHAPE(2, 3, 8), &BND_SHAPE(1, 8), &BND_SHAPE(2, 3, 1));
  compare(&kernel, &random, &BND_SHAPE(11), &BND_SHAPE(4, 11), &BND_SHAPE(4));
}

/* More products of the largest size than 32 bits hold. */
static void long_sums_do_not_overflow(void **state) {
  (void)state;
  enum { CHANNELS = 70000 };
  int16_t *x = malloc(CHANNELS * sizeof *x);
  assert_non_null(x);
  for (int i = 0; i < CHANNELS; i++) x[i] = -255;
  int64_t sum;
  const bnd_kernel kernel = {.id = BND_OP_CONV2D, .groups = 1, .stride = {1, 1}, .dilation = {1, 1}, .threads = 1};
  const bnd_shape shape = BND_SHAPE(1, CHANNELS, 1, 1);
  bnd_integer_convolution(&kernel, &(bnd_integers){shape, x}, &(bnd_integers){shape, x}, &BND_SHAPE(1, 1, 1, 1), &sum);
  assert_int_equal(sum, (int64_t)CHANNELS * 255 * 255);
  free(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(requantization_is_its_definition), cmocka_unit_test(convolutions_of_all_shapes),
      cmocka_unit_test(transposed_convolutions_of_all_shapes), cmocka_unit_test(linear_layers), cmocka_unit_test(long_sums_do_not_overflow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
