/* The trainer with a tiny YOLO-NAS on a few drawn pictures: it learns, and whatever happens to a step, the state is one that was reached. */
#include <unistd.h>

#include "network_graphs.h"

#include "base/file.h"
#include "models/yolo_nas/initialize.h"
#include "train/trainer.h"

enum { PICTURES = 12, SIDE = 64 };
static char folder[] = "/tmp/binade-test-XXXXXX";
static bnd_coco coco;

/* --- data: one or two plain rectangles on a plain ground, the colour tells the class --- */

static const char *path_in_folder(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void paint(bnd_image *image, int left, int top, int width, int height, const uint8_t colour[3]) {
  for (int y = top; y < top + height; y++)
    for (int x = left; x < left + width; x++) memcpy(&image->pixels[3 * (y * image->width + x)], colour, 3);
}

static int make_data(void **state) {
  (void)state;
  static const uint8_t colours[3][3] = {{220, 40, 30}, {40, 200, 60}, {50, 60, 230}};
  if (!mkdtemp(folder)) return -1;
  bnd_string json = {0};
  bnd_string_format(&json, "{\"categories\":[{\"id\":1,\"name\":\"a\"},{\"id\":2,\"name\":\"b\"},{\"id\":3,\"name\":\"c\"}],\"images\":[");
  for (int i = 0; i < PICTURES; i++)
    bnd_string_format(&json, "%s{\"id\":%d,\"width\":%d,\"height\":%d,\"file_name\":\"%d.png\"}", i ? "," : "", i, SIDE, SIDE, i);
  bnd_string_format(&json, "],\"annotations\":[");
  for (int i = 0, id = 1; i < PICTURES; i++) {
    bnd_image image;
    char name[32];
    if (bnd_image_create(SIDE, SIDE, &image, NULL) != BND_OK) return -1;
    const uint8_t ground = (uint8_t)(90 + 5 * i);
    paint(&image, 0, 0, SIDE, SIDE, (const uint8_t[]){ground, ground, ground});
    for (int k = 0; k <= i % 2; k++, id++) {
      const int label = (i + k) % 3, left = 2 + i * 7 % 20 + 28 * k, top = 3 + i * 5 % 24, width = 14 + i % 5 * 2, height = 18 + i % 3 * 6;
      paint(&image, left, top, width > SIDE - left ? SIDE - left : width, height, colours[label]);
      bnd_string_format(&json, "%s{\"id\":%d,\"image_id\":%d,\"category_id\":%d,\"iscrowd\":0,\"bbox\":[%d,%d,%d,%d]}", id > 1 ? "," : "", id, i, label + 1, left,
                        top, width > SIDE - left ? SIDE - left : width, height);
    }
    snprintf(name, sizeof name, "%d.png", i);
    const bnd_status status = bnd_image_write_png(path_in_folder(name), &image, NULL);
    bnd_image_free(&image);
    if (status != BND_OK) return -1;
  }
  bnd_string_format(&json, "]}");
  const bool written = !json.failed && bnd_file_write(path_in_folder("a.json"), json.text, json.length, NULL) == BND_OK;
  bnd_string_free(&json);
  if (!written) return -1;
  char file[128];
  snprintf(file, sizeof file, "%s", path_in_folder("a.json"));
  return bnd_coco_open_files(file, folder, &coco, NULL) == BND_OK ? 0 : -1;
}

static int remove_data(void **state) {
  (void)state;
  bnd_coco_close(&coco);
  char name[32];
  for (int i = 0; i < PICTURES; i++) {
    snprintf(name, sizeof name, "%d.png", i);
    unlink(path_in_folder(name));
  }
  unlink(path_in_folder("a.json"));
  unlink(path_in_folder("state.pth"));
  return rmdir(folder);
}

/* --- a run --- */

typedef struct setup {
  int batch, threads, classes, accumulate;
  double rate;
  bool quantize, augment, average, skip_direct;
  uint64_t epochs;
} setup;

static const setup PLAIN = {.batch = 2, .threads = 1, .classes = 3, .rate = 2e-3, .epochs = 10};
static const setup QUANTIZED = {.batch = 2, .threads = 1, .classes = 3, .rate = 1e-4, .epochs = 10, .quantize = true};

typedef struct rig {
  bnd_graph *graph;
  bnd_loader *loader; /* the trainer keeps the address */
  bnd_network *network;
  bnd_trainer *trainer;
} rig;

static bnd_graph *tiny_yolo_nas(const setup *s) {
  bnd_yolo_nas_architecture architecture;
  bnd_yolo_nas_state *state;
  bnd_yolo_nas *model;
  bnd_graph *graph;
  ASSERT_OK(bnd_yolo_nas_scaled('S', 0.06, s->classes, &architecture, error));
  ASSERT_OK(bnd_yolo_nas_state_initialize(&architecture, 5, &state, error));
  const bnd_tensor_source source = bnd_yolo_nas_state_source(state, "tiny");
  ASSERT_OK(bnd_yolo_nas_read(&source, &model, error));
  const bnd_yolo_nas_options options = {.form = s->quantize ? BND_YOLO_NAS_PARTIAL : BND_YOLO_NAS_TRAIN, .height = SIDE, .width = SIDE, .raw_outputs = true,
                                        .stubs = s->quantize};
  ASSERT_OK(bnd_yolo_nas_graph(model, &options, &graph, error));
  bnd_yolo_nas_destroy(model);
  bnd_yolo_nas_state_destroy(state);
  return graph;
}

static void quantize(rig *r) {
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  float *images[2];
  insert_quantizers(r->graph, &config);
  for (size_t i = 0; i < 2; i++) {
    bnd_targets targets = {0};
    images[i] = malloc(3 * SIDE * SIDE * sizeof(float));
    ASSERT_OK(bnd_loader_load(r->loader, 0, i, images[i], &targets, error));
    bnd_targets_free(&targets);
  }
  calibrate(r->graph, images, 2, 3 * SIDE * SIDE, 2);
  free(images[0]);
  free(images[1]);
}

static rig open_rig(const setup *s) {
  static const int outputs[] = {2, 3};
  rig r = {.graph = tiny_yolo_nas(s), .loader = calloc(1, sizeof *r.loader)};
  bnd_loader_options loading = bnd_loader_options_default(SIDE, 3);
  loading.augment = s->augment;
  loading.preprocessing = bnd_preprocessing_yolo_nas(SIDE, SIDE);
  ASSERT_OK(bnd_loader_create(&coco, &loading, r.loader, error));
  if (s->quantize) quantize(&r);
  const bnd_network_options options = {.batch = s->batch, .threads = s->threads, .quantize = s->quantize, .gradient_outputs = outputs, .gradient_output_count = 2};
  ASSERT_OK(bnd_network_create(r.graph, &options, &r.network, error));
  const bnd_trainer_options training = {.batch = s->batch, .threads = s->threads, .accumulate = s->accumulate, .mode = BND_MODE_TRAIN,
                                        .optimizer = {.kind = BND_ADAMW}, .weight_decay = 1e-5,
                                        .schedule = {.kind = BND_SCHEDULE_COSINE, .initial = s->rate, .epochs = s->epochs, .final_ratio = 0.1},
                                        .average = s->average, .decay = {.kind = BND_DECAY_THRESHOLD, .decay = 0.99}, .skip_direct = s->skip_direct,
                                        .classes = s->classes, .reg_max = 16, .class_output = 2, .box_output = 3};
  ASSERT_OK(bnd_trainer_create(r.network, r.loader, &training, &r.trainer, error));
  return r;
}

static void close_rig(rig *r) {
  bnd_trainer_destroy(r->trainer);
  bnd_network_destroy(r->network);
  bnd_graph_destroy(r->graph);
  bnd_loader_free(r->loader);
  free(r->loader);
}

static bnd_loss_parts step(rig *r) {
  bnd_step_report report;
  const bnd_context context = {.threads = 1};
  ASSERT_OK(bnd_trainer_step(r->trainer, &context, &report, error));
  assert_true(report.gradient_norm > 0);
  return report.loss;
}

static void steps(rig *r, int count) {
  for (int k = 0; k < count; k++) step(r);
}

static void save(rig *r) {
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  assert_non_null(writer);
  bnd_trainer_save(r->trainer, writer, "trainer");
  ASSERT_OK(bnd_checkpoint_write(writer, path_in_folder("state.pth"), error));
  bnd_checkpoint_writer_free(writer);
}

static record file_bytes(void) {
  record bytes;
  ASSERT_OK(bnd_file_read(path_in_folder("state.pth"), 1 << 28, &bytes.bytes, &bytes.count, error));
  return bytes;
}

/* All of the state, as the bytes of a file: equal content gives equal bytes. And the parameters once more, trained or not. */
static record state_of(rig *r) {
  save(r);
  record bytes = file_bytes();
  put_parameters(&bytes, r->network, false);
  return bytes;
}

static void assert_state(rig *r, const record *expected) {
  record now = state_of(r);
  assert_true(same_record(&now, expected));
  free(now.bytes);
}

static bnd_status restore(rig *r, const char *key, bnd_error *error) {
  bnd_checkpoint *checkpoint;
  BND_TRY(bnd_checkpoint_open(path_in_folder("state.pth"), &checkpoint, error));
  const bnd_status status = bnd_trainer_restore(r->trainer, checkpoint, key, error);
  bnd_checkpoint_close(checkpoint);
  return status;
}

/* --- learning --- */

/* Scores are nearly 0 before anything is learned, and with them the loss; what falls is what each unit of score costs. */
static void the_loss_falls(void **state) {
  (void)state;
  setup s = PLAIN;
  s.batch = 4;
  s.rate = 3e-2;
  rig r = open_rig(&s);
  assert_int_equal(bnd_trainer_steps_per_epoch(r.trainer), 3);
  assert_int_equal(bnd_trainer_steps(r.trainer), 30);
  double first = 0, last = 0;
  for (int k = 0; k < 30; k++) {
    const bnd_loss_parts loss = step(&r);
    const double boxes = (loss.iou + loss.dfl) * fmax(loss.score_sum, 1) / loss.score_sum;
    if (k < 3) first += boxes / 3;
    if (k >= 27) last += boxes / 3;
  }
  print_message("boxes %.3f -> %.3f\n", first, last);
  assert_true(last < 0.6 * first);
  assert_int_equal(bnd_trainer_done(r.trainer), 30);
  close_rig(&r);
}

static void any_number_of_threads_gives_the_same_state(void **state) {
  (void)state;
  for (int quantized = 0; quantized < 2; quantized++) {
    setup s = quantized ? QUANTIZED : PLAIN;
    s.batch = 4;
    s.augment = s.average = true;
    record expected = {0};
    static const int threads[] = {1, 2, 5};
    for (int k = 0; k < 3; k++) {
      s.threads = threads[k];
      rig r = open_rig(&s);
      steps(&r, 2);
      if (k == 0) expected = state_of(&r);
      else assert_state(&r, &expected);
      close_rig(&r);
    }
    free(expected.bytes);
  }
}

static void a_restored_run_ends_with_the_same_bits(void **state) {
  (void)state;
  for (int quantized = 0; quantized < 2; quantized++) {
    setup s = quantized ? QUANTIZED : PLAIN;
    s.augment = s.average = true;
    rig whole = open_rig(&s);
    steps(&whole, 8); /* into the second epoch */
    record expected = state_of(&whole);
    close_rig(&whole);
    rig first = open_rig(&s);
    steps(&first, 5);
    save(&first);
    close_rig(&first);
    rig second = open_rig(&s);
    steps(&second, quantized ? 2 : 0); /* whatever it was before */
    ASSERT_OK(restore(&second, "trainer", error));
    assert_int_equal(bnd_trainer_done(second.trainer), 5);
    steps(&second, 3);
    assert_state(&second, &expected);
    free(expected.bytes);
    close_rig(&second);
  }
}

/* --- steps that fail --- */

static bool cancelled(void *user) {
  int *left = user;
  return (*left)-- <= 0;
}

static void an_interrupted_step_changes_nothing(void **state) {
  (void)state;
  for (int quantized = 0; quantized < 2; quantized++) {
    setup s = quantized ? QUANTIZED : PLAIN;
    s.average = true;
    rig r = open_rig(&s);
    step(&r);
    record before = state_of(&r);
    int stops = 0, whole = 0;
    for (int questions = 0; !whole; questions = questions * 5 / 3 + 1, stops++) {
      int left = questions;
      const bnd_context context = {.threads = 1, .user = &left, .cancelled = cancelled};
      bnd_step_report report;
      bnd_error failure = {0};
      const bnd_status status = bnd_trainer_step(r.trainer, &context, &report, &failure);
      whole = status == BND_OK;
      if (whole) break;
      assert_int_equal(status, BND_ERROR_INTERRUPTED);
      assert_int_equal(bnd_trainer_done(r.trainer), 1);
      assert_state(&r, &before);
    }
    assert_true(stops > 5);
    rig other = open_rig(&s);
    steps(&other, 2);
    record undisturbed = state_of(&other);
    assert_state(&r, &undisturbed);
    free(before.bytes);
    free(undisturbed.bytes);
    close_rig(&other);
    close_rig(&r);
  }
}

static void a_learning_rate_too_high_is_said_at_its_step(void **state) {
  (void)state;
  for (int quantized = 0; quantized < 2; quantized++) {
    setup s = quantized ? QUANTIZED : PLAIN;
    s.rate = 1e9;
    s.average = true;
    rig r = open_rig(&s);
    bnd_status status = BND_OK;
    while (status == BND_OK) {
      record before = state_of(&r);
      const uint64_t done = bnd_trainer_done(r.trainer);
      assert_true(done < 10);
      const bnd_context context = {.threads = 1};
      bnd_step_report report;
      bnd_error failure = {0};
      status = bnd_trainer_step(r.trainer, &context, &report, &failure);
      if (status != BND_OK) {
        char expected[64];
        snprintf(expected, sizeof expected, "step %d of 60 (learning rate ", (int)done + 1);
        assert_int_equal(status, BND_ERROR_MODEL);
        if (strncmp(failure.message, expected, strlen(expected)) != 0) fail_msg("%s", failure.message);
        assert_state(&r, &before);
      }
      free(before.bytes);
    }
    close_rig(&r);
  }
}

/* --- states that are refused --- */

static void foreign_states_are_refused(void **state) {
  (void)state;
  rig r = open_rig(&PLAIN);
  steps(&r, 1);
  record before = state_of(&r);
  bnd_error failure = {0};
  assert_int_equal(restore(&r, "elsewhere", &failure), BND_ERROR_MODEL);
  setup others[4] = {PLAIN, PLAIN, QUANTIZED, PLAIN};
  others[0].classes = 4;
  others[1].average = true;
  others[3].epochs = 40; /* more steps done than this run has */
  for (int k = 0; k < 4; k++) {
    rig other = open_rig(&others[k]);
    if (k == 3) steps(&other, 61);
    save(&other);
    close_rig(&other);
    const bnd_status status = restore(&r, "trainer", &failure);
    if (k != 1) assert_int_equal(status, BND_ERROR_MODEL); /* averages nobody asked for do no harm */
    else assert_int_equal(status, BND_OK);
    if (k == 1) {
      free(before.bytes);
      before = state_of(&r);
      continue;
    }
    if (!strstr(failure.message, "of another network or run")) fail_msg("%s", failure.message);
    assert_state(&r, &before);
  }
  static const double wrong[] = {NAN, -1, 1e300, INFINITY};
  for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
    bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
    bnd_checkpoint_begin_dict(writer, "trainer");
    bnd_checkpoint_put_float(writer, "steps", wrong[k]);
    bnd_checkpoint_put_float(writer, "optimizer_steps", k % 2 ? 0 : wrong[k]);
    bnd_checkpoint_end(writer);
    ASSERT_OK(bnd_checkpoint_write(writer, path_in_folder("state.pth"), error));
    bnd_checkpoint_writer_free(writer);
    assert_int_equal(restore(&r, "trainer", &failure), BND_ERROR_MODEL);
    if (!strstr(failure.message, "number of steps")) fail_msg("%s", failure.message);
    assert_state(&r, &before);
  }
  free(before.bytes);
  close_rig(&r);
}

