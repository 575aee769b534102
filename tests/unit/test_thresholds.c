/* Trained quantization thresholds: forward and backward against the closed form and against Quark's TQTQuantize (data/thresholds.txt, made by
   golden/make_thresholds.py); that they move where they should; what the trainer makes of them. */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "graph_builder.h"

#include "autograd/network.h"
#include "base/file.h"
#include "exec/exec.h"
#include "train/trainer.h"

/* --- graphs --- */

static bnd_quantizer *new_quantizer(int position, bool per_channel) {
  bnd_quantizer *made = bnd_quantizer_create(&(bnd_quantizer_spec){.dtype = BND_I8, .per_channel = per_channel});
  assert_non_null(made);
  made->position[0] = position;
  return made;
}

static bnd_node *call_module(bnd_graph *g, bnd_operator_id id, bnd_module *module, bnd_node *x) {
  const bnd_arg arg = bnd_arg_of_node(x);
  bnd_node *node = bnd_graph_add(g, BND_CALL_MODULE, bnd_operator_of(id), module->name, module->name, &arg, 1);
  assert_non_null(node);
  node->module = module;
  return node;
}

static bnd_node *quantize(bnd_graph *g, bnd_node *x, int position) {
  bnd_module *module = bnd_graph_add_module(g, "fake_quantizer");
  module->quantizer = new_quantizer(position, false);
  return call_module(g, BND_OP_FAKE_QUANTIZE, module, x);
}

static bnd_tensor uniform(bnd_shape shape, double low, double high, uint64_t seed) {
  bnd_tensor tensor;
  ASSERT_OK(bnd_tensor_create(BND_F32, &shape, &tensor, error));
  fill_uniform(bnd_f32(&tensor), tensor.count, low, high, seed);
  return tensor;
}

static bnd_graph *finished(bnd_graph *g, bnd_node *output) {
  bnd_graph_output(g, bnd_arg_of_node(output));
  ASSERT_OK(bnd_graph_status(g, error));
  ASSERT_OK(bnd_infer_shapes(g, error));
  return g;
}

/* A parameter of `count` values behind a quantizer; the input is not used. */
static bnd_graph *parameter_graph(const float *values, int64_t count, int position) {
  bnd_graph *g;
  ASSERT_OK(bnd_graph_create(&g, error));
  bnd_graph_placeholder(g, "x", &BND_SHAPE(1));
  bnd_tensor tensor = uniform(BND_SHAPE(1, count), -1, 1, 1);
  memcpy(tensor.data, values, (size_t)count * sizeof *values);
  ASSERT_OK(bnd_graph_set_attribute(g, "p", &tensor, true, error));
  return finished(g, quantize(g, bnd_graph_get_attr(g, "p", "p"), position));
}

static bnd_module *convolution(bnd_graph *g, const char *name, int64_t channels, int64_t from, int position, bool batch_norm) {
  bnd_module *m = bnd_graph_add_module(g, name);
  m->weight = uniform(BND_SHAPE(channels, from, 3, 3), -0.4, 0.4, (uint64_t)channels);
  m->stride[0] = m->stride[1] = m->padding[0] = m->padding[1] = m->dilation[0] = m->dilation[1] = m->groups = 1;
  m->scale = 1;
  m->weight_quantizer = new_quantizer(position, false);
  m->bias_quantizer = new_quantizer(7, false);
  m->has_batch_norm = batch_norm;
  if (!batch_norm) {
    m->bias = uniform(BND_SHAPE(channels), -0.2, 0.2, 5);
    return m;
  }
  m->bn_weight = uniform(BND_SHAPE(channels), 0.5, 1.5, 1);
  m->bn_bias = uniform(BND_SHAPE(channels), -0.5, 0.5, 2);
  m->bn_running_mean = uniform(BND_SHAPE(channels), -0.3, 0.3, 3);
  m->bn_running_var = uniform(BND_SHAPE(channels), 0.5, 1.5, 4);
  m->bn_epsilon = 1e-3;
  m->bn_momentum = 0.03;
  return m;
}

enum { INPUT = 3 * 8 * 8 };

