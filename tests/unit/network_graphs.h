/* Small graphs for the tests of trainable networks, and what one pass through a network leaves behind. */
#ifndef BND_TESTS_NETWORK_GRAPHS_H
#define BND_TESTS_NETWORK_GRAPHS_H

#include <math.h>
#include <stdio.h>

#include "graph_builder.h"

#include "autograd/network.h"
#include "calib/calibrate.h"
#include "passes/quark/quark.h"

/* --- building --- */

#define N(node) bnd_arg_of_node(node)
#define I(value) bnd_arg_of_int(value)
#define F(value) bnd_arg_of_float(value)
#define B(value) bnd_arg_of_bool(value)
#define NONE BND_NONE_ARG
#define INTS(graph, ...) bnd_graph_int_list(graph, (const int64_t[]){__VA_ARGS__}, (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define NODES(graph, ...) \
  bnd_graph_node_list(graph, (bnd_node *const[]){__VA_ARGS__}, (int)(sizeof((bnd_node *const[]){__VA_ARGS__}) / sizeof(bnd_node *)))
#define CALL(graph, id, ...) call(graph, BND_OP_##id, (const bnd_arg[]){__VA_ARGS__}, (int)(sizeof((const bnd_arg[]){__VA_ARGS__}) / sizeof(bnd_arg)))

static inline bnd_node *call(bnd_graph *graph, bnd_operator_id id, const bnd_arg *args, int count) {
  const bnd_operator *op = bnd_operator_of(id);
  bnd_node *node = bnd_graph_call(graph, op, op->name, args, count);
  assert_non_null(node);
  return node;
}

/* Uniform in [low, high), other values for every name. */
static inline bnd_node *attribute(bnd_graph *graph, const char *name, bnd_shape shape, double low, double high, bool is_parameter) {
  bnd_tensor tensor;
  ASSERT_OK(bnd_tensor_create(BND_F32, &shape, &tensor, error));
  uint64_t seed = 1;
  for (const char *at = name; *at; at++) seed = seed * 31 + (unsigned char)*at;
  fill_uniform(bnd_f32(&tensor), tensor.count, low, high, seed);
  ASSERT_OK(bnd_graph_set_attribute(graph, name, &tensor, is_parameter, error));
  return bnd_graph_get_attr(graph, name, name);
}

static inline const char *joined(bnd_graph *graph, const char *name, const char *what) {
  return bnd_arena_format(bnd_graph_arena(graph), "%s.%s", name, what);
}

static inline int64_t channels_of(const bnd_node *node) {
  return node->shape[0].size[1];
}

typedef struct window {
  int64_t size, stride, padding, groups;
  bool bias;
} window;

/* Shapes are inferred on the way, so that the next layer knows its channels. */
static inline bnd_node *inferred(bnd_node *node) {
  ASSERT_OK(bnd_infer_node_shape(node, error));
  return node;
}

static inline bnd_node *convolution(bnd_graph *g, const char *name, bnd_node *x, int64_t channels, window w) {
  const double bound = 1.7 / sqrt((double)(channels_of(x) / w.groups * w.size * w.size));
  const bnd_shape shape = BND_SHAPE(channels, channels_of(x) / w.groups, w.size, w.size);
  bnd_node *weight = inferred(attribute(g, joined(g, name, "weight"), shape, -bound, bound, true));
  bnd_node *bias = w.bias ? inferred(attribute(g, joined(g, name, "bias"), BND_SHAPE(channels), -0.3, 0.3, true)) : NULL;
  return inferred(CALL(g, CONV2D, N(x), N(weight), bias ? N(bias) : NONE, INTS(g, w.stride, w.stride), INTS(g, w.padding, w.padding), INTS(g, 1, 1),
                       I(w.groups)));
}

