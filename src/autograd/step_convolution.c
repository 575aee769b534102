/* Convolutions: plain ones with a bias, and those with a batch norm and fake quantizers inside (fx-quantization 6.4). With statistics m, v of the
   batch, running ones M, V updated by them and f = sqrt(V + eps) / sqrt(v + eps):

     training:    W' = W * gamma / sqrt(V + eps),  B' = beta - gamma * m / sqrt(v + eps),        y = conv(x, Q(W')) * f + Q(B')
     evaluation:  W' = W * gamma / sqrt(V + eps),  B' = beta - gamma * (M - b) / sqrt(V + eps),  y = conv(x, Q(W')) + Q(B')

   Gradients flow to W, gamma, beta, b and x, not through the statistics. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/internal.h"

static const bnd_parameter *weight_of(const bnd_network *network, const step *s) {
  return &network->parameters[s->weight];
}

static size_t channels_of(const bnd_network *network, const step *s) {
  return (size_t)network->values[s->outputs[0]].shape.size[1];
}

/* A weight seen as [outer][channels][inner], channels those of the output. */
static void split_weight(const bnd_network *network, const step *s, size_t *outer, size_t *inner) {
  const bnd_parameter *weight = weight_of(network, s);
  *outer = s->transposed ? (size_t)weight->shape.size[0] : 1;
  *inner = weight->count / *outer / channels_of(network, s);
}

/* --- effective weights --- */

static bnd_status quantize(bnd_network *network, step *s, bnd_quantizer *quantizer, bnd_tensor *tensor, bnd_error *error) {
  if (!quantizer || !network->options.quantize) return BND_OK;
  if (s->threshold >= 0 && quantizer == s->weight_quantizer) {
    BND_TRY(bnd_threshold_keep_weight(s, tensor, error));
  } else if (bnd_network_observes(network)) {
    const bnd_status status = bnd_observe_tensor(quantizer, tensor, error);
    if (status != BND_OK) return bnd_fail_prefix(error, status, "%s", s->name);
    bnd_quantizer_elect(quantizer);
  }
  size_t outer, channels, inner;
  bnd_quantizer_layout(&quantizer->spec, &tensor->shape, &outer, &channels, &inner);
  bnd_fake_quantize(quantizer, bnd_f32(tensor), bnd_f32(tensor), outer, inner);
  return BND_OK;
}

/* W' and B' under batch statistics; each operation rounded as the original rounds it. */
static void fold_batch(const bnd_network *network, step *s) {
  const norm *n = s->norm;
  const float *gamma = network->parameters[n->gamma].value, *beta = network->parameters[n->beta].value, *from = weight_of(network, s)->value;
  float *to = bnd_f32(&s->effective_weight), *bias = bnd_f32(&s->effective_bias);
  size_t outer, inner;
  split_weight(network, s, &outer, &inner);
  const size_t channels = channels_of(network, s);
  for (size_t c = 0; c < channels; c++) {
    const float deviation = sqrtf(n->running_variance[c] + (float)n->epsilon), factor = gamma[c] / deviation;
    for (size_t o = 0; o < outer; o++)
      for (size_t i = 0; i < inner; i++) to[(o * channels + c) * inner + i] = from[(o * channels + c) * inner + i] * factor;
    bias[c] = beta[c] - gamma[c] * n->mean[c] * n->reciprocal[c];
    s->after_scale[c] = deviation * n->reciprocal[c];
  }
}

