/* Running a plan. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "exec/internal.h"

struct bnd_session {
  bnd_executor *plan;
  char *arena, *scratch;
  float **data;            /* by value; inputs and what lies in them are set by each run */
  bnd_onednn_call **calls; /* by step; NULL where it is no convolution */
  bool (*stop)(void *user); /* NULL: nobody asks to */
  void *stop_user;
  bnd_array *arrays;       /* room for the operands of the step with the most */
  bool timing;
  double *shortest; /* by step, seconds */
};

/* --- values, as probes see them --- */

const bnd_shape *bnd_value_shape(const bnd_value *value) {
  return value->shape;
}

static void byte_range(const int8_t *bytes, size_t count, float step, float *minimum, float *maximum) {
  int8_t least = INT8_MAX, most = INT8_MIN;
  for (size_t i = 0; i < count; i++) {
    least = bytes[i] < least ? bytes[i] : least;
    most = bytes[i] > most ? bytes[i] : most;
  }
  *minimum = count ? (float)least * step : INFINITY;
  *maximum = count ? (float)most * step : -INFINITY;
}

void bnd_value_min_max(const bnd_value *value, float *minimum, float *maximum) {
  if (value->storage == BND_STORED_BYTES) byte_range(value->data, bnd_layout_count(&value->layout), value->step, minimum, maximum);
  else bnd_loop_min_max(value->data, &value->layout, minimum, maximum, value->threads);
}

void bnd_value_squared_errors(const bnd_value *value, const bnd_error_grids *grids, double *errors) {
  bnd_loop_squared_errors(value->data, &value->layout, grids, errors);
}

void bnd_value_copy(const bnd_value *value, float *plain) {
  const bnd_layout to = {value->layout.images, value->layout.channels, value->layout.height, value->layout.width, 0};
  if (value->storage == BND_STORED_BYTES) bnd_bytes_dequantize(value->data, value->step, plain, &to, value->threads);
  else if (value->layout.block) bnd_loop_to_plain(value->data, &value->layout, plain, value->threads);
  else memcpy(plain, value->data, bnd_layout_count(&value->layout) * sizeof *plain);
}

/* --- life --- */

static size_t most_operands(const bnd_executor *plan) {
  size_t most = 1;
  for (size_t s = 0; s < plan->step_count; s++)
    if (plan->steps[s].input_count > 0 && (size_t)plan->steps[s].input_count > most) most = (size_t)plan->steps[s].input_count;
  return most;
}

/* Addresses of everything that does not lie in the caller's inputs. */
static void set_addresses(bnd_session *session) {
  const bnd_executor *plan = session->plan;
  for (size_t v = 0; v < plan->value_count; v++) {
    size_t offset;
    const bnd_plan_value *root = &plan->values[bnd_plan_root(plan, (int)v, &offset)];
    if (root->constant.data) session->data[v] = (float *)((char *)root->constant.data + offset);
    else if (root->placeholder < 0) session->data[v] = (float *)(session->arena + root->address + offset);
  }
}

/* In pages of 2 MiB where the system has them: a convolution walks over more small pages at once than the processor remembers (3 to 6 % of a forward
   pass). */
static char *allocate_arena(size_t bytes) {
  const size_t page = (size_t)2 << 20;
  if (bytes < 2 * page || bytes > SIZE_MAX - page) return bnd_alloc_aligned(bytes, 1);
  bytes = (bytes + page - 1) / page * page;
  char *arena = aligned_alloc(page, bytes);
#ifdef MADV_HUGEPAGE
  if (arena) madvise(arena, bytes, MADV_HUGEPAGE); /* a wish; works without */
#endif
  return arena;
}

