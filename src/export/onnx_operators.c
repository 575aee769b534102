/* One function for each group of operators: their ONNX form as torch.onnx.export writes it for operator set 17. */
#include <math.h>
#include <string.h>

#include "export/exporter.h"

#define NODE(op_type, place, ...) BND_EXPORT_NODE(exporter, node, op_type, place, __VA_ARGS__)
#define DONE bnd_onnx_builder_status(exporter->builder, error)

/* Initializers beside a node: "<path>.<what>". */
static const char *ints(bnd_exporter *exporter, const bnd_node *node, const char *what, const int64_t *values, size_t count) {
  return bnd_onnx_add_ints(exporter->builder, bnd_onnx_format(exporter->builder, "%s.%s", bnd_export_path(node), what), values, count);
}

static const char *scalar(bnd_exporter *exporter, const bnd_node *node, const char *what, double value) {
  return bnd_onnx_add_scalar(exporter->builder, bnd_onnx_format(exporter->builder, "%s.%s", bnd_export_path(node), what), (float)value);
}

static const bnd_shape *input_shape(const bnd_node *node) {
  return &bnd_arg_node(node, 0)->shape[0];
}

static bool axis_from_start(int64_t axis, int rank, int64_t *result) {
  *result = axis < 0 ? axis + rank : axis;
  return *result >= 0 && *result < rank;
}

/* --- element by element --- */

static bnd_status write_clip(bnd_exporter *exporter, const bnd_node *node, const char *x, const double *low, const double *high, bnd_error *error) {
  const char *minimum = low ? scalar(exporter, node, "min", *low) : "";
  if (high)
    NODE("Clip", BND_EXPORT_LAST, x, minimum, scalar(exporter, node, "max", *high));
  else
    NODE("Clip", BND_EXPORT_LAST, x, minimum);
  return DONE;
}

static bnd_status write_clamp(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  double bounds[2];
  bool given[2];
  for (int i = 0; i < 2; i++) {
    if (bnd_arg_node(node, 1 + i)) return bnd_export_unsupported(node, "bounds that are tensors have no form here", error);
    bounds[i] = bnd_arg_float(node, 1 + i, NAN);
    given[i] = !isnan(bounds[i]);
  }
  return write_clip(exporter, node, x, given[0] ? &bounds[0] : NULL, given[1] ? &bounds[1] : NULL, error);
}

static bnd_status write_gelu(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const bnd_arg *form = bnd_node_keyword(node, "approximate");
  if (form && (form->kind != BND_ARG_TEXT || strcmp(form->text, "none") != 0))
    return bnd_export_unsupported(node, "only the exact form of gelu can be written, not its tanh approximation", error);
  const char *scaled = bnd_export_output(NODE("Div", BND_EXPORT_PART, x, scalar(exporter, node, "sqrt2", 1.4142135623730951)));
  const char *erf = bnd_export_output(NODE("Erf", BND_EXPORT_PART, scaled));
  const char *plus = bnd_export_output(NODE("Add", BND_EXPORT_PART, erf, scalar(exporter, node, "one", 1)));
  const char *product = bnd_export_output(NODE("Mul", BND_EXPORT_PART, x, plus));
  NODE("Mul", BND_EXPORT_LAST, product, scalar(exporter, node, "half", 0.5));
  return DONE;
}

static bnd_status write_arithmetic(bnd_exporter *exporter, const bnd_node *node, const char *a, bnd_error *error) {
  const char *b;
  BND_TRY(bnd_export_input(exporter, node, 1, &b, error));
  const bnd_arg *alpha = bnd_node_keyword(node, "alpha");
  if (alpha && (alpha->kind == BND_ARG_INT || alpha->kind == BND_ARG_FLOAT)) {
    const double factor = alpha->kind == BND_ARG_INT ? (double)alpha->integer : alpha->number;
    if (factor != 1) b = bnd_export_output(NODE("Mul", BND_EXPORT_PART, b, scalar(exporter, node, "alpha", factor)));
  }
  const bnd_operator_id id = bnd_functional_id(node);
  NODE(id == BND_OP_ADD ? "Add" : id == BND_OP_SUB ? "Sub" : id == BND_OP_MUL ? "Mul" : "Div", BND_EXPORT_LAST, a, b);
  return DONE;
}

