#include "refine/distill_loss.h"

#include <math.h>

#include "kernels/math.h"

enum { MOST_BINS = 256 };

static double log_double(double x) {
  return x > 1e-300 ? bnd_log_double(x) : -690.0;
}

static double largest_score(const float *logits, size_t classes) {
  float most = logits[0];
  for (size_t c = 1; c < classes; c++) most = logits[c] > most ? logits[c] : most;
  return (double)bnd_sigmoid(most);
}

double bnd_distill_mass(const float *teacher, size_t anchors, size_t classes) {
  double sum = 0;
  for (size_t a = 0; a < anchors; a++) sum += largest_score(teacher + a * classes, classes);
  return sum;
}

/* softplus(s) - t s, without overflow, less the same at s = logit(t): the teacher's entropy. */
static double cross_entropy(double t_logit, double s_logit) {
  const double t = 1 / (1 + bnd_exp_double(fmin(fmax(-t_logit, -80), 80)));
  const double softplus_s = fmax(s_logit, 0) + bnd_log1p_double(bnd_exp_double(-fmin(fabs(s_logit), 80)));
  const double softplus_t = fmax(t_logit, 0) + bnd_log1p_double(bnd_exp_double(-fmin(fabs(t_logit), 80)));
  return softplus_s - softplus_t - t * (s_logit - t_logit);
}

double bnd_distill_classes(const float *teacher, const float *student, size_t anchors, size_t classes, double share, float *gradient) {
  double sum = 0;
  for (size_t i = 0; i < anchors * classes; i++) {
    sum += cross_entropy((double)teacher[i], (double)student[i]);
    if (gradient) gradient[i] = (bnd_sigmoid(student[i]) - bnd_sigmoid(teacher[i])) * (float)share;
  }
  return sum * share;
}

static void softmax(const float *logits, size_t bins, double *probability) {
  double most = (double)logits[0], sum = 0;
  for (size_t b = 1; b < bins; b++) most = fmax(most, (double)logits[b]);
  for (size_t b = 0; b < bins; b++) sum += probability[b] = bnd_exp_double(fmax((double)logits[b] - most, -80));
  for (size_t b = 0; b < bins; b++) probability[b] /= sum;
}

double bnd_distill_boxes(const float *teacher, const float *student, const float *teacher_classes, size_t anchors, size_t classes, size_t bins,
                         double share, float *gradient) {
  double sum = 0, p[MOST_BINS], q[MOST_BINS];
  for (size_t a = 0; a < anchors; a++) {
    const double weight = largest_score(teacher_classes + a * classes, classes) * share;
    for (size_t side = 0; side < 4; side++) {
      const size_t at = (a * 4 + side) * bins;
      softmax(teacher + at, bins, p);
      softmax(student + at, bins, q);
      double divergence = 0;
      for (size_t b = 0; b < bins; b++) {
        divergence += p[b] * (log_double(p[b]) - log_double(q[b]));
        if (gradient) gradient[at + b] = (float)((q[b] - p[b]) * weight);
      }
      sum += divergence * weight;
    }
  }
  return sum;
}

double bnd_distill_squares(const float *teacher, const float *student, size_t count, double share, float *gradient) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) {
    const double difference = (double)student[i] - (double)teacher[i];
    sum += difference * difference;
    if (gradient) gradient[i] = (float)(2 * share * difference);
  }
  return sum * share;
}
