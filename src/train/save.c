/* The state between two steps as a dict of a checkpoint, and back. Quantizers are kept in a few long tensors, not in thousands of small ones. */
#include <stdlib.h>
#include <string.h>

#include "train/internal.h"

/* --- writing --- */

static bnd_tensor borrowed(bnd_dtype dtype, const bnd_shape *shape, size_t count, const void *data) {
  return (bnd_tensor){.dtype = dtype, .shape = *shape, .count = count, .data = (void *)data};
}

static void put_floats(bnd_checkpoint_writer *writer, const char *key, const bnd_shape *shape, const float *values, size_t count) {
  const bnd_tensor tensor = borrowed(BND_F32, shape, count, values);
  bnd_checkpoint_put_tensor(writer, key, &tensor);
}

static void put_arrays(const bnd_trainer *t, bnd_checkpoint_writer *writer, const char *key, const bnd_floats *arrays) {
  bnd_checkpoint_begin_dict(writer, key);
  for (size_t i = 0; i < t->array_count; i++) put_floats(writer, t->names[i], &t->shapes[i], arrays[i].values, arrays[i].count);
  bnd_checkpoint_end(writer);
}

static void put_moments(const bnd_trainer *t, bnd_checkpoint_writer *writer, const char *key, bool second) {
  bnd_checkpoint_begin_dict(writer, key);
  for (size_t i = 0; i < t->trained_count; i++) {
    const bnd_optimizer_state state = bnd_optimizer_get_state(t->optimizer, i);
    const float *moment = second ? state.second : state.first;
    if (moment) put_floats(writer, t->names[i], &t->shapes[i], moment, state.count);
  }
  bnd_checkpoint_end(writer);
}

/* Integers of all quantizers, one after another: for each channels, number of votes; positions, zero points; for each vote its count, positions, zero
   points. */
static size_t count_integers(const bnd_network_quantizer *quantizers, size_t count, size_t *ranges) {
  size_t integers = 0;
  *ranges = 0;
  for (size_t q = 0; q < count; q++) {
    const bnd_quantizer *it = quantizers[q].quantizer;
    const size_t channels = (size_t)it->channels;
    integers += 2 + 2 * channels + it->record_count * (1 + 2 * channels);
    *ranges += 2 * channels;
  }
  return integers;
}

static int64_t *put_vector(int64_t *to, const int *from, size_t count) {
  for (size_t i = 0; i < count; i++) *to++ = from[i];
  return to;
}

static void pack(const bnd_network_quantizer *quantizers, size_t count, int64_t *integers, float *ranges) {
  for (size_t q = 0; q < count; q++) {
    const bnd_quantizer *it = quantizers[q].quantizer;
    const size_t channels = (size_t)it->channels;
    *integers++ = it->channels;
    *integers++ = (int64_t)it->record_count;
    integers = put_vector(integers, it->position, channels);
    integers = put_vector(integers, it->zero_point, channels);
    for (size_t r = 0; r < it->record_count; r++) {
      *integers++ = (int64_t)it->records[r].votes;
      integers = put_vector(integers, it->records[r].position, channels);
      integers = put_vector(integers, it->records[r].zero_point, channels);
    }
    if (channels) memcpy(ranges, it->minimum, channels * sizeof *ranges);
    if (channels) memcpy(ranges + channels, it->maximum, channels * sizeof *ranges);
    ranges += 2 * channels;
  }
}

/* The packed tensors belong to the writer's reference. */
static void put_quantizers(const bnd_trainer *t, bnd_checkpoint_writer *writer) {
  size_t count, range_count;
  const bnd_network_quantizer *quantizers = bnd_network_quantizers(t->network, &count);
  const size_t integer_count = count_integers(quantizers, count, &range_count);
  bnd_tensor integers = {0}, ranges = {0};
  if (bnd_tensor_create(BND_I64, &BND_SHAPE((int64_t)integer_count), &integers, NULL) == BND_OK &&
      bnd_tensor_create(BND_F32, &BND_SHAPE((int64_t)range_count), &ranges, NULL) == BND_OK) {
    pack(quantizers, count, integers.data, bnd_f32(&ranges));
    bnd_checkpoint_begin_list(writer, "quantizers");
    for (size_t q = 0; q < count; q++) bnd_checkpoint_put_text(writer, NULL, quantizers[q].name);
    bnd_checkpoint_end(writer);
    bnd_checkpoint_put_tensor(writer, "quantizer_integers", &integers);
    bnd_checkpoint_put_tensor(writer, "quantizer_ranges", &ranges);
  } else {
    bnd_checkpoint_end(writer); /* one end too many makes the writer fail */
    bnd_checkpoint_end(writer);
  }
  bnd_tensor_release(&integers);
  bnd_tensor_release(&ranges);
}

