/* What training writes beside the weights is what opening a checkpoint understands: class names and the chain of image transforms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "flow/model.h"
#include "models/yolo_nas/initialize.h"

#define MUST(expression)                                            \
  do {                                                              \
    bnd_error must_error = {0}, *const error = &must_error;         \
    if ((expression) != BND_OK) fail_msg("%s", must_error.message); \
  } while (0)

static const char *const NAMES[] = {"circle", "gr\xc3\xbcner Kreis", ""};
enum { CLASSES = 3 };

/* A tiny network under "net", with these parameters. */
static void write_model(const char *path, const bnd_class_names *classes, const bnd_preprocessing *preprocessing) {
  bnd_yolo_nas_architecture architecture;
  bnd_yolo_nas_state *state = NULL;
  MUST(bnd_yolo_nas_scaled('S', 0.05, CLASSES, &architecture, error));
  MUST(bnd_yolo_nas_state_initialize(&architecture, 0, &state, error));
  bnd_checkpoint_writer *w = bnd_checkpoint_writer_create();
  bnd_checkpoint_begin_state_dict(w, "net");
  for (size_t i = 0; i < state->count; i++) bnd_checkpoint_put_tensor(w, state->shapes[i].name, &state->tensors[i]);
  bnd_checkpoint_end(w);
  bnd_processing_params_write(w, classes, preprocessing);
  MUST(bnd_checkpoint_write(w, path, error));
  bnd_checkpoint_writer_free(w);
  bnd_yolo_nas_state_destroy(state);
}

static void assert_same_preprocessing(const bnd_preprocessing *a, const bnd_preprocessing *b) {
  assert_int_equal(a->width, b->width);
  assert_int_equal(a->height, b->height);
  assert_int_equal(a->bgr, b->bgr);
  assert_int_equal(a->rescale, b->rescale);
  assert_int_equal(a->rescale_width, b->rescale_width);
  assert_int_equal(a->rescale_height, b->rescale_height);
  assert_int_equal(a->padding, b->padding);
  assert_int_equal(a->pad_value, b->pad_value);
  assert_true(a->max_value == b->max_value);
  assert_int_equal(a->normalize, b->normalize);
  assert_memory_equal(a->mean, b->mean, sizeof a->mean);
  assert_memory_equal(a->std, b->std, sizeof a->std);
}

static void written_parameters_are_read_back(void **state) {
  (void)state;
  bnd_preprocessing chains[3] = {bnd_preprocessing_yolo_nas(640, 640), bnd_preprocessing_yolo_nas(320, 416)};
  chains[0].rescale = chains[1].rescale = BND_RESCALE_LONGEST_ROUND;
  chains[2] = (bnd_preprocessing){.width = 96, .height = 64, .bgr = true, .rescale = BND_RESCALE_STRETCH, .rescale_width = 96, .rescale_height = 64,
                                  .padding = BND_PAD_BOTTOM_RIGHT, .pad_value = 7, .normalize = true, .mean = {0.1f, 0.2f, 0.3f}, .std = {1, 2, 3}};
  char path[] = "/tmp/binade-params-XXXXXX";
  const int file = mkstemp(path);
  assert_true(file >= 0);
  close(file);
  bnd_class_names classes = {0};
  for (int i = 0; i < CLASSES; i++) assert_true(bnd_class_names_add(&classes, NAMES[i]));
  for (int c = 0; c < 3; c++) {
    bnd_model *model = NULL;
    write_model(path, &classes, &chains[c]);
    MUST(bnd_model_open(path, &model, error));
    assert_int_equal(model->classes.count, CLASSES);
    for (int i = 0; i < CLASSES; i++) assert_string_equal(model->classes.names[i], NAMES[i]);
    assert_true(model->has_preprocessing);
    assert_same_preprocessing(&model->preprocessing, &chains[c]);
    bnd_model_close(model);
  }
  bnd_class_names_free(&classes);
  remove(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(written_parameters_are_read_back)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
