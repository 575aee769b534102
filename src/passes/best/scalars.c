/* Positive factors folded into layers. A value is rescaled together with everything that must follow it: upwards to the layers that make it, sideways
   through additions, downwards to the layers that read it. Shortcuts of residual blocks (x * alpha + f(x)) disappear this way. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/operators.h"
#include "passes/best/best.h"

/* --- factors: mul nodes with one constant of one element --- */

/* The constant's argument; -1: the node is no multiplication by one. */
static int constant_argument(const bnd_node *node, float *value) {
  if (!node->op || bnd_functional_id(node) != BND_OP_MUL) return -1;
  for (int i = 0; i < 2; i++) {
    const bnd_node *input = bnd_arg_node(node, i);
    const bnd_attribute *attribute = input && input->kind == BND_GET_ATTR ? bnd_graph_attribute(input->graph, input->target) : NULL;
    if (!attribute || attribute->tensor.dtype != BND_F32 || attribute->tensor.count != 1 || !bnd_arg_node(node, 1 - i)) continue;
    *value = bnd_f32(&attribute->tensor)[0];
    return i;
  }
  return -1;
}

typedef struct folding {
  bnd_graph *graph;
  float *constant;       /* by id: what a mul multiplies by, as folding goes on; NaN = no such mul */
  unsigned char *member; /* by id: its output is to be rescaled */
  bnd_node **queue;      /* the members */
  size_t count;
  bool possible;
} folding;

static bool is_factor(const folding *f, const bnd_node *node) { return !isnan(f->constant[node->id]); }
static bool is_sum(const bnd_node *node) {
  const bnd_operator_id id = node->op ? bnd_functional_id(node) : BND_OPERATOR_COUNT;
  return id == BND_OP_ADD || id == BND_OP_SUB;
}
static bool commutes(const bnd_node *node) { return bnd_is_relu(node) || bnd_node_is(node, BND_OP_MAX_POOL2D) || is_sum(node) || bnd_is_concat(node); }

/* --- who has to follow --- */

static void join(folding *f, bnd_node *node) {
  if (f->member[node->id]) return;
  if (!bnd_is_conv_module(node) && !is_factor(f, node) && !commutes(node)) {
    f->possible = false;
    return;
  }
  f->member[node->id] = 1;
  f->queue[f->count++] = node;
}

static void join_input(void *user, bnd_node *input) { join(user, input); }

/* Layers behind a concat can take the factor into the input channels it comes in. */
static bool only_layers_read(const bnd_node *cat) {
  if (bnd_arg_int(cat, 1, 0) != 1) return false;
  for (int i = 0; i < cat->user_count; i++)
    if (!bnd_is_conv_module(cat->users[i]) || cat->users[i]->module->groups > 1) return false;
  return cat->user_count > 0;
}

static void visit(folding *f, bnd_node *node) {
  if (commutes(node)) bnd_node_visit_inputs(node, join_input, f);
  for (int i = 0; i < node->user_count; i++) {
    bnd_node *user = node->users[i];
    const bool absorbs = bnd_is_conv_module(user) || is_factor(f, user) || (bnd_is_concat(user) && only_layers_read(user));
    if (!absorbs && commutes(user)) join(f, user);
    else if (!absorbs) f->possible = false;
  }
}

/* --- doing it --- */

static bnd_status scale_tensor(bnd_tensor *tensor, float factor, bnd_error *error) {
  bnd_tensor scaled;
  if (!tensor->data) return BND_OK;
  BND_TRY(bnd_tensor_create(BND_F32, &tensor->shape, &scaled, error)); /* other graphs may hold the old one */
  for (size_t i = 0; i < tensor->count; i++) bnd_f32(&scaled)[i] = bnd_f32(tensor)[i] * factor;
  bnd_tensor_release(tensor);
  *tensor = scaled;
  return BND_OK;
}

/* Input channels [from, to) of a layer's weight. */
static bnd_status scale_inputs(bnd_node *layer, int64_t from, int64_t to, float factor, bnd_error *error) {
  bnd_tensor *weight = &layer->module->weight;
  const bool transposed = bnd_is_transposed_module(layer);
  const int64_t outer = transposed ? 1 : weight->shape.size[0], channels = weight->shape.size[transposed ? 0 : 1];
  const size_t inner = weight->count / ((size_t)outer * (size_t)channels);
  if (to > channels) return bnd_fail(error, BND_ERROR_INTERNAL, "layer %s reads fewer channels than it is given", layer->name);
  BND_TRY(scale_tensor(weight, 1, error));
  for (int64_t o = 0; o < outer; o++)
    for (int64_t c = from; c < to; c++)
      for (size_t i = 0; i < inner; i++) bnd_f32(weight)[((size_t)(o * channels + c)) * inner + i] *= factor;
  return BND_OK;
}

