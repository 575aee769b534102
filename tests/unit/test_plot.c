/* Plots: ticks against what a person would choose, documents against what XML allows, drawn points against positions worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "report/axis.h"
#include "report/plot.h"

enum { POINTS = 6 };
static const double epochs[POINTS] = {1, 2, 3, 4, 5, 6}, falling[POINTS] = {5, 4, 3, 2, 1, 0.5}, rising[POINTS] = {0, 0.1, 0.2, 0.3, 0.4, 0.5};

static void expect_ticks(const bnd_axis *axis, const char *expected) {
  bnd_string text = {0};
  for (size_t i = 0; i < axis->tick_count; i++) {
    bnd_string_append(&text, " ", i > 0);
    bnd_append_tick(&text, axis->ticks[i], axis->step);
    assert_true(bnd_axis_position(axis, axis->ticks[i]) > -1e-6 && bnd_axis_position(axis, axis->ticks[i]) < 1 + 1e-6);
  }
  assert_string_equal(text.text ? text.text : "", expected);
  bnd_string_free(&text);
}

static void linear_ticks_are_round(void **state) {
  (void)state;
  const struct {
    double least, most;
    const char *ticks;
  } cases[] = {
      {0, 1, "0 0.2 0.4 0.6 0.8 1.0"},
      {0.4, 4.1, "0 1 2 3 4 5"},
      {0.0003, 0.0041, "0 0.001 0.002 0.003 0.004 0.005"},
      {100, 104, "100 101 102 103 104"},
      {-3, 7, "-4 -2 0 2 4 6 8"},
      {-7, -0.5, "-8 -6 -4 -2 0"},
      {2, 2, "1.8 1.9 2.0 2.1 2.2"},
      {0, 0, "-1.0 -0.5 0 0.5 1.0"},
      {0, 3e8, "0 1e8 2e8 3e8"},
      {0, 2e-8, "0 5e-9 1.0e-8 1.5e-8 2.0e-8"},
      {1.5e6, 1.9e6, "1.5e6 1.6e6 1.7e6 1.8e6 1.9e6"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const bnd_axis axis = bnd_axis_linear(cases[i].least, cases[i].most, 5);
    assert_true(axis.least <= cases[i].least && axis.most >= cases[i].most && axis.least < axis.most);
    expect_ticks(&axis, cases[i].ticks);
  }
}

static void logarithmic_ticks_are_round(void **state) {
  (void)state;
  const struct {
    double least, most;
    const char *ticks;
  } cases[] = {
      {0.35, 4.1, "0.2 0.5 1 2 5"},
      {0.35, 900, "1 10 100 1000"},
      {1, 10, "1 2 5 10"},
      {1e-12, 1e12, "1e-12 1e-7 0.01 1000 1e8"},
      {3, 3, "2 3 4 5"},
      {2.1, 2.4, "2 3 4 5"},
      {1e-30, 1e30, "1e-30 1e-18 1e-6 1e6 1e18 1e30"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const bnd_axis axis = bnd_axis_logarithmic(cases[i].least, cases[i].most, 5);
    assert_true(axis.least <= cases[i].least * (1 + 1e-6) && axis.most >= cases[i].most * (1 - 1e-6) && axis.least < axis.most);
    expect_ticks(&axis, cases[i].ticks);
  }
  const bnd_axis decades = bnd_axis_logarithmic(0.01, 100, 5);
  assert_float_equal(bnd_axis_position(&decades, 1), 0.5, 1e-12);
}

static void whole_and_share_ticks(void **state) {
  (void)state;
  bnd_axis axis = bnd_axis_whole(1, 1, 10);
  expect_ticks(&axis, "1");
  assert_float_equal(bnd_axis_position(&axis, 1), 0.5, 0);
  axis = bnd_axis_whole(1, 3, 10);
  expect_ticks(&axis, "1 2 3");
  axis = bnd_axis_whole(1, 300, 10);
  expect_ticks(&axis, "50 100 150 200 250 300");
  axis = bnd_axis_share(0.63, 5);
  expect_ticks(&axis, "0 0.2 0.4 0.6 0.8");
  axis = bnd_axis_share(0.97, 5);
  expect_ticks(&axis, "0 0.2 0.4 0.6 0.8 1.0");
  axis = bnd_axis_share(0, 5);
  expect_ticks(&axis, "0 0.01 0.02 0.03 0.04 0.05");
}

/* Enough of XML for what is written here: elements are closed in order, attributes are quoted, text has no bare '<' or '&'. And no number that
   is none or is far outside the picture. */
