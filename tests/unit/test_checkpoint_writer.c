/* Written checkpoints, read back. tests/peers/checkpoint.test opens the same kind of files with torch and super-gradients. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/checkpoint/checkpoint.h"
#include "formats/checkpoint/writer.h"

#define MUST(expression)                                            \
  do {                                                              \
    bnd_error must_error = {0}, *const error = &must_error;         \
    if ((expression) != BND_OK) fail_msg("%s", must_error.message); \
  } while (0)

static char folder[64], path[128];

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/binade-writer-XXXXXX");
  if (!mkdtemp(folder)) return -1;
  snprintf(path, sizeof path, "%s/written.pth", folder);
  return 0;
}

static size_t files_in_folder(void) {
  DIR *directory = opendir(folder);
  size_t count = 0;
  for (struct dirent *entry; (entry = readdir(directory));) count += entry->d_name[0] != '.';
  closedir(directory);
  return count;
}

static int remove_folder(void **state) {
  (void)state;
  remove(path);
  return rmdir(folder); /* fails if a test left anything else */
}

static void read_file(const char *from, char **data, size_t *size) { MUST(bnd_file_read(from, 1 << 30, data, size, error)); }

static void assert_same_files(const char *a, const char *b) {
  char *data[2];
  size_t size[2];
  read_file(a, &data[0], &size[0]);
  read_file(b, &data[1], &size[1]);
  assert_int_equal(size[0], size[1]);
  assert_memory_equal(data[0], data[1], size[0]);
  free(data[0]);
  free(data[1]);
}

/* Bytes 7, 14, 21, .. whatever they mean in this type; booleans are 0 and 1. */
static bnd_tensor filled(bnd_dtype dtype, bnd_shape shape) {
  bnd_tensor tensor = {0};
  MUST(bnd_tensor_create(dtype, &shape, &tensor, error));
  for (size_t i = 0; i < tensor.count * bnd_dtype_size(dtype); i++)
    ((unsigned char *)tensor.data)[i] = (unsigned char)(dtype == BND_BOOL ? i % 3 == 0 : 7 * (i + 1));
  return tensor;
}

