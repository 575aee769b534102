#include "tensor/torch_order.h"

#include <math.h>
#include <stdbool.h>

enum { INSERTION_SORT_BELOW = 17 }; /* ranges of up to 16 items are left to the insertion sort */

static inline bool before(bnd_ranked a, bnd_ranked b) {
  return a.score > b.score || (isnan(a.score) && !isnan(b.score));
}

static inline void swap(bnd_ranked *a, bnd_ranked *b) {
  const bnd_ranked saved = *a;
  *a = *b;
  *b = saved;
}

/* Depth after which partitioning has gone wrong and a heap takes over: twice the binary logarithm. */
static size_t depth_limit(size_t count) {
  size_t limit = 0;
  for (; count > 1; count >>= 1) limit += 2;
  return limit;
}

static void insertion_sort(bnd_ranked *items, size_t count) {
  for (size_t i = 1; i < count; i++) {
    const bnd_ranked item = items[i];
    size_t hole = i;
    for (; hole > 0 && before(item, items[hole - 1]); hole--) items[hole] = items[hole - 1];
    items[hole] = item;
  }
}

/* Heap whose root comes last in the order, so that the root is what a better item replaces. The hole sinks to a leaf along the children that come
 * later, then `item` rises from there; the left child wins only when the right one comes strictly before it. */
static void sift(bnd_ranked *heap, size_t count, size_t hole, bnd_ranked item) {
  const size_t top = hole;
  size_t right;
  while ((right = 2 * hole + 2) < count) {
    const size_t child = before(heap[right], heap[right - 1]) ? right - 1 : right;
    heap[hole] = heap[child];
    hole = child;
  }
  if (right == count) { /* the last parent has a left child only */
    heap[hole] = heap[right - 1];
    hole = right - 1;
  }
  while (hole > top) {
    const size_t parent = (hole - 1) / 2;
    if (!before(heap[parent], item)) break;
    heap[hole] = heap[parent];
    hole = parent;
  }
  heap[hole] = item;
}

/* Brings the `kept` first items of the order to the front, as a heap. */
static void heap_select(bnd_ranked *items, size_t kept, size_t count) {
  for (size_t parent = kept / 2; parent-- > 0;) sift(items, kept, parent, items[parent]);
  for (size_t i = kept; i < count; i++) {
    if (!before(items[i], items[0])) continue;
    const bnd_ranked item = items[i];
    items[i] = items[0];
    sift(items, kept, 0, item);
  }
}

static void sort_heap(bnd_ranked *heap, size_t count) {
  while (count > 1) {
    count--;
    const bnd_ranked item = heap[count];
    heap[count] = heap[0];
    sift(heap, count, 0, item);
  }
}

/* Median of the second, middle and last item to the front, then Hoare's partition of the rest around it. Returns where the second part starts. */
static size_t partition(bnd_ranked *items, size_t count) {
  bnd_ranked *a = items + 1, *b = items + count / 2, *c = items + count - 1, *median;
  if (before(*a, *b))
    median = before(*b, *c) ? b : before(*a, *c) ? c : a;
  else
    median = before(*a, *c) ? a : before(*b, *c) ? c : b;
  swap(items, median);
  const bnd_ranked pivot = items[0];
  size_t low = 1, high = count;
  for (;;) {
    while (before(items[low], pivot)) low++;
    high--;
    while (before(pivot, items[high])) high--;
    if (low >= high) return low;
    swap(&items[low], &items[high]);
    low++;
  }
}

static void partition_until_small(bnd_ranked *items, size_t count, size_t depth) {
  while (count >= INSERTION_SORT_BELOW) {
    if (depth-- == 0) {
      heap_select(items, count, count);
      sort_heap(items, count);
      return;
    }
    const size_t cut = partition(items, count);
    partition_until_small(items + cut, count - cut, depth);
    count = cut;
  }
}

void bnd_torch_sort(bnd_ranked *items, size_t count) {
  partition_until_small(items, count, depth_limit(count));
  insertion_sort(items, count);
}

/* The item that belongs at `nth` goes there, none before it comes later, none behind it comes earlier. */
static void nth_item(bnd_ranked *items, size_t count, size_t nth) {
  size_t depth = depth_limit(count);
  while (count > 3) {
    if (depth-- == 0) {
      heap_select(items, nth + 1, count);
      swap(&items[0], &items[nth]);
      return;
    }
    const size_t cut = partition(items, count);
    if (cut <= nth) {
      items += cut;
      count -= cut;
      nth -= cut;
    } else {
      count = cut;
    }
  }
  insertion_sort(items, count);
}

void bnd_torch_top_k(bnd_ranked *items, size_t count, size_t k) {
  if (k == 0) return;
  if (k <= count / 64) { /* torch's rule: few of many go through a heap */
    heap_select(items, k, count);
    sort_heap(items, k);
  } else {
    nth_item(items, count, k - 1);
    bnd_torch_sort(items, k - 1); /* the k-th is in its place already */
  }
}
