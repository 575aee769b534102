#include "train/assign.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"
#include "base/status.h"
#include "kernels/math.h"
#include "tensor/torch_order.h"

enum { CANDIDATES = 13, HEAP_FROM = 64 * CANDIDATES }; /* from so many anchors on, torch.topk selects with a heap */

static const float INSIDE_MARGIN = 1e-9f, IOU_EPSILON = 1e-9f, METRIC_EPSILON = 1e-9f;

BND_VECTORIZED static void exponentials(const float *logits, const float *highest, size_t count, double *results) {
  for (size_t i = 0; i < count; i++) results[i] = bnd_exp_double(bnd_exp_argument(logits[i] - highest[i]));
}

void bnd_box_decode(const float *logits, int reg_max, bnd_box_sides *sides) {
  const size_t bins = (size_t)reg_max + 1;
  float highest[4 * (BND_REG_MAX_LIMIT + 1)];
  for (size_t side = 0; side < 4; side++) {
    const float *z = logits + side * bins;
    float most = z[0];
    for (size_t k = 1; k < bins; k++) most = z[k] > most ? z[k] : most;
    for (size_t k = 0; k < bins; k++) highest[side * bins + k] = most;
  }
  exponentials(logits, highest, 4 * bins, sides->probability);
  for (size_t side = 0; side < 4; side++) {
    double *p = sides->probability + side * bins, sum = 0, weighted = 0;
    for (size_t k = 0; k < bins; k++) {
      sum += p[k];
      weighted += p[k] * (double)k;
    }
    for (size_t k = 0; k < bins; k++) p[k] /= sum;
    sides->log_sum[side] = (double)highest[side * bins] + bnd_log_double(sum);
    sides->distance[side] = weighted / sum;
  }
}

void bnd_box_around(float x, float y, const bnd_box_sides *sides, float box[4]) {
  box[0] = x - (float)sides->distance[0];
  box[1] = y - (float)sides->distance[1];
  box[2] = (float)sides->distance[2] + x;
  box[3] = (float)sides->distance[3] + y;
}

static float area(const float box[4]) {
  const float w = box[2] - box[0], h = box[3] - box[1];
  return (w < 0 ? 0 : w) * (h < 0 ? 0 : h);
}

/* batch_iou_similarity */
static float overlap_ratio(const float a[4], const float b[4]) {
  const float common[4] = {a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1], a[2] < b[2] ? a[2] : b[2], a[3] < b[3] ? a[3] : b[3]};
  const float overlap = area(common);
  return overlap / (area(a) + area(b) - overlap + IOU_EPSILON);
}

typedef struct target {
  float box[4];
  int label;
  bool valid; /* the original takes boxes whose coordinates do not sum to a positive number for padding */
  float best_metric, best_iou;
} target;

typedef struct pair {
  size_t anchor, target;
} pair;

/* The working memory of one image. */
typedef struct assigner {
  const bnd_loss_options *options;
  const bnd_anchors *anchors;
  const bnd_loss_image *image;
  target *targets;
  uint8_t *inside;    /* of the target being looked at */
  uint8_t *decoded;   /* whether boxes[a] is filled */
  float (*boxes)[4];  /* predicted, in pixels */
  uint32_t *choosers; /* targets that chose the anchor */
  bnd_ranked *ranked;
  pair *pairs; /* by target, then by rank */
  size_t pair_count;
} assigner;

static const float *predicted_box(assigner *a, size_t anchor) {
  float *box = a->boxes[anchor];
  if (a->decoded[anchor]) return box;
  a->decoded[anchor] = 1;
  const float stride = a->anchors->stride[anchor];
  bnd_box_sides sides;
  bnd_box_decode(a->image->box_logits + anchor * 4 * ((size_t)a->options->reg_max + 1), a->options->reg_max, &sides);
  bnd_box_around(a->anchors->x[anchor] / stride, a->anchors->y[anchor] / stride, &sides, box);
  for (int i = 0; i < 4; i++) box[i] *= stride;
  return box;
}

