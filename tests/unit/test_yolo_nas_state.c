/* State dicts: names and shapes against super-gradients (data by tests/golden/make_state_dicts.py), initial values against the closed forms of the
   distributions (against super-gradients' own draws: tests/peers/checkpoint.test), and what becomes of them when a network is trained. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sha2.h>

#include "base/file.h"
#include "models/yolo_nas/initialize.h"

#define MUST(expression)                                            \
  do {                                                              \
    bnd_error must_error = {0}, *const error = &must_error;         \
    if ((expression) != BND_OK) fail_msg("%s", must_error.message); \
  } while (0)

static bnd_yolo_nas_state *fresh(char variant, double width, int classes, uint64_t seed) {
  bnd_yolo_nas_architecture architecture;
  bnd_yolo_nas_state *state = NULL;
  MUST(bnd_yolo_nas_scaled(variant, width, classes, &architecture, error));
  MUST(bnd_yolo_nas_state_initialize(&architecture, seed, &state, error));
  return state;
}

static bnd_yolo_nas *model_of(bnd_yolo_nas_state *state) {
  const bnd_tensor_source source = bnd_yolo_nas_state_source(state, "fresh");
  bnd_yolo_nas *model = NULL;
  MUST(bnd_yolo_nas_read(&source, &model, error));
  return model;
}

static const float *values(const bnd_yolo_nas_state *state, const char *name) {
  const bnd_tensor *tensor = bnd_yolo_nas_state_find(state, name);
  if (!tensor) fail_msg("no %s", name);
  return tensor->data;
}

static bool same_tensor(const bnd_tensor *a, const bnd_tensor *b) {
  return a->dtype == b->dtype && bnd_shape_equal(&a->shape, &b->shape) && memcmp(a->data, b->data, a->count * bnd_dtype_size(a->dtype)) == 0;
}

static void assert_same_states(const bnd_yolo_nas_state *a, const bnd_yolo_nas_state *b) {
  assert_int_equal(a->count, b->count);
  for (size_t i = 0; i < a->count; i++) {
    assert_string_equal(a->shapes[i].name, b->shapes[i].name);
    if (!same_tensor(&a->tensors[i], &b->tensors[i])) fail_msg("%s differs", a->shapes[i].name);
  }
}

static bool ends_with(const char *text, const char *end) {
  const size_t length = strlen(text), of_end = strlen(end);
  return length >= of_end && strcmp(text + length - of_end, end) == 0;
}

/* --- names and shapes --- */

static void assert_digest(const char *text, size_t length, const char *expected, const char *what) {
  char digest[SHA256_DIGEST_STRING_LENGTH];
  SHA256Data((const uint8_t *)text, length, digest);
  if (strcmp(digest, expected) != 0) fail_msg("%s: another list of names and shapes than super-gradients'", what);
}

