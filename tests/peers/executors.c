/* Every value of every output of a quantized network, computed by two executors, over images; and how long the forward passes took.
   usage: executors MODEL FIRST SECOND IMAGE...   (FIRST, SECOND: int8, fakequant or reference) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "flow/model.h"
#include "formats/image/image.h"

static bnd_error error;

static void must(bnd_status status) {
  if (status == BND_OK) return;
  fprintf(stderr, "%s\n", error.message);
  exit(1);
}

static bnd_executor_kind kind_of(const char *name) {
  return name[0] == 'i' ? BND_EXECUTOR_INT8 : name[0] == 'f' ? BND_EXECUTOR_FAKEQUANT : BND_EXECUTOR_REFERENCE;
}

static double processor_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int count, char **words) {
  if (count < 5) return 2;
  bnd_model *model;
  bnd_preprocessing preprocessing;
  bnd_graph *graph;
  bnd_exec_mode mode;
  bnd_executor *executors[2];
  bnd_session *sessions[2];
  double seconds[2] = {0, 0};
  must(bnd_model_open(words[1], &model, &error));
  must(bnd_model_preprocessing(model, 0, true, &preprocessing, &error));
  must(bnd_model_detector(model, BND_YOLO_NAS_FOLDED, preprocessing.width, preprocessing.height, &graph, &mode, &error));
  for (int e = 0; e < 2; e++) {
    const bnd_exec_options options = {.mode = mode, .backend = bnd_backend_of(kind_of(words[2 + e]), mode), .threads = 1, .non_negative_inputs = true};
    must(bnd_executor_create(graph, &options, &executors[e], &error));
    must(bnd_session_create(executors[e], &sessions[e], &error));
  }
  float *input = bnd_alloc_aligned(3 * (size_t)preprocessing.width * (size_t)preprocessing.height, sizeof *input);
  const float *const inputs[] = {input};
  size_t values = 0, different = 0;
  for (int i = 4; i < count && input; i++) {
    bnd_image image;
    bnd_geometry geometry;
    must(bnd_image_read(words[i], &image, &error));
    must(bnd_preprocess(&preprocessing, &image, input, &geometry, &error));
    bnd_image_free(&image);
    for (int e = 0; e < 2; e++) {
      const double begin = processor_seconds();
      must(bnd_session_run(sessions[e], inputs, NULL, NULL, &error));
      seconds[e] += processor_seconds() - begin;
    }
    for (int o = 0; o < bnd_executor_output_count(executors[0]); o++) {
      size_t size;
      if (!bnd_shape_count(bnd_executor_output_shape(executors[0], o), &size)) return 1;
      const float *a = bnd_session_output(sessions[0], o), *b = bnd_session_output(sessions[1], o);
      values += size;
      for (size_t k = 0; k < size; k++) different += memcmp(&a[k], &b[k], sizeof *a) != 0;
    }
  }
  printf("%d images, %zu values: %zu differ; %s %.1f ms, %s %.1f ms an image\n", count - 4, values, different, words[2], seconds[0] / (count - 4) * 1e3,
         words[3], seconds[1] / (count - 4) * 1e3);
  free(input);
  for (int e = 0; e < 2; e++) {
    bnd_session_destroy(sessions[e]);
    bnd_executor_destroy(executors[e]);
  }
  bnd_graph_destroy(graph);
  bnd_model_close(model);
  return different > 0;
}
