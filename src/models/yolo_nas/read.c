/* The architecture from names and shapes, and the comparison of what is there with what must be. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/yolo_nas/layers.h"

enum { MAX_WIDTH = 1 << 20, MAX_BOTTLENECKS = 64 };

/* --- looking up --- */

static const bnd_named_shape *find(const bnd_yolo_nas *model, const char *path, const char *suffix) {
  char name[BND_TENSOR_NAME];
  size_t index;
  snprintf(name, sizeof name, "%s%s", path, suffix);
  return bnd_map_get(&model->index, name, &index) ? &model->source.tensors[index] : NULL;
}

/* A size of a weight, or an error that names the tensor. */
static bnd_status read_size(const bnd_yolo_nas *model, const char *path, const char *suffix, int rank, int dimension, int *size, bnd_error *error) {
  const bnd_named_shape *tensor = find(model, path, suffix);
  if (!tensor)
    return bnd_fail(
        error, BND_ERROR_MODEL,
        "%s: not a YOLO-NAS of super-gradients: there is no tensor %s%s among %zu; give a checkpoint of YOLO-NAS S, M, L or a variant of it",
        model->place, path, suffix, model->source.count);
  char text[BND_SHAPE_TEXT];
  if (tensor->shape.rank != rank || tensor->shape.size[dimension] < 1 || tensor->shape.size[dimension] > MAX_WIDTH)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: %s%s: shape %s is not that of such a weight in a YOLO-NAS", model->place, path, suffix,
                    bnd_shape_text(&tensor->shape, text));
  *size = (int)tensor->shape.size[dimension];
  return BND_OK;
}

/* Section 2.3: which keys a block has decides its form. */
static bnd_yolo_nas_form form_of_block(const bnd_yolo_nas *model, const char *path) {
  if (find(model, path, ".branch_3x3.conv.weight")) return BND_YOLO_NAS_TRAIN;
  return find(model, path, ".post_bn.weight") ? BND_YOLO_NAS_PARTIAL : BND_YOLO_NAS_FOLDED;
}

static bnd_status read_block_size(const bnd_yolo_nas *model, const char *path, int dimension, int *size, bnd_error *error) {
  const bool merged = !find(model, path, ".branch_3x3.conv.weight") && find(model, path, ".rbr_reparam.weight");
  return read_size(model, path, merged ? ".rbr_reparam.weight" : ".branch_3x3.conv.weight", 4, dimension, size, error);
}

/* --- architecture --- */

static int count_bottlenecks(const bnd_yolo_nas *model, const char *path) {
  static const char *const PARTS[] = {".alpha",
                                      ".cv1.conv.weight",
                                      ".cv2.conv.weight",
                                      ".cv1.branch_3x3.conv.weight",
                                      ".cv2.branch_3x3.conv.weight",
                                      ".cv1.rbr_reparam.weight",
                                      ".cv2.rbr_reparam.weight"};
  int count = 0;
  for (int i = 0; i < MAX_BOTTLENECKS; i++) {
    char bottleneck[BND_LAYER_PATH];
    snprintf(bottleneck, sizeof bottleneck, "%.40s.bottlenecks.%d", path, i);
    for (size_t p = 0; p < sizeof PARTS / sizeof *PARTS; p++)
      if (find(model, bottleneck, PARTS[p])) count = i + 1;
  }
  return count;
}

static bnd_status read_blocks(const bnd_yolo_nas *model, const char *parent, bnd_yolo_nas_blocks *blocks, bnd_error *error) {
  char path[BND_LAYER_PATH];
  int joined;
  snprintf(path, sizeof path, "%s.blocks", parent);
  BND_TRY(read_size(model, path, ".conv1.conv.weight", 4, 0, &blocks->hidden, error));
  BND_TRY(read_size(model, path, ".conv1.conv.weight", 4, 1, &blocks->input, error));
  BND_TRY(read_size(model, path, ".conv3.conv.weight", 4, 0, &blocks->output, error));
  BND_TRY(read_size(model, path, ".conv3.conv.weight", 4, 1, &joined, error));
  blocks->count = count_bottlenecks(model, path);
  /* conv3 reads the last bottleneck and conv2, or also conv1 and every bottleneck before the last; another width is reported with the shapes. */
  blocks->concat_intermediates = blocks->count > 0 && joined == (int64_t)blocks->hidden * (2 + blocks->count);
  return BND_OK;
}

