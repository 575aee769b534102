/* Life of a network, its building blocks and what callers may look at. */
#include "autograd/network.h"

#include <stdlib.h>
#include <string.h>

#include "autograd/internal.h"

/* --- building blocks --- */

int bnd_network_add_value(bnd_network *network, const char *name, const bnd_shape *shape) {
  const bnd_shape copy = *shape; /* may point into the array that grows */
  if (network->value_count >= INT32_MAX || !BND_GROW(network->values, network->value_capacity, network->value_count + 1)) return -1;
  network->values[network->value_count] = (value){.name = name,
                                                  .shape = copy,
                                                  .placeholder = -1,
                                                  .parameter = -1,
                                                  .twin = -1,
                                                  .view_of = -1,
                                                  .data = -1,
                                                  .packed = -1,
                                                  .gradient = -1,
                                                  .written = -1};
  return (int)network->value_count++;
}

step *bnd_network_add_step(bnd_network *network, step_kind kind, const char *name, int input_count) {
  int *inputs = bnd_network_keep(network, (size_t)input_count, sizeof *inputs);
  if (!inputs || !BND_GROW(network->steps, network->step_capacity, network->step_count + 1)) return NULL;
  step *made = &network->steps[network->step_count++];
  *made = (step){.kind = kind,
                 .name = name,
                 .inputs = inputs,
                 .input_count = input_count,
                 .factor_value = {-1, -1},
                 .weight = -1,
                 .bias = -1,
                 .threshold = -1,
                 .sums = -1,
                 .mask = -1,
                 .weight_gradient = -1,
                 .range = -1};
  return made;
}

int bnd_network_add_slot(bnd_network *network, size_t bytes) {
  if (network->slot_count >= INT32_MAX || !BND_GROW(network->slots, network->slot_capacity, network->slot_count + 1)) return -1;
  network->slots[network->slot_count] = (slot){.bytes = bytes, .first = -1, .last = -1};
  return (int)network->slot_count++;
}

int bnd_network_add_parameter(bnd_network *network, const char *name, const bnd_tensor *tensor) {
  for (size_t p = 0; p < network->parameter_count; p++)
    if (network->parameters[p].value == bnd_f32(tensor)) return (int)p;
  if (!BND_GROW(network->parameters, network->parameter_capacity, network->parameter_count + 1)) return -1;
  float *gradient = bnd_calloc(tensor->count, sizeof *gradient);
  if (!gradient) return -1;
  network->parameters[network->parameter_count] =
      (bnd_parameter){.name = name, .shape = tensor->shape, .count = tensor->count, .value = bnd_f32(tensor), .gradient = gradient};
  network->weight_bytes += tensor->count * sizeof *gradient;
  return (int)network->parameter_count++;
}

bool bnd_network_add_statistic(bnd_network *network, const char *name, const bnd_tensor *tensor) {
  if (!BND_GROW(network->statistics, network->statistic_capacity, network->statistic_count + 1)) return false;
  network->statistics[network->statistic_count++] = (bnd_statistic){name, tensor->count, bnd_f32(tensor)};
  return true;
}

bool bnd_network_add_quantizer(bnd_network *network, const char *name, bnd_quantizer *quantizer) {
  if (!quantizer || !network->options.quantize) return true;
  if (!name || !BND_GROW(network->quantizers, network->quantizer_capacity, network->quantizer_count + 1)) return false;
  network->quantizers[network->quantizer_count++] = (bnd_network_quantizer){name, quantizer};
  return true;
}

void *bnd_network_keep(bnd_network *network, size_t count, size_t size) {
  return bnd_arena_alloc(network->names, count ? count : 1, size);
}

bnd_layout bnd_network_layout(const value *v) {
  bnd_layout layout = {.images = 1, .channels = 1, .height = 1, .width = 1, .block = v->block};
  if (v->shape.rank == 4) {
    layout.channels = (size_t)v->shape.size[1];
    layout.height = (size_t)v->shape.size[2];
    layout.width = (size_t)v->shape.size[3];
  } else {
    bnd_shape_count(&v->shape, &layout.width);
  }
  return layout;
}

size_t bnd_network_count(const value *v) {
  const bnd_layout layout = bnd_network_layout(v);
  return bnd_layout_count(&layout);
}

