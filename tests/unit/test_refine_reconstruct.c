/* Blocks of a quantized network, and their reconstruction: what blocks compute, errors that fall, bytes that do not depend on threads or breaks. */
#include "refine_work.h"

#include "refine/blocks.h"
#include "refine/reconstruct.h"
#include "refine/reconstruct_samples.h"

/* --- blocks --- */

static int quantized_convolutions(const bnd_graph *graph) {
  int count = 0;
  for (const bnd_node *node = bnd_graph_first(graph); node; node = node->next) count += node->module && node->module->weight_quantizer;
  return count;
}

static void blocks_hold_every_convolution_once(void **state) {
  (void)state;
  bnd_graph *graph = mse_graph();
  for (int most = 1; most <= 20; most++) {
    bnd_block_list blocks;
    int sum = 0, largest = 0;
    ASSERT_OK(bnd_blocks_find(graph, most, &blocks, error));
    for (size_t b = 0; b < blocks.count; b++) {
      sum += blocks.items[b].convolutions;
      largest = blocks.items[b].convolutions > largest ? blocks.items[b].convolutions : largest;
      assert_true(blocks.items[b].input_count > 0 && blocks.items[b].output_count > 0);
      for (int i = 0; i < blocks.items[b].input_count; i++) assert_true(bnd_is_fake_quantize(blocks.items[b].inputs[i]));
    }
    assert_int_equal(sum, quantized_convolutions(graph));
    assert_true(largest <= most);
    if (most == 20) assert_int_equal(blocks.count, 1);
    bnd_blocks_free(&blocks);
  }
  bnd_graph_destroy(graph);
}

static void nothing_quantized_gives_no_blocks(void **state) {
  (void)state;
  bnd_graph *graph = plain_graph();
  bnd_block_list blocks;
  ASSERT_OK(bnd_blocks_find(graph, 4, &blocks, error));
  assert_int_equal(blocks.count, 0);
  bnd_blocks_free(&blocks);
  bnd_graph_destroy(graph);
}

/* What block b computes from the values the network in front of it gives must be what the network computes at the block's end. */
static void check_block(const workshop *w, const bnd_block *block) {
  bnd_refinement work = w->work;
  work.teacher = w->graph; /* so that targets are values of the same graph, in float */
  bnd_samples samples;
  ASSERT_OK(bnd_samples_collect(&work, block, &w->images, 3, &samples, error));
  bnd_graph *graph;
  ASSERT_OK(bnd_block_graph(w->graph, block->inputs, block->input_count, block->outputs, block->output_count, &graph, error));
  ASSERT_OK(bnd_graph_verify(graph, error));
  /* in float the inputs are those of the float network */
  bnd_samples exact;
  bnd_block inputs = *block;
  inputs.outputs = block->inputs;
  inputs.output_count = block->input_count;
  ASSERT_OK(bnd_samples_collect(&work, &inputs, &w->images, 3, &exact, error));
  runner r = open_runner(graph, BND_EXEC_FLOAT);
  for (size_t image = 0; image < 3; image++) {
    const float *values[8];
    assert_true(block->input_count <= 8);
    for (int i = 0; i < block->input_count && i < 8; i++) values[i] = bnd_samples_target(&exact, i, image);
    run_with(&r, values);
    for (int o = 0; o < block->output_count; o++)
      assert_memory_equal(bnd_session_output(r.session, o), bnd_samples_target(&samples, o, image), samples.targets[o].size * sizeof(float));
  }
  close_runner(&r);
  bnd_samples_free(&exact);
  bnd_samples_free(&samples);
  bnd_graph_destroy(graph);
}

static void a_block_computes_what_the_network_does_there(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, 2);
  for (int most = 1; most <= 4; most++) {
    bnd_block_list blocks;
    ASSERT_OK(bnd_blocks_find(w->graph, most, &blocks, error));
    bool several = false;
    for (size_t b = 0; b < blocks.count; b++) {
      check_block(w, &blocks.items[b]);
      several |= blocks.items[b].input_count > 1;
    }
    if (most == 1) assert_true(several);
    bnd_blocks_free(&blocks);
  }
  close_workshop(w);
}

