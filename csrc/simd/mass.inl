// The primitives of kernels.h that weigh a row, block by block; a part of kernels.inl.

// What is done beside summing all weights: those of values >= tau are summed, or marked; or a
// second sum is taken of what each weight gives.
enum Task { kNothing, kSum, kMark, kEntropy, kEntropyAndSum, kSquares };
constexpr bool has_entropy(Task task) { return task == kEntropy || task == kEntropyAndSum; }
constexpr bool has_sum(Task task) { return task == kSum || task == kEntropyAndSum; }

// Of a block: all weights, second terms, and weights of values >= tau.
struct BlockSums {
  int64_t all = 0, second = 0, at_least = 0;
};

// Terms of the second sums, from a weight w that is lifted by kMantissaBits - e, to be rounded to
// integers like it. The entropy's is w times how far its logarithm is below e, never more than 0.54
// of the largest w; y is log2_of_half.
inline F entropy_term(F w, F y, F e_less_one) { return Vec::mul(w, Vec::sub(e_less_one, y)); }
// What is squared is held above what would be a subnormal then, and slow.
inline F square_term(F w, F unit) {
  const F v = Vec::max(w, Vec::set1(0x1p-20f));
  return Vec::mul(Vec::mul(v, v), unit);
}

// The exponent that squares of a block's weights have, as block_exponent is that of weights; and
// what lifts them by kMantissaBits less that.
inline int square_exponent(int e) {
  constexpr int kLowest = kMantissaBits - kUnitBits;
  return 2 * e > kLowest ? 2 * e : kLowest;
}
inline float square_unit(int e) { return ldexpf(1.0f, 2 * e - square_exponent(e) - kMantissaBits); }

// What integers of weights (or second terms) are to be shifted by to be units of 2^-kUnitBits.
inline int unit_shift(int e) { return kUnitBits - kMantissaBits + e; }

// Of integer sums over a block, the second in units.
template <Task kTask>
inline int64_t second_sum(uint64_t second, uint64_t all, int e) {
  if (kTask == kSquares) return int64_t(second << unit_shift(square_exponent(e)));
  if (has_entropy(kTask)) second += all * uint64_t(-e);
  return int64_t(second << unit_shift(e));
}

// Integer weights of a block summed, and what the task asks for: a second sum or marks.
//
// The steps of one group of vectors alternate with those of the next: the chain through a vector is
// longer than what a processor holds ready to run, and would leave half of its units idle.
template <Task kTask, class Type>
inline BlockSums block_mass(const typename Type::T* p, Exp2 exp2, int exponent, float tau,
                            Marks* marks) {
  constexpr int kGroup = Vec::kGroup, kGroups = 16 / kGroup;
  const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale), cut = Vec::set1(tau);
  const F minus_one = Vec::set1(-1.0f);
  F c[kDegree + 1];
  FASTSAMPLE_UNROLL
  for (int k = 0; k <= kDegree; ++k) c[k] = Vec::set1(kLifted.of_lift[-exponent][k]);
  const F of_second = Vec::set1(kTask == kSquares ? square_unit(exponent) : float(exponent - 1));
  I sum[kUnroll], sum_second[kUnroll], sum_reached[kUnroll];
  FASTSAMPLE_UNROLL
  for (int u = 0; u < kUnroll; ++u) sum[u] = sum_second[u] = sum_reached[u] = Vec::zero();

  for (int first = 0; first < kVectors; first += 16) {
    const auto load = [&](int i) {  // marks need to know the places
      return kTask == kMark ? Type::load(p + (first + i) * kWidth) : Type::load_any(p, first + i);
    };
    // Set, although each is written before it is read: GCC 12 with ASan and UBSan takes it wrongly.
    F n[2][kGroup] = {}, r[2][kGroup] = {}, w[kGroup] = {};
    const auto prepare = [&](int step, int group) {
      FASTSAMPLE_UNROLL
      for (int u = 0; u < kGroup; ++u) {
        F &ru = r[group % 2][u], &nu = n[group % 2][u];
        switch (step) {
          case 1: ru = Vec::sub(load(group * kGroup + u), max); break;
          case 2: ru = Vec::clamp_low(Vec::fma(ru, scale, minus_one)); break;
          case 3: nu = Vec::exponent(ru); break;
          case 4: ru = Vec::fraction(ru, nu); break;
        }
      }
    };
    FASTSAMPLE_UNROLL
    for (int step = 1; step <= 4; ++step) prepare(step, 0);
    FASTSAMPLE_UNROLL
    for (int group = 0; group < kGroups; ++group) {
      FASTSAMPLE_UNROLL
      for (int k = 1; k <= kDegree; ++k) {
        FASTSAMPLE_UNROLL
        for (int u = 0; u < kGroup; ++u)
          w[u] = Vec::fma(k == 1 ? c[0] : w[u], r[group % 2][u], c[k]);
        if (group + 1 < kGroups) prepare(k, group + 1);
      }
      FASTSAMPLE_UNROLL
      for (int u = 0; u < kGroup; ++u) {
        const int i = group * kGroup + u;
        const F &ru = r[group % 2][u], &nu = n[group % 2][u];
        const F lifted = Vec::ldexp(w[u], nu);
        const I q = Vec::to_int(lifted);
        I& sum_of = sum_second[i % kUnroll];
        sum[i % kUnroll] = Vec::addi(sum[i % kUnroll], q);
        if (has_sum(kTask))
          sum_reached[i % kUnroll] = Vec::add_ge(sum_reached[i % kUnroll], q, load(i), cut);
        if (has_entropy(kTask)) {
          const F term = entropy_term(lifted, Vec::logarithm(nu, ru), of_second);
          sum_of = Vec::addi(sum_of, Vec::to_int(term));
        }
        if (kTask == kSquares)
          sum_of = Vec::addi(sum_of, Vec::to_int(square_term(lifted, of_second)));
        if (kTask == kMark) Vec::mark(marks, first + i, Vec::mask_ge(load(i), cut));
      }
    }
  }
  const uint64_t whole = Vec::hsum(sum);
  BlockSums sums;
  sums.all = int64_t(whole << unit_shift(exponent));
  if (has_sum(kTask)) sums.at_least = int64_t(Vec::hsum(sum_reached) << unit_shift(exponent));
  if (has_entropy(kTask) || kTask == kSquares)
    sums.second = second_sum<kTask>(Vec::hsum(sum_second), whole, exponent);
  return sums;
}

