/* The differences between oneDNN 2.6 and 3.x: descriptors are structures by value there and objects here, convolutions are described in two steps
   there and in one here, post-operations carry a scale there. */
#ifndef BND_KERNELS_ONEDNN_COMPAT_H
#define BND_KERNELS_ONEDNN_COMPAT_H

#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t bnd_dnnl_desc;            /* owned: bnd_dnnl_desc_release */
typedef const_dnnl_memory_desc_t bnd_dnnl_desc_view; /* borrowed */
#else
typedef dnnl_memory_desc_t bnd_dnnl_desc;
typedef const dnnl_memory_desc_t *bnd_dnnl_desc_view;
#endif

dnnl_status_t bnd_dnnl_desc_init(bnd_dnnl_desc *desc, int rank, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag);
void bnd_dnnl_desc_release(bnd_dnnl_desc *desc);
bnd_dnnl_desc_view bnd_dnnl_desc_get(const bnd_dnnl_desc *desc);

/* int8 convolutions: y = scale * sum + bias, one scale for all output channels or one for each. */
#if DNNL_VERSION_MAJOR >= 3
enum { BND_DNNL_SCALES_AT_RUN_TIME = 1, BND_DNNL_SCALE_ARGUMENT = DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS }; /* given with each call */
#else
enum { BND_DNNL_SCALES_AT_RUN_TIME = 0, BND_DNNL_SCALE_ARGUMENT = 0 };
#endif
dnnl_status_t bnd_dnnl_set_scales(dnnl_primitive_attr_t attributes, size_t count, const float *scales);
/* What the bias has to be divided by: oneDNN 2 adds it before it multiplies by the scale. */
static inline float bnd_dnnl_bias_divisor(float scale) {
  return BND_DNNL_SCALES_AT_RUN_TIME ? 1.f : scale;
}

dnnl_status_t bnd_dnnl_append_eltwise(dnnl_post_ops_t list, dnnl_alg_kind_t kind, float alpha, float beta);

typedef enum bnd_dnnl_kind { BND_DNNL_INFERENCE, BND_DNNL_FORWARD, BND_DNNL_BACKWARD_DATA, BND_DNNL_BACKWARD_WEIGHTS } bnd_dnnl_kind;
typedef struct bnd_dnnl_convolution {
  bnd_dnnl_kind kind;
  bnd_dnnl_desc_view x, weight, bias, y; /* or the gradients in their place, as the kind has it; bias NULL = none */
  dnnl_dims_t stride, dilation, padding; /* dilation counts from 0; the padding is the same on both sides */
} bnd_dnnl_convolution;
/* The preferred direct convolution. `forward` is the BND_DNNL_FORWARD one that a backward one belongs to, else NULL. */
dnnl_status_t bnd_dnnl_convolution_describe(dnnl_primitive_desc_t *description, dnnl_engine_t engine, const bnd_dnnl_convolution *convolution,
                                            const_dnnl_primitive_desc_t forward, const_dnnl_primitive_attr_t attributes);

#endif
