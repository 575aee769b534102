/* Convolution layers in training: the three directions against sums in double precision, padding lanes, the same bits everywhere. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/onednn/layer.h"

#define ASSERT_OK(expression)                                   \
  do {                                                          \
    bnd_error *const error = &(bnd_error){0};                   \
    if ((expression) != BND_OK) fail_msg("%s", error->message); \
  } while (0)

static float random_value(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return (float)(*state >> 8) * 0x1p-23f - 1.f;
}

static float *random_values(size_t count, uint32_t *state) {
  float *values = bnd_alloc_aligned(count, sizeof *values);
  assert_non_null(values);
  for (size_t i = 0; i < count; i++) values[i] = random_value(state);
  return values;
}

/* Everything that is not written shows. */
static float *unset_values(size_t count) {
  float *values = bnd_alloc_aligned(count + 1, sizeof *values);
  assert_non_null(values);
  for (size_t i = 0; i < count; i++) values[i] = NAN;
  return values;
}

typedef struct extent {
  size_t channels, height, width, block; /* block 0 = row-major */
} extent;

static size_t plain_count(extent e) {
  return e.channels * e.height * e.width;
}
static size_t count_of(extent e) {
  return e.block ? (e.channels + e.block - 1) / e.block * e.block * e.height * e.width : plain_count(e);
}
static size_t place_of(extent e, size_t channel, size_t pixel) {
  const size_t pixels = e.height * e.width;
  return e.block ? (channel / e.block * pixels + pixel) * e.block + channel % e.block : channel * pixels + pixel;
}

static float *arranged(extent e, const float *plain) {
  float *result = bnd_alloc_aligned(count_of(e), sizeof *result);
  assert_non_null(result);
  memset(result, 0, count_of(e) * sizeof *result);
  const size_t pixels = e.height * e.width;
  for (size_t c = 0; c < e.channels; c++)
    for (size_t p = 0; p < pixels; p++) result[place_of(e, c, p)] = plain[c * pixels + p];
  return result;
}

static void compare(const char *what, const char *name, const double *expected, const float *got, size_t count) {
  double largest = 0, worst = 0;
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(got[i])) fail_msg("%s: %s[%zu] was not written", name, what, i);
    largest = fmax(largest, fabs(expected[i]));
    worst = fmax(worst, fabs(expected[i] - (double)got[i]));
  }
  if (worst > 1e-5 * largest) fail_msg("%s: %s is off by %g, largest value %g", name, what, worst, largest);
}

static void compare_arranged(const char *what, const char *name, extent e, const double *expected, const float *got) {
  float *plain = unset_values(plain_count(e));
  const size_t pixels = e.height * e.width;
  for (size_t c = 0; c < e.channels; c++)
    for (size_t p = 0; p < pixels; p++) plain[c * pixels + p] = got[place_of(e, c, p)];
  compare(what, name, expected, plain, plain_count(e));
  free(plain);
  for (size_t c = e.channels; e.block && c % e.block; c++)
    for (size_t p = 0; p < pixels; p++)
      if (got[place_of(e, c, p)] != 0.f) fail_msg("%s: padding lane %zu of %s is %g", name, c % e.block, what, (double)got[place_of(e, c, p)]);
}

typedef struct sums {
  double *y, *dx, *dw;
} sums;

/* One visit to each product: a convolution reads x where a transposed one writes y, and the other way round. */
static void add_products(const bnd_convolution_shape *s, bool transposed, const float *x, const float *w, const float *dy, sums *to) {
  const int64_t near_height = (int64_t)(transposed ? s->in_height : s->out_height), near_width = (int64_t)(transposed ? s->in_width : s->out_width);
  const int64_t far_height = (int64_t)(transposed ? s->out_height : s->in_height), far_width = (int64_t)(transposed ? s->out_width : s->in_width);
  for (size_t o = 0; o < s->out_channels; o++)
    for (size_t i = 0; i < s->in_channels; i++)
      for (int64_t ky = 0; ky < s->window[0]; ky++)
        for (int64_t kx = 0; kx < s->window[1]; kx++) {
          const size_t filter = transposed ? i * s->out_channels + o : o * s->in_channels + i;
          const size_t wi = (filter * (size_t)s->window[0] + (size_t)ky) * (size_t)s->window[1] + (size_t)kx;
          for (int64_t ny = 0; ny < near_height; ny++)
            for (int64_t nx = 0; nx < near_width; nx++) {
              const int64_t fy = ny * s->stride[0] - s->padding[0] + ky * s->dilation[0],
                            fx = nx * s->stride[1] - s->padding[1] + kx * s->dilation[1];
              if (fy < 0 || fx < 0 || fy >= far_height || fx >= far_width) continue;
              const size_t near = (size_t)(ny * near_width + nx), far = (size_t)(fy * far_width + fx);
              const size_t xi = i * s->in_height * s->in_width + (transposed ? near : far);
              const size_t yi = o * s->out_height * s->out_width + (transposed ? far : near);
              to->y[yi] += (double)w[wi] * (double)x[xi];
              to->dx[xi] += (double)w[wi] * (double)dy[yi];
              to->dw[wi] += (double)x[xi] * (double)dy[yi];
            }
        }
}

