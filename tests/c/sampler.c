/* Sequences of the installed library: fs_sampler and fs_step, against the stateless calls and a
 * plain count of what penalties and DRY mean. Ends with "N passed, 0 failed". */
#include <fastsample.h>
#include <math.h>
#include <stdlib.h>

#include "checks.h"

enum { kVocab = 1000, kTokens = 150, kPrompt = 40, kWindow = 64, kBreaker = 3, kSentinel = 0x5a };

static const double kRepetition = 1.2, kFrequency = 0.3, kMultiplier = 0.8, kBase = 2.0;

typedef struct Chain {
  fs_stage stages[4];
  fs_chain chain;
} Chain;

static void begin_chain(Chain* made, int64_t count, const int32_t* kinds) {
  int64_t i;
  fs_chain_init(&made->chain, sizeof made->chain);
  for (i = 0; i < count; ++i) fs_stage_init(&made->stages[i], sizeof(fs_stage), kinds[i]);
  made->chain.stages = made->stages;
  made->chain.stage_count = count;
}

/* Mirostat at a temperature. */
static void mirostat(Chain* made) {
  static const int32_t kKinds[2] = {FS_STAGE_TEMPERATURE, FS_STAGE_MIROSTAT};
  begin_chain(made, 2, kKinds);
  made->stages[0].value[0] = 0.9;
  made->stages[1].value[0] = 2.0;
  made->stages[1].value[1] = 3.0;
}

/* top_k, and a coin. */
static void xtc(Chain* made) {
  static const int32_t kKinds[2] = {FS_STAGE_TOP_K, FS_STAGE_XTC};
  begin_chain(made, 2, kKinds);
  made->stages[0].value[0] = 40.0;
  made->stages[1].value[0] = 0.5;
}

static const int32_t kBreakers[1] = {kBreaker};

enum { kRules = 3 };

static void penalties(fs_rule rules[kRules]) {
  fs_rule_init(&rules[0], sizeof rules[0], FS_RULE_DRY);
  rules[0].value[0] = kMultiplier;
  rules[0].value[1] = kBase;
  rules[0].count = 1;
  rules[0].ids = kBreakers;
  fs_rule_init(&rules[1], sizeof rules[1], FS_RULE_REPETITION);
  rules[1].value[0] = kRepetition;
  rules[1].value[1] = kWindow;
  fs_rule_init(&rules[2], sizeof rules[2], FS_RULE_FREQUENCY);
  rules[2].value[0] = kFrequency;
  rules[2].value[1] = kWindow;
}

static void fill_row(float* x, int64_t n, uint64_t seed) {
  int64_t i;
  for (i = 0; i < n; ++i) x[i] = (float)(next_random(&seed) % 4096) / 400.0f;
}

static fs_logits logits_of(const float* x, int64_t rows, int64_t vocab) {
  fs_logits logits;
  fs_logits_init(&logits, sizeof logits);
  logits.data = x;
  logits.rows = rows;
  logits.vocab = logits.row_stride = vocab;
  return logits;
}

/* The edits of the rules above, as their definitions have it. */
static int64_t plain_edits(const int32_t* text, int64_t size, int64_t prompt, fs_edit* edits) {
  const int64_t start = size > kWindow ? size - kWindow : 0;
  int64_t count = 0, i, place;
  int32_t id;
  for (id = 0; id < kVocab; ++id) {
    int64_t seen = 0, drawn = 0, longest = 0;
    for (i = start; i < size; ++i) {
      seen += text[i] == id;
      drawn += text[i] == id && i >= prompt;
    }
    for (place = 0; place < size; ++place) {
      int64_t length = 0;
      while (length < place && text[place - 1 - length] == text[size - 1 - length] &&
             text[size - 1 - length] != kBreaker)
        ++length;
      if (text[place] == id && length > longest) longest = length;
    }
    if (id == kBreaker) longest = 0;
    if (!seen && longest < 2) continue;
    memset(&edits[count], 0, sizeof edits[count]);
    edits[count].id = id;
    edits[count].factor = seen ? kRepetition : 1.0;
    edits[count].subtract = kFrequency * (double)drawn;
    if (longest >= 2) edits[count].subtract += kMultiplier * ldexp(1.0, (int)longest - 2);
    ++count;
  }
  return count;
}

/* Text that repeats itself, so that DRY has something to do. */
static void fill_prompt(int32_t* text) {
  int i;
  for (i = 0; i < kPrompt; ++i) text[i] = i % 7 == 6 ? kBreaker : 10 + i % 5;
}

