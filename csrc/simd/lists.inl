// The primitives of kernels.h that work on lists; a part of kernels.inl.

// The weights of a list, or their second terms, each to the precision of its block.
template <Task kTask>
inline void weigh_list(const float* x, const int32_t* ids, size_t n, const float* block_max,
                       Exp2 exp2, int64_t* out) {
  const F max = Vec::set1(exp2.max), scale = Vec::set1(exp2.scale);
  const F zero = Vec::set1(0.0f), one = Vec::set1(1.0f);
  constexpr int kShift = kUnitBits - kMantissaBits;
  const F mantissa = Vec::set1(float(kMantissaBits)), shift = Vec::set1(float(kShift));
  for (size_t i = 0; i < n; i += kWidth) {
    // block_exponent, in step.
    const F y = log2_of_half(Vec::of_blocks(block_max, Vec::loadi(ids + i)), max, scale);
    const F up = Vec::sub(Vec::set1(-1.0f), Vec::max(y, Vec::set1(float(-kShift - 1))));
    const F e = Vec::sub(zero, Vec::floor(up));
    const F v = Vec::load(x + i);
    const F w = exp2_lifted(v, max, scale, Vec::sub(mantissa, e));
    I term = Vec::to_int(w);
    F places = Vec::add(e, shift);
    if (kTask == kEntropy) {
      const F y_of_x = Vec::max(log2_of_half(v, max, scale), Vec::set1(-100.0f));
      const I rest = Vec::to_int(entropy_term(w, y_of_x, Vec::sub(e, one)));
      term = Vec::addi(Vec::muli(term, Vec::to_int(Vec::sub(zero, e))), rest);
    }
    if (kTask == kSquares) {
      // square_exponent and square_unit, in step.
      const F twice = Vec::add(e, e), e2 = Vec::max(twice, Vec::sub(zero, shift));
      const F unit = Vec::ldexp(one, Vec::sub(Vec::sub(twice, e2), mantissa));
      term = Vec::to_int(square_term(w, unit));
      places = Vec::add(e2, shift);
    }
    Vec::store_shifted(out + i, term, Vec::to_int(places));
  }
}
void weigh(const float* x, const int32_t* ids, size_t n, const float* block_max, Exp2 exp2,
           int64_t* weight) {
  weigh_list<kNothing>(x, ids, n, block_max, exp2, weight);
}
void weigh_entropy(const float* x, const int32_t* ids, size_t n, const float* block_max, Exp2 exp2,
                   int64_t* entropy) {
  weigh_list<kEntropy>(x, ids, n, block_max, exp2, entropy);
}
void weigh_squares(const float* x, const int32_t* ids, size_t n, const float* block_max, Exp2 exp2,
                   int64_t* squares) {
  weigh_list<kSquares>(x, ids, n, block_max, exp2, squares);
}

void count_bins(const float* x, size_t n, float low, float per_unit, uint32_t (*counters)[4],
                float* any) {
  const F from = Vec::set1(low), scale = Vec::set1(per_unit);
  const F first = Vec::set1(0.0f), last = Vec::set1(float(kBins - 1));
  for (size_t start = 0; start < n; start += kBlock) {
    int32_t bin[kBlock];
    const int count = n - start < size_t(kBlock) ? int(n - start) : kBlock;
    for (int i = 0; i < count; i += kWidth) {
      // The rest of the last vector is not looked at.
      alignas(64) float lanes[kWidth] = {};
      if (count - i < kWidth) memcpy(lanes, x + start + i, size_t(count - i) * sizeof(float));
      const F v = Vec::load(count - i < kWidth ? lanes : x + start + i);
      const F place = Vec::fma(Vec::sub(v, from), scale, Vec::set1(1.0f));
      Vec::storei(bin + i, Vec::to_int(Vec::min(Vec::max(place, first), last)));
    }
    for (int i = 0; i < count; ++i) {
      ++counters[bin[i]][i % 4];
      any[bin[i]] = x[start + i];
    }
  }
}

