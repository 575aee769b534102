/* Changing a graph. User lists follow torch.fx: whenever a node's arguments change it leaves all its inputs' lists and enters the new ones at the end. */
#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"

static void add_user(void *user, bnd_node *input) {
  bnd_node *node = user;
  for (int i = 0; i < input->user_count; i++)
    if (input->users[i] == node) return;
  size_t capacity = (size_t)input->user_capacity;
  if (!BND_GROW(input->users, capacity, (size_t)input->user_count + 1)) {
    node->graph->short_of_memory = true;
    return;
  }
  input->user_capacity = (int)capacity;
  input->users[input->user_count++] = node;
}

static void remove_user(void *user, bnd_node *input) {
  bnd_node *node = user;
  for (int i = 0; i < input->user_count; i++) {
    if (input->users[i] != node) continue;
    memmove(input->users + i, input->users + i + 1, (size_t)(input->user_count - i - 1) * sizeof *input->users);
    input->user_count--;
    return;
  }
}

void bnd_node_link_inputs(bnd_node *node) { bnd_node_visit_inputs(node, add_user, node); }
void bnd_node_unlink_inputs(bnd_node *node) { bnd_node_visit_inputs(node, remove_user, node); }

void bnd_node_set_args(bnd_node *node, const bnd_arg *args, int arg_count) {
  bnd_arg *copy = bnd_arena_alloc(node->graph->arena, (size_t)arg_count, sizeof *copy);
  if (!copy) {
    node->graph->short_of_memory = true;
    return;
  }
  if (arg_count) memcpy(copy, args, (size_t)arg_count * sizeof *copy);
  bnd_node_unlink_inputs(node);
  node->args = copy;
  node->arg_count = arg_count;
  bnd_node_link_inputs(node);
}

void bnd_node_set_arg(bnd_node *node, int index, bnd_arg value) {
  bnd_arg *copy = bnd_arena_alloc(node->graph->arena, (size_t)node->arg_count + 1, sizeof *copy);
  if (!copy) {
    node->graph->short_of_memory = true;
    return;
  }
  if (node->arg_count) memcpy(copy, node->args, (size_t)node->arg_count * sizeof *copy);
  copy[index] = value;
  bnd_node_set_args(node, copy, index < node->arg_count ? node->arg_count : index + 1);
}

static bnd_arg replaced(bnd_graph *graph, bnd_arg arg, bnd_node *old, bnd_node *replacement) {
  if (arg.kind == BND_ARG_NODE && arg.node == old) arg.node = replacement;
  if (arg.kind == BND_ARG_LIST) {
    const bool tuple = arg.tuple;
    arg = bnd_graph_list(graph, arg.list.items, arg.list.count);
    arg.tuple = tuple;
    for (int i = 0; i < arg.list.count; i++) arg.list.items[i] = replaced(graph, arg.list.items[i], old, replacement);
  }
  return arg;
}

void bnd_node_replace_input(bnd_node *node, bnd_node *old, bnd_node *replacement) {
  bnd_node_unlink_inputs(node);
  for (int i = 0; i < node->arg_count; i++) node->args[i] = replaced(node->graph, node->args[i], old, replacement);
  for (int i = 0; i < node->keyword_count; i++) node->keywords[i].value = replaced(node->graph, node->keywords[i].value, old, replacement);
  bnd_node_link_inputs(node);
}

void bnd_node_replace_all_uses(bnd_node *node, bnd_node *replacement, bool keep_in_replacement) {
  const int count = node->user_count;
  bnd_node **users = bnd_calloc((size_t)count, sizeof *users);
  if (!users) {
    node->graph->short_of_memory = true;
    return;
  }
  if (count) memcpy(users, node->users, (size_t)count * sizeof *users);
  for (int i = 0; i < count; i++)
    if (!(keep_in_replacement && users[i] == replacement)) bnd_node_replace_input(users[i], node, replacement);
  free(users);
}

static void detach(bnd_node *node) {
  bnd_graph *graph = node->graph;
  if (node->previous) node->previous->next = node->next;
  else graph->first = node->next;
  if (node->next) node->next->previous = node->previous;
  else graph->last = node->previous;
  node->previous = node->next = NULL;
}

void bnd_node_move_after(bnd_node *node, bnd_node *place) {
  if (node == place) return;
  detach(node);
  node->previous = place;
  node->next = place->next;
  if (place->next) place->next->previous = node;
  else node->graph->last = node;
  place->next = node;
}

void bnd_node_move_before(bnd_node *node, bnd_node *place) {
  if (node == place) return;
  detach(node);
  node->next = place;
  node->previous = place->previous;
  if (place->previous) place->previous->next = node;
  else node->graph->first = node;
  place->previous = node;
}

void bnd_node_erase(bnd_node *node) {
  bnd_node_unlink_inputs(node);
  detach(node);
  free(node->users);
  node->users = NULL;
  node->user_count = node->user_capacity = 0;
  node->graph->node_count--;
}

/* torch.fx keeps what writes into its input ("add_") or draws random numbers, used or not. */
static bool has_side_effect(const bnd_node *node) {
  if (node->kind == BND_PLACEHOLDER || node->kind == BND_OUTPUT) return true;
  if (node->kind != BND_CALL_FUNCTION) return false;
  return node->op->name[strlen(node->op->name) - 1] == '_' || strcmp(node->op->name, "dropout") == 0;
}

void bnd_graph_eliminate_dead_code(bnd_graph *graph) {
  for (bnd_node *node = graph->last, *previous; node; node = previous) {
    previous = node->previous;
    if (node->user_count == 0 && !has_side_effect(node)) bnd_node_erase(node);
  }
}

