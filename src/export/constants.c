#include "export/constants.h"

#include <stdlib.h>
#include <string.h>

static bnd_tensor *slot(const bnd_constants *constants, const bnd_node *node, int result) {
  return &constants->tensors[(size_t)node->id * BND_MAX_RESULTS + (size_t)result];
}

const bnd_tensor *bnd_constants_get(const bnd_constants *constants, const bnd_node *node, int result) {
  const bnd_tensor *tensor = node && result >= 0 && result < BND_MAX_RESULTS ? slot(constants, node, result) : NULL;
  return tensor && tensor->data ? tensor : NULL;
}

void bnd_constants_free(bnd_constants *constants) {
  for (size_t i = 0; i < constants->count; i++) bnd_tensor_release(&constants->tensors[i]);
  free(constants->tensors);
  *constants = (bnd_constants){0};
}

/* The tensor at an argument; numbers become scalars in `scalar`, backed by `number`. NULL = not constant. */
static const bnd_tensor *operand(const bnd_constants *constants, const bnd_node *node, int index, bnd_tensor *scalar, float *number) {
  if (index >= node->arg_count) return NULL;
  const bnd_arg *arg = &node->args[index];
  if (arg->kind == BND_ARG_NODE) return bnd_constants_get(constants, arg->node, 0);
  if (arg->kind != BND_ARG_FLOAT && arg->kind != BND_ARG_INT) return NULL;
  *number = (float)bnd_arg_float(node, index, 0);
  *scalar = (bnd_tensor){.dtype = BND_F32, .count = 1, .data = number};
  return scalar;
}

/* Offset of an output element (counted row by row) in an operand that is broadcast to the output's shape. */
static size_t broadcast_offset(const bnd_shape *out, const bnd_shape *operand, size_t element) {
  size_t offset = 0, step = 1;
  for (int back = 1; back <= out->rank; back++) {
    const size_t size = (size_t)out->size[out->rank - back], position = element % size;
    element /= size;
    if (back > operand->rank) break;
    const size_t own = (size_t)operand->size[operand->rank - back];
    if (own != 1) offset += position * step;
    step *= own;
  }
  return offset;
}

static bnd_status arithmetic(const bnd_constants *constants, const bnd_node *node, bnd_tensor *out, bnd_error *error) {
  bnd_tensor scalars[2];
  float numbers[2];
  const bnd_tensor *a = operand(constants, node, 0, &scalars[0], &numbers[0]), *b = operand(constants, node, 1, &scalars[1], &numbers[1]);
  if (!a || !b || node->keyword_count) return BND_OK; /* keywords: add's alpha; exported as it is */
  BND_TRY(bnd_tensor_create(BND_F32, &node->shape[0], out, error));
  const bnd_operator_id id = bnd_functional_id(node);
  for (size_t i = 0; i < out->count; i++) {
    const float x = bnd_f32(a)[broadcast_offset(&out->shape, &a->shape, i)], y = bnd_f32(b)[broadcast_offset(&out->shape, &b->shape, i)];
    bnd_f32(out)[i] = id == BND_OP_ADD ? x + y : id == BND_OP_SUB ? x - y : id == BND_OP_MUL ? x * y : x / y;
  }
  return BND_OK;
}