void bnd_trainer_save(bnd_trainer *t, bnd_checkpoint_writer *writer, const char *key) {
  bnd_checkpoint_begin_dict(writer, key);
  bnd_checkpoint_put_int(writer, "steps", (int64_t)t->done);
  bnd_checkpoint_put_int(writer, "optimizer_steps", (int64_t)bnd_optimizer_steps(t->optimizer));
  put_arrays(t, writer, "values", t->values);
  if (t->options.average) put_arrays(t, writer, "averages", t->averages);
  put_moments(t, writer, "first_moments", false);
  put_moments(t, writer, "second_moments", true);
  put_quantizers(t, writer);
  bnd_checkpoint_end(writer);
}

/* --- reading: everything is checked and loaded before anything is changed --- */

typedef struct loaded {
  bnd_tensor *arrays; /* values, averages, first and second moments, one after another */
  size_t count, limit;
  bnd_tensor integers, ranges;
  bnd_quantizer **quantizers;
  size_t quantizer_count;
} loaded;

typedef struct reading {
  bnd_trainer *trainer;
  bnd_checkpoint *checkpoint;
  const bnd_value *dict;
  loaded *result;
  bnd_error *error;
} reading;

static bnd_status other_network(const reading *r, const char *what) {
  return bnd_fail(r->error, BND_ERROR_MODEL, "the saved training state is of another network or run: %s", what);
}

static bnd_status load_list(reading *r, const char *key, size_t count) {
  const bnd_value *dict = bnd_value_get(r->dict, key);
  if (!dict || dict->kind != BND_VALUE_DICT) return other_network(r, key);
  if (dict->dict.count != count) return other_network(r, key);
  for (size_t i = 0; i < count; i++) {
    /* the order is that of writing; names are compared, so that another order is found */
    const bnd_value_pair *pair = &dict->dict.pairs[i];
    const char *name = bnd_value_text(pair->key);
    if (!name || strcmp(name, r->trainer->names[i]) != 0 || pair->value->kind != BND_VALUE_TENSOR) return other_network(r, r->trainer->names[i]);
    bnd_tensor *tensor = &r->result->arrays[r->result->count];
    BND_TRY(bnd_checkpoint_tensor(r->checkpoint, pair->value, tensor, r->error));
    r->result->count++;
    if (tensor->dtype != BND_F32 || !bnd_shape_equal(&tensor->shape, &r->trainer->shapes[i])) return other_network(r, name);
  }
  return BND_OK;
}

static bool take(const int64_t **from, size_t *left, int *to, size_t count, int64_t low, int64_t high) {
  if (*left < count) return false;
  for (size_t i = 0; i < count; i++) {
    if ((*from)[i] < low || (*from)[i] > high) return false;
    to[i] = (int)(*from)[i];
  }
  *from += count;
  *left -= count;
  return true;
}

/* A quantizer as packed, from the places the cursors stand at. */
static bnd_quantizer *unpack(const bnd_quantizer *like, const int64_t **integers, size_t *left, const float **ranges, size_t *range_left) {
  int channels, records;
  if (!take(integers, left, &channels, 1, 0, 1 << 20) || !take(integers, left, &records, 1, 0, 1 << 20)) return NULL;
  if (like->channels ? channels != like->channels : !like->spec.per_channel && channels > 1) return NULL;
  if (*range_left < 2 * (size_t)channels || *left < 2 * (size_t)channels) return NULL;
  bnd_quantizer *made = bnd_quantizer_create(&like->spec);
  int *position = bnd_calloc(2 * (size_t)channels + 1, sizeof *position), *zero_point = position + channels;
  bool fine = made && position && take(integers, left, position, (size_t)channels, -4096, 4096) &&
              take(integers, left, zero_point, (size_t)channels, -256, 256) &&
              (channels == 0 || bnd_quantizer_restore(made, channels, position, zero_point, *ranges, *ranges + channels, NULL) == BND_OK);
  for (int r = 0; r < records && fine; r++) {
    int votes;
    fine = take(integers, left, &votes, 1, 1, INT32_MAX) && take(integers, left, position, (size_t)channels, -4096, 4096) &&
           take(integers, left, zero_point, (size_t)channels, -256, 256) && bnd_quantizer_add_vote(made, position, zero_point, (size_t)votes);
  }
  free(position);
  *ranges += 2 * (size_t)channels;
  *range_left -= 2 * (size_t)channels;
  if (fine) return made;
  bnd_quantizer_destroy(made);
  return NULL;
}

static bnd_status load_tensor(reading *r, const char *key, bnd_dtype dtype, bnd_tensor *tensor) {
  const bnd_value *value = bnd_value_get(r->dict, key);
  if (!value || value->kind != BND_VALUE_TENSOR) return other_network(r, key);
  BND_TRY(bnd_checkpoint_tensor(r->checkpoint, value, tensor, r->error));
  return tensor->dtype == dtype ? BND_OK : other_network(r, key);
}

