/* Training from scratch, from a checkpoint, or on from where a run stopped. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "flow/state.h"
#include "flow/training.h"
#include "models/yolo_nas/initialize.h"

static double now(void) { return bnd_clock_seconds(CLOCK_MONOTONIC); }

/* --- options --- */

static void fill_in(bnd_train_options *o) {
  if (!o->split) o->split = "train2017";
  if (!o->validation_split) o->validation_split = "val2017";
  if (!o->variant) o->variant = 's';
  if (o->width == 0) o->width = 1;
  if (o->batch == 0) o->batch = 8;
  if (o->epochs == 0) o->epochs = 30;
  if (o->accumulate == 0) o->accumulate = 1;
  if (!o->optimizer) o->optimizer = "adamw";
  if (o->learning_rate == 0) o->learning_rate = 5e-4;
  if (o->weight_decay == 0) o->weight_decay = 1e-5;
  if (o->weight_decay < 0) o->weight_decay = 0;
  if (!o->schedule) o->schedule = "cosine";
  if (o->final_ratio == 0) o->final_ratio = 0.1;
  if (o->warmup_steps == 0) o->warmup_steps = 100;
  if (o->warmup_steps < 0) o->warmup_steps = 0;
  if (o->average_decay == 0) o->average_decay = 0.9997;
  if (o->share == 0) o->share = 1;
  if (o->validate_every == 0) o->validate_every = 1;
  if (o->save_minutes == 0) o->save_minutes = 2;
}

static bool is_one_of(const char *text, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(text, names[i]) == 0) return true;
  return false;
}

static bnd_status check_options(const bnd_training *t) {
  static const char *const optimizers[] = {"adamw", "sgd"}, *const schedules[] = {"cosine", "step", "constant"};
  const bnd_train_options *o = &t->o;
  if (!o->data || !o->output) return bnd_fail(t->error, BND_ERROR_ARGUMENT, "a data folder and an output folder are needed");
  if (o->batch < 1 || o->epochs < 1 || o->accumulate < 1)
    return bnd_fail(t->error, BND_ERROR_ARGUMENT, "batch, epochs and accumulate must be at least 1");
  if (!(o->share > 0 && o->share <= 1)) return bnd_fail(t->error, BND_ERROR_ARGUMENT, "the share of images must be above 0 and at most 1");
  if (!is_one_of(o->optimizer, optimizers, 2))
    return bnd_fail(t->error, BND_ERROR_ARGUMENT, "no optimizer is called \"%s\"; there are adamw and sgd", o->optimizer);
  if (!is_one_of(o->schedule, schedules, 3))
    return bnd_fail(t->error, BND_ERROR_ARGUMENT, "no schedule is called \"%s\"; there are cosine, step and constant", o->schedule);
  if (!(o->learning_rate > 0)) return bnd_fail(t->error, BND_ERROR_ARGUMENT, "the learning rate must be above 0");
  return BND_OK;
}

/* Everything results depend on; another number of threads or another pace of saving is the same run. */
static bnd_status describe_run(bnd_training *t) {
  const bnd_train_options *o = &t->o;
  char data[65], init[65] = "scratch";
  BND_TRY(bnd_sha256_file(t->coco.file, t->context, data, t->error));
  if (o->init) BND_TRY(bnd_sha256_file(o->init, t->context, init, t->error));
  bnd_string text = {0};
  bnd_string_format(
      &text,
      "data %.16s from %.16s %c width %.9g size %d batch %d x %d epochs %d %s lr %.9g decay %.9g %s ratio %.9g warm-up %lld clip %.9g ema %.9g", data,
      init, o->variant, o->width, t->preprocessing.width, o->batch, o->accumulate, o->epochs, o->optimizer, o->learning_rate, o->weight_decay,
      o->schedule, o->final_ratio, (long long)o->warmup_steps, o->clip_norm, o->average_decay);
  bnd_string_format(&text, " snapshots %d%s%s%s images %llu share %.9g validation %s every %d on %llu seed %llu", o->best_snapshots,
                    o->frozen_batch_norm ? " frozen" : "", o->no_augmentation ? " plain" : "", o->in_order ? " in order" : "",
                    (unsigned long long)o->images, o->share, o->validation_split, o->validate_every, (unsigned long long)o->validation_images,
                    (unsigned long long)(t->context ? t->context->seed : 0));
  if (text.failed) return bnd_fail_memory(t->error, "training");
  t->run = text.text;
  return BND_OK;
}

