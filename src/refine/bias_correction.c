#include "refine/bias_correction.h"

#include <math.h>
#include <stdlib.h>

#include "refine/channel_statistics.h"
#include "refine/channels.h"

enum { DEFAULT_IMAGES = 16, STATISTICS_IMAGES = 32 };

/* Layers with a bias whose results are images: the others are left alone. */
static bool is_correctable(const bnd_node *node) {
  return bnd_is_conv_module(node) && !bnd_node_is(node, BND_OP_LINEAR_MODULE) && node->module->bias.data && !node->module->has_batch_norm &&
         node->shape[0].rank == 4 && (size_t)node->shape[0].size[1] == node->module->bias.count && node->module->weight.shape.rank == 4;
}

static bnd_status observe_bias(bnd_module *module, bnd_error *error) {
  bnd_quantizer *q = module->bias_quantizer;
  if (!q) return BND_OK;
  for (int c = 0; c < q->channels; c++) {
    q->minimum[c] = INFINITY;
    q->maximum[c] = -INFINITY;
  }
  bnd_quantizer_forget_votes(q);
  BND_TRY(bnd_observe_tensor(q, &module->bias, error));
  return bnd_quantizer_finish(q, error);
}

bnd_status bnd_replace_bias(bnd_module *module, const float *values, bnd_error *error) {
  bnd_tensor fresh;
  for (size_t i = 0; i < module->bias.count; i++)
    if (!isfinite(values[i])) return bnd_fail(error, BND_ERROR_MODEL, "layer %s: its corrected bias is not finite", module->name);
  BND_TRY(bnd_tensor_create(BND_F32, &module->bias.shape, &fresh, error));
  for (size_t i = 0; i < fresh.count; i++) bnd_f32(&fresh)[i] = values[i];
  bnd_tensor_release(&module->bias);
  module->bias = fresh;
  return observe_bias(module, error);
}

/* --- analytic --- */

/* What quantization in front of it adds to the mean of each channel of a node's result, in the terms of bnd_channels. Layers begin anew: they are
   corrected. Sums, concatenations and products with a number pass means on exactly, relu and max pools nearly so. */
typedef struct drifts {
  const bnd_channels *channels;
  const bnd_channel_statistics *statistics;
  double *drift; /* [slots] */
} drifts;

static void pass_on(drifts *d, const bnd_node *from, const bnd_node *to, int offset, double factor) {
  if (!from || d->channels->first[from->id] < 0 || from->shape[0].size[1] + offset > to->shape[0].size[1]) return;
  for (int64_t c = 0; c < from->shape[0].size[1]; c++)
    d->drift[d->channels->first[to->id] + offset + (int)c] += factor * d->drift[d->channels->first[from->id] + (int)c];
}

static void follow(drifts *d, const bnd_node *node) {
  const bnd_node *a = bnd_arg_node(node, 0), *b = bnd_arg_node(node, 1);
  if (d->channels->first[node->id] < 0 || !node->op || bnd_is_conv_module(node)) return;
  if (bnd_is_concat(node) && node->args[0].kind == BND_ARG_LIST) {
    int offset = 0;
    for (int i = 0; i < node->args[0].list.count; i++) {
      const bnd_node *input = node->args[0].list.items[i].kind == BND_ARG_NODE ? node->args[0].list.items[i].node : NULL;
      if (!input || d->channels->first[input->id] < 0) return;
      pass_on(d, input, node, offset, 1);
      offset += (int)input->shape[0].size[1];
    }
    return;
  }
  switch ((int)bnd_functional_id(node)) {
    case BND_OP_ADD:
      pass_on(d, b, node, 0, 1);
      pass_on(d, a, node, 0, 1);
      break;
    case BND_OP_MUL:
      pass_on(d, a, node, 0, b ? bnd_number_of(b) : 0);
      pass_on(d, b, node, 0, a ? bnd_number_of(a) : 0);
      break;
    case BND_OP_FAKE_QUANTIZE:
    case BND_OP_RELU:
    case BND_OP_MAX_POOL2D:
      pass_on(d, a, node, 0, 1);
      break;
    default:
      break;
  }
  if (!bnd_is_fake_quantize(node) || d->statistics->first[node->id] < 0) return;
  for (int c = 0; c < (int)node->shape[0].size[1]; c++) d->drift[d->channels->first[node->id] + c] += d->statistics->shift[d->statistics->first[node->id] + c];
}

