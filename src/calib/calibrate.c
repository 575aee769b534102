#include "calib/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct range {
  float minimum, maximum;
} range;

/* Ranges are kept for each worker, batch and quantizer and merged at the end: minimum and maximum do not mind the order, so threads need not meet.
   Squared errors are kept for each image and added in image order. */
typedef struct calibration_state {
  bnd_graph *graph;
  const bnd_image_source *source;
  size_t batch, batches, quantizers;
  int workers;
  bnd_node **nodes;  /* [quantizers] fake quantizer nodes in graph order */
  int *index_of;     /* by node id: index into nodes, -1 */
  range *ranges;     /* [workers][batches][quantizers], later merged into worker 0's */
  range *running;    /* [batches][quantizers] range of everything up to and including the batch */
  double *errors;    /* [images][quantizers][BND_MSE_CANDIDATES]; NULL unless some quantizer minimizes the error */
  float **scratch;   /* [workers] room for the largest tensor */
} calibration_state;

static range *range_at(calibration_state *state, int worker, size_t batch, size_t quantizer) {
  return &state->ranges[((size_t)worker * state->batches + batch) * state->quantizers + quantizer];
}

static void free_state(calibration_state *state) {
  for (int i = 0; state->scratch && i < state->workers; i++) free(state->scratch[i]);
  free(state->scratch);
  free(state->nodes);
  free(state->index_of);
  free(state->ranges);
  free(state->running);
  free(state->errors);
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

static bnd_status allocate(calibration_state *state, bnd_error *error) {
  size_t cells;
  if (!bnd_size_multiply(state->batches, state->quantizers, &cells) || !bnd_size_multiply(cells, (size_t)state->workers, &cells))
    return bnd_fail_memory(error, "calibration");
  state->ranges = bnd_calloc(cells, sizeof *state->ranges);
  state->running = bnd_calloc(state->batches * state->quantizers, sizeof *state->running);
  state->scratch = bnd_calloc((size_t)state->workers, sizeof *state->scratch);
  if (!state->ranges || !state->running || !state->scratch) return bnd_fail_memory(error, "calibration");
  for (size_t i = 0; i < cells; i++) state->ranges[i] = (range){INFINITY, -INFINITY};
  return BND_OK;
}

static void observe_range(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  calibration_state *state = place->user;
  if (state->index_of[node_id] < 0) return;
  range *seen = range_at(state, place->worker, place->index / state->batch, (size_t)state->index_of[node_id]);
  range here = {INFINITY, -INFINITY};
  bnd_value_min_max(value, &here.minimum, &here.maximum);
  if (!(here.minimum >= seen->minimum)) seen->minimum = here.minimum; /* a NaN stays and is found later */
  if (!(here.maximum <= seen->maximum)) seen->maximum = here.maximum;
}

static bool minimizes_error(const bnd_node *node) { return node->module->quantizer->spec.observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE; }

static void observe_error(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  calibration_state *state = place->user;
  if (state->index_of[node_id] < 0) return;
  const size_t quantizer = (size_t)state->index_of[node_id];
  const bnd_node *node = state->nodes[quantizer];
  size_t count;
  if (!minimizes_error(node) || !bnd_shape_count(bnd_value_shape(value), &count)) return;
  float *plain = state->scratch[place->worker];
  bnd_value_copy(value, plain);
  range *running = &state->running[place->index / state->batch * state->quantizers + quantizer];
  const bnd_quantizer seen = {.spec = node->module->quantizer->spec, .channels = 1, .minimum = &running->minimum, .maximum = &running->maximum};
  bnd_observer_squared_error(&seen, plain, 1, count, state->errors + (place->index * state->quantizers + quantizer) * BND_MSE_CANDIDATES);
}

/* Worker ranges into worker 0's, then the running range after each batch. */
static void merge_ranges(calibration_state *state) {
  for (size_t b = 0; b < state->batches; b++)
    for (size_t q = 0; q < state->quantizers; q++) {
      range *all = range_at(state, 0, b, q);
      for (int w = 1; w < state->workers; w++) {
        const range *part = range_at(state, w, b, q);
        if (!(part->minimum >= all->minimum)) all->minimum = part->minimum;
        if (!(part->maximum <= all->maximum)) all->maximum = part->maximum;
      }
      range running = b ? state->running[(b - 1) * state->quantizers + q] : (range){INFINITY, -INFINITY};
      if (!(all->minimum >= running.minimum)) running.minimum = all->minimum;
      if (!(all->maximum <= running.maximum)) running.maximum = all->maximum;
      state->running[b * state->quantizers + q] = running;
    }
}

static size_t largest_value(const calibration_state *state) {
  size_t largest = 1, count;
  for (size_t q = 0; q < state->quantizers; q++)
    if (bnd_shape_count(&state->nodes[q]->shape[0], &count) && count > largest) largest = count;
  return largest;
}

static bnd_status second_pass(calibration_state *state, bnd_executor *executor, const bnd_context *context, bnd_error *error) {
  bool needed = false;
  for (size_t q = 0; q < state->quantizers; q++) needed |= minimizes_error(state->nodes[q]);
  if (!needed) return BND_OK;
  size_t cells;
  if (!bnd_size_multiply(state->source->count, state->quantizers * BND_MSE_CANDIDATES, &cells) || !(state->errors = bnd_calloc(cells, sizeof *state->errors)))
    return bnd_fail_memory(error, "calibration");
  for (int w = 0; w < state->workers; w++)
    if (!(state->scratch[w] = bnd_alloc_aligned(largest_value(state), sizeof(float)))) return bnd_fail_memory(error, "calibration");
  const bnd_stream stream = {.stage = "calibration, search", .probe = observe_error, .user = state};
  return bnd_stream_images(executor, state->source, &stream, context, error);
}

static bnd_status vote(calibration_state *state, size_t quantizer, bnd_error *error) {
  bnd_quantizer *q = state->nodes[quantizer]->module->quantizer;
  for (size_t b = 0; b < state->batches; b++) {
    const range *seen = range_at(state, 0, b, quantizer);
    if (!isfinite(seen->minimum) || !isfinite(seen->maximum))
      return bnd_fail(error, BND_ERROR_MODEL, "node %s: its values are not finite (minimum %g, maximum %g) in calibration batch %zu; the network cannot be quantized",
                      bnd_arg_node(state->nodes[quantizer], 0)->name, (double)seen->minimum, (double)seen->maximum, b + 1);
    BND_TRY(bnd_observer_widen(q, 1, &seen->minimum, &seen->maximum, error));
    double sums[BND_MSE_CANDIDATES] = {0};
    const size_t end = (b + 1) * state->batch < state->source->count ? (b + 1) * state->batch : state->source->count;
    for (size_t i = b * state->batch; state->errors && i < end; i++)
      for (int k = 0; k < BND_MSE_CANDIDATES; k++) sums[k] += state->errors[(i * state->quantizers + quantizer) * BND_MSE_CANDIDATES + (size_t)k];
    BND_TRY(bnd_observer_commit(q, state->errors ? sums : NULL, error));
  }
  return bnd_quantizer_finish(q, error);
}

/* Weights and biases are the same in every batch: one vote decides. */
static bnd_status calibrate_module(bnd_node *node, bnd_error *error) {
  bnd_module *module = node->module;
  if (!module->weight_quantizer && !module->bias_quantizer) return BND_OK;
  const bool transposed = bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D_MODULE) || bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D_BN_MODULE);
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
  const bnd_stream stream = {.stage = "calibration", .probe = observe_range, .user = &state};
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
