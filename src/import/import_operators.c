/* Element by element operators, shapes, and the table of all that can be read. */
#include <math.h>
#include <string.h>

#include "import/importer.h"

/* The first input as a node and its shape. */
static bnd_status first_input(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_node **x, bnd_error *error) {
  return bnd_import_input_node(importer, proto, 0, x, error);
}

static bnd_status unary(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_operator_id id, bnd_error *error) {
  bnd_node *x;
  BND_TRY(first_input(importer, proto, &x, error));
  return bnd_import_result(importer, proto, id, (const bnd_arg[]){bnd_arg_of_node(x)}, 1, error);
}

static bnd_status read_relu(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  return unary(importer, proto, BND_OP_RELU, error);
}
static bnd_status read_sigmoid(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  return unary(importer, proto, BND_OP_SIGMOID, error);
}
static bnd_status read_hard_swish(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  return unary(importer, proto, BND_OP_HARDSWISH, error);
}

static bnd_status read_hard_sigmoid(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  const double alpha = bnd_import_float(proto, "alpha", 0.2), beta = bnd_import_float(proto, "beta", 0.5);
  if (fabs(alpha - 1. / 6) > 1e-6 || beta != 0.5)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "alpha %g and beta %g; the NPU and torch know only 1/6 and 0.5", alpha, beta);
  return unary(importer, proto, BND_OP_HARDSIGMOID, error);
}

static bnd_status read_leaky_relu(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  BND_TRY(first_input(importer, proto, &x, error));
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_float(bnd_import_float(proto, "alpha", 0.01))};
  return bnd_import_result(importer, proto, BND_OP_LEAKY_RELU, args, 2, error);
}

/* Bounds are attributes before operator set 11 and inputs since. */
static bnd_status read_clip(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  BND_TRY(first_input(importer, proto, &x, error));
  bnd_arg args[3] = {bnd_arg_of_node(x)};
  for (size_t i = 1; i < 3; i++) {
    const char *name = i == 1 ? "min" : "max";
    bnd_import_value *bound;
    double number = NAN;
    BND_TRY(bnd_import_input(importer, proto, i, true, &bound, error));
    if (bound && !bnd_import_is_scalar(bound, &number))
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its bound %s is not a constant number", bound->name);
    if (!bound && bnd_import_attribute(proto, name)) number = bnd_import_float(proto, name, NAN);
    args[i] = isfinite(number) && fabs(number) < 3.4e38 ? bnd_arg_of_float(number) : BND_NONE_ARG; /* older files write -FLT_MAX for none */
  }
  return bnd_import_result(importer, proto, BND_OP_CLAMP, args, 3, error);
}

static bnd_status read_softmax(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  BND_TRY(first_input(importer, proto, &x, error));
  const int64_t axis = bnd_import_int(proto, "axis", importer->opset < 13 ? 1 : -1);
  const int rank = x->shape[0].rank;
  if (axis < -rank || axis >= rank) return bnd_fail(error, BND_ERROR_FORMAT, "axis %lld does not exist", (long long)axis);
  if (importer->opset < 13 && axis != rank - 1 && axis != -1) /* it flattened everything from the axis on */
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "before operator set 13 only a softmax over the last dimension is supported");
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_int(axis)};
  return bnd_import_result(importer, proto, BND_OP_SOFTMAX, args, 2, error);
}

/* --- arithmetic --- */

static bnd_status read_arithmetic(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  const char *op = proto->op_type;
  const bnd_operator_id id = strcmp(op, "Add") == 0   ? BND_OP_ADD
                             : strcmp(op, "Sub") == 0 ? BND_OP_SUB
                             : strcmp(op, "Mul") == 0 ? BND_OP_MUL
                                                      : BND_OP_DIV;
  bnd_import_value *values[2];
  double numbers[2];
  bool scalar[2];
  for (size_t i = 0; i < 2; i++) {
    BND_TRY(bnd_import_input(importer, proto, i, false, &values[i], error));
    scalar[i] = bnd_import_is_scalar(values[i], &numbers[i]);
  }
  if (scalar[0]) scalar[1] = false; /* at least one tensor */
  if (id == BND_OP_MUL && scalar[1] && values[0]->kind == BND_IMPORT_NODE && bnd_import_readers(importer, values[0]->name) == 1) {
    bool done;
    BND_TRY(bnd_import_scaled_pool(importer, proto, values[0]->node, numbers[1], &done, error));
    if (done) return BND_OK;
  }
  bnd_arg args[2];
  for (int i = 0; i < 2; i++) {
    bnd_node *node = NULL;
    if (!scalar[i]) BND_TRY(bnd_import_node_of(importer, values[i], &node, error));
    args[i] = scalar[i] ? bnd_arg_of_float(numbers[i]) : bnd_arg_of_node(node);
  }
  return bnd_import_result(importer, proto, id, args, 2, error);
}

