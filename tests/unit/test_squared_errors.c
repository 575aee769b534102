/* Squared quantization errors over layouts, against one value at a time in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "kernels/loops/loops.h"

enum { CHANNELS = 21, HEIGHT = 13, WIDTH = 29, PIXELS = HEIGHT * WIDTH, COUNT = CHANNELS * PIXELS, ROOM = 32 * PIXELS };

static float plain[COUNT], blocked[ROOM];

static float fill(float spread) {
  bnd_random random = bnd_random_stream(7, 0, 0, 0);
  float bound = 0;
  for (size_t i = 0; i < COUNT; i++) {
    plain[i] = (float)(bnd_random_uniform(&random) - 0.3) * spread;
    bound = fmaxf(bound, fabsf(plain[i]));
  }
  return bound;
}

static double one_by_one(int position, double low, double high) {
  double sum = 0;
  for (size_t i = 0; i < COUNT; i++) {
    const double code = fmin(fmax(rint(ldexp((double)plain[i], position)), low), high), error = ldexp(code, -position) - (double)plain[i];
    sum += error * error;
  }
  return sum;
}

static void errors_in(size_t block, const bnd_error_grids *grids, double *errors) {
  bnd_layout layout = {1, CHANNELS, HEIGHT, WIDTH, block};
  if (block) bnd_loop_to_blocked(plain, &layout, blocked, 1);
  bnd_loop_squared_errors(block ? blocked : plain, &layout, grids, errors);
}

static void any_layout(void **state) {
  (void)state;
  const float bound = fill(3.f); /* position 6: 2.1 * 64 = 134, so that 5 clips nothing and 6 does */
  for (int first = -6; first <= 6; first += 4) {
    const bnd_error_grids grids = {.first = first, .count = 5, .low = -128, .high = 127, .bound = bound};
    double errors[3][BND_MOST_GRIDS];
    const size_t blocks[3] = {0, 8, 16};
    for (int b = 0; b < 3; b++) errors_in(blocks[b], &grids, errors[b]);
    for (int g = 0; g < grids.count; g++) {
      const double expected = one_by_one(first + g, -128, 127);
      for (int b = 0; b < 3; b++) assert_true(fabs(errors[b][g] - expected) <= 2e-6 * expected);
      assert_true(errors[1][g] == errors[2][g]);
    }
  }
}

static void coarsest_left_out(void **state) {
  (void)state;
  double all[BND_MOST_GRIDS], some[BND_MOST_GRIDS];
  bnd_error_grids grids = {.first = 2, .count = 5, .low = -128, .high = 127, .bound = fill(3.f)};
  errors_in(8, &grids, all);
  grids.skip_first = true;
  errors_in(8, &grids, some);
  assert_true(isinf(some[0]));
  for (int g = 1; g < grids.count; g++) assert_true(some[g] == all[g]);
  /* on the coarsest grid already: as good as the next, and so not left out */
  for (size_t i = 0; i < COUNT; i++) plain[i] = (float)(i % 7) * 0.25f;
  grids.bound = 1.5f;
  errors_in(8, &grids, some);
  assert_true(some[0] == 0 && some[1] == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(any_layout), cmocka_unit_test(coarsest_left_out)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
