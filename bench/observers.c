/* What observing costs: processor time of a calibration (the graph `binade quantize` calibrates, its images already in memory) beside that of the same
   number of plain forward passes, one thread.

   bench_observers CHECKPOINT DATA [--images N] [--batch B] [--rounds R] [--size S]

   Both sides are measured over N images (default 16, in batches of B, default 4) and over one, and the difference counts: what is spent once, on plans,
   weights and memory, does not. Each time is the shortest of R rounds (default 3). "values kept" is the observed plan without an observer: what keeping
   every observed value costs by itself. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calib/calibrate.h"
#include "flow/dataset.h"
#include "flow/scope.h"
#include "passes/quark/quark.h"

typedef struct images {
  size_t count, size;
  float **data;
} images;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what) {
  fprintf(stderr, "bench_observers: %s\n", what);
  exit(1);
}

static bnd_status load(void *user, size_t index, float *input, bnd_error *error) {
  (void)error;
  const images *all = user;
  memcpy(input, all->data[index], all->size * sizeof *input);
  return BND_OK;
}

static images read_images(const bnd_model *model, const char *folder, size_t count, int size) {
  bnd_error error = {0};
  bnd_dataset dataset;
  if (bnd_dataset_open(model, folder, "val2017", size, count, false, &dataset, &error) != BND_OK) die(error.message);
  images all = {.count = dataset.count, .size = bnd_dataset_source(&dataset, 1).input_size, .data = calloc(dataset.count, sizeof *all.data)};
  for (size_t i = 0; i < all.count && all.data; i++)
    if (!(all.data[i] = malloc(all.size * sizeof(float))) || bnd_dataset_load(&dataset, i, all.data[i], NULL, &error) != BND_OK) die(error.message);
  bnd_dataset_close(&dataset);
  return all;
}

static bnd_graph *quantized_graph(const bnd_model *model, int size, bnd_observer_kind observer) {
  bnd_error error = {0};
  bnd_graph *graph;
  const bnd_quantize_options scope = {0};
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_PARTIAL, .height = size, .width = size, .raw_outputs = true, .stubs = true};
  bnd_quantization_config config = bnd_quantization_config_xint8(observer);
  if (bnd_model_graph(model, &options, &graph, &error) != BND_OK || bnd_scope_place(graph, &scope, &error) != BND_OK ||
      bnd_quark_mark_scope(graph, &error) != BND_OK || bnd_quark_prepare(graph, &error) != BND_OK ||
      bnd_quark_insert_quantizers(graph, &config, &error) != BND_OK || bnd_infer_shapes(graph, &error) != BND_OK)
    die(error.message);
  bnd_quantization_config_free(&config);
  return graph;
}

static double forward(const bnd_graph *graph, bool observe, const bnd_image_source *source, const bnd_context *context) {
  bnd_error error = {0};
  bnd_executor *executor;
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .threads = 1, .observe = observe};
  const bnd_stream stream = {.stage = "forward"};
  const double start = now();
  if (bnd_executor_create(graph, &options, &executor, &error) != BND_OK || bnd_stream_images(executor, source, &stream, context, &error) != BND_OK)
    die(error.message);
  const double seconds = now() - start;
  bnd_executor_destroy(executor);
  return seconds;
}

static double calibrate(const bnd_model *model, int size, bnd_observer_kind observer, const bnd_image_source *source, size_t batch, const bnd_context *context) {
  bnd_error error = {0};
  bnd_graph *graph = quantized_graph(model, size, observer);
  const bnd_calibration calibration = {.batch = batch};
  const double start = now();
  if (bnd_calibrate(graph, source, &calibration, context, &error) != BND_OK) die(error.message);
  const double seconds = now() - start;
  bnd_graph_destroy(graph);
  return seconds;
}

int main(int count, char **words) {
  const char *names[2] = {0};
  int named = 0, image_count = 16, batch = 4, rounds = 3, size = 640;
  for (int i = 1; i < count; i++) {
    const char *value = i + 1 < count ? words[i + 1] : "";
    if (strcmp(words[i], "--images") == 0) image_count = atoi(value), i++;
    else if (strcmp(words[i], "--batch") == 0) batch = atoi(value), i++;
    else if (strcmp(words[i], "--rounds") == 0) rounds = atoi(value), i++;
    else if (strcmp(words[i], "--size") == 0) size = atoi(value), i++;
    else if (named < 2) names[named++] = words[i];
  }
  if (named < 2 || image_count < 2 || batch < 1 || rounds < 1) die("usage: bench_observers CHECKPOINT DATA [--images N] [--batch B] [--rounds R] [--size S]");
  bnd_error error = {0};
  bnd_model *model;
  if (bnd_model_open(names[0], &model, &error) != BND_OK) die(error.message);
  images all = read_images(model, names[1], (size_t)image_count, size);
  const bnd_context single = {.threads = 1}, *context = &single;
  bnd_image_source source = {.user = &all, .count = all.count, .input_size = all.size, .load = load}, one = source;
  one.count = 1;
  bnd_graph *graph = quantized_graph(model, size, BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  enum { PLAIN, KEPT, MIN_MAX, MSE, CASES };
  double best[CASES][2];
  for (int i = 0; i < CASES; i++) best[i][0] = best[i][1] = INFINITY;
  for (int r = 0; r < rounds; r++)
    for (int many = 0; many < 2; many++) {
      const bnd_image_source *from = many ? &source : &one;
      best[PLAIN][many] = fmin(best[PLAIN][many], forward(graph, false, from, context));
      best[KEPT][many] = fmin(best[KEPT][many], forward(graph, true, from, context));
      best[MIN_MAX][many] = fmin(best[MIN_MAX][many], calibrate(model, size, BND_OBSERVER_POWER_OF_TWO_MIN_MAX, from, (size_t)batch, context));
      best[MSE][many] = fmin(best[MSE][many], calibrate(model, size, BND_OBSERVER_POWER_OF_TWO_MIN_MSE, from, (size_t)batch, context));
    }
  double each[CASES];
  for (int i = 0; i < CASES; i++) each[i] = (best[i][1] - best[i][0]) / (double)(all.count - 1);
  printf("plain forward %.1f ms an image; values kept: %.3f, min-max: %.3f, MSE: %.3f of it\n", each[PLAIN] * 1e3, each[KEPT] / each[PLAIN],
         each[MIN_MAX] / each[PLAIN], each[MSE] / each[PLAIN]);
  bnd_graph_destroy(graph);
  bnd_model_close(model);
  for (size_t i = 0; i < all.count; i++) free(all.data[i]);
  free(all.data);
  return 0;
}
