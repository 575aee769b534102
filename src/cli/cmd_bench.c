/* binade bench */
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>

#include "cli.h"

/* --- sums --- */

/* What layers that have something in common come to. */
typedef struct sum {
  const char *kernel;
  bool integer;
  int layers;
  double macs, seconds, ideal_seconds; /* ideal: the multiply-adds at the machine's peak */
} sum;

static const bnd_bench_peak *peak_of(const bnd_bench_result *result, bool integer) { return integer ? &result->integer_peak : &result->float_peak; }

static void add(sum *to, const bnd_bench_result *result, const bnd_bench_layer *layer) {
  to->layers++;
  to->macs += layer->macs;
  to->seconds += layer->seconds;
  to->ideal_seconds += layer->macs / peak_of(result, layer->integer)->macs;
}

static sum sum_of_all(const bnd_bench_result *result) {
  sum all = {0};
  for (size_t i = 0; i < result->layer_count; i++) add(&all, result, &result->layers[i]);
  return all;
}

/* Of an integer network: what still runs in FP32. */
static bool is_island(const bnd_bench_result *result, const bnd_bench_layer *layer) {
  return result->executor == BND_EXECUTOR_INT8 && !layer->integer;
}

static int compare_sums(const void *a, const void *b) {
  const sum *x = a, *y = b;
  return x->seconds != y->seconds ? (x->seconds < y->seconds) - (x->seconds > y->seconds) : strcmp(x->kernel, y->kernel);
}

/* One for each kernel, the longest time first. */
static sum *sum_kernels(const bnd_bench_result *result, size_t *count) {
  sum *sums = cli_allocate(result->layer_count, sizeof *sums);
  *count = 0;
  for (size_t i = 0; i < result->layer_count; i++) {
    const bnd_bench_layer *layer = &result->layers[i];
    size_t k = 0;
    while (k < *count && (strcmp(sums[k].kernel, layer->kernel) != 0 || sums[k].integer != layer->integer)) k++;
    if (k == *count) {
      sums[k].kernel = layer->kernel;
      sums[k].integer = layer->integer;
      ++*count;
    }
    add(&sums[k], result, layer);
  }
  qsort(sums, *count, sizeof *sums, compare_sums);
  return sums;
}

static const char *executor_name(const bnd_bench_result *result) {
  if (result->executor == BND_EXECUTOR_INT8) return "int8";
  return result->executor == BND_EXECUTOR_REFERENCE ? "reference" : "fakequant";
}

/* --- text --- */

static void cells(cli_table *table, const char *const *texts, size_t count) {
  for (size_t i = 0; i < count; i++) cli_table_cell(table, "%s", texts[i]);
}

static void empty(cli_table *table) { cells(table, (const char *const[]){""}, 1); }

/* MMAC, ms, share of the time, GOP/s, share of the peak. A multiply-add is two operations. */
static void rate_cells(cli_table *table, const sum *s, double all_seconds) {
  if (s->macs > 0) cli_table_cell(table, "%.1f", s->macs * 1e-6);
  else empty(table);
  cli_table_cell(table, "%.3f", s->seconds * 1e3);
  if (all_seconds > 0) cli_table_cell(table, "%.1f %%", 100 * s->seconds / all_seconds);
  else empty(table);
  const bool has_rate = s->macs > 0 && s->seconds > 0;
  if (has_rate) cli_table_cell(table, "%.1f", 2e-9 * s->macs / s->seconds);
  else empty(table);
  if (has_rate) cli_table_cell(table, "%.0f %%", 100 * s->ideal_seconds / s->seconds);
  else empty(table);
}

/* "3x3/2", "1x1", "" where there is no window. */
static void window_cell(cli_table *table, const bnd_bench_layer *layer) {
  const long long h = layer->window[0], w = layer->window[1], down = layer->stride[0], across = layer->stride[1];
  if (h <= 0 || w <= 0) empty(table);
  else if (down == across && down > 1) cli_table_cell(table, "%lldx%lld/%lld", h, w, down);
  else if (down != across) cli_table_cell(table, "%lldx%lld/%lldx%lld", h, w, down, across);
  else cli_table_cell(table, "%lldx%lld", h, w);
}

/* Reasons are long and few: the table has their numbers, the texts follow. */
static int number_of_reason(const char **reasons, size_t *count, const char *reason) {
  size_t k = 0;
  while (k < *count && strcmp(reasons[k], reason) != 0) k++;
  if (k == *count) reasons[(*count)++] = reason;
  return (int)k + 1;
}

