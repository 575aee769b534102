/* Readable checkpoints: tests/data/checkpoints, written by torch itself through tests/golden/make_checkpoints.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/checkpoint/checkpoint.h"

static bnd_checkpoint *open_file(const char *name) {
  char path[512];
  bnd_checkpoint *checkpoint = NULL;
  bnd_error error = {0};
  snprintf(path, sizeof path, "%s/checkpoints/%s", TEST_DATA, name);
  if (bnd_checkpoint_open(path, &checkpoint, &error) != BND_OK) fail_msg("%s", error.message);
  return checkpoint;
}

static bnd_state_dict state_dict_of(bnd_checkpoint *checkpoint) {
  bnd_state_dict state_dict = {0};
  bnd_error error = {0};
  if (bnd_checkpoint_state_dict(checkpoint, NULL, &state_dict, &error) != BND_OK) fail_msg("%s", error.message);
  return state_dict;
}

static const bnd_state_dict_entry *find(const bnd_state_dict *state_dict, const char *name) {
  for (size_t i = 0; i < state_dict->count; i++)
    if (strcmp(state_dict->entries[i].name, name) == 0) return &state_dict->entries[i];
  fail_msg("no tensor %s", name);
  return NULL;
}

/* pattern(i) of make_checkpoints.py */
static void assert_pattern(bnd_checkpoint *checkpoint, const bnd_state_dict_entry *entry) {
  bnd_tensor tensor, floats;
  bnd_error error = {0};
  if (bnd_checkpoint_entry_tensor(checkpoint, entry, &tensor, &error) != BND_OK) fail_msg("%s", error.message);
  assert_int_equal(tensor.dtype, entry->dtype);
  assert_true(bnd_shape_equal(&tensor.shape, &entry->shape));
  assert_int_equal(bnd_tensor_to_f32(&tensor, &floats, NULL), BND_OK);
  for (size_t i = 0; i < floats.count; i++) {
    const float expected = tensor.dtype == BND_BOOL ? (float)(i % 3 == 0) : tensor.dtype == BND_U8 ? (float)i : (float)i - 3.f;
    if (bnd_f32(&floats)[i] != expected) fail_msg("%s[%zu] is %g, not %g", entry->name, i, (double)bnd_f32(&floats)[i], (double)expected);
  }
  bnd_tensor_release(&tensor);
  bnd_tensor_release(&floats);
}

static void every_dtype_is_read(void **state) {
  (void)state;
  static const char *const FILES[] = {"dtypes.pth",           "dtypes_protocol4.pth",        "dtypes_protocol1.pth",
                                      "dtypes_legacy.pth",    "dtypes_legacy_protocol4.pth", "dtypes_legacy_protocol1.pth"};
  for (size_t f = 0; f < sizeof FILES / sizeof *FILES; f++) {
    bnd_checkpoint *checkpoint = open_file(FILES[f]);
    assert_string_equal(bnd_checkpoint_container(checkpoint), strstr(FILES[f], "legacy") ? "legacy" : "zip");
    const bnd_state_dict state_dict = state_dict_of(checkpoint);
    assert_int_equal(state_dict.count, 10);
    assert_string_equal(state_dict.key, "");
    for (size_t i = 0; i < state_dict.count; i++) {
      const bnd_state_dict_entry *entry = &state_dict.entries[i];
      assert_string_equal(entry->name, bnd_dtype_name(entry->dtype));
      assert_string_equal(entry->name, bnd_value_dtype_name(entry->value));
      assert_true(bnd_shape_equal(&entry->shape, &BND_SHAPE(2, 5)));
      assert_pattern(checkpoint, entry);
    }
    bnd_checkpoint_close(checkpoint);
  }
}