static bnd_status scale_through_concat(const bnd_node *cat, const bnd_node *input, float factor, bnd_error *error) {
  const bnd_arg *list = &cat->args[0];
  int64_t from = 0;
  for (int i = 0; i < list->list.count; i++) {
    const bnd_node *item = list->list.items[i].node;
    const int64_t to = from + item->shape[0].size[1];
    for (int u = 0; item == input && u < cat->user_count; u++) BND_TRY(scale_inputs(cat->users[u], from, to, factor, error));
    from = to;
  }
  return BND_OK;
}

static bnd_status rescale(folding *f, bnd_node *node, float factor, bnd_error *error) {
  if (bnd_is_conv_module(node)) {
    BND_TRY(scale_tensor(&node->module->weight, factor, error));
    BND_TRY(scale_tensor(&node->module->bias, factor, error));
  }
  if (is_factor(f, node)) f->constant[node->id] *= factor;
  for (int i = 0; i < node->user_count; i++) {
    bnd_node *user = node->users[i];
    if (bnd_is_conv_module(user)) BND_TRY(scale_tensor(&user->module->weight, 1 / factor, error));
    else if (is_factor(f, user)) f->constant[user->id] /= factor;
    else if (bnd_is_concat(user) && !f->member[user->id]) BND_TRY(scale_through_concat(user, node, 1 / factor, error));
  }
  return BND_OK;
}

/* Makes `mul` a multiplication by 1, if everything that must follow can. */
static bnd_status fold_factor(folding *f, bnd_node *mul, bnd_node *value, bnd_error *error) {
  const float factor = f->constant[mul->id];
  memset(f->member, 0, (size_t)bnd_graph_id_limit(f->graph));
  f->count = 0;
  f->possible = factor > 0 && isfinite(factor) && isfinite(1 / factor);
  if (f->possible) join(f, value);
  for (size_t i = 0; f->possible && i < f->count; i++) visit(f, f->queue[i]);
  for (size_t i = 0; f->possible && i < f->count; i++) BND_TRY(rescale(f, f->queue[i], factor, error));
  if (f->possible) f->constant[mul->id] = 1;
  return BND_OK;
}

/* --- what the multiplications are now --- */

static bnd_status set_constant(bnd_node *mul, int argument, float value, bnd_error *error) {
  bnd_graph *graph = mul->graph;
  char *name = bnd_arena_format(bnd_graph_arena(graph), "%s_factor", mul->name);
  bnd_tensor tensor;
  if (!name) return bnd_fail_memory(error, "a constant");
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE(1), &tensor, error));
  bnd_f32(&tensor)[0] = value;
  const bnd_status status = bnd_graph_set_attribute(graph, name, &tensor, false, error);
  bnd_tensor_release(&tensor);
  bnd_node *node = status == BND_OK ? bnd_graph_get_attr(graph, name, name) : NULL;
  if (!node) return status != BND_OK ? status : bnd_fail_memory(error, "a constant");
  bnd_node_move_before(node, mul);
  bnd_node_copy_meta(node, mul);
  node->changed_by = "fold scalars";
  bnd_node_set_arg(mul, argument, bnd_arg_of_node(node));
  return BND_OK;
}

static bnd_status finish(folding *f, int *folded, int *kept, bnd_error *error) {
  for (bnd_node *node = bnd_graph_last(f->graph), *previous; node; node = previous) {
    float value;
    previous = node->previous;
    const int argument = constant_argument(node, &value);
    if (argument < 0) continue;
    const float now = f->constant[node->id];
    *folded += now == 1;
    *kept += now != 1;
    if (now == 1) {
      bnd_node_replace_all_uses(node, bnd_arg_node(node, 1 - argument), false);
      bnd_node_erase(node);
    } else if (now != value) {
      BND_TRY(set_constant(node, argument, now, error));
    }
  }
  bnd_graph_eliminate_dead_code(f->graph);
  return bnd_graph_status(f->graph, error);
}

bnd_status bnd_fold_scalars(bnd_graph *graph, int *folded, int *kept, bnd_error *error) {
  const size_t ids = (size_t)bnd_graph_id_limit(graph);
  folding f = {.graph = graph, .constant = bnd_calloc(ids, sizeof(float)), .member = bnd_calloc(ids, 1), .queue = bnd_calloc(ids, sizeof(bnd_node *))};
  bnd_status status = f.constant && f.member && f.queue ? BND_OK : bnd_fail_memory(error, "folding");
  *folded = *kept = 0;
  for (bnd_node *node = bnd_graph_first(graph); status == BND_OK && node; node = node->next) {
    float value;
    f.constant[node->id] = constant_argument(node, &value) >= 0 && !node->skip ? value : NAN;
  }
  for (bnd_node *node = bnd_graph_last(graph); status == BND_OK && node; node = node->previous) {
    float value;
    const int argument = isnan(f.constant[node->id]) ? -1 : constant_argument(node, &value);
    if (argument >= 0) status = fold_factor(&f, node, bnd_arg_node(node, 1 - argument), error);
  }
  if (status == BND_OK) status = finish(&f, folded, kept, error);
  free(f.constant);
  free(f.member);
  free(f.queue);
  return status;
}
