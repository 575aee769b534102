#include "tensor/tensor.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct bnd_storage {
  atomic_int references;
  void *data;
};

static const struct {
  const char *name;
  size_t size;
} DTYPES[] = {
    [BND_F32] = {"float32", 4}, [BND_F64] = {"float64", 8}, [BND_F16] = {"float16", 2}, [BND_BF16] = {"bfloat16", 2}, [BND_I64] = {"int64", 8},
    [BND_I32] = {"int32", 4},   [BND_I16] = {"int16", 2},   [BND_I8] = {"int8", 1},     [BND_U8] = {"uint8", 1},      [BND_BOOL] = {"bool", 1},
};

size_t bnd_dtype_size(bnd_dtype dtype) { return DTYPES[dtype].size; }
const char *bnd_dtype_name(bnd_dtype dtype) { return DTYPES[dtype].name; }

bool bnd_shape_count(const bnd_shape *shape, size_t *count) {
  if (shape->rank < 0 || shape->rank > BND_MAX_RANK) return false;
  size_t product = 1;
  for (int i = 0; i < shape->rank; i++)
    if (shape->size[i] < 0 || !bnd_size_multiply(product, (size_t)shape->size[i], &product)) return false;
  *count = product;
  return true;
}

bool bnd_shape_equal(const bnd_shape *a, const bnd_shape *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->size[i] != b->size[i]) return false;
  return true;
}

char *bnd_shape_text(const bnd_shape *shape, char *text) {
  if (shape->rank == 0) return strcpy(text, "scalar");
  size_t at = 0;
  for (int i = 0; i < shape->rank; i++)
    at += (size_t)snprintf(text + at, BND_SHAPE_TEXT - at, "%s%lld", i ? "x" : "", (long long)shape->size[i]);
  return text;
}

bnd_status bnd_tensor_create(bnd_dtype dtype, const bnd_shape *shape, bnd_tensor *tensor, bnd_error *error) {
  char text[BND_SHAPE_TEXT];
  bnd_tensor fresh = {.dtype = dtype, .shape = *shape};
  size_t bytes;
  if (!bnd_shape_count(shape, &fresh.count) || !bnd_size_multiply(fresh.count, bnd_dtype_size(dtype), &bytes))
    return bnd_fail(error, BND_ERROR_MEMORY, "a tensor of shape %s is too large", bnd_shape_text(shape, text));
  fresh.storage = bnd_calloc(1, sizeof *fresh.storage);
  if (fresh.storage) fresh.storage->data = bnd_alloc_aligned(bytes, 1);
  if (!fresh.storage || !fresh.storage->data) {
    free(fresh.storage);
    return bnd_fail(error, BND_ERROR_MEMORY, "not enough memory for a tensor of shape %s", bnd_shape_text(shape, text));
  }
  memset(fresh.storage->data, 0, bytes);
  atomic_init(&fresh.storage->references, 1);
  fresh.data = fresh.storage->data;
  *tensor = fresh;
  return BND_OK;
}

bnd_tensor bnd_tensor_share(const bnd_tensor *tensor, const bnd_shape *shape) {
  bnd_tensor shared = *tensor;
  if (shared.storage) atomic_fetch_add(&shared.storage->references, 1);
  if (shape) shared.shape = *shape;
  return shared;
}

bnd_status bnd_tensor_copy(const bnd_tensor *from, bnd_tensor *to, bnd_error *error) {
  BND_TRY(bnd_tensor_create(from->dtype, &from->shape, to, error));
  memcpy(to->data, from->data, from->count * bnd_dtype_size(from->dtype));
  return BND_OK;
}

void bnd_tensor_release(bnd_tensor *tensor) {
  if (tensor->storage && atomic_fetch_sub(&tensor->storage->references, 1) == 1) {
    free(tensor->storage->data);
    free(tensor->storage);
  }
  *tensor = (bnd_tensor){0};
}

static float half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, fraction = half & 1023;
  uint32_t bits;
  float value;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | fraction << 13;
  } else if (exponent) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else { /* zero or subnormal: fraction * 2^-24 is exact in float */
    value = (float)fraction * 0x1p-24f;
    return sign ? -value : value;
  }
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float bfloat_to_float(uint16_t upper) {
  const uint32_t bits = (uint32_t)upper << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

bnd_status bnd_tensor_to_f32(const bnd_tensor *from, bnd_tensor *to, bnd_error *error) {
  BND_TRY(bnd_tensor_create(BND_F32, &from->shape, to, error));
  float *out = bnd_f32(to);
#define CONVERT(type, expression)                                   \
  for (size_t i = 0; i < from->count; i++) {                        \
    const type x = ((const type *)from->data)[i];                   \
    out[i] = expression;                                            \
  }                                                                 \
  break
  switch (from->dtype) {
    case BND_F32: CONVERT(float, x);
    case BND_F64: CONVERT(double, (float)x);
    case BND_F16: CONVERT(uint16_t, half_to_float(x));
    case BND_BF16: CONVERT(uint16_t, bfloat_to_float(x));
    case BND_I64: CONVERT(int64_t, (float)x);
    case BND_I32: CONVERT(int32_t, (float)x);
    case BND_I16: CONVERT(int16_t, (float)x);
    case BND_I8: CONVERT(int8_t, (float)x);
    case BND_U8: CONVERT(uint8_t, (float)x);
    case BND_BOOL: CONVERT(uint8_t, x ? 1.f : 0.f);
  }
#undef CONVERT
  return BND_OK;
}

bnd_status bnd_tensor_as_f32(const bnd_tensor *from, bnd_tensor *to, bnd_error *error) {
  if (from->dtype != BND_F32) return bnd_tensor_to_f32(from, to, error);
  *to = bnd_tensor_share(from, NULL);
  return BND_OK;
}
