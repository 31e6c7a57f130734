/* Part of client.c: bad input gives a status, a message that names what is wrong, and no output. */
#ifndef CLIENT_REFUSALS_H
#define CLIENT_REFUSALS_H

#include <math.h>
#include <stdlib.h>

#include "client_rows.h"

typedef struct Call {
  fs_logits logits;
  fs_stage stages[kRows][kStages];
  fs_chain chains[kRows];
  int64_t chain_count;
  fs_draw draws[kRows];
  int32_t threads;
  uint32_t flags;
  int64_t capacity;
  /* Set to pass a null pointer there. */
  int null_logits, null_chains, null_draws, null_tokens, null_probs, null_ids, null_count;
} Call;

static void fill_call(Call* call, const float* data, int64_t rows) {
  const Params params = default_params();
  int i;
  memset(call, 0, sizeof *call);
  call->logits = rows_of(data, rows, kVocab, kVocab, FS_FLOAT32);
  for (i = 0; i < kRows; ++i) {
    call->chains[i] = make_chain(&params, call->stages[i]);
    fs_draw_init(&call->draws[i], sizeof call->draws[i]);
    call->draws[i].u = 0.5;
  }
  call->chain_count = 1;
  call->capacity = kVocab;
}

typedef struct Outputs {
  int64_t tokens[kRows], ids[kVocab], count;
  float probs[kRows * kVocab];
} Outputs;

typedef enum Function { kSample = 1, kProbs = 2, kSurvivors = 4, kEvery = 7 } Function;

static fs_status run(const Call* call, int function, Outputs* out) {
  const fs_logits* logits = call->null_logits ? NULL : &call->logits;
  const fs_chain* chains = call->null_chains ? NULL : call->chains;
  const fs_draw* draws = call->null_draws ? NULL : call->draws;
  if (function == kSample)
    return fs_sample(logits, chains, call->chain_count, draws, call->threads, call->flags,
                     call->null_tokens ? NULL : out->tokens);
  if (function == kProbs)
    return fs_probs(logits, chains, call->chain_count, draws, call->null_probs ? NULL : out->probs);
  return fs_survivors(logits, chains, draws, call->capacity, call->null_ids ? NULL : out->ids,
                      call->null_probs ? NULL : out->probs, call->null_count ? NULL : &out->count);
}

/* The call has to fail in each of `functions`; `message` begins what is said of it. */
static void expect(const Call* call, int functions, fs_status status, const char* message,
                   const char* what, int line) {
  int function;
  for (function = kSample; function <= kSurvivors; function *= 2) {
    Outputs out, untouched;
    if (!(functions & function)) continue;
    memset(&untouched, kSentinel, sizeof untouched);
    memset(&out, kSentinel, sizeof out);
    check(run(call, function, &out) == status, what, "another status", __FILE__, line);
    check(strncmp(fs_last_error(), message, strlen(message)) == 0, what, fs_last_error(), __FILE__,
          line);
    check(memcmp(&out, &untouched, sizeof out) == 0, what, "an output that was written", __FILE__,
          line);
  }
}

