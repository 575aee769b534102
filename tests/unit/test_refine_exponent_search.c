/* The search for exponents: it finds back what was moved away by hand, keeps the target's rules, and does not depend on threads. */
#include "refine_work.h"

#include "refine/exponent_search.h"

static double distance_of(workshop *w) {
  double distance;
  ASSERT_OK(bnd_refine_measure(&w->work, w->graph, &w->images, &distance, error));
  return distance;
}

static const bnd_exponent_search_options QUICK = {.images = 10, .choices = 12, .rounds = 2};

static void moved_exponents_are_found_back(void **state) {
  (void)state;
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 2);
  const double good = distance_of(w);
  bnd_string report = {0};
  const bnd_node *spoilt = spoil_activation(bnd_graph_first(w->graph), 3, &w->target);
  spoil_activation(spoilt->next, 3, &w->target);
  const double bad = distance_of(w);
  assert_true(bad > 2 * good);
  ASSERT_OK(bnd_refine_exponent_search_with(&w->work, &QUICK, &report, error));
  const double found = distance_of(w);
  assert_true(found < 1.1 * good);
  assert_int_equal(bnd_check_positions(w->graph, &w->target, NULL, NULL), 0);
  assert_non_null(strstr(report.text, "moves"));
  bnd_string_free(&report);
  close_workshop(w);
}

/* On the images it looks at, it cannot make things worse; only positions move. */
static void never_worse_and_only_positions(void **state) {
  (void)state;
  workshop *w = open_adjusted_workshop(BND_BACKEND_REFERENCE, 1);
  const double before = distance_of(w);
  bnd_string report = {0};
  ASSERT_OK(bnd_refine_exponent_search_with(&w->work, &QUICK, &report, error));
  assert_true(distance_of(w) <= before);
  for (bnd_node *a = bnd_graph_first(w->graph), *b = bnd_graph_first(w->teacher); a; a = a->next, b = b->next)
    if (a->module && a->module->weight.data) assert_ptr_equal(a->module->weight.data, b->module->weight.data);
  bnd_string_free(&report);
  close_workshop(w);
}

static bnd_status search_shortly(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  return bnd_refine_exponent_search_with(work, &(bnd_exponent_search_options){.images = 4, .choices = 6, .rounds = 1}, report, error);
}

static void threads_do_not_show(void **state) {
  (void)state;
  check_threads(open_adjusted_workshop, BND_BACKEND_REFERENCE, search_shortly);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(moved_exponents_are_found_back), cmocka_unit_test(never_worse_and_only_positions), cmocka_unit_test(threads_do_not_show),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
