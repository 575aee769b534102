/* The network, as the files of this layer share it. It is built in this order: lower.c (graph -> values and steps), fuse.c (batch norm with what
   surrounds it), layout.c (blocked or plain), parts.c (what runs when: every step adds its parts of the forward pass, then those of the backward pass
   in reverse order), memory.c (life intervals, addresses). run.c executes; step_*.c hold one kind of step each, forward and backward side by side. */
#ifndef BND_AUTOGRAD_INTERNAL_H
#define BND_AUTOGRAD_INTERNAL_H

#include "autograd/network.h"
#include "kernels/kernel.h"
#include "kernels/loops/training.h"
#include "kernels/onednn/layer.h"

/* A piece of every image's memory, needed from part `first` to part `last`. */
typedef struct slot {
  size_t bytes;
  int first, last; /* -1: never */
  size_t address;  /* in the image's arena */
} slot;

typedef struct value {
  const char *name;
  bnd_shape shape;
  size_t block;                   /* channels side by side; 0 = plain */
  int placeholder;                /* index of the input; -1 = none */
  bnd_tensor constant;            /* data != NULL: one for all images; parameters too */
  int parameter;                  /* index; -1 = none */
  bool differentiable;            /* depends on a parameter and reaches a gradient output */
  int uses;                       /* by steps that send a gradient back, counted once each */
  int twin;                       /* the same values in the other layout; -1 = none */
  int view_of;                    /* shares that value's memory; -1 = none */
  int data, packed, gradient;     /* slots; -1 = none. packed: bytes of a value on a grid, kept for the backward pass in place of data */
  const bnd_quantizer *quantizer; /* of packed */
  bool gradient_begun;            /* while parts are made: a part before has written the gradient */
  int written;                    /* first part that touches data; -1 = none yet */
} value;

typedef struct network_step step;
typedef struct part part;

typedef bnd_status part_run(bnd_network *network, const part *part, int image, int worker, bnd_error *error);
typedef bnd_status part_reduce(bnd_network *network, const part *part, bnd_error *error);
/* run (NULL = nothing) for every image; then, when all images are through, reduce (NULL = nothing to wait for). */
struct part {
  step *step;
  part_run *run;
  part_reduce *reduce;
  bool *add; /* the gradient of input k (behind the inputs: of factor value k) is added to, not written */
  double seconds;
};

typedef enum step_kind {
  STEP_KERNEL,      /* reference kernel on plain data */
  STEP_CONVOLUTION, /* with bias or batch norm and fake quantizers inside, relu behind */
  STEP_NORM,        /* batch norm with relu and addends */
  STEP_SUM,         /* first_factor * first + second_factor * second */
  STEP_RELU,
  STEP_FAKE_QUANTIZE,
  STEP_CONCAT,   /* along channels */
  STEP_MAX_POOL, /* size kept */
  STEP_TO_PLAIN,
  STEP_TO_BLOCKED,
  STEP_VIEW, /* the same memory under another shape */
  STEP_DEAD
} step_kind;

enum { NO_INDEX = -1, NETWORK_BUFFERS = 3 /* of each worker: two for unfolded values, one for what is added or measured */ };

/* Batch norm of a step: parameters, statistics and what the last forward pass made of them. Vectors have padded channels. */
typedef struct norm {
  int gamma, beta; /* parameters */
  float *running_mean, *running_variance;
  double epsilon, momentum;
  float *mean, *reciprocal;       /* of the last pass: batch or running, 1 / sqrt(variance + epsilon) */
  float *scale, *shift;           /* y = x * scale + shift */
  float *factor, *slope, *offset; /* dx = t * factor + (x - mean) * slope + offset */
} norm;

typedef struct learned_threshold {
  bnd_quantizer *quantizer; /* the graph's */
  int parameter;
} learned_threshold;

struct network_step {
  step_kind kind;
  const char *name;
  const bnd_node *node;
  bnd_kernel kernel;
  int *inputs, input_count;
  int outputs[BND_MAX_RESULTS], output_count;
  bool differentiable; /* has a backward pass */

  bool relu;
  float factor[2];     /* STEP_SUM, addends of STEP_NORM */
  int factor_value[2]; /* the factor is this value, a single number; -1 = none */

  norm *norm; /* STEP_NORM; STEP_CONVOLUTION with a batch norm inside. Owned */

