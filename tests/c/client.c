/* A client of the installed library: what fastsample.h promises, checked from outside.
 *
 * Valid as C99 and as C++17, and knows nothing but the header. Every check runs once for each
 * instruction set of this machine, or of those that it is given (client avx2,scalar). Ends with
 * "N passed, 0 failed". */
#include <fastsample.h>
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chains.h"
#include "checks.h"

/* ---- rows and parameters ---- */

enum { kVocab = 6, kRows = 2, kSentinel = 0x5a };

static fs_logits rows_of(const void* data, int64_t rows, int64_t vocab, int64_t stride,
                         fs_dtype dtype) {
  fs_logits logits;
  memset(&logits, 0, sizeof logits);
  logits.struct_size = sizeof logits;
  logits.data = data;
  logits.rows = rows;
  logits.vocab = vocab;
  logits.row_stride = stride;
  logits.dtype = dtype;
  return logits;
}

static Params chain(double temperature, int64_t top_k, double top_p, double min_p) {
  Params params = default_params();
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.min_p = min_p;
  return params;
}

static void set_order(Params* params, int first, int second, int third, int fourth) {
  memset(params->order, 0, sizeof params->order);
  params->order[0] = (uint8_t)first;
  params->order[1] = (uint8_t)second;
  params->order[2] = (uint8_t)third;
  params->order[3] = (uint8_t)fourth;
}

static double next_uniform(uint64_t* state) { return next_random(state) / 2147483648.0; }

static void fill_random(float* x, size_t n, uint64_t seed) {
  size_t i;
  for (i = 0; i < n; ++i) {
    double bell = 0.0;
    int k;
    for (k = 0; k < 4; ++k) bell += next_uniform(&seed);
    x[i] = (float)((bell - 2.0) * 6.0);
  }
}

enum { kBig = 4000 };

/* Chains that reach every stage, first and later, at several sharpnesses. */
static Params chain_of(int i) {
  const Params table[] = {
      chain(1.0, 0, 1.0, 0.0),    chain(0.7, 0, 1.0, 0.0),    chain(1.0, 50, 1.0, 0.0),
      chain(1.0, 0, 0.95, 0.0),   chain(2.0, 0, 0.5, 0.0),    chain(1.0, 0, 1.0, 0.05),
      chain(0.8, 50, 0.95, 0.02), chain(0.0, 0, 1.0, 0.0),    chain(1e-3, 0, 0.9, 0.0),
      chain(1e6, 2000, 0.9, 0.0), chain(1e-300, 0, 1.0, 0.0), chain(1e300, 0, 0.3, 0.9),
      chain(1.3, 700, 0.8, 0.01),
  };
  Params params = table[i % (int)(sizeof table / sizeof *table)];
  if (i % 3 == 1) set_order(&params, 3, 4, 2, 1);
  if (i % 3 == 2) set_order(&params, 2, 1, 4, 3);
  return params;
}

enum { kChains = 39 };

/* ---- what the library says of itself ---- */

static void test_version(void) { CHECK(strcmp(fs_version(), FASTSAMPLE_VERSION) == 0); }

static void test_force_isa(void) {
  const char* before = fs_isa();
  CHECK(fs_force_isa("sse9") == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "isa must be one of "));
  CHECK(contains(fs_last_error(), fs_isas()));
  CHECK(contains(fs_last_error(), "got sse9"));
  CHECK(fs_force_isa("") == FS_INVALID_ARGUMENT);
  CHECK(fs_force_isa(fs_isas()) == (strchr(fs_isas(), ',') ? FS_INVALID_ARGUMENT : FS_OK));
  CHECK(fs_force_isa(NULL) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "isa must not be null"));
  CHECK(strcmp(fs_isa(), before) == 0);
  CHECK(fs_force_isa(before) == FS_OK);
  CHECK(strcmp(fs_last_error(), "") == 0);
  CHECK(strcmp(fs_isa(), before) == 0);
}

/* Printed by numpy.random.Generator(numpy.random.Philox(key=[seed, stream],
 * counter=[offset, 0, 0, 0])).random(). */
