#include "report/plot.h"

#include <math.h>
#include <string.h>

#include "report/axis.h"

/* All lengths in pixels. */
enum {
  WIDTH = 880, HEIGHT = 440,
  LEFT = 64, RIGHT = 60, BOTTOM = 54, /* margins around the lines; the one above depends on the legend */
  MARGIN = 16, TITLE_HEIGHT = 30, LEGEND_HEIGHT = 22,
  FEW_POINTS = 40, /* up to so many are drawn as dots too */
  VALUE_DECIMALS = 4
};

/* Middle tones: readable on white and on black. */
static const char TEXT_COLOR[] = "#7b8490", GRID_COLOR[] = "#8a93a0";
static const char *const left_colors[] = {"#d9573c", "#d99a2b", "#b070c8", "#8f9a3a"};
static const char *const right_colors[] = {"#2a9d8a", "#3f82d8", "#5bb0c9", "#7a7fd6"};

typedef struct drawing {
  const bnd_plot *plot;
  bnd_string *svg;
  bnd_axis x, left, right;
  double top;      /* of the lines */
  int legend_rows;
} drawing;

static void put(bnd_string *svg, const char *text) { bnd_string_append(svg, text, strlen(text)); }

/* Length of the well-formed UTF-8 sequence that starts here and stands for a character XML 1.0 allows; 0 if there is none. */
static size_t character_length(const char *text) {
  const unsigned char *byte = (const unsigned char *)text;
  if (byte[0] < 0x80) return byte[0] >= 0x20 || byte[0] == '\t' || byte[0] == '\n';
  const size_t length = byte[0] >= 0xf0 ? 4 : byte[0] >= 0xe0 ? 3 : 2;
  if (byte[0] < 0xc2 || byte[0] > 0xf4) return 0;
  for (size_t i = 1; i < length; i++)
    if ((byte[i] & 0xc0) != 0x80) return 0;
  if ((byte[0] == 0xe0 && byte[1] < 0xa0) || (byte[0] == 0xed && byte[1] >= 0xa0)) return 0; /* too long; half of a surrogate pair */
  if (byte[0] == 0xef && byte[1] == 0xbf && byte[2] >= 0xbe) return 0;                       /* U+FFFE, U+FFFF */
  if ((byte[0] == 0xf0 && byte[1] < 0x90) || (byte[0] == 0xf4 && byte[1] >= 0x90)) return 0;
  return length;
}

static void put_escaped(bnd_string *svg, const char *text) {
  while (*text) {
    const size_t length = character_length(text);
    switch (*text) {
      case '&': put(svg, "&amp;"); break;
      case '<': put(svg, "&lt;"); break;
      case '>': put(svg, "&gt;"); break;
      case '"': put(svg, "&quot;"); break;
      default:
        if (length) bnd_string_append(svg, text, length);
        else put(svg, "\xef\xbf\xbd");
    }
    text += length ? length : 1;
  }
}

static void put_number(bnd_string *svg, const char *before, double value) {
  put(svg, before);
  bnd_append_fixed(svg, value, 1);
}

static double x_of(const drawing *canvas, size_t i) { return LEFT + bnd_axis_position(&canvas->x, canvas->plot->x[i]) * (WIDTH - LEFT - RIGHT); }

static double y_of(const drawing *canvas, const bnd_axis *axis, double value) {
  return HEIGHT - BOTTOM - bnd_axis_position(axis, value) * (HEIGHT - BOTTOM - canvas->top);
}

static bool shows(const drawing *canvas, const bnd_plot_series *series, size_t i) {
  if (series->right && series->values[i] < 0) return false;
  return bnd_axis_takes(false, canvas->plot->x[i]) && bnd_axis_takes(canvas->plot->logarithmic && !series->right, series->values[i]);
}

/* ---- Axes ---- */

/* Extent of what is shown on one side; false when that is nothing. */
static bool extent(const drawing *canvas, bool right, double *least, double *most) {
  const bnd_plot *plot = canvas->plot;
  *least = INFINITY;
  *most = -INFINITY;
  for (size_t s = 0; s < plot->series_count; s++) {
    for (size_t i = 0; i < plot->count && plot->series[s].right == right; i++) {
      if (!shows(canvas, &plot->series[s], i)) continue;
      *least = fmin(*least, plot->series[s].values[i]);
      *most = fmax(*most, plot->series[s].values[i]);
    }
  }
  return *least <= *most;
}

