/* AdamW and stochastic gradient descent with the arithmetic of PyTorch 2.7.1 on a CPU, float32, one tensor at a time (torch/optim/adam.py, sgd.py),
 * and the norm gradients are clipped by (torch/nn/utils/clip_grad.py).
 *
 * AdamW (Loshchilov, Hutter 2019), step t from 1:  p *= 1 - lr wd;  m += (1 - b1) (g - m);  v = b2 v + (1 - b2) g^2;
 *   p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 * SGD:  g += wd p;  buffer = g at the first step, then momentum * buffer + g;  p -= lr * (nesterov ? g + momentum * buffer : buffer)
 *
 * Where PyTorch fuses a product and a sum into one rounding, so do these (by way of double, whatever the processor). Elements are independent, so any
 * number of threads gives the same bits. */
#ifndef BND_TRAIN_OPTIMIZER_H
#define BND_TRAIN_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "binade/error.h"

/* The arrays are borrowed and must outlive the optimizer; the gradient is read at each step. */
typedef struct bnd_optimizer_parameter {
  float *value;
  const float *gradient;
  size_t count;
  double weight_decay;
  double rate; /* times the learning rate; 0 = 1 */
} bnd_optimizer_parameter;

typedef enum bnd_optimizer_kind { BND_ADAMW, BND_SGD } bnd_optimizer_kind;

typedef struct bnd_optimizer_options {
  bnd_optimizer_kind kind;
  double beta1, beta2, epsilon; /* AdamW; 0 = 0.9, 0.999, 1e-8 */
  double momentum;              /* SGD; 0 = none */
  bool nesterov;
} bnd_optimizer_options;

typedef struct bnd_optimizer bnd_optimizer;

/* Copies the list. All moments start as 0. On failure *optimizer is NULL. */
bnd_status bnd_optimizer_create(const bnd_optimizer_options *options, const bnd_optimizer_parameter *parameters, size_t parameter_count,
                                bnd_optimizer **optimizer, bnd_error *error);
void bnd_optimizer_destroy(bnd_optimizer *optimizer); /* NULL is fine */

/* The L2 norm of all gradients together, in double. Not finite when a gradient is not: to be looked at before stepping. */
double bnd_gradient_norm(const bnd_optimizer *optimizer, int threads);
/* What clip_grad_norm_ multiplies gradients with: min(max_norm / (norm + 1e-6), 1). max_norm 0 = no clipping. */
float bnd_clip_scale(double norm, double max_norm);

/* One update with gradients * gradient_scale (1, or bnd_clip_scale's). */
void bnd_optimizer_step(bnd_optimizer *optimizer, double learning_rate, float gradient_scale, int threads);

/* What has to be saved to go on later, writable for restoring: the number of steps done, and for each parameter arrays of its size (NULL where the
   kind has none): AdamW's moments m and v; SGD's momentum buffer is the first. */
typedef struct bnd_optimizer_state {
  float *first, *second;
  size_t count;
} bnd_optimizer_state;
bnd_optimizer_state bnd_optimizer_get_state(const bnd_optimizer *optimizer, size_t parameter);
uint64_t bnd_optimizer_steps(const bnd_optimizer *optimizer);
void bnd_optimizer_set_steps(bnd_optimizer *optimizer, uint64_t steps);

#endif
