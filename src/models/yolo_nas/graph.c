/* The network as torch.export captures it: first every get_attr (alphas, other parameters, buffers, each in the order of use), then the calls. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/yolo_nas/layers.h"
#include "ops/operators.h"

enum { STRIDES = BND_YOLO_NAS_HEADS };
static const int STRIDE[STRIDES] = {8, 16, 32};

typedef struct builder {
  const bnd_yolo_nas *model;
  const bnd_yolo_nas_options *options;
  bnd_graph *graph;
  bnd_map attributes; /* name -> position in `nodes` */
  bnd_node **nodes;
  size_t node_count, node_capacity;
  size_t next; /* layer the forward pass comes to next */
  bnd_status status;
  bnd_error *error;
} builder;

/* --- attributes --- */

/* Adds the get_attr node; takes over *tensor. */
static void declare(builder *b, const char *path, const char *suffix, bnd_tensor *tensor, bool is_parameter) {
  char name[BND_TENSOR_NAME];
  snprintf(name, sizeof name, "%s%s", path, suffix);
  if (b->status == BND_OK) b->status = bnd_graph_set_attribute(b->graph, name, tensor, is_parameter, b->error);
  if (b->status != BND_OK) {
    bnd_tensor_release(tensor);
    return;
  }
  bnd_node *node = bnd_graph_get_attr(b->graph, name, name);
  const bnd_attribute *attribute = bnd_graph_attribute(b->graph, name);
  if (!node || !BND_GROW(b->nodes, b->node_capacity, b->node_count + 1) || !bnd_map_put(&b->attributes, attribute->name, b->node_count))
    b->status = bnd_fail_memory(b->error, "the graph");
  else
    b->nodes[b->node_count++] = node;
}

/* The shape without values, for options->shapes_only. */
static bnd_tensor shape_only(bnd_dtype dtype, const bnd_shape *shape) {
  bnd_tensor tensor = {.dtype = dtype, .shape = *shape};
  bnd_shape_count(shape, &tensor.count);
  return tensor;
}

static void declare_stored(builder *b, const bnd_layer *layer, const bnd_layer_tensor *tensor) {
  bnd_tensor values = {0};
  if (b->status != BND_OK) return;
  if (b->options->shapes_only)
    values = shape_only(BND_F32, &tensor->shape);
  else
    b->status = bnd_yolo_nas_load(b->model, layer->path, tensor->suffix, &values, b->error);
  declare(b, layer->path, tensor->suffix, &values, tensor->role == BND_ROLE_PARAMETER);
}

/* num_batches_tracked decides nothing in a network that is not trained: its shape matters here, not its value. */
static void declare_counter(builder *b, const bnd_layer *layer, const char *suffix) {
  bnd_tensor values = {0};
  if (b->status != BND_OK) return;
  b->status = bnd_tensor_create(BND_I64, &(bnd_shape){0}, &values, b->error);
  declare(b, layer->path, suffix, &values, false);
}

/* The convolution of a layer whose branches are to be merged or whose batch norm is to be folded. */
static void declare_fused(builder *b, const bnd_layer *layer) {
  const bool reparameterized = layer->kind == BND_LAYER_REPARAMETERIZED;
  const char *weight_name = reparameterized ? ".rbr_reparam.weight" : ".conv.weight",
             *bias_name = reparameterized ? ".rbr_reparam.bias" : ".conv.bias";
  const bool fold = b->options->form == BND_YOLO_NAS_FOLDED && !(reparameterized && layer->form == BND_YOLO_NAS_FOLDED);
  bnd_tensor weight = {0}, bias = {0};
  if (b->status != BND_OK) return;
  if (b->options->shapes_only) {
    weight = shape_only(BND_F32, &BND_SHAPE(layer->output, layer->input, layer->kernel, layer->kernel));
    bias = shape_only(BND_F32, &BND_SHAPE(layer->output));
  } else {
    if (reparameterized && layer->form == BND_YOLO_NAS_TRAIN) {
      b->status = bnd_yolo_nas_merge_branches(b->model, layer, &weight, &bias, b->error);
    } else {
      b->status = bnd_yolo_nas_load(b->model, layer->path, weight_name, &weight, b->error);
      if (b->status == BND_OK && reparameterized) b->status = bnd_yolo_nas_load(b->model, layer->path, bias_name, &bias, b->error);
    }
    if (b->status == BND_OK && fold)
      b->status = bnd_yolo_nas_fold_batch_norm(b->model, layer, reparameterized ? ".post_bn" : ".bn", &weight, &bias, b->error);
  }
  declare(b, layer->path, weight_name, &weight, true);
  declare(b, layer->path, bias_name, &bias, true);
}

