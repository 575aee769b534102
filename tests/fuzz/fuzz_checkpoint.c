/* libFuzzer target:
     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Iinclude -Isrc tests/fuzz/fuzz_checkpoint.c src/base/x.c src/tensor/x.c
       src/formats/checkpoint/x.c -lzip -o fuzz_checkpoint        (x: all files there)
     ./fuzz_checkpoint -max_len=16384 -rss_limit_mb=1024 CORPUS tests/data/checkpoints
   Checksums would stop nearly every change of a zip file, so zip seeds mostly exercise libzip; the legacy seeds reach the unpickler. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/checkpoint/checkpoint.h"

static size_t walk(const bnd_value *value) {
  size_t count = 1;
  if (!value) return 0;
  if (value->kind == BND_VALUE_LIST || value->kind == BND_VALUE_TUPLE)
    for (size_t i = 0; i < value->list.count; i++) count += walk(value->list.items[i]);
  if (value->kind == BND_VALUE_DICT)
    for (size_t i = 0; i < value->dict.count; i++) count += walk(value->dict.pairs[i].key) + walk(value->dict.pairs[i].value);
  if (value->kind == BND_VALUE_OPAQUE) count += walk(value->opaque.arguments) + walk(value->opaque.state);
  return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int file = -1; /* one for the whole run: creating them dominates otherwise */
  static char path[64];
  if (file < 0) {
    file = memfd_create("checkpoint", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  }
  if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) return 0;
  bnd_checkpoint *checkpoint;
  bnd_state_dict state_dict;
  bnd_error error;
  if (bnd_checkpoint_open(path, &checkpoint, &error) != BND_OK) return 0;
  walk(bnd_checkpoint_root(checkpoint));
  if (bnd_checkpoint_state_dict(checkpoint, NULL, &state_dict, &error) == BND_OK) {
    for (size_t i = 0; i < state_dict.count; i++) {
      bnd_tensor tensor;
      if (bnd_checkpoint_entry_tensor(checkpoint, &state_dict.entries[i], &tensor, &error) == BND_OK) bnd_tensor_release(&tensor);
    }
  }
  bnd_checkpoint_close(checkpoint);
  return 0;
}
