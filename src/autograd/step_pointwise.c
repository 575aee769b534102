/* Sums with factors and relu. */
#include "autograd/internal.h"

static size_t count_of(const bnd_network *network, const step *s) {
  return bnd_network_count(&network->values[s->outputs[0]]);
}

/* Of this image: the others' memory may not hold it yet, or any more. */
static float factor_of(const bnd_network *network, const step *s, int i, int image) {
  return s->factor_value[i] >= 0 ? bnd_network_data(network, s->factor_value[i], image)[0] : s->factor[i];
}

/* --- sum --- */

static bnd_status sum(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const step *s = it->step;
  const size_t count = count_of(network, s);
  const float *x = bnd_network_data(network, s->inputs[0], image), a = factor_of(network, s, 0, image);
  float *y = bnd_network_data(network, s->outputs[0], image);
  if (s->input_count == 1) {
    bnd_loop_scale(x, a, y, count, false);
    return BND_OK;
  }
  const float *z = bnd_network_data(network, s->inputs[1], image), b = factor_of(network, s, 1, image);
  if (b == 1.f) {
    bnd_loop_scale_add(x, a, NULL, z, NULL, y, count, 1);
  } else {
    bnd_loop_scale(x, a, y, count, false);
    bnd_loop_scale(z, b, y, count, true);
  }
  return BND_OK;
}

static bnd_status forward_sum(bnd_network *network, step *s, bnd_error *error) {
  if (!bnd_network_add_part(network, s, sum, NULL)) return bnd_fail_memory(error, "the network");
  for (int i = 0; i < s->input_count; i++) {
    bnd_network_use_data(network, s->inputs[i]);
    if (s->factor_value[i] >= 0) bnd_network_use_data(network, s->factor_value[i]);
  }
  bnd_network_use_data(network, s->outputs[0]);
  return BND_OK;
}

static bnd_status send_sum(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  const size_t count = count_of(network, s);
  const float *dy = bnd_network_gradient(network, s->outputs[0], image);
  for (int i = 0; i < s->input_count; i++) {
    const int number = s->input_count + i;
    if (bnd_network_wants_gradient(network, s, number)) {
      float *gradient = bnd_network_gradient(network, s->factor_value[i], image);
      const double product = bnd_loop_dot(dy, bnd_network_saved(network, s->inputs[i], image, worker, 0), count);
      gradient[0] = (it->add[number] ? gradient[0] : 0.f) + (float)product;
    }
  }
  /* the input whose gradient lies in dy comes last */
  for (int i = s->input_count - 1; i >= 0; i--) {
    if (!bnd_network_wants_gradient(network, s, i)) continue;
    float *dx = bnd_network_gradient(network, s->inputs[i], image);
    if (dx == dy && factor_of(network, s, i, image) == 1.f) continue;
    bnd_loop_scale(dy, factor_of(network, s, i, image), dx, count, it->add[i]);
  }
  return BND_OK;
}

static bnd_status backward_sum(bnd_network *network, step *s, bnd_error *error) {
  part *it = bnd_network_add_part(network, s, send_sum, NULL);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_gradient(network, s->outputs[0]);
  for (int i = 0; i < s->input_count; i++)
    if (s->factor_value[i] >= 0) bnd_network_use_data(network, s->factor_value[i]);
  for (int i = 0; i < s->input_count; i++)
    if (bnd_network_send_gradient(network, it, s->input_count + i)) bnd_network_use_saved(network, s->inputs[i]);
  for (int i = s->input_count - 1; i >= 0; i--)
    if (i > 0 || !bnd_network_share_gradient(network, s->inputs[0], s->outputs[0])) bnd_network_send_gradient(network, it, i);
  return BND_OK;
}

const step_functions *bnd_step_sum(void) {
  static const step_functions functions = {.forward = forward_sum, .backward = backward_sum};
  return &functions;
}

/* --- relu --- */

static bnd_status relu(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const step *s = it->step;
  bnd_loop_pointwise(bnd_network_data(network, s->inputs[0], image), 1.f, bnd_network_data(network, s->outputs[0], image), count_of(network, s), true,
                     NULL, 1);
  return BND_OK;
}

static bnd_status forward_relu(bnd_network *network, step *s, bnd_error *error) {
  if (!bnd_network_add_part(network, s, relu, NULL)) return bnd_fail_memory(error, "the network");
  bnd_network_use_data(network, s->inputs[0]);
  bnd_network_use_data(network, s->outputs[0]);
  return BND_OK;
}

static bnd_status send_relu(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  bnd_loop_relu_gradient(bnd_network_saved(network, s->outputs[0], image, worker, 0), bnd_network_gradient(network, s->outputs[0], image),
                         bnd_network_gradient(network, s->inputs[0], image), count_of(network, s), it->add[0]);
  return BND_OK;
}

static bnd_status backward_relu(bnd_network *network, step *s, bnd_error *error) {
  if (!network->values[s->inputs[0]].differentiable) return BND_OK;
  part *it = bnd_network_add_part(network, s, send_relu, NULL);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_gradient(network, s->outputs[0]);
  bnd_network_use_saved(network, s->outputs[0]);
  if (!bnd_network_share_gradient(network, s->inputs[0], s->outputs[0])) bnd_network_send_gradient(network, it, 0);
  return BND_OK;
}

const step_functions *bnd_step_relu(void) {
  static const step_functions functions = {.forward = forward_relu, .backward = backward_relu};
  return &functions;
}
