/* What moves channels or changes layouts, and the max pool that keeps its size. */
#include <string.h>

#include "autograd/internal.h"

static bnd_status simple_forward(bnd_network *network, step *s, part_run *run, bnd_error *error) {
  if (!bnd_network_add_part(network, s, run, NULL)) return bnd_fail_memory(error, "the network");
  for (int i = 0; i < s->input_count; i++) bnd_network_use_data(network, s->inputs[i]);
  bnd_network_use_data(network, s->outputs[0]);
  return BND_OK;
}

/* --- concatenation along channels --- */

static bnd_status concat(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const step *s = it->step;
  const bnd_layout to = bnd_network_layout(&network->values[s->outputs[0]]);
  float *y = bnd_network_data(network, s->outputs[0], image);
  if (to.block) bnd_loop_clear_tail(y, &to);
  size_t first = 0;
  for (int i = 0; i < s->input_count; i++) {
    const bnd_layout from = bnd_network_layout(&network->values[s->inputs[i]]);
    const float *x = bnd_network_data(network, s->inputs[i], image);
    if (to.block)
      bnd_loop_insert_channels(x, &from, y, &to, first, 1);
    else
      memcpy(y + first * to.height * to.width, x, bnd_layout_count(&from) * sizeof *y);
    first += from.channels;
  }
  return BND_OK;
}

static bnd_status forward_concat(bnd_network *network, step *s, bnd_error *error) {
  return simple_forward(network, s, concat, error);
}

static bnd_status split(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const step *s = it->step;
  const bnd_layout from = bnd_network_layout(&network->values[s->outputs[0]]);
  const float *dy = bnd_network_gradient(network, s->outputs[0], image);
  size_t first = 0;
  for (int i = 0; i < s->input_count; i++) {
    const bnd_layout to = bnd_network_layout(&network->values[s->inputs[i]]);
    if (bnd_network_wants_gradient(network, s, i))
      bnd_loop_extract_channels(dy, &from, bnd_network_gradient(network, s->inputs[i], image), &to, first, it->add[i]);
    first += to.channels;
  }
  return BND_OK;
}

static bnd_status backward_concat(bnd_network *network, step *s, bnd_error *error) {
  part *it = bnd_network_add_part(network, s, split, NULL);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_gradient(network, s->outputs[0]);
  for (int i = 0; i < s->input_count; i++) bnd_network_send_gradient(network, it, i);
  return BND_OK;
}

const step_functions *bnd_step_concat(void) {
  static const step_functions functions = {.forward = forward_concat, .backward = backward_concat};
  return &functions;
}

/* --- layouts --- */

static bnd_status to_plain(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const bnd_layout layout = bnd_network_layout(&network->values[it->step->inputs[0]]);
  bnd_loop_to_plain(bnd_network_data(network, it->step->inputs[0], image), &layout, bnd_network_data(network, it->step->outputs[0], image), 1);
  return BND_OK;
}

static bnd_status to_blocked(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const bnd_layout layout = bnd_network_layout(&network->values[it->step->outputs[0]]);
  bnd_loop_to_blocked(bnd_network_data(network, it->step->inputs[0], image), &layout, bnd_network_data(network, it->step->outputs[0], image), 1);
  return BND_OK;
}

static bnd_status forward_to_plain(bnd_network *network, step *s, bnd_error *error) {
  return simple_forward(network, s, to_plain, error);
}

static bnd_status forward_to_blocked(bnd_network *network, step *s, bnd_error *error) {
  return simple_forward(network, s, to_blocked, error);
}

/* The gradient goes the other way. */
static bnd_status send_layout(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  const value *x = &network->values[s->inputs[0]];
  const bnd_layout layout = bnd_network_layout(x->block ? x : &network->values[s->outputs[0]]);
  const float *dy = bnd_network_gradient(network, s->outputs[0], image);
  float *target = bnd_network_gradient(network, s->inputs[0], image), *dx = it->add[0] ? bnd_network_buffer(network, worker, 2) : target;
  if (x->block)
    bnd_loop_to_blocked(dy, &layout, dx, 1);
  else
    bnd_loop_to_plain(dy, &layout, dx, 1);
  if (it->add[0]) bnd_loop_scale(dx, 1.f, target, bnd_network_count(x), true);
  return BND_OK;
}

static bnd_status backward_layout(bnd_network *network, step *s, bnd_error *error) {
  part *it = bnd_network_add_part(network, s, send_layout, NULL);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_gradient(network, s->outputs[0]);
  if (bnd_network_send_gradient(network, it, 0) && it->add[0]) bnd_network_want_buffer(network, 2, bnd_network_count(&network->values[s->inputs[0]]));
  return BND_OK;
}

const step_functions *bnd_step_to_plain(void) {
  static const step_functions functions = {.forward = forward_to_plain, .backward = backward_layout};
  return &functions;
}

const step_functions *bnd_step_to_blocked(void) {
  static const step_functions functions = {.forward = forward_to_blocked, .backward = backward_layout};
  return &functions;
}

/* --- max pool --- */

static bnd_status pool(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  const value *x = &network->values[s->inputs[0]];
  const bnd_layout layout = bnd_network_layout(x);
  float *from = bnd_network_data(network, s->inputs[0], image), *to = bnd_network_data(network, s->outputs[0], image);
  if (layout.block) {
    bnd_loop_max_pool(from, to, &layout, s->kernel.window[0], bnd_network_buffer(network, worker, 2), 1);
  } else {
    const bnd_array input = {x->shape, from}, output = {x->shape, to};
    bnd_reference_kernel(s->kernel.id)(&s->kernel, &input, 1, &output, 1);
  }
  return BND_OK;
}

static bnd_status forward_pool(bnd_network *network, step *s, bnd_error *error) {
  BND_TRY(simple_forward(network, s, pool, error));
  bnd_network_want_buffer(network, 2, bnd_network_count(&network->values[s->inputs[0]]));
  return BND_OK;
}

static bnd_status send_pool(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  const value *x = &network->values[s->inputs[0]];
  const bnd_layout layout = bnd_network_layout(x);
  float *dx = bnd_network_gradient(network, s->inputs[0], image);
  if (!it->add[0]) memset(dx, 0, bnd_layout_count(&layout) * sizeof *dx);
  bnd_loop_max_pool_gradient(bnd_network_saved(network, s->inputs[0], image, worker, 0), bnd_network_saved(network, s->outputs[0], image, worker, 1),
                             bnd_network_gradient(network, s->outputs[0], image), dx, &layout, s->kernel.window[0],
                             bnd_network_buffer(network, worker, 2));
  return BND_OK;
}

static bnd_status backward_pool(bnd_network *network, step *s, bnd_error *error) {
  part *it = bnd_network_add_part(network, s, send_pool, NULL);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_gradient(network, s->outputs[0]);
  bnd_network_use_saved(network, s->inputs[0]);
  bnd_network_use_saved(network, s->outputs[0]);
  bnd_network_send_gradient(network, it, 0);
  const bnd_layout layout = bnd_network_layout(&network->values[s->inputs[0]]);
  bnd_network_want_buffer(network, 2, bnd_loop_max_pool_gradient_workspace(&layout));
  return BND_OK;
}

const step_functions *bnd_step_max_pool(void) {
  static const step_functions functions = {.forward = forward_pool, .backward = backward_pool};
  return &functions;
}