/* gelu as torch writes it: x * (Erf(x / sqrt 2) + 1) * 0.5. Follows the only reader of each step. */
static const Onnx__NodeProto *next_step(bnd_importer *importer, const Onnx__NodeProto *from, const char *op_type, const char *other, double number,
                                        size_t *index) {
  size_t at, value;
  if (bnd_import_readers(importer, from->output[0]) != 1 || !bnd_map_get(&importer->first_reader, from->output[0], &at)) return NULL;
  const Onnx__NodeProto *step = importer->proto->node[at];
  if (strcmp(bnd_import_text(step->op_type), op_type) != 0 || step->n_input != 2 || step->n_output != 1) return NULL;
  const char *operand = step->input[strcmp(step->input[0], from->output[0]) == 0 ? 1 : 0];
  double found;
  *index = at;
  if (other) return strcmp(operand, other) == 0 ? step : NULL;
  if (!bnd_map_get(&importer->names, operand, &value) || !bnd_import_is_scalar(importer->values[value], &found)) return NULL;
  return fabs(found - number) < 1e-6 ? step : NULL;
}

static bnd_status read_erf(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *scaled;
  BND_TRY(bnd_import_input(importer, proto, 0, false, &scaled, error));
  bnd_node *division = scaled->kind == BND_IMPORT_NODE && bnd_node_is(scaled->node, BND_OP_DIV) ? scaled->node : NULL;
  bnd_node *x = division && fabs(bnd_arg_float(division, 1, 0) - 1.4142135623730951) < 1e-6 ? bnd_arg_node(division, 0) : NULL;
  const char *name = NULL;
  for (size_t i = 0; x && i < importer->value_count && !name; i++)
    if (importer->values[i]->kind == BND_IMPORT_NODE && importer->values[i]->node == x) name = importer->values[i]->name;
  size_t steps[3];
  const Onnx__NodeProto *sum = name ? next_step(importer, proto, "Add", NULL, 1, &steps[0]) : NULL;
  const Onnx__NodeProto *product = sum ? next_step(importer, sum, "Mul", name, 0, &steps[1]) : NULL;
  const Onnx__NodeProto *half = product ? next_step(importer, product, "Mul", NULL, 0.5, &steps[2]) : NULL;
  if (!half) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "is only known as a part of gelu");
  for (int i = 0; i < 3; i++) importer->done[steps[i]] = true;
  BND_TRY(bnd_import_result(importer, half, BND_OP_GELU, (const bnd_arg[]){bnd_arg_of_node(x)}, 1, error));
  if (division->user_count == 0 && bnd_import_readers(importer, scaled->name) == 1) bnd_node_erase(division);
  return BND_OK;
}

/* --- taking apart and putting together --- */

static bnd_status read_concat(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node **parts = bnd_arena_alloc(importer->arena, proto->n_input, sizeof *parts);
  if (!parts || proto->n_input > 4096) return bnd_fail_memory(error, "the parts of a Concat");
  for (size_t i = 0; i < proto->n_input; i++) BND_TRY(bnd_import_input_node(importer, proto, i, &parts[i], error));
  const bnd_arg args[] = {bnd_graph_node_list(importer->graph, parts, (int)proto->n_input), bnd_arg_of_int(bnd_import_int(proto, "axis", 0))};
  return bnd_import_result(importer, proto, BND_OP_CAT, args, 2, error);
}

