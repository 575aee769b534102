/* Time, for measurements and for limits. */
#ifndef BND_BASE_CLOCK_H
#define BND_BASE_CLOCK_H

#include <time.h>

/* What a clock shows, in seconds: CLOCK_MONOTONIC, or processor time with CLOCK_THREAD_CPUTIME_ID and CLOCK_PROCESS_CPUTIME_ID. */
double bnd_clock_seconds(clockid_t clock);
/* Seconds since CLOCK_MONOTONIC showed *begin. */
double bnd_seconds_since(const struct timespec *begin);

#endif
