/* One pass over the annotation file. Only the fields below are kept; segmentations, licences, captions go by unread. */
#include "data/coco_records.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json/json.h"

typedef enum section { SECTION_NONE, SECTION_CATEGORIES, SECTION_IMAGES, SECTION_ANNOTATIONS } section;
static const char *const section_names[] = {"", "categories", "images", "annotations"};

typedef enum field {
  FIELD_NONE,
  FIELD_ID,
  FIELD_NAME,
  FIELD_WIDTH,
  FIELD_HEIGHT,
  FIELD_FILE_NAME,
  FIELD_IMAGE_ID,
  FIELD_CATEGORY_ID,
  FIELD_BBOX,
  FIELD_AREA,
  FIELD_ISCROWD,
  FIELD_COUNT
} field;

typedef enum value_kind { VALUE_INTEGER, VALUE_NUMBER, VALUE_TEXT, VALUE_FLAG, VALUE_BOX } value_kind;

static const struct {
  const char *name;
  section section; /* SECTION_NONE: all three */
  value_kind kind;
} fields[FIELD_COUNT] = {
    [FIELD_ID] = {"id", SECTION_NONE, VALUE_INTEGER},
    [FIELD_NAME] = {"name", SECTION_CATEGORIES, VALUE_TEXT},
    [FIELD_WIDTH] = {"width", SECTION_IMAGES, VALUE_INTEGER},
    [FIELD_HEIGHT] = {"height", SECTION_IMAGES, VALUE_INTEGER},
    [FIELD_FILE_NAME] = {"file_name", SECTION_IMAGES, VALUE_TEXT},
    [FIELD_IMAGE_ID] = {"image_id", SECTION_ANNOTATIONS, VALUE_INTEGER},
    [FIELD_CATEGORY_ID] = {"category_id", SECTION_ANNOTATIONS, VALUE_INTEGER},
    [FIELD_BBOX] = {"bbox", SECTION_ANNOTATIONS, VALUE_BOX},
    [FIELD_AREA] = {"area", SECTION_ANNOTATIONS, VALUE_NUMBER},
    [FIELD_ISCROWD] = {"iscrowd", SECTION_ANNOTATIONS, VALUE_FLAG},
};

/* Where events occur: the root object is open at depth 1, a section's array at 2, a record at 3, its bbox at 4. */
enum { DEPTH_ROOT = 1, DEPTH_SECTION = 2, DEPTH_RECORD = 3, DEPTH_BOX = 4 };

typedef struct reader {
  coco_records *records;
  bnd_arena *arena;
  section section;
  field field;
  /* the record being read */
  bool seen[FIELD_COUNT];
  int64_t integers[FIELD_COUNT];
  const char *texts[FIELD_COUNT];
  double area, box[4];
  bool flag;
  int box_count;
} reader;

static size_t position(const reader *r) {
  return r->section == SECTION_CATEGORIES ? r->records->category_count
         : r->section == SECTION_IMAGES   ? r->records->image_count
                                          : r->records->annotation_count;
}

static bnd_status fail_record(const reader *r, bnd_error *error, const char *name, const char *what) {
  return bnd_fail(error, BND_ERROR_FORMAT, "%s[%zu]: \"%s\" %s", section_names[r->section], position(r), name, what);
}

static bool equals(const bnd_json_event *event, const char *text) {
  return event->length == strlen(text) && memcmp(event->text, text, event->length) == 0;
}

static bnd_status enter_section(reader *r, const bnd_json_event *event, bnd_error *error) {
  bool *const seen[] = {NULL, &r->records->has_categories, &r->records->has_images, &r->records->has_annotations};
  r->section = SECTION_NONE;
  for (section s = SECTION_CATEGORIES; s <= SECTION_ANNOTATIONS; s++) {
    if (!equals(event, section_names[s])) continue;
    if (*seen[s]) return bnd_fail(error, BND_ERROR_FORMAT, "\"%s\" occurs twice", section_names[s]);
    *seen[s] = true;
    r->section = s;
  }
  return BND_OK;
}

static void enter_field(reader *r, const bnd_json_event *event) {
  r->field = FIELD_NONE;
  for (field f = FIELD_NONE + 1; f < FIELD_COUNT; f++)
    if ((fields[f].section == SECTION_NONE || fields[f].section == r->section) && equals(event, fields[f].name)) r->field = f;
}

static bnd_status take_text(reader *r, const bnd_json_event *event, bnd_error *error) {
  const char *name = fields[r->field].name;
  if (event->kind != BND_JSON_EVENT_STRING) return fail_record(r, error, name, "must be a string");
  if (memchr(event->text, '\0', event->length)) return fail_record(r, error, name, "contains the character U+0000");
  char *copy = bnd_arena_alloc(r->arena, event->length + 1, 1);
  if (!copy) return bnd_fail_memory(error, "the annotations");
  memcpy(copy, event->text, event->length);
  r->texts[r->field] = copy;
  return BND_OK;
}

