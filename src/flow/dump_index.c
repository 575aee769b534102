/* What a dump says about itself: dump.json, and a few lines for people. */
#include <math.h>

#include "flow/dump.h"
#include "formats/json/json.h"
#include "kernels/kernel.h"

/* --- positions --- */

/* One number, or one for each channel where they differ. */
static void put_positions(bnd_json_writer *w, const char *key, const int *position, int count, int added) {
  bool same = true;
  for (int i = 1; i < count; i++) same &= position[i] == position[0];
  bnd_json_key(w, key);
  if (same) {
    bnd_json_integer(w, position[0] + added);
    return;
  }
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int i = 0; i < count; i++) bnd_json_integer(w, position[i] + added);
  bnd_json_end_array(w);
}

static void put_quantizer(bnd_json_writer *w, const bnd_quantizer *q) {
  put_positions(w, "position", q->position, q->channels, 0);
  if (q->channels > 1) {
    bnd_json_put_integer(w, "axis", q->spec.channel_axis);
  } else {
    bnd_json_put_double(w, "scale", ldexp(1, -q->position[0]));
  }
  put_positions(w, "zero_point", q->zero_point, q->channels, 0);
}

static void put_shape(bnd_json_writer *w, const char *key, const int64_t *sizes, int count) {
  bnd_json_key(w, key);
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int i = 0; i < count; i++) bnd_json_integer(w, sizes[i]);
  bnd_json_end_array(w);
}

/* --- dump.json --- */

static void write_tensor(bnd_json_writer *w, const bnd_dump_tensor *t) {
  static const char *const kinds[] = {"input", "activation", "constant", "weight", "bias", "output"};
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_string(w, "file", t->file);
  bnd_json_put_integer(w, "order", t->order);
  bnd_json_put_string(w, "kind", kinds[t->kind]);
  bnd_json_put_string(w, "node", t->node);
  bnd_json_put_string(w, "tensor", t->tensor);
  if (t->value) bnd_json_put_string(w, "value", t->value);
  bnd_json_put_string(w, "dtype", bnd_dtype_name(t->data.dtype));
  put_shape(w, "shape", t->data.shape.size, t->data.shape.rank);
  if (t->quantizer) {
    put_quantizer(w, t->quantizer);
    bnd_json_put_integer(w, "minimum", t->minimum);
    bnd_json_put_integer(w, "maximum", t->maximum);
  }
  bnd_json_end_object(w);
}

static void put_file(bnd_json_writer *w, const char *key, const bnd_dump_tensor *t) {
  bnd_json_put_string(w, key, t ? t->file : NULL);
}

/* Largest magnitude that a sum can reach, as bits of two's complement. */
static int bits_of_bound(double bound) {
  const int64_t largest = (int64_t)bound;
  return bnd_dump_bits(-largest, largest);
}

static void write_arithmetic(bnd_json_writer *w, const bnd_dump_layer *l) {
  const bnd_quantizer *input = l->input->quantizer, *weight = l->weight->quantizer, *output = l->output ? l->output->quantizer : NULL;
  bnd_json_put_boolean(w, "relu", l->relu);
  bnd_json_put_integer(w, "input_position", input->position[0]);
  put_positions(w, "weight_position", weight->position, weight->channels, 0);
  if (l->bias) bnd_json_put_integer(w, "bias_position", l->bias->quantizer->position[0]);
  if (output && output->channels == 1) {
    bnd_json_put_integer(w, "output_position", output->position[0]);
    put_positions(w, "shift", weight->position, weight->channels, input->position[0] - output->position[0]);
  }
  if (l->bias) put_positions(w, "bias_shift", weight->position, weight->channels, input->position[0] - l->bias->quantizer->position[0]);
  bnd_json_put_string(w, "accumulators", l->file);
  put_positions(w, "accumulator_position", l->position, l->channels, 0);
  bnd_json_put_integer(w, "accumulator_minimum", l->minimum);
  bnd_json_put_integer(w, "accumulator_maximum", l->maximum);
  bnd_json_put_integer(w, "accumulator_bits", bnd_dump_bits(l->minimum, l->maximum));
  bnd_json_put_integer(w, "accumulator_bits_limit", bits_of_bound(l->bound));
  bnd_json_put_boolean(w, "exact_in_float32", l->bound < 0x1p24);
}

