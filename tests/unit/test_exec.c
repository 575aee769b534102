/* The executor on small graphs: its two backends against each other and against values worked out by hand. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "exec/exec.h"

/* --- building graphs --- */

static uint32_t seed = 1;

static float random_value(void) { /* in [-1, 1) */
  seed = seed * 1664525u + 1013904223u;
  return (float)(seed >> 8) / 8388608.f - 1.f;
}

static bnd_tensor random_tensor(const bnd_shape *shape, float scale, float shift) {
  bnd_tensor tensor;
  assert_int_equal(bnd_tensor_create(BND_F32, shape, &tensor, NULL), BND_OK);
  for (size_t i = 0; i < tensor.count; i++) bnd_f32(&tensor)[i] = random_value() * scale + shift;
  return tensor;
}

static bnd_node *constant(bnd_graph *graph, const char *name, bnd_tensor tensor) {
  assert_int_equal(bnd_graph_set_attribute(graph, name, &tensor, true, NULL), BND_OK);
  return bnd_graph_get_attr(graph, name, name);
}

static bnd_node *unary(bnd_graph *graph, bnd_operator_id id, bnd_node *x) {
  const bnd_arg args[] = {bnd_arg_of_node(x)};
  return bnd_graph_call(graph, bnd_operator_of(id), bnd_operator_of(id)->name, args, 1);
}

static bnd_node *binary(bnd_graph *graph, bnd_operator_id id, bnd_node *x, bnd_node *y) {
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_node(y)};
  return bnd_graph_call(graph, bnd_operator_of(id), bnd_operator_of(id)->name, args, 2);
}

static bnd_node *cat(bnd_graph *graph, bnd_node *const *parts, int count, int64_t axis) {
  const bnd_arg args[] = {bnd_graph_node_list(graph, parts, count), bnd_arg_of_int(axis)};
  return bnd_graph_call(graph, bnd_operator_of(BND_OP_CAT), "cat", args, 2);
}

static bnd_node *with_ints(bnd_graph *graph, bnd_operator_id id, bnd_node *x, const int64_t *values, int count) {
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_graph_int_list(graph, values, count)};
  return bnd_graph_call(graph, bnd_operator_of(id), bnd_operator_of(id)->name, args, 2);
}

static bnd_quantizer *quantizer_at(int position) {
  const bnd_quantizer_spec spec = {BND_I8, BND_OBSERVER_POWER_OF_TWO_MIN_MAX, false, 0};
  bnd_quantizer *quantizer = bnd_quantizer_create(&spec);
  assert_non_null(quantizer);
  quantizer->position[0] = position;
  return quantizer;
}

static bnd_node *module_call(bnd_graph *graph, bnd_operator_id id, bnd_node *x, bnd_module *module) {
  const bnd_arg args[] = {bnd_arg_of_node(x)};
  bnd_node *node = bnd_graph_add(graph, BND_CALL_MODULE, bnd_operator_of(id), module->name, module->name, args, 1);
  node->module = module;
  return node;
}

static bnd_node *quantize(bnd_graph *graph, bnd_node *x, int position) {
  bnd_module *module = bnd_graph_add_module(graph, "fake_quantizer");
  module->quantizer = quantizer_at(position);
  return module_call(graph, BND_OP_FAKE_QUANTIZE, x, module);
}

typedef struct conv {
  int64_t in, out, window, stride, groups;
  bool transposed, bias, batch_norm, quantized;
} conv;

