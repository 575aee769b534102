/* Backward rules against finite differences. This program and the plain loops under it are compiled with BND_REAL=double (tests/CMakeLists.txt). */
#include <math.h>

#include "operator_call.h"

#include "kernels/reference/reference.h"

/* Straight-through: to its backward rule a fake quantizer is the identity. The quantizer itself knows float only. */
void bnd_reference_fake_quantize(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  bnd_reference_copy(kernel, inputs, input_count, outputs, output_count);
}

typedef struct gradient_case {
  const char *call, *shapes; /* of the operands %a, %b, ... */
  double low, high;          /* range of their values; both 0: -1 .. 1 */
} gradient_case;

static const gradient_case CASES[] = {
    {"aten.conv2d.default(%a, %b, %c, [2, 2], [1, 1])", "2x3x7x6 5x3x3x3 5", 0, 0},
    {"aten.conv2d.default(%a, %b, None, [2, 1], [1, 0])", "1x3x6x5 2x3x3x2", 0, 0},
    {"aten.conv2d.default(%a, %b, %c)", "2x5x4x3 3x5x1x1 3", 0, 0},
    {"aten.conv2d.default(%a, %b, %c, [1, 1], [2, 3], [2, 3], 2)", "1x6x5x6 4x3x3x3 4", 0, 0},
    {"aten.conv2d.default(%a, %b, %c, [2, 3], [2, 1], [1, 2], 4)", "2x4x6x7 8x1x5x3 8", 0, 0},
    {"aten.conv2d.default(%a, %b, None, [3, 3], [0, 0])", "1x2x8x8 2x2x2x2", 0, 0},
    {"aten.conv_transpose2d.input(%a, %b, %c, [2, 2])", "1x5x3x4 5x3x2x2 3", 0, 0},
    {"aten.conv_transpose2d.input(%a, %b, %c, [2, 3], [1, 0], [1, 2], 2, [1, 2])", "2x4x4x3 4x3x3x3 6", 0, 0},
    {"aten.conv_transpose2d.input(%a, %b, None, [1, 1], [0, 0], [1, 1], 1, [2, 2])", "1x2x3x4 2x3x1x1", 0, 0},
    {"aten.conv_transpose2d.input(%a, %b)", "1x2x3x4 2x3x1x1", 0, 0},
    {"aten.linear.default(%a, %b, %c)", "2x3x7 5x7 5", 0, 0},
    {"aten.linear.default(%a, %b)", "4x5 3x5", 0, 0},
    {"aten.linear.default(%a, %b, %c)", "5 3x5 3", 0, 0},
    {"aten.batch_norm.default(%a, %b, %c, %d, %e, False, 0.03, 0.001, True)", "2x5x3x4 5 5 5 5", 0.2, 2},
    {"aten.batch_norm.default(%a, None, None, %b, %c, False, 0.1, 1e-5, True)", "3x4x2 4 4", 0.2, 2},
    {"aten.batch_norm.default(%a, %b, %c, %d, %e, False, 0.1, 0.5, True)", "3x4 4 4 4 4", 0.2, 2},
    {"aten.layer_norm.default(%a, [6], %b, %c)", "2x5x6 6 6", 0, 0},
    {"aten.layer_norm.default(%a, [5, 6], None, None, 0.01)", "2x5x6", 0, 0},
    {"aten.layer_norm.default(%a, [300], None, %b)", "2x300 300", 0, 0},
    {"aten.relu.default(%a)", "3x50", 0, 0},
    {"aten.relu_.default(%a)", "scalar", 0.5, 1},
    {"aten.relu6.default(%a)", "3x50", -8, 8},
    {"aten.hardtanh.default(%a)", "3x50", -2, 2},
    {"aten.hardtanh.default(%a, -2.5, 1.5)", "3x50", -4, 4},
    {"aten.clamp.default(%a, -1, 2.5)", "3x50", -4, 4},
    {"aten.clamp.default(%a, None, 2)", "3x50", -4, 4},
    {"aten.clip.default(%a, 0.25)", "3x50", -4, 4},
    {"aten.sigmoid.default(%a)", "3x50", -8, 8},
    {"aten.sigmoid.default(%a)", "3x50", -60, 60},
    {"aten.hardsigmoid.default(%a)", "3x50", -5, 5},
    {"aten.silu.default(%a)", "3x50", -8, 8},
    {"aten.silu.default(%a)", "3x50", -60, 60},
    {"aten.hardswish.default(%a)", "3x50", -5, 5},
    {"aten.leaky_relu.default(%a)", "3x50", -5, 5},
    {"aten.leaky_relu.default(%a, 0.2)", "3x50", -5, 5},
    {"aten.gelu.default(%a)", "3x50", -4, 4},
    {"aten.gelu.default(%a) approximate: tanh", "3x50", -4, 4},
    {"aten.softmax.int(%a, 1)", "2x17x5x2", -3, 3},
    {"aten.softmax.int(%a, -1)", "2x30", -8, 8},
    {"aten.softmax.int(%a, 0)", "3x2x70", -3, 3},
    {"aten.add.Tensor(%a, %b)", "2x3x4 2x3x4", 0, 0},
    {"aten.add.Tensor(%a, %b) alpha: 3", "2x3x4 3x1", 0, 0},
    {"aten.add.Tensor(%a, 0.3)", "2x3x4", 0, 0},
    {"aten.sub.Tensor(%a, %b)", "4x1x3 1x5x1", 0, 0},
    {"aten.sub.Tensor(%a, %b) alpha: 0.5", "2x5 2x5", 0, 0},
    {"aten.sub.Tensor(%a, %b) alpha: -2", "5 2x1", 0, 0},
    {"aten.mul.Tensor(%a, %b)", "2x3x4 2x3x4", 0, 0},
    {"aten.mul.Tensor(%a, %b)", "1 2x8x3x3", 0, 0},
    {"aten.mul.Tensor(%a, %b)", "2x3x4x5 3x1x5", 0, 0},
    {"aten.mul.Tensor(%a, %b)", "2x3 scalar", 0, 0},
    {"aten.mul.Tensor(%a, 0.3)", "2x3x4", 0, 0},
    {"aten.div.Tensor(%a, %b)", "2x3x4 2x3x4", 0.5, 3},
    {"aten.div.Tensor(%a, %b)", "3x1 2x3x4", 0.5, 3},
    {"aten.div.Tensor(%a, %b)", "2x3x4 1x4", 0.5, 3},
    {"aten.div.Tensor(%a, 0.7)", "2x3x4", 0, 0},
    {"aten.max_pool2d.default(%a, [5, 5], [1, 1], [2, 2])", "1x2x8x9", 0, 0},
    {"aten.max_pool2d.default(%a, [3, 2], [2, 2], [1, 1])", "2x3x8x9", 0, 0},
    {"aten.max_pool2d.default(%a, [3, 3], [2, 2], [0, 0], [1, 1], True)", "2x3x8x9", 0, 0},
    {"aten.max_pool2d.default(%a, [2, 2])", "2x3x8x9", 0, 0},
    {"aten.max_pool2d.default(%a, [3, 2], [1, 2], [1, 0], [2, 1])", "2x3x8x9", 0, 0},
    {"aten.avg_pool2d.default(%a, [2, 2])", "2x3x8x9", 0, 0},
    {"aten.avg_pool2d.default(%a, [3, 3], [2, 2], [1, 1])", "2x3x8x9", 0, 0},
    {"aten.avg_pool2d.default(%a, [3, 3], [2, 2], [1, 1], False, False)", "2x3x8x9", 0, 0},
    {"aten.avg_pool2d.default(%a, [3, 3], [2, 2], [1, 1], True, True)", "2x3x8x9", 0, 0},
    {"aten.avg_pool2d.default(%a, [3, 3], [2, 2], [0, 1], False, True, 7)", "2x3x8x9", 0, 0},
    {"aten.adaptive_avg_pool2d.default(%a, [1, 1])", "2x3x8x9", 0, 0},
    {"aten.adaptive_avg_pool2d.default(%a, [3, 4])", "2x3x8x9", 0, 0},
    {"aten.mean.dim(%a, [2, 3], True)", "2x3x5x4", 0, 0},
    {"aten.mean.dim(%a, [-1, 0])", "2x3x5x4", 0, 0},
    {"aten.mean.dim(%a, [1])", "2x3x5x4", 0, 0},
    {"aten.sum.default(%a)", "2x3x4", 0, 0},
    {"aten.cat.default([%a, %b, %c], 1)", "2x2x3 2x4x3 2x1x3", 0, 0},
    {"aten.cat.default([%a, %b])", "2x3 1x3", 0, 0},
    {"aten.stack.default([%a, %b], -1)", "2x3 2x3", 0, 0},
    {"aten.stack.default([%a, %b, %c])", "2x3 2x3 2x3", 0, 0},
    {"aten.slice.Tensor(%a, 1, 1, 6, 2)", "2x7x3", 0, 0},
    {"aten.slice.Tensor(%a, -1, 2, 4)", "2x4", 0, 0},
    {"aten.slice.Tensor(%a, 1, -3, 9223372036854775807)", "2x7x3", 0, 0},
    {"aten.select.int(%a, 1, -2)", "2x7x3", 0, 0},
    {"aten.select.int(%a, 0, 1)", "2x7", 0, 0},
    {"aten.split.Tensor(%a, 3, -1)", "2x5x7", 0, 0},
    {"aten.split_with_sizes.default(%a, [1, 3, 2])", "6x4", 0, 0},
    {"aten.reshape.default(%a, [-1, 2, 3, 4])", "1x6x4", 0, 0},
    {"aten.view.default(%a, [3, 4])", "2x6", 0, 0},
    {"aten.flatten.using_ints(%a, 2)", "2x3x4x5", 0, 0},
    {"aten.permute.default(%a, [0, 2, 3, 1])", "2x4x7x6", 0, 0},
    {"aten.permute.default(%a, [3, 1, 0, 2])", "2x3x4x5", 0, 0},
    {"aten.permute.default(%a, [1, 2, 0])", "2x3x4", 0, 0},
    {"aten.transpose.int(%a, 1, -1)", "2x3x4x5", 0, 0},
    {"aten.squeeze.dim(%a, 1)", "2x1x4", 0, 0},
    {"aten.unsqueeze.default(%a, -1)", "2x4", 0, 0},
    {"aten.pixel_shuffle.default(%a, 2)", "2x12x3x2", 0, 0},
    {"aten.pixel_shuffle.default(%a, 3)", "1x9x2x2", 0, 0},
    {"aten.contiguous.default(%a)", "2x3", 0, 0},
    {"aten.dropout.default(%a, 0.5, False)", "2x3", 0, 0},
    {"aten.to.dtype(%a, torch.float32)", "2x3", 0, 0},
    {"aten.meshgrid.indexing([%a, %b]) indexing: ij", "3 4", 0, 0},
    {"aten.meshgrid.indexing([%a, %b, %c]) indexing: ij", "3 2 4", 0, 0},
    {"quark_quant.QuantStub.default(%a)", "2x3", 0, 0},
    {"quark_quant.DeQuantStub.default(%a)", "2x3", 0, 0},
};
enum { CASE_COUNT = sizeof CASES / sizeof *CASES };