static const bnd_shape SHAPES[] = {{0}, {1, {1}}, {1, {0}}, {2, {3, 0}}, {3, {2, 1, 5}}, {4, {16, 3, 3, 3}}, {8, {1, 2, 1, 2, 1, 2, 1, 2}}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

static void tensors_of_every_type_and_shape_are_read_back(void **state) {
  (void)state;
  bnd_checkpoint_writer *w = bnd_checkpoint_writer_create();
  char name[64];
  bnd_checkpoint_begin_state_dict(w, "net");
  for (int dtype = BND_F32; dtype <= BND_BOOL; dtype++) {
    for (int s = 0; s < SHAPE_COUNT; s++) {
      bnd_tensor tensor = filled((bnd_dtype)dtype, SHAPES[s]);
      snprintf(name, sizeof name, "%s.%d", bnd_dtype_name((bnd_dtype)dtype), s);
      bnd_checkpoint_put_tensor(w, name, &tensor);
      bnd_tensor_release(&tensor); /* the writer has a reference */
    }
  }
  bnd_checkpoint_end(w);
  MUST(bnd_checkpoint_write(w, path, error));
  bnd_checkpoint_writer_free(w);

  bnd_checkpoint *checkpoint = NULL;
  bnd_state_dict dict;
  MUST(bnd_checkpoint_open(path, &checkpoint, error));
  MUST(bnd_checkpoint_state_dict(checkpoint, NULL, &dict, error));
  assert_string_equal(bnd_checkpoint_container(checkpoint), "zip");
  assert_string_equal(dict.key, "net");
  assert_int_equal(dict.count, 10 * SHAPE_COUNT);
  for (size_t i = 0; i < dict.count; i++) {
    const bnd_dtype dtype = (bnd_dtype)(i / SHAPE_COUNT);
    bnd_tensor tensor, expected = filled(dtype, SHAPES[i % SHAPE_COUNT]);
    snprintf(name, sizeof name, "%s.%zu", bnd_dtype_name(dtype), i % SHAPE_COUNT);
    assert_string_equal(dict.entries[i].name, name);
    MUST(bnd_checkpoint_entry_tensor(checkpoint, &dict.entries[i], &tensor, error));
    assert_int_equal(tensor.dtype, dtype);
    assert_true(bnd_shape_equal(&tensor.shape, &expected.shape));
    assert_memory_equal(tensor.data, expected.data, expected.count * bnd_dtype_size(dtype));
    bnd_tensor_release(&tensor);
    bnd_tensor_release(&expected);
  }
  bnd_checkpoint_close(checkpoint);
}

static const int64_t INTEGERS[] = {0, 255, 256, -1, INT32_MAX, INT32_MIN, (int64_t)INT32_MAX + 1, INT64_MAX, INT64_MIN};
static const double NUMBERS[] = {0.1, -0.0, 5e-324, 1.7976931348623157e308};
enum { INTEGER_COUNT = sizeof INTEGERS / sizeof *INTEGERS, NUMBER_COUNT = sizeof NUMBERS / sizeof *NUMBERS };
#define TEXT "gr\xc3\xb6\xc3\x9f\x65r \xe2\x82\xac \xf0\x9f\x90\xb1"

static bnd_checkpoint_writer *plain_values(void) {
  bnd_checkpoint_writer *w = bnd_checkpoint_writer_create();
  bnd_checkpoint_put_none(w, "none");
  bnd_checkpoint_put_bool(w, "true", true);
  bnd_checkpoint_put_bool(w, "false", false);
  bnd_checkpoint_put_text(w, TEXT, TEXT);
  bnd_checkpoint_begin_list(w, "integers");
  for (int i = 0; i < INTEGER_COUNT; i++) bnd_checkpoint_put_int(w, NULL, INTEGERS[i]);
  bnd_checkpoint_end(w);
  bnd_checkpoint_begin_list(w, "numbers");
  for (int i = 0; i < NUMBER_COUNT; i++) bnd_checkpoint_put_float(w, NULL, NUMBERS[i]);
  bnd_checkpoint_begin_list(w, NULL);
  bnd_checkpoint_end(w);
  bnd_checkpoint_end(w);
  bnd_checkpoint_begin_dict(w, "outer");
  bnd_checkpoint_begin_dict(w, "inner");
  bnd_checkpoint_put_text(w, "", "");
  bnd_checkpoint_end(w);
  bnd_checkpoint_begin_dict(w, "empty");
  bnd_checkpoint_end(w);
  bnd_checkpoint_end(w);
  return w;
}

static void plain_values_are_read_back(void **state) {
  (void)state;
  bnd_checkpoint_writer *w = plain_values();
  MUST(bnd_checkpoint_write(w, path, error));
  bnd_checkpoint_writer_free(w);
  bnd_checkpoint *checkpoint = NULL;
  MUST(bnd_checkpoint_open(path, &checkpoint, error));
  const bnd_value *root = bnd_checkpoint_root(checkpoint);
  assert_int_equal(root->kind, BND_VALUE_DICT);
  assert_int_equal(root->dict.count, 7);
  assert_int_equal(bnd_value_get(root, "none")->kind, BND_VALUE_NONE);
  assert_int_equal(bnd_value_get(root, "true")->kind, BND_VALUE_BOOL);
  assert_true(bnd_value_get(root, "true")->boolean);
  assert_false(bnd_value_get(root, "false")->boolean);
  assert_string_equal(bnd_value_text(bnd_value_get(root, TEXT)), TEXT);
  const bnd_value *integers = bnd_value_get(root, "integers"), *numbers = bnd_value_get(root, "numbers"), *outer = bnd_value_get(root, "outer");
  assert_int_equal(integers->kind, BND_VALUE_LIST);
  assert_int_equal(integers->list.count, INTEGER_COUNT);
  for (int i = 0; i < INTEGER_COUNT; i++) {
    assert_int_equal(integers->list.items[i]->kind, BND_VALUE_INT);
    assert_true(integers->list.items[i]->integer == INTEGERS[i]);
  }
  assert_int_equal(numbers->list.count, NUMBER_COUNT + 1);
  for (int i = 0; i < NUMBER_COUNT; i++) {
    assert_int_equal(numbers->list.items[i]->kind, BND_VALUE_FLOAT);
    assert_memory_equal(&numbers->list.items[i]->number, &NUMBERS[i], sizeof *NUMBERS);
  }
  assert_int_equal(numbers->list.items[NUMBER_COUNT]->kind, BND_VALUE_LIST);
  assert_string_equal(bnd_value_text(bnd_value_get(bnd_value_get(outer, "inner"), "")), "");
  assert_int_equal(bnd_value_get(outer, "empty")->dict.count, 0);
  bnd_checkpoint_close(checkpoint);
}

/* Reads the whole state dict of `from` and writes it again. */
static bnd_checkpoint_writer *rewriter(const char *from) {
  bnd_checkpoint *checkpoint = NULL;
  bnd_state_dict dict;
  MUST(bnd_checkpoint_open(from, &checkpoint, error));
  MUST(bnd_checkpoint_state_dict(checkpoint, NULL, &dict, error));
  bnd_checkpoint_writer *w = bnd_checkpoint_writer_create();
  bnd_checkpoint_begin_state_dict(w, "net");
  for (size_t i = 0; i < dict.count; i++) {
    bnd_tensor tensor;
    MUST(bnd_checkpoint_entry_tensor(checkpoint, &dict.entries[i], &tensor, error));
    bnd_checkpoint_put_tensor(w, dict.entries[i].name, &tensor);
    bnd_tensor_release(&tensor);
  }
  bnd_checkpoint_end(w);
  bnd_checkpoint_close(checkpoint);
  return w;
}

#define EXAMPLE TEST_DATA "/../../examples/shapes/yolo_nas_pico_shapes.pth"

static void equal_content_gives_equal_bytes(void **state) {
  (void)state;
  char second[160];
  snprintf(second, sizeof second, "%s.second", path);
  bnd_checkpoint_writer *w = rewriter(EXAMPLE);
  MUST(bnd_checkpoint_write(w, path, error));
  MUST(bnd_checkpoint_write(w, second, error)); /* the same writer again */
  bnd_checkpoint_writer_free(w);
  assert_same_files(path, second);
  w = rewriter(path); /* and from what was written */
  MUST(bnd_checkpoint_write(w, second, error));
  bnd_checkpoint_writer_free(w);
  assert_same_files(path, second);
  remove(second);
}

static uint32_t number(const char *data, size_t at, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint32_t)(unsigned char)data[at + (size_t)i] << (8 * i);
  return value;
}

