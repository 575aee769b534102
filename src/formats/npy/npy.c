#include "formats/npy/npy.h"

#include <string.h>

#include "base/file.h"
#include "base/memory.h"

/* "<i4": byte order, kind, bytes; NULL = this type is not written. */
static const char *description(bnd_dtype dtype) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define ORDERED(type) ">" type
#else
#define ORDERED(type) "<" type
#endif
  switch (dtype) {
    case BND_F32: return ORDERED("f4");
    case BND_F64: return ORDERED("f8");
    case BND_I64: return ORDERED("i8");
    case BND_I32: return ORDERED("i4");
    case BND_I16: return ORDERED("i2");
    case BND_I8: return "|i1";
    case BND_U8: return "|u1";
    default: return NULL;
  }
}

/* Magic, version, length of the text, and a Python literal padded with spaces so that the data begins at a multiple of 64 bytes. */
static void write_header(bnd_string *header, const char *type, const bnd_shape *shape) {
  enum { PREFIX = 10, ALIGNMENT = 64 };
  bnd_string_append(header, "\x93NUMPY\x01\x00\x00\x00", PREFIX);
  bnd_string_format(header, "{'descr': '%s', 'fortran_order': False, 'shape': (", type);
  for (int i = 0; i < shape->rank; i++) bnd_string_format(header, i ? " %lld," : "%lld,", (long long)shape->size[i]);
  if (shape->rank > 1 && !header->failed) header->length--; /* (1,) but (1, 3) */
  bnd_string_format(header, "), }");
  while (!header->failed && (header->length + 1) % ALIGNMENT != 0) bnd_string_append(header, " ", 1);
  bnd_string_append(header, "\n", 1);
  if (header->failed) return;
  const size_t length = header->length - PREFIX;
  header->text[8] = (char)(length & 0xff);
  header->text[9] = (char)(length >> 8);
}

bnd_status bnd_npy_write(const char *path, bnd_dtype dtype, const bnd_shape *shape, const void *data, bnd_error *error) {
  const char *type = description(dtype);
  size_t count, bytes;
  if (!type) return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: arrays of %s are not written", path, bnd_dtype_name(dtype));
  if (!bnd_shape_count(shape, &count) || !bnd_size_multiply(count, bnd_dtype_size(dtype), &bytes))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: the array is too large", path);
  bnd_string header = {0};
  bnd_file_writer *writer = NULL;
  write_header(&header, type, shape);
  bnd_status status = header.failed ? bnd_fail_memory(error, path) : bnd_file_writer_open(path, &writer, error);
  if (status == BND_OK) {
    bnd_file_writer_append(writer, header.text, header.length);
    bnd_file_writer_append(writer, data, bytes);
    status = bnd_file_writer_commit(writer, error);
  }
  bnd_string_free(&header);
  return status;
}
