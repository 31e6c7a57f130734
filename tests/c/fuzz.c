/* Random bytes become a row, parameters and a uniform; whatever they are, the invariants of
 * fastsample.h hold, on every instruction set, with the same bits.
 *
 * A libFuzzer target (build with -DFASTSAMPLE_LIBFUZZER -fsanitize=fuzzer), or a program of its
 * own: fuzz [runs] [seed], where run i is what `fuzz 1 <seed + i>` runs. */
#define _POSIX_C_SOURCE 200809L
#include <fastsample.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(_WIN32) /* where a run that does not end is not noticed */
#include <signal.h>
#include <unistd.h>
#define HAS_ALARM 1
#endif

#include "bytes.h"
#include "chains.h"

enum { kMaxVocab = 20000, kSentinel = 0x5a };

/* ---- bytes in ---- */

static Params take_params(Bytes* in, int64_t vocab) {
  static const uint8_t kOrders[][kStages] = {{1, 2, 3, 4}, {1, 4, 2, 3}, {2, 3, 4, 1}, {3, 4, 2, 1},
                                             {2, 1, 4, 3}, {2, 1, 3},    {4, 3, 2, 1}};
  Params taken = default_params();
  const unsigned order = (unsigned)take(in, 1);
  taken.temperature = take_double(in, 1.0);
  taken.top_k = take_integer(in, 0, vocab);
  taken.top_p = take_double(in, 1.0);
  taken.min_p = take_double(in, 0.0);
  taken.min_tokens_to_keep = take_integer(in, 1, vocab);
  memcpy(taken.order, kOrders[order % 7], kStages);
  return taken;
}

/* A chain of any fields, and of joint stages where those can be. */
static fs_chain take_chain(Bytes* in, const Params* from, fs_stage stages_of[kStages]) {
  fs_chain made = make_chain(from, stages_of);
  const unsigned how = (unsigned)take(in, 1);
  int64_t i;
  if (how < 64) {
    for (i = 1; i < made.stage_count; ++i)
      stages_of[i].joint = how >> i & 1 && stages_of[i].kind != FS_STAGE_TEMPERATURE &&
                           stages_of[i - 1].kind != FS_STAGE_TEMPERATURE;
  } else if (how < 74) {
    uint8_t* bytes = (uint8_t*)stages_of;
    bytes[take(in, 2) % (kStages * sizeof *stages_of)] = (uint8_t)take(in, 1);
  } else if (how < 78) {
    made.stage_count = (int64_t)(take(in, 1) % 6) - 1;
  } else if (how < 82) {
    made.struct_size = take(in, 1) % sizeof made;
  }
  for (i = 0; i < kStages; ++i) /* a size beyond what is there would be a lie */
    if (stages_of[i].struct_size > sizeof *stages_of) stages_of[i].struct_size = 0;
  return made;
}

/* What a chain that was taken says. */
static Params read_back(const fs_chain* from) {
  Params said = default_params();
  int64_t i;
  said.min_tokens_to_keep = from->min_tokens_to_keep;
  memset(said.order, 0, sizeof said.order);
  for (i = 0; i < from->stage_count; ++i) {
    const double value = from->stages[i].value[0];
    said.order[i] = (uint8_t)from->stages[i].kind;
    if (from->stages[i].kind == FS_STAGE_TEMPERATURE) said.temperature = value;
    if (from->stages[i].kind == FS_STAGE_TOP_K)
      said.top_k = value < (double)kMaxVocab ? (int64_t)value : kMaxVocab;
    if (from->stages[i].kind == FS_STAGE_TOP_P) said.top_p = value;
    if (from->stages[i].kind == FS_STAGE_MIN_P) said.min_p = value;
  }
  return said;
}

/* Logits as the library reads them, and as the float32 values that they stand for. */
typedef struct Row {
  fs_dtype dtype;
  int64_t vocab;
  union {
    float f32[kMaxVocab];
    double f64[kMaxVocab];
    uint16_t half[kMaxVocab];
  } data;
  float x[kMaxVocab];
} Row;

