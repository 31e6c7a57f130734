/* fastsample: draw a token from a row of logits, exactly and reproducibly.
 *
 * The C ABI. Plain C99; no function throws, and none keeps a pointer it was given. Every function
 * may be called from any number of threads at once. A function that returns an fs_status other than
 * FS_OK has written no output (but for *count where so stated), and fs_last_error() says why.
 *
 * Pointers must be aligned to what they point to. Logits must not change during a call. No function
 * may be called from a destructor of a thread-local or static object, nor from atexit.
 *
 * What is drawn is a pure function of (logits, parameters, u): not of the instruction set, the
 * batch around a row, or the thread.
 *
 * Every struct begins with its size, which the caller sets to its own sizeof; the elements of an
 * array lie as far apart as the first one says. Later versions append fields. A struct that is
 * larger than the library knows is taken where all that is unknown in it is 0; a smaller one is
 * refused. While the major version is 0, a program runs with the minor version that it was built
 * for: the name of the shared library says which.
 */
#ifndef FASTSAMPLE_H
#define FASTSAMPLE_H

#include <stdint.h>

#if defined(FASTSAMPLE_STATIC)
#define FASTSAMPLE_API
#elif defined(_WIN32)
#if defined(FASTSAMPLE_BUILDING)
#define FASTSAMPLE_API __declspec(dllexport)
#else
#define FASTSAMPLE_API __declspec(dllimport)
#endif
#else
#define FASTSAMPLE_API __attribute__((visibility("default")))
#endif

#define FASTSAMPLE_VERSION "0.2.0"
#define FASTSAMPLE_VERSION_MAJOR 0
#define FASTSAMPLE_VERSION_MINOR 2
#define FASTSAMPLE_VERSION_PATCH 0
/* Rises with every release: 10000 * major + 100 * minor + patch. */
#define FASTSAMPLE_VERSION_NUMBER 200

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fs_status {
  FS_OK = 0,
  FS_INVALID_ARGUMENT = 1, /* a null pointer, a size, a parameter out of its range */
  FS_BAD_LOGITS = 2,       /* a row with NaN or +inf, or with nothing finite */
  FS_NO_MEMORY = 3
} fs_status;

typedef enum fs_dtype { FS_FLOAT32 = 0, FS_FLOAT16 = 1, FS_BFLOAT16 = 2, FS_FLOAT64 = 3 } fs_dtype;

/* Logits: `rows` rows of `vocab` values. Row i begins i * row_stride elements after `data`, and its
 * values are element_stride bytes apart: in a slice, a transposed matrix, or as one field of an
 * array of structs. Read only; values that are not next to each other are gathered, row by row. */
typedef struct fs_logits {
  uint64_t struct_size;   /* sizeof(fs_logits) */
  const void* data;       /* aligned to its element */
  int64_t rows;           /* >= 0 */
  int64_t vocab;          /* 1 to FS_MAX_VOCAB */
  int64_t row_stride;     /* in elements of the dtype; may be negative */
  int64_t element_stride; /* in bytes, a multiple of the element's size; 0 is that size */
  int32_t dtype;          /* an fs_dtype */
  int32_t reserved;       /* 0 */
} fs_logits;

#define FS_MAX_VOCAB 4194304

/* What a stage does, and its numbers, in the order of fs_stage.value; after the colon, where it is
 * off. Numbers that a stage does not have are 0. */
typedef enum fs_stage_kind {
  FS_STAGE_TEMPERATURE = 1, /* T, dynatemp_range, dynatemp_exponent: T = 1, range 0. T = 0 makes the
                             * whole chain greedy; T acts as 2e-39 to 1e38 beyond these */
  FS_STAGE_TOP_K,           /* k, a whole number: 0, -1 */
  FS_STAGE_TOP_P,           /* p in [0, 1]: 1 */
  FS_STAGE_MIN_P,           /* m in [0, 1]: 0 */
  FS_STAGE_TYPICAL_P,       /* p in (0, 1]: 1 */
  FS_STAGE_EPSILON_CUTOFF,  /* e in [0, 1): 0 */
  FS_STAGE_ETA_CUTOFF,      /* e in [0, 1): 0 */
  FS_STAGE_TOP_A,           /* a in [0, 1]: 0 */
  FS_STAGE_P_LESS,          /* 1: 0 */
  FS_STAGE_TOP_N_SIGMA,     /* s, finite: <= 0 */
  FS_STAGE_TOP_H,           /* h in [0, 1]: 0 */
  FS_STAGE_XTC,             /* probability in [0, 1], threshold in [0, 1]: probability 0 */
  FS_STAGE_MIROSTAT,        /* version, tau in (0, 1e290], eta in [0, 1]: version 0 */
  FS_STAGE_ADAPTIVE,        /* target in [0, 1], decay in [0, 0.99]: target 0 */
  FS_STAGE_P_LESS_NORM      /* 1: 0 */
} fs_stage_kind;

