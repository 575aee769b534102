/* The staged run: checkpoint and images to a hardware-aligned INT8 file, with mAP at every step. Each finished stage is kept on disk. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "eval/bootstrap.h"
#include "export/onnx_export.h"
#include "flow/config_json.h"
#include "flow/evaluation.h"
#include "flow/quantize.h"
#include "flow/scope.h"
#include "flow/target_profile.h"
#include "passes/quark/quark.h"
#include "passes/target/adjust.h"

enum { DEFAULT_IMAGES = 500, DEFAULT_BATCH = 25, SATURATION_IMAGES = 4 };

/* --- small tools --- */

bnd_status bnd_run_path(bnd_quantize_run *r, const char *name, char path[4096]) {
  const int length = snprintf(path, 4096, "%s/%s", r->options->output, name);
  return length > 0 && length < 4096 ? BND_OK : bnd_fail(r->error, BND_ERROR_ARGUMENT, "%s: the path is too long", r->options->output);
}

bnd_status bnd_run_write_text(bnd_quantize_run *r, const char *name, const bnd_string *text) {
  char path[4096];
  if (text->failed) return bnd_fail_memory(r->error, name);
  BND_TRY(bnd_run_path(r, name, path));
  return bnd_file_write(path, text->text ? text->text : "", text->length, r->error);
}

void bnd_run_note(bnd_quantize_run *r, bnd_log_level level, const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  bnd_string_format(&r->log, "%s\n", line);
  bnd_log(r->context, level, "%s", line);
}

/* What calibration and training run on: all of it in floats. */
bnd_exec_backend bnd_run_backend(const bnd_quantize_run *r) {
  return bnd_backend_of(r->options->executor, BND_EXEC_FLOAT);
}

bnd_status bnd_run_not_cancelled(const bnd_quantize_run *r, const char *stage) {
  return bnd_is_cancelled(r->context) ? bnd_fail(r->error, BND_ERROR_INTERRUPTED, "interrupted during %s", stage) : BND_OK;
}

/* --- what the results depend on --- */

static void fingerprint_list(bnd_string *text, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++) bnd_string_format(text, "|%s", names[i]);
}

/* Of the calibrated network: what training starts from. */
static bnd_status calibrated_fingerprint(bnd_quantize_run *r, bnd_string *text) {
  const bnd_quantize_options *o = r->options;
  char annotations[65];
  BND_TRY(bnd_sha256_file(o->checkpoint, r->context, r->source_sha256, r->error));
  BND_TRY(bnd_sha256_file(r->dataset.coco.file, r->context, annotations, r->error));
  bnd_string_format(text, "%s|%s|%s|%s|%zu|%zu|%dx%d|%s|%d", BND_VERSION_STRING, r->source_sha256, annotations, r->dataset.coco.images_folder,
                    r->calibration_images, r->batch, r->dataset.preprocessing.width, r->dataset.preprocessing.height, o->scope ? o->scope : "published",
                    (int)bnd_run_backend(r));
  fingerprint_list(text, o->quant_stubs, o->quant_stub_count);
  bnd_string_format(text, "#");
  fingerprint_list(text, o->dequant_stubs, o->dequant_stub_count);
  bnd_best_fingerprint(r, text);
  bnd_config_write(&r->config, text);
  return text->failed ? bnd_fail_memory(r->error, "the run's state") : BND_OK;
}

/* Of all results but those behind training (digest), and of the trained network (r->training). */
static bnd_status fingerprints(bnd_quantize_run *r, char digest[65]) {
  const bnd_quantize_options *o = r->options;
  char target[65] = "";
  bnd_string text = {0};
  bnd_status status = calibrated_fingerprint(r, &text);
  const size_t calibrated = text.length;
  if (status == BND_OK && bnd_target_profile_is_file(o->target)) status = bnd_sha256_file(o->target, r->context, target, r->error);
  if (status == BND_OK) {
    bnd_string_format(&text, "|%zu|%d|%s%s", r->dataset.count, o->no_evaluation, r->target.name, target);
    status = text.failed ? bnd_fail_memory(r->error, "the run's state") : BND_OK;
  }
  if (status == BND_OK) bnd_sha256_text(text.text, text.length, digest);
  if (status == BND_OK && o->qat && !bnd_recipe_is_best(o)) {
    text.length = calibrated;
    status = bnd_qat_fingerprint(&r->qat, r->context, &text, r->error);
    if (status == BND_OK) bnd_sha256_text(text.text, text.length, r->training);
  }
  bnd_string_free(&text);
  return status;
}

