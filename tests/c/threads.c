/* Threads, fork and the environment (POSIX): the library has no state that they could disturb.
 * Threads are the host's own, those that a call shares its rows with, and both at once.
 *
 * Ends with "N passed, 0 failed". */
#define _POSIX_C_SOURCE 200809L
#include <fastsample.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chains.h"

#if defined(__SANITIZE_THREAD__)
/* Threads of a child that was forked beside others are what is tested. */
const char* __tsan_default_options(void);
const char* __tsan_default_options(void) { return "die_after_fork=0"; }
#endif

static int passed, failed;

static void check(int ok, const char* what, int line) {
  ok ? ++passed : ++failed;
  if (!ok) printf("FAILED %s:%d: %s\n", __FILE__, line, what);
}

#define CHECK(condition) check((condition) != 0, #condition, __LINE__)

enum { kVocab = 5000, kRows = 24, kChains = 6, kThreads = 8, kRounds = 12 };

static float logits_data[kRows * kVocab];
static double uniforms[kRows];
static int64_t alone[kChains][kRows]; /* what one thread drew, before there were others */

static fs_logits all_rows(void) {
  fs_logits logits;
  memset(&logits, 0, sizeof logits);
  logits.struct_size = sizeof logits;
  logits.data = logits_data;
  logits.rows = kRows;
  logits.vocab = kVocab;
  logits.row_stride = kVocab;
  logits.dtype = FS_FLOAT32;
  return logits;
}

static Params chain_of(int i) {
  Params params = default_params();
  if (i == 0) params.temperature = 0.0;
  if (i == 1) params.temperature = 0.7;
  if (i == 2 || i == 3) params.top_k = 50;
  if (i == 3 || i == 4) params.top_p = 0.95;
  if (i == 5) params.min_p = 0.02;
  return params;
}

static void make_rows(void) {
  int i;
  for (i = 0; i < kRows * kVocab; ++i)
    logits_data[i] =
        (float)(12.0 * fs_uniform(1, 2, (uint64_t)i) + 12.0 * fs_uniform(1, 3, (uint64_t)i));
  for (i = 0; i < kRows; ++i) uniforms[i] = fs_uniform(5, 0, (uint64_t)i);
}

/* Number of tokens that differ from those drawn alone, where a call has so many threads. */
static int differences(int threads) {
  const fs_logits logits = all_rows();
  int64_t tokens[kRows];
  int c, i, wrong = 0;
  for (c = 0; c < kChains; ++c) {
    const Params params = chain_of(c);
    if (sample(&logits, &params, 1, uniforms, threads, 0, tokens) != FS_OK) return kRows;
    for (i = 0; i < kRows; ++i) wrong += tokens[i] != alone[c][i];
  }
  return wrong;
}

/* The message of the last failure is this thread's own. */
static int own_message(int thread) {
  const fs_logits logits = all_rows();
  Params params = chain_of(1);
  int64_t token[kRows];
  char expected[80];
  params.top_k = -10 - thread;
  snprintf(expected, sizeof expected, "top_k must be -1, 0 or a whole number >= 1, got %d",
           -10 - thread);
  return sample(&logits, &params, 1, uniforms, 2, 0, token) == FS_INVALID_ARGUMENT &&
         strcmp(fs_last_error(), expected) == 0;
}

/* The i-th instruction set of this machine, going round. The returned text is static. */
static const char* isa_of(int i) {
  static char isas[100];
  char *name, *rest = NULL;
  int count = 1;
  strcpy(isas, fs_isas());
  for (name = isas; *name; ++name) count += *name == ',';
  name = strtok_r(isas, ",", &rest);
  for (i %= count; i > 0; --i) name = strtok_r(NULL, ",", &rest);
  return name;
}

static void* idle(void* argument) { return argument; }

typedef struct Worker {
  pthread_t id;
  int number, wrong, messages;
} Worker;

static void* work(void* argument) {
  Worker* worker = (Worker*)argument;
  int round;
  for (round = 0; round < kRounds; ++round) {
    worker->messages += own_message(worker->number);
    if (worker->number == 0) fs_force_isa(isa_of(round)); /* under all of them */
    worker->wrong += differences(round % 4);
  }
  return NULL;
}

static void test_threads(void) {
  Worker workers[kThreads];
  int i;
  memset(workers, 0, sizeof workers);
  for (i = 0; i < kThreads; ++i) {
    workers[i].number = i;
    CHECK(pthread_create(&workers[i].id, NULL, work, &workers[i]) == 0);
  }
  for (i = 0; i < kThreads; ++i) {
    CHECK(pthread_join(workers[i].id, NULL) == 0);
    CHECK(workers[i].wrong == 0);
    CHECK(workers[i].messages == kRounds);
  }
}

