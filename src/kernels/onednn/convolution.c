/* Channels are rounded up to whole blocks here, with zero weights and biases for those that are not there: oneDNN then sees no odd shapes, and the
   padding of a result is the tail applied to zero, which is zero. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/onednn/compat.h"
#include "kernels/onednn/onednn.h"

struct bnd_onednn {
  dnnl_engine_t engine;
  size_t block;
};

enum { KERNEL_NAME = 48 };

struct bnd_onednn_convolution {
  dnnl_engine_t engine; /* of the bnd_onednn it was made with */
  dnnl_primitive_desc_t description;
  dnnl_primitive_t primitive;
  float *weight, *bias; /* packed; bias NULL = none */
  size_t weight_bytes, bias_bytes, scratch_bytes;
  char kernel[KERNEL_NAME];
};

enum { SOURCE, WEIGHT, BIAS, DESTINATION, SCRATCH, MEMORY_COUNT };

struct bnd_onednn_call {
  const bnd_onednn_convolution *convolution;
  dnnl_stream_t stream;
  dnnl_memory_t memory[MEMORY_COUNT];
};

static bnd_status fail(bnd_error *error, dnnl_status_t status, const char *what) {
  if (status == dnnl_out_of_memory) return bnd_fail_memory(error, what);
  return bnd_fail(error, BND_ERROR_INTERNAL, "oneDNN %s: %s failed (status %d)", bnd_onednn_version(), what, (int)status);
}

/* --- engine --- */

const char *bnd_onednn_version(void) {
#define TEXT(x) #x
#define VALUE(x) TEXT(x)
  return VALUE(DNNL_VERSION_MAJOR) "." VALUE(DNNL_VERSION_MINOR) "." VALUE(DNNL_VERSION_PATCH);
#undef VALUE
#undef TEXT
}

static size_t round_up(size_t channels, size_t block) {
  return (channels + block - 1) / block * block;
}

static const char *kernel_name(const_dnnl_primitive_desc_t description) {
  const char *name = "";
  return dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name) == dnnl_success ? name : "";
}

/* Reference loops are slow and matrix products may cut their sums by the number of threads. */
static bool is_direct(const char *name) {
  return *name && !strstr(name, "ref") && !strstr(name, "gemm") && !strstr(name, "wino");
}

static bnd_convolution_shape padded(const bnd_convolution_shape *shape, size_t block) {
  bnd_convolution_shape result = *shape;
  if (!shape->plain_input) result.in_channels = round_up(shape->in_channels, block);
  result.out_channels = round_up(shape->out_channels, block);
  return result;
}

static dnnl_status_t describe(dnnl_engine_t engine, size_t block, const bnd_convolution_shape *padded_shape, bool bias,
                              const_dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *description) {
  const bnd_convolution_shape *s = padded_shape;
  const dnnl_format_tag_t blocked = block == 16 ? dnnl_nChw16c : dnnl_nChw8c;
  const dnnl_dims_t x_dims = {(dnnl_dim_t)s->images, (dnnl_dim_t)s->in_channels, (dnnl_dim_t)s->in_height, (dnnl_dim_t)s->in_width};
  const dnnl_dims_t y_dims = {(dnnl_dim_t)s->images, (dnnl_dim_t)s->out_channels, (dnnl_dim_t)s->out_height, (dnnl_dim_t)s->out_width};
  const dnnl_dims_t w_dims = {(dnnl_dim_t)s->out_channels, (dnnl_dim_t)s->in_channels, s->window[0], s->window[1]},
                    b_dims = {(dnnl_dim_t)s->out_channels};
  bnd_dnnl_desc x = {0}, y = {0}, w = {0}, b = {0};
  dnnl_status_t status = bnd_dnnl_desc_init(&x, 4, x_dims, s->plain_input ? dnnl_nchw : blocked);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&y, 4, y_dims, blocked);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&w, 4, w_dims, dnnl_format_tag_any);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&b, 1, b_dims, dnnl_a);
  if (status == dnnl_success) {
    bnd_dnnl_convolution c = {
        .x = bnd_dnnl_desc_get(&x), .weight = bnd_dnnl_desc_get(&w), .bias = bias ? bnd_dnnl_desc_get(&b) : NULL, .y = bnd_dnnl_desc_get(&y)};
    for (int i = 0; i < 2; i++) {
      c.stride[i] = s->stride[i];
      c.dilation[i] = s->dilation[i] - 1;
      c.padding[i] = s->padding[i];
    }
    status = bnd_dnnl_convolution_describe(description, engine, &c, attributes);
  }
  bnd_dnnl_desc_release(&x);
  bnd_dnnl_desc_release(&y);
  bnd_dnnl_desc_release(&w);
  bnd_dnnl_desc_release(&b);
  return status;
}