/* Operators without a gradient: made from nothing, or resolved before anything is computed. */
static const bnd_operator_id WITHOUT[] = {BND_OP_ARANGE, BND_OP_FULL, BND_OP_GETITEM, BND_OP_NO_GRAD_REGION};

/* Values stand 0.005 from every multiple of 0.01, where the kinks are; those of a max pool differ by at least 0.01 from each other. */
static void fill_operand(const operator_call *c, const bnd_array *array, double low, double high, uint64_t seed) {
  const size_t count = array_count(array);
  fill_array(array, low, high, seed);
  for (size_t i = 0; i < count; i++) array->data[i] = (floor(array->data[i] * 100) + 0.5) / 100;
  for (size_t i = 0; c->kernel.id == BND_OP_MAX_POOL2D && i < count; i++) array->data[i] = 0.01 * (double)(i * 7919 % count);
}

static operator_call new_call(const gradient_case *from) {
  bnd_shape shapes[MOST_ARRAYS];
  int count = 0;
  for (const char *at = from->shapes; *at; at += strspn(at, " ")) at = read_shape(at, &shapes[count++]);
  operator_call c;
  operator_call_create(&c, from->call, shapes, count);
  const bool usual = from->low == 0 && from->high == 0;
  for (int i = 0; i < c.input_count; i++)
    if (c.is_operand[i]) fill_operand(&c, &c.inputs[i], usual ? -1 : from->low, usual ? 1 : from->high, 1 + (uint64_t)i);
  for (int i = 0; i < c.output_count; i++) fill_array(&c.output_gradients[i], -1, 1, 100 + (uint64_t)i);
  operator_call_forward(&c);
  return c;
}

