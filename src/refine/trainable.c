#include "refine/trainable.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_trained(const bnd_node *node) {
  return node->kind == BND_CALL_MODULE && bnd_is_conv_module(node) && node->module && node->module->weight_quantizer;
}

static bnd_status own(bnd_tensor *tensor, bnd_error *error) {
  if (!tensor->data) return BND_OK;
  bnd_tensor copy;
  BND_TRY(tensor->dtype == BND_F32 ? bnd_tensor_copy(tensor, &copy, error) : bnd_tensor_to_f32(tensor, &copy, error));
  bnd_tensor_release(tensor);
  *tensor = copy;
  return BND_OK;
}

bnd_status bnd_trainable_detach(bnd_graph *graph, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!is_trained(node)) continue;
    BND_TRY(own(&node->module->weight, error));
    BND_TRY(own(&node->module->bias, error));
  }
  return BND_OK;
}

/* --- what is trained, and by how much --- */

/* Of a tensor's quantizer: one step of its grid (the finest of several). */
static double step_of(const bnd_quantizer *quantizer, const bnd_tensor *tensor) {
  double step = INFINITY, most = 0;
  for (int c = 0; quantizer && c < quantizer->channels; c++) step = fmin(step, (double)bnd_scale_of(quantizer->position[c]));
  if (isfinite(step)) return step;
  for (size_t i = 0; i < tensor->count; i++) most = fmax(most, fabs((double)bnd_f32(tensor)[i]));
  return most > 0 ? most / 128 : 1.0 / 128;
}

static const bnd_module *owner_of(const bnd_graph *graph, const float *values, bool *is_weight) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!is_trained(node)) continue;
    *is_weight = bnd_f32(&node->module->weight) == values;
    if (*is_weight || (node->module->bias.data && bnd_f32(&node->module->bias) == values)) return node->module;
  }
  return NULL;
}

static double rate_of(const bnd_graph *graph, const bnd_parameter *parameter, double threshold_rate) {
  if (parameter->threshold) return threshold_rate;
  bool is_weight;
  const bnd_module *module = owner_of(graph, parameter->value, &is_weight);
  if (!module) return 0;
  return is_weight ? step_of(module->weight_quantizer, &module->weight) : step_of(module->bias_quantizer, &module->bias);
}

static bnd_status add(bnd_trainable *t, bnd_parameter *parameter, double rate, bnd_optimizer_parameter *list, bnd_error *error) {
  list[t->count] = (bnd_optimizer_parameter){.value = parameter->value, .gradient = parameter->gradient, .count = parameter->count, .rate = rate};
  t->parameters[t->count] = parameter;
  t->best[t->count] = bnd_alloc_aligned(parameter->count, sizeof **t->best);
  return t->best[t->count++] ? BND_OK : bnd_fail_memory(error, "trained weights");
}

bnd_status bnd_trainable_create(const bnd_graph *graph, bnd_network *network, double threshold_rate, bnd_trainable *t, bnd_error *error) {
  size_t count;
  bnd_parameter *parameters = bnd_network_parameters(network, &count);
  *t = (bnd_trainable){.network = network,
                       .parameters = bnd_calloc(count + 1, sizeof *t->parameters),
                       .best = bnd_calloc(count + 1, sizeof *t->best)};
  bnd_optimizer_parameter *list = bnd_calloc(count + 1, sizeof *list);
  bnd_status status = t->parameters && t->best && list ? BND_OK : bnd_fail_memory(error, "trained weights");
  for (size_t p = 0; p < count && status == BND_OK; p++) {
    const double rate = rate_of(graph, &parameters[p], threshold_rate);
    if (rate > 0) status = add(t, &parameters[p], rate, list, error);
  }
  if (status == BND_OK) status = bnd_optimizer_create(&(bnd_optimizer_options){.kind = BND_ADAMW, .epsilon = 1e-12}, list, t->count, &t->optimizer, error);
  free(list);
  if (status != BND_OK) bnd_trainable_destroy(t);
  else bnd_trainable_keep(t);
  return status;
}

void bnd_trainable_destroy(bnd_trainable *t) {
  for (size_t p = 0; t->best && p < t->count; p++) free(t->best[p]);
  bnd_optimizer_destroy(t->optimizer);
  free(t->parameters);
  free(t->best);
  *t = (bnd_trainable){0};
}

void bnd_trainable_keep(bnd_trainable *t) {
  for (size_t p = 0; p < t->count; p++) memcpy(t->best[p], t->parameters[p]->value, t->parameters[p]->count * sizeof(float));
}

void bnd_trainable_restore(bnd_trainable *t) {
  for (size_t p = 0; p < t->count; p++) memcpy(t->parameters[p]->value, t->best[p], t->parameters[p]->count * sizeof(float));
  bnd_network_put_thresholds_in_force(t->network);
}

/* (1 + cos(pi u)) / 2 = cos^2(v) with v = pi u / 2 up to pi / 2: Taylor's series to v^16, off by less than 1e-12. */
double bnd_cosine_share(int step, int steps) {
  const double v = 1.57079632679489661923 * step / steps, square = v * v;
  double cosine = 1;
  for (int k = 16; k > 0; k -= 2) cosine = 1 - cosine * square / (k * (k - 1));
  return cosine * cosine;
}

/* --- back into the whole network --- */

static void hand_over_positions(const bnd_quantizer *from, bnd_quantizer *to) {
  if (!from || !to || from->channels != to->channels) return;
  memcpy(to->position, from->position, (size_t)from->channels * sizeof *to->position);
  memcpy(to->zero_point, from->zero_point, (size_t)from->channels * sizeof *to->zero_point);
  to->tensor_position = from->tensor_position;
}

void bnd_trainable_hand_back(const bnd_graph *from, bnd_graph *to) {
  for (const bnd_node *node = bnd_graph_first(from); node; node = node->next) {
    bnd_module *module = node->kind == BND_CALL_MODULE && node->module ? bnd_graph_find_module(to, node->module->name) : NULL;
    if (!module) continue;
    hand_over_positions(node->module->quantizer, module->quantizer);
    if (!is_trained(node)) continue;
    bnd_module_share_weights(module, node->module);
    hand_over_positions(node->module->weight_quantizer, module->weight_quantizer);
    hand_over_positions(node->module->bias_quantizer, module->bias_quantizer);
  }
}
