#include "refine/channels.h"

#include <stdlib.h>

bool bnd_is_scalable_layer(const bnd_node *node) {
  return bnd_is_conv_module(node) && !bnd_node_is(node, BND_OP_LINEAR_MODULE) && !node->module->has_batch_norm && node->module->weight.shape.rank == 4 &&
         node->module->weight.dtype == BND_F32 && bnd_arg_node(node, 0) && bnd_arg_node(node, 0)->shape[0].rank == 4 && node->shape[0].rank == 4;
}

bnd_weight_view bnd_weight_view_of(const bnd_node *layer) {
  const bnd_shape *s = &layer->module->weight.shape;
  return (bnd_weight_view){
      .transposed = bnd_is_transposed_module(layer),
      .rows = (size_t)s->size[0],
      .columns = (size_t)s->size[1],
      .window = (size_t)(s->size[2] * s->size[3]),
      .rows_in_group = (size_t)(s->size[0] / layer->module->groups),
  };
}

double bnd_number_of(const bnd_node *node) {
  while (node && bnd_is_fake_quantize(node)) node = bnd_arg_node(node, 0);
  const bnd_attribute *a = node && node->kind == BND_GET_ATTR ? bnd_graph_attribute(node->graph, node->target) : NULL;
  return a && a->tensor.dtype == BND_F32 && a->tensor.count == 1 ? (double)bnd_f32(&a->tensor)[0] : 1;
}

static int root(int *parent, int slot) {
  while (parent[slot] != slot) slot = parent[slot] = parent[parent[slot]];
  return slot;
}

typedef struct search {
  bnd_channels *channels;
  int *parent; /* [slots] */
  bool *fixed; /* [slots], of roots */
} search;

static int channels_of(const bnd_node *node) { return (int)node->shape[0].size[1]; }
static bool has_slots(const search *s, const bnd_node *node) { return node && s->channels->first[node->id] >= 0; }

static void tie(search *s, const bnd_node *a, int channel_a, const bnd_node *b, int channel_b) {
  const int x = root(s->parent, s->channels->first[a->id] + channel_a), y = root(s->parent, s->channels->first[b->id] + channel_b);
  if (x == y) return;
  const int low = x < y ? x : y, high = x < y ? y : x;
  s->parent[high] = low;
  s->fixed[low] |= s->fixed[high];
}

static void fix(search *s, const bnd_node *node) {
  for (int c = 0; has_slots(s, node) && c < channels_of(node); c++) s->fixed[root(s->parent, s->channels->first[node->id] + c)] = true;
}

static void fix_input(void *user, bnd_node *input) { fix(user, input); }

static void fix_all(search *s, const bnd_node *node) {
  bnd_node_visit_inputs(node, fix_input, s);
  fix(s, node);
}

static void tie_all(search *s, const bnd_node *a, int offset, const bnd_node *b) {
  for (int c = 0; c < channels_of(b); c++) tie(s, a, offset + c, b, c);
}

/* A number: one value that does not depend on the input. */
static bool is_number(const bnd_node *node) {
  while (node && bnd_is_fake_quantize(node)) node = bnd_arg_node(node, 0);
  size_t count;
  return node && node->kind == BND_GET_ATTR && bnd_shape_count(&node->shape[0], &count) && count == 1;
}

/* The factor by which a product scales its other operand. */
static const bnd_node *scaled_operand(const search *s, const bnd_node *node) {
  const bnd_node *a = bnd_arg_node(node, 0), *b = bnd_arg_node(node, 1);
  if (a && b && is_number(a) && has_slots(s, b)) return b;
  if (a && has_slots(s, a) && (!b || is_number(b))) return a;
  return NULL;
}

static bool same_slots(const search *s, const bnd_node *a, const bnd_node *b) {
  return has_slots(s, a) && has_slots(s, b) && bnd_shape_equal(&a->shape[0], &b->shape[0]);
}

static bool tie_concat(search *s, const bnd_node *node) {
  if (node->args[0].kind != BND_ARG_LIST || (bnd_arg_int(node, 1, 0) != 1 && bnd_arg_int(node, 1, 0) != -3)) return false;
  const bnd_arg *list = &node->args[0];
  int offset = 0;
  for (int i = 0; i < list->list.count; i++) {
    const bnd_node *input = list->list.items[i].kind == BND_ARG_NODE ? list->list.items[i].node : NULL;
    if (!has_slots(s, input)) return false;
    offset += channels_of(input);
  }
  if (offset != channels_of(node)) return false;
  offset = 0;
  for (int i = 0; i < list->list.count; i++) {
    tie_all(s, node, offset, list->list.items[i].node);
    offset += channels_of(list->list.items[i].node);
  }
  return true;
}

