/* Quantization arithmetic: schemes with power-of-two scales, observers, fake quantization. Knows no graph.
   A scale is 2^-position; `position` is what AMD calls the fixed-point position, log2(1/scale). */
#ifndef BND_QUANT_QUANTIZER_H
#define BND_QUANT_QUANTIZER_H

#include "tensor/tensor.h"

typedef enum bnd_observer_kind {
  BND_OBSERVER_POWER_OF_TWO_MIN_MAX, /* Quark's PerTensor/PerChannelPowOf2MinMaxObserver */
  BND_OBSERVER_POWER_OF_TWO_MIN_MSE  /* Quark's PerTensor/PerChannelPowOf2MinMSEObserver */
} bnd_observer_kind;

/* What to do with one class of tensors; the subset of Quark's QTensorConfig that power-of-two targets use. */
typedef struct bnd_quantizer_spec {
  bnd_dtype dtype; /* BND_I8 or BND_U8 */
  bnd_observer_kind observer;
  bool per_channel;
  int channel_axis; /* used when per_channel */
} bnd_quantizer_spec;

bool bnd_quantizer_spec_equal(const bnd_quantizer_spec *a, const bnd_quantizer_spec *b);
int bnd_quantizer_minimum(const bnd_quantizer_spec *spec); /* -128 or 0 */
int bnd_quantizer_maximum(const bnd_quantizer_spec *spec); /* 127 or 255 */

/* A vector of parameters some observed batches asked for. */
typedef struct bnd_quantizer_record {
  int *position, *zero_point; /* [channels], one allocation that begins at position */
  size_t votes;
} bnd_quantizer_record;

/* One quantizer: its parameters and, until it is frozen, its observer. Channels = 1 when per tensor. */
typedef struct bnd_quantizer {
  bnd_quantizer_spec spec;
  int channels;      /* 0 until the first observation decides it */
  int *position;     /* [channels] log2(1/scale) in force */
  int *zero_point;   /* [channels]; 0 but for the edge cases of Quark's observer (all-zero tensor: -128) and uint8 (128) */
  float *minimum;    /* [channels] running, over everything observed; +inf before */
  float *maximum;    /* [channels] running; -inf before */
  bnd_quantizer_record *records; /* distinct parameter vectors in order of first appearance, with their counts */
  size_t record_count, record_capacity;
  int tensor_position; /* position[0] as calibrated, before any hardware adjustment; set by bnd_quantizer_finish */
  unsigned adjustments; /* which hardware rules moved the position since: a set of bits named in passes/target/adjust.h */
  double saturated;    /* share of observed values outside the representable range; negative = not measured */
} bnd_quantizer;

bnd_quantizer *bnd_quantizer_create(const bnd_quantizer_spec *spec); /* NULL when memory is short */
bnd_quantizer *bnd_quantizer_copy(const bnd_quantizer *quantizer);
void bnd_quantizer_destroy(bnd_quantizer *quantizer); /* NULL is fine */

/* How a tensor of this shape is seen: [outer, channels, inner]; channels = 1 per tensor. */
void bnd_quantizer_layout(const bnd_quantizer_spec *spec, const bnd_shape *shape, size_t *outer, size_t *channels, size_t *inner);

/* Scale of a position, 2^-position, exact. */
float bnd_scale_of(int position);

/* Per-channel minimum and maximum of contiguous data seen as [outer, channels, inner]; minimum/maximum hold `channels` values that are widened. */
void bnd_min_max(const float *data, size_t outer, size_t channels, size_t inner, float *minimum, float *maximum);

/* Position and zero point from a range: Quark's steps 2-6 (fx-quantization 5.1) in float32. An empty range (a = 0) gives position 0 and zero point -128. */
void bnd_power_of_two_parameters(const bnd_quantizer_spec *spec, float minimum, float maximum, int *position, int *zero_point);

/* Observation of one calibration batch, in three steps so that a batch may arrive in parts (images) and in any order:
   1. widen: merges a part's range into the running one. `channels` must not change over time.
   2. per-tensor MinMSE only: squared errors of the five candidate positions over all parts of the same batch, under the range after step 1.
   3. commit: derives the parameters and records them as this batch's vote. */
bnd_status bnd_observer_widen(bnd_quantizer *quantizer, int channels, const float *minimum, const float *maximum, bnd_error *error);
enum { BND_MSE_CANDIDATES = 5 };
/* Adds to error_sum[c] the squared quantization error of data (as [outer, channels, inner]) under candidate c = position - 2 + c for every channel.
   Sums run in double over the elements in order. */
void bnd_observer_squared_error(const bnd_quantizer *quantizer, const float *data, size_t outer, size_t inner, double error_sum[BND_MSE_CANDIDATES]);
bnd_status bnd_observer_commit(bnd_quantizer *quantizer, const double error_sum[BND_MSE_CANDIDATES], bnd_error *error);
/* All three steps for a batch that is one contiguous tensor (weights, biases, constants). */
bnd_status bnd_observe_tensor(bnd_quantizer *quantizer, const bnd_tensor *tensor, bnd_error *error);
/* Puts the most frequent recorded vector in force (ties: the one recorded first) and forgets the records. Without records: position 0. */
bnd_status bnd_quantizer_finish(bnd_quantizer *quantizer, bnd_error *error);

/* While training observers vote on and on: the most frequent vector so far is put in force, the votes stay. */
void bnd_quantizer_elect(bnd_quantizer *quantizer);
void bnd_quantizer_forget_votes(bnd_quantizer *quantizer);
/* Votes that were saved; false = memory short. */
bool bnd_quantizer_add_vote(bnd_quantizer *quantizer, const int *position, const int *zero_point, size_t votes);

/* Puts saved parameters back: arrays of `channels` values. */
bnd_status bnd_quantizer_restore(bnd_quantizer *quantizer, int channels, const int *position, const int *zero_point, const float *minimum, const float *maximum,
                                 bnd_error *error);

/* y = (clamp(rne(x / scale) + zero_point) - zero_point) * scale, data seen as [outer, channels, inner] with channels as in the quantizer.
   In place is fine. NaN stays NaN. */
void bnd_fake_quantize(const bnd_quantizer *quantizer, const float *x, float *y, size_t outer, size_t inner);
bnd_status bnd_fake_quantize_tensor(const bnd_quantizer *quantizer, const bnd_tensor *x, bnd_tensor *y, bnd_error *error);

#endif
