#include "flow/config_json.h"

#include <stdio.h>
#include <string.h>

#include "formats/json/json.h"

typedef struct reader {
  const char *path;
  bnd_error *error;
} reader;

static const char *const ROLES[] = {"input_tensors", "output_tensors", "weight", "bias"};

static bnd_role_config *role_of(bnd_layer_config *layer, int index) {
  bnd_role_config *const roles[] = {&layer->input, &layer->output, &layer->weight, &layer->bias};
  return roles[index];
}

static bnd_status wrong(const reader *r, const bnd_json *at, const char *key, const char *expected) {
  return bnd_fail(r->error, BND_ERROR_FORMAT, "%s: line %zu: \"%s\" must be %s", r->path, at->line, key, expected);
}

static bnd_status unsupported(const reader *r, const bnd_json *at, const char *key, const char *value, const char *supported) {
  return bnd_fail(r->error, BND_ERROR_UNSUPPORTED, "%s: line %zu: \"%s\": \"%s\" is not supported; power-of-two targets use %s", r->path, at->line, key, value,
                  supported);
}

/* A key that may only be absent, null, false or empty here. */
static bnd_status must_be_off(const reader *r, const bnd_json *object, const char *key) {
  const bnd_json *member = bnd_json_member(object, key);
  if (!member || member->type == BND_JSON_NULL || (member->type == BND_JSON_BOOLEAN && !member->boolean)) return BND_OK;
  return wrong(r, member, key, "null or false");
}

static const char *text_member(const bnd_json *object, const char *key) {
  const bnd_json *member = bnd_json_member(object, key);
  return member && member->type == BND_JSON_STRING ? member->text : NULL;
}

/* A key of a specification that may only have one value here. */
static bnd_status fixed_text(const reader *r, const bnd_json *spec, const char *key, const char *only) {
  const char *text = text_member(spec, key);
  return !text || strcmp(text, only) == 0 ? BND_OK : unsupported(r, bnd_json_member(spec, key), key, text, only);
}

static bnd_status read_observer(const reader *r, const bnd_json *spec, bnd_quantizer_spec *out) {
  static const struct {
    const char *name;
    bool per_channel;
    bnd_observer_kind kind;
  } observers[] = {
      {"PerTensorPowOf2MinMaxObserver", false, BND_OBSERVER_POWER_OF_TWO_MIN_MAX},
      {"PerTensorPowOf2MinMSEObserver", false, BND_OBSERVER_POWER_OF_TWO_MIN_MSE},
      {"PerChannelPowOf2MinMaxObserver", true, BND_OBSERVER_POWER_OF_TWO_MIN_MAX},
      {"PerChannelPowOf2MinMSEObserver", true, BND_OBSERVER_POWER_OF_TWO_MIN_MSE},
  };
  const char *name = text_member(spec, "observer_cls");
  if (!name) return wrong(r, spec, "observer_cls", "the name of an observer, for example \"PerTensorPowOf2MinMaxObserver\"");
  for (size_t i = 0; i < sizeof observers / sizeof *observers; i++) {
    if (strcmp(name, observers[i].name) != 0) continue;
    if (observers[i].per_channel != out->per_channel)
      return bnd_fail(r->error, BND_ERROR_FORMAT, "%s: line %zu: observer %s does not fit the qscheme", r->path, spec->line, name);
    out->observer = observers[i].kind;
    return BND_OK;
  }
  return unsupported(r, bnd_json_member(spec, "observer_cls"), "observer_cls", name, "Per{Tensor,Channel}PowOf2Min{Max,MSE}Observer");
}