static bnd_status take_integer(reader *r, const bnd_json_event *event, bnd_error *error) {
  double number;
  bool exact;
  int64_t *value = &r->integers[r->field];
  const char *wrong = "must be a whole number";
  if (event->kind != BND_JSON_EVENT_NUMBER || !bnd_json_number(event->text, event->length, &number, value, &exact))
    return fail_record(r, error, fields[r->field].name, wrong);
  if (!exact) { /* 640.0 is fine */
    if (number != rint(number) || fabs(number) >= 0x1p53) return fail_record(r, error, fields[r->field].name, wrong);
    *value = (int64_t)number;
  }
  return BND_OK;
}

static bnd_status take_scalar(reader *r, const bnd_json_event *event, bnd_error *error) {
  double number = 0;
  const bool is_number =
      event->kind == BND_JSON_EVENT_NUMBER && bnd_json_number(event->text, event->length, &number, &(int64_t){0}, &(bool){false});
  const char *name = fields[r->field].name;
  r->seen[r->field] = true;
  switch (fields[r->field].kind) {
    case VALUE_TEXT: return take_text(r, event, error);
    case VALUE_INTEGER: return take_integer(r, event, error);
    case VALUE_BOX: return fail_record(r, error, name, "must be an array of four numbers");
    case VALUE_NUMBER:
      if (!is_number) return fail_record(r, error, name, "must be a number");
      r->area = number;
      return BND_OK;
    case VALUE_FLAG:
      if (!is_number && event->kind != BND_JSON_EVENT_BOOLEAN) return fail_record(r, error, name, "must be 0 or 1");
      r->flag = is_number ? number != 0 : event->boolean;
      return BND_OK;
  }
  return BND_OK;
}

static bnd_status take_box_value(reader *r, const bnd_json_event *event, bnd_error *error) {
  double number;
  if (event->kind != BND_JSON_EVENT_NUMBER || r->box_count == 4 ||
      !bnd_json_number(event->text, event->length, &number, &(int64_t){0}, &(bool){false}))
    return fail_record(r, error, "bbox", "must be an array of four numbers");
  r->box[r->box_count++] = number;
  return BND_OK;
}

static bnd_status require(const reader *r, field wanted, bnd_error *error) {
  return r->seen[wanted] ? BND_OK : fail_record(r, error, fields[wanted].name, "is missing");
}

static bnd_status finish_category(reader *r, bnd_error *error) {
  coco_records *records = r->records;
  BND_TRY(require(r, FIELD_ID, error));
  BND_TRY(require(r, FIELD_NAME, error));
  if (!BND_GROW(records->categories, records->category_capacity, records->category_count + 1)) return bnd_fail_memory(error, "the categories");
  records->categories[records->category_count++] = (bnd_coco_category){.id = r->integers[FIELD_ID], .name = r->texts[FIELD_NAME]};
  return BND_OK;
}

/* Nothing outside the image folder may be named. */
static bool is_inside(const char *file_name) {
  if (file_name[0] == '\0' || file_name[0] == '/') return false;
  for (const char *part = file_name; part; part = strchr(part, '/')) {
    part += *part == '/';
    if (part[0] == '.' && part[1] == '.' && (part[2] == '/' || part[2] == '\0')) return false;
  }
  return true;
}

static bnd_status finish_image(reader *r, bnd_error *error) {
  enum { LARGEST_SIDE = 1 << 27 };
  coco_records *records = r->records;
  BND_TRY(require(r, FIELD_ID, error));
  for (field f = FIELD_WIDTH; f <= FIELD_HEIGHT; f++) {
    BND_TRY(require(r, f, error));
    if (r->integers[f] < 1 || r->integers[f] > LARGEST_SIDE) return fail_record(r, error, fields[f].name, "is not a size in pixels");
  }
  const char *name = r->texts[FIELD_FILE_NAME];
  if (!r->seen[FIELD_FILE_NAME] && !(name = bnd_arena_format(r->arena, "%012lld.jpg", (long long)r->integers[FIELD_ID])))
    return bnd_fail_memory(error, "the images");
  if (!is_inside(name)) return fail_record(r, error, "file_name", "must name a file inside the image folder");
  if (!BND_GROW(records->images, records->image_capacity, records->image_count + 1)) return bnd_fail_memory(error, "the images");
  records->images[records->image_count++] = (bnd_coco_image){
      .id = r->integers[FIELD_ID], .width = (int)r->integers[FIELD_WIDTH], .height = (int)r->integers[FIELD_HEIGHT], .file_name = name};
  return BND_OK;
}

