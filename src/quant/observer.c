/* Observers: from the values of calibration batches to positions. Behaviour: fx-quantization 5.1-5.3. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"
#include "quant/internal.h"


enum { LANES = 16 };

BND_VECTORIZED
static void min_max_run(const float *data, size_t count, float *minimum, float *maximum) {
  float low[LANES], high[LANES];
  for (int j = 0; j < LANES; j++) {
    low[j] = *minimum;
    high[j] = *maximum;
  }
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int j = 0; j < LANES; j++) {
      const float x = data[i + (size_t)j];
      low[j] = x < low[j] ? x : low[j];
      high[j] = x > high[j] ? x : high[j];
    }
  for (; i < count; i++) {
    low[0] = data[i] < low[0] ? data[i] : low[0];
    high[0] = data[i] > high[0] ? data[i] : high[0];
  }
  for (int j = 0; j < LANES; j++) {
    *minimum = low[j] < *minimum ? low[j] : *minimum;
    *maximum = high[j] > *maximum ? high[j] : *maximum;
  }
}

void bnd_min_max(const float *data, size_t outer, size_t channels, size_t inner, float *minimum, float *maximum) {
  for (size_t o = 0; o < outer; o++)
    for (size_t c = 0; c < channels; c++) min_max_run(data + (o * channels + c) * inner, inner, minimum + c, maximum + c);
}

void bnd_power_of_two_parameters(const bnd_quantizer_spec *spec, float minimum, float maximum, int *position, int *zero_point) {
  const float low = minimum < 0.f ? minimum : 0.f, high = maximum > 0.f ? maximum : 0.f;
  const float bound = -low > high ? -low : high;
  const float range = bound + bound;
  float scale = range / 255.f;
  if (!(scale > 0.f)) {
    /* Quark: a per-tensor observer takes scale 1, a per-channel one the smallest scale; both leave zero point qmin behind. */
    *position = spec->per_channel ? 127 : 0;
    *zero_point = bnd_quantizer_minimum(spec);
    return;
  }
  scale = scale < 0x1p-127f ? 0x1p-127f : scale > 0x1p127f ? 0x1p127f : scale;
  *position = (int)rintf(-log2f(scale));
  *zero_point = spec->dtype == BND_U8 ? 128 : 0;
}

bnd_status bnd_observer_widen(bnd_quantizer *quantizer, int channels, const float *minimum, const float *maximum, bnd_error *error) {
  if (channels < 1) return bnd_fail(error, BND_ERROR_ARGUMENT, "a quantizer cannot observe %d channels", channels);
  if (!bnd_quantizer_resize(quantizer, channels)) return bnd_fail_memory(error, "a quantizer");
  for (int c = 0; c < channels; c++) {
    if (minimum[c] < quantizer->minimum[c]) quantizer->minimum[c] = minimum[c];
    if (maximum[c] > quantizer->maximum[c]) quantizer->maximum[c] = maximum[c];
  }
  return BND_OK;
}

/* One run's error under a candidate; double lanes in a fixed order, so the sum does not depend on the vector width. */
BND_VECTORIZED
static double squared_error_run(const float *data, size_t count, float inverse_scale, float scale, float low, float high) {
  const float magic = 0x1.8p23f;
  double sum[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int j = 0; j < LANES; j++) {
      const float x = data[i + (size_t)j];
      float q = x * inverse_scale;
      q = q > high ? high : q;
      q = q < low ? low : q;
      q = (q + magic) - magic;
      const float difference = q * scale - x;
      sum[j] += (double)(difference * difference);
    }
  for (; i < count; i++) {
    float q = data[i] * inverse_scale;
    q = q > high ? high : q;
    q = q < low ? low : q;
    q = (q + magic) - magic;
    const float difference = q * scale - data[i];
    sum[0] += (double)(difference * difference);
  }
  double total = 0;
  for (int j = 0; j < LANES; j++) total += sum[j];
  return total;
}

void bnd_observer_squared_error(const bnd_quantizer *quantizer, const float *data, size_t outer, size_t inner, double error_sum[BND_MSE_CANDIDATES]) {
  const size_t channels = (size_t)quantizer->channels;
  const int low = bnd_quantizer_minimum(&quantizer->spec), high = bnd_quantizer_maximum(&quantizer->spec);
  for (size_t c = 0; c < channels; c++) {
    int position, zero_point;
    bnd_power_of_two_parameters(&quantizer->spec, quantizer->minimum[c], quantizer->maximum[c], &position, &zero_point);
    for (size_t o = 0; o < outer; o++)
      for (int k = 0; k < BND_MSE_CANDIDATES; k++) {
        const int candidate = position + k - 2;
        error_sum[k] += squared_error_run(data + (o * channels + c) * inner, inner, ldexpf(1.f, candidate), bnd_scale_of(candidate),
                                          (float)(low - zero_point), (float)(high - zero_point));
      }
  }
}