static void test_against_stateless_calls(void (*make)(Chain*)) {
  static float x[kVocab];
  static fs_edit edits[kVocab], found[kVocab];
  int32_t text[kPrompt + kTokens], read[kPrompt + kTokens];
  fs_rule rules[kRules];
  Chain made;
  fs_sampler* sampler = NULL;
  fs_sampler_info info;
  double state[2], unmoved[2];
  int64_t size = kPrompt, step;
  make(&made);
  penalties(rules);
  fill_prompt(text);
  CHECK(fs_sampler_new(&made.chain, rules, kRules, 7, 2, 100, &sampler) == FS_OK);
  CHECK(fs_sampler_start(sampler, text, kPrompt, kPrompt - 5) == FS_OK);
  info.struct_size = sizeof info;
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_OK);
  CHECK(info.state_size == (make == mirostat) && info.history_length == kPrompt);
  CHECK(info.prompt_length == kPrompt - 5 && info.seed == 7 && info.stream == 2);
  CHECK(!info.state_size || info.state[0] == 6.0);
  state[0] = unmoved[0] = info.state[0];
  state[1] = unmoved[1] = info.state[1];
  for (step = 0; step < kTokens; ++step) {
    const fs_logits logits = logits_of(x, 1, kVocab);
    const int64_t count = plain_edits(text, size, kPrompt - 5, edits);
    int64_t written = -1, token = -1, drawn = -2;
    fs_draw draw;
    /* A few rows in turn, whose best tokens come again and again. */
    fill_row(x, kVocab, (uint64_t)(step % 3));
    CHECK(fs_sampler_edits(sampler, kVocab, found, kVocab, &written) == FS_OK);
    CHECK(written == count && memcmp(edits, found, (size_t)count * sizeof *edits) == 0);
    fs_draw_init(&draw, sizeof draw);
    draw.u = fs_uniform(7, 2, 100 + (uint64_t)step);
    draw.u_xtc = fs_uniform_for(7, 2, 100 + (uint64_t)step, 1);
    draw.edits = edits;
    draw.edit_count = count;
    draw.state = info.state_size ? state : NULL;
    CHECK(fs_sample(&logits, &made.chain, 1, &draw, 1, 0, &token) == FS_OK);
    /* The same edits where they are: nothing moves, and the state is as it was. */
    draw.edits = NULL;
    draw.edit_count = 0;
    draw.past = sampler;
    draw.state = info.state_size ? unmoved : NULL;
    CHECK(fs_sample(&logits, &made.chain, 1, &draw, 1, 0, &drawn) == FS_OK);
    CHECK(token == drawn && token >= 0);
    CHECK(fs_step(&sampler, &logits, 1, 0, &drawn) == FS_OK);
    CHECK(token == drawn);
    memcpy(unmoved, state, sizeof unmoved);
    text[size++] = (int32_t)token;
    CHECK(fs_sampler_get(sampler, &info, read, kPrompt + kTokens) == FS_OK);
    CHECK(info.history_length == size && info.offset == 101 + (uint64_t)step);
    CHECK(memcmp(text, read, (size_t)size * sizeof *text) == 0);
    CHECK(info.state[0] == state[0] && info.state[1] == state[1]);
  }
  fs_sampler_free(sampler);
}

static void steps(fs_sampler* sampler, const float* x, int64_t count, int64_t* tokens) {
  const fs_logits logits = logits_of(x, 1, kVocab);
  int64_t i;
  for (i = 0; i < count; ++i) CHECK(fs_step(&sampler, &logits, 1, 0, &tokens[i]) == FS_OK);
}

