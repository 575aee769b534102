/* binade train */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yajl/yajl_gen.h>

#include "cli.h"

/* ---- While training: a table with a row for each epoch; the live line is the row of the epoch in progress ---- */

enum { ROW = 160, ROWS_PER_HEADER = 25 };

/* Sums over the steps of an epoch that were done here. */
typedef struct epoch_sums {
  uint64_t steps;
  double loss, classification, iou, dfl;
  double seconds_per_image;
} epoch_sums;

typedef struct epoch_table {
  epoch_sums sums;
  int rows; /* printed so far */
} epoch_table;

/* "12/30": right-aligned below "epoch". */
static int epoch_width(uint64_t epochs) {
  const int width = 2 * snprintf(NULL, 0, "%llu", (unsigned long long)epochs) + 1;
  return width < 5 ? 5 : width;
}

/* Four digits behind the point as long as six characters suffice. */
static const char *loss_text(double loss, char text[static 32]) {
  const int decimals = loss < 10 ? 4 : loss < 100 ? 3 : loss < 1000 ? 2 : 1;
  snprintf(text, 32, loss < 1e5 ? "%.*f" : "%.*e", loss < 1e5 ? decimals : 0, loss);
  return text;
}

static void write_header(char line[static ROW], uint64_t epochs) {
  snprintf(line, ROW, "%*s  %6s  %6s  %6s  %6s  %7s  %5s  %8s  %10s", epoch_width(epochs), "epoch", "loss", "class", "iou", "dfl", "lr", "img/s",
           "mAP@0.50", "@0.50:0.95");
}

/* Everything left of the mAP columns; `sums` of at least one step. The length written. */
static int write_row(char line[static ROW], const bnd_train_report *report, const epoch_sums *sums) {
  const double parts[4] = {sums->loss, sums->classification, sums->iou, sums->dfl}, steps = (double)sums->steps;
  char epoch[48], text[32];
  snprintf(epoch, sizeof epoch, "%llu/%llu", (unsigned long long)report->epoch, (unsigned long long)report->epochs);
  int length = snprintf(line, ROW, "%*s", epoch_width(report->epochs), epoch);
  for (int i = 0; i < 4; i++) length += snprintf(line + length, (size_t)(ROW - length), "  %6s", loss_text(parts[i] / steps, text));
  const double rate = sums->seconds_per_image > 0 ? steps / sums->seconds_per_image : 0;
  return length + snprintf(line + length, (size_t)(ROW - length), "  %7.1e  %5.*f", report->learning_rate, rate < 1000 ? 1 : 0, rate);
}

static epoch_sums sums_of(const bnd_train_report *report) {
  const double rate = report->images_per_second;
  return (epoch_sums){1, report->loss, report->classification, report->iou, report->dfl, rate > 0 ? 1 / rate : 0};
}

static void add(epoch_sums *sums, const epoch_sums *step) {
  sums->steps += step->steps;
  sums->loss += step->loss;
  sums->classification += step->classification;
  sums->iou += step->iou;
  sums->dfl += step->dfl;
  sums->seconds_per_image += step->seconds_per_image;
}

static void show_step(void *user, const bnd_train_report *report) {
  cli_run *run = user;
  epoch_table *table = run->data;
  if (run->quiet || report->epochs == 0 || report->steps < report->epochs || report->step == 0) return;
  char line[ROW], clock[CLI_CLOCK_SIZE];
  const uint64_t steps = report->steps / report->epochs, step = (report->step - 1) % steps + 1; /* of the epoch */
  const epoch_sums this_step = sums_of(report);
  if (step == 1) table->sums = (epoch_sums){0};
  add(&table->sums, &this_step);
  if (table->rows == 0 || (step == steps && table->rows % ROWS_PER_HEADER == 0)) {
    write_header(line, report->epochs);
    cli_lasting_line(run, line);
    table->rows++;
  }
  if (step < steps) {
    const int length = write_row(line, report, &this_step);
    snprintf(line + length, (size_t)(ROW - length), "  %llu/%llu  %s left", (unsigned long long)step, (unsigned long long)steps,
             cli_clock(report->remaining_seconds, clock));
    cli_live_line(run, line);
    return;
  }
  const int length = write_row(line, report, &table->sums);
  if (report->validated)
    snprintf(line + length, (size_t)(ROW - length), "  %8.4f  %10.4f%s", report->map50, report->map50_95, report->best ? " best" : "");
  cli_lasting_line(run, line);
  table->rows++;
}