size_t bnd_network_channels(const value *v) {
  const bnd_layout layout = bnd_network_layout(v);
  return bnd_layout_channels(&layout);
}

int bnd_network_root(const bnd_network *network, int index) {
  while (network->values[index].view_of >= 0) index = network->values[index].view_of;
  return index;
}

void bnd_network_want_buffer(bnd_network *network, int buffer, size_t count) {
  if (count > network->buffer_count[buffer]) network->buffer_count[buffer] = count;
}

/* --- life --- */

static bnd_status allocate_workers(bnd_network *network, bnd_error *error) {
  const size_t threads = (size_t)network->options.threads;
  network->scratch = bnd_calloc(threads, sizeof *network->scratch);
  network->buffers = bnd_calloc(threads * NETWORK_BUFFERS, sizeof *network->buffers);
  if (!network->scratch || !network->buffers) return bnd_fail_memory(error, "the network");
  for (size_t w = 0; w < threads; w++) {
    network->scratch[w] = bnd_alloc_aligned(network->scratch_bytes + 64, 1);
    if (!network->scratch[w]) return bnd_fail_memory(error, "the network");
    for (int b = 0; b < NETWORK_BUFFERS; b++) {
      float *buffer = bnd_alloc_aligned(network->buffer_count[b] + 16, sizeof *buffer);
      if (!buffer) return bnd_fail_memory(error, "the network");
      network->buffers[w * NETWORK_BUFFERS + (size_t)b] = buffer;
    }
  }
  return BND_OK;
}

static bnd_status allocate(bnd_network *network, bnd_error *error) {
  size_t bytes;
  if (!bnd_size_multiply(network->image_bytes, (size_t)network->options.batch, &bytes)) return bnd_fail_memory(error, "activations");
  network->arena = bnd_alloc_aligned(bytes + 64, 1);
  if (!network->arena)
    return bnd_fail(error, BND_ERROR_MEMORY, "activations and gradients of %d images need %zu MiB; a smaller batch needs less",
                    network->options.batch, bytes >> 20);
  for (int i = 0; i < 2; i++) {
    network->totals[i] = bnd_alloc_aligned(network->total_count[i] + 16, sizeof *network->totals[i]);
    if (!network->totals[i]) return bnd_fail_memory(error, "weight gradients");
  }
  return allocate_workers(network, error);
}

bnd_status bnd_network_create(bnd_graph *graph, const bnd_network_options *options, bnd_network **result, bnd_error *error) {
  *result = NULL;
  if (options->batch < 1 || options->threads < 1) return bnd_fail(error, BND_ERROR_ARGUMENT, "a network needs at least one image and one thread");
  bnd_network *network = bnd_calloc(1, sizeof *network);
  if (!network) return bnd_fail_memory(error, "the network");
  network->options = *options;
  if (network->options.threads > options->batch) network->options.threads = options->batch;
  network->graph = graph;
  network->names = bnd_arena_create();
  bnd_status status = network->names ? BND_OK : bnd_fail_memory(error, "the network");
  if (status == BND_OK && options->backend == BND_BACKEND_ONEDNN) status = bnd_onednn_create(&network->onednn, error);
  if (status == BND_OK) status = bnd_network_lower(network, error);
  if (status == BND_OK) status = bnd_network_fuse(network, error);
  if (status == BND_OK) status = bnd_network_assign_layouts(network, error);
  if (status == BND_OK) status = bnd_network_make_parts(network, error);
  if (status == BND_OK) status = bnd_network_assign_memory(network, error);
  if (status == BND_OK) status = allocate(network, error);
  network->options.gradient_outputs = NULL; /* borrowed */
  if (status != BND_OK) {
    bnd_network_destroy(network);
    return status;
  }
  *result = network;
  return BND_OK;
}

static void release_step(bnd_network *network, step *it) {
  for (int w = 0; it->calls && w < network->options.threads; w++) bnd_onednn_layer_call_destroy(it->calls[w]);
  free(it->calls);
  bnd_onednn_layer_destroy(it->layer);
  bnd_tensor_release(&it->effective_weight);
  bnd_tensor_release(&it->effective_bias);
  bnd_tensor_release(&it->unquantized);
  free(it->packed);
  free(it->packed_raw);
}

