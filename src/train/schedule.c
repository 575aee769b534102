#include "train/schedule.h"

#include <math.h>

#include "base/status.h"

bnd_status bnd_schedule_check(const bnd_schedule *schedule, bnd_error *error) {
  const struct {
    const char *name;
    double value;
  } numbers[] = {{"the learning rate", schedule->initial},
                 {"the learning rate warm-up starts from", schedule->warmup_initial},
                 {"the final ratio", schedule->final_ratio},
                 {"the step factor", schedule->step_factor}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (!isfinite(numbers[i].value) || numbers[i].value < 0)
      return bnd_fail(error, BND_ERROR_ARGUMENT, "%s is %g: it must be a number from 0 on", numbers[i].name, numbers[i].value);
  if (schedule->batches_per_epoch == 0 || schedule->epochs == 0)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%s: nothing to train", schedule->epochs ? "an epoch without a batch" : "no epochs");
  if (schedule->epochs > UINT64_MAX / 2 / schedule->batches_per_epoch)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "%llu epochs are too many", (unsigned long long)schedule->epochs);
  return BND_OK;
}

/* 0 <= x <= pi: cos x = 1 - 2 sin^2(x / 2), for the upper half by symmetry, with the Taylor series of the sine to y^17 for y <= pi / 4. The C
   library's own differs between versions. */
static double cosine(double x) {
  const double pi = 0x1.921fb54442d18p+1, y = (x > pi / 2 ? pi - x : x) / 2, s = y * y;
  double term = y, sine = y;
  for (int n = 2; n <= 16; n += 2) {
    term *= -s / (n * (n + 1));
    sine += term;
  }
  const double result = 1 - 2 * sine * sine;
  return x > pi / 2 ? -result : result;
}

static double warmup(const bnd_schedule *schedule, uint64_t step, uint64_t steps) {
  if (step + 1 == steps && steps > 1) return schedule->initial;
  return steps > 1 ? (double)step * ((schedule->initial - schedule->warmup_initial) / (double)(steps - 1)) + schedule->warmup_initial
                   : schedule->warmup_initial;
}

double bnd_schedule_rate(const bnd_schedule *schedule, uint64_t step) {
  const double initial = schedule->initial;
  const uint64_t batches = schedule->batches_per_epoch, asked = schedule->warmup_steps, steps = asked < batches ? asked : batches;
  if (step < steps) return warmup(schedule, step, steps);
  if (schedule->kind == BND_SCHEDULE_COSINE && step > asked) {
    const uint64_t all = batches * schedule->epochs;
    const double total = all > asked ? (double)(all - asked) : 0, done = (double)(step - 1 - asked) / (total + 1);
    const double rate = 0.5 * initial * (1 + cosine((done < 1 ? done : 1) * 0x1.921fb54442d18p+1));
    return rate * (1 - schedule->final_ratio) + initial * schedule->final_ratio;
  }
  if (schedule->kind == BND_SCHEDULE_STEP && step >= batches) {
    double rate = initial;
    for (size_t i = 0; i < schedule->milestone_count; i++)
      if (schedule->milestones[i] < step / batches) rate *= schedule->step_factor;
    return rate;
  }
  return steps ? warmup(schedule, steps - 1, steps) : initial;
}
