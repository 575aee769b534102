/* Boxes for int8: (p - a) * s and (b + p) * s with constants p (cell centres) and s (strides) become (p s - c) - a s and b s + (p s - c), and only what
   leaves the quantized part gets c, the middle of the image, back. In float that is the same; in int8 the coordinates, now between -c and c, have twice as
   fine a scale, every level's distances are in pixels, and the cell centres are exact. */
#include <math.h>
#include <stdlib.h>

#include "ops/operators.h"
#include "passes/best/best.h"

static const bnd_tensor *constant_of(const bnd_node *node) {
  const bnd_attribute *attribute = node && node->kind == BND_GET_ATTR ? bnd_graph_attribute(node->graph, node->target) : NULL;
  return attribute && attribute->tensor.dtype == BND_F32 ? &attribute->tensor : NULL;
}

/* p - a, b + p or p + b, read by the concat alone; *constant: which argument p is. */
static bool is_corner(const bnd_node *node, int *constant) {
  const bnd_operator_id id = node->op ? bnd_functional_id(node) : BND_OPERATOR_COUNT;
  if ((id != BND_OP_ADD && id != BND_OP_SUB) || node->user_count != 1) return false;
  *constant = constant_of(bnd_arg_node(node, 0)) ? 0 : 1;
  return constant_of(bnd_arg_node(node, *constant)) && bnd_arg_node(node, 1 - *constant) && !constant_of(bnd_arg_node(node, 1 - *constant)) &&
         (id == BND_OP_ADD || *constant == 0);
}

typedef struct decode {
  bnd_node *mul, *cat, *strides; /* cat * strides */
  double low, high;              /* of p s */
} decode;

/* p [cells, n] times s [cells, 1]. */
static bool product(const bnd_tensor *points, const bnd_tensor *strides, size_t *cells, size_t *columns) {
  const bnd_shape *p = &points->shape, *s = &strides->shape;
  if (p->rank != 2 || s->rank != 2 || p->size[0] != s->size[0] || s->size[1] != 1) return false;
  *cells = (size_t)p->size[0];
  *columns = (size_t)p->size[1];
  return true;
}

static bool widen(decode *d, const bnd_node *corner, int constant) {
  const bnd_tensor *points = constant_of(bnd_arg_node(corner, constant)), *strides = constant_of(d->strides);
  size_t cells = 0, columns = 1;
  if (!product(points, strides, &cells, &columns)) return false;
  for (size_t i = 0; i < cells * columns; i++) {
    const double value = (double)bnd_f32(points)[i] * (double)bnd_f32(strides)[i / columns];
    d->low = fmin(d->low, value);
    d->high = fmax(d->high, value);
  }
  return true;
}

static bool find(bnd_node *mul, decode *d) {
  if (!mul->op || bnd_functional_id(mul) != BND_OP_MUL) return false;
  const int constant = constant_of(bnd_arg_node(mul, 0)) ? 0 : 1;
  *d = (decode){.mul = mul, .cat = bnd_arg_node(mul, 1 - constant), .strides = bnd_arg_node(mul, constant), .low = INFINITY, .high = -INFINITY};
  if (!constant_of(d->strides) || !d->cat || !bnd_is_concat(d->cat) || d->cat->user_count != 1 || d->cat->args[0].kind != BND_ARG_LIST) return false;
  for (int i = 0; i < d->cat->args[0].list.count; i++) {
    const bnd_arg *item = &d->cat->args[0].list.items[i];
    int argument;
    if (item->kind != BND_ARG_NODE || !is_corner(item->node, &argument) || !widen(d, item->node, argument)) return false;
  }
  return d->low < d->high;
}

