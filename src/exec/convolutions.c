/* Convolutions: which kernel each one gets. Quantized ones run in int8 where the processor sums that exactly, else in float32 where their sums are proven
   exact, else as plain loops, whose sums always are; those that are not quantized run in float32. A transposed convolution with kernel and stride 2 is
   a 1x1 convolution to four groups of channels, one for each of the pixels it makes, and a step that spreads them. */
#include <stdlib.h>
#include <string.h>

#include "exec/internal.h"

/* A convolution on its way to a kernel. */
typedef struct making {
  bnd_executor *plan;
  bnd_step *step;
  bnd_tensor weight, bias; /* [out][in][window] or, transposed, [in][out][window]; bias.data NULL = none */
  bnd_grid result;         /* of a quantized one: the tail's grid, from 0 under a relu */
  bool quantized;          /* input and result are bytes */
} making;

/* --- shapes and weights --- */

static bnd_convolution_shape shape_of(const making *m, size_t out_channels) {
  const bnd_shape *in = &m->plan->values[m->step->inputs[0]].shape, *out = &m->plan->values[m->step->outputs[0]].shape;
  const bool spreads = m->step->transposed;
  bnd_convolution_shape shape = {.images = (size_t)in->size[0],
                                 .in_channels = (size_t)in->size[1],
                                 .in_height = (size_t)in->size[2],
                                 .in_width = (size_t)in->size[3],
                                 .out_channels = out_channels,
                                 .out_height = (size_t)(spreads ? in : out)->size[2],
                                 .out_width = (size_t)(spreads ? in : out)->size[3],
                                 .window = {1, 1},
                                 .stride = {1, 1},
                                 .dilation = {1, 1}};
  if (spreads) return shape;
  for (int i = 0; i < 2; i++) {
    shape.window[i] = m->weight.shape.size[2 + i];
    shape.stride[i] = m->step->kernel.stride[i];
    shape.padding[i] = m->step->kernel.padding[i];
    shape.dilation[i] = m->step->kernel.dilation[i];
  }
  return shape;
}

/* Weights of a transposed convolution, [in][out][2][2], as [row parity][column parity][out][in], each group of output channels rounded up to whole
   blocks. Others are shared as they are. */
static bnd_status arrange_weights(const making *m, size_t block, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error) {
  *bias = (bnd_tensor){0};
  if (!m->step->transposed) {
    *weight = bnd_tensor_share(&m->weight, NULL);
    if (m->bias.data) *bias = bnd_tensor_share(&m->bias, NULL);
    return BND_OK;
  }
  const size_t in = (size_t)m->weight.shape.size[0], out = (size_t)m->weight.shape.size[1], wide = (out + block - 1) / block * block;
  BND_TRY(bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)(4 * wide), (int64_t)in, 1, 1), weight, error));
  if (m->bias.data) {
    const bnd_status status = bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)(4 * wide)), bias, error);
    if (status != BND_OK) {
      bnd_tensor_release(weight);
      return status;
    }
  }
  for (size_t k = 0; k < 4; k++)
    for (size_t o = 0; o < out; o++) {
      for (size_t i = 0; i < in; i++) bnd_f32(weight)[(k * wide + o) * in + i] = bnd_f32(&m->weight)[(i * out + o) * 4 + k];
      if (m->bias.data) bnd_f32(bias)[k * wide + o] = bnd_f32(&m->bias)[o];
    }
  return BND_OK;
}

static bool doubles_sides(const making *m) {
  const bnd_shape *in = &m->plan->values[m->step->inputs[0]].shape, *out = &m->plan->values[m->step->outputs[0]].shape, *window = &m->weight.shape;
  const bnd_kernel *k = &m->step->kernel;
  return window->size[2] == 2 && window->size[3] == 2 && k->stride[0] == 2 && k->stride[1] == 2 && k->padding[0] == 0 && k->padding[1] == 0 &&
         out->size[2] == 2 * in->size[2] && out->size[3] == 2 * in->size[3];
}

/* --- kernels --- */

static bool sums_exactly(const making *m) {
  const bool non_negative = m->plan->values[m->step->inputs[0]].non_negative;
  return m->plan->int8_level >= (non_negative ? BND_INT8_UNSIGNED : BND_INT8_SIGNED);
}

