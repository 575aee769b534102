/* Which form every value takes, with conversions where forms meet, and convolutions made. Forms spread forward from convolutions: what works on single
   values, pools and channel concatenation keep the form they find; everything else works on plain floats. */
#include <stdlib.h>
#include <string.h>

#include "exec/internal.h"

static bnd_value_storage storage_of(const bnd_executor *plan, int value) {
  return plan->values[value].storage;
}

/* --- building blocks --- */

/* A second value: the same numbers in another form. */
static int add_twin(bnd_executor *plan, int value, bnd_value_storage storage) {
  const bnd_shape shape = plan->values[value].shape;
  const int made = bnd_plan_add_value(plan, &shape);
  if (made < 0) return -1;
  bnd_plan_value *old = &plan->values[value], *twin = &plan->values[made];
  twin->on_grid = old->on_grid;
  twin->grid = old->grid;
  twin->non_negative = old->non_negative;
  bnd_plan_set_storage(plan, made, storage);
  for (int f = 0; f < BND_STORED_COUNT; f++) {
    if (f == (int)storage) continue;
    twin->stored_as[f] = old->stored_as[f];
    if (old->stored_as[f] >= 0) plan->values[old->stored_as[f]].stored_as[storage] = made;
  }
  return made;
}

bnd_status bnd_plan_convert(bnd_executor *plan, int *value, bnd_value_storage storage, bnd_error *error) {
  static const struct {
    bnd_step_kind kind;
    const char *name;
  } conversions[] = {[BND_STORED_PLAIN] = {BND_STEP_TO_PLAIN, "to_plain"}, [BND_STORED_BLOCKED] = {BND_STEP_TO_BLOCKED, "to_blocked"},
                     [BND_STORED_BYTES] = {BND_STEP_TO_BYTES, "to_bytes"}};
  if (*value < 0 || storage_of(plan, *value) == storage) return BND_OK;
  if (plan->values[*value].stored_as[storage] >= 0) {
    *value = plan->values[*value].stored_as[storage];
    return BND_OK;
  }
  const bool from_bytes = storage_of(plan, *value) == BND_STORED_BYTES;
  const int made = add_twin(plan, *value, storage);
  bnd_step *step = made < 0 ? NULL
                            : bnd_plan_add_step(plan, from_bytes ? BND_STEP_FROM_BYTES : conversions[storage].kind,
                                                from_bytes ? "from_bytes" : conversions[storage].name, -1, 1);
  if (!step) return bnd_fail_memory(error, "the plan");
  step->inputs[0] = *value;
  step->outputs[0] = made;
  step->output_count = 1;
  if (storage == BND_STORED_BYTES) {
    step->tail.has_grid = true;
    step->tail.grid = plan->values[*value].grid;
  }
  *value = made;
  return BND_OK;
}

static bnd_status convert_inputs(bnd_executor *plan, bnd_step *step, bnd_value_storage storage, bnd_error *error) {
  for (int i = 0; i < step->input_count; i++) BND_TRY(bnd_plan_convert(plan, &step->inputs[i], storage, error));
  return BND_OK;
}

bnd_status bnd_plan_append(bnd_executor *plan, const bnd_step *step, bnd_error *error) {
  bnd_step *added = bnd_plan_add_step(plan, step->kind, step->name, step->node_id, 0);
  if (!added) return bnd_fail_memory(error, "the plan");
  const char *name = added->name;
  *added = *step;
  added->name = name;
  return BND_OK;
}

static bool has_input_stored(const bnd_executor *plan, const bnd_step *step, bnd_value_storage storage) {
  for (int i = 0; i < step->input_count; i++)
    if (step->inputs[i] >= 0 && storage_of(plan, step->inputs[i]) == storage) return true;
  return false;
}

/* --- bytes --- */

bool bnd_plan_can_be_bytes(const bnd_executor *plan, int value) {
  const bnd_plan_value *v = &plan->values[value];
  return plan->options.backend == BND_BACKEND_INT8 && v->on_grid && bnd_grid_fits_bytes(&v->grid) && !v->constant.data;
}

