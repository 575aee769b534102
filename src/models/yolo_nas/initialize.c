#include "models/yolo_nas/initialize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/yolo_nas/state_build.h"

/* --- widths: arch_params/yolo_nas_*_arch_params.yaml with every count of channels scaled --- */

static int scaled(int channels, double width) {
  const int result = (int)(channels * width);
  return result > 4 ? result : 4;
}

static int multiple_of_8(int channels) { return (channels + 7) / 8 * 8; }

bnd_status bnd_yolo_nas_scaled(char variant, double width, int classes, bnd_yolo_nas_architecture *architecture, bnd_error *error) {
  static const int HEAD[BND_YOLO_NAS_HEADS] = {128, 256, 512}; /* inter_channels; the variants multiply them by 0.5, 0.75 and 1 */
  bnd_yolo_nas_architecture a;
  if (!bnd_yolo_nas_published(variant, classes, &a))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "there is no YOLO-NAS of variant '%c'; choose S, M or L", variant);
  if (!(width > 0 && width <= 16))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "a width of %g is impossible; it must be above 0 and at most 16", width);
  if (classes < 1 || classes > 65536) return bnd_fail(error, BND_ERROR_ARGUMENT, "%d classes are impossible; there must be 1 to 65536", classes);
  a.full_width = width == 1;
  a.stem = scaled(a.stem, width);
  for (int i = 0; i < BND_YOLO_NAS_STAGES; i++) {
    bnd_yolo_nas_blocks *s = &a.stage[i];
    s->input = s->output = scaled(s->output, width);
    s->hidden = scaled(s->hidden, width);
  }
  a.spp = scaled(a.spp, width);
  a.spp_hidden = a.stage[BND_YOLO_NAS_STAGES - 1].output / 2;
  for (int i = 0; i < BND_YOLO_NAS_NECKS; i++) {
    bnd_yolo_nas_blocks *n = &a.neck[i];
    n->output = multiple_of_8(scaled(n->output, width));
    n->hidden = scaled(n->hidden, width);
    a.neck_conv[i] = i < 2 ? n->output : n->output / 2;
    /* a down stage joins its convolution with what the other side's convolution gave */
    n->input = i < 2 ? n->output : a.neck_conv[i] + a.neck_conv[3 - i];
  }
  for (int i = 0; i < BND_YOLO_NAS_HEADS; i++)
    a.head[i] = multiple_of_8((int)(scaled(HEAD[i], width) * ((double)a.head[i] / HEAD[i])));
  *architecture = a;
  return BND_OK;
}

/* --- random numbers --- */

/* splitmix64's finalizer. */
static uint64_t mixed(uint64_t x) {
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

/* Which stream of numbers a tensor gets: FNV-1a of its name, mixed with the seed. */
static uint64_t stream_of(uint64_t seed, const char *name) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (; *name; name++) hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
  return mixed(hash ^ mixed(seed + UINT64_C(0x9e3779b97f4a7c15)));
}

/* Number `index` of a stream, uniform in [0, 1) with the 24 bits a float32 can hold. */
static double uniform(uint64_t stream, uint64_t index) {
  return (double)(mixed(stream + (index + 1) * UINT64_C(0x9e3779b97f4a7c15)) >> 40) * 0x1p-24;
}

/* --- values --- */

static bool ends_with(const char *text, const char *end) {
  const size_t length = strlen(text), of_end = strlen(end);
  return length >= of_end && strcmp(text + length - of_end, end) == 0;
}

/* True, and the value, for tensors that begin as a constant. */
static bool is_constant(const bnd_layer *layer, const char *suffix, float *value) {
  static const float PRIOR_BIAS = -4.59511985013458993f; /* -ln((1 - 0.01) / 0.01) */
  const bool of_batch_norm = strstr(suffix, "bn.") != NULL, is_bias = ends_with(suffix, ".bias");
  *value = ends_with(suffix, ".running_mean") || is_bias ? 0.f : 1.f;
  if (of_batch_norm || layer->kind == BND_LAYER_ALPHA) return true;
  *value = PRIOR_BIAS;
  return is_bias && ends_with(layer->path, ".cls_pred");
}

/* Inputs that add up to one output, as torch.nn.init counts them: the second size of the weight times the kernel's area. */
static int64_t fan_in(const bnd_layer *layer, const char *suffix) {
  const int64_t area = strncmp(suffix, ".branch_1x1", 11) == 0 ? 1 : (int64_t)layer->kernel * layer->kernel;
  return (layer->kind == BND_LAYER_UPSAMPLE ? layer->output : layer->input) * area;
}

