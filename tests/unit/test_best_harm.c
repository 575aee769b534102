/* A step of the recipe best that does harm is taken back by the whole run as if it had never been asked for. The linker puts the step below in the place of
   `exponents` (--wrap in CMakeLists.txt). */
#include "graph_builder.h"

#include <stdio.h>

#include "base/file.h"
#include "binade/binade.h"
#include "formats/json/json.h"
#include "refine/steps.h"

#define SHAPES TEST_DATA "/../../examples/shapes"

static char folder[] = "/tmp/binade-test-XXXXXX";
static int harmed; /* layers */

bnd_refine_step __wrap_bnd_refine_exponents;

/* Everything a step may touch: positions in place, weights in memory of their own. */
bnd_status __wrap_bnd_refine_exponents(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(work->graph); node; node = node->next) {
    bnd_module *module = node->module;
    if (!module || !module->weight_quantizer) continue;
    bnd_tensor weight;
    BND_TRY(bnd_tensor_copy(&module->weight, &weight, error));
    for (size_t i = 0; i < weight.count; i++) bnd_f32(&weight)[i] *= i % 2 ? 0.5f : 1.5f;
    bnd_tensor_release(&module->weight);
    module->weight = weight;
    module->weight_quantizer->position[0] -= 2;
    harmed++;
  }
  bnd_string_format(report, "%d layers harmed\n", harmed);
  return BND_OK;
}

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

static const char *path_of(const char *run, const char *file, char path[128]) {
  snprintf(path, 128, "%s/%s/%s", folder, run, file);
  return path;
}

static void quantize(const char *run, const char *const *without, size_t without_count, bnd_quantize_result *result) {
  static const char *const steps[] = {"head", "fold", "exponents", "bias-analytic"};
  char output[128];
  const bnd_quantize_options options = {.checkpoint = SHAPES "/yolo_nas_pico_shapes.pth", .data = SHAPES, .output = path_of(run, "", output), .size = 64,
                                        .calibration_images = 6, .images = 2, .no_evaluation = true, .steps = steps, .step_count = sizeof steps / sizeof *steps,
                                        .without = without, .without_count = without_count};
  ASSERT_OK(bnd_quantize(&options, &(bnd_context){.threads = 2}, result, error));
}

static void assert_same_file(const char *name) {
  char *data[2], path[128];
  size_t size[2];
  ASSERT_OK(bnd_file_read(path_of("harmed", name, path), 1 << 28, &data[0], &size[0], error));
  ASSERT_OK(bnd_file_read(path_of("without", name, path), 1 << 28, &data[1], &size[1], error));
  assert_int_equal(size[0], size[1]);
  assert_memory_equal(data[0], data[1], size[0]);
  free(data[0]);
  free(data[1]);
}

static void the_run_ends_as_without_the_step(void **state) {
  (void)state;
  bnd_quantize_result result, without;
  quantize("harmed", NULL, 0, &result);
  assert_true(harmed > 10);
  const int layers = harmed;
  quantize("without", (const char *const[]){"exponents"}, 1, &without);
  assert_int_equal(harmed, layers);
  assert_int_equal(result.step_count, 2);
  assert_int_equal(without.step_count, 1);
  const bnd_step_result *harm = &result.steps[0], *behind = &result.steps[1];
  assert_string_equal(harm->name, "exponents");
  assert_false(harm->kept);
  assert_true(harm->after > harm->before);
  assert_true(behind->kept); /* or what it did to the graph would not be seen */
  assert_true(behind->before == harm->before && behind->before == without.steps[0].before && behind->after == without.steps[0].after);
  static const char *const files[] = {"int8.onnx", "int8_dedicated_qdq.onnx", "quantized.txt", "frozen.txt", "quantization.json"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) assert_same_file(files[i]);
}

static void results_and_log_say_so(void **state) {
  (void)state;
  char path[128], *log;
  size_t size;
  bnd_arena *arena = bnd_arena_create();
  const bnd_json *root;
  ASSERT_OK(bnd_json_parse_file(path_of("harmed", "results.json", path), 1 << 24, arena, &root, error));
  const bnd_json *steps = bnd_json_member(root, "steps"), *step = steps->first;
  assert_int_equal(steps->count, 2);
  assert_string_equal(bnd_json_member(step, "name")->text, "exponents");
  const bnd_json *kept = bnd_json_member(step, "kept");
  assert_int_equal(kept->type, BND_JSON_BOOLEAN);
  assert_false(kept->boolean);
  assert_true(bnd_json_member(step, "after")->number > bnd_json_member(step, "before")->number);
  bnd_arena_destroy(arena);
  ASSERT_OK(bnd_file_read(path_of("harmed", "run.log", path), 1 << 24, &log, &size, error));
  assert_non_null(strstr(log, "it does not help here and was taken back"));
  free(log);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_run_ends_as_without_the_step), cmocka_unit_test(results_and_log_say_so)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
