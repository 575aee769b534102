#include "flow/qat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "flow/reports.h"
#include "flow/state.h"

/* Raw outputs of the network: class logits [1,A,classes] and box distributions [1,A,4*(reg_max+1)]. */
enum { CLASS_OUTPUT = 2, BOX_OUTPUT = 3 };

/* --- options --- */

static bnd_status read_options(const bnd_quantize_options *o, const bnd_context *context, bnd_qat *qat, bnd_error *error) {
  *qat = (bnd_qat){.split = o->qat_split ? o->qat_split : "train2017",
                   .schedule = o->qat_schedule ? o->qat_schedule : "cosine",
                   .limit = o->qat_images,
                   .seed = context ? context->seed : 0,
                   .share = o->qat_share != 0 ? o->qat_share
                            : o->qat_images   ? 1
                                              : 0.001,
                   .learning_rate = o->qat_learning_rate != 0 ? o->qat_learning_rate : 2e-7,
                   .final_ratio = o->qat_final_ratio != 0 ? o->qat_final_ratio : 0.01,
                   .weight_decay = o->qat_weight_decay != 0 ? fmax(o->qat_weight_decay, 0) : 1e-5,
                   .save_seconds = 60 * (o->qat_save_minutes != 0 ? o->qat_save_minutes : 1),
                   .epochs = o->qat_epochs ? o->qat_epochs : 1,
                   .batch = o->qat_batch ? o->qat_batch : 8,
                   .warmup_steps = o->qat_warmup_steps > 0   ? (uint64_t)o->qat_warmup_steps
                                   : o->qat_warmup_steps < 0 ? 0
                                                             : 2,
                   .augment = !o->qat_no_augmentation,
                   .in_order = o->qat_in_order,
                   .freeze_batch_norm = o->qat_freeze_batch_norm,
                   .average = o->qat_average,
                   .learn_thresholds = o->qat_thresholds && strcmp(o->qat_thresholds, "learned") == 0,
                   .threshold_rate = o->qat_threshold_rate};
  if (o->qat_thresholds && !qat->learn_thresholds && strcmp(o->qat_thresholds, "observed") != 0)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "no way to find thresholds is called \"%s\"; there are observed and learned", o->qat_thresholds);
  if (!(qat->threshold_rate >= 0))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "a learning rate of thresholds of %g times the usual one", qat->threshold_rate);
  if (qat->epochs < 1 || qat->batch < 1)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "quantization-aware training needs at least one epoch and one image in a batch");
  if (!(qat->share > 0 && qat->share <= 1))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "a share of %g of the training images; allowed is more than 0, at most 1", qat->share);
  static const char *const schedules[] = {"cosine", "step", "constant"};
  for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++)
    if (strcmp(qat->schedule, schedules[i]) == 0) return BND_OK;
  return bnd_fail(error, BND_ERROR_ARGUMENT, "no schedule is called \"%s\"; there are cosine, step and constant", qat->schedule);
}

static bnd_schedule schedule_of(const bnd_qat *qat) {
  const bnd_schedule_kind kind = *qat->schedule == 'c' ? (qat->schedule[2] == 's' ? BND_SCHEDULE_COSINE : BND_SCHEDULE_CONSTANT) : BND_SCHEDULE_STEP;
  return (bnd_schedule){.kind = kind,
                        .initial = qat->learning_rate,
                        .batches_per_epoch = qat->step_count / (size_t)qat->epochs,
                        .epochs = (uint64_t)qat->epochs,
                        .warmup_steps = qat->warmup_steps,
                        .warmup_initial = qat->learning_rate,
                        .final_ratio = qat->final_ratio,
                        .milestones = qat->milestones,
                        .milestone_count = 2,
                        .step_factor = 0.1};
}

/* --- the images --- */

static bnd_status open_images(const char *folder, bnd_qat *qat, bnd_error *error) {
  bnd_status status = bnd_coco_open(folder, qat->split, &qat->coco, error);
  if (status != BND_OK) return bnd_fail_prefix(error, status, "the images for quantization-aware training");
  const int classes = bnd_model_class_count(qat->model);
  if (qat->coco.category_count == (size_t)classes) return BND_OK;
  return bnd_fail(error, BND_ERROR_MODEL,
                  "%s: has %zu categories, but the network in %s tells %d classes apart; train it on the data set it was trained for", qat->coco.file,
                  qat->coco.category_count, qat->model->path, classes);
}

/* Augmentation makes what the recipe's network is fed: squares of bytes divided by 255. */
static bnd_status check_augmentation(const bnd_qat *qat, const bnd_preprocessing *p, bnd_error *error) {
  if (!qat->augment || (p->width == p->height && p->max_value == 255 && !p->normalize)) return BND_OK;
  return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: its input is %s, which augmentation does not make; train without augmentation", qat->model->path,
                  p->width == p->height ? "normalized in a way of its own" : "not square");
}