/* Quantized input, convolution with batch norm, relu, quantizer, convolution with a bias, quantizer. */
static bnd_graph *layers_graph(void) {
  bnd_graph *g;
  ASSERT_OK(bnd_graph_create(&g, error));
  bnd_node *x = quantize(g, bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 3, 8, 8)), 6);
  x = call_module(g, BND_OP_CONV2D_BN_MODULE, convolution(g, "first", 6, 3, 8, true), x);
  const bnd_arg arg = bnd_arg_of_node(x);
  x = quantize(g, bnd_graph_call(g, bnd_operator_of(BND_OP_RELU), "relu", &arg, 1), 5);
  x = call_module(g, BND_OP_CONV2D_MODULE, convolution(g, "second", 4, 6, 9, false), x);
  return finished(g, quantize(g, x, 5));
}

/* --- networks --- */

typedef struct fixture {
  bnd_graph *graph;
  bnd_network *network;
  int batch;
  float inputs[5][INPUT];
  const float *images[5];
} fixture;

static fixture *new_fixture(bnd_graph *graph, int batch, int threads, bnd_exec_backend backend, float margin) {
  fixture *f = calloc(1, sizeof *f);
  f->graph = graph;
  f->batch = batch;
  const int outputs[] = {0};
  const bnd_network_options options = {.batch = batch, .threads = threads, .quantize = true, .backend = backend, .gradient_outputs = outputs,
                                       .gradient_output_count = 1, .learn_thresholds = true, .threshold_margin = margin};
  ASSERT_OK(bnd_network_create(graph, &options, &f->network, error));
  for (int i = 0; i < batch; i++) {
    fill_uniform(f->inputs[i], INPUT, -1.5, 1.5, (uint64_t)i + 40);
    f->images[i] = f->inputs[i];
  }
  return f;
}

static void free_fixture(fixture *f) {
  bnd_network_destroy(f->network);
  bnd_graph_destroy(f->graph);
  free(f);
}

static bnd_parameter *find(const fixture *f, const char *name) {
  size_t count;
  bnd_parameter *parameters = bnd_network_parameters(f->network, &count);
  for (size_t i = 0; i < count; i++)
    if (strcmp(parameters[i].name, name) == 0) return &parameters[i];
  return NULL;
}

static size_t output_count(const fixture *f) {
  size_t count;
  assert_true(bnd_shape_count(bnd_network_output_shape(f->network, 0), &count));
  return count;
}

static void forward(fixture *f, bnd_network_mode mode) {
  bnd_network_set_mode(f->network, mode);
  bnd_network_zero_gradients(f->network);
  ASSERT_OK(bnd_network_forward(f->network, f->images, NULL, NULL, error));
}

/* From some output gradients, the same each time. */
static void backward(bnd_network *network, int batch, size_t count) {
  for (int i = 0; i < batch; i++) fill_uniform(bnd_network_output_gradient(network, 0, i), count, -1, 1, (uint64_t)i + 90);
  ASSERT_OK(bnd_network_backward(network, NULL, NULL, error));
}

static void both_passes(fixture *f, bnd_network_mode mode) {
  forward(f, mode);
  backward(f->network, f->batch, output_count(f));
}

static const bnd_quantizer *quantizer_called(const fixture *f, const char *name) {
  size_t count;
  const bnd_network_quantizer *quantizers = bnd_network_quantizers(f->network, &count);
  for (size_t q = 0; q < count; q++)
    if (strcmp(quantizers[q].name, name) == 0) return quantizers[q].quantizer;
  fail_msg("no quantizer %s", name);
  return NULL;
}

/* --- one quantizer --- */

typedef struct quark_case {
  float threshold;
  size_t count;
  float x[64], gradient[64], output[64], input_gradient[64];
  double threshold_gradient[2]; /* float32, double */
} quark_case;

static void read_numbers(char **at, const char *name, float *to, size_t count) {
  assert_int_equal(strncmp(*at, name, strlen(name)), 0);
  *at += strlen(name);
  for (size_t i = 0; i < count; i++) to[i] = strtof(*at, at);
  assert_int_equal(*(*at)++, '\n');
}

static void read_case(char **at, quark_case *c) {
  assert_int_equal(strncmp(*at, "case ", 5), 0);
  c->threshold = strtof(*at + 5, at);
  c->count = strtoul(*at, at, 10);
  assert_in_range(c->count, 1, 64);
  ++*at;
  read_numbers(at, "x", c->x, c->count);
  read_numbers(at, "gradient", c->gradient, c->count);
  read_numbers(at, "output", c->output, c->count);
  read_numbers(at, "input_gradient", c->input_gradient, c->count);
  assert_int_equal(strncmp(*at, "threshold_gradient", 18), 0);
  *at += 18;
  for (int i = 0; i < 2; i++) c->threshold_gradient[i] = strtod(*at, at);
  assert_int_equal(*(*at)++, '\n');
}

