#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json/json.h"

static void append(bnd_json_writer *writer, const char *text) { bnd_string_append(writer->out, text, strlen(text)); }

static void new_line(bnd_json_writer *writer) {
  append(writer, "\n");
  for (int i = 0; i < writer->depth; i++) append(writer, "  ");
}

/* What stands between the previous child (or the opening bracket) and the next one. */
static void separate(bnd_json_writer *writer) {
  if (writer->after_key) {
    writer->after_key = false;
    return;
  }
  if (writer->has_children) append(writer, writer->one_line_depth ? ", " : ",");
  if (writer->depth > 0 && !writer->one_line_depth) new_line(writer);
  writer->has_children = true;
}

static void begin(bnd_json_writer *writer, const char *bracket, bnd_json_layout layout) {
  separate(writer);
  append(writer, bracket);
  writer->depth++;
  if (layout == BND_JSON_ONE_LINE && !writer->one_line_depth) writer->one_line_depth = writer->depth;
  writer->has_children = false;
}

static void end(bnd_json_writer *writer, const char *bracket) {
  const bool lines = !writer->one_line_depth && writer->has_children;
  if (writer->one_line_depth == writer->depth) writer->one_line_depth = 0;
  writer->depth--;
  if (lines) new_line(writer);
  append(writer, bracket);
  writer->has_children = true;
  if (writer->depth == 0) append(writer, "\n");
}

void bnd_json_begin_object(bnd_json_writer *writer, bnd_json_layout layout) { begin(writer, "{", layout); }
void bnd_json_end_object(bnd_json_writer *writer) { end(writer, "}"); }
void bnd_json_begin_array(bnd_json_writer *writer, bnd_json_layout layout) { begin(writer, "[", layout); }
void bnd_json_end_array(bnd_json_writer *writer) { end(writer, "]"); }

/* Bytes of the well-formed UTF-8 sequence at `text` (shortest form, no surrogates), 0 when there is none. */
static size_t utf8_length(const unsigned char *text) {
  const unsigned char first = text[0];
  if (first < 0x80) return 1;
  const size_t length = first >= 0xc2 && first <= 0xdf ? 2 : (first & 0xf0) == 0xe0 ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
  for (size_t i = 1; i < length; i++)
    if ((text[i] & 0xc0) != 0x80) return 0; /* also stops at the terminating NUL */
  if ((first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f)) return 0;
  if ((first == 0xf0 && text[1] < 0x90) || (first == 0xf4 && text[1] > 0x8f)) return 0;
  return length;
}

static void quoted(bnd_json_writer *writer, const char *text) {
  append(writer, "\"");
  for (const unsigned char *at = (const unsigned char *)text; *at;) {
    const size_t length = utf8_length(at);
    if (length == 0) append(writer, "\xef\xbf\xbd");
    else if (*at == '"' || *at == '\\') bnd_string_format(writer->out, "\\%c", *at);
    else if (*at == '\n') append(writer, "\\n");
    else if (*at == '\t') append(writer, "\\t");
    else if (*at == '\r') append(writer, "\\r");
    else if (*at < 0x20 || *at == 0x7f) bnd_string_format(writer->out, "\\u%04x", *at);
    else bnd_string_append(writer->out, (const char *)at, length);
    at += length ? length : 1;
  }
  append(writer, "\"");
}

void bnd_json_key(bnd_json_writer *writer, const char *key) {
  separate(writer);
  quoted(writer, key);
  append(writer, ": ");
  writer->after_key = true;
}

void bnd_json_string(bnd_json_writer *writer, const char *text) {
  separate(writer);
  if (text) quoted(writer, text);
  else append(writer, "null");
}

/* The fewest significant digits (at most `most`) that read back as `value`, as a double or rounded to float. */
static void shortest(bnd_json_writer *writer, double value, int most, bool single) {
  separate(writer);
  if (!isfinite(value)) {
    append(writer, "null");
    return;
  }
  char text[40];
  const locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = uselocale(plain);
  if (value == rint(value) && fabs(value) < 0x1p53) {
    snprintf(text, sizeof text, "%.0f", value);
  } else {
    for (int digits = 1; digits <= most; digits++) {
      snprintf(text, sizeof text, "%.*g", digits, value);
      if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value) break;
    }
  }
  uselocale(before);
  freelocale(plain);
  append(writer, text);
}

void bnd_json_double(bnd_json_writer *writer, double value) { shortest(writer, value, 17, false); }
void bnd_json_float(bnd_json_writer *writer, float value) { shortest(writer, (double)value, 9, true); }

void bnd_json_integer(bnd_json_writer *writer, int64_t value) {
  separate(writer);
  bnd_string_format(writer->out, "%lld", (long long)value);
}

void bnd_json_boolean(bnd_json_writer *writer, bool value) {
  separate(writer);
  append(writer, value ? "true" : "false");
}

void bnd_json_null(bnd_json_writer *writer) {
  separate(writer);
  append(writer, "null");
}

void bnd_json_put_string(bnd_json_writer *writer, const char *key, const char *text) {
  bnd_json_key(writer, key);
  bnd_json_string(writer, text);
}

void bnd_json_put_double(bnd_json_writer *writer, const char *key, double value) {
  bnd_json_key(writer, key);
  bnd_json_double(writer, value);
}

void bnd_json_put_float(bnd_json_writer *writer, const char *key, float value) {
  bnd_json_key(writer, key);
  bnd_json_float(writer, value);
}

void bnd_json_put_integer(bnd_json_writer *writer, const char *key, int64_t value) {
  bnd_json_key(writer, key);
  bnd_json_integer(writer, value);
}

void bnd_json_put_boolean(bnd_json_writer *writer, const char *key, bool value) {
  bnd_json_key(writer, key);
  bnd_json_boolean(writer, value);
}

void bnd_json_put_null(bnd_json_writer *writer, const char *key) {
  bnd_json_key(writer, key);
  bnd_json_null(writer);
}
