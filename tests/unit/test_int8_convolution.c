/* int8 convolutions on oneDNN against sums in 64-bit integers: the same bytes for any shape, stride, padding, exponents and number of threads, also
   where oneDNN may use only the instructions of older processors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "exec/integers.h"
#include "kernels/onednn/int8.h"

enum { GUARD = 64, UNTOUCHED = 0x5a, FLOAT_BITS = 24 };

/* x and weight are worth q * 2^-position, so a unit of the sum is worth 2^-(x + weight position). */
typedef struct problem {
  bnd_convolution_shape shape;
  bool non_negative, has_bias;
  int8_t *x, *weight; /* [images][in height][in width][in], [out][in][window] */
  int *bias;          /* [out] */
  int x_position, y_position;
  int *weight_position, *bias_position; /* [out] */
  bool one_scale;                       /* all weight positions are equal */
  int low, high, threads;
} problem;

static void *memory(size_t count, size_t size) {
  void *result = bnd_alloc_aligned(count ? count : 1, size);
  assert_non_null(result);
  return result;
}

static void assert_ok(bnd_status status, const bnd_error *error) {
  if (status != BND_OK) fail_msg("%s", error->message);
}

/* --- problems --- */

static int between(bnd_random *random, int low, int high) {
  return low + (int)bnd_random_below(random, (uint64_t)(high - low + 1));
}

static bnd_convolution_shape some_shape(bnd_random *random) {
  static const int64_t windows[] = {1, 1, 2, 3, 3, 3, 4, 5};
  bnd_convolution_shape s = {
      .images = (size_t)between(random, 1, 3), .in_channels = (size_t)between(random, 1, 70), .out_channels = (size_t)between(random, 1, 70)};
  int64_t in[2], out[2];
  for (int i = 0; i < 2; i++) {
    s.window[i] = i && bnd_random_chance(random, 0.8) ? s.window[0] : windows[between(random, 0, 7)];
    s.stride[i] = i && bnd_random_chance(random, 0.8) ? s.stride[0] : between(random, 1, bnd_random_chance(random, 0.1) ? 3 : 2);
    s.dilation[i] = bnd_random_chance(random, 0.1) ? 2 : 1;
    s.padding[i] = bnd_random_chance(random, 0.5) ? s.window[i] / 2 : between(random, 0, (int)s.window[i] - 1);
    const int64_t reach = (s.window[i] - 1) * s.dilation[i] + 1;
    do in[i] = between(random, 1, 18);
    while (in[i] + 2 * s.padding[i] < reach);
    out[i] = (in[i] + 2 * s.padding[i] - reach) / s.stride[i] + 1;
  }
  s.in_height = (size_t)in[0], s.in_width = (size_t)in[1], s.out_height = (size_t)out[0], s.out_width = (size_t)out[1];
  return s;
}

static size_t row_of(const bnd_convolution_shape *s) {
  return s->in_channels * (size_t)(s->window[0] * s->window[1]);
}
static size_t x_count(const bnd_convolution_shape *s) {
  return s->images * s->in_channels * s->in_height * s->in_width;
}
static size_t y_count(const bnd_convolution_shape *s) {
  return s->images * s->out_channels * s->out_height * s->out_width;
}

/* `ends`: only the ends of the range, where sums in 16 bits would saturate. */
static void fill_bytes(bnd_random *random, int8_t *bytes, size_t count, int low, int high, bool ends) {
  for (size_t i = 0; i < count; i++)
    bytes[i] = (int8_t)(ends || bnd_random_chance(random, 0.1) ? (bnd_random_chance(random, 0.5) ? low : high) : between(random, low, high));
}

/* Sums need no more than the bits of a float when counted in the finer of their own units and those of the bias: issue 5's bound. */
static bool fits_float(const problem *p, size_t out) {
  const size_t row = row_of(&p->shape);
  const int unit = p->x_position + p->weight_position[out], finer = p->has_bias ? p->bias_position[out] - unit : 0;
  if (finer > FLOAT_BITS || finer < -FLOAT_BITS) return p->has_bias && p->bias[out] == 0;
  double sum = 0;
  for (size_t i = 0; i < row; i++) sum += abs(p->weight[out * row + i]);
  sum *= ldexp(p->non_negative ? 127 : 128, finer > 0 ? finer : 0);
  if (p->has_bias) sum += ldexp(abs(p->bias[out]), finer < 0 ? -finer : 0);
  return sum < ldexp(1, FLOAT_BITS);
}