bnd_status bnd_session_create(bnd_executor *plan, bnd_session **session, bnd_error *error) {
  bnd_session *made = *session = bnd_calloc(1, sizeof *made);
  if (!made) return bnd_fail_memory(error, "a session");
  made->plan = plan;
  made->arena = allocate_arena(plan->arena_bytes);
  made->scratch = bnd_alloc_aligned(plan->scratch_bytes, 1);
  made->data = bnd_calloc(plan->value_count, sizeof *made->data);
  made->calls = bnd_calloc(plan->step_count, sizeof *made->calls);
  made->arrays = bnd_calloc(most_operands(plan), sizeof *made->arrays);
  made->shortest = bnd_calloc(plan->step_count, sizeof *made->shortest);
  bnd_status status = BND_OK;
  if (!made->arena || !made->scratch || !made->data || !made->calls || !made->arrays || !made->shortest) status = bnd_fail_memory(error, "a session");
  for (size_t s = 0; s < plan->step_count && status == BND_OK; s++) {
    made->shortest[s] = INFINITY;
    if (plan->steps[s].convolution) status = bnd_onednn_call_create(plan->steps[s].convolution, &made->calls[s], error);
  }
  if (status == BND_OK) {
    set_addresses(made);
    return BND_OK;
  }
  bnd_session_destroy(made);
  *session = NULL;
  return status;
}

void bnd_session_destroy(bnd_session *session) {
  if (!session) return;
  for (size_t s = 0; session->calls && s < session->plan->step_count; s++) bnd_onednn_call_destroy(session->calls[s]);
  free(session->arena);
  free(session->scratch);
  free(session->data);
  free(session->calls);
  free(session->arrays);
  free(session->shortest);
  free(session);
}

void bnd_session_set_stop(bnd_session *session, bool (*stop)(void *user), void *user) {
  session->stop = stop;
  session->stop_user = user;
}

void bnd_session_set_timing(bnd_session *session, bool on) {
  session->timing = on;
}
const float *bnd_session_output(const bnd_session *session, int index) {
  return session->data[session->plan->outputs[index]];
}

/* --- steps --- */

static void apply_tail(const bnd_session *session, const bnd_step *step, const float *x, float *y, size_t count) {
  bnd_loop_pointwise(x, step->factor, y, count, step->tail.relu, step->tail.has_grid ? &step->tail.grid : NULL, session->plan->options.threads);
}

static void run_kernel(bnd_session *session, const bnd_step *step) {
  const bnd_executor *plan = session->plan;
  bnd_array outputs[BND_MAX_RESULTS];
  for (int i = 0; i < step->input_count; i++) {
    const int value = step->inputs[i];
    session->arrays[i] = value < 0 ? (bnd_array){0} : (bnd_array){plan->values[value].shape, session->data[value]};
  }
  for (int i = 0; i < step->output_count; i++) outputs[i] = (bnd_array){plan->values[step->outputs[i]].shape, session->data[step->outputs[i]]};
  bnd_reference_kernel(step->kernel.id)(&step->kernel, session->arrays, step->input_count, outputs, step->output_count);
  if (step->tail.relu || step->tail.has_grid) {
    float *y = session->data[step->outputs[0]];
    apply_tail(session, step, y, y, bnd_plan_value_count(&plan->values[step->outputs[0]]));
  }
}

/* --- steps on bytes --- */

static int8_t *bytes_of(const bnd_session *session, int value) {
  return (int8_t *)(void *)session->data[value];
}

static bool is_bytes(const bnd_session *session, int value) {
  return session->plan->values[value].storage == BND_STORED_BYTES;
}

static bnd_status run_to_bytes(bnd_session *session, const bnd_step *step, bnd_error *error) {
  const bnd_layout from = bnd_plan_layout(&session->plan->values[step->inputs[0]]);
  const bool negative = bnd_bytes_quantize(session->data[step->inputs[0]], &from, step->factor, step->tail.relu, &step->tail.grid,
                                           bytes_of(session, step->outputs[0]), session->plan->options.threads);
  if (negative && step->expects_non_negative) return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: an input with negative values, which images do not have", step->name);
  return BND_OK;
}

