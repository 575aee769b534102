/* Every operator against PyTorch (data/kernels.txt, made by golden/make_kernels.py), on both backends; the own loops against the plain ones; exp. */
#include <math.h>
#include <stdio.h>

#include "graph_builder.h"

#include "base/file.h"
#include "exec/exec.h"
#include "kernels/kernel.h"
#include "kernels/loops/loops.h"
#include "kernels/math.h"
#include "kernels/onednn/onednn.h"

enum { MOST_OPERANDS = 8 };

typedef struct operands {
  char names[MOST_OPERANDS][8];
  bnd_tensor tensors[MOST_OPERANDS];
  int count;
} operands;

static bnd_shape shape_of_input(void *user, const char *name) {
  const operands *o = user;
  for (int i = 0; i < o->count; i++)
    if (strcmp(o->names[i], name) == 0) return o->tensors[i].shape;
  fail_msg("no input %s", name);
  return (bnd_shape){0};
}

static char *next_line(char **at) {
  char *line = *at, *end = strchr(line, '\n');
  assert_non_null(end);
  *end = '\0';
  *at = end + 1;
  return line;
}

/* Compares with the values behind "output "; returns their shape for the message. */
static void compare(const char *name, const char *line, const bnd_shape *shape, const float *values, double tolerance) {
  bnd_shape expected;
  char *at = (char *)read_shape(line, &expected);
  assert_true(bnd_shape_equal(&expected, shape));
  size_t count;
  assert_true(bnd_shape_count(shape, &count));
  double *theirs = calloc(count, sizeof *theirs), largest = 0;
  assert_non_null(theirs);
  for (size_t i = 0; i < count; i++) {
    theirs[i] = strtod(at, &at);
    largest = fmax(largest, fabs(theirs[i]));
  }
  assert_true(*at == '\0');
  /* sums are judged by the size of what they add, transcendental functions each by itself (tolerance below 1.5e-7) */
  for (size_t i = 0; i < count; i++) {
    const double limit = tolerance < 1.5e-7 ? tolerance * fabs(theirs[i]) + 1e-42 : tolerance * largest;
    if (!(fabs((double)values[i] - theirs[i]) <= (tolerance > 0 ? limit : 0.0)))
      fail_msg("%s: value %zu is %.9g instead of %.9g", name, i, (double)values[i], theirs[i]);
  }
  free(theirs);
}

static void run_case(const char *name, const bnd_graph *graph, const operands *inputs, char *outputs, double tolerance) {
  const float *data[MOST_OPERANDS];
  for (int i = 0; i < inputs->count; i++) data[i] = bnd_f32(&inputs->tensors[i]);
  for (int backend = BND_BACKEND_ONEDNN; backend <= BND_BACKEND_REFERENCE; backend++)
    for (int threads = 1; threads <= 3; threads += 2) {
      bnd_executor *executor;
      bnd_session *session;
      ASSERT_OK(bnd_executor_create(graph, &(bnd_exec_options){.backend = (bnd_exec_backend)backend, .threads = threads}, &executor, error));
      ASSERT_OK(bnd_session_create(executor, &session, error));
      ASSERT_OK(bnd_session_run(session, data, NULL, NULL, error));
      char *at = outputs;
      for (int i = 0; i < bnd_executor_output_count(executor); i++) {
        char *line = strdup(at), *end = strchr(line, '\n');
        *end = '\0';
        assert_int_equal(strncmp(line, "output ", 7), 0);
        compare(name, line + 7, bnd_executor_output_shape(executor, i), bnd_session_output(session, i), tolerance);
        at += end - line + 1;
        free(line);
      }
      bnd_session_destroy(session);
      bnd_executor_destroy(executor);
    }
}