/* The form a layer takes in this graph: not less fused than it is stored. */
static bnd_yolo_nas_form target_form(const builder *b, const bnd_layer *layer) {
  return layer->form > b->options->form ? layer->form : b->options->form;
}

static bool has_batch_norm(const builder *b, const bnd_layer *layer) {
  if (layer->kind == BND_LAYER_REPARAMETERIZED) return target_form(b, layer) != BND_YOLO_NAS_FOLDED;
  return layer->kind == BND_LAYER_CONV && b->options->form != BND_YOLO_NAS_FOLDED;
}

static void declare_parameters(builder *b, const bnd_layer *stored) {
  bnd_layer layer = *stored;
  layer.form = target_form(b, stored);
  const bool fused =
      layer.kind == BND_LAYER_REPARAMETERIZED ? layer.form != BND_YOLO_NAS_TRAIN : layer.kind == BND_LAYER_CONV && !has_batch_norm(b, &layer);
  if (fused) declare_fused(b, stored);
  bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
  const int count = bnd_layer_tensors(&layer, tensors);
  for (int i = 0; i < count; i++) {
    const bool of_batch_norm = strstr(tensors[i].suffix, "bn.") != NULL;
    if (tensors[i].role == BND_ROLE_PARAMETER && (of_batch_norm ? has_batch_norm(b, stored) : !fused)) declare_stored(b, stored, &tensors[i]);
  }
}

static void declare_buffers(builder *b, const bnd_layer *stored) {
  if (!has_batch_norm(b, stored)) return;
  bnd_layer layer = *stored;
  layer.form = target_form(b, stored);
  bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
  const int count = bnd_layer_tensors(&layer, tensors);
  for (int i = 0; i < count; i++) {
    if (tensors[i].role == BND_ROLE_STATISTIC) declare_stored(b, stored, &tensors[i]);
    if (tensors[i].role == BND_ROLE_COUNTER) declare_counter(b, stored, tensors[i].suffix);
  }
}

/* proj_conv: 0 .. reg_max, as [1,bins,1,1] whatever layout a file has it in. */
static void declare_projection(builder *b) {
  const int bins = b->model->architecture.reg_max + 1;
  const bnd_shape shape = BND_SHAPE(1, bins, 1, 1);
  bnd_tensor values = {0};
  if (b->status != BND_OK) return;
  if (bnd_map_get(&b->model->index, "heads.proj_conv", NULL) && !b->options->shapes_only) {
    bnd_tensor stored;
    b->status = bnd_yolo_nas_load(b->model, "heads", ".proj_conv", &stored, b->error);
    if (b->status == BND_OK) {
      values = bnd_tensor_share(&stored, &shape);
      bnd_tensor_release(&stored);
    }
  } else {
    b->status = bnd_tensor_create(BND_F32, &shape, &values, b->error);
    for (int i = 0; i < bins && b->status == BND_OK; i++) bnd_f32(&values)[i] = (float)i;
  }
  declare(b, "heads", ".proj_conv", &values, false);
}

static void declare_attributes(builder *b) {
  const bnd_layer_list *layers = &b->model->layers;
  for (size_t i = 0; i < layers->count; i++)
    if (layers->items[i].kind == BND_LAYER_ALPHA) declare_parameters(b, &layers->items[i]);
  for (size_t i = 0; i < layers->count; i++)
    if (layers->items[i].kind != BND_LAYER_ALPHA) declare_parameters(b, &layers->items[i]);
  declare_projection(b);
  for (size_t i = 0; i < layers->count; i++) declare_buffers(b, &layers->items[i]);
}

/* --- calls --- */

static bnd_arg node_arg(bnd_node *node) {
  return node ? bnd_arg_of_node(node) : BND_NONE_ARG;
}

static bnd_arg attribute(builder *b, const char *path, const char *suffix) {
  char name[BND_TENSOR_NAME];
  size_t index;
  snprintf(name, sizeof name, "%s%s", path, suffix);
  return bnd_map_get(&b->attributes, name, &index) ? node_arg(b->nodes[index]) : BND_NONE_ARG;
}

