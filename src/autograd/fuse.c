/* Batch norm and convolutions take in the relu behind them, batch norm also the sums its result alone goes into: a pass over memory saved each time.
 */
#include <stdlib.h>

#include "autograd/internal.h"

typedef struct fusing {
  bnd_network *network;
  int *consumers; /* by value: reads by steps and as outputs */
  int *producer;  /* by value: step, -1 = none */
} fusing;

static void count(fusing *f) {
  const bnd_network *network = f->network;
  for (size_t v = 0; v < network->value_count; v++) {
    f->consumers[v] = 0;
    f->producer[v] = -1;
  }
  for (size_t s = 0; s < network->step_count; s++) {
    const step *it = &network->steps[s];
    if (it->kind == STEP_DEAD) continue;
    for (int i = 0; i < it->input_count; i++)
      if (it->inputs[i] >= 0) f->consumers[it->inputs[i]]++;
    for (int i = 0; i < 2; i++)
      if (it->factor_value[i] >= 0) f->consumers[it->factor_value[i]]++;
    for (int i = 0; i < it->output_count; i++) f->producer[it->outputs[i]] = (int)s;
  }
  for (size_t o = 0; o < network->output_count; o++)
    if (network->outputs[o] >= 0) f->consumers[network->outputs[o]]++;
}

/* The step that makes a value for one reader only. */
static step *sole_producer(const fusing *f, int index) {
  return index >= 0 && f->consumers[index] == 1 && f->producer[index] >= 0 ? &f->network->steps[f->producer[index]] : NULL;
}

static void fuse_relu(fusing *f, step *relu) {
  step *source = sole_producer(f, relu->inputs[0]);
  if (!source || source->relu || source->input_count != 1 || (source->kind != STEP_NORM && source->kind != STEP_CONVOLUTION)) return;
  f->producer[relu->outputs[0]] = f->producer[source->outputs[0]];
  source->relu = true;
  source->outputs[0] = relu->outputs[0];
  source->differentiable |= relu->differentiable;
  relu->kind = STEP_DEAD;
}

/* sum = norm(x) + factor * y: done where the sum stands, when y is known. */
static bool fuse_sum(fusing *f, step *sum, int which, bnd_error *error, bnd_status *status) {
  step *source = sole_producer(f, sum->inputs[which]);
  const int other = sum->inputs[1 - which];
  if (!source || source->kind != STEP_NORM || source->input_count > (source->relu ? 1 : 2)) return false;
  if (sum->factor[which] != 1.f || sum->factor_value[which] >= 0) return false;
  int *inputs = bnd_network_keep(f->network, 3, sizeof *inputs);
  if (!inputs) {
    *status = bnd_fail_memory(error, "the network");
    return false;
  }
  const int place = source->input_count - 1; /* which addend: 0 or 1 */
  for (int i = 0; i < source->input_count; i++) inputs[i] = source->inputs[i];
  inputs[source->input_count] = other;
  const float factor = sum->factor[1 - which];
  const int factor_value = sum->factor_value[1 - which];
  const int output = sum->outputs[0];
  const bool differentiable = sum->differentiable;
  *sum = *source;
  sum->inputs = inputs;
  sum->input_count++;
  sum->factor[place] = factor;
  sum->factor_value[place] = factor_value;
  sum->outputs[0] = output;
  sum->differentiable |= differentiable;
  source->kind = STEP_DEAD;
  source->norm = NULL;
  return true;
}

/* A factor of its own (alpha * x) moves into the sum or norm behind it. */
static void fuse_factor(fusing *f, step *sum) {
  for (int i = 0; i < 2 && i < sum->input_count; i++) {
    step *source = sole_producer(f, sum->inputs[i]);
    if (!source || source->kind != STEP_SUM || source->input_count != 1 || sum->factor[i] != 1.f || sum->factor_value[i] >= 0) continue;
    sum->inputs[i] = source->inputs[0];
    sum->factor[i] = source->factor[0];
    sum->factor_value[i] = source->factor_value[0];
    source->kind = STEP_DEAD;
  }
}

bnd_status bnd_network_fuse(bnd_network *network, bnd_error *error) {
  fusing f = {network, bnd_calloc(network->value_count, sizeof(int)), bnd_calloc(network->value_count, sizeof(int))};
  bnd_status status = f.consumers && f.producer ? BND_OK : bnd_fail_memory(error, "the network");
  if (status == BND_OK) count(&f);
  for (size_t s = 0; s < network->step_count && status == BND_OK; s++) {
    step *it = &network->steps[s];
    if (it->kind == STEP_RELU) fuse_relu(&f, it);
    if (it->kind != STEP_SUM || it->input_count != 2) continue;
    fuse_factor(&f, it);
    if (fuse_sum(&f, it, 0, error, &status) || fuse_sum(&f, it, 1, error, &status)) count(&f);
  }
  free(f.consumers);
  free(f.producer);
  return status;
}