/* The closed form, from its definition. */
static double threshold_gradient_of(const quark_case *c, float *input_gradient) {
  const double s = exp2(ceil((double)c->threshold)) / 128;
  double sum = 0;
  for (size_t i = 0; i < c->count; i++) {
    const double q = (double)c->x[i] / s, r = q < 0 && q - floor(q) == 0.5 ? ceil(q) : rint(q);
    const bool inside = r >= -128 && r <= 127;
    sum += (double)c->gradient[i] * s * log(2) * (inside ? r - q : r < 0 ? -128 : 127);
    input_gradient[i] = inside ? c->gradient[i] : 0;
  }
  return sum;
}

static void check_case(const quark_case *c) {
  fixture *f = new_fixture(parameter_graph(c->x, (int64_t)c->count, 7), 1, 1, BND_BACKEND_REFERENCE, 0);
  bnd_parameter *t = find(f, "fake_quantizer.log2_threshold"), *p = find(f, "p");
  assert_true(t && p && t->threshold && t->count == 1 && !p->threshold);
  t->value[0] = c->threshold;
  forward(f, BND_MODE_TRAIN);
  assert_int_equal(quantizer_called(f, "fake_quantizer")->position[0], 7 - (int)ceilf(c->threshold));
  for (size_t i = 0; i < c->count; i++) assert_true(bnd_network_output(f->network, 0, 0)[i] == c->output[i]);
  memcpy(bnd_network_output_gradient(f->network, 0, 0), c->gradient, c->count * sizeof(float));
  ASSERT_OK(bnd_network_backward(f->network, NULL, NULL, error));
  float closed[64];
  const double expected = threshold_gradient_of(c, closed), got = (double)t->gradient[0];
  assert_true(t->reached && p->reached);
  assert_true(fabs(got - expected) <= 1e-7 * fabs(expected));
  assert_true(fabs(got - c->threshold_gradient[1]) <= 1e-7 * fabs(expected));
  assert_true(fabs(got - c->threshold_gradient[0]) <= 2e-6 * fabs(expected) + 1e-7);
  for (size_t i = 0; i < c->count; i++) assert_true(p->gradient[i] == c->input_gradient[i] && p->gradient[i] == closed[i]);
  free_fixture(f);
}

static void gradients_are_quarks_and_the_closed_form(void **state) {
  (void)state;
  char *text;
  size_t size;
  int cases = 0;
  ASSERT_OK(bnd_file_read(TEST_DATA "/thresholds.txt", 1 << 20, &text, &size, error));
  for (char *at = text; *at; cases++) {
    quark_case c;
    read_case(&at, &c);
    check_case(&c);
  }
  free(text);
  assert_int_equal(cases, 8);
}

/* --- many --- */

static void thresholds_start_at_what_was_calibrated(void **state) {
  (void)state;
  fixture *f = new_fixture(layers_graph(), 2, 1, BND_BACKEND_REFERENCE, 0);
  const struct { const char *name; float start; } expected[] = {{"fake_quantizer.log2_threshold", 1}, {"first._weight_quantizer.log2_threshold", -1},
      {"fake_quantizer_1.log2_threshold", 2}, {"second._weight_quantizer.log2_threshold", -2}, {"fake_quantizer_2.log2_threshold", 2}};
  size_t count, thresholds = 0;
  const bnd_parameter *parameters = bnd_network_parameters(f->network, &count);
  for (size_t i = 0; i < count; i++) thresholds += parameters[i].threshold;
  assert_int_equal(thresholds, 5); /* none for biases */
  for (size_t i = 0; i < 5; i++) {
    const bnd_parameter *t = find(f, expected[i].name);
    assert_non_null(t);
    assert_true(t->value[0] == expected[i].start && t->shape.rank == 1);
  }
  both_passes(f, BND_MODE_TRAIN);
  assert_int_equal(quantizer_called(f, "fake_quantizer_1")->position[0], 5);
  assert_int_equal(quantizer_called(f, "fake_quantizer_1")->record_count, 0); /* nothing observed */
  assert_int_not_equal(quantizer_called(f, "first._bias_quantizer")->record_count, 0);
  for (size_t i = 0; i < 5; i++) assert_true(find(f, expected[i].name)->reached && find(f, expected[i].name)->gradient[0] != 0);
  free_fixture(f);

  f = new_fixture(layers_graph(), 2, 1, BND_BACKEND_REFERENCE, 0.5f);
  assert_true(find(f, "fake_quantizer.log2_threshold")->value[0] == 0.5f);
  forward(f, BND_MODE_TRAIN);
  assert_int_equal(quantizer_called(f, "fake_quantizer")->position[0], 6); /* the same scale */
  free_fixture(f);
}

