/* The llama_sampler of fastsample_llama.h, valid as C99 and as C++17; tests/integrations builds it.
 *
 *   llama_sampler                checks what the header promises, and prints what failed
 *   llama_sampler refused        is refused in every way; stderr has what was said
 *   llama_sampler MODEL FOLDER   writes texts: on stdout the tokens of each, and in FOLDER the rows
 *                                that they were drawn from
 *   llama_sampler MODEL nan      draws from a row with NaN, which ends the process
 */
#include <fastsample_llama.h>
#include <math.h>

#include "checks.h"

enum { kVocab = 40, kSteps = 12, kStages = 16 };

/* ---- samplers ------------------------------------------------------------------------------- */

typedef struct Setting {
  const char* name;
  double temperature, top_k, min_p, mirostat, repetition, dry;
  int after; /* of llama.cpp's own samplers */
} Setting;

static fs_sampler* make(const Setting* setting, uint64_t seed) {
  fs_stage stages[kStages];
  fs_rule rules[2];
  fs_chain chain;
  fs_sampler* sampler = NULL;
  fs_chain_init(&chain, sizeof chain);
  chain.stages = stages;
  chain.stage_count = fs_order_init("llama.cpp", stages, sizeof *stages, kStages);
  fs_find_stage(stages, chain.stage_count, FS_STAGE_TEMPERATURE)->value[0] = setting->temperature;
  fs_find_stage(stages, chain.stage_count, FS_STAGE_TOP_K)->value[0] = setting->top_k;
  fs_find_stage(stages, chain.stage_count, FS_STAGE_MIN_P)->value[0] = setting->min_p;
  fs_find_stage(stages, chain.stage_count, FS_STAGE_MIROSTAT)->value[0] = setting->mirostat;
  fs_find_stage(stages, chain.stage_count, FS_STAGE_MIROSTAT)->value[1] = 3.0;
  fs_rule_init(&rules[0], sizeof *rules, FS_RULE_REPETITION);
  rules[0].value[0] = setting->repetition;
  fs_rule_init(&rules[1], sizeof *rules, FS_RULE_DRY);
  rules[1].value[0] = setting->dry;
  CHECK(fs_sampler_new(&chain, rules, 2, seed, 0, 0, &sampler) == FS_OK);
  return sampler;
}

static struct llama_sampler* make_llama(const Setting* setting, uint64_t seed, int32_t n_vocab) {
  struct llama_sampler* made = fs_llama_sampler_init(make(setting, seed), n_vocab);
  CHECK(made);
  return made;
}

static fs_sampler_info info_of(const struct llama_sampler* smpl) {
  fs_sampler_info info;
  info.struct_size = sizeof info;
  CHECK(fs_sampler_get(fs_llama_sampler_get(smpl), &info, NULL, 0) == FS_OK);
  return info;
}

/* ---- what the header promises --------------------------------------------------------------- */

static const Setting kPlain = {"plain", 0.9, 0, 0.0, 0, 1.0, 0.0, 0};
static const Setting kHistory = {"history", 0.9, 30, 0.0, 0, 1.5, 0.8, 0};
static const Setting kState = {"state", 1.1, 0, 0.0, 2, 1.3, 0.0, 0};

typedef struct Candidates {
  llama_token_data data[kVocab + 1];
  llama_token_data_array array;
} Candidates;

static void fill(Candidates* c, uint64_t step) {
  uint64_t random = 77 + step;
  int i;
  for (i = 0; i < kVocab; ++i) {
    c->data[i].id = i;
    c->data[i].logit = (float)(next_random(&random) % 4096) / 512.0f - 4.0f;
    c->data[i].p = 0.5f;
  }
  c->array.data = c->data;
  c->array.size = kVocab;
  c->array.selected = 7;
  c->array.sorted = false;
}

/* Takes the candidates at odd places away, and turns the others round. */
static void shuffle(Candidates* c) {
  llama_token_data kept[kVocab / 2];
  int i;
  for (i = 0; i < kVocab / 2; ++i) kept[i] = c->data[kVocab - 2 - 2 * i];
  memcpy(c->data, kept, sizeof kept);
  c->array.size = kVocab / 2;
}

static llama_token apply(struct llama_sampler* smpl, Candidates* c) {
  Candidates before = *c;
  llama_sampler_apply(smpl, &c->array);
  CHECK(c->array.selected >= 0 && c->array.selected < (int64_t)c->array.size);
  CHECK(memcmp(before.data, c->data, sizeof before.data) == 0);
  CHECK(c->array.size == before.array.size && c->array.data == c->data && !c->array.sorted);
  return c->array.data[c->array.selected].id;
}