void bnd_node_copy_meta(bnd_node *to, const bnd_node *from) {
  to->scope = from->scope;
  to->skip = from->skip;
  to->original_module = from->original_module;
  to->changed_by = from->changed_by;
}

/* --- copying a whole graph --- */

static bnd_arg copied_arg(bnd_graph *copy, bnd_arg arg, bnd_node *const *node_of_id) {
  if (arg.kind == BND_ARG_NODE) arg.node = node_of_id[arg.node->id];
  if (arg.kind == BND_ARG_TEXT && !(arg.text = bnd_arena_copy(copy->arena, arg.text))) copy->short_of_memory = true;
  if (arg.kind == BND_ARG_LIST) {
    const bool tuple = arg.tuple;
    arg = bnd_graph_list(copy, arg.list.items, arg.list.count);
    arg.tuple = tuple;
    for (int i = 0; i < arg.list.count; i++) arg.list.items[i] = copied_arg(copy, arg.list.items[i], node_of_id);
  }
  return arg;
}

static const char *copied_text(bnd_graph *copy, const char *text) {
  if (!text) return NULL;
  const char *result = bnd_arena_copy(copy->arena, text);
  if (!result) copy->short_of_memory = true;
  return result;
}

static bnd_quantizer *copied_quantizer(bnd_graph *copy, const bnd_quantizer *quantizer) {
  if (!quantizer) return NULL;
  bnd_quantizer *result = bnd_quantizer_copy(quantizer);
  if (!result) copy->short_of_memory = true;
  return result;
}

static void copy_modules(bnd_graph *copy, const bnd_graph *graph) {
  for (size_t i = 0; i < graph->module_count && !copy->short_of_memory; i++) {
    const bnd_module *from = graph->modules[i];
    bnd_module *to = bnd_graph_add_module(copy, from->name);
    if (!to) return;
    bnd_module_share(to, from);
    to->observed = copied_text(copy, from->observed);
    to->weight_integers = copied_text(copy, from->weight_integers);
    to->bias_integers = copied_text(copy, from->bias_integers);
    to->integers = copied_text(copy, from->integers);
    to->weight_quantizer = copied_quantizer(copy, from->weight_quantizer);
    to->bias_quantizer = copied_quantizer(copy, from->bias_quantizer);
    to->quantizer = copied_quantizer(copy, from->quantizer);
  }
}

static void copy_node(bnd_graph *copy, const bnd_node *from, bnd_node **node_of_id) {
  bnd_node *to = bnd_graph_add(copy, from->kind, from->op, from->name, from->target, NULL, 0);
  if (!to) return;
  const bnd_node fresh = *to;
  *to = *from;
  to->name = fresh.name;
  to->target = fresh.target;
  to->graph = copy;
  to->previous = fresh.previous;
  to->next = NULL;
  to->users = NULL;
  to->user_count = to->user_capacity = 0;
  to->scope = copied_text(copy, from->scope);
  to->original_module = copied_text(copy, from->original_module);
  to->changed_by = copied_text(copy, from->changed_by);
  to->tensor = copied_text(copy, from->tensor);
  to->module = from->module ? bnd_graph_find_module(copy, from->module->name) : NULL;
  const bnd_arg args = bnd_graph_list(copy, from->args, from->arg_count);
  to->args = args.list.items;
  to->arg_count = args.list.count;
  for (int i = 0; i < to->arg_count; i++) to->args[i] = copied_arg(copy, to->args[i], node_of_id);
  to->keywords = bnd_arena_alloc(copy->arena, (size_t)from->keyword_count, sizeof *to->keywords);
  if (!to->keywords) {
    copy->short_of_memory = true;
    to->keyword_count = 0;
  }
  for (int i = 0; i < to->keyword_count; i++)
    to->keywords[i] = (bnd_keyword){copied_text(copy, from->keywords[i].name), copied_arg(copy, from->keywords[i].value, node_of_id)};
  node_of_id[from->id] = to;
}

bnd_status bnd_graph_copy(const bnd_graph *graph, bnd_graph **result, bnd_error *error) {
  bnd_graph *copy;
  BND_TRY(bnd_graph_create(&copy, error));
  bnd_node **node_of_id = bnd_calloc((size_t)graph->next_id, sizeof *node_of_id);
  bnd_status status = node_of_id ? BND_OK : bnd_fail_memory(error, "the copy of a graph");
  for (size_t i = 0; status == BND_OK && i < graph->attribute_count; i++) {
    bnd_tensor tensor = bnd_tensor_share(&graph->attributes[i].tensor, NULL);
    status = bnd_graph_set_attribute(copy, graph->attributes[i].name, &tensor, graph->attributes[i].is_parameter, error);
  }
  if (status == BND_OK) {
    copy_modules(copy, graph);
    for (const bnd_node *node = graph->first; node && !copy->short_of_memory; node = node->next) copy_node(copy, node, node_of_id);
    /* user lists in the original's order, which linking in node order need not give */
    for (const bnd_node *node = graph->first; node && !copy->short_of_memory; node = node->next) {
      bnd_node *twin = node_of_id[node->id];
      for (int i = 0; i < node->user_count; i++) add_user(node_of_id[node->users[i]->id], twin);
    }
    copy->next_id = graph->next_id;
    status = bnd_graph_status(copy, error);
  }
  free(node_of_id);
  if (status == BND_OK) *result = copy;
  else bnd_graph_destroy(copy);
  return status;
}
