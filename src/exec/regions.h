/* Places in one block of memory for what lives at different times. */
#ifndef BND_EXEC_REGIONS_H
#define BND_EXEC_REGIONS_H

#include <stddef.h>

#include "base/status.h"

typedef struct bnd_region {
  int owner;       /* the caller's index; different for each */
  size_t bytes;    /* made a multiple of 64 */
  int first, last; /* it is in use from first to last, both included */
  size_t address;  /* set; a multiple of 64 */
} bnd_region;

/* The largest first (equal ones by owner), each at the lowest address where nothing that lives at the same time lies. Orders the regions so. *end grows
   to where the last of them ends. */
bnd_status bnd_place_regions(bnd_region *regions, size_t count, size_t *end, bnd_error *error);

#endif
