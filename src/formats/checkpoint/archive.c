#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "formats/checkpoint/container.h"

/* Entries of the archive by name. Names are libzip's, valid while the archive is open. */
typedef bnd_map directory;

static bool climbs(const char *name) { /* ".." as a part of the path, or an absolute path */
  if (*name == '/' || strchr(name, '\\')) return true;
  for (const char *part = name; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL)
    if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0')) return true;
  return false;
}

static bnd_status list_entries(bnd_checkpoint *checkpoint, directory *entries, bnd_error *error) {
  const zip_int64_t count = zip_get_num_entries(checkpoint->archive, 0);
  for (zip_int64_t i = 0; i < count; i++) {
    const char *name = zip_get_name(checkpoint->archive, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
    if (!name) return bnd_fail(error, BND_ERROR_FORMAT, "%s: entry %lld has no name; the archive is damaged", checkpoint->path, (long long)i);
    for (const char *at = name; *at; at++)
      if ((unsigned char)*at < ' ' || *at == 0x7f)
        return bnd_fail(error, BND_ERROR_FORMAT, "%s: the name of entry %lld contains control characters; the archive is damaged", checkpoint->path,
                        (long long)i);
    if (climbs(name))
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: entry '%.200s' points outside of the archive; torch.save never writes that", checkpoint->path,
                      name);
    if (bnd_map_get(entries, name, NULL))
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: entry '%.200s' occurs twice, so it is unclear which counts; save the file again with torch.save",
                      checkpoint->path, name);
    if (!bnd_map_put(entries, name, (size_t)i)) return bnd_fail_memory(error, checkpoint->path);
  }
  return BND_OK;
}

/* The top folder: that of the first entry, as torch looks for it. */
static bnd_status find_prefix(bnd_checkpoint *checkpoint, bnd_error *error) {
  const char *first = zip_get_name(checkpoint->archive, 0, ZIP_FL_ENC_RAW);
  if (!first) return bnd_fail(error, BND_ERROR_FORMAT, "%s: is an empty zip archive", checkpoint->path);
  const char *slash = strchr(first, '/');
  const int length = slash ? (int)(slash - first) + 1 : 0;
  checkpoint->prefix = bnd_arena_format(checkpoint->builder.pool.arena, "%.*s", length, first);
  return checkpoint->prefix ? BND_OK : bnd_fail_memory(error, checkpoint->path);
}

static bool find_record(const bnd_checkpoint *checkpoint, const directory *entries, const char *name, size_t *index) {
  char full[1024];
  const int length = snprintf(full, sizeof full, "%s%s", checkpoint->prefix, name);
  return length > 0 && (size_t)length < sizeof full && bnd_map_get(entries, full, index);
}

/* Why an entry cannot be read, or NULL; and its size, which is then at most that of the file. */
static const char *check_entry(const bnd_checkpoint *checkpoint, size_t index, uint64_t *size) {
  zip_stat_t about;
  const zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if (zip_stat_index(checkpoint->archive, index, 0, &about) != 0 || (about.valid & needed) != needed) return "is damaged";
  if (about.encryption_method != ZIP_EM_NONE) return "is encrypted; save the file again with torch.save";
  if (about.comp_method != ZIP_CM_STORE)
    return "is compressed, which PyTorch neither writes nor reads; zip the folder again without compression (zip -0)";
  if (about.size != about.comp_size || about.size > checkpoint->size) return "has a size that cannot be true; the archive is damaged";
  *size = about.size;
  return NULL;
}

static int64_t read_entry(bnd_byte_stream *stream, void *buffer, size_t size) { return zip_fread(stream->source, buffer, size); }

/* libzip compares the checksum when it is asked for bytes behind the end. */
static bool drain(zip_file_t *entry) {
  char scratch[16384];
  zip_int64_t got;
  while ((got = zip_fread(entry, scratch, sizeof scratch)) > 0) continue;
  return got == 0;
}

