/* Small graphs for the ONNX tests: one with every kind of quantizer placement, one with every other operator. */
#ifndef BND_TESTS_ONNX_GRAPHS_H
#define BND_TESTS_ONNX_GRAPHS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec/exec.h"
#include "ops/operators.h"

#define N(node) bnd_arg_of_node(node)
#define I(value) bnd_arg_of_int(value)
#define F(value) bnd_arg_of_float(value)
#define B(value) bnd_arg_of_bool(value)
#define NONE BND_NONE_ARG
#define INTS(graph, ...) bnd_graph_int_list(graph, (const int64_t[]){__VA_ARGS__}, (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define NODES(graph, ...) \
  bnd_graph_node_list(graph, (bnd_node *const[]){__VA_ARGS__}, (int)(sizeof((bnd_node *const[]){__VA_ARGS__}) / sizeof(bnd_node *)))
#define CALL(graph, id, ...) call(graph, BND_OP_##id, (const bnd_arg[]){__VA_ARGS__}, (int)(sizeof((const bnd_arg[]){__VA_ARGS__}) / sizeof(bnd_arg)))

static bnd_node *call(bnd_graph *graph, bnd_operator_id id, const bnd_arg *args, int count) {
  const bnd_operator *op = bnd_operator_of(id);
  return bnd_graph_call(graph, op, op->name, args, count);
}

/* Reproducible values in [-1, 1). */
static bnd_tensor values(const bnd_shape *shape, unsigned seed) {
  bnd_tensor tensor;
  if (bnd_tensor_create(BND_F32, shape, &tensor, NULL) != BND_OK) abort();
  for (size_t i = 0; i < tensor.count; i++) {
    seed = seed * 1664525u + 1013904223u;
    bnd_f32(&tensor)[i] = (float)(seed >> 8) / 8388608.f - 1.f;
  }
  return tensor;
}

static bnd_node *parameter(bnd_graph *graph, const char *name, bnd_shape shape, unsigned seed) {
  bnd_tensor tensor = values(&shape, seed);
  if (bnd_graph_set_attribute(graph, name, &tensor, true, NULL) != BND_OK) abort();
  return bnd_graph_get_attr(graph, name, name);
}

/* channels > 0: per channel along `axis`, positions position, position+1, ... alternating. */
static bnd_quantizer *quantizer(int position, int channels, int axis) {
  const bnd_quantizer_spec spec = {.dtype = BND_I8, .per_channel = channels > 0, .channel_axis = axis};
  bnd_quantizer *made = bnd_quantizer_create(&spec);
  made->channels = channels > 0 ? channels : 1;
  free(made->position);
  free(made->zero_point);
  made->position = calloc((size_t)made->channels, sizeof(int));
  made->zero_point = calloc((size_t)made->channels, sizeof(int));
  for (int i = 0; i < made->channels; i++) made->position[i] = position + i % 2;
  return made;
}

static bnd_node *quantize(bnd_graph *graph, bnd_node *input, int position) {
  bnd_module *module = bnd_graph_add_module(graph, "fake_quantizer");
  module->quantizer = quantizer(position, 0, 0);
  bnd_arg arg = N(input);
  bnd_node *node = bnd_graph_add(graph, BND_CALL_MODULE, bnd_operator_of(BND_OP_FAKE_QUANTIZE), "fake_quantizer", module->name, &arg, 1);
  node->module = module;
  return node;
}

static bnd_node *call_module(bnd_graph *graph, bnd_operator_id id, bnd_module *module, bnd_node *input, const char *scope) {
  bnd_arg arg = N(input);
  bnd_node *node = bnd_graph_add(graph, BND_CALL_MODULE, bnd_operator_of(id), bnd_operator_of(id)->name, module->name, &arg, 1);
  node->module = module;
  node->scope = scope;
  return node;
}

static bnd_module *layer(bnd_graph *graph, const char *name, bnd_shape weight, int64_t stride, int64_t padding, unsigned seed) {
  bnd_module *module = bnd_graph_add_module(graph, name);
  module->weight = values(&weight, seed);
  module->stride[0] = module->stride[1] = stride;
  module->padding[0] = module->padding[1] = padding;
  module->dilation[0] = module->dilation[1] = module->groups = 1;
  module->scale = 1;
  return module;
}

static bnd_graph *new_graph(void) {
  bnd_graph *graph;
  if (bnd_graph_create(&graph, NULL) != BND_OK) abort();
  return graph;
}

/* Convolution with batch norm, activation quantizers, a quantized constant, a weight shared by two functional convolutions, anchors made by
   the graph, a hard sigmoid with its factor, a transposed and a per-channel convolution, pools with factors, an all-zero tensor's zero point. */
