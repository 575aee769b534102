/* What observing costs: processor time of an image of a calibration (the graph `binade quantize` calibrates, its images already in memory) beside that of
   a plain forward pass, one thread.

   bench_observers CHECKPOINT DATA [--images N] [--batch B] [--rounds R] [--size S]

   Plain and observed passes over N images (default 16, in batches of B, default 4) take turns, R rounds (default 3). The time of an image lasts until the
   next is asked for; the quarter of the times that is shortest is looked at, the longest of it reported. "values kept" is the observed plan without an
   observer: what keeping every observed value costs by itself. Images that calibration had to run twice are counted and not in the time of one. */
#include <math.h>

#include "bench.h"

#include "calib/calibrate.h"
#include "flow/dataset.h"
#include "flow/scope.h"
#include "passes/quark/quark.h"

enum { PLAIN, KEPT, MIN_MAX, MSE, CASES, MOST_TIMES = 65536 };

typedef struct images {
  size_t count, size;
  float **data;
  int kind; /* of the pass at hand */
  double begin; /* of the image at hand; 0 = there is none */
  double times[CASES][MOST_TIMES];
  size_t time_count[CASES];
} images;

static double now(void) { return bnd_clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }

static void finish_image(images *all) {
  if (all->begin > 0 && all->time_count[all->kind] < MOST_TIMES) all->times[all->kind][all->time_count[all->kind]++] = now() - all->begin;
  all->begin = 0;
}

static bnd_status load(void *user, size_t index, float *input, bnd_error *why) {
  (void)why;
  images *all = user;
  finish_image(all);
  memcpy(input, all->data[index], all->size * sizeof *input);
  all->begin = now();
  return BND_OK;
}

static void read_images(const bnd_model *model, const char *folder, size_t count, int size, images *all) {
  bnd_dataset dataset;
  must(bnd_dataset_open(model, folder, "val2017", size, count, false, &dataset, error));
  all->count = dataset.count;
  all->size = bnd_dataset_source(&dataset, 1).input_size;
  all->data = calloc(dataset.count, sizeof *all->data);
  for (size_t i = 0; i < all->count && all->data; i++) {
    if (!(all->data[i] = malloc(all->size * sizeof(float)))) die("out of memory");
    must(bnd_dataset_load(&dataset, i, all->data[i], NULL, error));
  }
  bnd_dataset_close(&dataset);
}

static bnd_graph *quantized_graph(const bnd_model *model, int size, bnd_observer_kind observer) {
  bnd_graph *graph;
  const bnd_quantize_options scope = {0};
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_PARTIAL, .height = size, .width = size, .raw_outputs = true, .stubs = true};
  bnd_quantization_config config = bnd_quantization_config_xint8(observer);
  must(bnd_model_graph(model, &options, &graph, error));
  must(bnd_scope_place(graph, &scope, error));
  must(bnd_quark_mark_scope(graph, error));
  must(bnd_quark_prepare(graph, error));
  must(bnd_quark_insert_quantizers(graph, &config, error));
  must(bnd_infer_shapes(graph, error));
  bnd_quantization_config_free(&config);
  return graph;
}

static void forward(const bnd_graph *graph, bool observe, const bnd_image_source *source, const bnd_context *context) {
  bnd_executor *executor;
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .threads = 1, .observe = observe};
  const bnd_stream stream = {.stage = "forward"};
  must(bnd_executor_create(graph, &options, &executor, error));
  must(bnd_stream_images(executor, source, &stream, context, error));
  bnd_executor_destroy(executor);
}

static void calibrate(const bnd_model *model, int size, bnd_observer_kind observer, const bnd_image_source *source, size_t batch, const bnd_context *context) {
  bnd_graph *graph = quantized_graph(model, size, observer);
  const bnd_calibration calibration = {.batch = batch};
  must(bnd_calibrate(graph, source, &calibration, context, error));
  bnd_graph_destroy(graph);
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
  bnd_model *model;
  must(bnd_model_open(names[0], &model, error));
  static images all;
  read_images(model, names[1], (size_t)image_count, size, &all);
  const bnd_context single = {.threads = 1}, *context = &single;
  bnd_image_source source = {.user = &all, .count = all.count, .input_size = all.size, .load = load};
  bnd_graph *graph = quantized_graph(model, size, BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  for (int r = 0; r < rounds; r++)
    for (all.kind = 0; all.kind < CASES; all.kind++) {
      if (all.kind < MIN_MAX) forward(graph, all.kind == KEPT, &source, context);
      else calibrate(model, size, all.kind == MSE ? BND_OBSERVER_POWER_OF_TWO_MIN_MSE : BND_OBSERVER_POWER_OF_TWO_MIN_MAX, &source, (size_t)batch, context);
      all.begin = 0; /* the last image: no other follows */
    }
  double each[CASES];
  for (int i = 0; i < CASES; i++) {
    qsort(all.times[i], all.time_count[i], sizeof *all.times[i], ascending);
    each[i] = all.times[i][all.time_count[i] / 4];
  }
  printf("plain forward %.1f ms an image; values kept: %.3f, min-max: %.3f, MSE: %.3f of it; %zu of %zu images run twice for MSE\n", each[PLAIN] * 1e3,
         each[KEPT] / each[PLAIN], each[MIN_MAX] / each[PLAIN], each[MSE] / each[PLAIN], all.time_count[MSE] - all.time_count[MIN_MAX],
         all.time_count[MIN_MAX]);
  bnd_graph_destroy(graph);
  bnd_model_close(model);
  for (size_t i = 0; i < all.count; i++) free(all.data[i]);
  free(all.data);
  return 0;
}
