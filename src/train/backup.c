#include <stdlib.h>
#include <string.h>

#include "train/internal.h"

bnd_status bnd_backup_create(bnd_trainer *t, bnd_error *error) {
  size_t count;
  bnd_network_quantizers(t->network, &count);
  t->quantizer_backup = bnd_calloc(count + 1, sizeof *t->quantizer_backup);
  return t->quantizer_backup ? BND_OK : bnd_fail_memory(error, "training");
}

void bnd_backup_destroy(bnd_trainer *t) {
  size_t count;
  bnd_network_quantizers(t->network, &count);
  for (size_t q = 0; t->quantizer_backup && q < count; q++) bnd_quantizer_destroy(t->quantizer_backup[q]);
  free(t->quantizer_backup);
}

bnd_status bnd_backup_take(bnd_trainer *t, bnd_error *error) {
  size_t statistic_count, quantizer_count;
  const bnd_statistic *statistics = bnd_network_statistics(t->network, &statistic_count);
  const bnd_network_quantizer *quantizers = bnd_network_quantizers(t->network, &quantizer_count);
  for (size_t s = 0; s < statistic_count; s++) memcpy(t->backup[s], statistics[s].value, statistics[s].count * sizeof(float));
  for (size_t q = 0; q < quantizer_count; q++) {
    bnd_quantizer_destroy(t->quantizer_backup[q]);
    t->quantizer_backup[q] = NULL;
  }
  for (size_t q = 0; q < quantizer_count; q++) {
    t->quantizer_backup[q] = bnd_quantizer_copy(quantizers[q].quantizer);
    if (!t->quantizer_backup[q]) return bnd_fail_memory(error, "training");
  }
  return BND_OK;
}

void bnd_backup_put_back(bnd_trainer *t) {
  size_t statistic_count, quantizer_count;
  const bnd_statistic *statistics = bnd_network_statistics(t->network, &statistic_count);
  const bnd_network_quantizer *quantizers = bnd_network_quantizers(t->network, &quantizer_count);
  for (size_t s = 0; s < statistic_count; s++) memcpy(statistics[s].value, t->backup[s], statistics[s].count * sizeof(float));
  for (size_t q = 0; q < quantizer_count; q++) {
    if (!t->quantizer_backup[q]) continue;
    const bnd_quantizer now = *quantizers[q].quantizer;
    *quantizers[q].quantizer = *t->quantizer_backup[q];
    *t->quantizer_backup[q] = now;
  }
}
