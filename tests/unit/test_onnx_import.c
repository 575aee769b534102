#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "export/onnx_export.h"
#include "formats/onnx/onnx_file.h"
#include "import/onnx_import.h"
#include "onnx_graphs.h"

static void check(bnd_status status, const bnd_error *error) {
  if (status != BND_OK) fail_msg("%s", error->message);
}

static bnd_graph *import(const char *path) {
  bnd_graph *graph = NULL;
  bnd_error error;
  check(bnd_import_onnx(path, NULL, &graph, &error), &error);
  return graph;
}

static void same_file(const char *a, const char *b) {
  char *data[2];
  size_t size[2];
  assert_int_equal(bnd_file_read(a, 1 << 24, &data[0], &size[0], NULL), BND_OK);
  assert_int_equal(bnd_file_read(b, 1 << 24, &data[1], &size[1], NULL), BND_OK);
  assert_int_equal(size[0], size[1]);
  assert_memory_equal(data[0], data[1], size[0]);
  free(data[0]);
  free(data[1]);
}

static void export(const bnd_graph *graph, const bnd_onnx_export_options *options, const char *path) {
  bnd_error error;
  check(bnd_export_onnx(graph, options, path, &error), &error);
}

/* Both compute the same numbers, up to `tolerance` (0 = to the last bit). */
static void same_values(const bnd_graph *a, const bnd_graph *b, int output_limit, float tolerance) {
  size_t count[2];
  float *outputs[] = {outputs_of(a, output_limit, NULL, &count[0]), outputs_of(b, output_limit, NULL, &count[1])};
  assert_int_equal(count[0], count[1]);
  for (size_t i = 0; i < count[0]; i++)
    if (!(fabsf(outputs[0][i] - outputs[1][i]) <= tolerance)) fail_msg("value %zu: %.9g against %.9g", i, outputs[0][i], outputs[1][i]);
  free(outputs[0]);
  free(outputs[1]);
}

static int count_kind(const bnd_graph *graph, bnd_operator_id id) {
  int count = 0;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) count += bnd_functional_id(node) == id;
  return count;
}

/* What comes back is what was written: the same nodes with the same names, and, written again, a file that differs in nothing but what
   the first writing evaluated. */
static void quantized_graph_comes_back(void **state) {
  (void)state;
  const char *const inputs[] = {"images"}, *const outputs[] = {"boxes", "scores"};
  const bnd_onnx_export_options options = {.input_names = inputs, .input_count = 1, .output_names = outputs, .output_count = 2, .output_limit = 2};
  bnd_graph *first = quantized_graph();
  export(first, &options, "test_onnx_first.onnx");
  bnd_graph *second = import("test_onnx_first.onnx");
  same_values(first, second, 2, 0);
  assert_int_equal(count_kind(second, BND_OP_FAKE_QUANTIZE), 23);
  assert_int_equal(count_kind(second, BND_OP_CONV2D), 2);
  assert_int_equal(count_kind(second, BND_OP_CONV2D_MODULE), 2);
  assert_int_equal(count_kind(second, BND_OP_CONV_TRANSPOSE2D_MODULE), 1);
  assert_int_equal(count_kind(second, BND_OP_AVG_POOL2D_MODULE), 1);
  const bnd_node *conv = bnd_graph_find(second, "conv2d_module");
  assert_non_null(conv);
  assert_string_equal(conv->scope, "block.conv2");
  assert_int_equal(conv->module->weight_quantizer->channels, 4);
  assert_int_equal(conv->module->weight_quantizer->spec.channel_axis, 0);
  assert_int_equal(conv->module->weight_quantizer->position[1], 7);
  assert_int_equal(conv->module->bias_quantizer->zero_point[0], -128);
  for (const bnd_node *node = bnd_graph_first(first); node; node = node->next) {
    const bnd_node *same = node->kind == BND_CALL_MODULE ? bnd_graph_find(second, node->name) : NULL;
    if (!same) continue;
    char text[2][BND_SHAPE_TEXT];
    assert_string_equal(bnd_shape_text(&node->shape[0], text[0]), bnd_shape_text(&same->shape[0], text[1]));
    if (node->module->quantizer) assert_int_equal(node->module->quantizer->position[0], same->module->quantizer->position[0]);
  }
  const bnd_node *scaled = bnd_graph_find(second, "mul_2");
  assert_true(scaled && scaled->args[1].kind == BND_ARG_FLOAT && scaled->args[1].number == 1.0001220703125);

  export(second, &(bnd_onnx_export_options){.output_names = outputs, .output_count = 2}, "test_onnx_second.onnx");
  bnd_graph *third = import("test_onnx_second.onnx");
  export(third, &(bnd_onnx_export_options){.output_names = outputs, .output_count = 2}, "test_onnx_third.onnx");
  same_file("test_onnx_second.onnx", "test_onnx_third.onnx");
  bnd_graph_destroy(first);
  bnd_graph_destroy(second);
  bnd_graph_destroy(third);
}