static double *zeros(size_t count) {
  double *values = bnd_calloc(count, sizeof *values);
  assert_non_null(values);
  return values;
}

static bnd_convolution_shape shape_of(size_t in, size_t out, size_t height, size_t width, int64_t window, int64_t stride, int64_t padding,
                                      int64_t dilation, bool transposed, bool plain) {
  bnd_convolution_shape s = {1, in, height, width, out, 0, 0, {window, window}, {stride, stride}, {padding, padding}, {dilation, dilation}, plain};
  const int64_t reach = (window - 1) * dilation + 1, h = (int64_t)height, w = (int64_t)width;
  s.out_height = (size_t)(transposed ? (h - 1) * stride - 2 * padding + reach : (h + 2 * padding - reach) / stride + 1);
  s.out_width = (size_t)(transposed ? (w - 1) * stride - 2 * padding + reach : (w + 2 * padding - reach) / stride + 1);
  return s;
}

/* False where oneDNN has no kernel for it. */
static bool check_layer(bnd_onednn *engine, bnd_convolution_shape s, bool transposed, bool data_gradient) {
  char name[160];
  snprintf(name, sizeof name, "%s%zu %zux%zu -> %zu, window %d, stride %d, padding %d, dilation %d%s", transposed ? "transposed " : "", s.in_channels,
           s.in_height, s.in_width, s.out_channels, (int)s.window[0], (int)s.stride[0], (int)s.padding[0], (int)s.dilation[0],
           s.plain_input ? ", row-major" : "");
  bnd_onednn_layer *layer;
  ASSERT_OK(bnd_onednn_layer_create(engine, &s, transposed, data_gradient, &layer, error));
  if (!layer) return false;
  const size_t block = bnd_onednn_block(engine);
  const extent in = {s.in_channels, s.in_height, s.in_width, s.plain_input ? 0 : block}, out = {s.out_channels, s.out_height, s.out_width, block};
  const size_t weights = s.in_channels * s.out_channels * (size_t)(s.window[0] * s.window[1]);
  uint32_t seed = 7;
  float *plain_x = random_values(plain_count(in), &seed), *plain_dy = random_values(plain_count(out), &seed), *w = random_values(weights, &seed);
  sums expected = {zeros(plain_count(out)), zeros(plain_count(in)), zeros(weights)};
  add_products(&s, transposed, plain_x, w, plain_dy, &expected);

  float *x = arranged(in, plain_x), *dy = arranged(out, plain_dy), *y = unset_values(count_of(out)), *dx = unset_values(count_of(in));
  float *packed = unset_values(bnd_onednn_layer_packed_count(layer)), *gradient = unset_values(bnd_onednn_layer_gradient_count(layer));
  float *dw = unset_values(weights);
  const size_t scratch_bytes = bnd_onednn_layer_scratch_bytes(layer);
  void *scratch = scratch_bytes ? bnd_alloc_aligned(scratch_bytes, 1) : NULL;
  bnd_onednn_layer_call *call;
  ASSERT_OK(bnd_onednn_layer_call_create(layer, &call, error));
  ASSERT_OK(bnd_onednn_layer_pack(layer, w, packed, error));
  ASSERT_OK(bnd_onednn_layer_forward(call, x, packed, y, scratch, error));
  compare_arranged("y", name, out, expected.y, y);
  if (data_gradient) {
    ASSERT_OK(bnd_onednn_layer_backward_data(call, dy, packed, dx, scratch, error));
    compare_arranged("dx", name, in, expected.dx, dx);
  } else {
    assert_int_equal(bnd_onednn_layer_backward_data(call, dy, packed, dx, scratch, NULL), BND_ERROR_ARGUMENT);
  }
  ASSERT_OK(bnd_onednn_layer_backward_weights(call, x, dy, gradient, scratch, error));
  ASSERT_OK(bnd_onednn_layer_unpack_gradient(layer, gradient, dw, error));
  compare("dw", name, expected.dw, dw, weights);

  bnd_onednn_layer_call_destroy(call);
  bnd_onednn_layer_destroy(layer);
  void *const all[] = {plain_x, plain_dy, w, expected.y, expected.dx, expected.dw, x, dy, y, dx, packed, gradient, dw, scratch};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return true;
}

