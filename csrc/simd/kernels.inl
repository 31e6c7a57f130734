// The primitives of kernels.h, written once against the vector vocabulary `Vec` of vec_*.h.
// Everything lives in an anonymous namespace: a weak symbol compiled for one instruction set could
// be picked by the linker for all of them.

#if defined(__clang__)
#define FASTSAMPLE_UNROLL _Pragma("unroll")
#define FASTSAMPLE_FLATTEN __attribute__((flatten))
#elif defined(__GNUC__)
#define FASTSAMPLE_UNROLL _Pragma("GCC unroll 64")
#define FASTSAMPLE_FLATTEN __attribute__((flatten))
#else
#define FASTSAMPLE_UNROLL
#define FASTSAMPLE_FLATTEN
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

// w = 2^((x - max) * scale) * 2^lift, for x <= max: a polynomial of degree 5 on [-1/2, 1/2],
// minimax in ULP with its constant term held at exactly 1, so that the maximum weighs exactly 1. At
// most 1.82 ULP off in float32. N vectors in step, so that N chains of dependent operations run
// side by side.
template <int N>
inline void exp2_lifted(const F (&x)[N], F max, F scale, F lift, F (&w)[N]) {
  constexpr float kCoefficients[] = {9.671721e-03f, 5.550896e-02f, 2.4022238e-01f, 6.931468e-01f,
                                     1.0f};
  F n[N], r[N];
  FASTSAMPLE_UNROLL
  for (int u = 0; u < N; ++u) r[u] = Vec::clamp_low(Vec::mul(Vec::sub(x[u], max), scale));
  FASTSAMPLE_UNROLL
  for (int u = 0; u < N; ++u) n[u] = Vec::round(r[u]);
  FASTSAMPLE_UNROLL
  for (int u = 0; u < N; ++u) r[u] = Vec::sub(r[u], n[u]);
  FASTSAMPLE_UNROLL
  for (int u = 0; u < N; ++u) w[u] = Vec::set1(1.3224551e-03f);
  FASTSAMPLE_UNROLL
  for (float c : kCoefficients) {
    FASTSAMPLE_UNROLL
    for (int u = 0; u < N; ++u) w[u] = Vec::fma(w[u], r[u], Vec::set1(c));
  }
  FASTSAMPLE_UNROLL
  for (int u = 0; u < N; ++u) w[u] = Vec::ldexp(w[u], Vec::add(n[u], lift));
}

template <class Load>
FASTSAMPLE_FLATTEN ScanResult scan(const void* row, size_t n, float* block_max) {
  const auto* x = static_cast<const typename Load::T*>(row);
  float row_max = -INFINITY;
  // A NaN gets lost in a maximum, but never in a sum.
  F sum[4] = {Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f)};
  for (size_t start = 0, b = 0; start < n; start += kBlock, ++b) {
    with_block<Load>(x + start, n - start, [&](auto loader, const auto* p) {
      F max[4];
      FASTSAMPLE_UNROLL
      for (int u = 0; u < 4; ++u) max[u] = Vec::set1(-INFINITY);
      // Loads across cache lines would cost half the speed. Aligned ones, and two that overlap them
      // at the ends, do for a maximum.
      constexpr size_t kBytes = kWidth * sizeof *p;
      const size_t head = (0 - reinterpret_cast<uintptr_t>(p)) % kBytes / sizeof *p;
      max[0] = loader.load(p);
      max[1] = loader.load(p + kBlock - kWidth);
      sum[0] = Vec::add(sum[0], max[0]);
      sum[1] = Vec::add(sum[1], max[1]);
      FASTSAMPLE_UNROLL
      for (int i = 0; i < kVectors - 1; ++i) {
        const F v = loader.load(p + head + i * kWidth);
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

// Integer weights of a block summed, all of them and (kCut) those of values >= tau.
template <bool kCut, class Load>
inline void block_mass(const typename Load::T* p, Exp2 exp2, int exponent, float tau, int64_t* all,
                       int64_t* at_least) {
  const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale), cut = Vec::set1(tau);
  const F lift = Vec::set1(float(kMantissaBits - exponent));
  I sum[kUnroll], sum_cut[kUnroll];
  FASTSAMPLE_UNROLL
  for (int u = 0; u < kUnroll; ++u) sum[u] = sum_cut[u] = Vec::zero();
  for (int i = 0; i < kVectors; i += kUnroll) {
    F x[kUnroll], w[kUnroll];
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kUnroll; ++u) x[u] = Load::load(p + (i + u) * kWidth);
    exp2_lifted(x, max, scale, lift, w);
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      const I q = Vec::to_int(w[u]);
      sum[u] = Vec::addi(sum[u], q);
      if (kCut) sum_cut[u] = Vec::add_ge(sum_cut[u], q, x[u], cut);
    }
  }
  const int shift = kUnitBits - kMantissaBits + exponent;
  *all = int64_t(Vec::hsum(sum) << shift);
  *at_least = kCut ? int64_t(Vec::hsum(sum_cut) << shift) : 0;
}

// The same for a block of at most two different values, as masks and coarse logits give them:
// counts instead of exponentials. Says whether the block is one. `high` is its maximum.
template <class Load>
inline bool block_mass_of_two(const typename Load::T* p, Exp2 exp2, int exponent, float tau,
                              float high, int64_t* all, int64_t* at_least) {
  // Out of three values two are equal then: enough to let a random block go.
  if (!((p[0] == p[1]) | (p[1] == p[2]) | (p[0] == p[2]))) return false;
  const float low = Vec::hmin(Load::load(p));  // or a third value, found out below
  const F from = Vec::set1(high), to = Vec::set1(low);
  const I one = Vec::to_int(Vec::set1(1.0f));
  I high_count[kUnroll], low_count[kUnroll];
  FASTSAMPLE_UNROLL
  for (int u = 0; u < kUnroll; ++u) high_count[u] = low_count[u] = Vec::zero();
  for (int i = 0; i < kVectors; i += kUnroll) {
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      const F v = Load::load(p + (i + u) * kWidth);
      high_count[u] = Vec::add_eq(high_count[u], one, v, from);
      low_count[u] = Vec::add_eq(low_count[u], one, v, to);
    }
  }
  const auto highs = int64_t(Vec::hsum(high_count));
  const int64_t lows = low < high ? int64_t(Vec::hsum(low_count)) : 0;
  if (highs + lows != kBlock) return false;
  const F x[2] = {from, to};
  F w[2];
  exp2_lifted(x, Vec::set1(exp2.max), Vec::set1(exp2.scale),
              Vec::set1(float(kMantissaBits - exponent)), w);
  const int shift = kUnitBits - kMantissaBits + exponent;
  const int64_t high_mass = (highs * Vec::first(Vec::to_int(w[0]))) << shift;
  const int64_t low_mass = (lows * Vec::first(Vec::to_int(w[1]))) << shift;
  *all = high_mass + low_mass;
  *at_least = (high >= tau ? high_mass : 0) + (low >= tau ? low_mass : 0);
  return true;
}

