#include "base/status.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *bnd_status_text(bnd_status status) {
  switch (status) {
    case BND_OK: return "no error";
    case BND_ERROR_MEMORY: return "out of memory";
    case BND_ERROR_IO: return "input/output error";
    case BND_ERROR_FORMAT: return "damaged or foreign file";
    case BND_ERROR_MODEL: return "unusable model";
    case BND_ERROR_ARGUMENT: return "invalid argument";
    case BND_ERROR_UNSUPPORTED: return "not supported";
    case BND_ERROR_INTERRUPTED: return "interrupted";
    case BND_ERROR_INTERNAL: return "internal error";
  }
  return "unknown status";
}

bnd_status bnd_fail(bnd_error *error, bnd_status status, const char *format, ...) {
  if (error) {
    error->status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
  }
  return status;
}

bnd_status bnd_fail_memory(bnd_error *error, const char *what) {
  return bnd_fail(error, BND_ERROR_MEMORY, "not enough memory for %s", what);
}

bnd_status bnd_fail_prefix(bnd_error *error, bnd_status status, const char *format, ...) {
  if (error) {
    char message[BND_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0) length = 0;
    if ((size_t)length < sizeof message) snprintf(message + length, sizeof message - (size_t)length, ": %s", error->message);
    memcpy(error->message, message, sizeof message);
    error->status = status;
  }
  return status;
}

void bnd_report_progress_detail(const bnd_context *context, const bnd_progress *progress) {
  if (context && context->progress) context->progress(context->user, progress);
}

void bnd_report_progress(const bnd_context *context, const char *stage, const char *unit, uint64_t done, uint64_t total) {
  bnd_report_progress_detail(context, &(bnd_progress){.stage = stage, .unit = unit, .done = done, .total = total});
}

bnd_context bnd_context_without_progress(const bnd_context *context) {
  bnd_context quiet = context ? *context : (bnd_context){0};
  quiet.progress = NULL;
  return quiet;
}

void bnd_log(const bnd_context *context, bnd_log_level level, const char *format, ...) {
  if (!context || !context->log) return;
  char message[BND_ERROR_MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  context->log(context->user, level, message);
}

bool bnd_is_cancelled(const bnd_context *context) { return context && context->cancelled && context->cancelled(context->user); }

int bnd_thread_count(const bnd_context *context) {
  if (context && context->threads > 0) return context->threads;
  cpu_set_t processors;
  if (sched_getaffinity(0, sizeof processors, &processors) != 0) return 1;
  const int count = CPU_COUNT(&processors);
  return count > 0 ? count : 1;
}