static bnd_node *convolution(bnd_graph *graph, bnd_node *x, conv c) {
  bnd_module *m = bnd_graph_add_module(graph, "conv");
  const int64_t per_group = c.groups ? c.groups : 1;
  const bnd_shape shape =
      c.transposed ? BND_SHAPE(c.in, c.out / per_group, c.window, c.window) : BND_SHAPE(c.out, c.in / per_group, c.window, c.window);
  m->weight = random_tensor(&shape, 2.f / sqrtf((float)(c.in * c.window * c.window)), 0.f);
  if (c.bias) m->bias = random_tensor(&BND_SHAPE(c.out), 0.5f, 0.f);
  m->stride[0] = m->stride[1] = c.stride;
  m->padding[0] = m->padding[1] = c.transposed ? 0 : c.window / 2;
  m->dilation[0] = m->dilation[1] = 1;
  m->groups = per_group;
  if (c.batch_norm) {
    m->has_batch_norm = true;
    m->bn_weight = random_tensor(&BND_SHAPE(c.out), 0.3f, 1.f);
    m->bn_bias = random_tensor(&BND_SHAPE(c.out), 0.3f, 0.f);
    m->bn_running_mean = random_tensor(&BND_SHAPE(c.out), 0.3f, 0.f);
    m->bn_running_var = random_tensor(&BND_SHAPE(c.out), 0.3f, 1.f);
    m->bn_epsilon = 1e-3;
  }
  if (c.quantized) {
    m->weight_quantizer = quantizer_at(7);
    m->bias_quantizer = quantizer_at(6);
  }
  return module_call(graph, c.transposed ? BND_OP_CONV_TRANSPOSE2D_MODULE : c.batch_norm ? BND_OP_CONV2D_BN_MODULE : BND_OP_CONV2D_MODULE, x, m);
}

/* --- running --- */

typedef struct outcome {
  int count;
  bnd_tensor output[8];
  size_t arena;
} outcome;

static void release(outcome *o) {
  for (int i = 0; i < o->count; i++) bnd_tensor_release(&o->output[i]);
}

static outcome run(const bnd_graph *graph, bnd_exec_options options, const bnd_tensor *input, bnd_probe probe, void *user) {
  bnd_executor *executor;
  bnd_session *session;
  bnd_error error = {0};
  if (bnd_executor_create(graph, &options, &executor, &error) != BND_OK) fail_msg("%s", error.message);
  if (bnd_session_create(executor, &session, &error) != BND_OK) fail_msg("%s", error.message);
  const float *inputs[] = {bnd_f32(input)};
  for (int round = 0; round < 2; round++) /* the second round runs on used memory */
    if (bnd_session_run(session, inputs, round ? probe : NULL, user, &error) != BND_OK) fail_msg("%s", error.message);
  outcome o = {.count = bnd_executor_output_count(executor), .arena = bnd_executor_arena_bytes(executor)};
  for (int i = 0; i < o.count; i++) {
    assert_int_equal(bnd_tensor_create(BND_F32, bnd_executor_output_shape(executor, i), &o.output[i], NULL), BND_OK);
    memcpy(o.output[i].data, bnd_session_output(session, i), o.output[i].count * sizeof(float));
  }
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  return o;
}

static void infer(bnd_graph *graph) {
  bnd_error error = {0};
  if (bnd_graph_status(graph, &error) != BND_OK || bnd_graph_verify(graph, &error) != BND_OK || bnd_infer_shapes(graph, &error) != BND_OK)
    fail_msg("%s", error.message);
}

static float largest_value(const bnd_tensor *a) {
  float largest = 0;
  for (size_t i = 0; i < a->count; i++) largest = fmaxf(largest, fabsf(bnd_f32(a)[i]));
  return largest;
}

/* Largest difference relative to the largest value of the tensor. */
static void assert_close(const bnd_tensor *a, const bnd_tensor *b, float tolerance) {
  assert_true(bnd_shape_equal(&a->shape, &b->shape));
  float largest = 0;
  for (size_t i = 0; i < a->count; i++) {
    const float difference = fabsf(bnd_f32(a)[i] - bnd_f32(b)[i]);
    assert_true(difference == difference);
    largest = fmaxf(largest, difference);
  }
  if (largest > tolerance * largest_value(b)) fail_msg("difference %g where values reach %g", (double)largest, (double)largest_value(b));
}

static void assert_same_values(const bnd_tensor *a, const bnd_tensor *b) {
  assert_true(bnd_shape_equal(&a->shape, &b->shape));
  for (size_t i = 0; i < a->count; i++)
    if (bnd_f32(a)[i] != bnd_f32(b)[i]) fail_msg("value %zu: %.9g and %.9g", i, (double)bnd_f32(a)[i], (double)bnd_f32(b)[i]);
}

