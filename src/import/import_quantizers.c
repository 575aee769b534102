/* QuantizeLinear and DequantizeLinear -> fake quantizers. */
#include <math.h>
#include <string.h>

#include "import/importer.h"
#include "quant/internal.h"

/* log2(1/scale). A scale that is no power of two gives the nearest one and *exact = false; one that is no scale at all gives false. */
static bool position_of(float scale, int *position, bool *exact) {
  if (!isfinite(scale) || scale < 0x1p-126f) return false;
  int exponent;
  *exact = frexpf(scale, &exponent) == 0.5f;
  *position = *exact ? 1 - exponent : (int)rintf(-log2f(scale));
  return true;
}

static bnd_status zero_points_of(const bnd_tensor *tensor, int *zero_points, bnd_error *error) {
  for (size_t i = 0; i < tensor->count; i++) {
    if (tensor->dtype == BND_I8)
      zero_points[i] = ((const int8_t *)tensor->data)[i];
    else if (tensor->dtype == BND_U8)
      zero_points[i] = ((const uint8_t *)tensor->data)[i];
    else
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "quantizes to %s; only int8 and uint8 are known here", bnd_dtype_name(tensor->dtype));
  }
  return BND_OK;
}

static bnd_status parameter(const bnd_importer *importer, const Onnx__NodeProto *proto, size_t index, const bnd_tensor **tensor, bnd_error *error) {
  bnd_import_value *value;
  *tensor = NULL;
  BND_TRY(bnd_import_input(importer, proto, index, index == 2, &value, error));
  if (!value) return BND_OK;
  if (value->kind != BND_IMPORT_CONSTANT || value->quantizer)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its %s is computed by the model; only constants are possible",
                    index == 1 ? "scale" : "zero point");
  *tensor = &value->tensor;
  return BND_OK;
}

/* A pair usually shares its scale and zero point: then they were judged at its QuantizeLinear. */
static bool judged_before(const bnd_importer *importer, const Onnx__NodeProto *proto) {
  bnd_import_value *codes;
  if (strcmp(bnd_import_text(proto->op_type), "DequantizeLinear") != 0) return false;
  if (bnd_import_input(importer, proto, 0, false, &codes, NULL) != BND_OK || codes->kind != BND_IMPORT_CODES) return false;
  if (codes->maker->n_input != proto->n_input) return false;
  for (size_t i = 1; i < proto->n_input; i++)
    if (strcmp(codes->maker->input[i], proto->input[i]) != 0) return false;
  return true;
}

/* Symmetric: zero is in the middle. Quark marks tensors of nothing but zeros with the lowest code, which changes no value. */
static bool is_symmetric(const bnd_importer *importer, const Onnx__NodeProto *proto, const bnd_quantizer *quantizer, int zero_point) {
  if (zero_point == (quantizer->spec.dtype == BND_U8 ? 128 : 0)) return true;
  bnd_import_value *source;
  if (bnd_import_input(importer, proto, 0, false, &source, NULL) != BND_OK) return false;
  if (source->kind != BND_IMPORT_CONSTANT || source->tensor.dtype != BND_F32 || quantizer->channels != 1) return false;
  for (size_t i = 0; i < source->tensor.count; i++)
    if (bnd_f32(&source->tensor)[i] != 0.f) return false;
  return true;
}

/* One line for parameters that are not those of a symmetric power of two, or the refusal of a scale that is none. */
static bnd_status judge(bnd_importer *importer, const Onnx__NodeProto *proto, const bnd_quantizer *quantizer, const float *odd_scale, bnd_error *error) {
  if (odd_scale && !importer->options->findings)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "scale %.9g is not a power of two; quantize the model for a power-of-two target", *odd_scale);
  if (!importer->options->findings || judged_before(importer, proto)) return BND_OK;
  const char *name = *bnd_import_text(proto->name) ? proto->name : proto->output[0];
  if (odd_scale) bnd_string_format(importer->options->findings, "%s: scale %.9g is not a power of two\n", name, *odd_scale);
  for (int c = 0; c < quantizer->channels; c++) {
    if (is_symmetric(importer, proto, quantizer, quantizer->zero_point[c])) continue;
    bnd_string_format(importer->options->findings, "%s: zero point %d is not in the middle of the codes\n", name, quantizer->zero_point[c]);
    break;
  }
  return BND_OK;
}

