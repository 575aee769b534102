#include "formats/checkpoint/storage.h"

#include <stdlib.h>
#include <string.h>

/* c10/core/ScalarType.h; sizes of the quantized types are those of their representation. */
static const bnd_element_type TYPES[] = {
    {"float32", "FloatStorage", 4, true, BND_F32},
    {"float64", "DoubleStorage", 8, true, BND_F64},
    {"float16", "HalfStorage", 2, true, BND_F16},
    {"bfloat16", "BFloat16Storage", 2, true, BND_BF16},
    {"int64", "LongStorage", 8, true, BND_I64},
    {"int32", "IntStorage", 4, true, BND_I32},
    {"int16", "ShortStorage", 2, true, BND_I16},
    {"int8", "CharStorage", 1, true, BND_I8},
    {"uint8", "ByteStorage", 1, true, BND_U8},
    {"bool", "BoolStorage", 1, true, BND_BOOL},
    {"complex64", "ComplexFloatStorage", 8, false, BND_F32},
    {"complex128", "ComplexDoubleStorage", 16, false, BND_F32},
    {"quint8", "QUInt8Storage", 1, false, BND_F32},
    {"qint8", "QInt8Storage", 1, false, BND_F32},
    {"qint32", "QInt32Storage", 4, false, BND_F32},
    {"quint4x2", "QUInt4x2Storage", 1, false, BND_F32},
    {"quint2x4", "QUInt2x4Storage", 1, false, BND_F32},
    {"complex32", NULL, 4, false, BND_F32},
    {"uint16", NULL, 2, false, BND_F32},
    {"uint32", NULL, 4, false, BND_F32},
    {"uint64", NULL, 8, false, BND_F32},
    {"float8_e4m3fn", NULL, 1, false, BND_F32},
    {"float8_e5m2", NULL, 1, false, BND_F32},
    {"float8_e4m3fnuz", NULL, 1, false, BND_F32},
    {"float8_e5m2fnuz", NULL, 1, false, BND_F32},
    {"float8_e8m0fnu", NULL, 1, false, BND_F32},
    {"float4_e2m1fn_x2", NULL, 1, false, BND_F32},
};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

const bnd_element_type *bnd_element_type_by_name(const char *name) {
  for (size_t i = 0; i < TYPE_COUNT; i++)
    if (strcmp(TYPES[i].name, name) == 0) return &TYPES[i];
  return NULL;
}

const bnd_element_type *bnd_element_type_by_storage(const char *name) {
  if (strcmp(name, "UntypedStorage") == 0) return bnd_element_type_by_name("uint8");
  for (size_t i = 0; i < TYPE_COUNT; i++)
    if (TYPES[i].storage && strcmp(TYPES[i].storage, name) == 0) return &TYPES[i];
  return NULL;
}

bnd_storage_entry *bnd_storage_table_add(bnd_storage_table *table, const char *key, const bnd_element_type *type, uint64_t count) {
  size_t at;
  if (bnd_map_get(&table->by_key, key, &at)) {
    bnd_storage_entry *known = &table->entries[at];
    if (known->type == type && known->count == count) return known;
  }
  at = table->count;
  if (!BND_GROW(table->entries, table->capacity, at + 1) || !bnd_map_put(&table->by_key, key, at)) return NULL;
  table->count++;
  table->entries[at] = (bnd_storage_entry){.key = key, .type = type, .count = count};
  return &table->entries[at];
}

void bnd_storage_table_free(bnd_storage_table *table) {
  free(table->entries);
  bnd_map_free(&table->by_key);
  *table = (bnd_storage_table){0};
}