static llama_token sample(struct llama_sampler* smpl, uint64_t step) {
  Candidates c;
  llama_token token;
  fill(&c, step);
  token = apply(smpl, &c);
  llama_sampler_accept(smpl, token);
  return token;
}

/* What fs_step draws from the row of a step, of which the odd ids may be away. */
static llama_token expected(fs_sampler* sampler, uint64_t step, int evens) {
  Candidates c;
  float row[kVocab];
  fs_logits logits;
  int64_t token = -1;
  int i;
  fill(&c, step);
  for (i = 0; i < kVocab; ++i) row[i] = evens && i % 2 ? -INFINITY : c.data[i].logit;
  fs_logits_init(&logits, sizeof logits);
  logits.data = row;
  logits.rows = 1;
  logits.vocab = kVocab;
  CHECK(fs_step(&sampler, &logits, 1, 0, &token) == FS_OK);
  return (llama_token)token;
}

static void test_draws(const Setting* setting) {
  struct llama_sampler* smpl = make_llama(setting, 3, kVocab);
  fs_sampler* twin = make(setting, 3);
  uint64_t step;
  CHECK(strcmp(llama_sampler_name(smpl), "fastsample") == 0);
  for (step = 0; step < kSteps; ++step) CHECK(sample(smpl, step) == expected(twin, step, 0));
  for (; step < 2 * kSteps; ++step) {
    Candidates c;
    llama_token token;
    fill(&c, step);
    shuffle(&c);
    token = apply(smpl, &c);
    llama_sampler_accept(smpl, token);
    CHECK(token == expected(twin, step, 1));
  }
  CHECK(info_of(smpl).history_length == 2 * kSteps && info_of(smpl).offset == 2 * kSteps);
  llama_sampler_free(smpl);
  fs_sampler_free(twin);
}

static void test_all_candidates_in_another_order(const Setting* setting) {
  struct llama_sampler* smpl = make_llama(setting, 5, kVocab);
  fs_sampler* twin = make(setting, 5);
  uint64_t step;
  for (step = 0; step < kSteps; ++step) {
    Candidates c;
    llama_token token;
    int i;
    fill(&c, step);
    for (i = 0; i < kVocab / 2; ++i) {
      const llama_token_data one = c.data[i];
      c.data[i] = c.data[kVocab - 1 - i];
      c.data[kVocab - 1 - i] = one;
    }
    token = apply(smpl, &c);
    llama_sampler_accept(smpl, token);
    CHECK(token == expected(twin, step, 0));
  }
  llama_sampler_free(smpl);
  fs_sampler_free(twin);
}

/* A draw that is not accepted leaves no trace but the offset. */
static void test_what_is_not_accepted(const Setting* setting) {
  struct llama_sampler* smpl = make_llama(setting, 9, kVocab);
  fs_sampler* twin = make(setting, 9);
  const llama_token prompt[] = {4, 4, 11};
  llama_token token, other;
  Candidates c;
  int i;
  for (i = 0; i < 3; ++i) llama_sampler_accept(smpl, prompt[i]);
  CHECK(fs_sampler_push(twin, prompt, 3) == FS_OK);
  CHECK(info_of(smpl).history_length == 3 && info_of(smpl).prompt_length == 0);
  CHECK(sample(smpl, 0) == expected(twin, 0, 0)); /* with the offset 0 */

  fill(&c, 1);
  apply(smpl, &c); /* 1; and again, as where a grammar has said no */
  fill(&c, 1);
  shuffle(&c);
  token = apply(smpl, &c); /* 2 */
  llama_sampler_accept(smpl, token);
  CHECK(fs_sampler_seek(twin, 9, 0, 2) == FS_OK);
  CHECK(token == expected(twin, 1, 1));

  fill(&c, 2);
  other = apply(smpl, &c) == 17 ? 18 : 17; /* 3; but the host has its own choice */
  llama_sampler_accept(smpl, other);
  CHECK(fs_sampler_push(twin, &other, 1) == FS_OK && fs_sampler_seek(twin, 9, 0, 4) == FS_OK);
  CHECK(info_of(smpl).history_length == 6);
  for (i = 0; i < 3; ++i)
    CHECK(sample(smpl, 3 + (uint64_t)i) == expected(twin, 3 + (uint64_t)i, 0));
  llama_sampler_free(smpl);
  fs_sampler_free(twin);
}

