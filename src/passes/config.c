#include "passes/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

bnd_quantization_config bnd_quantization_config_xint8(bnd_observer_kind observer) {
  const bnd_role_config role = {true, {.dtype = BND_I8, .observer = observer}};
  return (bnd_quantization_config){.global = {role, role, role, role}};
}

bnd_status bnd_quantization_config_add_layer(bnd_quantization_config *config, const char *name, const bnd_layer_config *layer, bnd_error *error) {
  char *copy = strdup(name);
  if (!copy || !BND_GROW(config->layers, config->layer_capacity, config->layer_count + 1)) {
    free(copy);
    return bnd_fail_memory(error, "the quantization configuration");
  }
  config->layers[config->layer_count++] = (bnd_named_layer_config){copy, *layer};
  return BND_OK;
}

void bnd_quantization_config_free(bnd_quantization_config *config) {
  for (size_t i = 0; i < config->layer_count; i++) free(config->layers[i].name);
  free(config->layers);
  *config = (bnd_quantization_config){0};
}
