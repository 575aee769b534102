#include "data/coco.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/clip.h"
#include "data/coco_records.h"

/* An id and where it stands, sorted by id to find it again. */
typedef struct id_entry {
  int64_t id;
  size_t index;
} id_entry;

typedef struct id_index {
  id_entry *entries;
  size_t count;
} id_index;

static int by_id(const void *a, const void *b) {
  const int64_t x = ((const id_entry *)a)->id, y = ((const id_entry *)b)->id;
  return (x > y) - (x < y);
}

/* Sorts the entries; an id that occurs twice is an error about `what`[the later index]. */
static bnd_status index_ids(id_index *index, const char *file, const char *what, bnd_error *error) {
  qsort(index->entries, index->count, sizeof *index->entries, by_id);
  for (size_t i = 1; i < index->count; i++) {
    const id_entry *a = &index->entries[i - 1], *b = &index->entries[i];
    if (a->id != b->id) continue;
    const size_t first = a->index < b->index ? a->index : b->index, second = a->index + b->index - first;
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: %s[%zu] and %s[%zu] have the same id %lld; ids must be unique", file, what, first, what, second,
                    (long long)a->id);
  }
  return BND_OK;
}

static bool find_id(const id_index *index, int64_t id, size_t *found) {
  const id_entry *entry = bsearch(&(id_entry){.id = id}, index->entries, index->count, sizeof *index->entries, by_id);
  if (entry) *found = entry->index;
  return entry != NULL;
}

static int category_by_id(const void *a, const void *b) {
  const int64_t x = ((const bnd_coco_category *)a)->id, y = ((const bnd_coco_category *)b)->id;
  return (x > y) - (x < y);
}

/* Arrays of the finished data set come from its arena. */
static void *copy_array(bnd_arena *arena, const void *from, size_t count, size_t size) {
  void *copy = bnd_arena_alloc(arena, count ? count : 1, size);
  if (copy && count) memcpy(copy, from, count * size);
  return copy;
}

/* Builds an index over `count` ids that are `stride` bytes apart. */
static bnd_status make_index(const void *first_id, size_t count, size_t stride, const char *file, const char *what, id_index *index,
                             bnd_error *error) {
  index->count = count;
  index->entries = bnd_calloc(count, sizeof *index->entries);
  if (!index->entries) return bnd_fail_memory(error, file);
  for (size_t i = 0; i < count; i++) {
    index->entries[i].index = i;
    memcpy(&index->entries[i].id, (const char *)first_id + i * stride, sizeof(int64_t));
  }
  return index_ids(index, file, what, error);
}

static bnd_status check_annotation_ids(const coco_records *records, const char *file, bnd_error *error) {
  if (!records->annotation_count) return BND_OK;
  id_index index = {0};
  const bnd_status status = make_index(&records->annotations[0].annotation.id, records->annotation_count, sizeof records->annotations[0], file,
                                       "annotations", &index, error);
  free(index.entries);
  return status;
}

/* Finds image and label of every annotation and counts the annotations of every image. */
static bnd_status resolve(bnd_coco *coco, coco_records *records, const id_index *images, const id_index *categories, bnd_error *error) {
  for (size_t i = 0; i < records->annotation_count; i++) {
    coco_record *record = &records->annotations[i];
    size_t image, label;
    if (!find_id(images, record->image_id, &image))
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: annotations[%zu] (id %lld): image_id %lld is not among the images; add the image or take the annotation out", coco->file, i,
                      (long long)record->annotation.id, (long long)record->image_id);
    if (!find_id(categories, record->category_id, &label))
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: annotations[%zu] (id %lld): category_id %lld is not among the categories; add the category or take the annotation out", coco->file, i,
                      (long long)record->annotation.id, (long long)record->category_id);
    record->annotation.image = (int32_t)image;
    record->annotation.label = (int32_t)label;
    coco->images[image].count++;
  }
  return BND_OK;
}

/* Groups the annotations by image, keeping their order inside each. */
static bnd_status group(bnd_coco *coco, const coco_records *records, bnd_error *error) {
  size_t *next = bnd_calloc(coco->image_count, sizeof *next);
  coco->annotations = bnd_arena_alloc(coco->arena, records->annotation_count ? records->annotation_count : 1, sizeof *coco->annotations);
  coco->annotated = bnd_arena_alloc(coco->arena, coco->image_count ? coco->image_count : 1, sizeof *coco->annotated);
  if (!next || !coco->annotations || !coco->annotated) {
    free(next);
    return bnd_fail_memory(error, coco->file);
  }
  for (size_t i = 0, at = 0; i < coco->image_count; at += coco->images[i++].count) coco->images[i].first = next[i] = at;
  for (size_t i = 0; i < records->annotation_count; i++) {
    const bnd_coco_annotation *annotation = &records->annotations[i].annotation;
    coco->annotations[next[annotation->image]++] = *annotation;
  }
  coco->annotation_count = records->annotation_count;
  free(next);
  return BND_OK;
}

