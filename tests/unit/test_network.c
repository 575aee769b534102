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
  fixture plain = open_fixture(make, quantize, BND_BACKEND_REFERENCE, 3, 1, mode), fast = open_fixture(make, quantize, BND_BACKEND_ONEDNN, 3, 1, mode);
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(backends_agree_in_float),
      cmocka_unit_test(backends_agree_under_quantization),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
