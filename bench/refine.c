/* What a step of the recipe `best` does to a network, without the recipe: calibration with MinMSE, the head's decode left in float, batch norm merged,
   the step, COCO AP behind it.
   usage: bench_refine CHECKPOINT DATA IMAGES [name=value ...]; IMAGES of train2017 calibrate, val2017 is scored. names: steps, rate, batch, blocks
   (convolutions in one), memory (MiB), thresholds (0/1), distill (steps), drate, dbatch, size, threads, held (images), eval (0/1) */

#include "bench.h"

#include "binade/binade.h"
#include "flow/dataset.h"
#include "flow/evaluation.h"
#include "flow/target_profile.h"
#include "passes/quark/quark.h"
#include "passes/stub.h"
#include "refine/reconstruct.h"
#include "refine/distill.h"

static int count;
static char **arguments;

static double option(const char *name, double otherwise) {
  for (int i = 4; i < count; i++)
    if (strncmp(arguments[i], name, strlen(name)) == 0 && arguments[i][strlen(name)] == '=') return atof(arguments[i] + strlen(name) + 1);
  return otherwise;
}

static void print_log(void *user, bnd_log_level level, const char *message) {
  (void)user, (void)level;
  fprintf(stderr, "%s\n", message);
}

static void put_stub(bnd_node *node, bnd_operator_id kind) {
  bnd_node_replace_all_uses(node, bnd_insert_stub(node, kind, NULL), true);
}

/* A dequantizing stub behind every convolution whose weights are called *_pred: what follows is decode. */
static void cut_head(bnd_graph *graph) {
  for (bnd_node *node = bnd_graph_first(graph); node; node = node->next) {
    const bnd_node *weight = bnd_node_is(node, BND_OP_CONV2D) ? bnd_arg_node(node, 1) : NULL;
    if (node->kind == BND_PLACEHOLDER) put_stub(node, BND_OP_QUANT_STUB);
    if (weight && strstr(weight->name, "_pred_weight")) put_stub(node, BND_OP_DEQUANT_STUB);
  }
}

typedef struct held {
  bnd_dataset *dataset;
  size_t first;
} held;

static bnd_status load_held(void *user, size_t index, float *input, bnd_error *e) {
  const held *h = user;
  return bnd_dataset_load(h->dataset, h->first + index, input, NULL, e);
}

static void score(const char *name, const bnd_graph *graph, bnd_exec_mode mode, bnd_dataset *dataset, const bnd_context *context, double begin) {
  if (option("eval", 1) == 0) return;
  const bnd_exec_options options = {.mode = mode, .backend = BND_BACKEND_ONEDNN, .threads = 1, .output_limit = 2};
  bnd_executor *executor;
  bnd_evaluation evaluation;
  const double spent = seconds() - begin;
  must(bnd_executor_create(graph, &options, &executor, error));
  must(bnd_evaluate_executor(executor, dataset, name, context, &evaluation, error));
  printf("%-12s sg %.4f %.4f coco %.4f  %.1f s\n", name, evaluation.map50, evaluation.map50_95, evaluation.coco[0], spent);
  fflush(stdout);
  bnd_evaluation_free(&evaluation);
  bnd_executor_destroy(executor);
}

int main(int argument_count, char **argument_list) {
  count = argument_count;
  arguments = argument_list;
  if (count < 4) return 2;
  const bnd_context context = {.threads = (int)option("threads", 2), .log = print_log};
  bnd_model *model;
  bnd_dataset train, val;
  const int size = (int)option("size", 640);
  const size_t images = (size_t)atoi(arguments[3]);
  must(bnd_model_open(arguments[1], &model, error));
  must(bnd_dataset_open(model, arguments[2], "train2017", size, 0, false, &train, error));
  must(bnd_dataset_open(model, arguments[2], "val2017", size, 0, false, &val, error));
  const bnd_yolo_nas_options form = {.form = BND_YOLO_NAS_PARTIAL, .height = size, .width = size, .raw_outputs = true};
  bnd_graph *graph, *teacher;
  must(bnd_model_graph(model, &form, &graph, error));
  cut_head(graph);
  const bnd_quantization_config config = bnd_quantization_config_xint8(BND_OBSERVER_POWER_OF_TWO_MIN_MSE);
  must(bnd_quark_mark_scope(graph, error));
  must(bnd_quark_prepare(graph, error));
  must(bnd_quark_insert_quantizers(graph, &config, error));
  must(bnd_infer_shapes(graph, error));
  must(bnd_quark_merge_batch_norm(graph, error));
  must(bnd_infer_shapes(graph, error));
  bnd_image_source source = bnd_dataset_source(&train, images), held_out = source;
  held h = {&train, images};
  held_out.user = &h;
  held_out.load = load_held;
  held_out.count = (size_t)option("held", 32);
  const double start = seconds();
  must(bnd_calibrate(graph, &source, &(bnd_calibration){.batch = 25}, &context, error));
  bnd_target_profile target;
  must(bnd_target_profile_load("amd-xint8", &target, error));
  must(bnd_clip_to_relu(graph, error));
  bnd_adjust_positions(graph, &target);
  printf("violations %d, %.1f s\n", bnd_check_positions(graph, &target, NULL, NULL), seconds() - start);
  must(bnd_graph_copy(graph, &teacher, error));
  bnd_refinement work = {.graph = graph,
                         .teacher = teacher,
                         .images = &source,
                         .held_out = &held_out,
                         .target = &target,
                         .backend = BND_BACKEND_ONEDNN,
                         .seed = (uint64_t)option("seed", 0),
                         .context = &context};
  if (option("base", 0)) score("fp32", teacher, BND_EXEC_FLOAT, &val, &context, seconds());
  if (option("base", 0)) score("ptq", graph, BND_EXEC_FAKE_QUANTIZE, &val, &context, start);
  bnd_string report = {0};
  const bnd_reconstruct_options reconstruct = {.steps = (int)option("steps", 0),
                                               .batch = (int)option("batch", 0),
                                               .learning_rate = option("rate", 0),
                                               .most_convolutions = (int)option("blocks", 0),
                                               .memory = (size_t)option("memory", 0) << 20,
                                               .learn_thresholds = option("thresholds", 0) != 0,
                                               .threshold_rate = option("trate", 0)};
  double begin = seconds();
  if (option("steps", 1)) {
    must(bnd_refine_reconstruct(&work, &reconstruct, &report, error));
    fputs(report.text, stdout);
    score("reconstruct", graph, BND_EXEC_FAKE_QUANTIZE, &val, &context, begin);
  }
  report.length = 0;
  begin = seconds();
  const bnd_distill_options distill = {.steps = (int)option("distill", 0), .batch = (int)option("dbatch", 0), .learning_rate = option("drate", 0),
                                       .class_output = 2, .box_output = 3,
                                       .learn_thresholds = option("thresholds", 0) != 0, .threshold_rate = option("trate", 0),
                                       .box_weight = option("boxweight", 0)};
  if (option("distill", 1) > 0) {
    must(bnd_refine_distill(&work, &distill, &report, error));
    fputs(report.text, stdout);
    score("distill", graph, BND_EXEC_FAKE_QUANTIZE, &val, &context, begin);
  }
  printf("violations %d\n", bnd_check_positions(graph, &target, NULL, NULL));
  return 0;
}
