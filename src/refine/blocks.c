#include "refine/blocks.h"

#include <stdlib.h>
#include <string.h>

#include "ops/operators.h"

/* What is known of each position in the order of the nodes. A cut at p runs behind node p. The order is not the graph's, where passes have drawn modules
   far ahead of the place their values are needed, but one that computes values as late as it can, so that few cross a cut. */
typedef struct survey {
  bnd_node **nodes;
  int *position; /* by node id; -1 = nothing needs it */
  int count;
  bool *varies; /* depends on a placeholder */
  bool *leads;  /* a convolution with quantized weights lies behind it */
  int *width;   /* values that cross a cut here and lead on */
  int *unquantized; /* those of them that no fake quantizer made */
} survey;

static bool is_quantized_convolution(const bnd_node *node) {
  return node->kind == BND_CALL_MODULE && bnd_is_conv_module(node) && node->module && node->module->weight_quantizer;
}

static void free_survey(survey *s) {
  free(s->nodes);
  free(s->position);
  free(s->varies);
  free(s->leads);
  free(s->width);
  free(s->unquantized);
}

typedef struct variation {
  const survey *survey;
  bool found;
} variation;

static void note_varying(void *user, bnd_node *input) {
  variation *v = user;
  v->found |= v->survey->varies[v->survey->position[input->id]];
}

static bool continues_in(const survey *s, const bnd_node *user) {
  const int at = s->position[user->id];
  return at >= 0 && (is_quantized_convolution(user) || s->leads[at]);
}

/* The last position up to which a value is needed by what leads on; its own when nothing needs it. */
static int needed_until(const survey *s, int index) {
  int last = index;
  for (int u = 0; u < s->nodes[index]->user_count; u++) {
    const bnd_node *user = s->nodes[index]->users[u];
    if (continues_in(s, user) && s->position[user->id] > last) last = s->position[user->id];
  }
  return last;
}

typedef struct ordering {
  int *pending;     /* by node id: needed users that have no place yet */
  bnd_node **ready; /* a stack */
  int ready_count;
} ordering;

static void place_user(void *user, bnd_node *input) {
  ordering *o = user;
  if (o->pending[input->id] > 0 && --o->pending[input->id] == 0) o->ready[o->ready_count++] = input;
}

static void count_use(void *user, bnd_node *input) {
  ((int *)user)[input->id]++;
}

/* From the output backwards, always on with the value asked for last. */
static bnd_status order_nodes(const bnd_graph *graph, survey *s, bnd_error *error) {
  const size_t limit = (size_t)bnd_graph_id_limit(graph) + 1;
  ordering o = {.pending = bnd_calloc(limit, sizeof *o.pending), .ready = bnd_calloc(limit, sizeof(bnd_node *))};
  bnd_node *output = bnd_graph_last(graph);
  if (o.pending && o.ready && output) {
    for (size_t i = 0; i < limit; i++) s->position[i] = -1;
    o.pending[output->id] = 1;
    for (bnd_node *node = output; node; node = node->previous)
      if (o.pending[node->id]) bnd_node_visit_inputs(node, count_use, o.pending), s->count++;
    o.ready[o.ready_count++] = output;
    for (int at = s->count; o.ready_count > 0;) {
      bnd_node *node = o.ready[--o.ready_count];
      s->nodes[--at] = node;
      s->position[node->id] = at;
      bnd_node_visit_inputs(node, place_user, &o);
    }
  }
  const bool fine = o.pending && o.ready;
  free(o.pending);
  free(o.ready);
  return fine ? BND_OK : bnd_fail_memory(error, "the blocks of the network");
}

static bnd_status make_survey(const bnd_graph *graph, survey *s, bnd_error *error) {
  const size_t count = (size_t)bnd_graph_node_count(graph) + 1;
  *s = (survey){.nodes = bnd_calloc(count, sizeof *s->nodes),
                .position = bnd_calloc((size_t)bnd_graph_id_limit(graph) + 1, sizeof *s->position),
                .varies = bnd_calloc(count, sizeof *s->varies),
                .leads = bnd_calloc(count, sizeof *s->leads),
                .width = bnd_calloc(count, sizeof *s->width),
                .unquantized = bnd_calloc(count, sizeof *s->unquantized)};
  if (!s->nodes || !s->position || !s->varies || !s->leads || !s->width || !s->unquantized) {
    free_survey(s);
    return bnd_fail_memory(error, "the blocks of the network");
  }
  const bnd_status status = order_nodes(graph, s, error);
  if (status != BND_OK) {
    free_survey(s);
    return status;
  }
  for (int i = 0; i < s->count; i++) {
    variation v = {s, s->nodes[i]->kind == BND_PLACEHOLDER};
    bnd_node_visit_inputs(s->nodes[i], note_varying, &v);
    s->varies[i] = v.found;
  }
  for (int i = s->count - 1; i >= 0; i--)
    for (int u = 0; u < s->nodes[i]->user_count; u++) s->leads[i] |= continues_in(s, s->nodes[i]->users[u]);
  for (int i = 0; i < s->count; i++) {
    if (!s->varies[i] || !s->leads[i]) continue;
    const int last = needed_until(s, i);
    for (int p = i; p < last; p++) {
      s->width[p]++;
      if (!bnd_is_fake_quantize(s->nodes[i])) s->unquantized[p]++;
    }
  }
  return BND_OK;
}

