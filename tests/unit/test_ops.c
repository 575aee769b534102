/* The operator table, families, shape rules and folding against PyTorch and Quark; data by tests/golden/make_ops.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/operators.h"

#define MUST(expression)                                            \
  do {                                                              \
    bnd_error must_error = {0}, *const error = &must_error;         \
    if ((expression) != BND_OK) fail_msg("%s", must_error.message); \
  } while (0)

/* --- table and families --- */

static void every_operator_is_found_by_its_target(void **state) {
  (void)state;
  for (int id = 0; id < BND_OPERATOR_COUNT; id++) {
    const bnd_operator *op = bnd_operator_of((bnd_operator_id)id);
    assert_int_equal(op->id, id);
    assert_ptr_equal(bnd_operator_by_target(op->target), op);
  }
  assert_null(bnd_operator_by_target("torch.ops.aten.unknown.default"));
  assert_null(bnd_operator_of(BND_OPERATOR_COUNT));
  assert_string_equal(bnd_operator_of(BND_OP_GETITEM)->name, "getitem");
}

/* Letters of the families each operator is in; all others are in none: Quark's processor_utils.py. */
static void families_are_quarks(void **state) {
  (void)state;
  static const struct {
    bnd_operator_id id;
    const char *families; /* a activation, m convolution module, f convolution function, r arithmetic, p pool, s shape change, h sharing, q fake
                             quantizer, u relu */
  } EXPECTED[] = {
      {BND_OP_CONV2D, "f"},
      {BND_OP_CONV_TRANSPOSE2D, "f"},
      {BND_OP_LINEAR, "f"},
      {BND_OP_RELU, "au"},
      {BND_OP_RELU_, "au"},
      {BND_OP_RELU6, "a"},
      {BND_OP_HARDTANH, "a"},
      {BND_OP_HARDTANH_, "a"},
      {BND_OP_CLAMP, "a"},
      {BND_OP_CLAMP_, "a"},
      {BND_OP_CLIP, "a"},
      {BND_OP_CLIP_, "a"},
      {BND_OP_SIGMOID, "a"},
      {BND_OP_SIGMOID_, "a"},
      {BND_OP_HARDSIGMOID, "a"},
      {BND_OP_HARDSIGMOID_, "a"},
      {BND_OP_HARDSWISH, "a"},
      {BND_OP_HARDSWISH_, "a"},
      {BND_OP_LEAKY_RELU, "a"},
      {BND_OP_LEAKY_RELU_, "a"},
      {BND_OP_GELU, "a"},
      {BND_OP_SOFTMAX, "a"},
      {BND_OP_ADD, "r"},
      {BND_OP_ADD_, "r"},
      {BND_OP_SUB, "r"},
      {BND_OP_SUB_, "r"},
      {BND_OP_MUL, "r"},
      {BND_OP_MUL_, "r"},
      {BND_OP_DIV, "r"},
      {BND_OP_DIV_, "r"},
      {BND_OP_MAX_POOL2D, "p"},
      {BND_OP_AVG_POOL2D, "p"},
      {BND_OP_ADAPTIVE_AVG_POOL2D, "p"},
      {BND_OP_RESHAPE, "s"},
      {BND_OP_PERMUTE, "sh"},
      {BND_OP_SQUEEZE, "sh"},
      {BND_OP_UNSQUEEZE, "s"},
      {BND_OP_PIXEL_SHUFFLE, "s"},
      {BND_OP_VIEW, "h"},
      {BND_OP_FLATTEN, "h"},
      {BND_OP_TRANSPOSE, "h"},
      {BND_OP_CONTIGUOUS, "h"},
      {BND_OP_DROPOUT, "h"},
      {BND_OP_CONV2D_MODULE, "m"},
      {BND_OP_CONV2D_BN_MODULE, "m"},
      {BND_OP_CONV_TRANSPOSE2D_MODULE, "m"},
      {BND_OP_CONV_TRANSPOSE2D_BN_MODULE, "m"},
      {BND_OP_LINEAR_MODULE, "m"},
      {BND_OP_AVG_POOL2D_MODULE, "p"},
      {BND_OP_GLOBAL_AVG_POOL2D_MODULE, "p"},
      {BND_OP_LEAKY_RELU_MODULE, "a"},
      {BND_OP_FAKE_QUANTIZE, "q"},
  };
  for (int id = 0; id < BND_OPERATOR_COUNT; id++) {
    const bnd_node node = {.op = bnd_operator_of((bnd_operator_id)id)};
    const char *expected = "";
    for (size_t i = 0; i < sizeof EXPECTED / sizeof *EXPECTED; i++)
      if ((int)EXPECTED[i].id == id) expected = EXPECTED[i].families;
    char families[12] = "";
    static const struct {
      bool (*is)(const bnd_node *node);
      const char *letter;
    } FAMILIES[] = {{bnd_is_activation, "a"},   {bnd_is_conv_module, "m"}, {bnd_is_conv_function, "f"}, {bnd_is_arithmetic, "r"}, {bnd_is_pool, "p"},
                    {bnd_is_shape_change, "s"}, {bnd_is_sharing, "h"},     {bnd_is_fake_quantize, "q"}, {bnd_is_relu, "u"}};
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++)
      if (FAMILIES[i].is(&node)) strcat(families, FAMILIES[i].letter);
    if (strcmp(families, expected) != 0) fail_msg("%s: '%s' instead of '%s'", node.op->name, families, expected);
  }
  assert_false(bnd_is_activation(NULL));
  assert_false(bnd_is_relu(&(bnd_node){0}));
}

