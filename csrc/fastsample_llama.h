/* fastsample inside llama.cpp: an fs_sampler as a llama_sampler, for hosts in C99 and C++.
 *
 * All of it is in this header. Include it where llama.h is found, and link with llama.cpp and
 * fastsample:
 *
 *   fs_sampler* sampler;
 *   fs_sampler_new(&chain, rules, rule_count, seed, 0, 0, &sampler);
 *   llama_sampler_chain_add(smpl, fs_llama_sampler_init(sampler, llama_vocab_n_tokens(vocab)));
 *
 * It chooses the token, and so is the last of its chain; what llama.cpp's own samplers before it
 * have sorted, changed or taken away is what it draws from. Candidates are read where they are.
 * They are told apart by their ids: a token that is not among them is as if its logit were -inf,
 * and neither rules, ties nor the draw depend on the order that they lie in. Of the array only
 * `selected` is written.
 *
 * apply    draws at the offset of the sampler, which then is one more.
 * accept   appends the token to the history, the prompt's too where the host accepts that. A token
 *          that was drawn and not accepted leaves no trace but the offset: neither in the history,
 *          nor in the state of a stage that has one.
 * reset    takes the sampler back to the seed, stream and offset that it came with, without any
 *          history, and with the state at its start.
 * clone    is a twin that goes its own way.
 * free     frees the fs_sampler.
 *
 * Where the C ABI refuses something, a line on stderr says what. A draw that fails selects nothing
 * (-1), and nothing has moved: llama_sampler_sample() asserts that something is selected, and ends
 * the process; who calls llama_sampler_apply() may look at it before. A token that cannot be
 * accepted is left out of the history. A clone that there is no memory for ends the process.
 *
 * Like any llama_sampler, one is for one thread at a time.
 */
#ifndef FASTSAMPLE_LLAMA_H
#define FASTSAMPLE_LLAMA_H

#include <llama.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastsample.h"

