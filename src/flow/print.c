/* `binade print` and `binade convert`. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "export/onnx_export.h"
#include "flow/model.h"
#include "ops/operators.h"

static const char *operator_name(const bnd_node *node) {
  switch (node->kind) {
    case BND_PLACEHOLDER: return "input";
    case BND_GET_ATTR: return "constant";
    case BND_OUTPUT: return "output";
    default: return node->op->name;
  }
}

static void value_text(const bnd_arg *arg, bnd_string *text) {
  switch (arg->kind) {
    case BND_ARG_NONE: bnd_string_format(text, "None"); break;
    case BND_ARG_NODE: bnd_string_format(text, "%s", arg->node->name); break;
    case BND_ARG_INT: bnd_string_format(text, "%lld", (long long)arg->integer); break;
    case BND_ARG_FLOAT: bnd_string_format(text, "%.9g", arg->number); break;
    case BND_ARG_BOOL: bnd_string_format(text, "%s", arg->boolean ? "True" : "False"); break;
    case BND_ARG_TEXT: bnd_string_format(text, "%s", arg->text); break;
    case BND_ARG_LIST:
      bnd_string_format(text, "[");
      for (int i = 0; i < arg->list.count; i++) {
        if (i) bnd_string_format(text, ", ");
        value_text(&arg->list.items[i], text);
      }
      bnd_string_format(text, "]");
      break;
  }
}

static void arguments_text(const bnd_node *node, bnd_string *text) {
  for (int i = 0; i < node->arg_count; i++) {
    if (i) bnd_string_format(text, ", ");
    value_text(&node->args[i], text);
  }
  for (int i = 0; i < node->keyword_count; i++) {
    bnd_string_format(text, "%s%s=", i || node->arg_count ? ", " : "", node->keywords[i].name);
    value_text(&node->keywords[i].value, text);
  }
}

/* "2^-5" of a tensor, "2^-7 .. 2^-4" over channels. */
static void exponent_text(const char *role, const bnd_quantizer *q, bnd_string *text) {
  if (!q) return;
  int low = q->position[0], high = low;
  for (int c = 1; c < q->channels; c++) {
    low = q->position[c] < low ? q->position[c] : low;
    high = q->position[c] > high ? q->position[c] : high;
  }
  bnd_string_format(text, " %s2^%d", role, -high);
  if (low != high) bnd_string_format(text, "..2^%d", -low);
}

/* What a reader wants to know beside the arguments: scales of quantizers and geometry of modules. */
static void remarks_text(const bnd_node *node, const char *mark, bnd_string *text) {
  if (node->kind != BND_CALL_MODULE) return;
  bnd_string_format(text, "%s", mark);
  const bnd_module *m = node->module;
  exponent_text("scale ", m->quantizer, text);
  exponent_text("weight ", m->weight_quantizer, text);
  exponent_text("bias ", m->bias_quantizer, text);
  if (bnd_is_conv_module(node) && m->weight.shape.rank == 4)
    bnd_string_format(text, " kernel %lldx%lld stride %lld padding %lld%s", (long long)m->weight.shape.size[2], (long long)m->weight.shape.size[3],
                      (long long)m->stride[0], (long long)m->padding[0], m->has_batch_norm ? " batch norm" : "");
}

static int name_width(const bnd_graph *graph) {
  int width = 4;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const int length = (int)strlen(node->name);
    if (node->kind != BND_GET_ATTR && length > width) width = length;
  }
  return width < 40 ? width : 40;
}

static void print_table(const bnd_graph *graph, bnd_string *text) {
  char shape[BND_SHAPE_TEXT];
  const int width = name_width(graph);
  bnd_string_format(text, "%-*s  %-26s %-18s %s\n", width, "node", "operator", "shape", "from");
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (node->kind == BND_GET_ATTR) continue; /* weights: the layers' own business */
    bnd_string_format(text, "%-*s  %-26s %-18s", width, node->name, operator_name(node), node->kind == BND_OUTPUT ? "" : bnd_shape_text(&node->shape[0], shape));
    bool first = true;
    bnd_node *inputs[64];
    const int count = bnd_node_inputs(node, inputs, 64);
    for (int i = 0; i < count && i < 64; i++) {
      if (inputs[i]->kind == BND_GET_ATTR) continue;
      bnd_string_format(text, "%s%s", first ? " " : ", ", inputs[i]->name);
      first = false;
    }
    remarks_text(node, "  #", text);
    bnd_string_append(text, "\n", 1);
  }
}

