/* `binade dataset shapes`: drawn pictures as a split in COCO's layout. */
#include <dirent.h>
#include <errno.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "binade/binade.h"
#include "data/shapes.h"
#include "formats/json/json.h"

enum {
  PATH_SIZE = 4096,
  RECIPE_VERSION = 1 /* counts up when the same options draw other pictures */
};
static const uint64_t MOST_IMAGES = 1000000, LARGEST_ANNOTATIONS = (uint64_t)1 << 31;

typedef struct picture_record {
  int width, height, object_count;
  bnd_shapes_object *objects; /* owned */
} picture_record;

typedef struct run {
  bnd_dataset_shapes_options options; /* nothing left at 0 */
  bnd_shapes_recipe recipe;
  char annotations[PATH_SIZE];     /* the file */
  char images[PATH_SIZE];          /* the folder */
  char drawing_folder[PATH_SIZE];  /* where pictures are put until all are there; `images` itself when the same run was finished before */
  bool finished_before;
  picture_record *records;         /* [options.images] */
  const bnd_context *context;
  atomic_uint_fast64_t next, done;
  atomic_int failed;
  bnd_status status; /* written and read under omp critical */
  bnd_error failure;
} run;

/* --- what is asked for --- */

static bnd_status check_options(const bnd_dataset_shapes_options *o, bnd_error *error) {
  if (!o->output || !*o->output) return bnd_fail(error, BND_ERROR_ARGUMENT, "a folder for the data set is missing");
  if (!*o->split || *o->split == '.' || strchr(o->split, '/') || strlen(o->split) > 100)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "'%.120s' cannot name a part of a data set: it becomes part of file names", o->split);
  if (o->images > MOST_IMAGES)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%llu images are more than the %llu that are possible", (unsigned long long)o->images,
                    (unsigned long long)MOST_IMAGES);
  if (o->least_side < BND_SHAPES_LEAST_SIDE || o->most_side > BND_SHAPES_MOST_SIDE || o->least_side > o->most_side)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "sides of %d to %d pixels are not possible: %d to %d are, the smaller one first", o->least_side,
                    o->most_side, BND_SHAPES_LEAST_SIDE, BND_SHAPES_MOST_SIDE);
  if (o->quality < 1 || o->quality > 100) return bnd_fail(error, BND_ERROR_ARGUMENT, "a JPEG quality of %d is outside 1 to 100", o->quality);
  return BND_OK;
}

/* FNV-1a. Splits of one seed get pictures of their own, so that nobody validates on what was trained on. */
static uint32_t hash(const char *text) {
  uint32_t value = 2166136261u;
  for (; *text; text++) value = (value ^ (uint8_t)*text) * 16777619u;
  return value;
}

static bnd_status make_path(char path[PATH_SIZE], const bnd_dataset_shapes_options *o, const char *between, const char *after, bnd_error *error) {
  const int length = snprintf(path, PATH_SIZE, "%s/%s%s%s", o->output, between, o->split, after);
  return length >= 0 && length < PATH_SIZE - 32 ? BND_OK : bnd_fail(error, BND_ERROR_ARGUMENT, "%.200s...: the path is too long", o->output);
}

static bnd_status prepare(run *r, const bnd_dataset_shapes_options *given, const bnd_context *context, bnd_error *error) {
  bnd_dataset_shapes_options *o = &r->options;
  *o = *given;
  if (!o->split) o->split = "train2017";
  if (!o->images) o->images = 1000;
  if (!o->least_side) o->least_side = 400;
  if (!o->most_side) o->most_side = 640;
  if (!o->quality) o->quality = 88;
  BND_TRY(check_options(o, error));
  r->context = context;
  const uint64_t seed = context ? context->seed : 0;
  r->recipe = (bnd_shapes_recipe){.seed = seed, .stream = hash(o->split), .least_side = o->least_side, .most_side = o->most_side};
  BND_TRY(make_path(r->annotations, o, "annotations/instances_", ".json", error));
  BND_TRY(make_path(r->images, o, "images/", "", error));
  BND_TRY(make_path(r->drawing_folder, o, "images/", ".partial", error));
  r->records = bnd_calloc((size_t)o->images, sizeof *r->records);
  return r->records ? BND_OK : bnd_fail_memory(error, "the annotations");
}

/* --- the annotation file --- */

