/* A transposed convolution is the adjoint of the convolution with input and output exchanged: its way forward is that one's backward data, its data
   gradient that one's forward, its weight gradient that one's with x and dy exchanged. Its weights lie as that one's do. So everything below works on
   the convolution, and a table says which of its kinds is which direction of the layer. */
#include "kernels/onednn/layer.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/onednn/engine.h"

typedef enum direction { FORWARD, DATA, WEIGHTS, DIRECTION_COUNT } direction;
enum { FIRST, SECOND, RESULT, SCRATCH, MEMORY_COUNT }; /* a direction reads two arrays and writes one */

typedef struct operand {
  int argument;
  dnnl_query_t query;
} operand;

/* x, dy or packed weights in the order in which the functions at the end take them. */
static const struct {
  bnd_dnnl_kind kind;
  operand operands[SCRATCH];
} METHODS[2][DIRECTION_COUNT] = {
    {{BND_DNNL_FORWARD, {{DNNL_ARG_SRC, dnnl_query_src_md}, {DNNL_ARG_WEIGHTS, dnnl_query_weights_md}, {DNNL_ARG_DST, dnnl_query_dst_md}}},
     {BND_DNNL_BACKWARD_DATA,
      {{DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md}, {DNNL_ARG_WEIGHTS, dnnl_query_weights_md}, {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md}}},
     {BND_DNNL_BACKWARD_WEIGHTS,
      {{DNNL_ARG_SRC, dnnl_query_src_md}, {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md}, {DNNL_ARG_DIFF_WEIGHTS, dnnl_query_diff_weights_md}}}},
    {{BND_DNNL_BACKWARD_DATA,
      {{DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md}, {DNNL_ARG_WEIGHTS, dnnl_query_weights_md}, {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md}}},
     {BND_DNNL_FORWARD, {{DNNL_ARG_SRC, dnnl_query_src_md}, {DNNL_ARG_WEIGHTS, dnnl_query_weights_md}, {DNNL_ARG_DST, dnnl_query_dst_md}}},
     {BND_DNNL_BACKWARD_WEIGHTS,
      {{DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md}, {DNNL_ARG_SRC, dnnl_query_src_md}, {DNNL_ARG_DIFF_WEIGHTS, dnnl_query_diff_weights_md}}}},
};

struct bnd_onednn_layer {
  const bnd_onednn *engine;
  bnd_convolution_shape convolution; /* the shape, or its adjoint's for a transposed one */
  bool transposed, data_gradient;
  dnnl_primitive_desc_t descriptions[DIRECTION_COUNT]; /* NULL = not needed */
  dnnl_primitive_t primitives[DIRECTION_COUNT];
  size_t data_offset, packed_count, gradient_count, scratch_bytes; /* data_offset: floats before the weights for the data gradient */
};

struct bnd_onednn_layer_call {
  const bnd_onednn_layer *layer;
  dnnl_stream_t stream;
  dnnl_memory_t memory[DIRECTION_COUNT][MEMORY_COUNT];
};

/* oneDNN divides work by the number of threads OpenMP offers when a primitive is made and in places again when it runs. What is changed here is the
   calling thread's own setting. */
static int take_one_thread(void) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  return before;
}

static bnd_dnnl_desc_view query(const bnd_onednn_layer *layer, direction way, int which) {
  return dnnl_primitive_desc_query_md(layer->descriptions[way], METHODS[layer->transposed][way].operands[which].query, 0);
}

/* --- making --- */

static bnd_convolution_shape adjoint(const bnd_convolution_shape *shape) {
  bnd_convolution_shape result = *shape;
  result.in_channels = shape->out_channels, result.in_height = shape->out_height, result.in_width = shape->out_width;
  result.out_channels = shape->in_channels, result.out_height = shape->in_height, result.out_width = shape->in_width;
  return result;
}

/* Describes the directions needed; *found says whether all have a kernel of their own. The convolution's way forward is described in any case, as
   the others refer to it. */
static dnnl_status_t describe(bnd_onednn_layer *layer, const_dnnl_primitive_attr_t attributes, bool *found) {
  const bnd_convolution_shape padded = bnd_onednn_padded(layer->engine, &layer->convolution);
  *found = false;
  dnnl_primitive_desc_t forward = NULL;
  dnnl_status_t status = bnd_onednn_describe(layer->engine, &padded, BND_DNNL_FORWARD, false, NULL, attributes, &forward);
  for (direction way = FORWARD; status == dnnl_success && way < DIRECTION_COUNT; way++) {
    if (way == DATA && !layer->data_gradient) continue;
    const bnd_dnnl_kind kind = METHODS[layer->transposed][way].kind;
    status =
        bnd_onednn_describe(layer->engine, &padded, kind, false, kind == BND_DNNL_FORWARD ? NULL : forward, attributes, &layer->descriptions[way]);
    if (status == dnnl_success && strstr(bnd_onednn_kernel_name(layer->descriptions[way]), "ref")) status = dnnl_unimplemented;
  }
  if (forward) dnnl_primitive_desc_destroy(forward);
  *found = status == dnnl_success;
  return status == dnnl_unimplemented ? dnnl_success : status;
}

