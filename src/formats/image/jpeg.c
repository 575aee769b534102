/* JPEG through TurboJPEG: libjpeg-turbo's defaults (ISLOW, fancy upsampling), which is what OpenCV uses. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <turbojpeg.h>

#include "base/memory.h"
#include "formats/image/image_internal.h"

/* What the segments before the picture data say. */
typedef struct jpeg_header {
  int orientation;
  bool one_scan; /* neither progressive nor spread over several scans: whatever is missing would be noticed */
} jpeg_header;

/* The first APP1 segment that says it is EXIF decides the orientation, as in OpenCV 5 (4.x looks at the first APP1 of any kind). */
static jpeg_header read_header(const uint8_t *data, size_t size) {
  enum { SOF0 = 0xc0, SOF1 = 0xc1, EOI = 0xd9, SOS = 0xda, APP1 = 0xe1, FILL = 0xff };
  jpeg_header header = {.orientation = 1};
  bool has_exif = false;
  int components = 0;
  for (size_t at = 2; at + 4 <= size && data[at] == 0xff;) {
    const uint8_t marker = data[at + 1];
    const size_t length = (size_t)data[at + 2] << 8 | data[at + 3];
    if (marker == FILL) {
      at++;
      continue;
    }
    if (marker == EOI || length < 2 || length > size - at - 2) break;
    const uint8_t *content = data + at + 4;
    if (marker == SOS) {
      header.one_scan = length > 2 && components > 0 && content[0] == components;
      break;
    }
    if ((marker == SOF0 || marker == SOF1) && length >= 8) components = content[5];
    if (marker == APP1 && !has_exif && length > 8 && memcmp(content, "Exif\0\0", 6) == 0) {
      has_exif = true;
      header.orientation = bnd_exif_orientation(content + 6, length - 8);
    }
    at += 2 + length;
  }
  return header;
}

/* OpenCV's own CMYK -> RGB (icvCvt_CMYK2BGR_8u_C4C3R): Adobe files store the inks inverted, hence the plain product. */
static void cmyk_to_rgb(const uint8_t *cmyk, size_t pixels, uint8_t *rgb) {
  for (size_t i = 0; i < pixels; i++, cmyk += 4, rgb += 3) {
    const int k = cmyk[3];
    for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(k - ((255 - cmyk[c]) * k >> 8));
  }
}

/* Warnings about bytes that do not belong to the picture; everything else means that part of the picture is made up. */
static bool is_harmless(const char *warning) {
  return strstr(warning, "extraneous bytes before marker") || strstr(warning, "JFIF revision number") || strstr(warning, "Adobe color transform") ||
         strstr(warning, "Inconsistent progression sequence");
}

typedef enum decode_result { DECODED, NO_END, BROKEN } decode_result;

static decode_result decompress(tjhandle handle, const uint8_t *data, size_t size, uint8_t *pixels, int width, int height, int format) {
  if (tjDecompress2(handle, data, (unsigned long)size, pixels, width, 0, height, format, TJFLAG_LIMITSCANS) == 0) return DECODED;
  if (tjGetErrorCode(handle) != TJERR_WARNING) return BROKEN;
  const char *warning = tjGetErrorStr2(handle);
  if (is_harmless(warning)) return DECODED;
  return strstr(warning, "Premature end of JPEG file") ? NO_END : BROKEN;
}

/* Some programs leave out the end marker. With one appended, the decoder complains only if the data of its one scan are short, too. */
static decode_result decompress_with_end(tjhandle handle, const uint8_t *data, size_t size, uint8_t *pixels, int width, int height, int format) {
  uint8_t *copy = malloc(size + 2);
  if (!copy) return BROKEN;
  memcpy(copy, data, size);
  copy[size] = 0xff;
  copy[size + 1] = 0xd9;
  const decode_result result = decompress(handle, copy, size + 2, pixels, width, height, format);
  free(copy);
  return result;
}

static bnd_status fail_broken(const char *name, tjhandle handle, bnd_error *error) {
  return bnd_fail(error, BND_ERROR_FORMAT, "%s: damaged or truncated JPEG image: %s; get the file again or save it anew", name, tjGetErrorStr2(handle));
}

bnd_status bnd_jpeg_decode(const char *name, const uint8_t *data, size_t size, bnd_image *image, int *orientation, bnd_error *error) {
  int width = 0, height = 0, subsampling, space = -1;
  uint8_t *cmyk = NULL;
  bnd_status status = BND_OK;
  tjhandle handle = tjInitDecompress();
  if (!handle) return bnd_fail_memory(error, name);
  /* An unusual subsampling is reported as an error though it can be decoded: what counts is whether the sizes were found. */
  if (tjDecompressHeader3(handle, data, (unsigned long)size, &width, &height, &subsampling, &space) != 0 && (width < 1 || height < 1 || space < 0)) {
    status = fail_broken(name, handle, error);
    goto done;
  }
  if (width < 1 || height < 1) { /* the decoder takes tables without a picture for a file of its own kind */
    status = bnd_fail(error, BND_ERROR_FORMAT, "%s: truncated JPEG image: it ends before its size is told; get the file again", name);
    goto done;
  }
  BND_TRY_GOTO(bnd_image_allocate(name, width < 0 ? 0 : (uint64_t)width, height < 0 ? 0 : (uint64_t)height, image, error), done);
  const size_t pixels = (size_t)width * (size_t)height;
  const bool inks = space == TJCS_CMYK || space == TJCS_YCCK;
  if (inks && !(cmyk = bnd_alloc_aligned(pixels, 4))) {
    status = bnd_fail_memory(error, name);
    goto done;
  }
  uint8_t *target = inks ? cmyk : image->pixels;
  const int format = inks ? TJPF_CMYK : TJPF_RGB;
  const jpeg_header header = read_header(data, size);
  decode_result result = decompress(handle, data, size, target, width, height, format);
  if (result == NO_END && header.one_scan) result = decompress_with_end(handle, data, size, target, width, height, format);
  if (result != DECODED) {
    status = fail_broken(name, handle, error);
    goto done;
  }
  if (inks) cmyk_to_rgb(cmyk, pixels, image->pixels);
  *orientation = header.orientation;
done:
  free(cmyk);
  tjDestroy(handle);
  if (status != BND_OK) bnd_image_free(image);
  return status;
}

bnd_status bnd_image_encode_jpeg(const bnd_image *image, int quality, void **data, size_t *size, bnd_error *error) {
  if (quality < 1 || quality > 100) return bnd_fail(error, BND_ERROR_ARGUMENT, "a JPEG quality of %d is outside 1..100", quality);
  if (image->width > 65500 || image->height > 65500)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "an image of %d x %d pixels is too large for JPEG; write PNG", image->width, image->height);
  tjhandle handle = tjInitCompress();
  if (!handle) return bnd_fail_memory(error, "the JPEG encoder");
  unsigned char *compressed = NULL;
  unsigned long length = 0;
  bnd_status status = BND_OK;
  const int subsampling = quality > 90 ? TJSAMP_444 : TJSAMP_420;
  if (tjCompress2(handle, image->pixels, image->width, 0, image->height, TJPF_RGB, &compressed, &length, subsampling, quality,
                  TJFLAG_ACCURATEDCT) != 0) {
    status = bnd_fail(error, BND_ERROR_INTERNAL, "JPEG encoder: %s", tjGetErrorStr2(handle));
  } else if (!(*data = malloc(length))) {
    status = bnd_fail_memory(error, "a JPEG image");
  } else {
    memcpy(*data, compressed, length);
    *size = length;
  }
  tjFree(compressed);
  tjDestroy(handle);
  return status;
}
