/* Addresses of the slots. Memory is handed out to the largest first, each at the lowest address where nothing that is needed at the same time lies.
 */
#include <stdlib.h>

#include "autograd/internal.h"

enum { ALIGNMENT = 64 };

static int larger_first(const void *a, const void *b) {
  const slot *x = *(slot *const *)a, *y = *(slot *const *)b;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  return x < y ? -1 : x > y;
}

static int lower_first(const void *a, const void *b) {
  const slot *x = *(slot *const *)a, *y = *(slot *const *)b;
  return x->address < y->address ? -1 : x->address > y->address;
}

static size_t lowest_gap(slot **placed, size_t count, const slot *s, slot **overlapping) {
  size_t n = 0, address = 0;
  for (size_t i = 0; i < count; i++)
    if (placed[i]->first <= s->last && s->first <= placed[i]->last) overlapping[n++] = placed[i];
  qsort(overlapping, n, sizeof *overlapping, lower_first);
  for (size_t i = 0; i < n; i++) {
    if (overlapping[i]->address >= address + s->bytes) break;
    const size_t end = overlapping[i]->address + overlapping[i]->bytes;
    if (end > address) address = end;
  }
  return address;
}

bnd_status bnd_network_assign_memory(bnd_network *network, bnd_error *error) {
  slot **slots = bnd_calloc(network->slot_count, sizeof *slots), **overlapping = bnd_calloc(network->slot_count, sizeof *overlapping);
  bnd_status status = slots && overlapping ? BND_OK : bnd_fail_memory(error, "the network");
  size_t count = 0;
  for (size_t i = 0; i < network->slot_count && status == BND_OK; i++) {
    slot *s = &network->slots[i];
    if (s->first < 0) continue;
    s->bytes = (s->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    slots[count++] = s;
  }
  if (status == BND_OK) qsort(slots, count, sizeof *slots, larger_first);
  for (size_t i = 0; i < count && status == BND_OK; i++) {
    slots[i]->address = lowest_gap(slots, i, slots[i], overlapping);
    size_t end;
    if (!bnd_size_add(slots[i]->address, slots[i]->bytes, &end))
      status = bnd_fail_memory(error, "activations");
    else if (end > network->image_bytes)
      network->image_bytes = end;
  }
  free(slots);
  free(overlapping);
  return status;
}
