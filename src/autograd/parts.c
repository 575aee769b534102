/* The order of work, and what memory each piece of it needs. */
#include <stdlib.h>
#include <string.h>

#include "autograd/internal.h"

const step_functions *bnd_functions_of(step_kind kind) {
  switch (kind) {
    case STEP_CONVOLUTION:
      return bnd_step_convolution();
    case STEP_NORM:
      return bnd_step_norm();
    case STEP_SUM:
      return bnd_step_sum();
    case STEP_RELU:
      return bnd_step_relu();
    case STEP_FAKE_QUANTIZE:
      return bnd_step_fake_quantize();
    case STEP_CONCAT:
      return bnd_step_concat();
    case STEP_MAX_POOL:
      return bnd_step_max_pool();
    case STEP_TO_PLAIN:
      return bnd_step_to_plain();
    case STEP_TO_BLOCKED:
      return bnd_step_to_blocked();
    case STEP_VIEW:
      return bnd_step_view();
    default:
      return bnd_step_kernel();
  }
}

part *bnd_network_add_part(bnd_network *network, step *it, part_run *run, part_reduce *reduce) {
  if (!BND_GROW(network->parts, network->part_capacity, network->part_count + 1)) return NULL;
  bool *add = bnd_network_keep(network, (size_t)it->input_count + 2, sizeof *add);
  if (!add) return NULL;
  part *made = &network->parts[network->part_count++];
  *made = (part){.step = it, .run = run, .reduce = reduce, .add = add};
  return made;
}

static void touch(bnd_network *network, int index, int at) {
  if (index < 0) return;
  slot *s = &network->slots[index];
  if (s->first < 0 || at < s->first) s->first = at;
  if (at > s->last) s->last = at;
}

static int now(const bnd_network *network) {
  return (int)network->part_count - 1;
}

void bnd_network_use_slot(bnd_network *network, int index) {
  touch(network, index, now(network));
}

static bool lives_in_arena(const value *v) {
  return !v->constant.data && v->placeholder < 0;
}

void bnd_network_use_data(bnd_network *network, int index) {
  value *root = &network->values[bnd_network_root(network, index)];
  if (!lives_in_arena(root)) return;
  touch(network, root->data, now(network));
  if (root->written < 0) root->written = now(network);
}

void bnd_network_use_saved(bnd_network *network, int index) {
  value *root = &network->values[bnd_network_root(network, index)];
  if (!lives_in_arena(root)) return;
  if (root->packed < 0) {
    touch(network, root->data, now(network));
    return;
  }
  touch(network, root->packed, root->written);
  touch(network, root->packed, now(network));
  bnd_network_want_buffer(network, 0, bnd_network_count(root));
  bnd_network_want_buffer(network, 1, bnd_network_count(root));
}

void bnd_network_use_gradient(bnd_network *network, int index) {
  touch(network, network->values[index].gradient, now(network));
}

static int source_of(const step *it, int index) {
  return index < it->input_count ? it->inputs[index] : it->factor_value[index - it->input_count];
}

bool bnd_network_wants_gradient(const bnd_network *network, const step *it, int index) {
  const int source = source_of(it, index);
  return source >= 0 && network->values[source].differentiable;
}

bool bnd_network_send_gradient(bnd_network *network, part *it, int index) {
  if (!bnd_network_wants_gradient(network, it->step, index)) return false;
  value *v = &network->values[source_of(it->step, index)];
  it->add[index] = v->gradient_begun;
  v->gradient_begun = true;
  touch(network, v->gradient, now(network));
  return true;
}

bool bnd_network_share_gradient(bnd_network *network, int from, int to) {
  value *v = &network->values[from];
  if (!v->differentiable || v->uses != 1 || v->gradient_begun) return false;
  v->gradient = network->values[to].gradient;
  v->gradient_begun = true;
  return true;
}

