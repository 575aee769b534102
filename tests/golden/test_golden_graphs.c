/* The graph side of the flow against Quark's own text and positions, on the golden checkpoint and on whatever else BINADE_REFERENCES names
   (folders written by the oracle's quark_flow.py). Positions are taken from exponents.tsv, so no image is run here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reference.h"

static void assert_text_equals_file(const bnd_graph *graph, const char *folder, const char *name) {
  char path[4096], *expected;
  size_t size;
  bnd_string text = {0};
  snprintf(path, sizeof path, "%s/%s", folder, name);
  assert_int_equal(bnd_graph_print_fx(graph, &text, NULL), BND_OK);
  assert_int_equal(bnd_file_read(path, 1 << 28, &expected, &size, NULL), BND_OK);
  size_t line = 1;
  for (size_t i = 0; i < size && i < text.length && expected[i] == text.text[i]; i++) line += expected[i] == '\n';
  if (size != text.length || memcmp(expected, text.text, size) != 0) fail_msg("%s: differs from line %zu on", path, line);
  free(expected);
  bnd_string_free(&text);
}

static void captured(const bnd_graph *graph, const char *folder) { assert_text_equals_file(graph, folder, "captured.txt"); }

static void compare_final(void *user, const bnd_quantizer_place *place) {
  reference_table *t = user;
  const int expected = reference_find(t, place->name)->final;
  if (place->quantizer->position[0] == expected) return;
  print_error("%s: position %d, expected %d\n", place->name, place->quantizer->position[0], expected);
  t->differing++;
}

static void check_model(const char *checkpoint, const char *folder) {
  bnd_graph *graph = reference_quantized_graph(checkpoint, folder, captured);
  assert_text_equals_file(graph, folder, "quantized.txt");
  reference_freeze(graph);
  assert_text_equals_file(graph, folder, "frozen.txt");
  reference_table *t = reference_table_read(folder);
  bnd_visit_quantizers(graph, compare_final, t);
  assert_int_equal(t->differing, 0);
  free(t);
  bnd_graph_destroy(graph);
}

static void golden_checkpoint(void **state) {
  (void)state;
  if (access(GOLDEN "/exponents.tsv", R_OK) != 0) skip();
  check_model(GOLDEN_CHECKPOINT, GOLDEN);
}

static void other_checkpoints(void **state) {
  (void)state;
  reference_each(check_model);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(golden_checkpoint), cmocka_unit_test(other_checkpoints)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