// Marks the values whose mask(value) is set.
template <class Type, class Mask>
inline void mark(const typename Type::T* p, Marks* marks, Mask mask) {
  FASTSAMPLE_UNROLL
  for (int j = 0; j < Marks::kWords; ++j) {
    uint64_t word = 0;
    FASTSAMPLE_UNROLL
    for (int i = 0; i < 64; i += kWidth) word |= uint64_t(mask(Type::load(p + 64 * j + i))) << i;
    marks->word[j] = word;
  }
}

// What two values weigh in a block of some exponent. Blocks of two values mostly have the same two.
template <Task kTask>
struct Pair {
  float high = 0.0f, low = 0.0f;
  int exponent = 1;  // none has this
  int64_t of_high[2] = {}, of_low[2] = {};

  void weigh(float new_high, float new_low, Exp2 exp2, int new_exponent) {
    if (high == new_high && low == new_low && exponent == new_exponent) return;
    high = new_high, low = new_low, exponent = new_exponent;
    weigh_one(high, exp2, of_high);
    weigh_one(low, exp2, of_low);
  }

 private:
  // The weight, and the second term.
  void weigh_one(float x, Exp2 exp2, int64_t out[2]) const {
    const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale), v = Vec::set1(x);
    const F w = exp2_lifted(v, max, scale, Vec::set1(float(kMantissaBits - exponent)));
    const auto whole = [](F f) { return uint64_t(Vec::first(Vec::to_int(f))); };
    out[0] = int64_t(whole(w) << unit_shift(exponent));
    if (has_entropy(kTask)) {
      const F y = Vec::max(log2_of_half(v, max, scale), Vec::set1(-100.0f));
      const F term = entropy_term(w, y, Vec::set1(float(exponent - 1)));
      out[1] = second_sum<kTask>(whole(term), whole(w), exponent);
    }
    if (kTask == kSquares)
      out[1] =
          second_sum<kTask>(whole(square_term(w, Vec::set1(square_unit(exponent)))), 0, exponent);
  }
};

