/* Layers with weights: convolutions, transposed convolutions and linear, as functions and as modules. */
#include "export/exporter.h"

typedef struct layer_form {
  const bnd_node *node;
  const char *input, *weight, *bias; /* value names; bias NULL = none */
  bool transposed;
  int64_t kernel[2], stride[2], padding[2], dilation[2], output_padding[2], groups;
} layer_form;

static bnd_status write_convolution(bnd_exporter *exporter, const layer_form *layer, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  const char *inputs[] = {layer->input, layer->weight, layer->bias};
  Onnx__NodeProto *made =
      bnd_export_node(exporter, layer->node, layer->transposed ? "ConvTranspose" : "Conv", BND_EXPORT_LAST, inputs, layer->bias ? 3 : 2);
  const int64_t pads[] = {layer->padding[0], layer->padding[1], layer->padding[0], layer->padding[1]};
  bnd_onnx_set_ints(builder, made, "dilations", layer->dilation, 2);
  bnd_onnx_set_int(builder, made, "group", layer->groups);
  bnd_onnx_set_ints(builder, made, "kernel_shape", layer->kernel, 2);
  if (layer->transposed && (layer->output_padding[0] || layer->output_padding[1]))
    bnd_onnx_set_ints(builder, made, "output_padding", layer->output_padding, 2);
  bnd_onnx_set_ints(builder, made, "pads", pads, 4);
  bnd_onnx_set_ints(builder, made, "strides", layer->stride, 2);
  return bnd_onnx_builder_status(builder, error);
}

/* As torch exports it: Gemm for a matrix with a bias, else MatMul with the transposed weight and an Add. */
static bnd_status write_linear(bnd_exporter *exporter, const layer_form *layer, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  const bnd_node *node = layer->node, *input = bnd_arg_node(node, 0);
  if (layer->bias && input->shape[0].rank == 2) {
    Onnx__NodeProto *gemm = BND_EXPORT_NODE(exporter, node, "Gemm", BND_EXPORT_LAST, layer->input, layer->weight, layer->bias);
    bnd_onnx_set_float(builder, gemm, "alpha", 1);
    bnd_onnx_set_float(builder, gemm, "beta", 1);
    bnd_onnx_set_int(builder, gemm, "transB", 1);
    return bnd_onnx_builder_status(builder, error);
  }
  Onnx__NodeProto *transpose = BND_EXPORT_NODE(exporter, node, "Transpose", BND_EXPORT_PART, layer->weight);
  bnd_onnx_set_ints(builder, transpose, "perm", (const int64_t[]){1, 0}, 2);
  Onnx__NodeProto *product =
      BND_EXPORT_NODE(exporter, node, "MatMul", layer->bias ? BND_EXPORT_PART : BND_EXPORT_LAST, layer->input, bnd_export_output(transpose));
  if (layer->bias) BND_EXPORT_NODE(exporter, node, "Add", BND_EXPORT_LAST, layer->bias, bnd_export_output(product));
  return bnd_onnx_builder_status(builder, error);
}

static bnd_status read_function(bnd_exporter *exporter, layer_form *layer, bnd_error *error) {
  const bnd_node *node = layer->node, *weight = bnd_arg_node(node, 1);
  BND_TRY(bnd_export_input(exporter, node, 1, &layer->weight, error));
  if (bnd_arg_node(node, 2)) BND_TRY(bnd_export_input(exporter, node, 2, &layer->bias, error));
  if (node->op->id == BND_OP_LINEAR) return BND_OK;
  if (weight->shape[0].rank != 4) return bnd_export_unsupported(node, "its weight has not four dimensions", error);
  for (int i = 0; i < 2; i++) layer->kernel[i] = weight->shape[0].size[2 + i];
  bnd_arg_pair(node, 3, 1, layer->stride);
  bnd_arg_pair(node, 4, 0, layer->padding);
  if (layer->transposed) bnd_arg_pair(node, 5, 0, layer->output_padding);
  layer->groups = bnd_arg_int(node, 6, 1);
  bnd_arg_pair(node, layer->transposed ? 7 : 5, 1, layer->dilation);
  return BND_OK;
}

/* The weight or bias of a module as an initializer "<path>.weight", followed by its quantizer "<path>/weight/...". */
static bnd_status write_parameter(bnd_exporter *exporter, const bnd_node *node, const char *kind, const bnd_tensor *tensor,
                                  const bnd_quantizer *quantizer, const char **value, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  const char *path = bnd_export_path(node);
  *value = bnd_onnx_add_initializer(builder, bnd_onnx_format(builder, "%s.%s", path, kind), tensor);
  BND_TRY(bnd_onnx_builder_status(builder, error));
  if (!quantizer) return BND_OK;
  const char *pair = bnd_onnx_format(builder, "%s/%s", path, kind);
  BND_TRY(bnd_onnx_builder_status(builder, error));
  return bnd_export_quantizer(exporter, NULL, quantizer, pair, *value, value, error);
}

static bnd_status read_module(bnd_exporter *exporter, layer_form *layer, bnd_error *error) {
  const bnd_node *node = layer->node;
  const bnd_module *module = node->module;
  if (!BND_GROW(exporter->folded, exporter->folded_capacity, exporter->folded_count + 2)) return bnd_fail_memory(error, "the ONNX graph");
  bnd_tensor *weight = &exporter->folded[exporter->folded_count], *bias = weight + 1;
  *weight = *bias = (bnd_tensor){0};
  BND_TRY(bnd_module_fold(module, layer->transposed, weight, bias, error));
  exporter->folded_count += 2;
  const bnd_tensor kept_weight = *weight, kept_bias = *bias;
  BND_TRY(write_parameter(exporter, node, "weight", &kept_weight, module->weight_quantizer, &layer->weight, error));
  if (kept_bias.data) BND_TRY(write_parameter(exporter, node, "bias", &kept_bias, module->bias_quantizer, &layer->bias, error));
  if (node->op->id == BND_OP_LINEAR_MODULE) return BND_OK;
  if (kept_weight.shape.rank != 4) return bnd_export_unsupported(node, "its weight has not four dimensions", error);
  for (int i = 0; i < 2; i++) {
    layer->kernel[i] = kept_weight.shape.size[2 + i];
    layer->stride[i] = module->stride[i];
    layer->padding[i] = module->padding[i];
    layer->dilation[i] = module->dilation[i];
    layer->output_padding[i] = module->output_padding[i];
  }
  layer->groups = module->groups;
  return BND_OK;
}

bool bnd_export_is_layer(const bnd_node *node) {
  return bnd_is_conv_module(node) || bnd_is_conv_function(node);
}

bnd_status bnd_export_layer(bnd_exporter *exporter, const bnd_node *node, bnd_error *error) {
  const bnd_operator_id id = node->op->id;
  layer_form layer = {.node = node,
                      .groups = 1,
                      .transposed = id == BND_OP_CONV_TRANSPOSE2D || id == BND_OP_CONV_TRANSPOSE2D_MODULE || id == BND_OP_CONV_TRANSPOSE2D_BN_MODULE};
  BND_TRY(bnd_export_input(exporter, node, 0, &layer.input, error));
  BND_TRY(node->module ? read_module(exporter, &layer, error) : read_function(exporter, &layer, error));
  return id == BND_OP_LINEAR || id == BND_OP_LINEAR_MODULE ? write_linear(exporter, &layer, error) : write_convolution(exporter, &layer, error);
}
