/* From the arguments of a node to what its kernel needs. Schemas: aten's, as named in operators.h. */
#include <math.h>
#include <string.h>

#include "kernels/kernel.h"

static bnd_status fail(const bnd_node *node, bnd_error *error, const char *what) {
  return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s (%s): %s", node->name, node->op ? node->op->target : "", what);
}

static const bnd_shape *input_shape(const bnd_node *node) {
  static const bnd_shape none = {0};
  const bnd_node *x = bnd_arg_node(node, 0);
  if (!x && node->arg_count > 0 && node->args[0].kind == BND_ARG_LIST && node->args[0].list.count > 0 &&
      node->args[0].list.items[0].kind == BND_ARG_NODE)
    x = node->args[0].list.items[0].node;
  return x ? &x->shape[0] : &none;
}

static bnd_status read_axis(const bnd_node *node, int64_t value, int rank, int *axis, bnd_error *error) {
  if (value < -rank || value >= rank) return fail(node, error, "no such dimension");
  *axis = (int)(value < 0 ? value + rank : value);
  return BND_OK;
}

static void read_convolution(const bnd_node *node, bool transposed, bnd_kernel *kernel) {
  bnd_arg_pair(node, 3, 1, kernel->stride);
  bnd_arg_pair(node, 4, 0, kernel->padding);
  bnd_arg_pair(node, transposed ? 7 : 5, 1, kernel->dilation);
  kernel->groups = bnd_arg_int(node, 6, 1);
}

static void read_pool(const bnd_node *node, bnd_kernel *kernel) {
  bnd_arg_pair(node, 1, 1, kernel->window);
  memcpy(kernel->stride, kernel->window, sizeof kernel->stride);
  bnd_arg_ints(node, 2, kernel->stride, 2);
  bnd_arg_pair(node, 3, 0, kernel->padding);
  kernel->dilation[0] = kernel->dilation[1] = 1;
}

static bnd_status read_clamp(const bnd_node *node, double low, double high, bnd_kernel *kernel) {
  kernel->low = bnd_arg_float(node, 1, low);
  kernel->high = bnd_arg_float(node, 2, high);
  return BND_OK;
}

static bnd_status read_slice(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  const bnd_shape *in = input_shape(node);
  BND_TRY(read_axis(node, bnd_arg_int(node, 1, 0), in->rank, &kernel->axis, error));
  const int64_t size = in->size[kernel->axis];
  int64_t start = bnd_arg_int(node, 2, 0);
  if (start < 0) start += size;
  kernel->start = start < 0 ? 0 : start > size ? size : start;
  kernel->step = bnd_node_is(node, BND_OP_SELECT) ? 1 : bnd_arg_int(node, 4, 1);
  return BND_OK;
}

static bnd_status read_order(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  const int rank = input_shape(node)->rank;
  int64_t values[BND_MAX_RANK];
  if (bnd_arg_ints(node, 1, values, BND_MAX_RANK) < rank) return fail(node, error, "the order of dimensions is incomplete");
  for (int i = 0; i < rank; i++) BND_TRY(read_axis(node, values[i], rank, &kernel->order[i], error));
  return BND_OK;
}

static bnd_status read_transpose(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  const int rank = input_shape(node)->rank;
  int a = 0, b = 0;
  BND_TRY(read_axis(node, bnd_arg_int(node, 1, 0), rank, &a, error));
  BND_TRY(read_axis(node, bnd_arg_int(node, 2, 0), rank, &b, error));
  for (int i = 0; i < rank; i++) kernel->order[i] = i;
  kernel->order[a] = b;
  kernel->order[b] = a;
  return BND_OK;
}

static bnd_status read_mean(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  const int rank = input_shape(node)->rank;
  int64_t values[BND_MAX_RANK];
  const int count = bnd_arg_ints(node, 1, values, BND_MAX_RANK);
  for (int i = 0; i < rank; i++) kernel->reduced[i] = count == 0;
  for (int i = 0; i < count; i++) {
    int axis = 0;
    BND_TRY(read_axis(node, values[i], rank, &axis, error));
    kernel->reduced[axis] = true;
  }
  return BND_OK;
}

static bnd_status read_layer_norm(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  int64_t sizes[BND_MAX_RANK];
  const bnd_arg *arg = node->arg_count > 1 ? &node->args[1] : NULL;
  const int count = arg && arg->kind == BND_ARG_LIST ? bnd_arg_ints(node, 1, sizes, BND_MAX_RANK) : 0;
  const bnd_shape *in = input_shape(node);
  if (count < 1 || count > in->rank) return fail(node, error, "the normalized shape is no list of sizes");
  kernel->axis = in->rank - count;
  for (int i = 0; i < count; i++)
    if (sizes[i] != in->size[kernel->axis + i]) return fail(node, error, "the normalized shape is not the end of the input's");
  kernel->number = bnd_arg_float(node, 4, 1e-5);
  return BND_OK;
}

