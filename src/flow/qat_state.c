/* The file that quantization-aware training is kept in: a checkpoint with "fingerprint", "steps" (float64, a row for each step done) and either
   "trainer" (to go on) or "net" and "quantizers" (finished). */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flow/qat.h"
#include "flow/reports.h"

/* --- writing --- */

static void put_head(const bnd_qat *qat, const bnd_qat_file *file, bnd_checkpoint_writer *writer) {
  const bnd_tensor steps = {
      .dtype = BND_F64, .shape = BND_SHAPE((int64_t)qat->done, BND_QAT_STEP_NUMBERS), .count = qat->done * BND_QAT_STEP_NUMBERS, .data = qat->steps};
  bnd_checkpoint_put_text(writer, "fingerprint", file->fingerprint);
  bnd_checkpoint_put_tensor(writer, "steps", &steps);
}

bnd_status bnd_qat_save_progress(const bnd_qat *qat, bnd_trainer *trainer, const bnd_qat_file *file, bnd_error *error) {
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  if (!writer) return bnd_fail_memory(error, file->path);
  put_head(qat, file, writer);
  bnd_trainer_save(trainer, writer, "trainer");
  const bnd_status status = bnd_checkpoint_write(writer, file->path, error);
  bnd_checkpoint_writer_free(writer);
  return status;
}

static void put_vector(bnd_checkpoint_writer *writer, const char *key, bnd_dtype dtype, void *data, size_t count) {
  bnd_checkpoint_put_tensor(writer, key, &(bnd_tensor){.dtype = dtype, .shape = BND_SHAPE((int64_t)count), .count = count, .data = data});
}

static void put_quantizer(void *user, const bnd_quantizer_place *place) {
  bnd_checkpoint_writer *writer = user;
  const bnd_quantizer *q = place->quantizer;
  const size_t channels = (size_t)q->channels;
  bnd_checkpoint_begin_dict(writer, place->name);
  put_vector(writer, "position", BND_I32, q->position, channels);
  put_vector(writer, "zero_point", BND_I32, q->zero_point, channels);
  put_vector(writer, "minimum", BND_F32, q->minimum, channels);
  put_vector(writer, "maximum", BND_F32, q->maximum, channels);
  bnd_checkpoint_end(writer);
}

bnd_status bnd_qat_save_finished(const bnd_qat *qat, const bnd_network *network, const bnd_graph *graph, const bnd_qat_file *file, bnd_error *error) {
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  if (!writer) return bnd_fail_memory(error, file->path);
  put_head(qat, file, writer);
  size_t count;
  const bnd_parameter *parameters = bnd_network_parameters(network, &count);
  bnd_checkpoint_begin_state_dict(writer, "net");
  for (size_t i = 0; i < count; i++)
    bnd_checkpoint_put_tensor(
        writer, parameters[i].name,
        &(bnd_tensor){.dtype = BND_F32, .shape = parameters[i].shape, .count = parameters[i].count, .data = parameters[i].value});
  const bnd_statistic *statistics = bnd_network_statistics(network, &count);
  for (size_t i = 0; i < count; i++) put_vector(writer, statistics[i].name, BND_F32, statistics[i].value, statistics[i].count);
  bnd_checkpoint_end(writer);
  bnd_checkpoint_begin_dict(writer, "quantizers");
  bnd_visit_quantizers(graph, put_quantizer, writer);
  bnd_checkpoint_end(writer);
  const bnd_status status = bnd_checkpoint_write(writer, file->path, error);
  bnd_checkpoint_writer_free(writer);
  return status;
}

/* --- reading --- */

/* Hours of training may be in the file: it is not replaced without asking. */
bnd_status bnd_qat_fail_to_go_on(const bnd_qat_file *file, bnd_status status, const char *reason, bnd_error *error) {
  return bnd_fail(error, status, "%s: quantization-aware training cannot go on from this state: %s; remove it to train anew", file->path, reason);
}