typedef struct fs_stage {
  uint32_t struct_size; /* sizeof(fs_stage) */
  int32_t kind;         /* an fs_stage_kind */
  int32_t joint;        /* 1: it cuts what the stage before it cut, and a token stays where all such
                         * stages keep it; of stages that keep the largest logits. Else 0 */
  int32_t reserved;     /* 0 */
  double value[4];
} fs_stage;

/* The stages in the order in which they run, each kind at most once. One that is off does nothing.
 * No stage leaves fewer than min_tokens_to_keep tokens. */
typedef struct fs_chain {
  uint64_t struct_size;       /* sizeof(fs_chain) */
  const fs_stage* stages;     /* may be null where there are none */
  int64_t stage_count;        /* >= 0 */
  int64_t min_tokens_to_keep; /* >= 1 */
} fs_chain;

/* What happens to the logit of one token before any stage, in float64 and rounded once:
 *   x -> x + bias -> (x > 0 ? x / factor : x * factor) -> x - subtract -> -inf where banned. */
typedef struct fs_edit {
  int32_t id;            /* in [0, vocab); each id at most once in a row */
  int32_t banned;        /* 0 or 1 */
  double factor;         /* finite and > 0 */
  double subtract, bias; /* finite; bias may be -inf */
} fs_edit;

/* What a rule asks for, given the history of a row: its tokens so far, of which the first are its
 * prompt. The numbers are those of fs_rule.value; after the colon, where it is off. A window is the
 * last so many tokens of the history: -1 is all, 0 none. */
typedef enum fs_rule_kind {
  FS_RULE_BIAS = 1,      /* ids and weights: added to the logits of the ids; -inf bans */
  FS_RULE_SEQUENCE_BIAS, /* sequences and weights: added to the logit of the last id where the
                          * ids before it end the history; -inf bans */
  FS_RULE_REPETITION,    /* r > 0, window: 1. The factor of what stands in the window */
  FS_RULE_FREQUENCY,     /* f, window: 0. Subtracted as often as it stands there after the prompt */
  FS_RULE_PRESENCE,      /* s, window: 0. Subtracted once where it does */
  FS_RULE_DRY,           /* multiplier >= 0, base >= 1, allowed length >= 1, window; ids:
                          * multiplier 0. Subtracted from what would prolong a repetition of at
                          * least that length; the ids end one */
  FS_RULE_NO_REPEAT_NGRAM, /* n, a whole number: 0. Bans what would repeat n tokens of the history
                            */
  FS_RULE_MIN_NEW_TOKENS,  /* n, a whole number; ids: 0. Bans the ids while fewer tokens follow the
                            * prompt */
  FS_RULE_ALLOWED_IDS      /* ids: all others are banned */
} fs_rule_kind;

/* Ids are >= 0. Those of FS_RULE_BIAS and FS_RULE_ALLOWED_IDS must be in the row, others may lie
 * beyond it. */
typedef struct fs_rule {
  uint64_t struct_size; /* sizeof(fs_rule) */
  int32_t kind;         /* an fs_rule_kind */
  int32_t reserved;     /* 0 */
  double value[4];
  int64_t count;          /* of ids, or of sequences */
  const int32_t* ids;     /* null for a kind without ids */
  const int64_t* offsets; /* count + 1 of them, rising from 0: sequence i is offsets[i] to
                           * offsets[i + 1] - 1 of the ids, at least one; else null */
  const double* weights;  /* count of them, finite or -inf; else null */
} fs_rule;

