/* A walk over some dimensions of arrays that are read side by side, the last dimension fastest. Private to this folder. */
#ifndef BND_KERNELS_REFERENCE_WALK_H
#define BND_KERNELS_REFERENCE_WALK_H

#include "tensor/tensor.h"

enum { BND_WALKED = 2 }; /* arrays */

/* Zero-initialise. */
typedef struct bnd_walk {
  int rank;
  int64_t size[BND_MAX_RANK], index[BND_MAX_RANK];
  size_t step[BND_MAX_RANK][BND_WALKED], at[BND_WALKED]; /* at: where the walk stands in each array */
} bnd_walk;

static inline void bnd_walk_add(bnd_walk *walk, int64_t size, const size_t steps[BND_WALKED]) {
  walk->size[walk->rank] = size;
  for (int k = 0; k < BND_WALKED; k++) walk->step[walk->rank][k] = steps[k];
  walk->rank++;
}

/* false = the walk is through and stands at its start again. */
static inline bool bnd_walk_advance(bnd_walk *walk) {
  for (int d = walk->rank - 1; d >= 0; d--) {
    const bool more = ++walk->index[d] < walk->size[d];
    for (int k = 0; k < BND_WALKED; k++) walk->at[k] += more ? walk->step[d][k] : -walk->step[d][k] * (size_t)(walk->size[d] - 1);
    if (more) return true;
    walk->index[d] = 0;
  }
  return false;
}

#endif
