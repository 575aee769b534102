/* Life intervals and addresses. */
#include <stdlib.h>

#include "exec/internal.h"
#include "exec/regions.h"

static bnd_status measure(bnd_executor *plan, bnd_error *error) {
  for (size_t v = 0; v < plan->value_count; v++) {
    bnd_plan_value *value = &plan->values[v];
    value->first = value->last = -1;
    if (value->constant.data) continue;
    size_t count = bnd_plan_value_count(value);
    if (value->storage == BND_STORED_BLOCKED) {
      bnd_layout padded = bnd_plan_layout(value);
      if (padded.channels && !bnd_size_multiply(count / padded.channels, bnd_layout_channels(&padded), &count)) count = SIZE_MAX;
    }
    if (!bnd_size_multiply(count, value->storage == BND_STORED_BYTES ? 1 : sizeof(float), &value->bytes) || value->bytes > SIZE_MAX / 2)
      return bnd_fail(error, BND_ERROR_MEMORY, "a value of the network is too large for memory");
  }
  return BND_OK;
}

static void touch(bnd_executor *plan, int value, int step) {
  if (value < 0) return;
  /* a value inside another keeps all of it alive */
  for (int v = value; v >= 0; v = plan->values[v].parent) {
    bnd_plan_value *part = &plan->values[v];
    if (part->first < 0 || step < part->first) part->first = step;
    if (step > part->last) part->last = step;
  }
}

static void find_lives(bnd_executor *plan) {
  for (size_t s = 0; s < plan->step_count; s++) {
    const bnd_step *step = &plan->steps[s];
    if (step->kind == BND_STEP_DEAD) continue;
    for (int i = 0; i < step->input_count; i++) touch(plan, step->inputs[i], (int)s);
    for (int i = 0; i < step->output_count; i++) touch(plan, step->outputs[i], (int)s);
    touch(plan, step->workspace, (int)s);
    if (step->convolution && bnd_onednn_convolution_scratch_bytes(step->convolution) > plan->scratch_bytes)
      plan->scratch_bytes = bnd_onednn_convolution_scratch_bytes(step->convolution);
  }
  for (size_t o = 0; o < plan->output_count; o++) touch(plan, plan->outputs[o], (int)plan->step_count);
}

bnd_status bnd_plan_assign_memory(bnd_executor *plan, bnd_error *error) {
  BND_TRY(measure(plan, error));
  find_lives(plan);
  bnd_region *regions = bnd_calloc(plan->value_count, sizeof *regions);
  if (!regions) return bnd_fail_memory(error, "the plan");
  size_t count = 0;
  for (size_t v = 0; v < plan->value_count; v++) {
    const bnd_plan_value *value = &plan->values[v];
    if (value->parent >= 0 || value->constant.data || value->placeholder >= 0 || value->first < 0) continue;
    regions[count++] = (bnd_region){.owner = (int)v, .bytes = value->bytes, .first = value->first, .last = value->last};
  }
  const bnd_status status = bnd_place_regions(regions, count, &plan->arena_bytes, error);
  for (size_t i = 0; i < count && status == BND_OK; i++) plan->values[regions[i].owner].address = regions[i].address;
  free(regions);
  return status;
}