static float widen_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double magnitude = exponent ? ldexp(1024.0 + fraction, exponent - 25) : ldexp(fraction, -24);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return (float)(bits >> 15 ? -magnitude : magnitude);
}

static uint16_t to_half(fs_dtype dtype, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (dtype == FS_BFLOAT16) return (uint16_t)(bits >> 16);
  if (value == -INFINITY) return 0xfc00;
  /* Truncated, normal numbers only: which half it is does not matter here. */
  if ((bits >> 23 & 255) < 113 || (bits >> 23 & 255) > 142) return (uint16_t)(bits >> 16 & 0x8000);
  return (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 13 & 0x3ffff) - (112u << 10)));
}

static void take_row(Bytes* in, Row* row) {
  /* Mostly short: long rows cost time, and are there for what is done only in them. */
  static const int kSizes[16] = {8, 16, 16, 32, 32, 64, 64, 300, 300, 300, 300, 1000, 1000, 4000};
  static const float kExtremes[6] = {-FLT_MAX, -FLT_MAX, -FLT_MAX, -INFINITY, -0.0f, 0.0f};
  const unsigned shape = (unsigned)take(in, 1);
  const unsigned kind = shape % 8;
  /* How many of kExtremes take the place of small numbers; 4 have no maximum above the floor. */
  const unsigned extremes = shape & 128 ? 4 + 2 * (unsigned)(take(in, 1) % 2) : 0;
  const int size = kSizes[take(in, 1) % 16];
  int64_t i;
  float level = 0.0f;
  row->dtype = (fs_dtype)(shape / 8 % 4);
  row->vocab = 1 + (int64_t)(take(in, 2) % (uint64_t)(size ? size : kMaxVocab));
  for (i = 0; i < row->vocab; ++i) {
    const uint32_t bits = (uint32_t)take(in, 4);
    float value;
    switch (kind) {
      case 0: value = bits_to_float(bits); break;              /* anything */
      case 1: value = bits_to_float(bits & 0xbfffffff); break; /* below 2 */
      case 2: value = extremes ? kExtremes[bits % extremes] : (float)(bits % 5); break; /* ties */
      case 3: value = bits % 7 ? -INFINITY : (float)(bits >> 8 & 255); break;           /* masked */
      case 4: value = level += (float)(bits & 255) / 1024.0f; break;      /* ascending */
      case 5: value = level -= (float)(bits & 255) / 1024.0f; break;      /* descending */
      case 6: value = (float)((int32_t)bits * 0x1p-28); break;            /* real range */
      default: value = (float)((int32_t)bits * 0x1p-31 * FLT_MAX); break; /* huge */
    }
    if (row->dtype == FS_FLOAT32) {
      row->x[i] = row->data.f32[i] = value;
    } else if (row->dtype == FS_FLOAT64) {
      row->data.f64[i] = kind == 6 ? (int32_t)bits * 0x1p-28 : (double)value;
      if (kind == 0) row->data.f64[i] = bits_to_double((uint64_t)bits << 32 | bits);
      row->x[i] = (float)row->data.f64[i]; /* +-inf where it is too large */
    } else {
      row->data.half[i] = kind == 0 ? (uint16_t)bits : to_half(row->dtype, value);
      row->x[i] = row->dtype == FS_FLOAT16 ? widen_f16(row->data.half[i])
                                           : bits_to_float((uint32_t)row->data.half[i] << 16);
    }
  }
}

/* ---- invariants out ---- */

#define HOLDS(condition)                                                                          \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      printf("broken invariant, line %d: %s (isa %s, last error \"%s\")\n", __LINE__, #condition, \
             fs_isa(), fs_last_error());                                                          \
      print_input();                                                                              \
      fflush(stdout);                                                                             \
      abort();                                                                                    \
    }                                                                                             \
  } while (0)

typedef struct Result {
  fs_status status;
  int64_t token, count;
  int64_t ids[kMaxVocab];
  float probs[kMaxVocab], kept_probs[kMaxVocab];
} Result;

