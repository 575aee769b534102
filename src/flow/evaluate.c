/* `binade eval`. */
#include "flow/evaluation.h"

bnd_status bnd_evaluate(const bnd_model *model, const bnd_evaluate_options *options, const bnd_context *context, bnd_evaluation *result, bnd_error *error) {
  *result = (bnd_evaluation){0};
  if (!options->data) return bnd_fail(error, BND_ERROR_ARGUMENT, "evaluation needs a data folder");
  bnd_dataset dataset;
  bnd_graph *graph = NULL;
  bnd_executor *executor = NULL;
  BND_TRY(bnd_dataset_open(model, options->data, options->split ? options->split : "val2017", options->size, options->images, true, &dataset, error));
  bnd_exec_options exec = {.threads = 1, .output_limit = 2, .non_negative_inputs = true};
  bnd_status status = bnd_model_detector(model, bnd_form_of(options->form, BND_YOLO_NAS_TRAIN), dataset.preprocessing.width, dataset.preprocessing.height,
                                         &graph, &exec.mode, error);
  exec.backend = bnd_backend_of(options->executor, exec.mode);
  if (status == BND_OK) status = bnd_executor_create(graph, &exec, &executor, error);
  bnd_graph_destroy(graph);
  if (status == BND_OK) status = bnd_evaluate_executor(executor, &dataset, "evaluation", context, result, error);
  bnd_executor_destroy(executor);
  bnd_dataset_close(&dataset);
  return status;
}