static size_t floats_of(const bnd_onednn_layer *layer, direction way, int which) {
  return dnnl_memory_desc_get_size(query(layer, way, which)) / sizeof(float);
}

static void measure(bnd_onednn_layer *layer) {
  enum { LINE = 16 }; /* floats: the second part starts aligned as the first */
  layer->data_offset = (floats_of(layer, FORWARD, SECOND) + LINE - 1) / LINE * LINE;
  layer->packed_count = layer->data_offset + (layer->data_gradient ? floats_of(layer, DATA, SECOND) : 0);
  layer->gradient_count = floats_of(layer, WEIGHTS, RESULT);
  for (direction way = FORWARD; way < DIRECTION_COUNT; way++) {
    if (!layer->descriptions[way]) continue;
    const size_t bytes = bnd_onednn_bytes(layer->descriptions[way], dnnl_query_scratchpad_md);
    if (bytes > layer->scratch_bytes) layer->scratch_bytes = bytes;
  }
}

static dnnl_status_t build(bnd_onednn_layer *layer, bool *found) {
  dnnl_primitive_attr_t attributes;
  dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
  if (status != dnnl_success) return status;
  status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
  if (status == dnnl_success) status = describe(layer, attributes, found);
  dnnl_primitive_attr_destroy(attributes);
  if (status != dnnl_success || !*found) return status;
  for (direction way = FORWARD; status == dnnl_success && way < DIRECTION_COUNT; way++)
    if (layer->descriptions[way]) status = dnnl_primitive_create(&layer->primitives[way], layer->descriptions[way]);
  if (status == dnnl_success) measure(layer);
  return status;
}

bnd_status bnd_onednn_layer_create(bnd_onednn *engine, const bnd_convolution_shape *shape, bool transposed, bool data_gradient,
                                   bnd_onednn_layer **layer, bnd_error *error) {
  *layer = NULL;
  if (shape->images != 1) return bnd_fail(error, BND_ERROR_ARGUMENT, "a convolution layer in training takes 1 image, not %zu", shape->images);
  if (!engine->block || (transposed && shape->plain_input)) return BND_OK;
  bnd_onednn_layer *made = bnd_calloc(1, sizeof *made);
  if (!made) return bnd_fail_memory(error, "a convolution layer");
  made->engine = engine;
  made->convolution = transposed ? adjoint(shape) : *shape;
  made->transposed = transposed;
  made->data_gradient = data_gradient;
  bool found = false;
  const int threads = take_one_thread();
  const dnnl_status_t status = build(made, &found);
  omp_set_num_threads(threads);
  if (status == dnnl_success && found) *layer = made;
  else bnd_onednn_layer_destroy(made);
  return status == dnnl_success ? BND_OK : bnd_onednn_fail(error, status, "making a convolution layer");
}

void bnd_onednn_layer_destroy(bnd_onednn_layer *layer) {
  if (!layer) return;
  for (direction way = FORWARD; way < DIRECTION_COUNT; way++) {
    if (layer->primitives[way]) dnnl_primitive_destroy(layer->primitives[way]);
    if (layer->descriptions[way]) dnnl_primitive_desc_destroy(layer->descriptions[way]);
  }
  free(layer);
}

size_t bnd_onednn_layer_packed_count(const bnd_onednn_layer *layer) {
  return layer->packed_count;
}
size_t bnd_onednn_layer_gradient_count(const bnd_onednn_layer *layer) {
  return layer->gradient_count;
}
size_t bnd_onednn_layer_scratch_bytes(const bnd_onednn_layer *layer) {
  return layer->scratch_bytes;
}

const char *bnd_onednn_layer_kernels(const bnd_onednn_layer *layer, char text[128]) {
  const char *names[DIRECTION_COUNT];
  for (direction way = FORWARD; way < DIRECTION_COUNT; way++)
    names[way] = layer->descriptions[way] ? bnd_onednn_kernel_name(layer->descriptions[way]) : "none";
  snprintf(text, 128, "forward %s, data %s, weights %s", names[FORWARD], names[DATA], names[WEIGHTS]);
  return text;
}

/* --- weights --- */

bnd_status bnd_onednn_layer_pack(const bnd_onednn_layer *layer, const float *weight, float *packed, bnd_error *error) {
  const int threads = take_one_thread();
  bnd_status status = bnd_onednn_pack_weight(layer->engine, &layer->convolution, weight, 1.f, query(layer, FORWARD, SECOND), packed, error);
  if (status == BND_OK && layer->data_gradient)
    status = bnd_onednn_pack_weight(layer->engine, &layer->convolution, weight, 1.f, query(layer, DATA, SECOND), packed + layer->data_offset, error);
  omp_set_num_threads(threads);
  return status;
}

