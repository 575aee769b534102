/* The file that quantization-aware training is kept in: a checkpoint with "fingerprint", "steps" (float64, a row for each step done) and either
   "trainer" (to go on) or "net" and "quantizers" (finished). */
#include <string.h>
#include <unistd.h>

#include "flow/qat.h"
#include "flow/saved_tensors.h"

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
  for (size_t i = 0; i < count; i++) bnd_put_vector(writer, statistics[i].name, BND_F32, statistics[i].value, statistics[i].count);
  bnd_checkpoint_end(writer);
  bnd_put_quantizers(writer, graph);
  const bnd_status status = bnd_checkpoint_write(writer, file->path, error);
  bnd_checkpoint_writer_free(writer);
  return status;
}

/* --- reading --- */

/* Hours of training may be in the file: it is not replaced without asking. */
bnd_status bnd_qat_fail_to_go_on(const bnd_qat_file *file, bnd_status status, const char *reason, bnd_error *error) {
  return bnd_fail(error, status, "%s: quantization-aware training cannot go on from this state: %s; remove it to train anew", file->path, reason);
}

static bnd_status read_steps(bnd_qat *qat, bnd_checkpoint *checkpoint, bnd_error *error) {
  const bnd_value *root = bnd_checkpoint_root(checkpoint), *value = bnd_value_get(root, "steps");
  if (!value || value->kind != BND_VALUE_TENSOR || value->tensor->shape.rank != 2 || value->tensor->shape.size[1] != BND_QAT_STEP_NUMBERS ||
      value->tensor->shape.size[0] < 0 || (uint64_t)value->tensor->shape.size[0] > qat->step_count)
    return bnd_fail_saved("the tensor", "steps", error);
  const size_t done = (size_t)value->tensor->shape.size[0];
  bnd_saved_tensors saved = {.checkpoint = checkpoint, .error = error};
  const bnd_tensor *steps = bnd_read_saved(&saved, root, "steps", BND_F64, done * BND_QAT_STEP_NUMBERS);
  if (steps) {
    memcpy(qat->steps, steps->data, done * sizeof *qat->steps);
    qat->done = done;
  }
  const bnd_status status = saved.status;
  bnd_saved_tensors_free(&saved);
  return status;
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

static void read_all(bnd_saved_tensors *saved, const bnd_network *network, const bnd_graph *graph) {
  const bnd_value *net = bnd_value_get(bnd_checkpoint_root(saved->checkpoint), "net");
  size_t count;
  const bnd_parameter *parameters = bnd_network_parameters(network, &count);
  for (size_t i = 0; i < count; i++) bnd_read_saved(saved, net, parameters[i].name, BND_F32, parameters[i].count);
  const bnd_statistic *statistics = bnd_network_statistics(network, &count);
  for (size_t i = 0; i < count; i++) bnd_read_saved(saved, net, statistics[i].name, BND_F32, statistics[i].count);
  bnd_read_saved_quantizers(saved, graph, false);
}

static void put_all_back(bnd_saved_tensors *saved, const bnd_network *network, const bnd_graph *graph) {
  size_t count;
  const bnd_parameter *parameters = bnd_network_parameters(network, &count);
  for (size_t i = 0; i < count; i++) memcpy(parameters[i].value, bnd_next_saved(saved)->data, parameters[i].count * sizeof(float));
  const bnd_statistic *statistics = bnd_network_statistics(network, &count);
  for (size_t i = 0; i < count; i++) memcpy(statistics[i].value, bnd_next_saved(saved)->data, statistics[i].count * sizeof(float));
  bnd_restore_saved_quantizers(saved, graph, NULL); /* as many channels as before, so nothing can fail */
}

bnd_status bnd_qat_restore_finished(const bnd_qat_file *file, bnd_checkpoint *checkpoint, bnd_graph *graph, bnd_error *error) {
  bnd_network *network; /* only for its list of parameters: one image, plain loops */
  BND_TRY(bnd_qat_network(graph, 1, 1, BND_BACKEND_REFERENCE, false, &network, error));
  bnd_error problem = {0};
  bnd_saved_tensors saved = {.checkpoint = checkpoint, .error = &problem};
  read_all(&saved, network, graph);
  const bnd_status status = saved.status;
  if (status == BND_OK)
    put_all_back(&saved, network, graph);
  else if (status == BND_ERROR_MEMORY)
    bnd_fail(error, status, "%s", problem.message);
  else
    bnd_qat_fail_to_go_on(file, status, problem.message, error);
  bnd_saved_tensors_free(&saved);
  bnd_network_destroy(network);
  return status;
}