/* The definition, where no value is an exact half. */
static double by_definition(const float *x, const float *dy, size_t count, double s) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) {
    const double q = (double)x[i] / s, r = rint(q);
    sum += (double)dy[i] * (r < -128 ? -128 : r > 127 ? 127 : r - q);
  }
  return sum * s * log(2);
}

static void weight_thresholds_get_the_gradient_of_the_quantized_weight(void **state) {
  (void)state;
  /* in evaluation a network without thresholds has the same quantizers, and the gradient of Q(W) is that of the weight: straight through */
  fixture *f = new_fixture(layers_graph(), 3, 1, BND_BACKEND_REFERENCE, 0);
  bnd_parameter *t = find(f, "second._weight_quantizer.log2_threshold"), *last = find(f, "fake_quantizer_2.log2_threshold");
  t->value[0] = -2.2f;    /* 2^-2: weights up to 0.4 are cut off */
  last->value[0] = 3.4f; /* wide: nothing is cut off, as in the observed network's backward pass */
  forward(f, BND_MODE_EVALUATE);
  bnd_network *plain;
  const int outputs[] = {0};
  const bnd_network_options options = {.batch = 3, .threads = 1, .quantize = true, .backend = BND_BACKEND_REFERENCE, .gradient_outputs = outputs,
                                       .gradient_output_count = 1};
  ASSERT_OK(bnd_network_create(f->graph, &options, &plain, error));
  ASSERT_OK(bnd_network_forward(plain, f->images, NULL, NULL, error));
  for (int i = 0; i < 3; i++)
    assert_memory_equal(bnd_network_output(plain, 0, i), bnd_network_output(f->network, 0, i), output_count(f) * sizeof(float));
  backward(f->network, 3, output_count(f));
  backward(plain, 3, output_count(f));
  size_t count;
  const bnd_parameter *parameters = bnd_network_parameters(plain, &count);
  const bnd_parameter *weight = NULL;
  for (size_t i = 0; i < count; i++) {
    assert_false(parameters[i].threshold);
    if (strcmp(parameters[i].name, "second.weight") == 0) weight = &parameters[i];
  }
  assert_non_null(weight);
  const double expected = by_definition(weight->value, weight->gradient, weight->count, 0.25 / 128);
  assert_true(fabs((double)t->gradient[0] - expected) <= 1e-6 * fabs(expected));
  const bnd_parameter *masked = find(f, "second.weight");
  size_t cut = 0;
  for (size_t i = 0; i < weight->count; i++) {
    const bool inside = rintf(weight->value[i] * 512) >= -128 && rintf(weight->value[i] * 512) <= 127;
    assert_true(masked->gradient[i] == (inside ? weight->gradient[i] : 0));
    cut += !inside;
  }
  assert_in_range(cut, 10, weight->count - 10);
  bnd_network_destroy(plain);
  free_fixture(f);
}

/* Least squares between values and their quantized selves, by the trainer's optimizer. */
static float settle(float start) {
  float values[64];
  fill_uniform(values, 64, -1.4, 1.4, 3);
  fixture *f = new_fixture(parameter_graph(values, 64, 7), 1, 1, BND_BACKEND_REFERENCE, 0);
  bnd_parameter *t = find(f, "fake_quantizer.log2_threshold");
  t->value[0] = start;
  bnd_optimizer *optimizer;
  const bnd_optimizer_options adam = {.kind = BND_ADAMW};
  const bnd_optimizer_parameter trained = {t->value, t->gradient, 1, 0, 1e4};
  ASSERT_OK(bnd_optimizer_create(&adam, &trained, 1, &optimizer, error));
  for (int k = 0; k < 3000; k++) {
    forward(f, BND_MODE_TRAIN);
    for (int i = 0; i < 64; i++) bnd_network_output_gradient(f->network, 0, 0)[i] = bnd_network_output(f->network, 0, 0)[i] - values[i];
    ASSERT_OK(bnd_network_backward(f->network, NULL, NULL, error));
    bnd_optimizer_step(optimizer, 2e-6, 1, 1);
  }
  const float end = t->value[0];
  bnd_optimizer_destroy(optimizer);
  free_fixture(f);
  return end;
}

