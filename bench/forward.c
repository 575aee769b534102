/* Time of one forward pass of a checkpoint's folded network, or of a quantized ONNX file under fake quantization, beside the sum of the
   best times oneDNN alone needs for the convolutions of YOLO-NAS S.

   bench_forward MODEL [--threads N] [--rounds N] [--size S] [--steps] [--alone] [--cpu-time]

   Each round runs the whole network once and every convolution of convolutions.txt once in each of the layouts oneDNN offers (its own choice,
   blocked, channels last), so that both see the same machine. Reported are the shortest times over the rounds, 20 if not said otherwise. Weights and
   images do not matter for the time. --steps prints the plan with the time of each step; --alone leaves oneDNN's convolutions out; --cpu-time counts
   processor time instead of time, for one thread on a busy machine. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "exec/exec.h"
#include "flow/model.h"
#include "kernels/onednn/compat.h"
#include "kernels/onednn/onednn.h"

static clockid_t clock_id = CLOCK_MONOTONIC;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(clock_id, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void die(const char *what) {
  fprintf(stderr, "bench_forward: %s\n", what);
  exit(1);
}

static void check(dnnl_status_t status) {
  if (status != dnnl_success) die("oneDNN failed");
}

/* --- oneDNN alone --- */

enum { LAYOUTS = 3, ROLES = 5, CONVOLUTIONS = 128 };

typedef struct candidate {
  dnnl_primitive_t primitive; /* NULL = this layout does not exist here */
  dnnl_exec_arg_t arguments[ROLES];
  double best;
} candidate;

typedef struct layer {
  char name[64];
  int in, out, height, width, window, stride, padding, relu;
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

static void make_candidate(dnnl_engine_t engine, const layer *l, dnnl_format_tag_t tag, candidate *c) {
  const dnnl_dims_t x_dims = {1, l->in, l->height, l->width}, y_dims = {1, l->out, l->height / l->stride, l->width / l->stride};
  const dnnl_dims_t w_dims = {l->out, l->in, l->window, l->window}, b_dims = {l->out};
  bnd_dnnl_desc x, y, w, b;
  check(bnd_dnnl_desc_init(&x, 4, x_dims, dnnl_f32, l->in == 3 && tag != dnnl_nhwc ? dnnl_nchw : tag));
  check(bnd_dnnl_desc_init(&y, 4, y_dims, dnnl_f32, tag));
  check(bnd_dnnl_desc_init(&w, 4, w_dims, dnnl_f32, dnnl_format_tag_any));
  check(bnd_dnnl_desc_init(&b, 1, b_dims, dnnl_f32, dnnl_a));
  dnnl_primitive_attr_t attributes;
  dnnl_post_ops_t tail;
  check(dnnl_primitive_attr_create(&attributes));
  check(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
  check(dnnl_post_ops_create(&tail));
  if (l->relu) check(bnd_dnnl_append_eltwise(tail, dnnl_eltwise_relu, 0.f, 0.f));
  check(dnnl_primitive_attr_set_post_ops(attributes, tail));
  const bnd_dnnl_convolution convolution = {BND_DNNL_INFERENCE,
                                            bnd_dnnl_desc_get(&x),
                                            bnd_dnnl_desc_get(&w),
                                            bnd_dnnl_desc_get(&b),
                                            bnd_dnnl_desc_get(&y),
                                            {l->stride, l->stride},
                                            {0, 0},
                                            {l->padding, l->padding}};
  dnnl_primitive_desc_t description;
  if (bnd_dnnl_convolution_describe(&description, engine, &convolution, NULL, attributes) != dnnl_success) return;
  const char *kernel;
  check(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &kernel));
  if (strstr(kernel, "ref")) return;
  check(dnnl_primitive_create(&c->primitive, description));
  c->best = INFINITY;
  const dnnl_query_t queries[ROLES] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_weights_md, dnnl_query_dst_md, dnnl_query_scratchpad_md};
  const int roles[ROLES] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
  for (int i = 0; i < ROLES; i++)
    c->arguments[i] = (dnnl_exec_arg_t){roles[i], memory_of(engine, dnnl_primitive_desc_query_md(description, queries[i], i == 2))};
}