/* The same under running statistics. */
static void fold_running(const bnd_network *network, step *s) {
  const norm *n = s->norm;
  const float *gamma = network->parameters[n->gamma].value, *beta = network->parameters[n->beta].value, *from = weight_of(network, s)->value;
  const float *own_bias = s->bias >= 0 ? network->parameters[s->bias].value : NULL;
  float *to = bnd_f32(&s->effective_weight), *bias = bnd_f32(&s->effective_bias);
  size_t outer, inner;
  split_weight(network, s, &outer, &inner);
  const size_t channels = channels_of(network, s);
  bnd_norm_running_statistics(s, channels);
  for (size_t c = 0; c < channels; c++) {
    const float factor = gamma[c] * n->reciprocal[c];
    for (size_t o = 0; o < outer; o++)
      for (size_t i = 0; i < inner; i++) to[(o * channels + c) * inner + i] = from[(o * channels + c) * inner + i] * factor;
    bias[c] = beta[c] - gamma[c] * (own_bias ? n->mean[c] - own_bias[c] : n->mean[c]) * n->reciprocal[c];
    s->after_scale[c] = 1.f;
  }
}

static void copy_parameters(const bnd_network *network, step *s) {
  const size_t channels = channels_of(network, s);
  memcpy(s->effective_weight.data, weight_of(network, s)->value, weight_of(network, s)->count * sizeof(float));
  for (size_t c = 0; c < channels; c++) {
    bnd_f32(&s->effective_bias)[c] = s->bias >= 0 ? network->parameters[s->bias].value[c] : 0.f;
    s->after_scale[c] = 1.f;
  }
}

static bnd_status make_effective(bnd_network *network, step *s, bnd_error *error) {
  if (!s->norm)
    copy_parameters(network, s);
  else if (network->mode == BND_MODE_TRAIN)
    fold_batch(network, s);
  else
    fold_running(network, s);
  BND_TRY(quantize(network, s, s->weight_quantizer, &s->effective_weight, error));
  if (s->norm || s->bias >= 0) BND_TRY(quantize(network, s, s->bias_quantizer, &s->effective_bias, error));
  memcpy(s->after_shift, s->effective_bias.data, s->effective_bias.count * sizeof(float));
  return s->layer ? bnd_onednn_layer_pack(s->layer, bnd_f32(&s->effective_weight), s->packed, error) : BND_OK;
}

static bnd_status prepare(bnd_network *network, step *s, bnd_error *error) {
  if (!s->norm || network->mode != BND_MODE_TRAIN) return make_effective(network, s, error);
  return s->layer ? bnd_onednn_layer_pack(s->layer, weight_of(network, s)->value, s->packed_raw, error) : BND_OK;
}

/* --- forward --- */

static bnd_array array_of(const bnd_network *network, int index, float *data) {
  return (bnd_array){network->values[index].shape, data};
}

static bnd_status convolve(bnd_network *network, const step *s, const float *packed, const float *weight, int image, int worker, float *y,
                           bnd_error *error) {
  float *x = bnd_network_data(network, s->inputs[0], image);
  if (s->layer) return bnd_onednn_layer_forward(s->calls[worker], x, packed, y, network->scratch[worker], error);
  const bnd_array inputs[] = {array_of(network, s->inputs[0], x), {weight_of(network, s)->shape, (float *)weight}, {.data = NULL}};
  const bnd_array output = array_of(network, s->outputs[0], y);
  bnd_reference_kernel(s->kernel.id)(&s->kernel, inputs, 3, &output, 1);
  return BND_OK;
}

static bnd_status measure(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  if (network->mode != BND_MODE_TRAIN) return BND_OK;
  const step *s = it->step;
  float *y = bnd_network_buffer(network, worker, 2);
  BND_TRY(convolve(network, s, s->packed_raw, weight_of(network, s)->value, image, worker, y, error));
  const bnd_layout layout = bnd_network_layout(&network->values[s->outputs[0]]);
  double *sums = bnd_network_slot(network, s->sums, image);
  bnd_loop_channel_moments(y, &layout, sums, sums + bnd_layout_channels(&layout));
  return BND_OK;
}

static bnd_status decide(bnd_network *network, const part *it, bnd_error *error) {
  if (network->mode != BND_MODE_TRAIN) return BND_OK;
  step *s = it->step;
  BND_TRY(bnd_norm_batch_statistics(network, s, s->outputs[0], s->bias >= 0 ? network->parameters[s->bias].value : NULL, error));
  return make_effective(network, s, error);
}