/* --- shapes --- */

static bnd_arg parse_arg(bnd_graph *graph, char **at);

static bnd_shape parse_sizes(char **at) {
  bnd_shape shape = {0};
  if (strncmp(*at, "scalar", 6) == 0) return *at += 6, shape;
  do {
    *at += **at == 'x';
    shape.size[shape.rank++] = strtoll(*at, at, 10);
  } while (**at == 'x');
  return shape;
}

static bnd_arg parse_list(bnd_graph *graph, char **at, char end) {
  bnd_arg items[16];
  int count = 0;
  for ((*at)++; **at != end; *at += **at == ',') items[count++] = parse_arg(graph, at);
  (*at)++;
  return bnd_graph_list(graph, items, count);
}

static bnd_arg parse_arg(bnd_graph *graph, char **at) {
  switch (**at) {
    case 'T': {
      (*at)++;
      const bnd_shape shape = parse_sizes(at);
      return bnd_arg_of_node(bnd_graph_placeholder(graph, "x", &shape));
    }
    case 'N':
      return (*at)++, BND_NONE_ARG;
    case '[':
      return parse_list(graph, at, ']');
    case '{':
      return parse_list(graph, at, '}');
    case 't':
    case 'f': {
      const bool value = **at == 't';
      *at += value ? 4 : 5;
      return bnd_arg_of_bool(value);
    }
    default: {
      char *end, *whole;
      const double number = strtod(*at, &end);
      const int64_t integer = strtoll(*at, &whole, 10);
      *at = end;
      return whole == end ? bnd_arg_of_int(integer) : bnd_arg_of_float(number);
    }
  }
}

static void shapes_are_those_of_torch(void **state) {
  (void)state;
  FILE *file = fopen(TEST_DATA "/ops/shapes.txt", "r");
  char line[512], copy[512], results[512], text[BND_SHAPE_TEXT];
  int lines = 0;
  assert_non_null(file);
  for (; fgets(line, sizeof line, file); lines++) {
    strcpy(copy, line);
    char *expected = strstr(line, " = ") + 3, *at = strchr(line, '|');
    expected[-3] = *at++ = '\0';
    expected[strcspn(expected, "\n")] = '\0';
    bnd_graph *graph;
    bnd_error failure = {0};
    bnd_arg args[12];
    int count = 0;
    MUST(bnd_graph_create(&graph, error));
    for (; *at; at += *at == '|') args[count++] = parse_arg(graph, &at);
    const bnd_operator *op = bnd_operator_by_target(line);
    if (!op) fail_msg("%s", line);
    bnd_node *node = bnd_graph_call(graph, op, op->name, args, count);
    const bnd_status status = bnd_infer_shapes(graph, &failure);
    results[0] = '\0';
    if (status != BND_OK) {
      strcpy(results, "error");
      assert_int_equal(status, BND_ERROR_MODEL);
      assert_int_equal(strncmp(failure.message, op->name, strlen(op->name)), 0);
      assert_non_null(strstr(failure.message, op->target));
    } else {
      for (int i = 0; i < node->result_count; i++) sprintf(results + strlen(results), "%s%s", i ? ";" : "", bnd_shape_text(&node->shape[i], text));
    }
    if (strcmp(results, expected) != 0) fail_msg("%s  got %s %s", copy, results, failure.message);
    bnd_graph_destroy(graph);
  }
  fclose(file);
  assert_true(lines > 700);
}

