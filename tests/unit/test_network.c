/* Networks that train: backends against each other, gradients against differences, threads, interruptions, memory, errors. */
#include "network_graphs.h"

/* --- backends --- */

static double largest(const float *values, size_t count) {
  double most = 0;
  for (size_t i = 0; i < count; i++) most = fmax(most, fabs((double)values[i]));
  return most;
}

static double difference(const float *a, const float *b, size_t count) {
  double most = 0;
  for (size_t i = 0; i < count; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
  return most;
}

static void assert_close(const char *what, const float *values, const float *expected, size_t count, double tolerance) {
  const double error = difference(values, expected, count), size = largest(expected, count);
  if (!(error <= tolerance * size)) fail_msg("%s: off by %g, largest value %g", what, error, size);
}

static void compare_outputs(const fixture *values, const fixture *expected, double tolerance) {
  for (int output = 0; output < bnd_network_output_count(expected->network); output++)
    for (int image = 0; image < expected->batch && bnd_network_output(expected->network, output, image); image++)
      assert_close("output", bnd_network_output(values->network, output, image), bnd_network_output(expected->network, output, image),
                   output_size(expected->network, output), tolerance);
}

static void compare_backends(graph_maker *make, bool quantize, bnd_network_mode mode, double tolerance) {
  fixture plain = open_fixture(make, quantize, BND_BACKEND_REFERENCE, 3, 1, mode);
  fixture fast = open_fixture(make, quantize, BND_BACKEND_ONEDNN, 3, 1, mode);
  for (int repeat = 0; repeat < 2; repeat++) { /* the second time memory holds the first one's leftovers */
    bnd_network_zero_gradients(plain.network);
    bnd_network_zero_gradients(fast.network);
    forward(&plain);
    forward(&fast);
    compare_outputs(&fast, &plain, tolerance);
    backward(&plain);
    backward(&fast);
  }
  size_t count, fast_count;
  const bnd_parameter *p = bnd_network_parameters(plain.network, &count), *q = bnd_network_parameters(fast.network, &fast_count);
  assert_int_equal(count, fast_count);
  double most = 0;
  for (size_t i = 0; i < count; i++) most = fmax(most, largest(p[i].gradient, p[i].count));
  for (size_t i = 0; i < count; i++) {
    assert_string_equal(p[i].name, q[i].name);
    assert_int_equal(p[i].reached, q[i].reached);
    const double error = difference(q[i].gradient, p[i].gradient, p[i].count), size = largest(p[i].gradient, p[i].count);
    /* what is zero in exact arithmetic (a bias in front of a batch norm) is measured by the other gradients */
    if (!(error <= tolerance * fmax(size, 1e-2 * most))) fail_msg("%s: gradient off by %g, largest value %g", p[i].name, error, size);
  }
  const bnd_statistic *a = bnd_network_statistics(plain.network, &count), *b = bnd_network_statistics(fast.network, &fast_count);
  assert_int_equal(count, fast_count);
  for (size_t i = 0; i < count; i++) assert_close(a[i].name, b[i].value, a[i].value, a[i].count, tolerance);
  close_fixture(&plain);
  close_fixture(&fast);
}

static void backends_agree_in_float(void **state) {
  (void)state;
  static graph_maker *const graphs[] = {layers_graph, sums_graph, plain_graph, quantized_graph};
  for (size_t g = 0; g < sizeof graphs / sizeof *graphs; g++)
    for (int mode = BND_MODE_EVALUATE; mode <= BND_MODE_FROZEN; mode++) compare_backends(graphs[g], false, (bnd_network_mode)mode, 1e-5);
}

static void backends_agree_under_quantization(void **state) {
  (void)state;
  compare_backends(quantized_graph, true, BND_MODE_EVALUATE, 1e-5);
  compare_backends(quantized_graph, true, BND_MODE_FROZEN, 1e-5);
  compare_backends(quantized_graph, true, BND_MODE_TRAIN, 1e-5);
  compare_backends(mse_graph, true, BND_MODE_FROZEN, 1e-5);
}

/* --- differences --- */

/* The gradient along a direction against the difference of the objective, in units of the gradient's size. */
static double deviation(fixture *f, const bnd_parameter *p, uint64_t seed, double least_size) {
  float *direction = malloc(p->count * sizeof *direction), *saved = malloc(p->count * sizeof *saved);
  fill_uniform(direction, p->count, -1, 1, seed);
  memcpy(saved, p->value, p->count * sizeof *saved);
  double expected = 0, size = 0, length = 0, values[2];
  for (size_t k = 0; k < p->count; k++) {
    expected += (double)p->gradient[k] * (double)direction[k];
    size += (double)p->gradient[k] * (double)p->gradient[k];
    length += (double)direction[k] * (double)direction[k];
  }
  double least = INFINITY; /* over steps: a large one crosses kinks, a small one drowns in rounding */
  for (double step = 1e-3; step > 1e-5; step /= 8) {
    const double h = step / sqrt(length);
    for (int side = 0; side < 2; side++) {
      for (size_t k = 0; k < p->count; k++) p->value[k] = saved[k] + (float)((side ? h : -h) * (double)direction[k]);
      values[side] = objective(f);
    }
    least = fmin(least, fabs((values[1] - values[0]) / (2 * h) - expected));
  }
  memcpy(p->value, saved, p->count * sizeof *saved);
  free(direction);
  free(saved);
  return least / (fmax(sqrt(size), least_size) * sqrt(length));
}

/* Float loops over a whole network, with kinks (relu, pools) near every step: only wiring shows, and two directions of eight have to do. */
static void check_differences(graph_maker *make, bnd_network_mode mode) {
  enum { DIRECTIONS = 8 };
  fixture f = open_fixture(make, false, BND_BACKEND_REFERENCE, 2, 1, mode);
  pass(&f);
  size_t count;
  const bnd_parameter *p = bnd_network_parameters(f.network, &count);
  assert_true(count > 5);
  double most = 0;
  for (size_t i = 0; i < count; i++) most = fmax(most, largest(p[i].gradient, p[i].count));
  for (size_t i = 0; i < count; i++) {
    int fine = 0;
    double least = 1e9;
    for (int d = 0; d < DIRECTIONS; d++) {
      const double off = deviation(&f, &p[i], 500 + DIRECTIONS * i + (uint64_t)d, 0.05 * most);
      fine += off <= 1e-2;
      least = fmin(least, off);
    }
    if (fine < 2) fail_msg("%s: %d of %d directions agree, the best off by %g", p[i].name, fine, DIRECTIONS, least);
  }
  close_fixture(&f);
}

static void gradients_are_those_of_differences(void **state) {
  (void)state;
  static graph_maker *const graphs[] = {layers_graph, sums_graph, plain_graph};
  for (size_t g = 0; g < sizeof graphs / sizeof *graphs; g++) {
    check_differences(graphs[g], BND_MODE_TRAIN);
    check_differences(graphs[g], BND_MODE_EVALUATE);
  }
  check_differences(quantized_graph, BND_MODE_EVALUATE);
}

/* --- threads --- */

static record trained(graph_maker *make, bool quantize, bnd_exec_backend backend, int threads) {
  record r = {0};
  fixture f = open_fixture(make, quantize, backend, 5, threads, BND_MODE_TRAIN);
  for (int repeat = 0; repeat < 2; repeat++) {
    forward(&f);
    put_outputs(&r, &f);
    backward(&f);
  }
  put_parameters(&r, f.network, true);
  put_state(&r, f.network);
  close_fixture(&f);
  return r;
}

static void any_number_of_threads_gives_the_same_bits(void **state) {
  (void)state;
  static const struct {
    graph_maker *make;
    bool quantize;
    bnd_exec_backend backend;
  } cases[] = {{layers_graph, false, BND_BACKEND_ONEDNN}, {sums_graph, false, BND_BACKEND_ONEDNN}, {layers_graph, false, BND_BACKEND_REFERENCE},
               {quantized_graph, true, BND_BACKEND_ONEDNN}, {mse_graph, true, BND_BACKEND_ONEDNN}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    record one = trained(cases[c].make, cases[c].quantize, cases[c].backend, 1);
    for (int threads = 2; threads <= 5; threads += 3) {
      record more = trained(cases[c].make, cases[c].quantize, cases[c].backend, threads);
      assert_true(same_record(&one, &more));
      free(more.bytes);
    }
    free(one.bytes);
  }
}

/* --- interruption --- */

typedef struct countdown {
  int left, asked;
} countdown;

static bool count_down(void *user) {
  countdown *c = user;
  c->asked++;
  return c->left-- == 0;
}

/* A pass stopped at each question in turn; then a whole one, which must not notice. */
static void check_interruption(graph_maker *make, bool quantize, bnd_network_mode mode) {
  fixture f = open_fixture(make, quantize, BND_BACKEND_ONEDNN, 2, 1, mode);
  const float *const *images = (const float *const *)f.images;
  record expected = {0}, found = {0};
  bnd_network_zero_gradients(f.network);
  forward(&f);
  put_outputs(&expected, &f);
  backward(&f);
  put_parameters(&expected, f.network, true);
  bnd_error error = {0};
  bool whole = false;
  int stops = 0;
  for (; !whole; stops++) {
    countdown c = {.left = stops};
    bnd_status status = bnd_network_forward(f.network, images, count_down, &c, &error);
    if (status != BND_OK) {
      assert_int_equal(status, BND_ERROR_INTERRUPTED);
      assert_int_equal(bnd_network_backward(f.network, NULL, NULL, &error), BND_ERROR_INTERNAL);
      continue;
    }
    write_output_gradients(&f);
    status = bnd_network_backward(f.network, count_down, &c, &error);
    whole = status == BND_OK;
    if (!whole) assert_int_equal(status, BND_ERROR_INTERRUPTED);
  }
  assert_true(stops > 10);
  bnd_network_zero_gradients(f.network);
  forward(&f);
  put_outputs(&found, &f);
  backward(&f);
  put_parameters(&found, f.network, true);
  assert_true(same_record(&expected, &found));
  free(expected.bytes);
  free(found.bytes);
  close_fixture(&f);
}

static void an_interrupted_network_can_be_used_on(void **state) {
  (void)state;
  check_interruption(layers_graph, false, BND_MODE_TRAIN); /* outputs do not depend on running statistics */
  check_interruption(sums_graph, false, BND_MODE_TRAIN);
  check_interruption(quantized_graph, true, BND_MODE_EVALUATE);
}

/* --- memory --- */

static size_t bytes_of(graph_maker *make, bool quantize, int batch) {
  fixture f = open_fixture(make, quantize, BND_BACKEND_ONEDNN, batch, 1, BND_MODE_TRAIN);
  const size_t bytes = bnd_network_bytes(f.network);
  close_fixture(&f);
  return bytes;
}

/* Layer behind layer: what is kept for the backward pass decides. */
static bnd_graph *deep_graph(void) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, 3, 32, 32));
  for (int i = 0; i < 10; i++) x = normalized(g, bnd_arena_format(bnd_graph_arena(g), "layer%d", i), x, 16, (window){3, 1, 1, 1, false});
  return finished(g, NODES(g, convolution(g, "left", x, 4, (window){1, 1, 0, 1, true}), convolution(g, "right", x, 4, (window){1, 1, 0, 1, true})));
}

