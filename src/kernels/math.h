/* Transcendental functions with one fixed result on every machine: plain arithmetic in double, rounded once to bnd_real (float). The C library's own
   differ between versions and processors; these are shared by all executors. Largest error of bnd_exp: 0.5001 units in the last place. */
#ifndef BND_KERNELS_MATH_H
#define BND_KERNELS_MATH_H

#include <stdint.h>
#include <string.h>

#include "kernels/real.h"

/* e^x in double for -745 < x < 709, relative error below 1e-11, by e^x = 2^n * e^r with |r| <= ln(2) / 2 and Taylor's series to r^9 (the first
   term left out is r^10 / 10! < 1e-11). Adding 1.5 * 2^52 rounds to an integer whose low bits then are n. Free of branches, so that loops over it
   vectorise. */
static inline double bnd_exp_double(double x) {
  const double magic = 0x1.8p52, log2_e = 0x1.71547652b82fep+0, ln_2 = 0x1.62e42fefa39efp-1;
  const double shifted = x * log2_e + magic;
  const double r = x - (shifted - magic) * ln_2;
  double p = 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  uint64_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 52) + 0x3ff0000000000000u;
  double power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

/* Beyond these bounds e^x is 0 or infinity in float; NaN passes both comparisons and stays. */
static inline double bnd_exp_argument(bnd_real x) {
  bnd_real y = x > 89.f ? 89.f : x;
  y = y < -104.f ? -104.f : y;
  return (double)y;
}

static inline bnd_real bnd_exp(bnd_real x) {
  return (bnd_real)bnd_exp_double(bnd_exp_argument(x));
}
/* 1 / (1 + e^-x) */
static inline bnd_real bnd_sigmoid(bnd_real x) {
  return (bnd_real)(1.0 / (1.0 + bnd_exp_double(bnd_exp_argument(-x))));
}
/* clamp(x + 3, 0, 6) / 6, each step rounded to float, as PyTorch evaluates it on a CPU. */
static inline bnd_real bnd_hardsigmoid(bnd_real x) {
  bnd_real y = x + 3.f;
  y = y < 0.f ? 0.f : y;
  y = y > 6.f ? 6.f : y;
  return y / 6.f;
}

/* ln(1 + x) for -0.3 < x < 0.4143, relative error below 1e-13: 2 artanh(z) = 2 (z + z^3/3 + z^5/5 + ...) with z = x / (2 + x), so that z^2 < 0.0312;
   the first term left out is z^17 / 17. */
static inline double bnd_log1p_near_0(double x) {
  const double z = x / (2.0 + x), s = z * z;
  double p = 1.0 / 15;
  p = p * s + 1.0 / 13;
  p = p * s + 1.0 / 11;
  p = p * s + 1.0 / 9;
  p = p * s + 1.0 / 7;
  p = p * s + 1.0 / 5;
  p = p * s + 1.0 / 3;
  return 2.0 * (z + z * s * p);
}

/* ln(1 + x) for 0 <= x <= 1: for x above sqrt(2) - 1 it is ln(2) + ln((1 + x) / 2). Free of branches; NaN stays. */
static inline double bnd_log1p_double(double x) {
  const double halved = (x - 1.0) * 0.5, ln_2 = 0x1.62e42fefa39efp-1, limit = 0x1.a827999fcef32p-2;
  return bnd_log1p_near_0(x > limit ? halved : x) + (x > limit ? ln_2 : 0.0);
}

/* Natural logarithm of a positive normal number, absolute error below 1e-12: x = 2^n * m with m from sqrt(1/2) to sqrt(2). */
static inline double bnd_log_double(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint64_t n = (bits - 0x3fe6a09e667f3bcdu) >> 52 << 52; /* the exponent of x / sqrt(1/2), in its place */
  bits -= n;
  double m;
  memcpy(&m, &bits, sizeof m);
  return (double)((int64_t)n >> 52) * 0x1.62e42fefa39efp-1 + bnd_log1p_near_0(m - 1.0);
}

bnd_real bnd_tanh(bnd_real x);
/* Gauss error function. */
bnd_real bnd_erf(bnd_real x);

#endif