static void test_life(void) {
  static float x[kVocab];
  const int32_t pushed[2] = {5, 2000000000}; /* an id that no row has */
  int64_t first[9], second[9], third[9];
  fs_rule rules[kRules];
  fs_sampler *sampler = NULL, *copy = NULL;
  fs_sampler_info info;
  Chain made;
  info.struct_size = sizeof info;
  xtc(&made);
  penalties(rules);
  fill_row(x, kVocab, 1);
  CHECK(fs_sampler_new(&made.chain, rules, kRules, 1, 0, 0, &sampler) == FS_OK);
  steps(sampler, x, 4, first);
  CHECK(fs_sampler_copy(sampler, &copy) == FS_OK);
  steps(sampler, x, 5, first + 4);
  steps(copy, x, 5, second + 4);
  CHECK(memcmp(first + 4, second + 4, 5 * sizeof *first) == 0);
  /* What it has drawn is drawn again, what was pushed is forgotten. */
  CHECK(fs_sampler_push(sampler, pushed, 2) == FS_OK);
  CHECK(fs_sampler_rollback(sampler, 5) == FS_OK);
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_OK);
  CHECK(info.history_length == 6 && info.offset == 6);
  steps(sampler, x, 3, third);
  CHECK(memcmp(third, first + 6, 3 * sizeof *first) == 0);
  CHECK(fs_sampler_rollback(sampler, 10) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "count must be from 0 to the length of the history, got 10"));
  CHECK(fs_sampler_rollback(sampler, 9) == FS_OK);
  steps(sampler, x, 9, second);
  CHECK(memcmp(first, second, sizeof first) == 0);
  CHECK(fs_sampler_reset(sampler, 1, 0, 0) == FS_OK);
  steps(sampler, x, 9, second);
  CHECK(memcmp(first, second, sizeof first) == 0);
  CHECK(fs_sampler_seek(sampler, 2, 3, 4) == FS_OK);
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_OK);
  CHECK(info.seed == 2 && info.stream == 3 && info.offset == 4 && info.history_length == 9);
  fs_sampler_free(sampler);
  fs_sampler_free(copy);
  fs_sampler_free(NULL);
}

/* Whose history edits a row is one row's alone, and gives all of its edits. */
static void test_pasts(void) {
  static float x[2 * kVocab];
  const fs_logits logits = logits_of(x, 2, kVocab);
  fs_edit edit = {1, 0, 1.0, 0.0, 0.0};
  fs_rule rules[kRules];
  fs_draw draws[2];
  fs_sampler* sampler = NULL;
  int64_t tokens[2] = {-5, -5};
  Chain made;
  xtc(&made);
  penalties(rules);
  fill_row(x, kVocab, 1);
  fill_row(x + kVocab, kVocab, 2);
  CHECK(fs_sampler_new(&made.chain, rules, kRules, 1, 0, 0, &sampler) == FS_OK);
  fs_draw_init(&draws[0], sizeof draws[0]);
  fs_draw_init(&draws[1], sizeof draws[1]);
  draws[1].past = sampler;
  CHECK(fs_sample(&logits, &made.chain, 1, draws, 1, 0, tokens) == FS_OK);
  CHECK(tokens[0] >= 0 && tokens[1] >= 0);
  draws[1].edits = &edit;
  draws[1].edit_count = 1;
  CHECK(fs_sample(&logits, &made.chain, 1, draws, 1, 0, tokens) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "draw.past must be null where edits are not (row 1)"));
  draws[1].edits = NULL;
  draws[1].edit_count = 0;
  draws[0].past = sampler;
  CHECK(fs_sample(&logits, &made.chain, 1, draws, 1, 0, tokens) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "draw.past must be another one, in one call at a time (row 1)"));
  draws[0].past = NULL; /* and it has been let go */
  CHECK(fs_sample(&logits, &made.chain, 1, draws, 1, 0, tokens) == FS_OK);
  fs_sampler_free(sampler);
}

static void test_state(void) {
  const double given[2] = {4.5, 0.25}, wrong[2] = {NAN, 0.0};
  fs_sampler* sampler = NULL;
  fs_sampler_info info;
  const int32_t id = 1;
  Chain made;
  info.struct_size = sizeof info;
  mirostat(&made);
  CHECK(fs_sampler_new(&made.chain, NULL, 0, 1, 0, 0, &sampler) == FS_OK);
  CHECK(fs_sampler_push(sampler, &id, 1) == FS_OK);
  CHECK(fs_sampler_rollback(sampler, 1) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "mirostat has a state must not be rolled back"));
  CHECK(fs_sampler_set_state(sampler, given) == FS_OK);
  CHECK(fs_sampler_set_state(sampler, wrong) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_OK);
  CHECK(info.state[0] == 4.5 && info.state[1] == 0.25 && info.history_length == 1);
  info.struct_size = (uint64_t)1 << 40;
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "sampler_info.struct_size must be"));
  info.struct_size = 8;
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_INVALID_ARGUMENT);
  CHECK(info.state[0] == 4.5);
  info.struct_size = sizeof info;
  fs_sampler_free(sampler);
  xtc(&made);
  CHECK(fs_sampler_new(&made.chain, NULL, 0, 1, 0, 0, &sampler) == FS_OK);
  CHECK(fs_sampler_set_state(sampler, given) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_get(sampler, &info, NULL, 0) == FS_OK);
  CHECK(!info.state_size && info.state[0] == 0.0);
  fs_sampler_free(sampler);
}

enum { kBatch = 9 };