static Row row;
static Params params;
static fs_stage stages[kStages];
static fs_chain chain;
static double u;
static Result result, other;
static long again; /* the seed of this run */

static void print_input(void) {
  int64_t i;
  printf(
      "again with: fuzz 1 %ld\ndtype %d, vocab %d, temperature %.17g, top_k %lld, top_p %.17g, "
      "min_p %.17g, "
      "min_tokens_to_keep %lld, order %d %d %d %d, u %.17g",
      again, (int)row.dtype, (int)row.vocab, params.temperature, (long long)params.top_k,
      params.top_p, params.min_p, (long long)params.min_tokens_to_keep, params.order[0],
      params.order[1], params.order[2], params.order[3], u);
  for (i = 0; i < chain.stage_count && i < kStages; ++i)
    printf(" [%d joint %d: %.17g]", stages[i].kind, stages[i].joint, stages[i].value[0]);
  printf(", x");
  for (i = 0; i < row.vocab && i < 50; ++i) printf(" %.9g", (double)row.x[i]);
  printf("%s\n", i < row.vocab ? " ..." : "");
}

static fs_logits logits_of(const void* data, fs_dtype dtype, int64_t rows) {
  fs_logits logits;
  memset(&logits, 0, sizeof logits);
  logits.struct_size = sizeof logits;
  logits.data = data;
  logits.rows = rows;
  logits.vocab = row.vocab;
  logits.row_stride = 0; /* every row is the same one */
  logits.dtype = dtype;
  return logits;
}

static void* allocate(size_t size) {
  void* memory = malloc(size);
  if (!memory) abort();
  memset(memory, kSentinel, size);
  return memory;
}

static int is_untouched(const void* memory, size_t size) {
  const uint8_t* bytes = (const uint8_t*)memory;
  while (size && bytes[size - 1] == kSentinel) --size;
  return size == 0;
}

static fs_draw draw_of(double uniform) {
  fs_draw draw;
  fs_draw_init(&draw, sizeof draw);
  draw.u = uniform;
  return draw;
}

/* All three functions, which agree on the status; a failing one writes nothing. Outputs are exactly
 * as long as they have to be, so that a sanitizer sees one step beyond. */
static void run(const void* data, fs_dtype dtype, Result* out) {
  const fs_logits logits = logits_of(data, dtype, 1);
  const size_t vocab = (size_t)row.vocab;
  const fs_draw with_u = draw_of(u);
  float* probs = (float*)allocate(vocab * sizeof *probs);
  float* kept_probs = (float*)allocate(vocab * sizeof *kept_probs);
  int64_t* ids = (int64_t*)allocate(vocab * sizeof *ids);
  memset(&out->token, kSentinel, sizeof out->token);
  memset(&out->count, kSentinel, sizeof out->count);

  out->status = fs_sample(&logits, &chain, 1, &with_u, 1, 0, &out->token);
  HOLDS((out->status == FS_OK) == (*fs_last_error() == '\0'));
  if (u >= 0.0 && u < 1.0) { /* which is of no concern to the other two */
    HOLDS(fs_probs(&logits, &chain, 1, NULL, probs) == out->status);
    HOLDS((out->status == FS_OK) == (*fs_last_error() == '\0'));
    HOLDS(fs_survivors(&logits, &chain, NULL, row.vocab, ids, kept_probs, &out->count) ==
          out->status);
    HOLDS((out->status == FS_OK) == (*fs_last_error() == '\0'));
  }
  if (out->status == FS_OK) {
    memcpy(out->probs, probs, vocab * sizeof *probs);
    memcpy(out->kept_probs, kept_probs, vocab * sizeof *kept_probs);
    memcpy(out->ids, ids, vocab * sizeof *ids);
  } else {
    HOLDS(is_untouched(&out->token, sizeof out->token));
    HOLDS(is_untouched(&out->count, sizeof out->count));
    HOLDS(is_untouched(probs, vocab * sizeof *probs));
    HOLDS(is_untouched(kept_probs, vocab * sizeof *kept_probs));
    HOLDS(is_untouched(ids, vocab * sizeof *ids));
  }
  free(probs);
  free(kept_probs);
  free(ids);
}

