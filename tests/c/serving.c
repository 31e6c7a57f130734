/* What a server asks for beside tokens, checked from outside: details of a draw, and drafts
 * verified.
 *
 * Valid as C99 and as C++17. Every check runs once for each instruction set of this machine, which
 * have to say the same. Ends with "N passed, 0 failed". */
#include <fastsample.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int passed, failed;

#define CHECK(condition)                                                                       \
  do {                                                                                         \
    if (condition) {                                                                           \
      ++passed;                                                                                \
    } else {                                                                                   \
      ++failed;                                                                                \
      printf("FAILED %s:%d: %s (isa %s, last error \"%s\")\n", __FILE__, __LINE__, #condition, \
             fs_isa(), fs_last_error());                                                       \
    }                                                                                          \
  } while (0)

enum { kVocab = 700, kRows = 3, kTop = 4 };

static float rows[kRows][kVocab];

static void fill_rows(void) {
  uint64_t state = 1;
  int i, j;
  for (i = 0; i < kRows; ++i)
    for (j = 0; j < kVocab; ++j) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      rows[i][j] = (float)((double)(state >> 40) / 16777216.0 * 12.0 - 6.0);
    }
}

static fs_logits logits_of(int64_t count) {
  fs_logits logits;
  fs_logits_init(&logits, sizeof logits);
  logits.data = rows;
  logits.rows = count;
  logits.vocab = logits.row_stride = kVocab;
  logits.dtype = FS_FLOAT32;
  return logits;
}

/* Temperature 0.8, top_k 50, top_p 0.95. */
static fs_chain usual_chain(fs_stage stages[3]) {
  fs_chain chain;
  fs_chain_init(&chain, sizeof chain);
  fs_stage_init(&stages[0], sizeof *stages, FS_STAGE_TEMPERATURE);
  fs_stage_init(&stages[1], sizeof *stages, FS_STAGE_TOP_K);
  fs_stage_init(&stages[2], sizeof *stages, FS_STAGE_TOP_P);
  stages[0].value[0] = 0.8;
  stages[1].value[0] = 50;
  stages[2].value[0] = 0.95;
  chain.stages = stages;
  chain.stage_count = 3;
  return chain;
}

typedef struct Told {
  int64_t tokens[kRows], rank[kRows], at_least[kRows], support_count[kRows];
  float logprob[kRows], top_logprobs[kRows * kTop];
  int32_t top_ids[kRows * kTop], support[kRows * kVocab];
  double log_mass[kRows];
} Told;

static fs_details details_in(Told* told, int32_t logprobs) {
  fs_details details;
  memset(told, 0, sizeof *told);
  fs_details_init(&details, sizeof details);
  details.logprobs = logprobs;
  details.logprob = told->logprob;
  details.rank = told->rank;
  details.top_count = kTop;
  details.top_ids = told->top_ids;
  details.top_logprobs = told->top_logprobs;
  details.support = told->support;
  details.support_count = told->support_count;
  details.log_mass = told->log_mass;
  details.at_least = told->at_least;
  return details;
}

static fs_status tell(Told* told, int32_t logprobs, uint32_t flags) {
  const fs_logits logits = logits_of(kRows);
  fs_stage stages[3];
  const fs_chain chain = usual_chain(stages);
  const fs_details details = details_in(told, logprobs);
  fs_draw draws[kRows];
  int i;
  for (i = 0; i < kRows; ++i) {
    fs_draw_init(&draws[i], sizeof draws[i]);
    draws[i].u = fs_uniform(7, (uint64_t)i, 0);
  }
  return fs_sample_details(&logits, &chain, 1, draws, 1, flags, told->tokens, &details);
}

static void test_details(Told* raw, Told* processed) {
  const fs_logits logits = logits_of(kRows);
  static float logarithms[kRows * kVocab];
  int i, j;
  CHECK(tell(raw, FS_LOGPROBS_RAW, 0) == FS_OK);
  CHECK(tell(processed, FS_LOGPROBS_PROCESSED, 0) == FS_OK);
  CHECK(fs_log_softmax(&logits, 1.0, logarithms) == FS_OK);
  CHECK(memcmp(raw->tokens, processed->tokens, sizeof raw->tokens) == 0);
  for (i = 0; i < kRows; ++i) {
    double sum = 0.0;
    int larger = 0, as_large = 0, kept = 0;
    CHECK(raw->logprob[i] == logarithms[i * kVocab + raw->tokens[i]]);
    for (j = 0; j < kVocab; ++j) {
      larger += rows[i][j] > rows[i][raw->tokens[i]];
      as_large += rows[i][j] >= rows[i][raw->tokens[i]];
      sum += raw->support[i * kVocab + kept] == j && kept < raw->support_count[i]
                 ? exp((double)logarithms[i * kVocab + j])
                 : 0.0;
      kept += raw->support[i * kVocab + kept] == j && kept < raw->support_count[i];
    }
    CHECK(kept == raw->support_count[i]);
    CHECK(kept <= 50);
    CHECK(raw->rank[i] == larger + 1);
    CHECK(raw->at_least[i] == as_large);
    CHECK(processed->rank[i] == larger + 1); /* the larger ones are kept */
    CHECK(raw->top_ids[i * kTop] == processed->top_ids[i * kTop]);
    CHECK(processed->logprob[i] > raw->logprob[i]);
    CHECK(raw->log_mass[i] < 0.0);
    CHECK(raw->log_mass[i] > log(sum)); /* sharper at temperature 0.8 */
  }
}