/* Smaller weights and a bias of the sum's own unit where the bound does not hold. */
static void make_fit(problem *p, size_t out) {
  const size_t row = row_of(&p->shape);
  if (!fits_float(p, out)) p->bias_position[out] = p->x_position + p->weight_position[out];
  while (!fits_float(p, out))
    for (size_t i = 0; i < row; i++) p->weight[out * row + i] /= 2;
}

static void fill_problem(bnd_random *random, problem *p) {
  const size_t row = row_of(&p->shape), out = p->shape.out_channels;
  const bool small = bnd_random_chance(random, 0.3), ends = bnd_random_chance(random, 0.25); /* small sums meet ties more often */
  fill_bytes(random, p->x, x_count(&p->shape), p->non_negative ? 0 : small ? -3 : -128, small ? 3 : 127, ends);
  fill_bytes(random, p->weight, out * row, small ? -2 : -128, small ? 2 : 127, ends);
  p->x_position = between(random, -20, 30);
  const int common = between(random, -20, 30);
  for (size_t o = 0; o < out; o++) {
    p->weight_position[o] = p->one_scale ? common : between(random, -20, 30);
    p->bias_position[o] = p->x_position + p->weight_position[o] + between(random, -14, 10);
    p->bias[o] = between(random, -128, 127);
    make_fit(p, o);
  }
  const int bits = small ? between(random, -1, 3) : (int)(log2((double)row) / 2) + between(random, 2, 12); /* to lose, of about 7 more */
  p->y_position = bnd_random_chance(random, 0.7) ? p->x_position + p->weight_position[0] - bits : between(random, -20, 30);
}

static problem some_problem(bnd_random *random, bool non_negative) {
  static const int ranges[][2] = {{-128, 127}, {-128, 127}, {0, 127}, {0, 127}, {-8, 7}, {0, 15}, {-128, 0}};
  const int *range = ranges[between(random, 0, 6)];
  problem p = {.shape = some_shape(random),
               .non_negative = non_negative,
               .has_bias = bnd_random_chance(random, 0.8),
               .one_scale = bnd_random_chance(random, 0.6),
               .low = range[0],
               .high = range[1],
               .threads = between(random, 1, 5)};
  const size_t out = p.shape.out_channels;
  p.x = memory(x_count(&p.shape), 1);
  p.weight = memory(out * row_of(&p.shape), 1);
  p.bias = memory(out, sizeof *p.bias);
  p.weight_position = memory(out, sizeof *p.weight_position);
  p.bias_position = memory(out, sizeof *p.bias_position);
  fill_problem(random, &p);
  return p;
}

static void free_problem(problem *p) {
  free(p->x);
  free(p->weight);
  free(p->bias);
  free(p->weight_position);
  free(p->bias_position);
}

/* --- the integers --- */

/* rne(value * 2^-shift), clamped; |value| < 2^62. */
static int shifted(int64_t value, int shift, int low, int high) {
  int64_t result;
  if (shift > 62) {
    result = 0;
  } else if (shift > 0) {
    const int64_t whole = value >> shift, rest = value - whole * ((int64_t)1 << shift), half = (int64_t)1 << (shift - 1);
    result = whole + (rest > half || (rest == half && whole % 2 != 0));
  } else {
    const int64_t most = shift < -10 ? 1024 : (int64_t)1 << -shift;
    result = value > high ? high : value < low ? low : value * most; /* whole numbers beyond a bound stay there */
  }
  return (int)(result > high ? high : result < low ? low : result);
}

static int64_t sum_of(const problem *p, size_t n, size_t row, size_t column, size_t out) {
  const bnd_convolution_shape *s = &p->shape;
  int64_t sum = 0;
  for (int64_t i = 0; i < s->window[0]; i++)
    for (int64_t j = 0; j < s->window[1]; j++) {
      const int64_t y = (int64_t)row * s->stride[0] - s->padding[0] + i * s->dilation[0],
                    x = (int64_t)column * s->stride[1] - s->padding[1] + j * s->dilation[1];
      if (y < 0 || y >= (int64_t)s->in_height || x < 0 || x >= (int64_t)s->in_width) continue;
      const int8_t *pixel = p->x + ((n * s->in_height + (size_t)y) * s->in_width + (size_t)x) * s->in_channels;
      for (size_t c = 0; c < s->in_channels; c++)
        sum += pixel[c] * p->weight[((out * s->in_channels + c) * (size_t)s->window[0] + (size_t)i) * (size_t)s->window[1] + (size_t)j];
    }
  return sum;
}

