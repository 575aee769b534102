/* The recipe best: scope from the graph, all calibration images together, steps under guard, the target's rules to a fixed point. docs/best.md. */
#include "flow/best_budget.h"
#include "flow/best_parts.h"
#include "flow/best_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/near.h"
#include "ops/operators.h"
#include "passes/best/best.h"
#include "passes/quark/quark.h"
#include "refine/bias_correction.h"
#include "refine/distill.h"
#include "refine/equalize.h"
#include "refine/exponent_search.h"
#include "refine/fold_constants.h"
#include "refine/guard.h"
#include "refine/reconstruct.h"
#include "refine/sensitivity.h"
#include "refine/steps.h"

enum { DEFAULT_IMAGES = 100, HELD_OUT_IMAGES = 32 };

bool bnd_recipe_is_best(const bnd_quantize_options *options) { return !options->recipe || strcmp(options->recipe, "best") == 0; }

/* --- options --- */

/* Steps that change the graph come before calibration; `run` is NULL for them. */
typedef enum graph_step { HEAD, FOLD, GRAPH_STEPS } graph_step;

/* Off: what was not seen to raise mAP behind the steps before it (docs/best.md). */
static const bnd_step_name NAMES[] = {
    {"head", "what stands behind the last learned layers stays in float", true},
    {"fold", "factors folded into layers, what changes nothing removed", true},
    {"equalize", "channels that one scale serves badly made alike, exactly, from layer to layer", true},
    {"exponents", "exponents by the error they cause behind the next layer", false},
    {"bias-analytic", "biases take back what rounding the weights adds to the mean", true},
    {"bias", "biases take back whatever moved the mean, measured layer after layer", false},
    {"search", "the exponents that matter most tried one by one on the whole network", false},
    {"reconstruct", "weights and biases of one block after the other trained to compute what the float block computes", false},
    {"distill", "the whole network trained without labels until it answers as the float one does", false},
};
/* What steps with a state of their own find in bnd_refinement.user. */
typedef struct progress {
  bnd_quantize_run *run;
  bnd_best_state state;
  bnd_budget budget;
  size_t left_out; /* steps, by the budget */
} progress;

static const char STATE[] = ".binade-best.pth", TWIN[] = ".binade-best-twin.pth", BLOCKS[] = ".binade-best-blocks.pth";

static bnd_status empirical_bias(bnd_refinement *work, bnd_string *report, bnd_error *error) { return bnd_refine_bias_empirical(work, NULL, report, error); }

static bnd_status block_finished(void *user, size_t done, size_t count, const bnd_graph *graph, bnd_error *error) {
  progress *p = user;
  p->state.blocks = done;
  (void)error;
  return done < count ? bnd_best_save(p->run, BLOCKS, graph, &p->state) : BND_OK;
}

/* Under a budget the blocks share the time by what they cost, found before any block has changed. */
static bnd_status reconstruct(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  progress *p = work->user;
  bnd_best_state saved;
  bool found;
  double *harm = NULL;
  if (work->minutes > 0) BND_TRY(bnd_reconstruct_harm(work, NULL, &harm, error));
  work->minutes = bnd_budget_step_minutes(&p->budget);
  bnd_status status = bnd_best_load(p->run, BLOCKS, work->graph, &saved, &found);
  p->state.blocks = found ? saved.blocks : 0;
  const bnd_reconstruct_options options = {.first_block = p->state.blocks, .harm = harm, .finished = block_finished, .user = p};
  if (status == BND_OK) status = bnd_refine_reconstruct(work, &options, report, error);
  free(harm);
  if (bnd_budget_ended(&p->budget, status) && p->state.blocks > 0) {
    bnd_string_format(report, "ended by the budget behind %zu blocks\n", p->state.blocks);
    status = BND_OK;
  }
  p->state.blocks = 0;
  return status;
}

/* Raw outputs stand behind boxes and scores, where the graph has them. */
static bnd_status distill(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  progress *p = work->user;
  const bool raw = bnd_graph_last(work->graph)->args[0].list.count > 3;
  const bnd_image_source images = bnd_dataset_part_source(&p->run->unlabelled), *calibration = work->images;
  work->images = &images;
  const bnd_distill_options options = {.class_output = raw ? 2 : 0, .box_output = raw ? 3 : 0, .learn_thresholds = true};
  const bnd_status status = bnd_refine_distill(work, &options, report, error);
  work->images = calibration;
  return status;
}

