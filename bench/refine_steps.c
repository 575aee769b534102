/* What the steps of the recipe `best` do to a checkpoint, alone and together: mean average precision and distance from the float network.

   bench_refine_steps CHECKPOINT DATA [--images N] [--evaluate N] [--size S] [--threads N] [--min-max] [--fold] [--float] STEP[,STEP...] ...

   Each argument behind the options is a run of its own: the network is quantized with its tail left in float (factors folded with --fold), calibrated on N
   images of train2017, treated by the steps in order, put under the target's rules and evaluated on val2017. The distance is that over the 32 images behind
   those N. Steps: equalize (equalize1 and fit are its two parts), analytic, empirical, exponents, search, sensitivity, none; drop-X leaves out quantizers:
   w weights, b biases, a activations, p predictions. */

#include "bench.h"

#include "flow/evaluation.h"
#include "flow/target_profile.h"
#include "passes/best/best.h"
#include "passes/quark/quark.h"
#include "refine/bias_correction.h"
#include "refine/equalize.h"
#include "refine/exponent_search.h"
#include "refine/fit.h"
#include "refine/guard.h"
#include "refine/sensitivity.h"
#include "refine/steps.h"

typedef struct bench {
  bnd_model *model;
  bnd_dataset train, val;
  bnd_target_profile target;
  bnd_context context;
  bnd_image_source images, held_out;
  bnd_observer_kind observer;
  bool fold;
} bench;

/* Images `first` and up of a dataset. */
typedef struct part {
  const bnd_dataset *dataset;
  size_t first;
} part;

static bnd_status load(void *user, size_t index, float *input, bnd_error *failure) {
  const part *p = user;
  return bnd_dataset_load(p->dataset, p->first + index, input, NULL, failure);
}

static bnd_graph *quantized(bench *b) {
  const bnd_yolo_nas_options options = {.form = BND_YOLO_NAS_PARTIAL, .height = b->val.preprocessing.height, .width = b->val.preprocessing.width,
                                        .raw_outputs = false};
  const bnd_quantization_config config = bnd_quantization_config_xint8(b->observer);
  bnd_graph *graph;
  must(bnd_model_graph(b->model, &options, &graph, error));
  int count, other;
  must(bnd_leave_tail_out(graph, &count, error));
  must(bnd_quark_mark_scope(graph, error));
  must(bnd_quark_prepare_scope(graph, error));
  must(bnd_quark_merge_batch_norm(graph, error));
  must(bnd_clip_to_relu(graph, error));
  if (b->fold) {
    must(bnd_remove_identities(graph, &count, error));
    must(bnd_fold_scalars(graph, &count, &other, error));
  }
  must(bnd_infer_shapes(graph, error));
  must(bnd_quark_insert_quantizers(graph, &config, error));
  must(bnd_infer_shapes(graph, error));
  return graph;
}

static double evaluate(bench *b, const bnd_graph *graph, bnd_exec_mode mode) {
  const bnd_exec_options options = {.mode = mode, .backend = BND_BACKEND_ONEDNN, .threads = 1, .output_limit = 2};
  bnd_executor *executor;
  bnd_evaluation evaluation;
  must(bnd_executor_create(graph, &options, &executor, error));
  must(bnd_evaluate_executor(executor, &b->val, "evaluation", &b->context, &evaluation, error));
  bnd_executor_destroy(executor);
  const double map = evaluation.map50_95;
  bnd_evaluation_free(&evaluation);
  return map;
}

/* Leaves out the quantizers of weights (w), biases (b), activations (a), and those of the prediction layers' outputs (p). */
static void drop(bnd_graph *graph, const char *what) {
  for (bnd_node *node = bnd_graph_first(graph), *next; node; node = next) {
    next = node->next;
    if (bnd_is_conv_module(node) && strchr(what, 'w')) bnd_quantizer_destroy(node->module->weight_quantizer), node->module->weight_quantizer = NULL;
    if (bnd_is_conv_module(node) && strchr(what, 'b')) bnd_quantizer_destroy(node->module->bias_quantizer), node->module->bias_quantizer = NULL;
    if (bnd_is_fake_quantize(node) && (strchr(what, 'a') || (strchr(what, 'p') && node->user_count && bnd_node_is(node->users[0], BND_OP_DEQUANT_STUB)))) {
      bnd_node_replace_all_uses(node, bnd_arg_node(node, 0), false);
      bnd_node_erase(node);
    }
  }
}

