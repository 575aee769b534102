/* Whole-file reading and all-or-nothing writing. */
#ifndef BND_BASE_FILE_H
#define BND_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* Opens a regular file for reading (never a folder, a pipe or a device, and without waiting for one). *size may be NULL. */
bnd_status bnd_file_open(const char *path, FILE **file, uint64_t *size, bnd_error *error);
/* Reads a regular file of at most `limit` bytes. *data is owned by the caller (free) and has one NUL byte behind it. */
bnd_status bnd_file_read(const char *path, uint64_t limit, char **data, size_t *size, bnd_error *error);

/* A file that appears under its name only when it is complete: written beside it as "<path>.partial-<pid>", synced, then renamed. A symbolic
   link stays, the file it points to is replaced; anything else that is no regular file (a folder, a device) is left alone: an error. */
typedef struct bnd_file_writer bnd_file_writer;
bnd_status bnd_file_writer_open(const char *path, bnd_file_writer **writer, bnd_error *error);
/* Errors are kept for the commit. */
void bnd_file_writer_append(bnd_file_writer *writer, const void *data, size_t size);
/* Flushes, syncs, renames and frees the writer. On any error (also an earlier short write) the partial file is removed. */
bnd_status bnd_file_writer_commit(bnd_file_writer *writer, bnd_error *error);
/* Removes the partial file and frees the writer. NULL is fine. */
void bnd_file_writer_abandon(bnd_file_writer *writer);

/* The three above in one, for content that is in memory. */
bnd_status bnd_file_write(const char *path, const void *data, size_t size, bnd_error *error);
/* Whether two paths lead to the same existing file. */
bool bnd_same_file(const char *a, const char *b);
/* Creates a folder and its missing parents. An existing folder is fine. */
bnd_status bnd_make_folder(const char *path, bnd_error *error);

#endif