static bnd_status read_slice(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  static const char *const NAMES[] = {"starts", "ends", "axes", "steps"};
  int64_t lists[4][BND_MAX_RANK];
  int counts[4];
  bnd_node *x;
  BND_TRY(first_input(importer, proto, &x, error));
  for (int k = 0; k < 4; k++) BND_TRY(bnd_import_axes(importer, proto, NAMES[k], (size_t)k + 1, lists[k], &counts[k], error));
  if (counts[0] < 1 || counts[0] != counts[1] || (counts[2] && counts[2] != counts[0]) || (counts[3] && counts[3] != counts[0]))
    return bnd_fail(error, BND_ERROR_FORMAT, "its starts, ends, axes and steps are not equally many");
  for (int i = 0; i < counts[0]; i++) { /* one slice for each axis; the last one is the result */
    const int64_t axis = counts[2] ? lists[2][i] : i, step = counts[3] ? lists[3][i] : 1;
    if (step < 1) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "a step of %lld is not supported", (long long)step);
    const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_int(axis), bnd_arg_of_int(lists[0][i]), bnd_arg_of_int(lists[1][i]), bnd_arg_of_int(step)};
    BND_TRY(bnd_import_call(importer, proto, BND_OP_SLICE, NULL, args, step == 1 ? 4 : 5, &x, error));
  }
  return bnd_import_add_node(importer, proto->output[0], x, error);
}

static bnd_status read_gather(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  bnd_import_value *index;
  int64_t position;
  int count;
  BND_TRY(first_input(importer, proto, &x, error));
  BND_TRY(bnd_import_input(importer, proto, 1, false, &index, error));
  BND_TRY(bnd_import_ints(index, "indices", &position, 1, &count, error));
  if (index->tensor.shape.rank != 0) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "only one index is supported");
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_int(bnd_import_int(proto, "axis", 0)), bnd_arg_of_int(position)};
  return bnd_import_result(importer, proto, BND_OP_SELECT, args, 3, error);
}

static bnd_status read_split(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x, *node = NULL, *part;
  int64_t sizes[BND_MAX_RANK];
  int count;
  const int64_t axis = bnd_import_int(proto, "axis", 0);
  BND_TRY(first_input(importer, proto, &x, error));
  const int rank = x->shape[0].rank;
  if (axis < -rank || axis >= rank) return bnd_fail(error, BND_ERROR_FORMAT, "axis %lld does not exist", (long long)axis);
  if (proto->n_output < 1 || proto->n_output > BND_MAX_RESULTS)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "splits into %zu parts, at most %d are supported", proto->n_output, BND_MAX_RESULTS);
  BND_TRY(bnd_import_axes(importer, proto, "split", 1, sizes, &count, error));
  if (count == 0) {
    const int64_t whole = x->shape[0].size[axis < 0 ? axis + rank : axis], size = (whole + (int64_t)proto->n_output - 1) / (int64_t)proto->n_output;
    for (; (size_t)count < proto->n_output; count++) sizes[count] = whole - count * size < size ? whole - count * size : size;
  }
  if ((size_t)count != proto->n_output) return bnd_fail(error, BND_ERROR_FORMAT, "has %d sizes for %zu parts", count, proto->n_output);
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(importer->graph, sizes, count), bnd_arg_of_int(axis)};
  BND_TRY(bnd_import_call(importer, proto, BND_OP_SPLIT_WITH_SIZES, NULL, args, 3, &node, error));
  for (int i = 0; i < count; i++) {
    if (!*proto->output[i]) continue;
    part =
        bnd_graph_call(importer->graph, bnd_operator_of(BND_OP_GETITEM), "getitem", (const bnd_arg[]){bnd_arg_of_node(node), bnd_arg_of_int(i)}, 2);
    if (!part) return bnd_graph_status(importer->graph, error);
    BND_TRY(bnd_infer_node_shape(part, error));
    BND_TRY(bnd_import_add_node(importer, proto->output[i], part, error));
  }
  return BND_OK;
}

/* A constant under another shape stays a constant, so that a weight that is reshaped first is still a weight. */
static bnd_status reshape_constant(bnd_importer *importer, const Onnx__NodeProto *proto, const bnd_tensor *from, bnd_shape *shape, bnd_error *error) {
  size_t known = 1, count;
  int open = -1;
  for (int i = 0; i < shape->rank; i++) {
    if (shape->size[i] == -1 && open < 0)
      open = i;
    else if (shape->size[i] < 0 || !bnd_size_multiply(known, (size_t)shape->size[i], &known))
      known = 0;
  }
  if (open >= 0 && known > 0) shape->size[open] = (int64_t)(from->count / known);
  if (!bnd_shape_count(shape, &count) || count != from->count)
    return bnd_fail(error, BND_ERROR_FORMAT, "its shape does not fit its %zu values", from->count);
  bnd_import_value *value;
  BND_TRY(bnd_import_add(importer, proto->output[0], BND_IMPORT_CONSTANT, &value, error));
  value->tensor = bnd_tensor_share(from, shape);
  return BND_OK;
}

