#include "formats/checkpoint/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "formats/checkpoint/container.h"

/* O_NONBLOCK: opening a pipe must not wait for its writer. */
static bnd_status open_file(bnd_checkpoint *checkpoint, bnd_error *error) {
  struct stat about;
  checkpoint->file = open(checkpoint->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (checkpoint->file < 0 || fstat(checkpoint->file, &about) != 0)
    return bnd_fail(error, BND_ERROR_IO, "%s: cannot be opened: %s", checkpoint->path, strerror(errno));
  if (S_ISDIR(about.st_mode)) return bnd_fail(error, BND_ERROR_IO, "%s: is a folder; give the checkpoint file (.pth) itself", checkpoint->path);
  if (!S_ISREG(about.st_mode)) return bnd_fail(error, BND_ERROR_IO, "%s: is not a regular file; save it to disk first", checkpoint->path);
  checkpoint->size = (uint64_t)about.st_size;
  return BND_OK;
}

static bnd_status open_checkpoint(bnd_checkpoint *checkpoint, bnd_error *error) {
  bnd_container container;
  BND_TRY(open_file(checkpoint, error));
  BND_TRY(bnd_container_detect(checkpoint, &container, error));
  BND_TRY(container == BND_CONTAINER_ZIP ? bnd_archive_open(checkpoint, error) : bnd_legacy_open(checkpoint, error));
  bnd_value_pool *pool = &checkpoint->builder.pool;
  pool->problem = NULL;
  if (!bnd_value_seal(pool, checkpoint->root))
    return pool->problem ? bnd_fail(error, BND_ERROR_FORMAT, "%s: %s", checkpoint->path, pool->problem) : bnd_fail_memory(error, checkpoint->path);
  return BND_OK;
}

bnd_status bnd_checkpoint_open(const char *path, bnd_checkpoint **checkpoint, bnd_error *error) {
  bnd_checkpoint *fresh = bnd_calloc(1, sizeof *fresh);
  if (!fresh) return bnd_fail_memory(error, path);
  fresh->file = -1;
  fresh->builder.pool = (bnd_value_pool){.arena = bnd_arena_create(), .left = BND_VALUE_MAX_COUNT};
  fresh->path = strdup(path);
  const bnd_status status = fresh->path && fresh->builder.pool.arena ? open_checkpoint(fresh, error) : bnd_fail_memory(error, path);
  if (status == BND_OK)
    *checkpoint = fresh;
  else
    bnd_checkpoint_close(fresh);
  return status;
}

void bnd_checkpoint_close(bnd_checkpoint *checkpoint) {
  if (!checkpoint) return;
  if (checkpoint->archive) zip_discard(checkpoint->archive);
  if (checkpoint->file >= 0) close(checkpoint->file);
  bnd_storage_table_free(&checkpoint->builder.storages);
  bnd_arena_destroy(checkpoint->builder.pool.arena);
  free(checkpoint->path);
  free(checkpoint);
}

const bnd_value *bnd_checkpoint_root(const bnd_checkpoint *checkpoint) { return checkpoint->root; }
const char *bnd_checkpoint_container(const bnd_checkpoint *checkpoint) { return checkpoint->archive ? "zip" : "legacy"; }
const char *bnd_value_dtype_name(const bnd_value *tensor) { return tensor->tensor->type->name; }

/* ---- tensors ---- */

/* Where a tensor's elements lie: `span` elements from byte `first` of the storage contain all of them. */
typedef struct extent {
  bnd_storage_entry *storage;
  uint64_t first, span;
  size_t count; /* elements of the tensor */
  bool contiguous;
} extent;

/* Overlapping strides and shared storages let a small file ask for much memory. Honest ones (tied weights, expanded biases) stay below this. */
static uint64_t most_bytes(const bnd_checkpoint *checkpoint) { return 4 * checkpoint->size + (UINT64_C(64) << 20); }

/* Everything that can be checked without reading the elements. Messages name no file. */
static bnd_status find_extent(const bnd_checkpoint *checkpoint, const bnd_value_tensor *tensor, extent *at, bnd_error *error) {
  const bnd_element_type *type = tensor->type;
  bnd_storage_entry *storage = &checkpoint->builder.storages.entries[tensor->storage.index];
  *at = (extent){.storage = storage, .contiguous = true};
  if (!type->readable)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "has the dtype %s, which no detection network uses; convert it to float32 and save again",
                    type->name);
  if (!bnd_shape_count(&tensor->shape, &at->count) || at->count > most_bytes(checkpoint) / type->size)
    return bnd_fail(error, BND_ERROR_FORMAT, "is larger than the whole file can fill; the file is damaged");
  if (at->count == 0) return BND_OK;
  if (!storage->present)
    return bnd_fail(error, BND_ERROR_FORMAT, "storage '%s' %s", storage->key, storage->problem ? storage->problem : "is missing from the file");
  /* Element offsets count in the tensor's type, the storage's part in its own: they differ for untyped storages. */
  uint64_t end, room = tensor->storage.count * storage->type->size, last = 0, dense = 1;
  bool fits = true;
  for (int i = tensor->shape.rank - 1; i >= 0; i--) {
    const uint64_t size = (uint64_t)tensor->shape.size[i], stride = (uint64_t)tensor->stride[i];
    uint64_t reach;
    if (__builtin_mul_overflow(size - 1, stride, &reach) || __builtin_add_overflow(last, reach, &last)) fits = false;
    if (size > 1 && stride != dense) at->contiguous = false;
    dense *= size;
  }
  fits = fits && !__builtin_add_overflow(last, 1, &at->span) && !__builtin_add_overflow(tensor->offset, at->span, &end) &&
         !__builtin_mul_overflow(end, type->size, &end) && end <= room;
  if (!fits) return bnd_fail(error, BND_ERROR_FORMAT, "its offset, size and strides reach beyond storage '%s'; the file is damaged", storage->key);
  at->first = tensor->offset * type->size + tensor->storage.offset * storage->type->size;
  return BND_OK;
}

