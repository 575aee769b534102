/* A graph as a trainable network: forward over a batch, backward from gradients of its outputs to gradients of its parameters.

   The unit of work is one image: the graph has batch size 1, every image runs in memory of its own, with one thread, and what the images have in
   common (batch statistics, ranges, weight gradients) is added up in the order of the images. Results are therefore the same bits for any number of
   threads.

   Batch normalization: Ioffe and Szegedy 2015, running statistics and variances as torch.nn.BatchNorm2d. Convolutions with a batch norm inside and
   fake quantizers: Quark's QuantizedConvBatchNorm2d (fx-quantization 6.4; Krishnamoorthi 2018, 3.2.2). Gradients pass fake quantizers unchanged
   (6.2); with trained thresholds only inside the range (6.5, step_threshold.c). */
#ifndef BND_AUTOGRAD_NETWORK_H
#define BND_AUTOGRAD_NETWORK_H

#include "exec/exec.h"

typedef struct bnd_network_options {
  int batch;                   /* images at once; at least 1 */
  int threads;                 /* at least 1; more than `batch` are of little use */
  bool quantize;               /* fake quantizers act; otherwise values pass them unchanged */
  bnd_exec_backend backend;    /* reference: plain loops for every operator */
  const int *gradient_outputs; /* outputs (in order, lists flattened) whose gradients will be given; the others only run forward */
  int gradient_output_count;
  bool learn_thresholds;  /* quantizers of activations and weights with one scale follow a trained threshold, not an observer, where a gradient
                             comes by */
  float threshold_margin; /* how far below the end of the interval for the calibrated scale thresholds start: 0 (the next step up doubles the scale)
                             or more, less than 1 */
} bnd_network_options;

typedef struct bnd_network bnd_network;

/* `graph` has inferred shapes with batch size 1, and outlives the network: parameters, running statistics and quantizers are used in place, so that
   the graph is the trained network at any time. Fails for operators without a backward rule that lie between parameters and gradient outputs. */
bnd_status bnd_network_create(bnd_graph *graph, const bnd_network_options *options, bnd_network **network, bnd_error *error);
void bnd_network_destroy(bnd_network *network); /* NULL is fine */

/* Bytes for activations, gradients and packed weights; what creation would need is the same. */
size_t bnd_network_bytes(const bnd_network *network);

/* A trainable tensor. Names as torch's named_parameters: "backbone.stem.conv.branch_3x3.conv.weight", "conv2d_bn_quantized_module.bn.weight". Trained
   thresholds are parameters with one value, "fake_quantizer_3.log2_threshold", behind all others; they start as 7 - position - threshold_margin. */
typedef struct bnd_parameter {
  const char *name;
  bnd_shape shape;
  size_t count;
  float *value;    /* the graph's own; a threshold is the network's */
  float *gradient; /* the network's; sums up over backward passes until bnd_network_zero_gradients */
  bool direct;     /* goes into a fake quantizer as it is. Quark's compiled quantizer loses the gradient of such inputs: there they are not trained */
  bool reached;    /* the last backward pass gave it a gradient (biases in front of a batch norm get none in training) */
  bool threshold;  /* log2 of where the range of a quantizer ends: scale = 2^ceil(value) / 128 */
} bnd_parameter;
bnd_parameter *bnd_network_parameters(const bnd_network *network, size_t *count);

/* Running means and variances, in the order of the graph. */
typedef struct bnd_statistic {
  const char *name; /* "....running_mean" */
  size_t count;
  float *value;
} bnd_statistic;
const bnd_statistic *bnd_network_statistics(const bnd_network *network, size_t *count);

/* The fake quantizers, in the order of the graph; none when the network does not quantize. */
typedef struct bnd_network_quantizer {
  const char *name;         /* "fake_quantizer_3", "conv2d_bn_quantized_module._weight_quantizer" */
  bnd_quantizer *quantizer; /* the graph's own */
} bnd_network_quantizer;
const bnd_network_quantizer *bnd_network_quantizers(const bnd_network *network, size_t *count);

typedef enum bnd_network_mode {
  BND_MODE_EVALUATE, /* running statistics, quantizers as they are */
  BND_MODE_TRAIN,    /* batch statistics, running ones updated, observers on */
  BND_MODE_FROZEN    /* running statistics, observers on */
} bnd_network_mode;
/* As train() and eval() of the original: also forgets the observers' votes (fx-quantization 6.3). A new network is in BND_MODE_EVALUATE. */
void bnd_network_set_mode(bnd_network *network, bnd_network_mode mode);

/* images[i]: plain float32 input of image i; with n placeholders images[i * n + k] is that of the k-th, in graph order. Unchanged until the backward
   pass ends. `stop` (NULL = never) is asked between the steps; true ends the
   call with BND_ERROR_INTERRUPTED. BND_ERROR_MODEL with the node's name when an image is not finite, or values are whose statistics or ranges are
   taken. */
bnd_status bnd_network_forward(bnd_network *network, const float *const *images, bool (*stop)(void *user), void *user, bnd_error *error);
int bnd_network_output_count(const bnd_network *network);
const bnd_shape *bnd_network_output_shape(const bnd_network *network, int output);
/* Plain data, valid until the backward pass begins. NULL for outputs that are constants or numbers only. */
const float *bnd_network_output(const bnd_network *network, int output, int image);
/* Where the caller writes the gradient of a gradient output before the backward pass. */
float *bnd_network_output_gradient(bnd_network *network, int output, int image);
/* After a forward pass with every output gradient written. */
bnd_status bnd_network_backward(bnd_network *network, bool (*stop)(void *user), void *user, bnd_error *error);
void bnd_network_zero_gradients(bnd_network *network);
/* The graph's quantizers as the trained thresholds say. Forward passes begin with it; needed after thresholds have changed, before the graph is used
   without the network. Values that are not numbers change nothing. */
void bnd_network_put_thresholds_in_force(bnd_network *network);

/* A line for each step: name, kind, kernels, shapes, memory; with seconds of the last passes when timing is on. */
bnd_status bnd_network_describe(const bnd_network *network, bnd_string *text, bnd_error *error);
void bnd_network_set_timing(bnd_network *network, bool on);

#endif