static void choose_axes(drawing *canvas) {
  enum { TICKS = 5, X_TICKS = 10 };
  const bnd_plot *plot = canvas->plot;
  double least, most;
  if (extent(canvas, false, &least, &most))
    canvas->left = plot->logarithmic ? bnd_axis_logarithmic(least, most, TICKS) : bnd_axis_linear(least, most, TICKS);
  if (extent(canvas, true, &least, &most)) canvas->right = bnd_axis_share(most, TICKS);
  least = INFINITY;
  most = -INFINITY;
  for (size_t i = 0; i < plot->count; i++) {
    if (!bnd_axis_takes(false, plot->x[i])) continue;
    least = fmin(least, plot->x[i]);
    most = fmax(most, plot->x[i]);
  }
  if (least <= most) canvas->x = bnd_axis_whole(least, most, X_TICKS);
}

static void put_line(const drawing *canvas, double x1, double y1, double x2, double y2) {
  put_number(canvas->svg, "<path d=\"M", x1);
  put_number(canvas->svg, " ", y1);
  put_number(canvas->svg, "L", x2);
  put_number(canvas->svg, " ", y2);
  put(canvas->svg, "\"/>\n");
}

static void put_tick_label(const drawing *canvas, double x, double y, const bnd_axis *axis, double tick) {
  put_number(canvas->svg, "<text x=\"", x);
  put_number(canvas->svg, "\" y=\"", y);
  put(canvas->svg, "\">");
  bnd_append_tick(canvas->svg, tick, axis->step);
  put(canvas->svg, "</text>\n");
}

