/* YOLO-NAS against what super-gradients and torch.export make of it; data by tests/golden/make_yolo_nas.py, counts and checksums of names from the
   specification's tables (yolo-nas-model.md, sections 1.4 and 2.1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <math.h>
#include <sha2.h>

#include "base/file.h"
#include "checksum.h"
#include "formats/checkpoint/checkpoint.h"
#include "models/yolo_nas/yolo_nas.h"
#include "ops/operators.h"

#define DATA TEST_DATA "/yolo_nas/"
#define MUST(expression)                                            \
  do {                                                              \
    bnd_error must_error = {0}, *const error = &must_error;         \
    if ((expression) != BND_OK) fail_msg("%s", must_error.message); \
  } while (0)

/* --- a state dict out of nothing: names and shapes from text, values from the names --- */

typedef struct listing {
  char *text;
  bnd_named_shape *tensors;
  size_t count, loads;
  const char *poisoned; /* element 1 of this tensor becomes `poison` */
  float poison;
} listing;

static float filled(const char *name, size_t i) {
  uint32_t h = checksum(name, strlen(name)) ^ (uint32_t)(i * 0x9E3779B9u);
  h = (h ^ h >> 16) * 0x85EBCA6Bu;
  h = (h ^ h >> 13) * 0xC2B2AE35u;
  h = h ^ h >> 16;
  const float value = (float)(h >> 8) * 0x1p-23f - 1.f;
  const size_t length = strlen(name);
  return length > 11 && strcmp(name + length - 11, "running_var") == 0 ? fabsf(value) + 0.5f : value;
}

static bnd_status load_filled(void *user, size_t index, bnd_tensor *tensor, bnd_error *error) {
  listing *list = user;
  const bnd_named_shape *given = &list->tensors[index];
  list->loads++;
  BND_TRY(bnd_tensor_create(given->dtype == BND_F64 ? BND_F64 : BND_F32, &given->shape, tensor, error));
  for (size_t i = 0; i < tensor->count; i++) {
    if (given->dtype == BND_F64)
      ((double *)tensor->data)[i] = filled(given->name, i);
    else
      bnd_f32(tensor)[i] = filled(given->name, i);
  }
  if (list->poisoned && strcmp(list->poisoned, given->name) == 0) bnd_f32(tensor)[tensor->count > 1] = list->poison;
  return BND_OK;
}

/* Lines "name [d0,d1]". Takes over the text. */
static listing listing_of(char *text) {
  listing list = {.text = text};
  for (char *at = text; *at; at++) list.count += *at == '\n';
  list.tensors = calloc(list.count + 2, sizeof *list.tensors);
  char *rest = text;
  for (size_t i = 0; i < list.count; i++) {
    char *line = strsep(&rest, "\n"), *sizes = strchr(line, ' ');
    bnd_named_shape *tensor = &list.tensors[i];
    *sizes = '\0';
    *tensor = (bnd_named_shape){.name = line, .dtype = strstr(line, "num_batches") ? BND_I64 : BND_F32};
    for (char *at = sizes + 2; *at && *at != ']'; at += *at == ',') tensor->shape.size[tensor->shape.rank++] = strtol(at, &at, 10);
  }
  return list;
}

static listing listing_of_file(const char *path) {
  char *text;
  size_t size;
  MUST(bnd_file_read(path, 1 << 24, &text, &size, error));
  return listing_of(text);
}

static listing listing_of_published(char variant, int classes, bnd_yolo_nas_form form) {
  bnd_yolo_nas_architecture architecture;
  bnd_string text = {0};
  assert_true(bnd_yolo_nas_published(variant, classes, &architecture));
  MUST(bnd_yolo_nas_describe(&architecture, form, &text, error));
  return listing_of(text.text);
}

static void listing_free(listing *list) {
  free(list->text);
  free(list->tensors);
}

static bnd_named_shape *entry(listing *list, const char *name) {
  for (size_t i = 0; i < list->count; i++)
    if (strcmp(list->tensors[i].name, name) == 0) return &list->tensors[i];
  fail_msg("no %s", name);
  return NULL;
}

static bnd_status read_listing(listing *list, bnd_yolo_nas **model, bnd_error *error) {
  const bnd_tensor_source source = {"file.pth", list->tensors, list->count, list, load_filled};
  return bnd_yolo_nas_read(&source, model, error);
}

