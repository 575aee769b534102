/* The files of a training run: its state, checkpoints, metrics. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "flow/training.h"
#include "formats/json/json.h"
#include "report/plot.h"

char *bnd_training_path(const bnd_training *t, const char *name) {
  const size_t length = strlen(t->o.output) + strlen(name) + 2;
  char *path = bnd_calloc(length, 1);
  if (path) snprintf(path, length, "%s/%s", t->o.output, name);
  return path;
}

static bnd_status write_checkpoint(const bnd_training *t, bnd_checkpoint_writer *writer, const char *name) {
  char *path = bnd_training_path(t, name);
  const bnd_status status = path && writer ? bnd_checkpoint_write(writer, path, t->error) : bnd_fail_memory(t->error, name);
  free(path);
  return status;
}

/* --- checkpoints --- */

static void put_state(bnd_checkpoint_writer *writer, const char *key, const bnd_yolo_nas_state *state) {
  bnd_checkpoint_begin_state_dict(writer, key);
  for (size_t i = 0; i < state->count; i++) bnd_checkpoint_put_tensor(writer, state->shapes[i].name, &state->tensors[i]);
  bnd_checkpoint_end(writer);
}

static void put_description(const bnd_training *t, bnd_checkpoint_writer *writer) {
  const bnd_epoch_row *row = t->row_count ? &t->rows[t->row_count - 1] : NULL;
  bnd_checkpoint_put_int(writer, "epoch", (int64_t)t->row_count);
  bnd_checkpoint_begin_dict(writer, "metrics");
  bnd_checkpoint_begin_dict(writer, "valid");
  if (row && isfinite(row->map50)) {
    bnd_checkpoint_put_float(writer, "mAP@0.50", row->map50);
    bnd_checkpoint_put_float(writer, "mAP@0.50:0.95", row->map50_95);
  }
  bnd_checkpoint_end(writer);
  bnd_checkpoint_end(writer);
  bnd_processing_params_write(writer, &t->classes, &t->preprocessing);
}

/* The graph's values into the state dicts: the network as it is, and its moving average. */
static bnd_status update_states(bnd_training *t) {
  const int64_t done = (int64_t)bnd_trainer_done(t->trainer) * t->o.accumulate;
  BND_TRY(bnd_yolo_nas_state_update(t->state, t->graph, t->o.frozen_batch_norm ? 0 : done - t->counted, t->error));
  t->counted = done;
  if (!t->average) return BND_OK;
  bnd_trainer_swap_average(t->trainer);
  const bnd_status status = bnd_yolo_nas_state_update(t->average, t->graph, 0, t->error);
  bnd_trainer_swap_average(t->trainer);
  return status;
}

bnd_status bnd_training_write_last(bnd_training *t) {
  BND_TRY(update_states(t));
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  if (!writer) return bnd_fail_memory(t->error, "last.pth");
  put_state(writer, "net", t->state);
  if (t->average) put_state(writer, "ema_net", t->average);
  put_description(t, writer);
  const bnd_status status = write_checkpoint(t, writer, "last.pth");
  bnd_checkpoint_writer_free(writer);
  return status;
}

static bnd_status write_single(bnd_training *t, const bnd_yolo_nas_state *state, const char *name) {
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  if (!writer) return bnd_fail_memory(t->error, name);
  put_state(writer, "net", state);
  put_description(t, writer);
  const bnd_status status = write_checkpoint(t, writer, name);
  bnd_checkpoint_writer_free(writer);
  return status;
}

bnd_status bnd_training_write_best(bnd_training *t) {
  return write_single(t, t->average ? t->average : t->state, "best.pth");
}

/* --- snapshots --- */

bnd_status bnd_training_arrays(const bnd_training *t, bnd_floats **result, size_t *count) {
  size_t parameter_count, statistic_count;
  const bnd_parameter *parameters = bnd_network_parameters(t->network, &parameter_count);
  const bnd_statistic *statistics = bnd_network_statistics(t->network, &statistic_count);
  bnd_floats *arrays = bnd_calloc(parameter_count + statistic_count, sizeof *arrays);
  if (!arrays) return bnd_fail_memory(t->error, "snapshots");
  for (size_t i = 0; i < parameter_count; i++) arrays[i] = (bnd_floats){parameters[i].value, parameters[i].count};
  for (size_t i = 0; i < statistic_count; i++) arrays[parameter_count + i] = (bnd_floats){statistics[i].value, statistics[i].count};
  *result = arrays;
  *count = parameter_count + statistic_count;
  return BND_OK;
}

