/* Batch statistics, observers while training, and the convolution with batch norm and quantizers inside, against closed forms in double. */
#include "network_graphs.h"

static const bnd_parameter *parameter_of(const bnd_network *network, const char *end) {
  size_t count;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  for (size_t i = 0; i < count; i++)
    if (strlen(p[i].name) >= strlen(end) && strcmp(p[i].name + strlen(p[i].name) - strlen(end), end) == 0) return &p[i];
  fail_msg("no parameter %s", end);
  return NULL;
}

static void assert_near(const char *what, double value, double expected, double tolerance) {
  if (!(fabs(value - expected) <= tolerance)) fail_msg("%s: %.9g, expected %.9g", what, value, expected);
}

/* --- running statistics --- */

enum { CHANNELS = 3, PIXELS = 6 * 5 };

static bnd_graph *norm_graph(void) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, CHANNELS, 6, 5));
  bnd_node *norm = batch_norm(g, "norm", x);
  return finished(g, NODES(g, norm, relu(g, norm)));
}

static void moments(const fixture *f, int channel, double *mean, double *variance) {
  double sum = 0, square = 0;
  const double count = (double)f->batch * PIXELS;
  for (int i = 0; i < f->batch; i++)
    for (int k = 0; k < PIXELS; k++) sum += (double)f->images[i][channel * PIXELS + k];
  *mean = sum / count;
  for (int i = 0; i < f->batch; i++)
    for (int k = 0; k < PIXELS; k++) square += pow((double)f->images[i][channel * PIXELS + k] - *mean, 2);
  *variance = square / count;
}

static void running_statistics_follow_the_batch(void **state) {
  (void)state;
  for (int mode = BND_MODE_EVALUATE; mode <= BND_MODE_FROZEN; mode++) {
    fixture f = open_fixture(norm_graph, false, BND_BACKEND_ONEDNN, 3, 1, (bnd_network_mode)mode);
    size_t count;
    const bnd_statistic *s = bnd_network_statistics(f.network, &count);
    assert_int_equal(count, 2);
    assert_string_equal(s[0].name, "norm.running_mean");
    assert_string_equal(s[1].name, "norm.running_var");
    double mean[CHANNELS], variance[CHANNELS];
    for (int c = 0; c < CHANNELS; c++) {
      mean[c] = (double)s[0].value[c];
      variance[c] = (double)s[1].value[c];
    }
    for (int repeat = 0; repeat < 3; repeat++) {
      for (size_t k = 0; k < f.input_size; k++) f.images[1][k] += 0.25f * (float)repeat;
      forward(&f);
      for (int c = 0; c < CHANNELS; c++) {
        double batch_mean, batch_variance;
        moments(&f, c, &batch_mean, &batch_variance);
        const double n = 3.0 * PIXELS;
        if (mode == BND_MODE_TRAIN) {
          mean[c] = (1 - MOMENTUM) * mean[c] + MOMENTUM * batch_mean;
          variance[c] = (1 - MOMENTUM) * variance[c] + MOMENTUM * batch_variance * n / (n - 1);
        }
        assert_near("mean", (double)s[0].value[c], mean[c], 1e-6);
        assert_near("variance", (double)s[1].value[c], variance[c], 1e-6);
        const double gamma = (double)parameter_of(f.network, "norm.weight")->value[c], beta = (double)parameter_of(f.network, "norm.bias")->value[c];
        const double m = mode == BND_MODE_TRAIN ? batch_mean : mean[c], v = mode == BND_MODE_TRAIN ? batch_variance : variance[c];
        for (int k = 0; k < PIXELS; k++) {
          const size_t at = (size_t)(c * PIXELS + k);
          const double expected = ((double)f.images[2][at] - m) / sqrt(v + EPSILON) * gamma + beta;
          assert_near("output", (double)bnd_network_output(f.network, 0, 2)[at], expected, 2e-6);
        }
      }
    }
    close_fixture(&f);
  }
}

static bnd_graph *bias_graph(void) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, 3, 6, 6));
  bnd_node *layer = normalized(g, "layer", x, 4, (window){3, 1, 1, 1, true});
  return finished(g, NODES(g, layer, convolution(g, "last", layer, 3, (window){1, 1, 0, 1, true})));
}

/* The mean takes a bias in front of a batch norm away: its gradient is zero, but for rounding. */
static void a_bias_in_front_of_a_batch_norm_gets_nothing(void **state) {
  (void)state;
  fixture f = open_fixture(bias_graph, false, BND_BACKEND_ONEDNN, 3, 1, BND_MODE_TRAIN);
  pass(&f);
  for (int c = 0; c < 4; c++) assert_near("gradient", (double)parameter_of(f.network, "layer.conv.bias")->gradient[c], 0, 1e-4);
  assert_true(fabsf(parameter_of(f.network, "layer.bn.bias")->gradient[0]) > 1e-2f);
  bnd_network_set_mode(f.network, BND_MODE_FROZEN);
  pass(&f);
  assert_true(fabsf(parameter_of(f.network, "layer.conv.bias")->gradient[0]) > 1e-2f);
  close_fixture(&f);
}

