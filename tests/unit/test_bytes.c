/* The loops over bytes against the float loops, on the values the bytes stand for: the same, for any shape, layout, exponent and number of threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "base/random.h"
#include "kernels/loops/bytes.h"

static const size_t BLOCKS[] = {0, 4, 8, 16, 32};
enum { BLOCK_KINDS = sizeof BLOCKS / sizeof *BLOCKS, GUARD = 64, UNTOUCHED = 0x5a };

static void *memory(size_t count, size_t size) {
  void *result = malloc(count * size + 1);
  assert_non_null(result);
  return result;
}

static size_t between(bnd_random *random, size_t low, size_t high) {
  return low + (size_t)bnd_random_below(random, high - low + 1);
}

/* Mostly small shapes, now and then one of many tiles. */
static bnd_layout some_layout(bnd_random *random) {
  bnd_layout layout = {
      .images = between(random, 1, 3), .channels = between(random, 1, 70), .height = between(random, 1, 12), .width = between(random, 1, 12)};
  if (bnd_random_chance(random, 0.2)) layout.width = between(random, 100, 400);
  if (bnd_random_chance(random, 0.05)) layout.channels = between(random, 500, 1200);
  if (bnd_random_chance(random, 0.1)) layout.channels = 3; /* images */
  return layout;
}

/* Bytes all over the range, its ends more often than others; GUARD bytes behind stay what they are. */
static int8_t *some_bytes(bnd_random *random, size_t count) {
  int8_t *bytes = memory(count + GUARD, 1);
  for (size_t i = 0; i < count; i++) {
    const uint32_t word = bnd_random_u32(random);
    bytes[i] = word >> 28 == 0 ? -128 : word >> 28 == 1 ? 127 : (int8_t)word;
  }
  memset(bytes + count, UNTOUCHED, GUARD);
  return bytes;
}

static int8_t *no_bytes(size_t count) {
  int8_t *bytes = memory(count + GUARD, 1);
  memset(bytes, UNTOUCHED, count + GUARD);
  return bytes;
}

static void assert_guard(const int8_t *bytes, size_t count) {
  for (size_t i = count; i < count + GUARD; i++) assert_int_equal(bytes[i], UNTOUCHED);
}

/* Positions at both ends and, for files nobody should have written, far behind them. */
static int some_position(bnd_random *random) {
  return (int)between(random, 0, 50) - 20 + (bnd_random_chance(random, 0.1) ? (int)between(random, 0, 120) - 60 : 0);
}

static bnd_grid some_grid(bnd_random *random, int position) {
  static const float ends[][2] = {{-128.f, 127.f}, {-128.f, 127.f}, {0.f, 127.f}, {-128.f, 0.f}, {-8.f, 7.f}};
  const float *end = ends[between(random, 0, 4)];
  return (bnd_grid){.multiplier = ldexpf(1.f, position), .step = ldexpf(1.f, -position), .low = end[0], .high = end[1]};
}

/* A factor that brings values of one step to about the size of another, so that not everything saturates or vanishes; sometimes it does. */
static float some_factor(bnd_random *random, float from, float to) {
  const double near =
      bnd_random_chance(random, 0.8) ? (double)to / (double)from * bnd_random_between(random, -2, 2) : bnd_random_between(random, -3, 3);
  if (bnd_random_chance(random, 0.3)) return 1.f;
  if (bnd_random_chance(random, 0.05)) return 0.f;
  if (bnd_random_chance(random, 0.03)) return INFINITY;
  if (bnd_random_chance(random, 0.03)) return NAN;
  if (bnd_random_chance(random, 0.03)) return 1e-41f;
  return (float)near;
}

static float *values_of(const int8_t *bytes, float step, size_t count) {
  float *values = memory(count, sizeof *values);
  for (size_t i = 0; i < count; i++) values[i] = (float)bytes[i] * step;
  return values;
}

/* [images, height, width, channels] -> [images, channels, height, width] -> the layout's own order; padding zero. */
static float *arranged(const float *by_pixel, const bnd_layout *layout) {
  const size_t pixels = layout->height * layout->width, count = layout->images * layout->channels * pixels;
  float *plain = memory(count, sizeof *plain);
  for (size_t n = 0; n < layout->images; n++)
    for (size_t p = 0; p < pixels; p++)
      for (size_t c = 0; c < layout->channels; c++)
        plain[(n * layout->channels + c) * pixels + p] = by_pixel[(n * pixels + p) * layout->channels + c];
  if (!layout->block) return plain;
  float *blocked = memory(bnd_layout_count(layout), sizeof *blocked);
  bnd_loop_to_blocked(plain, layout, blocked, 1);
  free(plain);
  return blocked;
}

