/* Life of a plan, its building blocks and its description. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exec/internal.h"

/* --- building blocks --- */

int bnd_plan_add_value(bnd_executor *plan, const bnd_shape *shape) {
  if (plan->value_count >= INT32_MAX || !BND_GROW(plan->values, plan->value_capacity, plan->value_count + 1)) return -1;
  const int made = (int)plan->value_count++;
  plan->values[made] =
      (bnd_plan_value){.shape = *shape, .placeholder = -1, .stored_as = {-1, -1, -1}, .parent = -1, .first = -1, .last = -1};
  plan->values[made].stored_as[BND_STORED_PLAIN] = made;
  return made;
}

void bnd_plan_set_storage(const bnd_executor *plan, int value, bnd_value_storage storage) {
  bnd_plan_value *v = &plan->values[value];
  v->stored_as[v->storage] = -1;
  v->storage = storage;
  v->stored_as[storage] = value;
  v->block = storage == BND_STORED_BLOCKED ? bnd_onednn_block(plan->onednn) : storage == BND_STORED_BYTES && v->shape.rank == 4 ? (size_t)v->shape.size[1] : 0;
}

bnd_step *bnd_plan_add_step(bnd_executor *plan, bnd_step_kind kind, const char *name, int node_id, int input_count) {
  if (plan->step_count >= INT32_MAX || !BND_GROW(plan->steps, plan->step_capacity, plan->step_count + 1)) return NULL;
  bnd_step *step = &plan->steps[plan->step_count];
  *step = (bnd_step){
      .kind = kind, .name = bnd_arena_copy(plan->arena, name), .node_id = node_id, .input_count = input_count, .workspace = -1, .factor = 1.f};
  step->inputs = bnd_arena_alloc(plan->arena, (size_t)input_count, sizeof *step->inputs);
  if (!step->name || !step->inputs) return NULL;
  plan->step_count++;
  return step;
}

size_t bnd_plan_value_count(const bnd_plan_value *value) {
  size_t count = 0;
  bnd_shape_count(&value->shape, &count);
  return count;
}

bnd_layout bnd_plan_layout(const bnd_plan_value *value) {
  if (value->shape.rank != 4) return (bnd_layout){1, 1, 1, bnd_plan_value_count(value), 0};
  const int64_t *size = value->shape.size;
  return (bnd_layout){(size_t)size[0], (size_t)size[1], (size_t)size[2], (size_t)size[3], value->block};
}

int bnd_plan_root(const bnd_executor *plan, int value, size_t *offset) {
  size_t sum = 0;
  while (plan->values[value].parent >= 0) {
    sum += plan->values[value].offset;
    value = plan->values[value].parent;
  }
  if (offset) *offset = sum;
  return value;
}

/* --- weights --- */

static bnd_tensor shared_constant(const bnd_executor *plan, const bnd_step *step, int operand) {
  const int value = operand < step->input_count ? step->inputs[operand] : -1;
  return value < 0 ? (bnd_tensor){0} : bnd_tensor_share(&plan->values[value].constant, NULL);
}

static const float *vector_of(const bnd_executor *plan, int value) {
  return value < 0 ? NULL : bnd_f32(&plan->values[value].constant);
}