/* Both backends in both modes, and oneDNN with 1, 2 and 5 threads. */
static void compare_backends(bnd_graph *graph, float tolerance) {
  infer(graph);
  const bnd_tensor input = random_tensor(&bnd_graph_first(graph)->shape[0], 1.f, 0.f);
  for (int mode = BND_EXEC_FLOAT; mode <= BND_EXEC_FAKE_QUANTIZE; mode++) {
    outcome plain = run(graph, (bnd_exec_options){.mode = (bnd_exec_mode)mode, .backend = BND_BACKEND_REFERENCE, .threads = 1}, &input, NULL, NULL);
    outcome fast[3];
    static const int threads[] = {1, 2, 5};
    for (int t = 0; t < 3; t++)
      fast[t] = run(graph, (bnd_exec_options){.mode = (bnd_exec_mode)mode, .backend = BND_BACKEND_ONEDNN, .threads = threads[t]}, &input, NULL, NULL);
    assert_int_equal(plain.count, fast[0].count);
    for (int i = 0; i < plain.count; i++) {
      assert_true(largest_value(&plain.output[i]) > 0);
      if (mode == BND_EXEC_FLOAT) assert_close(&fast[0].output[i], &plain.output[i], tolerance);
      else assert_same_values(&fast[0].output[i], &plain.output[i]);
      for (int t = 1; t < 3; t++) assert_memory_equal(fast[t].output[i].data, fast[0].output[i].data, fast[0].output[i].count * sizeof(float));
    }
    release(&plain);
    for (int t = 0; t < 3; t++) release(&fast[t]);
  }
  bnd_tensor unused = input;
  bnd_tensor_release(&unused);
}

/* --- the graphs --- */

/* A small network with everything a detector's backbone has; `width` channels. */
static bnd_graph *network(int64_t width, int64_t images, int64_t size) {
  bnd_graph *g;
  assert_int_equal(bnd_graph_create(&g, NULL), BND_OK);
  bnd_node *x = quantize(g, bnd_graph_placeholder(g, "x", &BND_SHAPE(images, 3, size, size)), 6);
  bnd_node *stem = quantize(g, unary(g, BND_OP_RELU_, convolution(g, x, (conv){3, width, 3, 2, .batch_norm = true, .quantized = true})), 5);
  bnd_node *left = quantize(g, unary(g, BND_OP_RELU, convolution(g, stem, (conv){width, width, 1, 1, .batch_norm = true, .quantized = true})), 5);
  bnd_node *right =
      quantize(g, unary(g, BND_OP_RELU, convolution(g, stem, (conv){width, width + 3, 1, 1, .batch_norm = true, .quantized = true})), 5);
  bnd_node *inner = quantize(g, unary(g, BND_OP_RELU, convolution(g, left, (conv){width, width, 3, 1, .batch_norm = true, .quantized = true})), 5);
  bnd_node *alpha = quantize(g, constant(g, "alpha", random_tensor(&BND_SHAPE(1), 0.1f, 0.9f)), 7);
  bnd_node *scaled = quantize(g, binary(g, BND_OP_MUL, left, alpha), 5);
  bnd_node *sum = quantize(g, binary(g, BND_OP_ADD, scaled, inner), 5);
  bnd_node *both = quantize(g, cat(g, (bnd_node *[]){sum, right}, 2, 1), 4);
  bnd_node *reduced = quantize(g, unary(g, BND_OP_RELU, convolution(g, both, (conv){2 * width + 3, 16, 1, 1, .bias = true, .quantized = true})), 5);
  const bnd_arg pool[] = {bnd_arg_of_node(reduced), bnd_graph_int_list(g, (int64_t[]){5, 5}, 2), bnd_graph_int_list(g, (int64_t[]){1, 1}, 2),
                          bnd_graph_int_list(g, (int64_t[]){2, 2}, 2)};
  bnd_node *pooled = quantize(g, bnd_graph_call(g, bnd_operator_of(BND_OP_MAX_POOL2D), "max_pool2d", pool, 4), 5);
  bnd_node *up = quantize(g, convolution(g, pooled, (conv){16, width, 2, 2, .transposed = true, .bias = true, .quantized = true}), 5);
  bnd_node *many = quantize(g, cat(g, (bnd_node *[]){reduced, pooled, reduced}, 3, 1), 5);
  bnd_node *head = quantize(g, convolution(g, many, (conv){48, 6, 1, 1, .bias = true, .quantized = true}), 4);
  const int64_t pixels = size / 2 * (size / 2);
  bnd_node *flat = quantize(g, with_ints(g, BND_OP_RESHAPE, head, (int64_t[]){-1, 2, 3, pixels}, 4), 4);
  bnd_node *turned = quantize(g, with_ints(g, BND_OP_PERMUTE, flat, (int64_t[]){0, 2, 3, 1}, 4), 4);
  const bnd_arg softmax[] = {bnd_arg_of_node(turned), bnd_arg_of_int(1)};
  bnd_node *share = quantize(g, bnd_graph_call(g, bnd_operator_of(BND_OP_SOFTMAX), "softmax", softmax, 2), 7);
  bnd_node *steps = quantize(g, constant(g, "proj", random_tensor(&BND_SHAPE(1, 3, 1, 1), 2.f, 1.f)), 4);
  const bnd_arg projection[] = {bnd_arg_of_node(share), bnd_arg_of_node(steps)};
  bnd_node *mean = quantize(g, bnd_graph_call(g, bnd_operator_of(BND_OP_CONV2D), "conv2d", projection, 2), 4);
  bnd_graph_output(g, bnd_graph_node_list(g, (bnd_node *[]){mean, up, both, sum}, 4));
  return g;
}