static bnd_status write_batch_norm(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const char *inputs[5] = {x};
  for (int i = 1; i < 5; i++) BND_TRY(bnd_export_input(exporter, node, i, &inputs[i], error));
  Onnx__NodeProto *made = bnd_export_node(exporter, node, "BatchNormalization", BND_EXPORT_LAST, inputs, 5);
  bnd_onnx_set_float(exporter->builder, made, "epsilon", (float)bnd_arg_float(node, 7, 1e-5));
  bnd_onnx_set_float(exporter->builder, made, "momentum", (float)(1 - bnd_arg_float(node, 6, 0.1)));
  bnd_onnx_set_int(exporter->builder, made, "training_mode", 0);
  return DONE;
}

static bnd_status write_layer_norm(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  int64_t shape[BND_MAX_RANK];
  const int rank = bnd_arg_ints(node, 1, shape, BND_MAX_RANK);
  const char *inputs[3] = {x};
  BND_TRY(bnd_export_input(exporter, node, 2, &inputs[1], error));
  const bool biased = bnd_arg_node(node, 3) != NULL;
  if (biased) BND_TRY(bnd_export_input(exporter, node, 3, &inputs[2], error));
  Onnx__NodeProto *made = bnd_export_node(exporter, node, "LayerNormalization", BND_EXPORT_LAST, inputs, biased ? 3 : 2);
  bnd_onnx_set_int(exporter->builder, made, "axis", -rank);
  bnd_onnx_set_float(exporter->builder, made, "epsilon", (float)bnd_arg_float(node, 4, 1e-5));
  return DONE;
}

/* --- pools and reductions --- */

typedef struct pool_window {
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  bool ceil_mode, count_include_pad;
} pool_window;

static Onnx__NodeProto *write_window(bnd_exporter *exporter, const bnd_node *node, const char *op_type, bnd_export_place place, const char *x,
                                     const pool_window *window) {
  bnd_onnx_builder *builder = exporter->builder;
  const bool average = strcmp(op_type, "AveragePool") == 0;
  const int64_t pads[] = {window->padding[0], window->padding[1], window->padding[0], window->padding[1]};
  Onnx__NodeProto *made = NODE(op_type, place, x);
  bnd_onnx_set_int(builder, made, "ceil_mode", window->ceil_mode);
  if (average)
    bnd_onnx_set_int(builder, made, "count_include_pad", window->count_include_pad);
  else
    bnd_onnx_set_ints(builder, made, "dilations", window->dilation, 2);
  bnd_onnx_set_ints(builder, made, "kernel_shape", window->kernel, 2);
  bnd_onnx_set_ints(builder, made, "pads", pads, 4);
  bnd_onnx_set_ints(builder, made, "strides", window->stride, 2);
  return made;
}

static bnd_status write_max_pool(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  pool_window window = {.ceil_mode = bnd_arg_bool(node, 5, false)};
  bnd_arg_pair(node, 1, 1, window.kernel);
  int64_t given[2];
  const bool strided = bnd_arg_ints(node, 2, given, 2) > 0;
  bnd_arg_pair(node, 2, 1, window.stride);
  if (!strided) memcpy(window.stride, window.kernel, sizeof window.stride);
  bnd_arg_pair(node, 3, 0, window.padding);
  bnd_arg_pair(node, 4, 1, window.dilation);
  write_window(exporter, node, "MaxPool", BND_EXPORT_LAST, x, &window);
  return DONE;
}

/* An average with its divisor and its factor (0 and 1 = none). Pool modules keep the factor as a node even when it is 1, as Quark's do. */
static bnd_status write_average(bnd_exporter *exporter, const bnd_node *node, const char *x, const pool_window *window, int64_t divisor, bool scaled,
                                double scale, bnd_error *error) {
  if (divisor) {
    if (window->ceil_mode || !window->count_include_pad)
      return bnd_export_unsupported(node, "a divisor together with ceil_mode or without counting the padding has no ONNX form", error);
    scale *= (double)(window->kernel[0] * window->kernel[1]) / (double)divisor;
    scaled = true;
  }
  Onnx__NodeProto *pool = write_window(exporter, node, "AveragePool", scaled ? BND_EXPORT_PART : BND_EXPORT_LAST, x, window);
  if (scaled) NODE("Mul", BND_EXPORT_LAST, bnd_export_output(pool), scalar(exporter, node, "scale", scale));
  return DONE;
}

