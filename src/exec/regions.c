#include "exec/regions.h"

#include <stdlib.h>

#include "base/memory.h"

enum { ALIGNMENT = 64 };

static int larger_first(const void *a, const void *b) {
  const bnd_region *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  return x->owner < y->owner ? -1 : x->owner > y->owner;
}

static int lower_first(const void *a, const void *b) {
  const bnd_region *x = *(bnd_region *const *)a, *y = *(bnd_region *const *)b;
  return x->address < y->address ? -1 : x->address > y->address;
}

/* The lowest gap among the `count` regions (any order) that live at the same time as `r`; `overlapping` has room for them. */
static size_t lowest_gap(bnd_region *regions, size_t count, const bnd_region *r, bnd_region **overlapping) {
  size_t n = 0, address = 0;
  for (size_t i = 0; i < count; i++)
    if (regions[i].first <= r->last && r->first <= regions[i].last) overlapping[n++] = &regions[i];
  qsort(overlapping, n, sizeof *overlapping, lower_first);
  for (size_t i = 0; i < n; i++) {
    if (overlapping[i]->address >= address + r->bytes) break;
    const size_t end = overlapping[i]->address + overlapping[i]->bytes;
    if (end > address) address = end;
  }
  return address;
}

bnd_status bnd_place_regions(bnd_region *regions, size_t count, size_t *end, bnd_error *error) {
  bnd_region **overlapping = bnd_calloc(count, sizeof *overlapping);
  if (!overlapping) return bnd_fail_memory(error, "the plan of the memory");
  bnd_status status = BND_OK;
  for (size_t i = 0; i < count; i++) regions[i].bytes = (regions[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  qsort(regions, count, sizeof *regions, larger_first);
  for (size_t i = 0; i < count && status == BND_OK; i++) {
    regions[i].address = lowest_gap(regions, i, &regions[i], overlapping);
    size_t behind;
    if (!bnd_size_add(regions[i].address, regions[i].bytes, &behind)) status = bnd_fail_memory(error, "activations");
    else if (behind > *end) *end = behind;
  }
  free(overlapping);
  return status;
}
