/* Any bytes as a JPEG or PNG file. */
#include "formats/image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bnd_image image;
  bnd_error error;
  if (bnd_image_decode("image", data, size, &image, &error) == BND_OK) bnd_image_free(&image);
  if (bnd_image_decode_stored("image", data, size, &image, &error) == BND_OK) bnd_image_free(&image);
  return 0;
}