/* The file with a pair for each consumer means the same graph. */
static void dedicated_pairs_come_back_as_one(void **state) {
  (void)state;
  bnd_graph *graph = quantized_graph();
  for (int dedicated = 0; dedicated < 2; dedicated++) {
    const char *path = dedicated ? "test_onnx_pairs.onnx" : "test_onnx_pair.onnx";
    export(graph, &(bnd_onnx_export_options){.output_limit = 2, .dedicated_qdq = dedicated}, path);
    bnd_graph *back = import(path);
    export(back, NULL, path);
    bnd_graph_destroy(back);
  }
  same_file("test_onnx_pair.onnx", "test_onnx_pairs.onnx");
  bnd_graph_destroy(graph);
}

static void every_operator_comes_back(void **state) {
  (void)state;
  bnd_graph *first = operator_graph();
  export(first, NULL, "test_onnx_operators_first.onnx");
  bnd_graph *second = import("test_onnx_operators_first.onnx");
  same_values(first, second, 0, 1e-6f); /* silu comes back as sigmoid and mul */
  const bnd_operator_id kinds[] = {BND_OP_CONV2D,
                                   BND_OP_CONV_TRANSPOSE2D,
                                   BND_OP_LINEAR,
                                   BND_OP_BATCH_NORM,
                                   BND_OP_LAYER_NORM,
                                   BND_OP_HARDSWISH,
                                   BND_OP_LEAKY_RELU,
                                   BND_OP_GELU,
                                   BND_OP_SOFTMAX,
                                   BND_OP_AVG_POOL2D,
                                   BND_OP_MEAN,
                                   BND_OP_SUM,
                                   BND_OP_SLICE,
                                   BND_OP_SELECT,
                                   BND_OP_SPLIT_WITH_SIZES,
                                   BND_OP_UNSQUEEZE,
                                   BND_OP_PIXEL_SHUFFLE,
                                   BND_OP_SUB,
                                   BND_OP_DIV,
                                   BND_OP_RELU};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    const int expected = count_kind(first, kinds[i]) + (kinds[i] == BND_OP_UNSQUEEZE    ? 2
                                                        : kinds[i] == BND_OP_AVG_POOL2D ? 1
                                                                                        : 0); /* stack; adaptive pool */
    assert_int_equal(count_kind(second, kinds[i]), expected);
  }
  export(second, NULL, "test_onnx_operators_second.onnx");
  bnd_graph *third = import("test_onnx_operators_second.onnx");
  export(third, NULL, "test_onnx_operators_third.onnx");
  same_file("test_onnx_operators_second.onnx", "test_onnx_operators_third.onnx");
  bnd_graph_destroy(first);
  bnd_graph_destroy(second);
  bnd_graph_destroy(third);
}

/* --- single faults, made in the messages of a good file --- */

static Onnx__ModelProto *good_model(void) {
  bnd_graph *graph = quantized_graph();
  Onnx__ModelProto *model;
  export(graph, &(bnd_onnx_export_options){.output_limit = 2}, "test_onnx_good.onnx");
  assert_int_equal(bnd_onnx_read("test_onnx_good.onnx", &model, NULL), BND_OK);
  bnd_graph_destroy(graph);
  return model;
}

static Onnx__NodeProto *find(Onnx__ModelProto *model, const char *op_type) {
  for (size_t i = 0; i < model->graph->n_node; i++)
    if (strcmp(model->graph->node[i]->op_type, op_type) == 0) return model->graph->node[i];
  fail();
  return NULL;
}

static Onnx__TensorProto *find_tensor(Onnx__ModelProto *model, const char *name) {
  for (size_t i = 0; i < model->graph->n_initializer; i++)
    if (strcmp(model->graph->initializer[i]->name, name) == 0) return model->graph->initializer[i];
  fail();
  return NULL;
}

