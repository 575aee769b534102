/* The processor's engine and what inference and training share. */
#include "kernels/onednn/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

bnd_status bnd_onednn_fail(bnd_error *error, dnnl_status_t status, const char *what) {
  if (status == dnnl_out_of_memory) return bnd_fail_memory(error, what);
  return bnd_fail(error, BND_ERROR_INTERNAL, "oneDNN %s: %s failed (status %d)", bnd_onednn_version(), what, (int)status);
}

const char *bnd_onednn_version(void) {
#define TEXT(x) #x
#define VALUE(x) TEXT(x)
  return VALUE(DNNL_VERSION_MAJOR) "." VALUE(DNNL_VERSION_MINOR) "." VALUE(DNNL_VERSION_PATCH);
#undef VALUE
#undef TEXT
}

const char *bnd_onednn_instruction_set(void) {
#if defined(__x86_64__) || defined(__i386__)
  static const struct {
    dnnl_cpu_isa_t set;
    const char *name;
  } names[] = {
      {dnnl_cpu_isa_sse41, "SSE4.1"},
      {dnnl_cpu_isa_avx, "AVX"},
      {dnnl_cpu_isa_avx2, "AVX2"},
      {dnnl_cpu_isa_avx2_vnni, "AVX2 with VNNI"},
      {dnnl_cpu_isa_avx512_core, "AVX-512"},
      {dnnl_cpu_isa_avx512_core_vnni, "AVX-512 with VNNI"},
      {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 with VNNI and bfloat16"},
      {dnnl_cpu_isa_avx512_core_amx, "AVX-512 with VNNI and AMX"},
#if DNNL_VERSION_MAJOR >= 3
      {dnnl_cpu_isa_avx512_core_fp16, "AVX-512 with VNNI and float16"},
#endif
  };
  const dnnl_cpu_isa_t set = dnnl_get_effective_cpu_isa();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].set == set) return names[i].name;
  return "beyond AVX2";
#else
  return "of this processor";
#endif
}

static size_t round_up(size_t channels, size_t block) {
  return (channels + block - 1) / block * block;
}

const char *bnd_onednn_kernel_name(const_dnnl_primitive_desc_t description) {
  const char *name = "";
  return dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name) == dnnl_success ? name : "";
}

/* Reference loops are slow and matrix products may cut their sums by the number of threads. */
bool bnd_onednn_is_direct(const char *name) {
  return *name && !strstr(name, "ref") && !strstr(name, "gemm") && !strstr(name, "wino");
}

bnd_convolution_shape bnd_onednn_padded(const bnd_onednn *engine, const bnd_convolution_shape *shape) {
  bnd_convolution_shape result = *shape;
  if (!shape->plain_input) result.in_channels = round_up(shape->in_channels, engine->block);
  result.out_channels = round_up(shape->out_channels, engine->block);
  return result;
}