/* The sum and the bias in the finer of their units, brought to the output's. */
static int result_of(const problem *p, int64_t sum, size_t out) {
  const int unit = p->x_position + p->weight_position[out];
  if (!p->has_bias || p->bias[out] == 0) return shifted(sum, unit - p->y_position, p->low, p->high);
  const int bias = p->bias_position[out], finest = bias > unit ? bias : unit;
  const int64_t total = sum * ((int64_t)1 << (finest - unit)) + p->bias[out] * ((int64_t)1 << (finest - bias));
  return shifted(total, finest - p->y_position, p->low, p->high);
}

/* --- oneDNN --- */

typedef struct tally {
  size_t run, left_out, values, saturated, zero;
} tally;

static void compare(const problem *p, const int8_t *y, const char *kernel, tally *t) {
  const bnd_convolution_shape *s = &p->shape;
  size_t at = 0;
  for (size_t n = 0; n < s->images; n++)
    for (size_t row = 0; row < s->out_height; row++)
      for (size_t column = 0; column < s->out_width; column++)
        for (size_t o = 0; o < s->out_channels; o++, at++) {
          const int64_t sum = sum_of(p, n, row, column, o);
          const int expected = result_of(p, sum, o);
          t->saturated += expected == p->low || expected == p->high;
          t->zero += expected == 0;
          if (y[at] != expected)
            fail_msg(
                "%s: [%zu][%zu][%zu][%zu] is %d instead of %d; sum %lld, bias %d; positions: x %d, weight %d, bias %d, y %d; %zu -> %zu channels, "
                "window %d x %d, strides %d %d, padding %d %d, %zu images of %zu x %zu, %d threads",
                kernel, n, row, column, o, y[at], expected, (long long)sum, p->has_bias ? p->bias[o] : 0, p->x_position, p->weight_position[o],
                p->bias_position[o], p->y_position, s->in_channels, s->out_channels, (int)s->window[0], (int)s->window[1], (int)s->stride[0], (int)s->stride[1],
                (int)s->padding[0], (int)s->padding[1], s->images, s->in_height, s->in_width, p->threads);
        }
  for (size_t i = at; i < at + GUARD; i++) assert_int_equal(y[i], UNTOUCHED);
  t->values += at;
}

static void run(bnd_onednn *engine, const problem *p, const bnd_int8_operands *operands, tally *t) {
  bnd_error error = {0};
  bnd_onednn_convolution *convolution;
  bnd_onednn_call *call;
  assert_ok(bnd_onednn_int8_create(engine, &p->shape, operands, p->threads, &convolution, &error), &error);
  if (!convolution) {
    t->left_out++;
    return;
  }
  assert_ok(bnd_onednn_call_create(convolution, &call, &error), &error);
  void *scratch = memory(bnd_onednn_convolution_scratch_bytes(convolution), 1);
  int8_t *y = memory(y_count(&p->shape) + GUARD, 1);
  memset(y, UNTOUCHED, y_count(&p->shape) + GUARD);
  const int before = omp_get_max_threads();
  omp_set_num_threads(p->threads);
  const bnd_status status = bnd_onednn_call_run(call, p->x, y, scratch, &error);
  omp_set_num_threads(before);
  assert_ok(status, &error);
  compare(p, y, bnd_onednn_convolution_kernel(convolution), t);
  t->run++;
  free(y);
  free(scratch);
  bnd_onednn_call_destroy(call);
  bnd_onednn_convolution_destroy(convolution);
}

/* Operands as their comments in int8.h say. */
static void run_directly(bnd_onednn *engine, const problem *p, tally *t) {
  const size_t out = p->shape.out_channels;
  float *scale = memory(out, sizeof *scale), *bias = memory(out, sizeof *bias);
  for (size_t o = 0; o < out; o++) {
    scale[o] = ldexpf(1.f, p->y_position - p->x_position - p->weight_position[o]);
    bias[o] = p->bias[o] ? ldexpf((float)p->bias[o], p->y_position - p->bias_position[o]) : 0.f;
  }
  const bnd_int8_operands operands = {.non_negative = p->non_negative,
                                      .weight = p->weight,
                                      .scale = scale,
                                      .scale_count = p->one_scale ? 1 : out,
                                      .bias = p->has_bias ? bias : NULL,
                                      .low = (float)p->low,
                                      .high = (float)p->high};
  run(engine, p, &operands, t);
  free(scale);
  free(bias);
}

