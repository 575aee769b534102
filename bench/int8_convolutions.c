/* The int8 convolutions of YOLO-NAS S at 640x640 through this library beside the best oneDNN offers for the same shapes.

   bench_int8_convolutions [--threads N] [--rounds N] [--cpu-time] [--layers] [INT8.onnx]

   The fixed list is convolutions.txt. Every convolution adds a bias, multiplies by a scale and, where the list says so, has a relu. oneDNN's candidates
   are all combinations of inputs of signed and unsigned bytes, results of signed and unsigned bytes, and layouts (channels last, and its own choice on
   either side); the fastest counts. Ours takes unsigned inputs, for these have no
   negative values. Each round runs every candidate and ours once after a run that warms the caches, so that all see
   the same machine; of 20 rounds, if not said otherwise, the shortest time counts. INT8.onnx, a quantized S, is run in the same rounds: its convolutions
   as they are among its other steps. --cpu-time counts processor time, for one thread on a busy machine; --layers prints every layer. */
#include <math.h>
#include <omp.h>

#include "convolutions.h"

#include "base/memory.h"
#include "exec/exec.h"
#include "flow/model.h"
#include "kernels/onednn/int8.h"

static const float SCALE = 0x1p-9f;

/* --- oneDNN alone --- */

enum { TYPES = 2, LAYOUTS = 2, CANDIDATES = TYPES * TYPES * LAYOUTS * LAYOUTS, ROLES = 6 };

typedef struct candidate {
  dnnl_primitive_t primitive; /* NULL = oneDNN has nothing generated for this */
  dnnl_exec_arg_t arguments[ROLES];
  int argument_count;
  char name[96];
  double best;
} candidate;

/* All convolutions, ours too, share these: values do not matter for the time. */
enum { INPUT, WEIGHT, BIAS, OUTPUT, SCRATCH, POOLS };
static const size_t POOL_BYTES = (size_t)64 << 20;
static void *pools[POOLS];

static void make_pools(void) {
  for (int i = 0; i < POOLS; i++) {
    pools[i] = bnd_alloc_aligned(POOL_BYTES, 1);
    if (!pools[i]) die("out of memory");
    memset(pools[i], 0, POOL_BYTES);
  }
}

static void *pool(int which, size_t bytes) {
  if (bytes > POOL_BYTES) die("a convolution needs more memory than expected");
  return pools[which];
}

static void add_argument(candidate *c, int role, dnnl_engine_t engine, bnd_dnnl_desc_view desc, void *data) {
  dnnl_memory_t memory;
  check(dnnl_memory_create(&memory, desc, engine, data));
  c->arguments[c->argument_count++] = (dnnl_exec_arg_t){role, memory};
}

static void add_queried(candidate *c, int role, dnnl_engine_t engine, const_dnnl_primitive_desc_t description, dnnl_query_t query, int index, int which) {
  const bnd_dnnl_desc_view desc = dnnl_primitive_desc_query_md(description, query, index);
  add_argument(c, role, engine, desc, pool(which, dnnl_memory_desc_get_size(desc)));
}

static void make_candidate(dnnl_engine_t engine, const layer_shape *l, int number, candidate *c) {
  static const dnnl_data_type_t types[TYPES] = {dnnl_u8, dnnl_s8};
  static const dnnl_format_tag_t layouts[LAYOUTS] = {dnnl_nhwc, dnnl_format_tag_any};
  const int x_type = number % 2, y_type = number / 2 % 2, x_layout = number / 4 % 2, y_layout = number / 8;
  const offer o = {types[x_type], dnnl_s8, types[y_type], layouts[x_layout], layouts[y_layout], &SCALE};
  dnnl_primitive_desc_t description;
  const char *kernel;
  c->best = INFINITY;
  if (!describe_convolution(engine, l, &o, &description, &kernel)) return;
  snprintf(c->name, sizeof c->name, "%s %s->%s %s->%s", kernel, x_type ? "s8" : "u8", y_type ? "s8" : "u8", x_layout ? "any" : "nhwc", y_layout ? "any" : "nhwc");
  check(dnnl_primitive_create(&c->primitive, description));
  add_queried(c, DNNL_ARG_SRC, engine, description, dnnl_query_src_md, 0, INPUT);
  add_queried(c, DNNL_ARG_WEIGHTS, engine, description, dnnl_query_weights_md, 0, WEIGHT);
  add_queried(c, DNNL_ARG_BIAS, engine, description, dnnl_query_weights_md, 1, BIAS);
  add_queried(c, DNNL_ARG_DST, engine, description, dnnl_query_dst_md, 0, OUTPUT);
  add_queried(c, DNNL_ARG_SCRATCHPAD, engine, description, dnnl_query_scratchpad_md, 0, SCRATCH);
  if (BND_DNNL_SCALES_AT_RUN_TIME) {
    static float scale;
    scale = SCALE;
    bnd_dnnl_desc desc;
    check(bnd_dnnl_desc_init(&desc, 1, (const dnnl_dims_t){1}, dnnl_f32, dnnl_a));
    add_argument(c, BND_DNNL_SCALE_ARGUMENT, engine, bnd_dnnl_desc_get(&desc), &scale);
  }
}