static void any_strides_become_contiguous(void **state) {
  (void)state;
  static const char *const FILES[] = {"strided.pth", "strided_protocol4.pth", "strided_legacy.pth", "strided_legacy_protocol4.pth"};
  for (size_t f = 0; f < sizeof FILES / sizeof *FILES; f++) {
    bnd_checkpoint *checkpoint = open_file(FILES[f]);
    const bnd_state_dict state_dict = state_dict_of(checkpoint);
    assert_int_equal(state_dict.count, 13);
    for (size_t i = 0; i < state_dict.count; i++) assert_pattern(checkpoint, &state_dict.entries[i]);
    assert_true(bnd_shape_equal(&find(&state_dict, "channels_last")->shape, &BND_SHAPE(2, 3, 4, 5)));
    assert_int_equal(find(&state_dict, "channels_last")->value->tensor->stride[1], 1);
    assert_true(bnd_shape_equal(&find(&state_dict, "columns")->shape, &BND_SHAPE(4, 6)));
    assert_int_equal(find(&state_dict, "scalar")->shape.rank, 0);
    assert_int_equal(find(&state_dict, "rank8")->shape.rank, 8);
    assert_int_equal(find(&state_dict, "empty")->shape.size[1], 3);
    bnd_checkpoint_close(checkpoint);
  }
}

static void big_endian_elements_are_swapped(void **state) {
  (void)state;
  bnd_checkpoint *checkpoint = open_file("big_endian.pth");
  const bnd_state_dict state_dict = state_dict_of(checkpoint);
  assert_int_equal(state_dict.count, 2);
  for (size_t i = 0; i < state_dict.count; i++) assert_pattern(checkpoint, &state_dict.entries[i]);
  bnd_checkpoint_close(checkpoint);
}

static double number(const bnd_value *dict, const char *key) {
  double value = NAN;
  assert_true(bnd_value_number(bnd_value_get(dict, key), &value));
  return value;
}

static const bnd_value *item(const bnd_value *list, size_t index) {
  assert_true(list && (list->kind == BND_VALUE_LIST || list->kind == BND_VALUE_TUPLE) && index < list->list.count);
  return list->list.items[index];
}

static void check_trainer_values(const bnd_value *root) {
  assert_true(number(root, "acc") == 0.25);
  assert_true(number(root, "epoch") == 7);
  assert_true(bnd_value_get(root, "big")->integer == INT64_C(1) << 40);
  assert_true(bnd_value_get(root, "negative")->integer == -(INT64_C(1) << 40));
  assert_int_equal(bnd_value_get(root, "huge")->kind, BND_VALUE_OPAQUE); /* beyond 64 bits */
  assert_true(number(root, "small") == -5);
  const bnd_value *metrics = bnd_value_get(root, "metrics");
  assert_true(number(bnd_value_get(metrics, "valid"), "mAP@0.50") == 0.5);
  assert_true(isinf(number(bnd_value_get(metrics, "valid"), "loss")));
  assert_true(number(metrics, "half") == 0.5);
  assert_true(bnd_value_get(root, "best")->integer == -9);
  assert_int_equal(bnd_value_get(root, "flag")->kind, BND_VALUE_BOOL);
  assert_true(number(root, "flag") == 1);
  assert_true(number(root, "unsigned") == 200);
  assert_true(number(root, "float16") == -1.5);
  assert_int_equal(bnd_value_get(root, "none")->kind, BND_VALUE_NONE);
  const bnd_value *bytes = bnd_value_get(root, "bytes");
  assert_int_equal(bytes->kind, BND_VALUE_BYTES);
  assert_int_equal(bytes->string.length, 4);
  assert_memory_equal(bytes->string.text, "\x00\xff\x80z", 4);
  assert_true(item(bnd_value_get(root, "set"), 0)->integer == 4);
  assert_int_equal(bnd_value_get(root, "size")->kind, BND_VALUE_TUPLE);
  assert_true(item(bnd_value_get(root, "size"), 1)->integer == 4);
  assert_string_equal(bnd_value_get(root, "dtype")->opaque.name, "torch.float16");
  const bnd_value *optimizer = bnd_value_get(root, "optimizer_state_dict"), *moments = bnd_value_get(optimizer, "state");
  assert_true(number(item(bnd_value_get(optimizer, "param_groups"), 0), "momentum") == 0.9);
  assert_true(moments->dict.count == 2 && moments->dict.pairs[1].key->integer == 1);
  assert_int_equal(bnd_value_get(moments->dict.pairs[1].value, "momentum_buffer")->kind, BND_VALUE_TENSOR);
  const bnd_value *processing = bnd_value_get(root, "processing_params"), *names = bnd_value_get(processing, "class_names");
  assert_string_equal(bnd_value_text(item(names, 0)), "circle");
  assert_string_equal(bnd_value_text(item(names, 1)), "caf\xc3\xa9 \xe2\x98\x83 \xf0\x9f\x9a\xb2");
  assert_string_equal(bnd_value_text(item(names, 2)), "plain \xc3\xa9");
  const bnd_value *chain = bnd_value_get(bnd_value_get(bnd_value_get(processing, "image_processor"), "ComposeProcessing"), "processings");
  assert_true(bnd_value_is_text(item(chain, 0), "ReverseImageChannels"));
  const bnd_value *padding = bnd_value_get(item(chain, 2), "DetectionBottomRightPadding");
  assert_true(number(padding, "pad_value") == 114);
  assert_true(item(bnd_value_get(padding, "output_shape"), 1)->integer == 640);
}