/* Joins tensors along one axis; with `stack` along a new axis, where every part has size 1. */
static bnd_status join(const bnd_constants *constants, const bnd_node *node, bool stack, bnd_tensor *out, bnd_error *error) {
  if (node->arg_count < 1 || node->args[0].kind != BND_ARG_LIST) return BND_OK;
  const int count = node->args[0].list.count;
  const bnd_arg *items = node->args[0].list.items;
  for (int i = 0; i < count; i++)
    if (items[i].kind != BND_ARG_NODE || !bnd_constants_get(constants, items[i].node, 0)) return BND_OK;
  const bnd_shape *shape = &node->shape[0];
  int64_t axis = bnd_arg_int(node, 1, 0);
  if (axis < 0) axis += shape->rank;
  if (axis < 0 || axis >= shape->rank) return BND_OK;
  size_t outer = 1, inner = 1;
  for (int i = 0; i < shape->rank; i++) *(i < axis ? &outer : &inner) *= i == axis ? 1 : (size_t)shape->size[i];
  BND_TRY(bnd_tensor_create(BND_F32, shape, out, error));
  const size_t row = inner * (size_t)shape->size[axis];
  size_t done = 0; /* elements of each output row that are filled */
  for (int i = 0; i < count; i++) {
    const bnd_tensor *part = bnd_constants_get(constants, items[i].node, 0);
    const size_t length = stack ? inner : outer ? part->count / outer : 0;
    if (length > row - done) return bnd_fail(error, BND_ERROR_MODEL, "%s: the parts do not fit together", node->name);
    for (size_t o = 0; o < outer; o++) memcpy(bnd_f32(out) + o * row + done, bnd_f32(part) + o * length, length * sizeof(float));
    done += length;
  }
  return BND_OK;
}

static bnd_status permute(const bnd_constants *constants, const bnd_node *node, bnd_tensor *out, bnd_error *error) {
  const bnd_tensor *in = bnd_constants_get(constants, bnd_arg_node(node, 0), 0);
  if (!in) return BND_OK;
  const int rank = in->shape.rank;
  int64_t order[BND_MAX_RANK];
  size_t step[BND_MAX_RANK], product = 1;
  for (int i = 0; i < rank; i++) order[i] = i;
  if (node->op->id == BND_OP_TRANSPOSE) {
    const int64_t a = bnd_arg_int(node, 1, 0), b = bnd_arg_int(node, 2, 0), first = a < 0 ? a + rank : a, second = b < 0 ? b + rank : b;
    if (first < 0 || first >= rank || second < 0 || second >= rank) return BND_OK;
    order[first] = second;
    order[second] = first;
  } else if (bnd_arg_ints(node, 1, order, BND_MAX_RANK) != rank) {
    return BND_OK;
  }
  for (int i = rank - 1; i >= 0; i--) {
    step[i] = product;
    product *= (size_t)in->shape.size[i];
  }
  BND_TRY(bnd_tensor_create(BND_F32, &node->shape[0], out, error));
  for (size_t i = 0; i < out->count; i++) {
    size_t rest = i, offset = 0;
    for (int d = rank - 1; d >= 0; d--) {
      const int from = (int)(order[d] < 0 ? order[d] + rank : order[d]);
      offset += rest % (size_t)out->shape.size[d] * step[from];
      rest /= (size_t)out->shape.size[d];
    }
    bnd_f32(out)[i] = bnd_f32(in)[offset];
  }
  return BND_OK;
}

/* meshgrid(indexing="ij"): grid k repeats vector k along all other axes. */
static bnd_status meshgrid(const bnd_constants *constants, const bnd_node *node, bnd_tensor *out, bnd_error *error) {
  const bnd_arg *indexing = bnd_node_keyword(node, "indexing");
  if (indexing && (indexing->kind != BND_ARG_TEXT || strcmp(indexing->text, "ij") != 0)) return BND_OK;
  for (int k = 0; k < node->result_count; k++)
    if (node->args[0].list.items[k].kind != BND_ARG_NODE || !bnd_constants_get(constants, node->args[0].list.items[k].node, 0)) return BND_OK;
  const bnd_shape *shape = &node->shape[0];
  for (int k = 0; k < node->result_count; k++) {
    const bnd_tensor *vector = bnd_constants_get(constants, node->args[0].list.items[k].node, 0);
    BND_TRY(bnd_tensor_create(BND_F32, shape, &out[k], error));
    size_t inner = 1;
    for (int i = k + 1; i < shape->rank; i++) inner *= (size_t)shape->size[i];
    for (size_t i = 0; i < out[k].count; i++) bnd_f32(&out[k])[i] = bnd_f32(vector)[i / inner % vector->count];
  }
  return BND_OK;
}

