#include "calib/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct range {
  float minimum, maximum;
} range;

/* The squared errors of one image on the grids 2^-first ...; which of them count is known when the range of its batch is. */
typedef struct image_errors {
  int first, count; /* count 0: none yet */
  bool any;         /* all values are zero, as are the errors on any grid */
  double sums[BND_MOST_GRIDS];
} image_errors;

enum { MOST_POSITIONS = BND_MOST_GRIDS - BND_MSE_CANDIDATES + 1 };

/* Ranges are kept for each worker, batch and quantizer and merged at the end: minimum and maximum do not mind the order, so threads need not meet.
   Squared errors are kept for each image and added in image order. Their grids follow from the range of the whole batch, which is not known yet: an
   image's errors are summed on the grids that the range known so far (of all images seen by then) and somewhat wider ones ask for. An image with a
   quantizer for which that was too little runs once more. So what was known when does not show in the result. */
typedef struct calibration_state {
  bnd_graph *graph;
  const bnd_image_source *source;
  size_t batch, batches, quantizers;
  int workers;
  bnd_node **nodes;     /* [quantizers] fake quantizer nodes in graph order */
  int *index_of;        /* by node id: index into nodes, -1 */
  range *ranges;        /* [workers][batches][quantizers], later merged into worker 0's */
  range *running;       /* [batches][quantizers] range of everything up to and including the batch */
  range *known;         /* [quantizers] range of everything seen so far; workers take turns */
  image_errors *errors; /* [images][quantizers]; NULL unless some quantizer minimizes the error */
  size_t *again;        /* images that run once more */
} calibration_state;

static range *range_at(calibration_state *state, int worker, size_t batch, size_t quantizer) {
  return &state->ranges[((size_t)worker * state->batches + batch) * state->quantizers + quantizer];
}

static void free_state(calibration_state *state) {
  free(state->nodes);
  free(state->index_of);
  free(state->ranges);
  free(state->running);
  free(state->known);
  free(state->errors);
  free(state->again);
}

/* The constant a quantizer looks at: a functional convolution's weight, a learned scale. It needs no images. NULL for activations. */
static const bnd_tensor *constant_behind(const bnd_node *quantizer) {
  const bnd_node *input = bnd_arg_node(quantizer, 0);
  const bnd_attribute *attribute = input && input->kind == BND_GET_ATTR ? bnd_graph_attribute(input->graph, input->target) : NULL;
  return attribute && attribute->tensor.dtype == BND_F32 ? &attribute->tensor : NULL;
}

static bnd_status count_quantizers(calibration_state *state, bnd_error *error) {
  const size_t ids = (size_t)bnd_graph_id_limit(state->graph);
  state->nodes = bnd_calloc(ids, sizeof *state->nodes);
  state->index_of = bnd_calloc(ids, sizeof *state->index_of);
  if (!state->nodes || !state->index_of) return bnd_fail_memory(error, "calibration");
  for (bnd_node *node = bnd_graph_first(state->graph); node; node = node->next) {
    state->index_of[node->id] = -1;
    if (!bnd_is_fake_quantize(node) || constant_behind(node)) continue;
    if (node->module->quantizer->spec.per_channel)
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "quantizer %s: activations are quantized per tensor only; set qscheme to per_tensor for inputs and outputs",
                      node->name);
    state->index_of[node->id] = (int)state->quantizers;
    state->nodes[state->quantizers++] = node;
  }
  return BND_OK;
}

static bool minimizes_error(const bnd_node *node) { return node->module->quantizer->spec.observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE; }