/* Operands that exec/integers.h finds in float weights and biases. */
static void run_from_floats(bnd_onednn *engine, const problem *p, tally *t) {
  const size_t out = p->shape.out_channels, row = row_of(&p->shape);
  const bnd_grid x = {
      .multiplier = ldexpf(1.f, p->x_position), .step = ldexpf(1.f, -p->x_position), .low = p->non_negative ? 0.f : -128.f, .high = 127.f};
  const bnd_grid y = {.multiplier = ldexpf(1.f, p->y_position), .step = ldexpf(1.f, -p->y_position), .low = (float)p->low, .high = (float)p->high};
  bnd_error error = {0};
  bnd_tensor weight, bias = {0};
  assert_ok(
      bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)out, (int64_t)p->shape.in_channels, p->shape.window[0], p->shape.window[1]), &weight, &error),
      &error);
  if (p->has_bias) assert_ok(bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)out), &bias, &error), &error);
  for (size_t o = 0; o < out; o++) {
    for (size_t i = 0; i < row; i++) bnd_f32(&weight)[o * row + i] = ldexpf(p->weight[o * row + i], -p->weight_position[o]);
    if (p->has_bias) bnd_f32(&bias)[o] = ldexpf((float)p->bias[o], -p->bias_position[o]);
  }
  bool found;
  bnd_int8_weights integers;
  assert_ok(bnd_int8_weights_find(&weight, &bias, &x, p->non_negative, &y, &integers, &found, &error), &error);
  assert_true(found);
  assert_true(integers.exact_in_float);
  const bnd_int8_operands operands = {.non_negative = p->non_negative,
                                      .weight = integers.weight,
                                      .scale = integers.scale,
                                      .scale_count = integers.scale_count,
                                      .bias = integers.bias,
                                      .low = (float)p->low,
                                      .high = (float)p->high};
  run(engine, p, &operands, t);
  bnd_int8_weights_free(&integers);
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
}

typedef void way(bnd_onednn *engine, const problem *p, tally *t);

/* Returns how many convolutions ran. */
static size_t run_problems(way *by, uint32_t epoch, uint32_t count) {
  bnd_error error = {0};
  bnd_onednn *engine;
  bnd_int8_level level;
  assert_ok(bnd_onednn_create(&engine, &error), &error);
  assert_ok(bnd_onednn_find_int8_level(engine, &level, &error), &error);
  tally t = {0};
  for (uint32_t trial = 0; trial < count && level != BND_INT8_NONE; trial++) {
    bnd_random random = bnd_random_stream(11, epoch, trial, 0);
    problem p = some_problem(&random, level < BND_INT8_SIGNED || trial % 2 == 0);
    by(engine, &p, &t);
    free_problem(&p);
  }
  bnd_onednn_destroy(engine);
  if (level == BND_INT8_NONE) return 0;
  printf("           inputs %s; %zu convolutions, %zu left out; %zu values, of them saturated %.0f %%, zero %.0f %%\n",
         level == BND_INT8_SIGNED ? "of both signs" : "without negative bytes", t.run, t.left_out, t.values,
         100. * (double)t.saturated / (double)t.values, 100. * (double)t.zero / (double)t.values);
  assert_true(t.run > 5 * t.left_out); /* strided 1x1 convolutions are left out for older instructions */
  assert_true(t.saturated < t.values * 9 / 10); /* else little would have been compared */
  return t.run;
}

static void bytes_are_those_of_the_integers(void **state) {
  (void)state;
  if (run_problems(run_directly, 0, 300) == 0) skip();
}

static void operands_found_in_floats_give_the_same(void **state) {
  (void)state;
  if (run_problems(run_from_floats, 1, 300) == 0) skip();
}

/* oneDNN reads the limit once for each process. */
static void run_limited(const char *instructions) {
  fflush(NULL);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    if (!freopen("/dev/null", "w", stdout)) _exit(1); /* cases within a case would be counted; failures go to stderr */
    setenv("DNNL_MAX_CPU_ISA", instructions, 1);
    const struct CMUnitTest tests[] = {{instructions, bytes_are_those_of_the_integers, NULL, NULL, NULL}};
    const int failed = cmocka_run_group_tests_name(instructions, tests, NULL, NULL);
    fflush(NULL);
    _exit(failed);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void avx2_gives_the_same(void **state) {
  (void)state;
  run_limited("AVX2");
}

static void sse41_gives_the_same(void **state) {
  (void)state;
  run_limited("SSE41");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(avx2_gives_the_same), /* these two first: a process that has threads should not fork */
      cmocka_unit_test(sse41_gives_the_same),
      cmocka_unit_test(bytes_are_those_of_the_integers),
      cmocka_unit_test(operands_found_in_floats_give_the_same),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