static void run_byte_concat(bnd_session *session, const bnd_step *step) {
  const bnd_plan_value *values = session->plan->values;
  const bnd_layout to = bnd_plan_layout(&values[step->outputs[0]]);
  size_t first = 0;
  for (int i = 0; i < step->input_count; i++) {
    const size_t channels = (size_t)values[step->inputs[i]].shape.size[1];
    const bool moves = !step->tables || (!step->tail.relu && values[step->inputs[i]].grid.multiplier == step->tail.grid.multiplier);
    bnd_bytes_insert_channels(bytes_of(session, step->inputs[i]), to.images * to.height * to.width, channels, moves ? NULL : &step->tables[i],
                              bytes_of(session, step->outputs[0]), to.channels, first, session->plan->options.threads);
    first += channels;
  }
}

static void run_byte_sum(bnd_session *session, const bnd_step *step, size_t count) {
  const bnd_plan_value *values = session->plan->values;
  const bnd_byte_sum sum = {.factor = step->factor,
                            .x_step = values[step->inputs[0]].grid.step,
                            .y_step = values[step->inputs[1]].grid.step,
                            .inner = step->has_inner ? &step->inner : NULL,
                            .outer = &step->tail.grid,
                            .relu = step->tail.relu};
  bnd_bytes_scale_add(&sum, bytes_of(session, step->inputs[0]), bytes_of(session, step->inputs[1]), bytes_of(session, step->outputs[0]), count,
                      session->plan->options.threads);
}

/* --- steps on floats --- */

static void run_concat(bnd_session *session, const bnd_step *step) {
  const bnd_executor *plan = session->plan;
  const int out = step->outputs[0];
  const bnd_layout to = bnd_plan_layout(&plan->values[out]);
  size_t first = 0;
  if (plan->values[step->inputs[step->input_count - 1]].parent != out) bnd_loop_clear_tail(session->data[out], &to);
  for (int i = 0; i < step->input_count; i++) {
    const bnd_layout from = bnd_plan_layout(&plan->values[step->inputs[i]]);
    if (session->data[step->inputs[i]] != session->data[out] + first * to.height * to.width)
      bnd_loop_insert_channels(session->data[step->inputs[i]], &from, session->data[out], &to, first, plan->options.threads);
    first += from.channels;
  }
}

static void run_scale_add(bnd_session *session, const bnd_step *step, size_t count) {
  const bnd_grid *inner = step->has_inner ? &step->inner : NULL, *outer = step->tail.has_grid && !step->tail.relu ? &step->tail.grid : NULL;
  float *out = session->data[step->outputs[0]];
  bnd_loop_scale_add(session->data[step->inputs[0]], step->factor, inner, session->data[step->inputs[1]], outer, out, count,
                     session->plan->options.threads);
  if (step->tail.relu) bnd_loop_pointwise(out, 1.f, out, count, true, step->tail.has_grid ? &step->tail.grid : NULL, session->plan->options.threads);
}

static void show(bnd_session *session, const bnd_step *step, bnd_probe probe, void *user) {
  const bnd_plan_value *seen = &session->plan->values[step->inputs[0]];
  const bnd_value value = {session->data[step->inputs[0]], &seen->shape, seen->storage, bnd_plan_layout(seen), seen->grid.step,
                           session->plan->options.threads};
  if (probe) probe(user, step->node_id, step->name, &value);
}