static void scaled_networks_are_those_of_super_gradients(void **state) {
  (void)state;
  char *text, *rest, what[64];
  size_t size, rows = 0;
  MUST(bnd_file_read(TEST_DATA "/yolo_nas/scaled.tsv", 1 << 20, &text, &size, error));
  rest = text;
  for (char *line; (line = strsep(&rest, "\n")) && *line; rows++) {
    char variant, expected[80];
    double width;
    int classes;
    size_t count;
    assert_int_equal(sscanf(line, "%c\t%lf\t%d\t%zu\t%79s", &variant, &width, &classes, &count, expected), 5);
    snprintf(what, sizeof what, "%c width %g", variant, width);
    bnd_yolo_nas_architecture a;
    bnd_string described = {0}, listed = {0};
    MUST(bnd_yolo_nas_scaled(variant, width, classes, &a, error));
    MUST(bnd_yolo_nas_describe(&a, BND_YOLO_NAS_TRAIN, &described, error));
    assert_digest(described.text, described.length, expected, what);
    assert_int_equal(bnd_yolo_nas_size_of(&a, BND_YOLO_NAS_TRAIN).tensors, count);
    if (width < 0.5) {
      bnd_yolo_nas_state *dict = fresh(variant, width, classes, 0);
      assert_int_equal(dict->count, count);
      for (size_t i = 0; i < dict->count; i++) {
        const bnd_tensor *tensor = &dict->tensors[i];
        assert_true(bnd_shape_equal(&tensor->shape, &dict->shapes[i].shape));
        assert_int_equal(tensor->dtype, ends_with(dict->shapes[i].name, "num_batches_tracked") ? BND_I64 : BND_F32);
        assert_int_equal(tensor->dtype, dict->shapes[i].dtype);
        bnd_string_format(&listed, "%s [", dict->shapes[i].name);
        for (int d = 0; d < tensor->shape.rank; d++) bnd_string_format(&listed, "%s%lld", d ? "," : "", (long long)tensor->shape.size[d]);
        bnd_string_format(&listed, "]\n");
      }
      assert_string_equal(listed.text, described.text);
      bnd_yolo_nas *model = model_of(dict); /* and the reader finds what was asked for */
      const bnd_yolo_nas_architecture *read = bnd_yolo_nas_architecture_of(model);
      assert_int_equal(read->variant, variant);
      assert_int_equal(read->classes, classes);
      assert_int_equal(read->reg_max, 16);
      assert_int_equal(bnd_yolo_nas_stored_form(model), BND_YOLO_NAS_TRAIN);
      assert_false(bnd_yolo_nas_matched_by_order(model));
      assert_memory_equal(read, &a, sizeof a);
      bnd_yolo_nas_destroy(model);
      bnd_yolo_nas_state_destroy(dict);
    }
    bnd_string_free(&described);
    bnd_string_free(&listed);
  }
  assert_int_equal(rows, 12);
  free(text);
}

static void impossible_networks_are_refused(void **state) {
  (void)state;
  bnd_yolo_nas_architecture a;
  const struct {
    char variant;
    double width;
    int classes;
  } CASES[] = {
      {'X', 1, 80}, {'S', 0, 80}, {'S', -1, 80}, {'S', NAN, 80}, {'S', INFINITY, 80}, {'S', 17, 80}, {'S', 1, 0}, {'S', 1, 65537}, {'S', 1, -5}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
    assert_int_equal(bnd_yolo_nas_scaled(CASES[i].variant, CASES[i].width, CASES[i].classes, &a, NULL), BND_ERROR_ARGUMENT);
}

/* --- values --- */

/* The value every element of a tensor begins with, or NAN for random ones. */
static double constant_of(const char *name) {
  if (ends_with(name, ".alpha") || ends_with(name, "bn.weight") || ends_with(name, ".running_var")) return 1;
  if (ends_with(name, "bn.bias") || ends_with(name, ".running_mean")) return 0;
  return ends_with(name, ".cls_pred.bias") ? -log(99.0) : (double)NAN;
}

/* The weight that decides the bound of a tensor: itself, or for biases the one before. */
static double bound_of(const bnd_yolo_nas_state *state, size_t i) {
  const bnd_shape *weight = &state->shapes[ends_with(state->shapes[i].name, ".bias") ? i - 1 : i].shape;
  return 1 / sqrt((double)(weight->size[1] * weight->size[2] * weight->size[3]));
}

static void initial_values_have_the_right_distribution(void **state) {
  (void)state;
  bnd_yolo_nas_state *dict = fresh('S', 0.5, 8, 42);
  size_t random = 0, constant = 0;
  double largest_sigma = 0;
  for (size_t i = 0; i < dict->count; i++) {
    const bnd_tensor *tensor = &dict->tensors[i];
    const char *name = dict->shapes[i].name;
    if (tensor->dtype == BND_I64) {
      assert_int_equal(*(int64_t *)tensor->data, 0);
      continue;
    }
    const double expected = constant_of(name);
    if (!isnan(expected)) {
      for (size_t k = 0; k < tensor->count; k++) assert_true(bnd_f32(tensor)[k] == (float)expected);
      constant++;
      continue;
    }
    const double bound = bound_of(dict, i), n = (double)tensor->count;
    double sum = 0, squares = 0;
    for (size_t k = 0; k < tensor->count; k++) {
      const double value = (double)bnd_f32(tensor)[k];
      if (fabs(value) > bound * (1 + 1e-7)) fail_msg("%s[%zu] = %g is beyond %g", name, k, value, bound);
      sum += value, squares += value * value;
    }
    /* uniform in +-b: mean 0, variance b^2/3; the mean of n has deviation b/sqrt(3n), that of squares b^2 sqrt(4/45/n) */
    const double of_mean = fabs(sum / n) / (bound / sqrt(3 * n));
    const double of_squares = fabs(squares / n - bound * bound / 3) / (bound * bound * sqrt(4 / 45. / n));
    if (of_mean > 5 || of_squares > 5) fail_msg("%s: mean off by %.1f, variance by %.1f standard deviations", name, of_mean, of_squares);
    largest_sigma = fmax(largest_sigma, fmax(of_mean, of_squares));
    random++;
  }
  assert_true(largest_sigma > 2); /* of several hundred numbers; less would mean they are not random */
  assert_int_equal(random, 5 * 37 + (92 - 37) + 2 * 2 + 3 * 3);
  assert_int_equal(constant + random + 129, dict->count);
  bnd_yolo_nas_state_destroy(dict);
}

static double correlation(const float *a, const float *b, size_t count) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < count; i++) ab += (double)a[i] * (double)b[i], aa += (double)a[i] * (double)a[i], bb += (double)b[i] * (double)b[i];
  return ab / sqrt(aa * bb);
}

