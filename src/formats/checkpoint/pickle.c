#include "formats/checkpoint/pickle.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Opcodes as in CPython's Lib/pickle.py. */
enum opcode {
  MARK = '(', STOP = '.', POP = '0', POP_MARK = '1', DUP = '2', FLOAT = 'F', INT = 'I', BININT = 'J', BININT1 = 'K', LONG = 'L', BININT2 = 'M',
  NONE = 'N', BINPERSID = 'Q', REDUCE = 'R', BINSTRING = 'T', SHORT_BINSTRING = 'U', UNICODE = 'V', BINUNICODE = 'X', APPEND = 'a', BUILD = 'b',
  GLOBAL = 'c', DICT = 'd', EMPTY_DICT = '}', APPENDS = 'e', GET = 'g', BINGET = 'h', LONG_BINGET = 'j', LIST = 'l', EMPTY_LIST = ']', PUT = 'p',
  BINPUT = 'q', LONG_BINPUT = 'r', SETITEM = 's', TUPLE = 't', EMPTY_TUPLE = ')', SETITEMS = 'u', BINFLOAT = 'G', BINBYTES = 'B',
  SHORT_BINBYTES = 'C', PROTO = 0x80, NEWOBJ = 0x81, TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87, NEWTRUE = 0x88, NEWFALSE = 0x89, LONG1 = 0x8a,
  LONG4 = 0x8b, SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d, BINBYTES8 = 0x8e, EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
  NEWOBJ_EX = 0x92, STACK_GLOBAL = 0x93, MEMOIZE = 0x94, FRAME = 0x95, BYTEARRAY8 = 0x96
};

enum { MAX_LINE = 1024, MAX_STACK = BND_VALUE_MAX_COUNT, MAX_MARKS = 1 << 16 };

typedef struct machine {
  bnd_byte_stream *stream;
  bnd_object_builder *builder;
  bnd_value_pool *pool;
  bnd_error *error;
  uint64_t opcode_position;
  bnd_value **stack;
  size_t depth, stack_capacity;
  size_t *marks; /* depths */
  size_t mark_count, mark_capacity;
  bnd_value **memo;
  size_t memo_used, memo_capacity; /* entries up to memo_used are set or NULL */
} machine;

static bnd_status fail(machine *m, const char *problem) {
  return bnd_fail(m->error, BND_ERROR_FORMAT, "%s: byte %llu: %s; the file is damaged or was not written by torch.save", m->stream->name,
                  (unsigned long long)m->opcode_position, problem);
}

/* ---- bytes ---- */

bnd_status bnd_byte_stream_take(bnd_byte_stream *stream, void *to, size_t size, bnd_error *error) {
  unsigned char *out = to;
  while (size) {
    if (stream->begin == stream->end) {
      const int64_t got = stream->read(stream, stream->buffer, sizeof stream->buffer);
      if (got <= 0)
        return bnd_fail(error, got < 0 ? BND_ERROR_IO : BND_ERROR_FORMAT, "%s: byte %llu: %s; the file is cut off or damaged, get it again",
                        stream->name, (unsigned long long)stream->position, got < 0 ? "cannot be read" : "ends in the middle of the pickle");
      stream->begin = 0;
      stream->end = (size_t)got;
    }
    const size_t part = size < stream->end - stream->begin ? size : stream->end - stream->begin;
    memcpy(out, stream->buffer + stream->begin, part);
    stream->begin += part;
    stream->position += part;
    out += part;
    size -= part;
  }
  return BND_OK;
}

static bnd_status take(machine *m, void *to, size_t size) { return bnd_byte_stream_take(m->stream, to, size, m->error); }

/* An unsigned little-endian number of `size` <= 8 bytes. */
static bnd_status take_number(machine *m, size_t size, uint64_t *number) {
  unsigned char bytes[8];
  BND_TRY(take(m, bytes, size));
  *number = 0;
  for (size_t i = 0; i < size; i++) *number |= (uint64_t)bytes[i] << (8 * i);
  return BND_OK;
}

/* A line of text without its line feed. */
static bnd_status take_line(machine *m, char line[MAX_LINE], size_t *length) {
  for (*length = 0; *length < MAX_LINE; ++*length) {
    BND_TRY(take(m, line + *length, 1));
    if (line[*length] == '\n') {
      line[*length] = '\0';
      return BND_OK;
    }
  }
  return fail(m, "a line of text does not end");
}

