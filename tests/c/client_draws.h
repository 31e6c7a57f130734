/* Part of client.c: what is drawn. */
#ifndef CLIENT_DRAWS_H
#define CLIENT_DRAWS_H

#include <fenv.h>
#include <math.h>

#include "client_rows.h"

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

#endif
