/* Batch norm into the weights in front of it, in float32 and in the order in which Quark's modules evaluate it, so that every bit agrees. */
#include <math.h>
#include <string.h>

#include "ops/operators.h"

static bnd_status check_vector(const bnd_module *module, const bnd_tensor *vector, const char *what, size_t channels, bnd_error *error) {
  if (vector->data && vector->dtype == BND_F32 && vector->count == channels) return BND_OK;
  return bnd_fail(error, BND_ERROR_MODEL, "%s: %s must be %zu float32 values", module->name, what, channels);
}

static bnd_status fold_batch_norm(const bnd_module *module, bool transposed, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error) {
  const bnd_shape *shape = &module->weight.shape;
  if (shape->rank < 2) return bnd_fail(error, BND_ERROR_MODEL, "%s: the weight needs two dimensions at least", module->name);
  const int axis = transposed ? 1 : 0;
  const size_t channels = (size_t)shape->size[axis];
  size_t outer = 1, inner = 1;
  for (int d = 0; d < axis; d++) outer *= (size_t)shape->size[d];
  for (int d = axis + 1; d < shape->rank; d++) inner *= (size_t)shape->size[d];
  BND_TRY(check_vector(module, &module->bn_weight, "batch norm weight", channels, error));
  BND_TRY(check_vector(module, &module->bn_bias, "batch norm bias", channels, error));
  BND_TRY(check_vector(module, &module->bn_running_mean, "running mean", channels, error));
  BND_TRY(check_vector(module, &module->bn_running_var, "running variance", channels, error));
  if (module->bias.data) BND_TRY(check_vector(module, &module->bias, "bias", channels, error));

  BND_TRY(bnd_tensor_create(BND_F32, shape, weight, error));
  const bnd_status status = bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)channels), bias, error);
  if (status != BND_OK) {
    bnd_tensor_release(weight);
    return status;
  }
  const float *gamma = bnd_f32(&module->bn_weight), *beta = bnd_f32(&module->bn_bias), *mean = bnd_f32(&module->bn_running_mean);
  const float *variance = bnd_f32(&module->bn_running_var), *own_bias = module->bias.data ? bnd_f32(&module->bias) : NULL;
  const float *from = bnd_f32(&module->weight), epsilon = (float)module->bn_epsilon;
  float *to = bnd_f32(weight);
  for (size_t c = 0; c < channels; c++) {
    const float reciprocal = 1.f / sqrtf(variance[c] + epsilon); /* torch.rsqrt on a CPU */
    const float scale = gamma[c] * reciprocal;
    for (size_t o = 0; o < outer; o++)
      for (size_t i = 0; i < inner; i++) {
        const size_t at = (o * channels + c) * inner + i;
        to[at] = from[at] * scale;
      }
    const float shift = own_bias ? mean[c] - own_bias[c] : mean[c];
    bnd_f32(bias)[c] = beta[c] - gamma[c] * shift * reciprocal;
  }
  return BND_OK;
}

bnd_status bnd_module_fold(const bnd_module *module, bool transposed, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error) {
  *weight = *bias = (bnd_tensor){0};
  if (!module->weight.data || module->weight.dtype != BND_F32)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: the weight must be float32", module->name);
  if (module->has_batch_norm) return fold_batch_norm(module, transposed, weight, bias, error);
  *weight = bnd_tensor_share(&module->weight, NULL);
  if (module->bias.data) *bias = bnd_tensor_share(&module->bias, NULL);
  return BND_OK;
}

/* Replaces *tensor (folded, perhaps shared with the module) by its quantized values. */
static bnd_status quantize(const bnd_quantizer *quantizer, bnd_tensor *tensor, bnd_error *error) {
  if (!quantizer || !tensor->data) return BND_OK;
  bnd_tensor quantized = {0};
  BND_TRY(bnd_tensor_create(BND_F32, &tensor->shape, &quantized, error));
  size_t outer = 1, inner = tensor->count;
  if (quantizer->channels > 1) {
    const int axis = quantizer->spec.channel_axis;
    if (axis < 0 || axis >= tensor->shape.rank || tensor->shape.size[axis] != quantizer->channels) {
      bnd_tensor_release(&quantized);
      return bnd_fail(error, BND_ERROR_INTERNAL, "a quantizer of %d channels does not fit its tensor", quantizer->channels);
    }
    for (int d = 0; d < axis; d++) outer *= (size_t)tensor->shape.size[d];
    inner = outer && quantizer->channels ? tensor->count / outer / (size_t)quantizer->channels : 0;
  }
  bnd_fake_quantize(quantizer, bnd_f32(tensor), bnd_f32(&quantized), outer, inner);
  bnd_tensor_release(tensor);
  *tensor = quantized;
  return BND_OK;
}

bnd_status bnd_module_quantized_weights(const bnd_module *module, bool transposed, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error) {
  BND_TRY(bnd_module_fold(module, transposed, weight, bias, error));
  bnd_status status = quantize(module->weight_quantizer, weight, error);
  if (status == BND_OK) status = quantize(module->bias_quantizer, bias, error);
  if (status != BND_OK) {
    bnd_tensor_release(weight);
    bnd_tensor_release(bias);
  }
  return status;
}
