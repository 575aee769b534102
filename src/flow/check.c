/* `binade check`: does a quantized file keep to a target's constraints? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flow/model.h"
#include "flow/reports.h"
#include "flow/target_profile.h"
#include "formats/json/json.h"
#include "passes/target/adjust.h"

typedef struct check_state {
  bnd_string *text;
  bnd_json_writer *json; /* NULL: text */
  bnd_rule rule;         /* text: the rule whose findings are wanted */
} check_state;

static void write_violation(void *user, const bnd_violation *v) {
  check_state *s = user;
  if (s->json) bnd_write_violation(s->json, v);
  else if (v->rule == s->rule)
    bnd_string_format(s->text, "             %s: %s is %d, allowed %d to %d\n", v->node, v->detail, v->value, v->limits.low, v->limits.high);
}

static void count_violation(void *user, const bnd_violation *v) { ((int *)user)[v->rule]++; }

/* Things no position can mend, one line each: scales that are no powers of two (found while reading), zero points, schemes per channel. */
static int count_lines(const char *text) {
  int lines = 0;
  for (; text && *text; text++) lines += *text == '\n';
  return lines;
}

static void check_text(const bnd_model *model, const bnd_target_profile *target, const int *broken, bnd_string *text) {
  bnd_string_format(text, "%s against %s\n", model->path, target->name);
  for (int rule = 0; rule < BND_RULE_COUNT; rule++) {
    const int nodes = bnd_count_rule(model->graph, target, (bnd_rule)rule);
    bnd_string_format(text, "%-8s %-14s %s (%d node%s", broken[rule] ? "BROKEN" : "ok", bnd_rule_name((bnd_rule)rule), bnd_rule_meaning((bnd_rule)rule), nodes,
                      nodes == 1 ? "" : "s");
    bnd_string_format(text, broken[rule] ? ", %d broken)\n" : ")\n", broken[rule]);
    if (!broken[rule]) continue;
    check_state s = {.text = text, .rule = (bnd_rule)rule};
    bnd_check_positions(model->graph, target, write_violation, &s);
  }
  if (model->findings.length) bnd_string_format(text, "%-8s %-14s every tensor has a symmetric power-of-two scale\n%s", "BROKEN", "scale", model->findings.text);
  else bnd_string_format(text, "%-8s %-14s every tensor has a symmetric power-of-two scale\n", "ok", "scale");
}

static void check_json(const bnd_model *model, const bnd_target_profile *target, int violations, bnd_string *text) {
  bnd_json_writer w = {.out = text};
  check_state s = {.json = &w};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_put_string(&w, "file", model->path);
  bnd_json_put_string(&w, "target", target->name);
  bnd_json_key(&w, "checked");
  bnd_json_begin_object(&w, BND_JSON_LINES);
  for (int rule = 0; rule < BND_RULE_COUNT; rule++) {
    bnd_json_key(&w, bnd_rule_name((bnd_rule)rule));
    bnd_json_integer(&w, bnd_count_rule(model->graph, target, (bnd_rule)rule));
  }
  bnd_json_end_object(&w);
  bnd_json_put_integer(&w, "violation_count", violations);
  bnd_json_key(&w, "violations");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  bnd_check_positions(model->graph, target, write_violation, &s);
  for (const char *line = model->findings.text; line && *line;) {
    const char *end = strchr(line, '\n');
    const int length = end ? (int)(end - line) : (int)strlen(line);
    char detail[1024];
    snprintf(detail, sizeof detail, "%.*s", length, line);
    bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
    bnd_json_put_string(&w, "rule", "scale");
    bnd_json_put_string(&w, "detail", detail);
    bnd_json_end_object(&w);
    line = end ? end + 1 : NULL;
  }
  bnd_json_end_array(&w);
  bnd_json_end_object(&w);
}

static bool has_quantizer(const bnd_graph *graph) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->kind == BND_CALL_MODULE && node->module->quantizer) return true;
  return false;
}

bnd_status bnd_check(const bnd_model *model, const char *target_name, bool json, char **result, int *violations, bnd_error *error) {
  bnd_target_profile target;
  BND_TRY(bnd_target_profile_load(target_name, &target, error));
  if (!bnd_model_is_onnx(model) || !has_quantizer(model->graph))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: holds no quantized network; give the int8.onnx that `binade quantize` wrote", model->path);
  int broken[BND_RULE_COUNT] = {0};
  *violations = bnd_check_positions(model->graph, &target, count_violation, broken) + count_lines(model->findings.text);
  bnd_string text = {0};
  if (json) check_json(model, &target, *violations, &text);
  else check_text(model, &target, broken, &text);
  if (text.failed) {
    bnd_string_free(&text);
    return bnd_fail_memory(error, "the findings");
  }
  *result = text.text;
  return BND_OK;
}
