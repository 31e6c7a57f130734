// The primitives of kernels.h, written once against the vector vocabulary `Vec` of vec_*.h.
// Everything lives in an anonymous namespace: a weak symbol compiled for one instruction set could
// be picked by the linker for all of them.

#if defined(__clang__)
#define FASTSAMPLE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FASTSAMPLE_UNROLL _Pragma("GCC unroll 64")
#else
#define FASTSAMPLE_UNROLL
#endif

#define FASTSAMPLE_NAME(isa) FASTSAMPLE_NAME_(isa)
#define FASTSAMPLE_NAME_(isa) #isa

namespace fastsample {
namespace FASTSAMPLE_ISA {
namespace {

using F = Vec::F;
using I = Vec::I;
constexpr int kWidth = Vec::kWidth;
constexpr int kVectors = kBlock / kWidth;
constexpr int kUnroll = Vec::kUnroll;  // accumulators side by side, to hide latency
static_assert(kVectors / kUnroll <= 16, "kMantissaBits allows 16 weights in a 32-bit lane");

struct LoadF32 {
  using T = float;
  static F load(const T* p) { return Vec::load(p); }
};
struct LoadF16 {
  using T = uint16_t;
  static F load(const T* p) { return Vec::load_f16(p); }
};
struct LoadBF16 {
  using T = uint16_t;
  static F load(const T* p) { return Vec::load_bf16(p); }
};
struct LoadF64 {
  using T = double;
  static F load(const T* p) { return Vec::load_f64(p); }
};

// Calls body(loader, block pointer) with a full block: the row's own, or a padded copy of its tail.
template <class Load, class Body>
inline void with_block(const typename Load::T* block, size_t left, Body body) {
  if (left >= size_t(kBlock)) {
    body(Load{}, block);
    return;
  }
  typename Load::T tail[kBlock] = {};
  alignas(64) float padded[kBlock];
  for (size_t i = 0; i < left; ++i) tail[i] = block[i];
  for (int i = 0; i < kBlock; i += kWidth) Vec::store(padded + i, Load::load(tail + i));
  for (size_t i = left; i < size_t(kBlock); ++i) padded[i] = -INFINITY;
  body(LoadF32{}, static_cast<const float*>(padded));
}

// w = 2^((x - max) * scale) * 2^lift, for x <= max: degree-6 polynomial on [-1/2, 1/2] whose
// constant term is exactly 1, so that the maximum weighs exactly 1. Coefficients: minimax in
// relative error, 2.0e-9 before rounding; 0.95 ULP in float32 (tests/test_numerics.py measures it).
inline F exp2_lifted(F x, F max, F scale, F lift) {
  const F y = Vec::clamp_low(Vec::mul(Vec::sub(x, max), scale));
  const F n = Vec::round(y);
  const F r = Vec::sub_round(y, n);
  F p = Vec::set1(1.53550566e-04f);
  p = Vec::fma(p, r, Vec::set1(1.33988941e-03f));
  p = Vec::fma(p, r, Vec::set1(9.61843099e-03f));
  p = Vec::fma(p, r, Vec::set1(5.55033244e-02f));
  p = Vec::fma(p, r, Vec::set1(2.40226480e-01f));
  p = Vec::fma(p, r, Vec::set1(6.93147203e-01f));
  p = Vec::fma(p, r, Vec::set1(1.0f));
  return Vec::ldexp(p, Vec::add(n, lift));
}

template <class Load>
ScanResult scan(const void* row, size_t n, float* block_max) {
  const auto* x = static_cast<const typename Load::T*>(row);
  float row_max = -INFINITY;
  // A NaN gets lost in a maximum, but never in a sum.
  F sum[4] = {Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f)};
  for (size_t start = 0, b = 0; start < n; start += kBlock, ++b) {
    with_block<Load>(x + start, n - start, [&](auto loader, const auto* p) {
      F max[4];
      FASTSAMPLE_UNROLL
      for (int u = 0; u < 4; ++u) max[u] = Vec::set1(-INFINITY);
      FASTSAMPLE_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const F v = loader.load(p + i * kWidth);
        max[i % 4] = Vec::max(max[i % 4], v);
        sum[i % 4] = Vec::add(sum[i % 4], v);
      }
      block_max[b] = Vec::hmax(Vec::max(Vec::max(max[0], max[1]), Vec::max(max[2], max[3])));
    });
    if (block_max[b] > row_max) row_max = block_max[b];
  }
  const F total = Vec::add(Vec::add(sum[0], sum[1]), Vec::add(sum[2], sum[3]));
  return {row_max, Vec::any_nan(total)};
}

template <bool kAll, class Load>
inline int64_t block_mass_of(const typename Load::T* p, Exp2 exp2, int exponent, float tau) {
  const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale);
  const F lift = Vec::set1(float(kMantissaBits - exponent));
  const F cut = Vec::set1(tau);
  I sum[kUnroll];
  FASTSAMPLE_UNROLL
  for (int u = 0; u < kUnroll; ++u) sum[u] = Vec::zero();
  for (int i = 0; i < kVectors; i += kUnroll) {
    F x[kUnroll];
    I q[kUnroll];
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kUnroll; ++u) x[u] = Load::load(p + (i + u) * kWidth);
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kUnroll; ++u) q[u] = Vec::to_int(exp2_lifted(x[u], max, scale, lift));
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kUnroll; ++u)
      sum[u] = Vec::addi(sum[u], kAll ? q[u] : Vec::keep_ge(q[u], x[u], cut));
  }
  return int64_t(Vec::hsum(sum) << (kUnitBits - kMantissaBits + exponent));
}