static void write_layer(bnd_json_writer *w, const bnd_dump_layer *l) {
  bnd_kernel kernel;
  const bool known = bnd_kernel_of_node(l->node, &kernel, NULL) == BND_OK;
  bnd_json_begin_object(w, BND_JSON_LINES);
  bnd_json_put_integer(w, "order", l->order);
  bnd_json_put_string(w, "node", l->node->name);
  bnd_json_put_string(w, "tensor", l->node->tensor);
  if (known) bnd_json_put_string(w, "operator", bnd_operator_of(kernel.id)->name);
  put_file(w, "input", l->input);
  put_file(w, "weight", l->weight);
  put_file(w, "bias", l->bias);
  put_file(w, "output", l->output);
  if (known && kernel.id != BND_OP_LINEAR) {
    put_shape(w, "stride", kernel.stride, 2);
    put_shape(w, "padding", kernel.padding, 2);
    put_shape(w, "dilation", kernel.dilation, 2);
    bnd_json_put_integer(w, "groups", kernel.groups);
  }
  if (l->why_not) bnd_json_put_string(w, "no_integer_form", l->why_not);
  else write_arithmetic(w, l);
  bnd_json_end_object(w);
}

void bnd_dump_index(const bnd_dump_state *dump, bnd_string *json) {
  bnd_json_writer w = {.out = json};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_put_string(&w, "model", dump->model->path);
  bnd_json_put_string(&w, "image", dump->options->image);
  bnd_json_put_string(&w, "target", dump->target.name);
  bnd_json_put_string(&w, "rounding", dump->target.rounding);
  bnd_json_key(&w, "tensors");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (size_t i = 0; i < dump->tensor_count; i++) write_tensor(&w, dump->tensors[i]);
  bnd_json_end_array(&w);
  bnd_json_key(&w, "layers");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (size_t i = 0; i < dump->layer_count; i++) write_layer(&w, dump->layers[i]);
  bnd_json_end_array(&w);
  bnd_json_end_object(&w);
}

/* --- for people --- */

static int bits_of(int64_t value) {
  int bits = 1; /* the sign */
  for (uint64_t rest = value < 0 ? ~(uint64_t)value : (uint64_t)value; rest; rest >>= 1) bits++;
  return bits;
}

int bnd_dump_bits(int64_t minimum, int64_t maximum) {
  const int low = bits_of(minimum), high = bits_of(maximum);
  return low > high ? low : high;
}

void bnd_dump_summary(const bnd_dump_state *dump, bnd_string *text) {
  size_t computed = 0, compared = 0, inexact = 0;
  int bits = 0, limit = 0;
  const char *widest = "";
  for (size_t i = 0; i < dump->layer_count; i++) {
    const bnd_dump_layer *l = dump->layers[i];
    if (l->why_not) continue;
    computed++;
    compared += l->output && l->output->quantizer->channels == 1;
    inexact += l->bound >= 0x1p24;
    if (bits_of_bound(l->bound) > limit) limit = bits_of_bound(l->bound);
    if (bnd_dump_bits(l->minimum, l->maximum) <= bits) continue;
    bits = bnd_dump_bits(l->minimum, l->maximum);
    widest = l->node->name;
  }
  bnd_string_format(text, "%s/dump.json: %zu tensors, %zu layers%s\n", dump->options->output, dump->tensor_count, dump->layer_count,
                    dump->options->accumulators ? " with accumulators" : "");
  bnd_string_format(text, "rounding (%s): %s\n", dump->target.name, dump->target.rounding);
  bnd_string_format(text, "%zu of %zu layers computed in whole numbers, %zu of them up to their output: identical\n", computed, dump->layer_count, compared);
  for (size_t i = 0; i < dump->layer_count; i++)
    if (dump->layers[i]->why_not) bnd_string_format(text, "  %s has no integer form: %s\n", dump->layers[i]->node->name, dump->layers[i]->why_not);
  if (computed) bnd_string_format(text, "accumulators: %d bits used (%s), %d at most for any input\n", bits, widest, limit);
  if (inexact) bnd_string_format(text, "%zu layer%s may exceed what float32 adds exactly\n", inexact, inexact == 1 ? "" : "s");
}