static void expect_well_formed(const char *text) {
  const char *open[16];
  size_t lengths[16], depth = 0, elements = 0;
  for (const char *at = text; *at;) {
    assert_true((unsigned char)*at >= 0x20 || *at == '\n' || *at == '\t');
    if (*at == '&') {
      at++;
      const size_t length = strcspn(at, ";");
      assert_true((length == 2 && (!memcmp(at, "lt", 2) || !memcmp(at, "gt", 2))) || (length == 3 && !memcmp(at, "amp", 3)) ||
                  (length == 4 && !memcmp(at, "quot", 4)));
      at += length + 1;
    } else if (*at == '<' && at[1] == '/') {
      const size_t length = strcspn(at + 2, ">");
      assert_true(depth > 0 && length == lengths[depth - 1] && memcmp(at + 2, open[depth - 1], length) == 0);
      depth--;
      at += length + 3;
    } else if (*at == '<') {
      assert_true(depth < 16 && (depth > 0 || elements++ == 0));
      open[depth] = at + 1;
      lengths[depth] = strcspn(at + 1, " />");
      assert_true(lengths[depth] > 0);
      at += 1 + lengths[depth++];
      while (*at == ' ') {
        at += 1 + strcspn(at + 1, "=\"<>");
        assert_true(at[0] == '=' && at[1] == '"');
        at += 2 + strcspn(at + 2, "\"<&");
        assert_true(*at == '"');
        at++;
      }
      if (*at == '/') {
        depth--;
        at++;
      }
      assert_true(*at == '>');
      at++;
    } else {
      assert_true(depth > 0 || *at == '\n');
      at++;
    }
  }
  assert_int_equal(depth, 0);
  assert_int_equal(elements, 1);
  assert_null(strstr(text, "nan"));
  assert_null(strstr(text, "inf"));
  for (const char *at = text; (at = strpbrk(at, "0123456789")); at += strspn(at, "0123456789")) assert_true(strspn(at, "0123456789") < 8);
}

static char *draw(const bnd_plot *plot) {
  bnd_string svg = {0};
  bnd_plot_svg(plot, &svg);
  assert_false(svg.failed);
  expect_well_formed(svg.text);
  return svg.text; /* freed by the caller */
}

static int count(const char *text, const char *part) {
  int found = 0;
  for (; (text = strstr(text, part)); text++) found++;
  return found;
}

/* How the line of the only series goes, as letters: M begins a piece, L goes on. */
static void expect_line(const char *svg, const char *expected) {
  const char *line = strstr(svg, "stroke-linecap=\"round\"");
  assert_non_null(line);
  line = strstr(line, " d=\"") + 4;
  char letters[64] = {0};
  size_t length = 0;
  for (; *line != '"'; line++)
    if (*line == 'M' || *line == 'L') letters[length++] = *line;
  assert_string_equal(letters, expected);
}