template <class Load>
void mass(const void* row, size_t n, const float* block_max, Exp2 exp2, float tau,
          int64_t* block_mass) {
  const auto* x = static_cast<const typename Load::T*>(row);
  const bool all = tau == -INFINITY;
  for (size_t start = 0, b = 0; start < n; start += kBlock, ++b) {
    // Negated so that the NaN of an overflowing scale counts as light.
    const bool weighty = (block_max[b] - exp2.max) * exp2.scale > kLightest;
    if (!weighty || block_max[b] < tau) {
      block_mass[b] = 0;
      continue;
    }
    const int exponent = block_exponent(block_max[b], exp2);
    with_block<Load>(x + start, n - start, [&](auto loader, const auto* p) {
      using L = decltype(loader);
      block_mass[b] = all ? block_mass_of<true, L>(p, exp2, exponent, tau)
                          : block_mass_of<false, L>(p, exp2, exponent, tau);
    });
  }
}

template <class Load>
void at_least(const void* block, size_t n, float tau, uint64_t bits[kBlock / 64]) {
  const F cut = Vec::set1(tau);
  with_block<Load>(static_cast<const typename Load::T*>(block), n, [&](auto loader, const auto* p) {
    constexpr int kPerWord = 64 / kWidth;
    for (int word = 0; word < kBlock / 64; ++word) {
      uint64_t w = 0;
      FASTSAMPLE_UNROLL
      for (int i = 0; i < kPerWord; ++i)
        w |= uint64_t(Vec::mask_ge(loader.load(p + (word * kPerWord + i) * kWidth), cut))
             << (i * kWidth);
      bits[word] = w;
    }
  });
}

template <class Load>
void load(const void* block, size_t n, float out[kBlock]) {
  with_block<Load>(static_cast<const typename Load::T*>(block), n, [&](auto loader, const auto* p) {
    for (int i = 0; i < kBlock; i += kWidth) Vec::store(out + i, loader.load(p + i));
  });
}

void weigh(const float* x, size_t n, Exp2 exp2, const int32_t* shift, int64_t* weight) {
  const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale);
  for (size_t i = 0; i < n; i += kWidth) {
    const I s = Vec::loadi(shift + i);
    const F lift = Vec::sub(Vec::set1(float(kUnitBits)), Vec::to_float(s));
    const I q = Vec::to_int(exp2_lifted(Vec::load(x + i), max, scale, lift));
    Vec::store_shifted(weight + i, q, s);
  }
}

size_t count_at_least(const float* x, size_t n, float tau) {
  const F cut = Vec::set1(tau);
  size_t count = 0, i = 0;
  for (; i + kWidth <= n; i += kWidth) count += Vec::popcount(Vec::mask_ge(Vec::load(x + i), cut));
  for (; i < n; ++i) count += x[i] >= tau;
  return count;
}

int64_t mass_at_least(const float* x, const int64_t* weight, size_t n, float tau) {
  const F cut = Vec::set1(tau);
  Vec::Sum64 sum = Vec::zero64();
  size_t i = 0;
  for (; i + kWidth <= n; i += kWidth)
    sum = Vec::add64_ge(sum, weight + i, Vec::load(x + i), cut);
  int64_t total = Vec::hsum64(sum);
  for (; i < n; ++i)
    if (x[i] >= tau) total += weight[i];
  return total;
}

template <class Load>
constexpr RowKernels row_kernels() {
  return {scan<Load>, mass<Load>, at_least<Load>, load<Load>};
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {
    FASTSAMPLE_NAME(FASTSAMPLE_ISA),
    {row_kernels<LoadF32>(), row_kernels<LoadF16>(), row_kernels<LoadBF16>(),
     row_kernels<LoadF64>()},
    weigh,
    count_at_least,
    mass_at_least,
};

}  // namespace FASTSAMPLE_ISA
}  // namespace fastsample