// The same for a block of at most two different values, as masks and coarse logits give them:
// counts instead of exponentials. Says whether the block is one. `high` is its maximum.
template <Task kTask, class Type>
inline bool block_mass_of_two(const typename Type::T* p, Exp2 exp2, int exponent, float tau,
                              float high, Pair<kTask>& pair, BlockSums& sums) {
  // Out of three of its values two are equal: enough to let a random block go.
  if (!((p[0] == p[1]) | (p[1] == p[2]) | (p[0] == p[2]))) return false;
  const F from = Vec::set1(high);
  alignas(64) float lanes[kWidth];
  Vec::store(lanes, Type::load(p));
  const uint32_t others = Vec::mask_ne(Type::load(p), from);
  const float low = others ? lanes[lowest_bit(others)] : high;  // or there is a third value
  const F to = Vec::set1(low);
  int64_t lows = 0;
  I third[2] = {Vec::zero(), Vec::zero()};  // the bits in which a value is neither
  FASTSAMPLE_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const F v = Type::load_any(p, i);
    lows += Vec::popcount(Vec::mask_ne(v, from));
    third[i % 2] = Vec::or_neither(third[i % 2], v, from, to);
  }
  if (Vec::any_bit(third[0]) || Vec::any_bit(third[1])) return false;
  const int64_t highs = kBlock - lows;
  pair.weigh(high, low, exp2, exponent);
  sums.all = highs * pair.of_high[0] + lows * pair.of_low[0];
  sums.second = highs * pair.of_high[1] + lows * pair.of_low[1];
  sums.at_least =
      (high >= tau ? highs * pair.of_high[0] : 0) + (low >= tau ? lows * pair.of_low[0] : 0);
  return true;
}

// Walks the blocks of a row; `marks` are for kMark alone. Returns how many values are marked.
template <Task kTask, class Type>
inline size_t weigh_row(const Scanned& row, Exp2 exp2, float tau, int64_t* all, int64_t* second,
                        int64_t* at_least, Marks* marks) {
  const auto* x = static_cast<const typename Type::T*>(row.data);
  const float* block_max = row.block_max;
  const size_t n = row.n, blocks = (n + kBlock - 1) / kBlock;
  constexpr size_t kBatch = 64;
  // Of the entropy, lighter weights have more than they have of the mass.
  const float lightest = has_entropy(kTask) ? kLightest - 6.0f : kLightest;
  Pair<kTask> pair;
  int exponent[kBatch];  // for a batch of blocks at a time: off the path of the vector work
  typename Type::T padded[kBlock];
  for (size_t b = 0; b < blocks; ++b) {
    if (b % kBatch == 0)
      for (size_t i = b; i < blocks && i < b + kBatch; ++i)
        exponent[i - b] = block_exponent(block_max[i], exp2);
    BlockSums sums;
    if (kTask == kMark) marks[b] = {};
    const bool light = !((block_max[b] - exp2.max) * exp2.scale > lightest);
    const bool reaches = block_max[b] >= tau;
    if ((!light || (kTask == kMark && reaches)) && (all || reaches)) {
      const auto* p = whole<Type>(x + b * kBlock, n - b * kBlock, padded);
      const int e = exponent[b % kBatch];
      if (block_mass_of_two<kTask, Type>(p, exp2, e, tau, block_max[b], pair, sums)) {
        if (kTask == kMark)
          mark<Type>(p, marks + b, [&](F v) { return Vec::mask_ge(v, Vec::set1(tau)); });
      } else if (reaches) {
        sums = block_mass<kTask, Type>(p, exp2, e, tau, marks + (kTask == kMark ? b : 0));
      } else {
        constexpr Task kRest = has_entropy(kTask)  ? kEntropy
                               : kTask == kSquares ? kSquares
                                                   : kNothing;
        sums = block_mass<kRest, Type>(p, exp2, e, tau, nullptr);
      }
    }
    if (all) all[b] = sums.all;
    if (second) second[b] = sums.second;
    if (at_least) at_least[b] = sums.at_least;
  }
  size_t marked = 0;
  for (size_t b = 0; kTask == kMark && b < blocks; ++b)
    for (uint64_t word : marks[b].word) marked += Vec::popcount(word);
  return marked;
}

template <class Type>
FASTSAMPLE_FLATTEN void mass(const Scanned& row, Exp2 exp2, float tau, int64_t* all,
                             int64_t* at_least) {
  weigh_row<kSum, Type>(row, exp2, tau, all, nullptr, at_least, nullptr);
}

template <class Type>
FASTSAMPLE_FLATTEN size_t mass_and_marks(const Scanned& row, Exp2 exp2, float tau, int64_t* all,
                                         Marks* marks) {
  return weigh_row<kMark, Type>(row, exp2, tau, all, nullptr, nullptr, marks);
}

template <class Type>
FASTSAMPLE_FLATTEN void entropy(const Scanned& row, Exp2 exp2, float tau, int64_t* all,
                                int64_t* entropies, int64_t* at_least) {
  weigh_row<kEntropyAndSum, Type>(row, exp2, tau, all, entropies, at_least, nullptr);
}

