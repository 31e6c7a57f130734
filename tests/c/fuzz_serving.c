/* Random bytes become rows, edits, masks and drafts; whatever they are, the details of a draw are
 * those of that draw, what is verified is a part of the drafts with one token more, and a failing
 * call writes no token, on every instruction set, with the same bits.
 *
 * A libFuzzer target (build with -DFASTSAMPLE_LIBFUZZER -fsanitize=fuzzer), or a program of its
 * own: fuzz_serving [runs] [seed], where run i is what `fuzz_serving 1 <seed + i>` runs. */
#include <fastsample.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZER "fuzz_serving"
#include "seeded.h"

enum { kVocab = 600, kRows = 4, kStages = 3, kEdits = 6, kWords = kVocab / 32 + 1, kMark = -7 };

static long told[3], verified[3]; /* by status */

/* What rows are drawn with, in memory of exactly its size. */
typedef struct Input {
  int64_t vocab, words;
  float* x; /* [kRows * vocab] */
  fs_edit* edits;
  uint32_t* allowed; /* [kRows * words] */
  fs_stage stages[kStages];
  fs_chain chain;
  fs_draw draws[kRows];
  fs_logits logits;
} Input;

static void* allocate(size_t size) {
  void* memory = malloc(size ? size : 1);
  if (!memory) abort();
  return memory;
}

static void take_chain(Bytes* in, Input* to) {
  static const int32_t kKinds[8] = {FS_STAGE_TEMPERATURE, FS_STAGE_TOP_K,     FS_STAGE_TOP_P,
                                    FS_STAGE_MIN_P,       FS_STAGE_TYPICAL_P, FS_STAGE_XTC,
                                    FS_STAGE_TOP_H,       FS_STAGE_MIROSTAT};
  int i;
  fs_chain_init(&to->chain, sizeof to->chain);
  to->chain.stages = to->stages;
  to->chain.stage_count = (int64_t)(take(in, 1) % (kStages + 1));
  for (i = 0; i < kStages; ++i) {
    fs_stage* stage = &to->stages[i];
    /* Mirostat now and then, which verification refuses. */
    fs_stage_init(stage, sizeof *stage, kKinds[take(in, 1) % (i ? 7 : 8)]);
    switch (stage->kind) {
      case FS_STAGE_TEMPERATURE: stage->value[0] = (double)(take(in, 1) % 5) / 2.0; break;
      case FS_STAGE_TOP_K: stage->value[0] = (double)(take(in, 2) % 300); break;
      case FS_STAGE_MIROSTAT: stage->value[0] = (double)(take(in, 1) % 3); break;
      default: stage->value[0] = take_double(in, 0.5);
    }
  }
}

static void take_rows(Bytes* in, Input* to) {
  const unsigned kind = (unsigned)take(in, 1) % 5;
  int64_t i;
  for (i = 0; i < kRows * to->vocab; ++i) {
    const uint32_t bits = (uint32_t)take(in, 4);
    switch (kind) {
      case 0: to->x[i] = (float)(bits % 5); break;
      case 1: to->x[i] = bits % 7 ? -INFINITY : (float)(bits >> 8 & 255); break;
      case 2: to->x[i] = (float)((int32_t)bits * 0x1p-31 * FLT_MAX); break;
      default: to->x[i] = (float)((int32_t)bits * 0x1p-28); break;
    }
  }
  if (take(in, 1) < 24) to->x[take(in, 2) % (uint64_t)(kRows * to->vocab)] = NAN;
}

