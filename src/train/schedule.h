/* Learning rates step by step, as super-gradients 3.7.1 sets them (training/utils/callbacks/callbacks.py): LinearBatchLRWarmup, then
 * CosineLRScheduler, StepLRScheduler or none.
 *
 * With L = batches_per_epoch, E = epochs, W = warmup_steps, lr0 = initial, a step s counting batches from 0:
 *   warm-up:  s < min(W, L): the s-th of min(W, L) equally spaced rates from warmup_initial to lr0, both ends included (a single one is the former)
 *   cosine:   set behind every step s >= W, so that it holds for step s + 1:
 *             0.5 lr0 (1 + cos(pi (s - W) / (L E - W + 1))) (1 - final_ratio) + lr0 final_ratio
 *   step:     set behind every epoch e, so that it holds for epoch e + 1: lr0 * step_factor^(number of milestones <= e)
 * Between them the last rate stays: lr0 from the warm-up's last step on. */
#ifndef BND_TRAIN_SCHEDULE_H
#define BND_TRAIN_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

#include "binade/error.h"

typedef enum bnd_schedule_kind { BND_SCHEDULE_CONSTANT, BND_SCHEDULE_COSINE, BND_SCHEDULE_STEP } bnd_schedule_kind;

typedef struct bnd_schedule {
  bnd_schedule_kind kind;
  double initial;
  uint64_t batches_per_epoch, epochs;
  uint64_t warmup_steps; /* 0 = no warm-up */
  double warmup_initial;
  double final_ratio;         /* cosine */
  const uint64_t *milestones; /* step: epochs from 0; borrowed */
  size_t milestone_count;
  double step_factor;
} bnd_schedule;

/* BND_ERROR_ARGUMENT for rates that are negative or not finite, no batches, no epochs. */
bnd_status bnd_schedule_check(const bnd_schedule *schedule, bnd_error *error);
double bnd_schedule_rate(const bnd_schedule *schedule, uint64_t step);

#endif
