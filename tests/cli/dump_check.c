/* dump_check DIR: is a dump what docs/numerics.md (sections 1 to 3, 13) says? Every file listed in DIR/dump.json is there, of the type and shape listed;
   codes stay in the range listed; the input's codes are those of the input; accumulators, where dumped, are the sums by definition (without this library's
   kernels), and requantized they are the output. Prints what it looked at, or the first thing that is wrong. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "formats/json/json.h"

typedef struct array {
  char type;          /* 'b' int8, 'i' int32, 'f' float32 */
  int rank;
  long size[8], count;
  char *content;      /* the file; data begins behind the header */
  const char *data;
} array;

static const char *folder;
static bnd_arena *arena;

_Noreturn static void wrong(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\n');
  exit(1);
}

static const char *text(const bnd_json *object, const char *key) {
  const bnd_json *member = bnd_json_member(object, key);
  return member && member->type == BND_JSON_STRING ? member->text : NULL;
}

static long number(const bnd_json *object, const char *key) {
  const bnd_json *member = bnd_json_member(object, key);
  if (!member || !member->is_integer) wrong("%s is no whole number", key);
  return (long)member->integer;
}

/* A number for all channels, or a list. */
static long number_of(const bnd_json *object, const char *key, long channel) {
  const bnd_json *member = bnd_json_member(object, key);
  if (!member) wrong("%s is missing", key);
  if (member->type != BND_JSON_ARRAY) return number(object, key);
  const bnd_json *item = member->first;
  for (; channel > 0 && item; channel--) item = item->next;
  if (!item) wrong("%s is too short", key);
  return (long)item->integer;
}

static void pair(const bnd_json *layer, const char *key, long values[2]) {
  for (int i = 0; i < 2; i++) values[i] = number_of(layer, key, i);
}

static array load(const char *name) {
  array a = {0};
  bnd_error error;
  char path[4096], *at;
  size_t size;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  if (bnd_file_read(path, (uint64_t)1 << 32, &a.content, &size, &error) != BND_OK) wrong("%s", error.message);
  if (size < 10 || memcmp(a.content, "\x93NUMPY\1\0", 8) != 0) wrong("%s: no NumPy file of version 1.0", name);
  const size_t header = 10 + (unsigned char)a.content[8] + 256u * (unsigned char)a.content[9];
  char *type = strstr(a.content + 10, "'descr': '"), *shape = strstr(a.content + 10, "'shape': (");
  if (header % 64 || header > size || !type || !shape || !strstr(a.content + 10, "'fortran_order': False")) wrong("%s: a header of another form", name);
  type += strlen("'descr': '");
  a.type = strncmp(type, "|i1'", 4) == 0 ? 'b' : strncmp(type, "<i4'", 4) == 0 ? 'i' : strncmp(type, "<f4'", 4) == 0 ? 'f' : 0;
  a.count = 1;
  for (at = shape + strlen("'shape': ("); *at != ')' && a.rank < 8; at += strspn(at, ", ")) a.count *= a.size[a.rank++] = strtol(at, &at, 10);
  a.data = a.content + header;
  if (!a.type || size != header + (size_t)a.count * (a.type == 'b' ? 1 : 4)) wrong("%s: %zu bytes do not fit its header", name, size);
  return a;
}

static long at(const array *a, long index) {
  int32_t word;
  if (a->type == 'b') return ((const signed char *)a->data)[index];
  memcpy(&word, a->data + 4 * index, sizeof word);
  return word;
}

static const bnd_json *entry(const bnd_json *root, const char *file) {
  for (const bnd_json *t = bnd_json_member(root, "tensors")->first; t; t = t->next)
    if (strcmp(text(t, "file"), file) == 0) return t;
  wrong("%s is not listed", file);
}

