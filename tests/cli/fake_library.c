/* A library that computes nothing, so that the command's frame can be tested quickly and alone. What it does is told by the name of the "model":
   "missing" cannot be opened, "broken-N" has N violations, "full" fails with a message; everything else works. Options are printed back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "binade/binade.h"

struct bnd_model {
  char path[256];
};

static bnd_status fail(bnd_error *error, bnd_status status, const char *message) {
  error->status = status;
  snprintf(error->message, sizeof error->message, "%s", message);
  return status;
}

const char *bnd_status_text(bnd_status status) { return status == BND_ERROR_MEMORY ? "out of memory" : "some error"; }
void bnd_free(void *memory) { free(memory); }
void bnd_model_close(bnd_model *model) { free(model); }
void bnd_evaluation_free(bnd_evaluation *result) { free(result->classes); }

bnd_status bnd_model_open(const char *path, bnd_model **model, bnd_error *error) {
  if (strcmp(path, "missing") == 0) return fail(error, BND_ERROR_IO, "missing: cannot be opened");
  *model = calloc(1, sizeof **model);
  snprintf((*model)->path, sizeof (*model)->path, "%s", path);
  return BND_OK;
}

bnd_status bnd_model_describe(const bnd_model *model, bool json, char **text, bnd_error *error) {
  if (strcmp(model->path, "full") == 0) return fail(error, BND_ERROR_MODEL, "full: holds no network");
  return asprintf(text, "%s%s\n", model->path, json ? " json" : "") < 0 ? BND_ERROR_MEMORY : BND_OK;
}

bnd_status bnd_model_print(const bnd_model *model, const bnd_print_options *options, char **text, bnd_error *error) {
  (void)error;
  return asprintf(text, "%s form=%d code=%d size=%d\n", model->path, options->form, options->code, options->size) < 0 ? BND_ERROR_MEMORY : BND_OK;
}

bnd_status bnd_model_convert(const bnd_model *model, const bnd_convert_options *options, const char *path, bnd_error *error) {
  (void)error;
  printf("%s -> %s form=%d size=%d raw=%d\n", model->path, path, options->form, options->size, options->raw_outputs);
  return BND_OK;
}

bnd_status bnd_check(const bnd_model *model, const char *target, bool json, char **text, int *violations, bnd_error *error) {
  (void)error;
  *violations = strncmp(model->path, "broken-", 7) == 0 ? atoi(model->path + 7) : 0;
  return asprintf(text, "%s%s: %d\n", target, json ? " json" : "", *violations) < 0 ? BND_ERROR_MEMORY : BND_OK;
}

bnd_status bnd_evaluate_file(const char *path, const bnd_evaluate_options *options, const bnd_context *context, bnd_evaluation *result, bnd_error *error) {
  if (strcmp(path, "missing") == 0) return fail(error, BND_ERROR_IO, "missing: cannot be opened");
  static char name[] = "caf\xc3\xa9";
  for (uint64_t i = 0; i <= 40; i++) context->progress(context->user, &(bnd_progress){"evaluation", "images", i, 40, NULL});
  *result = (bnd_evaluation){.map50 = 0.6210263967514038, .map50_95 = 0.48172885179519653, .images = options->images ? options->images : 200, .seconds = 1.5};
  for (int i = 0; i < 12; i++) result->coco[i] = i == 3 ? -1 : 0.1 * i;
  result->classes = calloc(1, sizeof *result->classes);
  result->class_count = 1;
  result->classes[0] = (bnd_class_result){.name = name, .objects = 7, .ap50 = 0.5, .ap50_95 = 0.0 / 0.0};
  return BND_OK;
}

bnd_status bnd_predict(const bnd_model *model, const bnd_predict_options *options, const bnd_context *context, char **json, bnd_error *error) {
  (void)model, (void)context, (void)error;
  return asprintf(json, "[%zu images, last %s, %g %g %d]\n", options->image_count, options->images[options->image_count - 1], options->confidence,
                  options->iou, options->maximum) < 0 ? BND_ERROR_MEMORY : BND_OK;
}

bnd_status bnd_dump(const bnd_model *model, const bnd_dump_options *options, const bnd_context *context, bool json, char **text, bnd_error *error) {
  (void)context, (void)error;
  return asprintf(text, "%s of %s into %s: %s%s%s executor=%d\n", model->path, options->image, options->output, options->target,
                  options->accumulators ? " accumulators" : "", json ? " json" : "", options->executor) < 0 ? BND_ERROR_MEMORY : BND_OK;
}
/* Two integer steps with the times 3 and 1 ms, and one in FP32, at peaks of 100 and 400 GOP/s. */
bnd_status bnd_bench(const bnd_model *model, const bnd_bench_options *options, const bnd_context *context, bnd_bench_result *result, bnd_error *error) {
  if (strcmp(model->path, "full") == 0) return fail(error, BND_ERROR_MODEL, "full: holds no network");
  fprintf(stderr, "options: executor=%d size=%d rounds=%d batch=%d threads=%d\n", options->executor, options->size, options->rounds, options->batch,
          context->threads);
  *result = (bnd_bench_result){.layer_count = 3, .executor = BND_EXECUTOR_INT8, .quantized = true, .width = 640, .height = 640, .threads = 1, .rounds = 20,
                               .batch = options->batch, .processor_time = true, .seconds = 4.5e-3, .median_seconds = 5e-3, .wall_seconds = 6e-3,
                               .batch_seconds = options->batch ? 0.04 : 0, .float_peak = {"AVX2 FMA loop", 50e9}, .integer_peak = {"its fastest layer", 200e9},
                               .arena_bytes = 1 << 20, .weight_bytes = 3 << 19, .peak_rss_mib = 33, .library = "oneDNN 2.6.3", .instructions = "AVX2"};
  static char stem[] = "stem", join[] = "join", softmax[] = "softmax", kernel[] = "jit_int8", loop[] = "scale_add", reason[] = "signed bytes\nsaturate", none[] = "",
              shape[] = "1x48x320x320";
  static const bnd_bench_layer layers[] = {
      {stem, kernel, reason, shape, shape, {3, 3}, {2, 2}, 300e6, 6000000, true, true, 3e-3},
      {join, loop, none, shape, shape, {0, 0}, {0, 0}, 0, 2000000, false, true, 1e-3},
      {softmax, softmax, none, shape, shape, {0, 0}, {0, 0}, 0, 1000000, false, false, 0.5e-3},
  };
  result->layers = calloc(3, sizeof *layers);
  memcpy(result->layers, layers, sizeof layers);
  return BND_OK;
}
void bnd_bench_free(bnd_bench_result *result) { free(result->layers); }