static bool same_blocks(const bnd_yolo_nas_blocks *a, const bnd_yolo_nas_blocks *b, bool widths) {
  if (a->count != b->count || a->concat_intermediates != b->concat_intermediates) return false;
  return !widths || (a->input == b->input && a->hidden == b->hidden && a->output == b->output);
}

static bool same_network(const bnd_yolo_nas_architecture *a, const bnd_yolo_nas_architecture *b, bool widths) {
  for (int i = 0; i < 4; i++)
    if (!same_blocks(&a->stage[i], &b->stage[i], widths) || !same_blocks(&a->neck[i], &b->neck[i], widths) ||
        (widths && a->neck_conv[i] != b->neck_conv[i]))
      return false;
  for (int i = 0; i < BND_YOLO_NAS_HEADS; i++)
    if (widths && a->head[i] != b->head[i]) return false;
  return !widths || (a->stem == b->stem && a->spp_hidden == b->spp_hidden && a->spp == b->spp);
}

static void name_variant(bnd_yolo_nas_architecture *a) {
  a->variant = 'C';
  for (const char *variant = "SML"; *variant; variant++) {
    bnd_yolo_nas_architecture published;
    bnd_yolo_nas_published(*variant, a->classes, &published);
    if (!same_network(a, &published, false)) continue;
    a->variant = *variant;
    a->full_width = same_network(a, &published, true);
  }
}

static bnd_status read_architecture(bnd_yolo_nas *model, bnd_error *error) {
  bnd_yolo_nas_architecture *a = &model->architecture;
  char path[BND_LAYER_PATH];
  *a = (bnd_yolo_nas_architecture){0};
  BND_TRY(read_block_size(model, "backbone.stem.conv", 0, &a->stem, error));
  BND_TRY(read_block_size(model, "backbone.stem.conv", 1, &a->input_channels, error));
  for (int i = 0; i < BND_YOLO_NAS_STAGES; i++) {
    snprintf(path, sizeof path, "backbone.stage%d", i + 1);
    BND_TRY(read_blocks(model, path, &a->stage[i], error));
  }
  BND_TRY(read_size(model, "backbone.context_module.cv1", ".conv.weight", 4, 0, &a->spp_hidden, error));
  BND_TRY(read_size(model, "backbone.context_module.cv2", ".conv.weight", 4, 0, &a->spp, error));
  for (int i = 0; i < BND_YOLO_NAS_NECKS; i++) {
    snprintf(path, sizeof path, "neck.neck%d", i + 1);
    BND_TRY(read_size(model, path, ".conv.conv.weight", 4, 0, &a->neck_conv[i], error));
    BND_TRY(read_blocks(model, path, &a->neck[i], error));
  }
  for (int i = 0; i < BND_YOLO_NAS_HEADS; i++) {
    snprintf(path, sizeof path, "heads.head%d", i + 1);
    BND_TRY(read_size(model, path, ".stem.seq.conv.weight", 4, 0, &a->head[i], error));
  }
  int distances;
  BND_TRY(read_size(model, "heads.head1.cls_pred", ".weight", 4, 0, &a->classes, error));
  BND_TRY(read_size(model, "heads.head1.reg_pred", ".weight", 4, 0, &distances, error));
  if (distances % 4 || distances < 8)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: heads.head1.reg_pred.weight: %d outputs are not four times a number of bins", model->place,
                    distances);
  a->reg_max = distances / 4 - 1;
  name_variant(a);
  return BND_OK;
}