/* ---- At the end ---- */

static void print_path(const char *key, const char *folder, const char *name, cli_json *json) {
  char *path;
  if (asprintf(&path, "%s/%s", folder, name) < 0) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  cli_json_key(json, key);
  cli_json_text(json, path);
  free(path);
}

static void print_json(const bnd_train_options *options, const bnd_train_result *result) {
  cli_json *json = cli_json_create();
  yajl_gen_map_open(json);
  cli_json_key(json, "output");
  cli_json_text(json, options->output);
  if (isfinite(result->best_map50_95)) print_path("best", options->output, "best.pth", json);
  print_path("last", options->output, "last.pth", json);
  cli_json_key(json, "epochs");
  cli_json_count(json, result->epochs);
  cli_json_key(json, "steps");
  cli_json_count(json, result->steps);
  cli_json_key(json, "images");
  cli_json_count(json, result->images);
  cli_json_key(json, "loss");
  cli_json_number(json, result->loss);
  cli_json_key(json, "best_epoch");
  cli_json_count(json, result->best_epoch);
  cli_json_key(json, "map50");
  cli_json_number(json, result->best_map50);
  cli_json_key(json, "map50_95");
  cli_json_number(json, result->best_map50_95);
  cli_json_key(json, "seconds");
  cli_json_number(json, result->seconds);
  cli_json_key(json, "memory");
  cli_json_count(json, result->memory);
  yajl_gen_map_close(json);
  cli_json_print(json, stdout);
}

static void print_file(const char *folder, const char *name, const char *what) {
  cli_write(stdout, folder, false);
  printf("/%s: %s\n", name, what);
}

static void print_summary(const bnd_train_options *options, const bnd_train_result *result) {
  char clock[CLI_CLOCK_SIZE], loss[32];
  const bool validated = isfinite(result->best_map50_95);
  printf("%llu epochs, %llu steps, %llu images in %s; %.1f GiB; loss %s\n", (unsigned long long)result->epochs, (unsigned long long)result->steps,
         (unsigned long long)result->images, cli_clock(result->seconds, clock), (double)result->memory / 0x1p30, loss_text(result->loss, loss));
  if (validated)
    printf("best: epoch %llu, mAP@0.50 %.4f, mAP@0.50:0.95 %.4f\n", (unsigned long long)result->best_epoch, result->best_map50, result->best_map50_95);
  printf("\n");
  if (validated) print_file(options->output, "best.pth", "the weights of that epoch");
  print_file(options->output, "last.pth", "the weights at the end and their moving average");
  if (validated && options->best_snapshots > 0) print_file(options->output, "average.pth", "the average of the best epochs");
  print_file(options->output, "training.svg", "the course of loss and mAP; metrics.jsonl has the numbers");

  printf("\nnext: binade quantize ");
  char *network;
  if (asprintf(&network, "%s/%s.pth", options->output, validated ? "best" : "last") < 0) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  cli_write_word(stdout, network);
  free(network);
  printf(" --data ");
  cli_write_word(stdout, options->data);
  if (options->validation_split) {
    printf(" --split ");
    cli_write_word(stdout, options->validation_split);
  }
  printf("\n");
}

/* Why it ended is said already; what helps follows. */
static void print_hint(const bnd_train_options *options) {
  char *state;
  if (asprintf(&state, "%s/state.pth", options->output) < 0) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  if (access(state, R_OK) == 0)
    cli_message("to go on from %s, give the same command %s", state, options->resume ? "again" : options->restart ? "with --resume instead of --restart" : "with --resume");
  free(state);
}

