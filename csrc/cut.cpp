#include "cut.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "params.h"

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace fastsample {

namespace {

constexpr size_t kAllTies = std::numeric_limits<size_t>::max();

// Floats as integers of the same order (-0 just below +0).
int32_t to_key(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
float from_key(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
float next_above(float x) { return x == FLT_MAX ? INFINITY : from_key(to_key(x + 0.0f) + 1); }

int lowest_bit(uint64_t word) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, word);
  return int(index);
#else
  return __builtin_ctzll(word);
#endif
}

// The largest tau in [low, high] with measure(tau) >= target, where measure falls as tau rises and
// measure(low) >= target. Stops early at a tau that measures exactly the target: it cuts the same.
template <class T, class Measure>
float highest_reaching(float low, float high, T target, Measure measure) {
  int64_t a = to_key(low), b = int64_t(to_key(high)) + 1;
  while (b - a > 1) {
    const int64_t mid = a + (b - a) / 2;
    const T measured = measure(from_key(int32_t(mid)));
    if (measured == target) return from_key(int32_t(mid));
    (measured > target ? a : b) = mid;
  }
  return from_key(int32_t(a));
}

float kth_largest(const Kernels* kernels, const float* x, size_t n, size_t k) {
  const auto [low, high] = std::minmax_element(x, x + n);
  return highest_reaching(*low, *high, k,
                          [&](float tau) { return kernels->count_at_least(x, n, tau); });
}

// ln(m) for m in (0, 1], from correctly rounded operations alone: the same on every machine.
// m = f * 2^e, ln f = 2 artanh((f - 1) / (f + 1)) by its series; |z| <= 0.172, so 12 terms leave
// less than 2^-60.
double natural_log(double m) {
  int e;
  double f = std::frexp(m, &e);
  if (f < 0.70710678118654752) {
    f *= 2.0;
    --e;
  }
  const double z = (f - 1.0) / (f + 1.0), z2 = z * z;
  double series = 0.0;
  for (int k = 23; k >= 1; k -= 2) series = series * z2 + 1.0 / k;
  return e * 0.69314718055994531 + 2.0 * z * series;
}

int64_t share_of(double p, int64_t total) {
  const double share = std::ceil(p * double(total));
  return std::clamp(int64_t(share), int64_t(1), total);
}

// Appends, by rising id, the values >= tau; of those equal to tau only the first `ties`.
void collect(const Row& row, float tau, size_t ties, Survivors& list) {
  alignas(64) float scratch[kBlock];
  const float above = next_above(tau);
  float lowest = ties ? tau : above;
  for (size_t b = 0; b < row.blocks; ++b) {
    if (row.block_max[b] < lowest) continue;
    uint64_t bits[kBlock / 64];
    row.ops().at_least(row.block(b), row.left(b), lowest, bits);
    if (lowest == tau && ties != kAllTies) {
      uint64_t strict[kBlock / 64];
      row.ops().at_least(row.block(b), row.left(b), above, strict);
      for (int w = 0; w < kBlock / 64; ++w) {
        uint64_t equal = bits[w] & ~strict[w];
        for (; equal && ties; --ties) equal &= equal - 1;
        bits[w] &= ~equal;
      }
      if (ties == 0) lowest = above;
    }
    list.reserve(list.size + kBlock);
    const float* x = row.values(b, scratch);
    for (int w = 0; w < kBlock / 64; ++w)
      for (uint64_t word = bits[w]; word; word &= word - 1) {
        const int i = w * 64 + lowest_bit(word);
        list.ids[list.size] = int32_t(b * kBlock) + i;
        list.x[list.size++] = x[i];
      }
  }
}

void keep_top_k(const Kernels* kernels, Survivors& list, size_t k) {
  if (k >= list.size) return;
  const float tau = kth_largest(kernels, list.x, list.size, k);
  const size_t above = kernels->count_at_least(list.x, list.size, next_above(tau));
  list.keep(tau, k - above);
}

void collect_top_k(const Row& row, size_t k, Survivors& list) {
  // k blocks hold at least one value each that reaches the k-th largest block maximum.
  float bound = -FLT_MAX;
  if (k <= row.blocks)
    bound = std::max(bound, kth_largest(row.kernels, row.block_max, row.blocks, k));
  collect(row, bound, k, list);
  keep_top_k(row.kernels, list, k);
}

// The shortest prefix in (value desc, index asc) whose mass reaches `target`, but at least
// `at_least` tokens. The list is weighed, and has the mass.
void keep_top_p(const Kernels* kernels, Survivors& list, int64_t target, size_t at_least) {
  const auto mass = [&](float tau) {
    return kernels->mass_at_least(list.x, list.weight, list.size, tau);
  };
  const auto [low, high] = std::minmax_element(list.x, list.x + list.size);
  const float tau = highest_reaching(*low, *high, target, mass);
  const float above = next_above(tau);
  const size_t more = kernels->count_at_least(list.x, list.size, above);
  int64_t reached = mass(above);
  size_t ties = 0;
  // Equal values in different blocks may differ in the last bits of their weights.
  for (size_t i = 0; i < list.size && reached < target; ++i)
    if (list.x[i] == tau) {
      reached += list.weight[i];
      ++ties;
    }
  if (more + ties < at_least)
    keep_top_k(kernels, list, at_least);
  else
    list.keep(tau, ties);
}

// Guesses a value such that what is below it weighs less than `allowed`, from 16 blocks spread over
// the row: a histogram of their values in steps of 1/8 bit of weight, summed from the light end.
// Only a guess: the caller checks what it collects.
float guess_tail(const Row& row, Exp2 exp2, double allowed) {
  constexpr int kSteps = 8, kBins = 42 * kSteps;
  uint32_t count[kBins + 1] = {};
  alignas(64) float scratch[kBlock];
  const size_t stride = std::max<size_t>(1, row.blocks / 16);
  size_t sampled = 0;
  for (size_t b = stride / 2; b < row.blocks; b += stride) {
    const float* x = row.values(b, scratch);
    for (int i = 0; i < kBlock; ++i) {
      const float step = (row.max - x[i]) * exp2.scale * kSteps;
      ++count[step < float(kBins) ? int(step) : kBins];
    }
    sampled += kBlock;
  }
  double weight = std::ldexp(double(row.n) / double(sampled), kUnitBits - 42);
  double tail = 0.0;
  for (int bin = kBins - 1; bin >= 0; --bin) {
    weight *= 1.0905077326652577;  // 2^(1/8): the upper edge of the bin
    tail += count[bin] * weight;
    if (tail > allowed) return row.max - float(bin + 1) / (exp2.scale * kSteps);
  }
  return row.max;
}

void collect_top_p(const Row& row, Exp2 exp2, double p, size_t at_least, Workspace& workspace) {
  int64_t* block_mass = workspace.block_mass.reserve(row.blocks);
  row.ops().mass(row.data, row.n, row.block_max, exp2, -INFINITY, block_mass);
  int64_t total = 0;
  for (size_t b = 0; b < row.blocks; ++b) total += block_mass[b];
  const int64_t target = share_of(p, total);

  // Candidates: enough of the largest values to reach the target. A peaked row has them in the few
  // blocks of the largest maxima, a flat one needs the guess.
  Survivors& list = workspace.survivors;
  const size_t few = std::min<size_t>(row.blocks, 32);
  const float head = kth_largest(row.kernels, row.block_max, row.blocks, few);
  for (double margin : {0.75, 0.1, 0.0}) {
    float tau = -FLT_MAX;
    if (margin > 0.0)
      tau = std::max(tau, std::min(head, guess_tail(row, exp2, margin * double(total - target))));
    list.clear();
    collect(row, tau, kAllTies, list);
    list.weigh(row, exp2);
    if (list.size >= at_least && list.mass() >= target) break;
  }
  keep_top_p(row.kernels, list, target, at_least);
}

}  // namespace

void Survivors::reserve(size_t n) {
  n += 16;  // kernels work on whole vectors
  ids = ids_.reserve(n, size);
  x = x_.reserve(n, size);
}

void Survivors::weigh(const Row& row, Exp2 exp2) {
  if (scale_ == exp2.scale) return;
  scale_ = exp2.scale;
  const size_t padded = size + 16;
  int32_t* shift = shift_.reserve(padded);
  weight = weight_.reserve(padded);
  size_t block = row.blocks;
  int32_t block_shift = 0;
  for (size_t i = 0; i < size; ++i) {
    const size_t b = size_t(ids[i]) / kBlock;
    if (b != block) {
      block = b;
      block_shift = kUnitBits - kMantissaBits + block_exponent(row.block_max[b], exp2);
    }
    shift[i] = block_shift;
  }
  for (size_t i = size; i < padded; ++i) {
    shift[i] = 0;
    x[i] = -INFINITY;
  }
  row.kernels->weigh(x, size, exp2, shift, weight);
}

void Survivors::keep(float tau, size_t ties) {
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    const bool tied = x[i] == tau;
    if (x[i] < tau || (tied && ties == 0)) continue;
    if (tied && ties != kAllTies) --ties;
    ids[kept] = ids[i];
    x[kept] = x[i];
    if (scale_ != 0.0f) weight[kept] = weight[i];
    ++kept;
  }
  size = kept;
}

