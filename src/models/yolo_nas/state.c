#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/yolo_nas/state_build.h"

/* --- the list --- */

bnd_status bnd_yolo_nas_state_create(bnd_yolo_nas_state **state, bnd_error *error) {
  bnd_yolo_nas_state *fresh = bnd_calloc(1, sizeof *fresh);
  if (!fresh || !(fresh->names = bnd_arena_create())) {
    free(fresh);
    return bnd_fail_memory(error, "the state dict");
  }
  *state = fresh;
  return BND_OK;
}

void bnd_yolo_nas_state_destroy(bnd_yolo_nas_state *state) {
  if (!state) return;
  for (size_t i = 0; i < state->count; i++) bnd_tensor_release(&state->tensors[i]);
  free(state->tensors);
  free(state->shapes);
  bnd_arena_destroy(state->names);
  free(state);
}

bnd_status bnd_yolo_nas_state_append(bnd_yolo_nas_state *state, const char *name, bnd_tensor *tensor, bnd_error *error) {
  size_t capacity = state->capacity;
  const char *copy = bnd_arena_copy(state->names, name);
  if (!copy || !BND_GROW(state->shapes, capacity, state->count + 1) || !BND_GROW(state->tensors, state->capacity, state->count + 1)) {
    bnd_tensor_release(tensor);
    return bnd_fail_memory(error, "the state dict");
  }
  state->shapes[state->count] = (bnd_named_shape){copy, tensor->dtype, tensor->shape};
  state->tensors[state->count++] = *tensor;
  *tensor = (bnd_tensor){0};
  return BND_OK;
}

bnd_status bnd_yolo_nas_state_copy(const bnd_yolo_nas_state *state, bnd_yolo_nas_state **copy, bnd_error *error) {
  bnd_yolo_nas_state *fresh = NULL;
  BND_TRY(bnd_yolo_nas_state_create(&fresh, error));
  bnd_status status = BND_OK;
  for (size_t i = 0; i < state->count && status == BND_OK; i++) {
    bnd_tensor tensor = {0};
    status = bnd_tensor_copy(&state->tensors[i], &tensor, error);
    if (status == BND_OK) status = bnd_yolo_nas_state_append(fresh, state->shapes[i].name, &tensor, error);
  }
  if (status == BND_OK) *copy = fresh;
  else bnd_yolo_nas_state_destroy(fresh);
  return status;
}

bnd_tensor *bnd_yolo_nas_state_find(const bnd_yolo_nas_state *state, const char *name) {
  for (size_t i = 0; i < state->count; i++)
    if (strcmp(state->shapes[i].name, name) == 0) return &state->tensors[i];
  return NULL;
}

/* --- from and to models --- */

static bnd_status load_copy(void *user, size_t index, bnd_tensor *tensor, bnd_error *error) {
  const bnd_yolo_nas_state *state = user;
  return bnd_tensor_copy(&state->tensors[index], tensor, error);
}

bnd_tensor_source bnd_yolo_nas_state_source(bnd_yolo_nas_state *state, const char *place) {
  return (bnd_tensor_source){place, state->shapes, state->count, state, load_copy};
}

/* num_batches_tracked, which averages of snapshots hold as float32. */
static bnd_status read_counter(const bnd_yolo_nas *model, size_t index, int64_t *value, bnd_error *error) {
  bnd_tensor stored = {0}, number = {0};
  BND_TRY(model->source.load(model->source.user, index, &stored, error));
  bnd_status status = BND_OK;
  *value = 0;
  if (stored.dtype == BND_I64 && stored.count) {
    *value = *(const int64_t *)stored.data;
  } else if (stored.count && (status = bnd_tensor_to_f32(&stored, &number, error)) == BND_OK) {
    const float batches = *bnd_f32(&number);
    if (batches >= 0 && batches < 0x1p62f) *value = (int64_t)batches;
    bnd_tensor_release(&number);
  }
  bnd_tensor_release(&stored);
  return status;
}

static bnd_status read_tensor(const bnd_yolo_nas *model, const bnd_layer *layer, const bnd_layer_tensor *about, const char *name, bnd_tensor *tensor,
                              bnd_error *error) {
  size_t index;
  if (!bnd_map_get(&model->index, name, &index)) return bnd_yolo_nas_initial_tensor(layer, about, 0, tensor, error);
  if (about->role != BND_ROLE_COUNTER) {
    bnd_tensor values = {0};
    BND_TRY(bnd_yolo_nas_load(model, layer->path, about->suffix, &values, error));
    const bnd_status status = bnd_tensor_copy(&values, tensor, error); /* the source may have handed out what is its own */
    bnd_tensor_release(&values);
    return status;
  }
  BND_TRY(bnd_tensor_create(BND_I64, &about->shape, tensor, error));
  return read_counter(model, index, tensor->data, error);
}

