#include "import/onnx_import.h"

#include <stdlib.h>
#include <string.h>

#include "formats/onnx/onnx_file.h"
#include "import/importer.h"

enum { OLDEST_OPSET = 7, NEWEST_OPSET = 25 };

/* Names end up in messages and listings: no control characters. */
static void clean(char *text) {
  for (unsigned char *at = (unsigned char *)text; at && *at; at++)
    if (*at < 0x20 || *at == 0x7f) *at = '?';
}

static void clean_names(Onnx__GraphProto *graph) {
  for (size_t i = 0; i < graph->n_node; i++) {
    Onnx__NodeProto *node = graph->node[i];
    clean(node->name);
    clean(node->op_type);
    clean(node->domain);
    clean(node->doc_string);
    for (size_t k = 0; k < node->n_input; k++) clean(node->input[k]);
    for (size_t k = 0; k < node->n_output; k++) clean(node->output[k]);
  }
  for (size_t i = 0; i < graph->n_initializer; i++) clean(graph->initializer[i]->name);
  for (size_t i = 0; i < graph->n_input; i++) clean(graph->input[i]->name);
  for (size_t i = 0; i < graph->n_output; i++) clean(graph->output[i]->name);
}

/* Who reads what; later steps ask how many readers a value has. */
static bnd_status count_readers(bnd_importer *importer, bnd_error *error) {
  const Onnx__GraphProto *graph = importer->proto;
  for (size_t i = 0; i < graph->n_node; i++)
    for (size_t k = 0; !importer->done[i] && k < graph->node[i]->n_input; k++) {
      const char *name = graph->node[i]->input[k];
      if (!bnd_map_get(&importer->first_reader, name, NULL) && !bnd_map_put(&importer->first_reader, name, i))
        return bnd_fail_memory(error, "the file");
      if (!bnd_map_put(&importer->readers, name, (size_t)bnd_import_readers(importer, name) + 1)) return bnd_fail_memory(error, "the file");
    }
  for (size_t i = 0; i < graph->n_output; i++) {
    const char *name = bnd_import_text(graph->output[i]->name);
    if (!bnd_map_put(&importer->readers, name, (size_t)bnd_import_readers(importer, name) + 1)) return bnd_fail_memory(error, "the file");
  }
  return BND_OK;
}

static bnd_status read_initializers(bnd_importer *importer, bnd_error *error) {
  for (size_t i = 0; i < importer->proto->n_initializer; i++) {
    Onnx__TensorProto *proto = importer->proto->initializer[i];
    bnd_import_value *value;
    BND_TRY(bnd_import_add(importer, proto->name, BND_IMPORT_CONSTANT, &value, error));
    BND_TRY(bnd_import_tensor(proto, &value->tensor, error));
    free(proto->raw_data.data); /* the copy is enough: large files need their weights once only */
    proto->raw_data = (ProtobufCBinaryData){0};
    proto->has_raw_data = false;
  }
  if (importer->proto->n_sparse_initializer) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "has sparse tensors, which are not supported");
  return BND_OK;
}

/* Type and shape of a declared input or output; sizes that are not fixed become `otherwise` (-1 = unknown). False = no float32 tensor. */
static bool declared_shape(const Onnx__ValueInfoProto *info, bnd_shape *shape) {
  const Onnx__TypeProto *type = info->type;
  if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || !type->tensor_type->has_elem_type) return false;
  if (type->tensor_type->elem_type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT) return false;
  const Onnx__TensorShapeProto *sizes = type->tensor_type->shape;
  *shape = (bnd_shape){.rank = sizes && sizes->n_dim <= BND_MAX_RANK ? (int)sizes->n_dim : -1};
  for (int i = 0; i < shape->rank; i++)
    shape->size[i] = sizes->dim[i]->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ? sizes->dim[i]->dim_value : -1;
  return true;
}