static void backends_agree_on_whole_blocks(void **state) {
  (void)state;
  bnd_graph *g = network(16, 1, 32);
  compare_backends(g, 1e-5f);
  bnd_graph_destroy(g);
}

static void backends_agree_on_odd_widths(void **state) {
  (void)state;
  static const int64_t widths[] = {5, 8, 13, 24, 35};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    bnd_graph *g = network(widths[i], 1, 20);
    compare_backends(g, 1e-5f);
    bnd_graph_destroy(g);
  }
}

static void backends_agree_on_several_images(void **state) {
  (void)state;
  bnd_graph *g = network(13, 3, 16);
  compare_backends(g, 1e-5f);
  bnd_graph_destroy(g);
}

static void functional_batch_norm_is_folded(void **state) {
  (void)state;
  bnd_graph *g;
  assert_int_equal(bnd_graph_create(&g, NULL), BND_OK);
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 9, 12, 12));
  bnd_node *w = constant(g, "w", random_tensor(&BND_SHAPE(10, 9, 3, 3), 0.2f, 0.f));
  const bnd_arg conv_args[] = {bnd_arg_of_node(x), bnd_arg_of_node(w), BND_NONE_ARG, bnd_graph_int_list(g, (int64_t[]){2, 2}, 2),
                               bnd_graph_int_list(g, (int64_t[]){1, 1}, 2)};
  bnd_node *c = bnd_graph_call(g, bnd_operator_of(BND_OP_CONV2D), "conv2d", conv_args, 5);
  bnd_arg norm[8] = {bnd_arg_of_node(c)};
  static const char *const names[] = {"gamma", "beta", "mean", "var"};
  for (int i = 0; i < 4; i++) norm[1 + i] = bnd_arg_of_node(constant(g, names[i], random_tensor(&BND_SHAPE(10), 0.3f, i == 3 ? 1.f : 0.5f)));
  norm[5] = bnd_arg_of_bool(false);
  norm[6] = bnd_arg_of_float(0.03);
  norm[7] = bnd_arg_of_float(1e-3);
  bnd_node *n = bnd_graph_call(g, bnd_operator_of(BND_OP_BATCH_NORM), "batch_norm", norm, 8);
  bnd_graph_output(g, bnd_arg_of_node(unary(g, BND_OP_RELU_, n)));
  infer(g);
  const bnd_tensor input = random_tensor(&BND_SHAPE(1, 9, 12, 12), 1.f, 0.f);
  outcome plain = run(g, (bnd_exec_options){.backend = BND_BACKEND_REFERENCE, .threads = 1}, &input, NULL, NULL);
  outcome fast = run(g, (bnd_exec_options){.backend = BND_BACKEND_ONEDNN, .threads = 2}, &input, NULL, NULL);
  assert_close(&fast.output[0], &plain.output[0], 1e-5f);
  release(&plain);
  release(&fast);
  bnd_tensor unused = input;
  bnd_tensor_release(&unused);
  bnd_graph_destroy(g);
}

