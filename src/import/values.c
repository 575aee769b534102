/* Values, attributes and names of the file on their way into the graph. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/importer.h"

/* --- values --- */

const char *bnd_import_kept(bnd_importer *importer, const char *text) {
  const char *kept = bnd_arena_copy(bnd_graph_arena(importer->graph), text);
  if (!kept) bnd_graph_out_of_memory(importer->graph);
  return kept;
}

bnd_status bnd_import_add(bnd_importer *importer, const char *name, bnd_import_kind kind, bnd_import_value **value, bnd_error *error) {
  if (!name || !*name) return bnd_fail(error, BND_ERROR_FORMAT, "a value has no name");
  if (bnd_map_get(&importer->names, name, NULL)) return bnd_fail(error, BND_ERROR_FORMAT, "the value %s is defined twice", name);
  bnd_import_value *fresh = bnd_arena_alloc(importer->arena, 1, sizeof *fresh);
  if (!fresh || !BND_GROW(importer->values, importer->value_capacity, importer->value_count + 1) ||
      !bnd_map_put(&importer->names, name, importer->value_count))
    return bnd_fail_memory(error, "the values of the file");
  fresh->kind = kind;
  fresh->name = name;
  importer->values[importer->value_count++] = fresh;
  if (value) *value = fresh;
  return BND_OK;
}

bnd_status bnd_import_add_node(bnd_importer *importer, const char *name, bnd_node *node, bnd_error *error) {
  bnd_import_value *value = NULL;
  BND_TRY(bnd_import_add(importer, name, BND_IMPORT_NODE, &value, error));
  value->node = node;
  node->tensor = bnd_import_kept(importer, name);
  return bnd_graph_status(importer->graph, error);
}

bnd_status bnd_import_input(const bnd_importer *importer, const Onnx__NodeProto *proto, size_t index, bool optional, bnd_import_value **value,
                            bnd_error *error) {
  *value = NULL;
  if (index >= proto->n_input || !*proto->input[index]) return optional ? BND_OK : bnd_fail(error, BND_ERROR_FORMAT, "input %zu is missing", index);
  size_t at;
  if (!bnd_map_get(&importer->names, proto->input[index], &at))
    return bnd_fail(error, BND_ERROR_FORMAT,
                    "reads %s, which nothing before it defines; the nodes are out of order, form a circle, or one is missing", proto->input[index]);
  *value = importer->values[at];
  return BND_OK;
}

static bnd_status constant_node(bnd_importer *importer, bnd_import_value *value, bnd_node **node, bnd_error *error) {
  if (value->source) return bnd_import_node_of(importer, value->source, node, error);
  bnd_tensor tensor;
  switch (value->tensor.dtype) {
    case BND_F32:
      tensor = bnd_tensor_share(&value->tensor, NULL);
      break;
    case BND_F64:
    case BND_F16:
    case BND_BF16:
      BND_TRY(bnd_tensor_to_f32(&value->tensor, &tensor, error));
      break;
    default:
      return bnd_fail(error, BND_ERROR_UNSUPPORTED, "the constant %s is of type %s; only floating-point values can be computed with here",
                      value->name, bnd_dtype_name(value->tensor.dtype));
  }
  BND_TRY(bnd_graph_set_attribute(importer->graph, value->name, &tensor, true, error));
  *node = bnd_graph_get_attr(importer->graph, value->name, value->name);
  return bnd_graph_status(importer->graph, error);
}

bnd_status bnd_import_node_of(bnd_importer *importer, bnd_import_value *value, bnd_node **node, bnd_error *error) {
  if (value->kind == BND_IMPORT_CODES)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "reads the quantized value %s without a DequantizeLinear; only models in QDQ form can be read",
                    value->name);
  if (!value->node) {
    bnd_node *made = NULL;
    BND_TRY(constant_node(importer, value, &made, error));
    if (value->quantizer) {
      bnd_module *module = bnd_graph_add_module(importer->graph, bnd_import_name(importer, value->maker));
      if (module) {
        module->quantizer = bnd_quantizer_copy(value->quantizer);
        module->integers = bnd_import_kept(importer, value->maker->input[0]);
      }
      if (!module || !module->quantizer) return bnd_fail_memory(error, "a quantizer");
      BND_TRY(bnd_import_call(importer, value->maker, BND_OP_FAKE_QUANTIZE, module, (const bnd_arg[]){bnd_arg_of_node(made)}, 1, &made, error));
      made->tensor = bnd_import_kept(importer, value->name);
    }
    value->node = made;
  }
  *node = value->node;
  return BND_OK;
}

