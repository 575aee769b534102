#include "flow/reports.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "flow/qat.h"
#include "flow/state.h"
#include "formats/json/json.h"
#include "ops/operators.h"
#include "passes/target/adjust.h"

static bnd_status write_whole(const char *path, bnd_string *text, bnd_error *error) {
  const bnd_status status = text->failed ? bnd_fail_memory(error, path) : bnd_file_write(path, text->text, text->length, error);
  bnd_string_free(text);
  return status;
}

static void write_stage(bnd_json_writer *w, const bnd_stage_result *stage) {
  bnd_json_begin_object(w, BND_JSON_LINES);
  bnd_json_put_string(w, "name", stage->name);
  if (stage->evaluated) {
    bnd_json_put_double(w, "map50", stage->map50);
    bnd_json_put_double(w, "map50_95", stage->map50_95);
    bnd_json_key(w, "coco");
    bnd_json_begin_array(w, BND_JSON_ONE_LINE);
    for (int i = 0; i < 12; i++) bnd_json_double(w, stage->coco[i]);
    bnd_json_end_array(w);
    bnd_json_put_integer(w, "images", (int64_t)stage->images);
  }
  if (stage->kept_high > 0) {
    bnd_json_key(w, "kept_interval");
    bnd_json_begin_array(w, BND_JSON_ONE_LINE);
    bnd_json_double(w, stage->kept_low);
    bnd_json_double(w, stage->kept_high);
    bnd_json_end_array(w);
  }
  bnd_json_put_double(w, "seconds", round(stage->seconds * 1000) / 1000);
  bnd_json_put_double(w, "peak_rss_mib", round(stage->peak_rss_mib * 10) / 10);
  bnd_json_end_object(w);
}

static void write_step(bnd_json_writer *w, const bnd_step_result *step) {
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_string(w, "name", step->name);
  bnd_json_put_boolean(w, "kept", step->kept);
  bnd_json_put_double(w, "before", step->before);
  bnd_json_put_double(w, "after", step->after);
  bnd_json_put_double(w, "seconds", round(step->seconds * 1000) / 1000);
  bnd_json_end_object(w);
}

static void write_qat(bnd_json_writer *w, const bnd_qat *qat, bool with_steps) {
  if (!qat) return;
  bnd_json_key(w, "qat");
  bnd_json_begin_object(w, BND_JSON_LINES);
  bnd_qat_describe(qat, with_steps, w);
  bnd_json_end_object(w);
}

bnd_status bnd_write_results(const char *path, const char *command, const bnd_quantize_result *result, const bnd_qat *qat, bnd_error *error) {
  bnd_string text = {0};
  bnd_json_writer w = {.out = &text};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_put_string(&w, "command", command ? command : "");
  bnd_json_key(&w, "stages");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (int i = 0; i < result->stage_count; i++) write_stage(&w, &result->stages[i]);
  bnd_json_end_array(&w);
  if (result->step_count) {
    bnd_json_key(&w, "steps");
    bnd_json_begin_array(&w, BND_JSON_LINES);
    for (int i = 0; i < result->step_count; i++) write_step(&w, &result->steps[i]);
    bnd_json_end_array(&w);
    bnd_json_put_string(&w, "calibration_split", result->calibration_split);
    bnd_json_put_integer(&w, "held_out_images", (int64_t)result->held_out_images);
  }
  write_qat(&w, qat, true);
  bnd_json_end_object(&w);
  return write_whole(path, &text, error);
}

/* --- quantizers --- */

void bnd_visit_quantizers(const bnd_graph *graph, void (*visit)(void *user, const bnd_quantizer_place *place), void *user) {
  bnd_quantizer_place place;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (bnd_is_fake_quantize(node)) {
      place = (bnd_quantizer_place){.kind = "activation", .quantizer = node->module->quantizer, .shape = &node->shape[0]};
      place.observed = node->module->observed ? node->module->observed : bnd_arg_node(node, 0)->name;
      snprintf(place.name, sizeof place.name, "%s", node->name);
      visit(user, &place);
    }
    if (!bnd_is_conv_module(node)) continue;
    bnd_quantizer *const quantizers[] = {node->module->weight_quantizer, node->module->bias_quantizer};
    static const char *const kinds[] = {"weight", "bias"};
    const bnd_shape vector = BND_SHAPE(0); /* of a bias, which may come into being only by folding */
    for (int i = 0; i < 2; i++) {
      if (!quantizers[i]) continue;
      place = (bnd_quantizer_place){.kind = kinds[i], .observed = node->name, .quantizer = quantizers[i], .shape = i ? &vector : &node->module->weight.shape};
      snprintf(place.name, sizeof place.name, "%s.%s", node->name, kinds[i]);
      visit(user, &place);
    }
  }
}

