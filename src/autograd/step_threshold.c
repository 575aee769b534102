/* Trained quantization thresholds (Jain, Gural, Wu, Dick 2020; fx-quantization 6.5): for each quantizer a parameter t, the base 2 logarithm of where
   its range ends. With s = 2^ceil(t) / 128, r = x / s rounded and the range -128..127:

     forward:   y = clamp(r, -128, 127) * s
     backward:  dx = dy inside the range, 0 outside;  dt = s * ln 2 * sum of dy * { r - x / s inside;  -128 below;  127 above }

   Inside is where r lies in the range. The edges and exact halves are those of Quark's TQTQuantize: negative halves round up, in the backward pass
   only. */
#include <math.h>
#include <string.h>

#include "autograd/internal.h"
#include "base/simd.h"

enum { BITS_BELOW_SIGN = 7, EXPONENT_LIMIT = 64 };
static const double LN2 = 0.69314718055994530942;

/* --- which quantizers have one --- */

static bnd_quantizer *quantizer_of(const step *s) {
  return s->kind == STEP_FAKE_QUANTIZE ? s->quantizer : s->kind == STEP_CONVOLUTION ? s->weight_quantizer : NULL;
}

static bool quantizes_bias(const bnd_network *network, const step *s) {
  const value *x = &network->values[s->inputs[0]];
  return s->kind == STEP_FAKE_QUANTIZE && x->parameter >= 0 && x->shape.rank <= 1;
}

bool bnd_threshold_is_possible(const bnd_network *network, const step *s) {
  const bnd_quantizer *quantizer = quantizer_of(s);
  return network->options.learn_thresholds && network->options.quantize && quantizer && !quantizer->spec.per_channel && !quantizes_bias(network, s);
}

static const char *name_of(const bnd_network *network, const bnd_quantizer *quantizer) {
  for (size_t q = 0; q < network->quantizer_count; q++)
    if (network->quantizers[q].quantizer == quantizer) return network->quantizers[q].name;
  return NULL;
}

static int known_threshold(const bnd_network *network, const bnd_quantizer *quantizer) {
  for (size_t i = 0; i < network->threshold_count; i++)
    if (network->thresholds[i].quantizer == quantizer) return network->thresholds[i].parameter;
  return NO_INDEX;
}

static int add_threshold(bnd_network *network, bnd_quantizer *quantizer) {
  const char *of = name_of(network, quantizer), *name = of ? bnd_arena_format(network->names, "%s.log2_threshold", of) : NULL;
  float *t = bnd_network_keep(network, 1, sizeof *t);
  if (!name || !t || !BND_GROW(network->thresholds, network->threshold_capacity, network->threshold_count + 1)) return NO_INDEX;
  *t = (float)(BITS_BELOW_SIGN - quantizer->position[0]) - network->options.threshold_margin;
  const int parameter = bnd_network_add_parameter(network, name, &(bnd_tensor){.dtype = BND_F32, .shape = BND_SHAPE(1), .count = 1, .data = t});
  if (parameter < 0) return NO_INDEX;
  network->parameters[parameter].threshold = true;
  network->thresholds[network->threshold_count++] = (learned_threshold){quantizer, parameter};
  return parameter;
}

/* Where no gradient comes by, a threshold would stay as it is: there the observer goes on. */
bnd_status bnd_thresholds_add(bnd_network *network, bnd_error *error) {
  const float margin = network->options.threshold_margin;
  if (!(margin >= 0 && margin < 1))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "a margin of %g for thresholds; allowed is 0 or more, less than 1", (double)margin);
  for (size_t i = 0; i < network->step_count; i++) {
    step *s = &network->steps[i];
    if (!s->differentiable || !bnd_threshold_is_possible(network, s)) continue;
    s->threshold = known_threshold(network, quantizer_of(s));
    if (s->threshold < 0) s->threshold = add_threshold(network, quantizer_of(s));
    if (s->threshold < 0) return bnd_fail_memory(error, "the network");
  }
  return BND_OK;
}

/* --- thresholds and quantizers --- */

void bnd_network_put_thresholds_in_force(bnd_network *network) {
  for (size_t i = 0; i < network->threshold_count; i++) {
    bnd_quantizer *quantizer = network->thresholds[i].quantizer;
    const float exponent = ceilf(network->parameters[network->thresholds[i].parameter].value[0]);
    if (isnan(exponent)) continue;
    const int limited = exponent > EXPONENT_LIMIT ? EXPONENT_LIMIT : exponent < -EXPONENT_LIMIT ? -EXPONENT_LIMIT : (int)exponent;
    quantizer->position[0] = quantizer->tensor_position = BITS_BELOW_SIGN - limited;
    quantizer->zero_point[0] = quantizer->spec.dtype == BND_U8 ? 128 : 0;
  }
}

bnd_status bnd_thresholds_prepare(bnd_network *network, bnd_error *error) {
  for (size_t i = 0; i < network->threshold_count; i++) {
    const bnd_parameter *parameter = &network->parameters[network->thresholds[i].parameter];
    if (!isfinite(parameter->value[0])) return bnd_fail(error, BND_ERROR_MODEL, "%s: is not finite", parameter->name);
  }
  bnd_network_put_thresholds_in_force(network);
  return BND_OK;
}

/* --- gradients --- */

