/* What a quantization run has finished, on disk in its output folder, so that the same command continues after an interruption. */
#ifndef BND_FLOW_STATE_H
#define BND_FLOW_STATE_H

#include "binade/binade.h"
#include "base/memory.h"
#include "graph/graph.h"

typedef struct bnd_run_state {
  char *path;            /* FOLDER/.binade-state.json */
  char fingerprint[65];  /* of everything the results depend on, but for training */
  char training[65];     /* of what training depends on; "" = not trained */
  bnd_stage_result stages[BND_MAX_STAGES];
  int stage_count;
  bool calibrated;       /* quantizers hold positions */
  struct bnd_saved_quantizer *quantizers;
  size_t quantizer_count, quantizer_capacity;
  bnd_arena *arena; /* names */
} bnd_run_state;

/* SHA-256 of a file as 64 hexadecimal digits. */
bnd_status bnd_sha256_file(const char *path, const bnd_context *context, char digest[65], bnd_error *error);
void bnd_sha256_text(const char *text, size_t length, char digest[65]);

/* Reads the state of `folder` if it belongs to `fingerprint`; otherwise (none, damaged, other options) the state is empty.
   *found_other: there was one of another run. */
bnd_status bnd_run_state_open(const char *folder, const char *fingerprint, bool restart, bnd_run_state *state, bool *found_other, bnd_error *error);
void bnd_run_state_close(bnd_run_state *state);
/* The rows behind training ("qat", "aligned") belong to one way of training (a digest, "" = none): those of another one are forgotten. */
void bnd_run_state_set_training(bnd_run_state *state, const char *training);
/* The saved result of a stage; NULL = not finished yet. */
const bnd_stage_result *bnd_run_state_stage(const bnd_run_state *state, const char *name);
bnd_status bnd_run_state_add_stage(bnd_run_state *state, const bnd_stage_result *stage, bnd_error *error);
bnd_status bnd_run_state_write(const bnd_run_state *state, bnd_error *error); /* after a change of its stages */
/* Calibrated quantizers of the graph, saved and put back. restore: false when the saved ones do not fit the graph. */
bnd_status bnd_run_state_save_quantizers(bnd_run_state *state, const bnd_graph *graph, bnd_error *error);
bool bnd_run_state_restore_quantizers(const bnd_run_state *state, bnd_graph *graph);
/* The calibrated positions of a quantizer, one for each channel; NULL = it was not calibrated. */
const int *bnd_run_state_positions(const bnd_run_state *state, const char *name, int *channels);

#endif