static bnd_status read_cat(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  return read_axis(node, bnd_arg_int(node, 1, 0), node->shape[0].rank, &kernel->axis, error);
}

static bool keyword_is(const bnd_node *node, const char *name, const char *expected) {
  const bnd_arg *value = bnd_node_keyword(node, name);
  return value && value->kind == BND_ARG_TEXT && strcmp(value->text, expected) == 0;
}

static bnd_status read_conversion(const bnd_node *node, bnd_error *error) {
  const bnd_node *x = bnd_arg_node(node, 0);
  if (x && x->dtype <= BND_BF16 && node->dtype > BND_BF16) return fail(node, error, "conversion of fractions to whole numbers");
  return BND_OK;
}

static void read_module(const bnd_node *node, bnd_kernel *kernel) {
  const bnd_module *module = node->module;
  memcpy(kernel->stride, module->stride, sizeof kernel->stride);
  memcpy(kernel->padding, module->padding, sizeof kernel->padding);
  memcpy(kernel->dilation, module->dilation, sizeof kernel->dilation);
  memcpy(kernel->window, module->kernel, sizeof kernel->window);
  kernel->groups = module->groups;
  kernel->count_include_pad = module->count_include_pad;
  kernel->divisor = module->divisor_override;
  kernel->number = module->scale;
  kernel->quantizer = module->quantizer;
}

/* Modules and pure renamings compute the same as one of the functions. */
static bnd_operator_id computed_id(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_CONV2D_MODULE:
    case BND_OP_CONV2D_BN_MODULE: return BND_OP_CONV2D;
    case BND_OP_CONV_TRANSPOSE2D_MODULE:
    case BND_OP_CONV_TRANSPOSE2D_BN_MODULE: return BND_OP_CONV_TRANSPOSE2D;
    case BND_OP_LINEAR_MODULE: return BND_OP_LINEAR;
    case BND_OP_AVG_POOL2D_MODULE: return BND_OP_AVG_POOL2D;
    case BND_OP_GLOBAL_AVG_POOL2D_MODULE: return BND_OP_ADAPTIVE_AVG_POOL2D;
    case BND_OP_LEAKY_RELU_MODULE: return BND_OP_LEAKY_RELU;
    case BND_OP_RELU6:
    case BND_OP_HARDTANH:
    case BND_OP_CLIP: return BND_OP_CLAMP;
    case BND_OP_SELECT: return BND_OP_SLICE;
    case BND_OP_SPLIT_WITH_SIZES: return BND_OP_SPLIT;
    case BND_OP_TRANSPOSE: return BND_OP_PERMUTE;
    case BND_OP_STACK: return BND_OP_CAT;
    case BND_OP_VIEW:
    case BND_OP_FLATTEN:
    case BND_OP_SQUEEZE:
    case BND_OP_UNSQUEEZE:
    case BND_OP_CONTIGUOUS:
    case BND_OP_DROPOUT:
    case BND_OP_TO:
    case BND_OP_QUANT_STUB:
    case BND_OP_DEQUANT_STUB: return BND_OP_RESHAPE;
    default: return bnd_functional_id(node);
  }
}

