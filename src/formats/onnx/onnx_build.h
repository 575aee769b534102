/* Putting an ONNX graph together: nodes, attributes, initializers and value types in the schema's own structures.
   The builder owns every structure and name; tensor data is borrowed and must live until the model was written.
   Memory shortage is remembered, so callers check bnd_onnx_builder_status once at the end; functions then return NULL or do nothing. */
#ifndef BND_FORMATS_ONNX_ONNX_BUILD_H
#define BND_FORMATS_ONNX_ONNX_BUILD_H

#include "base/memory.h"
#include "onnx.pb-c.h"
#include "tensor/tensor.h"

typedef struct bnd_onnx_builder {
  bnd_arena *arena;
  Onnx__ModelProto model;
  Onnx__GraphProto graph; /* its arrays are allocated with malloc; their capacities: */
  Onnx__OperatorSetIdProto opset, *opsets[1];
  size_t node_capacity, initializer_capacity, input_capacity, output_capacity, value_capacity, metadata_capacity;
  bnd_map node_names, value_names; /* names that are taken */
  bool failed;
} bnd_onnx_builder;

enum { BND_ONNX_OPSET = 17, BND_ONNX_IR_VERSION = 8 }; /* 8 is the version that came with operator set 17 */

/* `graph_name` is copied. */
bnd_status bnd_onnx_builder_create(const char *graph_name, bnd_onnx_builder **builder, bnd_error *error);
void bnd_onnx_builder_destroy(bnd_onnx_builder *builder); /* NULL is fine */
bnd_status bnd_onnx_builder_status(const bnd_onnx_builder *builder, bnd_error *error);

/* A free name: `base`, or base_1, base_2, ... Node names and value names are two name spaces. The result lives as long as the builder. */
const char *bnd_onnx_node_name(bnd_onnx_builder *builder, const char *base);
const char *bnd_onnx_value_name(bnd_onnx_builder *builder, const char *base);
/* Text built from a format, owned by the builder. */
#define bnd_onnx_format(builder, ...) bnd_onnx_keep(builder, bnd_arena_format((builder)->arena, __VA_ARGS__))
char *bnd_onnx_keep(bnd_onnx_builder *builder, char *text); /* notes a failed allocation */

/* Appends a node. Name and value names must come from the builder (or live as long); a missing optional input is "". */
Onnx__NodeProto *bnd_onnx_add_node(bnd_onnx_builder *builder, const char *op_type, const char *name, const char *const *inputs, size_t input_count,
                                   const char *const *outputs, size_t output_count);
/* At most BND_ONNX_ATTRIBUTES for a node. node may be NULL (after a failure). */
enum { BND_ONNX_ATTRIBUTES = 8 };
void bnd_onnx_set_int(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, int64_t value);
void bnd_onnx_set_float(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, float value);
void bnd_onnx_set_text(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, const char *value);
void bnd_onnx_set_ints(bnd_onnx_builder *builder, Onnx__NodeProto *node, const char *name, const int64_t *values, size_t count);

/* Appends an initializer whose data is borrowed from `tensor` (float32, int64, int32, int8 or uint8); returns its name, made from `base`. */
const char *bnd_onnx_add_initializer(bnd_onnx_builder *builder, const char *base, const bnd_tensor *tensor);
/* The same for small values, which are copied. */
const char *bnd_onnx_add_ints(bnd_onnx_builder *builder, const char *base, const int64_t *values, size_t count);
const char *bnd_onnx_add_scalar(bnd_onnx_builder *builder, const char *base, float value);
const char *bnd_onnx_add_data(bnd_onnx_builder *builder, const char *base, bnd_dtype dtype, const bnd_shape *shape, const void *data);

/* Declares name, element type and shape of an input, an output or a value between nodes. */
void bnd_onnx_add_input(bnd_onnx_builder *builder, const char *name, bnd_dtype dtype, const bnd_shape *shape);
void bnd_onnx_add_output(bnd_onnx_builder *builder, const char *name, bnd_dtype dtype, const bnd_shape *shape);
void bnd_onnx_add_value_info(bnd_onnx_builder *builder, const char *name, bnd_dtype dtype, const bnd_shape *shape);
/* Key and value in the model's metadata; both copied. */
void bnd_onnx_add_metadata(bnd_onnx_builder *builder, const char *key, const char *value);

#endif
