// Vector vocabulary for AArch64 NEON: 4 lanes.
#pragma once

#include <arm_neon.h>

#include "kernels.h"

namespace fastsample {
namespace neon {
namespace {

struct Vec {
  using F = float32x4_t;
  using I = int32x4_t;
  using Sum64 = int64x2_t;
  using D = float64x2_t;
  using S = int16x8_t;
  static constexpr int kWidth = 4;
  static constexpr int kUnroll = 4;
  static constexpr int kGroup = 4;
  static constexpr int kDoubles = 2;

  static F load(const float* p) { return vld1q_f32(p); }
  static F load_first(const float* p, size_t n, F rest) {
    float lanes[kWidth];
    vst1q_f32(lanes, rest);
    for (size_t i = 0; i < n; ++i) lanes[i] = p[i];
    return vld1q_f32(lanes);
  }
  static F load_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static F load_bf16(const uint16_t* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }
  static F load_f64(const double* p) {
    return vcvt_high_f32_f64(vcvt_f32_f64(vld1q_f64(p)), vld1q_f64(p + 2));
  }
  static I loadi(const int32_t* p) { return vld1q_s32(p); }
  static I loadi(const uint16_t* p) { return vreinterpretq_s32_u16(vld1q_u16(p)); }
  static I low_halves(I v) { return vshlq_n_s32(v, 16); }
  static I high_halves(I v) { return vandq_s32(v, vdupq_n_s32(-0x10000)); }
  static F as_float(I v) { return vreinterpretq_f32_s32(v); }
  static void storei(int32_t* p, I v) { vst1q_s32(p, v); }
  static void store(float* p, F v) { vst1q_f32(p, v); }
  static F set1(float v) { return vdupq_n_f32(v); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F max(F a, F b) { return vmaxq_f32(a, b); }
  static F min(F a, F b) { return vminq_f32(a, b); }
  // v, but `other` where it equals y; and a, or the larger b where that is below a bound.
  static F replace(F v, F y, F other) { return vbslq_f32(vceqq_f32(v, y), other, v); }
  static F where(uint32_t mask, F v, F other) {
    const uint32_t bits[4] = {1, 2, 4, 8};
    return vbslq_f32(vtstq_u32(vdupq_n_u32(mask), vld1q_u32(bits)), v, other);
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
    const uint8_t bits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    some = gaps = 0;
    for (int i = 0; i < 8; ++i) {
      const uint32x4_t low = vld1q_u32(words + 8 * i), high = vld1q_u32(words + 8 * i + 4);
      vst1q_u32(to + 8 * i, low);
      vst1q_u32(to + 8 * i + 4, high);
      const uint16x8_t set =
          vcombine_u16(vmovn_u32(vtstq_u32(low, low)), vmovn_u32(vtstq_u32(high, high)));
      some |= uint64_t(vaddv_u8(vand_u8(vmovn_u16(set), vld1_u8(bits)))) << 8 * i;
      gaps |= uint64_t(vminvq_u32(vandq_u32(low, high)) != ~0u) << 8 * i;
    }
  }
  static F max_below(F a, F b, F bound) {
    return vbslq_f32(vcltq_f32(b, bound), vmaxq_f32(a, b), a);
  }
  static float hmax(F v) { return vmaxvq_f32(v); }
  static float hmin(F v) { return vminvq_f32(v); }
  static bool any_nan(F v) { return vminvq_u32(vceqq_f32(v, v)) == 0; }
  static uint32_t bits(uint32x4_t lanes) {
    const int32_t place[4] = {0, 1, 2, 3};
    return vaddvq_u32(vshlq_u32(vshrq_n_u32(lanes, 31), vld1q_s32(place)));
  }
  static uint32_t mask_eq(F a, F b) { return bits(vceqq_f32(a, b)); }
  static uint32_t mask_ne(F a, F b) { return bits(vmvnq_u32(vceqq_f32(a, b))); }
  // bits, and those in which v differs from `low` unless it equals `high`.
  static I or_neither(I bits, F v, F high, F low) {
    const uint32x4_t differs = veorq_u32(vreinterpretq_u32_f32(v), vreinterpretq_u32_f32(low));
    return vorrq_s32(bits, vreinterpretq_s32_u32(vbicq_u32(differs, vceqq_f32(v, high))));
  }
  static bool any_bit(I v) { return vmaxvq_u32(vreinterpretq_u32_s32(v)) != 0; }
  static F count_up_to(F count, F x, F most) {
    return vaddq_f32(count, vbslq_f32(vcleq_f32(x, most), set1(1.0f), set1(0.0f)));
  }
  static uint32_t mask_ge(F a, F b) { return bits(vcgeq_f32(a, b)); }
  static uint32_t mask_within(F v, F from, F to) { return mask_ge(v, from) & ~mask_ge(v, to); }
  static void mark(Marks* marks, int i, uint32_t mask) {
    marks->word[i * kWidth / 64] |= uint64_t(mask) << i * kWidth % 64;
  }
  template <class T>
  static size_t keep(const T* from, uint32_t mask, T* to) {
    return keep_lanes(from, mask, to);
  }
  static F of_blocks(const float* block_max, I ids) {
    int32_t place[kWidth];
    vst1q_s32(place, ids);
    float lanes[kWidth];
    for (int i = 0; i < kWidth; ++i) lanes[i] = block_max[place[i] / kBlock];
    return vld1q_f32(lanes);
  }
  static unsigned popcount(uint64_t mask) { return unsigned(__builtin_popcountll(mask)); }
  static size_t write_bits(uint64_t word, int32_t first, int32_t* places) {
    return fastsample::write_bits(word, popcount(word), first, places);
  }
  static size_t write_nonzero(const uint64_t* words, size_t n, int32_t* places) {
    return fastsample::write_nonzero(words, n, places);
  }

  // The range of the exponent trick below; also what turns -inf into a finite, weightless value.
  static F clamp_low(F y) { return vmaxq_f32(y, set1(-100.0f)); }
  static F floor(F y) { return vrndmq_f32(y); }
  static F exponent(F y) { return floor(y); }
  static F fraction(F y, F n) { return sub(y, n); }
  static F logarithm(F n, F r) { return add(n, r); }
  static F ldexp(F p, F n) {
    const I exponent = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent));
  }