static void operators_compute_what_pytorch_computes(void **state) {
  (void)state;
  char *text, *at;
  size_t size;
  int cases = 0;
  ASSERT_OK(bnd_file_read(TEST_DATA "/kernels.txt", 1 << 24, &text, &size, error));
  for (at = text; *at;) {
    char name[64], *line = next_line(&at);
    double tolerance;
    assert_int_equal(sscanf(line, "case %63s %lf", name, &tolerance), 2);
    bnd_graph *graph;
    operands inputs = {0};
    ASSERT_OK(bnd_graph_create(&graph, error));
    while (strncmp(at, "graph():", 8) != 0) {
      char kind[16], operand[8];
      int length;
      line = next_line(&at);
      assert_int_equal(sscanf(line, "%15s %7s %n", kind, operand, &length), 2);
      bnd_tensor tensor = described_tensor(BND_F32, line + length);
      if (kind[0] == 'a') {
        ASSERT_OK(bnd_graph_set_attribute(graph, operand, &tensor, true, error));
      } else {
        assert_true(inputs.count < MOST_OPERANDS);
        strcpy(inputs.names[inputs.count], operand);
        inputs.tensors[inputs.count++] = tensor;
      }
    }
    char *graph_text = at;
    at = strstr(at, "\noutput ") + 1;
    at[-1] = '\0';
    read_fx_graph(graph, graph_text, shape_of_input, &inputs);
    ASSERT_OK(bnd_infer_shapes(graph, error));
    char *outputs = at;
    while (strncmp(at, "output ", 7) == 0) at = strchr(at, '\n') + 1;
    run_case(name, graph, &inputs, outputs, tolerance);
    bnd_graph_destroy(graph);
    for (int i = 0; i < inputs.count; i++) bnd_tensor_release(&inputs.tensors[i]);
    cases++;
  }
  free(text);
  assert_true(cases > 90);
}

/* Kernels and operators stay in step: whatever the table knows either computes or is resolved when a plan is made. */
static void every_operator_has_a_kernel(void **state) {
  (void)state;
  for (int id = 0; id < BND_OPERATOR_COUNT; id++) {
    bnd_module module = {.name = "m", .quantizer = NULL};
    bnd_node node = {.kind = BND_CALL_FUNCTION, .op = bnd_operator_of((bnd_operator_id)id), .name = "n", .module = &module};
    bnd_kernel kernel;
    if (id == BND_OP_GETITEM || id == BND_OP_NO_GRAD_REGION) continue;
    bnd_kernel_of_node(&node, &kernel, NULL); /* fails for want of arguments, but after deciding what is computed */
    if (!bnd_reference_kernel(kernel.id)) fail_msg("%s has no kernel", bnd_operator_of((bnd_operator_id)id)->target);
  }
}

static void exp_is_rounded_correctly(void **state) {
  (void)state;
  double worst = 0;
  for (float x = -103.f; x < 88.7f; x += 0.00137f) {
    const double exact = exp((double)x), unit = ldexp(1.0, (int)fmax(floor(log2(exact)), -126.0) - 23);
    worst = fmax(worst, fabs((double)bnd_exp(x) - exact) / unit);
  }
  print_message("largest error of exp: %.4f units in the last place\n", worst);
  assert_true(worst < 0.501);
  assert_true(bnd_exp(0.f) == 1.f && bnd_exp(-200.f) == 0.f && isinf(bnd_exp(200.f)) && isnan(bnd_exp(NAN)));
  assert_true(bnd_exp(-INFINITY) == 0.f && isinf(bnd_exp(INFINITY)));
  assert_true(bnd_sigmoid(0.f) == 0.5f && bnd_sigmoid(100.f) == 1.f && bnd_sigmoid(-200.f) >= 0.f && isnan(bnd_sigmoid(NAN)));
  for (float x = -6.f; x < 6.f; x += 0.01f) {
    assert_true(fabs((double)bnd_tanh(x) - tanh((double)x)) <= 1e-7);
    assert_true(fabs((double)bnd_erf(x) - erf((double)x)) <= 1e-7);
  }
}

/* --- own loops --- */

static float *filled(size_t count, uint64_t seed) {
  float *values = bnd_alloc_aligned(count, sizeof *values);
  assert_non_null(values);
  fill_uniform(values, count, -4, 4, seed);
  return values;
}

static void layouts_are_converted_without_loss(void **state) {
  (void)state;
  static const size_t channels[] = {1, 3, 8, 13, 16, 40}, blocks[] = {8, 16};
  for (size_t c = 0; c < 6; c++)
    for (size_t b = 0; b < 2; b++)
      for (int threads = 1; threads <= 3; threads += 2) {
        const bnd_layout layout = {2, channels[c], 7, 43, blocks[b]};
        const size_t plain_count = layout.images * layout.channels * layout.height * layout.width;
        float *plain = filled(plain_count, 1), *blocked = filled(bnd_layout_count(&layout), 2), *back = filled(plain_count, 3);
        bnd_loop_to_blocked(plain, &layout, blocked, threads);
        bnd_loop_to_plain(blocked, &layout, back, threads);
        assert_memory_equal(plain, back, plain_count * sizeof *plain);
        double sum = 0, blocked_sum = 0;
        for (size_t i = 0; i < plain_count; i++) sum += fabs((double)plain[i]);
        for (size_t i = 0; i < bnd_layout_count(&layout); i++) blocked_sum += fabs((double)blocked[i]);
        assert_true(fabs(sum - blocked_sum) < 1e-6); /* the padding is zero */
        free(plain);
        free(blocked);
        free(back);
      }
}

