/* The operator table: one row for each operator, in one file per family. A row serves every stage: capture, annotation, execution, export. */
#ifndef BND_OPS_OPERATORS_H
#define BND_OPS_OPERATORS_H

#include "graph/graph.h"

/* id, name, torch.fx target. Functions carry their aten overload; modules are what passes put in place of functions. */
#define BND_OPERATORS(X)                                                                                     \
  X(CONV2D, "conv2d", "torch.ops.aten.conv2d.default")                                                       \
  X(CONV_TRANSPOSE2D, "conv_transpose2d", "torch.ops.aten.conv_transpose2d.input")                           \
  X(LINEAR, "linear", "torch.ops.aten.linear.default")                                                       \
  X(BATCH_NORM, "batch_norm", "torch.ops.aten.batch_norm.default")                                           \
  X(LAYER_NORM, "layer_norm", "torch.ops.aten.layer_norm.default")                                           \
  X(RELU, "relu", "torch.ops.aten.relu.default")                                                             \
  X(RELU_, "relu_", "torch.ops.aten.relu_.default")                                                          \
  X(RELU6, "relu6", "torch.ops.aten.relu6.default")                                                          \
  X(HARDTANH, "hardtanh", "torch.ops.aten.hardtanh.default")                                                 \
  X(HARDTANH_, "hardtanh_", "torch.ops.aten.hardtanh_.default")                                              \
  X(CLAMP, "clamp", "torch.ops.aten.clamp.default")                                                          \
  X(CLAMP_, "clamp_", "torch.ops.aten.clamp_.default")                                                       \
  X(CLIP, "clip", "torch.ops.aten.clip.default")                                                             \
  X(CLIP_, "clip_", "torch.ops.aten.clip_.default")                                                          \
  X(SIGMOID, "sigmoid", "torch.ops.aten.sigmoid.default")                                                    \
  X(SIGMOID_, "sigmoid_", "torch.ops.aten.sigmoid_.default")                                                 \
  X(HARDSIGMOID, "hardsigmoid", "torch.ops.aten.hardsigmoid.default")                                        \
  X(HARDSIGMOID_, "hardsigmoid_", "torch.ops.aten.hardsigmoid_.default")                                     \
  X(SILU, "silu", "torch.ops.aten.silu.default")                                                             \
  X(SILU_, "silu_", "torch.ops.aten.silu_.default")                                                          \
  X(HARDSWISH, "hardswish", "torch.ops.aten.hardswish.default")                                              \
  X(HARDSWISH_, "hardswish_", "torch.ops.aten.hardswish_.default")                                           \
  X(LEAKY_RELU, "leaky_relu", "torch.ops.aten.leaky_relu.default")                                           \
  X(LEAKY_RELU_, "leaky_relu_", "torch.ops.aten.leaky_relu_.default")                                        \
  X(GELU, "gelu", "torch.ops.aten.gelu.default")                                                             \
  X(SOFTMAX, "softmax", "torch.ops.aten.softmax.int")                                                        \
  X(ADD, "add", "torch.ops.aten.add.Tensor")                                                                 \
  X(ADD_, "add_", "torch.ops.aten.add_.Tensor")                                                              \
  X(SUB, "sub", "torch.ops.aten.sub.Tensor")                                                                 \
  X(SUB_, "sub_", "torch.ops.aten.sub_.Tensor")                                                              \
  X(MUL, "mul", "torch.ops.aten.mul.Tensor")                                                                 \
  X(MUL_, "mul_", "torch.ops.aten.mul_.Tensor")                                                              \
  X(DIV, "div", "torch.ops.aten.div.Tensor")                                                                 \
  X(DIV_, "div_", "torch.ops.aten.div_.Tensor")                                                              \
  X(MAX_POOL2D, "max_pool2d", "torch.ops.aten.max_pool2d.default")                                           \
  X(AVG_POOL2D, "avg_pool2d", "torch.ops.aten.avg_pool2d.default")                                           \
  X(ADAPTIVE_AVG_POOL2D, "adaptive_avg_pool2d", "torch.ops.aten.adaptive_avg_pool2d.default")                \
  X(MEAN, "mean", "torch.ops.aten.mean.dim")                                                                 \
  X(SUM, "sum", "torch.ops.aten.sum.default")                                                                \
  X(CAT, "cat", "torch.ops.aten.cat.default")                                                                \
  X(CONCAT, "concat", "torch.ops.aten.concat.default")                                                       \
  X(CONCATENATE, "concatenate", "torch.ops.aten.concatenate.default")                                        \
  X(SLICE, "slice", "torch.ops.aten.slice.Tensor")                                                           \
  X(SELECT, "select", "torch.ops.aten.select.int")                                                           \
  X(SPLIT, "split", "torch.ops.aten.split.Tensor")                                                           \
  X(SPLIT_WITH_SIZES, "split_with_sizes", "torch.ops.aten.split_with_sizes.default")                         \
  X(RESHAPE, "reshape", "torch.ops.aten.reshape.default")                                                    \
  X(VIEW, "view", "torch.ops.aten.view.default")                                                             \
  X(FLATTEN, "flatten", "torch.ops.aten.flatten.using_ints")                                                 \
  X(PERMUTE, "permute", "torch.ops.aten.permute.default")                                                    \
  X(TRANSPOSE, "transpose", "torch.ops.aten.transpose.int")                                                  \
  X(SQUEEZE, "squeeze", "torch.ops.aten.squeeze.dim")                                                        \
  X(UNSQUEEZE, "unsqueeze", "torch.ops.aten.unsqueeze.default")                                              \
  X(PIXEL_SHUFFLE, "pixel_shuffle", "torch.ops.aten.pixel_shuffle.default")                                  \
  X(CONTIGUOUS, "contiguous", "torch.ops.aten.contiguous.default")                                           \
  X(DROPOUT, "dropout", "torch.ops.aten.dropout.default")                                                    \
  X(TO, "to", "torch.ops.aten.to.dtype")                                                                     \
  X(ARANGE, "arange", "torch.ops.aten.arange.default")                                                       \
  X(FULL, "full", "torch.ops.aten.full.default")                                                             \
  X(MESHGRID, "meshgrid", "torch.ops.aten.meshgrid.indexing")                                                \
  X(STACK, "stack", "torch.ops.aten.stack.default")                                                          \
  X(GETITEM, "getitem", "operator.getitem")                                                                  \
  X(QUANT_STUB, "quant_stub", "torch.ops.quark_quant.QuantStub.default")                                     \
  X(DEQUANT_STUB, "de_quant_stub", "torch.ops.quark_quant.DeQuantStub.default")                              \
  X(NO_GRAD_REGION, "wrap_with_set_grad_enabled", "torch.ops.higher_order.wrap_with_set_grad_enabled")       \
  X(CONV2D_MODULE, "conv2d_module", "QuantConv2d")                                                           \
  X(CONV2D_BN_MODULE, "conv2d_bn_module", "QuantizedConvBatchNorm2d")                                        \
  X(CONV_TRANSPOSE2D_MODULE, "conv_transpose2d_module", "QuantConvTranspose2d")                              \
  X(CONV_TRANSPOSE2D_BN_MODULE, "conv_transpose2d_bn_module", "QuantConvTransposeBatchNorm2d")               \
  X(LINEAR_MODULE, "linear_module", "QuantLinear")                                                           \
  X(AVG_POOL2D_MODULE, "avg_pool2d_module", "QuantAvgPool2d")                                                \
  X(GLOBAL_AVG_POOL2D_MODULE, "global_avg_pool2d_module", "QuantAdaptiveAvgPool2d")                          \
  X(LEAKY_RELU_MODULE, "leaky_relu_module", "QuantLeakyReLU")                                                \
  X(FAKE_QUANTIZE, "fake_quantize", "FakeQuantize")