void clear_forbidden(const uint32_t* words, float* x) {
  const F minus_inf = Vec::set1(-INFINITY);
  for (int i = 0; i < kBlock; i += kWidth)
    Vec::store(x + i, Vec::where(words[i / 32] >> i % 32, Vec::load(x + i), minus_inf));
}

size_t places_within(const float* x, size_t n, float low, float high, int32_t* places) {
  const F from = Vec::set1(low), to = Vec::set1(high), nan = Vec::set1(NAN);
  size_t count = 0;
  for (size_t i = 0; i < n; i += 64) {
    uint64_t word = 0;
    for (size_t k = 0; k < 64 && i + k < n; k += kWidth) {
      const size_t left = n - i - k;
      const float* at = x + i + k;
      const F v = left >= size_t(kWidth) ? Vec::load(at) : Vec::load_first(at, left, nan);
      word |= uint64_t(Vec::mask_within(v, from, to)) << k;
    }
    count += Vec::write_bits(word, int32_t(i), places + count);
  }
  return count;
}

float largest_below(const float* x, size_t n, float tau) {
  const F bound = Vec::set1(tau);
  F largest = Vec::set1(-INFINITY);
  size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) largest = Vec::max_below(largest, Vec::load(x + i), bound);
  if (i < n) largest = Vec::max_below(largest, load_some<F32>(x + i, n - i), bound);
  return Vec::hmax(largest);
}

size_t find(const float* x, size_t i, size_t n, float value) {
  const F v = Vec::set1(value);
  for (; i + kWidth <= n; i += kWidth) {
    const uint32_t mask = Vec::mask_eq(Vec::load(x + i), v);
    if (mask) return i + size_t(lowest_bit(mask));
  }
  while (i < n && x[i] != value) ++i;
  return i;
}

size_t count_at_least(const float* x, size_t n, float tau) {
  const F cut = Vec::set1(tau);
  size_t count = 0, i = 0;
  for (; i + kWidth <= n; i += kWidth) count += Vec::popcount(Vec::mask_ge(Vec::load(x + i), cut));
  if (i < n)
    count += Vec::popcount(Vec::mask_ge(Vec::load_first(x + i, n - i, Vec::set1(NAN)), cut));
  return count;
}

// Counts what reaches each of them: more work than a search, which surprises the processor at every
// step.
float kth_of_few(const float* x, size_t n, size_t k) {
  constexpr int kFewVectors = int(kFew) / kWidth;
  const F minus_inf = Vec::set1(-INFINITY), least = Vec::set1(float(k));
  F v[kFewVectors], reach[kFewVectors];
  FASTSAMPLE_UNROLL
  for (int i = 0; i < kFewVectors; ++i) {
    const size_t start = size_t(i * kWidth);
    v[i] = start < n ? load_some<F32>(x + start, n - start) : minus_inf;
    reach[i] = Vec::set1(0.0f);
  }
  for (size_t j = 0; j < n; ++j) {
    const F value = Vec::set1(x[j]);
    for (int i = 0; i < kFewVectors; ++i) reach[i] = Vec::count_up_to(reach[i], v[i], value);
  }
  F kth = minus_inf;
  FASTSAMPLE_UNROLL
  for (int i = 0; i < kFewVectors; ++i)
    kth = Vec::max(kth, Vec::where(Vec::mask_ge(reach[i], least), v[i], minus_inf));
  return Vec::hmax(kth);
}

// As above. What is behind the last does not matter.
float reaching_of_few(const float* x, const int64_t* weight, size_t n, int64_t target,
                      size_t* tied) {
  const F minus_inf = Vec::set1(-INFINITY);
  F tau = minus_inf;
  for (size_t i = 0; i < n; i += kWidth) {
    const F v = load_some<F32>(x + i, n - i);
    typename Vec::Sum64 reached[2] = {Vec::zero64(), Vec::zero64()};
    for (size_t j = 0; j < n; ++j) Vec::add64_up_to(reached, v, Vec::set1(x[j]), weight[j]);
    tau = Vec::max(tau, Vec::where(Vec::mask64_ge(reached, target), v, minus_inf));
  }
  const float found = Vec::hmax(tau);
  *tied = 0;
  for (size_t i = 0; i < n; i += kWidth)
    *tied += Vec::popcount(Vec::mask_eq(load_some<F32>(x + i, n - i), Vec::set1(found)));
  return found;
}