static void test_batches(void) {
  static float x[kBatch * kVocab];
  fs_sampler *together[kBatch], *alone[kBatch];
  fs_rule rules[kRules];
  Chain made;
  int32_t threads;
  int64_t i, tokens[kBatch], token;
  fs_logits batch = logits_of(x, kBatch, kVocab);
  penalties(rules);
  fill_row(x, kBatch * kVocab, 5);
  for (i = 0; i < kBatch; ++i) {
    if (i % 2) {
      mirostat(&made);
    } else {
      xtc(&made);
    }
    CHECK(fs_sampler_new(&made.chain, rules, i % 3, (uint64_t)i, 0, 9, &together[i]) == FS_OK);
    CHECK(fs_sampler_copy(together[i], &alone[i]) == FS_OK);
  }
  for (threads = 0; threads < 5; ++threads) {
    CHECK(fs_step(together, &batch, threads, 0, tokens) == FS_OK);
    for (i = 0; i < kBatch; ++i) {
      const fs_logits one = logits_of(x + i * kVocab, 1, kVocab);
      CHECK(fs_step(&alone[i], &one, 1, 0, &token) == FS_OK);
      CHECK(token == tokens[i]);
    }
  }
  /* A bad row: nothing moves, or all but that. */
  x[4 * kVocab + 17] = NAN;
  memset(tokens, kSentinel, sizeof tokens);
  for (threads = 1; threads < 3; ++threads) {
    CHECK(fs_step(together, &batch, threads, 0, tokens) == FS_BAD_LOGITS);
    CHECK(strcmp(fs_last_error(), "logits row 4 must not contain NaN, got one at token 17") == 0);
  }
  for (i = 0; i < kBatch; ++i) {
    fs_sampler_info info;
    info.struct_size = sizeof info;
    CHECK(fs_sampler_get(together[i], &info, NULL, 0) == FS_OK);
    CHECK(info.history_length == 5 && info.offset == 14);
    CHECK(*(const uint8_t*)&tokens[i] == kSentinel);
  }
  CHECK(fs_step(together, &batch, 2, FS_MARK_BAD_ROWS, tokens) == FS_OK);
  for (i = 0; i < kBatch; ++i) {
    fs_sampler_info info;
    info.struct_size = sizeof info;
    CHECK(fs_sampler_get(together[i], &info, NULL, 0) == FS_OK);
    CHECK(info.history_length == (i == 4 ? 5 : 6) && (tokens[i] == -1) == (i == 4));
  }
  /* The same one twice, and none. */
  x[4 * kVocab + 17] = 0.0f;
  fs_sampler_free(alone[1]);
  alone[1] = alone[0];
  CHECK(fs_step(alone, &batch, 1, 0, tokens) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "samplers must be different ones"));
  alone[1] = NULL;
  CHECK(fs_step(alone, &batch, 1, 0, tokens) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "samplers must not be null"));
  batch.rows = 0;
  CHECK(fs_step(NULL, &batch, 1, 0, NULL) == FS_OK);
  for (i = 0; i < kBatch; ++i) {
    fs_sampler_free(together[i]);
    fs_sampler_free(alone[i]);
  }
}

static void refused(const fs_rule* rule, const char* message) {
  fs_sampler* sampler = NULL;
  Chain made;
  xtc(&made);
  CHECK(fs_sampler_new(&made.chain, rule, 1, 0, 0, 0, &sampler) == FS_INVALID_ARGUMENT);
  check(contains(fs_last_error(), message), message, fs_last_error(), __FILE__, __LINE__);
  CHECK(sampler == NULL);
}

static fs_rule rule_of(int32_t kind, double number) {
  fs_rule rule;
  fs_rule_init(&rule, sizeof rule, kind);
  rule.value[0] = number;
  return rule;
}

