#include "eval/sg_metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/clip.h"
#include "eval/sg_record.h"
#include "tensor/torch_order.h"

enum { IOU_THRESHOLDS = BND_SG_THRESHOLDS, GRID = 101, EVERY_THRESHOLD = (1 << IOU_THRESHOLDS) - 1 };

/* Bit t of a mask stands for IOU[t]. Thresholds are independent of each other, so the first one alone is mAP@0.50. */
static const float IOU[IOU_THRESHOLDS] = {0.5f, 0.55f, 0.6f, 0.65f, 0.7f, 0.75f, 0.8f, 0.85f, 0.9f, 0.95f};

struct bnd_sg_metrics {
  bnd_sg_options options;
  size_t images, detection_count, detection_capacity, target_count;
  bnd_sg_detection *detections; /* in image order */
  size_t *class_targets;    /* [classes] number of targets */
};

bnd_sg_options bnd_sg_default_options(size_t classes) {
  return (bnd_sg_options){.classes = classes, .width = 640.0f, .height = 640.0f, .score_threshold = 0.1f, .top_k = 300};
}

/* ---- Matching of one image ---- */

typedef struct corners {
  float x1, y1, x2, y2;
} corners;

static corners target_corners(const bnd_target *target) {
  const float x1 = target->cx - target->w * 0.5f, y1 = target->cy - target->h * 0.5f;
  return (corners){x1, y1, target->w + x1, target->h + y1};
}

static float area(const corners *box) {
  return (box->x2 - box->x1) * (box->y2 - box->y1);
}

static float intersection(const corners *a, const corners *b) {
  const float width = (a->x2 < b->x2 ? a->x2 : b->x2) - (a->x1 > b->x1 ? a->x1 : b->x1);
  const float height = (a->y2 < b->y2 ? a->y2 : b->y2) - (a->y1 > b->y1 ? a->y1 : b->y1);
  return (width > 0.0f ? width : 0.0f) * (height > 0.0f ? height : 0.0f);
}

/* Targets of one class with the thresholds at which each is taken. */
typedef struct target_set {
  corners *boxes;
  uint16_t *taken;
  float *iou; /* scratch: with the detection being matched */
  size_t count;
} target_set;

/* At every threshold the detection takes the free target of highest IoU above the threshold, the first of equals. */
static uint16_t match(const corners *box, target_set *targets) {
  const float own = area(box);
  for (size_t i = 0; i < targets->count; i++) {
    const float inter = intersection(box, &targets->boxes[i]);
    targets->iou[i] = inter / (own + area(&targets->boxes[i]) - inter);
  }
  uint16_t matched = 0;
  for (int t = 0; t < IOU_THRESHOLDS; t++) {
    float best = IOU[t];
    size_t winner = targets->count;
    for (size_t i = 0; i < targets->count; i++) {
      if (targets->taken[i] >> t & 1 || !(targets->iou[i] > best)) continue;
      best = targets->iou[i];
      winner = i;
    }
    if (winner == targets->count) continue;
    targets->taken[winner] |= (uint16_t)(1 << t);
    matched |= (uint16_t)(1 << t);
  }
  return matched;
}

/* The thresholds exceeded by the largest share of the detection that lies in one crowd region. */
static uint16_t thresholds_in_crowd(const corners *box, const target_set *crowd) {
  float largest = 0.0f;
  for (size_t i = 0; i < crowd->count; i++) {
    const float share = intersection(box, &crowd->boxes[i]) / area(box);
    if (share > largest) largest = share;
  }
  uint16_t mask = 0;
  for (int t = 0; t < IOU_THRESHOLDS; t++) mask |= (uint16_t)((largest > IOU[t]) << t);
  return mask;
}

static bool target_set_allocate(target_set *set, size_t count) {
  set->boxes = bnd_calloc(count, sizeof *set->boxes);
  set->taken = bnd_calloc(count, sizeof *set->taken);
  set->iou = bnd_calloc(count, sizeof *set->iou);
  return set->boxes && set->taken && set->iou;
}

static void target_set_free(target_set *set) {
  free(set->boxes);
  free(set->taken);
  free(set->iou);
}

static void target_set_fill(target_set *set, const bnd_target *targets, size_t count, uint32_t label) {
  set->count = 0;
  for (size_t i = 0; i < count; i++) {
    if ((uint32_t)targets[i].label != label) continue;
    set->taken[set->count] = 0;
    set->boxes[set->count++] = target_corners(&targets[i]);
  }
}

/* Matches one class. As in the original, its detections are ranked within a column that holds 0 for those of other classes: the zeros change how
 * the unstable sort orders equal scores. A detection whose score is 0 takes no part. */
