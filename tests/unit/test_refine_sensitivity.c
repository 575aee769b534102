/* Sensitivity: a tensor spoilt by hand comes first, the bound is kept, and nothing is changed. */
#include "refine_work.h"

#include "formats/json/json.h"
#include "refine/sensitivity.h"

static void spoilt_tensor_comes_first(void **state) {
  (void)state;
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 2);
  const bnd_node *spoilt = spoil_activation(bnd_graph_first(w->graph), 4, &w->target);
  const record before = trained_bytes(w->graph);
  bnd_sensitivity table;
  ASSERT_OK(bnd_sensitivity_measure(&w->work, NULL, &table, error));
  assert_same(before, trained_bytes(w->graph));
  assert_int_equal(table.images, 2);
  assert_string_equal(table.rows[0].node, spoilt->name);
  assert_int_equal(table.rows[0].kind, BND_TENSOR_ACTIVATION);
  assert_int_equal(table.rows[0].position, spoilt->module->quantizer->position[0]);
  assert_true(table.rows[0].without < table.everything / 2);
  for (size_t i = 1; i < table.count; i++) {
    assert_true(table.rows[i].alone <= table.rows[i - 1].alone);
    assert_true(table.rows[i].without > table.rows[0].without);
    assert_true(table.rows[i].alone >= 0);
    assert_true(table.rows[i].remedy && *table.rows[i].remedy);
  }
  size_t quantizers = 0;
  for (const bnd_node *node = bnd_graph_first(w->graph); node; node = node->next)
    if (node->module) quantizers += (node->module->quantizer != NULL) + (node->module->weight_quantizer != NULL) + (node->module->bias_quantizer != NULL);
  assert_int_equal(table.count, quantizers);
  bnd_sensitivity_free(&table);
  close_workshop(w);
}

/* A network with one quantizer left is that quantizer alone. */
static void last_tensor_is_everything(void **state) {
  (void)state;
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 1);
  bnd_sensitivity table;
  ASSERT_OK(bnd_sensitivity_measure(&w->work, NULL, &table, error));
  remove_quantizers(w->graph, table.rows[0].node);
  bnd_sensitivity single;
  ASSERT_OK(bnd_sensitivity_measure(&w->work, NULL, &single, error));
  assert_int_equal(single.count, table.rows[0].kind == BND_TENSOR_ACTIVATION ? 1 : 0);
  if (single.count) {
    assert_true(single.rows[0].alone == single.everything);
    assert_true(single.rows[0].alone == table.rows[0].alone);
    assert_true(single.rows[0].without == 0);
  }
  bnd_sensitivity_free(&single);
  bnd_sensitivity_free(&table);
  close_workshop(w);
}

static void bound_is_kept(void **state) {
  (void)state;
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 1);
  bnd_sensitivity all, table;
  ASSERT_OK(bnd_sensitivity_measure(&w->work, &(bnd_sensitivity_options){.images = 1}, &all, error));
  ASSERT_OK(bnd_sensitivity_measure(&w->work, &(bnd_sensitivity_options){.runs = all.count + 1 + 5}, &table, error));
  assert_int_equal(table.images, 1);
  for (size_t i = 0; i < table.count; i++) {
    assert_true(table.rows[i].alone == all.rows[i].alone);
    assert_int_equal(isnan(table.rows[i].without), i >= 5);
  }
  bnd_sensitivity_free(&table);
  ASSERT_OK(bnd_sensitivity_measure(&w->work, &(bnd_sensitivity_options){.only_alone = true, .no_biases = true}, &table, error));
  for (size_t i = 0; i < table.count; i++) {
    assert_true(isnan(table.rows[i].without));
    assert_int_not_equal(table.rows[i].kind, BND_TENSOR_BIAS);
  }
  bnd_sensitivity_free(&table);
  bnd_sensitivity_free(&all);
  close_workshop(w);
}

/* Values that other steps trained are another network in float: what one tensor alone costs is told of the float network, not of that one. */
static void trained_values_do_not_count_as_harm(void **state) {
  (void)state;
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 1);
  bnd_sensitivity tables[2];
  ASSERT_OK(bnd_sensitivity_measure(&w->work, NULL, &tables[0], error));
  for (bnd_node *node = bnd_graph_first(w->graph); node; node = node->next) {
    if (!bnd_is_conv_module(node) || !node->module->weight_quantizer) continue;
    bnd_tensor trained;
    ASSERT_OK(bnd_tensor_copy(&node->module->weight, &trained, error));
    for (size_t i = 0; i < trained.count; i++) ((float *)trained.data)[i] += i % 2 ? 0.05f : -0.05f;
    bnd_tensor_release(&node->module->weight);
    node->module->weight = trained;
  }
  ASSERT_OK(bnd_sensitivity_measure(&w->work, NULL, &tables[1], error));
  assert_true(tables[1].everything > tables[0].everything);
  for (size_t i = 0; i < tables[0].count; i++) {
    assert_string_equal(tables[0].rows[i].node, tables[1].rows[i].node);
    assert_true(tables[0].rows[i].alone == tables[1].rows[i].alone);
  }
  bnd_sensitivity_free(&tables[0]);
  bnd_sensitivity_free(&tables[1]);
  close_workshop(w);
}

static void text_and_json(void **state) {
  (void)state;
  bnd_string texts[2] = {{0}}, json = {0};
  bnd_sensitivity table;
  for (int k = 0; k < 2; k++) { /* any number of threads */
    workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 1 + 2 * k);
    ASSERT_OK(bnd_sensitivity_measure(&w->work, NULL, &table, error));
    bnd_sensitivity_print(&table, 0, &texts[k]);
    close_workshop(w);
    if (k == 0) bnd_sensitivity_free(&table);
  }
  assert_string_equal(texts[0].text, texts[1].text);
  bnd_sensitivity_json(&table, &json);
  bnd_arena *arena = bnd_arena_create();
  const bnd_json *root;
  ASSERT_OK(bnd_json_parse("table", json.text, json.length, arena, &root, error));
  assert_int_equal(bnd_json_member(root, "images")->integer, 2);
  const bnd_json *tensors = bnd_json_member(root, "tensors");
  assert_int_equal(tensors->count, table.count);
  assert_string_equal(bnd_json_member(tensors->first, "node")->text, table.rows[0].node);
  assert_true(bnd_json_member(tensors->first, "alone")->number == table.rows[0].alone);
  bnd_arena_destroy(arena);
  bnd_sensitivity_free(&table);
  bnd_string_free(&texts[0]), bnd_string_free(&texts[1]), bnd_string_free(&json);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(spoilt_tensor_comes_first), cmocka_unit_test(last_tensor_is_everything), cmocka_unit_test(bound_is_kept), cmocka_unit_test(text_and_json),
      cmocka_unit_test(trained_values_do_not_count_as_harm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