static bnd_status read_pickle(bnd_checkpoint *checkpoint, size_t index, bnd_error *error) {
  uint64_t size;
  const char *problem = check_entry(checkpoint, index, &size);
  if (problem) return bnd_fail(error, BND_ERROR_FORMAT, "%s: %sdata.pkl: %s", checkpoint->path, checkpoint->prefix, problem);
  const char *name = bnd_arena_format(checkpoint->builder.pool.arena, "%s: %sdata.pkl", checkpoint->path, checkpoint->prefix);
  bnd_byte_stream *stream = bnd_arena_alloc(checkpoint->builder.pool.arena, 1, sizeof *stream);
  if (!name || !stream) return bnd_fail_memory(error, checkpoint->path);
  zip_file_t *entry = zip_fopen_index(checkpoint->archive, index, 0);
  if (!entry)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: cannot be opened (%s); the file is cut off or damaged, get it again", name,
                    zip_strerror(checkpoint->archive));
  stream->name = name;
  stream->read = read_entry;
  stream->source = entry;
  stream->size = size;
  bnd_status status = bnd_pickle_read(stream, &checkpoint->builder, &checkpoint->root, error);
  /* Tell a damaged file from one that was built like this. */
  if (!drain(entry) && status != BND_ERROR_MEMORY)
    status = bnd_fail(error, BND_ERROR_FORMAT, "%s: %s; the file is damaged, get it again", name, zip_file_strerror(entry));
  zip_fclose(entry);
  return status;
}

static bnd_status read_byte_order(bnd_checkpoint *checkpoint, const directory *entries, bnd_error *error) {
  size_t index;
  uint64_t size;
  char order[8] = "";
  if (!find_record(checkpoint, entries, "byteorder", &index)) return BND_OK; /* before torch 2.1 */
  const char *problem = check_entry(checkpoint, index, &size);
  if (problem) return bnd_fail(error, BND_ERROR_FORMAT, "%s: %sbyteorder: %s", checkpoint->path, checkpoint->prefix, problem);
  bnd_storage_entry record = {.key = "byteorder", .place = index, .count = size, .type = bnd_element_type_by_name("uint8")};
  if (size < sizeof order) {
    const bnd_status status = bnd_archive_read(checkpoint, &record, 0, (size_t)size, order, error);
    if (status != BND_OK) return bnd_fail_prefix(error, status, "%s", checkpoint->path);
  }
  checkpoint->big_endian = strcmp(order, "big") == 0;
  if (!checkpoint->big_endian && strcmp(order, "little") != 0)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: %sbyteorder: is neither 'little' nor 'big'; the file is damaged", checkpoint->path,
                    checkpoint->prefix);
  return BND_OK;
}

static bnd_status locate_storages(bnd_checkpoint *checkpoint, const directory *entries, bnd_error *error) {
  bnd_storage_table *storages = &checkpoint->builder.storages;
  uint64_t total = 0;
  for (size_t i = 0; i < storages->count; i++) {
    bnd_storage_entry *storage = &storages->entries[i];
    char name[80];
    size_t index;
    uint64_t size, expected;
    snprintf(name, sizeof name, "data/%s", storage->key);
    if (!find_record(checkpoint, entries, name, &index)) {
      if (storage->count) storage->problem = "is missing from the archive; save the file again with torch.save";
      continue;
    }
    storage->problem = check_entry(checkpoint, index, &size);
    if (storage->problem) continue;
    if (__builtin_mul_overflow(storage->count, storage->type->size, &expected) || expected != size) {
      storage->problem =
          bnd_arena_format(checkpoint->builder.pool.arena, "holds %llu bytes, but data.pkl says %llu elements of %s; the file is damaged",
                           (unsigned long long)size, (unsigned long long)storage->count, storage->type->name);
      if (!storage->problem) return bnd_fail_memory(error, checkpoint->path);
      continue;
    }
    storage->place = index;
    storage->present = true;
    total += size;
    /* Entries of the directory may claim the same bytes; a small file would then take hours to verify. Honest records do not overlap. */
    if (total > checkpoint->size)
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: its records are together larger than the file; the archive is damaged", checkpoint->path);
  }
  return BND_OK;
}