static void test_uniform(void) {
  static const struct {
    uint64_t seed, stream, offset;
    double u;
  } printed[] = {
      {0, 0, 0, 0.011546754286331562},
      {42, 7, 1000, 0.2745361602029034},
      {UINT64_MAX, 3, UINT64_MAX, 0.09996043932541354}, /* the carry goes into the next word */
  };
  size_t i;
  for (i = 0; i < sizeof printed / sizeof *printed; ++i)
    CHECK(fs_uniform(printed[i].seed, printed[i].stream, printed[i].offset) == printed[i].u);
}

static void test_version_numbers(void) {
  char text[40];
  snprintf(text, sizeof text, "%d.%d.%d", FASTSAMPLE_VERSION_MAJOR, FASTSAMPLE_VERSION_MINOR,
           FASTSAMPLE_VERSION_PATCH);
  CHECK(strcmp(text, FASTSAMPLE_VERSION) == 0);
  CHECK(FASTSAMPLE_VERSION_NUMBER == FASTSAMPLE_VERSION_MAJOR * 10000 +
                                         FASTSAMPLE_VERSION_MINOR * 100 + FASTSAMPLE_VERSION_PATCH);
#if FASTSAMPLE_VERSION_NUMBER < 200
  CHECK(!"a number that the preprocessor can compare");
#endif
}

static void test_defaults(void) {
  fs_chain chain;
  fs_stage stage;
  fs_draw draw;
  fs_logits logits;
  int kind;
  memset(&chain, kSentinel, sizeof chain);
  fs_chain_init(&chain, sizeof chain);
  CHECK(chain.struct_size == sizeof chain && !chain.stages && chain.stage_count == 0);
  CHECK(chain.min_tokens_to_keep == 1);
  memset(&draw, kSentinel, sizeof draw);
  fs_draw_init(&draw, sizeof draw);
  CHECK(draw.struct_size == sizeof draw && draw.u == 0.0 && draw.u_xtc == 0.0 && !draw.state);
  memset(&logits, kSentinel, sizeof logits);
  fs_logits_init(&logits, sizeof logits);
  CHECK(logits.struct_size == sizeof logits && !logits.data && logits.element_stride == 0);
  for (kind = 1; kind <= FS_STAGE_MIN_P; ++kind) {
    memset(&stage, kSentinel, sizeof stage);
    fs_stage_init(&stage, sizeof stage, kind);
    CHECK(stage.struct_size == sizeof stage && stage.kind == kind && stage.joint == 0);
    CHECK(stage.reserved == 0 && stage.value[3] == 0.0);
    CHECK(stage.value[0] == (kind == FS_STAGE_TEMPERATURE || kind == FS_STAGE_TOP_P ? 1.0 : 0.0));
  }
  fs_chain_init(NULL, sizeof chain);
  fs_stage_init(NULL, sizeof stage, 1);
  fs_draw_init(NULL, sizeof draw);
  fs_logits_init(NULL, sizeof logits);
}

/* Whatever size a caller's structs have, an init fills that and no more. */
static void test_init_sizes(void) {
  unsigned char bytes[128];
  uint64_t size, i;
  for (size = 0; size <= 120; size += 4) {
    int which;
    for (which = 0; which < 4; ++which) {
      memset(bytes, kSentinel, sizeof bytes);
      if (which == 0) fs_chain_init((fs_chain*)(void*)bytes, size);
      if (which == 1) fs_stage_init((fs_stage*)(void*)bytes, size, FS_STAGE_TOP_P);
      if (which == 2) fs_draw_init((fs_draw*)(void*)bytes, size);
      if (which == 3) fs_logits_init((fs_logits*)(void*)bytes, size);
      for (i = size; i < sizeof bytes; ++i) CHECK(bytes[i] == kSentinel);
      for (i = 56; i < size; ++i) CHECK(bytes[i] == 0);
      if (size >= 4) CHECK(bytes[0] == size);
    }
  }
}