/* Runs body in a child process; true where it returned true there. */
static int in_child(int (*body)(void)) {
  int status = -1;
  pid_t child;
  fflush(stdout);
  child = fork();
  if (child == 0) _exit(body() ? 0 : 1);
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

static int same_after_fork(void) { return differences(1) == 0 && differences(3) == 0; }

/* Where the system refuses threads, a call does without. */
static int without_threads(void) {
  struct rlimit none;
  pthread_t id;
  if (getuid() == 0 && setuid(65534) != 0) return 1; /* root has no such limit */
  memset(&none, 0, sizeof none);
  if (setrlimit(RLIMIT_NPROC, &none) != 0) return 1;
  if (pthread_create(&id, NULL, idle, NULL) == 0) return pthread_join(id, NULL) == 0;
  return differences(8) == 0;
}

/* Of many bad rows the first is the error, and no token is written, however rows are shared out. */
static int first_error(int threads) {
  const fs_logits logits = all_rows();
  const Params params = chain_of(1);
  int64_t tokens[kRows];
  char expected[32];
  int round, i, ok = 1;
  for (round = 0; round < kRows; ++round) {
    for (i = round; i < kRows; i += 2) logits_data[i * kVocab + i] = NAN;
    memset(tokens, 0, sizeof tokens);
    snprintf(expected, sizeof expected, "logits row %d must ", round);
    ok &= sample(&logits, &params, 1, uniforms, threads, 0, tokens) == FS_BAD_LOGITS;
    ok &= strncmp(fs_last_error(), expected, strlen(expected)) == 0;
    for (i = 0; i < kRows; ++i) ok &= tokens[i] == 0;
    make_rows();
  }
  return ok;
}

static int first_use_in_child(void) {
  Worker worker;
  memset(&worker, 0, sizeof worker);
  make_rows();
  return pthread_create(&worker.id, NULL, work, &worker) == 0 &&
         pthread_join(worker.id, NULL) == 0 && worker.messages == kRounds;
}

/* An instruction set that is unknown makes every call fail, until another one is forced. */
static int unknown_isa(void) {
  const fs_logits logits = all_rows();
  const Params params = chain_of(0);
  const char* message = "FASTSAMPLE_ISA must be one of ";
  int64_t tokens[kRows], count;
  float probs[1];
  int ok;
  make_rows();
  setenv("FASTSAMPLE_ISA", "sse9", 1);
  ok = strcmp(fs_isa(), "") == 0 && strstr(fs_isas(), "scalar") != NULL;
  ok &= sample(&logits, &params, 1, uniforms, 2, 0, tokens) == FS_INVALID_ARGUMENT;
  ok &= strncmp(fs_last_error(), message, strlen(message)) == 0;
  ok &= strstr(fs_last_error(), "got sse9") != NULL;
  ok &= probs_of(&logits, &params, 1, probs) == FS_INVALID_ARGUMENT;
  ok &= strncmp(fs_last_error(), message, strlen(message)) == 0;
  {
    fs_logits one = logits;
    one.rows = 1;
    ok &= survivors_of(&one, &params, 1, tokens, probs, &count) == FS_INVALID_ARGUMENT;
    ok &= strncmp(fs_last_error(), message, strlen(message)) == 0;
  }
  ok &= fs_force_isa("scalar") == FS_OK && strcmp(fs_isa(), "scalar") == 0;
  ok &= sample(&logits, &params, 1, uniforms, 2, 0, tokens) == FS_OK;
  return ok;
}

static int known_isa(void) {
  setenv("FASTSAMPLE_ISA", "scalar", 1);
  return strcmp(fs_isa(), "scalar") == 0;
}

static int empty_isa(void) {
  setenv("FASTSAMPLE_ISA", "", 1);
  return strncmp(fs_isas(), fs_isa(), strlen(fs_isa())) == 0 && *fs_isa();
}

int main(void) {
  int c;
  CHECK(in_child(unknown_isa));
  CHECK(in_child(known_isa));
  CHECK(in_child(empty_isa));
  CHECK(in_child(first_use_in_child));

  make_rows();
  for (c = 0; c < kChains; ++c) {
    const fs_logits logits = all_rows();
    const Params params = chain_of(c);
    CHECK(sample(&logits, &params, 1, uniforms, 1, 0, alone[c]) == FS_OK);
  }
  CHECK(in_child(same_after_fork));
  test_threads();
  CHECK(in_child(same_after_fork));
  CHECK(in_child(without_threads));
  for (c = 0; c < 12; ++c) {
    CHECK(differences(c) == 0);
    CHECK(first_error(c));
  }
  CHECK(differences(1000000) == 0);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
