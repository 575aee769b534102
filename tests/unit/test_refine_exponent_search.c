/* The search for exponents: it finds back what was moved away by hand, keeps the target's rules, and does not depend on threads. */
#include "refine_work.h"

#include "flow/target_profile.h"
#include "refine/exponent_search.h"

static bnd_target_profile target;

static workshop *open_search(int threads) {
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, threads);
  ASSERT_OK(bnd_target_profile_load(NULL, &target, error));
  w->work.target = &target;
  ASSERT_OK(bnd_adjust_to_fixed_point(w->graph, &target, NULL, error));
  return w;
}

static double distance_of(workshop *w) {
  double distance;
  ASSERT_OK(bnd_refine_measure(&w->work, w->graph, &w->images, &distance, error));
  return distance;
}

static const bnd_exponent_search_options QUICK = {.images = 10, .choices = 12, .rounds = 2};

static void moved_exponents_are_found_back(void **state) {
  (void)state;
  workshop *w = open_search(2);
  const double good = distance_of(w);
  bnd_string report = {0};
  int spoilt = 0;
  for (bnd_node *node = bnd_graph_first(w->graph); node && spoilt < 2; node = node->next) {
    if (!bnd_is_fake_quantize(node) || node->user_count != 1 || !bnd_is_conv_module(node->users[0]) || !bnd_is_relu(bnd_arg_node(node, 0))) continue;
    node->module->quantizer->position[0] -= 3;
    if (bnd_check_positions(w->graph, &target, NULL, NULL) == 0) spoilt++;
    else node->module->quantizer->position[0] += 3;
  }
  assert_int_equal(spoilt, 2);
  const double bad = distance_of(w);
  assert_true(bad > 2 * good);
  ASSERT_OK(bnd_refine_exponent_search_with(&w->work, &QUICK, &report, error));
  const double found = distance_of(w);
  assert_true(found < 1.1 * good);
  assert_int_equal(bnd_check_positions(w->graph, &target, NULL, NULL), 0);
  assert_non_null(strstr(report.text, "moves"));
  bnd_string_free(&report);
  close_workshop(w);
}

/* On the images it looks at, it cannot make things worse; only positions move. */
static void never_worse_and_only_positions(void **state) {
  (void)state;
  workshop *w = open_search(1);
  const double before = distance_of(w);
  bnd_string report = {0};
  ASSERT_OK(bnd_refine_exponent_search_with(&w->work, &QUICK, &report, error));
  assert_true(distance_of(w) <= before);
  for (bnd_node *a = bnd_graph_first(w->graph), *b = bnd_graph_first(w->teacher); a; a = a->next, b = b->next)
    if (a->module && a->module->weight.data) assert_ptr_equal(a->module->weight.data, b->module->weight.data);
  bnd_string_free(&report);
  close_workshop(w);
}

static void threads_do_not_show(void **state) {
  (void)state;
  record records[2];
  for (int k = 0; k < 2; k++) {
    workshop *w = open_search(1 + 2 * k);
    bnd_string report = {0};
    ASSERT_OK(bnd_refine_exponent_search_with(&w->work, &(bnd_exponent_search_options){.images = 4, .choices = 6, .rounds = 1}, &report, error));
    records[k] = trained_bytes(w->graph);
    bnd_string_free(&report);
    close_workshop(w);
  }
  assert_true(same_record(&records[0], &records[1]));
  free(records[0].bytes), free(records[1].bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(moved_exponents_are_found_back), cmocka_unit_test(never_worse_and_only_positions), cmocka_unit_test(threads_do_not_show),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