static void thresholds_move_to_where_the_values_end(void **state) {
  (void)state;
  const float from_below = settle(-3), from_above = settle(6);
  /* values end at 1.4: 2^1 is wider than they need and 2^0 cuts too many off, so in the end t goes to and fro about 0 */
  assert_true(from_below > -0.1f && from_below < 1.05f);
  assert_true(from_above > -0.1f && from_above < 1.05f);
}

/* --- the same for any number of threads and both backends --- */

static void any_number_of_threads_gives_the_same_bits(void **state) {
  (void)state;
  for (int backend = 0; backend < 2; backend++) {
    fixture *one = new_fixture(layers_graph(), 5, 1, backend ? BND_BACKEND_ONEDNN : BND_BACKEND_REFERENCE, 0.5f);
    fixture *three = new_fixture(layers_graph(), 5, 3, backend ? BND_BACKEND_ONEDNN : BND_BACKEND_REFERENCE, 0.5f);
    both_passes(one, BND_MODE_TRAIN);
    both_passes(three, BND_MODE_TRAIN);
    size_t count, others;
    const bnd_parameter *a = bnd_network_parameters(one->network, &count), *b = bnd_network_parameters(three->network, &others);
    assert_int_equal(count, others);
    for (size_t i = 0; i < count; i++) assert_memory_equal(a[i].gradient, b[i].gradient, a[i].count * sizeof(float));
    free_fixture(one);
    free_fixture(three);
  }
}

static void backends_agree(void **state) {
  (void)state;
  fixture *a = new_fixture(layers_graph(), 3, 1, BND_BACKEND_REFERENCE, 0.5f), *b = new_fixture(layers_graph(), 3, 1, BND_BACKEND_ONEDNN, 0.5f);
  both_passes(a, BND_MODE_FROZEN);
  both_passes(b, BND_MODE_FROZEN);
  size_t count;
  const bnd_parameter *p = bnd_network_parameters(a->network, &count), *q = bnd_network_parameters(b->network, &count);
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; p[i].threshold && k < p[i].count; k++)
      assert_true(fabsf(p[i].gradient[k] - q[i].gradient[k]) <= 1e-3f * fabsf(p[i].gradient[k]) + 1e-4f);
  free_fixture(a);
  free_fixture(b);
}

/* --- the trainer --- */

enum { CLASSES = 8, REG_MAX = 3, SIDE = 32 };

static bnd_node *call(bnd_graph *g, bnd_operator_id id, const bnd_arg *args, int count) {
  bnd_node *node = bnd_graph_call(g, bnd_operator_of(id), bnd_operator_of(id)->name, args, count);
  assert_non_null(node);
  return node;
}

/* [1, anchors of the three strides, channels]: one convolution for each stride. */
static bnd_node *head(bnd_graph *g, const char *name, bnd_node *x, int64_t channels) {
  bnd_node *levels[3];
  for (int i = 0; i < 3; i++) {
    const int64_t stride = 8 << i;
    bnd_module *m = convolution(g, name, channels, 3, 8, false);
    bnd_tensor_release(&m->weight);
    m->weight = uniform(BND_SHAPE(channels, 3, stride, stride), -0.1, 0.1, (uint64_t)(channels + stride));
    m->stride[0] = m->stride[1] = stride;
    m->padding[0] = m->padding[1] = 0;
    bnd_node *y = quantize(g, call_module(g, BND_OP_CONV2D_MODULE, m, x), 6);
    levels[i] = call(g, BND_OP_FLATTEN, (const bnd_arg[]){bnd_arg_of_node(y), bnd_arg_of_int(2)}, 2);
  }
  bnd_node *all = call(g, BND_OP_CAT, (const bnd_arg[]){bnd_graph_node_list(g, levels, 3), bnd_arg_of_int(2)}, 2);
  return call(g, BND_OP_PERMUTE, (const bnd_arg[]){bnd_arg_of_node(all), bnd_graph_int_list(g, (const int64_t[]){0, 2, 1}, 3)}, 2);
}