static void rename_text(char **text, const char *value) {
  free(*text);
  *text = strdup(value);
}

static void fault_dangling(Onnx__ModelProto *m) {
  rename_text(&find(m, "Relu")->input[0], "nowhere");
}
static void fault_cycle(Onnx__ModelProto *m) {
  rename_text(&find(m, "Relu")->input[0], find(m, "MaxPool")->output[0]);
}
static void fault_duplicate(Onnx__ModelProto *m) {
  rename_text(&find(m, "Relu")->output[0], find(m, "Conv")->output[0]);
}
static void fault_operator(Onnx__ModelProto *m) {
  rename_text(&find(m, "Relu")->op_type, "Einsum");
}
static void fault_domain(Onnx__ModelProto *m) {
  rename_text(&find(m, "Relu")->domain, "com.example");
}
static void fault_opset(Onnx__ModelProto *m) {
  m->opset_import[0]->version = 99;
}
static void fault_dims(Onnx__ModelProto *m) {
  find_tensor(m, "block.conv.weight")->dims[0] = INT64_MAX;
}
static void fault_negative(Onnx__ModelProto *m) {
  find_tensor(m, "block.conv.weight")->dims[0] = -4;
}
static void fault_short(Onnx__ModelProto *m) {
  find_tensor(m, "block.conv.weight")->raw_data.len -= 4;
}
static void fault_bias(Onnx__ModelProto *m) {
  Onnx__TensorProto *bias = find_tensor(m, "block.conv.bias");
  bias->dims[0] = 3;
  bias->raw_data.len = 12;
}
static void fault_scale(Onnx__ModelProto *m) {
  memcpy(find_tensor(m, "block.conv/weight/scale")->raw_data.data, &(float){0.015f}, 4);
}
static void fault_inputs(Onnx__ModelProto *m) { /* a fourth input for an operator of three */
  Onnx__NodeProto *conv = find(m, "Conv");
  conv->input = realloc(conv->input, 4 * sizeof *conv->input);
  assert_non_null(conv->input);
  while (conv->n_input < 4) conv->input[conv->n_input++] = strdup(conv->input[1]);
}
static void fault_nan(Onnx__ModelProto *m) {
  memcpy(find_tensor(m, "block.conv/weight/scale")->raw_data.data, &(uint32_t){0x7fc00000}, 4);
}
static void fault_external(Onnx__ModelProto *m) {
  find_tensor(m, "block.conv.weight")->has_data_location = true;
  find_tensor(m, "block.conv.weight")->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}
static void fault_group(Onnx__ModelProto *m) {
  Onnx__NodeProto *conv = find(m, "Conv");
  for (size_t i = 0; i < conv->n_attribute; i++)
    if (strcmp(conv->attribute[i]->name, "group") == 0) conv->attribute[i]->i = 0;
}
static void fault_stride(Onnx__ModelProto *m) {
  Onnx__NodeProto *pool = find(m, "MaxPool");
  for (size_t i = 0; i < pool->n_attribute; i++)
    if (strcmp(pool->attribute[i]->name, "strides") == 0) pool->attribute[i]->ints[0] = 0;
}
static void fault_axis(Onnx__ModelProto *m) {
  for (size_t i = 0; i < m->graph->n_node; i++)
    if (strcmp(m->graph->node[i]->op_type, "Concat") == 0) m->graph->node[i]->attribute[0]->i = 77;
}
static void fault_output(Onnx__ModelProto *m) {
  rename_text(&m->graph->output[0]->name, "nothing");
}
static void fault_shape(Onnx__ModelProto *m) {
  m->graph->output[0]->type->tensor_type->shape->dim[1]->dim_value = 5;
}
static void fault_input(Onnx__ModelProto *m) {
  m->graph->input[0]->type->tensor_type->shape->dim[2]->dim_value = -1;
}
static void fault_type(Onnx__ModelProto *m) {
  find_tensor(m, "block.conv.weight")->data_type = 14;
}
static void fault_zero_point(Onnx__ModelProto *m) {
  rename_text(&find(m, "DequantizeLinear")->input[2], "block.conv2/weight/zero_point");
}
static void fault_channels(Onnx__ModelProto *m) {
  Onnx__TensorProto *tensors[] = {find_tensor(m, "block.conv2/weight/scale"), find_tensor(m, "block.conv2/weight/zero_point")};
  for (int i = 0; i < 2; i++) {
    tensors[i]->dims[0] = 3;
    tensors[i]->raw_data.len = i == 0 ? 12 : 3;
  }
}

