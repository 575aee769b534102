/* `binade dump`: every quantized tensor of one run as integers. The network runs as in evaluation, only that every fake quantizer's result is an output, too.
   Convolutions are then computed a second time from these codes alone, in whole numbers. */
#include "flow/dump.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "flow/target_profile.h"
#include "formats/npy/npy.h"

/* --- the folder --- */

static const char INDEX[] = "dump.json";

static bnd_status path_of(const bnd_dump_state *dump, const char *file, const char **path, bnd_error *error) {
  *path = bnd_arena_format(dump->arena, "%s/%s", dump->options->output, file);
  if (!*path) return bnd_fail_memory(error, "a path");
  const char *const inputs[] = {dump->model->path, dump->options->image};
  for (int i = 0; i < 2; i++)
    if (bnd_same_file(*path, inputs[i])) return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: the dump would replace %s; choose another folder", *path, inputs[i]);
  return BND_OK;
}

static bnd_status note_written(bnd_dump_state *dump, const char *path, bnd_error *error) {
  if (!BND_GROW(dump->written, dump->written_capacity, dump->written_count + 1)) return bnd_fail_memory(error, "the list of files");
  dump->written[dump->written_count++] = path;
  return BND_OK;
}

bnd_status bnd_dump_write(bnd_dump_state *dump, const char *file, bnd_dtype dtype, const bnd_shape *shape, const void *data, bnd_error *error) {
  const char *path;
  BND_TRY(path_of(dump, file, &path, error));
  BND_TRY(bnd_npy_write(path, dtype, shape, data, error));
  return note_written(dump, path, error);
}

/* What cannot be written is told before anything is computed. */
static bnd_status check_folder(const bnd_dump_state *dump, bnd_error *error) {
  const char *path;
  bnd_file_writer *index;
  BND_TRY(bnd_make_folder(dump->options->output, error));
  BND_TRY(path_of(dump, INDEX, &path, error));
  BND_TRY(bnd_file_writer_open(path, &index, error));
  bnd_file_writer_abandon(index);
  return BND_OK;
}

/* --- tensors --- */

static bnd_dump_tensor *add_tensor(bnd_dump_state *dump, bnd_dump_kind kind, int order, const char *node, const char *suffix, bnd_error *error) {
  bnd_dump_tensor *fresh = bnd_arena_alloc(dump->arena, 1, sizeof *fresh);
  const char *file = bnd_dump_file_name(dump, order, node, suffix);
  if (!fresh || !file || !BND_GROW(dump->tensors, dump->tensor_capacity, dump->tensor_count + 1)) {
    bnd_fail_memory(error, "the list of tensors");
    return NULL;
  }
  *fresh = (bnd_dump_tensor){.kind = kind, .order = order, .node = node, .file = file};
  dump->tensors[dump->tensor_count++] = fresh;
  return fresh;
}

const char *bnd_dump_file_name(bnd_dump_state *dump, int order, const char *node, const char *suffix) {
  enum { LONGEST = 120 };
  char name[LONGEST + 1];
  size_t length = 0;
  for (; node[length] && length < LONGEST; length++) {
    const char c = node[length];
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
    name[length] = plain ? c : '_';
  }
  name[length] = '\0';
  return bnd_arena_format(dump->arena, "%04d-%s%s.npy", order, name, suffix);
}

bnd_status bnd_dump_quantize(const bnd_quantizer *quantizer, const bnd_shape *shape, const float *x, bnd_dump_tensor *tensor, bnd_error *error) {
  const bnd_tensor from = {.dtype = BND_F32, .shape = *shape, .data = (void *)(uintptr_t)x};
  bnd_tensor rounded = {0};
  BND_TRY(bnd_tensor_create(quantizer->spec.dtype, shape, &tensor->data, error));
  BND_TRY(bnd_fake_quantize_tensor(quantizer, &from, &rounded, error));
  tensor->quantizer = quantizer;
  tensor->minimum = INT16_MAX;
  tensor->maximum = INT16_MIN;
  size_t outer, channels, inner;
  bool numbers = true;
  bnd_quantizer_layout(&quantizer->spec, shape, &outer, &channels, &inner);
  for (size_t row = 0; row < outer * channels; row++) {
    const double multiplier = ldexp(1, quantizer->position[row % channels]);
    const int zero_point = quantizer->zero_point[row % channels];
    for (size_t i = row * inner; i < (row + 1) * inner; i++) {
      const float value = bnd_f32(&rounded)[i];
      numbers &= !isnan(value);
      const int code = isnan(value) ? 0 : (int)(value * multiplier) + zero_point; /* exact: it is on the grid */
      if (code < tensor->minimum) tensor->minimum = code;
      if (code > tensor->maximum) tensor->maximum = code;
      if (quantizer->spec.dtype == BND_U8) ((uint8_t *)tensor->data.data)[i] = (uint8_t)code;
      else ((int8_t *)tensor->data.data)[i] = (int8_t)code;
    }
  }
  bnd_tensor_release(&rounded);
  return numbers ? BND_OK : bnd_fail(error, BND_ERROR_MODEL, "%s: %s: some of its values are not numbers", tensor->node, tensor->tensor ? tensor->tensor : "");
}

