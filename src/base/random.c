#include "base/random.h"

void bnd_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t output[4]) {
  enum { ROUNDS = 10 };
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int i = 0; i < ROUNDS; i++) {
    const uint64_t a = (uint64_t)c0 * 0xd2511f53u, b = (uint64_t)c2 * 0xcd9e8d57u;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)b;
    c3 = (uint32_t)a;
    k0 += 0x9e3779b9u; /* the golden ratio */
    k1 += 0xbb67ae85u; /* sqrt(3) - 1 */
  }
  output[0] = c0;
  output[1] = c1;
  output[2] = c2;
  output[3] = c3;
}

bnd_random bnd_random_stream(uint64_t seed, uint32_t epoch, uint32_t position, uint32_t purpose) {
  return (bnd_random){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)}, .counter = {0, purpose, epoch, position}};
}

uint32_t bnd_random_u32(bnd_random *random) {
  if (random->left == 0) {
    bnd_philox(random->counter, random->key, random->block);
    random->counter[0]++;
    random->left = 4;
  }
  return random->block[4 - random->left--];
}

uint64_t bnd_random_u64(bnd_random *random) {
  const uint64_t low = bnd_random_u32(random);
  return low | (uint64_t)bnd_random_u32(random) << 32;
}

double bnd_random_uniform(bnd_random *random) {
  return (double)(bnd_random_u64(random) >> 11) * 0x1p-53;
}

double bnd_random_between(bnd_random *random, double low, double high) {
  return low + (high - low) * bnd_random_uniform(random);
}

bool bnd_random_chance(bnd_random *random, double probability) {
  return bnd_random_uniform(random) < probability;
}

uint64_t bnd_random_below(bnd_random *random, uint64_t count) {
  if (count == 0) return 0;
  const uint64_t rejected = -count % count; /* 2^64 mod count: so many of the smallest numbers are one too many */
  uint64_t value;
  do value = bnd_random_u64(random);
  while (value < rejected);
  return value % count;
}

void bnd_random_shuffle(bnd_random *random, size_t *items, size_t count) {
  for (size_t i = count; i > 1; i--) {
    const size_t k = (size_t)bnd_random_below(random, i), swap = items[i - 1];
    items[i - 1] = items[k];
    items[k] = swap;
  }
}

uint64_t bnd_random_permuted(const bnd_random *order, uint64_t count, uint64_t index) {
  /* Each round pairs x with offset - x (modulo count) and swaps the two or not by a bit that both compute alike. About 6 log2(count) rounds are
     known to mix; these do for 2^32. */
  enum { ROUNDS = 192, OFFSET = 0, SWAP = 1 };
  if (count < 2) return index;
  uint32_t key[4], words[4]; /* of which the first two words of `key` are used */
  bnd_philox(order->counter, order->key, key);
  uint64_t x = index;
  for (uint32_t round = 0; round < ROUNDS; round++) {
    bnd_philox((const uint32_t[4]){round, OFFSET, 0, 0}, key, words);
    const uint64_t offset = ((uint64_t)words[0] | (uint64_t)words[1] << 32) % count;
    const uint64_t partner = offset >= x ? offset - x : offset + (count - x), larger = x > partner ? x : partner;
    bnd_philox((const uint32_t[4]){round, SWAP, (uint32_t)larger, (uint32_t)(larger >> 32)}, key, words);
    if (words[0] & 1) x = partner;
  }
  return x;
}
