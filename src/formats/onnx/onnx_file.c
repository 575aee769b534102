#include "formats/onnx/onnx_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* protobuf itself allows 2 GiB; larger models keep their weights in a second file. */
#define FILE_LIMIT ((uint64_t)INT32_MAX)
/* Attributes may hold graphs whose nodes hold attributes: three levels of messages for each level of graphs. */
enum { NESTING_LIMIT = 64 };

/* --- writing --- */

typedef struct stream_buffer {
  ProtobufCBuffer base;
  bnd_file_writer *writer;
} stream_buffer;

static void stream_append(ProtobufCBuffer *buffer, size_t length, const uint8_t *data) {
  bnd_file_writer_append(((stream_buffer *)buffer)->writer, data, length);
}

bnd_status bnd_onnx_write(const Onnx__ModelProto *model, const char *path, bnd_error *error) {
  const size_t size = protobuf_c_message_get_packed_size(&model->base);
  if (size > FILE_LIMIT) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: %zu bytes are more than the 2 GiB an ONNX file can hold", path, size);
  bnd_file_writer *writer;
  BND_TRY(bnd_file_writer_open(path, &writer, error));
  stream_buffer buffer = {.base.append = stream_append, .writer = writer};
  protobuf_c_message_pack_to_buffer(&model->base, &buffer.base);
  return bnd_file_writer_commit(writer, error);
}

/* --- reading --- */

bool bnd_onnx_recognize(const char *path) {
  FILE *file;
  unsigned char head[3];
  if (bnd_file_open(path, &file, NULL, NULL) != BND_OK) return false;
  const bool whole = fread(head, 1, sizeof head, file) == sizeof head;
  fclose(file);
  /* Field 1 (ir_version, a small number), then one of the model's other fields, as every exporter writes it. */
  return whole && head[0] == 0x08 && head[1] >= 1 && head[1] <= 32 && memchr("\x12\x1a\x22\x28\x32\x3a\x42", head[2], 7);
}

/* protobuf-c unpacks nested messages recursively without a limit, so the nesting is measured before it is let loose. */
typedef struct wire_bytes {
  const uint8_t *at, *end;
} wire_bytes;

static bool wire_varint(wire_bytes *wire, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && wire->at < wire->end; shift += 7) {
    const uint8_t byte = *wire->at++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

static bool wire_skip(wire_bytes *wire, uint64_t length) {
  if (length > (uint64_t)(wire->end - wire->at)) return false;
  wire->at += length;
  return true;
}

/* NULL when the bytes are a well-formed message nested less than `depth` levels deep, else what is wrong; *place = where. */
static const char *wire_check(wire_bytes bytes, const ProtobufCMessageDescriptor *descriptor, int depth, const uint8_t **place) {
  while (bytes.at < bytes.end) {
    *place = bytes.at;
    uint64_t tag, length;
    if (!wire_varint(&bytes, &tag)) return "the file ends inside a field";
    switch (tag & 7) {
      case 0:
        if (!wire_varint(&bytes, &length)) return "a number does not end";
        break;
      case 1:
        if (!wire_skip(&bytes, 8)) return "the file ends inside a number";
        break;
      case 5:
        if (!wire_skip(&bytes, 4)) return "the file ends inside a number";
        break;
      case 2: {
        if (!wire_varint(&bytes, &length)) return "the file ends inside a length";
        const wire_bytes inner = {bytes.at, bytes.at + (length <= (uint64_t)(bytes.end - bytes.at) ? length : 0)};
        if (!wire_skip(&bytes, length)) return "a part claims to be longer than what it is in";
        const ProtobufCFieldDescriptor *field =
            tag >> 3 <= UINT32_MAX ? protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3)) : NULL;
        if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE) break;
        if (depth == 0) return "messages are nested too deeply";
        const char *problem = wire_check(inner, field->descriptor, depth - 1, place);
        if (problem) return problem;
        break;
      }
      default:
        return "a field has a type that does not exist";
    }
  }
  return NULL;
}

/* Small fields grow when unpacked (an empty message of two bytes becomes a structure of hundreds), so memory has a bound of its own. */
typedef struct bounded_memory {
  size_t left;
} bounded_memory;

static void *bounded_alloc(void *user, size_t size) {
  bounded_memory *memory = user;
  if (size > memory->left) return NULL;
  memory->left -= size;
  return malloc(size ? size : 1);
}

static void bounded_free(void *user, void *pointer) {
  (void)user;
  free(pointer);
}

bnd_status bnd_onnx_read(const char *path, Onnx__ModelProto **model, bnd_error *error) {
  char *data;
  size_t size;
  BND_TRY(bnd_file_read(path, FILE_LIMIT, &data, &size, error));
  const uint8_t *bytes = (const uint8_t *)data, *place = bytes;
  const char *problem =
      size ? wire_check((wire_bytes){bytes, bytes + size}, &onnx__model_proto__descriptor, NESTING_LIMIT, &place) : "the file is empty";
  bnd_status status = BND_OK;
  if (problem) {
    status = bnd_fail(error, BND_ERROR_FORMAT, "%s: byte %td: %s; this is no ONNX file, or a damaged one", path, place - bytes, problem);
  } else {
    bounded_memory memory = {.left = 4 * size + ((size_t)256 << 20)};
    ProtobufCAllocator allocator = {.alloc = bounded_alloc, .free = bounded_free, .allocator_data = &memory};
    *model = onnx__model_proto__unpack(&allocator, size, bytes);
    if (!*model) status = bnd_fail(error, BND_ERROR_FORMAT, "%s: the content does not follow the ONNX schema, or needs too much memory", path);
  }
  free(data);
  return status;
}

void bnd_onnx_free(Onnx__ModelProto *model) {
  if (model) onnx__model_proto__free_unpacked(model, NULL); /* the default allocator frees with free(), as ours does */
}
