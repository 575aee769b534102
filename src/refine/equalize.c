/* The factors minimise a model of the quantized network's noise, summed over its layers:

     J = sum over layers l of (noise at l's outputs) / (variance of l's outputs)

   A tensor with range R has rounding noise proportional to R^2 at each of its values. An activation's noise at channel c is seen by the layers that read
   it through the squares of their weights; a weight's noise through the mean square of the inputs it is multiplied with. In terms of u = ln(factor), for
   an activation with amplitudes A and sensitivities w, and for weights W[o,i] with inputs of mean square M:

     activation: N (A_c e^-u_c) * sum over c of w_c e^2u_c          weight: N (|W[o,i]| e^(u_i - u_o)) * sum over o of e^2u_o * sum over i of M_i e^-2u_i / V

   N is the square of the largest value, made smooth: (sum x^p)^(2/p) with p = 8. Nagel's closed form is the minimum of the weight terms alone for one pair of
   layers. J is minimised by Adam (Kingma and Ba 2015) from u = 0 in a fixed number of steps. Tensors that the target's rules keep at one scale (concatenations,
   pools) count as one. */
#include "refine/equalize.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/math.h"
#include "refine/fit.h"
#include "refine/noise.h"

enum { DEFAULT_IMAGES = 32, DEFAULT_ITERATIONS = 100 };

/* A channel in an activation term; class -1: not to be scaled. */
typedef struct activation_entry {
  int class;
  float amplitude;
  double sensitivity;
} activation_entry;

typedef struct activation_term {
  activation_entry *entries;
  size_t count, capacity;
} activation_term;

typedef struct weight_term {
  const bnd_node *layer;
  bnd_weight_view view;
  size_t inputs, outputs;
  int *input_class, *output_class;
  double *square;     /* [inputs] mean square; */
  float *largest;     /* [rows][columns] largest magnitude in the window */
  double factor;      /* window / variance of the outputs, times the target's share of clipping */
  /* of the last evaluation: */
  double *input_scale, *output_inverse; /* [inputs], [outputs] e^u, e^-u */
  double *row_sums, *sums;              /* [rows], [channels of columns] */
  size_t column_classes;
  double value, sum, input_sum, output_sum;
} weight_term;

typedef struct equalizer {
  bnd_graph *graph;
  bnd_channels channels;
  bnd_channel_statistics statistics;
  activation_term *activations; /* [activation_count] by root of the range they share */
  weight_term *weights;
  size_t activation_count, weight_count;
  double weight_share;
  int threads;
  double *sensitivity; /* [slots] of the noise at a channel of a node's result */
  double *u, *gradient, *moment, *square_moment; /* [classes] */
  double *exp_u;       /* [classes] e^u */
} equalizer;

/* --- the model --- */

/* By how much more than by its extremes a quantizer's scale is smaller: a search for the least error may clip. */
static double clipping(const bnd_quantizer *q) {
  int position, zero_point;
  if (!q || q->channels != 1 || !isfinite(q->minimum[0]) || !isfinite(q->maximum[0])) return 1;
  bnd_power_of_two_parameters(&q->spec, q->minimum[0], q->maximum[0], &position, &zero_point);
  const int shift = q->tensor_position - position;
  return ldexp(1.0, shift < -4 ? 4 : shift > 4 ? -4 : -shift);
}

static bnd_status add_activation(equalizer *e, activation_term *term, const bnd_node *node, bnd_error *error) {
  const size_t channels = (size_t)node->shape[0].size[1];
  if (!BND_GROW(term->entries, term->capacity, term->count + channels)) return bnd_fail_memory(error, "equalization");
  for (size_t c = 0; c < channels; c++) {
    const int at = e->statistics.first[node->id] + (int)c;
    const float low = e->statistics.minimum[at], high = e->statistics.maximum[at];
    term->entries[term->count++] = (activation_entry){
        .class = bnd_free_class(&e->channels, node, (int64_t)c),
        .amplitude = (float)((double)(-low > high ? -low : high) * clipping(node->module->quantizer)),
        .sensitivity = bnd_is_exact_quantizer(node) ? 0 : e->sensitivity[e->channels.first[node->id] + (int)c],
    };
  }
  return BND_OK;
}

