/* binade info */
#include "cli.h"

int cli_info(int argc, char **argv) {
  bool json = false;
  const cli_option options[] = {{"json", 0, CLI_FLAG, &json, NULL, "as JSON", 0, 0, false}};
  const cli_syntax syntax = {
      "binade info", "MODEL",
      "Shows what a checkpoint holds: its format, the network's inputs, outputs, layers, parameters and multiply-accumulates, the classes and the "
      "preprocessing it was trained with.",
      1, 1, options, sizeof options / sizeof *options, NULL};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);

  bnd_error error = {0};
  bnd_model *model = NULL;
  char *text = NULL;
  bnd_status status = bnd_model_open(operands[0], &model, &error);
  if (status == BND_OK) status = bnd_model_describe(model, json, &text, &error);
  bnd_model_close(model);
  return status == BND_OK ? cli_print_text(text) : cli_fail(status, &error);
}