/* Names count up from the operator's; NULL after a failure. */
static bnd_node *call_named(builder *b, bnd_operator_id id, const char *name, const char *scope, const bnd_arg *args, int count) {
  if (b->status != BND_OK) return NULL;
  bnd_node *node = bnd_graph_call(b->graph, bnd_operator_of(id), name ? name : bnd_operator_of(id)->name, args, count);
  if (node) node->scope = bnd_arena_copy(bnd_graph_arena(b->graph), scope);
  if (!node || !node->scope) b->status = bnd_fail_memory(b->error, "the graph");
  return b->status == BND_OK ? node : NULL;
}

#define CALL(b, id, scope, ...) call_named(b, id, NULL, scope, (bnd_arg[]){__VA_ARGS__}, (int)(sizeof((bnd_arg[]){__VA_ARGS__}) / sizeof(bnd_arg)))
#define INTS(b, ...) bnd_graph_int_list((b)->graph, (int64_t[]){__VA_ARGS__}, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))

static bnd_node *cat(builder *b, const char *scope, bnd_node *const *parts, int count, int dimension) {
  if (b->status != BND_OK) return NULL;
  /* 0 is the default and is not written */
  const bnd_arg args[] = {bnd_graph_node_list(b->graph, parts, count), bnd_arg_of_int(dimension)};
  return call_named(b, BND_OP_CAT, NULL, scope, args, dimension ? 2 : 1);
}

/* Trailing arguments that equal the defaults are not written, as torch.export does. */
static bnd_node *convolution(builder *b, const char *path, const char *name, bnd_node *x, int kernel, int stride) {
  char scope[BND_TENSOR_NAME];
  snprintf(scope, sizeof scope, "%s%s", path, name);
  const int padding = kernel / 2;
  const bnd_arg bias = attribute(b, scope, ".bias");
  const bnd_arg args[] = {node_arg(x), attribute(b, scope, ".weight"), bias, INTS(b, stride, stride), INTS(b, padding, padding)};
  const int count = padding ? 5 : stride != 1 ? 4 : bias.kind != BND_ARG_NONE ? 3 : 2;
  return call_named(b, BND_OP_CONV2D, NULL, scope, args, count);
}

static bnd_node *batch_norm(builder *b, const char *path, const char *name, bnd_node *x) {
  char scope[BND_TENSOR_NAME];
  snprintf(scope, sizeof scope, "%s%s", path, name);
  return CALL(b, BND_OP_BATCH_NORM, scope, node_arg(x), attribute(b, scope, ".weight"), attribute(b, scope, ".bias"),
              attribute(b, scope, ".running_mean"), attribute(b, scope, ".running_var"), bnd_arg_of_bool(false),
              bnd_arg_of_float(BND_YOLO_NAS_MOMENTUM), bnd_arg_of_float(BND_YOLO_NAS_EPSILON), bnd_arg_of_bool(true));
}

static bnd_node *relu(builder *b, const char *path, const char *name, bnd_node *x) {
  char scope[BND_TENSOR_NAME];
  snprintf(scope, sizeof scope, "%s%s", path, name);
  return CALL(b, BND_OP_RELU_, scope, node_arg(x));
}

/* The block with its branches (section 3.1). The factor 1.0 and the identity 0.0 are there in the original, too. */
static bnd_node *branches(builder *b, const bnd_layer *layer, bnd_node *x) {
  bnd_node *wide = batch_norm(b, layer->path, ".branch_3x3.bn", convolution(b, layer->path, ".branch_3x3.conv", x, 3, layer->stride));
  bnd_node *narrow =
      CALL(b, BND_OP_MUL, layer->path, node_arg(convolution(b, layer->path, ".branch_1x1", x, 1, layer->stride)), bnd_arg_of_float(1.0));
  bnd_node *sum = CALL(b, BND_OP_ADD, layer->path, node_arg(wide), node_arg(narrow));
  return CALL(b, BND_OP_ADD, layer->path, node_arg(sum), layer->identity ? node_arg(x) : bnd_arg_of_float(0.0));
}

static bnd_node *reparameterized(builder *b, const bnd_layer *layer, bnd_node *x) {
  const bool with_branches = target_form(b, layer) == BND_YOLO_NAS_TRAIN;
  bnd_node *y = with_branches ? branches(b, layer, x) : convolution(b, layer->path, ".rbr_reparam", x, 3, layer->stride);
  if (has_batch_norm(b, layer)) y = batch_norm(b, layer->path, ".post_bn", y);
  return relu(b, layer->path, ".nonlinearity", y);
}