static inline bnd_node *transposed_convolution(bnd_graph *g, const char *name, bnd_node *x, int64_t channels) {
  bnd_node *weight = inferred(attribute(g, joined(g, name, "weight"), BND_SHAPE(channels_of(x), channels, 2, 2), -0.5, 0.5, true));
  bnd_node *bias = inferred(attribute(g, joined(g, name, "bias"), BND_SHAPE(channels), -0.3, 0.3, true));
  return inferred(CALL(g, CONV_TRANSPOSE2D, N(x), N(weight), N(bias), INTS(g, 2, 2), INTS(g, 0, 0)));
}

static const double MOMENTUM = 0.03, EPSILON = 1e-3;

static inline bnd_node *batch_norm(bnd_graph *g, const char *name, bnd_node *x) {
  const bnd_shape shape = BND_SHAPE(channels_of(x));
  bnd_node *gamma = inferred(attribute(g, joined(g, name, "weight"), shape, 0.5, 1.5, true));
  bnd_node *beta = inferred(attribute(g, joined(g, name, "bias"), shape, -0.4, 0.4, true));
  bnd_node *mean = inferred(attribute(g, joined(g, name, "running_mean"), shape, -0.3, 0.3, false));
  bnd_node *variance = inferred(attribute(g, joined(g, name, "running_var"), shape, 0.4, 1.2, false));
  return inferred(CALL(g, BATCH_NORM, N(x), N(gamma), N(beta), N(mean), N(variance), B(false), F(MOMENTUM), F(EPSILON), B(true)));
}

static inline bnd_node *relu(bnd_graph *g, bnd_node *x) {
  return inferred(CALL(g, RELU, N(x)));
}

static inline bnd_node *add(bnd_graph *g, bnd_node *x, bnd_node *y) {
  return inferred(CALL(g, ADD, N(x), N(y)));
}

static inline bnd_node *normalized(bnd_graph *g, const char *name, bnd_node *x, int64_t channels, window w) {
  return relu(g, batch_norm(g, joined(g, name, "bn"), convolution(g, joined(g, name, "conv"), x, channels, w)));
}

static inline bnd_node *pooled(bnd_graph *g, bnd_node *x, int64_t size) {
  return inferred(CALL(g, MAX_POOL2D, N(x), INTS(g, size, size), INTS(g, 1, 1), INTS(g, size / 2, size / 2)));
}

static inline bnd_graph *new_graph(bnd_node **x, bnd_shape shape) {
  bnd_graph *g;
  ASSERT_OK(bnd_graph_create(&g, error));
  *x = bnd_graph_placeholder(g, "x", &shape);
  assert_non_null(*x);
  return g;
}

static inline bnd_graph *finished(bnd_graph *g, bnd_arg outputs) {
  bnd_graph_output(g, outputs);
  ASSERT_OK(bnd_graph_status(g, error));
  ASSERT_OK(bnd_infer_shapes(g, error));
  return g;
}

/* --- the graphs; the first two outputs are those with gradients --- */

/* Convolutions of all kinds, concatenation of channels that fill no block, pool; a class branch and one with a softmax, as YOLO-NAS has them. */
static inline bnd_graph *layers_graph(void) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, 3, 12, 16));
  bnd_node *stem = normalized(g, "stem", x, 12, (window){3, 2, 1, 1, false});
  bnd_node *wide = relu(g, convolution(g, "wide", stem, 16, (window){1, 1, 0, 1, true}));
  bnd_node *grouped = normalized(g, "grouped", wide, 8, (window){3, 1, 1, 4, true});
  bnd_node *pool = pooled(g, wide, 5);
  bnd_node *all = inferred(CALL(g, CAT, NODES(g, stem, grouped, pool), I(1)));
  bnd_node *up = transposed_convolution(g, "up", normalized(g, "down", all, 10, (window){3, 2, 1, 1, true}), 6);
  bnd_node *both = inferred(CALL(g, CAT, NODES(g, up, wide), I(1)));
  bnd_node *classes = convolution(g, "classes", normalized(g, "before", both, 20, (window){3, 1, 1, 1, false}), 5, (window){1, 1, 0, 1, true});
  bnd_node *logits = CALL(g, PERMUTE, N(CALL(g, FLATTEN, N(classes), I(2))), INTS(g, 0, 2, 1));
  bnd_node *sides = convolution(g, "sides", both, 12, (window){1, 1, 0, 1, true});
  bnd_node *rows = CALL(g, PERMUTE, N(CALL(g, RESHAPE, N(sides), INTS(g, -1, 4, 3, 48))), INTS(g, 0, 2, 3, 1));
  bnd_node *boxes = CALL(g, SOFTMAX, N(rows), I(1));
  bnd_node *scores = CALL(g, SIGMOID, N(logits));
  return finished(g, NODES(g, logits, boxes, scores));
}

