#include "refine/sensitivity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json/json.h"
#include "ops/operators.h"

enum { DEFAULT_IMAGES = 4, DEFAULT_RUNS = 2400 };

const char *bnd_tensor_kind_name(bnd_tensor_kind kind) {
  static const char *const names[] = {"activation", "weight", "bias"};
  return names[kind];
}

/* --- graphs with some of their quantizers --- */

/* The quantizer of that kind at a node; NULL = none. */
static bnd_quantizer **quantizer_at(bnd_node *node, bnd_tensor_kind kind) {
  if (!node->module) return NULL;
  if (kind == BND_TENSOR_ACTIVATION) return bnd_is_fake_quantize(node) ? &node->module->quantizer : NULL;
  if (!bnd_is_conv_module(node)) return NULL;
  return kind == BND_TENSOR_WEIGHT ? &node->module->weight_quantizer : &node->module->bias_quantizer;
}

static void remove_quantizer(bnd_node *node, bnd_tensor_kind kind) {
  if (kind == BND_TENSOR_ACTIVATION) {
    bnd_node_replace_all_uses(node, bnd_arg_node(node, 0), false);
    bnd_node_erase(node); /* the module stays with the graph */
    return;
  }
  bnd_quantizer **quantizer = quantizer_at(node, kind);
  bnd_quantizer_destroy(*quantizer);
  *quantizer = NULL;
}

static bool is_row(const bnd_sensitivity_row *row, const bnd_node *node, bnd_tensor_kind kind) { return row && row->node_id == node->id && row->kind == kind; }

/* Keeps the quantizer of `row` alone (alone), or all but it. row NULL: there is none. */
static void choose_quantizers(bnd_graph *graph, const bnd_sensitivity_row *row, bool alone) {
  for (bnd_node *node = bnd_graph_first(graph), *next; node; node = next) {
    next = node->next;
    for (int kind = BND_TENSOR_BIAS; kind >= BND_TENSOR_ACTIVATION; kind--) { /* activations last: the node is gone then */
      bnd_quantizer **quantizer = quantizer_at(node, (bnd_tensor_kind)kind);
      if (quantizer && *quantizer && is_row(row, node, (bnd_tensor_kind)kind) != alone) remove_quantizer(node, (bnd_tensor_kind)kind);
    }
  }
}

/* --- measuring --- */

typedef struct measurement {
  bnd_refinement work;     /* with its own few images */
  bnd_image_source images;
  bnd_graph *graph;        /* as it would be exported */
  bnd_graph *plain;        /* the same with the teacher's weights and biases: without quantizers it is the float network */
  size_t done, runs;       /* for progress */
} measurement;

static bnd_status distance_of(measurement *m, const bnd_sensitivity_row *row, bool alone, double *distance, bnd_error *error) {
  bnd_graph *copy;
  if (bnd_is_cancelled(m->work.context)) return bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted during sensitivity");
  bnd_report_progress(m->work.context, "sensitivity", "networks", m->done++, m->runs);
  BND_TRY(bnd_graph_copy(row && alone ? m->plain : m->graph, &copy, error));
  if (row) choose_quantizers(copy, row, alone);
  bnd_status status = bnd_graph_status(copy, error);
  if (status == BND_OK) status = bnd_refine_measure(&m->work, copy, &m->images, distance, error);
  bnd_graph_destroy(copy);
  return status;
}

/* Steps may have trained or corrected weights and biases so that they answer for the quantization of other tensors, too: in float they are another network. */
static void take_weights(bnd_graph *to, const bnd_graph *from) {
  for (const bnd_node *node = bnd_graph_first(from); node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    bnd_module *module = bnd_graph_find_module(to, node->module->name);
    if (module) bnd_module_share_weights(module, node->module);
  }
}

static void close_measurement(measurement *m) {
  bnd_graph_destroy(m->graph);
  bnd_graph_destroy(m->plain);
}

static bnd_status open_measurement(measurement *m, const bnd_refinement *work, size_t images, bnd_reference **reference, bnd_error *error) {
  *m = (measurement){.work = *work, .images = *work->held_out};
  m->images.count = images;
  m->work.held_out = &m->images;
  BND_TRY(bnd_graph_copy(work->graph, &m->graph, error));
  bnd_status status = bnd_adjust_to_fixed_point(m->graph, work->target, NULL, error);
  if (status == BND_OK) status = bnd_graph_copy(m->graph, &m->plain, error);
  if (status == BND_OK) take_weights(m->plain, work->teacher);
  if (status == BND_OK) status = bnd_reference_create(work->teacher, &m->images, work->backend, work->context, reference, error);
  if (status == BND_OK) m->work.reference = *reference;
  else close_measurement(m);
  return status;
}

