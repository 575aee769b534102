#include "formats/onnx/onnx_build.h"

#include <stdlib.h>
#include <string.h>

#include "binade/version.h"

bnd_status bnd_onnx_builder_create(const char *graph_name, bnd_onnx_builder **builder, bnd_error *error) {
  bnd_onnx_builder *fresh = bnd_calloc(1, sizeof *fresh);
  if (fresh) fresh->arena = bnd_arena_create();
  char *name = fresh && fresh->arena ? bnd_arena_copy(fresh->arena, graph_name) : NULL;
  if (!name) {
    bnd_onnx_builder_destroy(fresh);
    return bnd_fail_memory(error, "the ONNX graph");
  }
  onnx__model_proto__init(&fresh->model);
  onnx__graph_proto__init(&fresh->graph);
  onnx__operator_set_id_proto__init(&fresh->opset);
  fresh->opset.domain = "";
  fresh->opset.has_version = true;
  fresh->opset.version = BND_ONNX_OPSET;
  fresh->opsets[0] = &fresh->opset;
  fresh->graph.name = name;
  Onnx__ModelProto *model = &fresh->model;
  model->has_ir_version = true;
  model->ir_version = BND_ONNX_IR_VERSION;
  model->producer_name = "binade";
  model->producer_version = BND_VERSION_STRING;
  model->n_opset_import = 1;
  model->opset_import = fresh->opsets;
  model->graph = &fresh->graph;
  *builder = fresh;
  return BND_OK;
}

void bnd_onnx_builder_destroy(bnd_onnx_builder *builder) {
  if (!builder) return;
  free(builder->graph.node);
  free(builder->graph.initializer);
  free(builder->graph.input);
  free(builder->graph.output);
  free(builder->graph.value_info);
  free(builder->model.metadata_props);
  bnd_map_free(&builder->node_names);
  bnd_map_free(&builder->value_names);
  bnd_arena_destroy(builder->arena);
  free(builder);
}

bnd_status bnd_onnx_builder_status(const bnd_onnx_builder *builder, bnd_error *error) {
  return builder->failed ? bnd_fail_memory(error, "the ONNX graph") : BND_OK;
}

static void *arena_get(bnd_onnx_builder *builder, size_t count, size_t size) {
  void *memory = builder->failed ? NULL : bnd_arena_alloc(builder->arena, count, size);
  if (!memory) builder->failed = true;
  return memory;
}

char *bnd_onnx_keep(bnd_onnx_builder *builder, char *text) {
  if (!text) builder->failed = true;
  return text;
}

static const char *unique_name(bnd_onnx_builder *builder, bnd_map *taken, const char *base) {
  if (!base || builder->failed) return NULL;
  const char *name = bnd_onnx_format(builder, "%s", base);
  for (int next = 1; name && bnd_map_get(taken, name, NULL); next++) name = bnd_onnx_format(builder, "%s_%d", base, next);
  if (!name || !bnd_map_put(taken, name, 1)) builder->failed = true;
  return builder->failed ? NULL : name;
}

const char *bnd_onnx_node_name(bnd_onnx_builder *builder, const char *base) {
  return unique_name(builder, &builder->node_names, base);
}
const char *bnd_onnx_value_name(bnd_onnx_builder *builder, const char *base) {
  return unique_name(builder, &builder->value_names, base);
}

#define APPEND(builder, array, count, capacity, item)                              \
  do {                                                                             \
    if (!(builder)->failed && BND_GROW((array), (builder)->capacity, (count) + 1)) \
      (array)[(count)++] = (item);                                                 \
    else                                                                           \
      (builder)->failed = true;                                                    \
  } while (0)

/* Names are only read when a message is packed; the schema's structures just do not say so. */
static char **name_list(bnd_onnx_builder *builder, const char *const *names, size_t count) {
  char **list = arena_get(builder, count ? count : 1, sizeof *list);
  for (size_t i = 0; list && i < count; i++) {
    list[i] = (char *)names[i];
    if (!names[i]) builder->failed = true;
  }
  return list;
}