/* --- the list, in order of computation --- */

static bnd_status list_parameter(bnd_dump_state *dump, int order, const bnd_node *node, bool is_weight, const bnd_tensor *values, bnd_error *error) {
  const bnd_module *module = node->module;
  const bnd_quantizer *quantizer = is_weight ? module->weight_quantizer : module->bias_quantizer;
  if (!quantizer) return BND_OK;
  bnd_dump_tensor *tensor = add_tensor(dump, is_weight ? BND_DUMP_WEIGHT : BND_DUMP_BIAS, order, node->name, is_weight ? ".weight" : ".bias", error);
  if (!tensor) return BND_ERROR_MEMORY;
  tensor->tensor = is_weight ? module->weight_integers : module->bias_integers;
  return bnd_dump_quantize(quantizer, &values->shape, bnd_f32(values), tensor, error);
}

static bnd_status list_layer(bnd_dump_state *dump, int order, const bnd_node *node, bnd_error *error) {
  bnd_dump_layer *layer = bnd_arena_alloc(dump->arena, 1, sizeof *layer);
  if (!layer || !BND_GROW(dump->layers, dump->layer_capacity, dump->layer_count + 1)) return bnd_fail_memory(error, "the list of layers");
  *layer = (bnd_dump_layer){.node = node, .order = order};
  dump->layers[dump->layer_count++] = layer;
  if (node->kind != BND_CALL_MODULE) return BND_OK;
  const size_t before = dump->tensor_count;
  BND_TRY(list_parameter(dump, order, node, true, &node->module->weight, error));
  if (dump->tensor_count > before) layer->weight = dump->tensors[before];
  const size_t between = dump->tensor_count;
  if (node->module->bias.data) BND_TRY(list_parameter(dump, order, node, false, &node->module->bias, error));
  if (dump->tensor_count > between) layer->bias = dump->tensors[between];
  return BND_OK;
}

static bnd_status list_fake_quantizer(bnd_dump_state *dump, int order, const bnd_node *node, bnd_error *error) {
  const bnd_node *source = bnd_arg_node(node, 0);
  const bool constant = source && source->kind == BND_GET_ATTR;
  bnd_dump_tensor *tensor = add_tensor(dump, constant ? BND_DUMP_CONSTANT : BND_DUMP_ACTIVATION, order, node->name, "", error);
  if (!tensor) return BND_ERROR_MEMORY;
  tensor->tensor = node->module->integers;
  tensor->value = node->tensor;
  tensor->quantizer = node->module->quantizer;
  dump->of_node[node->id] = tensor;
  return BND_OK;
}

static bnd_status list_nodes(bnd_dump_state *dump, bnd_error *error) {
  int order = 0;
  for (const bnd_node *node = bnd_graph_first(dump->model->graph); node; node = node->next, order++) {
    if (bnd_is_fake_quantize(node)) BND_TRY(list_fake_quantizer(dump, order, node, error));
    else if (bnd_is_conv_module(node) || bnd_is_conv_function(node)) BND_TRY(list_layer(dump, order, node, error));
  }
  return BND_OK;
}

/* --- the run --- */

static bnd_status keep_floats(bnd_dump_state *dump, bnd_dump_kind kind, int order, const char *node, const char *name, const bnd_shape *shape,
                              const float *values, bnd_error *error) {
  bnd_dump_tensor *tensor = add_tensor(dump, kind, order, node, kind == BND_DUMP_OUTPUT ? ".output" : "", error);
  if (!tensor) return BND_ERROR_MEMORY;
  tensor->tensor = name;
  BND_TRY(bnd_tensor_create(BND_F32, shape, &tensor->data, error));
  memcpy(tensor->data.data, values, tensor->data.count * sizeof *values);
  return BND_OK;
}

