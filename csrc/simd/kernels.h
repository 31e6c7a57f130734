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

// NaN, infinities and the order of operations have to mean what they say.
#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || (__FINITE_MATH_ONLY__ + 0) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "fastsample needs IEEE arithmetic: compile without -ffast-math, its parts, and /fp:fast"
#endif

namespace fastsample {

// Rows are worked on in blocks of this many values; the last one is padded with -inf.
constexpr int kBlock = 256;

// The weight of a token is 2^((x - max) * scale), scale = log2(e) / temperature, so max weighs 1.
//
// Weights are summed as block floating point: inside a block whose largest weight is at most 2^e
// and more than half of it, a weight is rounded to an integer multiple of 2^(e - kMantissaBits), e
// clamped to [kMantissaBits - kUnitBits, 0]. Every weight is then a whole number of units of
// 2^-kUnitBits. Integer sums do not depend on their order, so no instruction set, backend, thread
// count or algorithm can change a total, a cut or a draw.
//   - 27 bits: a 32-bit lane holds 16 weights of at most 2^27 without overflow.
//   - 40 bits: tokens too light to count (2^-41) are lost, and 2^17 of them are below 2^-24. In a
//     block with heavy tokens the grain is coarser, 2^-28 of its heaviest at most: 255 tokens just
//     under it are 2^-20 of that one.
constexpr int kMantissaBits = 27;
constexpr int kUnitBits = 40;

// What reaches p of a total weighs this times p of it at least: half of what float32 tells apart
// at 1 is forgiven, so that probabilities which sum to p on paper reach it, however their logits
// and weights were rounded.
constexpr double kReaches = 1.0 - 0x1p-24;

// Lists are read and written in whole vectors: they have room for this many values more.
constexpr int kSlack = 16;

// A list so short that its k-th largest is found by comparing each with all.
constexpr size_t kFew = 64;

// Of a sample of a row: values out of one place, and bins of a histogram.
constexpr int kSampled = 16;
constexpr int kBins = 256;

// A weight under 2^kLightest rounds to zero units, whatever its block.
constexpr float kLightest = -42.0f;

// Exponentials that are floats are 2^kLift times as large, so that none of those that count is
// below the normal numbers: the lightest has the exponent kLowestPower.
constexpr int kLift = 96;
constexpr double kLowestPower = -200.0;

static inline int lowest_bit(uint64_t word) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, word);
  return int(index);
#else
  return __builtin_ctzll(word);
#endif
}

// Writes first + i for every bit i of a word, and some places more; returns how many bits it has,
// which has to be given.
static inline size_t write_bits(uint64_t word, size_t count, int32_t first, int32_t* places) {
  // So many without a branch: how many there are is mostly few, and a surprise.
  constexpr size_t kTogether = 2;
  constexpr uint64_t kEnd = uint64_t(1) << 63;  // so that there is a lowest bit when none is left
  size_t i = 0;
  do {
    for (size_t k = 0; k < kTogether; ++k, word &= word - 1)
      places[i + k] = first + lowest_bit(word | kEnd);
    i += kTogether;
  } while (i < count);
  return count;
}

// Writes which words are not zero; returns how many.
static inline size_t write_nonzero(const uint64_t* words, size_t n, int32_t* places) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    places[count] = int32_t(i);
    count += words[i] != 0;
  }
  return count;
}

// Moves those values of a list that a mask has to `to`, which may be where they are.
template <class T>
static inline size_t keep_lanes(const T* from, uint32_t mask, T* to) {
  size_t count = 0;
  for (; mask; mask &= mask - 1) to[count++] = from[lowest_bit(mask)];
  return count;
}

