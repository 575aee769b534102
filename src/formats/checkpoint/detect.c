#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "formats/checkpoint/container.h"

int64_t bnd_read_at(int file, void *to, size_t size, uint64_t offset) {
  size_t done = 0;
  if (offset > INT64_MAX) return -1;
  while (done < size) {
    const ssize_t got = pread(file, (char *)to + done, size - done, (off_t)(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += (size_t)got;
  }
  return (int64_t)done;
}

static bool starts(const unsigned char *head, size_t size, const char *magic, size_t length) {
  return size >= length && memcmp(head, magic, length) == 0;
}

static bool starts_with_tag(const unsigned char *head, size_t size, const char *tag) {
  size_t at = starts(head, size, "\xef\xbb\xbf", 3) ? 3 : 0;
  while (at < size && isspace(head[at])) at++;
  return size - at >= strlen(tag) && strncasecmp((const char *)head + at, tag, strlen(tag)) == 0;
}

/* u64 length of a JSON header, then the header. */
static bool is_safetensors(const unsigned char *head, size_t size, uint64_t file_size) {
  uint64_t length = 0;
  if (size < 9 || head[8] != '{') return false;
  for (int i = 0; i < 8; i++) length |= (uint64_t)head[i] << (8 * i);
  return length >= 2 && length <= file_size - 8;
}

/* Field 1 (ir_version, a small varint), then one of ModelProto's other fields, as every exporter writes it. */
static bool is_onnx(const unsigned char *head, size_t size) {
  return size >= 3 && head[0] == 0x08 && head[1] >= 1 && head[1] <= 32 && memchr("\x12\x1a\x22\x28\x32\x3a\x42", head[2], 7);
}

/* What a file that is no checkpoint is, and what to do about it; NULL if unknown. */
static const char *foreign(const unsigned char *head, size_t size, uint64_t file_size) {
  static const struct {
    const char *magic;
    size_t length;
    const char *what;
  } MAGICS[] = {
      {"version https://git-lfs.", 24, "is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository"},
      {"\x1f\x8b", 2, "is compressed with gzip; unpack it first"},
      {"BZh", 3, "is compressed with bzip2; unpack it first"},
      {"\xfd" "7zXZ", 5, "is compressed with xz; unpack it first"},
      {"\x28\xb5\x2f\xfd", 4, "is compressed with zstd; unpack it first"},
      {"7z\xbc\xaf", 4, "is a 7-Zip archive; unpack it first"},
      {"Rar!", 4, "is a RAR archive; unpack it first"},
      {"\x89HDF\r\n", 6, "is an HDF5 file (Keras), not a PyTorch checkpoint"},
      {"\x93NUMPY", 6, "is a NumPy array, not a PyTorch checkpoint"},
      {"GGUF", 4, "is a GGUF file, not a PyTorch checkpoint"},
      {"\x89PNG", 4, "is a PNG image, not a PyTorch checkpoint"},
      {"\xff\xd8\xff", 3, "is a JPEG image, not a PyTorch checkpoint"},
      {"%PDF", 4, "is a PDF document, not a PyTorch checkpoint"},
      {"\x7f" "ELF", 4, "is a program, not a PyTorch checkpoint"},
      {"PK\x05\x06", 4, "is an empty zip archive"},
  };
  for (size_t i = 0; i < sizeof MAGICS / sizeof *MAGICS; i++)
    if (starts(head, size, MAGICS[i].magic, MAGICS[i].length)) return MAGICS[i].what;
  if (size >= 262 && memcmp(head + 257, "ustar", 5) == 0)
    return "is a tar archive; if it holds checkpoints, unpack it; if it was written by PyTorch before 0.1.10, load and save it again with torch";
  if (size >= 8 && memcmp(head + 4, "TFL3", 4) == 0) return "is a TensorFlow Lite model, not a PyTorch checkpoint";
  if (starts_with_tag(head, size, "<!doctype html") || starts_with_tag(head, size, "<html") || starts_with_tag(head, size, "<head"))
    return "is a web page (HTML); the download needs another link or a login";
  if (starts_with_tag(head, size, "<?xml")) return "is an XML document, probably the error message of a download; get the file again";
  if (is_safetensors(head, size, file_size)) return "is a safetensors file; save the weights with torch.save instead";
  if (is_onnx(head, size)) return "is an ONNX model; give the PyTorch checkpoint it was made from";
  if (starts_with_tag(head, size, "{") || starts_with_tag(head, size, "[")) return "is a JSON text, not a PyTorch checkpoint";
  return NULL;
}

bnd_status bnd_container_detect(const bnd_checkpoint *checkpoint, bnd_container *container, bnd_error *error) {
  /* torch/serialization.py: MAGIC_NUMBER as pickled with protocol 2 or later; protocol 1 writes it in decimal. */
  static const char LEGACY[] = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", OLD_LEGACY[] = "L119547037146038801333356L\n.";
  unsigned char head[512];
  const int64_t got = bnd_read_at(checkpoint->file, head, sizeof head, 0);
  if (got < 0) return bnd_fail(error, BND_ERROR_IO, "%s: cannot be read: %s", checkpoint->path, strerror(errno));
  const size_t size = (size_t)got;
  if (size == 0) return bnd_fail(error, BND_ERROR_FORMAT, "%s: is empty; the download or copy failed, get it again", checkpoint->path);
  const bool pickled = size > 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5;
  const size_t frame = pickled && size > 11 && head[2] == 0x95 ? 9 : 0; /* from protocol 4 on */
  if (starts(head, size, "PK\x03\x04", 4)) {
    *container = BND_CONTAINER_ZIP;
  } else if (pickled && starts(head + 2 + frame, size - 2 - frame, LEGACY, sizeof LEGACY - 1)) {
    *container = BND_CONTAINER_LEGACY;
  } else if (starts(head, size, OLD_LEGACY, sizeof OLD_LEGACY - 1)) {
    *container = BND_CONTAINER_LEGACY;
  } else {
    const char *what = foreign(head, size, checkpoint->size);
    if (!what && pickled) what = "is a Python pickle that torch.save did not write; save the state dict with torch.save";
    if (!what) what = "is not a PyTorch checkpoint: it begins with neither a zip archive nor torch's magic number";
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: %s", checkpoint->path, what);
  }
  return BND_OK;
}
