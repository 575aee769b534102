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

/* Quark's module works on float tensors, one rounding for each operation (quantize_conv_bn_fused.py, batch_stats and forward). */
static void round_as_module(norm *n, size_t c, float variance, double count, float bias) {
  const float keep = (float)(1 - n->momentum), take = (float)n->momentum;
  const float unbiased = variance * (float)(count > 1 ? count / (count - 1) : 1);
  n->running_mean[c] = n->running_mean[c] * keep + take * (n->mean[c] + bias);
  n->running_variance[c] = n->running_variance[c] * keep + take * unbiased;
  n->reciprocal[c] = 1.f / sqrtf(variance + (float)n->epsilon);
}

/* torch's batch norm works in double and rounds what it stores (aten/native/Normalization.cpp). */
static void round_as_function(norm *n, size_t c, double mean, double variance, double count) {
  const double unbiased = count > 1 ? variance * (count / (count - 1)) : variance;
  n->running_mean[c] = (float)(n->momentum * mean + (1 - n->momentum) * (double)n->running_mean[c]);
  n->running_variance[c] = (float)(n->momentum * unbiased + (1 - n->momentum) * (double)n->running_variance[c]);
  n->reciprocal[c] = (float)(1 / sqrt(variance + n->epsilon));
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
    n->mean[c] = (float)mean;
    if (it->kind == STEP_CONVOLUTION)
      round_as_module(n, c, (float)variance, count, mean_shift ? mean_shift[c] : 0.f);
    else
      round_as_function(n, c, mean, variance, count);
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
