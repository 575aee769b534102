/* The whole of binade: open a network, look at it, evaluate it, quantize it.

   Every function returns a bnd_status and fills *error on failure (NULL allowed). Option structs may be zero-initialised: 0 or NULL in a field
   means its default, given beside it. Strings in options are borrowed for the duration of the call. Text handed out is UTF-8, ends with a line
   feed and is freed with bnd_free. Functions that write files write them whole or not at all. */
#ifndef BINADE_BINADE_H
#define BINADE_BINADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "binade/context.h"
#include "binade/error.h"
#include "binade/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Frees what this library handed out. NULL is fine. */
BND_API void bnd_free(void *memory);

/* ---- Models ---- */

/* A network with its weights, read from a checkpoint. Immutable once opened. */
typedef struct bnd_model bnd_model;

BND_API bnd_status bnd_model_open(const char *path, bnd_model **model, bnd_error *error);
BND_API void bnd_model_close(bnd_model *model); /* NULL is fine */

/* How far the branches and batch normalizations of a network are merged into its convolutions. */
typedef enum bnd_form {
  BND_FORM_DEFAULT = 0,
  BND_FORM_TRAIN,   /* as trained: every branch by itself */
  BND_FORM_PARTIAL, /* branches merged, the batch normalization behind them kept: what quantization starts from */
  BND_FORM_FOLDED   /* everything merged that can be */
} bnd_form;

/* What computes. All give the same quantized results, bit for bit (docs/numerics.md). */
typedef enum bnd_executor_kind {
  BND_EXECUTOR_DEFAULT = 0, /* int8 for quantized networks, float32 for others */
  BND_EXECUTOR_FAKEQUANT,   /* float32 values that are whole numbers of quanta, as in training */
  BND_EXECUTOR_REFERENCE,   /* plain loops: slow and simple */
  BND_EXECUTOR_INT8         /* int8 values, convolutions in integers where the processor has exact instructions for them */
} bnd_executor_kind;

/* Format, inputs, outputs, layers, parameters, multiply-accumulates, classes, preprocessing; as text or as one JSON object. */
BND_API bnd_status bnd_model_describe(const bnd_model *model, bool json, char **text, bnd_error *error);

typedef struct bnd_print_options {
  bnd_form form; /* default: partial */
  bool code;     /* as readable code instead of a table */
  int size;      /* side of the square input in pixels, a multiple of 32; 0 = the checkpoint's own, or 640 */
} bnd_print_options;
BND_API bnd_status bnd_model_print(const bnd_model *model, const bnd_print_options *options, char **text, bnd_error *error);

typedef struct bnd_convert_options {
  bnd_form form;    /* default: folded */
  int size;         /* as above */
  bool raw_outputs; /* also the tensors before box decoding */
} bnd_convert_options;
/* Writes the FP32 network as ONNX. */
BND_API bnd_status bnd_model_convert(const bnd_model *model, const bnd_convert_options *options, const char *path, bnd_error *error);

/* Tests every constraint of a hardware target ("amd-xint8"; NULL = that) and reports each node that breaks one. */
BND_API bnd_status bnd_check(const bnd_model *model, const char *target, bool json, char **text, int *violations, bnd_error *error);

/* ---- Evaluation ---- */

typedef struct bnd_evaluate_options {
  const char *data;           /* folder in COCO layout: annotations/instances_<split>.json, images/<split>/ */
  const char *split;          /* default: "val2017" */
  uint64_t images;            /* only the first so many; 0 = all */
  int size;                   /* as above */
  bnd_form form;              /* default: train */
  bnd_executor_kind executor;
} bnd_evaluate_options;

typedef struct bnd_class_result {
  char *name;
  uint64_t objects;        /* annotated ones */
  double ap50, ap50_95;    /* COCO's average precision of the class; NaN without annotated objects */
} bnd_class_result;

/* Processor time in seconds, of all threads. */
typedef struct bnd_evaluation_times {
  double load;        /* images: read, decoded, resized, normalised */
  double forward;     /* the network */
  double postprocess; /* detections from its outputs, and their match with the annotations of the image */
  double metrics;     /* from all matches to the numbers above */
} bnd_evaluation_times;