static bnd_status add_activations(equalizer *e, bnd_error *error) {
  int *term_of = bnd_calloc((size_t)e->channels.ids, sizeof *term_of);
  if (!term_of) return bnd_fail_memory(error, "equalization");
  size_t count = 0;
  for (int i = 0; i < e->channels.ids; i++) term_of[i] = -1;
  for (const bnd_node *node = bnd_graph_first(e->graph); node; node = node->next)
    if (bnd_is_fake_quantize(node) && e->statistics.first[node->id] >= 0 && e->channels.first[node->id] >= 0) term_of[node->id] = (int)count++;
  bnd_status status = (e->activations = bnd_calloc(count, sizeof *e->activations)) ? BND_OK : bnd_fail_memory(error, "equalization");
  e->activation_count = e->activations ? count : 0;
  if (status == BND_OK) bnd_share_ranges(e->graph, term_of);
  for (const bnd_node *node = bnd_graph_first(e->graph); node && status == BND_OK; node = node->next)
    if (term_of[node->id] >= 0) status = add_activation(e, &e->activations[term_of[node->id]], node, error);
  free(term_of);
  return status;
}

static bnd_status add_weight(equalizer *e, const bnd_node *layer, double variance, bnd_error *error) {
  const bnd_node *input = bnd_arg_node(layer, 0);
  weight_term *t = &e->weights[e->weight_count++];
  *t = (weight_term){.layer = layer, .view = bnd_weight_view_of(layer), .inputs = (size_t)input->shape[0].size[1], .outputs = (size_t)layer->shape[0].size[1]};
  const size_t cells = t->view.rows * t->view.columns;
  t->input_class = bnd_calloc(t->inputs, sizeof *t->input_class);
  t->output_class = bnd_calloc(t->outputs, sizeof *t->output_class);
  t->square = bnd_calloc(t->inputs, sizeof *t->square);
  t->largest = bnd_calloc(cells, sizeof *t->largest);
  t->column_classes = t->view.transposed ? t->outputs : t->inputs;
  t->input_scale = bnd_calloc(t->inputs + t->outputs + t->view.rows + t->column_classes, sizeof *t->input_scale);
  if (!t->input_class || !t->output_class || !t->square || !t->largest || !t->input_scale) return bnd_fail_memory(error, "equalization");
  t->output_inverse = t->input_scale + t->inputs;
  t->row_sums = t->output_inverse + t->outputs;
  t->sums = t->row_sums + t->view.rows;
  for (size_t i = 0; i < t->inputs; i++) {
    t->input_class[i] = bnd_free_class(&e->channels, input, (int64_t)i);
    t->square[i] = e->statistics.first[input->id] >= 0 ? e->statistics.square[e->statistics.first[input->id] + (int)i] : 1;
  }
  for (size_t o = 0; o < t->outputs; o++) t->output_class[o] = bnd_free_class(&e->channels, layer, (int64_t)o);
  const double clipped = clipping(layer->module->weight_quantizer);
  t->factor = e->weight_share * (double)t->view.window / variance * clipped * clipped / (double)layer->module->groups;
  const float *w = bnd_f32(&layer->module->weight);
  for (size_t at = 0; at < cells; at++)
    for (size_t k = 0; k < t->view.window; k++) {
      const float magnitude = fabsf(w[at * t->view.window + k]);
      t->largest[at] = magnitude > t->largest[at] ? magnitude : t->largest[at];
    }
  return BND_OK;
}

static bnd_status add_weights(equalizer *e, bnd_error *error) {
  if (!(e->weights = bnd_calloc((size_t)bnd_graph_node_count(e->graph), sizeof *e->weights))) return bnd_fail_memory(error, "equalization");
  for (const bnd_node *node = bnd_graph_first(e->graph); node; node = node->next) {
    if (!bnd_is_scalable_layer(node) || !node->module->weight_quantizer) continue;
    const double variance = bnd_output_variance(node, &e->statistics);
    if (variance > 0) BND_TRY(add_weight(e, node, variance, error));
  }
  return BND_OK;
}

/* --- value and gradient --- */

