/* How much the positions in force clip. */
#include <stdatomic.h>
#include <stdlib.h>

#include "calib/calibrate.h"

typedef struct tally {
  atomic_ullong clipped, seen;
} tally;

typedef struct saturation_state {
  bnd_node **node_of; /* by id: the fake quantizer */
  tally *tallies;     /* by id */
  float **scratch;    /* [workers] */
} saturation_state;

/* Values that rounding alone would put outside the integers' range: x / scale above maximum + 1/2 or below minimum - 1/2. */
static unsigned long long count_clipped(const bnd_quantizer *quantizer, int channel, const float *data, size_t count) {
  const float scale = bnd_scale_of(quantizer->position[channel]);
  const int zero_point = quantizer->zero_point[channel];
  const float high = ((float)(bnd_quantizer_maximum(&quantizer->spec) - zero_point) + 0.5f) * scale;
  const float low = ((float)(bnd_quantizer_minimum(&quantizer->spec) - zero_point) - 0.5f) * scale;
  unsigned long long clipped = 0;
  for (size_t i = 0; i < count; i++) clipped += data[i] > high || data[i] < low;
  return clipped;
}

static void observe(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  saturation_state *state = place->user;
  size_t count;
  if (!bnd_shape_count(bnd_value_shape(value), &count)) return;
  float *plain = state->scratch[place->worker];
  bnd_value_copy(value, plain);
  atomic_fetch_add(&state->tallies[node_id].clipped, count_clipped(state->node_of[node_id]->module->quantizer, 0, plain, count));
  atomic_fetch_add(&state->tallies[node_id].seen, count);
}

static void measure_tensor(bnd_quantizer *quantizer, const bnd_tensor *tensor) {
  if (!quantizer || !tensor->data || tensor->count == 0) return;
  size_t outer, channels, inner;
  unsigned long long clipped = 0;
  bnd_quantizer_layout(&quantizer->spec, &tensor->shape, &outer, &channels, &inner);
  for (size_t o = 0; o < outer; o++)
    for (size_t c = 0; c < channels; c++) clipped += count_clipped(quantizer, (int)c, bnd_f32(tensor) + (o * channels + c) * inner, inner);
  quantizer->saturated = (double)clipped / (double)tensor->count;
}

static bnd_status measure_module(bnd_node *node, bnd_error *error) {
  const bool transposed = bnd_is_transposed_module(node);
  bnd_tensor weight, bias;
  BND_TRY(bnd_module_fold(node->module, transposed, &weight, &bias, error));
  measure_tensor(node->module->weight_quantizer, &weight);
  measure_tensor(node->module->bias_quantizer, &bias);
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
  return BND_OK;
}

static bnd_status prepare(saturation_state *state, bnd_graph *graph, int workers, bnd_error *error) {
  const size_t ids = (size_t)bnd_graph_id_limit(graph);
  size_t largest = 1, count;
  state->node_of = bnd_calloc(ids, sizeof *state->node_of);
  state->tallies = bnd_calloc(ids, sizeof *state->tallies);
  state->scratch = bnd_calloc((size_t)workers, sizeof *state->scratch);
  if (!state->node_of || !state->tallies || !state->scratch) return bnd_fail_memory(error, "the measurement of saturation");
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (bnd_is_conv_module(node)) BND_TRY(measure_module(node, error));
    if (!bnd_is_fake_quantize(node)) continue;
    state->node_of[node->id] = node;
    if (bnd_shape_count(&node->shape[0], &count) && count > largest) largest = count;
  }
  for (int w = 0; w < workers; w++)
    if (!(state->scratch[w] = bnd_alloc_aligned(largest, sizeof(float)))) return bnd_fail_memory(error, "the measurement of saturation");
  return BND_OK;
}

bnd_status bnd_measure_saturation(bnd_graph *graph, const bnd_image_source *source, const bnd_context *context, bnd_error *error) {
  saturation_state state = {0};
  const int workers = bnd_stream_workers(source, context);
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .threads = 1, .observe = true};
  const bnd_stream stream = {.stage = "measuring saturation", .probe = observe, .user = &state};
  bnd_executor *executor = NULL;
  bnd_status status = prepare(&state, graph, workers, error);
  if (status == BND_OK) status = bnd_executor_create(graph, &options, &executor, error);
  if (status == BND_OK) status = bnd_stream_images(executor, source, &stream, context, error);
  for (int id = 0; status == BND_OK && id < bnd_graph_id_limit(graph); id++) {
    const unsigned long long seen = atomic_load(&state.tallies[id].seen);
    if (seen) state.node_of[id]->module->quantizer->saturated = (double)atomic_load(&state.tallies[id].clipped) / (double)seen;
  }
  bnd_executor_destroy(executor);
  for (int w = 0; state.scratch && w < workers; w++) free(state.scratch[w]);
  free(state.scratch);
  free(state.node_of);
  free(state.tallies);
  return status;
}
