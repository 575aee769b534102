#include "formats/checkpoint/objects.h"

#include <math.h>
#include <string.h>

static bool is_class(const bnd_value *value) { return value->kind == BND_VALUE_OPAQUE && !value->opaque.arguments; }

static const char *last_part(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot ? dot + 1 : name;
}

static bnd_value *argument(const bnd_value *arguments, size_t index) {
  return arguments->kind == BND_VALUE_TUPLE && index < arguments->list.count ? arguments->list.items[index] : NULL;
}

static bnd_value *refuse(bnd_object_builder *builder, const char *problem) {
  builder->pool.problem = problem;
  return NULL;
}

/* ---- persistent ids ---- */

static bool is_key(const char *key) {
  const size_t length = strlen(key);
  return length > 0 && length < 64 && strspn(key, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") == length;
}

/* ("storage", type, key, location, elements[, view]); view = None or (view key, first element, elements). */
bnd_value *bnd_object_persistent(bnd_object_builder *builder, const bnd_value *id) {
  const bnd_value *what = argument(id, 0), *type = argument(id, 1);
  if (bnd_value_is_text(what, "module") && type) return (bnd_value *)type;
  if (!bnd_value_is_text(what, "storage") || id->list.count < 5 || id->list.count > 6)
    return refuse(builder, "a persistent id is no storage of torch.save");
  const bnd_value *key = argument(id, 2), *count = argument(id, 4), *view = argument(id, 5);
  const char *key_text = bnd_value_text(key);
  const bnd_element_type *element = is_class(type) ? bnd_element_type_by_storage(last_part(type->opaque.name)) : NULL;
  if (!element) return refuse(builder, "a storage has an unknown type");
  if (!key_text || !is_key(key_text)) return refuse(builder, "a storage has no proper key");
  if (count->kind != BND_VALUE_INT || count->integer < 0) return refuse(builder, "a storage has no proper number of elements");
  bnd_value_storage part = {.count = (uint64_t)count->integer};
  if (view && view->kind != BND_VALUE_NONE) {
    const bnd_value *first = argument(view, 1), *length = argument(view, 2);
    if (!first || !length || first->kind != BND_VALUE_INT || length->kind != BND_VALUE_INT || first->integer < 0 || length->integer < 0 ||
        first->integer > count->integer || length->integer > count->integer - first->integer)
      return refuse(builder, "a view of a storage lies outside of it");
    part.offset = (uint64_t)first->integer;
    part.count = (uint64_t)length->integer;
  }
  const bnd_storage_entry *entry = bnd_storage_table_add(&builder->storages, key_text, element, (uint64_t)count->integer);
  if (!entry) return NULL;
  part.index = (size_t)(entry - builder->storages.entries);
  bnd_value *value = bnd_value_new(&builder->pool, BND_VALUE_STORAGE);
  if (value) value->storage = part;
  return value;
}

/* ---- tensors ---- */

/* Fills the tensor or says why not. `dtype` is NULL for typed storages. */
static const char *fill_tensor(const bnd_object_builder *builder, const bnd_value *arguments, const bnd_value *dtype, bnd_value_tensor *tensor) {
  const bnd_value *storage = argument(arguments, 0), *offset = argument(arguments, 1), *size = argument(arguments, 2),
                  *stride = argument(arguments, 3);
  if (!stride) return "it has too few arguments";
  if (storage->kind != BND_VALUE_STORAGE) return "it has no storage";
  if (offset->kind != BND_VALUE_INT || offset->integer < 0) return "its offset is no natural number";
  if (size->kind != BND_VALUE_TUPLE || stride->kind != BND_VALUE_TUPLE || size->list.count != stride->list.count)
    return "its size and stride are no tuples of one length";
  if (size->list.count > BND_MAX_RANK) return "it has more than 8 dimensions";
  tensor->storage = storage->storage;
  tensor->type = builder->storages.entries[storage->storage.index].type;
  if (dtype) tensor->type = is_class(dtype) ? bnd_element_type_by_name(last_part(dtype->opaque.name)) : NULL;
  if (!tensor->type) return "its dtype is unknown";
  tensor->offset = (uint64_t)offset->integer;
  tensor->shape.rank = (int)size->list.count;
  for (int i = 0; i < tensor->shape.rank; i++) {
    const bnd_value *length = size->list.items[i], *step = stride->list.items[i];
    if (length->kind != BND_VALUE_INT || length->integer < 0) return "its size is not made of natural numbers";
    if (step->kind != BND_VALUE_INT || step->integer < 0) return "its stride is not made of natural numbers";
    tensor->shape.size[i] = length->integer;
    tensor->stride[i] = step->integer;
  }
  return NULL;
}

static bnd_value *make_tensor(bnd_object_builder *builder, const char *name, bnd_value *arguments, bool has_dtype) {
  bnd_value_tensor *tensor = bnd_value_alloc(&builder->pool, 1, sizeof *tensor);
  if (!tensor) return NULL;
  const bnd_value *dtype = has_dtype ? argument(arguments, 6) : NULL;
  const char *reason = has_dtype && !dtype ? "it has too few arguments" : fill_tensor(builder, arguments, dtype, tensor);
  if (reason) return bnd_value_new_opaque(&builder->pool, name, arguments, reason);
  bnd_value *value = bnd_value_new(&builder->pool, BND_VALUE_TENSOR);
  if (value) value->tensor = tensor;
  return value;
}

/* ---- text and numpy ---- */

/* Writes one character and returns its number of bytes. */
static size_t put_utf8(uint32_t code, char *to) {
  const size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  static const unsigned char LEAD[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (size_t i = length - 1; i > 0; i--, code >>= 6) to[i] = (char)(0x80 | (code & 63));
  to[0] = (char)(LEAD[length] | code);
  return length;
}

/* _codecs.encode(text, "latin1"): protocol 2 has no bytes, so Python writes each byte as the code point of the same number. */
static bnd_value *encode_latin1(bnd_object_builder *builder, const bnd_value *text) {
  bnd_value *value = bnd_value_new_string(&builder->pool, BND_VALUE_BYTES, text->string.text, text->string.length);
  if (!value) return NULL;
  char *bytes = (char *)value->string.text;
  size_t count = 0;
  for (size_t i = 0; i < text->string.length; i++) {
    unsigned char byte = (unsigned char)text->string.text[i];
    if (byte >= 0x80) {
      const unsigned char next = i + 1 < text->string.length ? (unsigned char)text->string.text[i + 1] : 0;
      if ((byte & 0xfe) != 0xc2 || (next & 0xc0) != 0x80) return refuse(builder, "a byte string contains characters beyond Latin-1");
      byte = (unsigned char)(byte << 6 | (next & 63));
      i++;
    }
    bytes[count++] = (char)byte;
  }
  bytes[count] = '\0';
  value->string.length = count;
  return value;
}

/* The data of a numpy scalar: little-endian integers of `size` bytes. */
static uint64_t load_bytes(const char *data, size_t size, bool big_endian) {
  uint64_t bits = 0;
  for (size_t i = 0; i < size; i++) bits |= (uint64_t)(unsigned char)data[big_endian ? size - 1 - i : i] << (8 * i);
  return bits;
}

static double float_of_bits(uint64_t bits, size_t size) {
  if (size == 8) {
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
  }
  if (size == 4) {
    const uint32_t narrow = (uint32_t)bits;
    float number;
    memcpy(&number, &narrow, sizeof number);
    return (double)number;
  }
  const int exponent = (int)(bits >> 10 & 31), fraction = (int)(bits & 1023);
  const double size_of_it = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
  return bits >> 15 & 1 ? -size_of_it : size_of_it;
}

static bnd_value *utf32_to_text(bnd_object_builder *builder, const bnd_value *data, bool big_endian) {
  char *text = bnd_value_alloc(&builder->pool, data->string.length + 1, 1);
  if (!text) return NULL;
  size_t used = 0, length = data->string.length / 4;
  while (length && load_bytes(data->string.text + 4 * (length - 1), 4, false) == 0) length--; /* padding */
  for (size_t i = 0; i < length; i++) {
    const uint64_t code = load_bytes(data->string.text + 4 * i, 4, big_endian);
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return refuse(builder, "a numpy string contains no valid characters");
    used += put_utf8((uint32_t)code, text + used);
  }
  return bnd_value_new_string(&builder->pool, BND_VALUE_STRING, text, used);
}

/* numpy.core.multiarray.scalar(dtype, data). dtype = numpy.dtype("f8", ...) with state (3, "<", ...): arraydescr_reduce in numpy's descriptor.c.
   NULL without a problem: not understood. */
static bnd_value *make_numpy_scalar(bnd_object_builder *builder, const bnd_value *arguments) {
  const bnd_value *dtype = argument(arguments, 0), *data = argument(arguments, 1);
  if (!dtype || !data || dtype->kind != BND_VALUE_OPAQUE || !dtype->opaque.arguments || strcmp(dtype->opaque.name, "numpy.dtype") != 0 ||
      (data->kind != BND_VALUE_BYTES && data->kind != BND_VALUE_STRING))
    return NULL;
  const char *type = bnd_value_text(argument(dtype->opaque.arguments, 0));
  const bnd_value *order = dtype->opaque.state ? argument(dtype->opaque.state, 1) : NULL;
  bool big_endian = bnd_value_is_text(order, ">");
  if (!type) return NULL;
  if (*type == '<' || *type == '>' || *type == '|' || *type == '=') big_endian = *type++ == '>';
  const size_t size = data->string.length;
  if (type[0] == 'U') return size % 4 == 0 ? utf32_to_text(builder, data, big_endian) : NULL;
  if (type[0] == 'S') return bnd_value_new_string(&builder->pool, BND_VALUE_BYTES, data->string.text, size);
  if (type[0] == '\0' || type[1] != (char)('0' + size) || type[2] != '\0' || size > 8) return NULL;
  const uint64_t bits = load_bytes(data->string.text, size, big_endian);
  bnd_value *value = NULL;
  if (type[0] == 'f' && (size == 2 || size == 4 || size == 8)) {
    if ((value = bnd_value_new(&builder->pool, BND_VALUE_FLOAT))) value->number = float_of_bits(bits, size);
  } else if (type[0] == 'b' && size == 1) {
    if ((value = bnd_value_new(&builder->pool, BND_VALUE_BOOL))) value->boolean = bits != 0;
  } else if (type[0] == 'i' && size > 0) {
    const uint64_t sign = UINT64_C(1) << (8 * size - 1);
    if ((value = bnd_value_new(&builder->pool, BND_VALUE_INT))) value->integer = (int64_t)((bits ^ sign) - sign);
  } else if (type[0] == 'u' && size > 0 && bits <= INT64_MAX) {
    if ((value = bnd_value_new(&builder->pool, BND_VALUE_INT))) value->integer = (int64_t)bits;
  }
  return value;
}

/* ---- containers ---- */

/* OrderedDict() or, from Python 2, OrderedDict([[key, value], ...]). */
static bnd_value *make_dict(bnd_object_builder *builder, const bnd_value *items) {
  bnd_value *dict = bnd_value_new(&builder->pool, BND_VALUE_DICT);
  if (!dict || !items || (items->kind != BND_VALUE_LIST && items->kind != BND_VALUE_TUPLE)) return dict;
  for (size_t i = 0; i < items->list.count; i++) {
    const bnd_value *pair = items->list.items[i];
    if ((pair->kind != BND_VALUE_LIST && pair->kind != BND_VALUE_TUPLE) || pair->list.count != 2)
      return refuse(builder, "an ordered dict is not made of pairs");
    if (!bnd_value_insert(&builder->pool, dict, pair->list.items[0], pair->list.items[1])) return NULL;
  }
  return dict;
}

static bnd_value *make_sequence(bnd_object_builder *builder, bnd_value_kind kind, const bnd_value *items) {
  if (!items || (items->kind != BND_VALUE_LIST && items->kind != BND_VALUE_TUPLE)) return bnd_value_new_tuple(&builder->pool, kind, NULL, 0);
  return bnd_value_new_tuple(&builder->pool, kind, items->list.items, items->list.count);
}

/* ---- the allow-list ---- */

typedef enum known {
  UNKNOWN, DICT, DEFAULT_DICT, LIST, TUPLE, BYTES, ENCODE, TENSOR, TENSOR_WITH_DTYPE, PARAMETER, FROM_TYPE, NUMPY_SCALAR
} known;

static known lookup(const char *name) {
  static const struct {
    const char *name;
    known what;
  } ALLOWED[] = {
      {"collections.OrderedDict", DICT},
      {"collections.defaultdict", DEFAULT_DICT},
      {"__builtin__.dict", DICT},
      {"builtins.dict", DICT},
      {"__builtin__.list", LIST},
      {"builtins.list", LIST},
      {"__builtin__.set", LIST},
      {"builtins.set", LIST},
      {"__builtin__.frozenset", LIST},
      {"builtins.frozenset", LIST},
      {"__builtin__.tuple", TUPLE},
      {"builtins.tuple", TUPLE},
      {"torch.Size", TUPLE},
      {"__builtin__.bytes", BYTES},
      {"builtins.bytes", BYTES},
      {"__builtin__.bytearray", BYTES},
      {"builtins.bytearray", BYTES},
      {"_codecs.encode", ENCODE},
      {"torch._utils._rebuild_tensor", TENSOR},
      {"torch._utils._rebuild_tensor_v2", TENSOR},
      {"torch._utils._rebuild_tensor_v3", TENSOR_WITH_DTYPE},
      {"torch._utils._rebuild_parameter", PARAMETER},
      {"torch._utils._rebuild_parameter_with_state", PARAMETER},
      {"torch._tensor._rebuild_from_type_v2", FROM_TYPE},
      {"numpy.core.multiarray.scalar", NUMPY_SCALAR},
      {"numpy._core.multiarray.scalar", NUMPY_SCALAR},
  };
  for (size_t i = 0; i < sizeof ALLOWED / sizeof *ALLOWED; i++)
    if (strcmp(ALLOWED[i].name, name) == 0) return ALLOWED[i].what;
  return UNKNOWN;
}

bnd_value *bnd_object_call(bnd_object_builder *builder, bnd_value *callable, bnd_value *arguments) {
  /* _rebuild_from_type_v2(function, type, arguments, state) is function(*arguments) for our purposes; it wraps subclasses of Tensor once. */
  for (int wrapped = 0; wrapped < 4 && is_class(callable) && lookup(callable->opaque.name) == FROM_TYPE; wrapped++) {
    bnd_value *function = argument(arguments, 0), *inner = argument(arguments, 2);
    if (!function || !inner || inner->kind != BND_VALUE_TUPLE) break;
    callable = function;
    arguments = inner;
  }
  if (!is_class(callable)) return bnd_value_new_opaque(&builder->pool, "object", arguments, NULL);
  const char *name = callable->opaque.name;
  bnd_value *first = argument(arguments, 0), *value = NULL;
  switch (lookup(name)) {
    case DICT: return make_dict(builder, first);
    case DEFAULT_DICT: return make_dict(builder, argument(arguments, 1));
    case LIST: return make_sequence(builder, BND_VALUE_LIST, first);
    case TUPLE: return make_sequence(builder, BND_VALUE_TUPLE, first);
    case BYTES:
      if (!first) return bnd_value_new_string(&builder->pool, BND_VALUE_BYTES, "", 0);
      if (first->kind == BND_VALUE_STRING) return encode_latin1(builder, first);
      if (first->kind == BND_VALUE_BYTES) return first;
      break;
    case ENCODE:
      if (first && first->kind == BND_VALUE_STRING) return encode_latin1(builder, first);
      break;
    case TENSOR: return make_tensor(builder, name, arguments, false);
    case TENSOR_WITH_DTYPE: return make_tensor(builder, name, arguments, true);
    case PARAMETER:
      if (first && first->kind == BND_VALUE_TENSOR) return first;
      if (first && first->kind == BND_VALUE_OPAQUE && first->opaque.reason) return first;
      return bnd_value_new_opaque(&builder->pool, name, arguments, "it contains no tensor");
    case NUMPY_SCALAR:
      builder->pool.problem = NULL;
      value = make_numpy_scalar(builder, arguments);
      if (value || builder->pool.problem) return value;
      break;
    case FROM_TYPE:
    case UNKNOWN: break;
  }
  return bnd_value_new_opaque(&builder->pool, name, arguments, NULL);
}

void bnd_object_set_state(bnd_value *object, bnd_value *state) {
  /* Attributes of dicts (_metadata), lists and tensors do not matter. */
  if (object->kind == BND_VALUE_OPAQUE && object->opaque.arguments) object->opaque.state = state;
}
