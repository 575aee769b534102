/* Class names: from checkpoints and data sets, and as metadata of ONNX files. */
#ifndef BND_FLOW_CLASS_NAMES_H
#define BND_FLOW_CLASS_NAMES_H

#include "base/memory.h"
#include "base/status.h"

typedef struct bnd_class_names {
  char **names; /* [count], owned */
  size_t count, capacity;
} bnd_class_names;

bool bnd_class_names_add(bnd_class_names *classes, const char *name); /* false: memory is short */
void bnd_class_names_free(bnd_class_names *classes);

/* The key under which ONNX files carry them, as a JSON array of strings. */
#define BND_CLASS_NAMES_KEY "class_names"
void bnd_class_names_to_json(const bnd_class_names *classes, bnd_string *text);
/* Anything but an array of strings leaves *classes empty: names are a convenience. */
void bnd_class_names_from_json(const char *text, bnd_class_names *classes);

#endif
