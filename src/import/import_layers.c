/* Layers with weights. Where weight or bias stand behind a quantizer of their own, the layer becomes a module that holds both. */
#include <stdlib.h>
#include <string.h>

#include "import/importer.h"

static bool is_constant(const bnd_import_value *value) {
  return value && value->kind == BND_IMPORT_CONSTANT && value->tensor.dtype == BND_F32;
}

/* A quantizer that only this layer reads belongs to it; a shared one stays a node (the DFL weight of the heads). */
static bool is_own(const bnd_importer *importer, const bnd_import_value *value) {
  return is_constant(value) && (!value->quantizer || bnd_import_readers(importer, value->name) == 1);
}

static bool becomes_module(const bnd_importer *importer, const bnd_import_value *weight, const bnd_import_value *bias) {
  if (!is_own(importer, weight) || (bias && !is_own(importer, bias))) return false;
  return weight->quantizer || (bias && bias->quantizer);
}

static bnd_status check_bias(const bnd_import_value *bias, int64_t channels, bnd_error *error) {
  if (!bias || bias->kind != BND_IMPORT_CONSTANT) return BND_OK;
  if (bias->tensor.count == (size_t)channels && bias->tensor.shape.rank == 1) return BND_OK;
  char text[BND_SHAPE_TEXT];
  return bnd_fail(error, BND_ERROR_FORMAT, "its bias has the shape %s, not %lld values", bnd_shape_text(&bias->tensor.shape, text),
                  (long long)channels);
}

/* The constant, its quantizer and the name of the integers between them. */
static bnd_status take_parameter(bnd_importer *importer, const bnd_import_value *value, bnd_tensor *tensor, bnd_quantizer **quantizer,
                                 const char **integers, bnd_error *error) {
  *tensor = bnd_tensor_share(&value->tensor, NULL);
  if (value->maker) *integers = bnd_import_kept(importer, value->maker->input[0]);
  if (value->quantizer && !(*quantizer = bnd_quantizer_copy(value->quantizer))) return bnd_fail_memory(error, "a quantizer");
  return bnd_graph_status(importer->graph, error);
}

static bnd_status take_parameters(bnd_importer *importer, bnd_module *module, const bnd_import_value *weight, const bnd_import_value *bias,
                                  bnd_error *error) {
  BND_TRY(take_parameter(importer, weight, &module->weight, &module->weight_quantizer, &module->weight_integers, error));
  return bias ? take_parameter(importer, bias, &module->bias, &module->bias_quantizer, &module->bias_integers, error) : BND_OK;
}

static bnd_module *new_module(bnd_importer *importer, const Onnx__NodeProto *proto) {
  const char *name = bnd_import_name(importer, proto);
  bnd_module *module = name ? bnd_graph_add_module(importer->graph, name) : NULL;
  if (module) {
    module->groups = 1;
    module->scale = 1;
  }
  return module;
}

/* --- convolutions --- */

typedef struct convolution {
  bool transposed;
  int64_t kernel[2], stride[2], padding[2], dilation[2], output_padding[2], groups;
} convolution;

static bnd_status read_pair(const Onnx__NodeProto *proto, const char *name, int64_t otherwise, int64_t pair[2], bnd_error *error) {
  pair[0] = pair[1] = otherwise;
  const int count = bnd_import_int_list(proto, name, pair, 2);
  if (count != 0 && count != 2) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "attribute %s must have two numbers: only images are supported", name);
  for (int i = 0; i < 2; i++)
    if (pair[i] < 0 || pair[i] > (1 << 20)) return bnd_fail(error, BND_ERROR_FORMAT, "attribute %s: %lld makes no sense", name, (long long)pair[i]);
  return BND_OK;
}

