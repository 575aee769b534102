#include "flow/state.h"

#include <math.h>
#include <sha256.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "flow/reports.h"
#include "formats/json/json.h"

typedef struct bnd_saved_quantizer {
  const char *name;
  int channels;
  int *position, *zero_point; /* [channels] */
  float *minimum, *maximum;   /* [channels] */
  double saturated;
} bnd_saved_quantizer;

bnd_status bnd_sha256_file(const char *path, const bnd_context *context, char digest[65], bnd_error *error) {
  enum { PIECE = 1 << 20 };
  FILE *file = NULL;
  SHA2_CTX hash;
  BND_TRY(bnd_file_open(path, &file, NULL, error));
  uint8_t *piece = malloc(PIECE);
  bnd_status status = piece ? BND_OK : bnd_fail_memory(error, path);
  SHA256Init(&hash);
  for (size_t length; status == BND_OK && (length = fread(piece, 1, PIECE, file)) > 0;) {
    SHA256Update(&hash, piece, length);
    if (bnd_is_cancelled(context)) status = bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted while reading %s", path);
  }
  if (status == BND_OK && ferror(file)) status = bnd_fail(error, BND_ERROR_IO, "%s: could not be read to its end", path);
  SHA256End(&hash, digest);
  free(piece);
  fclose(file);
  return status;
}

void bnd_sha256_text(const char *text, size_t length, char digest[65]) { SHA256Data((const uint8_t *)text, length, digest); }

void bnd_run_state_close(bnd_run_state *state) {
  free(state->path);
  free(state->quantizers);
  bnd_arena_destroy(state->arena);
  *state = (bnd_run_state){0};
}

/* --- reading; anything unexpected makes the state empty: it is only a shortcut --- */

static bool number_of(const bnd_json *object, const char *key, double *value) {
  const bnd_json *member = bnd_json_member(object, key);
  if (!member || member->type != BND_JSON_NUMBER) return false;
  *value = member->number;
  return true;
}

static bool read_stage(const bnd_json *object, bnd_stage_result *stage) {
  const bnd_json *name = bnd_json_member(object, "name"), *coco = bnd_json_member(object, "coco"), *evaluated = bnd_json_member(object, "evaluated");
  double images = 0;
  if (!name || name->type != BND_JSON_STRING || strlen(name->text) >= sizeof stage->name || !evaluated || evaluated->type != BND_JSON_BOOLEAN) return false;
  *stage = (bnd_stage_result){.evaluated = evaluated->boolean};
  snprintf(stage->name, sizeof stage->name, "%s", name->text);
  if (!number_of(object, "seconds", &stage->seconds) || !number_of(object, "peak_rss_mib", &stage->peak_rss_mib)) return false;
  if (bnd_json_member(object, "kept_low") && (!number_of(object, "kept_low", &stage->kept_low) || !number_of(object, "kept_high", &stage->kept_high))) return false;
  if (!stage->evaluated) return true;
  if (!number_of(object, "map50", &stage->map50) || !number_of(object, "map50_95", &stage->map50_95) || !number_of(object, "images", &images)) return false;
  if (!(images >= 0 && images < 0x1p53) || !coco || coco->type != BND_JSON_ARRAY || coco->count != 12) return false;
  stage->images = (uint64_t)images;
  int at = 0;
  for (const bnd_json *value = coco->first; value; value = value->next) {
    if (value->type != BND_JSON_NUMBER) return false;
    stage->coco[at++] = value->number;
  }
  return true;
}

static bool read_integers(const bnd_json *list, int count, int *values) {
  if (!list || list->type != BND_JSON_ARRAY || list->count != (size_t)count) return false;
  for (const bnd_json *item = list->first; item; item = item->next, values++) {
    if (!item->is_integer || item->integer < -1000 || item->integer > 1000) return false;
    *values = (int)item->integer;
  }
  return true;
}

static bool read_floats(const bnd_json *list, int count, float *values) {
  if (!list || list->type != BND_JSON_ARRAY || list->count != (size_t)count) return false;
  for (const bnd_json *item = list->first; item; item = item->next) {
    if (item->type != BND_JSON_NUMBER) return false;
    *values++ = (float)item->number;
  }
  return true;
}