static void test_names(void) {
  static const char* const names[] = {
      "temperature", "top_k",  "top_p",       "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
      "top_a",       "p_less", "top_n_sigma", "top_h", "xtc",       "mirostat",       "adaptive"};
  int kind;
  for (kind = 1; kind <= 14; ++kind) {
    CHECK(strcmp(fs_stage_name(kind), names[kind - 1]) == 0);
    CHECK(fs_stage_kind_of(names[kind - 1]) == kind);
  }
  CHECK(!fs_stage_name(0) && !fs_stage_name(15) && !fs_stage_name(-1));
  CHECK(!fs_stage_kind_of("top-k") && !fs_stage_kind_of("") && !fs_stage_kind_of(NULL));
}

static void test_orders(void) {
  static const int hf[] = {FS_STAGE_TEMPERATURE, FS_STAGE_TOP_K, FS_STAGE_TOP_P, FS_STAGE_MIN_P};
  static const int llama[] = {FS_STAGE_TOP_K, FS_STAGE_TOP_P, FS_STAGE_MIN_P, FS_STAGE_TEMPERATURE};
  static const float x[] = {3.0f, 2.5f, 2.0f, 1.0f};
  char names[200];
  char* name;
  fs_stage stages[16], untouched[16];
  int order, i;
  for (order = 0; order < 2; ++order) {
    const int* expected = order ? llama : hf;
    const int64_t count = fs_order_init(order ? "llama.cpp" : "hf", stages, sizeof *stages, 16);
    int found = 0;
    for (i = 0; i < (int)count; ++i)
      if (found < 4 && stages[i].kind == expected[found]) ++found;
    CHECK(count >= 4 && found == 4);
  }
  CHECK(fs_order_init("hf", NULL, sizeof *stages, 0) >= 4);
  CHECK(fs_order_init("HF", stages, sizeof *stages, 16) == -1);
  CHECK(fs_order_init(NULL, stages, sizeof *stages, 16) == -1);
  memset(stages, kSentinel, sizeof stages);
  memset(untouched, kSentinel, sizeof untouched);
  CHECK(fs_order_init("hf", stages, sizeof *stages, 3) >= 4);
  CHECK(memcmp(stages, untouched, sizeof stages) == 0);

  /* Every order is a valid chain that does nothing, and takes numbers. */
  strcpy(names, fs_orders());
  for (name = strtok(names, ","); name; name = strtok(NULL, ",")) {
    const fs_logits logits = rows_of(x, 1, 4, 4, FS_FLOAT32);
    fs_chain chain;
    int64_t ids[4], count = 0;
    float p[4];
    fs_chain_init(&chain, sizeof chain);
    chain.stages = stages;
    chain.stage_count = fs_order_init(name, stages, sizeof *stages, 16);
    CHECK(chain.stage_count >= 3);
    CHECK(fs_survivors(&logits, &chain, NULL, 4, ids, p, &count) == FS_OK && count == 4);
    fs_find_stage(stages, chain.stage_count, FS_STAGE_TOP_K)->value[0] = 3;
    CHECK(fs_survivors(&logits, &chain, NULL, 4, ids, p, &count) == FS_OK && count == 3);
    CHECK(!fs_find_stage(stages, chain.stage_count, 99));
  }
  CHECK(!fs_find_stage(NULL, 0, FS_STAGE_TOP_K));
}

/* ---- bad input: the status, a message that names what is wrong, and no output written ---- */

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
  BAD(kEvery, c.logits.struct_size = 1u << 20,
      "logits.struct_size must be sizeof(fs_logits), which is 56 here, got 1048576");
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
      "draw.struct_size must be sizeof(fs_draw), which is 64 here, got 16 (row 0)");
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
  CHECK(contains(fs_last_error(), "draw must be 0 beyond byte 64"));
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

/* ---- what is drawn ---- */

static int64_t draw(const fs_logits* logits, const Params* params, double u) {
  int64_t token = -99;
  CHECK(sample(logits, params, 1, &u, 1, 0, &token) == FS_OK);
  return token;
}