/* What one row is drawn with. */
typedef struct fs_draw {
  uint64_t struct_size; /* sizeof(fs_draw) */
  double u;             /* the uniform of the token, in [0, 1) */
  double u_xtc;         /* the uniform of the coin of FS_STAGE_XTC, in [0, 1) */
  double* state;        /* two numbers of FS_STAGE_MIROSTAT or _ADAPTIVE, finite, of the latter the
                         * second > 0; else null. fs_sample moves them where the whole call
                         * succeeds */
  const fs_edit* edits; /* in any order */
  int64_t edit_count;
  const uint32_t* allowed; /* bit i % 32 of word i / 32 says whether token i is allowed; null: all
                            * before allowed_count are */
  int64_t allowed_count;   /* tokens from here on are not allowed; with a null mask 0 is no limit */
  struct fs_sampler* past; /* the edits of its history's next token, where `edits` is null, without
                            * a copy of them; or null. Of it nothing else is looked at, nothing is
                            * moved, and no other row or call may have it meanwhile */
} fs_draw;

/* Which tokens are allowed in each row of a step, as in fs_draw. */
typedef struct fs_masks {
  uint64_t struct_size;    /* sizeof(fs_masks) */
  const uint32_t* allowed; /* null: all before allowed_count are */
  int64_t allowed_count;
  int64_t row_stride; /* in words, of any sign; 0: one mask for all rows */
} fs_masks;

/* Which log-probabilities: of the logits as they came, without edits, mask, temperature and stages;
 * or of what the token was drawn with, where a token that is not kept has none. */
typedef enum fs_logprobs { FS_LOGPROBS_RAW = 1, FS_LOGPROBS_PROCESSED = 2 } fs_logprobs;

/* What else is to be told of a draw; where a pointer is null, it is not asked for.
 * Log-probabilities are right to 1e-6 of their own size however small the probability. */
typedef struct fs_details {
  uint64_t struct_size; /* sizeof(fs_details) */
  int32_t logprobs;     /* an fs_logprobs, or 0 where none of the next five and at_least is
                         * asked for */
  int32_t reserved;     /* 0 */
  float* logprob;       /* [rows]: of the token */
  int64_t* rank;        /* [rows]: 1 + how many logits are larger in the row that logprobs names */
  int64_t top_count;    /* n, from 0 to logits->vocab */
  int32_t* top_ids;     /* [rows * n]: its n largest logits by falling value, ties by rising id; */
  float* top_logprobs;  /* [rows * n]; where there are fewer, -1 and -inf. Both or none */
  int32_t* support;     /* [rows * vocab]: the kept ids of row i, rising, from i * vocab on; */
  int64_t* support_count; /* [rows]. Both or none */
  double* log_mass;  /* [rows]: the logarithm of what the kept tokens weigh of the whole edited and
                      * masked row at the temperature of the draw; 0 of a greedy one */
  int64_t* at_least; /* [rows]: a rank for which ties count: how many logits are at least as large
                      * as the token's, its own among them, in the row that logprobs names */
} fs_details;

enum { FS_MARK_BAD_ROWS = 1 }; /* flags of fs_sample: a bad row yields -1 instead of an error */

/* Which drafts are accepted: one by one (Leviathan et al. 2023), those that fs_sample would draw,
 * or as many as may be at once (Sun et al. 2024). */
typedef enum fs_method { FS_VERIFY_TOKEN = 1, FS_VERIFY_EXACT = 2, FS_VERIFY_BLOCK = 3 } fs_method;

/* Rows with what is drawn from them with. Chains have no stage with a state. */
typedef struct fs_source {
  uint64_t struct_size; /* sizeof(fs_source) */
  const fs_logits* logits;
  const fs_chain* chains; /* 1 for all rows, or one per row */
  int64_t chain_count;
  const fs_draw* draws; /* one per row, of which u and state are not looked at; or null */
} fs_source;

#define FS_MAX_DRAFTS 4096

/* The drafted tokens of one sequence, and what they were drawn from: rows; lists of ids that differ
 * with weights that need not sum to 1, of draft i from offsets[i] to offsets[i + 1] - 1; or where
 * both are null the token alone. FS_VERIFY_EXACT looks at neither. */
