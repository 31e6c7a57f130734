// The primitives of kernels.h, written once against the vector vocabulary `Vec` of vec_*.h.
// Everything lives in an anonymous namespace: a weak symbol compiled for one instruction set could
// be picked by the linker for all of them.

#if !defined(FASTSAMPLE_UNROLL)
#if defined(__clang__)
#define FASTSAMPLE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FASTSAMPLE_UNROLL _Pragma("GCC unroll 64")
#else
#define FASTSAMPLE_UNROLL
#endif
#endif

#if defined(__GNUC__)  // and Clang
#define FASTSAMPLE_FLATTEN __attribute__((flatten))
#define FASTSAMPLE_NOINLINE __attribute__((noinline))
#else
#define FASTSAMPLE_FLATTEN
#define FASTSAMPLE_NOINLINE
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
// Accumulators of weights: as few as hold them, for there are not enough registers.
constexpr int kUnroll = Vec::kUnroll;
static_assert(kVectors / kUnroll <= 16, "kMantissaBits allows 16 weights in a 32-bit lane");

// How a row's elements become float32, and the element that is -inf.
struct F32 {
  using T = float;
  static constexpr T kMinusInf = -INFINITY;
  static F load(const T* p) { return Vec::load(p); }
  static F load_any(const T* p, int i) { return load(p + i * kWidth); }
};
struct F64 {
  using T = double;
  static constexpr T kMinusInf = -INFINITY;
  static F load(const T* p) { return Vec::load_f64(p); }
  static F load_any(const T* p, int i) { return load(p + i * kWidth); }
};
struct F16 {
  using T = uint16_t;
  static constexpr T kMinusInf = 0xfc00;
  static F load(const T* p) { return Vec::load_f16(p); }
  static F load_any(const T* p, int i) { return load(p + i * kWidth); }
};
struct BF16 {
  using T = uint16_t;
  static constexpr T kMinusInf = 0xff80;
  static F load(const T* p) { return Vec::load_bf16(p); }
  // Two vectors out of the even and the odd places of as many elements: cheaper than in order.
  static F load_any(const T* p, int i) {
    const I pairs = Vec::loadi(p + (i & ~1) * kWidth);
    return Vec::as_float(i & 1 ? Vec::high_halves(pairs) : Vec::low_halves(pairs));
  }
};

// A full block: the row's own, or a padded copy of its tail.
template <class Type>
inline const typename Type::T* whole(const typename Type::T* block, size_t left,
                                     typename Type::T padded[kBlock]) {
  if (left >= size_t(kBlock)) return block;
  for (size_t i = 0; i < size_t(kBlock); ++i) padded[i] = i < left ? block[i] : Type::kMinusInf;
  return padded;
}

// A vector of a block, or the last of a short one, padded: less than a padded copy of the block.
template <class Type>
inline F load_some(const typename Type::T* p, size_t left) {
  if (left >= size_t(kWidth)) return Type::load(p);
  typename Type::T some[kWidth];
  for (size_t i = 0; i < size_t(kWidth); ++i) some[i] = i < left ? p[i] : Type::kMinusInf;
  return Type::load(some);
}
template <>
inline F load_some<F32>(const float* p, size_t left) {
  return left >= size_t(kWidth) ? Vec::load(p) : Vec::load_first(p, left, Vec::set1(-INFINITY));
}

// 2^r for r in [0, 1), by falling degree: near minimax in ULP with the constant term held at
// exactly 1, so that the maximum weighs exactly 1. At most 3 ULP off in float32, and never above 2.
// Of the polynomials that are, one whose errors let sums of round probabilities reach what they
// are: weights that are a little too small leave the maximum a little more of the total.
constexpr float kPolynomial[] = {1.87812839e-03f, 8.99009965e-03f, 5.58225848e-02f,
                                 2.40157411e-01f, 6.93151534e-01f, 1.0f};
constexpr int kDegree = 5;