int64_t Survivors::mass() const {
  int64_t total = 0;
  for (size_t i = 0; i < size; ++i) total += weight[i];
  return total;
}

void collect_all(const Row& row, Survivors& list) { collect(row, -FLT_MAX, kAllTies, list); }

Cut cut(const Row& row, const fs_params& params, Workspace& workspace) {
  Survivors& list = workspace.survivors;
  list.clear();
  if (params.temperature == 0.0) {
    collect(row, row.max, 1, list);
    return {false, {row.max, exp2_scale(1.0)}};
  }

  const size_t at_least = size_t(params.min_tokens_to_keep);
  double temperature = 1.0;
  bool whole_row = true;
  for (const uint8_t* stage = params.order; stage != params.order + 8 && *stage; ++stage) {
    if (!is_active(params, *stage)) continue;
    const Exp2 exp2{row.max, exp2_scale(temperature)};
    switch (*stage) {
      case FS_STAGE_TEMPERATURE:
        temperature = params.temperature;
        continue;
      case FS_STAGE_TOP_K: {
        const size_t k = std::max(size_t(params.top_k), at_least);
        if (k >= row.n) continue;
        if (whole_row)
          collect_top_k(row, k, list);
        else
          keep_top_k(row.kernels, list, k);
        break;
      }
      case FS_STAGE_TOP_P:
        if (whole_row) {
          collect_top_p(row, exp2, params.top_p, at_least, workspace);
        } else {
          list.weigh(row, exp2);
          keep_top_p(row.kernels, list, share_of(params.top_p, list.mass()), at_least);
        }
        break;
      case FS_STAGE_MIN_P: {
        const double tau = double(row.max) + temperature * natural_log(params.min_p);
        const float bound = float(std::max(tau, double(-FLT_MAX)));
        if (whole_row) {
          collect(row, bound, kAllTies, list);
          if (list.size < at_least) {
            list.clear();
            collect_top_k(row, at_least, list);
          }
        } else if (row.kernels->count_at_least(list.x, list.size, bound) < at_least) {
          keep_top_k(row.kernels, list, at_least);
        } else {
          list.keep(bound, kAllTies);
        }
        break;
      }
    }
    whole_row = false;
  }
  return {whole_row, {row.max, exp2_scale(temperature)}};
}

}  // namespace fastsample
