#include "refine/channel_statistics.h"

#include <math.h>
#include <stdlib.h>

#include "base/simd.h"

enum { LANES = 16 };

typedef struct channel_sums {
  double sum, square, quantized;
  float minimum, maximum;
} channel_sums;

typedef struct gathering {
  bnd_channel_statistics *result;
  const bnd_quantizer **quantizers; /* by node id */
  channel_sums *sums; /* [images][channels]: added up in image order, so that threads do not show */
  float **scratch;    /* [workers] */
} gathering;

BND_VECTORIZED
static void sum_run(const float *x, size_t count, channel_sums *result) {
  double sum[LANES] = {0}, square[LANES] = {0};
  float low[LANES], high[LANES];
  for (int j = 0; j < LANES; j++) {
    low[j] = INFINITY;
    high[j] = -INFINITY;
  }
  for (size_t i = 0; i < count; i += LANES) {
    const size_t lanes = count - i < LANES ? count - i : LANES;
    for (size_t j = 0; j < lanes; j++) {
      const double v = (double)x[i + j];
      sum[j] += v;
      square[j] += v * v;
      low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
      high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
    }
  }
  *result = (channel_sums){0, 0, 0, INFINITY, -INFINITY};
  for (int j = 0; j < LANES; j++) {
    result->sum += sum[j];
    result->square += square[j];
    result->minimum = low[j] < result->minimum ? low[j] : result->minimum;
    result->maximum = high[j] > result->maximum ? high[j] : result->maximum;
  }
}

static void observe(void *user, int node_id, const char *name, const bnd_value *value) {
  (void)name;
  const bnd_stream_place *place = user;
  gathering *g = place->user;
  if (g->result->first[node_id] < 0) return;
  const bnd_shape *shape = bnd_value_shape(value);
  size_t count;
  if (!bnd_shape_count(shape, &count) || count == 0) return;
  const size_t channels = (size_t)shape->size[1], inner = count / channels;
  float *plain = g->scratch[place->worker];
  channel_sums *sums = g->sums + place->index * (size_t)g->result->channels + (size_t)g->result->first[node_id];
  bnd_value_copy(value, plain);
  for (size_t c = 0; c < channels; c++) sum_run(plain + c * inner, inner, &sums[c]);
  bnd_fake_quantize(g->quantizers[node_id], plain, plain, 1, count);
  for (size_t c = 0; c < channels; c++) {
    channel_sums quantized;
    sum_run(plain + c * inner, inner, &quantized);
    sums[c].quantized = quantized.sum;
  }
}

/* Places for all channels; returns the elements of the largest activation, 0 when memory is short. */
static size_t lay_out(const bnd_graph *graph, gathering *g) {
  bnd_channel_statistics *s = g->result;
  size_t largest = 1, count;
  s->ids = bnd_graph_id_limit(graph);
  s->first = bnd_calloc((size_t)s->ids, sizeof *s->first);
  g->quantizers = bnd_calloc((size_t)s->ids, sizeof *g->quantizers);
  if (!s->first || !g->quantizers) return 0;
  for (int i = 0; i < s->ids; i++) s->first[i] = -1;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const bnd_node *input = bnd_is_fake_quantize(node) ? bnd_arg_node(node, 0) : NULL;
    const bnd_shape *shape = &node->shape[0];
    if (!input || input->kind == BND_GET_ATTR || node->module->quantizer->channels != 1 || shape->rank < 3 || shape->size[0] != 1 || !bnd_shape_count(shape, &count) || count == 0) continue;
    if (shape->size[1] > INT32_MAX - s->channels) return 0;
    g->quantizers[node->id] = node->module->quantizer;
    s->first[node->id] = s->channels;
    s->channels += (int)shape->size[1];
    largest = count > largest ? count : largest;
  }
  return largest;
}