/* shift[o] = sum over inputs i and the window of Q(W) E[Q(x)] - W E[x]. A transposed convolution's inputs meet only a part of the window at each place, one
   in stride[0] * stride[1]. */
static void find_shift(const bnd_node *layer, const float *quantized, const double *mean, const double *drift, double *shift) {
  const bnd_module *module = layer->module;
  const bnd_weight_view v = bnd_weight_view_of(layer);
  const double share = v.transposed ? 1.0 / (double)(module->stride[0] * module->stride[1]) : 1.0;
  for (size_t r = 0; r < v.rows; r++)
    for (size_t c = 0; c < v.columns; c++) {
      const float *w = bnd_f32(&module->weight) + (r * v.columns + c) * v.window, *q = quantized + (r * v.columns + c) * v.window;
      const size_t input = bnd_weight_input(&v, r, c), output = bnd_weight_output(&v, r, c);
      double exact = 0, rounded = 0;
      for (size_t k = 0; k < v.window; k++) {
        exact += (double)w[k];
        rounded += (double)q[k];
      }
      shift[output] += (rounded * (mean[input] + drift[input]) - exact * mean[input]) * share;
    }
}

static bnd_status correct_analytic(bnd_node *node, const double *mean, const double *drift, double *largest, bnd_error *error) {
  bnd_module *module = node->module;
  const size_t count = module->bias.count;
  bnd_tensor weight, bias;
  double *shift = bnd_calloc(count, sizeof *shift);
  float *values = bnd_calloc(count, sizeof *values);
  bnd_status status = shift && values ? bnd_module_quantized_weights(module, bnd_is_transposed_module(node), &weight, &bias, error)
                                      : bnd_fail_memory(error, "a bias correction");
  if (status == BND_OK) {
    find_shift(node, bnd_f32(&weight), mean, drift, shift);
    for (size_t i = 0; i < count; i++) {
      values[i] = (float)((double)bnd_f32(&module->bias)[i] - shift[i]);
      *largest = fabs(shift[i]) > *largest ? fabs(shift[i]) : *largest;
    }
    bnd_tensor_release(&weight);
    bnd_tensor_release(&bias);
    status = bnd_replace_bias(module, values, error);
  }
  free(shift);
  free(values);
  return status;
}

static bnd_status correct_all(bnd_refinement *work, drifts *d, int *layers, double *largest, bnd_error *error) {
  for (bnd_node *node = bnd_graph_first(work->graph); node; node = node->next) {
    const bnd_node *input = is_correctable(node) ? bnd_arg_node(node, 0) : NULL;
    follow(d, node);
    if (!input || d->statistics->first[input->id] < 0 || d->channels->first[input->id] < 0) continue;
    BND_TRY(correct_analytic(node, d->statistics->mean + d->statistics->first[input->id], d->drift + d->channels->first[input->id], largest, error));
    *layers += 1;
  }
  return BND_OK;
}

/* Statistics are those of quantizers as they would be exported. */
static bnd_status gather(const bnd_refinement *work, bnd_channel_statistics *statistics, bnd_error *error) {
  bnd_graph *copy;
  BND_TRY(bnd_graph_copy(work->graph, &copy, error));
  bnd_status status = bnd_adjust_to_fixed_point(copy, work->target, NULL, error);
  if (status == BND_OK) status = bnd_channel_statistics_gather(copy, work->images, STATISTICS_IMAGES, work->backend, work->context, statistics, error);
  bnd_graph_destroy(copy);
  return status;
}

bnd_status bnd_refine_bias_analytic(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  bnd_channel_statistics statistics = {0};
  bnd_channels channels = {0};
  drifts d = {.channels = &channels, .statistics = &statistics};
  double largest = 0;
  int layers = 0;
  bnd_status status = gather(work, &statistics, error);
  if (status == BND_OK) status = bnd_channels_find(work->graph, &channels, error);
  if (status == BND_OK && !(d.drift = bnd_calloc((size_t)channels.slots, sizeof *d.drift))) status = bnd_fail_memory(error, "a bias correction");
  if (status == BND_OK) status = correct_all(work, &d, &layers, &largest, error);
  free(d.drift);
  bnd_channels_free(&channels);
  bnd_channel_statistics_free(&statistics);
  bnd_string_format(report, "analytic bias correction: %d layers, largest shift of a mean %.4g\n", layers, largest);
  return status;
}

