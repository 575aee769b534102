/* Any bytes as COCO's annotation file, which also takes the JSON reader along. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/coco.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int file = -1; /* one for the whole run: creating them dominates otherwise */
  static char path[64];
  if (file < 0) {
    file = memfd_create("annotations", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  }
  if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) return -1;
  bnd_coco coco;
  bnd_error error;
  if (bnd_coco_open_files(path, "/nowhere", &coco, &error) != BND_OK) return 0;
  for (size_t i = 0; i < coco.image_count; i++) {
    char image[256];
    (void)!bnd_coco_image_path(&coco, i, image, sizeof image, &error);
  }
  bnd_coco_close(&coco);
  return 0;
}
