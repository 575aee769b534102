/* Exponents by the error they cause behind the next layer, not in the tensor itself.

   Of an activation x with error e = Q(x) - x the layer that reads it makes W * e. With errors of different values uncorrelated (rounding is) its expected
   square is sum over channels c of |W[:, c]|^2 E[e_c^2]: a channel whose weights are small may be clipped or rounded at little cost. Of a weight with error
   dW the layer makes dW * x, expected square sum over c of |dW[:, c]|^2 E[x_c^2]. (The diagonal form of what Nagel et al. 2020, "Up or down?", derive.)
   Errors of several readers are added relative to the power of what each of them puts out. Values that the target wants under one scale (concat, pool,
   slice) get it here, with the least error of all of them together, instead of the smallest position afterwards.

   Two passes over all calibration images: moments of every channel, then the errors of every candidate. The model knows nothing of what happens behind the
   next layer, so a change it proposes is made only if the answers of the whole network, on the first calibration images, come closer to the float one's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/simd.h"
#include "refine/guard.h"
#include "refine/steps.h"

enum { CANDIDATES = 6, MOST_DEPTH = 64, TRIAL_IMAGES = 16 };

typedef struct tensor_record {
  bnd_node *node;     /* the fake quantizer */
  size_t first;       /* of its channels in `moments` and `gain` */
  size_t channels, inner;
  int group;          /* index of the record that stands for all under one scale */
  int lowest;         /* position of candidate 0; of the group */
  double power;       /* E[x^2] over everything */
} tensor_record;

typedef struct search {
  bnd_refinement *work;
  tensor_record *tensors;
  size_t tensor_count, channel_count;
  int *index_of;      /* by node id; -1 */
  double *moments;    /* [images][channel_count][2] sum of x and of x^2 */
  double *total;      /* [channel_count][2] mean of x and of x^2 */
  double *gain;       /* [channel_count] what a squared error there costs */
  double *errors;     /* [images][tensor_count][CANDIDATES] */
  float **scratch;    /* [workers] */
  int workers;
} search;

/* --- tensors and those that share a scale --- */

static bnd_node *quantizer_behind(const bnd_node *node) {
  for (int i = 0; i < node->user_count; i++)
    if (bnd_is_fake_quantize(node->users[i])) return node->users[i];
  return NULL;
}

static void layout_channels(tensor_record *t) {
  const bnd_shape *shape = &t->node->shape[0];
  size_t count = 0;
  bnd_shape_count(shape, &count);
  t->channels = shape->rank >= 2 && shape->size[0] == 1 ? (size_t)shape->size[1] : 1;
  t->inner = t->channels ? count / t->channels : 0;
}

static bool reads_constant(const bnd_node *quantizer) {
  const bnd_node *input = bnd_arg_node(quantizer, 0);
  return !input || input->kind == BND_GET_ATTR;
}

static int representative(search *s, int index) {
  while (s->tensors[index].group != index) index = s->tensors[index].group;
  return index;
}

static void tie(search *s, const bnd_node *a, const bnd_node *b) {
  if (!a || !b || s->index_of[a->id] < 0 || s->index_of[b->id] < 0) return;
  const int x = representative(s, s->index_of[a->id]), y = representative(s, s->index_of[b->id]);
  if (x < y) s->tensors[y].group = x;
  else s->tensors[x].group = y;
}

static void tie_as_target_wants(search *s) {
  const bnd_target_profile *target = s->work->target;
  for (const bnd_node *node = bnd_graph_first(s->work->graph); node; node = node->next) {
    const bnd_node *output = node->op ? quantizer_behind(node) : NULL;
    if (!output) continue;
    if ((target->align_pool && bnd_is_pool(node)) || (target->align_slice && bnd_node_is(node, BND_OP_SLICE))) tie(s, output, bnd_arg_node(node, 0));
    if (!target->align_concat || !bnd_is_concat(node) || node->args[0].kind != BND_ARG_LIST) continue;
    for (int i = 0; i < node->args[0].list.count; i++) tie(s, output, node->args[0].list.items[i].node);
  }
}

