#include "kernels/onednn/int8.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/onednn/engine.h"

/* --- description --- */

typedef struct description {
  dnnl_data_type_t result;
  dnnl_primitive_attr_t attributes;
} description;

/* Saturation of the conversion to a byte clamps to -128 and 127 by itself. */
static dnnl_status_t append_clamp(dnnl_post_ops_t list, const bnd_int8_operands *operands) {
  const bool full_high = operands->high >= 127.f;
  if (full_high && operands->low <= -128.f) return dnnl_success;
  if (full_high && operands->low == 0.f) return bnd_dnnl_append_eltwise(list, dnnl_eltwise_relu, 0.f, 0.f);
  return bnd_dnnl_append_eltwise(list, dnnl_eltwise_clip, operands->low, operands->high);
}

static dnnl_status_t make_attributes(const bnd_int8_operands *operands, dnnl_primitive_attr_t *attributes) {
  dnnl_status_t status = dnnl_primitive_attr_create(attributes);
  if (status != dnnl_success) return status;
  dnnl_post_ops_t list = NULL;
  status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
  if (status == dnnl_success) status = bnd_dnnl_set_scales(*attributes, operands->scale_count, operands->scale);
  if (status == dnnl_success) status = dnnl_post_ops_create(&list);
  if (status == dnnl_success) status = append_clamp(list, operands);
  if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(*attributes, list);
  if (list) dnnl_post_ops_destroy(list);
  if (status != dnnl_success) dnnl_primitive_attr_destroy(*attributes);
  return status;
}

static dnnl_status_t describe(const bnd_onednn *engine, const bnd_convolution_shape *s, const bnd_int8_operands *operands, const description *d,
                              dnnl_primitive_desc_t *result) {
  const dnnl_dims_t x_dims = {(dnnl_dim_t)s->images, (dnnl_dim_t)s->in_channels, (dnnl_dim_t)s->in_height, (dnnl_dim_t)s->in_width};
  const dnnl_dims_t y_dims = {(dnnl_dim_t)s->images, (dnnl_dim_t)s->out_channels, (dnnl_dim_t)s->out_height, (dnnl_dim_t)s->out_width};
  const dnnl_dims_t w_dims = {(dnnl_dim_t)s->out_channels, (dnnl_dim_t)s->in_channels, s->window[0], s->window[1]},
                    b_dims = {(dnnl_dim_t)s->out_channels};
  bnd_dnnl_desc x = {0}, y = {0}, w = {0}, b = {0};
  dnnl_status_t status = bnd_dnnl_desc_init(&x, 4, x_dims, operands->non_negative ? dnnl_u8 : dnnl_s8, dnnl_nhwc);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&y, 4, y_dims, d->result, dnnl_nhwc);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&w, 4, w_dims, dnnl_s8, dnnl_format_tag_any);
  if (status == dnnl_success) status = bnd_dnnl_desc_init(&b, 1, b_dims, dnnl_f32, dnnl_a);
  if (status == dnnl_success) {
    bnd_dnnl_convolution c = {.kind = BND_DNNL_INFERENCE,
                              .x = bnd_dnnl_desc_get(&x),
                              .weight = bnd_dnnl_desc_get(&w),
                              .bias = operands->bias ? bnd_dnnl_desc_get(&b) : NULL,
                              .y = bnd_dnnl_desc_get(&y)};
    for (int i = 0; i < 2; i++) {
      c.stride[i] = s->stride[i];
      c.dilation[i] = s->dilation[i] - 1;
      c.padding[i] = s->padding[i];
    }
    status = bnd_dnnl_convolution_describe(result, engine->engine, &c, NULL, d->attributes);
  }
  bnd_dnnl_desc_release(&x);
  bnd_dnnl_desc_release(&y);
  bnd_dnnl_desc_release(&w);
  bnd_dnnl_desc_release(&b);
  return status;
}

/* --- packing --- */

