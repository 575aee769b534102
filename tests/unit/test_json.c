#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/json/json.h"

static bnd_status parse(const char *text, bnd_arena *arena, const bnd_json **root, bnd_error *error) {
  return bnd_json_parse("config.json", text, strlen(text), arena, root, error);
}

static void tree_holds_what_was_written(void **state) {
  (void)state;
  bnd_arena *arena = bnd_arena_create();
  const bnd_json *root;
  assert_int_equal(parse("{\"a\": [1, -2.5e3, true, null, \"x\\u00e9\\n\"],\n \"big\": 9007199254740993,\n"
                         " \"b\": {\"c\": {}}, \"d\": 1.0}", arena, &root,
                         NULL), BND_OK);
  assert_int_equal(root->type, BND_JSON_OBJECT);
  assert_int_equal(root->count, 4);
  const bnd_json *a = bnd_json_member(root, "a")->first;
  assert_true(a->is_integer && a->integer == 1 && a->number == 1);
  assert_true((a = a->next)->number == -2500 && !a->is_integer);
  assert_true((a = a->next)->type == BND_JSON_BOOLEAN && a->boolean);
  assert_true((a = a->next)->type == BND_JSON_NULL);
  assert_string_equal((a = a->next)->text, "x\xc3\xa9\n");
  assert_null(a->next);
  assert_true(bnd_json_member(root, "big")->integer == 9007199254740993);
  assert_int_equal(bnd_json_member(root, "big")->line, 2);
  assert_int_equal(bnd_json_member(root, "b")->line, 3);
  assert_false(bnd_json_member(root, "d")->is_integer);
  assert_int_equal(bnd_json_member(bnd_json_member(root, "b"), "c")->count, 0);
  assert_null(bnd_json_member(root, "absent"));
  assert_null(bnd_json_member(NULL, "absent"));
  assert_int_equal(parse("7", arena, &root, NULL), BND_OK);
  assert_int_equal(root->integer, 7);
  bnd_arena_destroy(arena);
}