/* --- tests --- */

static int setup(void **state) {
  bnd_onednn *engine;
  if (bnd_onednn_create(&engine, NULL) != BND_OK) return -1;
  *state = engine;
  return 0;
}

static int teardown(void **state) {
  bnd_onednn_destroy(*state);
  return 0;
}

/* Below AVX2 oneDNN has no gradients but reference loops. */
static void need_kernels(bnd_onednn *engine) {
  const bnd_convolution_shape s = shape_of(8, 8, 8, 8, 3, 1, 1, 1, false, false);
  bnd_onednn_layer *layer;
  ASSERT_OK(bnd_onednn_layer_create(engine, &s, false, true, &layer, error));
  if (!layer) skip();
  bnd_onednn_layer_destroy(layer);
}

static void every_channel_count(void **state) {
  need_kernels(*state);
  for (size_t c = 1; c <= 40; c++) {
    const size_t other = c * 7 % 40 + 1;
    const int64_t window = c % 2 ? 3 : 1, stride = c % 4 < 2 ? 1 : 2;
    assert_true(check_layer(*state, shape_of(c, other, 9, 7, window, stride, window / 2, 1, false, false), false, true));
  }
}

static void windows_strides_and_paddings(void **state) {
  need_kernels(*state);
  static const int64_t windows[] = {1, 2, 3, 5};
  int made = 0, asked = 0;
  for (int k = 0; k < 4; k++)
    for (int64_t stride = 1; stride <= 2; stride++)
      for (int64_t padding = 0; padding < windows[k] && padding <= 2; padding++)
        for (int odd = 0; odd < 2; odd++) {
          made += check_layer(*state, shape_of(12, 20, odd ? 13 : 10, odd ? 9 : 14, windows[k], stride, padding, 1, false, false), false, true);
          asked++;
        }
  print_message("%d of %d shapes have kernels\n", made, asked);
  assert_true(made * 2 >= asked);
}

/* 14 x 10 at stride 2 without padding leaves pixels that no position sees. */
static void pixels_nobody_sees_have_no_gradient(void **state) {
  need_kernels(*state);
  assert_true(check_layer(*state, shape_of(8, 8, 14, 10, 3, 2, 0, 1, false, false), false, true));
  assert_true(check_layer(*state, shape_of(8, 8, 14, 10, 1, 2, 0, 1, false, false), false, true));
}

static void one_pixel(void **state) {
  need_kernels(*state);
  assert_true(check_layer(*state, shape_of(5, 3, 1, 1, 1, 1, 0, 1, false, false), false, true));
  check_layer(*state, shape_of(5, 3, 1, 1, 3, 1, 1, 1, false, false), false, true);
}

static void transposed_convolutions(void **state) {
  need_kernels(*state);
  static const size_t channels[][2] = {{8, 8}, {12, 20}, {1, 3}, {40, 9}};
  for (size_t c = 0; c < 4; c++) {
    assert_true(check_layer(*state, shape_of(channels[c][0], channels[c][1], 5, 7, 2, 2, 0, 1, true, false), true, true));
    assert_true(check_layer(*state, shape_of(channels[c][0], channels[c][1], 5, 7, 2, 2, 0, 1, true, false), true, false));
    for (int64_t stride = 1; stride <= 2; stride++)
      for (int64_t padding = 0; padding < 2; padding++)
        check_layer(*state, shape_of(channels[c][0], channels[c][1], 6, 7, 3, stride, padding, 1, true, false), true, true);
  }
  bnd_convolution_shape longer = shape_of(8, 16, 5, 7, 3, 2, 1, 1, true, false); /* PyTorch's output_padding 1 */
  longer.out_height++, longer.out_width++;
  check_layer(*state, longer, true, true);
}