/* The prompt that a sampler comes with; what a reset forgets. */
static void test_reset(const Setting* setting) {
  fs_sampler* sampler = make(setting, 1);
  const int32_t prompt[] = {3, 5};
  struct llama_sampler* smpl;
  llama_token first[kSteps], second[kSteps];
  uint64_t step;
  CHECK(fs_sampler_seek(sampler, 1, 2, 30) == FS_OK);
  CHECK(fs_sampler_start(sampler, prompt, 2, 2) == FS_OK);
  smpl = fs_llama_sampler_init(sampler, kVocab);
  CHECK(fs_llama_sampler_get(smpl) == sampler);
  sample(smpl, 0);
  CHECK(info_of(smpl).history_length == 3 && info_of(smpl).prompt_length == 2);
  llama_sampler_reset(smpl);
  CHECK(info_of(smpl).history_length == 0 && info_of(smpl).stream == 2);
  for (step = 0; step < kSteps; ++step) first[step] = sample(smpl, step);
  CHECK(info_of(smpl).offset == 30 + kSteps);
  llama_sampler_reset(smpl);
  for (step = 0; step < kSteps; ++step) second[step] = sample(smpl, step);
  CHECK(memcmp(first, second, sizeof first) == 0);
  llama_sampler_free(smpl);
}

/* Twins, also of a draw that is not accepted yet. */
static void test_clone_and_copy(const Setting* setting) {
  struct llama_sampler* smpl = make_llama(setting, 4, kVocab);
  struct llama_sampler* other = make_llama(setting, 8, kVocab);
  struct llama_sampler* twin;
  Candidates c;
  llama_token token;
  uint64_t step;
  for (step = 0; step < 3; ++step) sample(smpl, step);
  fill(&c, 3);
  shuffle(&c); /* the original has a row of its own from here on */
  token = apply(smpl, &c);
  twin = llama_sampler_clone(smpl);
  CHECK(fs_llama_sampler_get(twin) != fs_llama_sampler_get(smpl));
  llama_sampler_copy(smpl, other);
  llama_sampler_accept(smpl, token);
  llama_sampler_accept(twin, token);
  llama_sampler_accept(other, token);
  for (step = 4; step < kSteps; ++step) {
    token = sample(smpl, step);
    CHECK(token == sample(twin, step) && token == sample(other, step));
  }
  llama_sampler_free(smpl);
  CHECK(sample(twin, 0) == sample(other, 0));
  llama_sampler_free(twin);
  llama_sampler_free(other);
}

static void test_in_a_chain(void) {
  struct llama_sampler* chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
  struct llama_sampler* twin;
  fs_sampler* plain = make(&kHistory, 6);
  uint64_t step;
  llama_sampler_chain_add(chain, make_llama(&kHistory, 6, kVocab));
  CHECK(fs_llama_sampler_get(chain) == NULL);
  CHECK(fs_llama_sampler_get(llama_sampler_chain_get(chain, 0)) != NULL);
  CHECK(fs_llama_sampler_get(NULL) == NULL);
  CHECK(sample(chain, 0) == expected(plain, 0, 0));
  twin = llama_sampler_clone(chain);
  for (step = 1; step < kSteps; ++step) {
    const llama_token token = expected(plain, step, 0);
    CHECK(sample(chain, step) == token && sample(twin, step) == token);
  }
  llama_sampler_free(chain);
  llama_sampler_free(twin);
  fs_sampler_free(plain);
}

static int check_all(void) {
  const Setting* settings[] = {&kPlain, &kHistory, &kState};
  int i;
  for (i = 0; i < 3; ++i) {
    test_draws(settings[i]);
    test_all_candidates_in_another_order(settings[i]);
    test_what_is_not_accepted(settings[i]);
    test_reset(settings[i]);
    test_clone_and_copy(settings[i]);
  }
  test_in_a_chain();
  return finish();
}

/* ---- what is refused ------------------------------------------------------------------------ */

/* Nothing is selected, and nothing has moved; then all is as before. */
static void refused(struct llama_sampler* smpl, Candidates* c) {
  const fs_sampler_info before = info_of(smpl);
  c->array.selected = 0;
  llama_sampler_apply(smpl, &c->array);
  CHECK(c->array.selected == -1);
  CHECK(info_of(smpl).offset == before.offset);
  CHECK(info_of(smpl).history_length == before.history_length);
}

