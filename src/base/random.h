/* Random numbers without hidden state: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), a
   bijection of 128-bit counters under a 64-bit key. A stream is named by what it is for, so whoever asks, in whatever order and from whatever
   thread, draws the same numbers. */
#ifndef BND_BASE_RANDOM_H
#define BND_BASE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One block: four words of output for a counter and a key. */
void bnd_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t output[4]);

/* A stream of 2^34 words. Streams that differ in any of the four names have nothing in common. */
typedef struct bnd_random {
  uint32_t key[2], counter[4]; /* seed; number of the block, purpose, epoch, position */
  uint32_t block[4];
  int left; /* words of `block` not handed out yet */
} bnd_random;

bnd_random bnd_random_stream(uint64_t seed, uint32_t epoch, uint32_t position, uint32_t purpose);

uint32_t bnd_random_u32(bnd_random *random);
uint64_t bnd_random_u64(bnd_random *random);
/* Uniform in [0, 1): a multiple of 2^-53. */
double bnd_random_uniform(bnd_random *random);
/* low + (high - low) * uniform: in [low, high), or at most rounded up to high. */
double bnd_random_between(bnd_random *random, double low, double high);
/* True with the given probability: never for 0, always for 1. */
bool bnd_random_chance(bnd_random *random, double probability);
/* Uniform in 0 .. count - 1, every number equally likely (numbers that would favour some are drawn again). count 0 gives 0. */
uint64_t bnd_random_below(bnd_random *random, uint64_t count);

/* Fisher-Yates: every order equally likely. */
void bnd_random_shuffle(bnd_random *random, size_t *items, size_t count);

/* Where a random order of 0 .. count - 1 puts `index` (below count), without making the whole order: the swap-or-not shuffle (Hoang, Morris,
   Rogaway: "An Enciphering Scheme Based on a Card Shuffle", CRYPTO 2012). For one fresh stream a bijection. */
uint64_t bnd_random_permuted(const bnd_random *order, uint64_t count, uint64_t index);

#endif