static void dilation_is_right_or_refused(void **state) {
  need_kernels(*state);
  check_layer(*state, shape_of(9, 16, 11, 13, 3, 1, 2, 2, false, false), false, true);
  check_layer(*state, shape_of(9, 16, 11, 13, 3, 1, 2, 2, false, false), false, false);
  check_layer(*state, shape_of(9, 16, 6, 5, 2, 1, 0, 2, true, false), true, true);
}

static void row_major_input(void **state) {
  need_kernels(*state);
  static const size_t outs[] = {8, 12, 48};
  for (size_t i = 0; i < 3; i++) {
    assert_true(check_layer(*state, shape_of(3, outs[i], 21, 18, 3, 2, 1, 1, false, true), false, false));
    assert_true(check_layer(*state, shape_of(3, outs[i], 20, 17, 1, 2, 0, 1, false, true), false, false));
  }
  check_layer(*state, shape_of(1, 8, 9, 9, 3, 1, 1, 1, false, true), false, false);
  check_layer(*state, shape_of(3, 8, 9, 9, 3, 1, 1, 1, false, true), false, true);
  assert_false(check_layer(*state, shape_of(3, 8, 5, 5, 2, 2, 0, 1, true, true), true, false));
}

/* The shapes of the network: none may be without kernels, at no width. */
static void the_shapes_of_the_network_have_kernels(void **state) {
  need_kernels(*state);
  static const size_t channels[] = {8, 12, 24, 48, 96};
  for (size_t i = 0; i < 4; i++) {
    const size_t in = channels[i], out = channels[i + 1];
    assert_true(check_layer(*state, shape_of(in, in, 20, 20, 3, 1, 1, 1, false, false), false, true));
    assert_true(check_layer(*state, shape_of(in, out, 20, 20, 3, 2, 1, 1, false, false), false, true));
    assert_true(check_layer(*state, shape_of(in, out, 20, 20, 1, 1, 0, 1, false, false), false, true));
    assert_true(check_layer(*state, shape_of(in, out, 20, 20, 1, 2, 0, 1, false, false), false, true));
    assert_true(check_layer(*state, shape_of(in, in, 10, 10, 2, 2, 0, 1, true, false), true, true));
  }
}

typedef struct results {
  float *y, *dx, *gradient;
  size_t counts[3];
} results;

static results run_once(const bnd_onednn_layer *layer, const bnd_convolution_shape *s, size_t block, const float *w) {
  const extent in = {s->in_channels, s->in_height, s->in_width, block}, out = {s->out_channels, s->out_height, s->out_width, block};
  uint32_t seed = 3;
  float *plain_x = random_values(plain_count(in), &seed), *plain_dy = random_values(plain_count(out), &seed);
  float *x = arranged(in, plain_x), *dy = arranged(out, plain_dy), *packed = unset_values(bnd_onednn_layer_packed_count(layer));
  void *scratch = bnd_alloc_aligned(bnd_onednn_layer_scratch_bytes(layer) + 1, 1);
  results r = {.counts = {count_of(out), count_of(in), bnd_onednn_layer_gradient_count(layer)}};
  r.y = unset_values(r.counts[0]), r.dx = unset_values(r.counts[1]), r.gradient = unset_values(r.counts[2]);
  bnd_onednn_layer_call *call;
  ASSERT_OK(bnd_onednn_layer_pack(layer, w, packed, error));
  ASSERT_OK(bnd_onednn_layer_call_create(layer, &call, error));
  ASSERT_OK(bnd_onednn_layer_forward(call, x, packed, r.y, scratch, error));
  ASSERT_OK(bnd_onednn_layer_backward_data(call, dy, packed, r.dx, scratch, error));
  ASSERT_OK(bnd_onednn_layer_backward_weights(call, x, dy, r.gradient, scratch, error));
  bnd_onednn_layer_call_destroy(call);
  void *const all[] = {plain_x, plain_dy, x, dy, packed, scratch};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return r;
}

static void assert_same(const results *a, const results *b) {
  assert_memory_equal(a->y, b->y, a->counts[0] * sizeof(float));
  assert_memory_equal(a->dx, b->dx, a->counts[1] * sizeof(float));
  assert_memory_equal(a->gradient, b->gradient, a->counts[2] * sizeof(float));
}