static bnd_status read_config(bnd_quantize_run *r) {
  const bnd_quantize_options *o = r->options;
  if (o->config) {
    if (o->observer || o->per_channel)
      return bnd_fail(r->error, BND_ERROR_ARGUMENT, "%s: a configuration file decides observers and schemes; leave out --observer and --per-channel", o->config);
    return bnd_config_read(o->config, &r->config, r->error);
  }
  bnd_observer_kind observer = bnd_recipe_is_best(o) ? BND_OBSERVER_POWER_OF_TWO_MIN_MSE : BND_OBSERVER_POWER_OF_TWO_MIN_MAX;
  if (o->observer && strcmp(o->observer, "min-mse") == 0) observer = BND_OBSERVER_POWER_OF_TWO_MIN_MSE;
  else if (o->observer && strcmp(o->observer, "min-max") == 0) observer = BND_OBSERVER_POWER_OF_TWO_MIN_MAX;
  else if (o->observer)
    return bnd_fail(r->error, BND_ERROR_ARGUMENT, "no observer is called \"%s\"; there are min-max and min-mse", o->observer);
  r->config = bnd_quantization_config_xint8(observer);
  if (o->per_channel) {
    r->config.global.weight.spec.per_channel = true;
    r->config.global.weight.spec.channel_axis = 0;
  }
  return BND_OK;
}

/* The checkpoint's own names, else the data set's. */
static bnd_status find_class_names(bnd_quantize_run *r) {
  const bnd_coco *coco = &r->dataset.coco;
  bnd_class_names names = {0};
  bool fine = true;
  if (r->model->classes.count) {
    bnd_class_names_to_json(&r->model->classes, &r->class_names);
  } else if (coco->category_count == (size_t)bnd_model_class_count(r->model)) {
    for (size_t c = 0; c < coco->category_count && fine; c++) fine = bnd_class_names_add(&names, coco->categories[c].name);
    bnd_class_names_to_json(&names, &r->class_names);
  }
  bnd_class_names_free(&names);
  return fine && !r->class_names.failed ? BND_OK : bnd_fail_memory(r->error, "class names");
}

/* Calibration on what is evaluated, as in the published example. */
static void choose_images(bnd_quantize_run *r) {
  const bnd_quantize_options *o = r->options;
  const size_t available = r->dataset.coco.annotated_count, wanted = o->calibration_images ? (size_t)o->calibration_images : DEFAULT_IMAGES;
  r->calibration_images = wanted < available ? wanted : available;
  r->batch = o->batch > 0 ? (size_t)o->batch : DEFAULT_BATCH;
}

static bnd_status open_run(bnd_quantize_run *r) {
  const bnd_quantize_options *o = r->options;
  if (!o->checkpoint || !o->data || !o->output) return bnd_fail(r->error, BND_ERROR_ARGUMENT, "a checkpoint, a data folder and an output folder are needed");
  const bool best = bnd_recipe_is_best(o);
  if (!best && strcmp(o->recipe, "quark") != 0)
    return bnd_fail(r->error, BND_ERROR_ARGUMENT, "no recipe is called \"%s\"; there are best and quark", o->recipe);
  BND_TRY(bnd_best_check_options(o, r->error));
  BND_TRY(bnd_target_profile_load(o->target, &r->target, r->error));
  BND_TRY(read_config(r));
  BND_TRY(bnd_model_open(o->checkpoint, &r->model, r->error));
  BND_TRY(bnd_dataset_open(r->model, o->data, o->split ? o->split : "val2017", o->size, o->images, !o->no_evaluation, &r->dataset, r->error));
  BND_TRY(find_class_names(r));
  if (best) BND_TRY(bnd_best_choose_images(r));
  else choose_images(r);
  r->result->calibration_images = r->calibration_images;
  if (o->qat && !best) BND_TRY(bnd_qat_open(o, r->model, &r->dataset.preprocessing, bnd_run_backend(r), r->context, &r->qat, r->error));
  char digest[65];
  bool found_other;
  BND_TRY(fingerprints(r, digest));
  BND_TRY(bnd_make_folder(o->output, r->error));
  BND_TRY(bnd_run_state_open(o->output, digest, o->restart, &r->state, &found_other, r->error));
  bnd_run_state_set_training(&r->state, r->training);
  bnd_run_note(r, BND_LOG_DEBUG, "%s: %d classes, input %dx%d, %zu calibration images in batches of %zu, %zu images for evaluation", o->checkpoint,
       bnd_model_class_count(r->model), r->dataset.preprocessing.width, r->dataset.preprocessing.height, r->calibration_images, r->batch, r->dataset.count);
  if (found_other) bnd_run_note(r, BND_LOG_INFO, "%s: holds results of another run; they are replaced", o->output);
  else if (r->state.stage_count || r->state.calibrated) bnd_run_note(r, BND_LOG_INFO, "%s: continuing after what is finished there", o->output);
  return BND_OK;
}

