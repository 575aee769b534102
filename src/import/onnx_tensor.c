/* TensorProto -> tensor. Everything the message claims is compared with what it brings. */
#include <string.h>

#include "import/importer.h"

static bool dtype_of(int32_t type, bnd_dtype *dtype) {
  switch (type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
      *dtype = BND_F32;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE:
      *dtype = BND_F64;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16:
      *dtype = BND_F16;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16:
      *dtype = BND_BF16;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
      *dtype = BND_I64;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT32:
      *dtype = BND_I32;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT16:
      *dtype = BND_I16;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT8:
      *dtype = BND_I8;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT8:
      *dtype = BND_U8;
      return true;
    case ONNX__TENSOR_PROTO__DATA_TYPE__BOOL:
      *dtype = BND_BOOL;
      return true;
    default:
      return false;
  }
}

/* Copies what stands in the field for the type; false when it is not as long as the shape says. */
static bool copy_numbers(const Onnx__TensorProto *proto, bnd_tensor *tensor) {
  const size_t count = tensor->count, bytes = count * bnd_dtype_size(tensor->dtype);
  if (proto->has_raw_data) {
    if (proto->raw_data.len != bytes) return false;
    if (bytes) memcpy(tensor->data, proto->raw_data.data, bytes);
    return true;
  }
  switch (tensor->dtype) {
    case BND_F32:
      if (proto->n_float_data != count) return false;
      if (bytes) memcpy(tensor->data, proto->float_data, bytes);
      return true;
    case BND_F64:
      if (proto->n_double_data != count) return false;
      if (bytes) memcpy(tensor->data, proto->double_data, bytes);
      return true;
    case BND_I64:
      if (proto->n_int64_data != count) return false;
      if (bytes) memcpy(tensor->data, proto->int64_data, bytes);
      return true;
    default:
      break;
  }
  if (proto->n_int32_data != count) return false;
  for (size_t i = 0; i < count; i++) { /* smaller types travel in int32; the low bytes are the value (little endian) */
    const uint32_t value = (uint32_t)proto->int32_data[i];
    switch (bnd_dtype_size(tensor->dtype)) {
      case 1:
        ((uint8_t *)tensor->data)[i] = (uint8_t)value;
        break;
      case 2:
        ((uint16_t *)tensor->data)[i] = (uint16_t)value;
        break;
      default:
        ((uint32_t *)tensor->data)[i] = value;
        break;
    }
  }
  return true;
}

bnd_status bnd_import_tensor(const Onnx__TensorProto *proto, bnd_tensor *tensor, bnd_error *error) {
  const char *name = proto->name ? proto->name : "(no name)";
  bnd_shape shape = {.rank = (int)proto->n_dims};
  bnd_dtype dtype;
  size_t count;
  if (proto->n_external_data || (proto->has_data_location && proto->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED,
                    "tensor %s: its data is in another file; save the model with all data inside (onnx.save_model without save_as_external_data)",
                    name);
  if (proto->segment) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "tensor %s: is stored in segments, which nothing writes any more", name);
  if (!proto->has_data_type || !dtype_of(proto->data_type, &dtype))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "tensor %s: element type %d is not known here", name, proto->has_data_type ? proto->data_type : 0);
  if (proto->n_dims > BND_MAX_RANK)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "tensor %s: has %zu dimensions, at most %d are possible", name, proto->n_dims, BND_MAX_RANK);
  for (int i = 0; i < shape.rank; i++) shape.size[i] = proto->dims[i];
  /* The shape is only believed when as many numbers are there, so a lie cannot make a large allocation. */
  const size_t given = proto->has_raw_data ? proto->raw_data.len / bnd_dtype_size(dtype)
                       : dtype == BND_F32  ? proto->n_float_data
                       : dtype == BND_F64  ? proto->n_double_data
                       : dtype == BND_I64  ? proto->n_int64_data
                                           : proto->n_int32_data;
  char text[BND_SHAPE_TEXT];
  if (!bnd_shape_count(&shape, &count) || count != given)
    return bnd_fail(error, BND_ERROR_FORMAT, "tensor %s: claims the shape %s but brings %zu values; the file is damaged", name,
                    bnd_shape_text(&shape, text), given);
  BND_TRY(bnd_tensor_create(dtype, &shape, tensor, error));
  if (copy_numbers(proto, tensor)) return BND_OK;
  bnd_tensor_release(tensor);
  return bnd_fail(error, BND_ERROR_FORMAT, "tensor %s: its data is not as long as its shape says; the file is damaged", name);
}
