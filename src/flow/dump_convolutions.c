/* The convolutions of a dump once more, in whole numbers, from the dumped inputs, weights and biases alone (docs/numerics.md, section 3). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "flow/dump.h"
#include "kernels/reference/integer.h"

/* --- what belongs to a layer --- */

static const bnd_dump_tensor *codes_of(const bnd_dump_state *dump, const bnd_node *node) {
  return node ? dump->of_node[node->id] : NULL;
}

/* The quantizer that reads the layer directly or over a relu. */
static void find_output(const bnd_dump_state *dump, bnd_dump_layer *layer) {
  const bnd_node *node = layer->node;
  layer->relu = node->user_count == 1 && bnd_is_relu(node->users[0]);
  if (layer->relu) node = node->users[0];
  for (int i = 0; i < node->user_count && !layer->output; i++) layer->output = codes_of(dump, node->users[i]);
}

/* What a layer lacks to be computed in whole numbers; NULL = nothing. */
static const char *find_operands(const bnd_dump_state *dump, bnd_dump_layer *layer) {
  bnd_operand operands[3] = {0};
  bnd_kernel_operands(layer->node, operands, 3);
  layer->input = codes_of(dump, operands[0].node);
  if (!layer->weight) layer->weight = codes_of(dump, operands[1].node);
  if (!layer->bias) layer->bias = codes_of(dump, operands[2].node);
  find_output(dump, layer);
  const bool has_bias = operands[2].node || (layer->node->module && layer->node->module->bias.data);
  if (!layer->input) return "its input is not quantized";
  if (!layer->weight) return "its weight is not quantized";
  if (has_bias && !layer->bias) return "its bias is not quantized";
  if (layer->input->quantizer->channels != 1) return "its input has a scale for each channel";
  if (layer->bias && layer->bias->quantizer->channels != 1) return "its bias has a scale for each channel";
  return NULL;
}

/* --- whole numbers --- */

static int code_at(const bnd_dump_tensor *tensor, size_t index) {
  return tensor->data.dtype == BND_U8 ? ((const uint8_t *)tensor->data.data)[index] : ((const int8_t *)tensor->data.data)[index];
}

/* Codes less their zero points. */
static bnd_status integers_of(const bnd_dump_tensor *tensor, int16_t **data, bnd_integers *integers, bnd_error *error) {
  size_t outer, channels, inner;
  bnd_quantizer_layout(&tensor->quantizer->spec, &tensor->data.shape, &outer, &channels, &inner);
  *data = bnd_alloc_aligned(tensor->data.count, sizeof **data);
  if (!*data) return bnd_fail_memory(error, "codes");
  for (size_t i = 0; i < tensor->data.count; i++) (*data)[i] = (int16_t)(code_at(tensor, i) - tensor->quantizer->zero_point[i / inner % channels]);
  *integers = (bnd_integers){tensor->data.shape, *data};
  return BND_OK;
}

/* A layer at work: out is [outer, channels, inner]. */
typedef struct work {
  bnd_kernel kernel;
  bool transposed;
  bnd_shape shape;
  size_t outer, inner, count;
  bnd_integers input, weight;
  int16_t *input_data, *weight_data;
  int64_t *sums;
  int *product_shift, *bias_shift; /* [channels] to the position of the accumulator */
  int64_t *bias;                   /* [channels] codes less zero point */
} work;

static void free_work(work *w) {
  free(w->input_data);
  free(w->weight_data);
  free(w->sums);
  free(w->product_shift);
  free(w->bias_shift);
  free(w->bias);
}

static int weight_position(const bnd_dump_layer *layer, int channel) {
  const bnd_quantizer *q = layer->weight->quantizer;
  return q->position[q->channels == 1 ? 0 : channel];
}