/* One quantizer of the saved state is another one. */
static void check_quantizer(rig *r, bnd_quantizer *other) {
  size_t count;
  bnd_quantizer *own = bnd_network_quantizers(r->network, &count)[count / 2].quantizer;
  record before = state_of(r);
  bnd_quantizer kept = *own;
  bnd_error failure = {0};
  *own = *other;
  save(r);
  *own = kept;
  assert_int_equal(restore(r, "trainer", &failure), BND_ERROR_MODEL);
  assert_state(r, &before);
  free(before.bytes);
  bnd_quantizer_destroy(other);
}

static void quantizers_that_do_not_fit_are_refused(void **state) {
  (void)state;
  rig r = open_rig(&QUANTIZED);
  steps(&r, 1);
  const bnd_quantizer_spec spec = {.dtype = BND_I8};
  bnd_quantizer *other = bnd_quantizer_create(&spec);
  ASSERT_OK(bnd_quantizer_restore(other, 3, (const int[]){1, 2, 3}, (const int[]){0, 0, 0}, (const float[]){0, 0, 0}, (const float[]){1, 1, 1}, error));
  check_quantizer(&r, other);
  other = bnd_quantizer_create(&spec);
  ASSERT_OK(bnd_quantizer_restore(other, 1, (const int[]){9999}, (const int[]){0}, (const float[]){0}, (const float[]){1}, error));
  check_quantizer(&r, other);
  close_rig(&r);
}

