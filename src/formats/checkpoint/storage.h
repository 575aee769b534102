/* The element types and storages of a checkpoint: what its tensors point into. */
#ifndef BND_FORMATS_CHECKPOINT_STORAGE_H
#define BND_FORMATS_CHECKPOINT_STORAGE_H

#include "formats/checkpoint/value.h"

typedef struct bnd_element_type {
  const char *name;    /* "float32" */
  const char *storage; /* "FloatStorage"; NULL: only ever inside an UntypedStorage */
  size_t size;         /* bytes */
  bool readable;       /* `dtype` says what bnd_tensor calls it */
  bnd_dtype dtype;
} bnd_element_type;

const bnd_element_type *bnd_element_type_by_name(const char *name);    /* NULL if there is none */
const bnd_element_type *bnd_element_type_by_storage(const char *name); /* UntypedStorage counts as uint8 */

typedef struct bnd_storage_entry {
  const char *key; /* as in the pickle: "0", "17" */
  const bnd_element_type *type;
  uint64_t count;    /* elements, as the pickle says */
  uint64_t place;    /* zip: index of the entry; legacy: file offset of the first byte */
  bool present;      /* `place` is set */
  bool verified;     /* its checksum was found to be right */
  const char *problem; /* why it cannot be read, or NULL */
} bnd_storage_entry;

typedef struct bnd_storage_table {
  bnd_storage_entry *entries;
  size_t count, capacity;
  bnd_map by_key; /* the last entry of each key */
} bnd_storage_table;

/* The entry of this key, type and size, added if new. NULL when memory is short. `key` must live as long as the table. */
bnd_storage_entry *bnd_storage_table_add(bnd_storage_table *table, const char *key, const bnd_element_type *type, uint64_t count);
void bnd_storage_table_free(bnd_storage_table *table);

#endif
