/* Kernels: what the operators of the table compute, without the graph around them. A kernel is an operator id and its decoded arguments; it works on
   float32 arrays (bnd_real). Integer tensors are carried as float32 too: whole numbers up to 2^24 are exact. */
#ifndef BND_KERNELS_KERNEL_H
#define BND_KERNELS_KERNEL_H

#include "kernels/real.h"
#include "ops/operators.h"

/* Dense, row-major float32 data. Borrowed. */
typedef struct bnd_array {
  bnd_shape shape;
  bnd_real *data; /* NULL = the optional operand is absent */
} bnd_array;

/* Arguments of one operator call; only what the operator uses is set. */
typedef struct bnd_kernel {
  bnd_operator_id id; /* what is computed: in-place variants, views and modules are mapped to the operator they stand for */
  int64_t stride[2], padding[2], dilation[2], window[2], groups;
  bool count_include_pad;
  int64_t divisor;                /* avg_pool2d: 0 = number of values */
  int axis;                       /* counted from the front */
  bool reduced[BND_MAX_RANK];     /* mean */
  int order[BND_MAX_RANK];        /* permute */
  int64_t start, step;            /* slice, select, arange */
  int64_t factor;                 /* pixel_shuffle */
  bool approximate;               /* gelu: by tanh */
  double low, high;               /* clamp */
  bool open;                      /* clamp: no gradient passes at the bounds themselves (relu6, hardtanh) */
  double number;                  /* epsilon, slope, fill value, factor of the second operand of add and sub, factor behind a pool */
  const bnd_quantizer *quantizer; /* fake_quantize; borrowed */
  bool sticky;                    /* convolutions, linear: sums that float32 cannot hold are rounded to the neighbour whose last bit is 1 ("to odd"), so
                                     that a later rounding to fewer bits is the one of the exact sum (Boldo and Melquiond 2008) */
  int threads;                    /* to share the work among, 1 after decoding; each value is computed by one of them, in the same way */
} bnd_kernel;

/* Decodes the arguments of a call node whose inputs have shapes. Fails where an argument has no meaning here. */
bnd_status bnd_kernel_of_node(const bnd_node *node, bnd_kernel *kernel, bnd_error *error);

/* An operand as the kernel counts them: a node, a number, or absent. */
typedef struct bnd_operand {
  const bnd_node *node;
  bool is_number;
  double number;
} bnd_operand;
/* Operands of a call node in the order in which its kernel takes them (conv2d: input, weight, bias). Weights of modules are not among them. Writes at
   most `limit`, returns how many there are. */
int bnd_kernel_operands(const bnd_node *node, bnd_operand *operands, int limit);

/* Computes outputs from inputs: shapes of the outputs are set, memory is there, inputs and outputs do not overlap. */
typedef void bnd_kernel_function(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs, int output_count);
/* The plain loop of an operator; NULL for those that compute nothing (getitem, no_grad regions). */
bnd_kernel_function *bnd_reference_kernel(bnd_operator_id id);

/* Gradients of the inputs from those of the outputs. inputs and outputs: as the forward kernel had and left them; of the gradients only data is used,
   their shapes are those of the inputs and outputs. output_gradients[i].data NULL = zero. input_gradients[i].data NULL = not wanted; the others are
   overwritten (not added to). Inputs, outputs and gradients do not overlap. At kinks and ties the gradient is PyTorch's; through fake quantization it
   passes unchanged, also where values saturate (fx-quantization 6.2). Data that a rule does not need may be NULL: inputs and outputs of add, sub,
   average pools, mean, sum, movements and fake quantization; outputs of everything else but sigmoid and softmax, which need no inputs. */
typedef void bnd_gradient_function(const bnd_kernel *kernel, const bnd_array *inputs, int input_count, const bnd_array *outputs,
                                   const bnd_array *output_gradients, int output_count, const bnd_array *input_gradients);
/* The plain loop of a kernel's backward rule; NULL where no gradient passes (arange, full). */
bnd_gradient_function *bnd_reference_gradient(bnd_operator_id id);

/* Batch normalization with the statistics of the batch, over all dimensions but the second: [N, C, ...], at least two values a channel.
   z = (x - mean) / sqrt(variance + epsilon), y = weight * z + bias; weight and bias may be NULL. Sums run in double in memory order. */
/* Mean and biased variance of every channel (two passes). */
void bnd_batch_norm_statistics(const bnd_array *x, double *mean, double *variance);
/* running = (1 - momentum) * running + momentum * that of the batch, with the unbiased variance (n / (n - 1)). */
void bnd_batch_norm_update(const bnd_shape *shape, const double *mean, const double *variance, double momentum, bnd_real *running_mean,
                           bnd_real *running_variance);
void bnd_batch_norm_forward(const bnd_array *x, const bnd_real *weight, const bnd_real *bias, const double *mean, const double *variance,
                            double epsilon, bnd_real *y);
/* dbias = sum dy; dweight = sum dy z; dx = weight / sqrt(variance + epsilon) * (dy - (dbias + z dweight) / n), n values a channel. NULL = not
   wanted. */
void bnd_batch_norm_backward(const bnd_array *x, const bnd_real *weight, const double *mean, const double *variance, double epsilon,
                             const bnd_real *dy, bnd_real *dx, bnd_real *dweight, bnd_real *dbias);

#endif
