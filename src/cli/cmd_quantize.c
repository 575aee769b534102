/* binade quantize, and yolo_nas_pow2_int_quant: the same run with the options of AMD Quark's published example. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>

#include "cli.h"

static void print_json(const bnd_quantize_options *options, const bnd_quantize_result *result) {
  cli_json *json = cli_json_create();
  yajl_gen_map_open(json);
  cli_json_key(json, "output");
  cli_json_text(json, options->output);
  cli_json_key(json, "calibration_images");
  cli_json_count(json, result->calibration_images);
  cli_json_key(json, "violations");
  cli_json_count(json, (uint64_t)result->violations);
  cli_json_key(json, "stages");
  yajl_gen_array_open(json);
  for (int i = 0; i < result->stage_count; i++) {
    const bnd_stage_result *stage = &result->stages[i];
    yajl_gen_map_open(json);
    cli_json_key(json, "name");
    cli_json_text(json, stage->name);
    if (stage->evaluated) {
      cli_json_key(json, "map50");
      cli_json_number(json, stage->map50);
      cli_json_key(json, "map50_95");
      cli_json_number(json, stage->map50_95);
      cli_json_key(json, "coco");
      cli_json_numbers(json, stage->coco, 12);
      cli_json_key(json, "images");
      cli_json_count(json, stage->images);
    }
    cli_json_key(json, "seconds");
    cli_json_number(json, stage->seconds);
    cli_json_key(json, "peak_rss_mib");
    cli_json_number(json, stage->peak_rss_mib);
    yajl_gen_map_close(json);
  }
  yajl_gen_array_close(json);
  yajl_gen_map_close(json);
  cli_json_print(json, stdout);
}

static const char *stage_title(const char *name, bool trained) {
  const char *const titles[][2] = {{"fp32", "FP32"}, {"folded", "FP32 folded"}, {"ptq", "PTQ"}, {"qat", "QAT"},
                                   {"aligned", trained ? "QAT hardware-aligned" : "PTQ hardware-aligned"}};
  for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
    if (strcmp(name, titles[i][0]) == 0) return titles[i][1];
  return name;
}

static void print_steps(const bnd_quantize_result *result) {
  if (result->step_count == 0) return;
  cli_table *table = cli_table_create("lrrrl");
  const char *const headers[] = {"step", "distance before", "after", "seconds", " "};
  for (size_t i = 0; i < 5; i++) cli_table_cell(table, "%s", headers[i]);
  for (int i = 0; i < result->step_count; i++) {
    const bnd_step_result *step = &result->steps[i];
    cli_table_cell(table, "%s", step->name);
    cli_table_cell(table, "%.5f", step->before);
    cli_table_cell(table, "%.5f", step->after);
    cli_table_cell(table, "%.1f", step->seconds);
    cli_table_cell(table, "%s", step->kept ? "kept" : "taken back");
  }
  printf("\n");
  cli_table_print(table, stdout);
}

/* mAP@0.50:0.95 of the last row over the first. */
static void print_share(const bnd_quantize_result *result) {
  const bnd_stage_result *first = &result->stages[0], *last = &result->stages[result->stage_count - 1];
  if (result->step_count == 0 || !first->evaluated || !last->evaluated || !(first->map50_95 > 0)) return;
  printf("\nmAP@0.50:0.95 kept: %.1f %%", 100 * last->map50_95 / first->map50_95);
  if (last->kept_high > 0) printf(" (95 %% interval %.1f to %.1f)", 100 * last->kept_low, 100 * last->kept_high);
  printf("\n");
}

