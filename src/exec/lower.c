/* From the graph to values and steps, one step for each live call. What depends on no input is computed here, by the reference kernels. */
#include <stdlib.h>
#include <string.h>

#include "exec/internal.h"

typedef struct lowering {
  bnd_executor *plan;
  const bnd_graph *graph;
  bool *live;                     /* by node id */
  int (*values)[BND_MAX_RESULTS]; /* by node id; -1 = none */
} lowering;

/* --- what has to run --- */

static void mark(void *user, bnd_node *node) {
  ((bool *)user)[node->id] = true;
}

/* Marks the first `limit` tensors among the outputs; returns how many were found. */
static int mark_outputs(const bnd_arg *arg, int limit, int found, bool *live) {
  if (arg->kind == BND_ARG_NODE && found < limit) {
    live[arg->node->id] = true;
    return found + arg->node->result_count;
  }
  if (arg->kind == BND_ARG_LIST)
    for (int i = 0; i < arg->list.count; i++) found = mark_outputs(&arg->list.items[i], limit, found, live);
  return found;
}

/* Observed fake quantizers count as wanted even where no output needs them. */
static void mark_live(lowering *l) {
  const int limit = l->plan->options.output_limit > 0 ? l->plan->options.output_limit : INT32_MAX;
  for (const bnd_node *node = bnd_graph_last(l->graph); node; node = node->previous) {
    if (node->kind == BND_OUTPUT) {
      for (int i = 0; i < node->arg_count; i++) mark_outputs(&node->args[i], limit, 0, l->live);
      continue;
    }
    if (l->plan->options.observe && bnd_is_fake_quantize(node)) l->live[node->id] = true;
    if (l->live[node->id]) bnd_node_visit_inputs(node, mark, l->live);
  }
}

/* --- values --- */

static bnd_status new_value(lowering *l, const bnd_node *node, int result, int *value, bnd_error *error) {
  *value = bnd_plan_add_value(l->plan, &node->shape[result]);
  if (*value < 0) return bnd_fail_memory(error, "the plan");
  l->values[node->id][result] = *value;
  return BND_OK;
}

/* A constant value with the tensor's data, as float32. */
static bnd_status new_constant(lowering *l, const bnd_tensor *tensor, int *value, bnd_error *error) {
  *value = bnd_plan_add_value(l->plan, &tensor->shape);
  if (*value < 0) return bnd_fail_memory(error, "the plan");
  return bnd_tensor_as_f32(tensor, &l->plan->values[*value].constant, error);
}

static bool is_constant(const lowering *l, int value) {
  return value >= 0 && l->plan->values[value].constant.data;
}

static bnd_status lower_attribute(lowering *l, const bnd_node *node, bnd_error *error) {
  const bnd_attribute *attribute = bnd_graph_attribute(l->graph, node->target);
  if (!attribute) { /* the sub-graph of a region: its results are looked up there */
    if (node->result_count == 0) return BND_OK;
    return bnd_fail(error, BND_ERROR_MODEL, "%s: the graph has no attribute %s", node->name, node->target);
  }
  return new_constant(l, &attribute->tensor, &l->values[node->id][0], error);
}

static bnd_status lower_region(lowering *l, const bnd_node *node, bnd_error *error) {
  for (int i = 0; i < node->result_count; i++) {
    const bnd_attribute *attribute;
    BND_TRY(bnd_region_result(node, i, &attribute, error));
    if (!attribute) return bnd_fail(error, BND_ERROR_MODEL, "%s: its result %d is missing", node->name, i);
    BND_TRY(new_constant(l, &attribute->tensor, &l->values[node->id][i], error));
  }
  return BND_OK;
}

static bnd_status lower_getitem(lowering *l, const bnd_node *node, bnd_error *error) {
  const bnd_node *tuple = bnd_arg_node(node, 0);
  const int64_t index = bnd_arg_int(node, 1, 0);
  if (!tuple || index < 0 || index >= tuple->result_count)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: no result %lld", node->name, (long long)index);
  l->values[node->id][0] = l->values[tuple->id][index];
  return BND_OK;
}

/* --- calls --- */

/* A number among the operands becomes a constant of its own. */
static bnd_status operand_value(lowering *l, const bnd_node *node, const bnd_operand *operand, int *value, bnd_error *error) {
  *value = -1;
  if (operand->is_number) {
    bnd_tensor number = {0};
    BND_TRY(bnd_tensor_create(BND_F32, &(bnd_shape){0}, &number, error));
    bnd_f32(&number)[0] = (float)operand->number;
    const bnd_status status = new_constant(l, &number, value, error);
    bnd_tensor_release(&number);
    return status;
  }
  if (!operand->node) return BND_OK;
  *value = l->values[operand->node->id][0];
  if (*value < 0 || operand->node->result_count != 1)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: %s is not a single tensor", node->name, operand->node->name);
  return BND_OK;
}