/* Grouped, depthwise and generally transposed convolutions have no fast path and fall back to plain loops. */
static void unusual_convolutions_fall_back(void **state) {
  (void)state;
  bnd_graph *g;
  assert_int_equal(bnd_graph_create(&g, NULL), BND_OK);
  bnd_node *x = quantize(g, bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 6, 10, 10)), 6);
  bnd_node *first = quantize(g, convolution(g, x, (conv){6, 12, 3, 1, .bias = true, .quantized = true}), 5);
  bnd_node *grouped = quantize(g, unary(g, BND_OP_RELU, convolution(g, first, (conv){12, 8, 3, 1, .groups = 4, .bias = true, .quantized = true})), 5);
  bnd_node *depthwise = quantize(g, convolution(g, grouped, (conv){8, 8, 3, 1, .groups = 8, .bias = true, .quantized = true}), 5);
  bnd_node *up = quantize(g, convolution(g, depthwise, (conv){8, 6, 3, 2, .transposed = true, .bias = true, .quantized = true}), 5);
  bnd_graph_output(g, bnd_graph_node_list(g, (bnd_node *[]){grouped, up}, 2));
  compare_backends(g, 1e-5f);
  bnd_graph_destroy(g);
}

typedef struct seen {
  int count;
  char names[64][32];
  float minimum[64], maximum[64];
  double sum[64];
} seen;

static void look(void *user, int node_id, const char *name, const bnd_value *value) {
  seen *s = user;
  (void)node_id;
  size_t count;
  assert_true(s->count < 64 && bnd_shape_count(bnd_value_shape(value), &count));
  float *copy = calloc(count, sizeof *copy), low = INFINITY, high = -INFINITY;
  assert_non_null(copy);
  bnd_value_copy(value, copy);
  bnd_value_min_max(value, &s->minimum[s->count], &s->maximum[s->count]);
  for (size_t i = 0; i < count; i++) {
    low = fminf(low, copy[i]);
    high = fmaxf(high, copy[i]);
    s->sum[s->count] += (double)copy[i];
  }
  assert_true(low == s->minimum[s->count] && high == s->maximum[s->count]);
  snprintf(s->names[s->count++], sizeof s->names[0], "%s", name);
  free(copy);
}

/* Every quantizer once, in graph order, constants too; ranges without layout padding, which would show as 0 in all-negative values. */
static void probes_see_every_quantizer(void **state) {
  (void)state;
  bnd_graph *g = network(13, 1, 20);
  infer(g);
  const bnd_tensor input = random_tensor(&BND_SHAPE(1, 3, 20, 20), 1.f, 0.f);
  seen plain = {0}, fast = {0};
  outcome a = run(g, (bnd_exec_options){.backend = BND_BACKEND_REFERENCE, .threads = 1, .observe = true, .output_limit = 1}, &input, look, &plain);
  outcome b = run(g, (bnd_exec_options){.backend = BND_BACKEND_ONEDNN, .threads = 2, .observe = true, .output_limit = 1}, &input, look, &fast);
  assert_int_equal(a.count, 1);
  assert_int_equal(plain.count, 19);
  assert_int_equal(fast.count, 19);
  int at = 0;
  for (const bnd_node *node = bnd_graph_first(g); node; node = node->next) {
    if (!bnd_is_fake_quantize(node)) continue;
    assert_string_equal(plain.names[at], node->name);
    assert_string_equal(fast.names[at], node->name);
    assert_true(fabsf(plain.minimum[at] - fast.minimum[at]) <= 1e-4f && fabsf(plain.maximum[at] - fast.maximum[at]) <= 1e-4f);
    at++;
  }
  assert_int_equal(at, 19);
  release(&a);
  release(&b);
  bnd_tensor unused = input;
  bnd_tensor_release(&unused);
  bnd_graph_destroy(g);
}

