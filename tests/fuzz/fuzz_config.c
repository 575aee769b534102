/* Any bytes as a quantization configuration in Quark's JSON shape; what is understood is written again. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "flow/config_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int file = -1;
  static char path[64];
  if (file < 0) {
    file = memfd_create("config", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  }
  if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) return -1;
  bnd_quantization_config config;
  bnd_error error;
  if (bnd_config_read(path, &config, &error) != BND_OK) return 0;
  bnd_string text = {0};
  bnd_config_write(&config, &text);
  bnd_string_free(&text);
  bnd_quantization_config_free(&config);
  return 0;
}