/* ---- stack, marks, memo ---- */

/* After a function of the pool or the builder has failed; without a problem it ran out of memory. */
static bnd_status fail_building(machine *m) {
  return m->pool->problem ? fail(m, m->pool->problem) : bnd_fail_memory(m->error, m->stream->name);
}

static bnd_status push(machine *m, bnd_value *value) {
  if (!value) return fail_building(m);
  if (m->depth >= MAX_STACK) return fail(m, "more values are stacked up than any checkpoint has");
  if (!BND_GROW(m->stack, m->stack_capacity, m->depth + 1)) return bnd_fail_memory(m->error, m->stream->name);
  m->stack[m->depth++] = value;
  return BND_OK;
}

/* Values above the last mark. */
static size_t available(const machine *m) { return m->depth - (m->mark_count ? m->marks[m->mark_count - 1] : 0); }

static bnd_status need(machine *m, size_t count) {
  return available(m) >= count ? BND_OK : fail(m, "an instruction takes more values than there are");
}

static bnd_value *top(const machine *m, size_t below) { return m->stack[m->depth - 1 - below]; }

static bnd_status push_mark(machine *m) {
  if (m->mark_count >= MAX_MARKS) return fail(m, "more marks are set than any checkpoint has");
  if (!BND_GROW(m->marks, m->mark_capacity, m->mark_count + 1)) return bnd_fail_memory(m->error, m->stream->name);
  m->marks[m->mark_count++] = m->depth;
  return BND_OK;
}

/* Removes the values above the last mark and the mark: *items stays valid until the next push. */
static bnd_status pop_to_mark(machine *m, bnd_value ***items, size_t *count) {
  if (!m->mark_count) return fail(m, "an instruction needs a mark, but none is set");
  *count = available(m);
  m->depth = m->marks[--m->mark_count];
  *items = m->stack + m->depth;
  return BND_OK;
}

static bnd_status memo_put(machine *m, uint64_t index) {
  BND_TRY(need(m, 1));
  /* Every entry costs bytes of the pickle, so honest numbers are smaller than it. */
  if (index > m->stream->size || index >= BND_VALUE_MAX_COUNT) return fail(m, "a memo number is out of range");
  if (!BND_GROW(m->memo, m->memo_capacity, (size_t)index + 1)) return bnd_fail_memory(m->error, m->stream->name);
  while (m->memo_used <= index) m->memo[m->memo_used++] = NULL;
  m->memo[index] = top(m, 0);
  return BND_OK;
}

static bnd_status memo_get(machine *m, uint64_t index) {
  if (index >= m->memo_used || !m->memo[index]) return fail(m, "a memo entry is used before it is set");
  return push(m, m->memo[index]);
}

/* ---- single values ---- */

static bnd_status push_int(machine *m, int64_t number) {
  bnd_value *value = bnd_value_new(m->pool, BND_VALUE_INT);
  if (value) value->integer = number;
  return push(m, value);
}

static bnd_status push_bool(machine *m, bool truth) {
  bnd_value *value = bnd_value_new(m->pool, BND_VALUE_BOOL);
  if (value) value->boolean = truth;
  return push(m, value);
}

static bnd_status push_float(machine *m, double number) {
  bnd_value *value = bnd_value_new(m->pool, BND_VALUE_FLOAT);
  if (value) value->number = number;
  return push(m, value);
}

/* Text or bytes of which the length comes first, in `size` bytes. */
static bnd_status push_string(machine *m, bnd_value_kind kind, size_t size) {
  uint64_t length;
  BND_TRY(take_number(m, size, &length));
  if (m->stream->position > m->stream->size || length > m->stream->size - m->stream->position)
    return fail(m, "a string is longer than the rest of the file");
  bnd_value *value = bnd_value_new(m->pool, kind);
  char *text = value ? bnd_value_alloc(m->pool, (size_t)length + 1, 1) : NULL;
  if (!text) return push(m, NULL);
  BND_TRY(take(m, text, (size_t)length));
  value->string.text = text;
  value->string.length = (size_t)length;
  return push(m, value);
}

