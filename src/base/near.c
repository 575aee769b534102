#include "base/near.h"

#include <stdio.h>
#include <string.h>

enum { LONGEST = 255 };

size_t bnd_edit_distance(const char *a, const char *b) {
  const size_t length_a = strnlen(a, LONGEST), length_b = strnlen(b, LONGEST);
  size_t row[LONGEST + 1];
  for (size_t j = 0; j <= length_b; j++) row[j] = j;
  for (size_t i = 1; i <= length_a; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= length_b; j++) {
      const size_t above = row[j];
      size_t best = diagonal + (a[i - 1] != b[j - 1]);
      if (above + 1 < best) best = above + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      row[j] = best;
      diagonal = above;
    }
  }
  return row[length_b];
}

void bnd_near_offer(bnd_near_names *near_names, const char *candidate) {
  const size_t distance = bnd_edit_distance(near_names->wanted, candidate);
  for (size_t i = 0; i < near_names->count; i++)
    if (strcmp(near_names->names[i], candidate) == 0) return;
  size_t at = near_names->count;
  while (at > 0 && near_names->distance[at - 1] > distance) at--;
  if (at >= BND_NEAR_NAMES) return;
  const size_t kept = near_names->count < BND_NEAR_NAMES ? near_names->count : BND_NEAR_NAMES - 1;
  memmove(near_names->names + at + 1, near_names->names + at, (kept - at) * sizeof *near_names->names);
  memmove(near_names->distance + at + 1, near_names->distance + at, (kept - at) * sizeof *near_names->distance);
  near_names->names[at] = candidate;
  near_names->distance[at] = distance;
  near_names->count = kept + 1;
}

char *bnd_near_text(const bnd_near_names *near_names, char *text, size_t size) {
  size_t at = 0;
  text[0] = '\0';
  for (size_t i = 0; i < near_names->count && at < size; i++)
    at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", near_names->names[i]);
  return text;
}
