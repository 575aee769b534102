#include "refine/exponent_search.h"
bnd_status bnd_refine_exponent_search(bnd_refinement *work, bnd_string *report, bnd_error *error) { (void)work; (void)report; (void)error; return BND_OK; }
