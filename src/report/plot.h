/* Line plots as SVG: what a run measured, over its epochs or steps. No scripts, no fonts, no colors that need a light or a dark page. */
#ifndef BND_REPORT_PLOT_H
#define BND_REPORT_PLOT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"

enum { BND_PLOT_SERIES = 8 };

/* Values of one quantity, one for each x. Values that are not finite, are beyond +-1e30, not above
   0 on a logarithmic axis or negative on the right axis, are missing. */
typedef struct bnd_plot_series {
  const char *name;       /* UTF-8 */
  const double *values;   /* bnd_plot.count */
  bool right;             /* on the right axis, which goes from 0 to 1 or to a rounder end below that: shares, such as mAP */
  bool joined;            /* a line is drawn across missing values (measured now and then) instead of leaving a gap */
  bool mark_largest;      /* a ring around the largest value, with the value beside it */
} bnd_plot_series;

typedef struct bnd_plot {
  const char *title, *x_label; /* UTF-8; NULL = none */
  const double *x;             /* ascending; ticks are at whole numbers: epochs or steps */
  size_t count;
  bnd_plot_series series[BND_PLOT_SERIES];
  size_t series_count;
  bool logarithmic;            /* the left axis */
} bnd_plot;

/* Appends the whole SVG document. The bytes depend on the plot alone. Everything is borrowed. The string says whether memory was short. */
void bnd_plot_svg(const bnd_plot *plot, bnd_string *svg);

#endif
