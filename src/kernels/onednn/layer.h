/* A convolution layer in training: forward, gradient of the input, gradient of the weights. One image a call, one thread a call, weights that change
   between calls. Bias, activation and batch statistics are not here.

   Activations (x, y and their gradients) are blocked: [channels / block][height][width][block] with block = bnd_onednn_block and the channels rounded
   up to whole blocks. Where shape->plain_input says so, x is row-major [channels][height][width] instead. Padding lanes of what a function reads must
   be zero; those of what it writes are zero. Arrays are 64-byte aligned and do not overlap; results overwrite what was there.

   A convolution y[o] = sum over i, window of w[o][i][window] * x[i][position * stride - padding + window * dilation] has the gradients
     dx[i][p] = sum over o, window of w[o][i][window] * dy[o][the positions that saw p]
     dw[o][i][window] = sum over positions of dy[o][position] * x[i][what the position saw]
   and a transposed convolution is the first of them taken as the way forward (PyTorch's ConvTranspose2d).

   Every result is the same bits whenever and wherever it is computed: on one processor the order of its sums depends on nothing but the shapes. */
#ifndef BND_KERNELS_ONEDNN_LAYER_H
#define BND_KERNELS_ONEDNN_LAYER_H

#include "kernels/onednn/onednn.h"

typedef struct bnd_onednn_layer bnd_onednn_layer; /* immutable; may be used by several threads */

/* The shape's channels and sizes are those of the layer, transposed or not: x has in_channels, y out_channels. shape->images must be 1, otherwise
   BND_ERROR_ARGUMENT. data_gradient: the gradient of x will be asked for. The engine must outlive the layer. *layer stays NULL (and the status is
   fine) where oneDNN has only reference loops for one of the needed directions. */
bnd_status bnd_onednn_layer_create(bnd_onednn *engine, const bnd_convolution_shape *shape, bool transposed, bool data_gradient,
                                   bnd_onednn_layer **layer, bnd_error *error);
void bnd_onednn_layer_destroy(bnd_onednn_layer *layer); /* NULL is fine; after all its calls */

size_t bnd_onednn_layer_packed_count(const bnd_onednn_layer *layer);   /* floats of the packed weights, for forward and backward_data together */
size_t bnd_onednn_layer_gradient_count(const bnd_onednn_layer *layer); /* floats of one weight gradient as backward_weights writes it */
size_t bnd_onednn_layer_scratch_bytes(const bnd_onednn_layer *layer);  /* the most that one of the three directions needs; may be 0 */

/* weight: row-major [out][in][window], transposed [in][out][window]. packed: packed_count floats, the caller's. */
bnd_status bnd_onednn_layer_pack(const bnd_onednn_layer *layer, const float *weight, float *packed, bnd_error *error);
/* gradient: as written by backward_weights, or sums of such. plain: in the order of pack's weight. */
bnd_status bnd_onednn_layer_unpack_gradient(const bnd_onednn_layer *layer, const float *gradient, float *plain, bnd_error *error);

/* One worker's handle on a layer; several workers may run at once, each with its own handle and scratch. */
typedef struct bnd_onednn_layer_call bnd_onednn_layer_call;
bnd_status bnd_onednn_layer_call_create(const bnd_onednn_layer *layer, bnd_onednn_layer_call **call, bnd_error *error);
void bnd_onednn_layer_call_destroy(bnd_onednn_layer_call *call); /* NULL is fine */

/* scratch: at least scratch_bytes; NULL is fine where that is 0. */
bnd_status bnd_onednn_layer_forward(bnd_onednn_layer_call *call, const float *x, const float *packed, float *y, void *scratch, bnd_error *error);
/* BND_ERROR_ARGUMENT for a layer made without data_gradient. */
bnd_status bnd_onednn_layer_backward_data(bnd_onednn_layer_call *call, const float *dy, const float *packed, float *dx, void *scratch,
                                          bnd_error *error);
/* gradient: gradient_count floats. */
bnd_status bnd_onednn_layer_backward_weights(bnd_onednn_layer_call *call, const float *x, const float *dy, float *gradient, void *scratch,
                                             bnd_error *error);

/* oneDNN's names for what runs: "forward jit:avx2, data jit:avx2, weights jit:avx2"; returns text. */
const char *bnd_onednn_layer_kernels(const bnd_onednn_layer *layer, char text[128]);

#endif