/* Sum of the outputs, weighted by their gradients. */
static double weighted_sum(const operator_call *c) {
  operator_call_forward(c);
  double sum = 0;
  for (int k = 0; k < c->output_count; k++)
    for (size_t i = 0; i < array_count(&c->outputs[k]); i++) sum += c->outputs[k].data[i] * c->output_gradients[k].data[i];
  return sum;
}

/* (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12h, wrong by h^4 / 30 times the fifth derivative */
static double finite_difference(double (*function)(const void *user), const void *user, double *x) {
  const double h = 1e-3, middle = *x;
  double values[4];
  for (int k = 0; k < 4; k++) {
    *x = middle + h * (double[]){-2, -1, 1, 2}[k];
    values[k] = function(user);
  }
  *x = middle;
  return (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12 * h);
}

/* Difference of all values of x from their finite differences, relative to the largest gradient. */
static double deviation(const char *name, double (*function)(const void *user), const void *user, double *x, const double *gradient, size_t count) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < count; i++) {
    const double distance = fabs(finite_difference(function, user, &x[i]) - gradient[i]);
    if (!(distance <= worst)) worst = distance; /* NaN stays */
    largest = fmax(largest, fabs(gradient[i]));
  }
  if (!(worst <= 1e-6 * largest)) fail_msg("%s: a gradient is wrong by %g of %g", name, worst, largest);
  return worst / largest;
}