int64_t mass_at_least(const float* x, const int64_t* weight, size_t n, float tau) {
  const F cut = Vec::set1(tau);
  Vec::Sum64 sum = Vec::zero64();
  size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) sum = Vec::add64_ge(sum, weight + i, Vec::load(x + i), cut);
  if (i < n)  // of NaN none
    sum = Vec::add64_ge(sum, weight + i, Vec::load_first(x + i, n - i, Vec::set1(NAN)), cut);
  return Vec::hsum64(sum);
}

void clear_weights(const float* x, const int32_t* ids, size_t n, float tau, size_t last, bool kept,
                   int64_t* weight) {
  const F cut = Vec::set1(tau);
  for (size_t i = 0; i < n; i += kWidth) {
    const F v = Vec::load(x + i);
    uint32_t stay = Vec::mask_ge(v, cut);
    for (uint32_t tied = Vec::mask_eq(v, cut); tied; tied &= tied - 1) {
      const int lane = lowest_bit(tied);
      if (size_t(ids[i + size_t(lane)]) > last) stay &= ~(1u << lane);
    }
    Vec::clear64(weight + i, kept ? ~stay : stay);
  }
}

size_t keep(int32_t* ids, float* x, int64_t* weight, size_t n, float tau, size_t ties) {
  const F cut = Vec::set1(tau);
  size_t size = 0;
  for (size_t i = 0; i < n; i += kWidth) {
    const F v = Vec::load(x + i);
    const uint32_t there = n - i < size_t(kWidth) ? (1u << (n - i)) - 1 : ~0u;
    uint32_t tied = Vec::mask_eq(v, cut) & there;
    const uint32_t above = Vec::mask_ge(v, cut) & there & ~tied;
    size_t take = Vec::popcount(tied);
    if (take > ties) {  // the first of them, then: the lowest bits
      uint32_t left = tied;
      for (take = 0; take < ties; ++take) left &= left - 1;
      tied &= ~left;
    }
    ties -= take;
    const uint32_t stay = above | tied;
    Vec::keep(ids + i, stay, ids + size);
    if (weight) Vec::keep(weight + i, stay, weight + size);
    size += Vec::keep(x + i, stay, x + size);
  }
  return size;
}

inline uint64_t bits_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline double from_bits(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// One at a time, by operations that vectors of every instruction set have: compilers make some of
// it. A whole number below 2^52 is the low bits of that number plus 2^52.
FASTSAMPLE_FLATTEN void reweigh(int64_t* weight, size_t n, const Reweighing& how, int64_t* before) {
  constexpr double kWhole = 0x1p52, kRounded = 0x1.8p52;  // the latter for negative ones, too
  constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.69314718055994531;
  // 1 / k!, by falling k: 11 terms leave less than 2^-37 of e^r for |r| <= 0.35.
  constexpr double kTerms[] = {1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                               1.0 / 720,     1.0 / 120,    1.0 / 24,    1.0 / 6,
                               1.0 / 2,       1.0,          1.0};
  const Reweighing by = how;
  for (size_t i = 0; i < n; ++i) {
    const int64_t w = weight[i];
    before[i] = w;
    const double q = (from_bits(uint64_t(w) | bits_of(kWhole)) - kWhole) * by.per_total;
    const double a = fabs(q - by.aim);
    const double y = -by.steepness * (a * a / (a + by.width));
    const double lifted = y * kLog2E + kRounded;
    const double r = y - (lifted - kRounded) * kLn2;
    double e = kTerms[0];
    FASTSAMPLE_UNROLL
    for (int k = 1; k < 11; ++k) e = e * r + kTerms[k];
    const double scaled = from_bits(bits_of(e) + (bits_of(lifted) << 52));
    weight[i] = int64_t(bits_of(scaled * by.unit + kWhole) - bits_of(kWhole));
  }
}