static void a_trainers_file_is_read(void **state) {
  (void)state;
  static const char *const FILES[] = {"trainer.pth", "trainer_protocol4.pth", "trainer_protocol5.pth", "trainer_legacy.pth",
                                      "trainer_legacy_protocol4.pth"};
  for (size_t f = 0; f < sizeof FILES / sizeof *FILES; f++) {
    bnd_checkpoint *checkpoint = open_file(FILES[f]);
    check_trainer_values(bnd_checkpoint_root(checkpoint));
    bnd_state_dict state_dict = state_dict_of(checkpoint);
    assert_string_equal(state_dict.key, "ema_net");
    assert_false(state_dict.has_prefix);
    assert_int_equal(state_dict.count, 3);
    assert_string_equal(state_dict.entries[2].name, "bn.num_batches_tracked");
    assert_int_equal(state_dict.entries[2].dtype, BND_I64);
    for (size_t i = 0; i < state_dict.count; i++) assert_pattern(checkpoint, &state_dict.entries[i]);
    assert_int_equal(bnd_checkpoint_state_dict(checkpoint, "net", &state_dict, NULL), BND_OK);
    assert_string_equal(state_dict.key, "net");
    assert_true(state_dict.has_prefix);
    assert_string_equal(state_dict.entries[0].name, "conv.weight");
    bnd_error error = {0};
    assert_int_equal(bnd_checkpoint_state_dict(checkpoint, "absent", &state_dict, &error), BND_ERROR_MODEL);
    assert_non_null(strstr(error.message, "'absent'"));
    bnd_checkpoint_close(checkpoint);
  }
}

static void prefixes_go_only_if_all_names_have_them(void **state) {
  (void)state;
  bnd_checkpoint *all = open_file("module_prefix.pth"), *some = open_file("partial_prefix.pth");
  bnd_state_dict state_dict = state_dict_of(all);
  assert_true(state_dict.has_prefix);
  assert_string_equal(state_dict.entries[1].name, "b");
  state_dict = state_dict_of(some);
  assert_false(state_dict.has_prefix);
  assert_string_equal(state_dict.entries[0].name, "module.a");
  bnd_checkpoint_close(all);
  bnd_checkpoint_close(some);
}

static void none_and_values_that_are_no_tensors_are_passed_over(void **state) {
  (void)state;
  bnd_checkpoint *checkpoint = open_file("state_dict.pth");
  const bnd_state_dict state_dict = state_dict_of(checkpoint);
  assert_string_equal(state_dict.key, "state_dict");
  assert_int_equal(state_dict.count, 1);
  assert_int_equal(state_dict.ignored, 1);
  bnd_checkpoint_close(checkpoint);
}