static double function_of_call(const void *user) {
  return weighted_sum(user);
}

static double check_call(const char *name, operator_call *c) {
  double worst = 0;
  operator_call_backward(c);
  for (int i = 0; i < c->input_count; i++)
    if (c->is_operand[i])
      worst = fmax(worst, deviation(name, function_of_call, c, c->inputs[i].data, c->input_gradients[i].data, array_count(&c->inputs[i])));
  return worst;
}

static void rules_agree_with_finite_differences(void **state) {
  (void)state;
  double worst = 0;
  for (int i = 0; i < CASE_COUNT; i++) {
    operator_call c = new_call(&CASES[i]);
    worst = fmax(worst, check_call(CASES[i].call, &c));
    operator_call_destroy(&c);
  }
  print_message("%d calls, largest deviation %.1e\n", CASE_COUNT, worst);
}

/* What only modules have: a factor behind a pool; fake quantization. */
static void rules_of_modules_agree_with_finite_differences(void **state) {
  (void)state;
  static const gradient_case pools[] = {{"aten.avg_pool2d.default(%a, [3, 3], [2, 2], [1, 1])", "2x3x8x9", 0, 0},
                                        {"aten.adaptive_avg_pool2d.default(%a, [3, 4])", "2x3x8x9", 0, 0}};
  for (int i = 0; i < 2; i++) {
    operator_call c = new_call(&pools[i]);
    c.kernel.number = 1.125;
    check_call(pools[i].call, &c);
    operator_call_destroy(&c);
  }
  operator_call c = new_call(&(gradient_case){"aten.contiguous.default(%a)", "2x3x4", -900, 900});
  c.kernel.id = BND_OP_FAKE_QUANTIZE;
  check_call("fake quantization", &c);
  operator_call_destroy(&c);
}

static void no_operator_is_forgotten(void **state) {
  (void)state;
  bool tested[BND_OPERATOR_COUNT] = {[BND_OP_FAKE_QUANTIZE] = true};
  for (int i = 0; i < CASE_COUNT; i++) {
    operator_call c = new_call(&CASES[i]);
    tested[bnd_functional_id(c.node)] = tested[c.kernel.id] = true;
    operator_call_destroy(&c);
  }
  for (int id = 0; id < BND_OPERATOR_COUNT; id++) {
    bnd_module module = {.name = "m"};
    bnd_node node = {.kind = BND_CALL_FUNCTION, .op = bnd_operator_of((bnd_operator_id)id), .name = "n", .module = &module};
    bnd_kernel kernel;
    bnd_kernel_of_node(&node, &kernel, NULL); /* fails for want of arguments, but after deciding what is computed */
    bool without = false;
    for (size_t i = 0; i < sizeof WITHOUT / sizeof *WITHOUT; i++) without = without || WITHOUT[i] == (bnd_operator_id)id;
    const bool is_module = !strchr(node.op->target, '.');
    if (without != !bnd_reference_gradient(kernel.id)) fail_msg("%s: %s gradient", node.op->target, without ? "an unexpected" : "no");
    if (!without && !tested[is_module ? kernel.id : bnd_functional_id(&node)]) fail_msg("%s has not been tested", node.op->target);
  }
}

