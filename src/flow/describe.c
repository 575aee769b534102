/* `binade info`: what a file holds, as text or JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "flow/model.h"
#include "formats/json/json.h"
#include "ops/operators.h"

typedef struct summary {
  int64_t layers, parameters, macs; /* layers: convolutions and linear */
  int nodes, quantizers;
} summary;

static bool is_layer(const bnd_node *node) { return bnd_is_conv_module(node) || (node->op && bnd_is_conv_function(node)); }

static summary summarize(const bnd_graph *graph) {
  summary s = {.nodes = bnd_graph_node_count(graph)};
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    s.layers += is_layer(node);
    s.macs += bnd_node_macs(node);
    s.quantizers += bnd_is_fake_quantize(node);
    if (node->kind == BND_GET_ATTR) {
      const bnd_attribute *attribute = bnd_graph_attribute(graph, node->target);
      if (attribute && attribute->is_parameter) s.parameters += (int64_t)attribute->tensor.count;
    }
    if (bnd_is_conv_module(node)) s.parameters += (int64_t)(node->module->weight.count + node->module->bias.count);
  }
  return s;
}

static const char *form_text(bnd_yolo_nas_form form) {
  return form == BND_YOLO_NAS_TRAIN ? "training (branches separate)" : form == BND_YOLO_NAS_PARTIAL ? "partially fused" : "fully fused";
}

static void preprocessing_text(const bnd_preprocessing *p, char *text, size_t size) {
  static const char *const rescale[] = {"not resized", "longest side fitted", "longest side fitted", "stretched"};
  int at = snprintf(text, size, "%s, %s", p->bgr ? "BGR" : "RGB", rescale[p->rescale]);
  if (p->rescale != BND_RESCALE_NONE) at += snprintf(text + at, size - (size_t)at, " to %dx%d", p->rescale_width, p->rescale_height);
  at += snprintf(text + at, size - (size_t)at, ", padded %s to %dx%d with %d", p->padding == BND_PAD_CENTER ? "around" : "right and below", p->width, p->height,
                 p->pad_value);
  if (p->max_value > 0) at += snprintf(text + at, size - (size_t)at, ", divided by %g", p->max_value);
  if (p->normalize) snprintf(text + at, size - (size_t)at, ", mean and deviation normalized");
}

/* Names may hold line feeds; everything stays one line for each fact. */
static void append_on_one_line(bnd_string *text, const char *name) {
  for (; *name; name++) bnd_string_append(text, *name == '\n' ? " " : name, 1);
}

static int64_t file_bytes(const char *path) {
  struct stat about;
  return stat(path, &about) == 0 ? (int64_t)about.st_size : 0;
}

static void grouped(int64_t number, char text[32]) { /* 12,345,678 */
  char digits[32];
  const int length = snprintf(digits, sizeof digits, "%lld", (long long)number);
  int at = 0;
  for (int i = 0; i < length && at < 30; i++) {
    if (i && (length - i) % 3 == 0) text[at++] = ',';
    text[at++] = digits[i];
  }
  text[at] = '\0';
}

static void json_shape(bnd_json_writer *w, const char *name, const bnd_shape *shape) {
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_string(w, "name", name);
  bnd_json_key(w, "shape");
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int i = 0; i < shape->rank; i++) bnd_json_integer(w, shape->size[i]);
  bnd_json_end_array(w);
  bnd_json_end_object(w);
}

typedef struct value_list {
  const bnd_node *nodes[16];
  int count;
} value_list;

static void collect(void *user, bnd_node *node) {
  value_list *list = user;
  if (list->count < 16) list->nodes[list->count++] = node;
}

static void inputs_and_outputs(const bnd_graph *graph, value_list *inputs, value_list *outputs) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (node->kind == BND_PLACEHOLDER) collect(inputs, node);
    if (node->kind == BND_OUTPUT) bnd_node_visit_inputs(node, collect, outputs);
  }
}

static void describe_graph_json(bnd_json_writer *w, const bnd_graph *graph, const summary *s) {
  value_list lists[2] = {0};
  static const char *const keys[] = {"inputs", "outputs"};
  inputs_and_outputs(graph, &lists[0], &lists[1]);
  for (int k = 0; k < 2; k++) {
    bnd_json_key(w, keys[k]);
    bnd_json_begin_array(w, BND_JSON_LINES);
    for (int i = 0; i < lists[k].count; i++) json_shape(w, lists[k].nodes[i]->name, &lists[k].nodes[i]->shape[0]);
    bnd_json_end_array(w);
  }
  bnd_json_put_integer(w, "layers", s->layers);
  bnd_json_put_integer(w, "parameters", s->parameters);
  bnd_json_put_integer(w, "macs", s->macs);
  bnd_json_put_integer(w, "quantizers", s->quantizers);
}

static void describe_graph_text(bnd_string *t, const bnd_graph *graph, const summary *s) {
  value_list lists[2] = {0};
  char shape[BND_SHAPE_TEXT], parameters[32];
  inputs_and_outputs(graph, &lists[0], &lists[1]);
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < lists[k].count; i++)
      bnd_string_format(t, "%-14s %s %s\n", i ? "" : k ? "outputs" : "inputs", lists[k].nodes[i]->name, bnd_shape_text(&lists[k].nodes[i]->shape[0], shape));
  grouped(s->parameters, parameters);
  bnd_string_format(t, "%-14s %lld convolution-like, %d nodes\n", "layers", (long long)s->layers, s->nodes);
  bnd_string_format(t, "%-14s %s\n", "parameters", parameters);
  bnd_string_format(t, "%-14s %.2f G multiply-accumulates a run\n", "work", (double)s->macs * 1e-9);
  if (s->quantizers) bnd_string_format(t, "%-14s %d tensors have a quantizer\n", "quantization", s->quantizers);
}