/* Grid lines belong to the left axis, or to the right one when it is alone. */
static void put_grid(const drawing *canvas) {
  const bnd_axis *axis = canvas->left.used ? &canvas->left : &canvas->right;
  bnd_string *svg = canvas->svg;
  bnd_string_format(svg, "<g stroke=\"%s\" stroke-opacity=\"0.28\" stroke-width=\"1\">\n", GRID_COLOR);
  for (size_t i = 0; i < axis->tick_count; i++) {
    const double y = y_of(canvas, axis, axis->ticks[i]);
    put_line(canvas, LEFT, y, WIDTH - RIGHT, y);
  }
  put(svg, "</g>\n");
  bnd_string_format(svg, "<g stroke=\"%s\" stroke-width=\"1\">\n", GRID_COLOR);
  put_line(canvas, LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
  for (size_t i = 0; i < canvas->x.tick_count; i++) {
    const double x = LEFT + bnd_axis_position(&canvas->x, canvas->x.ticks[i]) * (WIDTH - LEFT - RIGHT);
    put_line(canvas, x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 5);
  }
  for (size_t i = 0; i < canvas->right.tick_count; i++) {
    const double y = y_of(canvas, &canvas->right, canvas->right.ticks[i]);
    put_line(canvas, WIDTH - RIGHT, y, WIDTH - RIGHT + 5, y);
  }
  put(svg, "</g>\n");
}

static void put_tick_labels(const drawing *canvas) {
  enum { DOWN = 4 }; /* from the middle of a digit to its foot */
  bnd_string *svg = canvas->svg;
  put(svg, "<g text-anchor=\"end\">\n");
  for (size_t i = 0; i < canvas->left.tick_count; i++)
    put_tick_label(canvas, LEFT - 10, y_of(canvas, &canvas->left, canvas->left.ticks[i]) + DOWN, &canvas->left, canvas->left.ticks[i]);
  put(svg, "</g>\n<g>\n");
  for (size_t i = 0; i < canvas->right.tick_count; i++)
    put_tick_label(canvas, WIDTH - RIGHT + 10, y_of(canvas, &canvas->right, canvas->right.ticks[i]) + DOWN, &canvas->right, canvas->right.ticks[i]);
  put(svg, "</g>\n<g text-anchor=\"middle\">\n");
  for (size_t i = 0; i < canvas->x.tick_count; i++)
    put_tick_label(canvas, LEFT + bnd_axis_position(&canvas->x, canvas->x.ticks[i]) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM + 21, &canvas->x,
                   canvas->x.ticks[i]);
  if (canvas->plot->x_label) {
    put_number(svg, "<text x=\"", (LEFT + WIDTH - RIGHT) / 2.0);
    bnd_string_format(svg, "\" y=\"%d\">", HEIGHT - 12);
    put_escaped(svg, canvas->plot->x_label);
    put(svg, "</text>\n");
  }
  if (!canvas->left.used && !canvas->right.used)
    bnd_string_format(svg, "<text x=\"%d\" y=\"%d\">nothing to show yet</text>\n", (LEFT + WIDTH - RIGHT) / 2, HEIGHT / 2);
  put(svg, "</g>\n");
}

/* ---- Legend: above the axis that a series belongs to. The viewer's font decides how wide a row is; the guess here is on the wide side. ---- */

static const char *color_of(const bnd_plot *plot, size_t series) {
  size_t place = 0;
  for (size_t s = 0; s < series; s++) place += plot->series[s].right == plot->series[series].right;
  return plot->series[series].right ? right_colors[place % 4] : left_colors[place % 4];
}

/* The first series of a side is the one to look at. */
static double stroke_width(const bnd_plot *plot, size_t series) {
  for (size_t s = 0; s < series; s++)
    if (plot->series[s].right == plot->series[series].right) return 1.6;
  return 2.6;
}

static double entry_width(const char *name) {
  double width = 34;
  for (; *name; name++) width += ((unsigned char)*name & 0xc0) != 0x80 ? 7.5 : 0;
  return width;
}

/* The series of one side in rows no wider than `room`; returns the number of rows. */
static int put_legend_side(const drawing *canvas, bool right, double room, int first_row, bool draw) {
  const bnd_plot *plot = canvas->plot;
  bnd_string *svg = canvas->svg;
  int rows = 0;
  double used = room + 1;
  for (size_t s = 0; s < plot->series_count; s++) {
    if (plot->series[s].right != right) continue;
    const double width = entry_width(plot->series[s].name);
    const bool begins = rows == 0 || used + width > room;
    if (begins && draw) {
      if (rows > 0) put(svg, "</text>\n");
      bnd_string_format(svg, "<text x=\"%d\" y=\"%d\"%s>", right ? WIDTH - MARGIN : MARGIN,
                        (int)canvas->top - 22 - (canvas->legend_rows - 1 - first_row - rows) * LEGEND_HEIGHT, right ? " text-anchor=\"end\"" : "");
    }
    if (draw) {
      bnd_string_format(svg, "<tspan fill=\"%s\"%s>\xe2\x97\x8f</tspan><tspan dx=\"5\">", color_of(plot, s), begins ? "" : " dx=\"16\"");
      put_escaped(svg, plot->series[s].name);
      put(svg, "</tspan>");
    }
    rows += begins;
    used = begins ? width : used + width;
  }
  if (rows > 0 && draw) put(svg, "</text>\n");
  return rows;
}

/* Both sides share their rows when they fit beside each other. Without drawing: how many rows that takes. */
static int put_legend(const drawing *canvas, bool draw) {
  const bnd_plot *plot = canvas->plot;
  const double room = WIDTH - 2 * MARGIN;
  double widths[2] = {0};
  for (size_t s = 0; s < plot->series_count; s++) widths[plot->series[s].right] += entry_width(plot->series[s].name);
  const bool together = widths[0] + widths[1] <= room;
  const int left = put_legend_side(canvas, false, room, 0, draw), right = put_legend_side(canvas, true, room, together ? 0 : left, draw);
  return together ? (left > right ? left : right) : left + right;
}

/* ---- Lines ---- */

static void put_dot(const drawing *canvas, double x, double y, double radius) {
  put_number(canvas->svg, "<circle cx=\"", x);
  put_number(canvas->svg, "\" cy=\"", y);
  put_number(canvas->svg, "\" r=\"", radius);
  put(canvas->svg, "\"/>\n");
}

/* Whether no line goes from value i to another: then it needs a dot to be seen. */
static bool stands_alone(const drawing *canvas, const bnd_plot_series *series, size_t i) {
  return !series->joined && (i == 0 || !shows(canvas, series, i - 1)) && (i + 1 == canvas->plot->count || !shows(canvas, series, i + 1));
}

/* How far a label whose middle is at (x, y) stays from everything that is drawn. */
static double distance_to_lines(const drawing *canvas, double x, double y) {
  enum { HALF = 30 }; /* of a label's width */
  const bnd_plot *plot = canvas->plot;
  double least = HEIGHT;
  for (size_t s = 0; s < plot->series_count; s++) {
    for (size_t i = 0; i < plot->count; i++) {
      if (!shows(canvas, &plot->series[s], i) || fabs(x_of(canvas, i) - x) > HALF) continue;
      least = fmin(least, fabs(y_of(canvas, plot->series[s].right ? &canvas->right : &canvas->left, plot->series[s].values[i]) - y));
    }
  }
  return least;
}

static void put_largest(const drawing *canvas, const bnd_plot_series *series, const bnd_axis *axis) {
  enum { EDGE = 30, AWAY = 18, DOWN = 4 }; /* from the ring to the label's middle; from there to its foot */
  size_t largest = SIZE_MAX;
  for (size_t i = 0; i < canvas->plot->count; i++)
    if (shows(canvas, series, i) && (largest == SIZE_MAX || series->values[i] > series->values[largest])) largest = i;
  if (largest == SIZE_MAX) return;
  const double x = x_of(canvas, largest), y = y_of(canvas, axis, series->values[largest]);
  const double text_x = fmin(fmax(x, LEFT + EDGE), WIDTH - RIGHT - EDGE);
  const bool below = y + 2 * AWAY < HEIGHT - BOTTOM && distance_to_lines(canvas, text_x, y + AWAY) >= distance_to_lines(canvas, text_x, y - AWAY);
  const double text_y = y + (below ? AWAY : -AWAY) + DOWN;
  bnd_string *svg = canvas->svg;
  put_number(svg, "<circle fill=\"none\" stroke-width=\"2\" cx=\"", x);
  put_number(svg, "\" cy=\"", y);
  put(svg, "\" r=\"5.5\"/>\n");
  put_number(svg, "<text stroke=\"none\" font-weight=\"600\" text-anchor=\"middle\" x=\"", text_x);
  put_number(svg, "\" y=\"", text_y);
  put(svg, "\">");
  const double value = series->values[largest];
  if (fabs(value) < 1000) bnd_append_fixed(svg, value, VALUE_DECIMALS);
  else bnd_append_tick(svg, value, value / 1000);
  put(svg, "</text>\n");
}

static void put_series(const drawing *canvas, size_t s) {
  const bnd_plot *plot = canvas->plot;
  const bnd_plot_series *series = &plot->series[s];
  const bnd_axis *axis = series->right ? &canvas->right : &canvas->left;
  const double width = stroke_width(plot, s);
  bnd_string *svg = canvas->svg;
  if (!axis->used || !canvas->x.used) return;
  bnd_string_format(svg, "<g fill=\"%s\" stroke=\"%s\">\n<path fill=\"none\" stroke-linejoin=\"round\" stroke-linecap=\"round\"",
                    color_of(plot, s), color_of(plot, s));
  put_number(svg, " stroke-width=\"", width);
  put(svg, "\" d=\"");
  bool down = false;
  for (size_t i = 0; i < plot->count; i++) {
    if (!shows(canvas, series, i)) {
      down &= series->joined;
      continue;
    }
    put_number(svg, down ? "L" : "M", x_of(canvas, i));
    put_number(svg, " ", y_of(canvas, axis, series->values[i]));
    down = true;
  }
  put(svg, "\"/>\n");
  size_t shown = 0;
  for (size_t i = 0; i < plot->count; i++) shown += shows(canvas, series, i);
  for (size_t i = 0; i < plot->count; i++) {
    if (!shows(canvas, series, i)) continue;
    const bool alone = shown == 1 || stands_alone(canvas, series, i);
    if (alone || shown <= FEW_POINTS) put_dot(canvas, x_of(canvas, i), y_of(canvas, axis, series->values[i]), alone ? width + 1.5 : width);
  }
  if (series->mark_largest) put_largest(canvas, series, axis);
  put(svg, "</g>\n");
}

void bnd_plot_svg(const bnd_plot *plot, bnd_string *svg) {
  drawing canvas = {.plot = plot, .svg = svg};
  canvas.legend_rows = put_legend(&canvas, false);
  canvas.top = MARGIN + (plot->title ? TITLE_HEIGHT : 0) + canvas.legend_rows * LEGEND_HEIGHT + 14;
  choose_axes(&canvas);
  bnd_string_format(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                    "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"%s\" role=\"img\">\n",
                    WIDTH, HEIGHT, WIDTH, HEIGHT, TEXT_COLOR);
  if (plot->title) {
    put(svg, "<title>");
    put_escaped(svg, plot->title);
    bnd_string_format(svg, "</title>\n<text x=\"%d\" y=\"%d\" font-size=\"16\" font-weight=\"600\">", MARGIN, MARGIN + 14);
    put_escaped(svg, plot->title);
    put(svg, "</text>\n");
  }
  put_legend(&canvas, true);
  put_grid(&canvas);
  put_tick_labels(&canvas);
  for (size_t s = plot->series_count; s-- > 0;) put_series(&canvas, s); /* the first ones on top */
  put(svg, "</svg>\n");
}