/* --- observers --- */

static void scale_images(fixture *f, float largest) {
  for (int i = 0; i < f->batch; i++) {
    for (size_t k = 0; k < f->input_size; k++) f->images[i][k] = 0;
    f->images[i][i] = i ? 0.5f * largest : largest; /* the first image alone has the largest value */
    f->images[i][7] = -0.25f * largest;
  }
}

static void observers_widen_and_vote_while_training(void **state) {
  (void)state;
  fixture f = open_fixture(quantized_graph, true, BND_BACKEND_ONEDNN, 2, 1, BND_MODE_TRAIN);
  size_t count;
  const bnd_network_quantizer *list = bnd_network_quantizers(f.network, &count);
  assert_true(count > 20);
  const bnd_quantizer *input = NULL; /* the first fake quantizer of the graph sees the images */
  for (const bnd_node *node = bnd_graph_first(f.graph); node && !input; node = node->next)
    if (bnd_is_fake_quantize(node) && bnd_arg_node(node, 0)->kind == BND_PLACEHOLDER) input = node->module->quantizer;
  assert_non_null(input);
  assert_int_equal(input->position[0], 7); /* calibrated on values in -1 .. 1 */
  assert_int_equal(input->record_count, 0);

  scale_images(&f, 0.9f); /* no news: the running range stays */
  const float maximum = input->maximum[0];
  for (int k = 0; k < 2; k++) forward(&f);
  assert_true(input->maximum[0] == maximum);
  assert_int_equal(input->record_count, 1);
  assert_int_equal(input->records[0].votes, 2);
  assert_int_equal(input->position[0], 7);
  scale_images(&f, 3.5f);
  for (int k = 1; k <= 3; k++) {
    forward(&f);
    assert_true(input->maximum[0] == 3.5f);
    assert_int_equal(input->record_count, 2);
    assert_int_equal(input->records[1].votes, k);
    assert_int_equal(input->position[0], k < 3 ? 7 : 5); /* a majority is needed; 127 * 2^-5 holds 3.5 */
  }
  scale_images(&f, 0.9f); /* ranges never shrink, and voting goes on with them */
  forward(&f);
  assert_int_equal(input->records[1].votes, 4);

  bnd_network_set_mode(f.network, BND_MODE_EVALUATE);
  for (size_t q = 0; q < count; q++) assert_int_equal(list[q].quantizer->record_count, 0);
  assert_int_equal(input->position[0], 5);
  scale_images(&f, 9.f);
  record before = {0}, after = {0};
  put_state(&before, f.network);
  forward(&f);
  put_state(&after, f.network);
  assert_true(same_record(&before, &after)); /* evaluation observes nothing */
  free(before.bytes);
  free(after.bytes);
  bnd_network_set_mode(f.network, BND_MODE_FROZEN);
  size_t statistic_count;
  const bnd_statistic *statistics = bnd_network_statistics(f.network, &statistic_count);
  const float mean = statistics[0].value[0];
  forward(&f);
  assert_true(input->maximum[0] == 9.f && input->records[0].votes == 1);
  assert_true(statistics[0].value[0] == mean);
  close_fixture(&f);
}

/* --- convolution, batch norm, quantizers --- */

enum { IN = 3, OUT = 4, SIDE = 6, AREA = SIDE * SIDE, WINDOW = 3, BATCH = 3 };

static bnd_graph *module_graph(bool transposed) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, IN, transposed ? SIDE / 2 : SIDE, transposed ? SIDE / 2 : SIDE));
  bnd_node *layer = transposed ? transposed_convolution(g, "layer", x, OUT) : convolution(g, "layer", x, OUT, (window){WINDOW, 1, 1, 1, true});
  bnd_node *norm = batch_norm(g, "layer.bn", layer);
  finished(g, NODES(g, norm, norm));
  bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  config.global.output.present = false; /* what the module computes is seen as it is */
  insert_quantizers(g, &config);
  return g;
}

static bnd_graph *convolution_module(void) {
  return module_graph(false);
}

static bnd_graph *transposed_module(void) {
  return module_graph(true);
}

static double on_grid(const bnd_quantizer *quantizer, double value) {
  const double scale = ldexp(1, -quantizer->position[0]);
  return fmin(fmax(nearbyint(value / scale), -128), 127) * scale;
}