static bnd_node *conv_layer(builder *b, const bnd_layer *layer, bnd_node *x) {
  bnd_node *y = convolution(b, layer->path, ".conv", x, layer->kernel, layer->stride);
  if (has_batch_norm(b, layer)) y = batch_norm(b, layer->path, ".bn", y);
  return relu(b, layer->path, ".act", y);
}

static bnd_node *upsample(builder *b, const bnd_layer *layer, bnd_node *x) {
  return CALL(b, BND_OP_CONV_TRANSPOSE2D, layer->path, node_arg(x), attribute(b, layer->path, ".weight"), attribute(b, layer->path, ".bias"),
              INTS(b, 2, 2));
}

/* Runs the layer that comes next in execution order. Its path ends in `name`: said for the reader, and checked. */
static bnd_node *run(builder *b, const char *name, bnd_node *x) {
  const bnd_layer *layer = b->next < b->model->layers.count ? &b->model->layers.items[b->next++] : NULL;
  const size_t length = layer ? strlen(layer->path) : 0, ending = strlen(name);
  if (b->status != BND_OK) return NULL;
  if (length < ending || strcmp(layer->path + length - ending, name) != 0) {
    b->status = bnd_fail(b->error, BND_ERROR_INTERNAL, "YOLO-NAS: the layer %s stands where %s should", layer ? layer->path : "(none)", name);
    return NULL;
  }
  switch (layer->kind) {
    case BND_LAYER_REPARAMETERIZED:
      return reparameterized(b, layer, x);
    case BND_LAYER_CONV:
      return conv_layer(b, layer, x);
    case BND_LAYER_UPSAMPLE:
      return upsample(b, layer, x);
    case BND_LAYER_PREDICTION:
      return convolution(b, layer->path, "", x, 1, 1);
    case BND_LAYER_ALPHA:
      break;
  }
  return NULL;
}

/* --- stages --- */

static bnd_node *bottleneck(builder *b, bnd_node *x) {
  const char *path = b->model->layers.items[b->next++].path; /* the alpha */
  bnd_node *y = run(b, "cv2", run(b, "cv1", x));
  bnd_node *residual = CALL(b, BND_OP_MUL, path, attribute(b, path, ".alpha"), node_arg(x));
  return CALL(b, BND_OP_ADD, path, node_arg(residual), node_arg(y));
}

static bnd_node *blocks(builder *b, const char *parent, const bnd_yolo_nas_blocks *s, bnd_node *x) {
  char path[BND_LAYER_PATH];
  bnd_node *parts[72]; /* bnd_yolo_nas_read allows 64 bottlenecks */
  int count = 0;
  snprintf(path, sizeof path, "%s.blocks", parent);
  bnd_node *y = run(b, "conv1", x);
  for (int i = 0; i < s->count; i++) {
    if (s->concat_intermediates) parts[count++] = y;
    y = bottleneck(b, y);
  }
  parts[count++] = y;
  parts[count++] = run(b, "conv2", x);
  return run(b, "conv3", cat(b, path, parts, count, 1));
}

static bnd_node *spp(builder *b, bnd_node *x) {
  bnd_node *parts[4] = {run(b, "context_module.cv1", x)};
  for (int i = 0; i < 3; i++) {
    const int kernel = 5 + 4 * i;
    char scope[BND_LAYER_PATH];
    snprintf(scope, sizeof scope, "backbone.context_module.m.%d", i);
    parts[i + 1] = CALL(b, BND_OP_MAX_POOL2D, scope, node_arg(parts[0]), INTS(b, kernel, kernel), INTS(b, 1, 1), INTS(b, kernel / 2, kernel / 2));
  }
  return run(b, "context_module.cv2", cat(b, "backbone.context_module", parts, 4, 1));
}

static bnd_node *up_stage(builder *b, const char *path, const bnd_yolo_nas_blocks *s, bnd_node *x, bnd_node *skip1, bnd_node *skip2,
                          bnd_node **intermediate) {
  bnd_node *parts[3];
  parts[1] = run(b, "reduce_skip1", skip1);
  parts[2] = run(b, "downsample", run(b, "reduce_skip2", skip2));
  *intermediate = run(b, "conv", x);
  parts[0] = run(b, "upsample", *intermediate);
  return blocks(b, path, s, run(b, "reduce_after_concat", cat(b, path, parts, 3, 1)));
}