static void points_are_where_they_belong(void **state) {
  (void)state;
  const double values[POINTS] = {0, 1, 2, 3, 4, 5};
  char *svg = draw(&(bnd_plot){.x = epochs, .count = POINTS, .series = {{.name = "loss", .values = values}}, .series_count = 1});
  double x[2], y[2];
  const char *line = strstr(strstr(svg, "stroke-linecap=\"round\""), " d=\"");
  assert_int_equal(sscanf(line, " d=\"M%lf %lfL%lf %lf", &x[0], &y[0], &x[1], &y[1]), 4);
  /* Six points and ticks at 0 to 5: steps of a fifth of the area, whose corners the grid's first and last line show. */
  double left, right, bottom, top;
  const char *grid = strstr(svg, "<path d=\"M");
  assert_int_equal(sscanf(grid, "<path d=\"M%lf %lfL%lf", &left, &bottom, &right), 3);
  for (int i = 0; i < 5; i++) grid = strstr(grid + 1, "<path d=\"M");
  assert_int_equal(sscanf(grid, "<path d=\"M%*f %lf", &top), 1);
  assert_float_equal(x[0], left, 0.051);
  assert_float_equal(y[0], bottom, 0.051);
  assert_float_equal(x[1], left + (right - left) / 5, 0.11);
  assert_float_equal(y[1], bottom + (top - bottom) / 5, 0.11);
  free(svg);
}

static void missing_values_are_gaps(void **state) {
  (void)state;
  const double values[POINTS] = {1, NAN, 3, 4, INFINITY, 2}, logarithmic[POINTS] = {1, 0, 3, -4, 1e300, 2}, none[POINTS] = {NAN, NAN, NAN, NAN, NAN, NAN};
  bnd_plot plot = {.x = epochs, .count = POINTS, .series = {{.name = "loss", .values = values}}, .series_count = 1};
  char *svg = draw(&plot);
  expect_line(svg, "MMLM");
  assert_int_equal(count(svg, "<circle"), 4);
  free(svg);
  plot.series[0].joined = true;
  svg = draw(&plot);
  expect_line(svg, "MLLL");
  free(svg);
  plot = (bnd_plot){.x = epochs, .count = POINTS, .series = {{.name = "loss", .values = logarithmic}}, .series_count = 1, .logarithmic = true};
  svg = draw(&plot);
  expect_line(svg, "MMM");
  free(svg);
  plot.series[0].values = none;
  svg = draw(&plot);
  assert_non_null(strstr(svg, "nothing to show yet"));
  free(svg);
}

static void long_lines_have_dots_only_where_nothing_else_shows(void **state) {
  (void)state;
  enum { MANY = 300 };
  double x[MANY], values[MANY];
  for (int i = 0; i < MANY; i++) {
    x[i] = i + 1;
    values[i] = i == 100 || i == 102 || i == 299 ? NAN : 1 + i % 3;
  }
  char *svg = draw(&(bnd_plot){.x = x, .count = MANY, .series = {{.name = "loss", .values = values}}, .series_count = 1});
  assert_int_equal(count(svg, "<circle"), 1);
  free(svg);
}

static void the_largest_value_is_marked(void **state) {
  (void)state;
  const double values[POINTS] = {0.1, 0.2, NAN, 0.43219, 0.3, 0.43219};
  char *svg = draw(&(bnd_plot){.x = epochs, .count = POINTS, .series_count = 2, .series = {{.name = "loss", .values = falling},
                               {.name = "mAP", .values = values, .right = true, .joined = true, .mark_largest = true}}});
  assert_int_equal(count(svg, ">0.4322</text>"), 1);
  assert_int_equal(count(svg, "r=\"5.5\""), 1);
  free(svg);
}

static void empty_plots_are_plots(void **state) {
  (void)state;
  char *svg = draw(&(bnd_plot){0});
  assert_non_null(strstr(svg, "nothing to show yet"));
  free(svg);
  svg = draw(&(bnd_plot){.title = "t", .x_label = "epoch", .series = {{.name = "a", .values = falling}, {.name = "b", .values = rising, .right = true}},
                         .series_count = 2});
  assert_non_null(strstr(svg, ">a</tspan>"));
  assert_non_null(strstr(svg, "nothing to show yet"));
  free(svg);
}