static bnd_status read_spec(const reader *r, const bnd_json *spec, bnd_quantizer_spec *out) {
  static const char *const known[] = {"dtype", "is_dynamic", "qscheme", "ch_axis", "group_size", "block_size", "symmetric", "round_method", "scale_type",
                                      "scale_format", "scale_calculation_mode", "mx_element_dtype", "observer_cls", "is_scale_quant", "enable_buffer_reuse",
                                      "max_input_numel", "zero_point_type", "qat_spec"};
  static const char *const off[] = {"is_dynamic", "group_size", "block_size", "scale_format", "scale_calculation_mode", "mx_element_dtype", "is_scale_quant"};
  *out = (bnd_quantizer_spec){0};
  BND_TRY(bnd_json_only_keys(r->path, spec, known, sizeof known / sizeof *known, r->error));
  for (size_t i = 0; i < sizeof off / sizeof *off; i++) BND_TRY(must_be_off(r, spec, off[i]));
  const char *dtype = text_member(spec, "dtype"), *scheme = text_member(spec, "qscheme");
  if (!dtype) return wrong(r, spec, "dtype", "\"int8\" or \"uint8\"");
  if (strcmp(dtype, "int8") == 0) out->dtype = BND_I8;
  else if (strcmp(dtype, "uint8") == 0) out->dtype = BND_U8;
  else return unsupported(r, bnd_json_member(spec, "dtype"), "dtype", dtype, "int8 and uint8");
  if (!scheme) return wrong(r, spec, "qscheme", "\"per_tensor\" or \"per_channel\"");
  out->per_channel = strcmp(scheme, "per_channel") == 0;
  if (!out->per_channel && strcmp(scheme, "per_tensor") != 0) return unsupported(r, bnd_json_member(spec, "qscheme"), "qscheme", scheme, "per_tensor, per_channel");
  const bnd_json *axis = bnd_json_member(spec, "ch_axis"), *symmetric = bnd_json_member(spec, "symmetric");
  if (out->per_channel) {
    if (!axis || !axis->is_integer || axis->integer < -BND_MAX_RANK || axis->integer >= BND_MAX_RANK) return wrong(r, axis ? axis : spec, "ch_axis", "an axis of the tensor");
    out->channel_axis = (int)axis->integer;
  }
  if (symmetric && symmetric->type != BND_JSON_NULL && !(symmetric->type == BND_JSON_BOOLEAN && symmetric->boolean)) return wrong(r, symmetric, "symmetric", "true");
  BND_TRY(fixed_text(r, spec, "round_method", "half_even"));
  BND_TRY(fixed_text(r, spec, "scale_type", "float"));
  return read_observer(r, spec, out);
}

static bnd_status read_layer(const reader *r, const bnd_json *object, bnd_layer_config *layer) {
  *layer = (bnd_layer_config){0};
  if (object->type != BND_JSON_OBJECT) return wrong(r, object, object->key ? object->key : "layer", "an object");
  for (const bnd_json *member = object->first; member; member = member->next) {
    int role = 0;
    while (role < 4 && strcmp(member->key, ROLES[role]) != 0) role++;
    if (role == 4) {
      if (strcmp(member->key, "target_device") == 0) continue;
      return bnd_fail(r->error, BND_ERROR_FORMAT, "%s: line %zu: unknown key \"%s\"; a layer has input_tensors, output_tensors, weight and bias", r->path,
                      member->line, member->key);
    }
    if (member->type == BND_JSON_NULL) continue;
    if (member->type != BND_JSON_OBJECT) return wrong(r, member, member->key, "an object or null");
    bnd_role_config *config = role_of(layer, role);
    config->present = true;
    BND_TRY(read_spec(r, member, &config->spec));
    if (config->spec.per_channel && role < 2)
      return bnd_fail(r->error, BND_ERROR_UNSUPPORTED, "%s: line %zu: \"%s\": per_channel is for weight and bias; activations are per_tensor", r->path,
                      member->line, member->key);
  }
  return BND_OK;
}

static bnd_status read_root(const reader *r, const bnd_json *root, bnd_quantization_config *config) {
  static const char *const known[] = {"global_quant_config", "layer_quant_config", "layer_type_quant_config", "kv_cache_quant_config", "kv_cache_post_rope",
                                      "min_kv_scale", "exclude", "algo_config", "softmax_quant_spec", "quant_method", "quant_mode", "log_severity_level", "version"};
  if (root->type != BND_JSON_OBJECT) return bnd_fail(r->error, BND_ERROR_FORMAT, "%s: is not a JSON object", r->path);
  BND_TRY(bnd_json_only_keys(r->path, root, known, sizeof known / sizeof *known, r->error));
  const bnd_json *global = bnd_json_member(root, "global_quant_config"), *layers = bnd_json_member(root, "layer_quant_config");
  if (!global) return bnd_fail(r->error, BND_ERROR_FORMAT, "%s: \"global_quant_config\" is missing", r->path);
  BND_TRY(read_layer(r, global, &config->global));
  static const char *const without_effect[] = {"layer_type_quant_config", "exclude", "algo_config", "softmax_quant_spec", "kv_cache_quant_config"};
  for (size_t i = 0; i < sizeof without_effect / sizeof *without_effect; i++) {
    const bnd_json *member = bnd_json_member(root, without_effect[i]);
    if (member && member->type != BND_JSON_NULL && member->count > 0)
      return bnd_fail(r->error, BND_ERROR_UNSUPPORTED, "%s: line %zu: \"%s\" has no effect in graph mode; use \"layer_quant_config\", stubs or --scope", r->path,
                      member->line, without_effect[i]);
  }
  if (layers && layers->type != BND_JSON_OBJECT && layers->type != BND_JSON_NULL) return wrong(r, layers, "layer_quant_config", "an object");
  for (const bnd_json *layer = layers ? layers->first : NULL; layer; layer = layer->next) {
    bnd_layer_config parsed;
    BND_TRY(read_layer(r, layer, &parsed));
    BND_TRY(bnd_quantization_config_add_layer(config, layer->key, &parsed, r->error));
  }
  return BND_OK;
}

