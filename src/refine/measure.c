/* The measure that decides whether a step helped: how far a quantized detector's answers are from the float one's, without labels.

   Boxes and scores [A, 4] and [A, N] are compared anchor by anchor, so nothing depends on a threshold of suppression:

     distance = ( sum over anchors m (1 - IoU(b', b))  +  SCORES * sum over anchors and classes |s' - s| ) / sum over anchors m

   where s, b are the float network's scores and boxes, s', b' the quantized one's, m the anchor's largest score s, and only anchors take part where s or s'
   reaches FAINT: those below cannot become detections. 0 = equal, about 1 = nothing is left. Precision falls when detections miss a threshold of overlap
   (first sum) and when they are ordered differently (second sum); SCORES is small because scores that differ by a tenth hardly change the order while
   boxes that do lose the upper thresholds: docs/best.md, with the loss of AP that was found. Networks with other outputs are compared by the relative
   squared error of all of them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "refine/refine.h"

static const float FAINT = 0.05f;
static const double SCORES = 0.1;

/* Up to this size the images are kept, too: where many networks are measured on a few, decoding these again and again takes longer than running them. */
static const size_t KEPT_BYTES = (size_t)64 << 20;

struct bnd_reference {
  size_t images, values; /* values: of all compared outputs of one image */
  float *outputs;        /* [images][values] */
  size_t input_size;
  float *inputs;         /* [images][input_size]; NULL = not kept */
};

/* Which outputs are compared: the first two when they are boxes and scores, else all. */
typedef struct layout {
  bool detector;
  int outputs;
  size_t values, anchors, classes;
} layout;

static layout layout_of(const bnd_executor *executor) {
  layout l = {.outputs = bnd_executor_output_count(executor)};
  for (int i = 0; i < l.outputs; i++) {
    size_t count = 0;
    bnd_shape_count(bnd_executor_output_shape(executor, i), &count);
    l.values += count;
  }
  if (l.outputs != 2) return l;
  const bnd_shape *boxes = bnd_executor_output_shape(executor, 0), *scores = bnd_executor_output_shape(executor, 1);
  l.detector = boxes->rank == 3 && scores->rank == 3 && boxes->size[2] == 4 && boxes->size[1] == scores->size[1];
  if (l.detector) l.anchors = (size_t)scores->size[1], l.classes = (size_t)scores->size[2];
  return l;
}

static bnd_status open_executor(const bnd_graph *graph, bnd_exec_mode mode, bnd_exec_backend backend, bnd_executor **executor, bnd_error *error) {
  const bool integers = mode == BND_EXEC_FAKE_QUANTIZE && backend == BND_BACKEND_ONEDNN; /* the same bits, sooner */
  const bnd_exec_options options = {.mode = mode, .backend = integers ? BND_BACKEND_INT8 : backend, .threads = 1, .output_limit = 2};
  return bnd_executor_create(graph, &options, executor, error);
}

/* --- the reference --- */

static void gather(const bnd_session *session, const bnd_executor *executor, int outputs, float *to) {
  for (int i = 0; i < outputs; i++) {
    size_t count = 0;
    bnd_shape_count(bnd_executor_output_shape(executor, i), &count);
    memcpy(to, bnd_session_output(session, i), count * sizeof *to);
    to += count;
  }
}

typedef struct keeping {
  bnd_executor *executor;
  const bnd_image_source *images;
  bnd_reference *reference;
  int outputs;
} keeping;

static bnd_status load_and_keep(void *user, size_t index, float *input, bnd_error *error) {
  const keeping *k = user;
  const bnd_reference *r = k->reference;
  BND_TRY(k->images->load(k->images->user, index, input, error));
  if (r->inputs) memcpy(r->inputs + index * r->input_size, input, r->input_size * sizeof *input);
  return BND_OK;
}

static bnd_status load_kept(void *user, size_t index, float *input, bnd_error *error) {
  (void)error;
  const bnd_reference *r = user;
  memcpy(input, r->inputs + index * r->input_size, r->input_size * sizeof *input);
  return BND_OK;
}

/* Not having it is no failure. */
static float *room_for_inputs(const bnd_image_source *images) {
  size_t count;
  if (!bnd_size_multiply(images->count, images->input_size, &count) || count > KEPT_BYTES / sizeof(float)) return NULL;
  return bnd_alloc_aligned(count, sizeof(float));
}

static bnd_status keep(const bnd_stream_place *place, const bnd_session *session, bnd_error *error) {
  (void)error;
  const keeping *k = place->user;
  gather(session, k->executor, k->outputs, k->reference->outputs + place->index * k->reference->values);
  return BND_OK;
}

bnd_status bnd_reference_create(const bnd_graph *float_network, const bnd_image_source *images, bnd_exec_backend backend, const bnd_context *context,
                                bnd_reference **reference, bnd_error *error) {
  bnd_executor *executor;
  BND_TRY(open_executor(float_network, BND_EXEC_FLOAT, backend, &executor, error));
  const layout l = layout_of(executor);
  bnd_reference *made = bnd_calloc(1, sizeof *made);
  size_t cells;
  bnd_status status = BND_OK;
  if (!made || !bnd_size_multiply(images->count, l.values, &cells) || !(made->outputs = bnd_calloc(cells, sizeof *made->outputs)))
    status = bnd_fail_memory(error, "the float network's answers");
  if (status == BND_OK) {
    made->images = images->count;
    made->values = l.values;
    made->input_size = images->input_size;
    made->inputs = room_for_inputs(images);
    keeping k = {executor, images, made, l.outputs};
    const bnd_image_source source = {.user = &k, .count = images->count, .input_size = images->input_size, .load = load_and_keep};
    const bnd_stream stream = {.stage = "float answers", .finished = keep, .user = &k};
    status = bnd_stream_images(executor, &source, &stream, context, error);
  }
  bnd_executor_destroy(executor);
  if (status == BND_OK) *reference = made;
  else bnd_reference_destroy(made);
  return status;
}