static bnd_status make_int8(making *m, const bnd_tensor *weight, const bnd_int8_weights *integers, bnd_error *error) {
  bnd_executor *plan = m->plan;
  const bnd_convolution_shape shape = shape_of(m, (size_t)weight->shape.size[0]);
  const bnd_int8_operands operands = {.non_negative = plan->values[m->step->inputs[0]].non_negative,
                                      .weight = integers->weight,
                                      .scale = integers->scale,
                                      .scale_count = integers->scale_count,
                                      .bias = integers->bias,
                                      .low = m->result.low,
                                      .high = m->result.high};
  return bnd_onednn_int8_create(plan->onednn, &shape, &operands, plan->options.threads, &m->step->convolution, error);
}

/* Few channels in a plain value are better read as they are than spread over a block that is mostly padding. */
enum { FEW_CHANNELS = 4 };

static bnd_status make_float(making *m, bnd_value_storage *input, bnd_error *error) {
  bnd_executor *plan = m->plan;
  bnd_tensor weight, bias;
  BND_TRY(arrange_weights(m, bnd_onednn_block(plan->onednn), &weight, &bias, error));
  bnd_convolution_shape shape = shape_of(m, (size_t)weight.shape.size[0]);
  shape.plain_input = plan->values[m->step->inputs[0]].storage == BND_STORED_PLAIN && shape.in_channels <= FEW_CHANNELS && !m->step->transposed;
  bnd_status status = BND_OK;
  bool wanted = true;
  while (wanted && status == BND_OK) {
    status = bnd_onednn_convolution_create(plan->onednn, &shape, &m->step->tail, bnd_f32(&weight), bias.data ? bnd_f32(&bias) : NULL,
                                           plan->options.threads, &m->step->convolution, error);
    *input = shape.plain_input ? BND_STORED_PLAIN : BND_STORED_BLOCKED;
    wanted = !m->step->convolution && shape.plain_input; /* then perhaps with a blocked input */
    shape.plain_input = false;
  }
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
  return status;
}

/* --- dispatch --- */

static bool is_quantized(const making *m) {
  const bnd_plan_value *in = &m->plan->values[m->step->inputs[0]];
  return m->plan->options.mode == BND_EXEC_FAKE_QUANTIZE && in->on_grid && bnd_grid_fits_bytes(&in->grid) && m->step->tail.has_grid &&
         bnd_grid_fits_bytes(&m->step->tail.grid) && m->weight.dtype == BND_F32;
}

/* The int8 kernel where it is exact. *exact_in_float: whether float32 is. */
static bnd_status try_integers(making *m, bool *exact_in_float, bnd_error *error) {
  const bnd_plan_value *in = &m->plan->values[m->step->inputs[0]];
  bnd_tensor weight, bias;
  bnd_int8_weights integers;
  *exact_in_float = true;
  BND_TRY(arrange_weights(m, 1, &weight, &bias, error));
  bnd_status status = bnd_int8_weights_find(&weight, &bias, &in->grid, in->non_negative, &m->result, &integers, &m->quantized, error);
  if (status == BND_OK && m->quantized) {
    *exact_in_float = integers.exact_in_float;
    if (m->plan->options.backend == BND_BACKEND_INT8 && integers.exact_in_float) {
      if (!sums_exactly(m)) m->step->reason = "a signed input would saturate this processor's int8 instructions";
      else status = make_int8(m, &weight, &integers, error);
      if (status == BND_OK && !m->step->convolution && !m->step->reason) m->step->reason = "oneDNN has no int8 convolution of this shape";
    }
    bnd_int8_weights_free(&integers);
  }
  bnd_tensor_release(&weight);
  bnd_tensor_release(&bias);
  return status;
}