static int train(bnd_train_options *train_options, cli_run *run, bool json) {
  bnd_error error = {0};
  bnd_train_result result = {0};
  epoch_table table = {0};
  char *command = cli_command_line();
  train_options->command = command;
  train_options->report = show_step;
  run->transient = true; /* a validation after every epoch: its row says it all */
  run->data = &table;
  bnd_context *context = cli_run_begin(run);
  const bnd_status status = bnd_train(train_options, context, &result, &error);
  cli_run_end(run);
  free(command);
  if (status != BND_OK) {
    const int code = cli_fail(status, &error);
    if (status == BND_ERROR_INTERRUPTED) print_hint(train_options);
    return code;
  }
  if (json) print_json(train_options, &result);
  else print_summary(train_options, &result);
  return CLI_OK;
}

/* ---- Options ---- */

/* Options that have no meaning together. */
static void check_options(const char *command, const bnd_train_options *options, const char *variant, bool no_average) {
  if (options->resume && options->restart) cli_usage_error(command, "--resume and --restart exclude each other");
  if (options->init && variant) cli_usage_error(command, "--variant goes without --init: the checkpoint says which network it is");
  if (options->init && options->width != 0) cli_usage_error(command, "--width goes without --init: the checkpoint says which network it is");
  if (no_average && options->average_decay != 0) cli_usage_error(command, "--ema and --no-ema exclude each other");
  if (options->final_ratio != 0 && options->schedule && strcmp(options->schedule, "cosine") != 0)
    cli_usage_error(command, "--final-lr-ratio goes with --schedule cosine only, not with %s", options->schedule);
  if (options->best_snapshots != 0 && options->validate_every < 0)
    cli_usage_error(command, "--best-snapshots needs validation, which --val-every 0 turns off");
}