/* What the float loop computed is on the grid; its bytes. NaN gives 0. */
static void assert_stand_for(const char *what, const int8_t *bytes, const float *values, float step, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float value = (float)bytes[i] * step;
    if (isnan(values[i]) ? bytes[i] != 0 : value != values[i])
      fail_msg("%s: byte %zu is %d: %.9g instead of %.9g", what, i, bytes[i], (double)value, (double)values[i]);
  }
  assert_guard(bytes, count);
}

static float some_value(bnd_random *random, const bnd_grid *grid, float factor) {
  static const float odd[] = {0.f, -0.f, INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 1e-45f};
  const uint64_t kind = bnd_random_below(random, 40);
  if (kind < 8) return odd[kind];
  const float halves = (float)between(random, 0, 600) - 300.f; /* ties */
  const float unit = factor != 0.f && isfinite(factor) ? grid->step / factor : grid->step;
  if (kind < 20) return halves * .5f * unit;
  return (float)bnd_random_between(random, -150, 150) * unit;
}

static void quantize_is_pointwise(void **state) {
  (void)state;
  for (uint32_t trial = 0; trial < 400; trial++) {
    bnd_random random = bnd_random_stream(1, 0, trial, 0);
    bnd_layout layout = some_layout(&random);
    layout.block = BLOCKS[trial % BLOCK_KINDS];
    const bnd_grid grid = some_grid(&random, some_position(&random));
    const float factor = some_factor(&random, 1.f, 1.f);
    const bool relu = bnd_random_chance(&random, 0.3);
    const size_t count = layout.images * layout.channels * layout.height * layout.width;
    float *by_pixel = memory(count, sizeof *by_pixel);
    for (size_t i = 0; i < count; i++) by_pixel[i] = some_value(&random, &grid, factor);
    float *x = arranged(by_pixel, &layout);
    int8_t *bytes = no_bytes(count);
    const bool negative = bnd_bytes_quantize(x, &layout, factor, relu, &grid, bytes, (int)between(&random, 1, 5));
    bnd_loop_pointwise(by_pixel, factor, by_pixel, count, relu, &grid, 1);
    assert_stand_for("quantize", bytes, by_pixel, grid.step, count);
    bool expected = false;
    for (size_t i = 0; i < count; i++) expected |= bytes[i] < 0;
    assert_int_equal(negative, expected);
    free(by_pixel);
    free(x);
    free(bytes);
  }
}

/* One byte alone may be the negative one, wherever it stands. */
static void a_single_negative_byte_is_found(void **state) {
  (void)state;
  const bnd_grid grid = {.multiplier = 1.f, .step = 1.f, .low = -128.f, .high = 127.f};
  for (uint32_t trial = 0; trial < 200; trial++) {
    bnd_random random = bnd_random_stream(2, 0, trial, 0);
    bnd_layout layout = some_layout(&random);
    layout.block = BLOCKS[trial % BLOCK_KINDS];
    const size_t count = layout.images * layout.channels * layout.height * layout.width;
    float *by_pixel = calloc(count, sizeof *by_pixel);
    assert_non_null(by_pixel);
    by_pixel[between(&random, 0, count - 1)] = -1.f;
    float *x = arranged(by_pixel, &layout);
    int8_t *bytes = no_bytes(count);
    assert_true(bnd_bytes_quantize(x, &layout, 1.f, false, &grid, bytes, (int)(trial % 5) + 1));
    assert_false(bnd_bytes_quantize(x, &layout, 1.f, true, &grid, bytes, (int)(trial % 5) + 1));
    free(by_pixel);
    free(x);
    free(bytes);
  }
}

static void dequantize_gives_the_values(void **state) {
  (void)state;
  for (uint32_t trial = 0; trial < 400; trial++) {
    bnd_random random = bnd_random_stream(3, 0, trial, 0);
    bnd_layout layout = some_layout(&random);
    layout.block = BLOCKS[trial % BLOCK_KINDS];
    const size_t count = layout.images * layout.channels * layout.height * layout.width, all = bnd_layout_count(&layout);
    const float step = ldexpf(1.f, -some_position(&random));
    int8_t *bytes = some_bytes(&random, count);
    float *by_pixel = values_of(bytes, step, count), *expected = arranged(by_pixel, &layout), *y = memory(all + 1, sizeof *y);
    memset(y, 0xff, (all + 1) * sizeof *y);
    bnd_bytes_dequantize(bytes, step, y, &layout, (int)between(&random, 1, 5));
    for (size_t i = 0; i < all; i++)
      if (y[i] != expected[i]) fail_msg("value %zu is %.9g instead of %.9g", i, (double)y[i], (double)expected[i]);
    assert_true(isnan(y[all]));
    free(bytes);
    free(by_pixel);
    free(expected);
    free(y);
  }
}

