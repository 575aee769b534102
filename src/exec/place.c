/* Values that share memory: parts of a concatenation are written where they end up, and steps that work value by value write over an input nobody
   reads any more. */
#include "exec/internal.h"

static void update_last(bnd_executor *plan) {
  for (size_t v = 0; v < plan->value_count; v++) plan->values[v].last = -1;
  for (size_t s = 0; s < plan->step_count; s++)
    for (int i = 0; i < plan->steps[s].input_count; i++)
      if (plan->steps[s].inputs[i] >= 0) plan->values[plan->steps[s].inputs[i]].last = (int)s;
  for (size_t o = 0; o < plan->output_count; o++) plan->values[plan->outputs[o]].last = (int)plan->step_count;
}

static bool may_move(const bnd_executor *plan, int value) {
  const bnd_plan_value *v = &plan->values[value];
  return v->parent < 0 && v->placeholder < 0 && !v->constant.data;
}

static void place_concat(bnd_executor *plan, bnd_step *step) {
  const int out = step->outputs[0];
  if (plan->values[out].storage == BND_STORED_BYTES) return; /* parts of pixels are not in one piece */
  const bnd_layout layout = bnd_plan_layout(&plan->values[out]);
  const size_t pixels = layout.height * layout.width;
  size_t first = 0;
  for (int i = 0; i < step->input_count; i++) {
    bnd_plan_value *part = &plan->values[step->inputs[i]];
    const size_t channels = (size_t)part->shape.size[1];
    bool whole = part->storage == plan->values[out].storage && first % layout.block == 0 && (channels % layout.block == 0 || i == step->input_count - 1);
    if (whole && layout.images == 1 && step->inputs[i] != out && may_move(plan, step->inputs[i])) {
      part->parent = out;
      part->offset = first * pixels * sizeof(float);
    }
    first += channels;
  }
}

/* The last reader of anything that lives in the root's memory. */
static int last_of_root(const bnd_executor *plan, int root) {
  int last = -1;
  for (size_t v = 0; v < plan->value_count; v++)
    if (plan->values[v].last > last && bnd_plan_root(plan, (int)v, NULL) == root) last = plan->values[v].last;
  return last;
}

static void place_over_input(bnd_executor *plan, size_t index) {
  const bnd_step *step = &plan->steps[index];
  const int out = step->outputs[0];
  for (int i = step->input_count - 1; i >= 0; i--) {
    size_t offset;
    const int root = bnd_plan_root(plan, step->inputs[i], &offset);
    const bnd_plan_value *input = &plan->values[root];
    if (root == bnd_plan_root(plan, out, NULL) || offset != 0 || !may_move(plan, root)) continue;
    if (input->storage != plan->values[out].storage || bnd_plan_value_count(input) != bnd_plan_value_count(&plan->values[out])) continue;
    if (last_of_root(plan, root) > (int)index) continue;
    plan->values[root].parent = out;
    plan->values[root].offset = 0;
    return;
  }
}

void bnd_plan_place(bnd_executor *plan) {
  update_last(plan);
  for (size_t s = 0; s < plan->step_count; s++)
    if (plan->steps[s].kind == BND_STEP_CONCAT) place_concat(plan, &plan->steps[s]);
  for (size_t s = 0; s < plan->step_count; s++)
    if (plan->steps[s].kind == BND_STEP_POINTWISE || plan->steps[s].kind == BND_STEP_SCALE_ADD || plan->steps[s].kind == BND_STEP_MAP) place_over_input(plan, s);
}