static bnd_status write_avg_pool(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  pool_window window = {.ceil_mode = bnd_arg_bool(node, 4, false), .count_include_pad = bnd_arg_bool(node, 5, true)};
  bnd_arg_pair(node, 1, 1, window.kernel);
  int64_t given[2];
  const bool strided = bnd_arg_ints(node, 2, given, 2) > 0;
  bnd_arg_pair(node, 2, 1, window.stride);
  if (!strided) memcpy(window.stride, window.kernel, sizeof window.stride);
  bnd_arg_pair(node, 3, 0, window.padding);
  return write_average(exporter, node, x, &window, bnd_arg_int(node, 6, 0), false, 1, error);
}

static bnd_status write_pool_module(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const bnd_module *module = node->module;
  if (node->op->id == BND_OP_GLOBAL_AVG_POOL2D_MODULE) {
    const char *pool = bnd_export_output(NODE("GlobalAveragePool", BND_EXPORT_PART, x));
    NODE("Mul", BND_EXPORT_LAST, pool, scalar(exporter, node, "scale", module->scale));
    return DONE;
  }
  pool_window window = {.ceil_mode = module->ceil_mode, .count_include_pad = module->count_include_pad};
  memcpy(window.kernel, module->kernel, sizeof window.kernel);
  memcpy(window.stride, module->stride, sizeof window.stride);
  memcpy(window.padding, module->padding, sizeof window.padding);
  return write_average(exporter, node, x, &window, module->divisor_override, true, module->scale, error);
}

static bnd_status write_adaptive_pool(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  pool_window window = {0};
  int64_t out[2];
  const bnd_shape *in = input_shape(node);
  bnd_arg_pair(node, 1, 1, out);
  if (out[0] == 1 && out[1] == 1) {
    NODE("GlobalAveragePool", BND_EXPORT_LAST, x);
    return DONE;
  }
  for (int i = 0; i < 2; i++) {
    const int64_t size = in->rank == 4 ? in->size[2 + i] : 0;
    if (out[i] < 1 || size < 1 || size % out[i]) return bnd_export_unsupported(node, "its windows have no common size, so ONNX cannot say it", error);
    window.kernel[i] = window.stride[i] = size / out[i];
  }
  write_window(exporter, node, "AveragePool", BND_EXPORT_LAST, x, &window);
  return DONE;
}

static bnd_status write_mean(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  int64_t axes[BND_MAX_RANK];
  const int count =
      node->arg_count > 1 && node->args[1].kind == BND_ARG_INT ? (axes[0] = node->args[1].integer, 1) : bnd_arg_ints(node, 1, axes, BND_MAX_RANK);
  Onnx__NodeProto *made = NODE("ReduceMean", BND_EXPORT_LAST, x);
  if (count) bnd_onnx_set_ints(exporter->builder, made, "axes", axes, (size_t)count);
  bnd_onnx_set_int(exporter->builder, made, "keepdims", bnd_arg_bool(node, 2, false));
  return DONE;
}

/* --- taking apart and putting together --- */

static bnd_status write_cat(bnd_exporter *exporter, const bnd_node *node, bool stack, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  const int count = node->arg_count > 0 && node->args[0].kind == BND_ARG_LIST ? node->args[0].list.count : 0;
  const int64_t axis = bnd_arg_int(node, 1, 0);
  const char **inputs = bnd_arena_alloc(builder->arena, (size_t)count + 1, sizeof *inputs);
  if (!inputs) return bnd_fail_memory(error, "the ONNX graph");
  for (int i = 0; i < count; i++) {
    const bnd_arg *item = &node->args[0].list.items[i];
    inputs[i] = item->kind == BND_ARG_NODE ? bnd_export_value(exporter, bnd_export_origin(item->node)) : NULL;
    if (!inputs[i]) return bnd_export_unsupported(node, "one of its parts has no ONNX form", error);
    if (stack) inputs[i] = bnd_export_output(NODE("Unsqueeze", BND_EXPORT_PART, inputs[i], ints(exporter, node, "axes", &axis, 1)));
  }
  Onnx__NodeProto *made = bnd_export_node(exporter, node, "Concat", BND_EXPORT_LAST, inputs, (size_t)count);
  bnd_onnx_set_int(builder, made, "axis", axis);
  return DONE;
}

