/* write_checkpoint OUT.pth VARIANT WIDTH CLASSES SEED [FROM.pth]: a checkpoint as training writes it, for torch and super-gradients to open; and
   OUT.pth.raw, the bytes of the tensors under "net" one after the other. FROM: its weights with so many CLASSES instead of fresh ones. */
#include <stdio.h>
#include <stdlib.h>

#include "flow/model.h"
#include "models/yolo_nas/initialize.h"

static void must(bnd_status status, const bnd_error *error) {
  if (status == BND_OK) return;
  fprintf(stderr, "write_checkpoint: %s\n", error->message);
  exit(1);
}

static void put_state(bnd_checkpoint_writer *w, const char *key, const bnd_yolo_nas_state *state) {
  bnd_checkpoint_begin_state_dict(w, key);
  for (size_t i = 0; i < state->count; i++) bnd_checkpoint_put_tensor(w, state->shapes[i].name, &state->tensors[i]);
  bnd_checkpoint_end(w);
}

/* One tensor of every data type and of unusual shapes: element i is i - 3. */
static void put_types(bnd_checkpoint_writer *w) {
  static const bnd_dtype TYPES[] = {BND_F32, BND_F64, BND_I64, BND_I32, BND_I16, BND_I8, BND_U8, BND_BOOL, BND_F16, BND_BF16};
  bnd_error error;
  bnd_checkpoint_begin_dict(w, "types");
  for (size_t t = 0; t < sizeof TYPES / sizeof *TYPES; t++) {
    bnd_tensor tensor = {0};
    must(bnd_tensor_create(TYPES[t], &BND_SHAPE(2, 1, 3), &tensor, &error), &error);
    for (int i = 0; i < 6; i++) {
      switch (TYPES[t]) {
        case BND_F32: ((float *)tensor.data)[i] = (float)(i - 3); break;
        case BND_F64: ((double *)tensor.data)[i] = i - 3; break;
        case BND_I64: ((int64_t *)tensor.data)[i] = i - 3; break;
        case BND_I32: ((int32_t *)tensor.data)[i] = i - 3; break;
        case BND_I16: ((int16_t *)tensor.data)[i] = (int16_t)(i - 3); break;
        case BND_I8: case BND_U8: ((int8_t *)tensor.data)[i] = (int8_t)(i - 3); break;
        case BND_BOOL: ((uint8_t *)tensor.data)[i] = i != 3; break;
        default: break; /* halves stay zero */
      }
    }
    bnd_checkpoint_put_tensor(w, bnd_dtype_name(TYPES[t]), &tensor);
    bnd_tensor_release(&tensor);
  }
  bnd_tensor empty = {0};
  must(bnd_tensor_create(BND_F32, &BND_SHAPE(0, 3), &empty, &error), &error);
  bnd_checkpoint_put_tensor(w, "empty", &empty);
  bnd_tensor_release(&empty);
  bnd_checkpoint_end(w);
}

static void put_values(bnd_checkpoint_writer *w) {
  static const int64_t INTEGERS[] = {0, 255, 256, -1, INT32_MAX, INT32_MIN, (int64_t)INT32_MAX + 1, INT64_MAX, INT64_MIN};
  bnd_checkpoint_put_int(w, "epoch", 7);
  bnd_checkpoint_put_float(w, "acc", 0.1);
  bnd_checkpoint_put_none(w, "nothing");
  bnd_checkpoint_put_bool(w, "yes", true);
  bnd_checkpoint_put_bool(w, "no", false);
  bnd_checkpoint_put_text(w, "text", "gr\xc3\xb6\xc3\x9f\x65r \xe2\x82\xac \xf0\x9f\x90\xb1");
  bnd_checkpoint_begin_dict(w, "metrics");
  bnd_checkpoint_put_text(w, "tracked_metric_name", "mAP@0.50:0.95");
  bnd_checkpoint_begin_dict(w, "valid");
  bnd_checkpoint_put_float(w, "mAP@0.50:0.95", 0.4793);
  bnd_checkpoint_end(w);
  bnd_checkpoint_begin_dict(w, "train");
  bnd_checkpoint_end(w);
  bnd_checkpoint_end(w);
  bnd_checkpoint_begin_list(w, "integers");
  for (size_t i = 0; i < sizeof INTEGERS / sizeof *INTEGERS; i++) bnd_checkpoint_put_int(w, NULL, INTEGERS[i]);
  bnd_checkpoint_end(w);
}

static void put_params(bnd_checkpoint_writer *w, int count) {
  bnd_class_names classes = {0};
  const bnd_preprocessing preprocessing = bnd_preprocessing_yolo_nas(640, 640);
  for (int i = 0; i < count; i++) {
    char name[32];
    snprintf(name, sizeof name, "shape %d", i);
    bnd_class_names_add(&classes, name);
  }
  bnd_processing_params_write(w, &classes, &preprocessing);
  bnd_class_names_free(&classes);
}

static bnd_yolo_nas_state *state_from(const char *path, int classes, uint64_t seed) {
  bnd_error error;
  bnd_model *model = NULL;
  bnd_yolo_nas_state *state = NULL;
  must(bnd_model_open(path, &model, &error), &error);
  must(bnd_yolo_nas_state_read(model->network, &state, &error), &error);
  must(bnd_yolo_nas_state_replace_classes(state, classes, seed, &error), &error);
  bnd_model_close(model);
  return state;
}

int main(int argc, char **argv) {
  bnd_error error;
  bnd_yolo_nas_architecture architecture;
  bnd_yolo_nas_state *net = NULL, *average = NULL;
  if (argc < 6) return 2;
  const int classes = atoi(argv[4]);
  const uint64_t seed = strtoull(argv[5], NULL, 10);
  must(bnd_yolo_nas_scaled(argv[2][0], atof(argv[3]), classes, &architecture, &error), &error);
  if (argc > 6) net = state_from(argv[6], classes, seed);
  else must(bnd_yolo_nas_state_initialize(&architecture, seed, &net, &error), &error);
  must(bnd_yolo_nas_state_initialize(&architecture, seed + 1, &average, &error), &error);
  bnd_checkpoint_writer *w = bnd_checkpoint_writer_create();
  if (!w) return 1;
  put_state(w, "net", net);
  put_values(w);
  put_types(w);
  put_state(w, "ema_net", average);
  put_params(w, classes);
  must(bnd_checkpoint_write(w, argv[1], &error), &error);
  bnd_checkpoint_writer_free(w);
  char raw[4096];
  snprintf(raw, sizeof raw, "%s.raw", argv[1]);
  FILE *out = fopen(raw, "wb");
  if (!out) return 1;
  for (size_t i = 0; i < net->count; i++) fwrite(net->tensors[i].data, bnd_dtype_size(net->tensors[i].dtype), net->tensors[i].count, out);
  bnd_yolo_nas_state_destroy(net);
  bnd_yolo_nas_state_destroy(average);
  return fclose(out) != 0;
}
