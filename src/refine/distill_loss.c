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

/* Distributions over the bins of the four sides of a box (left, top, right, bottom), and the distances they mean. */
typedef struct sides {
  double probability[4][MOST_BINS], distance[4];
} sides;

static void read_sides(const float *logits, size_t bins, sides *s) {
  for (size_t side = 0; side < 4; side++) {
    softmax(logits + side * bins, bins, s->probability[side]);
    s->distance[side] = 0;
    for (size_t b = 0; b < bins; b++) s->distance[side] += (double)b * s->probability[side][b];
  }
}

/* One minus the overlap of two boxes around the same anchor, and how it changes with the student's distances. */
static double miss(const double teacher[4], const double student[4], double slope[4]) {
  const double width = fmin(teacher[0], student[0]) + fmin(teacher[2], student[2]), height = fmin(teacher[1], student[1]) + fmin(teacher[3], student[3]);
  const double across = student[0] + student[2], along = student[1] + student[3], both = width * height;
  const double all = (teacher[0] + teacher[2]) * (teacher[1] + teacher[3]) + across * along - both;
  for (int side = 0; side < 4; side++) {
    slope[side] = 0;
    if (!(all > 0) || student[side] == teacher[side]) continue;
    const double more = student[side] < teacher[side] ? (side % 2 ? width : height) : 0;
    slope[side] = -(more * all - both * ((side % 2 ? across : along) - more)) / (all * all);
  }
  return all > 0 ? 1 - both / all : 0;
}

double bnd_distill_boxes(const float *teacher, const float *student, const float *teacher_classes, size_t anchors, size_t classes, size_t bins,
                         double share, double overlap, float *gradient) {
  double sum = 0;
  sides t, s;
  for (size_t a = 0; a < anchors; a++) {
    const double weight = largest_score(teacher_classes + a * classes, classes) * share;
    double slope[4], divergence = 0;
    read_sides(teacher + a * 4 * bins, bins, &t);
    read_sides(student + a * 4 * bins, bins, &s);
    const double missing = miss(t.distance, s.distance, slope);
    for (size_t side = 0; side < 4; side++)
      for (size_t b = 0; b < bins; b++) {
        const double p = t.probability[side][b], q = s.probability[side][b];
        divergence += p * (log_double(p) - log_double(q));
        if (gradient) gradient[(a * 4 + side) * bins + b] = (float)((q - p + overlap * slope[side] * q * ((double)b - s.distance[side])) * weight);
      }
    sum += (divergence + overlap * missing) * weight;
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
