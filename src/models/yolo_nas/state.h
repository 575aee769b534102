/* The state dict of a YOLO-NAS in memory, as training keeps it: loaded or initialised once, updated from the trained graph, written as a checkpoint.
   Names, order, shapes and data types are those of super-gradients' state_dict() (yolo-nas-model.md, section 2): float32 and, for
   num_batches_tracked, int64. */
#ifndef BND_MODELS_YOLO_NAS_STATE_H
#define BND_MODELS_YOLO_NAS_STATE_H

#include "models/yolo_nas/yolo_nas.h"

typedef struct bnd_yolo_nas_state {
  bnd_named_shape *shapes; /* [count]: what each tensor is called; the names live as long as the state */
  bnd_tensor *tensors;     /* [count], owned */
  size_t count, capacity;
  bnd_arena *names;
} bnd_yolo_nas_state;

void bnd_yolo_nas_state_destroy(bnd_yolo_nas_state *state); /* NULL is fine */
/* A deep copy: nothing is shared. */
bnd_status bnd_yolo_nas_state_copy(const bnd_yolo_nas_state *state, bnd_yolo_nas_state **copy, bnd_error *error);
/* The tensor of that name; NULL = there is none. */
bnd_tensor *bnd_yolo_nas_state_find(const bnd_yolo_nas_state *state, const char *name);

/* All tensors of a model in the form it is stored in, under super-gradients' names whatever the file called them. Counters and unused
   parameters that the file lacks get their initial values, so that the result is complete. Errors: those of reading the source; values that are
   not finite. */
bnd_status bnd_yolo_nas_state_read(const bnd_yolo_nas *model, bnd_yolo_nas_state **state, bnd_error *error);
/* For bnd_yolo_nas_read; hands out copies. The state must outlive the model made from it and keep its list of tensors; `place` stands in messages. */
bnd_tensor_source bnd_yolo_nas_state_source(bnd_yolo_nas_state *state, const char *place);

/* Copies the graph's attributes of the same names into the state: parameters and running statistics. The graph is one of bnd_yolo_nas_graph with
   form TRAIN. Tensors it has no attribute for stay as they are: rbr_reparam.*, which the training form never uses and super-gradients never
   changes. Every counter goes up by `batches`, the training steps with batch statistics since the last update (0: an average of weights, whose
   counters super-gradients leaves alone; frozen batch norms).
   BND_ERROR_ARGUMENT: a parameter of the graph is not in the state, or of another shape or type; the state is then as before. */
bnd_status bnd_yolo_nas_state_update(bnd_yolo_nas_state *state, const bnd_graph *graph, int64_t batches, bnd_error *error);

#endif
