#include "flow/best_budget.h"

#include <math.h>

#include "base/clock.h"

/* Between the first time and the second: what a step may need to come to an end. */
static const double SLACK_SECONDS = 5;

double bnd_budget_left(const bnd_budget *b) { return b->seconds > 0 ? b->seconds - b->earlier - bnd_seconds_since(&b->begin) : INFINITY; }

double bnd_budget_step_minutes(const bnd_budget *b) {
  enum { SECONDS = 60 };
  return b->seconds > 0 ? fmax(bnd_budget_left(b) - b->measurement, 1e-3) / SECONDS : 0;
}

static void forward_progress(void *user, const bnd_progress *progress) {
  const bnd_budget *b = user;
  bnd_report_progress_detail(b->outer, progress);
}

static void forward_log(void *user, bnd_log_level level, const char *message) {
  const bnd_budget *b = user;
  bnd_log(b->outer, level, "%s", message);
}

static bool is_over(void *user) {
  bnd_budget *b = user;
  if (bnd_is_cancelled(b->outer)) return true;
  b->interrupted = b->interrupted || bnd_budget_left(b) < -fmax(SLACK_SECONDS, b->measurement);
  return b->interrupted;
}

void bnd_budget_begin(bnd_budget *b, double minutes, const bnd_context *outer) {
  *b = (bnd_budget){.seconds = minutes * 60, .outer = outer, .inner = outer ? *outer : (bnd_context){0}};
  b->inner.user = b;
  b->inner.progress = forward_progress;
  b->inner.log = forward_log;
  b->inner.cancelled = is_over;
  clock_gettime(CLOCK_MONOTONIC, &b->begin);
}

const bnd_context *bnd_budget_context(bnd_budget *b) { return b->seconds > 0 ? &b->inner : b->outer; }

bool bnd_budget_ended(const bnd_budget *b, bnd_status status) { return status == BND_ERROR_INTERRUPTED && b->interrupted && !bnd_is_cancelled(b->outer); }
