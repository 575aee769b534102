/* Inside the flow: mAP of an executor on a dataset. */
#ifndef BND_FLOW_EVALUATION_H
#define BND_FLOW_EVALUATION_H

#include "eval/sg_metrics.h"
#include "flow/dataset.h"

/* Runs all images of the dataset in use; outputs 0 and 1 of the executor are boxes [1,A,4] and scores [1,A,N]. *result is owned by the caller
   (bnd_evaluation_free); seconds is the time of the run itself. Same numbers for any number of threads. */
bnd_status bnd_evaluate_executor(bnd_executor *executor, bnd_dataset *dataset, const char *stage, const bnd_context *context, bnd_evaluation *result, bnd_error *error);

/* The same, and what each image contributed to super-gradients' mAP into records[dataset->count], each to be freed with bnd_sg_record_free. On failure
   they are NULL. */
bnd_status bnd_evaluate_with_records(bnd_executor *executor, bnd_dataset *dataset, const char *stage, const bnd_context *context, bnd_evaluation *result,
                                     bnd_sg_record **records, bnd_error *error);

#endif
