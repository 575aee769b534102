/* Checked allocation and arenas. */
#ifndef BND_BASE_MEMORY_H
#define BND_BASE_MEMORY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory for count elements of `size` bytes; NULL when count * size overflows or memory is short. count 0 gives a unique pointer. */
void *bnd_calloc(size_t count, size_t size);
/* 64-byte aligned, not zeroed; freed with free(). NULL on overflow or shortage. */
void *bnd_alloc_aligned(size_t count, size_t size);
/* Grows a dynamic array so that it holds at least `needed` elements (capacity doubles). On failure the array is as before and false returned. */
bool bnd_grow(void **array, size_t *capacity, size_t needed, size_t element_size);
#define BND_GROW(array, capacity, needed) bnd_grow((void **)&(array), &(capacity), (needed), sizeof *(array))

/* The most memory this process has had in use so far, in MiB. */
double bnd_peak_rss_mib(void);

/* a * b and a + b for sizes; false when the result does not fit. */
bool bnd_size_multiply(size_t a, size_t b, size_t *product);
bool bnd_size_add(size_t a, size_t b, size_t *sum);

/* Large things are gone and other kinds of things come: gives the freed memory back to the system where the allocator can. */
void bnd_return_free_memory(void);

/* An arena hands out memory that is freed all at once. Good for what lives and dies together: the nodes of a graph. */
typedef struct bnd_arena bnd_arena;
bnd_arena *bnd_arena_create(void);    /* NULL when memory is short */
void bnd_arena_destroy(bnd_arena *arena); /* NULL is fine */
void *bnd_arena_alloc(bnd_arena *arena, size_t count, size_t size); /* zeroed, aligned for any type; NULL on overflow or shortage */
char *bnd_arena_copy(bnd_arena *arena, const char *text);
char *bnd_arena_format(bnd_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A growing string. Zero-initialise; failed allocation sets `failed` and later appends do nothing, so one check at the end is enough. */
typedef struct bnd_string {
  char *text; /* NUL-terminated once something was appended; NULL before. Owned: bnd_string_free */
  size_t length, capacity;
  bool failed;
} bnd_string;
void bnd_string_append(bnd_string *string, const char *text, size_t length);
void bnd_string_format(bnd_string *string, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bnd_string_free(bnd_string *string);

/* Name -> index, the names in insertion order not kept here. Zero-initialise. Keys are borrowed and must outlive the map. */
typedef struct bnd_map {
  struct bnd_map_slot *slots;
  size_t capacity, count;
} bnd_map;
bool bnd_map_put(bnd_map *map, const char *key, size_t value); /* replaces; false when memory is short */
bool bnd_map_get(const bnd_map *map, const char *key, size_t *value);
void bnd_map_free(bnd_map *map);

#endif
