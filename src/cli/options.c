/* Option tables: parsing with getopt_long, help made from the same table, suggestions for mistyped names. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { HELP_WIDTH = 80, HELP_COLUMN = 26, FIRST_CODE = 256, MAX_OPTIONS = 48 };

_Noreturn void cli_usage_error(const char *command, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  cli_write_message(command, format, arguments);
  fprintf(stderr, "Try '%s --help'.\n", command);
  va_end(arguments);
  exit(CLI_USAGE);
}

/* Edit distance in which swapping two neighbours counts once (optimal string alignment); names longer than the rows are never near. */
static size_t distance(const char *a, const char *b) {
  enum { LONGEST = 63 };
  const size_t rows = strlen(a), columns = strlen(b);
  if (rows > LONGEST || columns > LONGEST) return SIZE_MAX;
  size_t d[LONGEST + 1][LONGEST + 1];
  for (size_t i = 0; i <= rows; i++) {
    for (size_t j = 0; j <= columns; j++) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
      if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
      d[i][j] = best;
    }
  }
  return d[rows][columns];
}

const char *cli_nearest(const char *word, const char *const *names, size_t count) {
  const char *nearest = NULL;
  size_t least = strlen(word) / 3 + 1; /* more edits than that is another word */
  for (size_t i = 0; i < count; i++) {
    const size_t edits = distance(word, names[i]);
    if (edits <= least && (!nearest || edits < least)) {
      least = edits;
      nearest = names[i];
    }
  }
  return nearest;
}

void cli_wrap(FILE *stream, const char *text, int column) {
  int at = column;
  while (*text) {
    const int length = (int)strcspn(text, " \n");
    if (at > column && at + 1 + length > HELP_WIDTH) {
      fprintf(stream, "\n%*s", column, "");
      at = column;
    }
    if (at > column) at += fprintf(stream, " ");
    at += fprintf(stream, "%.*s", length, text);
    text += length;
    if (*text == '\n') {
      fprintf(stream, "\n%*s", text[1] ? column : 0, "");
      at = column;
    }
    if (*text) text++;
  }
  fputc('\n', stream);
}

static void print_option(const cli_option *option) {
  int at = option->letter ? printf("  -%c, --%s", option->letter, option->name) : printf("      --%s", option->name);
  if (option->argument) at += printf(" %s", option->argument);
  if (at + 2 > HELP_COLUMN) {
    printf("\n");
    at = 0;
  }
  printf("%*s", HELP_COLUMN - at, "");
  cli_wrap(stdout, option->help, HELP_COLUMN);
}

static void print_help(const cli_syntax *syntax) {
  printf("Usage: %s [OPTION...]%s%s\n\n", syntax->command, *syntax->operands ? " " : "", syntax->operands);
  cli_wrap(stdout, syntax->summary, 0);
  printf("\n");
  for (size_t i = 0; i < syntax->option_count; i++) {
    if (syntax->options[i].help) print_option(&syntax->options[i]);
  }
  print_option(&(cli_option){.name = "help", .letter = 'h', .help = "this text"});
  if (syntax->notes) {
    printf("\n");
    cli_wrap(stdout, syntax->notes, 0);
  }
}

static double read_number(const char *command, const cli_option *option, const char *text) {
  const bool whole = option->kind != CLI_NUMBER;
  const bool limited = option->minimum != 0 || option->maximum != 0;
  /* 2^53: every count up to it is exactly a double. */
  const double minimum = limited || !whole ? option->minimum : 0, maximum = limited ? option->maximum : option->kind == CLI_COUNT ? 0x1p53 : 0x1p31 - 1;
  char *end;
  errno = 0;
  const double value = strtod(text, &end);
  const char *kind = whole ? "a whole number" : "a number";
  if (end == text || *end || errno || !isfinite(value) || strpbrk(text, "xX") || (whole && value != floor(value)))
    cli_usage_error(command, "option '--%s' takes %s, not '%s'", option->name, kind, text);
  if ((whole || limited) && (value < minimum || value > maximum))
    cli_usage_error(command, "option '--%s' takes %s from %.10g to %.10g, not '%s'", option->name, kind, minimum, maximum, text);
  return value;
}

static void check_choice(const char *command, const cli_option *option, const char *text) {
  const char *words[16];
  char copy[160];
  size_t count = 0;
  snprintf(copy, sizeof copy, "%s", option->argument);
  bool known = false;
  for (char *rest = copy, *word; count < 16 && (word = strsep(&rest, "|"));) {
    known |= strcmp(word, text) == 0;
    words[count++] = word;
  }
  if (!known) {
    const char *nearest = cli_nearest(text, words, count);
    if (nearest) cli_usage_error(command, "option '--%s': unknown value '%s'; did you mean '%s'?", option->name, text, nearest);
    cli_usage_error(command, "option '--%s' takes one of %s, not '%s'", option->name, option->argument, text);
  }
}

