/* Channels are rounded up to whole blocks here, with zero weights and biases for those that are not there: oneDNN then sees no odd shapes, and the
   padding of a result is the tail applied to zero, which is zero. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/onednn/engine.h"

enum { SOURCE, WEIGHT, BIAS, DESTINATION, SCRATCH, SCALE, MEMORY_COUNT };

struct bnd_onednn_call {
  const bnd_onednn_convolution *convolution;
  dnnl_stream_t stream;
  dnnl_memory_t memory[MEMORY_COUNT];
};

/* The grid's multiplier is in the weights and bias already (a power of two: every partial sum scales exactly), which leaves clamp, round, and one
   multiplication. oneDNN 2.6 would use the first one's factor for a second multiplication in the same list. Under a relu negative values end at 0, so
   the clamp alone does both. */
static dnnl_status_t append_tail(dnnl_post_ops_t list, const bnd_convolution_tail *tail) {
  if (!tail->has_grid) return tail->relu ? bnd_dnnl_append_eltwise(list, dnnl_eltwise_relu, 0.f, 0.f) : dnnl_success;
  dnnl_status_t status = bnd_dnnl_append_eltwise(list, dnnl_eltwise_clip, tail->relu ? 0.f : tail->grid.low, tail->grid.high);
  if (status == dnnl_success) status = bnd_dnnl_append_eltwise(list, dnnl_eltwise_round, 0.f, 0.f);
  if (status == dnnl_success && tail->grid.step != 1.f) status = bnd_dnnl_append_eltwise(list, dnnl_eltwise_linear, tail->grid.step, 0.f);
  return status;
}

/* Beyond this a scaled weight might leave the range of float; such a grid on a sum is no sign of a sound network. */
static bool is_moderate(float multiplier) {
  return multiplier >= 0x1p-40f && multiplier <= 0x1p40f;
}

static dnnl_status_t make_attributes(const bnd_convolution_tail *tail, dnnl_primitive_attr_t *attributes) {
  dnnl_status_t status = dnnl_primitive_attr_create(attributes);
  if (status != dnnl_success) return status;
  dnnl_post_ops_t list = NULL;
  status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
  if (status == dnnl_success) status = dnnl_post_ops_create(&list);
  if (status == dnnl_success) status = append_tail(list, tail);
  if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(*attributes, list);
  if (list) dnnl_post_ops_destroy(list);
  if (status != dnnl_success) dnnl_primitive_attr_destroy(*attributes);
  return status;
}

static bnd_dnnl_desc_view query(const bnd_onednn_convolution *convolution, dnnl_query_t what) {
  return dnnl_primitive_desc_query_md(convolution->description, what, 0);
}

static bnd_status pack(const bnd_onednn *engine, bnd_onednn_convolution *convolution, const bnd_convolution_shape *shape, const float *weight,
                       const float *bias, float factor, bnd_error *error) {
  convolution->weight_bytes = bnd_onednn_bytes(convolution->description, dnnl_query_weights_md);
  convolution->bias_bytes = bias ? bnd_onednn_padded(engine, shape).out_channels * sizeof(float) : 0;
  convolution->weight = bnd_alloc_aligned(convolution->weight_bytes, 1);
  if (!convolution->weight) return bnd_fail_memory(error, "packed weights");
  if (bias) {
    convolution->bias = bnd_alloc_aligned(convolution->bias_bytes, 1);
    if (!convolution->bias) return bnd_fail_memory(error, "packed weights");
    memset(convolution->bias, 0, convolution->bias_bytes);
    for (size_t o = 0; o < shape->out_channels; o++) convolution->bias[o] = bias[o] * factor;
  }
  return bnd_onednn_pack_weight(engine, shape, weight, factor, query(convolution, dnnl_query_weights_md), convolution->weight, error);
}

static bnd_status build(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_convolution_tail *tail, const float *weight,
                        const float *bias, bnd_onednn_convolution *convolution, bool *found, bnd_error *error) {
  const bnd_convolution_shape wide = bnd_onednn_padded(engine, shape);
  dnnl_primitive_attr_t attributes;
  dnnl_status_t status = make_attributes(tail, &attributes);
  if (status != dnnl_success) return bnd_onednn_fail(error, status, "describing a convolution");
  status = bnd_onednn_describe(engine, &wide, BND_DNNL_INFERENCE, bias != NULL, NULL, attributes, &convolution->description);
  dnnl_primitive_attr_destroy(attributes);
  *found = false;
  if (status == dnnl_unimplemented) return BND_OK;
  if (status != dnnl_success) return bnd_onednn_fail(error, status, "describing a convolution");
  bnd_onednn_set_kernel_name(convolution);
  if (!bnd_onednn_is_direct(convolution->kernel)) return BND_OK;
  *found = true;
  convolution->engine = engine->engine;
  status = dnnl_primitive_create(&convolution->primitive, convolution->description);
  if (status != dnnl_success) return bnd_onednn_fail(error, status, "generating a convolution");
  convolution->scratch_bytes = bnd_onednn_bytes(convolution->description, dnnl_query_scratchpad_md);
  return pack(engine, convolution, shape, weight, bias, tail->has_grid ? tail->grid.multiplier : 1.f, error);
}

