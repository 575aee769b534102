#include "passes/best/best.h"
bnd_status bnd_fold_scalars(bnd_graph *graph, int *folded, int *kept, bnd_error *error) { (void)graph; (void)error; *folded = *kept = 0; return BND_OK; }
bnd_status bnd_remove_identities(bnd_graph *graph, int *removed, bnd_error *error) { (void)graph; (void)error; *removed = 0; return BND_OK; }