/* --- network --- */

static bnd_status keep_names(bnd_training *t, const bnd_model *model) {
  if (model && model->classes.count == t->coco.category_count) {
    for (size_t c = 0; c < model->classes.count; c++)
      if (!bnd_class_names_add(&t->classes, model->classes.names[c])) return bnd_fail_memory(t->error, "class names");
    return BND_OK;
  }
  for (size_t c = 0; c < t->coco.category_count; c++)
    if (!bnd_class_names_add(&t->classes, t->coco.categories[c].name)) return bnd_fail_memory(t->error, "class names");
  return BND_OK;
}

static bnd_status load_checkpoint(bnd_training *t, const bnd_model *model) {
  if (bnd_model_is_onnx(model)) return bnd_fail(t->error, BND_ERROR_ARGUMENT, "%s: is an ONNX file; training starts from a checkpoint", t->o.init);
  if (bnd_yolo_nas_stored_form(model->network) != BND_YOLO_NAS_TRAIN)
    return bnd_fail(t->error, BND_ERROR_MODEL, "%s: its branches are merged already; training needs the checkpoint as it was trained", t->o.init);
  BND_TRY(bnd_model_preprocessing(model, t->o.size, false, &t->preprocessing, t->error));
  BND_TRY(bnd_yolo_nas_state_read(model->network, &t->state, t->error));
  return bnd_yolo_nas_state_replace_classes(t->state, (int)t->coco.category_count, t->context ? t->context->seed : 0, t->error);
}

static bnd_status make_state(bnd_training *t) {
  const int classes = (int)t->coco.category_count;
  if (t->o.init) {
    bnd_model *model;
    BND_TRY(bnd_model_open(t->o.init, &model, t->error));
    bnd_status status = load_checkpoint(t, model);
    if (status == BND_OK) status = keep_names(t, model);
    bnd_model_close(model);
    return status;
  }
  const int size = t->o.size ? t->o.size : 640;
  if (size < 64 || size > 8192 || size % 32)
    return bnd_fail(t->error, BND_ERROR_ARGUMENT, "input size %d: must be a multiple of 32 from 64 to 8192", size);
  t->preprocessing = bnd_preprocessing_yolo_nas(size, size);
  bnd_yolo_nas_architecture architecture;
  const char variant = (char)(t->o.variant >= 'a' ? t->o.variant - 'a' + 'A' : t->o.variant);
  BND_TRY(bnd_yolo_nas_scaled(variant, t->o.width, classes, &architecture, t->error));
  BND_TRY(bnd_yolo_nas_state_initialize(&architecture, t->context ? t->context->seed : 0, &t->state, t->error));
  return keep_names(t, NULL);
}

static bnd_status make_network(bnd_training *t) {
  static const int outputs[] = {2, 3};
  const bnd_tensor_source source = bnd_yolo_nas_state_source(t->state, t->o.init ? t->o.init : "fresh network");
  BND_TRY(bnd_yolo_nas_read(&source, &t->architecture, t->error));
  const bnd_yolo_nas_options options = {
      .form = BND_YOLO_NAS_TRAIN, .height = t->preprocessing.height, .width = t->preprocessing.width, .raw_outputs = true};
  BND_TRY(bnd_yolo_nas_graph(t->architecture, &options, &t->graph, t->error));
  const bnd_network_options network = {.batch = t->o.batch, .threads = t->threads, .gradient_outputs = outputs, .gradient_output_count = 2};
  return bnd_network_create(t->graph, &network, &t->network, t->error);
}

