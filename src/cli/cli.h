/* The frame the commands stand in: options, messages, progress, tables. Sees only the public API. */
#ifndef BND_CLI_CLI_H
#define BND_CLI_CLI_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "binade/binade.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

/* ---- Commands: argv[0] is the command's own name; the result is the exit status. ---- */
int cli_info(int argc, char **argv);
int cli_print(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_evaluate(int argc, char **argv);
int cli_predict(int argc, char **argv);
int cli_quantize(int argc, char **argv);
int cli_dataset(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_dump(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_train(int argc, char **argv);
int cli_quark_example(int argc, char **argv); /* the program yolo_nas_pow2_int_quant */

/* ---- Options (options.c) ---- */
typedef enum cli_kind {
  CLI_FLAG,   /* bool */
  CLI_TEXT,   /* const char * */
  CLI_PATH,   /* const char *, never empty */
  CLI_CHOICE, /* const char *, one of the words in `argument`: "train|partial|folded" */
  CLI_INT,    /* int */
  CLI_COUNT,  /* uint64_t */
  CLI_NUMBER, /* double */
  CLI_LIST    /* cli_list: the option may be given several times */
} cli_kind;

typedef struct cli_list {
  const char **items;
  size_t count;
} cli_list;

typedef struct cli_option {
  const char *name; /* long name, without dashes */
  char letter;      /* or 0 */
  cli_kind kind;
  void *target;          /* keeps its value when the option is absent */
  const char *argument;  /* how help names the value */
  const char *help;      /* NULL: accepted, not shown */
  double minimum, maximum; /* of numbers; both 0: only what the type allows (counts and ints are never negative) */
  bool required;
} cli_option;

typedef struct cli_syntax {
  const char *command;  /* "binade eval" */
  const char *operands; /* "MODEL IMAGE..." */
  const char *summary;  /* what it does, one or more lines */
  int least, most;      /* operands; most < 0: any number */
  const cli_option *options;
  size_t option_count;
  const char *notes; /* shown after the options; may be NULL */
} cli_syntax;

/* Parses, permuting operands to the front of *operands, and returns their number. Prints help and exits 0 on --help; exits 2 with a message
   on anything the syntax does not know. */
int cli_parse(const cli_syntax *syntax, int argc, char **argv, char ***operands);
/* "binade eval: MESSAGE" and a pointer to --help on stderr, then exit 2. */
_Noreturn void cli_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The one of `count` names that a typing mistake may have turned into `word`, or NULL. */
const char *cli_nearest(const char *word, const char *const *names, size_t count);
/* Prints `text` from column `column` on (where the cursor is), wrapped at 80 columns. */
void cli_wrap(FILE *stream, const char *text, int column);

/* The choices as the library's enumerators; NULL gives the default. */
bnd_form cli_form(const char *choice);
bnd_executor_kind cli_executor(const char *choice);
#define CLI_FORMS "train|partial|folded"
#define CLI_EXECUTORS "int8|fakequant|reference"

/* ---- Messages, tables and JSON (output.c) ---- */
void cli_start(const char *program, int argc, char **argv); /* once, first thing */
const char *cli_program(void);
char *cli_command_line(void);                               /* quoted for a shell; malloc'ed */
void cli_write_word(FILE *stream, const char *word);        /* one word of a command line, quoted for a shell where that is needed */
void *cli_allocate(size_t count, size_t size);              /* zeroed; exits 1 when memory is short */
void cli_message(const char *format, ...) __attribute__((format(printf, 1, 2))); /* "program: ..." on stderr */
void cli_write_message(const char *who, const char *format, va_list arguments);
void cli_write(FILE *stream, const char *text, bool lines); /* control characters made visible; with `lines`, line feeds stay */
int cli_fail(bnd_status status, const bnd_error *error);    /* prints the error; the exit status for it */
int cli_print_text(char *text);                             /* to stdout, freed with bnd_free; CLI_OK */
int cli_finish(int status);                                 /* flushes stdout: a full disk is a failure too */

typedef struct cli_table cli_table;
cli_table *cli_table_create(const char *alignment); /* one letter a column: l or r; two spaces between columns */
void cli_table_cell(cli_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_table_print(cli_table *table, FILE *stream); /* and frees it */

typedef struct yajl_gen_t cli_json;
cli_json *cli_json_create(void);
void cli_json_key(cli_json *json, const char *key);
void cli_json_text(cli_json *json, const char *text);
void cli_json_number(cli_json *json, double value); /* shortest text that reads back as the same number; NaN and infinities are null */
void cli_json_count(cli_json *json, uint64_t value);
void cli_json_numbers(cli_json *json, const double *values, size_t count);
void cli_json_print(cli_json *json, FILE *stream); /* and frees it */

/* ---- Progress and interruption (display.c) ---- */
typedef struct cli_run {
  int threads;
  uint64_t seed;
  bool verbose, quiet;
  bool transient; /* stages leave no line behind when they end: they repeat too often */
  void *data;     /* the command's own, for callbacks */
  struct cli_display *display;
  bnd_context context; /* its user is this cli_run */
} cli_run;

#define CLI_RUN_OPTIONS(run)                                                                                                        \
  {"threads", 0, CLI_INT, &(run).threads, "N", "threads to compute with (default: one for each processor)", 1, 4096, false},        \
  {"verbose", 'v', CLI_FLAG, &(run).verbose, NULL, "say more about what is done", 0, 0, false},                                     \
  {"quiet", 'q', CLI_FLAG, &(run).quiet, NULL, "no progress, only results and errors", 0, 0, false}
/* Sets run->context up: progress and log on stderr, Ctrl-C as a polite request to stop, a second one kills. */
bnd_context *cli_run_begin(cli_run *run);
void cli_run_end(cli_run *run);
/* For commands that show more than stages: a line that the next one replaces (without a terminal: one line now and then), and a line that stays.
   The text of a live line is cut to the terminal's width. Nothing with --quiet. */
void cli_live_line(cli_run *run, const char *text);
void cli_lasting_line(cli_run *run, const char *text);
enum { CLI_CLOCK_SIZE = 24 };
const char *cli_clock(double seconds, char text[static CLI_CLOCK_SIZE]); /* "1:02:33" */

#endif
