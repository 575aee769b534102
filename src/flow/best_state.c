/* A checkpoint with "fingerprint", "next_step", "blocks", "distance", "outcomes" (float64, a row for each step done), "layers" and "quantizers". */
#include "flow/best_state.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "flow/saved_tensors.h"
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
  bnd_put_vector(writer, "distance", BND_F64, (double[]){state->distance}, 1);
  bnd_put_vector(writer, "outcomes", BND_F64, outcomes, (size_t)count * OUTCOME_NUMBERS);
  put_layers(writer, graph);
  bnd_put_quantizers(writer, graph);
  const bnd_status status = bnd_checkpoint_write(writer, path, r->error);
  bnd_checkpoint_writer_free(writer);
  return status;
}

/* --- reading --- */

static void read_layers(bnd_saved_tensors *saved, const bnd_value *layers, const bnd_graph *graph) {
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    const bnd_value *layer = bnd_value_get(layers, node->name);
    bnd_read_saved(saved, layer, "weight", BND_F32, node->module->weight.count);
    if (node->module->bias.data) bnd_read_saved(saved, layer, "bias", BND_F32, node->module->bias.count);
  }
}

static void put_back(bnd_tensor *to, bnd_tensor *from) {
  from->shape = to->shape;
  bnd_tensor_release(to);
  *to = *from;
  *from = (bnd_tensor){0};
}

static void put_layers_back(bnd_saved_tensors *saved, bnd_graph *graph) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    if (!bnd_is_conv_module(node)) continue;
    put_back(&node->module->weight, bnd_next_saved(saved));
    if (node->module->bias.data) put_back(&node->module->bias, bnd_next_saved(saved));
  }
}

static bool read_outcomes(bnd_saved_tensors *saved, const bnd_value *root, bnd_quantize_result *result) {
  size_t names;
  const bnd_step_name *known = bnd_best_steps(&names);
  const bnd_tensor *outcomes = bnd_read_saved(saved, root, "outcomes", BND_F64, BND_ANY_COUNT);
  const size_t rows = outcomes ? outcomes->count / OUTCOME_NUMBERS : 0;
  if (!outcomes || rows > BND_MAX_STEPS) return false;
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

static bool read_number(const bnd_value *root, const char *key, int64_t limit, size_t *number) {
  const bnd_value *value = bnd_value_get(root, key);
  if (!value || value->kind != BND_VALUE_INT || value->integer < 0 || value->integer > limit) return false;
  *number = (size_t)value->integer;
  return true;
}

static bool read_state(bnd_saved_tensors *saved, const bnd_value *root, bnd_best_state *state) {
  if (!read_number(root, "next_step", BND_MAX_STEPS, &state->next_step) || !read_number(root, "blocks", INT64_MAX, &state->blocks)) return false;
  const bnd_tensor *distance = bnd_read_saved(saved, root, "distance", BND_F64, 1);
  if (distance) state->distance = *(const double *)distance->data;
  return distance != NULL;
}

/* What is put back by itself comes last: the tensors of layers and quantizers from saved->next on. */
static bool read_all(bnd_saved_tensors *saved, const char *fingerprint, const bnd_graph *graph, bnd_best_state *state, bnd_quantize_result *result) {
  const bnd_value *root = bnd_checkpoint_root(saved->checkpoint);
  const char *of = bnd_value_text(bnd_value_get(root, "fingerprint"));
  if (!of || strcmp(of, fingerprint) != 0 || !read_state(saved, root, state) || !read_outcomes(saved, root, result)) return false;
  saved->next = saved->count;
  read_layers(saved, bnd_value_get(root, "layers"), graph);
  bnd_read_saved_quantizers(saved, graph, true);
  return saved->status == BND_OK;
}

bnd_status bnd_best_load(bnd_quantize_run *r, const char *name, bnd_graph *graph, bnd_best_state *state, bool *found) {
  char path[4096];
  *found = false;
  BND_TRY(bnd_run_path(r, name, path));
  if (r->options->restart || access(path, F_OK) != 0) return BND_OK;
  bnd_saved_tensors saved = {0};
  if (bnd_checkpoint_open(path, &saved.checkpoint, NULL) != BND_OK) return BND_OK;
  bnd_checkpoint *const checkpoint = saved.checkpoint;
  bnd_best_state read = {0};
  bnd_quantize_result result = *r->result;
  bnd_status status = BND_OK;
  *found = read_all(&saved, r->state.fingerprint, graph, &read, &result);
  if (*found) {
    put_layers_back(&saved, graph);
    status = bnd_restore_saved_quantizers(&saved, graph, r->error);
    *r->result = result;
    *state = read;
  }
  bnd_saved_tensors_free(&saved);
  bnd_checkpoint_close(checkpoint);
  return status;
}