static void add_up(bnd_channel_statistics *s, const bnd_graph *graph, const channel_sums *sums, size_t images) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    size_t count;
    if (s->first[node->id] < 0 || !bnd_shape_count(&node->shape[0], &count)) continue;
    const int channels = (int)node->shape[0].size[1], first = s->first[node->id];
    const double places = (double)(count / (size_t)channels) * (double)images;
    for (int c = first; c < first + channels; c++) {
      s->minimum[c] = INFINITY;
      s->maximum[c] = -INFINITY;
      for (size_t i = 0; i < images; i++) {
        const channel_sums *here = &sums[i * (size_t)s->channels + (size_t)c];
        s->mean[c] += here->sum;
        s->square[c] += here->square;
        s->shift[c] += here->quantized - here->sum;
        s->minimum[c] = here->minimum < s->minimum[c] ? here->minimum : s->minimum[c];
        s->maximum[c] = here->maximum > s->maximum[c] ? here->maximum : s->maximum[c];
      }
      s->mean[c] /= places;
      s->square[c] /= places;
      s->shift[c] /= places;
    }
  }
}

static bnd_status allocate(gathering *g, size_t images, int workers, size_t largest, bnd_error *error) {
  bnd_channel_statistics *s = g->result;
  const size_t channels = (size_t)s->channels;
  size_t cells;
  s->mean = bnd_calloc(channels, sizeof *s->mean);
  s->square = bnd_calloc(channels, sizeof *s->square);
  s->shift = bnd_calloc(channels, sizeof *s->shift);
  s->minimum = bnd_calloc(channels, sizeof *s->minimum);
  s->maximum = bnd_calloc(channels, sizeof *s->maximum);
  g->scratch = bnd_calloc((size_t)workers, sizeof *g->scratch);
  if (bnd_size_multiply(images, channels, &cells)) g->sums = bnd_calloc(cells, sizeof *g->sums);
  bool fine = s->mean && s->square && s->shift && s->minimum && s->maximum && g->scratch && g->sums;
  for (int w = 0; w < workers && fine; w++) fine = (g->scratch[w] = bnd_alloc_aligned(largest, sizeof(float))) != NULL;
  return fine ? BND_OK : bnd_fail_memory(error, "statistics of channels");
}

bnd_status bnd_channel_statistics_gather(const bnd_graph *graph, const bnd_image_source *images, size_t limit, bnd_exec_backend backend,
                                         const bnd_context *context, bnd_channel_statistics *statistics, bnd_error *error) {
  *statistics = (bnd_channel_statistics){0};
  bnd_image_source source = *images;
  if (limit && limit < source.count) source.count = limit;
  if (source.count == 0) return bnd_fail(error, BND_ERROR_ARGUMENT, "statistics of channels need at least one image");
  gathering g = {.result = statistics};
  const int workers = bnd_stream_workers(&source, context);
  const bnd_exec_options options = {.mode = BND_EXEC_FLOAT, .backend = backend, .threads = 1, .observe = true};
  const bnd_stream stream = {.stage = "statistics of channels", .probe = observe, .user = &g};
  bnd_executor *executor = NULL;
  const size_t largest = lay_out(graph, &g);
  bnd_status status = largest ? allocate(&g, source.count, workers, largest, error) : bnd_fail_memory(error, "statistics of channels");
  if (status == BND_OK) status = bnd_executor_create(graph, &options, &executor, error);
  if (status == BND_OK) status = bnd_stream_images(executor, &source, &stream, context, error);
  if (status == BND_OK) add_up(statistics, graph, g.sums, source.count);
  bnd_executor_destroy(executor);
  for (int w = 0; g.scratch && w < workers; w++) free(g.scratch[w]);
  free(g.scratch);
  free(g.sums);
  free(g.quantizers);
  if (status != BND_OK) bnd_channel_statistics_free(statistics);
  return status;
}

void bnd_channel_statistics_free(bnd_channel_statistics *s) {
  free(s->first);
  free(s->mean);
  free(s->square);
  free(s->shift);
  free(s->minimum);
  free(s->maximum);
  *s = (bnd_channel_statistics){0};
}