static void contradictory_graphs_name_the_node(void **state) {
  (void)state;
  bnd_graph *graph;
  bnd_error failure = {0};
  MUST(bnd_graph_create(&graph, error));
  bnd_node *x = bnd_graph_placeholder(graph, "x", &BND_SHAPE(1, 3, 8, 8)), *missing = bnd_graph_get_attr(graph, "w", "layer.weight");
  const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_node(missing)};
  bnd_graph_call(graph, bnd_operator_of(BND_OP_CONV2D), "conv2d", args, 2);
  assert_int_equal(bnd_infer_shapes(graph, &failure), BND_ERROR_MODEL);
  assert_string_equal(failure.message, "w (layer.weight): the graph has no attribute of this name");
  bnd_tensor weight = {0};
  MUST(bnd_tensor_create(BND_F32, &BND_SHAPE(4, 2, 3, 3), &weight, error));
  MUST(bnd_graph_set_attribute(graph, "layer.weight", &weight, true, error));
  assert_int_equal(bnd_infer_shapes(graph, &failure), BND_ERROR_MODEL);
  assert_string_equal(failure.message, "conv2d (torch.ops.aten.conv2d.default): the input has 3 channels where the weight needs 2");
  bnd_graph_destroy(graph);
}

/* Hostile numbers: no overflow (the sanitizers watch), just an error. */
static void absurd_sizes_are_refused(void **state) {
  (void)state;
  static const int64_t ABSURD[] = {INT64_MIN, INT64_MIN + 1, -5, 0, INT32_MAX, INT64_MAX / 2, INT64_MAX};
  static const bnd_operator_id OPERATORS[] = {BND_OP_CONV2D,
                                              BND_OP_CONV_TRANSPOSE2D,
                                              BND_OP_MAX_POOL2D,
                                              BND_OP_AVG_POOL2D,
                                              BND_OP_SLICE,
                                              BND_OP_SELECT,
                                              BND_OP_SPLIT,
                                              BND_OP_FLATTEN,
                                              BND_OP_TRANSPOSE,
                                              BND_OP_SQUEEZE,
                                              BND_OP_UNSQUEEZE,
                                              BND_OP_PIXEL_SHUFFLE,
                                              BND_OP_SOFTMAX,
                                              BND_OP_MEAN,
                                              BND_OP_GETITEM,
                                              BND_OP_ARANGE,
                                              BND_OP_FULL,
                                              BND_OP_RESHAPE,
                                              BND_OP_PERMUTE,
                                              BND_OP_ADAPTIVE_AVG_POOL2D,
                                              BND_OP_SPLIT_WITH_SIZES,
                                              BND_OP_CAT,
                                              BND_OP_STACK,
                                              BND_OP_MESHGRID,
                                              BND_OP_NO_GRAD_REGION,
                                              BND_OP_TO,
                                              BND_OP_ADD,
                                              BND_OP_LINEAR};
  for (size_t o = 0; o < sizeof OPERATORS / sizeof *OPERATORS; o++) {
    for (size_t v = 0; v < sizeof ABSURD / sizeof *ABSURD; v++) {
      for (int shape = 0; shape < 4; shape++) {
        for (int listed = 0; listed < 2; listed++) {
          bnd_graph *graph;
          bnd_error failure = {0};
          MUST(bnd_graph_create(&graph, error));
          const int64_t huge = ABSURD[v] < 0 ? 3 : ABSURD[v];
          const bnd_shape shapes[] = {BND_SHAPE(1, 2, 5, 5), BND_SHAPE(1, huge, 5, 5), BND_SHAPE(huge, 2, huge, huge), {0}};
          bnd_node *x = bnd_graph_placeholder(graph, "x", &shapes[shape]), *w = bnd_graph_placeholder(graph, "w", &shapes[shape ? 0 : 1]);
          bnd_arg number = bnd_arg_of_int(ABSURD[v]);
          if (listed) number = bnd_graph_int_list(graph, (int64_t[]){ABSURD[v], ABSURD[v], 1, ABSURD[v], 7, ABSURD[v], ABSURD[v], 2, 2}, 1 + (int)v);
          const bnd_arg args[] = {bnd_arg_of_node(x), listed ? number : bnd_arg_of_node(w), number, number, number, number, number, number};
          bnd_node *node = bnd_graph_call(graph, bnd_operator_of(OPERATORS[o]), "node", args, 8);
          if (bnd_infer_shapes(graph, &failure) == BND_OK) {
            for (int i = 0; i < node->result_count; i++) {
              size_t count;
              assert_true(bnd_shape_count(&node->shape[i], &count));
            }
            assert_true(bnd_node_macs(node) >= 0);
          } else {
            assert_true(failure.message[0] != '\0');
          }
          bnd_graph_destroy(graph);
        }
      }
    }
  }
}