/* In C++ a program has one of each, and one table of them; in C each source file has its own. */
#ifdef __cplusplus
#define FASTSAMPLE_LLAMA_INLINE inline
extern "C" {
#else
#define FASTSAMPLE_LLAMA_INLINE static inline
#endif

/* What a llama_sampler of this kind has in its ctx. */
typedef struct fs_llama_context {
  fs_sampler* sampler;
  fs_sampler_info start; /* what a reset goes back to */
  int64_t n_vocab;
  uint32_t* row; /* [n_vocab]: bits of logits, all of them -inf between calls; null until needed */
  int64_t token; /* what was drawn and has not been accepted; else -1 */
  double state[2]; /* the state before that draw */
  char why[96];    /* the text of what is wrong with candidates */
} fs_llama_context;

FASTSAMPLE_LLAMA_INLINE fs_llama_context* fs_llama_context_of(const struct llama_sampler* smpl) {
  return (fs_llama_context*)smpl->ctx;
}

FASTSAMPLE_LLAMA_INLINE void fs_llama_say(const char* what, const char* why) {
  fprintf(stderr, "fastsample: %s: %s\n", what, why);
}

FASTSAMPLE_LLAMA_INLINE fs_status fs_llama_info(const fs_sampler* sampler, fs_sampler_info* info) {
  memset(info, 0, sizeof *info);
  info->struct_size = sizeof *info;
  return fs_sampler_get(sampler, info, NULL, 0);
}

/* Makes the last token of the history not to have been, where a state forbids to roll it back. */
FASTSAMPLE_LLAMA_INLINE const char* fs_llama_shorten(fs_llama_context* c,
                                                     const fs_sampler_info* info) {
  const int64_t count = info->history_length;
  int32_t* ids = (int32_t*)malloc((size_t)count * sizeof *ids);
  int done;
  if (!ids) return "no memory";
  done = fs_sampler_get(c->sampler, NULL, ids, count) == FS_OK &&
         fs_sampler_start(c->sampler, ids, count - 1, info->prompt_length) == FS_OK &&
         fs_sampler_set_state(c->sampler, c->state) == FS_OK;
  free(ids);
  return done ? NULL : fs_last_error();
}

/* Takes back a draw that has not been accepted; the next one has an offset of its own. Returns
 * null, or what is wrong. */
FASTSAMPLE_LLAMA_INLINE const char* fs_llama_take_back(fs_llama_context* c) {
  fs_sampler_info info;
  const char* wrong = NULL;
  if (c->token < 0) return NULL;
  if (fs_llama_info(c->sampler, &info) != FS_OK) return fs_last_error();
  if (fs_sampler_rollback(c->sampler, 1) != FS_OK)
    wrong = fs_llama_shorten(c, &info);
  else if (fs_sampler_seek(c->sampler, info.seed, info.stream, info.offset) != FS_OK)
    wrong = fs_last_error();
  if (!wrong) c->token = -1;
  return wrong;
}

#define FASTSAMPLE_LLAMA_EMPTY 0xff800000u /* the bits of -inf */

/* Whether candidate i has the id i, and all are there. */
FASTSAMPLE_LLAMA_INLINE int fs_llama_in_order(const llama_token_data_array* candidates,
                                              int64_t n_vocab) {
  int32_t i, differs = 0;
  if (candidates->size != (size_t)n_vocab) return 0;
  for (i = 0; i < (int32_t)n_vocab; ++i) differs |= candidates->data[i].id ^ i;
  return !differs;
}

/* Writes the logits of candidates to the places of their ids. Returns null, or what is wrong. */
FASTSAMPLE_LLAMA_INLINE const char* fs_llama_scatter(fs_llama_context* c,
                                                     const llama_token_data_array* candidates) {
  size_t i;
  if (!c->row) {
    c->row = (uint32_t*)malloc((size_t)c->n_vocab * sizeof *c->row);
    if (!c->row) return "no memory";
    for (i = 0; i < (size_t)c->n_vocab; ++i) c->row[i] = FASTSAMPLE_LLAMA_EMPTY;
  }
  for (i = 0; i < candidates->size; ++i) {
    const llama_token id = candidates->data[i].id;
    if (id < 0 || id >= c->n_vocab)
      snprintf(c->why, sizeof c->why, "ids of candidates must be in [0, %ld), got %ld",
               (long)c->n_vocab, (long)id);
    else if (c->row[id] != FASTSAMPLE_LLAMA_EMPTY)
      snprintf(c->why, sizeof c->why, "ids of candidates must differ, got %ld twice", (long)id);
    else {
      memcpy(&c->row[id], &candidates->data[i].logit, sizeof *c->row);
      continue;
    }
    while (i-- > 0) c->row[candidates->data[i].id] = FASTSAMPLE_LLAMA_EMPTY;
    return c->why;
  }
  return NULL;
}

/* Draws a token from candidates. Returns null, or what is wrong. */
FASTSAMPLE_LLAMA_INLINE const char* fs_llama_draw(fs_llama_context* c,
                                                  const llama_token_data_array* candidates) {
  fs_logits logits;
  fs_sampler_info info;
  int64_t token = -1;
  size_t i;
  fs_status status;
  const char* wrong = fs_llama_take_back(c);
  if (wrong) return wrong;
  if (!candidates->data || candidates->size == 0) return "there must be candidates, got none";
  if (fs_llama_info(c->sampler, &info) != FS_OK) return fs_last_error();

  fs_logits_init(&logits, sizeof logits);
  logits.rows = 1;
  logits.vocab = c->n_vocab;
  if (fs_llama_in_order(candidates, c->n_vocab)) {
    logits.data = &candidates->data[0].logit;
    logits.element_stride = sizeof candidates->data[0];
  } else {
    wrong = fs_llama_scatter(c, candidates);
    if (wrong) return wrong;
    logits.data = c->row;
  }
  status = fs_step(&c->sampler, &logits, 1, 0, &token);
  if (logits.data == c->row)
    for (i = 0; i < candidates->size; ++i) c->row[candidates->data[i].id] = FASTSAMPLE_LLAMA_EMPTY;
  if (status != FS_OK) return fs_last_error();
  memcpy(c->state, info.state, sizeof c->state);
  c->token = token;
  return NULL;
}

FASTSAMPLE_LLAMA_INLINE const char* fs_llama_name(const struct llama_sampler* smpl) {
  (void)smpl;
  return "fastsample";
}

FASTSAMPLE_LLAMA_INLINE void fs_llama_apply(struct llama_sampler* smpl,
                                            llama_token_data_array* candidates) {
  fs_llama_context* c = fs_llama_context_of(smpl);
  const char* wrong = fs_llama_draw(c, candidates);
  int64_t i;
  candidates->selected = -1;
  if (wrong) {
    fs_llama_say("nothing is drawn", wrong);
    return;
  }
  /* Where they are in order, it stands at its id. */
  i = c->token;
  if ((size_t)i >= candidates->size || candidates->data[i].id != c->token) i = 0;
  while (candidates->data[i].id != c->token) ++i;
  candidates->selected = i;
}

FASTSAMPLE_LLAMA_INLINE void fs_llama_accept(struct llama_sampler* smpl, llama_token token) {
  fs_llama_context* c = fs_llama_context_of(smpl);
  const char* wrong;
  if (token >= 0 && c->token == token) {
    c->token = -1; /* it is in the history */
    return;
  }
  wrong = fs_llama_take_back(c);
  if (!wrong && fs_sampler_push(c->sampler, &token, 1) != FS_OK) wrong = fs_last_error();
  if (wrong) fs_llama_say("a token is not accepted", wrong);
}

FASTSAMPLE_LLAMA_INLINE void fs_llama_reset(struct llama_sampler* smpl) {
  fs_llama_context* c = fs_llama_context_of(smpl);
  c->token = -1;
  if (fs_sampler_reset(c->sampler, c->start.seed, c->start.stream, c->start.offset) != FS_OK)
    fs_llama_say("nothing is reset", fs_last_error());
}

FASTSAMPLE_LLAMA_INLINE void fs_llama_free(struct llama_sampler* smpl) {
  fs_llama_context* c = fs_llama_context_of(smpl);
  if (!c) return;
  fs_sampler_free(c->sampler);
  free(c->row);
  free(c);
}

FASTSAMPLE_LLAMA_INLINE struct llama_sampler* fs_llama_clone(const struct llama_sampler* smpl);

/* The functions of such a llama_sampler; those that llama.cpp has added since are null. */
FASTSAMPLE_LLAMA_INLINE struct llama_sampler_i* fs_llama_interface(void) {
#ifdef __cplusplus
  static llama_sampler_i table = [] {
    llama_sampler_i made = llama_sampler_i();
    made.name = fs_llama_name;
    made.accept = fs_llama_accept;
    made.apply = fs_llama_apply;
    made.reset = fs_llama_reset;
    made.clone = fs_llama_clone;
    made.free = fs_llama_free;
    return made;
  }();
#else
  static struct llama_sampler_i table = {
      .name = fs_llama_name,
      .accept = fs_llama_accept,
      .apply = fs_llama_apply,
      .reset = fs_llama_reset,
      .clone = fs_llama_clone,
      .free = fs_llama_free,
  };
#endif
  return &table;
}

FASTSAMPLE_LLAMA_INLINE struct llama_sampler* fs_llama_clone(const struct llama_sampler* smpl) {
  const fs_llama_context* from = fs_llama_context_of(smpl);
  fs_llama_context* c = (fs_llama_context*)malloc(sizeof *c);
  fs_sampler* sampler = NULL;
  if (!c || fs_sampler_copy(from->sampler, &sampler) != FS_OK) {
    fs_llama_say("a sampler cannot be cloned", c ? fs_last_error() : "no memory");
    abort(); /* llama.cpp takes null for a sampler */
  }
  *c = *from;
  c->sampler = sampler;
  c->row = NULL;
  return llama_sampler_init(fs_llama_interface(), c);
}

/* Makes a llama_sampler of an fs_sampler, which is the llama_sampler's from then on. A history that
 * it has stays until a reset. Null, with a line on stderr and the fs_sampler still the caller's,
 * where that or n_vocab is not valid. */
FASTSAMPLE_LLAMA_INLINE struct llama_sampler* fs_llama_sampler_init(fs_sampler* sampler,
                                                                    int32_t n_vocab) {
  fs_sampler_info start;
  fs_llama_context* c;
  char why[80];
  const char* wrong = NULL;
  if (fs_llama_info(sampler, &start) != FS_OK) {
    wrong = fs_last_error();
  } else if (n_vocab < 1 || n_vocab > FS_MAX_VOCAB) {
    snprintf(why, sizeof why, "n_vocab must be in [1, %ld], got %ld", (long)FS_MAX_VOCAB,
             (long)n_vocab);
    wrong = why;
  }
  c = wrong ? NULL : (fs_llama_context*)calloc(1, sizeof *c);
  if (!c) {
    fs_llama_say("no sampler is made", wrong ? wrong : "no memory");
    return NULL;
  }
  c->sampler = sampler;
  c->start = start;
  c->n_vocab = n_vocab;
  c->token = -1;
  return llama_sampler_init(fs_llama_interface(), c);
}

/* The fs_sampler of such a llama_sampler, to be looked at, and to be changed before an apply or
 * after an accept; null for another kind. */
FASTSAMPLE_LLAMA_INLINE fs_sampler* fs_llama_sampler_get(const struct llama_sampler* smpl) {
  return smpl && smpl->iface == fs_llama_interface() ? fs_llama_context_of(smpl)->sampler : NULL;
}

#ifdef __cplusplus
}
#endif

#endif /* FASTSAMPLE_LLAMA_H */
