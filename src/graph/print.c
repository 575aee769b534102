/* torch.fx's text of a graph, and the checks every pass must leave true. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"

/* Python's repr of a float: the shortest digits that read back as the same double. */
static void print_float(bnd_string *text, double value) {
  if (isinf(value) || isnan(value)) {
    bnd_string_format(text, "%s", isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
    return;
  }
  char digits[40];
  for (int precision = 1; precision <= 17; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, value);
    if (strtod(digits, NULL) == value) break;
  }
  const double magnitude = fabs(value);
  if (strchr(digits, 'e') && magnitude < 1e16 && magnitude >= 1) { /* Python writes 100.0 where %g writes 1e+02 */
    snprintf(digits, sizeof digits, "%.0f", value);
  }
  bnd_string_format(text, "%s%s", digits, strpbrk(digits, ".e") ? "" : ".0");
}

static void print_arg(bnd_string *text, const bnd_arg *arg) {
  switch (arg->kind) {
    case BND_ARG_NONE: bnd_string_format(text, "None"); break;
    case BND_ARG_NODE: bnd_string_format(text, "%%%s", arg->node->name); break;
    case BND_ARG_INT: bnd_string_format(text, "%lld", (long long)arg->integer); break;
    case BND_ARG_FLOAT: print_float(text, arg->number); break;
    case BND_ARG_BOOL: bnd_string_format(text, "%s", arg->boolean ? "True" : "False"); break;
    case BND_ARG_TEXT: bnd_string_format(text, "%s", arg->text); break;
    case BND_ARG_LIST:
      bnd_string_format(text, "%c", arg->tuple ? '(' : '[');
      for (int i = 0; i < arg->list.count; i++) {
        if (i) bnd_string_format(text, ", ");
        print_arg(text, &arg->list.items[i]);
      }
      bnd_string_format(text, "%s%c", arg->tuple && arg->list.count == 1 ? "," : "", arg->tuple ? ')' : ']');
      break;
  }
}

static void print_call(bnd_string *text, const bnd_node *node) {
  const bnd_arg args = {.kind = BND_ARG_LIST, .tuple = true, .list = {node->args, node->arg_count}};
  bnd_string_format(text, "(args = ");
  print_arg(text, &args);
  bnd_string_format(text, ", kwargs = {");
  for (int i = 0; i < node->keyword_count; i++) {
    bnd_string_format(text, "%s%s: ", i ? ", " : "", node->keywords[i].name);
    print_arg(text, &node->keywords[i].value);
  }
  bnd_string_format(text, "})");
}

/* The returned value is printed without the % of its nodes. */
static void print_returned(bnd_string *text, const bnd_arg *arg) {
  if (arg->kind == BND_ARG_NODE) {
    bnd_string_format(text, "%s", arg->node->name);
  } else if (arg->kind == BND_ARG_LIST) {
    bnd_string_format(text, "%c", arg->tuple ? '(' : '[');
    for (int i = 0; i < arg->list.count; i++) {
      if (i) bnd_string_format(text, ", ");
      print_returned(text, &arg->list.items[i]);
    }
    bnd_string_format(text, "%s%c", arg->tuple && arg->list.count == 1 ? "," : "", arg->tuple ? ')' : ']');
  } else {
    print_arg(text, arg);
  }
}

bnd_status bnd_graph_print_fx(const bnd_graph *graph, bnd_string *text, bnd_error *error) {
  bnd_string_format(text, "graph():");
  for (const bnd_node *node = graph->first; node; node = node->next) {
    if (node->kind == BND_OUTPUT) {
      bnd_string_format(text, "\n    return ");
      print_returned(text, &node->args[0]);
      continue;
    }
    bnd_string_format(text, "\n    %%%s : [num_users=%d] = ", node->name, node->user_count);
    switch (node->kind) {
      case BND_PLACEHOLDER: bnd_string_format(text, "placeholder[target=%s]", node->target); break;
      case BND_GET_ATTR: bnd_string_format(text, "get_attr[target=%s]", node->target); break;
      case BND_CALL_MODULE: bnd_string_format(text, "call_module[target=%s]", node->target); break;
      default: bnd_string_format(text, "call_function[target=%s]", node->op->target); break;
    }
    if (node->kind == BND_CALL_FUNCTION || node->kind == BND_CALL_MODULE) print_call(text, node);
  }
  return text->failed ? bnd_fail_memory(error, "the text of the graph") : BND_OK;
}

/* --- verification --- */

typedef struct verify_state {
  const bnd_node *node;
  const bool *seen; /* by id: printed before */
  const bnd_node *bad;
} verify_state;

static bool uses(const bnd_node *input, const bnd_node *node) {
  for (int i = 0; i < input->user_count; i++)
    if (input->users[i] == node) return true;
  return false;
}

static void verify_input(void *user, bnd_node *input) {
  verify_state *state = user;
  if (input->graph != state->node->graph || !state->seen[input->id] || !uses(input, state->node)) state->bad = input;
}

static bool reads(const bnd_node *node, const bnd_node *input) {
  bnd_node *inputs[256];
  const int count = bnd_node_inputs(node, inputs, 256);
  for (int i = 0; i < count && i < 256; i++)
    if (inputs[i] == input) return true;
  return count > 256;
}

bnd_status bnd_graph_verify(const bnd_graph *graph, bnd_error *error) {
  BND_TRY(bnd_graph_status(graph, error));
  bool *seen = bnd_calloc((size_t)graph->next_id, sizeof *seen);
  if (!seen) return bnd_fail_memory(error, "the verification of a graph");
  bnd_status status = BND_OK;
  bnd_map names = {0};
  int count = 0;
  for (const bnd_node *node = graph->first; node && status == BND_OK; node = node->next, count++) {
    verify_state state = {node, seen, NULL};
    bnd_node_visit_inputs(node, verify_input, &state);
    if (state.bad) status = bnd_fail(error, BND_ERROR_INTERNAL, "graph: node %s reads %s, which does not come before it", node->name, state.bad->name);
    else if (bnd_map_get(&names, node->name, NULL)) status = bnd_fail(error, BND_ERROR_INTERNAL, "graph: two nodes are named %s", node->name);
    else if ((node->kind == BND_OUTPUT) != (node->next == NULL)) status = bnd_fail(error, BND_ERROR_INTERNAL, "graph: the output is not the last node");
    else if ((node->kind == BND_CALL_MODULE) != (node->module != NULL)) status = bnd_fail(error, BND_ERROR_INTERNAL, "graph: node %s has no module", node->name);
    for (int i = 0; i < node->user_count && status == BND_OK; i++)
      if (!reads(node->users[i], node))
        status = bnd_fail(error, BND_ERROR_INTERNAL, "graph: %s is listed as user of %s but does not read it", node->users[i]->name, node->name);
    if (!bnd_map_put(&names, node->name, 1)) status = bnd_fail_memory(error, "the verification of a graph");
    seen[node->id] = true;
  }
  if (status == BND_OK && count != graph->node_count) status = bnd_fail(error, BND_ERROR_INTERNAL, "graph: node count is wrong");
  bnd_map_free(&names);
  free(seen);
  return status;
}
