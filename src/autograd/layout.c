/* Which values are blocked, with conversions where layouts meet, and oneDNN's layers made. Layouts spread forward from convolutions; what works on
   single values, channels or same-size pools keeps the layout it finds; the rest works on plain data. */
#include <stdlib.h>
#include <string.h>

#include "autograd/internal.h"

enum { FEW_CHANNELS = 4 }; /* better read as they are than spread over a block that is mostly padding */

static bnd_status convert(bnd_network *network, int *index, size_t block, bnd_error *error) {
  if (*index < 0 || network->values[*index].block == block) return BND_OK;
  if (network->values[*index].twin >= 0) {
    *index = network->values[*index].twin;
    return BND_OK;
  }
  const value from = network->values[*index];
  const int made = bnd_network_add_value(network, from.name, &from.shape);
  step *conversion = made < 0 ? NULL : bnd_network_add_step(network, block ? STEP_TO_BLOCKED : STEP_TO_PLAIN, from.name, 1);
  if (!conversion) return bnd_fail_memory(error, "the network");
  conversion->inputs[0] = *index;
  conversion->outputs[0] = made;
  conversion->output_count = 1;
  conversion->differentiable = from.differentiable;
  network->values[made].block = block;
  network->values[made].differentiable = from.differentiable;
  network->values[made].twin = *index;
  network->values[*index].twin = made;
  *index = made;
  return BND_OK;
}

static bnd_status convert_inputs(bnd_network *network, step *it, size_t block, bnd_error *error) {
  for (int i = 0; i < it->input_count; i++)
    if (it->inputs[i] >= 0 && network->values[it->inputs[i]].shape.rank == 4) BND_TRY(convert(network, &it->inputs[i], block, error));
  return BND_OK;
}

static bool has_blocked_input(const bnd_network *network, const step *it) {
  for (int i = 0; i < it->input_count; i++)
    if (it->inputs[i] >= 0 && network->values[it->inputs[i]].block) return true;
  return false;
}

static bnd_status make_layer(bnd_network *network, step *it, bnd_error *error) {
  const value *x = &network->values[it->inputs[0]], *y = &network->values[it->outputs[0]];
  const bnd_shape *weight = &network->parameters[it->weight].shape;
  if (!network->onednn || bnd_onednn_block(network->onednn) == 0 || it->kernel.groups != 1 || x->shape.rank != 4 || weight->rank != 4) return BND_OK;
  bnd_convolution_shape shape = {.images = 1,
                                 .in_channels = (size_t)x->shape.size[1],
                                 .in_height = (size_t)x->shape.size[2],
                                 .in_width = (size_t)x->shape.size[3],
                                 .out_channels = (size_t)y->shape.size[1],
                                 .out_height = (size_t)y->shape.size[2],
                                 .out_width = (size_t)y->shape.size[3],
                                 .window = {weight->size[2], weight->size[3]}};
  memcpy(shape.stride, it->kernel.stride, sizeof shape.stride);
  memcpy(shape.padding, it->kernel.padding, sizeof shape.padding);
  memcpy(shape.dilation, it->kernel.dilation, sizeof shape.dilation);
  const bool data_gradient = x->differentiable && it->differentiable;
  shape.plain_input = x->block == 0 && shape.in_channels <= FEW_CHANNELS && !data_gradient && !it->transposed;
  BND_TRY(bnd_onednn_layer_create(network->onednn, &shape, it->transposed, data_gradient, &it->layer, error));
  if (!it->layer && shape.plain_input) {
    shape.plain_input = false;
    BND_TRY(bnd_onednn_layer_create(network->onednn, &shape, it->transposed, data_gradient, &it->layer, error));
  }
  if (!it->layer) return BND_OK;
  network->values[it->outputs[0]].block = bnd_onednn_block(network->onednn);
  return shape.plain_input ? BND_OK : convert(network, &it->inputs[0], bnd_onednn_block(network->onednn), error);
}

static bnd_status assign(bnd_network *network, step *it, bnd_error *error) {
  switch (it->kind) {
    case STEP_CONVOLUTION:
      BND_TRY(make_layer(network, it, error));
      return it->layer ? BND_OK : convert_inputs(network, it, 0, error);
    case STEP_NORM:
    case STEP_SUM:
    case STEP_RELU:
    case STEP_FAKE_QUANTIZE:
    case STEP_CONCAT:
    case STEP_MAX_POOL: {
      const size_t block = has_blocked_input(network, it) ? bnd_onednn_block(network->onednn) : 0;
      for (int i = 0; i < it->output_count; i++) network->values[it->outputs[i]].block = block;
      return convert_inputs(network, it, block, error);
    }
    default:
      return convert_inputs(network, it, 0, error);
  }
}

static bnd_status assign_outputs(bnd_network *network, bnd_error *error) {
  for (size_t o = 0; o < network->output_count; o++) BND_TRY(convert(network, &network->outputs[o], 0, error));
  return BND_OK;
}

/* Conversions are added where they are needed first: the list is built anew. */
bnd_status bnd_network_assign_layouts(bnd_network *network, bnd_error *error) {
  step *old = network->steps;
  const size_t count = network->step_count;
  network->steps = NULL;
  network->step_count = network->step_capacity = 0;
  bnd_status status = BND_OK;
  size_t done = 0;
  for (; done < count && status == BND_OK; done++) {
    if (old[done].kind == STEP_DEAD) continue;
    status = assign(network, &old[done], error);
    if (status == BND_OK && !BND_GROW(network->steps, network->step_capacity, network->step_count + 1))
      status = bnd_fail_memory(error, "the network");
    if (status != BND_OK) {
      bnd_onednn_layer_destroy(old[done].layer);
      break;
    }
    network->steps[network->step_count++] = old[done];
  }
  free(old);
  if (status == BND_OK) status = assign_outputs(network, error);
  /* a view lies in what it views */
  for (size_t s = 0; s < network->step_count; s++) {
    const step *it = &network->steps[s];
    if (it->kind == STEP_VIEW) network->values[it->outputs[0]].view_of = it->inputs[0];
  }
  return status;
}
