/* Reading a node's arguments. */
#include <string.h>

#include "graph/graph.h"

static const bnd_arg *arg_at(const bnd_node *node, int index) {
  return index < node->arg_count && node->args[index].kind != BND_ARG_NONE ? &node->args[index] : NULL;
}

bnd_node *bnd_arg_node(const bnd_node *node, int index) {
  const bnd_arg *arg = arg_at(node, index);
  return arg && arg->kind == BND_ARG_NODE ? arg->node : NULL;
}

int64_t bnd_arg_int(const bnd_node *node, int index, int64_t otherwise) {
  const bnd_arg *arg = arg_at(node, index);
  return arg && arg->kind == BND_ARG_INT ? arg->integer : otherwise;
}

double bnd_arg_float(const bnd_node *node, int index, double otherwise) {
  const bnd_arg *arg = arg_at(node, index);
  if (arg && arg->kind == BND_ARG_FLOAT) return arg->number;
  return arg && arg->kind == BND_ARG_INT ? (double)arg->integer : otherwise;
}

bool bnd_arg_bool(const bnd_node *node, int index, bool otherwise) {
  const bnd_arg *arg = arg_at(node, index);
  return arg && arg->kind == BND_ARG_BOOL ? arg->boolean : otherwise;
}

int bnd_arg_ints(const bnd_node *node, int index, int64_t *values, int limit) {
  const bnd_arg *arg = arg_at(node, index);
  if (!arg) return 0;
  if (arg->kind == BND_ARG_INT) {
    for (int i = 0; i < limit; i++) values[i] = arg->integer;
    return limit;
  }
  if (arg->kind != BND_ARG_LIST) return 0;
  const int count = arg->list.count < limit ? arg->list.count : limit;
  for (int i = 0; i < count; i++) {
    if (arg->list.items[i].kind != BND_ARG_INT) return 0;
    values[i] = arg->list.items[i].integer;
  }
  return count;
}

void bnd_arg_pair(const bnd_node *node, int index, int64_t otherwise, int64_t pair[2]) {
  const int given = bnd_arg_ints(node, index, pair, 2);
  if (given == 0) pair[0] = pair[1] = otherwise;
  if (given == 1) pair[1] = pair[0];
}

const bnd_arg *bnd_node_keyword(const bnd_node *node, const char *name) {
  for (int i = 0; i < node->keyword_count; i++)
    if (strcmp(node->keywords[i].name, name) == 0) return &node->keywords[i].value;
  return NULL;
}

static void visit_arg(const bnd_arg *arg, void (*visit)(void *user, bnd_node *input), void *user) {
  if (arg->kind == BND_ARG_NODE) visit(user, arg->node);
  if (arg->kind == BND_ARG_LIST)
    for (int i = 0; i < arg->list.count; i++) visit_arg(&arg->list.items[i], visit, user);
}

void bnd_node_visit_inputs(const bnd_node *node, void (*visit)(void *user, bnd_node *input), void *user) {
  for (int i = 0; i < node->arg_count; i++) visit_arg(&node->args[i], visit, user);
  for (int i = 0; i < node->keyword_count; i++) visit_arg(&node->keywords[i].value, visit, user);
}

typedef struct input_list {
  bnd_node **inputs;
  int limit, count;
} input_list;

static void collect(void *user, bnd_node *input) {
  input_list *list = user;
  for (int i = 0; i < list->count && i < list->limit; i++)
    if (list->inputs[i] == input) return;
  if (list->count < list->limit) list->inputs[list->count] = input;
  list->count++;
}

int bnd_node_inputs(const bnd_node *node, bnd_node **inputs, int limit) {
  input_list list = {inputs, limit, 0};
  bnd_node_visit_inputs(node, collect, &list);
  return list.count;
}