/* Each gradient alone is the same as all of them together; absent gradients of the outputs count as zero. */
static void only_what_is_wanted_is_computed(void **state) {
  (void)state;
  for (int n = 0; n < CASE_COUNT; n++) {
    operator_call c = new_call(&CASES[n]);
    operator_call_backward(&c);
    for (int i = 0; i < c.input_count; i++) {
      if (!c.is_operand[i]) continue;
      operator_call alone = c;
      memset(alone.input_gradients, 0, sizeof alone.input_gradients);
      alone.input_gradients[i] = new_array(&c.inputs[i].shape);
      operator_call_backward(&alone);
      assert_memory_equal(alone.input_gradients[i].data, c.input_gradients[i].data, array_count(&c.inputs[i]) * sizeof(bnd_real));
      free(alone.input_gradients[i].data);
    }
    for (int threads = 2; threads <= 5; threads += 3) {
      operator_call again = c;
      again.kernel.threads = threads;
      for (int i = 0; i < c.input_count; i++)
        if (c.is_operand[i]) again.input_gradients[i] = new_array(&c.inputs[i].shape);
      operator_call_backward(&again);
      for (int i = 0; i < c.input_count; i++)
        if (c.is_operand[i]) {
          assert_memory_equal(again.input_gradients[i].data, c.input_gradients[i].data, array_count(&c.inputs[i]) * sizeof(bnd_real));
          free(again.input_gradients[i].data);
        }
    }
    /* the first output's gradient absent: as if it were zero */
    free(c.output_gradients[0].data);
    c.output_gradients[0].data = NULL;
    operator_call_backward(&c);
    bnd_real *absent[MOST_ARRAYS] = {0};
    for (int i = 0; i < c.input_count; i++)
      if (c.is_operand[i]) {
        absent[i] = c.input_gradients[i].data;
        c.input_gradients[i] = new_array(&c.inputs[i].shape);
      }
    c.output_gradients[0] = new_array(&c.outputs[0].shape);
    operator_call_backward(&c);
    for (int i = 0; i < c.input_count; i++)
      for (size_t j = 0; absent[i] && j < array_count(&c.inputs[i]); j++) assert_true(absent[i][j] == c.input_gradients[i].data[j]);
    for (int i = 0; i < c.input_count; i++) free(absent[i]);
    operator_call_destroy(&c);
  }
}

/* What kernel.h says a rule can do without may be missing. */
static void values_that_are_not_needed_may_be_missing(void **state) {
  (void)state;
  for (int n = 0; n < CASE_COUNT; n++) {
    operator_call c = new_call(&CASES[n]);
    bool inputs_needed = true, outputs_needed = false;
    switch (c.kernel.id) {
      case BND_OP_SIGMOID:
      case BND_OP_SOFTMAX:
        inputs_needed = false;
        outputs_needed = true;
        break;
      case BND_OP_ADD:
      case BND_OP_SUB:
      case BND_OP_AVG_POOL2D:
      case BND_OP_ADAPTIVE_AVG_POOL2D:
      case BND_OP_MEAN:
      case BND_OP_SUM:
      case BND_OP_CAT:
      case BND_OP_SLICE:
      case BND_OP_SPLIT:
      case BND_OP_RESHAPE:
      case BND_OP_PERMUTE:
      case BND_OP_PIXEL_SHUFFLE:
      case BND_OP_MESHGRID:
        inputs_needed = false;
        break;
      default:
        break;
    }
    operator_call_backward(&c);
    operator_call again = c;
    for (int i = 0; i < c.input_count; i++) {
      if (c.is_operand[i]) again.input_gradients[i] = new_array(&c.inputs[i].shape);
      if (!inputs_needed) again.inputs[i].data = NULL;
    }
    for (int i = 0; i < c.output_count && !outputs_needed; i++) again.outputs[i].data = NULL;
    operator_call_backward(&again);
    for (int i = 0; i < c.input_count; i++)
      if (c.is_operand[i]) {
        assert_memory_equal(again.input_gradients[i].data, c.input_gradients[i].data, array_count(&c.inputs[i]) * sizeof(bnd_real));
        free(again.input_gradients[i].data);
      }
    operator_call_destroy(&c);
  }
}

