/* Merging branches and folding batch norms (specification, section 3). */
#include <math.h>
#include <stdio.h>

#include "models/yolo_nas/layers.h"

typedef struct batch_norm {
  bnd_tensor weight, bias, mean, variance;
} batch_norm;

static void batch_norm_release(batch_norm *bn) {
  bnd_tensor_release(&bn->weight);
  bnd_tensor_release(&bn->bias);
  bnd_tensor_release(&bn->mean);
  bnd_tensor_release(&bn->variance);
}

/* Zero-initialise *bn; release it also after a failure. */
static bnd_status batch_norm_load(const bnd_yolo_nas *model, const char *path, const char *name, batch_norm *bn, bnd_error *error) {
  const struct {
    const char *suffix;
    bnd_tensor *tensor;
  } parts[] = {{"weight", &bn->weight}, {"bias", &bn->bias}, {"running_mean", &bn->mean}, {"running_var", &bn->variance}};
  for (size_t i = 0; i < 4; i++) {
    char suffix[48];
    snprintf(suffix, sizeof suffix, "%s.%s", name, parts[i].suffix);
    BND_TRY(bnd_yolo_nas_load(model, path, suffix, parts[i].tensor, error));
  }
  return BND_OK;
}

/* The operations and their order are PyTorch's, each rounded to float32; adding 0 and multiplying by 1 are kept because they decide the sign of
 * zeros. */
static void merge(const bnd_layer *layer, const batch_norm *bn, const float *k3, const float *k1, const float *b1, float *weight, float *bias) {
  const size_t inputs = (size_t)layer->input;
  for (size_t o = 0; o < (size_t)layer->output; o++) {
    const float gamma = bnd_f32(&bn->weight)[o], beta = bnd_f32(&bn->bias)[o], mean = bnd_f32(&bn->mean)[o];
    const float deviation = sqrtf(bnd_f32(&bn->variance)[o] + (float)BND_YOLO_NAS_EPSILON);
    const float shift = beta - gamma * mean / deviation, scale = gamma / deviation;
    for (size_t i = 0; i < inputs; i++) {
      for (size_t tap = 0; tap < 9; tap++) {
        const size_t at = (o * inputs + i) * 9 + tap;
        const bool centre = tap == 4;
        const float sum = k3[at] * scale + (centre ? k1[o * inputs + i] : 0.f);
        weight[at] = sum + (layer->identity && centre && o == i ? 1.f : 0.f);
      }
    }
    bias[o] = 0.f * scale + shift + b1[o] + 0.f;
  }
}

bnd_status bnd_yolo_nas_merge_branches(const bnd_yolo_nas *model, const bnd_layer *layer, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error) {
  batch_norm bn = {0};
  bnd_tensor k3 = {0}, k1 = {0}, b1 = {0};
  bnd_status status;
  *weight = *bias = (bnd_tensor){0};
  BND_TRY_GOTO(bnd_yolo_nas_load(model, layer->path, ".branch_3x3.conv.weight", &k3, error), done);
  BND_TRY_GOTO(batch_norm_load(model, layer->path, ".branch_3x3.bn", &bn, error), done);
  BND_TRY_GOTO(bnd_yolo_nas_load(model, layer->path, ".branch_1x1.weight", &k1, error), done);
  BND_TRY_GOTO(bnd_yolo_nas_load(model, layer->path, ".branch_1x1.bias", &b1, error), done);
  BND_TRY_GOTO(bnd_tensor_create(BND_F32, &k3.shape, weight, error), done);
  BND_TRY_GOTO(bnd_tensor_create(BND_F32, &b1.shape, bias, error), done);
  merge(layer, &bn, bnd_f32(&k3), bnd_f32(&k1), bnd_f32(&b1), bnd_f32(weight), bnd_f32(bias));
done:
  if (status != BND_OK) {
    bnd_tensor_release(weight);
    bnd_tensor_release(bias);
  }
  batch_norm_release(&bn);
  bnd_tensor_release(&k3);
  bnd_tensor_release(&k1);
  bnd_tensor_release(&b1);
  return status;
}

bnd_status bnd_yolo_nas_fold_batch_norm(const bnd_yolo_nas *model, const bnd_layer *layer, const char *name, bnd_tensor *weight, bnd_tensor *bias,
                                        bnd_error *error) {
  batch_norm bn = {0};
  bnd_status status;
  BND_TRY_GOTO(batch_norm_load(model, layer->path, name, &bn, error), done);
  if (!bias->data) BND_TRY_GOTO(bnd_tensor_create(BND_F32, &BND_SHAPE(layer->output), bias, error), done);
  const size_t channels = (size_t)layer->output, inner = channels ? weight->count / channels : 0;
  float *w = bnd_f32(weight), *b = bnd_f32(bias);
  for (size_t o = 0; o < channels; o++) {
    const double scale = bnd_f32(&bn.weight)[o] / sqrt((double)bnd_f32(&bn.variance)[o] + BND_YOLO_NAS_EPSILON);
    for (size_t i = 0; i < inner; i++) w[o * inner + i] = (float)(w[o * inner + i] * scale);
    b[o] = (float)(((double)b[o] - bnd_f32(&bn.mean)[o]) * scale + bnd_f32(&bn.bias)[o]);
  }
done:
  batch_norm_release(&bn);
  return status;
}