static void broken_text_is_refused_with_its_place(void **state) {
  (void)state;
  static const struct {
    const char *text, *message;
  } cases[] = {
      {"{\"a\": 1,\n\"b\": }", "config.json: line 2, byte "},
      {"{\"a\": [1, 2}", "config.json: line 1"},
      {"", "config.json: line 1"},
      {"{\"a\": 1} x", "config.json: line 1"},
      {"{\"a\": 01}", "config.json: line 1"},
      {"{\"a\": NaN}", "config.json: line 1"},
      {"[1,]", "config.json: line 1"},
      {"[\"\xff\"]", "config.json: line 1"},
      {"[\"abc", "config.json: line 1"},
      {"{\"a\": 1,\n\n\"a\": 2}", "config.json: line 3: \"a\" occurs twice in one object"},
      {"[\n1e999]", "config.json: line 2: the number 1e999 is too large"},
      {"[\"a\\u0000b\"]", "config.json: line 1: a text contains the character U+0000"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bnd_arena *arena = bnd_arena_create();
    const bnd_json *root;
    bnd_error error = {0};
    assert_int_equal(parse(cases[i].text, arena, &root, &error), BND_ERROR_FORMAT);
    assert_null(root);
    if (strncmp(error.message, cases[i].message, strlen(cases[i].message)) != 0) fail_msg("%s: %s", cases[i].text, error.message);
    assert_null(strchr(error.message, '\n'));
    bnd_arena_destroy(arena);
  }
}

static void nesting_has_a_limit(void **state) {
  (void)state;
  char text[BND_JSON_MAX_DEPTH * 2 + 4];
  bnd_arena *arena = bnd_arena_create();
  const bnd_json *root;
  bnd_error error;
  for (int depth = BND_JSON_MAX_DEPTH; depth <= BND_JSON_MAX_DEPTH + 1; depth++) {
    memset(text, '[', (size_t)depth);
    memset(text + depth, ']', (size_t)depth);
    text[depth * 2] = '\0';
    assert_int_equal(parse(text, arena, &root, &error), depth == BND_JSON_MAX_DEPTH ? BND_OK : BND_ERROR_FORMAT);
  }
  assert_non_null(strstr(error.message, "nested deeper"));
  bnd_arena_destroy(arena);
}

typedef struct counter {
  size_t numbers, keys;
  double sum;
  int deepest;
} counter;

static bnd_status count(void *user, const bnd_json_event *event, bnd_error *error) {
  counter *c = user;
  double number;
  if (event->depth > c->deepest) c->deepest = event->depth;
  if (event->kind == BND_JSON_EVENT_KEY) c->keys++;
  if (event->kind == BND_JSON_EVENT_NUMBER) {
    c->numbers++;
    assert_true(bnd_json_number(event->text, event->length, &number, NULL, NULL));
    c->sum += number;
  }
  if (event->kind == BND_JSON_EVENT_STRING && event->length == 4 && memcmp(event->text, "stop", 4) == 0)
    return bnd_fail(error, BND_ERROR_MODEL, "told to stop");
  return BND_OK;
}

static void long_files_stream(void **state) {
  (void)state;
  char path[] = "/tmp/binade-test-XXXXXX";
  FILE *file = fdopen(mkstemp(path), "w");
  assert_non_null(file);
  fprintf(file, "{\"list\": [\n");
  for (int i = 0; i < 200000; i++) fprintf(file, "%s{\"v\": [%d.25, 1]}", i ? ",\n" : "", i);
  fprintf(file, "], \"last\": \"%s\"}", "fine");
  fclose(file);
  counter c = {0};
  bnd_error error;
  assert_int_equal(bnd_json_stream_file(path, count, &c, NULL), BND_OK);
  assert_true(c.numbers == 400000 && c.keys == 200002 && c.deepest == 4 && c.sum == 199999. * 100000 + 200000 * 1.25);
  /* an error far behind the first piece knows its line */
  file = fopen(path, "r+");
  fseek(file, -6, SEEK_END);
  fputs("stop", file);
  fclose(file);
  assert_int_equal(bnd_json_stream_file(path, count, &(counter){0}, &error), BND_ERROR_MODEL);
  assert_non_null(strstr(error.message, ": line 200001: told to stop"));
  assert_int_equal(truncate(path, 1000000), 0);
  assert_int_equal(bnd_json_stream_file(path, count, &(counter){0}, &error), BND_ERROR_FORMAT);
  unlink(path);
  assert_int_equal(bnd_json_stream_file(path, count, &c, &error), BND_ERROR_IO);
  assert_int_equal(bnd_json_stream_file("/tmp", count, &c, &error), BND_ERROR_IO);
}

static void writer_output_is_stable(void **state) {
  (void)state;
  bnd_string out = {0};
  bnd_json_writer w = {.out = &out};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_key(&w, "name");
  bnd_json_string(&w, "a\"b\\\n\x01\xc3\xa9\xff\xed\xa0\x80");
  bnd_json_key(&w, "empty");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  bnd_json_end_array(&w);
  bnd_json_key(&w, "rows");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (int i = 0; i < 2; i++) {
    bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
    bnd_json_key(&w, "min");
    bnd_json_double(&w, 0.1);
    bnd_json_key(&w, "pair");
    bnd_json_begin_array(&w, BND_JSON_LINES); /* inside a line all is in the line */
    bnd_json_integer(&w, INT64_MIN);
    bnd_json_null(&w);
    bnd_json_end_array(&w);
    bnd_json_end_object(&w);
  }
  bnd_json_end_array(&w);
  bnd_json_key(&w, "ok");
  bnd_json_boolean(&w, true);
  bnd_json_key(&w, "bad");
  bnd_json_double(&w, NAN);
  bnd_json_key(&w, "none");
  bnd_json_string(&w, NULL);
  bnd_json_end_object(&w);
  assert_false(out.failed);
  assert_string_equal(out.text,
                      "{\n"
                      "  \"name\": \"a\\\"b\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\",\n"
                      "  \"empty\": [],\n"
                      "  \"rows\": [\n"
                      "    {\"min\": 0.1, \"pair\": [-9223372036854775808, null]},\n"
                      "    {\"min\": 0.1, \"pair\": [-9223372036854775808, null]}\n"
                      "  ],\n"
                      "  \"ok\": true,\n"
                      "  \"bad\": null,\n"
                      "  \"none\": null\n"
                      "}\n");
  bnd_arena *arena = bnd_arena_create();
  const bnd_json *root;
  assert_int_equal(parse(out.text, arena, &root, NULL), BND_OK);
  bnd_arena_destroy(arena);
  bnd_string_free(&out);
}

static void numbers_come_back_exactly(void **state) {
  (void)state;
  static const double values[] = {0, -0., 1, 0.1, 1. / 3, 1e21, 123456789012345678., 5e-324, DBL_MAX, DBL_MIN, -2.5,
                                   0x1p53, 0x1.fffffffffffffp52, 1e-7};
  static const char *const texts[] = {"0", "-0", "1", "0.1", "0.3333333333333333", "1e+21", "1.2345678901234568e+17", "5e-324",
                                      "1.7976931348623157e+308", "2.2250738585072014e-308", "-2.5", "9007199254740992", "9007199254740991", "1e-07"};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    bnd_string out = {0};
    bnd_json_writer w = {.out = &out};
    bnd_json_double(&w, values[i]);
    double back;
    assert_true(bnd_json_number(out.text, out.length, &back, NULL, NULL));
    assert_memory_equal(&back, &values[i], sizeof back);
    if (fabs(values[i]) != 0x1p53) assert_string_equal(out.text, texts[i]);
    bnd_string_free(&out);
  }
  uint64_t random = 1;
  for (int i = 0; i < 20000; i++) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    double value, back;
    float single;
    memcpy(&value, &random, sizeof value);
    memcpy(&single, &random, sizeof single);
    if (!isfinite(value) || !isfinite(single)) continue;
    bnd_string out = {0};
    bnd_json_double(&(bnd_json_writer){.out = &out}, value);
    assert_true(bnd_json_number(out.text, out.length, &back, NULL, NULL) && back == value);
    out.length = 0;
    bnd_json_float(&(bnd_json_writer){.out = &out}, single);
    assert_true(bnd_json_number(out.text, out.length, &back, NULL, NULL) && (float)back == single);
    bnd_string_free(&out);
  }
}

static void locale_changes_nothing(void **state) {
  (void)state;
  const char *found = setlocale(LC_NUMERIC, "de_DE.UTF-8");
  if (!found) found = setlocale(LC_NUMERIC, "fr_FR.UTF-8");
  if (!found) skip();
  bnd_string out = {0};
  bnd_json_double(&(bnd_json_writer){.out = &out}, 2.5);
  double back;
  assert_true(bnd_json_number("2.5", 3, &back, NULL, NULL) && back == 2.5);
  setlocale(LC_NUMERIC, "C");
  assert_string_equal(out.text, "2.5");
  bnd_string_free(&out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tree_holds_what_was_written), cmocka_unit_test(broken_text_is_refused_with_its_place), cmocka_unit_test(nesting_has_a_limit),
      cmocka_unit_test(long_files_stream),           cmocka_unit_test(writer_output_is_stable),
      cmocka_unit_test(numbers_come_back_exactly),
      cmocka_unit_test(locale_changes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
