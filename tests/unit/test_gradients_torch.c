/* Backward rules in float32 against PyTorch's autograd (data/gradients.txt, made by golden/make_gradients.py), above all at kinks and ties. */
#include <math.h>
#include <stdio.h>

#include "operator_call.h"

#include "base/file.h"

static char *next_line(char **at) {
  char *line = *at, *end = strchr(line, '\n');
  assert_non_null(end);
  *end = '\0';
  *at = end + 1;
  return line;
}

static void copy_described(const char *line, const bnd_array *to) {
  bnd_tensor tensor = described_tensor(BND_F32, line);
  assert_true(bnd_shape_equal(&tensor.shape, &to->shape));
  memcpy(to->data, tensor.data, tensor.count * sizeof(float));
  bnd_tensor_release(&tensor);
}

/* Largest deviation relative to the largest gradient. NaN meets NaN only. */
static double compare(const char *call, const char *line, const bnd_array *gradient) {
  bnd_shape shape;
  char *at = (char *)read_shape(line, &shape);
  assert_true(bnd_shape_equal(&shape, &gradient->shape));
  double worst = 0, largest = 0;
  for (size_t i = 0; i < array_count(gradient); i++) {
    const double expected = strtod(at, &at), got = (double)gradient->data[i];
    if (isnan(expected) != isnan(got)) fail_msg("%s: gradient %zu is %g instead of %g", call, i, got, expected);
    if (isnan(expected)) continue;
    worst = fmax(worst, fabs(expected - got));
    largest = fmax(largest, fabs(expected));
  }
  assert_true(*at == '\0');
  if (!(worst <= 1e-6 * largest)) fail_msg("%s: a gradient is wrong by %g of %g", call, worst, largest);
  return largest > 0 ? worst / largest : 0;
}

static void rules_give_pytorchs_gradients(void **state) {
  (void)state;
  char *text, *at;
  size_t size;
  int cases = 0;
  double worst = 0;
  ASSERT_OK(bnd_file_read(TEST_DATA "/gradients.txt", 1 << 24, &text, &size, error));
  for (at = text; *at; cases++) {
    char *call = next_line(&at), *lines[MOST_ARRAYS];
    assert_int_equal(strncmp(call, "call ", 5), 0);
    bnd_shape shapes[MOST_ARRAYS];
    int count = 0;
    for (; strncmp(at, "input ", 6) == 0; count++) {
      assert_true(count < MOST_ARRAYS);
      lines[count] = next_line(&at) + 6;
      read_shape(lines[count], &shapes[count]);
    }
    operator_call c;
    operator_call_create(&c, call + 5, shapes, count);
    for (int i = 0, k = 0; i < c.input_count; i++)
      if (c.is_operand[i]) copy_described(lines[k++], &c.inputs[i]);
    for (int i = 0; i < c.output_count; i++) {
      assert_int_equal(strncmp(at, "output ", 7), 0);
      copy_described(next_line(&at) + 7, &c.output_gradients[i]);
    }
    operator_call_forward(&c);
    operator_call_backward(&c);
    for (int i = 0; i < c.input_count; i++) {
      if (!c.is_operand[i]) continue;
      assert_int_equal(strncmp(at, "gradient ", 9), 0);
      if (strncmp(at + 9, "none", 4) == 0) {
        next_line(&at);
        continue;
      }
      const bnd_array gradient = {c.inputs[i].shape, c.input_gradients[i].data};
      worst = fmax(worst, compare(call, next_line(&at) + 9, &gradient));
    }
    operator_call_destroy(&c);
  }
  free(text);
  print_message("%d calls, largest deviation %.1e\n", cases, worst);
  assert_true(cases > 60);
}

/* fx-quantization 6.2: the gradient passes unchanged, saturated or not. */
static void fake_quantization_is_passed_straight_through(void **state) {
  (void)state;
  const bnd_quantizer_spec spec = {BND_I8, BND_OBSERVER_POWER_OF_TWO_MIN_MAX, false, 0};
  bnd_quantizer *quantizer = bnd_quantizer_create(&spec);
  assert_non_null(quantizer);
  quantizer->position[0] = 7;
  float x[] = {-900, -1.004f, -1, -0.3f, 0, 0.001f, 0.99f, 0.9921875f, 1, 50}, y[10], dy[10], dx[10];
  const bnd_array in = {BND_SHAPE(2, 5), x}, result = {in.shape, y}, given = {in.shape, dy}, wanted = {in.shape, dx};
  const bnd_kernel kernel = {.id = BND_OP_FAKE_QUANTIZE, .quantizer = quantizer, .threads = 1};
  fill_array(&given, -1, 1, 1);
  bnd_reference_kernel(kernel.id)(&kernel, &in, 1, &result, 1);
  assert_true(y[0] == -1 && y[5] == 0 && y[9] == 127.f / 128);
  bnd_reference_gradient(kernel.id)(&kernel, &in, 1, &result, &given, 1, &wanted);
  assert_memory_equal(dx, dy, sizeof dx);
  bnd_quantizer_destroy(quantizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rules_give_pytorchs_gradients),
      cmocka_unit_test(fake_quantization_is_passed_straight_through),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
