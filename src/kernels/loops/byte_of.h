/* From whole numbers held in floats to bytes; for the loops over bytes only. */
#ifndef BND_KERNELS_LOOPS_BYTE_OF_H
#define BND_KERNELS_LOOPS_BYTE_OF_H

#include <stdint.h>
#include <string.h>

/* clamp(rne(q), low, high) for low >= -128, high <= 127; q is not NaN. Adding 1.5 * 2^23 rounds to nearest-even, exactly because the clamp comes
   first, and leaves the whole number in the low bits of the sum, negative ones as two's complement. */
static inline int8_t bnd_byte_of(float q, float low, float high) {
  q = q > high ? high : q;
  q = q < low ? low : q;
  q = q + 0x1.8p23f;
  uint32_t bits;
  memcpy(&bits, &q, sizeof bits);
  return (int8_t)bits;
}

static inline float bnd_no_nan(float q) {
  return q == q ? q : 0.f;
}

#endif