/* --- stages --- */

bnd_status bnd_run_network(const bnd_quantize_run *r, bnd_yolo_nas_form form, bool raw_outputs, bool stubs, bnd_graph **graph) {
  const bnd_yolo_nas_options options = {.form = form, .height = r->dataset.preprocessing.height, .width = r->dataset.preprocessing.width,
                                        .raw_outputs = raw_outputs, .stubs = stubs};
  return bnd_model_graph(r->model, &options, graph, r->error);
}

bnd_status bnd_run_export(bnd_quantize_run *r, const bnd_graph *graph, const char *name, bool dedicated) {
  static const char *const inputs[] = {"images"}, *const outputs[] = {"boxes", "scores"};
  const char *const metadata[][2] = {{BND_CLASS_NAMES_KEY, r->class_names.text}};
  const bnd_onnx_export_options options = {.input_names = inputs, .input_count = 1, .output_names = outputs, .output_count = 2, .output_limit = 2,
                                           .dedicated_qdq = dedicated, .metadata = metadata, .metadata_count = r->class_names.text ? 1 : 0};
  char path[4096];
  BND_TRY(bnd_run_not_cancelled(r, "export"));
  BND_TRY(bnd_run_path(r, name, path));
  return bnd_export_onnx(graph, &options, path, r->error);
}

/* Evaluates one network and records the row, unless it is there already. */
bnd_status bnd_run_measure(bnd_quantize_run *r, const char *name, const bnd_graph *graph, bnd_exec_mode mode) {
  bnd_stage_result stage = {0};
  snprintf(stage.name, sizeof stage.name, "%s", name);
  if (!r->options->no_evaluation) {
    char title[64];
    snprintf(title, sizeof title, "evaluation of %s", name);
    const bnd_exec_options options = {.mode = mode, .backend = bnd_backend_of(r->options->executor, mode), .threads = 1, .output_limit = 2,
                                      .non_negative_inputs = true};
    bnd_executor *executor;
    BND_TRY(bnd_executor_create(graph, &options, &executor, r->error));
    bnd_evaluation evaluation;
    bnd_sg_record ***records = strcmp(name, "fp32") == 0 ? &r->float_records : strcmp(name, "aligned") == 0 ? &r->final_records : NULL;
    if (records) *records = bnd_calloc(r->dataset.count, sizeof **records); /* without them there is no interval */
    const bnd_status status = bnd_evaluate_with_records(executor, &r->dataset, title, r->context, &evaluation, records ? *records : NULL, r->error);
    bnd_executor_destroy(executor);
    if (status != BND_OK) return status;
    stage.evaluated = true;
    stage.map50 = evaluation.map50;
    stage.map50_95 = evaluation.map50_95;
    memcpy(stage.coco, evaluation.coco, sizeof stage.coco);
    stage.images = evaluation.images;
    bnd_evaluation_free(&evaluation);
  }
  stage.seconds = bnd_seconds_since(&r->stage_begin);
  stage.peak_rss_mib = bnd_peak_rss_mib();
  if (stage.evaluated) bnd_run_note(r, BND_LOG_DEBUG, "%s: mAP@0.50 %.4f, mAP@0.50:0.95 %.4f", name, stage.map50, stage.map50_95);
  return bnd_run_state_add_stage(&r->state, &stage, r->error);
}

/* --- how sure the share is --- */

static bnd_status evaluate_float_again(bnd_quantize_run *r) {
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .backend = bnd_run_backend(r), .threads = 1, .output_limit = 2};
  bnd_graph *graph;
  bnd_executor *executor = NULL;
  bnd_evaluation evaluation = {0};
  BND_TRY(bnd_run_network(r, BND_YOLO_NAS_TRAIN, false, false, &graph));
  bnd_status status = bnd_executor_create(graph, &options, &executor, r->error);
  r->float_records = bnd_calloc(r->dataset.count, sizeof *r->float_records);
  if (status == BND_OK && !r->float_records) status = bnd_fail_memory(r->error, "results");
  if (status == BND_OK) status = bnd_evaluate_with_records(executor, &r->dataset, "evaluation of fp32", r->context, &evaluation, r->float_records, r->error);
  bnd_evaluation_free(&evaluation);
  bnd_executor_destroy(executor);
  bnd_graph_destroy(graph);
  return status;
}