static void test_marked(void) {
  Told told;
  const float before = rows[1][5];
  rows[1][5] = NAN;
  CHECK(tell(&told, FS_LOGPROBS_RAW, 0) == FS_BAD_LOGITS);
  CHECK(told.tokens[0] == 0 && told.tokens[2] == 0);
  CHECK(tell(&told, FS_LOGPROBS_RAW, FS_MARK_BAD_ROWS) == FS_OK);
  CHECK(told.tokens[1] == -1 && told.rank[1] == 0 && told.at_least[1] == 0);
  CHECK(told.support_count[1] == 0);
  CHECK(isnan(told.logprob[1]) && told.logprob[2] < 0.0f);
  rows[1][5] = before;
}

static void refuse(fs_details details, const char* message) {
  const fs_logits logits = logits_of(1);
  fs_chain chain;
  fs_draw draw;
  int64_t token = 0;
  fs_chain_init(&chain, sizeof chain);
  fs_draw_init(&draw, sizeof draw);
  CHECK(fs_sample_details(&logits, &chain, 1, &draw, 1, 0, &token, &details) ==
        FS_INVALID_ARGUMENT);
  if (strstr(fs_last_error(), message) == NULL) printf("not: %s\n", message);
  CHECK(strstr(fs_last_error(), message) != NULL);
}

static void test_refusals(void) {
  Told told;
  fs_details details = details_in(&told, 0);
  refuse(details, "details.logprobs must be an fs_logprobs, got 0");
  details = details_in(&told, 3);
  refuse(details, "details.logprobs must be an fs_logprobs, got 3");
  details = details_in(&told, 1);
  details.struct_size = 8;
  refuse(details, "details.struct_size must be sizeof(fs_details)");
  details = details_in(&told, 1);
  details.reserved = 1;
  refuse(details, "details.reserved must be 0, got 1");
  details = details_in(&told, 1);
  details.top_count = kVocab + 1;
  refuse(details, "details.top_count must be in [0, logits.vocab], got 701");
  details = details_in(&told, 1);
  details.top_ids = NULL;
  refuse(details, "details.top_ids and details.top_logprobs must both be null, or none");
  details = details_in(&told, 1);
  details.support_count = NULL;
  refuse(details, "details.support and details.support_count must both be null, or none");
}

/* ---- drafts ---- */

enum { kDrafts = kRows - 1 };

/* What two sequences of the same drafts emit, of which the second has another stream. */
typedef struct Emitted {
  int64_t tokens[2][kRows + 1], accepted[2];
} Emitted;

/* Of drafts drawn from lists of all tokens that weigh the same, or where `lists` is null from the
 * token itself. */
static fs_status verify(Emitted* out, const int64_t* tokens, int lists, int32_t method) {
  static int64_t offsets[kDrafts + 1];
  static int32_t ids[kDrafts * kVocab];
  static double weights[kDrafts * kVocab];
  const fs_logits logits = logits_of(kRows);
  fs_stage stages[3];
  const fs_chain chain = usual_chain(stages);
  const fs_source target = {sizeof target, &logits, &chain, 1, NULL};
  fs_drafts drafts[2];
  int i, j;
  for (i = 0; i < kDrafts; ++i) {
    offsets[i + 1] = (i + 1) * kVocab;
    for (j = 0; j < kVocab; ++j) {
      ids[i * kVocab + j] = kVocab - 1 - j;
      weights[i * kVocab + j] = 2.0;
    }
  }
  memset(out, 0, sizeof *out);
  for (i = 0; i < 2; ++i) {
    fs_drafts_init(&drafts[i], sizeof *drafts);
    drafts[i].count = kDrafts;
    drafts[i].tokens = tokens;
    drafts[i].target = &target;
    drafts[i].seed = 7;
    drafts[i].stream = (uint64_t)i;
    drafts[i].offset = 20;
    if (!lists) continue;
    drafts[i].offsets = offsets;
    drafts[i].ids = ids;
    drafts[i].weights = weights;
  }
  return fs_verify(drafts, 2, method, kRows + 1, out->tokens[0], out->accepted);
}