/* x / s rounded; what lies farther outside than one step counts as one step outside. */
static inline float rounded(float x, const bnd_grid *grid) {
  float q = x * grid->multiplier;
  q = q > grid->high + 1 ? grid->high + 1 : q;
  q = q < grid->low - 1 ? grid->low - 1 : q;
  return (q + 0x1.8p23f) - 0x1.8p23f;
}

static inline float slope(float x, const bnd_grid *grid) {
  const float r = rounded(x, grid), q = x * grid->multiplier, rest = r - q;
  const float inside = rest == -0.5f && q < 0 ? 0.5f : rest;
  return r < grid->low ? grid->low : r > grid->high ? grid->high : inside;
}

BND_VECTORIZED
static double sum_of_slopes(const float *x, const float *dy, size_t count, const bnd_grid *from) {
  const bnd_grid grid = *from;
  double sum[8] = {0}, total = 0;
  size_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (size_t l = 0; l < 8; l++) sum[l] += (double)dy[i + l] * (double)slope(x[i + l], &grid);
  for (size_t l = 0; i + l < count; l++) sum[l] += (double)dy[i + l] * (double)slope(x[i + l], &grid);
  for (size_t l = 0; l < 8; l++) total += sum[l];
  return total;
}

BND_VECTORIZED
static void pass_inside(const float *x, const float *dy, float *dx, size_t count, const bnd_grid *from, bool add) {
  const bnd_grid grid = *from;
  for (size_t i = 0; i < count; i++) {
    const float r = rounded(x[i], &grid), passed = r < grid.low || r > grid.high ? 0.f : dy[i];
    dx[i] = add ? dx[i] + passed : passed;
  }
}

static void add_gradient(bnd_network *network, const step *s, double sum) {
  bnd_parameter *parameter = &network->parameters[s->threshold];
  parameter->gradient[0] += (float)(sum * (double)bnd_scale_of(quantizer_of(s)->position[0]) * LN2);
  parameter->reached = true;
}

/* --- activations --- */

static bnd_status check(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker;
  if (!bnd_network_observes(network)) return BND_OK;
  const step *s = it->step;
  const bnd_layout layout = bnd_network_layout(&network->values[s->inputs[0]]);
  float low, high;
  bnd_loop_min_max(bnd_network_data(network, s->inputs[0], image), &layout, &low, &high, 1);
  return isfinite(low) && isfinite(high) ? BND_OK : bnd_fail(error, BND_ERROR_MODEL, "%s: values are not finite", s->name);
}

/* In place of what observes. */
bnd_status bnd_threshold_forward(bnd_network *network, step *s, bnd_error *error) {
  if (!bnd_network_add_part(network, s, check, NULL)) return bnd_fail_memory(error, "the network");
  bnd_network_use_data(network, s->inputs[0]);
  return BND_OK;
}

static bnd_status send(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)error;
  const step *s = it->step;
  const bnd_grid grid = bnd_grid_of(s->quantizer);
  const size_t count = bnd_network_count(&network->values[s->inputs[0]]);
  const float *x = bnd_network_saved(network, s->inputs[0], image, worker, 0), *dy = bnd_network_gradient(network, s->outputs[0], image);
  *(double *)bnd_network_slot(network, s->sums, image) = sum_of_slopes(x, dy, count, &grid);
  if (bnd_network_wants_gradient(network, s, 0)) pass_inside(x, dy, bnd_network_gradient(network, s->inputs[0], image), count, &grid, it->add[0]);
  return BND_OK;
}

static bnd_status finish(bnd_network *network, const part *it, bnd_error *error) {
  (void)error;
  double sum = 0;
  for (int image = 0; image < network->options.batch; image++) sum += *(const double *)bnd_network_slot(network, it->step->sums, image);
  add_gradient(network, it->step, sum);
  return BND_OK;
}

bnd_status bnd_threshold_backward(bnd_network *network, step *s, bnd_error *error) {
  const bool shared = bnd_network_share_gradient(network, s->inputs[0], s->outputs[0]);
  s->sums = bnd_network_add_slot(network, sizeof(double));
  part *it = s->sums < 0 ? NULL : bnd_network_add_part(network, s, send, finish);
  if (!it) return bnd_fail_memory(error, "the network");
  bnd_network_use_slot(network, s->sums);
  bnd_network_use_saved(network, s->inputs[0]);
  bnd_network_use_gradient(network, s->outputs[0]);
  if (!shared) bnd_network_send_gradient(network, it, 0);
  return BND_OK;
}

/* --- weights of convolutions --- */

bnd_status bnd_threshold_keep_weight(step *s, const bnd_tensor *weight, bnd_error *error) {
  float low, high; /* NaN if one of the values is */
  bnd_loop_min_max(bnd_f32(weight), &(bnd_layout){.images = 1, .channels = 1, .height = 1, .width = weight->count}, &low, &high, 1);
  if (!isfinite(low) || !isfinite(high)) return bnd_fail(error, BND_ERROR_MODEL, "%s: weights are not finite", s->name);
  memcpy(s->unquantized.data, weight->data, weight->count * sizeof(float));
  return BND_OK;
}

void bnd_threshold_weight_gradient(bnd_network *network, const step *s, float *gradient) {
  const bnd_grid grid = bnd_grid_of(s->weight_quantizer);
  const float *weight = bnd_f32(&s->unquantized);
  add_gradient(network, s, sum_of_slopes(weight, gradient, s->unquantized.count, &grid));
  pass_inside(weight, gradient, gradient, s->unquantized.count, &grid, false);
}