/* --- data --- */

static bnd_status files_exist(const bnd_training *t) {
  char path[4096];
  for (size_t i = 0; i < bnd_loader_count(&t->loader); i++) {
    BND_TRY(bnd_coco_image_path(&t->coco, t->loader.images[i], path, sizeof path, t->error));
    if (access(path, R_OK) != 0) return bnd_fail(t->error, BND_ERROR_IO, "%s: cannot be read, but %s lists it", path, t->coco.file);
  }
  return BND_OK;
}

static bnd_status open_data(bnd_training *t) {
  BND_TRY(bnd_coco_open(t->o.data, t->o.split, &t->coco, t->error));
  if (t->coco.category_count == 0) return bnd_fail(t->error, BND_ERROR_FORMAT, "%s: has no categories", t->coco.file);
  if (t->o.validate_every < 0) return BND_OK;
  BND_TRY(bnd_coco_open(t->o.data, t->o.validation_split, &t->validation, t->error));
  if (t->validation.annotated_count == 0) return bnd_fail(t->error, BND_ERROR_FORMAT, "%s: has no image with a box", t->validation.file);
  if (t->validation.category_count != t->coco.category_count)
    return bnd_fail(t->error, BND_ERROR_FORMAT, "%s: has %zu categories, %s has %zu", t->validation.file, t->validation.category_count, t->coco.file,
                    t->coco.category_count);
  return BND_OK;
}

/* Boxes without a pixel of their image teach nothing: some are worth a word, all of them an end. */
static bnd_status check_boxes(const bnd_training *t) {
  size_t outside = 0, boxes = 0;
  int64_t first = 0;
  for (size_t i = 0; i < bnd_loader_count(&t->loader); i++) {
    const bnd_coco_image *image = &t->coco.images[t->loader.images[i]];
    for (size_t a = image->first; a < image->first + image->count; a++) {
      const bnd_coco_annotation *annotation = &t->coco.annotations[a];
      float box[4];
      if (annotation->crowd) continue;
      boxes++;
      if (bnd_coco_clipped_box(image, annotation, box) && box[2] > box[0] && box[3] > box[1]) continue;
      if (outside++ == 0) first = annotation->id;
    }
  }
  if (outside == 0) return BND_OK;
  if (outside == boxes)
    return bnd_fail(t->error, BND_ERROR_FORMAT, "%s: none of the %zu boxes covers a pixel of its image (the first: annotation %lld); a bbox is x, y, width, "
                    "height in pixels", t->coco.file, boxes, (long long)first);
  bnd_log(t->context, BND_LOG_WARNING, "%s: %zu of %zu boxes cover no pixel of their image (the first: annotation %lld) and are left out", t->coco.file, outside,
          boxes, (long long)first);
  return BND_OK;
}

static bnd_status make_loader(bnd_training *t) {
  if (t->preprocessing.width != t->preprocessing.height && !t->o.no_augmentation)
    return bnd_fail(t->error, BND_ERROR_UNSUPPORTED, "augmentation works on square inputs, not on %dx%d", t->preprocessing.width,
                    t->preprocessing.height);
  bnd_loader_options options = bnd_loader_options_default(t->preprocessing.width, t->context ? t->context->seed : 0);
  options.shuffle = !t->o.in_order;
  options.augment = !t->o.no_augmentation;
  options.preprocessing = t->preprocessing;
  options.limit = (size_t)t->o.images;
  options.share = t->o.share;
  BND_TRY(bnd_loader_create(&t->coco, &options, &t->loader, t->error));
  t->result->images = bnd_loader_count(&t->loader);
  BND_TRY(check_boxes(t));
  return files_exist(t);
}

