#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/simd.h"
#include "base/status.h"

enum { ELEMENTS_PER_TASK = 16384, LANES = 8 };

/* A piece of one parameter. */
typedef struct task {
  size_t parameter, start, count;
} task;

struct bnd_optimizer {
  bnd_optimizer_options options;
  bnd_optimizer_parameter *parameters;
  bnd_optimizer_state *states;
  size_t parameter_count;
  task *tasks;
  size_t task_count;
  double *squares; /* of each task's gradients */
  float *memory;   /* all moments */
  uint64_t steps;
};

/* a * b + c in one rounding, except where the sum in double lies within 2^-29 of the middle between two floats. */
static inline float fused(float a, float b, float c) {
  return (float)((double)a * (double)b + (double)c);
}

/* Elements of all parameters, and the pieces they are cut into. */
static bnd_status count_elements(const bnd_optimizer_parameter *parameters, size_t count, size_t *elements, size_t *tasks, bnd_error *error) {
  *elements = *tasks = 0;
  for (size_t i = 0; i < count; i++) {
    if (!bnd_size_add(*elements, parameters[i].count, elements)) return bnd_fail_memory(error, "the optimizer");
    *tasks += parameters[i].count / ELEMENTS_PER_TASK + (parameters[i].count % ELEMENTS_PER_TASK != 0);
  }
  return BND_OK;
}

static void divide_work(bnd_optimizer *o) {
  for (size_t i = 0; i < o->parameter_count; i++)
    for (size_t start = 0; start < o->parameters[i].count; start += ELEMENTS_PER_TASK) {
      const size_t rest = o->parameters[i].count - start;
      o->tasks[o->task_count++] = (task){i, start, rest < ELEMENTS_PER_TASK ? rest : ELEMENTS_PER_TASK};
    }
}

bnd_status bnd_optimizer_create(const bnd_optimizer_options *options, const bnd_optimizer_parameter *parameters, size_t parameter_count,
                                bnd_optimizer **optimizer, bnd_error *error) {
  *optimizer = NULL;
  size_t elements, tasks;
  BND_TRY(count_elements(parameters, parameter_count, &elements, &tasks, error));
  bnd_optimizer *o = bnd_calloc(1, sizeof *o);
  if (!o) return bnd_fail_memory(error, "the optimizer");
  o->options = *options;
  if (o->options.beta1 == 0) o->options.beta1 = 0.9;
  if (o->options.beta2 == 0) o->options.beta2 = 0.999;
  if (o->options.epsilon == 0) o->options.epsilon = 1e-8;
  const size_t moments = options->kind == BND_ADAMW ? 2 : options->momentum != 0 ? 1 : 0;
  o->parameter_count = parameter_count;
  o->parameters = bnd_calloc(parameter_count, sizeof *o->parameters);
  o->states = bnd_calloc(parameter_count, sizeof *o->states);
  o->tasks = bnd_calloc(tasks, sizeof *o->tasks);
  o->squares = bnd_calloc(tasks, sizeof *o->squares);
  o->memory = bnd_calloc(elements, moments * sizeof *o->memory);
  if (!o->parameters || !o->states || !o->tasks || !o->squares || !o->memory) {
    bnd_optimizer_destroy(o);
    return bnd_fail_memory(error, "the optimizer");
  }
  if (parameter_count) memcpy(o->parameters, parameters, parameter_count * sizeof *parameters);
  divide_work(o);
  float *next = o->memory;
  for (size_t i = 0; i < parameter_count; i++) {
    const size_t count = parameters[i].count;
    o->states[i] = (bnd_optimizer_state){moments > 0 ? next : NULL, moments > 1 ? next + count : NULL, count};
    next += moments * count;
  }
  *optimizer = o;
  return BND_OK;
}

void bnd_optimizer_destroy(bnd_optimizer *optimizer) {
  if (!optimizer) return;
  free(optimizer->parameters);
  free(optimizer->states);
  free(optimizer->tasks);
  free(optimizer->squares);
  free(optimizer->memory);
  free(optimizer);
}

bnd_optimizer_state bnd_optimizer_get_state(const bnd_optimizer *optimizer, size_t parameter) {
  return optimizer->states[parameter];
}
uint64_t bnd_optimizer_steps(const bnd_optimizer *optimizer) {
  return optimizer->steps;
}
void bnd_optimizer_set_steps(bnd_optimizer *optimizer, uint64_t steps) {
  optimizer->steps = steps;
}

/* ---- clipping ---- */

