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
    float* to = !out ? nullptr : left < size_t(kBlock) ? rest : out + start;
    for (int i = 0; i < kBlock; i += 16) {
      FASTSAMPLE_UNROLL
      for (int turn = 0; turn < kTurns; ++turn) {
        const int at = i + turn * kWidth;
        body(turn, Type::load(p + at), to ? to + at : to);
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
    if (to) Vec::store(to, w);
    Vec::add_to(sum + turn * kPerF, w);
  };
  for_row<Type>(row, out, add);
  double lane[16];
  for (int i = 0; i < kVectorsOfD; ++i) Vec::stored(lane + i * Vec::kDoubles, sum[i]);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
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