/* --- comparing --- */

/* Names for an error message: the first few, and how many there are. */
typedef struct name_list {
  bnd_string text;
  size_t count;
} name_list;

static void note(name_list *list, const char *name, const char *detail) {
  if (list->count++ < 4) bnd_string_format(&list->text, "%s%.120s%s", list->count > 1 ? ", " : "", name, detail);
}

static void report(bnd_string *text, const name_list *list, const char *what) {
  if (!list->count) return;
  bnd_string_format(text, "%s%zu %s: %s%s", text->length ? "; " : "", list->count, what, list->text.text ? list->text.text : "",
                    list->count > 4 ? ", .." : "");
}

/* Never needed: buffers that super-gradients makes anew, should a file hold them all the same. */
static bool is_ignorable(const char *name) {
  static const char *const NAMES[] = {"heads.anchor_points", "heads.stride_tensor", "heads.head1.grid", "heads.head2.grid", "heads.head3.grid"};
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
    if (strcmp(name, NAMES[i]) == 0) return true;
  const size_t length = strlen(name);
  return length > 10 && strcmp(name + length - 10, ".id_tensor") == 0;
}

static bool is_floating(bnd_dtype dtype) {
  return dtype <= BND_BF16;
}

static void compare_tensor(const bnd_yolo_nas *model, const bnd_layer *layer, const bnd_layer_tensor *expected, bool *used, name_list *missing,
                           name_list *misshaped) {
  char name[BND_TENSOR_NAME], detail[3 * BND_SHAPE_TEXT], shapes[2][BND_SHAPE_TEXT];
  size_t index;
  snprintf(name, sizeof name, "%s%s", layer->path, expected->suffix);
  if (!bnd_map_get(&model->index, name, &index)) {
    /* Without effect on what the network computes. */
    if (expected->role != BND_ROLE_COUNTER && expected->role != BND_ROLE_UNUSED_PARAMETER) note(missing, name, "");
    return;
  }
  const bnd_named_shape *given = &model->source.tensors[index];
  used[index] = true;
  if (!bnd_shape_equal(&given->shape, &expected->shape)) {
    snprintf(detail, sizeof detail, " is %s instead of %s", bnd_shape_text(&given->shape, shapes[0]), bnd_shape_text(&expected->shape, shapes[1]));
    note(misshaped, name, detail);
  } else if (expected->role != BND_ROLE_COUNTER && !is_floating(given->dtype)) {
    snprintf(detail, sizeof detail, " holds %s", bnd_dtype_name(given->dtype));
    note(misshaped, name, detail);
  }
}

/* heads.proj_conv is not saved by super-gradients, but a file may have it: as [1,bins,1,1], or any other layout of so many values. */
static void compare_projection(const bnd_yolo_nas *model, bool *used, name_list *misshaped) {
  size_t index, elements;
  if (!bnd_map_get(&model->index, "heads.proj_conv", &index)) return;
  const bnd_named_shape *given = &model->source.tensors[index];
  used[index] = true;
  if (!bnd_shape_count(&given->shape, &elements) || elements != (size_t)model->architecture.reg_max + 1 || !is_floating(given->dtype))
    note(misshaped, "heads.proj_conv", " must hold a number for each bin");
}