  /* STEP_CONVOLUTION */
  int weight, bias; /* parameters; -1 = none */
  bool transposed;
  bnd_quantizer *weight_quantizer, *bias_quantizer, *quantizer; /* the graph's; quantizer: STEP_FAKE_QUANTIZE */
  int threshold;                                                /* parameter: of quantizer or weight_quantizer; -1 = observed */
  bnd_onednn_layer *layer;                                      /* NULL: reference kernels */
  bnd_onednn_layer_call **calls;                                /* by worker */
  bnd_tensor effective_weight, effective_bias;                  /* what convolves and what is added; folded and quantized */
  bnd_tensor unquantized;                                       /* with a threshold: effective weight before */
  float *packed, *packed_raw;                                   /* effective weight; the parameter itself, for batch statistics */
  float *after_scale, *after_shift;                             /* [padded channels] behind the convolution */

  /* slots of every image; -1 = none */
  int sums; /* doubles: two for each padded channel; STEP_FAKE_QUANTIZE: one */
  int mask; /* a bit for each output value */
  int weight_gradient;
  int range;            /* two floats, then the doubles of BND_MSE_CANDIDATES */
  int *temporaries;     /* STEP_KERNEL: for gradients that are added to; by input */
  bool shares_gradient; /* the gradient of input 0 lies where that of the output does */
};

struct bnd_network {
  bnd_network_options options;
  bnd_network_mode mode;
  bnd_graph *graph;
  bnd_arena *names; /* small things that live as long as the network */
  bnd_onednn *onednn;
  value *values;
  size_t value_count, value_capacity;
  step *steps;
  size_t step_count, step_capacity;
  part *parts;
  size_t part_count, part_capacity, forward_parts;
  slot *slots;
  size_t slot_count, slot_capacity;
  bnd_parameter *parameters;
  size_t parameter_count, parameter_capacity;
  bnd_statistic *statistics;
  size_t statistic_count, statistic_capacity;
  bnd_network_quantizer *quantizers;
  size_t quantizer_count, quantizer_capacity;
  learned_threshold *thresholds;
  size_t threshold_count, threshold_capacity;
  int *outputs; /* values; -1 = not computed */
  size_t output_count, output_capacity;
  int placeholder_count;

  char *arena; /* batch times image_bytes */
  size_t image_bytes;
  const float *const *images;                          /* of the pass that runs */
  char **scratch;                                      /* by worker: oneDNN's */
  float **buffers;                                     /* by worker and number: see bnd_network_buffer */
  size_t scratch_bytes, buffer_count[NETWORK_BUFFERS]; /* floats */
  float *totals[2];                                    /* sums of weight gradients: packed, plain */
  size_t total_count[2];
  size_t weight_bytes; /* packed weights and gradients */
  bool timing, has_gradients;
};

/* --- building --- */
int bnd_network_add_value(bnd_network *network, const char *name, const bnd_shape *shape);           /* -1 = memory short */
step *bnd_network_add_step(bnd_network *network, step_kind kind, const char *name, int input_count); /* NULL = memory short */
int bnd_network_add_slot(bnd_network *network, size_t bytes);                                        /* -1 = memory short */
int bnd_network_add_parameter(bnd_network *network, const char *name,
                              const bnd_tensor *tensor); /* the index, also of a known one; -1 = memory short */
bool bnd_network_add_quantizer(bnd_network *network, const char *name, bnd_quantizer *quantizer); /* NULL quantizers are left out */
bool bnd_network_add_statistic(bnd_network *network, const char *name, const bnd_tensor *tensor);
void *bnd_network_keep(bnd_network *network, size_t count, size_t size); /* zeroed, lives as long as the network; NULL = memory short */
bnd_layout bnd_network_layout(const value *value);
size_t bnd_network_count(const value *value);                /* floats of one image, padding included */
size_t bnd_network_channels(const value *value);             /* padded */
int bnd_network_root(const bnd_network *network, int value); /* through views */

bnd_status bnd_network_lower(bnd_network *network, bnd_error *error);
bnd_status bnd_network_fuse(bnd_network *network, bnd_error *error);
bnd_status bnd_network_assign_layouts(bnd_network *network, bnd_error *error);
bnd_status bnd_network_make_parts(bnd_network *network, bnd_error *error);
bnd_status bnd_network_assign_memory(bnd_network *network, bnd_error *error);