static bnd_graph *graph_of(const bnd_yolo_nas *model, bnd_yolo_nas_options options) {
  bnd_graph *graph = NULL;
  MUST(bnd_yolo_nas_graph(model, &options, &graph, error));
  MUST(bnd_graph_verify(graph, error));
  return graph;
}

static void assert_text_of_file(const bnd_graph *graph, const char *path) {
  char *expected;
  size_t size;
  bnd_string text = {0};
  MUST(bnd_file_read(path, 1 << 24, &expected, &size, error));
  MUST(bnd_graph_print_fx(graph, &text, error));
  for (char *a = text.text, *b = expected; *a || *b;) { /* the first line that differs says more than both texts */
    const size_t m = strcspn(a, "\n"), n = strcspn(b, "\n");
    if (m != n || memcmp(a, b, m) != 0) fail_msg("%s\n  expected %.*s\n  got      %.*s", path, (int)n, b, (int)m, a);
    a += m + (a[m] == '\n');
    b += n + (b[n] == '\n');
  }
  free(expected);
  bnd_string_free(&text);
}

/* --- counts and names --- */

static const struct {
  char variant;
  bnd_yolo_nas_form form;
  int64_t tensors, parameters, statistics, counters, bytes;
  const char *sha256;
} SIZES[] = {
    {'S', BND_YOLO_NAS_TRAIN, 921, 19053888, 33280, 129, 76349704, "2f0e7fa0850093a0f2742c4a5e629705bd28d01b052b706e9643bec93e8e0dd3"},
    {'S', BND_YOLO_NAS_PARTIAL, 625, 12184240, 24928, 92, 48837408, "57314a7d51f163f74b2594d3e66a8ab4da61cc975ec6771da26fefa4087eaa39"},
    {'S', BND_YOLO_NAS_FOLDED, 440, 12175888, 16576, 55, 48770296, "196a6f136078a9455b5095d69aee12d30225bd4ba0f408ae56cea22a9ac2080c"},
    {'M', BND_YOLO_NAS_TRAIN, 965, 51182658, 56192, 135, 204956480, "56eb2915fad65f7008b02de455d6418e6a5c3cd5be181d204991978bc7d76b3a"},
    {'M', BND_YOLO_NAS_PARTIAL, 653, 31922098, 40672, 96, 127851848, "a50b5d03334d544b8206a102223989ec50ddfbf5ec3ba98235d065ada791f527"},
    {'M', BND_YOLO_NAS_FOLDED, 458, 31906578, 25152, 57, 127727376, "f318e69f85862881991ea217ec7a1c826dfe9c164c335876ec7e1ca9dc441340"},
    {'L', BND_YOLO_NAS_TRAIN, 1097, 66976392, 65600, 153, 268169192, "508c6d047f77b2346f95905860f4009a7c70e649042faf383114d044dba06cd8"},
    {'L', BND_YOLO_NAS_PARTIAL, 737, 42017784, 47008, 108, 168260032, "9fd0d6d641e57921328e915dac7534d30872149da69d4b8f05381cd9367442e3"},
    {'L', BND_YOLO_NAS_FOLDED, 512, 41999192, 28416, 63, 168110936, "7b4aa404164b79734b6853a59a0dd4600acb5b942cbb574378955748c8bb0f87"},
};

static void state_dicts_are_the_published_ones(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
    bnd_yolo_nas_architecture architecture;
    bnd_string text = {0};
    char digest[SHA256_DIGEST_STRING_LENGTH];
    assert_true(bnd_yolo_nas_published(SIZES[i].variant, 80, &architecture));
    const bnd_yolo_nas_size size = bnd_yolo_nas_size_of(&architecture, SIZES[i].form);
    assert_int_equal(size.tensors, SIZES[i].tensors);
    assert_int_equal(size.parameters, SIZES[i].parameters);
    assert_int_equal(size.statistics, SIZES[i].statistics);
    assert_int_equal(size.counters, SIZES[i].counters);
    assert_int_equal(size.bytes, SIZES[i].bytes);
    MUST(bnd_yolo_nas_describe(&architecture, SIZES[i].form, &text, error));
    SHA256Data((const uint8_t *)text.text, text.length, digest);
    assert_string_equal(digest, SIZES[i].sha256);
    bnd_string_free(&text);
  }
  assert_false(bnd_yolo_nas_published('X', 80, &(bnd_yolo_nas_architecture){0}));
}