dnnl_status_t bnd_onednn_describe(const bnd_onednn *engine, const bnd_convolution_shape *padded, bnd_dnnl_kind kind, bool bias,
                                  const_dnnl_primitive_desc_t forward, const_dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *description) {
  const bnd_convolution_shape *s = padded;
  const dnnl_format_tag_t blocked = engine->block == 16 ? dnnl_nChw16c : dnnl_nChw8c;
  const dnnl_dims_t x_dims = {(dnnl_dim_t)s->images, (dnnl_dim_t)s->in_channels, (dnnl_dim_t)s->in_height, (dnnl_dim_t)s->in_width};
  const dnnl_dims_t y_dims = {(dnnl_dim_t)s->images, (dnnl_dim_t)s->out_channels, (dnnl_dim_t)s->out_height, (dnnl_dim_t)s->out_width};
  const dnnl_dims_t w_dims = {(dnnl_dim_t)s->out_channels, (dnnl_dim_t)s->in_channels, s->window[0], s->window[1]},
                    b_dims = {(dnnl_dim_t)s->out_channels};
  bnd_dnnl_desc x = {0}, y = {0}, w = {0}, b = {0};
  dnnl_status_t status = bnd_dnnl_desc_init(&x, 4, x_dims, dnnl_f32, s->plain_input ? dnnl_nchw : blocked);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&y, 4, y_dims, dnnl_f32, blocked);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&w, 4, w_dims, dnnl_f32, dnnl_format_tag_any);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&b, 1, b_dims, dnnl_f32, dnnl_a);
  if (status == dnnl_success) {
    bnd_dnnl_convolution c = {.kind = kind,
                              .x = bnd_dnnl_desc_get(&x),
                              .weight = bnd_dnnl_desc_get(&w),
                              .bias = bias ? bnd_dnnl_desc_get(&b) : NULL,
                              .y = bnd_dnnl_desc_get(&y)};
    for (int i = 0; i < 2; i++) {
      c.stride[i] = s->stride[i];
      c.dilation[i] = s->dilation[i] - 1;
      c.padding[i] = s->padding[i];
    }
    status = bnd_dnnl_convolution_describe(description, engine->engine, &c, forward, attributes);
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
    const bnd_onednn candidate = {engine, candidates[i]};
    dnnl_primitive_desc_t description;
    if (bnd_onednn_describe(&candidate, &shape, BND_DNNL_INFERENCE, true, NULL, NULL, &description) != dnnl_success) continue;
    const bool good = bnd_onednn_is_direct(bnd_onednn_kernel_name(description));
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
    return bnd_onednn_fail(error, status, "creating the engine");
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

size_t bnd_onednn_bytes(const_dnnl_primitive_desc_t description, dnnl_query_t what) {
  bnd_dnnl_desc_view desc = dnnl_primitive_desc_query_md(description, what, 0);
  return desc ? dnnl_memory_desc_get_size(desc) : 0;
}

/* --- weights --- */

dnnl_status_t bnd_onednn_reorder(dnnl_engine_t engine, bnd_dnnl_desc_view from_desc, void *from, bnd_dnnl_desc_view to_desc, void *to) {
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

static dnnl_status_t describe_plain_weight(const bnd_convolution_shape *padded, bnd_dnnl_desc *desc) {
  const dnnl_dims_t dims = {(dnnl_dim_t)padded->out_channels, (dnnl_dim_t)padded->in_channels, padded->window[0], padded->window[1]};
  return bnd_dnnl_desc_init(desc, 4, dims, dnnl_f32, dnnl_oihw);
}

bnd_status bnd_onednn_pack_weight(const bnd_onednn *engine, const bnd_convolution_shape *shape, const float *weight, float factor,
                                  bnd_dnnl_desc_view packed_desc, float *packed, bnd_error *error) {
  const bnd_convolution_shape padded = bnd_onednn_padded(engine, shape);
  float *owned = NULL;
  const float *plain = prepared_weight(shape, &padded, weight, factor, &owned);
  if (!plain) return bnd_fail_memory(error, "padded weights");
  bnd_dnnl_desc desc = {0};
  dnnl_status_t status = describe_plain_weight(&padded, &desc);
  /* oneDNN takes the source of a reorder without const but does not write to it */
  if (status == dnnl_success) status = bnd_onednn_reorder(engine->engine, bnd_dnnl_desc_get(&desc), (float *)(uintptr_t)plain, packed_desc, packed);
  bnd_dnnl_desc_release(&desc);
  free(owned);
  return status == dnnl_success ? BND_OK : bnd_onednn_fail(error, status, "packing weights");
}

bnd_status bnd_onednn_unpack_weight(const bnd_onednn *engine, const bnd_convolution_shape *shape, bnd_dnnl_desc_view packed_desc, const float *packed,
                                    float *weight, bnd_error *error) {
  const bnd_convolution_shape padded = bnd_onednn_padded(engine, shape);
  const size_t window = (size_t)(shape->window[0] * shape->window[1]), row = shape->in_channels * window, padded_row = padded.in_channels * window;
  const bool same = shape->in_channels == padded.in_channels && shape->out_channels == padded.out_channels;
  float *wide = same ? weight : bnd_calloc(padded.out_channels, padded_row * sizeof(float));
  if (!wide) return bnd_fail_memory(error, "padded weights");
  bnd_dnnl_desc desc = {0};
  dnnl_status_t status = describe_plain_weight(&padded, &desc);
  if (status == dnnl_success) status = bnd_onednn_reorder(engine->engine, packed_desc, (float *)(uintptr_t)packed, bnd_dnnl_desc_get(&desc), wide);
  bnd_dnnl_desc_release(&desc);
  if (!same) {
    for (size_t o = 0; status == dnnl_success && o < shape->out_channels; o++) memcpy(weight + o * row, wide + o * padded_row, row * sizeof(float));
    free(wide);
  }
  return status == dnnl_success ? BND_OK : bnd_onednn_fail(error, status, "unpacking weights");
}
