/* The order torch's CPU kernels (2.7.1) give to scores, equal ones included.
 *
 * torch.sort and torch.argsort without stable=True, and torch.topk, hand the pairs (value, position) to std::sort, std::nth_element and
 * std::partial_sort with a comparison of the values alone. Where values tie, the result depends on the algorithm: that of GNU libstdc++,
 * introspective sort (Musser 1997) with the median of three at fixed places and a final insertion sort. The functions here take the same steps. They
 * matter: an int8 score tensor has at most 256 values, and which of the equal ones enter non-maximum suppression moves mAP in the third digit.
 *
 * Not stable, but a function of the input alone: the same bytes on every machine and for any number of threads. */
#ifndef BND_TENSOR_TORCH_ORDER_H
#define BND_TENSOR_TORCH_ORDER_H

#include <stddef.h>
#include <stdint.h>

typedef struct bnd_ranked {
  float score;
  uint32_t index; /* carried along; never compared */
} bnd_ranked;

/* torch.sort(scores, descending=True): NaN first, then by descending score. */
void bnd_torch_sort(bnd_ranked *items, size_t count);

/* torch.topk(scores, k): afterwards the first k items are the result, in its order. k <= count. */
void bnd_torch_top_k(bnd_ranked *items, size_t count, size_t k);

#endif
