/* Which values are blocked, with conversions where layouts meet, and oneDNN's convolutions made. Layouts spread forward from convolutions: what works
   on single values, pools and channel concatenation keep the layout they find; everything else works on plain data. */
#include <stdlib.h>
#include <string.h>

#include "exec/internal.h"

static size_t layout_of(const bnd_executor *plan, int value) {
  return plan->values[value].block;
}

/* --- conversions --- */

static bnd_status convert(bnd_executor *plan, int *value, size_t block, bnd_error *error) {
  if (*value < 0 || plan->values[*value].block == block) return BND_OK;
  const int known = plan->values[*value].other_layout;
  if (known >= 0) {
    *value = known;
    return BND_OK;
  }
  const bnd_shape shape = plan->values[*value].shape;
  const int made = bnd_plan_add_value(plan, &shape);
  bnd_step *step =
      made < 0 ? NULL : bnd_plan_add_step(plan, block ? BND_STEP_TO_BLOCKED : BND_STEP_TO_PLAIN, block ? "to_blocked" : "to_plain", -1, 1);
  if (!step) return bnd_fail_memory(error, "the plan");
  step->inputs[0] = *value;
  step->outputs[0] = made;
  step->output_count = 1;
  plan->values[made].block = block;
  plan->values[made].other_layout = *value;
  plan->values[*value].other_layout = made;
  *value = made;
  return BND_OK;
}

static bnd_status convert_inputs(bnd_executor *plan, bnd_step *step, size_t block, bnd_error *error) {
  for (int i = 0; i < step->input_count; i++) BND_TRY(convert(plan, &step->inputs[i], block, error));
  return BND_OK;
}

static bnd_status append(bnd_executor *plan, const bnd_step *step, bnd_error *error) {
  bnd_step *added = bnd_plan_add_step(plan, step->kind, step->name, step->node_id, 0);
  if (!added) return bnd_fail_memory(error, "the plan");
  const char *name = added->name;
  *added = *step;
  added->name = name;
  return BND_OK;
}

/* --- convolutions --- */

static bnd_convolution_shape shape_of_convolution(const bnd_executor *plan, const bnd_step *step, const bnd_shape *out, const bnd_tensor *weight) {
  const bnd_shape *in = &plan->values[step->inputs[0]].shape;
  bnd_convolution_shape shape = {.images = (size_t)in->size[0],
                                 .in_channels = (size_t)in->size[1],
                                 .in_height = (size_t)in->size[2],
                                 .in_width = (size_t)in->size[3],
                                 .out_channels = (size_t)out->size[1],
                                 .out_height = (size_t)out->size[2],
                                 .out_width = (size_t)out->size[3],
                                 .window = {weight->shape.size[2], weight->shape.size[3]}};
  memcpy(shape.stride, step->kernel.stride, sizeof shape.stride);
  memcpy(shape.padding, step->kernel.padding, sizeof shape.padding);
  memcpy(shape.dilation, step->kernel.dilation, sizeof shape.dilation);
  return shape;
}

/* Few channels in a plain value are better read as they are than spread over a block that is mostly padding. */
enum { FEW_CHANNELS = 4 };

static bnd_status make_convolution(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  bnd_tensor weight = {0}, bias = {0};
  BND_TRY(bnd_plan_weights(plan, step, &weight, &bias, error));
  bnd_convolution_shape shape = shape_of_convolution(plan, step, &plan->values[step->outputs[0]].shape, &weight);
  shape.plain_input = layout_of(plan, step->inputs[0]) == 0 && shape.in_channels <= FEW_CHANNELS;
  bnd_status status = BND_OK;
  /* several channels into one, as in the projection of the box distribution, are quicker in plain loops than in blocks of padding */
  bool wanted = weight.dtype == BND_F32 && shape.out_channels > 1;
  while (wanted && status == BND_OK) {
    status = bnd_onednn_convolution_create(plan->onednn, &shape, &step->tail, bnd_f32(&weight), bias.data ? bnd_f32(&bias) : NULL,
                                           plan->options.threads, &step->convolution, error);
    wanted = !step->convolution && shape.plain_input; /* then perhaps with a blocked input */
    if (wanted) shape.plain_input = false;
  }
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
  if (status == BND_OK && step->convolution && !shape.plain_input) status = convert(plan, &step->inputs[0], bnd_onednn_block(plan->onednn), error);
  if (status == BND_OK && step->convolution) step->input_count = 1; /* the weights are packed */
  return status;
}

/* Weights of a transposed convolution with kernel and stride 2, [in][out][2][2], as those of a 1x1 convolution with four groups of output channels,
   each rounded up to whole blocks: [row parity][column parity][out][in]. */
