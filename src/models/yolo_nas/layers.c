#include "models/yolo_nas/layers.h"

#include <stdio.h>
#include <stdlib.h>

/* --- published models, section 1.3 --- */

typedef struct published_blocks {
  int hidden, count;
  bool concat;
} published_blocks;

static const struct published {
  char variant;
  published_blocks stage[BND_YOLO_NAS_STAGES], neck[BND_YOLO_NAS_NECKS];
  int head[BND_YOLO_NAS_HEADS];
} PUBLISHED[] = {
    {'S',
     {{32, 2, false}, {64, 3, false}, {96, 5, false}, {192, 2, false}},
     {{64, 2, false}, {48, 2, false}, {64, 2, false}, {64, 2, false}},
     {64, 128, 256}},
    {'M',
     {{64, 2, true}, {128, 3, true}, {256, 5, true}, {384, 2, false}},
     {{192, 2, false}, {64, 3, false}, {192, 2, false}, {256, 3, false}},
     {96, 192, 384}},
    {'L',
     {{96, 2, true}, {128, 3, true}, {256, 5, true}, {512, 2, true}},
     {{128, 4, false}, {128, 4, false}, {128, 4, false}, {256, 4, false}},
     {128, 256, 512}},
};

bool bnd_yolo_nas_published(char variant, int classes, bnd_yolo_nas_architecture *architecture) {
  static const int STAGE[] = {96, 192, 384, 768}, NECK[] = {192, 96, 192, 384};
  for (size_t v = 0; v < sizeof PUBLISHED / sizeof *PUBLISHED; v++) {
    if (PUBLISHED[v].variant != variant) continue;
    bnd_yolo_nas_architecture a = {variant, true, 3, classes, 16, 48, .spp_hidden = 384, .spp = 768};
    for (int i = 0; i < 4; i++) {
      const published_blocks *s = &PUBLISHED[v].stage[i], *n = &PUBLISHED[v].neck[i];
      a.stage[i] = (bnd_yolo_nas_blocks){STAGE[i], s->hidden, STAGE[i], s->count, s->concat};
      a.neck_conv[i] = i < 2 ? NECK[i] : NECK[i] / 2;
      a.neck[i] = (bnd_yolo_nas_blocks){i < 2 ? NECK[i] : 0, n->hidden, NECK[i], n->count, n->concat};
    }
    a.neck[2].input = a.neck_conv[2] + NECK[1];
    a.neck[3].input = a.neck_conv[3] + NECK[0];
    for (int i = 0; i < BND_YOLO_NAS_HEADS; i++) a.head[i] = PUBLISHED[v].head[i];
    *architecture = a;
    return true;
  }
  return false;
}

/* --- layers --- */

typedef struct builder {
  bnd_layer_list list;
  bnd_yolo_nas_form form;
  bnd_layer_order order;
} builder;

static void add(builder *b, const char *parent, const char *name, bnd_layer layer) {
  if (b->list.failed || !BND_GROW(b->list.items, b->list.capacity, b->list.count + 1)) {
    b->list.failed = true;
    return;
  }
  snprintf(layer.path, sizeof layer.path, "%s%s%s", parent, *name ? "." : "", name);
  layer.form = b->form;
  b->list.items[b->list.count++] = layer;
}

static void conv(builder *b, const char *parent, const char *name, int input, int output, int kernel, int stride) {
  add(b, parent, name, (bnd_layer){.kind = BND_LAYER_CONV, .input = input, .output = output, .kernel = kernel, .stride = stride});
}

static void reparameterized(builder *b, const char *parent, const char *name, int input, int output, int stride, bool identity) {
  add(b, parent, name,
      (bnd_layer){.kind = BND_LAYER_REPARAMETERIZED, .input = input, .output = output, .kernel = 3, .stride = stride, .identity = identity});
}

static void blocks(builder *b, const char *parent, const bnd_yolo_nas_blocks *s, bool plain) {
  char path[BND_LAYER_PATH], bottleneck[BND_LAYER_PATH];
  snprintf(path, sizeof path, "%s.blocks", parent);
  const int joined = s->hidden * (s->concat_intermediates ? 2 + s->count : 2);
  conv(b, path, "conv1", s->input, s->hidden, 1, 1);
  if (b->order == BND_ORDER_REGISTRATION) conv(b, path, "conv2", s->input, s->hidden, 1, 1), conv(b, path, "conv3", joined, s->output, 1, 1);
  for (int i = 0; i < s->count; i++) {
    snprintf(bottleneck, sizeof bottleneck, "%.40s.bottlenecks.%d", path, i);
    add(b, bottleneck, "", (bnd_layer){.kind = BND_LAYER_ALPHA});
    for (int c = 1; c <= 2; c++) {
      if (plain)
        conv(b, bottleneck, c == 1 ? "cv1" : "cv2", s->hidden, s->hidden, 3, 1);
      else
        reparameterized(b, bottleneck, c == 1 ? "cv1" : "cv2", s->hidden, s->hidden, 1, true);
    }
  }
  if (b->order == BND_ORDER_EXECUTION) conv(b, path, "conv2", s->input, s->hidden, 1, 1), conv(b, path, "conv3", joined, s->output, 1, 1);
}

