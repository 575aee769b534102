#include "exec/integers.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"

bool bnd_grid_fits_bytes(const bnd_grid *grid) {
  return grid->low >= -128.f && grid->high <= 127.f;
}

/* The largest e such that the value, finite and not 0, is a whole multiple of 2^e: where its last bit stands. Read off the bits, for this looks at every
   weight of a network. */
static int last_bit(float value) {
  enum { FRACTION_BITS = 23, EXPONENT_BIAS = 127 };
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t fraction = bits & ((1u << FRACTION_BITS) - 1);
  const int exponent = (int)(bits >> FRACTION_BITS & 0xff); /* 0: subnormal, with the exponent of 1 and no leading bit */
  const uint32_t mantissa = exponent ? fraction | 1u << FRACTION_BITS : fraction;
  return (exponent ? exponent : 1) - EXPONENT_BIAS - FRACTION_BITS + __builtin_ctz(mantissa);
}

/* The largest e such that all values are whole multiples of 2^e; INT_MAX when all are 0. False for values that are no numbers. */
static bool common_exponent(const float *values, size_t count, int *result) {
  *result = INT_MAX;
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(values[i])) return false;
    if (values[i] == 0.f) continue;
    const int lowest = last_bit(values[i]);
    if (lowest < *result) *result = lowest;
  }
  return true;
}

static bool is_multiple_of_bytes(const float *values, size_t count, int exponent) {
  const float step = ldexpf(1.f, exponent);
  for (size_t i = 0; i < count; i++)
    if (values[i] > 127.f * step || values[i] < -128.f * step) return false;
  return true;
}

/* One exponent for all channels if that fits, else one for each. False: the weights are no bytes. */
static bool find_exponents(const float *weight, size_t out, size_t row, int *exponents, size_t *count) {
  *count = 1;
  if (!common_exponent(weight, out * row, &exponents[0])) return false;
  if (exponents[0] == INT_MAX) exponents[0] = 0;
  if (is_multiple_of_bytes(weight, out * row, exponents[0])) return true;
  *count = out;
  for (size_t o = 0; o < out; o++) {
    common_exponent(weight + o * row, row, &exponents[o]);
    if (exponents[o] == INT_MAX) exponents[o] = 0;
    if (!is_multiple_of_bytes(weight + o * row, row, exponents[o])) return false;
  }
  return true;
}

typedef struct sums {
  int64_t positive, negative; /* magnitudes */
} sums;

BND_VECTORIZED static sums sum_by_sign(const int8_t *weight, size_t count) {
  enum { PART = 4096 }; /* sums of so many bytes are narrow integers */
  sums all = {0};
  for (size_t begin = 0; begin < count; begin += PART) {
    const size_t end = count - begin < PART ? count : begin + PART;
    int32_t sum = 0, magnitude = 0;
    for (size_t i = begin; i < end; i++) {
      sum += weight[i];
      magnitude += weight[i] < 0 ? -weight[i] : weight[i];
    }
    all.positive += (magnitude + sum) / 2;
    all.negative += (magnitude - sum) / 2;
  }
  return all;
}

/* Largest magnitude of a sum, and of every part of it, in its smallest unit: that of the products or that of the bias, whichever is finer. Where no
   input is negative, positive weights cannot add to negative ones. */
static double largest_sum(const int8_t *weight, size_t row, int unit, float bias, bool non_negative) {
  const sums s = sum_by_sign(weight, row);
  const double sum = non_negative ? 127 * fmax((double)s.positive, (double)s.negative) : 128 * (double)(s.positive + s.negative);
  int bias_unit = INT_MAX;
  if (!common_exponent(&bias, 1, &bias_unit)) return INFINITY;
  const int finest = bias_unit < unit ? bias_unit : unit;
  return ldexp(sum, unit - finest) + ldexp(fabs((double)bias), -finest);
}

/* Biases are bytes of their own exponent, or whole units of the sum. */
static bool is_integer_bias(float bias, int unit) {
  int own;
  if (!common_exponent(&bias, 1, &own)) return false;
  return own >= unit || is_multiple_of_bytes(&bias, 1, own);
}

BND_VECTORIZED static void to_bytes(const float *restrict values, size_t count, float factor, int8_t *restrict bytes) {
  for (size_t i = 0; i < count; i++) bytes[i] = (int8_t)(values[i] * factor);
}

static bool fill(const float *weight, const float *bias, size_t out, size_t row, const int *exponents, const bnd_grid *x, bool non_negative,
                 const bnd_grid *y, bnd_int8_weights *result) {
  int x_exponent, y_exponent;
  frexpf(x->step, &x_exponent), frexpf(y->step, &y_exponent);
  x_exponent--, y_exponent--;
  result->exact_in_float = true;
  for (size_t o = 0; o < out; o++) {
    const int exponent = exponents[result->scale_count > 1 ? o : 0], unit = exponent + x_exponent;
    to_bytes(weight + o * row, row, ldexpf(1.f, -exponent), result->weight + o * row);
    if (o < result->scale_count) result->scale[o] = ldexpf(1.f, unit - y_exponent);
    if (bias) result->bias[o] = ldexpf(bias[o], -y_exponent);
    if (bias && !is_integer_bias(bias[o], unit)) return false;
    if (!isnormal(ldexpf(1.f, unit - y_exponent)) || (bias && !isfinite(result->bias[o]))) return false;
    if (!(largest_sum(result->weight + o * row, row, unit, bias ? bias[o] : 0.f, non_negative) < 0x1p24)) result->exact_in_float = false;
  }
  return true;
}

bnd_status bnd_int8_weights_find(const bnd_tensor *weight, const bnd_tensor *bias, const bnd_grid *x, bool non_negative, const bnd_grid *y,
                                 bnd_int8_weights *result, bool *found, bnd_error *error) {
  *result = (bnd_int8_weights){0};
  *found = false;
  const size_t out = (size_t)weight->shape.size[0], row = out ? weight->count / out : 0;
  if (!row || weight->dtype != BND_F32) return BND_OK;
  int *exponents = bnd_calloc(out, sizeof *exponents);
  result->weight = bnd_alloc_aligned(weight->count, 1);
  result->scale = bnd_calloc(out, sizeof *result->scale);
  if (bias->data) result->bias = bnd_calloc(out, sizeof *result->bias);
  const bool ready = exponents && result->weight && result->scale && (!bias->data || result->bias);
  if (ready)
    *found = find_exponents(bnd_f32(weight), out, row, exponents, &result->scale_count) &&
             fill(bnd_f32(weight), bias->data ? bnd_f32(bias) : NULL, out, row, exponents, x, non_negative, y, result);
  free(exponents);
  if (!*found) bnd_int8_weights_free(result);
  return ready ? BND_OK : bnd_fail_memory(error, "integer weights");
}

void bnd_int8_weights_free(bnd_int8_weights *weights) {
  free(weights->weight);
  free(weights->scale);
  free(weights->bias);
  *weights = (bnd_int8_weights){0};
}