static bnd_status load_quantizers(reading *r) {
  size_t count;
  const bnd_network_quantizer *quantizers = bnd_network_quantizers(r->trainer->network, &count);
  const bnd_value *names = bnd_value_get(r->dict, "quantizers");
  if (!names || names->kind != BND_VALUE_LIST || names->list.count != count) return other_network(r, "quantizers");
  BND_TRY(load_tensor(r, "quantizer_integers", BND_I64, &r->result->integers));
  BND_TRY(load_tensor(r, "quantizer_ranges", BND_F32, &r->result->ranges));
  r->result->quantizers = bnd_calloc(count + 1, sizeof *r->result->quantizers);
  if (!r->result->quantizers) return bnd_fail_memory(r->error, "quantizers");
  const int64_t *integers = r->result->integers.data;
  const float *ranges = bnd_f32(&r->result->ranges);
  size_t left = r->result->integers.count, range_left = r->result->ranges.count;
  for (size_t q = 0; q < count; q++) {
    const char *name = bnd_value_text(names->list.items[q]);
    if (!name || strcmp(name, quantizers[q].name) != 0) return other_network(r, quantizers[q].name);
    r->result->quantizers[q] = unpack(quantizers[q].quantizer, &integers, &left, &ranges, &range_left);
    if (!r->result->quantizers[q]) return other_network(r, quantizers[q].name);
    r->result->quantizer_count++;
  }
  return BND_OK;
}

static void put_back(bnd_trainer *t, loaded *l, uint64_t steps, uint64_t optimizer_steps) {
  const bnd_tensor *next = l->arrays;
  for (size_t i = 0; i < t->array_count; i++, next++) memcpy(t->values[i].values, next->data, t->values[i].count * sizeof(float));
  for (size_t i = 0; t->options.average && i < t->array_count; i++, next++)
    memcpy(t->averages[i].values, next->data, t->averages[i].count * sizeof(float));
  for (int second = 0; second < 2; second++)
    for (size_t i = 0; i < t->trained_count; i++) {
      const bnd_optimizer_state state = bnd_optimizer_get_state(t->optimizer, i);
      float *moment = second ? state.second : state.first;
      if (moment) memcpy(moment, (next++)->data, state.count * sizeof(float));
    }
  size_t count;
  const bnd_network_quantizer *quantizers = bnd_network_quantizers(t->network, &count);
  for (size_t q = 0; q < count; q++) {
    const bnd_quantizer old = *quantizers[q].quantizer;
    *quantizers[q].quantizer = *l->quantizers[q];
    *l->quantizers[q] = old;
  }
  t->done = steps;
  bnd_optimizer_set_steps(t->optimizer, optimizer_steps);
}

bnd_status bnd_trainer_restore(bnd_trainer *t, bnd_checkpoint *checkpoint, const char *key, bnd_error *error) {
  loaded l = {.limit = t->array_count * 4};
  reading r = {t, checkpoint, bnd_value_get(bnd_checkpoint_root(checkpoint), key), &l, error};
  double steps, optimizer_steps;
  if (!r.dict || !bnd_value_number(bnd_value_get(r.dict, "steps"), &steps) ||
      !bnd_value_number(bnd_value_get(r.dict, "optimizer_steps"), &optimizer_steps) || !(steps >= 0 && steps <= (double)bnd_trainer_steps(t)) ||
      !(optimizer_steps >= 0 && optimizer_steps <= steps)) /* also not a number */
    return other_network(&r, "number of steps");
  l.arrays = bnd_calloc(l.limit + 1, sizeof *l.arrays);
  if (!l.arrays) return bnd_fail_memory(error, "training");
  const bnd_optimizer_state first = bnd_optimizer_get_state(t->optimizer, 0);
  bnd_status status = load_list(&r, "values", t->array_count);
  if (status == BND_OK && t->options.average) status = load_list(&r, "averages", t->array_count);
  if (status == BND_OK) status = load_list(&r, "first_moments", first.first ? t->trained_count : 0);
  if (status == BND_OK) status = load_list(&r, "second_moments", first.second ? t->trained_count : 0);
  if (status == BND_OK) status = load_quantizers(&r);
  if (status == BND_OK) put_back(t, &l, (uint64_t)steps, (uint64_t)optimizer_steps);
  for (size_t i = 0; i < l.count; i++) bnd_tensor_release(&l.arrays[i]);
  for (size_t q = 0; q < l.quantizer_count; q++) bnd_quantizer_destroy(l.quantizers[q]);
  bnd_tensor_release(&l.integers);
  bnd_tensor_release(&l.ranges);
  free(l.quantizers);
  free(l.arrays);
  return status;
}