static bool inputs_can_be_bytes(const bnd_executor *plan, const bnd_step *step) {
  for (int i = 0; i < step->input_count; i++)
    if (!bnd_plan_can_be_bytes(plan, step->inputs[i])) return false;
  return true;
}

static bool result_can_be_bytes(const bnd_executor *plan, const bnd_step *step) {
  return step->tail.has_grid && bnd_plan_can_be_bytes(plan, step->outputs[0]);
}

/* Convolutions, sums, pools and concatenations read bytes; whatever else there is would have to turn them into floats again. */
static bool reads_bytes(const bnd_step *step) {
  switch (step->kind) {
    case BND_STEP_CONVOLUTION:
    case BND_STEP_SCALE_ADD:
    case BND_STEP_POINTWISE: return true;
    case BND_STEP_KERNEL: return step->kernel.id == BND_OP_CAT || step->kernel.id == BND_OP_MAX_POOL2D;
    default: return false;
  }
}

static void note_wishes(bnd_executor *plan, const bnd_step *steps, size_t count) {
  for (size_t s = 0; s < count; s++)
    for (int i = 0; i < steps[s].input_count && reads_bytes(&steps[s]); i++)
      if (steps[s].inputs[i] >= 0 && plan->values[steps[s].inputs[i]].shape.rank == 4) plan->values[steps[s].inputs[i]].wants_bytes = true;
}

/* --- kinds --- */

static bnd_status lay_out_max_pool(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  const bnd_kernel *k = &step->kernel;
  const bnd_value_storage storage = storage_of(plan, step->inputs[0]);
  bool keeps_size = storage != BND_STORED_PLAIN && k->window[0] % 2 == 1;
  for (int i = 0; i < 2; i++)
    keeps_size = keeps_size && k->stride[i] == 1 && k->dilation[i] == 1 && k->window[i] == k->window[0] && k->padding[i] == k->window[0] / 2;
  if (!keeps_size) {
    BND_TRY(convert_inputs(plan, step, BND_STORED_PLAIN, error));
    return bnd_plan_append(plan, step, error);
  }
  const bnd_shape shape = plan->values[step->inputs[0]].shape;
  step->kind = BND_STEP_MAX_POOL;
  step->workspace = bnd_plan_add_value(plan, &shape);
  if (step->workspace < 0) return bnd_fail_memory(error, "the plan");
  bnd_plan_set_storage(plan, step->workspace, storage);
  bnd_plan_set_storage(plan, step->outputs[0], storage);
  return bnd_plan_append(plan, step, error);
}

/* One table for each part that is on another grid than the result. */
static bnd_status make_tables(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  bnd_byte_table *tables = bnd_arena_alloc(plan->arena, (size_t)step->input_count, sizeof *tables);
  if (!tables) return bnd_fail_memory(error, "the plan");
  for (int i = 0; i < step->input_count; i++)
    bnd_bytes_make_table(plan->values[step->inputs[i]].grid.step, step->factor, step->tail.relu, &step->tail.grid, &tables[i]);
  step->tables = tables;
  return BND_OK;
}

static bnd_status lay_out_cat(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  bnd_value_storage storage = BND_STORED_PLAIN;
  if (step->kernel.axis == 1 && plan->values[step->outputs[0]].shape.rank == 4) {
    const bool bytes = bnd_plan_can_be_bytes(plan, step->outputs[0]) && inputs_can_be_bytes(plan, step);
    if (bytes && (step->tail.has_grid || has_input_stored(plan, step, BND_STORED_BYTES))) storage = BND_STORED_BYTES;
    else if (has_input_stored(plan, step, BND_STORED_BLOCKED)) storage = BND_STORED_BLOCKED;
  }
  if (storage != BND_STORED_BLOCKED) BND_TRY(convert_inputs(plan, step, storage, error));
  for (int i = 0; i < step->input_count && storage == BND_STORED_BLOCKED; i++) /* takes plain inputs too */
    if (storage_of(plan, step->inputs[i]) == BND_STORED_BYTES) BND_TRY(bnd_plan_convert(plan, &step->inputs[i], storage, error));
  if (storage == BND_STORED_BYTES && step->tail.has_grid) BND_TRY(make_tables(plan, step, error));
  if (storage != BND_STORED_PLAIN) step->kind = BND_STEP_CONCAT;
  bnd_plan_set_storage(plan, step->outputs[0], storage);
  return bnd_plan_append(plan, step, error);
}