static void damaged_states_are_refused(void **state) {
  (void)state;
  rig r = open_rig(&QUANTIZED);
  steps(&r, 2);
  record after_two = state_of(&r), file = {0};
  close_rig(&r);
  r = open_rig(&QUANTIZED);
  record fresh = state_of(&r);
  /* the file of after_two again: its bytes come first in the record */
  rig twice = open_rig(&QUANTIZED);
  steps(&twice, 2);
  save(&twice);
  close_rig(&twice);
  file = file_bytes();
  int refused = 0, harmless = 0;
  bnd_error failure = {0};
  for (size_t k = 0; k < 40; k++) {
    const size_t at = (file.count - 1) * k / 39, size = k % 8 == 7 ? at : file.count; /* some are cut off */
    file.bytes[at] ^= 0x10;
    ASSERT_OK(bnd_file_write(path_in_folder("state.pth"), file.bytes, size, error));
    file.bytes[at] ^= 0x10;
    const bnd_status status = restore(&r, "trainer", &failure);
    if (status != BND_OK) {
      refused++;
      assert_state(&r, &fresh);
      continue;
    }
    harmless++; /* padding between records */
    assert_state(&r, &after_two);
    close_rig(&r);
    r = open_rig(&QUANTIZED);
  }
  print_message("%d refused, %d harmless\n", refused, harmless);
  assert_true(refused > 20);
  free(after_two.bytes);
  free(fresh.bytes);
  free(file.bytes);
  close_rig(&r);
}

