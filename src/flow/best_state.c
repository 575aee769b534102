/* A checkpoint with "fingerprint", "next_step", "blocks", "distance", "outcomes" (float64, a row for each step done), "layers" and "quantizers". */
#include "flow/best_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/operators.h"

/* kept, before, after, seconds; the step's place in bnd_best_steps comes first */
enum { OUTCOME_NUMBERS = 5 };

/* --- writing --- */

static size_t place_of_step(const char *name) {
  size_t count, at = 0;
  const bnd_step_name *names = bnd_best_steps(&count);
  while (at < count && strcmp(names[at].name, name) != 0) at++;
  return at;
}

static void put_vector(bnd_checkpoint_writer *writer, const char *key, bnd_dtype dtype, void *data, size_t count) {
  bnd_checkpoint_put_tensor(writer, key, &(bnd_tensor){.dtype = dtype, .shape = BND_SHAPE((int64_t)count), .count = count, .data = data});
}

static void put_quantizer(void *user, const bnd_quantizer_place *place) {
  bnd_checkpoint_writer *writer = user;
  const bnd_quantizer *q = place->quantizer;
  const size_t channels = (size_t)q->channels;
  bnd_checkpoint_begin_dict(writer, place->name);
  put_vector(writer, "position", BND_I32, q->position, channels);
  put_vector(writer, "zero_point", BND_I32, q->zero_point, channels);
  put_vector(writer, "minimum", BND_F32, q->minimum, channels);
  put_vector(writer, "maximum", BND_F32, q->maximum, channels);
  bnd_checkpoint_end(writer);
}

static void put_layers(bnd_checkpoint_writer *writer, const bnd_graph *graph) {
  bnd_checkpoint_begin_dict(writer, "layers");
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    bnd_checkpoint_begin_dict(writer, node->name);
    bnd_checkpoint_put_tensor(writer, "weight", &node->module->weight);
    if (node->module->bias.data) bnd_checkpoint_put_tensor(writer, "bias", &node->module->bias);
    bnd_checkpoint_end(writer);
  }
  bnd_checkpoint_end(writer);
}

bnd_status bnd_best_save(bnd_quantize_run *r, const char *name, const bnd_graph *graph, const bnd_best_state *state) {
  char path[4096];
  double outcomes[BND_MAX_STEPS][OUTCOME_NUMBERS];
  const int count = r->result->step_count;
  BND_TRY(bnd_run_path(r, name, path));
  for (int i = 0; i < count; i++) {
    const bnd_step_result *s = &r->result->steps[i];
    const double row[OUTCOME_NUMBERS] = {(double)place_of_step(s->name), s->kept, s->before, s->after, s->seconds};
    memcpy(outcomes[i], row, sizeof row);
  }
  bnd_checkpoint_writer *writer = bnd_checkpoint_writer_create();
  if (!writer) return bnd_fail_memory(r->error, path);
  bnd_checkpoint_put_text(writer, "fingerprint", r->state.fingerprint);
  bnd_checkpoint_put_int(writer, "next_step", (int64_t)state->next_step);
  bnd_checkpoint_put_int(writer, "blocks", (int64_t)state->blocks);
  put_vector(writer, "distance", BND_F64, (double[]){state->distance}, 1);
  put_vector(writer, "outcomes", BND_F64, outcomes, (size_t)count * OUTCOME_NUMBERS);
  put_layers(writer, graph);
  bnd_checkpoint_begin_dict(writer, "quantizers");
  bnd_visit_quantizers(graph, put_quantizer, writer);
  bnd_checkpoint_end(writer);
  const bnd_status status = bnd_checkpoint_write(writer, path, r->error);
  bnd_checkpoint_writer_free(writer);
  return status;
}

/* --- reading: into memory first, then into the graph, so that a damaged file changes nothing --- */

typedef struct loading {
  bnd_checkpoint *saved;
  const bnd_value *quantizers;
  bnd_tensor *tensors;
  size_t count, capacity, at;
  bool fine;
} loading;

/* An element count of 0 means any. The tensor is owned by the list. */
static const bnd_tensor *read_tensor(loading *l, const bnd_value *dict, const char *key, bnd_dtype dtype, size_t count) {
  const bnd_value *value = bnd_value_get(dict, key);
  if (!value || value->kind != BND_VALUE_TENSOR || !BND_GROW(l->tensors, l->capacity, l->count + 1)) {
    l->fine = false;
    return NULL;
  }
  bnd_tensor *tensor = &l->tensors[l->count];
  *tensor = (bnd_tensor){0};
  if (bnd_checkpoint_tensor(l->saved, value, tensor, NULL) != BND_OK) {
    l->fine = false;
    return NULL;
  }
  l->count++;
  if (tensor->dtype != dtype || (count && tensor->count != count)) l->fine = false;
  return tensor;
}

enum { QUANTIZER_TENSORS = 4 };

