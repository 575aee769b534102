/* Dense arrays: a data type, a shape, and a reference to storage that several tensors may share. Always contiguous, row-major (NCHW for images). */
#ifndef BND_TENSOR_TENSOR_H
#define BND_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum bnd_dtype {
  BND_F32, BND_F64, BND_F16, BND_BF16, BND_I64, BND_I32, BND_I16, BND_I8, BND_U8, BND_BOOL
} bnd_dtype;

size_t bnd_dtype_size(bnd_dtype dtype);      /* bytes of one element */
const char *bnd_dtype_name(bnd_dtype dtype); /* "float32", as PyTorch names it */

enum { BND_MAX_RANK = 8 };

typedef struct bnd_shape {
  int rank; /* 0 = scalar */
  int64_t size[BND_MAX_RANK];
} bnd_shape;

/* Product of the sizes; false when a size is negative or the product does not fit. Scalars have one element. */
bool bnd_shape_count(const bnd_shape *shape, size_t *count);
bool bnd_shape_equal(const bnd_shape *a, const bnd_shape *b);
/* "1x3x640x640", "scalar"; returns text, which must have room for BND_SHAPE_TEXT bytes. */
enum { BND_SHAPE_TEXT = 192 };
char *bnd_shape_text(const bnd_shape *shape, char *text);

typedef struct bnd_tensor {
  bnd_dtype dtype;
  bnd_shape shape;
  size_t count;                /* elements */
  void *data;                  /* 64-byte aligned when created here */
  struct bnd_storage *storage; /* keeps `data` alive; NULL = data is borrowed */
} bnd_tensor;

/* Zeroed. Sizes are checked before anything is allocated. */
bnd_status bnd_tensor_create(bnd_dtype dtype, const bnd_shape *shape, bnd_tensor *tensor, bnd_error *error);
/* Another reference to the same data, under a shape with the same number of elements (NULL = same shape). */
bnd_tensor bnd_tensor_share(const bnd_tensor *tensor, const bnd_shape *shape);
bnd_status bnd_tensor_copy(const bnd_tensor *from, bnd_tensor *to, bnd_error *error);
/* Drops the reference and zeroes *tensor; a zeroed tensor is fine. Safe from several threads for tensors that share storage. */
void bnd_tensor_release(bnd_tensor *tensor);
/* A new float32 tensor with the values of a tensor of any dtype. */
bnd_status bnd_tensor_to_f32(const bnd_tensor *from, bnd_tensor *to, bnd_error *error);
/* The same, but another reference where it is float32 already. */
bnd_status bnd_tensor_as_f32(const bnd_tensor *from, bnd_tensor *to, bnd_error *error);

static inline float *bnd_f32(const bnd_tensor *tensor) { return (float *)tensor->data; }
/* BND_SHAPE(1, 3, 640, 640): a shape as a value; its address may be taken. */
#define BND_SHAPE(...) ((bnd_shape){.rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .size = {__VA_ARGS__}})

#endif
