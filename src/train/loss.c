#include "train/loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"
#include "base/status.h"
#include "kernels/math.h"
#include "train/assign.h"

enum { BLOCK = 256, LANES = 8, ANCHORS_PER_TASK = 512 };

/* ---- logits that are not finite ---- */

BND_VECTORIZED static uint32_t largest_magnitude(const float *values, size_t count) {
  uint32_t most = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, &values[i], sizeof bits);
    bits &= 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  return most;
}

static bnd_status check_logits(const float *logits, size_t anchors, size_t per_anchor, size_t image, const char *what, bnd_error *error) {
  if (largest_magnitude(logits, anchors * per_anchor) < 0x7f800000u) return BND_OK;
  size_t i = 0;
  while (isfinite(logits[i])) i++;
  return bnd_fail(error, BND_ERROR_MODEL,
                  "loss: image %zu: %s logit %zu of anchor %zu is %s; a lower learning rate or gradient clipping helps when training diverges", image,
                  what, i % per_anchor, i / per_anchor, isnan(logits[i]) ? "not a number" : "infinite");
}

/* ---- classification ---- */

typedef struct term {
  double loss, gradient;
} term;

/* What both terms are made of, with e = exp(-|x|) in (0, 1]: p = sigmoid(x), 1 - p without cancellation, and log(1 + exp(x)). */
typedef struct logistic {
  double p, rest, softplus;
} logistic;

static inline logistic logistic_of(float logit) {
  const double x = (double)logit, magnitude = fabs(x);
  const double e = bnd_exp_double(magnitude > 104.0 ? -104.0 : -magnitude);
  const double larger = 1.0 / (1.0 + e), smaller = e * larger;
  return (logistic){x < 0 ? smaller : larger, x < 0 ? larger : smaller, (x < 0 ? 0.0 : x) + bnd_log1p_double(e)};
}

/* 0.75 p^2 BCE(x, 0); the weight is differentiated too */
static inline term background_term(float x) {
  const logistic l = logistic_of(x);
  const double weight = 0.75 * l.p * l.p;
  return (term){weight * l.softplus, weight * (2.0 * l.rest * l.softplus + l.p)};
}

/* q BCE(x, q) */
static term positive_term(float x, double q) {
  const logistic l = logistic_of(x);
  return (term){q * (l.softplus - (double)x * q), q * (l.p - q)};
}

/* Every class of every anchor as if it were background. Sums in LANES lanes, then across them. */
BND_VECTORIZED static double background(const float *logits, size_t count, double scale, float *gradient) {
  double lanes[LANES] = {0}, losses[BLOCK];
  float gradients[BLOCK];
  for (size_t start = 0; start < count; start += BLOCK) {
    const size_t block = count - start < BLOCK ? count - start : BLOCK;
    for (size_t i = 0; i < block; i++) {
      const term t = background_term(logits[start + i]);
      losses[i] = t.loss;
      gradients[i] = (float)(t.gradient * scale);
    }
    for (size_t i = block; i < BLOCK; i++) losses[i] = 0;
    for (size_t i = 0; i < BLOCK; i += LANES)
      for (size_t l = 0; l < LANES; l++) lanes[l] += losses[i + l];
    if (gradient) memcpy(gradient + start, gradients, block * sizeof *gradients);
  }
  double sum = 0;
  for (size_t l = 0; l < LANES; l++) sum += lanes[l];
  return sum;
}

/* ---- boxes ---- */

/* The derivative of max(a, b) with respect to a as torch has it: halved where both are equal. That of min is the same with -a, -b. */
static double chooses(double a, double b) {
  return a > b ? 1.0 : a < b ? 0.0 : 0.5;
}

/* 1 - GIoU of predicted and target box (x1, y1, x2, y2), and its derivatives with respect to the former: super-gradients' GIoULoss, eps 1e-10.
   I = intersection, U = union, C = enclosing box. */
static double giou_loss(const float predicted[4], const float wanted[4], double gradient[4]) {
  const double epsilon = 1e-10;
  double p[4], g[4], inner[2], outer[2], inner_of[4], outer_of[4]; /* extents along x and y; their derivatives with respect to p */
  for (int i = 0; i < 4; i++) {
    p[i] = (double)predicted[i];
    g[i] = (double)wanted[i];
  }
  for (int i = 0; i < 2; i++) {
    const int j = i + 2;
    const double length = fmin(p[j], g[j]) - fmax(p[i], g[i]);
    const double passes = length >= 0 ? 1.0 : 0.0;
    inner[i] = length > 0 ? length : 0;
    inner_of[i] = -passes * chooses(p[i], g[i]);
    inner_of[j] = passes * chooses(-p[j], -g[j]);
    outer[i] = fmax(p[j], g[j]) - fmin(p[i], g[i]);
    outer_of[i] = -chooses(-p[i], -g[i]);
    outer_of[j] = chooses(p[j], g[j]);
  }
  const double w = p[2] - p[0], h = p[3] - p[1];
  const double intersection = inner[0] * inner[1], all = w * h + (g[2] - g[0]) * (g[3] - g[1]) - intersection + epsilon;
  const double enclosing = outer[0] * outer[1] + epsilon;
  for (int i = 0; i < 4; i++) {
    const double other = i % 2 ? w : h, sign = i < 2 ? -1.0 : 1.0;
    const double intersection_of = inner_of[i] * inner[!(i % 2)], enclosing_of = outer_of[i] * outer[!(i % 2)];
    const double all_of = sign * other - intersection_of;
    /* loss = 2 - I / U - U / C */
    gradient[i] =
        -(intersection_of * all - intersection * all_of) / (all * all) - (all_of * enclosing - all * enclosing_of) / (enclosing * enclosing);
  }
  return 1.0 - (intersection / all - (enclosing - all) / enclosing);
}