static void store(const char *command, const cli_option *option, const char *text) {
  switch (option->kind) {
    case CLI_FLAG: *(bool *)option->target = true; break;
    case CLI_CHOICE: check_choice(command, option, text); *(const char **)option->target = text; break;
    case CLI_PATH:
      if (!*text) cli_usage_error(command, "option '--%s' needs a value", option->name); /* an unset variable of a script */
      *(const char **)option->target = text;
      break;
    case CLI_TEXT: *(const char **)option->target = text; break;
    case CLI_INT: *(int *)option->target = (int)read_number(command, option, text); break;
    case CLI_COUNT: *(uint64_t *)option->target = (uint64_t)read_number(command, option, text); break;
    case CLI_NUMBER: *(double *)option->target = read_number(command, option, text); break;
    case CLI_LIST: {
      cli_list *list = option->target;
      const char **items = cli_allocate(list->count + 1, sizeof *items);
      if (list->count) memcpy(items, list->items, list->count * sizeof *items);
      items[list->count++] = text;
      free(list->items);
      list->items = items;
    }
  }
}

static _Noreturn void unknown_option(const cli_syntax *syntax, const char *given) {
  char word[64];
  snprintf(word, sizeof word, "%.*s", (int)strcspn(given, "="), given);
  const char *names[MAX_OPTIONS + 1];
  for (size_t i = 0; i < syntax->option_count; i++) names[i] = syntax->options[i].name;
  names[syntax->option_count] = "help";
  const char *nearest = strncmp(word, "--", 2) == 0 ? cli_nearest(word + 2, names, syntax->option_count + 1) : NULL;
  if (nearest) cli_usage_error(syntax->command, "unknown option '%s'; did you mean '--%s'?", word, nearest);
  cli_usage_error(syntax->command, "unknown option '%s'", word);
}

/* What getopt_long stumbled over: an option nobody knows, one that misses its value, or one that takes none. */
static _Noreturn void parse_error(const cli_syntax *syntax, char **argv, int answer) {
  const char *given = argv[optind - 1];
  if (answer == ':') cli_usage_error(syntax->command, "option '%s' needs a value", given);
  if (optopt >= FIRST_CODE)
    cli_usage_error(syntax->command, "option '--%s' takes no value", syntax->options[optopt - FIRST_CODE].name);
  if (optopt && strncmp(given, "--", 2) != 0) cli_usage_error(syntax->command, "unknown option '-%c'", optopt);
  unknown_option(syntax, given);
}

int cli_parse(const cli_syntax *syntax, int argc, char **argv, char ***operands) {
  const size_t count = syntax->option_count;
  struct option table[MAX_OPTIONS + 2] = {0};
  char letters[2 * MAX_OPTIONS + 4] = {0}, *letter = letters;
  bool seen[MAX_OPTIONS] = {0};
  assert(count <= MAX_OPTIONS);
  *letter++ = ':';
  *letter++ = 'h';
  for (size_t i = 0; i < count; i++) {
    const cli_option *option = &syntax->options[i];
    table[i] = (struct option){option->name, option->kind == CLI_FLAG ? no_argument : required_argument, NULL, FIRST_CODE + (int)i};
    if (option->letter) *letter++ = option->letter;
    if (option->letter && option->kind != CLI_FLAG) *letter++ = ':';
  }
  table[count] = (struct option){"help", no_argument, NULL, 'h'};

  opterr = 0;
  optind = 0; /* starts anew, so that commands of the dispatcher can be parsed after it */
  for (int answer; (answer = getopt_long(argc, argv, letters, table, NULL)) != -1;) {
    if (answer == 'h') {
      print_help(syntax);
      exit(cli_finish(CLI_OK));
    }
    if (answer == '?' || answer == ':') parse_error(syntax, argv, answer);
    size_t i = (size_t)answer - FIRST_CODE;
    if (answer < FIRST_CODE)
      for (i = 0; syntax->options[i].letter != answer;) i++;
    store(syntax->command, &syntax->options[i], optarg);
    seen[i] = true;
  }
  for (size_t i = 0; i < count; i++) {
    if (syntax->options[i].required && !seen[i])
      cli_usage_error(syntax->command, "option '--%s %s' is missing", syntax->options[i].name, syntax->options[i].argument);
  }

  const int given = argc - optind;
  if (given < syntax->least) cli_usage_error(syntax->command, "%s is missing", syntax->operands);
  for (int i = optind; i < argc; i++)
    if (!*argv[i]) cli_usage_error(syntax->command, "an empty text is no %s", syntax->operands);
  if (syntax->most >= 0 && given > syntax->most) cli_usage_error(syntax->command, "'%s' is one operand too many", argv[optind + syntax->most]);
  *operands = argv + optind;
  return given;
}

bnd_form cli_form(const char *choice) {
  if (!choice) return BND_FORM_DEFAULT;
  return choice[0] == 't' ? BND_FORM_TRAIN : choice[0] == 'p' ? BND_FORM_PARTIAL : BND_FORM_FOLDED;
}

bnd_executor_kind cli_executor(const char *choice) {
  if (!choice) return BND_EXECUTOR_DEFAULT;
  return choice[0] == 'i' ? BND_EXECUTOR_INT8 : choice[0] == 'f' ? BND_EXECUTOR_FAKEQUANT : BND_EXECUTOR_REFERENCE;
}
