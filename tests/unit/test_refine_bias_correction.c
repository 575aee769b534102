/* Bias correction: means of what layers put out come back to those of the float network, as closely as a quantized bias can say it. */
#include "refine_work.h"

#include "flow/target_profile.h"
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

static void start(workshop *w, bnd_target_profile *target) {
  ASSERT_OK(bnd_target_profile_load(NULL, target, error));
  w->work.target = target;
  ASSERT_OK(bnd_adjust_to_fixed_point(w->graph, target, NULL, error));
}

/* Mean of each channel of the results of the layers, a float network's minus a quantized one's, as the largest magnitude over all layers, in bias steps. */
static double largest_drift(const workshop *w) {
  double largest = 0;
  for (bnd_node *layer = bnd_graph_first(w->graph); layer; layer = layer->next) {
    if (!bnd_is_conv_module(layer) || !layer->module->bias.data) continue;
    double *means = calloc(layer->module->bias.count, sizeof *means);
    for (int k = 0; k < 2; k++) {
      bnd_graph *copy;
      bnd_executor *executor;
      bnd_session *session;
      ASSERT_OK(bnd_graph_copy(k ? w->graph : w->teacher, &copy, error));
      bnd_node *node = bnd_graph_find(copy, layer->name);
      bnd_node_set_arg(bnd_graph_last(copy), 0, bnd_graph_node_list(copy, &node, 1));
      const bnd_exec_options options = {.mode = k ? BND_EXEC_FAKE_QUANTIZE : BND_EXEC_FLOAT, .backend = BND_BACKEND_REFERENCE, .threads = 1};
      ASSERT_OK(bnd_executor_create(copy, &options, &executor, error));
      ASSERT_OK(bnd_session_create(executor, &session, error));
      const size_t inner = (size_t)(layer->shape[0].size[2] * layer->shape[0].size[3]);
      for (int i = 0; i < 10; i++) {
        const float *const inputs[] = {w->values[i]};
        ASSERT_OK(bnd_session_run(session, inputs, NULL, NULL, error));
        for (size_t c = 0; c < layer->module->bias.count; c++)
          for (size_t p = 0; p < inner; p++)
            means[c] += (k ? -1 : 1) * (double)bnd_session_output(session, 0)[c * inner + p] / (double)(inner * 10);
      }
      bnd_session_destroy(session);
      bnd_executor_destroy(executor);
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
  bnd_target_profile target;
  bnd_string report = {0};
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, 2);
  start(w, &target);
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
  return finished(g, NODES(g, relu(g, convolution(g, "second", first, 4, (window){1, 1, 0, 1, true})), first));
}

static void analytic_is_exact_for_constant_images(void **state) {
  (void)state;
  bnd_target_profile target;
  ASSERT_OK(bnd_target_profile_load(NULL, &target, error));
  bnd_graph *graph = flat_graph(), *teacher;
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  insert_quantizers(graph, &config);
  float values[3 * 36], *images[] = {values};
  for (int c = 0; c < 3; c++)
    for (int i = 0; i < 36; i++) values[c * 36 + i] = 0.3f + 0.217f * (float)c; /* on no grid of the input's */
  calibrate(graph, images, 1, 3 * 36, 1);
  ASSERT_OK(bnd_adjust_to_fixed_point(graph, &target, NULL, error));
  ASSERT_OK(bnd_graph_copy(graph, &teacher, error));
  pictures from = {images, 3 * 36};
  const bnd_image_source source = {.user = &from, .count = 1, .input_size = 3 * 36, .load = load_picture};
  const bnd_context context = {.threads = 1};
  bnd_refinement work = {.graph = graph, .teacher = teacher, .images = &source, .held_out = &source, .target = &target,
                         .backend = BND_BACKEND_REFERENCE, .context = &context};
  bnd_string report = {0};
  ASSERT_OK(bnd_refine_bias_analytic(&work, &report, error));
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    /* W x + b of the float network against Q(W) Q(x) + b' before b' is rounded */
    const bnd_module *m = node->module, *t = bnd_graph_find(teacher, node->name)->module;
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
  assert_biases_fit(graph);
  bnd_string_free(&report);
  bnd_graph_destroy(graph);
  bnd_graph_destroy(teacher);
}

static void analytic_lowers_drift(void **state) {
  (void)state;
  bnd_target_profile target;
  bnd_string report = {0};
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, 1);
  start(w, &target);
  const double before = largest_drift(w);
  ASSERT_OK(bnd_refine_bias_analytic(&w->work, &report, error));
  assert_true(largest_drift(w) < before);
  assert_biases_fit(w->graph);
  bnd_string_free(&report);
  close_workshop(w);
}

static void threads_do_not_show(void **state) {
  (void)state;
  record records[2];
  for (int k = 0; k < 2; k++) {
    bnd_target_profile target;
    bnd_string report = {0};
    workshop *w = open_workshop(BND_BACKEND_ONEDNN, 1 + 2 * k);
    start(w, &target);
    const record before = trained_bytes(w->teacher);
    ASSERT_OK(bnd_refine_bias_analytic(&w->work, &report, error));
    ASSERT_OK(bnd_refine_bias_empirical(&w->work, &(bnd_bias_options){.images = 4, .rounds = 3}, &report, error));
    const record after = trained_bytes(w->teacher);
    assert_true(same_record(&before, &after));
    records[k] = trained_bytes(w->graph);
    free(before.bytes), free(after.bytes);
    bnd_string_free(&report);
    close_workshop(w);
  }
  assert_true(same_record(&records[0], &records[1]));
  free(records[0].bytes), free(records[1].bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(empirical_brings_means_back), cmocka_unit_test(analytic_is_exact_for_constant_images),
      cmocka_unit_test(analytic_lowers_drift),       cmocka_unit_test(threads_do_not_show),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