static bnd_status write_slice(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const int64_t axis = bnd_arg_int(node, 1, 0), start = bnd_arg_int(node, 2, 0), end = bnd_arg_int(node, 3, INT64_MAX),
                step = bnd_arg_int(node, 4, 1);
  NODE("Slice", BND_EXPORT_LAST, x, ints(exporter, node, "starts", &start, 1), ints(exporter, node, "ends", &end, 1),
       ints(exporter, node, "axes", &axis, 1), ints(exporter, node, "steps", &step, 1));
  return DONE;
}

static bnd_status write_select(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const int64_t index = bnd_arg_int(node, 2, 0);
  bnd_onnx_builder *builder = exporter->builder;
  const char *position = bnd_onnx_add_data(builder, bnd_onnx_format(builder, "%s.index", bnd_export_path(node)), BND_I64, &(bnd_shape){0}, &index);
  Onnx__NodeProto *made = NODE("Gather", BND_EXPORT_LAST, x, position);
  bnd_onnx_set_int(builder, made, "axis", bnd_arg_int(node, 1, 0));
  return DONE;
}

static bnd_status write_split(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  int64_t axis, sizes[BND_MAX_RESULTS];
  if (!axis_from_start(bnd_arg_int(node, 2, 0), input_shape(node)->rank, &axis)) return bnd_export_unsupported(node, "no such dimension", error);
  for (int i = 0; i < node->result_count; i++) sizes[i] = node->shape[i].size[axis];
  Onnx__NodeProto *made = NODE("Split", BND_EXPORT_LAST, x, ints(exporter, node, "split", sizes, (size_t)node->result_count));
  bnd_onnx_set_int(exporter->builder, made, "axis", axis);
  return DONE;
}

/* Two vectors spread over a grid, indexing "ij": each as a column or row plus zeros of the other's length, which is exact. */
static bnd_status write_meshgrid(bnd_exporter *exporter, const bnd_node *node, bnd_error *error) {
  const bnd_arg *list = &node->args[0], *indexing = bnd_node_keyword(node, "indexing");
  if (list->kind != BND_ARG_LIST || list->list.count != 2 || (indexing && (indexing->kind != BND_ARG_TEXT || strcmp(indexing->text, "ij") != 0)))
    return bnd_export_unsupported(node, "only grids of two vectors with \"ij\" indexing have an ONNX form here", error);
  for (int k = 0; k < 2; k++) {
    const bnd_node *input = list->list.items[k].node;
    const char *x = bnd_export_value(exporter, bnd_export_origin(input));
    if (!x || input->shape[0].rank != 1) return bnd_export_unsupported(node, "its inputs are no vectors", error);
    int64_t along[2] = {1, 1}, across[2] = {1, 1};
    along[k] = input->shape[0].size[0];
    across[1 - k] = node->shape[0].size[1 - k];
    bnd_tensor zeros;
    BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE(across[0], across[1]), &zeros, error));
    BND_TRY(bnd_export_keep(exporter, &zeros, error));
    const char *spread = bnd_onnx_add_initializer(exporter->builder, bnd_onnx_format(exporter->builder, "%s.zeros", bnd_export_path(node)), &zeros);
    const char *line = bnd_export_output(NODE("Reshape", BND_EXPORT_PART, x, ints(exporter, node, "shape", along, 2)));
    bnd_export_set_value(exporter, (bnd_result){node, k}, bnd_export_output(NODE("Add", BND_EXPORT_PART, line, spread)));
  }
  return DONE;
}

static bnd_status write_reshape(bnd_exporter *exporter, const bnd_node *node, const char *x, const int64_t *shape, int rank, bnd_error *error) {
  Onnx__NodeProto *made = NODE("Reshape", BND_EXPORT_LAST, x, ints(exporter, node, "shape", shape, (size_t)rank));
  bnd_onnx_set_int(exporter->builder, made, "allowzero", 0);
  return DONE;
}

static bnd_status write_view(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  int64_t shape[BND_MAX_RANK];
  if (node->arg_count < 2 || node->args[1].kind != BND_ARG_LIST || node->args[1].list.count > BND_MAX_RANK)
    return bnd_export_unsupported(node, "its shape is no list of numbers", error);
  const int rank = bnd_arg_ints(node, 1, shape, BND_MAX_RANK);
  if (rank != node->args[1].list.count) return bnd_export_unsupported(node, "its shape is no list of numbers", error);
  return write_reshape(exporter, node, x, shape, rank, error);
}