/* --- where to cut --- */

static bool is_cut(const survey *s, int p) {
  return s->unquantized[p] == 0;
}

/* Where what a convolution computes is finished: behind its activation and its fake quantizer, where it has them. */
static bnd_node *end_of(bnd_node *convolution) {
  bnd_node *end = convolution;
  if (end->user_count == 1 && bnd_is_activation(end->users[0])) end = end->users[0];
  return end->user_count == 1 && bnd_is_fake_quantize(end->users[0]) ? end->users[0] : end;
}

/* The last position that belongs to a block at all. */
static int end_of_all(const survey *s) {
  int last = -1;
  for (int i = 0; i < s->count; i++)
    if (is_quantized_convolution(s->nodes[i]) && s->position[end_of(s->nodes[i])->id] > last) last = s->position[end_of(s->nodes[i])->id];
  return last;
}

/* The last cut in front of the first convolution; -1 when there is none. */
static int first_cut(const survey *s) {
  int cut = -1;
  for (int i = 0; i < s->count && !is_quantized_convolution(s->nodes[i]); i++)
    if (is_cut(s, i) && s->width[i] > 0) cut = i;
  return cut;
}

/* The next cut behind `begin`, at most `end`. */
static int next_cut(const survey *s, int begin, int end, int most_convolutions) {
  int best = -1, convolutions = 0;
  for (int p = begin + 1; p <= end; p++) {
    convolutions += is_quantized_convolution(s->nodes[p]);
    if (convolutions == 0 || (p < end && !is_cut(s, p))) continue;
    if (best >= 0 && convolutions > most_convolutions) break;
    if (best < 0 || s->width[p] <= s->width[best] || p == end) best = p;
  }
  return best < 0 ? end : best;
}

/* --- what goes in and out --- */

typedef struct reach {
  const survey *survey;
  int begin;
  bool *seen; /* by position */
} reach;

static void visit(void *user, bnd_node *input) {
  reach *r = user;
  const int p = r->survey->position[input->id];
  if (r->seen[p] || !r->survey->varies[p]) return;
  r->seen[p] = true;
  if (p > r->begin && input->kind != BND_PLACEHOLDER) bnd_node_visit_inputs(input, visit, r);
}

static bool is_output(const survey *s, int p, int end) {
  bnd_node *node = s->nodes[p];
  if (s->varies[p] && s->leads[p]) return needed_until(s, p) > end;
  if (is_quantized_convolution(node)) return end_of(node) == node;
  /* the end of a convolution is told by what stands before it: one input, or one behind an activation */
  bnd_node *input = bnd_arg_node(node, 0);
  if (input && !is_quantized_convolution(input) && bnd_is_activation(input)) input = bnd_arg_node(input, 0);
  return input && is_quantized_convolution(input) && end_of(input) == node;
}

static bool take(bnd_node ***array, int *count, bnd_node *node) {
  size_t capacity = (size_t)*count;
  if (!BND_GROW(*array, capacity, (size_t)*count + 1)) return false;
  (*array)[(*count)++] = node;
  return true;
}

static bnd_status describe(const survey *s, int begin, int end, bnd_block *block, bnd_error *error) {
  reach r = {s, begin, bnd_calloc((size_t)s->count, sizeof *r.seen)};
  bool fine = r.seen != NULL;
  for (int p = begin + 1; p <= end && fine; p++) {
    block->convolutions += is_quantized_convolution(s->nodes[p]);
    if (!is_output(s, p, end)) continue;
    fine = take(&block->outputs, &block->output_count, s->nodes[p]);
    visit(&r, s->nodes[p]);
  }
  for (int p = 0; p < s->count && fine; p++)
    if (r.seen[p] && (p <= begin || s->nodes[p]->kind == BND_PLACEHOLDER)) fine = take(&block->inputs, &block->input_count, s->nodes[p]);
  free(r.seen);
  return fine ? BND_OK : bnd_fail_memory(error, "the blocks of the network");
}