static bnd_status allocate(calibration_state *state, bnd_error *error) {
  size_t cells, errors;
  if (!bnd_size_multiply(state->batches, state->quantizers, &cells) || !bnd_size_multiply(cells, (size_t)state->workers, &cells) ||
      !bnd_size_multiply(state->source->count, state->quantizers, &errors))
    return bnd_fail_memory(error, "calibration");
  state->ranges = bnd_calloc(cells, sizeof *state->ranges);
  state->running = bnd_calloc(state->batches * state->quantizers, sizeof *state->running);
  state->known = bnd_calloc(state->quantizers, sizeof *state->known);
  state->again = bnd_calloc(state->source->count, sizeof *state->again);
  if (!state->ranges || !state->running || !state->known || !state->again) return bnd_fail_memory(error, "calibration");
  for (size_t i = 0; i < cells; i++) state->ranges[i] = (range){INFINITY, -INFINITY};
  bool needed = false;
  for (size_t q = 0; q < state->quantizers; q++) {
    state->known[q] = (range){INFINITY, -INFINITY};
    needed |= minimizes_error(state->nodes[q]);
  }
  if (needed && !(state->errors = bnd_calloc(errors, sizeof *state->errors))) return bnd_fail_memory(error, "calibration");
  return BND_OK;
}

/* A NaN stays and is found later. */
static void widen(range *all, const range *part) {
  if (!(part->minimum >= all->minimum)) all->minimum = part->minimum;
  if (!(part->maximum <= all->maximum)) all->maximum = part->maximum;
}

static bool is_finite(const range *r) { return isfinite(r->minimum) && isfinite(r->maximum); }

static int position_of(const bnd_quantizer_spec *spec, const range *r) {
  int position, zero_point;
  bnd_power_of_two_parameters(spec, r->minimum, r->maximum, &position, &zero_point);
  return position;
}

static image_errors *errors_at(const calibration_state *state, size_t image, size_t quantizer) {
  return &state->errors[image * state->quantizers + quantizer];
}

/* Sums the errors for the candidates of all positions from `last` to `first`, the smaller one. `seen` is the range of the values at hand. The coarsest grid
   only matters when it is as good as the next: neither clips, as the range they come from fills less than half of the next. */
static void sum_errors(image_errors *errors, const bnd_quantizer_spec *spec, const range *seen, int first, int last, const bnd_value *value) {
  const float bound = fmaxf(fabsf(seen->minimum), fabsf(seen->maximum)), zero_point = spec->dtype == BND_U8 ? 128.f : 0.f;
  if (last - first > MOST_POSITIONS - 1) first = last - (MOST_POSITIONS - 1);
  *errors = (image_errors){.first = first - 2, .count = BND_MSE_CANDIDATES + last - first, .any = bound == 0};
  const bnd_error_grids grids = {.first = errors->first, .count = errors->count, .low = (float)bnd_quantizer_minimum(spec) - zero_point,
                                 .high = (float)bnd_quantizer_maximum(spec) - zero_point, .bound = bound, .skip_first = true};
  if (!errors->any) bnd_value_squared_errors(value, &grids, errors->sums);
}

/* By how much a range may grow until its batch is complete: by less and less the more images were seen, but for the odd image by a factor of two. Only a
   guess: one that is too low costs another run of the images before, one that is too high some work. */
static float growth(const bnd_stream_place *place) {
  const size_t batch = ((const calibration_state *)place->user)->batch;
  return place->index < batch ? 8.f : 2.f;
}

static void observe(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  calibration_state *state = place->user;
  if (state->index_of[node_id] < 0) return;
  const size_t quantizer = (size_t)state->index_of[node_id];
  const bnd_node *node = state->nodes[quantizer];
  range here = {INFINITY, -INFINITY};
  bnd_value_min_max(value, &here.minimum, &here.maximum);
  widen(range_at(state, place->worker, place->index / state->batch, quantizer), &here);
  if (!minimizes_error(node) || !is_finite(&here)) return;
  range known;
#pragma omp critical(bnd_calibration_known)
  {
    widen(&state->known[quantizer], &here);
    known = state->known[quantizer];
  }
  const bnd_quantizer_spec *spec = &node->module->quantizer->spec;
  const range grown = {known.minimum * growth(place), known.maximum * growth(place)};
  sum_errors(errors_at(state, place->index, quantizer), spec, &here, position_of(spec, &grown), position_of(spec, &known), value);
}

