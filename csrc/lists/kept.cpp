#include "lists/kept.h"

#include <algorithm>
#include <numeric>

#include "lists/keys.h"

namespace fastsample {

void weigh_block(const Row& row, const Kept& kept, Exp2 exp2, size_t b, int64_t weight[kBlock]) {
  alignas(64) float scratch[kBlock];
  const float* x = row.values(b, scratch);
  int32_t ids[kBlock];
  std::iota(ids, ids + kBlock, int32_t(b * kBlock));
  const size_t count = std::min(row.left(b), size_t(kBlock));
  row.kernels->weigh(x, ids, count, row.block_max, exp2, weight);
  std::fill(weight + count, weight + kBlock, int64_t(0));
  if (kept.whole_row()) return;
  row.kernels->clear_weights(x, ids, kBlock, kept.tau, kept.last, true, weight);
}

const int64_t* kept_mass(const Row& row, const Kept& kept, Exp2 exp2, Workspace& workspace) {
  int64_t* mass = workspace.block_mass.reserve(row.blocks);
  if (kept.scale == exp2.scale) return mass;
  if (kept.whole_row()) {
    row.mass(exp2, INFINITY, mass, nullptr);
    return mass;
  }
  // From the last tie on, values have to be above the threshold.
  const size_t b = std::min(kept.last / kBlock, row.blocks);
  row.mass_of_blocks(0, b, exp2, kept.tau, mass);
  if (b == row.blocks) return mass;
  int64_t weight[kBlock];
  weigh_block(row, kept, exp2, b, weight);
  mass[b] = std::accumulate(weight, weight + kBlock, int64_t(0));
  row.mass_of_blocks(b + 1, row.blocks, exp2, next_above(kept.tau), mass);
  return mass;
}

size_t last_of_ties(const Row& row, Exp2 exp2, float tau, int64_t missing, int64_t* at_least,
                    const int64_t* above) {
  size_t last = 0;
  for (size_t b = 0; b < row.blocks; ++b) {
    const int64_t tied = at_least[b] - above[b];
    if (missing <= 0) {
      at_least[b] = above[b];
    } else if (tied > 0 && tied < missing) {
      missing -= tied;
    } else if (tied > 0) {
      int64_t weight[kBlock];
      Kept only_ties;
      only_ties.tau = tau;
      weigh_block(row, only_ties, exp2, b, weight);
      alignas(64) float scratch[kBlock];
      const float* x = row.values(b, scratch);
      at_least[b] = above[b];
      for (size_t i = 0; i < size_t(kBlock) && missing > 0; ++i)
        if (x[i] == tau) {
          missing -= weight[i];
          at_least[b] += weight[i];
          last = b * kBlock + i;
        }
    }
  }
  return last;
}

void make_list(const Row& row, Kept& kept, Survivors& list) {
  list.clear();
  list.collect(row, kept.tau, INFINITY, kAllTies, kNoLimit);
  list.keep(row, kept);
  kept.listed = true;
}

}  // namespace fastsample