static bnd_graph *detector_graph(void) {
  bnd_graph *g;
  ASSERT_OK(bnd_graph_create(&g, error));
  bnd_node *x = quantize(g, bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 3, SIDE, SIDE)), 7);
  bnd_node *outputs[2] = {head(g, "classes", x, CLASSES), head(g, "boxes", x, 4 * (REG_MAX + 1))};
  bnd_graph_output(g, bnd_graph_node_list(g, outputs, 2));
  ASSERT_OK(bnd_graph_status(g, error));
  ASSERT_OK(bnd_infer_shapes(g, error));
  return g;
}

typedef struct training {
  bnd_graph *graph;
  bnd_network *network;
  bnd_coco coco;
  bnd_loader loader;
  bnd_trainer *trainer;
} training;

static void new_training(training *t, int threads) {
  const int outputs[] = {0, 1};
  t->graph = detector_graph();
  ASSERT_OK(bnd_network_create(t->graph, &(bnd_network_options){.batch = 4, .threads = threads, .quantize = true, .gradient_outputs = outputs,
                                                               .gradient_output_count = 2, .learn_thresholds = true}, &t->network, error));
  ASSERT_OK(bnd_coco_open(TEST_DATA "/../../examples/shapes", "val2017", &t->coco, error));
  bnd_loader_options options = bnd_loader_options_default(SIDE, 1);
  options.limit = 16;
  ASSERT_OK(bnd_loader_create(&t->coco, &options, &t->loader, error));
  const bnd_trainer_options trained = {.batch = 4, .threads = threads, .mode = BND_MODE_TRAIN, .optimizer = {.kind = BND_ADAMW}, .weight_decay = 0.1,
      .schedule = {.kind = BND_SCHEDULE_CONSTANT, .initial = 1e-3, .epochs = 2}, .average = true, .decay = {.kind = BND_DECAY_THRESHOLD, .decay = 0.9},
      .skip_direct = true, .classes = CLASSES, .reg_max = REG_MAX, .class_output = 0, .box_output = 1};
  ASSERT_OK(bnd_trainer_create(t->network, &t->loader, &trained, &t->trainer, error));
}

static void end_training(training *t) {
  bnd_trainer_destroy(t->trainer);
  bnd_network_destroy(t->network);
  bnd_graph_destroy(t->graph);
  bnd_loader_free(&t->loader);
  bnd_coco_close(&t->coco);
}

static void step_on(training *t, int steps) {
  bnd_step_report report;
  for (int i = 0; i < steps; i++) ASSERT_OK(bnd_trainer_step(t->trainer, NULL, &report, error));
}

static void assert_equal_training(const training *a, const training *b) {
  size_t count, others;
  const bnd_parameter *p = bnd_network_parameters(a->network, &count), *q = bnd_network_parameters(b->network, &others);
  assert_int_equal(count, others);
  for (size_t i = 0; i < count; i++) assert_memory_equal(p[i].value, q[i].value, p[i].count * sizeof(float));
  const bnd_network_quantizer *k = bnd_network_quantizers(a->network, &count), *l = bnd_network_quantizers(b->network, &others);
  for (size_t i = 0; i < count; i++) assert_int_equal(k[i].quantizer->position[0], l[i].quantizer->position[0]);
}

/* The quantizers of the graph stand as the thresholds say; returns how many thresholds have left where they started. */
static int assert_in_force(const training *t) {
  size_t count, quantizers;
  int moved = 0;
  const bnd_parameter *p = bnd_network_parameters(t->network, &count);
  const bnd_network_quantizer *q = bnd_network_quantizers(t->network, &quantizers);
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; p[i].threshold && k < quantizers; k++) {
      const size_t length = strlen(q[k].name);
      if (strncmp(p[i].name, q[k].name, length) != 0 || strcmp(p[i].name + length, ".log2_threshold") != 0) continue;
      assert_int_equal(q[k].quantizer->position[0], 7 - (int)ceilf(p[i].value[0]));
      assert_int_equal(q[k].quantizer->tensor_position, q[k].quantizer->position[0]);
      moved += p[i].value[0] != rintf(p[i].value[0]);
    }
  return moved;
}