static const range *running_at(const calibration_state *state, size_t image, size_t quantizer) {
  return &state->running[image / state->batch * state->quantizers + quantizer];
}

/* Where the candidates of the image's batch are among its sums; -1 = they are not. */
static int candidates_in(const calibration_state *state, size_t image, size_t quantizer) {
  const image_errors *errors = errors_at(state, image, quantizer);
  if (errors->any) return 0;
  const int at = position_of(&state->nodes[quantizer]->module->quantizer->spec, running_at(state, image, quantizer)) - 2 - errors->first;
  return at >= 0 && at + BND_MSE_CANDIDATES <= errors->count ? at : -1;
}

/* What does not have to be looked at again: other observers, and ranges that end the calibration. */
static bool has_errors(const calibration_state *state, size_t image, size_t quantizer) {
  return !minimizes_error(state->nodes[quantizer]) || !is_finite(running_at(state, image, quantizer)) || candidates_in(state, image, quantizer) >= 0;
}

static void observe_again(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  calibration_state *state = place->user;
  if (state->index_of[node_id] < 0) return;
  const size_t quantizer = (size_t)state->index_of[node_id], image = state->again[place->index];
  if (has_errors(state, image, quantizer)) return;
  const bnd_quantizer_spec *spec = &state->nodes[quantizer]->module->quantizer->spec;
  range here = {INFINITY, -INFINITY};
  bnd_value_min_max(value, &here.minimum, &here.maximum);
  const int position = position_of(spec, running_at(state, image, quantizer));
  sum_errors(errors_at(state, image, quantizer), spec, &here, position, position, value);
}

/* Worker ranges into worker 0's, then the running range after each batch. */
static void merge_ranges(calibration_state *state) {
  for (size_t b = 0; b < state->batches; b++)
    for (size_t q = 0; q < state->quantizers; q++) {
      range *all = range_at(state, 0, b, q);
      for (int w = 1; w < state->workers; w++) widen(all, range_at(state, w, b, q));
      range running = b ? state->running[(b - 1) * state->quantizers + q] : (range){INFINITY, -INFINITY};
      widen(&running, all);
      state->running[b * state->quantizers + q] = running;
    }
}

static bnd_status load_again(void *user, size_t index, float *input, bnd_error *error) {
  const calibration_state *state = user;
  return state->source->load(state->source->user, state->again[index], input, error);
}

static bnd_status second_pass(calibration_state *state, bnd_executor *executor, const bnd_context *context, bnd_error *error) {
  if (!state->errors) return BND_OK;
  bnd_image_source source = {.user = state, .input_size = state->source->input_size, .load = load_again};
  for (size_t i = 0; i < state->source->count; i++) {
    bool complete = true;
    for (size_t q = 0; q < state->quantizers; q++) complete &= has_errors(state, i, q);
    if (!complete) state->again[source.count++] = i;
  }
  if (source.count == 0) return BND_OK;
  const bnd_stream stream = {.stage = "calibration, search", .probe = observe_again, .user = state};
  return bnd_stream_images(executor, &source, &stream, context, error);
}

/* Adds the errors of a batch in image order. */
static void add_errors(const calibration_state *state, size_t batch, size_t quantizer, double sums[BND_MSE_CANDIDATES]) {
  const size_t begin = batch * state->batch, end = begin + state->batch < state->source->count ? begin + state->batch : state->source->count;
  for (size_t i = begin; i < end; i++)
    for (int k = 0; k < BND_MSE_CANDIDATES; k++) sums[k] += errors_at(state, i, quantizer)->sums[candidates_in(state, i, quantizer) + k];
}