static bnd_status run_step(bnd_session *session, size_t index, bnd_probe probe, void *user, bnd_error *error) {
  const bnd_executor *plan = session->plan;
  const bnd_step *step = &plan->steps[index];
  const int threads = plan->options.threads;
  const float *x = step->input_count > 0 && step->inputs[0] >= 0 ? session->data[step->inputs[0]] : NULL;
  float *y = step->output_count > 0 ? session->data[step->outputs[0]] : NULL;
  const bnd_layout to = step->output_count > 0 ? bnd_plan_layout(&plan->values[step->outputs[0]]) : (bnd_layout){0};
  switch (step->kind) {
    case BND_STEP_CONVOLUTION: return bnd_onednn_call_run(session->calls[index], x, y, session->scratch, error);
    case BND_STEP_KERNEL: run_kernel(session, step); break;
    case BND_STEP_SPREAD:
      if (is_bytes(session, step->outputs[0])) bnd_bytes_spread_pixels((const int8_t *)(const void *)x, bytes_of(session, step->outputs[0]), &to, threads);
      else bnd_loop_spread_pixels(x, y, &to, threads);
      break;
    case BND_STEP_POINTWISE: apply_tail(session, step, x, y, bnd_layout_count(&to)); break;
    case BND_STEP_SCALE_ADD:
      if (is_bytes(session, step->outputs[0])) run_byte_sum(session, step, bnd_layout_count(&to));
      else run_scale_add(session, step, bnd_layout_count(&to));
      break;
    case BND_STEP_MAX_POOL:
      if (is_bytes(session, step->outputs[0]))
        bnd_bytes_max_pool((const int8_t *)(const void *)x, bytes_of(session, step->outputs[0]), &to, step->kernel.window[0],
                           bytes_of(session, step->workspace), threads);
      else bnd_loop_max_pool(x, y, &to, step->kernel.window[0], session->data[step->workspace], threads);
      break;
    case BND_STEP_CONCAT:
      if (is_bytes(session, step->outputs[0])) run_byte_concat(session, step);
      else run_concat(session, step);
      break;
    case BND_STEP_TO_BYTES: return run_to_bytes(session, step, error);
    case BND_STEP_FROM_BYTES:
      bnd_bytes_dequantize((const int8_t *)(const void *)x, plan->values[step->inputs[0]].grid.step, y, &to, threads);
      break;
    case BND_STEP_MAP:
      bnd_bytes_map((const int8_t *)(const void *)x, step->tables, bytes_of(session, step->outputs[0]), bnd_layout_count(&to), threads);
      break;
    case BND_STEP_TO_PLAIN: {
      const bnd_layout from = bnd_plan_layout(&plan->values[step->inputs[0]]);
      bnd_loop_to_plain(x, &from, y, threads);
      break;
    }
    case BND_STEP_TO_BLOCKED: bnd_loop_to_blocked(x, &to, y, threads); break;
    case BND_STEP_PROBE: show(session, step, probe, user); break;
    case BND_STEP_ALIAS:
    case BND_STEP_DEAD: break;
  }
  return BND_OK;
}

/* Processor time with one thread, so that a busy machine does not show. */
static double now(const bnd_executor *plan) {
  return bnd_clock_seconds(plan->options.threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID);
}

static void set_inputs(bnd_session *session, const float *const *inputs) {
  const bnd_executor *plan = session->plan;
  for (size_t v = 0; v < plan->value_count; v++) {
    size_t offset;
    const bnd_plan_value *root = &plan->values[bnd_plan_root(plan, (int)v, &offset)];
    /* steps only read what lies in an input */
    if (root->placeholder >= 0) session->data[v] = (float *)((uintptr_t)inputs[root->placeholder] + offset);
  }
}

bnd_status bnd_session_run(bnd_session *session, const float *const *inputs, bnd_probe probe, void *user, bnd_error *error) {
  const bnd_executor *plan = session->plan;
  set_inputs(session, inputs);
  /* oneDNN asks OpenMP for its number of threads; the setting belongs to the calling thread */
  const int before = omp_get_max_threads();
  omp_set_num_threads(plan->options.threads);
  bnd_status status = BND_OK;
  for (size_t s = 0; s < plan->step_count && status == BND_OK; s++) {
    if (session->stop && session->stop(session->stop_user)) {
      status = bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted");
      break;
    }
    const double start = session->timing ? now(plan) : 0;
    status = run_step(session, s, probe, user, error);
    if (session->timing) session->shortest[s] = fmin(session->shortest[s], now(plan) - start);
  }
  omp_set_num_threads(before);
  return status;
}

/* --- description --- */