/* A copy of the graph that hands out, behind its outputs, what every fake quantizer puts out: so the executor fuses and rounds as it does in earnest. */
static bnd_status graph_with_codes(const bnd_dump_state *dump, bnd_graph **result, int *output_count, bnd_error *error) {
  BND_TRY(bnd_graph_copy(dump->model->graph, result, error));
  bnd_node *output = bnd_graph_last(*result);
  const bnd_arg *list = &output->args[0]; /* an imported graph ends with the list of its outputs, a tensor each */
  *output_count = list->list.count;
  bnd_arg *items = bnd_arena_alloc(dump->arena, (size_t)list->list.count + dump->tensor_count, sizeof *items);
  if (!items) return bnd_fail_memory(error, "the outputs");
  memcpy(items, list->list.items, (size_t)list->list.count * sizeof *items);
  int count = list->list.count;
  for (bnd_node *node = bnd_graph_first(*result); node; node = node->next)
    if (bnd_is_fake_quantize(node)) items[count++] = bnd_arg_of_node(node);
  bnd_node_set_arg(output, 0, bnd_graph_list(*result, items, count));
  return bnd_graph_status(*result, error);
}

static bnd_status keep_outputs(bnd_dump_state *dump, const bnd_graph *graph, int output_count, const bnd_executor *executor, const bnd_session *session,
                               bnd_error *error) {
  const bnd_arg *items = bnd_graph_last(graph)->args[0].list.items;
  for (int i = 0; i < bnd_executor_output_count(executor); i++) {
    const bnd_node *node = items[i].node;
    const bnd_shape *shape = bnd_executor_output_shape(executor, i);
    const float *values = bnd_session_output(session, i);
    if (i < output_count) { /* its name is the arena's: the copy of the graph goes */
      const char *name = bnd_arena_copy(dump->arena, node->name), *tensor = bnd_arena_copy(dump->arena, node->tensor ? node->tensor : "");
      if (!name || !tensor) return bnd_fail_memory(error, "a name");
      BND_TRY(keep_floats(dump, BND_DUMP_OUTPUT, bnd_graph_node_count(graph) + i, name, tensor, shape, values, error));
    } else {
      bnd_dump_tensor *codes = dump->of_node[node->id];
      BND_TRY(bnd_dump_quantize(codes->quantizer, shape, values, codes, error));
    }
  }
  return BND_OK;
}

static bool is_cancelled(void *context) {
  return bnd_is_cancelled(context);
}

static bnd_status run_network(bnd_dump_state *dump, const float *input, bnd_error *error) {
  const bnd_exec_options exec = {.mode = BND_EXEC_FAKE_QUANTIZE,
                                 .backend = bnd_backend_of(dump->options->executor, BND_EXEC_FAKE_QUANTIZE),
                                 .threads = bnd_thread_count(dump->context)};
  bnd_graph *graph = NULL;
  bnd_executor *executor = NULL;
  bnd_session *session = NULL;
  int output_count = 0;
  bnd_status status = graph_with_codes(dump, &graph, &output_count, error);
  if (status == BND_OK) status = bnd_executor_create(graph, &exec, &executor, error);
  if (status == BND_OK) status = bnd_session_create(executor, &session, error);
  if (status == BND_OK) {
    bnd_session_set_stop(session, is_cancelled, (void *)(uintptr_t)dump->context);
    status = bnd_session_run(session, (const float *const[]){input}, NULL, NULL, error);
  }
  if (status == BND_OK) status = keep_outputs(dump, graph, output_count, executor, session, error);
  bnd_session_destroy(session);
  bnd_executor_destroy(executor);
  bnd_graph_destroy(graph);
  return status;
}