static void free_results(results *r) {
  free(r->y), free(r->dx), free(r->gradient);
}

/* Alone with many threads on offer, alone with one, and several workers at once. */
static void the_same_bits_everywhere(void **state) {
  need_kernels(*state);
  const bnd_convolution_shape shapes[] = {shape_of(24, 40, 33, 31, 3, 1, 1, 1, false, false), shape_of(24, 40, 33, 31, 3, 2, 1, 1, false, false),
                                          shape_of(24, 40, 33, 31, 1, 1, 0, 1, false, false), shape_of(24, 40, 33, 31, 1, 2, 0, 1, false, false),
                                          shape_of(24, 40, 17, 15, 2, 2, 0, 1, true, false)};
  enum { WORKERS = 4 };
  const int before = omp_get_max_threads();
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    const bnd_convolution_shape *s = &shapes[i];
    const size_t block = bnd_onednn_block(*state);
    uint32_t seed = 5;
    float *w = random_values(24 * 40 * 9, &seed);
    bnd_onednn_layer *layer;
    omp_set_num_threads(WORKERS);
    ASSERT_OK(bnd_onednn_layer_create(*state, s, i == 4, true, &layer, error));
    assert_non_null(layer);
    assert_int_equal(omp_get_max_threads(), WORKERS); /* left as it was */
    results alone = run_once(layer, s, block, w), workers[WORKERS];
    assert_int_equal(omp_get_max_threads(), WORKERS);
#pragma omp parallel num_threads(WORKERS)
    workers[omp_get_thread_num()] = run_once(layer, s, block, w);
    omp_set_num_threads(1);
    results single = run_once(layer, s, block, w);
    assert_same(&alone, &single);
    for (int t = 0; t < WORKERS; t++) {
      assert_same(&alone, &workers[t]);
      free_results(&workers[t]);
    }
    free_results(&alone), free_results(&single);
    bnd_onednn_layer_destroy(layer);
    free(w);
  }
  omp_set_num_threads(before);
}

static void senseless_arguments_are_refused(void **state) {
  bnd_onednn_layer *layer = (bnd_onednn_layer *)1;
  bnd_convolution_shape s = shape_of(8, 8, 8, 8, 3, 1, 1, 1, false, false);
  s.images = 2;
  bnd_error error = {0};
  assert_int_equal(bnd_onednn_layer_create(*state, &s, false, true, &layer, &error), BND_ERROR_ARGUMENT);
  assert_null(layer);
  assert_non_null(strstr(error.message, "1 image"));
  bnd_onednn_layer_destroy(NULL);
  bnd_onednn_layer_call_destroy(NULL);
  need_kernels(*state);
  s.images = 1;
  s.out_height = 3; /* not what window, stride and padding give */
  assert_int_not_equal(bnd_onednn_layer_create(*state, &s, false, true, &layer, &error), BND_OK);
  assert_null(layer);
}

static void kernels_are_named(void **state) {
  need_kernels(*state);
  const bnd_convolution_shape s = shape_of(8, 8, 8, 8, 3, 1, 1, 1, false, false);
  char text[128];
  for (int data = 0; data < 2; data++) {
    bnd_onednn_layer *layer;
    ASSERT_OK(bnd_onednn_layer_create(*state, &s, false, data, &layer, error));
    assert_non_null(layer);
    assert_ptr_equal(bnd_onednn_layer_kernels(layer, text), text);
    assert_ptr_equal(strstr(text, "forward "), text);
    assert_int_equal(strstr(text, "data none") != NULL, !data);
    assert_null(strstr(text, "ref"));
    print_message("%s\n", text);
    bnd_onednn_layer_destroy(layer);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_channel_count),
      cmocka_unit_test(windows_strides_and_paddings),
      cmocka_unit_test(pixels_nobody_sees_have_no_gradient),
      cmocka_unit_test(one_pixel),
      cmocka_unit_test(transposed_convolutions),
      cmocka_unit_test(dilation_is_right_or_refused),
      cmocka_unit_test(row_major_input),
      cmocka_unit_test(the_shapes_of_the_network_have_kernels),
      cmocka_unit_test(the_same_bits_everywhere),
      cmocka_unit_test(senseless_arguments_are_refused),
      cmocka_unit_test(kernels_are_named),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
