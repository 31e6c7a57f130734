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

#include "client_draws.h"
#include "client_names.h"
#include "client_refusals.h"

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
    test_bad_states();
    test_edits_too_far();
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
