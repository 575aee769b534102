/* What to quantize and how: Quark's QConfig, as far as power-of-two targets use it. */
#ifndef BND_PASSES_CONFIG_H
#define BND_PASSES_CONFIG_H

#include "quant/quantizer.h"

/* One role's scheme; absent = not quantized (globally) or not overridden (in a layer). */
typedef struct bnd_role_config {
  bool present;
  bnd_quantizer_spec spec;
} bnd_role_config;

typedef struct bnd_layer_config {
  bnd_role_config input, output, weight, bias;
} bnd_layer_config;

typedef struct bnd_named_layer_config {
  char *name; /* original module path ("neck.neck1.conv"), or a node's name; owned */
  bnd_layer_config config;
} bnd_named_layer_config;

typedef struct bnd_quantization_config {
  bnd_layer_config global;
  bnd_named_layer_config *layers; /* overrides; owned */
  size_t layer_count, layer_capacity;
} bnd_quantization_config;

/* Everything int8, per tensor, with this observer: the tutorial's XINT8. Nothing to free until layers are added. */
bnd_quantization_config bnd_quantization_config_xint8(bnd_observer_kind observer);
bnd_status bnd_quantization_config_add_layer(bnd_quantization_config *config, const char *name, const bnd_layer_config *layer, bnd_error *error);
void bnd_quantization_config_free(bnd_quantization_config *config);

#endif