static void read_quantizer(void *user, const bnd_quantizer_place *place) {
  loading *l = user;
  const bnd_value *dict = l->fine ? bnd_value_get(l->quantizers, place->name) : NULL;
  const bnd_tensor *position = dict ? read_tensor(l, dict, "position", BND_I32, 0) : NULL;
  const size_t channels = position ? position->count : 0;
  const bool fits = channels == 1 || (place->quantizer->spec.per_channel && channels > 0 && channels < 1 << 20);
  l->fine = l->fine && position && fits;
  for (size_t c = 0; l->fine && c < channels; c++) l->fine = abs(((const int32_t *)position->data)[c]) <= 1000;
  if (!l->fine) return;
  read_tensor(l, dict, "zero_point", BND_I32, channels);
  read_tensor(l, dict, "minimum", BND_F32, channels);
  read_tensor(l, dict, "maximum", BND_F32, channels);
}

static void put_quantizer_back(void *user, const bnd_quantizer_place *place) {
  loading *l = user;
  const bnd_tensor *t = &l->tensors[l->at];
  l->at += QUANTIZER_TENSORS;
  if (bnd_quantizer_restore(place->quantizer, (int)t[0].count, t[0].data, t[1].data, t[2].data, t[3].data, NULL) != BND_OK) l->fine = false;
}

static void read_layers(loading *l, const bnd_value *layers, const bnd_graph *graph) {
  for (const bnd_node *node = bnd_graph_first(graph); l->fine && node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    const bnd_value *layer = bnd_value_get(layers, node->name);
    if (!layer) l->fine = false;
    if (layer) read_tensor(l, layer, "weight", BND_F32, node->module->weight.count);
    if (layer && node->module->bias.data) read_tensor(l, layer, "bias", BND_F32, node->module->bias.count);
  }
}

static void put_back(bnd_tensor *to, loading *l) {
  bnd_tensor *from = &l->tensors[l->at++];
  from->shape = to->shape;
  bnd_tensor_release(to);
  *to = *from;
  *from = (bnd_tensor){0};
}

static void put_layers_back(loading *l, bnd_graph *graph) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    put_back(&node->module->weight, l);
    if (node->module->bias.data) put_back(&node->module->bias, l);
  }
}

static bool read_outcomes(loading *l, const bnd_value *root, bnd_quantize_result *result, double *distance) {
  size_t names;
  const bnd_step_name *known = bnd_best_steps(&names);
  const bnd_tensor *saved = read_tensor(l, root, "distance", BND_F64, 1);
  if (saved && l->fine) *distance = *(const double *)saved->data;
  const bnd_tensor *outcomes = read_tensor(l, root, "outcomes", BND_F64, 0);
  const size_t rows = outcomes ? outcomes->count / OUTCOME_NUMBERS : 0;
  if (!l->fine || rows > BND_MAX_STEPS) return false;
  result->step_count = 0;
  for (size_t i = 0; i < rows; i++) {
    const double *row = (const double *)outcomes->data + i * OUTCOME_NUMBERS;
    if (!(row[0] >= 0 && row[0] < (double)names)) return false;
    bnd_step_result *to = &result->steps[result->step_count++];
    *to = (bnd_step_result){.kept = row[1] != 0, .before = row[2], .after = row[3], .seconds = row[4]};
    snprintf(to->name, sizeof to->name, "%s", known[(size_t)row[0]].name);
  }
  return true;
}

static bool read_all(bnd_quantize_run *r, loading *l, bnd_graph *graph, bnd_best_state *state) {
  const bnd_value *root = bnd_checkpoint_root(l->saved), *next = bnd_value_get(root, "next_step"), *blocks = bnd_value_get(root, "blocks");
  if (!next || next->kind != BND_VALUE_INT || next->integer < 0 || next->integer > BND_MAX_STEPS || !blocks || blocks->kind != BND_VALUE_INT || blocks->integer < 0)
    return false;
  bnd_quantize_result result = *r->result;
  double distance = NAN;
  if (!read_outcomes(l, root, &result, &distance)) return false;
  const size_t first = l->count;
  l->quantizers = bnd_value_get(root, "quantizers");
  read_layers(l, bnd_value_get(root, "layers"), graph);
  bnd_visit_quantizers(graph, read_quantizer, l);
  if (!l->fine) return false;
  l->at = first;
  put_layers_back(l, graph);
  bnd_visit_quantizers(graph, put_quantizer_back, l);
  *r->result = result;
  *state = (bnd_best_state){(size_t)next->integer, (size_t)blocks->integer, distance};
  return true;
}

bnd_status bnd_best_load(bnd_quantize_run *r, const char *name, bnd_graph *graph, bnd_best_state *state, bool *found) {
  char path[4096];
  *found = false;
  BND_TRY(bnd_run_path(r, name, path));
  if (r->options->restart || access(path, F_OK) != 0) return BND_OK;
  loading l = {.fine = true};
  if (bnd_checkpoint_open(path, &l.saved, NULL) != BND_OK) return BND_OK;
  const char *fingerprint = bnd_value_text(bnd_value_get(bnd_checkpoint_root(l.saved), "fingerprint"));
  *found = fingerprint && strcmp(fingerprint, r->state.fingerprint) == 0 && read_all(r, &l, graph, state);
  for (size_t i = 0; i < l.count; i++) bnd_tensor_release(&l.tensors[i]);
  free(l.tensors);
  bnd_checkpoint_close(l.saved);
  return BND_OK;
}
