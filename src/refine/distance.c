#include "refine/distance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct bnd_distance {
  const bnd_refinement *work;
  bnd_image_source images;
  int outputs;       /* compared: the first so many */
  size_t *counts;    /* [outputs] elements */
  bool is_detector;  /* boxes and scores */
  float **expected;  /* [images * outputs] */
  double (*sums)[2]; /* [images]: numerator, denominator */
};

static double overlap(const float *a, const float *b) {
  const double left = fmax((double)a[0], (double)b[0]), top = fmax((double)a[1], (double)b[1]);
  const double right = fmin((double)a[2], (double)b[2]), bottom = fmin((double)a[3], (double)b[3]);
  const double common = right > left && bottom > top ? (right - left) * (bottom - top) : 0;
  const double areas = ((double)a[2] - (double)a[0]) * ((double)a[3] - (double)a[1]) + ((double)b[2] - (double)b[0]) * ((double)b[3] - (double)b[1]);
  return areas - common > 0 ? common / (areas - common) : 0;
}

static void compare_detections(const bnd_distance *d, float *const *expected, const bnd_session *session, double sums[2]) {
  const size_t anchors = d->counts[0] / 4, classes = d->counts[1] / anchors;
  const float *boxes = bnd_session_output(session, 0), *scores = bnd_session_output(session, 1);
  for (size_t a = 0; a < anchors; a++) {
    double best = 0, square = 0;
    for (size_t c = 0; c < classes; c++) {
      const double t = (double)expected[1][a * classes + c], difference = (double)scores[a * classes + c] - t;
      best = t > best ? t : best;
      square += difference * difference;
    }
    sums[0] += square;
    sums[1] += best * best;
    if (best * best > 1e-4) sums[0] += best * best * (1 - overlap(boxes + 4 * a, expected[0] + 4 * a));
  }
}

static void compare_values(const bnd_distance *d, float *const *expected, const bnd_session *session, double sums[2]) {
  for (int o = 0; o < d->outputs; o++) {
    const float *values = bnd_session_output(session, o);
    double square = 0, power = 0;
    for (size_t i = 0; i < d->counts[o]; i++) {
      const double t = (double)expected[o][i], difference = (double)values[i] - t;
      square += difference * difference;
      power += t * t;
    }
    sums[0] += power > 0 ? square / power : square;
    sums[1] += 1;
  }
}

static bnd_status keep(const bnd_stream_place *place, const bnd_session *session, bnd_error *error) {
  bnd_distance *d = place->user;
  for (int o = 0; o < d->outputs; o++) {
    float *copy = bnd_calloc(d->counts[o], sizeof *copy);
    if (!copy) return bnd_fail_memory(error, "the float network's outputs");
    memcpy(copy, bnd_session_output(session, o), d->counts[o] * sizeof *copy);
    d->expected[place->index * (size_t)d->outputs + (size_t)o] = copy;
  }
  return BND_OK;
}

static bnd_status compare(const bnd_stream_place *place, const bnd_session *session, bnd_error *error) {
  (void)error;
  bnd_distance *d = place->user;
  double *sums = d->sums[place->index];
  sums[0] = sums[1] = 0;
  (d->is_detector ? compare_detections : compare_values)(d, d->expected + place->index * (size_t)d->outputs, session, sums);
  return BND_OK;
}

static bnd_status look_at_outputs(bnd_distance *d, const bnd_executor *executor, bnd_error *error) {
  d->outputs = bnd_executor_output_count(executor);
  if (d->outputs < 1) return bnd_fail(error, BND_ERROR_MODEL, "the network has no outputs to compare");
  if (!(d->counts = bnd_calloc((size_t)d->outputs, sizeof *d->counts))) return bnd_fail_memory(error, "a comparison");
  for (int o = 0; o < d->outputs; o++)
    if (!bnd_shape_count(bnd_executor_output_shape(executor, o), &d->counts[o])) return bnd_fail_memory(error, "a comparison");
  const bnd_shape *boxes = bnd_executor_output_shape(executor, 0), *scores = d->outputs == 2 ? bnd_executor_output_shape(executor, 1) : NULL;
  d->is_detector = scores && boxes->rank == 3 && scores->rank == 3 && boxes->size[2] == 4 && boxes->size[1] == scores->size[1] && d->counts[0] > 0;
  size_t cells;
  if (bnd_size_multiply(d->images.count, (size_t)d->outputs, &cells)) d->expected = bnd_calloc(cells, sizeof *d->expected);
  d->sums = bnd_calloc(d->images.count, sizeof *d->sums);
  return d->expected && d->sums ? BND_OK : bnd_fail_memory(error, "a comparison");
}

static bnd_status executor_of(const bnd_distance *d, const bnd_graph *graph, bnd_exec_mode mode, bnd_executor **executor, bnd_error *error) {
  const bnd_exec_options options = {.mode = mode, .backend = d->work->backend, .threads = 1, .output_limit = 2};
  return bnd_executor_create(graph, &options, executor, error);
}

bnd_status bnd_distance_create(const bnd_refinement *work, const bnd_image_source *images, size_t limit, bnd_distance **distance, bnd_error *error) {
  bnd_distance *d = bnd_calloc(1, sizeof *d);
  if (!d) return bnd_fail_memory(error, "a comparison");
  d->work = work;
  d->images = *images;
  if (limit && limit < d->images.count) d->images.count = limit;
  const bnd_stream stream = {.stage = "float network", .finished = keep, .user = d};
  bnd_executor *executor = NULL;
  bnd_status status = d->images.count ? executor_of(d, work->teacher, BND_EXEC_FLOAT, &executor, error)
                                      : bnd_fail(error, BND_ERROR_ARGUMENT, "a comparison with the float network needs at least one image");
  if (status == BND_OK) status = look_at_outputs(d, executor, error);
  if (status == BND_OK) status = bnd_stream_images(executor, &d->images, &stream, work->context, error);
  bnd_executor_destroy(executor);
  if (status == BND_OK) *distance = d;
  else bnd_distance_destroy(d);
  return status;
}

void bnd_distance_destroy(bnd_distance *d) {
  if (!d) return;
  for (size_t i = 0; d->expected && i < d->images.count * (size_t)d->outputs; i++) free(d->expected[i]);
  free(d->expected);
  free(d->counts);
  free(d->sums);
  free(d);
}

bnd_status bnd_distance_measure(bnd_distance *d, const bnd_graph *graph, double *value, bnd_error *error) {
  const bnd_stream stream = {.stage = "comparison", .finished = compare, .user = d};
  bnd_executor *executor = NULL;
  BND_TRY(executor_of(d, graph, BND_EXEC_FAKE_QUANTIZE, &executor, error));
  const bnd_status status = bnd_stream_images(executor, &d->images, &stream, d->work->context, error);
  bnd_executor_destroy(executor);
  if (status != BND_OK) return status;
  double sums[2] = {0, 0};
  for (size_t i = 0; i < d->images.count; i++)
    for (int k = 0; k < 2; k++) sums[k] += d->sums[i][k];
  *value = sums[1] > 0 ? sums[0] / sums[1] : sums[0];
  return BND_OK;
}
