#include <math.h>

#include "kernels/reference/reference.h"

typedef struct layout {
  size_t images, channels, inner;
} layout;

static layout layout_of(const bnd_shape *shape) {
  return (layout){(size_t)shape->size[0], (size_t)shape->size[1], bnd_span(shape, 2, shape->rank)};
}

void bnd_batch_norm_statistics(const bnd_array *x, double *mean, double *variance) {
  const layout l = layout_of(&x->shape);
  const double count = (double)(l.images * l.inner);
  for (size_t c = 0; c < l.channels; c++) {
    double sum = 0, squares = 0;
    for (size_t n = 0; n < l.images; n++)
      for (size_t i = 0; i < l.inner; i++) sum += (double)x->data[(n * l.channels + c) * l.inner + i];
    mean[c] = sum / count;
    for (size_t n = 0; n < l.images; n++)
      for (size_t i = 0; i < l.inner; i++) {
        const double distance = (double)x->data[(n * l.channels + c) * l.inner + i] - mean[c];
        squares += distance * distance;
      }
    variance[c] = squares / count;
  }
}

void bnd_batch_norm_update(const bnd_shape *shape, const double *mean, const double *variance, double momentum, bnd_real *running_mean,
                           bnd_real *running_variance) {
  const layout l = layout_of(shape);
  const double count = (double)(l.images * l.inner);
  for (size_t c = 0; c < l.channels; c++) {
    running_mean[c] = (bnd_real)((1.0 - momentum) * (double)running_mean[c] + momentum * mean[c]);
    running_variance[c] = (bnd_real)((1.0 - momentum) * (double)running_variance[c] + momentum * variance[c] * (count / (count - 1.0)));
  }
}

void bnd_batch_norm_forward(const bnd_array *x, const bnd_real *weight, const bnd_real *bias, const double *mean, const double *variance,
                            double epsilon, bnd_real *y) {
  const layout l = layout_of(&x->shape);
  for (size_t n = 0; n < l.images; n++)
    for (size_t c = 0; c < l.channels; c++) {
      const double alpha = (weight ? (double)weight[c] : 1.0) / sqrt(variance[c] + epsilon), beta = bias ? (double)bias[c] : 0.0;
      const size_t at = (n * l.channels + c) * l.inner;
      for (size_t i = 0; i < l.inner; i++) y[at + i] = (bnd_real)(((double)x->data[at + i] - mean[c]) * alpha + beta);
    }
}

void bnd_batch_norm_backward(const bnd_array *x, const bnd_real *weight, const double *mean, const double *variance, double epsilon,
                             const bnd_real *dy, bnd_real *dx, bnd_real *dweight, bnd_real *dbias) {
  const layout l = layout_of(&x->shape);
  const double count = (double)(l.images * l.inner);
  for (size_t c = 0; c < l.channels; c++) {
    const double inverse = 1.0 / sqrt(variance[c] + epsilon), alpha = weight ? inverse * (double)weight[c] : inverse;
    double sum = 0, product = 0;
    for (size_t n = 0; n < l.images; n++)
      for (size_t i = 0; i < l.inner; i++) {
        const size_t at = (n * l.channels + c) * l.inner + i;
        sum += (double)dy[at];
        product += (double)dy[at] * ((double)x->data[at] - mean[c]) * inverse;
      }
    for (size_t n = 0; dx && n < l.images; n++)
      for (size_t i = 0; i < l.inner; i++) {
        const size_t at = (n * l.channels + c) * l.inner + i;
        const double z = ((double)x->data[at] - mean[c]) * inverse;
        dx[at] = (bnd_real)(alpha * ((double)dy[at] - sum / count - z * product / count));
      }
    if (dweight) dweight[c] = (bnd_real)product;
    if (dbias) dbias[c] = (bnd_real)sum;
  }
}
