/* Graphs for tests: read from the text torch.fx prints, and filled with reproducible values. Failures end the test (cmocka's assertions). */
#ifndef BND_TESTS_GRAPH_BUILDER_H
#define BND_TESTS_GRAPH_BUILDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/graph.h"
#include "ops/operators.h"

#define ASSERT_OK(expression)                                                       \
  do {                                                                              \
    bnd_error assert_ok_error = {0};                                                \
    bnd_error *const error = &assert_ok_error;                                      \
    if ((expression) != BND_OK) fail_msg("%s: %s", #expression, error->message);    \
  } while (0)

/* --- reproducible values --- */

/* float32(low + (high - low) * u), u = the upper 24 bits of splitmix64's output number i for this seed, over 2^24; as in golden/conformance.py. */
static inline void fill_uniform(float *values, size_t count, double low, double high, uint64_t seed) {
  for (size_t i = 0; i < count; i++) {
    uint64_t z = seed + (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    values[i] = (float)(low + (high - low) * ((double)(z >> 40) * 0x1p-24));
  }
}

/* "8x3x1x1" or "scalar"; returns what follows it. */
static inline const char *read_shape(const char *text, bnd_shape *shape) {
  *shape = (bnd_shape){0};
  if (strncmp(text, "scalar", 6) == 0) return text + 6;
  for (;;) {
    char *end;
    assert_true(shape->rank < BND_MAX_RANK);
    shape->size[shape->rank++] = strtoll(text, &end, 10);
    assert_ptr_not_equal(text, end);
    if (*end != 'x') return end;
    text = end + 1;
  }
}

/* A tensor after "SHAPE uniform LOW HIGH SEED" (float32) or "SHAPE values V..." (float32 or int64). */
static inline bnd_tensor described_tensor(bnd_dtype dtype, const char *text) {
  bnd_shape shape;
  bnd_tensor tensor;
  text = read_shape(text, &shape);
  ASSERT_OK(bnd_tensor_create(dtype, &shape, &tensor, error));
  char *at;
  if (strncmp(text, " uniform ", 9) == 0) {
    assert_int_equal(dtype, BND_F32);
    const double low = strtod(text + 9, &at), high = strtod(at, &at);
    fill_uniform(bnd_f32(&tensor), tensor.count, low, high, strtoull(at, &at, 10));
  } else {
    assert_int_equal(strncmp(text, " values ", 8), 0);
    at = (char *)text + 8;
    for (size_t i = 0; i < tensor.count; i++) {
      if (dtype == BND_I64) ((int64_t *)tensor.data)[i] = strtoll(at, &at, 10);
      else bnd_f32(&tensor)[i] = strtof(at, &at);
    }
  }
  assert_true(*at == '\n' || *at == '\0');
  return tensor;
}

/* --- torch.fx's text --- */

typedef struct fx_reader {
  bnd_graph *graph;
  const char *at;
} fx_reader;

static inline bool fx_accept(fx_reader *r, const char *token) {
  const size_t length = strlen(token);
  if (strncmp(r->at, token, length) != 0) return false;
  r->at += length;
  return true;
}

static inline void fx_expect(fx_reader *r, const char *token) {
  if (!fx_accept(r, token)) fail_msg("graph text: expected \"%s\" at \"%.60s\"", token, r->at);
}

/* Everything up to one of `stops`, in the graph's memory. */
static inline char *fx_word(fx_reader *r, const char *stops) {
  const size_t length = strcspn(r->at, stops);
  char *word = bnd_arena_format(bnd_graph_arena(r->graph), "%.*s", (int)length, r->at);
  assert_non_null(word);
  r->at += length;
  return word;
}

static inline bnd_arg fx_argument(fx_reader *r, bool returned);

static inline bnd_arg fx_sequence(fx_reader *r, char close, bool returned) {
  enum { MOST = 64 };
  bnd_arg items[MOST];
  int count = 0;
  while (*r->at != close) {
    assert_true(count < MOST);
    items[count++] = fx_argument(r, returned);
    if (fx_accept(r, ", ") || fx_accept(r, ",")) continue;
    assert_int_equal(*r->at, close);
  }
  r->at++;
  bnd_arg list = bnd_graph_list(r->graph, items, count);
  list.tuple = close == ')';
  return list;
}

/* returned: names are written without %, as in "return (add, mul)". */
static inline bnd_arg fx_argument(fx_reader *r, bool returned) {
  if (fx_accept(r, "[")) return fx_sequence(r, ']', returned);
  if (fx_accept(r, "(")) return fx_sequence(r, ')', returned);
  const bool is_node = fx_accept(r, "%");
  char *word = fx_word(r, ",)]}\n"), *end;
  if (is_node || returned) {
    bnd_node *node = bnd_graph_find(r->graph, word);
    if (!node) fail_msg("graph text: no node %s", word);
    return bnd_arg_of_node(node);
  }
  if (strcmp(word, "None") == 0) return BND_NONE_ARG;
  if (strcmp(word, "True") == 0 || strcmp(word, "False") == 0) return bnd_arg_of_bool(word[0] == 'T');
  const long long integer = strtoll(word, &end, 10);
  if (end != word && *end == '\0') return bnd_arg_of_int(integer);
  const double number = strtod(word, &end);
  return end != word && *end == '\0' ? bnd_arg_of_float(number) : bnd_arg_of_text(word);
}

static inline void fx_call(fx_reader *r, const char *name, const char *target) {
  const bnd_operator *op = bnd_operator_by_target(target);
  if (!op) fail_msg("no operator %s", target);
  fx_expect(r, "(args = (");
  const bnd_arg args = fx_sequence(r, ')', false);
  bnd_node *node = bnd_graph_call(r->graph, op, name, args.list.items, args.list.count);
  assert_non_null(node);
  for (fx_expect(r, ", kwargs = {"); !fx_accept(r, "})"); fx_accept(r, ", ")) {
    const char *keyword = fx_word(r, ":");
    fx_expect(r, ": ");
    assert_true(bnd_node_add_keyword(node, keyword, fx_argument(r, false)));
  }
}

/* Builds the graph that torch.fx printed as `text` (functions only, no modules). Attributes must be there already; input_shape tells a placeholder's
   shape. Node names come out as they are in the text. */
static inline void read_fx_graph(bnd_graph *graph, const char *text, bnd_shape (*input_shape)(void *user, const char *name), void *user) {
  fx_reader r = {graph, text};
  fx_expect(&r, "graph():");
  while (fx_accept(&r, "\n    %")) {
    const char *name = fx_word(&r, " ");
    fx_expect(&r, " : [num_users=");
    fx_word(&r, "]");
    fx_expect(&r, "] = ");
    const char *kind = fx_word(&r, "[");
    fx_expect(&r, "[target=");
    const char *target = fx_word(&r, "]");
    fx_expect(&r, "]");
    if (strcmp(kind, "placeholder") == 0) {
      const bnd_shape shape = input_shape(user, name);
      assert_non_null(bnd_graph_placeholder(graph, name, &shape));
    } else if (strcmp(kind, "get_attr") == 0) {
      assert_non_null(bnd_graph_get_attr(graph, name, target));
    } else {
      assert_string_equal(kind, "call_function");
      fx_call(&r, name, target);
    }
    assert_string_equal(bnd_graph_last(graph)->name, name);
  }
  fx_expect(&r, "\n    return ");
  assert_non_null(bnd_graph_output(graph, fx_argument(&r, true)));
  assert_true(*r.at == '\n' || *r.at == '\0');
  ASSERT_OK(bnd_graph_verify(graph, error));
}

#endif