static bnd_status apply(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  const step *s = it->step;
  float *y = bnd_network_data(network, s->outputs[0], image);
  BND_TRY(convolve(network, s, s->packed, bnd_f32(&s->effective_weight), image, worker, y, error));
  const bnd_layout layout = bnd_network_layout(&network->values[s->outputs[0]]);
  uint8_t *mask = s->mask >= 0 ? bnd_network_slot(network, s->mask, image) : NULL;
  bnd_loop_finish_convolution(y, &layout, s->after_scale, s->after_shift, s->relu, mask);
  return BND_OK;
}

static bnd_status allocate(bnd_network *network, step *s, bnd_error *error) {
  const value *y = &network->values[s->outputs[0]];
  const bnd_parameter *weight = weight_of(network, s);
  const size_t padded = bnd_network_channels(y);
  BND_TRY(bnd_tensor_create(BND_F32, &weight->shape, &s->effective_weight, error));
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE(y->shape.size[1]), &s->effective_bias, error));
  s->after_scale = bnd_network_keep(network, padded * 2, sizeof *s->after_scale);
  if (!s->after_scale) return bnd_fail_memory(error, "the network");
  s->after_shift = s->after_scale + padded;
  if (s->threshold >= 0) BND_TRY(bnd_tensor_create(BND_F32, &weight->shape, &s->unquantized, error));
  network->weight_bytes += weight->count * sizeof(float) * (s->threshold >= 0 ? 2 : 1);
  if (!s->layer) return BND_OK;
  const size_t packed = bnd_onednn_layer_packed_count(s->layer);
  s->packed = bnd_alloc_aligned(packed, sizeof *s->packed);
  if (s->norm) s->packed_raw = bnd_alloc_aligned(packed, sizeof *s->packed_raw);
  s->calls = bnd_calloc((size_t)network->options.threads, sizeof *s->calls);
  if (!s->packed || (s->norm && !s->packed_raw) || !s->calls) return bnd_fail_memory(error, "packed weights");
  network->weight_bytes += packed * sizeof(float) * (s->norm ? 2 : 1);
  for (int w = 0; w < network->options.threads; w++) BND_TRY(bnd_onednn_layer_call_create(s->layer, &s->calls[w], error));
  const size_t scratch = bnd_onednn_layer_scratch_bytes(s->layer);
  if (scratch > network->scratch_bytes) network->scratch_bytes = scratch;
  return BND_OK;
}

static bnd_status forward(bnd_network *network, step *s, bnd_error *error) {
  BND_TRY(allocate(network, s, error));
  const value *y = &network->values[s->outputs[0]];
  s->sums = bnd_network_add_slot(network, bnd_network_channels(y) * 2 * sizeof(double));
  if (s->sums < 0) return bnd_fail_memory(error, "the network");
  if (s->norm) {
    if (!bnd_network_add_part(network, s, measure, decide)) return bnd_fail_memory(error, "the network");
    bnd_network_use_data(network, s->inputs[0]);
    bnd_network_use_slot(network, s->sums);
    bnd_network_want_buffer(network, 2, bnd_network_count(y));
  }
  if (s->relu && s->differentiable) {
    s->mask = bnd_network_add_slot(network, bnd_network_count(y) / 8 + 1);
    if (s->mask < 0) return bnd_fail_memory(error, "the network");
  }
  if (!bnd_network_add_part(network, s, apply, NULL)) return bnd_fail_memory(error, "the network");
  bnd_network_use_data(network, s->inputs[0]);
  bnd_network_use_data(network, s->outputs[0]);
  bnd_network_use_slot(network, s->mask);
  return BND_OK;
}

/* --- backward --- */

