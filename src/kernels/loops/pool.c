/* The maximum over a square window is the maximum over columns of the maxima over rows: 2k comparisons instead of k * k, same result. */
#include <string.h>

#include "base/simd.h"
#include "kernels/loops/loops.h"

/* y = max(y, x); NaN wins. */
BND_VECTORIZED
static void widen_run(const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = y[i] > x[i] || y[i] != y[i] ? y[i] : x[i];
}

/* y[i] = max of x[i + k], |k| <= reach, over `count` vectors of `size` values; those outside do not count. */
static void maximum_of_neighbours(const float *x, float *y, ptrdiff_t count, size_t size, ptrdiff_t reach) {
  memcpy(y, x, (size_t)count * size * sizeof *y);
  for (ptrdiff_t k = 1; k <= reach && k < count; k++) {
    widen_run(x + (size_t)k * size, y, (size_t)(count - k) * size);
    widen_run(x, y + (size_t)k * size, (size_t)(count - k) * size);
  }
}

void bnd_loop_max_pool(const float *x, float *y, const bnd_layout *layout, int64_t window, float *workspace, int threads) {
  const size_t block = layout->block, planes = layout->images * bnd_layout_blocks(layout), row = layout->width * block, plane = layout->height * row;
  const ptrdiff_t reach = (ptrdiff_t)(window / 2);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (size_t p = 0; p < planes; p++) {
    maximum_of_neighbours(x + p * plane, workspace + p * plane, (ptrdiff_t)layout->height, row, reach);
    for (size_t i = 0; i < layout->height; i++)
      maximum_of_neighbours(workspace + p * plane + i * row, y + p * plane + i * row, (ptrdiff_t)layout->width, block, reach);
  }
}