static bnd_status write_flatten(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const bnd_shape *in = input_shape(node);
  int64_t first, last, shape[BND_MAX_RANK];
  if (!axis_from_start(bnd_arg_int(node, 1, 0), in->rank, &first) || !axis_from_start(bnd_arg_int(node, 2, -1), in->rank, &last) || first > last)
    return bnd_export_unsupported(node, "no such dimensions", error);
  if ((first == 1 && last == in->rank - 1) || (first == 0 && last == in->rank - 2)) {
    bnd_onnx_set_int(exporter->builder, NODE("Flatten", BND_EXPORT_LAST, x), "axis", first == 1 ? 1 : last + 1);
    return DONE;
  }
  int rank = 0;
  for (int i = 0; i < in->rank; i++) {
    if (i > first && i <= last) continue;
    shape[rank++] = i == first ? -1 : in->size[i];
  }
  return write_reshape(exporter, node, x, shape, rank, error);
}

static bnd_status write_permute(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const int rank = input_shape(node)->rank;
  int64_t order[BND_MAX_RANK], a, b;
  for (int i = 0; i < rank; i++) order[i] = i;
  if (node->op->id == BND_OP_TRANSPOSE) {
    if (!axis_from_start(bnd_arg_int(node, 1, 0), rank, &a) || !axis_from_start(bnd_arg_int(node, 2, 0), rank, &b))
      return bnd_export_unsupported(node, "no such dimensions", error);
    order[a] = b;
    order[b] = a;
  } else {
    if (bnd_arg_ints(node, 1, order, BND_MAX_RANK) != rank) return bnd_export_unsupported(node, "its order does not name every dimension", error);
    for (int i = 0; i < rank; i++)
      if (!axis_from_start(order[i], rank, &order[i])) return bnd_export_unsupported(node, "no such dimension", error);
  }
  bnd_onnx_set_ints(exporter->builder, NODE("Transpose", BND_EXPORT_LAST, x), "perm", order, (size_t)rank);
  return DONE;
}

static bnd_status write_squeeze(bnd_exporter *exporter, const bnd_node *node, const char *x, bnd_error *error) {
  const bnd_shape *in = input_shape(node);
  int64_t axis;
  if (!axis_from_start(bnd_arg_int(node, 1, 0), in->rank, &axis)) return bnd_export_unsupported(node, "no such dimension", error);
  if (in->size[axis] == 1)
    NODE("Squeeze", BND_EXPORT_LAST, x, ints(exporter, node, "axes", &axis, 1));
  else
    NODE("Identity", BND_EXPORT_LAST, x); /* torch leaves sizes other than 1 alone */
  return DONE;
}

/* --- the table --- */

