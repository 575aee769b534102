/* The guard takes back what harms and keeps what helps; the target's rules are enforced until all of them hold; folding changes no float answer. */
#include "refine_work.h"

#include "flow/model.h"
#include "passes/best/best.h"
#include "refine/fold_constants.h"
#include "refine/guard.h"

static workshop *open_guarded(double *distance) {
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, 2);
  ASSERT_OK(bnd_guard_measure(&w->work, w->graph, distance, error));
  return w;
}

static void close_guarded(workshop *w) {
  w->graph = w->work.graph;
  close_workshop(w);
}

static void shift_weights(bnd_graph *graph, int by) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (bnd_is_conv_module(node) && node->module->weight_quantizer) node->module->weight_quantizer->position[0] += by;
}

static bnd_status spoil(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  (void)error;
  shift_weights(work->graph, -5);
  bnd_string_format(report, "spoilt\n");
  return BND_OK;
}

static bnd_status mend(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  (void)report, (void)error;
  shift_weights(work->graph, 5);
  return BND_OK;
}

static bnd_status fail_halfway(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  (void)report;
  shift_weights(work->graph, -5);
  return bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted");
}

static void harmful_step_is_taken_back(void **state) {
  (void)state;
  double distance;
  workshop *w = open_guarded(&distance);
  const double at_first = distance;
  const record before = trained_bytes(w->graph);
  bnd_step_outcome outcome;
  bnd_string report = {0};
  ASSERT_OK(bnd_guard_step(&w->work, &(bnd_guarded_step){.name = "spoil", .run = spoil}, &distance, &outcome, &report, error));
  assert_false(outcome.kept);
  assert_true(outcome.after > outcome.before);
  assert_true(outcome.before == at_first && distance == at_first);
  assert_string_equal(report.text, "spoilt\n");
  assert_same(before, trained_bytes(w->work.graph));
  bnd_string_free(&report);
  close_guarded(w);
}

static void required_and_helpful_steps_stay(void **state) {
  (void)state;
  double distance;
  workshop *w = open_guarded(&distance);
  const double at_first = distance;
  bnd_step_outcome outcome;
  bnd_string report = {0};
  ASSERT_OK(bnd_guard_step(&w->work, &(bnd_guarded_step){.name = "spoil", .run = spoil, .required = true}, &distance, &outcome, &report, error));
  assert_true(outcome.kept && distance == outcome.after && distance > at_first);
  ASSERT_OK(bnd_guard_step(&w->work, &(bnd_guarded_step){.name = "mend", .run = mend}, &distance, &outcome, &report, error));
  assert_true(outcome.kept && distance == at_first);
  bnd_string_free(&report);
  close_guarded(w);
}

static void failing_step_leaves_the_graph(void **state) {
  (void)state;
  double distance;
  workshop *w = open_guarded(&distance);
  const record before = trained_bytes(w->graph);
  bnd_step_outcome outcome;
  bnd_string report = {0};
  bnd_error error = {0};
  assert_int_equal(bnd_guard_step(&w->work, &(bnd_guarded_step){.name = "fail", .run = fail_halfway, .required = true}, &distance, &outcome, &report, &error),
                   BND_ERROR_INTERRUPTED);
  assert_same(before, trained_bytes(w->work.graph));
  bnd_string_free(&report);
  close_guarded(w);
}

static void measure_of_the_float_network_is_zero(void **state) {
  (void)state;
  double distance, spoilt;
  workshop *w = open_guarded(&distance);
  bnd_graph *plain;
  ASSERT_OK(bnd_graph_copy(w->teacher, &plain, error));
  remove_quantizers(plain, NULL);
  ASSERT_OK(bnd_refine_measure(&w->work, plain, &w->held_out, &spoilt, error));
  assert_true(spoilt == 0 && distance > 0);
  bnd_graph_destroy(plain);
  close_guarded(w);
}

static void rules_hold_at_the_fixed_point(void **state) {
  (void)state;
  double distance;
  workshop *w = open_guarded(&distance);
  int sweeps = 0, at = 0;
  for (bnd_node *node = bnd_graph_first(w->graph); node; node = node->next)
    if (bnd_is_fake_quantize(node)) node->module->quantizer->position[0] += at++ % 2 ? 9 : -9;
  assert_true(bnd_check_positions(w->graph, &w->target, NULL, NULL) > 0);
  ASSERT_OK(bnd_adjust_to_fixed_point(w->graph, &w->target, &sweeps, error));
  assert_true(sweeps >= 1);
  assert_int_equal(bnd_check_positions(w->graph, &w->target, NULL, NULL), 0);
  ASSERT_OK(bnd_adjust_to_fixed_point(w->graph, &w->target, &sweeps, error));
  assert_int_equal(sweeps, 0);
  close_guarded(w);
}

/* --- the passes of the recipe, on the network they were made for --- */

#define EXAMPLE TEST_DATA "/../../examples/shapes/yolo_nas_pico_shapes.pth"

static bnd_graph *prepared(const bnd_model *model, bool raw) {
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 64, .raw_outputs = raw};
  bnd_graph *graph;
  ASSERT_OK(bnd_model_graph(model, &options, &graph, error));
  return graph;
}