static void match_class(const bnd_sg_options *options, uint32_t label, const bnd_detection *detections, bnd_sg_record *record, bnd_ranked *column,
                        target_set *targets, const target_set *crowd) {
  const size_t count = record->detection_count;
  for (size_t i = 0; i < count; i++) column[i] = (bnd_ranked){record->detections[i].label == label ? detections[i].score : 0.0f, (uint32_t)i};
  bnd_torch_sort(column, count);
  for (size_t rank = 0; rank < count && rank < options->top_k; rank++) {
    if (column[rank].score == 0.0f) continue;
    const bnd_detection *detection = &detections[column[rank].index];
    bnd_sg_detection *entry = &record->detections[column[rank].index];
    const corners box = {bnd_clip(detection->x1, options->width), bnd_clip(detection->y1, options->height), bnd_clip(detection->x2, options->width),
                         bnd_clip(detection->y2, options->height)};
    entry->matched = match(&box, targets);
    entry->ignored = thresholds_in_crowd(&box, crowd);
  }
}

static bnd_status check_targets(const bnd_sg_options *options, const bnd_target *targets, size_t count, bnd_error *error) {
  for (size_t i = 0; i < count; i++)
    if (!(targets[i].label >= 0.0f && targets[i].label < (float)options->classes) || targets[i].label != floorf(targets[i].label))
      return bnd_fail(error, BND_ERROR_ARGUMENT, "target %zu has label %g, which is none of the %zu classes", i, (double)targets[i].label,
                      options->classes);
  return BND_OK;
}

static bnd_status check_labels(const bnd_sg_options *options, const bnd_detection *detections, size_t count, bnd_error *error) {
  if (count > UINT32_MAX) return bnd_fail(error, BND_ERROR_ARGUMENT, "%zu detections in one image are too many", count);
  for (size_t i = 0; i < count; i++)
    if (detections[i].label < 0 || (size_t)detections[i].label >= options->classes)
      return bnd_fail(error, BND_ERROR_ARGUMENT, "detection %zu has label %d, which is none of the %zu classes", i, (int)detections[i].label,
                      options->classes);
  return BND_OK;
}

void bnd_sg_record_free(bnd_sg_record *record) {
  if (!record) return;
  free(record->detections);
  free(record->target_labels);
  free(record);
}

static bnd_sg_record *record_create(const bnd_detection *detections, size_t detection_count, const bnd_target *targets, size_t target_count) {
  bnd_sg_record *record = bnd_calloc(1, sizeof *record);
  if (!record) return NULL;
  record->detections = bnd_calloc(detection_count, sizeof *record->detections);
  record->target_labels = bnd_calloc(target_count, sizeof *record->target_labels);
  if (!record->detections || !record->target_labels) {
    bnd_sg_record_free(record);
    return NULL;
  }
  record->detection_count = detection_count;
  record->target_count = target_count;
  /* What is beyond top_k stays ignored at every threshold. */
  for (size_t i = 0; i < detection_count; i++)
    record->detections[i] = (bnd_sg_detection){.score = detections[i].score, .label = (uint32_t)detections[i].label, .ignored = EVERY_THRESHOLD};
  for (size_t i = 0; i < target_count; i++) record->target_labels[i] = (uint32_t)targets[i].label;
  return record;
}

bnd_status bnd_sg_match_image(const bnd_sg_options *options, const bnd_detection *detections, size_t detection_count, const bnd_target *targets,
                              size_t target_count, const bnd_target *crowd, size_t crowd_count, bnd_sg_record **record, bnd_error *error) {
  *record = NULL;
  BND_TRY(check_labels(options, detections, detection_count, error));
  BND_TRY(check_targets(options, targets, target_count, error));
  BND_TRY(check_targets(options, crowd, crowd_count, error));

  bnd_status status = BND_OK;
  target_set class_targets = {0}, class_crowd = {0};
  bnd_ranked *column = bnd_calloc(detection_count, sizeof *column);
  bool *done_class = bnd_calloc(options->classes, sizeof *done_class);
  bnd_sg_record *result = record_create(detections, detection_count, targets, target_count);
  if (!column || !done_class || !result || !target_set_allocate(&class_targets, target_count) || !target_set_allocate(&class_crowd, crowd_count)) {
    status = bnd_fail_memory(error, "the matches of an image");
    goto done;
  }
  for (size_t i = 0; i < detection_count; i++) {
    const uint32_t label = result->detections[i].label;
    if (done_class[label]) continue;
    done_class[label] = true;
    target_set_fill(&class_targets, targets, target_count, label);
    target_set_fill(&class_crowd, crowd, crowd_count, label);
    match_class(options, label, detections, result, column, &class_targets, &class_crowd);
  }
  *record = result;
  result = NULL;
done:
  bnd_sg_record_free(result);
  target_set_free(&class_targets);
  target_set_free(&class_crowd);
  free(column);
  free(done_class);
  return status;
}

