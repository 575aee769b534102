/* Raising errors: `return bnd_fail(error, BND_ERROR_FORMAT, "%s: ...", path)`. */
#ifndef BND_BASE_STATUS_H
#define BND_BASE_STATUS_H

#include "binade/context.h"
#include "binade/error.h"

/* Fills *error (if not NULL) with the formatted message and returns `status`. Overlong messages are cut. */
bnd_status bnd_fail(bnd_error *error, bnd_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The usual answer to a failed allocation of `what` ("the graph"). */
bnd_status bnd_fail_memory(bnd_error *error, const char *what);

/* Puts "prefix: " in front of the message already there, for callers that know more about the place. Returns error's status. */
bnd_status bnd_fail_prefix(bnd_error *error, bnd_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Leaves the calling function when `expression` fails; for functions that own nothing yet. */
#define BND_TRY(expression)                        \
  do {                                             \
    const bnd_status bnd_try_status = (expression); \
    if (bnd_try_status != BND_OK) return bnd_try_status; \
  } while (0)

/* The same with clean-up: sets `status` and jumps to `label`. */
#define BND_TRY_GOTO(expression, label)            \
  do {                                             \
    status = (expression);                         \
    if (status != BND_OK) goto label;              \
  } while (0)

/* Callback helpers; `context` may be NULL. */
void bnd_report_progress(const bnd_context *context, const char *stage, const char *unit, uint64_t done, uint64_t total);
void bnd_report_progress_detail(const bnd_context *context, const bnd_progress *progress);
/* The same context without reports, for short work inside a stage that reports itself. context NULL: all defaults. */
bnd_context bnd_context_without_progress(const bnd_context *context);
void bnd_log(const bnd_context *context, bnd_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool bnd_is_cancelled(const bnd_context *context);
/* The number of threads to use: context->threads, or the processors this process may run on. At least 1. */
int bnd_thread_count(const bnd_context *context);

#endif