static bnd_status pack_weight(const bnd_onednn *engine, const bnd_convolution_shape *s, const int8_t *weight, bnd_onednn_convolution *made,
                              bnd_error *error) {
  const dnnl_dims_t dims = {(dnnl_dim_t)s->out_channels, (dnnl_dim_t)s->in_channels, s->window[0], s->window[1]};
  made->weight_bytes = bnd_onednn_bytes(made->description, dnnl_query_weights_md);
  made->weight = bnd_alloc_aligned(made->weight_bytes, 1);
  if (!made->weight) return bnd_fail_memory(error, "packed weights");
  memset(made->weight, 0, made->weight_bytes);
  bnd_dnnl_desc desc = {0};
  dnnl_status_t status = bnd_dnnl_desc_init(&desc, 4, dims, dnnl_s8, dnnl_oihw);
  /* oneDNN takes the source of a reorder without const but does not write to it */
  if (status == dnnl_success)
    status = bnd_onednn_reorder(engine->engine, bnd_dnnl_desc_get(&desc), (void *)(uintptr_t)weight,
                                dnnl_primitive_desc_query_md(made->description, dnnl_query_weights_md, 0), made->weight);
  bnd_dnnl_desc_release(&desc);
  return status == dnnl_success ? BND_OK : bnd_onednn_fail(error, status, "packing weights");
}

static bnd_status pack(const bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_int8_operands *operands, bnd_onednn_convolution *made,
                       bnd_error *error) {
  if (operands->bias) {
    made->bias_bytes = shape->out_channels * sizeof(float);
    made->bias = bnd_alloc_aligned(shape->out_channels, sizeof(float));
    if (!made->bias) return bnd_fail_memory(error, "packed weights");
    for (size_t o = 0; o < shape->out_channels; o++)
      made->bias[o] = operands->bias[o] / bnd_dnnl_bias_divisor(operands->scale[operands->scale_count > 1 ? o : 0]);
  }
  if (BND_DNNL_SCALES_AT_RUN_TIME) {
    made->scale_count = operands->scale_count;
    made->scale = bnd_alloc_aligned(operands->scale_count, sizeof(float));
    if (!made->scale) return bnd_fail_memory(error, "packed weights");
    memcpy(made->scale, operands->scale, operands->scale_count * sizeof(float));
  }
  return pack_weight(engine, shape, operands->weight, made, error);
}

/* Everything but "ref" is generated for this processor; sums of integers do not mind how they are cut. The kernels for AVX2 and SSE4.1 ("uni") of oneDNN
   2.6 gather the pixels of a strided 1x1 convolution in whole vectors and with several threads write over each other's first ones. */
static bool is_usable(const char *kernel, const bnd_convolution_shape *shape) {
  const bool single = shape->window[0] == 1 && shape->window[1] == 1, strided = shape->stride[0] != 1 || shape->stride[1] != 1;
  if (!*kernel || strstr(kernel, "ref") || strstr(kernel, "gemm")) return false;
  return !strstr(kernel, "uni") || !single || !strided;
}

static bnd_status build(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_int8_operands *operands, dnnl_data_type_t result,
                        bnd_onednn_convolution *made, bool *found, bnd_error *error) {
  description d = {.result = result};
  *found = false;
  dnnl_status_t status = make_attributes(operands, &d.attributes);
  if (status != dnnl_success) return bnd_onednn_fail(error, status, "describing an int8 convolution");
  status = describe(engine, shape, operands, &d, &made->description);
  dnnl_primitive_attr_destroy(d.attributes);
  if (status == dnnl_unimplemented) return BND_OK;
  if (status != dnnl_success) return bnd_onednn_fail(error, status, "describing an int8 convolution");
  bnd_onednn_set_kernel_name(made);
  if (!is_usable(made->kernel, shape)) return BND_OK;
  *found = true;
  made->engine = engine->engine;
  status = dnnl_primitive_create(&made->primitive, made->description);
  if (status != dnnl_success) return bnd_onednn_fail(error, status, "generating an int8 convolution");
  made->scratch_bytes = bnd_onednn_bytes(made->description, dnnl_query_scratchpad_md);
  return pack(engine, shape, operands, made, error);
}

static bnd_status create(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_int8_operands *operands, dnnl_data_type_t result,
                         int threads, bnd_onednn_convolution **convolution, bnd_error *error) {
  *convolution = NULL;
  bnd_onednn_convolution *made = bnd_calloc(1, sizeof *made);
  if (!made) return bnd_fail_memory(error, "a convolution");
  /* oneDNN divides the work for as many threads as OpenMP offers when the primitive is made */
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  bool found = false;
  const bnd_status status = build(engine, shape, operands, result, made, &found, error);
  omp_set_num_threads(before);
  if (status == BND_OK && found) *convolution = made;
  else bnd_onednn_convolution_destroy(made);
  return status;
}

bnd_status bnd_onednn_int8_create(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_int8_operands *operands, int threads,
                                  bnd_onednn_convolution **convolution, bnd_error *error) {
  return create(engine, shape, operands, dnnl_s8, threads, convolution, error);
}