/* Everything that tells this run from another one, and the categories. */
static void write_head(const run *r, bnd_json_writer *w) {
  bnd_json_begin_object(w, BND_JSON_LINES);
  bnd_json_key(w, "info");
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_string(w, "description", "drawn shapes on clutter, made by binade dataset shapes");
  bnd_json_put_integer(w, "recipe", RECIPE_VERSION);
  bnd_json_put_integer(w, "seed", (int64_t)r->recipe.seed);
  bnd_json_put_string(w, "split", r->options.split);
  bnd_json_put_integer(w, "images", (int64_t)r->options.images);
  bnd_json_put_integer(w, "least_side", r->options.least_side);
  bnd_json_put_integer(w, "most_side", r->options.most_side);
  bnd_json_put_integer(w, "quality", r->options.quality);
  bnd_json_end_object(w);
  bnd_json_key(w, "categories");
  bnd_json_begin_array(w, BND_JSON_LINES);
  for (int i = 0; i < BND_SHAPES_CLASSES; i++) {
    bnd_json_begin_object(w, BND_JSON_ONE_LINE);
    bnd_json_put_integer(w, "id", i + 1);
    bnd_json_put_string(w, "name", bnd_shapes_class_name(i));
    bnd_json_end_object(w);
  }
  bnd_json_end_array(w);
}

static void write_image(bnd_json_writer *w, uint64_t id, const picture_record *record) {
  char name[32];
  snprintf(name, sizeof name, "%012llu.jpg", (unsigned long long)id);
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_integer(w, "id", (int64_t)id);
  bnd_json_put_string(w, "file_name", name);
  bnd_json_put_integer(w, "height", record->height);
  bnd_json_put_integer(w, "width", record->width);
  bnd_json_end_object(w);
}

static void write_annotation(bnd_json_writer *w, uint64_t id, uint64_t image, const bnd_shapes_object *object) {
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_integer(w, "id", (int64_t)id);
  bnd_json_put_integer(w, "image_id", (int64_t)image);
  bnd_json_put_integer(w, "category_id", object->label + 1);
  bnd_json_key(w, "bbox");
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int i = 0; i < 4; i++) bnd_json_integer(w, (const int[]){object->left, object->top, object->width, object->height}[i]);
  bnd_json_end_array(w);
  bnd_json_put_integer(w, "area", object->area);
  bnd_json_put_integer(w, "iscrowd", 0);
  bnd_json_end_object(w);
}

static bnd_status write_annotations(const run *r, bnd_error *error) {
  bnd_string text = {0};
  bnd_json_writer w = {.out = &text};
  write_head(r, &w);
  bnd_json_key(&w, "images");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (uint64_t i = 0; i < r->options.images; i++) write_image(&w, i + 1, &r->records[i]);
  bnd_json_end_array(&w);
  bnd_json_key(&w, "annotations");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  uint64_t id = 0;
  for (uint64_t i = 0; i < r->options.images; i++)
    for (int k = 0; k < r->records[i].object_count; k++) write_annotation(&w, ++id, i + 1, &r->records[i].objects[k]);
  bnd_json_end_array(&w);
  bnd_json_end_object(&w);
  bnd_string_append(&text, "\n", 1);
  const bnd_status status = text.failed ? bnd_fail_memory(error, r->annotations) : bnd_file_write(r->annotations, text.text, text.length, error);
  bnd_string_free(&text);
  return status;
}

/* --- what is there already --- */

static bool has_entries(const char *folder) {
  DIR *entries = opendir(folder);
  if (!entries) return access(folder, F_OK) == 0; /* something else: no place for a folder either */
  int count = 0;
  while (count < 3 && readdir(entries)) count++; /* "." and ".." are always there */
  closedir(entries);
  return count > 2;
}

static bnd_status same_run(const run *r, bool *same, bnd_error *error) {
  char *there;
  size_t size;
  BND_TRY(bnd_file_read(r->annotations, LARGEST_ANNOTATIONS, &there, &size, error));
  bnd_string head = {0};
  write_head(r, &(bnd_json_writer){.out = &head});
  *same = !head.failed && size > head.length && memcmp(there, head.text, head.length) == 0;
  const bnd_status status = head.failed ? bnd_fail_memory(error, r->annotations) : BND_OK;
  bnd_string_free(&head);
  free(there);
  return status;
}

/* Nothing but what the same run wrote is ever replaced. */
static bnd_status look_around(run *r, bnd_error *error) {
  if (access(r->annotations, F_OK) == 0) {
    BND_TRY(same_run(r, &r->finished_before, error));
    if (!r->finished_before)
      return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: holds another data set (or this one with other options); choose another folder or --split",
                      r->annotations);
    memcpy(r->drawing_folder, r->images, sizeof r->images);
  } else if (has_entries(r->images)) {
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: is there already, without annotations of this run; choose another folder or --split", r->images);
  }
  return BND_OK;
}

/* --- drawing --- */

static void image_path(const run *r, uint64_t index, char path[PATH_SIZE]) {
  snprintf(path, PATH_SIZE, "%.*s/%012llu.jpg", PATH_SIZE - 20, r->drawing_folder, (unsigned long long)index + 1);
}

