/* What the golden tests share: references written by the oracle, and the graph of the quark recipe with the positions found there. */
#ifndef BND_TESTS_GOLDEN_REFERENCE_H
#define BND_TESTS_GOLDEN_REFERENCE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "flow/model.h"
#include "flow/reports.h"
#include "flow/target_profile.h"
#include "ops/operators.h"
#include "passes/quark/quark.h"
#include "passes/target/adjust.h"

#define GOLDEN SHARED_DIR "/golden/pico"
#define GOLDEN_CHECKPOINT GOLDEN "/yolo_nas_pico_shapes.pth"

typedef struct reference_row {
  char name[256];
  int calibrated, final;
} reference_row;

typedef struct reference_table {
  reference_row rows[2000];
  size_t count, differing;
} reference_table;

static inline reference_table *reference_table_read(const char *folder) {
  char path[4096], line[1024];
  reference_table *t = calloc(1, sizeof *t);
  snprintf(path, sizeof path, "%s/exponents.tsv", folder);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  assert_non_null(fgets(line, sizeof line, file));
  while (fgets(line, sizeof line, file)) {
    reference_row *r = &t->rows[t->count++];
    assert_int_equal(sscanf(line, "%255s %*s %*s %d %d", r->name, &r->calibrated, &r->final), 3);
  }
  fclose(file);
  return t;
}

static inline const reference_row *reference_find(const reference_table *t, const char *name) {
  for (size_t i = 0; i < t->count; i++)
    if (strcmp(t->rows[i].name, name) == 0) return &t->rows[i];
  fail_msg("%s: no such quantizer in the reference", name);
  return NULL;
}

static inline void reference_put_calibrated(void *user, const bnd_quantizer_place *place) {
  place->quantizer->position[0] = place->quantizer->tensor_position = reference_find(user, place->name)->calibrated;
}

/* captured: called with the graph as captured, may be NULL. The result has quantizers with the reference's calibrated positions. */
static inline bnd_graph *reference_quantized_graph(const char *checkpoint, const char *folder, void (*captured)(const bnd_graph *graph, const char *folder)) {
  bnd_error error = {0};
  bnd_model *model;
  bnd_graph *graph;
  if (bnd_model_open(checkpoint, &model, &error) != BND_OK) fail_msg("%s", error.message);
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_PARTIAL, .height = 640, .width = 640, .raw_outputs = true, .stubs = true};
  if (bnd_model_graph(model, &options, &graph, &error) != BND_OK) fail_msg("%s", error.message);
  bnd_model_close(model);
  if (captured) captured(graph, folder);
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MAX);
  if (bnd_quark_mark_scope(graph, &error) != BND_OK || bnd_quark_prepare(graph, &error) != BND_OK ||
      bnd_quark_insert_quantizers(graph, &config, &error) != BND_OK || bnd_infer_shapes(graph, &error) != BND_OK)
    fail_msg("%s", error.message);
  reference_table *t = reference_table_read(folder);
  size_t quantizers = 0;
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next)
    quantizers += bnd_is_fake_quantize(node) + (bnd_is_conv_module(node) ? (node->module->weight_quantizer != NULL) + (node->module->bias_quantizer != NULL) : 0);
  assert_int_equal(quantizers, t->count);
  bnd_visit_quantizers(graph, reference_put_calibrated, t);
  free(t);
  return graph;
}

static inline void reference_freeze(bnd_graph *graph) {
  bnd_target_profile target;
  bnd_error error = {0};
  if (bnd_target_profile_load(NULL, &target, &error) != BND_OK || bnd_quark_merge_batch_norm(graph, &error) != BND_OK ||
      bnd_clip_to_relu(graph, &error) != BND_OK)
    fail_msg("%s", error.message);
  bnd_adjust_positions(graph, &target);
  if (bnd_hard_sigmoid_to_hardware(graph, &target, &error) != BND_OK || bnd_infer_shapes(graph, &error) != BND_OK) fail_msg("%s", error.message);
}

/* A float32 or float64 .npy file as doubles in row-major order; count is checked. numpy stores a transposed [1,A,N] column by column. */
static inline double *reference_npy(const char *folder, const char *name, size_t count) {
  char path[4096], *data;
  size_t size;
  snprintf(path, sizeof path, "%s/%s.npy", folder, name);
  bnd_error error = {0};
  if (bnd_file_read(path, 1 << 28, &data, &size, &error) != BND_OK) fail_msg("%s", error.message);
  const size_t header = 10 + (unsigned char)data[8] + 256u * (unsigned char)data[9];
  const int bytes = strstr(data + 10, "<f8") ? 8 : 4;
  assert_int_equal(size, header + count * (size_t)bytes);
  double *values = malloc(count * sizeof *values);
  for (size_t i = 0; i < count; i++) {
    if (bytes == 8) {
      memcpy(&values[i], data + header + i * 8, 8);
    } else {
      float value;
      memcpy(&value, data + header + i * 4, 4);
      values[i] = (double)value;
    }
  }
  const char *shape = strstr(data + 10, "'shape': (");
  long outer = 0, rows = 0, columns = 0;
  if (strstr(data + 10, "'fortran_order': True") && shape && sscanf(shape, "'shape': (%ld, %ld, %ld)", &outer, &rows, &columns) == 3) {
    assert_int_equal(outer * rows * columns, count);
    double *straight = malloc(count * sizeof *straight);
    for (long r = 0; r < rows; r++)
      for (long c = 0; c < columns; c++) straight[r * columns + c] = values[c * rows + r];
    free(values);
    values = straight;
  }
  free(data);
  return values;
}

/* The folders named by BINADE_REFERENCES (separated by ':'), each beside its NAME.pth. Skips the test when there are none. */
static inline void reference_each(void (*check)(const char *checkpoint, const char *folder)) {
  const char *list = getenv("BINADE_REFERENCES");
  if (!list) skip();
  char *copy = strdup(list), checkpoint[4096];
  for (char *folder = strtok(copy, ":"); folder; folder = strtok(NULL, ":")) {
    snprintf(checkpoint, sizeof checkpoint, "%s.pth", folder);
    print_message("%s\n", folder);
    check(checkpoint, folder);
  }
  free(copy);
}

#endif