/* --- settings --- */

static void gradients_of_several_batches_make_one_step(void **state) {
  (void)state;
  setup s = PLAIN;
  s.accumulate = 2;
  rig r = open_rig(&s);
  assert_int_equal(bnd_trainer_steps_per_epoch(r.trainer), 3);
  const double first = step(&r).total;
  steps(&r, 3);
  assert_int_equal(bnd_trainer_done(r.trainer), 4);
  close_rig(&r);
  /* the same two batches one after another, nothing learned in between: their losses' mean */
  s.accumulate = 1;
  s.rate = 0;
  r = open_rig(&s);
  const double one = step(&r).total, two = step(&r).total;
  assert_true(fabs((one + two) / 2 - first) < 1e-9 * first);
  close_rig(&r);
  /* 14 images are more than there are */
  bnd_trainer *trainer;
  r = open_rig(&PLAIN);
  bnd_error failure = {0};
  const bnd_trainer_options options = {.batch = 2, .threads = 1, .accumulate = 7, .schedule = {.initial = 1, .epochs = 1}, .classes = 3, .reg_max = 16,
                                       .class_output = 2, .box_output = 3};
  assert_int_not_equal(bnd_trainer_create(r.network, r.loader, &options, &trainer, &failure), BND_OK);
  assert_null(trainer);
  assert_non_null(strstr(failure.message, "12"));
  close_rig(&r);
}