// The same times 2^(1 + lift), which is exact, for every lift that a block may have.
struct LiftedPolynomials {
  float of_lift[kUnitBits - kMantissaBits + 1][kDegree + 1];
  constexpr LiftedPolynomials() : of_lift() {
    for (int i = 0; i <= kUnitBits - kMantissaBits; ++i)
      for (int k = 0; k <= kDegree; ++k)
        of_lift[i][k] = kPolynomial[k] * float(uint64_t(1) << (kMantissaBits + 1 + i));
  }
};
constexpr LiftedPolynomials kLifted;

// log2_of_half, in step, for x <= max.
inline F log2_of_half(F x, F max, F scale) {
  return Vec::clamp_low(Vec::fma(Vec::sub(x, max), scale, Vec::set1(-1.0f)));
}

// The weight of x times 2^lift.
inline F exp2_lifted(F x, F max, F scale, F lift) {
  const F y = log2_of_half(x, max, scale), n = Vec::floor(y), r = Vec::sub(y, n);
  F w = Vec::set1(kPolynomial[0]);
  for (int k = 1; k <= kDegree; ++k) w = Vec::fma(w, r, Vec::set1(kPolynomial[k]));
  return Vec::ldexp(w, Vec::add(n, Vec::add(lift, Vec::set1(1.0f))));
}

// How many elements of a block are before the first place at which a vector of `width` is aligned.
template <class T>
inline size_t places_before_aligned(const T* block, int width) {
  return (0 - reinterpret_cast<uintptr_t>(block)) % (size_t(width) * sizeof(T)) / sizeof(T);
}

// Calls body(i, place, vector) with vectors of `width` elements that cover a block, and the place
// of the first: loads across cache lines would cost half the speed, so they are aligned; the last
// two, the block's ends, overlap them.
template <class T, class Load, class Body>
inline void for_aligned(const T* block, int width, Load load, Body body) {
  const int vectors = kBlock / width;
  const size_t head = places_before_aligned(block, width);
  const auto at = [&](int i, size_t place) { body(i, place, load(block + place)); };
  FASTSAMPLE_UNROLL
  for (int i = 0; i < vectors - 1; ++i) at(i, head + size_t(i * width));
  at(vectors - 1, 0);
  at(vectors, size_t(kBlock - width));
}

// `seen` makes a vector of a block, from a place on, what is scanned. Of each block, kLanes maxima
// are written unless their place is null: those of lanes without the ends.
template <class Type, class Seen>
inline ScanResult scan_as(const void* row, size_t n, float* block_max, float* lane_max, Seen seen) {
  constexpr int kVectorsOfLanes = kLanes / kWidth;
  constexpr int kMaxima = kVectorsOfLanes > 4 ? kVectorsOfLanes : 4;
  const auto* x = static_cast<const typename Type::T*>(row);
  float row_max = -INFINITY, lowest_max = INFINITY;
  // A NaN gets lost in a maximum, but never in a sum.
  F sum[4] = {Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f), Vec::set1(0.0f)};
  for (size_t start = 0, b = 0; start < n; start += kBlock, ++b) {
    F ends = Vec::set1(-INFINITY), max[kMaxima];
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kMaxima; ++u) max[u] = ends;
    const auto add = [&](int i, size_t place, F own) {
      const F v = seen(b, place, own);
      F& most = i < kVectors - 1 ? max[i % kMaxima] : ends;
      most = Vec::max(most, v);
      sum[i % 4] = Vec::add(sum[i % 4], v);
    };
    const size_t left = n - start;
    if (left >= size_t(kBlock))
      for_aligned(x + start, kWidth, Type::load, add);
    else
      for (size_t i = 0; i < left; i += kWidth) add(0, i, load_some<Type>(x + start + i, left - i));
    FASTSAMPLE_UNROLL
    for (int u = kVectorsOfLanes; u < kMaxima; ++u)
      max[u % kVectorsOfLanes] = Vec::max(max[u % kVectorsOfLanes], max[u]);
    FASTSAMPLE_UNROLL
    for (int u = 0; u < kVectorsOfLanes; ++u) {
      if (lane_max) Vec::store(lane_max + b * kLanes + u * kWidth, max[u]);
      ends = Vec::max(ends, max[u]);
    }
    block_max[b] = Vec::hmax(ends);
    if (block_max[b] > row_max) row_max = block_max[b];
    if (block_max[b] < lowest_max) lowest_max = block_max[b];
  }
  const F total = Vec::add(Vec::add(sum[0], sum[1]), Vec::add(sum[2], sum[3]));
  return {row_max, lowest_max, Vec::any_nan(total)};
}

