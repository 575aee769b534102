/* Python's pickle machine (protocols 0 to 5, binary opcodes and the text ones that protocol 1 keeps), restricted to building values. */
#ifndef BND_FORMATS_CHECKPOINT_PICKLE_H
#define BND_FORMATS_CHECKPOINT_PICKLE_H

#include "formats/checkpoint/objects.h"

/* Bytes that are read once, in order. */
typedef struct bnd_byte_stream {
  const char *name; /* for messages: "FILE: archive/data.pkl" */
  int64_t (*read)(struct bnd_byte_stream *stream, void *buffer, size_t size); /* bytes read, 0 at the end, -1 on error */
  void *source;      /* for `read` */
  uint64_t offset;   /* for `read` */
  uint64_t position; /* of the next byte the machine takes */
  uint64_t size;     /* bytes there can be at most */
  size_t begin, end; /* the unread part of the buffer */
  unsigned char buffer[16384];
} bnd_byte_stream;

bnd_status bnd_byte_stream_take(bnd_byte_stream *stream, void *to, size_t size, bnd_error *error);

/* Runs one pickle and leaves the stream behind its STOP. *value may contain cycles: bnd_value_seal. */
bnd_status bnd_pickle_read(bnd_byte_stream *stream, bnd_object_builder *builder, bnd_value **value, bnd_error *error);

#endif
