/* Fake quantization of activations: observed where observers are on, rounded onto the grid, kept as bytes for the backward pass. The gradient passes
   unchanged (fx-quantization 6.2). With a trained threshold: step_threshold.c. */
#include <math.h>

#include "autograd/internal.h"

enum { RANGE_BYTES = 16 }; /* of the slot: minimum and maximum, then the squared errors */

static bnd_status measure(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  if (!bnd_network_observes(network)) return BND_OK;
  const step *s = it->step;
  const bnd_layout layout = bnd_network_layout(&network->values[s->inputs[0]]);
  float *range = bnd_network_slot(network, s->range, image);
  bnd_loop_min_max(bnd_network_data(network, s->inputs[0], image), &layout, &range[0], &range[1], 1);
  return BND_OK;
}

static double *errors_of(const bnd_network *network, const step *s, int image) {
  return (double *)((char *)bnd_network_slot(network, s->range, image) + RANGE_BYTES);
}

static bnd_status vote(bnd_network *network, step *s, bnd_error *error) {
  double sums[BND_MSE_CANDIDATES] = {0};
  if (s->quantizer->spec.observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE)
    for (int image = 0; image < network->options.batch; image++)
      for (int k = 0; k < BND_MSE_CANDIDATES; k++) sums[k] += errors_of(network, s, image)[k];
  const bnd_status status = bnd_observer_commit(s->quantizer, sums, error);
  if (status != BND_OK) return bnd_fail_prefix(error, status, "%s", s->name);
  bnd_quantizer_elect(s->quantizer);
  return BND_OK;
}

static bnd_status widen(bnd_network *network, const part *it, bnd_error *error) {
  if (!bnd_network_observes(network)) return BND_OK;
  step *s = it->step;
  for (int image = 0; image < network->options.batch; image++) {
    const float *range = bnd_network_slot(network, s->range, image);
    if (!isfinite(range[0]) || !isfinite(range[1])) return bnd_fail(error, BND_ERROR_MODEL, "%s: values are not finite", s->name);
    BND_TRY(bnd_observer_widen(s->quantizer, 1, &range[0], &range[1], error));
  }
  return s->quantizer->spec.observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE ? BND_OK : vote(network, s, error);
}

static bnd_status compare(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  if (!bnd_network_observes(network)) return BND_OK;
  const step *s = it->step;
  double *errors = errors_of(network, s, image);
  for (int k = 0; k < BND_MSE_CANDIDATES; k++) errors[k] = 0;
  bnd_observer_squared_error(s->quantizer, bnd_network_data(network, s->inputs[0], image), 1, bnd_network_count(&network->values[s->inputs[0]]),
                             errors);
  return BND_OK;
}

static bnd_status choose(bnd_network *network, const part *it, bnd_error *error) {
  return bnd_network_observes(network) ? vote(network, it->step, error) : BND_OK;
}

static bnd_status apply(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const step *s = it->step;
  const value *y = &network->values[s->outputs[0]];
  const bnd_grid grid = bnd_grid_of(s->quantizer);
  int8_t *bytes = y->packed >= 0 && network->slots[y->packed].first >= 0 ? bnd_network_slot(network, y->packed, image) : NULL;
  bnd_loop_quantize(bnd_network_data(network, s->inputs[0], image), &grid, bnd_network_data(network, s->outputs[0], image), bytes,
                    bnd_network_count(y));
  return BND_OK;
}

static bnd_status observe(bnd_network *network, step *s, bnd_error *error) {
  s->range = bnd_network_add_slot(network, RANGE_BYTES + BND_MSE_CANDIDATES * sizeof(double));
  if (s->range < 0 || !bnd_network_add_part(network, s, measure, widen)) return bnd_fail_memory(error, "the network");
  bnd_network_use_data(network, s->inputs[0]);
  bnd_network_use_slot(network, s->range);
  if (s->quantizer->spec.observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE) {
    if (!bnd_network_add_part(network, s, compare, choose)) return bnd_fail_memory(error, "the network");
    bnd_network_use_data(network, s->inputs[0]);
    bnd_network_use_slot(network, s->range);
  }
  return BND_OK;
}

static bnd_status forward(bnd_network *network, step *s, bnd_error *error) {
  BND_TRY(s->threshold >= 0 ? bnd_threshold_forward(network, s, error) : observe(network, s, error));
  if (!bnd_network_add_part(network, s, apply, NULL)) return bnd_fail_memory(error, "the network");
  bnd_network_use_data(network, s->inputs[0]);
  bnd_network_use_data(network, s->outputs[0]);
  return BND_OK;
}

static bnd_status send(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const step *s = it->step;
  bnd_loop_scale(bnd_network_gradient(network, s->outputs[0], image), 1.f, bnd_network_gradient(network, s->inputs[0], image),
                 bnd_network_count(&network->values[s->inputs[0]]), it->add[0]);
  return BND_OK;
}

/* Also for views: the gradient of the input is that of the output. */
static bnd_status backward(bnd_network *network, step *s, bnd_error *error) {
  if (s->threshold >= 0) return bnd_threshold_backward(network, s, error);
  if (!network->values[s->inputs[0]].differentiable || bnd_network_share_gradient(network, s->inputs[0], s->outputs[0])) return BND_OK;
  part *it = bnd_network_add_part(network, s, send, NULL);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_gradient(network, s->outputs[0]);
  bnd_network_send_gradient(network, it, 0);
  return BND_OK;
}

static bnd_status forward_view(bnd_network *network, step *s, bnd_error *error) {
  (void)network, (void)s, (void)error;
  return BND_OK;
}

const step_functions *bnd_step_fake_quantize(void) {
  static const step_functions functions = {.forward = forward, .backward = backward};
  return &functions;
}

const step_functions *bnd_step_view(void) {
  static const step_functions functions = {.forward = forward_view, .backward = backward};
  return &functions;
}
