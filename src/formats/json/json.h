/* JSON (RFC 8259, UTF-8): a streaming reader for large files, a tree for small ones, and a writer. A thin layer over yajl; nothing here
   depends on the locale. Messages read "NAME: line L, byte B: what is wrong". */
#ifndef BND_FORMATS_JSON_JSON_H
#define BND_FORMATS_JSON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

/* Deepest nesting that either reader accepts. */
enum { BND_JSON_MAX_DEPTH = 128 };

/* --- streaming --------------------------------------------------------------------------------------------------------------------- */

typedef enum bnd_json_event_kind {
  BND_JSON_EVENT_NULL,
  BND_JSON_EVENT_BOOLEAN,
  BND_JSON_EVENT_NUMBER,
  BND_JSON_EVENT_STRING,
  BND_JSON_EVENT_KEY, /* the name of the member whose value comes next */
  BND_JSON_EVENT_BEGIN_OBJECT,
  BND_JSON_EVENT_END_OBJECT,
  BND_JSON_EVENT_BEGIN_ARRAY,
  BND_JSON_EVENT_END_ARRAY
} bnd_json_event_kind;

/* Valid during the callback only. Numbers stay text until somebody asks, so that what is skipped costs next to nothing. */
typedef struct bnd_json_event {
  bnd_json_event_kind kind;
  bool boolean;
  const char *text; /* string, key: decoded UTF-8; number: as written. NOT NUL-terminated, may contain NUL (from \u0000) */
  size_t length;
  int depth;        /* how many objects and arrays are open around this event; BEGIN and END of one container have the same depth */
} bnd_json_event;

/* Returning anything but BND_OK (and filling *error) ends the parse with that status; the parser puts "NAME: line L" in front of the message. */
typedef bnd_status bnd_json_handler(void *user, const bnd_json_event *event, bnd_error *error);

/* Reads a file in pieces: memory does not grow with its size. */
bnd_status bnd_json_stream_file(const char *path, bnd_json_handler *handler, void *user, bnd_error *error);
/* The same for text in memory; `name` stands for the file in messages. */
bnd_status bnd_json_stream(const char *name, const char *text, size_t length, bnd_json_handler *handler, void *user, bnd_error *error);

/* The number written in text[0..length). Returns false when a double cannot hold it (overflow to infinity). *integer and *is_integer
   (may be NULL together) tell the exact value when it is written without fraction and exponent and fits int64. */
bool bnd_json_number(const char *text, size_t length, double *number, int64_t *integer, bool *is_integer);

/* --- tree -------------------------------------------------------------------------------------------------------------------------- */

typedef enum bnd_json_type { BND_JSON_NULL, BND_JSON_BOOLEAN, BND_JSON_NUMBER, BND_JSON_STRING, BND_JSON_ARRAY, BND_JSON_OBJECT } bnd_json_type;

typedef struct bnd_json {
  bnd_json_type type;
  bool boolean;
  bool is_integer;        /* a number written without fraction and exponent that fits int64: `integer` is exact */
  int64_t integer;
  double number;          /* every number */
  const char *text;       /* string: UTF-8, NUL-terminated ("" otherwise) */
  const char *key;        /* the member's name when the parent is an object, else NULL */
  struct bnd_json *first; /* array, object: children in the order of the file, chained by `next` */
  struct bnd_json *next;
  size_t count;           /* array, object: children */
  size_t line;            /* 1-based line in the file, for messages about the meaning */
} bnd_json;

/* Everything lives in `arena`. A key that occurs twice in an object and a string with an embedded NUL are errors.
   The text is at most `limit` bytes for the file variant. */
bnd_status bnd_json_parse(const char *name, const char *text, size_t length, bnd_arena *arena, const bnd_json **root, bnd_error *error);
bnd_status bnd_json_parse_file(const char *path, uint64_t limit, bnd_arena *arena, const bnd_json **root, bnd_error *error);

/* The member named `key`, or NULL (also when `object` is NULL or no object). */
const bnd_json *bnd_json_member(const bnd_json *object, const char *key);
/* An error, with near names, about the first member whose key is not known: a misspelt key would silently leave its default in place. */
bnd_status bnd_json_only_keys(const char *name, const bnd_json *object, const char *const *known, size_t count, bnd_error *error);
const char *bnd_json_type_name(bnd_json_type type); /* "a string", "an object", ... for messages */

/* --- writer ------------------------------------------------------------------------------------------------------------------------ */

/* Appends to `out`; two spaces per level, "key": value, one child per line unless the container was begun with BND_JSON_ONE_LINE.
   The same calls give the same bytes. Allocation failures show in out->failed. The caller keeps begin/end and key/value in step. */
typedef enum bnd_json_layout { BND_JSON_LINES, BND_JSON_ONE_LINE } bnd_json_layout;

typedef struct bnd_json_writer { /* initialise with {.out = &string} */
  bnd_string *out;
  int depth, one_line_depth;     /* open containers; depth of the outermost one-line container, 0 = none */
  bool has_children, after_key;
} bnd_json_writer;

void bnd_json_begin_object(bnd_json_writer *writer, bnd_json_layout layout);
void bnd_json_end_object(bnd_json_writer *writer);
void bnd_json_begin_array(bnd_json_writer *writer, bnd_json_layout layout);
void bnd_json_end_array(bnd_json_writer *writer);
void bnd_json_key(bnd_json_writer *writer, const char *key);
void bnd_json_string(bnd_json_writer *writer, const char *text); /* NULL writes null; bytes that are no UTF-8 become U+FFFD */
/* The fewest digits that read back as the same double (integral values below 2^53 without exponent: 12, not 12.0); NaN, infinity: null. */
void bnd_json_double(bnd_json_writer *writer, double value);
void bnd_json_float(bnd_json_writer *writer, float value); /* the fewest digits that read back as the same float */
void bnd_json_integer(bnd_json_writer *writer, int64_t value);
void bnd_json_boolean(bnd_json_writer *writer, bool value);
void bnd_json_null(bnd_json_writer *writer);

/* A whole member: key and value. */
void bnd_json_put_string(bnd_json_writer *writer, const char *key, const char *text);
void bnd_json_put_double(bnd_json_writer *writer, const char *key, double value);
void bnd_json_put_float(bnd_json_writer *writer, const char *key, float value);
void bnd_json_put_integer(bnd_json_writer *writer, const char *key, int64_t value);
void bnd_json_put_boolean(bnd_json_writer *writer, const char *key, bool value);
void bnd_json_put_null(bnd_json_writer *writer, const char *key);

#endif
