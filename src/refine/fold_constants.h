#ifndef BND_REFINE_FOLD_CONSTANTS_H
#define BND_REFINE_FOLD_CONSTANTS_H

#include "exec/exec.h"

/* Values that do not depend on the network's input become constants. Shapes inferred, not yet quantized. *folded: constants made. */
bnd_status bnd_fold_constants(bnd_graph *graph, int *folded, bnd_error *error);

#endif
