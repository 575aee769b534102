/* Inside the flow: what the recipes of `binade quantize` share. A recipe is a function that takes the run from the float rows to the written INT8 file. */
#ifndef BND_FLOW_QUANTIZE_H
#define BND_FLOW_QUANTIZE_H

#include "base/clock.h"
#include "calib/calibrate.h"
#include "eval/sg_metrics.h"
#include "flow/dataset.h"
#include "flow/qat.h"
#include "flow/reports.h"
#include "flow/state.h"
#include "passes/config.h"
#include "passes/target/target.h"

typedef struct bnd_quantize_run {
  const bnd_quantize_options *options;
  const bnd_context *context;
  bnd_quantize_result *result;
  bnd_error *error;
  bnd_model *model;
  bnd_dataset dataset;            /* to evaluate on; the recipe quark calibrates on it, too */
  bnd_dataset calibration;        /* the recipe best: to calibrate on, when it is another split */
  bnd_dataset_part calibrate, held_out; /* the recipe best: disjoint, and disjoint from what is evaluated */
  bnd_dataset_part unlabelled;          /* what distillation may look at: the calibration images and whatever else is neither held out nor evaluated */
  bnd_quantization_config config;
  bnd_target_profile target;
  bnd_run_state state;
  bnd_qat qat;            /* when asked for */
  char training[65];      /* digest of what training depends on; "" = there is none */
  bnd_string log;         /* run.log so far */
  bnd_string class_names; /* as JSON, for the ONNX files; empty = unknown */
  char source_sha256[65];
  size_t calibration_images, batch;
  bnd_sg_record **float_records, **final_records; /* [dataset.count] of the rows fp32 and aligned, when evaluated in this process; NULL otherwise */
  struct timespec stage_begin;
  bool bad_axis; /* an axis of the configuration does not exist */
} bnd_quantize_run;

/* The recipe best (best.c). */
bool bnd_recipe_is_best(const bnd_quantize_options *options);
bnd_status bnd_best_check_options(const bnd_quantize_options *options, bnd_error *error);
/* Decides which images calibrate, which guard and which evaluate (r->dataset may shrink). */
bnd_status bnd_best_choose_images(bnd_quantize_run *r);
void bnd_best_fingerprint(const bnd_quantize_run *r, bnd_string *text);
bnd_status bnd_best_stages(bnd_quantize_run *r);

/* Tools of a run. */
bnd_status bnd_run_path(bnd_quantize_run *r, const char *name, char path[4096]);
bnd_status bnd_run_write_text(bnd_quantize_run *r, const char *name, const bnd_string *text);
/* A line of run.log, also shown at this level. */
void bnd_run_note(bnd_quantize_run *r, bnd_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));
bnd_exec_backend bnd_run_backend(const bnd_quantize_run *r);
bnd_status bnd_run_not_cancelled(const bnd_quantize_run *r, const char *stage);
bnd_status bnd_run_network(const bnd_quantize_run *r, bnd_yolo_nas_form form, bool raw_outputs, bool stubs, bnd_graph **graph);
bnd_status bnd_run_export(bnd_quantize_run *r, const bnd_graph *graph, const char *name, bool dedicated);
bnd_status bnd_run_print_graph(bnd_quantize_run *r, const bnd_graph *graph, const char *name);
/* Per-layer overrides of the configuration, checked against the tensors they are for. */
bnd_status bnd_run_configure(bnd_quantize_run *r, bnd_graph *graph);
/* Whether the row is there already; starts the row's clock. */
bool bnd_run_has_stage(bnd_quantize_run *r, const char *name);
/* Evaluates one network and records the row. */
bnd_status bnd_run_measure(bnd_quantize_run *r, const char *name, const bnd_graph *graph, bnd_exec_mode mode);
/* How sure the last row's share of the first one's mAP is (needs both rows' records; the float network is evaluated again when its row is an earlier
   run's). */
bnd_status bnd_run_measure_interval(bnd_quantize_run *r);
/* The hardware's operators in place, rules verified; frozen.txt. */
bnd_status bnd_run_finish_graph(bnd_quantize_run *r, bnd_graph *graph);
/* Files of a finished graph: two ONNX files, quantization.json, config.json. */
bnd_status bnd_run_write_files(bnd_quantize_run *r, const bnd_graph *graph);

#endif
