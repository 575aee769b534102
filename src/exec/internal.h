/* The plan, as the files of this layer share it. Compilation runs through lower.c (graph -> values and steps, constants evaluated), fuse.c (steps
   merged), layout.c (blocked or plain, conversions, convolutions made), place.c (values that share memory) and memory.c (life intervals, arena);
   session.c runs the steps. The reference backend skips fusing and layouts: every step is a plain loop. */
#ifndef BND_EXEC_INTERNAL_H
#define BND_EXEC_INTERNAL_H

#include "exec/exec.h"
#include "exec/integers.h"
#include "kernels/kernel.h"
#include "kernels/loops/bytes.h"
#include "kernels/loops/loops.h"
#include "kernels/onednn/int8.h"
#include "kernels/onednn/onednn.h"

/* How a value lies in memory. */
typedef enum bnd_value_storage {
  BND_STORED_PLAIN,   /* float32, row-major */
  BND_STORED_BLOCKED, /* float32, blocks of channels side by side */
  BND_STORED_BYTES,   /* int8, all channels side by side; of values on a grid of bytes */
  BND_STORED_COUNT
} bnd_value_storage;

typedef struct bnd_plan_value {
  bnd_shape shape;
  bnd_value_storage storage;
  size_t block;        /* channels side by side; 0 = plain, row-major */
  bnd_tensor constant; /* data != NULL: known when compiling */
  int placeholder;     /* index of the input; -1 = computed */
  bool on_grid;        /* every value is a whole number in [grid.low, grid.high] times grid.step */
  bnd_grid grid;
  bool non_negative; /* no value on the grid is below 0 */
  bool wants_bytes;  /* a step that reads it works on bytes if it can */
  int stored_as[BND_STORED_COUNT]; /* the same values in each storage, this one included; -1 = not made */

  /* memory */
  int parent; /* lives inside that value's memory, `offset` bytes from its start; -1 = on its own */
  size_t offset;
  size_t bytes;
  int first, last; /* first step that writes, last step that reads; of roots: of everything inside too */
  size_t address;  /* roots: in the arena */
} bnd_plan_value;

typedef enum bnd_step_kind {
  BND_STEP_KERNEL,      /* reference kernel on plain data, then the tail */
  BND_STEP_CONVOLUTION, /* oneDNN, tail inside */
  BND_STEP_SPREAD,      /* second half of a transposed convolution with kernel and stride 2 */
  BND_STEP_POINTWISE,   /* tail(factor * x) */
  BND_STEP_SCALE_ADD,   /* tail(inner(factor * x) + y); inputs x, y */
  BND_STEP_MAX_POOL,    /* blocked, size kept */
  BND_STEP_CONCAT,      /* channels of blocked values; inputs already in place are left out */
  BND_STEP_TO_PLAIN,
  BND_STEP_TO_BLOCKED,
  BND_STEP_TO_BYTES,   /* grid(relu(factor * x)) as bytes */
  BND_STEP_FROM_BYTES, /* plain or blocked */
  BND_STEP_MAP,        /* bytes: a function of each, by table */
  BND_STEP_ALIAS, /* the output is the input under another shape; nothing runs */
  BND_STEP_PROBE, /* shows the input */
  BND_STEP_DEAD   /* merged into another step */
} bnd_step_kind;

typedef struct bnd_step {
  bnd_step_kind kind;
  const char *name; /* of the node it computes; of the fake quantizer for probes */
  const char *reason; /* why it is not a faster kernel; static text, NULL = nothing faster is known */
  int node_id;
  bnd_kernel kernel;
  int *inputs, input_count; /* values; -1 = operand absent */
  int outputs[BND_MAX_RESULTS], output_count;
  int workspace; /* value; -1 = none */
  bnd_convolution_tail tail;
  float factor;
  bool has_inner;
  bnd_grid inner;
  bool expects_non_negative;    /* to_bytes: a negative result is an error of the caller's */
  const bnd_byte_table *tables; /* map: one; concatenation of bytes: one for each input, or NULL where all share one grid */
  double operations;            /* multiply-adds */
  int64_t weight_window[2];     /* of convolutions */

  /* where the weights of a convolution or linear step come from while compiling: a module of the graph, or constant operands, then batch norm
     (values of weight, bias, mean, variance; -1 = absent) */
  const bnd_module *module;
  bool transposed, has_batch_norm;
  int batch_norm[4];
  double batch_norm_epsilon;

  bnd_onednn_convolution *convolution; /* owned */
} bnd_step;

