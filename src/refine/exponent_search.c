#include "refine/exponent_search.h"

#include <stdlib.h>

#include "base/clock.h"
#include "ops/operators.h"
#include "refine/sensitivity.h"

enum { DEFAULT_IMAGES = 16, DEFAULT_CHOICES = 40, DEFAULT_ROUNDS = 2, RANKING_IMAGES = 2 };
static const double DEFAULT_GAIN = 0.002;

typedef struct search {
  bnd_refinement work; /* judged by `images` */
  bnd_image_source images;
  bnd_graph *graph;    /* the caller's; satisfies the rules */
  int *unit;           /* by node id of fake quantizers: the smallest id among those tied to it; -1 */
  double distance, gain, limit_seconds;
  struct timespec begin;
  int tried, moved;
} search;

/* --- what moves together --- */

static bool is_aligned(const bnd_refinement *work, const bnd_node *node) {
  const bnd_target_profile *t = work->target;
  return (t->align_concat && bnd_is_concat(node)) || (t->align_pool && bnd_is_pool(node)) || (t->align_slice && bnd_node_is(node, BND_OP_SLICE));
}

typedef struct lowest {
  const int *unit;
  int id;
} lowest;

static void look_lower(void *user, bnd_node *input) {
  lowest *l = user;
  if (l->unit[input->id] >= 0 && l->unit[input->id] < l->id) l->id = l->unit[input->id];
}

typedef struct lowering {
  int *unit;
  int id;
  bool changed;
} lowering;

static void lower(void *user, bnd_node *input) {
  lowering *l = user;
  if (l->unit[input->id] <= l->id) return;
  l->unit[input->id] = l->id;
  l->changed = true;
}

static bnd_status find_units(search *s, bnd_error *error) {
  const size_t ids = (size_t)bnd_graph_id_limit(s->graph);
  if (!(s->unit = bnd_calloc(ids, sizeof *s->unit))) return bnd_fail_memory(error, "the search for exponents");
  for (size_t i = 0; i < ids; i++) s->unit[i] = -1;
  for (bnd_node *node = bnd_graph_first(s->graph); node; node = node->next)
    if (bnd_is_fake_quantize(node) && node->module->quantizer->channels == 1) s->unit[node->id] = node->id;
  for (bool changed = true; changed;) {
    changed = false;
    for (bnd_node *node = bnd_graph_first(s->graph); node; node = node->next) {
      bnd_node *quantizer = node->user_count == 1 ? node->users[0] : NULL;
      if (!node->op || !is_aligned(&s->work, node) || !quantizer || s->unit[quantizer->id] < 0) continue;
      lowest l = {s->unit, s->unit[quantizer->id]};
      bnd_node_visit_inputs(node, look_lower, &l);
      lowering to = {.unit = s->unit, .id = l.id};
      bnd_node_visit_inputs(node, lower, &to);
      lower(&to, quantizer);
      changed |= to.changed;
    }
  }
  return BND_OK;
}

/* --- moving --- */

static bnd_quantizer *quantizer_of(bnd_node *node, bnd_tensor_kind kind) {
  if (kind == BND_TENSOR_ACTIVATION) return bnd_is_fake_quantize(node) ? node->module->quantizer : NULL;
  if (!bnd_is_conv_module(node)) return NULL;
  return kind == BND_TENSOR_WEIGHT ? node->module->weight_quantizer : node->module->bias_quantizer;
}

static void move(const search *s, bnd_graph *graph, const bnd_sensitivity_row *row, int by) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const bool chosen = row->kind == BND_TENSOR_ACTIVATION ? s->unit[node->id] >= 0 && s->unit[node->id] == s->unit[row->node_id] : node->id == row->node_id;
    bnd_quantizer *q = chosen ? quantizer_of(node, row->kind) : NULL;
    for (int c = 0; q && c < q->channels; c++) q->position[c] += by;
  }
}

/* Copies positions, or only tells whether they differ. Both graphs have the same nodes in the same order. */
static bool take_positions(bnd_graph *to, bnd_graph *from, bool copy) {
  bool differ = false;
  for (bnd_node *a = bnd_graph_first(to), *b = bnd_graph_first(from); a && b; a = a->next, b = b->next)
    for (int kind = BND_TENSOR_ACTIVATION; kind <= BND_TENSOR_BIAS; kind++) {
      bnd_quantizer *x = quantizer_of(a, (bnd_tensor_kind)kind), *y = quantizer_of(b, (bnd_tensor_kind)kind);
      for (int c = 0; x && y && c < x->channels; c++) {
        differ |= x->position[c] != y->position[c];
        if (copy) x->position[c] = y->position[c];
      }
      if (copy && x && y) x->adjustments = y->adjustments;
    }
  return differ;
}

