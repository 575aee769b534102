#include "refine/reconstruct.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "ops/operators.h"
#include "refine/reconstruct_samples.h"
#include "refine/trainable.h"

enum { CHECKS = 6, PATIENCE = 3, JUDGES = 16, MOST_BATCH = 64, RANDOM_PURPOSE = 0x5ec0 };

typedef struct reconstruction {
  bnd_refinement *work;
  bnd_reconstruct_options options;
  bnd_error *error;
  bnd_string *report;

  /* of the block at hand */
  const bnd_block *block;
  size_t index, count;
  bnd_graph *graph;
  bnd_network *network;
  bnd_trainable trainable;
  bnd_samples samples, judges;
  double *weight;  /* by output: 1 / mean square of its targets */
  double *losses;  /* by image of the batch */
  float **inputs;  /* of the batch, [image][input] */
  int batch, steps;
  struct timespec begin;     /* of it all */
  double until, collecting;  /* seconds since then: end of the block's time; seconds that collecting the last block's images took */
} reconstruction;

static bool stop(void *user) {
  return bnd_is_cancelled(user);
}

/* --- its time, where there is a limit --- */

static bool is_late(const reconstruction *r) { return r->work->minutes > 0 && bnd_seconds_since(&r->begin) > r->until; }

/* The block's part of what is left, by what it and those behind it cost. False: too little to be worth it. */
static bool share_time(reconstruction *r) {
  const double *harm = r->options.harm, passed = bnd_seconds_since(&r->begin), left = r->work->minutes * 60 - passed;
  double sum = 0;
  if (!(r->work->minutes > 0)) return true;
  for (size_t i = r->index; harm && i < r->count; i++) sum += harm[i];
  const double share = sum > 0 ? left * harm[r->index] / sum : left / (double)(r->count - r->index);
  r->until = passed + share;
  if (share > 2 * r->collecting && share > 0) return true;
  bnd_string_format(r->report, "block %zu of %zu: left as it is, its share of the time is too short\n", r->index + 1, r->count);
  return false;
}

static bnd_reconstruct_options with_defaults(const bnd_reconstruct_options *options) {
  bnd_reconstruct_options o = options ? *options : (bnd_reconstruct_options){0};
  if (o.most_convolutions < 1) o.most_convolutions = BND_BLOCK_CONVOLUTIONS;
  if (o.steps < 1) o.steps = 300;
  if (o.batch < 1) o.batch = 4;
  if (!(o.learning_rate > 0)) o.learning_rate = 0.05;
  if (!(o.threshold_rate > 0)) o.threshold_rate = 0.2;
  if (o.memory == 0) o.memory = (size_t)1 << 30;
  return o;
}

/* --- the block's error --- */

/* sum of (y - t)^2, weighted; the gradient of the batch's mean error where one is wanted. */
static double compare(const float *y, const float *t, float *gradient, size_t count, double weight, double share) {
  const float factor = (float)(2 * weight * share);
  double sum[8] = {0}, total = 0;
  for (size_t i = 0; i < count; i++) {
    const float difference = y[i] - t[i];
    sum[i % 8] += (double)difference * (double)difference;
    if (gradient) gradient[i] = difference * factor;
  }
  for (int k = 0; k < 8; k++) total += sum[k];
  return total * weight * share;
}

/* Images images[0 .. batch) of the samples through the block; the mean error over them and its outputs. */
static bnd_status run(reconstruction *r, const bnd_samples *samples, const size_t *images, bool gradients, double *loss) {
  const int inputs = samples->input_count, outputs = samples->target_count, threads = bnd_thread_count(r->work->context);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int i = 0; i < r->batch * inputs; i++) bnd_samples_input(samples, i % inputs, images[i / inputs], r->inputs[i]);
  BND_TRY(bnd_network_forward(r->network, (const float *const *)r->inputs, stop, (void *)r->work->context, r->error));
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int i = 0; i < r->batch; i++) {
    r->losses[i] = 0;
    for (int o = 0; o < outputs; o++)
      r->losses[i] += compare(bnd_network_output(r->network, o, i), bnd_samples_target(samples, o, images[i]),
                              gradients ? bnd_network_output_gradient(r->network, o, i) : NULL, samples->targets[o].size, r->weight[o],
                              1.0 / ((double)r->batch * outputs * (double)samples->targets[o].size));
  }
  *loss = 0;
  for (int i = 0; i < r->batch; i++) *loss += r->losses[i];
  if (!isfinite(*loss)) return bnd_fail(r->error, BND_ERROR_MODEL, "reconstruction: block %zu: its error is not finite", r->index + 1);
  return BND_OK;
}

/* Over the images that judge; the last batch may see some of them twice. */
static bnd_status judge(reconstruction *r, double *loss) {
  size_t images[MOST_BATCH];
  const size_t count = r->judges.count;
  double sum = 0;
  size_t batches = 0;
  for (size_t begin = 0; begin < count; begin += (size_t)r->batch, batches++) {
    double own;
    for (int i = 0; i < r->batch; i++) images[i] = (begin + (size_t)i) % count;
    BND_TRY(run(r, &r->judges, images, false, &own));
    sum += own;
  }
  *loss = sum / (double)batches;
  return BND_OK;
}

