/* Rows, parameters and chains that the tests of client.c have in common. */
#ifndef CLIENT_ROWS_H
#define CLIENT_ROWS_H

#include <fastsample.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "chains.h"
#include "checks.h"

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

#endif
