#include "flow/evaluation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "eval/bootstrap.h"
#include "eval/coco_metrics.h"
#include "eval/postprocess.h"
#include "eval/sg_metrics.h"

/* What one image contributes; filled by whichever thread ran it, read in image order at the end. */
typedef struct image_result {
  bnd_placement placement;
  bnd_detection *detections;
  size_t count;
  bnd_sg_record *record;
} image_result;

typedef struct evaluation_state {
  bnd_dataset *dataset;
  image_result *images;
  size_t anchors, classes;
  bnd_postprocess_options postprocess;
  bnd_sg_options metrics;
  bnd_sg_record **records; /* copies for the caller, or NULL */
} evaluation_state;

static bnd_status load(void *user, size_t index, float *input, bnd_error *error) {
  evaluation_state *state = user;
  return bnd_dataset_load(state->dataset, index, input, &state->images[index].placement, error);
}

static bnd_status finished(const bnd_stream_place *place, const bnd_session *session, bnd_error *error) {
  evaluation_state *state = place->user;
  image_result *image = &state->images[place->index];
  bnd_detection *detections = bnd_calloc(state->postprocess.max_detections, sizeof *detections);
  if (!detections) return bnd_fail_memory(error, "detections");
  bnd_targets targets = {0};
  bnd_status status = bnd_postprocess(bnd_session_output(session, 0), bnd_session_output(session, 1), state->anchors, state->classes, &state->postprocess,
                                      detections, &image->count, error);
  if (status == BND_OK)
    status = bnd_targets_create(&state->dataset->coco, state->dataset->coco.annotated[place->index], &state->dataset->preprocessing,
                                image->placement.image_width, image->placement.image_height, &targets, error);
  if (status == BND_OK)
    status = bnd_sg_match_image(&state->metrics, detections, image->count, targets.rows, targets.count, targets.rows + targets.count, targets.crowd_count,
                                &image->record, error);
  bnd_targets_free(&targets);
  bnd_detection *smaller = image->count ? realloc(detections, image->count * sizeof *detections) : NULL;
  if (!smaller) {
    if (image->count) smaller = detections;
    else free(detections);
  }
  image->detections = smaller;
  return status;
}

static bnd_status sg_numbers(evaluation_state *state, bnd_evaluation *result, bnd_error *error) {
  bnd_sg_metrics *metrics;
  bnd_sg_result numbers;
  BND_TRY(bnd_sg_metrics_create(&state->metrics, &metrics, error));
  bnd_status status = BND_OK;
  for (size_t i = 0; i < state->dataset->count && status == BND_OK; i++) {
    if (state->records && !(state->records[i] = bnd_sg_record_copy(state->images[i].record))) status = bnd_fail_memory(error, "results");
    if (status != BND_OK) break;
    status = bnd_sg_metrics_append(metrics, state->images[i].record, error);
    state->images[i].record = NULL;
  }
  if (status == BND_OK) status = bnd_sg_metrics_compute(metrics, &numbers, NULL, NULL, error);
  bnd_sg_metrics_destroy(metrics);
  if (status != BND_OK) return status;
  result->map50 = numbers.at_050.map;
  result->map50_95 = numbers.at_050_095.map;
  return BND_OK;
}

static bnd_coco_truth truth_of(const bnd_coco *coco, const bnd_coco_annotation *a) {
  return (bnd_coco_truth){.id = a->id, .image_id = coco->images[a->image].id, .category_id = coco->categories[a->label].id,
                          .box = {a->bbox[0], a->bbox[1], a->bbox[2], a->bbox[3]}, .area = a->area, .crowd = a->crowd};
}

static bnd_status coco_numbers(evaluation_state *state, bnd_evaluation *result, bnd_error *error) {
  const bnd_coco *coco = &state->dataset->coco;
  size_t total = 0, at = 0;
  for (size_t i = 0; i < state->dataset->count; i++) total += state->images[i].count;
  bnd_coco_truth *truth = bnd_calloc(coco->annotation_count, sizeof *truth);
  bnd_coco_detection *detections = bnd_calloc(total, sizeof *detections);
  int64_t *images = bnd_calloc(state->dataset->count, sizeof *images), *categories = bnd_calloc(coco->category_count, sizeof *categories);
  double *ap = bnd_calloc(coco->category_count, sizeof *ap), *ap50 = bnd_calloc(coco->category_count, sizeof *ap50);
  bnd_status status = truth && detections && images && categories && ap && ap50 ? BND_OK : bnd_fail_memory(error, "COCO's metrics");
  if (status == BND_OK) {
    for (size_t i = 0; i < coco->annotation_count; i++) truth[i] = truth_of(coco, &coco->annotations[i]);
    for (size_t i = 0; i < coco->category_count; i++) categories[i] = coco->categories[i].id;
    for (size_t i = 0; i < state->dataset->count; i++) {
      images[i] = coco->images[coco->annotated[i]].id;
      for (size_t k = 0; k < state->images[i].count; k++) {
        const bnd_detection *d = &state->images[i].detections[k];
        float xywh[4];
        bnd_geometry_unmap(&state->images[i].placement.geometry, (const float[]){d->x1, d->y1, d->x2, d->y2}, xywh);
        detections[at++] = (bnd_coco_detection){.image_id = images[i], .category_id = categories[d->label],
                                                .box = {(double)xywh[0], (double)xywh[1], (double)xywh[2], (double)xywh[3]}, .score = (double)d->score};
      }
    }
    const bnd_coco_input input = {truth, coco->annotation_count, detections, total, images, state->dataset->count, categories, coco->category_count};
    status = bnd_coco_evaluate(&input, result->coco, ap, ap50, error);
  }
  for (size_t c = 0; status == BND_OK && c < coco->category_count; c++) {
    result->classes[c].ap50 = ap50[c] < 0 ? NAN : ap50[c];
    result->classes[c].ap50_95 = ap[c] < 0 ? NAN : ap[c];
  }
  free(truth);
  free(detections);
  free(images);
  free(categories);
  free(ap);
  free(ap50);
  return status;
}