static bnd_status read_reshape(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  bnd_import_value *input, *value;
  bnd_shape shape = {0};
  BND_TRY(bnd_import_input(importer, proto, 0, false, &input, error));
  BND_TRY(bnd_import_input(importer, proto, 1, false, &value, error));
  BND_TRY(bnd_import_ints(value, "shape", shape.size, BND_MAX_RANK, &shape.rank, error));
  const bool constant = input->kind == BND_IMPORT_CONSTANT && !input->quantizer;
  if (!constant) BND_TRY(bnd_import_node_of(importer, input, &x, error));
  const bnd_shape *from = constant ? &input->tensor.shape : &x->shape[0];
  for (int i = 0; i < shape.rank; i++) /* 0 = as in the input */
    if (shape.size[i] == 0 && !bnd_import_int(proto, "allowzero", 0) && i < from->rank) shape.size[i] = from->size[i];
  if (constant) return reshape_constant(importer, proto, &input->tensor, &shape, error);
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(importer->graph, shape.size, shape.rank)};
  return bnd_import_result(importer, proto, BND_OP_RESHAPE, args, 2, error);
}

static bnd_status read_flatten(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  BND_TRY(first_input(importer, proto, &x, error));
  const int rank = x->shape[0].rank;
  int64_t axis = bnd_import_int(proto, "axis", 1);
  if (axis < 0) axis += rank;
  if (axis < 0 || axis > rank) return bnd_fail(error, BND_ERROR_FORMAT, "its axis does not exist");
  if (axis == 1 && rank > 1) {
    const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_int(1)};
    return bnd_import_result(importer, proto, BND_OP_FLATTEN, args, 2, error);
  }
  bnd_shape rows = {.rank = (int)axis};
  size_t count;
  for (int i = 0; i < rows.rank; i++) rows.size[i] = x->shape[0].size[i];
  if (!bnd_shape_count(&rows, &count) || count == 0) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "flattens nothing");
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(importer->graph, (const int64_t[]){(int64_t)count, -1}, 2)};
  return bnd_import_result(importer, proto, BND_OP_RESHAPE, args, 2, error);
}

static bnd_status read_transpose(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *value;
  bnd_node *x;
  int64_t order[BND_MAX_RANK];
  int count = bnd_import_int_list(proto, "perm", order, BND_MAX_RANK);
  BND_TRY(bnd_import_input(importer, proto, 0, false, &value, error));
  if (value->kind == BND_IMPORT_CONSTANT && value->tensor.dtype == BND_F32 && value->tensor.shape.rank == 2 &&
      (count == 0 || (count == 2 && order[0] == 1 && order[1] == 0)) && !value->turned)
    return bnd_import_turned(importer, value, proto->output[0], &value, error);
  BND_TRY(bnd_import_node_of(importer, value, &x, error));
  if (count == 0) /* the default turns all dimensions around */
    for (; count < x->shape[0].rank; count++) order[count] = x->shape[0].rank - 1 - count;
  if (count < 0) return bnd_fail(error, BND_ERROR_FORMAT, "its perm has too many numbers");
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(importer->graph, order, count)};
  return bnd_import_result(importer, proto, BND_OP_PERMUTE, args, 2, error);
}

/* Squeeze and Unsqueeze with one torch node for each axis; the last one is the result. */
static bnd_status read_squeeze(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  const bool insert = strcmp(proto->op_type, "Unsqueeze") == 0;
  bnd_node *x;
  int64_t axes[BND_MAX_RANK];
  int count;
  BND_TRY(first_input(importer, proto, &x, error));
  BND_TRY(bnd_import_axes(importer, proto, "axes", 1, axes, &count, error));
  if (count == 0 && !insert)
    for (int i = 0; i < x->shape[0].rank; i++)
      if (x->shape[0].size[i] == 1) axes[count++] = i;
  const int rank = x->shape[0].rank + (insert ? count : 0);
  for (int i = 0; i < count; i++) {
    if (axes[i] < -rank || axes[i] >= rank) return bnd_fail(error, BND_ERROR_FORMAT, "axis %lld does not exist", (long long)axes[i]);
    if (axes[i] < 0 && count > 1) axes[i] += rank;
  }
  for (int i = 0; i < count; i++) /* in rising order when inserting, falling when removing */
    for (int k = i + 1; k < count; k++)
      if (insert ? axes[k] < axes[i] : axes[k] > axes[i]) {
        const int64_t other = axes[i];
        axes[i] = axes[k];
        axes[k] = other;
      }
  for (int i = 0; i < count; i++) {
    const int64_t at = axes[i] < 0 ? axes[i] + x->shape[0].rank : axes[i];
    if (!insert && (at >= x->shape[0].rank || x->shape[0].size[at] != 1))
      return bnd_fail(error, BND_ERROR_FORMAT, "dimension %lld is not 1", (long long)at);
    const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_int(axes[i])};
    BND_TRY(bnd_import_call(importer, proto, insert ? BND_OP_UNSQUEEZE : BND_OP_SQUEEZE, NULL, args, 2, &x, error));
  }
  return bnd_import_add_node(importer, proto->output[0], x, error);
}