/* As torch.fx writes a graph's code: one assignment a line, shapes and scales as remarks. */
static void print_code(const bnd_graph *graph, bnd_string *text) {
  char shape[BND_SHAPE_TEXT];
  bnd_string_format(text, "def forward(self");
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->kind == BND_PLACEHOLDER) bnd_string_format(text, ", %s", node->name);
  bnd_string_format(text, "):\n");
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (node->kind == BND_PLACEHOLDER) continue;
    if (node->kind == BND_OUTPUT) {
      bnd_string_format(text, "    return ");
      arguments_text(node, text);
      bnd_string_append(text, "\n", 1);
      continue;
    }
    bnd_string_format(text, "    %s = ", node->name);
    if (node->kind == BND_GET_ATTR) {
      bnd_string_format(text, "self.%s", node->target);
    } else {
      bnd_string_format(text, "%s%s(", node->kind == BND_CALL_MODULE ? "self." : "", node->kind == BND_CALL_MODULE ? node->target : node->op->target);
      arguments_text(node, text);
      bnd_string_append(text, ")", 1);
    }
    bnd_string_format(text, "  # %s", bnd_shape_text(&node->shape[0], shape));
    if (node->scope && *node->scope) bnd_string_format(text, ", %s", node->scope);
    remarks_text(node, ",", text);
    bnd_string_append(text, "\n", 1);
  }
}

static bnd_status graph_of(const bnd_model *model, bnd_yolo_nas_form form, int size, bool raw_outputs, bool shapes_only, bnd_graph **graph, bnd_error *error) {
  bnd_yolo_nas_options options = {.form = form, .raw_outputs = raw_outputs, .shapes_only = shapes_only};
  BND_TRY(bnd_model_size(model, size, &options.width, &options.height, error));
  return bnd_model_graph(model, &options, graph, error);
}

bnd_status bnd_model_print(const bnd_model *model, const bnd_print_options *options, char **result, bnd_error *error) {
  bnd_graph *made = NULL;
  if (bnd_model_is_onnx(model) && (options->form || options->size))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: is an ONNX file, whose form and size are fixed; give the checkpoint it was made from", model->path);
  if (!bnd_model_is_onnx(model)) BND_TRY(graph_of(model, bnd_form_of(options->form, BND_YOLO_NAS_PARTIAL), options->size, false, true, &made, error));
  bnd_string text = {0};
  if (options->code) print_code(made ? made : model->graph, &text);
  else print_table(made ? made : model->graph, &text);
  bnd_graph_destroy(made);
  if (text.failed) {
    bnd_string_free(&text);
    return bnd_fail_memory(error, "the graph's text");
  }
  *result = text.text;
  return BND_OK;
}

bnd_status bnd_model_convert(const bnd_model *model, const bnd_convert_options *options, const char *path, bnd_error *error) {
  static const char *const inputs[] = {"images"};
  static const char *const outputs[] = {"boxes", "scores", "class_logits", "box_distributions", "anchors", "anchor_points", "strides"};
  bnd_graph *graph;
  if (bnd_same_file(path, model->path))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: the ONNX file would replace the network it is made from; choose another name", path);
  BND_TRY(graph_of(model, bnd_form_of(options->form, BND_YOLO_NAS_FOLDED), options->size, options->raw_outputs, false, &graph, error));
  const int count = options->raw_outputs ? 7 : 2;
  bnd_string names = {0};
  if (model->classes.count) bnd_class_names_to_json(&model->classes, &names);
  const char *const metadata[][2] = {{BND_CLASS_NAMES_KEY, names.text}};
  const bnd_onnx_export_options onnx = {.input_names = inputs, .input_count = 1, .output_names = outputs, .output_count = count, .metadata = metadata,
                                        .metadata_count = names.text && !names.failed ? 1 : 0};
  const bnd_status status = bnd_export_onnx(graph, &onnx, path, error);
  bnd_string_free(&names);
  bnd_graph_destroy(graph);
  return status;
}