static int same(const Result* a, const Result* b) {
  const size_t vocab = (size_t)row.vocab;
  if (a->status != FS_OK || b->status != FS_OK) return a->status == b->status;
  return a->token == b->token && a->count == b->count &&
         memcmp(a->ids, b->ids, vocab * sizeof *a->ids) == 0 &&
         memcmp(a->probs, b->probs, vocab * sizeof *a->probs) == 0 &&
         memcmp(a->kept_probs, b->kept_probs, vocab * sizeof *a->kept_probs) == 0;
}

/* What is kept is a prefix of (value descending, index ascending), listed in that order. */
static void check_survivors(int64_t finite) {
  static uint8_t is_kept[kMaxVocab];
  const int64_t last = result.ids[result.count - 1];
  const int greedy = params.temperature == 0.0;
  int64_t i, before = -1;
  double total = 0.0;
  HOLDS(result.count >= 1 && result.count <= finite);
  memset(is_kept, 0, (size_t)row.vocab);
  for (i = 0; i < result.count; ++i) {
    const int64_t id = result.ids[i];
    HOLDS(id >= 0 && id < row.vocab && !is_kept[id]);
    HOLDS(row.x[id] > -INFINITY);
    HOLDS(before < 0 || row.x[before] > row.x[id] || (row.x[before] == row.x[id] && before < id));
    HOLDS(result.kept_probs[i] == result.probs[id]);
    is_kept[id] = 1;
    before = id;
  }
  for (i = 0; i < row.vocab; ++i) {
    total += result.probs[i];
    HOLDS(result.probs[i] >= 0.0f && result.probs[i] <= 1.0f);
    if (is_kept[i]) continue;
    HOLDS(result.probs[i] == 0.0f);
    HOLDS(row.x[i] < row.x[last] || (row.x[i] == row.x[last] && i > last));
  }
  HOLDS(fabs(total - 1.0) < 1e-6);
  if (greedy) {
    HOLDS(result.count == 1);
  } else {
    const int64_t at_least =
        params.min_tokens_to_keep < finite ? params.min_tokens_to_keep : finite;
    HOLDS(result.count >= at_least);
    if (params.top_k > 0) {
      const int64_t k = params.top_k > at_least ? params.top_k : at_least;
      HOLDS(result.count <= k);
      if (params.top_p == 1.0 && params.min_p == 0.0)
        HOLDS(result.count == (k < finite ? k : finite));
    }
  }
}

/* The token is the first whose cumulative probability exceeds u; none that is filtered. */
static void check_token(void) {
  double below = 0.0;
  int64_t i;
  HOLDS(result.token >= 0 && result.token < row.vocab);
  HOLDS(result.probs[result.token] > 0.0f);
  for (i = 0; i < result.token; ++i) below += result.probs[i];
  HOLDS(below <= u + 1e-6);
  HOLDS(below + result.probs[result.token] >= u - 1e-6);
}