static void map_is_pointwise(void **state) {
  (void)state;
  size_t scalings = 0;
  for (uint32_t trial = 0; trial < 1500; trial++) {
    bnd_random random = bnd_random_stream(4, 0, trial, 0);
    const size_t count = between(&random, 1, trial % 10 ? 600 : 40000);
    const int from = some_position(&random), to = bnd_random_chance(&random, 0.6) ? from + (int)between(&random, 0, 8) - 4 : some_position(&random);
    const float step = ldexpf(1.f, -from);
    const bnd_grid grid = some_grid(&random, to);
    const float factor = some_factor(&random, step, grid.step);
    const bool relu = bnd_random_chance(&random, 0.3);
    int8_t *x = some_bytes(&random, count), *y = no_bytes(count);
    float *values = values_of(x, step, count);
    bnd_loop_pointwise(values, factor, values, count, relu, &grid, 1);
    bnd_byte_table table;
    bnd_bytes_make_table(step, factor, relu, &grid, &table);
    scalings += table.is_scaling;
    bnd_bytes_map(x, &table, y, count, (int)between(&random, 1, 5));
    assert_stand_for("map", y, values, grid.step, count);
    for (size_t i = 0; i < count; i++) assert_int_equal(table.result[x[i] + 128], y[i]);
    bnd_bytes_map(x, &table, x, count, (int)between(&random, 1, 5));
    assert_memory_equal(x, y, count + GUARD);
    free(x);
    free(y);
    free(values);
  }
  assert_in_range(scalings, 500, 1450); /* both ways were gone */
}

static void scale_add_is_scale_add(void **state) {
  (void)state;
  for (uint32_t trial = 0; trial < 1500; trial++) {
    bnd_random random = bnd_random_stream(5, 0, trial, 0);
    const size_t count = between(&random, 1, trial % 10 ? 600 : 40000);
    const bool near = bnd_random_chance(&random, 0.7);
    const int out_position = some_position(&random);
    int positions[3]; /* of x, inner, y */
    for (int i = 0; i < 3; i++) positions[i] = near ? out_position + (int)between(&random, 0, 8) - 4 : some_position(&random);
    const bnd_grid inner = some_grid(&random, positions[1]), outer = some_grid(&random, out_position);
    bnd_byte_sum sum = {.x_step = ldexpf(1.f, -positions[0]), .y_step = ldexpf(1.f, -positions[2]), .outer = &outer};
    sum.factor = some_factor(&random, sum.x_step, inner.step);
    sum.inner = bnd_random_chance(&random, 0.7) ? &inner : NULL;
    sum.relu = bnd_random_chance(&random, 0.3);
    int8_t *x = some_bytes(&random, count), *y = some_bytes(&random, count), *out = no_bytes(count);
    float *a = values_of(x, sum.x_step, count), *b = values_of(y, sum.y_step, count);
    bnd_loop_scale_add(a, sum.factor, sum.inner, b, NULL, a, count, 1);
    bnd_loop_pointwise(a, 1.f, a, count, sum.relu, &outer, 1);
    bnd_bytes_scale_add(&sum, x, y, out, count, (int)between(&random, 1, 5));
    assert_stand_for("scale_add", out, a, outer.step, count);
    int8_t *in_place = trial % 2 ? x : y;
    bnd_bytes_scale_add(&sum, x, y, in_place, count, (int)between(&random, 1, 5));
    assert_memory_equal(in_place, out, count + GUARD);
    free(x);
    free(y);
    free(out);
    free(a);
    free(b);
  }
}