/* Two's complement, little-endian. Numbers beyond 64 bits (seeds of random generators) are opaque. */
static bnd_status push_long(machine *m, uint64_t length) {
  int64_t number = 0;
  bool fits = true;
  unsigned char byte = 0;
  if (length > m->stream->size) return fail(m, "an integer is longer than the file");
  for (uint64_t i = 0; i < length; i++) {
    BND_TRY(take(m, &byte, 1));
    if (i < 8) number = (int64_t)((uint64_t)number | (uint64_t)byte << (8 * i));
    if (i >= 8 && byte != (number < 0 ? 0xff : 0)) fits = false;
  }
  if (length > 0 && length < 8 && byte & 0x80) number = (int64_t)((uint64_t)number | ~UINT64_C(0) << (8 * length));
  return fits ? push_int(m, number) : push(m, bnd_value_new_opaque(m->pool, "int", NULL, NULL));
}

static bnd_status push_text_number(machine *m, enum opcode opcode) {
  char line[MAX_LINE], *end;
  size_t length;
  BND_TRY(take_line(m, line, &length));
  if (opcode == FLOAT) {
    const double number = strtod(line, &end);
    return end == line || *end ? fail(m, "a number is not written as one") : push_float(m, number);
  }
  if (opcode == INT && strcmp(line, "00") == 0) return push_bool(m, false);
  if (opcode == INT && strcmp(line, "01") == 0) return push_bool(m, true);
  errno = 0;
  const long long number = strtoll(line, &end, 10);
  if (*end == 'L') end++;
  if (end == line || *end) return fail(m, "a number is not written as one");
  return errno == ERANGE ? push(m, bnd_value_new_opaque(m->pool, "int", NULL, NULL)) : push_int(m, number);
}

/* The class or function module.name, which is never looked up. */
static bnd_status push_global(machine *m, const char *module, size_t module_length, const char *name, size_t name_length) {
  if (module_length == 0 || name_length == 0 || module_length > MAX_LINE || name_length > MAX_LINE) return fail(m, "a class has no proper name");
  char *full = bnd_value_alloc(m->pool, module_length + name_length + 2, 1);
  if (!full) return push(m, NULL);
  memcpy(full, module, module_length);
  full[module_length] = '.';
  memcpy(full + module_length + 1, name, name_length);
  for (size_t i = 0; i < module_length + name_length + 1; i++)
    if ((unsigned char)full[i] <= ' ' || (unsigned char)full[i] >= 0x7f) return fail(m, "the name of a class contains unprintable characters");
  return push(m, bnd_value_new_opaque(m->pool, full, NULL, NULL));
}

static bnd_status run_global(machine *m) {
  char module[MAX_LINE], name[MAX_LINE];
  size_t module_length, name_length;
  BND_TRY(take_line(m, module, &module_length));
  BND_TRY(take_line(m, name, &name_length));
  return push_global(m, module, module_length, name, name_length);
}

static bnd_status run_stack_global(machine *m) {
  BND_TRY(need(m, 2));
  const bnd_value *module = top(m, 1), *name = top(m, 0);
  if (module->kind != BND_VALUE_STRING || name->kind != BND_VALUE_STRING) return fail(m, "the name of a class is no text");
  m->depth -= 2;
  return push_global(m, module->string.text, module->string.length, name->string.text, name->string.length);
}

static bnd_status push_float64(machine *m) {
  uint64_t bits;
  double number;
  BND_TRY(take_number(m, 8, &bits));
  bits = __builtin_bswap64(bits);
  memcpy(&number, &bits, sizeof number);
  return push_float(m, number);
}

/* ---- containers ---- */

/* What APPENDS, ADDITEMS and SETITEMS may fill. An object of an unknown class derived from list or dict becomes what it is used as. */
static bool becomes(bnd_value *value, bnd_value_kind kind) {
  if (value->kind == BND_VALUE_OPAQUE && value->opaque.arguments) {
    *value = (bnd_value){.kind = kind};
    return true;
  }
  return value->kind == kind;
}

static bnd_status append(machine *m, bnd_value **items, size_t count) {
  BND_TRY(need(m, 1));
  bnd_value *list = top(m, 0);
  if (!becomes(list, BND_VALUE_LIST)) return fail(m, "values are appended to something that is no list");
  for (size_t i = 0; i < count; i++)
    if (!bnd_value_append(m->pool, list, items[i])) return fail_building(m);
  return BND_OK;
}