/* --- empirical --- */

typedef struct layer {
  bnd_node *node; /* in the graph that is corrected */
  int depth;      /* layers on the longest way from the input, itself counted */
  size_t first;   /* of its channels among all channels of the round */
} layer;

typedef struct means {
  const layer *layers; /* of a round */
  size_t count, channels;
  double *sums; /* [images][channels] */
} means;

/* Means of this image's outputs, a layer each. */
static bnd_status sum_outputs(const bnd_stream_place *place, const bnd_session *session, bnd_error *error) {
  (void)error;
  const means *m = place->user;
  for (size_t l = 0; l < m->count; l++) {
    const bnd_shape *shape = &m->layers[l].node->shape[0];
    const size_t channels = (size_t)shape->size[1], inner = (size_t)(shape->size[2] * shape->size[3]);
    const float *values = bnd_session_output(session, (int)l);
    double *sums = m->sums + place->index * m->channels + m->layers[l].first;
    for (size_t c = 0; c < channels; c++) {
      double lanes[8] = {0}, sum = 0;
      for (size_t i = 0; i < inner; i++) lanes[i % 8] += (double)values[c * inner + i];
      for (int j = 0; j < 8; j++) sum += lanes[j];
      sums[c] = sum / (double)inner;
    }
  }
  return BND_OK;
}

/* A copy of the graph whose outputs are the round's layers. */
static bnd_status graph_of_round(const bnd_graph *graph, const means *m, bnd_graph **copy, bnd_error *error) {
  BND_TRY(bnd_graph_copy(graph, copy, error));
  bnd_node **nodes = bnd_calloc(m->count, sizeof *nodes), *output = bnd_graph_last(*copy);
  bnd_status status = nodes ? BND_OK : bnd_fail_memory(error, "a bias correction");
  for (size_t l = 0; l < m->count && status == BND_OK; l++)
    if (!(nodes[l] = bnd_graph_find(*copy, m->layers[l].node->name)))
      status = bnd_fail(error, BND_ERROR_ARGUMENT, "the float network has no layer %s", m->layers[l].node->name);
  if (status == BND_OK) {
    bnd_node_set_arg(output, 0, bnd_graph_node_list(*copy, nodes, (int)m->count));
    status = bnd_graph_status(*copy, error);
  }
  free(nodes);
  if (status != BND_OK) bnd_graph_destroy(*copy);
  return status;
}

/* sign * mean over the images is added to `difference` [channels]. */
static bnd_status add_means(const bnd_refinement *work, const bnd_graph *graph, bnd_exec_mode mode, const bnd_image_source *images, means *m, double sign,
                            double *difference, bnd_error *error) {
  const bnd_exec_options options = {.mode = mode, .backend = work->backend, .threads = 1};
  const bnd_stream stream = {.stage = "bias correction", .finished = sum_outputs, .user = m};
  bnd_graph *copy;
  bnd_executor *executor = NULL;
  BND_TRY(graph_of_round(graph, m, &copy, error));
  bnd_status status = bnd_executor_create(copy, &options, &executor, error);
  bnd_graph_destroy(copy);
  if (status == BND_OK) status = bnd_stream_images(executor, images, &stream, work->context, error);
  bnd_executor_destroy(executor);
  for (size_t i = 0; status == BND_OK && i < images->count; i++)
    for (size_t c = 0; c < m->channels; c++) difference[c] += sign * m->sums[i * m->channels + c] / (double)images->count;
  return status;
}

/* The bias that acts now, plus the difference of the means. */
static bnd_status correct_empirical(bnd_node *node, const double *difference, bnd_error *error) {
  bnd_module *module = node->module;
  bnd_tensor weight, bias;
  BND_TRY(bnd_module_quantized_weights(module, bnd_is_transposed_module(node), &weight, &bias, error));
  float *values = bnd_calloc(bias.count, sizeof *values);
  bnd_status status = values ? BND_OK : bnd_fail_memory(error, "a bias correction");
  for (size_t i = 0; values && i < bias.count; i++) values[i] = (float)((double)bnd_f32(&bias)[i] + difference[i]);
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
  if (status == BND_OK) status = bnd_replace_bias(module, values, error);
  free(values);
  return status;
}