typedef struct bnd_evaluation {
  double map50, map50_95; /* super-gradients' mAP@0.50 and mAP@0.50:0.95 */
  double coco[12];        /* COCO's twelve numbers in their usual order; -1 where undefined */
  uint64_t images;
  double seconds;
  bnd_evaluation_times processor;
  bnd_class_result *classes;
  size_t class_count;
} bnd_evaluation;

BND_API bnd_status bnd_evaluate(const bnd_model *model, const bnd_evaluate_options *options, const bnd_context *context, bnd_evaluation *result,
                                bnd_error *error);
/* The same for a model that nothing else needs: read from its file, and its weights as they stand there are let go before the first image runs. */
BND_API bnd_status bnd_evaluate_file(const char *path, const bnd_evaluate_options *options, const bnd_context *context, bnd_evaluation *result,
                                     bnd_error *error);
BND_API void bnd_evaluation_free(bnd_evaluation *result); /* what it owns, not the struct itself */

typedef struct bnd_predict_options {
  const char *const *images; /* paths */
  size_t image_count;
  const char *output;  /* folder for the images with their boxes drawn; NULL = none are written */
  double confidence;   /* lowest score kept; 0 = 0.25 */
  double iou;          /* overlap from which the weaker box of a class goes; 0 = 0.7 */
  int maximum;         /* boxes per image; 0 = 300 */
  int size;            /* as above */
  bnd_executor_kind executor;
} bnd_predict_options;
/* Finds objects; *json is one JSON array with an object for each image: file, width, height, boxes (class, name, score, x, y, width, height). */
BND_API bnd_status bnd_predict(const bnd_model *model, const bnd_predict_options *options, const bnd_context *context, char **json,
                               bnd_error *error);

typedef struct bnd_dump_options {
  const char *image;          /* path */
  const char *output;         /* folder, made if missing */
  const char *target;         /* whose rounding is assumed; default: "amd-xint8" */
  bool accumulators;          /* also those of convolutions, as int32 */
  bnd_executor_kind executor; /* whose integers are dumped */
} bnd_dump_options;
/* Golden vectors of a quantized ONNX file: the network's input and outputs as float32, every quantized tensor, weight and bias as int8, each in a NumPy file;
   dump.json lists them with names, shapes, positions and the layers they belong to. Every convolution is computed a second time in whole numbers; if
   that gives anything else, it is an error. *text: what was dumped, for people, or dump.json. A dump that fails leaves no dump.json. */
BND_API bnd_status bnd_dump(const bnd_model *model, const bnd_dump_options *options, const bnd_context *context, bool json, char **text,
                            bnd_error *error);
/* ---- Speed ---- */

typedef struct bnd_bench_options {
  bnd_executor_kind executor; /* default: int8 for a quantized network, else fakequant */
  int size;                   /* as above */
  int rounds;                 /* forward passes measured; default: 20, with the reference executor 2 */
  int batch;                  /* also measure so many images at once, each on a thread of its own, as evaluation runs them; 0 = do not */
} bnd_bench_options;

/* One step of a forward pass. Rates are per second. */
typedef struct bnd_bench_layer {
  char *name, *kernel;
  char *reason;          /* why a faster kernel was not taken; "" = none is known */
  char *input, *output;  /* shapes: "1x3x640x640"; "" = none */
  int64_t window[2], stride[2]; /* of convolutions, else 0 */
  double macs;           /* multiply-adds of convolutions and matrix products, else 0 */
  uint64_t bytes;        /* read and written, weights included */
  bool convolution;
  bool integer;          /* int8 in, int8 out */
  double seconds;        /* shortest */
} bnd_bench_layer;

typedef struct bnd_bench_peak {
  char name[64];  /* where the figure is from: a loop of these instructions, or a layer that was faster than it */
  double macs;    /* multiply-adds a second, of all threads */
} bnd_bench_peak;

