/* binade check */
#include "cli.h"

int cli_check(int argc, char **argv) {
  bool json = false;
  const char *target = "amd-xint8";
  const cli_option options[] = {
      {"target", 't', CLI_TEXT, &target, "TARGET", "the hardware: amd-xint8, or a profile of your own as FILE.json (default: amd-xint8)", 0, 0, false},
      {"json", 0, CLI_FLAG, &json, NULL, "as JSON", 0, 0, false},
  };
  const cli_syntax syntax = {"binade check", "MODEL",
                             "Tests every constraint of a hardware target and names the nodes that break one. Exit status 1 if any does.", 1, 1,
                             options, sizeof options / sizeof *options, NULL};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);

  bnd_error error = {0};
  bnd_model *model = NULL;
  char *text = NULL;
  int violations = 0;
  bnd_status status = bnd_model_open(operands[0], &model, &error);
  if (status == BND_OK) status = bnd_check(model, target, json, &text, &violations, &error);
  bnd_model_close(model);
  if (status != BND_OK) return cli_fail(status, &error);
  cli_print_text(text);
  return violations ? CLI_FAILED : CLI_OK;
}
