#include "kernels/math.h"

#include <math.h>

bnd_real bnd_tanh(bnd_real x) {
  if (!(x > -10.f)) return x != x ? x : -1.f;
  if (x > 10.f) return 1.f;
  if (x > -0.01f && x < 0.01f) {
    const double y = (double)x;
    return (bnd_real)(y - y * y * y / 3 + 2 * y * y * y * y * y / 15);
  }
  const double e = bnd_exp_double(2.0 * (double)x);
  return (bnd_real)((e - 1.0) / (e + 1.0));
}

/* Below 3: erf(x) = 2/sqrt(pi) * e^(-x^2) * sum 2^n x^(2n+1) / (2n+1)!!, all terms positive. Above: 1 - erfc by its continued fraction, evaluated
   from the 40th term inwards. From 4 on the result rounds to 1. */
bnd_real bnd_erf(bnd_real x) {
  if (x != x) return x;
  const double a = fabs((double)x), sqrt_pi = 1.7724538509055160273;
  double result = 1.0;
  if (a < 3.0) {
    double term = a, sum = a;
    for (int n = 1; n < 80; n++) {
      term *= 2.0 * a * a / (2 * n + 1);
      sum += term;
    }
    result = 2.0 / sqrt_pi * bnd_exp_double(-a * a) * sum;
  } else if (a < 4.0) {
    double fraction = a;
    for (int n = 40; n >= 1; n--) fraction = a + (n / 2.0) / fraction;
    result = 1.0 - bnd_exp_double(-a * a) / (sqrt_pi * fraction);
  }
  return (bnd_real)(x < 0.f ? -result : result);
}
