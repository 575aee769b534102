/* Operators that move values without changing them: joining, cutting, reshaping, reordering. */
#include "ops/rules.h"

/* The tensors in the list at argument 0, one at a time. */
static bnd_status list_item(const bnd_node *node, int index, bnd_node **item, bnd_error *error) {
  const bnd_arg *arg = &node->args[0].list.items[index];
  *item = NULL;
  if (arg->kind != BND_ARG_NODE || arg->node->result_count != 1)
    return bnd_fail_node(node, error, "element %d of the list is not a single tensor", index);
  *item = arg->node;
  return BND_OK;
}

static bnd_status list_length(const bnd_node *node, int *count, bnd_error *error) {
  *count = 0;
  if (node->arg_count < 1 || node->args[0].kind != BND_ARG_LIST || node->args[0].list.count < 1)
    return bnd_fail_node(node, error, "argument 0 is no list of tensors");
  *count = node->args[0].list.count;
  return BND_OK;
}

/* cat(tensors, dim=0) */
bnd_status bnd_shape_cat(bnd_node *node, bnd_error *error) {
  int count = 0, dimension;
  BND_TRY(list_length(node, &count, error));
  bnd_node *first = NULL, *item = NULL;
  BND_TRY(list_item(node, 0, &first, error));
  bnd_shape out = first->shape[0];
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), out.rank, &dimension, error));
  for (int i = 1; i < count; i++) {
    BND_TRY(list_item(node, i, &item, error));
    bnd_shape expected = out;
    expected.size[dimension] = item->shape[0].rank == out.rank ? item->shape[0].size[dimension] : 0;
    char text[2][BND_SHAPE_TEXT];
    if (!bnd_shape_equal(&expected, &item->shape[0]))
      return bnd_fail_node(node, error, "%s of shape %s does not go with %s of shape %s", item->name, bnd_shape_text(&item->shape[0], text[0]),
                           first->name, bnd_shape_text(&first->shape[0], text[1]));
    if (__builtin_add_overflow(out.size[dimension], item->shape[0].size[dimension], &out.size[dimension]))
      return bnd_fail_node(node, error, "the result is too large");
  }
  return bnd_set_result(node, &out, first->dtype, error);
}

/* stack(tensors, dim=0): the new dimension may also stand behind the last. */
bnd_status bnd_shape_stack(bnd_node *node, bnd_error *error) {
  int count = 0, dimension;
  BND_TRY(list_length(node, &count, error));
  bnd_node *first = NULL, *item = NULL;
  BND_TRY(list_item(node, 0, &first, error));
  const bnd_shape *in = &first->shape[0];
  if (in->rank == BND_MAX_RANK) return bnd_fail_node(node, error, "too many dimensions");
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), in->rank + 1, &dimension, error));
  for (int i = 1; i < count; i++) {
    BND_TRY(list_item(node, i, &item, error));
    if (!bnd_shape_equal(in, &item->shape[0])) return bnd_fail_node(node, error, "%s and %s differ in shape", first->name, item->name);
  }
  bnd_shape out = {.rank = in->rank + 1};
  for (int d = 0; d < out.rank; d++) out.size[d] = d == dimension ? count : in->size[d - (d > dimension)];
  return bnd_set_result(node, &out, first->dtype, error);
}

static int64_t clamp_index(int64_t index, int64_t size) {
  if (index < 0) index += size;
  return index < 0 ? 0 : index > size ? size : index;
}

/* slice(x, dim=0, start=None, end=None, step=1); indices outside are cut, negative ones count from the end. */
bnd_status bnd_shape_slice(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int dimension;
  BND_TRY(bnd_input(node, 0, &x, error));
  bnd_shape out = x->shape[0];
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), out.rank, &dimension, error));
  const int64_t size = out.size[dimension], step = bnd_arg_int(node, 4, 1);
  const int64_t start = clamp_index(bnd_arg_int(node, 2, 0), size), end = clamp_index(bnd_arg_int(node, 3, INT64_MAX), size);
  if (step < 1) return bnd_fail_node(node, error, "step %lld must be positive", (long long)step);
  out.size[dimension] = end > start ? (end - start - 1) / step + 1 : 0;
  return bnd_set_result(node, &out, x->dtype, error);
}

