/* Graphs: torch.fx's naming, order of users, editing, dead code, copying. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/operators.h"

static bnd_node *call(bnd_graph *graph, bnd_operator_id id, const char *name, bnd_node *a, bnd_node *b) {
  const bnd_arg args[] = {bnd_arg_of_node(a), b ? bnd_arg_of_node(b) : BND_NONE_ARG};
  return bnd_graph_call(graph, bnd_operator_of(id), name, args, b ? 2 : 1);
}

/* What torch.fx's _Namespace.create_name returns for the same requests, in the same order. */
static void names_follow_torch_fx(void **state) {
  (void)state;
  static const char *const wanted[][2] = {{"add", "add"},     {"add", "add_1"},    {"add_5", "add_5"}, {"add", "add_6"},
                                          {"relu_", "relu_"}, {"relu_", "relu__1"}, {"a.b-c", "a_b_c"}, {"7x", "_7x"}};
  bnd_graph *graph;
  assert_int_equal(bnd_graph_create(&graph, NULL), BND_OK);
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) assert_string_equal(bnd_graph_unique_name(graph, wanted[i][0]), wanted[i][1]);
  bnd_graph_destroy(graph);
}

static bnd_graph *diamond(bnd_node **x, bnd_node **left, bnd_node **right, bnd_node **sum) {
  bnd_graph *graph;
  assert_int_equal(bnd_graph_create(&graph, NULL), BND_OK);
  *x = bnd_graph_placeholder(graph, "x", &BND_SHAPE(1, 2, 4, 4));
  *left = call(graph, BND_OP_RELU, "relu", *x, NULL);
  *right = call(graph, BND_OP_SIGMOID, "sigmoid", *x, NULL);
  *sum = call(graph, BND_OP_ADD, "add", *left, *right);
  bnd_graph_output(graph, bnd_arg_of_node(*sum));
  return graph;
}

static void users_move_to_the_end_when_arguments_change(void **state) {
  (void)state;
  bnd_node *x, *left, *right, *sum;
  bnd_graph *graph = diamond(&x, &left, &right, &sum);
  assert_ptr_equal(x->users[0], left);
  bnd_node_set_arg(left, 0, bnd_arg_of_node(x)); /* same argument, set again */
  assert_ptr_equal(x->users[0], right);
  assert_ptr_equal(x->users[1], left);
  assert_int_equal(bnd_graph_verify(graph, NULL), BND_OK);
  bnd_graph_destroy(graph);
}

static void replacing_uses_keeps_the_replacement_itself(void **state) {
  (void)state;
  bnd_node *x, *left, *right, *sum;
  bnd_graph *graph = diamond(&x, &left, &right, &sum);
  bnd_node *between = call(graph, BND_OP_RELU6, "relu6", x, NULL);
  bnd_node_move_after(between, x);
  bnd_node_replace_all_uses(x, between, true);
  assert_int_equal(x->user_count, 1);
  assert_ptr_equal(x->users[0], between);
  assert_ptr_equal(bnd_arg_node(left, 0), between);
  assert_int_equal(bnd_graph_verify(graph, NULL), BND_OK);
  bnd_graph_destroy(graph);
}

static void dead_code_goes_and_order_is_checked(void **state) {
  (void)state;
  bnd_node *x, *left, *right, *sum;
  bnd_graph *graph = diamond(&x, &left, &right, &sum);
  bnd_node_set_arg(sum, 1, bnd_arg_of_node(left));
  bnd_graph_eliminate_dead_code(graph);
  assert_null(bnd_graph_find(graph, "sigmoid"));
  assert_int_equal(bnd_graph_node_count(graph), 4);
  bnd_error error;
  bnd_node_move_before(sum, left);
  assert_int_equal(bnd_graph_verify(graph, &error), BND_ERROR_INTERNAL);
  assert_non_null(strstr(error.message, "add reads relu"));
  bnd_graph_destroy(graph);
}

static void a_copy_prints_the_same_and_lives_alone(void **state) {
  (void)state;
  bnd_node *x, *left, *right, *sum;
  bnd_graph *graph = diamond(&x, &left, &right, &sum), *copy;
  bnd_node_set_arg(left, 0, bnd_arg_of_node(x));
  bnd_string before = {0}, after = {0};
  assert_int_equal(bnd_graph_print_fx(graph, &before, NULL), BND_OK);
  assert_int_equal(bnd_graph_copy(graph, &copy, NULL), BND_OK);
  bnd_graph_destroy(graph);
  assert_int_equal(bnd_graph_verify(copy, NULL), BND_OK);
  assert_int_equal(bnd_graph_print_fx(copy, &after, NULL), BND_OK);
  assert_string_equal(before.text, after.text);
  assert_string_equal(bnd_graph_find(copy, "x")->users[0]->name, "sigmoid");
  bnd_string_free(&before);
  bnd_string_free(&after);
  bnd_graph_destroy(copy);
}

static void floats_print_as_python_writes_them(void **state) {
  (void)state;
  static const struct {
    double value;
    const char *text;
  } cases[] = {{1.0001220703125, "1.0001220703125"}, {0.001, "0.001"}, {0.03, "0.03"}, {100, "100.0"}, {-2.5, "-2.5"}, {1e-05, "1e-05"}, {1e16, "1e+16"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bnd_graph *graph;
    bnd_string text = {0};
    char expected[200];
    assert_int_equal(bnd_graph_create(&graph, NULL), BND_OK);
    bnd_node *x = bnd_graph_placeholder(graph, "x", &BND_SHAPE(1));
    const bnd_arg args[] = {bnd_arg_of_node(x), bnd_arg_of_float(cases[i].value)};
    bnd_graph_output(graph, bnd_arg_of_node(bnd_graph_call(graph, bnd_operator_of(BND_OP_MUL), "mul", args, 2)));
    assert_int_equal(bnd_graph_print_fx(graph, &text, NULL), BND_OK);
    snprintf(expected, sizeof expected, "(args = (%%x, %s), kwargs = {})", cases[i].text);
    if (!strstr(text.text, expected)) fail_msg("%s is not in %s", expected, text.text);
    bnd_string_free(&text);
    bnd_graph_destroy(graph);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_follow_torch_fx),                 cmocka_unit_test(users_move_to_the_end_when_arguments_change),
      cmocka_unit_test(replacing_uses_keeps_the_replacement_itself), cmocka_unit_test(dead_code_goes_and_order_is_checked),
      cmocka_unit_test(a_copy_prints_the_same_and_lives_alone), cmocka_unit_test(floats_print_as_python_writes_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
