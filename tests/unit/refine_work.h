/* A small quantized network with its float twin and images, as the steps of the recipe best get them. */
#ifndef BND_TESTS_REFINE_WORK_H
#define BND_TESTS_REFINE_WORK_H

#include "network_graphs.h"

#include "flow/target_profile.h"
#include "passes/target/adjust.h"
#include "refine/refine.h"

enum { PICTURES = 12 };

typedef struct workshop {
  bnd_graph *graph, *teacher;
  float *values[PICTURES]; /* the pictures, each of training.size */
  pictures training, judging;
  bnd_image_source images, held_out;
  bnd_target_profile target;
  bnd_context context;
  bnd_refinement work;
} workshop;

/* Takes the graph, which has quantizers. The values of its pictures are the caller's to fill before calibrate_workshop. */
static inline workshop *new_workshop(bnd_graph *graph, int count) {
  workshop *w = calloc(1, sizeof *w);
  w->graph = graph;
  assert_true(count <= PICTURES && bnd_shape_count(&bnd_graph_first(graph)->shape[0], &w->training.size));
  for (int i = 0; i < count; i++) w->values[i] = malloc(w->training.size * sizeof(float));
  return w;
}

/* The first `training` pictures are trained with, `held_out` from `first_held_out` on are held out. */
static inline void calibrate_workshop(workshop *w, size_t training, size_t batch, size_t first_held_out, size_t held_out) {
  const size_t size = w->training.size;
  calibrate(w->graph, w->values, training, size, batch);
  ASSERT_OK(bnd_graph_copy(w->graph, &w->teacher, error));
  ASSERT_OK(bnd_target_profile_load(NULL, &w->target, error));
  w->training = (pictures){w->values, size};
  w->judging = (pictures){w->values + first_held_out, size};
  w->images = (bnd_image_source){.user = &w->training, .count = training, .input_size = size, .load = load_picture};
  w->held_out = (bnd_image_source){.user = &w->judging, .count = held_out, .input_size = size, .load = load_picture};
  w->context = (bnd_context){.threads = 1};
  w->work = (bnd_refinement){.graph = w->graph,
                             .teacher = w->teacher,
                             .images = &w->images,
                             .held_out = &w->held_out,
                             .target = &w->target,
                             .backend = BND_BACKEND_REFERENCE,
                             .seed = 3,
                             .context = &w->context};
}

/* Ten images to train with, two held out. */
static inline workshop *open_workshop(bnd_exec_backend backend, int threads) {
  workshop *w = new_workshop(mse_graph(), PICTURES);
  for (int i = 0; i < PICTURES; i++) fill_uniform(w->values[i], w->training.size, -1, 1, 500 + (uint64_t)i);
  ASSERT_OK(bnd_quark_merge_batch_norm(w->graph, error));
  ASSERT_OK(bnd_infer_shapes(w->graph, error));
  calibrate_workshop(w, 10, 5, 10, 2);
  w->work.backend = backend;
  w->context.threads = threads;
  return w;
}

/* The same with the target's rules enforced. */
static inline workshop *open_adjusted_workshop(bnd_exec_backend backend, int threads) {
  workshop *w = open_workshop(backend, threads);
  ASSERT_OK(bnd_adjust_to_fixed_point(w->graph, &w->target, NULL, error));
  return w;
}

static inline void close_workshop(workshop *w) {
  bnd_graph_destroy(w->graph);
  bnd_graph_destroy(w->teacher);
  for (int i = 0; i < PICTURES; i++) free(w->values[i]);
  free(w);
}

/* --- changing the graph --- */

/* Of weights, biases and activations, but not that of the node called `kept` (NULL = all). */
static inline void remove_quantizers(bnd_graph *graph, const char *kept) {
  for (bnd_node *node = bnd_graph_first(graph), *next; node; node = next) {
    next = node->next;
    if (bnd_is_conv_module(node)) {
      bnd_quantizer_destroy(node->module->weight_quantizer);
      bnd_quantizer_destroy(node->module->bias_quantizer);
      node->module->weight_quantizer = node->module->bias_quantizer = NULL;
    } else if (bnd_is_fake_quantize(node) && (!kept || strcmp(node->name, kept) != 0)) {
      bnd_node_replace_all_uses(node, bnd_arg_node(node, 0), false);
      bnd_node_erase(node);
    }
  }
}