/* --- batch normalization in training --- */

enum { CHANNELS = 3 };
static const double EPSILON = 1e-3;

typedef struct training {
  bnd_array x, y;
  double weight[CHANNELS], bias[CHANNELS], mean[CHANNELS], variance[CHANNELS];
  bnd_array dy;
  bool affine;
} training;

static double function_of_training(const void *user) {
  training t = *(const training *)user; /* x, y and weight, which are changed one by one, are reached through it */
  const training *original = user;
  bnd_batch_norm_statistics(&t.x, t.mean, t.variance);
  bnd_batch_norm_forward(&t.x, t.affine ? original->weight : NULL, t.affine ? original->bias : NULL, t.mean, t.variance, EPSILON, t.y.data);
  double sum = 0;
  for (size_t i = 0; i < array_count(&t.y); i++) sum += t.y.data[i] * t.dy.data[i];
  return sum;
}

static void training_batch_norm_agrees_with_finite_differences(void **state) {
  (void)state;
  static const bnd_shape shapes[] = {{4, {2, CHANNELS, 4, 3}}, {4, {1, CHANNELS, 3, 5}}, {2, {6, CHANNELS}}, {3, {2, CHANNELS, 1}}};
  double worst = 0;
  for (int s = 0; s < 4; s++)
    for (int affine = 0; affine < 2; affine++) {
      training t = {.x = new_array(&shapes[s]), .y = new_array(&shapes[s]), .dy = new_array(&shapes[s]), .affine = affine};
      fill_array(&t.x, -1, 2, 1);
      fill_array(&t.dy, -1, 1, 2);
      const bnd_shape one = BND_SHAPE(CHANNELS);
      fill_array(&(bnd_array){one, t.weight}, 0.5, 2, 3);
      fill_array(&(bnd_array){one, t.bias}, -1, 1, 4);
      bnd_batch_norm_statistics(&t.x, t.mean, t.variance);
      bnd_array dx = new_array(&shapes[s]);
      double dweight[CHANNELS], dbias[CHANNELS];
      bnd_batch_norm_backward(&t.x, affine ? t.weight : NULL, t.mean, t.variance, EPSILON, t.dy.data, dx.data, dweight, dbias);
      worst = fmax(worst, deviation("dx", function_of_training, &t, t.x.data, dx.data, array_count(&dx)));
      if (affine) {
        worst = fmax(worst, deviation("dweight", function_of_training, &t, t.weight, dweight, CHANNELS));
        worst = fmax(worst, deviation("dbias", function_of_training, &t, t.bias, dbias, CHANNELS));
      }
      double same[CHANNELS];
      bnd_batch_norm_backward(&t.x, NULL, t.mean, t.variance, EPSILON, t.dy.data, NULL, NULL, same);
      assert_memory_equal(same, dbias, sizeof same);
      free(t.x.data);
      free(t.y.data);
      free(t.dy.data);
      free(dx.data);
    }
  print_message("largest deviation %.1e\n", worst);
}

/* data-training-metrics 8.4 */
static void training_batch_norm_meets_the_specification(void **state) {
  (void)state;
  double x[] = {1, 2, 3, 6}, y[4], mean, variance, running_mean = 0, running_variance = 1;
  const double expected[] = {-1.0688922, -0.5344461, 0, 1.6033384};
  const bnd_array array = {BND_SHAPE(2, 1, 2), x};
  bnd_batch_norm_statistics(&array, &mean, &variance);
  bnd_batch_norm_forward(&array, NULL, NULL, &mean, &variance, 1e-3, y);
  bnd_batch_norm_update(&array.shape, &mean, &variance, 0.03, &running_mean, &running_variance);
  for (int i = 0; i < 4; i++) assert_true(fabs(y[i] - expected[i]) < 1e-7);
  assert_true(fabs(running_mean - 0.09) < 1e-12 && fabs(running_variance - 1.11) < 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rules_agree_with_finite_differences),
      cmocka_unit_test(rules_of_modules_agree_with_finite_differences),
      cmocka_unit_test(no_operator_is_forgotten),
      cmocka_unit_test(only_what_is_wanted_is_computed),
      cmocka_unit_test(values_that_are_not_needed_may_be_missing),
      cmocka_unit_test(training_batch_norm_agrees_with_finite_differences),
      cmocka_unit_test(training_batch_norm_meets_the_specification),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
