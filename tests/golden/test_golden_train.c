/* Training steps on the golden checkpoint against super-gradients, PyTorch and Quark: golden/pico/train.json, made by shared/oracle/train_steps.py.
   Where their own results depend on the number of threads (rounding flips under quantization) only losses are compared; in evaluation mode the forward
   pass is exact, and every gradient is. The file has a gradient's norm, its sum and its first four values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "reference.h"

#include "autograd/network.h"
#include "calib/calibrate.h"
#include "data/loader.h"
#include "flow/dataset.h"
#include "formats/json/json.h"
#include "train/loss.h"
#include "train/optimizer.h"

enum { BATCH = 4, SIDE = 640, ANCHORS = 8400, CLASSES = 8, CALIBRATION_IMAGES = 8 };

#define MUST(expression)                                                              \
  do {                                                                                \
    bnd_error must_error = {0};                                                       \
    bnd_error *const error = &must_error;                                             \
    if ((expression) != BND_OK) fail_msg("%s: %s", #expression, error->message);      \
  } while (0)

static struct {
  bnd_arena *arena;
  const bnd_json *expected;
  bnd_model *model;
  bnd_dataset dataset;
  float *images[BATCH];
  bnd_targets targets[BATCH];
  float points[2 * ANCHORS], strides[ANCHORS];
} all;

/* --- what is there --- */

static void make_anchors(void) {
  size_t at = 0;
  for (int stride = 8; stride <= 32; stride *= 2)
    for (int y = 0; y < SIDE / stride; y++)
      for (int x = 0; x < SIDE / stride; x++, at++) {
        all.points[2 * at] = ((float)x + 0.5f) * (float)stride;
        all.points[2 * at + 1] = ((float)y + 0.5f) * (float)stride;
        all.strides[at] = (float)stride;
      }
}

static void load_images(void) {
  bnd_loader loader;
  bnd_loader_options options = bnd_loader_options_default(SIDE, 0);
  options.shuffle = options.augment = false;
  options.images = all.dataset.coco.annotated;
  options.image_count = BATCH;
  MUST(bnd_model_preprocessing(all.model, SIDE, false, &options.preprocessing, error));
  MUST(bnd_loader_create(&all.dataset.coco, &options, &loader, error));
  assert_int_equal(bnd_loader_count(&loader), BATCH);
  for (size_t i = 0; i < BATCH; i++) {
    all.images[i] = malloc(3 * SIDE * SIDE * sizeof(float));
    MUST(bnd_loader_load(&loader, 0, i, all.images[i], &all.targets[i], error));
  }
  bnd_loader_free(&loader);
}

static int open_all(void **state) {
  (void)state;
  if (access(GOLDEN "/train.json", R_OK) != 0) return 0;
  all.arena = bnd_arena_create();
  bnd_error error = {0};
  if (!all.arena || bnd_json_parse_file(GOLDEN "/train.json", 1 << 26, all.arena, &all.expected, &error) != BND_OK ||
      bnd_model_open(GOLDEN_CHECKPOINT, &all.model, &error) != BND_OK ||
      bnd_dataset_open(all.model, SHARED_DIR "/golden/shapes", "val2017", SIDE, 0, true, &all.dataset, &error) != BND_OK) {
    print_error("%s\n", error.message);
    return -1;
  }
  make_anchors();
  load_images();
  return 0;
}

static int close_all(void **state) {
  (void)state;
  if (!all.expected) return 0;
  for (int i = 0; i < BATCH; i++) {
    free(all.images[i]);
    bnd_targets_free(&all.targets[i]);
  }
  bnd_dataset_close(&all.dataset);
  bnd_model_close(all.model);
  bnd_arena_destroy(all.arena);
  return 0;
}

/* --- comparisons --- */

/* A row of the file: "loss" and its parts. */
static double loss_difference(const bnd_loss_parts *parts, const bnd_json *row) {
  const double expected = bnd_json_member(row, "loss")->number;
  return fabs(parts->total - expected) / expected;
}

static double parts_difference(const bnd_loss_parts *parts, const bnd_json *row) {
  const double values[] = {parts->classification, parts->iou, parts->dfl};
  const bnd_json *expected = bnd_json_member(row, "classification_iou_dfl_total")->first;
  double most = 0;
  for (int k = 0; k < 3; k++, expected = expected->next) most = fmax(most, fabs(values[k] - expected->number) / expected->number);
  return most;
}

typedef struct deviation {
  double norm, sum, first; /* of the norm; of norm * sqrt(count); of the norm */
} deviation;