/* Every value gets its slots; those nobody uses take no memory. */
static bnd_status add_slots(bnd_network *network, bnd_error *error) {
  for (size_t i = 0; i < network->value_count; i++) {
    value *v = &network->values[i];
    const size_t count = bnd_network_count(v);
    if (count > SIZE_MAX / 16) return bnd_fail(error, BND_ERROR_MEMORY, "a value of the network is too large for memory");
    if (lives_in_arena(v) && v->view_of < 0) v->data = bnd_network_add_slot(network, count * sizeof(float));
    if (v->differentiable) v->gradient = bnd_network_add_slot(network, count * sizeof(float));
    if (v->quantizer && v->view_of < 0) v->packed = bnd_network_add_slot(network, count);
    if ((lives_in_arena(v) && v->view_of < 0 && v->data < 0) || (v->differentiable && v->gradient < 0)) return bnd_fail_memory(error, "the network");
  }
  return BND_OK;
}

static void count_uses(bnd_network *network) {
  for (size_t s = 0; s < network->step_count; s++) {
    const step *it = &network->steps[s];
    if (!it->differentiable) continue;
    for (int i = 0; i < it->input_count; i++)
      if (it->inputs[i] >= 0) network->values[it->inputs[i]].uses++;
    for (int i = 0; i < 2; i++)
      if (it->factor_value[i] >= 0) network->values[it->factor_value[i]].uses++;
  }
}

/* Between the passes the caller reads outputs and writes gradients. */
static void hand_over(bnd_network *network) {
  const int at = (int)network->forward_parts;
  for (size_t o = 0; o < network->output_count; o++) {
    if (network->outputs[o] < 0) continue;
    touch(network, network->values[bnd_network_root(network, network->outputs[o])].data, at);
  }
  for (int i = 0; i < network->options.gradient_output_count; i++) {
    const int output = network->options.gradient_outputs[i];
    if (output < 0 || (size_t)output >= network->output_count || network->outputs[output] < 0) continue;
    value *v = &network->values[network->outputs[output]];
    touch(network, v->gradient, at);
    v->gradient_begun = true;
  }
}

/* Parameters that are operands: their images' gradients are added up when all is done. */
static bnd_status add_parameter_gradients(bnd_network *network, const part *it, bnd_error *error) {
  (void)it;
  (void)error;
  for (size_t i = 0; i < network->value_count; i++) {
    const value *v = &network->values[i];
    if (v->parameter < 0 || !v->differentiable || !v->gradient_begun) continue;
    bnd_parameter *parameter = &network->parameters[v->parameter];
    for (size_t k = 0; k < parameter->count; k++) {
      float total = 0;
      for (int image = 0; image < network->options.batch; image++) total += bnd_network_gradient(network, (int)i, image)[k];
      parameter->gradient[k] += total;
    }
    parameter->reached = true;
  }
  return BND_OK;
}

static bool has_gradient(const bnd_network *network, const step *it) {
  for (int i = 0; i < it->output_count; i++)
    if (network->values[it->outputs[i]].gradient_begun) return true;
  return false;
}

bnd_status bnd_network_make_parts(bnd_network *network, bnd_error *error) {
  count_uses(network);
  for (size_t s = 0; s < network->step_count; s++)
    if (network->steps[s].kind == STEP_FAKE_QUANTIZE && network->steps[s].differentiable)
      network->values[network->steps[s].outputs[0]].quantizer = network->steps[s].quantizer;
  BND_TRY(add_slots(network, error));
  for (size_t s = 0; s < network->step_count; s++) BND_TRY(bnd_functions_of(network->steps[s].kind)->forward(network, &network->steps[s], error));
  network->forward_parts = network->part_count;
  hand_over(network);
  for (size_t s = network->step_count; s-- > 0;) {
    step *it = &network->steps[s];
    if (!it->differentiable || !has_gradient(network, it)) continue;
    if (!bnd_functions_of(it->kind)->backward)
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: no gradient passes through this operator", it->name);
    BND_TRY(bnd_functions_of(it->kind)->backward(network, it, error));
  }
  /* the last part waits for everything */
  if (network->step_count == 0 || !bnd_network_add_part(network, &network->steps[0], NULL, add_parameter_gradients))
    return bnd_fail_memory(error, "the network");
  for (size_t i = 0; i < network->value_count; i++)
    if (network->values[i].parameter >= 0 && network->values[i].gradient_begun) touch(network, network->values[i].gradient, now(network));
  return BND_OK;
}