bnd_status bnd_blocks_find(const bnd_graph *graph, int most_convolutions, bnd_block_list *list, bnd_error *error) {
  *list = (bnd_block_list){0};
  survey s;
  BND_TRY(make_survey(graph, &s, error));
  bnd_status status = BND_OK;
  const int end = end_of_all(&s);
  for (int begin = first_cut(&s); begin < end && status == BND_OK;) {
    const int cut = next_cut(&s, begin, end, most_convolutions);
    bnd_block block = {0};
    status = describe(&s, begin, cut, &block, error);
    if (status == BND_OK && !BND_GROW(list->items, list->capacity, list->count + 1)) status = bnd_fail_memory(error, "the blocks of the network");
    if (status == BND_OK && block.convolutions && block.output_count) {
      list->items[list->count++] = block;
    } else {
      free(block.inputs);
      free(block.outputs);
    }
    begin = cut;
  }
  free_survey(&s);
  if (status != BND_OK) bnd_blocks_free(list);
  return status;
}

void bnd_blocks_free(bnd_block_list *list) {
  for (size_t i = 0; i < list->count; i++) {
    free(list->items[i].inputs);
    free(list->items[i].outputs);
  }
  free(list->items);
  *list = (bnd_block_list){0};
}

/* --- a block as a graph --- */

static bnd_status twin(const bnd_graph *graph, const bnd_node *node, bnd_node **found, bnd_error *error) {
  *found = bnd_graph_find(graph, node->name);
  return *found ? BND_OK : bnd_fail(error, BND_ERROR_INTERNAL, "%s: is not in the graph", node->name);
}

static bnd_status read_from_placeholders(bnd_graph *graph, bnd_node *const *inputs, int count, bnd_error *error) {
  bnd_node *first = bnd_graph_first(graph);
  for (int i = 0; i < count; i++) {
    bnd_node *node;
    BND_TRY(twin(graph, inputs[i], &node, error));
    bnd_node *placeholder = bnd_graph_placeholder(graph, "block_input", &node->shape[0]);
    if (!placeholder) return bnd_graph_status(graph, error);
    placeholder->result_count = 1;
    placeholder->dtype = node->dtype;
    bnd_node_move_before(placeholder, first);
    bnd_node_replace_all_uses(node, placeholder, false);
  }
  return bnd_graph_status(graph, error);
}

/* Unlike torch.fx's elimination of dead code this takes operators in place and the old placeholders, too. */
static void remove_unused(bnd_graph *graph, int placeholders) {
  bnd_node *keep = bnd_graph_first(graph);
  for (int i = 1; i < placeholders; i++) keep = keep->next;
  for (bnd_node *node = bnd_graph_last(graph), *previous; node && node != keep; node = previous) {
    previous = node->previous;
    if (node->kind != BND_OUTPUT && node->user_count == 0) bnd_node_erase(node);
  }
}

static bnd_status reduce(bnd_graph *graph, bnd_node *const *inputs, int input_count, bnd_node *const *outputs, int output_count, bnd_error *error) {
  bnd_node *last = bnd_graph_last(graph);
  bnd_node **results = bnd_calloc((size_t)output_count, sizeof *results);
  bnd_status status = results && last && last->kind == BND_OUTPUT ? BND_OK : bnd_fail_memory(error, "a block of the network");
  for (int i = 0; i < output_count && status == BND_OK; i++) status = twin(graph, outputs[i], &results[i], error);
  if (status == BND_OK) {
    const bnd_arg list = bnd_graph_node_list(graph, results, output_count);
    bnd_node_set_args(last, &list, 1);
    status = read_from_placeholders(graph, inputs, input_count, error);
  }
  if (status == BND_OK) remove_unused(graph, input_count);
  free(results);
  return status == BND_OK ? bnd_infer_shapes(graph, error) : status;
}

bnd_status bnd_block_graph(const bnd_graph *graph, bnd_node *const *inputs, int input_count, bnd_node *const *outputs, int output_count,
                           bnd_graph **result, bnd_error *error) {
  bnd_graph *copy;
  BND_TRY(bnd_graph_copy(graph, &copy, error));
  const bnd_status status = reduce(copy, inputs, input_count, outputs, output_count, error);
  if (status == BND_OK) *result = copy;
  else bnd_graph_destroy(copy);
  return status;
}
