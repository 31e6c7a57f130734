/* Random bytes, and numbers out of them, for the fuzzers of this folder. Valid as C99. */
#ifndef BYTES_H
#define BYTES_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct Bytes {
  const uint8_t* data;
  size_t left;
  uint64_t state; /* goes on where the bytes end, so that a short input fills a long row */
} Bytes;

/* SplitMix64. */
static inline uint64_t mix(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* Fills some of the bytes; returns how many. */
static inline size_t fill_bytes(uint8_t* data, size_t most, long seed) {
  uint64_t state = (uint64_t)seed;
  const size_t size = mix(&state) % most;
  size_t at;
  for (at = 0; at < size; ++at) data[at] = (uint8_t)mix(&state);
  return size;
}

static inline uint64_t take(Bytes* in, size_t count) {
  uint64_t value = 0;
  if (in->left < count) {
    in->left = 0;
    value = mix(&in->state);
    return count < 8 ? value >> (64 - 8 * count) : value;
  }
  memcpy(&value, in->data, count);
  in->data += count;
  in->left -= count;
  return value;
}

static inline double bits_to_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline double take_uniform(Bytes* in) { return (double)(take(in, 8) >> 11) * 0x1p-53; }

static inline double take_double(Bytes* in, double usual) {
  static const double kInteresting[] = {0.0,       1.0,   0.5,       0.9,
                                        0.95,      1e-3,  1e-30,     1e-300,
                                        5e-324,    1e300, 1e38,      3.5e38,
                                        DBL_MAX,   -0.0,  -1e-300,   INFINITY,
                                        -INFINITY, NAN,   1.0000001, 0.9999999999999999};
  const unsigned choice = (unsigned)take(in, 1) % 32;
  if (choice < 12) return usual;
  if (choice < 24) return take_uniform(in);
  if (choice < 28) return 1.0 / (1.0 + 4.0 * take_uniform(in));
  if (choice < 31) return kInteresting[take(in, 1) % (sizeof kInteresting / sizeof *kInteresting)];
  return bits_to_double(take(in, 8));
}

static inline int64_t take_integer(Bytes* in, int64_t usual, int64_t vocab) {
  switch (take(in, 1) % 8) {
    case 0:
    case 1:
    case 2: return usual;
    case 3: return (int64_t)(take(in, 1) % 16) - 1;
    case 4: return vocab + (int64_t)(take(in, 1) % 3) - 1;
    case 5: return 1 + (int64_t)(take(in, 2) % 64);
    case 6: return 1 + (int64_t)(take(in, 2) % (uint64_t)vocab);
    default: return (int64_t)(take(in, 8) >> take(in, 1) % 64);
  }
}

#endif
