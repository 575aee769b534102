/* What state.c and initialize.c share. Private to the model. */
#ifndef BND_MODELS_YOLO_NAS_STATE_BUILD_H
#define BND_MODELS_YOLO_NAS_STATE_BUILD_H

#include "models/yolo_nas/layers.h"
#include "models/yolo_nas/state.h"

/* Without tensors yet. */
bnd_status bnd_yolo_nas_state_create(bnd_yolo_nas_state **state, bnd_error *error);
/* Appends a tensor, taking it over also on failure; the name is copied. */
bnd_status bnd_yolo_nas_state_append(bnd_yolo_nas_state *state, const char *name, bnd_tensor *tensor, bnd_error *error);

/* initialize.c: the initial values of one tensor of a layer. Owned by the caller. */
bnd_status bnd_yolo_nas_initial_tensor(const bnd_layer *layer, const bnd_layer_tensor *about, uint64_t seed, bnd_tensor *tensor, bnd_error *error);

#endif