static bnd_status find_tensors(search *s, bnd_error *error) {
  const size_t ids = (size_t)bnd_graph_id_limit(s->work->graph);
  size_t largest = 1;
  s->index_of = bnd_calloc(ids, sizeof *s->index_of);
  s->tensors = bnd_calloc(ids, sizeof *s->tensors);
  s->workers = bnd_stream_workers(s->work->images, s->work->context);
  s->scratch = bnd_calloc((size_t)s->workers, sizeof *s->scratch);
  if (!s->index_of || !s->tensors || !s->scratch) return bnd_fail_memory(error, "the search for exponents");
  for (bnd_node *node = bnd_graph_first(s->work->graph); node; node = node->next) {
    s->index_of[node->id] = -1;
    if (!bnd_is_fake_quantize(node) || reads_constant(node) || node->module->quantizer->channels != 1) continue;
    tensor_record *t = &s->tensors[s->tensor_count];
    *t = (tensor_record){.node = node, .first = s->channel_count, .group = (int)s->tensor_count};
    layout_channels(t);
    s->channel_count += t->channels;
    if (t->channels * t->inner > largest) largest = t->channels * t->inner;
    s->index_of[node->id] = (int)s->tensor_count++;
  }
  for (int w = 0; w < s->workers; w++)
    if (!(s->scratch[w] = bnd_alloc_aligned(largest, sizeof(float)))) return bnd_fail_memory(error, "the search for exponents");
  tie_as_target_wants(s);
  return BND_OK;
}

/* Candidates: one step coarser than the coarsest of the group to one finer than the finest, as far as there is room. */
static void choose_candidates(search *s) {
  for (size_t i = 0; i < s->tensor_count; i++) {
    const int position = s->tensors[i].node->module->quantizer->position[0], group = representative(s, (int)i);
    tensor_record *first = &s->tensors[group];
    s->tensors[i].group = group;
    first->lowest = group == (int)i || position - 1 < first->lowest ? position - 1 : first->lowest;
  }
}

/* --- first pass: moments --- */

BND_VECTORIZED
static void sum_moments(const float *x, size_t count, double sums[2]) {
  enum { LANES = 8 };
  double sum[LANES] = {0}, square[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int k = 0; k < LANES; k++) {
      const double value = (double)x[i + (size_t)k];
      sum[k] += value;
      square[k] += value * value;
    }
  for (; i < count; i++) {
    sum[0] += (double)x[i];
    square[0] += (double)x[i] * (double)x[i];
  }
  sums[0] = sums[1] = 0;
  for (int k = 0; k < LANES; k++) sums[0] += sum[k], sums[1] += square[k];
}

static void observe_moments(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  search *s = place->user;
  if (s->index_of[node_id] < 0) return;
  const tensor_record *t = &s->tensors[s->index_of[node_id]];
  float *plain = s->scratch[place->worker];
  bnd_value_copy(value, plain);
  for (size_t c = 0; c < t->channels; c++)
    sum_moments(plain + c * t->inner, t->inner, s->moments + (place->index * s->channel_count + t->first + c) * 2);
}

static void merge_moments(search *s) {
  const size_t images = s->work->images->count;
  for (size_t t = 0; t < s->tensor_count; t++) {
    tensor_record *record = &s->tensors[t];
    for (size_t c = record->first; c < record->first + record->channels; c++) {
      for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < images; i++) s->total[c * 2 + (size_t)k] += s->moments[(i * s->channel_count + c) * 2 + (size_t)k];
        s->total[c * 2 + (size_t)k] /= (double)images * (double)record->inner;
      }
      record->power += s->total[c * 2 + 1] / (double)record->channels;
    }
  }
}

/* --- what an error costs: the weights of whoever reads the value --- */

/* A layer's weight as [outer, channels, inner] with its input channels in the middle. */
typedef struct input_view {
  size_t outer, channels, inner;
} input_view;

static input_view view_inputs(const bnd_node *layer) {
  const bnd_tensor *weight = &layer->module->weight;
  const bool transposed = bnd_is_transposed_module(layer);
  input_view v = {.outer = transposed ? 1 : (size_t)weight->shape.size[0], .channels = (size_t)weight->shape.size[transposed ? 0 : 1]};
  v.inner = weight->count / (v.outer * v.channels);
  return v;
}