static void padding_stays_out_of_ranges(void **state) {
  (void)state;
  bnd_graph *g;
  assert_int_equal(bnd_graph_create(&g, NULL), BND_OK);
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 3, 6, 6));
  bnd_node *c = convolution(g, x, (conv){3, 5, 1, 1, .bias = true});
  bnd_module *m = c->module;
  for (int i = 0; i < 5; i++) bnd_f32(&m->bias)[i] = -20.f;
  bnd_graph_output(g, bnd_arg_of_node(quantize(g, c, 2)));
  infer(g);
  const bnd_tensor input = random_tensor(&BND_SHAPE(1, 3, 6, 6), 1.f, 0.f);
  seen s = {0};
  outcome o = run(g, (bnd_exec_options){.backend = BND_BACKEND_ONEDNN, .threads = 1, .observe = true}, &input, look, &s);
  assert_int_equal(s.count, 1);
  assert_true(s.maximum[0] < -10.f);
  release(&o);
  bnd_tensor unused = input;
  bnd_tensor_release(&unused);
  bnd_graph_destroy(g);
}

/* Sessions of one executor in several OpenMP threads give what one session with several threads inside gives. */
static void sessions_run_side_by_side(void **state) {
  (void)state;
  enum { WORKERS = 4 };
  bnd_graph *g = network(24, 1, 32);
  infer(g);
  bnd_tensor inputs[WORKERS];
  outcome expected[WORKERS];
  for (int i = 0; i < WORKERS; i++) {
    inputs[i] = random_tensor(&BND_SHAPE(1, 3, 32, 32), 1.f, 0.f);
    expected[i] = run(g, (bnd_exec_options){.backend = BND_BACKEND_ONEDNN, .threads = 2}, &inputs[i], NULL, NULL);
  }
  bnd_executor *executor;
  assert_int_equal(bnd_executor_create(g, &(bnd_exec_options){.backend = BND_BACKEND_ONEDNN, .threads = 1}, &executor, NULL), BND_OK);
  bnd_graph_destroy(g); /* the executor keeps what it needs */
  bnd_session *sessions[WORKERS];
  for (int i = 0; i < WORKERS; i++) assert_int_equal(bnd_session_create(executor, &sessions[i], NULL), BND_OK);
  bnd_status status[WORKERS];
#pragma omp parallel for num_threads(WORKERS) schedule(static, 1)
  for (int i = 0; i < WORKERS; i++) {
    const float *data[] = {bnd_f32(&inputs[i])};
    for (int round = 0; round < 20; round++) status[i] = bnd_session_run(sessions[i], data, NULL, NULL, NULL);
  }
  for (int i = 0; i < WORKERS; i++) {
    assert_int_equal(status[i], BND_OK);
    for (int k = 0; k < expected[i].count; k++)
      assert_memory_equal(bnd_session_output(sessions[i], k), expected[i].output[k].data, expected[i].output[k].count * sizeof(float));
    bnd_session_destroy(sessions[i]);
    release(&expected[i]);
    bnd_tensor_release(&inputs[i]);
  }
  bnd_executor_destroy(executor);
}

