/* Trained checkpoints of other projects against torch.load: python tests/golden/make_checkpoints.py FILE... printed the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/checkpoint/checkpoint.h"

static const struct {
  const char *folder, *file, *key;
  size_t tensors;
  uint32_t crc;
} FILES[] = {
    {"data/checkpoints", "cifar_net.pth", "", 8, 0xc904923e},
    {"data/checkpoints", "kws_model.pth", "", 56, 0x4eb5e806},
    {"data/checkpoints", "ultraface-slim-320-legacy.pth", "", 184, 0xc7184895},
    {"data/checkpoints", "weight_AP05:0.253207_280-epoch.pth", "", 420, 0xba90af6c},
    {"golden/pico", "yolo_nas_pico_shapes.pth", "net", 921, 0xd7cd0c11},
};

static uint32_t crc32_add(uint32_t crc, const void *data, size_t size) {
  const unsigned char *bytes = data;
  for (crc = ~crc; size--; bytes++) {
    crc ^= *bytes;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

static void real_files_match_torch(void **state) {
  (void)state;
  size_t found = 0;
  for (size_t f = 0; f < sizeof FILES / sizeof *FILES; f++) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/%s", SHARED_DIR, FILES[f].folder, FILES[f].file);
    if (access(path, R_OK) != 0) continue;
    found++;
    bnd_checkpoint *checkpoint = NULL;
    bnd_state_dict state_dict;
    bnd_error error = {0};
    if (bnd_checkpoint_open(path, &checkpoint, &error) != BND_OK) fail_msg("%s", error.message);
    if (bnd_checkpoint_state_dict(checkpoint, NULL, &state_dict, &error) != BND_OK) fail_msg("%s", error.message);
    assert_string_equal(state_dict.key, FILES[f].key);
    assert_int_equal(state_dict.count, FILES[f].tensors);
    uint32_t crc = 0;
    for (size_t i = 0; i < state_dict.count; i++) {
      bnd_tensor tensor;
      if (bnd_checkpoint_entry_tensor(checkpoint, &state_dict.entries[i], &tensor, &error) != BND_OK) fail_msg("%s", error.message);
      crc = crc32_add(crc, state_dict.entries[i].name, strlen(state_dict.entries[i].name) + 1);
      crc = crc32_add(crc, tensor.data, tensor.count * bnd_dtype_size(tensor.dtype));
      bnd_tensor_release(&tensor);
    }
    if (crc != FILES[f].crc) fail_msg("%s: CRC-32 0x%08x, not 0x%08x", path, crc, FILES[f].crc);
    bnd_checkpoint_close(checkpoint);
  }
  if (!found) skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(real_files_match_torch)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