static void single_faults_are_named(void **state) {
  (void)state;
  const struct {
    void (*make)(Onnx__ModelProto *model);
    const char *says;
  } faults[] = {
      {fault_dangling, "reads nowhere"},   {fault_cycle, "out of order"},
      {fault_duplicate, "defined twice"},  {fault_operator, "(Einsum)"},
      {fault_domain, "com.example"},       {fault_opset, "operator set 99"},
      {fault_dims, "block.conv.weight"},   {fault_negative, "block.conv.weight"},
      {fault_short, "block.conv.weight"},  {fault_bias, "bias"},
      {fault_scale, "not a power of two"}, {fault_nan, "no scale"},
      {fault_external, "in another file"}, {fault_group, "groups"},
      {fault_stride, "strides"},           {fault_axis, "Concat"},
      {fault_output, "output nothing"},    {fault_shape, "declared as"},
      {fault_input, "static shapes"},      {fault_type, "element type 14"},
      {fault_zero_point, "zero points"},   {fault_channels, "3 scales"},
      {fault_inputs, "at most 3"},
  };
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    Onnx__ModelProto *model = good_model();
    bnd_graph *graph;
    bnd_error error = {0};
    faults[i].make(model);
    assert_int_equal(bnd_onnx_write(model, "test_onnx_fault.onnx", NULL), BND_OK);
    const bnd_status status = bnd_import_onnx("test_onnx_fault.onnx", NULL, &graph, &error);
    if (status == BND_OK || !strstr(error.message, faults[i].says) || strncmp(error.message, "test_onnx_fault.onnx: ", 22) != 0)
      fail_msg("fault %zu: status %d, %s", i, status, error.message);
    bnd_onnx_free(model);
  }
}

static void odd_scales_are_reported_when_asked(void **state) {
  (void)state;
  Onnx__ModelProto *model = good_model();
  fault_scale(model);
  *find_tensor(model, "block.conv/weight/zero_point")->raw_data.data = 5;
  assert_int_equal(bnd_onnx_write(model, "test_onnx_fault.onnx", NULL), BND_OK);
  bnd_string findings = {0};
  bnd_graph *graph;
  bnd_error error;
  check(bnd_import_onnx("test_onnx_fault.onnx", &(bnd_onnx_import_options){.findings = &findings}, &graph, &error), &error);
  assert_string_equal(findings.text, "block.conv/weight/QuantizeLinear: scale 0.0149999997 is not a power of two\n"
                      "block.conv/weight/QuantizeLinear: zero point 5 is not in the middle of the codes\n"
                      "block.conv2/bias/QuantizeLinear: zero point -128 is not in the middle of the codes\n"); /* its values are not all zero */
  bnd_string_free(&findings);
  bnd_graph_destroy(graph);
  bnd_onnx_free(model);
}

/* Weights stored as int8 behind a DequantizeLinear alone, as other tools write them. */
static void stored_codes_become_weights(void **state) {
  (void)state;
  Onnx__ModelProto *model = good_model();
  Onnx__TensorProto *weight = find_tensor(model, "block.conv.weight");
  const size_t count = weight->raw_data.len / 4;
  for (size_t i = 0; i < count; i++) weight->raw_data.data[i] = (uint8_t)(i * 7);
  weight->raw_data.len = count;
  weight->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__INT8;
  for (size_t i = 0; i < model->graph->n_node; i++)
    if (strcmp(model->graph->node[i]->name, "block.conv/weight/DequantizeLinear") == 0)
      rename_text(&model->graph->node[i]->input[0], "block.conv.weight");
  size_t kept = 0;
  for (size_t i = 0; i < model->graph->n_node; i++) {
    if (strcmp(model->graph->node[i]->name, "block.conv/weight/QuantizeLinear") == 0)
      protobuf_c_message_free_unpacked(&model->graph->node[i]->base, NULL);
    else
      model->graph->node[kept++] = model->graph->node[i];
  }
  model->graph->n_node = kept;
  assert_int_equal(bnd_onnx_write(model, "test_onnx_codes.onnx", NULL), BND_OK);
  bnd_graph *graph = import("test_onnx_codes.onnx");
  const bnd_module *module = bnd_graph_find(graph, "conv2d_bn_module")->module;
  assert_int_equal(module->weight_quantizer->position[0], 6);
  for (size_t i = 0; i < count; i++) assert_true(bnd_f32(&module->weight)[i] == (float)(int8_t)(uint8_t)(i * 7) / 64);
  bnd_graph_destroy(graph);
  bnd_onnx_free(model);
}

