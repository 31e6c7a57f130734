// Where a measure of values, their number or their mass, reaches a target.
#pragma once

#include <algorithm>

#include "lists/keys.h"
#include "lists/survivors.h"
#include "row/scan.h"

namespace fastsample {

// The largest tau in [low, high) with measure(tau) >= target: one of the n values that are
// measured. Where `enough` is no less than the target, any tau whose measure lies between the two
// will do. measure falls as tau rises; it is at_low >= target > 0 at low, and 0 at high.
//
// By turns: a little beyond where a straight line has it, on the side that was not narrowed last;
// the largest value that may be it; and halfway in the order of floats, which bounds the number of
// turns whatever the values.
template <class T, class Measure>
float highest_reaching(const Kernels* kernels, const float* x, size_t n, float low, float high,
                       T at_low, T target, Measure measure, T enough = 0) {
  T at_high = 0;
  enum { kLine, kLineAgain, kLargest, kHalfway, kTurns };
  bool low_was_last = false;
  for (int round = 0;; ++round) {
    const int64_t a = to_key(low), b = to_key(high);
    if (b - a <= 1 || at_low <= enough) return low;
    const int turn = round % kTurns;
    float mid = from_key(int32_t(a + (b - a) / 2));
    if (turn == kLine || turn == kLineAgain) {
      const double part = double(at_low - target) / double(at_low - at_high);
      const double beyond = low_was_last ? part + 0.0625 : part - 0.0625;
      const auto line =
          float(low + std::clamp(beyond, 0.015625, 0.984375) * (double(high) - double(low)));
      if (line > low && line < high) mid = line;
    } else if (turn == kLargest) {
      mid = kernels->largest_below(x, n, high);
      if (mid <= low) return low;
    }
    const T at_mid = measure(mid);
    low_was_last = at_mid >= target;
    if (!low_was_last) {
      high = mid;
      at_high = at_mid;
    } else {
      low = mid;
      at_low = at_mid;
      if (turn == kLargest) return low;
    }
  }
}

// The k-th largest of some of a row's values, or less, but not so little that more than `spare`
// lower ones reach it; `low` where fewer than k are at least that.
inline float kth_largest(const Row& row, const float* x, size_t n, float low, size_t k,
                         size_t spare = 0) {
  const auto count = [&](float tau) { return row.kernels->count_at_least(x, n, tau); };
  const size_t in_all = count(low);
  if (in_all < k) return low;
  if (n <= kFew) return row.kernels->kth_of_few(x, n, k);
  return highest_reaching(row.kernels, x, n, low, next_above(row.max), in_all, k, count, k + spare);
}

// A list is worth making while it is short against the row.
inline size_t short_list(const Row& row) { return std::max(kShortList, row.n / 16); }

inline size_t count_in_block(const Row& row, size_t b, float low, float high) {
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  return row.kernels->count_at_least(x, kBlock, low) - row.kernels->count_at_least(x, kBlock, high);
}

}  // namespace fastsample
