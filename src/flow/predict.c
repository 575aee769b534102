/* `binade predict`: boxes of single images, as JSON and drawn. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "eval/postprocess.h"
#include "exec/exec.h"
#include "flow/model.h"
#include "formats/image/draw.h"
#include "formats/json/json.h"
#include "formats/image/image.h"

typedef struct predictor {
  const bnd_model *model;
  const bnd_predict_options *options;
  bnd_preprocessing preprocessing;
  bnd_postprocess_options postprocess;
  bnd_executor *executor;
  bnd_session *session;
  float *input;
  bnd_detection *detections;
  bnd_json_writer json;
} predictor;

static void write_box(predictor *p, const bnd_detection *d, const float xywh[4]) {
  char text[32];
  bnd_json_writer *w = &p->json;
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_integer(w, "class", d->label);
  bnd_json_put_string(w, "name", bnd_model_class_name(p->model, d->label, text));
  bnd_json_put_float(w, "score", d->score);
  bnd_json_put_float(w, "x", xywh[0]);
  bnd_json_put_float(w, "y", xywh[1]);
  bnd_json_put_float(w, "width", xywh[2]);
  bnd_json_put_float(w, "height", xywh[3]);
  bnd_json_end_object(w);
}

static void draw_box(const predictor *p, bnd_image *image, const bnd_detection *d, const float xywh[4]) {
  char text[32], label[128];
  const float corners[] = {xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3]};
  snprintf(label, sizeof label, "%s %.2f", bnd_model_class_name(p->model, d->label, text), (double)d->score);
  bnd_draw_box(image, corners, label, bnd_draw_palette(d->label));
}

/* OUTPUT/<name of the image>.png */
static bnd_status drawing_path(const predictor *p, const char *image, char path[4096], bnd_error *error) {
  const char *name = strrchr(image, '/') ? strrchr(image, '/') + 1 : image, *dot = strrchr(name, '.');
  const int stem = dot && dot != name ? (int)(dot - name) : (int)strlen(name);
  const int length = snprintf(path, 4096, "%s/%.*s.png", p->options->output, stem, name);
  return length >= 0 && length < 4096 ? BND_OK : bnd_fail(error, BND_ERROR_ARGUMENT, "%s: the path is too long", p->options->output);
}

/* No drawing takes the place of another one or of an image that was given. */
static bnd_status check_drawings(const predictor *p, bnd_error *error) {
  bnd_arena *arena = bnd_arena_create();
  bnd_map seen = {0};
  char path[4096];
  bnd_status status = arena ? BND_OK : bnd_fail_memory(error, "the paths");
  for (size_t i = 0; i < p->options->image_count && status == BND_OK; i++) {
    const char *image = p->options->images[i], *key;
    size_t other;
    status = drawing_path(p, image, path, error);
    if (status != BND_OK) break;
    if (bnd_same_file(image, path))
      status = bnd_fail(error, BND_ERROR_ARGUMENT, "%s: the drawing would replace the image itself; choose another output folder", path);
    else if (bnd_map_get(&seen, path, &other) && strcmp(image, p->options->images[other]) != 0)
      status = bnd_fail(error, BND_ERROR_ARGUMENT, "%s: %s and %s would both be drawn there; draw them into different folders", path, p->options->images[other],
                        image);
    else if (!(key = bnd_arena_copy(arena, path)) || !bnd_map_put(&seen, key, i))
      status = bnd_fail_memory(error, "the paths");
  }
  bnd_map_free(&seen);
  bnd_arena_destroy(arena);
  return status;
}

static bnd_status write_drawing(const predictor *p, const char *image_path, const bnd_image *image, bnd_error *error) {
  char path[4096];
  BND_TRY(drawing_path(p, image_path, path, error));
  return bnd_image_write_png(path, image, error);
}