/* The widest block for which oneDNN has a generated convolution. */
static size_t choose_block(dnnl_engine_t engine) {
  static const size_t candidates[] = {16, 8};
  const bnd_convolution_shape shape = {1, 16, 8, 8, 16, 8, 8, {3, 3}, {1, 1}, {1, 1}, {1, 1}, false};
  for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
    dnnl_primitive_desc_t description;
    if (describe(engine, candidates[i], &shape, true, NULL, &description) != dnnl_success) continue;
    const bool good = is_direct(kernel_name(description));
    dnnl_primitive_desc_destroy(description);
    if (good) return candidates[i];
  }
  return 0;
}

bnd_status bnd_onednn_create(bnd_onednn **engine, bnd_error *error) {
  *engine = bnd_calloc(1, sizeof **engine);
  if (!*engine) return bnd_fail_memory(error, "the convolution engine");
  const dnnl_status_t status = dnnl_engine_create(&(*engine)->engine, dnnl_cpu, 0);
  if (status != dnnl_success) {
    free(*engine);
    *engine = NULL;
    return fail(error, status, "creating the engine");
  }
  (*engine)->block = choose_block((*engine)->engine);
  return BND_OK;
}

void bnd_onednn_destroy(bnd_onednn *engine) {
  if (!engine) return;
  dnnl_engine_destroy(engine->engine);
  free(engine);
}

size_t bnd_onednn_block(const bnd_onednn *engine) {
  return engine->block;
}

/* --- a convolution --- */

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

static size_t bytes_of(const bnd_onednn_convolution *convolution, dnnl_query_t what) {
  bnd_dnnl_desc_view desc = query(convolution, what);
  return desc ? dnnl_memory_desc_get_size(desc) : 0;
}

static dnnl_status_t reorder(dnnl_engine_t engine, bnd_dnnl_desc_view from_desc, float *from, bnd_dnnl_desc_view to_desc, float *to) {
  dnnl_primitive_desc_t description = NULL;
  dnnl_primitive_t primitive = NULL;
  dnnl_stream_t stream = NULL;
  dnnl_memory_t source = NULL, target = NULL;
  dnnl_status_t status = dnnl_memory_create(&source, from_desc, engine, from);
  if (status == dnnl_success) status = dnnl_memory_create(&target, to_desc, engine, to);
  if (status == dnnl_success) status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
  if (status == dnnl_success) status = dnnl_reorder_primitive_desc_create(&description, from_desc, engine, to_desc, engine, NULL);
  if (status == dnnl_success) status = dnnl_primitive_create(&primitive, description);
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
  if (status == dnnl_success) status = dnnl_primitive_execute(primitive, stream, 2, arguments);
  if (status == dnnl_success) status = dnnl_stream_wait(stream);
  if (primitive) dnnl_primitive_destroy(primitive);
  if (description) dnnl_primitive_desc_destroy(description);
  if (stream) dnnl_stream_destroy(stream);
  if (source) dnnl_memory_destroy(source);
  if (target) dnnl_memory_destroy(target);
  return status;
}

/* The weights with padded channels, row-major, times `factor`; the caller's own array where nothing changes. */
static const float *prepared_weight(const bnd_convolution_shape *shape, const bnd_convolution_shape *wide, const float *weight, float factor,
                                    float **owned) {
  const size_t window = (size_t)(shape->window[0] * shape->window[1]), row = shape->in_channels * window, wide_row = wide->in_channels * window;
  if (shape->in_channels == wide->in_channels && shape->out_channels == wide->out_channels && factor == 1.f) return weight;
  *owned = bnd_calloc(wide->out_channels, wide_row * sizeof(float));
  if (!*owned) return NULL;
  for (size_t o = 0; o < shape->out_channels; o++)
    for (size_t i = 0; i < row; i++) (*owned)[o * wide_row + i] = weight[o * row + i] * factor;
  return *owned;
}