void bnd_network_destroy(bnd_network *network) {
  if (!network) return;
  for (size_t s = 0; s < network->step_count; s++) release_step(network, &network->steps[s]);
  for (size_t v = 0; v < network->value_count; v++) bnd_tensor_release(&network->values[v].constant);
  for (size_t p = 0; p < network->parameter_count; p++) free(network->parameters[p].gradient);
  for (int w = 0; network->scratch && w < network->options.threads; w++) free(network->scratch[w]);
  for (int b = 0; network->buffers && b < network->options.threads * NETWORK_BUFFERS; b++) free(network->buffers[b]);
  free(network->scratch);
  free(network->buffers);
  free(network->arena);
  for (int i = 0; i < 2; i++) free(network->totals[i]);
  free(network->values);
  free(network->steps);
  free(network->parts);
  free(network->slots);
  free(network->parameters);
  free(network->statistics);
  free(network->quantizers);
  free(network->thresholds);
  free(network->outputs);
  bnd_onednn_destroy(network->onednn);
  bnd_arena_destroy(network->names);
  free(network);
}

/* --- what callers see --- */

size_t bnd_network_bytes(const bnd_network *network) {
  size_t bytes = network->image_bytes * (size_t)network->options.batch + network->weight_bytes;
  size_t worker = network->scratch_bytes;
  for (int b = 0; b < NETWORK_BUFFERS; b++) worker += network->buffer_count[b] * sizeof(float);
  return bytes + worker * (size_t)network->options.threads;
}

bnd_parameter *bnd_network_parameters(const bnd_network *network, size_t *count) {
  *count = network->parameter_count;
  return network->parameters;
}

const bnd_statistic *bnd_network_statistics(const bnd_network *network, size_t *count) {
  *count = network->statistic_count;
  return network->statistics;
}

const bnd_network_quantizer *bnd_network_quantizers(const bnd_network *network, size_t *count) {
  *count = network->quantizer_count;
  return network->quantizers;
}

int bnd_network_output_count(const bnd_network *network) {
  return (int)network->output_count;
}

static int output_value(const bnd_network *network, int output) {
  return output >= 0 && (size_t)output < network->output_count ? network->outputs[output] : NO_INDEX;
}

const bnd_shape *bnd_network_output_shape(const bnd_network *network, int output) {
  const int index = output_value(network, output);
  return index < 0 ? NULL : &network->values[index].shape;
}

const float *bnd_network_output(const bnd_network *network, int output, int image) {
  const int index = output_value(network, output);
  return index < 0 ? NULL : bnd_network_data(network, index, image);
}

float *bnd_network_output_gradient(bnd_network *network, int output, int image) {
  const int index = output_value(network, output);
  return index < 0 || network->values[index].gradient < 0 ? NULL : bnd_network_gradient(network, index, image);
}

void bnd_network_zero_gradients(bnd_network *network) {
  for (size_t p = 0; p < network->parameter_count; p++)
    memset(network->parameters[p].gradient, 0, network->parameters[p].count * sizeof *network->parameters[p].gradient);
}

void bnd_network_set_timing(bnd_network *network, bool on) {
  network->timing = on;
  for (size_t p = 0; p < network->part_count; p++) network->parts[p].seconds = 0;
}

bnd_status bnd_network_describe(const bnd_network *network, bnd_string *text, bnd_error *error) {
  static const char *const kinds[] = {"kernel", "convolution", "norm",     "sum",        "relu", "fake quantize",
                                      "concat", "max pool",    "to plain", "to blocked", "view", "dead"};
  for (size_t p = 0; p < network->part_count; p++) {
    const part *it = &network->parts[p];
    char shape[BND_SHAPE_TEXT], kernels[128] = "";
    bnd_shape_text(&network->values[it->step->outputs[0]].shape, shape);
    if (it->step->layer) bnd_onednn_layer_kernels(it->step->layer, kernels);
    bnd_string_format(text, "%-8s %-32s %-14s %-18s %8.2f ms %s%s\n", p < network->forward_parts ? "forward" : "backward", it->step->name,
                      kinds[it->step->kind], shape, it->seconds * 1e3, it->reduce ? "| " : "", kernels);
  }
  return text->failed ? bnd_fail_memory(error, "a description") : BND_OK;
}