typedef struct quantizer_list {
  bnd_json_writer *json;
  const bnd_run_state *before_training; /* NULL = not trained */
} quantizer_list;

/* One number per tensor, a list per channel. */
static void write_positions(bnd_json_writer *w, const char *key, const int *positions, int channels) {
  bnd_json_key(w, key);
  if (channels == 1) {
    bnd_json_integer(w, positions[0]);
    return;
  }
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int c = 0; c < channels; c++) bnd_json_integer(w, positions[c]);
  bnd_json_end_array(w);
}

/* "calibrated" as it came out of calibration, "trained" out of training, "final" after the hardware's rules. */
static void write_all_positions(const quantizer_list *list, const bnd_quantizer_place *place) {
  const bnd_quantizer *q = place->quantizer;
  const int *unaligned = q->channels == 1 ? &q->tensor_position : q->position; /* no rule moves those of channels */
  int channels = 0;
  const int *before = list->before_training ? bnd_run_state_positions(list->before_training, place->name, &channels) : NULL;
  if (before) write_positions(list->json, "calibrated", before, channels);
  write_positions(list->json, list->before_training ? "trained" : "calibrated", unaligned, q->channels);
  write_positions(list->json, "final", q->position, q->channels);
}

static void write_range(bnd_json_writer *w, const char *key, const bnd_quantizer *q, const float *values) {
  bnd_json_key(w, key);
  if (q->channels == 1) {
    bnd_json_float(w, values[0]);
    return;
  }
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int c = 0; c < q->channels; c++) bnd_json_float(w, values[c]);
  bnd_json_end_array(w);
}

static void write_quantizer(void *user, const bnd_quantizer_place *place) {
  const quantizer_list *list = user;
  bnd_json_writer *w = list->json;
  const bnd_quantizer *q = place->quantizer;
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_string(w, "name", place->name);
  bnd_json_put_string(w, "kind", place->kind);
  bnd_json_put_string(w, "observed", place->observed);
  write_range(w, "min", q, q->minimum);
  write_range(w, "max", q, q->maximum);
  write_all_positions(list, place);
  bool odd_zero_point = false;
  for (int c = 0; c < q->channels; c++) odd_zero_point |= q->zero_point[c] != 0;
  if (odd_zero_point) {
    bnd_json_key(w, "zero_point");
    bnd_json_begin_array(w, BND_JSON_ONE_LINE);
    for (int c = 0; c < q->channels; c++) bnd_json_integer(w, q->zero_point[c]);
    bnd_json_end_array(w);
  }
  bnd_json_key(w, "changed_by");
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int rule = 0; rule < BND_RULE_COUNT; rule++)
    if (q->adjustments & 1u << rule) bnd_json_string(w, bnd_rule_name((bnd_rule)rule));
  bnd_json_end_array(w);
  if (q->saturated >= 0) bnd_json_put_double(w, "saturated", q->saturated);
  bnd_json_end_object(w);
}

void bnd_write_violation(bnd_json_writer *w, const bnd_violation *violation) {
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_string(w, "rule", bnd_rule_name(violation->rule));
  bnd_json_put_string(w, "node", violation->node);
  bnd_json_put_integer(w, "value", violation->value);
  bnd_json_key(w, "limits");
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  bnd_json_integer(w, violation->limits.low);
  bnd_json_integer(w, violation->limits.high);
  bnd_json_end_array(w);
  bnd_json_put_string(w, "detail", violation->detail);
  bnd_json_end_object(w);
}

static void write_violation(void *user, const bnd_violation *violation) { bnd_write_violation(user, violation); }

bnd_status bnd_write_quantization(const char *path, const bnd_quantization_report *report, bnd_error *error) {
  bnd_string text = {0};
  bnd_json_writer w = {.out = &text};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_put_string(&w, "recipe", report->recipe);
  bnd_json_put_string(&w, "target", report->target->name);
  bnd_json_key(&w, "source");
  bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
  bnd_json_put_string(&w, "file", report->source_file);
  bnd_json_put_string(&w, "sha256", report->source_sha256);
  bnd_json_end_object(&w);
  bnd_json_key(&w, "calibration");
  bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
  bnd_json_put_integer(&w, "images", (int64_t)report->images);
  bnd_json_put_integer(&w, "batch", (int64_t)report->batch);
  bnd_json_end_object(&w);
  write_qat(&w, report->qat, false);
  bnd_json_key(&w, "quantizers");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  quantizer_list list = {&w, report->qat ? report->state : NULL};
  bnd_visit_quantizers(report->graph, write_quantizer, &list);
  bnd_json_end_array(&w);
  bnd_json_key(&w, "violations");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  bnd_check_positions(report->graph, report->target, write_violation, &w);
  bnd_json_end_array(&w);
  bnd_json_end_object(&w);
  return write_whole(path, &text, error);
}
