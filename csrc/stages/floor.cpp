// What stages that keep the largest values have in common.
#include <algorithm>

#include "elementary.h"
#include "lists/largest.h"
#include "lists/search.h"
#include "stages/stage.h"

namespace fastsample {

namespace {

// About how many values reach tau, by 16 of the blocks that have any.
size_t expected_count(const Row& row, float tau) {
  size_t blocks = 0, looked_at = 0, found = 0;
  for (size_t b = 0; b < row.blocks; ++b) blocks += row.block_max[b] >= tau;
  for (size_t b = 0, skip = 0; b < row.blocks; ++b) {
    if (row.block_max[b] < tau) continue;
    if (skip > 0) {
      --skip;
      continue;
    }
    skip = blocks / 16;
    found += count_in_block(row, b, tau, INFINITY);
    ++looked_at;
  }
  return looked_at ? found * blocks / looked_at : 0;
}

}  // namespace

bool has_at_least(const Row& row, const Kept& kept, size_t count) {
  if (count <= 1) return true;
  alignas(64) float scratch[kBlock];
  size_t seen = 0;
  for (size_t b = 0; b < row.blocks && seen < count; ++b) {
    if (row.block_max[b] < kept.tau) continue;
    const float* x = row.values(b, scratch);
    for (size_t i = 0; i < size_t(kBlock); ++i) seen += kept.has(x[i], b * kBlock + i);
  }
  return seen >= count;
}

void list_if_short(Cutting& cutting) {
  const Row& row = cutting.row;
  Kept& kept = cutting.kept;
  // Mostly few are left, and a list of them is cheaper than another pass over the row.
  kept.listed = expected_count(row, kept.tau) < short_list(row);
  if (!kept.listed) return;
  cutting.list().collect(row, kept.tau, INFINITY, kAllTies, kNoLimit);
  if (kept.last != kNoLimit) cutting.list().keep(row, kept);
}

void keep_largest(Cutting& cutting, size_t k) {
  Survivors& list = cutting.list();
  if (cutting.kept.listed) {
    keep_top_k(cutting.row, list, k);
    return;
  }
  list_top_k(cutting.row, cutting.exp2(), k, list);
  list.keep(cutting.row, cutting.kept);
  cutting.kept.listed = true;
}

float value_of(const Cutting& cutting, double log_weight) {
  const double value = double(cutting.row.max) + cutting.temperature * log_weight;
  return float(std::max(value, double(-FLT_MAX)));
}

void keep_weight(Cutting& cutting, double weight) {
  // What is 0 in float64 is less than any weight.
  if (weight > 0.0) keep_floor(cutting, value_of(cutting, natural_log(weight)));
}

void keep_floor(Cutting& cutting, float bound) {
  const Row& row = cutting.row;
  if (bound > row.max) return keep_largest(cutting, cutting.at_least);
  Survivors& list = cutting.list();
  Kept& kept = cutting.kept;
  if (kept.listed) {
    if (row.kernels->count_at_least(list.x, list.size, bound) < cutting.at_least)
      keep_largest(cutting, cutting.at_least);
    else
      list.keep(row, bound, kAllTies);
    return;
  }
  Kept narrower;
  narrower.tau = bound;
  if (!has_at_least(row, narrower, cutting.at_least)) {
    keep_largest(cutting, cutting.at_least);
  } else if (bound > kept.tau) {
    kept = narrower;
    list_if_short(cutting);
  }
}

}  // namespace fastsample