// a * b + c, rounded once.
#if defined(__MINGW32__) && !defined(__FMA__)
// MinGW's fmaf rounds twice. The product of floats is exact in float64; its sum with c is rounded
// to odd there, after which rounding to float32 is right. Inlined, GCC would compile for minutes.
__attribute__((noinline, unused)) static float fused(float a, float b, float c) {
  const double product = double(a) * double(b), sum = product + double(c);
  const double back = sum - product, lost = (product - (sum - back)) + (double(c) - back);
  uint64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  if (lost != 0.0 && isfinite(sum) && !(bits & 1)) bits += (lost > 0.0) == (sum > 0.0) ? 1 : -1;
  double odd;
  memcpy(&odd, &bits, sizeof odd);
  return float(odd);
}
#else
static inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
#endif

struct Exp2 {
  float max;
  float scale;
};

// The logarithm of half a weight: its fraction, the distance from the next lower integer, is exact
// in float32 because it is not above -1. Between -1 and 0 it would need more bits than there are.
static inline float log2_of_half(float x, Exp2 exp2) {
  return fused(x - exp2.max, exp2.scale, -1.0f);
}

// e of a block: the logarithm of its largest weight rounded up.
static inline int block_exponent(float block_max, Exp2 exp2) {
  const float y = log2_of_half(block_max, exp2);
  constexpr int kLowest = kMantissaBits - kUnitBits;
  return y > float(kLowest - 1) ? int(y) + 1 : kLowest;  // towards zero is up
}

// A bit for each value of a block: of value 64 * j + i, bit i of word j.
struct Marks {
  static constexpr int kWords = kBlock / 64;
  uint64_t word[kWords];
};

// A row that has been scanned, or a stretch of whole blocks of one.
struct Scanned {
  const void* data;
  size_t n;
  const float* block_max;
  size_t first;  // id of the first value; a multiple of kBlock
};

// Sums over finite values of how far they are from the maximum, and of the squares, in float64:
// that of id i in lane i % kLanes, in the order of ids, whatever the instruction set. A value that
// is not there adds 0, so that a list has the sums of a row.
struct Moments {
  static constexpr int kLanes = 16;
  double sum[kLanes], squares[kLanes];
  size_t count;
};

// How 2^((x - max) * s) is taken in float32 with an error that does not grow with the distance from
// the maximum. s = log2(e) / T is scale + scale_low, and (max - base) * s is high + low, of which
// `high` is a multiple of 2^-10 a little below: with d = x - base and n the
// whole part of d * scale - high, d * scale - (high + n) is rounded once. Values below `least`,
// which is where the weight is 2^-96, weigh nothing.
struct Exponent {
  float max;
  float base;  // 0, or the maximum where that is so large that the difference is exact
  float scale, scale_low;
  float high, low;
  float least;
};

// How weights are replaced by exp(-steepness * a * a / (a + width)), a the distance of w *
// per_total from `aim`, times `unit`, to the nearest integer. In double precision, by these
// operations in this order; steepness is to be less than 700.
struct Reweighing {
  double per_total, aim, width, steepness, unit;
};

// The places that sums of exponentials are taken in: that of id i in lane i % kLanes. And of maxima
// that are kept apart.
constexpr int kLanes = 16;

struct ScanResult {
  float max;         // of all values
  float lowest_max;  // the least of the blocks' maxima
  bool suspect;      // a NaN, or a sum that overflowed: look closer
};

// Values with their ids, in arrays that have room for what is appended and kSlack more.
struct Listed {
  int32_t* ids;
  float* x;
  size_t size;
};

constexpr size_t kMaskWords = kBlock / 32;  // of a mask, to a block
constexpr size_t kMaskedTogether = 8;

// So few allowed values are read one by one, and are a list from the start.
constexpr size_t kFewAllowed = 1024;

// What a mask leaves of a block: all of it, some, nothing.
enum MaskState : uint8_t { kAllOfIt, kSomeOfIt, kNoneOfIt };

