/* B3-B6. */
#include <math.h>
#include <stdlib.h>

#include "passes/quark/rewrite.h"

static bool behind_is_flatten_from_channels(const bnd_node *node) {
  if (node->user_count != 1) return false;
  const bnd_node *flatten = node->users[0];
  return bnd_node_is(flatten, BND_OP_FLATTEN) && bnd_arg_int(flatten, 1, 0) == 1 && bnd_arg_int(flatten, 2, -1) == -1;
}

static bool is_global_pool(const bnd_node *mean) {
  const bnd_node *input = bnd_arg_node(mean, 0);
  int64_t dims[BND_MAX_RANK];
  const int count = mean->arg_count > 1 && mean->args[1].kind == BND_ARG_LIST ? bnd_arg_ints(mean, 1, dims, BND_MAX_RANK) : 0;
  bool height = false, width = false;
  for (int i = 0; i < count; i++) {
    const int64_t dim = dims[i] < 0 && input ? dims[i] + input->shape[0].rank : dims[i];
    height |= dim == 2;
    width |= dim == 3;
  }
  if (count == 2 && height && width && bnd_arg_bool(mean, 2, false))
    return mean->shape[0].rank == 4 && mean->shape[0].size[2] == 1 && mean->shape[0].size[3] == 1;
  return behind_is_flatten_from_channels(mean);
}

