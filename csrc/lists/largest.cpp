#include "lists/largest.h"

#include <algorithm>
#include <cfloat>

#include "lists/histogram.h"
#include "lists/search.h"

namespace fastsample {

namespace {

// Lists at least the k largest values, given a bound that k of them reach.
void list_from_bound(const Row& row, float bound, size_t k, Survivors& list) {
  if (list.collect(row, bound, INFINITY, k, 4 * k + 1024)) return;
  // A sorted row has its largest values in few blocks, of which the last may be short: what these
  // hold is a better bound.
  const size_t few = std::min(row.blocks, k / 64 + 2);
  const float best = kth_largest(row, row.block_max, row.blocks, bound, few);
  list.clear();
  list.collect_best(row, best, bound);
  if (list.size >= k) bound = kth_largest(row, list.x, list.size, list.lower_bound, k);
  list.clear();
  list.collect(row, bound, INFINITY, k, kNoLimit);
}

// Lists the values from `bound` on, or, where these are many more than they should be, enough of
// them. Says whether they are k.
bool list_from(const Row& row, float bound, size_t k, double count, Survivors& list) {
  list.clear();
  if (!list.collect(row, bound, INFINITY, k, size_t(1.5 * count) + 2048)) {
    // Equal values crowd above the bound. What is here by now gives a better one.
    bound = kth_largest(row, list.x, list.size, list.lower_bound, k);
    list.clear();
    list.collect(row, bound, INFINITY, k, kNoLimit);
  }
  return list.size >= k;
}

// The same for any k: by a guess, a lower one, or else all.
void list_by_guess(const Row& row, Exp2 exp2, size_t k, Survivors& list) {
  const double some = 1.1 * double(k) + 250.0, more = 4.0 * double(k) + 1000.0;
  if (some < double(row.n)) {
    const Histogram guess(row, exp2, Histogram::kCount);
    if (list_from(row, guess.with_count(some), k, some, list)) return;
    if (more < double(row.n) && list_from(row, guess.with_count(more), k, more, list)) return;
  }
  list_from(row, -FLT_MAX, k, double(row.n), list);
}

// Where blocks are no fewer than k: k of them hold at least one value each that reaches the k-th
// largest block maximum.
float bound_by_blocks(const Row& row, size_t k) {
  float bound;
  do bound = kth_largest(row, row.block_max, row.blocks, row.lowest_max, k, k / 8);
  while (row.settle(bound));
  return bound;
}

// Whether a short row's maxima of lanes give a better bound than those of its blocks, and than a
// guess, which takes some 200 values more than it is asked for: of k values, about half of k * k by
// the number of lanes share one with a larger value.
bool are_told_apart(const Row& row, size_t k) {
  const size_t lanes = row.blocks * kLanes;
  return row.lane_max && k > row.blocks / 2 && k <= lanes && k * k <= 200 * lanes;
}

}  // namespace

void keep_top_k(const Row& row, Survivors& list, size_t k) {
  if (k >= list.size) return;
  const float tau = kth_largest(row, list.x, list.size, list.lower_bound, k);
  const size_t above = row.kernels->count_at_least(list.x, list.size, next_above(tau));
  list.keep(row, tau, k - above);
}

void list_top_k(const Row& row, Exp2 exp2, size_t k, Survivors& list) {
  list.clear();
  if (are_told_apart(row, k))
    list_from_bound(row, list.bound_by_lanes(row, k), k, list);
  else if (k <= row.blocks)
    list_from_bound(row, bound_by_blocks(row, k), k, list);
  else
    list_by_guess(row, exp2, k, list);
  keep_top_k(row, list, k);
}

}  // namespace fastsample