/* A layer as a list of products: output element o gets x[i] * w[k] for each. */
typedef struct product {
  int output, input, weight;
} product;

static size_t products_of(bool transposed, product *list) {
  size_t n = 0;
  for (int o = 0; o < OUT; o++)
    for (int c = 0; c < IN; c++) {
      if (transposed) {
        for (int y = 0; y < SIDE; y++)
          for (int x = 0; x < SIDE; x++)
            list[n++] = (product){o * AREA + y * SIDE + x, c * AREA / 4 + y / 2 * (SIDE / 2) + x / 2, ((c * OUT + o) * 2 + y % 2) * 2 + x % 2};
        continue;
      }
      for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
          for (int i = 0; i < WINDOW; i++)
            for (int j = 0; j < WINDOW; j++) {
              const int row = y + i - 1, column = x + j - 1;
              if (row < 0 || column < 0 || row >= SIDE || column >= SIDE) continue;
              list[n++] = (product){o * AREA + y * SIDE + x, c * AREA + row * SIDE + column, ((o * IN + c) * WINDOW + i) * WINDOW + j};
            }
    }
  return n;
}

static void check_module(bool transposed, bnd_exec_backend backend, bnd_network_mode mode) {
  fixture f = open_fixture(transposed ? transposed_module : convolution_module, true, backend, BATCH, 1, mode);
  static product list[OUT * IN * AREA * WINDOW * WINDOW];
  const size_t products = products_of(transposed, list);
  const int weights = transposed ? IN * OUT * 4 : OUT * IN * WINDOW * WINDOW;
  const bool training = mode == BND_MODE_TRAIN;
  size_t count;
  const bnd_network_quantizer *quantizers = bnd_network_quantizers(f.network, &count);
  const char *module = NULL;
  for (const bnd_node *node = bnd_graph_first(f.graph); node; node = node->next)
    if (bnd_is_conv_module(node)) module = node->module->name;
  assert_non_null(module);
  const bnd_quantizer *input = NULL, *weight_quantizer = NULL, *bias_quantizer = NULL;
  for (size_t q = 0; q < count; q++) {
    if (strstr(quantizers[q].name, "_weight_quantizer")) weight_quantizer = quantizers[q].quantizer;
    else if (strstr(quantizers[q].name, "_bias_quantizer")) bias_quantizer = quantizers[q].quantizer;
    else if (strncmp(quantizers[q].name, "fake_quantizer", 14) == 0 && !input) input = quantizers[q].quantizer;
  }
  assert_true(input && weight_quantizer && bias_quantizer);
  const bnd_parameter *W = parameter_of(f.network, "quantized_module.weight"), *b = parameter_of(f.network, "quantized_module.bias");
  const bnd_parameter *gamma = parameter_of(f.network, ".bn.weight"), *beta = parameter_of(f.network, ".bn.bias");
  const bnd_statistic *statistics = bnd_network_statistics(f.network, &count);
  double mean[OUT], variance[OUT];
  for (int c = 0; c < OUT; c++) {
    mean[c] = (double)statistics[0].value[c];
    variance[c] = (double)statistics[1].value[c];
  }
  bnd_network_zero_gradients(f.network);
  forward(&f);

  /* forward, by the formulas of 6.4 */
  static double x[BATCH][IN * AREA], plain[BATCH][OUT * AREA], folded[BATCH][OUT * AREA];
  memset(plain, 0, sizeof plain);
  memset(folded, 0, sizeof folded);
  for (int i = 0; i < BATCH; i++) {
    for (size_t k = 0; k < f.input_size; k++) x[i][k] = on_grid(input, (double)f.images[i][k]);
    for (size_t p = 0; p < products; p++) plain[i][list[p].output] += x[i][list[p].input] * (double)W->value[list[p].weight];
  }
  double m[OUT], r[OUT], deviation[OUT], bias[OUT], quantized[OUT * IN * WINDOW * WINDOW];
  for (int c = 0; c < OUT; c++) {
    const double own = (double)b->value[c], n = (double)BATCH * AREA;
    if (training) {
      double sum = 0, square = 0;
      for (int i = 0; i < BATCH; i++)
        for (int k = 0; k < AREA; k++) sum += plain[i][c * AREA + k];
      m[c] = sum / n;
      for (int i = 0; i < BATCH; i++)
        for (int k = 0; k < AREA; k++) square += pow(plain[i][c * AREA + k] - m[c], 2);
      mean[c] = (1 - MOMENTUM) * mean[c] + MOMENTUM * (m[c] + own);
      variance[c] = (1 - MOMENTUM) * variance[c] + MOMENTUM * square / (n - 1);
      r[c] = 1 / sqrt(square / n + EPSILON);
    } else {
      m[c] = mean[c] - own;
      r[c] = 1 / sqrt(variance[c] + EPSILON);
    }
    deviation[c] = sqrt(variance[c] + EPSILON);
    bias[c] = on_grid(bias_quantizer, (double)beta->value[c] - (double)gamma->value[c] * m[c] * r[c]);
    assert_near("running mean", (double)statistics[0].value[c], mean[c], 1e-6);
    assert_near("running variance", (double)statistics[1].value[c], variance[c], 1e-6);
  }
  for (int k = 0; k < weights; k++) {
    const int c = transposed ? k / 4 % OUT : k / (IN * WINDOW * WINDOW);
    quantized[k] = on_grid(weight_quantizer, (double)W->value[k] * (double)gamma->value[c] / deviation[c]);
  }
  for (int i = 0; i < BATCH; i++) {
    for (size_t p = 0; p < products; p++) folded[i][list[p].output] += x[i][list[p].input] * quantized[list[p].weight];
    for (int k = 0; k < OUT * AREA; k++) {
      const int c = k / AREA;
      assert_near("output", (double)bnd_network_output(f.network, 0, i)[k], folded[i][k] * (deviation[c] * r[c]) + bias[c], 1e-5);
    }
  }

  /* backward: the two outputs are one value, so that its gradient is what was written last */
  float dy[OUT * AREA];
  double dW[OUT * IN * WINDOW * WINDOW] = {0}, db[OUT] = {0}, dgamma[OUT] = {0};
  for (int i = 0; i < BATCH; i++) {
    output_factors(f.network, 1, i, dy);
    for (size_t p = 0; p < products; p++) {
      const int c = list[p].output / AREA;
      dW[list[p].weight] += (double)dy[list[p].output] * (deviation[c] * r[c]) * x[i][list[p].input];
    }
    for (int k = 0; k < OUT * AREA; k++) db[k / AREA] += (double)dy[k];
  }
  backward(&f);
  for (int k = 0; k < weights; k++) {
    const int c = transposed ? k / 4 % OUT : k / (IN * WINDOW * WINDOW);
    dgamma[c] += dW[k] * (double)W->value[k] / deviation[c];
    assert_near("gradient of W", (double)W->gradient[k], dW[k] * (double)gamma->value[c] / deviation[c], 2e-5);
  }
  for (int c = 0; c < OUT; c++) {
    assert_near("gradient of gamma", (double)gamma->gradient[c], dgamma[c] - db[c] * m[c] * r[c], 2e-5);
    assert_near("gradient of beta", (double)beta->gradient[c], db[c], 1e-5);
    assert_near("gradient of b", (double)b->gradient[c], training ? 0 : db[c] * (double)gamma->value[c] * r[c], 1e-5);
  }
  assert_int_equal(b->reached, !training);
  assert_true(W->reached && gamma->reached && beta->reached);
  assert_false(W->direct || gamma->direct || beta->direct || b->direct);
  close_fixture(&f);
}

