/* The network as a flat list of layers, and the tensors each of them owns. Private to the model. */
#ifndef BND_MODELS_YOLO_NAS_LAYERS_H
#define BND_MODELS_YOLO_NAS_LAYERS_H

#include "models/yolo_nas/yolo_nas.h"

typedef enum bnd_layer_kind {
  BND_LAYER_REPARAMETERIZED, /* QARepVGG block: 3x3 and 1x1 branches, perhaps identity, batch norm, ReLU */
  BND_LAYER_CONV,            /* convolution without bias, batch norm, ReLU */
  BND_LAYER_ALPHA,           /* the factor of a bottleneck's residual */
  BND_LAYER_UPSAMPLE,        /* transposed convolution 2x2 of stride 2 with bias */
  BND_LAYER_PREDICTION       /* 1x1 convolution with bias */
} bnd_layer_kind;

enum { BND_LAYER_PATH = 64, BND_TENSOR_NAME = 112 };

typedef struct bnd_layer {
  bnd_layer_kind kind;
  char path[BND_LAYER_PATH]; /* module that owns the tensors: "backbone.stage1.blocks.conv1", "heads.head1.stem.seq" */
  int input, output, kernel, stride;
  bool identity;          /* REPARAMETERIZED: with identity branch */
  bnd_yolo_nas_form form; /* REPARAMETERIZED: as stored */
} bnd_layer;

typedef struct bnd_layer_list {
  bnd_layer *items;
  size_t count, capacity;
  bool failed; /* memory short */
} bnd_layer_list;

typedef enum bnd_layer_order {
  BND_ORDER_REGISTRATION, /* of the state dict */
  BND_ORDER_EXECUTION     /* of the first use in forward */
} bnd_layer_order;

/* All layers, every re-parameterized one in form `form`. Free items with free(). */
bnd_layer_list bnd_layers_of(const bnd_yolo_nas_architecture *architecture, bnd_yolo_nas_form form, bnd_layer_order order);

typedef enum bnd_tensor_role { BND_ROLE_PARAMETER, BND_ROLE_UNUSED_PARAMETER, BND_ROLE_STATISTIC, BND_ROLE_COUNTER } bnd_tensor_role;

typedef struct bnd_layer_tensor {
  const char *suffix; /* ".branch_3x3.bn.weight" */
  bnd_tensor_role role;
  bnd_shape shape;
} bnd_layer_tensor;

/* The tensors of a layer in the order of the state dict; returns how many. UNUSED_PARAMETER: present, but without effect on the result. */
enum { BND_LAYER_MAX_TENSORS = 16 };
int bnd_layer_tensors(const bnd_layer *layer, bnd_layer_tensor tensors[BND_LAYER_MAX_TENSORS]);

/* --- what the files of the model share --- */

struct bnd_yolo_nas {
  bnd_tensor_source source;
  char *place;
  bnd_yolo_nas_architecture architecture;
  bnd_layer_list layers; /* in execution order, with the stored forms */
  bnd_map index;         /* name in super-gradients' terms -> index in the source */
  bnd_arena *names;      /* of the map, when they are not those of the source */
  bool by_order;
};

/* Loads "path" + "suffix" as float32 and checks that every value is finite. Owned by the caller. */
bnd_status bnd_yolo_nas_load(const bnd_yolo_nas *model, const char *path, const char *suffix, bnd_tensor *tensor, bnd_error *error);

/* fuse.c: weight [co,ci,3,3] and bias [co] of a re-parameterized layer stored with branches; sections 3.2 and 3.3. Owned by the caller. */
bnd_status bnd_yolo_nas_merge_branches(const bnd_yolo_nas *model, const bnd_layer *layer, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error);
/* Folds the batch norm "path" + ".bn" (or ".post_bn") into weight [co,..] and bias [co] (bias->data NULL = zero), in double, in place; creates the
 * bias. */
bnd_status bnd_yolo_nas_fold_batch_norm(const bnd_yolo_nas *model, const bnd_layer *layer, const char *batch_norm, bnd_tensor *weight,
                                        bnd_tensor *bias, bnd_error *error);

/* super-gradients sets these after construction, for every batch norm. */
#define BND_YOLO_NAS_EPSILON 0.001
#define BND_YOLO_NAS_MOMENTUM 0.03

#endif