/* With the checkpoint "slow" it takes two seconds and watches for interruption, as a real run does. */
bnd_status bnd_quantize(const bnd_quantize_options *options, const bnd_context *context, bnd_quantize_result *result, bnd_error *error) {
  context->log(context->user, BND_LOG_WARNING, "this is no library");
  context->log(context->user, BND_LOG_DEBUG, "details");
  const int steps = strcmp(options->checkpoint, "slow") == 0 ? 200 : strcmp(options->checkpoint, "stuck") == 0 ? 1000 : 3;
  for (int i = 0; i <= steps; i++) {
    context->progress(context->user, &(bnd_progress){"calibration", "images", (uint64_t)i, (uint64_t)steps, NULL});
    if (steps > 3) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    if (steps != 1000 && context->cancelled(context->user)) return fail(error, BND_ERROR_INTERRUPTED, "interrupted during calibration");
  }
  fprintf(stderr, "options: %s data=%s out=%s split=%s recipe=%s target=%s config=%s calib=%llu batch=%d images=%llu eval=%d size=%d scope=%s stubs=%zu/%zu "
          "observer=%s channel=%d executor=%d restart=%d threads=%d seed=%llu\ncommand: %s\n"
          "qat=%d split=%s images=%llu share=%g epochs=%d batch=%d lr=%g schedule=%s ratio=%g warmup=%lld decay=%g plain=%d order=%d freeze=%d average=%d\n",
          options->checkpoint, options->data, options->output, options->split ? options->split : "-", options->recipe, options->target,
          options->config ? options->config : "-", (unsigned long long)options->calibration_images, options->batch, (unsigned long long)options->images,
          !options->no_evaluation, options->size, options->scope ? options->scope : "-", options->quant_stub_count, options->dequant_stub_count,
          options->observer ? options->observer : "-", options->per_channel, options->executor, options->restart, context->threads,
          (unsigned long long)context->seed, options->command, options->qat, options->qat_split ? options->qat_split : "-",
          (unsigned long long)options->qat_images, options->qat_share, options->qat_epochs, options->qat_batch, options->qat_learning_rate,
          options->qat_schedule ? options->qat_schedule : "-", options->qat_final_ratio, (long long)options->qat_warmup_steps, options->qat_weight_decay,
          options->qat_no_augmentation, options->qat_in_order, options->qat_freeze_batch_norm, options->qat_average);
  static const char *const names[] = {"fp32", "folded", "ptq", "aligned"}, *const trained_names[] = {"fp32", "folded", "ptq", "qat", "aligned"};
  for (int i = 0; i < (options->qat ? 5 : 4); i++) {
    bnd_stage_result *stage = &result->stages[result->stage_count++];
    *stage = (bnd_stage_result){.evaluated = !options->no_evaluation, .map50 = 0.6 - 0.1 * i, .map50_95 = 0.4 - 0.1 * i, .images = 20, .seconds = 2, .peak_rss_mib = 100};
    snprintf(stage->name, sizeof stage->name, "%s", options->qat ? trained_names[i] : names[i]);
  }
  result->calibration_images = options->calibration_images;
  return BND_OK;
}