static deviation gradient_deviation(const bnd_parameter *p, const bnd_json *expected) {
  double sum = 0, square = 0, first = 0;
  for (size_t k = 0; k < p->count; k++) {
    sum += (double)p->gradient[k];
    square += (double)p->gradient[k] * (double)p->gradient[k];
  }
  const double norm = bnd_json_member(expected, "l2")->number;
  const bnd_json *value = bnd_json_member(expected, "first")->first;
  if (norm == 0) return square == 0 ? (deviation){0} : (deviation){1, 1, 1};
  for (size_t k = 0; k < 4 && k < p->count; k++, value = value->next) first = fmax(first, fabs((double)p->gradient[k] - value->number));
  return (deviation){fabs(sqrt(square) - norm) / norm, fabs(sum - bnd_json_member(expected, "sum")->number) / (norm * sqrt((double)p->count)), first / norm};
}

/* --- passes --- */

static bnd_network *make_network(bnd_graph *graph, bool quantize) {
  static const int outputs[] = {2, 3};
  const bnd_network_options options = {.batch = BATCH, .threads = 1, .quantize = quantize, .gradient_outputs = outputs, .gradient_output_count = 2};
  bnd_network *network;
  MUST(bnd_network_create(graph, &options, &network, error));
  return network;
}

static bnd_loss_parts pass(bnd_network *network) {
  MUST(bnd_network_forward(network, (const float *const *)all.images, NULL, NULL, error));
  bnd_loss_image list[BATCH];
  for (int i = 0; i < BATCH; i++)
    list[i] = (bnd_loss_image){bnd_network_output(network, 2, i), bnd_network_output(network, 3, i), all.targets[i].rows, all.targets[i].count,
                               bnd_network_output_gradient(network, 2, i), bnd_network_output_gradient(network, 3, i)};
  const bnd_loss_options options = {.classes = CLASSES, .reg_max = 16};
  bnd_loss_parts parts;
  MUST(bnd_yolo_loss(&options, all.points, all.strides, ANCHORS, list, BATCH, 1, &parts, error));
  bnd_network_zero_gradients(network);
  MUST(bnd_network_backward(network, NULL, NULL, error));
  return parts;
}

/* Three steps of AdamW as the original makes them: parameters without a gradient there stay as they are. */
static void three_steps(bnd_network *network, double rate, const char *rows, const double tolerance[3], void (*first)(const bnd_network *network)) {
  size_t count, used = 0;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  bnd_optimizer_parameter *list = calloc(count, sizeof *list);
  for (size_t i = 0; i < count; i++)
    if (!p[i].direct) list[used++] = (bnd_optimizer_parameter){p[i].value, p[i].gradient, p[i].count, p[i].shape.rank > 1 ? 1e-5 : 0, 0};
  const bnd_optimizer_options options = {.kind = BND_ADAMW};
  bnd_optimizer *optimizer;
  MUST(bnd_optimizer_create(&options, list, used, &optimizer, error));
  free(list);
  bnd_network_set_mode(network, BND_MODE_TRAIN);
  const bnd_json *row = bnd_json_member(all.expected, rows)->first;
  for (int k = 0; k < 3; k++, row = row->next) {
    const bnd_loss_parts parts = pass(network);
    const double off = loss_difference(&parts, row);
    print_message("step %d: loss %.7f, off by %.2e, parts by %.2e\n", k + 1, parts.total, off, parts_difference(&parts, row));
    if (!(off <= tolerance[k])) fail_msg("%s, step %d: loss %.7f is off by %g", rows, k + 1, parts.total, off);
    if (k == 0) first(network);
    bnd_optimizer_step(optimizer, rate, 1.f, 1);
  }
  bnd_optimizer_destroy(optimizer);
}

/* --- single precision --- */

/* Zero in exact arithmetic: a batch norm that follows takes it away. What is left is rounding. */
static bool is_taken_away(const char *name) {
  static const char *const ends[] = {".branch_1x1.bias", ".branch_3x3.bn.bias", ".upsample.bias"};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    if (strlen(name) > strlen(ends[i]) && strcmp(name + strlen(name) - strlen(ends[i]), ends[i]) == 0) return true;
  return false;
}

/* Their own two runs differ by 4e-4 in the middle and by 2e-3 in one of twenty: at most one of twenty is off by three times that. */
static void check_float_gradients(const bnd_network *network) {
  size_t count, over = 0, found = 0, compared = 0;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  const bnd_json *expected = bnd_json_member(all.expected, "fp32_gradients_step_1");
  for (size_t i = 0; i < count; i++) {
    const bnd_json *row = bnd_json_member(expected, p[i].name);
    if (!row) continue;
    const deviation off = gradient_deviation(&p[i], row);
    assert_true(p[i].reached);
    found++;
    if (is_taken_away(p[i].name)) continue;
    compared++;
    over += off.norm > 6e-3 || off.sum > 6e-3 || off.first > 6e-3;
  }
  assert_int_equal(found, expected->count);
  print_message("%zu of %zu gradients off by more than 6e-3\n", over, compared);
  assert_true(compared > 350 && 20 * over <= compared);
}

