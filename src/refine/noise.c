#include "refine/noise.h"

#include <math.h>
#include <stdlib.h>

typedef struct noise {
  const bnd_channels *channels;
  const bnd_channel_statistics *statistics;
  double *sensitivity;
} noise;

static const bnd_node *first_quantizer_behind(const bnd_node *node) {
  for (int step = 0; step < 3 && node->user_count >= 1; step++) {
    node = node->users[0];
    if (bnd_is_fake_quantize(node)) return node;
  }
  return NULL;
}

double bnd_output_variance(const bnd_node *layer, const bnd_channel_statistics *statistics) {
  const bnd_node *q = first_quantizer_behind(layer);
  if (!q || statistics->first[q->id] < 0 || q->shape[0].size[1] != layer->shape[0].size[1]) return 0;
  double sum = 0;
  for (int64_t c = 0; c < q->shape[0].size[1]; c++) {
    const int at = statistics->first[q->id] + (int)c;
    sum += statistics->square[at] - statistics->mean[at] * statistics->mean[at];
  }
  return sum > 0 ? sum : 0;
}

static void pass_back(noise *e, const bnd_node *from, int offset, const bnd_node *to, double factor) {
  if (!to || e->channels->first[to->id] < 0) return;
  for (int64_t c = 0; c < to->shape[0].size[1]; c++)
    e->sensitivity[e->channels->first[to->id] + (int)c] += factor * e->sensitivity[e->channels->first[from->id] + offset + (int)c];
}

static void add_layer_sensitivity(noise *e, const bnd_node *layer) {
  const bnd_node *input = bnd_arg_node(layer, 0);
  const double variance = bnd_output_variance(layer, e->statistics);
  if (variance == 0 || e->channels->first[input->id] < 0) return;
  const bnd_weight_view v = bnd_weight_view_of(layer);
  const float *w = bnd_f32(&layer->module->weight);
  const double share = v.transposed ? 1.0 / (double)(layer->module->stride[0] * layer->module->stride[1]) : 1.0;
  for (size_t r = 0; r < v.rows; r++)
    for (size_t c = 0; c < v.columns; c++) {
      double sum = 0;
      for (size_t k = 0; k < v.window; k++) sum += (double)w[(r * v.columns + c) * v.window + k] * (double)w[(r * v.columns + c) * v.window + k];
      e->sensitivity[e->channels->first[input->id] + (int)bnd_weight_input(&v, r, c)] += sum * share / variance;
    }
}

/* From the last node to the first: what noise at each channel does to the layers behind it. */
void bnd_noise_sensitivities(const bnd_graph *graph, const bnd_channels *channels, const bnd_channel_statistics *statistics, double *sensitivity) {
  noise *const e = &(noise){channels, statistics, sensitivity};
  for (const bnd_node *node = bnd_graph_last(graph); node; node = node->previous) {
    if (e->channels->first[node->id] < 0) continue;
    if (bnd_is_scalable_layer(node)) {
      add_layer_sensitivity(e, node);
    } else if (bnd_is_concat(node)) {
      int offset = 0;
      for (int i = 0; i < node->args[0].list.count; i++) {
        const bnd_node *input = node->args[0].list.items[i].node;
        pass_back(e, node, offset, input, 1);
        offset += (int)input->shape[0].size[1];
      }
    } else {
      const bool product = bnd_functional_id(node) == BND_OP_MUL, sum = bnd_functional_id(node) == BND_OP_ADD;
      const bnd_node *a = bnd_arg_node(node, 0), *b = product || sum ? bnd_arg_node(node, 1) : NULL;
      if (a && bnd_shape_equal(&a->shape[0], &node->shape[0])) pass_back(e, node, 0, a, product ? bnd_number_of(b) * bnd_number_of(b) : 1);
      if (b && bnd_shape_equal(&b->shape[0], &node->shape[0])) pass_back(e, node, 0, b, product ? bnd_number_of(a) * bnd_number_of(a) : 1);
    }
  }
}

bool bnd_is_exact_quantizer(const bnd_node *quantizer) {
  const bnd_node *input = bnd_is_fake_quantize(quantizer) ? bnd_arg_node(quantizer, 0) : NULL;
  return input && (bnd_is_concat(input) || bnd_node_is(input, BND_OP_MAX_POOL2D));
}

