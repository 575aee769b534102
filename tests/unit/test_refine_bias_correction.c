/* Bias correction: means of what layers put out come back to those of the float network, as closely as a quantized bias can say it. */
#include "refine_work.h"

#include "refine/bias_correction.h"

/* Distance of a layer's quantized bias from the values it stands for, against half a step of it: nothing may be clipped. */
static void assert_biases_fit(const bnd_graph *graph) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node) || !node->module->bias_quantizer || !node->module->bias.data) continue;
    bnd_tensor quantized;
    ASSERT_OK(bnd_tensor_copy(&node->module->bias, &quantized, error));
    bnd_fake_quantize(node->module->bias_quantizer, bnd_f32(&quantized), bnd_f32(&quantized), 1, quantized.count);
    const double step = (double)bnd_scale_of(node->module->bias_quantizer->position[0]);
    for (size_t i = 0; i < quantized.count; i++)
      assert_true(fabs((double)bnd_f32(&quantized)[i] - (double)bnd_f32(&node->module->bias)[i]) <= 2 * step); /* least error may clip a little */
    bnd_tensor_release(&quantized);
  }
}

/* Mean of each channel of the results of the layers, a float network's minus a quantized one's, as the largest magnitude over all layers, in bias steps. */
static double largest_drift(const workshop *w) {
  double largest = 0;
  for (bnd_node *layer = bnd_graph_first(w->graph); layer; layer = layer->next) {
    if (!bnd_is_conv_module(layer) || !layer->module->bias.data) continue;
    double *means = calloc(layer->module->bias.count, sizeof *means);
    for (int k = 0; k < 2; k++) {
      bnd_graph *copy;
      ASSERT_OK(bnd_graph_copy(k ? w->graph : w->teacher, &copy, error));
      bnd_node *node = bnd_graph_find(copy, layer->name);
      bnd_node_set_arg(bnd_graph_last(copy), 0, bnd_graph_node_list(copy, &node, 1));
      runner r = open_runner(copy, k ? BND_EXEC_FAKE_QUANTIZE : BND_EXEC_FLOAT);
      const size_t inner = (size_t)(layer->shape[0].size[2] * layer->shape[0].size[3]);
      for (int i = 0; i < 10; i++) {
        run_with(&r, (const float *const[]){w->values[i]});
        for (size_t c = 0; c < layer->module->bias.count; c++)
          for (size_t p = 0; p < inner; p++)
            means[c] += (k ? -1 : 1) * (double)bnd_session_output(r.session, 0)[c * inner + p] / (double)(inner * 10);
      }
      close_runner(&r);
      bnd_graph_destroy(copy);
    }
    const double step = (double)bnd_scale_of(layer->module->bias_quantizer->position[0]);
    for (size_t c = 0; c < layer->module->bias.count; c++) largest = fabs(means[c]) / step > largest ? fabs(means[c]) / step : largest;
    free(means);
  }
  return largest;
}

static void empirical_brings_means_back(void **state) {
  (void)state;
  bnd_string report = {0};
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 2);
  const double before = largest_drift(w);
  ASSERT_OK(bnd_refine_bias_empirical(&w->work, NULL, &report, error));
  const double after = largest_drift(w);
  assert_true(before > 1);
  assert_true(after < 0.55); /* half a step is what rounding the bias leaves, and nothing else is left */
  assert_biases_fit(w->graph);
  assert_non_null(strstr(report.text, "layers"));
  bnd_string_free(&report);
  close_workshop(w);
}

/* A graph x -> 1x1 convolution -> result over constant images: the correction is exact, E[x] being x. */
static bnd_graph *flat_graph(void) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, 3, 6, 6));
  bnd_node *first = relu(g, convolution(g, "first", x, 8, (window){1, 1, 0, 1, true}));
  finished(g, NODES(g, relu(g, convolution(g, "second", first, 4, (window){1, 1, 0, 1, true})), first));
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  insert_quantizers(g, &config);
  return g;
}

static void analytic_is_exact_for_constant_images(void **state) {
  (void)state;
  workshop *w = new_workshop(flat_graph(), 1);
  float *values = w->values[0];
  for (int c = 0; c < 3; c++)
    for (int i = 0; i < 36; i++) values[c * 36 + i] = 0.3f + 0.217f * (float)c; /* on no grid of the input's */
  calibrate_workshop(w, 1, 1, 0, 1);
  ASSERT_OK(bnd_adjust_to_fixed_point(w->graph, &w->target, NULL, error));
  bnd_string report = {0};
  ASSERT_OK(bnd_refine_bias_analytic(&w->work, &report, error));
  for (bnd_node *node = bnd_graph_first(w->graph); node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    /* W x + b of the float network against Q(W) Q(x) + b' before b' is rounded */
    const bnd_module *m = node->module, *t = bnd_graph_find(w->teacher, node->name)->module;
    bnd_tensor weight, bias;
    ASSERT_OK(bnd_module_quantized_weights(m, false, &weight, &bias, error));
    if (m->weight.shape.size[1] != 3) { /* behind the first layer only its own input's rounding is exact to follow */
      bnd_tensor_release(&weight);
      bnd_tensor_release(&bias);
      continue;
    }
    for (int64_t o = 0; o < m->weight.shape.size[0]; o++) {
      double exact = (double)bnd_f32(&t->bias)[o], rounded = (double)bnd_f32(&m->bias)[o];
      for (int c = 0; c < 3; c++) {
        float q = values[c * 36];
        bnd_fake_quantize(bnd_arg_node(node, 0)->module->quantizer, &q, &q, 1, 1);
        exact += (double)bnd_f32(&t->weight)[o * 3 + c] * (double)values[c * 36];
        rounded += (double)bnd_f32(&weight)[o * 3 + c] * (double)q;
      }
      assert_true(fabs(exact - rounded) < 1e-6);
    }
    bnd_tensor_release(&weight);
    bnd_tensor_release(&bias);
  }
  assert_biases_fit(w->graph);
  bnd_string_free(&report);
  close_workshop(w);
}

static void analytic_lowers_drift(void **state) {
  (void)state;
  bnd_string report = {0};
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 1);
  const double before = largest_drift(w);
  ASSERT_OK(bnd_refine_bias_analytic(&w->work, &report, error));
  assert_true(largest_drift(w) < before);
  assert_biases_fit(w->graph);
  bnd_string_free(&report);
  close_workshop(w);
}

static bnd_status correct_both_ways(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  BND_TRY(bnd_refine_bias_analytic(work, report, error));
  return bnd_refine_bias_empirical(work, &(bnd_bias_options){.images = 4, .rounds = 3}, report, error);
}

static void threads_do_not_show(void **state) {
  (void)state;
  check_threads(open_adjusted_workshop, BND_BACKEND_ONEDNN, correct_both_ways);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(empirical_brings_means_back), cmocka_unit_test(analytic_is_exact_for_constant_images),
      cmocka_unit_test(analytic_lowers_drift),       cmocka_unit_test(threads_do_not_show),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
