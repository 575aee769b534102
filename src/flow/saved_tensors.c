#include "flow/saved_tensors.h"

#include <stdlib.h>

#include "flow/reports.h"

enum { LARGEST_POSITION = 1000, MOST_CHANNELS = 1 << 20 };

/* --- writing --- */

void bnd_put_vector(bnd_checkpoint_writer *writer, const char *key, bnd_dtype dtype, void *data, size_t count) {
  bnd_checkpoint_put_tensor(writer, key, &(bnd_tensor){.dtype = dtype, .shape = BND_SHAPE((int64_t)count), .count = count, .data = data});
}

static void put_quantizer(void *user, const bnd_quantizer_place *place) {
  bnd_checkpoint_writer *writer = user;
  const bnd_quantizer *q = place->quantizer;
  const size_t channels = (size_t)q->channels;
  bnd_checkpoint_begin_dict(writer, place->name);
  bnd_put_vector(writer, "position", BND_I32, q->position, channels);
  bnd_put_vector(writer, "zero_point", BND_I32, q->zero_point, channels);
  bnd_put_vector(writer, "minimum", BND_F32, q->minimum, channels);
  bnd_put_vector(writer, "maximum", BND_F32, q->maximum, channels);
  bnd_checkpoint_end(writer);
}

void bnd_put_quantizers(bnd_checkpoint_writer *writer, const bnd_graph *graph) {
  bnd_checkpoint_begin_dict(writer, "quantizers");
  bnd_visit_quantizers(graph, put_quantizer, writer);
  bnd_checkpoint_end(writer);
}

/* --- reading --- */

bnd_status bnd_fail_saved(const char *what, const char *name, bnd_error *error) {
  return bnd_fail(error, BND_ERROR_FORMAT, "%s \"%s\" is missing or has another shape", what, name);
}

const bnd_tensor *bnd_read_saved(bnd_saved_tensors *saved, const bnd_value *dict, const char *key, bnd_dtype dtype, size_t count) {
  if (saved->status != BND_OK) return NULL;
  const bnd_value *value = bnd_value_get(dict, key);
  if (!value || value->kind != BND_VALUE_TENSOR) {
    saved->status = bnd_fail_saved("the tensor", key, saved->error);
    return NULL;
  }
  if (!BND_GROW(saved->items, saved->capacity, saved->count + 1)) {
    saved->status = bnd_fail_memory(saved->error, "saved tensors");
    return NULL;
  }
  bnd_tensor *tensor = &saved->items[saved->count];
  *tensor = (bnd_tensor){0};
  saved->status = bnd_checkpoint_tensor(saved->checkpoint, value, tensor, saved->error);
  if (saved->status != BND_OK) return NULL;
  saved->count++;
  if (tensor->dtype == dtype && (count == BND_ANY_COUNT || tensor->count == count)) return tensor;
  saved->status = bnd_fail_saved("the tensor", key, saved->error);
  return NULL;
}

typedef struct reading {
  bnd_saved_tensors *saved;
  const bnd_value *quantizers;
  bool new_channels;
} reading;

static bool may_have_channels(const bnd_quantizer *quantizer, size_t channels) {
  return channels == 1 || (quantizer->spec.per_channel && channels > 0 && channels < MOST_CHANNELS);
}

static void read_quantizer(void *user, const bnd_quantizer_place *place) {
  const reading *r = user;
  bnd_saved_tensors *saved = r->saved;
  const bnd_value *dict = bnd_value_get(r->quantizers, place->name);
  const size_t wanted = r->new_channels ? BND_ANY_COUNT : (size_t)place->quantizer->channels;
  const bnd_tensor *position = bnd_read_saved(saved, dict, "position", BND_I32, wanted);
  if (!position) return;
  const size_t channels = position->count;
  const int32_t *values = position->data;
  bool fits = !r->new_channels || may_have_channels(place->quantizer, channels);
  for (size_t c = 0; fits && c < channels; c++) fits = values[c] >= -LARGEST_POSITION && values[c] <= LARGEST_POSITION;
  if (!fits) {
    saved->status = bnd_fail_saved("the quantizer", place->name, saved->error);
    return;
  }
  bnd_read_saved(saved, dict, "zero_point", BND_I32, channels);
  bnd_read_saved(saved, dict, "minimum", BND_F32, channels);
  bnd_read_saved(saved, dict, "maximum", BND_F32, channels);
}

void bnd_read_saved_quantizers(bnd_saved_tensors *saved, const bnd_graph *graph, bool new_channels) {
  reading r = {saved, bnd_value_get(bnd_checkpoint_root(saved->checkpoint), "quantizers"), new_channels};
  bnd_visit_quantizers(graph, read_quantizer, &r);
}

bnd_tensor *bnd_next_saved(bnd_saved_tensors *saved) { return &saved->items[saved->next++]; }

typedef struct restoring {
  bnd_saved_tensors *saved;
  bnd_status status;
  bnd_error *error;
} restoring;

static void restore_quantizer(void *user, const bnd_quantizer_place *place) {
  restoring *r = user;
  const bnd_tensor *position = bnd_next_saved(r->saved), *zero_point = bnd_next_saved(r->saved);
  const bnd_tensor *minimum = bnd_next_saved(r->saved), *maximum = bnd_next_saved(r->saved);
  if (r->status == BND_OK)
    r->status = bnd_quantizer_restore(place->quantizer, (int)position->count, position->data, zero_point->data, minimum->data, maximum->data, r->error);
}

bnd_status bnd_restore_saved_quantizers(bnd_saved_tensors *saved, const bnd_graph *graph, bnd_error *error) {
  restoring r = {saved, BND_OK, error};
  bnd_visit_quantizers(graph, restore_quantizer, &r);
  return r.status;
}

void bnd_saved_tensors_free(bnd_saved_tensors *saved) {
  for (size_t i = 0; i < saved->count; i++) bnd_tensor_release(&saved->items[i]);
  free(saved->items);
  *saved = (bnd_saved_tensors){0};
}
