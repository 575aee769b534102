/* binade print */
#include "cli.h"

int cli_print(int argc, char **argv) {
  bnd_print_options print = {0};
  const char *form = NULL;
  const cli_option options[] = {
      {"code", 0, CLI_FLAG, &print.code, NULL, "as code, one line for each node, instead of a table", 0, 0, false},
      {"form", 0, CLI_CHOICE, &form, CLI_FORMS, "how far branches and batch normalization are merged (default: partial)", 0, 0, false},
      {"size", 0, CLI_INT, &print.size, "S", "side of the square input, a multiple of 32 (default: the checkpoint's own, or 640)", 32, 8192, false},
  };
  const cli_syntax syntax = {"binade print", "MODEL", "Prints the network's graph: nodes, operators, shapes.", 1, 1,
                             options, sizeof options / sizeof *options, NULL};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  print.form = cli_form(form);

  bnd_error error = {0};
  bnd_model *model = NULL;
  char *text = NULL;
  bnd_status status = bnd_model_open(operands[0], &model, &error);
  if (status == BND_OK) status = bnd_model_print(model, &print, &text, &error);
  bnd_model_close(model);
  return status == BND_OK ? cli_print_text(text) : cli_fail(status, &error);
}
