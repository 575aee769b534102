/* Status codes and the error record. Every function that can fail returns a bnd_status and, when it fails, fills the bnd_error the caller
   passed (NULL is allowed and means "only the status"). Messages are one sentence for a person: file, place in it, what is wrong, what helps. */
#ifndef BINADE_ERROR_H
#define BINADE_ERROR_H

#if defined(_WIN32)
#define BND_API
#else
#define BND_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bnd_status {
  BND_OK = 0,
  BND_ERROR_MEMORY,      /* an allocation failed or its size would overflow */
  BND_ERROR_IO,          /* the operating system refused: missing file, no permission, full disk */
  BND_ERROR_FORMAT,      /* a file is damaged, truncated or not what it claims to be */
  BND_ERROR_MODEL,       /* a well-formed file that holds no network this library knows, or one that contradicts itself */
  BND_ERROR_ARGUMENT,    /* the caller's arguments make no sense together */
  BND_ERROR_UNSUPPORTED, /* valid, but not implemented */
  BND_ERROR_INTERRUPTED, /* the caller asked to stop */
  BND_ERROR_INTERNAL     /* a defect of this library */
} bnd_status;

enum { BND_ERROR_MESSAGE_SIZE = 2048 };

typedef struct bnd_error {
  bnd_status status;
  char message[BND_ERROR_MESSAGE_SIZE]; /* UTF-8, no line feed at the end, "" when status is BND_OK */
} bnd_error;

/* A short English name of a status ("input/output error"). Never NULL. */
BND_API const char *bnd_status_text(bnd_status status);

#ifdef __cplusplus
}
#endif
#endif
