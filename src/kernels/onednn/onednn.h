/* Convolutions on oneDNN. Only this folder includes oneDNN; versions 2.6 and 3.x look the same from here.
   Direct convolutions only (no Winograd, no matrix products of unfolded images): a result is one sum in an order that depends on nothing but the
   shapes. */
#ifndef BND_KERNELS_ONEDNN_ONEDNN_H
#define BND_KERNELS_ONEDNN_ONEDNN_H

#include "kernels/loops/loops.h"

typedef struct bnd_onednn bnd_onednn; /* the engine; may be used by several threads */
bnd_status bnd_onednn_create(bnd_onednn **engine, bnd_error *error);
void bnd_onednn_destroy(bnd_onednn *engine); /* NULL is fine; after everything made with it */
/* Channels side by side in the layout this processor's convolutions work in: 16 or 8; 0 = this library has none for this processor. */
size_t bnd_onednn_block(const bnd_onednn *engine);
const char *bnd_onednn_version(void); /* "2.6.3" */
const char *bnd_onednn_instruction_set(void); /* the most it may use here, as processor and DNNL_MAX_CPU_ISA have it: "AVX2" */

typedef struct bnd_convolution_shape {
  size_t images, in_channels, in_height, in_width, out_channels, out_height, out_width; /* true channels, without padding */
  int64_t window[2], stride[2], padding[2], dilation[2];
  bool plain_input; /* input is row-major (few channels: the first layer), else blocked; the output always is blocked */
} bnd_convolution_shape;

/* What happens to a sum before it is stored: relu, then fake quantization; both optional. */
typedef struct bnd_convolution_tail {
  bool relu, has_grid;
  bnd_grid grid;
} bnd_convolution_tail;

/* A convolution with its packed weights: immutable, shared by sessions. */
typedef struct bnd_onednn_convolution bnd_onednn_convolution;
/* weight: [out][in][window], bias: [out] or NULL; read only here. Made for `threads` threads. *convolution stays NULL (and the status is fine) where
   oneDNN has no direct convolution for this shape. */
bnd_status bnd_onednn_convolution_create(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_convolution_tail *tail,
                                         const float *weight, const float *bias, int threads, bnd_onednn_convolution **convolution, bnd_error *error);
void bnd_onednn_convolution_destroy(bnd_onednn_convolution *convolution); /* NULL is fine */
size_t bnd_onednn_convolution_weight_bytes(const bnd_onednn_convolution *convolution);
size_t bnd_onednn_convolution_scratch_bytes(const bnd_onednn_convolution *convolution);
const char *bnd_onednn_convolution_kernel(const bnd_onednn_convolution *convolution); /* oneDNN's name for it: "jit:avx2" */

/* One worker's handle on a convolution. */
typedef struct bnd_onednn_call bnd_onednn_call;
bnd_status bnd_onednn_call_create(const bnd_onednn_convolution *convolution, bnd_onednn_call **call, bnd_error *error);
void bnd_onednn_call_destroy(bnd_onednn_call *call); /* NULL is fine */
/* x, y: floats, of int8 convolutions bytes. scratch: at least scratch_bytes, 64-byte aligned. */
bnd_status bnd_onednn_call_run(bnd_onednn_call *call, const void *x, void *y, void *scratch, bnd_error *error);

#endif
