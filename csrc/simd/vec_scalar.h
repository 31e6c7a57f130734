// Vector vocabulary, one lane wide: the plain spelling of what the others must equal.
#pragma once

#include <math.h>
#include <string.h>

#include "kernels.h"

// Steps of single lanes that are all written out take three times as long to compile, and draw no
// faster.
#if defined(__clang__)
#define FASTSAMPLE_UNROLL _Pragma("unroll 8")
#elif defined(__GNUC__)
#define FASTSAMPLE_UNROLL _Pragma("GCC unroll 8")
#endif

namespace fastsample {
namespace scalar {
namespace {

struct Vec {
  using F = float;
  using I = int32_t;
  using Sum64 = int64_t;
  using D = double;
  using S = int;
  static constexpr int kWidth = 1;
  static constexpr int kUnroll = 16;
  static constexpr int kGroup = 4;
  static constexpr int kDoubles = 1;

  static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
  }
  static uint32_t to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
  }

  static F load(const float* p) { return *p; }
  static F load_first(const float* p, size_t n, F rest) { return n ? *p : rest; }
  static F load_bf16(const uint16_t* p) { return from_bits(uint32_t(*p) << 16); }
  static F load_f64(const double* p) { return float(*p); }
  static F load_f16(const uint16_t* p) {
    const uint32_t sign = uint32_t(*p & 0x8000) << 16, magnitude = *p & 0x7fff;
    if (magnitude >= 0x7c00) return from_bits(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
    if (magnitude < 0x400) {  // subnormal: a whole number of 2^-24
      const float value = float(magnitude) * 0x1p-24f;
      return sign ? -value : value;
    }
    return from_bits(sign | ((magnitude << 13) + (uint32_t(127 - 15) << 23)));
  }
  static I loadi(const int32_t* p) { return *p; }
  static I loadi(const uint16_t* p) { return I(uint32_t(p[1]) << 16 | p[0]); }
  static I low_halves(I v) { return I(uint32_t(v) << 16); }
  static I high_halves(I v) { return I(uint32_t(v) & 0xffff0000u); }
  static F as_float(I v) { return from_bits(uint32_t(v)); }
  static void storei(int32_t* p, I v) { *p = v; }
  static void store(float* p, F v) { *p = v; }
  static F set1(float v) { return v; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F fma(F a, F b, F c) { return fused(a, b, c); }
  // Of a NaN and another the second, as the vectors have it.
  static F max(F a, F b) { return a > b ? a : b; }
  static F min(F a, F b) { return a < b ? a : b; }
  // v, but `other` where it equals y; and a, or the larger b where that is below a bound.
  static F replace(F v, F y, F other) { return v == y ? other : v; }
  static F where(uint32_t mask, F v, F other) { return mask & 1 ? v : other; }
  // Takes lanes whose bit is set into a maximum and a sum.
  static void take(uint32_t mask, F v, F& max, F& sum) {
    v = where(mask, v, set1(-INFINITY));
    max = Vec::max(max, v);
    sum = add(sum, v);
  }
  // Copies eight blocks of a mask: says which words have some bit, and in a byte for each block,
  // which is not 0, whether some bit is missing.
  static void copy_words(const uint32_t* words, uint32_t* to, uint64_t& some, uint64_t& gaps) {
    some = gaps = 0;
    for (int i = 0; i < 64; ++i) {
      to[i] = words[i];
      some |= uint64_t(to[i] != 0) << i;
      gaps |= uint64_t(to[i] != ~0u) << i;
    }
  }
  static F max_below(F a, F b, F bound) { return b < bound && b > a ? b : a; }
  static float hmax(F v) { return v; }
  static float hmin(F v) { return v; }
  static bool any_nan(F v) { return v != v; }
  static uint32_t mask_eq(F a, F b) { return a == b; }
  static uint32_t mask_ne(F a, F b) { return a != b; }
  // bits, and those in which v differs from `low` unless it equals `high`.
  static I or_neither(I bits, F v, F high, F low) {
    return v == high ? bits : I(uint32_t(bits) | (to_bits(v) ^ to_bits(low)));
  }
  static bool any_bit(I v) { return v != 0; }
  static F count_up_to(F count, F x, F most) { return count + float(x <= most); }
  static uint32_t mask_ge(F a, F b) { return a >= b; }
  static uint32_t mask_within(F v, F from, F to) { return v >= from && v < to; }
  static void mark(Marks* marks, int i, uint32_t mask) {
    marks->word[i * kWidth / 64] |= uint64_t(mask) << i * kWidth % 64;
  }
  template <class T>
  static size_t keep(const T* from, uint32_t mask, T* to) {
    return keep_lanes(from, mask, to);
  }
  static F of_blocks(const float* block_max, I ids) { return block_max[ids / kBlock]; }
  static unsigned popcount(uint64_t mask) {
    unsigned count = 0;
    for (; mask; mask &= mask - 1) ++count;
    return count;
  }
  static size_t write_bits(uint64_t word, int32_t first, int32_t* places) {
    return fastsample::write_bits(word, popcount(word), first, places);
  }
  static size_t write_nonzero(const uint64_t* words, size_t n, int32_t* places) {
    return fastsample::write_nonzero(words, n, places);
  }

  // The range of the exponent trick below; also what turns -inf into a finite, weightless value.
  static F clamp_low(F y) { return y > -100.0f ? y : -100.0f; }
  static F floor(F y) {
    const float n = (y + 12582912.0f) - 12582912.0f;  // rounded: 1.5 * 2^23 leaves no fraction bits
    return n > y ? n - 1.0f : n;
  }
  static F exponent(F y) { return floor(y); }
  static F fraction(F y, F n) { return y - n; }
  static F logarithm(F n, F r) { return n + r; }
  static F ldexp(F p, F n) { return from_bits(to_bits(p) + (uint32_t(int32_t(n)) << 23)); }

  // 2^52 + 2^51: leaves no fraction bits, so the sum is rounded half to even.
  static I to_int(F v) { return I((double(v) + 6755399441055744.0) - 6755399441055744.0); }
  static int32_t first(I v) { return v; }
  static I zero() { return 0; }
  static I muli(I a, I b) { return I(uint32_t(a) * uint32_t(b)); }
  static I addi(I a, I b) { return I(uint32_t(a) + uint32_t(b)); }
  static I add_ge(I sum, I q, F x, F cut) { return x >= cut ? addi(sum, q) : sum; }
  static uint64_t hsum(const I* sum) {
    uint64_t total = 0;
    for (int u = 0; u < kUnroll; ++u) total += uint32_t(sum[u]);
    return total;
  }
  static void store_shifted(int64_t* p, I q, I shift) { *p = int64_t(uint64_t(q) << shift); }

  static constexpr int kHalves = 1;
  static S loads(const uint16_t* p) { return int16_t(*p); }
  static S set1s(int v) { return int16_t(v); }
  static S maxs(S a, S b) { return b > a ? b : a; }
  static S maxu(S a, S b) { return uint16_t(b) > uint16_t(a) ? b : a; }
  static S minu(S a, S b) { return uint16_t(b) < uint16_t(a) ? b : a; }
  static int hmaxs(S v) { return v; }
  static int hmaxu(S v) { return uint16_t(v); }
  static int hminu(S v) { return uint16_t(v); }

  static D set1d(double v) { return v; }
  static D loadd(const double* p) { return *p; }
  static void stored(double* p, D v) { *p = v; }
  static D widen(F v, int) { return double(v); }
  static D addd(D a, D b) { return a + b; }
  static D add_by_fma(D a, D, D b) { return a + b; }
  static D subd(D a, D b) { return a - b; }
  static D muld(D a, D b) { return a * b; }

  static Sum64 zero64() { return 0; }
  static Sum64 add64_ge(Sum64 sum, const int64_t* w, F x, F cut) {
    return x >= cut ? sum + *w : sum;
  }
  static void add64_up_to(Sum64 sum[2], F x, F most, int64_t w) { sum[0] += x <= most ? w : 0; }
  static uint32_t mask64_ge(const Sum64 sum[2], int64_t least) { return sum[0] >= least; }
  static void clear64(int64_t* p, uint32_t mask) {
    for (int i = 0; i < kWidth; ++i) p[i] &= int64_t(mask >> i & 1) - 1;
  }
  static F affine(F x, D max, D scale, D shift) { return F(::fma(double(x) - max, scale, shift)); }
  // The whole part and the rest of a logarithm.
  static void split(F x, D max, D scale, F& n, F& r) {
    D y = (double(x) - max) * scale;
    y = y > kLowestPower ? y : kLowestPower;
    const D whole = ::floor(y);
    n = F(whole);
    r = F(y - whole);
  }
  static void add_to(D* sum, F v) { *sum += double(v); }
  // ldexp where x >= cut, else 0, whatever the rest is.
  static F ldexp_ge(F p, F n, F x, F cut) { return x >= cut ? ldexp(p, n) : 0.0f; }
  static F quotient(I q, D divisor) { return F(double(q) / divisor); }
  static int64_t hsum64(Sum64 sum) { return sum; }
};

}  // namespace
}  // namespace scalar
}  // namespace fastsample