static void print_layers(const bnd_bench_result *result, const sum *all) {
  static const char *const headers[] = {"#", "layer", "output", "window", "MMAC", "ms", "time", "GOP/s", "peak", "GB/s", "kernel", "note"};
  cli_table *table = cli_table_create("rllrrrrrrrll");
  const char **reasons = cli_allocate(result->layer_count, sizeof *reasons);
  size_t reason_count = 0;
  cells(table, headers, sizeof headers / sizeof *headers);
  for (size_t i = 0; i < result->layer_count; i++) {
    const bnd_bench_layer *layer = &result->layers[i];
    sum s = {0};
    add(&s, result, layer);
    cli_table_cell(table, "%zu", i);
    cli_table_cell(table, "%s", layer->name);
    cli_table_cell(table, "%s", layer->output);
    window_cell(table, layer);
    rate_cells(table, &s, all->seconds);
    if (layer->seconds > 0) cli_table_cell(table, "%.1f", 1e-9 * (double)layer->bytes / layer->seconds);
    else empty(table);
    cli_table_cell(table, "%s", layer->kernel);
    if (*layer->reason) cli_table_cell(table, "[%d]", number_of_reason(reasons, &reason_count, layer->reason));
    else empty(table);
  }
  cells(table, (const char *const[]){"", "total", "", ""}, 4);
  rate_cells(table, all, all->seconds);
  cells(table, (const char *const[]){"", "", ""}, 3);
  cli_table_print(table, stdout);
  if (reason_count) printf("\nwhy not a faster kernel:\n");
  for (size_t k = 0; k < reason_count; k++) {
    printf("  [%zu] ", k + 1);
    cli_write(stdout, reasons[k], false);
    printf("\n");
  }
  free(reasons);
}

static void print_kernels(const bnd_bench_result *result, const sum *all) {
  static const char *const headers[] = {"kernel", "steps", "MMAC", "ms", "time", "GOP/s", "peak"};
  cli_table *table = cli_table_create("lrrrrrr");
  size_t count;
  sum *sums = sum_kernels(result, &count);
  printf("\n");
  cells(table, headers, sizeof headers / sizeof *headers);
  for (size_t k = 0; k < count; k++) {
    cli_table_cell(table, "%s%s", sums[k].kernel, result->executor == BND_EXECUTOR_INT8 && !sums[k].integer ? " (FP32)" : "");
    cli_table_cell(table, "%d", sums[k].layers);
    rate_cells(table, &sums[k], all->seconds);
  }
  cli_table_cell(table, "total");
  cli_table_cell(table, "%d", all->layers);
  rate_cells(table, all, all->seconds);
  cli_table_print(table, stdout);
  free(sums);
}

/* "from_bytes, softmax": the kernels of layers [first, end), each once. */
static void kernels_cell(cli_table *table, const bnd_bench_layer *layers, size_t first, size_t end) {
  char *text = NULL;
  size_t size = 0;
  FILE *stream = open_memstream(&text, &size);
  if (!stream) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  for (size_t i = first; i < end; i++) {
    size_t earlier = first;
    while (earlier < i && strcmp(layers[earlier].kernel, layers[i].kernel) != 0) earlier++;
    if (earlier == i) fprintf(stream, "%s%s", i > first ? ", " : "", layers[i].kernel);
  }
  if (fclose(stream) != 0) exit(cli_fail(BND_ERROR_MEMORY, NULL));
  cli_table_cell(table, "%s", text);
  free(text);
}

/* Neighbours in FP32 make an island. */
static void print_islands(const bnd_bench_result *result, const sum *all) {
  if (result->executor != BND_EXECUTOR_INT8) return;
  static const char *const headers[] = {"FP32 islands", "MMAC", "ms", "time", "GOP/s", "peak", "kernels"};
  cli_table *table = cli_table_create("lrrrrrl");
  cells(table, headers, sizeof headers / sizeof *headers);
  sum islands = {0};
  for (size_t first = 0, end; first < result->layer_count; first = end) {
    sum island = {0};
    for (end = first; end < result->layer_count && is_island(result, &result->layers[end]); end++) {
      add(&island, result, &result->layers[end]);
      add(&islands, result, &result->layers[end]);
    }
    if (end == first) {
      end++;
      continue;
    }
    if (end == first + 1) cli_table_cell(table, "step %zu", first);
    else cli_table_cell(table, "steps %zu to %zu", first, end - 1);
    rate_cells(table, &island, all->seconds);
    kernels_cell(table, result->layers, first, end);
  }
  cells(table, (const char *const[]){islands.layers ? "total" : "none"}, 1);
  rate_cells(table, &islands, all->seconds);
  empty(table);
  printf("\n");
  cli_table_print(table, stdout);
}