static bnd_status correct_round(bnd_refinement *work, const bnd_image_source *images, layer *layers, size_t count, double *largest, bnd_error *error) {
  means m = {.layers = layers, .count = count};
  for (size_t l = 0; l < count; l++) {
    layers[l].first = m.channels;
    m.channels += layers[l].node->module->bias.count;
  }
  size_t cells;
  double *difference = bnd_calloc(m.channels, sizeof *difference);
  if (bnd_size_multiply(images->count, m.channels, &cells)) m.sums = bnd_calloc(cells, sizeof *m.sums);
  bnd_status status = difference && m.sums ? BND_OK : bnd_fail_memory(error, "a bias correction");
  if (status == BND_OK) status = add_means(work, work->teacher, BND_EXEC_FLOAT, images, &m, 1, difference, error);
  if (status == BND_OK) status = add_means(work, work->graph, BND_EXEC_FAKE_QUANTIZE, images, &m, -1, difference, error);
  for (size_t l = 0; l < count && status == BND_OK; l++) status = correct_empirical(layers[l].node, difference + layers[l].first, error);
  for (size_t c = 0; difference && c < m.channels; c++) *largest = fabs(difference[c]) > *largest ? fabs(difference[c]) : *largest;
  free(difference);
  free(m.sums);
  return status;
}

typedef struct deepest {
  const int *depths; /* by node id */
  int depth;
} deepest;

static void look_deeper(void *user, bnd_node *input) {
  deepest *d = user;
  if (d->depths[input->id] > d->depth) d->depth = d->depths[input->id];
}

static int compare_depth(const void *a, const void *b) {
  const layer *x = a, *y = b;
  if (x->depth != y->depth) return x->depth < y->depth ? -1 : 1;
  return x->node->id < y->node->id ? -1 : x->node->id > y->node->id;
}

/* All layers that can be corrected, by depth. */
static bnd_status find_layers(bnd_graph *graph, layer **layers, size_t *count, bnd_error *error) {
  int *depths = bnd_calloc((size_t)bnd_graph_id_limit(graph), sizeof *depths);
  *layers = bnd_calloc((size_t)bnd_graph_node_count(graph), sizeof **layers);
  *count = 0;
  if (!depths || !*layers) {
    free(depths);
    free(*layers);
    return bnd_fail_memory(error, "a bias correction");
  }
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    deepest d = {.depths = depths};
    bnd_node_visit_inputs(node, look_deeper, &d);
    depths[node->id] = d.depth + (bnd_is_conv_module(node) ? 1 : 0);
    if (is_correctable(node)) (*layers)[(*count)++] = (layer){.node = node, .depth = depths[node->id]};
  }
  qsort(*layers, *count, sizeof **layers, compare_depth);
  free(depths);
  return BND_OK;
}

bnd_status bnd_refine_bias_empirical(bnd_refinement *work, const bnd_bias_options *options, bnd_string *report, bnd_error *error) {
  const bnd_bias_options chosen = options ? *options : (bnd_bias_options){0};
  const size_t limit = chosen.images ? chosen.images : DEFAULT_IMAGES;
  bnd_image_source images = *work->images;
  if (images.count > limit) images.count = limit;
  if (images.count == 0) return bnd_fail(error, BND_ERROR_ARGUMENT, "bias correction needs at least one image");
  layer *layers;
  size_t count;
  BND_TRY(find_layers(work->graph, &layers, &count, error));
  const int deepest_layer = count ? layers[count - 1].depth : 0, most = chosen.rounds > 0 ? chosen.rounds : deepest_layer;
  const int depths = most > 0 ? (deepest_layer + most - 1) / most : 1; /* in a round */
  bnd_status status = BND_OK;
  double largest = 0;
  int rounds = 0;
  for (size_t begin = 0, end; begin < count && status == BND_OK; begin = end, rounds++) {
    for (end = begin + 1; end < count && (layers[end].depth - 1) / depths == (layers[begin].depth - 1) / depths; end++) continue;
    status = correct_round(work, &images, layers + begin, end - begin, &largest, error);
  }
  free(layers);
  bnd_string_format(report, "empirical bias correction: %zu layers in %d rounds over %zu images, largest difference of means %.4g\n", count, rounds, images.count,
                    largest);
  return status;
}
