/* Batch normalization with relu and addends: y = relu(gamma * (x - mean) / deviation + beta) + factors * addends. */
#include "autograd/internal.h"

static bnd_status measure(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  if (network->mode != BND_MODE_TRAIN) return BND_OK;
  const value *x = &network->values[it->step->inputs[0]];
  const bnd_layout layout = bnd_network_layout(x);
  double *sums = bnd_network_slot(network, it->step->sums, image);
  bnd_loop_channel_moments(bnd_network_data(network, it->step->inputs[0], image), &layout, sums, sums + bnd_layout_channels(&layout));
  return BND_OK;
}

static const float *parameter_or(const bnd_network *network, int parameter, const float *otherwise) {
  return parameter >= 0 ? network->parameters[parameter].value : otherwise;
}

static bnd_status decide(bnd_network *network, const part *it, bnd_error *error) {
  step *s = it->step;
  norm *n = s->norm;
  const size_t channels = (size_t)network->values[s->inputs[0]].shape.size[1];
  if (network->mode == BND_MODE_TRAIN)
    BND_TRY(bnd_norm_batch_statistics(network, s, s->inputs[0], NULL, error));
  else
    bnd_norm_running_statistics(s, channels);
  static const float one = 1.f, zero = 0.f;
  const float *gamma = parameter_or(network, n->gamma, NULL), *beta = parameter_or(network, n->beta, NULL);
  for (size_t c = 0; c < channels; c++) {
    n->scale[c] = n->reciprocal[c] * (gamma ? gamma[c] : one);
    n->shift[c] = (beta ? beta[c] : zero) - n->mean[c] * n->scale[c];
  }
  return BND_OK;
}

/* Of this image: the others' memory may not hold it yet, or any more. */
static float factor_of(const bnd_network *network, const step *s, int addend, int image) {
  return s->factor_value[addend] >= 0 ? bnd_network_data(network, s->factor_value[addend], image)[0] : s->factor[addend];
}

static bnd_status apply(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker, (void)error;
  const step *s = it->step;
  const bnd_layout layout = bnd_network_layout(&network->values[s->outputs[0]]);
  const bnd_affine affine = {.scale = s->norm->scale,
                             .shift = s->norm->shift,
                             .relu = s->relu,
                             .first = s->input_count > 1 ? bnd_network_data(network, s->inputs[1], image) : NULL,
                             .second = s->input_count > 2 ? bnd_network_data(network, s->inputs[2], image) : NULL,
                             .first_factor = s->input_count > 1 ? factor_of(network, s, 0, image) : 0,
                             .second_factor = s->input_count > 2 ? factor_of(network, s, 1, image) : 0};
  bnd_loop_affine(bnd_network_data(network, s->inputs[0], image), &layout, &affine, bnd_network_data(network, s->outputs[0], image));
  return BND_OK;
}

static bnd_status forward(bnd_network *network, step *s, bnd_error *error) {
  s->sums = bnd_network_add_slot(network, bnd_network_channels(&network->values[s->inputs[0]]) * 2 * sizeof(double));
  if (s->sums < 0 || !bnd_network_add_part(network, s, measure, decide)) return bnd_fail_memory(error, "the network");
  bnd_network_use_data(network, s->inputs[0]);
  bnd_network_use_slot(network, s->sums);
  if (!bnd_network_add_part(network, s, apply, NULL)) return bnd_fail_memory(error, "the network");
  for (int i = 0; i < s->input_count; i++) bnd_network_use_data(network, s->inputs[i]);
  for (int i = 0; i + 1 < s->input_count; i++)
    if (s->factor_value[i] >= 0) bnd_network_use_data(network, s->factor_value[i]);
  bnd_network_use_data(network, s->outputs[0]);
  return BND_OK;
}

/* --- backward --- */

static void put_number(bnd_network *network, int index, int image, double number, bool add) {
  float *gradient = bnd_network_gradient(network, index, image);
  gradient[0] = (add ? gradient[0] : 0.f) + (float)number;
}