static void print_head(const char *path, const bnd_bench_result *result) {
  cli_write(stdout, path, false);
  printf(": %s executor%s", executor_name(result), result->quantized ? "" : ", no quantizers (FP32)");
  if (result->width) printf(", %dx%d", result->width, result->height);
  printf(", %d %s, shortest of %d rounds%s\n", result->threads, result->threads == 1 ? "thread" : "threads", result->rounds,
         result->processor_time ? ", processor time" : "");
  printf("%s, at most %s; peak %.1f GOP/s in FP32 (%s), %.1f in int8 (%s)\n\n", result->library, result->instructions, 2e-9 * result->float_peak.macs,
         result->float_peak.name, 2e-9 * result->integer_peak.macs, result->integer_peak.name);
}

static void print_text(const char *path, const bnd_bench_result *result) {
  const sum all = sum_of_all(result);
  print_head(path, result);
  print_layers(result, &all);
  print_kernels(result, &all);
  print_islands(result, &all);
  printf("\nforward pass  %.3f ms shortest, %.3f ms median", result->seconds * 1e3, result->median_seconds * 1e3);
  if (result->processor_time) printf(" of processor time; %.3f ms by the clock", result->wall_seconds * 1e3);
  if (result->batch)
    printf("\n%-14s%.3f ms for %d images, one to a thread (%.1f images/s)", "batch", result->batch_seconds * 1e3, result->batch,
           result->batch / result->batch_seconds);
  printf("\nmemory        %.1f MiB activations, %.1f MiB weights; %.0f MiB resident at most\n", (double)result->arena_bytes / 1048576,
         (double)result->weight_bytes / 1048576, result->peak_rss_mib);
}

/* --- JSON --- */

static void put_text(cli_json *json, const char *key, const char *text) {
  cli_json_key(json, key);
  cli_json_text(json, text);
}

static void put_number(cli_json *json, const char *key, double number) {
  cli_json_key(json, key);
  cli_json_number(json, number);
}

static void put_count(cli_json *json, const char *key, uint64_t count) {
  cli_json_key(json, key);
  cli_json_count(json, count);
}

static void put_flag(cli_json *json, const char *key, bool flag) {
  cli_json_key(json, key);
  yajl_gen_bool(json, flag);
}

static void put_pair(cli_json *json, const char *key, const int64_t pair[2]) {
  cli_json_key(json, key);
  yajl_gen_array_open(json);
  for (int i = 0; i < 2; i++) yajl_gen_integer(json, pair[i]);
  yajl_gen_array_close(json);
}

static void put_peak(cli_json *json, const char *key, const bnd_bench_peak *peak) {
  cli_json_key(json, key);
  yajl_gen_map_open(json);
  put_text(json, "name", peak->name);
  put_number(json, "macs_per_second", peak->macs);
  yajl_gen_map_close(json);
}

static void put_sum(cli_json *json, const sum *s) {
  put_count(json, "steps", (uint64_t)s->layers);
  put_number(json, "macs", s->macs);
  put_number(json, "seconds", s->seconds);
  put_number(json, "peak_share", s->ideal_seconds / s->seconds);
}

static void put_layer(cli_json *json, const bnd_bench_result *result, const bnd_bench_layer *layer) {
  yajl_gen_map_open(json);
  put_text(json, "name", layer->name);
  put_text(json, "input", layer->input);
  put_text(json, "output", layer->output);
  put_pair(json, "window", layer->window);
  put_pair(json, "stride", layer->stride);
  put_number(json, "macs", layer->macs);
  put_count(json, "bytes", layer->bytes);
  put_number(json, "seconds", layer->seconds);
  put_number(json, "peak_share", layer->macs / layer->seconds / peak_of(result, layer->integer)->macs);
  put_text(json, "kernel", layer->kernel);
  put_text(json, "reason", layer->reason);
  put_flag(json, "convolution", layer->convolution);
  put_flag(json, "integer", layer->integer);
  yajl_gen_map_close(json);
}