// The primitives that read a row of one element type.
struct RowKernels {
  // Maximum of every block, and of the row. There must be room for kSlack blocks more.
  ScanResult (*scan)(const void* row, size_t n, float* block_max);
  // The same, and kLanes maxima of each block: of parts of it that share no value.
  ScanResult (*scan_lanes)(const void* row, size_t n, float* block_max, float* lane_max);
  // The maxima of blocks first to last - 1, which are whole, under a mask of the row: values whose
  // bit is not set are -inf.
  ScanResult (*scan_allowed)(const void* row, const uint32_t* allowed, const uint8_t* states,
                             size_t first, size_t last, float* block_max);
  // The same for what is allowed in the listed words of a mask, whole blocks of them that no other
  // call has: nothing else is read, and the values are appended to a list. `lowest_max` is the
  // least of them.
  ScanResult (*list_allowed)(const Scanned& row, const uint32_t* allowed, const int32_t* words,
                             size_t count, float* block_max, Listed* list);
  // Per block, in units of 2^-kUnitBits: the sum of all weights, and of those of values >= tau. One
  // of the two may be null.
  void (*mass)(const Scanned& row, Exp2 exp2, float tau, int64_t* all, int64_t* at_least);
  // Per block, in the same units: the sum of all weights w, and of -w log2 w or of w * w; the
  // former while the weights of values >= tau are summed, unless their place is null.
  //
  // The second terms are rounded to integers as weights are. For the entropy, -log2 w is |e|, which
  // is left to the sum of weights, and a rest; squares have twice the exponent.
  void (*entropy)(const Scanned& row, Exp2 exp2, float tau, int64_t* all, int64_t* entropy,
                  int64_t* at_least);
  void (*squares)(const Scanned& row, Exp2 exp2, int64_t* all, int64_t* squares);
  // Adds a stretch of a row whose maximum is `max` to what is there.
  void (*moments)(const Scanned& row, float max, Moments* moments);
  // How many values are at least tau.
  size_t (*count)(const Scanned& row, float tau);
  // The sum of all weights again, while the values >= tau are marked. Returns how many these are.
  size_t (*mass_and_marks)(const Scanned& row, Exp2 exp2, float tau, int64_t* all, Marks* marks);
  // Writes the values that are marked in blocks first to last - 1, and their ids, by rising id.
  // Returns how many. There must be room for all of them and kSlack more.
  size_t (*collect_marked)(const Scanned& row, const Marks* marks, size_t first, size_t last,
                           int32_t* ids, float* x);
  // The same for values in [low, high) of the listed blocks, which are numbered from id 0 on, with
  // room for all of their values. Where there is a mask, of the row, those that it allows.
  size_t (*collect)(const Scanned& row, const uint32_t* allowed, const int32_t* blocks,
                    size_t count, float low, float high, int32_t* ids, float* x);
  // Copies kSampled values out of each of `pieces` blocks that are spread over the row, -inf for
  // those that are not below their block's maximum. Returns the smallest finite one, or +inf.
  float (*sample)(const Scanned& row, size_t pieces, float* out);
  // A block as float32, padded with -inf; `n` is what is left of the row.
  void (*load)(const void* block, size_t n, float out[kBlock]);
  // Of all values: w = 2^((x - max) * scale + kLift), its argument in double precision, so that
  // also the lightest has all the digits of a float; what padding adds is too light to matter.
  // Returns their sum: value i is added to lane i % 16, and at the end the upper half of the lanes
  // to the lower one until one is left.
  double (*exponentials)(const Scanned& row, double max, double scale, float* out);
  // Adds the exponentials of values >= tau, which is not below `least`, to lanes: those of a block
  // that share a lane in float32, neighbours first, then pairs, and so on; blocks one after the
  // other in float64. Values equal to the maximum are left out: beside 1 the rest would lose its
  // digits. What is not there adds 0, so that a list has the sums of a row.
  void (*add_exponentials)(const Scanned& row, const Exponent& exponent, float tau, double* lanes);
  // fma(x - max, scale, shift) in double precision.
  void (*logarithms)(const Scanned& row, double max, double scale, double shift, float* out);
  // What values >= tau weigh, as integers, divided by a total in double precision; 0 for others. Of
  // blocks first to last - 1.
  void (*quotients)(const Scanned& row, size_t first, size_t last, Exp2 exp2, float tau,
                    double total, float* out);
};