static const char *kind_name(const bnd_step *step) {
  switch (step->kind) {
    case BND_STEP_CONVOLUTION: return bnd_onednn_convolution_kernel(step->convolution);
    case BND_STEP_KERNEL: return bnd_operator_of(step->kernel.id)->name;
    case BND_STEP_SPREAD: return "spread";
    case BND_STEP_POINTWISE: return "pointwise";
    case BND_STEP_SCALE_ADD: return "scale_add";
    case BND_STEP_MAX_POOL: return "max_pool";
    case BND_STEP_CONCAT: return "concat";
    case BND_STEP_TO_PLAIN: return "to_plain";
    case BND_STEP_TO_BLOCKED: return "to_blocked";
    case BND_STEP_TO_BYTES: return "to_bytes";
    case BND_STEP_FROM_BYTES: return "from_bytes";
    case BND_STEP_MAP: return "map";
    case BND_STEP_ALIAS: return "alias";
    case BND_STEP_PROBE: return "probe";
    case BND_STEP_DEAD: return "dead";
  }
  return "";
}

static const char *const storage_names[BND_STORED_COUNT] = {"plain", "blocked", "bytes"};

bnd_status bnd_executor_describe(const bnd_executor *plan, const bnd_session *timed, bnd_string *text, bnd_error *error) {
  for (size_t s = 0; s < plan->step_count; s++) {
    const bnd_step *step = &plan->steps[s];
    const int value = step->output_count > 0 ? step->outputs[0] : step->inputs[0];
    const bnd_plan_value *v = &plan->values[value];
    char shape[BND_SHAPE_TEXT];
    size_t offset;
    const bnd_plan_value *root = &plan->values[bnd_plan_root(plan, value, &offset)];
    bnd_string_format(text, "%4zu  %-44s %-14s %-18s %-9s", s, step->name, kind_name(step), bnd_shape_text(&v->shape, shape),
                      storage_names[v->storage]);
    bnd_string_format(text, " @%-9zu %9zu bytes%s%s%s", root->address + offset, v->bytes, step->tail.relu ? " relu" : "",
                      step->tail.has_grid ? " quantize" : "", v->parent >= 0 ? " in place" : "");
    if (timed && timed->timing && isfinite(timed->shortest[s])) bnd_string_format(text, "  %8.3f ms", timed->shortest[s] * 1e3);
    bnd_string_format(text, "\n");
  }
  return text->failed ? bnd_fail_memory(error, "the description") : BND_OK;
}

int bnd_executor_step_count(const bnd_executor *plan) {
  return (int)plan->step_count;
}

void bnd_executor_step_info(const bnd_executor *plan, const bnd_session *timed, int index, bnd_step_info *info) {
  const bnd_step *step = &plan->steps[index];
  const bnd_plan_value *in = step->input_count > 0 && step->inputs[0] >= 0 ? &plan->values[step->inputs[0]] : NULL,
                       *out = step->output_count > 0 ? &plan->values[step->outputs[0]] : NULL;
  *info = (bnd_step_info){.name = step->name, .kernel = kind_name(step), .reason = step->reason ? step->reason : "", .operations = step->operations};
  if (in) info->input = in->shape;
  if (out) info->output = out->shape;
  info->convolution = step->kernel.id == BND_OP_CONV2D || step->kernel.id == BND_OP_CONV_TRANSPOSE2D;
  info->convolution = info->convolution && (step->kind == BND_STEP_KERNEL || step->kind == BND_STEP_CONVOLUTION);
  memcpy(info->window, step->weight_window, sizeof info->window);
  if (info->convolution) memcpy(info->stride, step->kernel.stride, sizeof info->stride);
  info->integer = in && out && in->storage == BND_STORED_BYTES && out->storage == BND_STORED_BYTES;
  info->bytes = step->convolution ? bnd_onednn_convolution_weight_bytes(step->convolution) : 0;
  for (int i = 0; i < step->input_count; i++)
    if (step->inputs[i] >= 0) info->bytes += plan->values[step->inputs[i]].constant.data ? plan->values[step->inputs[i]].constant.count * sizeof(float) : plan->values[step->inputs[i]].bytes;
  for (int i = 0; i < step->output_count; i++) info->bytes += plan->values[step->outputs[i]].bytes;
  if (timed && timed->timing && isfinite(timed->shortest[index])) info->seconds = timed->shortest[index];
}
