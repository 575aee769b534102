/* Addresses of the slots. */
#include <stdlib.h>

#include "autograd/internal.h"
#include "exec/regions.h"

bnd_status bnd_network_assign_memory(bnd_network *network, bnd_error *error) {
  bnd_region *regions = bnd_calloc(network->slot_count, sizeof *regions);
  if (!regions) return bnd_fail_memory(error, "the network");
  size_t count = 0;
  for (size_t i = 0; i < network->slot_count; i++) {
    const slot *s = &network->slots[i];
    if (s->first >= 0) regions[count++] = (bnd_region){.owner = (int)i, .bytes = s->bytes, .first = s->first, .last = s->last};
  }
  const bnd_status status = bnd_place_regions(regions, count, &network->image_bytes, error);
  for (size_t i = 0; i < count && status == BND_OK; i++) {
    slot *s = &network->slots[regions[i].owner];
    s->bytes = regions[i].bytes;
    s->address = regions[i].address;
  }
  free(regions);
  return status;
}
