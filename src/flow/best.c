/* The recipe best: scope from the graph, all calibration images together, steps under guard, the target's rules to a fixed point. docs/best.md. */
#include "flow/quantize.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/near.h"
#include "passes/best/best.h"
#include "passes/quark/quark.h"
#include "refine/bias_correction.h"
#include "refine/equalize.h"
#include "refine/fold_constants.h"
#include "refine/guard.h"
#include "refine/reconstruct.h"
#include "refine/steps.h"

enum { DEFAULT_IMAGES = 100, HELD_OUT_IMAGES = 32 };

bool bnd_recipe_is_best(const bnd_quantize_options *options) { return !options->recipe || strcmp(options->recipe, "best") == 0; }

/* --- options --- */

/* Steps that change the graph come before calibration; `run` is NULL for them. */
typedef enum graph_step { HEAD, FOLD, GRAPH_STEPS } graph_step;

static const bnd_step_name NAMES[] = {
    {"head", "what stands behind the last learned layers stays in float", true},
    {"fold", "factors folded into layers, what changes nothing removed", true},
    {"equalize", "channels that one scale serves badly made alike, exactly, from layer to layer", true},
    {"exponents", "exponents by the error they cause behind the next layer", true},
    {"bias-analytic", "biases take back what rounding the weights adds to the mean", true},
    {"bias", "biases take back whatever moved the mean, measured layer after layer", true},
    {"reconstruct", "weights and biases of one block after the other trained to compute what the float block computes", true},
};
static bnd_status empirical_bias(bnd_refinement *work, bnd_string *report, bnd_error *error) { return bnd_refine_bias_empirical(work, NULL, report, error); }
static bnd_status reconstruct(bnd_refinement *work, bnd_string *report, bnd_error *error) { return bnd_refine_reconstruct(work, NULL, report, error); }

static bnd_refine_step *const STEPS[] = {NULL, NULL, bnd_refine_equalize, bnd_refine_exponents, bnd_refine_bias_analytic, empirical_bias, reconstruct};
enum { STEP_COUNT = sizeof NAMES / sizeof *NAMES };
_Static_assert((size_t)STEP_COUNT == sizeof STEPS / sizeof *STEPS && (size_t)STEP_COUNT <= (size_t)BND_MAX_STEPS, "a function for each name, a place for each result");

const bnd_step_name *bnd_best_steps(size_t *count) {
  *count = STEP_COUNT;
  return NAMES;
}

static bool listed(const char *name, const char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(list[i], name) == 0) return true;
  return false;
}

static bool wanted(const bnd_quantize_options *o, size_t step) {
  const bool on = o->step_count ? listed(NAMES[step].name, o->steps, o->step_count) : NAMES[step].by_default;
  return on && !listed(NAMES[step].name, o->without, o->without_count);
}

static bnd_status check_names(const char *const *list, size_t count, bnd_error *error) {
  for (size_t i = 0; i < count; i++) {
    bnd_near_names names = {.wanted = list[i]};
    char text[256];
    bool known = false;
    for (size_t k = 0; k < STEP_COUNT; k++) {
      known |= strcmp(list[i], NAMES[k].name) == 0;
      bnd_near_offer(&names, NAMES[k].name);
    }
    if (!known) return bnd_fail(error, BND_ERROR_ARGUMENT, "no step is called \"%s\"; near names: %s", list[i], bnd_near_text(&names, text, sizeof text));
  }
  return BND_OK;
}

static bool is_full(const bnd_quantize_options *o) { return o->scope && strcmp(o->scope, "full") == 0; }