template <class Type>
FASTSAMPLE_FLATTEN void squares(const Scanned& row, Exp2 exp2, int64_t* all, int64_t* squares) {
  weigh_row<kSquares, Type>(row, exp2, -INFINITY, all, squares, nullptr, nullptr);
}

template <class Type>
FASTSAMPLE_FLATTEN size_t count(const Scanned& row, float tau) {
  const auto* x = static_cast<const typename Type::T*>(row.data);
  const F cut = Vec::set1(tau);
  size_t total = 0;
  typename Type::T padded[kBlock];
  for (size_t b = 0; b * kBlock < row.n; ++b) {
    if (row.block_max[b] < tau) continue;
    const auto* p = whole<Type>(x + b * kBlock, row.n - b * kBlock, padded);
    unsigned found = 0;
    FASTSAMPLE_UNROLL
    for (int i = 0; i < kVectors; ++i)
      found += Vec::popcount(Vec::mask_ge(Type::load_any(p, i), cut));
    total += found;
  }
  return total;
}

// Adds blocks of a row; where not kAll, what is not there adds nothing and is counted. Returns how
// many these are. With kAll a value that is not there makes a sum infinite.
template <bool kAll, class Type>
inline size_t add_moments(const Scanned& row, size_t first, size_t last, float max,
                          Moments& moments) {
  using D = Vec::D;
  constexpr int kEach = kWidth / Vec::kDoubles, kVectorsOfLanes = Moments::kLanes / Vec::kDoubles;
  const auto* x = static_cast<const typename Type::T*>(row.data);
  const F top = Vec::set1(max), minus_inf = Vec::set1(-INFINITY);
  const D one = Vec::set1d(1.0), minus_top = Vec::set1d(-double(max));
  D sum[kVectorsOfLanes], squares[kVectorsOfLanes];
  FASTSAMPLE_UNROLL
  for (int k = 0; k < kVectorsOfLanes; ++k) {
    sum[k] = Vec::loadd(moments.sum + k * Vec::kDoubles);
    squares[k] = Vec::loadd(moments.squares + k * Vec::kDoubles);
  }
  size_t absent = 0;
  typename Type::T padded[kBlock];
  for (size_t b = first; b < last; ++b) {
    const auto* p = whole<Type>(x + b * kBlock, row.n - b * kBlock, padded);
    for (int i = 0; i < kBlock; i += Moments::kLanes) {
      FASTSAMPLE_UNROLL
      for (int j = 0; j < Moments::kLanes / kWidth; ++j) {
        F v = Type::load(p + i + j * kWidth);
        if (!kAll) {
          absent += Vec::popcount(Vec::mask_eq(v, minus_inf));
          v = Vec::replace(v, minus_inf, top);
        }
        FASTSAMPLE_UNROLL
        for (int k = 0; k < kEach; ++k) {
          // A subtraction by the units that multiply, which have nothing else to do.
          const D d = Vec::add_by_fma(Vec::widen(v, k), one, minus_top);
          sum[j * kEach + k] = Vec::addd(sum[j * kEach + k], d);
          squares[j * kEach + k] = Vec::addd(squares[j * kEach + k], Vec::muld(d, d));
        }
      }
    }
  }
  FASTSAMPLE_UNROLL
  for (int k = 0; k < kVectorsOfLanes; ++k) {
    Vec::stored(moments.sum + k * Vec::kDoubles, sum[k]);
    Vec::stored(moments.squares + k * Vec::kDoubles, squares[k]);
  }
  return absent;
}

template <class Type>
FASTSAMPLE_FLATTEN void moments(const Scanned& row, float max, Moments* moments) {
  const size_t blocks = (row.n + kBlock - 1) / kBlock;
  constexpr size_t kTogether = 32;
  bool all_there = true;  // so far
  for (size_t b = 0; b < blocks; b += kTogether) {
    const size_t end = b + kTogether < blocks ? b + kTogether : blocks;
    moments->count += (end - b) * kBlock;
    if (all_there && end * kBlock <= row.n) {
      Moments added = *moments;
      add_moments<true, Type>(row, b, end, max, added);
      for (double sum : added.sum) all_there &= sum > -INFINITY;
      if (all_there) {
        *moments = added;
        continue;
      }
    }
    moments->count -= add_moments<false, Type>(row, b, end, max, *moments);
  }
}