static bnd_status make_trainer(bnd_training *t, uint64_t milestones[2]) {
  const bnd_train_options *o = &t->o;
  milestones[0] = (uint64_t)o->epochs * 2 / 3;
  milestones[1] = (uint64_t)o->epochs * 8 / 9;
  const bnd_yolo_nas_architecture *architecture = bnd_yolo_nas_architecture_of(t->architecture);
  bnd_trainer_options options = {.batch = o->batch,
                                 .threads = t->threads,
                                 .accumulate = o->accumulate,
                                 .mode = o->frozen_batch_norm ? BND_MODE_FROZEN : BND_MODE_TRAIN,
                                 .optimizer = {.kind = strcmp(o->optimizer, "sgd") == 0 ? BND_SGD : BND_ADAMW, .momentum = 0.9},
                                 .weight_decay = o->weight_decay,
                                 .schedule = {.kind = strcmp(o->schedule, "step") == 0       ? BND_SCHEDULE_STEP
                                                      : strcmp(o->schedule, "constant") == 0 ? BND_SCHEDULE_CONSTANT
                                                                                             : BND_SCHEDULE_COSINE,
                                              .initial = o->learning_rate,
                                              .epochs = (uint64_t)o->epochs,
                                              .warmup_steps = (uint64_t)o->warmup_steps,
                                              .warmup_initial = o->learning_rate / 200,
                                              .final_ratio = o->final_ratio,
                                              .milestones = milestones,
                                              .milestone_count = 2,
                                              .step_factor = 0.1},
                                 .clip_norm = o->clip_norm,
                                 .average = o->average_decay > 0,
                                 .decay = {.kind = BND_DECAY_THRESHOLD, .decay = o->average_decay},
                                 .classes = architecture->classes,
                                 .reg_max = architecture->reg_max,
                                 .class_output = 2,
                                 .box_output = 3};
  BND_TRY(bnd_trainer_create(t->network, &t->loader, &options, &t->trainer, t->error));
  t->result->memory = bnd_trainer_bytes(t->trainer);
  if (options.average) BND_TRY(bnd_yolo_nas_state_copy(t->state, &t->average, t->error));
  if (o->best_snapshots < 1) return BND_OK;
  bnd_floats *arrays;
  size_t count;
  BND_TRY(bnd_training_arrays(t, &arrays, &count));
  const bnd_status status = bnd_snapshots_create((size_t)o->best_snapshots, true, arrays, count, &t->snapshots, t->error);
  free(arrays);
  return status;
}

/* --- the loop --- */

static bool exists(const bnd_training *t, const char *name) {
  char *path = bnd_training_path(t, name);
  const bool found = path && access(path, F_OK) == 0;
  free(path);
  return found;
}

static bnd_status begin(bnd_training *t) {
  const bool found = exists(t, "state.pth");
  if (t->o.resume && !found) return bnd_fail(t->error, BND_ERROR_ARGUMENT, "%s/state.pth: is not there; nothing to resume", t->o.output);
  if (found && !t->o.resume && !t->o.restart)
    return bnd_fail(t->error, BND_ERROR_ARGUMENT, "%s: holds a training run already; go on with it (--resume) or replace it (--restart)",
                    t->o.output);
  return t->o.resume ? bnd_training_resume(t) : BND_OK;
}

static bnd_status validate(bnd_training *t, bnd_epoch_row *row) {
  char *path = bnd_training_path(t, "last.pth");
  if (!path) return bnd_fail_memory(t->error, "last.pth");
  bnd_model *model = NULL;
  bnd_evaluation evaluation;
  const bnd_evaluate_options options = {
      .data = t->o.data, .split = t->o.validation_split, .images = t->o.validation_images, .size = t->preprocessing.width, .form = BND_FORM_FOLDED};
  bnd_status status = bnd_model_open(path, &model, t->error);
  if (status == BND_OK) status = bnd_evaluate(model, &options, t->context, &evaluation, t->error);
  bnd_model_close(model);
  free(path);
  if (status != BND_OK) return status;
  row->map50 = evaluation.map50;
  row->map50_95 = evaluation.map50_95;
  bnd_evaluation_free(&evaluation);
  return BND_OK;
}

