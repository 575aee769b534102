#include "formats/checkpoint/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "formats/checkpoint/zip_writer.h"

enum { MAX_DEPTH = 32, MAX_CLASSES = 16 };

struct bnd_checkpoint_writer {
  bnd_string pickle;
  bnd_tensor *tensors; /* tensor k is the record data/k */
  size_t count, capacity;
  bool is_list[MAX_DEPTH]; /* the dicts and lists that are open; [0] is the checkpoint */
  int depth;
  const char *classes[MAX_CLASSES]; /* named so far, each in the pickle's memo under its index */
  int class_count;
  bool finished;
  bnd_status status; /* of the first error */
  bnd_error error;
};

/* --- opcodes: CPython's Lib/pickle.py --- */

static void append(bnd_checkpoint_writer *w, const char *bytes, size_t count) { bnd_string_append(&w->pickle, bytes, count); }
#define APPEND(w, literal) append(w, literal, sizeof(literal) - 1)

static void append_little_endian(bnd_checkpoint_writer *w, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) append(w, &(char){(char)(value >> (8 * i))}, 1);
}

static void append_int(bnd_checkpoint_writer *w, int64_t value) {
  if (value >= 0 && value < 256) {
    APPEND(w, "K");
    append_little_endian(w, (uint64_t)value, 1);
  } else if (value >= INT32_MIN && value <= INT32_MAX) {
    APPEND(w, "J");
    append_little_endian(w, (uint64_t)value, 4);
  } else {
    APPEND(w, "\x8a\x08"); /* two's complement in eight bytes */
    append_little_endian(w, (uint64_t)value, 8);
  }
}

static void append_text(bnd_checkpoint_writer *w, const char *text) {
  const size_t length = strlen(text);
  APPEND(w, "X");
  append_little_endian(w, length, 4);
  append(w, text, length);
}

/* A class or function, as "module\nname\n"; a string constant. Written out once, then taken from the memo. */
static void append_class(bnd_checkpoint_writer *w, const char *name) {
  int index = 0;
  while (index < w->class_count && strcmp(w->classes[index], name) != 0) index++;
  if (index < w->class_count) {
    APPEND(w, "h");
  } else {
    APPEND(w, "c");
    append(w, name, strlen(name));
    APPEND(w, "q");
    w->classes[w->class_count++] = name;
  }
  append_little_endian(w, (uint64_t)index, 1);
}

/* "torch\nFloatStorage\n" */
static const char *storage_class(bnd_dtype dtype) {
  switch (dtype) {
    case BND_F32: return "torch\nFloatStorage\n";
    case BND_F64: return "torch\nDoubleStorage\n";
    case BND_F16: return "torch\nHalfStorage\n";
    case BND_BF16: return "torch\nBFloat16Storage\n";
    case BND_I64: return "torch\nLongStorage\n";
    case BND_I32: return "torch\nIntStorage\n";
    case BND_I16: return "torch\nShortStorage\n";
    case BND_I8: return "torch\nCharStorage\n";
    case BND_U8: return "torch\nByteStorage\n";
    case BND_BOOL: return "torch\nBoolStorage\n";
  }
  return NULL;
}

/* torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks) */
static void append_tensor(bnd_checkpoint_writer *w, const bnd_tensor *tensor, size_t index) {
  char key[24];
  snprintf(key, sizeof key, "%zu", index);
  append_class(w, "torch._utils\n_rebuild_tensor_v2\n");
  APPEND(w, "((");
  append_text(w, "storage");
  append_class(w, storage_class(tensor->dtype));
  append_text(w, key);
  append_text(w, "cpu");
  append_int(w, (int64_t)tensor->count);
  APPEND(w, "tQK\0(");
  for (int i = 0; i < tensor->shape.rank; i++) append_int(w, tensor->shape.size[i]);
  APPEND(w, "t(");
  for (int i = 0; i < tensor->shape.rank; i++) {
    int64_t stride = 1;
    for (int k = i + 1; k < tensor->shape.rank; k++) stride *= tensor->shape.size[k] ? tensor->shape.size[k] : 1;
    append_int(w, stride);
  }
  APPEND(w, "t\x89");
  append_class(w, "collections\nOrderedDict\n");
  APPEND(w, ")RtR");
}

/* --- values --- */

static bool is_utf8(const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  while (*at) {
    const size_t length = *at < 0x80 ? 1 : *at >= 0xc2 && *at <= 0xdf ? 2 : (*at & 0xf0) == 0xe0 ? 3 : *at >= 0xf0 && *at <= 0xf4 ? 4 : 0;
    for (size_t i = 1; i < length; i++)
      if ((at[i] & 0xc0) != 0x80) return false; /* also stops at the terminating NUL */
    if (!length || (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f)) return false;
    if ((at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f)) return false;
    at += length;
  }
  return true;
}

static void misuse(bnd_checkpoint_writer *w, const char *key, const char *problem) {
  if (w->status == BND_OK) w->status = bnd_fail(&w->error, BND_ERROR_ARGUMENT, "the checkpoint cannot hold '%.100s': %s", key ? key : "", problem);
}