static bnd_status spread_weights(const bnd_tensor *weight, const bnd_tensor *bias, size_t block, bnd_tensor *wide_weight, bnd_tensor *wide_bias,
                                 bnd_error *error) {
  const size_t in = (size_t)weight->shape.size[0], out = (size_t)weight->shape.size[1], wide = (out + block - 1) / block * block;
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)(4 * wide), (int64_t)in, 1, 1), wide_weight, error));
  if (bias->data) {
    const bnd_status status = bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)(4 * wide)), wide_bias, error);
    if (status != BND_OK) {
      bnd_tensor_release(wide_weight);
      return status;
    }
  }
  for (size_t k = 0; k < 4; k++)
    for (size_t o = 0; o < out; o++) {
      for (size_t i = 0; i < in; i++) bnd_f32(wide_weight)[(k * wide + o) * in + i] = bnd_f32(weight)[(i * out + o) * 4 + k];
      if (bias->data) bnd_f32(wide_bias)[k * wide + o] = bnd_f32(bias)[o];
    }
  return BND_OK;
}

static bool doubles_sides(const bnd_executor *plan, const bnd_step *step, const bnd_shape *window) {
  const bnd_shape *in = &plan->values[step->inputs[0]].shape, *out = &plan->values[step->outputs[0]].shape;
  const bnd_kernel *k = &step->kernel;
  return window->size[2] == 2 && window->size[3] == 2 && k->stride[0] == 2 && k->stride[1] == 2 && k->padding[0] == 0 && k->padding[1] == 0 &&
         out->size[2] == 2 * in->size[2] && out->size[3] == 2 * in->size[3];
}

/* The 1x1 convolution in place of a transposed one, and the value between it and the step that spreads its pixels. */
static bnd_status make_spreading(bnd_executor *plan, bnd_step *step, const bnd_tensor *weight, const bnd_tensor *bias, int *middle,
                                 bnd_error *error) {
  bnd_tensor wide_weight = {0}, wide_bias = {0};
  BND_TRY(spread_weights(weight, bias, bnd_onednn_block(plan->onednn), &wide_weight, &wide_bias, error));
  bnd_shape groups = plan->values[step->inputs[0]].shape;
  groups.size[1] = wide_weight.shape.size[0];
  bnd_convolution_shape shape = shape_of_convolution(plan, step, &groups, &wide_weight);
  shape.stride[0] = shape.stride[1] = shape.dilation[0] = shape.dilation[1] = 1;
  *middle = bnd_plan_add_value(plan, &groups);
  const bnd_status status =
      *middle < 0 ? bnd_fail_memory(error, "the plan")
                  : bnd_onednn_convolution_create(plan->onednn, &shape, &step->tail, bnd_f32(&wide_weight),
                                                  wide_bias.data ? bnd_f32(&wide_bias) : NULL, plan->options.threads, &step->convolution, error);
  bnd_tensor_release(&wide_weight);
  bnd_tensor_release(&wide_bias);
  return status;
}

/* The step becomes a 1x1 convolution, *spread the step behind it. step->convolution stays NULL where that does not work. */
static bnd_status make_transposed(bnd_executor *plan, bnd_step *step, bnd_step *spread, bnd_error *error) {
  bnd_tensor weight = {0}, bias = {0};
  int middle = -1;
  const size_t block = bnd_onednn_block(plan->onednn);
  BND_TRY(bnd_plan_weights(plan, step, &weight, &bias, error));
  const bnd_status status = block && doubles_sides(plan, step, &weight.shape) ? make_spreading(plan, step, &weight, &bias, &middle, error) : BND_OK;
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
  if (status != BND_OK || !step->convolution) return status;
  *spread = (bnd_step){
      .kind = BND_STEP_SPREAD, .name = step->name, .node_id = step->node_id, .input_count = 1, .output_count = 1, .workspace = -1, .factor = 1.f};
  spread->inputs = bnd_arena_alloc(plan->arena, 1, sizeof *spread->inputs);
  if (!spread->inputs) return bnd_fail_memory(error, "the plan");
  spread->inputs[0] = middle;
  spread->outputs[0] = step->outputs[0];
  step->outputs[0] = middle;
  step->input_count = 1; /* the weights are packed */
  plan->values[middle].block = plan->values[spread->outputs[0]].block = block;
  return convert(plan, &step->inputs[0], block, error);
}

/* A convolution for which oneDNN has nothing runs as a plain loop with the same tail. */
static bnd_status fall_back(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  step->kind = BND_STEP_KERNEL;
  BND_TRY(convert(plan, &step->inputs[0], 0, error));
  BND_TRY(append(plan, step, error));
  return bnd_plan_materialize(plan, plan->step_count - 1, error);
}

