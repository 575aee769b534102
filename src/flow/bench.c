/* `binade bench`: how long each step of a forward pass takes, and what the machine could do at most. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "flow/model.h"
#include "kernels/onednn/onednn.h"
#include "kernels/peak.h"
#include "ops/operators.h"

typedef struct bench {
  const bnd_bench_options *options;
  const bnd_context *context;
  bnd_bench_result *result;
  bnd_graph *graph;
  bnd_exec_options exec;
  bnd_executor *executor;
  bnd_session *session;
  float **inputs;
  size_t input_count;
  double *times, *wall_times; /* by round */
} bench;

static bool is_cancelled(void *context) { return bnd_is_cancelled(context); }

static bnd_status interrupted(bnd_error *error) { return bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted during the measurement"); }

/* --- what runs --- */

/* A checkpoint's folded network, or an ONNX file as it is: also one that is no detector. */
static bnd_status open_graph(bench *b, const bnd_model *model, bnd_error *error) {
  int width, height;
  if (bnd_model_is_onnx(model) && bnd_model_class_count(model) == 0) {
    if (b->options->size) return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: is no detector; its size cannot be chosen", model->path);
    BND_TRY(bnd_graph_copy(model->graph, &b->graph, error));
  } else {
    BND_TRY(bnd_model_size(model, b->options->size, &width, &height, error));
    BND_TRY(bnd_model_detector(model, BND_YOLO_NAS_FOLDED, width, height, &b->graph, &b->exec.mode, error));
    b->exec.output_limit = 2;
    b->exec.non_negative_inputs = true;
    b->result->width = width;
    b->result->height = height;
  }
  for (const bnd_node *node = bnd_graph_first(b->graph); node; node = node->next)
    if (bnd_is_fake_quantize(node)) b->result->quantized = true;
  b->exec.mode = b->result->quantized ? BND_EXEC_FAKE_QUANTIZE : BND_EXEC_FLOAT;
  return BND_OK;
}

static bnd_status choose_executor(bench *b, const bnd_model *model, bnd_error *error) {
  bnd_executor_kind kind = b->options->executor;
  if (kind == BND_EXECUTOR_DEFAULT) kind = b->result->quantized ? BND_EXECUTOR_INT8 : BND_EXECUTOR_FAKEQUANT;
  if (kind == BND_EXECUTOR_INT8 && !b->result->quantized)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: has no quantizers, so nothing of it can run in int8; give the int8.onnx that 'binade quantize' made of it",
                    model->path);
  b->exec.backend = bnd_backend_of(kind, b->exec.mode);
  b->result->executor = kind;
  return BND_OK;
}

/* Bytes from 0 to 255 without a pattern, as shares of 255: images, as far as speed is concerned. */
static bnd_status draw_inputs(bench *b, bnd_error *error) {
  for (const bnd_node *node = bnd_graph_first(b->graph); node; node = node->next) b->input_count += node->kind == BND_PLACEHOLDER;
  b->inputs = bnd_calloc(b->input_count, sizeof *b->inputs);
  if (!b->inputs) return bnd_fail_memory(error, "the inputs");
  size_t index = 0;
  uint32_t state = 1;
  for (const bnd_node *node = bnd_graph_first(b->graph); node; node = node->next) {
    if (node->kind != BND_PLACEHOLDER) continue;
    size_t count;
    float *input = bnd_shape_count(&node->shape[0], &count) ? b->inputs[index++] = bnd_alloc_aligned(count ? count : 1, sizeof *input) : NULL;
    if (!input) return bnd_fail_memory(error, "the inputs");
    for (size_t i = 0; i < count; i++) {
      state = state * 1664525u + 1013904223u;
      input[i] = (float)(state >> 24) / 255.f;
    }
  }
  return BND_OK;
}

static bnd_status prepare(bench *b, const bnd_model *model, bnd_error *error) {
  const bnd_bench_options *o = b->options;
  bnd_bench_result *r = b->result;
  enum { ROUNDS = 20, REFERENCE_ROUNDS = 2, MOST = 1000000 };
  if (o->rounds < 0 || o->rounds > MOST || o->batch < 0 || o->batch > MOST)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "rounds and batch are numbers from 0 to %d", MOST);
  BND_TRY(open_graph(b, model, error));
  BND_TRY(choose_executor(b, model, error));
  r->rounds = o->rounds ? o->rounds : r->executor == BND_EXECUTOR_REFERENCE ? REFERENCE_ROUNDS : ROUNDS;
  r->batch = o->batch;
  r->threads = b->exec.threads = bnd_thread_count(b->context);
  r->processor_time = r->threads == 1;
  snprintf(r->library, sizeof r->library, "oneDNN %s", bnd_onednn_version());
  snprintf(r->instructions, sizeof r->instructions, "%s", bnd_onednn_instruction_set());
  BND_TRY(bnd_executor_create(b->graph, &b->exec, &b->executor, error));
  BND_TRY(bnd_session_create(b->executor, &b->session, error));
  bnd_session_set_stop(b->session, is_cancelled, (void *)(uintptr_t)b->context);
  BND_TRY(draw_inputs(b, error));
  b->times = bnd_calloc((size_t)r->rounds, sizeof *b->times);
  b->wall_times = bnd_calloc((size_t)r->rounds, sizeof *b->wall_times);
  return b->times && b->wall_times ? BND_OK : bnd_fail_memory(error, "the times");
}