static bnd_status predict_image(predictor *p, const char *path, bnd_error *error) {
  bnd_image image;
  bnd_geometry geometry;
  size_t count = 0;
  BND_TRY(bnd_image_read(path, &image, error));
  bnd_status status = bnd_preprocess(&p->preprocessing, &image, p->input, &geometry, error);
  if (status != BND_OK) bnd_fail_prefix(error, status, "%s", path);
  const float *const inputs[] = {p->input};
  if (status == BND_OK) status = bnd_session_run(p->session, inputs, NULL, NULL, error);
  if (status == BND_OK) {
    const bnd_shape *scores = bnd_executor_output_shape(p->executor, 1);
    status = bnd_postprocess(bnd_session_output(p->session, 0), bnd_session_output(p->session, 1), (size_t)scores->size[1], (size_t)scores->size[2],
                             &p->postprocess, p->detections, &count, error);
  }
  if (status == BND_OK) {
    bnd_json_begin_object(&p->json, BND_JSON_LINES);
    bnd_json_put_string(&p->json, "file", path);
    bnd_json_put_integer(&p->json, "width", image.width);
    bnd_json_put_integer(&p->json, "height", image.height);
    bnd_json_key(&p->json, "boxes");
    bnd_json_begin_array(&p->json, BND_JSON_LINES);
    for (size_t i = 0; i < count; i++) {
      const bnd_detection *d = &p->detections[i];
      float xywh[4];
      bnd_geometry_unmap(&geometry, (const float[]){d->x1, d->y1, d->x2, d->y2}, xywh);
      write_box(p, d, xywh);
    }
    bnd_json_end_array(&p->json);
    bnd_json_end_object(&p->json);
    /* weakest first, so that the best boxes lie on top */
    for (size_t i = count; p->options->output && i-- > 0;) {
      const bnd_detection *d = &p->detections[i];
      float xywh[4];
      bnd_geometry_unmap(&geometry, (const float[]){d->x1, d->y1, d->x2, d->y2}, xywh);
      draw_box(p, &image, d, xywh);
    }
    if (p->options->output) status = write_drawing(p, path, &image, error);
  }
  bnd_image_free(&image);
  return status;
}

static bool is_cancelled(void *context) { return bnd_is_cancelled(context); }

static bnd_status prepare(predictor *p, const bnd_context *context, bnd_error *error) {
  const bnd_predict_options *o = p->options;
  if (o->output) BND_TRY(check_drawings(p, error));
  BND_TRY(bnd_model_preprocessing(p->model, o->size, true, &p->preprocessing, error));
  p->postprocess = bnd_postprocess_for_prediction();
  if (o->confidence > 0) p->postprocess.score_threshold = (float)o->confidence;
  if (o->iou > 0) p->postprocess.iou_threshold = o->iou;
  if (o->maximum > 0) p->postprocess.max_detections = (size_t)o->maximum;
  bnd_exec_options exec = {.threads = bnd_thread_count(context), .output_limit = 2, .non_negative_inputs = true};
  bnd_graph *graph;
  BND_TRY(bnd_model_detector(p->model, BND_YOLO_NAS_FOLDED, p->preprocessing.width, p->preprocessing.height, &graph, &exec.mode, error));
  exec.backend = bnd_backend_of(o->executor, exec.mode);
  const bnd_status status = bnd_executor_create(graph, &exec, &p->executor, error);
  bnd_graph_destroy(graph);
  if (status != BND_OK) return status;
  BND_TRY(bnd_session_create(p->executor, &p->session, error));
  bnd_session_set_stop(p->session, is_cancelled, (void *)(uintptr_t)context);
  p->input = bnd_alloc_aligned(3 * (size_t)p->preprocessing.width * (size_t)p->preprocessing.height, sizeof *p->input);
  p->detections = bnd_calloc(p->postprocess.max_detections, sizeof *p->detections);
  if (!p->input || !p->detections) return bnd_fail_memory(error, "prediction");
  return o->output ? bnd_make_folder(o->output, error) : BND_OK;
}

bnd_status bnd_predict(const bnd_model *model, const bnd_predict_options *options, const bnd_context *context, char **json, bnd_error *error) {
  bnd_string text = {0};
  predictor p = {.model = model, .options = options, .json = {.out = &text}};
  bnd_status status = prepare(&p, context, error);
  bnd_json_begin_array(&p.json, BND_JSON_LINES);
  for (size_t i = 0; i < options->image_count && status == BND_OK; i++) {
    status = bnd_is_cancelled(context) ? BND_ERROR_INTERRUPTED : predict_image(&p, options->images[i], error);
    if (status == BND_ERROR_INTERRUPTED) bnd_fail(error, status, "interrupted during prediction");
    if (status == BND_OK) bnd_report_progress(context, "prediction", "images", i + 1, options->image_count);
  }
  bnd_json_end_array(&p.json);
  if (status == BND_OK && text.failed) status = bnd_fail_memory(error, "the boxes");
  bnd_session_destroy(p.session);
  bnd_executor_destroy(p.executor);
  free(p.input);
  free(p.detections);
  if (status == BND_OK) *json = text.text;
  else bnd_string_free(&text);
  return status;
}
