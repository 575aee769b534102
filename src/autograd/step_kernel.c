/* Every other operator: its plain loop and the plain loop of its gradient. */
#include <stdlib.h>
#include <string.h>

#include "autograd/internal.h"

enum { FEW = 8 }; /* operands that need no memory of their own */

typedef struct operands {
  bnd_array *inputs, *gradients;
  bnd_array room[2 * FEW];
  bnd_array outputs[BND_MAX_RESULTS], output_gradients[BND_MAX_RESULTS];
} operands;

static bnd_status collect(bnd_network *network, const step *s, int image, operands *o, bnd_error *error) {
  memset(o, 0, sizeof *o);
  o->inputs = s->input_count <= FEW ? o->room : bnd_calloc((size_t)s->input_count * 2, sizeof *o->inputs);
  if (!o->inputs) return bnd_fail_memory(error, "operands");
  o->gradients = o->inputs + (s->input_count <= FEW ? FEW : s->input_count);
  for (int i = 0; i < s->input_count; i++)
    if (s->inputs[i] >= 0) o->inputs[i] = (bnd_array){network->values[s->inputs[i]].shape, bnd_network_data(network, s->inputs[i], image)};
  for (int i = 0; i < s->output_count; i++)
    o->outputs[i] = (bnd_array){network->values[s->outputs[i]].shape, bnd_network_data(network, s->outputs[i], image)};
  return BND_OK;
}

static void release(operands *o) {
  if (o->inputs != o->room) free(o->inputs);
}

static bnd_status run(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker;
  const step *s = it->step;
  operands o;
  BND_TRY(collect(network, s, image, &o, error));
  bnd_reference_kernel(s->kernel.id)(&s->kernel, o.inputs, s->input_count, o.outputs, s->output_count);
  release(&o);
  return BND_OK;
}

static bnd_status forward(bnd_network *network, step *s, bnd_error *error) {
  if (!bnd_network_add_part(network, s, run, NULL)) return bnd_fail_memory(error, "the network");
  for (int i = 0; i < s->input_count; i++)
    if (s->inputs[i] >= 0) bnd_network_use_data(network, s->inputs[i]);
  for (int i = 0; i < s->output_count; i++) bnd_network_use_data(network, s->outputs[i]);
  return BND_OK;
}

static bnd_status send(bnd_network *network, const part *it, int image, int worker, bnd_error *error) {
  (void)worker;
  const step *s = it->step;
  operands o;
  BND_TRY(collect(network, s, image, &o, error));
  for (int i = 0; i < s->output_count; i++)
    o.output_gradients[i] =
        (bnd_array){o.outputs[i].shape, network->values[s->outputs[i]].gradient_begun ? bnd_network_gradient(network, s->outputs[i], image) : NULL};
  for (int i = 0; i < s->input_count; i++) {
    if (!bnd_network_wants_gradient(network, s, i)) continue;
    float *target = it->add[i] ? bnd_network_slot(network, s->temporaries[i], image) : bnd_network_gradient(network, s->inputs[i], image);
    o.gradients[i] = (bnd_array){o.inputs[i].shape, target};
  }
  bnd_reference_gradient(s->kernel.id)(&s->kernel, o.inputs, s->input_count, o.outputs, o.output_gradients, s->output_count, o.gradients);
  for (int i = 0; i < s->input_count; i++)
    if (o.gradients[i].data && it->add[i])
      bnd_loop_scale(o.gradients[i].data, 1.f, bnd_network_gradient(network, s->inputs[i], image), bnd_network_count(&network->values[s->inputs[i]]),
                     true);
  release(&o);
  return BND_OK;
}

/* Operands are used as they are, not as bytes: these operators are few and small. */
static bnd_status backward(bnd_network *network, step *s, bnd_error *error) {
  if (!bnd_reference_gradient(s->kernel.id)) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: no gradient passes through this operator", s->name);
  s->temporaries = bnd_network_keep(network, (size_t)s->input_count, sizeof *s->temporaries);
  part *it = s->temporaries ? bnd_network_add_part(network, s, send, NULL) : NULL;
  if (!it) return bnd_fail_memory(error, "the network");
  for (int i = 0; i < s->input_count; i++) {
    s->temporaries[i] = NO_INDEX;
    if (s->inputs[i] < 0) continue;
    bnd_network_use_data(network, s->inputs[i]);
    if (!bnd_network_send_gradient(network, it, i) || !it->add[i]) continue;
    s->temporaries[i] = bnd_network_add_slot(network, bnd_network_count(&network->values[s->inputs[i]]) * sizeof(float));
    if (s->temporaries[i] < 0) return bnd_fail_memory(error, "the network");
    bnd_network_use_slot(network, s->temporaries[i]);
  }
  for (int i = 0; i < s->output_count; i++) {
    bnd_network_use_data(network, s->outputs[i]);
    if (network->values[s->outputs[i]].gradient_begun) bnd_network_use_gradient(network, s->outputs[i]);
  }
  return BND_OK;
}

const step_functions *bnd_step_kernel(void) {
  static const step_functions functions = {.forward = forward, .backward = backward};
  return &functions;
}
