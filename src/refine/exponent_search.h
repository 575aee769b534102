#ifndef BND_REFINE_EXPONENT_SEARCH_H
#define BND_REFINE_EXPONENT_SEARCH_H
#include "refine/refine.h"
bnd_status bnd_refine_exponent_search(bnd_refinement *work, bnd_string *report, bnd_error *error);
#endif
