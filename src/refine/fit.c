#include "refine/fit.h"

#include <math.h>
#include <stdlib.h>

#include "base/simd.h"
#include "refine/noise.h"

/* Scales are tried in steps of a quarter of an octave; the factor of a tensor can be any of the four within an octave, the rest is the exponent's. */
enum { IMAGES = 8, STATISTICS_IMAGES = 32, STEPS = 4, OCTAVES = 5, SCALES = STEPS * OCTAVES, LANES = 16, SWEEPS = 8 };
static const float QUARTERS[STEPS] = {1.f, 0x1.306fe0p+0f, 0x1.6a09e6p+0f, 0x1.ae89fap+0f}; /* 2^(j/4) */

/* Error of one tensor under each scale QUARTERS[j] * 2^(base + octave), index octave * STEPS + j. */
typedef struct fit_tensor {
  int base;
  int made, read; /* groups whose factors multiply (made) and divide (read) the scale that acts, -1 = none: an activation acts as scale * t[made] */
  int term;       /* tensors of a term have one exponent */
  double errors[SCALES];
} fit_tensor;

typedef struct fitter {
  bnd_refinement *work;
  int threads;
  bnd_channels channels;
  const bnd_channel_statistics *statistics;
  double *sensitivity;
  int *group;          /* [classes] representative; classes scaled together */
  int *index_of;       /* by node id of fake quantizers: their tensor; -1 */
  fit_tensor *tensors; /* activations, then weights */
  size_t activations, count;
  int terms;
  const bnd_node **nodes;  /* [activations] */
  double *sums;            /* [images][activations][SCALES] */
  float **scratch;         /* [workers] */
  int *choice;             /* [classes] quarter octave of a group */
  int *touched, touched_count; /* [terms] those that the group at hand touches */
} fitter;

static float scale_at(int base, int index) { return ldexpf(QUARTERS[index % STEPS], base + index / STEPS); }

static float rounding_error(float x, float scale, float inverse) {
  const float magic = 0x1.8p23f;
  float q = x * inverse;
  q = q > 127.f ? 127.f : q;
  q = q < -128.f ? -128.f : q;
  q = (q + magic) - magic;
  return q * scale - x;
}

/* A convolution's window: too short for lanes. */
static double squared_error_of_few(const float *x, size_t count, float scale) {
  const float inverse = 1.f / scale;
  double sum = 0;
  for (size_t i = 0; i < count; i++) {
    const float difference = rounding_error(x[i], scale, inverse);
    sum += (double)(difference * difference);
  }
  return sum;
}

BND_VECTORIZED
static double squared_error(const float *x, size_t count, float scale) {
  if (count < LANES) return squared_error_of_few(x, count, scale);
  const float inverse = 1.f / scale;
  double sum[LANES] = {0}, total = 0;
  for (size_t i = 0; i < count; i += LANES) {
    const size_t lanes = count - i < LANES ? count - i : LANES;
    for (size_t j = 0; j < lanes; j++) {
      const float difference = rounding_error(x[i + j], scale, inverse);
      sum[j] += (double)(difference * difference);
    }
  }
  for (int j = 0; j < LANES; j++) total += sum[j];
  return total;
}

/* --- what is scaled together --- */

static int root(const int *group, int class) {
  while (group[class] != class) class = group[class];
  return class;
}

/* All free channels that one layer makes belong together, and so does whatever they are tied to. */
static void find_groups(fitter *f) {
  for (int c = 0; c < f->channels.classes; c++) f->group[c] = c;
  for (const bnd_node *node = bnd_graph_first(f->work->graph); node; node = node->next) {
    if (!bnd_is_scalable_layer(node)) continue;
    int first = -1;
    for (int64_t c = 0; c < node->shape[0].size[1]; c++) {
      const int class = bnd_free_class(&f->channels, node, c);
      if (class < 0) continue;
      if (first < 0) first = class;
      const int a = root(f->group, first), b = root(f->group, class);
      f->group[a > b ? a : b] = a < b ? a : b;
    }
  }
  for (int c = 0; c < f->channels.classes; c++) f->group[c] = root(f->group, c);
}

/* The one group of all channels of a node's result; -1 = several or none. */
static int group_of(const fitter *f, const bnd_node *node) {
  int group = -1;
  for (int64_t c = 0; c < node->shape[0].size[1]; c++) {
    const int class = bnd_free_class(&f->channels, node, c);
    if (class < 0 || (group >= 0 && f->group[class] != group)) return -1;
    group = f->group[class];
  }
  return group;
}

