/* Time and memory of a training step, FP32 or quantization-aware: forward, loss, backward, AdamW, on made images with made targets.
   usage: bench_train CHECKPOINT fp32|qat [BATCH THREADS STEPS SIZE]     prints the shortest and the median step */

#include "bench.h"

#include "autograd/network.h"
#include "base/memory.h"
#include "flow/model.h"
#include "passes/quark/quark.h"
#include "calib/calibrate.h"
#include "train/loss.h"
#include "train/optimizer.h"

static int side;
static bnd_status load(void *user, size_t index, float *input, bnd_error *why) {
  (void)user, (void)why;
  for (size_t i = 0; i < 3 * (size_t)side * (size_t)side; i++) input[i] = (float)((uint32_t)(i + index * 7919) * 2654435761u >> 24) / 255.f;
  return BND_OK;
}

static bnd_graph *quantized(const bnd_model *model, bnd_yolo_nas_options *form) {
  bnd_graph *graph;
  form->form = BND_YOLO_NAS_PARTIAL;
  form->stubs = true;
  must(bnd_model_graph(model, form, &graph, error));
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  must(bnd_quark_mark_scope(graph, error));
  must(bnd_quark_prepare(graph, error));
  must(bnd_quark_insert_quantizers(graph, &config, error));
  must(bnd_infer_shapes(graph, error));
  const bnd_image_source source = {.count = 2, .input_size = 3 * (size_t)side * (size_t)side, .load = load};
  const bnd_calibration calibration = {.batch = 1};
  const bnd_context context = {.threads = 2};
  must(bnd_calibrate(graph, &source, &calibration, &context, error));
  return graph;
}

int main(int count, char **arguments) {
  if (count < 3) return 2;
  const bool qat = strcmp(arguments[2], "qat") == 0;
  const int batch = count > 3 ? atoi(arguments[3]) : 8, threads = count > 4 ? atoi(arguments[4]) : 2, steps = count > 5 ? atoi(arguments[5]) : 3;
  side = count > 6 ? atoi(arguments[6]) : 640;
  bnd_model *model;
  must(bnd_model_open(arguments[1], &model, error));
  bnd_yolo_nas_options form = {.form = BND_YOLO_NAS_TRAIN, .height = side, .width = side, .raw_outputs = true};
  bnd_graph *graph;
  if (qat)
    graph = quantized(model, &form);
  else
    must(bnd_model_graph(model, &form, &graph, error));
  static const int outputs[] = {2, 3};
  const bnd_network_options options = {.batch = batch, .threads = threads, .quantize = qat, .gradient_outputs = outputs, .gradient_output_count = 2};
  bnd_network *network;
  must(bnd_network_create(graph, &options, &network, error));
  bnd_network_set_mode(network, BND_MODE_TRAIN);

  const size_t anchors = (size_t)bnd_network_output_shape(network, 2)->size[1], classes = (size_t)bnd_network_output_shape(network, 2)->size[2];
  float *points = calloc(anchors * 3, sizeof *points), *strides = points + 2 * anchors;
  size_t at = 0;
  for (int stride = 8; stride <= 32; stride *= 2)
    for (int y = 0; y < side / stride; y++)
      for (int x = 0; x < side / stride; x++, at++) {
        points[2 * at] = ((float)x + 0.5f) * (float)stride;
        points[2 * at + 1] = ((float)y + 0.5f) * (float)stride;
        strides[at] = (float)stride;
      }
  const float **images = calloc((size_t)batch, sizeof *images);
  bnd_target targets[8];
  for (int i = 0; i < 8; i++) targets[i] = (bnd_target){(float)((size_t)i % classes), 60.f + 60.f * (float)i, 300.f, 50.f + 20.f * (float)i, 80.f};
  for (int i = 0; i < batch; i++) {
    float *image = malloc(3 * (size_t)side * (size_t)side * sizeof *image);
    load(NULL, (size_t)i, image, NULL);
    images[i] = image;
  }
  size_t parameter_count;
  const bnd_parameter *parameters = bnd_network_parameters(network, &parameter_count);
  bnd_optimizer_parameter *list = calloc(parameter_count, sizeof *list);
  for (size_t i = 0; i < parameter_count; i++)
    list[i] = (bnd_optimizer_parameter){parameters[i].value, parameters[i].gradient, parameters[i].count, 1e-5, 0};
  bnd_optimizer *optimizer;
  must(bnd_optimizer_create(&(bnd_optimizer_options){.kind = BND_ADAMW}, list, parameter_count, &optimizer, error));
  bnd_loss_image *loss = calloc((size_t)batch, sizeof *loss);
  double *times = calloc((size_t)steps, sizeof *times);
  for (int k = 0; k < steps; k++) {
    const double begin = seconds();
    must(bnd_network_forward(network, images, NULL, NULL, error));
    const double middle = seconds();
    for (int i = 0; i < batch; i++)
      loss[i] = (bnd_loss_image){bnd_network_output(network, 2, i),          bnd_network_output(network, 3, i),         targets, 8,
                                 bnd_network_output_gradient(network, 2, i), bnd_network_output_gradient(network, 3, i)};
    const bnd_loss_options o = {.classes = (int)classes, .reg_max = 16};
    bnd_loss_parts parts;
    must(bnd_yolo_loss(&o, points, strides, anchors, loss, (size_t)batch, threads, &parts, error));
    bnd_network_zero_gradients(network);
    must(bnd_network_backward(network, NULL, NULL, error));
    bnd_optimizer_step(optimizer, 1e-5, 1.f, threads);
    times[k] = seconds() - begin;
    printf("step %d: %.2f s (forward %.2f), loss %.4f\n", k + 1, times[k], middle - begin, parts.total);
    fflush(stdout);
  }
  qsort(times, (size_t)steps, sizeof *times, ascending);
  printf("binade %s: shortest %.2f s, median %.2f s, peak %.0f MiB\n", arguments[2], times[0], times[steps / 2], bnd_peak_rss_mib());
  return 0;
}
