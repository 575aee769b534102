/* Operators replaced by what the hardware computes, once positions are final. */
#include <stdlib.h>

#include "ops/operators.h"
#include "passes/quark/rewrite.h"
#include "passes/target/adjust.h"

static bool is_clip(const bnd_node *node) {
  const bnd_operator_id id = node->op ? bnd_functional_id(node) : BND_OPERATOR_COUNT;
  return id == BND_OP_CLAMP || id == BND_OP_CLIP;
}

bnd_status bnd_clip_to_relu(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *clip = bnd_graph_first(graph); clip; clip = clip->next) {
    if (!is_clip(clip) || clip->user_count != 1 || !bnd_is_fake_quantize(clip->users[0])) continue;
    if (bnd_arg_node(clip, 1) || bnd_arg_node(clip, 2)) {
      free(doomed.nodes);
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "node %s: a clip whose bounds are computed cannot be placed on the target", clip->name);
    }
    if (clip->arg_count < 2 || clip->args[1].kind == BND_ARG_NONE || bnd_arg_float(clip, 1, -1) != 0) continue;
    bnd_node *input = bnd_arg_node(clip, 0);
    const bnd_arg arg = bnd_arg_of_node(input);
    bnd_node *relu = bnd_insert_function(input, clip, BND_OP_RELU_, &arg, 1, "clip to relu");
    if (!relu) break;
    bnd_node_replace_all_uses(clip, relu, false);
    bnd_doom(&doomed, clip);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

bnd_status bnd_hard_sigmoid_to_hardware(bnd_graph *graph, const bnd_target_profile *target, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!node->op || bnd_functional_id(node) != BND_OP_HARDSIGMOID || node->user_count != 1) continue;
    const bnd_node *input = bnd_arg_node(node, 0), *output = node->users[0];
    if (!bnd_is_fake_quantize(input) || !bnd_is_fake_quantize(output)) continue;
    if (input->module->quantizer->channels != 1 || output->module->quantizer->channels != 1) continue;
    const bnd_arg args[] = {BND_NONE_ARG, bnd_arg_of_float(target->hard_sigmoid_factor)};
    bnd_node *mul = bnd_insert_function(node, node, BND_OP_MUL, args, 2, "hard sigmoid as the hardware computes it");
    if (!mul) break;
    mul->skip = true;
    bnd_node_replace_all_uses(node, mul, false);
    bnd_node_set_arg(mul, 0, bnd_arg_of_node(node));
  }
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}