/* ---- Accumulation ---- */

bnd_status bnd_sg_metrics_create(const bnd_sg_options *options, bnd_sg_metrics **metrics, bnd_error *error) {
  *metrics = NULL;
  if (options->classes == 0 || options->classes > INT32_MAX)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "a detection metric needs at least one class, not %zu", options->classes);
  bnd_sg_metrics *created = bnd_calloc(1, sizeof *created);
  if (created) created->class_targets = bnd_calloc(options->classes, sizeof *created->class_targets);
  if (!created || !created->class_targets) {
    free(created);
    return bnd_fail_memory(error, "the detection metric");
  }
  created->options = *options;
  *metrics = created;
  return BND_OK;
}

void bnd_sg_metrics_destroy(bnd_sg_metrics *metrics) {
  if (!metrics) return;
  free(metrics->detections);
  free(metrics->class_targets);
  free(metrics);
}

bnd_status bnd_sg_metrics_append(bnd_sg_metrics *metrics, bnd_sg_record *record, bnd_error *error) {
  bnd_status status = BND_OK;
  size_t needed;
  if (!bnd_size_add(metrics->detection_count, record->detection_count, &needed) || needed > UINT32_MAX ||
      !BND_GROW(metrics->detections, metrics->detection_capacity, needed)) {
    status = bnd_fail_memory(error, "the detections of all images");
    goto done;
  }
  if (record->detection_count)
    memcpy(metrics->detections + metrics->detection_count, record->detections, record->detection_count * sizeof *record->detections);
  metrics->detection_count = needed;
  for (size_t i = 0; i < record->target_count; i++) metrics->class_targets[record->target_labels[i]]++;
  metrics->target_count += record->target_count;
  metrics->images++;
done:
  bnd_sg_record_free(record);
  return status;
}

bnd_status bnd_sg_metrics_add(bnd_sg_metrics *metrics, const bnd_detection *detections, size_t detection_count, const bnd_target *targets,
                              size_t target_count, const bnd_target *crowd, size_t crowd_count, bnd_error *error) {
  bnd_sg_record *record;
  BND_TRY(bnd_sg_match_image(&metrics->options, detections, detection_count, targets, target_count, crowd, crowd_count, &record, error));
  return bnd_sg_metrics_append(metrics, record, error);
}

/* ---- The numbers ---- */

/* torch.linspace(0, 1, 101), the values where recall is sampled and the scores among which the best threshold is sought: the first half counted up
 * from 0, the second down from 1 with one rounding (the compiler fuses it there). Not always the float nearest to i / 100, which decides where a
 * recall of, say, 1 / 20 falls. */
static float grid_value(int i) {
  const float step = 1.0f / (GRID - 1);
  return i < GRID / 2 ? step * (float)i : fmaf(-step, (float)(GRID - 1 - i), 1.0f);
}

/* One class at one IoU threshold. */
typedef struct curve {
  float precision, recall; /* at the score threshold */
  double average_precision;
  float f1[GRID]; /* by score threshold */
} curve;

static float f1_score(float precision, float recall) {
  return 2.0f * recall * precision / (recall + precision + 1e-16f);
}