typedef enum bnd_operator_id {
#define X(id, name, target) BND_OP_##id,
  BND_OPERATORS(X)
#undef X
  BND_OPERATOR_COUNT
} bnd_operator_id;

const bnd_operator *bnd_operator_of(bnd_operator_id id);
/* The operator with this torch.fx target, NULL if unknown. */
const bnd_operator *bnd_operator_by_target(const char *target);

static inline bool bnd_node_is(const bnd_node *node, bnd_operator_id id) { return node && node->op && node->op->id == (int)id; }

/* Families, as Quark's annotators group them (fx-quantization 4.1). In-place variants belong to the family of their twin. */
bool bnd_is_activation(const bnd_node *node);      /* ACT */
bool bnd_is_conv_module(const bnd_node *node);     /* CONVMOD: convolutions, transposed convolutions and linear as modules */
bool bnd_is_transposed_module(const bnd_node *node); /* the transposed convolutions among them */
bool bnd_is_conv_function(const bnd_node *node);   /* CONVFN */
bool bnd_is_arithmetic(const bnd_node *node);      /* ARITH */
bool bnd_is_pool(const bnd_node *node);            /* POOL */
bool bnd_is_shape_change(const bnd_node *node);    /* SHAPE: reshape, permute, squeeze, unsqueeze, pixel_shuffle */
bool bnd_is_sharing(const bnd_node *node);         /* SHARE: take over their input's quantizer */
bool bnd_is_concat(const bnd_node *node);
bool bnd_is_fake_quantize(const bnd_node *node);
bool bnd_is_relu(const bnd_node *node);
/* add_ -> add, relu_ -> relu, concat -> cat, ...; others unchanged. What an operator computes. */
bnd_operator_id bnd_functional_id(const bnd_node *node);

/* Sets shape, dtype and result_count of every node from its inputs, in order. The batch size is that of the placeholders.
   Fails with the node's name where shapes contradict each other. */
bnd_status bnd_infer_shapes(bnd_graph *graph, bnd_error *error);
bnd_status bnd_infer_node_shape(bnd_node *node, bnd_error *error);

/* Weight and bias of a convolution-like module with its batch norm folded in, float32, as Quark's module computes them before merging
   (fx-quantization 6.4): W' = W * (gamma * rsqrt(var + eps)) along the output channels, B' = beta - gamma * (mean - b) * rsqrt(var + eps).
   Without batch norm: shared copies. bias->data stays NULL when there is neither bias nor batch norm. Owned by the caller. */
bnd_status bnd_module_fold(const bnd_module *module, bool transposed, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error);
/* The same, then the module's own fake quantizers applied (where present). */
bnd_status bnd_module_quantized_weights(const bnd_module *module, bool transposed, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error);

/* A region computed beforehand has its results as attributes of the graph, "SUB-GRAPH.0" and on. *attribute NULL: there is none of that number. */
bnd_status bnd_region_result(const bnd_node *region, int result, const bnd_attribute **attribute, bnd_error *error);

/* Multiply-accumulates of one run at the inferred shapes (convolutions and linear); 0 for others. */
int64_t bnd_node_macs(const bnd_node *node);

#endif
