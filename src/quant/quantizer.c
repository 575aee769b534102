#include "quant/quantizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"
#include "quant/internal.h"

bool bnd_quantizer_spec_equal(const bnd_quantizer_spec *a, const bnd_quantizer_spec *b) {
  return a->dtype == b->dtype && a->observer == b->observer && a->per_channel == b->per_channel &&
         (!a->per_channel || a->channel_axis == b->channel_axis);
}

int bnd_quantizer_minimum(const bnd_quantizer_spec *spec) { return spec->dtype == BND_U8 ? 0 : -128; }
int bnd_quantizer_maximum(const bnd_quantizer_spec *spec) { return spec->dtype == BND_U8 ? 255 : 127; }

float bnd_scale_of(int position) { return ldexpf(1.f, -position); }

bool bnd_quantizer_resize(bnd_quantizer *quantizer, int channels) {
  if (quantizer->channels == channels) return true;
  int *position = bnd_calloc((size_t)channels, sizeof *position), *zero_point = bnd_calloc((size_t)channels, sizeof *zero_point);
  float *minimum = bnd_calloc((size_t)channels, sizeof *minimum), *maximum = bnd_calloc((size_t)channels, sizeof *maximum);
  if (!position || !zero_point || !minimum || !maximum) {
    free(position);
    free(zero_point);
    free(minimum);
    free(maximum);
    return false;
  }
  free(quantizer->position);
  free(quantizer->zero_point);
  free(quantizer->minimum);
  free(quantizer->maximum);
  for (int i = 0; i < channels; i++) {
    minimum[i] = INFINITY;
    maximum[i] = -INFINITY;
  }
  quantizer->channels = channels;
  quantizer->position = position;
  quantizer->zero_point = zero_point;
  quantizer->minimum = minimum;
  quantizer->maximum = maximum;
  return true;
}

bnd_quantizer *bnd_quantizer_create(const bnd_quantizer_spec *spec) {
  bnd_quantizer *quantizer = bnd_calloc(1, sizeof *quantizer);
  if (!quantizer) return NULL;
  quantizer->spec = *spec;
  quantizer->saturated = -1;
  if (!bnd_quantizer_resize(quantizer, 1)) {
    free(quantizer);
    return NULL;
  }
  return quantizer;
}

bnd_quantizer *bnd_quantizer_copy(const bnd_quantizer *from) {
  bnd_quantizer *to = bnd_quantizer_create(&from->spec);
  if (!to || !bnd_quantizer_resize(to, from->channels)) {
    bnd_quantizer_destroy(to);
    return NULL;
  }
  const size_t channels = (size_t)from->channels;
  memcpy(to->position, from->position, channels * sizeof *to->position);
  memcpy(to->zero_point, from->zero_point, channels * sizeof *to->zero_point);
  memcpy(to->minimum, from->minimum, channels * sizeof *to->minimum);
  memcpy(to->maximum, from->maximum, channels * sizeof *to->maximum);
  to->tensor_position = from->tensor_position;
  to->adjustments = from->adjustments;
  to->saturated = from->saturated;
  if (!bnd_quantizer_copy_records(to, from)) {
    bnd_quantizer_destroy(to);
    return NULL;
  }
  return to;
}

void bnd_quantizer_destroy(bnd_quantizer *quantizer) {
  if (!quantizer) return;
  bnd_quantizer_forget_votes(quantizer);
  free(quantizer->position);
  free(quantizer->zero_point);
  free(quantizer->minimum);
  free(quantizer->maximum);
  free(quantizer);
}

bnd_status bnd_quantizer_restore(bnd_quantizer *quantizer, int channels, const int *position, const int *zero_point, const float *minimum, const float *maximum,
                                 bnd_error *error) {
  if (channels < 1) return bnd_fail(error, BND_ERROR_ARGUMENT, "a quantizer cannot have %d channels", channels);
  if (!bnd_quantizer_resize(quantizer, channels)) return bnd_fail_memory(error, "a quantizer");
  const size_t count = (size_t)channels;
  memcpy(quantizer->position, position, count * sizeof *position);
  memcpy(quantizer->zero_point, zero_point, count * sizeof *zero_point);
  memcpy(quantizer->minimum, minimum, count * sizeof *minimum);
  memcpy(quantizer->maximum, maximum, count * sizeof *maximum);
  quantizer->tensor_position = position[0];
  quantizer->adjustments = 0;
  return BND_OK;
}

/* Rounding to nearest-even by adding and subtracting 1.5 * 2^23 is exact below 2^22, and the clamp happens first: the bounds are integers, so
   clamping before rounding gives the same result as after it. */
BND_VECTORIZED
static void fake_quantize_run(const float *x, float *y, size_t count, float inverse_scale, float scale, float low, float high) {
  const float magic = 0x1.8p23f;
  for (size_t i = 0; i < count; i++) {
    float q = x[i] * inverse_scale;
    q = q > high ? high : q; /* NaN fails both comparisons and stays */
    q = q < low ? low : q;
    q = (q + magic) - magic;
    y[i] = q * scale;
  }
}

void bnd_fake_quantize(const bnd_quantizer *quantizer, const float *x, float *y, size_t outer, size_t inner) {
  const size_t channels = (size_t)quantizer->channels;
  for (size_t o = 0; o < outer; o++) {
    for (size_t c = 0; c < channels; c++) {
      const size_t at = (o * channels + c) * inner;
      const int zero_point = quantizer->zero_point[c];
      /* clamping q + zero_point to [min, max] is clamping q to [min - zero_point, max - zero_point]; the zero point then cancels */
      fake_quantize_run(x + at, y + at, inner, ldexpf(1.f, quantizer->position[c]), bnd_scale_of(quantizer->position[c]),
                        (float)(bnd_quantizer_minimum(&quantizer->spec) - zero_point), (float)(bnd_quantizer_maximum(&quantizer->spec) - zero_point));
    }
  }
}

void bnd_quantizer_layout(const bnd_quantizer_spec *spec, const bnd_shape *shape, size_t *outer, size_t *channels, size_t *inner) {
  *outer = *channels = *inner = 1;
  const int axis = spec->per_channel ? (spec->channel_axis < 0 ? spec->channel_axis + shape->rank : spec->channel_axis) : -1;
  for (int i = 0; i < shape->rank; i++) {
    if (axis >= 0 && i < axis) *outer *= (size_t)shape->size[i];
    else if (i == axis) *channels = (size_t)shape->size[i];
    else *inner *= (size_t)shape->size[i];
  }
}

bnd_status bnd_fake_quantize_tensor(const bnd_quantizer *quantizer, const bnd_tensor *x, bnd_tensor *y, bnd_error *error) {
  size_t outer, channels, inner;
  bnd_quantizer_layout(&quantizer->spec, &x->shape, &outer, &channels, &inner);
  if (channels != (size_t)quantizer->channels)
    return bnd_fail(error, BND_ERROR_INTERNAL, "a quantizer of %d channels was given a tensor of %zu", quantizer->channels, channels);
  BND_TRY(bnd_tensor_create(BND_F32, &x->shape, y, error));
  bnd_fake_quantize(quantizer, bnd_f32(x), bnd_f32(y), outer, inner);
  return BND_OK;
}
