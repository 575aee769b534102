/* Operators that work value by value. */
#include "ops/rules.h"

bnd_status bnd_shape_same(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  return bnd_set_result(node, &x->shape[0], x->dtype, error);
}

/* batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled): all four vectors have a value for each channel. */
bnd_status bnd_shape_batch_norm(bnd_node *node, bnd_error *error) {
  bnd_node *x, *operand;
  BND_TRY(bnd_input(node, 0, &x, error));
  if (x->shape[0].rank < 2) return bnd_fail_node(node, error, "the input needs a channel dimension");
  for (int i = 1; i <= 4; i++) {
    if (!bnd_arg_node(node, i)) continue;
    BND_TRY(bnd_input_of_rank(node, i, 1, &operand, error));
    if (operand->shape[0].size[0] != x->shape[0].size[1])
      return bnd_fail_node(node, error, "%s has %lld values for %lld channels", operand->name, (long long)operand->shape[0].size[0],
                           (long long)x->shape[0].size[1]);
  }
  return bnd_set_result(node, &x->shape[0], x->dtype, error);
}

static bool is_floating(bnd_dtype dtype) {
  return dtype <= BND_BF16;
}

/* One operand may be a number. Sizes of 1 and missing leading dimensions are repeated. */
bnd_status bnd_shape_arithmetic(bnd_node *node, bnd_error *error) {
  bnd_shape out = {0};
  bnd_dtype dtype = BND_BOOL;
  bool number_with_point = false;
  int tensors = 0;
  if (node->arg_count < 2) return bnd_fail_node(node, error, "two operands are needed");
  for (int i = 0; i < 2; i++) {
    if (node->args[i].kind != BND_ARG_NODE) {
      number_with_point |= node->args[i].kind == BND_ARG_FLOAT;
      continue;
    }
    bnd_node *operand;
    BND_TRY(bnd_input(node, i, &operand, error));
    const bnd_shape *shape = &operand->shape[0];
    if (!tensors++ || (is_floating(operand->dtype) && !is_floating(dtype)) ||
        (is_floating(operand->dtype) == is_floating(dtype) && operand->dtype < dtype))
      dtype = operand->dtype;
    bnd_shape wide = {.rank = shape->rank > out.rank ? shape->rank : out.rank};
    for (int d = 1; d <= wide.rank; d++) {
      const int64_t a = d <= out.rank ? out.size[out.rank - d] : 1, b = d <= shape->rank ? shape->size[shape->rank - d] : 1;
      char text[2][BND_SHAPE_TEXT];
      if (a != b && a != 1 && b != 1)
        return bnd_fail_node(node, error, "shapes %s and %s do not go together", bnd_shape_text(&out, text[0]), bnd_shape_text(shape, text[1]));
      wide.size[wide.rank - d] = a == 1 ? b : a;
    }
    out = wide;
  }
  if (!tensors) return bnd_fail_node(node, error, "no operand is a tensor");
  if (!is_floating(dtype) && (number_with_point || bnd_functional_id(node) == BND_OP_DIV)) dtype = BND_F32;
  return bnd_set_result(node, &out, dtype, error);
}

bnd_status bnd_shape_to(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  bnd_dtype dtype;
  if (node->arg_count < 2 || node->args[1].kind != BND_ARG_TEXT || !bnd_dtype_of_text(node->args[1].text, &dtype))
    return bnd_fail_node(node, error, "argument 1 is no data type known here");
  return bnd_set_result(node, &x->shape[0], dtype, error);
}