static bnd_status read_depth_to_space(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x;
  BND_TRY(first_input(importer, proto, &x, error));
  if (!bnd_import_text_is(proto, "mode", "CRD", false))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "only mode CRD (torch's pixel_shuffle) is supported");
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_int(bnd_import_int(proto, "blocksize", 1))};
  return bnd_import_result(importer, proto, BND_OP_PIXEL_SHUFFLE, args, 2, error);
}

/* Constants only: what torch leaves of a meshgrid. */
static bnd_status read_expand(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *from, *to, *made;
  bnd_shape wanted = {0}, out = {0};
  BND_TRY(bnd_import_input(importer, proto, 0, false, &from, error));
  BND_TRY(bnd_import_input(importer, proto, 1, false, &to, error));
  BND_TRY(bnd_import_ints(to, "shape", wanted.size, BND_MAX_RANK, &wanted.rank, error));
  if (from->kind != BND_IMPORT_CONSTANT || from->quantizer || from->tensor.dtype != BND_F32)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "only constants can be expanded; simplify the model first, for example with onnxsim");
  const bnd_shape *in = &from->tensor.shape;
  out.rank = wanted.rank > in->rank ? wanted.rank : in->rank;
  size_t count = 1;
  for (int back = 1; back <= out.rank; back++) {
    const int64_t a = back <= in->rank ? in->size[in->rank - back] : 1, b = back <= wanted.rank ? wanted.size[wanted.rank - back] : 1;
    if (a != b && a != 1 && b != 1) return bnd_fail(error, BND_ERROR_FORMAT, "its shapes do not fit together");
    out.size[out.rank - back] = a == 1 ? b : a;
  }
  if (!bnd_shape_count(&out, &count) || count > (1 << 24)) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "expands to more values than make sense");
  BND_TRY(bnd_import_add(importer, proto->output[0], BND_IMPORT_CONSTANT, &made, error));
  BND_TRY(bnd_tensor_create(BND_F32, &out, &made->tensor, error));
  for (size_t i = 0; i < made->tensor.count; i++) {
    size_t rest = i, offset = 0, step = 1;
    for (int back = 1; back <= in->rank; back++) {
      const size_t size = (size_t)out.size[out.rank - back], own = (size_t)in->size[in->rank - back];
      offset += own == 1 ? 0 : rest % size * step;
      rest /= size;
      step *= own;
    }
    bnd_f32(&made->tensor)[i] = bnd_f32(&from->tensor)[offset];
  }
  return BND_OK;
}

/* --- values as they are --- */

/* Another name for the same value, whose readers are now those of both names. */
static bnd_status read_identity(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  size_t index = 0;
  bnd_import_value *value;
  BND_TRY(bnd_import_input(importer, proto, 0, false, &value, error));
  if (bnd_map_get(&importer->names, proto->output[0], NULL))
    return bnd_fail(error, BND_ERROR_FORMAT, "the value %s is defined twice", proto->output[0]);
  bnd_map_get(&importer->names, proto->input[0], &index);
  const int readers = bnd_import_readers(importer, value->name) + bnd_import_readers(importer, proto->output[0]) - 1;
  if (!bnd_map_put(&importer->names, proto->output[0], index) || !bnd_map_put(&importer->readers, value->name, (size_t)readers))
    return bnd_fail_memory(error, "the values of the file");
  return BND_OK;
}