/* The mean of the snapshots takes the graph's place for as long as it is copied. */
bnd_status bnd_training_write_average(bnd_training *t) {
  bnd_floats *arrays;
  size_t count;
  if (!t->snapshots || bnd_snapshots_count(t->snapshots) == 0) return BND_OK;
  BND_TRY(bnd_training_arrays(t, &arrays, &count));
  bnd_yolo_nas_state *mean = NULL;
  float **kept = bnd_calloc(count, sizeof *kept);
  bnd_status status = kept ? bnd_yolo_nas_state_copy(t->average ? t->average : t->state, &mean, t->error) : bnd_fail_memory(t->error, "snapshots");
  for (size_t i = 0; i < count && status == BND_OK; i++) {
    kept[i] = bnd_calloc(arrays[i].count, sizeof(float));
    if (kept[i])
      memcpy(kept[i], arrays[i].values, arrays[i].count * sizeof(float));
    else
      status = bnd_fail_memory(t->error, "snapshots");
  }
  if (status == BND_OK) {
    bnd_snapshots_average(t->snapshots, arrays);
    status = bnd_yolo_nas_state_update(mean, t->graph, 0, t->error);
    for (size_t i = 0; i < count; i++) memcpy(arrays[i].values, kept[i], arrays[i].count * sizeof(float));
  }
  if (status == BND_OK) status = write_single(t, mean, "average.pth");
  for (size_t i = 0; kept && i < count; i++) free(kept[i]);
  free(kept);
  free(arrays);
  bnd_yolo_nas_state_destroy(mean);
  return status;
}

static void put_snapshots(const bnd_training *t, bnd_checkpoint_writer *writer) {
  bnd_checkpoint_begin_list(writer, "snapshots");
  for (size_t s = 0; t->snapshots && s < bnd_snapshots_count(t->snapshots); s++) {
    const bnd_floats *arrays = bnd_snapshots_state(t->snapshots, s);
    size_t parameter_count, statistic_count;
    bnd_network_parameters(t->network, &parameter_count);
    bnd_network_statistics(t->network, &statistic_count);
    bnd_checkpoint_begin_list(writer, NULL);
    bnd_checkpoint_put_float(writer, NULL, bnd_snapshots_metric(t->snapshots, s));
    for (size_t i = 0; i < parameter_count + statistic_count; i++) {
      const bnd_tensor tensor = {.dtype = BND_F32, .shape = BND_SHAPE((int64_t)arrays[i].count), .count = arrays[i].count, .data = arrays[i].values};
      bnd_checkpoint_put_tensor(writer, NULL, &tensor);
    }
    bnd_checkpoint_end(writer);
  }
  bnd_checkpoint_end(writer);
}

static bnd_status resume_snapshot(bnd_training *t, bnd_checkpoint *file, const bnd_value *list, bnd_floats *arrays, size_t count) {
  double metric;
  if (list->kind != BND_VALUE_LIST || list->list.count != count + 1 || !bnd_value_number(list->list.items[0], &metric))
    return bnd_fail(t->error, BND_ERROR_MODEL, "its snapshots are of another network");
  bnd_tensor *tensors = bnd_calloc(count, sizeof *tensors);
  bnd_floats *loaded = bnd_calloc(count, sizeof *loaded);
  bnd_status status = tensors && loaded ? BND_OK : bnd_fail_memory(t->error, "snapshots");
  for (size_t i = 0; i < count && status == BND_OK; i++) {
    const bnd_value *value = list->list.items[i + 1];
    status = value->kind == BND_VALUE_TENSOR ? bnd_checkpoint_tensor(file, value, &tensors[i], t->error) : BND_ERROR_MODEL;
    if (status == BND_OK && (tensors[i].dtype != BND_F32 || tensors[i].count != arrays[i].count)) status = BND_ERROR_MODEL;
    if (status == BND_ERROR_MODEL) bnd_fail(t->error, status, "its snapshots are of another network");
    loaded[i] = (bnd_floats){tensors[i].data, tensors[i].count};
  }
  if (status == BND_OK) status = bnd_snapshots_offer(t->snapshots, metric, loaded, NULL, t->error);
  for (size_t i = 0; tensors && i < count; i++) bnd_tensor_release(&tensors[i]);
  free(tensors);
  free(loaded);
  return status;
}

