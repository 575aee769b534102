/* What these programs share: how they end when something fails, and how they sort what they measured. */
#ifndef BINADE_BENCH_H
#define BINADE_BENCH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"

static bnd_error error_record, *const error = &error_record;

static inline _Noreturn void die(const char *what) {
  fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
  exit(1);
}

/* of a call that was given `error` */
static inline void must(bnd_status status) {
  if (status != BND_OK) die(error->message);
}

static inline double seconds(void) { return bnd_clock_seconds(CLOCK_MONOTONIC); }

/* for qsort, of doubles */
static inline int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

#endif
