/* From the graph to values and steps, one step for each live call. What depends on no input and no parameter is computed here. */
#include <stdlib.h>
#include <string.h>

#include "autograd/internal.h"

typedef struct lowering {
  bnd_network *network;
  bool *live;                     /* by node id */
  int (*values)[BND_MAX_RESULTS]; /* by node id; -1 = none */
} lowering;

/* --- what has to run --- */

static void mark(void *user, bnd_node *node) {
  ((bool *)user)[node->id] = true;
}

static bool is_wanted(const bnd_network *network, int output) {
  for (int i = 0; i < network->options.gradient_output_count; i++)
    if (network->options.gradient_outputs[i] == output) return true;
  return false;
}

/* Outputs count as in the executor: lists flattened, numbers left out. */
static int mark_outputs(const lowering *l, const bnd_arg *arg, int count) {
  if (arg->kind == BND_ARG_LIST)
    for (int i = 0; i < arg->list.count; i++) count = mark_outputs(l, &arg->list.items[i], count);
  if (arg->kind != BND_ARG_NODE) return count;
  for (int i = 0; i < arg->node->result_count; i++, count++)
    if (is_wanted(l->network, count)) l->live[arg->node->id] = true;
  return count;
}

/* Fake quantizers run for their observers even where no gradient output needs them. */
static void mark_live(lowering *l) {
  for (const bnd_node *node = bnd_graph_last(l->network->graph); node; node = node->previous) {
    if (node->kind == BND_OUTPUT) {
      for (int i = 0, count = 0; i < node->arg_count; i++) count = mark_outputs(l, &node->args[i], count);
      continue;
    }
    if (l->network->options.quantize && bnd_is_fake_quantize(node)) l->live[node->id] = true;
    if (l->live[node->id]) bnd_node_visit_inputs(node, mark, l->live);
  }
}

/* --- values --- */

static bnd_status new_value(lowering *l, const bnd_node *node, int result, int *index, bnd_error *error) {
  *index = bnd_network_add_value(l->network, node->name, &node->shape[result]);
  if (*index < 0) return bnd_fail_memory(error, "the network");
  l->values[node->id][result] = *index;
  return BND_OK;
}

static bnd_status new_constant(lowering *l, const char *name, const bnd_tensor *tensor, int *index, bnd_error *error) {
  *index = bnd_network_add_value(l->network, name, &tensor->shape);
  if (*index < 0) return bnd_fail_memory(error, "the network");
  return bnd_tensor_as_f32(tensor, &l->network->values[*index].constant, error);
}

static bnd_status new_number(lowering *l, double number, int *index, bnd_error *error) {
  bnd_tensor tensor = {0};
  BND_TRY(bnd_tensor_create(BND_F32, &(bnd_shape){0}, &tensor, error));
  bnd_f32(&tensor)[0] = (float)number;
  const bnd_status status = new_constant(l, "number", &tensor, index, error);
  bnd_tensor_release(&tensor);
  return status;
}

static const bnd_attribute *parameter_of(const lowering *l, const bnd_node *node) {
  if (!node || node->kind != BND_GET_ATTR) return NULL;
  const bnd_attribute *attribute = bnd_graph_attribute(l->network->graph, node->target);
  return attribute && attribute->is_parameter && attribute->tensor.dtype == BND_F32 ? attribute : NULL;
}

static bnd_status lower_attribute(lowering *l, const bnd_node *node, bnd_error *error) {
  const bnd_attribute *attribute = bnd_graph_attribute(l->network->graph, node->target);
  if (!attribute) {
    if (node->result_count == 0) return BND_OK; /* the sub-graph of a region: its results are looked up there */
    return bnd_fail(error, BND_ERROR_MODEL, "%s: the graph has no attribute %s", node->name, node->target);
  }
  BND_TRY(new_constant(l, attribute->name, &attribute->tensor, &l->values[node->id][0], error));
  if (!parameter_of(l, node)) return BND_OK;
  const int parameter = bnd_network_add_parameter(l->network, attribute->name, &attribute->tensor);
  if (parameter < 0) return bnd_fail_memory(error, "the network");
  l->network->values[l->values[node->id][0]].parameter = parameter;
  return BND_OK;
}

