/* Passes: between two parts that wait for all images each image runs on its own, step after step while its values are warm. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/internal.h"
#include "base/clock.h"

float *bnd_network_data(const bnd_network *network, int index, int image) {
  const value *root = &network->values[bnd_network_root(network, index)];
  if (root->constant.data) return bnd_f32(&root->constant);
  if (root->placeholder >= 0) return (float *)network->images[image * network->placeholder_count + root->placeholder]; /* never written */
  return bnd_network_slot(network, root->data, image);
}

void *bnd_network_slot(const bnd_network *network, int index, int image) {
  return network->arena + (size_t)image * network->image_bytes + network->slots[index].address;
}

float *bnd_network_gradient(const bnd_network *network, int index, int image) {
  return bnd_network_slot(network, network->values[index].gradient, image);
}

float *bnd_network_buffer(const bnd_network *network, int worker, int buffer) {
  return network->buffers[worker * NETWORK_BUFFERS + buffer];
}

const float *bnd_network_saved(const bnd_network *network, int index, int image, int worker, int buffer) {
  const value *root = &network->values[bnd_network_root(network, index)];
  if (root->packed < 0) return bnd_network_data(network, index, image);
  float *unfolded = bnd_network_buffer(network, worker, buffer);
  const bnd_grid grid = bnd_grid_of(root->quantizer);
  bnd_loop_dequantize(bnd_network_slot(network, root->packed, image), &grid, unfolded, bnd_network_count(root));
  return unfolded;
}

typedef struct failure {
  int image; /* the first in order; -1 = none */
  bnd_status status;
  bnd_error error;
} failure;

static void keep_first(failure *first, int image, bnd_status status, const bnd_error *error) {
#pragma omp critical(bnd_network_failure)
  if (first->image < 0 || image < first->image) *first = (failure){image, status, *error};
}

static void run_image(bnd_network *network, size_t from, size_t to, int image, failure *first) {
  const int worker = omp_get_thread_num();
  bnd_error error = {0};
  for (size_t p = from; p < to; p++) {
    part *it = &network->parts[p];
    if (!it->run) continue;
    const double begin = network->timing ? bnd_clock_seconds(CLOCK_MONOTONIC) : 0;
    const bnd_status status = it->run(network, it, image, worker, &error);
    if (network->timing) {
      const double seconds = bnd_clock_seconds(CLOCK_MONOTONIC) - begin;
#pragma omp atomic
      it->seconds += seconds;
    }
    if (status != BND_OK) {
      keep_first(first, image, status, &error);
      return;
    }
  }
}

static bnd_status run_parts(bnd_network *network, size_t from, size_t to, bool (*stop)(void *user), void *user, bnd_error *error) {
  while (from < to) {
    size_t end = from;
    while (end + 1 < to && !network->parts[end].reduce) end++;
    if (stop && stop(user)) return bnd_fail(error, BND_ERROR_INTERRUPTED, "interrupted");
    failure first = {.image = -1};
#pragma omp parallel for schedule(dynamic, 1) num_threads(network->options.threads) if (network->options.threads > 1)
    for (int image = 0; image < network->options.batch; image++) run_image(network, from, end + 1, image, &first);
    if (first.image >= 0) {
      if (error) *error = first.error;
      return first.status;
    }
    part *last = &network->parts[end];
    const double begin = network->timing ? bnd_clock_seconds(CLOCK_MONOTONIC) : 0;
    if (last->reduce) BND_TRY(last->reduce(network, last, error));
    if (network->timing) last->seconds += bnd_clock_seconds(CLOCK_MONOTONIC) - begin;
    from = end + 1;
  }
  return BND_OK;
}

static bnd_status prepare(bnd_network *network, bnd_error *error) {
  failure first = {.image = -1};
#pragma omp parallel for schedule(dynamic, 1) num_threads(network->options.threads) if (network->options.threads > 1)
  for (size_t s = 0; s < network->step_count; s++) {
    const step_functions *functions = bnd_functions_of(network->steps[s].kind);
    bnd_error own = {0};
    const bnd_status status = functions->prepare ? functions->prepare(network, &network->steps[s], &own) : BND_OK;
    if (status != BND_OK) keep_first(&first, (int)s, status, &own);
  }
  if (first.image >= 0 && error) *error = first.error;
  return first.image >= 0 ? first.status : BND_OK;
}

/* Only batch statistics and observers look at values later on, and relu can hide what is not a number. */
static bnd_status check_images(const bnd_network *network, const float *const *images, bnd_error *error) {
  for (size_t v = 0; v < network->value_count; v++) {
    const value *input = &network->values[v];
    if (input->placeholder < 0) continue;
    const bnd_layout layout = bnd_network_layout(input);
    for (int image = 0; image < network->options.batch; image++) {
      float minimum, maximum;
      bnd_loop_min_max(images[image * network->placeholder_count + input->placeholder], &layout, &minimum, &maximum, network->options.threads);
      if (!isfinite(minimum) || !isfinite(maximum))
        return bnd_fail(error, BND_ERROR_MODEL, "%s: image %d of the batch has values that are not finite", input->name, image + 1);
    }
  }
  return BND_OK;
}

bnd_status bnd_network_forward(bnd_network *network, const float *const *images, bool (*stop)(void *user), void *user, bnd_error *error) {
  network->images = images;
  network->has_gradients = false;
  BND_TRY(check_images(network, images, error));
  BND_TRY(bnd_thresholds_prepare(network, error));
  BND_TRY(prepare(network, error));
  BND_TRY(run_parts(network, 0, network->forward_parts, stop, user, error));
  network->has_gradients = true;
  return BND_OK;
}

bnd_status bnd_network_backward(bnd_network *network, bool (*stop)(void *user), void *user, bnd_error *error) {
  if (!network->has_gradients) return bnd_fail(error, BND_ERROR_INTERNAL, "a backward pass needs a forward pass before it");
  network->has_gradients = false; /* values are overwritten on the way */
  for (size_t p = 0; p < network->parameter_count; p++) network->parameters[p].reached = false;
  return run_parts(network, network->forward_parts, network->part_count, stop, user, error);
}

void bnd_network_set_mode(bnd_network *network, bnd_network_mode mode) {
  network->mode = mode;
  for (size_t q = 0; q < network->quantizer_count; q++) bnd_quantizer_forget_votes(network->quantizers[q].quantizer);
}