/* --- while parts are made --- */
part *bnd_network_add_part(bnd_network *network, step *step, part_run *run, part_reduce *reduce); /* NULL = memory short */
/* The part added last uses it. */
void bnd_network_use_slot(bnd_network *network, int slot);
void bnd_network_use_data(bnd_network *network, int value);  /* forward: reads or writes the values */
void bnd_network_use_saved(bnd_network *network, int value); /* backward: reads them through bnd_network_saved */
void bnd_network_use_gradient(bnd_network *network, int value);
/* The part writes (or, if one before it did, adds to) the gradient of input `index` of its step, behind the inputs that of factor value `index` -
   input_count; false: nobody wants it. */
bool bnd_network_send_gradient(bnd_network *network, part *part, int index);
bool bnd_network_wants_gradient(const bnd_network *network, const step *step, int index); /* the same question while running */
/* The gradient of `from` may lie where that of `to` lies: nobody else sends one to `from`. */
bool bnd_network_share_gradient(bnd_network *network, int from, int to);

/* --- while running --- */
float *bnd_network_data(const bnd_network *network, int value, int image);
/* As data; bytes are unfolded into buffer `buffer` of the worker. */
const float *bnd_network_saved(const bnd_network *network, int value, int image, int worker, int buffer);
float *bnd_network_gradient(const bnd_network *network, int value, int image);
void *bnd_network_slot(const bnd_network *network, int slot, int image);
float *bnd_network_buffer(const bnd_network *network, int worker, int buffer);
void bnd_network_want_buffer(bnd_network *network, int buffer, size_t count); /* while building */
static inline bool bnd_network_observes(const bnd_network *network) {
  return network->options.quantize && network->mode != BND_MODE_EVALUATE;
}

/* --- kinds: prepare what a pass needs once (weights packed, ...; several steps at once), forward parts, backward parts --- */
typedef struct step_functions {
  bnd_status (*prepare)(bnd_network *network, step *step, bnd_error *error); /* NULL = nothing */
  bnd_status (*forward)(bnd_network *network, step *step, bnd_error *error);
  bnd_status (*backward)(bnd_network *network, step *step, bnd_error *error);
} step_functions;
const step_functions *bnd_step_kernel(void);
const step_functions *bnd_step_convolution(void);
const step_functions *bnd_step_norm(void);
const step_functions *bnd_step_sum(void);
const step_functions *bnd_step_relu(void);
const step_functions *bnd_step_fake_quantize(void);
const step_functions *bnd_step_concat(void);
const step_functions *bnd_step_max_pool(void);
const step_functions *bnd_step_to_plain(void);
const step_functions *bnd_step_to_blocked(void);
const step_functions *bnd_step_view(void);
const step_functions *bnd_functions_of(step_kind kind);

/* norm.c: shared by STEP_NORM and STEP_CONVOLUTION */
norm *bnd_norm_create(bnd_network *network, size_t padded_channels); /* NULL = memory short */
/* Mean and reciprocal deviation over the batch from the images' moments (`sums` of the step, of its value `moments_of`); running statistics follow.
   mean_shift (NULL = none): a bias that the moments do not contain. */
bnd_status bnd_norm_batch_statistics(bnd_network *network, step *step, int moments_of, const float *mean_shift, bnd_error *error);
void bnd_norm_running_statistics(step *step, size_t channels);

/* step_threshold.c: quantizers that follow a trained threshold (step.threshold >= 0) */
bool bnd_threshold_is_possible(const bnd_network *network, const step *step);          /* asked for, and a quantizer of the right kind */
bnd_status bnd_thresholds_add(bnd_network *network, bnd_error *error);                 /* when it is known which steps are differentiable */
bnd_status bnd_thresholds_prepare(bnd_network *network, bnd_error *error);             /* before a forward pass */
bnd_status bnd_threshold_forward(bnd_network *network, step *step, bnd_error *error);  /* STEP_FAKE_QUANTIZE: parts in place of the observer's */
bnd_status bnd_threshold_backward(bnd_network *network, step *step, bnd_error *error); /* STEP_FAKE_QUANTIZE */
bnd_status bnd_threshold_keep_weight(step *step, const bnd_tensor *weight, bnd_error *error); /* STEP_CONVOLUTION: before it is quantized */
/* Adds the threshold's gradient; `gradient` of the quantized weight becomes that of the kept one. */
void bnd_threshold_weight_gradient(bnd_network *network, const step *step, float *gradient);

#endif