static bnd_status prepare_classes(const bnd_dataset *dataset, bnd_evaluation *result, bnd_error *error) {
  const bnd_coco *coco = &dataset->coco;
  result->classes = bnd_calloc(coco->category_count, sizeof *result->classes);
  if (!result->classes) return bnd_fail_memory(error, "results");
  result->class_count = coco->category_count;
  for (size_t c = 0; c < coco->category_count; c++)
    if (!(result->classes[c].name = strdup(coco->categories[c].name))) return bnd_fail_memory(error, "results");
  for (size_t i = 0; i < dataset->count; i++) {
    const bnd_coco_image *image = &coco->images[coco->annotated[i]];
    for (size_t k = 0; k < image->count; k++) result->classes[coco->annotations[image->first + k].label].objects++;
  }
  return BND_OK;
}

bnd_status bnd_evaluate_executor(bnd_executor *executor, bnd_dataset *dataset, const char *stage, const bnd_context *context, bnd_evaluation *result,
                                 bnd_error *error) {
  return bnd_evaluate_with_records(executor, dataset, stage, context, result, NULL, error);
}

bnd_status bnd_evaluate_with_records(bnd_executor *executor, bnd_dataset *dataset, const char *stage, const bnd_context *context, bnd_evaluation *result,
                                     bnd_sg_record **records, bnd_error *error) {
  *result = (bnd_evaluation){.images = dataset->count};
  const bnd_shape *boxes = bnd_executor_output_shape(executor, 0), *scores = bnd_executor_output_shape(executor, 1);
  evaluation_state state = {.dataset = dataset, .postprocess = bnd_postprocess_for_metrics(), .records = records};
  if (bnd_executor_output_count(executor) < 2 || boxes->rank != 3 || scores->rank != 3 || boxes->size[2] != 4 || boxes->size[1] != scores->size[1])
    return bnd_fail(error, BND_ERROR_MODEL, "the network's first two outputs are not boxes [1,A,4] and scores [1,A,N]");
  state.anchors = (size_t)boxes->size[1];
  state.classes = (size_t)scores->size[2];
  state.metrics = bnd_sg_default_options(state.classes);
  state.metrics.width = (float)dataset->preprocessing.width;
  state.metrics.height = (float)dataset->preprocessing.height;
  if (!(state.images = bnd_calloc(dataset->count, sizeof *state.images))) return bnd_fail_memory(error, "results");
  bnd_image_source source = bnd_dataset_source(dataset, dataset->count);
  source.user = &state;
  source.load = load;
  const double begin = bnd_clock_seconds(CLOCK_MONOTONIC);
  bnd_stream_times times = {0};
  const bnd_stream stream = {.stage = stage, .finished = finished, .user = &state, .times = &times};
  bnd_status status = bnd_stream_images(executor, &source, &stream, context, error);
  const double metrics_begin = bnd_clock_seconds(CLOCK_THREAD_CPUTIME_ID);
  if (status == BND_OK) status = prepare_classes(dataset, result, error);
  if (status == BND_OK) status = sg_numbers(&state, result, error);
  if (status == BND_OK) status = coco_numbers(&state, result, error);
  result->seconds = bnd_clock_seconds(CLOCK_MONOTONIC) - begin;
  result->processor = (bnd_evaluation_times){.load = times.load, .forward = times.run, .postprocess = times.finished,
                                             .metrics = bnd_clock_seconds(CLOCK_THREAD_CPUTIME_ID) - metrics_begin};
  for (size_t i = 0; i < dataset->count; i++) {
    free(state.images[i].detections);
    bnd_sg_record_free(state.images[i].record);
  }
  free(state.images);
  for (size_t i = 0; records && status != BND_OK && i < dataset->count; i++) {
    bnd_sg_record_free(records[i]);
    records[i] = NULL;
  }
  if (status != BND_OK) bnd_evaluation_free(result);
  return status;
}

void bnd_evaluation_free(bnd_evaluation *result) {
  for (size_t i = 0; i < result->class_count; i++) free(result->classes[i].name);
  free(result->classes);
  *result = (bnd_evaluation){0};
}