int cli_train(int argc, char **argv) {
  bnd_train_options train_options = {0};
  cli_run run = {0};
  bool json = false, no_average = false;
  const char *variant = NULL;
  int validate_every = 1;
  uint64_t warmup_steps = UINT64_MAX;
  double weight_decay = NAN; /* nothing that can be given */
  const cli_option options[] = {
      {"data", 'd', CLI_PATH, &train_options.data, "DIR", "folder in COCO layout: annotations/instances_SPLIT.json, images/SPLIT/", 0, 0, true},
      {"output", 'o', CLI_PATH, &train_options.output, "DIR", "folder for the results", 0, 0, true},
      {"split", 0, CLI_TEXT, &train_options.split, "SPLIT", "part of the data to train on (default: train2017)", 0, 0, false},
      {"val-split", 0, CLI_TEXT, &train_options.validation_split, "SPLIT", "part of the data to validate on (default: val2017)", 0, 0, false},
      {"variant", 0, CLI_CHOICE, &variant, "s|m|l", "which YOLO-NAS, from scratch (default: s)", 0, 0, false},
      {"width", 0, CLI_NUMBER, &train_options.width, "W", "factor of its channels, from scratch (default: 1)", 0.01, 16, false},
      {"init", 0, CLI_PATH, &train_options.init, "CHECKPOINT", "start from these weights; other classes get a fresh class prediction", 0, 0, false},
      {"resume", 0, CLI_FLAG, &train_options.resume, NULL, "go on with the run in the output folder; give the other options as before", 0, 0, false},
      {"restart", 0, CLI_FLAG, &train_options.restart, NULL, "replace the run in the output folder", 0, 0, false},
      {"size", 0, CLI_INT, &train_options.size, "S", "side of the square input, a multiple of 32 (default: the checkpoint's own, or 640)", 32, 8192, false},
      {"epochs", 'e', CLI_INT, &train_options.epochs, "N", "times through the images (default: 30)", 1, 1000000, false},
      {"batch", 'b', CLI_INT, &train_options.batch, "B", "images in a batch (default: 8)", 1, 100000, false},
      {"accumulate", 0, CLI_INT, &train_options.accumulate, "K", "batches for each step of the optimizer (default: 1)", 1, 100000, false},
      {"optimizer", 0, CLI_CHOICE, &train_options.optimizer, "adamw|sgd", "what moves the weights (default: adamw)", 0, 0, false},
      {"lr", 0, CLI_NUMBER, &train_options.learning_rate, "X", "learning rate after warm-up (default: 5e-4)", 1e-12, 1000, false},
      {"schedule", 0, CLI_CHOICE, &train_options.schedule, "cosine|step|constant",
       "how it falls; step: to a tenth at 2/3 and at 8/9 of the epochs (default: cosine)", 0, 0, false},
      {"final-lr-ratio", 0, CLI_NUMBER, &train_options.final_ratio, "X", "what a cosine leaves of it (default: 0.1)", 1e-6, 1, false},
      {"warmup-steps", 0, CLI_COUNT, &warmup_steps, "N", "steps in which it rises, an epoch at most (default: 100; 0: none)", 0, 1e9, false},
      {"weight-decay", 0, CLI_NUMBER, &weight_decay, "X", "of weights, not of biases and norms (default: 1e-5)", 0, 10, false},
      {"clip-norm", 0, CLI_NUMBER, &train_options.clip_norm, "X", "largest norm of the gradients together (default: any)", 1e-9, 1e9, false},
      {"ema", 0, CLI_NUMBER, &train_options.average_decay, "DECAY", "of the weights' moving average (default: 0.9997)", 1e-9, 0.9999999, false},
      {"no-ema", 0, CLI_FLAG, &no_average, NULL, "no moving average: the weights as they are", 0, 0, false},
      {"best-snapshots", 0, CLI_INT, &train_options.best_snapshots, "N", "also the average of the best N epochs, as average.pth", 1, 1000, false},
      {"freeze-bn", 0, CLI_FLAG, &train_options.frozen_batch_norm, NULL, "batch normalization keeps its running statistics", 0, 0, false},
      {"no-augmentation", 0, CLI_FLAG, &train_options.no_augmentation, NULL, "images as they are validated: no moving, mixing, mirroring, recoloring", 0, 0, false},
      {"in-order", 0, CLI_FLAG, &train_options.in_order, NULL, "images in the order of the annotation file, not shuffled", 0, 0, false},
      {"images", 'n', CLI_COUNT, &train_options.images, "N", "train on the first N images only (default: all)", 1, 1e9, false},
      {"share", 0, CLI_NUMBER, &train_options.share, "X", "of these images, train on this share, drawn with the seed (default: 1)", 1e-9, 1, false},
      {"val-every", 0, CLI_INT, &validate_every, "N", "epochs from one validation to the next (default: 1; 0: none)", 0, 1000000, false},
      {"val-images", 0, CLI_COUNT, &train_options.validation_images, "N", "validate on the first N images only (default: all)", 1, 1e9, false},
      {"save-minutes", 0, CLI_NUMBER, &train_options.save_minutes, "X", "the state is saved this often, and after every epoch (default: 2)", 0.01, 1e6, false},
      {"json", 0, CLI_FLAG, &json, NULL, "the summary as JSON", 0, 0, false},
      {"seed", 0, CLI_COUNT, &run.seed, "K", "seed of everything random (default: 0)", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {
      "binade train", "",
      "Trains YOLO-NAS on annotated images, from scratch or from a checkpoint. The same options, images and seed give the same weights, bit for bit, with any "
      "number of threads and however often the run was stopped and resumed.",
      0, 0, options, sizeof options / sizeof *options,
      "Written to the output folder: best.pth (the moving average with the best mAP@0.50:0.95 in validation), last.pth (the weights and their moving "
      "average at the end), metrics.jsonl (a line for each epoch), training.svg, state.pth (what is needed to go on). Both checkpoints are PyTorch's."};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  if (variant) train_options.variant = variant[0];
  if (validate_every != 1) train_options.validate_every = validate_every > 0 ? validate_every : -1;
  if (warmup_steps != UINT64_MAX) train_options.warmup_steps = warmup_steps > 0 ? (int64_t)warmup_steps : -1;
  if (!isnan(weight_decay)) train_options.weight_decay = weight_decay > 0 ? weight_decay : -1;
  check_options(syntax.command, &train_options, variant, no_average);
  if (no_average) train_options.average_decay = -1;
  return train(&train_options, &run, json);
}