void bnd_reference_destroy(bnd_reference *reference) {
  if (!reference) return;
  free(reference->outputs);
  free(reference->inputs);
  free(reference);
}

/* --- comparing --- */

typedef struct tally {
  double error, mass;
} tally;

static double overlap(const float *a, const float *b) {
  const float left = fmaxf(a[0], b[0]), top = fmaxf(a[1], b[1]), right = fminf(a[2], b[2]), bottom = fminf(a[3], b[3]);
  const double both = (double)fmaxf(right - left, 0) * (double)fmaxf(bottom - top, 0);
  const double all = (double)(a[2] - a[0]) * (double)(a[3] - a[1]) + (double)(b[2] - b[0]) * (double)(b[3] - b[1]) - both;
  return all > 0 ? both / all : 0;
}

static tally compare_detections(const layout *l, const float *truth, const float *boxes, const float *scores) {
  const float *true_boxes = truth, *true_scores = truth + l->anchors * 4;
  tally t = {0};
  for (size_t a = 0; a < l->anchors; a++) {
    const float *s = true_scores + a * l->classes, *q = scores + a * l->classes;
    float most = 0, any = 0;
    double difference = 0;
    for (size_t c = 0; c < l->classes; c++) {
      const float larger = s[c] > q[c] ? s[c] : q[c];
      most = s[c] > most ? s[c] : most;
      any = larger > any ? larger : any;
      if (larger >= FAINT) difference += fabs((double)s[c] - (double)q[c]);
    }
    if (any < FAINT) continue;
    t.error += SCORES * difference + (double)most * (1 - overlap(true_boxes + a * 4, boxes + a * 4));
    t.mass += (double)most;
  }
  return t;
}

static tally compare_values(const float *truth, const float *values, size_t count) {
  tally t = {0};
  for (size_t i = 0; i < count; i++) {
    const double difference = (double)values[i] - (double)truth[i];
    t.error += difference * difference;
    t.mass += (double)truth[i] * (double)truth[i];
  }
  return t;
}

typedef struct comparison {
  bnd_executor *executor;
  const bnd_reference *reference;
  layout layout;
  tally *images;
} comparison;

static bnd_status compare(const bnd_stream_place *place, const bnd_session *session, bnd_error *error) {
  (void)error;
  const comparison *c = place->user;
  const float *truth = c->reference->outputs + place->index * c->reference->values;
  tally *t = &c->images[place->index];
  if (c->layout.detector) {
    *t = compare_detections(&c->layout, truth, bnd_session_output(session, 0), bnd_session_output(session, 1));
    return BND_OK;
  }
  for (int i = 0; i < c->layout.outputs; i++) {
    size_t count = 0;
    bnd_shape_count(bnd_executor_output_shape(c->executor, i), &count);
    const tally part = compare_values(truth, bnd_session_output(session, i), count);
    t->error += part.error, t->mass += part.mass;
    truth += count;
  }
  return BND_OK;
}

static bnd_status measure_against(const bnd_refinement *work, const bnd_reference *reference, const bnd_graph *graph, const bnd_image_source *images,
                                  double *distance, bnd_error *error) {
  comparison c = {.reference = reference};
  BND_TRY(open_executor(graph, BND_EXEC_FAKE_QUANTIZE, work->backend, &c.executor, error));
  c.layout = layout_of(c.executor);
  const bnd_stream stream = {.stage = "measuring", .finished = compare, .user = &c};
  const bnd_image_source kept = {.user = (void *)reference, .count = images->count, .input_size = reference->input_size, .load = load_kept};
  const bnd_context quiet = bnd_context_without_progress(work->context); /* many are measured, each soon */
  bnd_status status = BND_OK;
  if (c.layout.values != reference->values || images->count > reference->images)
    status = bnd_fail(error, BND_ERROR_INTERNAL, "a network is measured against another one's answers");
  else if (!(c.images = bnd_calloc(images->count, sizeof *c.images)))
    status = bnd_fail_memory(error, "a measurement");
  if (status == BND_OK) status = bnd_stream_images(c.executor, reference->inputs ? &kept : images, &stream, &quiet, error);
  tally all = {0};
  for (size_t i = 0; status == BND_OK && i < images->count; i++) all.error += c.images[i].error, all.mass += c.images[i].mass;
  if (status == BND_OK) *distance = all.mass > 0 ? all.error / all.mass : all.error > 0 ? INFINITY : 0;
  if (status == BND_OK && c.layout.detector == false) *distance = sqrt(*distance);
  bnd_executor_destroy(c.executor);
  free(c.images);
  return status;
}

bnd_status bnd_refine_measure(const bnd_refinement *work, const bnd_graph *graph, const bnd_image_source *images, double *distance, bnd_error *error) {
  if (images == work->held_out && work->reference) return measure_against(work, work->reference, graph, images, distance, error);
  bnd_reference *reference;
  BND_TRY(bnd_reference_create(work->teacher, images, work->backend, work->context, &reference, error));
  const bnd_status status = measure_against(work, reference, graph, images, distance, error);
  bnd_reference_destroy(reference);
  return status;
}