bnd_status bnd_onednn_convolution_create(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_convolution_tail *tail,
                                         const float *weight, const float *bias, int threads, bnd_onednn_convolution **convolution,
                                         bnd_error *error) {
  *convolution = NULL;
  if (!engine->block || (tail->has_grid && !is_moderate(tail->grid.multiplier))) return BND_OK;
  bnd_onednn_convolution *made = bnd_calloc(1, sizeof *made);
  if (!made) return bnd_fail_memory(error, "a convolution");
  /* oneDNN divides the work for as many threads as OpenMP offers when the primitive is made */
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  bool found = false;
  const bnd_status status = build(engine, shape, tail, weight, bias, made, &found, error);
  omp_set_num_threads(before);
  if (status == BND_OK && found) *convolution = made;
  else bnd_onednn_convolution_destroy(made);
  return status;
}

void bnd_onednn_set_kernel_name(bnd_onednn_convolution *convolution) {
  snprintf(convolution->kernel, sizeof convolution->kernel, "%s", bnd_onednn_kernel_name(convolution->description));
}

void bnd_onednn_convolution_destroy(bnd_onednn_convolution *convolution) {
  if (!convolution) return;
  if (convolution->primitive) dnnl_primitive_destroy(convolution->primitive);
  if (convolution->description) dnnl_primitive_desc_destroy(convolution->description);
  free(convolution->weight);
  free(convolution->bias);
  free(convolution->scale);
  free(convolution);
}

size_t bnd_onednn_convolution_weight_bytes(const bnd_onednn_convolution *convolution) {
  return convolution->weight_bytes + convolution->bias_bytes + convolution->scale_count * sizeof(float);
}
size_t bnd_onednn_convolution_scratch_bytes(const bnd_onednn_convolution *convolution) {
  return convolution->scratch_bytes;
}
const char *bnd_onednn_convolution_kernel(const bnd_onednn_convolution *convolution) {
  return convolution->kernel;
}

/* --- running --- */

static dnnl_status_t create_scale(const bnd_onednn_convolution *convolution, dnnl_memory_t *memory) {
  bnd_dnnl_desc desc = {0};
  dnnl_status_t status = bnd_dnnl_desc_init(&desc, 1, (const dnnl_dims_t){(dnnl_dim_t)convolution->scale_count}, dnnl_f32, dnnl_a);
  if (status == dnnl_success) status = dnnl_memory_create(memory, bnd_dnnl_desc_get(&desc), convolution->engine, convolution->scale);
  bnd_dnnl_desc_release(&desc);
  return status;
}

bnd_status bnd_onednn_call_create(const bnd_onednn_convolution *convolution, bnd_onednn_call **call, bnd_error *error) {
  bnd_onednn_call *made = *call = bnd_calloc(1, sizeof *made);
  if (!made) return bnd_fail_memory(error, "a convolution call");
  made->convolution = convolution;
  const bnd_dnnl_desc_view descs[MEMORY_COUNT] = {
      [SOURCE] = query(convolution, dnnl_query_src_md),
      [WEIGHT] = query(convolution, dnnl_query_weights_md),
      [BIAS] = convolution->bias ? dnnl_primitive_desc_query_md(convolution->description, dnnl_query_weights_md, 1) : NULL,
      [DESTINATION] = query(convolution, dnnl_query_dst_md),
      [SCRATCH] = convolution->scratch_bytes ? query(convolution, dnnl_query_scratchpad_md) : NULL,
  };
  void *const data[MEMORY_COUNT] = {[WEIGHT] = convolution->weight, [BIAS] = convolution->bias};
  dnnl_status_t status = dnnl_stream_create(&made->stream, convolution->engine, dnnl_stream_default_flags);
  for (int i = 0; i < MEMORY_COUNT && status == dnnl_success; i++)
    if (descs[i]) status = dnnl_memory_create(&made->memory[i], descs[i], convolution->engine, data[i]);
  if (status == dnnl_success && convolution->scale) status = create_scale(convolution, &made->memory[SCALE]);
  if (status == dnnl_success) return BND_OK;
  bnd_onednn_call_destroy(made);
  *call = NULL;
  return bnd_onednn_fail(error, status, "preparing a convolution");
}

void bnd_onednn_call_destroy(bnd_onednn_call *call) {
  if (!call) return;
  for (int i = 0; i < MEMORY_COUNT; i++)
    if (call->memory[i]) dnnl_memory_destroy(call->memory[i]);
  if (call->stream) dnnl_stream_destroy(call->stream);
  free(call);
}

bnd_status bnd_onednn_call_run(bnd_onednn_call *call, const void *x, void *y, void *scratch, bnd_error *error) {
  dnnl_status_t status = dnnl_memory_set_data_handle(call->memory[SOURCE], (void *)(uintptr_t)x);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(call->memory[DESTINATION], y);
  if (status == dnnl_success && call->memory[SCRATCH]) status = dnnl_memory_set_data_handle(call->memory[SCRATCH], scratch);
  if (status != dnnl_success) return bnd_onednn_fail(error, status, "running a convolution");
  static const int roles[MEMORY_COUNT] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD,
                                          BND_DNNL_SCALE_ARGUMENT};
  dnnl_exec_arg_t arguments[MEMORY_COUNT];
  int count = 0;
  for (int i = 0; i < MEMORY_COUNT; i++)
    if (call->memory[i]) arguments[count++] = (dnnl_exec_arg_t){roles[i], call->memory[i]};
  status = dnnl_primitive_execute(call->convolution->primitive, call->stream, count, arguments);
  if (status == dnnl_success) status = dnnl_stream_wait(call->stream);
  return status == dnnl_success ? BND_OK : bnd_onednn_fail(error, status, "running a convolution");
}