bnd_status bnd_import_input_node(bnd_importer *importer, const Onnx__NodeProto *proto, size_t index, bnd_node **node, bnd_error *error) {
  bnd_import_value *value;
  BND_TRY(bnd_import_input(importer, proto, index, false, &value, error));
  return bnd_import_node_of(importer, value, node, error);
}

int bnd_import_readers(const bnd_importer *importer, const char *name) {
  size_t count = 0;
  bnd_map_get(&importer->readers, name, &count);
  return (int)count;
}

bool bnd_import_is_scalar(const bnd_import_value *value, double *number) {
  if (!value || value->kind != BND_IMPORT_CONSTANT || value->quantizer || value->tensor.dtype != BND_F32 || value->tensor.shape.rank != 0)
    return false;
  *number = bnd_f32(&value->tensor)[0];
  return isfinite(*number);
}

bnd_status bnd_import_ints(const bnd_import_value *value, const char *what, int64_t *numbers, int limit, int *count, bnd_error *error) {
  if (value->kind != BND_IMPORT_CONSTANT || value->quantizer || (value->tensor.dtype != BND_I64 && value->tensor.dtype != BND_I32))
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "its %s (%s) is computed by the model; simplify it first, for example with onnxsim", what,
                    value->name);
  if (value->tensor.shape.rank > 1 || value->tensor.count > (size_t)limit)
    return bnd_fail(error, BND_ERROR_FORMAT, "its %s (%s) has %zu values, at most %d make sense", what, value->name, value->tensor.count, limit);
  *count = (int)value->tensor.count;
  for (int i = 0; i < *count; i++)
    numbers[i] = value->tensor.dtype == BND_I64 ? ((const int64_t *)value->tensor.data)[i] : ((const int32_t *)value->tensor.data)[i];
  return BND_OK;
}

/* --- attributes --- */

const Onnx__AttributeProto *bnd_import_attribute(const Onnx__NodeProto *proto, const char *name) {
  for (size_t i = 0; i < proto->n_attribute; i++)
    if (proto->attribute[i]->name && strcmp(proto->attribute[i]->name, name) == 0) return proto->attribute[i];
  return NULL;
}

int64_t bnd_import_int(const Onnx__NodeProto *proto, const char *name, int64_t otherwise) {
  const Onnx__AttributeProto *attribute = bnd_import_attribute(proto, name);
  return attribute && attribute->has_i ? attribute->i : otherwise;
}

/* ONNX keeps float32 where torch has double. The shortest decimal that means the same float32 is the number somebody wrote: 0.001, not
 * 0.0010000000475. */
static double shortest(float value) {
  char text[32];
  for (int digits = 1; digits < 9; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtof(text, NULL) == value) return strtod(text, NULL);
  }
  return value;
}

double bnd_import_float(const Onnx__NodeProto *proto, const char *name, double otherwise) {
  const Onnx__AttributeProto *attribute = bnd_import_attribute(proto, name);
  return attribute && attribute->has_f ? shortest(attribute->f) : otherwise;
}

bool bnd_import_text_is(const Onnx__NodeProto *proto, const char *name, const char *value, bool otherwise) {
  const Onnx__AttributeProto *attribute = bnd_import_attribute(proto, name);
  if (!attribute || !attribute->has_s) return otherwise;
  return attribute->s.len == strlen(value) && memcmp(attribute->s.data, value, attribute->s.len) == 0;
}