/* How many of `vocab` <= 1000 float32 logits are kept; their ids, by falling probability. */
static int64_t kept(const float* x, int64_t vocab, const Params* params, int64_t* ids) {
  static float probs[1000];
  const fs_logits logits = rows_of(x, 1, vocab, vocab, FS_FLOAT32);
  int64_t count = -1;
  CHECK(survivors_of(&logits, params, vocab, ids, probs, &count) == FS_OK);
  return count;
}

static void test_greedy(void) {
  static const float x[] = {1.0f, 7.0f, -3.0f, 7.0f, 7.0f};
  static const float lone[] = {-INFINITY, -INFINITY, -2.0f, -INFINITY};
  static const float negative[] = {-1e30f, -3e38f, -1e30f};
  const fs_logits logits = rows_of(x, 1, 5, 5, FS_FLOAT32);
  const fs_logits masked = rows_of(lone, 1, 4, 4, FS_FLOAT32);
  const fs_logits low = rows_of(negative, 1, 3, 3, FS_FLOAT32);
  Params params = chain(0.0, 3, 0.5, 0.1);
  double u;
  for (u = 0.0; u < 1.0; u += 0.125) {
    CHECK(draw(&logits, &params, u) == 1);
    CHECK(draw(&masked, &params, u) == 2);
    CHECK(draw(&low, &params, u) == 0);
  }
  /* Whatever else is set, and where it comes. */
  set_order(&params, 4, 3, 2, 1);
  params.min_tokens_to_keep = 4;
  CHECK(draw(&logits, &params, 0.9) == 1);
}

/* fmax in a loop makes GCC 12 fail for AArch64. */
static double larger(double a, double b) { return a > b ? a : b; }

/* Whole batches, gathered or not; what is refused is not written. */
static void test_softmax(void) {
  enum { kCount = 3, kSize = 700, kApart = 2 };
  static float x[kCount * kSize * kApart], p[kCount * kSize], logs[kCount * kSize];
  static float gathered[kCount * kSize];
  fs_logits logits = rows_of(x, kCount, kSize, kSize, FS_FLOAT32);
  int i, k;
  for (i = 0; i < kCount * kSize * kApart; ++i)
    x[i] = (float)(60.0 * fs_uniform(9, 0, (uint64_t)i) - 30.0);
  x[5] = -INFINITY;
  CHECK(fs_softmax(&logits, 0.7, p) == FS_OK);
  CHECK(fs_log_softmax(&logits, 0.7, logs) == FS_OK);
  for (i = 0; i < kCount; ++i) {
    const float* row = x + i * kSize;
    double top = -1e30, sum = 0.0, worst = 0.0;
    for (k = 0; k < kSize; ++k) top = larger(top, row[k]);
    for (k = 0; k < kSize; ++k) sum += exp((row[k] - top) / 0.7);
    for (k = 0; k < kSize; ++k) {
      const double exact = (row[k] - top) / 0.7 - log(sum);
      if (row[k] == -INFINITY) {
        CHECK(p[i * kSize + k] == 0.0f && logs[i * kSize + k] == -INFINITY);
        continue;
      }
      worst = larger(worst, fabs(logs[i * kSize + k] / exact - 1.0));
      if (exact > -87.0) worst = larger(worst, fabs(p[i * kSize + k] / exp(exact) - 1.0));
    }
    CHECK(worst < 1e-6);
  }
  logits = rows_of(x, kCount, kSize, kSize * kApart, FS_FLOAT32);
  logits.element_stride = kApart * (int64_t)sizeof(float);
  for (i = 0; i < kCount * kSize; ++i) gathered[i] = x[i * kApart];
  CHECK(fs_softmax(&logits, 1.0, p) == FS_OK);
  logits = rows_of(gathered, kCount, kSize, kSize, FS_FLOAT32);
  CHECK(fs_softmax(&logits, 1.0, logs) == FS_OK);
  CHECK(memcmp(p, logs, sizeof p) == 0);

  gathered[2 * kSize] = NAN;
  CHECK(fs_log_softmax(&logits, 1.0, logs) == FS_BAD_LOGITS);
  CHECK(contains(fs_last_error(), "logits row 2 must not contain NaN, got one at token 0"));
  CHECK(memcmp(p, logs, sizeof p) == 0);
  CHECK(fs_softmax(&logits, 0.0, p) == FS_INVALID_ARGUMENT);
  CHECK(contains(fs_last_error(), "temperature must be finite and > 0, got 0"));
  CHECK(fs_softmax(&logits, INFINITY, p) == FS_INVALID_ARGUMENT);
  CHECK(fs_softmax(&logits, 1.0, NULL) == FS_INVALID_ARGUMENT);
  CHECK(fs_softmax(NULL, 1.0, p) == FS_INVALID_ARGUMENT);
  logits.rows = 0;
  CHECK(fs_softmax(&logits, 1.0, NULL) == FS_OK);
}