typedef struct bnd_bench_result {
  bnd_bench_layer *layers; /* in the order of execution; what computes nothing is left out */
  size_t layer_count;
  bnd_executor_kind executor; /* never BND_EXECUTOR_DEFAULT */
  bool quantized;             /* the network has quantizers */
  int width, height, threads, rounds, batch;
  bool processor_time;        /* seconds of layers and of the forward pass are processor time: with one thread, so that a busy machine does not show */
  double seconds, median_seconds; /* of a forward pass: shortest, median */
  double wall_seconds;            /* shortest by the clock on the wall */
  double batch_seconds;           /* of `batch` images, shortest by the clock on the wall; 0 = not measured */
  bnd_bench_peak float_peak, integer_peak;
  uint64_t arena_bytes, weight_bytes; /* activations of one forward pass; packed weights */
  double peak_rss_mib;                /* of this process so far */
  char library[32];                   /* "oneDNN 2.6.3" */
  char instructions[64];              /* the most it may use here: "AVX2" */
} bnd_bench_result;

/* Times a network, layer by layer. Which images it sees does not matter for the time: it gets drawn ones. */
BND_API bnd_status bnd_bench(const bnd_model *model, const bnd_bench_options *options, const bnd_context *context, bnd_bench_result *result,
                             bnd_error *error);
BND_API void bnd_bench_free(bnd_bench_result *result); /* what it owns, not the struct itself */

/* ---- Data ---- */

typedef struct bnd_dataset_shapes_options {
  const char *output;         /* folder, made if missing: annotations/instances_<split>.json and images/<split>/ appear in it */
  const char *split;          /* default: "train2017"; different splits have different pictures */
  uint64_t images;            /* default: 1000; fewer are the first of more */
  int least_side, most_side;  /* of the pictures, in pixels; default: 400 and 640 */
  int quality;                /* of the JPEG files, 1..100; default: 88 */
} bnd_dataset_shapes_options;

enum { BND_DATASET_SHAPES_CLASSES = 8 };
typedef struct bnd_dataset_shapes_result {
  uint64_t images, objects; /* objects: annotated ones */
  struct {
    const char *name; /* static */
    uint64_t objects;
  } classes[BND_DATASET_SHAPES_CLASSES];
} bnd_dataset_shapes_result;

/* Draws a data set of flat figures on clutter, in COCO's layout. The context's seed decides everything random: the same bytes on every machine
   and for any number of threads. A finished run may be repeated; any other data in the way is an error. `result` may be NULL. */
BND_API bnd_status bnd_dataset_shapes(const bnd_dataset_shapes_options *options, const bnd_context *context, bnd_dataset_shapes_result *result,
                                      bnd_error *error);

/* ---- Quantization ---- */

