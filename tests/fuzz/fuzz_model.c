/* Any bytes at all as a checkpoint: opened through the public API, then described. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "binade/binade.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[40];
  const int file = memfd_create("model", 0);
  if (file < 0 || write(file, data, size) != (ssize_t)size) return -1;
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  bnd_error error;
  bnd_model *model = NULL;
  char *text = NULL;
  if (bnd_model_open(path, &model, &error) == BND_OK && bnd_model_describe(model, false, &text, &error) == BND_OK) bnd_free(text);
  bnd_model_close(model);
  close(file);
  return 0;
}