/* --- ours --- */

typedef struct ours {
  bnd_onednn_convolution *convolution; /* NULL = it would run in another way */
  bnd_onednn_call *call;
  double best;
} ours;

static void make_ours(bnd_onednn *engine, const layer_shape *l, int threads, ours *o) {
  const size_t in = (size_t)l->in, out = (size_t)l->out, height = (size_t)l->height, width = (size_t)l->width, stride = (size_t)l->stride;
  const bnd_convolution_shape shape = {1, in, height, width, out, height / stride, width / stride, {l->window, l->window}, {l->stride, l->stride},
                                       {l->padding, l->padding}, {1, 1}, false};
  int8_t *weight = bnd_calloc(out * in, (size_t)(l->window * l->window));
  float *bias = bnd_calloc(out, sizeof *bias);
  if (!weight || !bias) die("out of memory");
  const bnd_int8_operands operands = {.non_negative = true, .weight = weight, .scale = &SCALE, .scale_count = 1, .bias = bias,
                                      .low = l->relu ? 0.f : -128.f, .high = 127.f};
  o->best = INFINITY;
  must(bnd_onednn_int8_create(engine, &shape, &operands, threads, &o->convolution, error));
  free(weight);
  free(bias);
  if (!o->convolution) return;
  must(bnd_onednn_call_create(o->convolution, &o->call, error));
  pool(INPUT, in * height * width);
  pool(OUTPUT, out * height * width);
  pool(SCRATCH, bnd_onednn_convolution_scratch_bytes(o->convolution));
}

/* --- a round --- */

typedef struct layer {
  layer_shape shape;
  candidate candidates[CANDIDATES];
  ours ours;
} layer;

static void run_candidate(dnnl_stream_t stream, candidate *c) {
  if (!c->primitive) return;
  for (int repeat = 0; repeat < 2; repeat++) {
    const double start = now_ms();
    check(dnnl_primitive_execute(c->primitive, stream, c->argument_count, c->arguments));
    check(dnnl_stream_wait(stream));
    if (repeat) c->best = fmin(c->best, now_ms() - start);
  }
}

static void run_ours(ours *o) {
  if (!o->convolution) return;
  for (int repeat = 0; repeat < 2; repeat++) {
    const double start = now_ms();
    if (bnd_onednn_call_run(o->call, pools[INPUT], pools[OUTPUT], pools[SCRATCH], NULL) != BND_OK) die("a convolution failed");
    if (repeat) o->best = fmin(o->best, now_ms() - start);
  }
}

static const candidate *best_of(const layer *l) {
  const candidate *best = &l->candidates[0];
  for (int i = 1; i < CANDIDATES; i++)
    if (l->candidates[i].best < best->best) best = &l->candidates[i];
  return best;
}

/* --- the network --- */

typedef struct network {
  bnd_executor *executor; /* NULL = none given */
  bnd_session *session;
  float *input;
} network;

static network open_network(const char *path, int threads) {
  bnd_model *model;
  bnd_graph *graph;
  network n = {0};
  int width, height;
  bnd_exec_options exec = {.backend = BND_BACKEND_INT8, .threads = threads, .output_limit = 2, .non_negative_inputs = true};
  must(bnd_model_open(path, &model, error));
  must(bnd_model_size(model, 0, &width, &height, error));
  must(bnd_model_detector(model, BND_YOLO_NAS_FOLDED, width, height, &graph, &exec.mode, error));
  if (exec.mode != BND_EXEC_FAKE_QUANTIZE) die("the network is not quantized");
  must(bnd_executor_create(graph, &exec, &n.executor, error));
  must(bnd_session_create(n.executor, &n.session, error));
  bnd_session_set_timing(n.session, true);
  n.input = bnd_calloc(3 * (size_t)width * (size_t)height, sizeof *n.input);
  if (!n.input) die("out of memory");
  bnd_graph_destroy(graph);
  bnd_model_close(model);
  return n;
}