static void weigh_outputs(reconstruction *r) {
  for (int o = 0; o < r->samples.target_count; o++) {
    const bnd_sample_series *series = &r->samples.targets[o];
    double sum = 0;
    for (size_t image = 0; image < r->samples.count; image++) {
      const float *values = series->values + image * series->size;
      double own = 0;
      for (size_t i = 0; i < series->size; i++) own += (double)values[i] * (double)values[i];
      sum += own / (double)series->size;
    }
    r->weight[o] = sum > 0 ? (double)r->samples.count / sum : 1;
  }
}

/* --- training a block --- */

/* Step `step` sees images [step * batch, ...) of an endless row of shuffled passes. */
static void draw(const reconstruction *r, int step, size_t *images) {
  const size_t count = r->samples.count;
  for (int i = 0; i < r->batch; i++) {
    const size_t at = (size_t)step * (size_t)r->batch + (size_t)i;
    const bnd_random order = bnd_random_stream(r->work->seed, (uint32_t)(at / count), (uint32_t)r->index, RANDOM_PURPOSE);
    images[i] = (size_t)bnd_random_permuted(&order, count, at % count);
  }
}

static double rate_at(const reconstruction *r, int step) {
  return r->options.learning_rate * bnd_cosine_share(step, r->steps);
}

static bnd_status train_step(reconstruction *r, int step) {
  size_t images[MOST_BATCH];
  double loss;
  draw(r, step, images);
  BND_TRY(run(r, &r->samples, images, true, &loss));
  bnd_network_zero_gradients(r->network);
  BND_TRY(bnd_network_backward(r->network, stop, (void *)r->work->context, r->error));
  const int threads = bnd_thread_count(r->work->context);
  if (!isfinite(bnd_gradient_norm(r->trainable.optimizer, threads)))
    return bnd_fail(r->error, BND_ERROR_MODEL, "reconstruction: block %zu: its gradients are not finite", r->index + 1);
  bnd_optimizer_step(r->trainable.optimizer, rate_at(r, step), 1, threads);
  return BND_OK;
}

static bnd_status train(reconstruction *r, double *before, double *after, int *done) {
  BND_TRY(judge(r, before));
  *after = *before;
  int without = 0;
  for (*done = 0; *done < r->steps && without < PATIENCE && !is_late(r);) {
    const int until = *done + (r->steps + CHECKS - 1) / CHECKS;
    for (; *done < until && *done < r->steps && !is_late(r); (*done)++) BND_TRY(train_step(r, *done));
    double now;
    bnd_network_put_thresholds_in_force(r->network);
    BND_TRY(judge(r, &now));
    without = now < *after ? 0 : without + 1;
    if (now >= *after) continue;
    *after = now;
    bnd_trainable_keep(&r->trainable);
  }
  bnd_trainable_restore(&r->trainable);
  return BND_OK;
}

/* --- a block's life --- */

/* Bytes an image takes while the block is trained: values and gradients. The same for any number of threads. */
static size_t training_bytes(const bnd_graph *graph) {
  size_t bytes = 0, count;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->kind != BND_OUTPUT && node->kind != BND_GET_ATTR && bnd_shape_count(&node->shape[0], &count)) bytes += count * 2 * sizeof(float);
  return bytes;
}

static bnd_status make_network(reconstruction *r) {
  int *outputs = bnd_calloc((size_t)r->block->output_count, sizeof *outputs);
  if (!outputs) return bnd_fail_memory(r->error, "a block");
  for (int o = 0; o < r->block->output_count; o++) outputs[o] = o;
  const bnd_network_options options = {.batch = r->batch,
                                       .threads = bnd_thread_count(r->work->context),
                                       .quantize = true,
                                       .backend = r->work->backend,
                                       .gradient_outputs = outputs,
                                       .gradient_output_count = r->block->output_count,
                                       .learn_thresholds = r->options.learn_thresholds,
                                       .threshold_margin = 0.5f};
  bnd_status status = bnd_network_create(r->graph, &options, &r->network, r->error);
  free(outputs);
  if (status == BND_OK) status = bnd_trainable_create(r->graph, r->network, r->options.threshold_rate, &r->trainable, r->error);
  return status;
}

static bnd_status make_room(reconstruction *r) {
  const size_t count = (size_t)r->batch * (size_t)r->block->input_count;
  r->weight = bnd_calloc((size_t)r->block->output_count, sizeof *r->weight);
  r->losses = bnd_calloc((size_t)r->batch, sizeof *r->losses);
  r->inputs = bnd_calloc(count, sizeof *r->inputs);
  if (!r->weight || !r->losses || !r->inputs) return bnd_fail_memory(r->error, "a block");
  for (size_t i = 0; i < count; i++) {
    r->inputs[i] = bnd_alloc_aligned(r->samples.inputs[i % (size_t)r->block->input_count].size, sizeof **r->inputs);
    if (!r->inputs[i]) return bnd_fail_memory(r->error, "a block");
  }
  return BND_OK;
}

