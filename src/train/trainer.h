/* Training a network on a data set: what one step does, and the state between steps, which can be saved and put back at any step.

   Everything is a function of the options, the data and the seed: a run that was stopped and went on, and a run with another number of threads, end
   with the same bits. The order within a step is super-gradients' (data-training-metrics 4.2): learning rate, forward, loss, backward, clipping,
   optimizer, moving average. */
#ifndef BND_TRAIN_TRAINER_H
#define BND_TRAIN_TRAINER_H

#include "autograd/network.h"
#include "binade/context.h"
#include "data/loader.h"
#include "formats/checkpoint/checkpoint.h"
#include "formats/checkpoint/writer.h"
#include "train/average.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/schedule.h"

typedef struct bnd_trainer_options {
  int batch, threads;
  int accumulate;        /* batches whose gradients are added up for one optimizer step; 0 = 1. Not averaged, as in the original */
  bnd_network_mode mode; /* BND_MODE_TRAIN, or BND_MODE_FROZEN for frozen batch norm */
  bnd_optimizer_options optimizer;
  double weight_decay;   /* on tensors with more than one dimension; 0 on the others (batch norm, biases) */
  bnd_schedule schedule; /* batches_per_epoch is set here */
  double clip_norm;      /* 0 = none */
  bool average;          /* moving average of parameters and running statistics */
  bnd_decay decay;
  bool skip_direct;      /* parameters that are the input of a fake quantizer themselves are left as they are, as happens in Quark */
  double threshold_rate; /* trained thresholds: times the learning rate. 0 = 1e4 as Jain et al. 2020 (1e-2 beside 1e-6), less where the schedule's
                            first rate would bring them above 1e-2: there they no longer settle (their 0.1 / sqrt(127)) */
  int classes, reg_max;
  int class_output, box_output; /* outputs of the network: logits [1,A,classes], [1,A,4*(reg_max+1)] */
} bnd_trainer_options;

typedef struct bnd_trainer bnd_trainer;
/* network (made with the same batch and the two outputs as gradient outputs) and loader are borrowed. Fails when an epoch has no full batch. */
bnd_status bnd_trainer_create(bnd_network *network, const bnd_loader *loader, const bnd_trainer_options *options, bnd_trainer **trainer,
                              bnd_error *error);
void bnd_trainer_destroy(bnd_trainer *trainer); /* NULL is fine */

uint64_t bnd_trainer_steps_per_epoch(const bnd_trainer *trainer); /* batches */
uint64_t bnd_trainer_steps(const bnd_trainer *trainer);           /* of the whole run */
uint64_t bnd_trainer_done(const bnd_trainer *trainer);            /* batches done */
size_t bnd_trainer_bytes(const bnd_trainer *trainer);             /* memory of the network, the optimizer and the averages */

typedef struct bnd_step_report {
  bnd_loss_parts loss;
  double learning_rate, gradient_norm;
} bnd_step_report;
/* The next batch. On any failure, also BND_ERROR_INTERRUPTED (context->cancelled, asked between the pieces of the passes), parameters, statistics,
   quantizers and the number of steps are what they were before the step. BND_ERROR_MODEL when the loss or a gradient is not finite: which, at which
   step. */
bnd_status bnd_trainer_step(bnd_trainer *trainer, const bnd_context *context, bnd_step_report *report, bnd_error *error);

/* The moving averages (or, without them, the values themselves) in place of the graph's parameters and statistics, and back: for validation and for
   writing checkpoints. Call it in pairs. */
void bnd_trainer_swap_average(bnd_trainer *trainer);

/* Everything a later bnd_trainer needs to go on, as a dict under `key` of the checkpoint being written: parameters, statistics, averages, moments,
   counters, quantizers with ranges and votes. Tensors are shared, so write before the next step. */
void bnd_trainer_save(bnd_trainer *trainer, bnd_checkpoint_writer *writer, const char *key);
/* Puts back what bnd_trainer_save wrote. BND_ERROR_MODEL when it is of another network (names the first difference); then nothing has changed. */
bnd_status bnd_trainer_restore(bnd_trainer *trainer, bnd_checkpoint *checkpoint, const char *key, bnd_error *error);

#endif