static bnd_node *down_stage(builder *b, const char *path, const bnd_yolo_nas_blocks *s, bnd_node *x, bnd_node *skip) {
  bnd_node *parts[2] = {run(b, "conv", x), skip};
  return blocks(b, path, s, cat(b, path, parts, 2, 1));
}

/* --- heads (section 5) --- */

typedef struct head_results {
  bnd_node *distribution, *reduced, *classes; /* [B,cells,4*bins], [B,cells,4], [B,N,cells] */
} head_results;

static head_results head(builder *b, bnd_node *x, int64_t cells) {
  const bnd_yolo_nas_architecture *a = &b->model->architecture;
  const int batch = b->options->batch ? b->options->batch : 1;
  const char *scope = "heads";
  bnd_node *stem = run(b, "stem.seq", x);
  bnd_node *logits = run(b, "cls_pred", run(b, "cls_convs.0.seq", stem));
  bnd_node *distances = run(b, "reg_pred", run(b, "reg_convs.0.seq", stem));
  head_results r;
  r.distribution = CALL(b, BND_OP_PERMUTE, scope, node_arg(CALL(b, BND_OP_FLATTEN, scope, node_arg(distances), bnd_arg_of_int(2))), INTS(b, 0, 2, 1));
  bnd_node *bins = CALL(b, BND_OP_RESHAPE, scope, node_arg(distances), INTS(b, -1, 4, a->reg_max + 1, cells));
  bins = CALL(b, BND_OP_PERMUTE, scope, node_arg(bins), INTS(b, 0, 2, 3, 1));
  bins = CALL(b, BND_OP_SOFTMAX, scope, node_arg(bins), bnd_arg_of_int(1));
  bins = CALL(b, BND_OP_CONV2D, scope, node_arg(bins), attribute(b, "heads", ".proj_conv"));
  r.reduced = CALL(b, BND_OP_SQUEEZE, scope, node_arg(bins), bnd_arg_of_int(1));
  r.classes = CALL(b, BND_OP_RESHAPE, scope, node_arg(logits), INTS(b, batch, a->classes, cells));
  return r;
}

static void add_float_keywords(builder *b, bnd_node *node) {
  const bool added = node && bnd_node_add_keyword(node, "dtype", bnd_arg_of_text("torch.float32")) &&
                     bnd_node_add_keyword(node, "device", bnd_arg_of_text("cpu")) && bnd_node_add_keyword(node, "pin_memory", bnd_arg_of_bool(false));
  if (!added && b->status == BND_OK) b->status = bnd_fail_memory(b->error, "the graph");
}

/* Cell centres along one side: 0.5, 1.5, .. */
static bnd_node *centres(builder *b, int64_t size) {
  bnd_node *range = CALL(b, BND_OP_ARANGE, "heads", bnd_arg_of_int(size));
  add_float_keywords(b, range);
  return CALL(b, BND_OP_ADD, "heads", node_arg(range), bnd_arg_of_float(0.5));
}

static bnd_node *getitem(builder *b, const char *scope, const char *name, bnd_node *from, int index) {
  return call_named(b, BND_OP_GETITEM, name, scope, (bnd_arg[]){node_arg(from), bnd_arg_of_int(index)}, 2);
}

/* Centres in units of the stride [A,2], and the stride of every cell [A,1]. getitem starts at 7 because the capture numbers operations it later
 * drops. */
