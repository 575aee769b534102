/* A target profile: what an NPU can do, as data. Profiles live in targets/NAME.json; amd-xint8 is the first. */
#ifndef BND_PASSES_TARGET_TARGET_H
#define BND_PASSES_TARGET_TARGET_H

#include <stdbool.h>

typedef struct bnd_limits {
  int low, high; /* both allowed */
} bnd_limits;

/* The rounding of everything computed here, as profiles spell it. */
#define BND_ROUNDING "half to even at every requantization"

/* ipos, wpos, bpos, opos: positions of inputs, weight, bias, output. Shifts are what the hardware does between accumulator and int8. */
typedef struct bnd_target_profile {
  char name[64];
  char description[256];
  char rounding[64]; /* for people; what is computed here is BND_ROUNDING */
  bool align_concat, align_pool, align_slice; /* inputs and output of these share one position: the smallest */
  bnd_limits shift_read;      /* add, sub: max(ipos) - min(ipos) */
  bnd_limits shift_write_add; /* add: min(ipos) - opos */
  bnd_limits shift_write_mul; /* mul: ipos0 + ipos1 - opos */
  bnd_limits shift_cut;       /* convolution, linear: wpos + ipos - opos */
  int shift_bias_high;        /* convolution, linear: wpos + ipos - bpos; lower limit min(0, -(accumulator_bits - (8 + shift_cut))) */
  int accumulator_bits;
  bnd_limits hard_sigmoid_input; /* position of its input */
  int hard_sigmoid_output_low;   /* smallest position of its output */
  int hard_sigmoid_shift;        /* shift = this + ipos - opos, must be positive */
  double hard_sigmoid_factor;    /* the hardware's 1/6 over the exact one */
  bool float_tail;               /* what stands behind the last learned layers may stay in float, on the host; a profile that does not say so allows it */
  bnd_limits shift_swish;        /* x * hardsigmoid(x): ipos0 + ipos1 - opos */
} bnd_target_profile;

#endif
