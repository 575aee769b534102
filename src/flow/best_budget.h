/* The budget of the recipe best: what its steps may take together, and a context that ends a step whose time is over. Inside src/flow. */
#ifndef BND_FLOW_BEST_BUDGET_H
#define BND_FLOW_BEST_BUDGET_H

#include <time.h>

#include "base/status.h"

/* Two times end a step. The first is told to it (bnd_refinement.minutes) and leaves room for the measurement behind it: a step that can end early ends with
   what it has. The second, some seconds later, interrupts the others, whose work is taken back. */
typedef struct bnd_budget {
  double seconds;         /* 0 = as long as the steps want */
  double earlier;         /* seconds that finished steps took in earlier runs of the same command */
  double measurement;     /* seconds a measurement of the network takes */
  struct timespec begin;
  bool interrupted;       /* a step, by the second time */
  const bnd_context *outer;
  bnd_context inner;      /* outer, cancelled when the second time has come */
} bnd_budget;

/* In place: the inner context points to it. */
void bnd_budget_begin(bnd_budget *budget, double minutes, const bnd_context *outer);
double bnd_budget_left(const bnd_budget *budget); /* seconds; INFINITY without a budget */
double bnd_budget_step_minutes(const bnd_budget *budget); /* for bnd_refinement.minutes */
const bnd_context *bnd_budget_context(bnd_budget *budget); /* for a step */
/* Whether the budget, not a person, made a step return `status`. */
bool bnd_budget_ended(const bnd_budget *budget, bnd_status status);

#endif
