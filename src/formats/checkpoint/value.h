/* The tree of values a checkpoint holds: what Python's pickle describes, without any Python. */
#ifndef BND_FORMATS_CHECKPOINT_VALUE_H
#define BND_FORMATS_CHECKPOINT_VALUE_H

#include "base/memory.h"
#include "tensor/tensor.h"

typedef enum bnd_value_kind {
  BND_VALUE_NONE,
  BND_VALUE_BOOL,
  BND_VALUE_INT,    /* int, numpy integers */
  BND_VALUE_FLOAT,  /* float, numpy floats */
  BND_VALUE_STRING, /* str, numpy.str_: UTF-8 as the file has it */
  BND_VALUE_BYTES,
  BND_VALUE_LIST,   /* list, set, frozenset */
  BND_VALUE_TUPLE,  /* tuple, torch.Size */
  BND_VALUE_DICT,   /* dict, OrderedDict; pairs in file order */
  BND_VALUE_TENSOR, /* torch.Tensor, Parameter */
  BND_VALUE_STORAGE,
  BND_VALUE_OPAQUE /* any other object: its class or function is named, never looked up or called */
} bnd_value_kind;

typedef struct bnd_value bnd_value;

typedef struct bnd_value_pair {
  bnd_value *key, *value;
} bnd_value_pair;

/* A part of a storage: `count` elements of the storage's type from element `offset` on. */
typedef struct bnd_value_storage {
  size_t index; /* into the checkpoint's table of storages */
  uint64_t offset, count;
} bnd_value_storage;

typedef struct bnd_value_tensor {
  const struct bnd_element_type *type; /* see bnd_value_dtype_name */
  bnd_shape shape;
  int64_t stride[BND_MAX_RANK]; /* in elements, never negative; 0 repeats */
  uint64_t offset;              /* in elements, from the begin of `storage` */
  bnd_value_storage storage;
} bnd_value_tensor;

/* Read-only for callers. Values may be shared by several parents, but never contain themselves (such a reference is an opaque value named
   "cycle"), are nested at most BND_VALUE_MAX_DEPTH deep, and all paths together visit at most BND_VALUE_MAX_VISITS values: a plain recursive
   walk is safe. */
struct bnd_value {
  bnd_value_kind kind;
  uint8_t walked;  /* while reading: 0 not yet, 1 being walked, 2 done */
  uint16_t height; /* levels below, itself included */
  uint32_t visits; /* values a walk from here visits */
  union {
    bool boolean;
    int64_t integer;
    double number;
    struct {
      const char *text; /* NUL-terminated, but may also contain NUL */
      size_t length;
    } string; /* STRING and BYTES */
    struct {
      bnd_value **items;
      size_t count, capacity;
    } list; /* LIST and TUPLE */
    struct {
      bnd_value_pair *pairs; /* no key twice unless the file says so: the last one counts, as in Python */
      size_t count, capacity;
    } dict;
    bnd_value_tensor *tensor;
    bnd_value_storage storage;
    struct {
      const char *name;     /* "os.system", printable */
      bnd_value *arguments; /* NULL: the class or function itself */
      const char *reason;   /* why a tensor could not be understood, or NULL */
      bnd_value *state;     /* what BUILD gave it, or NULL */
    } opaque;
  };
};

enum { BND_VALUE_MAX_DEPTH = 200, BND_VALUE_MAX_VISITS = 1 << 24, BND_VALUE_MAX_COUNT = 1 << 21 };

/* The value under a string key of a dict; NULL when `dict` is NULL, no dict, or has no such key. Linear in the number of keys. */
const bnd_value *bnd_value_get(const bnd_value *dict, const char *key);
/* True and *number set for INT, FLOAT and BOOL; NULL is fine. */
bool bnd_value_number(const bnd_value *value, double *number);
/* The text of a STRING without NUL inside, else NULL. NULL is fine. */
const char *bnd_value_text(const bnd_value *value);
/* "a list", "a tensor", "an object of class x.y": for messages. text must have room for BND_VALUE_DESCRIPTION bytes. */
enum { BND_VALUE_DESCRIPTION = 160 };
const char *bnd_value_describe(const bnd_value *value, char *text);

/* ---- for the readers in this folder ---- */

/* Values live in an arena; their number is bounded, list items and dict pairs included, so that a small file cannot ask for much memory. */
typedef struct bnd_value_pool {
  bnd_arena *arena;
  size_t left;         /* values that may still be made */
  const char *problem; /* why a function here returned NULL or false; NULL: memory is short */
} bnd_value_pool;

bnd_value *bnd_value_new(bnd_value_pool *pool, bnd_value_kind kind);
bnd_value *bnd_value_new_string(bnd_value_pool *pool, bnd_value_kind kind, const char *text, size_t length); /* copies */
bnd_value *bnd_value_new_tuple(bnd_value_pool *pool, bnd_value_kind kind, bnd_value **items, size_t count);  /* copies; also LIST */
bnd_value *bnd_value_new_opaque(bnd_value_pool *pool, const char *name, bnd_value *arguments, const char *reason);
void *bnd_value_alloc(bnd_value_pool *pool, size_t count, size_t size);
bool bnd_value_append(bnd_value_pool *pool, bnd_value *list, bnd_value *item);
bool bnd_value_insert(bnd_value_pool *pool, bnd_value *dict, bnd_value *key, bnd_value *value);
bool bnd_value_is_text(const bnd_value *value, const char *text);
/* Cuts cycles and checks depth and number of visits, so that what bnd_value promises holds for `root`. */
bool bnd_value_seal(bnd_value_pool *pool, bnd_value *root);

#endif