/* Sums: branches as in QARepVGG, factors that are parameters, relu in front of a sum, values with several users, operands that are parameters. */
static inline bnd_graph *sums_graph(void) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, 5, 7, 9));
  bnd_node *first = normalized(g, "first", x, 12, (window){3, 1, 1, 1, false});
  bnd_node *three = batch_norm(g, "three.bn", convolution(g, "three", first, 12, (window){3, 1, 1, 1, false}));
  bnd_node *one = convolution(g, "one", first, 12, (window){1, 1, 0, 1, true});
  bnd_node *branches = relu(g, batch_norm(g, "post", add(g, add(g, three, one), first)));
  bnd_node *alpha = inferred(attribute(g, "alpha", BND_SHAPE(1), 0.4, 0.6, true));
  bnd_node *scaled = inferred(CALL(g, MUL, N(alpha), N(first)));
  bnd_node *shortcut = add(g, scaled, branches);
  bnd_node *behind = add(g, add(g, normalized(g, "behind", shortcut, 12, (window){1, 1, 0, 1, false}), shortcut), one);
  bnd_node *beta = inferred(attribute(g, "beta", BND_SHAPE(1), -0.6, -0.4, true));
  bnd_node *itself = batch_norm(g, "itself", behind);
  bnd_node *norm_and_scaled = add(g, itself, inferred(CALL(g, MUL, N(behind), N(beta))));
  bnd_node *difference = inferred(CALL(g, SUB, N(norm_and_scaled), N(behind)));
  bnd_node *place = inferred(attribute(g, "place", BND_SHAPE(1, 12, 7, 9), -0.5, 0.5, true));
  bnd_node *placed = add(g, batch_norm(g, "placed", difference), place);
  bnd_node *gain = inferred(attribute(g, "gain", BND_SHAPE(1, 12, 1, 1), 0.5, 1.5, true));
  bnd_node *gained = inferred(CALL(g, MUL, N(placed), N(gain)));
  bnd_node *doubled = add(g, gained, gained);
  bnd_node *half = inferred(CALL(g, MUL, N(relu(g, doubled)), F(0.5)));
  return finished(g, NODES(g, half, relu(g, difference), shortcut));
}

/* What Quark's flow turns into quantized modules: convolutions with and without batch norm, also in front of sums, and everything around them. */
static inline bnd_graph *plain_graph(void) {
  bnd_node *x;
  bnd_graph *g = new_graph(&x, BND_SHAPE(1, 3, 16, 16));
  bnd_node *stem = normalized(g, "stem", x, 12, (window){3, 2, 1, 1, true});
  bnd_node *wide = normalized(g, "wide", stem, 16, (window){3, 1, 1, 1, false});
  bnd_node *pool = pooled(g, wide, 3);
  bnd_node *all = inferred(CALL(g, CAT, NODES(g, stem, wide, pool), I(1)));
  bnd_node *narrow = normalized(g, "narrow", all, 12, (window){1, 1, 0, 1, true});
  bnd_node *alpha = inferred(attribute(g, "alpha", BND_SHAPE(1), 0.4, 0.6, true));
  bnd_node *sum = add(g, inferred(CALL(g, MUL, N(alpha), N(stem))), narrow);
  bnd_node *up = transposed_convolution(g, "up", normalized(g, "down", sum, 8, (window){3, 2, 1, 1, false}), 6);
  bnd_node *both = inferred(CALL(g, CAT, NODES(g, up, sum), I(1)));
  bnd_node *classes = convolution(g, "classes", normalized(g, "before", both, 20, (window){3, 1, 1, 1, false}), 5, (window){1, 1, 0, 1, true});
  bnd_node *logits = CALL(g, PERMUTE, N(CALL(g, RESHAPE, N(classes), INTS(g, -1, 5, 64))), INTS(g, 0, 2, 1));
  bnd_node *sides = convolution(g, "sides", both, 12, (window){1, 1, 0, 1, true});
  bnd_node *boxes = CALL(g, SOFTMAX, N(CALL(g, PERMUTE, N(CALL(g, RESHAPE, N(sides), INTS(g, -1, 4, 3, 64))), INTS(g, 0, 2, 3, 1))), I(1));
  return finished(g, NODES(g, logits, boxes));
}