static bnd_status take_snapshot(bnd_training *t, double metric) {
  if (!t->snapshots || !isfinite(metric)) return BND_OK;
  bnd_floats *arrays;
  size_t count;
  BND_TRY(bnd_training_arrays(t, &arrays, &count));
  bnd_trainer_swap_average(t->trainer);
  const bnd_status status = bnd_snapshots_offer(t->snapshots, metric, arrays, NULL, t->error);
  bnd_trainer_swap_average(t->trainer);
  free(arrays);
  return status;
}

static void report(const bnd_training *t, const bnd_train_report *r) {
  if (t->o.report) t->o.report(t->context ? t->context->user : NULL, r);
}

/* Behind the last batch of an epoch. */
static bnd_status finish_epoch(bnd_training *t, bnd_train_report *last) {
  const double count = t->summed ? (double)t->summed : 1, began = now();
  bnd_epoch_row row = {t->sums.loss / count,
                       t->sums.classification / count,
                       t->sums.iou / count,
                       t->sums.dfl / count,
                       t->sums.learning_rate,
                       t->sums.seconds,
                       NAN,
                       NAN};
  BND_TRY(bnd_training_write_last(t));
  const bool final = bnd_trainer_done(t->trainer) == bnd_trainer_steps(t->trainer);
  const bool validated = t->o.validate_every > 0 && ((t->row_count + 1) % (size_t)t->o.validate_every == 0 || final);
  if (validated) BND_TRY(validate(t, &row));
  BND_TRY(take_snapshot(t, row.map50_95));
  row.seconds += now() - began;
  if (!BND_GROW(t->rows, t->row_capacity, t->row_count + 1)) return bnd_fail_memory(t->error, "epochs");
  t->rows[t->row_count++] = row;
  const bool best = bnd_training_best(t) == (int64_t)t->row_count - 1;
  if (best || (t->o.validate_every < 0 && final)) BND_TRY(bnd_training_write_best(t));
  t->sums = (bnd_epoch_row){0};
  t->summed = 0;
  BND_TRY(bnd_training_write_metrics(t));
  BND_TRY(bnd_training_save(t));
  last->epoch = t->row_count;
  last->validated = validated;
  last->map50 = row.map50;
  last->map50_95 = row.map50_95;
  last->best = best;
  report(t, last);
  last->validated = last->best = false;
  return BND_OK;
}

static void add_step(bnd_training *t, const bnd_step_report *step, double seconds) {
  t->sums.loss += step->loss.total;
  t->sums.classification += step->loss.classification;
  t->sums.iou += step->loss.iou;
  t->sums.dfl += step->loss.dfl;
  t->sums.learning_rate = step->learning_rate;
  t->sums.seconds += seconds;
  t->summed++;
}

static bnd_status step(bnd_training *t, bnd_train_report *r, double *seconds) {
  const double began = now();
  bnd_step_report done;
  BND_TRY(bnd_trainer_step(t->trainer, t->context, &done, t->error));
  const double spent = now() - began;
  add_step(t, &done, spent);
  *seconds = *seconds == 0 ? spent : 0.9 * *seconds + 0.1 * spent;
  const uint64_t steps = bnd_trainer_steps(t->trainer), count = bnd_trainer_done(t->trainer), per_epoch = bnd_trainer_steps_per_epoch(t->trainer);
  *r = (bnd_train_report){.epoch = (count - 1) / per_epoch + 1,
                          .epochs = (uint64_t)t->o.epochs,
                          .step = count,
                          .steps = steps,
                          .loss = done.loss.total,
                          .classification = done.loss.classification,
                          .iou = done.loss.iou,
                          .dfl = done.loss.dfl,
                          .learning_rate = done.learning_rate,
                          .images_per_second = t->o.batch * t->o.accumulate / *seconds,
                          .remaining_seconds = (double)(steps - count) * *seconds};
  if (count % per_epoch) report(t, r); /* that of the last step comes behind the epoch's validation */
  return BND_OK;
}