static void test_bad_rules(void) {
  static const int32_t kIds[3] = {1, 2, -3};
  static const int64_t kOffsets[3] = {0, 2, 1};
  static const double kWeights[2] = {1.0, NAN};
  fs_rule rule = rule_of(FS_RULE_REPETITION, 0.0);
  refused(&rule, "repetition_penalty must be finite and > 0, got 0");
  rule = rule_of(FS_RULE_PRESENCE, 1.0);
  rule.value[1] = 1.5;
  refused(&rule, "penalty_last_n must be a whole number >= -1, got 1.5");
  rule.value[1] = 1.0;
  rule.value[2] = 1.0;
  refused(&rule, "presence.value[2] must be 0, got 1");
  rule = rule_of(FS_RULE_FREQUENCY, 1.0);
  rule.ids = kIds;
  refused(&rule, "frequency.ids must be null");
  rule = rule_of(FS_RULE_BIAS, 0.0);
  rule.count = 2;
  refused(&rule, "bias.ids must not be null");
  rule.ids = kIds;
  rule.weights = kWeights;
  refused(&rule, "bias.weights must be finite or -inf, got nan");
  rule.count = 3;
  refused(&rule, "bias.ids must be >= 0, got -3");
  rule.count = -1;
  refused(&rule, "bias.count must be >= 0, got -1");
  rule = rule_of(FS_RULE_SEQUENCE_BIAS, 0.0);
  rule.count = 2;
  rule.ids = kIds;
  rule.weights = kWeights;
  rule.offsets = kOffsets;
  refused(&rule, "sequence_bias.offsets must be rising from 0, got 1");
  rule = rule_of(FS_RULE_DRY, 1.0);
  rule.struct_size -= 8;
  refused(&rule, "rule.struct_size must be sizeof(fs_rule)");
  rule = rule_of(FS_RULE_DRY, 1.0);
  rule.kind = 99;
  refused(&rule, "rule.kind must be an fs_rule_kind, got 99");
  refused(NULL, "rules must not be null");
}

static void test_bad_calls(void) {
  static float x[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  const int32_t ids[2] = {1, -2}, far = 4;
  const double weight = 1.0;
  const fs_logits logits = logits_of(x, 1, 4);
  fs_sampler* sampler = NULL;
  fs_rule rule = rule_of(FS_RULE_BIAS, 0.0);
  int64_t count = 0, token = 0;
  fs_edit edit;
  Chain made;
  xtc(&made);
  rule.count = 1;
  rule.ids = &far;
  rule.weights = &weight;
  CHECK(fs_sampler_new(NULL, NULL, 0, 0, 0, 0, &sampler) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_new(&made.chain, NULL, 0, 0, 0, 0, NULL) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_new(&made.chain, NULL, -1, 0, 0, 0, &sampler) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_push(NULL, ids, 1) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "sampler must not be null"));
  CHECK(fs_sampler_copy(NULL, &sampler) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_new(&made.chain, &rule, 1, 0, 0, 0, &sampler) == FS_OK);
  CHECK(fs_sampler_push(sampler, ids, 2) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "history ids must be >= 0, got -2"));
  CHECK(fs_sampler_push(sampler, NULL, 2) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_push(sampler, ids, -1) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_start(sampler, ids, 1, 2) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_rollback(sampler, -1) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_edits(sampler, 0, &edit, 1, &count) == FS_INVALID_ARGUMENT);
  CHECK(fs_sampler_edits(sampler, 5, &edit, 0, &count) == FS_INVALID_ARGUMENT && count == 1);
  CHECK(fs_sampler_edits(sampler, 4, &edit, 1, &count) == FS_OK && count == 0);
  CHECK(fs_step(&sampler, &logits, 1, 0, &token) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "must be in [0, logits.vocab), got 4 (row 0)"));
  CHECK(fs_step(&sampler, &logits, -1, 0, &token) == FS_INVALID_ARGUMENT);
  CHECK(fs_step(&sampler, &logits, 1, 8, &token) == FS_INVALID_ARGUMENT);
  CHECK(fs_step(&sampler, &logits, 1, 0, NULL) == FS_INVALID_ARGUMENT);
  CHECK(fs_step(&sampler, NULL, 1, 0, &token) == FS_INVALID_ARGUMENT);
  fs_sampler_free(sampler);
}

static void test_names(void) {
  int32_t kind;
  for (kind = FS_RULE_BIAS; kind <= FS_RULE_ALLOWED_IDS; ++kind) {
    CHECK(fs_rule_name(kind) != NULL);
    if (fs_rule_name(kind)) CHECK(fs_rule_kind_of(fs_rule_name(kind)) == kind);
  }
  CHECK(fs_rule_name(0) == NULL && fs_rule_name(kind) == NULL && fs_rule_kind_of(NULL) == 0);
  CHECK(strcmp(fs_rule_name(FS_RULE_DRY), "dry") == 0 && fs_rule_kind_of("what") == 0);
}

static void tests(void) {
  test_against_stateless_calls(mirostat);
  test_against_stateless_calls(xtc);
  test_life();
  test_pasts();
  test_state();
  test_batches();
  test_bad_rules();
  test_bad_calls();
}

int main(int argc, char** argv) {
  test_names();
  for_isas(argc > 1 ? argv[1] : fs_isas(), tests);
  return finish();
}