/* Bytes hold a quantized network's values exactly. */
static void inputs_kept_as_bytes_are_exact(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_REFERENCE, 1);
  bnd_block_list blocks;
  ASSERT_OK(bnd_blocks_find(w->graph, 2, &blocks, error));
  const bnd_block *block = &blocks.items[blocks.count - 1];
  bnd_samples samples;
  ASSERT_OK(bnd_samples_collect(&w->work, block, &w->images, 2, &samples, error));
  bnd_node *image = bnd_graph_first(w->graph);
  while (image->kind != BND_PLACEHOLDER) image = image->next;
  bnd_graph *graph;
  ASSERT_OK(bnd_block_graph(w->graph, &image, 1, block->inputs, block->input_count, &graph, error));
  runner r = open_runner(graph, BND_EXEC_FAKE_QUANTIZE);
  run_with(&r, (const float *const[]){w->values[1]});
  for (int i = 0; i < block->input_count; i++) {
    assert_non_null(samples.inputs[i].bytes);
    float *plain = malloc(samples.inputs[i].size * sizeof *plain);
    bnd_samples_input(&samples, i, 1, plain);
    const float *expected = bnd_session_output(r.session, i);
    for (size_t k = 0; k < samples.inputs[i].size; k++) assert_true(plain[k] == expected[k]);
    free(plain);
  }
  close_runner(&r);
  bnd_graph_destroy(graph);
  bnd_samples_free(&samples);
  bnd_blocks_free(&blocks);
  close_workshop(w);
}

/* --- gradients --- */

static void gradients_of(bnd_graph *graph, float *const *images, int batch, int threads, double **sums, size_t *counts, size_t *count) {
  const bnd_network_options options = {
      .batch = batch, .threads = threads, .quantize = true, .backend = BND_BACKEND_ONEDNN, .gradient_outputs = &(int){0}, .gradient_output_count = 1};
  bnd_network *network;
  ASSERT_OK(bnd_network_create(graph, &options, &network, error));
  const bnd_parameter *p = bnd_network_parameters(network, count);
  assert_true(*count <= 32);
  for (size_t i = 0; i < *count; i++) {
    counts[i] = p[i].count;
    if (!sums[i]) sums[i] = calloc(p[i].count, sizeof *sums[i]);
  }
  ASSERT_OK(bnd_network_forward(network, (const float *const *)images, NULL, NULL, error));
  for (int image = 0; image < batch; image++)
    for (size_t k = 0; k < output_size(network, 0); k++) bnd_network_output_gradient(network, 0, image)[k] = bnd_network_output(network, 0, image)[k];
  ASSERT_OK(bnd_network_backward(network, NULL, NULL, error));
  for (size_t i = 0; i < *count; i++)
    for (size_t k = 0; k < p[i].count; k++) sums[i][k] += (double)p[i].gradient[k];
  bnd_network_destroy(network);
}

/* Images have nothing in common in evaluation mode, so gradients of a batch are the sum of those of its images: none is made from the memory of another
   image, where a quantized alpha may be overwritten already. */
static void a_batch_is_the_sum_of_its_images(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 1);
  bnd_block_list blocks;
  ASSERT_OK(bnd_blocks_find(w->graph, 3, &blocks, error));
  bnd_block *block = &blocks.items[0];
  bnd_node *image = bnd_graph_first(w->graph);
  while (image->kind != BND_PLACEHOLDER) image = image->next;
  bnd_graph *graph;
  ASSERT_OK(bnd_block_graph(w->graph, &image, 1, block->outputs + block->output_count - 1, 1, &graph, error));
  double *whole[32] = {NULL}, *single[32] = {NULL};
  size_t counts[32], count;
  gradients_of(graph, w->values, 3, 2, whole, counts, &count);
  for (int i = 0; i < 3; i++) gradients_of(graph, w->values + i, 1, 1, single, counts, &count);
  for (size_t i = 0; i < count; i++) {
    double most = 0, off = 0;
    for (size_t k = 0; k < counts[i]; k++) {
      most = fmax(most, fabs(single[i][k]));
      off = fmax(off, fabs(single[i][k] - whole[i][k]));
    }
    if (!(off <= 1e-4 * most)) fail_msg("parameter %zu: off by %g, largest %g", i, off, most);
    free(whole[i]);
    free(single[i]);
  }
  bnd_graph_destroy(graph);
  bnd_blocks_free(&blocks);
  close_workshop(w);
}

/* --- reconstruction --- */

static const bnd_reconstruct_options SHORT = {.most_convolutions = 3, .steps = 60, .batch = 3, .learning_rate = 0.1};

static bnd_status reconstruct_shortly(bnd_refinement *work, bnd_string *report, bnd_error *error) {
  return bnd_refine_reconstruct(work, &SHORT, report, error);
}

static record reconstructed(const bnd_reconstruct_options *options, double *before, double *after) {
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 2);
  bnd_string report = {0};
  if (before) *before = relative_error(w);
  ASSERT_OK(bnd_refine_reconstruct(&w->work, options, &report, error));
  if (after) *after = relative_error(w);
  assert_true(report.length > 0);
  bnd_string_free(&report);
  const record r = trained_bytes(w->graph);
  close_workshop(w);
  return r;
}

static void the_error_on_images_held_out_falls(void **state) {
  (void)state;
  double before, after;
  free(reconstructed(&SHORT, &before, &after).bytes);
  if (!(after < 0.9 * before)) fail_msg("relative error %g, before %g", after, before);
  bnd_reconstruct_options learned = SHORT;
  learned.learn_thresholds = true;
  free(reconstructed(&learned, &before, &after).bytes);
  if (!(after < before)) fail_msg("with thresholds: relative error %g, before %g", after, before);
}