/* Every published variant in every form is recognised; work and parameters without reading a single value. */
static void folded_networks_have_the_published_cost(void **state) {
  (void)state;
  static const struct {
    char variant;
    int64_t macs, parameters;
    int relus, convolutions, alphas;
  } COST[] = {{'S', 15899195200, 12167600, 92, 101, 20}, {'M', 43880404800, 31894002, 96, 105, 22}, {'L', 59917678400, 41984984, 108, 117, 28}};
  for (size_t i = 0; i < sizeof COST / sizeof *COST; i++) {
    for (int form = BND_YOLO_NAS_TRAIN; form <= BND_YOLO_NAS_FOLDED; form++) {
      listing list = listing_of_published(COST[i].variant, 80, (bnd_yolo_nas_form)form);
      bnd_yolo_nas *model = NULL;
      MUST(read_listing(&list, &model, error));
      const bnd_yolo_nas_architecture *a = bnd_yolo_nas_architecture_of(model);
      assert_int_equal(a->variant, COST[i].variant);
      assert_true(a->full_width);
      assert_int_equal(bnd_yolo_nas_stored_form(model), form);
      assert_false(bnd_yolo_nas_matched_by_order(model));
      bnd_graph *graph = graph_of(model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_FOLDED, .height = 640, .width = 640, .shapes_only = true});
      int64_t macs = 0, parameters = 0;
      int relus = 0, convolutions = 0, alphas = 0;
      for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
        macs += bnd_node_macs(node);
        relus += bnd_is_relu(node);
        convolutions += bnd_node_is(node, BND_OP_CONV2D);
        alphas += bnd_node_is(node, BND_OP_MUL) && node->shape[0].rank == 4;
        assert_false(bnd_node_is(node, BND_OP_BATCH_NORM));
        if (node->kind == BND_GET_ATTR && bnd_graph_attribute(graph, node->target)->is_parameter) {
          size_t count;
          assert_true(bnd_shape_count(&node->shape[0], &count));
          parameters += (int64_t)count;
        }
      }
      assert_int_equal(macs, COST[i].macs);
      assert_int_equal(parameters, COST[i].parameters);
      assert_int_equal(relus, COST[i].relus);
      assert_int_equal(convolutions, COST[i].convolutions); /* those with ReLU, six predictions, three projections */
      assert_int_equal(alphas, COST[i].alphas);
      assert_int_equal(list.loads, 0);
      bnd_graph_destroy(graph);
      bnd_yolo_nas_destroy(model);
      listing_free(&list);
    }
  }
}

/* --- the graph of a small network of odd proportions --- */

typedef struct tiny {
  listing list;
  bnd_yolo_nas *model;
} tiny;

static int tiny_open(void **state) {
  tiny *t = calloc(1, sizeof *t);
  t->list = listing_of_file(DATA "tiny_names.txt");
  MUST(read_listing(&t->list, &t->model, error));
  *state = t;
  return 0;
}

static int tiny_close(void **state) {
  tiny *t = *state;
  bnd_yolo_nas_destroy(t->model);
  listing_free(&t->list);
  free(t);
  return 0;
}

static void architecture_is_read_off_the_shapes(void **state) {
  const tiny *t = *state;
  const bnd_yolo_nas_architecture *a = bnd_yolo_nas_architecture_of(t->model);
  assert_int_equal(a->variant, 'C');
  assert_int_equal(a->classes, 2);
  assert_int_equal(a->reg_max, 4);
  assert_int_equal(a->input_channels, 3);
  assert_int_equal(a->stage[1].count, 2);
  assert_true(a->stage[1].concat_intermediates);
  assert_false(a->stage[0].concat_intermediates);
  bnd_string text = {0};
  char *expected;
  size_t size;
  MUST(bnd_yolo_nas_describe(a, BND_YOLO_NAS_TRAIN, &text, error));
  MUST(bnd_file_read(DATA "tiny_names.txt", 1 << 20, &expected, &size, error));
  assert_string_equal(text.text, expected);
  free(expected);
  bnd_string_free(&text);
}

