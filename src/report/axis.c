#include "report/axis.h"

#include <math.h>
#include <stdlib.h>

static const double LARGEST = 1e30, SMALLEST = 1e-30;

bool bnd_axis_takes(bool logarithmic, double value) {
  if (!(fabs(value) <= LARGEST)) return false; /* NaN as well */
  return !logarithmic || value >= SMALLEST;
}

/* The exponent of the power of ten at or below a positive number. */
static int decade(double value) { return (int)floor(log10(value) + 1e-9); }

/* 10^exponent: what a literal would be up to 22, and close to it elsewhere. */
static double power_of_ten(int exponent) {
  double power = 1;
  for (int i = abs(exponent); i > 0; i--) power *= 10;
  return exponent < 0 ? 1 / power : power;
}

/* The least of 1, 2 and 5 times a power of ten that is not below `width`. */
static double nice_step(double width) {
  const double power = power_of_ten(decade(width)), ratio = width / power;
  return power * (ratio <= 1 + 1e-6 ? 1 : ratio <= 2 + 1e-6 ? 2 : ratio <= 5 + 1e-6 ? 5 : 10);
}

/* Ticks at the multiples of `step` from least to most; a little is forgiven at the ends. */
static void even_ticks(bnd_axis *axis, double step) {
  const double first = ceil(axis->least / step - 1e-6), last = floor(axis->most / step + 1e-6);
  axis->step = step;
  for (double i = first; i <= last && axis->tick_count < BND_AXIS_TICKS; i++) axis->ticks[axis->tick_count++] = i == 0 ? 0 : i * step;
}

bnd_axis bnd_axis_linear(double least, double most, int wanted) {
  if (least > 0 && least < 0.6 * most) least = 0;
  if (most < 0 && most > 0.6 * least) most = 0;
  const double size = fmax(fabs(least), fabs(most));
  if (most - least <= fmax(1e-9 * size, SMALLEST)) { /* as good as one value: in the middle */
    const double around = size <= SMALLEST ? 1 : 0.1 * size;
    least -= around;
    most += around;
  }
  const double step = nice_step((most - least) / wanted);
  bnd_axis axis = {.least = floor(least / step + 1e-6) * step, .most = ceil(most / step - 1e-6) * step, .used = true};
  even_ticks(&axis, step);
  return axis;
}

bnd_axis bnd_axis_share(double most, int wanted) {
  most = fmax(most, 0.05); /* next to nothing should look like it */
  const double step = nice_step(most / wanted);
  bnd_axis axis = {.most = ceil(most / step - 1e-6) * step, .used = true};
  if (most <= 1 && axis.most > 1) axis.most = 1;
  even_ticks(&axis, step);
  return axis;
}

bnd_axis bnd_axis_whole(double least, double most, int wanted) {
  bnd_axis axis = {.least = least, .most = most, .used = true};
  const double around = fmax(0.5, 1e-9 * fabs(least));
  if (most - least < around) {
    axis.least -= around;
    axis.most += around;
  }
  even_ticks(&axis, fmax(1, nice_step((axis.most - axis.least) / wanted)));
  return axis;
}

/* The largest of 1, 2 and 5 times a power of ten that is at most `value`, or with `up` the least that is not below it. */
static double nice_end(double value, bool up) {
  static const double factors[] = {1, 2, 5, 10};
  const double power = power_of_ten(decade(value));
  int i = up ? 0 : 3;
  while (up ? i < 3 && factors[i] * power < value * (1 - 1e-6) : i > 0 && factors[i] * power > value * (1 + 1e-6)) i += up ? 1 : -1;
  return factors[i] * power;
}

/* Ticks at 1, 2 and 5 of each decade, or at powers of ten when that is too many; at even distances when it is too few. */
bnd_axis bnd_axis_logarithmic(double least, double most, int wanted) {
  bnd_axis axis = {.least = nice_end(least, false), .most = nice_end(most, true), .logarithmic = true, .used = true};
  if (axis.most <= axis.least) axis = (bnd_axis){.least = axis.least / 2, .most = axis.most * 2, .logarithmic = true, .used = true};
  const int first = decade(axis.least), last = decade(axis.most), decades = last - first;
  const int stride = decades > 2 * wanted ? (decades + wanted - 1) / wanted : 1;
  const bool between = 3 * decades <= 2 * wanted;
  if (most < 2 * least) { /* less than the distance between two of these */
    even_ticks(&axis, nice_step((axis.most - axis.least) / wanted));
    return axis;
  }
  for (int exponent = first; exponent <= last; exponent += stride) {
    for (int i = 0; i < (between ? 3 : 1); i++) {
      const double tick = power_of_ten(exponent) * (i == 0 ? 1 : i == 1 ? 2 : 5);
      if (tick >= axis.least * (1 - 1e-6) && tick <= axis.most * (1 + 1e-6) && axis.tick_count < BND_AXIS_TICKS) axis.ticks[axis.tick_count++] = tick;
    }
  }
  return axis;
}

double bnd_axis_position(const bnd_axis *axis, double value) {
  if (axis->logarithmic) return log(value / axis->least) / log(axis->most / axis->least);
  return (value - axis->least) / (axis->most - axis->least);
}

void bnd_append_fixed(bnd_string *text, double value, int decimals) {
  const long long power = llround(power_of_ten(decimals)), all = llround(fabs(value) * (double)power);
  bnd_string_format(text, "%s%lld", value < 0 && all > 0 ? "-" : "", all / power);
  if (decimals > 0) bnd_string_format(text, ".%0*lld", decimals, all % power);
}

void bnd_append_tick(bnd_string *text, double value, double step) {
  const double size = fabs(value);
  if (size == 0) {
    bnd_string_append(text, "0", 1);
    return;
  }
  const double finest = step > 0 && step < size ? step : size; /* the place of the last digit that counts */
  if (size < 1e6 && finest > 9.9e-6) {
    const int place = decade(finest);
    bnd_append_fixed(text, value, place < 0 ? -place : 0);
    return;
  }
  const int exponent = decade(size), digits = exponent - decade(finest);
  bnd_append_fixed(text, value / power_of_ten(exponent), digits < 6 ? digits : 6);
  bnd_string_format(text, "e%d", exponent);
}