static bool tie_operator(search *s, const bnd_node *node) {
  const bnd_node *x = bnd_arg_node(node, 0);
  if (!has_slots(s, node)) return false;
  if (bnd_is_scalable_layer(node)) return true; /* makes and reads channels, ties none */
  if (bnd_is_concat(node)) return tie_concat(s, node);
  switch ((int)bnd_functional_id(node)) {
    case BND_OP_FAKE_QUANTIZE:
    case BND_OP_RELU:
    case BND_OP_MAX_POOL2D:
    case BND_OP_CONTIGUOUS:
    case BND_OP_DROPOUT:
      if (!has_slots(s, x) || channels_of(x) != channels_of(node)) return false;
      tie_all(s, node, 0, x);
      return true;
    case BND_OP_ADD: {
      const bnd_node *y = bnd_arg_node(node, 1);
      if (!same_slots(s, node, x) || !same_slots(s, node, y)) return false;
      tie_all(s, node, 0, x);
      tie_all(s, node, 0, y);
      return true;
    }
    case BND_OP_MUL:
      if (!(x = scaled_operand(s, node)) || !same_slots(s, node, x)) return false;
      tie_all(s, node, 0, x);
      return true;
    default:
      return false;
  }
}

static bnd_status lay_out(search *s, const bnd_graph *graph, bnd_error *error) {
  bnd_channels *channels = s->channels;
  channels->ids = bnd_graph_id_limit(graph);
  if (!(channels->first = bnd_calloc((size_t)channels->ids, sizeof *channels->first))) return bnd_fail_memory(error, "classes of channels");
  for (int i = 0; i < channels->ids; i++) channels->first[i] = -1;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const bnd_shape *shape = &node->shape[0];
    if (node->kind == BND_OUTPUT || node->kind == BND_GET_ATTR || node->result_count != 1 || shape->rank != 4 || shape->size[0] != 1) continue;
    if (shape->size[1] < 1 || shape->size[1] > INT32_MAX / 4 - channels->slots) return bnd_fail_memory(error, "classes of channels");
    channels->first[node->id] = channels->slots;
    channels->slots += channels_of(node);
  }
  const size_t slots = (size_t)channels->slots;
  s->parent = bnd_calloc(slots, sizeof *s->parent);
  s->fixed = bnd_calloc(slots, sizeof *s->fixed);
  channels->class_of = bnd_calloc(slots, sizeof *channels->class_of);
  channels->free = bnd_calloc(slots, sizeof *channels->free);
  if (!s->parent || !s->fixed || !channels->class_of || !channels->free) return bnd_fail_memory(error, "classes of channels");
  for (int i = 0; i < channels->slots; i++) s->parent[i] = i;
  return BND_OK;
}

static void number_classes(search *s) {
  bnd_channels *channels = s->channels;
  for (int i = 0; i < channels->slots; i++) { /* a root comes before all it stands for */
    const int r = root(s->parent, i);
    if (r == i) {
      channels->free[channels->classes] = !s->fixed[i];
      channels->class_of[i] = channels->classes++;
    } else {
      channels->class_of[i] = channels->class_of[r];
    }
  }
}

bnd_status bnd_channels_find(const bnd_graph *graph, bnd_channels *channels, bnd_error *error) {
  *channels = (bnd_channels){0};
  search s = {.channels = channels};
  const bnd_status status = lay_out(&s, graph, error);
  if (status == BND_OK) {
    for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
      if (node->kind != BND_GET_ATTR && !tie_operator(&s, node)) fix_all(&s, node);
    for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
      if (node->user_count == 0) fix(&s, node);
    number_classes(&s);
  }
  free(s.parent);
  free(s.fixed);
  if (status != BND_OK) bnd_channels_free(channels);
  return status;
}

void bnd_channels_free(bnd_channels *channels) {
  free(channels->first);
  free(channels->class_of);
  free(channels->free);
  *channels = (bnd_channels){0};
}
