// The primitives of kernels.h that write a number for each value of a row; a part of kernels.inl.

// So many vectors hold the 16 values that are summed apart.
constexpr int kTurns = 16 / kWidth;

// Calls body(i % kTurns, vector i, where to write as many results) with all of a row. Results of
// its padding are lost.
template <class Type, class Body>
inline void for_row(const Scanned& row, float* out, Body body) {
  const auto* x = static_cast<const typename Type::T*>(row.data);
  typename Type::T padded[kBlock];
  float rest[kBlock];
  for (size_t start = 0; start < row.n; start += kBlock) {
    const size_t left = row.n - start;
    const auto* p = whole<Type>(x + start, left, padded);
    float* to = left < size_t(kBlock) ? rest : out + start;
    for (int i = 0; i < kBlock; i += 16) {
      FASTSAMPLE_UNROLL
      for (int turn = 0; turn < kTurns; ++turn) {
        const int at = i + turn * kWidth;
        body(turn, Type::load(p + at), to + at);
      }
    }
    if (to == rest) memcpy(out + start, rest, left * sizeof(float));
  }
}

template <class Type>
FASTSAMPLE_FLATTEN double exponentials(const Scanned& row, double max, double scale, float* out) {
  constexpr int kVectorsOfD = 16 / Vec::kDoubles, kPerF = kWidth / Vec::kDoubles;
  const F lift = Vec::set1(float(kLift));
  Vec::D sum[kVectorsOfD];
  FASTSAMPLE_UNROLL
  for (int i = 0; i < kVectorsOfD; ++i) sum[i] = Vec::set1d(0.0);
  const auto add = [&](int turn, F v, float* to) {
    F n, r;
    Vec::split(v, Vec::set1d(max), Vec::set1d(scale), n, r);
    F w = Vec::set1(kPolynomial[0]);
    FASTSAMPLE_UNROLL
    for (int k = 1; k <= kDegree; ++k) w = Vec::fma(w, r, Vec::set1(kPolynomial[k]));
    w = Vec::ldexp(w, Vec::add(n, lift));
    Vec::store(to, w);
    Vec::add_to(sum + turn * kPerF, w);
  };
  for_row<Type>(row, out, add);
  double lane[16];
  for (int i = 0; i < kVectorsOfD; ++i) Vec::stored(lane + i * Vec::kDoubles, sum[i]);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

// An Exponent, in every lane; kLarge where its base is not 0.
template <bool kLarge>
struct Exponents {
  F base, scale, scale_low, minus_high, minus_low, cut, max;
  Exponents(const Exponent& e, float tau)
      : base(Vec::set1(e.base)),
        scale(Vec::set1(e.scale)),
        scale_low(Vec::set1(e.scale_low)),
        minus_high(Vec::set1(-e.high)),
        minus_low(Vec::set1(-e.low)),
        cut(Vec::set1(tau)),
        max(Vec::set1(e.max)) {}

  F of(F x) const {
    const F d = kLarge ? Vec::sub(x, base) : x;
    const F n = Vec::floor(Vec::clamp_low(Vec::fma(d, scale, minus_high)));
    const F r =
        Vec::add(Vec::fma(d, scale, Vec::sub(minus_high, n)), Vec::fma(d, scale_low, minus_low));
    F w = Vec::set1(kPolynomial[0]);
    FASTSAMPLE_UNROLL
    for (int k = 1; k <= kDegree; ++k) w = Vec::fma(w, r, Vec::set1(kPolynomial[k]));
    return Vec::ldexp_ge(w, n, x, cut);
  }
  F without_max(F x) const { return Vec::replace(x, max, Vec::set1(-INFINITY)); }
};

// The exponentials of a block that share lanes, added up: neighbours, then pairs, and so on.
template <class Type, bool kLarge>
inline F sum_of_block(const typename Type::T* block, const Exponents<kLarge>& exponents) {
  const auto at = [&](int i) { return exponents.of(Type::load(block + i * kLanes)); };
  const auto four = [&](int i) {
    return Vec::add(Vec::add(at(i), at(i + 1)), Vec::add(at(i + 2), at(i + 3)));
  };
  static_assert(kBlock / kLanes == 16, "four times four");
  return Vec::add(Vec::add(four(0), four(4)), Vec::add(four(8), four(12)));
}

template <class Type, bool kLarge>
inline void add_blocks(const Scanned& row, const Exponent& exponent, float tau, double* lanes) {
  constexpr int kVectorsOfD = kLanes / Vec::kDoubles, kPerF = kWidth / Vec::kDoubles;
  const Exponents<kLarge> exponents(exponent, tau);
  const auto* x = static_cast<const typename Type::T*>(row.data);
  Vec::D sum[kVectorsOfD];
  FASTSAMPLE_UNROLL
  for (int i = 0; i < kVectorsOfD; ++i) sum[i] = Vec::loadd(lanes + i * Vec::kDoubles);
  typename Type::T padded[kBlock];
  for (size_t start = 0; start < row.n; start += kBlock) {
    const float top = row.block_max[start / kBlock];
    if (top < tau) continue;
    const auto* block = whole<Type>(x + start, row.n - start, padded);
    if (top == exponent.max) {
      float rest[kBlock];
      for (int i = 0; i < kBlock; i += kWidth)
        Vec::store(rest + i, exponents.without_max(Type::load(block + i)));
      for (int turn = 0; turn < kTurns; ++turn)
        Vec::add_to(sum + turn * kPerF, sum_of_block<F32>(rest + turn * kWidth, exponents));
      continue;
    }
    FASTSAMPLE_UNROLL
    for (int turn = 0; turn < kTurns; ++turn)
      Vec::add_to(sum + turn * kPerF, sum_of_block<Type>(block + turn * kWidth, exponents));
  }
  for (int i = 0; i < kVectorsOfD; ++i) Vec::stored(lanes + i * Vec::kDoubles, sum[i]);
}

template <class Type>
FASTSAMPLE_FLATTEN void add_exponentials(const Scanned& row, const Exponent& exponent, float tau,
                                         double* lanes) {
  if (exponent.base == 0.0f) return add_blocks<Type, false>(row, exponent, tau, lanes);
  add_blocks<Type, true>(row, exponent, tau, lanes);
}

void exponentials_of_list(const float* x, size_t n, const Exponent& exponent, float* out) {
  const Exponents<true> exponents(exponent, exponent.least);  // a base of 0 changes nothing
  for (size_t i = 0; i < n; i += kWidth)
    Vec::store(out + i, exponents.of(exponents.without_max(Vec::load(x + i))));
}

template <class Type>
FASTSAMPLE_FLATTEN void logarithms(const Scanned& row, double max, double scale, double shift,
                                   float* out) {
  for_row<Type>(row, out, [&](int, F v, float* to) {
    Vec::store(to, Vec::affine(v, Vec::set1d(max), Vec::set1d(scale), Vec::set1d(shift)));
  });
}

// Of blocks first to last - 1.
template <class Type>
FASTSAMPLE_FLATTEN void quotients(const Scanned& row, size_t first, size_t last, Exp2 exp2,
                                  float tau, double total, float* out) {
  const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale), cut = Vec::set1(tau);
  for (size_t b = first; b < last; ++b) {
    const size_t at = b * kBlock, left = row.n - at;
    const size_t count = left < size_t(kBlock) ? left : size_t(kBlock);
    if (row.block_max[b] < tau) {
      memset(out + at, 0, count * sizeof(float));
      continue;
    }
    const int exponent = block_exponent(row.block_max[b], exp2);
    const F lift = Vec::set1(float(kMantissaBits - exponent));
    // A power of two times the total: exact, and so is what is divided by it.
    const Vec::D divisor =
        Vec::set1d(total / double(int64_t(1) << (kUnitBits - kMantissaBits + exponent)));
    const auto* x = static_cast<const typename Type::T*>(row.data) + at;
    const Scanned block = {x, count, row.block_max + b, 0};
    for_row<Type>(block, out + at, [&](int, F v, float* to) {
      const I q = Vec::to_int(exp2_lifted(v, max, scale, lift));
      Vec::store(to, Vec::quotient(Vec::add_ge(Vec::zero(), q, v, cut), divisor));
    });
  }
}

void multiply(float* x, size_t n, float factor) {
  const F by = Vec::set1(factor);
  size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) Vec::store(x + i, Vec::mul(Vec::load(x + i), by));
  for (; i < n; ++i) x[i] *= factor;
}