static bnd_status pack(bnd_onednn_convolution *convolution, const bnd_convolution_shape *shape, const bnd_convolution_shape *wide,
                       const float *weight, const float *bias, float factor, bnd_error *error) {
  convolution->weight_bytes = bytes_of(convolution, dnnl_query_weights_md);
  convolution->bias_bytes = bias ? wide->out_channels * sizeof(float) : 0;
  convolution->weight = bnd_alloc_aligned(convolution->weight_bytes, 1);
  if (!convolution->weight) return bnd_fail_memory(error, "packed weights");
  if (bias) {
    convolution->bias = bnd_alloc_aligned(convolution->bias_bytes, 1);
    if (!convolution->bias) return bnd_fail_memory(error, "packed weights");
    memset(convolution->bias, 0, convolution->bias_bytes);
    for (size_t o = 0; o < shape->out_channels; o++) convolution->bias[o] = bias[o] * factor;
  }
  float *owned = NULL;
  const float *plain = prepared_weight(shape, wide, weight, factor, &owned);
  if (!plain) return bnd_fail_memory(error, "padded weights");
  const dnnl_dims_t dims = {(dnnl_dim_t)wide->out_channels, (dnnl_dim_t)wide->in_channels, wide->window[0], wide->window[1]};
  bnd_dnnl_desc desc = {0};
  dnnl_status_t status = bnd_dnnl_desc_init(&desc, 4, dims, dnnl_oihw);
  /* oneDNN takes the source of a reorder without const but does not write to it */
  if (status == dnnl_success)
    status = reorder(convolution->engine, bnd_dnnl_desc_get(&desc), (float *)(uintptr_t)plain, query(convolution, dnnl_query_weights_md),
                     convolution->weight);
  bnd_dnnl_desc_release(&desc);
  free(owned);
  return status == dnnl_success ? BND_OK : fail(error, status, "packing weights");
}

static bnd_status build(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_convolution_tail *tail, const float *weight,
                        const float *bias, bnd_onednn_convolution *convolution, bool *found, bnd_error *error) {
  const bnd_convolution_shape wide = padded(shape, engine->block);
  dnnl_primitive_attr_t attributes;
  dnnl_status_t status = make_attributes(tail, &attributes);
  if (status != dnnl_success) return fail(error, status, "describing a convolution");
  status = describe(engine->engine, engine->block, &wide, bias != NULL, attributes, &convolution->description);
  dnnl_primitive_attr_destroy(attributes);
  *found = false;
  if (status == dnnl_unimplemented) return BND_OK;
  if (status != dnnl_success) return fail(error, status, "describing a convolution");
  snprintf(convolution->kernel, sizeof convolution->kernel, "%s", kernel_name(convolution->description));
  if (!is_direct(convolution->kernel)) return BND_OK;
  *found = true;
  convolution->engine = engine->engine;
  status = dnnl_primitive_create(&convolution->primitive, convolution->description);
  if (status != dnnl_success) return fail(error, status, "generating a convolution");
  convolution->scratch_bytes = bytes_of(convolution, dnnl_query_scratchpad_md);
  return pack(convolution, shape, &wide, weight, bias, tail->has_grid ? tail->grid.multiplier : 1.f, error);
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

void bnd_onednn_convolution_destroy(bnd_onednn_convolution *convolution) {
  if (!convolution) return;
  if (convolution->primitive) dnnl_primitive_destroy(convolution->primitive);
  if (convolution->description) dnnl_primitive_desc_destroy(convolution->description);
  free(convolution->weight);
  free(convolution->bias);
  free(convolution);
}

size_t bnd_onednn_convolution_weight_bytes(const bnd_onednn_convolution *convolution) {
  return convolution->weight_bytes + convolution->bias_bytes;
}
size_t bnd_onednn_convolution_scratch_bytes(const bnd_onednn_convolution *convolution) {
  return convolution->scratch_bytes;
}
const char *bnd_onednn_convolution_kernel(const bnd_onednn_convolution *convolution) {
  return convolution->kernel;
}

/* --- running --- */

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
  if (status == dnnl_success) return BND_OK;
  bnd_onednn_call_destroy(made);
  *call = NULL;
  return fail(error, status, "preparing a convolution");
}

void bnd_onednn_call_destroy(bnd_onednn_call *call) {
  if (!call) return;
  for (int i = 0; i < MEMORY_COUNT; i++)
    if (call->memory[i]) dnnl_memory_destroy(call->memory[i]);
  if (call->stream) dnnl_stream_destroy(call->stream);
  free(call);
}

bnd_status bnd_onednn_call_run(bnd_onednn_call *call, const float *x, float *y, void *scratch, bnd_error *error) {
  dnnl_status_t status = dnnl_memory_set_data_handle(call->memory[SOURCE], (void *)(uintptr_t)x);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(call->memory[DESTINATION], y);
  if (status == dnnl_success && call->memory[SCRATCH]) status = dnnl_memory_set_data_handle(call->memory[SCRATCH], scratch);
  if (status != dnnl_success) return fail(error, status, "running a convolution");
  static const int roles[MEMORY_COUNT] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
  dnnl_exec_arg_t arguments[MEMORY_COUNT];
  int count = 0;
  for (int i = 0; i < MEMORY_COUNT; i++)
    if (call->memory[i]) arguments[count++] = (dnnl_exec_arg_t){roles[i], call->memory[i]};
  status = dnnl_primitive_execute(call->convolution->primitive, call->stream, count, arguments);
  if (status == dnnl_success) status = dnnl_stream_wait(call->stream);
  return status == dnnl_success ? BND_OK : fail(error, status, "running a convolution");
}