/* --- forward passes --- */

static bnd_status forward(bench *b, bnd_session *session, bnd_error *error) {
  return bnd_session_run(session, (const float *const *)b->inputs, NULL, NULL, error);
}

static int compare_times(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Each round is one pass as a whole and one with every step timed, so that both see the same machine and neither pays for the other. */
static bnd_status measure_passes(bench *b, bnd_error *error) {
  bnd_bench_result *r = b->result;
  const clockid_t clock = r->processor_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  BND_TRY(forward(b, b->session, error)); /* warms up */
  for (int i = 0; i < r->rounds; i++) {
    bnd_session_set_timing(b->session, false);
    const double start = bnd_clock_seconds(clock), wall_start = bnd_clock_seconds(CLOCK_MONOTONIC);
    BND_TRY(forward(b, b->session, error));
    b->times[i] = bnd_clock_seconds(clock) - start;
    b->wall_times[i] = bnd_clock_seconds(CLOCK_MONOTONIC) - wall_start;
    bnd_session_set_timing(b->session, true);
    BND_TRY(forward(b, b->session, error));
    bnd_report_progress(b->context, "measurement", "rounds", (uint64_t)i + 1, (uint64_t)r->rounds);
  }
  qsort(b->times, (size_t)r->rounds, sizeof *b->times, compare_times);
  qsort(b->wall_times, (size_t)r->rounds, sizeof *b->wall_times, compare_times);
  r->seconds = b->times[0];
  r->median_seconds = b->times[r->rounds / 2];
  r->wall_seconds = b->wall_times[0];
  return BND_OK;
}

typedef struct workers {
  bnd_session **sessions;
  int count;
} workers;

static bnd_status run_batch(bench *b, const workers *w, bnd_error *error) {
  bnd_status status = BND_OK;
#pragma omp parallel for schedule(dynamic, 1) num_threads(w->count)
  for (int image = 0; image < b->result->batch; image++) {
    bnd_status before;
    bnd_error mine = {0};
#pragma omp atomic read
    before = status;
    if (before != BND_OK) continue;
    /* a worker's session is never shared: one image at a time on each thread */
    const bnd_status now = forward(b, w->sessions[omp_get_thread_num()], &mine);
    if (now != BND_OK) {
#pragma omp critical(bnd_bench_failure)
      if (status == BND_OK) {
        if (error) *error = mine;
#pragma omp atomic write
        status = now;
      }
    }
  }
  return status;
}

/* As evaluation runs images: each on one thread, in a session of its own. */
static bnd_status measure_batch(bench *b, bnd_error *error) {
  bnd_bench_result *r = b->result;
  if (!r->batch) return BND_OK;
  workers w = {.count = r->threads < r->batch ? r->threads : r->batch};
  bnd_executor *executor = b->executor;
  bnd_exec_options exec = b->exec;
  exec.threads = 1;
  bnd_status status = BND_OK;
  if (r->threads > 1) status = bnd_executor_create(b->graph, &exec, &executor, error);
  if (status != BND_OK) return status;
  w.sessions = bnd_calloc((size_t)w.count, sizeof *w.sessions);
  if (!w.sessions) status = bnd_fail_memory(error, "the sessions");
  for (int i = 0; i < w.count && status == BND_OK; i++) {
    status = bnd_session_create(executor, &w.sessions[i], error);
    /* callbacks come from the calling thread only, which is the first worker */
    if (status == BND_OK && i == 0) bnd_session_set_stop(w.sessions[i], is_cancelled, (void *)(uintptr_t)b->context);
  }
  r->batch_seconds = INFINITY;
  for (int i = -1; i < r->rounds && status == BND_OK; i++) { /* the first warms up */
    const double start = bnd_clock_seconds(CLOCK_MONOTONIC);
    status = bnd_is_cancelled(b->context) ? interrupted(error) : run_batch(b, &w, error);
    if (i >= 0) r->batch_seconds = fmin(r->batch_seconds, bnd_clock_seconds(CLOCK_MONOTONIC) - start);
    if (i >= 0) bnd_report_progress(b->context, "measurement of a batch", "rounds", (uint64_t)i + 1, (uint64_t)r->rounds);
  }
  for (int i = 0; w.sessions && i < w.count; i++) bnd_session_destroy(w.sessions[i]);
  free(w.sessions);
  if (executor != b->executor) bnd_executor_destroy(executor);
  return status;
}

/* --- results --- */

static bool computes_nothing(const bnd_step_info *info) {
  static const char *const kernels[] = {"", "alias", "dead", "probe"};
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
    if (strcmp(info->kernel, kernels[i]) == 0) return true;
  return false;
}

static bool copy_text(char **copy, const char *text) { return (*copy = strdup(text ? text : "")) != NULL; }

static bool copy_shape(char **copy, const bnd_shape *shape) {
  char text[BND_SHAPE_TEXT];
  return copy_text(copy, shape->rank ? bnd_shape_text(shape, text) : "");
}

static bnd_status copy_layers(bench *b, bnd_error *error) {
  bnd_bench_result *r = b->result;
  const int steps = bnd_executor_step_count(b->executor);
  r->layers = bnd_calloc((size_t)steps, sizeof *r->layers);
  if (!r->layers) return bnd_fail_memory(error, "the layers");
  for (int s = 0; s < steps; s++) {
    bnd_step_info info;
    bnd_executor_step_info(b->executor, b->session, s, &info);
    if (computes_nothing(&info)) continue;
    bnd_bench_layer *layer = &r->layers[r->layer_count++];
    *layer = (bnd_bench_layer){.macs = info.operations, .bytes = info.bytes, .convolution = info.convolution, .integer = info.integer, .seconds = info.seconds};
    for (int i = 0; i < 2; i++) {
      layer->window[i] = info.window[i];
      layer->stride[i] = info.stride[i];
    }
    if (!copy_text(&layer->name, info.name) || !copy_text(&layer->kernel, info.kernel) || !copy_text(&layer->reason, info.reason) ||
        !copy_shape(&layer->input, &info.input) || !copy_shape(&layer->output, &info.output))
      return bnd_fail_memory(error, "the layers");
  }
  return BND_OK;
}

/* The loop's figure, or that of the fastest layer where the processor can do more than the loop knows (AMX), or was disturbed while the loop ran. */
static void find_peak(bnd_bench_result *r, const bnd_peak_loop *loop, bool integer, bnd_bench_peak *peak) {
  peak->macs = bnd_peak_measure(loop, r->threads);
  snprintf(peak->name, sizeof peak->name, "%s loop", loop->name);
  for (size_t i = 0; i < r->layer_count; i++) {
    const bnd_bench_layer *layer = &r->layers[i];
    if (layer->integer != integer || !(layer->seconds > 0) || !(layer->macs / layer->seconds > peak->macs)) continue;
    peak->macs = layer->macs / layer->seconds;
    snprintf(peak->name, sizeof peak->name, "its fastest layer");
  }
}

static void find_peaks(bnd_bench_result *r) {
  const bnd_peak_loop float_loop = bnd_peak_float(), bytes_loop = bnd_peak_bytes();
  find_peak(r, &float_loop, false, &r->float_peak);
  find_peak(r, &bytes_loop, true, &r->integer_peak);
}

bnd_status bnd_bench(const bnd_model *model, const bnd_bench_options *options, const bnd_context *context, bnd_bench_result *result, bnd_error *error) {
  *result = (bnd_bench_result){0};
  bench b = {.options = options, .context = context, .result = result};
  bnd_status status = prepare(&b, model, error);
  if (status == BND_OK) status = measure_passes(&b, error);
  if (status == BND_OK) status = copy_layers(&b, error);
  if (status == BND_OK) {
    find_peaks(result);
    result->arena_bytes = bnd_executor_arena_bytes(b.executor);
    result->weight_bytes = bnd_executor_weight_bytes(b.executor);
    result->peak_rss_mib = bnd_peak_rss_mib(); /* before a batch needs more */
    status = measure_batch(&b, error);
  }
  if (status == BND_ERROR_INTERRUPTED) interrupted(error);
  bnd_session_destroy(b.session);
  bnd_executor_destroy(b.executor);
  bnd_graph_destroy(b.graph);
  for (size_t i = 0; b.inputs && i < b.input_count; i++) free(b.inputs[i]);
  free(b.inputs);
  free(b.times);
  free(b.wall_times);
  if (status != BND_OK) bnd_bench_free(result);
  return status;
}

void bnd_bench_free(bnd_bench_result *result) {
  for (size_t i = 0; i < result->layer_count; i++) {
    bnd_bench_layer *layer = &result->layers[i];
    free(layer->name);
    free(layer->kernel);
    free(layer->reason);
    free(layer->input);
    free(layer->output);
  }
  free(result->layers);
  *result = (bnd_bench_result){0};
}