/* What a share too small would have to be. */
static bnd_status check_share(const bnd_qat *qat, bnd_error *error) {
  const size_t available = qat->loader.count, batch = (size_t)qat->batch, taken = (size_t)(qat->share * (double)available);
  if (taken >= batch) return BND_OK;
  if (available < batch)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: %zu image%s to train on do not fill one batch of %zu; take %sa batch of %zu at most",
                    qat->coco.file, available, available == 1 ? "" : "s", batch, qat->limit ? "more images or " : "", available);
  const double enough = fmin(ceil((double)batch / (double)available * 1e4) / 1e4, 1);
  return bnd_fail(error, BND_ERROR_ARGUMENT,
                  "%s: a share of %g of the %zu images to train on is %zu image%s, less than a batch of %zu; a share of %g would do, or a number of "
                  "images",
                  qat->coco.file, qat->share, available, taken, taken == 1 ? "" : "s", batch, enough);
}

static bnd_status choose_images(bnd_qat *qat, const bnd_preprocessing *preprocessing, bnd_error *error) {
  bnd_loader_options options = bnd_loader_options_default(preprocessing->width, qat->seed);
  options.shuffle = !qat->in_order;
  options.limit = (size_t)qat->limit;
  options.augment = qat->augment;
  options.preprocessing = *preprocessing;
  BND_TRY(check_augmentation(qat, preprocessing, error));
  BND_TRY(bnd_loader_create(&qat->coco, &options, &qat->loader, error)); /* all of them, to count */
  BND_TRY(check_share(qat, error));
  bnd_loader_free(&qat->loader);
  options.share = qat->share;
  return bnd_loader_create(&qat->coco, &options, &qat->loader, error);
}

bnd_status bnd_qat_open(const bnd_quantize_options *options, const bnd_model *model, const bnd_preprocessing *preprocessing, bnd_exec_backend backend,
                        const bnd_context *context, bnd_qat *qat, bnd_error *error) {
  BND_TRY(read_options(options, context, qat, error));
  qat->model = model;
  qat->backend = backend;
  size_t batches = 0;
  bnd_status status = open_images(options->data, qat, error);
  if (status == BND_OK) status = choose_images(qat, preprocessing, error);
  if (status == BND_OK) status = bnd_loader_batches(&qat->loader, (size_t)qat->batch, &batches, error);
  if (status == BND_OK &&
      (!bnd_size_multiply(batches, (size_t)qat->epochs, &qat->step_count) || !(qat->steps = bnd_calloc(qat->step_count, sizeof *qat->steps))))
    status = bnd_fail_memory(error, "the steps of training");
  qat->milestones[0] = (uint64_t)qat->epochs * 2 / 3;
  qat->milestones[1] = (uint64_t)qat->epochs * 8 / 9;
  const bnd_schedule schedule = schedule_of(qat);
  if (status == BND_OK) status = bnd_schedule_check(&schedule, error);
  if (status != BND_OK) bnd_qat_close(qat);
  return status;
}

void bnd_qat_close(bnd_qat *qat) {
  bnd_loader_free(&qat->loader);
  bnd_coco_close(&qat->coco);
  free(qat->steps);
  *qat = (bnd_qat){0};
}

bnd_status bnd_qat_fingerprint(const bnd_qat *qat, const bnd_context *context, bnd_string *text, bnd_error *error) {
  char annotations[65];
  BND_TRY(bnd_sha256_file(qat->coco.file, context, annotations, error));
  bnd_json_writer w = {.out = text};
  bnd_string_format(text, "|qat %s|%s|%d|", annotations, qat->coco.images_folder, (int)qat->backend);
  bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
  bnd_qat_describe(qat, false, &w);
  bnd_json_end_object(&w);
  return text->failed ? bnd_fail_memory(error, "the run's state") : BND_OK;
}

/* --- training --- */

static bnd_network_options network_options(int batch, int threads, bnd_exec_backend backend) {
  static const int outputs[] = {CLASS_OUTPUT, BOX_OUTPUT};
  return (bnd_network_options){
      .batch = batch, .threads = threads, .quantize = true, .backend = backend, .gradient_outputs = outputs, .gradient_output_count = 2};
}

bnd_status bnd_qat_network(bnd_graph *graph, int batch, int threads, bnd_exec_backend backend, bool learn_thresholds, bnd_network **network,
                           bnd_error *error) {
  bnd_network_options options = network_options(batch, threads, backend);
  options.learn_thresholds = learn_thresholds;
  options.threshold_margin = 0.5f; /* on the edge the first step upwards, however small, would double the scale */
  return bnd_network_create(graph, &options, network, error);
}