/* The quantizer with a node's scale and zero point. */
static bnd_status read_parameters(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_quantizer **quantizer, bnd_error *error) {
  const bnd_tensor *scale, *zero;
  BND_TRY(parameter(importer, proto, 1, &scale, error));
  BND_TRY(parameter(importer, proto, 2, &zero, error));
  if (scale->dtype != BND_F32 || scale->shape.rank > 1 || scale->count < 1 || scale->count > INT32_MAX)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its scale must be one float32 number or one for each channel");
  if (zero && zero->count != scale->count) return bnd_fail(error, BND_ERROR_FORMAT, "has %zu scales but %zu zero points", scale->count, zero->count);
  if (bnd_import_int(proto, "block_size", 0)) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "scales for blocks are not supported");
  const bool is_signed = bnd_import_int(proto, "output_dtype", 0) == ONNX__TENSOR_PROTO__DATA_TYPE__INT8;
  const bnd_quantizer_spec spec = {.dtype = zero        ? zero->dtype
                                            : is_signed ? BND_I8
                                                        : BND_U8, /* uint8 is ONNX's default */
                                   .per_channel = scale->count > 1,
                                   .channel_axis = (int)bnd_import_int(proto, "axis", 1)};
  if (spec.per_channel && (spec.channel_axis < -BND_MAX_RANK || spec.channel_axis >= BND_MAX_RANK))
    return bnd_fail(error, BND_ERROR_FORMAT, "axis %d does not exist", spec.channel_axis);
  bnd_quantizer *made = bnd_quantizer_create(&spec);
  if (!made || !bnd_quantizer_resize(made, (int)scale->count)) {
    bnd_quantizer_destroy(made);
    return bnd_fail_memory(error, "a quantizer");
  }
  bnd_status status = zero ? zero_points_of(zero, made->zero_point, error) : BND_OK;
  const float *odd = NULL;
  for (int c = 0; status == BND_OK && c < made->channels; c++) {
    bool exact;
    if (!position_of(bnd_f32(scale)[c], &made->position[c], &exact)) status = bnd_fail(error, BND_ERROR_FORMAT, "%g is no scale", bnd_f32(scale)[c]);
    else if (!exact && !odd) odd = &bnd_f32(scale)[c];
  }
  if (status == BND_OK) status = judge(importer, proto, made, odd, error);
  made->tensor_position = made->position[0];
  if (status == BND_OK)
    *quantizer = made;
  else
    bnd_quantizer_destroy(made);
  return status;
}

static bool same_parameters(const bnd_quantizer *a, const bnd_quantizer *b) {
  if (a->channels != b->channels || a->spec.dtype != b->spec.dtype) return false;
  if (a->spec.per_channel && a->spec.channel_axis != b->spec.channel_axis) return false;
  return memcmp(a->position, b->position, (size_t)a->channels * sizeof *a->position) == 0 &&
         memcmp(a->zero_point, b->zero_point, (size_t)a->channels * sizeof *a->zero_point) == 0;
}

/* Channels must be as many as the tensor has along the axis; a negative axis is made positive. */
static bnd_status fit_channels(bnd_quantizer *quantizer, const bnd_shape *shape, bnd_error *error) {
  if (!quantizer->spec.per_channel) return BND_OK;
  if (quantizer->spec.channel_axis < 0) quantizer->spec.channel_axis += shape->rank;
  const int axis = quantizer->spec.channel_axis;
  if (axis >= 0 && axis < shape->rank && shape->size[axis] == quantizer->channels) return BND_OK;
  char text[BND_SHAPE_TEXT];
  return bnd_fail(error, BND_ERROR_FORMAT, "has %d scales, which do not fit a tensor of shape %s", quantizer->channels, bnd_shape_text(shape, text));
}

bnd_status bnd_import_quantize(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *source, *codes;
  BND_TRY(bnd_import_input(importer, proto, 0, false, &source, error));
  if (source->kind == BND_IMPORT_CODES || (source->kind == BND_IMPORT_CONSTANT && source->tensor.dtype != BND_F32))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "quantizes %s, which is not float32", source->name);
  bnd_quantizer *quantizer;
  BND_TRY(read_parameters(importer, proto, &quantizer, error));
  bnd_status status = fit_channels(quantizer, source->kind == BND_IMPORT_NODE ? &source->node->shape[0] : &source->tensor.shape, error);
  if (status == BND_OK) status = bnd_import_add(importer, proto->output[0], BND_IMPORT_CODES, &codes, error);
  if (status != BND_OK) {
    bnd_quantizer_destroy(quantizer);
    return status;
  }
  codes->quantizer = quantizer;
  codes->source = source;
  codes->maker = proto;
  return BND_OK;
}