static int64_t own_token(int row, uint64_t offset) {
  fs_logits logits = logits_of(1);
  fs_stage stages[3];
  const fs_chain chain = usual_chain(stages);
  fs_draw draw;
  int64_t token = -1;
  logits.data = rows[row];
  fs_draw_init(&draw, sizeof draw);
  draw.u = fs_uniform(7, 0, offset);
  CHECK(fs_sample(&logits, &chain, 1, &draw, 1, 0, &token) == FS_OK);
  return token;
}

static void test_exact(void) {
  int64_t own[kRows], other[kDrafts];
  Emitted out;
  int i;
  for (i = 0; i < kRows; ++i) own[i] = own_token(i, 20 + (uint64_t)i);
  CHECK(verify(&out, own, 0, FS_VERIFY_EXACT) == FS_OK);
  CHECK(out.accepted[0] == kDrafts);
  CHECK(memcmp(out.tokens[0], own, sizeof own) == 0);
  CHECK(out.tokens[0][kRows] == 0); /* beyond what is said to be written */
  memcpy(other, own, sizeof other);
  other[0] = (own[0] + 1) % kVocab;
  CHECK(verify(&out, other, 0, FS_VERIFY_EXACT) == FS_OK);
  CHECK(out.accepted[0] == 0 && out.tokens[0][0] == own[0]);
  CHECK(out.tokens[0][1] == -1 && out.tokens[0][kDrafts] == -1);
}

static void test_methods(Emitted all[4]) {
  int64_t own[kDrafts];
  int i, r;
  for (i = 0; i < kDrafts; ++i) own[i] = own_token(i, 20 + (uint64_t)i);
  CHECK(verify(&all[0], own, 0, FS_VERIFY_TOKEN) == FS_OK);
  CHECK(verify(&all[1], own, 1, FS_VERIFY_TOKEN) == FS_OK);
  CHECK(verify(&all[2], own, 0, FS_VERIFY_BLOCK) == FS_OK);
  CHECK(verify(&all[3], own, 1, FS_VERIFY_BLOCK) == FS_OK);
  for (i = 0; i < 4; ++i)
    for (r = 0; r < 2; ++r) {
      const int64_t accepted = all[i].accepted[r];
      CHECK(accepted >= 0 && accepted <= kDrafts);
      CHECK(memcmp(all[i].tokens[r], own, (size_t)accepted * sizeof *own) == 0);
      CHECK(all[i].tokens[r][accepted] >= 0 && all[i].tokens[r][accepted] < kVocab);
    }
  /* What every list has with one weight of 700 is surely accepted where it is kept. */
  CHECK(all[1].accepted[0] == kDrafts && all[3].accepted[0] == kDrafts);
}

static void refuse_drafts(fs_drafts drafts, int64_t stride, const char* message) {
  int64_t tokens[kRows + 1] = {5}, accepted = 5;
  CHECK(fs_verify(&drafts, 1, FS_VERIFY_TOKEN, stride, tokens, &accepted) == FS_INVALID_ARGUMENT);
  if (strstr(fs_last_error(), message) == NULL) printf("not: %s\n", message);
  CHECK(strstr(fs_last_error(), message) != NULL);
  CHECK(tokens[0] == 5 && accepted == 5);
}

static void test_refused_drafts(void) {
  const fs_logits logits = logits_of(kRows);
  fs_stage stage;
  fs_chain chain;
  fs_source target;
  const int64_t tokens[kDrafts] = {1, 2}, beyond[kDrafts] = {1, kVocab};
  const int64_t offsets[kDrafts + 1] = {0, 1, 2};
  const int32_t ids[2] = {3, 4};
  const double none[2] = {1.0, 0.0};
  fs_drafts drafts, good;
  fs_stage_init(&stage, sizeof stage, FS_STAGE_MIROSTAT);
  fs_chain_init(&chain, sizeof chain);
  fs_source_init(&target, sizeof target);
  chain.stages = &stage;
  chain.stage_count = 1;
  target.logits = &logits;
  target.chains = &chain;
  target.chain_count = 1;
  fs_drafts_init(&good, sizeof good);
  good.count = kDrafts;
  good.tokens = tokens;
  good.target = &target;
  drafts = good;
  drafts.struct_size = 8;
  refuse_drafts(drafts, kRows, "drafts.struct_size must be sizeof(fs_drafts)");
  drafts = good;
  drafts.count = 4097;
  refuse_drafts(drafts, kRows, "drafts.count must be in [0, 4096], got 4097");
  drafts = good;
  drafts.count = 1;
  refuse_drafts(drafts, kRows, "target.logits.rows must be 2, got 3");
  drafts = good;
  drafts.tokens = beyond;
  refuse_drafts(drafts, kRows, "drafts.tokens must be in [0, vocab), got 700");
  drafts = good;
  drafts.tokens = NULL;
  refuse_drafts(drafts, kRows, "drafts.tokens must not be null");
  drafts = good;
  drafts.target = NULL;
  refuse_drafts(drafts, kRows, "target must not be null");
  drafts = good;
  drafts.offsets = offsets;
  refuse_drafts(drafts, kRows, "drafts.ids and drafts.weights must not be null");
  drafts.ids = ids;
  drafts.weights = none;
  refuse_drafts(drafts, kRows, "drafts.weights must be of a finite sum > 0, got 0");
  refuse_drafts(good, kDrafts, "stride must be > 2, the most drafts, got 2");
  stage.value[0] = 2;
  refuse_drafts(good, kRows, "target.mirostat must be off where drafts are verified");
}

