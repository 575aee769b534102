/* Makes broken checkpoints: changes one entry of a zip archive and writes the archive anew, checksums and all, as PyTorch stores it.
     damage IN OUT set ENTRY OFFSET HEX     replace bytes
     damage IN OUT swap ENTRY OLD NEW       replace the first OLD by NEW (of the same length)
     damage IN OUT delete ENTRY
     damage IN OUT add ENTRY TEXT [COUNT]   TEXT, COUNT times, compressed */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

static _Noreturn void die(const char *what) {
  fprintf(stderr, "damage: %s\n", what);
  exit(1);
}

static char *read_entry(zip_t *archive, zip_uint64_t index, size_t *size) {
  zip_stat_t about;
  if (zip_stat_index(archive, index, 0, &about) != 0) die("no such entry");
  char *data = malloc(about.size + 1);
  zip_file_t *file = zip_fopen_index(archive, index, 0);
  if (!data || !file || zip_fread(file, data, about.size) != (zip_int64_t)about.size) die("entry cannot be read");
  zip_fclose(file);
  *size = about.size;
  return data;
}

static void set_bytes(char *data, size_t size, size_t offset, const char *hex) {
  for (; hex[0] && hex[1]; hex += 2, offset++) {
    unsigned byte;
    if (offset >= size || sscanf(hex, "%2x", &byte) != 1) die("bytes outside of the entry");
    data[offset] = (char)byte;
  }
}

static void swap(char *data, size_t size, const char *old, const char *new) {
  char *at = memmem(data, size, old, strlen(old));
  if (!at || strlen(old) != strlen(new)) die("no such text, or of another length");
  memcpy(at, new, strlen(new));
}

static void put(zip_t *archive, const char *name, char *data, size_t size, int method) {
  zip_source_t *source = zip_source_buffer(archive, data, size, 1);
  const zip_int64_t index = source ? zip_file_add(archive, name, source, ZIP_FL_OVERWRITE) : -1;
  if (index < 0 || zip_set_file_compression(archive, (zip_uint64_t)index, method, 0) != 0) die("entry cannot be written");
}

int main(int argc, char **argv) {
  if (argc < 5) die("see the source for what it takes");
  const char *what = argv[3], *name = argv[4];
  zip_t *from = zip_open(argv[1], ZIP_RDONLY, NULL), *to = zip_open(argv[2], ZIP_CREATE | ZIP_TRUNCATE, NULL);
  if (!from || !to) die("archive cannot be opened");
  for (zip_int64_t i = 0; i < zip_get_num_entries(from, 0); i++) {
    const char *entry = zip_get_name(from, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
    const int chosen = strcmp(entry, name) == 0;
    if (chosen && strcmp(what, "delete") == 0) continue;
    size_t size;
    char *data = read_entry(from, (zip_uint64_t)i, &size);
    if (chosen && argc > 6 && strcmp(what, "set") == 0) set_bytes(data, size, strtoul(argv[5], NULL, 10), argv[6]);
    if (chosen && argc > 6 && strcmp(what, "swap") == 0) swap(data, size, argv[5], argv[6]);
    put(to, entry, data, size, ZIP_CM_STORE);
  }
  if (strcmp(what, "add") == 0 && argc > 5) {
    const size_t length = strlen(argv[5]), count = argc > 6 ? strtoul(argv[6], NULL, 10) : 1;
    char *data = malloc(length * count + 1);
    if (!data) die("not enough memory");
    for (size_t i = 0; i < count; i++) memcpy(data + i * length, argv[5], length);
    put(to, name, data, length * count, ZIP_CM_DEFLATE);
  }
  zip_discard(from);
  if (zip_close(to) != 0) die(zip_strerror(to));
  return 0;
}