static void print_table(const bnd_quantize_options *options, const bnd_quantize_result *result) {
  cli_table *table = cli_table_create("lrrrrrr");
  const char *const headers[] = {"stage", "mAP@0.50", "mAP@0.50:0.95", "change", "images", "seconds", "MiB"};
  for (size_t i = 0; i < 7; i++) cli_table_cell(table, "%s", headers[i]);
  for (int i = 0; i < result->stage_count; i++) {
    const bnd_stage_result *stage = &result->stages[i], *first = &result->stages[0];
    cli_table_cell(table, "%s", stage_title(stage->name, options->qat));
    if (stage->evaluated) {
      cli_table_cell(table, "%.4f", stage->map50);
      cli_table_cell(table, "%.4f", stage->map50_95);
      if (i > 0 && first->evaluated) cli_table_cell(table, "%+.4f", stage->map50_95 - first->map50_95);
      else cli_table_cell(table, " ");
      cli_table_cell(table, "%llu", (unsigned long long)stage->images);
    } else {
      for (int k = 0; k < 4; k++) cli_table_cell(table, "-");
    }
    cli_table_cell(table, "%.1f", stage->seconds);
    cli_table_cell(table, "%.0f", stage->peak_rss_mib);
  }
  cli_table_print(table, stdout);
  print_steps(result);
  print_share(result);
  printf("\n%llu images for calibration; ", (unsigned long long)result->calibration_images);
  if (result->violations == 0) printf("every constraint of the target holds\n");
  else printf("%d constraint%s of the target still broken (see %s/run.log)\n", result->violations, result->violations == 1 ? "" : "s", options->output);
  printf("written to %s: int8.onnx and what led to it\n", options->output);
}

static int quantize(bnd_quantize_options *quantize_options, cli_run *run, bool json) {
  bnd_error error = {0};
  bnd_quantize_result result = {0};
  char *command = cli_command_line();
  quantize_options->command = command;
  bnd_context *context = cli_run_begin(run);
  const bnd_status status = bnd_quantize(quantize_options, context, &result, &error);
  cli_run_end(run);
  free(command);
  if (status != BND_OK) return cli_fail(status, &error);
  if (json) print_json(quantize_options, &result);
  else print_table(quantize_options, &result);
  return CLI_OK;
}

/* Options of a training that was not asked for are a mistake. */
static void check_training_options(const cli_syntax *syntax, int argc, char **argv, bool qat) {
  for (int i = 1; i < argc && !qat; i++)
    if (strncmp(argv[i], "--qat-", 6) == 0) cli_usage_error(syntax->command, "'%.*s' needs --qat", (int)strcspn(argv[i], "="), argv[i]);
}

