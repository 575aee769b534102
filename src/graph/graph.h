/* The graph, in the terms of torch.fx: an ordered list of nodes with names, operators, positional arguments, users and meta data.
   The graph owns its nodes, names and arguments (one arena) and the tensors they refer to. It knows no operator's meaning. */
#ifndef BND_GRAPH_GRAPH_H
#define BND_GRAPH_GRAPH_H

#include "base/memory.h"
#include "quant/quantizer.h"
#include "tensor/tensor.h"

typedef struct bnd_graph bnd_graph;
typedef struct bnd_node bnd_node;

/* A row of the operator table. The table itself, and what an operator means, is in ops/operators.h. */
typedef struct bnd_operator {
  int id;             /* bnd_operator_id */
  const char *name;   /* base of node names: "conv2d" */
  const char *target; /* as torch.fx prints it: "torch.ops.aten.conv2d.default" */
} bnd_operator;

typedef enum bnd_node_kind { BND_PLACEHOLDER, BND_GET_ATTR, BND_CALL_FUNCTION, BND_CALL_MODULE, BND_OUTPUT } bnd_node_kind;

typedef enum bnd_arg_kind { BND_ARG_NONE, BND_ARG_NODE, BND_ARG_LIST, BND_ARG_INT, BND_ARG_FLOAT, BND_ARG_BOOL, BND_ARG_TEXT } bnd_arg_kind;

typedef struct bnd_arg {
  bnd_arg_kind kind;
  bool tuple; /* BND_ARG_LIST: printed with ( ) instead of [ ] */
  union {
    bnd_node *node;
    struct {
      struct bnd_arg *items;
      int count;
    } list;
    int64_t integer;
    double number;
    bool boolean;
    const char *text; /* printed as it is: "torch.float32" */
  };
} bnd_arg;

#define BND_NONE_ARG ((bnd_arg){.kind = BND_ARG_NONE})
static inline bnd_arg bnd_arg_of_node(bnd_node *node) { return (bnd_arg){.kind = BND_ARG_NODE, .node = node}; }
static inline bnd_arg bnd_arg_of_int(int64_t value) { return (bnd_arg){.kind = BND_ARG_INT, .integer = value}; }
static inline bnd_arg bnd_arg_of_float(double value) { return (bnd_arg){.kind = BND_ARG_FLOAT, .number = value}; }
static inline bnd_arg bnd_arg_of_bool(bool value) { return (bnd_arg){.kind = BND_ARG_BOOL, .boolean = value}; }
static inline bnd_arg bnd_arg_of_text(const char *text) { return (bnd_arg){.kind = BND_ARG_TEXT, .text = text}; }

typedef struct bnd_keyword {
  const char *name;
  bnd_arg value;
} bnd_keyword;

/* A convolution-like layer (functional operator turned into a module by a pass), a pool, an activation or a fake quantizer called by a
   BND_CALL_MODULE node. Two nodes that call the same module share the record. Owned by the graph. */
typedef struct bnd_module {
  const char *name; /* attribute name, "conv2d_3_bn_quantized_module" */
  bnd_tensor weight, bias;                                         /* bias.data NULL = no bias */
  bool has_batch_norm;                                             /* batch norm not merged yet */
  bnd_tensor bn_weight, bn_bias, bn_running_mean, bn_running_var;  /* [C] each */
  double bn_epsilon, bn_momentum;
  int64_t stride[2], padding[2], dilation[2], output_padding[2], groups;
  int64_t kernel[2]; /* pools */
  bool ceil_mode, count_include_pad;
  int64_t divisor_override; /* 0 = none */
  double scale;      /* factor behind a pool, 1 = none */
  double slope;      /* leaky relu */
  bnd_quantizer *weight_quantizer, *bias_quantizer; /* NULL = not quantized */
  bnd_quantizer *quantizer;                         /* fake quantizer modules */
  const char *observed; /* fake quantizer modules: the node whose values calibration saw; NULL = the input */
  /* Names of the integers behind weight_quantizer, bias_quantizer and quantizer in the file the graph was read from; NULL = none. */
  const char *weight_integers, *bias_integers, *integers;
} bnd_module;