static void channels_are_inserted_anywhere(void **state) {
  (void)state;
  const size_t first[] = {0, 5, 13, 21, 37}, count[] = {5, 8, 8, 16, 3}, pixels = 4 * 70;
  for (size_t from_block = 0; from_block <= 8; from_block += 8) {
    const bnd_layout to = {2, 40, 4, 70, 8};
    float *blocked = filled(bnd_layout_count(&to), 1), *result = filled(2 * 40 * pixels, 2), *parts[5];
    bnd_loop_clear_tail(blocked, &to);
    for (int i = 0; i < 5; i++) {
      const bnd_layout from = {2, count[i], 4, 70, from_block}, blocked_from = {2, count[i], 4, 70, 8};
      parts[i] = filled(2 * count[i] * pixels, 10 + (uint64_t)i);
      float *x = filled(bnd_layout_count(&blocked_from), 3);
      if (from_block) bnd_loop_to_blocked(parts[i], &from, x, 1);
      bnd_loop_insert_channels(from_block ? x : parts[i], &from, blocked, &to, first[i], 2);
      free(x);
    }
    bnd_loop_to_plain(blocked, &to, result, 1);
    for (size_t n = 0; n < 2; n++)
      for (int i = 0; i < 5; i++)
        assert_memory_equal(result + (n * 40 + first[i]) * pixels, parts[i] + n * count[i] * pixels, count[i] * pixels * sizeof(float));
    for (int i = 0; i < 5; i++) free(parts[i]);
    free(blocked);
    free(result);
  }
}

static void ranges_leave_padding_out(void **state) {
  (void)state;
  for (size_t channels = 1; channels < 20; channels++)
    for (int threads = 1; threads <= 3; threads += 2) {
      const bnd_layout layout = {2, channels, 19, 31, 8};
      const size_t count = 2 * channels * 19 * 31;
      float *plain = filled(count, channels), *blocked = filled(bnd_layout_count(&layout), 2), low = INFINITY, high = -INFINITY, minimum, maximum;
      for (size_t i = 0; i < count; i++) {
        plain[i] -= 10.f;
        low = fminf(low, plain[i]);
        high = fmaxf(high, plain[i]);
      }
      bnd_loop_to_blocked(plain, &layout, blocked, 1);
      bnd_loop_min_max(blocked, &layout, &minimum, &maximum, threads);
      assert_true(minimum == low && maximum == high);
      bnd_loop_min_max(plain, &(bnd_layout){1, 1, 1, count, 0}, &minimum, &maximum, threads);
      assert_true(minimum == low && maximum == high);
      plain[count / 2] = INFINITY;
      bnd_loop_to_blocked(plain, &layout, blocked, 1);
      bnd_loop_min_max(blocked, &layout, &minimum, &maximum, threads);
      assert_true(minimum == low && isinf(maximum));
      plain[count - 1] = NAN;
      bnd_loop_to_blocked(plain, &layout, blocked, 1);
      bnd_loop_min_max(blocked, &layout, &minimum, &maximum, threads);
      assert_true(isnan(minimum) && isnan(maximum));
      free(plain);
      free(blocked);
    }
}

static void tails_quantize_like_the_quantizer(void **state) {
  (void)state;
  const bnd_quantizer_spec spec = {BND_I8, BND_OBSERVER_POWER_OF_TWO_MIN_MAX, false, 0};
  bnd_quantizer *quantizer = bnd_quantizer_create(&spec);
  const size_t count = 10000;
  float *x = filled(count, 1), *y = filled(count, 2), *expected = filled(count, 3), *result = filled(count, 4);
  x[17] = NAN;
  for (int position = -2; position <= 9; position++) {
    for (int zero_point = -128; zero_point <= 0; zero_point += 128) {
      quantizer->position[0] = position;
      quantizer->zero_point[0] = zero_point;
      const bnd_grid grid = bnd_grid_of(quantizer);
      bnd_fake_quantize(quantizer, x, expected, 1, count);
      bnd_loop_pointwise(x, 1.f, result, count, false, &grid, 3);
      assert_true(isnan(result[17]) && isnan(expected[17]));
      for (size_t i = 0; i < count; i++) assert_true(result[i] == expected[i] || i == 17);
      for (size_t i = 0; i < count; i++) expected[i] = 1.3f * x[i];
      bnd_fake_quantize(quantizer, expected, expected, 1, count);
      for (size_t i = 0; i < count; i++) expected[i] += y[i];
      bnd_fake_quantize(quantizer, expected, expected, 1, count);
      bnd_loop_scale_add(x, 1.3f, &grid, y, &grid, result, count, 2);
      for (size_t i = 0; i < count; i++) assert_true(result[i] == expected[i] || i == 17);
    }
  }
  free(x);
  free(y);
  free(expected);
  free(result);
  bnd_quantizer_destroy(quantizer);
}

