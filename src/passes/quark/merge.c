/* Quark's freeze, first half: batch norm merged for good (its rounding differs from the folding during calibration), dropout removed. */
#include <math.h>

#include "passes/quark/rewrite.h"

/* scale = gamma / sqrt(var + eps); W *= scale; b = b * scale + (beta - mean * scale); all float32, in this order (merge_bn_to_conv). */
static bnd_status merge(bnd_module *module, bool transposed, bnd_error *error) {
  const size_t channels = module->bn_weight.count;
  const int64_t axis = transposed ? 1 : 0;
  if (module->weight.shape.rank < 2 || (size_t)module->weight.shape.size[axis] != channels || module->bn_bias.count != channels ||
      module->bn_running_mean.count != channels || module->bn_running_var.count != channels || (module->bias.data && module->bias.count != channels))
    return bnd_fail(error, BND_ERROR_MODEL, "module %s: its batch norm and its weight disagree about the number of channels", module->name);
  bnd_tensor weight, bias;
  BND_TRY(bnd_tensor_create(BND_F32, &module->weight.shape, &weight, error));
  const bnd_status status = bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)channels), &bias, error);
  if (status != BND_OK) {
    bnd_tensor_release(&weight);
    return status;
  }
  const size_t outer = transposed ? (size_t)module->weight.shape.size[0] : 1, inner = channels ? module->weight.count / (outer * channels) : 0;
  const float epsilon = (float)module->bn_epsilon;
  for (size_t c = 0; c < channels; c++) {
    const float scale = bnd_f32(&module->bn_weight)[c] / sqrtf(bnd_f32(&module->bn_running_var)[c] + epsilon);
    const float product = bnd_f32(&module->bn_running_mean)[c] * scale, offset = bnd_f32(&module->bn_bias)[c] - product;
    const float scaled = module->bias.data ? bnd_f32(&module->bias)[c] * scale : 0.f;
    bnd_f32(&bias)[c] = scaled + offset;
    for (size_t o = 0; o < outer; o++)
      for (size_t i = 0; i < inner; i++) {
        const size_t at = (o * channels + c) * inner + i;
        bnd_f32(&weight)[at] = bnd_f32(&module->weight)[at] * scale;
      }
  }
  bnd_tensor *stale[] = {&module->weight, &module->bias, &module->bn_weight, &module->bn_bias, &module->bn_running_mean, &module->bn_running_var};
  for (size_t i = 0; i < sizeof stale / sizeof *stale; i++) bnd_tensor_release(stale[i]);
  module->weight = weight;
  module->bias = bias;
  module->has_batch_norm = false;
  return BND_OK;
}

bnd_status bnd_quark_merge_batch_norm(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (bnd_is_conv_module(node) && node->module->has_batch_norm)
      BND_TRY(merge(node->module, bnd_node_is(node, BND_OP_CONV_TRANSPOSE2D_BN_MODULE), error));
    if (bnd_node_is(node, BND_OP_DROPOUT) && bnd_arg_node(node, 0)) {
      bnd_node_replace_all_uses(node, bnd_arg_node(node, 0), false);
      bnd_doom(&doomed, node);
    }
  }
  return bnd_finish_sweep(graph, &doomed, error);
}
