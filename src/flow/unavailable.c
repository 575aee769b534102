/* Stands in for the public functions until the flow is there; goes away with it. */
#include <stdlib.h>

#include "base/status.h"
#include "binade/binade.h"

#define UNAVAILABLE(name, ...) \
  bnd_status name(__VA_ARGS__, bnd_error *error) { return bnd_fail(error, BND_ERROR_UNSUPPORTED, #name " is not there yet"); }
#pragma GCC diagnostic ignored "-Wunused-parameter"

void bnd_free(void *memory) { free(memory); }
void bnd_model_close(bnd_model *model) {}
void bnd_evaluation_free(bnd_evaluation *result) {}
UNAVAILABLE(bnd_model_open, const char *path, bnd_model **model)
UNAVAILABLE(bnd_model_describe, const bnd_model *model, bool json, char **text)
UNAVAILABLE(bnd_model_print, const bnd_model *model, const bnd_print_options *options, char **text)
UNAVAILABLE(bnd_model_convert, const bnd_model *model, const bnd_convert_options *options, const char *path)
UNAVAILABLE(bnd_check, const bnd_model *model, const char *target, bool json, char **text, int *violations)
UNAVAILABLE(bnd_evaluate, const bnd_model *model, const bnd_evaluate_options *options, const bnd_context *context, bnd_evaluation *result)
UNAVAILABLE(bnd_predict, const bnd_model *model, const bnd_predict_options *options, const bnd_context *context, char **json)
UNAVAILABLE(bnd_quantize, const bnd_quantize_options *options, const bnd_context *context, bnd_quantize_result *result)
