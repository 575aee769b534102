/* Files for NPU compilers give every consumer a pair of its own (fx-quantization 8.3). Pairs that quantize the same value with the same
   parameters are one quantizer, so the later ones are left out and their readers read the first. */
#include <stdlib.h>
#include <string.h>

#include "import/importer.h"

static bool is_pair_node(const Onnx__NodeProto *node) {
  const char *op_type = bnd_import_text(node->op_type);
  return (strcmp(op_type, "QuantizeLinear") == 0 || strcmp(op_type, "DequantizeLinear") == 0) && node->n_output == 1 && node->n_input >= 2;
}

static bool is_output(const Onnx__GraphProto *graph, const char *name) {
  for (size_t i = 0; i < graph->n_output; i++)
    if (strcmp(bnd_import_text(graph->output[i]->name), name) == 0) return true;
  return false;
}

/* Replaces inputs that come from a node left out; aliases: output of such a node -> index of the node that stands for it. */
static bool redirect(const Onnx__GraphProto *graph, const bnd_map *aliases, Onnx__NodeProto *node) {
  for (size_t k = 0; k < node->n_input; k++) {
    size_t first;
    if (!bnd_map_get(aliases, node->input[k], &first)) continue;
    char *name = strdup(graph->node[first]->output[0]);
    if (!name) return false;
    free(node->input[k]);
    node->input[k] = name;
  }
  return true;
}

bnd_status bnd_import_merge_pairs(bnd_importer *importer, bnd_error *error) {
  const Onnx__GraphProto *graph = importer->proto;
  bnd_map seen = {0}, aliases = {0}; /* what a node computes -> its index */
  bool fine = true;
  for (size_t i = 0; fine && i < graph->n_node; i++) {
    Onnx__NodeProto *node = graph->node[i];
    fine = redirect(graph, &aliases, node);
    if (!fine || !is_pair_node(node)) continue;
    const char *key = bnd_arena_format(importer->arena, "%s|%s|%s|%s|%lld", node->op_type, node->input[0], node->input[1],
                                       node->n_input > 2 ? node->input[2] : "", (long long)bnd_import_int(node, "axis", 1));
    size_t first;
    if (!key)
      fine = false;
    else if (!bnd_map_get(&seen, key, &first))
      fine = bnd_map_put(&seen, key, i);
    else if (!is_output(graph, node->output[0]))
      fine = importer->done[i] = bnd_map_put(&aliases, node->output[0], first);
  }
  bnd_map_free(&seen);
  bnd_map_free(&aliases);
  return fine ? BND_OK : bnd_fail_memory(error, "the nodes of the file");
}
