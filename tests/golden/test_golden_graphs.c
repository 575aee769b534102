/* The graph side of the flow against Quark's own text and positions, on the golden checkpoint and on whatever else BINADE_REFERENCES names
   (folders written by the oracle's quark_flow.py, each beside its NAME.pth). Positions are taken from exponents.tsv, so no image is run here. */
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
#include "flow/model.h"
#include "flow/reports.h"
#include "flow/target_profile.h"
#include "ops/operators.h"
#include "passes/quark/quark.h"
#include "passes/target/adjust.h"

static void assert_text_equals_file(const bnd_graph *graph, const char *folder, const char *name) {
  char path[4096], *expected;
  size_t size;
  bnd_string text = {0};
  snprintf(path, sizeof path, "%s/%s", folder, name);
  assert_int_equal(bnd_graph_print_fx(graph, &text, NULL), BND_OK);
  assert_int_equal(bnd_file_read(path, 1 << 28, &expected, &size, NULL), BND_OK);
  size_t line = 1;
  for (size_t i = 0; i < size && i < text.length && expected[i] == text.text[i]; i++) line += expected[i] == '\n';
  if (size != text.length || memcmp(expected, text.text, size) != 0) {
    char out[4200];
    snprintf(out, sizeof out, "/tmp/binade-%s", name);
    bnd_file_write(out, text.text, text.length, NULL);
    fail_msg("%s: differs from line %zu on (ours: %s)", path, line, out);
  }
  free(expected);
  bnd_string_free(&text);
}

typedef struct row {
  char name[256];
  int calibrated, final;
} row;

typedef struct table {
  row rows[2000];
  size_t count, differing;
  bool final;
} table;

static void read_table(const char *folder, table *t) {
  char path[4096], line[1024];
  snprintf(path, sizeof path, "%s/exponents.tsv", folder);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  t->count = 0;
  assert_non_null(fgets(line, sizeof line, file));
  while (fgets(line, sizeof line, file)) {
    row *r = &t->rows[t->count++];
    assert_int_equal(sscanf(line, "%255s %*s %*s %d %d", r->name, &r->calibrated, &r->final), 3);
  }
  fclose(file);
}

static const row *find_row(const table *t, const char *name) {
  for (size_t i = 0; i < t->count; i++)
    if (strcmp(t->rows[i].name, name) == 0) return &t->rows[i];
  fail_msg("%s: no such quantizer in the reference", name);
  return NULL;
}

static void put_calibrated(void *user, const bnd_quantizer_place *place) {
  place->quantizer->position[0] = place->quantizer->tensor_position = find_row(user, place->name)->calibrated;
}

static void compare_final(void *user, const bnd_quantizer_place *place) {
  table *t = user;
  const int expected = find_row(t, place->name)->final;
  if (place->quantizer->position[0] == expected) return;
  print_error("%s: position %d, expected %d\n", place->name, place->quantizer->position[0], expected);
  t->differing++;
}

static void count_one(void *user, const bnd_quantizer_place *place) {
  (void)place;
  ++*(size_t *)user;
}

static void check_model(const char *checkpoint, const char *folder) {
  bnd_error error = {0};
  bnd_model *model;
  bnd_graph *graph;
  bnd_target_profile target;
  if (bnd_model_open(checkpoint, &model, &error) != BND_OK) fail_msg("%s", error.message);
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_PARTIAL, .height = 640, .width = 640, .raw_outputs = true, .stubs = true};
  if (bnd_model_graph(model, &options, &graph, &error) != BND_OK) fail_msg("%s", error.message);
  assert_text_equals_file(graph, folder, "captured.txt");
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  if (bnd_quark_mark_scope(graph, &error) != BND_OK || bnd_quark_prepare(graph, &error) != BND_OK ||
      bnd_quark_insert_quantizers(graph, &config, &error) != BND_OK || bnd_infer_shapes(graph, &error) != BND_OK)
    fail_msg("%s", error.message);
  assert_text_equals_file(graph, folder, "quantized.txt");
  table *t = calloc(1, sizeof *t);
  read_table(folder, t);
  size_t quantizers = 0;
  bnd_visit_quantizers(graph, count_one, &quantizers);
  assert_int_equal(quantizers, t->count);
  bnd_visit_quantizers(graph, put_calibrated, t);
  assert_int_equal(bnd_target_profile_load(NULL, &target, &error), BND_OK);
  assert_int_equal(bnd_quark_merge_batch_norm(graph, &error), BND_OK);
  assert_int_equal(bnd_clip_to_relu(graph, &error), BND_OK);
  bnd_adjust_positions(graph, &target);
  assert_int_equal(bnd_hard_sigmoid_to_hardware(graph, &target, &error), BND_OK);
  assert_text_equals_file(graph, folder, "frozen.txt");
  bnd_visit_quantizers(graph, compare_final, t);
  assert_int_equal(t->differing, 0);
  free(t);
  bnd_graph_destroy(graph);
  bnd_model_close(model);
}

static void golden_checkpoint(void **state) {
  (void)state;
  if (access(SHARED_DIR "/golden/pico/exponents.tsv", R_OK) != 0) skip();
  check_model(SHARED_DIR "/golden/pico/yolo_nas_pico_shapes.pth", SHARED_DIR "/golden/pico");
}

static void other_checkpoints(void **state) {
  (void)state;
  const char *list = getenv("BINADE_REFERENCES");
  if (!list) skip();
  char *copy = strdup(list), checkpoint[4096];
  for (char *folder = strtok(copy, ":"); folder; folder = strtok(NULL, ":")) {
    snprintf(checkpoint, sizeof checkpoint, "%s.pth", folder);
    print_message("%s\n", folder);
    check_model(checkpoint, folder);
  }
  free(copy);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(golden_checkpoint), cmocka_unit_test(other_checkpoints)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