/* select(x, dim, index): the dimension disappears. */
bnd_status bnd_shape_select(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int dimension, index;
  BND_TRY(bnd_input(node, 0, &x, error));
  const bnd_shape *in = &x->shape[0];
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), in->rank, &dimension, error));
  if (in->size[dimension] > INT32_MAX) return bnd_fail_node(node, error, "the dimension is too large");
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 2, 0), (int)in->size[dimension], &index, error));
  bnd_shape out = {.rank = in->rank - 1};
  for (int d = 0; d < out.rank; d++) out.size[d] = in->size[d + (d >= dimension)];
  return bnd_set_result(node, &out, x->dtype, error);
}

static bnd_status set_parts(bnd_node *node, const bnd_node *x, int dimension, const int64_t *sizes, int count, bnd_error *error) {
  node->result_count = count;
  node->dtype = x->dtype;
  for (int i = 0; i < count; i++) {
    if (sizes[i] < 0) return bnd_fail_node(node, error, "a part of size %lld is impossible", (long long)sizes[i]);
    node->shape[i] = x->shape[0];
    node->shape[i].size[dimension] = sizes[i];
  }
  return BND_OK;
}

/* split(x, size, dim=0): the last part may be smaller. */
bnd_status bnd_shape_split(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int dimension, count = 0;
  BND_TRY(bnd_input(node, 0, &x, error));
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 2, 0), x->shape[0].rank, &dimension, error));
  const int64_t part = bnd_arg_int(node, 1, 0);
  int64_t rest = x->shape[0].size[dimension], sizes[BND_MAX_RESULTS];
  if (part < 1) return bnd_fail_node(node, error, "parts of %lld are impossible", (long long)part);
  do {
    if (count == BND_MAX_RESULTS) return bnd_fail_node(node, error, "more than %d parts are not supported", BND_MAX_RESULTS);
    sizes[count] = rest < part ? rest : part;
    rest -= sizes[count++];
  } while (rest > 0);
  return set_parts(node, x, dimension, sizes, count, error);
}

/* split_with_sizes(x, sizes, dim=0) */
bnd_status bnd_shape_split_with_sizes(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int dimension;
  BND_TRY(bnd_input(node, 0, &x, error));
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 2, 0), x->shape[0].rank, &dimension, error));
  if (node->arg_count < 2 || node->args[1].kind != BND_ARG_LIST || node->args[1].list.count > BND_MAX_RESULTS)
    return bnd_fail_node(node, error, "argument 1 must be a list of at most %d sizes", BND_MAX_RESULTS);
  int64_t sizes[BND_MAX_RESULTS], rest = x->shape[0].size[dimension];
  const int count = bnd_arg_ints(node, 1, sizes, BND_MAX_RESULTS);
  for (int i = 0; i < count; i++) {
    if (sizes[i] < 0 || sizes[i] > rest) break;
    rest -= sizes[i];
  }
  if (rest || count != node->args[1].list.count)
    return bnd_fail_node(node, error, "the sizes do not add up to %lld", (long long)x->shape[0].size[dimension]);
  return set_parts(node, x, dimension, sizes, count, error);
}

/* reshape(x, shape), view(x, shape): one -1 stands for what is left. */
bnd_status bnd_shape_reshape(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  if (node->arg_count < 2 || node->args[1].kind != BND_ARG_LIST || node->args[1].list.count > BND_MAX_RANK)
    return bnd_fail_node(node, error, "argument 1 is no shape of at most %d dimensions", BND_MAX_RANK);
  bnd_shape out = {.rank = node->args[1].list.count};
  size_t total, known = 1;
  int open = -1;
  bool good = bnd_arg_ints(node, 1, out.size, BND_MAX_RANK) == out.rank && bnd_shape_count(&x->shape[0], &total);
  for (int d = 0; d < out.rank && good; d++) {
    if (out.size[d] == -1 && open < 0)
      open = d;
    else
      good = out.size[d] >= 0 && bnd_size_multiply(known, (size_t)out.size[d], &known);
  }
  if (good && open >= 0) {
    good = known && total % known == 0;
    if (good) out.size[open] = (int64_t)(total / known);
    known = total;
  }
  char text[2][BND_SHAPE_TEXT];
  if (!good || known != total)
    return bnd_fail_node(node, error, "%s cannot become %s", bnd_shape_text(&x->shape[0], text[0]), bnd_shape_text(&out, text[1]));
  return bnd_set_result(node, &out, x->dtype, error);
}