/* --- modules --- */

static void modules_have_the_shapes_of_their_functions(void **state) {
  (void)state;
  bnd_graph *graph;
  MUST(bnd_graph_create(&graph, error));
  bnd_node *x = bnd_graph_placeholder(graph, "x", &BND_SHAPE(2, 4, 9, 12));
  const bnd_arg args[] = {bnd_arg_of_node(x)};
  static const struct {
    bnd_operator_id id;
    bnd_shape weight, result;
    int64_t macs;
  } CASES[] = {
      {BND_OP_CONV2D_BN_MODULE, {4, {6, 2, 3, 3}}, {4, {2, 6, 5, 6}}, 2 * 6 * 5 * 6 * 2 * 9},
      {BND_OP_CONV_TRANSPOSE2D_MODULE, {4, {4, 3, 2, 2}}, {4, {2, 6, 16, 22}}, 2 * 4 * 9 * 12 * 3 * 4},
      {BND_OP_LINEAR_MODULE, {2, {5, 12}}, {4, {2, 4, 9, 5}}, 2 * 4 * 9 * 5 * 12},
      {BND_OP_AVG_POOL2D_MODULE, {0}, {4, {2, 4, 5, 6}}, 0},
      {BND_OP_GLOBAL_AVG_POOL2D_MODULE, {0}, {4, {2, 4, 1, 1}}, 0},
      {BND_OP_LEAKY_RELU_MODULE, {0}, {4, {2, 4, 9, 12}}, 0},
      {BND_OP_FAKE_QUANTIZE, {0}, {4, {2, 4, 9, 12}}, 0},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    bnd_module *module = bnd_graph_add_module(graph, "m");
    module->stride[0] = module->stride[1] = 2, module->padding[0] = module->padding[1] = 1, module->dilation[0] = module->dilation[1] = 1,
    module->groups = 2;
    module->kernel[0] = module->kernel[1] = 3;
    if (CASES[i].weight.rank) MUST(bnd_tensor_create(BND_F32, &CASES[i].weight, &module->weight, error));
    bnd_node *node = bnd_graph_add(graph, BND_CALL_MODULE, bnd_operator_of(CASES[i].id), "call", module->name, args, 1);
    node->module = module;
    MUST(bnd_infer_node_shape(node, error));
    char text[2][BND_SHAPE_TEXT];
    assert_string_equal(bnd_shape_text(&node->shape[0], text[0]), bnd_shape_text(&CASES[i].result, text[1]));
    assert_int_equal(bnd_node_macs(node), CASES[i].macs);
  }
  bnd_graph_destroy(graph);
}