static void graphs_are_those_torch_captures(void **state) {
  const tiny *t = *state;
  bnd_graph *train = graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_TRAIN, .height = 64, .width = 96, .raw_outputs = true});
  assert_text_of_file(train, DATA "tiny_train.txt");
  bnd_graph_destroy(train);
  bnd_graph *scope =
      graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 96, .raw_outputs = true, .stubs = true});
  assert_text_of_file(scope, DATA "tiny_scope.txt");
  bnd_graph_destroy(scope);
}

static void scopes_and_shapes_are_those_torch_captures(void **state) {
  const tiny *t = *state;
  bnd_graph *graph =
      graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 96, .raw_outputs = true, .stubs = true});
  FILE *file = fopen(DATA "tiny_nodes.tsv", "r");
  char line[512];
  int lines = 0;
  assert_non_null(file);
  for (; fgets(line, sizeof line, file); lines++) {
    char *rest = line, shapes[512] = "", text[BND_SHAPE_TEXT];
    line[strcspn(line, "\n")] = '\0';
    const char *name = strsep(&rest, "\t"), *scope = strsep(&rest, "\t");
    const bnd_node *node = bnd_graph_find(graph, name);
    if (!node) fail_msg("no node %s", name);
    if (strcmp(scope, "-") == 0)
      assert_null(node->scope);
    else
      assert_string_equal(node->scope, scope);
    for (int i = 0; i < node->result_count; i++) {
      if (i) strcat(shapes, ";");
      strcat(shapes, bnd_shape_text(&node->shape[i], text));
    }
    if (strcmp(shapes, rest) != 0) fail_msg("%s: %s instead of %s", name, shapes, rest);
  }
  fclose(file);
  assert_true(lines > 400);
  assert_false(bnd_graph_attribute(graph, "heads.proj_conv")->is_parameter);
  assert_false(bnd_graph_attribute(graph, "backbone.stem.conv.post_bn.running_mean")->is_parameter);
  assert_true(bnd_graph_attribute(graph, "backbone.stage1.blocks.bottlenecks.0.alpha")->is_parameter);
  assert_int_equal(bnd_graph_attribute(graph, "backbone.stem.conv.post_bn.num_batches_tracked")->tensor.dtype, BND_I64);
  bnd_graph_destroy(graph);
}

static void decoded_outputs_alone_leave_nothing_else_behind(void **state) {
  const tiny *t = *state;
  bnd_graph *graph = graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 96});
  const bnd_node *output = bnd_graph_last(graph);
  assert_int_equal(output->args[0].list.count, 2);
  assert_true(bnd_shape_equal(&output->args[0].list.items[0].node->shape[0], &BND_SHAPE(1, 126, 4)));
  assert_true(bnd_shape_equal(&output->args[0].list.items[1].node->shape[0], &BND_SHAPE(1, 126, 2)));
  for (bnd_node *node = bnd_graph_first(graph); node != output; node = node->next) assert_true(node->user_count > 0);
  assert_null(bnd_graph_find(graph, "flatten"));
  bnd_graph_destroy(graph);
  graph = graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_FOLDED, .height = 32, .width = 32, .batch = 3, .raw_outputs = true});
  assert_true(bnd_shape_equal(&bnd_graph_last(graph)->args[0].list.items[0].node->shape[0], &BND_SHAPE(3, 21, 4)));
  bnd_graph_destroy(graph);
}

static void training_anchors_are_those_of_super_gradients(void **state) {
  const tiny *t = *state;
  FILE *file = fopen(DATA "anchors.tsv", "r");
  int height, width;
  unsigned boxes, points;
  assert_non_null(file);
  while (fscanf(file, "%d %d %x %x", &height, &width, &boxes, &points) == 4) {
    bnd_graph *graph = graph_of(t->model, (bnd_yolo_nas_options){.height = height, .width = width, .raw_outputs = true});
    const bnd_tensor *a = &bnd_graph_attribute(graph, "submod_1.0")->tensor, *p = &bnd_graph_attribute(graph, "submod_1.1")->tensor;
    assert_int_equal(checksum(a->data, a->count * 4), boxes);
    assert_int_equal(checksum(p->data, p->count * 4), points);
    bnd_graph_destroy(graph);
  }
  fclose(file);
}

/* --- merging and folding --- */

