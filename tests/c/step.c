/* Steps of the installed library with masks and details, and tokens that were drawn elsewhere.
 * Ends with "N passed, 0 failed". */
#include <fastsample.h>
#include <math.h>

#include "checks.h"

enum { kRows = 5, kVocab = 333, kWords = (kVocab + 31) / 32, kTop = 3 };

static float x[kRows * kVocab];
static const int32_t kOnly[4] = {3, 40, 300, 301};

static void fill_rows(void) {
  uint64_t state = 3;
  int64_t i;
  for (i = 0; i < kRows * kVocab; ++i)
    x[i] = (float)(next_random(&state) >> 8) / 16777216.0f * 8.0f;
}

static fs_logits logits_of(const float* data, int64_t rows) {
  fs_logits logits;
  fs_logits_init(&logits, sizeof logits);
  logits.data = data;
  logits.rows = rows;
  logits.vocab = logits.row_stride = kVocab;
  return logits;
}

/* Of top_k, with a coin where i is odd, and in row 2 with rules of its own. */
static fs_sampler* sampler_of(int64_t i) {
  fs_stage stages[2];
  fs_chain chain;
  fs_rule rules[2];
  fs_sampler* sampler = NULL;
  fs_stage_init(&stages[0], sizeof *stages, FS_STAGE_TOP_K);
  fs_stage_init(&stages[1], sizeof *stages, FS_STAGE_XTC);
  stages[0].value[0] = 20.0;
  stages[1].value[0] = 0.5 * (double)(i % 2);
  fs_chain_init(&chain, sizeof chain);
  chain.stages = stages;
  chain.stage_count = 2;
  fs_rule_init(&rules[0], sizeof *rules, FS_RULE_REPETITION);
  rules[0].value[0] = 1.5;
  fs_rule_init(&rules[1], sizeof *rules, FS_RULE_ALLOWED_IDS);
  rules[1].ids = kOnly;
  rules[1].count = 4;
  CHECK(fs_sampler_new(&chain, rules, i == 2 ? 2 : 1, (uint64_t)i, 0, 7, &sampler) == FS_OK);
  return sampler;
}

/* Every other token, and other ones in each row. */
static void fill_masks(uint32_t words[kRows][kWords]) {
  int64_t i, k;
  for (i = 0; i < kRows; ++i)
    for (k = 0; k < kWords; ++k) words[i][k] = i % 2 ? 0xaaaaaaaau : 0x55555555u;
  words[2][kOnly[1] / 32] |= 1u << kOnly[1] % 32;
}

static int allows(const uint32_t* words, int64_t token) {
  return (int)(words[token / 32] >> token % 32 & 1);
}

typedef struct Told {
  int64_t tokens[kRows], rank[kRows], support_count[kRows];
  float logprob[kRows], top_logprobs[kRows * kTop];
  int32_t top_ids[kRows * kTop], support[kRows * kVocab];
  double log_mass[kRows];
} Told;

/* From row `first` on. */
static fs_details details_in(Told* told, int64_t first) {
  fs_details details;
  fs_details_init(&details, sizeof details);
  details.logprobs = FS_LOGPROBS_PROCESSED;
  details.logprob = told->logprob + first;
  details.rank = told->rank + first;
  details.top_count = kTop;
  details.top_ids = told->top_ids + first * kTop;
  details.top_logprobs = told->top_logprobs + first * kTop;
  details.support = told->support + first * kVocab;
  details.support_count = told->support_count + first;
  details.log_mass = told->log_mass + first;
  return details;
}

static void test_masks_and_details(void) {
  static Told together, alone;
  static uint32_t words[kRows][kWords];
  fs_sampler *several[kRows], *one[kRows];
  fs_logits batch = logits_of(x, kRows);
  fs_masks masks;
  int64_t i, k, round;
  fill_masks(words);
  fs_masks_init(&masks, sizeof masks);
  masks.allowed = words[0];
  masks.allowed_count = kVocab;
  masks.row_stride = kWords;
  memset(&together, 0, sizeof together);
  memset(&alone, 0, sizeof alone);
  for (i = 0; i < kRows; ++i) {
    several[i] = sampler_of(i);
    CHECK(fs_sampler_copy(several[i], &one[i]) == FS_OK);
  }
  for (round = 0; round < 6; ++round) {
    fs_details details = details_in(&together, 0);
    masks.row_stride = round == 4 ? 0 : kWords; /* the first one for all */
    CHECK(fs_step_details(several, &batch, round < 5 ? &masks : NULL, 1 + (int32_t)round % 3, 0,
                          together.tokens, &details) == FS_OK);
    for (i = 0; i < kRows; ++i) {
      const fs_logits row = logits_of(x + i * kVocab, 1);
      fs_masks mine = masks;
      details = details_in(&alone, i);
      if (round != 4) mine.allowed = words[i];
      CHECK(fs_step_details(&one[i], &row, round < 5 ? &mine : NULL, 1, 0, &alone.tokens[i],
                            &details) == FS_OK);
      CHECK(together.support_count[i] >= 1 && together.support_count[i] <= 20);
      for (k = 0; k < together.support_count[i] && round < 5; ++k)
        CHECK(allows(mine.allowed, together.support[i * kVocab + k]));
      CHECK(together.rank[i] >= 1 && together.logprob[i] <= 0.0f && together.log_mass[i] <= 0.0);
    }
    CHECK(memcmp(&together, &alone, sizeof together) == 0);
    for (k = 0; k < together.support_count[2]; ++k) {
      const int32_t id = together.support[2 * kVocab + k];
      CHECK(id == kOnly[0] || id == kOnly[1] || id == kOnly[2] || id == kOnly[3]);
    }
  }
  /* Fewer are allowed without a mask of words, too. */
  masks.allowed = NULL;
  masks.allowed_count = 41;
  CHECK(fs_step_details(several, &batch, &masks, 1, 0, together.tokens, NULL) == FS_OK);
  for (i = 0; i < kRows; ++i) CHECK(together.tokens[i] < 41);
  for (i = 0; i < kRows; ++i) {
    fs_sampler_free(several[i]);
    fs_sampler_free(one[i]);
  }
}