/* A line of hexadecimal bits, or "-". */
static bnd_tensor read_bits(FILE *file, const bnd_shape *shape) {
  static char line[1 << 16];
  bnd_tensor tensor = {0};
  float values[2048];
  int64_t count = 0;
  assert_non_null(fgets(line, sizeof line, file));
  if (line[0] == '-') return tensor;
  for (char *at = line; *at && *at != '\n'; count++) {
    const uint32_t bits = (uint32_t)strtoul(at, &at, 16);
    memcpy(&values[count], &bits, 4);
    at += *at == ' ';
  }
  MUST(bnd_tensor_create(BND_F32, shape ? shape : &BND_SHAPE(count), &tensor, error));
  assert_int_equal(tensor.count, count);
  memcpy(tensor.data, values, (size_t)count * 4);
  return tensor;
}

static void folding_is_bit_equal_to_quarks(void **state) {
  (void)state;
  FILE *file = fopen(TEST_DATA "/ops/fold.txt", "r");
  char name[16], sizes[64];
  int modules = 0;
  assert_non_null(file);
  for (; fscanf(file, "%15s %63s\n", name, sizes) == 2; modules++) {
    char *at = sizes;
    const bnd_shape shape = parse_sizes(&at);
    bnd_module module = {.name = name, .has_batch_norm = true, .bn_epsilon = 0.001};
    module.weight = read_bits(file, &shape);
    bnd_tensor *const vectors[] = {&module.bias, &module.bn_weight, &module.bn_bias, &module.bn_running_mean, &module.bn_running_var};
    for (size_t i = 0; i < 5; i++) *vectors[i] = read_bits(file, NULL);
    bnd_tensor expected[2] = {read_bits(file, &shape), read_bits(file, NULL)}, weight, bias;
    const bool transposed = name[0] == 't';
    MUST(bnd_module_fold(&module, transposed, &weight, &bias, error));
    assert_memory_equal(weight.data, expected[0].data, weight.count * 4);
    assert_memory_equal(bias.data, expected[1].data, bias.count * 4);
    bnd_tensor_release(&weight);
    bnd_tensor_release(&bias);

    /* quantizers act on the folded values; without batch norm on the module's own, which stay as they are */
    const bnd_quantizer_spec spec = {.dtype = BND_I8, .observer = BND_OBSERVER_POWER_OF_TWO_MIN_MAX};
    module.weight_quantizer = bnd_quantizer_create(&spec);
    MUST(bnd_observe_tensor(module.weight_quantizer, &expected[0], error));
    MUST(bnd_quantizer_finish(module.weight_quantizer, error));
    bnd_tensor quantized = {0};
    MUST(bnd_fake_quantize_tensor(module.weight_quantizer, &expected[0], &quantized, error));
    MUST(bnd_module_quantized_weights(&module, transposed, &weight, &bias, error));
    assert_memory_equal(weight.data, quantized.data, weight.count * 4);
    assert_memory_equal(bias.data, expected[1].data, bias.count * 4);
    bnd_tensor_release(&weight);
    bnd_tensor_release(&bias);
    module.has_batch_norm = false;
    MUST(bnd_module_quantized_weights(&module, transposed, &weight, &bias, error));
    assert_ptr_not_equal(weight.data, module.weight.data);
    assert_ptr_equal(bias.data, module.bias.data);
    bnd_tensor_release(&weight);
    bnd_tensor_release(&bias);
    bnd_tensor_release(&quantized);

    /* a vector too short is no batch norm */
    bnd_error failure = {0};
    module.has_batch_norm = true;
    module.bn_bias.count--;
    assert_int_equal(bnd_module_fold(&module, transposed, &weight, &bias, &failure), BND_ERROR_MODEL);
    assert_non_null(strstr(failure.message, "batch norm bias"));
    bnd_quantizer_destroy(module.weight_quantizer);
    for (size_t i = 0; i < 5; i++) bnd_tensor_release(vectors[i]);
    bnd_tensor_release(&module.weight);
    for (size_t i = 0; i < 2; i++) bnd_tensor_release(&expected[i]);
  }
  fclose(file);
  assert_int_equal(modules, 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_operator_is_found_by_its_target),
      cmocka_unit_test(families_are_quarks),
      cmocka_unit_test(shapes_are_those_of_torch),
      cmocka_unit_test(contradictory_graphs_name_the_node),
      cmocka_unit_test(absurd_sizes_are_refused),
      cmocka_unit_test(modules_have_the_shapes_of_their_functions),
      cmocka_unit_test(folding_is_bit_equal_to_quarks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
