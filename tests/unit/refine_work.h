/* A small quantized network with its float twin and images, as the steps of the recipe best get them. */
#ifndef BND_TESTS_REFINE_WORK_H
#define BND_TESTS_REFINE_WORK_H

#include "network_graphs.h"

#include "passes/target/adjust.h"
#include "refine/refine.h"

enum { PICTURES = 12 };

typedef struct workshop {
  bnd_graph *graph, *teacher;
  float *values[PICTURES];
  pictures training, judging;
  bnd_image_source images, held_out;
  bnd_context context;
  bnd_refinement work;
} workshop;

/* Ten images to train with, two held out. */
static inline workshop *open_workshop(bnd_exec_backend backend, int threads) {
  workshop *w = calloc(1, sizeof *w);
  w->graph = mse_graph();
  size_t size;
  assert_true(bnd_shape_count(&bnd_graph_first(w->graph)->shape[0], &size));
  for (int i = 0; i < PICTURES; i++) {
    w->values[i] = malloc(size * sizeof(float));
    fill_uniform(w->values[i], size, -1, 1, 500 + (uint64_t)i);
  }
  ASSERT_OK(bnd_quark_merge_batch_norm(w->graph, error));
  ASSERT_OK(bnd_infer_shapes(w->graph, error));
  calibrate(w->graph, w->values, 10, size, 5);
  ASSERT_OK(bnd_graph_copy(w->graph, &w->teacher, error));
  w->training = (pictures){w->values, size};
  w->judging = (pictures){w->values + 10, size};
  w->images = (bnd_image_source){.user = &w->training, .count = 10, .input_size = size, .load = load_picture};
  w->held_out = (bnd_image_source){.user = &w->judging, .count = 2, .input_size = size, .load = load_picture};
  w->context = (bnd_context){.threads = threads};
  w->work = (bnd_refinement){.graph = w->graph,
                             .teacher = w->teacher,
                             .images = &w->images,
                             .held_out = &w->held_out,
                             .backend = backend,
                             .seed = 3,
                             .context = &w->context};
  return w;
}

static inline void close_workshop(workshop *w) {
  bnd_graph_destroy(w->graph);
  bnd_graph_destroy(w->teacher);
  for (int i = 0; i < PICTURES; i++) free(w->values[i]);
  free(w);
}

/* Weights, biases and positions. */
static inline record trained_bytes(const bnd_graph *graph) {
  record r = {0};
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const bnd_module *m = node->module;
    if (!m) continue;
    if (m->weight.data) put(&r, m->weight.data, m->weight.count * sizeof(float));
    if (m->bias.data) put(&r, m->bias.data, m->bias.count * sizeof(float));
    const bnd_quantizer *const quantizers[] = {m->weight_quantizer, m->bias_quantizer, m->quantizer};
    for (int q = 0; q < 3; q++)
      if (quantizers[q]) put(&r, quantizers[q]->position, (size_t)quantizers[q]->channels * sizeof(int));
  }
  return r;
}

/* First output of a graph for one image, and the relative squared error of the quantized graph against the teacher over the images held out. */
static inline double relative_error(const workshop *w) {
  double squares = 0, sum = 0;
  bnd_executor *executors[2];
  bnd_session *sessions[2];
  const bnd_graph *const graphs[] = {w->teacher, w->graph};
  for (int k = 0; k < 2; k++) {
    const bnd_exec_options options = {.mode = k ? BND_EXEC_FAKE_QUANTIZE : BND_EXEC_FLOAT, .backend = BND_BACKEND_REFERENCE, .threads = 1};
    ASSERT_OK(bnd_executor_create(graphs[k], &options, &executors[k], error));
    ASSERT_OK(bnd_session_create(executors[k], &sessions[k], error));
  }
  for (size_t i = 0; i < 2; i++) {
    const float *const inputs[] = {w->values[10 + i]};
    for (int k = 0; k < 2; k++) ASSERT_OK(bnd_session_run(sessions[k], inputs, NULL, NULL, error));
    size_t count;
    assert_true(bnd_shape_count(bnd_executor_output_shape(executors[0], 0), &count));
    const float *t = bnd_session_output(sessions[0], 0), *y = bnd_session_output(sessions[1], 0);
    for (size_t c = 0; c < count; c++) {
      squares += (double)t[c] * (double)t[c];
      sum += ((double)y[c] - (double)t[c]) * ((double)y[c] - (double)t[c]);
    }
  }
  for (int k = 0; k < 2; k++) {
    bnd_session_destroy(sessions[k]);
    bnd_executor_destroy(executors[k]);
  }
  return sum / squares;
}

#endif