static bnd_status read_directory(bnd_checkpoint *checkpoint, directory *entries, bnd_error *error) {
  size_t pickle;
  BND_TRY(list_entries(checkpoint, entries, error));
  BND_TRY(find_prefix(checkpoint, error));
  if (find_record(checkpoint, entries, "constants.pkl", &pickle))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED,
                    "%s: is a TorchScript model (torch.jit.save), not a state dict; save model.state_dict() with torch.save", checkpoint->path);
  if (find_record(checkpoint, entries, "archive_format", &pickle) || find_record(checkpoint, entries, "models/model.json", &pickle))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED,
                    "%s: is an exported program (torch.export.save), not a state dict; save model.state_dict() with torch.save", checkpoint->path);
  if (!find_record(checkpoint, entries, "data.pkl", &pickle))
    return bnd_fail(error, BND_ERROR_FORMAT,
                    "%s: is a zip archive without '%.200sdata.pkl', so not written by torch.save; if a checkpoint is inside, unpack it",
                    checkpoint->path, checkpoint->prefix);
  BND_TRY(read_byte_order(checkpoint, entries, error));
  BND_TRY(read_pickle(checkpoint, pickle, error));
  return locate_storages(checkpoint, entries, error);
}

bnd_status bnd_archive_open(bnd_checkpoint *checkpoint, bnd_error *error) {
  int code = 0;
  const int file = dup(checkpoint->file);
  checkpoint->archive = file >= 0 ? zip_fdopen(file, 0, &code) : NULL; /* takes `file` if it succeeds */
  if (!checkpoint->archive) {
    zip_error_t reason;
    zip_error_init_with_code(&reason, code);
    const bnd_status status = bnd_fail(error, BND_ERROR_FORMAT, "%s: the zip archive is cut off or damaged (%s); get the file again",
                                       checkpoint->path, file >= 0 ? zip_error_strerror(&reason) : "too many open files");
    zip_error_fini(&reason);
    if (file >= 0) close(file);
    return status;
  }
  directory entries = {0};
  const bnd_status status = read_directory(checkpoint, &entries, error);
  bnd_map_free(&entries);
  return status;
}

static bool read_fully(zip_file_t *entry, char *to, size_t size) {
  while (size) {
    const zip_int64_t got = zip_fread(entry, to, size);
    if (got <= 0) return false;
    to += got;
    size -= (size_t)got;
  }
  return true;
}

bnd_status bnd_archive_read(bnd_checkpoint *checkpoint, bnd_storage_entry *storage, uint64_t first, size_t size, void *to, bnd_error *error) {
  const char *folder = storage->present ? "data/" : "";
  zip_file_t *entry = zip_fopen_index(checkpoint->archive, storage->place, 0);
  if (!entry)
    return bnd_fail(error, BND_ERROR_FORMAT, "record %s%s%s: %s; the file is damaged, get it again", checkpoint->prefix, folder, storage->key,
                    zip_strerror(checkpoint->archive));
  bool fine = true;
  const bool whole = first == 0 && size == storage->count * storage->type->size;
  if (whole) {
    fine = read_fully(entry, to, size) && drain(entry);
  } else {
    if (!storage->verified) fine = drain(entry);
    fine = fine && zip_fseek(entry, (zip_int64_t)first, SEEK_SET) == 0 && read_fully(entry, to, size);
  }
  storage->verified |= fine;
  bnd_status status = BND_OK;
  if (!fine)
    status = bnd_fail(error, BND_ERROR_FORMAT, "record %s%s%s: %s; the file is damaged, get it again", checkpoint->prefix, folder, storage->key,
                      zip_error_code_zip(zip_file_get_error(entry)) ? zip_file_strerror(entry) : "ends early");
  zip_fclose(entry);
  return status;
}