static void any_number_of_threads_gives_the_same_bytes(void **state) {
  (void)state;
  check_threads(open_workshop, BND_BACKEND_ONEDNN, reconstruct_shortly);
}

static void the_teacher_stays_as_it_was(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 2);
  const record before = trained_bytes(w->teacher);
  bnd_string report = {0};
  ASSERT_OK(bnd_refine_reconstruct(&w->work, &SHORT, &report, error));
  const record student = trained_bytes(w->graph);
  assert_memory_not_equal(student.bytes, before.bytes, before.count);
  free(student.bytes);
  assert_same(before, trained_bytes(w->teacher));
  bnd_string_free(&report);
  close_workshop(w);
}

typedef struct break_after {
  size_t blocks;
  bnd_graph *saved;
} break_after;

static bnd_status save_and_break(void *user, size_t done, size_t count, const bnd_graph *graph, bnd_error *problem) {
  break_after *b = user;
  assert_true(done <= count);
  if (done < b->blocks) return BND_OK;
  ASSERT_OK(bnd_graph_copy(graph, &b->saved, error));
  return bnd_fail(problem, BND_ERROR_INTERRUPTED, "enough");
}

static void an_interrupted_run_ends_with_the_same_bytes(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 2);
  break_after b = {.blocks = 2};
  bnd_reconstruct_options options = SHORT;
  options.finished = save_and_break;
  options.user = &b;
  bnd_string report = {0};
  bnd_error problem = {0};
  assert_int_equal(bnd_refine_reconstruct(&w->work, &options, &report, &problem), BND_ERROR_INTERRUPTED);
  assert_string_equal(problem.message, "enough");
  assert_non_null(b.saved);
  w->work.graph = b.saved;
  options.finished = NULL;
  options.first_block = 2;
  ASSERT_OK(bnd_refine_reconstruct(&w->work, &options, &report, error));
  assert_same(trained_bytes(b.saved), reconstructed(&SHORT, NULL, NULL));
  bnd_graph_destroy(b.saved);
  bnd_string_free(&report);
  close_workshop(w);
}

static void cancelling_ends_soon_without_a_leak(void **state) {
  (void)state;
  check_cancelling(BND_BACKEND_ONEDNN, reconstruct_shortly, 200, 37);
}

static int images_of_first_block(size_t memory) {
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 1);
  bnd_reconstruct_options options = SHORT;
  options.memory = memory;
  options.steps = 6;
  bnd_string report = {0};
  ASSERT_OK(bnd_refine_reconstruct(&w->work, &options, &report, error));
  const char *images = strstr(report.text, " images");
  assert_non_null(images);
  while (images[-1] != ' ') images--; /* the number in front of it */
  const int count = atoi(images);
  bnd_string_free(&report);
  close_workshop(w);
  return count;
}

static void little_memory_means_fewer_images(void **state) {
  (void)state;
  assert_int_equal(images_of_first_block(0), 10);
  const int some = images_of_first_block(40 << 10);
  assert_true(some > 1 && some < 10);
  assert_int_equal(images_of_first_block(1), 1);
}

static void without_images_held_out_some_are_set_aside(void **state) {
  (void)state;
  workshop *w = open_workshop(BND_BACKEND_ONEDNN, 1);
  w->held_out.count = 0;
  bnd_string report = {0};
  ASSERT_OK(bnd_refine_reconstruct(&w->work, &SHORT, &report, error));
  assert_non_null(strstr(report.text, " 8 images"));
  w->images.count = 0;
  bnd_error problem = {0};
  assert_int_equal(bnd_refine_reconstruct(&w->work, &SHORT, &report, &problem), BND_ERROR_ARGUMENT);
  bnd_string_free(&report);
  close_workshop(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(blocks_hold_every_convolution_once),
      cmocka_unit_test(nothing_quantized_gives_no_blocks),
      cmocka_unit_test(a_block_computes_what_the_network_does_there),
      cmocka_unit_test(inputs_kept_as_bytes_are_exact),
      cmocka_unit_test(a_batch_is_the_sum_of_its_images),
      cmocka_unit_test(the_error_on_images_held_out_falls),
      cmocka_unit_test(any_number_of_threads_gives_the_same_bytes),
      cmocka_unit_test(the_teacher_stays_as_it_was),
      cmocka_unit_test(an_interrupted_run_ends_with_the_same_bytes),
      cmocka_unit_test(cancelling_ends_soon_without_a_leak),
      cmocka_unit_test(little_memory_means_fewer_images),
      cmocka_unit_test(without_images_held_out_some_are_set_aside),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