static void anchors(builder *b, bnd_node **points, bnd_node **strides) {
  bnd_node *all_points[STRIDES], *all_strides[STRIDES];
  for (int i = 0; i < STRIDES; i++) {
    const int64_t width = b->options->width / STRIDE[i], height = b->options->height / STRIDE[i];
    char name[2][24];
    for (int k = 0; k < 2; k++) snprintf(name[k], sizeof name[k], "getitem_%d", 7 + 2 * i + k);
    bnd_node *x = centres(b, width), *y = centres(b, height);
    bnd_node *grid = b->status == BND_OK ? CALL(b, BND_OP_MESHGRID, "heads", bnd_graph_node_list(b->graph, (bnd_node *[]){y, x}, 2)) : NULL;
    if (grid && !bnd_node_add_keyword(grid, "indexing", bnd_arg_of_text("ij"))) b->status = bnd_fail_memory(b->error, "the graph");
    y = getitem(b, "heads", name[0], grid, 0);
    x = getitem(b, "heads", name[1], grid, 1);
    bnd_node *pair =
        b->status == BND_OK ? CALL(b, BND_OP_STACK, "heads", bnd_graph_node_list(b->graph, (bnd_node *[]){x, y}, 2), bnd_arg_of_int(-1)) : NULL;
    pair = CALL(b, BND_OP_TO, "heads", node_arg(pair), bnd_arg_of_text("torch.float32"));
    all_points[i] = CALL(b, BND_OP_RESHAPE, "heads", node_arg(pair), INTS(b, -1, 2));
    all_strides[i] = CALL(b, BND_OP_FULL, "heads", INTS(b, height * width, 1), bnd_arg_of_int(STRIDE[i]));
    add_float_keywords(b, all_strides[i]);
  }
  *points = cat(b, "heads", all_points, STRIDES, 0);
  *strides = cat(b, "heads", all_strides, STRIDES, 0);
  if (!b->options->stubs) return;
  for (int i = 0; i < 2; i++) {
    bnd_node **value = i ? strides : points;
    *value = CALL(b, BND_OP_DEQUANT_STUB, "heads", node_arg(CALL(b, BND_OP_QUANT_STUB, "heads", node_arg(*value))));
  }
}

/* The anchors of training, [A,4] and [A,2] in pixels: squares of five cells around the centres. Computed here, as the region they come from is
   without gradient and reads nothing; result i of the region is the attribute "submod_1.<i>". */
static void training_anchors(builder *b, bnd_node *results[2]) {
  const int64_t height = b->options->height, width = b->options->width;
  int64_t total = 0;
  for (int i = 0; i < STRIDES; i++) total += (height / STRIDE[i]) * (width / STRIDE[i]);
  bnd_tensor boxes = {0}, points = {0};
  if (b->status == BND_OK) b->status = bnd_tensor_create(BND_F32, &BND_SHAPE(total, 4), &boxes, b->error);
  if (b->status == BND_OK) b->status = bnd_tensor_create(BND_F32, &BND_SHAPE(total, 2), &points, b->error);
  float *box = b->status == BND_OK ? bnd_f32(&boxes) : NULL, *point = b->status == BND_OK ? bnd_f32(&points) : NULL;
  for (int i = 0; i < STRIDES && box; i++) {
    const float half = 2.5f * (float)STRIDE[i];
    for (int64_t y = 0; y < height / STRIDE[i]; y++) {
      for (int64_t x = 0; x < width / STRIDE[i]; x++, box += 4, point += 2) {
        point[0] = ((float)x + 0.5f) * (float)STRIDE[i];
        point[1] = ((float)y + 0.5f) * (float)STRIDE[i];
        for (int k = 0; k < 2; k++) box[k] = point[k] - half, box[2 + k] = point[k] + half;
      }
    }
  }
  if (b->status == BND_OK) b->status = bnd_graph_set_attribute(b->graph, "submod_1.0", &boxes, false, b->error);
  if (b->status == BND_OK) b->status = bnd_graph_set_attribute(b->graph, "submod_1.1", &points, false, b->error);
  bnd_tensor_release(&boxes);
  bnd_tensor_release(&points);
  bnd_node *submodule = b->status == BND_OK ? bnd_graph_get_attr(b->graph, "submod_3", "submod_1") : NULL;
  bnd_node *region = CALL(b, BND_OP_NO_GRAD_REGION, "", bnd_arg_of_bool(false), node_arg(submodule));
  results[0] = getitem(b, "heads", "to_9", region, 0);
  results[1] = getitem(b, "heads", "to_10", region, 1);
}