static int assert_merged(const bnd_graph *graph, const char *checkpoint) {
  FILE *file = fopen(DATA "merged.tsv", "r");
  char name[16], tensor[128];
  unsigned crc;
  int compared = 0;
  assert_non_null(file);
  while (fscanf(file, "%15s %127s %x", name, tensor, &crc) == 3) {
    if (strcmp(name, checkpoint) != 0) continue;
    const bnd_attribute *attribute = bnd_graph_attribute(graph, tensor);
    assert_non_null(attribute);
    if (checksum(attribute->tensor.data, attribute->tensor.count * 4) != crc) fail_msg("%s: %s differs", checkpoint, tensor);
    compared++;
  }
  fclose(file);
  return compared;
}

static void merged_branches_are_bit_equal(void **state) {
  const tiny *t = *state;
  bnd_graph *graph = graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 96});
  assert_int_equal(assert_merged(graph, "tiny"), 2 * (5 + 2 * 7));
  bnd_graph_destroy(graph);
}

/* Against the formula in double, from the merged weights. */
static void folding_rounds_once(void **state) {
  const tiny *t = *state;
  bnd_graph *partial = graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 96});
  bnd_graph *folded = graph_of(t->model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_FOLDED, .height = 64, .width = 96});
  static const char *const LAYERS[][3] = {{"backbone.stage2.downsample", ".rbr_reparam", ".post_bn"},
                                          {"heads.head2.cls_convs.0.seq", ".conv", ".bn"}};
  for (size_t l = 0; l < 2; l++) {
    const bnd_tensor *values[7];
    const char *const suffixes[] = {".weight", ".bias", ".weight", ".bias", ".running_mean", ".running_var"};
    for (int i = 0; i < 6; i++) {
      char name[128];
      snprintf(name, sizeof name, "%s%s%s", LAYERS[l][0], LAYERS[l][i < 2 ? 1 : 2], suffixes[i]);
      const bnd_attribute *attribute = bnd_graph_attribute(partial, name);
      values[i] = attribute ? &attribute->tensor : NULL;
      if (i < 2)
        assert_non_null(bnd_graph_attribute(folded, name));
      else
        assert_null(bnd_graph_attribute(folded, name));
    }
    char name[2][128];
    for (int i = 0; i < 2; i++) snprintf(name[i], sizeof name[i], "%s%s%s", LAYERS[l][0], LAYERS[l][1], suffixes[i]);
    const float *weight = bnd_f32(&bnd_graph_attribute(folded, name[0])->tensor), *bias = bnd_f32(&bnd_graph_attribute(folded, name[1])->tensor);
    const size_t inner = values[0]->count / values[2]->count;
    for (size_t o = 0; o < values[2]->count; o++) {
      const double scale = bnd_f32(values[2])[o] / sqrt(bnd_f32(values[5])[o] + 0.001), own = values[1] ? bnd_f32(values[1])[o] : 0.0;
      assert_true(bias[o] == (float)((own - bnd_f32(values[4])[o]) * scale + bnd_f32(values[3])[o]));
      for (size_t i = 0; i < inner; i++) assert_true(weight[o * inner + i] == (float)(bnd_f32(values[0])[o * inner + i] * scale));
    }
  }
  bnd_graph_destroy(partial);
  bnd_graph_destroy(folded);
}

/* Whatever form a state dict is stored in, the same network comes out where it can. */
static void stored_forms_lead_to_one_graph(void **state) {
  (void)state;
  char *texts[2];
  for (int form = BND_YOLO_NAS_TRAIN; form <= BND_YOLO_NAS_PARTIAL; form++) {
    listing list = listing_of_published('M', 7, (bnd_yolo_nas_form)form);
    bnd_yolo_nas *model = NULL;
    bnd_string text = {0};
    MUST(read_listing(&list, &model, error));
    bnd_graph *graph =
        graph_of(model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 320, .width = 320, .shapes_only = true, .stubs = true});
    MUST(bnd_graph_print_fx(graph, &text, error));
    texts[form] = text.text;
    bnd_graph_destroy(graph);
    bnd_yolo_nas_destroy(model);
    listing_free(&list);
  }
  assert_string_equal(texts[0], texts[1]);
  free(texts[0]);
  free(texts[1]);

  /* fully fused blocks cannot be taken apart again: no batch norm behind them, but behind ordinary convolutions */
  listing list = listing_of_published('S', 80, BND_YOLO_NAS_FOLDED);
  bnd_yolo_nas *model = NULL;
  MUST(read_listing(&list, &model, error));
  bnd_graph *graph = graph_of(model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 64, .shapes_only = true});
  int norms = 0;
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) norms += bnd_node_is(node, BND_OP_BATCH_NORM);
  assert_int_equal(norms, 55);
  bnd_graph_destroy(graph);
  bnd_yolo_nas_destroy(model);
  listing_free(&list);
}