/* --- quantizers --- */

typedef struct pictures {
  float **images;
  size_t size;
} pictures;

static inline bnd_status load_picture(void *user, size_t index, float *input, bnd_error *error) {
  (void)error;
  const pictures *from = user;
  memcpy(input, from->images[index], from->size * sizeof(float));
  return BND_OK;
}

static inline void calibrate(bnd_graph *graph, float **images, size_t count, size_t size, size_t batch) {
  pictures from = {images, size};
  const bnd_image_source source = {.user = &from, .count = count, .input_size = size, .load = load_picture};
  const bnd_calibration calibration = {.batch = batch, .backend = BND_BACKEND_REFERENCE};
  const bnd_context context = {.threads = 1};
  ASSERT_OK(bnd_calibrate(graph, &source, &calibration, &context, error));
}

static inline void insert_quantizers(bnd_graph *graph, const bnd_quantization_config *config) {
  ASSERT_OK(bnd_quark_mark_scope(graph, error));
  ASSERT_OK(bnd_quark_prepare(graph, error));
  ASSERT_OK(bnd_quark_insert_quantizers(graph, config, error));
  ASSERT_OK(bnd_infer_shapes(graph, error));
}

/* --- a network with images --- */

typedef bnd_graph *graph_maker(void);

static inline bnd_graph *quantized_graph(void) {
  bnd_graph *graph = plain_graph();
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  insert_quantizers(graph, &config);
  return graph;
}

static inline bnd_graph *mse_graph(void) {
  bnd_graph *graph = plain_graph();
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MSE);
  insert_quantizers(graph, &config);
  return graph;
}

enum { MOST_IMAGES = 5 };

typedef struct fixture {
  bnd_graph *graph;
  bnd_network *network;
  float *images[MOST_IMAGES];
  size_t input_size;
  int batch;
} fixture;

static inline fixture open_fixture(graph_maker *make, bool quantize, bnd_exec_backend backend, int batch, int threads, bnd_network_mode mode) {
  static const int outputs[] = {0, 1};
  fixture f = {.graph = make(), .batch = batch};
  assert_true(bnd_shape_count(&bnd_graph_first(f.graph)->shape[0], &f.input_size));
  for (int i = 0; i < MOST_IMAGES; i++) {
    f.images[i] = malloc(f.input_size * sizeof(float));
    fill_uniform(f.images[i], f.input_size, -1, 1, 77 + (uint64_t)i);
  }
  if (quantize) calibrate(f.graph, f.images, MOST_IMAGES, f.input_size, 2);
  const bnd_network_options options = {.batch = batch, .threads = threads, .quantize = quantize, .backend = backend, .gradient_outputs = outputs,
                                       .gradient_output_count = 2};
  ASSERT_OK(bnd_network_create(f.graph, &options, &f.network, error));
  bnd_network_set_mode(f.network, mode);
  return f;
}