static void any_name_is_escaped(void **state) {
  (void)state;
  char *svg = draw(&(bnd_plot){.title = "a<b>&\"c\" caf\xc3\xa9", .x_label = "\x01 \x1b[0m", .x = epochs, .count = POINTS, .series_count = 1,
                               .series = {{.name = "</text> \xff\xc3( \xed\xa0\x80 \xef\xbf\xbf \xf4\x90\x80\x80 \xe2\x82", .values = falling}}});
  assert_non_null(strstr(svg, "a&lt;b&gt;&amp;&quot;c&quot; caf\xc3\xa9"));
  assert_non_null(strstr(svg, "\xef\xbf\xbd \xef\xbf\xbd[0m"));
  assert_non_null(strstr(svg, "&lt;/text&gt; \xef\xbf\xbd\xef\xbf\xbd( "));
  assert_null(strchr(svg, '\xff'));
  assert_null(strchr(svg, '\xed'));
  assert_null(strchr(svg, '\xf4'));
  free(svg);
}

static void long_names_take_more_rows(void **state) {
  (void)state;
  bnd_plot plot = {.x = epochs, .count = POINTS, .series_count = BND_PLOT_SERIES};
  for (int i = 0; i < BND_PLOT_SERIES; i++)
    plot.series[i] = (bnd_plot_series){.name = "a quantity with quite a long name", .values = i % 2 ? rising : falling, .right = i % 2};
  char *svg = draw(&plot);
  assert_int_equal(count(svg, "<text x=\"16\""), 2);                          /* three fit, one remains */
  assert_int_equal(count(svg, "text-anchor=\"end\"><tspan"), 2);
  assert_int_equal(count(svg, "a quantity with quite a long name</tspan>"), BND_PLOT_SERIES);
  free(svg);
}

static void extreme_values_do_no_harm(void **state) {
  (void)state;
  const double extremes[][POINTS] = {{1e30, -1e30, 0, 1e-30, -1e-30, 1}, {DBL_MAX, -DBL_MAX, DBL_MIN, 0, NAN, INFINITY}, {1e29, 1e29, 1e29, 1e29, 1e29, 1e29},
                                     {1e-30, 1e30, 1, 2, 3, 4}, {5, 5 + 1e-12, 5, 5, 5, 5}};
  for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++) {
    for (int kind = 0; kind < 8; kind++) {
      const bnd_plot_series series = {.name = "x", .values = extremes[i], .right = kind & 1, .joined = kind & 2, .mark_largest = true};
      bnd_plot plot = {.x = epochs, .count = POINTS, .series = {series}, .series_count = 1, .logarithmic = kind & 4};
      free(draw(&plot));
      plot.x = extremes[i];
      free(draw(&plot));
    }
  }
}

static void bytes_do_not_depend_on_the_locale(void **state) {
  (void)state;
  bnd_plot plot = {.title = "t", .x = epochs, .count = POINTS, .series_count = 2,
                   .series = {{.name = "loss", .values = falling}, {.name = "mAP", .values = rising, .right = true, .mark_largest = true}}};
  char *before = draw(&plot);
  if (!setlocale(LC_ALL, "de_DE.UTF-8") && !setlocale(LC_ALL, "fr_FR.UTF-8")) print_message("no locale with a decimal comma here\n");
  char *after = draw(&plot);
  setlocale(LC_ALL, "C");
  assert_string_equal(before, after);
  assert_null(strstr(before, "0,"));
  free(before);
  free(after);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(linear_ticks_are_round),
      cmocka_unit_test(logarithmic_ticks_are_round),
      cmocka_unit_test(whole_and_share_ticks),
      cmocka_unit_test(points_are_where_they_belong),
      cmocka_unit_test(missing_values_are_gaps),
      cmocka_unit_test(long_lines_have_dots_only_where_nothing_else_shows),
      cmocka_unit_test(the_largest_value_is_marked),
      cmocka_unit_test(empty_plots_are_plots),
      cmocka_unit_test(any_name_is_escaped),
      cmocka_unit_test(long_names_take_more_rows),
      cmocka_unit_test(extreme_values_do_no_harm),
      cmocka_unit_test(bytes_do_not_depend_on_the_locale),
  };
  return cmocka_run_group_tests_name("plot", tests, NULL, NULL);
}
