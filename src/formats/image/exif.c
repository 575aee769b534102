/* The one thing EXIF is read for: the camera's orientation. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/image/image_internal.h"

typedef struct tiff_view {
  const uint8_t *data;
  size_t size;
  bool little;
} tiff_view;

static bool read_16(const tiff_view *tiff, size_t at, unsigned *value) {
  if (tiff->size < 2 || at > tiff->size - 2) return false;
  const uint8_t *p = tiff->data + at;
  *value = tiff->little ? (unsigned)p[0] | (unsigned)p[1] << 8 : (unsigned)p[1] | (unsigned)p[0] << 8;
  return true;
}

static bool read_32(const tiff_view *tiff, size_t at, uint32_t *value) {
  unsigned first, second;
  if (at > SIZE_MAX - 2 || !read_16(tiff, at, &first) || !read_16(tiff, at + 2, &second)) return false;
  *value = tiff->little ? first | (uint32_t)second << 16 : second | (uint32_t)first << 16;
  return true;
}

/* OpenCV gives up on the whole directory at a text that points outside the data; the tags of texts that may stand before the orientation. */
static bool text_is_sound(const tiff_view *tiff, size_t entry) {
  uint32_t length, offset;
  if (!read_32(tiff, entry + 4, &length)) return false;
  if (length <= 4) return true;
  return read_32(tiff, entry + 8, &offset) && (uint64_t)offset + length <= tiff->size;
}

int bnd_exif_orientation(const uint8_t *data, size_t size) {
  enum { IMAGE_DESCRIPTION = 0x010e, MAKE = 0x010f, MODEL = 0x0110, ORIENTATION = 0x0112, ENTRY_SIZE = 12 };
  if (size < 8 || data[0] != data[1] || (data[0] != 'I' && data[0] != 'M')) return 1;
  const tiff_view tiff = {.data = data, .size = size, .little = data[0] == 'I'};
  unsigned mark, count, tag, orientation;
  uint32_t directory;
  if (!read_16(&tiff, 2, &mark) || mark != 42 || !read_32(&tiff, 4, &directory) || !read_16(&tiff, directory, &count)) return 1;
  for (unsigned i = 0; i < count; i++) {
    const size_t entry = (size_t)directory + 2 + (size_t)i * ENTRY_SIZE;
    if (!read_16(&tiff, entry, &tag)) return 1;
    if ((tag == IMAGE_DESCRIPTION || tag == MAKE || tag == MODEL) && !text_is_sound(&tiff, entry)) return 1;
    if (tag != ORIENTATION) continue;
    return read_16(&tiff, entry + 8, &orientation) && orientation >= 1 && orientation <= 8 ? (int)orientation : 1;
  }
  return 1;
}

/* EXIF orientation: which stored pixel shows at (x, y) of the upright image; 5..8 are transposed. Written as three independent flips. */
static const struct {
  bool transpose, mirror_x, mirror_y; /* transpose first, then mirror the upright image */
} orientations[9] = {
    [1] = {false, false, false}, [2] = {false, true, false}, [3] = {false, true, true}, [4] = {false, false, true},
    [5] = {true, false, false},  [6] = {true, true, false},  [7] = {true, true, true},  [8] = {true, false, true},
};

bnd_status bnd_image_orient(const char *name, bnd_image *image, int orientation, bnd_error *error) {
  if (orientation <= 1 || orientation > 8) return BND_OK;
  const bool transpose = orientations[orientation].transpose;
  const bool mirror_x = orientations[orientation].mirror_x, mirror_y = orientations[orientation].mirror_y;
  bnd_image upright;
  BND_TRY(bnd_image_allocate(name, (uint64_t)(transpose ? image->height : image->width), (uint64_t)(transpose ? image->width : image->height),
                             &upright, error));
  uint8_t *to = upright.pixels;
  for (int y = 0; y < upright.height; y++)
    for (int x = 0; x < upright.width; x++, to += 3) {
      const int u = mirror_x ? upright.width - 1 - x : x, v = mirror_y ? upright.height - 1 - y : y;
      const size_t from = transpose ? (size_t)u * (size_t)image->width + (size_t)v : (size_t)v * (size_t)image->width + (size_t)u;
      memcpy(to, image->pixels + from * 3, 3);
    }
  bnd_image_free(image);
  *image = upright;
  return BND_OK;
}