static void draws_depend_on_seed_and_name_alone(void **state) {
  (void)state;
  bnd_yolo_nas_state *a = fresh('S', 0.25, 8, 7), *b = fresh('S', 0.25, 8, 7), *other = fresh('S', 0.25, 8, 8), *more = fresh('S', 0.25, 20, 7);
  static const char *const TWINS[] = {"backbone.stage3.blocks.bottlenecks.0.cv1.branch_3x3.conv.weight",
                                      "backbone.stage3.blocks.bottlenecks.0.cv2.branch_3x3.conv.weight",
                                      "backbone.stage3.blocks.bottlenecks.0.cv1.rbr_reparam.weight"};
  const size_t count = bnd_yolo_nas_state_find(a, TWINS[0])->count;
  assert_same_states(a, b);
  for (int i = 0; i < 3; i++) {
    for (int k = 0; k < i; k++) assert_true(fabs(correlation(values(a, TWINS[i]), values(a, TWINS[k]), count)) < 5 / sqrt((double)count));
    assert_true(fabs(correlation(values(a, TWINS[i]), values(other, TWINS[i]), count)) < 5 / sqrt((double)count));
    assert_memory_equal(values(a, TWINS[i]), values(more, TWINS[i]), count * sizeof(float));
  }
  bnd_yolo_nas_state_destroy(a);
  bnd_yolo_nas_state_destroy(b);
  bnd_yolo_nas_state_destroy(other);
  bnd_yolo_nas_state_destroy(more);
}

/* --- other classes --- */

static void new_classes_change_the_class_predictions_only(void **state) {
  (void)state;
  bnd_yolo_nas_state *dict = fresh('S', 0.25, 8, 1), *before = NULL, *asked = fresh('S', 0.25, 3, 2);
  for (size_t i = 0; i < dict->count; i++) /* as after training */
    for (size_t k = 0; k < dict->tensors[i].count && dict->tensors[i].dtype == BND_F32; k++) bnd_f32(&dict->tensors[i])[k] += 0.5f;
  MUST(bnd_yolo_nas_state_copy(dict, &before, error));
  MUST(bnd_yolo_nas_state_replace_classes(dict, 8, 2, error)); /* it has 8 */
  assert_same_states(dict, before);
  MUST(bnd_yolo_nas_state_replace_classes(dict, 3, 2, error));
  size_t changed = 0;
  for (size_t i = 0; i < dict->count; i++) {
    const bool of_classes = strstr(dict->shapes[i].name, "cls_pred") != NULL;
    changed += of_classes;
    assert_true(bnd_shape_equal(&dict->shapes[i].shape, &dict->tensors[i].shape));
    assert_true(same_tensor(&dict->tensors[i], of_classes ? &asked->tensors[i] : &before->tensors[i]));
  }
  assert_int_equal(changed, 6);
  bnd_yolo_nas *model = model_of(dict);
  assert_int_equal(bnd_yolo_nas_architecture_of(model)->classes, 3);
  bnd_yolo_nas_destroy(model);
  assert_int_equal(bnd_yolo_nas_state_replace_classes(dict, 0, 2, NULL), BND_ERROR_ARGUMENT);
  dict->shapes[dict->count - 4].name = "heads.head3.cls_pred.other"; /* the weight of the last class prediction */
  bnd_error error = {0};
  assert_int_equal(bnd_yolo_nas_state_replace_classes(dict, 5, 2, &error), BND_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "heads.head3.cls_pred.weight"));
  bnd_yolo_nas_state_destroy(dict);
  bnd_yolo_nas_state_destroy(before);
  bnd_yolo_nas_state_destroy(asked);
}