static bnd_status missing(const char *what, const char *name, bnd_error *error) {
  return bnd_fail(error, BND_ERROR_FORMAT, "%s \"%s\" is missing or has another shape", what, name);
}

/* The elements of the tensor under `name` of a dict; they must be `count` of that type. */
static bnd_status read_tensor(bnd_checkpoint *saved, const bnd_value *dict, const char *name, bnd_dtype dtype, size_t count, bnd_tensor *tensor,
                              bnd_error *error) {
  *tensor = (bnd_tensor){0};
  const bnd_value *value = bnd_value_get(dict, name);
  if (!value || value->kind != BND_VALUE_TENSOR) return missing("the tensor", name, error);
  BND_TRY(bnd_checkpoint_tensor(saved, value, tensor, error));
  if (tensor->dtype == dtype && tensor->count == count) return BND_OK;
  bnd_tensor_release(tensor);
  return missing("the tensor", name, error);
}

static bnd_status read_steps(bnd_qat *qat, bnd_checkpoint *saved, bnd_error *error) {
  const bnd_value *root = bnd_checkpoint_root(saved), *value = bnd_value_get(root, "steps");
  if (!value || value->kind != BND_VALUE_TENSOR || value->tensor->shape.rank != 2 || value->tensor->shape.size[1] != BND_QAT_STEP_NUMBERS ||
      value->tensor->shape.size[0] < 0 || (uint64_t)value->tensor->shape.size[0] > qat->step_count)
    return missing("the tensor", "steps", error);
  const size_t done = (size_t)value->tensor->shape.size[0];
  bnd_tensor steps;
  BND_TRY(read_tensor(saved, root, "steps", BND_F64, done * BND_QAT_STEP_NUMBERS, &steps, error));
  memcpy(qat->steps, steps.data, done * sizeof *qat->steps);
  bnd_tensor_release(&steps);
  qat->done = done;
  return BND_OK;
}

bnd_status bnd_qat_open_saved(bnd_qat *qat, const bnd_qat_file *file, const bnd_context *context, bnd_checkpoint **saved, bool *finished,
                              bnd_error *error) {
  *saved = NULL;
  *finished = false;
  if (file->restart || access(file->path, F_OK) != 0) return BND_OK;
  bnd_error problem = {0};
  bnd_checkpoint *found = NULL;
  bnd_status status = bnd_checkpoint_open(file->path, &found, &problem);
  const char *fingerprint = status == BND_OK ? bnd_value_text(bnd_value_get(bnd_checkpoint_root(found), "fingerprint")) : NULL;
  if (fingerprint && strcmp(fingerprint, file->fingerprint) != 0) {
    bnd_log(context, BND_LOG_INFO, "%s: is of another training; it will be replaced", file->path);
    bnd_checkpoint_close(found);
    return BND_OK;
  }
  if (fingerprint) status = read_steps(qat, found, &problem);
  if (fingerprint && status == BND_OK) {
    *finished = bnd_value_get(bnd_checkpoint_root(found), "net") != NULL;
    *saved = found;
    return BND_OK;
  }
  bnd_checkpoint_close(found);
  if (status == BND_ERROR_MEMORY) return bnd_fail(error, status, "%s", problem.message);
  return bnd_qat_fail_to_go_on(file, BND_ERROR_FORMAT, status == BND_OK ? "it has no fingerprint" : problem.message, error);
}

/* The whole file in memory, before the graph is touched. */
typedef struct restoring {
  bnd_checkpoint *saved;
  const bnd_value *quantizers;
  bnd_tensor *tensors;
  size_t count, capacity;
  bnd_status status;
  bnd_error *error;
} restoring;

enum { QUANTIZER_TENSORS = 4 };

static bnd_tensor *new_tensor(restoring *r) {
  if (BND_GROW(r->tensors, r->capacity, r->count + 1)) return &r->tensors[r->count++];
  r->status = bnd_fail_memory(r->error, "the trained network");
  return NULL;
}