static int read_layers(dnnl_engine_t engine, layer *layers) {
  FILE *file = fopen(BENCH_FOLDER "/convolutions.txt", "r");
  char line[256];
  int count = 0;
  if (!file) die("convolutions.txt is missing");
  const dnnl_format_tag_t tags[LAYOUTS] = {dnnl_format_tag_any, dnnl_nChw8c, dnnl_nhwc};
  while (fgets(line, sizeof line, file) && count < CONVOLUTIONS) {
    layer *l = &layers[count];
    if (line[0] == '#') continue;
    if (sscanf(line, "%63s %d %d %d %d %d %d %d %d", l->name, &l->in, &l->out, &l->height, &l->width, &l->window, &l->stride, &l->padding,
               &l->relu) != 9)
      die("convolutions.txt");
    for (int t = 0; t < LAYOUTS; t++) make_candidate(engine, l, tags[t], &l->candidates[t]);
    count++;
  }
  fclose(file);
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
    if (print) printf("alone %-44s %8.3f ms\n", layers[i].name, best);
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
  bnd_error error = {0};
  bnd_model *model;
  bnd_graph *graph;
  bnd_executor *executor;
  bnd_exec_options exec = {.mode = BND_EXEC_FLOAT, .threads = o->threads, .output_limit = 2};
  if (bnd_model_open(o->checkpoint, &model, &error) != BND_OK ||
      bnd_model_detector(model, BND_YOLO_NAS_FOLDED, o->size, o->size, &graph, &exec.mode, &error) != BND_OK ||
      bnd_executor_create(graph, &exec, &executor, &error) != BND_OK)
    die(error.message);
  bnd_graph_destroy(graph);
  bnd_model_close(model);
  return executor;
}

static int compare_times(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(int count, char **words) {
  const options o = read_options(count, words);
  bnd_error error = {0};
  bnd_executor *executor = open_network(&o);
  bnd_session *session;
  if (bnd_session_create(executor, &session, &error) != BND_OK) die(error.message);
  if (o.steps) bnd_session_set_timing(session, true);
  const size_t pixels = (size_t)o.size * (size_t)o.size * 3;
  float *input = calloc(pixels, sizeof *input);
  for (size_t i = 0; input && i < pixels; i++) input[i] = (float)(i * 7919 % 256) / 255.f;
  const float *inputs[] = {input};

  static layer layers[CONVOLUTIONS];
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  omp_set_num_threads(o.threads);
  check(dnnl_engine_create(&engine, dnnl_cpu, 0));
  check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
  const int layer_count = o.alone ? 0 : read_layers(engine, layers);

  double *times = calloc((size_t)o.rounds, sizeof *times);
  if (!times || !input) die("out of memory");
  for (int r = 0; r < o.rounds; r++) {
    for (int repeat = 0; repeat < 2; repeat++) {
      const double start = now_ms();
      if (bnd_session_run(session, inputs, NULL, NULL, &error) != BND_OK) die(error.message);
      times[r] = repeat ? fmin(times[r], now_ms() - start) : now_ms() - start;
    }
    run_layers(stream, layers, layer_count);
  }
  qsort(times, (size_t)o.rounds, sizeof *times, compare_times);
  printf("forward %d x %d, %d threads, oneDNN %s: shortest %.2f ms, median %.2f ms; activations %.1f MiB, weights %.1f MiB\n", o.size, o.size,
         o.threads, bnd_onednn_version(), times[0], times[o.rounds / 2], (double)bnd_executor_arena_bytes(executor) / 1048576,
         (double)bnd_executor_weight_bytes(executor) / 1048576);
  if (layer_count) {
    const double sum = sum_of_bests(layers, layer_count, o.steps);
    printf("sum of oneDNN's best times for its %d convolutions: %.2f ms = %.1f %% of the forward pass\n", layer_count, sum, 100 * sum / times[0]);
  }
  if (o.steps) {
    bnd_string text = {0};
    if (bnd_executor_describe(executor, session, &text, &error) == BND_OK) fputs(text.text, stdout);
    bnd_string_free(&text);
  }
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  free(times);
  free(input);
  return 0;
}
