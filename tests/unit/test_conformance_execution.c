/* The conformance cases run: what the float network computes, where calibration puts every position, what the frozen network computes. */
#include <math.h>

#include "conformance.h"
#include "exec/exec.h"

enum { MOST_INPUTS = 16, MOST_OUTPUTS = 16, SAMPLES = 16 };

static const char *const CASES[] = {
    "convolution", "batch_norm_to_convolution", "shared_modules", "shared_modules_mse", "shared_convolution_bn", "shared_convolution",
    "shared_transposed", "shared_transposed_bn", "shared_linear", "batch_norm_behind_concat", "batch_norm_behind_concat_grouped",
    "means_and_pools", "split_to_slices", "large_global_pool", "idle_slices", "six_global_pools", "six_average_pools", "pools_in_a_row",
    "clip_to_relu", "layer_norm", "gelu", "sigmoid_to_hard_sigmoid", "silu_and_hard_swish", "relu_silu", "leaky_relu", "dropout",
    "concat_scales", "relu_sigmoid", "add_of_two", "add_and_mul", "add_and_mul_of_floats",
    "buffer_weight", "buffer_weight_and_bias", "pool_sigmoid", "swish_and_almost",
};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES };

typedef struct network {
  bnd_executor *executor;
  bnd_session *session;
} network;

/* The inputs of [inputs], in the order of the placeholders. */
static void run_network(network *n, const conformance_case *c, bnd_exec_backend backend, bnd_exec_mode mode, bnd_probe probe, void *user) {
  const bnd_exec_options options = {.mode = mode, .backend = backend, .threads = 1, .observe = probe != NULL};
  bnd_tensor tensors[MOST_INPUTS];
  const float *inputs[MOST_INPUTS];
  int count = 0;
  char line[256];
  for (const char *at = c->inputs; next_line(&at, line, sizeof line); count++) {
    assert_true(count < MOST_INPUTS);
    tensors[count] = described_tensor(BND_F32, strchr(line, ' ') + 1);
    inputs[count] = bnd_f32(&tensors[count]);
  }
  ASSERT_OK(bnd_executor_create(c->graph, &options, &n->executor, error));
  ASSERT_OK(bnd_session_create(n->executor, &n->session, error));
  ASSERT_OK(bnd_session_run(n->session, inputs, probe, user, error));
  for (int i = 0; i < count; i++) bnd_tensor_release(&tensors[i]);
}

static void close_network(network *n) {
  bnd_session_destroy(n->session);
  bnd_executor_destroy(n->executor);
}

/* Values of [outputs] for this stage. */
static void compare_outputs(const network *n, const conformance_case *c, const char *stage, double relative, double absolute) {
  const char *at = find_section(c->text, "outputs");
  char line[2048], found_stage[16];
  while (next_line(&at, line, sizeof line)) {
    int index, used;
    assert_int_equal(sscanf(line, "%15s %d %n", found_stage, &index, &used), 2);
    if (strcmp(found_stage, stage) != 0) continue;
    assert_true(index < bnd_executor_output_count(n->executor));
    size_t size;
    assert_true(bnd_shape_count(bnd_executor_output_shape(n->executor, index), &size));
    char *place = line + used;
    for (size_t k = 0; k < SAMPLES; k++) {
      const double expected = strtod(place, &place), value = bnd_session_output(n->session, index)[k * size / SAMPLES];
      if (!(fabs(value - expected) <= absolute + relative * fabs(expected)))
        fail_msg("%s output %d, value %zu: %.9g, expected %.9g", stage, index, k * size / SAMPLES, value, expected);
    }
  }
}

static void observe(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)node_id;
  const conformance_case *c = user;
  bnd_tensor tensor;
  ASSERT_OK(bnd_tensor_create(BND_F32, bnd_value_shape(value), &tensor, error));
  bnd_value_copy(value, bnd_f32(&tensor));
  bnd_quantizer *quantizer = find_quantizer(c->graph, name);
  ASSERT_OK(bnd_observe_tensor(quantizer, &tensor, error));
  ASSERT_OK(bnd_quantizer_finish(quantizer, error));
  bnd_tensor_release(&tensor);
}

static void run_case(const char *name, bnd_exec_backend backend) {
  conformance_case c = open_case(name);
  network n;
  ASSERT_OK(bnd_infer_shapes(c.graph, error));
  ASSERT_OK(bnd_quark_mark_scope(c.graph, error));
  ASSERT_OK(bnd_quark_prepare(c.graph, error));
  ASSERT_OK(bnd_quark_insert_quantizers(c.graph, &c.config, error));
  ASSERT_OK(bnd_infer_shapes(c.graph, error));

  run_network(&n, &c, backend, BND_EXEC_FLOAT, observe, &c);
  compare_outputs(&n, &c, "float", 1e-5, 1e-5);
  close_network(&n);
  check_weights(&c);
  each_quantizer(&c, CALIBRATED, COMPARE_POSITION);

  freeze(&c);
  ASSERT_OK(bnd_infer_shapes(c.graph, error));
  run_network(&n, &c, backend, BND_EXEC_FAKE_QUANTIZE, NULL, NULL);
  /* Integer scalars are int64 tensors in the original, and its fake quantizer truncates 7.9375 to 7; here all constants are float32. */
  if (strcmp(name, "add_and_mul") != 0) compare_outputs(&n, &c, "frozen", 0, 0);
  close_network(&n);
  close_case(&c);
}

static void plain_loops(void **state) { run_case(*state, BND_BACKEND_REFERENCE); }
static void optimized(void **state) { run_case(*state, BND_BACKEND_ONEDNN); }

int main(void) {
  struct CMUnitTest tests[2 * CASE_COUNT];
  static char names[2 * CASE_COUNT][64];
  for (int i = 0; i < CASE_COUNT; i++)
    for (int backend = 0; backend < 2; backend++) {
      char *title = names[2 * i + backend];
      snprintf(title, sizeof names[0], "%s, %s", CASES[i], backend ? "oneDNN" : "plain loops");
      tests[2 * i + backend] = (struct CMUnitTest){title, backend ? optimized : plain_loops, NULL, NULL, (void *)CASES[i]};
    }
  return _cmocka_run_group_tests("conformance, executed", tests, 2 * CASE_COUNT, NULL, NULL);
}
