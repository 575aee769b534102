/* binade dataset */
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>

#include "cli.h"

static const char command[] = "binade dataset";

/* "400-640", or "512" for both. */
static void read_sides(const char *text, int *least, int *most) {
  enum { LONGEST = 4 }; /* digits */
  const char *dash = strchr(text, '-'), *second = dash ? dash + 1 : text;
  const size_t first_length = dash ? (size_t)(dash - text) : strlen(text);
  const size_t first_digits = strspn(text, "0123456789"), second_digits = strspn(second, "0123456789");
  const bool whole = first_digits == first_length && !second[second_digits];
  if (!whole || first_digits < 1 || second_digits < 1 || first_digits > LONGEST || second_digits > LONGEST)
    cli_usage_error(command, "option '--size' takes two numbers of pixels such as 400-640, not '%s'", text);
  *least = atoi(text);
  *most = atoi(second);
  if (*least < 64 || *most > 4096 || *least > *most)
    cli_usage_error(command, "option '--size' takes sides from 64 to 4096, the smaller one first, not '%s'", text);
}

static void print_json(const bnd_dataset_shapes_options *options, const bnd_dataset_shapes_result *result) {
  cli_json *json = cli_json_create();
  yajl_gen_map_open(json);
  cli_json_key(json, "output");
  cli_json_text(json, options->output);
  cli_json_key(json, "split");
  cli_json_text(json, options->split);
  cli_json_key(json, "images");
  cli_json_count(json, result->images);
  cli_json_key(json, "objects");
  cli_json_count(json, result->objects);
  cli_json_key(json, "classes");
  yajl_gen_map_open(json);
  for (int i = 0; i < BND_DATASET_SHAPES_CLASSES; i++) {
    cli_json_key(json, result->classes[i].name);
    cli_json_count(json, result->classes[i].objects);
  }
  yajl_gen_map_close(json);
  yajl_gen_map_close(json);
  cli_json_print(json, stdout);
}

static void print_summary(const bnd_dataset_shapes_options *options, const bnd_dataset_shapes_result *result) {
  cli_table *table = cli_table_create("lr");
  cli_table_cell(table, "class");
  cli_table_cell(table, "objects");
  for (int i = 0; i < BND_DATASET_SHAPES_CLASSES; i++) {
    cli_table_cell(table, "%s", result->classes[i].name);
    cli_table_cell(table, "%llu", (unsigned long long)result->classes[i].objects);
  }
  cli_table_print(table, stdout);
  printf("\n%llu images with %llu objects in ", (unsigned long long)result->images, (unsigned long long)result->objects);
  cli_write(stdout, options->output, false);
  printf(", split ");
  cli_write(stdout, options->split, false);
  printf("\n");
}

int cli_dataset(int argc, char **argv) {
  bnd_dataset_shapes_options shapes = {.split = "train2017", .images = 1000, .quality = 88};
  cli_run run = {.seed = 1};
  const char *size = "400-640";
  bool json = false;
  const cli_option options[] = {
      {"output", 'o', CLI_PATH, &shapes.output, "DIR", "folder for the data set: annotations/instances_SPLIT.json, images/SPLIT/", 0, 0, true},
      {"images", 'n', CLI_COUNT, &shapes.images, "N", "images; the first do not depend on how many follow (default: 1000)", 1, 1000000, false},
      {"seed", 0, CLI_COUNT, &run.seed, "K", "seed of everything random (default: 1)", 0, 0, false},
      {"split", 0, CLI_PATH, &shapes.split, "SPLIT", "name of this part; parts differ also under one seed (default: train2017)", 0, 0, false},
      {"size", 0, CLI_PATH, &size, "MIN-MAX", "sides of the images in pixels (default: 400-640)", 0, 0, false},
      {"quality", 0, CLI_INT, &shapes.quality, "Q", "of the JPEG files (default: 88)", 1, 100, false},
      {"json", 0, CLI_FLAG, &json, NULL, "the summary as JSON", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {command, "shapes",
                             "Draws a data set in COCO layout: circles, squares, triangles, stars, crosses, rings, hexagons and arrows on clutter.", 1, 1,
                             options, sizeof options / sizeof *options,
                             "The same options give the same bytes on every machine.\nA data set that is there already stays, unless the same run wrote it."};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  if (strcmp(operands[0], "shapes") != 0) cli_usage_error(command, "unknown data set '%s'; there is 'shapes'", operands[0]);
  read_sides(size, &shapes.least_side, &shapes.most_side);

  bnd_error error = {0};
  bnd_dataset_shapes_result result = {0};
  bnd_context *context = cli_run_begin(&run);
  const bnd_status status = bnd_dataset_shapes(&shapes, context, &result, &error);
  cli_run_end(&run);
  if (status != BND_OK) return cli_fail(status, &error);
  if (json) print_json(&shapes, &result);
  else print_summary(&shapes, &result);
  return CLI_OK;
}