static void test_bad_arguments(void) {
  static const float data[(kRows + 1) * kVocab] = {3.0f, 2.5f, 2.0f, 1.0f, 0.0f, -1.0f, 3.0f};

/* One row of the table: in these functions, this one change to a valid call of one row (BAD) or
 * two rows (BAD2) gives this message. */
#define BAD_(rows, functions, change, status, message)         \
  do {                                                         \
    Call c;                                                    \
    fill_call(&c, data, rows);                                 \
    change;                                                    \
    expect(&c, functions, status, message, #change, __LINE__); \
  } while (0)
#define BAD(functions, change, message) BAD_(1, functions, change, FS_INVALID_ARGUMENT, message)
#define BAD2(functions, change, message) BAD_(2, functions, change, FS_INVALID_ARGUMENT, message)

  BAD(kEvery, c.null_logits = 1, "logits must not be null");
  BAD(kEvery, c.logits.struct_size = 48, /* that of version 0.1 */
      "logits.struct_size must be sizeof(fs_logits), which is 56 here, got 48");
  BAD(kEvery, c.logits.struct_size = UINT64_MAX,
      "logits.struct_size must be sizeof(fs_logits), which is 56 here, got 18446744073709551615");
  BAD(kEvery, c.logits.dtype = -1, "logits.dtype must be an fs_dtype, got -1");
  BAD(kEvery, c.logits.dtype = 4, "logits.dtype must be an fs_dtype, got 4");
  BAD(kEvery, c.logits.reserved = 1, "logits.reserved must be 0, got 1");
  BAD(kEvery, c.logits.rows = -1, "logits.rows must be >= 0, got -1");
  BAD(kEvery, c.logits.vocab = 0, "logits.vocab must be from 1 to 4194304, got 0");
  BAD(kEvery, c.logits.vocab = -5, "logits.vocab must be from 1 to 4194304, got -5");
  BAD(kEvery, c.logits.vocab = FS_MAX_VOCAB + 1,
      "logits.vocab must be from 1 to 4194304, got 4194305");
  BAD(kEvery, c.logits.data = NULL, "logits.data must not be null");
  BAD(kEvery, c.logits.data = (const char*)data + 2, "logits.data must be aligned to its element");
  BAD(kEvery, (c.logits.dtype = FS_FLOAT16, c.logits.data = (const char*)data + 1),
      "logits.data must be aligned to its element");
  BAD2(kSurvivors, (void)0, "logits.rows must be 1, got 2");
  BAD(kSurvivors, c.logits.rows = 0, "logits.rows must be 1, got 0");

  BAD(kEvery, c.logits.element_stride = 6,
      "logits.element_stride must be a multiple of the element's size, got 6");

  BAD(kEvery, c.null_chains = 1, "chains must not be null");
  BAD(kSample | kProbs, c.chain_count = 0, "chain_count must be 1 or logits.rows, got 0");
  BAD(kSample | kProbs, c.chain_count = -1, "chain_count must be 1 or logits.rows, got -1");
  BAD(kSample | kProbs, c.chain_count = 2, "chain_count must be 1 or logits.rows, got 2");
  BAD(kEvery, c.chains[0].struct_size = 8,
      "chain.struct_size must be sizeof(fs_chain), which is 32 here, got 8");
  BAD(kEvery, c.chains[0].stage_count = -1, "chain.stage_count must be >= 0, got -1");
  BAD(kEvery, c.chains[0].stages = NULL, "chain.stages must not be null");
  BAD(kEvery, c.chains[0].min_tokens_to_keep = 0, "min_tokens_to_keep must be >= 1, got 0");
  BAD2(kSample | kProbs, (c.chain_count = 2, c.chains[1].min_tokens_to_keep = -3),
       "min_tokens_to_keep must be >= 1, got -3 (row 1)");

  BAD(kEvery, c.stages[0][0].struct_size = 40,
      "stage.struct_size must be sizeof(fs_stage), which is 48 here, got 40");
  BAD(kEvery, c.stages[0][1].struct_size = 56,
      "stage.struct_size must be the same in a whole array, got 56");
  BAD(kEvery, c.stages[0][1].kind = 0, "stage.kind must be an fs_stage_kind, got 0");
  BAD(kEvery, c.stages[0][1].kind = 99, "stage.kind must be an fs_stage_kind, got 99");
  BAD(kEvery, c.stages[0][1].joint = 2, "stage.joint must be 0 or 1, got 2");
  BAD(kEvery, c.stages[0][0].joint = 1, "stage.joint must be 0 for the first stage, got 1");
  BAD(kEvery, c.stages[0][1].joint = 1,
      "stages must keep the largest logits to be joint, got temperature");
  BAD(kEvery, c.stages[0][1].reserved = 1, "stage.reserved must be 0, got 1");
  BAD(kEvery, c.stages[0][3].kind = FS_STAGE_TOP_K, "chain must not name a stage twice, got top_k");
  BAD(kEvery, c.stages[0][2].value[1] = 0.5, "top_p.value[1] must be 0, got 0.5");
  BAD(kEvery, c.stages[0][2].value[3] = NAN, "top_p.value[3] must be 0, got nan");

#define TEMPERATURE c.stages[0][0].value[0]
#define TOP_K c.stages[0][1].value[0]
#define TOP_P c.stages[0][2].value[0]
#define MIN_P c.stages[0][3].value[0]
  BAD(kEvery, TEMPERATURE = -0.5, "temperature must be finite and >= 0, got -0.5");
  BAD(kEvery, TEMPERATURE = INFINITY, "temperature must be finite and >= 0, got inf");
  BAD(kEvery, TEMPERATURE = NAN, "temperature must be finite and >= 0, got nan");
  BAD(kEvery, TOP_K = -2, "top_k must be -1, 0 or a whole number >= 1, got -2");
  BAD(kEvery, TOP_K = 2.5, "top_k must be -1, 0 or a whole number >= 1, got 2.5");
  BAD(kEvery, TOP_K = INFINITY, "top_k must be -1, 0 or a whole number >= 1, got inf");
  BAD(kEvery, TOP_K = NAN, "top_k must be -1, 0 or a whole number >= 1, got nan");
  BAD(kEvery, TOP_P = 1.5, "top_p must be in [0, 1], got 1.5");
  BAD(kEvery, TOP_P = -0.1, "top_p must be in [0, 1], got -0.1");
  BAD(kEvery, TOP_P = NAN, "top_p must be in [0, 1], got nan");
  BAD(kEvery, MIN_P = 1.01, "min_p must be in [0, 1], got 1.01");
  BAD(kEvery, MIN_P = -INFINITY, "min_p must be in [0, 1], got -inf");
  BAD(kEvery, MIN_P = NAN, "min_p must be in [0, 1], got nan");
  BAD2(kSample | kProbs, (c.chain_count = 2, c.stages[1][2].value[0] = 2.0),
       "top_p must be in [0, 1], got 2 (row 1)");
  /* Also where another stage is greedy. */
  BAD(kEvery, (TEMPERATURE = 0.0, TOP_P = 2.0), "top_p must be in [0, 1], got 2");

  BAD(kSample, c.null_draws = 1, "draws must not be null");
  BAD(kEvery, c.draws[0].struct_size = 16,
      "draw.struct_size must be sizeof(fs_draw), which is 72 here, got 16 (row 0)");
  BAD(kSample, c.draws[0].u = 1.0, "u must be in [0, 1), got 1 (row 0)");
  BAD2(kSample, c.draws[1].u = -0.25, "u must be in [0, 1), got -0.25 (row 1)");
  BAD2(kSample, c.draws[1].u = NAN, "u must be in [0, 1), got nan (row 1)");
  BAD(kEvery, c.draws[0].u_xtc = 1.0, "u_xtc must be in [0, 1), got 1 (row 0)");
  BAD(kSample, c.threads = -1, "threads must be >= 0, got -1");
  BAD2(kSample, c.threads = INT32_MIN, "threads must be >= 0, got -2147483648");
  BAD(kSample, c.flags = 2, "flags must be 0 or FS_MARK_BAD_ROWS, got 2");
  BAD(kSample, c.null_tokens = 1, "tokens must not be null");
  BAD(kProbs, c.null_probs = 1, "probs must not be null");

  BAD(kSurvivors, c.capacity = -1, "capacity must be >= 0, got -1");
  BAD(kSurvivors, c.null_ids = 1, "ids, probs and count must not be null");
  BAD(kSurvivors, c.null_probs = 1, "ids, probs and count must not be null");
  BAD(kSurvivors, c.null_count = 1, "ids, probs and count must not be null");
}

/* What no draw comes to, and a draw would come to nonsense with. */
static void test_bad_states(void) {
  static const struct {
    double state[2];
    const char* message;
  } kBad[] = {{{NAN, 1.0}, "state must be finite, got [nan, 1]"},
              {{0.5, -INFINITY}, "state must be finite, got [0.5, -inf]"},
              {{0.0, 0.0}, "state must have a positive second number, got [0, 0]"},
              {{0.5, -2.0}, "state must have a positive second number, got [0.5, -2]"}};
  static const float data[(kRows + 1) * kVocab] = {3.0f, 2.5f, 2.0f};
  fs_sampler* sampler = NULL;
  fs_stage* stage;
  size_t i;
  Call c;
  fill_call(&c, data, kRows);
  stage = &c.stages[0][0];
  c.chains[0].stage_count = 1;
  fs_stage_init(stage, sizeof *stage, FS_STAGE_ADAPTIVE);
  stage->value[0] = 0.4;
  CHECK(fs_sampler_new(c.chains, NULL, 0, 1, 0, 0, &sampler) == FS_OK);
  for (i = 0; i < sizeof kBad / sizeof *kBad; ++i) {
    double state[2];
    char message[100];
    memcpy(state, kBad[i].state, sizeof state);
    c.draws[1].state = state;
    snprintf(message, sizeof message, "%s (row 1)", kBad[i].message);
    expect(&c, kSample | kProbs, FS_INVALID_ARGUMENT, message, "a bad state", __LINE__);
    CHECK(memcmp(state, kBad[i].state, sizeof state) == 0);
    CHECK(fs_sampler_set_state(sampler, state) == FS_INVALID_ARGUMENT);
    CHECK(strcmp(fs_last_error(), kBad[i].message) == 0);
  }
  fs_sampler_free(sampler);
  /* So large that what is added up might come to infinity. */
  fs_stage_init(stage, sizeof *stage, FS_STAGE_MIROSTAT);
  stage->value[0] = 2.0;
  stage->value[1] = 1e291;
  c.draws[1].state = NULL;
  expect(&c, kSample | kProbs, FS_INVALID_ARGUMENT,
         "mirostat_tau must be in (0, 1e290], got 1e+291", "a large tau", __LINE__);
}

/* It is the edit that is to blame, in every type of row. */
static void test_edits_too_far(void) {
  static const float data[(kRows + 1) * kVocab] = {3.0f, 2.5f, 2.0f};
  fs_edit edit;
  Call c;
  memset(&edit, 0, sizeof edit);
  edit.id = 2;
  edit.factor = 1.0;
  edit.bias = 1e308;
  fill_call(&c, data, kRows);
  c.draws[1].edits = &edit;
  c.draws[1].edit_count = 1;
  for (c.threads = 0; c.threads <= 2; ++c.threads)
    for (c.logits.dtype = FS_FLOAT32; c.logits.dtype <= FS_BFLOAT16; ++c.logits.dtype)
      expect(&c, kSample | kProbs, FS_BAD_LOGITS,
             "logits row 1 must not be edited beyond float32, got 1e+308 at token 2",
             "an edit that goes too far", __LINE__);
}

static void test_bad_rows(void) {
  float x[kRows * kVocab];
  size_t i;
  static const struct {
    float value;
    int everywhere;
    const char* message;
  } defects[] = {
      {NAN, 0, "must not contain NaN, got one at token 4"},
      {INFINITY, 0, "must not contain +inf, got one at token 4"},
      {-INFINITY, 1, "must have a finite value, got only -inf"},
  };
  for (i = 0; i < sizeof defects / sizeof *defects; ++i) {
    int row, token;
    for (row = 0; row < kRows; ++row) {
      char message[100];
      Call c;
      Outputs out;
      fill_random(x, kRows * kVocab, 1);
      for (token = 0; token < kVocab; ++token)
        if (defects[i].everywhere || token == 4) x[row * kVocab + token] = defects[i].value;

      snprintf(message, sizeof message, "logits row %d %s", row, defects[i].message);
      fill_call(&c, x, kRows);
      for (c.threads = 0; c.threads <= 3; ++c.threads)
        expect(&c, kSample | kProbs, FS_BAD_LOGITS, message, "a bad row", __LINE__);

      c.flags = FS_MARK_BAD_ROWS;
      CHECK(run(&c, kSample, &out) == FS_OK);
      CHECK(out.tokens[row] == -1);
      CHECK(out.tokens[!row] >= 0 && out.tokens[!row] < kVocab);

      snprintf(message, sizeof message, "logits row 0 %s", defects[i].message);
      fill_call(&c, x + row * kVocab, 1);
      expect(&c, kEvery, FS_BAD_LOGITS, message, "a bad row", __LINE__);
    }
  }
}

static void test_survivors_capacity(void) {
  static const float x[kVocab] = {3.0f, 2.5f, 2.0f, 1.0f, 0.0f, -INFINITY};
  Call c;
  Outputs out, untouched;
  fill_call(&c, x, 1);
  memset(&untouched, kSentinel, sizeof untouched);
  for (c.capacity = 0; c.capacity < 5; ++c.capacity) {
    char message[80];
    memset(&out, kSentinel, sizeof out);
    CHECK(run(&c, kSurvivors, &out) == FS_INVALID_ARGUMENT);
    snprintf(message, sizeof message, "capacity must be at least 5, got %d", (int)c.capacity);
    CHECK(strcmp(fs_last_error(), message) == 0);
    CHECK(out.count == 5);
    CHECK(memcmp(out.ids, untouched.ids, sizeof out.ids) == 0);
    CHECK(memcmp(out.probs, untouched.probs, sizeof out.probs) == 0);
  }
  CHECK(run(&c, kSurvivors, &out) == FS_OK && out.count == 5);
  c.capacity = 0;
  c.null_ids = c.null_probs = 1;
  out.count = 0;
  CHECK(run(&c, kSurvivors, &out) == FS_INVALID_ARGUMENT && out.count == 5);
}

/* Structs of a later version, whose fields the library does not know: 0 there is as if they were
 * not there, and anything else is refused. */
typedef struct LaterChain {
  fs_chain now;
  double later;
} LaterChain;

typedef struct LaterStage {
  fs_stage now;
  double later[3];
} LaterStage;

typedef struct LaterDraw {
  fs_draw now;
  const void* later;
} LaterDraw;

static void test_later_structs(void) {
  static const float x[kRows * kVocab] = {3.0f, 2.5f, 2.0f, 1.0f, 0.0f, -1.0f, 9.0f};
  const fs_logits logits = rows_of(x, kRows, kVocab, kVocab, FS_FLOAT32);
  static const int kinds[] = {FS_STAGE_TOP_K, FS_STAGE_TEMPERATURE};
  LaterChain chains[kRows];
  LaterStage stages[kRows][2];
  LaterDraw draws[kRows];
  int64_t tokens[kRows] = {-7, -7};
  float probs[kRows * kVocab];
  int i, k;
  for (i = 0; i < kRows; ++i) {
    fs_chain_init(&chains[i].now, sizeof chains[i]);
    fs_draw_init(&draws[i].now, sizeof draws[i]);
    draws[i].now.u = 0.999;
    for (k = 0; k < 2; ++k) fs_stage_init(&stages[i][k].now, sizeof stages[i][k], kinds[k]);
    stages[i][0].now.value[0] = 2 - i;
    stages[i][1].now.value[0] = 0.5;
    chains[i].now.stages = &stages[i][0].now;
    chains[i].now.stage_count = 2;
  }
  CHECK(fs_sample(&logits, &chains[0].now, kRows, &draws[0].now, 1, 0, tokens) == FS_OK);
  CHECK(tokens[0] == 1 && tokens[1] == 0);
  CHECK(fs_probs(&logits, &chains[0].now, kRows, &draws[0].now, probs) == FS_OK);
  CHECK(fabs(probs[0] - 0.731) < 0.001 && probs[2] == 0.0f && probs[kVocab] == 1.0f);
  CHECK(&fs_find_stage(&stages[0][0].now, 2, FS_STAGE_TEMPERATURE)->kind == &stages[0][1].now.kind);

  chains[1].later = 1.0;
  CHECK(fs_sample(&logits, &chains[0].now, kRows, &draws[0].now, 1, 0, tokens) ==
        FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "chain must be 0 beyond byte 32"));
  chains[1].later = 0.0;
  stages[1][1].later[2] = 1.0;
  CHECK(fs_probs(&logits, &chains[0].now, kRows, NULL, probs) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "stage must be 0 beyond byte 48"));
  CHECK(contains(fs_last_error(), "(row 1)"));
  stages[1][1].later[2] = 0.0;
  draws[0].later = x;
  CHECK(fs_sample(&logits, &chains[0].now, kRows, &draws[0].now, 1, 0, tokens) ==
        FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "draw must be 0 beyond byte 72"));
}