static bnd_status insert(machine *m, bnd_value *dict, bnd_value **items, size_t count) {
  if (!becomes(dict, BND_VALUE_DICT)) return fail(m, "items are put into something that is no dict");
  if (count % 2) return fail(m, "a dict gets a key without a value");
  for (size_t i = 0; i < count; i += 2)
    if (!bnd_value_insert(m->pool, dict, items[i], items[i + 1])) return fail_building(m);
  return BND_OK;
}

static bnd_status run_collect(machine *m, enum opcode opcode) {
  bnd_value **items = NULL;
  size_t count = 0;
  BND_TRY(pop_to_mark(m, &items, &count));
  switch (opcode) {
    case TUPLE: return push(m, bnd_value_new_tuple(m->pool, BND_VALUE_TUPLE, items, count));
    case LIST:
    case FROZENSET: return push(m, bnd_value_new_tuple(m->pool, BND_VALUE_LIST, items, count));
    case APPENDS:
    case ADDITEMS: return append(m, items, count);
    case SETITEMS: BND_TRY(need(m, 1)); return insert(m, top(m, 0), items, count);
    case DICT: {
      bnd_value *dict = bnd_value_new(m->pool, BND_VALUE_DICT);
      if (dict) BND_TRY(insert(m, dict, items, count));
      return push(m, dict);
    }
    default: return BND_OK; /* POP_MARK */
  }
}

static bnd_status run_small_tuple(machine *m, size_t count) {
  BND_TRY(need(m, count));
  m->depth -= count;
  return push(m, bnd_value_new_tuple(m->pool, BND_VALUE_TUPLE, m->stack + m->depth, count));
}

/* callable, arguments -> object. NEWOBJ_EX has keyword arguments above them, which nothing on the allow-list takes. */
static bnd_status run_call(machine *m, size_t operands) {
  BND_TRY(need(m, operands));
  m->depth -= operands;
  bnd_value *callable = m->stack[m->depth], *arguments = m->stack[m->depth + 1];
  if (arguments->kind != BND_VALUE_TUPLE) return fail(m, "the arguments of a call are no tuple");
  return push(m, bnd_object_call(m->builder, callable, arguments));
}

static bnd_status run_persistent_id(machine *m) {
  BND_TRY(need(m, 1));
  return push(m, bnd_object_persistent(m->builder, m->stack[--m->depth]));
}

static bnd_status run_memo(machine *m, enum opcode opcode) {
  uint64_t index;
  if (opcode == PUT || opcode == GET) {
    char line[MAX_LINE], *end;
    size_t length;
    BND_TRY(take_line(m, line, &length));
    index = isdigit((unsigned char)line[0]) ? strtoull(line, &end, 10) : UINT64_MAX;
    return opcode == PUT ? memo_put(m, index) : memo_get(m, index);
  }
  BND_TRY(take_number(m, opcode == BINPUT || opcode == BINGET ? 1 : 4, &index));
  return opcode == BINPUT || opcode == LONG_BINPUT ? memo_put(m, index) : memo_get(m, index);
}

static bnd_status run_line_text(machine *m) {
  char line[MAX_LINE];
  size_t length;
  BND_TRY(take_line(m, line, &length));
  return push(m, bnd_value_new_string(m->pool, BND_VALUE_STRING, line, length));
}

static bnd_status run_protocol(machine *m) {
  uint64_t version;
  BND_TRY(take_number(m, 1, &version));
  return version <= 5 ? BND_OK : fail(m, "the pickle protocol is newer than 5");
}