static void describe_checkpoint_text(const bnd_model *model, bnd_string *t, const bnd_preprocessing *preprocessing) {
  const bnd_yolo_nas_architecture *a = bnd_yolo_nas_architecture_of(model->network);
  char text[512], name[32];
  bnd_string_format(t, "%-14s PyTorch checkpoint (%s), %.1f MB, weights under \"%s\", %s\n", "format", bnd_checkpoint_container(model->checkpoint),
                    (double)file_bytes(model->path) * 1e-6, *model->state_dict.key ? model->state_dict.key : "top level",
                    form_text(bnd_yolo_nas_stored_form(model->network)));
  bnd_string_format(t, "%-14s YOLO-NAS %s%s, stem of %d channels, %d bins a side\n", "network", a->variant == 'C' ? "custom" : (const char[]){a->variant, '\0'},
                    a->full_width ? "" : " of another width", a->stem, a->reg_max + 1);
  if (bnd_yolo_nas_matched_by_order(model->network)) bnd_string_format(t, "%-14s tensors matched by their order: the names are not super-gradients'\n", "");
  bnd_string_format(t, "%-14s %d:", "classes", a->classes);
  for (int c = 0; c < a->classes && c < 8; c++) {
    bnd_string_format(t, c ? ", " : " ");
    append_on_one_line(t, bnd_model_class_name(model, c, name));
  }
  bnd_string_format(t, "%s%s\n", a->classes > 8 ? ", ..." : "", model->classes.count ? "" : a->classes == 80 ? " (COCO's; the checkpoint names none)" : " (the checkpoint names none)");
  preprocessing_text(preprocessing, text, sizeof text);
  bnd_string_format(t, "%-14s %s (%s)\n", "preprocessing", text, model->has_preprocessing ? "from the checkpoint" : "YOLO-NAS's usual one");
}

static void describe_checkpoint_json(const bnd_model *model, bnd_json_writer *w, const bnd_preprocessing *p) {
  const bnd_yolo_nas_architecture *a = bnd_yolo_nas_architecture_of(model->network);
  char name[32], text[512];
  bnd_json_put_string(w, "format", "pytorch");
  bnd_json_put_string(w, "container", bnd_checkpoint_container(model->checkpoint));
  bnd_json_put_string(w, "weights", model->state_dict.key);
  bnd_json_put_integer(w, "bytes", file_bytes(model->path));
  bnd_json_put_string(w, "form", form_text(bnd_yolo_nas_stored_form(model->network)));
  bnd_json_put_string(w, "network", "yolo_nas");
  bnd_json_put_string(w, "variant", a->variant == 'C' ? "custom" : (const char[]){a->variant, '\0'});
  bnd_json_put_boolean(w, "full_width", a->full_width);
  bnd_json_key(w, "classes");
  bnd_json_begin_array(w, BND_JSON_LINES);
  for (int c = 0; c < a->classes; c++) bnd_json_string(w, bnd_model_class_name(model, c, name));
  bnd_json_end_array(w);
  preprocessing_text(p, text, sizeof text);
  bnd_json_put_string(w, "preprocessing", text);
}

bnd_status bnd_model_describe(const bnd_model *model, bool json, char **result, bnd_error *error) {
  bnd_graph *made = NULL;
  bnd_preprocessing preprocessing = {0};
  if (!bnd_model_is_onnx(model)) {
    BND_TRY(bnd_model_preprocessing(model, 0, true, &preprocessing, error));
    const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_FOLDED, .height = preprocessing.height, .width = preprocessing.width, .shapes_only = true};
    BND_TRY(bnd_model_graph(model, &options, &made, error));
  }
  const bnd_graph *graph = made ? made : model->graph;
  const summary s = summarize(graph);
  bnd_string text = {0};
  if (json) {
    bnd_json_writer w = {.out = &text};
    bnd_json_begin_object(&w, BND_JSON_LINES);
    bnd_json_put_string(&w, "file", model->path);
    if (made) describe_checkpoint_json(model, &w, &preprocessing);
    else bnd_json_put_string(&w, "format", "onnx");
    describe_graph_json(&w, graph, &s);
    bnd_json_end_object(&w);
  } else {
    bnd_string_format(&text, "%s\n", model->path);
    if (made) describe_checkpoint_text(model, &text, &preprocessing);
    else bnd_string_format(&text, "%-14s ONNX, %.1f MB\n", "format", (double)file_bytes(model->path) * 1e-6);
    describe_graph_text(&text, graph, &s);
    if (made) bnd_string_format(&text, "%-14s counted with every branch and batch norm folded\n", "");
  }
  bnd_graph_destroy(made);
  if (text.failed) {
    bnd_string_free(&text);
    return bnd_fail_memory(error, "the description");
  }
  *result = text.text;
  return BND_OK;
}
