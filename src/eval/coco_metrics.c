#include "eval/coco_metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { IOU_THRESHOLDS = 10, AREA_RANGES = 4, RECALLS = 101, MOST_DETECTIONS = 100, IOU_050 = 0, IOU_075 = 5 };

/* numpy.linspace(0.5, 0.95, 10): the ninth is not the double nearest to 0.9. */
static const double IOU[IOU_THRESHOLDS] = {0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95};
/* All, small, medium, large: pixels, both ends included. */
static const double AREA[AREA_RANGES][2] = {{0, 1e10}, {0, 32 * 32}, {32 * 32, 96 * 96}, {96 * 96, 1e10}};

typedef struct id_list { /* ascending, without duplicates */
  int64_t *ids;
  size_t count;
} id_list;

/* A box of the ground truth or a detection, by its place in the evaluation. */
typedef struct entry {
  size_t category, image; /* indices into the id lists */
  size_t index;           /* into the input's array */
  double score;           /* 0 for the ground truth */
} entry;

/* What happened to a detection; bit t of a mask stands for IOU[t]. */
typedef struct outcome {
  double score;
  size_t order; /* images ascending, within an image by descending score */
  size_t rank;  /* within its image and category */
  uint16_t matched[AREA_RANGES], ignored[AREA_RANGES];
} outcome;

typedef struct evaluation {
  const bnd_coco_input *input;
  id_list images, categories;
  entry *truth, *detections; /* by category, image, then file order or descending score */
  size_t truth_count, detection_count;
  double *precision; /* [area range][IoU][recall][category] with up to 100 detections, -1 = nothing to find */
  double *recall;    /* [RECALL_CURVES][IoU][category] */
} evaluation;

/* Recall is asked for at 1, 10 and 100 detections over all areas, and at 100 for each area range. */
enum { RECALL_1, RECALL_10, RECALL_100, RECALL_SMALL, RECALL_MEDIUM, RECALL_LARGE, RECALL_CURVES };
static const struct {
  int area;
  size_t detections;
} RECALL_OF[RECALL_CURVES] = {{0, 1}, {0, 10}, {0, 100}, {1, 100}, {2, 100}, {3, 100}};

/* ---- Ordering ---- */

static int compare_ids(const void *left, const void *right) {
  const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
  return a < b ? -1 : a > b;
}

static bool id_list_create(const int64_t *ids, size_t count, id_list *list) {
  list->ids = bnd_calloc(count, sizeof *ids);
  if (!list->ids) return false;
  if (count) memcpy(list->ids, ids, count * sizeof *ids);
  qsort(list->ids, count, sizeof *ids, compare_ids);
  for (size_t i = 0; i < count; i++)
    if (i == 0 || list->ids[i] != list->ids[i - 1]) list->ids[list->count++] = list->ids[i];
  return true;
}

static bool id_list_find(const id_list *list, int64_t id, size_t *index) {
  const int64_t *found = bsearch(&id, list->ids, list->count, sizeof id, compare_ids);
  if (found) *index = (size_t)(found - list->ids);
  return found != NULL;
}

/* Descending, NaN last, as numpy sorts negated scores. */
static int compare_scores(double a, double b) {
  if (a == b || (isnan(a) && isnan(b))) return 0;
  return a > b || isnan(b) ? -1 : 1;
}

static int compare_entries(const void *left, const void *right) {
  const entry *a = left, *b = right;
  if (a->category != b->category) return a->category < b->category ? -1 : 1;
  if (a->image != b->image) return a->image < b->image ? -1 : 1;
  const int by_score = compare_scores(a->score, b->score);
  return by_score ? by_score : a->index < b->index ? -1 : a->index > b->index;
}

static int compare_outcomes(const void *left, const void *right) {
  const outcome *a = left, *b = right;
  const int by_score = compare_scores(a->score, b->score);
  return by_score ? by_score : a->order < b->order ? -1 : a->order > b->order;
}

/* ---- Matching within one image and category ---- */