struct bnd_executor {
  bnd_exec_options options;
  bnd_arena *arena; /* names, input lists */
  bnd_onednn *onednn;
  bnd_int8_level int8_level;
  bnd_plan_value *values;
  size_t value_count, value_capacity;
  bnd_step *steps;
  size_t step_count, step_capacity;
  bnd_quantizer **quantizers; /* copies of those the kernels use */
  size_t quantizer_count, quantizer_capacity;
  int *outputs; /* values */
  size_t output_count, output_capacity;
  int placeholder_count;
  size_t arena_bytes, weight_bytes, scratch_bytes;
};

struct bnd_value {
  const void *data; /* floats, or bytes times `step` */
  const bnd_shape *shape;
  bnd_value_storage storage;
  bnd_layout layout;
  float step;
  int threads;
};

/* --- building blocks, plan.c --- */
/* -1 = memory short. */
int bnd_plan_add_value(bnd_executor *plan, const bnd_shape *shape);
/* Appends a zeroed step with room for input_count inputs; NULL = memory short. The pointer holds until the next one is added. */
bnd_step *bnd_plan_add_step(bnd_executor *plan, bnd_step_kind kind, const char *name, int node_id, int input_count);
size_t bnd_plan_value_count(const bnd_plan_value *value); /* elements without padding */
void bnd_plan_set_storage(const bnd_executor *plan, int value, bnd_value_storage storage);
bnd_layout bnd_plan_layout(const bnd_plan_value *value);
int bnd_plan_root(const bnd_executor *plan, int value, size_t *offset); /* offset may be NULL */
/* Weight and bias (bias->data NULL = none) of a step, batch norm folded in, quantized if the mode asks for it. Owned by the caller. */
bnd_status bnd_plan_weights(const bnd_executor *plan, const bnd_step *step, bnd_tensor *weight, bnd_tensor *bias, bnd_error *error);
/* Turns the weights of a step into constant operands 1 and 2, as reference kernels take them. */
bnd_status bnd_plan_materialize(bnd_executor *plan, size_t step, bnd_error *error);

/* --- passes --- */
bnd_status bnd_plan_lower(bnd_executor *plan, const bnd_graph *graph, bnd_error *error);
bnd_status bnd_plan_fuse(bnd_executor *plan, bnd_error *error);
/* For the reference backend, which fuses nothing: convolutions in front of a fake quantizer keep what decides its rounding (bnd_kernel.sticky). */
bnd_status bnd_plan_keep_rounding(bnd_executor *plan, bnd_error *error);
/* Convolutions of a plan with layouts (convolutions.c): the step itself, perhaps with conversions before and a spreading step behind it, is appended. */
bnd_status bnd_plan_lay_out_convolution(bnd_executor *plan, bnd_step *step, bnd_error *error);
bnd_status bnd_plan_convert(bnd_executor *plan, int *value, bnd_value_storage storage, bnd_error *error);
bnd_status bnd_plan_append(bnd_executor *plan, const bnd_step *step, bnd_error *error);
bool bnd_plan_can_be_bytes(const bnd_executor *plan, int value);
bnd_status bnd_plan_assign_layouts(bnd_executor *plan, bnd_error *error);
void bnd_plan_place(bnd_executor *plan);
bnd_status bnd_plan_assign_memory(bnd_executor *plan, bnd_error *error);

#endif