/* --- oneDNN --- */

/* A convolution's sums must not depend on the number of threads; random values show any other order. */
static void convolutions_do_not_depend_on_threads(void **state) {
  (void)state;
  static const struct {
    size_t in, out, side;
    int64_t window, stride;
  } shapes[] = {{3, 48, 64, 3, 2},     {48, 96, 40, 3, 2},   {96, 32, 40, 1, 1},   {64, 64, 20, 3, 1},   {384, 96, 20, 1, 1}, {768, 192, 20, 1, 1},
                {1536, 768, 10, 1, 1}, {384, 768, 20, 3, 2}, {256, 256, 10, 3, 1}, {192, 384, 33, 1, 1}, {13, 5, 17, 3, 1}};
  bnd_onednn *engine;
  ASSERT_OK(bnd_onednn_create(&engine, error));
  const size_t block = bnd_onednn_block(engine);
  if (!block) skip();
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    const size_t side = shapes[s].side, out_side = (side + (size_t)shapes[s].stride - 1) / (size_t)shapes[s].stride;
    const bnd_convolution_shape shape = {1,
                                         shapes[s].in,
                                         side,
                                         side,
                                         shapes[s].out,
                                         out_side,
                                         out_side,
                                         {shapes[s].window, shapes[s].window},
                                         {shapes[s].stride, shapes[s].stride},
                                         {shapes[s].window / 2, shapes[s].window / 2},
                                         {1, 1},
                                         shapes[s].in == 3};
    const bnd_layout from = {1, shape.in_channels, side, side, shape.plain_input ? 0 : block},
                     to = {1, shape.out_channels, out_side, out_side, block};
    const size_t weights = shape.in_channels * shape.out_channels * (size_t)(shapes[s].window * shapes[s].window);
    float *plain = filled(shape.in_channels * side * side, s), *x = filled(bnd_layout_count(&from), s), *w = filled(weights, 100 + s),
          *bias = filled(shape.out_channels, 200 + s);
    float *first = filled(bnd_layout_count(&to), 1), *other = filled(bnd_layout_count(&to), 2);
    if (shape.plain_input) memcpy(x, plain, bnd_layout_count(&from) * sizeof *x);
    else bnd_loop_to_blocked(plain, &from, x, 1);
    static const int threads[] = {1, 2, 5};
    for (int t = 0; t < 3; t++) {
      bnd_onednn_convolution *convolution;
      bnd_onednn_call *call;
      const bnd_convolution_tail tail = {.relu = true};
      ASSERT_OK(bnd_onednn_convolution_create(engine, &shape, &tail, w, bias, threads[t], &convolution, error));
      assert_non_null(convolution);
      ASSERT_OK(bnd_onednn_call_create(convolution, &call, error));
      void *scratch = bnd_alloc_aligned(bnd_onednn_convolution_scratch_bytes(convolution), 1);
      ASSERT_OK(bnd_onednn_call_run(call, x, t ? other : first, scratch, error));
      if (t) assert_memory_equal(first, other, bnd_layout_count(&to) * sizeof *first);
      bnd_onednn_call_destroy(call);
      bnd_onednn_convolution_destroy(convolution);
      free(scratch);
    }
    free(plain);
    free(x);
    free(w);
    free(bias);
    free(first);
    free(other);
  }
  bnd_onednn_destroy(engine);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(operators_compute_what_pytorch_computes),
      cmocka_unit_test(every_operator_has_a_kernel),
      cmocka_unit_test(exp_is_rounded_correctly),
      cmocka_unit_test(layouts_are_converted_without_loss),
      cmocka_unit_test(channels_are_inserted_anywhere),
      cmocka_unit_test(ranges_leave_padding_out),
      cmocka_unit_test(tails_quantize_like_the_quantizer),
      cmocka_unit_test(convolutions_do_not_depend_on_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
