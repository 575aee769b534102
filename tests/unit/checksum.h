/* CRC-32 as zlib computes it, for comparing large results with those of the originals. */
#ifndef BND_TESTS_CHECKSUM_H
#define BND_TESTS_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t checksum(const void *data, size_t size) {
  static uint32_t table[256];
  if (!table[1])
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
      table[i] = value;
    }
  uint32_t crc = 0xffffffffu;
  for (const unsigned char *at = data, *end = at + size; at < end; at++) crc = crc >> 8 ^ table[(crc ^ *at) & 255];
  return ~crc;
}

#endif