static void up_stage(builder *b, const char *path, int input, int skip1, int skip2, int width, const bnd_yolo_nas_blocks *s) {
  const bool execution = b->order == BND_ORDER_EXECUTION;
  conv(b, path, "reduce_skip1", skip1, width, 1, 1);
  conv(b, path, "reduce_skip2", skip2, width, 1, 1);
  if (execution) conv(b, path, "downsample", width, width, 3, 2);
  conv(b, path, "conv", input, width, 1, 1);
  add(b, path, "upsample", (bnd_layer){.kind = BND_LAYER_UPSAMPLE, .input = width, .output = width, .kernel = 2, .stride = 2});
  if (!execution) conv(b, path, "downsample", width, width, 3, 2);
  conv(b, path, "reduce_after_concat", 3 * width, width, 1, 1);
  blocks(b, path, s, false);
}

static void down_stage(builder *b, const char *path, int input, int width, const bnd_yolo_nas_blocks *s) {
  conv(b, path, "conv", input, width, 3, 2);
  blocks(b, path, s, true);
}

static void head(builder *b, const char *path, int input, int width, const bnd_yolo_nas_architecture *a) {
  const bnd_layer classes = {.kind = BND_LAYER_PREDICTION, .input = width, .output = a->classes, .kernel = 1, .stride = 1};
  const bnd_layer distances = {.kind = BND_LAYER_PREDICTION, .input = width, .output = 4 * (a->reg_max + 1), .kernel = 1, .stride = 1};
  conv(b, path, "stem.seq", input, width, 1, 1);
  conv(b, path, "cls_convs.0.seq", width, width, 3, 1);
  if (b->order == BND_ORDER_EXECUTION) add(b, path, "cls_pred", classes);
  conv(b, path, "reg_convs.0.seq", width, width, 3, 1);
  if (b->order == BND_ORDER_REGISTRATION) add(b, path, "cls_pred", classes);
  add(b, path, "reg_pred", distances);
}

bnd_layer_list bnd_layers_of(const bnd_yolo_nas_architecture *a, bnd_yolo_nas_form form, bnd_layer_order order) {
  builder b = {.form = form, .order = order};
  char path[BND_LAYER_PATH];
  reparameterized(&b, "backbone.stem", "conv", a->input_channels, a->stem, 2, false);
  int width = a->stem;
  for (int i = 0; i < BND_YOLO_NAS_STAGES; i++) {
    snprintf(path, sizeof path, "backbone.stage%d", i + 1);
    reparameterized(&b, path, "downsample", width, a->stage[i].input, 2, false);
    blocks(&b, path, &a->stage[i], false);
    width = a->stage[i].output;
  }
  conv(&b, "backbone.context_module", "cv1", width, a->spp_hidden, 1, 1);
  conv(&b, "backbone.context_module", "cv2", 4 * a->spp_hidden, a->spp, 1, 1);
  up_stage(&b, "neck.neck1", a->spp, a->stage[2].output, a->stage[1].output, a->neck_conv[0], &a->neck[0]);
  up_stage(&b, "neck.neck2", a->neck[0].output, a->stage[1].output, a->stage[0].output, a->neck_conv[1], &a->neck[1]);
  down_stage(&b, "neck.neck3", a->neck[1].output, a->neck_conv[2], &a->neck[2]);
  down_stage(&b, "neck.neck4", a->neck[2].output, a->neck_conv[3], &a->neck[3]);
  for (int i = 0; i < BND_YOLO_NAS_HEADS; i++) {
    snprintf(path, sizeof path, "heads.head%d", i + 1);
    head(&b, path, a->neck[i + 1].output, a->head[i], a);
  }
  return b.list;
}

/* --- tensors --- */

typedef struct tensor_list {
  bnd_layer_tensor *tensors;
  int count;
} tensor_list;

static void put(tensor_list *list, const char *suffix, bnd_tensor_role role, bnd_shape shape) {
  list->tensors[list->count++] = (bnd_layer_tensor){suffix, role, shape};
}

/* `suffix`: weight, bias, mean, variance, counter. */
static void put_batch_norm(tensor_list *list, const char *const suffix[5], int channels) {
  for (int i = 0; i < 4; i++) put(list, suffix[i], i < 2 ? BND_ROLE_PARAMETER : BND_ROLE_STATISTIC, BND_SHAPE(channels));
  put(list, suffix[4], BND_ROLE_COUNTER, (bnd_shape){0});
}

