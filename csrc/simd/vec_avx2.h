// Vector vocabulary for AVX2 + FMA + F16C: 8 lanes.
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace fastsample {
namespace avx2 {
namespace {

struct Vec {
  using F = __m256;
  using I = __m256i;
  using Sum64 = __m256i;
  using D = __m256d;
  using S = __m256i;
  static constexpr int kWidth = 8;
  static constexpr int kUnroll = 2;
  static constexpr int kGroup = 2;
  static constexpr int kDoubles = 4;  // lanes of D

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load_first(const float* p, size_t n, F rest) {
    const I places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const I there = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), places);
    return _mm256_blendv_ps(rest, _mm256_maskload_ps(p, there), _mm256_castsi256_ps(there));
  }
  static F load_f16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F load_bf16(const uint16_t* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static F load_f64(const double* p) {
    const __m128 lo = _mm256_cvtpd_ps(_mm256_loadu_pd(p));
    const __m128 hi = _mm256_cvtpd_ps(_mm256_loadu_pd(p + 4));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(lo), hi, 1);
  }
  static I loadi(const void* p) { return _mm256_loadu_si256(static_cast<const I*>(p)); }
  static I low_halves(I v) { return _mm256_slli_epi32(v, 16); }
  static I high_halves(I v) { return _mm256_and_si256(v, _mm256_set1_epi32(-0x10000)); }
  static F as_float(I v) { return _mm256_castsi256_ps(v); }
  static void storei(int32_t* p, I v) { _mm256_storeu_si256(reinterpret_cast<I*>(p), v); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F set1(float v) { return _mm256_set1_ps(v); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  // v, but `other` where it equals y; and a, or the larger b where that is below a bound.
  static F replace(F v, F y, F other) {
    return _mm256_blendv_ps(v, other, _mm256_cmp_ps(v, y, _CMP_EQ_OQ));
  }
  // v where the lane's bit is set, from the lowest on, else `other`.
  static F where(uint32_t mask, F v, F other) {
    const I bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const I set = _mm256_and_si256(_mm256_set1_epi32(int(mask)), bits);
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bits)));
  }
  // Takes lanes whose bit is set into a maximum and a sum.
  static void take(uint32_t mask, F v, F& max, F& sum) {
    v = where(mask, v, set1(-INFINITY));
    max = Vec::max(max, v);
    sum = add(sum, v);
  }
  // Copies eight blocks of a mask: says which words have some bit, and in a byte for each block,
  // which is not 0, whether some bit is missing.
  static void copy_words(const uint32_t* words, uint32_t* to, uint64_t& some, uint64_t& gaps) {
    const I none = _mm256_setzero_si256(), all = _mm256_set1_epi32(-1);
    uint64_t empty = 0, full = 0;
    for (int i = 0; i < 8; ++i) {
      const I v = loadi(words + 8 * i);
      _mm256_storeu_si256(reinterpret_cast<I*>(to + 8 * i), v);
      const auto bits = [](I lanes) {
        return uint64_t(unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(lanes))));
      };
      empty |= bits(_mm256_cmpeq_epi32(v, none)) << 8 * i;
      full |= bits(_mm256_cmpeq_epi32(v, all)) << 8 * i;
    }
    some = ~empty;
    gaps = ~full;
  }
  static F max_below(F a, F b, F bound) {
    return _mm256_blendv_ps(a, max(a, b), _mm256_cmp_ps(b, bound, _CMP_LT_OQ));
  }
  static float hmax(F v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static float hmin(F v) { return -hmax(sub(_mm256_setzero_ps(), v)); }
  static bool any_nan(F v) { return _mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)) != 0; }
  static uint32_t mask_eq(F a, F b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)));
  }
  static uint32_t mask_ne(F a, F b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)));
  }
  // bits, and those in which v differs from `low` unless it equals `high`.
  static I or_neither(I bits, F v, F high, F low) {
    const F other = _mm256_and_ps(_mm256_cmp_ps(v, high, _CMP_NEQ_UQ), _mm256_xor_ps(v, low));
    return _mm256_or_si256(bits, _mm256_castps_si256(other));
  }
  static bool any_bit(I v) { return !_mm256_testz_si256(v, v); }
  static F count_up_to(F count, F x, F most) {
    return _mm256_add_ps(count, _mm256_and_ps(_mm256_cmp_ps(x, most, _CMP_LE_OQ), set1(1.0f)));
  }
  static uint32_t mask_ge(F a, F b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
  }
  static uint32_t mask_within(F v, F from, F to) {
    return uint32_t(_mm256_movemask_ps(
        _mm256_and_ps(_mm256_cmp_ps(v, from, _CMP_GE_OQ), _mm256_cmp_ps(v, to, _CMP_LT_OQ))));
  }
  static void mark(Marks* marks, int i, uint32_t mask) {
    marks->word[i * kWidth / 64] |= uint64_t(mask) << i * kWidth % 64;
  }
  template <class T>
  static size_t keep(const T* from, uint32_t mask, T* to) {
    return keep_lanes(from, mask, to);
  }
  static F of_blocks(const float* block_max, I ids) {
    return _mm256_i32gather_ps(block_max, _mm256_srli_epi32(ids, 8), 4);
  }
  static unsigned popcount(uint64_t mask) { return unsigned(_mm_popcnt_u64(mask)); }
  static size_t write_bits(uint64_t word, int32_t first, int32_t* places) {
    return fastsample::write_bits(word, popcount(word), first, places);
  }
  static size_t write_nonzero(const uint64_t* words, size_t n, int32_t* places) {
    return fastsample::write_nonzero(words, n, places);
  }

  // The range of the exponent trick below; also what turns -inf into a finite, weightless value.
  static F clamp_low(F y) { return _mm256_max_ps(y, set1(-100.0f)); }
  static F floor(F y) { return _mm256_round_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static F exponent(F y) { return floor(y); }
  static F fraction(F y, F n) { return sub(y, n); }
  // y again, not below -100.
  static F logarithm(F n, F r) { return add(n, r); }
  static F ldexp(F p, F n) {
    const I exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
  }

  static I to_int(F v) { return _mm256_cvtps_epi32(v); }
  static int32_t first(I v) { return _mm_cvtsi128_si32(_mm256_castsi256_si128(v)); }
  static I zero() { return _mm256_setzero_si256(); }
  static I addi(I a, I b) { return _mm256_add_epi32(a, b); }
  static I muli(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static I add_ge(I sum, I q, F x, F cut) {
    const I keep = _mm256_castps_si256(_mm256_cmp_ps(x, cut, _CMP_GE_OQ));
    return addi(sum, _mm256_and_si256(q, keep));
  }
  static __m256i low(I v) { return _mm256_cvtepu32_epi64(_mm256_castsi256_si128(v)); }
  static __m256i high(I v) { return _mm256_cvtepu32_epi64(_mm256_extracti128_si256(v, 1)); }
  static uint64_t hsum(const I* s) {
    const I a = s[0], b = s[1];
    return uint64_t(hsum64(
        _mm256_add_epi64(_mm256_add_epi64(low(a), high(a)), _mm256_add_epi64(low(b), high(b)))));
  }
  static void store_shifted(int64_t* p, I q, I shift) {
    _mm256_storeu_si256(reinterpret_cast<I*>(p), _mm256_sllv_epi64(low(q), low(shift)));
    _mm256_storeu_si256(reinterpret_cast<I*>(p + 4), _mm256_sllv_epi64(high(q), high(shift)));
  }

  static constexpr int kHalves = 16;
  static S loads(const uint16_t* p) { return loadi(p); }
  static S set1s(int v) { return _mm256_set1_epi16(int16_t(v)); }
  static S maxs(S a, S b) { return _mm256_max_epi16(a, b); }
  static S maxu(S a, S b) { return _mm256_max_epu16(a, b); }
  static S minu(S a, S b) { return _mm256_min_epu16(a, b); }
  static int hminu(S v) {
    const __m128i h = _mm_min_epu16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_extract_epi16(_mm_minpos_epu16(h), 0);
  }
  // The other order reversed, which is that of the smallest.
  static int hmaxu(S v) { return 0xffff - hminu(_mm256_sub_epi16(set1s(-1), v)); }
  static int hmaxs(S v) { return 0x7fff - hminu(_mm256_sub_epi16(set1s(0x7fff), v)); }

  static D set1d(double v) { return _mm256_set1_pd(v); }
  static D loadd(const double* p) { return _mm256_loadu_pd(p); }
  static void stored(double* p, D v) { _mm256_storeu_pd(p, v); }
  static D widen(F v, int half) { return half ? high_d(v) : low_d(v); }
  static D addd(D a, D b) { return _mm256_add_pd(a, b); }
  static D add_by_fma(D a, D one, D b) { return _mm256_fmadd_pd(a, one, b); }
  static D subd(D a, D b) { return _mm256_sub_pd(a, b); }
  static D muld(D a, D b) { return _mm256_mul_pd(a, b); }

  static Sum64 zero64() { return _mm256_setzero_si256(); }
  static Sum64 add64_ge(Sum64 sum, const int64_t* w, F x, F cut) {
    const __m256i keep = _mm256_castps_si256(_mm256_cmp_ps(x, cut, _CMP_GE_OQ));
    const __m256i lo = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(keep));
    const __m256i hi = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(keep, 1));
    const I* p = reinterpret_cast<const I*>(w);
    sum = _mm256_add_epi64(sum, _mm256_and_si256(lo, _mm256_loadu_si256(p)));
    return _mm256_add_epi64(sum, _mm256_and_si256(hi, _mm256_loadu_si256(p + 1)));
  }
  static void add64_up_to(Sum64 sum[2], F x, F most, int64_t w) {
    const __m256i keep = _mm256_castps_si256(_mm256_cmp_ps(x, most, _CMP_LE_OQ));
    const __m256i lo = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(keep));
    const __m256i hi = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(keep, 1));
    const I all = _mm256_set1_epi64x(w);
    sum[0] = _mm256_add_epi64(sum[0], _mm256_and_si256(lo, all));
    sum[1] = _mm256_add_epi64(sum[1], _mm256_and_si256(hi, all));
  }
  static uint32_t mask64_ge(const Sum64 sum[2], int64_t least) {
    const I all = _mm256_set1_epi64x(least);
    const I lo = _mm256_cmpgt_epi64(all, sum[0]), hi = _mm256_cmpgt_epi64(all, sum[1]);
    return ~uint32_t(_mm256_movemask_pd(_mm256_castsi256_pd(lo)) |
                     _mm256_movemask_pd(_mm256_castsi256_pd(hi)) << 4);
  }
  static void clear64(int64_t* p, uint32_t mask) {
    for (int i = 0; i < kWidth; ++i) p[i] &= int64_t(mask >> i & 1) - 1;
  }
  // Double precision, of as many lanes as a vector of floats has in two of them.
  static D low_d(F v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
  static D high_d(F v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
  static F to_floats(D low, D high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high),
                                1);
  }
  static F affine(F x, D max, D scale, D shift) {
    return to_floats(_mm256_fmadd_pd(_mm256_sub_pd(low_d(x), max), scale, shift),
                     _mm256_fmadd_pd(_mm256_sub_pd(high_d(x), max), scale, shift));
  }
  static void split_d(D x, D max, D scale, D& n, D& r) {
    const D y = _mm256_max_pd(_mm256_mul_pd(_mm256_sub_pd(x, max), scale), set1d(kLowestPower));
    n = _mm256_floor_pd(y);
    r = _mm256_sub_pd(y, n);
  }
  static void split(F x, D max, D scale, F& n, F& r) {
    D n_low, n_high, r_low, r_high;
    split_d(low_d(x), max, scale, n_low, r_low);
    split_d(high_d(x), max, scale, n_high, r_high);
    n = to_floats(n_low, n_high);
    r = to_floats(r_low, r_high);
  }
  static void add_to(D* sum, F v) {
    sum[0] = _mm256_add_pd(sum[0], low_d(v));
    sum[1] = _mm256_add_pd(sum[1], high_d(v));
  }
  // ldexp where x >= cut, else 0, whatever the rest is.
  static F ldexp_ge(F p, F n, F x, F cut) {
    return _mm256_and_ps(ldexp(p, n), _mm256_cmp_ps(x, cut, _CMP_GE_OQ));
  }
  static F quotient(I q, D divisor) {
    return to_floats(_mm256_div_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(q)), divisor),
                     _mm256_div_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(q, 1)), divisor));
  }
  static int64_t hsum64(Sum64 sum) {
    const __m128i s = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    alignas(16) int64_t lane[2];
    _mm_store_si128(reinterpret_cast<__m128i*>(lane), s);
    return lane[0] + lane[1];
  }
};

}  // namespace
}  // namespace avx2
}  // namespace fastsample