static void run_network(const network *n) {
  if (n->executor) must(bnd_session_run(n->session, (const float *const[]){n->input}, NULL, NULL, error));
}

static void print_network(const network *n, double sum_of_bests) {
  double integer = 0, others = 0;
  int integers = 0, other_count = 0;
  for (int s = 0; s < bnd_executor_step_count(n->executor); s++) {
    bnd_step_info info;
    bnd_executor_step_info(n->executor, n->session, s, &info);
    if (!info.convolution) continue;
    if (info.integer) integer += info.seconds * 1e3, integers++;
    else others += info.seconds * 1e3, other_count++;
  }
  printf("in the network: %d int8 convolutions %.3f ms, %d others %.3f ms; oneDNN's best for the list is %.1f %% of all of them\n", integers, integer,
         other_count, others, 100 * sum_of_bests / (integer + others));
}

int main(int count, char **words) {
  int threads = 1, rounds = 20;
  bool each = false;
  const char *path = NULL;
  for (int i = 1; i < count; i++) {
    const char *value = i + 1 < count ? words[i + 1] : "";
    if (strcmp(words[i], "--threads") == 0) threads = atoi(value), i++;
    else if (strcmp(words[i], "--rounds") == 0) rounds = atoi(value), i++;
    else if (strcmp(words[i], "--layers") == 0) each = true;
    else if (strcmp(words[i], "--cpu-time") == 0) clock_id = CLOCK_PROCESS_CPUTIME_ID;
    else if (words[i][0] != '-' && !path) path = words[i];
    else threads = 0;
  }
  if (threads < 1 || rounds < 1) die("usage: bench_int8_convolutions [--threads N] [--rounds N] [--cpu-time] [--layers] [INT8.onnx]");

  static layer layers[MOST_CONVOLUTIONS];
  static layer_shape shapes[MOST_CONVOLUTIONS];
  bnd_onednn *engine;
  dnnl_engine_t raw_engine;
  dnnl_stream_t stream;
  omp_set_num_threads(threads);
  make_pools();
  must(bnd_onednn_create(&engine, error));
  check(dnnl_engine_create(&raw_engine, dnnl_cpu, 0));
  check(dnnl_stream_create(&stream, raw_engine, dnnl_stream_default_flags));
  const int layer_count = read_convolutions(shapes);
  for (int i = 0; i < layer_count; i++) {
    layers[i].shape = shapes[i];
    for (int k = 0; k < CANDIDATES; k++) make_candidate(raw_engine, &layers[i].shape, k, &layers[i].candidates[k]);
    make_ours(engine, &layers[i].shape, threads, &layers[i].ours);
  }
  const network n = path ? open_network(path, threads) : (network){0};
  for (int r = 0; r < rounds; r++) {
    run_network(&n);
    for (int i = 0; i < layer_count; i++) {
      for (int k = 0; k < CANDIDATES; k++) run_candidate(stream, &layers[i].candidates[k]);
      run_ours(&layers[i].ours);
    }
  }

  double best_sum = 0, comparable_sum = 0, our_sum = 0;
  int missing = 0;
  for (int i = 0; i < layer_count; i++) {
    const candidate *best = best_of(&layers[i]);
    const ours *o = &layers[i].ours;
    best_sum += best->best;
    if (o->convolution) our_sum += o->best, comparable_sum += best->best;
    else missing++;
    if (each)
      printf("%-44s ours %8.3f ms %-24s best %8.3f ms %s\n", layers[i].shape.name, o->best, o->convolution ? bnd_onednn_convolution_kernel(o->convolution) : "none",
             best->best, best->name);
  }
  printf("%d int8 convolutions of YOLO-NAS S, oneDNN %s (%s), %d threads, shortest of %d rounds\n", layer_count, bnd_onednn_version(),
         bnd_onednn_instruction_set(), threads, rounds);
  printf("oneDNN's best %.3f ms, ours %.3f ms: %.1f %%\n", comparable_sum, our_sum, 100 * comparable_sum / our_sum);
  if (missing) printf("%d of them have no int8 convolution in this library here and are not in the sums\n", missing);
  if (n.executor) print_network(&n, best_sum);
  return 0;
}
