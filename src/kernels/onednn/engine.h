/* What inference (onednn.h) and training (layer.h) share inside this folder. */
#ifndef BND_KERNELS_ONEDNN_ENGINE_H
#define BND_KERNELS_ONEDNN_ENGINE_H

#include "kernels/onednn/compat.h"
#include "kernels/onednn/onednn.h"

struct bnd_onednn {
  dnnl_engine_t engine;
  size_t block; /* 0 = no generated convolutions */
};

enum { BND_ONEDNN_KERNEL_NAME = 48 };

struct bnd_onednn_convolution {
  dnnl_engine_t engine; /* of the bnd_onednn it was made with */
  dnnl_primitive_desc_t description;
  dnnl_primitive_t primitive;
  void *weight;       /* packed */
  float *bias;        /* NULL = none */
  float *scale;       /* of int8 sums, where oneDNN wants it with each call; else NULL */
  size_t scale_count;
  size_t weight_bytes, bias_bytes, scratch_bytes;
  char kernel[BND_ONEDNN_KERNEL_NAME];
};
void bnd_onednn_set_kernel_name(bnd_onednn_convolution *convolution); /* from its description */

bnd_status bnd_onednn_fail(bnd_error *error, dnnl_status_t status, const char *what);

const char *bnd_onednn_kernel_name(const_dnnl_primitive_desc_t description); /* "jit:avx2"; borrowed, "" if unknown */
bool bnd_onednn_is_direct(const char *kernel_name);
dnnl_status_t bnd_onednn_reorder(dnnl_engine_t engine, bnd_dnnl_desc_view from_desc, void *from, bnd_dnnl_desc_view to_desc, void *to);
size_t bnd_onednn_bytes(const_dnnl_primitive_desc_t description, dnnl_query_t what); /* of the memory behind a query; 0 = none */

/* The shape with channels rounded up to whole blocks, but for a row-major input. */
bnd_convolution_shape bnd_onednn_padded(const bnd_onednn *engine, const bnd_convolution_shape *shape);
/* x and y as the padded shape says, the weights in the layout oneDNN likes best. */
dnnl_status_t bnd_onednn_describe(const bnd_onednn *engine, const bnd_convolution_shape *padded, bnd_dnnl_kind kind, bool bias,
                                  const_dnnl_primitive_desc_t forward, const_dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *description);

/* weight: [out][in][window] with the true channels of `shape`; packed: as the descriptor says, padded with zeros. Packing multiplies by factor. */
bnd_status bnd_onednn_pack_weight(const bnd_onednn *engine, const bnd_convolution_shape *shape, const float *weight, float factor,
                                  bnd_dnnl_desc_view packed_desc, float *packed, bnd_error *error);
bnd_status bnd_onednn_unpack_weight(const bnd_onednn *engine, const bnd_convolution_shape *shape, bnd_dnnl_desc_view packed_desc, const float *packed,
                                    float *weight, bnd_error *error);

#endif