/* Where products and bias meet: nothing is lost when both are shifted left to the larger position. */
static bnd_status align(bnd_dump_state *dump, bnd_dump_layer *layer, work *w, bnd_error *error) {
  const size_t channels = (size_t)layer->channels;
  layer->position = bnd_arena_alloc(dump->arena, channels, sizeof *layer->position);
  w->product_shift = bnd_calloc(channels, sizeof *w->product_shift);
  w->bias_shift = bnd_calloc(channels, sizeof *w->bias_shift);
  w->bias = bnd_calloc(channels, sizeof *w->bias);
  if (!layer->position || !w->product_shift || !w->bias_shift || !w->bias) return bnd_fail_memory(error, "a layer");
  const bnd_quantizer *bias = layer->bias ? layer->bias->quantizer : NULL;
  bool has_bias = false; /* zeros have no position */
  for (int c = 0; bias && c < layer->channels; c++) {
    w->bias[c] = code_at(layer->bias, (size_t)c) - bias->zero_point[0];
    has_bias |= w->bias[c] != 0;
  }
  for (int c = 0; c < layer->channels; c++) {
    const int products = weight_position(layer, c) + layer->input->quantizer->position[0];
    layer->position[c] = has_bias && bias->position[0] > products ? bias->position[0] : products;
    w->product_shift[c] = layer->position[c] - products;
    w->bias_shift[c] = w->bias[c] ? layer->position[c] - bias->position[0] : 0;
  }
  return BND_OK;
}

/* Output channel that a value of the weight belongs to. */
static int channel_of_weight(const work *w, const bnd_shape *weight, size_t index) {
  size_t inner = 1;
  for (int i = w->transposed ? 2 : 1; i < weight->rank; i++) inner *= (size_t)weight->size[i];
  if (!w->transposed) return (int)(index / inner);
  const size_t group_outputs = (size_t)weight->size[1], group_inputs = (size_t)(weight->size[0] / w->kernel.groups);
  return (int)(index / inner / group_outputs / group_inputs * group_outputs + index / inner % group_outputs);
}

static int largest_code(const bnd_quantizer *q) {
  const int low = q->zero_point[0] - bnd_quantizer_minimum(&q->spec), high = bnd_quantizer_maximum(&q->spec) - q->zero_point[0];
  return low > high ? low : high;
}

/* sum |w| * largest input + |b|, at the position of the accumulator; the largest over the channels. */
static bnd_status find_bound(bnd_dump_layer *layer, work *w, bnd_error *error) {
  double *magnitude = bnd_calloc((size_t)layer->channels, sizeof *magnitude);
  if (!magnitude) return bnd_fail_memory(error, "a layer");
  for (size_t i = 0; i < layer->weight->data.count; i++) magnitude[channel_of_weight(w, &w->weight.shape, i)] += abs(w->weight.data[i]);
  for (int c = 0; c < layer->channels; c++) {
    if (magnitude[c] == 0) w->product_shift[c] = 0; /* of nothing but zeros, however far */
    const double largest = ldexp(magnitude[c] * largest_code(layer->input->quantizer), w->product_shift[c]) + ldexp((double)llabs(w->bias[c]), w->bias_shift[c]);
    if (largest > layer->bound) layer->bound = largest;
  }
  free(magnitude);
  return layer->bound < 0x1p62 ? BND_OK : bnd_fail(error, BND_ERROR_MODEL, "%s: its accumulators may need more than 62 bits", layer->node->name);
}

static bnd_status prepare(bnd_dump_state *dump, bnd_dump_layer *layer, work *w, bnd_error *error) {
  BND_TRY(bnd_kernel_of_node(layer->node, &w->kernel, error));
  w->kernel.threads = bnd_thread_count(dump->context);
  w->transposed = w->kernel.id == BND_OP_CONV_TRANSPOSE2D;
  w->shape = layer->node->shape[0];
  const int axis = w->kernel.id == BND_OP_LINEAR ? w->shape.rank - 1 : 1;
  layer->channels = (int)w->shape.size[axis];
  w->outer = w->inner = 1;
  for (int i = 0; i < w->shape.rank; i++)
    if (i != axis) *(i < axis ? &w->outer : &w->inner) *= (size_t)w->shape.size[i];
  w->count = w->outer * (size_t)layer->channels * w->inner;
  const bnd_quantizer *q = layer->weight->quantizer;
  if (q->channels != 1 && (q->channels != layer->channels || q->spec.channel_axis != (w->transposed ? 1 : 0) || (w->transposed && w->kernel.groups != 1))) {
    layer->why_not = "its weight has a scale for each channel of the input";
    return BND_OK;
  }
  BND_TRY(integers_of(layer->input, &w->input_data, &w->input, error));
  BND_TRY(integers_of(layer->weight, &w->weight_data, &w->weight, error));
  BND_TRY(align(dump, layer, w, error));
  BND_TRY(find_bound(layer, w, error));
  w->sums = bnd_alloc_aligned(w->count, sizeof *w->sums);
  return w->sums ? BND_OK : bnd_fail_memory(error, "accumulators");
}