static bnd_status read_convolution(const Onnx__NodeProto *proto, const bnd_shape *input, const bnd_shape *weight, convolution *form,
                                   bnd_error *error) {
  if (weight->rank != 4 || input->rank != 4)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "is a convolution of %d dimensions; only images (4) are supported", weight->rank);
  int64_t given[2];
  for (int i = 0; i < 2; i++) form->kernel[i] = weight->size[2 + i];
  BND_TRY(read_pair(proto, "strides", 1, form->stride, error));
  BND_TRY(read_pair(proto, "dilations", 1, form->dilation, error));
  BND_TRY(read_pair(proto, "output_padding", 0, form->output_padding, error));
  if (bnd_import_int_list(proto, "kernel_shape", given, 2) != 0 && memcmp(given, form->kernel, sizeof given) != 0)
    return bnd_fail(error, BND_ERROR_FORMAT, "its kernel_shape does not fit its weight");
  if (bnd_import_attribute(proto, "output_shape") || (form->transposed && !bnd_import_text_is(proto, "auto_pad", "NOTSET", true)))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "output_shape and auto_pad are not supported here, only pads");
  form->groups = bnd_import_int(proto, "group", 1);
  if (form->groups < 1 || form->groups > (1 << 20)) return bnd_fail(error, BND_ERROR_FORMAT, "%lld groups make no sense", (long long)form->groups);
  return bnd_import_padding(proto, input, form->kernel, form->stride, form->dilation, form->padding, error);
}

static bnd_status conv_function(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_node *x, bnd_import_value *weight, bnd_import_value *bias,
                                const convolution *form, bnd_error *error) {
  bnd_graph *graph = importer->graph;
  bnd_node *w, *b = NULL;
  BND_TRY(bnd_import_node_of(importer, weight, &w, error));
  if (bias) BND_TRY(bnd_import_node_of(importer, bias, &b, error));
  const bnd_arg stride = bnd_graph_int_list(graph, form->stride, 2), padding = bnd_graph_int_list(graph, form->padding, 2);
  const bnd_arg dilation = bnd_graph_int_list(graph, form->dilation, 2), groups = bnd_arg_of_int(form->groups);
  const bnd_arg bias_arg = b ? bnd_arg_of_node(b) : BND_NONE_ARG;
  if (form->transposed) {
    const bnd_arg args[] = {
        bnd_arg_of_node(x), bnd_arg_of_node(w), bias_arg, stride, padding, bnd_graph_int_list(graph, form->output_padding, 2), groups, dilation};
    return bnd_import_result(importer, proto, BND_OP_CONV_TRANSPOSE2D, args, 8, error);
  }
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_node(w), bias_arg, stride, padding, dilation, groups};
  return bnd_import_result(importer, proto, BND_OP_CONV2D, args, 7, error);
}

bnd_status bnd_import_conv(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *weight, *bias;
  bnd_node *x, *node = NULL;
  convolution form = {.transposed = strcmp(proto->op_type, "ConvTranspose") == 0};
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  BND_TRY(bnd_import_input(importer, proto, 1, false, &weight, error));
  BND_TRY(bnd_import_input(importer, proto, 2, true, &bias, error));
  if (weight->kind == BND_IMPORT_CODES) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its weight %s is not dequantized", weight->name);
  const bnd_shape *shape = weight->kind == BND_IMPORT_CONSTANT ? &weight->tensor.shape : &weight->node->shape[0];
  BND_TRY(read_convolution(proto, &x->shape[0], shape, &form, error));
  BND_TRY(check_bias(bias, form.transposed ? shape->size[1] * form.groups : shape->size[0], error));
  if (!becomes_module(importer, weight, bias)) return conv_function(importer, proto, x, weight, bias, &form, error);
  bnd_module *module = new_module(importer, proto);
  if (!module) return bnd_fail_memory(error, "a layer");
  BND_TRY(take_parameters(importer, module, weight, bias, error));
  memcpy(module->stride, form.stride, sizeof form.stride);
  memcpy(module->padding, form.padding, sizeof form.padding);
  memcpy(module->dilation, form.dilation, sizeof form.dilation);
  memcpy(module->output_padding, form.output_padding, sizeof form.output_padding);
  module->groups = form.groups;
  const bnd_operator_id id = form.transposed ? BND_OP_CONV_TRANSPOSE2D_MODULE : BND_OP_CONV2D_MODULE;
  BND_TRY(bnd_import_call(importer, proto, id, module, (const bnd_arg[]){bnd_arg_of_node(x)}, 1, &node, error));
  return bnd_import_add_node(importer, proto->output[0], node, error);
}

