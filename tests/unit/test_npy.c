/* NumPy files against the format's definition (numpy.lib.format, version 1.0), parsed here by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/npy/npy.h"

static char path[64];

static int make_path(void **state) {
  (void)state;
  snprintf(path, sizeof path, "npy-test-%ld.npy", (long)getpid());
  return 0;
}

static int remove_file(void **state) {
  (void)state;
  remove(path);
  return 0;
}

/* Writes, reads back, checks everything but the text of the header, which has to be `literal` and then spaces. */
static void check(bnd_dtype dtype, const bnd_shape *shape, const void *data, size_t bytes, const char *literal) {
  bnd_error error;
  char *content;
  size_t size;
  assert_int_equal(bnd_npy_write(path, dtype, shape, data, &error), BND_OK);
  assert_int_equal(bnd_file_read(path, 1 << 20, &content, &size, &error), BND_OK);
  assert_true(size > 10);
  assert_memory_equal(content, "\x93NUMPY\x01\x00", 8);
  const size_t header = (size_t)(unsigned char)content[8] + 256 * (size_t)(unsigned char)content[9];
  assert_int_equal((10 + header) % 64, 0);
  assert_int_equal(size, 10 + header + bytes);
  assert_memory_equal(content + 10, literal, strlen(literal));
  for (size_t i = strlen(literal); i + 1 < header; i++) assert_int_equal(content[10 + i], ' ');
  assert_int_equal(content[10 + header - 1], '\n');
  if (bytes) assert_memory_equal(content + 10 + header, data, bytes);
  free(content);
}

static void types_and_shapes(void **state) {
  (void)state;
  const int8_t bytes[] = {-128, -1, 0, 1, 127, 5};
  const uint8_t unsigned_bytes[] = {0, 255};
  const int16_t shorts[] = {-32768, 32767};
  const int32_t words[] = {INT32_MIN, -1, INT32_MAX};
  const int64_t longs[] = {INT64_MIN};
  const float floats[] = {0.f, -1.5f, 3.f, 4.f};
  const double number = 0.1;
  check(BND_I8, &BND_SHAPE(1, 2, 3), bytes, 6, "{'descr': '|i1', 'fortran_order': False, 'shape': (1, 2, 3), }");
  check(BND_U8, &BND_SHAPE(2), unsigned_bytes, 2, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }");
  check(BND_I16, &BND_SHAPE(2, 1), shorts, 4, "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 1), }");
  check(BND_I32, &BND_SHAPE(3), words, 12, "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }");
  check(BND_I64, &BND_SHAPE(1), longs, 8, "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }");
  check(BND_F32, &BND_SHAPE(4, 1), floats, 16, "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1), }");
  check(BND_F64, &(bnd_shape){0}, &number, 8, "{'descr': '<f8', 'fortran_order': False, 'shape': (), }");
  check(BND_I8, &BND_SHAPE(3, 0), bytes, 0, "{'descr': '|i1', 'fortran_order': False, 'shape': (3, 0), }");
}

/* Long shapes push the header over the next multiple of 64. */
static void alignment_at_every_length(void **state) {
  (void)state;
  const int8_t byte = 7;
  bnd_shape shape = {0};
  char literal[256] = "{'descr': '|i1', 'fortran_order': False, 'shape': (1,), }";
  for (int rank = 1; rank <= BND_MAX_RANK; rank++) {
    shape.size[shape.rank++] = 1;
    if (rank > 1) {
      strcpy(literal, "{'descr': '|i1', 'fortran_order': False, 'shape': (1");
      for (int i = 1; i < rank; i++) strcat(literal, ", 1");
      strcat(literal, "), }");
    }
    check(BND_I8, &shape, &byte, 1, literal);
  }
}

static void refused(void **state) {
  (void)state;
  bnd_error error;
  const char byte = 0;
  assert_int_equal(bnd_npy_write(path, BND_BF16, &BND_SHAPE(1), &byte, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "bfloat16"));
  assert_int_equal(bnd_npy_write(path, BND_I64, &BND_SHAPE(INT64_MAX, 4), &byte, &error), BND_ERROR_ARGUMENT);
  assert_int_equal(bnd_npy_write("no/such/folder/x.npy", BND_I8, &BND_SHAPE(1), &byte, &error), BND_ERROR_IO);
  assert_non_null(strstr(error.message, "no/such/folder/x.npy"));
  assert_int_not_equal(access(path, F_OK), 0); /* nothing half-written */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(types_and_shapes, make_path, remove_file),
      cmocka_unit_test_setup_teardown(alignment_at_every_length, make_path, remove_file),
      cmocka_unit_test_setup_teardown(refused, make_path, remove_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
