/* fastsample: draw a token from a row of logits, exactly and reproducibly.
 *
 * The C ABI. Plain C99; no function throws, and none keeps a pointer it was given. Every function
 * may be called from any number of threads at once. A function that returns an fs_status other than
 * FS_OK has written no output (but for *count of fs_survivors), and fs_last_error() says why.
 *
 * Pointers must be aligned to what they point to. Logits must not change during a call. No function
 * may be called from a destructor of a thread-local or static object, nor from atexit.
 *
 * What is drawn is a pure function of (logits, parameters, u): not of the instruction set, the
 * batch around a row, or the thread.
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

#define FASTSAMPLE_VERSION "0.1.0"

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

typedef enum fs_stage {
  FS_STAGE_END = 0,
  FS_STAGE_TEMPERATURE = 1,
  FS_STAGE_TOP_K = 2,
  FS_STAGE_TOP_P = 3,
  FS_STAGE_MIN_P = 4
} fs_stage;

/* Logits: `rows` rows of `vocab` values, row i at data + i * row_stride elements. Read only. */
typedef struct fs_logits {
  uint64_t struct_size; /* sizeof(fs_logits) */
  const void* data;     /* aligned to its element */
  int64_t rows;         /* >= 0 */
  int64_t vocab;        /* 1 to FS_MAX_VOCAB */
  int64_t row_stride;   /* in elements; may be negative */
  int32_t dtype;        /* an fs_dtype */
  int32_t reserved;     /* 0 */
} fs_logits;

#define FS_MAX_VOCAB 4194304

/* Fill with fs_params_init, then change what you need. */
typedef struct fs_params {
  uint64_t struct_size;       /* sizeof(fs_params) */
  double temperature;         /* finite, >= 0; 0 is greedy; acts as 2e-39 to 1e38 beyond these */
  int64_t top_k;              /* >= 1; 0 and -1 turn it off */
  double top_p;               /* [0, 1]; 1 turns it off */
  double min_p;               /* [0, 1]; 0 turns it off */
  int64_t min_tokens_to_keep; /* >= 1 */
  uint8_t order[8];           /* fs_stage values, ended by FS_STAGE_END */
} fs_params;

enum { FS_MARK_BAD_ROWS = 1 }; /* flags of fs_sample: a bad row yields -1 instead of an error */

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

/* Defaults: temperature 1, everything else off, order temperature, top_k, top_p, min_p. */
FASTSAMPLE_API void fs_params_init(fs_params* params);

/* The uniform in [0, 1) of NumPy's
 *   Generator(Philox(key=[seed, stream], counter=[offset, 0, 0, 0])).random(). */
FASTSAMPLE_API double fs_uniform(uint64_t seed, uint64_t stream, uint64_t offset);

/* Draws one token per row into tokens[rows]. `params` holds params_count entries: 1 for all rows,
 * or one per row. `u` holds one uniform in [0, 1) per row.
 *
 * Rows are shared out over `threads` threads at most, the calling one included; more than `rows` or
 * FS_MAX_THREADS act as that many. 0 leaves the number to the library: 1 for one row or less than
 * 2^21 logits, else one per 2^20 logits, but no more than rows or the processors that this process
 * may use. The other threads are started by the call and end with it; where the system refuses one,
 * the call does without. Tokens and errors are the same for every number: where several rows are
 * bad, the error is the first one's. */
FASTSAMPLE_API fs_status fs_sample(const fs_logits* logits, const fs_params* params,
                                   int64_t params_count, const double* u, int32_t threads,
                                   uint32_t flags, int64_t* tokens);

/* The distribution that fs_sample draws from: probs[rows * vocab], zero for what is not kept. */
FASTSAMPLE_API fs_status fs_probs(const fs_logits* logits, const fs_params* params,
                                  int64_t params_count, float* probs);

/* The kept tokens of one row (logits->rows == 1) by falling logit, ties by rising id. Writes
 * their number to *count, and ids and probabilities where `capacity` holds them all; otherwise
 * FS_INVALID_ARGUMENT, with *count still written. A capacity of logits->vocab always suffices. */
FASTSAMPLE_API fs_status fs_survivors(const fs_logits* logits, const fs_params* params,
                                      int64_t capacity, int64_t* ids, float* probs, int64_t* count);

#ifdef __cplusplus
}
#endif

#endif /* FASTSAMPLE_H */