typedef struct sums {
  double classification, iou, dfl;
} sums;

typedef struct batch {
  const bnd_loss_options *options;
  bnd_anchors anchors;
  const bnd_loss_image *images;
  bnd_assignment *assignments;
  double weights[3]; /* classification, iou, dfl; divided by N */
} batch;

/* A positive anchor's box: adds its terms and writes its gradient. */
static void box_terms(const batch *b, const bnd_loss_image *image, const bnd_positive *row, sums *sum) {
  const int reg_max = b->options->reg_max;
  const size_t bins = (size_t)reg_max + 1;
  const float *logits = image->box_logits + row->anchor * 4 * bins;
  const float stride = b->anchors.stride[row->anchor], x = b->anchors.x[row->anchor] / stride, y = b->anchors.y[row->anchor] / stride;
  const double score = (double)row->score;
  float box[4], wanted[4];
  for (int i = 0; i < 4; i++) wanted[i] = row->target_box[i] / stride;
  bnd_box_sides sides;
  bnd_box_decode(logits, reg_max, &sides);
  bnd_box_around(x, y, &sides, box);
  double by_edge[4];
  sum->iou += score * giou_loss(box, wanted, by_edge);
  const float distances[4] = {x - wanted[0], y - wanted[1], wanted[2] - x, wanted[3] - y}, furthest = (float)(reg_max - 0.01);
  for (size_t side = 0; side < 4; side++) {
    const float d = distances[side] < 0 ? 0 : distances[side] > furthest ? furthest : distances[side];
    const size_t k = (size_t)d;
    const float left = (float)(k + 1) - d, right = 1 - left;
    const double *p = sides.probability + side * bins;
    const float *z = logits + side * bins;
    sum->dfl += score / 4 * ((double)left * (sides.log_sum[side] - (double)z[k]) + (double)right * (sides.log_sum[side] - (double)z[k + 1]));
    if (!image->box_gradient) continue;
    float *gradient = image->box_gradient + (row->anchor * 4 + side) * bins;
    const double by_distance = b->weights[1] * score * (side < 2 ? -by_edge[side] : by_edge[side]), by_dfl = b->weights[2] * score / 4;
    for (size_t j = 0; j < bins; j++) {
      const double aim = j == k ? (double)left : j == k + 1 ? (double)right : 0.0;
      gradient[j] = (float)(by_distance * p[j] * ((double)j - sides.distance[side]) + by_dfl * (p[j] - aim));
    }
  }
}

/* An image's positive anchors: what background() took them for is replaced. */
static void positive_terms(const batch *b, size_t index, sums *sum) {
  const bnd_loss_image *image = &b->images[index];
  if (image->box_gradient) memset(image->box_gradient, 0, b->anchors.count * 4 * ((size_t)b->options->reg_max + 1) * sizeof(float));
  for (size_t i = 0; i < b->assignments[index].count; i++) {
    const bnd_positive *row = &b->assignments[index].rows[i];
    const size_t at = row->anchor * (size_t)b->options->classes + (size_t)row->label;
    const float logit = image->class_logits[at];
    const term positive = positive_term(logit, (double)row->score);
    sum->classification += positive.loss - background_term(logit).loss;
    if (image->class_gradient) image->class_gradient[at] = (float)(positive.gradient * b->weights[0]);
    box_terms(b, image, row, sum);
  }
}

/* ---- the batch ---- */

/* Checks and assigns all images; of several errors that of the first image is reported. */
static bnd_status assign_all(batch *b, size_t image_count, int threads, bnd_error *error) {
  const size_t anchors = b->anchors.count;
  size_t failed = image_count;
  bnd_status first = BND_OK;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (size_t i = 0; i < image_count; i++) {
    bnd_error own = {0};
    bnd_status status = check_logits(b->images[i].class_logits, anchors, (size_t)b->options->classes, i, "class", &own);
    if (status == BND_OK) status = check_logits(b->images[i].box_logits, anchors, 4 * ((size_t)b->options->reg_max + 1), i, "box", &own);
    if (status == BND_OK) status = bnd_assign_targets(b->options, &b->anchors, &b->images[i], i, &b->assignments[i], &own);
    if (status == BND_OK) continue;
#pragma omp critical(bnd_loss_failure)
    if (i < failed) {
      failed = i;
      first = status;
      if (error) *error = own;
    }
  }
  return first;
}

