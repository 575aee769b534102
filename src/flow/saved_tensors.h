/* Tensors and quantizers in the checkpoints that a run keeps its state in. Reading takes all of them into memory before the first is put back, so that
   a damaged file changes nothing. */
#ifndef BND_FLOW_SAVED_TENSORS_H
#define BND_FLOW_SAVED_TENSORS_H

#include "formats/checkpoint/checkpoint.h"
#include "formats/checkpoint/writer.h"
#include "graph/graph.h"

/* --- writing --- */

/* One dimension; the data is borrowed until the file is written. */
void bnd_put_vector(bnd_checkpoint_writer *writer, const char *key, bnd_dtype dtype, void *data, size_t count);
/* A dict "quantizers": for each of the graph's its position, zero_point (int32), minimum and maximum (float32), one element for each channel. */
void bnd_put_quantizers(bnd_checkpoint_writer *writer, const bnd_graph *graph);

/* --- reading --- */

typedef struct bnd_saved_tensors {
  bnd_checkpoint *checkpoint; /* borrowed */
  bnd_tensor *items;          /* [count], in the order of reading */
  size_t count, capacity;
  size_t next;       /* to be put back */
  bnd_status status; /* of the first failure; nothing is read after it */
  bnd_error *error;  /* where it is told; may be NULL */
} bnd_saved_tensors;

enum { BND_ANY_COUNT = 0 };

/* The tensor under `key` of a dict of the checkpoint, which must have that type and `count` elements. NULL: it has not, or something failed before.
   The pointer lasts until the next is read. */
const bnd_tensor *bnd_read_saved(bnd_saved_tensors *saved, const bnd_value *dict, const char *key, bnd_dtype dtype, size_t count);
/* What bnd_put_quantizers wrote, for every quantizer of the graph. new_channels: one that is to have a scale for each channel may have another number of
   them now, or one for all; otherwise the numbers must be those of the file. */
void bnd_read_saved_quantizers(bnd_saved_tensors *saved, const bnd_graph *graph, bool new_channels);

/* The next one in the order of reading; the caller may take its data. */
bnd_tensor *bnd_next_saved(bnd_saved_tensors *saved);
/* Puts those into the graph's quantizers that were read for them. Cannot fail where their numbers of channels are as they were. */
bnd_status bnd_restore_saved_quantizers(bnd_saved_tensors *saved, const bnd_graph *graph, bnd_error *error);

bnd_status bnd_fail_saved(const char *what, const char *name, bnd_error *error); /* "the tensor", its name */
void bnd_saved_tensors_free(bnd_saved_tensors *saved);

#endif