static bnd_status vote(calibration_state *state, size_t quantizer, bnd_error *error) {
  bnd_quantizer *q = state->nodes[quantizer]->module->quantizer;
  for (size_t b = 0; b < state->batches; b++) {
    const range *seen = range_at(state, 0, b, quantizer);
    if (!is_finite(seen))
      return bnd_fail(error, BND_ERROR_MODEL, "node %s: its values are not finite (minimum %g, maximum %g) in calibration batch %zu; the network cannot be quantized",
                      bnd_arg_node(state->nodes[quantizer], 0)->name, (double)seen->minimum, (double)seen->maximum, b + 1);
    BND_TRY(bnd_observer_widen(q, 1, &seen->minimum, &seen->maximum, error));
    double sums[BND_MSE_CANDIDATES] = {0};
    const bool searched = minimizes_error(state->nodes[quantizer]);
    if (searched) add_errors(state, b, quantizer, sums);
    BND_TRY(bnd_observer_commit(q, searched ? sums : NULL, error));
  }
  return bnd_quantizer_finish(q, error);
}

/* Weights and biases are the same in every batch: one vote decides. */
static bnd_status calibrate_module(bnd_node *node, bnd_error *error) {
  bnd_module *module = node->module;
  if (!module->weight_quantizer && !module->bias_quantizer) return BND_OK;
  const bool transposed = bnd_is_transposed_module(node);
  bnd_tensor weight, bias;
  BND_TRY(bnd_module_fold(module, transposed, &weight, &bias, error));
  bnd_status status = BND_OK;
  if (module->weight_quantizer) {
    status = bnd_observe_tensor(module->weight_quantizer, &weight, error);
    if (status == BND_OK) status = bnd_quantizer_finish(module->weight_quantizer, error);
  }
  if (status == BND_OK && module->bias_quantizer && bias.data) {
    status = bnd_observe_tensor(module->bias_quantizer, &bias, error);
    if (status == BND_OK) status = bnd_quantizer_finish(module->bias_quantizer, error);
  }
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
  return status == BND_OK ? BND_OK : bnd_fail_prefix(error, status, "layer %s", node->name);
}

static bnd_status calibrate_constant(bnd_node *node, const bnd_tensor *constant, bnd_error *error) {
  bnd_status status = bnd_observe_tensor(node->module->quantizer, constant, error);
  if (status == BND_OK) status = bnd_quantizer_finish(node->module->quantizer, error);
  return status == BND_OK ? BND_OK : bnd_fail_prefix(error, status, "constant %s", bnd_arg_node(node, 0)->name);
}

static bnd_status calibrate_weights(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (bnd_is_conv_module(node)) BND_TRY(calibrate_module(node, error));
    if (bnd_is_fake_quantize(node) && constant_behind(node)) BND_TRY(calibrate_constant(node, constant_behind(node), error));
  }
  return BND_OK;
}

bnd_status bnd_calibrate(bnd_graph *graph, const bnd_image_source *source, const bnd_calibration *calibration, const bnd_context *context, bnd_error *error) {
  if (source->count == 0) return bnd_fail(error, BND_ERROR_ARGUMENT, "calibration needs at least one image");
  if (calibration->batch == 0) return bnd_fail(error, BND_ERROR_ARGUMENT, "a calibration batch needs at least one image");
  calibration_state state = {.graph = graph, .source = source, .batch = calibration->batch,
                             .batches = (source->count + calibration->batch - 1) / calibration->batch, .workers = bnd_stream_workers(source, context)};
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .backend = calibration->backend, .threads = 1, .observe = true};
  const bnd_stream stream = {.stage = "calibration", .probe = observe, .user = &state};
  bnd_executor *executor = NULL;
  bnd_status status = count_quantizers(&state, error);
  if (status == BND_OK) status = allocate(&state, error);
  if (status == BND_OK) status = calibrate_weights(graph, error);
  if (status == BND_OK) status = bnd_executor_create(graph, &options, &executor, error);
  if (status == BND_OK) status = bnd_stream_images(executor, source, &stream, context, error);
  if (status == BND_OK) merge_ranges(&state);
  if (status == BND_OK) status = second_pass(&state, executor, context, error);
  for (size_t q = 0; q < state.quantizers && status == BND_OK; q++) status = vote(&state, q, error);
  bnd_executor_destroy(executor);
  free_state(&state);
  return status;
}
