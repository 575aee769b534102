#include "refine/distill.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/random.h"
#include "refine/distill_loss.h"
#include "refine/trainable.h"

enum { CHECKS = 6, JUDGES = 16, MOST_BATCH = 64, TRIAL = 3, RANDOM_PURPOSE = 0xd157 };

typedef struct distillation {
  bnd_refinement *work;
  bnd_distill_options options;
  bnd_error *error;
  int threads;
  bnd_graph *graph; /* the student */
  bnd_network *network;
  bnd_trainable trainable;
  bnd_executor *executor; /* of the teacher */
  bnd_session **sessions; /* by place in the batch */
  float **inputs;
  double *losses, *masses;
  int *outputs; /* those compared */
  int output_count;
  size_t anchors, classes, bins; /* 0: outputs without meaning */
  struct timespec begin;
} distillation;

static bool stop(void *user) {
  return bnd_is_cancelled(user);
}

static bnd_distill_options with_defaults(const bnd_distill_options *options) {
  bnd_distill_options o = options ? *options : (bnd_distill_options){0};
  if (!(o.box_weight > 0)) o.box_weight = 1.5;
  if (!(o.overlap_weight > 0)) o.overlap_weight = 10;
  if (o.steps < 1) o.steps = 600;
  if (o.batch < 1) o.batch = 4;
  if (o.batch > MOST_BATCH) o.batch = MOST_BATCH;
  if (!(o.learning_rate > 0)) o.learning_rate = 0.02;
  if (!(o.threshold_rate > 0)) o.threshold_rate = 0.1;
  return o;
}

/* --- images --- */

typedef struct place {
  size_t index;
  bool mirrored;
} place;

/* A width of rows mirrored in place: [..., width]. */
static void mirror(float *input, size_t count, size_t width) {
  for (size_t row = 0; row + width <= count; row += width)
    for (size_t x = 0; x < width / 2; x++) {
      const float left = input[row + x];
      input[row + x] = input[row + width - 1 - x];
      input[row + width - 1 - x] = left;
    }
}

static size_t width_of(const bnd_graph *graph) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->kind == BND_PLACEHOLDER) return node->shape[0].rank == 4 ? (size_t)node->shape[0].size[3] : 0;
  return 0;
}

/* Image `i` of the batch: loaded, and through the teacher. */
static bnd_status prepare_image(distillation *d, const bnd_image_source *source, const place *at, int i, bnd_error *error) {
  BND_TRY(source->load(source->user, at->index, d->inputs[i], error));
  if (at->mirrored) mirror(d->inputs[i], source->input_size, width_of(d->graph));
  const float *const inputs[] = {d->inputs[i]};
  BND_TRY(bnd_session_run(d->sessions[i], inputs, NULL, NULL, error));
  d->masses[i] = d->anchors ? bnd_distill_mass(bnd_session_output(d->sessions[i], d->outputs[0]), d->anchors, d->classes) : 0;
  return BND_OK;
}

static bnd_status prepare_batch(distillation *d, const bnd_image_source *source, const place *places) {
  bnd_status result = BND_OK;
  int failed = d->options.batch;
#pragma omp parallel for schedule(dynamic, 1) num_threads(d->threads) if (d->threads > 1)
  for (int i = 0; i < d->options.batch; i++) {
    bnd_error own = {0};
    const bnd_status status = prepare_image(d, source, &places[i], i, &own);
    if (status == BND_OK) continue;
#pragma omp critical(bnd_distill_failure)
    if (i < failed) {
      failed = i;
      result = status;
      if (d->error) *d->error = own;
    }
  }
  return result;
}

/* --- the loss --- */

static double compare_image(distillation *d, int i, double mass, bool gradients) {
  const float *t[2], *s[2];
  float *g[2] = {NULL, NULL};
  double sum = 0;
  for (int o = 0; o < d->output_count; o++) {
    const float *teacher = bnd_session_output(d->sessions[i], d->outputs[o]), *student = bnd_network_output(d->network, d->outputs[o], i);
    float *gradient = gradients ? bnd_network_output_gradient(d->network, d->outputs[o], i) : NULL;
    if (d->anchors) {
      t[o] = teacher, s[o] = student, g[o] = gradient;
      continue;
    }
    size_t count = 0;
    bnd_shape_count(bnd_network_output_shape(d->network, d->outputs[o]), &count);
    double squares = 0;
    for (size_t k = 0; k < count; k++) squares += (double)teacher[k] * (double)teacher[k];
    sum += bnd_distill_squares(teacher, student, count, 1 / ((squares + 1e-12) * d->options.batch * d->output_count), gradient);
  }
  if (!d->anchors) return sum;
  return bnd_distill_classes(t[0], s[0], d->anchors, d->classes, 1 / mass, g[0]) +
         bnd_distill_boxes(t[1], s[1], t[0], d->anchors, d->classes, d->bins, d->options.box_weight / mass, d->options.overlap_weight, g[1]);
}

