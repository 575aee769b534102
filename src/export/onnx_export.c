#include "export/onnx_export.h"

#include <stdlib.h>
#include <string.h>

#include "export/exporter.h"
#include "formats/onnx/onnx_file.h"

static size_t slot(bnd_result result) {
  return (size_t)result.node->id * BND_MAX_RESULTS + (size_t)result.index;
}

/* --- what the operators use --- */

bnd_result bnd_export_origin(const bnd_node *node) {
  bnd_result result = {node, 0};
  for (;;) {
    const bnd_node *input = bnd_arg_node(result.node, 0);
    if (!input || result.node->kind != BND_CALL_FUNCTION) return result;
    switch (result.node->op->id) {
      case BND_OP_TO:
        if (result.node->dtype != BND_F32) return result;
        break;
      case BND_OP_CONTIGUOUS:
      case BND_OP_DROPOUT:
      case BND_OP_QUANT_STUB:
      case BND_OP_DEQUANT_STUB:
        break;
      case BND_OP_GETITEM: {
        const int64_t index = bnd_arg_int(result.node, 1, -1);
        if (index >= 0 && index < input->result_count) return (bnd_result){input, (int)index};
        return result;
      }
      default:
        return result;
    }
    result.node = input;
  }
}

const char *bnd_export_value(bnd_exporter *exporter, bnd_result result) {
  const char **value = &exporter->values[slot(result)];
  if (*value) return *value;
  const bnd_tensor *constant = bnd_constants_get(&exporter->constants, result.node, result.index);
  if (constant)
    *value = bnd_onnx_add_initializer(exporter->builder, result.node->kind == BND_GET_ATTR ? result.node->target : result.node->name, constant);
  return *value;
}

void bnd_export_set_value(bnd_exporter *exporter, bnd_result result, const char *name) { exporter->values[slot(result)] = name; }

bnd_status bnd_export_keep(bnd_exporter *exporter, const bnd_tensor *tensor, bnd_error *error) {
  if (!BND_GROW(exporter->folded, exporter->folded_capacity, exporter->folded_count + 1)) {
    bnd_tensor dropped = *tensor;
    bnd_tensor_release(&dropped);
    return bnd_fail_memory(error, "the ONNX graph");
  }
  exporter->folded[exporter->folded_count++] = *tensor;
  return BND_OK;
}

const char *bnd_export_path(const bnd_node *node) {
  if (node->scope && *node->scope) return node->scope;
  return node->kind == BND_GET_ATTR ? node->target : node->name;
}

/* The name of a node's result: the output's if it is one, else made from the ONNX node's name. Also declares its type. */
static const char *name_result(bnd_exporter *exporter, bnd_result result, const char *node_name) {
  const char **value = &exporter->values[slot(result)];
  *value = exporter->wanted[slot(result)];
  if (*value) return *value;
  *value = bnd_onnx_value_name(exporter->builder, bnd_onnx_format(exporter->builder, "%s_output_%d", node_name, result.index));
  if (*value) bnd_onnx_add_value_info(exporter->builder, *value, BND_F32, &result.node->shape[result.index]);
  return *value;
}

static Onnx__NodeProto *add_named_node(bnd_exporter *exporter, const bnd_node *node, const char *op_type, const char *name, bnd_export_place place,
                                       const char *const *inputs, size_t count) {
  bnd_onnx_builder *builder = exporter->builder;
  name = bnd_onnx_node_name(builder, name);
  const char *outputs[BND_MAX_RESULTS];
  size_t output_count = 1;
  if (place == BND_EXPORT_PART) {
    outputs[0] = bnd_onnx_value_name(builder, bnd_onnx_format(builder, "%s_output_0", name ? name : ""));
  } else {
    output_count = (size_t)node->result_count;
    for (int i = 0; i < node->result_count; i++) outputs[i] = name_result(exporter, (bnd_result){node, i}, name ? name : "");
  }
  Onnx__NodeProto *made = bnd_onnx_add_node(builder, op_type, name, inputs, count, outputs, output_count);
  if (made && place == BND_EXPORT_LAST) made->doc_string = bnd_onnx_format(builder, "%s", node->name);
  return made;
}

Onnx__NodeProto *bnd_export_node(bnd_exporter *exporter, const bnd_node *node, const char *op_type, bnd_export_place place, const char *const *inputs,
                                 size_t count) {
  return add_named_node(exporter, node, op_type, bnd_onnx_format(exporter->builder, "%s/%s", bnd_export_path(node), op_type), place, inputs, count);
}

bnd_status bnd_export_unsupported(const bnd_node *node, const char *why, bnd_error *error) {
  return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s (%s): %s", node->name, node->op ? node->op->target : "no operator", why);
}