static void expect(fs_sampler* sampler, uint64_t offset, int64_t length) {
  fs_sampler_info info;
  info.struct_size = sizeof info;
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_OK);
  CHECK(info.offset == offset && info.history_length == length);
}

static void test_refusals(void) {
  static Told told;
  static const uint32_t none[kWords];
  fs_sampler* sampler = sampler_of(0);
  const fs_logits row = logits_of(x, 1);
  fs_details details = details_in(&told, 0);
  fs_masks masks;
  int64_t token = -7;
  fs_masks_init(&masks, sizeof masks);
  masks.allowed = none;
  masks.allowed_count = kVocab;
  CHECK(fs_step_details(&sampler, &row, &masks, 1, 0, &token, &details) == FS_BAD_LOGITS);
  CHECK(strcmp(fs_last_error(), "logits row 0 must have an allowed token, got none") == 0);
  CHECK(token == -7);
  CHECK(fs_step_details(&sampler, &row, &masks, 1, FS_MARK_BAD_ROWS, &token, &details) == FS_OK);
  CHECK(token == -1 && told.rank[0] == 0 && isnan(told.logprob[0]) && told.support_count[0] == 0);
  expect(sampler, 7, 0);
  masks.allowed_count = -1;
  CHECK(fs_step_details(&sampler, &row, &masks, 1, 0, &token, NULL) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "masks.allowed_count must be >= 0, got -1"));
  masks.struct_size = 8;
  CHECK(fs_step_details(&sampler, &row, &masks, 1, 0, &token, NULL) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "masks.struct_size must be"));
  details.top_count = -1;
  CHECK(fs_step_details(&sampler, &row, NULL, 1, 0, &token, &details) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "details.top_count must be in [0, logits.vocab], got -1"));
  CHECK(fs_sampler_seek(sampler, 0, 0, UINT64_MAX) == FS_OK);
  CHECK(fs_step(&sampler, &row, 1, 0, &token) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "offset must be less than 2**64 - 1"));
  CHECK(token == -1);
  expect(sampler, UINT64_MAX, 0);
  fs_sampler_free(sampler);
}

/* What was drawn elsewhere is drawn again after a roll-back. */
static void test_accept(void) {
  fs_sampler *sampler = sampler_of(1), *other = sampler_of(1);
  const fs_logits row = logits_of(x, 1);
  const int32_t wrong[1] = {-1};
  int32_t ids[4];
  int64_t token, i;
  for (i = 0; i < 4; ++i) {
    CHECK(fs_step(&sampler, &row, 1, 0, &token) == FS_OK);
    ids[i] = (int32_t)token;
  }
  CHECK(fs_sampler_accept(other, ids, 4) == FS_OK);
  expect(other, 11, 4);
  CHECK(fs_sampler_accept(other, wrong, 1) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_accept(other, NULL, 0) == FS_OK);
  CHECK(fs_sampler_rollback(other, 3) == FS_OK);
  expect(other, 8, 1);
  for (i = 1; i < 4; ++i) {
    CHECK(fs_step(&other, &row, 1, 0, &token) == FS_OK);
    CHECK(token == ids[i]);
  }
  CHECK(fs_sampler_seek(other, 1, 0, UINT64_MAX - 3) == FS_OK);
  CHECK(fs_sampler_accept(other, ids, 4) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "count must be at most the offsets that are left, got 4"));
  expect(other, UINT64_MAX - 3, 4);
  CHECK(fs_sampler_accept(other, ids, 3) == FS_OK);
  expect(other, UINT64_MAX, 7);
  fs_sampler_free(sampler);
  fs_sampler_free(other);
}

static void tests(void) {
  test_masks_and_details();
  test_refusals();
  test_accept();
}

int main(int argc, char** argv) {
  fill_rows();
  for_isas(argc > 1 ? argv[1] : fs_isas(), tests);
  return finish();
}