int bnd_import_int_list(const Onnx__NodeProto *proto, const char *name, int64_t *numbers, int limit) {
  const Onnx__AttributeProto *attribute = bnd_import_attribute(proto, name);
  if (!attribute) return 0;
  if (attribute->n_ints > (size_t)limit) return -1;
  for (size_t i = 0; i < attribute->n_ints; i++) numbers[i] = attribute->ints[i];
  return (int)attribute->n_ints;
}

bnd_status bnd_import_axes(const bnd_importer *importer, const Onnx__NodeProto *proto, const char *name, size_t index, int64_t axes[BND_MAX_RANK],
                           int *count, bnd_error *error) {
  *count = bnd_import_int_list(proto, name, axes, BND_MAX_RANK);
  if (*count < 0) return bnd_fail(error, BND_ERROR_FORMAT, "attribute %s has more than %d numbers", name, BND_MAX_RANK);
  bnd_import_value *value;
  BND_TRY(bnd_import_input(importer, proto, index, true, &value, error));
  return value ? bnd_import_ints(value, name, axes, BND_MAX_RANK, count, error) : BND_OK;
}

/* --- names --- */

/* "/a/b/DequantizeLinear" -> start and length of the path without its last `components`. */
static size_t path_without(const char *name, int components) {
  size_t length = strlen(name);
  for (int i = 0; i < components; i++) {
    while (length > 0 && name[length - 1] != '/') length--;
    if (length > 0) length--;
  }
  return length;
}

static const char *without_slash(const char *name) {
  return *name == '/' ? name + 1 : name;
}

const char *bnd_import_name(bnd_importer *importer, const Onnx__NodeProto *proto) {
  const char *noted = bnd_import_text(proto->doc_string);
  if (*noted && strlen(noted) < 256 && !strchr(noted, '\n')) return noted;
  const char *name = without_slash(bnd_import_text(proto->name));
  if (!*name) return proto->op_type;
  if (strcmp(proto->op_type, "DequantizeLinear") != 0) return name;
  const size_t end = path_without(name, 1), start = path_without(name, 2); /* "scope/fake_quantizer_5/DequantizeLinear" */
  if (end == 0) return name;
  const char *last = name + (start ? start + 1 : 0);
  return bnd_arena_format(importer->arena, "%.*s", (int)(name + end - last), last);
}

const char *bnd_import_scope(bnd_importer *importer, const Onnx__NodeProto *proto, const char *name) {
  const char *path = without_slash(bnd_import_text(proto->name));
  const size_t length = path_without(path, strcmp(proto->op_type, "DequantizeLinear") == 0 ? 2 : 1);
  char *scope = bnd_arena_format(bnd_graph_arena(importer->graph), "%.*s", (int)length, path);
  for (char *at = scope; at && *at; at++)
    if (*at == '/') *at = '.';
  return scope && *scope && strcmp(scope, name) != 0 ? scope : NULL;
}

/* --- nodes --- */

bnd_status bnd_import_call(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_operator_id id, bnd_module *module, const bnd_arg *args,
                           int count, bnd_node **node, bnd_error *error) {
  const char *name = bnd_import_name(importer, proto);
  if (!name) return bnd_fail_memory(error, "the graph");
  bnd_node *made = bnd_graph_add(importer->graph, module ? BND_CALL_MODULE : BND_CALL_FUNCTION, bnd_operator_of(id), name,
                                 module ? module->name : NULL, args, count);
  BND_TRY(bnd_graph_status(importer->graph, error));
  made->module = module;
  made->scope = bnd_import_scope(importer, proto, name);
  *node = made;
  return bnd_infer_node_shape(made, error);
}

bnd_status bnd_import_result(bnd_importer *importer, const Onnx__NodeProto *proto, bnd_operator_id id, const bnd_arg *args, int count,
                             bnd_error *error) {
  bnd_node *node = NULL;
  BND_TRY(bnd_import_call(importer, proto, id, NULL, args, count, &node, error));
  return bnd_import_add_node(importer, proto->output[0], node, error);
}