bnd_status bnd_best_check_options(const bnd_quantize_options *o, bnd_error *error) {
  const bool best = bnd_recipe_is_best(o), full = is_full(o), automatic = o->scope && strcmp(o->scope, "auto") == 0;
  if (!best && (full || automatic || o->step_count || o->without_count || o->budget_minutes > 0 || o->evaluate_steps || o->sensitivity || o->calibration_split))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "scopes auto and full, steps, budget, sensitivity and a calibration split belong to the recipe best, not to %s", o->recipe);
  if (!best) return BND_OK;
  if (o->scope && !full && !automatic)
    return bnd_fail(error, BND_ERROR_ARGUMENT, "the recipe best has the scopes auto and full, not \"%s\"; --recipe quark has others", o->scope);
  BND_TRY(check_names(o->steps, o->step_count, error));
  return check_names(o->without, o->without_count, error);
}

void bnd_best_fingerprint(const bnd_quantize_run *r, bnd_string *text) {
  if (!bnd_recipe_is_best(r->options)) return;
  bnd_string_format(text, "|best|%s|%zu|%zu|%zu|%g|%d|%llu", r->calibrate.dataset ? r->calibrate.dataset->coco.images_folder : "", r->calibrate.first,
                    r->calibrate.count, r->held_out.count, r->options->budget_minutes, r->options->evaluate_steps,
                    (unsigned long long)(r->context ? r->context->seed : 0));
  for (size_t i = 0; i < STEP_COUNT; i++) bnd_string_format(text, "|%d", wanted(r->options, i));
}

/* --- images --- */

/* Annotations of train2017 often come without its images. */
static bool has_images(const bnd_dataset *dataset) {
  char path[4096];
  return dataset->coco.annotated_count > 0 && bnd_coco_image_path(&dataset->coco, dataset->coco.annotated[0], path, sizeof path, NULL) == BND_OK &&
         access(path, R_OK) == 0;
}

static const char *evaluation_split(const bnd_quantize_options *o) { return o->split ? o->split : "val2017"; }