static bnd_status reference_gradients(bnd_network *network, const step *s, const float *x, float *dy, float *dx, float *dw) {
  const bnd_array inputs[] = {
      array_of(network, s->inputs[0], (float *)x), {weight_of(network, s)->shape, bnd_f32(&s->effective_weight)}, {.data = NULL}};
  const bnd_array output = array_of(network, s->outputs[0], NULL), output_gradient = array_of(network, s->outputs[0], dy);
  const bnd_array gradients[] = {array_of(network, s->inputs[0], dx), {weight_of(network, s)->shape, dw}, {.data = NULL}};
  bnd_reference_gradient(s->kernel.id)(&s->kernel, inputs, 3, &output, &output_gradient, 1, gradients);
  return BND_OK;
}

static bnd_status send(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  const step *s = it->step;
  const bnd_layout layout = bnd_network_layout(&network->values[s->outputs[0]]);
  float *dy = bnd_network_gradient(network, s->outputs[0], image);
  bnd_loop_begin_convolution(dy, &layout, s->mask >= 0 ? bnd_network_slot(network, s->mask, image) : NULL, s->after_scale,
                             bnd_network_slot(network, s->sums, image));
  const float *x = bnd_network_saved(network, s->inputs[0], image, worker, 0);
  float *dw = bnd_network_slot(network, s->weight_gradient, image);
  const bool wants_x = bnd_network_wants_gradient(network, s, 0);
  float *target = wants_x ? bnd_network_gradient(network, s->inputs[0], image) : NULL, *dx = target;
  if (it->add[0]) dx = bnd_network_buffer(network, worker, 2);
  if (s->layer) {
    BND_TRY(bnd_onednn_layer_backward_weights(s->calls[worker], x, dy, dw, network->scratch[worker], error));
    if (wants_x) BND_TRY(bnd_onednn_layer_backward_data(s->calls[worker], dy, s->packed, dx, network->scratch[worker], error));
  } else {
    BND_TRY(reference_gradients(network, s, x, dy, dx, dw));
  }
  if (it->add[0]) bnd_loop_scale(dx, 1.f, target, bnd_network_count(&network->values[s->inputs[0]]), true);
  return BND_OK;
}

/* The sum of the images' weight gradients, plain. */
static bnd_status total_gradient(bnd_network *network, const step *s, float **total, bnd_error *error) {
  const float **parts = bnd_calloc((size_t)network->options.batch, sizeof *parts);
  if (!parts) return bnd_fail_memory(error, "a gradient");
  float *sum = network->totals[0];
  const size_t count = s->layer ? bnd_onednn_layer_gradient_count(s->layer) : weight_of(network, s)->count;
  for (int image = 0; image < network->options.batch; image++) parts[image] = bnd_network_slot(network, s->weight_gradient, image);
  bnd_loop_sum_parts(parts, (size_t)network->options.batch, sum, count, network->options.threads);
  free(parts);
  *total = sum;
  if (!s->layer) return BND_OK;
  *total = network->totals[1];
  return bnd_onednn_layer_unpack_gradient(s->layer, sum, network->totals[1], error);
}

static float *gradient_of(bnd_network *network, int parameter) {
  network->parameters[parameter].reached = true;
  return network->parameters[parameter].gradient;
}

/* dW = dW' * factor, and what gamma gets: the sum of dW' * W. */
static double chain_channel(const float *total, const float *weight, float *gradient, float factor, size_t outer, size_t stride, size_t inner) {
  double product = 0;
  for (size_t o = 0; o < outer; o++)
    for (size_t i = 0; i < inner; i++) {
      const size_t at = o * stride + i;
      product += (double)total[at] * (double)weight[at];
      gradient[at] += total[at] * factor;
    }
  return product;
}