bnd_status bnd_yolo_nas_initial_tensor(const bnd_layer *layer, const bnd_layer_tensor *about, uint64_t seed, bnd_tensor *tensor, bnd_error *error) {
  const bool is_counter = about->role == BND_ROLE_COUNTER;
  BND_TRY(bnd_tensor_create(is_counter ? BND_I64 : BND_F32, &about->shape, tensor, error));
  if (is_counter) return BND_OK;
  float *values = bnd_f32(tensor), constant;
  if (is_constant(layer, about->suffix, &constant)) {
    for (size_t i = 0; i < tensor->count; i++) values[i] = constant;
    return BND_OK;
  }
  char name[BND_TENSOR_NAME];
  snprintf(name, sizeof name, "%s%s", layer->path, about->suffix);
  const uint64_t stream = stream_of(seed, name);
  const double bound = 1 / sqrt((double)fan_in(layer, about->suffix));
  for (size_t i = 0; i < tensor->count; i++) values[i] = (float)((2 * uniform(stream, i) - 1) * bound);
  return BND_OK;
}

/* --- state dicts --- */

static bnd_status append_layer(bnd_yolo_nas_state *state, const bnd_layer *layer, uint64_t seed, bnd_error *error) {
  bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
  const int count = bnd_layer_tensors(layer, tensors);
  for (int t = 0; t < count; t++) {
    char name[BND_TENSOR_NAME];
    bnd_tensor values = {0};
    snprintf(name, sizeof name, "%s%s", layer->path, tensors[t].suffix);
    BND_TRY(bnd_yolo_nas_initial_tensor(layer, &tensors[t], seed, &values, error));
    BND_TRY(bnd_yolo_nas_state_append(state, name, &values, error));
  }
  return BND_OK;
}

bnd_status bnd_yolo_nas_state_initialize(const bnd_yolo_nas_architecture *architecture, uint64_t seed, bnd_yolo_nas_state **state, bnd_error *error) {
  bnd_yolo_nas_state *fresh = NULL;
  BND_TRY(bnd_yolo_nas_state_create(&fresh, error));
  bnd_layer_list layers = bnd_layers_of(architecture, BND_YOLO_NAS_TRAIN, BND_ORDER_REGISTRATION);
  bnd_status status = layers.failed ? bnd_fail_memory(error, "the layers") : BND_OK;
  for (size_t i = 0; i < layers.count && status == BND_OK; i++) status = append_layer(fresh, &layers.items[i], seed, error);
  free(layers.items);
  if (status == BND_OK) *state = fresh;
  else bnd_yolo_nas_state_destroy(fresh);
  return status;
}

bnd_status bnd_yolo_nas_state_replace_classes(bnd_yolo_nas_state *state, int classes, uint64_t seed, bnd_error *error) {
  enum { PARTS = 2 * BND_YOLO_NAS_HEADS }; /* weight and bias of each head */
  bnd_tensor fresh[PARTS] = {{0}};
  size_t place[PARTS];
  bnd_status status = BND_OK;
  if (classes < 1 || classes > 65536) return bnd_fail(error, BND_ERROR_ARGUMENT, "%d classes are impossible; there must be 1 to 65536", classes);
  for (int i = 0; i < PARTS && status == BND_OK; i++) {
    bnd_layer layer = {.kind = BND_LAYER_PREDICTION, .output = classes, .kernel = 1, .stride = 1};
    char name[BND_TENSOR_NAME];
    snprintf(layer.path, sizeof layer.path, "heads.head%d.cls_pred", i / 2 + 1);
    snprintf(name, sizeof name, "%s.weight", layer.path);
    const bnd_tensor *weight = bnd_yolo_nas_state_find(state, name), *old = weight;
    if (i % 2) {
      snprintf(name, sizeof name, "%s.bias", layer.path);
      old = bnd_yolo_nas_state_find(state, name);
    }
    if (!weight || !old || weight->shape.rank != 4) {
      status = bnd_fail(error, BND_ERROR_ARGUMENT, "the state dict has no %s of a YOLO-NAS", name);
      break;
    }
    place[i] = (size_t)(old - state->tensors);
    layer.input = (int)weight->shape.size[1];
    bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
    bnd_layer_tensors(&layer, tensors);
    status = bnd_yolo_nas_initial_tensor(&layer, &tensors[i % 2], seed, &fresh[i], error);
  }
  for (int i = 0; i < PARTS; i++) {
    if (status == BND_OK && fresh[i].shape.size[0] != state->tensors[place[i]].shape.size[0]) {
      bnd_tensor_release(&state->tensors[place[i]]);
      state->tensors[place[i]] = fresh[i];
      state->shapes[place[i]].shape = fresh[i].shape;
    } else {
      bnd_tensor_release(&fresh[i]);
    }
  }
  return status;
}