static bnd_status lay_out_convolution(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  bnd_step spread = {.kind = BND_STEP_DEAD};
  bnd_status status = BND_OK;
  if (step->kernel.groups == 1) status = step->transposed ? make_transposed(plan, step, &spread, error) : make_convolution(plan, step, error);
  if (status == BND_OK && !step->convolution) return fall_back(plan, step, error);
  if (status == BND_OK) status = append(plan, step, error);
  if (status != BND_OK) {
    bnd_onednn_convolution_destroy(step->convolution); /* the plan does not have it yet */
    return status;
  }
  plan->values[step->outputs[0]].block = bnd_onednn_block(plan->onednn);
  return spread.kind == BND_STEP_SPREAD ? append(plan, &spread, error) : BND_OK;
}

/* --- the other kinds --- */

static bnd_status lay_out_max_pool(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  const bnd_kernel *k = &step->kernel;
  const size_t block = layout_of(plan, step->inputs[0]);
  bool keeps_size = block > 0;
  for (int i = 0; i < 2; i++)
    keeps_size = keeps_size && k->stride[i] == 1 && k->dilation[i] == 1 && k->window[i] == k->window[0] && k->padding[i] == k->window[0] / 2;
  if (!keeps_size || k->window[0] % 2 == 0) {
    BND_TRY(convert_inputs(plan, step, 0, error));
    return append(plan, step, error);
  }
  const bnd_shape shape = plan->values[step->inputs[0]].shape;
  step->kind = BND_STEP_MAX_POOL;
  step->workspace = bnd_plan_add_value(plan, &shape);
  if (step->workspace < 0) return bnd_fail_memory(error, "the plan");
  plan->values[step->workspace].block = plan->values[step->outputs[0]].block = block;
  return append(plan, step, error);
}

static bnd_status lay_out_cat(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  size_t block = 0;
  for (int i = 0; i < step->input_count; i++)
    if (layout_of(plan, step->inputs[i])) block = layout_of(plan, step->inputs[i]);
  if (step->kernel.axis != 1 || plan->values[step->outputs[0]].shape.rank != 4) block = 0;
  if (!block) {
    BND_TRY(convert_inputs(plan, step, 0, error));
    return append(plan, step, error);
  }
  step->kind = BND_STEP_CONCAT; /* takes plain inputs too */
  plan->values[step->outputs[0]].block = block;
  return append(plan, step, error);
}

/* A new shape of plain data is the same memory. The caller's input is copied, so that no result lies in it. */
static bnd_status lay_out_reshape(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  BND_TRY(convert_inputs(plan, step, 0, error));
  const int root = bnd_plan_root(plan, step->inputs[0], NULL);
  if (plan->values[root].placeholder < 0 && !plan->values[root].constant.data && !step->tail.relu && !step->tail.has_grid) {
    step->kind = BND_STEP_ALIAS;
    plan->values[step->outputs[0]].parent = step->inputs[0];
  }
  return append(plan, step, error);
}

static bnd_status lay_out_kernel(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  switch (step->kernel.id) {
    case BND_OP_MAX_POOL2D: return lay_out_max_pool(plan, step, error);
    case BND_OP_CAT: return lay_out_cat(plan, step, error);
    case BND_OP_RESHAPE: return lay_out_reshape(plan, step, error);
    default: break;
  }
  BND_TRY(convert_inputs(plan, step, 0, error));
  BND_TRY(append(plan, step, error));
  return bnd_plan_materialize(plan, plan->step_count - 1, error); /* a linear module's weights */
}

static bnd_status lay_out(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  size_t block = 0;
  switch (step->kind) {
    case BND_STEP_DEAD: return BND_OK;
    case BND_STEP_CONVOLUTION: return lay_out_convolution(plan, step, error);
    case BND_STEP_KERNEL: return lay_out_kernel(plan, step, error);
    case BND_STEP_PROBE: return append(plan, step, error);
    default: break;
  }
  /* value by value: blocked if one of the inputs is */
  for (int i = 0; i < step->input_count; i++)
    if (layout_of(plan, step->inputs[i])) block = layout_of(plan, step->inputs[i]);
  BND_TRY(convert_inputs(plan, step, block, error));
  plan->values[step->outputs[0]].block = block;
  return append(plan, step, error);
}

bnd_status bnd_plan_assign_layouts(bnd_executor *plan, bnd_error *error) {
  bnd_step *steps = plan->steps;
  const size_t count = plan->step_count;
  plan->steps = NULL;
  plan->step_count = plan->step_capacity = 0;
  bnd_status status = BND_OK;
  for (size_t s = 0; s < count && status == BND_OK; s++) status = lay_out(plan, &steps[s], error);
  free(steps);
  for (size_t o = 0; o < plan->output_count && status == BND_OK; o++) status = convert(plan, &plan->outputs[o], 0, error);
  return status;
}