enum { BND_MAX_RESULTS = 8 };

struct bnd_node {
  int id; /* unique in its graph, never reused; new nodes get larger ids */
  bnd_node_kind kind;
  const bnd_operator *op; /* CALL_FUNCTION, CALL_MODULE; NULL otherwise */
  const char *name;       /* unique in its graph */
  const char *target;     /* GET_ATTR: key of the attribute; CALL_MODULE: module name; PLACEHOLDER: its name */
  bnd_arg *args;
  int arg_count;
  bnd_keyword *keywords;
  int keyword_count;
  bnd_node **users; /* each user once, in the order torch.fx keeps: a node whose arguments change moves to the end */
  int user_count, user_capacity;
  bnd_node *previous, *next;
  bnd_module *module; /* CALL_MODULE */
  bnd_graph *graph;

  /* meta */
  int result_count;                   /* 1; more for operators that return a tuple (split, meshgrid), picked apart by getitem */
  bnd_shape shape[BND_MAX_RESULTS];   /* set by shape inference */
  bnd_dtype dtype;
  const char *scope;                  /* path of the module that ran it: "backbone.stem.conv"; "" at the top; NULL unknown */
  bool skip;                          /* outside the quantization scope */
  const char *original_module;        /* Quark's meta["org_module_name"], key of per-layer configuration; NULL = none */
  const char *changed_by;             /* last pass that created or replaced it; NULL = as captured */
  const char *tensor;                 /* name of its value in the file the graph was read from; NULL = none */
};

/* --- life --- */
bnd_status bnd_graph_create(bnd_graph **graph, bnd_error *error);
void bnd_graph_destroy(bnd_graph *graph); /* NULL is fine */
/* A deep copy; tensors are shared, quantizers copied. Node ids and names are kept. */
bnd_status bnd_graph_copy(const bnd_graph *graph, bnd_graph **copy, bnd_error *error);

/* --- walking: for (n = bnd_graph_first(g); n; n = n->next) --- */
bnd_node *bnd_graph_first(const bnd_graph *graph);
bnd_node *bnd_graph_last(const bnd_graph *graph);
bnd_node *bnd_graph_find(const bnd_graph *graph, const char *name); /* NULL = no such node */
int bnd_graph_node_count(const bnd_graph *graph);
int bnd_graph_id_limit(const bnd_graph *graph); /* all ids are smaller: size for side tables indexed by id */

/* --- building; text is copied. NULL = memory short: the graph remembers it and bnd_graph_status tells, so builders may check once --- */
bnd_arena *bnd_graph_arena(bnd_graph *graph);
bnd_status bnd_graph_status(const bnd_graph *graph, bnd_error *error);
/* For passes whose own allocations fail: makes bnd_graph_status report it. */
void bnd_graph_out_of_memory(bnd_graph *graph);
/* torch.fx's naming: `candidate` if free, else base_N with the next free N. Marks the name used. */
const char *bnd_graph_unique_name(bnd_graph *graph, const char *candidate);
bnd_arg bnd_graph_list(bnd_graph *graph, const bnd_arg *items, int count);
bnd_arg bnd_graph_int_list(bnd_graph *graph, const int64_t *values, int count);
bnd_arg bnd_graph_node_list(bnd_graph *graph, bnd_node *const *nodes, int count);
/* Appends a node before the end; name is a candidate made unique. args are copied (lists by reference). */
bnd_node *bnd_graph_add(bnd_graph *graph, bnd_node_kind kind, const bnd_operator *op, const char *name, const char *target, const bnd_arg *args, int arg_count);
bnd_node *bnd_graph_placeholder(bnd_graph *graph, const char *name, const bnd_shape *shape);
bnd_node *bnd_graph_get_attr(bnd_graph *graph, const char *name, const char *target);
bnd_node *bnd_graph_call(bnd_graph *graph, const bnd_operator *op, const char *name, const bnd_arg *args, int arg_count);
bnd_node *bnd_graph_output(bnd_graph *graph, bnd_arg value); /* value: node or list, as torch.fx's output node */
bool bnd_node_add_keyword(bnd_node *node, const char *name, bnd_arg value);

