/* Per-layer overrides (fx-quantization 1.4): looked up by original module path, else by node name. Quantizers are shared by all readers of a tensor,
   so overriding a layer's input also changes its producer's output. */
#include <string.h>

#include "base/near.h"
#include "passes/quark/rewrite.h"

static bool replace_quantizer(bnd_quantizer **slot, const bnd_role_config *role) {
  if (!role->present || bnd_quantizer_spec_equal(&(*slot)->spec, &role->spec)) return true;
  bnd_quantizer *fresh = bnd_quantizer_create(&role->spec);
  if (!fresh) return false;
  bnd_quantizer_destroy(*slot);
  *slot = fresh;
  return true;
}

static bool replace_in_node(bnd_node *node, const bnd_role_config *role) {
  return !bnd_is_fake_quantize(node) || replace_quantizer(&node->module->quantizer, role);
}

typedef struct input_override {
  const bnd_role_config *role;
  bool fine;
} input_override;

static void override_input(void *user, bnd_node *input) {
  input_override *override = user;
  override->fine &= replace_in_node(input, override->role);
}

static bool apply(bnd_node *node, const bnd_layer_config *config) {
  bool fine = true;
  if (bnd_is_conv_module(node)) {
    fine = replace_in_node(bnd_arg_node(node, 0), &config->input);
    if (node->module->weight_quantizer) fine &= replace_quantizer(&node->module->weight_quantizer, &config->weight);
    if (node->module->bias_quantizer) fine &= replace_quantizer(&node->module->bias_quantizer, &config->bias);
  } else {
    input_override override = {&config->input, true};
    bnd_node_visit_inputs(node, override_input, &override);
    fine = override.fine;
  }
  for (int i = 0; i < node->user_count; i++) fine &= replace_in_node(node->users[i], &config->output);
  return fine;
}

static bool matches(const bnd_node *node, const char *name) {
  return strcmp(node->name, name) == 0 || (node->original_module && strcmp(node->original_module, name) == 0);
}

static bnd_status unknown_layer(const bnd_graph *graph, const char *name, bnd_error *error) {
  bnd_near_names near_names = {.wanted = name};
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!node->op || bnd_is_fake_quantize(node)) continue;
    bnd_near_offer(&near_names, node->original_module ? node->original_module : node->name);
  }
  char text[512];
  return bnd_fail(error, BND_ERROR_ARGUMENT, "layer configuration: no layer is called \"%s\"; near names: %s", name,
                  bnd_near_text(&near_names, text, sizeof text));
}

bnd_status bnd_quark_apply_layer_configs(bnd_graph *graph, const bnd_quantization_config *config, bnd_error *error) {
  for (size_t i = 0; i < config->layer_count; i++) {
    bool found = false;
    for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
      if (!node->op || bnd_is_fake_quantize(node) || !matches(node, config->layers[i].name)) continue;
      found = true;
      if (!apply(node, &config->layers[i].config)) return bnd_fail_memory(error, "quantizers");
    }
    if (!found) return unknown_layer(graph, config->layers[i].name, error);
  }
  return BND_OK;
}
