/* Merging steps. Each rule looks at a step and the only reader of its result. A merged step runs where the first of its parts stood (the tail of a
   convolution needs nothing else) or, where a second operand joins, at the place of the last. */
#include <string.h>

#include "exec/internal.h"

typedef struct links {
  int *producer;  /* by value: step; -1 = none */
  int *user;      /* by value: a step that reads it; the only one when use_count is 1 */
  int *use_count; /* steps and outputs that read it */
} links;

static void connect(const bnd_executor *plan, links *l) {
  for (size_t v = 0; v < plan->value_count; v++) {
    l->producer[v] = l->user[v] = -1;
    l->use_count[v] = 0;
  }
  for (size_t s = 0; s < plan->step_count; s++) {
    const bnd_step *step = &plan->steps[s];
    if (step->kind == BND_STEP_DEAD) continue;
    for (int i = 0; i < step->input_count; i++) {
      if (step->inputs[i] < 0) continue;
      l->user[step->inputs[i]] = (int)s;
      l->use_count[step->inputs[i]]++;
    }
    for (int i = 0; i < step->output_count; i++) l->producer[step->outputs[i]] = (int)s;
  }
  for (size_t o = 0; o < plan->output_count; o++) l->use_count[plan->outputs[o]] += 2; /* never "the only reader" */
}

static bool is_constant(const bnd_executor *plan, int value) {
  return value >= 0 && plan->values[value].constant.data;
}

/* The only reader of the step's result, if that is a kernel step. */
static bnd_step *only_reader(bnd_executor *plan, const links *l, const bnd_step *step) {
  if (step->output_count != 1 || l->use_count[step->outputs[0]] != 1) return NULL;
  bnd_step *reader = &plan->steps[l->user[step->outputs[0]]];
  return reader->kind == BND_STEP_KERNEL ? reader : NULL;
}

/* `step` takes over the result of `next`, which is gone. */
static void take_over(links *l, bnd_step *step, bnd_step *next, size_t step_index) {
  step->outputs[0] = next->outputs[0];
  l->producer[step->outputs[0]] = (int)step_index;
  next->kind = BND_STEP_DEAD;
}

static bool is_per_tensor(const bnd_step *step) {
  return step->kernel.id == BND_OP_FAKE_QUANTIZE && step->kernel.quantizer->channels == 1;
}

static bool same_grid(const bnd_grid *a, const bnd_grid *b) {
  return a->multiplier == b->multiplier && a->low == b->low && a->high == b->high;
}

/* --- tails: relu, then fake quantization --- */

static void absorb_tail(bnd_executor *plan, links *l, size_t index) {
  bnd_step *step = &plan->steps[index], *next;
  while ((next = only_reader(plan, l, step)) != NULL) {
    if (step->tail.has_grid) return;
    if (next->kernel.id == BND_OP_RELU) {
      step->tail.relu = true;
    } else if (is_per_tensor(next)) {
      step->tail.has_grid = true;
      step->tail.grid = bnd_grid_of(next->kernel.quantizer);
    } else {
      return;
    }
    take_over(l, step, next, index);
  }
}

/* --- convolutions --- */

static bool is_convolution(const bnd_executor *plan, const bnd_step *step) {
  if (step->kind != BND_STEP_KERNEL || (step->kernel.id != BND_OP_CONV2D && step->kernel.id != BND_OP_CONV_TRANSPOSE2D)) return false;
  if (step->module) return true;
  return is_constant(plan, step->inputs[1]) && (step->input_count < 3 || step->inputs[2] < 0 || is_constant(plan, step->inputs[2]));
}

static void absorb_batch_norm(bnd_executor *plan, links *l, size_t index) {
  bnd_step *step = &plan->steps[index];
  if (step->module || (step->transposed && step->kernel.groups != 1)) return;
  bnd_step *next = only_reader(plan, l, step);
  if (!next || next->kernel.id != BND_OP_BATCH_NORM || next->inputs[0] != step->outputs[0]) return;
  for (int i = 1; i < 5; i++)
    if (next->inputs[i] >= 0 && !is_constant(plan, next->inputs[i])) return;
  step->has_batch_norm = true;
  step->batch_norm_epsilon = next->kernel.number;
  memcpy(step->batch_norm, next->inputs + 1, sizeof step->batch_norm);
  take_over(l, step, next, index);
}

/* --- factor * x + y --- */

/* x and the number of a product of a value and a constant number. */
static bool is_scaling(const bnd_executor *plan, const bnd_step *step, int *x, float *factor) {
  if (step->kernel.id != BND_OP_MUL || step->kind != BND_STEP_KERNEL) return false;
  for (int i = 0; i < 2; i++) {
    const int number = step->inputs[i], other = step->inputs[1 - i];
    if (!is_constant(plan, number) || is_constant(plan, other) || plan->values[number].constant.count != 1) continue;
    if (!bnd_shape_equal(&plan->values[other].shape, &plan->values[step->outputs[0]].shape)) continue;
    *x = other;
    *factor = bnd_f32(&plan->values[number].constant)[0];
    return true;
  }
  return false;
}

