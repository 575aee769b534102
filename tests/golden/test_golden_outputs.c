/* What the network computes for one image: folded FP32 against a double-precision run of the originals, PTQ and frozen against Quark's outputs,
   and the same bits for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>

#include <cmocka.h>

#include "exec/exec.h"
#include "reference.h"

enum { INPUT = 3 * 640 * 640 };

typedef struct outputs {
  float *values[2];
  size_t count[2];
} outputs;

static outputs run(const bnd_graph *graph, bnd_exec_mode mode, bnd_exec_backend backend, int threads, const char *folder) {
  bnd_error error = {0};
  bnd_executor *executor;
  bnd_session *session;
  double *image = reference_npy(folder, "input", INPUT);
  float *input = malloc(INPUT * sizeof *input);
  for (size_t i = 0; i < INPUT; i++) input[i] = (float)image[i];
  const bnd_exec_options options = {.mode = mode, .backend = backend, .threads = threads, .output_limit = 2};
  if (bnd_executor_create(graph, &options, &executor, &error) != BND_OK) fail_msg("%s", error.message);
  if (bnd_session_create(executor, &session, &error) != BND_OK) fail_msg("%s", error.message);
  const float *const inputs[] = {input};
  if (bnd_session_run(session, inputs, NULL, NULL, &error) != BND_OK) fail_msg("%s", error.message);
  outputs out;
  for (int i = 0; i < 2; i++) {
    assert_true(bnd_shape_count(bnd_executor_output_shape(executor, i), &out.count[i]));
    out.values[i] = malloc(out.count[i] * sizeof(float));
    memcpy(out.values[i], bnd_session_output(session, i), out.count[i] * sizeof(float));
  }
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  free(image);
  free(input);
  return out;
}

static void release(outputs *out) {
  free(out->values[0]);
  free(out->values[1]);
}

static const char *const NAMES[] = {"boxes", "scores"};

static bnd_graph *folded_graph(const char *checkpoint) {
  bnd_error error = {0};
  bnd_model *model;
  bnd_graph *graph;
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_FOLDED, .height = 640, .width = 640};
  if (bnd_model_open(checkpoint, &model, &error) != BND_OK || bnd_model_graph(model, &options, &graph, &error) != BND_OK) fail_msg("%s", error.message);
  bnd_model_close(model);
  return graph;
}

/* At most twice PyTorch's own single-precision distance from the double-precision result. */
static void folded_is_as_exact_as_pytorch(void **state) {
  (void)state;
  if (access(GOLDEN "/prep64_boxes.npy", R_OK) != 0) skip();
  bnd_graph *graph = folded_graph(GOLDEN_CHECKPOINT);
  outputs out = run(graph, BND_EXEC_FLOAT, BND_BACKEND_ONEDNN, 1, GOLDEN);
  for (int k = 0; k < 2; k++) {
    char name[32];
    snprintf(name, sizeof name, "prep64_%s", NAMES[k]);
    double *exact = reference_npy(GOLDEN, name, out.count[k]), ours = 0, theirs = 0;
    snprintf(name, sizeof name, "prep_%s", NAMES[k]);
    double *single = reference_npy(GOLDEN, name, out.count[k]);
    for (size_t i = 0; i < out.count[k]; i++) {
      ours = fmax(ours, fabs((double)out.values[k][i] - exact[i]));
      theirs = fmax(theirs, fabs(single[i] - exact[i]));
    }
    print_message("%s: largest difference to double precision %.3g, PyTorch's %.3g\n", NAMES[k], ours, theirs);
    assert_true(ours <= 2 * theirs);
    free(exact);
    free(single);
  }
  release(&out);
  bnd_graph_destroy(graph);
}

