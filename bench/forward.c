/* Time of one forward pass of a checkpoint's folded network, or of a quantized ONNX file under fake quantization, beside the sum of the
   best times oneDNN alone needs for the convolutions of YOLO-NAS S.

   bench_forward MODEL [--threads N] [--rounds N] [--size S] [--steps] [--alone] [--cpu-time]

   Each round runs the whole network once and every convolution of convolutions.txt once in each of the layouts oneDNN offers (its own choice,
   blocked, channels last), so that both see the same machine. Reported are the shortest times over the rounds, 20 if not said otherwise. Weights and
   images do not matter for the time. --steps prints the plan with the time of each step; --alone leaves oneDNN's convolutions out; --cpu-time counts
   processor time instead of time, for one thread on a busy machine. */
#include <math.h>
#include <omp.h>

#include "convolutions.h"

#include "exec/exec.h"
#include "flow/model.h"
#include "kernels/onednn/onednn.h"

/* --- oneDNN alone --- */

enum { LAYOUTS = 3, ROLES = 5 };

typedef struct candidate {
  dnnl_primitive_t primitive; /* NULL = this layout does not exist here */
  dnnl_exec_arg_t arguments[ROLES];
  double best;
} candidate;

typedef struct layer {
  layer_shape shape;
  candidate candidates[LAYOUTS];
} layer;

static dnnl_memory_t memory_of(dnnl_engine_t engine, bnd_dnnl_desc_view desc) {
  dnnl_memory_t memory;
  check(dnnl_memory_create(&memory, desc, engine, DNNL_MEMORY_ALLOCATE));
  void *data;
  check(dnnl_memory_get_data_handle(memory, &data));
  if (data) memset(data, 0, dnnl_memory_desc_get_size(desc));
  return memory;
}

static void make_candidate(dnnl_engine_t engine, const layer_shape *l, dnnl_format_tag_t tag, candidate *c) {
  const offer o = {.x_type = dnnl_f32, .w_type = dnnl_f32, .y_type = dnnl_f32, .x_layout = l->in == 3 && tag != dnnl_nhwc ? dnnl_nchw : tag, .y_layout = tag};
  dnnl_primitive_desc_t description;
  const char *kernel;
  if (!describe_convolution(engine, l, &o, &description, &kernel)) return;
  check(dnnl_primitive_create(&c->primitive, description));
  c->best = INFINITY;
  const dnnl_query_t queries[ROLES] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_weights_md, dnnl_query_dst_md, dnnl_query_scratchpad_md};
  const int roles[ROLES] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
  for (int i = 0; i < ROLES; i++)
    c->arguments[i] = (dnnl_exec_arg_t){roles[i], memory_of(engine, dnnl_primitive_desc_query_md(description, queries[i], i == 2))};
}

static int make_layers(dnnl_engine_t engine, layer *layers) {
  static const dnnl_format_tag_t tags[LAYOUTS] = {dnnl_format_tag_any, dnnl_nChw8c, dnnl_nhwc};
  static layer_shape shapes[MOST_CONVOLUTIONS];
  const int count = read_convolutions(shapes);
  for (int i = 0; i < count; i++) {
    layers[i].shape = shapes[i];
    for (int t = 0; t < LAYOUTS; t++) make_candidate(engine, &shapes[i], tags[t], &layers[i].candidates[t]);
  }
  return count;
}

static void run_layers(dnnl_stream_t stream, layer *layers, int count) {
  for (int i = 0; i < count; i++)
    for (int t = 0; t < LAYOUTS; t++) {
      candidate *c = &layers[i].candidates[t];
      if (!c->primitive) continue;
      for (int repeat = 0; repeat < 2; repeat++) { /* the first run of the two warms the caches */
        const double start = now_ms();
        check(dnnl_primitive_execute(c->primitive, stream, ROLES, c->arguments));
        check(dnnl_stream_wait(stream));
        c->best = fmin(c->best, now_ms() - start);
      }
    }
}

static double sum_of_bests(const layer *layers, int count, bool print) {
  double sum = 0;
  for (int i = 0; i < count; i++) {
    double best = INFINITY;
    for (int t = 0; t < LAYOUTS; t++)
      if (layers[i].candidates[t].primitive) best = fmin(best, layers[i].candidates[t].best);
    sum += best;
    if (print) printf("alone %-44s %8.3f ms\n", layers[i].shape.name, best);
  }
  return sum;
}