static void add_bias(bnd_dump_layer *layer, const work *w) {
  layer->minimum = INT64_MAX;
  layer->maximum = INT64_MIN;
  for (size_t i = 0; i < w->count; i++) {
    const size_t c = i / w->inner % (size_t)layer->channels;
    const int64_t sum = w->sums[i] * ((int64_t)1 << w->product_shift[c]) + w->bias[c] * ((int64_t)1 << w->bias_shift[c]);
    w->sums[i] = sum;
    if (sum < layer->minimum) layer->minimum = sum;
    if (sum > layer->maximum) layer->maximum = sum;
  }
}

static bnd_status compare(const bnd_dump_layer *layer, const work *w, bnd_error *error) {
  const bnd_dump_tensor *output = layer->output;
  if (!output || output->quantizer->channels != 1) return BND_OK;
  const bnd_quantizer *q = output->quantizer;
  const int zero = q->zero_point[0], low = bnd_quantizer_minimum(&q->spec) - zero, high = bnd_quantizer_maximum(&q->spec) - zero;
  for (size_t i = 0; i < w->count; i++) {
    const size_t c = i / w->inner % (size_t)layer->channels;
    const int64_t sum = layer->relu && w->sums[i] < 0 ? 0 : w->sums[i];
    const int expected = bnd_requantize(sum, layer->position[c] - q->position[0], low, high) + zero;
    if (expected != code_at(output, i))
      return bnd_fail(error, BND_ERROR_INTERNAL, "%s: value %zu of %s is %d, but its accumulator %lld gives %d; the executor is wrong, please report it",
                      layer->node->name, i, output->node, code_at(output, i), (long long)w->sums[i], expected);
  }
  return BND_OK;
}

static bnd_status write_accumulators(bnd_dump_state *dump, bnd_dump_layer *layer, const work *w, bnd_error *error) {
  if (layer->minimum < INT32_MIN || layer->maximum > INT32_MAX)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: its accumulators need %d bits, more than the 32 of the file; dump without accumulators", layer->node->name,
                    bnd_dump_bits(layer->minimum, layer->maximum));
  for (size_t i = 0; i < w->count; i++) { /* in place, from the front: each is written after it was read */
    const int32_t narrow = (int32_t)w->sums[i];
    memcpy((char *)w->sums + i * sizeof narrow, &narrow, sizeof narrow);
  }
  layer->file = bnd_dump_file_name(dump, layer->order, layer->node->name, ".accumulator");
  return layer->file ? bnd_dump_write(dump, layer->file, BND_I32, &w->shape, w->sums, error) : bnd_fail_memory(error, "a name");
}

static bnd_status compute_layer(bnd_dump_state *dump, bnd_dump_layer *layer, bnd_error *error) {
  work w = {0};
  bnd_status status = prepare(dump, layer, &w, error);
  if (status == BND_OK && !layer->why_not) {
    bnd_integer_convolution(&w.kernel, &w.input, &w.weight, &w.shape, w.sums);
    add_bias(layer, &w);
    status = compare(layer, &w, error);
    if (status == BND_OK && dump->options->accumulators) status = write_accumulators(dump, layer, &w, error);
  }
  free_work(&w);
  return status;
}

bnd_status bnd_dump_layers(bnd_dump_state *dump, bnd_error *error) {
  for (size_t i = 0; i < dump->layer_count; i++) {
    bnd_dump_layer *layer = dump->layers[i];
    if (bnd_is_cancelled(dump->context)) return BND_ERROR_INTERRUPTED;
    layer->why_not = find_operands(dump, layer);
    if (!layer->why_not) BND_TRY(compute_layer(dump, layer, error));
    bnd_report_progress(dump->context, "accumulators", "layers", i + 1, dump->layer_count);
  }
  return BND_OK;
}