static bnd_status resume_snapshots(bnd_training *t, bnd_checkpoint *file) {
  const bnd_value *list = bnd_value_get(bnd_checkpoint_root(file), "snapshots");
  if (!t->snapshots || !list || list->kind != BND_VALUE_LIST) return BND_OK;
  bnd_floats *arrays;
  size_t count;
  BND_TRY(bnd_training_arrays(t, &arrays, &count));
  bnd_status status = BND_OK;
  for (size_t s = 0; s < list->list.count && status == BND_OK; s++) status = resume_snapshot(t, file, list->list.items[s], arrays, count);
  free(arrays);
  return status;
}

/* --- state --- */

bnd_status bnd_training_save(bnd_training *t) {
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  if (!writer) return bnd_fail_memory(t->error, "state.pth");
  const bnd_tensor rows = {.dtype = BND_F64,
                           .shape = BND_SHAPE((int64_t)t->row_count, BND_EPOCH_NUMBERS),
                           .count = t->row_count * BND_EPOCH_NUMBERS,
                           .data = t->rows ? (void *)t->rows : (void *)&t->sums};
  const bnd_tensor sums = {.dtype = BND_F64, .shape = BND_SHAPE(BND_EPOCH_NUMBERS), .count = BND_EPOCH_NUMBERS, .data = &t->sums};
  bnd_checkpoint_put_text(writer, "run", t->run);
  bnd_checkpoint_put_tensor(writer, "epochs", &rows);
  bnd_checkpoint_put_tensor(writer, "epoch_sums", &sums);
  bnd_checkpoint_put_int(writer, "epoch_steps", (int64_t)t->summed);
  bnd_trainer_save(t->trainer, writer, "training");
  put_snapshots(t, writer);
  const bnd_status status = write_checkpoint(t, writer, "state.pth");
  bnd_checkpoint_writer_free(writer);
  return status;
}

static bnd_status read_doubles(const bnd_training *t, bnd_checkpoint *file, const char *key, size_t multiple, bnd_tensor *tensor) {
  const bnd_value *value = bnd_value_get(bnd_checkpoint_root(file), key);
  if (!value || value->kind != BND_VALUE_TENSOR) return bnd_fail(t->error, BND_ERROR_MODEL, "has no %s; it is not the state of a training run", key);
  BND_TRY(bnd_checkpoint_tensor(file, value, tensor, t->error));
  if (tensor->dtype == BND_F64 && tensor->count % multiple == 0) return BND_OK;
  return bnd_fail(t->error, BND_ERROR_MODEL, "%s has another shape or type", key);
}

static bnd_status resume_rows(bnd_training *t, bnd_checkpoint *file) {
  bnd_tensor rows = {0}, sums = {0};
  double steps;
  bnd_status status = read_doubles(t, file, "epochs", BND_EPOCH_NUMBERS, &rows);
  if (status == BND_OK) status = read_doubles(t, file, "epoch_sums", BND_EPOCH_NUMBERS, &sums);
  if (status == BND_OK &&
      (sums.count != BND_EPOCH_NUMBERS || !bnd_value_number(bnd_value_get(bnd_checkpoint_root(file), "epoch_steps"), &steps) || steps < 0))
    status = bnd_fail(t->error, BND_ERROR_MODEL, "its running epoch is damaged");
  const size_t count = rows.count / BND_EPOCH_NUMBERS;
  if (status == BND_OK && !BND_GROW(t->rows, t->row_capacity, count + 1)) status = bnd_fail_memory(t->error, "epochs");
  if (status == BND_OK) {
    if (count) memcpy(t->rows, rows.data, count * sizeof *t->rows);
    memcpy(&t->sums, sums.data, sizeof t->sums);
    t->row_count = count;
    t->summed = (uint64_t)steps;
  }
  bnd_tensor_release(&rows);
  bnd_tensor_release(&sums);
  return status;
}

static bnd_status resume_from(bnd_training *t, bnd_checkpoint *file) {
  const char *run = bnd_value_text(bnd_value_get(bnd_checkpoint_root(file), "run"));
  if (!run) return bnd_fail(t->error, BND_ERROR_MODEL, "is not the state of a training run");
  if (strcmp(run, t->run) != 0)
    return bnd_fail(t->error, BND_ERROR_ARGUMENT, "was made with other options or data; give the same ones, or --restart\n  there: %s\n  now:   %s",
                    run, t->run);
  BND_TRY(bnd_trainer_restore(t->trainer, file, "training", t->error));
  BND_TRY(resume_rows(t, file));
  return resume_snapshots(t, file);
}

