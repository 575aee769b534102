/* The whole run on the golden checkpoint, as a user starts it: every exponent, range and observed node against Quark's (exponents.tsv), mAP and COCO's
   twelve numbers of the four stages against the originals' (results.json). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "binade/binade.h"
#include "formats/json/json.h"

#define GOLDEN SHARED_DIR "/golden"

static char folder[] = "/tmp/binade-test-XXXXXX";

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

static void quantize(const char *observer, bool evaluate, bnd_quantize_result *result) {
  bnd_error error = {0};
  const bnd_quantize_options options = {.recipe = "quark", .checkpoint = GOLDEN "/pico/yolo_nas_pico_shapes.pth", .data = GOLDEN "/shapes", .output = folder,
                                        .calibration_images = 100, .batch = 25, .observer = observer, .no_evaluation = !evaluate};
  if (bnd_quantize(&options, NULL, result, &error) != BND_OK) fail_msg("%s", error.message);
}

static const bnd_json *find(const bnd_json *quantizers, const char *name) {
  for (const bnd_json *q = quantizers->first; q; q = q->next)
    if (strcmp(bnd_json_member(q, "name")->text, name) == 0) return q;
  fail_msg("%s: missing in quantization.json", name);
  return NULL;
}

/* PyTorch's own single-precision noise, relative: values of the softmax around 1e-7 carry that of the logits they are exponentials of (there the
   reference itself is 3e-5 off a double-precision run), everything else is within 1e-5. */
static bool same_bound(const char *observed, double ours, double theirs) {
  return fabs(ours - theirs) <= (strncmp(observed, "softmax", 7) == 0 ? 5e-5 : 1e-5) * fabs(theirs);
}

static void compare_exponents(const char *reference) {
  char path[4096], line[1024], name[256], kind[32], observed[256];
  bnd_error error = {0};
  const bnd_json *root;
  bnd_arena *arena = bnd_arena_create();
  snprintf(path, sizeof path, "%s/quantization.json", folder);
  if (bnd_json_parse_file(path, 1 << 24, arena, &root, &error) != BND_OK) fail_msg("%s", error.message);
  const bnd_json *quantizers = bnd_json_member(root, "quantizers");
  FILE *file = fopen(reference, "r");
  assert_non_null(file);
  assert_non_null(fgets(line, sizeof line, file));
  size_t rows = 0, wrong = 0;
  while (fgets(line, sizeof line, file)) {
    int calibrated, final;
    double low, high;
    assert_int_equal(sscanf(line, "%255s %31s %255s %d %d %lf %lf", name, kind, observed, &calibrated, &final, &low, &high), 7);
    const bnd_json *q = find(quantizers, name);
    rows++;
    if (strcmp(bnd_json_member(q, "kind")->text, kind) == 0 && strcmp(bnd_json_member(q, "observed")->text, observed) == 0 &&
        bnd_json_member(q, "calibrated")->integer == calibrated && bnd_json_member(q, "final")->integer == final &&
        same_bound(observed, bnd_json_member(q, "min")->number, low) && same_bound(observed, bnd_json_member(q, "max")->number, high))
      continue;
    print_error("%s: expected %s", name, line);
    wrong++;
  }
  fclose(file);
  assert_int_equal(rows, quantizers->count);
  assert_int_equal(wrong, 0);
  bnd_arena_destroy(arena);
}

static void check_stage(const bnd_stage_result *stage, const char *name, const bnd_json *reference, double tolerance) {
  assert_string_equal(stage->name, name);
  assert_true(stage->evaluated);
  assert_true(fabs(stage->map50 - bnd_json_member(reference, "mAP@0.50")->number) <= tolerance);
  assert_true(fabs(stage->map50_95 - bnd_json_member(reference, "mAP@0.50:0.95")->number) <= tolerance);
  int k = 0;
  for (const bnd_json *number = bnd_json_member(reference, "coco")->first; number; number = number->next, k++)
    assert_true(fabs(stage->coco[k] - number->number) <= tolerance);
  assert_int_equal(k, 12);
}

static void exponents_and_metrics_are_the_originals(void **state) {
  (void)state;
  if (access(GOLDEN "/pico/exponents.tsv", R_OK) != 0) skip();
  bnd_quantize_result result;
  bnd_error error = {0};
  const bnd_json *root;
  quantize(NULL, true, &result);
  assert_int_equal(result.violations, 0);
  compare_exponents(GOLDEN "/pico/exponents.tsv");
  bnd_arena *arena = bnd_arena_create();
  if (bnd_json_parse_file(GOLDEN "/pico/results.json", 1 << 24, arena, &root, &error) != BND_OK) fail_msg("%s", error.message);
  assert_int_equal(result.stage_count, 4);
  check_stage(&result.stages[0], "fp32", bnd_json_member(root, "fp32"), 2e-4);
  check_stage(&result.stages[1], "folded", bnd_json_member(root, "prep"), 2e-4);
  check_stage(&result.stages[2], "ptq", bnd_json_member(root, "ptq"), 1e-3);
  check_stage(&result.stages[3], "aligned", bnd_json_member(root, "frozen"), 1e-3);
  bnd_arena_destroy(arena);
}

static void exponents_by_error_are_the_originals(void **state) {
  (void)state;
  if (access(GOLDEN "/pico_mse/exponents.tsv", R_OK) != 0) skip();
  bnd_quantize_result result;
  quantize("min-mse", false, &result);
  compare_exponents(GOLDEN "/pico_mse/exponents.tsv");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(exponents_and_metrics_are_the_originals), cmocka_unit_test(exponents_by_error_are_the_originals)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
