/* Quantization configurations in the shape Quark serializes them (fx-quantization 1.4, 1.8). */
#ifndef BND_FLOW_CONFIG_JSON_H
#define BND_FLOW_CONFIG_JSON_H

#include "base/memory.h"
#include "passes/config.h"

/* Reads FILE; *config is the caller's (bnd_quantization_config_free). Keys that would be silently without effect are errors naming their line. */
bnd_status bnd_config_read(const char *path, bnd_quantization_config *config, bnd_error *error);
/* Appends the configuration as JSON. */
void bnd_config_write(const bnd_quantization_config *config, bnd_string *text);

#endif