static const char* next_isa(const char* list, char name[16]) {
  const size_t length = strcspn(list, ",");
  memcpy(name, list, length);
  name[length] = '\0';
  return list[length] ? list + length + 1 : list + length;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes in;
  const char* isas;
  char isa[16];
  size_t item, i;
  int64_t finite = 0, token, j;
  int bad = 0;
  void* exact;

  in.data = data;
  in.left = size;
  in.state = size;
  for (i = 0; i < size; ++i) in.state = (in.state ^ data[i]) * 1099511628211u;
  row.vocab = 1 + (int64_t)(take(&in, 1) % 64);
  params = take_params(&in, row.vocab);
  chain = take_chain(&in, &params, stages);
  u = take(&in, 1) % 32 ? take_uniform(&in) : take_double(&in, 0.9999999999999999);
  take_row(&in, &row);
  for (j = 0; j < row.vocab; ++j) {
    finite += row.x[j] > -INFINITY;
    bad |= isnan(row.x[j]) || row.x[j] == INFINITY;
  }

  /* The row in memory of exactly its size. */
  item = row.dtype == FS_FLOAT64 ? 8 : row.dtype == FS_FLOAT32 ? 4 : 2;
  exact = allocate(item * (size_t)row.vocab);
  memcpy(exact, &row.data, item * (size_t)row.vocab);

  isas = next_isa(fs_isas(), isa);
  HOLDS(fs_force_isa(isa) == FS_OK);
  run(exact, row.dtype, &result);
  HOLDS(result.status == FS_OK || result.status == FS_INVALID_ARGUMENT ||
        result.status == FS_BAD_LOGITS);
  if (result.status != FS_INVALID_ARGUMENT)
    HOLDS((result.status == FS_BAD_LOGITS) == (bad || finite == 0));
  if (result.status == FS_OK) {
    params = read_back(&chain);
    check_survivors(finite);
    check_token();
  }

  /* The same on every instruction set, and from the float32 row of the same values. */
  while (*isas) {
    isas = next_isa(isas, isa);
    HOLDS(fs_force_isa(isa) == FS_OK);
    run(exact, row.dtype, &other);
    HOLDS(same(&result, &other));
  }
  if (row.dtype != FS_FLOAT32) {
    run(row.x, FS_FLOAT32, &other);
    HOLDS(same(&result, &other));
  }

  /* A token does not depend on its neighbours, nor on the number of threads; a bad row can be
   * marked, or the first of them is the error. */
  if (result.status != FS_INVALID_ARGUMENT) {
    const fs_logits logits = logits_of(exact, row.dtype, 3);
    const fs_draw draws[3] = {draw_of(0.25), draw_of(u), draw_of(0.75)};
    int64_t tokens[3];
    const int32_t threads = (int32_t)(in.state % 5);
    HOLDS(fs_sample(&logits, &chain, 1, draws, threads, FS_MARK_BAD_ROWS, tokens) == FS_OK);
    token = result.status == FS_OK ? result.token : -1;
    HOLDS(tokens[1] == token);
    memset(tokens, kSentinel, sizeof tokens);
    HOLDS(fs_sample(&logits, &chain, 1, draws, threads, 0, tokens) == result.status);
    if (result.status == FS_OK) {
      HOLDS(tokens[1] == token);
    } else {
      HOLDS(strncmp(fs_last_error(), "logits row 0 must ", 18) == 0);
      HOLDS(is_untouched(tokens, sizeof tokens));
    }
  }
  free(exact);
  return 0;
}

#ifndef FASTSAMPLE_LIBFUZZER
enum { kSecondsPerRun = 20 }; /* a run takes milliseconds; sanitizers and emulators are slower */

#if defined(HAS_ALARM)
static void on_alarm(int number) {
  (void)number;
  print_input(); /* not safe in a handler, but there is nothing to lose */
  printf("still running after %d s\n", kSecondsPerRun);
  fflush(stdout);
  abort();
}
#endif

int main(int argc, char** argv) {
  const long runs = argc > 1 ? atol(argv[1]) : 20000;
  const long seed = argc > 2 ? atol(argv[2]) : 1;
  long statuses[4] = {0, 0, 0, 0}, i;
#if defined(HAS_ALARM)
  signal(SIGALRM, on_alarm);
#endif
  for (i = 0; i < runs; ++i) {
    uint8_t data[512];
    again = seed + i;
#if defined(HAS_ALARM)
    alarm(kSecondsPerRun);
#endif
    LLVMFuzzerTestOneInput(data, fill_bytes(data, sizeof data, again));
    ++statuses[result.status];
  }
  printf("statuses: %ld ok, %ld invalid arguments, %ld bad logits\n", statuses[0], statuses[1],
         statuses[2]);
  /* A fuzzer that is always refused tests nothing. */
  if (runs > 1000 && (statuses[FS_OK] < runs / 4 || !statuses[1] || !statuses[2])) {
    printf("too few runs of some status\n");
    return 1;
  }
  printf("%ld passed, 0 failed\n", runs);
  return 0;
}
#endif