bnd_status bnd_qat_check(bnd_graph *graph, bnd_error *error) {
  bnd_network *network;
  const bnd_status status = bnd_qat_network(graph, 1, 1, BND_BACKEND_REFERENCE, false, &network, error);
  bnd_network_destroy(network);
  return status == BND_OK ? BND_OK : bnd_fail_prefix(error, status, "quantization-aware training");
}

typedef struct training {
  bnd_qat *qat;
  const bnd_qat_file *file;
  const bnd_context *context;
  bnd_error *error;
  bnd_network *network;
  bnd_trainer *trainer;
  size_t saved; /* steps in the file */
} training;

static bnd_status create(training *t, bnd_graph *graph) {
  const bnd_qat *qat = t->qat;
  const bnd_yolo_nas_architecture *architecture = bnd_yolo_nas_architecture_of(qat->model->network);
  const int threads = bnd_thread_count(t->context);
  const bnd_trainer_options options = {.batch = qat->batch,
                                       .threads = threads,
                                       .mode = qat->freeze_batch_norm ? BND_MODE_FROZEN : BND_MODE_TRAIN,
                                       .optimizer = {.kind = BND_ADAMW},
                                       .weight_decay = qat->weight_decay,
                                       .schedule = schedule_of(qat),
                                       .average = qat->average,
                                       .decay = {.kind = BND_DECAY_THRESHOLD, .decay = 0.9997},
                                       .skip_direct = true,
                                       .threshold_rate = qat->threshold_rate,
                                       .classes = architecture->classes,
                                       .reg_max = architecture->reg_max,
                                       .class_output = CLASS_OUTPUT,
                                       .box_output = BOX_OUTPUT};
  BND_TRY(bnd_qat_network(graph, qat->batch, threads, qat->backend, qat->learn_thresholds, &t->network, t->error));
  return bnd_trainer_create(t->network, &qat->loader, &options, &t->trainer, t->error);
}

static bnd_status go_on_from(training *t, bnd_checkpoint *saved) {
  if (!saved) return BND_OK;
  bnd_error problem = {0};
  const bnd_status status = bnd_trainer_restore(t->trainer, saved, "trainer", &problem);
  if (status == BND_ERROR_MEMORY) return bnd_fail(t->error, status, "%s", problem.message);
  if (status == BND_OK && bnd_trainer_done(t->trainer) == t->qat->done) {
    t->saved = t->qat->done;
    bnd_log(t->context, BND_LOG_INFO, "QAT: continuing after step %zu of %zu", t->qat->done, t->qat->step_count);
    return BND_OK;
  }
  return bnd_qat_fail_to_go_on(t->file, BND_ERROR_FORMAT, status == BND_OK ? "its parts contradict each other" : problem.message, t->error);
}

static bnd_status save(training *t) {
  BND_TRY(bnd_qat_save_progress(t->qat, t->trainer, t->file, t->error));
  t->saved = t->qat->done;
  return BND_OK;
}

static void report(const training *t, const bnd_qat_step *step) {
  char detail[160];
  snprintf(detail, sizeof detail, "loss %.4f = class %.4f + iou %.4f + dfl %.4f, lr %.2e", step->loss, step->classification, step->iou, step->dfl,
           step->learning_rate);
  bnd_report_progress_detail(t->context, &(bnd_progress){"QAT", "steps", t->qat->done, t->qat->step_count, detail});
}

static bnd_status all_steps(training *t) {
  bnd_qat *qat = t->qat;
  double saved_at = bnd_clock_seconds(CLOCK_MONOTONIC);
  bnd_report_progress(t->context, "QAT", "steps", qat->done, qat->step_count);
  while (qat->done < qat->step_count) {
    bnd_step_report step;
    BND_TRY(bnd_trainer_step(t->trainer, t->context, &step, t->error));
    qat->steps[qat->done++] = (bnd_qat_step){step.loss.total, step.loss.classification, step.loss.iou, step.loss.dfl, step.learning_rate};
    report(t, &qat->steps[qat->done - 1]);
    if (bnd_clock_seconds(CLOCK_MONOTONIC) - saved_at < qat->save_seconds || qat->done == qat->step_count) continue;
    BND_TRY(save(t));
    saved_at = bnd_clock_seconds(CLOCK_MONOTONIC);
  }
  return BND_OK;
}