bnd_status bnd_run_measure_interval(bnd_quantize_run *r) {
  enum { RESAMPLES = 1000 };
  bnd_stage_result *last = r->state.stage_count ? &r->state.stages[r->state.stage_count - 1] : NULL;
  if (!r->final_records || !last) return BND_OK;
  if (!r->float_records) BND_TRY(evaluate_float_again(r));
  BND_TRY(bnd_sg_bootstrap_ratio((const bnd_sg_record *const *)r->float_records, (const bnd_sg_record *const *)r->final_records, r->dataset.count,
                                 (size_t)bnd_model_class_count(r->model), RESAMPLES, r->context ? r->context->seed : 0, &last->kept_low, &last->kept_high, r->error));
  return bnd_run_state_write(&r->state, r->error);
}

static void free_records(bnd_sg_record **records, size_t count) {
  for (size_t i = 0; records && i < count; i++) bnd_sg_record_free(records[i]);
  free(records);
}

bool bnd_run_has_stage(bnd_quantize_run *r, const char *name) {
  clock_gettime(CLOCK_MONOTONIC, &r->stage_begin);
  return bnd_run_state_stage(&r->state, name) != NULL;
}

static bnd_status float_stage(bnd_quantize_run *r, const char *name, bnd_yolo_nas_form form, const char *onnx) {
  const bool done = bnd_run_has_stage(r, name);
  bnd_graph *graph;
  BND_TRY(bnd_run_network(r, form, false, false, &graph));
  bnd_status status = bnd_run_export(r, graph, onnx, false); /* every time: what was there may have been changed or damaged */
  if (status == BND_OK && !done) status = bnd_run_measure(r, name, graph, BND_EXEC_FLOAT);
  bnd_graph_destroy(graph);
  return status;
}

bnd_status bnd_run_print_graph(bnd_quantize_run *r, const bnd_graph *graph, const char *name) {
  bnd_string text = {0};
  bnd_status status = bnd_graph_print_fx(graph, &text, r->error);
  if (status == BND_OK) status = bnd_run_write_text(r, name, &text);
  bnd_string_free(&text);
  return status;
}

/* Axes of the configuration against the tensors they split; counted from the end they are turned around. */
static void check_axis(void *user, const bnd_quantizer_place *place) {
  bnd_quantize_run *r = user;
  bnd_quantizer_spec *spec = &place->quantizer->spec;
  const int rank = place->shape->rank, axis = spec->channel_axis < 0 ? spec->channel_axis + rank : spec->channel_axis;
  if (!spec->per_channel || r->bad_axis) return;
  if (axis < 0 || axis >= rank) {
    r->bad_axis = true;
    bnd_fail(r->error, BND_ERROR_ARGUMENT, "ch_axis %d: %s has %d dimension%s", spec->channel_axis, place->name, rank, rank == 1 ? "" : "s");
  }
  spec->channel_axis = axis;
}

bnd_status bnd_run_configure(bnd_quantize_run *r, bnd_graph *graph) {
  bnd_status status = bnd_quark_apply_layer_configs(graph, &r->config, r->error);
  if (status == BND_OK) bnd_visit_quantizers(graph, check_axis, r);
  if (r->bad_axis) status = BND_ERROR_ARGUMENT;
  if (status != BND_OK && r->options->config) bnd_fail_prefix(r->error, status, "%s", r->options->config);
  return status;
}

/* Capture, scope, rewrites, quantizers: the graph that is calibrated. */
static bnd_status quantized_graph(bnd_quantize_run *r, bnd_graph **result) {
  bnd_graph *graph;
  BND_TRY(bnd_run_network(r, BND_YOLO_NAS_PARTIAL, true, bnd_scope_is_published(r->options), &graph));
  bnd_status status = bnd_scope_place(graph, r->options, r->error);
  if (status == BND_OK) status = bnd_run_print_graph(r, graph, "captured.txt");
  if (status == BND_OK) status = bnd_quark_mark_scope(graph, r->error);
  if (status == BND_OK) status = bnd_quark_prepare(graph, r->error);
  if (status == BND_OK) status = bnd_quark_insert_quantizers(graph, &r->config, r->error);
  if (status == BND_OK) status = bnd_infer_shapes(graph, r->error);
  if (status == BND_OK) status = bnd_run_configure(r, graph);
  if (status == BND_OK) status = bnd_run_print_graph(r, graph, "quantized.txt");
  if (status == BND_OK) *result = graph;
  else bnd_graph_destroy(graph);
  return status;
}