static bnd_graph *deep_quantized_graph(void) {
  bnd_graph *graph = deep_graph();
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  insert_quantizers(graph, &config);
  return graph;
}

static void memory_grows_with_the_batch_and_shrinks_under_quantization(void **state) {
  (void)state;
  const size_t one = bytes_of(deep_graph, false, 1), two = bytes_of(deep_graph, false, 2), four = bytes_of(deep_graph, false, 4);
  assert_int_equal(four - two, 2 * (two - one));
  const size_t quantized_one = bytes_of(deep_quantized_graph, true, 1), quantized_two = bytes_of(deep_quantized_graph, true, 2);
  print_message("bytes of an image: %zu, quantized %zu\n", two - one, quantized_two - quantized_one);
  assert_true(2 * (quantized_two - quantized_one) < two - one);
}

/* --- errors --- */

static void expect_creation(bnd_graph *graph, const bnd_network_options *options, bnd_status status, const char *text) {
  bnd_error error = {0};
  bnd_network *network;
  assert_int_equal(bnd_network_create(graph, options, &network, &error), status);
  assert_null(network);
  if (!strstr(error.message, text)) fail_msg("'%s' does not speak of '%s'", error.message, text);
}

static void networks_that_cannot_be_made_are_refused(void **state) {
  (void)state;
  static const int outputs[] = {0, 1};
  bnd_network_options options = {.batch = 0, .threads = 1, .gradient_outputs = outputs, .gradient_output_count = 2};
  bnd_graph *graph = layers_graph();
  expect_creation(graph, &options, BND_ERROR_ARGUMENT, "at least one image");
  options.batch = 1;
  options.threads = 0;
  expect_creation(graph, &options, BND_ERROR_ARGUMENT, "one thread");
  bnd_graph_destroy(graph);
  options.threads = 1;

  bnd_node *x;
  graph = new_graph(&x, BND_SHAPE(2, 3, 8, 8));
  finished(graph, NODES(graph, convolution(graph, "layer", x, 4, (window){3, 1, 1, 1, true})));
  expect_creation(graph, &options, BND_ERROR_ARGUMENT, "x: training needs a graph with batch size 1");
  bnd_graph_destroy(graph);
}

