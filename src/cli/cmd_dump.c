/* binade dump */
#include "cli.h"

int cli_dump(int argc, char **argv) {
  bnd_dump_options dump = {.target = "amd-xint8"};
  const char *executor = NULL;
  bool json = false;
  cli_run run = {0};
  const cli_option options[] = {
      {"output", 'o', CLI_PATH, &dump.output, "DIR", "folder for the files, made if missing", 0, 0, true},
      {"accumulators", 'a', CLI_FLAG, &dump.accumulators, NULL, "also the accumulators of convolutions, as int32", 0, 0, false},
      {"target", 't', CLI_TEXT, &dump.target, "TARGET", "whose rounding is assumed: amd-xint8, or a profile of your own as FILE.json (default: amd-xint8)", 0, 0,
       false},
      {"executor", 0, CLI_CHOICE, &executor, CLI_EXECUTORS, "what computes; all give the same integers (default: int8)", 0, 0, false},
      {"json", 0, CLI_FLAG, &json, NULL, "print dump.json", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {"binade dump", "MODEL IMAGE",
                             "Golden vectors of a quantized ONNX file for one image (JPEG, PNG): every quantized tensor, weight and bias as int8 in a NumPy "
                             "file, listed in dump.json with position, shape and layer. Every convolution is checked in whole numbers.",
                             2, 2, options, sizeof options / sizeof *options, NULL};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  dump.image = operands[1];
  dump.executor = cli_executor(executor);

  bnd_error error = {0};
  bnd_model *model = NULL;
  char *text = NULL;
  bnd_context *context = cli_run_begin(&run);
  bnd_status status = bnd_model_open(operands[0], &model, &error);
  if (status == BND_OK) status = bnd_dump(model, &dump, context, json, &text, &error);
  bnd_model_close(model);
  cli_run_end(&run);
  return status == BND_OK ? cli_print_text(text) : cli_fail(status, &error);
}