bnd_status bnd_export_operator(bnd_exporter *exporter, const bnd_node *node, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  if (bnd_export_is_layer(node)) return bnd_export_layer(exporter, node, error);
  const bnd_operator_id id = bnd_functional_id(node);
  if (id == BND_OP_CAT || id == BND_OP_STACK) return write_cat(exporter, node, id == BND_OP_STACK, error);
  if (id == BND_OP_MESHGRID) return write_meshgrid(exporter, node, error);
  const char *x, *value;
  const bnd_node *input = bnd_arg_node(node, 0);
  if (!input && !bnd_is_arithmetic(node)) return bnd_export_unsupported(node, "its result is needed but cannot be computed beforehand", error);
  BND_TRY(bnd_export_input(exporter, node, 0, &x, error));
  switch (id) {
    case BND_OP_FAKE_QUANTIZE: {
      const char *place = node->scope && *node->scope ? node->scope : bnd_export_path(input);
      const char *path = bnd_onnx_format(builder, "%s/%s", place, node->name);
      return path ? bnd_export_quantizer(exporter, node, node->module->quantizer, path, x, &value, error) : DONE;
    }
    case BND_OP_ADD:
    case BND_OP_SUB:
    case BND_OP_MUL:
    case BND_OP_DIV:
      return write_arithmetic(exporter, node, x, error);
    case BND_OP_BATCH_NORM:
      return write_batch_norm(exporter, node, x, error);
    case BND_OP_LAYER_NORM:
      return write_layer_norm(exporter, node, x, error);
    case BND_OP_RELU:
      NODE("Relu", BND_EXPORT_LAST, x);
      return DONE;
    case BND_OP_RELU6:
      return write_clip(exporter, node, x, &(double){0}, &(double){6}, error);
    case BND_OP_HARDTANH:
      return write_clip(exporter, node, x, &(double){bnd_arg_float(node, 1, -1)}, &(double){bnd_arg_float(node, 2, 1)}, error);
    case BND_OP_CLAMP:
      return write_clamp(exporter, node, x, error);
    case BND_OP_SIGMOID:
      NODE("Sigmoid", BND_EXPORT_LAST, x);
      return DONE;
    case BND_OP_HARDSIGMOID: /* beta 0.5 is ONNX's default, as torch leaves it */
      bnd_onnx_set_float(builder, NODE("HardSigmoid", BND_EXPORT_LAST, x), "alpha", 1.f / 6.f);
      return DONE;
    case BND_OP_SILU:
      NODE("Mul", BND_EXPORT_LAST, x, bnd_export_output(NODE("Sigmoid", BND_EXPORT_PART, x)));
      return DONE;
    case BND_OP_HARDSWISH:
      NODE("HardSwish", BND_EXPORT_LAST, x);
      return DONE;
    case BND_OP_LEAKY_RELU:
    case BND_OP_LEAKY_RELU_MODULE: {
      const double slope = node->module ? node->module->slope : bnd_arg_float(node, 1, 0.01);
      bnd_onnx_set_float(builder, NODE("LeakyRelu", BND_EXPORT_LAST, x), "alpha", (float)slope);
      return DONE;
    }
    case BND_OP_GELU:
      return write_gelu(exporter, node, x, error);
    case BND_OP_SOFTMAX:
      bnd_onnx_set_int(builder, NODE("Softmax", BND_EXPORT_LAST, x), "axis", bnd_arg_int(node, 1, -1));
      return DONE;
    case BND_OP_MAX_POOL2D:
      return write_max_pool(exporter, node, x, error);
    case BND_OP_AVG_POOL2D:
      return write_avg_pool(exporter, node, x, error);
    case BND_OP_ADAPTIVE_AVG_POOL2D:
      return write_adaptive_pool(exporter, node, x, error);
    case BND_OP_AVG_POOL2D_MODULE:
    case BND_OP_GLOBAL_AVG_POOL2D_MODULE:
      return write_pool_module(exporter, node, x, error);
    case BND_OP_MEAN:
      return write_mean(exporter, node, x, error);
    case BND_OP_SUM:
      bnd_onnx_set_int(builder, NODE("ReduceSum", BND_EXPORT_LAST, x), "keepdims", 0);
      return DONE;
    case BND_OP_SLICE:
      return write_slice(exporter, node, x, error);
    case BND_OP_SELECT:
      return write_select(exporter, node, x, error);
    case BND_OP_SPLIT:
    case BND_OP_SPLIT_WITH_SIZES:
      return write_split(exporter, node, x, error);
    case BND_OP_RESHAPE:
    case BND_OP_VIEW:
      return write_view(exporter, node, x, error);
    case BND_OP_FLATTEN:
      return write_flatten(exporter, node, x, error);
    case BND_OP_PERMUTE:
    case BND_OP_TRANSPOSE:
      return write_permute(exporter, node, x, error);
    case BND_OP_SQUEEZE:
      return write_squeeze(exporter, node, x, error);
    case BND_OP_UNSQUEEZE:
      NODE("Unsqueeze", BND_EXPORT_LAST, x, ints(exporter, node, "axes", &(int64_t){bnd_arg_int(node, 1, 0)}, 1));
      return DONE;
    case BND_OP_PIXEL_SHUFFLE: {
      Onnx__NodeProto *made = NODE("DepthToSpace", BND_EXPORT_LAST, x);
      bnd_onnx_set_int(builder, made, "blocksize", bnd_arg_int(node, 1, 1));
      bnd_onnx_set_text(builder, made, "mode", "CRD");
      return DONE;
    }
    default:
      return bnd_export_unsupported(node, "this operator has no ONNX form here", error);
  }
}
