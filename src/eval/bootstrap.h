/* How sure a ratio of two mAPs on the same images is: the paired bootstrap (Efron and Tibshirani 1993). */
#ifndef BND_EVAL_BOOTSTRAP_H
#define BND_EVAL_BOOTSTRAP_H

#include "eval/sg_metrics.h"

/* Draws `images` images with repetition, `resamples` times, and takes mAP@0.50:0.95 of `other` over that of `base` on each draw, the same images for both.
   *low and *high: the 2.5 % and 97.5 % quantiles of the ratios. Records as bnd_sg_match_image makes them, in the same order of images; borrowed. Same
   result for the same seed and any number of threads. Both are 0 when no draw has anything to find. */
bnd_status bnd_sg_bootstrap_ratio(const bnd_sg_record *const *base, const bnd_sg_record *const *other, size_t images, size_t classes, int resamples,
                                  uint64_t seed, double *low, double *high, bnd_error *error);
/* A copy; NULL when memory is short. */
bnd_sg_record *bnd_sg_record_copy(const bnd_sg_record *record);

#endif