static void list_annotated(bnd_coco *coco) {
  for (size_t i = 0; i < coco->image_count; i++) {
    const bnd_coco_image *image = &coco->images[i];
    bool any = false;
    for (size_t k = 0; k < image->count && !any; k++) any = bnd_coco_clipped_box(image, &coco->annotations[image->first + k], (float[4]){0});
    if (any) coco->annotated[coco->annotated_count++] = i;
  }
}

static bnd_status build(bnd_coco *coco, coco_records *records, bnd_error *error) {
  id_index images = {0}, categories = {0};
  bnd_status status = BND_OK;
  if (!records->image_count || !records->category_count)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: lists no %s", coco->file, records->image_count ? "categories" : "images");
  if (records->image_count > INT32_MAX || records->category_count > INT32_MAX)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: more than 2^31 images or categories", coco->file);
  qsort(records->categories, records->category_count, sizeof *records->categories, category_by_id);
  coco->image_count = records->image_count;
  coco->category_count = records->category_count;
  coco->images = copy_array(coco->arena, records->images, records->image_count, sizeof *records->images);
  coco->categories = copy_array(coco->arena, records->categories, records->category_count, sizeof *records->categories);
  if (!coco->images || !coco->categories) return bnd_fail_memory(error, coco->file);
  BND_TRY_GOTO(make_index(&coco->images[0].id, coco->image_count, sizeof coco->images[0], coco->file, "images", &images, error), done);
  BND_TRY_GOTO(make_index(&coco->categories[0].id, coco->category_count, sizeof coco->categories[0], coco->file, "categories", &categories, error),
               done);
  BND_TRY_GOTO(check_annotation_ids(records, coco->file, error), done);
  BND_TRY_GOTO(resolve(coco, records, &images, &categories, error), done);
  BND_TRY_GOTO(group(coco, records, error), done);
  list_annotated(coco);
done:
  free(images.entries);
  free(categories.entries);
  return status;
}

bnd_status bnd_coco_open_files(const char *annotation_file, const char *images_folder, bnd_coco *coco, bnd_error *error) {
  coco_records records = {0};
  bnd_status status = BND_OK;
  *coco = (bnd_coco){.arena = bnd_arena_create()};
  if (!coco->arena || !(coco->file = bnd_arena_copy(coco->arena, annotation_file)) ||
      !(coco->images_folder = bnd_arena_copy(coco->arena, images_folder))) {
    status = bnd_fail_memory(error, annotation_file);
    goto done;
  }
  BND_TRY_GOTO(bnd_coco_records_read(annotation_file, coco->arena, &records, error), done);
  status = build(coco, &records, error);
done:
  bnd_coco_records_free(&records);
  if (status != BND_OK) bnd_coco_close(coco);
  return status;
}

bnd_status bnd_coco_open(const char *folder, const char *split, bnd_coco *coco, bnd_error *error) {
  bnd_string file = {0}, images = {0};
  bnd_string_format(&file, "%s/annotations/instances_%s.json", folder, split);
  bnd_string_format(&images, "%s/images/%s", folder, split);
  bnd_status status;
  if (file.failed || images.failed) {
    *coco = (bnd_coco){0};
    status = bnd_fail_memory(error, folder);
  } else {
    status = bnd_coco_open_files(file.text, images.text, coco, error);
  }
  if (status == BND_ERROR_IO && error) {
    const size_t length = strlen(error->message);
    snprintf(error->message + length, sizeof error->message - length,
             "; a data folder holds annotations/instances_<split>.json and images/<split>/ as COCO does");
  }
  bnd_string_free(&file);
  bnd_string_free(&images);
  return status;
}

void bnd_coco_close(bnd_coco *coco) {
  bnd_arena_destroy(coco->arena);
  *coco = (bnd_coco){0};
}

bnd_status bnd_coco_image_path(const bnd_coco *coco, size_t image, char *path, size_t size, bnd_error *error) {
  const int length = snprintf(path, size, "%s/%s", coco->images_folder, coco->images[image].file_name);
  if (length >= 0 && (size_t)length < size) return BND_OK;
  return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: the path of image %lld is too long", coco->file, (long long)coco->images[image].id);
}

/* NaN stays NaN. */
bool bnd_coco_clipped_box(const bnd_coco_image *image, const bnd_coco_annotation *annotation, float box[4]) {
  const float x = (float)annotation->bbox[0], y = (float)annotation->bbox[1], w = (float)annotation->bbox[2], h = (float)annotation->bbox[3];
  box[0] = bnd_clip(x, (float)image->width);
  box[1] = bnd_clip(y, (float)image->height);
  box[2] = bnd_clip(x + w, (float)image->width);
  box[3] = bnd_clip(y + h, (float)image->height);
  return box[2] >= box[0] && box[3] >= box[1];
}