typedef struct fs_drafts {
  uint64_t struct_size; /* sizeof(fs_drafts) */
  int64_t count;        /* 0 to FS_MAX_DRAFTS */
  const int64_t* tokens;
  const fs_source* target; /* count + 1 rows: at each draft, and after all of them */
  const fs_source* draft;  /* count rows, or null */
  const int64_t* offsets;  /* [count + 1], or null */
  const int32_t* ids;
  const double* weights;
  uint64_t seed, stream, offset; /* position i draws at offset + i; as fs_uniform has them */
} fs_drafts;

#define FS_MAX_THREADS 256

/* "major.minor.patch" of the library; static storage. */
FASTSAMPLE_API const char* fs_version(void);

/* The instruction set in use ("" where FASTSAMPLE_ISA names none that can run), and all that this
 * machine can run, comma-separated, best first. Static storage. */
FASTSAMPLE_API const char* fs_isa(void);
FASTSAMPLE_API const char* fs_isas(void);

/* Use this instruction set in every thread from now on: a name out of fs_isas(). The environment
 * variable FASTSAMPLE_ISA does the same at first use; where it names an unknown or unsupported set,
 * every call fails with FS_INVALID_ARGUMENT. */
FASTSAMPLE_API fs_status fs_force_isa(const char* name);

/* Why the last call of this thread failed; empty after a success. Valid until the thread's next
 * call. */
FASTSAMPLE_API const char* fs_last_error(void);

/* Fill a struct of `size` bytes, which is the caller's sizeof. Of more than the library knows, the
 * rest becomes 0; of less, as much is filled.
 *
 * A chain begins without stages, with min_tokens_to_keep 1; a stage and a rule are off; a draw has
 * u = 0. */
FASTSAMPLE_API void fs_logits_init(fs_logits* logits, uint64_t size);
FASTSAMPLE_API void fs_chain_init(fs_chain* chain, uint64_t size);
FASTSAMPLE_API void fs_stage_init(fs_stage* stage, uint64_t size, int32_t kind);
FASTSAMPLE_API void fs_draw_init(fs_draw* draw, uint64_t size);
FASTSAMPLE_API void fs_rule_init(fs_rule* rule, uint64_t size, int32_t kind);
FASTSAMPLE_API void fs_masks_init(fs_masks* masks, uint64_t size);
FASTSAMPLE_API void fs_details_init(fs_details* details, uint64_t size);
FASTSAMPLE_API void fs_source_init(fs_source* source, uint64_t size);
FASTSAMPLE_API void fs_drafts_init(fs_drafts* drafts, uint64_t size);

/* A kind's name, e.g. "top_p", and the kind of a name; null and 0 for what is none. */
FASTSAMPLE_API const char* fs_stage_name(int32_t kind);
FASTSAMPLE_API int32_t fs_stage_kind_of(const char* name);
FASTSAMPLE_API const char* fs_rule_name(int32_t kind);
FASTSAMPLE_API int32_t fs_rule_kind_of(const char* name);

/* The names of the orders in which real runtimes run their stages, comma-separated. */
FASTSAMPLE_API const char* fs_orders(void);

/* Fills `stages`, elements of `size` bytes, with the stages of a named order, all off. Returns how
 * many these are, and fills none where `capacity` is less; -1 where there is no such order. */
FASTSAMPLE_API int64_t fs_order_init(const char* name, fs_stage* stages, uint64_t size,
                                     int64_t capacity);

/* The first stage of this kind, or null. */
FASTSAMPLE_API fs_stage* fs_find_stage(fs_stage* stages, int64_t count, int32_t kind);

/* The uniform in [0, 1) of NumPy's
 *   Generator(Philox(key=[seed, stream], counter=[offset, 0, 0, 0])).random(). */
FASTSAMPLE_API double fs_uniform(uint64_t seed, uint64_t stream, uint64_t offset);

/* The same of counter=[offset, use, 0, 0]: use 0 is the token, 1 the coin of FS_STAGE_XTC. */
FASTSAMPLE_API double fs_uniform_for(uint64_t seed, uint64_t stream, uint64_t offset, uint64_t use);