/* --- unusual, but valid --- */

static void names_may_be_foreign_when_order_and_shapes_fit(void **state) {
  (void)state;
  listing list = listing_of_published('L', 11, BND_YOLO_NAS_TRAIN);
  char(*names)[16] = calloc(list.count, sizeof *names);
  for (size_t i = 0; i < list.count; i++) {
    snprintf(names[i], sizeof names[i], "t%zu", i);
    list.tensors[i].name = names[i];
  }
  bnd_yolo_nas *model = NULL;
  MUST(read_listing(&list, &model, error));
  assert_true(bnd_yolo_nas_matched_by_order(model));
  assert_int_equal(bnd_yolo_nas_architecture_of(model)->variant, 'L');
  assert_int_equal(bnd_yolo_nas_architecture_of(model)->classes, 11);
  bnd_graph_destroy(graph_of(model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 64, .shapes_only = true}));
  bnd_yolo_nas_destroy(model);
  /* one swapped shape, and the answer is about the names */
  const bnd_shape other = list.tensors[100].shape;
  list.tensors[100].shape = list.tensors[0].shape;
  list.tensors[0].shape = other;
  bnd_error error = {0};
  assert_int_equal(read_listing(&list, &model, &error), BND_ERROR_MODEL);
  assert_non_null(strstr(error.message, "there is no tensor backbone.stem.conv.branch_3x3.conv.weight"));
  free(names);
  listing_free(&list);
}

static void optional_tensors_may_be_there_or_not(void **state) {
  (void)state;
  static const bnd_shape LAYOUTS[] = {{4, {1, 5, 1, 1}}, {1, {5}}, {3, {1, 5, 1}}};
  for (size_t l = 0; l < sizeof LAYOUTS / sizeof *LAYOUTS; l++) {
    listing list = listing_of_file(DATA "tiny_names.txt");
    size_t kept = 0;
    for (size_t i = 0; i < list.count; i++)
      if (!strstr(list.tensors[i].name, "num_batches") && !(l && strstr(list.tensors[i].name, "rbr_reparam"))) list.tensors[kept++] = list.tensors[i];
    list.tensors[kept++] = (bnd_named_shape){"heads.proj_conv", BND_F64, LAYOUTS[l]};
    list.tensors[kept++] = (bnd_named_shape){"heads.anchor_points", BND_F32, BND_SHAPE(126, 2)};
    list.count = kept;
    bnd_yolo_nas *model = NULL;
    MUST(read_listing(&list, &model, error));
    bnd_graph *graph =
        graph_of(model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 64, .width = 96, .raw_outputs = true, .stubs = true});
    assert_text_of_file(graph, DATA "tiny_scope.txt");
    const bnd_tensor *projection = &bnd_graph_attribute(graph, "heads.proj_conv")->tensor;
    assert_true(bnd_shape_equal(&projection->shape, &LAYOUTS[0]));
    assert_true(bnd_f32(projection)[3] == filled("heads.proj_conv", 3));
    bnd_graph_destroy(graph);
    bnd_yolo_nas_destroy(model);
    listing_free(&list);
  }
}

/* --- errors --- */

