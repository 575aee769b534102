#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/near.h"
#include "formats/json/json.h"
#include "formats/json/json_position.h"

typedef struct tree_builder {
  bnd_arena *arena;
  struct bnd_json_position *position;
  bnd_json *open[BND_JSON_MAX_DEPTH], *last[BND_JSON_MAX_DEPTH]; /* the containers around, and the newest child of each */
  int depth;
  const char *key;
  bnd_json *root;
} tree_builder;

static bnd_status copy_text(tree_builder *builder, const bnd_json_event *event, const char **copy, bnd_error *error) {
  if (memchr(event->text, '\0', event->length)) return bnd_fail(error, BND_ERROR_FORMAT, "a text contains the character U+0000");
  char *text = bnd_arena_alloc(builder->arena, event->length + 1, 1);
  if (!text) return bnd_fail_memory(error, "a JSON text");
  memcpy(text, event->text, event->length);
  *copy = text;
  return BND_OK;
}

static bnd_status add(tree_builder *builder, bnd_json_type type, bnd_json **added, bnd_error *error) {
  bnd_json *value = bnd_arena_alloc(builder->arena, 1, sizeof *value);
  if (!value) return bnd_fail_memory(error, "a JSON value");
  *value = (bnd_json){.type = type, .text = "", .key = builder->key, .line = bnd_json_position_line(builder->position)};
  builder->key = NULL;
  if (builder->depth == 0) {
    builder->root = value;
  } else {
    bnd_json **last = &builder->last[builder->depth - 1], *parent = builder->open[builder->depth - 1];
    if (*last)
      (*last)->next = value;
    else
      parent->first = value;
    *last = value;
    parent->count++;
  }
  *added = value;
  return BND_OK;
}

static bnd_status check_keys(const bnd_json *object, bnd_error *error) {
  bnd_map seen = {0};
  bnd_status status = BND_OK;
  for (const bnd_json *member = object->first; member && status == BND_OK; member = member->next) {
    if (bnd_map_get(&seen, member->key, NULL)) status = bnd_fail(error, BND_ERROR_FORMAT, "\"%s\" occurs twice in one object", member->key);
    else if (!bnd_map_put(&seen, member->key, 0)) status = bnd_fail_memory(error, "a JSON object");
  }
  bnd_map_free(&seen);
  return status;
}

static bnd_status on_event(void *user, const bnd_json_event *event, bnd_error *error) {
  tree_builder *builder = user;
  bnd_json *value;
  switch (event->kind) {
    case BND_JSON_EVENT_NULL: return add(builder, BND_JSON_NULL, &value, error);
    case BND_JSON_EVENT_BOOLEAN:
      BND_TRY(add(builder, BND_JSON_BOOLEAN, &value, error));
      value->boolean = event->boolean;
      return BND_OK;
    case BND_JSON_EVENT_NUMBER:
      BND_TRY(add(builder, BND_JSON_NUMBER, &value, error));
      if (!bnd_json_number(event->text, event->length, &value->number, &value->integer, &value->is_integer))
        return bnd_fail(error, BND_ERROR_FORMAT, "the number %.*s is too large", event->length < 40 ? (int)event->length : 40, event->text);
      return BND_OK;
    case BND_JSON_EVENT_STRING:
      BND_TRY(add(builder, BND_JSON_STRING, &value, error));
      return copy_text(builder, event, &value->text, error);
    case BND_JSON_EVENT_KEY: return copy_text(builder, event, &builder->key, error);
    case BND_JSON_EVENT_BEGIN_OBJECT:
    case BND_JSON_EVENT_BEGIN_ARRAY:
      BND_TRY(add(builder, event->kind == BND_JSON_EVENT_BEGIN_ARRAY ? BND_JSON_ARRAY : BND_JSON_OBJECT, &value, error));
      builder->open[builder->depth] = value;
      builder->last[builder->depth++] = NULL;
      return BND_OK;
    case BND_JSON_EVENT_END_OBJECT: return check_keys(builder->open[--builder->depth], error);
    case BND_JSON_EVENT_END_ARRAY: builder->depth--; return BND_OK;
  }
  return BND_OK;
}

bnd_status bnd_json_parse(const char *name, const char *text, size_t length, bnd_arena *arena, const bnd_json **root, bnd_error *error) {
  tree_builder builder = {.arena = arena};
  *root = NULL;
  BND_TRY(bnd_json_stream_positioned(name, text, length, on_event, &builder, &builder.position, error));
  *root = builder.root;
  return BND_OK;
}

bnd_status bnd_json_parse_file(const char *path, uint64_t limit, bnd_arena *arena, const bnd_json **root, bnd_error *error) {
  char *text;
  size_t length;
  *root = NULL;
  BND_TRY(bnd_file_read(path, limit, &text, &length, error));
  const bnd_status status = bnd_json_parse(path, text, length, arena, root, error);
  free(text);
  return status;
}

const bnd_json *bnd_json_member(const bnd_json *object, const char *key) {
  if (!object || object->type != BND_JSON_OBJECT) return NULL;
  for (const bnd_json *member = object->first; member; member = member->next)
    if (strcmp(member->key, key) == 0) return member;
  return NULL;
}

bnd_status bnd_json_only_keys(const char *name, const bnd_json *object, const char *const *known, size_t count, bnd_error *error) {
  for (const bnd_json *member = object->first; member; member = member->next) {
    bnd_near_names near_names = {.wanted = member->key};
    bool found = false;
    for (size_t i = 0; i < count && !found; i++) {
      found = strcmp(member->key, known[i]) == 0;
      bnd_near_offer(&near_names, known[i]);
    }
    char list[256];
    if (!found)
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: line %zu: unknown key \"%s\"; near names: %s", name, member->line, member->key,
                      bnd_near_text(&near_names, list, sizeof list));
  }
  return BND_OK;
}

const char *bnd_json_type_name(bnd_json_type type) {
  static const char *const names[] = {"null", "true or false", "a number", "a string", "an array", "an object"};
  return (size_t)type < sizeof names / sizeof *names ? names[type] : "unknown";
}