bnd_status bnd_config_read(const char *path, bnd_quantization_config *config, bnd_error *error) {
  enum { LIMIT = 16 << 20 };
  *config = (bnd_quantization_config){0};
  bnd_arena *arena = bnd_arena_create();
  if (!arena) return bnd_fail_memory(error, path);
  const bnd_json *root;
  const reader r = {path, error};
  bnd_status status = bnd_json_parse_file(path, LIMIT, arena, &root, error);
  if (status == BND_OK) status = read_root(&r, root, config);
  bnd_arena_destroy(arena);
  if (status != BND_OK) bnd_quantization_config_free(config);
  return status;
}

/* --- writing --- */

static void write_empty(bnd_json_writer *w, const char *key, bool object) {
  bnd_json_key(w, key);
  if (object) bnd_json_begin_object(w, BND_JSON_ONE_LINE);
  else bnd_json_begin_array(w, BND_JSON_ONE_LINE);
  if (object) bnd_json_end_object(w);
  else bnd_json_end_array(w);
}

static void write_spec(bnd_json_writer *w, const bnd_quantizer_spec *spec) {
  char observer[64];
  snprintf(observer, sizeof observer, "Per%sPowOf2Min%sObserver", spec->per_channel ? "Channel" : "Tensor",
           spec->observer == BND_OBSERVER_POWER_OF_TWO_MIN_MSE ? "MSE" : "Max");
  bnd_json_begin_object(w, BND_JSON_LINES);
  bnd_json_put_string(w, "dtype", bnd_dtype_name(spec->dtype));
  bnd_json_put_boolean(w, "is_dynamic", false);
  bnd_json_put_string(w, "qscheme", spec->per_channel ? "per_channel" : "per_tensor");
  bnd_json_key(w, "ch_axis");
  if (spec->per_channel) bnd_json_integer(w, spec->channel_axis);
  else bnd_json_null(w);
  bnd_json_put_null(w, "group_size");
  bnd_json_put_null(w, "block_size");
  bnd_json_put_boolean(w, "symmetric", true);
  bnd_json_put_string(w, "round_method", "half_even");
  bnd_json_put_string(w, "scale_type", "float");
  bnd_json_put_null(w, "scale_format");
  bnd_json_put_null(w, "scale_calculation_mode");
  bnd_json_put_null(w, "mx_element_dtype");
  bnd_json_put_string(w, "observer_cls", observer);
  bnd_json_put_boolean(w, "is_scale_quant", false);
  bnd_json_put_boolean(w, "enable_buffer_reuse", false);
  bnd_json_put_integer(w, "max_input_numel", 4194304);
  bnd_json_end_object(w);
}

static void write_layer(bnd_json_writer *w, const bnd_layer_config *layer) {
  const bnd_role_config *const roles[] = {&layer->input, &layer->output, &layer->weight, &layer->bias};
  bnd_json_begin_object(w, BND_JSON_LINES);
  for (int i = 0; i < 4; i++) {
    bnd_json_key(w, ROLES[i]);
    if (roles[i]->present) write_spec(w, &roles[i]->spec);
    else bnd_json_null(w);
  }
  bnd_json_put_null(w, "target_device");
  bnd_json_end_object(w);
}

void bnd_config_write(const bnd_quantization_config *config, bnd_string *text) {
  bnd_json_writer w = {.out = text};
  bnd_json_begin_object(&w, BND_JSON_LINES);
  bnd_json_key(&w, "global_quant_config");
  write_layer(&w, &config->global);
  write_empty(&w, "layer_type_quant_config", true);
  bnd_json_key(&w, "layer_quant_config");
  bnd_json_begin_object(&w, BND_JSON_LINES);
  for (size_t i = 0; i < config->layer_count; i++) {
    bnd_json_key(&w, config->layers[i].name);
    write_layer(&w, &config->layers[i].config);
  }
  bnd_json_end_object(&w);
  write_empty(&w, "kv_cache_quant_config", true);
  bnd_json_put_boolean(&w, "kv_cache_post_rope", false);
  write_empty(&w, "exclude", false);
  bnd_json_put_null(&w, "algo_config");
  bnd_json_put_null(&w, "softmax_quant_spec");
  bnd_json_put_string(&w, "quant_method", "quark");
  bnd_json_put_string(&w, "quant_mode", "fx_graph_mode");
  bnd_json_end_object(&w);
}
