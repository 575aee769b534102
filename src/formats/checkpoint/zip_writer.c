#include "formats/checkpoint/zip_writer.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

enum { ALIGNMENT = 64, LOCAL_HEADER = 30, SLICES = 8 };
static const uint64_t LIMIT = 0xffffffff; /* from here on, a 32-bit field holds this and the zip64 field the number */

typedef struct record {
  char *name;
  uint64_t offset, size;
  uint32_t checksum;
} record;

struct bnd_zip_writer {
  bnd_file_writer *file;
  uint64_t position;
  record *records;
  size_t count, capacity;
  bool failed; /* memory is short, or a name too long for the format */
  uint32_t table[SLICES][256];
};

/* --- CRC-32 (polynomial 0xedb88320), eight bytes a step --- */

static void fill_table(uint32_t table[SLICES][256]) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
    table[0][i] = value;
  }
  for (int slice = 1; slice < SLICES; slice++)
    for (int i = 0; i < 256; i++) table[slice][i] = table[slice - 1][i] >> 8 ^ table[0][table[slice - 1][i] & 255];
}

static uint32_t checksum_of(uint32_t table[SLICES][256], const unsigned char *data, size_t size) {
  uint32_t sum = 0xffffffff;
  for (; size >= SLICES; size -= SLICES, data += SLICES) {
    uint32_t next = 0;
    for (int i = 0; i < SLICES; i++) next ^= table[SLICES - 1 - i][data[i] ^ (i < 4 ? sum >> (8 * i) & 255 : 0)];
    sum = next;
  }
  for (; size; size--, data++) sum = sum >> 8 ^ table[0][(sum ^ *data) & 255];
  return ~sum;
}

/* --- headers: little-endian fields, gathered in a buffer --- */

typedef struct fields {
  unsigned char bytes[128];
  size_t length;
} fields;

static void put(fields *f, int bytes, uint64_t value) {
  for (int i = 0; i < bytes; i++) f->bytes[f->length++] = (unsigned char)(value >> (8 * i));
}

static uint64_t clipped(uint64_t value) { return value < LIMIT ? value : LIMIT; }

static void append(bnd_zip_writer *writer, const void *data, size_t size) {
  bnd_file_writer_append(writer->file, data, size);
  writer->position += size;
}

static void append_fields(bnd_zip_writer *writer, const fields *f) { append(writer, f->bytes, f->length); }

/* What local header and directory have in common: from the version to the sizes. No compression, 1980-01-01 00:00. */
static void put_facts(fields *f, const record *r, bool zip64) {
  enum { VERSION_STORED = 20, VERSION_ZIP64 = 45, FIRST_DAY = 1 << 5 | 1 };
  put(f, 2, zip64 ? VERSION_ZIP64 : VERSION_STORED);
  put(f, 2, 0); /* flags */
  put(f, 2, 0); /* stored */
  put(f, 2, 0); /* time */
  put(f, 2, FIRST_DAY);
  put(f, 4, r->checksum);
  put(f, 4, clipped(r->size));
  put(f, 4, clipped(r->size));
  put(f, 2, strlen(r->name));
}

/* The extra field "FB", as PyTorch calls it, pads the header so that the data behind it are aligned. */
static void write_local_header(bnd_zip_writer *writer, const record *r) {
  enum { ZIP64_FIELD = 20, PADDING_HEADER = 4 };
  const bool zip64 = r->size >= LIMIT;
  const size_t length = strlen(r->name), before = (zip64 ? ZIP64_FIELD : 0) + PADDING_HEADER;
  const size_t padding = (size_t)(-(writer->position + LOCAL_HEADER + length + before) % ALIGNMENT);
  fields f = {.length = 0};
  put(&f, 4, 0x04034b50);
  put_facts(&f, r, zip64);
  put(&f, 2, before + padding);
  append_fields(writer, &f);
  append(writer, r->name, length);
  f.length = 0;
  if (zip64) put(&f, 2, 1), put(&f, 2, 16), put(&f, 8, r->size), put(&f, 8, r->size);
  put(&f, 2, 'F' | 'B' << 8);
  put(&f, 2, padding);
  for (size_t i = 0; i < padding; i++) put(&f, 1, 'Z');
  append_fields(writer, &f);
}

