#include "passes/stub.h"

bnd_node *bnd_insert_stub(bnd_node *place, bnd_operator_id kind, const char *pass) {
  const bnd_operator *op = bnd_operator_of(kind);
  const bnd_arg arg = bnd_arg_of_node(place);
  bnd_node *stub = bnd_graph_call(place->graph, op, op->name, &arg, 1);
  if (!stub) return NULL;
  bnd_node_move_after(stub, place);
  stub->scope = place->scope;
  stub->shape[0] = place->shape[0];
  stub->dtype = place->dtype;
  stub->changed_by = pass;
  return stub;
}
