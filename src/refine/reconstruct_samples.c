#include "refine/reconstruct_samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/operators.h"

static size_t size_of(const bnd_node *node) {
  size_t count = 0;
  return bnd_shape_count(&node->shape[0], &count) ? count : 0;
}

/* The grid a value lies on, as far as bytes can hold it. */
static const bnd_quantizer *byte_grid(const bnd_node *node) {
  if (!bnd_is_fake_quantize(node) || !node->module || !node->module->quantizer) return NULL;
  const bnd_quantizer *q = node->module->quantizer;
  return q->channels == 1 && q->spec.dtype == BND_I8 && q->zero_point[0] == 0 ? q : NULL;
}

size_t bnd_samples_bytes(const bnd_block *block) {
  size_t bytes = 0;
  for (int i = 0; i < block->input_count; i++) bytes += size_of(block->inputs[i]) * (byte_grid(block->inputs[i]) ? 1 : sizeof(float));
  for (int i = 0; i < block->output_count; i++) bytes += size_of(block->outputs[i]) * sizeof(float);
  return bytes;
}

static void store(const bnd_sample_series *series, size_t image, const float *values) {
  if (series->values) {
    memcpy(series->values + image * series->size, values, series->size * sizeof *values);
    return;
  }
  int8_t *bytes = series->bytes + image * series->size;
  const float reciprocal = 1 / series->scale; /* a power of two: exact */
  for (size_t i = 0; i < series->size; i++) bytes[i] = (int8_t)(values[i] * reciprocal);
}

void bnd_samples_input(const bnd_samples *samples, int input, size_t image, float *plain) {
  const bnd_sample_series *series = &samples->inputs[input];
  if (series->values) {
    memcpy(plain, series->values + image * series->size, series->size * sizeof *plain);
    return;
  }
  const int8_t *bytes = series->bytes + image * series->size;
  for (size_t i = 0; i < series->size; i++) plain[i] = (float)bytes[i] * series->scale;
}

const float *bnd_samples_target(const bnd_samples *samples, int target, size_t image) {
  return samples->targets[target].values + image * samples->targets[target].size;
}

/* --- running the network up to the block --- */

typedef struct collection {
  bnd_sample_series *series;
  int count;
} collection;

static bnd_status keep(const bnd_stream_place *place, const bnd_session *session, bnd_error *error) {
  (void)error;
  const collection *c = place->user;
  for (int i = 0; i < c->count; i++) store(&c->series[i], place->index, bnd_session_output(session, i));
  return BND_OK;
}

static bnd_node *image_of(const bnd_graph *graph) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->kind == BND_PLACEHOLDER) return node;
  return NULL;
}

static bnd_status run(const bnd_refinement *work, const bnd_graph *graph, bnd_exec_mode mode, const bnd_image_source *source, collection *c,
                      bnd_error *error) {
  const bnd_exec_options options = {.mode = mode, .backend = work->backend, .threads = 1};
  const bnd_context quiet = bnd_context_without_progress(work->context);
  const bnd_stream stream = {.stage = "reconstruction", .finished = keep, .user = c};
  bnd_executor *executor;
  BND_TRY(bnd_executor_create(graph, &options, &executor, error));
  const bnd_status status = bnd_stream_images(executor, source, &stream, &quiet, error);
  bnd_executor_destroy(executor);
  return status;
}

static bnd_status run_up_to(const bnd_refinement *work, const bnd_graph *whole, bnd_exec_mode mode, bnd_node *const *nodes, int count,
                            const bnd_image_source *source, bnd_sample_series *series, bnd_error *error) {
  bnd_graph *graph;
  bnd_node *image = image_of(whole);
  collection c = {series, count};
  if (!image) return bnd_fail(error, BND_ERROR_MODEL, "the network has no input");
  BND_TRY(bnd_block_graph(whole, &image, 1, nodes, count, &graph, error));
  const bnd_status status = run(work, graph, mode, source, &c, error);
  bnd_graph_destroy(graph);
  return status;
}

static bnd_status prepare(bnd_node *const *nodes, int node_count, bool may_be_bytes, size_t images, bnd_sample_series **series, int *count,
                          bnd_error *error) {
  *series = bnd_calloc((size_t)node_count, sizeof **series);
  if (!*series) return bnd_fail_memory(error, "the images of a block");
  for (int i = 0; i < node_count; i++) {
    bnd_sample_series *s = &(*series)[i];
    const bnd_quantizer *grid = may_be_bytes ? byte_grid(nodes[i]) : NULL;
    size_t total;
    *s = (bnd_sample_series){.size = size_of(nodes[i]), .scale = grid ? bnd_scale_of(grid->position[0]) : 1};
    *count = i + 1;
    if (!bnd_size_multiply(s->size, images, &total)) return bnd_fail_memory(error, "the images of a block");
    if (grid) s->bytes = bnd_alloc_aligned(total, 1);
    else s->values = bnd_alloc_aligned(total, sizeof *s->values);
    if (!s->bytes && !s->values) return bnd_fail_memory(error, "the images of a block");
  }
  return BND_OK;
}

bnd_status bnd_samples_collect(const bnd_refinement *work, const bnd_block *block, const bnd_image_source *source, size_t count, bnd_samples *samples,
                               bnd_error *error) {
  *samples = (bnd_samples){.count = count};
  bnd_image_source images = *source;
  images.count = count;
  bnd_status status = prepare(block->inputs, block->input_count, true, count, &samples->inputs, &samples->input_count, error);
  if (status == BND_OK) status = prepare(block->outputs, block->output_count, false, count, &samples->targets, &samples->target_count, error);
  if (status == BND_OK)
    status = run_up_to(work, work->graph, BND_EXEC_FAKE_QUANTIZE, block->inputs, block->input_count, &images, samples->inputs, error);
  if (status == BND_OK)
    status = run_up_to(work, work->teacher, BND_EXEC_FLOAT, block->outputs, block->output_count, &images, samples->targets, error);
  if (status != BND_OK) bnd_samples_free(samples);
  return status;
}

static void free_series(bnd_sample_series *series, int count) {
  for (int i = 0; i < count; i++) {
    free(series[i].values);
    free(series[i].bytes);
  }
  free(series);
}

void bnd_samples_free(bnd_samples *samples) {
  free_series(samples->inputs, samples->input_count);
  free_series(samples->targets, samples->target_count);
  *samples = (bnd_samples){0};
}
