#include "flow/class_names.h"

#include <stdlib.h>
#include <string.h>

#include "formats/json/json.h"

bool bnd_class_names_add(bnd_class_names *classes, const char *name) {
  char *copy = strdup(name);
  if (!copy || !BND_GROW(classes->names, classes->capacity, classes->count + 1)) {
    free(copy);
    return false;
  }
  classes->names[classes->count++] = copy;
  return true;
}

void bnd_class_names_free(bnd_class_names *classes) {
  for (size_t i = 0; i < classes->count; i++) free(classes->names[i]);
  free(classes->names);
  *classes = (bnd_class_names){0};
}

void bnd_class_names_to_json(const bnd_class_names *classes, bnd_string *text) {
  bnd_json_writer w = {.out = text};
  bnd_json_begin_array(&w, BND_JSON_ONE_LINE);
  for (size_t i = 0; i < classes->count; i++) bnd_json_string(&w, classes->names[i]);
  bnd_json_end_array(&w);
}

void bnd_class_names_from_json(const char *text, bnd_class_names *classes) {
  bnd_class_names_free(classes);
  bnd_arena *arena = bnd_arena_create();
  const bnd_json *root;
  bool fine = arena && bnd_json_parse(BND_CLASS_NAMES_KEY, text, strlen(text), arena, &root, NULL) == BND_OK && root->type == BND_JSON_ARRAY;
  for (const bnd_json *item = fine ? root->first : NULL; item && fine; item = item->next)
    fine = item->type == BND_JSON_STRING && bnd_class_names_add(classes, item->text);
  if (!fine) bnd_class_names_free(classes);
  bnd_arena_destroy(arena);
}
