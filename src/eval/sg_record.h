/* What one image contributes to super-gradients' mAP: inside src/eval. */
#ifndef BND_EVAL_SG_RECORD_H
#define BND_EVAL_SG_RECORD_H

#include "eval/sg_metrics.h"

enum { BND_SG_THRESHOLDS = 10 }; /* of IoU: 0.5, 0.55, .. 0.95 */

typedef struct bnd_sg_detection {
  float score;
  uint32_t label;
  uint16_t matched, ignored; /* masks: bit t stands for threshold t */
} bnd_sg_detection;

struct bnd_sg_record {
  size_t detection_count, target_count;
  bnd_sg_detection *detections;
  uint32_t *target_labels;
};

#endif
