#include <string.h>

#include "formats/checkpoint/container.h"

static const char *const KEYS[] = {"ema_net", "net", "state_dict"}; /* in the order they are tried */

/* Objects made by torch's rebuild functions that the unpickler did not turn into tensors: malformed, sparse, quantized, ... */
static bool is_foreign_tensor(const bnd_value *value) {
  return value->kind == BND_VALUE_OPAQUE && (value->opaque.reason || strncmp(value->opaque.name, "torch._utils._rebuild", 21) == 0);
}

static bool holds_tensors(const bnd_value *dict) {
  if (dict->kind != BND_VALUE_DICT) return false;
  for (size_t i = 0; i < dict->dict.count; i++)
    if (dict->dict.pairs[i].value->kind == BND_VALUE_TENSOR || is_foreign_tensor(dict->dict.pairs[i].value)) return true;
  return false;
}

/* "epoch, model, optimizer": what the file has instead of a state dict. */
static void list_keys(const bnd_value *dict, bnd_string *text) {
  size_t listed = 0;
  for (size_t i = 0; i < dict->dict.count && listed < 12; i++) {
    const char *key = bnd_value_text(dict->dict.pairs[i].key);
    bool printable = key != NULL;
    for (const char *at = key; at && *at; at++) printable &= (unsigned char)*at >= ' ' && *at != 0x7f;
    if (printable) bnd_string_format(text, "%s%.60s", listed++ ? ", " : "", key);
  }
  if (!listed) bnd_string_format(text, "no names at all");
}

static bnd_status no_state_dict(const bnd_checkpoint *checkpoint, bnd_error *error) {
  const bnd_value *root = checkpoint->root;
  char description[BND_VALUE_DESCRIPTION];
  if (root->kind == BND_VALUE_OPAQUE)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: holds %s, not a state dict; load it where its code is and save model.state_dict()", checkpoint->path,
                    bnd_value_describe(root, description));
  if (root->kind != BND_VALUE_DICT)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: holds %s, not a state dict; save model.state_dict()", checkpoint->path,
                    bnd_value_describe(root, description));
  bnd_string keys = {0};
  list_keys(root, &keys);
  const bnd_status status = bnd_fail(
      error, BND_ERROR_MODEL, "%s: holds no state dict: neither ema_net, net nor state_dict is there, nor tensors at its top level (there is: %s)",
      checkpoint->path, keys.failed ? "" : keys.text);
  bnd_string_free(&keys);
  return status;
}

static bnd_status find_dict(const bnd_checkpoint *checkpoint, const char *key, const bnd_value **dict, const char **found, bnd_error *error) {
  const bnd_value *value = NULL;
  char description[BND_VALUE_DESCRIPTION];
  for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS && !value; i++) {
    *found = key ? key : KEYS[i];
    value = bnd_value_get(checkpoint->root, *found);
    if (value && value->kind == BND_VALUE_NONE) value = NULL;
  }
  if (!value && key) return bnd_fail(error, BND_ERROR_MODEL, "%s: has no state dict under the key '%s'", checkpoint->path, key);
  if (!value) {
    if (!holds_tensors(checkpoint->root)) return no_state_dict(checkpoint, error);
    value = checkpoint->root;
    *found = "";
  }
  if (value->kind != BND_VALUE_DICT)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: %s is %s, not a state dict; save model.state_dict()", checkpoint->path, *found,
                    bnd_value_describe(value, description));
  *dict = value;
  return BND_OK;
}

/* Names are printed and looked up: no control characters, no NUL. */
static bool is_proper_name(const bnd_value *name) {
  if (name->kind != BND_VALUE_STRING || name->string.length == 0) return false;
  for (size_t i = 0; i < name->string.length; i++)
    if ((unsigned char)name->string.text[i] < ' ' || name->string.text[i] == 0x7f) return false;
  return true;
}

static bnd_status add_entry(bnd_checkpoint *checkpoint, const bnd_value_pair *pair, size_t index, bnd_state_dict *state_dict, bnd_map *names,
                            uint64_t *bytes, bnd_error *error) {
  const bnd_value *value = pair->value;
  if (value->kind != BND_VALUE_TENSOR && !is_foreign_tensor(value)) {
    state_dict->ignored++;
    return BND_OK;
  }
  if (!is_proper_name(pair->key))
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: tensor %zu of the state dict has no printable name", checkpoint->path, index);
  const char *name = pair->key->string.text;
  if (value->kind != BND_VALUE_TENSOR)
    return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: tensor '%s' (%s) is of a kind that cannot be read: %s; save it as a dense float tensor",
                    checkpoint->path, name, value->opaque.name, value->opaque.reason ? value->opaque.reason : "not a dense tensor");
  if (bnd_map_get(names, name, NULL))
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: tensor '%s' occurs twice in the state dict; the file is damaged", checkpoint->path, name);
  if (!bnd_map_put(names, name, index)) return bnd_fail_memory(error, checkpoint->path);
  const bnd_status status = bnd_checkpoint_check_tensor(checkpoint, value->tensor, bytes, error);
  if (status != BND_OK) return bnd_fail_prefix(error, status, "%s: tensor '%s'", checkpoint->path, name);
  state_dict->entries[state_dict->count++] = (bnd_state_dict_entry){name, value->tensor->type->dtype, value->tensor->shape, value};
  return BND_OK;
}

/* DataParallel puts "module." in front of every name; it goes only if all names have it. */
static void strip_prefix(bnd_state_dict *state_dict) {
  static const char PREFIX[] = "module.";
  const size_t length = sizeof PREFIX - 1;
  for (size_t i = 0; i < state_dict->count; i++)
    if (strncmp(state_dict->entries[i].name, PREFIX, length) != 0 || state_dict->entries[i].name[length] == '\0') return;
  for (size_t i = 0; i < state_dict->count; i++) state_dict->entries[i].name += length;
  state_dict->has_prefix = true;
}

bnd_status bnd_checkpoint_state_dict(bnd_checkpoint *checkpoint, const char *key, bnd_state_dict *state_dict, bnd_error *error) {
  const bnd_value *dict = NULL;
  bnd_state_dict fresh = {0};
  BND_TRY(find_dict(checkpoint, key, &dict, &fresh.key, error));
  fresh.entries = bnd_arena_alloc(checkpoint->builder.pool.arena, dict->dict.count, sizeof *fresh.entries);
  if (!fresh.entries) return bnd_fail_memory(error, checkpoint->path);
  bnd_map names = {0};
  uint64_t bytes = 0;
  bnd_status status = BND_OK;
  for (size_t i = 0; i < dict->dict.count && status == BND_OK; i++)
    status = add_entry(checkpoint, &dict->dict.pairs[i], i, &fresh, &names, &bytes, error);
  bnd_map_free(&names);
  if (status != BND_OK) return status;
  if (fresh.count == 0)
    return bnd_fail(error, BND_ERROR_MODEL, "%s: the state dict%s%s contains no tensors", checkpoint->path, *fresh.key ? " " : "", fresh.key);
  strip_prefix(&fresh);
  *state_dict = fresh;
  return BND_OK;
}
