#include <tgmath.h>

#include "base/simd.h"
#include "kernels/reference/reference.h"

/* a + factor * b, rounded once as PyTorch's CPU kernels do; sums without a factor take the quick way below. */
static void add_multiple(bnd_real factor, const bnd_real *a, size_t a_step, const bnd_real *b, size_t b_step, bnd_real *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = fma(factor, b[i * b_step], a[i * a_step]);
}

/* a and b advance by 0 or 1. */
BND_VECTORIZED
static void combine_directly(bnd_operator_id id, const bnd_real *a, size_t a_step, const bnd_real *b, size_t b_step, bnd_real *y, size_t count) {
  switch (id) {
    case BND_OP_ADD:
      for (size_t i = 0; i < count; i++) y[i] = a[i * a_step] + b[i * b_step];
      break;
    case BND_OP_SUB:
      for (size_t i = 0; i < count; i++) y[i] = a[i * a_step] - b[i * b_step];
      break;
    case BND_OP_MUL:
      for (size_t i = 0; i < count; i++) y[i] = a[i * a_step] * b[i * b_step];
      break;
    default:
      for (size_t i = 0; i < count; i++) y[i] = a[i * a_step] / b[i * b_step];
      break;
  }
}

static void combine(bnd_operator_id id, bnd_real factor, const bnd_real *a, size_t a_step, const bnd_real *b, size_t b_step, bnd_real *y,
                    size_t count) {
  const bool is_sum = id == BND_OP_ADD || id == BND_OP_SUB;
  if (is_sum && factor != 1.f)
    add_multiple(id == BND_OP_ADD ? factor : -factor, a, a_step, b, b_step, y, count);
  else
    combine_directly(id, a, a_step, b, b_step, y, count);
}

void bnd_broadcast_steps(const bnd_shape *operand, const bnd_shape *result, size_t steps[BND_MAX_RANK]) {
  size_t step = 1;
  for (int d = result->rank - 1; d >= 0; d--) {
    const int own = d - (result->rank - operand->rank);
    const int64_t size = own >= 0 ? operand->size[own] : 1;
    steps[d] = size == 1 ? 0 : step;
    step *= (size_t)size;
  }
}

void bnd_reference_arithmetic(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count) {
  (void)input_count, (void)output_count;
  const bnd_array *a = &inputs[0], *b = &inputs[1], *y = &outputs[0];
  const bnd_real factor = (bnd_real)kernel->number;
  const size_t count = bnd_array_count(y), a_count = bnd_array_count(a), b_count = bnd_array_count(b);
  if ((a_count == count || a_count == 1) && (b_count == count || b_count == 1)) {
    combine(kernel->id, factor, a->data, a_count == count, b->data, b_count == count, y->data, count);
    return;
  }
  size_t a_steps[BND_MAX_RANK], b_steps[BND_MAX_RANK];
  bnd_broadcast_steps(&a->shape, &y->shape, a_steps);
  bnd_broadcast_steps(&b->shape, &y->shape, b_steps);
  const int last = y->shape.rank - 1;
  const size_t row = (size_t)y->shape.size[last];
  int64_t index[BND_MAX_RANK] = {0};
  for (size_t at = 0; at < count; at += row) {
    size_t a_at = 0, b_at = 0;
    for (int d = 0; d < last; d++) {
      a_at += (size_t)index[d] * a_steps[d];
      b_at += (size_t)index[d] * b_steps[d];
    }
    combine(kernel->id, factor, a->data + a_at, a_steps[last], b->data + b_at, b_steps[last], y->data + at, row);
    for (int d = last - 1; d >= 0 && ++index[d] == y->shape.size[d]; d--) index[d] = 0;
  }
}