static bnd_status compare(bnd_yolo_nas *model, bnd_error *error) {
  bool *used = bnd_calloc(model->source.count, sizeof *used);
  if (!used) return bnd_fail_memory(error, "the comparison of tensors");
  name_list missing = {0}, unexpected = {0}, misshaped = {0};
  for (size_t i = 0; i < model->layers.count; i++) {
    bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
    const int count = bnd_layer_tensors(&model->layers.items[i], tensors);
    for (int t = 0; t < count; t++) compare_tensor(model, &model->layers.items[i], &tensors[t], used, &missing, &misshaped);
  }
  compare_projection(model, used, &misshaped);
  for (size_t i = 0; i < model->source.count; i++)
    if (!used[i] && !is_ignorable(model->source.tensors[i].name)) note(&unexpected, model->source.tensors[i].name, "");
  free(used);
  bnd_status status = BND_OK;
  if (missing.count || unexpected.count || misshaped.count) {
    bnd_string text = {0};
    report(&text, &missing, "missing");
    report(&text, &unexpected, "unexpected");
    report(&text, &misshaped, "of another shape or type");
    status = bnd_fail(error, BND_ERROR_MODEL, "%s: the tensors do not make a YOLO-NAS: %s", model->place, text.text ? text.text : "");
    bnd_string_free(&text);
  }
  bnd_string_free(&missing.text);
  bnd_string_free(&unexpected.text);
  bnd_string_free(&misshaped.text);
  return status;
}

/* Everything about a given assignment of names. */
static bnd_status interpret(bnd_yolo_nas *model, bnd_error *error) {
  free(model->layers.items);
  model->layers = (bnd_layer_list){0};
  BND_TRY(read_architecture(model, error));
  model->layers = bnd_layers_of(&model->architecture, BND_YOLO_NAS_TRAIN, BND_ORDER_EXECUTION);
  if (model->layers.failed) return bnd_fail_memory(error, "the layers");
  for (size_t i = 0; i < model->layers.count; i++) model->layers.items[i].form = form_of_block(model, model->layers.items[i].path);
  return compare(model, error);
}

/* --- by order (section 2.4, rule 5) --- */

/* Gives the i-th tensor the i-th name of this network. False: their numbers differ. */
static bool name_by_order(bnd_yolo_nas *model, const bnd_yolo_nas_architecture *architecture, bnd_yolo_nas_form form, bool *failed) {
  bnd_layer_list layers = bnd_layers_of(architecture, form, BND_ORDER_REGISTRATION);
  size_t at = 0;
  *failed = layers.failed;
  bnd_map_free(&model->index);
  for (size_t i = 0; i < layers.count && !*failed; i++) {
    bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
    const int count = bnd_layer_tensors(&layers.items[i], tensors);
    for (int t = 0; t < count && !*failed; t++, at++) {
      const char *name = bnd_arena_format(model->names, "%s%s", layers.items[i].path, tensors[t].suffix);
      if (at < model->source.count) *failed = !name || !bnd_map_put(&model->index, name, at);
    }
  }
  free(layers.items);
  return at == model->source.count;
}

/* Keeps the error of the attempt by name when no published variant fits by order either. */
static bnd_status interpret_by_order(bnd_yolo_nas *model, bnd_status by_name, bnd_error *error) {
  static const bnd_yolo_nas_form FORMS[] = {BND_YOLO_NAS_TRAIN, BND_YOLO_NAS_PARTIAL, BND_YOLO_NAS_FOLDED};
  if (!(model->names = bnd_arena_create())) return bnd_fail_memory(error, "the names of tensors");
  for (const char *variant = "SML"; *variant; variant++) {
    for (int f = 0; f < 3; f++) {
      bnd_yolo_nas_architecture published;
      bool failed;
      bnd_yolo_nas_published(*variant, 80, &published);
      if (!name_by_order(model, &published, FORMS[f], &failed)) continue;
      if (failed) return bnd_fail_memory(error, "the names of tensors");
      bnd_error ignored;
      if (interpret(model, &ignored) == BND_OK) {
        model->by_order = true;
        return BND_OK;
      }
    }
  }
  return by_name;
}

/* --- life --- */