/* --- from models, and back from graphs --- */

static bnd_graph *training_graph(const bnd_yolo_nas *model) {
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_TRAIN, .height = 64, .width = 64, .raw_outputs = true};
  bnd_graph *graph = NULL;
  MUST(bnd_yolo_nas_graph(model, &options, &graph, error));
  return graph;
}

static void models_give_back_their_state(void **state) {
  (void)state;
  bnd_yolo_nas_state *dict = fresh('M', 0.1, 4, 3), *read = NULL;
  *(int64_t *)bnd_yolo_nas_state_find(dict, "backbone.stem.conv.post_bn.num_batches_tracked")->data = INT64_C(1) << 40;
  bnd_yolo_nas *model = model_of(dict);
  MUST(bnd_yolo_nas_state_read(model, &read, error));
  assert_same_states(dict, read);
  for (size_t i = 0; i < dict->count; i++) assert_ptr_not_equal(dict->tensors[i].data, read->tensors[i].data);
  bnd_yolo_nas_destroy(model);
  bnd_yolo_nas_state_destroy(read);
  bnd_yolo_nas_state_destroy(dict);
}

/* As files of other programs have it: no counters, no unused parameters, one counter that is a float, foreign names are covered by test_yolo_nas. */
static void missing_tensors_get_initial_values(void **state) {
  (void)state;
  bnd_yolo_nas_state *dict = fresh('S', 0.1, 4, 3), *read = NULL;
  bnd_named_shape *kept = calloc(dict->count, sizeof *kept);
  bnd_tensor *tensors = calloc(dict->count, sizeof *tensors);
  size_t count = 0;
  for (size_t i = 0; i < dict->count; i++) {
    const char *name = dict->shapes[i].name;
    const bool is_first = strcmp(name, "backbone.stem.conv.post_bn.num_batches_tracked") == 0;
    if (strstr(name, "rbr_reparam") || (strstr(name, "num_batches") && !is_first)) continue;
    kept[count] = dict->shapes[i];
    tensors[count] = dict->tensors[i];
    if (is_first) {
      static float batches = 1234;
      kept[count].dtype = BND_F32;
      tensors[count] = (bnd_tensor){.dtype = BND_F32, .count = 1, .data = &batches};
    }
    count++;
  }
  bnd_yolo_nas_state part = {kept, tensors, count, count, NULL};
  bnd_yolo_nas *model = model_of(&part);
  MUST(bnd_yolo_nas_state_read(model, &read, error));
  assert_int_equal(read->count, dict->count);
  for (size_t i = 0; i < dict->count; i++) {
    assert_string_equal(read->shapes[i].name, dict->shapes[i].name);
    assert_true(bnd_shape_equal(&read->tensors[i].shape, &dict->tensors[i].shape));
    assert_int_equal(read->tensors[i].dtype, dict->tensors[i].dtype);
    if (strstr(dict->shapes[i].name, "rbr_reparam"))
      for (size_t k = 0; k < read->tensors[i].count; k++) assert_true(fabs((double)bnd_f32(&read->tensors[i])[k]) <= bound_of(dict, i));
    else if (strcmp(dict->shapes[i].name, "backbone.stem.conv.post_bn.num_batches_tracked") == 0)
      assert_int_equal(*(int64_t *)read->tensors[i].data, 1234);
    else
      assert_true(same_tensor(&read->tensors[i], &dict->tensors[i]));
  }
  bnd_yolo_nas_destroy(model);
  bnd_yolo_nas_state_destroy(read);
  bnd_yolo_nas_state_destroy(dict);
  free(kept);
  free(tensors);
}