static bool read_quantizer(bnd_arena *arena, const bnd_json *object, bnd_saved_quantizer *q) {
  const bnd_json *name = bnd_json_member(object, "name"), *positions = bnd_json_member(object, "position");
  if (!name || name->type != BND_JSON_STRING || !positions || positions->type != BND_JSON_ARRAY || positions->count == 0 || positions->count > 1 << 20) return false;
  const size_t channels = positions->count;
  *q = (bnd_saved_quantizer){.name = bnd_arena_copy(arena, name->text), .channels = (int)channels,
                             .position = bnd_arena_alloc(arena, channels, sizeof(int)), .zero_point = bnd_arena_alloc(arena, channels, sizeof(int)),
                             .minimum = bnd_arena_alloc(arena, channels, sizeof(float)), .maximum = bnd_arena_alloc(arena, channels, sizeof(float))};
  if (!q->name || !q->position || !q->zero_point || !q->minimum || !q->maximum || !number_of(object, "saturated", &q->saturated)) return false;
  return read_integers(positions, q->channels, q->position) && read_integers(bnd_json_member(object, "zero_point"), q->channels, q->zero_point) &&
         read_floats(bnd_json_member(object, "min"), q->channels, q->minimum) && read_floats(bnd_json_member(object, "max"), q->channels, q->maximum);
}

/* The stages a run has, each once: results of another kind would stay in the table for ever. */
static bool is_new_stage(const bnd_run_state *state, const char *name) {
  static const char *const known[] = {"fp32", "folded", "ptq", "qat", "aligned"};
  size_t steps;
  const bnd_step_name *step = bnd_best_steps(&steps);
  bool is_known = false;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) is_known |= strcmp(name, known[i]) == 0;
  for (size_t i = 0; i < steps; i++) is_known |= strcmp(name, step[i].name) == 0;
  return is_known && bnd_run_state_stage(state, name) == NULL;
}

static bool read_state(bnd_run_state *state, const bnd_json *root) {
  const bnd_json *stages = bnd_json_member(root, "stages"), *quantizers = bnd_json_member(root, "quantizers"), *training = bnd_json_member(root, "training");
  if (!training || training->type != BND_JSON_STRING || strlen(training->text) >= sizeof state->training) return false;
  snprintf(state->training, sizeof state->training, "%s", training->text);
  if (!stages || stages->type != BND_JSON_ARRAY || stages->count > BND_MAX_STAGES || !quantizers || quantizers->type != BND_JSON_ARRAY) return false;
  for (const bnd_json *item = stages->first; item; item = item->next) {
    bnd_stage_result stage;
    if (!read_stage(item, &stage) || !is_new_stage(state, stage.name)) return false;
    state->stages[state->stage_count++] = stage;
  }
  for (const bnd_json *item = quantizers->first; item; item = item->next) {
    if (!BND_GROW(state->quantizers, state->quantizer_capacity, state->quantizer_count + 1)) return false;
    if (!read_quantizer(state->arena, item, &state->quantizers[state->quantizer_count++])) return false;
  }
  state->calibrated = state->quantizer_count > 0;
  return true;
}

/* The file is {"sha256": "...", "run": followed by the run and }; the digest is the run's, so that a bit that fell over is noticed. */
static const char HEAD[] = "{\"sha256\": \"", MIDDLE[] = "\", \"run\":\n", TAIL[] = "}\n";
enum { DIGEST = 64 };

/* The run's text within a whole file, or NULL. */
static const char *intact_run(const char *text, size_t size, size_t *length) {
  const size_t head = sizeof HEAD - 1, middle = sizeof MIDDLE - 1, tail = sizeof TAIL - 1, around = head + DIGEST + middle + tail;
  if (size < around || memcmp(text, HEAD, head) != 0 || memcmp(text + head + DIGEST, MIDDLE, middle) != 0) return NULL;
  char digest[DIGEST + 1];
  const char *run = text + head + DIGEST + middle;
  *length = size - around;
  bnd_sha256_text(run, *length, digest);
  return memcmp(text + head, digest, DIGEST) == 0 ? run : NULL;
}

/* false: there is a state, but of another run or a damaged one. */
static bool continue_from(bnd_run_state *state, const char *text, size_t size) {
  const bnd_json *root, *known;
  size_t length;
  const char *run = intact_run(text, size, &length);
  if (!run || bnd_json_parse(state->path, run, length, state->arena, &root, NULL) != BND_OK) return false;
  known = bnd_json_member(root, "fingerprint");
  if (known && known->type == BND_JSON_STRING && strcmp(known->text, state->fingerprint) == 0 && read_state(state, root)) return true;
  state->stage_count = 0;
  state->quantizer_count = 0;
  state->calibrated = false;
  *state->training = '\0';
  return false;
}