static void a_backward_pass_needs_a_forward_pass(void **state) {
  (void)state;
  bnd_error error = {0};
  fixture f = open_fixture(layers_graph, false, BND_BACKEND_ONEDNN, 1, 1, BND_MODE_TRAIN);
  assert_int_equal(bnd_network_backward(f.network, NULL, NULL, &error), BND_ERROR_INTERNAL);
  pass(&f);
  assert_int_equal(bnd_network_backward(f.network, NULL, NULL, &error), BND_ERROR_INTERNAL);
  close_fixture(&f);
}

static void values_that_are_not_finite_are_named(void **state) {
  (void)state;
  static const struct {
    graph_maker *make;
    bool quantize;
    bnd_network_mode mode;
  } cases[] = {{layers_graph, false, BND_MODE_TRAIN}, {layers_graph, false, BND_MODE_EVALUATE}, {quantized_graph, true, BND_MODE_TRAIN},
               {quantized_graph, true, BND_MODE_FROZEN}, {quantized_graph, true, BND_MODE_EVALUATE}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
    for (int infinite = 0; infinite < 2; infinite++) {
      fixture f = open_fixture(cases[c].make, cases[c].quantize, BND_BACKEND_ONEDNN, 2, 1, cases[c].mode);
      bnd_error error = {0};
      f.images[1][5] = infinite ? INFINITY : NAN;
      assert_int_equal(bnd_network_forward(f.network, (const float *const *)f.images, NULL, NULL, &error), BND_ERROR_MODEL);
      assert_non_null(strstr(error.message, "not finite"));
      assert_true(strncmp(error.message, "x: image 2 ", 11) == 0);
      f.images[1][5] = 0;
      forward(&f);
      close_fixture(&f);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(backends_agree_in_float),
      cmocka_unit_test(backends_agree_under_quantization),
      cmocka_unit_test(gradients_are_those_of_differences),
      cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
      cmocka_unit_test(an_interrupted_network_can_be_used_on),
      cmocka_unit_test(memory_grows_with_the_batch_and_shrinks_under_quantization),
      cmocka_unit_test(networks_that_cannot_be_made_are_refused),
      cmocka_unit_test(a_backward_pass_needs_a_forward_pass),
      cmocka_unit_test(values_that_are_not_finite_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
