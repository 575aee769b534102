#include "formats/image/image.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "formats/image/image_internal.h"

/* A file larger than this is no photograph. */
static const uint64_t LARGEST_FILE = (uint64_t)1 << 30;

bnd_status bnd_image_allocate(const char *name, uint64_t width, uint64_t height, bnd_image *image, bnd_error *error) {
  *image = (bnd_image){0};
  if (width < 1 || height < 1 || width > BND_IMAGE_MAX_PIXELS || height > BND_IMAGE_MAX_PIXELS || width * height > BND_IMAGE_MAX_PIXELS)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: an image of %llu x %llu pixels is outside the supported 1 to %d pixels", name,
                    (unsigned long long)width, (unsigned long long)height, BND_IMAGE_MAX_PIXELS);
  uint8_t *pixels = bnd_alloc_aligned((size_t)(width * height), 3);
  if (!pixels) return bnd_fail_memory(error, name);
  *image = (bnd_image){.width = (int)width, .height = (int)height, .pixels = pixels};
  return BND_OK;
}

bnd_status bnd_image_create(int width, int height, bnd_image *image, bnd_error *error) {
  BND_TRY(bnd_image_allocate("new image", width < 0 ? 0 : (uint64_t)width, height < 0 ? 0 : (uint64_t)height, image, error));
  memset(image->pixels, 0, (size_t)width * (size_t)height * 3);
  return BND_OK;
}

void bnd_image_free(bnd_image *image) {
  free(image->pixels);
  *image = (bnd_image){0};
}

/* Formats people do have but that are not read here, for a message that helps. */
static const char *foreign_format(const uint8_t *data, size_t size) {
  if (size >= 2 && memcmp(data, "BM", 2) == 0) return "a BMP image";
  if (size >= 4 && memcmp(data, "GIF8", 4) == 0) return "a GIF image";
  if (size >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0) return "a WebP image";
  if (size >= 4 && (memcmp(data, "II*\0", 4) == 0 || memcmp(data, "MM\0*", 4) == 0)) return "a TIFF image";
  if (size >= 12 && memcmp(data + 4, "ftyp", 4) == 0) return "a HEIF or AVIF image";
  return NULL;
}

static bnd_status decode(const char *name, const uint8_t *data, size_t size, bnd_image *image, int *orientation, bnd_error *error) {
  static const uint8_t jpeg[] = {0xff, 0xd8, 0xff}, png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  *image = (bnd_image){0};
  *orientation = 1;
  if (size >= sizeof jpeg && memcmp(data, jpeg, sizeof jpeg) == 0) return bnd_jpeg_decode(name, data, size, image, orientation, error);
  if (size >= sizeof png && memcmp(data, png, sizeof png) == 0) return bnd_png_decode(name, data, size, image, orientation, error);
  if (size == 0) return bnd_fail(error, BND_ERROR_FORMAT, "%s: the file is empty", name);
  const char *foreign = foreign_format(data, size);
  if (foreign) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: is %s; convert it to JPEG or PNG", name, foreign);
  return bnd_fail(error, BND_ERROR_FORMAT, "%s: is neither a JPEG nor a PNG image", name);
}

bnd_status bnd_image_decode(const char *name, const void *data, size_t size, bnd_image *image, bnd_error *error) {
  int orientation;
  BND_TRY(decode(name, data, size, image, &orientation, error));
  const bnd_status status = bnd_image_orient(name, image, orientation, error);
  if (status != BND_OK) bnd_image_free(image);
  return status;
}

bnd_status bnd_image_decode_stored(const char *name, const void *data, size_t size, bnd_image *image, bnd_error *error) {
  int orientation;
  return decode(name, data, size, image, &orientation, error);
}

bnd_status bnd_image_read(const char *path, bnd_image *image, bnd_error *error) {
  char *data;
  size_t size;
  *image = (bnd_image){0};
  BND_TRY(bnd_file_read(path, LARGEST_FILE, &data, &size, error));
  const bnd_status status = bnd_image_decode(path, data, size, image, error);
  free(data);
  return status;
}

static bnd_status write_and_free(const char *path, void *data, size_t size, bnd_error *error) {
  const bnd_status status = bnd_file_write(path, data, size, error);
  free(data);
  return status;
}

bnd_status bnd_image_write_png(const char *path, const bnd_image *image, bnd_error *error) {
  void *data;
  size_t size;
  BND_TRY(bnd_image_encode_png(image, &data, &size, error));
  return write_and_free(path, data, size, error);
}

bnd_status bnd_image_write_jpeg(const char *path, const bnd_image *image, int quality, bnd_error *error) {
  void *data;
  size_t size;
  BND_TRY(bnd_image_encode_jpeg(image, quality, &data, &size, error));
  return write_and_free(path, data, size, error);
}
