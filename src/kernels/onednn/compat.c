#include "kernels/onednn/compat.h"

#include <stddef.h>

static dnnl_prop_kind_t propagation(bnd_dnnl_kind kind) {
  return kind == BND_DNNL_INFERENCE ? dnnl_forward_inference : dnnl_forward_training;
}

#if DNNL_VERSION_MAJOR >= 3

dnnl_status_t bnd_dnnl_desc_init(bnd_dnnl_desc *desc, int rank, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag) {
  return dnnl_memory_desc_create_with_tag(desc, rank, dims, type, tag);
}

void bnd_dnnl_desc_release(bnd_dnnl_desc *desc) {
  if (*desc) dnnl_memory_desc_destroy(*desc);
  *desc = NULL;
}

bnd_dnnl_desc_view bnd_dnnl_desc_get(const bnd_dnnl_desc *desc) {
  return *desc;
}

dnnl_status_t bnd_dnnl_set_scales(dnnl_primitive_attr_t attributes, size_t count, const float *scales) {
  (void)scales;
  return dnnl_primitive_attr_set_scales_mask(attributes, DNNL_ARG_WEIGHTS, count > 1 ? 1 << 0 : 0);
}

dnnl_status_t bnd_dnnl_append_eltwise(dnnl_post_ops_t list, dnnl_alg_kind_t kind, float alpha, float beta) {
  return dnnl_post_ops_append_eltwise(list, kind, alpha, beta);
}

dnnl_status_t bnd_dnnl_convolution_describe(dnnl_primitive_desc_t *description, dnnl_engine_t engine, const bnd_dnnl_convolution *c,
                                            const_dnnl_primitive_desc_t forward, const_dnnl_primitive_attr_t attributes) {
  const dnnl_alg_kind_t direct = dnnl_convolution_direct;
  switch (c->kind) {
    case BND_DNNL_BACKWARD_DATA:
      return dnnl_convolution_backward_data_primitive_desc_create(description, engine, direct, c->x, c->weight, c->y, c->stride, c->dilation,
                                                                  c->padding, c->padding, forward, attributes);
    case BND_DNNL_BACKWARD_WEIGHTS:
      return dnnl_convolution_backward_weights_primitive_desc_create(description, engine, direct, c->x, c->weight, c->bias, c->y, c->stride,
                                                                     c->dilation, c->padding, c->padding, forward, attributes);
    default:
      return dnnl_convolution_forward_primitive_desc_create(description, engine, propagation(c->kind), direct, c->x, c->weight, c->bias, c->y,
                                                            c->stride, c->dilation, c->padding, c->padding, attributes);
  }
}

#else

dnnl_status_t bnd_dnnl_desc_init(bnd_dnnl_desc *desc, int rank, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag) {
  return dnnl_memory_desc_init_by_tag(desc, rank, dims, type, tag);
}

void bnd_dnnl_desc_release(bnd_dnnl_desc *desc) {
  (void)desc;
}

bnd_dnnl_desc_view bnd_dnnl_desc_get(const bnd_dnnl_desc *desc) {
  return desc;
}

dnnl_status_t bnd_dnnl_set_scales(dnnl_primitive_attr_t attributes, size_t count, const float *scales) {
  return dnnl_primitive_attr_set_output_scales(attributes, (dnnl_dim_t)count, count > 1 ? 1 << 1 : 0, scales);
}

dnnl_status_t bnd_dnnl_append_eltwise(dnnl_post_ops_t list, dnnl_alg_kind_t kind, float alpha, float beta) {
  return dnnl_post_ops_append_eltwise(list, 1.f, kind, alpha, beta);
}

static dnnl_status_t init(dnnl_convolution_desc_t *operation, const bnd_dnnl_convolution *c) {
  const dnnl_alg_kind_t direct = dnnl_convolution_direct;
  switch (c->kind) {
    case BND_DNNL_BACKWARD_DATA:
      return dnnl_dilated_convolution_backward_data_desc_init(operation, direct, c->x, c->weight, c->y, c->stride, c->dilation, c->padding,
                                                              c->padding);
    case BND_DNNL_BACKWARD_WEIGHTS:
      return dnnl_dilated_convolution_backward_weights_desc_init(operation, direct, c->x, c->weight, c->bias, c->y, c->stride, c->dilation,
                                                                 c->padding, c->padding);
    default:
      return dnnl_dilated_convolution_forward_desc_init(operation, propagation(c->kind), direct, c->x, c->weight, c->bias, c->y, c->stride,
                                                        c->dilation, c->padding, c->padding);
  }
}

dnnl_status_t bnd_dnnl_convolution_describe(dnnl_primitive_desc_t *description, dnnl_engine_t engine, const bnd_dnnl_convolution *c,
                                            const_dnnl_primitive_desc_t forward, const_dnnl_primitive_attr_t attributes) {
  dnnl_convolution_desc_t operation;
  const dnnl_status_t status = init(&operation, c);
  return status == dnnl_success ? dnnl_primitive_desc_create(description, &operation, attributes, engine, forward) : status;
}

#endif