/* What goes to the addends, and the sums the gradient of x needs. */
static bnd_status measure_gradient(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  const norm *n = s->norm;
  const bnd_layout layout = bnd_network_layout(&network->values[s->outputs[0]]);
  const size_t count = bnd_layout_count(&layout);
  const float *dy = bnd_network_gradient(network, s->outputs[0], image);
  for (int i = 1; i < s->input_count; i++) {
    if (bnd_network_wants_gradient(network, s, i))
      bnd_loop_scale(dy, factor_of(network, s, i - 1, image), bnd_network_gradient(network, s->inputs[i], image), count, it->add[i]);
    const int number = s->input_count + i - 1;
    if (bnd_network_wants_gradient(network, s, number))
      put_number(network, s->factor_value[i - 1], image, bnd_loop_dot(dy, bnd_network_saved(network, s->inputs[i], image, worker, 1), count),
                 it->add[number]);
  }
  double *sums = bnd_network_slot(network, s->sums, image);
  bnd_loop_norm_sums(bnd_network_saved(network, s->inputs[0], image, worker, 0), dy, &layout, n->scale, n->shift, n->mean, s->relu, sums,
                     sums + bnd_layout_channels(&layout));
  return BND_OK;
}

static void give(bnd_network *network, int parameter, size_t channel, double gradient) {
  if (parameter < 0) return;
  network->parameters[parameter].gradient[channel] += (float)gradient;
  network->parameters[parameter].reached = true;
}

static bnd_status decide_gradient(bnd_network *network, const part *it, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  norm *n = s->norm;
  const bnd_layout layout = bnd_network_layout(&network->values[s->inputs[0]]);
  const double count = (double)(layout.height * layout.width) * network->options.batch;
  for (size_t c = 0; c < layout.channels; c++) {
    double sum = 0, product = 0;
    for (int image = 0; image < network->options.batch; image++) {
      const double *sums = bnd_network_slot(network, s->sums, image);
      sum += sums[c];
      product += sums[bnd_layout_channels(&layout) + c];
    }
    const double scale = (double)n->scale[c], reciprocal = (double)n->reciprocal[c];
    give(network, n->gamma, c, product * reciprocal);
    give(network, n->beta, c, sum);
    const double slope = network->mode == BND_MODE_TRAIN ? -scale * reciprocal * reciprocal * product / count : 0;
    n->factor[c] = n->scale[c];
    n->slope[c] = (float)slope;
    n->offset[c] = network->mode == BND_MODE_TRAIN ? (float)(-scale * sum / count) : 0.f;
  }
  return BND_OK;
}

static bnd_status send(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  const norm *n = s->norm;
  const bnd_layout layout = bnd_network_layout(&network->values[s->outputs[0]]);
  const bnd_norm_gradient gradient = {.scale = n->scale,
                                      .shift = n->shift,
                                      .relu = s->relu,
                                      .add = it->add[0],
                                      .mean = n->mean,
                                      .factor = n->factor,
                                      .slope = n->slope,
                                      .offset = n->offset};
  bnd_loop_norm_gradient(bnd_network_saved(network, s->inputs[0], image, worker, 0), bnd_network_gradient(network, s->outputs[0], image), &layout,
                         &gradient, bnd_network_gradient(network, s->inputs[0], image));
  return BND_OK;
}

static bnd_status backward(bnd_network *network, step *s, bnd_error *error) {
  part *first = bnd_network_add_part(network, s, measure_gradient, decide_gradient);
  if (!first) return bnd_fail_memory(error, "the network");
  bnd_network_use_slot(network, s->sums);
  bnd_network_use_gradient(network, s->outputs[0]);
  bnd_network_use_saved(network, s->inputs[0]);
  for (int i = 1; i < s->input_count; i++) {
    bnd_network_send_gradient(network, first, i);
    if (s->factor_value[i - 1] >= 0) bnd_network_use_data(network, s->factor_value[i - 1]);
    if (bnd_network_send_gradient(network, first, s->input_count + i - 1)) bnd_network_use_saved(network, s->inputs[i]);
  }
  if (!network->values[s->inputs[0]].differentiable) return BND_OK;
  part *second = bnd_network_add_part(network, s, send, NULL);
  if (!second) return bnd_fail_memory(error, "the network");
  bnd_network_use_gradient(network, s->outputs[0]);
  bnd_network_use_saved(network, s->inputs[0]);
  if (!bnd_network_share_gradient(network, s->inputs[0], s->outputs[0])) bnd_network_send_gradient(network, second, 0);
  return BND_OK;
}

const step_functions *bnd_step_norm(void) {
  static const step_functions functions = {.forward = forward, .backward = backward};
  return &functions;
}
