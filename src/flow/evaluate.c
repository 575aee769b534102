/* `binade eval`. */
#include "flow/evaluation.h"

/* What runs and what it runs on; nothing of it needs the model any more. */
typedef struct evaluation {
  bnd_dataset dataset;
  bnd_executor *executor;
} evaluation;

static bnd_status prepare(const bnd_model *model, const bnd_evaluate_options *options, evaluation *e, bnd_error *error) {
  *e = (evaluation){0};
  if (!options->data) return bnd_fail(error, BND_ERROR_ARGUMENT, "evaluation needs a data folder");
  BND_TRY(bnd_dataset_open(model, options->data, options->split ? options->split : "val2017", options->size, options->images, true, &e->dataset, error));
  bnd_graph *graph = NULL;
  bnd_exec_options exec = {.threads = 1, .output_limit = 2, .non_negative_inputs = true};
  bnd_status status = bnd_model_detector(model, bnd_form_of(options->form, BND_YOLO_NAS_TRAIN), e->dataset.preprocessing.width,
                                         e->dataset.preprocessing.height, &graph, &exec.mode, error);
  exec.backend = bnd_backend_of(options->executor, exec.mode);
  if (status == BND_OK) status = bnd_executor_create(graph, &exec, &e->executor, error);
  bnd_graph_destroy(graph);
  if (status != BND_OK) bnd_dataset_close(&e->dataset);
  return status;
}

static bnd_status run(evaluation *e, const bnd_context *context, bnd_evaluation *result, bnd_error *error) {
  const bnd_status status = bnd_evaluate_executor(e->executor, &e->dataset, "evaluation", context, result, error);
  bnd_executor_destroy(e->executor);
  bnd_dataset_close(&e->dataset);
  return status;
}

bnd_status bnd_evaluate(const bnd_model *model, const bnd_evaluate_options *options, const bnd_context *context, bnd_evaluation *result, bnd_error *error) {
  evaluation e;
  *result = (bnd_evaluation){0};
  BND_TRY(prepare(model, options, &e, error));
  return run(&e, context, result, error);
}

bnd_status bnd_evaluate_file(const char *path, const bnd_evaluate_options *options, const bnd_context *context, bnd_evaluation *result, bnd_error *error) {
  bnd_model *model;
  evaluation e;
  *result = (bnd_evaluation){0};
  BND_TRY(bnd_model_open(path, &model, error));
  const bnd_status status = prepare(model, options, &e, error);
  bnd_model_close(model);
  if (status != BND_OK) return status;
  bnd_return_free_memory();
  return run(&e, context, result, error);
}
