/* Random bytes become a sequence's rules and what is done to it; whatever they are, its edits are
 * those of a new one with the same tokens, a copy goes on as it does, and a failing call changes
 * nothing, on every instruction set.
 *
 * A libFuzzer target (build with -DFASTSAMPLE_LIBFUZZER -fsanitize=fuzzer), or a program of its
 * own: fuzz_sampler [runs] [seed], where run i is what `fuzz_sampler 1 <seed + i>` runs. */
#include <fastsample.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZER "fuzz_sampler"
#include "seeded.h"

enum { kVocab = 300, kIds = 8, kRules = 6, kActs = 24, kMost = 4096 };

static long made, refused; /* samplers */

/* Rules with the lists that they point to. */
typedef struct Rules {
  fs_rule rule[kRules];
  int32_t ids[kRules][kIds];
  int64_t offsets[kRules][kIds + 1];
  double weights[kRules][kIds];
  int64_t count;
  uint8_t room[kRules * 4096]; /* of a struct_size that is taken, the library reads all */
} Rules;

/* Few, so that they repeat; in several blocks, at the end, beyond the row and beyond any. */
static int32_t take_id(Bytes* in) {
  static const int32_t kSome[16] = {0,   1,   2,   3,   1,      2,       3,       4,
                                    255, 256, 257, 299, kVocab, 4194303, 4194304, 2147483647};
  return kSome[take(in, 1) % 16];
}

static int64_t take_length(Bytes* in) {
  const unsigned choice = (unsigned)take(in, 1);
  return choice < 128 ? -1 : (int64_t)(choice % 16);
}

/* Mostly valid; now and then one byte is another one. */
static void take_rules(Bytes* in, Rules* rules) {
  int64_t i, k;
  rules->count = (int64_t)(take(in, 1) % (kRules + 1));
  for (i = 0; i < rules->count; ++i) {
    fs_rule* rule = &rules->rule[i];
    const int32_t kind = 1 + (int32_t)(take(in, 1) % FS_RULE_ALLOWED_IDS);
    fs_rule_init(rule, sizeof *rule, kind);
    for (k = 0; k < kIds; ++k) {
      rules->ids[i][k] = take_id(in);
      rules->weights[i][k] = take(in, 1) % 4 ? take_uniform(in) - 0.5 : -INFINITY;
    }
    for (k = 0; k <= kIds; ++k) rules->offsets[i][k] = k < 4 ? k : k + (k > 5);
    switch (kind) {
      case FS_RULE_REPETITION: rule->value[0] = take_double(in, 1.3); break;
      case FS_RULE_FREQUENCY:
      case FS_RULE_PRESENCE: rule->value[0] = take_double(in, 0.3); break;
      case FS_RULE_DRY:
        rule->value[0] = take_double(in, 0.8);
        rule->value[2] = 1.0 + (double)(take(in, 1) % 4);
        rule->value[3] = (double)take_length(in);
        break;
      case FS_RULE_NO_REPEAT_NGRAM:
      case FS_RULE_MIN_NEW_TOKENS: rule->value[0] = (double)(take(in, 1) % 5); break;
      default: break;
    }
    if (kind >= FS_RULE_REPETITION && kind <= FS_RULE_PRESENCE)
      rule->value[1] = (double)take_length(in);
    if (kind == FS_RULE_BIAS || kind == FS_RULE_SEQUENCE_BIAS || kind == FS_RULE_DRY ||
        kind == FS_RULE_MIN_NEW_TOKENS || kind == FS_RULE_ALLOWED_IDS) {
      rule->ids = rules->ids[i];
      rule->count =
          kind == FS_RULE_DRY ? (int64_t)(take(in, 1) % 3) : (int64_t)(take(in, 1) % (kIds - 1));
    }
    if (kind == FS_RULE_SEQUENCE_BIAS) rule->offsets = rules->offsets[i];
    if (kind == FS_RULE_BIAS || kind == FS_RULE_SEQUENCE_BIAS) rule->weights = rules->weights[i];
    /* Not in pointers, of which the library cannot know where they lead. */
    if (take(in, 1) < 8)
      ((uint8_t*)rule)[take(in, 1) % offsetof(fs_rule, count)] ^= (uint8_t)take(in, 1);
  }
}

typedef struct Seen {
  fs_sampler_info info;
  int32_t ids[kMost];
  int64_t count;
  fs_edit edits[2 * kVocab];
} Seen;

static void look(fs_sampler* sampler, Seen* seen) {
  int64_t i;
  seen->info.struct_size = sizeof seen->info;
  HOLDS(fs_sampler_get(sampler, &seen->info, seen->ids, kMost) == FS_OK);
  HOLDS(seen->info.history_length <= kMost);
  HOLDS(seen->info.prompt_length >= 0 && seen->info.prompt_length <= seen->info.history_length);
  HOLDS(fs_sampler_edits(sampler, kVocab, seen->edits, 2 * kVocab, &seen->count) == FS_OK);
  for (i = 0; i < seen->count; ++i) {
    const fs_edit* edit = &seen->edits[i];
    HOLDS(edit->id >= (i ? edit[-1].id + 1 : 0) && edit->id < kVocab);
    HOLDS(edit->banned == 0 || edit->banned == 1);
    HOLDS(edit->factor > 0.0 && isfinite(edit->factor));
    HOLDS(isfinite(edit->subtract) && isfinite(edit->bias));
  }
}

static int same(const Seen* a, const Seen* b) {
  return memcmp(&a->info, &b->info, sizeof a->info) == 0 && a->count == b->count &&
         memcmp(a->ids, b->ids, (size_t)a->info.history_length * sizeof *a->ids) == 0 &&
         memcmp(a->edits, b->edits, (size_t)a->count * sizeof *a->edits) == 0;
}