static void answers(const bnd_graph *graph, float *boxes, float *scores) {
  runner r = open_runner(graph, BND_EXEC_FLOAT);
  float *input = malloc(3 * 64 * 64 * sizeof *input);
  fill_uniform(input, 3 * 64 * 64, 0, 1, 77);
  run_with(&r, (const float *const[]){input});
  memcpy(boxes, bnd_session_output(r.session, 0), 84 * 4 * sizeof *boxes);
  memcpy(scores, bnd_session_output(r.session, 1), 84 * 8 * sizeof *scores);
  close_runner(&r);
  free(input);
}

static int count_operator(const bnd_graph *graph, bnd_operator_id id) {
  int count = 0;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) count += node->op && bnd_functional_id(node) == id;
  return count;
}

static void folding_changes_no_answer(void **state) {
  (void)state;
  bnd_model *model;
  ASSERT_OK(bnd_model_open(EXAMPLE, &model, error));
  bnd_graph *graph = prepared(model, false);
  float boxes[2][84 * 4], scores[2][84 * 8];
  int folded, kept, constants, removed, centred;
  ASSERT_OK(bnd_quark_mark_scope(graph, error));
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) node->skip = bnd_node_is(node, BND_OP_SIGMOID);
  ASSERT_OK(bnd_quark_prepare_scope(graph, error));
  ASSERT_OK(bnd_quark_merge_batch_norm(graph, error));
  ASSERT_OK(bnd_infer_shapes(graph, error));
  answers(graph, boxes[0], scores[0]);
  assert_int_equal(count_operator(graph, BND_OP_MUL), 21); /* 20 shortcuts, and the strides */
  ASSERT_OK(bnd_fold_constants(graph, &constants, error));
  ASSERT_OK(bnd_remove_identities(graph, &removed, error));
  ASSERT_OK(bnd_centre_decode(graph, &centred, error));
  ASSERT_OK(bnd_fold_scalars(graph, &folded, &kept, error));
  ASSERT_OK(bnd_infer_shapes(graph, error));
  ASSERT_OK(bnd_graph_verify(graph, error));
  assert_int_equal(constants, 2);
  assert_int_equal(centred, 1);
  assert_int_equal(folded, 20);
  assert_int_equal(kept, 0);
  assert_int_equal(count_operator(graph, BND_OP_MUL), 2); /* distances in pixels */
  answers(graph, boxes[1], scores[1]);
  for (int i = 0; i < 84 * 4; i++) assert_true(fabsf(boxes[1][i] - boxes[0][i]) < 1e-3f);
  for (int i = 0; i < 84 * 8; i++) assert_true(fabsf(scores[1][i] - scores[0][i]) < 1e-5f);
  bnd_graph_destroy(graph);
  bnd_model_close(model);
}

static void tail_is_what_stands_behind_the_last_layers(void **state) {
  (void)state;
  bnd_model *model;
  ASSERT_OK(bnd_model_open(EXAMPLE, &model, error));
  bnd_graph *graph = prepared(model, false);
  bnd_tail_part *part_of;
  int cuts, softmaxes = 0;
  ASSERT_OK(bnd_find_tail(graph, &part_of, error));
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const bnd_tail_part part = part_of[node->id];
    if (bnd_node_is(node, BND_OP_SOFTMAX)) assert_int_equal(part, BND_TAIL_DISTRIBUTION), softmaxes++;
    if (bnd_node_is(node, BND_OP_SIGMOID)) assert_int_equal(part, BND_TAIL_SCORES);
    if (bnd_node_is(node, BND_OP_SUB) || bnd_node_is(node, BND_OP_SPLIT)) assert_int_equal(part, BND_TAIL_DECODE);
    if (bnd_node_is(node, BND_OP_BATCH_NORM) || bnd_is_relu(node) || bnd_is_pool(node)) assert_int_equal(part, BND_TAIL_NONE);
  }
  assert_int_equal(softmaxes, 3);
  free(part_of);
  ASSERT_OK(bnd_leave_tail_out(graph, &cuts, error));
  assert_int_equal(cuts, 6); /* classes and distances of three levels */
  assert_int_equal(count_operator(graph, BND_OP_DEQUANT_STUB), 6);
  ASSERT_OK(bnd_quark_mark_scope(graph, error));
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (bnd_node_is(node, BND_OP_SOFTMAX) || bnd_node_is(node, BND_OP_SIGMOID) || bnd_node_is(node, BND_OP_SUB)) assert_true(node->skip);
    if (bnd_is_relu(node)) assert_false(node->skip);
  }
  bnd_graph_destroy(graph);
  bnd_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(harmful_step_is_taken_back),      cmocka_unit_test(required_and_helpful_steps_stay), cmocka_unit_test(failing_step_leaves_the_graph),
      cmocka_unit_test(measure_of_the_float_network_is_zero), cmocka_unit_test(rules_hold_at_the_fixed_point), cmocka_unit_test(folding_changes_no_answer),
      cmocka_unit_test(tail_is_what_stands_behind_the_last_layers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
