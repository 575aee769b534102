/* In which order blocks deserve to be trained when there is not time for all of them. */
#include <stdlib.h>

#include "ops/operators.h"
#include "refine/blocks.h"
#include "refine/reconstruct.h"

enum { IMAGES = 4 };

typedef struct harm {
  double distance;
  size_t block;
} harm;

/* The larger distance first, a NaN before all; of equal ones the earlier block. */
static int compare(const void *a, const void *b) {
  const harm *x = a, *y = b;
  if (x->distance != x->distance || y->distance != y->distance) return (y->distance != y->distance) - (x->distance != x->distance);
  if (x->distance != y->distance) return x->distance > y->distance ? -1 : 1;
  return x->block < y->block ? -1 : 1;
}

/* The float layer in the place of a quantized one. */
static void take_float(bnd_module *module, const bnd_module *teacher) {
  bnd_quantizer_destroy(module->weight_quantizer);
  bnd_quantizer_destroy(module->bias_quantizer);
  module->weight_quantizer = module->bias_quantizer = NULL;
  if (!teacher) return;
  bnd_tensor_release(&module->weight);
  module->weight = bnd_tensor_share(&teacher->weight, NULL);
  if (!teacher->bias.data) return;
  bnd_tensor_release(&module->bias);
  module->bias = bnd_tensor_share(&teacher->bias, NULL);
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

static bnd_status measure_blocks(const bnd_refinement *work, const bnd_block_list *blocks, harm *harms, bnd_error *error) {
  bnd_image_source few = *work->images;
  if (few.count > IMAGES) few.count = IMAGES;
  bnd_refinement judge = *work;
  bnd_reference *reference;
  BND_TRY(bnd_reference_create(work->teacher, &few, work->backend, work->context, &reference, error));
  judge.held_out = &few;
  judge.reference = reference;
  bnd_status status = BND_OK;
  for (size_t i = 0; i < blocks->count && status == BND_OK; i++) {
    bnd_report_progress(work->context, "order of blocks", "blocks", i, blocks->count);
    harms[i].block = i;
    status = measure_block(&judge, &blocks->items[i], &harms[i].distance, error);
  }
  if (status == BND_OK) bnd_report_progress(work->context, "order of blocks", "blocks", blocks->count, blocks->count);
  bnd_reference_destroy(reference);
  return status;
}

bnd_status bnd_reconstruct_order(const bnd_refinement *work, const bnd_reconstruct_options *options, size_t **order, bnd_error *error) {
  const int most = options && options->most_convolutions > 0 ? options->most_convolutions : BND_BLOCK_CONVOLUTIONS;
  bnd_block_list blocks;
  BND_TRY(bnd_blocks_find(work->graph, most, &blocks, error));
  harm *harms = bnd_calloc(blocks.count + 1, sizeof *harms);
  size_t *places = bnd_calloc(blocks.count + 1, sizeof *places);
  bnd_status status = harms && places ? measure_blocks(work, &blocks, harms, error) : bnd_fail_memory(error, "the order of blocks");
  if (status == BND_OK) {
    qsort(harms, blocks.count, sizeof *harms, compare);
    for (size_t i = 0; i < blocks.count; i++) places[i] = harms[i].block;
    *order = places;
  } else {
    free(places);
  }
  free(harms);
  bnd_blocks_free(&blocks);
  return status;
}
