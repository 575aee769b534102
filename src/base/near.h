/* "Did you mean": names close to a mistyped one. */
#ifndef BND_BASE_NEAR_H
#define BND_BASE_NEAR_H

#include <stddef.h>

/* Edit distance (insert, delete, replace, all cost 1); lengths are cut at 255. */
size_t bnd_edit_distance(const char *a, const char *b);

/* Collects the nearest names: offer() every candidate, then read names[0..count), nearest first. */
enum { BND_NEAR_NAMES = 5 };
typedef struct bnd_near_names {
  const char *wanted;
  const char *names[BND_NEAR_NAMES];
  size_t distance[BND_NEAR_NAMES], count;
} bnd_near_names;
void bnd_near_offer(bnd_near_names *near_names, const char *candidate);
/* "a, b, c" into text; "" when there was no candidate. Returns text. */
char *bnd_near_text(const bnd_near_names *near_names, char *text, size_t size);

#endif
