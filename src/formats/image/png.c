/* PNG through libspng. */
#include <stdlib.h>
#include <string.h>

#include <spng.h>

#include "base/memory.h"
#include "formats/image/image_internal.h"

static bnd_status fail_broken(const char *name, int code, bnd_error *error) {
  if (code == SPNG_EMEM) return bnd_fail_memory(error, name);
  return bnd_fail(error, BND_ERROR_FORMAT, "%s: damaged or truncated PNG image: %s; get the file again or save it anew", name, spng_strerror(code));
}

bnd_status bnd_png_decode(const char *name, const uint8_t *data, size_t size, bnd_image *image, int *orientation, bnd_error *error) {
  enum { LARGEST_CHUNK = 16 * 1024 * 1024, LARGEST_CACHE = 64 * 1024 * 1024 };
  bnd_status status = BND_OK;
  spng_ctx *context = spng_ctx_new(0);
  if (!context) return bnd_fail_memory(error, name);
  struct spng_ihdr header;
  struct spng_exif exif;
  size_t needed;
  int code = spng_set_png_buffer(context, data, size);
  if (!code) code = spng_set_crc_action(context, SPNG_CRC_ERROR, SPNG_CRC_DISCARD); /* as libpng: a broken side note is dropped */
  if (!code) code = spng_set_chunk_limits(context, LARGEST_CHUNK, LARGEST_CACHE);
  if (!code) code = spng_get_ihdr(context, &header);
  if (code) {
    status = fail_broken(name, code, error);
    goto done;
  }
  BND_TRY_GOTO(bnd_image_allocate(name, header.width, header.height, image, error), done);
  /* RGB8 without flags is what OpenCV asks of libpng: palette and grey expanded, 16 bits cut to their high byte, alpha, tRNS and gAMA ignored. */
  code = spng_decoded_image_size(context, SPNG_FMT_RGB8, &needed);
  if (!code && needed != (size_t)image->width * (size_t)image->height * 3) {
    status = bnd_fail(error, BND_ERROR_INTERNAL, "%s: the PNG decoder expects %zu bytes", name, needed);
    goto done;
  }
  if (!code) code = spng_decode_image(context, image->pixels, needed, SPNG_FMT_RGB8, 0);
  if (!code) code = spng_decode_chunks(context); /* eXIf may stand behind the pixels */
  if (code) {
    status = fail_broken(name, code, error);
    goto done;
  }
  if (spng_get_exif(context, &exif) == 0) *orientation = bnd_exif_orientation((const uint8_t *)exif.data, exif.length);
done:
  spng_ctx_free(context);
  if (status != BND_OK) bnd_image_free(image);
  return status;
}

bnd_status bnd_image_encode_png(const bnd_image *image, void **data, size_t *size, bnd_error *error) {
  spng_ctx *context = spng_ctx_new(SPNG_CTX_ENCODER);
  if (!context) return bnd_fail_memory(error, "the PNG encoder");
  struct spng_ihdr header = {
      .width = (uint32_t)image->width, .height = (uint32_t)image->height, .bit_depth = 8, .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
  int code = spng_set_option(context, SPNG_ENCODE_TO_BUFFER, 1);
  if (!code) code = spng_set_ihdr(context, &header);
  if (!code) code = spng_encode_image(context, image->pixels, (size_t)image->width * (size_t)image->height * 3, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
  void *encoded = code ? NULL : spng_get_png_buffer(context, size, &code);
  spng_ctx_free(context);
  if (!encoded) return bnd_fail(error, code == SPNG_EMEM ? BND_ERROR_MEMORY : BND_ERROR_INTERNAL, "PNG encoder: %s", spng_strerror(code));
  *data = encoded;
  return BND_OK;
}