/* A crowd region is measured by the share of the detection inside it. */
static double overlap_of(const double *detection, const bnd_coco_truth *truth) {
  const double *box = truth->box;
  const double width = fmin(detection[2] + detection[0], box[2] + box[0]) - fmax(detection[0], box[0]);
  if (width <= 0) return 0;
  const double height = fmin(detection[3] + detection[1], box[3] + box[1]) - fmax(detection[1], box[1]);
  if (height <= 0) return 0;
  const double both = width * height, own = detection[2] * detection[3];
  return both / (truth->crowd ? own : own + box[2] * box[3] - both);
}

static bool outside(double area, int range) {
  return area < AREA[range][0] || area > AREA[range][1];
}

/* Scratch for the ground truth of one image and category, grown as needed. */
typedef struct truth_scratch {
  double *overlap; /* [detection][truth in file order] */
  size_t *order;   /* counted objects first, then ignored ones, both in file order */
  bool *taken;     /* by position in `order` */
  size_t overlap_capacity, order_capacity, taken_capacity;
} truth_scratch;

static bool truth_scratch_grow(truth_scratch *scratch, size_t detections, size_t truths) {
  size_t pairs;
  return bnd_size_multiply(detections, truths, &pairs) && BND_GROW(scratch->overlap, scratch->overlap_capacity, pairs) &&
         BND_GROW(scratch->order, scratch->order_capacity, truths) && BND_GROW(scratch->taken, scratch->taken_capacity, truths);
}

static void truth_scratch_free(truth_scratch *scratch) {
  free(scratch->overlap);
  free(scratch->order);
  free(scratch->taken);
}

/* The object a detection takes: highest overlap from the threshold on, the last of equals, counted objects before ignored ones; crowd regions can be
 * taken again and again. Position in `order`, or truth_count. */
static size_t find_match(const bnd_coco_input *input, const entry *truth, size_t truth_count, size_t counted, const truth_scratch *scratch,
                         const double *overlap, double threshold) {
  size_t match = truth_count;
  double best = threshold;
  for (size_t g = 0; g < truth_count; g++) {
    const size_t at = scratch->order[g];
    if (scratch->taken[g] && !input->truth[truth[at].index].crowd) continue;
    if (match < counted && g >= counted) break;
    if (overlap[at] < best) continue;
    best = overlap[at];
    match = g;
  }
  return match;
}

/* One area range; returns the number of objects that count. */
static size_t match_range(const bnd_coco_input *input, const entry *truth, size_t truth_count, const entry *detections, size_t detection_count,
                          int range, truth_scratch *scratch, outcome *outcomes) {
  size_t counted = 0, placed = 0;
  for (int ignored = 0; ignored < 2; ignored++) {
    for (size_t g = 0; g < truth_count; g++) {
      const bnd_coco_truth *object = &input->truth[truth[g].index];
      if ((object->crowd || outside(object->area, range)) == ignored) scratch->order[placed++] = g;
    }
    if (!ignored) counted = placed;
  }
  for (int t = 0; t < IOU_THRESHOLDS; t++) {
    const uint16_t bit = (uint16_t)(1 << t);
    if (truth_count) memset(scratch->taken, 0, truth_count * sizeof *scratch->taken);
    for (size_t d = 0; d < detection_count; d++) {
      const size_t match = find_match(input, truth, truth_count, counted, scratch, scratch->overlap + d * truth_count, IOU[t]);
      bool matched = false, ignored = false;
      if (match < truth_count) {
        scratch->taken[match] = true;
        ignored = match >= counted;
        matched = input->truth[truth[scratch->order[match]].index].id != 0;
      }
      const double *box = input->detections[detections[d].index].box;
      if (!matched && outside(box[2] * box[3], range)) ignored = true;
      if (matched) outcomes[d].matched[range] |= bit;
      if (ignored) outcomes[d].ignored[range] |= bit;
    }
  }
  return counted;
}