/* What is wrong inside of a source says which of the two it is. */
static void test_refused_sources(void) {
  const fs_logits rows = logits_of(kRows), fewer = logits_of(kDrafts);
  const int64_t tokens[kDrafts] = {1, 2};
  fs_logits flat = fewer;
  fs_chain chain, idle;
  fs_source target, draft;
  fs_drafts drafts;
  fs_chain_init(&chain, sizeof chain);
  fs_chain_init(&idle, sizeof idle);
  idle.min_tokens_to_keep = 0;
  fs_source_init(&target, sizeof target);
  target.logits = &rows;
  target.chains = &chain;
  target.chain_count = 1;
  draft = target;
  draft.logits = &fewer;
  fs_drafts_init(&drafts, sizeof drafts);
  drafts.count = kDrafts;
  drafts.tokens = tokens;
  drafts.target = &target;
  drafts.draft = &draft;
  flat.vocab = 0;
  draft.logits = &flat;
  refuse_drafts(drafts, kRows, "draft.logits.vocab must be from 1 to 4194304, got 0");
  draft.logits = NULL;
  refuse_drafts(drafts, kRows, "draft.logits must not be null");
  draft.logits = &rows;
  refuse_drafts(drafts, kRows, "draft.logits.rows must be 2, got 3");
  draft.logits = &fewer;
  draft.chains = NULL;
  refuse_drafts(drafts, kRows, "draft.chains must not be null");
  draft.chains = &idle;
  refuse_drafts(drafts, kRows, "draft.min_tokens_to_keep must be >= 1, got 0");
  draft.struct_size = 8;
  refuse_drafts(drafts, kRows, "draft.struct_size must be sizeof(fs_source)");
  target.chains = &idle;
  refuse_drafts(drafts, kRows, "target.min_tokens_to_keep must be >= 1, got 0");
  target.chain_count = 2;
  refuse_drafts(drafts, kRows, "target.chain_count must be 1 or logits.rows, got 2");
  target.struct_size = 8;
  refuse_drafts(drafts, kRows, "target.struct_size must be sizeof(fs_source)");
}

static void test_bad_targets(void) {
  int64_t own[kDrafts];
  Emitted out;
  int i;
  const float before = rows[1][5];
  for (i = 0; i < kDrafts; ++i) own[i] = own_token(i, 20 + (uint64_t)i);
  rows[1][5] = NAN;
  CHECK(verify(&out, own, 1, FS_VERIFY_EXACT) == FS_BAD_LOGITS);
  CHECK(strstr(fs_last_error(), "target row 1 must not contain NaN, got one at token 5") != NULL);
  CHECK(out.accepted[0] == 0 && out.tokens[0][0] == 0);
  rows[1][5] = before;
}

static size_t next_isa(const char* names, char isa[16]) {
  size_t length = strcspn(names, ",");
  if (length > 15) length = 15;
  memcpy(isa, names, length);
  isa[length] = '\0';
  return names[length] ? length + 1 : length;
}

int main(void) {
  static Told raw[2], processed[2];
  static Emitted emitted[2][4];
  const char* names = fs_isas();
  char isa[16];
  int count;
  fill_rows();
  for (count = 0; *names; ++count) {
    names += next_isa(names, isa);
    CHECK(fs_force_isa(isa) == FS_OK);
    test_details(&raw[count > 0], &processed[count > 0]);
    test_marked();
    test_refusals();
    test_exact();
    test_methods(emitted[count > 0]);
    test_refused_drafts();
    test_refused_sources();
    test_bad_targets();
    if (count == 0) continue;
    CHECK(memcmp(&raw[0], &raw[1], sizeof *raw) == 0);
    CHECK(memcmp(emitted[0], emitted[1], sizeof *emitted) == 0);
    CHECK(memcmp(&processed[0], &processed[1], sizeof *processed) == 0);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