static bnd_graph *quantized_graph(void) {
  bnd_graph *g = new_graph();
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 3, 8, 8));
  bnd_node *alpha = parameter(g, "block.alpha", BND_SHAPE(1), 7), *q_alpha = quantize(g, alpha, 6);
  bnd_node *projection = parameter(g, "heads.proj_conv", BND_SHAPE(1, 4, 1, 1), 9), *q_projection = quantize(g, projection, 5);
  bnd_node *q_x = quantize(g, CALL(g, QUANT_STUB, N(x)), 7);

  bnd_module *first = layer(g, "conv2d_bn_quantized_module", BND_SHAPE(4, 3, 3, 3), 2, 1, 1);
  first->has_batch_norm = true;
  first->bn_weight = values(&BND_SHAPE(4), 11);
  first->bn_bias = values(&BND_SHAPE(4), 12);
  first->bn_running_mean = values(&BND_SHAPE(4), 13);
  first->bn_running_var = values(&BND_SHAPE(4), 14);
  for (int i = 0; i < 4; i++) bnd_f32(&first->bn_running_var)[i] = 1.f + 0.25f * (float)i;
  first->bn_epsilon = 1e-3;
  first->weight_quantizer = quantizer(6, 0, 0);
  first->bias_quantizer = quantizer(5, 0, 0);
  bnd_node *conv = call_module(g, BND_OP_CONV2D_BN_MODULE, first, q_x, "block.conv");
  bnd_node *q_relu = quantize(g, CALL(g, RELU_, N(conv)), 4);
  bnd_node *q_mul = quantize(g, CALL(g, MUL, N(q_alpha), N(q_relu)), 5);
  bnd_node *q_add = quantize(g, CALL(g, ADD, N(q_mul), N(q_relu)), 4);
  bnd_node *q_cat = quantize(g, CALL(g, CAT, NODES(g, q_add, q_relu), I(1)), 4);

  bnd_module *second = layer(g, "conv2d_1_quantized_module", BND_SHAPE(4, 8, 1, 1), 1, 0, 2);
  second->bias = values(&BND_SHAPE(4), 3);
  second->weight_quantizer = quantizer(6, 4, 0);
  second->bias_quantizer = quantizer(6, 0, 0);
  second->bias_quantizer->zero_point[0] = -128; /* what Quark's observer gives an all-zero tensor */
  bnd_node *q_second = quantize(g, call_module(g, BND_OP_CONV2D_MODULE, second, q_cat, "block.conv2"), 3);

  bnd_module *up = layer(g, "conv_transpose2d_quantized_model", BND_SHAPE(4, 4, 2, 2), 2, 0, 4);
  up->bias = values(&BND_SHAPE(4), 5);
  up->weight_quantizer = quantizer(7, 0, 0);
  up->bias_quantizer = quantizer(7, 0, 0);
  bnd_node *q_up = quantize(g, call_module(g, BND_OP_CONV_TRANSPOSE2D_MODULE, up, q_second, "block.upsample"), 3);

  bnd_module *pool = layer(g, "avg_pool2d_quantized_module", BND_SHAPE(1), 2, 1, 0);
  pool->kernel[0] = pool->kernel[1] = 3;
  pool->count_include_pad = true;
  pool->scale = 0.984375;
  bnd_node *q_pool = quantize(g, call_module(g, BND_OP_AVG_POOL2D_MODULE, pool, q_up, "block.pool"), 3);
  bnd_node *q_max = quantize(g, CALL(g, MAX_POOL2D, N(q_pool), INTS(g, 3, 3), INTS(g, 1, 1), INTS(g, 1, 1)), 3);

  bnd_node *soft = quantize(g, CALL(g, SOFTMAX, N(q_max), I(1)), 7);
  bnd_node *a = quantize(g, CALL(g, CONV2D, N(soft), N(q_projection)), 4), *b = quantize(g, CALL(g, CONV2D, N(q_max), N(q_projection)), 4);
  bnd_node *joined = quantize(g, CALL(g, CAT, NODES(g, a, b), I(1)), 4);
  bnd_node *rows = quantize(g, CALL(g, PERMUTE, N(quantize(g, CALL(g, RESHAPE, N(joined), INTS(g, -1, 2, 16)), 4)), INTS(g, 0, 2, 1)), 4);

  bnd_node *line = CALL(g, ADD, N(CALL(g, ARANGE, I(4))), F(0.5));
  bnd_node *grid = CALL(g, MESHGRID, NODES(g, line, line));
  bnd_node_add_keyword(grid, "indexing", bnd_arg_of_text("ij"));
  bnd_node *gx = CALL(g, GETITEM, N(grid), I(1)), *gy = CALL(g, GETITEM, N(grid), I(0));
  bnd_node *anchors = CALL(g, RESHAPE, N(CALL(g, STACK, NODES(g, gx, gy), I(-1))), INTS(g, -1, 2));
  bnd_node *q_anchors = quantize(g, CALL(g, DEQUANT_STUB, N(CALL(g, QUANT_STUB, N(anchors)))), 3);
  bnd_node *q_sub = quantize(g, CALL(g, SUB, N(q_anchors), N(rows)), 3), *q_sum = quantize(g, CALL(g, ADD, N(rows), N(q_anchors)), 3);
  bnd_node *strides = CALL(g, FULL, INTS(g, 16, 1), I(8));
  bnd_node *boxes = quantize(g, CALL(g, MUL, N(CALL(g, CAT, NODES(g, q_sub, q_sum), I(-1))), N(quantize(g, strides, 3))), -1);

  bnd_node *hard = CALL(g, HARDSIGMOID, N(q_second));
  bnd_node *scores = quantize(g, CALL(g, MUL, N(hard), F(1.0001220703125)), 7);
  bnd_module *global = layer(g, "adaptive_avg_pool2d_quantized_module", BND_SHAPE(1), 1, 0, 0);
  bnd_node *dead = quantize(g, call_module(g, BND_OP_GLOBAL_AVG_POOL2D_MODULE, global, q_second, NULL), 3);
  const bnd_arg outputs[] = {NODES(g, boxes, scores), NODES(g, dead, q_anchors)};
  bnd_graph_output(g, bnd_graph_list(g, outputs, 2));
  if (bnd_graph_status(g, NULL) != BND_OK || bnd_infer_shapes(g, NULL) != BND_OK) abort();
  return g;
}