/* Walks the local headers. */
static void data_begin_at_multiples_of_64(void **state) {
  (void)state;
  char *data;
  size_t size, at = 0, records = 0;
  bnd_checkpoint_writer *w = rewriter(EXAMPLE);
  MUST(bnd_checkpoint_write(w, path, error));
  bnd_checkpoint_writer_free(w);
  read_file(path, &data, &size);
  for (; number(data, at, 4) == 0x04034b50; records++) {
    const size_t begin = at + 30 + number(data, at + 26, 2) + number(data, at + 28, 2);
    assert_int_equal(begin % 64, 0);
    assert_int_equal(number(data, at + 8, 2), 0); /* stored */
    at = begin + number(data, at + 18, 4);
  }
  assert_int_equal(records, 921 + 3);
  assert_int_equal(number(data, at, 4), 0x02014b50);
  free(data);
}

/* A place that is full after `limit` bytes: what was there before stays, and nothing else. */
static void full_places_keep_what_was_there(void **state) {
  (void)state;
  static const rlim_t LIMITS[] = {0, 100, 65536, 5000000};
  bnd_checkpoint_writer *small = plain_values(), *large = rewriter(EXAMPLE);
  char *before, *after;
  size_t size[2];
  struct rlimit old;
  MUST(bnd_checkpoint_write(small, path, error));
  read_file(path, &before, &size[0]);
  getrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_IGN);
  for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++) {
    bnd_error error = {0};
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){LIMITS[i], old.rlim_max});
    const bnd_status status = bnd_checkpoint_write(large, path, &error);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, BND_ERROR_IO);
    assert_non_null(strstr(error.message, path));
    assert_non_null(strstr(error.message, "cannot be written"));
    assert_int_equal(files_in_folder(), 1);
  }
  signal(SIGXFSZ, SIG_DFL);
  read_file(path, &after, &size[1]);
  assert_int_equal(size[0], size[1]);
  assert_memory_equal(before, after, size[0]);
  MUST(bnd_checkpoint_write(large, path, error)); /* with room again */
  free(before);
  free(after);
  bnd_checkpoint_writer_free(small);
  bnd_checkpoint_writer_free(large);
}