static int refuse_all(void) {
  struct llama_sampler* smpl = make_llama(&kHistory, 2, kVocab);
  fs_sampler* twin = make(&kHistory, 2);
  fs_sampler* sampler = make(&kPlain, 2);
  const double bias = 1.0;
  const int32_t far = kVocab;
  fs_chain chain;
  fs_rule rule;
  Candidates c;
  int i;
  CHECK(fs_llama_sampler_init(NULL, kVocab) == NULL);
  CHECK(fs_llama_sampler_init(sampler, 0) == NULL);
  CHECK(fs_llama_sampler_init(sampler, FS_MAX_VOCAB + 1) == NULL);
  fs_sampler_free(sampler);

  CHECK(sample(smpl, 0) == expected(twin, 0, 0));
  fill(&c, 1);
  c.data[5].logit = NAN;
  refused(smpl, &c);
  fill(&c, 1);
  shuffle(&c);
  c.data[3].logit = INFINITY;
  refused(smpl, &c);
  fill(&c, 1);
  for (i = 0; i < kVocab; ++i) c.data[i].logit = -INFINITY;
  refused(smpl, &c);
  fill(&c, 1);
  shuffle(&c);
  c.data[3].id = kVocab;
  refused(smpl, &c);
  c.data[3].id = -1;
  refused(smpl, &c);
  c.data[3].id = c.data[0].id;
  refused(smpl, &c);
  fill(&c, 1);
  c.data[kVocab] = c.data[2];
  c.array.size = kVocab + 1;
  refused(smpl, &c);
  fill(&c, 1);
  c.array.size = 0;
  refused(smpl, &c);
  llama_sampler_accept(smpl, LLAMA_TOKEN_NULL);
  CHECK(info_of(smpl).history_length == 1);
  CHECK(sample(smpl, 1) == expected(twin, 1, 0));
  fill(&c, 2);
  shuffle(&c);
  CHECK(apply(smpl, &c) == expected(twin, 2, 1));
  llama_sampler_free(smpl);
  fs_sampler_free(twin);

  fs_chain_init(&chain, sizeof chain);
  fs_rule_init(&rule, sizeof rule, FS_RULE_BIAS);
  rule.count = 1;
  rule.ids = &far;
  rule.weights = &bias;
  CHECK(fs_sampler_new(&chain, &rule, 1, 0, 0, 0, &sampler) == FS_OK);
  smpl = fs_llama_sampler_init(sampler, kVocab);
  fill(&c, 0);
  refused(smpl, &c);
  llama_sampler_free(smpl);
  return finish();
}

/* ---- texts of a model ----------------------------------------------------------------------- */

static const Setting kTexts[] = {
    {"alone", 0.8, 40, 0.05, 0, 1.0, 0.0, 0},    {"history", 0.9, 0, 0.02, 0, 1.3, 0.8, 0},
    {"state", 1.2, 0, 0.0, 2, 1.0, 0.0, 0},      {"after top_k", 1.0, 0, 0.0, 0, 1.0, 0.0, 1},
    {"after many", 0.7, 0, 0.1, 0, 1.2, 0.0, 2},
};

