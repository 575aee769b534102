/* binade convert */
#include "cli.h"

int cli_convert(int argc, char **argv) {
  bnd_convert_options convert = {0};
  const char *form = NULL, *output = NULL;
  const cli_option options[] = {
      {"output", 'o', CLI_PATH, &output, "FILE", "the ONNX file to write", 0, 0, true},
      {"form", 0, CLI_CHOICE, &form, CLI_FORMS, "how far branches and batch normalization are merged (default: folded)", 0, 0, false},
      {"size", 0, CLI_INT, &convert.size, "S", "side of the square input, a multiple of 32 (default: the checkpoint's own, or 640)", 32, 8192, false},
      {"raw-outputs", 0, CLI_FLAG, &convert.raw_outputs, NULL, "also the tensors before boxes are decoded", 0, 0, false},
  };
  const cli_syntax syntax = {"binade convert", "MODEL", "Writes the network as an FP32 ONNX file.", 1, 1,
                             options, sizeof options / sizeof *options, NULL};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  convert.form = cli_form(form);

  bnd_error error = {0};
  bnd_model *model = NULL;
  bnd_status status = bnd_model_open(operands[0], &model, &error);
  if (status == BND_OK) status = bnd_model_convert(model, &convert, output, &error);
  bnd_model_close(model);
  return status == BND_OK ? CLI_OK : cli_fail(status, &error);
}