static bnd_status lower_region(lowering *l, const bnd_node *node, bnd_error *error) {
  for (int i = 0; i < node->result_count; i++) {
    const bnd_attribute *attribute;
    BND_TRY(bnd_region_result(node, i, &attribute, error));
    if (!attribute) return bnd_fail(error, BND_ERROR_MODEL, "%s: its result %d is missing", node->name, i);
    BND_TRY(new_constant(l, attribute->name, &attribute->tensor, &l->values[node->id][i], error));
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

/* --- steps --- */

static bnd_status add_step(lowering *l, const bnd_node *node, step_kind kind, const bnd_kernel *kernel, const int *inputs, int input_count,
                           step **added, bnd_error *error) {
  step *made = bnd_network_add_step(l->network, kind, node->name, input_count);
  if (!made) return bnd_fail_memory(error, "the network");
  made->node = node;
  made->kernel = *kernel;
  memcpy(made->inputs, inputs, (size_t)input_count * sizeof *inputs);
  made->output_count = node->result_count;
  for (int i = 0; i < node->result_count; i++) {
    BND_TRY(new_value(l, node, i, &made->outputs[i], error));
    made = &l->network->steps[l->network->step_count - 1];
  }
  *added = made;
  return BND_OK;
}

/* "MODULE.weight"; NULL tensors give -1. */
static bnd_status module_parameter(lowering *l, const bnd_module *module, const char *what, const bnd_tensor *tensor, int *index, bnd_error *error) {
  *index = NO_INDEX;
  if (!tensor->data) return BND_OK;
  if (tensor->dtype != BND_F32) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s.%s: only float32 can be trained", module->name, what);
  const char *name = bnd_arena_format(l->network->names, "%s.%s", module->name, what);
  *index = name ? bnd_network_add_parameter(l->network, name, tensor) : -1;
  return *index >= 0 ? BND_OK : bnd_fail_memory(error, "the network");
}

static bnd_status module_statistic(lowering *l, const bnd_module *module, const char *what, const bnd_tensor *tensor, float **data,
                                   bnd_error *error) {
  const char *name = bnd_arena_format(l->network->names, "%s.%s", module->name, what);
  if (!name || !bnd_network_add_statistic(l->network, name, tensor)) return bnd_fail_memory(error, "the network");
  *data = bnd_f32(tensor);
  return BND_OK;
}

static bnd_status channels_match(const bnd_node *node, const bnd_tensor *tensor, bnd_error *error) {
  if (tensor->data && tensor->dtype == BND_F32 && node->shape[0].rank >= 2 && (int64_t)tensor->count == node->shape[0].size[1]) return BND_OK;
  return bnd_fail(error, BND_ERROR_MODEL, "%s: batch norm needs a float32 value for each channel", node->name);
}

static bnd_status add_norm(lowering *l, step *made, double epsilon, double momentum, bnd_error *error) {
  /* vectors for blocks of up to 16 channels: layouts are decided later */
  const size_t channels = ((size_t)made->node->shape[0].size[1] + 15) / 16 * 16;
  made->norm = bnd_norm_create(l->network, channels);
  if (!made->norm) return bnd_fail_memory(error, "the network");
  made->norm->epsilon = epsilon;
  made->norm->momentum = momentum;
  return BND_OK;
}

static bnd_status lower_module(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, bnd_error *error) {
  const bnd_module *module = node->module;
  step *made;
  BND_TRY(add_step(l, node, STEP_CONVOLUTION, kernel, inputs, 1, &made, error));
  made->transposed = kernel->id == BND_OP_CONV_TRANSPOSE2D;
  made->weight_quantizer = module->weight_quantizer;
  made->bias_quantizer = module->bias_quantizer;
  BND_TRY(module_parameter(l, module, "weight", &module->weight, &made->weight, error));
  BND_TRY(module_parameter(l, module, "bias", &module->bias, &made->bias, error));
  const char *weight_name = bnd_arena_format(l->network->names, "%s._weight_quantizer", module->name);
  const char *bias_name = bnd_arena_format(l->network->names, "%s._bias_quantizer", module->name);
  if (!bnd_network_add_quantizer(l->network, weight_name, made->weight_quantizer) ||
      !bnd_network_add_quantizer(l->network, bias_name, made->bias_quantizer))
    return bnd_fail_memory(error, "the network");
  if (!module->has_batch_norm) {
    if (made->weight_quantizer) l->network->parameters[made->weight].direct = l->network->options.quantize;
    if (made->bias_quantizer && made->bias >= 0) l->network->parameters[made->bias].direct = l->network->options.quantize;
    return BND_OK;
  }
  BND_TRY(channels_match(node, &module->bn_weight, error));
  BND_TRY(channels_match(node, &module->bn_bias, error));
  BND_TRY(channels_match(node, &module->bn_running_mean, error));
  BND_TRY(channels_match(node, &module->bn_running_var, error));
  BND_TRY(add_norm(l, made, module->bn_epsilon, module->bn_momentum, error));
  BND_TRY(module_parameter(l, module, "bn.weight", &module->bn_weight, &made->norm->gamma, error));
  BND_TRY(module_parameter(l, module, "bn.bias", &module->bn_bias, &made->norm->beta, error));
  BND_TRY(module_statistic(l, module, "bn.running_mean", &module->bn_running_mean, &made->norm->running_mean, error));
  return module_statistic(l, module, "bn.running_var", &module->bn_running_var, &made->norm->running_variance, error);
}

static int known_parameter(const lowering *l, int index) {
  return index < 0 ? NO_INDEX : l->network->values[index].parameter;
}

/* A convolution whose weight and bias are parameters. */
static bnd_status lower_convolution(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, int input_count,
                                    bnd_error *error) {
  step *made;
  BND_TRY(add_step(l, node, STEP_CONVOLUTION, kernel, inputs, 1, &made, error));
  made->transposed = kernel->id == BND_OP_CONV_TRANSPOSE2D;
  made->weight = known_parameter(l, inputs[1]);
  made->bias = input_count > 2 ? known_parameter(l, inputs[2]) : NO_INDEX;
  return BND_OK;
}

static bnd_status lower_norm(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, bnd_error *error) {
  step *made;
  BND_TRY(add_step(l, node, STEP_NORM, kernel, inputs, 1, &made, error));
  BND_TRY(add_norm(l, made, kernel->number, bnd_arg_float(node, 6, 0.1), error));
  const value *values = l->network->values;
  for (int i = 1; i < 5; i++) BND_TRY(channels_match(node, &values[inputs[i]].constant, error));
  made->norm->gamma = values[inputs[1]].parameter;
  made->norm->beta = values[inputs[2]].parameter;
  made->norm->running_mean = bnd_f32(&values[inputs[3]].constant);
  made->norm->running_variance = bnd_f32(&values[inputs[4]].constant);
  for (int i = 3; i < 5; i++)
    if (!bnd_network_add_statistic(l->network, values[inputs[i]].name, &values[inputs[i]].constant)) return bnd_fail_memory(error, "the network");
  return BND_OK;
}

/* factor * x, or factor * x + second. */
static bnd_status lower_sum(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, int input_count, float second_factor,
                            int factor_value, double factor, bnd_error *error) {
  step *made;
  BND_TRY(add_step(l, node, STEP_SUM, kernel, inputs, input_count, &made, error));
  made->factor[0] = (float)factor;
  made->factor[1] = second_factor;
  made->factor_value[0] = factor_value;
  return BND_OK;
}

static bool is_shared(const lowering *l, int index) {
  return index >= 0 && l->network->values[index].constant.data && l->network->values[index].parameter < 0;
}

/* Computes the results of a call whose operands all are constants. */
static bnd_status evaluate(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, int input_count, bnd_error *error) {
  bnd_array to[BND_MAX_RESULTS], *operands = bnd_calloc((size_t)input_count, sizeof *operands);
  if (!operands) return bnd_fail_memory(error, "constants");
  bnd_status status = BND_OK;
  for (int i = 0; i < node->result_count && status == BND_OK; i++) {
    int index;
    status = new_value(l, node, i, &index, error);
    if (status != BND_OK) break;
    bnd_tensor *constant = &l->network->values[index].constant;
    status = bnd_tensor_create(BND_F32, &node->shape[i], constant, error);
    if (status == BND_OK) to[i] = (bnd_array){node->shape[i], bnd_f32(constant)};
  }
  for (int i = 0; i < input_count; i++) {
    const bnd_tensor *constant = inputs[i] < 0 ? NULL : &l->network->values[inputs[i]].constant;
    operands[i] = constant ? (bnd_array){constant->shape, bnd_f32(constant)} : (bnd_array){0};
  }
  if (status == BND_OK) bnd_reference_kernel(kernel->id)(kernel, operands, input_count, to, node->result_count);
  free(operands);
  return status;
}

static bool is_number(const lowering *l, int index) {
  size_t count;
  return index >= 0 && bnd_shape_count(&l->network->values[index].shape, &count) && count == 1;
}

static bool same_shape(const lowering *l, const bnd_node *node, int index) {
  return index >= 0 && bnd_shape_equal(&l->network->values[index].shape, &node->shape[0]);
}

static bool is_literal(const bnd_operand *operand, double number) {
  return operand->is_number && operand->number == number;
}

/* Arithmetic that is a sum with factors; *done says whether it was. */
static bnd_status lower_arithmetic(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const bnd_operand *operands, const int *inputs,
                                   bool *done, bnd_error *error) {
  *done = true;
  const bool sum = kernel->id == BND_OP_ADD || kernel->id == BND_OP_SUB;
  if ((sum && same_shape(l, node, inputs[0]) && is_literal(&operands[1], 0)) || (kernel->id == BND_OP_MUL && is_literal(&operands[1], 1))) {
    l->values[node->id][0] = inputs[0]; /* nothing changes */
    return BND_OK;
  }
  if (sum && same_shape(l, node, inputs[0]) && same_shape(l, node, inputs[1]) && inputs[0] != inputs[1]) {
    const double factor = kernel->id == BND_OP_SUB ? -kernel->number : kernel->number;
    return lower_sum(l, node, kernel, inputs, 2, (float)factor, NO_INDEX, 1, error);
  }
  if (kernel->id == BND_OP_MUL) {
    for (int i = 0; i < 2; i++) {
      const int x = inputs[i], factor = inputs[1 - i];
      if (!same_shape(l, node, x) || !is_number(l, factor) || x == factor || node->shape[0].rank < 1) continue;
      if (is_shared(l, factor))
        return lower_sum(l, node, kernel, &x, 1, 0, NO_INDEX, (double)bnd_f32(&l->network->values[factor].constant)[0], error);
      return lower_sum(l, node, kernel, &x, 1, 0, factor, 1, error);
    }
  }
  *done = false;
  return BND_OK;
}

static bool keeps_size(const bnd_kernel *kernel) {
  for (int i = 0; i < 2; i++)
    if (kernel->stride[i] != 1 || kernel->dilation[i] != 1 || kernel->window[i] % 2 == 0 || kernel->padding[i] != kernel->window[i] / 2) return false;
  return kernel->window[0] == kernel->window[1];
}

static bnd_status lower_fake_quantize(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, bnd_error *error) {
  if (!l->network->options.quantize) {
    l->values[node->id][0] = inputs[0];
    return BND_OK;
  }
  if (node->module->quantizer->spec.per_channel)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: activations with a scale for each channel cannot be trained", node->name);
  step *made;
  BND_TRY(add_step(l, node, STEP_FAKE_QUANTIZE, kernel, inputs, 1, &made, error));
  made->quantizer = node->module->quantizer;
  const int parameter = l->network->values[inputs[0]].parameter;
  if (parameter >= 0) l->network->parameters[parameter].direct = true;
  return bnd_network_add_quantizer(l->network, node->name, made->quantizer) ? BND_OK : bnd_fail_memory(error, "the network");
}

static bnd_status lower_rest(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const int *inputs, int input_count, bnd_error *error) {
  const int rank = node->shape[0].rank;
  step_kind kind = STEP_KERNEL;
  if (kernel->id == BND_OP_RELU)
    kind = STEP_RELU;
  else if (kernel->id == BND_OP_CAT && kernel->axis == 1 && rank == 4)
    kind = STEP_CONCAT;
  else if (kernel->id == BND_OP_MAX_POOL2D && rank == 4 && keeps_size(kernel))
    kind = STEP_MAX_POOL;
  else if (kernel->id == BND_OP_RESHAPE)
    kind = STEP_VIEW;
  step *made;
  return add_step(l, node, kind, kernel, inputs, input_count, &made, error);
}

static bnd_status lower_operation(lowering *l, const bnd_node *node, const bnd_kernel *kernel, const bnd_operand *operands, const int *inputs,
                                  int input_count, bnd_error *error) {
  if (node->kind == BND_CALL_MODULE && bnd_is_conv_module(node)) return lower_module(l, node, kernel, inputs, error);
  if (kernel->id == BND_OP_FAKE_QUANTIZE) return lower_fake_quantize(l, node, kernel, inputs, error);
  if (kernel->id == BND_OP_RESHAPE && same_shape(l, node, inputs[0])) { /* stubs, dropout and the like: the same value */
    l->values[node->id][0] = inputs[0];
    return BND_OK;
  }
  bool constant = true;
  for (int i = 0; i < input_count; i++)
    if (inputs[i] >= 0 && !is_shared(l, inputs[i])) constant = false;
  if (constant) return evaluate(l, node, kernel, inputs, input_count, error);
  const bool convolution = kernel->id == BND_OP_CONV2D || kernel->id == BND_OP_CONV_TRANSPOSE2D;
  if (convolution && known_parameter(l, inputs[1]) >= 0 && (input_count < 3 || inputs[2] < 0 || known_parameter(l, inputs[2]) >= 0))
    return lower_convolution(l, node, kernel, inputs, input_count, error);
  if (kernel->id == BND_OP_BATCH_NORM && node->shape[0].rank == 4) return lower_norm(l, node, kernel, inputs, error);
  if (kernel->id == BND_OP_ADD || kernel->id == BND_OP_SUB || kernel->id == BND_OP_MUL) {
    bool done;
    BND_TRY(lower_arithmetic(l, node, kernel, operands, inputs, &done, error));
    if (done) return BND_OK;
  }
  return lower_rest(l, node, kernel, inputs, input_count, error);
}

static bnd_status operand_value(lowering *l, const bnd_node *node, const bnd_operand *operand, int *index, bnd_error *error) {
  *index = NO_INDEX;
  if (operand->is_number) return new_number(l, operand->number, index, error);
  if (!operand->node) return BND_OK;
  *index = l->values[operand->node->id][0];
  if (*index < 0 || operand->node->result_count != 1)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: %s is not a single tensor", node->name, operand->node->name);
  return BND_OK;
}

static bnd_status lower_operands(lowering *l, const bnd_node *node, int *inputs, int input_count, bnd_operand *operands, bnd_error *error) {
  bnd_kernel kernel;
  BND_TRY(bnd_kernel_of_node(node, &kernel, error));
  if (!bnd_reference_kernel(kernel.id)) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: %s cannot be executed", node->name, node->op->target);
  if (node->result_count < 1) return bnd_fail(error, BND_ERROR_INTERNAL, "%s: its shape has not been inferred", node->name);
  bnd_kernel_operands(node, operands, input_count);
  for (int i = 0; i < input_count; i++) BND_TRY(operand_value(l, node, &operands[i], &inputs[i], error));
  if (input_count > 0 && inputs[0] < 0) return bnd_fail(error, BND_ERROR_MODEL, "%s: its first operand is missing", node->name);
  return lower_operation(l, node, &kernel, operands, inputs, input_count, error);
}

static bnd_status lower_call(lowering *l, const bnd_node *node, bnd_error *error) {
  if (bnd_node_is(node, BND_OP_GETITEM)) return lower_getitem(l, node, error);
  if (bnd_node_is(node, BND_OP_NO_GRAD_REGION)) return lower_region(l, node, error);
  const int count = bnd_kernel_operands(node, NULL, 0);
  int *inputs = bnd_calloc((size_t)count, sizeof *inputs);
  bnd_operand *operands = bnd_calloc((size_t)count, sizeof *operands);
  const bnd_status status = inputs && operands ? lower_operands(l, node, inputs, count, operands, error) : bnd_fail_memory(error, "the network");
  free(inputs);
  free(operands);
  return status;
}

static bnd_status lower_outputs(lowering *l, const bnd_arg *arg, bnd_error *error) {
  bnd_network *network = l->network;
  if (arg->kind == BND_ARG_LIST) {
    for (int i = 0; i < arg->list.count; i++) BND_TRY(lower_outputs(l, &arg->list.items[i], error));
    return BND_OK;
  }
  for (int i = 0; arg->kind == BND_ARG_NODE && i < arg->node->result_count; i++) {
    if (!BND_GROW(network->outputs, network->output_capacity, network->output_count + 1)) return bnd_fail_memory(error, "the network");
    network->outputs[network->output_count++] = l->live[arg->node->id] ? l->values[arg->node->id][i] : NO_INDEX;
  }
  return BND_OK;
}

static bnd_status lower_nodes(lowering *l, bnd_error *error) {
  for (const bnd_node *node = bnd_graph_first(l->network->graph); node; node = node->next) {
    if (node->kind == BND_PLACEHOLDER) {
      int index;
      BND_TRY(new_value(l, node, 0, &index, error));
      if (node->shape[0].rank < 1 || node->shape[0].size[0] != 1)
        return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: training needs a graph with batch size 1", node->name);
      l->network->values[index].placeholder = l->network->placeholder_count++;
    } else if (node->kind == BND_OUTPUT) {
      for (int i = 0; i < node->arg_count; i++) BND_TRY(lower_outputs(l, &node->args[i], error));
    } else if (l->live[node->id]) {
      BND_TRY(node->kind == BND_GET_ATTR ? lower_attribute(l, node, error) : lower_call(l, node, error));
    }
  }
  if (l->network->placeholder_count < 1) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "training needs a network with an input");
  return BND_OK;
}

/* --- where gradients flow --- */

static bnd_status mark_differentiable(bnd_network *network, bnd_error *error) {
  bool *reaches = bnd_calloc(network->value_count, sizeof *reaches);
  if (!reaches) return bnd_fail_memory(error, "the network");
  for (size_t v = 0; v < network->value_count; v++) network->values[v].differentiable = network->values[v].parameter >= 0;
  for (size_t s = 0; s < network->step_count; s++) {
    step *it = &network->steps[s];
    bool depends = it->kind == STEP_CONVOLUTION || it->norm || bnd_threshold_is_possible(network, it);
    for (int i = 0; i < it->input_count; i++) depends |= it->inputs[i] >= 0 && network->values[it->inputs[i]].differentiable;
    for (int i = 0; i < 2; i++) depends |= it->factor_value[i] >= 0 && network->values[it->factor_value[i]].differentiable;
    for (int i = 0; i < it->output_count; i++) network->values[it->outputs[i]].differentiable = depends;
  }
  for (int i = 0; i < network->options.gradient_output_count; i++) {
    const int output = network->options.gradient_outputs[i];
    if (output >= 0 && (size_t)output < network->output_count && network->outputs[output] >= 0) reaches[network->outputs[output]] = true;
  }
  for (size_t s = network->step_count; s-- > 0;) {
    step *it = &network->steps[s];
    for (int i = 0; i < it->output_count; i++) it->differentiable |= reaches[it->outputs[i]] && network->values[it->outputs[i]].differentiable;
    if (!it->differentiable) continue;
    for (int i = 0; i < it->input_count; i++)
      if (it->inputs[i] >= 0) reaches[it->inputs[i]] = true;
    for (int i = 0; i < 2; i++)
      if (it->factor_value[i] >= 0) reaches[it->factor_value[i]] = true;
  }
  for (size_t v = 0; v < network->value_count; v++) network->values[v].differentiable &= reaches[v];
  free(reaches);
  return BND_OK;
}

bnd_status bnd_network_lower(bnd_network *network, bnd_error *error) {
  const size_t limit = (size_t)bnd_graph_id_limit(network->graph);
  lowering l = {.network = network, .live = bnd_calloc(limit, sizeof *l.live), .values = bnd_calloc(limit, sizeof *l.values)};
  bnd_status status = l.live && l.values ? BND_OK : bnd_fail_memory(error, "the network");
  if (status == BND_OK) {
    memset(l.values, 0xff, limit * sizeof *l.values);
    mark_live(&l);
    status = lower_nodes(&l, error);
  }
  free(l.live);
  free(l.values);
  if (status == BND_OK) status = mark_differentiable(network, error);
  if (status == BND_OK) status = bnd_thresholds_add(network, error);
  return status;
}
