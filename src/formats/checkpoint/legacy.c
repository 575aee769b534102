/* The container of torch < 1.6: pickles of the magic number, a version, system facts, the object and the list of storage keys; then for every
   key the number of elements as int64 and the elements, little-endian. */
#include "formats/checkpoint/container.h"

#include <string.h>

static int64_t read_file(bnd_byte_stream *stream, void *buffer, size_t size) {
  const bnd_checkpoint *checkpoint = stream->source;
  const int64_t got = bnd_read_at(checkpoint->file, buffer, size, stream->offset);
  if (got > 0) stream->offset += (uint64_t)got;
  return got;
}

static bnd_status cut_off(const bnd_checkpoint *checkpoint, uint64_t position, const char *key, bnd_error *error) {
  return bnd_fail(error, BND_ERROR_FORMAT, "%s: byte %llu: ends in the middle of storage '%s'; the file is cut off, get it again", checkpoint->path,
                  (unsigned long long)position, key);
}

/* Finds one storage at *position and moves on to the next. */
static bnd_status locate_storage(bnd_checkpoint *checkpoint, const bnd_value *key, uint64_t *position, bnd_error *error) {
  const bnd_storage_table *storages = &checkpoint->builder.storages;
  const char *text = bnd_value_text(key);
  size_t index;
  if (!text || !bnd_map_get(&storages->by_key, text, &index))
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: byte %llu: the list of storages names one that no tensor uses; the file is damaged",
                    checkpoint->path, (unsigned long long)*position);
  bnd_storage_entry *storage = &storages->entries[index];
  unsigned char bytes[8];
  uint64_t count = 0, size;
  if (bnd_read_at(checkpoint->file, bytes, sizeof bytes, *position) != sizeof bytes) return cut_off(checkpoint, *position, storage->key, error);
  for (int i = 0; i < 8; i++) count |= (uint64_t)bytes[i] << (8 * i);
  if (storage->present)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: byte %llu: storage '%s' occurs twice; the file is damaged", checkpoint->path,
                    (unsigned long long)*position, storage->key);
  if (count != storage->count)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: byte %llu: storage '%s' holds %llu elements, but its tensors say %llu; the file is damaged",
                    checkpoint->path, (unsigned long long)*position, storage->key, (unsigned long long)count, (unsigned long long)storage->count);
  *position += sizeof bytes;
  if (__builtin_mul_overflow(count, storage->type->size, &size) || size > checkpoint->size - *position)
    return cut_off(checkpoint, checkpoint->size, storage->key, error);
  storage->place = *position;
  storage->present = true;
  *position += size;
  return BND_OK;
}

bnd_status bnd_legacy_open(bnd_checkpoint *checkpoint, bnd_error *error) {
  bnd_object_builder *builder = &checkpoint->builder;
  bnd_byte_stream *stream = bnd_arena_alloc(builder->pool.arena, 1, sizeof *stream);
  if (!stream) return bnd_fail_memory(error, checkpoint->path);
  stream->name = checkpoint->path;
  stream->read = read_file;
  stream->source = checkpoint;
  stream->size = checkpoint->size;
  bnd_value *magic, *version, *facts, *keys;
  BND_TRY(bnd_pickle_read(stream, builder, &magic, error));
  BND_TRY(bnd_pickle_read(stream, builder, &version, error));
  if (version->kind != BND_VALUE_INT || version->integer != 1001)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: byte %llu: the version of the container is not 1001; save the file again with a current torch",
                    checkpoint->path, (unsigned long long)stream->position);
  BND_TRY(bnd_pickle_read(stream, builder, &facts, error));
  BND_TRY(bnd_pickle_read(stream, builder, &checkpoint->root, error));
  BND_TRY(bnd_pickle_read(stream, builder, &keys, error));
  if (keys->kind != BND_VALUE_LIST)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: byte %llu: there is no list of storages; the file is damaged", checkpoint->path,
                    (unsigned long long)stream->position);
  uint64_t position = stream->position;
  for (size_t i = 0; i < keys->list.count; i++) BND_TRY(locate_storage(checkpoint, keys->list.items[i], &position, error));
  for (size_t i = 0; i < builder->storages.count; i++)
    if (!builder->storages.entries[i].present && builder->storages.entries[i].count)
      builder->storages.entries[i].problem = "is missing from the file, or different tensors disagree on its type and size";
  return BND_OK;
}

bnd_status bnd_legacy_read(bnd_checkpoint *checkpoint, const bnd_storage_entry *storage, uint64_t first, size_t size, void *to, bnd_error *error) {
  const int64_t got = bnd_read_at(checkpoint->file, to, size, storage->place + first);
  if (got == (int64_t)size) return BND_OK;
  return bnd_fail(error, BND_ERROR_IO, "storage '%s': byte %llu: cannot be read to its end", storage->key,
                  (unsigned long long)(storage->place + first));
}