static void averages_swap_with_the_values_and_back(void **state) {
  (void)state;
  setup s = PLAIN;
  s.average = true;
  rig r = open_rig(&s);
  steps(&r, 3);
  record values = state_of(&r);
  bnd_trainer_swap_average(r.trainer);
  record averages = state_of(&r);
  assert_false(same_record(&values, &averages));
  bnd_trainer_swap_average(r.trainer);
  assert_state(&r, &values);
  free(values.bytes);
  free(averages.bytes);
  close_rig(&r);
}

static void direct_parameters_can_be_left_alone(void **state) {
  (void)state;
  for (int skip = 0; skip < 2; skip++) {
    setup s = QUANTIZED;
    s.skip_direct = skip;
    rig r = open_rig(&s);
    size_t count, direct = 0, moved[2] = {0};
    const bnd_parameter *p = bnd_network_parameters(r.network, &count);
    float **before = calloc(count, sizeof *before);
    for (size_t i = 0; i < count; i++) {
      before[i] = malloc(p[i].count * sizeof(float));
      memcpy(before[i], p[i].value, p[i].count * sizeof(float));
      direct += p[i].direct;
    }
    steps(&r, 2);
    for (size_t i = 0; i < count; i++) {
      moved[p[i].direct] += memcmp(before[i], p[i].value, p[i].count * sizeof(float)) != 0;
      free(before[i]);
    }
    free(before);
    assert_true(direct > 10);
    assert_true(moved[0] > 100);
    if (skip) assert_int_equal(moved[1], 0);
    else assert_true(moved[1] > 10);
    close_rig(&r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_loss_falls),
      cmocka_unit_test(any_number_of_threads_gives_the_same_state),
      cmocka_unit_test(a_restored_run_ends_with_the_same_bits),
      cmocka_unit_test(an_interrupted_step_changes_nothing),
      cmocka_unit_test(a_learning_rate_too_high_is_said_at_its_step),
      cmocka_unit_test(foreign_states_are_refused),
      cmocka_unit_test(quantizers_that_do_not_fit_are_refused),
      cmocka_unit_test(damaged_states_are_refused),
      cmocka_unit_test(gradients_of_several_batches_make_one_step),
      cmocka_unit_test(averages_swap_with_the_values_and_back),
      cmocka_unit_test(direct_parameters_can_be_left_alone),
  };
  return cmocka_run_group_tests(tests, make_data, remove_data);
}
