#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

bool bnd_size_multiply(size_t a, size_t b, size_t *product) { return !__builtin_mul_overflow(a, b, product); }
bool bnd_size_add(size_t a, size_t b, size_t *sum) { return !__builtin_add_overflow(a, b, sum); }

void *bnd_calloc(size_t count, size_t size) { return calloc(count ? count : 1, size ? size : 1); }

void bnd_return_free_memory(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void *bnd_alloc_aligned(size_t count, size_t size) {
  size_t bytes, padded;
  if (!bnd_size_multiply(count, size, &bytes) || !bnd_size_add(bytes, 63, &padded)) return NULL;
  padded &= ~(size_t)63;
  return aligned_alloc(64, padded ? padded : 64);
}

bool bnd_grow(void **array, size_t *capacity, size_t needed, size_t element_size) {
  if (needed <= *capacity) return true;
  size_t grown = *capacity ? *capacity : 8, bytes;
  while (grown < needed)
    if (!bnd_size_multiply(grown, 2, &grown)) return false;
  if (!bnd_size_multiply(grown, element_size, &bytes)) return false;
  void *moved = realloc(*array, bytes);
  if (!moved) return false;
  *array = moved;
  *capacity = grown;
  return true;
}

/* Arena: a list of blocks; a request larger than a block gets one of its own. */
enum { ARENA_BLOCK = 64 * 1024, ARENA_ALIGN = 16 };

typedef struct arena_block {
  struct arena_block *next;
  size_t used, size;
  _Alignas(ARENA_ALIGN) unsigned char data[];
} arena_block;

struct bnd_arena {
  arena_block *blocks;
};

bnd_arena *bnd_arena_create(void) { return bnd_calloc(1, sizeof(bnd_arena)); }

void bnd_arena_destroy(bnd_arena *arena) {
  if (!arena) return;
  for (arena_block *block = arena->blocks, *next; block; block = next) {
    next = block->next;
    free(block);
  }
  free(arena);
}

void *bnd_arena_alloc(bnd_arena *arena, size_t count, size_t size) {
  size_t bytes, total;
  if (!bnd_size_multiply(count, size, &bytes) || !bnd_size_add(bytes, ARENA_ALIGN - 1, &bytes)) return NULL;
  bytes &= ~(size_t)(ARENA_ALIGN - 1);
  arena_block *block = arena->blocks;
  if (!block || block->size - block->used < bytes) {
    const size_t wanted = bytes > ARENA_BLOCK ? bytes : ARENA_BLOCK;
    if (!bnd_size_add(wanted, sizeof(arena_block), &total)) return NULL;
    arena_block *fresh = calloc(1, total);
    if (!fresh) return NULL;
    fresh->size = wanted;
    fresh->next = block;
    arena->blocks = block = fresh;
  }
  void *memory = block->data + block->used;
  block->used += bytes;
  return memory;
}

char *bnd_arena_copy(bnd_arena *arena, const char *text) {
  const size_t length = strlen(text) + 1;
  char *copy = bnd_arena_alloc(arena, length, 1);
  return copy ? memcpy(copy, text, length) : NULL;
}

char *bnd_arena_format(bnd_arena *arena, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = length < 0 ? NULL : bnd_arena_alloc(arena, (size_t)length + 1, 1);
  if (text) vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}

static bool string_reserve(bnd_string *string, size_t extra) {
  size_t needed;
  if (string->failed) return false;
  if (!bnd_size_add(string->length, extra, &needed) || !bnd_size_add(needed, 1, &needed) ||
      !bnd_grow((void **)&string->text, &string->capacity, needed, 1))
    string->failed = true;
  return !string->failed;
}

void bnd_string_append(bnd_string *string, const char *text, size_t length) {
  if (!string_reserve(string, length)) return;
  if (length) memcpy(string->text + string->length, text, length);
  string->length += length;
  string->text[string->length] = '\0';
}

void bnd_string_format(bnd_string *string, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (length < 0) {
    string->failed = true;
  } else if (string_reserve(string, (size_t)length)) {
    vsnprintf(string->text + string->length, (size_t)length + 1, format, again);
    string->length += (size_t)length;
  }
  va_end(again);
}

void bnd_string_free(bnd_string *string) {
  free(string->text);
  *string = (bnd_string){0};
}

struct bnd_map_slot {
  const char *key;
  size_t value;
};

static size_t hash_text(const char *text) { /* FNV-1a, 64 bit */
  uint64_t hash = 1469598103934665603u;
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;
  return (size_t)(hash ^ (hash >> 32));
}

static struct bnd_map_slot *map_slot(struct bnd_map_slot *slots, size_t capacity, const char *key) {
  size_t at = hash_text(key) & (capacity - 1);
  while (slots[at].key && strcmp(slots[at].key, key) != 0) at = (at + 1) & (capacity - 1);
  return &slots[at];
}

bool bnd_map_put(bnd_map *map, const char *key, size_t value) {
  if ((map->count + 1) * 2 > map->capacity) {
    const size_t capacity = map->capacity ? map->capacity * 2 : 64;
    struct bnd_map_slot *slots = bnd_calloc(capacity, sizeof *slots);
    if (!slots) return false;
    for (size_t i = 0; i < map->capacity; i++)
      if (map->slots[i].key) *map_slot(slots, capacity, map->slots[i].key) = map->slots[i];
    free(map->slots);
    map->slots = slots;
    map->capacity = capacity;
  }
  struct bnd_map_slot *slot = map_slot(map->slots, map->capacity, key);
  if (!slot->key) map->count++;
  *slot = (struct bnd_map_slot){key, value};
  return true;
}

bool bnd_map_get(const bnd_map *map, const char *key, size_t *value) {
  if (!map->capacity) return false;
  const struct bnd_map_slot *slot = map_slot(map->slots, map->capacity, key);
  if (!slot->key) return false;
  if (value) *value = slot->value;
  return true;
}

void bnd_map_free(bnd_map *map) {
  free(map->slots);
  *map = (bnd_map){0};
}

/* The kernel's own mark begins with this program; that of getrusage counts the one that started it, too. */
double bnd_peak_rss_mib(void) {
  char line[128];
  unsigned long kib = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status && kib == 0 && fgets(line, sizeof line, status)) kib = strncmp(line, "VmHWM:", 6) == 0 ? strtoul(line + 6, NULL, 10) : 0;
  if (status) fclose(status);
  if (kib) return (double)kib / 1024;
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss / 1024 : 0;
}
