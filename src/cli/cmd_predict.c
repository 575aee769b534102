/* binade predict */
#include "cli.h"

int cli_predict(int argc, char **argv) {
  bnd_predict_options predict = {.confidence = 0.25, .iou = 0.7, .maximum = 300};
  const char *executor = NULL;
  cli_run run = {0};
  const cli_option options[] = {
      {"output", 'o', CLI_PATH, &predict.output, "DIR", "folder for the images with boxes drawn on them (default: none are drawn)", 0, 0, false},
      {"confidence", 'c', CLI_NUMBER, &predict.confidence, "X", "lowest score shown (default: 0.25)", 1e-6, 1, false},
      {"iou", 0, CLI_NUMBER, &predict.iou, "X", "overlap from which the weaker of two boxes of a class goes (default: 0.7)", 1e-6, 1, false},
      {"max", 0, CLI_INT, &predict.maximum, "N", "boxes for each image at most (default: 300)", 1, 100000, false},
      {"size", 0, CLI_INT, &predict.size, "S", "side of the square input, a multiple of 32 (default: the checkpoint's own, or 640)", 32, 8192, false},
      {"executor", 0, CLI_CHOICE, &executor, CLI_EXECUTORS, "what computes quantized networks; all give the same numbers (default: int8)", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {"binade predict", "MODEL IMAGE...", "Finds objects in images (JPEG, PNG). Prints the boxes as JSON, in pixels of each image.", 2, -1,
                             options, sizeof options / sizeof *options, NULL};
  char **operands;
  const int count = cli_parse(&syntax, argc, argv, &operands);
  predict.executor = cli_executor(executor);
  predict.images = (const char *const *)operands + 1;
  predict.image_count = (size_t)count - 1;

  bnd_error error = {0};
  bnd_model *model = NULL;
  char *json = NULL;
  bnd_context *context = cli_run_begin(&run);
  bnd_status status = bnd_model_open(operands[0], &model, &error);
  if (status == BND_OK) status = bnd_predict(model, &predict, context, &json, &error);
  bnd_model_close(model);
  cli_run_end(&run);
  return status == BND_OK ? cli_print_text(json) : cli_fail(status, &error);
}