/* Every operator the quantized graph does not have, each on an input of its own kind, each an output. */
static bnd_graph *operator_graph(void) {
  bnd_graph *g = new_graph();
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 4, 6, 6)), *m = bnd_graph_placeholder(g, "m", &BND_SHAPE(2, 8));
  bnd_node *out[40];
  int n = 0;
  bnd_node *w = parameter(g, "conv.weight", BND_SHAPE(4, 2, 3, 3), 1), *b = parameter(g, "conv.bias", BND_SHAPE(4), 2);
  out[n++] = CALL(g, CONV2D, N(x), N(w), N(b), INTS(g, 2, 1), INTS(g, 2, 2), INTS(g, 2, 2), I(2));
  bnd_node *tw = parameter(g, "up.weight", BND_SHAPE(4, 2, 3, 3), 3);
  out[n++] = CALL(g, CONV_TRANSPOSE2D, N(x), N(tw), NONE, INTS(g, 2, 2), INTS(g, 1, 1), INTS(g, 1, 0), I(2), INTS(g, 1, 1));
  bnd_node *lw = parameter(g, "linear.weight", BND_SHAPE(3, 8), 4), *lb = parameter(g, "linear.bias", BND_SHAPE(3), 5);
  out[n++] = CALL(g, LINEAR, N(m), N(lw), N(lb));
  out[n++] = CALL(g, LINEAR, N(m), N(lw));
  bnd_node *wide = parameter(g, "wide.weight", BND_SHAPE(5, 6), 6), *wb = parameter(g, "wide.bias", BND_SHAPE(5), 7);
  out[n++] = CALL(g, LINEAR, N(x), N(wide), N(wb));
  bnd_node *norm[4];
  for (int i = 0; i < 4; i++)
    norm[i] = parameter(g, (const char *[]){"bn.weight", "bn.bias", "bn.mean", "bn.var"}[i], BND_SHAPE(4), 20u + (unsigned)i);
  bnd_tensor variance = values(&BND_SHAPE(4), 30);
  for (int i = 0; i < 4; i++) bnd_f32(&variance)[i] = 0.5f + (float)i;
  if (bnd_graph_set_attribute(g, "bn.var", &variance, false, NULL) != BND_OK) abort();
  out[n++] = CALL(g, BATCH_NORM, N(x), N(norm[0]), N(norm[1]), N(norm[2]), N(norm[3]), B(false), F(0.03), F(1e-3), B(true));
  bnd_node *gain = parameter(g, "ln.weight", BND_SHAPE(8), 31), *shift = parameter(g, "ln.bias", BND_SHAPE(8), 32);
  out[n++] = CALL(g, LAYER_NORM, N(m), INTS(g, 8), N(gain), N(shift), F(1e-5));
  out[n++] = CALL(g, RELU6, N(x));
  out[n++] = CALL(g, HARDTANH, N(x), F(-0.5), F(0.25));
  out[n++] = CALL(g, CLAMP, N(x), F(-0.25), F(0.5));
  out[n++] = CALL(g, CLIP, N(x), NONE, F(0.5));
  out[n++] = CALL(g, CLAMP_, N(x), F(0.125));
  out[n++] = CALL(g, SIGMOID, N(x));
  out[n++] = CALL(g, SILU, N(x));
  out[n++] = CALL(g, HARDSWISH, N(x));
  out[n++] = CALL(g, LEAKY_RELU, N(x), F(0.2));
  out[n++] = CALL(g, GELU, N(x));
  out[n++] = CALL(g, SUB, F(1.5), N(x));
  out[n++] = CALL(g, DIV, N(x), F(3));
  bnd_node *weighted = CALL(g, ADD, N(x), N(x));
  bnd_node_add_keyword(weighted, "alpha", I(2));
  out[n++] = weighted;
  out[n++] = CALL(g, AVG_POOL2D, N(x), INTS(g, 3, 3), INTS(g, 2, 2), INTS(g, 1, 1), B(false), B(false));
  out[n++] = CALL(g, AVG_POOL2D, N(x), INTS(g, 2, 3));
  out[n++] = CALL(g, ADAPTIVE_AVG_POOL2D, N(x), INTS(g, 1, 1));
  out[n++] = CALL(g, ADAPTIVE_AVG_POOL2D, N(x), INTS(g, 3, 2));
  out[n++] = CALL(g, MEAN, N(x), INTS(g, 2, 3), B(true));
  out[n++] = CALL(g, MEAN, N(x), INTS(g, -1));
  out[n++] = CALL(g, SUM, N(m));
  out[n++] = CALL(g, SLICE, N(x), I(1), I(1), I(3));
  out[n++] = CALL(g, SLICE, N(x), I(-1), I(1), I(INT64_MAX), I(2));
  out[n++] = CALL(g, SELECT, N(x), I(1), I(-1));
  bnd_node *parts = CALL(g, SPLIT_WITH_SIZES, N(x), INTS(g, 1, 3), I(1));
  out[n++] = CALL(g, GETITEM, N(parts), I(1));
  out[n++] = CALL(g, FLATTEN, N(x), I(1));
  out[n++] = CALL(g, FLATTEN, N(x), I(2));
  out[n++] = CALL(g, TRANSPOSE, N(x), I(1), I(-1));
  out[n++] = CALL(g, SQUEEZE, N(x), I(0));
  out[n++] = CALL(g, UNSQUEEZE, N(m), I(-1));
  out[n++] = CALL(g, PIXEL_SHUFFLE, N(x), I(2));
  out[n++] = CALL(g, STACK, NODES(g, m, m), I(1));
  out[n++] = CALL(g, VIEW, N(CALL(g, CONTIGUOUS, N(x))), INTS(g, 1, 144));
  out[n++] = CALL(g, RELU, N(CALL(g, DROPOUT, N(x), F(0.5), B(false))));
  bnd_graph_output(g, bnd_graph_node_list(g, out, n));
  if (bnd_graph_status(g, NULL) != BND_OK) abort();
  bnd_error error;
  if (bnd_infer_shapes(g, &error) != BND_OK) {
    fputs(error.message, stderr);
    abort();
  }
  return g;
}