/* Told by the name of the data: "slow" takes a second or more and watches for interruption; "diverges" fails in the second epoch. */
bnd_status bnd_train(const bnd_train_options *options, const bnd_context *context, bnd_train_result *result, bnd_error *error) {
  const bool slow = strcmp(options->data, "slow") == 0, diverges = strcmp(options->data, "diverges") == 0;
  const uint64_t epochs = options->epochs ? (uint64_t)options->epochs : 3, per_epoch = slow ? 60 : 4;
  fprintf(stderr, "options: %s out=%s split=%s val=%s init=%s resume=%d restart=%d variant=%c width=%g size=%d batch=%d epochs=%d accumulate=%d "
          "optimizer=%s lr=%g decay=%g schedule=%s final=%g warmup=%lld clip=%g ema=%g snapshots=%d freeze=%d plain=%d order=%d images=%llu share=%g "
          "every=%d vimages=%llu save=%g threads=%d seed=%llu\ncommand: %s\n",
          options->data, options->output, options->split ? options->split : "-", options->validation_split ? options->validation_split : "-",
          options->init ? options->init : "-", options->resume, options->restart, options->variant ? options->variant : '-', options->width,
          options->size, options->batch, options->epochs, options->accumulate, options->optimizer ? options->optimizer : "-", options->learning_rate,
          options->weight_decay, options->schedule ? options->schedule : "-", options->final_ratio, (long long)options->warmup_steps,
          options->clip_norm, options->average_decay, options->best_snapshots, options->frozen_batch_norm, options->no_augmentation,
          options->in_order, (unsigned long long)options->images, options->share, options->validate_every,
          (unsigned long long)options->validation_images, options->save_minutes, context->threads, (unsigned long long)context->seed, options->command);
  const int every = options->validate_every == 0 ? 1 : options->validate_every;
  for (uint64_t step = 1; step <= epochs * per_epoch; step++) {
    if (slow) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    if (context->cancelled(context->user)) return fail(error, BND_ERROR_INTERRUPTED, "interrupted in step 7");
    const uint64_t epoch = (step - 1) / per_epoch + 1;
    if (diverges && epoch == 2) return fail(error, BND_ERROR_MODEL, "the loss is not finite in step 5; a lower learning rate helps");
    bnd_train_report report = {.epoch = epoch, .epochs = epochs, .step = step, .steps = epochs * per_epoch, .classification = 1.0 / (double)step, .iou = 0.5,
                               .dfl = 0.25, .learning_rate = 5e-4, .images_per_second = step % 2 ? 20 : 60,
                               .remaining_seconds = (double)(epochs * per_epoch - step) * 3600};
    report.loss = report.classification + report.iou + report.dfl;
    if (step % per_epoch == 0 && every > 0 && epoch % (uint64_t)every == 0) {
      for (uint64_t i = 0; i <= 40; i++) context->progress(context->user, &(bnd_progress){"validation", "images", i, 40, NULL});
      report.validated = true;
      report.map50 = 0.5 + 0.01 * (double)epoch;
      report.map50_95 = 0.3 + 0.01 * (double)epoch;
      report.best = epoch != 2;
    }
    if (options->report) options->report(context->user, &report);
  }
  const double best = every > 0 ? 0.3 + 0.01 * (double)epochs : NAN;
  *result = (bnd_train_result){epochs, epochs * per_epoch, 600, best + 0.2, best, every > 0 ? epochs : 0, 0.9, 3723, 3ull << 30};
  return BND_OK;
}

bnd_status bnd_dataset_shapes(const bnd_dataset_shapes_options *options, const bnd_context *context, bnd_dataset_shapes_result *result, bnd_error *error) {
  if (strcmp(options->output, "full") == 0) return fail(error, BND_ERROR_IO, "full: No space left on device");
  *result = (bnd_dataset_shapes_result){.images = options->images, .objects = context->seed};
  for (int i = 0; i < BND_DATASET_SHAPES_CLASSES; i++) result->classes[i].name = "class";
  printf("%s %s %d-%d %d\n", options->output, options->split, options->least_side, options->most_side, options->quality);
  return BND_OK;
}
