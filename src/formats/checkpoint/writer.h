/* Writes checkpoints (.pth) that torch.load opens, also with weights_only=True: the zip container of torch >= 1.6, data.pkl in pickle protocol 2,
   made of dicts, lists, numbers, text and dense tensors only. The layout is that of torch/serialization.py (yolo-nas-model.md, section 9.2).

     bnd_checkpoint_writer *w = bnd_checkpoint_writer_create();
     bnd_checkpoint_begin_state_dict(w, "net");
     bnd_checkpoint_put_tensor(w, "backbone.stem.conv.branch_3x3.conv.weight", &weight);
     bnd_checkpoint_end(w);
     bnd_checkpoint_put_int(w, "epoch", 3);
     status = bnd_checkpoint_write(w, "ckpt_best.pth", error);
     bnd_checkpoint_writer_free(w);

   Only the small pickle is built in memory; the elements of tensors go from where they are to the file. Equal content gives equal bytes.
   The first error (memory, text that is no UTF-8, begin and end that do not match) is kept and reported by bnd_checkpoint_write. */
#ifndef BND_FORMATS_CHECKPOINT_WRITER_H
#define BND_FORMATS_CHECKPOINT_WRITER_H

#include "tensor/tensor.h"

typedef struct bnd_checkpoint_writer bnd_checkpoint_writer;

/* A checkpoint that is an empty dict. NULL: memory is short. */
bnd_checkpoint_writer *bnd_checkpoint_writer_create(void);
void bnd_checkpoint_writer_free(bnd_checkpoint_writer *writer); /* NULL is fine */

/* What follows, up to the matching end, goes into a dict, an OrderedDict or a list. In dicts every value has a key, unique there; in lists the
   key is NULL. Text and keys are UTF-8 and copied. */
void bnd_checkpoint_begin_dict(bnd_checkpoint_writer *writer, const char *key);
void bnd_checkpoint_begin_state_dict(bnd_checkpoint_writer *writer, const char *key);
void bnd_checkpoint_begin_list(bnd_checkpoint_writer *writer, const char *key);
void bnd_checkpoint_end(bnd_checkpoint_writer *writer);

void bnd_checkpoint_put_none(bnd_checkpoint_writer *writer, const char *key);
void bnd_checkpoint_put_bool(bnd_checkpoint_writer *writer, const char *key, bool value);
void bnd_checkpoint_put_int(bnd_checkpoint_writer *writer, const char *key, int64_t value);
void bnd_checkpoint_put_float(bnd_checkpoint_writer *writer, const char *key, double value); /* kept to the last bit */
void bnd_checkpoint_put_text(bnd_checkpoint_writer *writer, const char *key, const char *value);
/* Keeps a reference; data without storage (borrowed) must outlive the writer. The elements are read when the file is written. */
void bnd_checkpoint_put_tensor(bnd_checkpoint_writer *writer, const char *key, const bnd_tensor *tensor);

/* Writes the file, all or nothing (base/file.h). All dicts and lists must be ended; afterwards nothing can be added, but the same content may be
   written to further files. BND_ERROR_IO: as bnd_file_writer. BND_ERROR_ARGUMENT: misuse, the message says which value. */
bnd_status bnd_checkpoint_write(bnd_checkpoint_writer *writer, const char *path, bnd_error *error);

#endif