static void step(bnd_refinement *work, const char *name) {
  bnd_string report = {0};
  const double begin = seconds();
  if (strcmp(name, "equalize") == 0) must(bnd_refine_equalize(work, &report, error));
  else if (strcmp(name, "equalize1") == 0) must(bnd_refine_equalize_with(work, &(bnd_equalize_options){0}, &report, error));
  else if (strcmp(name, "fit") == 0) must(bnd_refine_fit(work, &report, error));
  else if (strcmp(name, "analytic") == 0) must(bnd_refine_bias_analytic(work, &report, error));
  else if (strcmp(name, "empirical") == 0) must(bnd_refine_bias_empirical(work, NULL, &report, error));
  else if (strcmp(name, "search") == 0) must(bnd_refine_exponent_search(work, &report, error));
  else if (strncmp(name, "drop-", 5) == 0) drop(work->graph, name + 5);
  else if (strcmp(name, "adjust") == 0) bnd_adjust_positions(work->graph, work->target);
  else if (strcmp(name, "exponents") == 0) must(bnd_refine_exponents(work, &report, error));
  else if (strcmp(name, "sensitivity") == 0) {
    bnd_sensitivity table;
    must(bnd_sensitivity_measure(work, &(bnd_sensitivity_options){.images = 2, .no_biases = true}, &table, error));
    bnd_sensitivity_print(&table, 60, &report);
    bnd_sensitivity_free(&table);
  } else if (strcmp(name, "none") != 0) {
    fprintf(stderr, "bench_refine_steps: no step is called %s\n", name);
    exit(1);
  }
  if (strncmp(name, "equalize", 8) == 0 || strcmp(name, "fit") == 0) must(bnd_graph_copy(work->graph, (bnd_graph **)&work->teacher, error));
  printf("--- %s: %.1f s\n%s", name, seconds() - begin, report.text ? report.text : "");
  bnd_string_free(&report);
}

static void run(bench *b, const char *steps, const bnd_graph *calibrated, const bnd_reference *reference) {
  bnd_graph *graph, *teacher;
  must(bnd_graph_copy(calibrated, &graph, error));
  must(bnd_graph_copy(calibrated, &teacher, error));
  bnd_refinement work = {.graph = graph, .teacher = teacher, .images = &b->images, .held_out = &b->held_out, .target = &b->target,
                         .backend = BND_BACKEND_ONEDNN, .seed = 1, .context = &b->context, .reference = reference};
  char *copy = strdup(steps);
  for (char *rest = copy, *name; (name = strsep(&rest, ",")) != NULL;) step(&work, name);
  double distance;
  must(bnd_guard_measure(&work, graph, &distance, error));
  must(bnd_adjust_to_fixed_point(graph, &b->target, NULL, error));
  printf("%-50s AP %.4f  distance %.5f\n", steps, evaluate(b, graph, BND_EXEC_FAKE_QUANTIZE), distance);
  fflush(stdout);
  free(copy);
  bnd_graph_destroy(graph);
}

int main(int argc, char **argv) {
  bench b = {.context = {.threads = 2}, .observer = BND_OBSERVER_POWER_OF_TWO_MIN_MSE};
  size_t images = 100, evaluated = 0;
  int size = 0, at = 3;
  bool with_float = false;
  if (argc < 4) return fprintf(stderr, "bench_refine_steps CHECKPOINT DATA [options] STEPS...\n"), 2;
  for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
    const char *value = at + 1 < argc ? argv[at + 1] : "";
    if (strcmp(argv[at], "--min-max") == 0) b.observer = BND_OBSERVER_POWER_OF_TWO_MIN_MAX;
    else if (strcmp(argv[at], "--fold") == 0) b.fold = true;
    else if (strcmp(argv[at], "--float") == 0) with_float = true;
    else if (strcmp(argv[at], "--images") == 0) images = (size_t)atoi(value), at++;
    else if (strcmp(argv[at], "--evaluate") == 0) evaluated = (size_t)atoi(value), at++;
    else if (strcmp(argv[at], "--size") == 0) size = atoi(value), at++;
    else if (strcmp(argv[at], "--threads") == 0) b.context.threads = atoi(value), at++;
    else return fprintf(stderr, "bench_refine_steps: no option %s\n", argv[at]), 2;
  }
  must(bnd_model_open(argv[1], &b.model, error));
  must(bnd_dataset_open(b.model, argv[2], "train2017", size, 0, false, &b.train, error));
  must(bnd_dataset_open(b.model, argv[2], "val2017", size, evaluated, true, &b.val, error));
  must(bnd_target_profile_load(NULL, &b.target, error));
  part held_out = {&b.train, images};
  b.images = bnd_dataset_source(&b.train, images);
  b.held_out = b.images;
  b.held_out.user = &held_out;
  b.held_out.count = 32;
  b.held_out.load = load;
  bnd_graph *graph = quantized(&b);
  const bnd_calibration calibration = {.batch = images, .backend = BND_BACKEND_ONEDNN};
  double begin = seconds();
  must(bnd_calibrate(graph, &b.images, &calibration, &b.context, error));
  printf("calibration %.1f s\n", seconds() - begin);
  if (with_float) printf("float AP %.4f\n", evaluate(&b, graph, BND_EXEC_FLOAT));
  bnd_reference *reference;
  must(bnd_reference_create(graph, &b.held_out, BND_BACKEND_ONEDNN, &b.context, &reference, error));
  for (; at < argc; at++) run(&b, argv[at], graph, reference);
  bnd_reference_destroy(reference);
  bnd_graph_destroy(graph);
  bnd_dataset_close(&b.train);
  bnd_dataset_close(&b.val);
  bnd_model_close(b.model);
  return 0;
}