/* --- what is exact --- */

enum { PROBE_CHANNELS = 32, PROBE_SIDE = 6, PROBE_WINDOW = 3 };

/* Bytes from both ends of the range and odd ones between, without a pattern that could cancel. */
static int8_t extreme(uint32_t *state, int low, int high) {
  *state = *state * 1664525u + 1013904223u;
  const uint32_t draw = *state >> 24;
  if (draw < 96) return (int8_t)high;
  if (draw < 160) return (int8_t)low;
  return (int8_t)(low + (int)((*state >> 8) % (uint32_t)(high - low + 1)));
}

static int32_t direct_sum(const int8_t *x, const int8_t *weight, int window, int row, int column, int out) {
  int32_t sum = 0;
  for (int c = 0; c < PROBE_CHANNELS; c++)
    for (int i = 0; i < window; i++)
      for (int j = 0; j < window; j++)
        sum += x[((row + i) * PROBE_SIDE + column + j) * PROBE_CHANNELS + c] * weight[((out * PROBE_CHANNELS + c) * window + i) * window + j];
  return sum;
}

static bool agrees(const int8_t *x, const int8_t *weight, int window, const float *sums) {
  const int side = PROBE_SIDE - window + 1;
  for (int row = 0; row < side; row++)
    for (int column = 0; column < side; column++)
      for (int out = 0; out < PROBE_CHANNELS; out++)
        if (sums[(row * side + column) * PROBE_CHANNELS + out] != (float)direct_sum(x, weight, window, row, column, out)) return false;
  return true;
}

/* Whether a convolution of bytes from `low` to 127 gives the sums of the integers, all below 2^24. */
static bnd_status probe(bnd_onednn *engine, int low, int window, bool *exact, bnd_error *error) {
  int8_t x[PROBE_SIDE * PROBE_SIDE * PROBE_CHANNELS], weight[PROBE_CHANNELS * PROBE_CHANNELS * PROBE_WINDOW * PROBE_WINDOW];
  float sums[PROBE_SIDE * PROBE_SIDE * PROBE_CHANNELS];
  uint32_t state = 20260101u;
  for (size_t i = 0; i < sizeof x; i++) x[i] = extreme(&state, low, 127);
  for (size_t i = 0; i < sizeof weight; i++) weight[i] = extreme(&state, -128, 127);
  const size_t side = (size_t)(PROBE_SIDE - window + 1);
  const bnd_convolution_shape shape = {1, PROBE_CHANNELS, PROBE_SIDE, PROBE_SIDE, PROBE_CHANNELS, side, side, {window, window}, {1, 1}, {0, 0}, {1, 1}, false};
  const float one = 1.f;
  const bnd_int8_operands operands = {.non_negative = low >= 0, .weight = weight, .scale = &one, .scale_count = 1, .low = -128.f, .high = 127.f};
  bnd_onednn_convolution *convolution;
  bnd_onednn_call *call = NULL;
  *exact = false;
  BND_TRY(create(engine, &shape, &operands, dnnl_f32, 1, &convolution, error));
  if (!convolution) return BND_OK;
  const size_t scratch_bytes = bnd_onednn_convolution_scratch_bytes(convolution);
  void *scratch = bnd_alloc_aligned(scratch_bytes ? scratch_bytes : 1, 1);
  bnd_status status = scratch ? bnd_onednn_call_create(convolution, &call, error) : bnd_fail_memory(error, "a probe");
  if (status == BND_OK) status = bnd_onednn_call_run(call, x, sums, scratch, error);
  if (status == BND_OK) *exact = agrees(x, weight, window, sums);
  bnd_onednn_call_destroy(call);
  bnd_onednn_convolution_destroy(convolution);
  free(scratch);
  return status;
}

bnd_status bnd_onednn_find_int8_level(bnd_onednn *engine, bnd_int8_level *level, bnd_error *error) {
  *level = BND_INT8_NONE;
  static const struct {
    int low;
    bnd_int8_level level;
  } steps[] = {{0, BND_INT8_UNSIGNED}, {-128, BND_INT8_SIGNED}};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    bool pixels, windows;
    BND_TRY(probe(engine, steps[i].low, 1, &pixels, error));
    BND_TRY(probe(engine, steps[i].low, PROBE_WINDOW, &windows, error));
    if (!pixels || !windows) break;
    *level = steps[i].level;
  }
  return BND_OK;
}
