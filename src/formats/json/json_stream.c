#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yajl/yajl_parse.h>

#include "base/file.h"
#include "formats/json/json.h"
#include "formats/json/json_position.h"

/* Pieces handed to yajl. A single token may span pieces, but not without end: yajl reads it from its beginning again with every piece. */
enum { PIECE = 1024 * 1024, LONGEST_TOKEN = 32 * 1024 * 1024 };

struct bnd_json_position {
  const char *name;
  yajl_handle yajl;
  bnd_json_handler *handler;
  void *user;
  bnd_error *error;
  bnd_status status; /* what a callback ended the parse with */
  int depth;
  const char *piece;
  uint64_t piece_start, last_event; /* byte offsets */
  size_t lines, counted;            /* line feeds in the file before piece + counted */
};

static void count_lines(struct bnd_json_position *parser, size_t end) {
  const char *at = parser->piece + parser->counted, *const stop = parser->piece + end;
  while (at < stop && (at = memchr(at, '\n', (size_t)(stop - at)))) {
    parser->lines++;
    at++;
  }
  if (end > parser->counted) parser->counted = end;
}

size_t bnd_json_position_line(struct bnd_json_position *parser) {
  count_lines(parser, yajl_get_bytes_consumed(parser->yajl));
  return parser->lines + 1;
}

static bnd_status fail_here(struct bnd_json_position *parser, const char *what) {
  const size_t line = bnd_json_position_line(parser);
  const uint64_t byte = parser->piece_start + yajl_get_bytes_consumed(parser->yajl);
  return bnd_fail(parser->error, BND_ERROR_FORMAT, "%s: line %zu, byte %llu: %s", parser->name, line, (unsigned long long)byte, what);
}

static int deliver(struct bnd_json_position *parser, const bnd_json_event *event) {
  parser->last_event = parser->piece_start + yajl_get_bytes_consumed(parser->yajl);
  parser->status = parser->handler(parser->user, event, parser->error);
  if (parser->status == BND_OK) return 1;
  bnd_fail_prefix(parser->error, parser->status, "%s: line %zu", parser->name, bnd_json_position_line(parser));
  return 0;
}

static int deliver_text(struct bnd_json_position *parser, bnd_json_event_kind kind, const char *text, size_t length) {
  return deliver(parser, &(bnd_json_event){.kind = kind, .text = text ? text : "", .length = length, .depth = parser->depth});
}

static int on_null(void *parser) { return deliver_text(parser, BND_JSON_EVENT_NULL, NULL, 0); }

static int on_boolean(void *context, int value) {
  struct bnd_json_position *parser = context;
  return deliver(parser, &(bnd_json_event){.kind = BND_JSON_EVENT_BOOLEAN, .boolean = value != 0, .text = "", .depth = parser->depth});
}

static int on_number(void *parser, const char *text, size_t length) { return deliver_text(parser, BND_JSON_EVENT_NUMBER, text, length); }

static int on_string(void *parser, const unsigned char *text, size_t length) {
  return deliver_text(parser, BND_JSON_EVENT_STRING, (const char *)text, length);
}

static int on_key(void *parser, const unsigned char *text, size_t length) {
  return deliver_text(parser, BND_JSON_EVENT_KEY, (const char *)text, length);
}

static int begin(struct bnd_json_position *parser, bnd_json_event_kind kind) {
  if (parser->depth == BND_JSON_MAX_DEPTH) {
    parser->status = fail_here(parser, "objects and arrays are nested deeper than 128 levels");
    return 0;
  }
  const int go_on = deliver_text(parser, kind, NULL, 0);
  parser->depth++;
  return go_on;
}

static int end(struct bnd_json_position *parser, bnd_json_event_kind kind) {
  parser->depth--;
  return deliver_text(parser, kind, NULL, 0);
}

static int on_begin_object(void *parser) { return begin(parser, BND_JSON_EVENT_BEGIN_OBJECT); }
static int on_end_object(void *parser) { return end(parser, BND_JSON_EVENT_END_OBJECT); }
static int on_begin_array(void *parser) { return begin(parser, BND_JSON_EVENT_BEGIN_ARRAY); }
static int on_end_array(void *parser) { return end(parser, BND_JSON_EVENT_END_ARRAY); }

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_begin_object,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end_object,
    .yajl_start_array = on_begin_array,
    .yajl_end_array = on_end_array,
};