static double scale_of(const equalizer *e, int class) { return class < 0 ? 1 : e->exp_u[class]; }
static void add_gradient(equalizer *e, int class, double value) {
  if (class >= 0) e->gradient[class] += value;
}
static double eighth(double x) {
  const double square = x * x, fourth = square * square;
  return fourth * fourth;
}

/* For p = 8 the square of the smooth maximum is the fourth root of the sum. Values are divided by the largest first, so that nothing overflows. */
static double activation_value(equalizer *e, const activation_term *t) {
  double most = 0, sum = 0, seen = 0;
  for (size_t j = 0; j < t->count; j++) {
    const activation_entry *a = &t->entries[j];
    const double x = (double)a->amplitude / scale_of(e, a->class);
    most = x > most ? x : most;
    seen += a->sensitivity * scale_of(e, a->class) * scale_of(e, a->class);
  }
  if (most == 0 || seen == 0) return 0;
  for (size_t j = 0; j < t->count; j++) sum += eighth((double)t->entries[j].amplitude / scale_of(e, t->entries[j].class) / most);
  const double range = most * most * sqrt(sqrt(sum)), value = range * seen;
  for (size_t j = 0; j < t->count; j++) {
    const activation_entry *a = &t->entries[j];
    const double s = scale_of(e, a->class);
    add_gradient(e, a->class, 2 * range * a->sensitivity * s * s - 2 * value * eighth((double)a->amplitude / s / most) / sum);
  }
  return value;
}

/* A row of a weight is multiplied by one factor, that of its class, and its columns by one each. */
typedef struct weight_row {
  double factor;
  const double *factors;
  int class;
  double *sums; /* beside `factors` */
} weight_row;

static weight_row row_of(const weight_term *t, size_t r) {
  const bnd_weight_view *v = &t->view;
  const size_t base = r / v->rows_in_group * v->columns;
  return v->transposed ? (weight_row){t->input_scale[r], t->output_inverse + base, t->input_class[r], t->sums + base}
                       : (weight_row){t->output_inverse[r], t->input_scale + base, t->output_class[r], t->sums + base};
}

static double most_of(const weight_term *t) {
  double most = 0;
  for (size_t r = 0; r < t->view.rows; r++) {
    const weight_row row = row_of(t, r);
    const float *largest = t->largest + r * t->view.columns;
    double here = 0;
    for (size_t c = 0; c < t->view.columns; c++) {
      const double x = (double)largest[c] * row.factors[c];
      here = x > here ? x : here;
    }
    most = here * row.factor > most ? here * row.factor : most;
  }
  return most;
}

/* Sum over all weights of (size / most)^8; t->row_sums: of each row, t->sums: of each column's channel. */
static double sum_of_eighths(weight_term *t, double most) {
  double sum = 0;
  for (size_t i = 0; i < t->column_classes; i++) t->sums[i] = 0;
  for (size_t r = 0; r < t->view.rows; r++) {
    const weight_row row = row_of(t, r);
    const float *largest = t->largest + r * t->view.columns;
    const double factor = row.factor / most;
    double here = 0;
    for (size_t c = 0; c < t->view.columns; c++) {
      const double x = eighth((double)largest[c] * row.factors[c] * factor);
      here += x;
      row.sums[c] += x;
    }
    t->row_sums[r] = here;
    sum += here;
  }
  return sum;
}

/* The gradients stand in the term until add_weight_gradients, so that terms can be computed at once. */
static void weight_value(const equalizer *e, weight_term *t) {
  double inputs = 0, outputs = 0;
  t->value = 0;
  for (size_t i = 0; i < t->inputs; i++) {
    t->input_scale[i] = scale_of(e, t->input_class[i]);
    inputs += t->square[i] / (t->input_scale[i] * t->input_scale[i]);
  }
  for (size_t o = 0; o < t->outputs; o++) {
    const double scale = scale_of(e, t->output_class[o]);
    t->output_inverse[o] = 1 / scale;
    outputs += scale * scale;
  }
  const double most = most_of(t);
  if (most == 0 || inputs == 0) return;
  t->sum = sum_of_eighths(t, most);
  t->value = t->factor * most * most * sqrt(sqrt(t->sum)) * outputs * inputs;
  t->input_sum = inputs;
  t->output_sum = outputs;
}