static void write_directory_entry(bnd_zip_writer *writer, const record *r) {
  const bool large = r->size >= LIMIT, far = r->offset >= LIMIT;
  const int extra = 16 * large + 8 * far;
  fields f = {.length = 0};
  put(&f, 4, 0x02014b50);
  put(&f, 2, large || far ? 45 : 20); /* made by */
  put_facts(&f, r, large || far);
  put(&f, 2, extra ? 4 + extra : 0);
  put(&f, 2, 0); /* comment */
  put(&f, 2, 0); /* disk */
  put(&f, 2, 0); /* attributes */
  put(&f, 4, 0);
  put(&f, 4, clipped(r->offset));
  append_fields(writer, &f);
  append(writer, r->name, strlen(r->name));
  f.length = 0;
  if (extra) put(&f, 2, 1), put(&f, 2, extra);
  if (large) put(&f, 8, r->size), put(&f, 8, r->size);
  if (far) put(&f, 8, r->offset);
  append_fields(writer, &f);
}

static void write_directory(bnd_zip_writer *writer) {
  const uint64_t begin = writer->position;
  for (size_t i = 0; i < writer->count; i++) write_directory_entry(writer, &writer->records[i]);
  const uint64_t end = writer->position, size = end - begin;
  const bool many = writer->count >= 0xffff;
  fields f = {.length = 0};
  if (many || begin >= LIMIT || size >= LIMIT) {
    put(&f, 4, 0x06064b50);
    put(&f, 8, 44); /* bytes that follow */
    put(&f, 2, 45), put(&f, 2, 45);
    put(&f, 4, 0), put(&f, 4, 0); /* disks */
    put(&f, 8, writer->count), put(&f, 8, writer->count);
    put(&f, 8, size);
    put(&f, 8, begin);
    put(&f, 4, 0x07064b50); /* its locator */
    put(&f, 4, 0);
    put(&f, 8, end);
    put(&f, 4, 1);
  }
  put(&f, 4, 0x06054b50);
  put(&f, 2, 0), put(&f, 2, 0); /* disks */
  for (int i = 0; i < 2; i++) put(&f, 2, many ? 0xffff : writer->count);
  put(&f, 4, clipped(size));
  put(&f, 4, clipped(begin));
  put(&f, 2, 0); /* comment */
  append_fields(writer, &f);
}

/* --- life --- */

bnd_status bnd_zip_writer_open(const char *path, bnd_zip_writer **writer, bnd_error *error) {
  bnd_zip_writer *fresh = bnd_calloc(1, sizeof *fresh);
  if (!fresh) return bnd_fail_memory(error, path);
  const bnd_status status = bnd_file_writer_open(path, &fresh->file, error);
  if (status != BND_OK) {
    free(fresh);
    return status;
  }
  fill_table(fresh->table);
  *writer = fresh;
  return BND_OK;
}

void bnd_zip_writer_add(bnd_zip_writer *writer, const char *name, const void *data, size_t size) {
  if (writer->failed) return;
  record r = {.name = strlen(name) <= 0xffff ? strdup(name) : NULL, .offset = writer->position, .size = size};
  if (!r.name || !BND_GROW(writer->records, writer->capacity, writer->count + 1)) {
    writer->failed = true;
    free(r.name);
    return;
  }
  r.checksum = checksum_of(writer->table, data, size);
  write_local_header(writer, &r);
  append(writer, data, size);
  writer->records[writer->count++] = r;
}

static void free_all_but_file(bnd_zip_writer *writer) {
  for (size_t i = 0; i < writer->count; i++) free(writer->records[i].name);
  free(writer->records);
  free(writer);
}

bnd_status bnd_zip_writer_commit(bnd_zip_writer *writer, bnd_error *error) {
  if (writer->failed) {
    bnd_zip_writer_abandon(writer);
    return bnd_fail_memory(error, "the directory of a zip archive");
  }
  write_directory(writer);
  const bnd_status status = bnd_file_writer_commit(writer->file, error);
  free_all_but_file(writer);
  return status;
}

void bnd_zip_writer_abandon(bnd_zip_writer *writer) {
  if (!writer) return;
  bnd_file_writer_abandon(writer->file);
  free_all_but_file(writer);
}