/* Results that are the input's numbers under another shape. */
static void same_numbers(const bnd_constants *constants, const bnd_node *node, bnd_tensor *out) {
  const bnd_tensor *in = bnd_constants_get(constants, bnd_arg_node(node, 0), 0);
  size_t count;
  if (in && bnd_shape_count(&node->shape[0], &count) && count == in->count) *out = bnd_tensor_share(in, &node->shape[0]);
}

static bnd_status attribute(const bnd_attribute *found, bnd_tensor *out, bnd_error *error) {
  return found && found->tensor.data ? bnd_tensor_as_f32(&found->tensor, out, error) : BND_OK;
}

static bnd_status region(const bnd_node *node, bnd_tensor *out, bnd_error *error) {
  for (int i = 0; i < node->result_count; i++) {
    const bnd_attribute *result;
    BND_TRY(bnd_region_result(node, i, &result, error));
    BND_TRY(attribute(result, &out[i], error));
  }
  return BND_OK;
}

static bnd_status evaluate(const bnd_constants *constants, const bnd_node *node, bnd_error *error) {
  bnd_tensor *out = slot(constants, node, 0);
  if (node->kind == BND_GET_ATTR) return attribute(bnd_graph_attribute(node->graph, node->target), out, error);
  if (node->kind != BND_CALL_FUNCTION) return BND_OK;
  switch (bnd_functional_id(node)) {
    case BND_OP_ARANGE:
      BND_TRY(bnd_tensor_create(BND_F32, &node->shape[0], out, error));
      for (size_t i = 0; i < out->count; i++) bnd_f32(out)[i] = (float)i;
      return BND_OK;
    case BND_OP_FULL:
      BND_TRY(bnd_tensor_create(BND_F32, &node->shape[0], out, error));
      for (size_t i = 0; i < out->count; i++) bnd_f32(out)[i] = (float)bnd_arg_float(node, 1, 0);
      return BND_OK;
    case BND_OP_ADD:
    case BND_OP_SUB:
    case BND_OP_MUL:
    case BND_OP_DIV:
      return arithmetic(constants, node, out, error);
    case BND_OP_CAT:
      return join(constants, node, false, out, error);
    case BND_OP_STACK:
      return join(constants, node, true, out, error);
    case BND_OP_MESHGRID:
      return meshgrid(constants, node, out, error);
    case BND_OP_PERMUTE:
    case BND_OP_TRANSPOSE:
      return permute(constants, node, out, error);
    case BND_OP_NO_GRAD_REGION:
      return region(node, out, error);
    case BND_OP_TO:
      if (node->dtype == BND_F32) same_numbers(constants, node, out);
      return BND_OK;
    case BND_OP_RESHAPE:
    case BND_OP_VIEW:
    case BND_OP_FLATTEN:
    case BND_OP_SQUEEZE:
    case BND_OP_UNSQUEEZE:
    case BND_OP_CONTIGUOUS:
    case BND_OP_DROPOUT:
    case BND_OP_QUANT_STUB:
    case BND_OP_DEQUANT_STUB:
      same_numbers(constants, node, out);
      return BND_OK;
    case BND_OP_GETITEM: {
      const bnd_tensor *in = bnd_constants_get(constants, bnd_arg_node(node, 0), (int)bnd_arg_int(node, 1, -1));
      if (in) *out = bnd_tensor_share(in, NULL);
      return BND_OK;
    }
    default:
      return BND_OK;
  }
}

bnd_status bnd_constants_evaluate(const bnd_graph *graph, const bool *live, bnd_constants *constants, bnd_error *error) {
  const size_t count = (size_t)bnd_graph_id_limit(graph) * BND_MAX_RESULTS;
  *constants = (bnd_constants){.tensors = bnd_calloc(count, sizeof(bnd_tensor)), .count = count};
  if (!constants->tensors) {
    constants->count = 0;
    return bnd_fail_memory(error, "the constants of a graph");
  }
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (live[node->id]) BND_TRY(evaluate(constants, node, error));
  return BND_OK;
}