/* --- damage of any kind: never a crash, always a message --- */

static void attempt(const char *data, size_t size) {
  bnd_graph *graph;
  bnd_error error = {0};
  FILE *file = fopen("test_onnx_damaged.onnx", "wb"); /* not the library's writer, which waits for the disk */
  assert_true(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
  if (bnd_import_onnx("test_onnx_damaged.onnx", NULL, &graph, &error) == BND_OK)
    bnd_graph_destroy(graph);
  else
    assert_non_null(strstr(error.message, "test_onnx_damaged.onnx"));
}

static void damaged_files_are_survived(void **state) {
  (void)state;
  bnd_onnx_free(good_model());
  char *data;
  size_t size;
  assert_int_equal(bnd_file_read("test_onnx_good.onnx", 1 << 20, &data, &size, NULL), BND_OK);
  for (size_t length = 0; length < size; length += 97) attempt(data, length);
  unsigned seed = 1;
  for (int round = 0; round < 600; round++) {
    char *copy = malloc(size);
    memcpy(copy, data, size);
    for (int k = 0; k <= round % 4; k++) {
      seed = seed * 1664525u + 1013904223u;
      copy[(seed >> 8) % size] ^= (char)(1u << (seed >> 4) % 8);
    }
    attempt(copy, size);
    free(copy);
  }
  free(data);
}

static void deep_nesting_and_bombs_are_refused(void **state) {
  (void)state;
  /* graph (7) { node (1) { attribute (5) { g (6) { node ... built from the inside out, lengths and all. */
  const unsigned char tags[] = {1 << 3 | 2, 5 << 3 | 2, 6 << 3 | 2};
  size_t capacity = 4 << 20, start = capacity;
  char *data = malloc(capacity);
  for (int level = 0; level < 300000; level++) {
    size_t length = capacity - start;
    unsigned char head[11];
    size_t used = 0;
    head[used++] = level == 299999 ? 7 << 3 | 2 : tags[(299998 - level) % 3];
    for (; length >= 0x80; length >>= 7) head[used++] = (unsigned char)(length | 0x80);
    head[used++] = (unsigned char)length;
    start -= used;
    memcpy(data + start, head, used);
  }
  bnd_graph *graph;
  bnd_error error;
  assert_int_equal(bnd_file_write("test_onnx_damaged.onnx", data + start, capacity - start, NULL), BND_OK);
  assert_int_equal(bnd_import_onnx("test_onnx_damaged.onnx", NULL, &graph, &error), BND_ERROR_FORMAT);
  assert_non_null(strstr(error.message, "nested too deeply"));

  /* 2 million empty initializers of 2 bytes: structures of 600 MB */
  const size_t count = 2000000;
  const unsigned char head[] = {7 << 3 | 2, 0x80 | (4000000 & 0x7f), 0x80 | ((4000000 >> 7) & 0x7f), 0x80 | ((4000000 >> 14) & 0x7f), 4000000 >> 21};
  memcpy(data, head, sizeof head);
  for (size_t i = 0; i < count && sizeof head + 2 * i + 2 <= capacity; i++) memcpy(data + sizeof head + 2 * i, "\x2a\0", 2);
  assert_int_equal(bnd_file_write("test_onnx_damaged.onnx", data, sizeof head + 2 * count, NULL), BND_OK);
  assert_int_equal(bnd_import_onnx("test_onnx_damaged.onnx", NULL, &graph, &error), BND_ERROR_FORMAT);
  free(data);
  unlink("test_onnx_damaged.onnx");
}

/* --- Quark's own export --- */

static void golden_model_is_read_with_its_exponents(void **state) {
  (void)state;
  const char *path = SHARED_DIR "/golden/pico/quark_model.onnx";
  if (access(path, R_OK) != 0) skip();
  bnd_graph *graph = import(path);
  FILE *table = fopen(SHARED_DIR "/golden/pico/exponents.tsv", "r");
  assert_non_null(table);
  char line[1024], name[256], kind[32], observed[256], full[512];
  int calibrated, frozen, found = 0;
  assert_non_null(fgets(line, sizeof line, table));
  while (fgets(line, sizeof line, table)) {
    if (sscanf(line, "%255s %31s %255s %d %d", name, kind, observed, &calibrated, &frozen) != 5) continue;
    const bnd_quantizer *quantizer = NULL;
    char *dot = strrchr(name, '.');
    if (dot) *dot = '\0';
    snprintf(full, sizeof full, dot ? "original_model_%s_Conv" : "%s", name);
    if (dot && strncmp(name, "conv_transpose", 14) == 0) snprintf(full, sizeof full, "original_model_%s_ConvTranspose", name);
    const bnd_node *node = bnd_graph_find(graph, full);
    if (!node) continue; /* feeds only the outputs that are not in the file */
    assert_non_null(node->module);
    quantizer = !dot ? node->module->quantizer : strcmp(dot + 1, "weight") == 0 ? node->module->weight_quantizer : node->module->bias_quantizer;
    assert_non_null(quantizer);
    if (quantizer->position[0] != frozen) fail_msg("%s: %d instead of %d", name, quantizer->position[0], frozen);
    found++;
  }
  fclose(table);
  assert_int_equal(found, 408);
  export(graph, NULL, "test_onnx_golden.onnx"); /* compared with the original by tests/peers/onnx_structure.py */
  bnd_graph_destroy(graph);
}

/* Floats behind the header of a .npy file of version 1. */
static void read_npy(const char *path, float **numbers, size_t *count, char **memory) {
  size_t size;
  assert_int_equal(bnd_file_read(path, 1 << 26, memory, &size, NULL), BND_OK);
  const size_t header = 10 + (unsigned char)(*memory)[8] + ((size_t)(unsigned char)(*memory)[9] << 8);
  *numbers = (float *)(*memory + header);
  *count = (size - header) / sizeof(float);
}

/* Run here, Quark's file gives what onnxruntime computed from it: at most 1e-4 of the values differ, by one quantum (8 pixels; 2^-7). */
static void golden_model_computes_what_onnxruntime_computes(void **state) {
  (void)state;
  const char *path = SHARED_DIR "/golden/pico/quark_model.onnx";
  if (access(path, R_OK) != 0) skip();
  const char *const names[] = {"ort_boxes.npy", "ort_scores.npy"};
  const float quantum[] = {8, 0x1p-7f};
  char text[512], *memory[2];
  float *input, *expected;
  size_t count;
  bnd_graph *graph = import(path);
  const bnd_exec_options options = {.mode = BND_EXEC_FAKE_QUANTIZE, .backend = BND_BACKEND_ONEDNN, .threads = 1};
  bnd_executor *executor;
  bnd_session *session;
  bnd_error error;
  check(bnd_executor_create(graph, &options, &executor, &error), &error);
  check(bnd_session_create(executor, &session, &error), &error);
  snprintf(text, sizeof text, "%s/golden/pico/input.npy", SHARED_DIR);
  read_npy(text, &input, &count, &memory[0]);
  check(bnd_session_run(session, (const float *const[]){input}, NULL, NULL, &error), &error);
  for (int k = 0; k < 2; k++) {
    snprintf(text, sizeof text, "%s/golden/pico/%s", SHARED_DIR, names[k]);
    read_npy(text, &expected, &count, &memory[1]);
    const float *found = bnd_session_output(session, k);
    size_t different = 0;
    for (size_t i = 0; i < count; i++) {
      different += found[i] != expected[i];
      if (found[i] > expected[i] + quantum[k] || found[i] < expected[i] - quantum[k])
        fail_msg("%s: %g instead of %g", names[k], found[i], expected[i]);
    }
    if (different > count / 10000) fail_msg("%s: %zu of %zu differ", names[k], different, count);
    free(memory[1]);
  }
  free(memory[0]);
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  bnd_graph_destroy(graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(quantized_graph_comes_back),
      cmocka_unit_test(dedicated_pairs_come_back_as_one),
      cmocka_unit_test(every_operator_comes_back),
      cmocka_unit_test(single_faults_are_named),
      cmocka_unit_test(odd_scales_are_reported_when_asked),
      cmocka_unit_test(stored_codes_become_weights),
      cmocka_unit_test(damaged_files_are_survived),
      cmocka_unit_test(deep_nesting_and_bombs_are_refused),
      cmocka_unit_test(golden_model_is_read_with_its_exponents),
      cmocka_unit_test(golden_model_computes_what_onnxruntime_computes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