  static I to_int(F v) { return vcvtnq_s32_f32(v); }
  static int32_t first(I v) { return vgetq_lane_s32(v, 0); }
  static I zero() { return vdupq_n_s32(0); }
  static I addi(I a, I b) { return vaddq_s32(a, b); }
  static I muli(I a, I b) { return vmulq_s32(a, b); }
  static I add_ge(I sum, I q, F x, F cut) {
    return vaddq_s32(sum, vandq_s32(q, vreinterpretq_s32_u32(vcgeq_f32(x, cut))));
  }
  static uint64_t hsum(const I* s) {
    uint64_t total = 0;
    for (int u = 0; u < kUnroll; ++u) total += vaddlvq_u32(vreinterpretq_u32_s32(s[u]));
    return total;
  }
  static void store_shifted(int64_t* p, I q, I shift) {
    vst1q_s64(p, vshlq_s64(vmovl_s32(vget_low_s32(q)), vmovl_s32(vget_low_s32(shift))));
    vst1q_s64(p + 2, vshlq_s64(vmovl_high_s32(q), vmovl_high_s32(shift)));
  }

  static constexpr int kHalves = 8;
  static S loads(const uint16_t* p) { return vreinterpretq_s16_u16(vld1q_u16(p)); }
  static S set1s(int v) { return vdupq_n_s16(int16_t(v)); }
  static S maxs(S a, S b) { return vmaxq_s16(a, b); }
  static S maxu(S a, S b) {
    return vreinterpretq_s16_u16(vmaxq_u16(vreinterpretq_u16_s16(a), vreinterpretq_u16_s16(b)));
  }
  static S minu(S a, S b) {
    return vreinterpretq_s16_u16(vminq_u16(vreinterpretq_u16_s16(a), vreinterpretq_u16_s16(b)));
  }
  static int hmaxs(S v) { return vmaxvq_s16(v); }
  static int hmaxu(S v) { return vmaxvq_u16(vreinterpretq_u16_s16(v)); }
  static int hminu(S v) { return vminvq_u16(vreinterpretq_u16_s16(v)); }