/* Batch norm behind a functional convolution: factors in double, each weight rounded once. */
static bnd_status fold(const bnd_executor *plan, const bnd_step *step, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error) {
  bnd_tensor new_weight = {0}, new_bias = {0};
  const int axis = step->transposed ? 1 : 0;
  const size_t channels = (size_t)weight->shape.size[axis] * (step->transposed ? (size_t)step->kernel.groups : 1);
  BND_TRY(bnd_tensor_create(BND_F32, &weight->shape, &new_weight, error));
  const bnd_status status = bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)channels), &new_bias, error);
  if (status != BND_OK) {
    bnd_tensor_release(&new_weight);
    return status;
  }
  const float *gamma = vector_of(plan, step->batch_norm[0]), *beta = vector_of(plan, step->batch_norm[1]);
  const float *mean = vector_of(plan, step->batch_norm[2]), *variance = vector_of(plan, step->batch_norm[3]),
              *own = bias->data ? bnd_f32(bias) : NULL;
  const size_t window = (size_t)(weight->shape.size[2] * weight->shape.size[3]);
  const size_t inner = axis ? window : window * (size_t)weight->shape.size[1];
  for (size_t i = 0; i < weight->count / inner;
       i++) { /* rows of weights for one output channel; fuse.c lets transposed ones in without groups only */
    const size_t c = i % channels;
    const double alpha = (gamma ? (double)gamma[c] : 1.0) / sqrt((double)variance[c] + step->batch_norm_epsilon);
    for (size_t j = 0; j < inner; j++) bnd_f32(&new_weight)[i * inner + j] = (float)((double)bnd_f32(weight)[i * inner + j] * alpha);
    bnd_f32(&new_bias)[c] = (float)((beta ? (double)beta[c] : 0.0) + ((own ? (double)own[c] : 0.0) - (double)mean[c]) * alpha);
  }
  bnd_tensor_release(weight);
  bnd_tensor_release(bias);
  *weight = new_weight;
  *bias = new_bias;
  return BND_OK;
}

bnd_status bnd_plan_weights(const bnd_executor *plan, const bnd_step *step, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error) {
  if (step->module)
    return plan->options.mode == BND_EXEC_FLOAT ? bnd_module_fold(step->module, step->transposed, weight, bias, error)
                                                : bnd_module_quantized_weights(step->module, step->transposed, weight, bias, error);
  *weight = shared_constant(plan, step, 1);
  *bias = shared_constant(plan, step, 2);
  const bnd_status status = step->has_batch_norm ? fold(plan, step, weight, bias, error) : BND_OK;
  if (status != BND_OK) {
    bnd_tensor_release(weight);
    bnd_tensor_release(bias);
  }
  return status;
}

bnd_status bnd_plan_materialize(bnd_executor *plan, size_t index, bnd_error *error) {
  if (!plan->steps[index].module && !plan->steps[index].has_batch_norm) return BND_OK;
  bnd_tensor weight = {0}, bias = {0};
  BND_TRY(bnd_plan_weights(plan, &plan->steps[index], &weight, &bias, error));
  const int w = bnd_plan_add_value(plan, &weight.shape), b = bias.data ? bnd_plan_add_value(plan, &bias.shape) : -1;
  int *inputs = bnd_arena_alloc(plan->arena, 3, sizeof *inputs);
  if (w < 0 || (bias.data && b < 0) || !inputs) {
    bnd_tensor_release(&weight);
    bnd_tensor_release(&bias);
    return bnd_fail_memory(error, "the plan");
  }
  plan->values[w].constant = weight;
  if (b >= 0) plan->values[b].constant = bias;
  bnd_step *step = &plan->steps[index];
  inputs[0] = step->inputs[0];
  inputs[1] = w;
  inputs[2] = b;
  step->inputs = inputs;
  step->input_count = 3;
  step->module = NULL;
  step->has_batch_norm = false;
  return BND_OK;
}

/* Multiply-adds of convolutions and matrix products, from the operands' shapes. */
static void count_operations(const bnd_executor *plan, bnd_step *step) {
  const bnd_operator_id id = step->kernel.id;
  if (id != BND_OP_CONV2D && id != BND_OP_CONV_TRANSPOSE2D && id != BND_OP_LINEAR) return;
  const bnd_shape *weight = step->module ? &step->module->weight.shape : step->input_count > 1 && step->inputs[1] >= 0 ? &plan->values[step->inputs[1]].shape : NULL;
  size_t weights;
  if (!weight || weight->rank < 2 || !weight->size[0] || !bnd_shape_count(weight, &weights)) return;
  /* each result, or with transposed convolutions each input, meets this many weights */
  const int value = id == BND_OP_CONV_TRANSPOSE2D ? step->inputs[0] : step->outputs[0];
  step->operations = (double)bnd_plan_value_count(&plan->values[value]) * (double)(weights / (size_t)weight->size[0]);
  for (int i = 0; i < 2 && weight->rank == 4; i++) step->weight_window[i] = weight->size[2 + i];
}