bnd_status bnd_onednn_layer_unpack_gradient(const bnd_onednn_layer *layer, const float *gradient, float *plain, bnd_error *error) {
  const int threads = take_one_thread();
  const bnd_status status = bnd_onednn_unpack_weight(layer->engine, &layer->convolution, query(layer, WEIGHTS, RESULT), gradient, plain, error);
  omp_set_num_threads(threads);
  return status;
}

/* --- running --- */

static dnnl_status_t make_memory(bnd_onednn_layer_call *call, direction way) {
  const bnd_onednn_layer *layer = call->layer;
  dnnl_memory_t *memory = call->memory[way];
  dnnl_status_t status = dnnl_success;
  for (int i = FIRST; i < SCRATCH && status == dnnl_success; i++)
    status = dnnl_memory_create(&memory[i], query(layer, way, i), layer->engine->engine, NULL);
  if (status == dnnl_success && bnd_onednn_bytes(layer->descriptions[way], dnnl_query_scratchpad_md))
    status = dnnl_memory_create(&memory[SCRATCH], dnnl_primitive_desc_query_md(layer->descriptions[way], dnnl_query_scratchpad_md, 0),
                                layer->engine->engine, NULL);
  return status;
}

bnd_status bnd_onednn_layer_call_create(const bnd_onednn_layer *layer, bnd_onednn_layer_call **call, bnd_error *error) {
  bnd_onednn_layer_call *made = *call = bnd_calloc(1, sizeof *made);
  if (!made) return bnd_fail_memory(error, "a convolution call");
  made->layer = layer;
  dnnl_status_t status = dnnl_stream_create(&made->stream, layer->engine->engine, dnnl_stream_default_flags);
  for (direction way = FORWARD; way < DIRECTION_COUNT && status == dnnl_success; way++)
    if (layer->descriptions[way]) status = make_memory(made, way);
  if (status == dnnl_success) return BND_OK;
  bnd_onednn_layer_call_destroy(made);
  *call = NULL;
  return bnd_onednn_fail(error, status, "preparing a convolution");
}

void bnd_onednn_layer_call_destroy(bnd_onednn_layer_call *call) {
  if (!call) return;
  for (direction way = FORWARD; way < DIRECTION_COUNT; way++)
    for (int i = 0; i < MEMORY_COUNT; i++)
      if (call->memory[way][i]) dnnl_memory_destroy(call->memory[way][i]);
  if (call->stream) dnnl_stream_destroy(call->stream);
  free(call);
}

static bnd_status run(bnd_onednn_layer_call *call, direction way, const float *first, const float *second, float *result, void *scratch,
                      bnd_error *error) {
  const bnd_onednn_layer *layer = call->layer;
  /* oneDNN has no const here but writes only to the last two */
  void *const data[MEMORY_COUNT] = {(void *)(uintptr_t)first, (void *)(uintptr_t)second, result, scratch};
  dnnl_exec_arg_t arguments[MEMORY_COUNT];
  int count = 0;
  dnnl_status_t status = dnnl_success;
  for (int i = 0; i < MEMORY_COUNT && status == dnnl_success; i++) {
    dnnl_memory_t memory = call->memory[way][i];
    if (!memory) continue;
    status = dnnl_memory_set_data_handle(memory, data[i]);
    arguments[count++] = (dnnl_exec_arg_t){i == SCRATCH ? DNNL_ARG_SCRATCHPAD : METHODS[layer->transposed][way].operands[i].argument, memory};
  }
  const int threads = take_one_thread();
  if (status == dnnl_success) status = dnnl_primitive_execute(layer->primitives[way], call->stream, count, arguments);
  if (status == dnnl_success) status = dnnl_stream_wait(call->stream);
  omp_set_num_threads(threads);
  return status == dnnl_success ? BND_OK : bnd_onednn_fail(error, status, "running a convolution");
}

bnd_status bnd_onednn_layer_forward(bnd_onednn_layer_call *call, const float *x, const float *packed, float *y, void *scratch, bnd_error *error) {
  return run(call, FORWARD, x, packed, y, scratch, error);
}

bnd_status bnd_onednn_layer_backward_data(bnd_onednn_layer_call *call, const float *dy, const float *packed, float *dx, void *scratch,
                                          bnd_error *error) {
  if (!call->layer->data_gradient) return bnd_fail(error, BND_ERROR_ARGUMENT, "this convolution layer was made without a data gradient");
  return run(call, DATA, dy, packed + call->layer->data_offset, dx, scratch, error);
}

bnd_status bnd_onednn_layer_backward_weights(bnd_onednn_layer_call *call, const float *x, const float *dy, float *gradient, void *scratch,
                                             bnd_error *error) {
  return run(call, WEIGHTS, x, dy, gradient, scratch, error);
}