template <class Load>
FASTSAMPLE_FLATTEN void mass(const void* row, size_t n, const float* block_max, Exp2 exp2,
                             float tau, int64_t* all, int64_t* at_least) {
  const auto* x = static_cast<const typename Load::T*>(row);
  const size_t blocks = (n + kBlock - 1) / kBlock;
  constexpr size_t kBatch = 64;
  int exponent[kBatch];  // for a batch of blocks at a time: off the path of the vector work
  for (size_t b = 0; b < blocks; ++b) {
    if (b % kBatch == 0)
      for (size_t i = b; i < blocks && i < b + kBatch; ++i)
        exponent[i - b] = block_exponent(block_max[i], exp2);
    int64_t ignored;
    int64_t* all_b = all ? all + b : &ignored;
    *all_b = at_least[b] = 0;
    const bool light = !((block_max[b] - exp2.max) * exp2.scale > kLightest);
    if (light || (!all && block_max[b] < tau)) continue;
    with_block<Load>(x + b * kBlock, n - b * kBlock, [&](auto loader, const auto* p) {
      using L = decltype(loader);
      const int e = exponent[b % kBatch];
      if (block_mass_of_two<L>(p, exp2, e, tau, block_max[b], all_b, at_least + b)) return;
      if (block_max[b] < tau)
        block_mass<false, L>(p, exp2, e, tau, all_b, at_least + b);
      else
        block_mass<true, L>(p, exp2, e, tau, all_b, at_least + b);
    });
  }
}

template <class Load>
FASTSAMPLE_FLATTEN void within(const void* block, size_t n, float low, float high,
                               uint64_t bits[kBlock / 64]) {
  const F from = Vec::set1(low), to = Vec::set1(high);
  with_block<Load>(static_cast<const typename Load::T*>(block), n, [&](auto loader, const auto* p) {
    constexpr int kPerWord = 64 / kWidth;
    for (int word = 0; word < kBlock / 64; ++word) {
      uint64_t w = 0;
      FASTSAMPLE_UNROLL
      for (int i = 0; i < kPerWord; ++i) {
        const F v = loader.load(p + (word * kPerWord + i) * kWidth);
        w |= uint64_t(Vec::mask_within(v, from, to)) << (i * kWidth);
      }
      bits[word] = w;
    }
  });
}

template <class Load>
FASTSAMPLE_FLATTEN void load(const void* block, size_t n, float out[kBlock]) {
  with_block<Load>(static_cast<const typename Load::T*>(block), n, [&](auto loader, const auto* p) {
    for (int i = 0; i < kBlock; i += kWidth) Vec::store(out + i, loader.load(p + i));
  });
}

void weigh(const float* x, size_t n, Exp2 exp2, const int32_t* shift, int64_t* weight) {
  const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale);
  for (size_t i = 0; i < n; i += kWidth) {
    const I s = Vec::loadi(shift + i);
    const F lift = Vec::sub(Vec::set1(float(kUnitBits)), Vec::to_float(s));
    const F values[1] = {Vec::load(x + i)};
    F w[1];
    exp2_lifted(values, max, scale, lift, w);
    Vec::store_shifted(weight + i, Vec::to_int(w[0]), s);
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
  for (; i + kWidth <= n; i += kWidth) sum = Vec::add64_ge(sum, weight + i, Vec::load(x + i), cut);
  int64_t total = Vec::hsum64(sum);
  for (; i < n; ++i)
    if (x[i] >= tau) total += weight[i];
  return total;
}

template <class Load>
constexpr RowKernels row_kernels() {
  return {scan<Load>, mass<Load>, within<Load>, load<Load>};
}

}  // namespace

// Constant-initialised: code of this file must not run before the CPU was asked.
extern const Kernels kernels;
constexpr Kernels kernels = {
    FASTSAMPLE_NAME(FASTSAMPLE_ISA),
    {row_kernels<LoadF32>(), row_kernels<LoadF16>(), row_kernels<LoadBF16>(),
     row_kernels<LoadF64>()},
    weigh,
    count_at_least,
    mass_at_least,
};

}  // namespace FASTSAMPLE_ISA
}  // namespace fastsample
