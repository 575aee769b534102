#include "flow/scope.h"

#include <stdlib.h>
#include <string.h>

#include "base/near.h"
#include "ops/operators.h"
#include "passes/stub.h"

static const char *scope_of(const bnd_quantize_options *options) { return options->scope ? options->scope : "published"; }

bool bnd_scope_is_published(const bnd_quantize_options *options) { return strcmp(scope_of(options), "published") == 0; }

static bnd_status stub_behind(bnd_graph *graph, const char *name, bnd_operator_id kind, bnd_error *error) {
  bnd_node *place = bnd_graph_find(graph, name);
  if (!place || place->kind == BND_OUTPUT) {
    bnd_near_names near_names = {.wanted = name};
    char list[512];
    for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
      if (node->kind == BND_CALL_FUNCTION || node->kind == BND_PLACEHOLDER) bnd_near_offer(&near_names, node->name);
    return bnd_fail(error, BND_ERROR_ARGUMENT, "no node is called \"%s\"; near names: %s (`binade print` lists all)", name,
                    bnd_near_text(&near_names, list, sizeof list));
  }
  bnd_node *stub = bnd_insert_stub(place, kind, NULL);
  if (!stub) return bnd_graph_status(graph, error);
  bnd_node_replace_all_uses(place, stub, true);
  return bnd_graph_status(graph, error);
}

static bool in_heads(const bnd_node *node) { return node->scope && strncmp(node->scope, "heads", 5) == 0; }

/* Something backbone or neck computed, as opposed to weights and to what the heads make by themselves (anchors). */
static bool is_feature(const bnd_node *node) { return node->kind == BND_CALL_FUNCTION && node->scope && *node->scope && !in_heads(node) && node->result_count == 1; }

/* A DeQuantStub on every way from backbone and neck into the heads. */
static bnd_status leave_heads_out(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!is_feature(node) || bnd_node_is(node, BND_OP_DEQUANT_STUB)) continue;
    bnd_node *stub = NULL;
    for (int i = node->user_count - 1; i >= 0; i--) {
      bnd_node *user = node->users[i];
      if (user == stub || !in_heads(user)) continue;
      if (!stub && !(stub = bnd_insert_stub(node, BND_OP_DEQUANT_STUB, NULL))) return bnd_graph_status(graph, error);
      bnd_node_replace_input(user, node, stub);
    }
  }
  return bnd_graph_status(graph, error);
}

static bnd_node *placeholder_of(bnd_graph *graph) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->kind == BND_PLACEHOLDER) return node;
  return NULL;
}

bnd_status bnd_scope_place(bnd_graph *graph, const bnd_quantize_options *options, bnd_error *error) {
  const char *scope = scope_of(options);
  if (bnd_scope_is_published(options) || strcmp(scope, "all") == 0) return BND_OK;
  if (strcmp(scope, "backbone-neck") == 0) {
    BND_TRY(stub_behind(graph, placeholder_of(graph)->name, BND_OP_QUANT_STUB, error));
    return leave_heads_out(graph, error);
  }
  if (strcmp(scope, "stubs") != 0)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "no scope is called \"%s\"; there are published, backbone-neck, all, and stubs placed by name", scope);
  for (size_t i = 0; i < options->quant_stub_count; i++) BND_TRY(stub_behind(graph, options->quant_stubs[i], BND_OP_QUANT_STUB, error));
  for (size_t i = 0; i < options->dequant_stub_count; i++) BND_TRY(stub_behind(graph, options->dequant_stubs[i], BND_OP_DEQUANT_STUB, error));
  return BND_OK;
}