/* --- life --- */

/* Constants that only went into packed weights are let go. */
static void release_unused_constants(bnd_executor *plan) {
  for (size_t v = 0; v < plan->value_count; v++) {
    bnd_plan_value *value = &plan->values[v];
    if (!value->constant.data) continue;
    if (value->last < 0) bnd_tensor_release(&value->constant);
    else plan->weight_bytes += value->constant.count * sizeof(float);
  }
}

static bnd_status compile(bnd_executor *plan, const bnd_graph *graph, bnd_error *error) {
  BND_TRY(bnd_plan_lower(plan, graph, error));
  for (size_t s = 0; s < plan->step_count; s++) count_operations(plan, &plan->steps[s]);
  if (plan->options.backend != BND_BACKEND_REFERENCE) {
    BND_TRY(bnd_onednn_create(&plan->onednn, error));
    if (plan->options.backend == BND_BACKEND_INT8) BND_TRY(bnd_onednn_find_int8_level(plan->onednn, &plan->int8_level, error));
    BND_TRY(bnd_plan_fuse(plan, error));
    BND_TRY(bnd_plan_assign_layouts(plan, error));
    bnd_plan_place(plan);
  } else {
    BND_TRY(bnd_plan_keep_rounding(plan, error));
    for (size_t s = 0; s < plan->step_count; s++) BND_TRY(bnd_plan_materialize(plan, s, error));
  }
  BND_TRY(bnd_plan_assign_memory(plan, error));
  release_unused_constants(plan);
  for (size_t s = 0; s < plan->step_count; s++) {
    plan->steps[s].module = NULL; /* the graph may go */
    plan->steps[s].kernel.threads = plan->options.threads;
    if (plan->steps[s].convolution) plan->weight_bytes += bnd_onednn_convolution_weight_bytes(plan->steps[s].convolution);
  }
  return BND_OK;
}

bnd_status bnd_executor_create(const bnd_graph *graph, const bnd_exec_options *options, bnd_executor **executor, bnd_error *error) {
  *executor = NULL;
  bnd_executor *plan = bnd_calloc(1, sizeof *plan);
  if (!plan) return bnd_fail_memory(error, "the plan");
  plan->options = *options;
  if (plan->options.threads < 1) plan->options.threads = 1;
  plan->arena = bnd_arena_create();
  const bnd_status status = plan->arena ? compile(plan, graph, error) : bnd_fail_memory(error, "the plan");
  if (status == BND_OK) *executor = plan;
  else bnd_executor_destroy(plan);
  return status;
}

void bnd_executor_destroy(bnd_executor *plan) {
  if (!plan) return;
  for (size_t s = 0; s < plan->step_count; s++) bnd_onednn_convolution_destroy(plan->steps[s].convolution);
  for (size_t v = 0; v < plan->value_count; v++) bnd_tensor_release(&plan->values[v].constant);
  for (size_t q = 0; q < plan->quantizer_count; q++) bnd_quantizer_destroy(plan->quantizers[q]);
  bnd_onednn_destroy(plan->onednn);
  bnd_arena_destroy(plan->arena);
  free(plan->values);
  free(plan->steps);
  free(plan->quantizers);
  free(plan->outputs);
  free(plan);
}

size_t bnd_executor_arena_bytes(const bnd_executor *plan) {
  return plan->arena_bytes;
}
size_t bnd_executor_weight_bytes(const bnd_executor *plan) {
  return plan->weight_bytes;
}
int bnd_executor_output_count(const bnd_executor *plan) {
  return (int)plan->output_count;
}
const bnd_shape *bnd_executor_output_shape(const bnd_executor *plan, int index) {
  return &plan->values[plan->outputs[index]].shape;
}
