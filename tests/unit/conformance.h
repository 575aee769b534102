/* Quark's conformance cases (fx-quantization 13): data/conformance/CASE.txt, made by golden/conformance.py with the original, holds a captured
   graph and what every step of the original makes of it. check_case runs the same steps here and compares. */
#ifndef BND_TESTS_CONFORMANCE_H
#define BND_TESTS_CONFORMANCE_H

#include <stdio.h>

#include "base/file.h"
#include "export/onnx_export.h"
#include "flow/target_profile.h"
#include "formats/onnx/onnx_file.h"
#include "graph_builder.h"
#include "passes/quark/quark.h"
#include "passes/target/adjust.h"

/* --- the case file --- */

typedef struct conformance_case {
  char *text;
  const char *inputs; /* section */
  bnd_graph *graph;
  bnd_quantization_config config;
} conformance_case;

/* Text behind the line "[title]", NULL if there is none; `after` = where to begin. */
static inline const char *find_section(const char *after, const char *title) {
  char heading[64];
  snprintf(heading, sizeof heading, "[%s", title);
  for (const char *at = after; at; at = strchr(at, '\n')) {
    at += *at == '\n';
    const size_t length = strlen(heading);
    if (strncmp(at, heading, length) == 0 && (at[length] == ']' || at[length] == ' ')) return strchr(at, '\n') + 1;
    if (!*at) break;
  }
  return NULL;
}

static inline size_t section_length(const char *section) {
  const char *end = strstr(section, "\n[");
  return end ? (size_t)(end - section) : strlen(section) - 1;
}

/* The next line of a section, copied; false at its end. */
static inline bool next_line(const char **at, char *line, size_t size) {
  if (**at == '[' || **at == '\0') return false;
  const size_t length = strcspn(*at, "\n");
  assert_true(length < size);
  memcpy(line, *at, length);
  line[length] = '\0';
  *at += length + ((*at)[length] == '\n');
  return true;
}

static inline bnd_shape shape_of_input(void *user, const char *name) {
  const conformance_case *c = user;
  const char *at = c->inputs;
  char line[256];
  while (next_line(&at, line, sizeof line)) {
    const size_t length = strlen(name);
    bnd_shape shape;
    if (strncmp(line, name, length) != 0 || line[length] != ' ') continue;
    read_shape(line + length + 1, &shape);
    return shape;
  }
  fail_msg("no input %s", name);
  return (bnd_shape){0};
}

static inline void read_attributes(conformance_case *c) {
  const char *at = find_section(c->text, "attributes");
  char line[1024], name[256], kind[16], dtype[16];
  while (next_line(&at, line, sizeof line)) {
    int used = 0;
    assert_int_equal(sscanf(line, "%255s %15s %15s %n", name, kind, dtype, &used), 3);
    bnd_tensor tensor = described_tensor(strcmp(dtype, "int64") == 0 ? BND_I64 : BND_F32, line + used);
    ASSERT_OK(bnd_graph_set_attribute(c->graph, name, &tensor, strcmp(kind, "parameter") == 0, error));
  }
}

static inline conformance_case open_case(const char *name) {
  char path[512];
  size_t size;
  conformance_case c = {0};
  snprintf(path, sizeof path, "%s/conformance/%s.txt", TEST_DATA, name);
  ASSERT_OK(bnd_file_read(path, 1 << 20, &c.text, &size, error));
  c.inputs = find_section(c.text, "inputs");
  const bool mse = strncmp(find_section(c.text, "case"), "observer MinMSE", 15) == 0;
  c.config = bnd_quantization_config_xint8(mse ? BND_OBSERVER_POWER_OF_TWO_MIN_MSE : BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  ASSERT_OK(bnd_graph_create(&c.graph, error));
  read_attributes(&c);
  read_fx_graph(c.graph, find_section(c.text, "captured"), shape_of_input, &c);
  return c;
}

static inline void close_case(conformance_case *c) {
  bnd_graph_destroy(c->graph);
  bnd_quantization_config_free(&c->config);
  free(c->text);
}

/* --- comparing --- */

/* The graph's text is that of the section, byte for byte; else shows the first lines that differ. */
static inline void expect_text(const conformance_case *c, const char *title) {
  const char *expected = find_section(c->text, title);
  const size_t length = section_length(expected);
  bnd_string text = {0};
  ASSERT_OK(bnd_graph_print_fx(c->graph, &text, error));
  size_t line = 0, at = 0;
  while (at < text.length && at < length && text.text[at] == expected[at])
    if (text.text[at++] == '\n') line = at;
  if (text.length != length || at != length)
    fail_msg("[%s] differs:\n  %.*s\nexpected\n  %.*s", title, (int)strcspn(text.text + line, "\n"), text.text + line,
             (int)strcspn(expected + line, "\n"), expected + line);
  bnd_string_free(&text);
}

static inline void expect_shapes(const conformance_case *c) {
  const char *at = find_section(c->text, "shapes");
  char line[512];
  while (next_line(&at, line, sizeof line)) {
    char *place = strchr(line, ' ');
    *place++ = '\0';
    const bnd_node *node = bnd_graph_find(c->graph, line);
    assert_non_null(node);
    for (int i = 0; i < node->result_count; i++) {
      bnd_shape expected;
      char text[BND_SHAPE_TEXT], expected_text[BND_SHAPE_TEXT];
      place = (char *)read_shape(place, &expected);
      if (!bnd_shape_equal(&node->shape[i], &expected))
        fail_msg("%s: shape %s, expected %s", line, bnd_shape_text(&node->shape[i], text), bnd_shape_text(&expected, expected_text));
      place += *place == ' ';
    }
    assert_int_equal(*place, '\0');
  }
}

typedef struct quantizer_counts {
  int activations, weights, biases;
} quantizer_counts;

static inline quantizer_counts count_quantizers(const bnd_graph *graph) {
  quantizer_counts counts = {0};
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    counts.activations += bnd_is_fake_quantize(node);
    counts.weights += node->module && node->module->weight_quantizer;
    counts.biases += node->module && node->module->bias_quantizer;
  }
  return counts;
}