static void training_goes_on_from_what_was_saved(void **state) {
  (void)state;
  char path[] = "/tmp/binade-thresholds-XXXXXX";
  const int file = mkstemp(path);
  assert_true(file >= 0);
  close(file);
  training whole = {0}, parts = {0}, rest = {0};
  new_training(&whole, 1);
  step_on(&whole, 7);
  assert_int_equal(assert_in_force(&whole), 13); /* the input's; six of weights; six of outputs */
  bnd_trainer_swap_average(whole.trainer);
  assert_in_force(&whole);
  bnd_trainer_swap_average(whole.trainer);

  new_training(&parts, 2);
  step_on(&parts, 3);
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  assert_non_null(writer);
  bnd_trainer_save(parts.trainer, writer, "trainer");
  ASSERT_OK(bnd_checkpoint_write(writer, path, error));
  bnd_checkpoint_writer_free(writer);
  end_training(&parts);

  new_training(&rest, 1);
  bnd_checkpoint *saved;
  ASSERT_OK(bnd_checkpoint_open(path, &saved, error));
  ASSERT_OK(bnd_trainer_restore(rest.trainer, saved, "trainer", error));
  bnd_checkpoint_close(saved);
  assert_in_force(&rest);
  step_on(&rest, 4);
  assert_equal_training(&whole, &rest);
  end_training(&rest);
  end_training(&whole);
  unlink(path);
}

/* AdamW's first step is the learning rate for all with a gradient: 1e-3 by default becomes 1e-2 for thresholds, and there is no decay. */
static void thresholds_have_a_learning_rate_of_their_own(void **state) {
  (void)state;
  training t = {0};
  new_training(&t, 1);
  step_on(&t, 1);
  size_t count;
  const bnd_parameter *p = bnd_network_parameters(t.network, &count);
  int moved = 0;
  for (size_t i = 0; i < count; i++) {
    if (!p[i].threshold || fabsf(p[i].gradient[0]) < 1e-4f) continue;
    assert_true(fabsf(fabsf(p[i].value[0] - rintf(p[i].value[0])) - 0.01f) < 1e-5f);
    moved++;
  }
  assert_in_range(moved, 7, 13);
  end_training(&t);
}

/* --- failures --- */

static void values_that_are_not_finite_are_named(void **state) {
  (void)state;
  fixture *f = new_fixture(layers_graph(), 1, 1, BND_BACKEND_REFERENCE, 0);
  bnd_network_set_mode(f->network, BND_MODE_TRAIN);
  bnd_error error = {0};
  f->inputs[0][7] = NAN;
  assert_int_equal(bnd_network_forward(f->network, f->images, NULL, NULL, &error), BND_ERROR_MODEL);
  assert_non_null(strstr(error.message, "not finite"));
  f->inputs[0][7] = 0;
  find(f, "first._weight_quantizer.log2_threshold")->value[0] = INFINITY;
  assert_int_equal(bnd_network_forward(f->network, f->images, NULL, NULL, &error), BND_ERROR_MODEL);
  assert_non_null(strstr(error.message, "first._weight_quantizer.log2_threshold"));
  free_fixture(f);
}

static void only_what_a_gradient_reaches_is_learned(void **state) {
  (void)state;
  bnd_graph *g = layers_graph();
  bnd_network *network;
  const bnd_network_options options = {.batch = 1, .threads = 1, .quantize = true, .backend = BND_BACKEND_REFERENCE, .learn_thresholds = true};
  ASSERT_OK(bnd_network_create(g, &options, &network, error));
  size_t count;
  const bnd_parameter *parameters = bnd_network_parameters(network, &count);
  for (size_t i = 0; i < count; i++) assert_false(parameters[i].threshold);
  bnd_network_destroy(network);
  bnd_graph_destroy(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gradients_are_quarks_and_the_closed_form),
      cmocka_unit_test(thresholds_start_at_what_was_calibrated),
      cmocka_unit_test(weight_thresholds_get_the_gradient_of_the_quantized_weight),
      cmocka_unit_test(thresholds_move_to_where_the_values_end),
      cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
      cmocka_unit_test(backends_agree),
      cmocka_unit_test(training_goes_on_from_what_was_saved),
      cmocka_unit_test(thresholds_have_a_learning_rate_of_their_own),
      cmocka_unit_test(values_that_are_not_finite_are_named),
      cmocka_unit_test(only_what_a_gradient_reaches_is_learned),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