static void take_inputs(Bytes* in, Input* to) {
  int64_t i, k;
  to->vocab = 1 + (int64_t)(take(in, 2) % (take(in, 1) % 2 ? 40 : kVocab));
  to->words = 1 + (int64_t)(take(in, 1) % (uint64_t)((to->vocab + 31) / 32));
  to->x = (float*)allocate((size_t)(kRows * to->vocab) * sizeof *to->x);
  to->edits = (fs_edit*)allocate(kEdits * sizeof *to->edits);
  to->allowed = (uint32_t*)allocate((size_t)(kRows * to->words) * sizeof *to->allowed);
  take_rows(in, to);
  take_chain(in, to);
  for (i = 0; i < kEdits; ++i) {
    fs_edit* edit = &to->edits[i];
    memset(edit, 0, sizeof *edit);
    edit->id = (int32_t)((take(in, 2) % 100 + (uint64_t)i * 101) % (uint64_t)to->vocab);
    edit->banned = take(in, 1) % 4 == 0;
    edit->factor = take_double(in, 1.2);
    edit->subtract = take_uniform(in);
    edit->bias = take(in, 1) % 8 ? 0.0 : -INFINITY;
  }
  for (i = 0; i < kRows * to->words; ++i)
    to->allowed[i] = take(in, 1) % 4 ? (uint32_t)take(in, 4) : 0u;
  for (i = 0; i < kRows; ++i) {
    fs_draw* draw = &to->draws[i];
    fs_draw_init(draw, sizeof *draw);
    draw->u = take_uniform(in);
    draw->u_xtc = take_uniform(in);
    draw->edits = to->edits;
    draw->edit_count = (int64_t)(take(in, 1) % (kEdits + 1));
    /* The ids of a short row may come twice, which nobody may hand over. */
    for (k = 1; k < draw->edit_count; ++k)
      if (to->vocab < kEdits * 101) draw->edit_count = 1;
    if (take(in, 1) % 2) {
      draw->allowed = to->allowed + i * to->words;
      draw->allowed_count = 32 * to->words;
    }
  }
  fs_logits_init(&to->logits, sizeof to->logits);
  to->logits.data = to->x;
  to->logits.rows = kRows;
  to->logits.vocab = to->logits.row_stride = to->vocab;
}

static void free_inputs(Input* of) {
  free(of->x);
  free(of->edits);
  free(of->allowed);
}

/* ---- details ---- */

typedef struct Told {
  fs_status status;
  int64_t tokens[kRows], rank[kRows], support_count[kRows], top_count;
  float logprob[kRows], top_logprobs[kRows * kVocab];
  int32_t top_ids[kRows * kVocab], support[kRows * kVocab];
  double log_mass[kRows];
} Told;

static void check_row(const Input* of, const Told* t, int64_t i, int raw) {
  const int32_t *support = t->support + i * of->vocab, *top = t->top_ids + i * t->top_count;
  const float* of_top = t->top_logprobs + i * t->top_count;
  const int64_t token = t->tokens[i];
  int64_t k, inside = 0;
  if (token == -1) {
    HOLDS(t->rank[i] == 0 && isnan(t->logprob[i]) && isnan(t->log_mass[i]));
    HOLDS(t->support_count[i] == 0);
    return;
  }
  HOLDS(token >= 0 && token < of->vocab);
  HOLDS(t->support_count[i] >= 1 && t->support_count[i] <= of->vocab);
  for (k = 0; k < t->support_count[i]; ++k) {
    HOLDS(support[k] >= (k ? support[k - 1] + 1 : 0) && support[k] < of->vocab);
    inside += support[k] == token;
  }
  HOLDS(inside == 1);
  HOLDS(t->rank[i] >= 1 && t->rank[i] <= of->vocab);
  HOLDS(t->logprob[i] <= 0.0f && t->log_mass[i] <= 0.0 && !isnan(t->log_mass[i]));
  for (k = 0; k < t->top_count; ++k) {
    HOLDS(top[k] >= -1 && top[k] < of->vocab);
    HOLDS((top[k] == -1) <= (of_top[k] == -INFINITY) && of_top[k] <= 0.0f);
    if (k) HOLDS(of_top[k] <= of_top[k - 1] && (top[k] == -1 || top[k - 1] != -1));
    if (top[k] == token) HOLDS(of_top[k] == t->logprob[i]);
  }
  if (raw || !t->top_count) return;
  /* Of what is kept: the token is among the first where there are no more. */
  if (t->support_count[i] <= t->top_count) {
    for (k = 0, inside = 0; k < t->top_count; ++k) inside += top[k] == token;
    HOLDS(inside == 1);
  }
}