/* Each of several stages cuts what the first of them cut. */
static void test_joint(void) {
  static const float x[] = {4.0f, 3.0f, 2.0f, 1.0f};
  const fs_logits logits = rows_of(x, 1, 4, 4, FS_FLOAT32);
  /* 0.64, 0.24, 0.09, 0.03; of the first two alone, 0.73 and 0.27 */
  Params params = chain(1.0, 2, 0.7, 0.0);
  fs_stage stages[kStages];
  const fs_chain made = make_chain(&params, stages);
  int64_t ids[4], count;
  float p[4];
  CHECK(fs_survivors(&logits, &made, NULL, 4, ids, p, &count) == FS_OK && count == 1);
  stages[2].joint = 1; /* top_p of all four needs two */
  CHECK(fs_survivors(&logits, &made, NULL, 4, ids, p, &count) == FS_OK && count == 2);
  stages[2].value[0] = 0.6;
  CHECK(fs_survivors(&logits, &made, NULL, 4, ids, p, &count) == FS_OK && count == 1);
  stages[2].value[0] = 0.99;
  stages[3].joint = 1;
  stages[3].value[0] = 0.9; /* min_p keeps the first alone */
  CHECK(fs_survivors(&logits, &made, NULL, 4, ids, p, &count) == FS_OK && count == 1);
}

