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
#include "onnx_graphs.h"

static const char *const OUTPUTS[] = {"boxes", "scores"};
static const char *const INPUTS[] = {"images"};
static const bnd_onnx_export_options OPTIONS = {
    .input_names = INPUTS, .input_count = 1, .output_names = OUTPUTS, .output_count = 2, .output_limit = 2};

static void check(bnd_status status, const bnd_error *error) {
  if (status != BND_OK) fail_msg("%s", error->message);
}

/* The files stay in the build folder: tests/peers/onnx_check.py looks at them with onnx and onnxruntime. */
static Onnx__ModelProto *written(bnd_graph *graph, const bnd_onnx_export_options *options, const char *path) {
  bnd_error error;
  Onnx__ModelProto *model;
  check(bnd_export_onnx(graph, options, path, &error), &error);
  check(bnd_onnx_read(path, &model, &error), &error);
  return model;
}

/* Beside a file: inputs and what the graph computes from them, for the same script to compare with onnxruntime. */
static void write_values(const bnd_graph *graph, int output_limit, const char *path) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  size_t count;
  float *outputs = outputs_of(graph, output_limit, file, &count);
  assert_int_equal(fwrite(outputs, sizeof(float), count, file), count);
  assert_int_equal(fclose(file), 0);
  free(outputs);
}

static int count(const Onnx__ModelProto *model, const char *op_type) {
  int found = 0;
  for (size_t i = 0; i < model->graph->n_node; i++) found += strcmp(model->graph->node[i]->op_type, op_type) == 0;
  return found;
}

static const Onnx__NodeProto *node_named(const Onnx__ModelProto *model, const char *name) {
  for (size_t i = 0; i < model->graph->n_node; i++)
    if (strcmp(model->graph->node[i]->name, name) == 0) return model->graph->node[i];
  fail_msg("no node %s", name);
  return NULL;
}

static const Onnx__TensorProto *initializer(const Onnx__ModelProto *model, const char *name) {
  for (size_t i = 0; i < model->graph->n_initializer; i++)
    if (strcmp(model->graph->initializer[i]->name, name) == 0) return model->graph->initializer[i];
  fail_msg("no initializer %s", name);
  return NULL;
}

static void quantizers_become_pairs_of_known_scale(void **state) {
  (void)state;
  bnd_graph *graph = quantized_graph();
  Onnx__ModelProto *model = written(graph, &OPTIONS, "test_onnx_quantized.onnx");
  write_values(graph, 2, "test_onnx_quantized.onnx.values");
  assert_string_equal(model->producer_name, "binade");
  assert_int_equal(model->ir_version, 8);
  assert_int_equal(model->opset_import[0]->version, 17);
  assert_string_equal(model->graph->input[0]->name, "images");
  assert_int_equal(model->graph->n_output, 2);
  assert_string_equal(model->graph->output[1]->name, "scores");
  /* 23 fake quantizers reach the two outputs, 3 modules have a weight and a bias quantizer; what only feeds other outputs is gone. */
  assert_int_equal(count(model, "QuantizeLinear"), 23 + 6);
  assert_int_equal(count(model, "DequantizeLinear"), 23 + 6);
  assert_int_equal(count(model, "GlobalAveragePool"), 0);
  assert_int_equal(count(model, "Identity"), 0);
  assert_int_equal(count(model, "Conv"), 4);

  const Onnx__NodeProto *conv = node_named(model, "block.conv/Conv");
  assert_int_equal(conv->n_input, 3);
  assert_string_equal(conv->input[1], node_named(model, "block.conv/weight/DequantizeLinear")->output[0]);
  assert_string_equal(conv->doc_string, "conv2d_bn_module");
  const Onnx__NodeProto *weight = node_named(model, "block.conv/weight/QuantizeLinear");
  assert_string_equal(weight->input[0], "block.conv.weight");
  const Onnx__TensorProto *scale = initializer(model, weight->input[1]), *zero = initializer(model, weight->input[2]);
  assert_int_equal(scale->n_dims, 0);
  assert_memory_equal(scale->raw_data.data, &(float){0x1p-6f}, 4);
  assert_int_equal(zero->data_type, ONNX__TENSOR_PROTO__DATA_TYPE__INT8);
  assert_int_equal(zero->raw_data.data[0], 0);
  assert_int_equal(initializer(model, "block.conv2/bias/zero_point")->raw_data.data[0], 0x80);

  const Onnx__NodeProto *channels = node_named(model, "block.conv2/weight/DequantizeLinear");
  assert_int_equal(channels->n_attribute, 1);
  assert_string_equal(channels->attribute[0]->name, "axis");
  assert_memory_equal(initializer(model, channels->input[1])->raw_data.data, ((const float[]){0x1p-6f, 0x1p-7f, 0x1p-6f, 0x1p-7f}), 16);

  /* Constants of the graph are numbers in the file: anchors x, y of the first cells. */
  bool found = false;
  for (size_t i = 0; i < model->graph->n_initializer; i++) {
    const Onnx__TensorProto *tensor = model->graph->initializer[i];
    if (tensor->n_dims != 2 || tensor->dims[0] != 16 || tensor->dims[1] != 2) continue;
    found = true;
    assert_memory_equal(tensor->raw_data.data, ((const float[]){0.5f, 0.5f, 1.5f, 0.5f, 2.5f, 0.5f, 3.5f, 0.5f, 0.5f, 1.5f}), 40);
  }
  assert_true(found);
  bnd_onnx_free(model);
  bnd_graph_destroy(graph);
}

