/* int8 convolutions on oneDNN, exact: sums of products of bytes in 32-bit integers, then one multiplication by a power of two, one rounding (half to
   even) and one clamp. Formulas and the proof that nothing else is rounded: docs/numerics.md. Calls and packed weights are those of onednn.h. */
#ifndef BND_KERNELS_ONEDNN_INT8_H
#define BND_KERNELS_ONEDNN_INT8_H

#include "kernels/onednn/onednn.h"

/* What this processor's instructions sum exactly. Without VNNI products are added in pairs in 16 bits first: two products of a byte in 0..127 and one
   in -128..127 fit (at most 32512), two of a byte in 0..255 do not; signed bytes are shifted to 0..255. */
typedef enum bnd_int8_level {
  BND_INT8_NONE,     /* nothing is known to be exact */
  BND_INT8_UNSIGNED, /* inputs without negative bytes */
  BND_INT8_SIGNED    /* all inputs */
} bnd_int8_level;
/* Finds out by running convolutions of extreme values: a new processor or library cannot make a list of names wrong. */
bnd_status bnd_onednn_find_int8_level(bnd_onednn *engine, bnd_int8_level *level, bnd_error *error);

typedef struct bnd_int8_operands {
  bool non_negative;    /* no byte of the input is negative */
  const int8_t *weight; /* [out][in][window] */
  const float *scale;   /* [scale_count], powers of two: a unit of the sum in units of the output */
  size_t scale_count;   /* 1 or out */
  const float *bias;    /* [out] in units of the output, a whole number of units of the sum or of a power of two below; NULL = none */
  float low, high;      /* of the result; low 0 is a relu */
} bnd_int8_operands;

/* y = clamp(rne(scale * sum + bias), low, high). x and y are bytes [images, height, width, channels] (shape->plain_input means nothing). Exact while
   scale * sum + bias needs no more than 24 bits, which the caller has made sure of. *convolution stays NULL (and the status is fine) where oneDNN has
   nothing generated for this shape. */
bnd_status bnd_onednn_int8_create(bnd_onednn *engine, const bnd_convolution_shape *shape, const bnd_int8_operands *operands, int threads,
                                  bnd_onednn_convolution **convolution, bnd_error *error);

#endif