static void add_weight_gradients(equalizer *e, const weight_term *t) {
  if (t->value == 0) return;
  const double share = 2 * t->value / t->sum, sign = t->view.transposed ? 1 : -1; /* of rows; factors grow with inputs' scales and fall with outputs' */
  for (size_t o = 0; o < t->outputs; o++) add_gradient(e, t->output_class[o], 2 * t->value / (t->output_inverse[o] * t->output_inverse[o]) / t->output_sum);
  for (size_t i = 0; i < t->inputs; i++)
    add_gradient(e, t->input_class[i], -2 * t->value * t->square[i] / (t->input_scale[i] * t->input_scale[i]) / t->input_sum);
  for (size_t r = 0; r < t->view.rows; r++) add_gradient(e, row_of(t, r).class, sign * share * t->row_sums[r]);
  const int *classes = t->view.transposed ? t->output_class : t->input_class;
  for (size_t i = 0; i < t->column_classes; i++) add_gradient(e, classes[i], -sign * share * t->sums[i]);
}

static double model_value(equalizer *e) {
  double value = 0;
  for (int c = 0; c < e->channels.classes; c++) {
    e->exp_u[c] = bnd_exp_double(e->u[c]);
    e->gradient[c] = 0;
  }
  for (size_t i = 0; i < e->activation_count; i++) value += activation_value(e, &e->activations[i]);
#pragma omp parallel for schedule(dynamic, 1) num_threads(e->threads) if (e->threads > 1)
  for (size_t i = 0; i < e->weight_count; i++) weight_value(e, &e->weights[i]);
  for (size_t i = 0; i < e->weight_count; i++) {
    value += e->weights[i].value;
    add_weight_gradients(e, &e->weights[i]);
  }
  return value;
}

static bnd_status descend(equalizer *e, int iterations, double largest, const bnd_context *context, double *before, double *after, bnd_error *error) {
  const double limit = bnd_log_double(largest);
  double power1 = 1, power2 = 1;
  *before = *after = model_value(e);
  for (int t = 0; t < iterations; t++) {
    if (bnd_is_cancelled(context)) return bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted during equalization");
    bnd_report_progress(context, "equalization", "steps", (uint64_t)t, (uint64_t)iterations);
    power1 *= 0.9;
    power2 *= 0.99;
    const double rate = 0.05 * (1 - (double)t / (double)iterations);
    for (int c = 0; c < e->channels.classes; c++) {
      if (!e->channels.free[c] || e->gradient[c] == 0) continue;
      e->moment[c] = 0.9 * e->moment[c] + 0.1 * e->gradient[c];
      e->square_moment[c] = 0.99 * e->square_moment[c] + 0.01 * e->gradient[c] * e->gradient[c];
      const double u = e->u[c] - rate * (e->moment[c] / (1 - power1)) / (sqrt(e->square_moment[c] / (1 - power2)) + 1e-30);
      e->u[c] = u > limit ? limit : u < -limit ? -limit : u;
    }
    *after = model_value(e);
  }
  return BND_OK;
}

/* --- applying --- */

static bnd_status apply(equalizer *e, bool powers_of_two, int *layers, double range[2], bnd_error *error) {
  *layers = 0;
  range[0] = range[1] = 1;
  for (int c = 0; c < e->channels.classes; c++) {
    if (powers_of_two) e->exp_u[c] = ldexp(1.0, (int)floor(e->u[c] / 0x1.62e42fefa39efp-1 + 0.5));
    if (!e->channels.free[c]) continue;
    range[0] = e->exp_u[c] < range[0] ? e->exp_u[c] : range[0];
    range[1] = e->exp_u[c] > range[1] ? e->exp_u[c] : range[1];
  }
  return bnd_scale_channels(e->graph, &e->channels, e->exp_u, layers, error);
}

static void release(equalizer *e) {
  for (size_t i = 0; i < e->activation_count; i++) free(e->activations[i].entries);
  for (size_t i = 0; i < e->weight_count; i++) {
    free(e->weights[i].input_class);
    free(e->weights[i].output_class);
    free(e->weights[i].square);
    free(e->weights[i].largest);
    free(e->weights[i].input_scale);
  }
  free(e->activations);
  free(e->weights);
  free(e->sensitivity);
  free(e->u);
  bnd_channels_free(&e->channels);
  bnd_channel_statistics_free(&e->statistics);
}