static bnd_status measure_saturation(bnd_quantize_run *r, bnd_graph *graph) {
  const bnd_image_source sample = bnd_dataset_source(&r->dataset, r->calibration_images < SATURATION_IMAGES ? r->calibration_images : SATURATION_IMAGES);
  return bnd_measure_saturation(graph, &sample, r->context, r->error);
}

static bnd_status calibrate(bnd_quantize_run *r, bnd_graph *graph) {
  if (r->state.calibrated && bnd_run_state_restore_quantizers(&r->state, graph)) return BND_OK;
  const bnd_image_source source = bnd_dataset_source(&r->dataset, r->calibration_images);
  const bnd_calibration calibration = {.batch = r->batch, .backend = bnd_run_backend(r)};
  struct timespec begin;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  const bnd_status status = bnd_calibrate(graph, &source, &calibration, r->context, r->error);
  if (status == BND_ERROR_MODEL) bnd_fail_prefix(r->error, status, "%s", r->options->checkpoint);
  if (status != BND_OK) return status;
  bnd_run_note(r, BND_LOG_DEBUG, "calibration: %.2f s", bnd_seconds_since(&begin));
  BND_TRY(measure_saturation(r, graph));
  return bnd_run_state_save_quantizers(&r->state, graph, r->error);
}

static bnd_status train(bnd_quantize_run *r, bnd_graph *graph) {
  char path[4096];
  BND_TRY(bnd_run_path(r, ".binade-qat.pth", path));
  const bnd_qat_file file = {path, r->training, r->options->restart};
  BND_TRY(bnd_qat_train(&r->qat, graph, &file, r->context, r->error));
  const bnd_qat_step *last = &r->qat.steps[r->qat.done - 1];
  bnd_run_note(r, BND_LOG_DEBUG, "QAT: %zu steps, loss %.4f at first, %.4f at last", r->qat.done, r->qat.steps[0].loss, last->loss);
  return measure_saturation(r, graph);
}

static void note_violation(void *user, const bnd_violation *v) {
  bnd_run_note(user, BND_LOG_WARNING, "constraint %s broken at %s: %s is %d, allowed %d to %d", bnd_rule_name(v->rule), v->node, v->detail, v->value, v->limits.low,
       v->limits.high);
}

bnd_status bnd_run_finish_graph(bnd_quantize_run *r, bnd_graph *graph) {
  BND_TRY(bnd_hard_sigmoid_to_hardware(graph, &r->target, r->error));
  BND_TRY(bnd_infer_shapes(graph, r->error));
  BND_TRY(bnd_graph_verify(graph, r->error));
  r->result->violations = bnd_check_positions(graph, &r->target, note_violation, r);
  return bnd_run_print_graph(r, graph, "frozen.txt");
}

/* Batch norm merged, hardware rules enforced once, hardware's operators in place. */
static bnd_status freeze(bnd_quantize_run *r, bnd_graph *graph) {
  BND_TRY(bnd_quark_merge_batch_norm(graph, r->error));
  BND_TRY(bnd_clip_to_relu(graph, r->error));
  bnd_adjust_positions(graph, &r->target);
  return bnd_run_finish_graph(r, graph);
}

static bnd_status write_reports(bnd_quantize_run *r, const bnd_graph *graph) {
  char path[4096];
  const bool best = bnd_recipe_is_best(r->options);
  const bnd_quantization_report report = {.graph = graph, .target = &r->target, .recipe = best ? "best" : "quark", .source_file = r->options->checkpoint,
                                          .source_sha256 = r->source_sha256, .images = r->calibration_images, .batch = r->batch,
                                          .qat = r->options->qat && !best ? &r->qat : NULL, .state = &r->state};
  BND_TRY(bnd_run_path(r, "quantization.json", path));
  BND_TRY(bnd_write_quantization(path, &report, r->error));
  bnd_string config = {0};
  bnd_config_write(&r->config, &config);
  const bnd_status status = bnd_run_write_text(r, "config.json", &config);
  bnd_string_free(&config);
  return status;
}