template <class Type>
FASTSAMPLE_FLATTEN ScanResult scan(const void* row, size_t n, float* block_max) {
  return scan_as<Type>(row, n, block_max, nullptr, [](size_t, size_t, F own) { return own; });
}

template <class Type>
FASTSAMPLE_FLATTEN ScanResult scan_lanes(const void* row, size_t n, float* block_max,
                                         float* lane_max) {
  return scan_as<Type>(row, n, block_max, lane_max, [](size_t, size_t, F own) { return own; });
}

// The same for the two types of 16 bits, as integers: sign and magnitude. Of those without a sign
// the largest is the largest integer; of those with one alone, the smallest without its sign. A NaN
// lies beyond the infinity of its sign.
template <class Type>
FASTSAMPLE_FLATTEN ScanResult scan_halves(const void* row, size_t n, float* block_max) {
  using S = Vec::S;
  const auto* x = static_cast<const uint16_t*>(row);
  const size_t blocks = (n + kBlock - 1) / kBlock;
  constexpr int kPlusInf = Type::kMinusInf & 0x7fff;
  S highest = Vec::set1s(0);
  bool nan = false;
  F row_max = Vec::set1(-INFINITY), lowest_max = Vec::set1(INFINITY);
  alignas(64) uint16_t padded[kBlock];
  for (size_t first = 0; first < blocks; first += kWidth) {
    const size_t count = blocks - first < size_t(kWidth) ? blocks - first : size_t(kWidth);
    uint16_t maxima[kWidth];  // turned into floats as a vector
    for (size_t i = 0; i < count; ++i) {
      const size_t start = (first + i) * kBlock;
      const auto* p = whole<Type>(x + start, n - start, padded);
      S max[2] = {Vec::set1s(-0x8000), Vec::set1s(-0x8000)};
      for_aligned(p, Vec::kHalves, Vec::loads, [&](int k, size_t, S v) {
        max[k % 2] = Vec::maxs(max[k % 2], v);
        highest = Vec::maxu(highest, v);
      });
      int largest = Vec::hmaxs(Vec::maxs(max[0], max[1]));
      nan |= largest > kPlusInf;
      if (largest < 0) {
        S min = Vec::set1s(-1);
        for (int k = 0; k < kBlock; k += Vec::kHalves) min = Vec::minu(min, Vec::loads(p + k));
        largest = Vec::hminu(min);
      }
      maxima[i] = uint16_t(largest);
    }
    for (size_t i = count; i < size_t(kWidth); ++i) maxima[i] = maxima[0];
    const F values = Type::load(maxima);
    row_max = Vec::max(row_max, values);
    lowest_max = Vec::min(lowest_max, values);
    Vec::store(block_max + first, values);
  }
  return {Vec::hmax(row_max), Vec::hmin(lowest_max),
          nan || Vec::hmaxu(highest) > int(Type::kMinusInf)};
}

#include "mass.inl"

// Writes the ids that are marked in several blocks, of which that numbered i begins with id
// first(i). Which words have a bit is a list first: mostly they have none, and whether is a
// surprise.
template <class First>
inline size_t write_marked(const Marks* marks, size_t count, First first, int32_t* ids) {
  constexpr size_t kBlocks = 16;  // at a time
  size_t size = 0;
  for (size_t start = 0; start < count; start += kBlocks) {
    const size_t end = count - start < kBlocks ? count : start + kBlocks;
    int32_t place[kBlocks * Marks::kWords + kSlack];
    const size_t found =
        Vec::write_nonzero(marks[start].word, (end - start) * Marks::kWords, place);
    for (size_t i = 0; i < found; ++i) {
      const size_t b = start + unsigned(place[i]) / Marks::kWords;
      const int j = unsigned(place[i]) % Marks::kWords;
      size += Vec::write_bits(marks[b].word[j], first(b) + 64 * j, ids + size);
    }
  }
  return size;
}