/* Draws one token per row into tokens[rows]. `chains` holds chain_count entries: 1 for all rows,
 * or one per row. `draws` holds one entry per row.
 *
 * Rows are shared out over `threads` threads at most, the calling one included; more than `rows` or
 * FS_MAX_THREADS act as that many. 0 leaves the number to the library: 1 for one row or less than
 * 2^21 logits, else one per 2^20 logits, but no more than rows or the processors that this process
 * may use, and on Linux no more than one beside this thread for each processor that is idle. The
 * other threads are started by the call, which waits for none that has taken no row: it may begin
 * after the call, finds nothing to do, and ends. Where the system refuses one, the call does
 * without. Tokens and errors are the same for every number: where several rows are bad, the error
 * is the first one's. */
FASTSAMPLE_API fs_status fs_sample(const fs_logits* logits, const fs_chain* chains,
                                   int64_t chain_count, const fs_draw* draws, int32_t threads,
                                   uint32_t flags, int64_t* tokens);

/* Draws as fs_sample does, and tells more of each draw. Where raw log-probabilities are asked for,
 * a row must be good as it came, too. Of a bad row that is marked they are NaN, the rank 0 and
 * nothing is kept. Where the call fails, tokens and states are as they were, but what is in the
 * arrays of `details` is not said. */
FASTSAMPLE_API fs_status fs_sample_details(const fs_logits* logits, const fs_chain* chains,
                                           int64_t chain_count, const fs_draw* draws,
                                           int32_t threads, uint32_t flags, int64_t* tokens,
                                           const fs_details* details);

/* Verifies the drafts of `count` sequences. Writes how many of them are accepted, and from
 * tokens[r * stride] on those, the token after them, and -1 up to one more than there are drafts.
 * The tokens are distributed as without drafts; of FS_VERIFY_EXACT they are those without. A row is
 * bad where it is looked at: none is after the first refusal, or once all of a block is refused.
 *
 * Uniforms are those of NumPy's Philox(key=[seed, stream], counter=[offset + i, use, 0, 0]): use 0
 * draws the token after all drafts, and those of FS_VERIFY_EXACT; 2 accepts; 3 draws after a
 * refusal. */
FASTSAMPLE_API fs_status fs_verify(const fs_drafts* sequences, int64_t count, int32_t method,
                                   int64_t stride, int64_t* tokens, int64_t* accepted);

/* The distribution that fs_sample draws from: probs[rows * vocab], zero for what is not kept.
 * `draws`, of which u is not looked at, may be null. */
FASTSAMPLE_API fs_status fs_probs(const fs_logits* logits, const fs_chain* chains,
                                  int64_t chain_count, const fs_draw* draws, float* probs);

/* The kept tokens of one row (logits->rows == 1) by falling logit, ties by rising id. Writes
 * their number to *count, and ids and probabilities where `capacity` holds them all; otherwise
 * FS_INVALID_ARGUMENT, with *count still written. A capacity of logits->vocab always suffices.
 * `draw`, of which u is not looked at, may be null. */
FASTSAMPLE_API fs_status fs_survivors(const fs_logits* logits, const fs_chain* chain,
                                      const fs_draw* draw, int64_t capacity, int64_t* ids,
                                      float* probs, int64_t* count);

/* The probabilities of all tokens at a temperature, finite and > 0, and their logarithms:
 * out[rows * vocab]. Unlike those of fs_probs, which are what is drawn from, they are right to 1e-6
 * of their own size however small that is. */
FASTSAMPLE_API fs_status fs_softmax(const fs_logits* logits, double temperature, float* out);
FASTSAMPLE_API fs_status fs_log_softmax(const fs_logits* logits, double temperature, float* out);

/* A sequence: a chain, rules, the history that they look at, the state of a stage that has one, and
 * the seed, stream and offset of the next draw. Its functions copy what they are given. Those that
 * fail leave it as it was; two calls at once of which one changes it are refused. */
typedef struct fs_sampler fs_sampler;

/* A new one, with an empty history and the state at its start. Rules act in the order of their
 * kinds; all but the two of biases may be named once. */
FASTSAMPLE_API fs_status fs_sampler_new(const fs_chain* chain, const fs_rule* rules,
                                        int64_t rule_count, uint64_t seed, uint64_t stream,
                                        uint64_t offset, fs_sampler** sampler);
