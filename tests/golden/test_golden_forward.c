/* What the executor computes on the golden checkpoint against PyTorch's single and double precision and against Quark's fake-quantized networks.
   The figures and how they were made: the golden folder's README. Positions come from its exponents.tsv, so nothing is calibrated here. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "exec/exec.h"
#include "flow/model.h"
#include "flow/reports.h"
#include "flow/target_profile.h"
#include "passes/quark/quark.h"
#include "passes/target/adjust.h"

#define GOLDEN SHARED_DIR "/golden/pico/"

enum { ANCHORS = 8400, CLASSES = 8, BOXES = ANCHORS * 4, SCORES = ANCHORS * CLASSES };

/* The values of a .npy file, float32 or float64 by their number of bytes, in row-major order; files in column-major order are [1][rows][columns].
   Free with free(). */
static double *read_values(const char *name, size_t count) {
  char path[4096], *data;
  size_t size;
  snprintf(path, sizeof path, GOLDEN "%s.npy", name);
  assert_int_equal(bnd_file_read(path, 1 << 28, &data, &size, NULL), BND_OK);
  uint16_t header;
  memcpy(&header, data + 8, sizeof header);
  const char *values = data + 10 + header;
  const size_t bytes = size - 10 - header, rows = memmem(data, 10 + header, "'fortran_order': True", 21) ? ANCHORS : count, columns = count / rows;
  double *result = calloc(count, sizeof *result);
  assert_non_null(result);
  assert_true(bytes == count * 4 || bytes == count * 8);
  for (size_t i = 0; i < count; i++) {
    const size_t to = i % rows * columns + i / rows;
    float single;
    if (bytes == count * 8) memcpy(&result[to], values + 8 * i, 8);
    else memcpy(&single, values + 4 * i, 4), result[to] = (double)single;
  }
  free(data);
  return result;
}

typedef struct result {
  float *boxes, *scores;
} result;

static float *copy_of(const float *values, size_t count) {
  float *copy = malloc(count * sizeof *copy);
  assert_non_null(copy);
  memcpy(copy, values, count * sizeof *copy);
  return copy;
}

static result run(const bnd_graph *graph, bnd_exec_mode mode, bnd_exec_backend backend, int threads) {
  const bnd_exec_options options = {.mode = mode, .backend = backend, .threads = threads, .output_limit = 2};
  bnd_error error = {0};
  bnd_executor *executor;
  bnd_session *session;
  if (bnd_executor_create(graph, &options, &executor, &error) != BND_OK) fail_msg("%s", error.message);
  assert_int_equal(bnd_session_create(executor, &session, &error), BND_OK);
  double *values = read_values("input", 3 * 640 * 640);
  float *input = malloc(3 * 640 * 640 * sizeof *input);
  for (size_t i = 0; i < 3 * 640 * 640; i++) input[i] = (float)values[i];
  const float *inputs[] = {input};
  assert_int_equal(bnd_session_run(session, inputs, NULL, NULL, &error), BND_OK);
  const result r = {copy_of(bnd_session_output(session, 0), BOXES), copy_of(bnd_session_output(session, 1), SCORES)};
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  free(input);
  free(values);
  return r;
}

static void release(result r) {
  free(r.boxes);
  free(r.scores);
}

static bnd_graph *open_graph(bnd_yolo_nas_form form, bool quantized) {
  bnd_error error = {0};
  bnd_model *model;
  bnd_graph *graph;
  if (bnd_model_open(GOLDEN "yolo_nas_pico_shapes.pth", &model, &error) != BND_OK) fail_msg("%s", error.message);
  const bnd_yolo_nas_options options = {.form = form, .height = 640, .width = 640, .raw_outputs = quantized, .stubs = quantized};
  if (bnd_model_graph(model, &options, &graph, &error) != BND_OK) fail_msg("%s", error.message);
  bnd_model_close(model);
  return graph;
}

/* --- single precision --- */

static double largest_difference(const float *ours, const double *theirs, size_t count) {
  double largest = 0;
  for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)ours[i] - theirs[i]));
  return largest;
}

static double largest_between(const double *a, const double *b, size_t count) {
  double largest = 0;
  for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs(a[i] - b[i]));
  return largest;
}

/* At most twice as far from the double precision result as PyTorch's own single precision. */
static void float_outputs_are_as_exact_as_pytorch(void **state) {
  (void)state;
  if (access(GOLDEN "prep64_boxes.npy", R_OK) != 0) skip();
  double *boxes64 = read_values("prep64_boxes", BOXES), *scores64 = read_values("prep64_scores", SCORES);
  double *boxes32 = read_values("prep_boxes", BOXES), *scores32 = read_values("prep_scores", SCORES);
  const double box_limit = 2 * largest_between(boxes32, boxes64, BOXES), score_limit = 2 * largest_between(scores32, scores64, SCORES);
  static const bnd_yolo_nas_form forms[] = {BND_YOLO_NAS_PARTIAL, BND_YOLO_NAS_FOLDED};
  for (int f = 0; f < 2; f++) {
    bnd_graph *graph = open_graph(forms[f], false);
    for (int backend = BND_BACKEND_ONEDNN; backend <= BND_BACKEND_REFERENCE; backend++) {
      const result r = run(graph, BND_EXEC_FLOAT, (bnd_exec_backend)backend, 2);
      const double box = largest_difference(r.boxes, boxes64, BOXES), score = largest_difference(r.scores, scores64, SCORES);
      print_message("form %d, backend %d: boxes off by %.3g (limit %.3g), scores by %.3g (limit %.3g)\n", forms[f], backend, box, box_limit, score,
                    score_limit);
      assert_true(box <= box_limit && score <= score_limit);
      release(r);
    }
    bnd_graph_destroy(graph);
  }
  free(boxes64);
  free(scores64);
  free(boxes32);
  free(scores32);
}

