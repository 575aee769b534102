/* run_onnx MODEL.onnx INPUTS OUTPUTS [THREADS]: runs an ONNX file with the library's fake-quantized executor. INPUTS: raw float32 images one after the
   other, each of the size of the model's input; OUTPUTS: for each image all outputs in order, raw float32. A tool of the comparisons with onnxruntime. */
#include <stdio.h>
#include <stdlib.h>

#include "exec/exec.h"
#include "import/onnx_import.h"

static int fail(const bnd_error *error) {
  fprintf(stderr, "run_onnx: %s\n", error->message);
  return 1;
}

int main(int argc, char **argv) {
  bnd_error error = {0};
  bnd_graph *graph;
  bnd_executor *executor;
  bnd_session *session;
  if (argc < 4) return 2;
  if (bnd_import_onnx(argv[1], NULL, &graph, &error) != BND_OK) return fail(&error);
  const bnd_exec_options options = {.mode = BND_EXEC_FAKE_QUANTIZE, .threads = argc > 4 ? atoi(argv[4]) : 1};
  if (bnd_executor_create(graph, &options, &executor, &error) != BND_OK) return fail(&error);
  if (bnd_session_create(executor, &session, &error) != BND_OK) return fail(&error);
  size_t input_size = 0;
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (node->kind == BND_PLACEHOLDER) bnd_shape_count(&node->shape[0], &input_size);
  float *input = malloc(input_size * sizeof *input);
  FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
  if (!input || !in || !out) return 1;
  while (fread(input, sizeof *input, input_size, in) == input_size) {
    const float *const inputs[] = {input};
    if (bnd_session_run(session, inputs, NULL, NULL, &error) != BND_OK) return fail(&error);
    for (int i = 0; i < bnd_executor_output_count(executor); i++) {
      size_t count = 0;
      bnd_shape_count(bnd_executor_output_shape(executor, i), &count);
      fwrite(bnd_session_output(session, i), sizeof(float), count, out);
    }
  }
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  bnd_graph_destroy(graph);
  free(input);
  fclose(in);
  return fclose(out) != 0;
}
