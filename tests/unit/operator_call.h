/* Single calls of operators for tests of backward rules: "aten.conv2d.default(%a, %b, None, [2, 2])", the operands %a, %b, ... in the order in which
   the kernel takes them. Values are bnd_real: float, or double where a test is compiled with BND_REAL=double. */
#ifndef BND_TESTS_OPERATOR_CALL_H
#define BND_TESTS_OPERATOR_CALL_H

#include "graph_builder.h"

#include "kernels/kernel.h"

enum { MOST_ARRAYS = 8 };

typedef struct operator_call {
  bnd_graph *graph;
  const bnd_node *node;
  bnd_kernel kernel;
  int input_count, output_count;
  bool is_operand[MOST_ARRAYS]; /* input i is a tensor: not absent, not a number */
  bnd_array inputs[MOST_ARRAYS], outputs[MOST_ARRAYS], output_gradients[MOST_ARRAYS], input_gradients[MOST_ARRAYS];
} operator_call;

static inline size_t array_count(const bnd_array *array) {
  size_t count;
  assert_true(bnd_shape_count(&array->shape, &count));
  return count;
}

static inline bnd_array new_array(const bnd_shape *shape) {
  bnd_array array = {*shape, NULL};
  array.data = calloc(array_count(&array) + 1, sizeof *array.data);
  assert_non_null(array.data);
  return array;
}

static inline void fill_array(const bnd_array *array, double low, double high, uint64_t seed) {
  const size_t count = array_count(array);
  float *values = calloc(count + 1, sizeof *values);
  assert_non_null(values);
  fill_uniform(values, count, low, high, seed);
  for (size_t i = 0; i < count; i++) array->data[i] = (bnd_real)values[i];
  free(values);
}

static inline bnd_shape shape_of_operand(void *user, const char *name) {
  return ((const bnd_shape *)user)[name[0] - 'a'];
}

/* `call` may be followed by keywords: "aten.gelu.default(%a) approximate: tanh". Operands are zero. */
static inline void operator_call_create(operator_call *c, const char *call, const bnd_shape *shapes, int shape_count) {
  memset(c, 0, sizeof *c);
  ASSERT_OK(bnd_graph_create(&c->graph, error));
  bnd_string text = {0};
  const char *open = strchr(call, '('), *close = strrchr(call, ')'), *keywords = close + 1 + strspn(close + 1, " ");
  assert_non_null(open);
  bnd_string_format(&text, "graph():");
  for (int i = 0; i < shape_count; i++) bnd_string_format(&text, "\n    %%%c : [num_users=1] = placeholder[target=%c]", 'a' + i, 'a' + i);
  bnd_string_format(&text, "\n    %%result : [num_users=1] = call_function[target=torch.ops.%.*s](args = %.*s, kwargs = {%s})\n    return (result,)",
                    (int)(open - call), call, (int)(close + 1 - open), open, keywords);
  assert_false(text.failed);
  read_fx_graph(c->graph, text.text, shape_of_operand, (void *)shapes);
  bnd_string_free(&text);
  ASSERT_OK(bnd_infer_shapes(c->graph, error));
  c->node = bnd_graph_find(c->graph, "result");
  ASSERT_OK(bnd_kernel_of_node(c->node, &c->kernel, error));
  bnd_operand operands[MOST_ARRAYS];
  c->input_count = bnd_kernel_operands(c->node, operands, MOST_ARRAYS);
  assert_true(c->input_count <= MOST_ARRAYS);
  for (int i = 0; i < c->input_count; i++) {
    if (!operands[i].node && !operands[i].is_number) continue;
    c->is_operand[i] = operands[i].node != NULL;
    c->inputs[i] = new_array(operands[i].node ? &operands[i].node->shape[0] : &(bnd_shape){0});
    if (operands[i].is_number)
      c->inputs[i].data[0] = (bnd_real)operands[i].number;
    else
      c->input_gradients[i] = new_array(&c->inputs[i].shape);
  }
  c->output_count = c->node->result_count;
  for (int i = 0; i < c->output_count; i++) {
    c->outputs[i] = new_array(&c->node->shape[i]);
    c->output_gradients[i] = new_array(&c->node->shape[i]);
  }
}

static inline void operator_call_destroy(operator_call *c) {
  for (int i = 0; i < MOST_ARRAYS; i++) {
    free(c->inputs[i].data);
    free(c->outputs[i].data);
    free(c->output_gradients[i].data);
    free(c->input_gradients[i].data);
  }
  bnd_graph_destroy(c->graph);
}

static inline void operator_call_forward(const operator_call *c) {
  bnd_reference_kernel(c->kernel.id)(&c->kernel, c->inputs, c->input_count, c->outputs, c->output_count);
}

/* Gradients of the operands, filled with NaN before: a rule overwrites. */
static inline void operator_call_backward(const operator_call *c) {
  bnd_gradient_function *gradient = bnd_reference_gradient(c->kernel.id);
  assert_non_null(gradient);
  for (int i = 0; i < c->input_count; i++)
    if (c->input_gradients[i].data) memset(c->input_gradients[i].data, 0xff, array_count(&c->inputs[i]) * sizeof(bnd_real));
  gradient(&c->kernel, c->inputs, c->input_count, c->outputs, c->output_gradients, c->output_count, c->input_gradients);
}

#endif
