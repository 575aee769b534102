/* Equalization: which channels may be scaled, that the float network stays the same, and that a disparity put in by hand is healed. */
#include "refine_work.h"

#include "refine/channels.h"
#include "refine/equalize.h"

/* Largest difference between the first output of two networks in float, over the largest value, for the images held out. */
static double float_difference(const bnd_graph *a, const bnd_graph *b, const workshop *w) {
  runner runners[] = {open_runner(a, BND_EXEC_FLOAT), open_runner(b, BND_EXEC_FLOAT)};
  double largest = 0, difference = 0;
  for (int i = 10; i < PICTURES; i++) {
    for (int k = 0; k < 2; k++) run_with(&runners[k], (const float *const[]){w->values[i]});
    for (int o = 0; o < bnd_executor_output_count(runners[0].executor); o++) {
      const float *x = bnd_session_output(runners[0].session, o), *y = bnd_session_output(runners[1].session, o);
      for (size_t c = 0, count = run_output_size(&runners[0], o); c < count; c++) {
        largest = fabs((double)x[c]) > largest ? fabs((double)x[c]) : largest;
        difference = fabs((double)x[c] - (double)y[c]) > difference ? fabs((double)x[c] - (double)y[c]) : difference;
      }
    }
  }
  for (int k = 0; k < 2; k++) close_runner(&runners[k]);
  return difference / largest;
}

static void float_network_is_unchanged(void **state) {
  (void)state;
  for (int powers = 0; powers < 2; powers++) {
    workshop *w = open_workshop(BND_BACKEND_REFERENCE, 1);
    bnd_string report = {0};
    const bnd_equalize_options options = {.powers_of_two = powers, .iterations = 50};
    const record before = trained_bytes(w->teacher);
    ASSERT_OK(bnd_refine_equalize_with(&w->work, &options, &report, error));
    const record graph = trained_bytes(w->graph);
    assert_false(same_record(&before, &graph));
    assert_same(before, trained_bytes(w->teacher)); /* tensors of a copy are shared: nothing wrote through */
    const double difference = float_difference(w->teacher, w->graph, w);
    assert_true(difference < 1e-5);
    bnd_string_free(&report);
    free(graph.bytes);
    close_workshop(w);
  }
}

/* The input's channels, and what the network puts out, must keep their scale. Channels of a concatenation are those of what it joins. */
static void classes_of_channels(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, 1);
  bnd_channels channels;
  ASSERT_OK(bnd_channels_find(w->graph, &channels, error));
  int free_layers = 0;
  for (bnd_node *node = bnd_graph_first(w->graph); node; node = node->next) {
    if (node->kind == BND_PLACEHOLDER)
      for (int c = 0; c < 3; c++) assert_false(channels.free[bnd_channel_class(&channels, node, c)]);
    if (bnd_is_concat(node)) {
      int64_t offset = 0;
      for (int i = 0; i < node->args[0].list.count; i++) {
        const bnd_node *input = node->args[0].list.items[i].node;
        for (int64_t c = 0; c < input->shape[0].size[1]; c++)
          assert_int_equal(bnd_channel_class(&channels, node, offset + c), bnd_channel_class(&channels, input, c));
        offset += input->shape[0].size[1];
      }
    }
    if (!bnd_is_scalable_layer(node)) continue;
    const bool is_free = channels.free[bnd_channel_class(&channels, node, 0)];
    const bool feeds_convolution = !bnd_node_is(node->users[0]->users[0], BND_OP_RESHAPE);
    assert_int_equal(is_free, feeds_convolution);
    free_layers += is_free;
  }
  assert_true(free_layers > 3);
  bnd_channels_free(&channels);
  close_workshop(w);
}

/* Multiplies the rows of one layer by `factor` for its even channels and the columns of all readers by the inverse: the same float network. */
static void disturb(bnd_graph *graph, float factor) {
  bnd_channels channels;
  ASSERT_OK(bnd_channels_find(graph, &channels, error));
  bnd_node *maker = NULL;
  for (bnd_node *node = bnd_graph_first(graph); node && !maker; node = node->next)
    if (bnd_is_scalable_layer(node) && channels.free[bnd_channel_class(&channels, node, 0)]) maker = node;
  assert_non_null(maker);
  float *factors = malloc((size_t)channels.classes * sizeof *factors);
  for (int c = 0; c < channels.classes; c++) factors[c] = 1;
  for (int64_t c = 0; c < maker->shape[0].size[1]; c += 2) factors[bnd_channel_class(&channels, maker, c)] = factor;
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_scalable_layer(node)) continue;
    const bnd_weight_view v = bnd_weight_view_of(node);
    bnd_tensor weight, bias;
    ASSERT_OK(bnd_tensor_copy(&node->module->weight, &weight, error));
    ASSERT_OK(bnd_tensor_copy(&node->module->bias, &bias, error));
    for (size_t r = 0; r < v.rows; r++)
      for (size_t c = 0; c < v.columns; c++) {
        const int in = bnd_channel_class(&channels, bnd_arg_node(node, 0), (int64_t)bnd_weight_input(&v, r, c));
        const int out = bnd_channel_class(&channels, node, (int64_t)bnd_weight_output(&v, r, c));
        for (size_t k = 0; k < v.window; k++) bnd_f32(&weight)[(r * v.columns + c) * v.window + k] *= factors[in] / factors[out];
      }
    for (size_t o = 0; o < bias.count; o++) bnd_f32(&bias)[o] /= factors[bnd_channel_class(&channels, node, (int64_t)o)];
    bnd_tensor_release(&node->module->weight);
    bnd_tensor_release(&node->module->bias);
    node->module->weight = weight;
    node->module->bias = bias;
  }
  free(factors);
  bnd_channels_free(&channels);
}

static void forget_range(bnd_quantizer *q) {
  if (q) q->minimum[0] = INFINITY, q->maximum[0] = -INFINITY;
}

static void disparity_is_healed(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, 2);
  bnd_string report = {0};
  const double good = relative_error(w);
  disturb(w->graph, 32);
  assert_true(float_difference(w->teacher, w->graph, w) < 1e-5);
  for (bnd_node *node = bnd_graph_first(w->graph); node; node = node->next) {
    if (!node->module) continue;
    forget_range(node->module->weight_quantizer);
    forget_range(node->module->bias_quantizer);
    forget_range(node->module->quantizer);
  }
  calibrate(w->graph, w->values, 10, w->images.input_size, 10);
  const double disturbed = relative_error(w);
  ASSERT_OK(bnd_refine_equalize_with(&w->work, &(bnd_equalize_options){.largest = 64, .iterations = 400}, &report, error));
  const double healed = relative_error(w);
  print_message("relative squared error: %g, disturbed %g, healed %g\n", good, disturbed, healed);
  assert_true(disturbed > 3 * good);
  assert_true(healed < 1.5 * good);
  bnd_string_free(&report);
  close_workshop(w);
}

static void threads_do_not_show(void **state) {
  (void)state;
  check_threads(open_workshop, BND_BACKEND_REFERENCE, bnd_refine_equalize);
}

static void interruption(void **state) {
  (void)state;
  check_cancelling(BND_BACKEND_REFERENCE, bnd_refine_equalize, 1, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(float_network_is_unchanged), cmocka_unit_test(classes_of_channels), cmocka_unit_test(disparity_is_healed),
      cmocka_unit_test(threads_do_not_show),        cmocka_unit_test(interruption),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