static void quantized_modules_follow_the_formulas(void **state) {
  (void)state;
  for (int mode = BND_MODE_EVALUATE; mode <= BND_MODE_FROZEN; mode++)
    for (int transposed = 0; transposed < 2; transposed++) {
      check_module(transposed, BND_BACKEND_ONEDNN, (bnd_network_mode)mode);
      check_module(transposed, BND_BACKEND_REFERENCE, (bnd_network_mode)mode);
    }
}

/* What goes into a quantizer as it is, and nothing else. */
static void parameters_that_are_quantized_as_they_are_are_marked(void **state) {
  (void)state;
  fixture f = open_fixture(quantized_graph, true, BND_BACKEND_ONEDNN, 1, 1, BND_MODE_TRAIN);
  size_t count, direct = 0;
  const bnd_parameter *p = bnd_network_parameters(f.network, &count);
  for (size_t i = 0; i < count; i++) direct += p[i].direct;
  assert_int_equal(direct, 7); /* weight and bias of the transposed convolution and of the two predictions, alpha */
  assert_true(parameter_of(f.network, "alpha")->direct);
  close_fixture(&f);
  f = open_fixture(quantized_graph, false, BND_BACKEND_ONEDNN, 1, 1, BND_MODE_TRAIN);
  p = bnd_network_parameters(f.network, &count);
  for (size_t i = 0; i < count; i++) assert_false(p[i].direct);
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(running_statistics_follow_the_batch),
      cmocka_unit_test(a_bias_in_front_of_a_batch_norm_gets_nothing),
      cmocka_unit_test(observers_widen_and_vote_while_training),
      cmocka_unit_test(quantized_modules_follow_the_formulas),
      cmocka_unit_test(parameters_that_are_quantized_as_they_are_are_marked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
