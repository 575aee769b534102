/* How fast this processor multiplies and adds at most: what `bench` holds layers against. */
#ifndef BND_KERNELS_PEAK_H
#define BND_KERNELS_PEAK_H

#include <stdint.h>

/* A loop of independent multiply-adds in registers, without memory. */
typedef struct bnd_peak_loop {
  const char *name;              /* of its instructions: "AVX2 FMA" */
  double per_round;              /* multiply-adds */
  void (*run)(uint64_t rounds);
} bnd_peak_loop;
/* In the widest instructions this processor has, whatever oneDNN was told to leave unused. */
bnd_peak_loop bnd_peak_float(void); /* FP32 */
bnd_peak_loop bnd_peak_bytes(void); /* products of unsigned and signed bytes, summed in 32 bits; AMX is not looked for */

/* Multiply-adds a second of `threads` threads at once: the best of some short measurements, 50 ms in all. With one thread processor time counts, so that
   a busy machine does not show. */
double bnd_peak_measure(const bnd_peak_loop *loop, int threads);

#endif