static void test_worked_numbers(void) {
  static const float x[] = {3.0f, 2.5f, 2.0f, 1.0f};
  static const double softmax[] = {0.47, 0.29, 0.17, 0.06};
  const double peaked_probs[] = {0.70, 0.16, 0.10, 0.04};
  const double flat_probs[] = {0.30, 0.27, 0.23, 0.20};
  const fs_logits logits = rows_of(x, 1, 4, 4, FS_FLOAT32);
  const Params plain = default_params(), three = chain(1.0, 3, 1.0, 0.0),
               p85 = chain(1.0, 0, 0.85, 0.0);
  float probs[4], peaked[4], flat[4], equal[100];
  int64_t ids[100];
  Params params;
  int i;

  CHECK(probs_of(&logits, &plain, 1, probs) == FS_OK);
  for (i = 0; i < 4; ++i) {
    CHECK(fabs(probs[i] - softmax[i]) < 0.005);
    peaked[i] = (float)log(peaked_probs[i]);
    flat[i] = (float)log(flat_probs[i]);
  }
  CHECK(kept(peaked, 4, &three, ids) == 3);
  CHECK(kept(peaked, 4, &p85, ids) == 2 && ids[0] == 0 && ids[1] == 1);
  CHECK(kept(flat, 4, &three, ids) == 3 && ids[2] == 2);
  CHECK(kept(flat, 4, &p85, ids) == 4);

  /* top_k=50, then top_p: 90 % of those 50. The other way round: half of 90 %. */
  for (i = 0; i < 100; ++i) equal[i] = 1.0f;
  params = chain(1.0, 50, 0.89, 0.0);
  CHECK(kept(equal, 100, &params, ids) == 45);
  set_order(&params, FS_STAGE_TOP_P, FS_STAGE_TOP_K, FS_STAGE_TEMPERATURE, FS_STAGE_MIN_P);
  CHECK(kept(equal, 100, &params, ids) == 50);

  /* Ties: top_k keeps the lower ids, min_p keeps all, top_p at least one. */
  params = chain(1.0, 7, 1.0, 0.0);
  CHECK(kept(equal, 100, &params, ids) == 7 && ids[0] == 0 && ids[6] == 6);
  params = chain(1.0, 0, 1.0, 1.0);
  CHECK(kept(equal, 100, &params, ids) == 100);
  params = chain(1.0, 0, 0.0, 0.0);
  CHECK(kept(equal, 100, &params, ids) == 1 && ids[0] == 0);
  params = chain(1.0, 2, 0.1, 1.0);
  params.min_tokens_to_keep = 3;
  CHECK(kept(x, 4, &params, ids) == 3);

  /* -1 is off, and more than there is keeps what there is. */
  params = chain(1.0, -1, 1.0, 0.0);
  CHECK(kept(x, 4, &params, ids) == 4);
  params = chain(1.0, INT64_MAX, 1.0, 0.0);
  CHECK(kept(x, 4, &params, ids) == 4);
  params = chain(1.0, 3, 0.9, 0.0);
  params.min_tokens_to_keep = INT64_MAX;
  CHECK(kept(x, 4, &params, ids) == 4);
}