static bnd_status read_function(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  const bnd_shape *in = input_shape(node);
  switch (bnd_functional_id(node)) {
    case BND_OP_CONV2D: read_convolution(node, false, kernel); break;
    case BND_OP_CONV_TRANSPOSE2D: read_convolution(node, true, kernel); break;
    case BND_OP_BATCH_NORM:
      kernel->number = bnd_arg_float(node, 7, 1e-5);
      if (bnd_arg_bool(node, 5, false)) return fail(node, error, "batch norm in training mode");
      break;
    case BND_OP_LAYER_NORM: return read_layer_norm(node, kernel, error);
    case BND_OP_RELU6:
      kernel->high = 6;
      kernel->open = true;
      break;
    case BND_OP_HARDTANH:
      kernel->open = true;
      return read_clamp(node, -1, 1, kernel);
    case BND_OP_CLAMP:
    case BND_OP_CLIP: return read_clamp(node, -INFINITY, INFINITY, kernel);
    case BND_OP_LEAKY_RELU: kernel->number = bnd_arg_float(node, 1, 0.01); break;
    case BND_OP_GELU: kernel->approximate = keyword_is(node, "approximate", "tanh"); break;
    case BND_OP_SOFTMAX: return read_axis(node, bnd_arg_int(node, 1, -1), in->rank, &kernel->axis, error);
    case BND_OP_ADD:
    case BND_OP_SUB: {
      const bnd_arg *factor = bnd_node_keyword(node, "alpha");
      kernel->number = !factor ? 1 : factor->kind == BND_ARG_INT ? (double)factor->integer : factor->number;
      break;
    }
    case BND_OP_MAX_POOL2D:
      read_pool(node, kernel);
      bnd_arg_pair(node, 4, 1, kernel->dilation);
      break;
    case BND_OP_AVG_POOL2D:
      read_pool(node, kernel);
      kernel->count_include_pad = bnd_arg_bool(node, 5, true);
      kernel->divisor = bnd_arg_int(node, 6, 0);
      kernel->number = 1;
      break;
    case BND_OP_ADAPTIVE_AVG_POOL2D: kernel->number = 1; break;
    case BND_OP_MEAN: return read_mean(node, kernel, error);
    case BND_OP_CAT:
    case BND_OP_STACK: return read_cat(node, kernel, error);
    case BND_OP_SLICE:
    case BND_OP_SELECT: return read_slice(node, kernel, error);
    case BND_OP_SPLIT:
    case BND_OP_SPLIT_WITH_SIZES: return read_axis(node, bnd_arg_int(node, 2, 0), in->rank, &kernel->axis, error);
    case BND_OP_PERMUTE: return read_order(node, kernel, error);
    case BND_OP_TRANSPOSE: return read_transpose(node, kernel, error);
    case BND_OP_PIXEL_SHUFFLE: kernel->factor = bnd_arg_int(node, 1, 1); break;
    case BND_OP_TO: return read_conversion(node, error);
    case BND_OP_FULL: kernel->number = bnd_arg_float(node, 1, 0); break;
    case BND_OP_MESHGRID:
      if (bnd_node_keyword(node, "indexing") && !keyword_is(node, "indexing", "ij")) return fail(node, error, "only indexing \"ij\"");
      break;
    default: break;
  }
  return BND_OK;
}

bnd_status bnd_kernel_of_node(const bnd_node *node, bnd_kernel *kernel, bnd_error *error) {
  memset(kernel, 0, sizeof *kernel);
  if (!node->op) return fail(node, error, "not a call");
  kernel->id = computed_id(node);
  kernel->threads = 1;
  if (node->kind == BND_CALL_FUNCTION) return read_function(node, kernel, error);
  if (!node->module) return fail(node, error, "the module is missing");
  read_module(node, kernel);
  if (kernel->id == BND_OP_LEAKY_RELU) kernel->number = node->module->slope;
  if (kernel->id == BND_OP_FAKE_QUANTIZE && !kernel->quantizer) return fail(node, error, "the quantizer is missing");
  return BND_OK;
}

static void add_operand(bnd_operand *operands, int limit, int *count, const bnd_arg *arg) {
  bnd_operand operand = {0};
  if (arg && arg->kind == BND_ARG_NODE) operand.node = arg->node;
  if (arg && (arg->kind == BND_ARG_INT || arg->kind == BND_ARG_FLOAT)) {
    operand.is_number = true;
    operand.number = arg->kind == BND_ARG_INT ? (double)arg->integer : arg->number;
  }
  if (*count < limit) operands[*count] = operand;
  (*count)++;
}

int bnd_kernel_operands(const bnd_node *node, bnd_operand *operands, int limit) {
  int count = 0, first = 0, places = 0;
  switch (computed_id(node)) {
    case BND_OP_CONV2D:
    case BND_OP_CONV_TRANSPOSE2D:
    case BND_OP_LINEAR: places = node->kind == BND_CALL_MODULE ? 1 : 3; break;
    case BND_OP_BATCH_NORM: places = 5; break;
    case BND_OP_ADD:
    case BND_OP_SUB:
    case BND_OP_MUL:
    case BND_OP_DIV: places = 2; break;
    case BND_OP_LAYER_NORM:
      add_operand(operands, limit, &count, node->arg_count > 0 ? &node->args[0] : NULL);
      first = 2;
      places = 4;
      break;
    case BND_OP_ARANGE:
    case BND_OP_FULL: return 0;
    case BND_OP_CAT:
    case BND_OP_MESHGRID:
      for (int i = 0; node->arg_count > 0 && node->args[0].kind == BND_ARG_LIST && i < node->args[0].list.count; i++)
        add_operand(operands, limit, &count, &node->args[0].list.items[i]);
      return count;
    default: places = 1; break;
  }
  for (int i = first; i < places; i++) add_operand(operands, limit, &count, i < node->arg_count ? &node->args[i] : NULL);
  return count;
}