/* --- the network --- */

typedef struct options {
  const char *checkpoint;
  int threads, rounds, size;
  bool steps, alone;
} options;

static options read_options(int count, char **words) {
  options o = {.threads = 2, .rounds = 20, .size = 640};
  for (int i = 1; i < count; i++) {
    const char *value = i + 1 < count ? words[i + 1] : "";
    if (strcmp(words[i], "--threads") == 0) o.threads = atoi(value), i++;
    else if (strcmp(words[i], "--rounds") == 0) o.rounds = atoi(value), i++;
    else if (strcmp(words[i], "--size") == 0) o.size = atoi(value), i++;
    else if (strcmp(words[i], "--steps") == 0) o.steps = true;
    else if (strcmp(words[i], "--alone") == 0) o.alone = true;
    else if (strcmp(words[i], "--cpu-time") == 0) clock_id = CLOCK_PROCESS_CPUTIME_ID;
    else o.checkpoint = words[i];
  }
  if (!o.checkpoint || o.threads < 1 || o.rounds < 1)
    die("usage: bench_forward MODEL [--threads N] [--rounds N] [--size S] [--steps] [--alone] [--cpu-time]");
  return o;
}

static bnd_executor *open_network(const options *o) {
  bnd_model *model;
  bnd_graph *graph;
  bnd_executor *executor;
  bnd_exec_options exec = {.mode = BND_EXEC_FLOAT, .threads = o->threads, .output_limit = 2};
  must(bnd_model_open(o->checkpoint, &model, error));
  must(bnd_model_detector(model, BND_YOLO_NAS_FOLDED, o->size, o->size, &graph, &exec.mode, error));
  must(bnd_executor_create(graph, &exec, &executor, error));
  bnd_graph_destroy(graph);
  bnd_model_close(model);
  return executor;
}

int main(int count, char **words) {
  const options o = read_options(count, words);
  bnd_executor *executor = open_network(&o);
  bnd_session *session;
  must(bnd_session_create(executor, &session, error));
  if (o.steps) bnd_session_set_timing(session, true);
  const size_t pixels = (size_t)o.size * (size_t)o.size * 3;
  float *input = calloc(pixels, sizeof *input);
  for (size_t i = 0; input && i < pixels; i++) input[i] = (float)(i * 7919 % 256) / 255.f;
  const float *inputs[] = {input};

  static layer layers[MOST_CONVOLUTIONS];
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  omp_set_num_threads(o.threads);
  check(dnnl_engine_create(&engine, dnnl_cpu, 0));
  check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
  const int layer_count = o.alone ? 0 : make_layers(engine, layers);

  double *times = calloc((size_t)o.rounds, sizeof *times);
  if (!times || !input) die("out of memory");
  for (int r = 0; r < o.rounds; r++) {
    for (int repeat = 0; repeat < 2; repeat++) {
      const double start = now_ms();
      must(bnd_session_run(session, inputs, NULL, NULL, error));
      times[r] = repeat ? fmin(times[r], now_ms() - start) : now_ms() - start;
    }
    run_layers(stream, layers, layer_count);
  }
  qsort(times, (size_t)o.rounds, sizeof *times, ascending);
  printf("forward %d x %d, %d threads, oneDNN %s: shortest %.2f ms, median %.2f ms; activations %.1f MiB, weights %.1f MiB\n", o.size, o.size,
         o.threads, bnd_onednn_version(), times[0], times[o.rounds / 2], (double)bnd_executor_arena_bytes(executor) / 1048576,
         (double)bnd_executor_weight_bytes(executor) / 1048576);
  if (layer_count) {
    const double sum = sum_of_bests(layers, layer_count, o.steps);
    printf("sum of oneDNN's best times for its %d convolutions: %.2f ms = %.1f %% of the forward pass\n", layer_count, sum, 100 * sum / times[0]);
  }
  if (o.steps) {
    bnd_string text = {0};
    if (bnd_executor_describe(executor, session, &text, error) == BND_OK) fputs(text.text, stdout);
    bnd_string_free(&text);
  }
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  free(times);
  free(input);
  return 0;
}
