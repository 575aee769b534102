/* Batch statistics: moments of the images, added up in their order, in double. */
#include <math.h>

#include "autograd/internal.h"

norm *bnd_norm_create(bnd_network *network, size_t padded_channels) {
  norm *made = bnd_network_keep(network, 1, sizeof *made);
  float *vectors = bnd_network_keep(network, padded_channels * 7, sizeof *vectors);
  if (!made || !vectors) return NULL;
  float **const places[] = {&made->mean, &made->reciprocal, &made->scale, &made->shift, &made->factor, &made->slope, &made->offset};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) *places[i] = vectors + i * padded_channels;
  made->gamma = made->beta = NO_INDEX;
  return made;
}

bnd_status bnd_norm_batch_statistics(bnd_network *network, step *it, int moments_of, const float *mean_shift, bnd_error *error) {
  const bnd_layout layout = bnd_network_layout(&network->values[moments_of]);
  const size_t padded = bnd_layout_channels(&layout);
  const double count = (double)(layout.height * layout.width) * network->options.batch;
  norm *n = it->norm;
  for (size_t c = 0; c < layout.channels; c++) {
    double sum = 0, square = 0;
    for (int image = 0; image < network->options.batch; image++) {
      const double *moments = bnd_network_slot(network, it->sums, image);
      sum += moments[c];
      square += moments[padded + c];
    }
    const double mean = sum / count;
    double variance = square / count - mean * mean;
    if (variance < 0) variance = 0; /* rounding of equal values */
    if (!isfinite((float)mean) || !isfinite((float)variance) || !isfinite((float)(variance * 2)))
      return bnd_fail(error, BND_ERROR_MODEL, "%s: channel %zu has values that are not finite", it->name, c);
    const float shift = mean_shift ? mean_shift[c] : 0.f, momentum = (float)n->momentum;
    const double unbiased = count > 1 ? variance * (count / (count - 1)) : variance;
    n->running_mean[c] = (1.f - momentum) * n->running_mean[c] + momentum * ((float)mean + shift);
    n->running_variance[c] = (1.f - momentum) * n->running_variance[c] + momentum * (float)unbiased;
    n->mean[c] = (float)mean;
    n->reciprocal[c] = (float)(1 / sqrt(variance + n->epsilon));
  }
  return BND_OK;
}

void bnd_norm_running_statistics(step *it, size_t channels) {
  norm *n = it->norm;
  for (size_t c = 0; c < channels; c++) {
    n->mean[c] = n->running_mean[c];
    n->reciprocal[c] = 1.f / sqrtf(n->running_variance[c] + (float)n->epsilon);
  }
}