/* Runs every instruction but STOP. */
static bnd_status run(machine *m, enum opcode opcode) {
  uint64_t number;
  switch (opcode) {
    case PROTO: return run_protocol(m);
    case FRAME: return take_number(m, 8, &number);
    case MARK: return push_mark(m);
    case POP: /* as in Python, it may also remove a mark */
      if (m->mark_count && available(m) == 0) {
        m->mark_count--;
        return BND_OK;
      }
      BND_TRY(need(m, 1));
      m->depth--;
      return BND_OK;
    case DUP: BND_TRY(need(m, 1)); return push(m, top(m, 0));
    case NONE: return push(m, bnd_value_new(m->pool, BND_VALUE_NONE));
    case NEWTRUE: return push_bool(m, true);
    case NEWFALSE: return push_bool(m, false);
    case BININT: BND_TRY(take_number(m, 4, &number)); return push_int(m, (int32_t)(uint32_t)number);
    case BININT1: BND_TRY(take_number(m, 1, &number)); return push_int(m, (int64_t)number);
    case BININT2: BND_TRY(take_number(m, 2, &number)); return push_int(m, (int64_t)number);
    case LONG1: BND_TRY(take_number(m, 1, &number)); return push_long(m, number);
    case LONG4: BND_TRY(take_number(m, 4, &number)); return push_long(m, number);
    case BINFLOAT: return push_float64(m);
    case FLOAT:
    case INT:
    case LONG: return push_text_number(m, opcode);
    case UNICODE: return run_line_text(m);
    case SHORT_BINSTRING:
    case SHORT_BINUNICODE: return push_string(m, BND_VALUE_STRING, 1);
    case BINSTRING:
    case BINUNICODE: return push_string(m, BND_VALUE_STRING, 4);
    case BINUNICODE8: return push_string(m, BND_VALUE_STRING, 8);
    case SHORT_BINBYTES: return push_string(m, BND_VALUE_BYTES, 1);
    case BINBYTES: return push_string(m, BND_VALUE_BYTES, 4);
    case BINBYTES8:
    case BYTEARRAY8: return push_string(m, BND_VALUE_BYTES, 8);
    case EMPTY_DICT: return push(m, bnd_value_new(m->pool, BND_VALUE_DICT));
    case EMPTY_LIST:
    case EMPTY_SET: return push(m, bnd_value_new(m->pool, BND_VALUE_LIST));
    case EMPTY_TUPLE: return run_small_tuple(m, 0);
    case TUPLE1: return run_small_tuple(m, 1);
    case TUPLE2: return run_small_tuple(m, 2);
    case TUPLE3: return run_small_tuple(m, 3);
    case TUPLE:
    case LIST:
    case DICT:
    case FROZENSET:
    case APPENDS:
    case ADDITEMS:
    case SETITEMS:
    case POP_MARK: return run_collect(m, opcode);
    case APPEND: BND_TRY(need(m, 2)); m->depth--; return append(m, m->stack + m->depth, 1);
    case SETITEM: BND_TRY(need(m, 3)); m->depth -= 2; return insert(m, top(m, 0), m->stack + m->depth, 2);
    case GLOBAL: return run_global(m);
    case STACK_GLOBAL: return run_stack_global(m);
    case REDUCE:
    case NEWOBJ: return run_call(m, 2);
    case NEWOBJ_EX: return run_call(m, 3);
    case BUILD: BND_TRY(need(m, 2)); m->depth--; bnd_object_set_state(top(m, 0), m->stack[m->depth]); return BND_OK;
    case BINPERSID: return run_persistent_id(m);
    case PUT:
    case GET:
    case BINPUT:
    case BINGET:
    case LONG_BINPUT:
    case LONG_BINGET: return run_memo(m, opcode);
    case MEMOIZE: return memo_put(m, m->memo_used);
    default: return fail(m, "this is no instruction of a pickle");
  }
}

bnd_status bnd_pickle_read(bnd_byte_stream *stream, bnd_object_builder *builder, bnd_value **value, bnd_error *error) {
  machine m = {.stream = stream, .builder = builder, .pool = &builder->pool, .error = error};
  /* Never empty-handed: an empty tuple and an empty mark point into the stack even before anything was pushed. */
  if (!BND_GROW(m.stack, m.stack_capacity, 16)) return bnd_fail_memory(error, stream->name);
  bnd_status status;
  for (;;) {
    unsigned char opcode;
    m.opcode_position = stream->position;
    builder->pool.problem = NULL;
    BND_TRY_GOTO(take(&m, &opcode, 1), done);
    if (opcode == STOP) break;
    BND_TRY_GOTO(run(&m, opcode), done);
  }
  if (m.depth != 1 || m.mark_count)
    status = fail(&m, "the pickle does not end with exactly one value");
  else
    *value = m.stack[0];
done:
  free(m.stack);
  free(m.marks);
  free(m.memo);
  return status;
}