/* --- the table --- */

static bool is_last(const bnd_node *quantizer) {
  for (int i = 0; i < quantizer->user_count; i++)
    if (bnd_node_is(quantizer->users[i], BND_OP_DEQUANT_STUB) || quantizer->users[i]->kind == BND_OUTPUT) return true;
  return false;
}

static const char *remedy_of(const bnd_node *node, bnd_tensor_kind kind, const bnd_quantizer *q) {
  if (kind == BND_TENSOR_BIAS) return "correct biases (bias), or train them (reconstruct)";
  if (q->adjustments) return "a rule of the target moved its scale: bring its neighbours' ranges together (equalize), search exponents again with the rules in force";
  if (kind == BND_TENSOR_WEIGHT) return "even out its channels (equalize), then train it against the float block (reconstruct); one scale for each channel where the target allows it";
  if (is_last(node)) return "a prediction itself: leave its layer in float where the target allows it, or train with distillation (QAT)";
  if (bnd_node_is(bnd_arg_node(node, 0), BND_OP_ADD)) return "a sum of unlike ranges: even out its channels (equalize), or train its block (reconstruct)";
  if (bnd_is_concat(bnd_arg_node(node, 0))) return "one scale for everything concatenated: even out its channels (equalize)";
  return "another exponent (exponents, search), or more even channels (equalize)";
}

static bnd_status add_row(bnd_sensitivity *table, size_t *capacity, const bnd_node *node, bnd_tensor_kind kind, const bnd_quantizer *q, bnd_error *error) {
  const bnd_node *maker = bnd_is_fake_quantize(node) && bnd_arg_node(node, 0) ? bnd_arg_node(node, 0) : node;
  if (!BND_GROW(table->rows, *capacity, table->count + 1)) return bnd_fail_memory(error, "sensitivity");
  bnd_sensitivity_row *row = &table->rows[table->count++];
  *row = (bnd_sensitivity_row){.node = bnd_arena_copy(table->names, node->name), .place = bnd_arena_copy(table->names, maker->scope ? maker->scope : ""),
                               .kind = kind, .node_id = node->id, .position = q->position[0], .without = NAN, .remedy = remedy_of(node, kind, q)};
  return row->node && row->place ? BND_OK : bnd_fail_memory(error, "sensitivity");
}

static bnd_status list_tensors(bnd_graph *graph, bool biases, bnd_sensitivity *table, bnd_error *error) {
  size_t capacity = 0;
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    for (int kind = BND_TENSOR_ACTIVATION; kind <= (biases ? BND_TENSOR_BIAS : BND_TENSOR_WEIGHT); kind++) {
      bnd_quantizer **quantizer = quantizer_at(node, (bnd_tensor_kind)kind);
      if (quantizer && *quantizer) BND_TRY(add_row(table, &capacity, node, (bnd_tensor_kind)kind, *quantizer, error));
    }
  return BND_OK;
}

/* Rows stand in the order of the graph at first, so ids and kinds decide between equals. A NaN counts as harmful. */
static int compare_rows(const void *a, const void *b) {
  const bnd_sensitivity_row *x = a, *y = b;
  const double p = isnan(x->alone) ? INFINITY : x->alone, q = isnan(y->alone) ? INFINITY : y->alone;
  if (p != q) return p > q ? -1 : 1;
  if (x->node_id != y->node_id) return x->node_id < y->node_id ? -1 : 1;
  return (int)x->kind - (int)y->kind;
}

static size_t at_most(size_t value, size_t limit) { return value < limit ? value : limit; }

