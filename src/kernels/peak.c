#include "kernels/peak.h"

#include "base/clock.h"

#if defined(__x86_64__) && defined(__GNUC__)

/* Twelve sums go on at the same time, in registers 2 to 13: enough to hide the latency of the slowest instruction here. All values are 0, which these
   instructions treat as any other. */
enum { SUMS = 12 };
#define TWELVE(step) step("2") step("3") step("4") step("5") step("6") step("7") step("8") step("9") step("10") step("11") step("12") step("13")
#define CLOBBERED "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14"
#define CLEAR(r) "pxor %%xmm" r ", %%xmm" r "\n\t"
#define LOOP(function, step, after)                                                                                                   \
  static void function(uint64_t rounds) {                                                                                             \
    if (rounds)                                                                                                                       \
      __asm__ volatile(CLEAR("0") CLEAR("1") TWELVE(CLEAR) "1:\n\t" TWELVE(step) "dec %0\n\t jnz 1b\n\t" after : "+r"(rounds) : : CLOBBERED); \
  }

#define FLOAT_128(r) "movaps %%xmm0, %%xmm14\n\t mulps %%xmm1, %%xmm14\n\t addps %%xmm14, %%xmm" r "\n\t"
#define FLOAT_256(r) "vfmadd231ps %%ymm0, %%ymm1, %%ymm" r "\n\t"
#define FLOAT_512(r) "vfmadd231ps %%zmm0, %%zmm1, %%zmm" r "\n\t"
#define BYTES_128(r) "movdqa %%xmm0, %%xmm14\n\t pmaddubsw %%xmm1, %%xmm14\n\t pmaddwd %%xmm1, %%xmm14\n\t paddd %%xmm14, %%xmm" r "\n\t"
#define BYTES_256(r) "vpmaddubsw %%ymm0, %%ymm1, %%ymm14\n\t vpmaddwd %%ymm14, %%ymm1, %%ymm14\n\t vpaddd %%ymm14, %%ymm" r ", %%ymm" r "\n\t"
#define BYTES_512(r) "vpmaddubsw %%zmm0, %%zmm1, %%zmm14\n\t vpmaddwd %%zmm14, %%zmm1, %%zmm14\n\t vpaddd %%zmm14, %%zmm" r ", %%zmm" r "\n\t"
#define VNNI_256(r) "%{vex%} vpdpbusd %%ymm0, %%ymm1, %%ymm" r "\n\t"
#define VNNI_512(r) "vpdpbusd %%zmm0, %%zmm1, %%zmm" r "\n\t"
LOOP(float_128, FLOAT_128, "")
LOOP(float_256, FLOAT_256, "vzeroupper")
LOOP(float_512, FLOAT_512, "vzeroupper")
LOOP(bytes_128, BYTES_128, "")
LOOP(bytes_256, BYTES_256, "vzeroupper")
LOOP(bytes_512, BYTES_512, "vzeroupper")
LOOP(vnni_256, VNNI_256, "vzeroupper")
LOOP(vnni_512, VNNI_512, "vzeroupper")

bnd_peak_loop bnd_peak_float(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return (bnd_peak_loop){"AVX-512 FMA", 16 * SUMS, float_512};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (bnd_peak_loop){"AVX2 FMA", 8 * SUMS, float_256};
  return (bnd_peak_loop){"SSE", 4 * SUMS, float_128};
}

static int has_vnni_256(void) {
#if defined(__clang__) /* does not know this name everywhere */
  return 0;
#else
  return __builtin_cpu_supports("avxvnni");
#endif
}

bnd_peak_loop bnd_peak_bytes(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512vnni")) return (bnd_peak_loop){"AVX-512 VNNI", 64 * SUMS, vnni_512};
  if (__builtin_cpu_supports("avx512bw")) return (bnd_peak_loop){"AVX-512 byte pairs", 64 * SUMS, bytes_512};
  if (has_vnni_256()) return (bnd_peak_loop){"AVX2 VNNI", 32 * SUMS, vnni_256};
  if (__builtin_cpu_supports("avx2")) return (bnd_peak_loop){"AVX2 byte pairs", 32 * SUMS, bytes_256};
  if (__builtin_cpu_supports("ssse3")) return (bnd_peak_loop){"SSE byte pairs", 16 * SUMS, bytes_128};
  return bnd_peak_float(); /* nothing is faster with bytes */
}

#else

/* Another processor: what the compiler makes of a plain loop. The best layer will be faster, and is then the peak. */
enum { LANES = 64 };

static void plain_float(uint64_t rounds) {
  static const float factor[LANES] = {0};
  float sums[LANES] = {0};
  for (uint64_t r = 0; r < rounds; r++) {
    for (int i = 0; i < LANES; i++) sums[i] += sums[i] * factor[i];
  }
  for (volatile float result = sums[LANES - 1]; result > 0; result = 0) continue; /* so that the loop is not left out */
}

static void plain_bytes(uint64_t rounds) {
  static const int8_t factor[LANES] = {0};
  int32_t sums[LANES] = {0};
  for (uint64_t r = 0; r < rounds; r++) {
    for (int i = 0; i < LANES; i++) sums[i] += (int8_t)sums[i] * factor[i];
  }
  for (volatile int32_t result = sums[LANES - 1]; result > 0; result = 0) continue;
}

bnd_peak_loop bnd_peak_float(void) { return (bnd_peak_loop){"plain loop", LANES, plain_float}; }
bnd_peak_loop bnd_peak_bytes(void) { return (bnd_peak_loop){"plain loop", LANES, plain_bytes}; }

#endif

/* --- measuring --- */

static double now(int threads) {
  return bnd_clock_seconds(threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID);
}

static double seconds_of(const bnd_peak_loop *loop, uint64_t rounds, int threads) {
  const double start = now(threads);
  if (threads == 1) {
    loop->run(rounds);
  } else {
#pragma omp parallel num_threads(threads)
    loop->run(rounds);
  }
  return now(threads) - start;
}

double bnd_peak_measure(const bnd_peak_loop *loop, int threads) {
  enum { MEASUREMENTS = 9 };
  const double wanted = 3e-3;
  uint64_t rounds = 1024;
  while (seconds_of(loop, rounds, 1) < wanted && rounds < UINT64_C(1) << 40) rounds *= 2;
  double best = 0;
  for (int i = 0; i < MEASUREMENTS; i++) { /* the first may have to start threads */
    const double seconds = seconds_of(loop, rounds, threads), rate = loop->per_round * (double)rounds * threads / seconds;
    if (seconds > 0 && rate > best) best = rate;
  }
  return best;
}