// The elements at `ids` as float32; that of id `first` is in place 0.
template <class Type>
inline void gather(const typename Type::T* row, size_t first, const int32_t* ids, size_t n,
                   float* x) {
  for (size_t i = 0; i < n; i += kBlock) {
    // Many at a time: a vector loaded right behind its scalar stores would wait for them.
    const size_t count = n - i < size_t(kBlock) ? n - i : size_t(kBlock);
    typename Type::T elements[kBlock];
    for (size_t k = 0; k < count; ++k) elements[k] = row[size_t(ids[i + k]) - first];
    for (size_t k = count; k % kWidth; ++k) elements[k] = Type::kMinusInf;
    for (size_t k = 0; k < count; k += kWidth) Vec::store(x + i + k, Type::load(elements + k));
  }
}
template <>
inline void gather<F32>(const float* row, size_t first, const int32_t* ids, size_t n, float* x) {
  for (size_t i = 0; i < n; ++i) x[i] = row[size_t(ids[i]) - first];
}

template <class Type>
FASTSAMPLE_FLATTEN size_t collect_marked(const Scanned& row, const Marks* marks, size_t first,
                                         size_t last, int32_t* ids, float* x) {
  const size_t size = write_marked(
      marks + first, last - first,
      [&](size_t i) { return int32_t(row.first + (first + i) * kBlock); }, ids);
  gather<Type>(static_cast<const typename Type::T*>(row.data), row.first, ids, size, x);
  return size;
}