/* --- errors of activations --- */

static void observe(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  fitter *f = place->user;
  const int index = f->index_of[node_id];
  size_t count;
  if (index < 0 || !bnd_shape_count(bnd_value_shape(value), &count)) return;
  const size_t channels = (size_t)bnd_value_shape(value)->size[1], inner = count / channels;
  float *plain = f->scratch[place->worker];
  double *sums = f->sums + (place->index * f->activations + (size_t)index) * SCALES;
  const double *weight = f->sensitivity + f->channels.first[node_id];
  bnd_value_copy(value, plain);
  for (int k = 0; k < SCALES; k++) {
    const float scale = scale_at(f->tensors[index].base, k);
    for (size_t c = 0; c < channels; c++)
      if (weight[c] > 0) sums[k] += weight[c] * squared_error(plain + c * inner, inner, scale) / (double)inner;
  }
}

/* The octaves reach from an eighth of the scale that the extremes ask for to twice it. */
static int base_of(const bnd_quantizer_spec *spec, float low, float high) {
  int position, zero_point;
  bnd_power_of_two_parameters(spec, low, high, &position, &zero_point);
  return -position - 3;
}

static bnd_status add_activations(fitter *f, int *term_of, bnd_error *error) {
  size_t largest = 1, count;
  for (int i = 0; i < f->channels.ids; i++) f->index_of[i] = term_of[i] = -1;
  for (const bnd_node *node = bnd_graph_first(f->work->graph); node; node = node->next) {
    if (!bnd_is_fake_quantize(node) || f->statistics->first[node->id] < 0 || f->channels.first[node->id] < 0) continue;
    f->nodes[f->activations] = node;
    term_of[node->id] = f->index_of[node->id] = (int)f->activations++;
    if (bnd_shape_count(&node->shape[0], &count) && count > largest) largest = count;
  }
  bnd_share_ranges(f->work->graph, term_of);
  for (size_t i = 0; i < f->activations; i++) {
    const bnd_node *node = f->nodes[i];
    float low = 0, high = 0;
    for (int c = f->statistics->first[node->id]; c < f->statistics->first[node->id] + (int)node->shape[0].size[1]; c++) {
      low = f->statistics->minimum[c] < low ? f->statistics->minimum[c] : low;
      high = f->statistics->maximum[c] > high ? f->statistics->maximum[c] : high;
    }
    f->tensors[i] = (fit_tensor){.base = base_of(&node->module->quantizer->spec, low, high), .made = group_of(f, node), .read = -1, .term = term_of[node->id]};
    if (bnd_is_exact_quantizer(node)) f->index_of[node->id] = -1; /* errors stay 0 */
  }
  f->count = f->activations;
  f->terms = (int)f->activations;
  const int workers = bnd_stream_workers(f->work->images, f->work->context);
  if (!(f->scratch = bnd_calloc((size_t)workers, sizeof *f->scratch))) return bnd_fail_memory(error, "a fit of scales");
  for (int w = 0; w < workers; w++)
    if (!(f->scratch[w] = bnd_alloc_aligned(largest, sizeof(float)))) return bnd_fail_memory(error, "a fit of scales");
  return BND_OK;
}

static bnd_status measure_activations(fitter *f, const bnd_image_source *images, bnd_error *error) {
  size_t cells;
  if (!bnd_size_multiply(images->count, f->activations * SCALES, &cells) || !(f->sums = bnd_calloc(cells, sizeof *f->sums)))
    return bnd_fail_memory(error, "a fit of scales");
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .backend = f->work->backend, .threads = 1, .observe = true};
  const bnd_stream stream = {.stage = "fit of scales", .probe = observe, .user = f};
  bnd_executor *executor;
  BND_TRY(bnd_executor_create(f->work->graph, &options, &executor, error));
  const bnd_status status = bnd_stream_images(executor, images, &stream, f->work->context, error);
  bnd_executor_destroy(executor);
  for (size_t i = 0; i < images->count; i++)
    for (size_t t = 0; t < f->activations; t++)
      for (int k = 0; k < SCALES; k++) f->tensors[t].errors[k] += f->sums[(i * f->activations + t) * SCALES + (size_t)k] / (double)images->count;
  return status;
}