void bnd_share_ranges(const bnd_graph *graph, int *term_of) {
  for (bool changed = true; changed;) {
    changed = false;
    for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
      const bnd_node *input = bnd_is_exact_quantizer(node) ? bnd_arg_node(node, 0) : NULL;
      if (!input) continue;
      bnd_node *inputs[64];
      const int count = bnd_node_inputs(input, inputs, 64);
      int lowest = term_of[node->id];
      for (int i = 0; i < count && i < 64; i++)
        if (term_of[inputs[i]->id] >= 0 && term_of[inputs[i]->id] < lowest) lowest = term_of[inputs[i]->id];
      for (int i = -1; i < count && i < 64; i++) {
        int *term = &term_of[i < 0 ? node->id : inputs[i]->id];
        if (*term <= lowest) continue;
        *term = lowest;
        changed = true;
      }
    }
  }
}

/* --- scaling --- */

static double factor_of(const bnd_channels *channels, const double *factors, const bnd_node *node, int64_t c) {
  const int class = bnd_free_class(channels, node, c);
  return class < 0 ? 1 : factors[class];
}

static bnd_status scale_layer(const bnd_channels *channels, const double *factors, bnd_node *layer, bool *changed, bnd_error *error) {
  bnd_module *module = layer->module;
  const bnd_node *input = bnd_arg_node(layer, 0);
  const bnd_weight_view v = bnd_weight_view_of(layer);
  bnd_tensor weight, bias = {0};
  *changed = false;
  for (int64_t c = 0; c < input->shape[0].size[1]; c++) *changed |= bnd_free_class(channels, input, c) >= 0;
  for (int64_t c = 0; c < layer->shape[0].size[1]; c++) *changed |= bnd_free_class(channels, layer, c) >= 0;
  if (!*changed) return BND_OK;
  BND_TRY(bnd_tensor_copy(&module->weight, &weight, error));
  const bnd_status status = module->bias.data ? bnd_tensor_copy(&module->bias, &bias, error) : BND_OK;
  if (status != BND_OK) {
    bnd_tensor_release(&weight);
    return status;
  }
  for (size_t r = 0; r < v.rows; r++)
    for (size_t c = 0; c < v.columns; c++) {
      const double factor = factor_of(channels, factors, input, (int64_t)bnd_weight_input(&v, r, c)) /
                            factor_of(channels, factors, layer, (int64_t)bnd_weight_output(&v, r, c));
      for (size_t k = 0; k < v.window; k++) {
        float *w = &bnd_f32(&weight)[(r * v.columns + c) * v.window + k];
        *w = (float)((double)*w * factor);
      }
    }
  for (size_t o = 0; o < bias.count; o++) bnd_f32(&bias)[o] = (float)((double)bnd_f32(&bias)[o] / factor_of(channels, factors, layer, (int64_t)o));
  bnd_tensor_release(&module->weight);
  bnd_tensor_release(&module->bias);
  module->weight = weight;
  module->bias = bias;
  return BND_OK;
}

bnd_status bnd_scale_channels(bnd_graph *graph, const bnd_channels *channels, const double *factors, int *layers, bnd_error *error) {
  *layers = 0;
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    bool changed = false;
    if (bnd_is_scalable_layer(node)) BND_TRY(scale_layer(channels, factors, node, &changed, error));
    *layers += changed;
  }
  return BND_OK;
}

static void forget(bnd_quantizer *q) {
  if (!q) return;
  bnd_quantizer_forget_votes(q);
  for (int c = 0; c < q->channels; c++) {
    q->minimum[c] = INFINITY;
    q->maximum[c] = -INFINITY;
  }
}

/* Every range begins anew. */
bnd_status bnd_calibrate_again(bnd_refinement *work, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(work->graph); node; node = node->next) {
    if (!node->module) continue;
    forget(node->module->weight_quantizer);
    forget(node->module->bias_quantizer);
    forget(node->module->quantizer);
  }
  const bnd_calibration calibration = {.batch = work->images->count, .backend = work->backend};
  return bnd_calibrate(work->graph, work->images, &calibration, work->context, error);
}