static void tell(const Input* of, Bytes in, Told* out) {
  const size_t vocab = (size_t)of->vocab;
  const int raw = (int)(take(&in, 1) % 2);
  const uint32_t flags = take(&in, 1) % 2 ? FS_MARK_BAD_ROWS : 0;
  const size_t most = take(&in, 1) % 2 && vocab > 3 ? 3 : vocab;
  const size_t top = (size_t)(take(&in, 2) % (most + 1));
  int32_t* top_ids = (int32_t*)allocate(kRows * top * sizeof *top_ids);
  float* top_logprobs = (float*)allocate(kRows * top * sizeof *top_logprobs);
  int32_t* support = (int32_t*)allocate(kRows * vocab * sizeof *support);
  int64_t tokens[kRows], i;
  double states[kRows][2];
  fs_draw draws[kRows];
  fs_details details;
  fs_status status;
  memset(out, 0, sizeof *out);
  memset(top_ids, 0, kRows * top * sizeof *top_ids);
  memset(top_logprobs, 0, kRows * top * sizeof *top_logprobs);
  memset(support, 0, kRows * vocab * sizeof *support);
  out->top_count = (int64_t)top;
  fs_details_init(&details, sizeof details);
  details.logprobs = raw ? FS_LOGPROBS_RAW : FS_LOGPROBS_PROCESSED;
  details.logprob = out->logprob;
  details.rank = out->rank;
  details.top_count = (int64_t)top;
  details.top_ids = top_ids;
  details.top_logprobs = top_logprobs;
  details.support = support;
  details.support_count = out->support_count;
  details.log_mass = out->log_mass;
  for (i = 0; i < kRows; ++i) {
    draws[i] = of->draws[i];
    draws[i].state = states[i];
    states[i][0] = states[i][1] = 5.0;
    out->tokens[i] = tokens[i] = kMark;
  }
  out->status =
      fs_sample_details(&of->logits, &of->chain, 1, draws, 1, flags, out->tokens, &details);
  HOLDS((out->status == FS_OK) == (*fs_last_error() == '\0'));
  if (out->status == FS_OK) {
    memcpy(out->top_ids, top_ids, kRows * top * sizeof *top_ids);
    memcpy(out->top_logprobs, top_logprobs, kRows * top * sizeof *top_logprobs);
    memcpy(out->support, support, kRows * vocab * sizeof *support);
    for (i = 0; i < kRows; ++i) check_row(of, out, i, raw);
  } else {
    for (i = 0; i < kRows; ++i)
      HOLDS(out->tokens[i] == kMark && states[i][0] == 5.0 && states[i][1] == 5.0);
    memset(out->rank, 0, sizeof out->rank); /* of which nothing is said */
    memset(out->logprob, 0, sizeof out->logprob);
    memset(out->log_mass, 0, sizeof out->log_mass);
    memset(out->support_count, 0, sizeof out->support_count);
  }
  /* The tokens are those of the draw without details, but where a raw row is bad. */
  for (i = 0; i < kRows; ++i) states[i][0] = states[i][1] = 5.0;
  status = fs_sample(&of->logits, &of->chain, 1, draws, 1, flags, tokens);
  if (status == out->status && status == FS_OK) {
    for (i = 0; i < kRows; ++i) HOLDS(tokens[i] == out->tokens[i] || (raw && out->tokens[i] == -1));
  } else {
    HOLDS(status == out->status || (raw && out->status == FS_BAD_LOGITS));
  }
  free(top_ids);
  free(top_logprobs);
  free(support);
}

/* ---- drafts ---- */

typedef struct Verified {
  fs_status status;
  int64_t tokens[kRows], accepted;
} Verified;

