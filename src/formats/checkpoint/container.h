/* The two containers behind bnd_checkpoint, and how to tell other files from them. */
#ifndef BND_FORMATS_CHECKPOINT_CONTAINER_H
#define BND_FORMATS_CHECKPOINT_CONTAINER_H

#include "formats/checkpoint/checkpoint.h"
#include "formats/checkpoint/objects.h"
#include "formats/checkpoint/pickle.h"

struct bnd_checkpoint {
  char *path;
  int file;
  uint64_t size; /* of the file */
  bnd_object_builder builder;
  bnd_value *root;
  bool big_endian;
  /* zip only */
  struct zip *archive; /* NULL: legacy */
  const char *prefix;  /* "archive/" */
};

typedef enum bnd_container { BND_CONTAINER_ZIP, BND_CONTAINER_LEGACY } bnd_container;

/* Looks at the first bytes; files that are something else get an error that names what they are. */
bnd_status bnd_container_detect(const bnd_checkpoint *checkpoint, bnd_container *container, bnd_error *error);

/* Each sets root and, for every storage the pickle mentions, where it lies or why it cannot be read. */
bnd_status bnd_archive_open(bnd_checkpoint *checkpoint, bnd_error *error);
bnd_status bnd_legacy_open(bnd_checkpoint *checkpoint, bnd_error *error);
/* Reads `size` bytes from byte `first` of a storage that is present; the range was checked. Messages start with the record, not the file. */
bnd_status bnd_archive_read(bnd_checkpoint *checkpoint, bnd_storage_entry *storage, uint64_t first, size_t size, void *to, bnd_error *error);
bnd_status bnd_legacy_read(bnd_checkpoint *checkpoint, const bnd_storage_entry *storage, uint64_t first, size_t size, void *to, bnd_error *error);

/* Bytes read, less than `size` only at the end of the file; -1 on error. */
int64_t bnd_read_at(int file, void *to, size_t size, uint64_t offset);

/* Checks a tensor against the file's directory without reading its elements: dtype, record, size, offset and strides. Adds its bytes to *bytes;
   more than the file can honestly fill is an error. Messages name no file. */
bnd_status bnd_checkpoint_check_tensor(bnd_checkpoint *checkpoint, const bnd_value_tensor *tensor, uint64_t *bytes, bnd_error *error);

#endif