static struct bnd_quantizer_record *find_record(bnd_quantizer *quantizer, const int *position, const int *zero_point) {
  const size_t bytes = (size_t)quantizer->channels * sizeof *position;
  for (size_t i = 0; i < quantizer->record_count; i++)
    if (memcmp(quantizer->records[i].position, position, bytes) == 0 && memcmp(quantizer->records[i].zero_point, zero_point, bytes) == 0)
      return &quantizer->records[i];
  return NULL;
}

bool bnd_quantizer_add_vote(bnd_quantizer *quantizer, const int *position, const int *zero_point, size_t votes) {
  const size_t channels = (size_t)quantizer->channels;
  int *copy = bnd_calloc(channels * 2, sizeof *copy);
  if (!copy || !BND_GROW(quantizer->records, quantizer->record_capacity, quantizer->record_count + 1)) {
    free(copy);
    return false;
  }
  memcpy(copy, position, channels * sizeof *copy);
  memcpy(copy + channels, zero_point, channels * sizeof *copy);
  quantizer->records[quantizer->record_count++] = (struct bnd_quantizer_record){copy, copy + channels, votes};
  return true;
}

bool bnd_quantizer_copy_records(bnd_quantizer *to, const bnd_quantizer *from) {
  for (size_t i = 0; i < from->record_count; i++)
    if (!bnd_quantizer_add_vote(to, from->records[i].position, from->records[i].zero_point, from->records[i].votes)) return false;
  return true;
}

void bnd_quantizer_forget_votes(bnd_quantizer *quantizer) {
  for (size_t i = 0; i < quantizer->record_count; i++) free(quantizer->records[i].position);
  free(quantizer->records);
  quantizer->records = NULL;
  quantizer->record_count = quantizer->record_capacity = 0;
}

bnd_status bnd_observer_commit(bnd_quantizer *quantizer, const double error_sum[BND_MSE_CANDIDATES], bnd_error *error) {
  const size_t channels = (size_t)quantizer->channels;
  int *position = bnd_calloc(channels * 2, sizeof *position), *zero_point = position + channels;
  if (!position) return bnd_fail_memory(error, "a quantizer");
  bnd_status status = BND_OK;
  int shift = 0;
  if (quantizer->spec.observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE && error_sum) {
    int best = 0;
    for (int k = 1; k < BND_MSE_CANDIDATES; k++)
      if (error_sum[k] < error_sum[best]) best = k;
    shift = best - 2;
  }
  for (size_t c = 0; c < channels && status == BND_OK; c++) {
    const float low = quantizer->minimum[c], high = quantizer->maximum[c];
    if (!isfinite(low) || !isfinite(high))
      status = bnd_fail(error, BND_ERROR_MODEL, "observed values are not finite (minimum %g, maximum %g)", (double)low, (double)high);
    bnd_power_of_two_parameters(&quantizer->spec, low, high, &position[c], &zero_point[c]);
    position[c] += shift;
  }
  if (status == BND_OK) {
    struct bnd_quantizer_record *record = find_record(quantizer, position, zero_point);
    if (record) record->votes++;
    else if (!bnd_quantizer_add_vote(quantizer, position, zero_point, 1)) status = bnd_fail_memory(error, "a quantizer");
  }
  free(position);
  return status;
}

bnd_status bnd_observe_tensor(bnd_quantizer *quantizer, const bnd_tensor *tensor, bnd_error *error) {
  size_t outer, channels, inner;
  bnd_quantizer_layout(&quantizer->spec, &tensor->shape, &outer, &channels, &inner);
  if (tensor->count == 0) return BND_OK;
  if (!bnd_quantizer_resize(quantizer, (int)channels)) return bnd_fail_memory(error, "a quantizer");
  bnd_min_max(bnd_f32(tensor), outer, channels, inner, quantizer->minimum, quantizer->maximum);
  double sums[BND_MSE_CANDIDATES] = {0};
  if (quantizer->spec.observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE)
    bnd_observer_squared_error(quantizer, bnd_f32(tensor), outer, inner, sums);
  return bnd_observer_commit(quantizer, sums, error);
}

void bnd_quantizer_elect(bnd_quantizer *quantizer) {
  const struct bnd_quantizer_record *winner = NULL;
  for (size_t i = 0; i < quantizer->record_count; i++)
    if (!winner || quantizer->records[i].votes > winner->votes) winner = &quantizer->records[i];
  if (winner) {
    memcpy(quantizer->position, winner->position, (size_t)quantizer->channels * sizeof *quantizer->position);
    memcpy(quantizer->zero_point, winner->zero_point, (size_t)quantizer->channels * sizeof *quantizer->zero_point);
  }
}

bnd_status bnd_quantizer_finish(bnd_quantizer *quantizer, bnd_error *error) {
  (void)error;
  bnd_quantizer_elect(quantizer);
  quantizer->tensor_position = quantizer->position[0];
  quantizer->adjustments = 0;
  bnd_quantizer_forget_votes(quantizer);
  return BND_OK;
}
