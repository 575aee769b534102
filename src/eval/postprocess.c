#include "eval/postprocess.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tensor/torch_order.h"

/* torchvision's batched_nms shifts the classes apart up to this many boxes (4000 numbers) and loops over the classes beyond. */
enum { SHIFTED_BOXES_LIMIT = 1000 };

typedef struct candidate {
  float box[4];
  float score;
  uint32_t place; /* position among the candidates before suppression */
  int32_t label;
  int32_t group; /* boxes suppress boxes of the same group only */
} candidate;

bnd_postprocess_options bnd_postprocess_for_metrics(void) {
  return (bnd_postprocess_options){.score_threshold = 0.01f, .top_k = 1000, .iou_threshold = 0.7, .max_detections = 300, .multi_label = true};
}

bnd_postprocess_options bnd_postprocess_for_prediction(void) {
  return (bnd_postprocess_options){.score_threshold = 0.25f, .top_k = 1024, .iou_threshold = 0.7, .max_detections = 300, .multi_label = true};
}

static size_t count_above(const float *scores, size_t count, float threshold) {
  size_t above = 0;
  for (size_t i = 0; i < count; i++) above += scores[i] > threshold;
  return above;
}

/* The first of the largest; an anchor with a NaN has NaN as its largest and so is below every threshold. */
static size_t best_class(const float *scores, size_t classes) {
  size_t best = 0;
  for (size_t c = 0; c < classes; c++) {
    if (isnan(scores[c])) return c;
    if (scores[c] > scores[best]) best = c;
  }
  return best;
}

/* Candidates in the order of the score tensor; index = position in it. */
static bnd_status collect(const float *scores, size_t anchors, size_t classes, const bnd_postprocess_options *options, bnd_ranked **items,
                          size_t *count, bnd_error *error) {
  const size_t room = options->multi_label ? count_above(scores, anchors * classes, options->score_threshold) : anchors;
  bnd_ranked *found = bnd_alloc_aligned(room, sizeof *found);
  if (!found) return bnd_fail_memory(error, "the candidate boxes");
  size_t n = 0;
  for (size_t a = 0; a < anchors; a++) {
    const float *row = scores + a * classes;
    if (options->multi_label) {
      for (size_t c = 0; c < classes; c++)
        if (row[c] > options->score_threshold) found[n++] = (bnd_ranked){row[c], (uint32_t)(a * classes + c)};
    } else {
      const size_t c = best_class(row, classes);
      if (row[c] >= options->score_threshold) found[n++] = (bnd_ranked){row[c], (uint32_t)(a * classes + c)};
    }
  }
  *items = found;
  *count = n;
  return BND_OK;
}

/* Moves class after class beyond the largest coordinate, so that one pass over all boxes keeps the classes apart. In float32, as torchvision does:
 * the rounding of the shifted coordinates is part of the result. */
static void shift_by_class(candidate *candidates, size_t count) {
  float largest = candidates[0].box[0];
  for (size_t i = 0; i < count; i++)
    for (int k = 0; k < 4; k++)
      if (candidates[i].box[k] > largest || isnan(candidates[i].box[k])) largest = candidates[i].box[k];
  for (size_t i = 0; i < count; i++) {
    const float offset = (float)candidates[i].label * (largest + 1.0f);
    for (int k = 0; k < 4; k++) candidates[i].box[k] += offset;
  }
}

/* By group, then descending score, then place: a stable sort by score within each group. */
static int compare_candidates(const void *left, const void *right) {
  const candidate *a = left, *b = right;
  if (a->group != b->group) return a->group < b->group ? -1 : 1;
  if (a->score != b->score) return a->score > b->score ? -1 : 1;
  return a->place < b->place ? -1 : a->place > b->place;
}

static inline float larger(float a, float b) {
  return a < b ? b : a;
}
static inline float smaller(float a, float b) {
  return b < a ? b : a;
}

typedef struct suppression {
  float *x1, *y1, *x2, *y2, *area; /* one allocation, starting at x1 */
  int32_t *dropped;
} suppression;

static bool suppression_allocate(suppression *s, size_t count) {
  s->x1 = bnd_alloc_aligned(count, 6 * sizeof(float));
  if (!s->x1) return false;
  s->y1 = s->x1 + count;
  s->x2 = s->y1 + count;
  s->y2 = s->x2 + count;
  s->area = s->y2 + count;
  s->dropped = (int32_t *)(s->area + count);
  return true;
}

/* Greedy: every box not yet dropped is kept and drops the later ones whose IoU with it exceeds the threshold. Moves the kept ones, at most `limit`,
 * to the front and returns their number. IoU in float32 against a threshold in double, as torchvision's kernel. */
