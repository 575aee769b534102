/* What shared/oracle/train_steps.py computes, by our network: three FP32 steps, the quantized graph in evaluation mode, three QAT steps, on the first
   four images of a split. Writes OUT/NAME.bin with a line "name count", then the floats, for every gradient; losses and scales to the terminal.
   usage: train_steps CHECKPOINT DATA SPLIT OUT THREADS [reference] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "autograd/network.h"
#include "calib/calibrate.h"
#include "data/loader.h"
#include "flow/dataset.h"
#include "flow/reports.h"
#include "passes/quark/quark.h"
#include "train/loss.h"
#include "train/optimizer.h"

enum { BATCH = 4 };

static bnd_error error;
static int threads;
static bnd_exec_backend backend;

static void must(bnd_status status) {
  if (status == BND_OK) return;
  fprintf(stderr, "%s\n", error.message);
  exit(1);
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void anchors_of(float *points, float *strides) {
  size_t at = 0;
  for (int stride = 8; stride <= 32; stride *= 2)
    for (int y = 0; y < 640 / stride; y++)
      for (int x = 0; x < 640 / stride; x++, at++) {
        points[2 * at] = ((float)x + 0.5f) * (float)stride;
        points[2 * at + 1] = ((float)y + 0.5f) * (float)stride;
        strides[at] = (float)stride;
      }
}

typedef struct batch {
  float *images[BATCH];
  bnd_targets targets[BATCH];
  float points[2 * 8400], strides[8400];
  int classes;
} batch;

static bnd_loss_parts pass(bnd_network *network, batch *b) {
  const float *images[BATCH];
  for (int i = 0; i < BATCH; i++) images[i] = b->images[i];
  const double begin = seconds();
  must(bnd_network_forward(network, images, NULL, NULL, &error));
  const double middle = seconds();
  bnd_loss_image list[BATCH];
  for (int i = 0; i < BATCH; i++)
    list[i] = (bnd_loss_image){
        bnd_network_output(network, 2, i),          bnd_network_output(network, 3, i),         b->targets[i].rows, b->targets[i].count,
        bnd_network_output_gradient(network, 2, i), bnd_network_output_gradient(network, 3, i)};
  const bnd_loss_options options = {.classes = b->classes, .reg_max = 16};
  bnd_loss_parts parts;
  must(bnd_yolo_loss(&options, b->points, b->strides, 8400, list, BATCH, threads, &parts, &error));
  bnd_network_zero_gradients(network);
  const double loss = seconds();
  must(bnd_network_backward(network, NULL, NULL, &error));
  fprintf(stderr, "forward %.3f loss %.3f backward %.3f, %zu MiB\n", middle - begin, loss - middle, seconds() - loss,
          bnd_network_bytes(network) >> 20);
  return parts;
}

static void save(const char *folder, const char *name, const bnd_network *network) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.bin", folder, name);
  FILE *file = fopen(path, "wb");
  size_t count;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  for (size_t i = 0; file && i < count; i++) {
    if (!p[i].reached) continue;
    fprintf(file, "%s %zu\n", p[i].name, p[i].count);
    fwrite(p[i].gradient, sizeof(float), p[i].count, file);
  }
  if (file) fclose(file);
}

static void save_statistics(const char *folder, const char *name, const bnd_network *network) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s_statistics.bin", folder, name);
  FILE *file = fopen(path, "wb");
  size_t count;
  const bnd_statistic *s = bnd_network_statistics(network, &count);
  for (size_t i = 0; file && i < count; i++) {
    fprintf(file, "%s %zu\n", s[i].name, s[i].count);
    fwrite(s[i].value, sizeof(float), s[i].count, file);
  }
  if (file) fclose(file);
}

static void print_loss(const char *name, const bnd_loss_parts *p) {
  printf("%s %.9g %.9g %.9g %.9g\n", name, p->total, p->classification, p->iou, p->dfl);
}

static void steps(bnd_network *network, batch *b, double rate, const char *name, const char *folder) {
  size_t count;
  const bnd_parameter *p = bnd_network_parameters(network, &count);
  bnd_optimizer_parameter *list = calloc(count, sizeof *list);
  for (size_t i = 0; i < count; i++) list[i] = (bnd_optimizer_parameter){p[i].value, p[i].gradient, p[i].count, p[i].shape.rank > 1 ? 1e-5 : 0, 0};
  const bnd_optimizer_options options = {.kind = BND_ADAMW};
  bnd_optimizer *optimizer;
  must(bnd_optimizer_create(&options, list, count, &optimizer, &error));
  bnd_network_set_mode(network, BND_MODE_TRAIN);
  for (int k = 0; k < 3; k++) {
    const bnd_loss_parts parts = pass(network, b);
    print_loss(name, &parts);
    if (k == 0) save(folder, name, network);
    if (k == 0) save_statistics(folder, name, network);
    bnd_optimizer_step(optimizer, rate, 1.f, threads);
  }
  bnd_optimizer_destroy(optimizer);
  free(list);
}

static void print_scale(void *user, const bnd_quantizer_place *place) {
  printf("%s %s %d\n", (const char *)user, place->name, place->quantizer->position[0]);
}

int main(int count, char **arguments) {
  if (count < 6) return 2;
  threads = atoi(arguments[5]);
  backend = count > 6 ? BND_BACKEND_REFERENCE : BND_BACKEND_ONEDNN;
  bnd_model *model;
  must(bnd_model_open(arguments[1], &model, &error));
  bnd_dataset dataset;
  must(bnd_dataset_open(model, arguments[2], arguments[3], 640, 0, false, &dataset, &error));
  bnd_preprocessing preprocessing;
  must(bnd_model_preprocessing(model, 640, false, &preprocessing, &error));
  bnd_loader_options options = bnd_loader_options_default(640, 0);
  options.shuffle = options.augment = false;
  options.preprocessing = preprocessing;
  size_t *order = calloc(dataset.coco.image_count, sizeof *order);
  for (size_t i = 0; i < dataset.coco.annotated_count; i++) order[i] = dataset.coco.annotated[i];
  options.images = order;
  options.image_count = BATCH;
  bnd_loader loader;
  must(bnd_loader_create(&dataset.coco, &options, &loader, &error));
  batch *b = calloc(1, sizeof *b);
  b->classes = bnd_model_class_count(model);
  anchors_of(b->points, b->strides);
  for (int i = 0; i < BATCH; i++) {
    b->images[i] = malloc(3 * 640 * 640 * sizeof(float));
    must(bnd_loader_load(&loader, 0, (size_t)i, b->images[i], &b->targets[i], &error));
  }
  static const int outputs[] = {2, 3};
  bnd_network_options network_options = {
      .batch = BATCH, .threads = threads, .backend = backend, .gradient_outputs = outputs, .gradient_output_count = 2};
  bnd_graph *graph;
  bnd_network *network;
  bnd_yolo_nas_options form = {.form = BND_YOLO_NAS_TRAIN, .height = 640, .width = 640, .raw_outputs = true};
  must(bnd_model_graph(model, &form, &graph, &error));
  must(bnd_network_create(graph, &network_options, &network, &error));
  steps(network, b, 5e-4, "fp32", arguments[4]);
  bnd_network_destroy(network);
  bnd_graph_destroy(graph);

  form.form = BND_YOLO_NAS_PARTIAL;
  form.stubs = true;
  must(bnd_model_graph(model, &form, &graph, &error));
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  must(bnd_quark_mark_scope(graph, &error));
  must(bnd_quark_prepare(graph, &error));
  must(bnd_quark_insert_quantizers(graph, &config, &error));
  must(bnd_infer_shapes(graph, &error));
  const bnd_image_source source = bnd_dataset_source(&dataset, 8);
  const bnd_calibration calibration = {.batch = 2, .backend = backend};
  const bnd_context context = {.threads = threads};
  must(bnd_calibrate(graph, &source, &calibration, &context, &error));
  bnd_visit_quantizers(graph, print_scale, "before");
  network_options.quantize = true;
  must(bnd_network_create(graph, &network_options, &network, &error));
  const bnd_loss_parts parts = pass(network, b);
  print_loss("qat_eval", &parts);
  save(arguments[4], "qat_eval", network);
  steps(network, b, 1e-4, "qat", arguments[4]);
  bnd_visit_quantizers(graph, print_scale, "after");
  if (getenv("DESCRIBE")) {
    bnd_string text = {0};
    bnd_network_set_timing(network, true);
    pass(network, b);
    bnd_network_describe(network, &text, &error);
    fputs(text.text, stderr);
  }
  return 0;
}