enum RowType { kF32, kF16, kBF16, kF64, kRowTypes };

struct Kernels {
  const char* isa;
  RowKernels row[kRowTypes];
  // Weights of listed values, each to the precision of its block. Arrays are readable and writable
  // up to kSlack values further; what is there must be ids of the row.
  void (*weigh)(const float* x, const int32_t* ids, size_t n, const float* block_max, Exp2 exp2,
                int64_t* weight);
  // The same for what they add to the sums of RowKernels::entropy and RowKernels::squares.
  void (*weigh_entropy)(const float* x, const int32_t* ids, size_t n, const float* block_max,
                        Exp2 exp2, int64_t* entropy);
  void (*weigh_squares)(const float* x, const int32_t* ids, size_t n, const float* block_max,
                        Exp2 exp2, int64_t* squares);
  // Counts the values in each bin, 1 + (x - low) * per_unit held to [0, kBins), with four counters
  // in turn, and notes a value of each bin.
  void (*count_bins)(const float* x, size_t n, float low, float per_unit, uint32_t (*counters)[4],
                     float* any);
  // Copies the words of whole blocks of a mask, of value i bit i % 32 of word i / 32, unless they
  // are 0, and says which these are, by a bit, and what each block is left. kMaskedTogether blocks
  // at a time: the last of them are padded with nothing.
  void (*take_mask)(const uint32_t* from, size_t blocks, uint32_t* to, uint8_t* states,
                    uint64_t* used);
  // How many words are used; lists them where they are no more than `limit`, with room for kSlack
  // more.
  size_t (*list_words)(const uint64_t* used, size_t count, size_t limit, int32_t* words);
  // How many values are allowed in the listed words.
  size_t (*count_allowed)(const uint32_t* allowed, const int32_t* words, size_t count);
  // Makes those values of a block -inf whose bit is not set.
  void (*clear_forbidden)(const uint32_t* words, float* x);
  // Writes where values are in [low, high), and returns how many are. There must be room for kSlack
  // more.
  size_t (*places_within)(const float* x, size_t n, float low, float high, int32_t* places);
  // What can be asked of a list: how many values reach tau, what they weigh, and which is the
  // largest below tau.
  size_t (*count_at_least)(const float* x, size_t n, float tau);
  // The k-th largest of n <= kFew values, k <= n.
  float (*kth_of_few)(const float* x, size_t n, size_t k);
  // The largest of n <= kSlack values so that those at least as large weigh `target`, or -inf; and
  // how many are equal to it.
  float (*reaching_of_few)(const float* x, const int64_t* weight, size_t n, int64_t target,
                           size_t* tied);
  int64_t (*mass_at_least)(const float* x, const int64_t* weight, size_t n, float tau);
  float (*largest_below)(const float* x, size_t n, float tau);
  // The first place from i on that has this value, or n.
  size_t (*find)(const float* x, size_t i, size_t n, float value);
  // Makes the weights of a list zero for values below tau and those equal to it beyond the id
  // `last`; where not `kept`, for all others.
  void (*clear_weights)(const float* x, const int32_t* ids, size_t n, float tau, size_t last,
                        bool kept, int64_t* weight);
  // Drops the values of a list, and with them their weights unless null, that are below tau and, of
  // those equal to it, all but the first `ties`. Returns how many are left. Slack as above.
  size_t (*keep)(int32_t* ids, float* x, int64_t* weight, size_t n, float tau, size_t ties);
  // Replaces the weights of a list, below 2^52, which go to `before`.
  void (*reweigh)(int64_t* weight, size_t n, const Reweighing& how, int64_t* before);
  // The exponentials of a list, that of the maximum 0. Slack as above.
  void (*exponentials)(const float* x, size_t n, const Exponent& exponent, float* out);
  // Multiplies in place.
  void (*multiply)(float* x, size_t n, float factor);
};

}  // namespace fastsample