static bnd_status read_cast(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *value;
  BND_TRY(bnd_import_input(importer, proto, 0, false, &value, error));
  const bool is_float = value->kind == BND_IMPORT_NODE || (value->kind == BND_IMPORT_CONSTANT && value->tensor.dtype == BND_F32);
  if (bnd_import_int(proto, "to", 0) != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT || !is_float)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "only a conversion from float32 to float32 is supported");
  return read_identity(importer, proto, error);
}

static bnd_status read_dropout(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  if (proto->n_output > 1 && *proto->output[1]) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its mask is not supported");
  return read_identity(importer, proto, error);
}

static bnd_status read_constant(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *value;
  const Onnx__AttributeProto *attribute = proto->n_attribute == 1 ? proto->attribute[0] : NULL;
  const char *name = attribute ? bnd_import_text(attribute->name) : "";
  BND_TRY(bnd_import_add(importer, proto->output[0], BND_IMPORT_CONSTANT, &value, error));
  if (strcmp(name, "value") == 0 && attribute->t) return bnd_import_tensor(attribute->t, &value->tensor, error);
  const bool whole = strcmp(name, "value_int") == 0 || strcmp(name, "value_ints") == 0;
  const bool list = strcmp(name, "value_ints") == 0 || strcmp(name, "value_floats") == 0;
  if (!whole && strcmp(name, "value_float") != 0 && strcmp(name, "value_floats") != 0)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its kind of constant (%s) is not supported", name);
  const int64_t count = list ? (int64_t)(whole ? attribute->n_ints : attribute->n_floats) : 1;
  const bnd_shape shape = list ? BND_SHAPE(count) : (bnd_shape){0};
  BND_TRY(bnd_tensor_create(whole ? BND_I64 : BND_F32, &shape, &value->tensor, error));
  for (int64_t i = 0; i < count; i++) {
    if (whole)
      ((int64_t *)value->tensor.data)[i] = list ? attribute->ints[i] : attribute->i;
    else
      bnd_f32(&value->tensor)[i] = list ? attribute->floats[i] : attribute->f;
  }
  return BND_OK;
}

bnd_import_rule *bnd_import_rule_of(const char *op_type, size_t *inputs) {
  static const struct {
    const char *op_type;
    size_t inputs; /* at most, in any operator set */
    bnd_import_rule *rule;
  } RULES[] = {
      {"Add", 2, read_arithmetic},
      {"AveragePool", 1, bnd_import_average_pool},
      {"BatchNormalization", 5, bnd_import_batch_norm},
      {"Cast", 1, read_cast},
      {"Clip", 3, read_clip},
      {"Concat", 4096, read_concat},
      {"Constant", 0, read_constant},
      {"Conv", 3, bnd_import_conv},
      {"ConvTranspose", 3, bnd_import_conv},
      {"DepthToSpace", 1, read_depth_to_space},
      {"DequantizeLinear", 3, bnd_import_dequantize},
      {"Div", 2, read_arithmetic},
      {"Dropout", 3, read_dropout},
      {"Erf", 1, read_erf},
      {"Expand", 2, read_expand},
      {"Flatten", 1, read_flatten},
      {"Gather", 2, read_gather},
      {"Gemm", 3, bnd_import_gemm},
      {"GlobalAveragePool", 1, bnd_import_global_pool},
      {"HardSigmoid", 1, read_hard_sigmoid},
      {"HardSwish", 1, read_hard_swish},
      {"Identity", 1, read_identity},
      {"LayerNormalization", 3, bnd_import_layer_norm},
      {"LeakyRelu", 1, read_leaky_relu},
      {"MatMul", 2, bnd_import_matmul},
      {"MaxPool", 1, bnd_import_max_pool},
      {"Mul", 2, read_arithmetic},
      {"QuantizeLinear", 3, bnd_import_quantize},
      {"ReduceMean", 2, bnd_import_reduce},
      {"ReduceSum", 2, bnd_import_reduce},
      {"Relu", 1, read_relu},
      {"Reshape", 2, read_reshape},
      {"Sigmoid", 1, read_sigmoid},
      {"Slice", 5, read_slice},
      {"Softmax", 1, read_softmax},
      {"Split", 2, read_split},
      {"Squeeze", 2, read_squeeze},
      {"Sub", 2, read_arithmetic},
      {"Transpose", 1, read_transpose},
      {"Unsqueeze", 2, read_squeeze},
  };
  for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++)
    if (strcmp(RULES[i].op_type, op_type) == 0) {
      *inputs = RULES[i].inputs;
      return RULES[i].rule;
    }
  return NULL;
}