static bnd_status run_image(bnd_dump_state *dump, bnd_error *error) {
  bnd_preprocessing preprocessing;
  bnd_image image;
  BND_TRY(bnd_model_preprocessing(dump->model, 0, true, &preprocessing, error));
  BND_TRY(bnd_image_read(dump->options->image, &image, error));
  bnd_tensor input = {0};
  bnd_status status = bnd_tensor_create(BND_F32, &BND_SHAPE(1, 3, preprocessing.height, preprocessing.width), &input, error);
  if (status == BND_OK) {
    status = bnd_preprocess(&preprocessing, &image, bnd_f32(&input), NULL, error);
    if (status != BND_OK) bnd_fail_prefix(error, status, "%s", dump->options->image);
  }
  bnd_image_free(&image);
  const bnd_node *node = bnd_graph_first(dump->model->graph);
  while (node->kind != BND_PLACEHOLDER) node = node->next;
  if (status == BND_OK) status = keep_floats(dump, BND_DUMP_INPUT, 0, node->name, node->tensor, &input.shape, bnd_f32(&input), error);
  if (status == BND_OK) status = list_nodes(dump, error);
  if (status == BND_OK) status = check_folder(dump, error);
  if (status == BND_OK) status = run_network(dump, bnd_f32(&input), error);
  bnd_tensor_release(&input);
  return status;
}

/* --- files --- */

/* The index is the sign of a complete dump: an old one goes first, the new one comes last. */
static bnd_status write_files(bnd_dump_state *dump, bnd_string *index, bnd_error *error) {
  const char *path;
  BND_TRY(path_of(dump, INDEX, &path, error));
  remove(path);
  BND_TRY(bnd_dump_layers(dump, error));
  for (size_t i = 0; i < dump->tensor_count; i++) {
    const bnd_dump_tensor *t = dump->tensors[i];
    if (bnd_is_cancelled(dump->context)) return BND_ERROR_INTERRUPTED;
    BND_TRY(bnd_dump_write(dump, t->file, t->data.dtype, &t->data.shape, t->data.data, error));
  }
  bnd_dump_index(dump, index);
  return index->failed ? bnd_fail_memory(error, "the index") : bnd_file_write(path, index->text, index->length, error);
}

/* --- all of it --- */

static bool is_quantized(const bnd_graph *graph) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    if (bnd_is_fake_quantize(node)) return true;
  return false;
}

static bnd_status check_request(bnd_dump_state *dump, bnd_error *error) {
  const bnd_model *model = dump->model;
  const bnd_dump_options *o = dump->options;
  if (!o->image || !o->output) return bnd_fail(error, BND_ERROR_ARGUMENT, "a dump needs an image and an output folder");
  if (!bnd_model_is_onnx(model) || !is_quantized(model->graph))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: holds no quantized network; give the int8.onnx that `binade quantize` wrote", model->path);
  if (model->findings.length)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: not every tensor has a symmetric power-of-two scale (`binade check` names those that have none)",
                    model->path);
  BND_TRY(bnd_target_profile_load(o->target, &dump->target, error));
  if (strcmp(dump->target.rounding, BND_ROUNDING) != 0)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: rounds \"%s\", but what is computed here rounds %s", dump->target.name, dump->target.rounding,
                    BND_ROUNDING);
  return BND_OK;
}

static void free_dump(bnd_dump_state *dump) {
  for (size_t i = 0; i < dump->tensor_count; i++) bnd_tensor_release(&dump->tensors[i]->data);
  free(dump->tensors);
  free(dump->layers);
  free(dump->of_node);
  free(dump->written);
  bnd_arena_destroy(dump->arena);
}

bnd_status bnd_dump(const bnd_model *model, const bnd_dump_options *options, const bnd_context *context, bool json, char **text, bnd_error *error) {
  bnd_dump_state dump = {.model = model, .options = options, .context = context};
  bnd_string index = {0}, summary = {0};
  BND_TRY(check_request(&dump, error));
  dump.arena = bnd_arena_create();
  dump.of_node = bnd_calloc((size_t)bnd_graph_id_limit(model->graph), sizeof *dump.of_node);
  bnd_status status = dump.arena && dump.of_node ? run_image(&dump, error) : bnd_fail_memory(error, "the dump");
  if (status == BND_OK) status = write_files(&dump, &index, error);
  if (status == BND_OK && !json) bnd_dump_summary(&dump, &summary);
  if (status == BND_OK && summary.failed) status = bnd_fail_memory(error, "the summary");
  if (status == BND_ERROR_INTERRUPTED) bnd_fail(error, status, "interrupted during the dump");
  for (size_t i = 0; status != BND_OK && i < dump.written_count; i++) remove(dump.written[i]);
  if (status == BND_OK) *text = json ? index.text : summary.text;
  if (status != BND_OK || !json) bnd_string_free(&index);
  if (status != BND_OK || json) bnd_string_free(&summary);
  free_dump(&dump);
  return status;
}