int cli_quantize(int argc, char **argv) {
  bnd_quantize_options quantize_options = {.output = "out", .recipe = "best", .target = "amd-xint8"};
  cli_run run = {0};
  cli_list quant_stubs = {0}, dequant_stubs = {0}, steps = {0}, without = {0};
  bool json = false;
  uint64_t warmup_steps = UINT64_MAX; /* these two: nothing that can be given */
  double weight_decay = NAN;
  const char *executor = NULL;
  const cli_option options[] = {
      {"data", 'd', CLI_PATH, &quantize_options.data, "DIR", "folder in COCO layout: annotations/instances_SPLIT.json, images/SPLIT/", 0, 0, true},
      {"output", 'o', CLI_PATH, &quantize_options.output, "DIR", "folder for the results (default: out)", 0, 0, false},
      {"split", 0, CLI_TEXT, &quantize_options.split, "SPLIT", "part of the data to calibrate and evaluate on (default: val2017)", 0, 0, false},
      {"recipe", 0, CLI_CHOICE, &quantize_options.recipe, "best|quark",
       "how: as exact as the target allows, or as AMD Quark's FX flow does (default: best)", 0, 0, false},
      {"target", 't', CLI_TEXT, &quantize_options.target, "TARGET", "the hardware: amd-xint8, or a profile of your own as FILE.json (default: amd-xint8)", 0, 0, false},
      {"calib", 0, CLI_COUNT, &quantize_options.calibration_images, "N", "calibration images (default: 100, with quark 500, or all there are)", 1, 1e9, false},
      {"batch", 0, CLI_INT, &quantize_options.batch, "B", "quark: calibration images in a batch (default: 25); best looks at all together", 1, 100000, false},
      {"observer", 0, CLI_CHOICE, &quantize_options.observer, "min-max|min-mse",
       "what chooses the exponents: the range seen, or the least error (default: min-mse, with quark min-max)", 0, 0, false},
      {"per-channel", 0, CLI_FLAG, &quantize_options.per_channel, NULL, "an exponent for each output channel of a weight", 0, 0, false},
      {"scope", 0, CLI_CHOICE, &quantize_options.scope, "auto|full|published|backbone-neck|all",
       "what is quantized: all but what stands behind the last learned layers, or everything (default: auto); with quark as the published example, without "
       "the heads, or everything (default: published)", 0, 0, false},
      {"quant-stub", 0, CLI_LIST, &quant_stubs, "NODE", "quantize from this node on; repeatable, instead of --scope", 0, 0, false},
      {"dequant-stub", 0, CLI_LIST, &dequant_stubs, "NODE", "quantize no further than this node; repeatable", 0, 0, false},
      {"config", 0, CLI_PATH, &quantize_options.config, "FILE", "configuration in Quark's JSON shape, with settings for single layers", 0, 0, false},
      {"size", 0, CLI_INT, &quantize_options.size, "S", "side of the square input, a multiple of 32 (default: the checkpoint's own, or 640)", 32, 8192, false},
      {"images", 'n', CLI_COUNT, &quantize_options.images, "N", "evaluate on the first N images (default: all)", 0, 0, false},
      {"no-eval", 0, CLI_FLAG, &quantize_options.no_evaluation, NULL, "measure no mAP", 0, 0, false},
      {"calib-split", 0, CLI_TEXT, &quantize_options.calibration_split, "SPLIT",
       "part of the data to calibrate on; never what is evaluated (default: train2017, or a part of SPLIT left out of the evaluation)", 0, 0, false},
      {"step", 0, CLI_LIST, &steps, "STEP", "run only this step of the recipe best; repeatable: head, fold, equalize, exponents, bias-analytic, bias, search, reconstruct, distill", 0, 0, false},
      {"without", 0, CLI_LIST, &without, "STEP", "leave this step out; repeatable", 0, 0, false},
      {"budget", 0, CLI_NUMBER, &quantize_options.budget_minutes, "MINUTES", "what the steps may take together (default: as long as they want); blocks share it by what they cost", 1e-6, 1e6, false},
      {"evaluate-steps", 0, CLI_FLAG, &quantize_options.evaluate_steps, NULL, "a row with mAP for every step", 0, 0, false},
      {"sensitivity", 0, CLI_FLAG, &quantize_options.sensitivity, NULL, "what quantizing each tensor costs, as sensitivity.txt and sensitivity.json", 0, 0, false},
      {"executor", 0, CLI_CHOICE, &executor, CLI_EXECUTORS, "what computes quantized networks; all give the same numbers (default: int8)", 0, 0, false},
      {"restart", 0, CLI_FLAG, &quantize_options.restart, NULL, "begin anew instead of continuing from finished stages in the output folder", 0, 0, false},
      {"json", 0, CLI_FLAG, &json, NULL, "the result table as JSON", 0, 0, false},
      {"qat", 0, CLI_FLAG, &quantize_options.qat, NULL, "train the quantized network, too: with best on the float network's answers, without labels; with quark (quantization-aware training) as the next options say", 0, 0, false},
      {"qat-split", 0, CLI_TEXT, &quantize_options.qat_split, "SPLIT", "part of the data to train on (default: train2017)", 0, 0, false},
      {"qat-images", 0, CLI_COUNT, &quantize_options.qat_images, "N", "train on the first N images (default: choose from all)", 1, 1e9, false},
      {"qat-share", 0, CLI_NUMBER, &quantize_options.qat_share, "X",
       "share of the images to train on, chosen by the seed (default: 0.001; all with --qat-images)", 1e-12, 1, false},
      {"qat-epochs", 0, CLI_INT, &quantize_options.qat_epochs, "N", "how often each image is seen (default: 1)", 1, 100000, false},
      {"qat-batch", 0, CLI_INT, &quantize_options.qat_batch, "B", "images in a training step (default: 8)", 1, 100000, false},
      {"qat-lr", 0, CLI_NUMBER, &quantize_options.qat_learning_rate, "X",
       "learning rate (default: 2e-7, as published, which hardly moves a weight; 2e-5 does more)", 1e-30, 1e30, false},
      {"qat-schedule", 0, CLI_CHOICE, &quantize_options.qat_schedule, "cosine|step|constant",
       "how the rate falls: to a hundredth, to a tenth at 2/3 and 8/9 of the epochs, or not (default: cosine)", 0, 0, false},
      {"qat-final-ratio", 0, CLI_NUMBER, &quantize_options.qat_final_ratio, "X", "what a cosine falls to, times the rate (default: 0.01)", 1e-12, 1, false},
      {"qat-warmup-steps", 0, CLI_COUNT, &warmup_steps, "N", "steps at the full rate before it begins to fall (default: 2)", 0, 1e9, false},
      {"qat-weight-decay", 0, CLI_NUMBER, &weight_decay, "X", "decay of weights (default: 1e-5)", 0, 1e9, false},
      {"qat-no-augmentation", 0, CLI_FLAG, &quantize_options.qat_no_augmentation, NULL, "train on images as they are evaluated", 0, 0, false},
      {"qat-in-order", 0, CLI_FLAG, &quantize_options.qat_in_order, NULL, "images in the order of the annotations, not shuffled", 0, 0, false},
      {"qat-freeze-bn", 0, CLI_FLAG, &quantize_options.qat_freeze_batch_norm, NULL, "leave the running statistics of batch normalization alone", 0, 0, false},
      {"qat-thresholds", 0, CLI_CHOICE, &quantize_options.qat_thresholds, "learned|observed",
       "ranges of activations and weights: trained as the weights are, or observed (default: observed)", 0, 0, false},
      {"qat-threshold-rate", 0, CLI_NUMBER, &quantize_options.qat_threshold_rate, "X",
       "learning rate of learned ranges, times that of the weights (default: 10000, less if that is above a rate of 0.01)", 1e-12, 1e12, false},
      {"qat-average", 0, CLI_FLAG, &quantize_options.qat_average, NULL, "keep the moving average of the weights, not the last ones", 0, 0, false},
      {"qat-save-minutes", 0, CLI_NUMBER, &quantize_options.qat_save_minutes, "X", "the state of training is saved this often (default: 1)", 1e-6, 1e6, false},
      {"seed", 0, CLI_COUNT, &run.seed, "K", "seed of everything random (default: 0)", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {
      "binade quantize", "CHECKPOINT",
      "Quantizes a trained network to INT8 with power-of-two scales and writes ONNX files, every exponent and mAP at every step. An interrupted run "
      "continues when the same command is given again.",
      1, 1, options, sizeof options / sizeof *options,
      "Written to the output folder: fp32_training.onnx, fp32_folded.onnx, int8.onnx, int8_dedicated_qdq.onnx, captured.txt, quantized.txt, frozen.txt, "
      "quantization.json, config.json, results.json, run.log."};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  quantize_options.checkpoint = operands[0];
  quantize_options.executor = cli_executor(executor);
  if (warmup_steps != UINT64_MAX) quantize_options.qat_warmup_steps = warmup_steps > 0 ? (int64_t)warmup_steps : -1; /* 0 would be the default */
  if (!isnan(weight_decay)) quantize_options.qat_weight_decay = weight_decay > 0 ? weight_decay : -1;
  if (quant_stubs.count + dequant_stubs.count > 0) {
    if (quantize_options.scope) cli_usage_error(syntax.command, "--scope and stubs exclude each other");
    quantize_options.scope = "stubs";
    quantize_options.quant_stubs = quant_stubs.items;
    quantize_options.quant_stub_count = quant_stubs.count;
    quantize_options.dequant_stubs = dequant_stubs.items;
    quantize_options.dequant_stub_count = dequant_stubs.count;
  }
  quantize_options.steps = steps.items;
  quantize_options.step_count = steps.count;
  quantize_options.without = without.items;
  quantize_options.without_count = without.count;
  check_training_options(&syntax, argc, argv, quantize_options.qat);
  const int status = quantize(&quantize_options, &run, json);
  free(quant_stubs.items);
  free(dequant_stubs.items);
  free(steps.items);
  free(without.items);
  return status;
}

/* "onnx", with or without the quotes that the example's own list of choices has inside the words. */
static bool is_export(const char *word, const char *name) {
  const size_t length = strlen(name), quotes = word[0] == '\'';
  return strncmp(word + quotes, name, length) == 0 && strcmp(word + quotes + length, quotes ? "'" : "") == 0;
}

static int check_exports(const char *command, const cli_list *exports) {
  for (size_t i = 0; i < exports->count; i++) {
    const char *word = exports->items[i];
    if (is_export(word, "onnx")) continue;
    if (!is_export(word, "torch_compile") && !is_export(word, "torch_save"))
      cli_usage_error(command, "option '--model_export' takes onnx, not '%s'", word);
    cli_message("--model_export %s: PyTorch's own formats cannot be written; onnx, the default, holds the same network", word);
    return CLI_FAILED;
  }
  return CLI_OK;
}

int cli_quark_example(int argc, char **argv) {
  enum { EXAMPLE_BATCH = 25, EXAMPLE_BATCHES = 20 };
  bnd_quantize_options quantize_options = {.output = "./quant_result", .recipe = "quark", .target = "amd-xint8", .batch = EXAMPLE_BATCH};
  cli_run run = {0};
  cli_list exports = {0};
  const char *model_name = NULL, *gpus = NULL, *pretrained = NULL;
  bool json = false;
  int validation_batch = 8, calibration_batches = EXAMPLE_BATCHES;
  const cli_option options[] = {
      {"data_dir", 0, CLI_PATH, &quantize_options.data, "DIR", "folder in COCO layout, with annotations/ and images/val2017", 0, 0, true},
      {"checkpoint", 0, CLI_PATH, &quantize_options.checkpoint, "FILE", "the trained network", 0, 0, false},
      {"pretrained", 0, CLI_PATH, &pretrained, "FILE", "the same as --checkpoint", 0, 0, false},
      {"model_name", 0, CLI_CHOICE, &model_name, "yolo-nas", "the only one (default: yolo-nas)", 0, 0, false},
      {"calib_data_size", 0, CLI_INT, &calibration_batches, "N", "calibration batches, of 25 images each (default: 20)", 1, 10000000, false},
      {"qat", 0, CLI_FLAG, &quantize_options.qat, NULL, "train the quantized network, too (quantization-aware training), for one epoch", 0, 0, false},
      {"train_data_percent", 0, CLI_NUMBER, &quantize_options.qat_share, "X",
       "share of train2017 to train on, chosen by the seed; 1 is all of it (default: 0.001)", 1e-12, 1, false},
      {"train_batch_size", 0, CLI_INT, &quantize_options.qat_batch, "N", "images in a training step (default: 8)", 1, 100000, false},
      {"export_dir", 'o', CLI_PATH, &quantize_options.output, "DIR", "folder for the results (default: ./quant_result)", 0, 0, false},
      {"model_export", 0, CLI_LIST, &exports, "onnx", "format to write (default: onnx)", 0, 0, false},
      {"val_batch_size", 0, CLI_INT, &validation_batch, "N", "accepted; results do not depend on it", 1, 100000, false},
      {"gpus", 0, CLI_TEXT, &gpus, "LIST", "accepted and not used: everything runs on the processor", 0, 0, false},
      {"json", 0, CLI_FLAG, &json, NULL, "the result table as JSON", 0, 0, false},
      {"seed", 0, CLI_COUNT, &run.seed, "K", "seed of everything random (default: 0)", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {
      cli_program(), "",
      "Quantizes a YOLO-NAS checkpoint to INT8 with power-of-two scales, with the options of AMD Quark's example of the same name. 'binade quantize' does "
      "the same and more.",
      0, 0, options, sizeof options / sizeof *options, NULL};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  if (pretrained) {
    if (quantize_options.checkpoint && strcmp(quantize_options.checkpoint, pretrained) != 0)
      cli_usage_error(syntax.command, "--checkpoint and --pretrained name different files");
    quantize_options.checkpoint = pretrained;
  }
  if (!quantize_options.checkpoint) cli_usage_error(syntax.command, "option '--checkpoint FILE' is missing");
  quantize_options.calibration_images = (uint64_t)calibration_batches * EXAMPLE_BATCH;

  int status = check_exports(syntax.command, &exports);
  free(exports.items);
  if (status != CLI_OK) return status;
  if (gpus && *gpus && !run.quiet) cli_message("--gpus %s is not used: everything runs on the processor", gpus);
  return quantize(&quantize_options, &run, json);
}