static void put_kernels(cli_json *json, const bnd_bench_result *result) {
  size_t count;
  sum *sums = sum_kernels(result, &count);
  cli_json_key(json, "kernels");
  yajl_gen_array_open(json);
  for (size_t k = 0; k < count; k++) {
    yajl_gen_map_open(json);
    put_text(json, "kernel", sums[k].kernel);
    put_flag(json, "integer", sums[k].integer);
    put_sum(json, &sums[k]);
    yajl_gen_map_close(json);
  }
  yajl_gen_array_close(json);
  free(sums);
}

static void print_json(const char *path, const bnd_bench_result *result) {
  const sum all = sum_of_all(result);
  cli_json *json = cli_json_create();
  yajl_gen_map_open(json);
  put_text(json, "model", path);
  put_text(json, "executor", executor_name(result));
  put_flag(json, "quantized", result->quantized);
  put_count(json, "width", (uint64_t)result->width);
  put_count(json, "height", (uint64_t)result->height);
  put_count(json, "threads", (uint64_t)result->threads);
  put_count(json, "rounds", (uint64_t)result->rounds);
  put_text(json, "library", result->library);
  put_text(json, "instructions", result->instructions);
  put_text(json, "clock", result->processor_time ? "processor" : "wall");
  put_number(json, "seconds", result->seconds);
  put_number(json, "median_seconds", result->median_seconds);
  put_number(json, "wall_seconds", result->wall_seconds);
  if (result->batch) {
    put_count(json, "batch", (uint64_t)result->batch);
    put_number(json, "batch_seconds", result->batch_seconds);
  }
  put_peak(json, "float_peak", &result->float_peak);
  put_peak(json, "integer_peak", &result->integer_peak);
  put_count(json, "activation_bytes", result->arena_bytes);
  put_count(json, "weight_bytes", result->weight_bytes);
  put_number(json, "peak_rss_mib", result->peak_rss_mib);
  cli_json_key(json, "total");
  yajl_gen_map_open(json);
  put_sum(json, &all);
  yajl_gen_map_close(json);
  put_kernels(json, result);
  cli_json_key(json, "float_islands");
  yajl_gen_array_open(json);
  for (size_t i = 0; i < result->layer_count; i++)
    if (is_island(result, &result->layers[i])) cli_json_text(json, result->layers[i].name);
  yajl_gen_array_close(json);
  cli_json_key(json, "layers");
  yajl_gen_array_open(json);
  for (size_t i = 0; i < result->layer_count; i++) put_layer(json, result, &result->layers[i]);
  yajl_gen_array_close(json);
  yajl_gen_map_close(json);
  cli_json_print(json, stdout);
}

int cli_bench(int argc, char **argv) {
  bnd_bench_options bench = {0};
  cli_run run = {.transient = true};
  bool json = false;
  const char *executor = NULL;
  const cli_option options[] = {
      {"executor", 0, CLI_CHOICE, &executor, CLI_EXECUTORS, "what computes (default: int8 for quantized networks, else fakequant)", 0, 0, false},
      {"size", 0, CLI_INT, &bench.size, "S", "side of the square input, a multiple of 32 (default: the checkpoint's own, or 640)", 32, 8192, false},
      {"rounds", 0, CLI_INT, &bench.rounds, "N", "forward passes; the shortest counts (default: 20, with reference 2)", 1, 1000000, false},
      {"batch", 0, CLI_INT, &bench.batch, "N", "also time N images at once, one to a thread, as eval runs them", 1, 1000000, false},
      {"json", 0, CLI_FLAG, &json, NULL, "as JSON", 0, 0, false},
      CLI_RUN_OPTIONS(run),
  };
  const cli_syntax syntax = {"binade bench", "MODEL",
                             "Times a network layer by layer: rates, the share of what this machine can do at most, kernels, memory.", 1, 1, options,
                             sizeof options / sizeof *options,
                             "GOP/s: additions and multiplications. GB/s: bytes read and written.\nWith one thread processor time counts, so that a busy machine does not show."};
  char **operands;
  cli_parse(&syntax, argc, argv, &operands);
  bench.executor = cli_executor(executor);

  bnd_error error = {0};
  bnd_model *model = NULL;
  bnd_bench_result result = {0};
  bnd_context *context = cli_run_begin(&run);
  bnd_status status = bnd_model_open(operands[0], &model, &error);
  if (status == BND_OK) status = bnd_bench(model, &bench, context, &result, &error);
  bnd_model_close(model);
  cli_run_end(&run);
  if (status != BND_OK) return cli_fail(status, &error);
  if (json) print_json(operands[0], &result);
  else print_text(operands[0], &result);
  bnd_bench_free(&result);
  return CLI_OK;
}