static sums add_terms(const batch *b, size_t image_count, int threads, double *background_sums, sums *image_sums) {
  const size_t anchors = b->anchors.count, classes = (size_t)b->options->classes, tasks = (anchors + ANCHORS_PER_TASK - 1) / ANCHORS_PER_TASK;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (size_t task = 0; task < image_count * tasks; task++) {
    const bnd_loss_image *image = &b->images[task / tasks];
    const size_t start = task % tasks * ANCHORS_PER_TASK, count = anchors - start < ANCHORS_PER_TASK ? anchors - start : ANCHORS_PER_TASK;
    background_sums[task] = background(image->class_logits + start * classes, count * classes, b->weights[0],
                                       image->class_gradient ? image->class_gradient + start * classes : NULL);
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (size_t i = 0; i < image_count; i++) positive_terms(b, i, &image_sums[i]);
  sums all = {0};
  for (size_t task = 0; task < image_count * tasks; task++) all.classification += background_sums[task];
  for (size_t i = 0; i < image_count; i++) {
    all.classification += image_sums[i].classification;
    all.iou += image_sums[i].iou;
    all.dfl += image_sums[i].dfl;
  }
  return all;
}

static bnd_status check_options(const bnd_loss_options *options, size_t anchors, size_t image_count, bnd_error *error) {
  size_t bytes;
  if (options->classes < 1 || options->reg_max < 1 || options->reg_max > BND_REG_MAX_LIMIT)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "loss: %d classes and reg_max %d: at least 1, reg_max at most %d", options->classes, options->reg_max,
                    BND_REG_MAX_LIMIT);
  if (!bnd_size_multiply(anchors, (size_t)options->classes, &bytes) || !bnd_size_multiply(bytes, sizeof(float), &bytes) ||
      !bnd_size_multiply(anchors, 4 * sizeof(float) * ((size_t)options->reg_max + 1), &bytes) || !bnd_size_multiply(anchors, image_count, &bytes))
    return bnd_fail_memory(error, "the loss");
  return BND_OK;
}

bnd_status bnd_yolo_loss(const bnd_loss_options *options, const float *points, const float *strides, size_t anchors, const bnd_loss_image *images,
                         size_t image_count, int threads, bnd_loss_parts *parts, bnd_error *error) {
  *parts = (bnd_loss_parts){0};
  BND_TRY(check_options(options, anchors, image_count, error));
  const size_t tasks = (anchors + ANCHORS_PER_TASK - 1) / ANCHORS_PER_TASK;
  bnd_status status = BND_OK;
  float *x = bnd_calloc(anchors, sizeof *x), *y = bnd_calloc(anchors, sizeof *y);
  double *background_sums = bnd_calloc(image_count * tasks, sizeof *background_sums);
  sums *image_sums = bnd_calloc(image_count, sizeof *image_sums);
  batch b = {options, {x, y, strides, anchors}, images, bnd_calloc(image_count, sizeof *b.assignments), {0}};
  if (!x || !y || !background_sums || !image_sums || !b.assignments) {
    status = bnd_fail_memory(error, "the loss");
    goto end;
  }
  for (size_t i = 0; i < anchors; i++) {
    x[i] = points[2 * i];
    y[i] = points[2 * i + 1];
  }
  BND_TRY_GOTO(assign_all(&b, image_count, threads, error), end);
  for (size_t i = 0; i < image_count; i++)
    for (size_t k = 0; k < b.assignments[i].count; k++) {
      parts->score_sum += (double)b.assignments[i].rows[k].score;
      parts->positives++;
    }
  const double divisor = parts->score_sum > 1 ? parts->score_sum : 1;
  b.weights[0] = (options->classification_weight != 0 ? options->classification_weight : 1.0) / divisor;
  b.weights[1] = (options->iou_weight != 0 ? options->iou_weight : 2.5) / divisor;
  b.weights[2] = (options->dfl_weight != 0 ? options->dfl_weight : 0.5) / divisor;
  const sums all = add_terms(&b, image_count, threads, background_sums, image_sums);
  parts->classification = b.weights[0] * all.classification;
  parts->iou = b.weights[1] * all.iou;
  parts->dfl = b.weights[2] * all.dfl;
  parts->total = parts->classification + parts->iou + parts->dfl;
end:
  for (size_t i = 0; b.assignments && i < image_count; i++) free(b.assignments[i].rows);
  free(b.assignments);
  free(x);
  free(y);
  free(background_sums);
  free(image_sums);
  return status;
}