bnd_status bnd_export_input(bnd_exporter *exporter, const bnd_node *node, int index, const char **value, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  const bnd_node *input = bnd_arg_node(node, index);
  if (input) {
    *value = bnd_export_value(exporter, bnd_export_origin(input));
    if (!*value && !builder->failed) return bnd_export_unsupported(input, "its value has no ONNX form", error);
  } else if (index < node->arg_count && (node->args[index].kind == BND_ARG_INT || node->args[index].kind == BND_ARG_FLOAT)) {
    *value = bnd_onnx_add_scalar(builder, bnd_onnx_format(builder, "%s.constant", bnd_export_path(node)), (float)bnd_arg_float(node, index, 0));
  } else {
    return bnd_fail(error, BND_ERROR_MODEL, "%s: argument %d is missing", node->name, index);
  }
  return bnd_onnx_builder_status(builder, error);
}

bnd_status bnd_export_quantizer(bnd_exporter *exporter, const bnd_node *node, const bnd_quantizer *quantizer, const char *path, const char *input,
                                const char **output, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  const int channels = quantizer->channels;
  if (channels < 1) return bnd_fail(error, BND_ERROR_MODEL, "%s: has never been calibrated, so it has no scale", path);
  const bnd_shape shape = quantizer->spec.per_channel ? BND_SHAPE(channels) : (bnd_shape){0};
  float *scales = bnd_arena_alloc(builder->arena, (size_t)channels, sizeof *scales);
  uint8_t *zero_points = bnd_arena_alloc(builder->arena, (size_t)channels, 1); /* int8 in two's complement, or uint8 */
  if (!scales || !zero_points) return bnd_fail_memory(error, "the ONNX graph");
  for (int c = 0; c < channels; c++) {
    scales[c] = bnd_scale_of(quantizer->position[c]);
    zero_points[c] = (uint8_t)quantizer->zero_point[c];
  }
  const char *scale = bnd_onnx_add_data(builder, bnd_onnx_format(builder, "%s/scale", path), BND_F32, &shape, scales);
  const char *zero = bnd_onnx_add_data(builder, bnd_onnx_format(builder, "%s/zero_point", path), quantizer->spec.dtype, &shape, zero_points);
  Onnx__NodeProto *pair[2];
  pair[0] = add_named_node(exporter, node, "QuantizeLinear", bnd_onnx_format(builder, "%s/QuantizeLinear", path), BND_EXPORT_PART,
                           (const char *const[]){input, scale, zero}, 3);
  pair[1] = add_named_node(exporter, node, "DequantizeLinear", bnd_onnx_format(builder, "%s/DequantizeLinear", path),
                           node ? BND_EXPORT_LAST : BND_EXPORT_PART, (const char *const[]){bnd_export_output(pair[0]), scale, zero}, 3);
  for (int i = 0; i < 2 && quantizer->spec.per_channel; i++) bnd_onnx_set_int(builder, pair[i], "axis", quantizer->spec.channel_axis);
  *output = bnd_export_output(pair[1]);
  return bnd_onnx_builder_status(builder, error);
}

/* --- the file as a whole --- */

/* Tensors among the output's value, in order; fills at most `limit` entries. Returns how many there are. */
static int flatten_outputs(const bnd_arg *value, bnd_result *outputs, int limit, int count) {
  if (value->kind == BND_ARG_NODE) {
    if (count < limit) outputs[count] = bnd_export_origin(value->node);
    return count + 1;
  }
  for (int i = 0; value->kind == BND_ARG_LIST && i < value->list.count; i++) count = flatten_outputs(&value->list.items[i], outputs, limit, count);
  return count;
}

static void mark(void *user, bnd_node *input) {
  ((bool *)user)[input->id] = true;
}

static void mark_live(bnd_exporter *exporter, const bnd_result *outputs, int count) {
  for (int i = 0; i < count; i++) exporter->live[outputs[i].node->id] = true;
  for (const bnd_node *node = bnd_graph_last(exporter->graph); node; node = node->previous)
    if (exporter->live[node->id] && node->kind != BND_OUTPUT) bnd_node_visit_inputs(node, mark, exporter->live);
}

static bnd_status declare_inputs(bnd_exporter *exporter, const bnd_onnx_export_options *options, bnd_error *error) {
  int index = 0;
  for (const bnd_node *node = bnd_graph_first(exporter->graph); node; node = node->next) {
    if (node->kind != BND_PLACEHOLDER) continue;
    const char *wanted = options->input_names && index < options->input_count ? options->input_names[index] : node->target;
    const char *name = bnd_onnx_value_name(exporter->builder, wanted);
    exporter->values[(size_t)node->id * BND_MAX_RESULTS] = name;
    bnd_onnx_add_input(exporter->builder, name, node->dtype, &node->shape[0]);
    index++;
  }
  return bnd_onnx_builder_status(exporter->builder, error);
}