/* A new shape of plain data is the same memory. The caller's input is copied, so that no result lies in it. */
static bnd_status lay_out_reshape(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  BND_TRY(convert_inputs(plan, step, BND_STORED_PLAIN, error));
  const int root = bnd_plan_root(plan, step->inputs[0], NULL);
  if (plan->values[root].placeholder < 0 && !plan->values[root].constant.data && !step->tail.relu && !step->tail.has_grid) {
    step->kind = BND_STEP_ALIAS;
    plan->values[step->outputs[0]].parent = step->inputs[0];
  }
  return bnd_plan_append(plan, step, error);
}

static bnd_status lay_out_kernel(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  switch (step->kernel.id) {
    case BND_OP_MAX_POOL2D: return lay_out_max_pool(plan, step, error);
    case BND_OP_CAT: return lay_out_cat(plan, step, error);
    case BND_OP_RESHAPE: return lay_out_reshape(plan, step, error);
    default: break;
  }
  BND_TRY(convert_inputs(plan, step, BND_STORED_PLAIN, error));
  BND_TRY(bnd_plan_append(plan, step, error));
  return bnd_plan_materialize(plan, plan->step_count - 1, error); /* a linear module's weights */
}

/* Value by value: bytes where they can be, else blocked if one of the inputs is. */
static bnd_status lay_out_values(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  const int out = step->outputs[0];
  if (result_can_be_bytes(plan, step) && inputs_can_be_bytes(plan, step) && has_input_stored(plan, step, BND_STORED_BYTES)) {
    BND_TRY(convert_inputs(plan, step, BND_STORED_BYTES, error));
    if (step->kind == BND_STEP_POINTWISE) {
      step->kind = BND_STEP_MAP;
      BND_TRY(make_tables(plan, step, error));
    }
    bnd_plan_set_storage(plan, out, BND_STORED_BYTES);
  } else if (step->kind == BND_STEP_POINTWISE && result_can_be_bytes(plan, step) && plan->values[out].wants_bytes) {
    if (storage_of(plan, step->inputs[0]) == BND_STORED_BYTES) BND_TRY(convert_inputs(plan, step, BND_STORED_PLAIN, error));
    step->kind = BND_STEP_TO_BYTES;
    step->expects_non_negative = plan->values[out].non_negative && plan->values[step->inputs[0]].placeholder >= 0;
    bnd_plan_set_storage(plan, out, BND_STORED_BYTES);
  } else {
    const bnd_value_storage storage = has_input_stored(plan, step, BND_STORED_BLOCKED) ? BND_STORED_BLOCKED : BND_STORED_PLAIN;
    BND_TRY(convert_inputs(plan, step, storage, error));
    bnd_plan_set_storage(plan, out, storage);
  }
  return bnd_plan_append(plan, step, error);
}

static bnd_status lay_out(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  switch (step->kind) {
    case BND_STEP_DEAD: return BND_OK;
    case BND_STEP_CONVOLUTION: return bnd_plan_lay_out_convolution(plan, step, error);
    case BND_STEP_KERNEL: return lay_out_kernel(plan, step, error);
    case BND_STEP_PROBE: return bnd_plan_append(plan, step, error);
    default: return lay_out_values(plan, step, error);
  }
}

bnd_status bnd_plan_assign_layouts(bnd_executor *plan, bnd_error *error) {
  bnd_step *steps = plan->steps;
  const size_t count = plan->step_count;
  plan->steps = NULL;
  plan->step_count = plan->step_capacity = 0;
  note_wishes(plan, steps, count);
  bnd_status status = BND_OK;
  for (size_t s = 0; s < count && status == BND_OK; s++) status = lay_out(plan, &steps[s], error);
  free(steps);
  for (size_t o = 0; o < plan->output_count && status == BND_OK; o++) status = bnd_plan_convert(plan, &plan->outputs[o], BND_STORED_PLAIN, error);
  return status;
}