static void subclasses_become_what_they_are_used_as(void **state) {
  (void)state;
  bnd_checkpoint *checkpoint = open_file("subclasses.pth");
  const bnd_value *root = bnd_checkpoint_root(checkpoint);
  assert_true(number(bnd_value_get(root, "names"), "x") == 1);
  assert_string_equal(bnd_value_text(item(bnd_value_get(root, "strings"), 0)), "y");
  assert_true(item(bnd_value_get(bnd_value_get(root, "default"), "z"), 0)->integer == 2);
  bnd_checkpoint_close(checkpoint);
}

static void nothing_is_executed(void **state) {
  (void)state;
  remove("OWNED");
  bnd_checkpoint *checkpoint = open_file("evil.pth");
  const bnd_state_dict state_dict = state_dict_of(checkpoint);
  assert_int_equal(state_dict.count, 1);
  assert_int_equal(state_dict.ignored, 1);
  const bnd_value *run = bnd_value_get(bnd_checkpoint_root(checkpoint), "run");
  assert_int_equal(run->kind, BND_VALUE_OPAQUE);
  assert_string_equal(run->opaque.name, "os.system");
  assert_string_equal(bnd_value_text(item(run->opaque.arguments, 0)), "touch OWNED");
  bnd_checkpoint_close(checkpoint);
  assert_null(fopen("OWNED", "rb"));
}

static void cycles_are_cut(void **state) {
  (void)state;
  bnd_checkpoint *checkpoint = open_file("cycle.pth");
  const bnd_value *root = bnd_checkpoint_root(checkpoint);
  assert_string_equal(item(bnd_value_get(root, "list"), 0)->opaque.name, "cycle");
  assert_string_equal(bnd_value_get(bnd_value_get(root, "dict"), "self")->opaque.name, "cycle");
  assert_string_equal(item(item(bnd_value_get(root, "tuple"), 0), 0)->opaque.name, "cycle");
  const bnd_state_dict state_dict = state_dict_of(checkpoint);
  assert_pattern(checkpoint, &state_dict.entries[0]);
  bnd_checkpoint_close(checkpoint);
}

static void tensors_outlive_the_checkpoint(void **state) {
  (void)state;
  bnd_checkpoint *checkpoint = open_file("stream.pth");
  bnd_tensor first, again;
  const bnd_value *value = bnd_value_get(bnd_checkpoint_root(checkpoint), "a");
  assert_int_equal(bnd_checkpoint_tensor(checkpoint, value, &first, NULL), BND_OK);
  assert_int_equal(bnd_checkpoint_tensor(checkpoint, value, &again, NULL), BND_OK);
  bnd_error error = {0};
  assert_int_equal(bnd_checkpoint_tensor(checkpoint, bnd_checkpoint_root(checkpoint), &again, &error), BND_ERROR_MODEL);
  assert_non_null(strstr(error.message, "a dict is found where a tensor is needed"));
  bnd_checkpoint_close(checkpoint);
  assert_true(bnd_f32(&first)[2] == -1 && bnd_f32(&again)[0] == -3 && first.data != again.data);
  bnd_tensor_release(&first);
  bnd_tensor_release(&again);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_dtype_is_read),
      cmocka_unit_test(any_strides_become_contiguous),
      cmocka_unit_test(big_endian_elements_are_swapped),
      cmocka_unit_test(a_trainers_file_is_read),
      cmocka_unit_test(prefixes_go_only_if_all_names_have_them),
      cmocka_unit_test(none_and_values_that_are_no_tensors_are_passed_over),
      cmocka_unit_test(subclasses_become_what_they_are_used_as),
      cmocka_unit_test(nothing_is_executed),
      cmocka_unit_test(cycles_are_cut),
      cmocka_unit_test(tensors_outlive_the_checkpoint),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
