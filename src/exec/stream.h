/* Running many images through one executor: one image per thread, a session each, results independent of the number of threads. */
#ifndef BND_EXEC_STREAM_H
#define BND_EXEC_STREAM_H

#include "exec/exec.h"

/* Where images come from. load fills the network's input (plain float32) of image `index`; it is called from several threads at once. */
typedef struct bnd_image_source {
  void *user;
  size_t count;
  size_t input_size; /* floats of one input */
  bnd_status (*load)(void *user, size_t index, float *input, bnd_error *error);
} bnd_image_source;

/* What the probe's `user` points to while a stream runs. */
typedef struct bnd_stream_place {
  void *user;   /* bnd_stream.user */
  int worker;   /* 0 .. threads - 1 */
  size_t index; /* of the image */
} bnd_stream_place;

/* Processor time of all workers, in seconds. */
typedef struct bnd_stream_times {
  double load, run, finished;
} bnd_stream_times;

typedef struct bnd_stream {
  const char *stage; /* for progress reports */
  bnd_probe probe;   /* gets a bnd_stream_place; may be NULL */
  /* Called when image `place->index` has run; concurrently for different images. May be NULL. */
  bnd_status (*finished)(const bnd_stream_place *place, const bnd_session *session, bnd_error *error);
  void *user;
  bnd_stream_times *times; /* added to; NULL = not wanted */
} bnd_stream;

/* The number of workers bnd_stream_images will use: results kept for each worker need that many places. */
int bnd_stream_workers(const bnd_image_source *source, const bnd_context *context);

/* Images are handed out in order; each is run exactly once. Stops at the first failure (the one with the lowest image index is reported) and
   with BND_ERROR_INTERRUPTED when the context is cancelled. */
bnd_status bnd_stream_images(bnd_executor *executor, const bnd_image_source *source, const bnd_stream *stream, const bnd_context *context, bnd_error *error);

#endif