/* Detections sorted by descending score: how many have at least this score. */
static size_t count_at_least(const bnd_ranked *order, size_t count, float score) {
  size_t low = 0, high = count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (order[middle].score >= score)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* precision, recall: scratch of `count` values. order: the class's detections by descending score, index into all. Float32 as in the original. */
static void trace_curve(const bnd_sg_metrics *metrics, const bnd_ranked *order, size_t count, size_t targets, int t, float *precision, float *recall,
                        curve *result) {
  *result = (curve){0};
  if (count == 0) return;
  float tp = 0.0f, fp = 0.0f;
  for (size_t i = 0; i < count; i++) {
    const bnd_sg_detection *detection = &metrics->detections[order[i].index];
    const bool matched = detection->matched >> t & 1, ignored = detection->ignored >> t & 1;
    tp += matched;
    fp += !matched && !ignored;
    recall[i] = tp / (float)targets;
    precision[i] = tp / (tp + fp + 0x1p-52f);
  }
  for (size_t i = count - 1; i-- > 0;)
    if (precision[i] < precision[i + 1]) precision[i] = precision[i + 1];

  const size_t above = count_at_least(order, count, metrics->options.score_threshold);
  result->precision = above ? precision[above - 1] : 0.0f;
  result->recall = above ? recall[above - 1] : 0.0f;
  double sum = 0.0;
  size_t at = 0;
  for (int g = 0; g < GRID; g++) {
    const size_t kept = count_at_least(order, count, grid_value(g));
    result->f1[g] = kept ? f1_score(precision[kept - 1], recall[kept - 1]) : 0.0f;
    while (at < count && recall[at] < grid_value(g)) at++;
    sum += at < count ? (double)precision[at] : 0.0;
  }
  result->average_precision = sum / GRID;
}

/* Sums over classes and the first `thresholds` IoU thresholds, in double: sums of the same floats in any order are then equal, so that on a plateau
 * of F1 the lowest score is the best threshold. (The original adds in float32 and lets rounding choose among equals; nothing else depends on it.) */
typedef struct totals {
  double precision, recall, f1, average_precision, f1_by_score[GRID];
  size_t classes;
} totals;

static double add_class(totals *sum, const curve *curves, int thresholds) {
  double average_precision = 0.0;
  for (int t = 0; t < thresholds; t++) {
    sum->precision += (double)curves[t].precision / thresholds;
    sum->recall += (double)curves[t].recall / thresholds;
    sum->f1 += (double)f1_score(curves[t].precision, curves[t].recall) / thresholds;
    average_precision += curves[t].average_precision / thresholds;
  }
  for (int g = 0; g < GRID; g++) {
    double f1 = 0.0;
    for (int t = 0; t < thresholds; t++) f1 += (double)curves[t].f1[g];
    sum->f1_by_score[g] += f1;
  }
  sum->average_precision += average_precision;
  sum->classes++;
  return average_precision;
}

static bnd_sg_scores scores_of(const totals *sum) {
  int best = 0;
  for (int g = 1; g < GRID; g++)
    if (sum->f1_by_score[g] > sum->f1_by_score[best]) best = g;
  const double classes = (double)sum->classes; /* 0 gives NaN */
  return (bnd_sg_scores){.precision = sum->precision / classes,
                         .recall = sum->recall / classes,
                         .f1 = sum->f1 / classes,
                         .map = sum->average_precision / classes,
                         .best_score_threshold = (double)grid_value(best)};
}

/* Groups all detections by class, in image order within a class: start[label] .. start[label + 1] of *order. */
static void group_by_class(const bnd_sg_metrics *metrics, size_t *start, bnd_ranked *order) {
  for (size_t i = 0; i < metrics->detection_count; i++) start[metrics->detections[i].label + 1]++;
  for (size_t c = 0; c < metrics->options.classes; c++) start[c + 1] += start[c];
  for (size_t i = metrics->detection_count; i-- > 0;) {
    const bnd_sg_detection *detection = &metrics->detections[i];
    order[--start[detection->label + 1]] = (bnd_ranked){detection->score, (uint32_t)i};
  }
  /* Every end has moved down to its own start: start[c + 1] now holds where class c begins. */
  memmove(start, start + 1, metrics->options.classes * sizeof *start);
  start[metrics->options.classes] = metrics->detection_count;
}

bnd_status bnd_sg_metrics_compute(const bnd_sg_metrics *metrics, bnd_sg_result *result, double *ap_050, double *ap_050_095, bnd_error *error) {
  const size_t classes = metrics->options.classes;
  const bnd_sg_scores nothing = {-1.0, -1.0, -1.0, -1.0, -1.0};
  *result = (bnd_sg_result){nothing, nothing};
  if (ap_050) memset(ap_050, 0, classes * sizeof *ap_050);
  if (ap_050_095) memset(ap_050_095, 0, classes * sizeof *ap_050_095);
  if (metrics->images == 0) return BND_OK;

  bnd_status status = BND_OK;
  totals sum_050 = {0}, sum_050_095 = {0};
  size_t *start = bnd_calloc(classes + 1, sizeof *start);
  bnd_ranked *order = bnd_calloc(metrics->detection_count, sizeof *order);
  float *precision = bnd_calloc(metrics->detection_count, 2 * sizeof *precision);
  if (!start || !order || !precision) {
    status = bnd_fail_memory(error, "the precision and recall curves");
    goto done;
  }
  group_by_class(metrics, start, order);
  for (size_t c = 0; c < classes; c++) {
    const size_t targets = metrics->class_targets[c], count = start[c + 1] - start[c];
    if (targets == 0) continue;
    bnd_torch_sort(order + start[c], count);
    curve curves[IOU_THRESHOLDS];
    for (int t = 0; t < IOU_THRESHOLDS; t++)
      trace_curve(metrics, order + start[c], count, targets, t, precision, precision + metrics->detection_count, &curves[t]);
    const double at_050 = add_class(&sum_050, curves, 1), at_050_095 = add_class(&sum_050_095, curves, IOU_THRESHOLDS);
    if (ap_050) ap_050[c] = at_050;
    if (ap_050_095) ap_050_095[c] = at_050_095;
  }
  *result = (bnd_sg_result){scores_of(&sum_050), scores_of(&sum_050_095)};
done:
  free(start);
  free(order);
  free(precision);
  return status;
}
