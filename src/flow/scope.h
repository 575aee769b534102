/* Quantization scopes: where stubs are placed in a captured graph. */
#ifndef BND_FLOW_SCOPE_H
#define BND_FLOW_SCOPE_H

#include "binade/binade.h"
#include "graph/graph.h"

/* True when the network has to be captured with the published stubs in it. */
bool bnd_scope_is_published(const bnd_quantize_options *options);
/* Checks the scope's name and places its stubs. Unknown names are errors that list near ones. */
bnd_status bnd_scope_place(bnd_graph *graph, const bnd_quantize_options *options, bnd_error *error);

#endif
