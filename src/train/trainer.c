#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/internal.h"

/* --- life --- */

static float *floats(size_t count) {
  return bnd_alloc_aligned(count ? count : 1, sizeof(float));
}

static double threshold_rate(const bnd_trainer_options *o) {
  const double usual = 1e4, most = 1e-2;
  if (o->threshold_rate != 0) return o->threshold_rate;
  return o->schedule.initial * usual > most ? most / o->schedule.initial : usual;
}

/* Parameters the optimizer moves, and everything the averages follow: those and the running statistics. */
static bnd_status list_arrays(bnd_trainer *t, bnd_error *error) {
  size_t parameter_count, statistic_count;
  const bnd_parameter *parameters = bnd_network_parameters(t->network, &parameter_count);
  const bnd_statistic *statistics = bnd_network_statistics(t->network, &statistic_count);
  const size_t most = parameter_count + statistic_count + 1;
  t->names = bnd_calloc(most, sizeof *t->names);
  t->values = bnd_calloc(most, sizeof *t->values);
  t->averages = bnd_calloc(most, sizeof *t->averages);
  t->backup = bnd_calloc(statistic_count + 1, sizeof *t->backup);
  t->shapes = bnd_calloc(most, sizeof *t->shapes);
  bnd_optimizer_parameter *trained = bnd_calloc(parameter_count + 1, sizeof *trained);
  bnd_status status = t->names && t->values && t->averages && t->backup && t->shapes && trained ? BND_OK : bnd_fail_memory(error, "training");
  for (size_t p = 0; p < parameter_count && status == BND_OK; p++) {
    if (t->options.skip_direct && parameters[p].direct) continue;
    trained[t->trained_count] = (bnd_optimizer_parameter){parameters[p].value, parameters[p].gradient, parameters[p].count,
                                                          parameters[p].shape.rank > 1 ? t->options.weight_decay : 0,
                                                          parameters[p].threshold ? threshold_rate(&t->options) : 1};
    t->names[t->trained_count] = parameters[p].name;
    t->shapes[t->trained_count] = parameters[p].shape;
    t->values[t->trained_count++] = (bnd_floats){parameters[p].value, parameters[p].count};
  }
  t->array_count = t->trained_count;
  for (size_t s = 0; s < statistic_count && status == BND_OK; s++) {
    t->names[t->array_count] = statistics[s].name;
    t->shapes[t->array_count] = BND_SHAPE((int64_t)statistics[s].count);
    t->values[t->array_count++] = (bnd_floats){statistics[s].value, statistics[s].count};
    t->backup[s] = floats(statistics[s].count);
    if (!t->backup[s]) status = bnd_fail_memory(error, "training");
  }
  if (status == BND_OK && t->trained_count == 0) status = bnd_fail(error, BND_ERROR_MODEL, "the network has nothing that can be trained");
  if (status == BND_OK) status = bnd_optimizer_create(&t->options.optimizer, trained, t->trained_count, &t->optimizer, error);
  free(trained);
  return status;
}

static bnd_status make_averages(bnd_trainer *t, bnd_error *error) {
  for (size_t i = 0; t->options.average && i < t->array_count; i++) {
    t->averages[i] = (bnd_floats){floats(t->values[i].count), t->values[i].count};
    if (!t->averages[i].values) return bnd_fail_memory(error, "moving averages");
    memcpy(t->averages[i].values, t->values[i].values, t->values[i].count * sizeof(float));
  }
  return BND_OK;
}

/* Points and strides of the anchors, as the loss wants them: levels of stride 8, 16, 32, rows of each (data-training-metrics 3). */
static bnd_status make_anchors(bnd_trainer *t, bnd_error *error) {
  int width, height;
  bnd_loader_size(t->loader, &width, &height);
  size_t count = 0;
  for (int stride = 8; stride <= 32; stride *= 2) count += (size_t)(width / stride) * (size_t)(height / stride);
  const bnd_shape *classes = bnd_network_output_shape(t->network, t->options.class_output),
                  *boxes = bnd_network_output_shape(t->network, t->options.box_output);
  if (!classes || !boxes || classes->rank != 3 || boxes->rank != 3 || (size_t)classes->size[1] != count || (size_t)boxes->size[1] != count ||
      classes->size[2] != t->options.classes || boxes->size[2] != 4 * (t->options.reg_max + 1))
    return bnd_fail(error, BND_ERROR_MODEL, "the network's raw outputs are not class logits and box distributions of %zu anchors", count);
  t->anchors = count;
  t->points = floats(count * 3);
  if (!t->points) return bnd_fail_memory(error, "training");
  t->strides = t->points + 2 * count;
  size_t at = 0;
  for (int stride = 8; stride <= 32; stride *= 2)
    for (int y = 0; y < height / stride; y++)
      for (int x = 0; x < width / stride; x++, at++) {
        t->points[2 * at] = ((float)x + 0.5f) * (float)stride;
        t->points[2 * at + 1] = ((float)y + 0.5f) * (float)stride;
        t->strides[at] = (float)stride;
      }
  return BND_OK;
}

