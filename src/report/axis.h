/* Axes of a plot: from values to positions between 0 and 1, and where the ticks are. */
#ifndef BND_REPORT_AXIS_H
#define BND_REPORT_AXIS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"

enum { BND_AXIS_TICKS = 24 };

typedef struct bnd_axis {
  double least, most; /* what the ends stand for; least < most */
  bool logarithmic, used;
  double ticks[BND_AXIS_TICKS]; /* ascending, within the ends */
  size_t tick_count;
  double step; /* between ticks; 0 where they are not even */
} bnd_axis;

/* Whether a value can be shown at all: finite and of a size that arithmetic here does not overflow with. */
bool bnd_axis_takes(bool logarithmic, double value);
/* Ends and ticks for values from `least` to `most` (both taken; most >= least), at about `wanted` places. */
bnd_axis bnd_axis_linear(double least, double most, int wanted); /* ends at ticks; includes 0 unless the values are far from it */
bnd_axis bnd_axis_logarithmic(double least, double most, int wanted);
bnd_axis bnd_axis_share(double most, int wanted);                /* from 0 to a round number, at most 1 unless values are larger */
bnd_axis bnd_axis_whole(double least, double most, int wanted);  /* ends at the values, ticks at whole numbers */
/* 0 at the least, 1 at the most. */
double bnd_axis_position(const bnd_axis *axis, double value);

/* A number with so many decimals, with a point in every locale. */
void bnd_append_fixed(bnd_string *text, double value, int decimals);
/* A tick's label: no more decimals than the step needs, an exponent where the number would be long. */
void bnd_append_tick(bnd_string *text, double value, double step);

#endif
