/* Chains of the four oldest stages, for the programs of this folder: five numbers and an order
 * become stages. Valid as C99 and as C++17. */
#ifndef CHAINS_H
#define CHAINS_H

#include <fastsample.h>
#include <stdint.h>
#include <string.h>

enum { kMostRows = 64, kStages = 8 };

typedef struct Params {
  double temperature, top_p, min_p;
  int64_t top_k, min_tokens_to_keep;
  uint8_t order[kStages]; /* kinds, ended by 0 */
} Params;

static inline Params default_params(void) {
  Params params;
  memset(&params, 0, sizeof params);
  params.temperature = params.top_p = 1.0;
  params.min_tokens_to_keep = 1;
  memcpy(params.order, "\1\2\3\4", 4);
  return params;
}

static inline double value_of(const Params* params, int kind) {
  switch (kind) {
    case FS_STAGE_TEMPERATURE: return params->temperature;
    case FS_STAGE_TOP_K: return (double)params->top_k;
    case FS_STAGE_TOP_P: return params->top_p;
    default: return params->min_p;
  }
}

/* The chain, which lives in `stages`. */
static inline fs_chain make_chain(const Params* params, fs_stage stages[kStages]) {
  fs_chain chain;
  int i;
  fs_chain_init(&chain, sizeof chain);
  chain.min_tokens_to_keep = params->min_tokens_to_keep;
  chain.stages = stages;
  for (i = 0; i < kStages && params->order[i]; ++i) {
    fs_stage_init(&stages[i], sizeof stages[i], params->order[i]);
    stages[i].value[0] = value_of(params, params->order[i]);
  }
  chain.stage_count = i;
  return chain;
}

/* fs_sample, fs_probs and fs_survivors of such parameters and uniforms, for up to kMostRows. */
static inline void make_chains(const Params* params, int64_t count, fs_chain chains[kMostRows],
                               fs_stage stages[kMostRows][kStages]) {
  int64_t i;
  for (i = 0; i < count; ++i) chains[i] = make_chain(&params[i], stages[i]);
}

static inline fs_status sample(const fs_logits* logits, const Params* params, int64_t count,
                               const double* u, int32_t threads, uint32_t flags, int64_t* tokens) {
  fs_stage stages[kMostRows][kStages];
  fs_chain chains[kMostRows];
  fs_draw draws[kMostRows];
  int64_t i;
  make_chains(params, count, chains, stages);
  for (i = 0; i < logits->rows; ++i) {
    fs_draw_init(&draws[i], sizeof draws[i]);
    draws[i].u = u[i];
  }
  return fs_sample(logits, chains, count, draws, threads, flags, tokens);
}

static inline fs_status probs_of(const fs_logits* logits, const Params* params, int64_t count,
                                 float* probs) {
  fs_stage stages[kMostRows][kStages];
  fs_chain chains[kMostRows];
  make_chains(params, count, chains, stages);
  return fs_probs(logits, chains, count, NULL, probs);
}

static inline fs_status survivors_of(const fs_logits* logits, const Params* params,
                                     int64_t capacity, int64_t* ids, float* probs, int64_t* count) {
  fs_stage stages[kStages];
  const fs_chain chain = make_chain(params, stages);
  return fs_survivors(logits, &chain, NULL, capacity, ids, probs, count);
}

#endif