static bnd_status make_batch(bnd_trainer *t, bnd_error *error) {
  int width, height;
  bnd_loader_size(t->loader, &width, &height);
  const size_t batch = (size_t)t->options.batch;
  t->input_count = 3 * (size_t)width * (size_t)height;
  t->inputs = bnd_calloc(batch, sizeof *t->inputs);
  t->targets = bnd_calloc(batch, sizeof *t->targets);
  t->loss_images = bnd_calloc(batch, sizeof *t->loss_images);
  if (!t->inputs || !t->targets || !t->loss_images) return bnd_fail_memory(error, "training");
  for (size_t i = 0; i < batch; i++) {
    t->inputs[i] = floats(t->input_count);
    if (!t->inputs[i]) return bnd_fail_memory(error, "training");
  }
  return BND_OK;
}

static bnd_status count_steps(bnd_trainer *t, bnd_error *error) {
  size_t batches;
  BND_TRY(bnd_loader_batches(t->loader, (size_t)t->options.batch * (size_t)t->options.accumulate, &batches, error));
  t->steps_per_epoch = batches;
  t->options.schedule.batches_per_epoch = batches;
  return bnd_schedule_check(&t->options.schedule, error);
}

bnd_status bnd_trainer_create(bnd_network *network, const bnd_loader *loader, const bnd_trainer_options *options, bnd_trainer **result,
                              bnd_error *error) {
  *result = NULL;
  bnd_trainer *t = bnd_calloc(1, sizeof *t);
  if (!t) return bnd_fail_memory(error, "training");
  t->network = network;
  t->loader = loader;
  t->options = *options;
  if (t->options.accumulate < 1) t->options.accumulate = 1;
  bnd_status status = count_steps(t, error);
  if (status == BND_OK) status = list_arrays(t, error);
  if (status == BND_OK) status = make_averages(t, error);
  if (status == BND_OK) status = make_anchors(t, error);
  if (status == BND_OK) status = make_batch(t, error);
  if (status == BND_OK) status = bnd_backup_create(t, error);
  if (status != BND_OK) {
    bnd_trainer_destroy(t);
    return status;
  }
  bnd_network_set_mode(network, options->mode);
  *result = t;
  return BND_OK;
}

void bnd_trainer_destroy(bnd_trainer *t) {
  if (!t) return;
  size_t statistic_count;
  bnd_network_statistics(t->network, &statistic_count);
  for (size_t i = 0; t->averages && i < t->array_count; i++) free(t->averages[i].values);
  for (size_t s = 0; t->backup && s < statistic_count; s++) free(t->backup[s]);
  for (int i = 0; i < t->options.batch; i++) {
    if (t->inputs) free(t->inputs[i]);
    if (t->targets) bnd_targets_free(&t->targets[i]);
  }
  bnd_backup_destroy(t);
  bnd_optimizer_destroy(t->optimizer);
  free(t->names);
  free(t->shapes);
  free(t->values);
  free(t->averages);
  free(t->backup);
  free(t->points);
  free(t->inputs);
  free(t->targets);
  free(t->loss_images);
  free(t);
}

/* --- questions --- */

uint64_t bnd_trainer_steps_per_epoch(const bnd_trainer *t) {
  return t->steps_per_epoch;
}

uint64_t bnd_trainer_steps(const bnd_trainer *t) {
  return t->steps_per_epoch * t->options.schedule.epochs;
}

uint64_t bnd_trainer_done(const bnd_trainer *t) {
  return t->done;
}

size_t bnd_trainer_bytes(const bnd_trainer *t) {
  size_t arrays = 0, trained = 0;
  for (size_t i = 0; i < t->array_count; i++) {
    arrays += t->values[i].count;
    if (i < t->trained_count) trained += t->values[i].count;
  }
  const size_t copies = t->options.average ? 2 : 1, moments = t->options.optimizer.kind == BND_ADAMW ? 2 : 1;
  return bnd_network_bytes(t->network) + (arrays * copies + trained * moments + t->input_count * (size_t)t->options.batch) * sizeof(float);
}

/* --- a step --- */

static bool stop(void *user) {
  return bnd_is_cancelled(user);
}