bnd_status bnd_training_resume(bnd_training *t) {
  char *path = bnd_training_path(t, "state.pth");
  bnd_checkpoint *file = NULL;
  bnd_status status = path ? bnd_checkpoint_open(path, &file, t->error) : bnd_fail_memory(t->error, "state.pth");
  if (status == BND_OK) {
    status = resume_from(t, file);
    if (status != BND_OK) bnd_fail_prefix(t->error, status, "%s", path);
  }
  bnd_checkpoint_close(file);
  free(path);
  return status;
}

/* --- metrics --- */

int64_t bnd_training_best(const bnd_training *t) {
  int64_t best = -1;
  for (size_t i = 0; i < t->row_count; i++)
    if (isfinite(t->rows[i].map50_95) && (best < 0 || t->rows[i].map50_95 > t->rows[best].map50_95)) best = (int64_t)i;
  return best;
}

static void write_row(bnd_string *text, const bnd_epoch_row *row, size_t epoch) {
  bnd_json_writer w = {.out = text};
  bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
  bnd_json_put_integer(&w, "epoch", (int64_t)epoch + 1);
  bnd_json_put_double(&w, "loss", row->loss);
  bnd_json_put_double(&w, "loss_cls", row->classification);
  bnd_json_put_double(&w, "loss_iou", row->iou);
  bnd_json_put_double(&w, "loss_dfl", row->dfl);
  bnd_json_put_double(&w, "learning_rate", row->learning_rate);
  bnd_json_put_double(&w, "mAP@0.50", row->map50);
  bnd_json_put_double(&w, "mAP@0.50:0.95", row->map50_95);
  bnd_json_put_double(&w, "seconds", row->seconds);
  bnd_json_end_object(&w);
}

/* Columns of the rows, as the plot wants them. */
static void plot_rows(const bnd_training *t, double *columns, bnd_string *svg) {
  static const struct {
    const char *name;
    size_t offset;
    bool right;
  } series[] = {{"loss", offsetof(bnd_epoch_row, loss), false},     {"classification", offsetof(bnd_epoch_row, classification), false},
                {"IoU", offsetof(bnd_epoch_row, iou), false},       {"DFL", offsetof(bnd_epoch_row, dfl), false},
                {"mAP@0.50", offsetof(bnd_epoch_row, map50), true}, {"mAP@0.50:0.95", offsetof(bnd_epoch_row, map50_95), true}};
  enum { SERIES = sizeof series / sizeof *series };
  bnd_plot plot = {.title = "Training", .x_label = "epoch", .x = columns, .count = t->row_count, .series_count = SERIES};
  for (size_t i = 0; i < t->row_count; i++) columns[i] = (double)i + 1;
  for (size_t s = 0; s < SERIES; s++) {
    double *column = columns + (s + 1) * t->row_count;
    for (size_t i = 0; i < t->row_count; i++) memcpy(&column[i], (const char *)&t->rows[i] + series[s].offset, sizeof *column);
    plot.series[s] = (bnd_plot_series){.name = series[s].name,
                                       .values = column,
                                       .right = series[s].right,
                                       .joined = series[s].right,
                                       .mark_largest = series[s].offset == offsetof(bnd_epoch_row, map50_95)};
  }
  bnd_plot_svg(&plot, svg);
}

static bnd_status write_text(const bnd_training *t, const char *name, bnd_string *text) {
  char *path = bnd_training_path(t, name);
  const bnd_status status =
      path && !text->failed ? bnd_file_write(path, text->text ? text->text : "", text->length, t->error) : bnd_fail_memory(t->error, name);
  free(path);
  bnd_string_free(text);
  return status;
}

bnd_status bnd_training_write_metrics(bnd_training *t) {
  bnd_string text = {0}, svg = {0};
  for (size_t i = 0; i < t->row_count; i++) write_row(&text, &t->rows[i], i);
  BND_TRY(write_text(t, "metrics.jsonl", &text));
  double *columns = bnd_calloc(t->row_count * (BND_PLOT_SERIES + 1), sizeof *columns);
  if (!columns) return bnd_fail_memory(t->error, "training.svg");
  plot_rows(t, columns, &svg);
  free(columns);
  return write_text(t, "training.svg", &svg);
}
