/* What the program says: messages on stderr, tables and JSON on stdout. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>

#include "cli.h"

static struct {
  const char *program;
  int argc;
  char **argv;
} start = {.program = "binade"};

void cli_start(const char *program, int argc, char **argv) {
  start.program = program;
  start.argc = argc;
  start.argv = cli_allocate((size_t)argc + 1, sizeof *argv); /* a copy, because parsing options reorders the original */
  if (argc > 0) memcpy(start.argv, argv, (size_t)argc * sizeof *argv);
}

const char *cli_program(void) { return start.program; }

void *cli_allocate(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size);
  if (!memory) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  return memory;
}

void cli_write_word(FILE *stream, const char *word) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
  if (*word && word[strspn(word, plain)] == '\0') {
    fputs(word, stream);
    return;
  }
  fputc('\'', stream);
  for (; *word; word++) {
    if (*word == '\'') fputs("'\\''", stream);
    else fputc(*word, stream);
  }
  fputc('\'', stream);
}

char *cli_command_line(void) {
  char *text = NULL;
  size_t size = 0;
  FILE *stream = open_memstream(&text, &size);
  if (!stream) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  fputs(start.program, stream);
  for (int i = 1; i < start.argc; i++) {
    fputc(' ', stream);
    cli_write_word(stream, start.argv[i]);
  }
  if (fclose(stream) != 0) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  return text;
}

/* Control characters in names of files, classes and nodes must neither break a line nor steer the terminal. */
void cli_write(FILE *stream, const char *text, bool lines) {
  for (; *text; text++) {
    const unsigned char letter = (unsigned char)*text;
    if (letter == '\n' && !lines) fputs("\\n", stream);
    else if (letter != '\n' && (letter < 0x20 || letter == 0x7f)) fprintf(stream, "\\x%02x", letter);
    else fputc(letter, stream);
  }
}

void cli_write_message(const char *who, const char *format, va_list arguments) {
  char text[BND_ERROR_MESSAGE_SIZE + 1024];
  vsnprintf(text, sizeof text, format, arguments);
  fprintf(stderr, "%s: ", who);
  cli_write(stderr, text, false);
  fputc('\n', stderr);
}

void cli_message(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  cli_write_message(start.program, format, arguments);
  va_end(arguments);
}

int cli_fail(bnd_status status, const bnd_error *error) {
  cli_message("%s", error && *error->message ? error->message : bnd_status_text(status));
  return status == BND_ERROR_INTERRUPTED ? CLI_INTERRUPTED : CLI_FAILED;
}

int cli_print_text(char *text) {
  cli_write(stdout, text, true);
  bnd_free(text);
  return CLI_OK;
}

int cli_finish(int status) {
  const bool failed = ferror(stdout) || fflush(stdout) != 0;
  if (failed) cli_message("standard output cannot be written: %s", strerror(errno));
  return failed && status == CLI_OK ? CLI_FAILED : status;
}

struct cli_table {
  const char *alignment;
  size_t columns, count, capacity;
  char **cells;
};

cli_table *cli_table_create(const char *alignment) {
  cli_table *table = cli_allocate(1, sizeof *table);
  table->alignment = alignment;
  table->columns = strlen(alignment);
  return table;
}

void cli_table_cell(cli_table *table, const char *format, ...) {
  if (table->count == table->capacity) {
    table->capacity = table->capacity ? 2 * table->capacity : 64;
    table->cells = realloc(table->cells, table->capacity * sizeof *table->cells);
    if (!table->cells) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  }
  va_list arguments;
  va_start(arguments, format);
  if (vasprintf(&table->cells[table->count++], format, arguments) < 0) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  va_end(arguments);
}

/* Characters, not bytes: class names may be in any language. Control characters as cli_write writes them. */
static int width_of(const char *text) {
  int width = 0;
  for (; *text; text++) {
    const unsigned char letter = (unsigned char)*text;
    width += letter == '\n' ? 2 : letter < 0x20 || letter == 0x7f ? 4 : (letter & 0xc0) != 0x80;
  }
  return width;
}

void cli_table_print(cli_table *table, FILE *stream) {
  int *widths = cli_allocate(table->columns, sizeof *widths);
  for (size_t i = 0; i < table->count; i++) {
    const int width = width_of(table->cells[i]);
    if (width > widths[i % table->columns]) widths[i % table->columns] = width;
  }
  for (size_t i = 0; i < table->count; i++) {
    const size_t column = i % table->columns;
    const int padding = widths[column] - width_of(table->cells[i]);
    const bool last = column + 1 == table->columns, right = table->alignment[column] == 'r';
    fprintf(stream, "%*s", right ? padding : 0, "");
    cli_write(stream, table->cells[i], false);
    fprintf(stream, "%*s%s", right || last ? 0 : padding, "", last ? "\n" : "  ");
    free(table->cells[i]);
  }
  free(table->cells);
  free(table);
  free(widths);
}

cli_json *cli_json_create(void) {
  cli_json *json = yajl_gen_alloc(NULL);
  if (!json) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  yajl_gen_config(json, yajl_gen_beautify, 1);
  yajl_gen_config(json, yajl_gen_indent_string, " ");
  return json;
}

void cli_json_text(cli_json *json, const char *text) { yajl_gen_string(json, (const unsigned char *)text, strlen(text)); }

void cli_json_key(cli_json *json, const char *key) { cli_json_text(json, key); }

void cli_json_number(cli_json *json, double value) {
  if (!isfinite(value)) {
    yajl_gen_null(json);
    return;
  }
  char text[40];
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  yajl_gen_number(json, text, strlen(text));
}

void cli_json_count(cli_json *json, uint64_t value) { yajl_gen_integer(json, (long long)value); }

void cli_json_numbers(cli_json *json, const double *values, size_t count) {
  yajl_gen_array_open(json);
  for (size_t i = 0; i < count; i++) cli_json_number(json, values[i]);
  yajl_gen_array_close(json);
}

void cli_json_print(cli_json *json, FILE *stream) {
  const unsigned char *text;
  size_t length;
  if (yajl_gen_get_buf(json, &text, &length) == yajl_gen_status_ok) fwrite(text, 1, length, stream);
  yajl_gen_free(json);
}