/* Appends the outcomes of one image's best 100 detections of one category and adds the objects that count to counted[area range]. */
static bnd_status match_image(const bnd_coco_input *input, const entry *truth, size_t truth_count, const entry *detections, size_t detection_count,
                              truth_scratch *scratch, outcome *outcomes, size_t *outcome_count, size_t *counted, bnd_error *error) {
  if (detection_count > MOST_DETECTIONS) detection_count = MOST_DETECTIONS;
  if (!truth_scratch_grow(scratch, detection_count, truth_count)) return bnd_fail_memory(error, "the overlaps of an image");
  outcome *own = outcomes + *outcome_count;
  for (size_t d = 0; d < detection_count; d++) {
    own[d] = (outcome){.score = detections[d].score, .order = *outcome_count + d, .rank = d};
    for (size_t g = 0; g < truth_count; g++)
      scratch->overlap[d * truth_count + g] = overlap_of(input->detections[detections[d].index].box, &input->truth[truth[g].index]);
  }
  for (int a = 0; a < AREA_RANGES; a++) counted[a] += match_range(input, truth, truth_count, detections, detection_count, a, scratch, own);
  *outcome_count += detection_count;
  return BND_OK;
}

/* ---- Precision and recall of one category ---- */

static double *precision_at(const evaluation *e, int area, int threshold, int recall) {
  return e->precision + ((size_t)(area * IOU_THRESHOLDS + threshold) * RECALLS + (size_t)recall) * e->categories.count;
}

static double *recall_at(const evaluation *e, int curve, int threshold) {
  return e->recall + (size_t)(curve * IOU_THRESHOLDS + threshold) * e->categories.count;
}

/* Precision at 101 recall values: made monotone from the right, then read where recall first reaches the value; 0 beyond the last recall. */
static void sample_precision(const evaluation *e, size_t category, const outcome *outcomes, size_t count, double counted, int area, int t,
                             double *precision, double *recall) {
  double tp = 0, fp = 0;
  for (size_t i = 0; i < count; i++) {
    const bool matched = outcomes[i].matched[area] >> t & 1, ignored = outcomes[i].ignored[area] >> t & 1;
    tp += matched && !ignored;
    fp += !matched && !ignored;
    recall[i] = tp / counted;
    precision[i] = tp / (fp + tp + 0x1p-52);
  }
  for (size_t i = count; i-- > 1;)
    if (precision[i] > precision[i - 1]) precision[i - 1] = precision[i];
  size_t at = 0;
  for (int r = 0; r < RECALLS; r++) {
    while (at < count && recall[at] < r * 0.01) at++;
    precision_at(e, area, t, r)[category] = at < count ? precision[at] : 0;
  }
}

static double final_recall(const outcome *outcomes, size_t count, double counted, int area, size_t most_detections, int t) {
  double tp = 0;
  for (size_t i = 0; i < count; i++)
    tp += outcomes[i].rank < most_detections && outcomes[i].matched[area] >> t & 1 && !(outcomes[i].ignored[area] >> t & 1);
  return tp / counted;
}

/* Outcomes by descending score over all images. */
static void accumulate(const evaluation *e, size_t category, const outcome *outcomes, size_t count, const size_t *counted, double *scratch) {
  for (int t = 0; t < IOU_THRESHOLDS; t++) {
    for (int a = 0; a < AREA_RANGES; a++)
      if (counted[a]) sample_precision(e, category, outcomes, count, (double)counted[a], a, t, scratch, scratch + count);
    for (int c = 0; c < RECALL_CURVES; c++) {
      const int a = RECALL_OF[c].area;
      if (counted[a]) recall_at(e, c, t)[category] = final_recall(outcomes, count, (double)counted[a], a, RECALL_OF[c].detections, t);
    }
  }
}