static bnd_status index_names(bnd_yolo_nas *model, bnd_error *error) {
  for (size_t i = 0; i < model->source.count; i++) {
    if (bnd_map_get(&model->index, model->source.tensors[i].name, NULL))
      return bnd_fail(error, BND_ERROR_MODEL, "%s: two tensors are named %.200s", model->place, model->source.tensors[i].name);
    if (!bnd_map_put(&model->index, model->source.tensors[i].name, i)) return bnd_fail_memory(error, "the names of tensors");
  }
  return BND_OK;
}

bnd_status bnd_yolo_nas_read(const bnd_tensor_source *source, bnd_yolo_nas **model, bnd_error *error) {
  bnd_yolo_nas *fresh = bnd_calloc(1, sizeof *fresh);
  if (!fresh || !(fresh->place = strdup(source->place ? source->place : "checkpoint"))) {
    free(fresh);
    return bnd_fail_memory(error, "the model");
  }
  fresh->source = *source;
  fresh->source.place = fresh->place;
  bnd_status status = index_names(fresh, error);
  if (status == BND_OK) status = interpret(fresh, error);
  if (status == BND_ERROR_MODEL) status = interpret_by_order(fresh, status, error);
  if (status == BND_OK)
    *model = fresh;
  else
    bnd_yolo_nas_destroy(fresh);
  return status;
}

void bnd_yolo_nas_destroy(bnd_yolo_nas *model) {
  if (!model) return;
  bnd_map_free(&model->index);
  bnd_arena_destroy(model->names);
  free(model->layers.items);
  free(model->place);
  free(model);
}

const bnd_yolo_nas_architecture *bnd_yolo_nas_architecture_of(const bnd_yolo_nas *model) {
  return &model->architecture;
}
bnd_yolo_nas_form bnd_yolo_nas_stored_form(const bnd_yolo_nas *model) {
  return model->layers.items[0].form;
}
bool bnd_yolo_nas_matched_by_order(const bnd_yolo_nas *model) {
  return model->by_order;
}

/* --- values --- */

bnd_status bnd_yolo_nas_load(const bnd_yolo_nas *model, const char *path, const char *suffix, bnd_tensor *tensor, bnd_error *error) {
  char name[BND_TENSOR_NAME], text[2][BND_SHAPE_TEXT];
  size_t index;
  snprintf(name, sizeof name, "%s%s", path, suffix);
  if (!bnd_map_get(&model->index, name, &index)) return bnd_fail(error, BND_ERROR_INTERNAL, "%s: %s is missing after all", model->place, name);
  const bnd_named_shape *given = &model->source.tensors[index];
  bnd_tensor stored = {0}, values = {0};
  BND_TRY(model->source.load(model->source.user, index, &stored, error));
  bnd_status status = BND_OK;
  if (!bnd_shape_equal(&stored.shape, &given->shape))
    status = bnd_fail(error, BND_ERROR_INTERNAL, "%s: %s has shape %s where the list says %s", model->place, name,
                      bnd_shape_text(&stored.shape, text[0]), bnd_shape_text(&given->shape, text[1]));
  else if (stored.dtype == BND_F32)
    values = bnd_tensor_share(&stored, NULL);
  else
    status = bnd_tensor_to_f32(&stored, &values, error);
  bnd_tensor_release(&stored);
  const bool is_variance = strlen(suffix) > 12 && strcmp(suffix + strlen(suffix) - 12, ".running_var") == 0;
  for (size_t i = 0; i < values.count && status == BND_OK; i++) {
    const float value = bnd_f32(&values)[i];
    if (!isfinite(value))
      status = bnd_fail(error, BND_ERROR_MODEL, "%s: %s: element %zu is %s; the training that wrote this file diverged", model->place, name, i,
                        isnan(value) ? "NaN" : "infinite");
    else if (is_variance && value < 0)
      status = bnd_fail(error, BND_ERROR_MODEL, "%s: %s: element %zu is %g; a variance cannot be negative", model->place, name, i, (double)value);
  }
  if (status == BND_OK)
    *tensor = values;
  else
    bnd_tensor_release(&values);
  return status;
}