/* --- errors of weights --- */

static void add_weight(fitter *f, const bnd_node *layer, double variance) {
  const bnd_node *input = bnd_arg_node(layer, 0);
  const bnd_weight_view v = bnd_weight_view_of(layer);
  const bnd_tensor *w = &layer->module->weight;
  const int group_in = group_of(f, input), group_out = group_of(f, layer);
  fit_tensor *t = &f->tensors[f->count++];
  float low = 0, high = 0;
  bnd_min_max(bnd_f32(w), 1, 1, w->count, &low, &high);
  *t = (fit_tensor){.base = base_of(&layer->module->weight_quantizer->spec, low, high), .made = group_out, .read = group_in, .term = f->terms++};
  const double share = v.transposed ? 1.0 / (double)(layer->module->stride[0] * layer->module->stride[1]) : 1.0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(f->threads) if (f->threads > 1)
  for (int k = 0; k < SCALES; k++) {
    const float scale = scale_at(t->base, k);
    for (size_t r = 0; r < v.rows; r++)
      for (size_t c = 0; c < v.columns; c++)
        t->errors[k] += squared_error(bnd_f32(w) + (r * v.columns + c) * v.window, v.window, scale) * share / variance *
                        f->statistics->square[f->statistics->first[input->id] + (int)bnd_weight_input(&v, r, c)];
  }
}

/* Behind a concatenation inputs come from several groups; no one factor acts on them, and theirs are taken as 1. */
static void add_weights(fitter *f) {
  for (const bnd_node *node = bnd_graph_first(f->work->graph); node; node = node->next) {
    if (!bnd_is_scalable_layer(node) || !node->module->weight_quantizer || node->module->weight_quantizer->channels != 1) continue;
    const double variance = bnd_output_variance(node, f->statistics);
    if (variance > 0 && f->statistics->first[bnd_arg_node(node, 0)->id] >= 0) add_weight(f, node, variance);
  }
}

/* --- the choice --- */

/* Error of a term under the best exponent. A factor t divides an activation: scale 2^e then acts on the values as scale 2^e t. */
static double term_error(const fitter *f, int term) {
  double best = INFINITY;
  int low = 0, high = 0;
  bool any = false;
  for (size_t i = 0; i < f->count; i++) {
    if (f->tensors[i].term != term) continue;
    low = !any || f->tensors[i].base < low ? f->tensors[i].base : low;
    high = !any || f->tensors[i].base > high ? f->tensors[i].base : high;
    any = true;
  }
  for (int exponent = low - 1; exponent < high + OCTAVES + 1; exponent++) {
    double sum = 0;
    for (size_t i = 0; i < f->count; i++) {
      const fit_tensor *t = &f->tensors[i];
      if (t->term != term) continue;
      int index = (exponent - t->base) * STEPS;
      if (t->made >= 0) index += f->choice[t->made];
      if (t->read >= 0) index -= f->choice[t->read];
      index = index < 0 ? 0 : index;
      /* beyond the octaves measured rounding alone counts: four times as much for each octave */
      sum += index < SCALES ? t->errors[index] : ldexp(t->errors[SCALES - STEPS + index % STEPS], 2 * (index / STEPS - OCTAVES + 1));
    }
    best = sum < best ? sum : best;
  }
  return any ? best : 0;
}

static bool touches(const fitter *f, int term, int group) {
  for (size_t i = 0; i < f->count; i++)
    if (f->tensors[i].term == term && (f->tensors[i].made == group || f->tensors[i].read == group)) return true;
  return false;
}

static void find_touched(fitter *f, int group) {
  f->touched_count = 0;
  for (int term = 0; term < f->terms; term++)
    if (touches(f, term, group)) f->touched[f->touched_count++] = term;
}

static double error_around(const fitter *f) {
  double sum = 0;
  for (int i = 0; i < f->touched_count; i++) sum += term_error(f, f->touched[i]);
  return sum;
}

static double error_of_all(const fitter *f) {
  double sum = 0;
  for (int term = 0; term < f->terms; term++) sum += term_error(f, term);
  return sum;
}