/* --- fake quantization --- */

static char names[1000][128];
static int positions[1000][2];
static int name_count;

static void read_positions(void) {
  char line[1024];
  FILE *file = fopen(GOLDEN "exponents.tsv", "r");
  assert_non_null(file);
  assert_non_null(fgets(line, sizeof line, file));
  for (name_count = 0; name_count < 1000 && fgets(line, sizeof line, file); name_count++)
    assert_int_equal(sscanf(line, "%127s %*s %*s %d %d", names[name_count], &positions[name_count][0], &positions[name_count][1]), 3);
  fclose(file);
}

static void put_calibrated(void *user, const bnd_quantizer_place *place) {
  (void)user;
  for (int i = 0; i < name_count; i++)
    if (strcmp(names[i], place->name) == 0) {
      place->quantizer->position[0] = place->quantizer->tensor_position = positions[i][0];
      return;
    }
  fail_msg("%s: no such quantizer", place->name);
}

static void freeze(bnd_graph *graph) {
  bnd_target_profile target;
  bnd_error error = {0};
  assert_int_equal(bnd_target_profile_load(NULL, &target, &error), BND_OK);
  assert_int_equal(bnd_quark_merge_batch_norm(graph, &error), BND_OK);
  assert_int_equal(bnd_clip_to_relu(graph, &error), BND_OK);
  bnd_adjust_positions(graph, &target);
  assert_int_equal(bnd_hard_sigmoid_to_hardware(graph, &target, &error), BND_OK);
  assert_int_equal(bnd_infer_shapes(graph, &error), BND_OK);
}

/* Share of differing values; *largest: the largest difference. */
static double differing(const float *ours, const double *theirs, size_t count, double *largest) {
  size_t different = 0;
  *largest = largest_difference(ours, theirs, count);
  for (size_t i = 0; i < count; i++) different += (double)ours[i] != theirs[i];
  return (double)different / (double)count;
}

static int final_position(const bnd_graph *graph, int output) {
  const bnd_arg *value = &bnd_graph_last(graph)->args[0];
  const bnd_node *node = value->list.items[output].node;
  assert_true(bnd_is_fake_quantize(node));
  return node->module->quantizer->position[0];
}

static void compare(const bnd_graph *graph, const char *stage, const result *r) {
  char name[64];
  double largest[2];
  snprintf(name, sizeof name, "%s_boxes", stage);
  double *boxes = read_values(name, BOXES);
  snprintf(name, sizeof name, "%s_scores", stage);
  double *scores = read_values(name, SCORES);
  const double box_share = differing(r->boxes, boxes, BOXES, &largest[0]), score_share = differing(r->scores, scores, SCORES, &largest[1]);
  print_message("%s: %.3g of the boxes and %.3g of the scores differ, by %.3g and %.3g at most\n", stage, box_share, score_share, largest[0],
                largest[1]);
  assert_true(box_share <= 1e-4 && score_share <= 1e-4);
  assert_true(largest[0] <= (double)bnd_scale_of(final_position(graph, 0)) && largest[1] <= (double)bnd_scale_of(final_position(graph, 1)));
  free(boxes);
  free(scores);
}

/* Also: the same bytes for any number of threads, and the same values from plain loops. */
static void quantized_outputs_are_quarks(void **state) {
  (void)state;
  if (access(GOLDEN "ptq_boxes.npy", R_OK) != 0) skip();
  read_positions();
  bnd_graph *graph = open_graph(BND_YOLO_NAS_PARTIAL, true);
  bnd_error error = {0};
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  if (bnd_quark_mark_scope(graph, &error) != BND_OK || bnd_quark_prepare(graph, &error) != BND_OK ||
      bnd_quark_insert_quantizers(graph, &config, &error) != BND_OK || bnd_infer_shapes(graph, &error) != BND_OK)
    fail_msg("%s", error.message);
  bnd_visit_quantizers(graph, put_calibrated, NULL);
  static const char *const stages[] = {"ptq", "frozen"};
  for (int s = 0; s < 2; s++) {
    if (s == 1) freeze(graph);
    static const int threads[] = {1, 2, 5};
    const result first = run(graph, BND_EXEC_FAKE_QUANTIZE, BND_BACKEND_REFERENCE, 1);
    for (int t = 0; t < 3; t++) {
      const result r = run(graph, BND_EXEC_FAKE_QUANTIZE, BND_BACKEND_ONEDNN, threads[t]);
      size_t different = 0;
      for (size_t i = 0; i < BOXES; i++) different += r.boxes[i] != first.boxes[i];
      for (size_t i = 0; i < SCORES; i++) different += r.scores[i] != first.scores[i];
      assert_int_equal(different, 0);
      release(r);
    }
    compare(graph, stages[s], &first);
    release(first);
  }
  bnd_graph_destroy(graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(float_outputs_are_as_exact_as_pytorch), cmocka_unit_test(quantized_outputs_are_quarks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