static bnd_status own_quantizer(bnd_executor *plan, bnd_kernel *kernel, bnd_error *error) {
  bnd_quantizer *copy = bnd_quantizer_copy(kernel->quantizer);
  if (!copy || !BND_GROW(plan->quantizers, plan->quantizer_capacity, plan->quantizer_count + 1)) {
    bnd_quantizer_destroy(copy);
    return bnd_fail_memory(error, "the plan");
  }
  plan->quantizers[plan->quantizer_count++] = copy;
  kernel->quantizer = copy;
  return BND_OK;
}

/* Computes the results of a call whose operands all are constants. */
static bnd_status evaluate(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, int input_count, bnd_error *error) {
  bnd_array to[BND_MAX_RESULTS], *operands = bnd_calloc((size_t)input_count, sizeof *operands);
  if (!operands) return bnd_fail_memory(error, "constants");
  for (int i = 0; i < input_count; i++) {
    const bnd_tensor *constant = inputs[i] < 0 ? NULL : &l->plan->values[inputs[i]].constant;
    operands[i] = constant ? (bnd_array){constant->shape, bnd_f32(constant)} : (bnd_array){0};
  }
  bnd_status status = BND_OK;
  for (int i = 0; i < node->result_count && status == BND_OK; i++) {
    int value;
    status = new_value(l, node, i, &value, error);
    if (status != BND_OK) break;
    bnd_tensor *constant = &l->plan->values[value].constant;
    status = bnd_tensor_create(BND_F32, &node->shape[i], constant, error);
    if (status == BND_OK) to[i] = (bnd_array){node->shape[i], bnd_f32(constant)};
  }
  if (status == BND_OK) bnd_reference_kernel(kernel->id)(kernel, operands, input_count, to, node->result_count);
  free(operands);
  return status;
}

static bool has_module_weights(const bnd_node *node) {
  return node->kind == BND_CALL_MODULE && bnd_is_conv_module(node);
}

static bnd_status add_call(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, int input_count, bnd_error *error) {
  bnd_step *step = bnd_plan_add_step(l->plan, BND_STEP_KERNEL, node->name, node->id, input_count);
  if (!step) return bnd_fail_memory(error, "the plan");
  step->kernel = *kernel;
  memcpy(step->inputs, inputs, (size_t)input_count * sizeof *inputs);
  step->output_count = node->result_count;
  for (int i = 0; i < node->result_count; i++) BND_TRY(new_value(l, node, i, &step->outputs[i], error));
  step->transposed = kernel->id == BND_OP_CONV_TRANSPOSE2D;
  if (has_module_weights(node)) step->module = node->module;
  if (kernel->id == BND_OP_FAKE_QUANTIZE) BND_TRY(own_quantizer(l->plan, &step->kernel, error));
  return BND_OK;
}

/* A fake quantizer shows its input when observed; in float mode it is nothing else. */
static bnd_status lower_fake_quantize(lowering *l, const bnd_node *node, int input, bool *done, bnd_error *error) {
  if (l->plan->options.observe) {
    bnd_step *step = bnd_plan_add_step(l->plan, BND_STEP_PROBE, node->name, node->id, 1);
    if (!step) return bnd_fail_memory(error, "the plan");
    step->inputs[0] = input;
  }
  *done = l->plan->options.mode == BND_EXEC_FLOAT;
  if (*done) l->values[node->id][0] = input;
  return BND_OK;
}

static bnd_status lower_operands(lowering *l, const bnd_node *node, int *inputs, int input_count, bnd_operand *operands, bnd_error *error) {
  bnd_kernel kernel;
  BND_TRY(bnd_kernel_of_node(node, &kernel, error));
  if (!bnd_reference_kernel(kernel.id)) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: %s cannot be executed", node->name, node->op->target);
  if (node->result_count < 1) return bnd_fail(error, BND_ERROR_INTERNAL, "%s: its shape has not been inferred", node->name);
  bnd_kernel_operands(node, operands, input_count);
  bool constant = !has_module_weights(node);
  for (int i = 0; i < input_count; i++) {
    BND_TRY(operand_value(l, node, &operands[i], &inputs[i], error));
    if (inputs[i] >= 0 && !is_constant(l, inputs[i])) constant = false;
  }
  if (input_count > 0 && inputs[0] < 0) return bnd_fail(error, BND_ERROR_MODEL, "%s: its first operand is missing", node->name);
  if (bnd_is_fake_quantize(node)) {
    bool done;
    BND_TRY(lower_fake_quantize(l, node, inputs[0], &done, error));
    if (done) return BND_OK;
  }
  /* stubs, dropout and the like: the same value */
  if (kernel.id == BND_OP_RESHAPE && bnd_shape_equal(&l->plan->values[inputs[0]].shape, &node->shape[0])) {
    l->values[node->id][0] = inputs[0];
    return BND_OK;
  }
  return constant ? evaluate(l, node, &kernel, inputs, input_count, error) : add_call(l, node, &kernel, inputs, input_count, error);
}