static void fuse_scaling(bnd_executor *plan, links *l, size_t index) {
  bnd_step *step = &plan->steps[index];
  int x;
  float factor;
  if (!is_scaling(plan, step, &x, &factor)) return;
  step->kind = BND_STEP_POINTWISE;
  step->factor = factor;
  step->inputs[0] = x;
  step->input_count = 1;
  absorb_tail(plan, l, index);
}

static bool is_plain_sum(const bnd_executor *plan, const bnd_step *step) {
  if (step->kind != BND_STEP_KERNEL || step->kernel.id != BND_OP_ADD || step->kernel.number != 1) return false;
  const bnd_shape *result = &plan->values[step->outputs[0]].shape;
  for (int i = 0; i < 2; i++)
    if (is_constant(plan, step->inputs[i]) || !bnd_shape_equal(&plan->values[step->inputs[i]].shape, result)) return false;
  return step->inputs[0] != step->inputs[1];
}

/* A sum one of whose operands is a scaled value that nothing else reads takes the scaling in. */
static void fuse_sum(bnd_executor *plan, links *l, size_t index) {
  bnd_step *step = &plan->steps[index];
  if (!is_plain_sum(plan, step)) return;
  step->kind = BND_STEP_SCALE_ADD;
  for (int i = 0; i < 2; i++) {
    const int scaled = step->inputs[i], other = step->inputs[1 - i], producer = l->producer[scaled];
    if (producer < 0 || l->use_count[scaled] != 1) continue;
    bnd_step *scaling = &plan->steps[producer];
    if (scaling->kind != BND_STEP_POINTWISE || scaling->tail.relu) continue;
    step->factor = scaling->factor;
    step->has_inner = scaling->tail.has_grid;
    step->inner = scaling->tail.grid;
    step->inputs[0] = scaling->inputs[0];
    step->inputs[1] = other;
    scaling->kind = BND_STEP_DEAD;
    break;
  }
  absorb_tail(plan, l, index);
}

/* --- the rest --- */

static void fuse_pointwise(bnd_executor *plan, links *l, size_t index) {
  bnd_step *step = &plan->steps[index];
  if (step->kind != BND_STEP_KERNEL) return;
  if (step->kernel.id == BND_OP_RELU) {
    step->tail.relu = true;
  } else if (is_per_tensor(step)) {
    step->tail.has_grid = true;
    step->tail.grid = bnd_grid_of(step->kernel.quantizer);
  } else {
    return;
  }
  step->kind = BND_STEP_POINTWISE;
  absorb_tail(plan, l, index);
}

static bool moves_values(bnd_operator_id id) {
  switch (id) {
    case BND_OP_RESHAPE:
    case BND_OP_PERMUTE:
    case BND_OP_SLICE:
    case BND_OP_SPLIT:
    case BND_OP_PIXEL_SHUFFLE:
    case BND_OP_MAX_POOL2D:
    case BND_OP_CAT: return true;
    default: return false;
  }
}

static bool inputs_are_non_negative(const bnd_executor *plan, const bnd_step *step) {
  for (int i = 0; i < step->input_count; i++)
    if (!plan->values[step->inputs[i]].non_negative) return false;
  return true;
}

static bool result_is_non_negative(const bnd_executor *plan, const bnd_step *step) {
  if (step->tail.relu || step->tail.grid.low >= 0.f) return true;
  const bool keeps_sign = step->kind == BND_STEP_POINTWISE || step->kind == BND_STEP_SCALE_ADD;
  return keeps_sign && step->factor >= 0.f && inputs_are_non_negative(plan, step);
}

/* Values that only move stay on the grid of all the inputs they come from. */
static void note_grid(bnd_executor *plan, const bnd_step *step) {
  if (step->output_count < 1) return;
  bnd_plan_value *first = &plan->values[step->outputs[0]];
  if (step->tail.has_grid) {
    first->on_grid = true;
    first->grid = step->tail.grid;
    first->non_negative = result_is_non_negative(plan, step);
  } else if (step->kind == BND_STEP_KERNEL && moves_values(step->kernel.id) && !step->tail.relu) {
    const bnd_plan_value *input = &plan->values[step->inputs[0]];
    for (int i = 0; i < step->input_count; i++)
      if (!plan->values[step->inputs[i]].on_grid || !same_grid(&plan->values[step->inputs[i]].grid, &input->grid)) return;
    for (int i = 0; i < step->output_count; i++) {
      plan->values[step->outputs[i]].on_grid = true;
      plan->values[step->outputs[i]].grid = input->grid;
      plan->values[step->outputs[i]].non_negative = inputs_are_non_negative(plan, step);
    }
  }
}

/* All readers of `from` read `to` instead. */
static void replace_value(bnd_executor *plan, int from, int to) {
  for (size_t s = 0; s < plan->step_count; s++)
    for (int i = 0; i < plan->steps[s].input_count; i++)
      if (plan->steps[s].inputs[i] == from) plan->steps[s].inputs[i] = to;
  for (size_t o = 0; o < plan->output_count; o++)
    if (plan->outputs[o] == from) plan->outputs[o] = to;
}