/* yajl's message is two lines that end in line feeds ("parse error: premature EOF\n"); one line is enough. */
static bnd_status fail_syntax(struct bnd_json_position *parser) {
  unsigned char *text = yajl_get_error(parser->yajl, 0, NULL, 0);
  char what[160];
  snprintf(what, sizeof what, "%s", text ? (const char *)text : "not JSON");
  what[strcspn(what, "\n")] = '\0';
  const size_t length = strlen(what);
  snprintf(what + length, sizeof what - length, "%s", strstr(what, "EOF") ? "; the file is cut off, get it again" : "; this is no JSON text, or a damaged one");
  if (text) yajl_free_error(parser->yajl, text);
  return fail_here(parser, what);
}

static bnd_status judge(struct bnd_json_position *parser, yajl_status status) {
  if (status == yajl_status_ok) return BND_OK;
  return status == yajl_status_client_canceled ? parser->status : fail_syntax(parser);
}

static bnd_status feed(struct bnd_json_position *parser, const char *piece, size_t length) {
  parser->piece = piece;
  parser->counted = 0;
  BND_TRY(judge(parser, yajl_parse(parser->yajl, (const unsigned char *)piece, length)));
  if (parser->piece_start + length - parser->last_event > LONGEST_TOKEN) return fail_here(parser, "a single text is longer than 32 MiB");
  count_lines(parser, length);
  parser->piece_start += length;
  return BND_OK;
}

static bnd_status finish(struct bnd_json_position *parser) {
  parser->piece = "";
  parser->counted = 0;
  return judge(parser, yajl_complete_parse(parser->yajl));
}

static bnd_status begin_parse(struct bnd_json_position *parser) {
  parser->yajl = yajl_alloc(&callbacks, NULL, parser);
  return parser->yajl ? BND_OK : bnd_fail_memory(parser->error, parser->name);
}

bnd_status bnd_json_stream_positioned(const char *name, const char *text, size_t length, bnd_json_handler *handler, void *user,
                                      struct bnd_json_position **position, bnd_error *error) {
  struct bnd_json_position parser = {.name = name, .handler = handler, .user = user, .error = error};
  if (position) *position = &parser;
  BND_TRY(begin_parse(&parser));
  bnd_status status = BND_OK;
  for (size_t at = 0; at < length && status == BND_OK; at += PIECE) status = feed(&parser, text + at, length - at < PIECE ? length - at : PIECE);
  if (status == BND_OK) status = finish(&parser);
  yajl_free(parser.yajl);
  return status;
}

bnd_status bnd_json_stream(const char *name, const char *text, size_t length, bnd_json_handler *handler, void *user, bnd_error *error) {
  return bnd_json_stream_positioned(name, text, length, handler, user, NULL, error);
}

bnd_status bnd_json_stream_file(const char *path, bnd_json_handler *handler, void *user, bnd_error *error) {
  FILE *file;
  BND_TRY(bnd_file_open(path, &file, NULL, error));
  struct bnd_json_position parser = {.name = path, .handler = handler, .user = user, .error = error};
  bnd_status status = BND_OK;
  char *piece = malloc(PIECE);
  if (!piece) {
    status = bnd_fail_memory(error, path);
    goto done;
  }
  BND_TRY_GOTO(begin_parse(&parser), done);
  for (size_t length; (length = fread(piece, 1, PIECE, file)) > 0;) BND_TRY_GOTO(feed(&parser, piece, length), done);
  if (ferror(file)) {
    status = bnd_fail(error, BND_ERROR_IO, "%s: could not be read to its end", path);
    goto done;
  }
  status = finish(&parser);
done:
  if (parser.yajl) yajl_free(parser.yajl);
  free(piece);
  fclose(file);
  return status;
}

bool bnd_json_number(const char *text, size_t length, double *number, int64_t *integer, bool *is_integer) {
  char buffer[64], *copy = buffer, *stop;
  if (length >= sizeof buffer && !(copy = malloc(length + 1))) return false;
  memcpy(copy, text, length);
  copy[length] = '\0';
  /* The "C" locale object is a constant of the C library: nothing is allocated. */
  locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  const double value = strtod_l(copy, &stop, plain);
  freelocale(plain);
  bool fine = length > 0 && *stop == '\0' && value - value == 0;
  *number = value;
  if (is_integer) {
    *is_integer = false;
    if (fine && !memchr(copy, '.', length) && !memchr(copy, 'e', length) && !memchr(copy, 'E', length)) {
      errno = 0;
      const long long exact = strtoll(copy, &stop, 10);
      if (errno == 0 && *stop == '\0') {
        *integer = exact;
        *is_integer = true;
      }
    }
  }
  if (copy != buffer) free(copy);
  return fine;
}