/* The alignment metric: score * IoU^6. The sigmoid is taken step by step in float: it is 0 where the exponential overflows, and zeros tie. */
static float alignment(assigner *a, size_t anchor, const target *t, float iou) {
  const float logit = a->image->class_logits[anchor * (size_t)a->options->classes + (size_t)t->label];
  const double square = (double)iou * (double)iou;
  return 1.f / (1.f + bnd_exp(-logit)) * (float)(square * square * square);
}

static bnd_status read_targets(assigner *a, size_t image_index, bnd_error *error) {
  for (size_t i = 0; i < a->image->target_count; i++) {
    const bnd_target *row = &a->image->targets[i];
    target *t = &a->targets[i];
    if (!(row->label >= 0 && row->label < (float)a->options->classes))
      return bnd_fail(error, BND_ERROR_ARGUMENT, "loss: image %zu: target %zu: label %g is none of the %d classes", image_index, i,
                      (double)row->label, a->options->classes);
    t->label = (int)row->label;
    t->box[0] = row->cx - 0.5f * row->w;
    t->box[1] = row->cy - 0.5f * row->h;
    t->box[2] = t->box[0] + row->w;
    t->box[3] = t->box[1] + row->h;
    const float sum = t->box[0] + t->box[1] + t->box[2] + t->box[3];
    if (!isfinite(sum)) return bnd_fail(error, BND_ERROR_ARGUMENT, "loss: image %zu: target %zu: the box is not finite", image_index, i);
    t->valid = sum > 0;
  }
  return BND_OK;
}

BND_VECTORIZED static void mark_inside(const float *restrict x, const float *restrict y, size_t count, const float box[4], uint8_t *restrict inside) {
  const float x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
  for (size_t i = 0; i < count; i++)
    inside[i] = (uint8_t)((x[i] - x1 > INSIDE_MARGIN) & (y[i] - y1 > INSIDE_MARGIN) & (x2 - x[i] > INSIDE_MARGIN) & (y2 - y[i] > INSIDE_MARGIN));
}

/* What torch.topk sees are the metrics of all anchors, 0 outside. Its heap starts with the first 13 and takes in only what is larger than the least
   so far; zeros behind them never are, so they are left out and others stand in for them, where their number decides how it selects. */
static size_t rank_anchors(assigner *a, const target *t) {
  const size_t count = a->anchors->count;
  const bool heap = count >= HEAP_FROM;
  size_t used = 0;
  for (size_t i = 0; i < count; i++) {
    float metric = 0;
    if (heap && i >= CANDIDATES) { /* eight at a time: most are outside */
      uint64_t eight;
      while (i + 8 <= count && (memcpy(&eight, a->inside + i, 8), eight == 0)) i += 8;
      if (i == count) break;
    }
    if (a->inside[i]) metric = alignment(a, i, t, overlap_ratio(t->box, predicted_box(a, i)));
    if (heap && i >= CANDIDATES && !(metric > 0)) continue;
    a->ranked[used++] = (bnd_ranked){metric, (uint32_t)i};
  }
  while (heap && used < HEAP_FROM) a->ranked[used++] = (bnd_ranked){0, UINT32_MAX};
  return used;
}

/* Every target chooses the 13 anchors with the largest metric, and keeps those that lie inside. */
static void choose(assigner *a, size_t index) {
  const target *t = &a->targets[index];
  mark_inside(a->anchors->x, a->anchors->y, a->anchors->count, t->box, a->inside);
  const size_t ranked = rank_anchors(a, t), chosen = ranked < CANDIDATES ? ranked : CANDIDATES;
  bnd_torch_top_k(a->ranked, ranked, chosen);
  for (size_t i = 0; i < chosen; i++) {
    const size_t anchor = a->ranked[i].index;
    if (!a->inside[anchor]) continue;
    a->choosers[anchor]++;
    a->pairs[a->pair_count++] = (pair){anchor, index};
  }
}