static void impossible_places_are_named(void **state) {
  (void)state;
  static const char *const PLACES[] = {"/dev/full", "/tmp", "/nonexistent-folder/x.pth"};
  bnd_checkpoint_writer *w = plain_values();
  for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
    bnd_error error = {0};
    assert_int_equal(bnd_checkpoint_write(w, PLACES[i], &error), BND_ERROR_IO);
    assert_memory_equal(error.message, PLACES[i], strlen(PLACES[i]));
  }
  bnd_checkpoint_writer_free(w);
  bnd_checkpoint_writer_free(NULL);
}

static void end_too_often(bnd_checkpoint_writer *w) { bnd_checkpoint_end(w); }
static void never_end(bnd_checkpoint_writer *w) { bnd_checkpoint_begin_list(w, "list"); }
static void no_key(bnd_checkpoint_writer *w) { bnd_checkpoint_put_int(w, NULL, 1); }
static void key_in_list(bnd_checkpoint_writer *w) {
  bnd_checkpoint_begin_list(w, "list");
  bnd_checkpoint_put_int(w, "one", 1);
  bnd_checkpoint_end(w);
}
static void latin_key(bnd_checkpoint_writer *w) { bnd_checkpoint_put_int(w, "gr\xf6\xdf", 1); }
static void latin_text(bnd_checkpoint_writer *w) { bnd_checkpoint_put_text(w, "size", "gr\xf6\xdf"); }
static void overlong_text(bnd_checkpoint_writer *w) { bnd_checkpoint_put_text(w, "size", "\xc0\x80"); }
static void surrogate_text(bnd_checkpoint_writer *w) { bnd_checkpoint_put_text(w, "size", "\xed\xa0\x80"); }
static void cut_text(bnd_checkpoint_writer *w) { bnd_checkpoint_put_text(w, "size", "\xf0\x9f\x90"); }
static void too_deep(bnd_checkpoint_writer *w) {
  for (int i = 0; i < 100; i++) bnd_checkpoint_begin_dict(w, "deeper");
  for (int i = 0; i < 100; i++) bnd_checkpoint_end(w);
}

static void misuse_is_reported_and_writes_nothing(void **state) {
  (void)state;
  static void (*const MISUSE[])(bnd_checkpoint_writer *) = {end_too_often, never_end,     no_key,         key_in_list, latin_key,
                                                            latin_text,    overlong_text, surrogate_text, cut_text,    too_deep};
  for (size_t i = 0; i < sizeof MISUSE / sizeof *MISUSE; i++) {
    bnd_error error = {0};
    bnd_checkpoint_writer *w = bnd_checkpoint_writer_create();
    MISUSE[i](w);
    bnd_checkpoint_put_int(w, "later", 1); /* the first error is kept */
    assert_int_equal(bnd_checkpoint_write(w, path, &error), BND_ERROR_ARGUMENT);
    assert_memory_equal(error.message, path, strlen(path));
    assert_int_equal(files_in_folder(), 0);
    bnd_checkpoint_writer_free(w);
  }
  bnd_checkpoint_writer *w = plain_values();
  MUST(bnd_checkpoint_write(w, path, error));
  bnd_checkpoint_put_int(w, "later", 1);
  assert_int_equal(bnd_checkpoint_write(w, path, NULL), BND_ERROR_ARGUMENT);
  bnd_checkpoint_writer_free(w);
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
  const struct CMUnitTest tests[] = {
      CASE(tensors_of_every_type_and_shape_are_read_back),
      CASE(plain_values_are_read_back),
      CASE(equal_content_gives_equal_bytes),
      CASE(data_begin_at_multiples_of_64),
      CASE(full_places_keep_what_was_there),
      CASE(impossible_places_are_named),
      CASE(misuse_is_reported_and_writes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
