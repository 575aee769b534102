/* Averages of a network's state: the exponential moving average that follows training (super-gradients 3.7.1, training/utils/ema.py,
   ema_decay_schedules.py), and the mean of the best snapshots (weight_averaging_utils.py). Both over lists of arrays: parameters and batch norm's
   running statistics alike. */
#ifndef BND_TRAIN_AVERAGE_H
#define BND_TRAIN_AVERAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "binade/error.h"

/* A borrowed array. */
typedef struct bnd_floats {
  float *values;
  size_t count;
} bnd_floats;

/* ---- moving average ---- */

typedef enum bnd_decay_kind {
  BND_DECAY_CONSTANT,  /* decay */
  BND_DECAY_THRESHOLD, /* min(decay, (1 + g) / (10 + g)) */
  BND_DECAY_EXP        /* decay * (1 - exp(-beta g / total)) */
} bnd_decay_kind;

typedef struct bnd_decay {
  bnd_decay_kind kind;
  double decay; /* 0.9997 in YOLO-NAS's recipe */
  double beta;
} bnd_decay;

/* For the g-th optimizer step (from 1) of `total`. */
double bnd_decay_at(const bnd_decay *decay, uint64_t g, uint64_t total);

/* averages[i] = averages[i] * decay + (1 - decay) * values[i], in float, each operation rounded. The lists have the same sizes; averages start as a
   copy of the state. The same bits for any number of threads. */
void bnd_average_update(const bnd_floats *averages, const bnd_floats *values, size_t array_count, double decay, int threads);

/* ---- best snapshots ---- */

typedef struct bnd_snapshots bnd_snapshots;

/* Keeps the `capacity` best states: with the largest metrics, or the smallest. `shape` gives the arrays' sizes (values are not read). */
bnd_status bnd_snapshots_create(size_t capacity, bool greater_is_better, const bnd_floats *shape, size_t array_count, bnd_snapshots **snapshots,
                                bnd_error *error);
void bnd_snapshots_destroy(bnd_snapshots *snapshots); /* NULL is fine */

/* Copies the state if its metric is finite and better than the worst one kept, whose place it takes (the first on ties), or if a place is free.
 *kept (may be NULL) says whether. */
bnd_status bnd_snapshots_offer(bnd_snapshots *snapshots, double metric, const bnd_floats *state, bool *kept, bnd_error *error);

/* The mean of those kept, in the order and rounding of the original: mean = (mean * n + next) / (n + 1). false when there are none. */
bool bnd_snapshots_average(const bnd_snapshots *snapshots, const bnd_floats *average);

/* For saving; offered again in order of place to an empty keeper they take the same places. The arrays belong to the keeper. */
size_t bnd_snapshots_count(const bnd_snapshots *snapshots);
double bnd_snapshots_metric(const bnd_snapshots *snapshots, size_t place);
const bnd_floats *bnd_snapshots_state(const bnd_snapshots *snapshots, size_t place);

#endif