/* Begins every value: its key. False when there is already an error. */
static bool begin_value(bnd_checkpoint_writer *w, const char *key) {
  if (w->finished) misuse(w, key, "it was already written");
  if (w->status != BND_OK) return false;
  if (w->is_list[w->depth] != (key == NULL)) misuse(w, key, key ? "items of a list have no keys" : "values of a dict need keys");
  if (key && (!is_utf8(key) || strlen(key) > INT32_MAX)) misuse(w, "?", "its key is no UTF-8 text");
  if (w->status == BND_OK && key) append_text(w, key);
  return w->status == BND_OK;
}

static void open_container(bnd_checkpoint_writer *w, const char *key, bool is_list) {
  if (w->depth + 1 == MAX_DEPTH) {
    misuse(w, key, "it is nested too deep");
    return;
  }
  APPEND(w, "("); /* the mark where its content begins */
  w->is_list[++w->depth] = is_list;
}

void bnd_checkpoint_begin_dict(bnd_checkpoint_writer *w, const char *key) {
  if (!begin_value(w, key)) return;
  APPEND(w, "}");
  open_container(w, key, false);
}

void bnd_checkpoint_begin_state_dict(bnd_checkpoint_writer *w, const char *key) {
  if (!begin_value(w, key)) return;
  append_class(w, "collections\nOrderedDict\n");
  APPEND(w, ")R");
  open_container(w, key, false);
}

void bnd_checkpoint_begin_list(bnd_checkpoint_writer *w, const char *key) {
  if (!begin_value(w, key)) return;
  APPEND(w, "]");
  open_container(w, key, true);
}

void bnd_checkpoint_end(bnd_checkpoint_writer *w) {
  if (w->depth == 0) misuse(w, NULL, "there is an end without a begin");
  if (w->status == BND_OK) append(w, w->is_list[w->depth--] ? "e" : "u", 1);
}

void bnd_checkpoint_put_none(bnd_checkpoint_writer *w, const char *key) {
  if (begin_value(w, key)) APPEND(w, "N");
}

void bnd_checkpoint_put_bool(bnd_checkpoint_writer *w, const char *key, bool value) {
  if (begin_value(w, key)) append(w, value ? "\x88" : "\x89", 1);
}

void bnd_checkpoint_put_int(bnd_checkpoint_writer *w, const char *key, int64_t value) {
  if (begin_value(w, key)) append_int(w, value);
}

void bnd_checkpoint_put_float(bnd_checkpoint_writer *w, const char *key, double value) {
  uint64_t bits;
  if (!begin_value(w, key)) return;
  memcpy(&bits, &value, sizeof bits);
  APPEND(w, "G");
  append_little_endian(w, __builtin_bswap64(bits), 8);
}

void bnd_checkpoint_put_text(bnd_checkpoint_writer *w, const char *key, const char *value) {
  if (!is_utf8(value) || strlen(value) > INT32_MAX) misuse(w, key, "its text is no UTF-8");
  if (begin_value(w, key)) append_text(w, value);
}

void bnd_checkpoint_put_tensor(bnd_checkpoint_writer *w, const char *key, const bnd_tensor *tensor) {
  if (!begin_value(w, key)) return;
  if (!BND_GROW(w->tensors, w->capacity, w->count + 1)) {
    w->status = bnd_fail_memory(&w->error, "the checkpoint");
    return;
  }
  w->tensors[w->count] = bnd_tensor_share(tensor, NULL);
  append_tensor(w, tensor, w->count++);
}

/* --- life --- */

bnd_checkpoint_writer *bnd_checkpoint_writer_create(void) {
  bnd_checkpoint_writer *w = bnd_calloc(1, sizeof *w);
  if (w) APPEND(w, "\x80\x02}("); /* protocol 2, the dict, the mark where its content begins */
  return w;
}

void bnd_checkpoint_writer_free(bnd_checkpoint_writer *w) {
  if (!w) return;
  for (size_t i = 0; i < w->count; i++) bnd_tensor_release(&w->tensors[i]);
  free(w->tensors);
  bnd_string_free(&w->pickle);
  free(w);
}

static bnd_status finish(bnd_checkpoint_writer *w) {
  if (w->depth > 0) misuse(w, NULL, "a dict or list has no end");
  if (w->status == BND_OK && !w->finished) APPEND(w, "u.");
  w->finished = true;
  if (w->status == BND_OK && w->pickle.failed) w->status = bnd_fail_memory(&w->error, "the checkpoint");
  return w->status;
}

bnd_status bnd_checkpoint_write(bnd_checkpoint_writer *w, const char *path, bnd_error *error) {
  static const char *const BYTE_ORDER_NAME = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? "little" : "big";
  bnd_zip_writer *zip;
  if (finish(w) != BND_OK) return bnd_fail(error, w->status, "%s: %s", path, w->error.message);
  BND_TRY(bnd_zip_writer_open(path, &zip, error));
  bnd_zip_writer_add(zip, "archive/data.pkl", w->pickle.text, w->pickle.length);
  bnd_zip_writer_add(zip, "archive/byteorder", BYTE_ORDER_NAME, strlen(BYTE_ORDER_NAME));
  for (size_t i = 0; i < w->count; i++) {
    char name[40];
    snprintf(name, sizeof name, "archive/data/%zu", i);
    bnd_zip_writer_add(zip, name, w->tensors[i].data, w->tensors[i].count * bnd_dtype_size(w->tensors[i].dtype));
  }
  bnd_zip_writer_add(zip, "archive/version", "3\n", 2);
  return bnd_zip_writer_commit(zip, error);
}