static void chain_batch_norm(bnd_network *network, const step *s, const float *total, const double *bias_gradient) {
  const norm *n = s->norm;
  const size_t channels = channels_of(network, s);
  const bool training = network->mode == BND_MODE_TRAIN;
  const float *weight = weight_of(network, s)->value, *gamma = network->parameters[n->gamma].value;
  const float *own_bias = s->bias >= 0 && !training ? network->parameters[s->bias].value : NULL;
  float *weight_gradient = gradient_of(network, s->weight), *gamma_gradient = gradient_of(network, n->gamma),
        *beta_gradient = gradient_of(network, n->beta);
  float *own_bias_gradient = own_bias ? gradient_of(network, s->bias) : NULL;
  size_t outer, inner;
  split_weight(network, s, &outer, &inner);
#pragma omp parallel for num_threads(network->options.threads) if (network->options.threads > 1)
  for (size_t c = 0; c < channels; c++) {
    const float reciprocal = training ? 1.f / sqrtf(n->running_variance[c] + (float)n->epsilon) : n->reciprocal[c];
    const size_t at = c * inner;
    const double product = chain_channel(total + at, weight + at, weight_gradient + at, gamma[c] * reciprocal, outer, channels * inner, inner);
    const float shift = own_bias ? n->mean[c] - own_bias[c] : n->mean[c];
    gamma_gradient[c] += (float)(product * (double)reciprocal - bias_gradient[c] * (double)shift * (double)n->reciprocal[c]);
    beta_gradient[c] += (float)bias_gradient[c];
    if (own_bias) own_bias_gradient[c] += (float)(bias_gradient[c] * (double)(gamma[c] * reciprocal));
  }
}

static bnd_status finish(bnd_network *network, const part *it, bnd_error *error) {
  const step *s = it->step;
  const size_t channels = channels_of(network, s);
  float *total = NULL;
  BND_TRY(total_gradient(network, s, &total, error));
  if (s->threshold >= 0) bnd_threshold_weight_gradient(network, s, total);
  double *bias_gradient = bnd_calloc(channels, sizeof *bias_gradient);
  if (!bias_gradient) return bnd_fail_memory(error, "a gradient");
  for (int image = 0; image < network->options.batch; image++) {
    const double *sums = bnd_network_slot(network, s->sums, image);
    for (size_t c = 0; c < channels; c++) bias_gradient[c] += sums[c];
  }
  if (s->norm) {
    chain_batch_norm(network, s, total, bias_gradient);
  } else {
    float *weight_gradient = gradient_of(network, s->weight), *own = s->bias >= 0 ? gradient_of(network, s->bias) : NULL;
    bnd_loop_scale(total, 1.f, weight_gradient, weight_of(network, s)->count, true);
    for (size_t c = 0; own && c < channels; c++) own[c] += (float)bias_gradient[c];
  }
  free(bias_gradient);
  return BND_OK;
}

static bnd_status backward(bnd_network *network, step *s, bnd_error *error) {
  const size_t plain = weight_of(network, s)->count, packed = s->layer ? bnd_onednn_layer_gradient_count(s->layer) : plain;
  s->weight_gradient = bnd_network_add_slot(network, packed * sizeof(float));
  if (packed > network->total_count[0]) network->total_count[0] = packed;
  if (plain > network->total_count[1]) network->total_count[1] = plain;
  part *it = s->weight_gradient < 0 ? NULL : bnd_network_add_part(network, s, send, finish);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_slot(network, s->weight_gradient);
  bnd_network_use_slot(network, s->sums);
  bnd_network_use_slot(network, s->mask);
  bnd_network_use_gradient(network, s->outputs[0]);
  bnd_network_use_saved(network, s->inputs[0]);
  if (bnd_network_send_gradient(network, it, 0) && it->add[0]) bnd_network_want_buffer(network, 2, bnd_network_count(&network->values[s->inputs[0]]));
  return BND_OK;
}

const step_functions *bnd_step_convolution(void) {
  static const step_functions functions = {.prepare = prepare, .forward = forward, .backward = backward};
  return &functions;
}