static bnd_status lower_call(lowering *l, const bnd_node *node, bnd_error *error) {
  if (bnd_node_is(node, BND_OP_GETITEM)) return lower_getitem(l, node, error);
  if (bnd_node_is(node, BND_OP_NO_GRAD_REGION)) return lower_region(l, node, error);
  const int count = bnd_kernel_operands(node, NULL, 0);
  int *inputs = bnd_calloc((size_t)count, sizeof *inputs);
  bnd_operand *operands = bnd_calloc((size_t)count, sizeof *operands);
  const bnd_status status = inputs && operands ? lower_operands(l, node, inputs, count, operands, error) : bnd_fail_memory(error, "the plan");
  free(inputs);
  free(operands);
  return status;
}

/* --- outputs --- */

/* The caller's own input must not be handed back as a result: it is copied. */
static bnd_status copy_of_input(lowering *l, int input, int *value, bnd_error *error) {
  const bnd_shape shape = l->plan->values[input].shape;
  *value = bnd_plan_add_value(l->plan, &shape);
  bnd_step *step = *value < 0 ? NULL : bnd_plan_add_step(l->plan, BND_STEP_KERNEL, "output", -1, 1);
  if (!step) return bnd_fail_memory(error, "the plan");
  step->kernel.id = BND_OP_RESHAPE;
  step->inputs[0] = input;
  step->outputs[0] = *value;
  step->output_count = 1;
  return BND_OK;
}

static bnd_status lower_outputs(lowering *l, const bnd_arg *arg, size_t limit, bnd_error *error) {
  bnd_executor *plan = l->plan;
  if (arg->kind == BND_ARG_LIST) {
    for (int i = 0; i < arg->list.count; i++) BND_TRY(lower_outputs(l, &arg->list.items[i], limit, error));
    return BND_OK;
  }
  for (int i = 0; arg->kind == BND_ARG_NODE && i < arg->node->result_count && plan->output_count < limit; i++) {
    int value = l->values[arg->node->id][i];
    if (plan->values[value].placeholder >= 0) BND_TRY(copy_of_input(l, value, &value, error));
    if (!BND_GROW(plan->outputs, plan->output_capacity, plan->output_count + 1)) return bnd_fail_memory(error, "the plan");
    plan->outputs[plan->output_count++] = value;
  }
  return BND_OK;
}

static bnd_status lower_nodes(lowering *l, bnd_error *error) {
  bnd_executor *plan = l->plan;
  const size_t limit = plan->options.output_limit > 0 ? (size_t)plan->options.output_limit : SIZE_MAX;
  for (const bnd_node *node = bnd_graph_first(l->graph); node; node = node->next) {
    if (node->kind == BND_PLACEHOLDER) {
      int value;
      BND_TRY(new_value(l, node, 0, &value, error));
      plan->values[value].placeholder = plan->placeholder_count++;
      plan->values[value].non_negative = plan->options.non_negative_inputs;
    } else if (node->kind == BND_OUTPUT) {
      for (int i = 0; i < node->arg_count; i++) BND_TRY(lower_outputs(l, &node->args[i], limit, error));
    } else if (l->live[node->id]) {
      BND_TRY(node->kind == BND_GET_ATTR ? lower_attribute(l, node, error) : lower_call(l, node, error));
    }
  }
  return BND_OK;
}

bnd_status bnd_plan_lower(bnd_executor *plan, const bnd_graph *graph, bnd_error *error) {
  const size_t limit = (size_t)bnd_graph_id_limit(graph);
  lowering l = {.plan = plan, .graph = graph, .live = bnd_calloc(limit, sizeof *l.live), .values = bnd_calloc(limit, sizeof *l.values)};
  bnd_status status = l.live && l.values ? BND_OK : bnd_fail_memory(error, "the plan");
  if (status == BND_OK) {
    memset(l.values, 0xff, limit * sizeof *l.values);
    mark_live(&l);
    status = lower_nodes(&l, error);
  }
  free(l.live);
  free(l.values);
  return status;
}