/* One category: its entries are truth[0 .. truth_count) and detections[0 .. detection_count). */
static bnd_status evaluate_category(const evaluation *e, size_t category, const entry *truth, size_t truth_count, const entry *detections,
                                    size_t detection_count, truth_scratch *scratch, bnd_error *error) {
  bnd_status status = BND_OK;
  size_t outcome_count = 0, counted[AREA_RANGES] = {0};
  outcome *outcomes = bnd_calloc(detection_count, sizeof *outcomes);
  double *curve = bnd_calloc(detection_count, 2 * sizeof *curve);
  if (!outcomes || !curve) {
    status = bnd_fail_memory(error, "the outcomes of a category");
    goto done;
  }
  for (size_t g = 0, d = 0; g < truth_count || d < detection_count;) {
    const bool truth_first = d == detection_count || (g < truth_count && truth[g].image < detections[d].image);
    const size_t image = truth_first ? truth[g].image : detections[d].image;
    size_t g_end = g, d_end = d;
    while (g_end < truth_count && truth[g_end].image == image) g_end++;
    while (d_end < detection_count && detections[d_end].image == image) d_end++;
    BND_TRY_GOTO(match_image(e->input, truth + g, g_end - g, detections + d, d_end - d, scratch, outcomes, &outcome_count, counted, error), done);
    g = g_end;
    d = d_end;
  }
  qsort(outcomes, outcome_count, sizeof *outcomes, compare_outcomes);
  accumulate(e, category, outcomes, outcome_count, counted, curve);
done:
  free(outcomes);
  free(curve);
  return status;
}

/* ---- Summary ---- */

/* numpy's pairwise summation: eight running sums over blocks of up to 128, blocks added in a binary tree. */
static double pairwise_sum(const double *values, size_t count) {
  if (count > 128) {
    const size_t half = count / 2 - count / 2 % 8;
    return pairwise_sum(values, half) + pairwise_sum(values + half, count - half);
  }
  double sum = 0;
  size_t i = 0;
  if (count >= 8) {
    double partial[8];
    memcpy(partial, values, sizeof partial);
    for (i = 8; i + 8 <= count; i += 8)
      for (size_t k = 0; k < 8; k++) partial[k] += values[i + k];
    sum = ((partial[0] + partial[1]) + (partial[2] + partial[3])) + ((partial[4] + partial[5]) + (partial[6] + partial[7]));
  }
  for (; i < count; i++) sum += values[i];
  return sum;
}

/* Mean of values[0], values[step] .. of `count` that are not -1; -1 when there is none. `kept` has room for `count`. */
static double mean_of_present(const double *values, size_t count, size_t step, double *kept) {
  size_t present = 0;
  for (size_t i = 0; i < count; i++)
    if (values[i * step] > -1) kept[present++] = values[i * step];
  return present ? pairwise_sum(kept, present) / (double)present : -1;
}

static void summarize(const evaluation *e, double *numbers, double *category_ap, double *category_ap50, double *scratch) {
  const size_t categories = e->categories.count, one_threshold = RECALLS * categories, all_thresholds = IOU_THRESHOLDS * one_threshold;
  const int ap_of_area[AREA_RANGES] = {BND_COCO_AP, BND_COCO_AP_SMALL, BND_COCO_AP_MEDIUM, BND_COCO_AP_LARGE};
  const int ar_of_curve[RECALL_CURVES] = {BND_COCO_AR_1, BND_COCO_AR_10, BND_COCO_AR_100, BND_COCO_AR_SMALL, BND_COCO_AR_MEDIUM, BND_COCO_AR_LARGE};
  for (int a = 0; a < AREA_RANGES; a++) numbers[ap_of_area[a]] = mean_of_present(precision_at(e, a, 0, 0), all_thresholds, 1, scratch);
  numbers[BND_COCO_AP50] = mean_of_present(precision_at(e, 0, IOU_050, 0), one_threshold, 1, scratch);
  numbers[BND_COCO_AP75] = mean_of_present(precision_at(e, 0, IOU_075, 0), one_threshold, 1, scratch);
  for (int c = 0; c < RECALL_CURVES; c++) numbers[ar_of_curve[c]] = mean_of_present(recall_at(e, c, 0), IOU_THRESHOLDS * categories, 1, scratch);

  for (size_t i = 0; i < e->input->category_count; i++) {
    size_t k = 0;
    id_list_find(&e->categories, e->input->category_ids[i], &k);
    const double *first = precision_at(e, 0, IOU_050, 0) + k;
    if (category_ap) category_ap[i] = mean_of_present(first, IOU_THRESHOLDS * RECALLS, categories, scratch);
    if (category_ap50) category_ap50[i] = mean_of_present(first, RECALLS, categories, scratch);
  }
}