/* flatten(x, start=0, end=-1) */
bnd_status bnd_shape_flatten(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int start, end;
  BND_TRY(bnd_input(node, 0, &x, error));
  const bnd_shape *in = &x->shape[0];
  if (in->rank == 0) return bnd_set_result(node, &BND_SHAPE(1), x->dtype, error);
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), in->rank, &start, error));
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 2, -1), in->rank, &end, error));
  if (start > end) return bnd_fail_node(node, error, "dimension %d stands behind %d", start, end);
  bnd_shape out = {0};
  for (int d = 0; d < in->rank; d++) {
    if (d > start && d <= end)
      out.size[out.rank - 1] *= in->size[d];
    else
      out.size[out.rank++] = in->size[d];
  }
  return bnd_set_result(node, &out, x->dtype, error);
}

/* permute(x, dims) */
bnd_status bnd_shape_permute(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  const bnd_shape *in = &x->shape[0];
  int64_t order[BND_MAX_RANK];
  bnd_shape out = {.rank = in->rank};
  bool used[BND_MAX_RANK] = {false};
  if (node->arg_count < 2 || node->args[1].kind != BND_ARG_LIST || node->args[1].list.count != in->rank ||
      bnd_arg_ints(node, 1, order, BND_MAX_RANK) != in->rank)
    return bnd_fail_node(node, error, "argument 1 must list %d dimensions", in->rank);
  for (int i = 0; i < in->rank; i++) {
    int d;
    BND_TRY(bnd_dimension(node, order[i], in->rank, &d, error));
    if (used[d]) return bnd_fail_node(node, error, "dimension %d is listed twice", d);
    used[d] = true;
    out.size[i] = in->size[d];
  }
  return bnd_set_result(node, &out, x->dtype, error);
}

/* transpose(x, dim0, dim1) */
bnd_status bnd_shape_transpose(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int a, b;
  BND_TRY(bnd_input(node, 0, &x, error));
  bnd_shape out = x->shape[0];
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), out.rank, &a, error));
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 2, 0), out.rank, &b, error));
  out.size[a] = x->shape[0].size[b];
  out.size[b] = x->shape[0].size[a];
  return bnd_set_result(node, &out, x->dtype, error);
}

/* squeeze(x, dim): a size other than 1 stays. */
bnd_status bnd_shape_squeeze(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int dimension;
  BND_TRY(bnd_input(node, 0, &x, error));
  const bnd_shape *in = &x->shape[0];
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), in->rank, &dimension, error));
  bnd_shape out = {0};
  for (int d = 0; d < in->rank; d++)
    if (d != dimension || in->size[d] != 1) out.size[out.rank++] = in->size[d];
  return bnd_set_result(node, &out, x->dtype, error);
}

/* unsqueeze(x, dim) */
bnd_status bnd_shape_unsqueeze(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  int dimension;
  BND_TRY(bnd_input(node, 0, &x, error));
  const bnd_shape *in = &x->shape[0];
  if (in->rank == BND_MAX_RANK) return bnd_fail_node(node, error, "too many dimensions");
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), in->rank + 1, &dimension, error));
  bnd_shape out = {.rank = in->rank + 1};
  for (int d = 0; d < out.rank; d++) out.size[d] = d == dimension ? 1 : in->size[d - (d > dimension)];
  return bnd_set_result(node, &out, x->dtype, error);
}

/* pixel_shuffle(x, r): [.., C*r*r, H, W] -> [.., C, H*r, W*r] */
bnd_status bnd_shape_pixel_shuffle(bnd_node *node, bnd_error *error) {
  bnd_node *x;
  BND_TRY(bnd_input(node, 0, &x, error));
  bnd_shape out = x->shape[0];
  const int64_t r = bnd_arg_int(node, 1, 0);
  if (out.rank < 3 || r < 1 || r > 1024 || out.size[out.rank - 3] % (r * r))
    return bnd_fail_node(node, error, "factor %lld does not fit the channels", (long long)r);
  out.size[out.rank - 3] /= r * r;
  if (__builtin_mul_overflow(out.size[out.rank - 2], r, &out.size[out.rank - 2]) ||
      __builtin_mul_overflow(out.size[out.rank - 1], r, &out.size[out.rank - 1]))
    return bnd_fail_node(node, error, "the result is too large");
  return bnd_set_result(node, &out, x->dtype, error);
}

/* getitem(values, index): one result of an operator with several. */
bnd_status bnd_shape_getitem(bnd_node *node, bnd_error *error) {
  const bnd_node *values = bnd_arg_node(node, 0);
  if (!values) return bnd_fail_node(node, error, "argument 0 is not a node");
  int index;
  BND_TRY(bnd_dimension(node, bnd_arg_int(node, 1, 0), values->result_count, &index, error));
  return bnd_set_result(node, &values->shape[index], values->dtype, error);
}
