/* Life intervals and addresses. Memory is handed out to the largest first, each at the lowest address where nothing that lives at the same time lies.
 */
#include <stdlib.h>

#include "exec/internal.h"

enum { ALIGNMENT = 64 };

typedef struct region {
  int value;
  size_t bytes;
  int first, last;
  size_t address;
} region;

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

static int larger_first(const void *a, const void *b) {
  const region *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  return x->value < y->value ? -1 : x->value > y->value;
}

static int lower_first(const void *a, const void *b) {
  const region *x = *(region *const *)a, *y = *(region *const *)b;
  return x->address < y->address ? -1 : x->address > y->address;
}

/* The lowest gap among the `count` regions (any order) that live at the same time as `r`; `overlapping` has room for them. */
static size_t lowest_gap(region *regions, size_t count, const region *r, region **overlapping) {
  size_t n = 0, address = 0;
  for (size_t i = 0; i < count; i++)
    if (regions[i].first <= r->last && r->first <= regions[i].last) overlapping[n++] = &regions[i];
  qsort(overlapping, n, sizeof *overlapping, lower_first);
  for (size_t i = 0; i < n; i++) {
    if (overlapping[i]->address >= address + r->bytes) break;
    const size_t end = overlapping[i]->address + overlapping[i]->bytes;
    if (end > address) address = end;
  }
  return address;
}

bnd_status bnd_plan_assign_memory(bnd_executor *plan, bnd_error *error) {
  BND_TRY(measure(plan, error));
  find_lives(plan);
  region *regions = bnd_calloc(plan->value_count, sizeof *regions), **overlapping = bnd_calloc(plan->value_count, sizeof *overlapping);
  bnd_status status = regions && overlapping ? BND_OK : bnd_fail_memory(error, "the plan");
  size_t count = 0;
  for (size_t v = 0; v < plan->value_count && status == BND_OK; v++) {
    const bnd_plan_value *value = &plan->values[v];
    if (value->parent >= 0 || value->constant.data || value->placeholder >= 0 || value->first < 0) continue;
    regions[count++] = (region){(int)v, (value->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, value->first, value->last, 0};
  }
  if (status == BND_OK) qsort(regions, count, sizeof *regions, larger_first);
  for (size_t i = 0; i < count && status == BND_OK; i++) {
    regions[i].address = lowest_gap(regions, i, &regions[i], overlapping);
    plan->values[regions[i].value].address = regions[i].address;
    size_t end;
    if (!bnd_size_add(regions[i].address, regions[i].bytes, &end)) status = bnd_fail_memory(error, "activations");
    else if (end > plan->arena_bytes) plan->arena_bytes = end;
  }
  free(regions);
  free(overlapping);
  return status;
}