static void heads(builder *b, bnd_node *const features[BND_YOLO_NAS_HEADS]) {
  bnd_node *distribution[3], *reduced[3], *classes[3], *points, *strides, *training[2] = {NULL, NULL};
  int64_t cells[3];
  for (int i = 0; i < 3; i++) {
    cells[i] = (int64_t)(b->options->height / STRIDE[i]) * (b->options->width / STRIDE[i]);
    const head_results r = head(b, features[i], cells[i]);
    distribution[i] = r.distribution, reduced[i] = r.reduced, classes[i] = r.classes;
  }
  bnd_node *logits = CALL(b, BND_OP_PERMUTE, "heads", node_arg(cat(b, "heads", classes, 3, -1)), INTS(b, 0, 2, 1));
  bnd_node *all_distributions = cat(b, "heads", distribution, 3, 1);
  bnd_node *distances = cat(b, "heads", reduced, 3, 1);
  anchors(b, &points, &strides);
  bnd_node *scores = CALL(b, BND_OP_SIGMOID, "heads", node_arg(logits));
  bnd_node *split = CALL(b, BND_OP_SPLIT, "heads", node_arg(distances), bnd_arg_of_int(2), bnd_arg_of_int(-1));
  bnd_node *left_top = getitem(b, "heads", "getitem_13", split, 0), *right_bottom = getitem(b, "heads", "getitem_14", split, 1);
  bnd_node *corners[2];
  corners[0] = CALL(b, BND_OP_SUB, "heads", node_arg(points), node_arg(left_top));
  corners[1] = CALL(b, BND_OP_ADD, "heads", node_arg(right_bottom), node_arg(points));
  bnd_node *boxes = CALL(b, BND_OP_MUL, "heads", node_arg(cat(b, "heads", corners, 2, -1)), node_arg(strides));
  if (b->options->raw_outputs) training_anchors(b, training);
  if (b->status != BND_OK) return;
  bnd_arg values[10] = {node_arg(boxes), node_arg(scores)};
  int count = 2;
  if (b->options->raw_outputs) {
    bnd_node *const more[] = {logits, all_distributions, training[0], training[1]};
    for (int i = 0; i < 4; i++) values[count++] = node_arg(more[i]);
    for (int i = 0; i < 3; i++) values[count++] = bnd_arg_of_int(cells[i]);
    values[count++] = node_arg(strides);
  }
  bnd_arg all = bnd_graph_list(b->graph, values, count);
  all.tuple = true;
  bnd_graph_output(b->graph, all);
}

static void forward(builder *b) {
  const bnd_yolo_nas_architecture *a = &b->model->architecture;
  const int batch = b->options->batch ? b->options->batch : 1;
  bnd_node *x =
      b->status == BND_OK ? bnd_graph_placeholder(b->graph, "x", &BND_SHAPE(batch, a->input_channels, b->options->height, b->options->width)) : NULL;
  if (b->options->stubs) x = CALL(b, BND_OP_QUANT_STUB, "", node_arg(x));
  bnd_node *c[BND_YOLO_NAS_STAGES], *y = run(b, "backbone.stem.conv", x);
  for (int i = 0; i < BND_YOLO_NAS_STAGES; i++) {
    char path[BND_LAYER_PATH];
    snprintf(path, sizeof path, "backbone.stage%d", i + 1);
    c[i] = y = blocks(b, path, &a->stage[i], run(b, "downsample", y));
  }
  bnd_node *c5 = spp(b, y), *inner1, *inner2, *p[BND_YOLO_NAS_HEADS];
  bnd_node *n1 = up_stage(b, "neck.neck1", &a->neck[0], c5, c[2], c[1], &inner1);
  p[0] = up_stage(b, "neck.neck2", &a->neck[1], n1, c[1], c[0], &inner2);
  p[1] = down_stage(b, "neck.neck3", &a->neck[2], p[0], inner2);
  p[2] = down_stage(b, "neck.neck4", &a->neck[3], p[1], inner1);
  heads(b, p);
}

bnd_status bnd_yolo_nas_graph(const bnd_yolo_nas *model, const bnd_yolo_nas_options *options, bnd_graph **graph, bnd_error *error) {
  const int limit = 16384;
  if (options->height < 32 || options->width < 32 || options->height % 32 || options->width % 32 || options->height > limit || options->width > limit)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "an input of %dx%d is impossible: both sides must be multiples of 32, at most %d", options->width,
                    options->height, limit);
  if (options->batch < 0) return bnd_fail(error, BND_ERROR_ARGUMENT, "a batch of %d images is impossible", options->batch);
  builder b = {.model = model, .options = options, .error = error};
  BND_TRY(bnd_graph_create(&b.graph, error));
  declare_attributes(&b);
  if (b.status == BND_OK) forward(&b);
  if (b.status == BND_OK && !options->raw_outputs) bnd_graph_eliminate_dead_code(b.graph);
  if (b.status == BND_OK) b.status = bnd_graph_status(b.graph, error);
  if (b.status == BND_OK) b.status = bnd_infer_shapes(b.graph, error);
  bnd_map_free(&b.attributes);
  free(b.nodes);
  if (b.status == BND_OK)
    *graph = b.graph;
  else
    bnd_graph_destroy(b.graph);
  return b.status;
}