bnd_status bnd_run_state_open(const char *folder, const char *fingerprint, bool restart, bnd_run_state *state, bool *found_other, bnd_error *error) {
  enum { LIMIT = 64 << 20 };
  *state = (bnd_run_state){.arena = bnd_arena_create()};
  *found_other = false;
  const size_t space = strlen(folder) + 32;
  if (!state->arena || !(state->path = malloc(space))) {
    bnd_run_state_close(state);
    return bnd_fail_memory(error, "the run's state");
  }
  snprintf(state->path, space, "%s/.binade-state.json", folder);
  snprintf(state->fingerprint, sizeof state->fingerprint, "%s", fingerprint);
  struct stat about;
  if (stat(state->path, &about) != 0) return BND_OK;
  if (!S_ISREG(about.st_mode)) /* better now than after the first stage */
    return bnd_fail(error, BND_ERROR_IO, "%s: stands where the state of the run is kept, but is not a regular file; remove it", state->path);
  char *text;
  size_t size;
  if (restart || bnd_file_read(state->path, LIMIT, &text, &size, NULL) != BND_OK) return BND_OK;
  *found_other = !continue_from(state, text, size);
  free(text);
  return BND_OK;
}

/* --- writing --- */

static void write_integers(bnd_json_writer *w, const char *key, const int *values, int count) {
  bnd_json_key(w, key);
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int i = 0; i < count; i++) bnd_json_integer(w, values[i]);
  bnd_json_end_array(w);
}

static void write_floats(bnd_json_writer *w, const char *key, const float *values, int count) {
  bnd_json_key(w, key);
  bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  for (int i = 0; i < count; i++) bnd_json_float(w, values[i]);
  bnd_json_end_array(w);
}

static void write_stage(bnd_json_writer *w, const bnd_stage_result *stage) {
  bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  bnd_json_put_string(w, "name", stage->name);
  bnd_json_put_boolean(w, "evaluated", stage->evaluated);
  bnd_json_put_double(w, "seconds", stage->seconds);
  bnd_json_put_double(w, "peak_rss_mib", stage->peak_rss_mib);
  if (stage->evaluated) {
    bnd_json_put_double(w, "map50", stage->map50);
    bnd_json_put_double(w, "map50_95", stage->map50_95);
    bnd_json_put_integer(w, "images", (int64_t)stage->images);
    bnd_json_key(w, "coco");
    bnd_json_begin_array(w, BND_JSON_ONE_LINE);
    for (int k = 0; k < 12; k++) bnd_json_double(w, stage->coco[k]);
    bnd_json_end_array(w);
  }
  if (stage->kept_high > 0) {
    bnd_json_put_double(w, "kept_low", stage->kept_low);
    bnd_json_put_double(w, "kept_high", stage->kept_high);
  }
  bnd_json_end_object(w);
}

static void write_run(const bnd_run_state *state, bnd_string *text) {
  bnd_json_writer w = {.out = text};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_put_string(&w, "fingerprint", state->fingerprint);
  bnd_json_put_string(&w, "training", state->training);
  bnd_json_key(&w, "stages");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (int i = 0; i < state->stage_count; i++) write_stage(&w, &state->stages[i]);
  bnd_json_end_array(&w);
  bnd_json_key(&w, "quantizers");
  bnd_json_begin_array(&w, BND_JSON_LINES);
  for (size_t i = 0; i < state->quantizer_count; i++) {
    const bnd_saved_quantizer *q = &state->quantizers[i];
    bnd_json_begin_object(&w, BND_JSON_ONE_LINE);
    bnd_json_put_string(&w, "name", q->name);
    write_integers(&w, "position", q->position, q->channels);
    write_integers(&w, "zero_point", q->zero_point, q->channels);
    write_floats(&w, "min", q->minimum, q->channels);
    write_floats(&w, "max", q->maximum, q->channels);
    bnd_json_put_double(&w, "saturated", q->saturated);
    bnd_json_end_object(&w);
  }
  bnd_json_end_array(&w);
  bnd_json_end_object(&w);
}

bnd_status bnd_run_state_write(const bnd_run_state *state, bnd_error *error) {
  bnd_string run = {0}, file = {0};
  char digest[DIGEST + 1] = "";
  write_run(state, &run);
  if (!run.failed) {
    bnd_sha256_text(run.text, run.length, digest);
    bnd_string_format(&file, "%s%s%s", HEAD, digest, MIDDLE);
    bnd_string_append(&file, run.text, run.length);
    bnd_string_append(&file, TAIL, sizeof TAIL - 1);
  }
  const bnd_status status = run.failed || file.failed ? bnd_fail_memory(error, state->path) : bnd_file_write(state->path, file.text, file.length, error);
  bnd_string_free(&run);
  bnd_string_free(&file);
  return status;
}