static double output_power(const search *s, const bnd_node *layer) {
  for (int step = 0; step < 3; step++) {
    const bnd_node *quantizer = quantizer_behind(layer);
    if (quantizer) return s->index_of[quantizer->id] >= 0 ? s->tensors[s->index_of[quantizer->id]].power : 1;
    if (layer->user_count != 1) return 1;
    layer = layer->users[0];
  }
  return 1;
}

/* Channels [offset, offset + count) of the layer's input are the value's. */
static void add_layer(const search *s, const bnd_node *layer, size_t offset, size_t count, double *gain) {
  const input_view v = view_inputs(layer);
  const float *weight = bnd_f32(&layer->module->weight);
  const double power = output_power(s, layer);
  const size_t groups = layer->module->groups > 1 ? (size_t)layer->module->groups : 1;
  for (size_t c = 0; c < count; c++) {
    double sum = 0;
    const size_t channel = offset + c, in_group = channel % v.channels, group = groups > 1 ? channel / v.channels : 0;
    for (size_t o = 0; o < v.outer; o++) {
      if (groups > 1 && v.outer > 1 && o / (v.outer / groups) != group) continue;
      for (size_t i = 0; i < v.inner; i++) {
        const double w = (double)weight[(o * v.channels + in_group) * v.inner + i];
        sum += w * w;
      }
    }
    gain[c] += power > 0 ? sum / power : sum;
  }
}

static void add_readers(const search *s, const bnd_node *value, size_t offset, size_t count, double own_power, int depth, double *gain) {
  for (int i = 0; i < value->user_count; i++) {
    const bnd_node *user = value->users[i];
    const bnd_operator_id id = user->op ? bnd_functional_id(user) : BND_OPERATOR_COUNT;
    if (bnd_is_conv_module(user)) {
      add_layer(s, user, offset, count, gain);
    } else if (depth < MOST_DEPTH && (bnd_is_fake_quantize(user) || bnd_is_pool(user) || bnd_is_relu(user) || id == BND_OP_ADD || id == BND_OP_SUB)) {
      add_readers(s, user, offset, count, own_power, depth + 1, gain);
    } else if (depth < MOST_DEPTH && bnd_is_concat(user) && bnd_arg_int(user, 1, 0) == 1 && user->args[0].kind == BND_ARG_LIST) {
      size_t at = offset;
      for (int k = 0; k < user->args[0].list.count; k++) {
        const bnd_node *item = user->args[0].list.items[k].node;
        if (item == value) add_readers(s, user, at, count, own_power, depth + 1, gain);
        at += (size_t)item->shape[0].size[1];
      }
    } else {
      for (size_t c = 0; c < count; c++) gain[c] += own_power > 0 ? 1 / own_power : 1;
    }
  }
}

static void weigh_errors(search *s) {
  for (size_t t = 0; t < s->tensor_count; t++) {
    const tensor_record *record = &s->tensors[t];
    double *gain = s->gain + record->first;
    if (record->node->shape[0].rank == 4) add_readers(s, record->node, 0, record->channels, record->power, 0, gain);
    else
      for (size_t c = 0; c < record->channels; c++) gain[c] = 1;
  }
}

/* --- second pass: errors of the candidates --- */

BND_VECTORIZED
static double squared_error(const float *x, size_t count, float inverse_scale, float scale) {
  enum { LANES = 16 };
  const float magic = 0x1.8p23f;
  float sums[LANES];
  double total = 0;
  for (size_t i = 0; i < count;) {
    const size_t end = count - i < 4096 ? count : i + 4096; /* short runs in float32, their sums in double */
    memset(sums, 0, sizeof sums);
    for (; i + LANES <= end; i += LANES)
      for (int k = 0; k < LANES; k++) {
        float q = x[i + (size_t)k] * inverse_scale;
        q = q > 127.f ? 127.f : q;
        q = q < -128.f ? -128.f : q;
        q = (q + magic) - magic;
        const float e = q * scale - x[i + (size_t)k];
        sums[k] += e * e;
      }
    for (; i < end; i++) {
      float q = x[i] * inverse_scale;
      q = q > 127.f ? 127.f : q;
      q = q < -128.f ? -128.f : q;
      q = (q + magic) - magic;
      const float e = q * scale - x[i];
      sums[0] += e * e;
    }
    for (int k = 0; k < LANES; k++) total += (double)sums[k];
  }
  return total;
}