static bnd_status run_batch(distillation *d, const bnd_image_source *source, const place *places, bool gradients, double *loss) {
  const bnd_context *context = d->work->context;
  if (bnd_is_cancelled(context)) return bnd_fail(d->error, BND_ERROR_INTERRUPTED, "interrupted during distillation");
  BND_TRY(prepare_batch(d, source, places));
  BND_TRY(bnd_network_forward(d->network, (const float *const *)d->inputs, stop, (void *)context, d->error));
  double mass = 0;
  for (int i = 0; i < d->options.batch; i++) mass += d->masses[i];
  if (mass < 1) mass = 1;
#pragma omp parallel for num_threads(d->threads) if (d->threads > 1)
  for (int i = 0; i < d->options.batch; i++) d->losses[i] = compare_image(d, i, mass, gradients);
  *loss = 0;
  for (int i = 0; i < d->options.batch; i++) *loss += d->losses[i];
  return isfinite(*loss) ? BND_OK : bnd_fail(d->error, BND_ERROR_MODEL, "distillation: the loss is not finite");
}

static bnd_status judge(distillation *d, double *loss) {
  const bnd_image_source *source = d->work->held_out;
  const size_t count = source->count < JUDGES ? source->count : JUDGES;
  size_t batches = 0;
  *loss = 0;
  for (size_t begin = 0; begin < count; begin += (size_t)d->options.batch, batches++) {
    place places[MOST_BATCH];
    double own;
    for (int i = 0; i < d->options.batch; i++) places[i] = (place){(begin + (size_t)i) % count, false};
    BND_TRY(run_batch(d, source, places, false, &own));
    *loss += own;
  }
  if (batches) *loss /= (double)batches;
  return BND_OK;
}

/* --- training --- */

static void draw(const distillation *d, int step, place *places) {
  const size_t count = d->work->images->count;
  for (int i = 0; i < d->options.batch; i++) {
    const size_t at = (size_t)step * (size_t)d->options.batch + (size_t)i;
    const bnd_random order = bnd_random_stream(d->work->seed, (uint32_t)(at / count), 0, RANDOM_PURPOSE);
    bnd_random coin = bnd_random_stream(d->work->seed, (uint32_t)(at / count), (uint32_t)(at % count) + 1, RANDOM_PURPOSE);
    places[i] = (place){(size_t)bnd_random_permuted(&order, count, at % count), !d->options.no_flips && bnd_random_chance(&coin, 0.5)};
  }
}

static bnd_status train_step(distillation *d, int step) {
  place places[MOST_BATCH];
  double loss;
  draw(d, step, places);
  BND_TRY(run_batch(d, d->work->images, places, true, &loss));
  bnd_network_zero_gradients(d->network);
  BND_TRY(bnd_network_backward(d->network, stop, (void *)d->work->context, d->error));
  if (!isfinite(bnd_gradient_norm(d->trainable.optimizer, d->threads)))
    return bnd_fail(d->error, BND_ERROR_MODEL, "distillation: step %d: the gradients are not finite", step + 1);
  const double rate = d->options.learning_rate * bnd_cosine_share(step, d->options.steps);
  bnd_optimizer_step(d->trainable.optimizer, rate, 1, d->threads);
  return BND_OK;
}

/* Under a budget: as many steps as fit, told from the first ones, so that the rate has fallen when it ends; and an end where they take longer than those.
   first: when the first step began; judging: seconds, which comes once more when the steps are over. */
static void fit_into_budget(distillation *d, int done, const struct timespec *first, double judging) {
  const double left = d->work->minutes * 60 - bnd_seconds_since(&d->begin) - judging, each = bnd_seconds_since(first) / done;
  if (!(d->work->minutes > 0)) return;
  if (done == TRIAL) d->options.steps = (int)fmin(d->options.steps, done + fmax(0, (left - (CHECKS - 1) * judging) / each));
  if (left <= 0) d->options.steps = done;
}

static bnd_status train(distillation *d, double *before, double *after) {
  struct timespec first;
  clock_gettime(CLOCK_MONOTONIC, &first);
  const bool judged = d->work->held_out && d->work->held_out->count > 0;
  *before = 0;
  if (judged) BND_TRY(judge(d, before));
  const double judging = bnd_seconds_since(&first);
  clock_gettime(CLOCK_MONOTONIC, &first);
  *after = *before;
  bnd_log(d->work->context, BND_LOG_DEBUG, "distillation: loss %.5f", *before);
  for (int done = 0, check = 1; done < d->options.steps; check++) {
    while (done < d->options.steps && done < ((int64_t)d->options.steps * check + CHECKS - 1) / CHECKS) {
      BND_TRY(train_step(d, done));
      fit_into_budget(d, ++done, &first, judging);
      bnd_report_progress(d->work->context, "distillation", "steps", (uint64_t)done, (uint64_t)d->options.steps);
    }
    double now = *before;
    if (judged) BND_TRY(judge(d, &now));
    bnd_log(d->work->context, BND_LOG_DEBUG, "distillation: %d steps: loss %.5f", done, now);
    if (judged && !(now < *after)) continue;
    *after = now;
    bnd_trainable_keep(&d->trainable);
  }
  bnd_trainable_restore(&d->trainable);
  return BND_OK;
}

/* --- life --- */