static bnd_status train(bnd_training *t) {
  const uint64_t per_epoch = bnd_trainer_steps_per_epoch(t->trainer);
  bnd_train_report last = {.epochs = (uint64_t)t->o.epochs, .step = bnd_trainer_done(t->trainer), .steps = bnd_trainer_steps(t->trainer)};
  double saved = now(), seconds = 0;
  for (;;) {
    const uint64_t done = bnd_trainer_done(t->trainer);
    if (t->row_count < done / per_epoch) {
      BND_TRY(finish_epoch(t, &last));
      saved = now();
    }
    if (done == bnd_trainer_steps(t->trainer)) return bnd_training_write_average(t);
    BND_TRY(step(t, &last, &seconds));
    if (now() - saved < t->o.save_minutes * 60) continue;
    BND_TRY(bnd_training_save(t));
    saved = now();
  }
}

static void summarize(bnd_training *t) {
  bnd_train_result *r = t->result;
  const int64_t best = bnd_training_best(t);
  r->epochs = t->row_count;
  r->steps = bnd_trainer_done(t->trainer);
  r->best_map50 = best < 0 ? NAN : t->rows[best].map50;
  r->best_map50_95 = best < 0 ? NAN : t->rows[best].map50_95;
  r->best_epoch = (uint64_t)(best + 1);
  r->loss = t->row_count ? t->rows[t->row_count - 1].loss : NAN;
}

/* A stopped run keeps what it has; the error that stopped it stays the one that is told. */
static void save_stopped(bnd_training *t) {
  bnd_error *first = t->error, other;
  t->error = &other;
  if (bnd_training_save(t) != BND_OK) bnd_log(t->context, BND_LOG_WARNING, "the state could not be saved: %s", other.message);
  t->error = first;
}

static void close_training(bnd_training *t) {
  bnd_snapshots_destroy(t->snapshots);
  bnd_trainer_destroy(t->trainer);
  bnd_network_destroy(t->network);
  bnd_graph_destroy(t->graph);
  bnd_yolo_nas_destroy(t->architecture);
  bnd_yolo_nas_state_destroy(t->average);
  bnd_yolo_nas_state_destroy(t->state);
  bnd_loader_free(&t->loader);
  bnd_coco_close(&t->coco);
  bnd_coco_close(&t->validation);
  bnd_class_names_free(&t->classes);
  free(t->rows);
  free(t->run);
}

bnd_status bnd_train(const bnd_train_options *options, const bnd_context *context, bnd_train_result *result, bnd_error *error) {
  const double began = now();
  uint64_t milestones[2];
  bnd_error own;
  *result = (bnd_train_result){.best_map50 = NAN, .best_map50_95 = NAN, .loss = NAN};
  bnd_training t = {
      .options = options, .o = *options, .context = context, .result = result, .error = error ? error : &own, .threads = bnd_thread_count(context)};
  fill_in(&t.o);
  bnd_status status = check_options(&t);
  if (status == BND_OK) status = open_data(&t);
  if (status == BND_OK) status = make_state(&t);
  if (status == BND_OK) status = make_loader(&t);
  if (status == BND_OK) status = describe_run(&t);
  if (status == BND_OK) status = bnd_make_folder(t.o.output, t.error);
  if (status == BND_OK) status = make_network(&t);
  if (status == BND_OK) status = make_trainer(&t, milestones);
  if (status == BND_OK) status = begin(&t);
  if (status == BND_OK) {
    bnd_log(context, BND_LOG_INFO, "%zu images for training, %zu classes, %llu steps for each of %d epochs; memory for the run: %.0f MB",
            t.loader.count, t.coco.category_count, (unsigned long long)bnd_trainer_steps_per_epoch(t.trainer), t.o.epochs,
            (double)result->memory * 1e-6);
    const uint64_t before = bnd_trainer_done(t.trainer);
    status = train(&t);
    if (status != BND_OK && bnd_trainer_done(t.trainer) > before) save_stopped(&t);
    summarize(&t);
  }
  close_training(&t);
  result->seconds = now() - began;
  return status;
}