/* B3. */
static bnd_status mean_to_global_pool(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *mean = bnd_graph_first(graph); mean; mean = mean->next) {
    if (!bnd_node_is(mean, BND_OP_MEAN) || !bnd_arg_node(mean, 0) || !is_global_pool(mean)) continue;
    const bnd_arg args[] = {mean->args[0], bnd_graph_int_list(graph, (int64_t[]){1, 1}, 2)};
    bnd_node *pool = bnd_insert_function(mean, mean, BND_OP_ADAPTIVE_AVG_POOL2D, args, 2, "mean to global pool");
    if (!pool) break;
    const bnd_shape *in = &bnd_arg_node(mean, 0)->shape[0];
    if (in->rank == 4) pool->shape[0] = BND_SHAPE(in->size[0], in->size[1], 1, 1);
    bnd_node_replace_all_uses(mean, pool, false);
    bnd_doom(&doomed, mean);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

/* The largest factor not above the square root. */
static int64_t middle_factor(int64_t number) {
  int64_t factor = (int64_t)sqrt((double)number);
  while (factor > 1 && number % factor != 0) factor--;
  return factor < 1 ? 1 : factor;
}

static bool wants_one_by_one(const bnd_node *pool) {
  int64_t size[2];
  return pool->arg_count > 1 && pool->args[1].kind == BND_ARG_LIST && bnd_arg_ints(pool, 1, size, 2) == 2 && size[0] == 1 && size[1] == 1;
}

/* B4: one split, and only where it suffices. The hardware pools at most 512 values at a time. */
static bnd_status split_large_global_pools(bnd_graph *graph, bnd_error *error) {
  enum { LIMIT = 512 };
  for (bnd_node *pool = bnd_graph_first(graph); pool; pool = pool->next) {
    bnd_node *input = bnd_node_is(pool, BND_OP_ADAPTIVE_AVG_POOL2D) ? bnd_arg_node(pool, 0) : NULL;
    if (!input || input->shape[0].rank != 4 || !wants_one_by_one(pool)) continue;
    const bnd_shape in = input->shape[0];
    const int64_t height = in.size[2], width = in.size[3];
    if (height <= 0 || width <= 0 || height * width <= LIMIT) continue;
    const int64_t kernel[] = {middle_factor(height), middle_factor(width)};
    if (kernel[0] * kernel[1] > LIMIT || (height / kernel[0]) * (width / kernel[1]) > LIMIT) continue;
    const bnd_arg size = bnd_graph_int_list(graph, kernel, 2), args[] = {bnd_arg_of_node(input), size, size};
    bnd_node *first = bnd_insert_function(input, pool, BND_OP_AVG_POOL2D, args, 3, "large global pool split");
    if (!first) break;
    first->skip = false; /* Quark gives this node no scope of its own */
    first->shape[0] = BND_SHAPE(in.size[0], in.size[1], height / kernel[0], width / kernel[1]);
    bnd_node_set_arg(pool, 0, bnd_arg_of_node(first));
  }
  bnd_graph_eliminate_dead_code(graph);
  return bnd_graph_status(graph, error);
}

/* The factor by which the DPU's integer division differs from an exact mean over kernel h x w (fx-quantization 7.4). */
static double dpu_pool_factor(int64_t h, int64_t w) {
  if (h == 3 && w == 3) return 9.0 * 7.0 / 64.0;
  if (h == 5 && w == 5) return 25.0 * 10.0 / 256.0;
  if ((h == 6 && w == 6) || (h == 3 && w == 6) || (h == 6 && w == 3)) return 36.0 * 7.0 / 256.0;
  if (h == 7 && w == 7) return 49.0 * 21.0 / 1024.0;
  if (h == 14 && w == 14) return 196.0 * 21.0 / 4096.0;
  const double count = (double)h * (double)w;
  const int limit = (int)ceil(log2(count * 128));
  double best = 1, numerator = 0;
  int shift = 0;
  for (int s = 0; s < limit; s++) {
    const double factor = rint(ldexp(1, s) / count), difference = fabs(factor / ldexp(1, s) - 1 / count);
    if (difference < best) {
      best = difference;
      numerator = factor;
      shift = s;
    }
  }
  return count * numerator / ldexp(1, shift);
}

static bnd_module *pool_module(const bnd_node *pool) {
  char *name = bnd_arena_format(bnd_graph_arena(pool->graph), "%s_quantized_module", pool->name);
  return name ? bnd_graph_add_module(pool->graph, name) : NULL;
}

/* B5. */
static bnd_status global_pools_to_modules(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *pool = bnd_graph_first(graph); pool; pool = pool->next) {
    bnd_node *input = bnd_node_is(pool, BND_OP_ADAPTIVE_AVG_POOL2D) ? bnd_arg_node(pool, 0) : NULL;
    if (!input || !(wants_one_by_one(pool) || bnd_arg_int(pool, 1, 0) == 1)) continue;
    bnd_module *module = pool_module(pool);
    bnd_node *call = module ? bnd_insert_module(input, pool, BND_OP_GLOBAL_AVG_POOL2D_MODULE, module, input, "global pool to module") : NULL;
    if (!call) break;
    const bnd_shape *in = &input->shape[0];
    for (int i = 0; i < 2; i++) module->kernel[i] = module->stride[i] = in->rank == 4 ? in->size[2 + i] : 1;
    module->scale = dpu_pool_factor(module->kernel[0], module->kernel[1]);
    bnd_node_replace_all_uses(pool, call, false);
    bnd_doom(&doomed, pool);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

/* B6. Quark reads the last three arguments one position late, so in the usual arities their defaults hold; kept, for equal results. */
static bnd_status average_pools_to_modules(bnd_graph *graph, bnd_error *error) {
  bnd_doomed_nodes doomed = {0};
  for (bnd_node *pool = bnd_graph_first(graph); pool; pool = pool->next) {
    bnd_node *input = bnd_node_is(pool, BND_OP_AVG_POOL2D) ? bnd_arg_node(pool, 0) : NULL;
    if (!input) continue;
    bnd_module *module = pool_module(pool);
    bnd_node *call = module ? bnd_insert_module(input, pool, BND_OP_AVG_POOL2D_MODULE, module, input, "average pool to module") : NULL;
    if (!call) break;
    bnd_arg_pair(pool, 1, 1, module->kernel);
    for (int i = 0; i < 2; i++) module->stride[i] = module->kernel[i];
    if (pool->arg_count > 2 && pool->args[2].kind == BND_ARG_LIST && pool->args[2].list.count) bnd_arg_pair(pool, 2, 1, module->stride);
    bnd_arg_pair(pool, 3, 0, module->padding);
    module->ceil_mode = pool->arg_count > 5 && bnd_arg_bool(pool, 4, false);
    module->count_include_pad = pool->arg_count > 6 ? bnd_arg_bool(pool, 5, true) : true;
    module->divisor_override = pool->arg_count > 7 ? bnd_arg_int(pool, 6, 0) : 0;
    module->scale = dpu_pool_factor(module->kernel[0], module->kernel[1]);
    bnd_node_replace_all_uses(pool, call, false);
    bnd_doom(&doomed, pool);
  }
  return bnd_finish_sweep(graph, &doomed, error);
}

bnd_status bnd_quark_pools(bnd_graph *graph, bnd_error *error) {
  BND_TRY(mean_to_global_pool(graph, error));
  BND_TRY(split_large_global_pools(graph, error));
  BND_TRY(global_pools_to_modules(graph, error));
  return average_pools_to_modules(graph, error);
}