/* What was learned up to here must not be lost because a step failed. */
static void keep_last_good(training *t, bnd_status status) {
  if (t->qat->done > t->saved) {
    bnd_error *error = t->error, problem = {0};
    t->error = &problem;
    if (save(t) != BND_OK) bnd_log(t->context, BND_LOG_WARNING, "the steps since number %zu are lost: %s", t->saved, problem.message);
    t->error = error;
  }
  if (status != BND_ERROR_MODEL || !t->error) return;
  bnd_fail_prefix(t->error, status, "%s: quantization-aware training", t->qat->model->path); /* the step stands behind it */
  const size_t length = strlen(t->error->message);
  if (t->qat->done)
    snprintf(t->error->message + length, sizeof t->error->message - length, "; the state before this step is kept in %s", t->file->path);
}

static void finish_quantizer(void *user, const bnd_quantizer_place *place) {
  (void)user;
  if (place->quantizer->record_count) bnd_quantizer_finish(place->quantizer, NULL); /* cannot fail */
}

static bnd_status train(training *t, bnd_graph *graph, bnd_checkpoint *saved) {
  const bnd_qat *qat = t->qat;
  BND_TRY(create(t, graph));
  BND_TRY(go_on_from(t, saved));
  bnd_log(t->context, BND_LOG_INFO, "QAT: %zu images, %zu steps of %d images, learning rate %g, about %zu MiB of memory",
          bnd_loader_count(&qat->loader), qat->step_count, qat->batch, qat->learning_rate, bnd_trainer_bytes(t->trainer) >> 20);
  const bnd_status status = all_steps(t);
  if (status != BND_OK) {
    keep_last_good(t, status);
    return status;
  }
  bnd_trainer_swap_average(t->trainer);
  bnd_visit_quantizers(graph, finish_quantizer, NULL);
  return bnd_qat_save_finished(qat, t->network, graph, t->file, t->error);
}

bnd_status bnd_qat_train(bnd_qat *qat, bnd_graph *graph, const bnd_qat_file *file, const bnd_context *context, bnd_error *error) {
  training t = {.qat = qat, .file = file, .context = context, .error = error};
  bnd_checkpoint *saved = NULL;
  bool finished = false;
  bnd_status status = bnd_qat_open_saved(qat, file, context, &saved, &finished, error);
  if (finished) bnd_log(context, BND_LOG_INFO, "QAT: finished before, taken from %s", file->path);
  if (status == BND_OK) status = finished ? bnd_qat_restore_finished(file, saved, graph, error) : train(&t, graph, saved);
  bnd_trainer_destroy(t.trainer);
  bnd_network_destroy(t.network);
  bnd_checkpoint_close(saved);
  return status;
}

/* --- for the reports --- */

void bnd_qat_describe(const bnd_qat *qat, bool with_steps, bnd_json_writer *w) {
  bnd_json_put_string(w, "split", qat->split);
  bnd_json_put_integer(w, "images", (int64_t)bnd_loader_count(&qat->loader));
  bnd_json_put_integer(w, "limit", (int64_t)qat->limit);
  bnd_json_put_double(w, "share", qat->share);
  bnd_json_put_integer(w, "epochs", qat->epochs);
  bnd_json_put_integer(w, "batch", qat->batch);
  bnd_json_put_integer(w, "steps", (int64_t)qat->step_count);
  bnd_json_put_double(w, "learning_rate", qat->learning_rate);
  bnd_json_put_string(w, "schedule", qat->schedule);
  bnd_json_put_double(w, "final_ratio", qat->final_ratio);
  bnd_json_put_integer(w, "warmup_steps", (int64_t)qat->warmup_steps);
  bnd_json_put_double(w, "weight_decay", qat->weight_decay);
  bnd_json_put_boolean(w, "augmentation", qat->augment);
  bnd_json_put_boolean(w, "in_order", qat->in_order);
  bnd_json_put_boolean(w, "freeze_batch_norm", qat->freeze_batch_norm);
  bnd_json_put_boolean(w, "average", qat->average);
  if (qat->learn_thresholds) {
    bnd_json_put_string(w, "thresholds", "learned");
    if (qat->threshold_rate != 0) bnd_json_put_double(w, "threshold_rate", qat->threshold_rate);
  }
  bnd_json_put_integer(w, "seed", (int64_t)qat->seed);
  if (!with_steps) return;
  static const char *const names[BND_QAT_STEP_NUMBERS] = {"losses", "classification", "iou", "dfl", "learning_rates"};
  for (int k = 0; k < BND_QAT_STEP_NUMBERS; k++) {
    bnd_json_key(w, names[k]);
    bnd_json_begin_array(w, BND_JSON_ONE_LINE);
    for (size_t s = 0; s < qat->done; s++) {
      const bnd_qat_step *step = &qat->steps[s];
      bnd_json_double(w, (const double[]){step->loss, step->classification, step->iou, step->dfl, step->learning_rate}[k]);
    }
    bnd_json_end_array(w);
  }
}