/* Runs a graph with plain loops on inputs made of a seed. Returns the outputs one behind the other (free), *count floats of them. */
static float *outputs_of(const bnd_graph *graph, int output_limit, FILE *inputs_too, size_t *count) {
  const bnd_exec_options options = {.mode = BND_EXEC_FAKE_QUANTIZE, .backend = BND_BACKEND_REFERENCE, .threads = 1, .output_limit = output_limit};
  bnd_executor *executor;
  bnd_session *session;
  bnd_error error;
  if (bnd_executor_create(graph, &options, &executor, &error) != BND_OK || bnd_session_create(executor, &session, &error) != BND_OK) {
    fputs(error.message, stderr);
    abort();
  }
  bnd_tensor inputs[4];
  const float *data[4];
  int used = 0;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (node->kind != BND_PLACEHOLDER) continue;
    inputs[used] = values(&node->shape[0], 100u + (unsigned)used);
    data[used] = bnd_f32(&inputs[used]);
    if (inputs_too) fwrite(data[used], sizeof(float), inputs[used].count, inputs_too);
    used++;
  }
  if (bnd_session_run(session, data, NULL, NULL, &error) != BND_OK) {
    fputs(error.message, stderr);
    abort();
  }
  float *all = NULL;
  *count = 0;
  for (int i = 0; i < bnd_executor_output_count(executor); i++) {
    size_t length;
    bnd_shape_count(bnd_executor_output_shape(executor, i), &length);
    all = realloc(all, (*count + length + 1) * sizeof(float));
    memcpy(all + *count, bnd_session_output(session, i), length * sizeof(float));
    *count += length;
  }
  for (int i = 0; i < used; i++) bnd_tensor_release(&inputs[i]);
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  return all;
}

#endif