static void steps_in_single_precision(void **state) {
  (void)state;
  if (!all.expected) skip();
  static const double tolerance[] = {1e-5, 5e-4, 2e-3};
  const bnd_yolo_nas_options form = {.form = BND_YOLO_NAS_TRAIN, .height = SIDE, .width = SIDE, .raw_outputs = true};
  bnd_graph *graph;
  MUST(bnd_model_graph(all.model, &form, &graph, error));
  bnd_network *network = make_network(graph, false);
  three_steps(network, 5e-4, "fp32_steps", tolerance, check_float_gradients);
  bnd_network_destroy(network);
  bnd_graph_destroy(graph);
}

/* --- quantized --- */

static bnd_graph *calibrated_graph(void) {
  const bnd_yolo_nas_options form = {.form = BND_YOLO_NAS_PARTIAL, .height = SIDE, .width = SIDE, .raw_outputs = true, .stubs = true};
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  bnd_graph *graph;
  MUST(bnd_model_graph(all.model, &form, &graph, error));
  MUST(bnd_quark_mark_scope(graph, error));
  MUST(bnd_quark_prepare(graph, error));
  MUST(bnd_quark_insert_quantizers(graph, &config, error));
  MUST(bnd_infer_shapes(graph, error));
  const bnd_image_source source = bnd_dataset_source(&all.dataset, CALIBRATION_IMAGES);
  const bnd_calibration calibration = {.batch = 2};
  const bnd_context context = {.threads = 1};
  MUST(bnd_calibrate(graph, &source, &calibration, &context, error));
  return graph;
}

/* Every gradient; and those Quark loses are the ones that are flagged, no other. */
static void check_quantized_gradients(const bnd_network *network) {
  size_t count, found = 0;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  const bnd_json *expected = bnd_json_member(all.expected, "qat_eval_mode_gradients");
  deviation most = {0};
  for (size_t i = 0; i < count; i++) {
    const bnd_json *row = bnd_json_member(expected, p[i].name);
    if ((row != NULL) == p[i].direct) fail_msg("%s: flagged %d, has a gradient in the original: %d", p[i].name, p[i].direct, row != NULL);
    if (!row) continue;
    found++;
    assert_true(p[i].reached);
    const deviation off = gradient_deviation(&p[i], row);
    if (!(off.norm <= 1e-4 && off.sum <= 1e-4 && off.first <= 1e-4))
      fail_msg("%s: norm off by %g, sum by %g, first values by %g", p[i].name, off.norm, off.sum, off.first);
    most = (deviation){fmax(most.norm, off.norm), fmax(most.sum, off.sum), fmax(most.first, off.first)};
  }
  assert_int_equal(found, expected->count);
  print_message("%zu gradients: norms off by %.2e, sums by %.2e, first values by %.2e\n", found, most.norm, most.sum, most.first);
}

/* While training Quark has no gradient either for biases in front of a batch norm. */
static void check_trained_gradients(const bnd_network *network) {
  size_t count, found = 0;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  const bnd_json *expected = bnd_json_member(all.expected, "qat_gradients_step_1");
  for (size_t i = 0; i < count; i++) {
    const bool there = bnd_json_member(expected, p[i].name) != NULL;
    if (there != (p[i].reached && !p[i].direct)) fail_msg("%s: reached %d, has a gradient in the original: %d", p[i].name, p[i].reached, there);
    found += there;
  }
  assert_int_equal(found, expected->count);
}

static void quantized_evaluation_and_steps(void **state) {
  (void)state;
  if (!all.expected) skip();
  static const double tolerance[] = {1e-2, 2e-2, 4e-2}; /* step 3 of the original with other numbers of threads: 1.8285, 1.8201, 1.7682 */
  bnd_graph *graph = calibrated_graph();
  bnd_network *network = make_network(graph, true);
  const bnd_loss_parts parts = pass(network);
  const bnd_json *row = bnd_json_member(all.expected, "qat_eval_mode_loss");
  print_message("evaluation: loss off by %.2e, parts by %.2e\n", loss_difference(&parts, row), parts_difference(&parts, row));
  assert_true(loss_difference(&parts, row) <= 1e-6 && parts_difference(&parts, row) <= 1e-6);
  check_quantized_gradients(network);
  three_steps(network, 1e-4, "qat_steps", tolerance, check_trained_gradients);
  bnd_network_destroy(network);
  bnd_graph_destroy(graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steps_in_single_precision),
      cmocka_unit_test(quantized_evaluation_and_steps),
  };
  return cmocka_run_group_tests(tests, open_all, close_all);
}