static bnd_status finish_annotation(reader *r, bnd_error *error) {
  coco_records *records = r->records;
  BND_TRY(require(r, FIELD_IMAGE_ID, error));
  BND_TRY(require(r, FIELD_CATEGORY_ID, error));
  BND_TRY(require(r, FIELD_BBOX, error));
  if (r->box_count != 4) return fail_record(r, error, "bbox", "must be an array of four numbers");
  if (!BND_GROW(records->annotations, records->annotation_capacity, records->annotation_count + 1)) return bnd_fail_memory(error, "the annotations");
  const bnd_coco_annotation annotation = {
      .id = r->seen[FIELD_ID] ? r->integers[FIELD_ID] : (int64_t)records->annotation_count + 1,
      .crowd = r->seen[FIELD_ISCROWD] && r->flag,
      .bbox = {r->box[0], r->box[1], r->box[2], r->box[3]},
      .area = r->seen[FIELD_AREA] ? r->area : r->box[2] * r->box[3],
  };
  records->annotations[records->annotation_count++] =
      (coco_record){.annotation = annotation, .image_id = r->integers[FIELD_IMAGE_ID], .category_id = r->integers[FIELD_CATEGORY_ID]};
  return BND_OK;
}

static bnd_status finish_record(reader *r, bnd_error *error) {
  switch (r->section) {
    case SECTION_CATEGORIES: return finish_category(r, error);
    case SECTION_IMAGES: return finish_image(r, error);
    case SECTION_ANNOTATIONS: return finish_annotation(r, error);
    case SECTION_NONE: break;
  }
  return BND_OK;
}

static bool is_end(const bnd_json_event *event) {
  return event->kind == BND_JSON_EVENT_END_OBJECT || event->kind == BND_JSON_EVENT_END_ARRAY;
}

static bnd_status in_record(reader *r, const bnd_json_event *event, bnd_error *error) {
  if (event->kind == BND_JSON_EVENT_KEY) {
    enter_field(r, event);
    if (r->field != FIELD_NONE && r->seen[r->field]) return fail_record(r, error, fields[r->field].name, "occurs twice");
    return BND_OK;
  }
  if (r->field == FIELD_NONE) return BND_OK;
  if (event->kind == BND_JSON_EVENT_BEGIN_ARRAY && r->field == FIELD_BBOX) {
    r->seen[FIELD_BBOX] = true;
    return BND_OK;
  }
  if (is_end(event)) {
    r->field = FIELD_NONE;
    return BND_OK;
  }
  return take_scalar(r, event, error);
}

static bnd_status on_event(void *user, const bnd_json_event *event, bnd_error *error) {
  reader *r = user;
  switch (event->depth) {
    case 0:
      if (event->kind == BND_JSON_EVENT_BEGIN_OBJECT || is_end(event)) return BND_OK;
      return bnd_fail(error, BND_ERROR_FORMAT, "an annotation file in COCO's format is one object");
    case DEPTH_ROOT:
      if (event->kind == BND_JSON_EVENT_KEY) return enter_section(r, event, error);
      if (r->section == SECTION_NONE || event->kind == BND_JSON_EVENT_BEGIN_ARRAY || is_end(event)) return BND_OK;
      return bnd_fail(error, BND_ERROR_FORMAT, "\"%s\" must be an array", section_names[r->section]);
    case DEPTH_SECTION:
      if (r->section == SECTION_NONE) return BND_OK;
      if (event->kind == BND_JSON_EVENT_END_OBJECT) return finish_record(r, error);
      if (event->kind != BND_JSON_EVENT_BEGIN_OBJECT)
        return bnd_fail(error, BND_ERROR_FORMAT, "%s[%zu] must be an object", section_names[r->section], position(r));
      memset(r->seen, 0, sizeof r->seen);
      r->field = FIELD_NONE;
      r->box_count = 0;
      return BND_OK;
    case DEPTH_RECORD: return r->section == SECTION_NONE ? BND_OK : in_record(r, event, error);
    case DEPTH_BOX: return r->section != SECTION_NONE && r->field == FIELD_BBOX ? take_box_value(r, event, error) : BND_OK;
    default: return BND_OK;
  }
}

bnd_status bnd_coco_records_read(const char *path, bnd_arena *arena, coco_records *records, bnd_error *error) {
  reader r = {.records = records, .arena = arena};
  BND_TRY(bnd_json_stream_file(path, on_event, &r, error));
  const bool found[] = {true, records->has_categories, records->has_images, records->has_annotations};
  for (section s = SECTION_CATEGORIES; s <= SECTION_ANNOTATIONS; s++)
    if (!found[s])
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: has no \"%s\", so it is no annotation file in COCO's format", path, section_names[s]);
  return BND_OK;
}

void bnd_coco_records_free(coco_records *records) {
  free(records->categories);
  free(records->images);
  free(records->annotations);
  *records = (coco_records){0};
}