/* The graph's values are what training changes; everything it knows must arrive, and what it does not know must stay. */
static void trained_graphs_update_the_state(void **state) {
  (void)state;
  bnd_yolo_nas_state *dict = fresh('L', 0.1, 4, 5), *before = NULL;
  MUST(bnd_yolo_nas_state_copy(dict, &before, error));
  bnd_yolo_nas *model = model_of(dict);
  bnd_graph *graph = training_graph(model);
  for (size_t i = 0; i < dict->count; i++) {
    const bnd_attribute *attribute = bnd_graph_attribute(graph, dict->shapes[i].name);
    if (!attribute || attribute->tensor.dtype != BND_F32) continue;
    for (size_t k = 0; k < attribute->tensor.count; k++) bnd_f32(&attribute->tensor)[k] += (float)(k % 5) + 1.f;
  }
  assert_same_states(dict, before); /* the graph shares no memory with it */
  MUST(bnd_yolo_nas_state_update(dict, graph, 17, error));
  MUST(bnd_yolo_nas_state_update(dict, graph, 3, error));
  size_t updated = 0, kept = 0, counters = 0;
  for (size_t i = 0; i < dict->count; i++) {
    const bnd_tensor *now = &dict->tensors[i], *then = &before->tensors[i];
    if (now->dtype == BND_I64) {
      assert_int_equal(*(int64_t *)now->data, 20);
      counters++;
    } else if (strstr(dict->shapes[i].name, "rbr_reparam")) {
      assert_true(same_tensor(now, then));
      kept++;
    } else {
      for (size_t k = 0; k < now->count; k++) assert_true(bnd_f32(now)[k] == bnd_f32(then)[k] + ((float)(k % 5) + 1.f));
      updated++;
    }
  }
  assert_int_equal(counters, 153);
  assert_int_equal(kept, 2 * 45);
  assert_int_equal(updated + kept + counters, 1097);
  bnd_graph_destroy(graph);
  bnd_yolo_nas_destroy(model);
  bnd_yolo_nas_state_destroy(dict);
  bnd_yolo_nas_state_destroy(before);
}

static void foreign_graphs_change_nothing(void **state) {
  (void)state;
  bnd_yolo_nas_state *dict = fresh('S', 0.1, 4, 5), *wider = fresh('S', 0.2, 4, 5), *longer = fresh('M', 0.1, 4, 5), *before = NULL;
  MUST(bnd_yolo_nas_state_copy(dict, &before, error));
  bnd_yolo_nas_state *const others[] = {wider, longer};
  static const char *const NAMED[] = {"backbone.stem.conv.branch_3x3.conv.weight of the network", "neck.neck2.blocks.bottlenecks.2.alpha of the network"};
  for (int i = 0; i < 2; i++) {
    bnd_yolo_nas *model = model_of(others[i]);
    bnd_graph *graph = training_graph(model);
    bnd_error error = {0};
    assert_int_equal(bnd_yolo_nas_state_update(dict, graph, 1, &error), BND_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, NAMED[i]));
    assert_same_states(dict, before);
    bnd_graph_destroy(graph);
    bnd_yolo_nas_destroy(model);
    bnd_yolo_nas_state_destroy(others[i]);
  }
  bnd_yolo_nas_state_destroy(dict);
  bnd_yolo_nas_state_destroy(before);
  bnd_yolo_nas_state_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(scaled_networks_are_those_of_super_gradients),
      cmocka_unit_test(impossible_networks_are_refused),
      cmocka_unit_test(initial_values_have_the_right_distribution),
      cmocka_unit_test(draws_depend_on_seed_and_name_alone),
      cmocka_unit_test(new_classes_change_the_class_predictions_only),
      cmocka_unit_test(models_give_back_their_state),
      cmocka_unit_test(missing_tensors_get_initial_values),
      cmocka_unit_test(trained_graphs_update_the_state),
      cmocka_unit_test(foreign_graphs_change_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