typedef struct bnd_quantize_options {
  const char *checkpoint;
  const char *data;   /* folder in COCO layout */
  const char *output; /* folder for the results, made if missing */
  const char *split;  /* for evaluation, and for calibration with the recipe quark; default: "val2017" */
  const char *recipe; /* "best" (default) or "quark", AMD Quark's FX flow to the bit */
  const char *target; /* default: "amd-xint8" */
  const char *config; /* JSON file in Quark's shape; NULL = the recipe's own configuration */
  uint64_t calibration_images; /* default: 100 (best) or 500 (quark), or all there are */
  int batch;                   /* quark: calibration images per batch; default: 25. best looks at all of them together */
  uint64_t images;             /* evaluate on the first so many; 0 = all */
  bool no_evaluation;
  int size;                    /* as above */
  const char *scope;           /* quark: "published" (default), "backbone-neck", "all", or "stubs"; best: "auto" (default: all but the tail behind the last
                                  learned layers) or "full" (everything) */
  const char *const *quant_stubs, *const *dequant_stubs; /* scope "stubs": names of nodes behind which quantization begins and ends */
  size_t quant_stub_count, dequant_stub_count;
  const char *observer;        /* "min-max" (default with quark) or "min-mse" (default with best) */
  bool per_channel;            /* weights: an exponent for each output channel */
  bnd_executor_kind executor;
  bool restart;                /* ignore finished stages found in `output` instead of continuing from them */
  const char *command;         /* the command line, kept in results.json; may be NULL */
  /* The recipe best. Its calibration images are never among those evaluated: they are from another split, or a part of this one that is left out. */
  const char *calibration_split; /* default: "train2017" where the data has it, else a part of `split` */
  const char *const *steps;      /* only these of bnd_best_steps; NULL = those that are on by default */
  size_t step_count;
  const char *const *without;    /* none of these */
  size_t without_count;
  double budget_minutes;         /* what the steps may take together; 0 = as long as they want */
  bool evaluate_steps;           /* a row with mAP for every step, not only for the first and the last */
  bool sensitivity;              /* sensitivity.txt and sensitivity.json: what each tensor's quantization alone costs */
  /* Quantization-aware training between calibration and alignment, with AdamW; the defaults are those of AMD Quark's published example. Its rate of
     2e-7 hardly moves a weight (what it gains comes from observers that see more images); 2e-5 does more. */
  bool qat;
  const char *qat_split;        /* images to train on; default: "train2017" */
  uint64_t qat_images;          /* only the first so many; 0 = all */
  double qat_share;             /* then this share of them, chosen by the seed; default: 0.001, or 1 when qat_images is given */
  int qat_epochs;               /* default: 1 */
  int qat_batch;                /* default: 8 */
  double qat_learning_rate;     /* default: 2e-7 */
  const char *qat_schedule;     /* "cosine" (default), "step" (a tenth at 2/3 and 8/9 of the epochs) or "constant" */
  double qat_final_ratio;       /* of a cosine; default: 0.01 */
  int64_t qat_warmup_steps;     /* steps at the full rate before the schedule begins; default: 2; negative = none */
  double qat_weight_decay;      /* default: 1e-5; negative = none */
  bool qat_no_augmentation;     /* the validation transform instead */
  bool qat_in_order;            /* images in the order of the annotation file, not shuffled */
  bool qat_freeze_batch_norm;   /* running statistics stay as they are */
  bool qat_average;             /* what is kept is the moving average of the weights, not the last ones */
  double qat_save_minutes;      /* the state of training is saved this often; default: 1 */
  const char *qat_thresholds;   /* "observed" (default) or "learned": ranges of activations and weights are trained, too (Jain et al. 2020) */
  double qat_threshold_rate;    /* learned thresholds: their learning rate, times qat_learning_rate; default: 1e4, less if that would be above 0.01 */
} bnd_quantize_options;

typedef struct bnd_stage_result {
  char name[16];          /* "fp32", "folded", "ptq", "qat" (when trained), "aligned" */
  bool evaluated;         /* false: the numbers below it are 0 */
  double map50, map50_95;
  double coco[12];
  uint64_t images;
  double seconds;         /* of the whole stage */
  double peak_rss_mib;
  double kept_low, kept_high; /* recipe best, "aligned": 95 % interval of its mAP@0.50:0.95 over the first row's (paired bootstrap); both 0 = not computed */
} bnd_stage_result;

/* One step of the recipe best. */
typedef struct bnd_step_result {
  char name[16];
  bool kept;            /* false: it made the measure worse and was taken back */
  double before, after; /* distance from the float network's answers on held-out images, 0 = equal */
  double seconds;
} bnd_step_result;

enum { BND_MAX_STAGES = 16, BND_MAX_STEPS = 12 };
typedef struct bnd_quantize_result {
  bnd_stage_result stages[BND_MAX_STAGES];
  int stage_count;
  uint64_t calibration_images; /* really used */
  int violations;              /* constraints of the target still broken after alignment */
  uint64_t held_out_images;    /* best: what the guard measured on */
  char calibration_split[64];  /* where both are from */
  bnd_step_result steps[BND_MAX_STEPS]; /* best */
  int step_count;
} bnd_quantize_result;

/* The names of the recipe best's steps, in the order they run: *count of them. Static. */
typedef struct bnd_step_name {
  const char *name, *meaning;
  bool by_default;
} bnd_step_name;
BND_API const bnd_step_name *bnd_best_steps(size_t *count);

/* The staged run: checkpoint to INT8 ONNX. Stages already finished in `output` with the same options are taken from there; training goes on at the step
   where it was stopped, and is not repeated when only evaluation or the target change. BND_ERROR_MODEL when the training loss is not finite any more: the
   last good state is kept. */