bnd_status bnd_run_write_files(bnd_quantize_run *r, const bnd_graph *graph) {
  BND_TRY(bnd_run_export(r, graph, "int8.onnx", false));
  BND_TRY(bnd_run_export(r, graph, "int8_dedicated_qdq.onnx", true));
  return write_reports(r, graph);
}

static bnd_status quantized_stages(bnd_quantize_run *r) {
  bnd_graph *graph;
  const bool ptq_done = bnd_run_has_stage(r, "ptq");
  BND_TRY(quantized_graph(r, &graph));
  bnd_status status = calibrate(r, graph);
  if (status == BND_OK && !ptq_done) status = bnd_run_measure(r, "ptq", graph, BND_EXEC_FAKE_QUANTIZE);
  const bool qat_done = bnd_run_has_stage(r, "qat");
  if (status == BND_OK && r->options->qat) status = train(r, graph);
  if (status == BND_OK && r->options->qat && !qat_done) status = bnd_run_measure(r, "qat", graph, BND_EXEC_FAKE_QUANTIZE);
  const bool aligned_done = bnd_run_has_stage(r, "aligned");
  if (status == BND_OK) status = freeze(r, graph);
  if (status == BND_OK) status = bnd_run_write_files(r, graph);
  if (status == BND_OK && !aligned_done) status = bnd_run_measure(r, "aligned", graph, BND_EXEC_FAKE_QUANTIZE);
  bnd_graph_destroy(graph);
  return status;
}

static bnd_status finish(bnd_quantize_run *r) {
  char path[4096];
  for (int i = 0; i < r->state.stage_count; i++) /* in the order in which they were finished */
    r->result->stages[r->result->stage_count++] = r->state.stages[i];
  BND_TRY(bnd_run_path(r, "results.json", path));
  BND_TRY(bnd_write_results(path, r->options->command, r->result, r->options->qat && !bnd_recipe_is_best(r->options) ? &r->qat : NULL, r->error));
  for (int i = 0; i < r->result->stage_count; i++) {
    const bnd_stage_result *s = &r->result->stages[i];
    bnd_string_format(&r->log, "%-8s", s->name);
    if (s->evaluated) bnd_string_format(&r->log, "  mAP@0.50 %.4f  mAP@0.50:0.95 %.4f", s->map50, s->map50_95);
    bnd_string_format(&r->log, "  %.1f s  peak %.0f MiB\n", s->seconds, s->peak_rss_mib);
  }
  return bnd_run_write_text(r, "run.log", &r->log);
}

/* What the options say about single nodes, and what cannot be trained, is found before anything is computed, not after the first evaluations. */
static bnd_status check_options(bnd_quantize_run *r) {
  const bnd_quantize_options *o = r->options;
  if (bnd_recipe_is_best(o) || (!o->config && !o->quant_stub_count && !o->dequant_stub_count && !o->qat)) return BND_OK;
  bnd_graph *graph;
  BND_TRY(quantized_graph(r, &graph));
  const bnd_status status = o->qat && !bnd_recipe_is_best(o) ? bnd_qat_check(graph, r->error) : BND_OK;
  bnd_graph_destroy(graph);
  return status;
}

bnd_status bnd_quantize(const bnd_quantize_options *options, const bnd_context *context, bnd_quantize_result *result, bnd_error *error) {
  *result = (bnd_quantize_result){0};
  bnd_quantize_run r = {.options = options, .context = context, .result = result, .error = error};
  bnd_status status = open_run(&r);
  if (status == BND_OK) status = check_options(&r);
  if (status == BND_OK) status = float_stage(&r, "fp32", BND_YOLO_NAS_TRAIN, "fp32_training.onnx");
  if (status == BND_OK) status = float_stage(&r, "folded", BND_YOLO_NAS_FOLDED, "fp32_folded.onnx");
  if (status == BND_OK) status = bnd_recipe_is_best(options) ? bnd_best_stages(&r) : quantized_stages(&r);
  if (status == BND_OK) status = finish(&r);
  free_records(r.float_records, r.dataset.count);
  free_records(r.final_records, r.dataset.count);
  bnd_run_state_close(&r.state);
  bnd_qat_close(&r.qat);
  bnd_quantization_config_free(&r.config);
  bnd_dataset_close(&r.dataset);
  bnd_dataset_close(&r.calibration);
  bnd_model_close(r.model);
  bnd_string_free(&r.log);
  bnd_string_free(&r.class_names);
  return status;
}