typedef void change(listing *list);
static void drop_tensor(listing *list) {
  entry(list, "neck.neck3.blocks.bottlenecks.0.cv2.bn.bias")->name = "something.else";
}
static void change_shape(listing *list) {
  entry(list, "heads.head2.reg_pred.weight")->shape.size[0] = 24;
}
static void change_type(listing *list) {
  entry(list, "neck.neck1.upsample.bias")->dtype = BND_I64;
}
static void empty_shape(listing *list) {
  entry(list, "backbone.stem.conv.branch_3x3.conv.weight")->shape.rank = 0;
}
static void huge_shape(listing *list) {
  entry(list, "neck.neck4.blocks.conv1.conv.weight")->shape.size[0] = INT64_MAX;
}
static void zero_shape(listing *list) {
  entry(list, "heads.head1.cls_pred.weight")->shape.size[0] = 0;
}
static void wrong_join(listing *list) {
  entry(list, "backbone.stage3.blocks.conv3.conv.weight")->shape.size[1]++;
}
static void odd_distances(listing *list) {
  entry(list, "heads.head1.reg_pred.weight")->shape.size[0] = 21;
}
static void drop_bottleneck(listing *list) {
  entry(list, "backbone.stage2.blocks.bottlenecks.0.alpha")->name = "x";
}
static void name_twice(listing *list) {
  list->tensors[5].name = list->tensors[6].name;
}
static void nothing_there(listing *list) {
  list->count = 0;
}
static void wrong_projection(listing *list) {
  list->tensors[list->count++] = (bnd_named_shape){"heads.proj_conv", BND_F32, BND_SHAPE(1, 17, 1, 1)};
}
static void rename_many(listing *list) {
  for (size_t i = 0; i < list->count; i++)
    if (strstr(list->tensors[i].name, "post_bn.bias")) list->tensors[i].name++;
}

static void contradictions_are_named(void **state) {
  (void)state;
  static const struct {
    change *apply;
    const char *message;
  } CASES[] = {
      {drop_tensor, "1 missing: neck.neck3.blocks.bottlenecks.0.cv2.bn.bias; 1 unexpected: something.else"},
      {change_shape, "1 of another shape or type: heads.head2.reg_pred.weight is 24x8x1x1 instead of 20x8x1x1"},
      {change_type, "neck.neck1.upsample.bias holds int64"},
      {empty_shape, "backbone.stem.conv.branch_3x3.conv.weight: shape scalar"},
      {huge_shape, "neck.neck4.blocks.conv1.conv.weight: shape"},
      {zero_shape, "heads.head1.cls_pred.weight: shape 0x8x1x1"},
      {wrong_join, "backbone.stage3.blocks.conv3.conv.weight is"},
      {odd_distances, "heads.head1.reg_pred.weight: 21 outputs"},
      {drop_bottleneck, "1 missing: backbone.stage2.blocks.bottlenecks.0.alpha"},
      {name_twice, "two tensors are named"},
      {nothing_there, "there is no tensor backbone.stem.conv.branch_3x3.conv.weight among 0"},
      {wrong_projection, "heads.proj_conv must hold a number for each bin"},
      {rename_many, "19 missing: backbone.stem.conv.post_bn.bias, "},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    listing list = listing_of_file(DATA "tiny_names.txt");
    bnd_yolo_nas *model = NULL;
    bnd_error error = {0};
    CASES[i].apply(&list);
    assert_int_equal(read_listing(&list, &model, &error), BND_ERROR_MODEL);
    if (!strstr(error.message, CASES[i].message) || strncmp(error.message, "file.pth: ", 10) != 0) fail_msg("case %zu: %s", i, error.message);
    listing_free(&list);
  }
}

static void bad_values_are_named(void **state) {
  (void)state;
  static const struct {
    const char *tensor;
    float value;
    const char *message;
  } CASES[] = {
      {"backbone.stage4.downsample.branch_1x1.weight", NAN, "backbone.stage4.downsample.branch_1x1.weight: element 1 is NaN"},
      {"neck.neck2.upsample.weight", -INFINITY, "neck.neck2.upsample.weight: element 1 is infinite"},
      {"heads.head3.stem.seq.bn.running_var", -0.25f, "heads.head3.stem.seq.bn.running_var: element 1 is -0.25; a variance cannot be negative"},
      {"backbone.stage1.blocks.bottlenecks.0.alpha", NAN, "alpha: element 0 is NaN"},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    listing list = listing_of_file(DATA "tiny_names.txt");
    list.poisoned = CASES[i].tensor;
    list.poison = CASES[i].value;
    bnd_yolo_nas *model = NULL;
    MUST(read_listing(&list, &model, error));
    for (int form = BND_YOLO_NAS_TRAIN; form <= BND_YOLO_NAS_FOLDED; form++) {
      const bnd_yolo_nas_options options = {.form = (bnd_yolo_nas_form)form, .height = 32, .width = 32};
      bnd_graph *graph = NULL;
      bnd_error error = {0};
      assert_int_equal(bnd_yolo_nas_graph(model, &options, &graph, &error), BND_ERROR_MODEL);
      assert_null(graph);
      if (!strstr(error.message, CASES[i].message)) fail_msg("%s", error.message);
    }
    bnd_yolo_nas_destroy(model);
    listing_free(&list);
  }
}