static void observe_errors(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  search *s = place->user;
  if (s->index_of[node_id] < 0) return;
  const tensor_record *t = &s->tensors[s->index_of[node_id]];
  const int lowest = s->tensors[t->group].lowest;
  double *errors = s->errors + (place->index * s->tensor_count + (size_t)s->index_of[node_id]) * CANDIDATES;
  float *plain = s->scratch[place->worker];
  bnd_value_copy(value, plain);
  for (int k = 0; k < CANDIDATES; k++)
    for (size_t c = 0; c < t->channels; c++)
      errors[k] += s->gain[t->first + c] * squared_error(plain + c * t->inner, t->inner, bnd_scale_of(-(lowest + k)), bnd_scale_of(lowest + k));
}

/* --- decisions --- */

typedef struct trial {
  bnd_refinement work; /* measures on the first calibration images */
  double distance;
  int proposed, made;
} trial;

static bnd_status begin_trial(search *s, trial *t, bnd_image_source *images, bnd_error *error) {
  bnd_reference *reference;
  *images = *s->work->images;
  if (images->count > TRIAL_IMAGES) images->count = TRIAL_IMAGES;
  *t = (trial){.work = *s->work};
  BND_TRY(bnd_reference_create(s->work->teacher, images, s->work->backend, s->work->context, &reference, error));
  t->work.held_out = images;
  t->work.reference = reference;
  return bnd_guard_measure(&t->work, s->work->graph, &t->distance, error);
}

/* The change stands if it helps; otherwise `undo` is put back. */
static bnd_status judge(search *s, trial *t, bool *helps, bnd_error *error) {
  double distance;
  t->proposed++;
  BND_TRY(bnd_guard_measure(&t->work, s->work->graph, &distance, error));
  *helps = distance < t->distance;
  if (!*helps) return BND_OK;
  t->distance = distance;
  t->made++;
  return BND_OK;
}

static int least_error(const search *s, size_t group) {
  double errors[CANDIDATES] = {0};
  int best = 0;
  for (size_t t = group; t < s->tensor_count; t++) {
    if (s->tensors[t].group != (int)group) continue;
    for (size_t i = 0; i < s->work->images->count; i++)
      for (int k = 0; k < CANDIDATES; k++) errors[k] += s->errors[(i * s->tensor_count + t) * CANDIDATES + (size_t)k] / (double)s->tensors[t].inner;
  }
  for (int k = 1; k < CANDIDATES; k++)
    if (errors[k] < errors[best]) best = k;
  return s->tensors[group].lowest + best;
}

static bnd_status choose_group(search *s, trial *t, size_t group, int *before, bnd_error *error) {
  const int position = least_error(s, group);
  bool changes = false, helps = true;
  for (size_t i = group; i < s->tensor_count; i++) {
    bnd_quantizer *q = s->tensors[i].node->module->quantizer;
    if (s->tensors[i].group != (int)group) continue;
    before[i] = q->position[0];
    changes |= before[i] != position;
    q->position[0] = position;
  }
  if (changes) BND_TRY(judge(s, t, &helps, error));
  for (size_t i = group; !helps && i < s->tensor_count; i++)
    if (s->tensors[i].group == (int)group) s->tensors[i].node->module->quantizer->position[0] = before[i];
  return BND_OK;
}

static bnd_status choose_activations(search *s, trial *t, bnd_error *error) {
  int *before = bnd_calloc(s->tensor_count, sizeof *before);
  bnd_status status = before ? BND_OK : bnd_fail_memory(error, "the search for exponents");
  for (size_t g = 0; status == BND_OK && g < s->tensor_count; g++)
    if (s->tensors[g].group == (int)g) status = choose_group(s, t, g, before, error);
  free(before);
  return status;
}

/* --- weights --- */

/* E[x^2] of a channel of the layer's input; 1 where the input was not observed. */
static double input_power(const search *s, const bnd_node *layer, size_t channel) {
  const bnd_node *input = bnd_arg_node(layer, 0);
  const int index = input ? s->index_of[input->id] : -1;
  if (index < 0 || channel >= s->tensors[index].channels) return 1;
  return s->total[(s->tensors[index].first + channel) * 2 + 1];
}

