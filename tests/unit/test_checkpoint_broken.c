/* Files that are damaged, hostile or something else: one clear error that names the place; never a crash, leak, hang or huge allocation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/checkpoint/checkpoint.h"

/* Counts the values of a tree by a plain recursive walk, which must be safe. */
static size_t walk(const bnd_value *value) {
  size_t count = 1;
  if (!value) return 0;
  switch (value->kind) {
    case BND_VALUE_LIST:
    case BND_VALUE_TUPLE:
      for (size_t i = 0; i < value->list.count; i++) count += walk(value->list.items[i]);
      break;
    case BND_VALUE_DICT:
      for (size_t i = 0; i < value->dict.count; i++) count += walk(value->dict.pairs[i].key) + walk(value->dict.pairs[i].value);
      break;
    case BND_VALUE_OPAQUE: count += walk(value->opaque.arguments) + walk(value->opaque.state); break;
    default: break;
  }
  return count;
}

/* Does all that can be done with a file. */
static bnd_status use(const char *path, bnd_error *error) {
  bnd_checkpoint *checkpoint;
  bnd_state_dict state_dict;
  *error = (bnd_error){0};
  BND_TRY(bnd_checkpoint_open(path, &checkpoint, error));
  bnd_status status = walk(bnd_checkpoint_root(checkpoint)) ? BND_OK : BND_ERROR_INTERNAL;
  if (status == BND_OK) status = bnd_checkpoint_state_dict(checkpoint, NULL, &state_dict, error);
  for (size_t i = 0; status == BND_OK && i < state_dict.count; i++) {
    bnd_tensor tensor;
    status = bnd_checkpoint_entry_tensor(checkpoint, &state_dict.entries[i], &tensor, error);
    if (status == BND_OK) bnd_tensor_release(&tensor);
  }
  bnd_checkpoint_close(checkpoint);
  return status;
}

static void assert_refused(const char *path, bnd_status expected, const char *message) {
  bnd_error error;
  const bnd_status status = use(path, &error);
  if (status != expected || error.status != expected || !strstr(error.message, message) || strncmp(error.message, path, strlen(path)) != 0)
    fail_msg("%s: status %d: \"%s\" instead of %d: \"%s\"", path, status, error.message, expected, message);
}

/* ---- files made by make_checkpoints.py ---- */