/* llama.cpp's own samplers before ours. */
static struct llama_sampler* before(int which, int32_t n_vocab) {
  struct llama_sampler* chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
  if (which == 1) llama_sampler_chain_add(chain, llama_sampler_init_top_k(40));
  if (which == 2) {
    llama_sampler_chain_add(chain, llama_sampler_init_penalties(n_vocab, 64, 1.1f, 0.2f, 0.1f));
    llama_sampler_chain_add(chain, llama_sampler_init_top_p(0.97f, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_typical(0.9f, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_temp(1.4f));
  }
  return chain;
}

/* Writes a row as the last sampler of a chain sees it: what is not among the candidates is -inf. */
static void write_row(struct llama_sampler* first, const float* logits, int32_t n_vocab,
                      FILE* file) {
  llama_token_data* data = (llama_token_data*)malloc((size_t)n_vocab * sizeof *data);
  float* row = (float*)malloc((size_t)n_vocab * sizeof *row);
  llama_token_data_array array;
  int32_t i;
  for (i = 0; i < n_vocab; ++i) {
    data[i].id = i;
    data[i].logit = logits[i];
    data[i].p = 0.0f;
    row[i] = -INFINITY;
  }
  array.data = data;
  array.size = (size_t)n_vocab;
  array.selected = -1;
  array.sorted = false;
  llama_sampler_apply(first, &array);
  for (i = 0; i < (int32_t)array.size; ++i) row[array.data[i].id] = array.data[i].logit;
  CHECK(fwrite(row, sizeof *row, (size_t)n_vocab, file) == (size_t)n_vocab);
  free(data);
  free(row);
}

static void write_text(struct llama_context* ctx, const Setting* setting, llama_token* prompt,
                       int32_t count, FILE* file) {
  const struct llama_vocab* vocab = llama_model_get_vocab(llama_get_model(ctx));
  const int32_t n_vocab = llama_vocab_n_tokens(vocab);
  struct llama_sampler* first = before(setting->after, n_vocab);
  struct llama_sampler* chain = before(setting->after, n_vocab);
  int32_t i;
  llama_sampler_chain_add(chain, make_llama(setting, 42, n_vocab));
  for (i = 0; i < count; ++i) {
    llama_sampler_accept(first, prompt[i]);
    llama_sampler_accept(chain, prompt[i]);
  }
  llama_memory_clear(llama_get_memory(ctx), true);
  CHECK(llama_decode(ctx, llama_batch_get_one(prompt, count)) == 0);
  printf("%s:", setting->name);
  for (i = 0; i < kSteps; ++i) {
    llama_token token;
    write_row(first, llama_get_logits_ith(ctx, -1), n_vocab, file);
    token = llama_sampler_sample(chain, ctx, -1);
    llama_sampler_accept(first, token);
    printf(" %d", (int)token);
    CHECK(llama_decode(ctx, llama_batch_get_one(&token, 1)) == 0);
  }
  printf("\n");
  llama_sampler_free(chain);
  llama_sampler_free(first);
}

static void say_nothing(enum ggml_log_level level, const char* text, void* data) {
  (void)level, (void)text, (void)data;
}

/* Draws from a row of the model that is none. */
static void spoil(struct llama_context* ctx, llama_token* prompt, int32_t count) {
  const struct llama_vocab* vocab = llama_model_get_vocab(llama_get_model(ctx));
  const int32_t n_vocab = llama_vocab_n_tokens(vocab);
  struct llama_sampler* chain = before(0, n_vocab);
  llama_sampler_chain_add(chain, make_llama(&kPlain, 1, n_vocab));
  CHECK(llama_decode(ctx, llama_batch_get_one(prompt, count)) == 0);
  llama_get_logits_ith(ctx, -1)[3] = NAN;
  printf("%d\n", (int)llama_sampler_sample(chain, ctx, -1));
}

static int write_texts(const char* path, const char* folder) {
  const char text[] = "Once upon a time, there was a little";
  struct llama_model_params model_params = llama_model_default_params();
  struct llama_context_params params = llama_context_default_params();
  struct llama_model* model;
  struct llama_context* ctx;
  llama_token prompt[32];
  int32_t count;
  size_t i;
  llama_log_set(say_nothing, NULL);
  model_params.use_extra_bufts = false; /* no AMX, which some compilers spoil */
  model = llama_model_load_from_file(path, model_params);
  CHECK(model);
  if (!model) return finish();
  params.n_ctx = 128;
  params.n_threads = params.n_threads_batch = 1;
  ctx = llama_init_from_model(model, params);
  CHECK(ctx);
  count = llama_tokenize(llama_model_get_vocab(model), text, (int32_t)strlen(text), prompt, 32,
                         true, true);
  CHECK(count > 0);
  printf("prompt:");
  for (i = 0; i < (size_t)count; ++i) printf(" %d", (int)prompt[i]);
  printf("\n");
  if (strcmp(folder, "nan") == 0) spoil(ctx, prompt, count);
  for (i = 0; i < sizeof kTexts / sizeof *kTexts; ++i) {
    char name[1024];
    FILE* file;
    snprintf(name, sizeof name, "%s/%s", folder, kTexts[i].name);
    file = fopen(name, "wb");
    CHECK(file);
    if (file) {
      write_text(ctx, &kTexts[i], prompt, count, file);
      CHECK(fclose(file) == 0);
    }
  }
  llama_free(ctx);
  llama_model_free(model);
  return finish();
}

int main(int argc, char** argv) {
  if (argc == 3) return write_texts(argv[1], argv[2]);
  return argc == 2 ? refuse_all() : check_all();
}