/* Keeps the move if it helps enough. A move that the rules take back, or cannot follow, is none. */
static bnd_status try_move(search *s, const bnd_sensitivity_row *row, int by, bool *helped, bnd_error *error) {
  bnd_graph *candidate;
  double distance;
  *helped = false;
  if (bnd_is_cancelled(s->work.context)) return bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted during the search for exponents");
  BND_TRY(bnd_graph_copy(s->graph, &candidate, error));
  move(s, candidate, row, by);
  bnd_status status = BND_OK;
  if (bnd_adjust_to_fixed_point(candidate, s->work.target, NULL, NULL) == BND_OK && take_positions(candidate, s->graph, false)) {
    status = bnd_refine_measure(&s->work, candidate, &s->images, &distance, error);
    s->tried++;
    if (status == BND_OK && distance < s->distance * (1 - s->gain)) {
      take_positions(s->graph, candidate, true);
      s->distance = distance;
      s->moved++;
      *helped = true;
    }
  }
  bnd_graph_destroy(candidate);
  return status;
}

static bool out_of_time(const search *s) {
  return s->limit_seconds > 0 && bnd_seconds_since(&s->begin) > s->limit_seconds;
}

/* Up, then down; in the direction that helped as far as it helps. */
static bnd_status try_tensor(search *s, const bnd_sensitivity_row *row, bool *helped, bnd_error *error) {
  *helped = false;
  for (int by = 1; by >= -1 && !*helped; by -= 2)
    for (bool again = true; again && !out_of_time(s);) {
      BND_TRY(try_move(s, row, by, &again, error));
      *helped |= again;
    }
  return BND_OK;
}

/* Tensors of a unit that comes up a second time have been tried. */
static bool comes_up_before(const search *s, const bnd_sensitivity *table, size_t index) {
  const bnd_sensitivity_row *row = &table->rows[index];
  for (size_t i = 0; i < index && row->kind == BND_TENSOR_ACTIVATION; i++)
    if (table->rows[i].kind == BND_TENSOR_ACTIVATION && s->unit[table->rows[i].node_id] >= 0 && s->unit[table->rows[i].node_id] == s->unit[row->node_id]) return true;
  return false;
}

static bnd_status descend(search *s, const bnd_sensitivity *table, size_t choices, int rounds, bnd_error *error) {
  for (int round = 0; round < rounds; round++) {
    bool found = false;
    size_t chosen = 0;
    for (size_t i = 0; i < table->count && chosen < choices && !out_of_time(s); i++) {
      bool helped;
      if (comes_up_before(s, table, i)) continue;
      bnd_report_progress(s->work.context, "search for exponents", "tensors", (uint64_t)round * choices + chosen++, (uint64_t)rounds * choices);
      BND_TRY(try_tensor(s, &table->rows[i], &helped, error));
      found |= helped;
    }
    if (!found) break;
  }
  return BND_OK;
}

bnd_status bnd_refine_exponent_search_with(bnd_refinement *work, const bnd_exponent_search_options *options, bnd_string *report, bnd_error *error) {
  search s = {.work = *work, .images = *work->images, .graph = work->graph, .gain = options->gain > 0 ? options->gain : DEFAULT_GAIN,
              .limit_seconds = work->minutes * 60};
  const size_t limit = options->images ? options->images : DEFAULT_IMAGES;
  bnd_reference *reference = NULL;
  bnd_sensitivity table = {0};
  clock_gettime(CLOCK_MONOTONIC, &s.begin);
  if (s.images.count > limit) s.images.count = limit;
  if (s.images.count == 0) return bnd_fail(error, BND_ERROR_ARGUMENT, "the search for exponents needs at least one image");
  s.work.held_out = &s.images;
  s.work.reference = NULL;
  const bnd_sensitivity_options ranking = {.images = RANKING_IMAGES, .only_alone = true, .no_biases = true};
  bnd_status status = bnd_adjust_to_fixed_point(s.graph, work->target, NULL, error);
  if (status == BND_OK) status = find_units(&s, error);
  if (status == BND_OK) status = bnd_sensitivity_measure(&s.work, &ranking, &table, error);
  if (status == BND_OK) status = bnd_reference_create(work->teacher, &s.images, work->backend, work->context, &reference, error);
  s.work.reference = reference;
  if (status == BND_OK) status = bnd_refine_measure(&s.work, s.graph, &s.images, &s.distance, error);
  const double before = s.distance;
  if (status == BND_OK)
    status = descend(&s, &table, options->choices ? options->choices : DEFAULT_CHOICES, options->rounds > 0 ? options->rounds : DEFAULT_ROUNDS, error);
  if (status == BND_OK)
    bnd_string_format(report, "search for exponents: %d moves of %d tried, distance %.5f -> %.5f over %zu images\n", s.moved, s.tried, before, s.distance,
                      s.images.count);
  bnd_sensitivity_free(&table);
  bnd_reference_destroy(reference);
  free(s.unit);
  return status;
}

bnd_status bnd_refine_exponent_search(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  return bnd_refine_exponent_search_with(work, &(bnd_exponent_search_options){0}, report, error);
}