static void check_tensor(const bnd_json *t) {
  const char *file = text(t, "file"), *dtype = text(t, "dtype");
  array a = load(file);
  const bnd_json *shape = bnd_json_member(t, "shape");
  if (strcmp(dtype, a.type == 'f' ? "float32" : "int8") != 0 || shape->count != (size_t)a.rank) wrong("%s: type or shape differ", file);
  for (int i = 0; i < a.rank; i++)
    if (number_of(t, "shape", i) != a.size[i]) wrong("%s: size %d differs", file, i);
  if (a.type == 'b') {
    long low = at(&a, 0), high = low;
    for (long i = 1; i < a.count; i++) {
      if (at(&a, i) < low) low = at(&a, i);
      if (at(&a, i) > high) high = at(&a, i);
    }
    if (low != number(t, "minimum") || high != number(t, "maximum")) wrong("%s: its codes are %ld to %ld", file, low, high);
    const bnd_json *scale = bnd_json_member(t, "scale");
    if (scale && scale->number != ldexp(1, -(int)number(t, "position"))) wrong("%s: scale and position differ", file);
  }
  free(a.content);
}

/* 1: q = clamp(rne(x * 2^pos), -128, 127), of the first quantizer. */
static void check_input(const bnd_json *root) {
  const bnd_json *from = bnd_json_member(root, "tensors")->first, *to = from->next;
  array x = load(text(from, "file")), q = load(text(to, "file"));
  if (x.count != q.count) wrong("the first quantizer is not the input's");
  for (long i = 0; i < x.count; i++) {
    float value;
    memcpy(&value, x.data + 4 * i, sizeof value);
    const double code = fmin(fmax(rint(ldexp((double)value, (int)number(to, "position"))), -128), 127);
    if (code != (double)at(&q, i)) wrong("input %ld: %g became %ld", i, (double)value, at(&q, i));
  }
  free(x.content);
  free(q.content);
}

/* 3: P. Weights [o][c][i][j], of transposed convolutions [c][o][i][j]. */
static long products(const bnd_json *layer, const array *x, const array *w, long zero_x, long zero_w, long channels, long o, long row, long column) {
  const int transposed = strcmp(text(layer, "operator"), "conv_transpose2d") == 0;
  const long groups = number(layer, "groups"), ins = x->size[1] / groups, outs = channels / groups, group = o / outs;
  long stride[2], padding[2], dilation[2], sum = 0;
  pair(layer, "stride", stride);
  pair(layer, "padding", padding);
  pair(layer, "dilation", dilation);
  for (long i = 0; i < w->size[2]; i++)
    for (long j = 0; j < w->size[3]; j++) {
      long y = transposed ? row + padding[0] - i * dilation[0] : row * stride[0] - padding[0] + i * dilation[0];
      long z = transposed ? column + padding[1] - j * dilation[1] : column * stride[1] - padding[1] + j * dilation[1];
      if (transposed && (y % stride[0] || z % stride[1])) continue;
      if (transposed) y /= stride[0], z /= stride[1];
      if (y < 0 || z < 0 || y >= x->size[2] || z >= x->size[3]) continue;
      for (long c = 0; c < ins; c++) {
        const long filter = transposed ? (group * ins + c) * outs + o % outs : o * ins + c;
        sum += (at(x, ((group * ins + c) * x->size[2] + y) * x->size[3] + z) - zero_x) * (at(w, (filter * w->size[2] + i) * w->size[3] + j) - zero_w);
      }
    }
  return sum;
}

/* 2, in a form of its own: half to even by quotient and rest. */
static long requantized(long a, long shift) {
  if (shift < 0) a *= 1L << -shift;
  if (shift > 0) {
    const long unit = 1L << shift, rest = ((a % unit) + unit) % unit, below = (a - rest) / unit;
    a = 2 * rest > unit || (2 * rest == unit && below % 2 != 0) ? below + 1 : below;
  }
  return a < -128 ? -128 : a > 127 ? 127 : a;
}