/* The images of a source from one on. */
typedef struct tail {
  const bnd_image_source *source;
  size_t first;
} tail;

static bnd_status load_tail(void *user, size_t index, float *input, bnd_error *error) {
  const tail *t = user;
  return t->source->load(t->source->user, t->first + index, input, error);
}

static size_t from_one_to(size_t limit, size_t count) {
  return count < 1 ? 1 : count < limit ? count : limit;
}

/* Images and batch so that everything fits into the memory allowed. */
static bnd_status collect(reconstruction *r) {
  const bnd_refinement *work = r->work;
  const size_t step = training_bytes(r->graph), each = bnd_samples_bytes(r->block) + 1, half = r->options.memory / 2;
  r->batch = r->options.batch < MOST_BATCH ? r->options.batch : MOST_BATCH;
  while (r->batch > 1 && step * (size_t)r->batch > half) r->batch /= 2;
  size_t train = half / each * 7 / 8, judges = half / each / 8;
  const size_t count = work->images->count, held_out = work->held_out ? work->held_out->count : 0;
  tail last = {work->images, count - (count + 7) / 8};
  const bnd_image_source own = {.user = &last, .count = count - last.first, .input_size = work->images->input_size, .load = load_tail};
  const bnd_image_source *judging = held_out ? work->held_out : &own;
  judges = from_one_to(from_one_to(JUDGES, judging->count), judges);
  train = from_one_to(held_out || count < 2 ? count : last.first, train);
  BND_TRY(bnd_samples_collect(work, r->block, work->images, train, &r->samples, r->error));
  return bnd_samples_collect(work, r->block, judging, judges, &r->judges, r->error);
}

static void describe(reconstruction *r, double before, double after, int done) {
  const size_t bytes = bnd_samples_bytes(r->block) * (r->samples.count + r->judges.count) + bnd_network_bytes(r->network);
  bnd_string_format(r->report, "block %zu of %zu (%s to %s, %d convolutions): error %.3e -> %.3e in %d steps of %d, %zu images\n", r->index + 1, r->count,
                    r->block->inputs[0]->name, r->block->outputs[r->block->output_count - 1]->name, r->block->convolutions, before, after, done,
                    r->batch, r->samples.count);
  bnd_log(r->work->context, BND_LOG_DEBUG, "reconstruction: block %zu of %zu: %zu MiB, error %.3e -> %.3e", r->index + 1, r->count, bytes >> 20,
          before, after);
}

static bnd_status reconstruct(reconstruction *r) {
  double before, after;
  int done;
  r->steps = r->options.steps;
  BND_TRY(bnd_block_graph(r->work->graph, r->block->inputs, r->block->input_count, r->block->outputs, r->block->output_count, &r->graph, r->error));
  BND_TRY(bnd_trainable_detach(r->graph, r->error));
  const double before_images = bnd_seconds_since(&r->begin);
  BND_TRY(collect(r));
  r->collecting = bnd_seconds_since(&r->begin) - before_images;
  BND_TRY(make_network(r));
  BND_TRY(make_room(r));
  weigh_outputs(r);
  BND_TRY(train(r, &before, &after, &done));
  describe(r, before, after, done);
  bnd_trainable_hand_back(r->graph, r->work->graph);
  return BND_OK;
}

static void release(reconstruction *r) {
  for (size_t i = 0; r->inputs && i < (size_t)r->batch * (size_t)r->block->input_count; i++) free(r->inputs[i]);
  free(r->inputs);
  free(r->weight);
  free(r->losses);
  bnd_samples_free(&r->samples);
  bnd_samples_free(&r->judges);
  bnd_trainable_destroy(&r->trainable);
  bnd_network_destroy(r->network);
  bnd_graph_destroy(r->graph);
  r->inputs = NULL;
  r->weight = r->losses = NULL;
  r->network = NULL;
  r->graph = NULL;
}

bnd_status bnd_refine_reconstruct(bnd_refinement *work, const bnd_reconstruct_options *options, bnd_string *report, bnd_error *error) {
  reconstruction r = {.work = work, .options = with_defaults(options), .error = error, .report = report};
  bnd_block_list blocks;
  if (work->images->count == 0) return bnd_fail(error, BND_ERROR_ARGUMENT, "reconstruction needs images");
  BND_TRY(bnd_blocks_find(work->graph, r.options.most_convolutions, &blocks, error));
  r.count = blocks.count;
  clock_gettime(CLOCK_MONOTONIC, &r.begin);
  bnd_status status = BND_OK;
  for (r.index = r.options.first_block; r.index < blocks.count && status == BND_OK; r.index++) {
    bnd_report_progress(work->context, "reconstruction", "blocks", r.index, r.count);
    if (!share_time(&r)) continue;
    r.block = &blocks.items[r.index];
    status = reconstruct(&r);
    release(&r);
    if (status == BND_OK && r.options.finished) status = r.options.finished(r.options.user, r.index + 1, r.count, work->graph, error);
  }
  if (status == BND_OK) bnd_report_progress(work->context, "reconstruction", "blocks", r.index, r.count);
  bnd_blocks_free(&blocks);
  return status;
}
