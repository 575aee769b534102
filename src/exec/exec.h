/* Running a graph: compile once into a plan (order, fusions, layouts, memory by life interval, packed weights), then run it in sessions. */
#ifndef BND_EXEC_EXEC_H
#define BND_EXEC_EXEC_H

#include "kernels/loops/loops.h"
#include "ops/operators.h"

typedef enum bnd_exec_mode {
  BND_EXEC_FLOAT,        /* fake quantizers pass their input through; module weights folded but not quantized (calibration, FP32) */
  BND_EXEC_FAKE_QUANTIZE /* fake quantizers and module weight/bias quantizers act with the parameters in force */
} bnd_exec_mode;

typedef enum bnd_exec_backend {
  BND_BACKEND_ONEDNN,    /* oneDNN convolutions, fused loops around them */
  BND_BACKEND_REFERENCE, /* plain loops for every operator: what tests trust */
  BND_BACKEND_INT8       /* quantized values kept as int8, convolutions in int8 where that is exact; the rest as BND_BACKEND_ONEDNN. Needs
                            BND_EXEC_FAKE_QUANTIZE; the same results, bit for bit, as that backend's (docs/numerics.md) */
} bnd_exec_backend;

typedef struct bnd_exec_options {
  bnd_exec_mode mode;
  bnd_exec_backend backend;
  int threads;      /* inside one run; >= 1. Results do not depend on it */
  bool observe;     /* sessions call their probe with the input of every fake quantizer */
  bool non_negative_inputs; /* the caller promises inputs without negative values, images for one: int8 kernels for those are faster. Where it matters a
                               run that finds one fails with BND_ERROR_ARGUMENT */
  int output_limit; /* 0 = all outputs; k = only the first k tensors of the (flattened) output value are computed, the rest is dead code */
} bnd_exec_options;

/* The compiled plan: immutable, shared by sessions in several threads. Keeps the tensors it needs alive; the graph may go.
   Shapes must have been inferred (bnd_infer_shapes). Everything is computed in float32. */
typedef struct bnd_executor bnd_executor;
bnd_status bnd_executor_create(const bnd_graph *graph, const bnd_exec_options *options, bnd_executor **executor, bnd_error *error);
void bnd_executor_destroy(bnd_executor *executor);                /* NULL is fine */
size_t bnd_executor_arena_bytes(const bnd_executor *executor);   /* activations of one session */
size_t bnd_executor_weight_bytes(const bnd_executor *executor);  /* packed weights, shared by the sessions */
int bnd_executor_output_count(const bnd_executor *executor);     /* tensors among the computed outputs, in order */
const bnd_shape *bnd_executor_output_shape(const bnd_executor *executor, int index);

/* A value shown to a probe. Its memory may be in a blocked layout, so it is read through functions only. */
typedef struct bnd_value bnd_value;
const bnd_shape *bnd_value_shape(const bnd_value *value);
void bnd_value_min_max(const bnd_value *value, float *minimum, float *maximum); /* true elements only, layout padding left out; NaN if one is */
/* Squared errors of rounding all elements to several grids (kernels/loops/loops.h). */
void bnd_value_squared_errors(const bnd_value *value, const bnd_error_grids *grids, double *errors);
void bnd_value_copy(const bnd_value *value, float *plain);                      /* row-major, bnd_shape_count elements */
/* node_id and name are those of the fake quantizer in the graph the executor was made from. Called in graph order, from the running thread.
   Constant values (weights of the graph, anchors) are shown in every run too. */
typedef void (*bnd_probe)(void *user, int node_id, const char *name, const bnd_value *value);

/* One worker's memory. Sessions of one executor may run at the same time in different threads. */
typedef struct bnd_session bnd_session;
bnd_status bnd_session_create(bnd_executor *executor, bnd_session **session, bnd_error *error);
void bnd_session_destroy(bnd_session *session);
/* Asked before every step of a run, from the thread that runs; when it says true the run ends with BND_ERROR_INTERRUPTED. NULL = never. */
void bnd_session_set_stop(bnd_session *session, bool (*stop)(void *user), void *user);
/* inputs[i]: plain float32 data of the i-th placeholder, read only during the call. probe may be NULL. */
bnd_status bnd_session_run(bnd_session *session, const float *const *inputs, bnd_probe probe, void *user, bnd_error *error);
/* Plain float32 data of output `index`, valid until the next run. */
const float *bnd_session_output(const bnd_session *session, int index);

/* For `bench` and curiosity: what the plan does, a line for each step (name, kernel, shape, layout, place in the arena); with a session whose timing
   is on also the shortest time of each step over its runs (processor time with one thread). */
bnd_status bnd_executor_describe(const bnd_executor *executor, const bnd_session *timed, bnd_string *text, bnd_error *error);
void bnd_session_set_timing(bnd_session *session, bool on);

/* One step of the plan. Texts are the executor's. */
typedef struct bnd_step_info {
  const char *name;   /* of the node it computes */
  const char *kernel; /* "jit_uni_int8:avx2", "scale_add", "softmax" */
  const char *reason; /* why it is not a faster kernel: "signed input saturates these instructions"; "" = nothing faster is known */
  bnd_shape input, output; /* first operand and first result; rank 0 where there is none */
  int64_t window[2], stride[2]; /* convolutions */
  double operations;            /* multiply-adds of convolutions and matrix products, else 0 */
  size_t bytes;                 /* read and written, weights included */
  bool convolution;
  bool integer; /* int8 in, int8 out */
  double seconds; /* shortest of the timed runs; 0 = not timed */
} bnd_step_info;
int bnd_executor_step_count(const bnd_executor *executor);
void bnd_executor_step_info(const bnd_executor *executor, const bnd_session *timed, int index, bnd_step_info *info);

#endif