/* --- linear --- */

bnd_status bnd_import_turned(bnd_importer *importer, bnd_import_value *value, const char *name, bnd_import_value **turned, bnd_error *error) {
  if (!is_constant(value) || value->tensor.shape.rank != 2)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "needs %s to be a constant matrix", value->name);
  *turned = value->turned;
  if (*turned) return BND_OK;
  bnd_import_value *made;
  BND_TRY(bnd_import_add(importer, name, BND_IMPORT_CONSTANT, &made, error));
  const int64_t rows = value->tensor.shape.size[0], columns = value->tensor.shape.size[1];
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE(columns, rows), &made->tensor, error));
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) bnd_f32(&made->tensor)[c * rows + r] = bnd_f32(&value->tensor)[r * columns + c];
  made->maker = value->maker;
  if (value->quantizer) {
    made->quantizer = bnd_quantizer_copy(value->quantizer);
    if (!made->quantizer) return bnd_fail_memory(error, "a quantizer");
    made->quantizer->spec.channel_axis = 1 - made->quantizer->spec.channel_axis;
  }
  made->turned = value;
  *turned = value->turned = made;
  return BND_OK;
}

/* x times the transpose of a weight [out, in]; `named` gives the node its name and the result. */
static bnd_status write_linear(bnd_importer *importer, const Onnx__NodeProto *named, bnd_node *x, bnd_import_value *weight, bnd_import_value *bias,
                               bnd_error *error) {
  bnd_node *node = NULL, *w, *b = NULL;
  BND_TRY(check_bias(bias, weight->tensor.shape.size[0], error));
  if (becomes_module(importer, weight, bias)) {
    bnd_module *module = new_module(importer, named);
    if (!module) return bnd_fail_memory(error, "a layer");
    BND_TRY(take_parameters(importer, module, weight, bias, error));
    BND_TRY(bnd_import_call(importer, named, BND_OP_LINEAR_MODULE, module, (const bnd_arg[]){bnd_arg_of_node(x)}, 1, &node, error));
    return bnd_import_add_node(importer, named->output[0], node, error);
  }
  BND_TRY(bnd_import_node_of(importer, weight, &w, error));
  if (bias) BND_TRY(bnd_import_node_of(importer, bias, &b, error));
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_node(w), b ? bnd_arg_of_node(b) : BND_NONE_ARG};
  return bnd_import_result(importer, named, BND_OP_LINEAR, args, b ? 3 : 2, error);
}

/* The weight [out, in] of a layer that holds it as [in, out]. */
static bnd_status turned_weight(bnd_importer *importer, bnd_import_value **weight, bnd_error *error) {
  const char *name = bnd_arena_format(importer->arena, "%s.transposed", (*weight)->name);
  return name ? bnd_import_turned(importer, *weight, name, weight, error) : bnd_fail_memory(error, "a name");
}

bnd_status bnd_import_gemm(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *weight, *bias;
  bnd_node *x;
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  BND_TRY(bnd_import_input(importer, proto, 1, false, &weight, error));
  BND_TRY(bnd_import_input(importer, proto, 2, true, &bias, error));
  if (bnd_import_float(proto, "alpha", 1) != 1 || (bias && bnd_import_float(proto, "beta", 1) != 1) || bnd_import_int(proto, "transA", 0))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "only Gemm with alpha 1, beta 1 and transA 0 is supported");
  if (!is_constant(weight) || weight->tensor.shape.rank != 2)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "multiplies with %s, which is no constant matrix", weight->name);
  if (!bnd_import_int(proto, "transB", 0)) BND_TRY(turned_weight(importer, &weight, error));
  return write_linear(importer, proto, x, weight, bias, error);
}

