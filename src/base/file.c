#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

bnd_status bnd_file_read(const char *path, uint64_t limit, char **data, size_t *size, bnd_error *error) {
  FILE *file = fopen(path, "rb");
  if (!file) return bnd_fail(error, BND_ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
  struct stat about;
  bnd_status status = BND_OK;
  char *content = NULL;
  size_t length = 0;
  if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode)) {
    status = bnd_fail(error, BND_ERROR_IO, "%s: is not a regular file", path);
    goto done;
  }
  if ((uint64_t)about.st_size > limit) {
    status = bnd_fail(error, BND_ERROR_FORMAT, "%s: %lld bytes are more than the %llu expected of such a file", path, (long long)about.st_size,
                      (unsigned long long)limit);
    goto done;
  }
  length = (size_t)about.st_size;
  content = malloc(length + 1);
  if (!content) {
    status = bnd_fail_memory(error, path);
    goto done;
  }
  if (fread(content, 1, length, file) != length) {
    status = bnd_fail(error, BND_ERROR_IO, "%s: could not be read to its end", path);
    goto done;
  }
  content[length] = '\0';
done:
  fclose(file);
  if (status != BND_OK) {
    free(content);
    return status;
  }
  *data = content;
  *size = length;
  return BND_OK;
}

struct bnd_file_writer {
  FILE *stream;
  char *path, *partial;
};

static void writer_free(bnd_file_writer *writer) {
  free(writer->path);
  free(writer->partial);
  free(writer);
}

bnd_status bnd_file_writer_open(const char *path, bnd_file_writer **writer, bnd_error *error) {
  bnd_file_writer *fresh = bnd_calloc(1, sizeof *fresh);
  const size_t space = strlen(path) + 32;
  if (!fresh || !(fresh->path = strdup(path)) || !(fresh->partial = malloc(space))) {
    if (fresh) writer_free(fresh);
    return bnd_fail_memory(error, path);
  }
  snprintf(fresh->partial, space, "%s.partial-%ld", path, (long)getpid());
  fresh->stream = fopen(fresh->partial, "wb");
  if (!fresh->stream) {
    const bnd_status status = bnd_fail(error, BND_ERROR_IO, "%s: cannot be written: %s", path, strerror(errno));
    writer_free(fresh);
    return status;
  }
  *writer = fresh;
  return BND_OK;
}

FILE *bnd_file_writer_stream(bnd_file_writer *writer) { return writer->stream; }

bnd_status bnd_file_writer_commit(bnd_file_writer *writer, bnd_error *error) {
  errno = 0;
  bool fine = !ferror(writer->stream) && fflush(writer->stream) == 0 && fsync(fileno(writer->stream)) == 0;
  int reason = errno;
  if (fclose(writer->stream) != 0 && fine) {
    fine = false;
    reason = errno;
  }
  if (fine && rename(writer->partial, writer->path) != 0) {
    fine = false;
    reason = errno;
  }
  bnd_status status = BND_OK;
  if (!fine) {
    status = bnd_fail(error, BND_ERROR_IO, "%s: cannot be written: %s", writer->path, reason ? strerror(reason) : "write error");
    remove(writer->partial);
  }
  writer_free(writer);
  return status;
}

void bnd_file_writer_abandon(bnd_file_writer *writer) {
  if (!writer) return;
  fclose(writer->stream);
  remove(writer->partial);
  writer_free(writer);
}

bnd_status bnd_file_write(const char *path, const void *data, size_t size, bnd_error *error) {
  bnd_file_writer *writer;
  BND_TRY(bnd_file_writer_open(path, &writer, error));
  if (size) fwrite(data, 1, size, writer->stream);
  return bnd_file_writer_commit(writer, error);
}

bnd_status bnd_make_folder(const char *path, bnd_error *error) {
  char *part = strdup(path);
  if (!part) return bnd_fail_memory(error, path);
  bnd_status status = BND_OK;
  for (char *at = part + 1;; at++) {
    if (*at != '/' && *at != '\0') continue;
    const char end = *at;
    *at = '\0';
    if (mkdir(part, 0777) != 0 && errno != EEXIST) {
      status = bnd_fail(error, BND_ERROR_IO, "%s: cannot be created: %s", part, strerror(errno));
      break;
    }
    if (end == '\0') break;
    *at = end;
  }
  struct stat about;
  if (status == BND_OK && (stat(path, &about) != 0 || !S_ISDIR(about.st_mode)))
    status = bnd_fail(error, BND_ERROR_IO, "%s: is not a folder", path);
  free(part);
  return status;
}