/* At least 99.99 % of the values identical, none off by more than one quantum of the output. */
static void compare_quantized(const bnd_graph *graph, const char *folder, const char *stage) {
  outputs out = run(graph, BND_EXEC_FAKE_QUANTIZE, BND_BACKEND_ONEDNN, 2, folder);
  const bnd_arg *list = &bnd_graph_last(graph)->args[0];
  for (int k = 0; k < 2; k++) {
    const bnd_node *output = list->list.items[k].node;
    assert_true(bnd_is_fake_quantize(output));
    const double quantum = (double)bnd_scale_of(output->module->quantizer->position[0]);
    char name[32];
    snprintf(name, sizeof name, "%s_%s", stage, NAMES[k]);
    double *expected = reference_npy(folder, name, out.count[k]), largest = 0;
    size_t different = 0;
    for (size_t i = 0; i < out.count[k]; i++) {
      const double difference = fabs((double)out.values[k][i] - expected[i]);
      different += difference != 0;
      largest = fmax(largest, difference);
    }
    print_message("%s: %zu of %zu differ, largest %g quanta\n", name, different, out.count[k], largest / quantum);
    assert_true((double)different <= 1e-4 * (double)out.count[k]);
    assert_true(largest <= quantum);
    free(expected);
  }
  release(&out);
}

static void check_quantized(const char *checkpoint, const char *folder) {
  bnd_graph *graph = reference_quantized_graph(checkpoint, folder, NULL);
  compare_quantized(graph, folder, "ptq");
  reference_freeze(graph);
  compare_quantized(graph, folder, "frozen");
  bnd_graph_destroy(graph);
}

static void golden_outputs_are_quarks(void **state) {
  (void)state;
  if (access(GOLDEN "/ptq_boxes.npy", R_OK) != 0) skip();
  check_quantized(GOLDEN_CHECKPOINT, GOLDEN);
}

static void other_outputs_are_quarks(void **state) {
  (void)state;
  reference_each(check_quantized);
}

static void threads_do_not_change_a_bit(void **state) {
  (void)state;
  if (access(GOLDEN "/input.npy", R_OK) != 0) skip();
  bnd_graph *graphs[] = {folded_graph(GOLDEN_CHECKPOINT), reference_quantized_graph(GOLDEN_CHECKPOINT, GOLDEN, NULL)};
  for (int g = 0; g < 2; g++) {
    outputs one = run(graphs[g], g ? BND_EXEC_FAKE_QUANTIZE : BND_EXEC_FLOAT, BND_BACKEND_ONEDNN, 1, GOLDEN);
    for (int threads = 2; threads <= 5; threads += 3) {
      outputs more = run(graphs[g], g ? BND_EXEC_FAKE_QUANTIZE : BND_EXEC_FLOAT, BND_BACKEND_ONEDNN, threads, GOLDEN);
      for (int k = 0; k < 2; k++) assert_memory_equal(one.values[k], more.values[k], one.count[k] * sizeof(float));
      release(&more);
    }
    release(&one);
    bnd_graph_destroy(graphs[g]);
  }
}

/* Quantized, the plain loops and oneDNN compute the same integers. */
static void plain_loops_agree(void **state) {
  (void)state;
  if (access(GOLDEN "/input.npy", R_OK) != 0) skip();
  bnd_graph *graph = reference_quantized_graph(GOLDEN_CHECKPOINT, GOLDEN, NULL);
  reference_freeze(graph);
  outputs fast = run(graph, BND_EXEC_FAKE_QUANTIZE, BND_BACKEND_ONEDNN, 2, GOLDEN), plain = run(graph, BND_EXEC_FAKE_QUANTIZE, BND_BACKEND_REFERENCE, 1, GOLDEN);
  for (int k = 0; k < 2; k++) assert_memory_equal(fast.values[k], plain.values[k], fast.count[k] * sizeof(float));
  release(&fast);
  release(&plain);
  bnd_graph_destroy(graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(folded_is_as_exact_as_pytorch), cmocka_unit_test(golden_outputs_are_quarks), cmocka_unit_test(other_outputs_are_quarks),
      cmocka_unit_test(threads_do_not_change_a_bit),   cmocka_unit_test(plain_loops_agree),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
