#include "eval/bootstrap.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "eval/sg_record.h"

enum { GRID = 101, STREAM = 61 };

bnd_sg_record *bnd_sg_record_copy(const bnd_sg_record *record) {
  bnd_sg_record *copy = bnd_calloc(1, sizeof *copy);
  if (!copy) return NULL;
  *copy = (bnd_sg_record){.detection_count = record->detection_count, .target_count = record->target_count,
                          .detections = bnd_calloc(record->detection_count, sizeof *copy->detections),
                          .target_labels = bnd_calloc(record->target_count, sizeof *copy->target_labels)};
  if (!copy->detections || !copy->target_labels) {
    bnd_sg_record_free(copy);
    return NULL;
  }
  if (copy->detection_count) memcpy(copy->detections, record->detections, copy->detection_count * sizeof *copy->detections);
  if (copy->target_count) memcpy(copy->target_labels, record->target_labels, copy->target_count * sizeof *copy->target_labels);
  return copy;
}

/* All detections by class, then by falling score; equal ones in the order of images. Sorted once: a draw only weighs images. */
typedef struct entry {
  float score;
  uint32_t label, image, order;
  uint16_t matched, ignored;
} entry;

typedef struct ranking {
  entry *entries;
  size_t count;
} ranking;

static int compare(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->label != y->label) return x->label < y->label ? -1 : 1;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

static bool rank(const bnd_sg_record *const *records, size_t images, ranking *r) {
  *r = (ranking){0};
  for (size_t i = 0; i < images; i++) r->count += records[i]->detection_count;
  if (r->count > UINT32_MAX || !(r->entries = bnd_calloc(r->count, sizeof *r->entries))) return false;
  size_t at = 0;
  for (size_t i = 0; i < images; i++)
    for (size_t k = 0; k < records[i]->detection_count; k++, at++) {
      const bnd_sg_detection *d = &records[i]->detections[k];
      r->entries[at] = (entry){d->score, d->label, (uint32_t)i, (uint32_t)at, d->matched, d->ignored};
    }
  qsort(r->entries, r->count, sizeof *r->entries, compare);
  return true;
}

/* Average precision of the entries of one class at one threshold, sampled at 101 recalls. curve: scratch of 2 * count values. */
static double average_precision(const entry *entries, size_t count, const uint32_t *weight, double targets, int threshold, double *curve) {
  double tp = 0, fp = 0, best = 0, sum = 0;
  size_t points = 0;
  for (size_t i = 0; i < count; i++) {
    const double w = weight[entries[i].image];
    const bool matched = entries[i].matched >> threshold & 1, ignored = entries[i].ignored >> threshold & 1;
    if (w == 0 || (!matched && ignored)) continue;
    if (matched) tp += w;
    else fp += w;
    curve[points * 2] = tp / targets;
    curve[points++ * 2 + 1] = tp / (tp + fp);
  }
  size_t at = points;
  for (int g = GRID - 1; g >= 0; g--) {
    for (; at > 0 && curve[(at - 1) * 2] >= (double)g / (GRID - 1); at--) best = curve[at * 2 - 1] > best ? curve[at * 2 - 1] : best;
    sum += best;
  }
  return sum / GRID;
}

static double mean_average_precision(const ranking *r, const uint32_t *weight, const double *targets, size_t classes, double *curve) {
  double sum = 0;
  size_t present = 0, from = 0;
  for (size_t c = 0; c < classes; c++) {
    size_t to = from;
    while (to < r->count && r->entries[to].label == c) to++;
    present += targets[c] > 0;
    for (int t = 0; targets[c] > 0 && t < BND_SG_THRESHOLDS; t++)
      sum += average_precision(r->entries + from, to - from, weight, targets[c], t, curve) / BND_SG_THRESHOLDS;
    from = to;
  }
  return present ? sum / (double)present : 0;
}

typedef struct draw_memory {
  uint32_t *weight;
  double *targets, *curve;
} draw_memory;

static double draw_ratio(const bnd_sg_record *const *base, const ranking rankings[2], size_t images, size_t classes, uint64_t seed, uint64_t number,
                         const draw_memory *m) {
  bnd_random random = bnd_random_stream(seed, 0, (uint32_t)number, STREAM);
  memset(m->weight, 0, images * sizeof *m->weight);
  memset(m->targets, 0, classes * sizeof *m->targets);
  for (size_t i = 0; i < images; i++) m->weight[bnd_random_below(&random, images)]++;
  for (size_t i = 0; i < images; i++)
    for (size_t k = 0; k < base[i]->target_count; k++) m->targets[base[i]->target_labels[k]] += m->weight[i];
  const double a = mean_average_precision(&rankings[0], m->weight, m->targets, classes, m->curve);
  const double b = mean_average_precision(&rankings[1], m->weight, m->targets, classes, m->curve);
  return a > 0 ? b / a : -1;
}

static int compare_numbers(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b; }

/* -1 stands for draws without anything to find. */
static void quantiles(double *ratios, int count, double *low, double *high) {
  int valid = 0;
  for (int i = 0; i < count; i++)
    if (ratios[i] >= 0) ratios[valid++] = ratios[i];
  qsort(ratios, (size_t)valid, sizeof *ratios, compare_numbers);
  *low = valid ? ratios[(int)(0.025 * (valid - 1) + 0.5)] : 0;
  *high = valid ? ratios[(int)(0.975 * (valid - 1) + 0.5)] : 0;
}

bnd_status bnd_sg_bootstrap_ratio(const bnd_sg_record *const *base, const bnd_sg_record *const *other, size_t images, size_t classes, int resamples,
                                  uint64_t seed, double *low, double *high, bnd_error *error) {
  ranking rankings[2] = {{0}};
  *low = *high = 0;
  if (images == 0 || resamples < 1) return BND_OK;
  bool fine = rank(base, images, &rankings[0]) && rank(other, images, &rankings[1]);
  double *ratios = bnd_calloc((size_t)resamples, sizeof *ratios);
  const size_t most = rankings[0].count > rankings[1].count ? rankings[0].count : rankings[1].count;
  fine = fine && ratios;
#pragma omp parallel if (fine)
  {
    draw_memory m = {.weight = bnd_calloc(images, sizeof *m.weight), .targets = bnd_calloc(classes, sizeof *m.targets),
                     .curve = bnd_calloc(most * 2, sizeof *m.curve)};
    const bool ready = fine && m.weight && m.targets && m.curve;
    if (!ready) {
#pragma omp atomic write
      fine = false;
    }
#pragma omp for schedule(dynamic, 8)
    for (int i = 0; i < resamples; i++)
      if (ready) ratios[i] = draw_ratio(base, rankings, images, classes, seed, (uint64_t)i, &m);
    free(m.weight);
    free(m.targets);
    free(m.curve);
  }
  if (fine) quantiles(ratios, resamples, low, high);
  free(ratios);
  free(rankings[0].entries);
  free(rankings[1].entries);
  return fine ? BND_OK : bnd_fail_memory(error, "the bootstrap");
}