/* A field of an array of structs, and a column of a matrix, are read where they are. */
static void test_element_stride(void) {
  typedef struct Token {
    int32_t id;
    float logit, p;
  } Token;
  enum { kWide = 700 };
  static Token tokens[kRows * kWide];
  static float x[kRows * kWide], columns[kRows * kWide], probs[kRows * kWide];
  static float expected[kRows * kWide];
  static uint16_t half[3 * kWide];
  uint64_t state = 12;
  int c, i;
  fill_random(x, kRows * kWide, 11);
  for (i = 0; i < kRows * kWide; ++i) {
    tokens[i].id = i;
    tokens[i].logit = x[i];
    tokens[i].p = NAN;
    columns[i % kWide * kRows + i / kWide] = x[i];
  }
  for (c = 0; c < kChains; ++c) {
    const Params params = chain_of(c);
    const double u[kRows] = {next_uniform(&state), next_uniform(&state)};
    const fs_logits plain = rows_of(x, kRows, kWide, kWide, FS_FLOAT32);
    fs_logits strided = rows_of(&tokens[0].logit, kRows, kWide, kWide * 3, FS_FLOAT32);
    int64_t drawn[kRows], same[kRows];
    CHECK(sample(&plain, &params, 1, u, 0, 0, same) == FS_OK);
    CHECK(probs_of(&plain, &params, 1, expected) == FS_OK);
    strided.element_stride = sizeof(Token);
    CHECK(sample(&strided, &params, 1, u, 2, 0, drawn) == FS_OK);
    CHECK(memcmp(drawn, same, sizeof same) == 0);
    CHECK(probs_of(&strided, &params, 1, probs) == FS_OK);
    CHECK(memcmp(probs, expected, sizeof probs) == 0);
    strided = rows_of(columns, kRows, kWide, 1, FS_FLOAT32);
    strided.element_stride = kRows * sizeof(float);
    CHECK(sample(&strided, &params, 1, u, 2, 0, drawn) == FS_OK);
    CHECK(memcmp(drawn, same, sizeof same) == 0);
    strided = rows_of(x + kWide - 1, 1, kWide, 0, FS_FLOAT32);
    strided.element_stride = -(int64_t)sizeof(float); /* backwards */
    CHECK(probs_of(&strided, &params, 1, probs) == FS_OK);
  }
  for (i = 0; i < kWide; ++i) half[3 * i] = (uint16_t)(0x3f80 + i % 200);
  for (c = FS_FLOAT16; c <= FS_BFLOAT16; ++c) {
    const Params params = default_params();
    fs_logits strided = rows_of(half, 1, kWide, 0, (fs_dtype)c);
    float close[kWide];
    uint16_t packed[kWide];
    fs_logits plain = rows_of(packed, 1, kWide, 0, (fs_dtype)c);
    for (i = 0; i < kWide; ++i) packed[i] = half[3 * i];
    strided.element_stride = 6;
    CHECK(probs_of(&strided, &params, 1, probs) == FS_OK);
    CHECK(probs_of(&plain, &params, 1, close) == FS_OK);
    CHECK(memcmp(probs, close, sizeof close) == 0);
  }
}

static void test_free_thread_buffers(void) {
  static const float x[] = {1.0f, 7.0f};
  const fs_logits logits = rows_of(x, 1, 2, 2, FS_FLOAT32);
  const Params params = default_params();
  const double u = 0.5;
  int64_t token = -1;
  int i;
  for (i = 0; i < 3; ++i) {
    CHECK(sample(&logits, &params, 1, &u, 1, 0, &token) == FS_OK && token == 1);
    fs_free_thread_buffers();
    fs_free_thread_buffers();
    CHECK(strcmp(fs_last_error(), "") == 0);
  }
}

static void test_no_rows(void) {
  const Params params = default_params();
  const fs_logits none = rows_of(NULL, 0, kVocab, kVocab, FS_FLOAT32);
  CHECK(sample(&none, &params, 1, NULL, 0, 0, NULL) == FS_OK);
  CHECK(sample(&none, &params, 0, NULL, 2, FS_MARK_BAD_ROWS, NULL) == FS_OK);
  CHECK(probs_of(&none, &params, 1, NULL) == FS_OK);
}

#endif