static void insert_channels_is_insert_channels(void **state) {
  (void)state;
  for (uint32_t trial = 0; trial < 600; trial++) {
    bnd_random random = bnd_random_stream(6, 0, trial, 0);
    bnd_layout from = some_layout(&random), to = from;
    if (bnd_random_chance(&random, 0.02)) from = to = (bnd_layout){.images = 1, .channels = 40000, .height = 1, .width = 2};
    const size_t first = between(&random, 0, 40), pixels = from.images * from.height * from.width, count = pixels * from.channels;
    to.channels += first + between(&random, 0, 1) * between(&random, 0, 40);
    to.block = 8;
    const size_t to_count = pixels * to.channels;
    int8_t *x = some_bytes(&random, count), *y = some_bytes(&random, to_count);
    float *before = values_of(y, 1.f, to_count), *expected = arranged(before, &to), *values = values_of(x, 1.f, count);
    bnd_byte_table table;
    const bnd_grid grid = some_grid(&random, (int)between(&random, 0, 6) - 3);
    bnd_bytes_make_table(1.f, bnd_random_chance(&random, 0.5) ? 1.f : INFINITY, false, &grid, &table);
    const bool mapped = bnd_random_chance(&random, 0.5);
    if (mapped)
      for (size_t i = 0; i < count; i++) values[i] = (float)table.result[x[i] + 128];
    float *inserted = arranged(values, &from);
    bnd_loop_insert_channels(inserted, &from, expected, &to, first, 1);
    bnd_bytes_insert_channels(x, pixels, from.channels, mapped ? &table : NULL, y, to.channels, first, (int)between(&random, 1, 5));
    float *after = values_of(y, 1.f, to_count), *result = arranged(after, &to);
    assert_memory_equal(result, expected, bnd_layout_count(&to) * sizeof *result);
    assert_guard(y, to_count);
    free(x);
    free(y);
    free(before);
    free(expected);
    free(values);
    free(inserted);
    free(after);
    free(result);
  }
}

static void spread_pixels_is_spread_pixels(void **state) {
  (void)state;
  for (uint32_t trial = 0; trial < 300; trial++) {
    bnd_random random = bnd_random_stream(7, 0, trial, 0);
    bnd_layout half = some_layout(&random), groups = half, to = half;
    groups.channels *= 4;
    half.images *= 4; /* a group of channels is an image for the float loop: its channels are padded one by one */
    half.block = to.block = 8;
    to.height *= 2;
    to.width *= 2;
    const size_t pixels = half.height * half.width, channels = half.channels, count = half.images * channels * pixels;
    int8_t *x = some_bytes(&random, count), *y = no_bytes(count);
    float *by_group = memory(count, sizeof *by_group);
    for (size_t n = 0; n < groups.images; n++)
      for (size_t p = 0; p < pixels; p++)
        for (size_t g = 0; g < 4; g++)
          for (size_t c = 0; c < channels; c++) by_group[((n * 4 + g) * pixels + p) * channels + c] = x[((n * pixels + p) * 4 + g) * channels + c];
    float *blocked = arranged(by_group, &half), *expected = memory(bnd_layout_count(&to), sizeof *expected);
    bnd_loop_spread_pixels(blocked, expected, &to, 1);
    bnd_bytes_spread_pixels(x, y, &to, (int)between(&random, 1, 5));
    float *values = values_of(y, 1.f, count), *result = arranged(values, &to);
    assert_memory_equal(result, expected, bnd_layout_count(&to) * sizeof *result);
    assert_guard(y, count);
    free(x);
    free(y);
    free(by_group);
    free(blocked);
    free(expected);
    free(values);
    free(result);
  }
}

static void max_pool_is_max_pool(void **state) {
  (void)state;
  for (uint32_t trial = 0; trial < 300; trial++) {
    bnd_random random = bnd_random_stream(8, 0, trial, 0);
    bnd_layout layout = some_layout(&random);
    layout.block = 8;
    const int64_t window = (int64_t)between(&random, 0, 8) * 2 + 1;
    const size_t count = layout.images * layout.channels * layout.height * layout.width, all = bnd_layout_count(&layout);
    int8_t *x = some_bytes(&random, count), *y = no_bytes(count), *workspace = no_bytes(count);
    float *values = values_of(x, 1.f, count), *blocked = arranged(values, &layout);
    float *expected = memory(all, sizeof *expected), *room = memory(all, sizeof *room);
    bnd_loop_max_pool(blocked, expected, &layout, window, room, 1);
    bnd_bytes_max_pool(x, y, &layout, window, workspace, (int)between(&random, 1, 5));
    float *pooled = values_of(y, 1.f, count), *result = arranged(pooled, &layout);
    assert_memory_equal(result, expected, all * sizeof *result);
    assert_guard(y, count);
    assert_guard(workspace, count);
    free(x);
    free(y);
    free(workspace);
    free(values);
    free(blocked);
    free(expected);
    free(room);
    free(pooled);
    free(result);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(quantize_is_pointwise),          cmocka_unit_test(a_single_negative_byte_is_found),
      cmocka_unit_test(dequantize_gives_the_values),    cmocka_unit_test(map_is_pointwise),
      cmocka_unit_test(scale_add_is_scale_add),         cmocka_unit_test(insert_channels_is_insert_channels),
      cmocka_unit_test(spread_pixels_is_spread_pixels), cmocka_unit_test(max_pool_is_max_pool),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