#define BATCH_NORM(name) \
  { name ".weight", name ".bias", name ".running_mean", name ".running_var", name ".num_batches_tracked" }
static const char *const BRANCH_BN[5] = BATCH_NORM(".branch_3x3.bn"), *const POST_BN[5] = BATCH_NORM(".post_bn"), *const BN[5] = BATCH_NORM(".bn");

int bnd_layer_tensors(const bnd_layer *layer, bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS]) {
  tensor_list list = {tensors, 0};
  const bnd_shape square = BND_SHAPE(layer->output, layer->input, layer->kernel, layer->kernel), vector = BND_SHAPE(layer->output);
  switch (layer->kind) {
    case BND_LAYER_REPARAMETERIZED:
      if (layer->form == BND_YOLO_NAS_TRAIN) {
        put(&list, ".branch_3x3.conv.weight", BND_ROLE_PARAMETER, square);
        put_batch_norm(&list, BRANCH_BN, layer->output);
        put(&list, ".branch_1x1.weight", BND_ROLE_PARAMETER, BND_SHAPE(layer->output, layer->input, 1, 1));
        put(&list, ".branch_1x1.bias", BND_ROLE_PARAMETER, vector);
      }
      if (layer->form != BND_YOLO_NAS_FOLDED) put_batch_norm(&list, POST_BN, layer->output);
      /* with branches still there, a place-holder that is never trained */
      const bnd_tensor_role role = layer->form == BND_YOLO_NAS_TRAIN ? BND_ROLE_UNUSED_PARAMETER : BND_ROLE_PARAMETER;
      put(&list, ".rbr_reparam.weight", role, square);
      put(&list, ".rbr_reparam.bias", role, vector);
      break;
    case BND_LAYER_CONV:
      put(&list, ".conv.weight", BND_ROLE_PARAMETER, square);
      put_batch_norm(&list, BN, layer->output);
      break;
    case BND_LAYER_ALPHA:
      put(&list, ".alpha", BND_ROLE_PARAMETER, BND_SHAPE(1));
      break;
    case BND_LAYER_UPSAMPLE:
      put(&list, ".weight", BND_ROLE_PARAMETER, BND_SHAPE(layer->input, layer->output, 2, 2));
      put(&list, ".bias", BND_ROLE_PARAMETER, vector);
      break;
    case BND_LAYER_PREDICTION:
      put(&list, ".weight", BND_ROLE_PARAMETER, square);
      put(&list, ".bias", BND_ROLE_PARAMETER, vector);
      break;
  }
  return list.count;
}

/* --- counting and listing --- */

bnd_yolo_nas_size bnd_yolo_nas_size_of(const bnd_yolo_nas_architecture *architecture, bnd_yolo_nas_form form) {
  bnd_yolo_nas_size size = {0};
  bnd_layer_list layers = bnd_layers_of(architecture, form, BND_ORDER_REGISTRATION);
  for (size_t i = 0; i < layers.count; i++) {
    bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
    const int count = bnd_layer_tensors(&layers.items[i], tensors);
    for (int t = 0; t < count; t++) {
      size_t elements = 0;
      bnd_shape_count(&tensors[t].shape, &elements);
      size.tensors++;
      if (tensors[t].role == BND_ROLE_COUNTER)
        size.counters++;
      else
        *(tensors[t].role == BND_ROLE_STATISTIC ? &size.statistics : &size.parameters) += (int64_t)elements;
    }
  }
  size.bytes = 4 * (size.parameters + size.statistics) + 8 * size.counters;
  free(layers.items);
  return size;
}

bnd_status bnd_yolo_nas_describe(const bnd_yolo_nas_architecture *architecture, bnd_yolo_nas_form form, bnd_string *text, bnd_error *error) {
  bnd_layer_list layers = bnd_layers_of(architecture, form, BND_ORDER_REGISTRATION);
  for (size_t i = 0; i < layers.count; i++) {
    bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
    const int count = bnd_layer_tensors(&layers.items[i], tensors);
    for (int t = 0; t < count; t++) {
      bnd_string_format(text, "%s%s [", layers.items[i].path, tensors[t].suffix);
      for (int d = 0; d < tensors[t].shape.rank; d++) bnd_string_format(text, "%s%lld", d ? "," : "", (long long)tensors[t].shape.size[d]);
      bnd_string_format(text, "]\n");
    }
  }
  const bool failed = layers.failed || text->failed;
  free(layers.items);
  return failed ? bnd_fail_memory(error, "the list of tensors") : BND_OK;
}
