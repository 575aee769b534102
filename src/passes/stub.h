/* Stubs, as torch.ao.quantization has them: what begins and ends a quantization scope. */
#ifndef BND_PASSES_STUB_H
#define BND_PASSES_STUB_H

#include "graph/graph.h"
#include "ops/operators.h"

/* A QuantStub or DeQuantStub that reads `place` and stands behind it, of the same shape and scope; nobody reads it yet. pass: who changed the graph,
   NULL = the stub counts as captured. NULL = memory short (bnd_graph_status). */
bnd_node *bnd_insert_stub(bnd_node *place, bnd_operator_id kind, const char *pass);

#endif