static bnd_status load_batch(bnd_trainer *t, uint64_t batch_index, const bnd_context *context, bnd_error *error) {
  const uint64_t per_epoch = t->steps_per_epoch * (uint64_t)t->options.accumulate;
  const uint32_t epoch = (uint32_t)(batch_index / per_epoch);
  const size_t first = (size_t)(batch_index % per_epoch) * (size_t)t->options.batch;
  bnd_status result = BND_OK;
  int failed = t->options.batch;
  if (bnd_is_cancelled(context)) return bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted");
#pragma omp parallel for schedule(dynamic, 1) num_threads(t->options.threads) if (t->options.threads > 1)
  for (int i = 0; i < t->options.batch; i++) {
    bnd_error own = {0};
    bnd_targets_free(&t->targets[i]);
    const bnd_status status = bnd_loader_load(t->loader, epoch, first + (size_t)i, t->inputs[i], &t->targets[i], &own);
    if (status == BND_OK) continue;
#pragma omp critical(bnd_trainer_failure)
    if (i < failed) {
      failed = i;
      result = status;
      if (error) *error = own;
    }
  }
  return result;
}

static bnd_status run_batch(bnd_trainer *t, const bnd_context *context, bnd_loss_parts *parts, bnd_error *error) {
  const bnd_trainer_options *o = &t->options;
  BND_TRY(bnd_network_forward(t->network, (const float *const *)t->inputs, stop, (void *)context, error));
  for (int i = 0; i < o->batch; i++)
    t->loss_images[i] = (bnd_loss_image){.class_logits = bnd_network_output(t->network, o->class_output, i),
                                         .box_logits = bnd_network_output(t->network, o->box_output, i),
                                         .targets = t->targets[i].rows,
                                         .target_count = t->targets[i].count,
                                         .class_gradient = bnd_network_output_gradient(t->network, o->class_output, i),
                                         .box_gradient = bnd_network_output_gradient(t->network, o->box_output, i)};
  const bnd_loss_options loss = {.classes = o->classes, .reg_max = o->reg_max};
  BND_TRY(bnd_yolo_loss(&loss, t->points, t->strides, t->anchors, t->loss_images, (size_t)o->batch, o->threads, parts, error));
  return bnd_network_backward(t->network, stop, (void *)context, error);
}

static void add_parts(bnd_loss_parts *sum, const bnd_loss_parts *parts, double share) {
  sum->classification += parts->classification * share;
  sum->iou += parts->iou * share;
  sum->dfl += parts->dfl * share;
  sum->total += parts->total * share;
  sum->positives += parts->positives;
  sum->score_sum += parts->score_sum;
}

/* Everything before the update. */
static bnd_status gather(bnd_trainer *t, const bnd_context *context, bnd_step_report *report, bnd_error *error) {
  const int accumulate = t->options.accumulate;
  bnd_network_zero_gradients(t->network);
  for (int a = 0; a < accumulate; a++) {
    bnd_loss_parts parts;
    BND_TRY(load_batch(t, t->done * (uint64_t)accumulate + (uint64_t)a, context, error));
    BND_TRY(run_batch(t, context, &parts, error));
    add_parts(&report->loss, &parts, 1.0 / accumulate);
  }
  report->gradient_norm = bnd_gradient_norm(t->optimizer, t->options.threads);
  if (!isfinite(report->loss.total)) return bnd_fail(error, BND_ERROR_MODEL, "the loss is not finite");
  if (!isfinite(report->gradient_norm)) return bnd_fail(error, BND_ERROR_MODEL, "the gradients are not finite");
  return BND_OK;
}

bnd_status bnd_trainer_step(bnd_trainer *t, const bnd_context *context, bnd_step_report *report, bnd_error *error) {
  *report = (bnd_step_report){.learning_rate = bnd_schedule_rate(&t->options.schedule, t->done)};
  bnd_status status = bnd_backup_take(t, error);
  if (status == BND_OK) status = gather(t, context, report, error);
  if (status != BND_OK) {
    bnd_backup_put_back(t);
    if (status != BND_ERROR_MODEL) return status;
    return bnd_fail_prefix(error, status, "step %llu of %llu (learning rate %.3g)", (unsigned long long)t->done + 1,
                           (unsigned long long)bnd_trainer_steps(t), report->learning_rate);
  }
  bnd_optimizer_step(t->optimizer, report->learning_rate, bnd_clip_scale(report->gradient_norm, t->options.clip_norm), t->options.threads);
  t->done++;
  bnd_network_put_thresholds_in_force(t->network);
  if (t->options.average)
    bnd_average_update(t->averages, t->values, t->array_count, bnd_decay_at(&t->options.decay, t->done, bnd_trainer_steps(t)), t->options.threads);
  return BND_OK;
}

void bnd_trainer_swap_average(bnd_trainer *t) {
  for (size_t i = 0; t->options.average && i < t->array_count; i++)
    for (size_t k = 0; k < t->values[i].count; k++) {
      const float value = t->values[i].values[k];
      t->values[i].values[k] = t->averages[i].values[k];
      t->averages[i].values[k] = value;
    }
  bnd_network_put_thresholds_in_force(t->network);
}