static bnd_status draw_one(run *r, uint64_t index, bnd_error *error) {
  picture_record *record = &r->records[index];
  bnd_shapes_picture picture;
  char path[PATH_SIZE];
  BND_TRY(bnd_shapes_draw(&r->recipe, (uint32_t)index, &picture, error));
  image_path(r, index, path);
  bnd_status status = bnd_image_write_jpeg(path, &picture.image, r->options.quality, error);
  const size_t count = (size_t)picture.object_count;
  if (status == BND_OK && !(record->objects = bnd_calloc(count, sizeof *record->objects))) status = bnd_fail_memory(error, "the annotations");
  if (status == BND_OK) {
    memcpy(record->objects, picture.objects, count * sizeof *record->objects);
    record->width = picture.image.width;
    record->height = picture.image.height;
    record->object_count = picture.object_count;
  }
  bnd_image_free(&picture.image);
  return status;
}

static void fail(run *r, bnd_status status, const bnd_error *error) {
#pragma omp critical(bnd_shapes_failure)
  if (r->status == BND_OK) {
    r->status = status;
    r->failure = *error;
  }
  atomic_store(&r->failed, 1);
}

static void work(run *r, int worker) {
  bnd_error error = {0};
  for (uint64_t index; !atomic_load(&r->failed) && (index = atomic_fetch_add(&r->next, 1)) < r->options.images;) {
    const bnd_status status = draw_one(r, index, &error);
    if (status != BND_OK) fail(r, status, &error);
    else atomic_fetch_add(&r->done, 1);
    if (worker != 0) continue; /* callbacks only from the caller's thread */
    bnd_report_progress(r->context, "drawing", "images", atomic_load(&r->done), r->options.images);
    if (bnd_is_cancelled(r->context)) fail(r, bnd_fail(&error, BND_ERROR_INTERRUPTED, "interrupted while drawing"), &error);
  }
}

static bnd_status draw_all(run *r, bnd_error *error) {
  const int threads = bnd_thread_count(r->context);
  bnd_report_progress(r->context, "drawing", "images", 0, r->options.images);
#pragma omp parallel num_threads(threads)
  work(r, omp_get_thread_num());
  if (r->status == BND_OK) bnd_report_progress(r->context, "drawing", "images", r->options.images, r->options.images);
  else if (error) *error = r->failure;
  return r->status;
}

/* After a failure the pictures of a run that was never finished go again. */
static void remove_pictures(const run *r) {
  char path[PATH_SIZE];
  if (r->finished_before) return;
  for (uint64_t i = 0; i < r->options.images && i < atomic_load(&r->next); i++) {
    image_path(r, i, path);
    remove(path);
  }
  rmdir(r->drawing_folder);
}

static bnd_status place_pictures(const run *r, bnd_error *error) {
  if (r->finished_before || rename(r->drawing_folder, r->images) == 0) return BND_OK;
  return bnd_fail(error, BND_ERROR_IO, "%s: cannot be renamed to %s: %s", r->drawing_folder, r->images, strerror(errno));
}

static bnd_status make(run *r, bnd_error *error) {
  char folder[PATH_SIZE];
  snprintf(folder, sizeof folder, "%s/annotations", r->options.output);
  BND_TRY(look_around(r, error));
  BND_TRY(bnd_make_folder(folder, error));
  BND_TRY(bnd_make_folder(r->drawing_folder, error));
  bnd_status status = draw_all(r, error);
  if (status == BND_OK) status = place_pictures(r, error);
  if (status == BND_OK) return write_annotations(r, error);
  remove_pictures(r);
  return status;
}

static void sum_up(const run *r, bnd_dataset_shapes_result *result) {
  *result = (bnd_dataset_shapes_result){.images = r->options.images};
  for (int i = 0; i < BND_SHAPES_CLASSES; i++) result->classes[i].name = bnd_shapes_class_name(i);
  for (uint64_t i = 0; i < r->options.images; i++) {
    result->objects += (uint64_t)r->records[i].object_count;
    for (int k = 0; k < r->records[i].object_count; k++) result->classes[r->records[i].objects[k].label].objects++;
  }
}

bnd_status bnd_dataset_shapes(const bnd_dataset_shapes_options *options, const bnd_context *context, bnd_dataset_shapes_result *result,
                              bnd_error *error) {
  _Static_assert((int)BND_DATASET_SHAPES_CLASSES == (int)BND_SHAPES_CLASSES, "the public number of classes");
  run r = {0};
  bnd_status status = prepare(&r, options, context, error);
  if (status == BND_OK) status = make(&r, error);
  if (status == BND_OK && result) sum_up(&r, result);
  for (uint64_t i = 0; r.records && i < r.options.images; i++) free(r.records[i].objects);
  free(r.records);
  return status;
}