static void verify(const Input* of, Bytes in, Verified* out) {
  const int32_t method = 1 + (int32_t)(take(&in, 1) % 3);
  const unsigned kind = (unsigned)take(&in, 1) % 3;
  const int64_t count = (int64_t)(take(&in, 1) % kRows), stride = count + 1;
  const fs_source target = {sizeof target, &of->logits, &of->chain, 1, of->draws};
  fs_logits less = of->logits, rows = of->logits;
  fs_source source = target, draft = target;
  fs_drafts drafts;
  int64_t tokens[kRows], offsets[kRows], i, k;
  int32_t* ids;
  double* weights;
  rows.rows = stride;
  source.logits = &rows;
  less.rows = count;
  less.data = of->x + of->vocab * (int64_t)(take(&in, 1) % 2); /* other rows, or the same */
  draft.logits = &less;
  fs_drafts_init(&drafts, sizeof drafts);
  drafts.count = count;
  drafts.tokens = tokens;
  drafts.target = &source;
  drafts.seed = take(&in, 8);
  drafts.stream = take(&in, 1);
  drafts.offset = take(&in, 8);
  offsets[0] = 0;
  for (i = 0; i < count; ++i) {
    tokens[i] = (int64_t)(take(&in, 2) % (uint64_t)of->vocab);
    offsets[i + 1] = offsets[i] + 1 + (int64_t)(take(&in, 1) % (uint64_t)of->vocab);
    if (take(&in, 1) == 0) tokens[i] = of->vocab;
  }
  ids = (int32_t*)allocate((size_t)offsets[count] * sizeof *ids);
  weights = (double*)allocate((size_t)offsets[count] * sizeof *weights);
  for (i = 0; i < count; ++i)
    for (k = offsets[i]; k < offsets[i + 1]; ++k) {
      ids[k] = (int32_t)((tokens[i] + k - offsets[i]) % of->vocab);
      weights[k] = take(&in, 1) % 8 ? take_uniform(&in) : take_double(&in, 0.0);
    }
  if (kind == 1) drafts.draft = &draft;
  if (kind == 2) {
    drafts.offsets = offsets;
    drafts.ids = ids;
    drafts.weights = weights;
  }
  memset(out, 0, sizeof *out);
  for (i = 0; i < kRows; ++i) out->tokens[i] = kMark;
  out->accepted = kMark;
  out->status = fs_verify(&drafts, 1, method, stride, out->tokens, &out->accepted);
  HOLDS((out->status == FS_OK) == (*fs_last_error() == '\0'));
  for (i = out->status == FS_OK ? stride : 0; i < kRows; ++i) HOLDS(out->tokens[i] == kMark);
  if (out->status == FS_OK) {
    HOLDS(out->accepted >= 0 && out->accepted <= count);
    for (i = 0; i < out->accepted; ++i) HOLDS(out->tokens[i] == tokens[i]);
    HOLDS(out->tokens[i] >= 0 && out->tokens[i] < of->vocab);
    for (++i; i < stride; ++i) HOLDS(out->tokens[i] == -1);
  } else {
    HOLDS(out->accepted == kMark);
  }
  free(ids);
  free(weights);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Told first, other;
  Verified first_verified, other_verified;
  char isas[100], *isa;
  int round = 0;
  HOLDS(strlen(fs_isas()) < sizeof isas);
  strcpy(isas, fs_isas());
  for (isa = strtok(isas, ","); isa; isa = strtok(NULL, ","), ++round) {
    Input input;
    Bytes in;
    size_t i;
    HOLDS(fs_force_isa(isa) == FS_OK);
    in.data = data;
    in.left = size;
    in.state = size;
    for (i = 0; i < size; ++i) in.state = (in.state ^ data[i]) * 1099511628211u;
    take_inputs(&in, &input);
    tell(&input, in, round ? &other : &first);
    verify(&input, in, round ? &other_verified : &first_verified);
    free_inputs(&input);
    if (!round) continue;
    HOLDS(memcmp(&first, &other, sizeof first) == 0);
    HOLDS(memcmp(&first_verified, &other_verified, sizeof first_verified) == 0);
  }
  ++told[first.status];
  ++verified[first_verified.status];
  return 0;
}

#ifndef FASTSAMPLE_LIBFUZZER
int main(int argc, char** argv) {
  const long runs = run_seeds(argc, argv, 2000);
  int i;
  printf("details: %ld ok, %ld invalid arguments, %ld bad logits\n", told[0], told[1], told[2]);
  printf("drafts: %ld ok, %ld invalid arguments, %ld bad logits\n", verified[0], verified[1],
         verified[2]);
  /* A fuzzer that is always refused tests nothing. */
  if (runs > 500) {
    for (i = 0; i < 3; ++i)
      if (told[i] < runs / 50 || verified[i] < runs / 50) {
        printf("too few runs of some status\n");
        return 1;
      }
  }
  printf("%ld passed, 0 failed\n", runs);
  return 0;
}
#endif