static bnd_status choose(making *m, bnd_value_storage *input, bnd_error *error) {
  bnd_step *step = m->step;
  bool exact_in_float = true;
  if (step->kernel.groups != 1) step->reason = "grouped";
  else if (step->transposed && !doubles_sides(m)) step->reason = "a transposed convolution other than by 2";
  if (step->reason) return BND_OK;
  m->quantized = is_quantized(m);
  m->result = step->tail.grid;
  if (step->tail.relu && m->result.low < 0.f) m->result.low = 0.f;
  *input = BND_STORED_BYTES;
  if (m->quantized) BND_TRY(try_integers(m, &exact_in_float, error));
  if (step->convolution) return BND_OK;
  if (!exact_in_float) {
    step->reason = "its sums may exceed 2^24";
    return BND_OK;
  }
  if (m->plan->options.backend == BND_BACKEND_INT8 && !m->quantized) step->reason = "not quantized";
  /* several channels into one, as in the projection of the box distribution, are quicker in plain loops than in blocks of padding */
  if (m->weight.dtype != BND_F32 || !bnd_onednn_block(m->plan->onednn) || (!step->transposed && m->weight.shape.size[0] <= 1)) return BND_OK;
  return make_float(m, input, error);
}

/* --- the plan --- */

/* Plain loops with the same tail. Their sums are exact, and what is left out when they are stored as float32 still decides how the tail rounds. */
static bnd_status fall_back(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  step->kind = BND_STEP_KERNEL;
  step->kernel.sticky = step->tail.has_grid;
  BND_TRY(bnd_plan_convert(plan, &step->inputs[0], BND_STORED_PLAIN, error));
  BND_TRY(bnd_plan_append(plan, step, error));
  return bnd_plan_materialize(plan, plan->step_count - 1, error);
}

/* Appends the 1x1 convolution and the step that spreads its pixels. */
static bnd_status append_spreading(bnd_executor *plan, bnd_step *step, bnd_value_storage storage, bnd_error *error) {
  bnd_shape groups = plan->values[step->inputs[0]].shape;
  const int64_t channels = plan->values[step->outputs[0]].shape.size[1], block = storage == BND_STORED_BYTES ? 1 : (int64_t)bnd_onednn_block(plan->onednn);
  groups.size[1] = 4 * ((channels + block - 1) / block * block);
  const int middle = bnd_plan_add_value(plan, &groups), out = step->outputs[0];
  if (middle < 0) return bnd_fail_memory(error, "the plan");
  bnd_plan_set_storage(plan, middle, storage);
  step->outputs[0] = middle;
  BND_TRY(bnd_plan_append(plan, step, error));
  step->convolution = NULL; /* the plan has it */
  bnd_step *spread = bnd_plan_add_step(plan, BND_STEP_SPREAD, step->name, step->node_id, 1);
  if (!spread) return bnd_fail_memory(error, "the plan");
  spread->inputs[0] = middle;
  spread->outputs[0] = out;
  spread->output_count = 1;
  return BND_OK;
}

static bnd_status append_convolution(bnd_executor *plan, bnd_step *step, bnd_value_storage input, bnd_error *error) {
  const bnd_value_storage storage = input == BND_STORED_BYTES ? BND_STORED_BYTES : BND_STORED_BLOCKED;
  bnd_plan_set_storage(plan, step->outputs[0], storage);
  BND_TRY(bnd_plan_convert(plan, &step->inputs[0], input, error));
  step->input_count = 1; /* the weights are packed */
  return step->transposed ? append_spreading(plan, step, storage, error) : bnd_plan_append(plan, step, error);
}

bnd_status bnd_plan_lay_out_convolution(bnd_executor *plan, bnd_step *step, bnd_error *error) {
  making m = {.plan = plan, .step = step};
  bnd_value_storage input = BND_STORED_BLOCKED;
  BND_TRY(bnd_plan_weights(plan, step, &m.weight, &m.bias, error));
  bnd_status status = choose(&m, &input, error);
  bnd_tensor_release(&m.weight);
  bnd_tensor_release(&m.bias);
  if (status == BND_OK && !step->convolution) return fall_back(plan, step, error);
  const size_t before = plan->step_count;
  bnd_onednn_convolution *made = step->convolution;
  if (status == BND_OK) status = append_convolution(plan, step, input, error);
  if (status == BND_OK) return BND_OK;
  for (size_t s = before; s < plan->step_count; s++)
    if (plan->steps[s].convolution == made) return status; /* the plan has it and lets it go */
  bnd_onednn_convolution_destroy(made);
  return status;
}