constexpr int32_t kPlaces[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static_assert(kWidth <= int(sizeof kPlaces / sizeof *kPlaces), "a place for each lane");

// Those of a short block in [low, high), which mostly are not a few of many.
template <class Type>
inline size_t collect_short(const typename Type::T* p, size_t left, int32_t first, F low, F high,
                            int32_t* ids, float* x) {
  size_t size = 0;
  for (size_t i = 0; i < left; i += kWidth) {
    const F v = load_some<Type>(p + i, left - i);
    const uint32_t mask = Vec::mask_within(v, low, high);
    float values[kWidth];
    int32_t places[kWidth];
    Vec::store(values, v);
    // By way of float32, which has all ids: FS_MAX_VOCAB is 2^22.
    Vec::storei(places,
                Vec::addi(Vec::loadi(kPlaces), Vec::to_int(Vec::set1(float(first + int32_t(i))))));
    Vec::keep(places, mask, ids + size);
    size += Vec::keep(values, mask, x + size);
  }
  return size;
}

template <class Type>
FASTSAMPLE_FLATTEN size_t collect(const Scanned& row, const uint32_t* allowed,
                                  const int32_t* blocks, size_t count, float low, float high,
                                  int32_t* ids, float* x) {
  using T = typename Type::T;
  const auto* values = static_cast<const T*>(row.data);
  const F from = Vec::set1(low), to = Vec::set1(high);
  const bool bounded = high < INFINITY;
  size_t size = 0;
  alignas(64) T padded[kBlock];
  constexpr size_t kBlocks = 16;  // at a time
  Marks marks[kBlocks];
  const size_t last = count ? size_t(blocks[count - 1]) * kBlock - row.first : 0;
  const bool ends_short = count && !allowed && row.n - last < size_t(kBlock);
  if (ends_short) --count;
  for (size_t i = 0; i < count; i += kBlocks) {
    const size_t here = count - i < kBlocks ? count - i : kBlocks;
    for (size_t k = 0; k < here; ++k) {
      const size_t id = size_t(blocks[i + k]) * kBlock, start = id - row.first;
      const auto* p = whole<Type>(values + start, row.n - start, padded);
      if (bounded)
        mark<Type>(p, &marks[k], [&](F v) { return Vec::mask_within(v, from, to); });
      else
        mark<Type>(p, &marks[k], [&](F v) { return Vec::mask_ge(v, from); });
      if (!allowed) continue;
      const uint32_t* words = allowed + id / 32;
      for (int j = 0; j < Marks::kWords; ++j)
        marks[k].word[j] &= words[2 * j] | uint64_t(words[2 * j + 1]) << 32;
    }
    size += write_marked(marks, here, [&](size_t k) { return blocks[i + k] * kBlock; }, ids + size);
  }
  gather<Type>(values, row.first, ids, size, x);
  if (!ends_short) return size;
  const int32_t id = blocks[count] * kBlock;
  return size +
         collect_short<Type>(values + last, row.n - last, id, from, to, ids + size, x + size);
}

template <class Type>
FASTSAMPLE_FLATTEN float sample(const Scanned& row, size_t pieces, float* out) {
  const auto* x = static_cast<const typename Type::T*>(row.data);
  const size_t n = row.n, blocks = (n + kBlock - 1) / kBlock;
  const double stride = double(blocks) / double(pieces);
  const F minus_inf = Vec::set1(-INFINITY), plus_inf = Vec::set1(INFINITY);
  F lowest = plus_inf;
  alignas(64) typename Type::T padded[kBlock];
  for (size_t i = 0; i < pieces; ++i) {
    const auto b = size_t((double(i) + 0.5) * stride);
    const auto* p = whole<Type>(x + b * kBlock, n - b * kBlock, padded) + i * kSampled % kBlock;
    const F max = Vec::set1(row.block_max[b]);
    FASTSAMPLE_UNROLL
    for (int j = 0; j < kSampled; j += kWidth) {
      const F own = Type::load(p + j);
      // What is banned or forbidden may be NaN, which must not get into a guess.
      const F v = Vec::where(Vec::mask_within(own, minus_inf, max), own, minus_inf);
      lowest = Vec::min(lowest, Vec::replace(v, minus_inf, plus_inf));
      Vec::store(out + i * kSampled + j, v);
    }
  }
  return Vec::hmin(lowest);
}

template <class Type>
FASTSAMPLE_FLATTEN void load(const void* block, size_t n, float out[kBlock]) {
  alignas(64) typename Type::T padded[kBlock];
  const auto* p = whole<Type>(static_cast<const typename Type::T*>(block), n, padded);
  for (int i = 0; i < kBlock; i += kWidth) Vec::store(out + i, Type::load(p + i));
}

#include "lists.inl"
#include "masks.inl"
#include "softmax.inl"

using Scan = ScanResult (*)(const void*, size_t, float*);

template <class Type>
constexpr RowKernels row_kernels(Scan scan_row) {
  return {scan_row,         scan_lanes<Type>,     scan_allowed<Type>,   list_allowed<Type>,
          mass<Type>,       entropy<Type>,        squares<Type>,        moments<Type>,
          count<Type>,      mass_and_marks<Type>, collect_marked<Type>, collect<Type>,
          sample<Type>,     load<Type>,           exponentials<Type>,   add_exponentials<Type>,
          logarithms<Type>, quotients<Type>};
}

}  // namespace

// Constant-initialised: code of this file must not run before the CPU was asked.
extern const Kernels kernels;
constexpr Kernels kernels = {
    FASTSAMPLE_NAME(FASTSAMPLE_ISA),
    {row_kernels<F32>(scan<F32>), row_kernels<F16>(scan_halves<F16>),
     row_kernels<BF16>(scan_halves<BF16>), row_kernels<F64>(scan<F64>)},
    weigh,
    weigh_entropy,
    weigh_squares,
    count_bins,
    take_mask,
    list_words,
    count_allowed,
    clear_forbidden,
    places_within,
    count_at_least,
    kth_of_few,
    reaching_of_few,
    mass_at_least,
    largest_below,
    find,
    clear_weights,
    keep,
    reweigh,
    exponentials_of_list,
    multiply,
};

}  // namespace FASTSAMPLE_ISA
}  // namespace fastsample