/* The first token in index order whose cumulative weight exceeds u * total. */
static void test_draw_in_index_order(void) {
  static const float x[] = {0.0f, -INFINITY, 0.0f, 0.0f, -INFINITY, 0.0f};
  static const int64_t expected[] = {0, 2, 3, 5};
  const fs_logits logits = rows_of(x, 1, kVocab, kVocab, FS_FLOAT32);
  const Params params = default_params();
  int i;
  for (i = 0; i < 4; ++i) {
    CHECK(draw(&logits, &params, i / 4.0) == expected[i]);
    CHECK(draw(&logits, &params, nextafter((i + 1) / 4.0, 0.0)) == expected[i]);
  }
}

/* Any layout of the same rows gives the same tokens as one row at a time. */
static void test_strides(void) {
  enum { kCount = 5, kWide = 700, kStride = 731 };
  static float x[kCount * kStride];
  double u[kCount];
  int64_t alone[kCount], tokens[kCount];
  int i, c;
  uint64_t state = 3;
  fill_random(x, kCount * kStride, 2);
  for (i = 0; i < kCount; ++i) u[i] = next_uniform(&state);
  for (c = 0; c < kChains; ++c) {
    const Params params = chain_of(c);
    const fs_logits forward = rows_of(x, kCount, kWide, kStride, FS_FLOAT32);
    const fs_logits backward =
        rows_of(x + (kCount - 1) * kStride, kCount, kWide, -kStride, FS_FLOAT32);
    const fs_logits same = rows_of(x, kCount, kWide, 0, FS_FLOAT32);
    for (i = 0; i < kCount; ++i) {
      const fs_logits row = rows_of(x + i * kStride, 1, kWide, 12345, FS_FLOAT32);
      alone[i] = draw(&row, &params, u[i]);
    }
    CHECK(sample(&forward, &params, 1, u, 0, 0, tokens) == FS_OK);
    CHECK(memcmp(tokens, alone, sizeof tokens) == 0);
    CHECK(sample(&same, &params, 1, u, 0, 0, tokens) == FS_OK);
    for (i = 0; i < kCount; ++i) {
      const fs_logits row = rows_of(x, 1, kWide, 0, FS_FLOAT32);
      CHECK(tokens[i] == draw(&row, &params, u[i]));
    }
    for (i = 0; i < kCount / 2; ++i) {
      const double swapped = u[i];
      u[i] = u[kCount - 1 - i];
      u[kCount - 1 - i] = swapped;
    }
    CHECK(sample(&backward, &params, 1, u, 0, 0, tokens) == FS_OK);
    for (i = 0; i < kCount; ++i) CHECK(tokens[i] == alone[kCount - 1 - i]);
    for (i = 0; i < kCount / 2; ++i) {
      const double swapped = u[i];
      u[i] = u[kCount - 1 - i];
      u[kCount - 1 - i] = swapped;
    }
  }
}

static void test_params_per_row(void) {
  enum { kWide = 300 };
  static float x[kChains * kWide];
  static double u[kChains];
  static Params params[kChains];
  static int64_t tokens[kChains];
  static float probs[kChains * kWide], row_probs[kWide];
  const fs_logits all = rows_of(x, kChains, kWide, kWide, FS_FLOAT32);
  uint64_t state = 4;
  int i;
  fill_random(x, kChains * kWide, 5);
  for (i = 0; i < kChains; ++i) {
    u[i] = next_uniform(&state);
    params[i] = chain_of(i);
  }
  CHECK(sample(&all, params, kChains, u, 0, 0, tokens) == FS_OK);
  CHECK(probs_of(&all, params, kChains, probs) == FS_OK);
  for (i = 0; i < kChains; ++i) {
    const fs_logits row = rows_of(x + i * kWide, 1, kWide, kWide, FS_FLOAT32);
    CHECK(tokens[i] == draw(&row, &params[i], u[i]));
    CHECK(probs_of(&row, &params[i], 1, row_probs) == FS_OK);
    CHECK(memcmp(row_probs, probs + i * kWide, sizeof row_probs) == 0);
  }
}

/* Every value of a half format: what it means is worked out here with ldexp. */
static float widen_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude =
      exponent ? ldexp(1024.0 + fraction, exponent - 25) : ldexp(fraction, -24);
  return (float)(bits >> 15 ? -magnitude : magnitude);
}

