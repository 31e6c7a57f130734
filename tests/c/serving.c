/* What a server asks for beside tokens, checked from outside: details of a draw.
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
  int64_t tokens[kRows], rank[kRows], support_count[kRows];
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
    int larger = 0, kept = 0;
    CHECK(raw->logprob[i] == logarithms[i * kVocab + raw->tokens[i]]);
    for (j = 0; j < kVocab; ++j) {
      larger += rows[i][j] > rows[i][raw->tokens[i]];
      sum += raw->support[i * kVocab + kept] == j && kept < raw->support_count[i]
                 ? exp((double)logarithms[i * kVocab + j])
                 : 0.0;
      kept += raw->support[i * kVocab + kept] == j && kept < raw->support_count[i];
    }
    CHECK(kept == raw->support_count[i]);
    CHECK(kept <= 50);
    CHECK(raw->rank[i] == larger + 1);
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
  CHECK(told.tokens[1] == -1 && told.rank[1] == 0 && told.support_count[1] == 0);
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

static size_t next_isa(const char* names, char isa[16]) {
  size_t length = strcspn(names, ",");
  if (length > 15) length = 15;
  memcpy(isa, names, length);
  isa[length] = '\0';
  return names[length] ? length + 1 : length;
}

int main(void) {
  static Told raw[2], processed[2];
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
    if (count == 0) continue;
    CHECK(memcmp(&raw[0], &raw[1], sizeof *raw) == 0);
    CHECK(memcmp(&processed[0], &processed[1], sizeof *processed) == 0);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
