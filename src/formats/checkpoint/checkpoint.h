/* PyTorch checkpoints (.pth, .pt): the zip container of torch >= 1.6 and the older stream of pickles. Bytes only: what the names mean is for
   the layer above. Nothing in a file is ever executed: Python classes and functions are names, a short allow-list of them is understood.

   The layout is that of torch/serialization.py, torch/_utils.py and CPython's pickle protocols 1 to 5.

   Every function reports errors as "FILE: place in it: what is wrong; what helps". A checkpoint is used by one thread at a time. */
#ifndef BND_FORMATS_CHECKPOINT_CHECKPOINT_H
#define BND_FORMATS_CHECKPOINT_CHECKPOINT_H

#include "formats/checkpoint/value.h"

typedef struct bnd_checkpoint bnd_checkpoint;

/* Reads the directory and the pickle of a file; the numbers of its tensors stay in the file until asked for. The file stays open and must not
   change meanwhile. */
bnd_status bnd_checkpoint_open(const char *path, bnd_checkpoint **checkpoint, bnd_error *error);
void bnd_checkpoint_close(bnd_checkpoint *checkpoint); /* NULL is fine; all values and names of it end here, tensors live on */

/* What torch.load would return. Owned by the checkpoint. */
const bnd_value *bnd_checkpoint_root(const bnd_checkpoint *checkpoint);
const char *bnd_checkpoint_container(const bnd_checkpoint *checkpoint); /* "zip" or "legacy" */

/* "float32", "complex64", ...: the dtype of a TENSOR as PyTorch names it. */
const char *bnd_value_dtype_name(const bnd_value *tensor);

/* A new contiguous tensor with the elements of a TENSOR value of this checkpoint, in its own dtype. The bytes are read straight into it (no
   copy, no cache) unless strides have to be resolved. The storage's CRC-32 is verified (zip).
   BND_ERROR_UNSUPPORTED: a dtype bnd_tensor does not have. BND_ERROR_FORMAT: the file contradicts itself. */
bnd_status bnd_checkpoint_tensor(bnd_checkpoint *checkpoint, const bnd_value *value, bnd_tensor *tensor, bnd_error *error);

typedef struct bnd_state_dict_entry {
  const char *name; /* unique, not empty, printable; "module." removed if all names had it */
  bnd_dtype dtype;
  bnd_shape shape;
  const bnd_value *value; /* the TENSOR */
} bnd_state_dict_entry;

/* The tensors by name, in file order. Plain view: all memory belongs to the checkpoint, nothing to free. */
typedef struct bnd_state_dict {
  const char *key;       /* "ema_net", "net", "state_dict": where it was found; "" = the file's top level */
  bool has_prefix;       /* "module." was removed from the names */
  size_t ignored;        /* values in the dict that are no tensors */
  size_t count;
  bnd_state_dict_entry *entries;
} bnd_state_dict;

/* Finds the state dict: under `key`, or when key is NULL under the first of ema_net, net, state_dict that is there and not None, or at the top
   level if that holds tensors. All entries are checked against the file's directory: dtype, storage size, offsets and strides.
   BND_ERROR_MODEL: there is none. Which keys exist: bnd_value_get(bnd_checkpoint_root(checkpoint), "net") and so on. */
bnd_status bnd_checkpoint_state_dict(bnd_checkpoint *checkpoint, const char *key, bnd_state_dict *state_dict, bnd_error *error);

/* bnd_checkpoint_tensor for one entry; errors also name the entry. */
bnd_status bnd_checkpoint_entry_tensor(bnd_checkpoint *checkpoint, const bnd_state_dict_entry *entry, bnd_tensor *tensor, bnd_error *error);

#endif
