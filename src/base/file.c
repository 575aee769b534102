#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

bnd_status bnd_file_open(const char *path, FILE **file, uint64_t *size, bnd_error *error) {
  struct stat about;
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe must not wait for its writer */
  if (descriptor < 0) return bnd_fail(error, BND_ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
  if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(descriptor);
    return bnd_fail(error, BND_ERROR_IO, "%s: is not a regular file", path);
  }
  *file = fdopen(descriptor, "rb");
  if (!*file) {
    close(descriptor);
    return bnd_fail_memory(error, path);
  }
  if (size) *size = (uint64_t)about.st_size;
  return BND_OK;
}

bnd_status bnd_file_read(const char *path, uint64_t limit, char **data, size_t *size, bnd_error *error) {
  FILE *file = NULL;
  uint64_t length = 0;
  BND_TRY(bnd_file_open(path, &file, &length, error));
  bnd_status status = BND_OK;
  char *content = NULL;
  if (length > limit)
    status = bnd_fail(error, BND_ERROR_FORMAT, "%s: %llu bytes are more than the %llu expected of such a file", path, (unsigned long long)length,
                      (unsigned long long)limit);
  else if (!(content = malloc((size_t)length + 1)))
    status = bnd_fail_memory(error, path);
  else if (fread(content, 1, (size_t)length, file) != length)
    status = bnd_fail(error, BND_ERROR_IO, "%s: could not be read to its end", path);
  fclose(file);
  if (status != BND_OK) {
    free(content);
    return status;
  }
  content[length] = '\0';
  *data = content;
  *size = (size_t)length;
  return BND_OK;
}

struct bnd_file_writer {
  FILE *stream;
  char *path, *target, *partial; /* target: path with symbolic links followed */
  int reason;                    /* errno of the first failure, or 0 */
};

/* What helps against the usual reasons. */
static const char *remedy(int reason) {
  switch (reason) {
    case ENOSPC: case EDQUOT: return "; make room there or choose another place";
    case EFBIG: return "; allow larger files (ulimit -f) or choose another place";
    case EACCES: case EPERM: case EROFS: return "; choose a place you may write to";
    case ENOENT: case ENOTDIR: return "; its folder must exist";
    default: return "";
  }
}

static bnd_status fail_to_write(const char *path, int reason, bnd_error *error) {
  return bnd_fail(error, BND_ERROR_IO, "%s: cannot be written: %s%s", path, reason ? strerror(reason) : "write error", remedy(reason));
}

static void writer_free(bnd_file_writer *writer) {
  free(writer->path);
  free(writer->target);
  free(writer->partial);
  free(writer);
}

/* What the finished file replaces must be a file; renaming over a device would put an end to the device. */
static bnd_status check_target(const char *path, bnd_error *error) {
  struct stat about;
  if (stat(path, &about) != 0 || S_ISREG(about.st_mode)) return BND_OK;
  return bnd_fail(error, BND_ERROR_IO, "%s: cannot be written: %s", path, S_ISDIR(about.st_mode) ? "a folder has this name" : "is not a regular file");
}

bnd_status bnd_file_writer_open(const char *path, bnd_file_writer **writer, bnd_error *error) {
  BND_TRY(check_target(path, error));
  bnd_file_writer *fresh = bnd_calloc(1, sizeof *fresh);
  if (!fresh) return bnd_fail_memory(error, path);
  fresh->path = strdup(path);
  fresh->target = realpath(path, NULL);
  if (!fresh->target) fresh->target = strdup(path); /* nothing there yet */
  const size_t space = fresh->target ? strlen(fresh->target) + 32 : 0;
  if (!fresh->path || !fresh->target || !(fresh->partial = malloc(space))) {
    writer_free(fresh);
    return bnd_fail_memory(error, path);
  }
  snprintf(fresh->partial, space, "%s.partial-%ld", fresh->target, (long)getpid());
  fresh->stream = fopen(fresh->partial, "wb");
  if (!fresh->stream) {
    const bnd_status status = fail_to_write(path, errno, error);
    writer_free(fresh);
    return status;
  }
  *writer = fresh;
  return BND_OK;
}

void bnd_file_writer_append(bnd_file_writer *writer, const void *data, size_t size) {
  if (size && !writer->reason && fwrite(data, 1, size, writer->stream) != size) writer->reason = errno ? errno : EIO;
}

bnd_status bnd_file_writer_commit(bnd_file_writer *writer, bnd_error *error) {
  if (!writer->reason && (fflush(writer->stream) != 0 || fsync(fileno(writer->stream)) != 0)) writer->reason = errno;
  if (fclose(writer->stream) != 0 && !writer->reason) writer->reason = errno;
  if (!writer->reason && rename(writer->partial, writer->target) != 0) writer->reason = errno;
  bnd_status status = BND_OK;
  if (writer->reason) {
    status = fail_to_write(writer->path, writer->reason, error);
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
  bnd_file_writer_append(writer, data, size);
  return bnd_file_writer_commit(writer, error);
}

bool bnd_same_file(const char *a, const char *b) {
  struct stat first, second;
  return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_ino == second.st_ino && first.st_dev == second.st_dev;
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
      status = bnd_fail(error, BND_ERROR_IO, "%s: cannot be created: %s%s", part, strerror(errno), remedy(errno));
      break;
    }
    if (end == '\0') break;
    *at = end;
  }
  struct stat about;
  if (status == BND_OK && (stat(path, &about) != 0 || !S_ISDIR(about.st_mode)))
    status = bnd_fail(error, BND_ERROR_IO, "%s: is not a folder; choose another name", path);
  free(part);
  return status;
}
