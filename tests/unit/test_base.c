#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "tensor/tensor.h"

static void sizes_that_overflow_are_refused(void **state) {
  (void)state;
  assert_null(bnd_alloc_aligned(SIZE_MAX / 2, 3));
  bnd_tensor tensor;
  bnd_error error = {0};
  assert_int_equal(bnd_tensor_create(BND_F32, &BND_SHAPE(INT64_MAX, INT64_MAX), &tensor, &error), BND_ERROR_MEMORY);
  assert_non_null(strstr(error.message, "too large"));
}

static void arena_memory_is_zeroed_and_aligned(void **state) {
  (void)state;
  bnd_arena *arena = bnd_arena_create();
  for (size_t size = 1; size < 200000; size = size * 3 + 1) {
    unsigned char *memory = bnd_arena_alloc(arena, size, 1);
    assert_int_equal((uintptr_t)memory % 16, 0);
    for (size_t i = 0; i < size; i++) assert_int_equal(memory[i], 0);
    memset(memory, 0xff, size);
  }
  assert_string_equal(bnd_arena_format(arena, "%s_%d", "add", 3), "add_3");
  bnd_arena_destroy(arena);
}

static void map_finds_what_was_put(void **state) {
  (void)state;
  bnd_map map = {0};
  char keys[500][8];
  for (size_t i = 0; i < 500; i++) {
    snprintf(keys[i], sizeof keys[i], "k%zu", i);
    assert_true(bnd_map_put(&map, keys[i], i));
  }
  assert_true(bnd_map_put(&map, "k7", 1000));
  size_t value;
  assert_true(bnd_map_get(&map, "k499", &value) && value == 499);
  assert_true(bnd_map_get(&map, "k7", &value) && value == 1000);
  assert_false(bnd_map_get(&map, "absent", &value));
  assert_int_equal(map.count, 500);
  bnd_map_free(&map);
}

static void abandoned_file_leaves_nothing(void **state) {
  (void)state;
  char folder[] = "/tmp/binade-test-XXXXXX", path[64], *data;
  size_t size;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/a", folder);
  bnd_file_writer *writer;
  assert_int_equal(bnd_file_writer_open(path, &writer, NULL), BND_OK);
  bnd_file_writer_append(writer, "half", 4);
  bnd_file_writer_abandon(writer);
  assert_int_not_equal(access(path, F_OK), 0);
  assert_int_equal(bnd_file_write(path, "whole", 5, NULL), BND_OK);
  assert_int_equal(bnd_file_read(path, 100, &data, &size, NULL), BND_OK);
  assert_string_equal(data, "whole");
  free(data);
  bnd_error error;
  assert_int_equal(bnd_file_read(path, 4, &data, &size, &error), BND_ERROR_FORMAT);
  assert_int_equal(bnd_file_write("/proc/no/such", "x", 1, &error), BND_ERROR_IO);
  unlink(path);
  assert_int_equal(rmdir(folder), 0);
}

/* A rename would put a file in the place of a device: /dev/null as output must stay what it is. A pipe stands in for it, which needs no root. */
static void only_regular_files_are_read_and_replaced(void **state) {
  (void)state;
  char folder[] = "/tmp/binade-test-XXXXXX", pipe[64], file[64], link[64], *data;
  size_t size;
  struct stat about;
  bnd_error error;
  assert_non_null(mkdtemp(folder));
  snprintf(pipe, sizeof pipe, "%s/pipe", folder);
  snprintf(file, sizeof file, "%s/file", folder);
  snprintf(link, sizeof link, "%s/link", folder);
  assert_int_equal(mkfifo(pipe, 0600), 0);
  alarm(10); /* whoever opens a pipe the usual way waits for ever */
  assert_int_equal(bnd_file_read(pipe, 100, &data, &size, &error), BND_ERROR_IO);
  assert_int_equal(bnd_file_write(pipe, "x", 1, &error), BND_ERROR_IO);
  assert_int_equal(bnd_file_write(folder, "x", 1, &error), BND_ERROR_IO);
  alarm(0);
  assert_true(stat(pipe, &about) == 0 && S_ISFIFO(about.st_mode));
  assert_int_equal(bnd_file_write(file, "old", 3, NULL), BND_OK);
  assert_int_equal(symlink("file", link), 0);
  assert_int_equal(bnd_file_write(link, "new", 3, NULL), BND_OK);
  assert_true(lstat(link, &about) == 0 && S_ISLNK(about.st_mode));
  assert_int_equal(bnd_file_read(file, 100, &data, &size, NULL), BND_OK);
  assert_string_equal(data, "new");
  free(data);
  unlink(link);
  unlink(file);
  unlink(pipe);
  assert_int_equal(rmdir(folder), 0); /* and nothing else was left */
}

static void half_floats_convert_exactly(void **state) {
  (void)state;
  const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x8000};
  const float expected[] = {1.f, -2.f, 0x1p-24f, 65504.f, -0.f};
  bnd_tensor half = {.dtype = BND_F16, .shape = BND_SHAPE(5), .count = 5, .data = (void *)halves}, single;
  assert_int_equal(bnd_tensor_to_f32(&half, &single, NULL), BND_OK);
  assert_memory_equal(single.data, expected, sizeof expected);
  bnd_tensor_release(&single);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes_that_overflow_are_refused), cmocka_unit_test(arena_memory_is_zeroed_and_aligned),
      cmocka_unit_test(map_finds_what_was_put),          cmocka_unit_test(abandoned_file_leaves_nothing),
      cmocka_unit_test(only_regular_files_are_read_and_replaced), cmocka_unit_test(half_floats_convert_exactly),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
