/* Loops that gain from wider vectors are compiled twice and picked at load time. Both compute the same bits: lanes are written out by hand,
   nothing is contracted or reassociated. */
#ifndef BND_BASE_SIMD_H
#define BND_BASE_SIMD_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define BND_VECTORIZED __attribute__((target_clones("avx2", "default")))
#else
#define BND_VECTORIZED
#endif

#endif