static void dedicated_pairs_have_one_reader_each(void **state) {
  (void)state;
  bnd_graph *graph = quantized_graph();
  bnd_onnx_export_options options = OPTIONS;
  options.dedicated_qdq = true;
  Onnx__ModelProto *model = written(graph, &options, "test_onnx_dedicated.onnx");
  write_values(graph, 2, "test_onnx_dedicated.onnx.values");
  for (size_t i = 0; i < model->graph->n_node; i++) {
    const Onnx__NodeProto *pair = model->graph->node[i];
    if (strcmp(pair->op_type, "DequantizeLinear") != 0) continue;
    int readers = 0;
    for (size_t k = 0; k < model->graph->n_output; k++) readers += strcmp(model->graph->output[k]->name, pair->output[0]) == 0;
    for (size_t n = 0; n < model->graph->n_node; n++)
      for (size_t k = 0; k < model->graph->node[n]->n_input; k++) readers += strcmp(model->graph->node[n]->input[k], pair->output[0]) == 0;
    assert_int_equal(readers, 1);
  }
  const Onnx__NodeProto *copy = node_named(model, "heads.proj_conv/fake_quantizer_1/DequantizeLinear_sp_1");
  assert_string_equal(copy->input[0], "heads.proj_conv/fake_quantizer_1/QuantizeLinear_output_0_sp_1");
  bnd_onnx_free(model);
  bnd_graph_destroy(graph);
}

static void every_operator_has_a_form(void **state) {
  (void)state;
  bnd_graph *graph = operator_graph();
  Onnx__ModelProto *model = written(graph, NULL, "test_onnx_operators.onnx");
  write_values(graph, 0, "test_onnx_operators.onnx.values");
  assert_int_equal(model->graph->n_output, 40);
  bnd_onnx_free(model);
  bnd_graph_destroy(graph);
}

static void same_graph_gives_same_bytes(void **state) {
  (void)state;
  char *data[2];
  size_t size[2];
  for (int i = 0; i < 2; i++) {
    bnd_graph *graph = quantized_graph();
    bnd_onnx_free(written(graph, &OPTIONS, "test_onnx_repeated.onnx"));
    assert_int_equal(bnd_file_read("test_onnx_repeated.onnx", 1 << 20, &data[i], &size[i], NULL), BND_OK);
    bnd_graph_destroy(graph);
  }
  assert_int_equal(size[0], size[1]);
  assert_memory_equal(data[0], data[1], size[0]);
  free(data[0]);
  free(data[1]);
  unlink("test_onnx_repeated.onnx");
}

static void outputs_may_be_inputs_constants_and_repeated(void **state) {
  (void)state;
  bnd_graph *g = new_graph();
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 2)), *c = CALL(g, FULL, INTS(g, 1, 2), F(3)), *y = CALL(g, RELU, N(x));
  bnd_graph_output(g, NODES(g, x, c, y, y));
  assert_int_equal(bnd_infer_shapes(g, NULL), BND_OK);
  Onnx__ModelProto *model = written(g, NULL, "test_onnx_outputs.onnx");
  assert_int_equal(count(model, "Identity"), 3);
  assert_int_equal(count(model, "Relu"), 1);
  bnd_onnx_free(model);
  bnd_graph_destroy(g);
}

static void what_has_no_form_is_named_and_leaves_no_file(void **state) {
  (void)state;
  bnd_graph *g = new_graph();
  bnd_node *x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 4, 5, 5));
  bnd_node *odd = CALL(g, ADAPTIVE_AVG_POOL2D, N(x), INTS(g, 3, 3));
  bnd_graph_output(g, N(odd));
  assert_int_equal(bnd_infer_shapes(g, NULL), BND_OK);
  bnd_error error;
  unlink("test_onnx_none.onnx");
  assert_int_equal(bnd_export_onnx(g, NULL, "test_onnx_none.onnx", &error), BND_ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.message, "adaptive_avg_pool2d"));
  assert_int_not_equal(access("test_onnx_none.onnx", F_OK), 0);
  const bnd_onnx_export_options options = {.output_limit = 2};
  assert_int_equal(bnd_export_onnx(g, &options, "test_onnx_none.onnx", &error), BND_ERROR_ARGUMENT);
  bnd_graph_destroy(g);

  g = new_graph();
  x = bnd_graph_placeholder(g, "x", &BND_SHAPE(1, 4));
  bnd_node *q = quantize(g, x, 3);
  q->module->quantizer->channels = 0; /* never observed */
  bnd_graph_output(g, N(q));
  assert_int_equal(bnd_infer_shapes(g, NULL), BND_OK);
  assert_int_equal(bnd_export_onnx(g, NULL, "test_onnx_none.onnx", &error), BND_ERROR_MODEL);
  assert_non_null(strstr(error.message, "calibrated"));
  bnd_graph_destroy(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(quantizers_become_pairs_of_known_scale),
      cmocka_unit_test(dedicated_pairs_have_one_reader_each),
      cmocka_unit_test(every_operator_has_a_form),
      cmocka_unit_test(same_graph_gives_same_bytes),
      cmocka_unit_test(outputs_may_be_inputs_constants_and_repeated),
      cmocka_unit_test(what_has_no_form_is_named_and_leaves_no_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