static bnd_status prepare(equalizer *e, const bnd_refinement *work, size_t images, bnd_error *error) {
  BND_TRY(bnd_channels_find(e->graph, &e->channels, error));
  BND_TRY(bnd_channel_statistics_gather(e->graph, work->images, images, work->backend, work->context, &e->statistics, error));
  const size_t classes = (size_t)e->channels.classes;
  e->sensitivity = bnd_calloc((size_t)e->channels.slots, sizeof *e->sensitivity);
  e->u = bnd_calloc(classes * 5, sizeof *e->u);
  if (!e->sensitivity || !e->u) return bnd_fail_memory(error, "equalization");
  e->gradient = e->u + classes;
  e->moment = e->u + 2 * classes;
  e->square_moment = e->u + 3 * classes;
  e->exp_u = e->u + 4 * classes;
  bnd_noise_sensitivities(e->graph, &e->channels, &e->statistics, e->sensitivity);
  BND_TRY(add_activations(e, error));
  return add_weights(e, error);
}

/* What the statistics of the scaled network are: quantizers see channels divided by their factors. */
static void scale_statistics(equalizer *e) {
  bnd_channel_statistics *s = &e->statistics;
  for (const bnd_node *node = bnd_graph_first(e->graph); node; node = node->next) {
    if (s->first[node->id] < 0 || e->channels.first[node->id] < 0) continue;
    for (int64_t c = 0; c < node->shape[0].size[1]; c++) {
      const int at = s->first[node->id] + (int)c;
      const double factor = scale_of(e, bnd_free_class(&e->channels, node, c));
      s->mean[at] /= factor;
      s->square[at] /= factor * factor;
      s->minimum[at] = (float)((double)s->minimum[at] / factor);
      s->maximum[at] = (float)((double)s->maximum[at] / factor);
    }
  }
}

static bnd_status equalize(equalizer *e, bnd_refinement *work, const bnd_equalize_options *options, bnd_string *report, bnd_error *error) {
  const double largest = options->largest > 1 ? options->largest : 16;
  double before = 0, after = 0, range[2] = {1, 1};
  int layers = 0, scaled = 0;
  BND_TRY(prepare(e, work, options->images ? options->images : DEFAULT_IMAGES, error));
  BND_TRY(descend(e, options->iterations ? options->iterations : DEFAULT_ITERATIONS, largest, work->context, &before, &after, error));
  BND_TRY(apply(e, options->powers_of_two, &layers, range, error));
  for (int c = 0; c < e->channels.classes; c++) scaled += e->channels.free[c];
  bnd_string_format(report, "equalization: %d channels in %d layers, factors %.3g to %.3g; predicted noise %.4g -> %.4g\n", scaled, layers, range[0], range[1], before,
                    after);
  return BND_OK;
}

static equalizer equalizer_of(const bnd_refinement *work, const bnd_equalize_options *options) {
  return (equalizer){.graph = work->graph, .threads = bnd_thread_count(work->context), .weight_share = options->weights > 0 ? options->weights : 1};
}

bnd_status bnd_equalize_channels(bnd_refinement *work, const bnd_equalize_options *options, bnd_string *report, bnd_error *error) {
  equalizer e = equalizer_of(work, options);
  const bnd_status status = equalize(&e, work, options, report, error);
  release(&e);
  return status;
}

bnd_status bnd_refine_equalize_with(bnd_refinement *work, const bnd_equalize_options *options, bnd_string *report, bnd_error *error) {
  BND_TRY(bnd_equalize_channels(work, options, report, error));
  return bnd_calibrate_again(work, error);
}

bnd_status bnd_refine_equalize(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  const bnd_equalize_options options = {0};
  equalizer e = equalizer_of(work, &options);
  bnd_status status = equalize(&e, work, &options, report, error);
  if (status == BND_OK) {
    scale_statistics(&e);
    status = bnd_fit_ranges(work, &e.statistics, report, error);
  }
  release(&e);
  return status == BND_OK ? bnd_calibrate_again(work, error) : status;
}