/* Coordinate descent: each group in turn takes the factor under which the tensors it touches have the least error. */
static void choose(fitter *f) {
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    bool changed = false;
    for (int g = 0; g < f->channels.classes; g++) {
      if (f->group[g] != g || !f->channels.free[g]) continue;
      const int before = f->choice[g];
      int best = before;
      find_touched(f, g);
      double least = error_around(f);
      for (int j = 0; j < STEPS; j++) {
        f->choice[g] = j;
        const double error = j == before ? INFINITY : error_around(f);
        if (error < least * (1 - 1e-6)) least = error, best = j;
      }
      f->choice[g] = best;
      changed |= best != before;
    }
    if (!changed) break;
  }
}

/* --- the step --- */

static bnd_status prepare(fitter *f, const bnd_image_source *images, bnd_error *error) {
  bnd_graph *graph = f->work->graph;
  BND_TRY(bnd_channels_find(graph, &f->channels, error));
  const size_t classes = (size_t)f->channels.classes, ids = (size_t)f->channels.ids, nodes = (size_t)bnd_graph_node_count(graph);
  int *term_of = bnd_calloc(ids, sizeof *term_of);
  f->sensitivity = bnd_calloc((size_t)f->channels.slots, sizeof *f->sensitivity);
  f->group = bnd_calloc(classes, sizeof *f->group);
  f->choice = bnd_calloc(classes, sizeof *f->choice);
  f->index_of = bnd_calloc(ids, sizeof *f->index_of);
  f->tensors = bnd_calloc(nodes, sizeof *f->tensors);
  f->nodes = bnd_calloc(nodes, sizeof *f->nodes);
  f->touched = bnd_calloc(nodes, sizeof *f->touched);
  bnd_status status = term_of && f->sensitivity && f->group && f->choice && f->index_of && f->tensors && f->nodes && f->touched ? BND_OK
                                                                                                                     : bnd_fail_memory(error, "a fit of scales");
  if (status == BND_OK) {
    bnd_noise_sensitivities(graph, &f->channels, f->statistics, f->sensitivity);
    find_groups(f);
    status = add_activations(f, term_of, error);
  }
  free(term_of);
  if (status == BND_OK) status = measure_activations(f, images, error);
  if (status == BND_OK) add_weights(f);
  return status;
}

static bnd_status apply(fitter *f, int *scaled, bnd_error *error) {
  double *factors = bnd_calloc((size_t)f->channels.classes, sizeof *factors);
  int layers;
  if (!factors) return bnd_fail_memory(error, "a fit of scales");
  *scaled = 0;
  for (int c = 0; c < f->channels.classes; c++) {
    factors[c] = f->channels.free[c] ? (double)QUARTERS[f->choice[f->group[c]]] : 1;
    *scaled += f->group[c] == c && f->choice[c] > 0;
  }
  const bnd_status status = bnd_scale_channels(f->work->graph, &f->channels, factors, &layers, error);
  free(factors);
  return status;
}

static void release(fitter *f, int workers) {
  for (int w = 0; f->scratch && w < workers; w++) free(f->scratch[w]);
  free(f->scratch);
  free(f->sensitivity);
  free(f->group);
  free(f->choice);
  free(f->index_of);
  free(f->tensors);
  free(f->nodes);
  free(f->sums);
  free(f->touched);
  bnd_channels_free(&f->channels);
}

bnd_status bnd_fit_ranges(bnd_refinement *work, const bnd_channel_statistics *statistics, bnd_string *report, bnd_error *error) {
  bnd_image_source images = *work->images;
  if (images.count > IMAGES) images.count = IMAGES;
  fitter f = {.work = work, .threads = bnd_thread_count(work->context), .statistics = statistics};
  double before = 0, after = 0;
  int scaled = 0;
  bnd_status status = prepare(&f, &images, error);
  if (status == BND_OK) {
    before = error_of_all(&f);
    choose(&f);
    after = error_of_all(&f);
    status = apply(&f, &scaled, error);
  }
  release(&f, bnd_stream_workers(work->images, work->context));
  if (status == BND_OK) bnd_string_format(report, "fit of scales: %d groups of channels scaled, expected noise %.4g -> %.4g\n", scaled, before, after);
  return status;
}

bnd_status bnd_refine_fit(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  bnd_channel_statistics statistics;
  BND_TRY(bnd_channel_statistics_gather(work->graph, work->images, STATISTICS_IMAGES, work->backend, work->context, &statistics, error));
  const bnd_status status = bnd_fit_ranges(work, &statistics, report, error);
  bnd_channel_statistics_free(&statistics);
  return status == BND_OK ? bnd_calibrate_again(work, error) : status;
}