/* The Add with a constant vector that follows a product and is the only one to read it; NULL = none. */
static const Onnx__NodeProto *following_bias(bnd_importer *importer, const char *product, bnd_import_value **bias) {
  size_t reader, at;
  if (bnd_import_readers(importer, product) != 1 || !bnd_map_get(&importer->first_reader, product, &reader)) return NULL;
  const Onnx__NodeProto *add = importer->proto->node[reader];
  if (strcmp(bnd_import_text(add->op_type), "Add") != 0 || add->n_input != 2 || add->n_output != 1) return NULL;
  const char *other = add->input[strcmp(add->input[0], product) == 0 ? 1 : 0];
  if (!bnd_map_get(&importer->names, other, &at)) return NULL;
  *bias = importer->values[at];
  if (!is_constant(*bias) || (*bias)->tensor.shape.rank != 1) return NULL;
  importer->done[reader] = true;
  return add;
}

/* torch writes a linear layer without Gemm as MatMul(x, Transpose(weight)) and Add(bias, product). */
bnd_status bnd_import_matmul(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_import_value *weight, *bias = NULL;
  bnd_node *x;
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  BND_TRY(bnd_import_input(importer, proto, 1, false, &weight, error));
  BND_TRY(turned_weight(importer, &weight, error));
  const Onnx__NodeProto *add = following_bias(importer, proto->output[0], &bias);
  return write_linear(importer, add ? add : proto, x, weight, add ? bias : NULL, error);
}

/* --- norms --- */

bnd_status bnd_import_batch_norm(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  if (bnd_import_int(proto, "training_mode", 0))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "is in training mode; export the model with model.eval()");
  bnd_arg args[9];
  for (size_t i = 0; i < 5; i++) {
    bnd_node *node;
    BND_TRY(bnd_import_input_node(importer, proto, i, &node, error));
    args[i] = bnd_arg_of_node(node);
  }
  args[5] = bnd_arg_of_bool(false);
  args[6] = bnd_arg_of_float(1 - bnd_import_float(proto, "momentum", 0.9));
  args[7] = bnd_arg_of_float(bnd_import_float(proto, "epsilon", 1e-5));
  args[8] = bnd_arg_of_bool(true);
  return bnd_import_result(importer, proto, BND_OP_BATCH_NORM, args, 9, error);
}

bnd_status bnd_import_layer_norm(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  bnd_node *x, *weight, *bias = NULL;
  bnd_import_value *shift;
  BND_TRY(bnd_import_input_node(importer, proto, 0, &x, error));
  BND_TRY(bnd_import_input_node(importer, proto, 1, &weight, error));
  BND_TRY(bnd_import_input(importer, proto, 2, true, &shift, error));
  if (shift) BND_TRY(bnd_import_node_of(importer, shift, &bias, error));
  const bnd_shape *shape = &x->shape[0];
  int64_t axis = bnd_import_int(proto, "axis", -1);
  if (axis < 0) axis += shape->rank;
  if (axis < 0 || axis >= shape->rank) return bnd_fail(error, BND_ERROR_FORMAT, "its axis does not exist");
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(importer->graph, shape->size + axis, shape->rank - (int)axis),
                          bnd_arg_of_node(weight), bias ? bnd_arg_of_node(bias) : BND_NONE_ARG,
                          bnd_arg_of_float(bnd_import_float(proto, "epsilon", 1e-5))};
  return bnd_import_result(importer, proto, BND_OP_LAYER_NORM, args, 5, error);
}