static void read_into(restoring *r, const bnd_value *dict, const char *name, bnd_dtype dtype, size_t count) {
  bnd_tensor *tensor = r->status == BND_OK ? new_tensor(r) : NULL;
  if (tensor) r->status = read_tensor(r->saved, dict, name, dtype, count, tensor, r->error);
}

static void read_quantizer(void *user, const bnd_quantizer_place *place) {
  restoring *r = user;
  const bnd_value *dict = bnd_value_get(r->quantizers, place->name);
  const size_t channels = (size_t)place->quantizer->channels;
  read_into(r, dict, "position", BND_I32, channels);
  read_into(r, dict, "zero_point", BND_I32, channels);
  read_into(r, dict, "minimum", BND_F32, channels);
  read_into(r, dict, "maximum", BND_F32, channels);
  for (size_t c = 0; r->status == BND_OK && c < channels; c++) {
    const int32_t position = ((const int32_t *)r->tensors[r->count - QUANTIZER_TENSORS].data)[c];
    if (position < -1000 || position > 1000) r->status = missing("the quantizer", place->name, r->error);
  }
}

static void restore_quantizer(void *user, const bnd_quantizer_place *place) {
  restoring *r = user;
  const bnd_tensor *t = &r->tensors[r->count];
  r->count += QUANTIZER_TENSORS;
  /* as many channels as before, so nothing can fail */
  bnd_quantizer_restore(place->quantizer, place->quantizer->channels, t[0].data, t[1].data, t[2].data, t[3].data, NULL);
}

static void read_all(restoring *r, const bnd_network *network, const bnd_graph *graph) {
  const bnd_value *net = bnd_value_get(bnd_checkpoint_root(r->saved), "net");
  size_t count;
  const bnd_parameter *parameters = bnd_network_parameters(network, &count);
  for (size_t i = 0; i < count; i++) read_into(r, net, parameters[i].name, BND_F32, parameters[i].count);
  const bnd_statistic *statistics = bnd_network_statistics(network, &count);
  for (size_t i = 0; i < count; i++) read_into(r, net, statistics[i].name, BND_F32, statistics[i].count);
  bnd_visit_quantizers(graph, read_quantizer, r);
}

static void put_all_back(restoring *r, const bnd_network *network, const bnd_graph *graph) {
  size_t count, at = 0;
  const bnd_parameter *parameters = bnd_network_parameters(network, &count);
  for (size_t i = 0; i < count; i++, at++) memcpy(parameters[i].value, r->tensors[at].data, parameters[i].count * sizeof(float));
  const bnd_statistic *statistics = bnd_network_statistics(network, &count);
  for (size_t i = 0; i < count; i++, at++) memcpy(statistics[i].value, r->tensors[at].data, statistics[i].count * sizeof(float));
  const size_t all = r->count;
  r->count = at;
  bnd_visit_quantizers(graph, restore_quantizer, r);
  r->count = all;
}

bnd_status bnd_qat_restore_finished(const bnd_qat_file *file, bnd_checkpoint *saved, bnd_graph *graph, bnd_error *error) {
  bnd_network *network; /* only for its list of parameters: one image, plain loops */
  BND_TRY(bnd_qat_network(graph, 1, 1, BND_BACKEND_REFERENCE, false, &network, error));
  bnd_error problem = {0};
  restoring r = {.saved = saved, .quantizers = bnd_value_get(bnd_checkpoint_root(saved), "quantizers"), .error = &problem};
  read_all(&r, network, graph);
  if (r.status == BND_OK)
    put_all_back(&r, network, graph);
  else if (r.status == BND_ERROR_MEMORY)
    bnd_fail(error, r.status, "%s", problem.message);
  else
    bnd_qat_fail_to_go_on(file, r.status, problem.message, error);
  for (size_t i = 0; i < r.count; i++) bnd_tensor_release(&r.tensors[i]);
  free(r.tensors);
  bnd_network_destroy(network);
  return r.status;
}