bnd_status bnd_sensitivity_measure(const bnd_refinement *work, const bnd_sensitivity_options *options, bnd_sensitivity *table, bnd_error *error) {
  const bnd_sensitivity_options chosen = options ? *options : (bnd_sensitivity_options){0};
  const size_t runs = chosen.runs ? chosen.runs : DEFAULT_RUNS;
  *table = (bnd_sensitivity){.names = bnd_arena_create()};
  if (work->held_out->count == 0) {
    bnd_sensitivity_free(table);
    return bnd_fail(error, BND_ERROR_ARGUMENT, "sensitivity is measured with at least one image");
  }
  measurement m = {0};
  bnd_reference *reference = NULL;
  bnd_status status = table->names ? list_tensors(work->graph, !chosen.no_biases, table, error) : bnd_fail_memory(error, "sensitivity");
  const size_t networks = table->count * (chosen.only_alone ? 1 : 2) + 1, affordable = runs / networks ? runs / networks : 1;
  table->images = at_most(at_most(chosen.images ? chosen.images : DEFAULT_IMAGES, affordable), work->held_out->count);
  const size_t left = runs / table->images > table->count + 1 ? runs / table->images - table->count - 1 : 0;
  const size_t twice = chosen.only_alone ? 0 : at_most(left, table->count); /* tensors that are measured in the second way, too */
  if (status == BND_OK) status = open_measurement(&m, work, table->images, &reference, error);
  if (status != BND_OK) {
    bnd_sensitivity_free(table);
    return status;
  }
  m.runs = table->count + twice + 1;
  for (size_t i = 0; i < table->count; i++) { /* positions as they would be exported */
    bnd_node *node = bnd_graph_find(m.graph, table->rows[i].node);
    table->rows[i].position = (*quantizer_at(node, table->rows[i].kind))->position[0];
    table->rows[i].remedy = remedy_of(node, table->rows[i].kind, *quantizer_at(node, table->rows[i].kind));
  }
  status = distance_of(&m, NULL, false, &table->everything, error);
  for (size_t i = 0; i < table->count && status == BND_OK; i++) status = distance_of(&m, &table->rows[i], true, &table->rows[i].alone, error);
  qsort(table->rows, table->count, sizeof *table->rows, compare_rows);
  for (size_t i = 0; i < twice && status == BND_OK; i++) status = distance_of(&m, &table->rows[i], false, &table->rows[i].without, error);
  if (status == BND_OK) bnd_report_progress(work->context, "sensitivity", "networks", m.runs, m.runs);
  bnd_reference_destroy(reference);
  close_measurement(&m);
  if (status != BND_OK) bnd_sensitivity_free(table);
  return status;
}

void bnd_sensitivity_free(bnd_sensitivity *table) {
  free(table->rows);
  bnd_arena_destroy(table->names);
  *table = (bnd_sensitivity){0};
}

/* --- showing it --- */

void bnd_sensitivity_print(const bnd_sensitivity *table, size_t limit, bnd_string *text) {
  const size_t count = limit ? at_most(limit, table->count) : table->count;
  int node = (int)strlen("node"), place = (int)strlen("place");
  for (size_t i = 0; i < count; i++) {
    node = (int)fmax(node, (double)strlen(table->rows[i].node));
    place = (int)fmax(place, (double)strlen(table->rows[i].place));
  }
  bnd_string_format(text, "Distance from the float network over %zu image%s: %.5f.\n", table->images, table->images == 1 ? "" : "s", table->everything);
  bnd_string_format(text, "alone: with this tensor quantized and nothing else; without: with everything quantized but it.\n\n");
  bnd_string_format(text, "%9s  %9s  %-10s  %8s  %-*s  %-*s  %s\n", "alone", "without", "kind", "position", node, "node", place, "place", "remedy");
  for (size_t i = 0; i < count; i++) {
    const bnd_sensitivity_row *r = &table->rows[i];
    char without[32] = "-";
    if (!isnan(r->without)) snprintf(without, sizeof without, "%.5f", r->without);
    bnd_string_format(text, "%9.5f  %9s  %-10s  %8d  %-*s  %-*s  %s\n", r->alone, without, bnd_tensor_kind_name(r->kind), r->position, node, r->node, place, r->place,
                      r->remedy);
  }
}

void bnd_sensitivity_json(const bnd_sensitivity *table, bnd_string *text) {
  bnd_json_writer w = {.out = text};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_put_integer(&w, "images", (int64_t)table->images);
  bnd_json_put_double(&w, "everything", table->everything);
  bnd_json_key(&w, "tensors");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (size_t i = 0; i < table->count; i++) {
    const bnd_sensitivity_row *r = &table->rows[i];
    bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
    bnd_json_put_string(&w, "node", r->node);
    bnd_json_put_string(&w, "place", r->place);
    bnd_json_put_string(&w, "kind", bnd_tensor_kind_name(r->kind));
    bnd_json_put_integer(&w, "position", r->position);
    bnd_json_put_double(&w, "alone", r->alone);
    bnd_json_put_double(&w, "without", r->without);
    bnd_json_put_string(&w, "remedy", r->remedy);
    bnd_json_end_object(&w);
  }
  bnd_json_end_array(&w);
  bnd_json_end_object(&w);
}