static size_t suppress(candidate *boxes, size_t count, double threshold, size_t limit, suppression *s) {
  float *restrict x1 = s->x1, *restrict y1 = s->y1, *restrict x2 = s->x2, *restrict y2 = s->y2, *restrict area = s->area;
  int32_t *restrict dropped = s->dropped;
  for (size_t i = 0; i < count; i++) {
    x1[i] = boxes[i].box[0], y1[i] = boxes[i].box[1], x2[i] = boxes[i].box[2], y2[i] = boxes[i].box[3];
    area[i] = (x2[i] - x1[i]) * (y2[i] - y1[i]);
    dropped[i] = 0;
  }
  /* A float exceeds the double threshold exactly when it exceeds the largest float that does not. */
  float bound = (float)threshold;
  if (bound > threshold) bound = nextafterf(bound, -INFINITY);
  size_t kept = 0;
  for (size_t i = 0; i < count && kept < limit; i++) {
    if (dropped[i]) continue;
    const float left = x1[i], top = y1[i], right = x2[i], bottom = y2[i], own = area[i];
    for (size_t j = i + 1; j < count; j++) {
      const float width = larger(0.0f, smaller(right, x2[j]) - larger(left, x1[j]));
      const float height = larger(0.0f, smaller(bottom, y2[j]) - larger(top, y1[j]));
      const float overlap = width * height;
      dropped[j] |= overlap / (own + area[j] - overlap) > bound;
    }
    boxes[kept++] = boxes[i];
  }
  return kept;
}

static int compare_places(const void *left, const void *right) {
  const candidate *a = left, *b = right;
  return a->place < b->place ? -1 : a->place > b->place;
}

/* batched_nms for many boxes: class by class; the survivors of all classes, put back in their original order, go through torch's unstable sort. */
static bnd_status suppress_by_class(candidate *candidates, size_t *count, double threshold, suppression *s, bnd_error *error) {
  size_t kept = 0;
  for (size_t start = 0, end; start < *count; start = end) {
    for (end = start + 1; end < *count && candidates[end].group == candidates[start].group; end++) {
    }
    const size_t survivors = suppress(candidates + start, end - start, threshold, SIZE_MAX, s);
    memmove(candidates + kept, candidates + start, survivors * sizeof *candidates);
    kept += survivors;
  }
  qsort(candidates, kept, sizeof *candidates, compare_places);
  bnd_ranked *order = bnd_alloc_aligned(kept, sizeof *order);
  candidate *sorted = bnd_alloc_aligned(kept, sizeof *sorted);
  bnd_status status = BND_OK;
  if (!order || !sorted) {
    status = bnd_fail_memory(error, "the candidate boxes");
    goto done;
  }
  for (size_t i = 0; i < kept; i++) order[i] = (bnd_ranked){candidates[i].score, (uint32_t)i};
  bnd_torch_sort(order, kept);
  for (size_t i = 0; i < kept; i++) sorted[i] = candidates[order[i].index];
  memcpy(candidates, sorted, kept * sizeof *sorted);
  *count = kept;
done:
  free(order);
  free(sorted);
  return status;
}

/* Suppression over all candidates; the survivors come first, by descending score. Their boxes may be shifted: `place` finds the originals. */
static bnd_status suppress_all(candidate *candidates, size_t *count, const bnd_postprocess_options *options, bnd_error *error) {
  if (*count == 0) return BND_OK;
  const bool by_class = !options->class_agnostic && *count > SHIFTED_BOXES_LIMIT;
  if (by_class) {
    for (size_t i = 0; i < *count; i++) candidates[i].group = candidates[i].label;
  } else if (!options->class_agnostic) {
    shift_by_class(candidates, *count);
  }
  qsort(candidates, *count, sizeof *candidates, compare_candidates);
  suppression s;
  if (!suppression_allocate(&s, *count)) return bnd_fail_memory(error, "the candidate boxes");
  bnd_status status = BND_OK;
  if (by_class)
    status = suppress_by_class(candidates, count, options->iou_threshold, &s, error);
  else
    *count = suppress(candidates, *count, options->iou_threshold, options->max_detections, &s);
  free(s.x1);
  return status;
}

bnd_status bnd_postprocess(const float *boxes, const float *scores, size_t anchors, size_t classes, const bnd_postprocess_options *options,
                           bnd_detection *detections, size_t *count, bnd_error *error) {
  size_t total;
  if (!bnd_size_multiply(anchors, classes, &total) || total > UINT32_MAX || classes > INT32_MAX)
    return bnd_fail(error, BND_ERROR_MEMORY, "%zu anchors with %zu classes are too many scores", anchors, classes);
  *count = 0;
  if (total == 0) return BND_OK;

  bnd_ranked *items = NULL;
  size_t n = 0;
  BND_TRY(collect(scores, anchors, classes, options, &items, &n, error));
  if (n > options->top_k) {
    bnd_torch_top_k(items, n, options->top_k);
    n = options->top_k;
  }
  bnd_status status = BND_OK;
  candidate *candidates = bnd_calloc(n, sizeof *candidates);
  if (!candidates) {
    status = bnd_fail_memory(error, "the candidate boxes");
    goto done;
  }
  for (size_t i = 0; i < n; i++) {
    const float *box = boxes + items[i].index / classes * 4;
    candidates[i] = (candidate){
        .box = {box[0], box[1], box[2], box[3]}, .score = items[i].score, .place = (uint32_t)i, .label = (int32_t)(items[i].index % classes)};
  }
  BND_TRY_GOTO(suppress_all(candidates, &n, options, error), done);
  *count = n < options->max_detections ? n : options->max_detections;
  for (size_t i = 0; i < *count; i++) {
    const float *box = boxes + items[candidates[i].place].index / classes * 4;
    detections[i] = (bnd_detection){box[0], box[1], box[2], box[3], candidates[i].score, candidates[i].label};
  }
done:
  free(candidates);
  free(items);
  return status;
}