BND_VECTORIZED static double sum_of_squares(const float *values, size_t count) {
  double lanes[LANES] = {0}, sum = 0;
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (size_t l = 0; l < LANES; l++) lanes[l] += (double)values[i + l] * (double)values[i + l];
  for (size_t l = 0; i < count; i++, l++) lanes[l] += (double)values[i] * (double)values[i];
  for (size_t l = 0; l < LANES; l++) sum += lanes[l];
  return sum;
}

double bnd_gradient_norm(const bnd_optimizer *optimizer, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (size_t i = 0; i < optimizer->task_count; i++) {
    const task *t = &optimizer->tasks[i];
    optimizer->squares[i] = sum_of_squares(optimizer->parameters[t->parameter].gradient + t->start, t->count);
  }
  double sum = 0;
  for (size_t i = 0; i < optimizer->task_count; i++) sum += optimizer->squares[i];
  return sqrt(sum);
}

float bnd_clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1;
  const float scale = 1.f / ((float)norm + 1e-6f) * (float)max_norm; /* torch divides a number by a tensor this way */
  return scale > 1 ? 1 : scale;
}

/* ---- updates ---- */

/* Factors common to all elements, rounded to float once, as PyTorch passes them to its kernels. */
typedef struct factors {
  float scale, decay, first_weight, second_keep, second_weight, correction, epsilon, step; /* step = -lr / (1 - beta1^t) */
  float momentum;
  bool first_step, nesterov;
} factors;

BND_VECTORIZED static void update_adamw(float *restrict value, const float *restrict gradient, float *restrict first, float *restrict second,
                                        size_t count, const factors *restrict factor) {
  const factors f = *factor;
  for (size_t i = 0; i < count; i++) {
    const float g = gradient[i] * f.scale, difference = g - first[i];
    /* torch.lerp starts from the nearer end */
    const float m = f.first_weight < 0.5f ? fused(f.first_weight, difference, first[i]) : fused(f.first_weight - 1, difference, g);
    const float v = fused(f.second_weight * g, g, second[i] * f.second_keep);
    first[i] = m;
    second[i] = v;
    value[i] = value[i] * f.decay + f.step * m / (sqrtf(v) / f.correction + f.epsilon);
  }
}

BND_VECTORIZED static void update_sgd(float *restrict value, const float *restrict gradient, float *restrict buffer, size_t count,
                                      const factors *restrict factor) {
  const factors f = *factor;
  for (size_t i = 0; i < count; i++) {
    float g = fused(f.decay, value[i], gradient[i] * f.scale);
    if (buffer) {
      buffer[i] = f.first_step ? g : buffer[i] * f.momentum + g;
      g = f.nesterov ? fused(f.momentum, buffer[i], g) : buffer[i];
    }
    value[i] = fused(f.step, g, value[i]);
  }
}

static double power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

void bnd_optimizer_step(bnd_optimizer *optimizer, double learning_rate, float gradient_scale, int threads) {
  const bnd_optimizer_options *options = &optimizer->options;
  optimizer->steps++;
  factors common = {
      .scale = gradient_scale, .momentum = (float)options->momentum, .nesterov = options->nesterov, .first_step = optimizer->steps == 1};
  if (options->kind == BND_ADAMW) {
    common.first_weight = (float)(1 - options->beta1);
    common.second_keep = (float)options->beta2;
    common.second_weight = (float)(1 - options->beta2);
    common.correction = (float)sqrt(1 - power(options->beta2, optimizer->steps));
    common.epsilon = (float)options->epsilon;
  }
  const double first_share = options->kind == BND_ADAMW ? 1 - power(options->beta1, optimizer->steps) : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (size_t i = 0; i < optimizer->task_count; i++) {
    const task *t = &optimizer->tasks[i];
    const bnd_optimizer_parameter *p = &optimizer->parameters[t->parameter];
    const bnd_optimizer_state *state = &optimizer->states[t->parameter];
    const double rate = p->rate != 0 ? learning_rate * p->rate : learning_rate;
    factors f = common;
    f.step = (float)-(rate / first_share);
    if (options->kind == BND_ADAMW) {
      f.decay = (float)(1 - rate * p->weight_decay);
      update_adamw(p->value + t->start, p->gradient + t->start, state->first + t->start, state->second + t->start, t->count, &f);
    } else {
      f.decay = (float)p->weight_decay;
      update_sgd(p->value + t->start, p->gradient + t->start, state->first ? state->first + t->start : NULL, t->count, &f);
    }
  }
}