static bnd_refine_step *const STEPS[] = {NULL, NULL, bnd_refine_equalize, bnd_refine_exponents, bnd_refine_bias_analytic, empirical_bias, bnd_refine_exponent_search, reconstruct, distill};
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
  const bool asked = o->qat && strcmp(NAMES[step].name, "distill") == 0;
  const bool on = asked || (o->step_count ? listed(NAMES[step].name, o->steps, o->step_count) : NAMES[step].by_default);
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
  if (o->qat && (o->qat_split || o->qat_images || o->qat_share > 0 || o->qat_epochs || o->qat_learning_rate > 0 || o->qat_thresholds || o->qat_batch || o->qat_schedule ||
                 o->qat_no_augmentation || o->qat_in_order || o->qat_freeze_batch_norm || o->qat_average || o->qat_final_ratio > 0 || o->qat_warmup_steps ||
                 o->qat_weight_decay != 0 || o->qat_threshold_rate > 0 || o->qat_save_minutes > 0))
    return bnd_fail(error, BND_ERROR_ARGUMENT, "the recipe best trains on its calibration images without labels; the options of QAT belong to --recipe quark");
  BND_TRY(check_names(o->steps, o->step_count, error));
  return check_names(o->without, o->without_count, error);
}

void bnd_best_fingerprint(const bnd_quantize_run *r, bnd_string *text) {
  if (!bnd_recipe_is_best(r->options)) return;
  bnd_string_format(text, "|best|%s|%zu|%zu|%zu|%zu|%g|%d|%llu", r->calibrate.dataset ? r->calibrate.dataset->coco.images_folder : "", r->calibrate.first,
                    r->calibrate.count, r->held_out.count, r->unlabelled.count, r->options->budget_minutes, r->options->evaluate_steps,
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
  r->held_out = (bnd_dataset_part){source, there - held_out, held_out};
  r->unlabelled = other ? (bnd_dataset_part){source, 0, there - held_out} : r->calibrate;
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

/* Raw outputs only where they are float: otherwise their quantizers would take part in rules. */
static bnd_status build_graph(bnd_quantize_run *r, bool cut, bool fold, bool print, bnd_graph **result) {
  bnd_graph *graph;
  int cuts = 0, folded = 0, unfolded = 0, removed = 0, constants = 0, centred = 0;
  BND_TRY(bnd_run_network(r, BND_YOLO_NAS_PARTIAL, cut, false, &graph));
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
  if (status == BND_OK && print) status = bnd_run_print_graph(r, graph, "captured.txt");
  if (status == BND_OK) status = bnd_quark_insert_quantizers(graph, &r->config, r->error);
  if (status == BND_OK) status = bnd_infer_shapes(graph, r->error);
  if (status == BND_OK) status = bnd_run_configure(r, graph);
  if (status == BND_OK && print) status = bnd_run_print_graph(r, graph, "quantized.txt");
  if (status == BND_OK && fold && print) bnd_run_note(r, BND_LOG_DEBUG, "fold: %d factors folded into layers, %d kept; %d values that no image changes; %d nodes that changed nothing removed%s",
                                        folded, unfolded, constants, removed, centred ? "; boxes around the middle of the image" : "");
  if (status == BND_OK) *result = graph;
  else bnd_graph_destroy(graph);
  return status;
}

static bnd_status calibrate_on(bnd_quantize_run *r, bnd_graph *graph, bnd_dataset_part *part) {
  const bnd_image_source source = bnd_dataset_part_source(part);
  const bnd_calibration calibration = {.batch = part->count, .backend = bnd_run_backend(r)};
  const bnd_status status = bnd_calibrate(graph, &source, &calibration, r->context, r->error);
  return status == BND_ERROR_MODEL ? bnd_fail_prefix(r->error, status, "%s", r->options->checkpoint) : status;
}

static bnd_status calibrate(bnd_quantize_run *r, bnd_graph *graph) {
  struct timespec begin;
  if (r->state.calibrated && bnd_run_state_restore_quantizers(&r->state, graph)) return BND_OK;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  BND_TRY(calibrate_on(r, graph, &r->calibrate));
  bnd_run_note(r, BND_LOG_DEBUG, "calibration: %.2f s", bnd_seconds_since(&begin));
  return bnd_run_state_save_quantizers(&r->state, graph, r->error);
}

/* --- what the scope is, and why --- */

/* Only the tail's quantizers of this part stay. */
static bnd_status keep_part(bnd_graph *graph, bnd_tail_part part, bnd_error *error) {
  bnd_tail_part *part_of;
  BND_TRY(bnd_find_tail(graph, &part_of, error));
  for (bnd_node *node = bnd_graph_first(graph), *next; node; node = next) {
    next = node->next;
    if (bnd_is_conv_module(node)) {
      bnd_quantizer **const quantizers[] = {&node->module->weight_quantizer, &node->module->bias_quantizer};
      for (int i = 0; i < 2; i++) {
        bnd_quantizer_destroy(*quantizers[i]);
        *quantizers[i] = NULL;
      }
    }
    if (!bnd_is_fake_quantize(node) || part_of[node->id] == part) continue;
    bnd_node_replace_all_uses(node, bnd_arg_node(node, 0), false);
    bnd_node_erase(node);
  }
  free(part_of);
  return bnd_graph_status(graph, error);
}

static bnd_status note_part(bnd_quantize_run *r, const bnd_refinement *work, bnd_tail_part part) {
  bnd_graph *copy;
  double distance;
  BND_TRY(bnd_graph_copy(work->graph, &copy, r->error));
  bnd_status status = keep_part(copy, part, r->error);
  if (status == BND_OK) status = bnd_refine_measure(work, copy, work->held_out, &distance, r->error);
  bnd_graph_destroy(copy);
  if (status == BND_OK)
    bnd_run_note(r, BND_LOG_DEBUG, "head: %s stays in float; quantized, it alone would be %.4f away from the float network (%s)", bnd_tail_part_name(part), distance,
                 bnd_tail_part_meaning(part));
  return status;
}

/* Says what the tail is and what its quantization would have cost, on a few images. */
static bnd_status explain_head(bnd_quantize_run *r, bool cut) {
  enum { IMAGES = 8 };
  if (!cut) {
    bnd_run_note(r, BND_LOG_DEBUG, "head: everything is quantized%s", r->target.float_tail ? "" : ": the target allows nothing else");
    return BND_OK;
  }
  bnd_dataset_part few = r->calibrate, some = r->held_out;
  few.count = least(few.count, IMAGES), some.count = least(some.count, IMAGES);
  const bnd_image_source held_out = bnd_dataset_part_source(&some);
  bnd_refinement work = {.held_out = &held_out, .images = &held_out, .target = &r->target, .backend = bnd_run_backend(r), .context = r->context};
  bnd_graph *network = NULL;
  bnd_reference *reference = NULL;
  BND_TRY(build_graph(r, false, false, false, &work.graph));
  bnd_status status = calibrate_on(r, work.graph, &few);
  if (status == BND_OK) status = bnd_run_network(r, BND_YOLO_NAS_FOLDED, false, false, &network);
  if (status == BND_OK) status = bnd_reference_create(network, &held_out, work.backend, r->context, &reference, r->error);
  work.reference = reference;
  for (int part = BND_TAIL_NONE + 1; status == BND_OK && part < BND_TAIL_PARTS; part++) status = note_part(r, &work, (bnd_tail_part)part);
  bnd_reference_destroy(reference);
  bnd_graph_destroy(network);
  bnd_graph_destroy(work.graph);
  return status;
}

/* --- steps --- */

static void keep_outcome(bnd_quantize_run *r, const bnd_step_outcome *o) {
  bnd_step_result *to = &r->result->steps[r->result->step_count++];
  *to = (bnd_step_result){.kept = o->kept, .before = o->before, .after = o->after, .seconds = o->seconds};
  snprintf(to->name, sizeof to->name, "%s", o->name);
}

static void note_outcome(bnd_quantize_run *r, const bnd_step_result *s, bool earlier) {
  bnd_run_note(r, s->kept || earlier ? BND_LOG_DEBUG : BND_LOG_INFO, "%s%s: distance %.5f -> %.5f in %.1f s; %s", s->name, earlier ? ", in an earlier run" : "", s->before,
               s->after, s->seconds, s->kept ? "kept" : "it does not help here and was taken back");
}

static void note_lines(bnd_quantize_run *r, const char *name, const bnd_string *report) {
  for (const char *at = report->text; at && *at;) {
    const size_t length = strcspn(at, "\n");
    bnd_run_note(r, BND_LOG_DEBUG, "%s: %.*s", name, (int)length, at);
    at += length + (at[length] == '\n');
  }
}

/* Equalization changes what single layers compute, not what the network computes: from then on the float twin of each layer is the equalized one. */
static bnd_status renew_teacher(bnd_quantize_run *r, bnd_refinement *work) {
  bnd_graph *teacher;
  BND_TRY(bnd_graph_copy(work->graph, &teacher, r->error));
  bnd_graph_destroy((bnd_graph *)work->teacher);
  work->teacher = teacher;
  return bnd_best_save(r, TWIN, teacher, &(bnd_best_state){0});
}

static bool step_was_kept(const bnd_quantize_run *r, bnd_refine_step *step) {
  for (int i = 0; i < r->result->step_count; i++)
    for (size_t k = 0; k < STEP_COUNT; k++)
      if (STEPS[k] == step && strcmp(r->result->steps[i].name, NAMES[k].name) == 0) return r->result->steps[i].kept;
  return false;
}

static bnd_status forget(bnd_quantize_run *r, const char *const *files, size_t count) {
  char path[4096];
  for (size_t i = 0; i < count; i++) {
    BND_TRY(bnd_run_path(r, files[i], path));
    remove(path);
  }
  return BND_OK;
}

/* Where an earlier run of the same command stopped. */
static bnd_status go_on(bnd_quantize_run *r, bnd_refinement *work, progress *p, bool *found) {
  bnd_quantize_result result;
  bnd_best_state state;
  bool twin = true;
  BND_TRY(bnd_best_load(r, STATE, work->graph, &p->state, found));
  result = *r->result;
  if (*found && step_was_kept(r, bnd_refine_equalize)) BND_TRY(bnd_best_load(r, TWIN, (bnd_graph *)work->teacher, &state, &twin));
  *r->result = result;
  return twin ? BND_OK : bnd_fail(r->error, BND_ERROR_FORMAT, "%s/%s: is missing or damaged, so the run cannot go on; --restart begins anew", r->options->output, TWIN);
}

/* The step at hand; the measurement behind it is not interrupted by the budget. */
static bnd_status run_in_budget(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  progress *p = work->user;
  work->context = bnd_budget_context(&p->budget);
  work->minutes = bnd_budget_step_minutes(&p->budget);
  const bnd_status status = STEPS[p->state.next_step](work, report, error);
  work->context = p->run->context;
  return status;
}

static bnd_status run_step(bnd_quantize_run *r, bnd_refinement *work, size_t step, progress *p) {
  const bnd_guarded_step guarded = {.name = NAMES[step].name, .run = run_in_budget};
  bnd_step_outcome outcome;
  bnd_string report = {0};
  const bnd_status status = bnd_guard_step(work, &guarded, &p->state.distance, &outcome, &report, r->error);
  note_lines(r, guarded.name, &report);
  bnd_string_free(&report);
  if (bnd_budget_ended(&p->budget, status)) {
    if (r->error) *r->error = (bnd_error){0};
    bnd_run_note(r, BND_LOG_INFO, "%s: left out, the budget was spent before it ended", guarded.name);
    p->left_out++;
    return BND_OK;
  }
  if (status != BND_OK) return status;
  keep_outcome(r, &outcome);
  if (outcome.kept && STEPS[step] == bnd_refine_equalize) BND_TRY(renew_teacher(r, work));
  if (r->options->evaluate_steps && outcome.kept && !bnd_run_has_stage(r, outcome.name))
    BND_TRY(bnd_run_measure(r, outcome.name, work->graph, BND_EXEC_FAKE_QUANTIZE));
  note_outcome(r, &r->result->steps[r->result->step_count - 1], false);
  return BND_OK;
}

/* What each tensor's quantization costs, of the finished network. */
static bnd_status write_sensitivity(bnd_quantize_run *r, const bnd_refinement *work) {
  bnd_sensitivity table;
  bnd_string text = {0}, json = {0};
  BND_TRY(bnd_sensitivity_measure(work, NULL, &table, r->error));
  bnd_sensitivity_print(&table, 0, &text);
  bnd_sensitivity_json(&table, &json);
  bnd_status status = bnd_run_write_text(r, "sensitivity.txt", &text);
  if (status == BND_OK) status = bnd_run_write_text(r, "sensitivity.json", &json);
  bnd_string_free(&text);
  bnd_string_free(&json);
  bnd_sensitivity_free(&table);
  return status;
}

static bnd_status run_steps(bnd_quantize_run *r, bnd_refinement *work, progress *p) {
  bool found;
  if (r->options->restart) BND_TRY(forget(r, (const char *const[]){STATE, TWIN, BLOCKS}, 3));
  BND_TRY(go_on(r, work, p, &found));
  for (int i = 0; i < r->result->step_count; i++) {
    note_outcome(r, &r->result->steps[i], true);
    p->budget.earlier += r->result->steps[i].seconds;
  }
  if (!found || p->budget.seconds > 0) {
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    BND_TRY(bnd_guard_measure(work, work->graph, &p->state.distance, r->error));
    p->budget.measurement = bnd_seconds_since(&begin);
    if (!found) bnd_run_note(r, BND_LOG_DEBUG, "calibrated: distance %.5f", p->state.distance);
  }
  for (size_t i = p->state.next_step; i < STEP_COUNT; i++) {
    p->state.next_step = i;
    if (!STEPS[i] || !wanted(r->options, i)) continue;
    if (bnd_budget_left(&p->budget) <= p->budget.measurement) {
      bnd_run_note(r, BND_LOG_INFO, "%s: left out, the budget is spent", NAMES[i].name);
      p->left_out++;
      continue;
    }
    BND_TRY(run_step(r, work, i, p));
    if (!p->left_out) BND_TRY(bnd_best_save(r, STATE, work->graph, &(bnd_best_state){.next_step = i + 1, .distance = p->state.distance}));
  }
  /* the same command given again does not take up what was left out: rows of the results are already measured */
  if (p->left_out) BND_TRY(bnd_best_save(r, STATE, work->graph, &(bnd_best_state){.next_step = STEP_COUNT, .distance = p->state.distance}));
  return forget(r, (const char *const[]){BLOCKS}, 1);
}

static bnd_status refine(bnd_quantize_run *r, bnd_graph **graph) {
  const bnd_image_source images = bnd_dataset_part_source(&r->calibrate), held_out = bnd_dataset_part_source(&r->held_out);
  bnd_graph *teacher = NULL, *network = NULL;
  bnd_reference *reference = NULL;
  progress p = {.run = r};
  bnd_budget_begin(&p.budget, r->options->budget_minutes, r->context);
  bnd_refinement work = {.graph = *graph, .images = &images, .held_out = &held_out, .target = &r->target, .backend = bnd_run_backend(r),
                         .seed = r->context ? r->context->seed : 0, .context = r->context, .user = &p};
  bnd_status status = bnd_graph_copy(*graph, &teacher, r->error);
  if (status == BND_OK) status = bnd_run_network(r, BND_YOLO_NAS_FOLDED, false, false, &network);
  if (status == BND_OK) status = bnd_reference_create(network, &held_out, work.backend, r->context, &reference, r->error);
  bnd_graph_destroy(network);
  work.teacher = teacher;
  work.reference = reference;
  if (status == BND_OK) status = run_steps(r, &work, &p);
  if (status == BND_OK) status = bnd_best_align(r, &work, bnd_budget_left(&p.budget) > 0);
  if (status == BND_OK && r->options->sensitivity) status = write_sensitivity(r, &work);
  bnd_reference_destroy(reference);
  bnd_graph_destroy((bnd_graph *)work.teacher);
  *graph = work.graph;
  return status;
}

bnd_status bnd_best_stages(bnd_quantize_run *r) {
  const bool cut = !is_full(r->options) && r->target.float_tail && wanted(r->options, HEAD);
  bnd_graph *graph;
  const bool ptq_done = bnd_run_has_stage(r, "ptq");
  if (!r->state.calibrated) BND_TRY(explain_head(r, cut));
  BND_TRY(build_graph(r, cut, wanted(r->options, FOLD), true, &graph));
  bnd_status status = calibrate(r, graph);
  if (status == BND_OK && !ptq_done) status = bnd_run_measure(r, "ptq", graph, BND_EXEC_FAKE_QUANTIZE);
  const bool aligned_done = bnd_run_has_stage(r, "aligned");
  if (status == BND_OK) status = refine(r, &graph);
  if (status == BND_OK) status = bnd_run_finish_graph(r, graph);
  if (status == BND_OK) status = bnd_run_write_files(r, graph);
  if (status == BND_OK && !aligned_done) status = bnd_run_measure(r, "aligned", graph, BND_EXEC_FAKE_QUANTIZE);
  if (status == BND_OK && !aligned_done) status = bnd_run_measure_interval(r);
  bnd_graph_destroy(graph);
  return status;
}