static void check_layer(const bnd_json *root, const bnd_json *layer) {
  const char *node = text(layer, "node"), *bias_file = text(layer, "bias");
  const bnd_json *input = entry(root, text(layer, "input")), *weight = entry(root, text(layer, "weight")), *bias = bias_file ? entry(root, bias_file) : NULL,
                 *output = entry(root, text(layer, "output"));
  array a = load(text(layer, "accumulators")), x = load(text(layer, "input")), w = load(text(layer, "weight")), y = load(text(layer, "output")),
        b = bias ? load(bias_file) : (array){0};
  const long ipos = number(input, "position"), opos = number(output, "position"), channels = a.size[1], plane = a.size[2] * a.size[3];
  const int relu = bnd_json_member(layer, "relu")->boolean;
  if (a.type != 'i' || a.count != y.count) wrong("%s: accumulators do not fit the output", node);
  long low = at(&a, 0), high = low;
  for (long i = 0; i < a.count; i++) {
    const long o = i / plane % channels, wpos = number_of(weight, "position", o), bpos = bias ? number(bias, "position") : wpos + ipos;
    const long apos = bpos > wpos + ipos ? bpos : wpos + ipos, shift = number_of(layer, "shift", o);
    const long offset = bias ? at(&b, o) - number(bias, "zero_point") : 0;
    const long zero_x = number(input, "zero_point"), zero_w = number_of(weight, "zero_point", o);
    const long sum = products(layer, &x, &w, zero_x, zero_w, channels, o, i % plane / a.size[3], i % a.size[3]);
    const long expected = sum * (1L << (apos - wpos - ipos)) + offset * (1L << (apos - bpos)), found = at(&a, i);
    if (apos != number_of(layer, "accumulator_position", o) || shift != wpos + ipos - opos) wrong("%s: position or shift of channel %ld", node, o);
    if (bias && number_of(layer, "bias_shift", o) != wpos + ipos - bpos) wrong("%s: bias_shift", node);
    if (found != expected) wrong("%s: accumulator %ld is %ld instead of %ld", node, i, found, expected);
    if (requantized(relu && found < 0 ? 0 : found, apos - opos) != at(&y, i)) wrong("%s: output %ld is %ld", node, i, at(&y, i));
    low = found < low ? found : low;
    high = found > high ? found : high;
  }
  if (low != number(layer, "accumulator_minimum") || high != number(layer, "accumulator_maximum")) wrong("%s: range of accumulators", node);
  const long bits = number(layer, "accumulator_bits");
  if (low < -(1L << (bits - 1)) || high >= 1L << (bits - 1) || bits > number(layer, "accumulator_bits_limit")) wrong("%s: accumulator bits", node);
  free(a.content), free(x.content), free(w.content), free(y.content), free(b.content);
}

int main(int argc, char **argv) {
  bnd_error error;
  const bnd_json *root;
  char path[4096];
  long tensors = 0, layers = 0;
  if (argc != 2 || !(arena = bnd_arena_create())) return 2;
  folder = argv[1];
  snprintf(path, sizeof path, "%s/dump.json", folder);
  if (bnd_json_parse_file(path, 1 << 26, arena, &root, &error) != BND_OK) wrong("%s", error.message);
  if (strcmp(text(root, "rounding"), "half to even at every requantization") != 0) wrong("rounding: %s", text(root, "rounding"));
  long order = 0;
  for (const bnd_json *t = bnd_json_member(root, "tensors")->first; t; t = t->next, tensors++) {
    if (number(t, "order") < order) wrong("%s: out of order", text(t, "file"));
    order = number(t, "order");
    check_tensor(t);
  }
  check_input(root);
  for (const bnd_json *l = bnd_json_member(root, "layers")->first; l; l = l->next)
    if (text(l, "accumulators")) check_layer(root, l), layers++;
  printf("%ld tensors, %ld layers\n", tensors, layers);
  bnd_arena_destroy(arena);
  return 0;
}