/* The first activation from a node on that stands between two layers and that no rule ties to others, its scale made 2^by as large. */
static inline bnd_node *spoil_activation(bnd_node *from, int by, const bnd_target_profile *target) {
  for (bnd_node *node = from; node; node = node->next) {
    if (!bnd_is_fake_quantize(node) || node->user_count != 1 || !bnd_is_conv_module(node->users[0]) || !bnd_is_relu(bnd_arg_node(node, 0))) continue;
    node->module->quantizer->position[0] -= by;
    if (bnd_check_positions(node->graph, target, NULL, NULL) == 0) return node;
    node->module->quantizer->position[0] += by;
  }
  fail_msg("no activation to spoil");
  return NULL;
}

/* --- what a step leaves behind --- */

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

/* Frees both. */
static inline void assert_same(record a, record b) {
  assert_int_equal(a.count, b.count);
  assert_memory_equal(a.bytes, b.bytes, a.count);
  free(a.bytes);
  free(b.bytes);
}

/* One thread and three end with the same bytes, and the teacher, whose tensors the graph shares, stays as it was. */
static inline void check_threads(workshop *(*open)(bnd_exec_backend, int), bnd_exec_backend backend, bnd_refine_step *step) {
  record records[2];
  for (int k = 0; k < 2; k++) {
    workshop *w = open(backend, 1 + 2 * k);
    bnd_string report = {0};
    const record teacher = trained_bytes(w->teacher);
    ASSERT_OK(step(&w->work, &report, error));
    assert_same(teacher, trained_bytes(w->teacher));
    records[k] = trained_bytes(w->graph);
    bnd_string_free(&report);
    close_workshop(w);
  }
  assert_same(records[0], records[1]);
}

static inline bool count_down(void *user) {
  return --*(int *)user < 0;
}

/* Cancelled after 0, stride, 2 * stride ... questions. */
static inline void check_cancelling(bnd_exec_backend backend, bnd_refine_step *step, int limit, int stride) {
  for (int asked = 0; asked < limit; asked += stride) {
    workshop *w = open_workshop(backend, 1);
    int left = asked;
    w->context.cancelled = count_down;
    w->context.user = &left;
    bnd_string report = {0};
    bnd_error failure = {0};
    assert_int_equal(step(&w->work, &report, &failure), BND_ERROR_INTERRUPTED);
    bnd_string_free(&report);
    close_workshop(w);
  }
}

/* --- running --- */

typedef struct runner {
  bnd_executor *executor;
  bnd_session *session;
} runner;

static inline runner open_runner(const bnd_graph *graph, bnd_exec_mode mode) {
  const bnd_exec_options options = {.mode = mode, .backend = BND_BACKEND_REFERENCE, .threads = 1};
  runner r;
  ASSERT_OK(bnd_executor_create(graph, &options, &r.executor, error));
  ASSERT_OK(bnd_session_create(r.executor, &r.session, error));
  return r;
}

static inline void run_with(const runner *r, const float *const *inputs) { ASSERT_OK(bnd_session_run(r->session, inputs, NULL, NULL, error)); }

static inline size_t run_output_size(const runner *r, int output) {
  size_t count;
  assert_true(bnd_shape_count(bnd_executor_output_shape(r->executor, output), &count));
  return count;
}

static inline void close_runner(runner *r) {
  bnd_session_destroy(r->session);
  bnd_executor_destroy(r->executor);
}

/* The relative squared error of the quantized graph's first output against the teacher's over the images held out. */
static inline double relative_error(const workshop *w) {
  double squares = 0, sum = 0;
  runner runners[] = {open_runner(w->teacher, BND_EXEC_FLOAT), open_runner(w->graph, BND_EXEC_FAKE_QUANTIZE)};
  for (size_t i = 10; i < PICTURES; i++) {
    for (int k = 0; k < 2; k++) run_with(&runners[k], (const float *const[]){w->values[i]});
    const float *t = bnd_session_output(runners[0].session, 0), *y = bnd_session_output(runners[1].session, 0);
    for (size_t c = 0, count = run_output_size(&runners[0], 0); c < count; c++) {
      squares += (double)t[c] * (double)t[c];
      sum += ((double)y[c] - (double)t[c]) * ((double)y[c] - (double)t[c]);
    }
  }
  for (int k = 0; k < 2; k++) close_runner(&runners[k]);
  return sum / squares;
}

#endif
