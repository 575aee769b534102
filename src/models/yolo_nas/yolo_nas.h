/* YOLO-NAS (super-gradients 3.7.1): the architecture read off the names and shapes of a state dict, and the network as a graph in FX terms.
   Any number of blocks, any width, class count, reg_max and number of input channels; specification: yolo-nas-model.md, sections 1 to 5. */
#ifndef BND_MODELS_YOLO_NAS_YOLO_NAS_H
#define BND_MODELS_YOLO_NAS_YOLO_NAS_H

#include "graph/graph.h"

/* --- where tensors come from --- */

typedef struct bnd_named_shape {
  const char *name; /* "backbone.stem.conv.branch_3x3.conv.weight" */
  bnd_dtype dtype;
  bnd_shape shape;
} bnd_named_shape;

/* A list of tensors in the order of the state dict; their values are asked for one at a time, when a graph is built. */
typedef struct bnd_tensor_source {
  const char *place;              /* what messages start with: the file's name */
  const bnd_named_shape *tensors; /* borrowed, must outlive the model */
  size_t count;
  void *user;
  bnd_status (*load)(void *user, size_t index, bnd_tensor *tensor, bnd_error *error); /* the caller owns *tensor */
} bnd_tensor_source;

/* --- architecture --- */

typedef struct bnd_yolo_nas_blocks { /* a cross-stage layer (CSP) */
  int input, hidden, output;
  int count;                 /* bottlenecks */
  bool concat_intermediates; /* every bottleneck's result goes into the concatenation */
} bnd_yolo_nas_blocks;

enum { BND_YOLO_NAS_STAGES = 4, BND_YOLO_NAS_NECKS = 4, BND_YOLO_NAS_HEADS = 3 };

typedef struct bnd_yolo_nas_architecture {
  char variant;    /* 'S', 'M', 'L' by the numbers of blocks, whatever the width; 'C' = custom */
  bool full_width; /* the widths of the published models of this variant */
  int input_channels, classes, reg_max;
  int stem;
  bnd_yolo_nas_blocks stage[BND_YOLO_NAS_STAGES];
  int spp_hidden, spp;
  int neck_conv[BND_YOLO_NAS_NECKS]; /* output of neckN.conv: the width of an up stage, half of that of a down stage */
  bnd_yolo_nas_blocks neck[BND_YOLO_NAS_NECKS];
  int head[BND_YOLO_NAS_HEADS];
} bnd_yolo_nas_architecture;

/* The published models: variant 'S', 'M' or 'L' with so many classes, 3 input channels, reg_max 16. False for other letters. */
bool bnd_yolo_nas_published(char variant, int classes, bnd_yolo_nas_architecture *architecture);

/* --- model --- */

typedef enum bnd_yolo_nas_form {
  BND_YOLO_NAS_TRAIN,   /* as stored: with branches where the state dict has them */
  BND_YOLO_NAS_PARTIAL, /* branches merged into one convolution, all batch norms kept: prep_model_for_conversion */
  BND_YOLO_NAS_FOLDED   /* every batch norm folded: convolution with bias, ReLU */
} bnd_yolo_nas_form;

typedef struct bnd_yolo_nas bnd_yolo_nas;

/* Decides the architecture and checks every name, shape and data type; reads no values. *source is copied, what it points to must outlive the model.
   Names that do not fit are matched by order as super-gradients does, if number and shapes then agree with the blocks of a published variant.
   BND_ERROR_MODEL names the missing, unexpected and mis-shaped tensors (the first few and their number). */
bnd_status bnd_yolo_nas_read(const bnd_tensor_source *source, bnd_yolo_nas **model, bnd_error *error);
void bnd_yolo_nas_destroy(bnd_yolo_nas *model); /* NULL is fine */
const bnd_yolo_nas_architecture *bnd_yolo_nas_architecture_of(const bnd_yolo_nas *model);
/* How the re-parameterized blocks are stored: TRAIN (with branches), PARTIAL or FOLDED (their batch norm is gone too); the first block's form. */
bnd_yolo_nas_form bnd_yolo_nas_stored_form(const bnd_yolo_nas *model);
bool bnd_yolo_nas_matched_by_order(const bnd_yolo_nas *model);

typedef struct bnd_yolo_nas_options {
  bnd_yolo_nas_form form;
  int height, width; /* of the input, multiples of 32 */
  int batch;         /* of the placeholder; 0 = 1 */
  bool raw_outputs;  /* behind boxes and scores also class logits, distributions, anchors, their centres, anchors of each head, strides */
  bool stubs;        /* the published quantization scope: QuantStub behind the input, QuantStub and DeQuantStub around anchor points and strides */
  bool shapes_only;  /* attributes without data: for counting and printing, no value is read */
} bnd_yolo_nas_options;

/* The network as torch.export captures it: nodes, order, names, scopes. Attributes are named as in the state dict and are parameters or buffers as
   there; heads.proj_conv is a buffer. Boxes [B,A,4] are x1,y1,x2,y2 in pixels of the input, scores [B,A,N] probabilities, A = anchors of strides 8,
   16, 32. Fusing branches is bit for bit what super-gradients computes in float32 (3.2, 3.3); FOLDED starts from those values, folds the remaining
   batch norms in double and rounds once. Shapes are inferred. The graph shares no memory with the model. BND_ERROR_ARGUMENT: bad sizes.
   BND_ERROR_MODEL: a value is NaN or infinite, or a variance negative. */
bnd_status bnd_yolo_nas_graph(const bnd_yolo_nas *model, const bnd_yolo_nas_options *options, bnd_graph **graph, bnd_error *error);

/* Size of the state dict in a form. FOLDED here means super-gradients' full_fusion: the batch norms of ordinary convolutions stay (section 1.4). */
typedef struct bnd_yolo_nas_size {
  int64_t tensors, parameters, statistics, counters; /* parameters and running statistics in elements; counters: num_batches_tracked */
  int64_t bytes;                                     /* float32 and int64 */
} bnd_yolo_nas_size;
bnd_yolo_nas_size bnd_yolo_nas_size_of(const bnd_yolo_nas_architecture *architecture, bnd_yolo_nas_form form);
/* "name [d0,d1]" and a line feed for every tensor of the state dict, in order. */
bnd_status bnd_yolo_nas_describe(const bnd_yolo_nas_architecture *architecture, bnd_yolo_nas_form form, bnd_string *text, bnd_error *error);

#endif
