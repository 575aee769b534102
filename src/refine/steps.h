/* The steps of the recipe best that stand in this folder, one file each; what they do, and after whom, is told there. */
#ifndef BND_REFINE_STEPS_H
#define BND_REFINE_STEPS_H

#include "refine/refine.h"

bnd_refine_step bnd_refine_exponents;

#endif