static double weight_error(const search *s, const bnd_node *layer, int position) {
  const input_view v = view_inputs(layer);
  const float *weight = bnd_f32(&layer->module->weight);
  const size_t groups = layer->module->groups > 1 ? (size_t)layer->module->groups : 1;
  double error = 0;
  for (size_t o = 0; o < v.outer; o++)
    for (size_t c = 0; c < v.channels; c++) {
      const size_t group = groups > 1 && v.outer > 1 ? o / (v.outer / groups) : 0;
      error += input_power(s, layer, group * v.channels + c) *
               squared_error(weight + (o * v.channels + c) * v.inner, v.inner, bnd_scale_of(-position), bnd_scale_of(position));
    }
  return error;
}

static bnd_status choose_weights(search *s, trial *t, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(s->work->graph); node; node = node->next) {
    bnd_quantizer *q = bnd_is_conv_module(node) ? node->module->weight_quantizer : NULL;
    if (!q || q->channels != 1 || node->module->has_batch_norm || node->module->weight.shape.rank < 2) continue;
    const int position = q->position[0];
    double least = weight_error(s, node, position);
    for (int candidate = position - 1; candidate <= position + 2; candidate++) {
      const double candidate_error = weight_error(s, node, candidate);
      if (candidate_error < least) least = candidate_error, q->position[0] = candidate;
    }
    bool helps = true;
    if (q->position[0] != position) BND_TRY(judge(s, t, &helps, error));
    if (!helps) q->position[0] = position;
  }
  return BND_OK;
}

/* --- the step --- */

static bnd_status allocate(search *s, bnd_error *error) {
  size_t moments, errors;
  if (!bnd_size_multiply(s->work->images->count, s->channel_count * 2, &moments) ||
      !bnd_size_multiply(s->work->images->count, s->tensor_count * CANDIDATES, &errors))
    return bnd_fail_memory(error, "the search for exponents");
  s->moments = bnd_calloc(moments, sizeof *s->moments);
  s->errors = bnd_calloc(errors, sizeof *s->errors);
  s->total = bnd_calloc(s->channel_count * 2, sizeof *s->total);
  s->gain = bnd_calloc(s->channel_count, sizeof *s->gain);
  return s->moments && s->errors && s->total && s->gain ? BND_OK : bnd_fail_memory(error, "the search for exponents");
}

static bnd_status pass_over_images(search *s, const char *stage, bnd_probe probe, bnd_error *error) {
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .backend = s->work->backend, .threads = 1, .observe = true};
  const bnd_stream stream = {.stage = stage, .probe = probe, .user = s};
  bnd_executor *executor;
  BND_TRY(bnd_executor_create(s->work->graph, &options, &executor, error));
  const bnd_status status = bnd_stream_images(executor, s->work->images, &stream, s->work->context, error);
  bnd_executor_destroy(executor);
  return status;
}

static void free_search(search *s) {
  for (int w = 0; s->scratch && w < s->workers; w++) free(s->scratch[w]);
  free(s->scratch);
  free(s->index_of);
  free(s->tensors);
  free(s->moments);
  free(s->total);
  free(s->gain);
  free(s->errors);
}

bnd_status bnd_refine_exponents(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  search s = {.work = work};
  bnd_status status = find_tensors(&s, error);
  if (status == BND_OK) status = allocate(&s, error);
  if (status == BND_OK) status = pass_over_images(&s, "exponents, moments", observe_moments, error);
  if (status == BND_OK) {
    merge_moments(&s);
    weigh_errors(&s);
    choose_candidates(&s);
    status = pass_over_images(&s, "exponents, errors", observe_errors, error);
  }
  trial t = {0};
  bnd_image_source images;
  if (status == BND_OK) status = begin_trial(&s, &t, &images, error);
  if (status == BND_OK) status = choose_activations(&s, &t, error);
  const int activations = t.made, proposed = t.proposed;
  if (status == BND_OK) status = choose_weights(&s, &t, error);
  if (status == BND_OK)
    bnd_string_format(report, "another exponent for %d of %d scales of activations and %d of %d weights that the model proposed\n", activations, proposed,
                      t.made - activations, t.proposed - proposed);
  bnd_reference_destroy((bnd_reference *)t.work.reference);
  free_search(&s);
  return status;
}