/* --- attributes: named tensors (parameters, buffers, constants) --- */
typedef struct bnd_attribute {
  const char *name;
  bnd_tensor tensor;
  bool is_parameter; /* nn.Parameter, as opposed to a buffer or constant */
} bnd_attribute;
/* Takes over the reference in *tensor. Replaces an attribute of the same name. */
bnd_status bnd_graph_set_attribute(bnd_graph *graph, const char *name, bnd_tensor *tensor, bool is_parameter, bnd_error *error);
const bnd_attribute *bnd_graph_attribute(const bnd_graph *graph, const char *name); /* NULL = none */
/* A zeroed module record under a free name equal to `name` or name_N. NULL = memory short. */
bnd_module *bnd_graph_add_module(bnd_graph *graph, const char *name);
/* Makes *to what *from is, under its own name: tensors shared, quantizers left out. */
void bnd_module_share(bnd_module *to, const bnd_module *from);
/* Puts what *from has of weight and bias, shared, in the place of those of *to. */
void bnd_module_share_weights(bnd_module *to, const bnd_module *from);
bnd_module *bnd_graph_find_module(const bnd_graph *graph, const char *name);

/* --- changing --- */
void bnd_node_set_arg(bnd_node *node, int index, bnd_arg value); /* index <= arg_count: appends when equal */
void bnd_node_set_args(bnd_node *node, const bnd_arg *args, int arg_count);
/* In all arguments (also inside lists) of `node`: old -> replacement. */
void bnd_node_replace_input(bnd_node *node, bnd_node *old, bnd_node *replacement);
/* All users of `node` read `replacement` instead (but `replacement` itself, if it uses node, keeps it when keep_in_replacement). */
void bnd_node_replace_all_uses(bnd_node *node, bnd_node *replacement, bool keep_in_replacement);
void bnd_node_move_after(bnd_node *node, bnd_node *place);
void bnd_node_move_before(bnd_node *node, bnd_node *place);
void bnd_node_erase(bnd_node *node); /* must have no users */
/* Removes call and get_attr nodes without users, from the end backwards, as torch.fx does (placeholders, outputs, in-place operators and dropout stay). */
void bnd_graph_eliminate_dead_code(bnd_graph *graph);
/* Copies scope, skip, original_module and changed_by. */
void bnd_node_copy_meta(bnd_node *to, const bnd_node *from);

/* --- reading arguments by position, with the operator's default when absent or None --- */
bnd_node *bnd_arg_node(const bnd_node *node, int index); /* NULL when absent or not a node */
int64_t bnd_arg_int(const bnd_node *node, int index, int64_t otherwise);
double bnd_arg_float(const bnd_node *node, int index, double otherwise); /* accepts integers */
bool bnd_arg_bool(const bnd_node *node, int index, bool otherwise);
/* A list of up to `limit` integers, or one integer repeated `limit` times; returns how many were given (0 = absent, values untouched). */
int bnd_arg_ints(const bnd_node *node, int index, int64_t *values, int limit);
void bnd_arg_pair(const bnd_node *node, int index, int64_t otherwise, int64_t pair[2]);
const bnd_arg *bnd_node_keyword(const bnd_node *node, const char *name); /* NULL = absent */
/* Calls visit for every node among the arguments and keywords, in order, also inside lists; a node used twice is visited twice. */
void bnd_node_visit_inputs(const bnd_node *node, void (*visit)(void *user, bnd_node *input), void *user);
/* Distinct inputs in order; writes at most `limit`, returns how many there are. */
int bnd_node_inputs(const bnd_node *node, bnd_node **inputs, int limit);

/* --- checking and printing --- */
/* Order (inputs before users), user lists, unique names, one output at the end. A failure is a defect of a pass. */
bnd_status bnd_graph_verify(const bnd_graph *graph, bnd_error *error);
/* The text torch.fx prints: "graph():" and a line for each node. */
bnd_status bnd_graph_print_fx(const bnd_graph *graph, bnd_string *text, bnd_error *error);

#endif