const bnd_stage_result *bnd_run_state_stage(const bnd_run_state *state, const char *name) {
  for (int i = 0; i < state->stage_count; i++)
    if (strcmp(state->stages[i].name, name) == 0) return &state->stages[i];
  return NULL;
}

void bnd_run_state_set_training(bnd_run_state *state, const char *training) {
  if (strcmp(state->training, training) == 0) return;
  snprintf(state->training, sizeof state->training, "%s", training);
  int kept = 0;
  for (int i = 0; i < state->stage_count; i++)
    if (strcmp(state->stages[i].name, "qat") != 0 && strcmp(state->stages[i].name, "aligned") != 0) state->stages[kept++] = state->stages[i];
  state->stage_count = kept;
}

bnd_status bnd_run_state_add_stage(bnd_run_state *state, const bnd_stage_result *stage, bnd_error *error) {
  if (state->stage_count == BND_MAX_STAGES) return bnd_fail(error, BND_ERROR_INTERNAL, "a run has too many stages");
  state->stages[state->stage_count++] = *stage;
  return bnd_run_state_write(state, error);
}

typedef struct saving {
  bnd_run_state *state;
  bool failed;
} saving;

static void save_quantizer(void *user, const bnd_quantizer_place *place) {
  saving *s = user;
  bnd_run_state *state = s->state;
  const bnd_quantizer *q = place->quantizer;
  const size_t channels = (size_t)q->channels;
  bnd_saved_quantizer saved = {.name = bnd_arena_copy(state->arena, place->name), .channels = q->channels,
                               .position = bnd_arena_alloc(state->arena, channels, sizeof(int)), .zero_point = bnd_arena_alloc(state->arena, channels, sizeof(int)),
                               .minimum = bnd_arena_alloc(state->arena, channels, sizeof(float)), .maximum = bnd_arena_alloc(state->arena, channels, sizeof(float)),
                               .saturated = q->saturated};
  if (!saved.name || !saved.position || !saved.zero_point || !saved.minimum || !saved.maximum ||
      !BND_GROW(state->quantizers, state->quantizer_capacity, state->quantizer_count + 1)) {
    s->failed = true;
    return;
  }
  memcpy(saved.position, q->position, channels * sizeof(int));
  memcpy(saved.zero_point, q->zero_point, channels * sizeof(int));
  memcpy(saved.minimum, q->minimum, channels * sizeof(float));
  memcpy(saved.maximum, q->maximum, channels * sizeof(float));
  state->quantizers[state->quantizer_count++] = saved;
}

bnd_status bnd_run_state_save_quantizers(bnd_run_state *state, const bnd_graph *graph, bnd_error *error) {
  saving s = {state, false};
  state->quantizer_count = 0;
  bnd_visit_quantizers(graph, save_quantizer, &s);
  if (s.failed) return bnd_fail_memory(error, "the run's state");
  state->calibrated = true;
  return bnd_run_state_write(state, error);
}

typedef struct restoring {
  const bnd_run_state *state;
  bnd_map index; /* name -> saved quantizer */
  bool fits;
  size_t restored;
} restoring;

static void restore_quantizer(void *user, const bnd_quantizer_place *place) {
  restoring *r = user;
  size_t at;
  if (!bnd_map_get(&r->index, place->name, &at)) {
    r->fits = false;
    return;
  }
  const bnd_saved_quantizer *saved = &r->state->quantizers[at];
  if (bnd_quantizer_restore(place->quantizer, saved->channels, saved->position, saved->zero_point, saved->minimum, saved->maximum, NULL) != BND_OK) r->fits = false;
  place->quantizer->saturated = saved->saturated;
  r->restored++;
}

bool bnd_run_state_restore_quantizers(const bnd_run_state *state, bnd_graph *graph) {
  restoring r = {.state = state, .fits = true};
  for (size_t i = 0; i < state->quantizer_count && r.fits; i++) r.fits = bnd_map_put(&r.index, state->quantizers[i].name, i);
  if (r.fits) bnd_visit_quantizers(graph, restore_quantizer, &r);
  bnd_map_free(&r.index);
  return r.fits && r.restored == state->quantizer_count;
}

const int *bnd_run_state_positions(const bnd_run_state *state, const char *name, int *channels) {
  for (size_t i = 0; i < state->quantizer_count; i++) {
    if (strcmp(state->quantizers[i].name, name) != 0) continue;
    *channels = state->quantizers[i].channels;
    return state->quantizers[i].position;
  }
  return NULL;
}
