#include "ops/operators.h"

#include <string.h>

static const bnd_operator OPERATORS[BND_OPERATOR_COUNT] = {
#define X(id, name, target) [BND_OP_##id] = {BND_OP_##id, name, target},
    BND_OPERATORS(X)
#undef X
};

const bnd_operator *bnd_operator_of(bnd_operator_id id) {
  return (unsigned)id < BND_OPERATOR_COUNT ? &OPERATORS[id] : NULL;
}

const bnd_operator *bnd_operator_by_target(const char *target) {
  for (int i = 0; i < BND_OPERATOR_COUNT; i++)
    if (strcmp(OPERATORS[i].target, target) == 0) return &OPERATORS[i];
  return NULL;
}

/* --- families: Quark's processor_utils.py and torch_utils.py --- */

bnd_operator_id bnd_functional_id(const bnd_node *node) {
  if (!node || !node->op) return BND_OPERATOR_COUNT;
  switch (node->op->id) {
    case BND_OP_RELU_:
      return BND_OP_RELU;
    case BND_OP_HARDTANH_:
      return BND_OP_HARDTANH;
    case BND_OP_CLAMP_:
    case BND_OP_CLIP: /* torch's alias of clamp */
    case BND_OP_CLIP_:
      return BND_OP_CLAMP;
    case BND_OP_SIGMOID_:
      return BND_OP_SIGMOID;
    case BND_OP_HARDSIGMOID_:
      return BND_OP_HARDSIGMOID;
    case BND_OP_SILU_:
      return BND_OP_SILU;
    case BND_OP_HARDSWISH_:
      return BND_OP_HARDSWISH;
    case BND_OP_LEAKY_RELU_:
      return BND_OP_LEAKY_RELU;
    case BND_OP_ADD_:
      return BND_OP_ADD;
    case BND_OP_SUB_:
      return BND_OP_SUB;
    case BND_OP_MUL_:
      return BND_OP_MUL;
    case BND_OP_DIV_:
      return BND_OP_DIV;
    case BND_OP_CONCAT: /* torch's aliases of cat */
    case BND_OP_CONCATENATE:
      return BND_OP_CAT;
    default:
      return node->op->id;
  }
}

/* silu is missing on purpose: Quark's list has no silu, it is rewritten before annotation. */
bool bnd_is_activation(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_RELU:
    case BND_OP_RELU6:
    case BND_OP_HARDTANH:
    case BND_OP_CLAMP:
    case BND_OP_SIGMOID:
    case BND_OP_HARDSIGMOID:
    case BND_OP_SOFTMAX:
    case BND_OP_GELU:
    case BND_OP_HARDSWISH:
    case BND_OP_LEAKY_RELU:
    case BND_OP_LEAKY_RELU_MODULE:
      return true;
    default:
      return false;
  }
}

bool bnd_is_transposed_module(const bnd_node *node) {
  return bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D_MODULE) || bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D_BN_MODULE);
}

bool bnd_is_conv_module(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_CONV2D_MODULE:
    case BND_OP_CONV2D_BN_MODULE:
    case BND_OP_CONV_TRANSPOSE2D_MODULE:
    case BND_OP_CONV_TRANSPOSE2D_BN_MODULE:
    case BND_OP_LINEAR_MODULE:
      return true;
    default:
      return false;
  }
}

bool bnd_is_conv_function(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_CONV2D:
    case BND_OP_CONV_TRANSPOSE2D:
    case BND_OP_LINEAR:
      return true;
    default:
      return false;
  }
}

bool bnd_is_arithmetic(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_ADD:
    case BND_OP_SUB:
    case BND_OP_MUL:
    case BND_OP_DIV:
      return true;
    default:
      return false;
  }
}

bool bnd_is_pool(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_MAX_POOL2D:
    case BND_OP_AVG_POOL2D:
    case BND_OP_ADAPTIVE_AVG_POOL2D:
    case BND_OP_AVG_POOL2D_MODULE:
    case BND_OP_GLOBAL_AVG_POOL2D_MODULE:
      return true;
    default:
      return false;
  }
}

bool bnd_is_shape_change(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_PERMUTE:
    case BND_OP_RESHAPE:
    case BND_OP_SQUEEZE:
    case BND_OP_UNSQUEEZE:
    case BND_OP_PIXEL_SHUFFLE:
      return true;
    default:
      return false;
  }
}

bool bnd_is_sharing(const bnd_node *node) {
  switch (bnd_functional_id(node)) {
    case BND_OP_PERMUTE:
    case BND_OP_SQUEEZE:
    case BND_OP_VIEW:
    case BND_OP_FLATTEN:
    case BND_OP_TRANSPOSE:
    case BND_OP_CONTIGUOUS:
    case BND_OP_DROPOUT:
      return true;
    default:
      return false;
  }
}

bool bnd_is_concat(const bnd_node *node) {
  return bnd_functional_id(node) == BND_OP_CAT;
}

bool bnd_is_fake_quantize(const bnd_node *node) {
  return bnd_node_is(node, BND_OP_FAKE_QUANTIZE);
}

bool bnd_is_relu(const bnd_node *node) {
  return bnd_functional_id(node) == BND_OP_RELU;
}
