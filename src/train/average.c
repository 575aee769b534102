#include "train/average.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"
#include "base/status.h"
#include "kernels/math.h"

double bnd_decay_at(const bnd_decay *decay, uint64_t g, uint64_t total) {
  const double step = (double)g;
  if (decay->kind == BND_DECAY_THRESHOLD) return fmin(decay->decay, (1 + step) / (10 + step));
  if (decay->kind == BND_DECAY_EXP) return decay->decay * (1 - bnd_exp_double(fmax(-(step / (double)(total ? total : 1)) * decay->beta, -700)));
  return decay->decay;
}

BND_VECTORIZED static void blend(float *restrict average, const float *restrict values, size_t count, float keep, float add) {
  for (size_t i = 0; i < count; i++) average[i] = average[i] * keep + add * values[i];
}

void bnd_average_update(const bnd_floats *averages, const bnd_floats *values, size_t array_count, double decay, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (size_t i = 0; i < array_count; i++) blend(averages[i].values, values[i].values, averages[i].count, (float)decay, (float)(1 - decay));
}

typedef struct snapshot {
  double metric;
  bnd_floats *arrays;
  float *memory;
} snapshot;

struct bnd_snapshots {
  bool greater_is_better;
  size_t capacity, count, array_count, elements;
  size_t *sizes;
  snapshot *places;
};

bnd_status bnd_snapshots_create(size_t capacity, bool greater_is_better, const bnd_floats *shape, size_t array_count, bnd_snapshots **snapshots,
                                bnd_error *error) {
  *snapshots = NULL;
  bnd_snapshots *s = bnd_calloc(1, sizeof *s);
  if (!s) return bnd_fail_memory(error, "the best snapshots");
  s->greater_is_better = greater_is_better;
  s->capacity = capacity;
  s->array_count = array_count;
  s->sizes = bnd_calloc(array_count, sizeof *s->sizes);
  s->places = bnd_calloc(capacity, sizeof *s->places);
  bool fits = s->sizes && s->places;
  for (size_t i = 0; fits && i < array_count; i++) {
    s->sizes[i] = shape[i].count;
    fits = bnd_size_add(s->elements, shape[i].count, &s->elements);
  }
  if (!fits) {
    bnd_snapshots_destroy(s);
    return bnd_fail_memory(error, "the best snapshots");
  }
  *snapshots = s;
  return BND_OK;
}

void bnd_snapshots_destroy(bnd_snapshots *snapshots) {
  if (!snapshots) return;
  for (size_t i = 0; snapshots->places && i < snapshots->count; i++) {
    free(snapshots->places[i].arrays);
    free(snapshots->places[i].memory);
  }
  free(snapshots->places);
  free(snapshots->sizes);
  free(snapshots);
}

/* A free place gets its memory only now: few runs are long enough to fill all. */
static bnd_status open_place(bnd_snapshots *s, bnd_error *error) {
  snapshot *place = &s->places[s->count];
  place->arrays = bnd_calloc(s->array_count, sizeof *place->arrays);
  place->memory = bnd_calloc(s->elements, sizeof *place->memory);
  if (!place->arrays || !place->memory) {
    free(place->arrays);
    free(place->memory);
    *place = (snapshot){0};
    return bnd_fail_memory(error, "the best snapshots");
  }
  float *next = place->memory;
  for (size_t i = 0; i < s->array_count; i++) {
    place->arrays[i] = (bnd_floats){next, s->sizes[i]};
    next += s->sizes[i];
  }
  s->count++;
  return BND_OK;
}

bnd_status bnd_snapshots_offer(bnd_snapshots *snapshots, double metric, const bnd_floats *state, bool *kept, bnd_error *error) {
  const double sign = snapshots->greater_is_better ? 1 : -1;
  if (kept) *kept = false;
  if (!isfinite(metric) || snapshots->capacity == 0) return BND_OK;
  size_t at = snapshots->count;
  if (at < snapshots->capacity) {
    BND_TRY(open_place(snapshots, error));
  } else {
    at = 0;
    for (size_t i = 1; i < snapshots->count; i++)
      if (sign * snapshots->places[i].metric < sign * snapshots->places[at].metric) at = i;
    if (!(sign * metric > sign * snapshots->places[at].metric)) return BND_OK;
  }
  snapshot *place = &snapshots->places[at];
  place->metric = metric;
  for (size_t i = 0; i < snapshots->array_count; i++)
    if (snapshots->sizes[i]) memcpy(place->arrays[i].values, state[i].values, snapshots->sizes[i] * sizeof(float));
  if (kept) *kept = true;
  return BND_OK;
}

bool bnd_snapshots_average(const bnd_snapshots *snapshots, const bnd_floats *average) {
  for (size_t n = 0; n < snapshots->count; n++)
    for (size_t i = 0; i < snapshots->array_count; i++) {
      float *mean = average[i].values;
      const float *next = snapshots->places[n].arrays[i].values;
      for (size_t k = 0; k < snapshots->sizes[i]; k++) mean[k] = n ? (mean[k] * (float)n + next[k]) / (float)(n + 1) : next[k];
    }
  return snapshots->count > 0;
}

size_t bnd_snapshots_count(const bnd_snapshots *snapshots) {
  return snapshots->count;
}
double bnd_snapshots_metric(const bnd_snapshots *snapshots, size_t place) {
  return snapshots->places[place].metric;
}
const bnd_floats *bnd_snapshots_state(const bnd_snapshots *snapshots, size_t place) {
  return snapshots->places[place].arrays;
}