static float widen_bf16(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

/* A row gives the same token and probabilities as the float32 row of the same values. */
static void test_dtypes(void) {
  static uint16_t half[kBig];
  static double wide[kBig];
  static float x[kBig], probs[kBig], probs32[kBig];
  uint64_t state = 6;
  int dtype, c, i;
  for (dtype = FS_FLOAT16; dtype <= FS_FLOAT64; ++dtype) {
    const void* data = dtype == FS_FLOAT64 ? (const void*)wide : (const void*)half;
    const fs_logits logits = rows_of(data, 1, kBig - 37, kBig, (fs_dtype)dtype);
    const fs_logits float32 = rows_of(x, 1, kBig - 37, kBig, FS_FLOAT32);
    for (i = 0; i < kBig; ++i) {
      const uint32_t bits = next_random(&state);
      /* Signs and fractions as they come, exponents around 1, some subnormals and zeros. */
      if (dtype == FS_FLOAT16) {
        half[i] = (uint16_t)((bits & 0x83ff) | (bits >> 20 & 7) << 10 | (bits >> 25 & 1) << 14);
        x[i] = widen_f16(half[i]);
      } else if (dtype == FS_BFLOAT16) {
        half[i] = (uint16_t)((bits & 0x81ff) | (bits >> 20 & 1 ? 0x4000 : 0x3e00));
        x[i] = widen_bf16(half[i]);
      } else {
        /* More bits than float32 has: rounded to nearest. */
        wide[i] = ((double)bits - 1073741824.0) * 1.1e-8;
        x[i] = (float)wide[i];
      }
    }
    for (c = 0; c < kChains; ++c) {
      const Params params = chain_of(c);
      const double u = next_uniform(&state);
      CHECK(draw(&logits, &params, u) == draw(&float32, &params, u));
      CHECK(probs_of(&logits, &params, 1, probs) == FS_OK);
      CHECK(probs_of(&float32, &params, 1, probs32) == FS_OK);
      CHECK(memcmp(probs, probs32, sizeof(float) * (kBig - 37)) == 0);
    }
  }
}

/* A filtered or masked token is never drawn, and probabilities sum to 1. */
static void test_never_a_filtered_token(void) {
  static float x[kBig], probs[kBig];
  const fs_logits logits = rows_of(x, 1, kBig, kBig, FS_FLOAT32);
  uint64_t state = 7;
  int c, i;
  fill_random(x, kBig, 8);
  for (i = 0; i < kBig; i += 3) x[i] = -INFINITY;
  for (c = 0; c < kChains; ++c) {
    const Params params = chain_of(c);
    double total = 0.0, of_masked = 0.0;
    CHECK(probs_of(&logits, &params, 1, probs) == FS_OK);
    for (i = 0; i < kBig; ++i) *(i % 3 ? &total : &of_masked) += probs[i];
    CHECK(of_masked == 0.0);
    CHECK(fabs(total - 1.0) < 1e-6);
    for (i = 0; i < 200; ++i) {
      const double u = i ? next_uniform(&state) : nextafter(1.0, 0.0);
      CHECK(probs[draw(&logits, &params, u)] > 0.0f);
    }
  }
}

/* The host's rounding mode changes nothing, and is the host's again afterwards. */
static void test_rounding_mode(void) {
  static float x[kBig], probs[kBig], upward[kBig];
  const fs_logits logits = rows_of(x, 1, kBig, kBig, FS_FLOAT32);
  int c;
  fill_random(x, kBig, 9);
  for (c = 0; c < kChains; ++c) {
    const Params params = chain_of(c);
    fs_status status;
    int mode;
    CHECK(probs_of(&logits, &params, 1, probs) == FS_OK);
    fesetround(FE_UPWARD);
    status = probs_of(&logits, &params, 1, upward);
    mode = fegetround();
    fesetround(FE_TONEAREST);
    CHECK(status == FS_OK && mode == FE_UPWARD);
    CHECK(memcmp(probs, upward, sizeof probs) == 0);
  }
}

/* ---- every instruction set gives the same bits ---- */

typedef struct Fingerprint {
  int64_t tokens[kChains * 40];
  uint64_t hash; /* FNV-1a of the tokens and probabilities */
} Fingerprint;

static const int kSizes[40] = {1,   2,   3,   4,   5,   7,    8,    9,    15,   16,
                               17,  31,  32,  33,  47,  63,   64,   65,   80,   111,
                               127, 128, 129, 191, 240, 255,  256,  257,  300,  511,
                               512, 513, 767, 768, 769, 1000, 2047, 2048, 2049, 4000};

static uint64_t hash_of(uint64_t hash, const void* data, size_t size) {
  const unsigned char* bytes = (const unsigned char*)data;
  size_t i;
  for (i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  return hash;
}

/* What many sizes, data shapes and chains give. */
static Fingerprint fingerprint(void) {
  static float x[kBig], probs[kBig];
  static Fingerprint f;
  uint64_t state = 10;
  int s, c, i;
  f.hash = 14695981039346656037u;
  for (s = 0; s < 40; ++s) {
    const fs_logits logits = rows_of(x, 1, kSizes[s], kSizes[s], FS_FLOAT32);
    fill_random(x, kBig, (uint64_t)s);
    for (i = 0; i < kSizes[s]; ++i) {
      if (s % 5 == 1) x[i] = (float)i / 64.0f;        /* ascending */
      if (s % 5 == 2) x[i] = i % 7 ? 1.0f : -2.0f;    /* two-valued */
      if (s % 5 == 3 && i % 4 && i) x[i] = -INFINITY; /* masked */
      if (s % 5 == 4) x[i] *= i % 2 ? 1e30f : 1e-42f; /* huge and denormal */
    }
    for (c = 0; c < kChains; ++c) {
      const Params params = chain_of(c);
      f.tokens[s * kChains + c] = draw(&logits, &params, next_uniform(&state));
      CHECK(probs_of(&logits, &params, 1, probs) == FS_OK);
      f.hash = hash_of(f.hash, probs, sizeof(float) * (size_t)kSizes[s]);
    }
  }
  f.hash = hash_of(f.hash, f.tokens, sizeof f.tokens);
  return f;
}

int main(int argc, char** argv) {
  static Fingerprint first, other;
  char isas[100];
  char* name;
  int count = 0;
  const char* forced = getenv("FASTSAMPLE_ISA");

  test_version();
  test_uniform();
  test_version_numbers();
  test_defaults();
  test_init_sizes();
  test_names();
  test_orders();
  CHECK(*fs_isa() != '\0' && contains(fs_isas(), fs_isa()));
  CHECK(contains(fs_isas(), "scalar"));
  if (forced) CHECK(strcmp(fs_isa(), forced) == 0);

  CHECK(strlen(argc > 1 ? argv[1] : fs_isas()) < sizeof isas);
  strcpy(isas, argc > 1 ? argv[1] : fs_isas());
  for (name = strtok(isas, ","); name; name = strtok(NULL, ","), ++count) {
    CHECK(fs_force_isa(name) == FS_OK);
    CHECK(strcmp(fs_isa(), name) == 0);
    test_force_isa();
    test_bad_arguments();
    test_bad_rows();
    test_survivors_capacity();
    test_no_rows();
    test_later_structs();
    test_joint();
    test_element_stride();
    test_free_thread_buffers();
    test_greedy();
    test_worked_numbers();
    test_softmax();
    test_draw_in_index_order();
    test_strides();
    test_params_per_row();
    test_dtypes();
    test_never_a_filtered_token();
    test_rounding_mode();
    if (count == 0) {
      first = fingerprint();
    } else {
      other = fingerprint();
      CHECK(memcmp(first.tokens, other.tokens, sizeof first.tokens) == 0);
      CHECK(first.hash == other.hash);
    }
  }
  printf("instruction sets: %s\n", fs_isas());
  /* The same on every machine. */
  printf("fingerprint: %08lx%08lx\n", (unsigned long)(first.hash >> 32),
         (unsigned long)(first.hash & 0xffffffffu));
  return finish();
}