/* Reserves the outputs' names. A value can take an output's name itself unless it is an input, a constant or an output already. */
static bnd_status declare_outputs(bnd_exporter *exporter, const bnd_onnx_export_options *options, const bnd_result *outputs, const char **names,
                                  int count, bnd_error *error) {
  for (int i = 0; i < count; i++) {
    const bnd_node *node = outputs[i].node;
    names[i] = bnd_onnx_value_name(exporter->builder, options->output_names && i < options->output_count ? options->output_names[i] : node->name);
    if (node->kind != BND_PLACEHOLDER && !exporter->wanted[slot(outputs[i])]) exporter->wanted[slot(outputs[i])] = names[i];
    bnd_onnx_add_output(exporter->builder, names[i], BND_F32, &node->shape[outputs[i].index]);
  }
  return bnd_onnx_builder_status(exporter->builder, error);
}

static bnd_status write_nodes(bnd_exporter *exporter, bnd_error *error) {
  for (const bnd_node *node = bnd_graph_first(exporter->graph); node; node = node->next) {
    if (!exporter->live[node->id] || (node->kind != BND_CALL_FUNCTION && node->kind != BND_CALL_MODULE)) continue;
    if (bnd_constants_get(&exporter->constants, node, 0) || bnd_export_origin(node).node != node) continue;
    BND_TRY(bnd_export_operator(exporter, node, error));
    BND_TRY(bnd_onnx_builder_status(exporter->builder, error));
  }
  return BND_OK;
}

/* Outputs that could not take their name: inputs, constants, and values put out twice. */
static bnd_status write_copies(bnd_exporter *exporter, const bnd_result *outputs, const char *const *names, int count, bnd_error *error) {
  bnd_onnx_builder *builder = exporter->builder;
  for (int i = 0; i < count; i++) {
    const char *value = bnd_export_value(exporter, outputs[i]);
    if (value == names[i] && !builder->failed) continue;
    if (!value && !builder->failed) return bnd_export_unsupported(outputs[i].node, "is an output but has no ONNX form", error);
    bnd_onnx_add_node(builder, "Identity", bnd_onnx_node_name(builder, bnd_onnx_format(builder, "%s/Identity", names[i])), &value, 1, &names[i], 1);
  }
  return bnd_onnx_builder_status(builder, error);
}

static bnd_status export_graph(bnd_exporter *exporter, const bnd_onnx_export_options *options, bnd_result *outputs, const char **names, int count,
                               const char *path, bnd_error *error) {
  mark_live(exporter, outputs, count);
  BND_TRY(bnd_constants_evaluate(exporter->graph, exporter->live, &exporter->constants, error));
  BND_TRY(declare_inputs(exporter, options, error));
  BND_TRY(declare_outputs(exporter, options, outputs, names, count, error));
  BND_TRY(write_nodes(exporter, error));
  BND_TRY(write_copies(exporter, outputs, names, count, error));
  if (options->dedicated_qdq) BND_TRY(bnd_export_dedicate_pairs(exporter->builder, error));
  for (int i = 0; i < options->metadata_count; i++) bnd_onnx_add_metadata(exporter->builder, options->metadata[i][0], options->metadata[i][1]);
  BND_TRY(bnd_onnx_builder_status(exporter->builder, error));
  return bnd_onnx_write(&exporter->builder->model, path, error);
}

bnd_status bnd_export_onnx(const bnd_graph *graph, const bnd_onnx_export_options *options, const char *path, bnd_error *error) {
  const bnd_onnx_export_options defaults = {0};
  if (!options) options = &defaults;
  const bnd_node *last = bnd_graph_last(graph);
  const int available = last && last->kind == BND_OUTPUT && last->arg_count == 1 ? flatten_outputs(&last->args[0], NULL, 0, 0) : 0;
  const int count = options->output_limit > 0 ? options->output_limit : available;
  if (count < 1 || count > available)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: the graph has %d outputs, %d were asked for", path, available, count);
  const size_t slots = (size_t)bnd_graph_id_limit(graph) * BND_MAX_RESULTS;
  bnd_exporter exporter = {.graph = graph,
                           .live = bnd_calloc((size_t)bnd_graph_id_limit(graph), sizeof(bool)),
                           .values = bnd_calloc(slots, sizeof(char *)),
                           .wanted = bnd_calloc(slots, sizeof(char *))};
  bnd_result *outputs = bnd_calloc((size_t)count, sizeof *outputs);
  const char **names = bnd_calloc((size_t)count, sizeof *names);
  bnd_status status = BND_OK;
  if (!exporter.live || !exporter.values || !exporter.wanted || !outputs || !names) status = bnd_fail_memory(error, "the ONNX graph");
  if (status == BND_OK) status = bnd_onnx_builder_create(options->graph_name ? options->graph_name : "main_graph", &exporter.builder, error);
  if (status == BND_OK) {
    flatten_outputs(&last->args[0], outputs, count, 0);
    status = export_graph(&exporter, options, outputs, names, count, path, error);
  }
  bnd_onnx_builder_destroy(exporter.builder);
  bnd_constants_free(&exporter.constants);
  for (size_t i = 0; i < exporter.folded_count; i++) bnd_tensor_release(&exporter.folded[i]);
  free(exporter.folded);
  free(exporter.live);
  free(exporter.values);
  free(exporter.wanted);
  free(outputs);
  free(names);
  return status;
}
