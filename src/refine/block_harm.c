/* What the quantization of each block costs: how much time it deserves when there is not time for all. */
#include <math.h>
#include <stdlib.h>

#include "ops/operators.h"
#include "refine/blocks.h"
#include "refine/reconstruct.h"

enum { IMAGES = 4 };

/* The float layer in the place of a quantized one. */
static void take_float(bnd_module *module, const bnd_module *teacher) {
  bnd_quantizer_destroy(module->weight_quantizer);
  bnd_quantizer_destroy(module->bias_quantizer);
  module->weight_quantizer = module->bias_quantizer = NULL;
  if (teacher) bnd_module_share_weights(module, teacher);
}

/* Everything but the block becomes what it is in the float network. */
static bnd_status keep_block(const bnd_refinement *work, bnd_graph *graph, const bnd_block *block, bnd_error *error) {
  bnd_graph *inside;
  BND_TRY(bnd_block_graph(graph, block->inputs, block->input_count, block->outputs, block->output_count, &inside, error));
  for (bnd_node *node = bnd_graph_first(graph), *next; node; node = next) {
    next = node->next;
    const bnd_node *own = bnd_graph_find(inside, node->name);
    if (own && own->kind != BND_PLACEHOLDER) continue;
    if (bnd_is_conv_module(node)) take_float(node->module, bnd_graph_find_module(work->teacher, node->module->name));
    if (!bnd_is_fake_quantize(node)) continue;
    bnd_node_replace_all_uses(node, bnd_arg_node(node, 0), false);
    bnd_node_erase(node);
  }
  bnd_graph_destroy(inside);
  return bnd_graph_status(graph, error);
}

static bnd_status measure_block(const bnd_refinement *work, const bnd_block *block, double *distance, bnd_error *error) {
  bnd_graph *graph;
  BND_TRY(bnd_graph_copy(work->graph, &graph, error));
  bnd_status status = keep_block(work, graph, block, error);
  if (status == BND_OK) status = bnd_refine_measure(work, graph, work->held_out, distance, error);
  bnd_graph_destroy(graph);
  return status;
}

static bnd_status measure_blocks(const bnd_refinement *work, const bnd_block_list *blocks, double *harm, bnd_error *error) {
  bnd_image_source few = *work->images;
  if (few.count > IMAGES) few.count = IMAGES;
  bnd_refinement judge = *work;
  bnd_reference *reference;
  BND_TRY(bnd_reference_create(work->teacher, &few, work->backend, work->context, &reference, error));
  judge.held_out = &few;
  judge.reference = reference;
  bnd_status status = BND_OK;
  for (size_t i = 0; i < blocks->count && status == BND_OK; i++) {
    bnd_report_progress(work->context, "sensitivity of blocks", "blocks", i, blocks->count);
    status = measure_block(&judge, &blocks->items[i], &harm[i], error);
    if (!isfinite(harm[i])) harm[i] = 1; /* nothing is left of the answers */
  }
  if (status == BND_OK) bnd_report_progress(work->context, "sensitivity of blocks", "blocks", blocks->count, blocks->count);
  bnd_reference_destroy(reference);
  return status;
}

bnd_status bnd_reconstruct_harm(const bnd_refinement *work, const bnd_reconstruct_options *options, double **harm, bnd_error *error) {
  const int most = options && options->most_convolutions > 0 ? options->most_convolutions : BND_BLOCK_CONVOLUTIONS;
  bnd_block_list blocks;
  BND_TRY(bnd_blocks_find(work->graph, most, &blocks, error));
  double *values = bnd_calloc(blocks.count + 1, sizeof *values);
  const bnd_status status = values ? measure_blocks(work, &blocks, values, error) : bnd_fail_memory(error, "what blocks cost");
  if (status == BND_OK) *harm = values;
  else free(values);
  bnd_blocks_free(&blocks);
  return status;
}
