#include "flow/target_profile.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/near.h"
#include "formats/json/json.h"
#include "target_profiles.h" /* generated from targets/ */

static bnd_status wrong(const char *name, const char *key, bnd_error *error) {
  return bnd_fail(error, BND_ERROR_FORMAT, "%s: \"%s\" is missing or of the wrong kind; targets/amd-xint8.json shows the shape", name, key);
}

static bool read_integer(const bnd_json *root, const char *key, int *value) {
  const bnd_json *member = bnd_json_member(root, key);
  if (!member || !member->is_integer || member->integer < -1000 || member->integer > 1000) return false;
  *value = (int)member->integer;
  return true;
}

static bool read_limits(const bnd_json *root, const char *key, bnd_limits *limits) {
  const bnd_json *member = bnd_json_member(root, key);
  if (!member || member->type != BND_JSON_ARRAY || member->count != 2 || !member->first->is_integer || !member->first->next->is_integer) return false;
  const int64_t low = member->first->integer, high = member->first->next->integer;
  if (low < -1000 || high > 1000 || low > high) return false;
  *limits = (bnd_limits){(int)low, (int)high};
  return true;
}

static bool read_boolean(const bnd_json *root, const char *key, bool *value) {
  const bnd_json *member = bnd_json_member(root, key);
  if (!member || member->type != BND_JSON_BOOLEAN) return false;
  *value = member->boolean;
  return true;
}

static bool read_text(const bnd_json *root, const char *key, char *text, size_t size) {
  const bnd_json *member = bnd_json_member(root, key);
  if (!member || member->type != BND_JSON_STRING) return false;
  return (size_t)snprintf(text, size, "%s", member->text) < size;
}

static bnd_status read_profile(const char *name, const bnd_json *root, bnd_target_profile *p, bnd_error *error) {
  *p = (bnd_target_profile){.float_tail = true};
  static const char *const known[] = {"name", "description", "rounding", "align_concat", "align_pool", "align_slice", "shift_read", "shift_write_add",
                                      "shift_write_mul", "shift_cut", "shift_bias_high", "accumulator_bits", "hard_sigmoid_input", "hard_sigmoid_output_low",
                                      "hard_sigmoid_shift", "hard_sigmoid_factor", "shift_swish", "float_tail"};
  if (root->type != BND_JSON_OBJECT) return bnd_fail(error, BND_ERROR_FORMAT, "%s: is not a JSON object", name);
  BND_TRY(bnd_json_only_keys(name, root, known, sizeof known / sizeof *known, error));
#define READ(kind, key, ...) \
  if (!read_##kind(root, key, __VA_ARGS__)) return wrong(name, key, error)
  READ(text, "name", p->name, sizeof p->name);
  READ(text, "description", p->description, sizeof p->description);
  READ(text, "rounding", p->rounding, sizeof p->rounding);
  READ(boolean, "align_concat", &p->align_concat);
  READ(boolean, "align_pool", &p->align_pool);
  READ(boolean, "align_slice", &p->align_slice);
  READ(limits, "shift_read", &p->shift_read);
  READ(limits, "shift_write_add", &p->shift_write_add);
  READ(limits, "shift_write_mul", &p->shift_write_mul);
  READ(limits, "shift_cut", &p->shift_cut);
  READ(integer, "shift_bias_high", &p->shift_bias_high);
  READ(integer, "accumulator_bits", &p->accumulator_bits);
  READ(limits, "hard_sigmoid_input", &p->hard_sigmoid_input);
  READ(integer, "hard_sigmoid_output_low", &p->hard_sigmoid_output_low);
  READ(integer, "hard_sigmoid_shift", &p->hard_sigmoid_shift);
  READ(limits, "shift_swish", &p->shift_swish);
  if (bnd_json_member(root, "float_tail")) READ(boolean, "float_tail", &p->float_tail);
#undef READ
  const bnd_json *factor = bnd_json_member(root, "hard_sigmoid_factor");
  if (!factor || factor->type != BND_JSON_NUMBER || !(factor->number > 0)) return wrong(name, "hard_sigmoid_factor", error);
  p->hard_sigmoid_factor = factor->number;
  return BND_OK;
}

static const char *built_in(const char *name) {
  for (size_t i = 0; i < sizeof BND_TARGET_PROFILES / sizeof *BND_TARGET_PROFILES; i++)
    if (strcmp(BND_TARGET_PROFILES[i].name, name) == 0) return BND_TARGET_PROFILES[i].json;
  return NULL;
}

bool bnd_target_profile_is_file(const char *name) {
  const size_t length = name ? strlen(name) : 0;
  return length > 5 && strcmp(name + length - 5, ".json") == 0;
}

bnd_status bnd_target_profile_load(const char *name, bnd_target_profile *profile, bnd_error *error) {
  if (!name) name = "amd-xint8";
  const char *text = built_in(name);
  if (!text && !bnd_target_profile_is_file(name)) {
    bnd_near_names known = {.wanted = name};
    char list[256];
    for (size_t i = 0; i < sizeof BND_TARGET_PROFILES / sizeof *BND_TARGET_PROFILES; i++) bnd_near_offer(&known, BND_TARGET_PROFILES[i].name);
    return bnd_fail(error, BND_ERROR_ARGUMENT, "no target is called \"%s\"; known: %s, or a profile of your own as FILE.json", name,
                    bnd_near_text(&known, list, sizeof list));
  }
  bnd_arena *arena = bnd_arena_create();
  if (!arena) return bnd_fail_memory(error, name);
  const bnd_json *root;
  bnd_status status = text ? bnd_json_parse(name, text, strlen(text), arena, &root, error) : bnd_json_parse_file(name, 1 << 20, arena, &root, error);
  if (status == BND_OK) status = read_profile(name, root, profile, error);
  bnd_arena_destroy(arena);
  return status;
}