static inline int count_operators(const bnd_graph *graph, bnd_operator_id id) {
  int count = 0;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) count += bnd_node_is(node, id);
  return count;
}

/* The quantizer called "fake_quantizer_3" or "conv2d_quantized_module.bias". */
static inline bnd_quantizer *find_quantizer(const bnd_graph *graph, const char *name) {
  char node_name[256];
  snprintf(node_name, sizeof node_name, "%s", name);
  char *part = strrchr(node_name, '.');
  if (part) *part++ = '\0';
  const bnd_node *node = bnd_graph_find(graph, node_name);
  if (!node || !node->module) fail_msg("no quantizer %s", name);
  const bnd_module *module = node->module;
  bnd_quantizer *quantizer = !part ? module->quantizer : strcmp(part, "weight") == 0 ? module->weight_quantizer : module->bias_quantizer;
  if (!quantizer) fail_msg("no quantizer %s", name);
  return quantizer;
}

/* As after an observation that ended at this position. */
static inline void set_position(bnd_quantizer *quantizer, int position) {
  if (!quantizer->position) {
    quantizer->channels = 1;
    quantizer->position = bnd_calloc(1, sizeof *quantizer->position);
    quantizer->zero_point = bnd_calloc(1, sizeof *quantizer->zero_point);
    assert_non_null(quantizer->position);
    assert_non_null(quantizer->zero_point);
  }
  quantizer->position[0] = position;
}

typedef enum position_stage { CALIBRATED, FROZEN } position_stage;

typedef enum position_action { SET_POSITION, COMPARE_POSITION, COMPARE_WEIGHTS, COMPARE_OBSERVED } position_action;

/* Walks the table of [quantizers]. */
static inline void each_quantizer(const conformance_case *c, position_stage stage, position_action action) {
  const char *at = find_section(c->text, "quantizers");
  char line[512], name[256], kind[32], observed[128];
  while (next_line(&at, line, sizeof line)) {
    int position[2];
    const int fields = sscanf(line, "%255s %31s %127s %d %d", name, kind, observed, &position[0], &position[1]);
    assert_true(fields == 5 || (fields == 4 && line[strlen(line) - 1] == '-'));
    if (stage == FROZEN && fields == 4) continue; /* gone with dead code */
    bnd_quantizer *quantizer = find_quantizer(c->graph, name);
    const bool compare = action == COMPARE_POSITION || (action == COMPARE_WEIGHTS && strcmp(kind, "activation") != 0);
    if (action == SET_POSITION) set_position(quantizer, position[stage]);
    else if (compare && quantizer->position[0] != position[stage])
      fail_msg("%s: position %d, expected %d", name, quantizer->position[0], position[stage]);
    else if (action == COMPARE_OBSERVED && strcmp(kind, "activation") == 0)
      assert_string_equal(bnd_arg_node(bnd_graph_find(c->graph, name), 0)->name, observed);
  }
}

/* --- the hardware --- */

static inline bnd_target_profile xint8_profile(void) {
  bnd_target_profile profile;
  ASSERT_OK(bnd_target_profile_load("amd-xint8", &profile, error));
  return profile;
}