bnd_status bnd_checkpoint_check_tensor(bnd_checkpoint *checkpoint, const bnd_value_tensor *tensor, uint64_t *bytes, bnd_error *error) {
  extent at;
  BND_TRY(find_extent(checkpoint, tensor, &at, error));
  *bytes += at.count * tensor->type->size; /* find_extent bounds each, the number of values bounds how many */
  if (*bytes > most_bytes(checkpoint))
    return bnd_fail(error, BND_ERROR_FORMAT, "together with those before it is larger than the whole file can fill; the file is damaged");
  return BND_OK;
}

static void swap_bytes(void *data, size_t count, size_t size) {
  if (size == 2)
    for (uint16_t *at = data; count--; at++) *at = __builtin_bswap16(*at);
  else if (size == 4)
    for (uint32_t *at = data; count--; at++) *at = __builtin_bswap32(*at);
  else if (size == 8)
    for (uint64_t *at = data; count--; at++) *at = __builtin_bswap64(*at);
}

static bnd_status read_extent(bnd_checkpoint *checkpoint, const extent *at, size_t element, void *to, bnd_error *error) {
  const size_t bytes = (size_t)at->span * element;
  if (checkpoint->archive)
    BND_TRY(bnd_archive_read(checkpoint, at->storage, at->first, bytes, to, error));
  else
    BND_TRY(bnd_legacy_read(checkpoint, at->storage, at->first, bytes, to, error));
  if (checkpoint->big_endian) swap_bytes(to, (size_t)at->span, element);
  return BND_OK;
}

/* Inlined with a constant element size, which makes the copy a plain load and store. */
static inline char *copy_row(char *out, const char *in, size_t step, int64_t count, size_t element) {
  for (; count--; in += step, out += element) memcpy(out, in, element);
  return out;
}

/* Copies a strided array, last dimension innermost, into a contiguous one. */
static void gather(const bnd_value_tensor *tensor, const char *from, bnd_tensor *to) {
  const size_t element = tensor->type->size;
  const int rank = tensor->shape.rank; /* at least 1: scalars are contiguous */
  const int64_t inner = tensor->shape.size[rank - 1];
  const size_t step = (size_t)tensor->stride[rank - 1] * element;
  int64_t index[BND_MAX_RANK] = {0};
  char *out = to->data;
  for (size_t row = to->count / (size_t)inner; row--;) {
    size_t start = 0;
    for (int i = 0; i < rank - 1; i++) start += (size_t)(index[i] * tensor->stride[i]);
    const char *in = from + start * element;
    switch (element) {
      case 1: out = copy_row(out, in, step, inner, 1); break;
      case 2: out = copy_row(out, in, step, inner, 2); break;
      case 4: out = copy_row(out, in, step, inner, 4); break;
      default: out = copy_row(out, in, step, inner, 8); break;
    }
    for (int i = rank - 2; i >= 0 && ++index[i] == tensor->shape.size[i]; i--) index[i] = 0;
  }
}

/* Messages name no file. */
static bnd_status materialise(bnd_checkpoint *checkpoint, const bnd_value_tensor *source, bnd_tensor *tensor, bnd_error *error) {
  extent at;
  bnd_tensor fresh;
  BND_TRY(find_extent(checkpoint, source, &at, error));
  BND_TRY(bnd_tensor_create(source->type->dtype, &source->shape, &fresh, error));
  bnd_status status = BND_OK;
  if (at.count && at.contiguous) {
    status = read_extent(checkpoint, &at, source->type->size, fresh.data, error);
  } else if (at.count) {
    char *strided = bnd_alloc_aligned((size_t)at.span, source->type->size);
    status = strided ? read_extent(checkpoint, &at, source->type->size, strided, error) : bnd_fail_memory(error, "a tensor with strides");
    if (status == BND_OK) gather(source, strided, &fresh);
    free(strided);
  }
  if (status == BND_OK)
    *tensor = fresh;
  else
    bnd_tensor_release(&fresh);
  return status;
}

bnd_status bnd_checkpoint_tensor(bnd_checkpoint *checkpoint, const bnd_value *value, bnd_tensor *tensor, bnd_error *error) {
  char description[BND_VALUE_DESCRIPTION];
  if (value->kind != BND_VALUE_TENSOR)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: %s is found where a tensor is needed", checkpoint->path, bnd_value_describe(value, description));
  const bnd_status status = materialise(checkpoint, value->tensor, tensor, error);
  return status == BND_OK ? BND_OK : bnd_fail_prefix(error, status, "%s: a tensor", checkpoint->path);
}

bnd_status bnd_checkpoint_entry_tensor(bnd_checkpoint *checkpoint, const bnd_state_dict_entry *entry, bnd_tensor *tensor, bnd_error *error) {
  const bnd_status status = materialise(checkpoint, entry->value->tensor, tensor, error);
  return status == BND_OK ? BND_OK : bnd_fail_prefix(error, status, "%s: tensor '%s'", checkpoint->path, entry->name);
}