static void impossible_sizes_are_refused(void **state) {
  const tiny *t = *state;
  static const int SIZES_TO_REFUSE[][2] = {{0, 32}, {32, -32}, {33, 64}, {64, 1 << 20}, {640, 648}};
  for (size_t i = 0; i < 5; i++) {
    bnd_graph *graph = NULL;
    bnd_error error = {0};
    const bnd_yolo_nas_options options = {.height = SIZES_TO_REFUSE[i][0], .width = SIZES_TO_REFUSE[i][1]};
    assert_int_equal(bnd_yolo_nas_graph(t->model, &options, &graph, &error), BND_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "multiples of 32"));
  }
}

/* --- the trained golden checkpoint --- */

typedef struct opened {
  bnd_checkpoint *file;
  bnd_state_dict entries;
} opened;

static bnd_status load_entry(void *user, size_t index, bnd_tensor *tensor, bnd_error *error) {
  opened *o = user;
  return bnd_checkpoint_entry_tensor(o->file, &o->entries.entries[index], tensor, error);
}

static void golden_checkpoint_is_captured_as_by_torch(void **state) {
  (void)state;
  const char *path = SHARED_DIR "/golden/pico/yolo_nas_pico_shapes.pth";
  if (access(path, R_OK) != 0) skip();
  opened o;
  MUST(bnd_checkpoint_open(path, &o.file, error));
  MUST(bnd_checkpoint_state_dict(o.file, NULL, &o.entries, error));
  bnd_named_shape *tensors = calloc(o.entries.count, sizeof *tensors);
  for (size_t i = 0; i < o.entries.count; i++)
    tensors[i] = (bnd_named_shape){o.entries.entries[i].name, o.entries.entries[i].dtype, o.entries.entries[i].shape};
  const bnd_tensor_source source = {path, tensors, o.entries.count, &o, load_entry};
  bnd_yolo_nas *model = NULL;
  MUST(bnd_yolo_nas_read(&source, &model, error));
  const bnd_yolo_nas_architecture *a = bnd_yolo_nas_architecture_of(model);
  assert_int_equal(a->variant, 'S');
  assert_false(a->full_width);
  assert_int_equal(a->classes, 8);
  bnd_graph *graph =
      graph_of(model, (bnd_yolo_nas_options){.form = BND_YOLO_NAS_PARTIAL, .height = 640, .width = 640, .raw_outputs = true, .stubs = true});
  assert_text_of_file(graph, SHARED_DIR "/golden/pico/captured.txt");
  assert_int_equal(assert_merged(graph, "pico"), 2 * 37);
  bnd_graph_destroy(graph);
  bnd_yolo_nas_destroy(model);
  free(tensors);
  bnd_checkpoint_close(o.file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(state_dicts_are_the_published_ones),
      cmocka_unit_test(folded_networks_have_the_published_cost),
      cmocka_unit_test_setup_teardown(architecture_is_read_off_the_shapes, tiny_open, tiny_close),
      cmocka_unit_test_setup_teardown(graphs_are_those_torch_captures, tiny_open, tiny_close),
      cmocka_unit_test_setup_teardown(scopes_and_shapes_are_those_torch_captures, tiny_open, tiny_close),
      cmocka_unit_test_setup_teardown(decoded_outputs_alone_leave_nothing_else_behind, tiny_open, tiny_close),
      cmocka_unit_test_setup_teardown(training_anchors_are_those_of_super_gradients, tiny_open, tiny_close),
      cmocka_unit_test_setup_teardown(merged_branches_are_bit_equal, tiny_open, tiny_close),
      cmocka_unit_test_setup_teardown(folding_rounds_once, tiny_open, tiny_close),
      cmocka_unit_test(stored_forms_lead_to_one_graph),
      cmocka_unit_test(names_may_be_foreign_when_order_and_shapes_fit),
      cmocka_unit_test(optional_tensors_may_be_there_or_not),
      cmocka_unit_test(contradictions_are_named),
      cmocka_unit_test(bad_values_are_named),
      cmocka_unit_test_setup_teardown(impossible_sizes_are_refused, tiny_open, tiny_close),
      cmocka_unit_test(golden_checkpoint_is_captured_as_by_torch),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
