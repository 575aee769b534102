/* What the unpickler makes of Python's objects: the allow-list of classes and functions that occur in checkpoints. Everything else becomes an
   opaque value. This is the only place where names of Python, torch and numpy have a meaning, and none of it calls anything. */
#ifndef BND_FORMATS_CHECKPOINT_OBJECTS_H
#define BND_FORMATS_CHECKPOINT_OBJECTS_H

#include "formats/checkpoint/storage.h"

typedef struct bnd_object_builder {
  bnd_value_pool pool;        /* pool.problem says why a function below returned NULL */
  bnd_storage_table storages; /* filled by persistent ids */
} bnd_object_builder;

/* callable(*arguments): REDUCE, NEWOBJ. */
bnd_value *bnd_object_call(bnd_object_builder *builder, bnd_value *callable, bnd_value *arguments);
/* object.__setstate__(state): BUILD. */
void bnd_object_set_state(bnd_value *object, bnd_value *state);
/* The storage (or, in old files, class) a persistent id stands for. */
bnd_value *bnd_object_persistent(bnd_object_builder *builder, const bnd_value *id);

#endif