static void each_broken_file_has_its_message(void **state) {
  (void)state;
  static const struct {
    const char *name;
    bnd_status status;
    const char *message;
  } CASES[] = {
      {"evil_root.pth", BND_ERROR_MODEL, "holds an object made by os.system"},
      {"evil_tensor.pth", BND_ERROR_UNSUPPORTED, "tensor 'v' (torch._utils._rebuild_tensor_v2) is of a kind that cannot be read: it has too few"},
      {"laughs.pth", BND_ERROR_FORMAT, "contain each other so often"},
      {"deep.pth", BND_ERROR_FORMAT, "nested more than 200 deep"},
      {"beyond.pth", BND_ERROR_FORMAT, "tensor 'w': its offset, size and strides reach beyond storage '0'"},
      {"stride_beyond.pth", BND_ERROR_FORMAT, "tensor 'w': its offset, size and strides reach beyond storage '0'"},
      {"negative.pth", BND_ERROR_UNSUPPORTED, "its size is not made of natural numbers"},
      {"negative_stride.pth", BND_ERROR_UNSUPPORTED, "its stride is not made of natural numbers"},
      {"negative_storage.pth", BND_ERROR_FORMAT, "archive/data.pkl: byte 9"},
      {"huge.pth", BND_ERROR_FORMAT, "tensor 'w': is larger than the whole file can fill"},
      {"overlapping.pth", BND_ERROR_FORMAT, "tensor 'w': is larger than the whole file can fill"},
      {"many_overlapping.pth", BND_ERROR_FORMAT, "tensor 'w16': together with those before it"},
      {"lying_size.pth", BND_ERROR_FORMAT, "storage '0' holds 16 bytes, but data.pkl says 5 elements of float32"},
      {"missing.pth", BND_ERROR_FORMAT, "tensor 'w': storage '0' is missing from the archive"},
      {"overlapping_records.pth", BND_ERROR_FORMAT, "records are together larger than the file"},
      {"climbing.pth", BND_ERROR_FORMAT, "'archive/../../evil' points outside"},
      {"compressed.pth", BND_ERROR_FORMAT, "archive/data.pkl: is compressed"},
      {"encrypted.pth", BND_ERROR_FORMAT, "archive/data.pkl: is encrypted"},
      {"duplicate.pth", BND_ERROR_FORMAT, "entry 'archive/data/0' occurs twice"},
      {"twice_named.pth", BND_ERROR_FORMAT, "tensor 'w' occurs twice"},
      {"bad_order.pth", BND_ERROR_FORMAT, "archive/byteorder: is neither"},
      {"no_pickle.pth", BND_ERROR_FORMAT, "is a zip archive without"},
      {"torchscript.pth", BND_ERROR_UNSUPPORTED, "is a TorchScript model"},
      {"plain_pickle.pth", BND_ERROR_FORMAT, "is a Python pickle that torch.save did not write"},
      {"complex.pth", BND_ERROR_UNSUPPORTED, "tensor 'c': has the dtype complex64"},
      {"uint16.pth", BND_ERROR_UNSUPPORTED, "tensor 'a': has the dtype uint16"},
      {"sparse.pth", BND_ERROR_UNSUPPORTED, "tensor 'a' (torch._utils._rebuild_sparse_tensor)"},
      {"whole_module.pth", BND_ERROR_MODEL, "holds an object made by network.Network, not a state dict"},
      {"list.pth", BND_ERROR_MODEL, "holds a list, not a state dict"},
      {"no_state_dict.pth", BND_ERROR_MODEL, "(there is: epoch, model)"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    char path[512];
    snprintf(path, sizeof path, "%s/checkpoints/%s", TEST_DATA, CASES[i].name);
    assert_refused(path, CASES[i].status, CASES[i].message);
  }
}

/* ---- files that are something else ---- */

static void other_formats_are_named(void **state) {
  (void)state;
#define CONTENT(text) text, sizeof(text) - 1
  static char tar[1024];
  memcpy(tar, "sys_info", 8);
  memcpy(tar + 257, "ustar", 5);
  const struct {
    const char *content;
    size_t size;
    const char *message;
  } CASES[] = {
      {CONTENT(""), "is empty"},
      {CONTENT("\n <!DOCTYPE HTML><html></html>"), "is a web page (HTML)"},
      {CONTENT("\xef\xbb\xbf<html lang=en>"), "is a web page (HTML)"},
      {CONTENT("<?xml version='1.0'?><Error><Code>AccessDenied"), "is an XML document"},
      {CONTENT("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"), "is a Git LFS pointer"},
      {CONTENT("\x08\x00\x00\x00\x00\x00\x00\x00{\"a\":1} "), "is a safetensors file"},
      {CONTENT("\x08\x08\x12\x07pytorch"), "is an ONNX model"},
      {tar, sizeof tar, "is a tar archive"},
      {CONTENT("\x1f\x8b\x08\x00"), "is compressed with gzip"},
      {CONTENT("{\"message\": \"Not Found\"}"), "is a JSON text"},
      {CONTENT("\x89HDF\r\n\x1a\n"), "is an HDF5 file"},
      {CONTENT("PK\x03\x04"), "the zip archive is cut off or damaged"},
      {CONTENT("PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "is an empty zip archive"},
      {CONTENT("\x80\x02"), "is not a PyTorch checkpoint"},
      {CONTENT("x"), "is not a PyTorch checkpoint"},
      {CONTENT("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xea\x03."), "is not 1001"},
      {CONTENT("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."), "ends in the middle of the pickle"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    const char *path = "test_checkpoint_broken.tmp";
    assert_int_equal(bnd_file_write(path, CASES[i].content, CASES[i].size, NULL), BND_OK);
    bnd_error error;
    const bnd_status status = use(path, &error);
    if (status == BND_OK || !strstr(error.message, CASES[i].message)) fail_msg("\"%s\" instead of \"%s\"", error.message, CASES[i].message);
    remove(path);
  }
}

static void what_is_no_file_is_refused(void **state) {
  (void)state;
  assert_refused(TEST_DATA, BND_ERROR_IO, "is a folder");
  assert_refused("/nonexistent/x.pth", BND_ERROR_IO, "No such file");
  assert_refused("/dev/zero", BND_ERROR_IO, "is not a regular file");
  const char *pipe_path = "test_checkpoint_broken.fifo";
  remove(pipe_path);
  assert_int_equal(mkfifo(pipe_path, 0600), 0);
  assert_refused(pipe_path, BND_ERROR_IO, "is not a regular file");
  remove(pipe_path);
}

/* ---- mutations of valid files ---- */

static const char *const VALID[] = {"dtypes.pth",         "dtypes_legacy.pth",  "dtypes_protocol1.pth", "strided.pth",
                                    "strided_legacy.pth", "trainer.pth",        "trainer_legacy.pth",   "trainer_legacy_protocol4.pth",
                                    "trainer_protocol4.pth", "big_endian.pth",  "subclasses.pth",       "whole_module.pth"};
enum { VALID_COUNT = sizeof VALID / sizeof *VALID };

typedef struct memory_file {
  int file;
  char path[64];
} memory_file;

static memory_file memory_file_create(void) {
  memory_file made = {.file = memfd_create("checkpoint", 0)};
  assert_true(made.file >= 0);
  snprintf(made.path, sizeof made.path, "/proc/self/fd/%d", made.file);
  return made;
}

static bnd_status use_bytes(const memory_file *target, const char *data, size_t size) {
  assert_int_equal(ftruncate(target->file, 0), 0);
  assert_int_equal(pwrite(target->file, data, size, 0), (ssize_t)size);
  bnd_error error;
  const bnd_status status = use(target->path, &error);
  assert_int_equal(status, error.status);
  if (status != BND_OK && strncmp(error.message, target->path, strlen(target->path)) != 0) fail_msg("message without file: %s", error.message);
  return status;
}

static char *load(const char *name, size_t *size) {
  char path[512], *data = NULL;
  snprintf(path, sizeof path, "%s/checkpoints/%s", TEST_DATA, name);
  assert_int_equal(bnd_file_read(path, 1 << 20, &data, size, NULL), BND_OK);
  return data;
}

static void every_truncation_is_refused(void **state) {
  (void)state;
  const memory_file target = memory_file_create();
  for (size_t f = 0; f < VALID_COUNT; f++) {
    size_t size;
    char *data = load(VALID[f], &size);
    for (size_t length = 0; length < size; length += 1 + length / 512)
      if (use_bytes(&target, data, length) == BND_OK) fail_msg("%s: %zu of %zu bytes were enough", VALID[f], length, size);
    free(data);
  }
  close(target.file);
}

static uint64_t next_random(uint64_t *random) { /* xorshift64 */
  *random ^= *random << 13;
  *random ^= *random >> 7;
  *random ^= *random << 17;
  return *random;
}

static void damaged_bytes_do_no_harm(void **state) {
  (void)state;
  const memory_file target = memory_file_create();
  uint64_t random = 0x9e3779b97f4a7c15u;
  size_t refused = 0, total = 0;
  for (size_t f = 0; f < VALID_COUNT; f++) {
    size_t size;
    char *data = load(VALID[f], &size), *changed = malloc(size);
    assert_non_null(changed);
    for (int round = 0; round < 600; round++) {
      memcpy(changed, data, size);
      for (uint64_t flips = 1 + next_random(&random) % 4; flips--;) {
        const uint64_t at = next_random(&random) % size, how = next_random(&random);
        changed[at] = how % 3 == 0 ? (char)(how >> 8) : how % 3 == 1 ? (char)(changed[at] ^ 1 << (how >> 8 & 7)) : (char)(0xff * (how >> 8 & 1));
      }
      refused += use_bytes(&target, changed, size) != BND_OK;
      total++;
    }
    free(data);
    free(changed);
  }
  assert_true(refused > total / 4); /* the rest hits padding and numbers without a checksum */
  close(target.file);
}

static void a_flipped_bit_in_a_record_is_noticed(void **state) {
  (void)state;
  const memory_file target = memory_file_create();
  size_t size;
  char *data = load("big_endian.pth", &size);
  const char elements[] = {(char)0xc0, 0x40, 0, 0}; /* -3 as big-endian float32: the first element of w */
  char *at = memmem(data, size, elements, sizeof elements);
  assert_non_null(at);
  at[3] ^= 1;
  assert_int_equal(use_bytes(&target, data, size), BND_ERROR_FORMAT);
  bnd_error error;
  bnd_checkpoint *checkpoint;
  bnd_state_dict state_dict;
  assert_int_equal(bnd_checkpoint_open(target.path, &checkpoint, &error), BND_OK); /* listing reads no records */
  assert_int_equal(bnd_checkpoint_state_dict(checkpoint, NULL, &state_dict, &error), BND_OK);
  bnd_checkpoint_close(checkpoint);
  use(target.path, &error);
  assert_non_null(strstr(error.message, "record archive/data/0"));
  assert_non_null(strstr(error.message, "CRC"));
  free(data);
  close(target.file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_broken_file_has_its_message), cmocka_unit_test(other_formats_are_named),
      cmocka_unit_test(what_is_no_file_is_refused),       cmocka_unit_test(every_truncation_is_refused),
      cmocka_unit_test(damaged_bytes_do_no_harm),         cmocka_unit_test(a_flipped_bit_in_a_record_is_noticed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