static bnd_status read_layer(const bnd_yolo_nas *model, const bnd_layer *layer, bnd_yolo_nas_state *state, bnd_error *error) {
  bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS];
  const int count = bnd_layer_tensors(layer, tensors);
  for (int t = 0; t < count; t++) {
    char name[BND_TENSOR_NAME];
    bnd_tensor tensor = {0};
    snprintf(name, sizeof name, "%s%s", layer->path, tensors[t].suffix);
    const bnd_status status = read_tensor(model, layer, &tensors[t], name, &tensor, error);
    if (status != BND_OK) {
      bnd_tensor_release(&tensor);
      return status;
    }
    BND_TRY(bnd_yolo_nas_state_append(state, name, &tensor, error));
  }
  return BND_OK;
}

/* The model has its layers in the order of execution, with the forms they are stored in. */
static bnd_yolo_nas_form stored_form(const bnd_yolo_nas *model, const char *path) {
  for (size_t i = 0; i < model->layers.count; i++)
    if (strcmp(model->layers.items[i].path, path) == 0) return model->layers.items[i].form;
  return BND_YOLO_NAS_TRAIN;
}

bnd_status bnd_yolo_nas_state_read(const bnd_yolo_nas *model, bnd_yolo_nas_state **state, bnd_error *error) {
  bnd_yolo_nas_state *fresh = NULL;
  BND_TRY(bnd_yolo_nas_state_create(&fresh, error));
  bnd_layer_list layers = bnd_layers_of(&model->architecture, BND_YOLO_NAS_TRAIN, BND_ORDER_REGISTRATION);
  bnd_status status = layers.failed ? bnd_fail_memory(error, "the layers") : BND_OK;
  for (size_t i = 0; i < layers.count && status == BND_OK; i++) {
    layers.items[i].form = stored_form(model, layers.items[i].path);
    status = read_layer(model, &layers.items[i], fresh, error);
  }
  free(layers.items);
  if (status == BND_OK) *state = fresh;
  else bnd_yolo_nas_state_destroy(fresh);
  return status;
}

/* --- after training --- */

/* Every parameter of the graph has its place here. */
static bnd_status check_graph(const bnd_yolo_nas_state *state, const bnd_graph *graph, bnd_error *error) {
  bnd_map places = {0};
  bnd_status status = BND_OK;
  for (size_t i = 0; i < state->count && status == BND_OK; i++)
    if (!bnd_map_put(&places, state->shapes[i].name, i)) status = bnd_fail_memory(error, "the names of tensors");
  for (const bnd_node *node = bnd_graph_first(graph); node && status == BND_OK; node = node->next) {
    const bnd_attribute *attribute = node->kind == BND_GET_ATTR ? bnd_graph_attribute(graph, node->target) : NULL;
    size_t place;
    if (!attribute) continue;
    if (!bnd_map_get(&places, attribute->name, &place)) {
      if (attribute->is_parameter)
        status = bnd_fail(error, BND_ERROR_ARGUMENT, "the parameter %s of the network has no place in the state dict", attribute->name);
      continue;
    }
    const bnd_tensor *mine = &state->tensors[place];
    if (!attribute->tensor.data || attribute->tensor.dtype != mine->dtype || !bnd_shape_equal(&attribute->tensor.shape, &mine->shape))
      status = bnd_fail(error, BND_ERROR_ARGUMENT, "%s of the network and of the state dict differ in shape or type", attribute->name);
  }
  bnd_map_free(&places);
  return status;
}

bnd_status bnd_yolo_nas_state_update(bnd_yolo_nas_state *state, const bnd_graph *graph, int64_t batches, bnd_error *error) {
  BND_TRY(check_graph(state, graph, error));
  for (size_t i = 0; i < state->count; i++) {
    bnd_tensor *mine = &state->tensors[i];
    if (mine->dtype == BND_I64) {
      *(int64_t *)mine->data += batches;
      continue;
    }
    const bnd_attribute *attribute = bnd_graph_attribute(graph, state->shapes[i].name);
    if (attribute) memcpy(mine->data, attribute->tensor.data, mine->count * bnd_dtype_size(mine->dtype));
  }
  return BND_OK;
}