/* Whether r->calibration is another split. */
static bnd_status open_other_split(bnd_quantize_run *r, bool *found) {
  const bnd_quantize_options *o = r->options;
  const char *name = o->calibration_split ? o->calibration_split : "train2017";
  *found = false;
  if (strcmp(name, evaluation_split(o)) == 0) return BND_OK;
  const bnd_status status = bnd_dataset_open(r->model, o->data, name, o->size, 0, false, &r->calibration, o->calibration_split ? r->error : NULL);
  *found = status == BND_OK && (o->calibration_split || has_images(&r->calibration));
  if (status == BND_OK && !*found) bnd_dataset_close(&r->calibration);
  if (*found) snprintf(r->result->calibration_split, sizeof r->result->calibration_split, "%s", name);
  return o->calibration_split ? status : BND_OK;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

bnd_status bnd_best_choose_images(bnd_quantize_run *r) {
  const bnd_quantize_options *o = r->options;
  const size_t asked = o->calibration_images ? (size_t)o->calibration_images : DEFAULT_IMAGES;
  bool other;
  BND_TRY(open_other_split(r, &other));
  const bnd_dataset *source = other ? &r->calibration : &r->dataset;
  const size_t there = source->coco.annotated_count;
  /* from the same split: behind those evaluated, at most half of all */
  const size_t available = other ? there : o->no_evaluation ? there : there - least(r->dataset.count, there - there / 2);
  if (available < 2)
    return bnd_fail(r->error, BND_ERROR_ARGUMENT, "%s: too few images to calibrate on some and evaluate others; name a --calib-split", source->coco.file);
  const size_t held_out = least(HELD_OUT_IMAGES, (available + 3) / 4), count = least(asked, available - held_out);
  const size_t first = other ? 0 : there - count - held_out;
  if (!other && !o->no_evaluation) r->dataset.count = least(r->dataset.count, first);
  r->calibrate = (bnd_dataset_part){source, first, count};
  r->held_out = (bnd_dataset_part){source, first + count, held_out};
  r->calibration_images = count;
  r->batch = count;
  r->result->held_out_images = held_out;
  if (!other) {
    snprintf(r->result->calibration_split, sizeof r->result->calibration_split, "%s", evaluation_split(o));
    bnd_run_note(r, BND_LOG_INFO, "calibration: the last %zu images of %s, which are not evaluated", count + held_out, evaluation_split(o));
  } else {
    bnd_run_note(r, BND_LOG_DEBUG, "calibration: %zu images of %s, and %zu to measure steps with", count, r->result->calibration_split, held_out);
  }
  return BND_OK;
}

/* --- the graph --- */

/* Outputs that are not exported are not there: their quantizers would take part in rules. */
static bnd_status build_graph(bnd_quantize_run *r, bool cut, bool fold, bnd_graph **result) {
  bnd_graph *graph;
  int cuts = 0, folded = 0, unfolded = 0, removed = 0, constants = 0, centred = 0;
  BND_TRY(bnd_run_network(r, BND_YOLO_NAS_PARTIAL, false, false, &graph));
  bnd_status status = cut ? bnd_leave_tail_out(graph, &cuts, r->error) : BND_OK;
  if (status == BND_OK) status = bnd_quark_mark_scope(graph, r->error);
  if (status == BND_OK) status = bnd_quark_prepare_scope(graph, r->error);
  if (status == BND_OK) status = bnd_quark_merge_batch_norm(graph, r->error);
  if (status == BND_OK) status = bnd_clip_to_relu(graph, r->error);
  if (status == BND_OK && fold) status = bnd_fold_constants(graph, &constants, r->error);
  if (status == BND_OK && fold) status = bnd_remove_identities(graph, &removed, r->error);
  if (status == BND_OK && fold && !cut) status = bnd_centre_decode(graph, &centred, r->error);
  if (status == BND_OK && fold) status = bnd_fold_scalars(graph, &folded, &unfolded, r->error);
  if (status == BND_OK) status = bnd_infer_shapes(graph, r->error);
  if (status == BND_OK) status = bnd_run_print_graph(r, graph, "captured.txt");
  if (status == BND_OK) status = bnd_quark_insert_quantizers(graph, &r->config, r->error);
  if (status == BND_OK) status = bnd_infer_shapes(graph, r->error);
  if (status == BND_OK) status = bnd_run_configure(r, graph);
  if (status == BND_OK) status = bnd_run_print_graph(r, graph, "quantized.txt");
  if (status == BND_OK && fold) bnd_run_note(r, BND_LOG_DEBUG, "fold: %d factors folded into layers, %d kept; %d values that no image changes; %d nodes that changed nothing removed%s",
                                        folded, unfolded, constants, removed, centred ? "; boxes around the middle of the image" : "");
  if (status == BND_OK) *result = graph;
  else bnd_graph_destroy(graph);
  return status;
}

static bnd_status calibrate(bnd_quantize_run *r, bnd_graph *graph) {
  const bnd_image_source source = bnd_dataset_part_source(&r->calibrate);
  const bnd_calibration calibration = {.batch = r->calibrate.count, .backend = bnd_run_backend(r)};
  struct timespec begin;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  const bnd_status status = bnd_calibrate(graph, &source, &calibration, r->context, r->error);
  if (status == BND_ERROR_MODEL) bnd_fail_prefix(r->error, status, "%s", r->options->checkpoint);
  if (status == BND_OK) bnd_run_note(r, BND_LOG_DEBUG, "calibration: %.2f s", bnd_seconds_since(&begin));
  return status;
}

/* --- steps --- */

static void keep_outcome(bnd_quantize_run *r, const bnd_step_outcome *o) {
  bnd_step_result *to = &r->result->steps[r->result->step_count++];
  *to = (bnd_step_result){.kept = o->kept, .before = o->before, .after = o->after, .seconds = o->seconds};
  snprintf(to->name, sizeof to->name, "%s", o->name);
}

static void note_lines(bnd_quantize_run *r, const char *name, const bnd_string *report) {
  for (const char *at = report->text; at && *at;) {
    const size_t length = strcspn(at, "\n");
    bnd_run_note(r, BND_LOG_DEBUG, "%s: %.*s", name, (int)length, at);
    at += length + (at[length] == '\n');
  }
}

static bnd_status run_step(bnd_quantize_run *r, bnd_refinement *work, size_t step, double *distance) {
  const bnd_guarded_step guarded = {.name = NAMES[step].name, .run = STEPS[step]};
  bnd_step_outcome outcome;
  bnd_string report = {0};
  const bnd_status status = bnd_guard_step(work, &guarded, distance, &outcome, &report, r->error);
  note_lines(r, guarded.name, &report);
  bnd_string_free(&report);
  if (status != BND_OK) return status;
  keep_outcome(r, &outcome);
  if (r->options->evaluate_steps && outcome.kept && !bnd_run_has_stage(r, outcome.name))
    BND_TRY(bnd_run_measure(r, outcome.name, work->graph, BND_EXEC_FAKE_QUANTIZE));
  bnd_run_note(r, outcome.kept ? BND_LOG_DEBUG : BND_LOG_INFO, "%s: distance %.5f -> %.5f in %.1f s; %s", outcome.name, outcome.before, outcome.after,
               outcome.seconds, outcome.kept ? "kept" : "it does not help here and was taken back");
  return BND_OK;
}

static bnd_status run_steps(bnd_quantize_run *r, bnd_refinement *work) {
  double distance;
  BND_TRY(bnd_guard_measure(work, work->graph, &distance, r->error));
  bnd_run_note(r, BND_LOG_DEBUG, "calibrated: distance %.5f", distance);
  for (size_t i = 0; i < STEP_COUNT; i++)
    if (STEPS[i] && wanted(r->options, i)) BND_TRY(run_step(r, work, i, &distance));
  return BND_OK;
}

static bnd_status refine(bnd_quantize_run *r, bnd_graph **graph) {
  const bnd_image_source images = bnd_dataset_part_source(&r->calibrate), held_out = bnd_dataset_part_source(&r->held_out);
  bnd_graph *teacher = NULL, *network = NULL;
  bnd_reference *reference = NULL;
  bnd_refinement work = {.graph = *graph, .images = &images, .held_out = &held_out, .target = &r->target, .backend = bnd_run_backend(r),
                         .seed = r->context ? r->context->seed : 0, .context = r->context};
  bnd_status status = bnd_graph_copy(*graph, &teacher, r->error);
  if (status == BND_OK) status = bnd_run_network(r, BND_YOLO_NAS_FOLDED, false, false, &network);
  if (status == BND_OK) status = bnd_reference_create(network, &held_out, work.backend, r->context, &reference, r->error);
  bnd_graph_destroy(network);
  work.teacher = teacher;
  work.reference = reference;
  if (status == BND_OK) status = run_steps(r, &work);
  bnd_reference_destroy(reference);
  bnd_graph_destroy(teacher);
  *graph = work.graph;
  return status;
}

bnd_status bnd_best_stages(bnd_quantize_run *r) {
  const bool cut = !is_full(r->options) && r->target.float_tail && wanted(r->options, HEAD);
  bnd_graph *graph;
  const bool ptq_done = bnd_run_has_stage(r, "ptq");
  BND_TRY(build_graph(r, cut, wanted(r->options, FOLD), &graph));
  bnd_status status = calibrate(r, graph);
  if (status == BND_OK && !ptq_done) status = bnd_run_measure(r, "ptq", graph, BND_EXEC_FAKE_QUANTIZE);
  const bool aligned_done = bnd_run_has_stage(r, "aligned");
  if (status == BND_OK) status = refine(r, &graph);
  int sweeps = 0;
  if (status == BND_OK) status = bnd_adjust_to_fixed_point(graph, &r->target, &sweeps, r->error);
  if (status == BND_OK) status = bnd_run_finish_graph(r, graph);
  if (status == BND_OK) status = bnd_run_write_files(r, graph);
  if (status == BND_OK && !aligned_done) status = bnd_run_measure(r, "aligned", graph, BND_EXEC_FAKE_QUANTIZE);
  bnd_graph_destroy(graph);
  return status;
}