static bnd_status choose_outputs(distillation *d) {
  const int count = bnd_executor_output_count(d->executor);
  d->outputs = bnd_calloc((size_t)count + 2, sizeof *d->outputs);
  if (!d->outputs) return bnd_fail_memory(d->error, "distillation");
  if (d->options.class_output == 0 && d->options.box_output == 0) {
    for (int o = 0; o < count; o++) d->outputs[d->output_count++] = o;
    return BND_OK;
  }
  const int c = d->options.class_output, b = d->options.box_output;
  if (c < 0 || b < 0 || c >= count || b >= count) return bnd_fail(d->error, BND_ERROR_ARGUMENT, "distillation: the network has no outputs %d and %d", c, b);
  const bnd_shape *classes = bnd_executor_output_shape(d->executor, c), *boxes = bnd_executor_output_shape(d->executor, b);
  if (classes->rank != 3 || boxes->rank != 3 || classes->size[1] != boxes->size[1] || boxes->size[2] % 4 || boxes->size[2] < 4 ||
      boxes->size[2] > 1024 || classes->size[1] < 1 || classes->size[2] < 1)
    return bnd_fail(d->error, BND_ERROR_MODEL, "distillation: the network's raw outputs are not class logits and box distributions of the same anchors");
  d->outputs[d->output_count++] = c;
  d->outputs[d->output_count++] = b;
  d->anchors = (size_t)classes->size[1];
  d->classes = (size_t)classes->size[2];
  d->bins = (size_t)boxes->size[2] / 4;
  return BND_OK;
}

static bnd_status make_teacher(distillation *d) {
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .backend = d->work->backend, .threads = 1};
  BND_TRY(bnd_executor_create(d->work->teacher, &options, &d->executor, d->error));
  const size_t batch = (size_t)d->options.batch;
  d->sessions = bnd_calloc(batch, sizeof(bnd_session *));
  d->inputs = bnd_calloc(batch, sizeof *d->inputs);
  d->losses = bnd_calloc(batch, sizeof *d->losses);
  d->masses = bnd_calloc(batch, sizeof *d->masses);
  if (!d->sessions || !d->inputs || !d->losses || !d->masses) return bnd_fail_memory(d->error, "distillation");
  for (size_t i = 0; i < batch; i++) {
    BND_TRY(bnd_session_create(d->executor, &d->sessions[i], d->error));
    if (!(d->inputs[i] = bnd_alloc_aligned(d->work->images->input_size, sizeof **d->inputs))) return bnd_fail_memory(d->error, "distillation");
  }
  return BND_OK;
}

static bnd_status make_student(distillation *d) {
  BND_TRY(bnd_graph_copy(d->work->graph, &d->graph, d->error));
  BND_TRY(bnd_trainable_detach(d->graph, d->error));
  const bnd_network_options options = {.batch = d->options.batch,
                                       .threads = d->threads,
                                       .quantize = true,
                                       .backend = d->work->backend,
                                       .gradient_outputs = d->outputs,
                                       .gradient_output_count = d->output_count,
                                       .learn_thresholds = d->options.learn_thresholds,
                                       .threshold_margin = 0.5f};
  BND_TRY(bnd_network_create(d->graph, &options, &d->network, d->error));
  return bnd_trainable_create(d->graph, d->network, d->options.threshold_rate, &d->trainable, d->error);
}

static bnd_status distill(distillation *d, bnd_string *report) {
  double before, after;
  if (d->work->images->count == 0) return bnd_fail(d->error, BND_ERROR_ARGUMENT, "distillation needs images");
  BND_TRY(make_teacher(d));
  BND_TRY(choose_outputs(d));
  BND_TRY(make_student(d));
  bnd_log(d->work->context, BND_LOG_DEBUG, "distillation: %zu MiB", (bnd_network_bytes(d->network) + bnd_executor_arena_bytes(d->executor) * (size_t)d->options.batch) >> 20);
  BND_TRY(train(d, &before, &after));
  bnd_trainable_hand_back(d->graph, d->work->graph);
  bnd_string_format(report, "distillation: %d steps of %d images, loss on held-out images %.4e -> %.4e\n", d->options.steps, d->options.batch, before, after);
  return BND_OK;
}

static void release(distillation *d) {
  for (int i = 0; i < d->options.batch; i++) {
    if (d->sessions) bnd_session_destroy(d->sessions[i]);
    if (d->inputs) free(d->inputs[i]);
  }
  free(d->sessions);
  free(d->inputs);
  free(d->losses);
  free(d->masses);
  free(d->outputs);
  bnd_executor_destroy(d->executor);
  bnd_trainable_destroy(&d->trainable);
  bnd_network_destroy(d->network);
  bnd_graph_destroy(d->graph);
}

bnd_status bnd_refine_distill(bnd_refinement *work, const bnd_distill_options *options, bnd_string *report, bnd_error *error) {
  distillation d = {.work = work, .options = with_defaults(options), .error = error, .threads = bnd_thread_count(work->context)};
  clock_gettime(CLOCK_MONOTONIC, &d.begin);
  const bnd_status status = distill(&d, report);
  release(&d);
  return status;
}