/* ---- The whole ---- */

static void evaluation_free(evaluation *e) {
  free(e->images.ids);
  free(e->categories.ids);
  free(e->truth);
  free(e->detections);
  free(e->precision);
  free(e->recall);
}

static bnd_status evaluation_prepare(const bnd_coco_input *input, evaluation *e, bnd_error *error) {
  *e = (evaluation){.input = input};
  size_t cells;
  if (!id_list_create(input->image_ids, input->image_count, &e->images) ||
      !id_list_create(input->category_ids, input->category_count, &e->categories) ||
      !bnd_size_multiply(e->categories.count, AREA_RANGES * IOU_THRESHOLDS * RECALLS, &cells) ||
      !(e->precision = bnd_calloc(cells, sizeof *e->precision)) ||
      !(e->recall = bnd_calloc(e->categories.count, RECALL_CURVES * IOU_THRESHOLDS * sizeof *e->recall)) ||
      !(e->truth = bnd_calloc(input->truth_count, sizeof *e->truth)) || !(e->detections = bnd_calloc(input->detection_count, sizeof *e->detections)))
    return bnd_fail_memory(error, "the COCO evaluation");
  for (size_t i = 0; i < cells; i++) e->precision[i] = -1;
  for (size_t i = 0; i < e->categories.count * RECALL_CURVES * IOU_THRESHOLDS; i++) e->recall[i] = -1;

  for (size_t i = 0; i < input->truth_count; i++) {
    entry made = {.index = i};
    if (id_list_find(&e->images, input->truth[i].image_id, &made.image) && id_list_find(&e->categories, input->truth[i].category_id, &made.category))
      e->truth[e->truth_count++] = made;
  }
  for (size_t i = 0; i < input->detection_count; i++) {
    entry made = {.index = i, .score = input->detections[i].score};
    if (id_list_find(&e->images, input->detections[i].image_id, &made.image) &&
        id_list_find(&e->categories, input->detections[i].category_id, &made.category))
      e->detections[e->detection_count++] = made;
  }
  qsort(e->truth, e->truth_count, sizeof *e->truth, compare_entries);
  qsort(e->detections, e->detection_count, sizeof *e->detections, compare_entries);
  return BND_OK;
}

bnd_status bnd_coco_evaluate(const bnd_coco_input *input, double numbers[BND_COCO_NUMBERS], double *category_ap, double *category_ap50,
                             bnd_error *error) {
  bnd_status status;
  evaluation e;
  truth_scratch scratch = {0};
  double *kept = NULL;
  BND_TRY_GOTO(evaluation_prepare(input, &e, error), done);
  size_t g = 0, d = 0;
  for (size_t category = 0; category < e.categories.count; category++) {
    size_t g_end = g, d_end = d;
    while (g_end < e.truth_count && e.truth[g_end].category == category) g_end++;
    while (d_end < e.detection_count && e.detections[d_end].category == category) d_end++;
    BND_TRY_GOTO(evaluate_category(&e, category, e.truth + g, g_end - g, e.detections + d, d_end - d, &scratch, error), done);
    g = g_end;
    d = d_end;
  }
  kept = bnd_calloc(e.categories.count, IOU_THRESHOLDS * RECALLS * sizeof *kept);
  if (!kept) {
    status = bnd_fail_memory(error, "the COCO evaluation");
    goto done;
  }
  summarize(&e, numbers, category_ap, category_ap50, kept);
done:
  free(kept);
  truth_scratch_free(&scratch);
  evaluation_free(&e);
  return status;
}