Onnx__NodeProto *bnd_onnx_add_node(bnd_onnx_builder *builder, const char *op_type, const char *name, const char *const *inputs, size_t input_count,
                                   const char *const *outputs, size_t output_count) {
  Onnx__NodeProto *node = arena_get(builder, 1, sizeof *node);
  if (!node) return NULL;
  onnx__node_proto__init(node);
  node->op_type = (char *)op_type;
  node->name = (char *)name;
  node->n_input = input_count;
  node->input = name_list(builder, inputs, input_count);
  node->n_output = output_count;
  node->output = name_list(builder, outputs, output_count);
  node->attribute = arena_get(builder, BND_ONNX_ATTRIBUTES, sizeof *node->attribute);
  APPEND(builder, builder->graph.node, builder->graph.n_node, node_capacity, node);
  return builder->failed ? NULL : node;
}

static Onnx__AttributeProto *add_attribute(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name,
                                           Onnx__AttributeProto__AttributeType type) {
  if (!node || builder->failed || node->n_attribute == BND_ONNX_ATTRIBUTES) {
    builder->failed = true;
    return NULL;
  }
  Onnx__AttributeProto *attribute = arena_get(builder, 1, sizeof *attribute);
  if (!attribute) return NULL;
  onnx__attribute_proto__init(attribute);
  attribute->name = (char *)name;
  attribute->has_type = true;
  attribute->type = type;
  return node->attribute[node->n_attribute++] = attribute;
}