/* A constant in front of `place`; the tensor is taken over. */
static bnd_node *new_constant(bnd_node *place, const char *suffix, bnd_tensor *tensor, bnd_error *error) {
  bnd_graph *graph = place->graph;
  char *name = bnd_arena_format(bnd_graph_arena(graph), "%s_%s", place->name, suffix);
  if (!name) bnd_graph_out_of_memory(graph);
  const bnd_shape shape = tensor->shape;
  const bool fine = name && bnd_graph_set_attribute(graph, name, tensor, false, error) == BND_OK;
  bnd_tensor_release(tensor);
  bnd_node *node = fine ? bnd_graph_get_attr(graph, name, name) : NULL;
  if (!node) return NULL;
  bnd_node_move_before(node, place);
  bnd_node_copy_meta(node, place);
  node->shape[0] = shape;
  node->changed_by = "centred decode";
  return node;
}

static bnd_node *new_call(bnd_node *place, bnd_operator_id id, bnd_node *a, bnd_node *b) {
  const bnd_operator *op = bnd_operator_of(id);
  const bnd_arg args[] = {bnd_arg_of_node(a), bnd_arg_of_node(b)};
  bnd_node *node = bnd_graph_call(place->graph, op, op->name, args, 2);
  if (!node) return NULL;
  bnd_node_copy_meta(node, place);
  node->changed_by = "centred decode";
  return node;
}

static bnd_status rewrite_corner(const decode *d, bnd_node *corner, float centre, bnd_error *error) {
  int constant;
  is_corner(corner, &constant);
  const bnd_tensor *points = constant_of(bnd_arg_node(corner, constant)), *strides = constant_of(d->strides);
  size_t cells = 0, columns = 1;
  bnd_tensor scaled;
  product(points, strides, &cells, &columns);
  BND_TRY(bnd_tensor_create(BND_F32, &points->shape, &scaled, error));
  for (size_t i = 0; i < cells * columns; i++) bnd_f32(&scaled)[i] = bnd_f32(points)[i] * bnd_f32(strides)[i / columns] - centre;
  bnd_node *pixels = new_constant(corner, "centres", &scaled, error), *distance = bnd_arg_node(corner, 1 - constant);
  bnd_node *mul = pixels ? new_call(corner, BND_OP_MUL, distance, d->strides) : NULL;
  if (!mul) return bnd_fail_memory(error, "the decode");
  bnd_node_move_before(mul, corner);
  bnd_node_set_arg(corner, constant, bnd_arg_of_node(pixels));
  bnd_node_set_arg(corner, 1 - constant, bnd_arg_of_node(mul));
  return BND_OK;
}

static bnd_status rewrite(const decode *d, bnd_error *error) {
  const float centre = (float)((d->low + d->high) / 2);
  bnd_tensor offset;
  bnd_node_move_before(d->strides, d->cat->args[0].list.items[0].node); /* a constant: nothing stands in front of it */
  for (int i = 0; i < d->cat->args[0].list.count; i++) {
    bnd_node *corner = d->cat->args[0].list.items[i].node;
    for (const bnd_node *at = corner; at; at = at->next)
      if (at == d->strides) bnd_node_move_before(d->strides, corner);
    BND_TRY(rewrite_corner(d, corner, centre, error));
  }
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE(1), &offset, error));
  bnd_f32(&offset)[0] = centre;
  bnd_node *constant = new_constant(d->mul, "middle", &offset, error);
  bnd_node *add = constant ? new_call(d->mul, BND_OP_ADD, d->cat, constant) : NULL;
  if (!add) return bnd_fail_memory(error, "the decode");
  bnd_node_move_after(add, d->mul);
  add->skip = constant->skip = true; /* on the host: int8 has no room for it */
  bnd_node_replace_all_uses(d->mul, add, false);
  bnd_node_erase(d->mul);
  return BND_OK;
}

bnd_status bnd_centre_decode(bnd_graph *graph, int *changed, bnd_error *error) {
  *changed = 0;
  for (bnd_node *node = bnd_graph_first(graph), *next; node; node = next) {
    decode d;
    next = node->next;
    if (!find(node, &d)) continue;
    BND_TRY(rewrite(&d, error));
    *changed += 1;
  }
  bnd_graph_eliminate_dead_code(graph);
  BND_TRY(bnd_graph_status(graph, error));
  return bnd_infer_shapes(graph, error);
}
