// The table of primitives that every instruction set fills, and the arithmetic contract that makes
// all of them give the same bits. Included by the per-ISA translation units: C headers only.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace fastsample {

// Rows are worked on in blocks of this many values; the last one is padded with -inf.
constexpr int kBlock = 256;

// The weight of a token is 2^((x - max) * scale), scale = log2(e) / temperature, so max weighs 1.
//
// Weights are summed as block floating point: inside a block whose largest weight is about 2^e, a
// weight is rounded to an integer multiple of 2^(e - kMantissaBits), e clamped to
// [kMantissaBits - kUnitBits, 0]. Every weight is then a whole number of units of 2^-kUnitBits.
// Integer sums do not depend on their order, so no instruction set, backend, thread count or
// algorithm can change a total, a cut or a draw.
//   - 27 bits: a 32-bit lane holds 16 weights of at most sqrt(2) * 2^27 without overflow.
//   - 40 bits: tokens too light to count (2^-41) are lost, and 2^17 of them are below 2^-24. In a
//     block with heavy tokens the grain is coarser, 2^-28 of its heaviest at most: 255 tokens just
//     under it are 2^-20 of that one.
constexpr int kMantissaBits = 27;
constexpr int kUnitBits = 40;

// Lists are read and written in whole vectors: they have room for this many values more.
constexpr int kSlack = 16;

// Of a sample of a row: values out of one place, and bins of a histogram.
constexpr int kSampled = 16;
constexpr int kBins = 256;

// A weight under 2^kLightest rounds to zero units, whatever its block.
constexpr float kLightest = -42.0f;

static inline int lowest_bit(uint32_t word) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward(&index, word);
  return int(index);
#else
  return __builtin_ctz(word);
#endif
}

// Writes first + i for every i whose mask, out of 16, is not zero; returns how many.
static inline size_t nonzero_of(const uint16_t* masks, int32_t first, int32_t* which) {
  size_t count = 0;
  for (int i = 0; i < 16; ++i) {
    which[count] = first + i;
    count += masks[i] != 0;
  }
  return count;
}

// Writes the lanes of a mask next to each other, and their ids; returns how many.
static inline size_t append_lanes(const float* lanes, uint32_t mask, int32_t first_id, int32_t* ids,
                                  float* x) {
  size_t count = 0;
  for (; mask; mask &= mask - 1, ++count) {
    const int lane = lowest_bit(mask);
    ids[count] = first_id + lane;
    x[count] = lanes[lane];
  }
  return count;
}

// The same for lanes that are in a list; it may be the one that is written.
static inline size_t keep_lanes(const int32_t* ids, const float* x, uint32_t mask, int32_t* to_ids,
                                float* to_x) {
  size_t count = 0;
  for (; mask; mask &= mask - 1, ++count) {
    const int lane = lowest_bit(mask);
    to_ids[count] = ids[lane];
    to_x[count] = x[lane];
  }
  return count;
}

struct Exp2 {
  float max;
  float scale;
};

// Largest exponent argument of a block, rounded as the kernels round theirs: half to even.
static inline int block_exponent(float block_max, Exp2 exp2) {
  float y = (block_max - exp2.max) * exp2.scale;
  if (!(y > kLightest)) y = kLightest;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits
  const float rounded = (y + kRound) - kRound;
  constexpr int kLowest = kMantissaBits - kUnitBits;
  return rounded < float(kLowest) ? kLowest : int(rounded);
}

struct ScanResult {
  float max;         // of all values
  float lowest_max;  // the least of the blocks' maxima
  bool suspect;      // a NaN, or a sum that overflowed: look closer
};

// The primitives that read a row of one element type.
struct RowKernels {
  // Maximum of every block, and of the row.
  ScanResult (*scan)(const void* row, size_t n, float* block_max);
  // Per block, in units of 2^-kUnitBits: the sum of all weights (unless `all` is null), and of
  // those of values >= tau.
  void (*mass)(const void* row, size_t n, const float* block_max, Exp2 exp2, float tau,
               int64_t* all, int64_t* at_least);
  // Writes the values in [low, high) of blocks first to last - 1, and their ids, by rising id.
  // Returns how many. There must be room for all of those blocks' values and kSlack more.
  size_t (*collect)(const void* row, size_t n, const float* block_max, size_t first, size_t last,
                    float low, float high, int32_t* ids, float* x);
  // Copies kSampled values out of each of `pieces` blocks that are spread over the row, -inf for
  // those that are their block's maximum. Returns the smallest finite one, or +inf.
  float (*sample)(const void* row, size_t n, const float* block_max, size_t pieces, float* out);
  // A block as float32, padded with -inf; `n` is what is left of the row.
  void (*load)(const void* block, size_t n, float out[kBlock]);
};

enum RowType { kF32, kF16, kBF16, kF64, kRowTypes };

struct Kernels {
  const char* isa;
  RowKernels row[kRowTypes];
  // Weights of listed values, each to the precision of its block. Arrays are readable and writable
  // up to kSlack values further; what is there must be ids of the row.
  void (*weigh)(const float* x, const int32_t* ids, size_t n, const float* block_max, Exp2 exp2,
                int64_t* weight);
  // Counts the values in each bin, 1 + (x - low) * per_unit held to [0, kBins), with four counters
  // in turn, and notes a value of each bin.
  void (*count_bins)(const float* x, size_t n, float low, float per_unit, uint32_t (*counters)[4],
                     float* any);
  // What can be asked of a list: how many values reach tau, what they weigh, and which is the
  // largest below tau.
  size_t (*count_at_least)(const float* x, size_t n, float tau);
  int64_t (*mass_at_least)(const float* x, const int64_t* weight, size_t n, float tau);
  float (*largest_below)(const float* x, size_t n, float tau);
  // Drops the values of a list below tau and, of those equal to it, all but the first `ties`;
  // returns how many are left. Slack as above.
  size_t (*keep)(int32_t* ids, float* x, size_t n, float tau, size_t ties);
};

}  // namespace fastsample
