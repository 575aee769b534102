/* What was moved is moved back; what went nowhere gets zero. */
#include <string.h>

#include "kernels/reference/reference.h"

/* Reshapes and the like, and straight through fake quantization. */
void bnd_gradient_copy(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                       const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)kernel, (void)outputs, (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  memcpy(input_gradients[0].data, output_gradients[0].data, bnd_array_count(&inputs[0]) * sizeof(bnd_real));
}

void bnd_gradient_cat(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, const bnd_array *output_gradients,
                      int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const size_t outer = bnd_span(&outputs[0].shape, 0, kernel->axis), row = bnd_span(&outputs[0].shape, kernel->axis, outputs[0].shape.rank);
  size_t at = 0;
  for (int k = 0; k < input_count && outer; k++) {
    const size_t part = bnd_array_count(&inputs[k]) / outer;
    for (size_t o = 0; input_gradients[k].data && o < outer; o++)
      memcpy(input_gradients[k].data + o * part, output_gradients[0].data + o * row + at, part * sizeof(bnd_real));
    at += part;
  }
}

void bnd_gradient_slice(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                        const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *shape = &inputs[0].shape;
  const size_t outer = bnd_span(shape, 0, kernel->axis), size = (size_t)shape->size[kernel->axis],
               inner = bnd_span(shape, kernel->axis + 1, shape->rank);
  if (outer * inner == 0) return;
  const size_t taken = bnd_array_count(&outputs[0]) / (outer * inner);
  const bnd_real *dy = output_gradients[0].data;
  bnd_real *dx = input_gradients[0].data;
  memset(dx, 0, outer * size * inner * sizeof *dx);
  for (size_t o = 0; o < outer; o++)
    for (size_t i = 0; i < taken; i++, dy += inner)
      memcpy(dx + (o * size + (size_t)kernel->start + i * (size_t)kernel->step) * inner, dy, inner * sizeof *dx);
}

void bnd_gradient_split(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                        const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)input_count;
  if (!input_gradients[0].data) return;
  const size_t outer = bnd_span(&inputs[0].shape, 0, kernel->axis), row = bnd_span(&inputs[0].shape, kernel->axis, inputs[0].shape.rank);
  size_t at = 0;
  for (int k = 0; k < output_count && outer; k++) {
    const size_t part = bnd_array_count(&outputs[k]) / outer;
    for (size_t o = 0; o < outer; o++) {
      bnd_real *dx = input_gradients[0].data + o * row + at;
      if (output_gradients[k].data)
        memcpy(dx, output_gradients[k].data + o * part, part * sizeof *dx);
      else
        memset(dx, 0, part * sizeof *dx);
    }
    at += part;
  }
}

void bnd_gradient_permute(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                          const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  bnd_kernel inverse = *kernel;
  for (int d = 0; d < inputs[0].shape.rank; d++) inverse.order[kernel->order[d]] = d;
  bnd_reference_permute(&inverse, &(bnd_array){outputs[0].shape, output_gradients[0].data}, 1, &(bnd_array){inputs[0].shape, input_gradients[0].data},
                        1);
}

void bnd_gradient_pixel_shuffle(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                                const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)outputs, (void)output_count;
  if (!input_gradients[0].data || bnd_gradient_vanishes(output_gradients, inputs, input_count, input_gradients)) return;
  const bnd_shape *from = &inputs[0].shape;
  const size_t r = (size_t)kernel->factor, h = (size_t)from->size[from->rank - 2], w = (size_t)from->size[from->rank - 1];
  const size_t planes = bnd_span(from, 0, from->rank - 2) / (r * r);
  const bnd_real *dy = output_gradients[0].data;
  for (size_t p = 0; p < planes; p++)
    for (size_t i = 0; i < h * r; i++)
      for (size_t j = 0; j < w * r; j++) input_gradients[0].data[((p * r * r + i % r * r + j % r) * h + i / r) * w + j / r] = *dy++;
}

/* Input k stands along dimension k of output k and is repeated along all others. */
void bnd_gradient_meshgrid(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                           const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients) {
  (void)kernel, (void)inputs, (void)input_count;
  for (int k = 0; k < output_count; k++) {
    const bnd_shape *shape = &outputs[k].shape;
    const size_t outer = bnd_span(shape, 0, k), size = (size_t)shape->size[k], inner = bnd_span(shape, k + 1, shape->rank);
    for (size_t i = 0; input_gradients[k].data && i < size; i++) {
      double sum = 0;
      for (size_t o = 0; output_gradients[k].data && o < outer; o++)
        for (size_t j = 0; j < inner; j++) sum += (double)output_gradients[k].data[(o * size + i) * inner + j];
      input_gradients[k].data[i] = (bnd_real)sum;
    }
  }
}
