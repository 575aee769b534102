/* How long work talks to its caller: number of threads, seed, progress, cancellation. The library itself never prints. */
#ifndef BINADE_CONTEXT_H
#define BINADE_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "binade/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One report of progress. `done` of `total` units (images, steps) of the stage named `stage`; total is 0 when unknown. */
typedef struct bnd_progress {
  const char *stage; /* "calibration", "evaluation of fp32", ... valid during the call only */
  const char *unit;  /* "images" */
  uint64_t done, total;
  const char *detail; /* figures of the last unit: "loss 1.83"; NULL = none */
} bnd_progress;

typedef enum bnd_log_level { BND_LOG_WARNING, BND_LOG_INFO, BND_LOG_DEBUG } bnd_log_level;

/* Passed to every long-running function. Zero-initialised is valid: all processors, no reports, never cancelled.
   The callbacks are called from the thread that called the library, never concurrently. */
typedef struct bnd_context {
  int threads;   /* worker threads; 0 = one for each processor this process may use */
  uint64_t seed; /* for everything random */
  void *user;    /* handed to the callbacks */
  void (*progress)(void *user, const bnd_progress *progress);
  void (*log)(void *user, bnd_log_level level, const char *message); /* one line, no line feed */
  bool (*cancelled)(void *user); /* true = stop soon with BND_ERROR_INTERRUPTED; must be cheap: called at least for every image */
} bnd_context;

#ifdef __cplusplus
}
#endif
#endif
