/* A zip archive of uncompressed records whose data begin at multiples of 64 bytes, as PyTorch maps them into memory. The archive appears under
   its name only when it is complete (base/file.h). Equal records give equal bytes: there are no time stamps.

   libzip, which reads these archives, is of no use here: it decides about headers and extra fields while it closes an archive, after the
   padding that alignment needs had to be known. Layout: PKWARE's APPNOTE 6.3, sections 4.3 to 4.5, zip64 included. */
#ifndef BND_FORMATS_CHECKPOINT_ZIP_WRITER_H
#define BND_FORMATS_CHECKPOINT_ZIP_WRITER_H

#include "base/status.h"

#include <stddef.h>

typedef struct bnd_zip_writer bnd_zip_writer;

bnd_status bnd_zip_writer_open(const char *path, bnd_zip_writer **writer, bnd_error *error);
/* Writes one record at once; nothing is kept but its name, which is copied. Errors are kept for the commit. */
void bnd_zip_writer_add(bnd_zip_writer *writer, const char *name, const void *data, size_t size);
/* Writes the directory, puts the file in its place and frees the writer. After any error there is no file, or the one from before. */
bnd_status bnd_zip_writer_commit(bnd_zip_writer *writer, bnd_error *error);
/* Removes what was written and frees the writer. NULL is fine. */
void bnd_zip_writer_abandon(bnd_zip_writer *writer);

#endif