void bnd_onnx_set_int(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, int64_t value) {
  Onnx__AttributeProto *attribute = add_attribute(builder, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
  if (!attribute) return;
  attribute->has_i = true;
  attribute->i = value;
}

void bnd_onnx_set_float(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, float value) {
  Onnx__AttributeProto *attribute = add_attribute(builder, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
  if (!attribute) return;
  attribute->has_f = true;
  attribute->f = value;
}

void bnd_onnx_set_text(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, const char *value) {
  Onnx__AttributeProto *attribute = add_attribute(builder, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
  char *copy = attribute ? bnd_onnx_format(builder, "%s", value) : NULL;
  if (!copy) return;
  attribute->has_s = true;
  attribute->s = (ProtobufCBinaryData){.len = strlen(copy), .data = (uint8_t *)copy};
}

void bnd_onnx_set_ints(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, const int64_t *values, size_t count) {
  Onnx__AttributeProto *attribute = add_attribute(builder, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
  int64_t *copy = attribute ? arena_get(builder, count ? count : 1, sizeof *copy) : NULL;
  if (!copy) return;
  for (size_t i = 0; i < count; i++) copy[i] = values[i];
  attribute->n_ints = count;
  attribute->ints = copy;
}

static int32_t element_type(bnd_dtype dtype) {
  switch (dtype) {
    case BND_F32:
      return ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    case BND_F64:
      return ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE;
    case BND_F16:
      return ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16;
    case BND_BF16:
      return ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16;
    case BND_I64:
      return ONNX__TENSOR_PROTO__DATA_TYPE__INT64;
    case BND_I32:
      return ONNX__TENSOR_PROTO__DATA_TYPE__INT32;
    case BND_I16:
      return ONNX__TENSOR_PROTO__DATA_TYPE__INT16;
    case BND_I8:
      return ONNX__TENSOR_PROTO__DATA_TYPE__INT8;
    case BND_U8:
      return ONNX__TENSOR_PROTO__DATA_TYPE__UINT8;
    case BND_BOOL:
      return ONNX__TENSOR_PROTO__DATA_TYPE__BOOL;
  }
  return ONNX__TENSOR_PROTO__DATA_TYPE__UNDEFINED;
}

const char *bnd_onnx_add_initializer(bnd_onnx_builder *builder, const char *base, const bnd_tensor *tensor) {
  Onnx__TensorProto *proto = arena_get(builder, 1, sizeof *proto);
  const char *name = bnd_onnx_value_name(builder, base);
  int64_t *dims = arena_get(builder, BND_MAX_RANK, sizeof *dims);
  if (!proto || !name || !dims) return NULL;
  onnx__tensor_proto__init(proto);
  for (int i = 0; i < tensor->shape.rank; i++) dims[i] = tensor->shape.size[i];
  proto->n_dims = (size_t)tensor->shape.rank;
  proto->dims = dims;
  proto->has_data_type = true;
  proto->data_type = element_type(tensor->dtype);
  proto->name = (char *)name;
  proto->has_raw_data = true;
  proto->raw_data = (ProtobufCBinaryData){.len = tensor->count * bnd_dtype_size(tensor->dtype), .data = tensor->data};
  APPEND(builder, builder->graph.initializer, builder->graph.n_initializer, initializer_capacity, proto);
  return builder->failed ? NULL : name;
}

const char *bnd_onnx_add_data(bnd_onnx_builder *builder, const char *base, bnd_dtype dtype, const bnd_shape *shape, const void *data) {
  bnd_tensor tensor = {.dtype = dtype, .shape = *shape};
  if (!bnd_shape_count(shape, &tensor.count)) return NULL;
  tensor.data = arena_get(builder, tensor.count ? tensor.count : 1, bnd_dtype_size(dtype));
  if (!tensor.data) return NULL;
  memcpy(tensor.data, data, tensor.count * bnd_dtype_size(dtype));
  return bnd_onnx_add_initializer(builder, base, &tensor);
}

const char *bnd_onnx_add_ints(bnd_onnx_builder *builder, const char *base, const int64_t *values, size_t count) {
  return bnd_onnx_add_data(builder, base, BND_I64, &BND_SHAPE((int64_t)count), values);
}

const char *bnd_onnx_add_scalar(bnd_onnx_builder *builder, const char *base, float value) {
  return bnd_onnx_add_data(builder, base, BND_F32, &(bnd_shape){0}, &value);
}

static Onnx__ValueInfoProto *value_info(bnd_onnx_builder *builder, const char *name, bnd_dtype dtype, const bnd_shape *shape) {
  struct parts {
    Onnx__ValueInfoProto info;
    Onnx__TypeProto type;
    Onnx__TypeProto__Tensor tensor;
    Onnx__TensorShapeProto shape;
    Onnx__TensorShapeProto__Dimension sizes[BND_MAX_RANK], *list[BND_MAX_RANK];
  } *parts = arena_get(builder, 1, sizeof *parts);
  if (!parts || !name) {
    builder->failed = true;
    return NULL;
  }
  onnx__value_info_proto__init(&parts->info);
  onnx__type_proto__init(&parts->type);
  onnx__type_proto__tensor__init(&parts->tensor);
  onnx__tensor_shape_proto__init(&parts->shape);
  for (int i = 0; i < shape->rank; i++) {
    onnx__tensor_shape_proto__dimension__init(&parts->sizes[i]);
    parts->sizes[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    parts->sizes[i].dim_value = shape->size[i];
    parts->list[i] = &parts->sizes[i];
  }
  parts->shape.n_dim = (size_t)shape->rank;
  parts->shape.dim = parts->list;
  parts->tensor.has_elem_type = true;
  parts->tensor.elem_type = element_type(dtype);
  parts->tensor.shape = &parts->shape;
  parts->type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
  parts->type.tensor_type = &parts->tensor;
  parts->info.name = (char *)name;
  parts->info.type = &parts->type;
  return &parts->info;
}

void bnd_onnx_add_input(bnd_onnx_builder *builder, const char *name, bnd_dtype dtype, const bnd_shape *shape) {
  Onnx__ValueInfoProto *info = value_info(builder, name, dtype, shape);
  APPEND(builder, builder->graph.input, builder->graph.n_input, input_capacity, info);
}

void bnd_onnx_add_output(bnd_onnx_builder *builder, const char *name, bnd_dtype dtype, const bnd_shape *shape) {
  Onnx__ValueInfoProto *info = value_info(builder, name, dtype, shape);
  APPEND(builder, builder->graph.output, builder->graph.n_output, output_capacity, info);
}

void bnd_onnx_add_value_info(bnd_onnx_builder *builder, const char *name, bnd_dtype dtype, const bnd_shape *shape) {
  Onnx__ValueInfoProto *info = value_info(builder, name, dtype, shape);
  APPEND(builder, builder->graph.value_info, builder->graph.n_value_info, value_capacity, info);
}

void bnd_onnx_add_metadata(bnd_onnx_builder *builder, const char *key, const char *value) {
  Onnx__StringStringEntryProto *entry = arena_get(builder, 1, sizeof *entry);
  if (!entry) return;
  onnx__string_string_entry_proto__init(entry);
  entry->key = bnd_onnx_format(builder, "%s", key);
  entry->value = bnd_onnx_format(builder, "%s", value);
  APPEND(builder, builder->model.metadata_props, builder->model.n_metadata_props, metadata_capacity, entry);
}
