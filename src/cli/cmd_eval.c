/* binade eval */
#include <time.h>
#include <yajl/yajl_gen.h>

#include "cli.h"

static const char *const coco_names[12] = {
    "AP  IoU 0.50:0.95, all areas",   "AP  IoU 0.50, all areas",         "AP  IoU 0.75, all areas",          "AP  IoU 0.50:0.95, small",
    "AP  IoU 0.50:0.95, medium",      "AP  IoU 0.50:0.95, large",        "AR  1 box an image",               "AR  10 boxes an image",
    "AR  100 boxes an image",         "AR  100 boxes, small",            "AR  100 boxes, medium",            "AR  100 boxes, large",
};

/* Processor time of the program so far. */
static double total_time(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_times(const bnd_evaluation_times *times) {
  const double total = total_time(), start = total - times->load - times->forward - times->postprocess - times->metrics;
  printf("\nprocessor time: start %.2f s, images %.2f s, forward %.2f s, detections %.2f s, metrics %.2f s; all of it %.3f times the forward\n", start,
         times->load, times->forward, times->postprocess, times->metrics, times->forward > 0 ? total / times->forward : 0);
}

static void print_json(const bnd_evaluation *result) {
  cli_json *json = cli_json_create();
  yajl_gen_map_open(json);
  cli_json_key(json, "map50");
  cli_json_number(json, result->map50);
  cli_json_key(json, "map50_95");
  cli_json_number(json, result->map50_95);
  cli_json_key(json, "coco");
  cli_json_numbers(json, result->coco, 12);
  cli_json_key(json, "images");
  cli_json_count(json, result->images);
  cli_json_key(json, "seconds");
  cli_json_number(json, result->seconds);
  const bnd_evaluation_times *times = &result->processor;
  cli_json_key(json, "cpu_seconds");
  yajl_gen_map_open(json);
  const struct {
    const char *name;
    double seconds;
  } parts[] = {{"load", times->load}, {"forward", times->forward}, {"postprocess", times->postprocess}, {"metrics", times->metrics}, {"total", total_time()}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    cli_json_key(json, parts[i].name);
    cli_json_number(json, parts[i].seconds);
  }
  yajl_gen_map_close(json);
  cli_json_key(json, "classes");
  yajl_gen_array_open(json);
  for (size_t i = 0; i < result->class_count; i++) {
    const bnd_class_result *class = &result->classes[i];
    yajl_gen_map_open(json);
    cli_json_key(json, "name");
    cli_json_text(json, class->name);
    cli_json_key(json, "objects");
    cli_json_count(json, class->objects);
    cli_json_key(json, "ap50");
    cli_json_number(json, class->ap50);
    cli_json_key(json, "ap50_95");
    cli_json_number(json, class->ap50_95);
    yajl_gen_map_close(json);
  }
  yajl_gen_array_close(json);
  yajl_gen_map_close(json);
  cli_json_print(json, stdout);
}

static void print_tables(const bnd_evaluation *result) {
  printf("mAP@0.50 %.4f   mAP@0.50:0.95 %.4f   (%llu images, %.1f s)\n\n", result->map50, result->map50_95, (unsigned long long)result->images,
         result->seconds);
  cli_table *coco = cli_table_create("lr");
  for (int i = 0; i < 12; i++) {
    cli_table_cell(coco, "%s", coco_names[i]);
    if (result->coco[i] < 0) cli_table_cell(coco, "-");
    else cli_table_cell(coco, "%.4f", result->coco[i]);
  }
  cli_table_print(coco, stdout);

  if (result->class_count == 0) return;
  cli_table *classes = cli_table_create("lrrr");
  for (int i = 0; i < 4; i++) cli_table_cell(classes, "%s", (const char *[]){"class", "objects", "AP@0.50", "AP@0.50:0.95"}[i]);
  for (size_t i = 0; i < result->class_count; i++) {
    const bnd_class_result *class = &result->classes[i];
    cli_table_cell(classes, "%s", class->name);
    cli_table_cell(classes, "%llu", (unsigned long long)class->objects);
    for (int k = 0; k < 2; k++) {
      const double precision = k == 0 ? class->ap50 : class->ap50_95;
      if (precision >= 0) cli_table_cell(classes, "%.4f", precision);
      else cli_table_cell(classes, "-"); /* also NaN: nothing annotated */
    }
  }
  printf("\n");
  cli_table_print(classes, stdout);
}

int cli_evaluate(int argc, char **argv) {
  bnd_evaluate_options evaluate = {0};
  cli_run run = {0};
  bool json = false;
  const char *form = NULL, *executor = NULL;
  const cli_option options[] = {
      {"data", 'd', CLI_PATH, &evaluate.data, "DIR", "folder in COCO layout: annotations/instances_SPLIT.json, images/SPLIT/", 0, 0, true},
      {"split", 0, CLI_TEXT, &evaluate.split, "SPLIT", "which part of the data (default: val2017)", 0, 0, false},
      {"images", 'n', CLI_COUNT, &evaluate.images, "N", "only the first N images (default: all)", 0, 0, false},
      {"size", 0, CLI_INT, &evaluate.size, "S", "side of the square input, a multiple of 32 (default: the checkpoint's own, or 640)", 32, 8192, false},
      {"form", 0, CLI_CHOICE, &form, CLI_FORMS, "how far branches and batch normalization are merged (default: train)", 0, 0, false},
      {"executor", 0, CLI_CHOICE, &executor, CLI_EXECUTORS, "what computes quantized networks; all give the same numbers (default: int8)", 0, 0, false},
      {"json", 0, CLI_FLAG, &json, NULL, "as JSON", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {"binade eval", "MODEL",
                             "Measures a network on annotated images: mAP as super-gradients computes it, COCO's twelve numbers, and each class.", 1, 1,
                             options, sizeof options / sizeof *options, NULL};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  evaluate.form = cli_form(form);
  evaluate.executor = cli_executor(executor);

  bnd_error error = {0};
  bnd_evaluation result = {0};
  bnd_context *context = cli_run_begin(&run);
  const bnd_status status = bnd_evaluate_file(operands[0], &evaluate, context, &result, &error);
  cli_run_end(&run);
  if (status != BND_OK) return cli_fail(status, &error);
  if (json) print_json(&result);
  else print_tables(&result);
  if (run.verbose && !json) print_times(&result.processor);
  bnd_evaluation_free(&result);
  return CLI_OK;
}