static bnd_status read_inputs(bnd_importer *importer, bnd_error *error) {
  for (size_t i = 0; i < importer->proto->n_input; i++) {
    const Onnx__ValueInfoProto *info = importer->proto->input[i];
    const char *name = bnd_import_text(info->name);
    if (bnd_map_get(&importer->names, name, NULL)) continue; /* older files list their initializers as inputs too */
    bnd_shape shape;
    if (!declared_shape(info, &shape) || shape.rank < 0)
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "input %s: must be a float32 tensor of known rank up to %d", name, BND_MAX_RANK);
    if (shape.rank > 0 && shape.size[0] < 1) shape.size[0] = 1; /* a batch of any size: one */
    for (int d = 0; d < shape.rank; d++)
      if (shape.size[d] < 1 || shape.size[d] > (1 << 24))
        return bnd_fail(error, BND_ERROR_UNSUPPORTED, "input %s: dimension %d has no usable fixed size; export the model with static shapes", name,
                        d);
    bnd_node *node = bnd_graph_placeholder(importer->graph, name, &shape);
    if (!node) return bnd_graph_status(importer->graph, error);
    BND_TRY(bnd_import_add_node(importer, name, node, error));
  }
  return BND_OK;
}

static bnd_status read_node(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_error *error) {
  const char *domain = bnd_import_text(proto->domain), *op_type = bnd_import_text(proto->op_type);
  if (*domain && strcmp(domain, "ai.onnx") != 0)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "operators of the domain %s are not known here; export with standard operators only", domain);
  if (proto->n_output < 1 || !*proto->output[0]) return bnd_fail(error, BND_ERROR_FORMAT, "has no output");
  size_t inputs = 0;
  bnd_import_rule *rule = bnd_import_rule_of(op_type, &inputs);
  if (!rule) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "this operator cannot be read; simplifying the model (onnxsim) often removes such nodes");
  if (proto->n_input > inputs)
    return bnd_fail(error, BND_ERROR_FORMAT, "has %zu inputs, but takes at most %zu; the file is damaged", proto->n_input, inputs);
  return rule(importer, proto, error);
}

static bnd_status read_nodes(bnd_importer *importer, bnd_error *error) {
  const Onnx__GraphProto *graph = importer->proto;
  for (size_t i = 0; i < graph->n_node; i++) {
    const Onnx__NodeProto *node = graph->node[i];
    if (importer->done[i]) continue;
    const bnd_status status = read_node(importer, node, error);
    if (status == BND_OK) continue;
    const char *name = bnd_import_text(node->name);
    if (!*name && node->n_output) name = node->output[0];
    return bnd_fail_prefix(error, status, "node %s (%s)", name, bnd_import_text(node->op_type));
  }
  return BND_OK;
}

static bnd_status check_output(const Onnx__ValueInfoProto *info, const bnd_node *node, bnd_error *error) {
  bnd_shape declared;
  char text[2][BND_SHAPE_TEXT];
  if (!declared_shape(info, &declared) || declared.rank < 0) return BND_OK;
  bool fits = declared.rank == node->shape[0].rank;
  for (int i = 0; fits && i < declared.rank; i++) fits = declared.size[i] < 0 || declared.size[i] == node->shape[0].size[i];
  if (fits) return BND_OK;
  for (int i = 0; i < declared.rank; i++)
    if (declared.size[i] < 0) return BND_OK; /* sizes left open may contradict the batch of one */
  return bnd_fail(error, BND_ERROR_FORMAT, "output %s: declared as %s, but the nodes compute %s", info->name, bnd_shape_text(&declared, text[0]),
                  bnd_shape_text(&node->shape[0], text[1]));
}