/* Fake quantization of values that are on that grid already changes nothing. */
static void drop_repeated_quantization(bnd_executor *plan) {
  for (size_t s = 0; s < plan->step_count; s++) {
    bnd_step *step = &plan->steps[s];
    if (step->kind == BND_STEP_DEAD) continue;
    if (step->kind == BND_STEP_POINTWISE && step->factor == 1.f && !step->tail.relu && step->tail.has_grid) {
      const bnd_plan_value *input = &plan->values[step->inputs[0]];
      if (input->on_grid && same_grid(&input->grid, &step->tail.grid)) {
        replace_value(plan, step->outputs[0], step->inputs[0]);
        step->kind = BND_STEP_DEAD;
        continue;
      }
    }
    note_grid(plan, step);
  }
}

/* What works on single values can take a tail behind it without another pass over memory by a step of its own. */
static bool takes_tail(const bnd_step *step) {
  if (step->kind != BND_STEP_KERNEL || step->output_count != 1) return false;
  return !moves_values(step->kernel.id) && step->kernel.id != BND_OP_FAKE_QUANTIZE && step->kernel.id != BND_OP_RELU;
}

/* A concatenation of bytes on several grids, then quantized: each part goes through a table of its own on its way. */
static void absorb_requantization(bnd_executor *plan, links *l, size_t index) {
  bnd_step *step = &plan->steps[index];
  if (step->kind != BND_STEP_KERNEL || step->kernel.id != BND_OP_CAT || step->kernel.axis != 1 || plan->values[step->outputs[0]].shape.rank != 4) return;
  for (int i = 0; i < step->input_count; i++)
    if (step->inputs[i] < 0 || !bnd_plan_can_be_bytes(plan, step->inputs[i])) return;
  if (l->use_count[step->outputs[0]] != 1) return;
  bnd_step *next = &plan->steps[l->user[step->outputs[0]]];
  if (next->kind != BND_STEP_POINTWISE || next->factor != 1.f || !next->tail.has_grid || !bnd_grid_fits_bytes(&next->tail.grid)) return;
  step->tail = next->tail;
  take_over(l, step, next, index);
  plan->values[step->outputs[0]].non_negative = step->tail.relu || inputs_are_non_negative(plan, step);
}

static void fuse_all(bnd_executor *plan, links *l) {
  for (size_t s = 0; s < plan->step_count; s++) {
    if (!is_convolution(plan, &plan->steps[s])) continue;
    absorb_batch_norm(plan, l, s);
    absorb_tail(plan, l, s);
    plan->steps[s].kind = BND_STEP_CONVOLUTION; /* layout.c decides whether oneDNN takes it */
  }
  for (size_t s = 0; s < plan->step_count; s++) fuse_scaling(plan, l, s);
  for (size_t s = 0; s < plan->step_count; s++) fuse_sum(plan, l, s);
  for (size_t s = 0; s < plan->step_count; s++)
    if (takes_tail(&plan->steps[s])) absorb_tail(plan, l, s);
  for (size_t s = 0; s < plan->step_count; s++) fuse_pointwise(plan, l, s);
  drop_repeated_quantization(plan);
  if (plan->options.backend != BND_BACKEND_INT8) return;
  connect(plan, l);
  for (size_t s = 0; s < plan->step_count; s++) absorb_requantization(plan, l, s);
}

/* --- links of a plan --- */

static bnd_status with_links(bnd_executor *plan, void (*work)(bnd_executor *plan, links *l), bnd_error *error) {
  bnd_arena *scratch = bnd_arena_create();
  links l = {0};
  if (scratch) {
    l.producer = bnd_arena_alloc(scratch, plan->value_count, sizeof *l.producer);
    l.user = bnd_arena_alloc(scratch, plan->value_count, sizeof *l.user);
    l.use_count = bnd_arena_alloc(scratch, plan->value_count, sizeof *l.use_count);
  }
  const bool ready = l.producer && l.user && l.use_count;
  if (ready) {
    connect(plan, &l);
    work(plan, &l);
  }
  bnd_arena_destroy(scratch);
  return ready ? BND_OK : bnd_fail_memory(error, "the plan");
}

bnd_status bnd_plan_fuse(bnd_executor *plan, bnd_error *error) {
  return with_links(plan, fuse_all, error);
}

static void keep_rounding(bnd_executor *plan, links *l) {
  for (size_t s = 0; s < plan->step_count; s++) {
    bnd_step *step = &plan->steps[s];
    const bnd_operator_id id = step->kernel.id;
    if (step->kind != BND_STEP_KERNEL || (id != BND_OP_CONV2D && id != BND_OP_CONV_TRANSPOSE2D && id != BND_OP_LINEAR)) continue;
    const bnd_step *next = only_reader(plan, l, step);
    if (next && next->kernel.id == BND_OP_RELU) next = only_reader(plan, l, next);
    step->kernel.sticky = next && next->kernel.id == BND_OP_FAKE_QUANTIZE;
  }
}

bnd_status bnd_plan_keep_rounding(bnd_executor *plan, bnd_error *error) {
  return plan->options.mode == BND_EXEC_FAKE_QUANTIZE ? with_links(plan, keep_rounding, error) : BND_OK;
}