static inline void close_fixture(fixture *f) {
  bnd_network_destroy(f->network);
  bnd_graph_destroy(f->graph);
  for (int i = 0; i < MOST_IMAGES; i++) free(f->images[i]);
}

static inline size_t output_size(const bnd_network *network, int output) {
  size_t count;
  assert_true(bnd_shape_count(bnd_network_output_shape(network, output), &count));
  return count;
}

/* The objective of all tests: a fixed linear function of the two outputs. */
static inline void output_factors(const bnd_network *network, int output, int image, float *factors) {
  fill_uniform(factors, output_size(network, output), -1, 1, 1000 + 10 * (uint64_t)output + (uint64_t)image);
}

static inline void forward(fixture *f) {
  ASSERT_OK(bnd_network_forward(f->network, (const float *const *)f->images, NULL, NULL, error));
}

static inline void write_output_gradients(fixture *f) {
  for (int output = 0; output < 2; output++)
    for (int image = 0; image < f->batch; image++) output_factors(f->network, output, image, bnd_network_output_gradient(f->network, output, image));
}

static inline void backward(fixture *f) {
  write_output_gradients(f);
  ASSERT_OK(bnd_network_backward(f->network, NULL, NULL, error));
}

static inline void pass(fixture *f) {
  bnd_network_zero_gradients(f->network);
  forward(f);
  backward(f);
}

static inline double objective(fixture *f) {
  double sum = 0;
  forward(f);
  for (int output = 0; output < 2; output++) {
    const size_t count = output_size(f->network, output);
    float *factors = malloc(count * sizeof *factors);
    for (int image = 0; image < f->batch; image++) {
      output_factors(f->network, output, image, factors);
      const float *values = bnd_network_output(f->network, output, image);
      for (size_t k = 0; k < count; k++) sum += (double)factors[k] * (double)values[k];
    }
    free(factors);
  }
  return sum;
}

/* --- the bytes of everything a pass leaves behind --- */

typedef struct record {
  char *bytes;
  size_t count;
} record;

static inline void put(record *r, const void *bytes, size_t count) {
  r->bytes = realloc(r->bytes, r->count + count + 1);
  assert_non_null(r->bytes);
  memcpy(r->bytes + r->count, bytes, count);
  r->count += count;
}

static inline void put_outputs(record *r, const fixture *f) {
  for (int output = 0; output < bnd_network_output_count(f->network); output++)
    for (int image = 0; image < f->batch; image++)
      if (bnd_network_output(f->network, output, image))
        put(r, bnd_network_output(f->network, output, image), output_size(f->network, output) * sizeof(float));
}

static inline void put_parameters(record *r, const bnd_network *network, bool gradients) {
  size_t count;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  for (size_t i = 0; i < count; i++) put(r, gradients ? p[i].gradient : p[i].value, p[i].count * sizeof(float));
}

static inline void put_state(record *r, const bnd_network *network) {
  size_t count;
  const bnd_statistic *s = bnd_network_statistics(network, &count);
  for (size_t i = 0; i < count; i++) put(r, s[i].value, s[i].count * sizeof(float));
  const bnd_network_quantizer *q = bnd_network_quantizers(network, &count);
  for (size_t i = 0; i < count; i++) {
    const bnd_quantizer *it = q[i].quantizer;
    const size_t channels = (size_t)it->channels;
    put(r, it->position, channels * sizeof(int));
    put(r, it->zero_point, channels * sizeof(int));
    put(r, it->minimum, channels * sizeof(float));
    put(r, it->maximum, channels * sizeof(float));
    put(r, &it->record_count, sizeof it->record_count);
    for (size_t k = 0; k < it->record_count; k++) {
      put(r, it->records[k].position, 2 * channels * sizeof(int));
      put(r, &it->records[k].votes, sizeof it->records[k].votes);
    }
  }
}

static inline bool same_record(const record *a, const record *b) {
  return a->count == b->count && memcmp(a->bytes, b->bytes, a->count) == 0;
}

#endif
