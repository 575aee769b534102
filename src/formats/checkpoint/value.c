#include "formats/checkpoint/value.h"

#include <stdio.h>
#include <string.h>

bool bnd_value_is_text(const bnd_value *value, const char *text) {
  const size_t length = strlen(text);
  return value && value->kind == BND_VALUE_STRING && value->string.length == length && memcmp(value->string.text, text, length) == 0;
}

const bnd_value *bnd_value_get(const bnd_value *dict, const char *key) {
  if (!dict || dict->kind != BND_VALUE_DICT) return NULL;
  for (size_t i = dict->dict.count; i-- > 0;)
    if (bnd_value_is_text(dict->dict.pairs[i].key, key)) return dict->dict.pairs[i].value;
  return NULL;
}

bool bnd_value_number(const bnd_value *value, double *number) {
  if (!value) return false;
  switch (value->kind) {
    case BND_VALUE_BOOL: *number = value->boolean; return true;
    case BND_VALUE_INT: *number = (double)value->integer; return true;
    case BND_VALUE_FLOAT: *number = value->number; return true;
    default: return false;
  }
}

const char *bnd_value_text(const bnd_value *value) {
  if (!value || value->kind != BND_VALUE_STRING || memchr(value->string.text, '\0', value->string.length)) return NULL;
  return value->string.text;
}

const char *bnd_value_describe(const bnd_value *value, char *text) {
  static const char *const NAMES[] = {"None",   "a bool",  "an int", "a float",  "a string",  "bytes",
                                      "a list", "a tuple", "a dict", "a tensor", "a storage", "an object"};
  if (value->kind != BND_VALUE_OPAQUE) return NAMES[value->kind];
  snprintf(text, BND_VALUE_DESCRIPTION, "%s %s", value->opaque.arguments ? "an object made by" : "the Python name", value->opaque.name);
  return text;
}

void *bnd_value_alloc(bnd_value_pool *pool, size_t count, size_t size) {
  return bnd_arena_alloc(pool->arena, count, size);
}

static bool spend(bnd_value_pool *pool, size_t count) {
  if (pool->left < count) {
    pool->problem = "it describes more than two million values, which no network's checkpoint does";
    return false;
  }
  pool->left -= count;
  return true;
}

bnd_value *bnd_value_new(bnd_value_pool *pool, bnd_value_kind kind) {
  if (!spend(pool, 1)) return NULL;
  bnd_value *value = bnd_value_alloc(pool, 1, sizeof *value);
  if (value) value->kind = kind;
  return value;
}

bnd_value *bnd_value_new_string(bnd_value_pool *pool, bnd_value_kind kind, const char *text, size_t length) {
  bnd_value *value = bnd_value_new(pool, kind);
  char *copy = value ? bnd_value_alloc(pool, length + 1, 1) : NULL;
  if (!copy) return NULL;
  if (length) memcpy(copy, text, length);
  value->string.text = copy;
  value->string.length = length;
  return value;
}

bnd_value *bnd_value_new_tuple(bnd_value_pool *pool, bnd_value_kind kind, bnd_value **items, size_t count) {
  bnd_value *value = spend(pool, count) ? bnd_value_new(pool, kind) : NULL;
  if (!value) return NULL;
  value->list.items = bnd_value_alloc(pool, count, sizeof *items);
  if (!value->list.items) return NULL;
  if (count) memcpy(value->list.items, items, count * sizeof *items);
  value->list.count = value->list.capacity = count;
  return value;
}

bnd_value *bnd_value_new_opaque(bnd_value_pool *pool, const char *name, bnd_value *arguments, const char *reason) {
  bnd_value *value = bnd_value_new(pool, BND_VALUE_OPAQUE);
  if (!value) return NULL;
  value->opaque.name = name;
  value->opaque.arguments = arguments;
  value->opaque.reason = reason;
  return value;
}

/* Arena memory cannot be given back, so growing by doubling leaves at most as much behind as is in use. */
static bool grow(bnd_value_pool *pool, void **array, size_t *capacity, size_t needed, size_t size) {
  if (needed <= *capacity) return true;
  const size_t larger = needed < 4 ? 4 : needed * 2;
  void *moved = bnd_value_alloc(pool, larger, size);
  if (!moved) return false;
  if (*capacity) memcpy(moved, *array, *capacity * size);
  *array = moved;
  *capacity = larger;
  return true;
}

bool bnd_value_append(bnd_value_pool *pool, bnd_value *list, bnd_value *item) {
  if (!spend(pool, 1) || !grow(pool, (void **)&list->list.items, &list->list.capacity, list->list.count + 1, sizeof item)) return false;
  list->list.items[list->list.count++] = item;
  return true;
}

bool bnd_value_insert(bnd_value_pool *pool, bnd_value *dict, bnd_value *key, bnd_value *value) {
  if (!spend(pool, 1) || !grow(pool, (void **)&dict->dict.pairs, &dict->dict.capacity, dict->dict.count + 1, sizeof *dict->dict.pairs)) return false;
  dict->dict.pairs[dict->dict.count++] = (bnd_value_pair){key, value};
  return true;
}

static bool seal(bnd_value_pool *pool, bnd_value *value, int depth);

/* Walks the value *child of `parent`, replacing a reference to a value that is being walked. */
static bool seal_child(bnd_value_pool *pool, bnd_value *parent, bnd_value **child, int depth) {
  if (!*child) return true;
  if ((*child)->walked == 1 && !(*child = bnd_value_new_opaque(pool, "cycle", NULL, NULL))) return false;
  if (!seal(pool, *child, depth + 1)) return false;
  if ((*child)->height >= parent->height) parent->height = (uint16_t)((*child)->height + 1);
  parent->visits += (*child)->visits;
  if (parent->visits > BND_VALUE_MAX_VISITS) {
    pool->problem = "its values contain each other so often that they would never end";
    return false;
  }
  return true;
}

static bool seal(bnd_value_pool *pool, bnd_value *value, int depth) {
  if (depth + (value->walked == 2 ? value->height : 1) > BND_VALUE_MAX_DEPTH) {
    pool->problem = "its values are nested more than 200 deep";
    return false;
  }
  if (value->walked == 2) return true;
  value->walked = 1;
  value->height = 1;
  value->visits = 1;
  switch (value->kind) {
    case BND_VALUE_LIST:
    case BND_VALUE_TUPLE:
      for (size_t i = 0; i < value->list.count; i++)
        if (!seal_child(pool, value, &value->list.items[i], depth)) return false;
      break;
    case BND_VALUE_DICT:
      for (size_t i = 0; i < value->dict.count; i++)
        if (!seal_child(pool, value, &value->dict.pairs[i].key, depth) || !seal_child(pool, value, &value->dict.pairs[i].value, depth)) return false;
      break;
    case BND_VALUE_OPAQUE:
      if (!seal_child(pool, value, &value->opaque.arguments, depth) || !seal_child(pool, value, &value->opaque.state, depth)) return false;
      break;
    default: break;
  }
  value->walked = 2;
  return true;
}

bool bnd_value_seal(bnd_value_pool *pool, bnd_value *root) { return seal(pool, root, 0); }
