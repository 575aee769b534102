#include "exec/stream.h"

#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

typedef struct stream_state {
  bnd_executor *executor;
  const bnd_image_source *source;
  const bnd_stream *stream;
  const bnd_context *context;
  atomic_size_t next, done;
  atomic_bool stop;      /* begin no further image: one failed, or */
  atomic_bool cancelled; /* not even finish the one at hand */
  size_t failed_index; /* guarded by the critical section */
  bnd_error failure;
  bnd_status status;
} stream_state;

int bnd_stream_workers(const bnd_image_source *source, const bnd_context *context) {
  const int threads = bnd_thread_count(context);
  return source->count < (size_t)threads ? (source->count ? (int)source->count : 1) : threads;
}

static void fail(stream_state *state, size_t index, bnd_status status, const bnd_error *error) {
#pragma omp critical(bnd_stream_failure)
  {
    if (state->status == BND_OK || index < state->failed_index) {
      state->status = status;
      state->failure = *error;
      state->failed_index = index;
    }
  }
  atomic_store(&state->stop, true);
}

static void fail_cancelled(stream_state *state) {
  bnd_error error = {0};
  bnd_fail(&error, BND_ERROR_INTERRUPTED, "interrupted during %s", state->stream->stage);
  fail(state, 0, BND_ERROR_INTERRUPTED, &error);
}

/* The session of the thread that called the library asks; */
static bool ask(void *user) {
  stream_state *state = user;
  if (bnd_is_cancelled(state->context)) atomic_store(&state->cancelled, true);
  return atomic_load(&state->cancelled);
}

/* those of the others, which may not, look at the answer. */
static bool look(void *user) { return atomic_load(&((stream_state *)user)->cancelled); }

static void report(stream_state *state) {
  bnd_report_progress(state->context, state->stream->stage, "images", atomic_load(&state->done), state->source->count);
  if (ask(state)) fail_cancelled(state);
}

/* Adds what has passed since *last, the time of this thread, and sets that to now. */
static void lap(double *last, double *sum) {
  const double now = bnd_clock_seconds(CLOCK_THREAD_CPUTIME_ID);
  *sum += now - *last;
  *last = now;
}

static bnd_status run_one(stream_state *state, bnd_session *session, float *input, const bnd_stream_place *place, bnd_stream_times *times,
                          bnd_error *error) {
  const bnd_stream *stream = state->stream;
  double last = 0, before = 0;
  lap(&last, &before);
  BND_TRY(state->source->load(state->source->user, place->index, input, error));
  lap(&last, &times->load);
  const float *const inputs[] = {input};
  bnd_stream_place probe_place = *place;
  BND_TRY(bnd_session_run(session, inputs, stream->probe, &probe_place, error));
  lap(&last, &times->run);
  if (stream->finished) BND_TRY(stream->finished(place, session, error));
  lap(&last, &times->finished);
  return BND_OK;
}

static void work(stream_state *state, int worker) {
  bnd_error error = {0};
  bnd_session *session = NULL;
  bnd_stream_times times = {0};
  float *input = bnd_alloc_aligned(state->source->input_size, sizeof *input);
  bnd_status status = input ? bnd_session_create(state->executor, &session, &error) : bnd_fail_memory(&error, "an input image");
  if (status != BND_OK) fail(state, 0, status, &error);
  if (session) bnd_session_set_stop(session, worker == 0 ? ask : look, state);
  while (!atomic_load(&state->stop)) {
    const bnd_stream_place place = {state->stream->user, worker, atomic_fetch_add(&state->next, 1)};
    if (place.index >= state->source->count) break;
    status = run_one(state, session, input, &place, &times, &error);
    if (status == BND_ERROR_INTERRUPTED) fail_cancelled(state);
    else if (status != BND_OK) fail(state, place.index, status, &error);
    else atomic_fetch_add(&state->done, 1);
    if (worker == 0) report(state);
  }
  bnd_session_destroy(session);
  free(input);
  if (!state->stream->times) return;
#pragma omp critical(bnd_stream_times)
  {
    state->stream->times->load += times.load;
    state->stream->times->run += times.run;
    state->stream->times->finished += times.finished;
  }
}

bnd_status bnd_stream_images(bnd_executor *executor, const bnd_image_source *source, const bnd_stream *stream, const bnd_context *context, bnd_error *error) {
  stream_state state = {.executor = executor, .source = source, .stream = stream, .context = context};
  const int workers = bnd_stream_workers(source, context);
  report(&state);
#pragma omp parallel num_threads(workers)
  work(&state, omp_get_thread_num());
  if (state.status == BND_OK) report(&state);
  if (state.status != BND_OK && error) *error = state.failure;
  return state.status;
}