/* Integers in the file with their scale: int8 weights become the floats they stand for, behind their quantizer; int32 biases plain floats. */
static bnd_status dequantize_stored(bnd_importer *importer, const Onnx__NodeProto *proto, const bnd_import_value *codes, bnd_error *error) {
  const bnd_tensor *scale, *zero, *from = &codes->tensor;
  BND_TRY(parameter(importer, proto, 1, &scale, error));
  BND_TRY(parameter(importer, proto, 2, &zero, error));
  const bool wide = from->dtype == BND_I32;
  if (!wide && from->dtype != BND_I8 && from->dtype != BND_U8)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "dequantizes %s; only int8, uint8 and int32 are known here", bnd_dtype_name(from->dtype));
  if (zero && zero->dtype != from->dtype) return bnd_fail(error, BND_ERROR_FORMAT, "its zero point is of another type than its data");
  if (scale->dtype != BND_F32 || (scale->count != 1 && scale->shape.rank != 1) || (zero && zero->count != scale->count))
    return bnd_fail(error, BND_ERROR_FORMAT, "its scale and zero point do not fit together");
  int64_t axis = bnd_import_int(proto, "axis", 1);
  if (axis < 0) axis += from->shape.rank;
  if (scale->count > 1 && (axis < 0 || axis >= from->shape.rank || (size_t)from->shape.size[axis] != scale->count))
    return bnd_fail(error, BND_ERROR_FORMAT, "has %zu scales, which do not fit its data", scale->count);
  size_t inner = 1;
  for (int64_t i = axis + 1; scale->count > 1 && i < from->shape.rank; i++) inner *= (size_t)from->shape.size[i];

  bnd_import_value *value;
  BND_TRY(bnd_import_add(importer, proto->output[0], BND_IMPORT_CONSTANT, &value, error));
  if (!wide) {
    BND_TRY(read_parameters(importer, proto, &value->quantizer, error));
    BND_TRY(fit_channels(value->quantizer, &from->shape, error));
    if (!zero) value->quantizer->spec.dtype = from->dtype;
  }
  value->maker = proto;
  BND_TRY(bnd_tensor_create(BND_F32, &from->shape, &value->tensor, error));
  for (size_t i = 0; i < from->count; i++) {
    const size_t channel = scale->count > 1 ? i / inner % scale->count : 0;
    const int64_t code = wide                    ? ((const int32_t *)from->data)[i]
                         : from->dtype == BND_I8 ? ((const int8_t *)from->data)[i]
                                                 : ((const uint8_t *)from->data)[i];
    const int64_t offset = !zero ? 0 : wide ? ((const int32_t *)zero->data)[channel] : value->quantizer->zero_point[channel];
    bnd_f32(&value->tensor)[i] = (float)(code - offset) * bnd_f32(scale)[channel];
  }
  return BND_OK;
}

bnd_status bnd_import_dequantize(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *codes, *value;
  BND_TRY(bnd_import_input(importer, proto, 0, false, &codes, error));
  if (codes->kind == BND_IMPORT_CONSTANT && !codes->quantizer) return dequantize_stored(importer, proto, codes, error);
  if (codes->kind != BND_IMPORT_CODES) return bnd_fail(error, BND_ERROR_FORMAT, "dequantizes %s, which was not quantized", codes->name);
  bnd_quantizer *quantizer = NULL;
  BND_TRY(read_parameters(importer, proto, &quantizer, error));
  if (quantizer->spec.per_channel) quantizer->spec.channel_axis = codes->quantizer->spec.channel_axis;
  if (proto->n_input < 3) quantizer->spec.dtype = codes->quantizer->spec.dtype; /* without a zero point the codes say what they are */
  const bool same = same_parameters(quantizer, codes->quantizer);
  if (!same || codes->source->kind == BND_IMPORT_NODE || codes->source->quantizer) {
    bnd_module *module = same ? bnd_graph_add_module(importer->graph, bnd_import_name(importer, proto)) : NULL;
    if (module) {
      module->quantizer = quantizer;
      module->integers = bnd_import_kept(importer, codes->name);
    } else {
      bnd_quantizer_destroy(quantizer);
    }
    if (!same)
      return bnd_fail(error, BND_ERROR_UNSUPPORTED,
                      "scale or zero point differ from those of the QuantizeLinear before it; that is no fake quantizer");
    if (!module) return bnd_fail_memory(error, "a quantizer");
    bnd_node *input, *node = NULL;
    BND_TRY(bnd_import_node_of(importer, codes->source, &input, error));
    BND_TRY(bnd_import_call(importer, proto, BND_OP_FAKE_QUANTIZE, module, (const bnd_arg[]){bnd_arg_of_node(input)}, 1, &node, error));
    return bnd_import_add_node(importer, proto->output[0], node, error);
  }
  const bnd_status status = bnd_import_add(importer, proto->output[0], BND_IMPORT_CONSTANT, &value, error);
  if (status != BND_OK) {
    bnd_quantizer_destroy(quantizer);
    return status;
  }
  value->quantizer = quantizer;
  value->source = codes->source;
  value->maker = proto;
  value->tensor = bnd_tensor_share(&codes->source->tensor, NULL);
  return BND_OK;
}