BND_API bnd_status bnd_quantize(const bnd_quantize_options *options, const bnd_context *context, bnd_quantize_result *result, bnd_error *error);

/* ---- Training ---- */

/* What happens while training, for each step. */
typedef struct bnd_train_report {
  uint64_t epoch, epochs, step, steps;           /* both from 1; step counts batches of the whole run */
  double loss, classification, iou, dfl;         /* of this batch; the parts are weighted and add up to the loss */
  double learning_rate, images_per_second, remaining_seconds;
  bool validated;                                /* behind the last batch of an epoch that was followed by validation */
  double map50, map50_95;                        /* then: super-gradients' metrics of the moving average */
  bool best;                                     /* then: the best so far */
} bnd_train_report;

typedef struct bnd_train_options {
  const char *data;              /* folder in COCO layout */
  const char *output;            /* folder for checkpoints and metrics, made if missing */
  const char *split;             /* default: "train2017" */
  const char *validation_split;  /* default: "val2017" */
  const char *init;              /* checkpoint to start from (another class count gets a fresh class prediction); NULL = from scratch */
  bool resume;                   /* go on with what is in `output` */
  bool restart;                  /* replace what is in `output` */
  char variant;                  /* 's', 'm' or 'l' in either case; default: 's'. From scratch only, as the width */
  double width;                  /* factor of the channels; default: 1 */
  int size;                      /* side of the square input, a multiple of 32; default: the checkpoint's own, or 640 */
  int batch;                     /* default: 8 */
  int epochs;                    /* default: 30 */
  int accumulate;                /* batches for each optimizer step; default: 1 */
  const char *optimizer;         /* "adamw" (default) or "sgd" */
  double learning_rate;          /* default: 5e-4 */
  double weight_decay;           /* default: 1e-5; negative = none */
  const char *schedule;          /* "cosine" (default), "step" (a tenth at 2/3 and 8/9 of the epochs) or "constant" */
  double final_ratio;            /* of a cosine; default: 0.1 */
  int64_t warmup_steps;          /* default: 100, at most an epoch; negative = none */
  double clip_norm;              /* largest norm of the gradients; 0 = any */
  double average_decay;          /* of the moving average; default: 0.9997; negative = none */
  int best_snapshots;            /* average of the best so many validated states, written as average.pth; 0 = none */
  bool frozen_batch_norm;        /* running statistics stay as they are */
  bool no_augmentation;          /* the validation transform instead */
  bool in_order;                 /* images in the order of the annotation file, not shuffled */
  uint64_t images;               /* only the first so many; 0 = all */
  double share;                  /* then this share of them, chosen by the seed; 0 = all */
  int validate_every;            /* epochs; default: 1; negative = never */
  uint64_t validation_images;    /* only the first so many; 0 = all */
  double save_minutes;           /* the state is saved this often, and after every epoch; default: 2 */
  void (*report)(void *user, const bnd_train_report *report); /* called with the context's user after every step; may be NULL */
  const char *command;           /* the command line, kept in the checkpoint; may be NULL */
} bnd_train_options;

typedef struct bnd_train_result {
  uint64_t epochs, steps, images;      /* done; images = those that can be trained on */
  double best_map50, best_map50_95;    /* NaN when never validated */
  uint64_t best_epoch;
  double loss;                         /* mean over the last epoch */
  double seconds;                      /* of this call */
  uint64_t memory;                     /* bytes the run planned for */
} bnd_train_result;

/* Trains YOLO-NAS. Written to `output`: best.pth (the moving average with the best validation mAP@0.50:0.95, under "net"), last.pth (the network under
   "net", its moving average under "ema_net"), average.pth (with best_snapshots), metrics.jsonl (a line for each epoch), training.svg, state.pth (all
   that is needed to go on). Interrupted by the context it saves its state and returns BND_ERROR_INTERRUPTED. BND_ERROR_MODEL when the loss is not
   finite any more: the last good state is kept. */
BND_API bnd_status bnd_train(const bnd_train_options *options, const bnd_context *context, bnd_train_result *result, bnd_error *error);

#ifdef __cplusplus
}
#endif
#endif
