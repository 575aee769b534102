/* ONNX files as the messages of the format's own schema (onnx.pb-c.h). Bytes only: nothing here knows an operator. */
#ifndef BND_FORMATS_ONNX_ONNX_FILE_H
#define BND_FORMATS_ONNX_ONNX_FILE_H

#include <stdbool.h>

#include "base/status.h"
#include "onnx.pb-c.h"

/* Writes the model under `path` whole or not at all, streaming: no packed copy exists in memory. The same model gives the same bytes. */
bnd_status bnd_onnx_write(const Onnx__ModelProto *model, const char *path, bnd_error *error);

/* Whether a file starts as an ONNX model does. False also when it cannot be read. */
bool bnd_onnx_recognize(const char *path);

/* Reads a model file of any origin. Damaged, truncated, too deeply nested or memory-hungry files are refused with BND_ERROR_FORMAT; what
   the messages say is not checked here. *model is freed with bnd_onnx_free. */
bnd_status bnd_onnx_read(const char *path, Onnx__ModelProto **model, bnd_error *error);
void bnd_onnx_free(Onnx__ModelProto *model); /* NULL is fine */

#endif