/* A new one with the same tokens has the same edits. */
static void check_anew(const fs_chain* chain, const Rules* rules, const Seen* seen) {
  static Seen fresh;
  fs_sampler* sampler = NULL;
  HOLDS(fs_sampler_new(chain, rules->rule, rules->count, seen->info.seed, seen->info.stream,
                       seen->info.offset, &sampler) == FS_OK);
  HOLDS(fs_sampler_start(sampler, seen->ids, seen->info.history_length, seen->info.prompt_length) ==
        FS_OK);
  if (seen->info.state_size) HOLDS(fs_sampler_set_state(sampler, seen->info.state) == FS_OK);
  look(sampler, &fresh);
  HOLDS(same(seen, &fresh));
  fs_sampler_free(sampler);
}

static void take_row(Bytes* in, float* x) {
  int64_t i;
  for (i = 0; i < kVocab; ++i) x[i] = (float)(take(in, 1) % 32) / 4.0f;
  if (take(in, 1) < 16) x[take(in, 1)] = NAN;
}

/* One thing that can be done. Whatever fails has changed nothing. */
static void act(Bytes* in, fs_sampler* sampler, const fs_chain* chain, const Rules* rules) {
  static Seen before, after;
  static float x[kVocab];
  int32_t ids[20];
  int64_t count = (int64_t)(take(in, 1) % 20), token = -2, i;
  fs_logits logits;
  fs_status status;
  fs_sampler* copy = NULL;
  for (i = 0; i < count; ++i) ids[i] = take_id(in);
  look(sampler, &before);
  switch (take(in, 1) % 6) {
    case 0: status = fs_sampler_start(sampler, ids, count, (int64_t)(take(in, 1) % 21)); break;
    case 1: status = fs_sampler_rollback(sampler, count % 6); break;
    case 2: status = fs_sampler_push(sampler, ids, count); break;
    case 3: status = fs_sampler_seek(sampler, take(in, 8), take(in, 1), take(in, 8) >> 1); break;
    default: {
      int64_t twin = -2;
      take_row(in, x);
      fs_logits_init(&logits, sizeof logits);
      logits.data = x;
      logits.rows = 1;
      logits.vocab = kVocab;
      HOLDS(fs_sampler_copy(sampler, &copy) == FS_OK);
      status = fs_step(&sampler, &logits, 1, 0, &token);
      HOLDS(fs_step(&copy, &logits, 1, 0, &twin) == status && token == twin);
      look(copy, &after);
      fs_sampler_free(copy);
      look(sampler, &before);
      HOLDS(same(&before, &after)); /* also where it failed: the copy is what it was */
      HOLDS(status != FS_OK || (token >= 0 && token < kVocab && x[token] > -INFINITY));
      break;
    }
  }
  look(sampler, &after);
  if (status != FS_OK) {
    HOLDS(*fs_last_error() == '\0'); /* of look, which has succeeded */
    HOLDS(same(&before, &after));
  }
  check_anew(chain, rules, &after);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int32_t kKinds[4] = {FS_STAGE_TEMPERATURE, FS_STAGE_TOP_K, FS_STAGE_XTC,
                                    FS_STAGE_MIROSTAT};
  static Rules rules;
  static Seen first, other;
  fs_stage stages[4];
  fs_chain chain;
  char isas[100], *isa;
  int round = 0;
  fs_chain_init(&chain, sizeof chain);
  HOLDS(strlen(fs_isas()) < sizeof isas);
  strcpy(isas, fs_isas());
  for (isa = strtok(isas, ","); isa; isa = strtok(NULL, ",")) {
    fs_sampler* sampler = NULL;
    fs_status status;
    Bytes in;
    size_t i;
    int k;
    HOLDS(fs_force_isa(isa) == FS_OK);
    in.data = data;
    in.left = size;
    in.state = size;
    for (i = 0; i < size; ++i) in.state = (in.state ^ data[i]) * 1099511628211u;
    chain.stages = stages;
    chain.stage_count = (int64_t)(take(&in, 1) % 5);
    for (k = 0; k < 4; ++k) fs_stage_init(&stages[k], sizeof *stages, kKinds[k]);
    stages[0].value[0] = (double)(take(&in, 1) % 4) / 2.0;
    stages[1].value[0] = (double)(take(&in, 1) % 40);
    stages[2].value[0] = 0.5;
    stages[3].value[0] = 2.0 * (double)(take(&in, 1) % 2);
    take_rules(&in, &rules);
    status = fs_sampler_new(&chain, rules.rule, rules.count, 1, 0, take(&in, 1), &sampler);
    HOLDS((status == FS_OK) == (sampler != NULL));
    if (status != FS_OK) {
      HOLDS(status == FS_INVALID_ARGUMENT && *fs_last_error() != '\0');
      ++refused;
      return 0;
    }
    for (k = 0; k < kActs; ++k) act(&in, sampler, &chain, &rules);
    look(sampler, round ? &other : &first);
    if (round++) HOLDS(same(&first, &other));
    fs_sampler_free(sampler);
  }
  ++made;
  return 0;
}

#ifndef FASTSAMPLE_LIBFUZZER
int main(int argc, char** argv) {
  const long runs = run_seeds(argc, argv, 2000);
  printf("samplers: %ld made, %ld refused\n", made, refused);
  /* A fuzzer that is always refused tests nothing. */
  if (runs > 500 && (made < runs / 4 || !refused)) {
    printf("too few runs of some kind\n");
    return 1;
  }
  printf("%ld passed, 0 failed\n", runs);
  return 0;
}
#endif
