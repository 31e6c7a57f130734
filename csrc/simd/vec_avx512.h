// Vector vocabulary for AVX-512 F/BW/DQ/VL: 16 lanes.
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace fastsample {
namespace avx512 {
namespace {

struct Vec {
  using F = __m512;
  using I = __m512i;
  using Sum64 = __m512i;
  using D = __m512d;
  using S = __m512i;
  static constexpr int kWidth = 16;
  static constexpr int kUnroll = 1;
  static constexpr int kGroup = 4;
  static constexpr int kDoubles = 8;

  static constexpr int32_t kPlaces[kWidth] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  // The first n of as many values, `rest` for the others, which are not read.
  static F load_first(const float* p, size_t n, F rest) {
    return _mm512_mask_loadu_ps(rest, __mmask16((1u << n) - 1), p);
  }
  static F load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_bf16(const uint16_t* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static F load_f64(const double* p) {
    const __m256 lo = _mm512_cvtpd_ps(_mm512_loadu_pd(p));
    const __m256 hi = _mm512_cvtpd_ps(_mm512_loadu_pd(p + 8));
    return _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
  }
  static I loadi(const void* p) { return _mm512_loadu_si512(p); }
  static I low_halves(I v) { return _mm512_slli_epi32(v, 16); }
  static I high_halves(I v) { return _mm512_and_si512(v, _mm512_set1_epi32(-0x10000)); }
  static F as_float(I v) { return _mm512_castsi512_ps(v); }
  static void storei(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F set1(float v) { return _mm512_set1_ps(v); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  // v, but `other` where it equals y; and a, or the larger b where that is below a bound.
  static F replace(F v, F y, F other) {
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, y, _CMP_EQ_OQ), other);
  }
  static F where(uint32_t mask, F v, F other) {
    return _mm512_mask_mov_ps(other, __mmask16(mask), v);
  }
  // Takes lanes whose bit is set into a maximum and a sum.
  static void take(uint32_t mask, F v, F& max, F& sum) {
#if defined(__GNUC__)
    __asm__("" : "+v"(v));  // a load that both would do themselves, with a mask, is a slow one
#endif
    max = _mm512_mask_max_ps(max, __mmask16(mask), max, v);
    sum = _mm512_mask_add_ps(sum, __mmask16(mask), sum, v);
  }
  // Copies eight blocks of a mask, unless nothing is allowed: says which words have some bit, and
  // in a byte for each block, which is not 0, whether some bit is missing.
  static void copy_words(const uint32_t* words, uint32_t* to, uint64_t& some, uint64_t& gaps) {
    const __m512i all = _mm512_set1_epi32(-1);
    I v[4];
    for (int i = 0; i < 4; ++i) v[i] = loadi(words + 16 * i);
    const I any = _mm512_or_si512(_mm512_or_si512(v[0], v[1]), _mm512_or_si512(v[2], v[3]));
    some = 0;
    gaps = any_bit(any) ? 0 : ~some;
    if (gaps) return;
    for (int i = 0; i < 4; ++i) {
      _mm512_storeu_si512(to + 16 * i, v[i]);
      some |= uint64_t(_mm512_test_epi32_mask(v[i], v[i])) << 16 * i;
      gaps |= uint64_t(_mm512_cmpneq_epi32_mask(v[i], all)) << 16 * i;
    }
  }
  static F max_below(F a, F b, F bound) {
    return _mm512_mask_max_ps(a, _mm512_cmp_ps_mask(b, bound, _CMP_LT_OQ), a, b);
  }
  static float hmax(F v) { return _mm512_reduce_max_ps(v); }
  static float hmin(F v) { return _mm512_reduce_min_ps(v); }
  static bool any_nan(F v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q) != 0; }
  static uint32_t mask_eq(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  static uint32_t mask_ne(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
  // bits, and those in which v differs from `low` unless it equals `high`.
  static I or_neither(I bits, F v, F high, F low) {
    constexpr int kOrXor = 0xf6;  // a | (b ^ c)
    return _mm512_mask_ternarylogic_epi32(bits, _mm512_cmp_ps_mask(v, high, _CMP_NEQ_UQ),
                                          _mm512_castps_si512(v), _mm512_castps_si512(low), kOrXor);
  }
  static bool any_bit(I v) { return _mm512_test_epi32_mask(v, v) != 0; }
  // One more in the lanes whose x is at most `most`.
  static F count_up_to(F count, F x, F most) {
    return _mm512_mask_add_ps(count, _mm512_cmp_ps_mask(x, most, _CMP_LE_OQ), count, set1(1.0f));
  }
  static uint32_t mask_ge(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
  static uint32_t mask_within(F v, F from, F to) {
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(v, from, _CMP_GE_OQ), v, to, _CMP_LT_OQ);
  }
  // A store of the mask alone; by way of a word it would take three more instructions.
  static void mark(Marks* marks, int i, uint32_t mask) {
    _store_mask16(reinterpret_cast<__mmask16*>(reinterpret_cast<char*>(marks) + 2 * i),
                  __mmask16(mask));
  }
  // vcompressps to memory would be slow; with a mask that merges, the register is not waited for.
  static size_t keep(const float* from, uint32_t mask, float* to) {
    const F v = load(from);
    _mm512_storeu_ps(to, _mm512_mask_compress_ps(v, __mmask16(mask), v));
    return popcount(mask);
  }
  static size_t keep(const int32_t* from, uint32_t mask, int32_t* to) {
    const I v = loadi(from);
    _mm512_storeu_si512(to, _mm512_mask_compress_epi32(v, __mmask16(mask), v));
    return popcount(mask);
  }
  static size_t keep(const int64_t* from, uint32_t mask, int64_t* to) {
    const I low = loadi(from), high = loadi(from + 8);
    _mm512_storeu_si512(to, _mm512_mask_compress_epi64(low, __mmask8(mask), low));
    to += popcount(mask & 0xff);
    _mm512_storeu_si512(to, _mm512_mask_compress_epi64(high, __mmask8(mask >> 8), high));
    return popcount(mask);
  }
  static F of_blocks(const float* block_max, I ids) {
    return _mm512_i32gather_ps(_mm512_srli_epi32(ids, 8), block_max, 4);
  }
  static unsigned popcount(uint64_t mask) { return unsigned(_mm_popcnt_u64(mask)); }
  // The same as the functions of that name, by vectors: of places, those that a mask has.
  static size_t write_bits(uint64_t word, int32_t first, int32_t* places) {
    const size_t bits = popcount(word);
    if (bits <= 4) return fastsample::write_bits(word, bits, first, places);
    I place = _mm512_add_epi32(_mm512_set1_epi32(first), _mm512_loadu_si512(kPlaces));
    size_t count = 0;
    for (int i = 0; i < 64; i += 16, place = _mm512_add_epi32(place, _mm512_set1_epi32(16))) {
      const auto m = __mmask16(word >> i);
      _mm512_storeu_si512(places + count, _mm512_mask_compress_epi32(place, m, place));
      count += popcount(m);
    }
    return count;
  }
  static size_t write_nonzero(const uint64_t* words, size_t n, int32_t* places) {
    I place = _mm512_loadu_si512(kPlaces);
    size_t count = 0;
    for (size_t i = 0; i < n; i += 8, place = _mm512_add_epi32(place, _mm512_set1_epi32(8))) {
      const __mmask8 there = n - i < 8 ? __mmask8((1u << (n - i)) - 1) : __mmask8(-1);
      const I eight = _mm512_maskz_loadu_epi64(there, words + i);
      const __mmask8 m = _mm512_test_epi64_mask(eight, eight);
      _mm512_storeu_si512(places + count, _mm512_mask_compress_epi32(place, m, place));
      count += popcount(m);
    }
    return count;
  }

  // No clamp: vscalefps underflows to zero by itself, and scales even a NaN by 2^-inf to 0.
  static F clamp_low(F y) { return y; }
  static F floor(F y) { return _mm512_roundscale_ps(y, _MM_FROUND_TO_NEG_INF | 8); }
  // vscalefps takes the floor by itself, too.
  static F exponent(F y) { return y; }
  static F fraction(F y, F) { return _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | 8); }
  static F logarithm(F n, F) { return max(n, set1(-100.0f)); }
  static F ldexp(F p, F n) { return _mm512_scalef_ps(p, n); }

  static I to_int(F v) { return _mm512_cvtps_epi32(v); }
  static int32_t first(I v) { return _mm_cvtsi128_si32(_mm512_castsi512_si128(v)); }
  static I zero() { return _mm512_setzero_si512(); }
  static I addi(I a, I b) { return _mm512_add_epi32(a, b); }
  static I muli(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static I add_ge(I sum, I q, F x, F cut) {
    return _mm512_mask_add_epi32(sum, _mm512_cmp_ps_mask(x, cut, _CMP_GE_OQ), sum, q);
  }
  static __m512i low(I v) { return _mm512_cvtepu32_epi64(_mm512_castsi512_si256(v)); }
  static __m512i high(I v) { return _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(v, 1)); }
  static uint64_t hsum(const I* s) {
    return uint64_t(_mm512_reduce_add_epi64(_mm512_add_epi64(low(*s), high(*s))));
  }
  static void store_shifted(int64_t* p, I q, I shift) {
    _mm512_storeu_si512(p, _mm512_sllv_epi64(low(q), low(shift)));
    _mm512_storeu_si512(p + 8, _mm512_sllv_epi64(high(q), high(shift)));
  }

  static constexpr int kHalves = 32;
  static S loads(const uint16_t* p) { return _mm512_loadu_si512(p); }
  static S set1s(int v) { return _mm512_set1_epi16(int16_t(v)); }
  static S maxs(S a, S b) { return _mm512_max_epi16(a, b); }
  static S maxu(S a, S b) { return _mm512_max_epu16(a, b); }
  static S minu(S a, S b) { return _mm512_min_epu16(a, b); }
  static int hminu(S v) {
    const __m256i m = _mm256_min_epu16(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i h = _mm_min_epu16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    return _mm_extract_epi16(_mm_minpos_epu16(h), 0);
  }
  // The other order reversed, which is that of the smallest.
  static int hmaxu(S v) { return 0xffff - hminu(_mm512_sub_epi16(set1s(-1), v)); }
  static int hmaxs(S v) { return 0x7fff - hminu(_mm512_sub_epi16(set1s(0x7fff), v)); }

  static D set1d(double v) { return _mm512_set1_pd(v); }
  static D loadd(const double* p) { return _mm512_loadu_pd(p); }
  static void stored(double* p, D v) { _mm512_storeu_pd(p, v); }
  static D widen(F v, int half) { return half ? high_d(v) : low_d(v); }
  static D addd(D a, D b) { return _mm512_add_pd(a, b); }
  // By the units that multiply, where those that add have enough to do.
  static D add_by_fma(D a, D one, D b) { return _mm512_fmadd_pd(a, one, b); }
  static D subd(D a, D b) { return _mm512_sub_pd(a, b); }
  static D muld(D a, D b) { return _mm512_mul_pd(a, b); }

  static Sum64 zero64() { return _mm512_setzero_si512(); }
  static Sum64 add64_ge(Sum64 sum, const int64_t* w, F x, F cut) {
    const __mmask16 m = _mm512_cmp_ps_mask(x, cut, _CMP_GE_OQ);
    sum = _mm512_mask_add_epi64(sum, __mmask8(m), sum, _mm512_loadu_si512(w));
    return _mm512_mask_add_epi64(sum, __mmask8(m >> 8), sum, _mm512_loadu_si512(w + 8));
  }
  // Adds w in the lanes whose x is at most `most`; and the lanes in which the sum is so much.
  static void add64_up_to(Sum64 sum[2], F x, F most, int64_t w) {
    const __mmask16 m = _mm512_cmp_ps_mask(x, most, _CMP_LE_OQ);
    const I all = _mm512_set1_epi64(w);
    sum[0] = _mm512_mask_add_epi64(sum[0], __mmask8(m), sum[0], all);
    sum[1] = _mm512_mask_add_epi64(sum[1], __mmask8(m >> 8), sum[1], all);
  }
  static uint32_t mask64_ge(const Sum64 sum[2], int64_t least) {
    const I all = _mm512_set1_epi64(least);
    return uint32_t(_mm512_cmpge_epi64_mask(sum[0], all)) |
           uint32_t(_mm512_cmpge_epi64_mask(sum[1], all)) << 8;
  }
  static void clear64(int64_t* p, uint32_t mask) {
    _mm512_mask_storeu_epi64(p, __mmask8(mask), _mm512_setzero_si512());
    _mm512_mask_storeu_epi64(p + 8, __mmask8(mask >> 8), _mm512_setzero_si512());
  }
  // Double precision, of as many lanes as a vector of floats has in two of them.
  static D low_d(F v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
  static D high_d(F v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
  static F to_floats(D low, D high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high),
                              1);
  }
  static F affine(F x, D max, D scale, D shift) {
    return to_floats(_mm512_fmadd_pd(_mm512_sub_pd(low_d(x), max), scale, shift),
                     _mm512_fmadd_pd(_mm512_sub_pd(high_d(x), max), scale, shift));
  }
  static void split_d(D x, D max, D scale, D& n, D& r) {
    const D y = _mm512_max_pd(_mm512_mul_pd(_mm512_sub_pd(x, max), scale), set1d(kLowestPower));
    n = _mm512_roundscale_pd(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    r = _mm512_sub_pd(y, n);
  }
  static void split(F x, D max, D scale, F& n, F& r) {
    D n_low, n_high, r_low, r_high;
    split_d(low_d(x), max, scale, n_low, r_low);
    split_d(high_d(x), max, scale, n_high, r_high);
    n = to_floats(n_low, n_high);
    r = to_floats(r_low, r_high);
  }
  static void add_to(D* sum, F v) {
    sum[0] = _mm512_add_pd(sum[0], low_d(v));
    sum[1] = _mm512_add_pd(sum[1], high_d(v));
  }
  // ldexp where x >= cut, else 0, whatever the rest is.
  static F ldexp_ge(F p, F n, F x, F cut) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, cut, _CMP_GE_OQ), p, n);
  }
  static F quotient(I q, D divisor) {
    return to_floats(_mm512_div_pd(_mm512_cvtepi32_pd(_mm512_castsi512_si256(q)), divisor),
                     _mm512_div_pd(_mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(q, 1)), divisor));
  }
  static int64_t hsum64(Sum64 sum) { return _mm512_reduce_add_epi64(sum); }
};

}  // namespace
}  // namespace avx512
}  // namespace fastsample
