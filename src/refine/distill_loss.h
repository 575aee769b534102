/* How far raw outputs of a detector are from those of its teacher, and the gradient. Formula: distill.h. */
#ifndef BND_REFINE_DISTILL_LOSS_H
#define BND_REFINE_DISTILL_LOSS_H

#include <stddef.h>

/* The teacher's largest scores, summed over the anchors: what losses are divided by. */
double bnd_distill_mass(const float *teacher, size_t anchors, size_t classes);
/* Sums over one image, times `share`; gradient (NULL = not wanted) is of the student's values. */
double bnd_distill_classes(const float *teacher, const float *student, size_t anchors, size_t classes, double share, float *gradient);
double bnd_distill_boxes(const float *teacher, const float *student, const float *teacher_classes, size_t anchors, size_t classes, size_t bins,
                         double share, double overlap, float *gradient);
/* Sum of squared differences times `share`. */
double bnd_distill_squares(const float *teacher, const float *student, size_t count, double share, float *gradient);

#endif