  static D set1d(double v) { return vdupq_n_f64(v); }
  static D loadd(const double* p) { return vld1q_f64(p); }
  static void stored(double* p, D v) { vst1q_f64(p, v); }
  static D widen(F v, int half) { return half ? high_d(v) : low_d(v); }
  static D addd(D a, D b) { return vaddq_f64(a, b); }
  static D add_by_fma(D a, D, D b) { return vaddq_f64(a, b); }
  static D subd(D a, D b) { return vsubq_f64(a, b); }
  static D muld(D a, D b) { return vmulq_f64(a, b); }

  static Sum64 zero64() { return vdupq_n_s64(0); }
  static Sum64 add64_ge(Sum64 sum, const int64_t* w, F x, F cut) {
    const I keep = vreinterpretq_s32_u32(vcgeq_f32(x, cut));
    sum = vaddq_s64(sum, vandq_s64(vmovl_s32(vget_low_s32(keep)), vld1q_s64(w)));
    return vaddq_s64(sum, vandq_s64(vmovl_high_s32(keep), vld1q_s64(w + 2)));
  }
  static void add64_up_to(Sum64 sum[2], F x, F most, int64_t w) {
    const I keep = vreinterpretq_s32_u32(vcleq_f32(x, most));
    const int64x2_t all = vdupq_n_s64(w);
    sum[0] = vaddq_s64(sum[0], vandq_s64(vmovl_s32(vget_low_s32(keep)), all));
    sum[1] = vaddq_s64(sum[1], vandq_s64(vmovl_high_s32(keep), all));
  }
  static uint32_t mask64_ge(const Sum64 sum[2], int64_t least) {
    const int64x2_t all = vdupq_n_s64(least);
    return bits(vcombine_u32(vmovn_u64(vcgeq_s64(sum[0], all)), vmovn_u64(vcgeq_s64(sum[1], all))));
  }
  static void clear64(int64_t* p, uint32_t mask) {
    for (int i = 0; i < kWidth; ++i) p[i] &= int64_t(mask >> i & 1) - 1;
  }
  // Double precision, of as many lanes as a vector of floats has in two of them.
  static D low_d(F v) { return vcvt_f64_f32(vget_low_f32(v)); }
  static D high_d(F v) { return vcvt_high_f64_f32(v); }
  static F to_floats(D low, D high) { return vcvt_high_f32_f64(vcvt_f32_f64(low), high); }
  static F affine(F x, D max, D scale, D shift) {
    return to_floats(vfmaq_f64(shift, vsubq_f64(low_d(x), max), scale),
                     vfmaq_f64(shift, vsubq_f64(high_d(x), max), scale));
  }
  static void split_d(D x, D max, D scale, D& n, D& r) {
    const D y = vmaxq_f64(vmulq_f64(vsubq_f64(x, max), scale), set1d(kLowestPower));
    n = vrndmq_f64(y);
    r = vsubq_f64(y, n);
  }
  static void split(F x, D max, D scale, F& n, F& r) {
    D n_low, n_high, r_low, r_high;
    split_d(low_d(x), max, scale, n_low, r_low);
    split_d(high_d(x), max, scale, n_high, r_high);
    n = to_floats(n_low, n_high);
    r = to_floats(r_low, r_high);
  }
  static void add_to(D* sum, F v) {
    sum[0] = vaddq_f64(sum[0], low_d(v));
    sum[1] = vaddq_f64(sum[1], high_d(v));
  }
  // ldexp where x >= cut, else 0, whatever the rest is.
  static F ldexp_ge(F p, F n, F x, F cut) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(ldexp(p, n)), vcgeq_f32(x, cut)));
  }
  static F quotient(I q, D divisor) {
    return to_floats(vdivq_f64(vcvtq_f64_s64(vmovl_s32(vget_low_s32(q))), divisor),
                     vdivq_f64(vcvtq_f64_s64(vmovl_high_s32(q)), divisor));
  }
  static int64_t hsum64(Sum64 sum) { return vaddvq_s64(sum); }
};

}  // namespace
}  // namespace neon
}  // namespace fastsample
