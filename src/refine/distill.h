/* Quantization-aware training without labels: the quantized network is trained until its raw outputs are those of the float network it came from.

   The loss of an image, with teacher and student logits t, s of A anchors and N classes, teacher and student distributions p, q over the bins of the
   four sides of a box, T and S the boxes they mean, and m the teacher's largest score at an anchor:
     sum over anchors and classes of the binary cross-entropy of sigmoid(s) to sigmoid(t), less its smallest value
     + box_weight * sum over anchors of m * (sum over sides of KL(p, q) + overlap_weight * (1 - IoU(S, T))),    all divided by the sum of m over the batch
   Distillation: Hinton et al. 2015; of box distributions: Zheng et al. 2022 (Localization Distillation). The overlap is what mAP asks for and what the
   distributions alone hardly see: an error of a twentieth of a small box is a small divergence. Where outputs are not told, the relative squared error
   of all outputs. Gradients pass fake quantizers as in autograd/network.h; positions stay unless thresholds are learned. */
#ifndef BND_REFINE_DISTILL_H
#define BND_REFINE_DISTILL_H

#include "refine/refine.h"

/* Zero in a field means its default. */
typedef struct bnd_distill_options {
  int class_output, box_output; /* outputs of the graph: logits [1,A,N], box distributions [1,A,4*bins]; both 0 = outputs of no such meaning */
  double box_weight;            /* 1.5 */
  double overlap_weight;        /* 10 */
  int steps;                    /* 600 */
  int batch;                    /* 4 */
  double learning_rate;         /* in steps of a parameter's grid; falls to 0 as a cosine. 0.02 */
  bool no_flips;                /* images are only seen as they are, never mirrored */
  bool learn_thresholds;
  double threshold_rate; /* 0.1 */
} bnd_distill_options;

/* With work->minutes there are as many steps as fit into them (the result then depends on the machine's speed). Ends with the best of what it was given
   and what it had after every sixth part of the steps, judged by the same loss on work->held_out (the first 16 images; without any the last state is
   kept). */
bnd_status bnd_refine_distill(bnd_refinement *work, const bnd_distill_options *options, bnd_string *report, bnd_error *error);

#endif