/* A target that has one rule only, given by name. */
static inline bnd_target_profile profile_of_rule(const char *rule) {
  const bnd_target_profile all = xint8_profile();
  enum { WIDE = 10000 };
  const bnd_limits wide = {-WIDE, WIDE};
  bnd_target_profile t = {
      .shift_read = wide, .shift_write_add = wide, .shift_write_mul = wide, .shift_cut = wide, .shift_bias_high = WIDE, .accumulator_bits = WIDE,
      .hard_sigmoid_input = wide, .hard_sigmoid_output_low = -WIDE, .hard_sigmoid_shift = WIDE, .shift_swish = wide};
  t.align_concat = strcmp(rule, "align_concat") == 0;
  t.align_pool = strcmp(rule, "align_pool") == 0;
  if (strcmp(rule, "shift_read") == 0) t.shift_read = all.shift_read;
  if (strcmp(rule, "shift_write") == 0) t.shift_write_add = all.shift_write_add, t.shift_write_mul = all.shift_write_mul;
  if (strcmp(rule, "shift_cut") == 0) t.shift_cut = all.shift_cut;
  if (strcmp(rule, "shift_bias") == 0) t.shift_bias_high = all.shift_bias_high, t.accumulator_bits = all.accumulator_bits;
  if (strcmp(rule, "shift_swish") == 0) t.shift_swish = all.shift_swish;
  if (strcmp(rule, "hard_sigmoid") == 0) {
    t.hard_sigmoid_input = all.hard_sigmoid_input;
    t.hard_sigmoid_output_low = all.hard_sigmoid_output_low;
    t.hard_sigmoid_shift = all.hard_sigmoid_shift;
  }
  return t;
}

/* The case's [rule ...] sections, each from calibrated positions. Returns how many there were. */
static inline int check_rules(const conformance_case *c) {
  int count = 0;
  for (const char *section = find_section(c->text, "rule"); section; section = find_section(section, "rule"), count++) {
    const char *at = section, *title = section;
    char line[256], name[128], rule[32];
    int position;
    while (title[-1] != '[') title--;
    assert_int_equal(sscanf(title, "rule %31[a-z_]", rule), 1);
    each_quantizer(c, CALIBRATED, SET_POSITION);
    const bnd_target_profile target = profile_of_rule(rule);
    bool applied = false;
    while (next_line(&at, line, sizeof line)) {
      if (sscanf(line, "set %127s %d", name, &position) == 2) {
        set_position(find_quantizer(c->graph, name), position);
        continue;
      }
      if (!applied) bnd_adjust_positions(c->graph, &target);
      applied = true;
      assert_int_equal(sscanf(line, "%127s %d", name, &position), 2);
      const int found = find_quantizer(c->graph, name)->position[0];
      if (found != position) fail_msg("rule %s: %s at %d, expected %d", rule, name, found, position);
    }
    assert_true(applied);
  }
  return count;
}

/* --- a whole case --- */

/* The exported file has as many nodes of each type as the original's export. Constant and Identity are habits of the original's exporter. */
static inline void check_exported(const conformance_case *c, const char *name) {
  char path[256], line[256], type[64];
  Onnx__ModelProto *model;
  snprintf(path, sizeof path, "test_conformance_%s.onnx", name);
  ASSERT_OK(bnd_export_onnx(c->graph, NULL, path, error));
  ASSERT_OK(bnd_onnx_read(path, &model, error));
  size_t expected_nodes = 0;
  const char *at = find_section(c->text, "operators");
  while (next_line(&at, line, sizeof line)) {
    int expected, count = 0;
    assert_int_equal(sscanf(line, "%63s %d", type, &expected), 2);
    if (strcmp(type, "Constant") == 0 || strcmp(type, "Identity") == 0) continue;
    for (size_t i = 0; i < model->graph->n_node; i++) count += strcmp(model->graph->node[i]->op_type, type) == 0;
    if (count != expected) fail_msg("exported: %d %s, expected %d", count, type, expected);
    expected_nodes += (size_t)expected;
  }
  assert_int_equal(model->graph->n_node, expected_nodes);
  bnd_onnx_free(model);
  remove(path);
}

typedef struct operator_count {
  bnd_operator_id id;
  int count;
} operator_count;

typedef struct conformance_row {
  const char *name;
  int quantizers;              /* activation + weight + bias, as the original's test asserts */
  int rules;                   /* [rule] sections */
  operator_count prepared[5];  /* operators after the rewrites, as the original's test asserts; ended by count 0 */
  operator_count frozen[5];
} conformance_row;