FASTSAMPLE_API fs_status fs_sampler_copy(const fs_sampler* from, fs_sampler** sampler);
/* Of null does nothing. */
FASTSAMPLE_API void fs_sampler_free(fs_sampler* sampler);

/* Makes these ids, of which the first prompt_length are the prompt, the whole history; the state
 * and the next draw stay. Ids are >= 0, and may lie beyond the rows. */
FASTSAMPLE_API fs_status fs_sampler_start(fs_sampler* sampler, const int32_t* ids, int64_t count,
                                          int64_t prompt_length);
/* Appends ids to the history. */
FASTSAMPLE_API fs_status fs_sampler_push(fs_sampler* sampler, const int32_t* ids, int64_t count);
/* Appends ids that were drawn in another way, as fs_verify draws: at the offset of the sampler and
 * those that follow, to which it moves on. The state stays. */
FASTSAMPLE_API fs_status fs_sampler_accept(fs_sampler* sampler, const int32_t* ids, int64_t count);
/* Takes back the last `count` ids of the history. What fs_step has drawn is drawn again the same,
 * for the offset goes back to that of the first of them. A prompt that is reached becomes shorter.
 * Refused where a stage with a state is on, unless the temperature is 0. */
FASTSAMPLE_API fs_status fs_sampler_rollback(fs_sampler* sampler, int64_t count);
/* As new, with this seed, stream and offset. */
FASTSAMPLE_API fs_status fs_sampler_reset(fs_sampler* sampler, uint64_t seed, uint64_t stream,
                                          uint64_t offset);
/* The next draw is that of this seed, stream and offset; history and state stay. */
FASTSAMPLE_API fs_status fs_sampler_seek(fs_sampler* sampler, uint64_t seed, uint64_t stream,
                                         uint64_t offset);

/* What a sampler is at. The caller sets struct_size. Of the history, as many ids are copied as
 * there is room for. */
typedef struct fs_sampler_info {
  uint64_t struct_size; /* sizeof(fs_sampler_info) */
  uint64_t seed, stream, offset;
  int64_t history_length, prompt_length;
  int32_t state_size; /* how many numbers the state has: 0 where no stage that is on has one */
  int32_t reserved;
  double state[2]; /* what the state does not have is 0 */
} fs_sampler_info;

FASTSAMPLE_API fs_status fs_sampler_get(const fs_sampler* sampler, fs_sampler_info* info,
                                        int32_t* ids, int64_t capacity);
/* Sets the two numbers of the state, as fs_draw has them. Refused where no stage has one. */
FASTSAMPLE_API fs_status fs_sampler_set_state(fs_sampler* sampler, const double* state);
/* The edits of the next row of so many logits, by rising id. Writes their number to *count, and
 * them where `capacity` holds them all; otherwise FS_INVALID_ARGUMENT, with *count still written.
 */
FASTSAMPLE_API fs_status fs_sampler_edits(fs_sampler* sampler, int64_t vocab, fs_edit* edits,
                                          int64_t capacity, int64_t* count);

/* Draws the next token of each of logits->rows different samplers from its row, pushes it, moves
 * the state and the offset. Threads and flags are those of fs_sample. Where a row fails, no sampler
 * has moved; one whose row is marked with -1 has not. A sampler at the last offset, 2^64 - 1, is
 * refused. */
FASTSAMPLE_API fs_status fs_step(fs_sampler* const* samplers, const fs_logits* logits,
                                 int32_t threads, uint32_t flags, int64_t* tokens);
/* The same where `masks` allow some tokens only, beside what a sampler's own rules allow, and with
 * what fs_sample_details tells of each draw. Both may be null. */
FASTSAMPLE_API fs_status fs_step_details(fs_sampler* const* samplers, const fs_logits* logits,
                                         const fs_masks* masks, int32_t threads, uint32_t flags,
                                         int64_t* tokens, const fs_details* details);

/* Gives back the memory that the calling thread keeps for its next call. */
FASTSAMPLE_API void fs_free_thread_buffers(void);

#ifdef __cplusplus
}
#endif

#endif /* FASTSAMPLE_H */