static bnd_status read_outputs(bnd_importer *importer, bnd_error *error) {
  const Onnx__GraphProto *graph = importer->proto;
  if (graph->n_output < 1 || graph->n_output > 4096) return bnd_fail(error, BND_ERROR_FORMAT, "has %zu outputs; a network needs at least one, and 4096 are the most", graph->n_output);
  bnd_node **nodes = bnd_arena_alloc(importer->arena, graph->n_output, sizeof *nodes);
  if (!nodes) return bnd_fail_memory(error, "the outputs");
  for (size_t i = 0; i < graph->n_output; i++) {
    const char *name = bnd_import_text(graph->output[i]->name);
    size_t at;
    if (!bnd_map_get(&importer->names, name, &at)) return bnd_fail(error, BND_ERROR_FORMAT, "output %s: no node computes it", name);
    BND_TRY(bnd_import_node_of(importer, importer->values[at], &nodes[i], error));
    BND_TRY(check_output(graph->output[i], nodes[i], error));
  }
  bnd_graph_output(importer->graph, bnd_graph_node_list(importer->graph, nodes, (int)graph->n_output));
  bnd_graph_eliminate_dead_code(importer->graph);
  return bnd_graph_status(importer->graph, error);
}

static bnd_status read_opset(bnd_importer *importer, const Onnx__ModelProto *model, bnd_error *error) {
  for (size_t i = 0; i < model->n_opset_import; i++) {
    const char *domain = bnd_import_text(model->opset_import[i]->domain);
    if (!*domain || strcmp(domain, "ai.onnx") == 0) importer->opset = model->opset_import[i]->version;
  }
  if (importer->opset < OLDEST_OPSET || importer->opset > NEWEST_OPSET)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "uses operator set %lld, known are %d to %d; convert it (onnx.version_converter) or export it anew",
                    (long long)importer->opset, OLDEST_OPSET, NEWEST_OPSET);
  return BND_OK;
}

static bnd_status read_model(bnd_importer *importer, const Onnx__ModelProto *model, bnd_error *error) {
  if (!model->graph) return bnd_fail(error, BND_ERROR_FORMAT, "holds no graph; this is no ONNX model");
  BND_TRY(read_opset(importer, model, error));
  importer->proto = model->graph;
  clean_names(model->graph);
  importer->done = bnd_arena_alloc(importer->arena, model->graph->n_node + 1, sizeof *importer->done);
  if (!importer->done) return bnd_fail_memory(error, "the file");
  BND_TRY(bnd_import_merge_pairs(importer, error));
  BND_TRY(count_readers(importer, error));
  BND_TRY(read_initializers(importer, error));
  BND_TRY(read_inputs(importer, error));
  BND_TRY(read_nodes(importer, error));
  BND_TRY(read_outputs(importer, error));
  BND_TRY(bnd_infer_shapes(importer->graph, error));
  return bnd_graph_verify(importer->graph, error);
}

bnd_status bnd_import_onnx(const char *path, const bnd_onnx_import_options *options, bnd_graph **graph, bnd_error *error) {
  const bnd_onnx_import_options defaults = {0};
  bnd_importer importer = {.options = options ? options : &defaults, .arena = bnd_arena_create()};
  Onnx__ModelProto *model = NULL;
  bnd_status status = importer.arena ? bnd_onnx_read(path, &model, error) : bnd_fail_memory(error, path);
  if (status == BND_OK) {
    status = bnd_graph_create(&importer.graph, error);
    if (status == BND_OK) status = read_model(&importer, model, error);
    if (status == BND_OK && importer.options->findings && importer.options->findings->failed) status = bnd_fail_memory(error, "the findings");
    if (status != BND_OK) bnd_fail_prefix(error, status, "%s", path);
    for (size_t i = 0; status == BND_OK && importer.options->metadata && i < model->n_metadata_props; i++)
      if (model->metadata_props[i]->key && model->metadata_props[i]->value)
        importer.options->metadata(importer.options->user, model->metadata_props[i]->key, model->metadata_props[i]->value);
  }
  for (size_t i = 0; i < importer.value_count; i++) {
    bnd_tensor_release(&importer.values[i]->tensor);
    bnd_quantizer_destroy(importer.values[i]->quantizer);
  }
  free(importer.values);
  bnd_map_free(&importer.names);
  bnd_map_free(&importer.readers);
  bnd_map_free(&importer.first_reader);
  bnd_arena_destroy(importer.arena);
  bnd_onnx_free(model);
  if (status == BND_OK)
    *graph = importer.graph;
  else
    bnd_graph_destroy(importer.graph);
  return status;
}