/* Among all targets of the image, not only those that chose the anchor. */
static size_t largest_overlap(assigner *a, size_t anchor) {
  const float *box = predicted_box(a, anchor);
  size_t best = 0;
  float most = -1;
  for (size_t i = 0; i < a->image->target_count; i++) {
    const float iou = overlap_ratio(a->targets[i].box, box);
    if (!(iou > most)) continue;
    most = iou;
    best = i;
  }
  return best;
}

/* One target for every chosen anchor. */
static void settle(assigner *a) {
  size_t kept = 0;
  for (size_t i = 0; i < a->pair_count; i++) {
    const size_t anchor = a->pairs[i].anchor, choosers = a->choosers[anchor];
    if (choosers == 0) continue; /* settled before */
    a->pairs[kept++] = (pair){anchor, choosers == 1 ? a->pairs[i].target : largest_overlap(a, anchor)};
    a->choosers[anchor] = 0;
  }
  a->pair_count = kept;
}

/* score = metric / (largest metric of the target + eps) * largest IoU of the target, over its anchors */
static void score(assigner *a, bnd_assignment *assignment) {
  for (int pass = 0; pass < 2; pass++)
    for (size_t i = 0; i < a->pair_count; i++) {
      const size_t anchor = a->pairs[i].anchor;
      target *t = &a->targets[a->pairs[i].target];
      const float iou = overlap_ratio(t->box, predicted_box(a, anchor)), metric = alignment(a, anchor, t, iou);
      if (pass == 0) {
        if (metric > t->best_metric) t->best_metric = metric;
        if (iou > t->best_iou) t->best_iou = iou;
      } else {
        bnd_positive *row = &assignment->rows[i];
        *row = (bnd_positive){anchor, a->pairs[i].target, t->label, metric / (t->best_metric + METRIC_EPSILON) * t->best_iou, {0}};
        memcpy(row->target_box, t->box, sizeof row->target_box);
      }
    }
  assignment->count = a->pair_count;
}

bnd_status bnd_assign_targets(const bnd_loss_options *options, const bnd_anchors *anchors, const bnd_loss_image *image, size_t image_index,
                              bnd_assignment *assignment, bnd_error *error) {
  *assignment = (bnd_assignment){0};
  const size_t count = anchors->count, targets = image->target_count;
  size_t pairs;
  if (targets == 0) return BND_OK;
  if (count > UINT32_MAX - 1 || !bnd_size_multiply(targets, CANDIDATES, &pairs)) return bnd_fail_memory(error, "the loss");
  assigner a = {options,
                anchors,
                image,
                bnd_calloc(targets, sizeof(target)),
                bnd_calloc(count, 1),
                bnd_calloc(count, 1),
                bnd_calloc(count, sizeof(float[4])),
                bnd_calloc(count, sizeof(uint32_t)),
                bnd_calloc(count + HEAP_FROM, sizeof(bnd_ranked)),
                bnd_calloc(pairs, sizeof(pair)),
                0};
  bnd_status status = BND_OK;
  assignment->rows = bnd_calloc(pairs, sizeof *assignment->rows);
  if (!a.targets || !a.inside || !a.decoded || !a.boxes || !a.choosers || !a.ranked || !a.pairs || !assignment->rows) {
    status = bnd_fail_memory(error, "the loss");
    goto end;
  }
  BND_TRY_GOTO(read_targets(&a, image_index, error), end);
  for (size_t i = 0; i < targets; i++)
    if (a.targets[i].valid) choose(&a, i);
  settle(&a);
  score(&a, assignment);
end:
  free(a.targets);
  free(a.inside);
  free(a.decoded);
  free(a.boxes);
  free(a.choosers);
  free(a.ranked);
  free(a.pairs);
  if (status != BND_OK) {
    free(assignment->rows);
    *assignment = (bnd_assignment){0};
  }
  return status;
}