static inline void expect_operators(const bnd_graph *graph, const operator_count expected[5]) {
  for (int i = 0; i < 5 && expected[i].count; i++) {
    const int count = count_operators(graph, expected[i].id);
    if (count != expected[i].count) fail_msg("%d of %s, expected %d", count, bnd_operator_of(expected[i].id)->name, expected[i].count);
  }
}

/* Rewrites alone: what an empty configuration gives. */
static inline void check_prepared(const conformance_row *row) {
  conformance_case c = open_case(row->name);
  expect_text(&c, "captured");
  ASSERT_OK(bnd_infer_shapes(c.graph, error));
  expect_shapes(&c);
  ASSERT_OK(bnd_quark_mark_scope(c.graph, error));
  ASSERT_OK(bnd_quark_prepare(c.graph, error));
  bnd_quantization_config empty = {0};
  ASSERT_OK(bnd_quark_insert_quantizers(c.graph, &empty, error));
  expect_text(&c, "prepared");
  expect_operators(c.graph, row->prepared);
  const quantizer_counts counts = count_quantizers(c.graph);
  assert_int_equal(counts.activations + counts.weights + counts.biases, 0);
  ASSERT_OK(bnd_infer_shapes(c.graph, error));
  close_case(&c);
}

/* Weight and bias quantizers observe what their module multiplies with, batch norm folded in. */
static inline void check_weights(const conformance_case *c) {
  for (const bnd_node *node = bnd_graph_first(c->graph); node; node = node->next) {
    if (!bnd_is_conv_module(node) || !node->module->weight_quantizer) continue;
    const bool transposed = bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D_MODULE) || bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D_BN_MODULE);
    bnd_tensor weight, bias;
    ASSERT_OK(bnd_module_fold(node->module, transposed, &weight, &bias, error));
    ASSERT_OK(bnd_observe_tensor(node->module->weight_quantizer, &weight, error));
    ASSERT_OK(bnd_quantizer_finish(node->module->weight_quantizer, error));
    assert_true((bias.data != NULL) == (node->module->bias_quantizer != NULL));
    if (bias.data) {
      ASSERT_OK(bnd_observe_tensor(node->module->bias_quantizer, &bias, error));
      ASSERT_OK(bnd_quantizer_finish(node->module->bias_quantizer, error));
    }
    bnd_tensor_release(&weight);
    bnd_tensor_release(&bias);
  }
  each_quantizer(c, CALIBRATED, COMPARE_WEIGHTS);
}

static inline void freeze(const conformance_case *c) {
  const bnd_target_profile target = xint8_profile();
  ASSERT_OK(bnd_quark_merge_batch_norm(c->graph, error));
  ASSERT_OK(bnd_clip_to_relu(c->graph, error));
  bnd_adjust_positions(c->graph, &target);
  ASSERT_OK(bnd_hard_sigmoid_to_hardware(c->graph, &target, error));
}

static inline void check_quantized(const conformance_row *row) {
  conformance_case c = open_case(row->name);
  ASSERT_OK(bnd_infer_shapes(c.graph, error));
  ASSERT_OK(bnd_quark_mark_scope(c.graph, error));
  ASSERT_OK(bnd_quark_prepare(c.graph, error));
  ASSERT_OK(bnd_quark_insert_quantizers(c.graph, &c.config, error));
  expect_text(&c, "quantized");
  const quantizer_counts counts = count_quantizers(c.graph);
  assert_int_equal(counts.activations + counts.weights + counts.biases, row->quantizers);
  each_quantizer(&c, CALIBRATED, COMPARE_OBSERVED);
  check_weights(&c);
  assert_int_equal(check_rules(&c), row->rules);

  each_quantizer(&c, CALIBRATED, SET_POSITION);
  freeze(&c);
  expect_text(&c, "frozen");
  each_quantizer(&c, FROZEN, COMPARE_POSITION);
  expect_operators(c.graph, row->frozen);
  ASSERT_OK(bnd_infer_shapes(c.graph, error));
  ASSERT_OK(bnd_graph_verify(c.graph, error));
  check_exported(&c, row->name);
  close_case(&c);
}

static inline void check_case(void **state) {
  const conformance_row *row = *state;
  check_prepared(row);
  check_quantized(row);
}

/* Runs check_case for every row, as a test of its own named after the case. */
static inline int run_cases(const conformance_row *rows, size_t count) {
  enum { MOST = 32 };
  struct CMUnitTest tests[MOST];
  if (count > MOST) return 1;
  for (size_t i = 0; i < count; i++) tests[i] = (struct CMUnitTest){rows[i].name, check_case, NULL, NULL, (void *)&rows[i]};
  return _cmocka_run_group_tests("conformance", tests, count, NULL, NULL);
}

#endif