/* Constants: computed when compiling; outputs may be constants or the input itself. */
static void constants_and_inputs_may_be_outputs(void **state) {
  (void)state;
  bnd_graph *g;
  assert_int_equal(bnd_graph_create(&g, NULL), BND_OK);
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(2, 3));
  const bnd_arg end[] = {bnd_arg_of_int(3)};
  bnd_node *range = bnd_graph_call(g, bnd_operator_of(BND_OP_ARANGE), "arange", end, 1);
  bnd_node_add_keyword(range, "dtype", bnd_arg_of_text("torch.float32"));
  const bnd_arg half[] = {bnd_arg_of_node(range), bnd_arg_of_float(0.5)};
  bnd_node *shifted = bnd_graph_call(g, bnd_operator_of(BND_OP_ADD), "add", half, 2);
  const bnd_arg grids[] = {bnd_graph_node_list(g, (bnd_node *[]){shifted, range}, 2)};
  bnd_node *grid = bnd_graph_call(g, bnd_operator_of(BND_OP_MESHGRID), "meshgrid", grids, 1);
  const bnd_arg item[] = {bnd_arg_of_node(grid), bnd_arg_of_int(0)};
  bnd_node *rows = bnd_graph_call(g, bnd_operator_of(BND_OP_GETITEM), "getitem", item, 2);
  bnd_node *sum = binary(g, BND_OP_ADD, x, range);
  const bnd_arg parts[] = {bnd_arg_of_node(sum), bnd_arg_of_int(2), bnd_arg_of_int(-1)};
  bnd_node *split = bnd_graph_call(g, bnd_operator_of(BND_OP_SPLIT), "split", parts, 3);
  const bnd_arg second[] = {bnd_arg_of_node(split), bnd_arg_of_int(1)};
  bnd_node *rest = bnd_graph_call(g, bnd_operator_of(BND_OP_GETITEM), "getitem", second, 2);
  const bnd_arg outputs[] = {bnd_arg_of_node(x), bnd_arg_of_node(rows), bnd_arg_of_int(7), bnd_arg_of_node(rest), bnd_arg_of_node(rest)};
  bnd_graph_output(g, bnd_graph_list(g, outputs, 5));
  infer(g);
  bnd_tensor input = random_tensor(&BND_SHAPE(2, 3), 1.f, 0.f);
  for (int backend = BND_BACKEND_ONEDNN; backend <= BND_BACKEND_REFERENCE; backend++) {
    outcome o = run(g, (bnd_exec_options){.backend = (bnd_exec_backend)backend, .threads = 1}, &input, NULL, NULL);
    assert_int_equal(o.count, 4);
    assert_same_values(&o.output[0], &input);
    for (int i = 0; i < 9; i++) assert_true(bnd_f32(&o.output[1])[i] == (float)(i / 3) + 0.5f);
    for (int i = 0; i < 2; i++) assert_true(bnd_f32(&o.output[2])[i] == bnd_f32(&input)[3 * i + 2] + 2.f);
    assert_same_values(&o.output[3], &o.output[2]);
    release(&o);
  }
  bnd_tensor_release(&input);
  bnd_graph_destroy(g);
}

/* A chain of same-sized steps must not need a buffer for each. */
static void memory_is_used_again(void **state) {
  (void)state;
  bnd_graph *g;
  assert_int_equal(bnd_graph_create(&g, NULL), BND_OK);
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 16, 32, 32));
  for (int i = 0; i < 10; i++) x = unary(g, BND_OP_RELU, convolution(g, x, (conv){16, 16, 3, 1, .bias = true}));
  bnd_graph_output(g, bnd_arg_of_node(x));
  infer(g);
  bnd_tensor input = random_tensor(&BND_SHAPE(1, 16, 32, 32), 1.f, 0.f);
  outcome o = run(g, (bnd_exec_options){.backend = BND_BACKEND_ONEDNN, .threads = 1}, &input, NULL, NULL);
  assert_true(o.arena <= 2 * 16 * 32 * 32 * sizeof(float));
  release(&o);
  bnd_tensor_release(&input);
  bnd_graph_destroy(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(backends_agree_on_whole_blocks),      cmocka_unit_test(backends_agree_on_odd_widths),
      cmocka_unit_test(backends_agree_on_several_images),    cmocka_unit_test(functional_batch_norm_is_folded),
      cmocka_unit_test(unusual_convolutions_fall_back),      cmocka_unit_test(probes_see_every_quantizer),
      cmocka_unit_test(padding_stays_out_of_ranges),         cmocka_unit_test(sessions_run_side_by_side),
      cmocka_unit_test(constants_and_inputs_may_be_outputs), cmocka_unit_test(memory_is_used_again),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
